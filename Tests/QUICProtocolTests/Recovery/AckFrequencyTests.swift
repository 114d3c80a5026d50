// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// draft-ietf-quic-ack-frequency: the receiver's side.
@Suite struct AckPolicyTests {
    private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

    private func frame(_ sequence: UInt64, threshold: UInt64, delay: UInt64 = 20_000, reordering: UInt64 = 3)
        -> AckFrequencyFrame
    {
        AckFrequencyFrame(
            sequence: sequence, ackElicitingThreshold: threshold, requestedMaxAckDelay: delay,
            reorderingThreshold: reordering)
    }

    private func report(_ received: inout ReceivedPackets) {
        var storage = [UInt8](repeating: 0, count: 1_200)
        var span = storage.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        _ = received.writeAck(into: &writer, delayExponent: 3, now: .zero)
    }

    /// Receives the packets in turn and says after which an ACK was due at once; each of those is sent.
    private func due(_ numbers: [PacketNumber], _ received: inout ReceivedPackets, now: Instant = .zero)
        -> [PacketNumber]
    {
        numbers.filter { number in
            received.record(number, isAckEliciting: true, ecn: .notECT, now: now)
            guard received.isAckDue(now: now) else { return false }
            report(&received)
            return true
        }
    }

    /// A connection on which nothing has happened for long.
    private func calm() -> ReceivedPackets {
        var received = ReceivedPackets(acknowledgesAtOnce: false)
        _ = due(Array(0..<100), &received)
        report(&received)
        return received
    }

    @Test(
        "every second packet is acknowledged at first, every tenth of a calm connection, every second after a gap or a move"
    )
    func withoutRequest() {
        var received = ReceivedPackets(acknowledgesAtOnce: false)
        let first = due(Array(0..<100), &received).count
        #expect(first >= 48)
        let calm = due(Array(100..<200), &received).count
        #expect(calm == 10)
        let afterGap = due(Array(201..<301), &received).count
        #expect(afterGap >= 48)
        let calmAgain = due(Array(301..<401), &received).count
        #expect(calmAgain <= 11)
        received.peerMoved()
        let afterMove = due(Array(401..<501), &received).count
        #expect(afterMove >= 48)
    }

    @Test("an ACK that nobody asked to be late is so by an eighth of the RTT, and max_ack_delay at most")
    func delayWithoutRequest() {
        var received = calm()
        received.setRTT(.milliseconds(80))
        received.record(100, isAckEliciting: true, ecn: .notECT, now: at(1_000))
        let deadline = received.ackDeadline
        #expect(deadline == at(1_010))
        report(&received)
        received.setRTT(.seconds(3))
        received.record(101, isAckEliciting: true, ecn: .notECT, now: at(2_000))
        let longest = received.ackDeadline
        #expect(longest == at(2_025))
    }

    @Test("on a path of a few milliseconds such an ACK is late by a millisecond, until a packet is missing")
    func delayOnShortPath() {
        var received = calm()
        func delay(_ number: PacketNumber, rtt: Nanoseconds) -> Nanoseconds? {
            received.setRTT(rtt)
            received.record(number, isAckEliciting: true, ecn: .notECT, now: at(1_000))
            defer { report(&received) }
            return received.ackDeadline.map { $0 - at(1_000) }
        }
        #expect(delay(100, rtt: .milliseconds(2)) == .milliseconds(1))
        report(&received)
        _ = due(Array(102..<210), &received)
        report(&received)
        #expect(delay(210, rtt: .milliseconds(2)) == .microseconds(250))
        #expect(delay(211, rtt: .microseconds(999)) == .milliseconds(1))
        #expect(delay(212, rtt: .milliseconds(80)) == .milliseconds(10))
    }

