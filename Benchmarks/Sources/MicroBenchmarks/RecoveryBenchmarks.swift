// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Packets in flight, acknowledgements, losses, congestion control and pacing.
extension Harness {
    mutating func measureRecovery() throws {
        room = "Recovery"
        try measureSending()
        try measureAcknowledging("ACK of the oldest 10 of 1,000 in flight, 1 range", .inOrder)
        try measureAcknowledging("ACK of 10 and loss of 1 of 1,000 in flight, 8 ranges", .withGaps)
        try measureLossDetection()
        measureReceivedPackets("received packet recorded, in order", lostEvery: nil)
        measureReceivedPackets("received packet recorded, every 10th missing", lostEvery: 10)
        measureCubic()
        measurePacer()
    }

    // MARK: Sent packets

    private mutating func measureSending() throws {
        var flight = Flight()
        flight.send(1_000)
        try measureSections("sent packet recorded, 1,000 in flight", passes: 100) { passes, watch in
            for _ in 0..<passes {
                watch.start()
                flight.send(500)
                watch.stop(after: 500)
                try flight.acknowledge(.inOrder, largest: flight.oldest + 499)
            }
            return flight.oldest
        }
    }

    private mutating func measureAcknowledging(_ name: String, _ report: Report) throws {
        var flight = Flight()
        flight.send(1_000)
        let packets = report.resolvedPackets
        var largest = packets - 1
        // A few at a time, so that there are always about as many in flight.
        let batch = 20
        try measureSections(name, passes: 100) { passes, watch in
            for _ in 0..<passes {
                flight.send(batch * Int(packets))
                watch.start()
                for _ in 0..<batch {
                    try flight.acknowledge(report, largest: largest)
                    largest += packets
                }
                watch.stop(after: batch)
            }
            guard flight.space.packetsInFlight <= 1_000 else { throw UnexpectedResult("packets stay in flight") }
            return flight.check
        }
    }

    private mutating func measureLossDetection() throws {
        // Several connections in a row, as one detection is short for the clock.
        let flights = (0..<8).map { _ in FlightBox() }
        let name = "losses found among 1,000 in flight, every 50th lost"
        try measureSections(name, passes: 50) { passes, watch in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                for box in flights { try box.flight.sendAndLose(1_000, every: 50) }
                watch.start()
                for box in flights { box.flight.detectLoss() }
                watch.stop(after: flights.count)
                for box in flights {
                    guard box.flight.outcome.lost.count == 20 else { throw UnexpectedResult("not 20 losses") }
                    box.flight.conclude()
                    sum &+= box.flight.check
                }
            }
            return sum
        }
    }

    // MARK: Received packets

    private mutating func measureReceivedPackets(_ name: String, lostEvery period: UInt64?) {
        var received = ReceivedPackets(acknowledgesAtOnce: false)
        var number: PacketNumber = 0
        var now = Instant(nanoseconds: 1_000_000_000)
        measure(name, passes: 100_000) { passes in
            for _ in 0..<passes {
                if let period, number % period == 0 { number += 1 }
                received.record(number, isAckEliciting: true, ecn: .notECT, now: now)
                number += 1
                now += .microseconds(1)
            }
            return received.largest ?? 0
        }
    }

    // MARK: Congestion control and pacing

    private mutating func measureCubic() {
        var congestion = CongestionController(.cubic, maximumDatagramSize: 1_452)
        var rtt = RTTEstimator()
        rtt.update(
            sample: .milliseconds(20), ackDelay: .zero, maxAckDelay: .milliseconds(25), isHandshakeConfirmed: true)
        var now = Instant(nanoseconds: 1_000_000_000)
        var count: UInt64 = 0
        measure("CUBIC, acknowledged (a loss each 1,024 ACKs)", passes: 100_000) { passes in
            for _ in 0..<passes {
                now += .microseconds(200)
                if count & 1_023 == 0 {
                    congestion.congestionEvent(newestLostSentAt: now - .milliseconds(20), now: now, isECN: false)
                }
                count &+= 1
                congestion.acknowledged(
                    bytes: 14_520, sentAt: now - .milliseconds(20), now: now, rtt: rtt, isAppLimited: false)
            }
            return UInt64(congestion.window)
        }
    }

    private mutating func measurePacer() {
        var pacer = Pacer()
        var now = Instant(nanoseconds: 1_000_000_000)
        measure("pacer, budget, a batch sent, next send time", passes: 100_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                let budget = pacer.budget(
                    now: now, window: 1_000_000, smoothedRTT: .milliseconds(20), minimumRTT: .milliseconds(20),
                    maximumDatagramSize: 1_452, isInSlowStart: false)
                pacer.sent(bytes: budget)
                now = pacer.nextSendTime(now: now, bytes: pacer.preferredBatch)
                sum &+= UInt64(budget)
            }
            return sum &+ UInt64(now.nanoseconds)
        }
    }
}

