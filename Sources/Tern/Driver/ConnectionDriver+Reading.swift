// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

extension ConnectionDriver {
    /// Reads what is there, up to `limit` bytes, after what `buffer` holds; waits if nothing is there.
    func read(_ id: StreamID, into buffer: ByteBuffer, limit: Int) async throws -> ReadOutcome {
        try await worker.eventLoop.suspend(
            for: ReadOutcome.self,
            onCancel: { suspension in
                self.updateWaits(of: id) { if $0.reader?.suspension === suspension { $0.reader = nil } }
            },
            start: { suspension in
                self.read(id, ReadRequest(buffer: buffer, limit: limit, suspension: suspension))
            }
        ).get()
    }

    private func read(_ id: StreamID, _ request: ReadRequest) {
        guard streamWaits[id]?.reader == nil else {
            return request.suspension.resume(throwing: TernError.concurrentRead(id))
        }
        let isDecided = withConnection { connection, _ in self.tryReading(id, request, &connection) }
        switch isDecided {
        case true?: break
        case false? where closeReason == nil: streamWaits[id, default: StreamWaits()].reader = request
        case false?, nil: request.suspension.resume(throwing: reasonForRefusal)
        }
    }

    func serveReader(of id: StreamID, _ connection: inout QUICConnection) {
        guard let request = streamWaits[id]?.reader, tryReading(id, request, &connection) else { return }
        updateWaits(of: id) { if $0.reader === request { $0.reader = nil } }
    }

    /// - Returns: false if there is nothing to be read yet.
    private func tryReading(_ id: StreamID, _ request: ReadRequest, _ connection: inout QUICConnection) -> Bool {
        var count = 0
        var isFinished = false
        var failure: StreamError?
        while count < request.limit, !isFinished, failure == nil {
            let available = connection.readableBytes(id)
            // A reset is left to the next read, so that what came before it is delivered.
            if available == 0, count > 0 { break }
            let result: StreamReadResult
            do throws(StreamError) {
                if available > 0 {
                    let wanted = min(available, request.limit - count)
                    result = try request.buffer.appendFromEngine(wanted) { (space) throws(StreamError) in
                        try connection.read(id, into: space)
                    }
                } else {
                    // There may be an end or a reset to be seen.
                    result = try connection.read(id, into: worker.noSpace)
                }
            } catch {
                failure = error
                break
            }
            count += result.count
            isFinished = result.isFinished
            if result.count == 0 { break }
        }
        if count > 0 || isFinished {
            request.succeed(count: count, isFinished: isFinished)
            return true
        }
        if let failure {
            request.suspension.resume(throwing: translated(failure))
            return true
        }
        return false
    }
}

extension ByteBuffer {
    /// Has `body` write up to `count` bytes behind what is readable.
    fileprivate mutating func appendFromEngine(
        _ count: Int, _ body: (UnsafeMutableRawBufferPointer) throws(StreamError) -> StreamReadResult
    ) throws(StreamError) -> StreamReadResult {
        var result: Result<StreamReadResult, StreamError> = .success(StreamReadResult(count: 0, isFinished: false))
        writeWithUnsafeMutableBytes(minimumWritableBytes: count) { space in
            do throws(StreamError) {
                let read = try body(UnsafeMutableRawBufferPointer(rebasing: space[..<count]))
                result = .success(read)
                return min(read.count, count)
            } catch {
                result = .failure(error)
                return 0
            }
        }
        return try result.get()
    }
}
