// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

// Opening, writing, ending. Every function but the async ones runs on the event loop.
//
// A task that runs on the event loop already (see `Connection.eventLoop`) is not suspended for what can be decided at once:
// each call tries that first.
extension ConnectionDriver {
    /// An ended connection says why it ended rather than that it did (M8).
    func translated(_ error: StreamError) -> any Error {
        error == .connectionClosed ? (closeReason ?? .endpointClosed) as any Error : error
    }

    // MARK: Opening

    /// - Parameter bytes: what is written to the stream at once, all of it.
    nonisolated(nonsending)
        func openStream(
            _ direction: StreamDirection, writing bytes: ByteBuffer = ByteBuffer(), finishing: Bool = false
        ) async throws -> StreamID
    {
        if isOnLoop {
            try Task.checkCancellation()
            if let result = tryOpening(direction, writing: bytes, finishing: finishing) { return try result.get() }
        }
        let id = try await worker.suspend(
            for: StreamID.self,
            onCancel: { suspension in self.openWaits[direction].removeAll { $0.suspension === suspension } },
            start: { suspension in
                if let result = self.tryOpening(direction, writing: bytes, finishing: finishing) {
                    suspension.resume(result)
                } else {
                    self.openWaits[direction].append(
                        OpenRequest(bytes: bytes, finishing: finishing, suspension: suspension))
                }
            }
        ).get()
        return id
    }

    /// - Returns: nil if the call must wait.
    private func tryOpening(
        _ direction: StreamDirection, writing bytes: ByteBuffer, finishing: Bool
    ) -> Result<StreamID, any Error>? {
        guard closeReason == nil else { return .failure(reasonForRefusal) }
        // Those who wait longer come first.
        guard openWaits[direction].isEmpty else { return nil }
        let result = withConnection { connection, _ in
            self.open(direction, writing: bytes, finishing: finishing, &connection)
        }
        return result ?? .failure(reasonForRefusal)
    }

    /// - Returns: nil if the peer allows no more streams for now.
    private func open(
        _ direction: StreamDirection, writing bytes: ByteBuffer, finishing: Bool, _ connection: inout QUICConnection
    ) -> Result<StreamID, any Error>? {
        do throws(StreamError) {
            let id = try connection.openStream(direction)
            if bytes.readableBytes > 0 || finishing {
                try connection.write(SharedBytes(bytes), to: id, finish: finishing)
            }
            return .success(id)
        } catch .limitReached {
            return nil
        } catch {
            return .failure(translated(error))
        }
    }

    func serveOpeners(_ direction: StreamDirection, _ connection: inout QUICConnection) {
        while let request = openWaits[direction].first {
            let result = open(direction, writing: request.bytes, finishing: request.finishing, &connection)
            guard let result else { return }
            openWaits[direction].removeFirst()
            request.suspension.resume(result)
        }
    }

    // MARK: Writing

    nonisolated(nonsending)
        func write(_ bytes: ByteBuffer, finishing: Bool, to id: StreamID) async throws
    {
        let isOnLoop = isOnLoop
        if isOnLoop {
            try Task.checkCancellation()
            if let result = tryWriting(bytes, finishing: finishing, to: id) { return try result.get() }
        }
        let request = WriteRequest(
            driver: self, id: id, bytes: bytes, finishing: finishing, isKnownToWait: isOnLoop)
        try await worker.wait(in: request).get()
    }

    /// - Returns: nil if the call must wait.
    func tryWriting(_ bytes: ByteBuffer, finishing: Bool, to id: StreamID) -> Result<Void, any Error>? {
        guard closeReason == nil else { return .failure(reasonForRefusal) }
        guard streamWaits.isEmpty || streamWaits[id]?.writers.isEmpty ?? true else { return nil }
        let result = withConnection { connection, _ in
            self.write(bytes, finishing: finishing, to: id, &connection)
        }
        return result ?? .failure(reasonForRefusal)
    }

    /// - Returns: nil if the stream holds as much as it should.
    private func write(
        _ bytes: ByteBuffer, finishing: Bool, to id: StreamID, _ connection: inout QUICConnection
    ) -> Result<Void, any Error>? {
        // The bare end takes no room.
        guard bytes.readableBytes == 0 || connection.sendBuffered(id) < sendBufferLimit else { return nil }
        do throws(StreamError) {
            try connection.write(SharedBytes(bytes), to: id, finish: finishing)
            return .success(())
        } catch {
            return .failure(translated(error))
        }
    }

    func serveWriters(of id: StreamID, _ connection: inout QUICConnection) {
        while let request = streamWaits[id]?.writers.first {
            let result = write(request.bytes, finishing: request.finishing, to: id, &connection)
            guard let result else { return }
            updateWaits(of: id) { $0.writers.removeFirst() }
            request.resume(result)
        }
    }

    func failWriters(of id: StreamID, _ error: any Error) {
        updateWaits(of: id) { $0.writers.fail(error) }
    }

    // MARK: Ending

    nonisolated(nonsending)
        func finish(_ id: StreamID) async throws
    {
        try await decide { connection throws(StreamError) in
            try connection.write(SharedBytes(ByteBuffer()), to: id, finish: true)
        }
    }

    nonisolated(nonsending)
        func reset(_ id: StreamID, code: UInt64) async throws
    {
        try await decide { connection throws(StreamError) in
            try connection.reset(id, code: code)
            self.failWriters(of: id, StreamError.resetLocally)
        }
    }

    nonisolated(nonsending)
        func stopReading(_ id: StreamID, code: UInt64) async throws
    {
        try await decide { connection throws(StreamError) in
            try connection.stopSending(id, code: code)
            self.updateWaits(of: id) { waits in
                waits.reader?.resume(throwing: StreamError.stoppedLocally)
                waits.reader = nil
            }
        }
    }

    /// A call that is decided at once, either way.
    nonisolated(nonsending)
        private func decide(
            _ body: @escaping @Sendable (inout QUICConnection) throws(StreamError) -> Void
        ) async throws
    {
        let result: Result<Void, any Error> = await worker.run {
            guard self.closeReason == nil else { return .failure(self.reasonForRefusal) }
            let outcome: Result<Void, any Error>? = self.withConnection { connection, _ in
                do throws(StreamError) {
                    return .success(try body(&connection))
                } catch {
                    return .failure(self.translated(error))
                }
            }
            return outcome ?? .failure(self.reasonForRefusal)
        }
        try result.get()
    }

    /// Changes the waits of a stream, and forgets it when nobody waits any longer.
    func updateWaits(of id: StreamID, _ body: (inout StreamWaits) -> Void) {
        guard var waits = streamWaits.removeValue(forKey: id) else { return }
        body(&waits)
        if !waits.isEmpty { streamWaits[id] = waits }
    }
}

extension SharedBytes {
    /// The buffer's readable bytes, without a copy: its storage stays alive, and is copied by whoever changes the buffer
    /// before the engine lets go of it.
    init(_ buffer: ByteBuffer) {
        self = buffer.withUnsafeReadableBytesWithStorageManagement { bytes, storage in
            SharedBytes(unsafeBytes: bytes, owner: storage.takeUnretainedValue())
        }
    }
}
