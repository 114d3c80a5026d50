// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// RFC 9000, sections 13.2 and 19.3.
@Suite struct ReceivedPacketsTests {
    private struct WrittenAck {
        var largest: PacketNumber
        var delay: UInt64
        var ranges: [ClosedRange<PacketNumber>]
        var ecn: ECNCounts?
        var size: Int
    }

    /// Writes an ACK frame into `space` bytes and reads it again.
    private func writtenAck(
        _ received: inout ReceivedPackets, space: Int = 1_200, exponent: UInt64 = 3, now: Instant = .zero
    ) throws -> WrittenAck? {
        var storage = [UInt8](repeating: 0, count: space)
        let (size, reported) = storage.withUnsafeMutableBytes { buffer -> (Int, PacketNumber?) in
            var writer = PacketWriter(MutableRawSpan(_unsafeBytes: buffer))
            let reported = received.writeAck(into: &writer, delayExponent: exponent, now: now)
            return (writer.overflowed ? -1 : writer.offset, reported)
        }
        try #require(size >= 0)
        guard let reported else {
            #expect(size == 0)
            return nil
        }
        return try storage.withUnsafeBytes { buffer in
            var reader = WireReader(RawSpan(_unsafeBytes: buffer), in: 0..<size)
            let type = try reader.readVarint()
            let largest = try reader.readVarint()
            let delay = try reader.readVarint()
            let count = try reader.readVarint()
            var first = largest - (try reader.readVarint())
            var ranges = [first...largest]
            for _ in 0..<count {
                let last = first - (try reader.readVarint()) - 2
                first = last - (try reader.readVarint())
                ranges.append(first...last)
            }
            var ecn: ECNCounts?
            if type == FrameType.ackECN {
                ecn = ECNCounts(
                    ect0: try reader.readVarint(), ect1: try reader.readVarint(), ce: try reader.readVarint())
            }
            let isAtEnd = reader.isAtEnd
            #expect(isAtEnd)
            #expect(reported == largest)
            return WrittenAck(largest: largest, delay: delay, ranges: ranges, ecn: ecn, size: size)
        }
    }

    private func application() -> ReceivedPackets { ReceivedPackets(acknowledgesAtOnce: false) }
    private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

    @Test("a single packet is acknowledged after max_ack_delay, the second one at once")
    func everySecondPacket() throws {
        var received = application()
        received.setAckDelay(max: .milliseconds(10))
        received.record(0, isAckEliciting: true, ecn: .notECT, now: at(1))
        let deadline = received.ackDeadline
        #expect(deadline == at(11))
        let due = (received.isAckDue(now: at(10)), received.isAckDue(now: at(11)))
        #expect(due == (false, true))
        received.record(1, isAckEliciting: true, ecn: .notECT, now: at(2))
        let dueNow = received.isAckDue(now: at(2))
        #expect(dueNow)
        let ack = try #require(try writtenAck(&received, now: at(4)))
        #expect(ack.ranges == [0...1])
        #expect(ack.ecn == nil)
        // 2 ms in units of 8 µs.
        #expect(ack.delay == 250)
        let (unreported, next) = (received.hasUnreportedPackets, received.ackDeadline)
        #expect(!unreported)
        #expect(next == nil)
    }

    @Test("Initial and Handshake packets are acknowledged at once")
    func handshakeSpaces() {
        var received = ReceivedPackets(acknowledgesAtOnce: true)
        received.record(0, isAckEliciting: true, ecn: .notECT, now: at(3))
        let due = received.isAckDue(now: at(3))
        #expect(due)
    }

    @Test("packets that elicit no ACK never make one due, whatever their order")
    func notAckEliciting() throws {
        var received = application()
        for number: PacketNumber in [5, 1, 9, 3] {
            received.record(number, isAckEliciting: false, ecn: .ce, now: at(0))
        }
        let state = (received.isAckDue(now: at(1_000)), received.hasUnreportedPackets, received.ackDeadline)
        #expect(state == (false, true, nil))
        // They are reported where an ACK is sent for another reason.
        let ack = try #require(try writtenAck(&received))
        #expect(ack.ranges == [9...9, 5...5, 3...3, 1...1])
    }

