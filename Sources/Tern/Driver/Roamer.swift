// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore

/// Runs the automatic policy of one connection (M35 to M38): tells it of networks, paths and time, opens the sockets that it
/// wants and closes those that it is done with.
///
/// `@unchecked Sendable`: touched on the connection's event loop alone; the monitor's reports hop there.
final class Roamer: @unchecked Sendable {
    private unowned let driver: ConnectionDriver
    private let eventLoop: any EventLoop
    private let monitor: NetworkMonitor
    /// Of the sockets that it opens.
    private let configuration: TransportConfiguration
    /// Nil while the application has the automatic policy switched off.
    private var policy: MigrationPolicyEngine?
    private var networks: [LocalNetwork] = []
    private var subscription: UInt64?
    /// Sockets of our own.
    private var transports: [MigrationPolicyEngine.CandidateID: Transport] = [:]
    /// That which the connection ran over when the policy was switched off.
    private var inherited: [Transport] = []
    /// Paths that the policy knows, and the networks that they run over.
    private var networkOfPath: [PathID: NetworkID] = [:]
    private var waitingEvents: [PathEvent] = []
    private var hasOpenStreams = false
    private var isProcessScheduled = false
    private var timer: Scheduled<Void>?
    private var isShutDown = false
    /// The last decisions, for those who listen later.
    private(set) var decisions: [PolicyDecision] = []

    static let decisionLimit = 64

    var transportCountForTesting: Int { transports.count + inherited.count }

    init(driver: ConnectionDriver, configuration: TransportConfiguration) {
        self.driver = driver
        self.eventLoop = driver.worker.eventLoop
        self.monitor = configuration.networkMonitor
        self.configuration = configuration
    }

    // MARK: Beginning and end

    /// The handshake is confirmed, or the application wants the policy from now on.
    func start(_ settings: AutomaticMigration, remote: NetworkAddress) {
        resign()
        // The system's networks do not lead to this host itself.
        guard !isShutDown, !(monitor.isSystem && remote.isLoopback) else { return }
        subscription = monitor.subscribe { [weak self] networks in
            guard let self else { return }
            eventLoop.execute { self.networksChanged(networks) }
        }
        networks = monitor.networks
        waitingEvents = []
        let available = monitor.preference.available(networks)
        var policy = MigrationPolicyEngine(settings: settings)
        _ = driver.withConnection { connection, now in
            let path = connection.activePath
            let network = network(of: path, connection)
            networkOfPath[path] = network
            hasOpenStreams = connection.hasOpenStreams
            policy.start(
                on: path, over: network, networks: available, priorities: connection.pathPriorities,
                hasOpenStreams: hasOpenStreams, now: now)
        }
        self.policy = policy
        process()
    }

    /// The application moves the connection by itself from now on. The active path stays, those in reserve are closed.
    func resign() {
        stop()
        let ours = transports.values
        transports = [:]
        var closing: [Transport] = []
        _ = driver.withConnection { connection, now in
            connection.policyEnded()
            let paths = connection.pathSnapshots()
            for transport in ours {
                let over = paths.filter { path in transport.owns(path.tuple.transport) }
                if over.contains(where: \.isActive) {
                    inherited.append(transport)
                } else {
                    for path in over { try? connection.closePath(path.id, now: now) }
                    closing.append(transport)
                }
            }
        }
        for transport in closing { transport.closeOnLoop() }
    }

    /// Hears and does nothing any more.
    func stop() {
        if let subscription { monitor.unsubscribe(subscription) }
        subscription = nil
        timer?.cancel()
        timer = nil
        policy = nil
    }

    /// The connection is forgotten: nothing of ours may be left.
    func shutDown() {
        stop()
        isShutDown = true
        let open = transports.values + inherited
        transports = [:]
        inherited = []
        for transport in open { transport.closeOnLoop() }
    }

    // MARK: In

    func note(_ event: PathEvent) {
        guard policy != nil else { return }
        waitingEvents.append(event)
        scheduleProcess()
    }

    /// After each turn of the connection.
    func noteActivity(hasOpenStreams: Bool) {
        guard policy != nil, hasOpenStreams != self.hasOpenStreams else { return }
        self.hasOpenStreams = hasOpenStreams
        scheduleProcess()
    }

    private func networksChanged(_ new: [LocalNetwork]) {
        guard policy != nil else { return }
        networks = new
        let available = monitor.preference.available(new)
        _ = driver.withConnection { connection, now in
            // A network that got other addresses is there; the paths over the old ones are not.
            for path in connection.pathSnapshots() {
                guard let network = new.first(where: { $0.id == networkOfPath[path.id] }),
                    !network.hasAddress(path.tuple.local)
                else { continue }
                policy?.handle(.failed(path.id, .transportLost), now: now) { _ in nil }
            }
            policy?.networksChanged(available, now: now)
        }
        process()
    }

