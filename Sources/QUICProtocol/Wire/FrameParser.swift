// SPDX-License-Identifier: Apache-2.0

/// Walks the frames of one decrypted payload (RFC 9000, section 12.4).
///
/// A frame is returned by value and owns nothing, so that a packet is parsed without an allocation. What can be checked
/// on the frame alone is checked here; what needs the connection's state (limits, final sizes, roles, the encryption
/// level) is left to those who hold that state. That a payload holds at least one frame is for the caller to check.
struct FrameParser: ~Escapable {
    private var reader: WireReader

    /// Reads the frames of the range `payload` of `bytes`. The `ByteRange`s of the frames are offsets into `bytes`.
    @_lifetime(copy bytes)
    init(_ bytes: RawSpan, payload: Range<Int>) {
        self.reader = WireReader(bytes, in: payload)
    }

    /// The next frame, or nil at the end of the payload.
    ///
    /// - Throws: FRAME_ENCODING_ERROR for a malformed or unknown frame, PROTOCOL_VIOLATION for a frame type that is not
    ///   encoded in its shortest form. After an error nothing more may be read.
    @_lifetime(self: copy self)
    mutating func next() throws(TransportError) -> Frame? {
        guard !reader.isAtEnd else { return nil }
        let type = try readType()
        do throws(WireError) {
            // STREAM and ACK are what a connection in full flow receives.
            if type & ~StreamFlags.mask == FrameType.stream {
                return .stream(try readStream(flags: type & StreamFlags.mask))
            }
            if type & ~1 == FrameType.ack { return .ack(try readAck(hasECN: type == FrameType.ackECN)) }
            switch type {
            case FrameType.padding: return .padding(count: 1 + reader.skipZeros())
            case FrameType.ping: return .ping
            case FrameType.resetStream:
                return .resetStream(
                    ResetStreamFrame(
                        id: try readStreamID(), applicationErrorCode: try reader.readVarint(),
                        finalSize: try reader.readVarint()))
            case FrameType.stopSending:
                return .stopSending(
                    StopSendingFrame(id: try readStreamID(), applicationErrorCode: try reader.readVarint()))
            case FrameType.crypto: return .crypto(try readCrypto())
            case FrameType.newToken: return .newToken(try readNewToken())
            case FrameType.maxData: return .maxData(try reader.readVarint())
            case FrameType.maxStreamData: return .maxStreamData(try readStreamID(), try reader.readVarint())
            case FrameType.maxStreamsBidirectional: return .maxStreams(.bidirectional, try readStreamCount())
            case FrameType.maxStreamsUnidirectional: return .maxStreams(.unidirectional, try readStreamCount())
            case FrameType.dataBlocked: return .dataBlocked(try reader.readVarint())
            case FrameType.streamDataBlocked: return .streamDataBlocked(try readStreamID(), try reader.readVarint())
            case FrameType.streamsBlockedBidirectional: return .streamsBlocked(.bidirectional, try readStreamCount())
            case FrameType.streamsBlockedUnidirectional: return .streamsBlocked(.unidirectional, try readStreamCount())
            case FrameType.newConnectionID: return .newConnectionID(try readNewConnectionID())
            case FrameType.retireConnectionID: return .retireConnectionID(sequence: try reader.readVarint())
            case FrameType.pathChallenge: return .pathChallenge(try reader.readUInt64())
            case FrameType.pathResponse: return .pathResponse(try reader.readUInt64())
            case FrameType.connectionClose, FrameType.applicationClose:
                return .connectionClose(try readConnectionClose(isApplication: type == FrameType.applicationClose))
            case FrameType.handshakeDone: return .handshakeDone
            case FrameType.immediateAck: return .immediateAck
            case FrameType.ackFrequency:
                return .ackFrequency(
                    AckFrequencyFrame(
                        sequence: try reader.readVarint(), ackElicitingThreshold: try reader.readVarint(),
                        requestedMaxAckDelay: try reader.readVarint(), reorderingThreshold: try reader.readVarint()))
            default: break
            }
        } catch {
            throw Self.fault(error, type: type)
        }
        throw TransportError(.frameEncodingError, frameType: type, "unknown frame type")
    }
}

