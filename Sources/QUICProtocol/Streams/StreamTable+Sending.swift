// SPDX-License-Identifier: Apache-2.0

/// Writing frames into packets.
extension StreamTable {
    /// Control frames wait to be sent.
    var hasControlFramesToSend: Bool { !control.isEmpty || !controlled.isEmpty }

    /// Stream data waits that flow control allows to be sent. Lost data always may.
    var hasStreamDataToSend: Bool { !unmetered.isEmpty || (!fresh.isEmpty && sendLimit > sent) }

    /// Only the peer's limits keep data from being sent: worth a reminder when nothing else is in flight
    /// (RFC 9000, section 4.1).
    var isFlowControlBlocked: Bool { !hasStreamDataToSend && hasBlockedData }

    private var hasBlockedData: Bool {
        if !fresh.isEmpty { return true }
        for slot in 0..<map.slotCount where map.stream(atSlot: slot)?.pointee.send.isBlocked == true { return true }
        return false
    }

    /// Queues a DATA_BLOCKED or STREAM_DATA_BLOCKED frame for every limit that holds data back, also if it was reported
    /// before.
    mutating func repeatBlockedFrames() {
        blockedAt = nil
        noteConnectionBlocked()
        for slot in 0..<map.slotCount {
            guard let stream = map.stream(atSlot: slot), peer != nil else { continue }
            if stream.pointee.send.repeatBlocked() { queue(.streamDataBlocked, for: stream) }
        }
    }

    // MARK: Control frames

    /// Writes the control frames that fit: limits, blocked reports, resets and stops.
    @_lifetime(writer: copy writer)
    mutating func writeControlFrames(into writer: inout PacketWriter, log: inout SentFrameLog) {
        if !control.isEmpty { writeConnectionControl(into: &writer, log: &log) }
        while let stream = controlled.first {
            guard writeControl(of: stream, into: &writer, log: &log) else { return }
            controlled.remove(stream)
        }
    }

    @_lifetime(writer: copy writer)
    private mutating func writeConnectionControl(into writer: inout PacketWriter, log: inout SentFrameLog) {
        // A type byte and a varint.
        let size = 9
        if control.contains(.maxData), writer.remaining >= size {
            control.remove(.maxData)
            writer.writeMaxData(receiveWindow.advance())
            log.append(.maxData)
        }
        for direction in [StreamDirection.bidirectional, .unidirectional] {
            if control.contains(.maxStreams(direction)), writer.remaining >= size {
                control.remove(.maxStreams(direction))
                writer.writeMaxStreams(direction, peerOpenings[Int(direction.rawValue)].advanceLimit())
                log.append(.maxStreams(direction))
            }
            if control.contains(.streamsBlocked(direction)), writer.remaining >= size {
                control.remove(.streamsBlocked(direction))
                writer.writeStreamsBlocked(direction, localOpenings[Int(direction.rawValue)].limit)
                log.append(.streamsBlocked(direction))
            }
        }
        if control.contains(.dataBlocked), writer.remaining >= size {
            control.remove(.dataBlocked)
            writer.writeDataBlocked(sendLimit)
            log.append(.dataBlocked)
        }
    }

    /// False when a frame did not fit.
    @_lifetime(writer: copy writer)
    private mutating func writeControl(
        of stream: StreamReference, into writer: inout PacketWriter, log: inout SentFrameLog
    ) -> Bool {
        let id = stream.pointee.id
        let idSize = Varint.encodedSize(id.rawValue)
        if stream.pointee.control.contains(.resetStream), case .reset(let code) = stream.pointee.send.state {
            let finalSize = stream.pointee.send.buffer.next
            let size = 1 + idSize + Varint.encodedSize(code) + Varint.encodedSize(finalSize)
            guard writer.remaining >= size else { return false }
            writer.writeResetStream(ResetStreamFrame(id: id, applicationErrorCode: code, finalSize: finalSize))
            log.append(.resetStream(id))
        }
        stream.pointee.control.remove(.resetStream)
        if stream.pointee.control.contains(.stopSending) {
            let code = stream.pointee.stopCode
            guard writer.remaining >= 1 + idSize + Varint.encodedSize(code) else { return false }
            writer.writeStopSending(StopSendingFrame(id: id, applicationErrorCode: code))
            log.append(.stopSending(id))
            stream.pointee.control.remove(.stopSending)
        }
        if stream.pointee.control.contains(.maxStreamData) {
            guard writer.remaining >= 1 + idSize + 8 else { return false }
            writer.writeMaxStreamData(id, stream.pointee.receive.advanceLimit())
            log.append(.maxStreamData(id))
            stream.pointee.control.remove(.maxStreamData)
        }
        if stream.pointee.control.contains(.streamDataBlocked) {
            guard writer.remaining >= 1 + idSize + 8 else { return false }
            writer.writeStreamDataBlocked(id, stream.pointee.send.limit)
            log.append(.streamDataBlocked(id))
            stream.pointee.control.remove(.streamDataBlocked)
        }
        return true
    }

