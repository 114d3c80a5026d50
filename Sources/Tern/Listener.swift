// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import NIOCore
internal import Synchronization

/// Takes the connections that clients open to a ``Transport``.
public final class Listener: Sendable {
    let state: ListenerState
    let transport: Transport

    init(state: ListenerState, transport: Transport) {
        self.state = state
        self.transport = transport
    }

    /// The address that clients connect to.
    public var localAddress: NetworkAddress { transport.localAddress }

    /// The connections, when their handshakes are complete; each goes to one iterator. Ends when the listener is closed,
    /// and throws ``TernError/transportClosed`` if its transport is.
    public var connections: IncomingConnections { IncomingConnections(state: state) }

    /// The connections that this listener accepted and that live, as they are now.
    public var connectionTable: [ConnectionTableEntry] {
        get async {
            let worker = transport.worker
            return await worker.run { [state] in worker.connectionTable(of: state) }
        }
    }

    /// Accepts no more connections. Those that were accepted go on; the transport stays open.
    public func close() async {
        await transport.worker.run { [state, transport] in transport.stopListening(state) }
    }
}

/// One row of ``Listener/connectionTable``.
public struct ConnectionTableEntry: Sendable, Identifiable {
    /// The connection ID that the client uses towards us. Another one after each of its moves.
    public var id: ConnectionID
    /// The client's address now.
    public var clientAddress: NetworkAddress
    public var state: ConnectionState
    /// Whether the client proved that it receives what is sent to its address (RFC 9000, section 8).
    public var isValidated: Bool
    /// The path that data takes to the client.
    public var activePath: PathID
    /// Every path that is known now, the active one included.
    public var paths: [PathSnapshot]
    /// How many paths there have been, those closed since included.
    public var pathsSeen: Int
    /// The connection, to read more of it or to close it.
    public var connection: Connection
}

/// The connections of a ``Listener``.
public struct IncomingConnections: AsyncSequence, Sendable {
    public typealias Element = Connection
    public typealias Failure = any Error

    let state: ListenerState

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(state: state) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let state: ListenerState

        public mutating func next() async throws -> Connection? {
            if let connection = await state.accepted.next() { return connection }
            if let error = state.failure { throw error }
            return nil
        }
    }
}

/// The listener as the datapath sees it.
///
/// `@unchecked Sendable`: `handshaking` and `isClosed` are touched on the worker's event loop alone; the rest is constant or
/// locks for itself.
final class ListenerState: @unchecked Sendable {
    let accepted = Mailbox<Connection>()
    let connectionConfiguration: ConnectionConfiguration
    /// Connections in their handshake or not yet taken by the application, at most.
    let backlog: Int
    private let configuration: ServerConfiguration
    private let logger: Logger
    private var handshaking = 0
    private var isClosed = false
    private let ending = Mutex<TernError?>(nil)

    init(
        configuration: ServerConfiguration, connectionConfiguration: ConnectionConfiguration, backlog: Int,
        logger: Logger
    ) {
        self.configuration = configuration
        self.connectionConfiguration = connectionConfiguration
        self.backlog = max(backlog, 1)
        self.logger = logger
    }

    /// What new clients are accepted with; nil while the backlog is full, and then they try again.
    var acceptingConfiguration: ServerConfiguration? {
        !isClosed && handshaking + accepted.count < backlog ? configuration : nil
    }

    /// Why the sequence of connections ended, if not by `close`.
    var failure: TernError? { ending.withLock { $0 } }

    func accepted(_ handle: ConnectionHandle, by worker: Worker) {
        handshaking += 1
        _ = worker.addDriver(
            for: handle, role: .server, establishment: .accepting(self),
            sendBufferLimit: connectionConfiguration.sendBufferLimit, logger: logger)
    }

    func handshakeFailed() { handshaking -= 1 }

    /// - Returns: false if nobody takes connections any more.
    func deliver(_ connection: Connection) -> Bool {
        handshaking -= 1
        return !isClosed && accepted.put(connection)
    }

    /// - Parameter failure: what those who wait for connections are told; nil ends the sequence.
    func close(failure: TernError?) {
        guard !isClosed else { return }
        isClosed = true
        ending.withLock { $0 = failure }
        accepted.finish()
    }
}

extension Worker {
    func connectionTable(of listener: ListenerState) -> [ConnectionTableEntry] {
        drivers.values.compactMap { driver in
            guard driver.listener === listener else { return nil }
            return endpoint.withConnection(driver.handle) { connection in
                let paths = connection.pathSnapshots()
                guard let active = paths.first(where: { $0.id == connection.activePath }) else { return nil }
                return ConnectionTableEntry(
                    id: connection.localConnectionID, clientAddress: active.tuple.remote, state: connection.state,
                    isValidated: active.state == .validated, activePath: active.id, paths: paths,
                    pathsSeen: connection.pathsSeen,
                    connection: Connection(driver: driver))
            } ?? nil
        }
        .sorted { $0.clientAddress.description < $1.clientAddress.description }
    }
}
