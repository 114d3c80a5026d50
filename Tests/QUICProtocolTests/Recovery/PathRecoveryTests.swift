// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// One path, one space, and the steps of `PacketNumberSpace` in their order.
private struct Transfer: ~Copyable {
    var space = PacketNumberSpace(id: .application)
    var outcome = AckOutcome()
    var recovery: PathRecovery

    init(_ algorithm: CongestionAlgorithm = .newReno) {
        recovery = PathRecovery(path: PathID(0), algorithm: algorithm, maximumDatagramSize: 1_200)
    }

    @discardableResult
    mutating func send(
        at seconds: Double, size: Int = 1_200, isInFlight: Bool = true, isMTUProbe: Bool = false
    ) -> PacketNumber {
        let time = Instant(nanoseconds: Int64(seconds * 1e9))
        recovery.packetSent(time: time, size: size, isAckEliciting: isInFlight, isInFlight: isInFlight)
        return space.packetSent(
            time: time, path: PathID(0), size: size, isAckEliciting: isInFlight, isInFlight: isInFlight,
            isMTUProbe: isMTUProbe)
    }

    @discardableResult
    mutating func acknowledge(
        _ ranges: ClosedRange<PacketNumber>..., at seconds: Double, maxAckDelay: Nanoseconds = .zero,
        isSampled: Bool = true
    ) throws -> PathRecovery.Change {
        let now = Instant(nanoseconds: Int64(seconds * 1e9))
        let largest = ranges[0].upperBound
        outcome.reset()
        try space.beginAck(largest: largest)
        for range in ranges { try space.acknowledge(range: range, outcome: &outcome) }
        recovery.acknowledgementReceived(
            outcome, in: .application, largest: largest, ackDelay: .zero, maxAckDelay: maxAckDelay,
            isHandshakeConfirmed: true, isSampled: isSampled, now: now)
        let limits = [recovery.lossLimit(in: .application)]
        space.detectLoss(now: now, limits: limits.span, outcome: &outcome)
        let change = recovery.apply(outcome, maxAckDelay: maxAckDelay, now: now)
        space.releaseResolved()
        return change
    }
}

@Suite struct PathRecoveryTests {
    @Test("the window grows by acknowledgements of a full flight, and not by those of a few packets")
    func utilisation() throws {
        var transfer = Transfer()
        for _ in 0..<5 { transfer.send(at: 0) }
        try transfer.acknowledge(0...4, at: 0.1)
        #expect(transfer.recovery.congestion.window == 12_000)
        // Ten datagrams fill it.
        for _ in 0..<10 { transfer.send(at: 0.2) }
        #expect(!transfer.recovery.canSend(bytes: 1_200))
        // In two acknowledgements that come together: neither sees a full window, but both are of a full flight.
        try transfer.acknowledge(5...9, at: 0.3)
        try transfer.acknowledge(5...14, at: 0.3)
        #expect(transfer.recovery.congestion.window == 24_000)
        #expect(transfer.recovery.bytesInFlight == 0)
    }

    @Test("a sender whom the pacer holds back on the way to a full window uses it")
    func pacingIsNoUnderuse() throws {
        var transfer = Transfer()
        transfer.recovery.pacer.congested()
        transfer.recovery.pathAnswered(after: .milliseconds(100), isRoundTrip: true)
        var now = Instant.zero
        var allowance = transfer.recovery.allowance(now: now)
        #expect(allowance == 2_400)
        for _ in 0..<5 { transfer.send(at: 0) }
        let wake = transfer.recovery.sendingStopped(now: now)
        #expect(wake != nil)
        try transfer.acknowledge(0...4, at: 0.1)
        #expect(transfer.recovery.congestion.window == 18_000)
        now = .zero + .milliseconds(100)
        allowance = transfer.recovery.allowance(now: now)
        #expect(allowance > 0)
    }

    @Test("bursts that leave most of the window empty do not grow it, although the pacer spreads them")
    func pacedBursts() throws {
        for isInSlowStart in [true, false] {
            var transfer = Transfer()
            if !isInSlowStart {
                // A loss ends slow start.
                for _ in 0..<10 { transfer.send(at: 0) }
                try transfer.acknowledge(3...9, at: 0.1)
            }
            let window = transfer.recovery.congestion.window
            #expect(transfer.recovery.congestion.isInSlowStart == isInSlowStart)
            transfer.recovery.pathAnswered(after: .milliseconds(100), isRoundTrip: true)
            var seconds = 1.0
            for _ in 0..<50 {
                var numbers: [PacketNumber] = []
                // Two datagrams, and the pacer asks to wait with a third.
                for _ in 0..<2 { numbers.append(transfer.send(at: seconds)) }
                _ = transfer.recovery.sendingStopped(now: .zero + .milliseconds(Int64(seconds * 1e3)))
                numbers.append(transfer.send(at: seconds + 0.01))
                try transfer.acknowledge(numbers[0]...numbers[2], at: seconds + 0.11)
                seconds += 1
            }
            #expect(transfer.recovery.congestion.window == window)
        }
    }

