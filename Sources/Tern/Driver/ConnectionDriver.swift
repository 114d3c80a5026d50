// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import Logging
internal import NIOCore
internal import Synchronization

/// One connection between the engine and the application: it lets the engine send, hands its events to the tasks that wait
/// for them, and publishes what handles on other threads may read at once.
///
/// `@unchecked Sendable`: public handles hold the reference on any thread. Every `var` is touched on the worker's event
/// loop alone; what other threads read is in `published` (a mutex) and in mailboxes, which lock for themselves.
final class ConnectionDriver: @unchecked Sendable {
    /// Who waits for the handshake.
    enum Establishment {
        case connecting(Suspension<Void>)
        case accepting(ListenerState)
        case done
    }

    let worker: Worker
    let handle: ConnectionHandle
    let slot: Int
    let role: Role
    let logger: Logger
    let published = Mutex(PublishedConnection())
    let incomingStreams = Mailbox<Stream>()

    /// Bytes that a stream may hold before its writer waits.
    let sendBufferLimit: Int
    /// In the worker's list of connections with something to do.
    var isTouched = false
    /// A batch of ours waits for room in a socket: nothing is sent until it is gone.
    var awaitsSocket = false
    /// Paths on which the system refused the last send: they are told when it takes one again.
    private var refusedPaths: [PathID] = []

    var establishment: Establishment
    /// The listener that accepted it, on a server.
    let listener: ListenerState?
    var closeReason: CloseReason?
    var streamWaits: [StreamID: StreamWaits] = [:]
    var openWaits = OpenWaits()
    var probeWaits: [PathID: [Suspension<ProbeReport>]] = [:]
    var confirmationWaits: [Suspension<Void>] = []
    var closeWaits: [Suspension<CloseReason>] = []
    var pathSubscribers: [UInt64: AsyncStream<PathEvent>.Continuation] = [:]
    var nextSubscriber: UInt64 = 0
    var decisionSubscribers: [UInt64: AsyncStream<PolicyDecision>.Continuation] = [:]
    /// Runs the automatic policy, if there is one.
    var roamer: Roamer?
    /// Of the transport that a client's connection was made over: its further sockets are alike. A server's has none.
    var transportConfiguration: SharedTransportConfiguration?

    init(
        worker: Worker, handle: ConnectionHandle, slot: Int, role: Role, establishment: Establishment,
        sendBufferLimit: Int,
        logger: Logger
    ) {
        self.worker = worker
        self.handle = handle
        self.slot = slot
        self.role = role
        self.establishment = establishment
        self.listener = if case .accepting(let listener) = establishment { listener } else { nil }
        self.sendBufferLimit = max(sendBufferLimit, 1)
        self.logger = logger
    }

    // MARK: Calls from the application

    /// The caller runs on the event loop: it may touch the connection's state without a hop.
    var isOnLoop: Bool { worker.eventLoop.inEventLoop }

    /// Runs `body` with the connection on the event loop, and has what it caused done in the same tick. Nil if the connection
    /// is forgotten.
    nonisolated(nonsending)
        func call<R: Sendable>(_ body: @escaping @Sendable (inout QUICConnection, Instant) -> R) async -> R?
    {
        await worker.run { self.withConnection(body) }
    }

    /// The same for a caller on the event loop.
    func withConnection<R>(_ body: (inout QUICConnection, Instant) -> R) -> R? {
        let now = worker.now()
        let result = lookAt { body(&$0, now) }
        touchAndSchedule()
        return result
    }

    /// Runs `body` with the connection, for what leaves it nothing to do. Nil if the connection is forgotten.
    func lookAt<R>(_ body: (inout QUICConnection) -> R) -> R? {
        worker.eventLoop.assertInEventLoop()
        return worker.endpoint.withConnection(handle) { body(&$0) }
    }

    /// Has what a call caused done in the same tick.
    func touchAndSchedule() {
        worker.touch(self)
        worker.scheduleService()
    }

    /// What a call on an ended connection throws (M8).
    var reasonForRefusal: CloseReason { closeReason ?? .endpointClosed }

    func close(errorCode: UInt64, reason: String) {
        _ = withConnection { connection, now in
            connection.close(applicationErrorCode: errorCode, reason: reason, now: now)
        }
        // The packet that says so goes out before the caller goes on, and perhaps ends the process.
        worker.serviceTouched()
    }

    // MARK: The worker's turn

    struct Turn {
        var batches = 0
        var bytes = 0
        /// There is more to be sent than the turn allowed.
        var hasMore = false
        var deadline: Instant?
        var state = ConnectionState.closed
        var closeReason: CloseReason?
    }

    /// Delivers events and sends up to `batches` batches.
    func takeTurn(_ connection: inout QUICConnection, batches: Int, now: Instant) -> Turn {
        var turn = Turn()
        deliverEvents(&connection, now: now)
        transmit(&connection, limit: batches, turn: &turn, now: now)
        // A refused send is an event, and an event may leave something to send.
        if deliverEvents(&connection, now: now), !turn.hasMore {
            transmit(&connection, limit: batches, turn: &turn, now: now)
        }
        turn.deadline = connection.nextDeadline
        turn.state = connection.state
        turn.closeReason = connection.closeReason
        return turn
    }

    private func transmit(_ connection: inout QUICConnection, limit: Int, turn: inout Turn, now: Instant) {
        while !awaitsSocket {
            guard turn.batches < limit else {
                turn.hasMore = true
                return
            }
            var space = worker.sendSpace().mutableBytes
            guard let transmission = connection.transmit(into: &space, now: now), transmission.byteCount > 0 else {
                return
            }
            turn.batches += 1
            turn.bytes += transmission.byteCount
            guard worker.socket(transmission.tuple.transport) != nil else {
                connection.transportLost(transmission.tuple.transport, now: now)
                continue
            }
            worker.send(transmission, of: self)
        }
    }

    /// A batch that was ours in part was sent, or refused (`errno`): what the connection must hear of that.
    func heard(_ outcome: SendOutcome, _ connection: inout QUICConnection, now: Instant) {
        let path = outcome.part.path
        if outcome.errno == 0 {
            refusedPaths.removeAll { $0 == path }
            connection.sendSucceeded(on: path)
            return
        }
        logger.debug("send refused", metadata: ["errno": "\(outcome.errno)", "path": "\(path)"])
        if !refusedPaths.contains(path) {
            // As many as a connection has paths; an older one's success is no news.
            if refusedPaths.count >= 8 { refusedPaths.removeFirst() }
            refusedPaths.append(path)
        }
        connection.sendFailed(on: path, errno: outcome.errno, segmentSize: outcome.segmentSize, now: now)
    }

    /// The system refused what was last sent on the path: it is news when it takes it again.
    func isRefused(_ path: PathID) -> Bool { !refusedPaths.isEmpty && refusedPaths.contains(path) }
}
