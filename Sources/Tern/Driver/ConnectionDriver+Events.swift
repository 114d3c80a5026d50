// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

extension ConnectionDriver {
    /// Hands the engine's events to those who wait for them.
    /// - Returns: whether there were any.
    @discardableResult
    func deliverEvents(_ connection: inout QUICConnection, now: Instant) -> Bool {
        var hasEvents = false
        var pathsChanged = false
        while let event = connection.nextEvent() {
            hasEvents = true
            switch event {
            case .handshakeCompleted:
                publishInitially(connection)
                established(&connection, now: now)
            case .handshakeConfirmed:
                for wait in confirmationWaits { wait.resume(returning: ()) }
                confirmationWaits = []
                if published.withLock({ $0.migration.mode }) == .automatic {
                    worker.eventLoop.execute { self.applyMigrationPolicy() }
                }
            case .streamOpened(let id):
                incomingStreams.put(Stream(id: id, driver: self))
            case .streamReadable(let id):
                serveReader(of: id, &connection)
            case .streamWritable(let id):
                serveWriters(of: id, &connection)
            case .streamSendClosed:
                break
            case .streamStopped(let id, let code):
                failWriters(of: id, StreamError.stoppedByPeer(code: code))
            case .streamsAvailable(let direction):
                serveOpeners(direction, &connection)
            case .preferredAddressOffered(let addresses):
                followPreferredAddress(addresses, of: &connection, now: now)
            case .path(let event):
                pathsChanged = true
                roamer?.note(event)
                if pathSubscribers.isEmpty && probeWaits.isEmpty { continue }
                // What a subscriber reads from the handles when it hears of the event is not older than the event.
                publish(connection)
                deliver(event)
            case .closed(let reason):
                publish(connection)
                published.withLock { [statistics = connection.statistics] in $0.finalStatistics = statistics }
                ended(reason)
            }
        }
        if pathsChanged { publish(connection) }
        roamer?.noteActivity(hasOpenStreams: connection.hasOpenStreams)
        return hasEvents
    }

    private func established(_ connection: inout QUICConnection, now: Instant) {
        switch establishment {
        case .connecting(let suspension):
            establishment = .done
            suspension.resume(returning: ())
        case .accepting(let listener):
            establishment = .done
            if !listener.deliver(Connection(driver: self)) {
                connection.close(applicationErrorCode: 0, reason: "the server no longer accepts connections", now: now)
            }
        case .done: break
        }
    }

    private func deliver(_ event: PathEvent) {
        logger.debug("path event", metadata: ["event": "\(event)"])
        for subscriber in pathSubscribers.values { subscriber.yield(event) }
        switch event {
        case .validated(let path, let rtt, let challenges):
            let report = ProbeReport(rtt: rtt.duration, challenges: challenges)
            for wait in probeWaits.removeValue(forKey: path) ?? [] { wait.resume(returning: report) }
        case .failed(let path, let failure):
            let error: MigrationError
            switch failure {
            case .noResponse, .datagramsTooLarge: error = .timedOut(path)
            case .noConnectionIDAvailable: error = .noConnectionIDAvailable(path)
            case .transportLost: error = .transportLost(path)
            // One refused datagram; the challenge is repeated until the probe's timeout.
            case .sendError: return
            }
            failProbes(of: path, error)
        case .closed(let path):
            failProbes(of: path, .unknownPath(path))
        default: break
        }
    }

    private func failProbes(of path: PathID, _ error: MigrationError) {
        for wait in probeWaits.removeValue(forKey: path) ?? [] { wait.resume(throwing: error) }
    }

    /// The connection is over for the application: everyone who waits hears why. Harmless when repeated.
    func ended(_ reason: CloseReason) {
        guard closeReason == nil else { return }
        closeReason = reason
        published.withLock { $0.closeReason = reason }
        logger.debug("connection ended", metadata: ["reason": "\(reason)"])
        switch establishment {
        case .connecting(let suspension): suspension.resume(throwing: reason)
        case .accepting(let listener): listener.handshakeFailed()
        case .done: break
        }
        establishment = .done
        let waits = streamWaits
        streamWaits = [:]
        for var wait in waits.values { wait.fail(reason) }
        openWaits.fail(reason)
        for wait in probeWaits.values.joined() { wait.resume(throwing: reason) }
        probeWaits = [:]
        for wait in confirmationWaits { wait.resume(throwing: reason) }
        confirmationWaits = []
        for wait in closeWaits { wait.resume(returning: reason) }
        closeWaits = []
        incomingStreams.finish()
        for subscriber in pathSubscribers.values { subscriber.finish() }
        pathSubscribers = [:]
        roamer?.stop()
        for subscriber in decisionSubscribers.values { subscriber.finish() }
        decisionSubscribers = [:]
    }
}