    @Test("a gap, a packet out of order and a CE mark are acknowledged at once")
    func immediate() throws {
        var received = application()
        received.record(0, isAckEliciting: true, ecn: .notECT, now: at(0))
        _ = try writtenAck(&received)
        received.record(2, isAckEliciting: true, ecn: .notECT, now: at(1))
        let afterGap = received.isAckDue(now: at(1))
        #expect(afterGap)
        _ = try writtenAck(&received)
        received.record(1, isAckEliciting: true, ecn: .notECT, now: at(2))
        let afterLate = received.isAckDue(now: at(2))
        #expect(afterLate)
        _ = try writtenAck(&received)
        received.record(3, isAckEliciting: true, ecn: .notECT, now: at(3))
        let inOrder = received.isAckDue(now: at(3))
        #expect(!inOrder)
        _ = try writtenAck(&received)
        received.record(4, isAckEliciting: true, ecn: .ce, now: at(4))
        let marked = received.isAckDue(now: at(4))
        #expect(marked)
    }

    @Test("ECN counts are reported once any codepoint was seen, and duplicates do not count")
    func ecn() throws {
        var received = application()
        for (number, codepoint) in [(0, ECNCodepoint.ect0), (1, .ect0), (1, .ect0), (2, .ect1), (3, .ce), (4, .notECT)]
        {
            received.record(PacketNumber(number), isAckEliciting: true, ecn: codepoint, now: at(0))
        }
        let ack = try #require(try writtenAck(&received))
        #expect(ack.ecn == ECNCounts(ect0: 2, ect1: 1, ce: 1))
    }

    @Test("what does not fit is left out, the oldest ranges first, and nothing is written if not even one fits")
    func limitedSpace() throws {
        var received = application()
        for index in 0..<PacketNumber(30) {
            received.record(index * 1_000, isAckEliciting: true, ecn: .notECT, now: at(0))
        }
        let all = try #require(try writtenAck(&received))
        #expect(all.ranges.count == 30)
        for space in 0..<all.size {
            guard let ack = try writtenAck(&received, space: space) else {
                // Type, largest (2 or 4 bytes), delay, count, first range.
                #expect(space < 8)
                continue
            }
            #expect(ack.size <= space)
            #expect(ack.ranges == Array(all.ranges.prefix(ack.ranges.count)))
            #expect(ack.ranges.count < 30)
        }
    }

    @Test("no more than 64 ranges are kept, and everything below them counts as received")
    func bound() throws {
        var received = application()
        for index in 0..<PacketNumber(1_000) {
            received.record(index * 2, isAckEliciting: true, ecn: .notECT, now: at(0))
            let count = received.rangeCount
            #expect(count <= ReceivedPackets.maximumRanges)
        }
        let ack = try #require(try writtenAck(&received))
        #expect(ack.ranges.count == 64)
        #expect(ack.largest == 1_998)
        let lowest = try #require(ack.ranges.last).lowerBound
        #expect(lowest == 1_998 - 63 * 2)
        // Never received, but below what is kept: must not be processed.
        let (below, above) = (received.contains(1), received.contains(lowest + 1))
        #expect(below)
        #expect(!above)
        // A number below all ranges that are kept leaves the bound as it is.
        received.record(lowest - 1, isAckEliciting: true, ecn: .notECT, now: at(0))
        let count = received.rangeCount
        #expect(count == 64)
    }

    @Test("what the peer knows to be acknowledged is reported no more, yet still is a duplicate")
    func acknowledgementAcknowledged() throws {
        var received = application()
        for number in PacketNumber(0)...20 where number != 10 {
            received.record(number, isAckEliciting: true, ecn: .notECT, now: at(0))
        }
        let first = try #require(try writtenAck(&received))
        #expect(first.ranges == [11...20, 0...9])
        received.acknowledgementAcknowledged(largest: 20)
        let nothing = try writtenAck(&received)
        #expect(nothing == nil)
        received.record(21, isAckEliciting: true, ecn: .notECT, now: at(0))
        let second = try #require(try writtenAck(&received))
        #expect(second.ranges == [21...21])
        let known = (received.contains(5), received.contains(20), received.contains(10))
        #expect(known == (true, true, false))
        // A straggler, as from a slower path that was left, is news.
        received.record(10, isAckEliciting: true, ecn: .notECT, now: at(0))
        let third = try #require(try writtenAck(&received))
        #expect(third.ranges == [10...21])
    }

