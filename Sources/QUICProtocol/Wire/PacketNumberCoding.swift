// SPDX-License-Identifier: Apache-2.0

/// Packet numbers travel as their 1 to 4 low bytes (RFC 9000, section 17.1).
enum PacketNumberCoding {
    /// How many bytes the peer needs to recover `number` (RFC 9000, appendix A.2): their range is more than twice the
    /// distance to the largest packet number that the peer acknowledged.
    static func encodedLength(_ number: PacketNumber, largestAcknowledged: PacketNumber?) -> Int {
        let distance = largestAcknowledged.map { number &- $0 } ?? (number &+ 1)
        return distance < 1 << 7 ? 1 : distance < 1 << 15 ? 2 : distance < 1 << 23 ? 3 : 4
    }

    /// The packet number closest to the one expected next whose low bytes are `truncated` (RFC 9000, appendix A.3).
    ///
    /// Never above 2^62-1, whatever the arguments.
    static func decode(truncated: UInt64, length: Int, largestReceived: PacketNumber?) -> PacketNumber {
        let window: UInt64 = 1 << (8 * UInt64(min(max(length, 1), 4)))
        let halfWindow = window / 2
        let expected = largestReceived.map { min($0, Varint.maximum - 1) + 1 } ?? 0
        let candidate = (expected & ~(window - 1)) | (truncated & (window - 1))
        if candidate + halfWindow <= expected, candidate + window <= Varint.maximum { return candidate + window }
        if candidate > expected + halfWindow, candidate >= window { return candidate - window }
        return candidate
    }
}
