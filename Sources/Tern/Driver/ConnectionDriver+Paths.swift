// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

// The four verbs, add, probe, switch, close, and what the application says of a path. Those that need a confirmed handshake
// wait for it.
extension ConnectionDriver {
    /// - Parameter remote: an address of the server's; nil for the one in use, or else one that the transport can reach.
    func addPath(over transport: Transport, to remote: NetworkAddress? = nil) async throws -> Path {
        guard transport.worker === worker else { throw TernError.transportOnAnotherEventLoop }
        return try await confirming {
            guard let remote = remote ?? self.remoteAddress(reachableOver: transport) else {
                return .failure(self.reasonForRefusal)
            }
            guard !transport.isClosed else { return .failure(TernError.transportClosed) }
            guard let socket = transport.socket(for: remote.family) else {
                return .failure(TernError.addressFamilyUnavailable(remote.family))
            }
            let local: NetworkAddress
            do throws(TernError) {
                local = try socket.localAddress(towards: remote)
            } catch {
                return .failure(error)
            }
            let tuple = FourTuple(transport: socket.id, local: local, remote: remote)
            return self.migrate { connection, _ throws(MigrationError) in
                let id = try connection.addPath(over: tuple)
                self.publish(connection)
                return Path(id: id, tuple: tuple, driver: self)
            }
        }
    }

    /// The server's address in use, if the transport has a socket of its family; else another one that it can reach.
    private func remoteAddress(reachableOver transport: Transport) -> NetworkAddress? {
        let (current, known) = published.withLock { ($0.activeTuple?.remote, $0.serverAddresses) }
        guard let current, role == .client, transport.socket(for: current.family) == nil else { return current }
        return known.first { transport.socket(for: $0.family) != nil } ?? current
    }

    func probe(_ path: PathID, timeout: Duration) async throws -> ProbeReport {
        let deadline = worker.now() + Nanoseconds(timeout)
        // Waiting for the confirmation counts: the caller's timeout is for all of it.
        try await confirming(timeout: timeout, path: path) { self.confirmation() }
        let rest = max(deadline - worker.now(), .zero)
        return try await worker.suspend(
            for: ProbeReport.self,
            onCancel: { suspension in self.cancelProbe(of: path, suspension) },
            start: { suspension in
                let started: Result<Void, any Error> = self.migrate { connection, now throws(MigrationError) in
                    try connection.probe(path, timeout: rest, now: now)
                }
                switch started {
                case .success: self.probeWaits[path, default: []].append(suspension)
                case .failure(let error): suspension.resume(throwing: error)
                }
            }
        ).get()
    }

    private func cancelProbe(of path: PathID, _ suspension: Suspension<ProbeReport>) {
        guard var waits = probeWaits[path] else { return }
        waits.removeAll { $0 === suspension }
        // Another task may await the same challenge.
        guard waits.isEmpty else {
            probeWaits[path] = waits
            return
        }
        probeWaits[path] = nil
        _ = withConnection { connection, _ in connection.cancelProbe(path) }
    }

    func switchPath(to path: PathID, withoutValidation: Bool) async throws {
        try await confirming {
            self.migrate { connection, now throws(MigrationError) in
                try connection.switchPath(to: path, withoutValidation: withoutValidation, now: now)
                self.publish(connection)
            }
        }
    }

    func closePath(_ path: PathID) async throws {
        try await confirming {
            self.migrate { connection, now throws(MigrationError) in
                do throws(MigrationError) {
                    try connection.closePath(path, now: now)
                } catch .unknownPath {
                    // Twice is harmless (M5).
                }
                self.publish(connection)
            }
        }
    }

    func setPriority(_ priority: PathPriority?, of path: PathID) async throws {
        try await worker.run {
            self.migrate { connection, now throws(MigrationError) in
                try connection.setPriority(priority, of: path, now: now)
                self.publish(connection)
            }
        }.get()
    }

    // MARK: On the event loop

    private func migrate<R>(
        _ body: (inout QUICConnection, Instant) throws(MigrationError) -> R
    ) -> Result<R, any Error> {
        guard closeReason == nil else { return .failure(reasonForRefusal) }
        let result: Result<R, any Error>? = withConnection { connection, now in
            do throws(MigrationError) {
                return .success(try body(&connection, now))
            } catch .connectionClosed(let reason) {
                return .failure(reason)
            } catch {
                return .failure(error)
            }
        }
        return result ?? .failure(reasonForRefusal)
    }

    private func confirmation() -> Result<Void, any Error> {
        guard closeReason == nil else { return .failure(reasonForRefusal) }
        let isConfirmed = worker.endpoint.withConnection(handle) { $0.isHandshakeConfirmed }
        return isConfirmed == false ? .failure(MigrationError.handshakeNotConfirmed) : .success(())
    }

    // MARK: Waiting for the confirmation

    /// Runs `body` on the loop, and once more when the handshake is confirmed if it said that it is not yet.
    private func confirming<R: Sendable>(
        timeout: Duration? = nil, path: PathID? = nil, _ body: @escaping @Sendable () -> Result<R, any Error>
    ) async throws -> R {
        let first = await worker.run(body)
        guard case .failure(let error) = first, (error as? MigrationError) == .handshakeNotConfirmed else {
            return try first.get()
        }
        try await worker.suspend(
            for: Void.self,
            onCancel: { suspension in self.confirmationWaits.removeAll { $0 === suspension } },
            start: { suspension in
                if case .failure(let error) = self.confirmation(), error is CloseReason {
                    return suspension.resume(throwing: error)
                }
                if case .success = self.confirmation() { return suspension.resume(returning: ()) }
                self.confirmationWaits.append(suspension)
                guard let timeout, let path else { return }
                self.worker.eventLoop.scheduleTask(in: TimeAmount(timeout)) {
                    self.confirmationWaits.removeAll { $0 === suspension }
                    suspension.resume(throwing: MigrationError.timedOut(path))
                }
            }
        ).get()
        return try await worker.run(body).get()
    }
}
