// SPDX-License-Identifier: Apache-2.0

import Dispatch

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Runs `body` until it returns or throws, or until the user interrupts the command: SIGINT or SIGTERM cancels `body`,
/// and that cancellation is no error.
///
/// A second signal ends the process the hard way.
///
/// - Returns: whether a signal ended it.
@discardableResult
func untilSignalled(_ body: @escaping @Sendable () async throws -> Void) async throws -> Bool {
    let (signals, continuation) = AsyncStream<Void>.makeStream()
    let sources = [SIGINT, SIGTERM].map { number in
        signal(number, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: number, queue: .global())
        source.setEventHandler {
            signal(SIGINT, SIG_DFL)
            signal(SIGTERM, SIG_DFL)
            continuation.yield()
        }
        source.resume()
        return source
    }
    defer { for source in sources { source.cancel() } }
    return try await withThrowingTaskGroup(of: Bool.self) { group in
        group.addTask {
            try await body()
            return false
        }
        group.addTask {
            for await _ in signals { return true }
            return false
        }
        defer { group.cancelAll() }
        return try await group.next() ?? false
    }
}
