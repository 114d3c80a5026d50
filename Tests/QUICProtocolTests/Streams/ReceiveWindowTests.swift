// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// RFC 9000, section 4.
@Suite struct ReceiveWindowTests {
    /// A sender that doubles what it sends in each round trip until it sends `rate` bytes a round trip, to a receiver who
    /// reads everything at once. Grants and bytes take half a round trip each.
    ///
    /// - Returns: how often it was blocked, and the window in the end.
    private func slowStart(
        to rate: Double, initial: UInt64, maximum: UInt64, rtt: Nanoseconds = .milliseconds(100)
    ) -> (blocked: Int, window: UInt64) {
        let ticks = 200
        var window = ReceiveWindow(initial: initial, maximum: maximum)
        var now = Instant.zero + .seconds(1)
        /// What is under way: what was sent, and the limits that were told, in each tick.
        var sent = [UInt64](repeating: 0, count: ticks / 2)
        var limits = [UInt64](repeating: window.limit, count: ticks / 2)
        var limit = window.limit
        var total: UInt64 = 0
        var perRoundTrip = 14_520.0
        var debt = 0.0
        var blocked = 0
        for tick in 0..<ticks * 40 {
            now += rtt / Int64(ticks)
            if tick % ticks == 0, tick > 0 { perRoundTrip = min(perRoundTrip * 2, rate) }
            let slot = tick % (ticks / 2)
            let arrived = sent[slot]
            limit = max(limit, limits[slot])
            debt += perRoundTrip / Double(ticks)
            let wanted = UInt64(debt)
            if total + wanted > limit { blocked += 1 }
            let count = min(wanted, limit - total)
            debt -= Double(wanted)
            total += count
            sent[slot] = count
            if window.consume(arrived, now: now, rtt: rtt) { _ = window.advance() }
            limits[slot] = window.limit
        }
        return (blocked, window.size)
    }

    @Test("a sender in slow start is never held back by flow control on the way to a long fat path")
    func slowStartIsNotBlocked() {
        for rtt in [Nanoseconds.milliseconds(1), .milliseconds(300)] {
            let result = slowStart(to: 100e6, initial: 64 * 1_024, maximum: 1 << 30, rtt: rtt)
            #expect(result.blocked == 0)
            #expect(result.window >= 400_000_000)
            #expect(result.window < 1_200_000_000)
        }
    }

    @Test("the window stays within its maximum, and is the limit then")
    func maximum() {
        let result = slowStart(to: 100e6, initial: 64 * 1_024, maximum: 16 << 20)
        #expect(result.window == 16 << 20)
        #expect(result.blocked > 0)
    }

    @Test("a slow reader's window does not grow")
    func slowReader() {
        var window = ReceiveWindow(initial: 1 << 20, maximum: 16 << 20)
        var now = Instant.zero + .seconds(1)
        for _ in 0..<10_000 {
            now += .milliseconds(10)
            // A tenth of the window in a round trip.
            if window.consume(20_000, now: now, rtt: .milliseconds(50)) { _ = window.advance() }
        }
        #expect(window.size == 1 << 20)
        #expect(window.limit >= window.consumed + window.size / 2)
    }
}
