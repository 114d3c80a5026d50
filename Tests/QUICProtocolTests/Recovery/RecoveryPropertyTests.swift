// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// Recovery against models so simple that they are the RFC's own words. A failing seed is named by the test's argument.
@Suite("Recovery against simple models")
struct RecoveryPropertyTests {
    // MARK: The ring

    @Test("the ring equals a dictionary under random appending and dropping", arguments: 1...20 as ClosedRange<UInt64>)
    func ring(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        var ring = SequencedRing(placeholder: UInt64.max, minimumCapacity: 4)
        var model: [UInt64: UInt64] = [:]
        var start: UInt64 = 0
        var end: UInt64 = 0
        for _ in 0..<600 {
            switch random.next() % 8 {
            case 0...4:
                for _ in 0..<random.next() % 9 {
                    let value = random.next()
                    ring.append(value)
                    model[end] = value
                    end += 1
                }
            case 5:
                let number = start + random.next() % (end - start + 3)
                ring.removeFirst(until: number)
                start = min(number, end)
            case 6:
                let number = start + random.next() % (end - start + 3)
                ring.removeLast(from: number)
                end = min(number, end)
            default:
                ring.releaseMemory()
            }
            let (first, last, count) = (ring.start, ring.end, ring.count)
            #expect(first == start && last == end && count == Int(end - start))
            var isEqual = true
            for number in start..<end where !ring.contains(number) || ring[number] != model[number] { isEqual = false }
            #expect(isEqual)
            let isOutside = !ring.contains(end) && (start == 0 || !ring.contains(start - 1))
            #expect(isOutside)
        }
    }

    // MARK: Loss

    /// DetectAndRemoveLostPackets of RFC 9002, appendix A.10, of one path, word for word.
    private struct LossModel {
        struct Packet {
            var timeSent: Instant
            var isAcknowledged = false
        }

        var sent: [PacketNumber: Packet] = [:]
        var largestAcknowledged: PacketNumber?
        var lossTime: Instant?

        mutating func acknowledge(_ numbers: ClosedRange<PacketNumber>) -> [PacketNumber] {
            largestAcknowledged = max(largestAcknowledged ?? 0, numbers.upperBound)
            let found = sent.keys.filter { numbers.contains($0) }.sorted()
            for number in found { sent[number] = nil }
            return found
        }

        mutating func detectLoss(now: Instant, lossDelay: Nanoseconds) -> [PacketNumber] {
            lossTime = nil
            guard let largestAcknowledged else { return [] }
            var lost: [PacketNumber] = []
            let lostSendTime = now - lossDelay
            for (number, packet) in sent.sorted(by: { $0.key < $1.key }) {
                if number > largestAcknowledged { continue }
                if packet.timeSent <= lostSendTime || largestAcknowledged >= number + 3 {
                    lost.append(number)
                    sent[number] = nil
                } else {
                    let time = packet.timeSent + lossDelay
                    lossTime = min(lossTime ?? time, time)
                }
            }
            return lost
        }
    }

    @Test("losses are those of RFC 9002, appendix A.10, at the same times", arguments: 1...40 as ClosedRange<UInt64>)
    func loss(seed: UInt64) throws {
        var random = RandomSource.seeded(seed)
        var space = PacketNumberSpace(id: .application)
        var outcome = AckOutcome()
        var model = LossModel()
        var limit = PathLossLimit(path: PathID(0), largestAcknowledged: nil, lossDelay: .milliseconds(20))
        var now = Instant.zero + .seconds(1)
        for _ in 0..<500 {
            now += .microseconds(Int64(random.next() % 8_000))
            outcome.reset()
            var acknowledged: [PacketNumber] = []
            switch random.next() % 4 {
            case 0, 1:
                for _ in 0..<1 + random.next() % 5 {
                    let number = space.packetSent(
                        time: now, path: PathID(0), size: 1_200, isAckEliciting: true, isInFlight: true)
                    model.sent[number] = LossModel.Packet(timeSent: now)
                }
                continue
            case 2:
                guard space.nextPacketNumber > 0 else { continue }
                let upper = random.next() % space.nextPacketNumber
                // Mostly of late, as acknowledgements are.
                let newest = space.nextPacketNumber - 1
                let largest = random.next() % 4 == 0 ? upper : max(upper, newest - min(newest, random.next() % 4))
                let range = (largest - min(largest, random.next() % 6))...largest
                try space.beginAck(largest: largest)
                try space.acknowledge(range: range, outcome: &outcome)
                acknowledged = model.acknowledge(range)
                limit.largestAcknowledged = max(limit.largestAcknowledged ?? 0, largest)
            default:
                limit.lossDelay = .milliseconds(5 + Int64(random.next() % 30))
            }
            space.detectLoss(now: now, limits: [limit].span, outcome: &outcome)
            let lost = model.detectLoss(now: now, lossDelay: limit.lossDelay)
            let found = outcome.acknowledged.indices.map { outcome.acknowledged[$0].number }
            let declared = outcome.lost.indices.map { outcome.lost[$0].number }
            #expect(found == acknowledged)
            #expect(declared == lost)
            let (lossTime, inFlight) = (space.lossTime, space.packetsInFlight)
            #expect(lossTime == model.lossTime)
            #expect(inFlight == model.sent.count)
            space.releaseResolved()
        }
    }

