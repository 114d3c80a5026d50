// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Varints, packet numbers and bounded reading and writing")
struct WirePrimitiveTests {
    @Test(
        "the examples of RFC 9000, appendix A.1 decode to their values",
        arguments: [
            ("c2197c5eff14e88c", 151_288_809_941_952_652), ("9d7f3e7d", 494_878_333), ("7bbd", 15_293), ("25", 37),
            ("4025", 37),
        ] as [(String, UInt64)])
    func varintExamples(encoded: String, value: UInt64) throws {
        let bytes = hex(encoded)
        var reader = WireReader(bytes.span.bytes)
        let (decoded, rest) = (try reader.readVarint(), reader.remaining)
        #expect(decoded == value)
        #expect(rest == 0)
        if encoded != "4025" {
            #expect(written { $0.writeVarint(value) } == bytes)
            #expect(Varint.encoded(value) == bytes)
            #expect(Varint.encodedSize(value) == bytes.count)
        }
    }

    @Test("a varint is written in its shortest form and read back")
    func varintRoundTrip() throws {
        var random = RandomSource.seeded(1)
        for _ in 0..<2_000 {
            let value = random.varint()
            let bytes = try #require(written { $0.writeVarint(value) })
            #expect(bytes.count == Varint.encodedSize(value))
            #expect(bytes == Varint.encoded(value))
            var reader = WireReader(bytes.span.bytes)
            let decoded = try reader.readVarint()
            #expect(decoded == value)
            for length in 0..<bytes.count {
                var short = WireReader(bytes.span.bytes, in: 0..<length)
                let (result, offset) = (try? short.readVarint(), short.offset)
                #expect(result == nil)
                #expect(offset == 0)
            }
        }
    }

    @Test("a value above 2^62-1 is not written")
    func varintTooLarge() {
        #expect(written { $0.writeVarint(Varint.maximum + 1) } == nil)
        #expect(written { $0.writeVarint(.max) } == nil)
        #expect(written { $0.writeTwoByteVarint(1 << 14) } == nil)
        #expect(written { $0.writeTwoByteVarint(-1) } == nil)
    }

