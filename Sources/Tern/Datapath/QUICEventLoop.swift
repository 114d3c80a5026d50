// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
public import Dispatch
public import NIOCore
internal import Synchronization

#if canImport(Darwin)
internal import Darwin
#elseif canImport(Musl)
internal import Musl
#else
internal import Glibc
#endif

/// An event loop of Tern's own, with a thread of its own: it waits for UDP sockets and for nothing else.
///
/// Transports can be bound on it (`Transport.bind(to:on:)`), and it runs whatever is handed to an `EventLoop`. It has no NIO
/// channels. What it gains over a loop of a `MultiThreadedEventLoopGroup` is that nothing is allocated for what is read, and that
/// a wake-up is little more than the system calls it needs.
///
/// Linux only; elsewhere use NIO's.
///
/// `@unchecked Sendable`: what threads share is in `queue`; every `var` is touched on the loop's thread alone.
public final class QUICEventLoop: EventLoop, @unchecked Sendable {
    typealias Job = @Sendable () -> Void

    private struct Queue {
        var jobs: [Job] = []
        /// An array whose storage the next turn uses.
        var spare: [Job] = []
        /// The thread waits, or is about to: whoever adds a job rings.
        var isWaiting = false
        var isClosed = false
    }

    private struct Timer: Comparable {
        let deadline: NIODeadline
        let number: UInt64
        let job: Job
        /// Tells whoever waits that it will not run.
        let cancel: Job

        static func < (a: Timer, b: Timer) -> Bool { (a.deadline, a.number) < (b.deadline, b.number) }
        static func == (a: Timer, b: Timer) -> Bool { a.number == b.number }
    }

    private let poll: tern_poll
    private let queue = Mutex(Queue())
    /// The thread's `pthread_self()`; 0 before it runs.
    private let thread = Atomic<UInt>(0)
    private let lastTimer = Atomic<UInt64>(0)

    /// In order of their deadlines, the next last. There are few: connections' deadlines are the worker's.
    private var timers: [Timer] = []
    /// By token. Tokens are not used again, so that what was reported of a socket that was closed since finds nothing.
    private var sockets: [UInt64: UDPSocket] = [:]
    private var lastToken: UInt64 = 0
    /// Lent to whichever socket is read.
    private var receiver: OpaquePointer?
    /// Who is to be called at `deadline`, and after sockets were read.
    private weak var worker: Worker?
    private var deadline: Instant?
    private var isEnding = false

    /// Reads that a call fills at most, of 64 KB of address space each.
    static let readsPerCall = 64
    /// Sockets that one wait reports at most; the others are reported by the next.
    private static let socketsPerWait = 63
    /// Rounds of jobs, each of those that the last one added, before the sockets are looked at again.
    private static let roundsPerTurn = 8

    /// Starts the loop's thread. It runs until the loop is shut down.
    public init() throws(TernError) {
        var poll = tern_poll()
        let error = tern_poll_open(&poll)
        guard error == 0 else { throw .system(call: "epoll_create1", errno: error) }
        self.poll = poll
        let context = Unmanaged.passRetained(self)
        #if canImport(Darwin)
        var thread: pthread_t?
        #else
        var thread = pthread_t()
        #endif
        let threadError = pthread_create(
            &thread, nil,
            { context in
                #if canImport(Darwin)
                Unmanaged<QUICEventLoop>.fromOpaque(context).takeRetainedValue().run()
                #else
                if let context { Unmanaged<QUICEventLoop>.fromOpaque(context).takeRetainedValue().run() }
                #endif
                return nil
            }, context.toOpaque())
        guard threadError == 0 else {
            context.release()
            tern_poll_close(&poll)
            throw .system(call: "pthread_create", errno: threadError)
        }
    }

    // MARK: EventLoop

    public var inEventLoop: Bool { thread.load(ordering: .relaxed) == Self.currentThread }

    private static var currentThread: UInt {
        #if canImport(Darwin)
        UInt(bitPattern: pthread_self())
        #else
        UInt(pthread_self())
        #endif
    }

    public func execute(_ task: @escaping @Sendable () -> Void) {
        let mustRing = queue.withLock { queue in
            guard !queue.isClosed else { return false }
            queue.jobs.append(task)
            defer { queue.isWaiting = false }
            return queue.isWaiting
        }
        if mustRing { withUnsafePointer(to: poll) { tern_poll_ring($0) } }
    }

    @preconcurrency
    @discardableResult
    public func scheduleTask<T>(
        deadline: NIODeadline, _ task: @escaping @Sendable () throws -> T
    ) -> Scheduled<T> {
        let promise = makePromise(of: T.self)
        let number = lastTimer.wrappingAdd(1, ordering: .relaxed).newValue
        let timer = Timer(
            deadline: deadline, number: number,
            job: {
                do {
                    promise.assumeIsolated().succeed(try task())
                } catch {
                    promise.fail(error)
                }
            }, cancel: { promise.fail(EventLoopError.shutdown) })
        let scheduled = Scheduled(promise: promise) { self.onLoop { self.timers.removeAll { $0.number == number } } }
        onLoop {
            guard !self.isEnding else { return promise.fail(EventLoopError.shutdown) }
            let index = self.timers.firstIndex { $0 < timer } ?? self.timers.endIndex
            self.timers.insert(timer, at: index)
        }
        return scheduled
    }

