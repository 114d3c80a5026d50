// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Tern

/// Answers HTTP/0.9 requests with the files of a folder.
struct FileServer: Sendable {
    /// One answer as it goes out.
    struct Answer: Sendable {
        var path: String
        /// Bytes of the file.
        var size: Int
        /// Bytes written so far.
        var sent: Int
    }

    let folder: ServedFolder
    /// Bytes read and written at a time.
    var chunkSize = 256 * 1_024
    /// Called before each chunk is written, with its size; the writing goes on when it returns.
    var throttle: (@Sendable (Answer, _ next: Int) async throws -> Void)?
    /// Hears of each answer that ended: the path asked for, the bytes sent, nil if all went well.
    var report: (@Sendable (_ path: String, _ sent: Int, _ problem: String?) -> Void)?

    /// Serves every stream that the client opens, until the connection ends.
    func serve(_ connection: Connection) async {
        await withDiscardingTaskGroup { group in
            for await stream in connection.incomingStreams {
                group.addTask { await answer(stream) }
            }
        }
    }

    private func answer(_ stream: Tern.Stream) async {
        var answer = Answer(path: "?", size: 0, sent: 0)
        do {
            guard let path = HTTP09.path(ofRequest: try await request(on: stream)) else {
                await refuse(stream, with: HTTP09.ErrorCode.badRequest)
                report?(answer.path, 0, "no HTTP/0.9 request")
                return
            }
            answer.path = path
            guard let file = folder.file(for: path), let reader = try? FileReader(path: file) else {
                await refuse(stream, with: HTTP09.ErrorCode.notFound)
                report?(path, 0, "no such file")
                return
            }
            answer.size = reader.size
            while let chunk = try reader.read(upTo: chunkSize) {
                try await throttle?(answer, chunk.readableBytes)
                let count = chunk.readableBytes
                try await stream.write(chunk)
                answer.sent += count
            }
            try await stream.finish()
            report?(path, answer.sent, nil)
            // The answer is complete: that the client closes before its own side has ended changes nothing about it.
            try? await readEnd(of: stream)
        } catch {
            // The client has gone, or wants no more, or the file cannot be read: nothing to tell it but this.
            await refuse(stream, with: HTTP09.ErrorCode.internalError)
            report?(answer.path, answer.sent, explain(error) ?? "\(error)")
        }
    }

    /// Ends both directions of a stream that has no answer.
    private func refuse(_ stream: Tern.Stream, with code: UInt64) async {
        try? await stream.reset(errorCode: code)
        try? await stream.stopReading(errorCode: code)
    }

    /// Reads to the client's end, which most often has come with the request: the stream is not over before.
    private func readEnd(of stream: Tern.Stream) async throws {
        var surplus = 0
        for try await bytes in stream.bytes {
            surplus += bytes.readableBytes
            if surplus > HTTP09.maximumRequestSize {
                return try await stream.stopReading(errorCode: HTTP09.ErrorCode.badRequest)
            }
        }
    }

    /// The request line. It ends with a line feed or with the stream, whichever comes first.
    private func request(on stream: Tern.Stream) async throws -> ByteBuffer {
        var request = ByteBuffer()
        for try await bytes in stream.bytes {
            request.writeImmutableBuffer(bytes)
            if request.readableBytes > HTTP09.maximumRequestSize { return ByteBuffer() }
            if request.readableBytesView.contains(UInt8(ascii: "\n")) { break }
        }
        return request
    }
}