    private func network(of path: PathID, _ connection: borrowing QUICConnection) -> NetworkID? {
        guard let local = connection.pathSnapshot(path)?.tuple.local else { return nil }
        return networks.first { $0.hasAddress(local) }?.id
    }

    // MARK: Doing what the policy wants

    /// Events come while the connection is in use: the policy acts when that is over.
    private func scheduleProcess() {
        guard !isProcessScheduled else { return }
        isProcessScheduled = true
        eventLoop.execute {
            self.isProcessScheduled = false
            self.process()
        }
    }

    private func process() {
        guard policy != nil, driver.closeReason == nil else { return }
        var errands: [PolicyErrand] = []
        _ = driver.withConnection { connection, now in
            policy?.noteActivity(hasOpenStreams: hasOpenStreams, now: now)
            let events = waitingEvents
            waitingEvents = []
            for event in events {
                if case .closed(let path) = event { networkOfPath[path] = nil }
                policy?.handle(event, now: now) { network(of: $0, connection) }
            }
            if let deadline = policy?.nextDeadline, deadline <= now { policy?.handleDeadline(now: now) }
            guard var current = policy else { return }
            policy = nil
            while let errand = connection.nextErrand(of: &current, now: now) { errands.append(errand) }
            policy = current
        }
        for errand in errands {
            switch errand {
            case .open(let candidate, let network): open(candidate, on: network)
            case .close(let candidate): transports.removeValue(forKey: candidate)?.closeOnLoop()
            }
        }
        tellDecisions()
        arm()
    }

    private func open(_ candidate: MigrationPolicyEngine.CandidateID, on id: NetworkID) {
        guard let network = networks.first(where: { $0.id == id }),
            let remote = driver.published.withLock({ $0.activeTuple?.remote })
        else { return opened(candidate, on: id, .failure(.transportClosed)) }
        let loop = eventLoop
        let configuration = configuration
        // On a simulated host the clock waits for it.
        Task(executorPreference: driver.worker.simulation?.taskExecutor) {
            let result: Result<Transport, TernError>
            do throws(TernError) {
                result = .success(
                    try await Transport.bind(
                        network: network, towards: remote, on: loop, configuration: configuration))
            } catch {
                result = .failure(error)
            }
            loop.execute { self.opened(candidate, on: id, result, remote: remote) }
        }
    }

    private func opened(
        _ candidate: MigrationPolicyEngine.CandidateID, on network: NetworkID, _ result: Result<Transport, TernError>,
        remote: NetworkAddress? = nil
    ) {
        guard policy != nil, driver.closeReason == nil else {
            if case .success(let transport) = result { transport.closeOnLoop() }
            return
        }
        do {
            let transport = try result.get()
            transports[candidate] = transport
            guard let remote, let socket = transport.socket(for: remote.family) else { throw TernError.transportClosed }
            let tuple = FourTuple(
                transport: socket.id, local: try socket.localAddress(towards: remote), remote: remote)
            let added: Result<PathID, MigrationError>? = driver.withConnection { connection, now in
                do throws(MigrationError) {
                    let path = try connection.addPath(over: tuple)
                    networkOfPath[path] = network
                    policy?.opened(candidate, path: path, now: now)
                    return .success(path)
                } catch {
                    return .failure(error)
                }
            }
            _ = try added?.get()
        } catch {
            driver.logger.debug("no path over a network", metadata: ["network": "\(network)", "error": "\(error)"])
            transports.removeValue(forKey: candidate)?.closeOnLoop()
            policy?.openingFailed(candidate, error as? MigrationError, now: driver.worker.now())
        }
        process()
    }

    private func tellDecisions() {
        while let decision = policy?.nextDecision() {
            driver.logger.debug("migration policy", metadata: ["decision": "\(decision)"])
            if decisions.count >= Self.decisionLimit { decisions.removeFirst() }
            decisions.append(decision)
            for subscriber in driver.decisionSubscribers.values { subscriber.yield(decision) }
        }
    }

    private func arm() {
        timer?.cancel()
        timer = nil
        guard let deadline = policy?.nextDeadline else { return }
        timer = eventLoop.scheduleTask(
            deadline: .uptimeNanoseconds(UInt64(clamping: deadline.nanoseconds))
        ) { [weak self] in self?.process() }
    }
}