    @Test("a packet that came after the ACK that is now acknowledged is still reported")
    func newsSurvivesAcknowledgement() throws {
        var received = application()
        for number: PacketNumber in [0, 1, 3, 4] {
            received.record(number, isAckEliciting: true, ecn: .notECT, now: at(0))
        }
        _ = try writtenAck(&received)
        received.record(2, isAckEliciting: true, ecn: .notECT, now: at(1))
        received.acknowledgementAcknowledged(largest: 4)
        let due = received.isAckDue(now: at(1))
        #expect(due)
        let ack = try #require(try writtenAck(&received))
        #expect(ack.ranges == [2...4])
    }

    @Test("an acknowledgement of an ACK that reported what never came is ignored")
    func hostileAcknowledgement() throws {
        var received = application()
        received.acknowledgementAcknowledged(largest: .max)
        received.record(0, isAckEliciting: true, ecn: .notECT, now: at(0))
        received.acknowledgementAcknowledged(largest: 1_000)
        let ack = try writtenAck(&received)
        #expect(ack?.ranges == [0...0])
    }

    @Test("an ACK whose packet was dropped is due again")
    func dropped() throws {
        var received = application()
        received.record(7, isAckEliciting: true, ecn: .notECT, now: at(0))
        _ = try writtenAck(&received)
        received.acknowledgementDropped(now: at(5))
        let due = received.isAckDue(now: at(5))
        #expect(due)
        let ack = try writtenAck(&received)
        #expect(ack?.ranges == [7...7])
    }

    @Test("the ends of the number range do not trap")
    func extremes() throws {
        var received = application()
        for number: PacketNumber in [0, Varint.maximum, Varint.maximum - 1, 1] {
            received.record(number, isAckEliciting: true, ecn: .notECT, now: at(0))
        }
        let ack = try #require(try writtenAck(&received, now: .distantFuture))
        #expect(ack.ranges == [(Varint.maximum - 1)...Varint.maximum, 0...1])
    }

    @Test("it agrees with a set over random orders, losses and duplicates", arguments: 1...20 as ClosedRange<UInt64>)
    func model(seed: UInt64) throws {
        var random = RandomSource.seeded(seed)
        var received = application()
        var model = Set<PacketNumber>()
        var modelLargest: PacketNumber?
        var next: PacketNumber = 0
        let lossPercent = Int.random(in: 0...30, using: &random)
        for _ in 0..<2_000 {
            var number = next
            if Int.random(in: 0..<100, using: &random) < 20 {
                number = next > 40 ? next - .random(in: 0...40, using: &random) : 0
            } else {
                next += 1
                if Int.random(in: 0..<100, using: &random) < lossPercent { next += .random(in: 1...3, using: &random) }
            }
            let isDuplicate = received.contains(number)
            if model.contains(number) { #expect(isDuplicate) }
            if !isDuplicate {
                received.record(number, isAckEliciting: true, ecn: .notECT, now: at(0))
                model.insert(number)
                modelLargest = max(modelLargest ?? number, number)
                let recorded = received.contains(number)
                #expect(recorded)
            }
            let largest = received.largest
            #expect(largest == modelLargest)
            if Int.random(in: 0..<10, using: &random) == 0, let ack = try writtenAck(&received) {
                // Sound: whatever is reported was received.
                for range in ack.ranges { #expect(range.suffix(100).allSatisfy(model.contains)) }
                // Maximal: ranges do not touch, and none is reported short of its end.
                for range in ack.ranges { #expect(!model.contains(range.upperBound + 1)) }
                #expect(ack.ranges.count <= 64)
                if Bool.random(using: &random) { received.acknowledgementAcknowledged(largest: ack.largest) }
            }
        }
    }
}
