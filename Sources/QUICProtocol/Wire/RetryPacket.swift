// SPDX-License-Identifier: Apache-2.0

/// Retry packets (RFC 9000, section 17.2.5). Received ones are parsed by `PacketHeader`.
enum RetryPacket {
    /// Bytes of the Retry Integrity Tag that ends the packet.
    static let tagLength = 16

    /// A Retry packet up to its integrity tag, which needs a cipher (RFC 9001, section 5.8).
    ///
    /// - Parameters:
    ///   - destination: the Source Connection ID of the packet answered.
    ///   - source: the ID that the client has to send to from now on; not the one it sent to.
    ///   - token: not empty: a client discards a Retry without a token.
    static func withoutTag(
        version: QUICVersion, destination: ConnectionID, source: ConnectionID, token: [UInt8],
        using random: inout RandomSource
    ) -> [UInt8] {
        // The low four bits are unused and random.
        let bits = UInt8(truncatingIfNeeded: random.next()) & 0x0f
        var packet: [UInt8] = [
            HeaderBits.long | HeaderBits.fixed | LongPacketType.retry.rawValue << 4 | bits
        ]
        packet.reserveCapacity(7 + 2 * ConnectionID.maximumLength + token.count + tagLength)
        withUnsafeBytes(of: version.rawValue.bigEndian) { packet += $0 }
        for id in [destination, source] {
            packet.append(id.length)
            id.withUnsafeBytes { packet += $0 }
        }
        packet += token
        return packet
    }
}
