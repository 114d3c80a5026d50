// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// The bytes of a text of hexadecimal digits; white space is passed over.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count - 1, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// What `body` writes, or nil if it did not fit.
func written(capacity: Int = 4_096, _ body: (inout PacketWriter) -> Void) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0xee, count: capacity)
    var span = bytes.mutableSpan
    var writer = PacketWriter(span.mutableBytes)
    body(&writer)
    let count = writer.overflowed ? nil : writer.offset
    return count.map { Array(bytes[..<$0]) }
}

/// All frames of a payload.
func parseFrames(_ bytes: [UInt8]) throws(TransportError) -> [Frame] {
    var parser = FrameParser(bytes.span.bytes, payload: 0..<bytes.count)
    var frames: [Frame] = []
    while let frame = try parser.next() { frames.append(frame) }
    return frames
}

/// The error of a payload that must not parse.
func frameError(_ bytes: [UInt8]) -> TransportError? {
    do {
        _ = try parseFrames(bytes)
        return nil
    } catch {
        return error
    }
}

func acknowledgedRanges(_ ack: AckFrame, in bytes: [UInt8]) -> [ClosedRange<PacketNumber>] {
    var reader = AckRangeReader(ack, in: bytes.span.bytes)
    var ranges: [ClosedRange<PacketNumber>] = []
    while let range = reader.next() { ranges.append(range) }
    return ranges
}

/// Writes an ACK frame of ranges that do not touch, the largest first.
func writeAck(
    _ ranges: [ClosedRange<PacketNumber>], encodedDelay: UInt64, ecn: ECNCounts?, to writer: inout PacketWriter
) {
    writer.writeUInt8(ecn == nil ? 2 : 3)
    writer.writeVarint(ranges[0].upperBound)
    writer.writeVarint(encodedDelay)
    writer.writeVarint(UInt64(ranges.count - 1))
    writer.writeVarint(ranges[0].upperBound - ranges[0].lowerBound)
    for (above, range) in zip(ranges, ranges.dropFirst()) {
        writer.writeVarint(above.lowerBound - range.upperBound - 2)
        writer.writeVarint(range.upperBound - range.lowerBound)
    }
    if let ecn {
        writer.writeVarint(ecn.ect0)
        writer.writeVarint(ecn.ect1)
        writer.writeVarint(ecn.ce)
    }
}

extension RandomSource {
    /// A varint of any size: often at the edge of one.
    mutating func varint(upTo maximum: UInt64 = Varint.maximum) -> UInt64 {
        let edges: [UInt64] = [
            0, 1, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 60), Varint.maximum - 1, Varint.maximum,
        ]
        let value = next() & 1 == 0 ? edges[Int(next() % UInt64(edges.count))] : next() >> (2 + next() % 62)
        return min(value, maximum)
    }

    mutating func count(below limit: Int) -> Int { Int(next() % UInt64(limit)) }

    mutating func connectionID(_ lengths: ClosedRange<Int> = 0...20) -> ConnectionID {
        .random(length: lengths.lowerBound + count(below: lengths.count), using: &self)
    }

    mutating func resetToken() throws -> StatelessResetToken {
        try #require(StatelessResetToken(bytes(16)))
    }
}
