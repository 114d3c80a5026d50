// SPDX-License-Identifier: Apache-2.0

/// Frames from the peer, already decrypted and parsed. An error closes the connection; frames for streams that are
/// closed already are ignored (RFC 9000, section 3).
extension StreamTable {
    private enum Part { case sending, receiving }

    /// The stream that a frame is about, created if the frame opens it; nil if it is closed.
    ///
    /// - Parameter part: which part of our stream the frame concerns.
    @inline(__always)
    private mutating func resolve(
        _ id: StreamID, _ part: Part, frameType: UInt64
    ) throws(TransportError) -> StreamReference? {
        guard part == .sending ? hasSendingPart(id) : hasReceivingPart(id) else {
            throw TransportError(
                .streamStateError, frameType: frameType, "a frame for the direction that stream \(id) does not have")
        }
        if let stream = find(id) { return stream }
        return try resolveAbsent(id, frameType: frameType)
    }

    @inline(never)
    private mutating func resolveAbsent(_ id: StreamID, frameType: UInt64) throws(TransportError) -> StreamReference? {
        guard !isClosed else { return nil }
        let index = Int(id.direction.rawValue)
        if isLocal(id) {
            guard id.ordinal < localOpenings[index].opened else {
                throw TransportError(
                    .streamStateError, frameType: frameType, "a frame for stream \(id), which was not opened")
            }
            return nil
        }
        let opened = peerOpenings[index].opened
        switch peerOpenings[index].resolve(id.ordinal) {
        case .exceedsLimit:
            throw TransportError(.streamLimitError, frameType: frameType, "stream \(id) exceeds the stream limit")
        case .closed:
            return nil
        case .created:
            totals.streamsAccepted &+= peerOpenings[index].opened - opened
            if peerOpenings[index].isUpdateDue { control.insert(.maxStreams(id.direction)) }
            return create(id)
        }
    }

    /// Counts newly received offsets against the connection's window.
    @inline(__always)
    private mutating func admitToConnection(_ count: UInt64, frameType: UInt64) throws(TransportError) {
        // Both are below 2^62 plus a window: no overflow.
        guard received &+ count <= receiveWindow.limit else {
            throw TransportError(
                .flowControlError, frameType: frameType, "the connection's flow control limit was exceeded")
        }
        received &+= count
        totals.bytesReceived &+= count
    }

    /// STREAM (RFC 9000, section 19.8).
    ///
    /// - Parameters:
    ///   - bytes: the frame's data: the bytes that `frame.data` names in the packet.
    ///   - rtt: the smoothed round-trip time, for the growth of the windows; zero if unknown.
    mutating func receive(
        _ frame: StreamFrame, bytes: UnsafeRawBufferPointer, now: Instant, rtt: Nanoseconds
    ) throws(TransportError) {
        guard bytes.count == frame.data.count else {
            throw TransportError(.internalError, frameType: FrameType.stream, "not the data of the STREAM frame")
        }
        guard let stream = try resolve(frame.id, .receiving, frameType: FrameType.stream) else { return }
        // The parser has checked that this does not exceed 2^62-1.
        let end = frame.offset &+ UInt64(bytes.count)
        let news = try stream.pointee.receive.admit(end: end, isFinal: frame.isFinal, frameType: FrameType.stream)
        try admitToConnection(news, frameType: FrameType.stream)
        receiveWindow.noteArrival(now: now)
        let wasAwaiting = stream.pointee.receive.isAwaitingData
        let stored = try stream.pointee.receive.store(
            bytes, at: frame.offset, isFinal: frame.isFinal, now: now, pool: &pool)
        settle(stream, stored, wasAwaiting: wasAwaiting)
    }

    /// RESET_STREAM (RFC 9000, section 19.4).
    mutating func receive(_ frame: ResetStreamFrame) throws(TransportError) {
        let type = FrameType.resetStream
        guard let stream = try resolve(frame.id, .receiving, frameType: type) else { return }
        let news = try stream.pointee.receive.admit(end: frame.finalSize, isFinal: true, frameType: type)
        try admitToConnection(news, frameType: type)
        let wasAwaiting = stream.pointee.receive.isAwaitingData
        let stored = stream.pointee.receive.reset(
            code: frame.applicationErrorCode, finalSize: frame.finalSize, pool: &pool)
        settle(stream, stored, wasAwaiting: wasAwaiting)
    }

