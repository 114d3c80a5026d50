// SPDX-License-Identifier: Apache-2.0

/// The window of CUBIC in congestion avoidance (RFC 9438, section 4), in bytes.
struct Cubic {
    /// C, in segments per second³.
    static let aggressiveness = 0.4
    /// β_cubic.
    static let decrease = 0.7
    /// α_cubic of the Reno-friendly region until the window before the last event is reached (section 4.3).
    static let friendlyIncrease = 3 * (1 - decrease) / (1 + decrease)

    /// W_max; 0 if there was no congestion event.
    private(set) var maximum = 0.0
    /// cwnd_prior.
    private var prior = 0.0
    /// The congestion avoidance stage under way, if it has started.
    private var stage: Stage?

    private struct Stage {
        /// K in seconds.
        var timeToMaximum: Double
        /// W_max as the stage sees it.
        var maximum: Double
        /// W_est.
        var friendly: Double
        /// cwnd with the fraction that the window in whole bytes lacks.
        var window: Double
        /// t: how long the window has been growing. Time in which the application did not use it is not in it
        /// (section 4.2).
        var elapsed = Nanoseconds.zero
        var lastAcknowledgement: Instant

        /// W_cubic(t) = C × (t − K)³ + W_max, in bytes.
        func curve(at t: Double, segment: Double) -> Double {
            let distance = t - timeToMaximum
            return Cubic.aggressiveness * distance * distance * distance * segment + maximum
        }
    }

    /// Grows the window, and returns it.
    mutating func acknowledged(
        bytes: Int, window: Int, maximumDatagramSize: Int, now: Instant, smoothedRTT: Nanoseconds, isAppLimited: Bool
    ) -> Int {
        let segment = Double(maximumDatagramSize)
        var stage = self.stage ?? start(window: Double(window), segment: segment, now: now)
        defer { self.stage = stage }
        let passed = now - stage.lastAcknowledgement
        stage.lastAcknowledgement = now
        if isAppLimited { return window }
        // An idle time, of which no acknowledgement tells, does not count beyond the usual distance of ACKs either.
        stage.elapsed += min(max(passed, .zero), smoothedRTT * 2)
        if Int(stage.window) != window { stage.window = Double(window) }

        let t = stage.elapsed.inSeconds
        let current = stage.window
        let target = min(
            max(stage.curve(at: t + smoothedRTT.inSeconds, segment: segment), current), 1.5 * current)
        let acknowledged = Double(bytes)
        let alpha = stage.friendly >= prior ? 1 : Self.friendlyIncrease
        stage.friendly += alpha * segment * acknowledged / current
        if stage.curve(at: t, segment: segment) < stage.friendly {
            stage.window = max(current, stage.friendly)
        } else {
            // Several packets at once do not reach beyond the target.
            stage.window = min(current + (target - current) * acknowledged / current, max(target, current))
        }
        stage.window = min(stage.window, Double(CongestionController.maximumWindow))
        return Int(stage.window)
    }

    /// The stage starts with the first acknowledgement after recovery, or at the end of slow start. Without a congestion
    /// event, W_max is the window of this moment and K is 0 (section 4.10).
    private mutating func start(window: Double, segment: Double, now: Instant) -> Stage {
        if maximum == 0 { prior = window }
        let isBelow = window < maximum
        return Stage(
            timeToMaximum: isBelow ? Self.cubeRoot((maximum - window) / segment / Self.aggressiveness) : 0,
            maximum: isBelow ? maximum : window, friendly: window, window: window, lastAcknowledgement: now)
    }

    /// Multiplicative decrease with fast convergence (sections 4.6 and 4.7): the reduced window.
    mutating func reduced(window: Int) -> Int {
        let current = Double(window)
        maximum = current < maximum ? current * (1 + Self.decrease) / 2 : current
        prior = current
        stage = nil
        return Int(current * Self.decrease)
    }

    /// By Newton's method rather than by the C library, so that a run replays to the bit on every platform.
    static func cubeRoot(_ value: Double) -> Double {
        guard value > 0, value.isFinite else { return 0 }
        // Within a factor of 2 of the root.
        var root = Double(sign: .plus, exponent: Int(value.exponent) / 3, significand: 1)
        for _ in 0..<8 { root -= (root - value / (root * root)) / 3 }
        return root
    }
}