    @Test("a request sets how many packets and what time pass before an ACK")
    func request() throws {
        var received = calm()
        try received.request(frame(0, threshold: 24), minAckDelay: .milliseconds(1))
        #expect(due(Array(100..<200), &received) == [124, 149, 174, 199])
        received.record(200, isAckEliciting: true, ecn: .notECT, now: at(5))
        let deadline = received.ackDeadline
        #expect(deadline == at(25))
        report(&received)
        // Every packet.
        try received.request(frame(1, threshold: 0), minAckDelay: .milliseconds(1))
        #expect(due([201, 202, 203], &received) == [201, 202, 203])
    }

    @Test("a request that was overtaken by a newer one, or comes twice, changes nothing")
    func oldRequest() throws {
        var received = calm()
        try received.request(frame(7, threshold: 9), minAckDelay: .zero)
        try received.request(frame(6, threshold: 0), minAckDelay: .zero)
        try received.request(frame(7, threshold: 0), minAckDelay: .zero)
        #expect(due(Array(100..<120), &received) == [109, 119])
    }

    @Test("after a move, acknowledgements are not rare for a hundred packets, whatever was asked")
    func move() throws {
        var received = calm()
        try received.request(frame(0, threshold: 49), minAckDelay: .zero)
        received.peerMoved()
        #expect(due(Array(100..<200), &received).count >= 49)
        #expect(due(Array(200..<300), &received).count <= 3)
    }

    @Test(
        "a delay of 2^14 ms or more, or below min_ack_delay, is a PROTOCOL_VIOLATION",
        arguments: [1 << 14 * 1_000, Varint.maximum, 999, 0] as [UInt64])
    func badDelay(delay: UInt64) {
        var received = calm()
        var code: TransportErrorCode?
        do throws(TransportError) {
            try received.request(frame(0, threshold: 1, delay: delay), minAckDelay: .milliseconds(1))
        } catch {
            code = error.code
        }
        #expect(code == .protocolViolation)
    }

    @Test("the examples of the draft, section 6.2.1", arguments: [3, 5] as [UInt64])
    func reordering(threshold: UInt64) throws {
        var received = ReceivedPackets(acknowledgesAtOnce: false)
        try received.request(frame(0, threshold: 1_000, reordering: threshold), minAckDelay: .zero)
        // A threshold of a thousand counts only once the connection is calm: until then what was received is reported
        // here by every second packet, so let a hundred come first.
        _ = due(Array(0..<100), &received)
        report(&received)
        let base: PacketNumber = 1_000
        // As if all up to the base had come and nothing were reported yet.
        _ = due(Array(100..<base), &received)
        if threshold == 3 {
            #expect(due([0, 1, 3, 4, 5, 8, 9, 10].map { $0 + base }, &received) == [5, 9, 10].map { $0 + base })
        } else {
            #expect(due([0, 1, 3, 5, 6, 7, 8, 9].map { $0 + base }, &received) == [7, 9].map { $0 + base })
        }
    }

    @Test("a packet that comes when it counts as lost already is reported at once, one just late is not")
    func late() throws {
        var received = calm()
        try received.request(frame(0, threshold: 1_000), minAckDelay: .zero)
        #expect(due([100, 101, 103, 104, 105], &received) == [105])
        #expect(due([102], &received) == [102])
        #expect(due([107, 106, 108], &received) == [])
    }

    @Test("with a reordering threshold of 0 no gap is reported at once, but none is forgotten either")
    func reorderingIgnored() throws {
        var received = calm()
        try received.request(frame(0, threshold: 1_000, reordering: 0), minAckDelay: .zero)
        let numbers = (0..<200).map { PacketNumber(100 + 2 * $0) }
        let reported = due(numbers, &received)
        #expect(reported.count >= 3 && reported.count < 10)
        #expect(received.rangeCount <= ReceivedPackets.maximumRanges)
    }

