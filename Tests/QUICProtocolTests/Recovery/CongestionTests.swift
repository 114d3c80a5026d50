// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

private let size = 1_200

private func estimator(_ milliseconds: Int64) -> RTTEstimator {
    var rtt = RTTEstimator()
    rtt.update(
        sample: .milliseconds(milliseconds), ackDelay: .zero, maxAckDelay: .zero, isHandshakeConfirmed: true)
    return rtt
}

/// RFC 9002, section 7.
@Suite struct CongestionControllerTests {
    private let rtt = estimator(100)
    private func at(_ milliseconds: Int64) -> Instant { .zero + .milliseconds(milliseconds) }

    @Test("the initial window is ten datagrams, limited to 14,720 bytes or two datagrams")
    func initialWindow() {
        #expect(CongestionController.initialWindow(maximumDatagramSize: 1_200) == 12_000)
        #expect(CongestionController.initialWindow(maximumDatagramSize: 1_500) == 14_720)
        #expect(CongestionController.initialWindow(maximumDatagramSize: 9_000) == 18_000)
    }

    @Test("slow start grows by what is acknowledged", arguments: [CongestionAlgorithm.newReno, .cubic])
    func slowStart(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, maximumDatagramSize: size)
        #expect(controller.isInSlowStart)
        controller.acknowledged(bytes: 12_000, sentAt: at(0), now: at(100), rtt: rtt, isAppLimited: false)
        #expect(controller.window == 24_000)
    }

    @Test(
        "an application that does not use the window does not grow it",
        arguments: [CongestionAlgorithm.newReno, .cubic])
    func appLimited(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, maximumDatagramSize: size)
        for round in 0..<Int64(50) {
            controller.acknowledged(
                bytes: 1_200, sentAt: at(round * 100), now: at(round * 100 + 100), rtt: rtt, isAppLimited: true)
        }
        #expect(controller.window == 12_000)
        controller.congestionEvent(newestLostSentAt: at(5_000), now: at(5_100), isECN: false)
        let reduced = controller.window
        for round in 60..<Int64(600) {
            controller.acknowledged(
                bytes: 1_200, sentAt: at(round * 100), now: at(round * 100 + 100), rtt: rtt, isAppLimited: true)
        }
        #expect(controller.window == reduced)
        // Nor does the time count: afterwards CUBIC grows as if it had not passed.
        controller.acknowledged(bytes: 1_200, sentAt: at(60_100), now: at(60_200), rtt: rtt, isAppLimited: false)
        #expect(controller.window <= reduced + size)
    }

    @Test("NewReno halves the window, once a round trip, and grows by a datagram a window")
    func newReno() {
        var controller = CongestionController(.newReno, maximumDatagramSize: size)
        controller.acknowledged(bytes: 84_000, sentAt: at(0), now: at(100), rtt: rtt, isAppLimited: false)
        #expect(controller.window == 96_000)
        let event1 = controller.congestionEvent(newestLostSentAt: at(100), now: at(200), isECN: false)
        #expect(event1)
        #expect(controller.window == 48_000)
        #expect(controller.slowStartThreshold == 48_000)
        #expect(!controller.isInSlowStart)
        // Sent before the recovery started: the same event.
        let event2 = controller.congestionEvent(newestLostSentAt: at(200), now: at(250), isECN: true)
        #expect(!event2)
        #expect(controller.window == 48_000)
        // Nor do those packets grow it.
        controller.acknowledged(bytes: 48_000, sentAt: at(199), now: at(299), rtt: rtt, isAppLimited: false)
        #expect(controller.window == 48_000)
        for _ in 0..<40 {
            controller.acknowledged(bytes: 1_200, sentAt: at(300), now: at(400), rtt: rtt, isAppLimited: false)
        }
        #expect(controller.window == 49_200)
        let event3 = controller.congestionEvent(newestLostSentAt: at(300), now: at(410), isECN: true)
        #expect(event3)
        #expect(controller.window == 24_600)
    }

    @Test("the window never falls below two datagrams", arguments: [CongestionAlgorithm.newReno, .cubic])
    func minimum(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, maximumDatagramSize: size)
        for round in 0..<Int64(30) {
            controller.congestionEvent(newestLostSentAt: at(round * 100 + 1), now: at(round * 100 + 50), isECN: false)
        }
        #expect(controller.window == 2 * size)
    }

    @Test(
        "persistent congestion starts again from two datagrams in slow start",
        arguments: [CongestionAlgorithm.newReno, .cubic])
    func persistent(algorithm: CongestionAlgorithm) {
        var controller = CongestionController(algorithm, maximumDatagramSize: size)
        controller.acknowledged(bytes: 108_000, sentAt: at(0), now: at(100), rtt: rtt, isAppLimited: false)
        controller.congestionEvent(newestLostSentAt: at(50), now: at(200), isECN: false)
        controller.persistentCongestion(now: at(200))
        #expect(controller.window == 2 * size)
        #expect(controller.isInSlowStart)
        controller.acknowledged(bytes: 2_400, sentAt: at(150), now: at(300), rtt: rtt, isAppLimited: false)
        #expect(controller.window == 4_800)
    }

    @Test("a datagram size found out raises an untouched initial window and keeps a grown one")
    func datagramSize() {
        var controller = CongestionController(.cubic, maximumDatagramSize: 1_200)
        controller.setMaximumDatagramSize(1_452)
        #expect(controller.window == 14_520)
        controller.acknowledged(bytes: 10_000, sentAt: at(0), now: at(10), rtt: rtt, isAppLimited: false)
        controller.setMaximumDatagramSize(1_200)
        #expect(controller.window == 24_520)
    }
}

