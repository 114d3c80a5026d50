// SPDX-License-Identifier: Apache-2.0

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

    private struct Entry: Comparable {
        var instant: Int64
        var order: UInt64
        var action: () -> Void

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

    public init() {}

    /// Virtual time since the start.
    public var elapsed: Nanoseconds { now - Scheduler.start }
    /// How many actions wait.
    public var pendingCount: Int { entries.count }

    /// Runs `action` at `instant`, or now if that is past.
    public func schedule(at instant: Instant, _ action: @escaping () -> Void) {
        order += 1
        entries.insert(Entry(instant: max(instant, now).nanoseconds, order: order, action: action))
    }

    /// Runs `action` once `delay` has passed.
    public func schedule(after delay: Nanoseconds, _ action: @escaping () -> Void) {
        schedule(at: now + delay, action)
    }

    /// Runs the next action, moving the clock to it. False when none is left.
    @discardableResult
    public func step() -> Bool {
        guard let entry = entries.popMin() else { return false }
        if entry.instant > now.nanoseconds {
            now = Instant(nanoseconds: entry.instant)
            stepsAtThisInstant = 0
        }
        stepCount += 1
        stepsAtThisInstant += 1
        entry.action()
        return true
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
        entries = Heap()
    }
}