    @Test("of consecutive CE marks the first is reported at once, where acknowledgements are rare")
    func marks() throws {
        var received = calm()
        try received.request(frame(0, threshold: 1_000), minAckDelay: .zero)
        var due: [PacketNumber] = []
        for (number, ecn) in [(100, ECNCodepoint.ect0), (101, .ce), (102, .ce), (103, .ect0), (104, .ce)] {
            received.record(PacketNumber(number), isAckEliciting: true, ecn: ecn, now: .zero)
            guard received.isAckDue(now: .zero) else { continue }
            due.append(PacketNumber(number))
            report(&received)
        }
        #expect(due == [101, 104])
    }

    @Test("IMMEDIATE_ACK has its packet acknowledged at once")
    func immediateAck() throws {
        var received = calm()
        try received.request(frame(0, threshold: 1_000), minAckDelay: .zero)
        received.record(100, isAckEliciting: true, asksForAck: true, ecn: .notECT, now: .zero)
        let isDue = received.isAckDue(now: .zero)
        #expect(isDue)
    }
}

/// draft-ietf-quic-ack-frequency: the sender's side.
@Suite struct AckFrequencyTests {
    private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

    private func negotiated(minAckDelay: Nanoseconds? = .milliseconds(1)) -> AckFrequency {
        var parameters = TransportParameters()
        parameters.minAckDelay = minAckDelay
        var frequency = AckFrequency()
        frequency.negotiated(parameters, now: at(0))
        return frequency
    }

    private func reconsider(
        _ frequency: inout AckFrequency, datagrams: Int, isInSlowStart: Bool = false, rtt: Int64 = 20,
        least: Nanoseconds? = nil, at time: Int64
    ) -> AckFrequencyFrame? {
        frequency.reconsider(
            window: datagrams * 1_200, maximumDatagramSize: 1_200, isInSlowStart: isInSlowStart,
            smoothedRTT: .milliseconds(rtt), minimumRTT: least ?? .milliseconds(rtt), now: at(time))
        guard frequency.isPending else { return nil }
        defer { frequency.frameSent() }
        return frequency.frame
    }

