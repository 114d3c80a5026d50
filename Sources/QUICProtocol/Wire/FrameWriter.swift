// SPDX-License-Identifier: Apache-2.0

/// The frames whose content is a few fields (RFC 9000, section 19). STREAM, CRYPTO and NEW_TOKEN data follows its header.
///
/// ACK frames are written by the room that keeps the ranges. `FrameSize` says beforehand how much room a frame takes.
extension PacketWriter {
    @_lifetime(self: copy self)
    mutating func writePing() { writeFrameType(FrameType.ping) }

    @_lifetime(self: copy self)
    mutating func writeResetStream(_ frame: ResetStreamFrame) {
        writeFrameType(FrameType.resetStream)
        writeVarint(frame.id.rawValue)
        writeVarint(frame.applicationErrorCode)
        writeVarint(frame.finalSize)
    }

    @_lifetime(self: copy self)
    mutating func writeStopSending(_ frame: StopSendingFrame) {
        writeFrameType(FrameType.stopSending)
        writeVarint(frame.id.rawValue)
        writeVarint(frame.applicationErrorCode)
    }

    /// What comes before `length` bytes of handshake data.
    @_lifetime(self: copy self)
    mutating func writeCryptoHeader(offset: UInt64, length: Int) {
        writeFrameType(FrameType.crypto)
        writeVarint(offset)
        writeVarint(UInt64(length))
    }

    @_lifetime(self: copy self)
    mutating func writeNewToken(_ token: [UInt8]) {
        writeFrameType(FrameType.newToken)
        writeVarint(UInt64(token.count))
        writeBytes(token)
    }

    /// What comes before the data of a STREAM frame.
    ///
    /// - Parameters:
    ///   - length: the number of bytes to follow; nil for a frame that takes all the rest of the packet.
    @_lifetime(self: copy self)
    mutating func writeStreamHeader(id: StreamID, offset: UInt64, length: Int?, isFinal: Bool) {
        var type = FrameType.stream
        if offset > 0 { type |= StreamFlags.offset }
        if length != nil { type |= StreamFlags.length }
        if isFinal { type |= StreamFlags.fin }
        writeFrameType(type)
        writeVarint(id.rawValue)
        if offset > 0 { writeVarint(offset) }
        if let length { writeVarint(UInt64(length)) }
    }

    @_lifetime(self: copy self)
    mutating func writeMaxData(_ maximum: UInt64) {
        writeFrameType(FrameType.maxData)
        writeVarint(maximum)
    }

    @_lifetime(self: copy self)
    mutating func writeMaxStreamData(_ id: StreamID, _ maximum: UInt64) {
        writeFrameType(FrameType.maxStreamData)
        writeVarint(id.rawValue)
        writeVarint(maximum)
    }

    @_lifetime(self: copy self)
    mutating func writeMaxStreams(_ direction: StreamDirection, _ maximum: UInt64) {
        writeFrameType(Frame.maxStreams(direction, maximum).type)
        writeVarint(maximum)
    }

    @_lifetime(self: copy self)
    mutating func writeDataBlocked(_ limit: UInt64) {
        writeFrameType(FrameType.dataBlocked)
        writeVarint(limit)
    }

    @_lifetime(self: copy self)
    mutating func writeStreamDataBlocked(_ id: StreamID, _ limit: UInt64) {
        writeFrameType(FrameType.streamDataBlocked)
        writeVarint(id.rawValue)
        writeVarint(limit)
    }

    @_lifetime(self: copy self)
    mutating func writeStreamsBlocked(_ direction: StreamDirection, _ limit: UInt64) {
        writeFrameType(Frame.streamsBlocked(direction, limit).type)
        writeVarint(limit)
    }

    @_lifetime(self: copy self)
    mutating func writeNewConnectionID(_ frame: NewConnectionIDFrame) {
        writeFrameType(FrameType.newConnectionID)
        writeVarint(frame.sequence)
        writeVarint(frame.retirePriorTo)
        writeUInt8(frame.connectionID.length)
        writeConnectionID(frame.connectionID)
        writeResetToken(frame.resetToken)
    }

    @_lifetime(self: copy self)
    mutating func writeRetireConnectionID(sequence: UInt64) {
        writeFrameType(FrameType.retireConnectionID)
        writeVarint(sequence)
    }

    @_lifetime(self: copy self)
    mutating func writePathChallenge(_ data: UInt64) {
        writeFrameType(FrameType.pathChallenge)
        writeUInt64(data)
    }

    @_lifetime(self: copy self)
    mutating func writePathResponse(_ data: UInt64) {
        writeFrameType(FrameType.pathResponse)
        writeUInt64(data)
    }