/// The flags in the type of a STREAM frame (RFC 9000, section 19.8).
enum StreamFlags {
    static let fin: UInt64 = 0x01
    static let length: UInt64 = 0x02
    static let offset: UInt64 = 0x04
    static let mask: UInt64 = 0x07
}

extension FrameParser {
    @_lifetime(self: copy self)
    private mutating func readType() throws(TransportError) -> UInt64 {
        let start = reader.offset
        let type: UInt64
        do {
            type = try reader.readVarint()
        } catch {
            throw TransportError(.frameEncodingError, "a frame type is cut short")
        }
        guard reader.offset - start == Varint.encodedSize(type) else {
            throw TransportError(.protocolViolation, frameType: type, "a frame type is not in its shortest encoding")
        }
        return type
    }

    @inline(never)
    private static func fault(_ error: WireError, type: UInt64) -> TransportError {
        let name = FrameType.name(type)
        switch error {
        case .truncated:
            return TransportError(.frameEncodingError, frameType: type, "\(name): the frame is cut short")
        case .malformed:
            return TransportError(.frameEncodingError, frameType: type, "\(name): \(rule(of: type))")
        }
    }

    /// The rule that a malformed frame of this type broke.
    private static func rule(of type: UInt64) -> String {
        switch type {
        case FrameType.ack, FrameType.ackECN: "a range reaches below packet 0"
        case FrameType.newToken: "the token is empty"
        case FrameType.maxStreamsBidirectional, FrameType.maxStreamsUnidirectional,
            FrameType.streamsBlockedBidirectional, FrameType.streamsBlockedUnidirectional:
            "a stream count above 2^60"
        case FrameType.newConnectionID:
            "an ID of other than 1 to 20 bytes, or retire_prior_to above the sequence number"
        default: "the data reaches beyond offset 2^62-1"
        }
    }

    @_lifetime(self: copy self)
    private mutating func readStreamID() throws(WireError) -> StreamID {
        StreamID(rawValue: try reader.readVarint())
    }

    /// A number of streams: IDs must fit into 62 bits, two of which are not the ordinal's (RFC 9000, section 19.11).
    @_lifetime(self: copy self)
    private mutating func readStreamCount() throws(WireError) -> UInt64 {
        let count = try reader.readVarint()
        guard count <= Frame.maximumStreamCount else { throw .malformed }
        return count
    }

    /// RFC 9000, section 19.8.
    @_lifetime(self: copy self)
    private mutating func readStream(flags: UInt64) throws(WireError) -> StreamFrame {
        let id = try readStreamID()
        let offset = flags & StreamFlags.offset == 0 ? 0 : try reader.readVarint()
        let length = flags & StreamFlags.length == 0 ? UInt64(reader.remaining) : try reader.readVarint()
        let data = try reader.readBytes(length)
        // Both are below 2^62: the sum cannot overflow.
        guard offset + length <= Varint.maximum else { throw .malformed }
        return StreamFrame(id: id, offset: offset, data: data, isFinal: flags & StreamFlags.fin != 0)
    }

    /// RFC 9000, section 19.6.
    @_lifetime(self: copy self)
    private mutating func readCrypto() throws(WireError) -> CryptoFrame {
        let offset = try reader.readVarint()
        let length = try reader.readVarint()
        let data = try reader.readBytes(length)
        guard offset + length <= Varint.maximum else { throw .malformed }
        return CryptoFrame(offset: offset, data: data)
    }

    /// RFC 9000, section 19.7.
    @_lifetime(self: copy self)
    private mutating func readNewToken() throws(WireError) -> ByteRange {
        let token = try reader.readBytes(try reader.readVarint())
        guard token.count > 0 else { throw .malformed }
        return token
    }