    @Test("one ACK for a sixteenth of a large window, within a sixteenth of a round trip")
    func sparseOnLongPath() {
        var frequency = negotiated()
        let frame = reconsider(&frequency, datagrams: 800, rtt: 80, at: 1_000)
        #expect(
            frame
                == AckFrequencyFrame(
                    sequence: 0, ackElicitingThreshold: 49, requestedMaxAckDelay: 5_000, reorderingThreshold: 3))
        // So small a window that it would be every second packet: nothing to ask for.
        var small = negotiated()
        #expect(reconsider(&small, datagrams: 40, rtt: 80, at: 1_000) == nil)
        #expect(reconsider(&small, datagrams: 48, rtt: 80, at: 2_000)?.ackElicitingThreshold == 2)
    }

    @Test(
        "on a path of a few milliseconds nothing is asked for less than ten packets, and the usual ones for less than five"
    )
    func fewPackets() {
        var frequency = negotiated()
        #expect(reconsider(&frequency, datagrams: 159, rtt: 4, at: 1_000) == nil)
        #expect(reconsider(&frequency, datagrams: 160, rtt: 4, at: 2_000)?.ackElicitingThreshold == 9)
        #expect(reconsider(&frequency, datagrams: 100, rtt: 4, at: 3_000) == nil, "a small change")
        #expect(
            reconsider(&frequency, datagrams: 70, rtt: 4, at: 4_000)
                == AckFrequencyFrame(
                    sequence: 1, ackElicitingThreshold: 1, requestedMaxAckDelay: 25_000, reorderingThreshold: 1))
        #expect(reconsider(&frequency, datagrams: 70, rtt: 4, at: 5_000) == nil)
    }

    @Test(
        "once packets were lost, a path of a few milliseconds may be a link with a short queue and is asked as others are"
    )
    func fewPacketsAfterLoss() {
        var frequency = negotiated()
        frequency.disturbed(now: at(500), needsAnswer: false)
        #expect(!frequency.hasFrames, "the usual ones are what the peer sends")
        let least = Nanoseconds.microseconds(999)
        #expect(reconsider(&frequency, datagrams: 39, rtt: 4, least: least, at: 1_000) == nil, "a path within hosts")
        #expect(reconsider(&frequency, datagrams: 64, rtt: 4, at: 2_000)?.ackElicitingThreshold == 3)
    }

    @Test("on a very short path, one for a quarter of the window, an eighth in slow start")
    func sparse() {
        var frequency = negotiated()
        let least = Nanoseconds.microseconds(100)
        let slowStart = reconsider(&frequency, datagrams: 80, isInSlowStart: true, rtt: 40, least: least, at: 1_000)
        #expect(
            slowStart
                == AckFrequencyFrame(
                    sequence: 0, ackElicitingThreshold: 9, requestedMaxAckDelay: 5_000, reorderingThreshold: 3))
        let later = reconsider(&frequency, datagrams: 100, rtt: 40, least: least, at: 2_000)
        #expect(later?.ackElicitingThreshold == 24)
        #expect(later?.sequence == 1)
        // Not for a small change, nor beyond what a receiver processes at once.
        #expect(reconsider(&frequency, datagrams: 140, rtt: 40, least: least, at: 3_000) == nil)
        #expect(reconsider(&frequency, datagrams: 100_000, at: 4_000)?.ackElicitingThreshold == 63)
    }

    @Test(
        "nothing is asked of a peer that does not know the extension, for a small window, or right after a disturbance")
    func notSparse() {
        var stranger = negotiated(minAckDelay: nil)
        #expect(reconsider(&stranger, datagrams: 1_000, at: 1_000) == nil)
        stranger.disturbed(now: at(1_000), needsAnswer: true)
        #expect(!stranger.hasFrames)
        var frequency = negotiated()
        #expect(reconsider(&frequency, datagrams: 12, at: 1_000) == nil)
        frequency.disturbed(now: at(1_000), needsAnswer: false)
        #expect(!frequency.hasFrames)
        #expect(reconsider(&frequency, datagrams: 1_000, at: 1_079) == nil)
        #expect(reconsider(&frequency, datagrams: 1_000, at: 1_080) != nil)
    }

    @Test("with the first loss or move the usual acknowledgements are asked for, once")
    func disturbance() {
        var frequency = negotiated()
        #expect(reconsider(&frequency, datagrams: 200, at: 1_000) != nil)
        frequency.disturbed(now: at(1_001), needsAnswer: true)
        #expect(frequency.isPending)
        #expect(frequency.wantsImmediateAck)
        #expect(
            frequency.frame
                == AckFrequencyFrame(
                    sequence: 1, ackElicitingThreshold: 1, requestedMaxAckDelay: 25_000, reorderingThreshold: 1))
        frequency.frameSent()
        frequency.immediateAckSent()
        frequency.disturbed(now: at(1_002), needsAnswer: false)
        #expect(!frequency.hasFrames)
    }

    @Test("the delay asked for is never outside of what the peer allows")
    func limits() {
        for rtt in [0, 1, 2, 60, 100, 5_000] as [Int64] {
            var frequency = negotiated()
            guard let frame = reconsider(&frequency, datagrams: 200, rtt: rtt, at: 100_000) else {
                Issue.record("nothing asked at an RTT of \(rtt) ms")
                continue
            }
            #expect(frame.requestedMaxAckDelay >= 1_000)
            #expect(frame.requestedMaxAckDelay <= 25_000)
        }
    }

    @Test("a lost frame is sent again as what is wanted now, unless a newer one went out")
    func loss() {
        var frequency = negotiated()
        #expect(reconsider(&frequency, datagrams: 200, at: 1_000) != nil)
        frequency.lost(sequence: 0)
        #expect(frequency.isPending)
        #expect(frequency.frame.sequence == 1)
        frequency.frameSent()
        frequency.lost(sequence: 0)
        #expect(!frequency.isPending)
    }
}
