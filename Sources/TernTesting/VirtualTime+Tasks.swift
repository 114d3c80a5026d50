// SPDX-License-Identifier: Apache-2.0

import CTernTesting
import QUICProtocol

#if compiler(>=6.3) && compiler(<6.4)
@_spi(ExperimentalScheduling) import _Concurrency
#endif

// How tasks come to run on the thread of a simulation: those that prefer it, which are a simulation's body and its children;
// and those that prefer none and are made ready on the thread, such as `Task { }` in the body or below it, by a hook of the
// runtime.
extension VirtualTime {
    func enqueue(_ job: consuming ExecutorJob) {
        add(.job(UnownedJob(job)))
    }

    /// Has the runtime offer every job for which no executor is preferred to the simulation on whose thread it was made ready.
    static func takeJobs() {
        _ = tern_take_jobs { simulation, job in
            let time = Unmanaged<VirtualTime>.fromOpaque(simulation).takeUnretainedValue()
            guard time.takesJobs else { return false }
            time.add(.job(unsafeBitCast(job, to: UnownedJob.self)))
            return true
        }
    }

    /// Runs a job when some virtual time has passed.
    private func wake(_ job: UnownedJob, after delay: Duration) {
        let instant = now + Nanoseconds(delay)
        onThread { self.scheduler.schedule(at: instant) { self.add(.job(job)) } }
    }
}

// What makes `Task.sleep` wait for virtual time. The protocol is Swift's own, but not yet for everybody: the compilers named
// here have it under a name that says so. With others `Task.sleep` waits for the real clock, and virtual time does not wait
// for it.
#if compiler(>=6.3) && compiler(<6.4)

extension VirtualTime: SchedulingExecutor {
    static let isAskedToSleep = true

    func enqueue<C: Clock>(
        _ job: consuming ExecutorJob, after delay: C.Duration, tolerance: C.Duration?, clock: C
    ) {
        wake(UnownedJob(job), after: delay as? Duration ?? .zero)
    }

    func enqueue<C: Clock>(
        _ job: consuming ExecutorJob, at instant: C.Instant, tolerance: C.Duration?, clock: C
    ) {
        // A little of what the task asked for has passed on the real clock since. So much is added as makes it a round number
        // again, or the same sleep would last differently in each run.
        let rest = clock.now.duration(to: instant) as? Duration ?? .zero
        wake(
            UnownedJob(job),
            after: rest.roundedUp(to: rest < .milliseconds(100) ? .milliseconds(1) : .milliseconds(10)))
    }
}

extension Duration {
    fileprivate func roundedUp(to unit: Duration) -> Duration {
        guard self > .zero else { return .zero }
        let (value, unit) = (Nanoseconds(self).rawValue, Nanoseconds(unit).rawValue)
        let (quotient, remainder) = value.quotientAndRemainder(dividingBy: unit)
        return remainder == 0 ? self : .nanoseconds((quotient + 1) * unit)
    }
}

#else

extension VirtualTime {
    static let isAskedToSleep = false
}

#endif