    @Test("when the window is full, only an acknowledgement lets sending go on")
    func windowFull() {
        var transfer = Transfer()
        for _ in 0..<10 { transfer.send(at: 0) }
        let allowance = transfer.recovery.allowance(now: .zero)
        #expect(allowance == 0)
        let wake = transfer.recovery.sendingStopped(now: .zero)
        #expect(wake == nil)
    }

    @Test("packets of nothing but ACKs are neither in flight nor congestion")
    func notInFlight() throws {
        var transfer = Transfer()
        for _ in 0..<10 { transfer.send(at: 0, isInFlight: false) }
        #expect(transfer.recovery.bytesInFlight == 0)
        transfer.send(at: 0)
        let change = try transfer.acknowledge(10...10, at: 0.05)
        #expect(change.packetsLost == 0)
        #expect(!change.isCongestionEvent)
        #expect(transfer.recovery.congestion.window == 12_000)
    }

    @Test("losses of one round trip shrink the window once")
    func oneEvent() throws {
        var transfer = Transfer()
        for _ in 0..<10 { transfer.send(at: 0) }
        let first = try transfer.acknowledge(4...4, at: 0.1)
        #expect(first.packetsLost == 2)
        #expect(first.isCongestionEvent)
        #expect(transfer.recovery.congestion.window == 6_000)
        let second = try transfer.acknowledge(9...9, at: 0.101)
        #expect(second.packetsLost == 4)
        #expect(!second.isCongestionEvent)
        #expect(transfer.recovery.congestion.window == 6_000)
        // Packets 7 and 8 are less than three behind.
        #expect(transfer.recovery.bytesInFlight == 2 * 1_200)
    }

    @Test("a lost MTU probe leaves flight and the window alone")
    func mtuProbe() throws {
        var transfer = Transfer()
        transfer.send(at: 0, size: 1_452, isMTUProbe: true)
        for _ in 0..<3 { transfer.send(at: 0) }
        let change = try transfer.acknowledge(1...3, at: 0.1)
        #expect(change.packetsLost == 0)
        #expect(!change.isCongestionEvent)
        #expect(transfer.recovery.bytesInFlight == 0)
        #expect(transfer.outcome.lost.count == 1)
    }

    @Test("an RTT sample needs the largest packet newly acknowledged and an ack-eliciting one among the new")
    func samples() throws {
        var transfer = Transfer()
        transfer.send(at: 0, isInFlight: false)
        try transfer.acknowledge(0...0, at: 1)
        #expect(!transfer.recovery.rtt.hasSample)
        transfer.send(at: 1)
        transfer.send(at: 1.1)
        try transfer.acknowledge(2...2, at: 1.2)
        #expect(transfer.recovery.rtt.latest == .milliseconds(100))
        // The largest is not new: the sample would be the old packet's age.
        try transfer.acknowledge(1...2, at: 1.21)
        #expect(transfer.recovery.rtt.sampleCount == 1)
    }

    /// The example of RFC 9002, section 7.6.3, in which the PTO is 2 and the period at least 6 seconds: a smoothed RTT of
    /// 1 and a max_ack_delay of nearly 1 second, with no variation to speak of.
    private func rfcExample(lastLost: Double, acknowledgeInBetween: Bool = false) throws -> PathRecovery.Change {
        var transfer = Transfer()
        for _ in 0..<40 {
            transfer.recovery.rtt.update(
                sample: .seconds(1), ackDelay: .zero, maxAckDelay: .zero, isHandshakeConfirmed: true)
        }
        // A first sample before the losses.
        transfer.send(at: -1)
        try transfer.acknowledge(0...0, at: 0)
        transfer.send(at: 0.5)  // 1
        transfer.send(at: 1)  // 2, the first lost
        for time in [2.0, 3, 4, 5, 6] { transfer.send(at: time) }  // 3 to 7
        transfer.send(at: lastLost)  // 8
        transfer.send(at: 12)  // 9
        try transfer.acknowledge(1...1, at: 1.5)
        let maxAckDelay = Nanoseconds.milliseconds(998)
        if acknowledgeInBetween {
            return try transfer.acknowledge(9...9, 5...5, 0...1, at: 13, maxAckDelay: maxAckDelay)
        }
        return try transfer.acknowledge(9...9, 0...1, at: 13, maxAckDelay: maxAckDelay)
    }