    // MARK: Stream data

    /// Less than this of a stream's data is not worth a frame of its own, if there is more of it.
    private static var minimumPiece: Int { 16 }

    /// Fills the packet with stream data: what was lost first, then what is new. The streams take turns, a packet each.
    ///
    /// The last frame may be one without a length, which takes all up to the writer's limit: the packet must end there, and
    /// nothing may be written after it.
    @_lifetime(writer: copy writer)
    mutating func writeStreamFrames(into writer: inout PacketWriter, log: inout SentFrameLog) {
        while let stream = unmetered.first, writeLost(of: stream, into: &writer, log: &log) {}
        if unmetered.isEmpty {
            while sendLimit > sent, let stream = fresh.first, writeFresh(of: stream, into: &writer, log: &log) {}
            noteConnectionBlocked()
        }
    }

    /// What goes into one STREAM frame.
    private struct Piece {
        var count: Int
        /// PADDING before the frame, so that a frame without a length ends with the packet.
        var padding = 0
        var hasLength: Bool
    }

    /// How much of `available` bytes at `offset` goes into the next frame; nil if too little space is left for any.
    ///
    /// A frame that reaches the end of the packet omits its length. Where the data would end just short of it, so that no
    /// length fits, padding closes the difference.
    @inline(__always)
    private func piece(of available: UInt64, at offset: UInt64, id: StreamID, remaining: Int) -> Piece? {
        let header = 1 + Varint.encodedSize(id.rawValue) + (offset == 0 ? 0 : Varint.encodedSize(offset))
        let space = remaining - header
        guard space >= 0 else { return nil }
        if available >= UInt64(space) {
            guard space >= Self.minimumPiece || available == UInt64(space) else { return nil }
            return Piece(count: space, hasLength: false)
        }
        let count = Int(truncatingIfNeeded: available)
        let short = space - count
        if short < Varint.encodedSize(available) { return Piece(count: count, padding: short, hasLength: false) }
        return Piece(count: count, hasLength: true)
    }

    @_lifetime(writer: copy writer)
    private func writeHeader(
        _ piece: Piece, at offset: UInt64, id: StreamID, isFinal: Bool, into writer: inout PacketWriter
    ) {
        if piece.padding > 0 { writer.writeZeros(piece.padding) }
        writer.writeStreamHeader(
            id: id, offset: offset, length: piece.hasLength ? piece.count : nil, isFinal: isFinal)
    }

    /// Writes one frame of data sent before, or of the bare end. False when the packet is full; the stream's turn is over
    /// then if it had one.
    @_lifetime(writer: copy writer)
    private mutating func writeLost(
        of stream: StreamReference, into writer: inout PacketWriter, log: inout SentFrameLog
    ) -> Bool {
        let id = stream.pointee.id
        let end = stream.pointee.send.buffer.written
        let range = stream.pointee.send.buffer.firstLost ?? OffsetRange(lower: end, upper: end)
        guard let piece = piece(of: range.count, at: range.lower, id: id, remaining: writer.remaining) else {
            return false
        }
        let isFinal = stream.pointee.send.isFinal(endingAt: range.lower &+ UInt64(piece.count))
        writeHeader(piece, at: range.lower, id: id, isFinal: isFinal, into: &writer)
        stream.pointee.send.writeLost(piece.count, isFinal: isFinal, into: &writer)
        log.append(.stream(id: id, offset: range.lower, length: UInt32(piece.count), isFinal: isFinal))
        totals.bytesRetransmitted &+= UInt64(piece.count)
        updateSendLists(stream)
        if piece.hasLength { return true }
        if unmetered.first == stream { unmetered.rotate() }
        return false
    }

