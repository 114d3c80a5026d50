// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// RFC 9002, section 7.7.
@Suite struct PacerTests {
    /// Sends datagrams whenever the pacer lets it for `seconds`; a timer wakes up to `lateness` late.
    private func run(
        window: Int, rtt: Nanoseconds, isInSlowStart: Bool, seconds: Int64, lateness: Nanoseconds = .zero,
        isTroubled: Bool = true
    ) -> (bytes: Int, largestBurst: Int, capacity: Int) {
        var random = RandomSource.seeded(7)
        var pacer = Pacer()
        if isTroubled { pacer.congested() }
        var now = Instant.zero + .seconds(5)
        let end = now + .seconds(seconds)
        var bytes = 0
        var largestBurst = 0
        while now < end {
            var budget = pacer.budget(
                now: now, window: window, smoothedRTT: rtt, minimumRTT: rtt, maximumDatagramSize: 1_200,
                isInSlowStart: isInSlowStart)
            var burst = 0
            while budget >= 1_200 {
                pacer.sent(bytes: 1_200)
                budget -= 1_200
                burst += 1_200
            }
            bytes += burst
            largestBurst = max(largestBurst, burst)
            let wake = pacer.nextSendTime(now: now, bytes: 1_200)
            #expect(wake > now)
            now = wake + Nanoseconds(.random(in: 0...lateness.rawValue, using: &random))
        }
        return (bytes, largestBurst, pacer.capacity)
    }

    @Test(
        "the average rate is 1.25 windows a round trip, two in slow start",
        arguments: [(20_000, 50), (375_000, 30), (4_000_000, 40)])
    func averageRate(window: Int, milliseconds: Int64) {
        for isInSlowStart in [false, true] {
            let rtt = Nanoseconds.milliseconds(milliseconds)
            let result = run(window: window, rtt: rtt, isInSlowStart: isInSlowStart, seconds: 1)
            let expected = (isInSlowStart ? 2 : 1.25) * Double(window) / rtt.inSeconds
            #expect(abs(Double(result.bytes) - expected) < 0.05 * expected)
        }
    }

    @Test("a timer that wakes late does not cost rate")
    func lateTimer() {
        let result = run(
            window: 4_000_000, rtt: .milliseconds(40), isInSlowStart: false, seconds: 1, lateness: .microseconds(800))
        #expect(abs(Double(result.bytes) - 125_000_000) < 0.05 * 125_000_000)
    }

    @Test("a burst is never more than two datagrams, or a millisecond's worth and an eighth of the window")
    func burst() {
        // Half a datagram leaves in a millisecond: two is what timers need, more would overflow a short queue.
        let slow = run(window: 12_500, rtt: .milliseconds(30), isInSlowStart: false, seconds: 1)
        #expect(slow.largestBurst <= 2_400)
        let medium = run(
            window: 375_000, rtt: .milliseconds(30), isInSlowStart: false, seconds: 1, lateness: .milliseconds(5))
        #expect(medium.largestBurst <= 15_625)
        let fast = run(
            window: 4_000_000, rtt: .milliseconds(40), isInSlowStart: false, seconds: 1, lateness: .milliseconds(5))
        #expect(fast.largestBurst <= 125_000)
        #expect(fast.largestBurst > 64_000)
    }

    @Test(
        "on a path of a few milliseconds and until a packet is lost or marked, a burst may be ten datagrams or a quarter of the window"
    )
    func untroubled() {
        let slow = run(
            window: 12_500, rtt: .milliseconds(4), isInSlowStart: false, seconds: 1, lateness: .milliseconds(8),
            isTroubled: false)
        #expect(slow.largestBurst > 9_600)
        #expect(slow.largestBurst <= 12_000)
        let fast = run(
            window: 120_000, rtt: .milliseconds(2), isInSlowStart: false, seconds: 1, lateness: .milliseconds(5),
            isTroubled: false)
        #expect(fast.largestBurst > 25_000)
        #expect(fast.largestBurst <= 30_000)
        let far = run(
            window: 12_500, rtt: .milliseconds(5), isInSlowStart: false, seconds: 1, lateness: .milliseconds(8),
            isTroubled: false)
        #expect(far.largestBurst <= 2_400)
    }