/// RFC 9438.
@Suite struct CubicTests {
    @Test("the cube root is one")
    func cubeRoot() {
        for value in [1e-9, 0.001, 0.5, 1, 2, 7.9, 8, 27, 750, 1e6, 1e15] {
            let root = Cubic.cubeRoot(value)
            #expect(abs(root * root * root - value) < 1e-9 * value)
        }
        #expect(Cubic.cubeRoot(0) == 0)
        #expect(Cubic.cubeRoot(-1) == 0)
        #expect(Cubic.cubeRoot(.infinity) == 0)
    }

    /// A path that takes any window: each acknowledgement is for a tenth of a window, ten to a round trip of 100 ms.
    private struct FluidPath {
        var controller: CongestionController
        var now = Instant.zero
        let rtt = estimator(100)

        init(windowBeforeLoss segments: Int) {
            controller = CongestionController(.cubic, maximumDatagramSize: size)
            let missing = segments * size - controller.window
            controller.acknowledged(
                bytes: missing, sentAt: now, now: now + .milliseconds(100), rtt: rtt, isAppLimited: false)
            now += .milliseconds(200)
            controller.congestionEvent(newestLostSentAt: now, now: now, isECN: false)
            now += .milliseconds(101)
        }

        mutating func run(_ duration: Nanoseconds, isAppLimited: Bool = false) {
            let end = now + duration
            while now < end {
                controller.acknowledged(
                    bytes: controller.window / 10, sentAt: now - .milliseconds(100), now: now, rtt: rtt,
                    isAppLimited: isAppLimited)
                now += .milliseconds(10)
            }
        }
        var segments: Double { Double(controller.window) / Double(size) }
    }

