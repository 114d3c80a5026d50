// SPDX-License-Identifier: Apache-2.0

/// Where the parts of a packet being written are, from the start of the writer's memory.
struct PacketStart: Equatable, Sendable {
    var start: Int
    var packetNumberOffset: Int
    /// 1 to 4.
    var packetNumberLength: Int
    /// Where the two-byte Length field is; nil in a short header, which has none.
    var lengthFieldOffset: Int?

    /// Where the frames start.
    var payloadOffset: Int { packetNumberOffset + packetNumberLength }
}

/// Headers as they are before header protection is applied (RFC 9000, section 17).
extension PacketWriter {
    /// Starts an Initial, 0-RTT or Handshake packet. Its Length is patched by `finishLength`.
    ///
    /// - Parameters:
    ///   - type: not `.retry`, which has no packet number: see `RetryPacket`.
    ///   - token: left out but in an Initial packet.
    ///   - packetNumberLength: 1 to 4 bytes: see `PacketNumberCoding`.
    @_lifetime(self: copy self)
    mutating func beginLongPacket(
        type: LongPacketType, version: QUICVersion, destination: ConnectionID, source: ConnectionID,
        token: UnsafeRawBufferPointer, packetNumber: PacketNumber, packetNumberLength: Int
    ) -> PacketStart {
        precondition(type != .retry && 1...4 ~= packetNumberLength, "no such long header")
        let start = offset
        writeUInt8(HeaderBits.long | HeaderBits.fixed | type.rawValue << 4 | UInt8(packetNumberLength - 1))
        writeUInt32(version.rawValue)
        writeUInt8(destination.length)
        writeConnectionID(destination)
        writeUInt8(source.length)
        writeConnectionID(source)
        if type == .initial {
            writeVarint(UInt64(token.count))
            writeBytes(token)
        }
        let lengthFieldOffset = offset
        writeTwoByteVarint(0)
        let packetNumberOffset = offset
        writePacketNumber(packetNumber, length: packetNumberLength)
        return PacketStart(
            start: start, packetNumberOffset: packetNumberOffset, packetNumberLength: packetNumberLength,
            lengthFieldOffset: lengthFieldOffset)
    }

    @_lifetime(self: copy self)
    mutating func beginLongPacket(
        type: LongPacketType, version: QUICVersion, destination: ConnectionID, source: ConnectionID,
        token: [UInt8] = [], packetNumber: PacketNumber, packetNumberLength: Int
    ) -> PacketStart {
        token.withUnsafeBytes { token in
            beginLongPacket(
                type: type, version: version, destination: destination, source: source, token: token,
                packetNumber: packetNumber, packetNumberLength: packetNumberLength)
        }
    }

    /// Starts a 1-RTT packet.
    @_lifetime(self: copy self)
    mutating func beginShortPacket(
        destination: ConnectionID, spin: Bool, keyPhase: Bool, packetNumber: PacketNumber, packetNumberLength: Int
    ) -> PacketStart {
        precondition(1...4 ~= packetNumberLength, "no such packet number length")
        let start = offset
        writeUInt8(
            HeaderBits.fixed | (spin ? HeaderBits.spin : 0) | (keyPhase ? HeaderBits.keyPhase : 0)
                | UInt8(packetNumberLength - 1))
        writeConnectionID(destination)
        let packetNumberOffset = offset
        writePacketNumber(packetNumber, length: packetNumberLength)
        return PacketStart(
            start: start, packetNumberOffset: packetNumberOffset, packetNumberLength: packetNumberLength,
            lengthFieldOffset: nil)
    }

    /// Sets the Length field to what has been written from the packet number on, and the tag to come. Does nothing to a
    /// short header.
    @_lifetime(self: copy self)
    mutating func finishLength(_ start: PacketStart, tagLength: Int) {
        guard let position = start.lengthFieldOffset else { return }
        writeTwoByteVarint(offset - start.packetNumberOffset + tagLength, at: position)
    }
}

/// How many bytes headers take as `PacketWriter` writes them.
enum HeaderSize {
    /// - Parameters:
    ///   - tokenLength: counted in an Initial packet only.
    static func long(
        type: LongPacketType, destination: ConnectionID, source: ConnectionID, tokenLength: Int,
        packetNumberLength: Int
    ) -> Int {
        let token = type == .initial ? Varint.encodedSize(UInt64(tokenLength)) + tokenLength : 0
        // First byte, version, two ID lengths, Length.
        return 1 + 4 + 2 + 2 + Int(destination.length) + Int(source.length) + token + packetNumberLength
    }

    static func short(destination: ConnectionID, packetNumberLength: Int) -> Int {
        1 + Int(destination.length) + packetNumberLength
    }
}
