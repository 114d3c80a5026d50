// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// Runs tasks on an event loop's own thread: the application's code and its connections' share one thread, so that no
/// call between them has to hop, and the thread's CPU time is that of the whole role.
final class EventLoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
