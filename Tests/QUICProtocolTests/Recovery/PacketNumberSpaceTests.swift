// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// A space with the scratch that its caller keeps, so that tests read as what happens on the wire.
private struct Sender: ~Copyable {
    var space = PacketNumberSpace(id: .application)
    var outcome = AckOutcome()
    var limits: [PathLossLimit] = [
        PathLossLimit(path: PathID(0), largestAcknowledged: nil, lossDelay: .milliseconds(90))
    ]

    @discardableResult
    mutating func send(
        at milliseconds: Int64, path: UInt32 = 0, isAckEliciting: Bool = true, isInFlight: Bool = true, frames: Int = 1
    ) -> PacketNumber {
        let number = space.nextPacketNumber
        for frame in 0..<frames {
            space.logFrame(.stream(id: StreamID(rawValue: 0), offset: number, length: UInt32(frame), isFinal: false))
        }
        return space.packetSent(
            time: .zero + .milliseconds(milliseconds), path: PathID(path), size: 1_200, isAckEliciting: isAckEliciting,
            isInFlight: isInFlight)
    }

    mutating func acknowledge(_ ranges: ClosedRange<PacketNumber>..., at milliseconds: Int64) throws {
        outcome.reset()
        try space.beginAck(largest: ranges[0].upperBound)
        for range in ranges { try space.acknowledge(range: range, outcome: &outcome) }
        for index in outcome.largestByPath.indices {
            let packet = outcome.largestByPath[index]
            guard let limit = limits.firstIndex(where: { $0.path == packet.path }) else { continue }
            limits[limit].largestAcknowledged = max(limits[limit].largestAcknowledged ?? 0, packet.number)
        }
        detectLoss(at: milliseconds)
    }

    mutating func detectLoss(at milliseconds: Int64) {
        // A copy, as a span of the property would borrow all of this value.
        let limits = limits
        space.detectLoss(now: .zero + .milliseconds(milliseconds), limits: limits.span, outcome: &outcome)
    }

    var acknowledged: [PacketNumber] { outcome.acknowledged.indices.map { outcome.acknowledged[$0].number } }
    var lost: [PacketNumber] { outcome.lost.indices.map { outcome.lost[$0].number } }
    var discarded: [PacketNumber] { outcome.discarded.indices.map { outcome.discarded[$0].number } }
    var lossTime: Int64? { space.lossTime.map { ($0 - .zero).rawValue / 1_000_000 } }
}

/// RFC 9002, section 6, and the record of what was sent.
@Suite struct PacketNumberSpaceTests {
    @Test("records are small")
    func size() {
        #expect(MemoryLayout<SentPacket>.stride <= 48)
        #expect(MemoryLayout<SentFrame>.stride <= 24)
    }

    @Test("three packets later is lost, two is not yet")
    func packetThreshold() throws {
        var sender = Sender()
        for index in 0..<Int64(5) { sender.send(at: index) }
        try sender.acknowledge(3...3, at: 20)
        let (acknowledged, lost) = (sender.acknowledged, sender.lost)
        #expect(acknowledged == [3])
        #expect(lost == [0])
        // The next to be lost by time: packet 1, sent at 1 ms, after 90 ms.
        let lossTime = sender.lossTime
        #expect(lossTime == 91)
    }

    @Test("a packet is lost 9/8 RTT after it was sent if a later one was acknowledged")
    func timeThreshold() throws {
        var sender = Sender()
        sender.send(at: 0)
        sender.send(at: 10)
        sender.send(at: 20)
        try sender.acknowledge(1...1, at: 80)
        let (lost, time) = (sender.lost, sender.lossTime)
        #expect(lost == [])
        #expect(time == 90)
        sender.outcome.reset()
        sender.detectLoss(at: 89)
        let early = sender.lost
        #expect(early == [])
        sender.detectLoss(at: 90)
        let (late, none) = (sender.lost, sender.lossTime)
        #expect(late == [0])
        // Packet 2 is later than all acknowledged: only a probe timeout speaks for it.
        #expect(none == nil)
        let inFlight = sender.space.ackElicitingInFlight
        #expect(inFlight == 1)
    }

    @Test("paths are judged apart: reordering between them is no loss")
    func perPath() throws {
        var sender = Sender()
        sender.limits.append(PathLossLimit(path: PathID(1), largestAcknowledged: nil, lossDelay: .milliseconds(400)))
        sender.send(at: 0, path: 1)
        sender.send(at: 1, path: 1)
        for index in 0..<Int64(10) { sender.send(at: 2 + index, path: 0) }
        try sender.acknowledge(2...11, at: 30)
        let (lost, time) = (sender.lost, sender.lossTime)
        #expect(lost == [])
        // Nothing later of path 1 was acknowledged: it has the longer of both paths' delays.
        #expect(time == 400)
        // One more on path 1 and its acknowledgement: two packets behind are no loss, three would be.
        sender.send(at: 40, path: 1)
        try sender.acknowledge(12...12, at: 60)
        let still = sender.lost
        #expect(still == [])
        sender.send(at: 70, path: 1)
        try sender.acknowledge(13...13, at: 90)
        let now = sender.lost
        try #require(now == [0])
        let overdue = sender.outcome.lost[0].isOverdue
        #expect(!overdue)
    }