    /// - Parameters:
    ///   - frameType: the type of the frame at fault, 0 if unknown; nil for a close by the application (type 0x1d).
    ///   - maximumReasonLength: in bytes; a longer reason is cut between two characters.
    @_lifetime(self: copy self)
    mutating func writeConnectionClose(
        errorCode: UInt64, frameType: UInt64?, reason: String, maximumReasonLength: Int
    ) {
        writeFrameType(frameType == nil ? FrameType.applicationClose : FrameType.connectionClose)
        writeVarint(errorCode)
        if let frameType { writeVarint(frameType) }
        let text = FrameSize.reasonLength(reason, atMost: maximumReasonLength)
        writeVarint(UInt64(text))
        writeBytes([UInt8](reason.utf8.prefix(text)))
    }

    @_lifetime(self: copy self)
    mutating func writeHandshakeDone() { writeFrameType(FrameType.handshakeDone) }

    @_lifetime(self: copy self)
    mutating func writeImmediateAck() { writeFrameType(FrameType.immediateAck) }

    /// Its type takes two bytes.
    @_lifetime(self: copy self)
    mutating func writeAckFrequency(_ frame: AckFrequencyFrame) {
        writeVarint(FrameType.ackFrequency)
        writeVarint(frame.sequence)
        writeVarint(frame.ackElicitingThreshold)
        writeVarint(frame.requestedMaxAckDelay)
        writeVarint(frame.reorderingThreshold)
    }

    /// Types of RFC 9000 all take one byte.
    @_lifetime(self: copy self)
    private mutating func writeFrameType(_ type: UInt64) { writeUInt8(UInt8(truncatingIfNeeded: type)) }
}

/// How many bytes a frame takes as `PacketWriter` writes it, so that callers measure first.
enum FrameSize {
    static let ping = 1
    static let handshakeDone = 1
    static let immediateAck = 1
    static let pathChallenge = 9
    static let pathResponse = 9

    static func resetStream(_ frame: ResetStreamFrame) -> Int {
        fields(frame.id.rawValue, frame.applicationErrorCode) + Varint.encodedSize(frame.finalSize)
    }

    static func stopSending(_ frame: StopSendingFrame) -> Int {
        fields(frame.id.rawValue, frame.applicationErrorCode)
    }

    /// Without the data.
    static func cryptoHeader(offset: UInt64, length: Int) -> Int { fields(offset, UInt64(length)) }

    /// With the token.
    static func newToken(length: Int) -> Int { fields(UInt64(length)) + length }

    /// Without the data.
    @inline(__always)
    static func streamHeader(id: StreamID, offset: UInt64, length: Int?) -> Int {
        fields(id.rawValue) + (offset > 0 ? Varint.encodedSize(offset) : 0)
            + (length.map { Varint.encodedSize(UInt64($0)) } ?? 0)
    }

    static func maxData(_ maximum: UInt64) -> Int { fields(maximum) }
    static func maxStreamData(_ id: StreamID, _ maximum: UInt64) -> Int { fields(id.rawValue, maximum) }
    static func maxStreams(_ maximum: UInt64) -> Int { fields(maximum) }
    static func dataBlocked(_ limit: UInt64) -> Int { fields(limit) }
    static func streamDataBlocked(_ id: StreamID, _ limit: UInt64) -> Int { fields(id.rawValue, limit) }
    static func streamsBlocked(_ limit: UInt64) -> Int { fields(limit) }

    static func newConnectionID(_ frame: NewConnectionIDFrame) -> Int {
        fields(frame.sequence, frame.retirePriorTo) + 1 + Int(frame.connectionID.length) + StatelessResetToken.length
    }

    static func ackFrequency(_ frame: AckFrequencyFrame) -> Int {
        Varint.encodedSize(FrameType.ackFrequency) + Varint.encodedSize(frame.sequence)
            + Varint.encodedSize(frame.ackElicitingThreshold) + Varint.encodedSize(frame.requestedMaxAckDelay)
            + Varint.encodedSize(frame.reorderingThreshold)
    }

    static func retireConnectionID(sequence: UInt64) -> Int { fields(sequence) }

    /// - Parameters:
    ///   - frameType: nil for a close by the application.
    ///   - reasonLength: in bytes, as `reasonLength(_:atMost:)` says.
    static func connectionClose(errorCode: UInt64, frameType: UInt64?, reasonLength: Int) -> Int {
        fields(errorCode, UInt64(reasonLength)) + (frameType.map(Varint.encodedSize) ?? 0) + reasonLength
    }

    /// The bytes of the longest prefix of whole Unicode scalars that takes no more than `limit`: a reason phrase has to
    /// be valid UTF-8 (RFC 9000, section 19.19).
    static func reasonLength(_ reason: String, atMost limit: Int) -> Int {
        var length = 0
        for scalar in reason.unicodeScalars {
            let next = length + UTF8.width(scalar)
            guard next <= limit else { break }
            length = next
        }
        return length
    }

    /// The type and these fields.
    @inline(__always)
    private static func fields(_ a: UInt64) -> Int { 1 + Varint.encodedSize(a) }
    private static func fields(_ a: UInt64, _ b: UInt64) -> Int { fields(a) + Varint.encodedSize(b) }
}