    /// RFC 9000, section 19.3. Every sum is checked here, so that whoever walks the ranges need not.
    @_lifetime(self: copy self)
    private mutating func readAck(hasECN: Bool) throws(WireError) -> AckFrame {
        let largest = try reader.readVarint()
        let delay = try reader.readVarint()
        let count = try reader.readVarint()
        let firstRange = try reader.readVarint()
        guard firstRange <= largest else { throw .malformed }
        // A pair takes two bytes or more: no count makes this loop longer than the packet.
        guard count <= UInt64(reader.remaining / 2) else { throw .truncated }
        var smallest = largest - firstRange
        let start = reader.offset
        for _ in 0..<Int(count) {
            let gap = try reader.readVarint()
            let length = try reader.readVarint()
            // Both are below 2^62: the sum cannot overflow.
            let step = gap + length + 2
            guard step <= smallest else { throw .malformed }
            smallest -= step
        }
        var frame = AckFrame(
            largest: largest, encodedDelay: delay, firstRange: firstRange, additionalRangeCount: Int(count),
            additionalRanges: ByteRange(offset: start, count: reader.offset - start), ecn: nil)
        if hasECN {
            frame.ecn = ECNCounts(
                ect0: try reader.readVarint(), ect1: try reader.readVarint(), ce: try reader.readVarint())
        }
        return frame
    }

    /// RFC 9000, section 19.15.
    @_lifetime(self: copy self)
    private mutating func readNewConnectionID() throws(WireError) -> NewConnectionIDFrame {
        let sequence = try reader.readVarint()
        let retirePriorTo = try reader.readVarint()
        let length = Int(try reader.readUInt8())
        guard retirePriorTo <= sequence, length >= 1 else { throw .malformed }
        return NewConnectionIDFrame(
            sequence: sequence, retirePriorTo: retirePriorTo,
            connectionID: try reader.readConnectionID(length: length), resetToken: try reader.readResetToken())
    }

    /// RFC 9000, section 19.19.
    @_lifetime(self: copy self)
    private mutating func readConnectionClose(isApplication: Bool) throws(WireError) -> ConnectionCloseFrame {
        let errorCode = try reader.readVarint()
        let frameType = isApplication ? 0 : try reader.readVarint()
        let reason = try reader.readBytes(try reader.readVarint())
        return ConnectionCloseFrame(
            isApplication: isApplication, errorCode: errorCode, frameType: frameType, reason: reason)
    }
}

/// Walks the ranges that an ACK frame acknowledges, the largest first (RFC 9000, section 19.3.1).
struct AckRangeReader: ~Escapable {
    private var reader: WireReader
    private var rangesLeft: Int
    private var pending: ClosedRange<PacketNumber>?

    /// - Parameters:
    ///   - bytes: the span that the frame was parsed from.
    @_lifetime(copy bytes)
    init(_ ack: AckFrame, in bytes: RawSpan) {
        self.reader = WireReader(bytes, in: ack.additionalRanges.range)
        self.rangesLeft = ack.additionalRangeCount
        self.pending = ack.firstRange <= ack.largest ? ack.largest - ack.firstRange...ack.largest : nil
    }

    @_lifetime(self: copy self)
    mutating func next() -> ClosedRange<PacketNumber>? {
        guard let current = pending else { return nil }
        pending = readRange(below: current.lowerBound)
        return current
    }

    @_lifetime(self: copy self)
    private mutating func readRange(below smallest: PacketNumber) -> ClosedRange<PacketNumber>? {
        guard rangesLeft > 0, let gap = try? reader.readVarint(), let length = try? reader.readVarint() else {
            return nil
        }
        rangesLeft -= 1
        // The parser has checked it for its own bytes; over other bytes the walk ends rather than trapping.
        guard gap + length + 2 <= smallest else { return nil }
        let upper = smallest - gap - 2
        return upper - length...upper
    }
}
