// SPDX-License-Identifier: Apache-2.0

/// Version Negotiation packets (RFC 8999, section 6; RFC 9000, section 17.2.1).
enum VersionNegotiation {
    /// The answer to a packet of a version we do not speak: what `PacketHeader.unknownVersion` holds, its IDs swapped.
    ///
    /// - Parameters:
    ///   - version: the version of the packet answered. It is not listed: the client would ignore the answer.
    ///   - destination: the bytes of the packet's Destination Connection ID, at most 255.
    ///   - source: the bytes of its Source Connection ID, at most 255.
    ///   - bytes: the datagram that the ranges are of.
    static func packet(
        answering version: UInt32, destination: ByteRange, source: ByteRange, in bytes: RawSpan,
        supported: [QUICVersion] = QUICVersion.supported, using random: inout RandomSource
    ) -> [UInt8] {
        // The bits after the first are unused and random; the second is set for those who tell QUIC from other
        // protocols by it.
        let bits = UInt8(truncatingIfNeeded: random.next())
        var packet: [UInt8] = [bits | HeaderBits.long | HeaderBits.fixed, 0, 0, 0, 0]
        for id in [source, destination] {
            let id = bytes.copyBytes(in: id).prefix(255)
            packet.append(UInt8(id.count))
            packet += id
        }
        var versions = supported.filter { $0.rawValue != version }
        versions.insert(greasedVersion(otherThan: version, using: &random), at: 0)
        for version in versions {
            withUnsafeBytes(of: version.rawValue.bigEndian) { packet += $0 }
        }
        return packet
    }

    /// The versions that a Version Negotiation packet lists.
    static func versions(of header: VersionNegotiationHeader, in bytes: RawSpan) -> [QUICVersion] {
        var reader = WireReader(bytes, in: header.versions.range)
        var versions: [QUICVersion] = []
        versions.reserveCapacity(header.versions.count / 4)
        while let version = try? reader.readUInt32() { versions.append(QUICVersion(rawValue: version)) }
        return versions
    }

    /// A version of the form 0x?a?a?a?a, which stands for none (RFC 9000, section 15).
    private static func greasedVersion(otherThan version: UInt32, using random: inout RandomSource) -> QUICVersion {
        let candidate = UInt32(truncatingIfNeeded: random.next()) & 0xf0f0_f0f0 | 0x0a0a_0a0a
        return QUICVersion(rawValue: candidate == version ? candidate ^ 0x1010_1010 : candidate)
    }
}
