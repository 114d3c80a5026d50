// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

// Opening, writing, ending. Every function but the async ones runs on the event loop.
extension ConnectionDriver {
    /// An ended connection says why it ended rather than that it did (M8).
    func translated(_ error: StreamError) -> any Error {
        error == .connectionClosed ? (closeReason ?? .endpointClosed) as any Error : error
    }

    // MARK: Opening

    func openStream(_ direction: StreamDirection) async throws -> StreamID {
        try await worker.eventLoop.suspend(
            for: StreamID.self,
            onCancel: { suspension in self.openWaits[direction].removeAll { $0 === suspension } },
            start: { suspension in self.open(direction, suspension) }
        ).get()
    }

    private func open(_ direction: StreamDirection, _ suspension: Suspension<StreamID>) {
        guard closeReason == nil else { return suspension.resume(throwing: reasonForRefusal) }
        // Those who wait longer come first.
        guard openWaits[direction].isEmpty else { return openWaits[direction].append(suspension) }
        let isDecided = withConnection { connection, _ in
            self.tryOpening(direction, suspension, &connection)
        }
        switch isDecided {
        case true?: break
        case false?: openWaits[direction].append(suspension)
        case nil: suspension.resume(throwing: reasonForRefusal)
        }
    }

    /// - Returns: false if the peer allows no more streams for now.
    private func tryOpening(
        _ direction: StreamDirection, _ suspension: Suspension<StreamID>, _ connection: inout QUICConnection
    ) -> Bool {
        do throws(StreamError) {
            suspension.resume(returning: try connection.openStream(direction))
        } catch .limitReached {
            return false
        } catch {
            suspension.resume(throwing: translated(error))
        }
        return true
    }

    func serveOpeners(_ direction: StreamDirection, _ connection: inout QUICConnection) {
        while let suspension = openWaits[direction].first {
            guard tryOpening(direction, suspension, &connection) else { return }
            openWaits[direction].removeFirst()
        }
    }

    // MARK: Writing

    func write(_ bytes: ByteBuffer, to id: StreamID) async throws {
        try await worker.eventLoop.suspend(
            for: Void.self,
            onCancel: { suspension in
                self.updateWaits(of: id) { $0.writers.removeAll { $0.suspension === suspension } }
            },
            start: { suspension in self.write(WriteRequest(bytes: bytes, suspension: suspension), to: id) }
        ).get()
    }

    private func write(_ request: WriteRequest, to id: StreamID) {
        guard closeReason == nil else { return request.suspension.resume(throwing: reasonForRefusal) }
        guard streamWaits[id]?.writers.isEmpty ?? true else {
            streamWaits[id]?.writers.append(request)
            return
        }
        let isDecided = withConnection { connection, _ in self.tryWriting(request, to: id, &connection) }
        switch isDecided {
        case true?: break
        case false?: streamWaits[id, default: StreamWaits()].writers.append(request)
        case nil: request.suspension.resume(throwing: reasonForRefusal)
        }
    }

    /// - Returns: false if the stream holds as much as it should.
    private func tryWriting(_ request: WriteRequest, to id: StreamID, _ connection: inout QUICConnection) -> Bool {
        guard connection.sendBuffered(id) < sendBufferLimit else { return false }
        do throws(StreamError) {
            try connection.write(SharedBytes(request.bytes), to: id, finish: false)
            request.suspension.resume(returning: ())
        } catch {
            request.suspension.resume(throwing: translated(error))
        }
        return true
    }

    func serveWriters(of id: StreamID, _ connection: inout QUICConnection) {
        while let request = streamWaits[id]?.writers.first {
            guard tryWriting(request, to: id, &connection) else { return }
            updateWaits(of: id) { waits in
                if waits.writers.first?.suspension === request.suspension { waits.writers.removeFirst() }
            }
        }
    }

    func failWriters(of id: StreamID, _ error: any Error) {
        updateWaits(of: id) { waits in
            for writer in waits.writers { writer.suspension.resume(throwing: error) }
            waits.writers = []
        }
    }

    // MARK: Ending

    func finish(_ id: StreamID) async throws {
        try await decide { connection throws(StreamError) in
            try connection.write(SharedBytes(copying: EmptyCollection()), to: id, finish: true)
        }
    }

    func reset(_ id: StreamID, code: UInt64) async throws {
        try await decide { connection throws(StreamError) in
            try connection.reset(id, code: code)
            self.failWriters(of: id, StreamError.resetLocally)
        }
    }

    func stopReading(_ id: StreamID, code: UInt64) async throws {
        try await decide { connection throws(StreamError) in
            try connection.stopSending(id, code: code)
            self.updateWaits(of: id) { waits in
                waits.reader?.suspension.resume(throwing: StreamError.stoppedLocally)
                waits.reader = nil
            }
        }
    }

    /// A call that is decided at once, either way.
    private func decide(
        _ body: @escaping @Sendable (inout QUICConnection) throws(StreamError) -> Void
    ) async throws {
        let result: Result<Void, any Error> = await worker.eventLoop.run {
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
