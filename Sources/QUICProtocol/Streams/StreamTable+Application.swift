// SPDX-License-Identifier: Apache-2.0

/// What the application does with streams.
extension StreamTable {
    /// A stream that the application named.
    ///
    /// - Throws: `unknownStream` if it was never opened, `finished` if it is closed.
    @inline(__always)
    private mutating func named(_ id: StreamID) throws(StreamError) -> StreamReference {
        if let stream = find(id) { return stream }
        return try namedAbsent(id)
    }

    @inline(never)
    private mutating func namedAbsent(_ id: StreamID) throws(StreamError) -> StreamReference {
        guard !isClosed else { throw .connectionClosed }
        let index = Int(id.direction.rawValue)
        if !isLocal(id), peerOpenings[index].touch(id.ordinal) { return create(id) }
        let opened = isLocal(id) ? localOpenings[index].opened : peerOpenings[index].opened
        throw id.ordinal < opened ? .finished(id) : .unknownStream(id)
    }

    /// Opens a stream. The peer learns of it with the first frame about it.
    ///
    /// - Throws: `limitReached`; the peer is told, and `streamsAvailable` comes when it allows more.
    mutating func open(_ direction: StreamDirection) throws(StreamError) -> StreamID {
        guard !isClosed else { throw .connectionClosed }
        let index = Int(direction.rawValue)
        let wasBlocked = localOpenings[index].isBlocked
        guard let ordinal = localOpenings[index].open() else {
            if !wasBlocked, peer != nil { control.insert(.streamsBlocked(direction)) }
            throw .limitReached(direction)
        }
        let id = StreamID(initiator: role, direction: direction, ordinal: ordinal)
        _ = create(id)
        totals.streamsOpened &+= 1
        return id
    }

    /// Takes bytes to be sent: always all of them, whatever `sendBuffered` says.
    ///
    /// - Parameters:
    ///   - bytes: kept until acknowledged. They may be empty.
    ///   - finish: these are the last.
    mutating func write(_ bytes: SharedBytes, to id: StreamID, finish: Bool) throws(StreamError) {
        guard hasSendingPart(id) else { throw .notWritable(id) }
        let stream = try named(id)
        try stream.pointee.send.write(bytes, id: id, finish: finish, mark: limits.sendBufferLimit)
        updateSendLists(stream)
        if sendCredit == 0 { noteConnectionBlocked() }
    }

    /// Bytes written and not yet sent for the first time: what back-pressure is measured by. What was sent and is not
    /// acknowledged is bounded by flow control. Zero for a stream that is closed or unknown.
    func sendBuffered(_ id: StreamID) -> Int {
        guard let stream = peek(id) else { return 0 }
        return Int(clamping: stream.pointee.send.buffer.unsent)
    }

    /// Abandons sending (RESET_STREAM). Data not acknowledged is dropped. Without effect once all was acknowledged, or
    /// after an earlier reset.
    mutating func reset(_ id: StreamID, code: UInt64) throws(StreamError) {
        guard hasSendingPart(id) else { throw .notWritable(id) }
        guard let stream = try namedUnlessFinished(id) else { return }
        if stream.pointee.send.reset(code: code) { sendingAbandoned(stream) }
    }

    /// Asks the peer to stop sending (STOP_SENDING). Data not read is dropped, now and later. Without effect once all was
    /// read.
    mutating func stopSending(_ id: StreamID, code: UInt64) throws(StreamError) {
        guard hasReceivingPart(id) else { throw .notReadable(id) }
        guard let stream = try namedUnlessFinished(id) else { return }
        let wasAwaiting = stream.pointee.receive.isAwaitingData
        let hadAsked = stream.pointee.receive.wantsStop
        creditConnection(stream.pointee.receive.stop(pool: &pool))
        if wasAwaiting, !stream.pointee.receive.isAwaitingData { awaitingCount -= 1 }
        unqueue(.maxStreamData, for: stream)
        withdrawReadable(stream)
        if stream.pointee.receive.wantsStop, !hadAsked {
            stream.pointee.stopCode = code
            queue(.stopSending, for: stream)
        }
        removeIfDone(stream)
    }

    private mutating func namedUnlessFinished(_ id: StreamID) throws(StreamError) -> StreamReference? {
        do {
            return try named(id)
        } catch .finished {
            return nil
        }
    }

    /// The sending part was reset, by us or on the peer's demand.
    mutating func sendingAbandoned(_ stream: StreamReference) {
        updateSendLists(stream)
        stream.pointee.events.remove(.writable)
        unqueue(.streamDataBlocked, for: stream)
        queue(.resetStream, for: stream)
    }

