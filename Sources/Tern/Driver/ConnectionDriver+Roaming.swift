// SPDX-License-Identifier: Apache-2.0

public import NIOCore

// Who moves the connection: the application, its automatic policy, or nobody.
extension ConnectionDriver {
    /// Puts the published policy in force. On the event loop.
    func applyMigrationPolicy() {
        guard closeReason == nil, role == .client else { return }
        let wanted = published.withLock { $0.migration }
        let remote: NetworkAddress?? = withConnection { connection, _ in
            connection.isMigrationDisabled = wanted.mode == .disabled
            guard connection.isHandshakeConfirmed else { return nil }
            return connection.pathSnapshot(connection.activePath)?.tuple.remote
        }
        guard wanted.mode == .automatic else {
            roamer?.resign()
            return
        }
        // Otherwise the handshake's confirmation begins it.
        guard let remote = remote ?? nil else { return }
        guard let transportConfiguration = transportConfiguration?.value else { return }
        let roamer = roamer ?? Roamer(driver: self, configuration: transportConfiguration)
        self.roamer = roamer
        roamer.start(wanted.settings, remote: remote)
    }

    func subscribeToDecisions(limit: Int) -> AsyncStream<PolicyDecision> {
        let (decisions, continuation) = AsyncStream.makeStream(
            of: PolicyDecision.self, bufferingPolicy: .bufferingNewest(limit))
        worker.onLoop {
            for decision in self.roamer?.decisions ?? [] { continuation.yield(decision) }
            guard self.closeReason == nil else { return continuation.finish() }
            let number = self.nextSubscriber
            self.nextSubscriber += 1
            self.decisionSubscribers[number] = continuation
            continuation.onTermination = { [weak self] _ in
                guard let self else { return }
                worker.onLoop { self.decisionSubscribers[number] = nil }
            }
        }
        return decisions
    }
}

extension Connection {
    /// Who moves the connection between networks (client). Set by `ConnectionConfiguration.migration` at first, `.manual`
    /// unless that says otherwise; may be changed at any time.
    ///
    /// With `.automatic` no further line is needed: the connection finds the host's networks by the transport's
    /// ``TransportConfiguration/networkMonitor``, opens sockets on them, keeps a standby, and moves when its network is lost
    /// or degrades, or when a better one appears. ``policyDecisions`` says what it does and why. The sockets are closed with
    /// the connection.
    public var migration: MigrationPolicy {
        get { driver.published.withLock { $0.migration } }
        nonmutating set {
            driver.published.withLock { $0.migration = newValue }
            driver.worker.onLoop { [driver] in driver.applyMigrationPolicy() }
        }
    }

    /// What the automatic policy decides and why (M38), the last 64 decisions first. Ends with the connection.
    public var policyDecisions: AsyncStream<PolicyDecision> {
        driver.subscribeToDecisions(limit: Connection.pathEventLimit)
    }
}

extension Transport {
    /// Opens a socket on a network, of the family of a peer, tied to the network's interface if it names one.
    public static func bind(
        network: LocalNetwork, towards remote: NetworkAddress, on eventLoop: (any EventLoop)? = nil,
        configuration: TransportConfiguration = TransportConfiguration()
    ) async throws(TernError) -> Transport {
        guard let address = network.address(towards: remote) else {
            throw .addressFamilyUnavailable(remote.family)
        }
        return try await bind(
            to: address.withPort(0), device: network.interface, on: eventLoop, configuration: configuration)
    }
}