    @Test("packets of other paths in between do not make a path look reordered")
    func thresholdCountsOwnPackets() throws {
        var sender = Sender()
        sender.limits.append(PathLossLimit(path: PathID(1), largestAcknowledged: nil, lossDelay: .milliseconds(90)))
        sender.send(at: 0, path: 0)
        for _ in 0..<10 { sender.send(at: 1, path: 1) }
        sender.send(at: 2, path: 0)
        try sender.acknowledge(11...11, at: 30)
        let lost = sender.lost
        #expect(lost == [])
    }

    @Test(
        "what a path left behind is lost by time once another path is acknowledged, and is no sign of congestion",
        arguments: [(50, 90), (200, 200)] as [(Int64, Int64)])
    func leftPath(delay: Int64, expected: Int64) throws {
        var sender = Sender()
        sender.limits.append(
            PathLossLimit(path: PathID(1), largestAcknowledged: nil, lossDelay: .milliseconds(delay)))
        for _ in 0..<4 { sender.send(at: 0, path: 0) }
        sender.send(at: 10, path: 1)
        try sender.acknowledge(4...4, at: 60)
        let (early, time) = (sender.lost, sender.lossTime)
        #expect(early == [])
        #expect(time == expected)
        sender.outcome.reset()
        sender.detectLoss(at: expected)
        let lost = sender.lost
        #expect(lost == [0, 1, 2, 3])
        for index in sender.outcome.lost.indices {
            let isOverdue = sender.outcome.lost[index].isOverdue
            #expect(isOverdue)
        }
        var recovery = PathRecovery(path: PathID(0), algorithm: .cubic, maximumDatagramSize: 1_200)
        for _ in 0..<4 { recovery.packetSent(time: .zero, size: 1_200, isAckEliciting: true, isInFlight: true) }
        let change = recovery.apply(sender.outcome, maxAckDelay: .zero, now: .zero + .milliseconds(90))
        #expect(change.packetsLost == 4)
        #expect(recovery.bytesInFlight == 0)
        #expect(recovery.congestion.window == 12_000)
    }

    @Test("a packet of a path that is gone is judged against the whole space")
    func unknownPath() throws {
        var sender = Sender()
        sender.send(at: 0, path: 77)
        for _ in 0..<3 { sender.send(at: 1) }
        try sender.acknowledge(3...3, at: 20)
        let lost = sender.lost
        #expect(lost == [0])
    }

    @Test("an acknowledgement of a packet never sent is a PROTOCOL_VIOLATION, also of a number skipped")
    func neverSent() throws {
        var sender = Sender()
        sender.send(at: 0)
        #expect(throws: TransportError.self) { try sender.acknowledge(1...1, at: 1) }
        #expect(throws: TransportError.self) { try sender.acknowledge(0...UInt64.max, at: 1) }
        #expect(throws: TransportError.self) { try sender.acknowledge(0...0, 5...9, at: 1) }

        var skipping = Sender()
        skipping.send(at: 0)
        skipping.space.skipPacketNumber()
        let number = skipping.send(at: 1)
        #expect(number == 2)
        try skipping.acknowledge(2...2, 0...0, at: 2)
        skipping.space.releaseResolved()
        skipping.send(at: 3)
        // Its record is gone, yet it is remembered.
        do {
            try skipping.acknowledge(0...3, at: 4)
            Issue.record("accepted")
        } catch let error as TransportError {
            #expect(error.code == .protocolViolation)
        }
    }

    @Test("a late acknowledgement of a packet that was declared lost changes nothing")
    func lateAcknowledgement() throws {
        var sender = Sender()
        for _ in 0..<6 { sender.send(at: 0) }
        try sender.acknowledge(4...4, at: 20)
        let lost = sender.lost
        #expect(lost == [0, 1])
        let inFlight = sender.space.packetsInFlight
        try sender.acknowledge(0...1, at: 21)
        let (acknowledged, spurious, after) =
            (sender.acknowledged, sender.outcome.spuriousLossCount, sender.space.packetsInFlight)
        #expect(acknowledged == [])
        #expect(spurious == 2)
        #expect(after == inFlight)
        // And again once the records are gone.
        sender.space.releaseResolved()
        try sender.acknowledge(0...1, at: 22)
        let none = sender.acknowledged
        #expect(none == [])
    }

