// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import Logging
internal import NIOCore
internal import NIOPosix
internal import Synchronization

/// Everything of one event loop: the endpoint with its connections, the sockets, the deadlines.
///
/// A wake-up reads a socket, within bounds (`UDPSocket.readRest`), and hands every datagram to the endpoint; then each
/// connection that was touched sends what it may, in batches, in turn. Calls of the application do the same for their one connection.
///
/// `@unchecked Sendable`: the reference is held by handles on any thread, but all state is touched on `eventLoop` alone;
/// every entry is either one of the loop's own callbacks or goes through `onLoop`, `run` or `suspend`.
final class Worker: @unchecked Sendable {
    enum Limits {
        /// Batches (of up to 64 KB) that a connection sends before others get their turn.
        static let batchesPerTurn = 4
        /// Bytes that are sent before the sockets are read again: about half a millisecond's work.
        static let bytesPerTick = 1_024 * 1_024
        /// What a turn counts at least, as one that sends little takes its time, too.
        static let minimumTurn = 4 * 1_024
        /// Requests to read that are kept for the next call that has to wait.
        static let spareReads = 1_024
        /// How long a socket that had no room is left alone.
        static let backlogRetry = TimeAmount.microseconds(500)
        /// No timer is set for sooner than this: a deadline that has passed must not keep the loop from reading.
        static let minimumDelay = Nanoseconds.microseconds(20)
    }

    let eventLoop: any EventLoop
    /// The same, if it is that of a simulated host: what stands in for the system there.
    let simulation: (any SimulatedEventLoop)?
    let endpoint: QUICEndpoint

    private(set) var drivers: [ConnectionHandle: ConnectionDriver] = [:]
    /// The same by slot, for the deadlines.
    private var slots: [ConnectionDriver?] = []
    private var freeSlots: [Int] = []
    private var deadlines = DeadlineHeap()
    private var timer: (deadline: Instant, callback: NIOScheduledCallback)?

    private var sockets: [TransportID: UDPSocket] = [:]
    private var nextTransportID: UInt32 = 1

    /// Connections with something to do, in order. A connection is in it at most once (`isTouched`).
    private var touched = Deque<ConnectionDriver>()
    private var lastTouched: ConnectionHandle?
    private var isServiceScheduled = false
    private var isServicing = false

