// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Tern

/// The protocol `perf`: the client opens a bidirectional stream, sends 8 bytes, big-endian, with the number of bytes it
/// wants, and may then upload; when the client's end has come the server answers that many bytes and its own end.
enum PerfProtocol {
    static let applicationProtocol = "perf"

    /// Bytes handed to a stream at a time.
    static let chunkSize = 256 * 1_024

    enum ErrorCode {
        static let malformedRequest: UInt64 = 1
        static let failed: UInt64 = 2
    }

    /// Answers every stream of a connection, until that ends.
    static func serve(_ connection: Connection) async {
        var streams = connection.incomingStreams.makeAsyncIterator()
        // The group, which takes memory, is not for connections that do nothing.
        guard let first = await streams.next() else { return }
        await withDiscardingTaskGroup { group in
            group.addTask { await answerOrReset(first) }
            while let stream = await streams.next() { group.addTask { await answerOrReset(stream) } }
        }
    }

    private static func answerOrReset(_ stream: Tern.Stream) async {
        do {
            try await answer(stream)
        } catch {
            try? await stream.reset(errorCode: ErrorCode.failed)
            try? await stream.stopReading(errorCode: ErrorCode.failed)
        }
    }

    /// Accepts connections until the listener is closed.
    static func serve(_ listener: Listener) async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for try await connection in listener.connections {
                group.addTask { await serve(connection) }
            }
        }
    }

    private static func answer(_ stream: Tern.Stream) async throws {
        var request = ByteBuffer()
        while try await stream.read(into: &request) > 0 {
            // What follows the number is the upload, of which nothing is kept.
            if request.readableBytes > 8 { request.moveWriterIndex(to: request.readerIndex + 8) }
        }
        guard let wanted = request.readInteger(as: UInt64.self) else {
            try await stream.reset(errorCode: ErrorCode.malformedRequest)
            return
        }
        try await send(wanted, on: stream)
    }

    /// What is sent: zeros, all out of one buffer, which every stream may refer to at once.
    private static let zeros = ByteBuffer(repeating: 0, count: chunkSize)

    /// Sends so many bytes, and the end with the last of them.
    private static func send(_ count: UInt64, on stream: Tern.Stream) async throws {
        var rest = count
        while rest > UInt64(chunkSize) {
            try await stream.write(zeros)
            rest -= UInt64(chunkSize)
        }
        try await stream.write(zeros.getSlice(at: 0, length: Int(rest)) ?? zeros, finishing: true)
    }

    /// The request for so many bytes, which may be sent again and again.
    static func request(download: Int) -> ByteBuffer { ByteBuffer(integer: UInt64(download)) }

    /// One exchange as the client sees it.
    ///
    /// - Parameters:
    ///   - buffer: that each chunk of the answer is read into, one over the other.
    ///   - chunk: bytes of the answer that are read at a time, at most.
    ///   - progress: called for each chunk of the answer.
    nonisolated(nonsending)
        static func exchange(
            _ request: ByteBuffer, upload: Int = 0, download: Int, over connection: Connection,
            buffer: inout ByteBuffer, chunk: Int = chunkSize, progress: () -> Void = {}
        ) async throws
    {
        let stream = try await connection.openStream(writing: request, finishing: upload == 0)
        if upload > 0 { try await send(UInt64(upload), on: stream) }
        var received = 0
        while true {
            buffer.clear()
            let count = try await stream.read(into: &buffer, upTo: chunk)
            if count == 0 { break }
            received += count
            progress()
        }
        guard received == download else {
            throw CommandError("the server answered \(received) bytes instead of \(download)")
        }
    }
}