    /// Reads what has arrived in order.
    ///
    /// - Parameter rtt: the smoothed round-trip time, for the growth of the windows; zero if unknown.
    /// - Throws: `resetByPeer` when the peer abandoned the stream; what it had sent and was not read is gone.
    mutating func read(
        _ id: StreamID, into destination: UnsafeMutableRawBufferPointer, now: Instant, rtt: Nanoseconds
    ) throws(StreamError) -> StreamReadResult {
        guard hasReceivingPart(id) else { throw .notReadable(id) }
        let stream = try named(id)
        if let code = stream.pointee.receive.takeReset() {
            withdrawReadable(stream)
            removeIfDone(stream)
            throw .resetByPeer(code: code)
        }
        let result = try stream.pointee.receive.read(id: id, into: destination, pool: &pool)
        if result.count > 0 {
            totals.bytesRead &+= UInt64(result.count)
            let former = stream.pointee.receive.window.size
            if stream.pointee.receive.consume(result.count, now: now, rtt: rtt) { queue(.maxStreamData, for: stream) }
            let window = stream.pointee.receive.window.size
            if window > former { receiveWindow.ensureSize(atLeast: window + window / 2) }
            if receiveWindow.consume(UInt64(result.count), now: now, rtt: rtt) { control.insert(.maxData) }
        }
        if !stream.pointee.receive.hasUnreadNews { withdrawReadable(stream) }
        if result.isFinished { removeIfDone(stream) }
        return result
    }

    /// There is nothing left to be read: an event not yet taken would be false.
    private mutating func withdrawReadable(_ stream: StreamReference) {
        guard stream.pointee.events.contains(.readable) else { return }
        stream.pointee.events.remove(.readable)
        if stream.pointee.events.isEmpty { eventful.remove(stream) }
    }

    /// Bytes that a read would deliver now. Zero for a stream that is closed or unknown.
    func readableBytes(_ id: StreamID) -> Int {
        peek(id)?.pointee.receive.readable ?? 0
    }

    /// Something waits to be taken by `nextEvent`.
    var hasEvents: Bool {
        !eventful.isEmpty || !available.isEmpty || peerOpenings[0].hasAnnouncements || peerOpenings[1].hasAnnouncements
    }

    /// The next event, or nil. A stream has at most one event of each kind waiting, so the queue is bounded by the number
    /// of open streams.
    ///
    /// `readable` is raised when data, the end or a reset becomes readable, unless it was raised before and the
    /// application has called `read` not once since. So after the event read until a read fills less than its buffer, or
    /// reports the end, or throws; whatever arrives after the last of those reads raises the event again. An event that a
    /// read has made pointless before it was taken is withdrawn.
    mutating func nextEvent() -> StreamEvent? {
        if !available.isEmpty {
            let direction: StreamDirection =
                available.contains(.only(.bidirectional)) ? .bidirectional : .unidirectional
            available.remove(.only(direction))
            return .streamsAvailable(direction)
        }
        if let id = nextAnnouncement(.bidirectional) ?? nextAnnouncement(.unidirectional) { return .opened(id) }
        while let stream = eventful.first {
            if let event = takeEvent(of: stream) { return event }
            eventful.remove(stream)
        }
        return nil
    }

    private mutating func nextAnnouncement(_ direction: StreamDirection) -> StreamID? {
        guard let ordinal = peerOpenings[Int(direction.rawValue)].nextToAnnounce() else { return nil }
        return StreamID(initiator: role.peer, direction: direction, ordinal: ordinal)
    }

    private mutating func takeEvent(of stream: StreamReference) -> StreamEvent? {
        let id = stream.pointee.id
        let events = stream.pointee.events
        let kind: StreamEventSet
        let event: StreamEvent
        if events.contains(.stopped) {
            (kind, event) = (.stopped, .stopped(id, code: stream.pointee.send.stopCode ?? 0))
        } else if events.contains(.readable) {
            (kind, event) = (.readable, .readable(id))
        } else if events.contains(.writable) {
            (kind, event) = (.writable, .writable(id))
        } else if events.contains(.sendClosed) {
            (kind, event) = (.sendClosed, .sendClosed(id))
        } else {
            return nil
        }
        stream.pointee.events.remove(kind)
        if stream.pointee.events.isEmpty { eventful.remove(stream) }
        removeIfDone(stream)
        return event
    }
}
