// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Synchronization

/// Runs tasks on an event loop's own thread: the application's code and its connections' share one thread, so that no
/// call between them has to hop, and the thread's CPU time is that of the whole role.
final class EventLoopExecutor: TaskExecutor {
    private struct Jobs {
        var waiting: [UnownedJob] = []
        /// An array whose storage the next turn uses.
        var spare: [UnownedJob] = []
    }

    private let eventLoop: any EventLoop
    private let jobs = Mutex(Jobs())

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        let isFirst = jobs.withLock { jobs in
            jobs.waiting.append(job)
            return jobs.waiting.count == 1
        }
        // The closure has nothing but this object, and so needs no memory.
        if isFirst { eventLoop.execute { self.runWaiting() } }
    }

    private func runWaiting() {
        var turn = jobs.withLock { jobs in
            let turn = jobs.waiting
            jobs.waiting = jobs.spare
            jobs.spare = []
            return turn
        }
        for job in turn { job.runSynchronously(on: asUnownedTaskExecutor()) }
        turn.removeAll(keepingCapacity: true)
        jobs.withLock { $0.spare = turn }
    }
}
