// SPDX-License-Identifier: Apache-2.0

/// The type bits of a long header of version 1 (RFC 9000, table 5).
enum LongPacketType: UInt8, Sendable {
    case initial = 0
    case zeroRTT = 1
    case handshake = 2
    case retry = 3
}

/// Bits of a packet's first byte (RFC 9000, section 17).
enum HeaderBits {
    static let long: UInt8 = 0x80
    static let fixed: UInt8 = 0x40
    static let spin: UInt8 = 0x20
    /// Under header protection.
    static let keyPhase: UInt8 = 0x04
    /// Under header protection: the length of the packet number, less one.
    static let packetNumberLength: UInt8 = 0x03
}

/// A packet's header as it is before header protection is removed (RFC 9000, section 17).
///
/// A value without references; offsets are into the datagram.
enum PacketHeader: Equatable {
    case versionNegotiation(VersionNegotiationHeader)
    case retry(RetryHeader)
    case long(LongHeader)
    case short(ShortHeader)
    /// A long header of a version we do not speak. All that is known of it is what no version changes: its IDs, of up to
    /// 255 bytes (RFC 8999, section 5.1).
    case unknownVersion(version: UInt32, dcidBytes: ByteRange, scidBytes: ByteRange)

    /// The header of the packet that starts at `offset`, or nil for what is dropped silently: what is cut short, has the
    /// fixed bit 0, IDs that version 1 does not allow, or a Length that reaches beyond the datagram.
    ///
    /// A packet may turn out too short for a header protection sample; whoever removes the protection checks that.
    static func parse(_ bytes: RawSpan, at offset: Int, shortHeaderConnectionIDLength: Int) -> PacketHeader? {
        guard offset >= 0, offset < bytes.byteCount else { return nil }
        let first = bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
        if first & HeaderBits.long == 0 {
            guard first & HeaderBits.fixed != 0,
                let dcid = ConnectionID(bytes, at: offset + 1, length: shortHeaderConnectionIDLength)
            else { return nil }
            return .short(
                ShortHeader(
                    dcid: dcid, spin: first & HeaderBits.spin != 0,
                    packetNumberOffset: offset + 1 + shortHeaderConnectionIDLength,
                    packet: offset..<bytes.byteCount))
        }
        var reader = WireReader(bytes, in: offset + 1..<bytes.byteCount)
        return try? parseLong(first: first, at: offset, of: bytes, &reader)
    }
}

/// A list of the versions that a server speaks (RFC 8999, section 6).
struct VersionNegotiationHeader: Equatable {
    var dcid: ConnectionID
    var scid: ConnectionID
    /// One or more versions of four bytes each: see `VersionNegotiation.versions`.
    var versions: ByteRange
}

/// RFC 9000, section 17.2.5.
struct RetryHeader: Equatable {
    var dcid: ConnectionID
    var scid: ConnectionID
    /// Not empty.
    var token: ByteRange
    /// 16 bytes.
    var integrityTag: ByteRange
    /// All of it, the tag included.
    var packet: ByteRange
}

/// The header of an Initial, 0-RTT or Handshake packet (RFC 9000, section 17.2).
struct LongHeader: Equatable {
    /// Not `.retry`.
    var type: LongPacketType
    var version: QUICVersion
    var dcid: ConnectionID
    var scid: ConnectionID
    /// Empty but in an Initial packet.
    var token: ByteRange
    /// From the start of the datagram; not beyond the packet's end.
    var packetNumberOffset: Int
    /// To the end that the Length field gives: another packet may follow.
    var packet: Range<Int>
}

/// The header of a 1-RTT packet (RFC 9000, section 17.3.1).
struct ShortHeader: Equatable {
    var dcid: ConnectionID
    /// The spin bit, which is not protected.
    var spin: Bool
    /// From the start of the datagram; not beyond its end.
    var packetNumberOffset: Int
    /// To the end of the datagram.
    var packet: Range<Int>

    /// Whether a packet with a short header and this destination starts at `offset`, which is within the bytes.
    @inline(__always)
    static func begins(_ bytes: RawSpan, at offset: Int, destination: ConnectionID) -> Bool {
        let first = bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
        return first & (HeaderBits.long | HeaderBits.fixed) == HeaderBits.fixed
            && ConnectionID(bytes, at: offset + 1, length: Int(destination.length)) == destination
    }
}

extension PacketHeader {
    /// Throws for what is to be dropped.
    private static func parseLong(
        first: UInt8, at start: Int, of bytes: RawSpan, _ reader: inout WireReader
    ) throws(WireError) -> PacketHeader {
        let version = QUICVersion(rawValue: try reader.readUInt32())
        let dcidBytes = try reader.readBytes(UInt64(try reader.readUInt8()))
        let scidBytes = try reader.readBytes(UInt64(try reader.readUInt8()))
        guard version == .v1 || version == .negotiation else {
            return .unknownVersion(version: version.rawValue, dcidBytes: dcidBytes, scidBytes: scidBytes)
        }
        // An answer to our version cannot name longer IDs than we use.
        guard let dcid = ConnectionID(bytes, at: dcidBytes.offset, length: dcidBytes.count),
            let scid = ConnectionID(bytes, at: scidBytes.offset, length: scidBytes.count)
        else { throw .malformed }
        if version == .negotiation {
            guard reader.remaining > 0, reader.remaining % 4 == 0 else { throw .malformed }
            let versions = ByteRange(offset: reader.offset, count: reader.remaining)
            return .versionNegotiation(VersionNegotiationHeader(dcid: dcid, scid: scid, versions: versions))
        }
        guard first & HeaderBits.fixed != 0, let type = LongPacketType(rawValue: first >> 4 & 0x03) else {
            throw .malformed
        }
        if type == .retry {
            guard reader.remaining > RetryPacket.tagLength else { throw .truncated }
            let token = try reader.readBytes(UInt64(reader.remaining - RetryPacket.tagLength))
            let tag = try reader.readBytes(UInt64(RetryPacket.tagLength))
            return .retry(
                RetryHeader(
                    dcid: dcid, scid: scid, token: token, integrityTag: tag,
                    packet: ByteRange(offset: start, count: bytes.byteCount - start)))
        }
        let token = type == .initial ? try reader.readBytes(try reader.readVarint()) : .empty
        let payload = try reader.readBytes(try reader.readVarint())
        return .long(
            LongHeader(
                type: type, version: version, dcid: dcid, scid: scid, token: token,
                packetNumberOffset: payload.offset, packet: start..<payload.range.upperBound))
    }
}
