// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

extension ConnectionDriver {
    /// Reads what is there, up to `limit` bytes, after what `buffer` holds; waits if nothing is there. When it throws, the
    /// buffer is empty.
    nonisolated(nonsending)
        func read(_ id: StreamID, into buffer: inout ByteBuffer, limit: Int) async throws -> ReadProgress
    {
        // Moved there and back, so that the storage has one owner and is written in place.
        var lent = buffer
        buffer = ByteBuffer()
        let isOnLoop = isOnLoop
        if isOnLoop {
            try Task.checkCancellation()
            if let result = tryReading(id, into: &lent, limit: limit) {
                let progress = try result.get()
                buffer = lent
                return progress
            }
        }
        let request: ReadRequest
        if isOnLoop, let former = worker.spareReads.popLast() {
            former.renew(driver: self, id: id, buffer: lent, limit: limit)
            request = former
        } else {
            request = ReadRequest(driver: self, id: id, buffer: lent, limit: limit, isKnownToWait: isOnLoop)
        }
        lent = ByteBuffer()
        let progress = try await worker.wait(in: request).get()
        buffer = request.finish()
        if isOnLoop, self.isOnLoop, worker.spareReads.count < Worker.Limits.spareReads {
            worker.spareReads.append(request)
        }
        return progress
    }

    /// - Returns: nil if the call must wait.
    func tryReading(
        _ id: StreamID, into buffer: inout ByteBuffer, limit: Int
    ) -> Result<ReadProgress, any Error>? {
        guard closeReason == nil else { return .failure(reasonForRefusal) }
        guard streamWaits.isEmpty || streamWaits[id]?.reader == nil else {
            return .failure(TernError.concurrentRead(id))
        }
        let result: Result<ReadProgress, any Error>?? = lookAt { connection in
            self.read(id, into: &buffer, limit: limit, &connection)
        }
        guard let result else { return .failure(reasonForRefusal) }
        // The peer may be given credit, or another stream.
        if result != nil { touchAndSchedule() }
        return result
    }

    func serveReader(of id: StreamID, _ connection: inout QUICConnection) {
        guard let request = streamWaits[id]?.reader,
            let result = read(id, into: &request.buffer, limit: request.limit, &connection)
        else { return }
        updateWaits(of: id) { $0.reader = nil }
        request.resume(result)
    }

    /// - Returns: nil if there is nothing to be read yet.
    private func read(
        _ id: StreamID, into buffer: inout ByteBuffer, limit: Int, _ connection: inout QUICConnection
    ) -> Result<ReadProgress, any Error>? {
        var progress = ReadProgress()
        while progress.count < limit, !progress.isFinished {
            let available = connection.readableBytes(id)
            // A reset is left to the next read, so that what came before it is delivered.
            if available == 0, progress.count > 0 { break }
            let result: StreamReadResult
            do throws(StreamError) {
                if available > 0 {
                    let wanted = min(available, limit - progress.count)
                    result = try buffer.appendFromEngine(wanted) { (space) throws(StreamError) in
                        try connection.read(id, into: space)
                    }
                } else {
                    // There may be an end or a reset to be seen.
                    result = try connection.read(id, into: worker.noSpace)
                }
            } catch {
                if progress.count > 0 { break }
                return .failure(translated(error))
            }
            progress.count += result.count
            progress.isFinished = result.isFinished
            if result.count == 0 { break }
        }
        return progress.count > 0 || progress.isFinished ? .success(progress) : nil
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
