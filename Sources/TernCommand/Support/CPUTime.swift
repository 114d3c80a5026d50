// SPDX-License-Identifier: Apache-2.0

import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// CPU time spent, user and system together.
enum CPUTime {
    /// By all threads of the process.
    static func ofProcess() -> Duration { read(CLOCK_PROCESS_CPUTIME_ID) }

    /// By the thread that asks.
    static func ofThread() -> Duration { read(CLOCK_THREAD_CPUTIME_ID) }

    /// By the thread of an event loop.
    static func of(_ eventLoop: any EventLoop) async throws -> Duration {
        try await eventLoop.submit { ofThread() }.get()
    }

    private static func read(_ clock: clockid_t) -> Duration {
        var time = timespec()
        guard clock_gettime(clock, &time) == 0 else { return .zero }
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }
}