    @Test("the frames of a packet stay readable until it is released, and a dropped packet's are forgotten")
    func frames() throws {
        var sender = Sender()
        sender.send(at: 0, frames: 3)
        sender.space.logFrame(.ping)
        sender.space.logFrame(.maxData)
        let (count, first) = (sender.space.framesLogged, sender.space.loggedFrame(1))
        #expect(count == 2)
        #expect(first == .maxData)
        sender.space.abandonFrames()
        let none = sender.space.framesLogged
        #expect(none == 0)
        sender.send(at: 1, frames: 2)
        try sender.acknowledge(1...1, at: 2)
        let packet = sender.outcome.acknowledged[0]
        #expect(packet.frameCount == 2)
        for frame in 0..<UInt32(packet.frameCount) {
            let read = sender.space.frame(at: packet.firstFrame + UInt64(frame))
            #expect(read == .stream(id: StreamID(rawValue: 0), offset: 1, length: frame, isFinal: false))
        }
    }

    @Test("keys that are discarded take their packets out of flight, once")
    func removeAll() throws {
        var sender = Sender()
        for _ in 0..<4 { sender.send(at: 0) }
        sender.send(at: 0, isAckEliciting: false, isInFlight: false)
        try sender.acknowledge(1...1, at: 1)
        sender.outcome.reset()
        sender.space.removeAll(outcome: &sender.outcome)
        let discarded = sender.discarded
        #expect(discarded == [0, 2, 3])
        let state = (sender.space.packetsInFlight, sender.space.ackElicitingInFlight, sender.lossTime)
        #expect(state == (0, 0, nil))
        sender.space.releaseMemory()
        sender.outcome.reset()
        sender.space.removeAll(outcome: &sender.outcome)
        let again = sender.discarded
        #expect(again == [])
        // Numbers go on: they are never used twice (RFC 9000, section 12.3).
        let next = sender.send(at: 2)
        #expect(next == 5)
        try sender.acknowledge(5...5, at: 3)
        let acknowledged = sender.acknowledged
        #expect(acknowledged == [5])
    }

    @Test("a path that went away loses its packets without waiting")
    func declareLost() {
        var sender = Sender()
        for index in 0..<UInt32(6) { sender.send(at: 0, path: index % 2) }
        sender.space.declareLost(path: PathID(1), outcome: &sender.outcome)
        let (lost, left) = (sender.lost, sender.space.packetsInFlight)
        #expect(lost == [1, 3, 5])
        #expect(left == 3)
    }

    @Test("the oldest packets in flight can be walked for a probe timeout")
    func walk() throws {
        var sender = Sender()
        for index in 0..<5 { sender.send(at: 0, isAckEliciting: index != 1, isInFlight: index != 1) }
        try sender.acknowledge(2...2, at: 1)
        var walked: [PacketNumber] = []
        var next = sender.space.firstOutstanding
        while let number = next {
            walked.append(number)
            let packet = sender.space.outstandingPacket(number)
            #expect(packet?.number == number)
            next = sender.space.nextOutstanding(after: number)
        }
        #expect(walked == [0, 3, 4])
    }

    @Test("records of ACKs that the peer never acknowledges stay few")
    func acknowledgementsOnly() throws {
        var sender = Sender()
        for index in 0..<Int64(20_000) { sender.send(at: index, isAckEliciting: false, isInFlight: false) }
        let oldest = sender.space.outstandingPacket(20_000 - UInt64(PacketNumberSpace.maximumUntrackedTail) - 2)
        #expect(oldest == nil)
        let newest = sender.space.outstandingPacket(19_999)
        #expect(newest != nil)
        try sender.acknowledge(19_990...19_999, at: 20_000)
        let count = sender.acknowledged.count
        #expect(count == 10)
    }

    @Test("one packet that is never acknowledged does not hold the memory of all later ones")
    func overtaken() throws {
        var sender = Sender()
        sender.limits.append(PathLossLimit(path: PathID(1), largestAcknowledged: nil, lossDelay: .seconds(1_000)))
        sender.send(at: 0, path: 1)
        for _ in 0..<PacketNumberSpace.overtakenLimit - 1 {
            sender.send(at: 1, isAckEliciting: false, isInFlight: false)
        }
        let before = sender.lossTime
        #expect(before == nil)
        sender.send(at: 2, isAckEliciting: false, isInFlight: false)
        let asked = sender.lossTime
        #expect(asked == 2)
        sender.detectLoss(at: 2)
        let (lost, first) = (sender.lost, sender.space.firstOutstanding)
        #expect(lost == [0])
        #expect(first == nil)
        sender.space.releaseResolved()
    }