    /// Writes one frame of new data. False when the packet is full; the stream's turn is over then if it had one.
    @_lifetime(writer: copy writer)
    private mutating func writeFresh(
        of stream: StreamReference, into writer: inout PacketWriter, log: inout SentFrameLog
    ) -> Bool {
        let id = stream.pointee.id
        let offset = stream.pointee.send.buffer.next
        let available = min(stream.pointee.send.freshCount, sendCredit)
        guard let piece = piece(of: available, at: offset, id: id, remaining: writer.remaining) else { return false }
        let isFinal = stream.pointee.send.isFinal(endingAt: offset &+ UInt64(piece.count))
        writeHeader(piece, at: offset, id: id, isFinal: isFinal, into: &writer)
        stream.pointee.send.writeFresh(piece.count, isFinal: isFinal, into: &writer)
        log.append(.stream(id: id, offset: offset, length: UInt32(piece.count), isFinal: isFinal))
        sent &+= UInt64(piece.count)
        totals.bytesSent &+= UInt64(piece.count)
        updateSendLists(stream)
        if stream.pointee.send.takeWritable(mark: limits.sendBufferLimit) { raise(.writable, for: stream) }
        if piece.hasLength { return true }
        if fresh.first == stream { fresh.rotate() }
        return false
    }
}

/// The fate of what was sent (RFC 9000, section 13.3). Frames that are not the streams', and those of streams that are
/// gone, are ignored.
extension StreamTable {
    /// The peer acknowledged the packet that carried the frame.
    mutating func acknowledged(_ frame: SentFrame) {
        switch frame {
        case .stream(let id, let offset, let length, let isFinal):
            guard let stream = find(id) else { return }
            let end = offset &+ UInt64(length)
            let isDone = stream.pointee.send.acknowledged(offset, end, isFinal: isFinal)
            // Data taken for lost may have arrived after all.
            if unmetered.contains(stream) { updateSendLists(stream) }
            if isDone {
                raise(.sendClosed, for: stream)
                removeIfDone(stream)
            }
        case .resetStream(let id):
            guard let stream = peek(id) else { return }
            stream.pointee.send.resetAcknowledged()
            if stream.pointee.send.isTerminal { unqueue(.resetStream, for: stream) }
            removeIfDone(stream)
        default:
            break
        }
    }

    /// Has the first bytes sent again that the streams' readers wait for, `count` in all at most. Those of a packet that was
    /// lost before may be under way in a packet that is not the oldest.
    mutating func resendHeads(upTo count: Int) {
        guard !isClosed else { return }
        var left = UInt64(max(0, count))
        for slot in 0..<map.slotCount where left > 0 {
            guard let stream = map.stream(atSlot: slot) else { continue }
            let lower = stream.pointee.send.buffer.acknowledgedEnd
            let upper = min(stream.pointee.send.buffer.next, lower &+ left)
            guard lower < upper else { continue }
            stream.pointee.send.lost(lower, upper, isFinal: false)
            updateSendLists(stream)
            left -= upper - lower
        }
    }

    /// The packet that carried the frame was lost. What still matters is sent again, as it is by then.
    mutating func lost(_ frame: SentFrame) {
        guard !isClosed else { return }
        switch frame {
        case .stream(let id, let offset, let length, let isFinal):
            guard let stream = find(id) else { return }
            stream.pointee.send.lost(offset, offset &+ UInt64(length), isFinal: isFinal)
            updateSendLists(stream)
        case .resetStream(let id):
            guard let stream = peek(id), case .reset = stream.pointee.send.state else { return }
            queue(.resetStream, for: stream)
        case .stopSending(let id):
            guard let stream = peek(id), stream.pointee.receive.wantsStop else { return }
            queue(.stopSending, for: stream)
        case .maxData:
            control.insert(.maxData)
        case .maxStreamData(let id):
            guard let stream = peek(id), stream.pointee.receive.wantsCredit else { return }
            queue(.maxStreamData, for: stream)
        case .maxStreams(let direction):
            control.insert(.maxStreams(direction))
        case .dataBlocked:
            guard blockedAt == sendLimit else { return }
            blockedAt = nil
            noteConnectionBlocked()
        case .streamDataBlocked(let id):
            guard let stream = peek(id), stream.pointee.send.repeatBlocked() else { return }
            queue(.streamDataBlocked, for: stream)
        case .streamsBlocked(let direction):
            if localOpenings[Int(direction.rawValue)].isBlocked { control.insert(.streamsBlocked(direction)) }
        default:
            break
        }
    }
}
