// SPDX-License-Identifier: Apache-2.0

internal import CTernTesting
import DequeModule
import Foundation
import NIOCore
import QUICProtocol
import Synchronization
import TernSimulation

/// The thread of a simulation, on which everything in it runs, and its clock.
///
/// The clock stands still while anything is left to be done: a task that can go on, a call on one of the event loops. When
/// nothing is, the next thing happens that was scheduled for later, and the clock goes there at once.
///
/// Tasks that prefer it as their executor run there, too (`VirtualTime+Tasks.swift`).
///
/// `@unchecked Sendable`: the queue is guarded by `condition`; the scheduler is touched on the thread alone, and before it has
/// begun.
final class VirtualTime: TaskExecutor, @unchecked Sendable {
    enum Outcome: Sendable {
        case finished
        /// Virtual time came to its limit.
        case timeLimit
        /// Nothing was left to happen, and no other thread brought anything.
        case nothingLeft
        /// Work kept making work, and the clock stood still.
        case busy
    }

    enum Work {
        case call(@Sendable () -> Void)
        case job(UnownedJob)
    }

    /// How long in real time other threads are waited for when nothing else is left to happen.
    private static let patience: TimeInterval = 2
    /// More pieces of work than this without the clock moving are a loop that will not end by itself.
    private static let workLimitPerInstant = 500_000

    static let start = Scheduler.start

    let scheduler: Scheduler
    private let condition = NSCondition()
    private var work: Deque<Work> = []
    /// Callers who want the clock to stand still though nothing can be seen to be done.
    private var holdCount = 0
    private var hasEnded = false
    /// The clock, for other threads.
    private let published: Atomic<Int64>
    /// Runs calls that come when the simulation is over: their loops' sockets are closed, and they say so.
    private let afterwards = DispatchQueue(label: "tern.simulation.over")

    init(scheduler: Scheduler) {
        self.scheduler = scheduler
        self.published = Atomic(scheduler.now.nanoseconds)
        Self.takeJobs()
    }

    /// From any thread.
    var now: Instant {
        isCurrent ? scheduler.now : Instant(nanoseconds: published.load(ordering: .relaxed))
    }

    // MARK: The thread

    /// Whether the caller is on the simulation's thread.
    var isCurrent: Bool { tern_simulation() == Unmanaged.passUnretained(self).toOpaque() }

    /// Runs `body` with the calling thread as the simulation's.
    func asThread<R>(_ body: () -> R) -> R {
        tern_set_simulation(Unmanaged.passUnretained(self).toOpaque())
        defer { tern_set_simulation(nil) }
        return body()
    }

    /// On the thread: does what there is to do, and lets time pass, until `isDone`.
    func run(until limit: Instant, isDone: () -> Bool) -> Outcome {
        while true {
            let isQuiet = runWork()
            if isDone() { return .finished }
            guard isQuiet else { return .busy }
            if isHeld {
                awaitRelease()
                continue
            }
            var hasStepped = false
            let outcome = scheduler.run(until: limit) {
                defer { hasStepped = true }
                return !hasStepped
            }
            published.store(scheduler.now.nanoseconds, ordering: .relaxed)
            switch outcome {
            case .finished: break
            case .timeLimit: return .timeLimit
            case .stuck: return .busy
            case .nothingLeft:
                guard awaitWork() else { return .nothingLeft }
            }
        }
    }

    /// Does what there is to do now. False if it does not end.
    private func runWork() -> Bool {
        for _ in 0..<Self.workLimitPerInstant {
            guard let next = condition.withLock({ work.popFirst() }) else { return true }
            perform(next)
        }
        return false
    }

    private func perform(_ work: Work) {
        switch work {
        case .call(let body): body()
        case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
        }
    }

    /// Waits while the clock is held, and no other thread brings anything.
    private func awaitRelease() {
        condition.withLock {
            while work.isEmpty && holdCount > 0 { condition.wait() }
        }
    }

    /// Waits for other threads, though none is known to be about to bring anything. False if none did.
    private func awaitWork() -> Bool {
        let deadline = Date(timeIntervalSinceNow: Self.patience)
        return condition.withLock {
            while work.isEmpty && holdCount == 0 {
                guard condition.wait(until: deadline) else { break }
            }
            return !work.isEmpty || holdCount > 0
        }
    }

    /// On the thread, as the last: what is left, and what comes later, runs elsewhere.
    func end() {
        // What this wakes was waiting for the network, and hears that it is over.
        _ = runWork()
        let left = condition.withLock {
            hasEnded = true
            defer { work = [] }
            return work
        }
        for work in left { performAfterwards(work) }
    }

    // MARK: Work

    func add(_ new: Work) {
        let isOver = condition.withLock {
            guard !hasEnded else { return true }
            work.append(new)
            condition.signal()
            return false
        }
        if isOver { performAfterwards(new) }
    }

    /// Runs `body` on the thread: at once if this is it.
    func onThread(_ body: @escaping @Sendable () -> Void) {
        if isCurrent { body() } else { add(.call(body)) }
    }

    private func performAfterwards(_ work: Work) {
        afterwards.async { self.asThread { self.perform(work) } }
    }

    /// Whether jobs of tasks without a preference are the simulation's: not any more when it is over.
    var takesJobs: Bool { condition.withLock { !hasEnded } }

    // MARK: Standing still

    private var isHeld: Bool { condition.withLock { holdCount > 0 } }

    func hold() { condition.withLock { holdCount += 1 } }

    func letGo() {
        condition.withLock {
            holdCount -= 1
            condition.signal()
        }
    }
}