    @Test("what does not fit is not written and is noticed")
    func overflow() {
        #expect(written(capacity: 7) { $0.writeUInt64(1) } == nil)
        #expect(written(capacity: 3) { $0.writeUInt32(1) } == nil)
        #expect(
            written(capacity: 15) {
                $0.writePathChallenge(1)
                $0.writePathResponse(2)
            } == nil)
        #expect(written(capacity: 4) { $0.writeBytes([1, 2, 3, 4, 5]) } == nil)
        #expect(written(capacity: 4) { $0.writeBytes([1, 2, 3, 4]) } == [1, 2, 3, 4])
        #expect(
            written(capacity: 4) {
                $0.setLimit(2)
                $0.writeZeros(3)
            } == nil)
    }

    @Test("zeros are counted up to the first other byte, wherever it is")
    func zeros() {
        for length in 0..<40 {
            for other in 0...length {
                var bytes = [UInt8](repeating: 0, count: length)
                if other < length { bytes[other] = 1 }
                var reader = WireReader(bytes.span.bytes)
                let (count, rest) = (reader.skipZeros(), reader.remaining)
                #expect(count == other)
                #expect(rest == length - other)
            }
        }
    }

    @Test("the examples of RFC 9000, appendix A.2 take 2 and 3 bytes")
    func packetNumberLengthExamples() {
        #expect(PacketNumberCoding.encodedLength(0xac5c02, largestAcknowledged: 0xabe8b3) == 2)
        #expect(PacketNumberCoding.encodedLength(0xace8fe, largestAcknowledged: 0xabe8b3) == 3)
        #expect(PacketNumberCoding.encodedLength(0, largestAcknowledged: nil) == 1)
        #expect(PacketNumberCoding.encodedLength(Varint.maximum, largestAcknowledged: nil) == 4)
    }

    @Test("the example of RFC 9000, appendix A.3 decodes to 0xa82f9b32")
    func packetNumberDecodingExample() {
        #expect(
            PacketNumberCoding.decode(truncated: 0x9b32, length: 2, largestReceived: 0xa82f_30ea) == 0xa82f_9b32)
    }

    @Test("of two packet numbers equally close to the one expected, the newer one is taken")
    func packetNumberDecodingTies() {
        // 1000 is expected: 872 and 1128 are as close. 1024 is expected: 896 and 1152 are.
        #expect(PacketNumberCoding.decode(truncated: 1_128 & 0xff, length: 1, largestReceived: 999) == 1_128)
        #expect(PacketNumberCoding.decode(truncated: 1_152 & 0xff, length: 1, largestReceived: 1_023) == 1_152)
        #expect(PacketNumberCoding.decode(truncated: 873 & 0xff, length: 1, largestReceived: 999) == 873)
    }

    @Test("a packet number is recovered whatever the peer has received since the last acknowledgement")
    func packetNumberRoundTrip() {
        var random = RandomSource.seeded(2)
        for _ in 0..<5_000 {
            let acknowledged: PacketNumber? = random.count(below: 8) == 0 ? nil : random.varint()
            let first = acknowledged.map { $0 + 1 } ?? 0
            guard first <= Varint.maximum else { continue }
            let number = first + min(random.next() >> (33 + random.next() % 31), Varint.maximum - first)
            let length = PacketNumberCoding.encodedLength(number, largestAcknowledged: acknowledged)
            let truncated = number & ((1 << (8 * UInt64(length))) - 1)
            // The receiver has seen what was acknowledged at the least, and nothing newer than this at the most.
            let inBetween = first + random.next() % (number - first + 1)
            for received in [acknowledged, number == 0 ? nil : max(inBetween, 1) - 1, number == 0 ? nil : number - 1] {
                let decoded = PacketNumberCoding.decode(truncated: truncated, length: length, largestReceived: received)
                #expect(decoded == number, "\(number) after \(String(describing: received)) in \(length) bytes")
            }
        }
    }

    @Test("decoding a packet number never traps nor exceeds 2^62-1")
    func packetNumberExtremes() {
        var random = RandomSource.seeded(3)
        let edges: [UInt64] = [0, 1, 127, 128, 255, 256, 1 << 32, Varint.maximum - 1, Varint.maximum, .max]
        for length in -1...9 {
            for received in edges.map(Optional.some) + [nil] {
                for truncated in edges + [random.next()] {
                    let number = PacketNumberCoding.decode(
                        truncated: truncated, length: length, largestReceived: received)
                    #expect(number <= Varint.maximum)
                }
            }
        }
    }

    @Test("a connection ID of more than 20 bytes, or beyond the end, is none")
    func connectionIDs() throws {
        let bytes = RandomSource.seededBytes(40)
        for length in 0...21 {
            let id = ConnectionID(bytes.span.bytes, at: 3, length: length)
            #expect(id?.bytes == (length > 20 ? nil : Array(bytes[3..<3 + length])))
            #expect(id == ConnectionID(bytes[3..<3 + length]))
        }
        #expect(ConnectionID(bytes.span.bytes, at: 30, length: 11) == nil)
        #expect(ConnectionID(bytes.span.bytes, at: 41, length: 0) == nil)
        #expect(ConnectionID(bytes.span.bytes, at: -1, length: 1) == nil)
        #expect(ConnectionID(bytes.span.bytes, at: 0, length: -1) == nil)
        #expect(try #require(ConnectionID([1])) != #require(ConnectionID([1, 0])))
        #expect(StatelessResetToken(bytes.span.bytes, at: 24)?.bytes == Array(bytes[24...]))
        #expect(StatelessResetToken(bytes.span.bytes, at: 25) == nil)
        #expect(StatelessResetToken(bytes.span.bytes, at: -1) == nil)
    }
}

extension RandomSource {
    fileprivate static func seededBytes(_ count: Int) -> [UInt8] {
        var random = RandomSource.seeded(4)
        return random.bytes(count)
    }
}
