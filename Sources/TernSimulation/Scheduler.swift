// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import HeapModule
public import QUICProtocol

/// The virtual clock, and everything that is still going to happen.
///
/// Actions run in order of their instant, and those of one instant in the order in which they were scheduled. Nothing
/// else decides the order, so a simulation that draws its randomness from one seed replays to the bit. Time passes only
/// from one action to the next: ten virtual minutes of silence cost nothing.
public final class Scheduler {
    /// The clock does not start at zero, so that an instant that was never set stands out.
    public static let start = Instant(nanoseconds: 1_000_000_000_000)
    /// More actions than this without the clock moving is a loop that will not end by itself.
    public static let stepLimitPerInstant = 500_000

    public enum Outcome: Sendable, Equatable {
        /// The condition to go on no longer holds.
        case finished
        /// The time limit came first.
        case timeLimit
        /// Nothing was left to happen, so the condition could not change any more.
        case nothingLeft
        /// Actions kept scheduling each other at one instant.
        case stuck
    }

    /// Actions whose instants mostly rise, like the arrivals of a link that keeps the order. Only the first waits among
    /// all others, so that thousands of datagrams under way cost no more than a few.
    public final class Lane {
        fileprivate var entries = Deque<Entry>()

        public init() {}
    }

    fileprivate struct Entry: Comparable {
        var instant: Int64
        var order: UInt64
        var action: () -> Void
        /// Where the next comes from once this one ran.
        var lane: Lane?

        static func < (a: Entry, b: Entry) -> Bool {
            a.instant != b.instant ? a.instant < b.instant : a.order < b.order
        }
        static func == (a: Entry, b: Entry) -> Bool { a.order == b.order }
    }

    public private(set) var now = Scheduler.start
    /// How many actions have run.
    public private(set) var stepCount = 0
    private var stepsAtThisInstant = 0
    private var order: UInt64 = 0
    private var entries = Heap<Entry>()
    /// How many wait behind the first of their lanes.
    private var queuedInLanes = 0

    public init() {}

    /// Virtual time since the start.
    public var elapsed: Nanoseconds { now - Scheduler.start }
    /// How many actions wait.
    public var pendingCount: Int { entries.count + queuedInLanes }

    /// Runs `action` at `instant`, or now if that is past.
    ///
    /// - Parameter lane: whose last action is likely to run before this one; it makes no difference but to speed.
    public func schedule(at instant: Instant, in lane: Lane? = nil, _ action: @escaping () -> Void) {
        order += 1
        var entry = Entry(instant: max(instant, now).nanoseconds, order: order, action: action)
        guard let lane else { return entries.insert(entry) }
        // The lane's first is in the heap, and as a placeholder in the lane too.
        if let last = lane.entries.last, entry.instant < last.instant { return entries.insert(entry) }
        entry.lane = lane
        lane.entries.append(entry)
        if lane.entries.count == 1 { entries.insert(entry) } else { queuedInLanes += 1 }
    }

    /// Runs `action` once `delay` has passed.
    public func schedule(after delay: Nanoseconds, in lane: Lane? = nil, _ action: @escaping () -> Void) {
        schedule(at: now + delay, in: lane, action)
    }

    /// Runs the next action, moving the clock to it. False when none is left.
    @discardableResult
    public func step() -> Bool {
        guard let entry = popNext() else { return false }
        if entry.instant > now.nanoseconds {
            now = Instant(nanoseconds: entry.instant)
            stepsAtThisInstant = 0
        }
        stepCount += 1
        stepsAtThisInstant += 1
        entry.action()
        return true
    }

    private func popNext() -> Entry? {
        guard let first = entries.min, let lane = first.lane else { return entries.popMin() }
        lane.entries.removeFirst()
        guard let next = lane.entries.first else { return entries.popMin() }
        queuedInLanes -= 1
        return entries.replaceMin(with: next)
    }

    /// Runs actions as long as `condition` holds, but none that is due after `limit`.
    public func run(until limit: Instant, while condition: () -> Bool = { true }) -> Outcome {
        while condition() {
            guard let next = entries.min else { return .nothingLeft }
            guard next.instant <= limit.nanoseconds else {
                now = max(now, limit)
                stepsAtThisInstant = 0
                return .timeLimit
            }
            step()
            guard stepsAtThisInstant <= Scheduler.stepLimitPerInstant else { return .stuck }
        }
        return .finished
    }

    /// Forgets everything that was going to happen, and with it whatever the actions kept alive.
    public func removeAll() {
        for entry in entries.unordered { entry.lane?.entries.removeAll() }
        queuedInLanes = 0
        entries = Heap()
    }
}