    /// Does what the receiving part's new state asks for.
    @inline(__always)
    private mutating func settle(_ stream: StreamReference, _ stored: ReceiveStream.Stored, wasAwaiting: Bool) {
        if stored.isReadable { raise(.readable, for: stream) }
        creditConnection(stored.dropped)
        if !stream.pointee.receive.wantsCredit { receivingEnded(stream, wasAwaiting: wasAwaiting) }
    }

    /// The final size is known, or nothing more is wanted.
    private mutating func receivingEnded(_ stream: StreamReference, wasAwaiting: Bool) {
        unqueue(.maxStreamData, for: stream)
        if !stream.pointee.receive.wantsStop { unqueue(.stopSending, for: stream) }
        if wasAwaiting, !stream.pointee.receive.isAwaitingData { awaitingCount -= 1 }
        removeIfDone(stream)
    }

    /// STOP_SENDING (RFC 9000, section 19.5): the stream is reset with the peer's code, which is also told to the
    /// application.
    mutating func receive(_ frame: StopSendingFrame) throws(TransportError) {
        guard let stream = try resolve(frame.id, .sending, frameType: FrameType.stopSending) else { return }
        guard stream.pointee.send.stop(code: frame.applicationErrorCode) else { return }
        sendingAbandoned(stream)
        raise(.stopped, for: stream)
    }

    /// MAX_DATA (RFC 9000, section 19.9).
    mutating func receiveMaxData(_ maximum: UInt64) {
        guard maximum > sendLimit, !isClosed else { return }
        sendLimit = maximum
        control.remove(.dataBlocked)
    }

    /// MAX_STREAM_DATA (RFC 9000, section 19.10).
    mutating func receiveMaxStreamData(_ id: StreamID, _ maximum: UInt64) throws(TransportError) {
        guard let stream = try resolve(id, .sending, frameType: FrameType.maxStreamData) else { return }
        guard maximum > stream.pointee.send.limit else { return }
        stream.pointee.send.raiseLimit(to: maximum)
        unqueue(.streamDataBlocked, for: stream)
        updateSendLists(stream)
        noteConnectionBlocked()
    }

    /// MAX_STREAMS (RFC 9000, section 19.11). The parser has refused values above 2^60.
    mutating func receiveMaxStreams(_ direction: StreamDirection, _ maximum: UInt64) {
        guard !isClosed else { return }
        let index = Int(direction.rawValue)
        let former = localOpenings[index].limit
        if localOpenings[index].raiseLimit(to: maximum) { available.insert(.only(direction)) }
        if localOpenings[index].limit > former { control.remove(.streamsBlocked(direction)) }
    }

    // MARK: A peer that is blocked

    // Limits grow by reading, not by asking. But a peer that is held up by an older limit than it was told has not heard:
    // what told it was lost, perhaps to an address that the peer has left, and is said again before the loss is proved.

    /// DATA_BLOCKED (RFC 9000, section 19.12).
    mutating func receiveDataBlocked(at limit: UInt64) {
        guard !isClosed, limit < receiveWindow.limit else { return }
        control.insert(.maxData)
    }

    /// STREAM_DATA_BLOCKED (RFC 9000, section 19.13). It may open the stream.
    mutating func receiveStreamDataBlocked(_ id: StreamID, at limit: UInt64) throws(TransportError) {
        guard let stream = try resolve(id, .receiving, frameType: FrameType.streamDataBlocked),
            stream.pointee.receive.wantsCredit, limit < stream.pointee.receive.window.limit
        else { return }
        queue(.maxStreamData, for: stream)
    }

    /// STREAMS_BLOCKED (RFC 9000, section 19.14).
    mutating func receiveStreamsBlocked(_ direction: StreamDirection, at limit: UInt64) {
        guard !isClosed, limit < peerOpenings[Int(direction.rawValue)].limit else { return }
        control.insert(.maxStreams(direction))
    }
}
