// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import QUICProtocol
import Testing

@testable import Tern

@Suite("Calls from a task on the connection's own event loop", .timeLimit(.minutes(5)))
struct EventLoopCallTests {
    @Test("are decided at once, so that a request and its answer are a datagram each")
    func oneDatagramEach() async throws {
        let pair = try await TestPair.connected()
        let loop = LoopExecutor(pair.client.eventLoop)
        let count = 200
        let (before, after) = try await withTaskExecutorPreference(loop) {
            async let served: Void = {
                var incoming = pair.server.incomingStreams.makeAsyncIterator()
                for _ in 0..<count {
                    guard let stream = await incoming.next() else { return }
                    let request = try await stream.readToEnd()
                    try await stream.write(ByteBuffer(bytes: request + request), finishing: true)
                }
            }()
            // What the handshake leaves to be said is not counted.
            try await Task.sleep(for: .milliseconds(200))
            let before = await (pair.client.statistics.datagramsSent, pair.server.statistics.datagramsSent)
            for _ in 0..<count {
                let stream = try await pair.client.openStream(writing: ByteBuffer(bytes: [1, 2, 3]), finishing: true)
                #expect(try await stream.readToEnd() == [1, 2, 3, 1, 2, 3])
            }
            try await served
            return await (before, (pair.client.statistics.datagramsSent, pair.server.statistics.datagramsSent))
        }
        // Acknowledgements that fall due for themselves are few.
        #expect(after.0 - before.0 < UInt64(count) * 5 / 4)
        #expect(after.1 - before.1 < UInt64(count) * 5 / 4)
        await pair.close()
    }

    @Test("are refused when the task is cancelled, and did nothing then")
    func cancelled() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        let task = Task(executorPreference: LoopExecutor(pair.client.eventLoop)) {
            withUnsafeCurrentTask { $0?.cancel() }
            await #expect(throws: CancellationError.self) { try await stream.write([1], finishing: true) }
            await #expect(throws: CancellationError.self) { try await stream.read() }
            await #expect(throws: CancellationError.self) { try await pair.client.openStream() }
        }
        await task.value
        try await stream.write([2], finishing: true)
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(try await received.readToEnd() == [2])
        await pair.close()
    }

    @Test("wait where they must: for room, for data, for another stream")
    func waiting() async throws {
        var configuration = ConnectionConfiguration()
        configuration.maxBidirectionalStreams = 1
        let pair = try await TestPair.connected(serverConfiguration: configuration)
        let echo = pair.echo()
        let content = ByteBuffer(bytes: pattern(4 * 1_024 * 1_024))
        try await withTaskExecutorPreference(LoopExecutor(pair.client.eventLoop)) {
            try await withThrowingDiscardingTaskGroup { group in
                for _ in 0..<3 {
                    group.addTask {
                        let stream = try await pair.client.openStream()
                        async let answer = stream.readToEnd()
                        var rest = content
                        while let piece = rest.readSlice(length: 512 * 1_024) { try await stream.write(piece) }
                        try await stream.finish()
                        #expect(try await answer == Array(content.readableBytesView))
                    }
                }
            }
        }
        await pair.close()
        await echo.value
    }

    @Test("on a connection that has ended throw why")
    func ended() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        await pair.client.close(errorCode: 3)
        let reason = await #expect(throws: CloseReason.self) {
            try await withTaskExecutorPreference(LoopExecutor(pair.client.eventLoop)) {
                try await stream.write([1], finishing: true)
            }
        }
        #expect(reason == pair.client.closeReason)
        await pair.close()
    }
}

@Suite("A stream that is opened with its first bytes", .timeLimit(.minutes(5)))
struct OpeningWithBytesTests {
    @Test("carries them and its end, in both directions or in one", arguments: [true, false])
    func carries(isBidirectional: Bool) async throws {
        let pair = try await TestPair.connected()
        let bytes = ByteBuffer(bytes: pattern(10_000))
        let stream =
            isBidirectional
            ? try await pair.client.openStream(writing: bytes, finishing: true)
            : try await pair.client.openUnidirectionalStream(writing: bytes, finishing: true)
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(received.id == stream.id)
        #expect(try await received.readToEnd() == Array(bytes.readableBytesView))
        await #expect(throws: StreamError.finished(stream.id)) { try await stream.write([1]) }
        await pair.close()
    }

    @Test("may be told of without a byte, by its end alone")
    func bareEnd() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openUnidirectionalStream(writing: ByteBuffer(), finishing: true)
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(received.id == stream.id)
        #expect(try await received.read() == nil)
        await pair.close()
    }

    @Test("waits with them for the peer to allow another stream, and forgets them when it is cancelled")
    func waits() async throws {
        var configuration = ConnectionConfiguration()
        configuration.maxUnidirectionalStreams = 1
        let pair = try await TestPair.connected(serverConfiguration: configuration)
        let first = try await pair.client.openUnidirectionalStream()
        let cancelled = Task {
            try await pair.client.openUnidirectionalStream(writing: ByteBuffer(bytes: [6]), finishing: true)
        }
        try await Task.sleep(for: .milliseconds(20))
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { _ = try await cancelled.value }
        let second = Task {
            try await pair.client.openUnidirectionalStream(writing: ByteBuffer(bytes: [7]), finishing: true)
        }
        try await first.write([5], finishing: true)
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let one = try #require(await incoming.next())
        #expect(try await one.readToEnd() == [5])
        let other = try #require(await incoming.next())
        #expect(try await other.readToEnd() == [7])
        #expect(try await second.value.id == other.id)
        await pair.close()
    }
}

/// Runs tasks on an event loop's own thread.
private final class LoopExecutor: TaskExecutor {
    private let eventLoop: any EventLoop

    init(_ eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        eventLoop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
    }
}