    @Test("random acknowledgements: every packet leaves flight exactly once", arguments: 1...20 as ClosedRange<UInt64>)
    func model(seed: UInt64) throws {
        var random = RandomSource.seeded(seed)
        var sender = Sender()
        sender.limits.append(PathLossLimit(path: PathID(1), largestAcknowledged: nil, lossDelay: .milliseconds(30)))
        var recoveries = [UInt32(0), 1].map {
            PathRecovery(path: PathID($0), algorithm: .cubic, maximumDatagramSize: 1_200)
        }
        /// In flight, by number: the path.
        var model: [PacketNumber: UInt32] = [:]
        var left = Set<PacketNumber>()
        var skipped = Set<PacketNumber>()
        var time: Int64 = 0
        for _ in 0..<400 {
            time += .random(in: 0...20, using: &random)
            for _ in 0..<Int.random(in: 0...12, using: &random) {
                if Int.random(in: 0..<50, using: &random) == 0 {
                    skipped.insert(sender.space.nextPacketNumber)
                    sender.space.skipPacketNumber()
                }
                let path: UInt32 = Int.random(in: 0..<5, using: &random) == 0 ? 1 : 0
                let isInFlight = Int.random(in: 0..<6, using: &random) != 0
                let number = sender.send(
                    at: time, path: path, isAckEliciting: isInFlight, isInFlight: isInFlight,
                    frames: .random(in: 0...3, using: &random))
                recoveries[Int(path)].packetSent(
                    time: .zero + .milliseconds(time), size: 1_200, isAckEliciting: isInFlight, isInFlight: isInFlight)
                if isInFlight { model[number] = path }
            }
            let end = sender.space.nextPacketNumber
            guard end > 1 else { continue }
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<8:
                // Ranges among the last hundred numbers, never one that was skipped.
                var ranges: [ClosedRange<PacketNumber>] = []
                var upper = end - 1 - min(end - 1, .random(in: 0...5, using: &random))
                while ranges.count < 4 {
                    while upper > 0, skipped.contains(upper) { upper -= 1 }
                    if skipped.contains(upper) { break }
                    var lower = upper
                    let wanted = UInt64.random(in: 0...15, using: &random)
                    while lower > 0, upper - lower < wanted, !skipped.contains(lower - 1) { lower -= 1 }
                    ranges.append(lower...upper)
                    let gap = UInt64.random(in: 2...6, using: &random)
                    guard lower > gap else { break }
                    upper = lower - gap
                }
                sender.outcome.reset()
                guard let largest = ranges.first?.upperBound else { continue }
                try sender.space.beginAck(largest: largest)
                for range in ranges { try sender.space.acknowledge(range: range, outcome: &sender.outcome) }
                for index in recoveries.indices {
                    recoveries[index].acknowledgementReceived(
                        sender.outcome, in: .application, largest: largest, ackDelay: .zero, maxAckDelay: .zero,
                        isHandshakeConfirmed: true, now: .zero + .milliseconds(time))
                    sender.limits[index] = recoveries[index].lossLimit(in: .application)
                }
                sender.detectLoss(at: time)
            case 8:
                sender.outcome.reset()
                sender.detectLoss(at: time)
            default:
                sender.outcome.reset()
                sender.space.removeAll(outcome: &sender.outcome)
            }
            let gone =
                sender.acknowledged.filter { model[$0] != nil || left.contains($0) } + sender.lost + sender.discarded
            for number in gone {
                #expect(left.insert(number).inserted, "packet \(number) left twice")
                #expect(model.removeValue(forKey: number) != nil)
            }
            // Frames are readable up to the release.
            for index in sender.outcome.lost.indices {
                let packet = sender.outcome.lost[index]
                for frame in 0..<UInt32(packet.frameCount) {
                    let read = sender.space.frame(at: packet.firstFrame + UInt64(frame))
                    #expect(
                        read
                            == .stream(id: StreamID(rawValue: 0), offset: packet.number, length: frame, isFinal: false))
                }
            }
            for index in recoveries.indices {
                recoveries[index].apply(sender.outcome, maxAckDelay: .zero, now: .zero + .milliseconds(time))
                let expected = 1_200 * model.values.count { $0 == UInt32(index) }
                #expect(recoveries[index].bytesInFlight == expected)
            }
            sender.space.releaseResolved()
            let counts = (sender.space.packetsInFlight, sender.space.ackElicitingInFlight)
            #expect(counts == (model.count, model.count))
            let first = sender.space.firstOutstanding
            #expect(first == model.keys.min())
        }
        #expect(!left.isEmpty)
    }

    @Test("an acknowledgement of everything costs what is outstanding, not what was ever sent")
    func hugeRange() throws {
        var sender = Sender()
        for round in 0..<Int64(2_000) {
            for _ in 0..<10 { sender.send(at: round) }
            try sender.acknowledge(0...sender.space.nextPacketNumber - 1, at: round)
            let count = sender.acknowledged.count
            #expect(count == 10)
            sender.space.releaseResolved()
        }
    }
}
