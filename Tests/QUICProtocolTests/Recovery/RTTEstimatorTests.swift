// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// RFC 9002, section 5.
@Suite struct RTTEstimatorTests {
    private func sample(
        _ rtt: inout RTTEstimator, _ milliseconds: Int64, ackDelay: Int64 = 0, maxAckDelay: Int64 = 25,
        confirmed: Bool = true
    ) {
        rtt.update(
            sample: .milliseconds(milliseconds), ackDelay: .milliseconds(ackDelay),
            maxAckDelay: .milliseconds(maxAckDelay), isHandshakeConfirmed: confirmed)
    }

    @Test("without a sample the PTO is about a second")
    func initialTimeout() {
        let rtt = RTTEstimator()
        #expect(!rtt.hasSample)
        #expect(rtt.smoothed == .milliseconds(333))
        #expect(rtt.pto(maxAckDelay: .zero) == .milliseconds(333) + Nanoseconds(333_000_000 / 2 * 4))
    }

    @Test("the first sample replaces everything and ignores the ACK delay")
    func firstSample() {
        var rtt = RTTEstimator()
        sample(&rtt, 100, ackDelay: 20)
        #expect(rtt.hasSample)
        #expect(rtt.latest == .milliseconds(100))
        #expect(rtt.smoothed == .milliseconds(100))
        #expect(rtt.variation == .milliseconds(50))
        #expect(rtt.minimum == .milliseconds(100))
    }

    @Test("later samples move the averages by 1/8 and 1/4")
    func laterSamples() {
        var rtt = RTTEstimator()
        sample(&rtt, 100)
        sample(&rtt, 180, ackDelay: 20)
        // Adjusted to 160: rttvar = 3/4 × 50 + 1/4 × 60, srtt = 7/8 × 100 + 1/8 × 160.
        #expect(rtt.variation == Nanoseconds(52_500_000))
        #expect(rtt.smoothed == Nanoseconds(107_500_000))
        #expect(rtt.minimum == .milliseconds(100))
        #expect(rtt.latest == .milliseconds(180))
    }

    @Test("the ACK delay is limited to max_ack_delay once the handshake is confirmed, and not before")
    func ackDelayLimit() {
        var confirmed = RTTEstimator()
        sample(&confirmed, 100)
        sample(&confirmed, 200, ackDelay: 80, maxAckDelay: 25)
        #expect(confirmed.smoothed == Nanoseconds((7 * 100_000_000 + 175_000_000) / 8))

        var early = RTTEstimator()
        sample(&early, 100)
        sample(&early, 200, ackDelay: 80, maxAckDelay: 25, confirmed: false)
        #expect(early.smoothed == Nanoseconds((7 * 100_000_000 + 120_000_000) / 8))
    }

    @Test("an ACK delay that would bring the sample below the minimum is not subtracted")
    func implausibleDelay() {
        var rtt = RTTEstimator()
        sample(&rtt, 100)
        sample(&rtt, 110, ackDelay: 20)
        #expect(rtt.smoothed == Nanoseconds((7 * 100_000_000 + 110_000_000) / 8))
    }

    @Test("hostile ACK delays neither overflow nor move the estimate out of range")
    func hostileDelays() {
        #expect(RTTEstimator.ackDelay(encoded: Varint.maximum, exponent: 20) == .max)
        #expect(RTTEstimator.ackDelay(encoded: .max, exponent: .max) == .max)
        #expect(RTTEstimator.ackDelay(encoded: 1_000, exponent: 3) == .milliseconds(8))
        var rtt = RTTEstimator()
        for delay in [Nanoseconds.max, Nanoseconds(.min), .zero] {
            for confirmed in [true, false] {
                rtt.update(
                    sample: .milliseconds(50), ackDelay: delay, maxAckDelay: .max, isHandshakeConfirmed: confirmed)
                #expect(rtt.smoothed == .milliseconds(50))
            }
        }
        rtt.update(sample: .max, ackDelay: .max, maxAckDelay: .max, isHandshakeConfirmed: false)
        rtt.update(sample: Nanoseconds(.min), ackDelay: .max, maxAckDelay: .max, isHandshakeConfirmed: false)
        #expect(rtt.latest == RTTEstimator.minimumSample)
        #expect(rtt.lossDelay > .zero)
        #expect(rtt.pto(maxAckDelay: .max) == .max)
    }

    @Test("the loss delay is 9/8 of the larger of smoothed and latest RTT, at least a millisecond")
    func lossDelay() {
        var rtt = RTTEstimator()
        sample(&rtt, 80)
        #expect(rtt.lossDelay == .milliseconds(90))
        sample(&rtt, 160)
        #expect(rtt.lossDelay == .milliseconds(180))
        var short = RTTEstimator()
        short.update(sample: .microseconds(10), ackDelay: .zero, maxAckDelay: .zero, isHandshakeConfirmed: true)
        #expect(short.lossDelay == .milliseconds(1))
        #expect(short.pto(maxAckDelay: .zero) == .microseconds(1_010))
    }

    @Test("a reset forgets, and what validation measured is no sample")
    func reset() {
        var rtt = RTTEstimator()
        sample(&rtt, 80)
        rtt.setInitial(.milliseconds(20))
        #expect(rtt.smoothed == .milliseconds(80))
        rtt.reset()
        #expect(!rtt.hasSample)
        rtt.setInitial(.milliseconds(20))
        #expect(rtt.smoothed == .milliseconds(20))
        #expect(!rtt.hasSample)
        sample(&rtt, 60)
        #expect(rtt.minimum == .milliseconds(60))
    }
}
