// SPDX-License-Identifier: Apache-2.0

public import NIOCore

/// A QUIC connection: streams of bytes to a peer, over paths that may change while it lives.
///
/// A handle: copies name the same connection, from any task. The connection itself lives until it is closed by either
/// side or hears nothing for its idle timeout, whether handles are left or not.
///
/// Calls on a connection that has ended throw its `CloseReason`.
public struct Connection: Sendable {
    let driver: ConnectionDriver

    /// The event loop that the connection runs on; transports for its paths must run there, too.
    public var eventLoop: any EventLoop { driver.worker.eventLoop }

    /// Which side we are.
    public var role: Role { driver.role }

    /// The protocol that TLS agreed on (ALPN).
    public var applicationProtocol: String { driver.published.withLock { $0.applicationProtocol } ?? "" }

    // MARK: Streams

    /// Opens a stream for both directions. Waits while the peer allows no more; can be cancelled. The peer learns of the
    /// stream with its first bytes, or its end.
    nonisolated(nonsending)
        public func openStream() async throws -> Stream
    {
        Stream(id: try await driver.openStream(.bidirectional), driver: driver)
    }

    /// Opens a stream for both directions and writes to it, in one call: for requests. Waits as ``openStream()`` does, but not
    /// for room, as a new stream holds nothing yet.
    ///
    /// - Parameters:
    ///   - bytes: written as by ``Stream/write(_:finishing:)-(ByteBuffer,_)``, without a copy.
    ///   - finishing: nothing follows; ends our direction.
    nonisolated(nonsending)
        public func openStream(writing bytes: ByteBuffer, finishing: Bool = false) async throws -> Stream
    {
        Stream(
            id: try await driver.openStream(.bidirectional, writing: bytes, finishing: finishing), driver: driver)
    }

    /// Opens a stream on which only we write.
    nonisolated(nonsending)
        public func openUnidirectionalStream() async throws -> Stream
    {
        Stream(id: try await driver.openStream(.unidirectional), driver: driver)
    }

    /// Opens a stream on which only we write, and writes to it, in one call; see ``openStream(writing:finishing:)``.
    nonisolated(nonsending)
        public func openUnidirectionalStream(writing bytes: ByteBuffer, finishing: Bool = false) async throws -> Stream
    {
        Stream(
            id: try await driver.openStream(.unidirectional, writing: bytes, finishing: finishing), driver: driver)
    }

    /// The streams that the peer opens, of both directions. How many are open at once is bounded by
    /// `ConnectionConfiguration.maxBidirectionalStreams` and `maxUnidirectionalStreams`, whether they are taken or not.
    public var incomingStreams: IncomingStreams { IncomingStreams(mailbox: driver.incomingStreams) }

    // MARK: Paths

    /// The paths there are now.
    public var paths: [Path] {
        driver.published.withLock { $0.paths }.map { Path(id: $0.id, tuple: $0.tuple, driver: driver) }
    }

    /// The path of the handshake. It is a path like any other; one may go back to it until it is closed.
    public var initialPath: Path { path { $0.initialPath } }

    /// The path that the application's data takes.
    public var activePath: Path { path { $0.activePath } }

    /// Our address on the active path, and on the last one once the connection is over.
    public var localAddress: NetworkAddress { activePath.localAddress }
    /// The peer's address on the active path, and on the last one once the connection is over.
    public var remoteAddress: NetworkAddress { activePath.remoteAddress }

    /// The path of an ID, as events name it; nil if it is closed.
    public func path(_ id: PathID) -> Path? {
        driver.published.withLock { $0.path(id) }.map { Path(id: $0.id, tuple: $0.tuple, driver: driver) }
    }

    private func path(_ choice: (borrowing PublishedConnection) -> PathID) -> Path {
        let (id, known) = driver.published.withLock { published in
            let id = choice(published)
            return (id, published.path(id)?.tuple ?? published.activeTuple)
        }
        let nowhere = NetworkAddress.unspecified(.ipv4, port: 0)
        let tuple = known ?? FourTuple(transport: TransportID(0), local: nowhere, remote: nowhere)
        return Path(id: id, tuple: tuple, driver: driver)
    }

    /// The addresses at which the server may be reached: that of the handshake, and those that the server announced as its
    /// preferred ones (RFC 9000, section 9.6), of either family. On a server, and before the handshake is complete, empty.
    public var serverAddresses: [NetworkAddress] { driver.published.withLock { $0.serverAddresses } }