    @preconcurrency
    @discardableResult
    public func scheduleTask<T>(in delay: TimeAmount, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> {
        scheduleTask(deadline: now + delay, task)
    }

    /// Ends the loop's thread after the jobs that it has. Its transports must be closed before.
    @preconcurrency
    public func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
        execute {
            self.isEnding = true
            queue.async { callback(nil) }
        }
    }

    private func onLoop(_ job: @escaping Job) {
        if inEventLoop { job() } else { execute(job) }
    }

    // MARK: For the worker

    /// Reads the socket whenever something is there, until it is removed.
    ///
    /// - Returns: the token to remove it by, or the `errno`.
    func add(_ socket: UDPSocket, descriptor: Int32) -> Result<UInt64, TernError> {
        assertInEventLoop()
        if receiver == nil { receiver = tern_receiver_make(Self.readsPerCall) }
        let token = lastToken + 1
        let error = receiver == nil ? ENOMEM : withUnsafePointer(to: poll) { tern_poll_add($0, descriptor, token) }
        guard error == 0 else { return .failure(.system(call: "epoll_ctl", errno: error)) }
        lastToken = token
        sockets[token] = socket
        worker = socket.worker
        return .success(token)
    }

    func remove(_ token: UInt64, descriptor: Int32) {
        assertInEventLoop()
        guard sockets.removeValue(forKey: token) != nil else { return }
        _ = withUnsafePointer(to: poll) { tern_poll_remove($0, descriptor) }
    }

    /// Calls the worker then, once. One that has passed lets the sockets be read first.
    func setDeadline(_ instant: Instant?, of worker: Worker) {
        assertInEventLoop()
        self.worker = worker
        deadline = instant
    }

    // MARK: The thread

    private func run() {
        thread.store(Self.currentThread, ordering: .relaxed)
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.socketsPerWait) { tokens in
            while !isEnding {
                runJobs()
                runTimers()
                if isEnding { break }
                let count = wait(writing: tokens)
                for index in 0..<count { read(tokens[index]) }
                callWorker(hasRead: count > 0)
            }
        }
        end()
    }

    private func callWorker(hasRead: Bool) {
        guard hasRead || deadline != nil, let worker else { return }
        var isDue = false
        if let deadline, worker.now() >= deadline {
            isDue = true
            self.deadline = nil
            worker.expireDeadlines()
        }
        if hasRead || isDue { worker.serviceTouched() }
    }

    private func runJobs() {
        for _ in 0..<Self.roundsPerTurn {
            var turn = queue.withLock { queue in
                // Whatever is added from now on is seen before the next wait.
                queue.isWaiting = false
                let turn = queue.jobs
                guard !turn.isEmpty else { return turn }
                queue.jobs = queue.spare
                queue.spare = []
                return turn
            }
            if turn.isEmpty { return }
            for job in turn { job() }
            turn.removeAll(keepingCapacity: true)
            queue.withLock { $0.spare = turn }
        }
    }

    private func runTimers() {
        guard !timers.isEmpty else { return }
        let now = NIODeadline.now()
        while let timer = timers.last, timer.deadline <= now {
            timers.removeLast()
            timer.job()
        }
    }

    /// - Returns: how many sockets can be read.
    private func wait(writing tokens: UnsafeMutableBufferPointer<UInt64>) -> Int {
        let mayWait = queue.withLock { queue in
            queue.isWaiting = queue.jobs.isEmpty
            return queue.isWaiting
        }
        let timeout = mayWait ? self.timeout : 0
        defer { if mayWait { queue.withLock { $0.isWaiting = false } } }
        return withUnsafePointer(to: poll) { tern_poll_wait($0, timeout, tokens.baseAddress, tokens.count) }
    }

    /// Nanoseconds until something is due; negative if nothing is.
    private var timeout: Int64 {
        var next = Int64.max
        if let deadline { next = deadline.nanoseconds }
        if let timer = timers.last { next = min(next, Int64(clamping: timer.deadline.uptimeNanoseconds)) }
        guard next < .max else { return -1 }
        return max(next - Int64(clamping: NIODeadline.now().uptimeNanoseconds), 0)
    }

    private func read(_ token: UInt64) {
        guard let socket = sockets[token], let receiver else { return }
        socket.read(with: receiver)
    }

    private func end() {
        let jobs = queue.withLock { queue in
            queue.isClosed = true
            defer { queue.jobs = [] }
            return queue.jobs
        }
        for job in jobs { job() }
        for timer in timers { timer.cancel() }
        timers = []
        sockets = [:]
        thread.store(0, ordering: .relaxed)
        tern_receiver_free(receiver)
        withUnsafePointer(to: poll) { tern_poll_close($0) }
    }
}