    @Test(
        "a path of less than a millisecond is sent batches worth a system call, but no more than a quarter of the window"
    )
    func shortPath() {
        let loopback = run(
            window: 400_000, rtt: .microseconds(100), isInSlowStart: false, seconds: 1, lateness: .milliseconds(1))
        #expect(loopback.largestBurst <= 65_536)
        #expect(loopback.largestBurst > 50_000)
        let small = run(window: 40_000, rtt: .microseconds(100), isInSlowStart: false, seconds: 1)
        #expect(small.largestBurst <= 10_000)
        // With a loss behind it, a path beyond the host may have a queue of a tenth of its window: 1 Gbit/s over 1 ms.
        let link = run(
            window: 125_000, rtt: .milliseconds(1), isInSlowStart: false, seconds: 1, lateness: .milliseconds(1))
        #expect(link.largestBurst <= 125_000 / 8)
        let untroubledLink = run(
            window: 125_000, rtt: .milliseconds(1), isInSlowStart: false, seconds: 1, lateness: .milliseconds(1),
            isTroubled: false)
        #expect(untroubledLink.largestBurst > 125_000 / 5)
        // 4 ms: a quarter of a kilobyte, which is less than the millisecond's worth.
        let longer = run(window: 80_000, rtt: .milliseconds(4), isInSlowStart: false, seconds: 1)
        #expect(longer.largestBurst <= 10_000)
    }

    @Test("however long nothing was sent, the burst is no larger")
    func afterSilence() {
        var pacer = Pacer()
        pacer.congested()
        _ = pacer.budget(
            now: .zero, window: 4_000_000, smoothedRTT: .milliseconds(40), minimumRTT: .milliseconds(40),
            maximumDatagramSize: 1_200,
            isInSlowStart: false)
        let budget = pacer.budget(
            now: .zero + .seconds(100), window: 4_000_000, smoothedRTT: .milliseconds(40),
            minimumRTT: .milliseconds(40), maximumDatagramSize: 1_200,
            isInSlowStart: false)
        #expect(budget <= 125_000)
    }

    @Test("without an RTT the window alone limits")
    func noSample() {
        var pacer = Pacer()
        let budget = pacer.budget(
            now: .zero, window: 12_000, smoothedRTT: nil, minimumRTT: .milliseconds(333), maximumDatagramSize: 1_200,
            isInSlowStart: true)
        #expect(budget == 12_000)
        pacer.sent(bytes: 12_000)
        #expect(pacer.nextSendTime(now: .zero, bytes: 1_200) == .zero)
    }

    @Test("after a reset there is no burst, only the rate")
    func reset() {
        var pacer = Pacer()
        let now = Instant.zero + .seconds(9)
        _ = pacer.budget(
            now: now, window: 4_000_000, smoothedRTT: .milliseconds(40), minimumRTT: .milliseconds(40),
            maximumDatagramSize: 1_200,
            isInSlowStart: false)
        pacer.reset(now: now)
        let budget = pacer.budget(
            now: now, window: 4_000_000, smoothedRTT: .milliseconds(40), minimumRTT: .milliseconds(40),
            maximumDatagramSize: 1_200,
            isInSlowStart: false)
        #expect(budget == 0)
        let next = pacer.nextSendTime(now: now, bytes: 12_500)
        // 125 MB/s.
        #expect(abs((next - now).rawValue - 100_000) <= 1)
    }

    @Test("probes that do not wait are paid back, within bounds")
    func debt() {
        var pacer = Pacer()
        pacer.congested()
        _ = pacer.budget(
            now: .zero, window: 120_000, smoothedRTT: .milliseconds(100), minimumRTT: .milliseconds(100),
            maximumDatagramSize: 1_200,
            isInSlowStart: false)
        for _ in 0..<1_000 { pacer.sent(bytes: 1_200) }
        let next = pacer.nextSendTime(now: .zero, bytes: 1_200)
        // 2,400 bytes of debt and 1,200 to send at 1.5 MB/s.
        #expect(abs((next - .zero).rawValue - 2_400_000) <= 1)
    }

    @Test("absurd values neither trap nor stop for good")
    func absurd() {
        var pacer = Pacer()
        for rtt in [Nanoseconds(1), .max] {
            for window in [2_400, CongestionController.maximumWindow] {
                let budget = pacer.budget(
                    now: .zero, window: window, smoothedRTT: rtt, minimumRTT: rtt, maximumDatagramSize: 1_200,
                    isInSlowStart: true)
                #expect(budget >= 0)
                pacer.sent(bytes: budget + 1)
                _ = pacer.nextSendTime(now: .zero, bytes: .max)
            }
        }
    }
}