    /// Adds a path from another transport to the server. Sends nothing: ``Path/probe(timeout:)`` does, and
    /// ``Path/switch(_:)`` moves the data (client only; RFC 9000, section 9).
    ///
    /// Waits until the handshake is confirmed, if need be.
    ///
    /// - Parameters:
    ///   - remote: one of ``serverAddresses``, of a family that the transport has a socket for: so a connection moves between
    ///     IPv4 and IPv6. Nil: the address in use, or another one of the server's if the transport cannot reach that.
    /// - Throws: `MigrationError` (`.serverCannotMigrate`, `.migrationDisabled`, `.migrationDisabledByPeer`,
    ///   `.peerUsesNoConnectionIDs`, `.tooManyPaths`, `.pathExists`, `.unknownServerAddress`);
    ///   ``TernError/transportOnAnotherEventLoop``, ``TernError/addressFamilyUnavailable(_:)``,
    ///   ``TernError/transportClosed``; the `CloseReason` of a connection that has ended.
    public func addPath(over transport: Transport, to remote: NetworkAddress? = nil) async throws -> Path {
        try await driver.addPath(over: transport, to: remote)
    }

    /// What happens to the paths from now on: validated, failed, switched, the peer moved. Each subscriber has a queue of its
    /// own; one that falls ``pathEventLimit`` events behind loses the oldest. Ends with the connection.
    public var pathEvents: AsyncStream<PathEvent> { driver.subscribe(limit: Connection.pathEventLimit) }

    /// Events that wait for a subscriber at most.
    public static let pathEventLimit = 1_024

    // MARK: The whole

    /// Counters of the connection, as they are now or were at its end.
    public var statistics: ConnectionStatistics {
        get async {
            let current = await driver.call { connection, _ in connection.statistics }
            return current ?? driver.published.withLock { $0.finalStatistics } ?? ConnectionStatistics()
        }
    }

    /// Why the connection ended; nil while it lives.
    public var closeReason: CloseReason? { driver.published.withLock { $0.closeReason } }

    /// Ends the connection at once: what was written and has not arrived is lost. Returns when the message that tells the
    /// peer is sent. Harmless when repeated.
    ///
    /// - Parameters:
    ///   - errorCode: of the application's protocol, below 2^62.
    ///   - reason: for people; the peer sees it.
    public func close(errorCode: UInt64 = 0, reason: String = "") async {
        await driver.worker.run { [driver] in driver.close(errorCode: errorCode, reason: reason) }
    }

    /// Waits for the connection's end, by whichever side, and says why it ended.
    ///
    /// - Throws: `CancellationError` when the task is cancelled; the connection goes on then.
    @discardableResult
    public func waitUntilClosed() async throws(CancellationError) -> CloseReason {
        do {
            return try await driver.end().get()
        } catch {
            throw CancellationError()
        }
    }

    /// Starts using new keys, if the last key update is over (RFC 9001, section 6).
    public func initiateKeyUpdate() async {
        await driver.call { connection, _ in connection.initiateKeyUpdate() }
    }
}

extension Connection: Hashable {
    public static func == (a: Connection, b: Connection) -> Bool { a.driver === b.driver }
    public func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(driver)) }
}

extension Connection: CustomStringConvertible {
    public var description: String { "connection \(localAddress) ↔ \(remoteAddress)" }
}

extension ConnectionDriver {
    fileprivate func end() async -> Result<CloseReason, any Error> {
        await worker.suspend(
            for: CloseReason.self,
            onCancel: { suspension in self.closeWaits.removeAll { $0 === suspension } },
            start: { suspension in
                if let reason = self.closeReason { return suspension.resume(returning: reason) }
                self.closeWaits.append(suspension)
            })
    }

    fileprivate func subscribe(limit: Int) -> AsyncStream<PathEvent> {
        let (events, continuation) = AsyncStream.makeStream(
            of: PathEvent.self, bufferingPolicy: .bufferingNewest(limit))
        worker.onLoop {
            guard self.closeReason == nil else { return continuation.finish() }
            let number = self.nextSubscriber
            self.nextSubscriber += 1
            self.pathSubscribers[number] = continuation
            continuation.onTermination = { [weak self] _ in
                guard let self else { return }
                worker.onLoop { self.pathSubscribers[number] = nil }
            }
        }
        return events
    }
}