    @Test("a loss leaves 0.7 of the window, and W_max is reached again after K")
    func curve() {
        // W_max 1,000 segments: K = ∛(300 / 0.4) = 9.09 s, and Reno-friendly growth of 0.53 segments a round trip is slower.
        var path = FluidPath(windowBeforeLoss: 1_000)
        #expect(abs(path.segments - 700) < 1)
        let k = Cubic.cubeRoot(300 / 0.4)
        var previous = path.segments
        var increments: [Double] = []
        for step in 1...28 {
            path.run(.milliseconds(500))
            let t = Double(step) * 0.5
            let expected = 0.4 * (t - k) * (t - k) * (t - k) + 1_000
            #expect(abs(path.segments - expected) < 0.015 * expected, "at \(t) s")
            increments.append(path.segments - previous)
            previous = path.segments
        }
        // Concave before K: ever slower. Convex behind it: ever faster.
        for index in 1..<16 { #expect(increments[index] < increments[index - 1] + 0.5) }
        for index in 20..<28 { #expect(increments[index] > increments[index - 1]) }
    }

    @Test("a small window grows as Reno's would: the Reno-friendly region")
    func renoFriendly() {
        // W_max 20: K = ∛(6 / 0.4) = 2.47 s; W_est grows 0.53 a round trip, to 27 in 2.5 s.
        var path = FluidPath(windowBeforeLoss: 20)
        #expect(abs(path.segments - 14) < 0.1)
        path.run(.seconds(1))
        #expect(abs(path.segments - (14 + 10 * Cubic.friendlyIncrease)) < 0.6)
        // From cwnd_prior on by a whole segment a round trip.
        path.run(.milliseconds(200))
        let reached = path.segments
        #expect(reached > 20)
        path.run(.seconds(1))
        #expect(abs(path.segments - reached - 10) < 1)
    }

    @Test("fast convergence: a second loss below W_max lowers W_max further")
    func fastConvergence() {
        var cubic = Cubic()
        #expect(cubic.reduced(window: 1_000_000) == 700_000)
        #expect(cubic.maximum == 1_000_000)
        #expect(cubic.reduced(window: 800_000) == 560_000)
        #expect(cubic.maximum == 680_000)
        #expect(cubic.reduced(window: 900_000) == 630_000)
        #expect(cubic.maximum == 900_000)
    }

    @Test("time in which the application did not use the window does not count")
    func appLimitedTime() {
        var path = FluidPath(windowBeforeLoss: 1_000)
        path.run(.seconds(2))
        let before = path.segments
        path.run(.seconds(30), isAppLimited: true)
        #expect(path.segments == before)
        // Idle time, without any acknowledgement, neither.
        path.now += .seconds(30)
        path.run(.seconds(1))
        let k = Cubic.cubeRoot(300 / 0.4)
        let expected = 0.4 * (3.2 - k) * (3.2 - k) * (3.2 - k) + 1_000
        #expect(abs(path.segments - expected) < 0.02 * expected)
    }

    @Test("no acknowledgement grows the window by more than half, whatever time has passed")
    func targetBound() {
        var path = FluidPath(windowBeforeLoss: 100)
        for _ in 0..<2_000 {
            let before = path.controller.window
            path.run(.milliseconds(10))
            #expect(path.controller.window <= before + before / 20 + size)
        }
    }
}

/// RFC 9406.
@Suite struct HyStartTests {
    /// Rounds of twelve acknowledgements each; the RTT of each round is given.
    private func run(_ controller: inout CongestionController, rounds: [Int64], samples: Int = 12) -> [Int] {
        var rtt = RTTEstimator()
        var now = Instant.zero + .seconds(1)
        var sentAt = now
        var windows: [Int] = []
        for round in rounds {
            now += .milliseconds(round)
            let roundStart = now
            for _ in 0..<samples {
                rtt.update(
                    sample: .milliseconds(round), ackDelay: .zero, maxAckDelay: .zero, isHandshakeConfirmed: true)
                controller.acknowledged(bytes: size, sentAt: sentAt, now: now, rtt: rtt, isAppLimited: false)
                now += .microseconds(100)
            }
            sentAt = roundStart + .microseconds(50)
            windows.append(controller.window)
        }
        return windows
    }

    @Test("a steady RTT keeps slow start going")
    func steady() {
        var controller = CongestionController(.cubic, maximumDatagramSize: size)
        _ = run(&controller, rounds: Array(repeating: 50, count: 30))
        #expect(controller.slowStartThreshold == .max)
        #expect(controller.window == 12_000 + 30 * 12 * size)
    }

    @Test("a growing RTT slows down to a quarter and ends slow start after five rounds")
    func exit() {
        var controller = CongestionController(.cubic, maximumDatagramSize: size)
        let windows = run(&controller, rounds: [50, 50, 50] + Array(repeating: 60, count: 10))
        #expect(!controller.isInSlowStart)
        #expect(controller.slowStartThreshold < .max)
        // The fifth round runs at a quarter throughout.
        #expect(windows[5] - windows[4] == 12 * size / 4)
        #expect(windows[4] - windows[3] == 12 * size / 4)
        #expect(windows[2] - windows[1] == 12 * size)
        // Without a loss the window was not cut.
        #expect(controller.window >= windows[7])
    }

    @Test("an RTT that falls back was noise: slow start goes on")
    func spurious() {
        var controller = CongestionController(.cubic, maximumDatagramSize: size)
        let windows = run(&controller, rounds: [50, 50, 60, 60] + Array(repeating: 50, count: 12))
        #expect(controller.slowStartThreshold == .max)
        #expect(windows[15] - windows[14] == 12 * size)
    }

    @Test("too small a growth, or too few samples in a round, say nothing")
    func thresholds() {
        var small = CongestionController(.cubic, maximumDatagramSize: size)
        // An eighth of 50 ms is 6.25 ms.
        _ = run(&small, rounds: [50, 50] + Array(repeating: 56, count: 10))
        #expect(small.slowStartThreshold == .max)
        var few = CongestionController(.cubic, maximumDatagramSize: size)
        _ = run(&few, rounds: [50, 50] + Array(repeating: 80, count: 10), samples: 7)
        #expect(few.slowStartThreshold == .max)
    }

    @Test("a loss ends it for good")
    func loss() {
        var controller = CongestionController(.cubic, maximumDatagramSize: size)
        _ = run(&controller, rounds: [50, 50])
        controller.congestionEvent(newestLostSentAt: .zero + .seconds(2), now: .zero + .seconds(2), isECN: false)
        let threshold = controller.slowStartThreshold
        controller.persistentCongestion(now: .zero + .seconds(3))
        #expect(controller.slowStartThreshold == threshold)
        #expect(controller.isInSlowStart)
    }
}
