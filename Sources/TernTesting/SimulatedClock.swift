// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization

/// The clock of a ``SimulatedInternet``, for code that is given a clock.
///
/// It stands still while the simulation has anything to do, and then jumps: sleeping takes no real time. From any thread.
public struct SimulatedClock: Clock {
    /// A point in virtual time.
    public struct Instant: InstantProtocol {
        /// Since the simulation's start.
        public var elapsed: Duration

        public init(elapsed: Duration) { self.elapsed = elapsed }

        public func advanced(by duration: Duration) -> Instant { Instant(elapsed: elapsed + duration) }
        public func duration(to other: Instant) -> Duration { other.elapsed - elapsed }
        public static func < (a: Instant, b: Instant) -> Bool { a.elapsed < b.elapsed }
    }

    let time: VirtualTime

    public var now: Instant { Instant(elapsed: (time.now - VirtualTime.start).duration) }
    public var minimumResolution: Duration { .nanoseconds(1) }

    /// Waits for virtual time.
    ///
    /// - Parameter tolerance: not read: it is exact.
    /// - Throws: `CancellationError` when the task is cancelled.
    public func sleep(until deadline: Instant, tolerance: Duration? = nil) async throws {
        let sleeper = Sleeper()
        let instant = VirtualTime.start + Nanoseconds(deadline.elapsed)
        await withTaskCancellationHandler {
            await withUnsafeContinuation { continuation in
                sleeper.begin(continuation)
                time.onThread { [time] in time.scheduler.schedule(at: instant) { sleeper.wake() } }
            }
        } onCancel: {
            sleeper.wake()
        }
        try Task.checkCancellation()
    }
}

/// A task that sleeps: woken once, by the clock or by its cancellation.
private final class Sleeper: Sendable {
    private enum State {
        case created
        case asleep(UnsafeContinuation<Void, Never>)
        case awake
    }

    private let state = Mutex(State.created)

    func begin(_ continuation: UnsafeContinuation<Void, Never>) {
        let isAwake = state.withLock { state in
            if case .awake = state { return true }
            state = .asleep(continuation)
            return false
        }
        if isAwake { continuation.resume() }
    }

    func wake() {
        let continuation = state.withLock { state -> UnsafeContinuation<Void, Never>? in
            defer { state = .awake }
            if case .asleep(let continuation) = state { return continuation }
            return nil
        }
        continuation?.resume()
    }
}
