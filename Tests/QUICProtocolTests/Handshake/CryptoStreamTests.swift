// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

struct CryptoStreamTests {
    private struct Sent {
        var frame: SentFrame
        var bytes: [UInt8]
    }

    private func receive(_ stream: inout CryptoStream, _ offset: UInt64, _ bytes: [UInt8]) throws(TransportError) {
        try bytes.span.bytes.withUnsafeBytes { raw throws(TransportError) in
            try stream.receive(offset: offset, bytes: raw)
        }
    }

    /// One frame of at most `capacity` bytes.
    private func write(_ stream: inout CryptoStream, capacity: Int) -> Sent? {
        var bytes = [UInt8](repeating: 0xee, count: capacity)
        var span = bytes.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        let frame = stream.writeFrame(into: &writer)
        verify(!writer.overflowed)
        let count = writer.offset
        guard let frame else {
            verify(count == 0)
            return nil
        }
        return Sent(frame: frame, bytes: Array(bytes[..<count]))
    }

    /// The offset and the data of a CRYPTO frame.
    private func parse(_ bytes: [UInt8]) throws -> (offset: UInt64, data: [UInt8]) {
        var reader = WireReader(bytes.span.bytes)
        #expect(try reader.readVarint() == 0x06)
        let offset = try reader.readVarint()
        let range = try reader.readBytes(reader.readVarint())
        verify(reader.isAtEnd)
        return (offset, Array(bytes[range.range]))
    }

    @Test("bytes come out once and in order, however they are cut, repeated and shuffled")
    func reassembly() throws {
        var random = RandomSource.seeded(3)
        for _ in 0..<200 {
            let data = random.bytes(Int.random(in: 1...8_000, using: &random))
            var fragments: [Range<Int>] = []
            var start = 0
            while start < data.count {
                let end = min(data.count, start + Int.random(in: 1...1_000, using: &random))
                fragments.append(start..<end)
                // Some overlap their neighbours.
                if Bool.random(using: &random) {
                    fragments.append(max(0, start - 50)..<min(data.count, end + 50))
                }
                start = end
            }
            fragments.shuffle(using: &random)
            var stream = CryptoStream()
            var output: [UInt8] = []
            var arrived = [Bool](repeating: false, count: data.count)
            for fragment in fragments {
                try receive(&stream, UInt64(fragment.lowerBound), Array(data[fragment]))
                for index in fragment { arrived[index] = true }
                if Bool.random(using: &random) {
                    while let bytes = stream.readContiguous() { output += bytes }
                    #expect(output.count == arrived.firstIndex(of: false) ?? data.count)
                }
            }
            while let bytes = stream.readContiguous() { output += bytes }
            #expect(output == data)
            try receive(&stream, 0, data)
            verify(stream.readContiguous() == nil)
        }
    }

    @Test("64 KB may wait beyond what was read, and not a byte more")
    func bufferLimit() throws {
        var stream = CryptoStream()
        let limit = CryptoStream.maximumBuffered
        try receive(&stream, limit - 1, [9])
        for (offset, bytes) in [(limit, [1]), (limit - 1, [9, 9]), (1 << 62, [1]), (.max, [1]), (.max - 1, [1, 2])]
            as [(UInt64, [UInt8])]
        {
            let error = #expect(throws: TransportError.self) { try receive(&stream, offset, bytes) }
            #expect(error?.code == .cryptoBufferExceeded)
        }
        try receive(&stream, 0, [UInt8](repeating: 1, count: Int(limit) - 1))
        verify(stream.readContiguous()?.count == Int(limit))
        try receive(&stream, 2 * limit - 1, [7])
        verify(stream.readContiguous() == nil)
        try receive(&stream, limit, [8])
        verify(stream.readContiguous() == [8])
    }