    // MARK: Congestion control

    @Test(
        "whatever happens, the window stays between its least and most, and shrinks by a sign of congestion alone",
        arguments: [CongestionAlgorithm.newReno, .cubic], 1...20 as ClosedRange<UInt64>)
    func window(algorithm: CongestionAlgorithm, seed: UInt64) {
        var random = RandomSource.seeded(seed)
        var controller = CongestionController(algorithm, maximumDatagramSize: 1_200)
        var rtt = RTTEstimator()
        var now = Instant.zero + .seconds(1)
        for _ in 0..<2_000 {
            now += .microseconds(Int64(random.next() % 40_000))
            let before = controller.window
            let events = controller.congestionEventCount
            let sentAt = now - .microseconds(Int64(random.next() % 100_000))
            switch random.next() % 16 {
            case 0:
                let isFresh = !controller.isInRecovery(sentAt: sentAt)
                let shrank = controller.congestionEvent(
                    newestLostSentAt: sentAt, now: now, isECN: random.next() & 1 == 0)
                #expect(shrank == isFresh)
                #expect(controller.congestionEventCount == events + (isFresh ? 1 : 0))
                let factor = algorithm == .cubic ? 0.7 : 0.5
                let expected = isFresh ? max(Int(Double(before) * factor), controller.minimumWindow) : before
                #expect(abs(controller.window - expected) <= 1)
            case 1 where random.next() % 8 == 0:
                controller.persistentCongestion(now: now)
                #expect(controller.window == controller.minimumWindow)
            case 2 where random.next() % 8 == 0:
                controller.setMaximumDatagramSize(1_200 + Int(random.next() % 300))
            default:
                rtt.update(
                    sample: .microseconds(Int64(1 + random.next() % 200_000)), ackDelay: .zero,
                    maxAckDelay: .milliseconds(25), isHandshakeConfirmed: true)
                let bytes = Int(random.next() % 60_000)
                let isAppLimited = random.next() % 4 == 0
                let isSlowStart = controller.isInSlowStart
                controller.acknowledged(
                    bytes: bytes, sentAt: sentAt, now: now, rtt: rtt, isAppLimited: isAppLimited)
                #expect(controller.window >= before)
                if isAppLimited { #expect(controller.window == before) }
                // Slow start grows by what was acknowledged at most, congestion avoidance by half at most.
                let most = isSlowStart ? bytes : max(before / 2, bytes)
                #expect(controller.window - before <= most + 1)
            }
            #expect(controller.window >= controller.minimumWindow)
            #expect(controller.window <= CongestionController.maximumWindow)
            #expect(controller.slowStartThreshold >= controller.minimumWindow)
        }
    }

    @Test("CUBIC follows its formula: W(t) = C (t - K)³ + W_max (RFC 9438, section 4.2)", arguments: [1_000, 10_000])
    func cubicFormula(segments: Int) {
        let size = 1_200
        var cubic = Cubic()
        var window = cubic.reduced(window: segments * size)
        let maximum = Double(segments)
        let k = Cubic.cubeRoot(maximum * (1 - Cubic.decrease) / Cubic.aggressiveness)
        let rtt = Nanoseconds.milliseconds(100)
        var now = Instant.zero + .seconds(1)
        let start = now
        // A window a round trip, acknowledged in a hundred pieces.
        var checked = 0
        while now - start < .seconds(Int64(k * 1.5) + 1) {
            window = cubic.acknowledged(
                bytes: window / 100, window: window, maximumDatagramSize: size, now: now, smoothedRTT: rtt,
                isAppLimited: false)
            let t = (now - start).inSeconds
            let formula = Cubic.aggressiveness * (t - k) * (t - k) * (t - k) + maximum
            let reno = maximum * Cubic.decrease + Cubic.friendlyIncrease * t / rtt.inSeconds
            // The target is a round trip ahead; Reno's growth is the least (section 4.3).
            if t > 1, reno < formula {
                let ahead = Cubic.aggressiveness * (t + 0.1 - k) * (t + 0.1 - k) * (t + 0.1 - k) + maximum
                let actual = Double(window) / Double(size)
                #expect(actual >= formula * 0.97 && actual <= max(ahead, formula) * 1.03, "after \(t) s")
                checked += 1
            }
            now += .milliseconds(1)
        }
        #expect(checked > 100)
    }
}