    /// Has the memory that is lent to whichever socket is read.
    let receiver = DatagramReceiver()
    /// Has the buffer that is lent to whichever connection transmits, so that idle ones own none.
    var outgoing = OutgoingBatch()
    /// What became of batches, for connections that are to hear of it when none of them is being worked on.
    var sendOutcomes: [SendOutcome] = []
    /// Requests to read that are done with, of tasks on the loop.
    var spareReads: [ReadRequest] = []
    /// A place for nothing: reads into it see the end of a stream.
    let noSpace = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    private init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.simulation = eventLoop as? any SimulatedEventLoop
        self.endpoint = QUICEndpoint(random: simulation?.makeRandomSource() ?? .system)
    }

    deinit { outgoing.deallocate() }

    func now() -> Instant {
        if let simulation { return simulation.instant }
        return Instant(nanoseconds: Int64(clamping: NIODeadline.now().uptimeNanoseconds))
    }

    // MARK: One worker a loop

    private struct WeakWorker {
        weak var worker: Worker?
    }

    // A worker keeps its loop alive, so that while an entry is not nil no other loop can have its identifier.
    private static let registry = Mutex<[ObjectIdentifier: WeakWorker]>([:])

    /// The worker of an event loop. It lives as long as a socket, a connection or a handle of its own does.
    static func of(_ eventLoop: any EventLoop) -> Worker {
        registry.withLock { workers in
            let key = ObjectIdentifier(eventLoop)
            if let worker = workers[key]?.worker { return worker }
            workers = workers.filter { $0.value.worker != nil }
            let worker = Worker(eventLoop: eventLoop)
            workers[key] = WeakWorker(worker: worker)
            return worker
        }
    }

    /// The worker of all transports that name no event loop, so that connections can use any of them as a path.
    static let shared = Worker.of(MultiThreadedEventLoopGroup.singleton.next())

    // MARK: Sockets

    func makeTransportID() -> TransportID {
        defer { nextTransportID &+= 1 }
        return TransportID(nextTransportID)
    }

    func add(_ socket: UDPSocket) {
        eventLoop.assertInEventLoop()
        sockets[socket.id] = socket
    }

    func socket(_ id: TransportID) -> UDPSocket? { sockets[id] }

    /// Closes a socket. Every connection that had a path over it loses that path and nothing else (M7).
    func remove(_ socket: UDPSocket) {
        eventLoop.assertInEventLoop()
        guard sockets.removeValue(forKey: socket.id) != nil else { return }
        for driver in socket.backlog.takeWaiting() { touch(driver) }
        socket.close()
        let now = now()
        for driver in drivers.values {
            endpoint.withConnection(driver.handle) { $0.transportLost(socket.id, now: now) }
            touch(driver)
        }
        scheduleService()
    }

    // MARK: Connections

    func addDriver(
        for handle: ConnectionHandle, role: Role, establishment: ConnectionDriver.Establishment, sendBufferLimit: Int,
        logger: Logger
    ) -> ConnectionDriver {
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = free
        } else {
            slot = slots.count
            slots.append(nil)
        }
        let driver = ConnectionDriver(
            worker: self, handle: handle, slot: slot, role: role, establishment: establishment,
            sendBufferLimit: sendBufferLimit, logger: logger)
        slots[slot] = driver
        drivers[handle] = driver
        return driver
    }

    /// Ends every connection, without a word to the peer, and closes every socket.
    func closeEverything() {
        for driver in Array(drivers.values) {
            driver.ended(.endpointClosed)
            forget(driver)
        }
        for socket in Array(sockets.values) { remove(socket) }
    }

    private func forget(_ driver: ConnectionDriver) {
        guard drivers.removeValue(forKey: driver.handle) != nil else { return }
        deadlines.set(nil, for: driver.slot)
        slots[driver.slot] = nil
        freeSlots.append(driver.slot)
        endpoint.remove(driver.handle)
        if lastTouched == driver.handle { lastTouched = nil }
        // Not within the service: closing a socket touches every connection.
        if let roamer = driver.roamer { eventLoop.execute { roamer.shutDown() } }
    }

    // MARK: Touched connections

    func touch(_ driver: ConnectionDriver) {
        guard !driver.isTouched else { return }
        driver.isTouched = true
        touched.append(driver)
    }

    /// The same by handle, as it is known after a datagram: most datagrams of a read are for the same connection.
    func touch(_ handle: ConnectionHandle) {
        guard handle != lastTouched else { return }
        lastTouched = handle
        if let driver = drivers[handle] { touch(driver) }
    }

    /// Has the touched connections serviced when the loop has run what is queued: calls that come together share a pass.
    func scheduleService() {
        guard !isServiceScheduled else { return }
        isServiceScheduled = true
        eventLoop.execute {
            self.isServiceScheduled = false
            self.serviceTouched()
        }
    }

    /// Lets each touched connection report its events and send, a few batches each in turn, until all are done or the tick's
    /// budget is used up; then the sockets are read before it goes on.
    func serviceTouched() {
        eventLoop.assertInEventLoop()
        // Events are delivered by resuming tasks, which may run at once only on other threads; but a future's callback could
        // come back here.
        guard !isServicing else { return }
        isServicing = true
        lastTouched = nil
        var budget = Limits.bytesPerTick
        repeat {
            while budget > 0, let driver = touched.popFirst() {
                driver.isTouched = false
                budget -= max(service(driver), Limits.minimumTurn)
            }
            flush()
            reportSendOutcomes()
        } while budget > 0 && !touched.isEmpty
        isServicing = false
        armTimer(continuing: !touched.isEmpty)
    }

    /// - Returns: the bytes sent.
    private func service(_ driver: ConnectionDriver) -> Int {
        let now = now()
        let turn = endpoint.withConnection(driver.handle) { connection in
            driver.takeTurn(&connection, batches: Limits.batchesPerTurn, now: now)
        }
        guard let turn else {
            driver.ended(.endpointClosed)
            forget(driver)
            return 0
        }
        if turn.state == .closed {
            driver.ended(turn.closeReason ?? .endpointClosed)
            forget(driver)
            return turn.bytes
        }
        if turn.hasMore { touch(driver) }
        deadlines.set(turn.deadline, for: driver.slot)
        return turn.bytes
    }

    // MARK: Deadlines

    private func armTimer(continuing: Bool) {
        let earliest = continuing ? now() : deadlines.earliest
        guard let earliest else { return }
        let deadline = max(earliest, now() + Limits.minimumDelay)
        // A timer that goes off too early is cheap; setting it again for every packet is not.
        if let timer, timer.deadline <= deadline { return }
        timer?.callback.cancel()
        let callback = try? eventLoop.scheduleCallback(
            at: .uptimeNanoseconds(UInt64(clamping: deadline.nanoseconds)), handler: self)
        timer = callback.map { (deadline, $0) }
    }
}

extension Worker: NIOScheduledCallbackHandler {
    func handleScheduledCallback(eventLoop: some EventLoop) {
        timer = nil
        let now = now()
        while let slot = deadlines.popExpired(now: now) {
            guard let driver = slots[slot] else { continue }
            endpoint.withConnection(driver.handle) { $0.handleDeadline(now: now) }
            touch(driver)
        }
        serviceTouched()
    }
}