/// What the ACK frames of a peer report that acknowledges every ten packets.
private enum Report {
    /// It received everything.
    case inOrder
    /// One packet before every ten is lost; a frame repeats the seven ranges before the newest.
    case withGaps

    /// By how much the largest number reported grows from frame to frame.
    var resolvedPackets: UInt64 { self == .inOrder ? 10 : 11 }
    var rangeCount: UInt64 { self == .inOrder ? 1 : 8 }

    /// The range of that index, from the newest on; nil below the first packet.
    func range(_ index: UInt64, largest: PacketNumber) -> ClosedRange<PacketNumber>? {
        switch self {
        case .inOrder: return 0...largest
        case .withGaps:
            let below = index * resolvedPackets
            return largest >= below + 9 ? largest - below - 9...largest - below : nil
        }
    }
}

/// A packet number space and its path, with a sender that fills it.
private struct Flight: ~Copyable {
    var space = PacketNumberSpace(id: .application)
    var outcome = AckOutcome()
    /// What frames of resolved packets said, in one number.
    private(set) var check: UInt64 = 0
    private var path = PathRecovery(path: PathID(0), algorithm: .cubic, maximumDatagramSize: 1_452)
    private var limits: [PathLossLimit] = []
    private var now = Instant(nanoseconds: 1_000_000_000)

    init() { limits = [path.lossLimit(in: .application)] }

    var oldest: PacketNumber { space.firstOutstanding ?? space.nextPacketNumber }

    /// Full packets with one STREAM frame each, ten microseconds apart.
    mutating func send(_ count: Int) {
        for _ in 0..<count {
            now += .microseconds(10)
            let offset = space.nextPacketNumber * 1_400
            space.logFrame(.stream(id: StreamID(rawValue: 0), offset: offset, length: 1_400, isFinal: false))
            space.packetSent(time: now, path: path.path, size: 1_452, isAckEliciting: true, isInFlight: true)
            path.packetSent(time: now, size: 1_452, isAckEliciting: true, isInFlight: true)
        }
    }

    /// All that a connection does with an ACK frame, in the order that `PacketNumberSpace` asks for; only what the
    /// frames' owners do is left out.
    mutating func acknowledge(_ report: Report, largest: PacketNumber) throws {
        try beginAck(largest: largest)
        for index in 0..<report.rangeCount {
            guard let range = report.range(index, largest: largest) else { break }
            try space.acknowledge(range: range, outcome: &outcome)
        }
        updateRTT(largest: largest)
        detectLoss()
        conclude()
    }

    /// Everything up to the detection of losses, with an ACK frame that reports each packet but every `period`th.
    mutating func sendAndLose(_ count: Int, every period: UInt64) throws {
        let first = space.nextPacketNumber
        send(count)
        now += .milliseconds(1)
        let largest = space.nextPacketNumber - 1
        try beginAck(largest: largest)
        for number in first...largest where (number - first) % period != 0 {
            try space.acknowledge(range: number...number, outcome: &outcome)
        }
        updateRTT(largest: largest)
    }

    private mutating func beginAck(largest: PacketNumber) throws {
        outcome.reset()
        try space.beginAck(largest: largest)
    }

    private mutating func updateRTT(largest: PacketNumber) {
        path.acknowledgementReceived(
            outcome, in: .application, largest: largest, ackDelay: .microseconds(100), maxAckDelay: .milliseconds(25),
            isHandshakeConfirmed: true, now: now)
    }

    mutating func detectLoss() {
        limits[0] = path.lossLimit(in: .application)
        // A copy, as a span of the property would borrow all of this value.
        let limits = limits
        space.detectLoss(now: now, limits: limits.span, outcome: &outcome)
    }

    mutating func conclude() {
        path.apply(outcome, maxAckDelay: .milliseconds(25), now: now)
        for index in 0..<outcome.acknowledged.count { read(outcome.acknowledged[index].frames) }
        for index in 0..<outcome.lost.count { read(outcome.lost[index].frames) }
        space.releaseResolved()
    }

    private mutating func read(_ frames: Range<UInt64>) {
        for index in frames {
            if case .stream(_, let offset, _, _) = space.frame(at: index) { check &+= offset }
        }
    }
}

/// For an array of them.
private final class FlightBox {
    var flight = Flight()
}