    @Test("a hostile number of tiny pieces is CRYPTO_BUFFER_EXCEEDED")
    func fragmentLimit() throws {
        var stream = CryptoStream()
        var accepted = 0
        let error = #expect(throws: TransportError.self) {
            for index in 1...40_000 {
                try receive(&stream, UInt64(index) * 2 % 65_000, [1])
                accepted += 1
            }
        }
        #expect(error?.code == .cryptoBufferExceeded)
        #expect(accepted == CryptoStream.maximumFragments)
    }

    @Test("empty frames do nothing")
    func empty() throws {
        var stream = CryptoStream()
        try receive(&stream, 0, [])
        try receive(&stream, 100, [])
        verify(stream.readContiguous() == nil)
        verify(!stream.hasPendingData && !stream.hasUnacknowledgedData)
        #expect(write(&stream, capacity: 1_000) == nil)
    }

    @Test("a frame takes all the room there is and never more", arguments: 0...80)
    func frameSizes(capacity: Int) throws {
        var stream = CryptoStream()
        let data = (0..<200).map { UInt8($0) }
        stream.enqueue(data)
        let sent = write(&stream, capacity: capacity)
        guard capacity >= 4 else {
            #expect(sent == nil)
            verify(stream.hasPendingData)
            return
        }
        let parsed = try parse(try #require(sent).bytes)
        #expect(parsed.offset == 0)
        #expect(parsed.data == Array(data[..<parsed.data.count]))
        // With a length of 64 its encoding grows by a byte, so that one byte of 67 cannot be used.
        #expect(parsed.data.count == (capacity <= 66 ? capacity - 3 : capacity == 67 ? 63 : capacity - 4))
    }

    @Test("everything arrives over a network that loses, delays and repeats frames")
    func lossyTransfer() throws {
        var random = RandomSource.seeded(5)
        for round in 0..<100 {
            var sender = CryptoStream()
            var receiver = CryptoStream()
            var expected: [UInt8] = []
            var output: [UInt8] = []
            var flight: [Sent] = []
            var steps = 0
            while output.count < 6_000 || sender.hasUnacknowledgedData {
                steps += 1
                try #require(steps < 20_000)
                if expected.count < 6_000, Int.random(in: 0..<4, using: &random) == 0 {
                    let bytes = random.bytes(Int.random(in: 1...2_000, using: &random))
                    sender.enqueue(bytes)
                    expected += bytes
                }
                if let sent = write(&sender, capacity: Int.random(in: 0...600, using: &random)) {
                    let parsed = try parse(sent.bytes)
                    #expect(
                        sent.frame == .crypto(offset: parsed.offset, length: UInt32(parsed.data.count)))
                    #expect(Array(expected[Int(parsed.offset)..<Int(parsed.offset) + parsed.data.count]) == parsed.data)
                    flight.append(sent)
                }
                if round % 3 == 0, Int.random(in: 0..<20, using: &random) == 0 { sender.retransmitAllUnacknowledged() }
                guard !flight.isEmpty, Bool.random(using: &random) else { continue }
                let sent = flight.remove(at: Int.random(in: 0..<flight.count, using: &random))
                guard case .crypto(let offset, let length) = sent.frame else { continue }
                switch Int.random(in: 0..<4, using: &random) {
                case 0: sender.lost(offset: offset, length: length)
                case 1:
                    // Arrives, but its acknowledgement does not.
                    try receive(&receiver, offset, parse(sent.bytes).data)
                    sender.lost(offset: offset, length: length)
                    if Bool.random(using: &random) { sender.acknowledged(offset: offset, length: length) }
                default:
                    try receive(&receiver, offset, parse(sent.bytes).data)
                    sender.acknowledged(offset: offset, length: length)
                }
                while let bytes = receiver.readContiguous() { output += bytes }
            }
            #expect(output == expected)
            verify(!sender.hasPendingData)
        }
    }

    @Test("what was acknowledged is not sent again, and lost data goes before new data")
    func retransmission() throws {
        var stream = CryptoStream()
        stream.enqueue((0..<30).map { UInt8($0) })
        let first = try #require(write(&stream, capacity: 13))
        let second = try #require(write(&stream, capacity: 13))
        #expect(first.frame == .crypto(offset: 0, length: 10))
        #expect(second.frame == .crypto(offset: 10, length: 10))
        stream.acknowledged(offset: 10, length: 10)
        stream.lost(offset: 0, length: 10)
        stream.lost(offset: 10, length: 10)
        #expect(write(&stream, capacity: 100)?.frame == .crypto(offset: 0, length: 10))
        #expect(write(&stream, capacity: 100)?.frame == .crypto(offset: 20, length: 10))
        verify(!stream.hasPendingData)
        stream.retransmitAllUnacknowledged()
        #expect(write(&stream, capacity: 100)?.frame == .crypto(offset: 0, length: 10))
        #expect(write(&stream, capacity: 100)?.frame == .crypto(offset: 20, length: 10))
        stream.acknowledged(offset: 0, length: 10)
        verify(stream.hasUnacknowledgedData)
        stream.acknowledged(offset: 20, length: 10)
        verify(!stream.hasUnacknowledgedData)
        // Late and impossible news changes nothing.
        stream.lost(offset: 0, length: 30)
        stream.acknowledged(offset: 25, length: 1_000)
        stream.acknowledged(offset: .max - 1, length: .max)
        verify(!stream.hasPendingData)
        stream.enqueue([1])
        #expect(write(&stream, capacity: 100)?.frame == .crypto(offset: 30, length: 1))
    }
}