    @Test("everything lost over three PTOs is persistent congestion")
    func persistentCongestion() throws {
        let change = try rfcExample(lastLost: 8)
        #expect(change.packetsLost == 7)
        #expect(change.isPersistentCongestion)
    }

    @Test("a shorter period is not, nor one with an acknowledged packet in it")
    func noPersistentCongestion() throws {
        let short = try rfcExample(lastLost: 6.9)
        #expect(short.packetsLost == 7)
        #expect(short.isCongestionEvent)
        #expect(!short.isPersistentCongestion)
        let interrupted = try rfcExample(lastLost: 8, acknowledgeInBetween: true)
        #expect(interrupted.packetsLost == 6)
        #expect(!interrupted.isPersistentCongestion)
    }

    @Test("before the first RTT sample there is no persistent congestion")
    func noSampleBefore() throws {
        var transfer = Transfer()
        for time in 0..<20 { transfer.send(at: Double(time)) }
        let change = try transfer.acknowledge(19...19, at: 19.05)
        #expect(change.packetsLost == 19)
        #expect(!change.isPersistentCongestion)
    }

    @Test("the PTO doubles each time and does not overflow")
    func backoff() {
        var recovery = PathRecovery(path: PathID(0), algorithm: .cubic, maximumDatagramSize: 1_200)
        let first = recovery.probeTimeout(maxAckDelay: .zero)
        recovery.ptoCount = 3
        #expect(recovery.probeTimeout(maxAckDelay: .zero) == first * 8)
        recovery.ptoCount = .max
        #expect(recovery.probeTimeout(maxAckDelay: .zero) > first)
    }

    @Test("a path that continues another keeps RTT and window, has nothing in flight and starts without a burst (M12)")
    func continued() throws {
        var transfer = Transfer(.cubic)
        for _ in 0..<10 { transfer.send(at: 0) }
        try transfer.acknowledge(0...9, at: 0.05)
        for _ in 0..<6 { transfer.send(at: 0.05) }
        let now = Instant.zero + .milliseconds(60)
        var next = transfer.recovery.continued(on: PathID(1), now: now)
        #expect(next.bytesInFlight == 0)
        #expect(next.congestion.window == 24_000)
        #expect(next.rtt.smoothed == .milliseconds(50))
        #expect(next.lossLimit(in: .application).largestAcknowledged == nil)
        #expect(next.lossLimit(in: .application).path == PathID(1))
        let atOnce = next.allowance(now: now)
        #expect(atOnce == 0)
        let later = next.allowance(now: now + .milliseconds(5))
        #expect(later > 0)
    }

    @Test("a reset path starts as a fresh one and still counts what is in flight (M12)")
    func reset() throws {
        var transfer = Transfer(.cubic)
        for _ in 0..<10 { transfer.send(at: 0) }
        try transfer.acknowledge(0...7, at: 0.05)
        transfer.recovery.reset(now: .zero + .milliseconds(60))
        #expect(transfer.recovery.congestion.window == 12_000)
        #expect(!transfer.recovery.rtt.hasSample)
        #expect(transfer.recovery.bytesInFlight == 2_400)
        try transfer.acknowledge(0...9, at: 0.07)
        #expect(transfer.recovery.bytesInFlight == 0)
    }

    @Test(
        "an acknowledgement that came another way gives no RTT sample, and a response does if it came the same way (M35)"
    )
    func roundTrips() throws {
        var transfer = Transfer()
        for _ in 0..<2 { transfer.send(at: 0) }
        try transfer.acknowledge(0...0, at: 0.05)
        try transfer.acknowledge(1...1, at: 0.25, isSampled: false)
        #expect(transfer.recovery.rtt.smoothed == .milliseconds(50))
        #expect(transfer.recovery.bytesInFlight == 0)
        transfer.recovery.pathAnswered(after: .milliseconds(90), isRoundTrip: false)
        #expect(transfer.recovery.rtt.smoothed == .milliseconds(50))
        transfer.recovery.pathAnswered(after: .milliseconds(90), isRoundTrip: true)
        #expect(transfer.recovery.rtt.smoothed == .milliseconds(55))
    }
}
