// SPDX-License-Identifier: Apache-2.0

/// HyStart++ (RFC 9406): leaves the first slow start when the RTT grows, before the queue overflows.
///
/// A rising RTT first leads to conservative slow start, which grows at a quarter of the pace. If the RTT falls below
/// where it rose to, that was noise, and slow start goes on; else slow start ends after five rounds.
struct HyStart {
    static let minimumThreshold = Nanoseconds.milliseconds(4)
    static let maximumThreshold = Nanoseconds.milliseconds(16)
    /// MIN_RTT_DIVISOR.
    static let thresholdDivisor: Int64 = 8
    /// N_RTT_SAMPLE: a round with fewer samples says nothing.
    static let samplesNeeded = 8
    /// CSS_GROWTH_DIVISOR.
    static let conservativeDivisor = 4
    /// CSS_ROUNDS.
    static let conservativeRounds = 5

    private enum Phase {
        case slowStart
        case conservative(baseline: Nanoseconds, roundsLeft: Int)
        case finished
    }

    private var phase = Phase.slowStart
    /// A round ends when a packet is acknowledged that was sent after its start.
    private var roundStartedAt: Instant?
    private var lastRoundMinimum = Nanoseconds.max
    private var roundMinimum = Nanoseconds.max
    private var samplesInRound = 0
    /// `RTTEstimator.sampleCount` when it was last looked at.
    private var samplesSeen: UInt32 = 0

    /// Slow start is over.
    var isFinished: Bool {
        if case .finished = phase { true } else { false }
    }

    /// Bytes acknowledged are divided by it to grow the window.
    var growthDivisor: Int {
        if case .conservative = phase { Self.conservativeDivisor } else { 1 }
    }

    mutating func finish() { phase = .finished }

    /// - Parameters:
    ///   - sentAt: when the newest of the packets acknowledged was sent.
    mutating func acknowledged(sentAt: Instant, rtt: borrowing RTTEstimator, now: Instant) {
        if let start = roundStartedAt, sentAt <= start {
            // The round goes on.
        } else {
            if roundStartedAt != nil { endRound() }
            roundStartedAt = now
        }
        guard rtt.sampleCount != samplesSeen else { return }
        samplesSeen = rtt.sampleCount
        roundMinimum = min(roundMinimum, rtt.latest)
        samplesInRound += 1
        guard samplesInRound >= Self.samplesNeeded else { return }
        switch phase {
        case .slowStart:
            guard lastRoundMinimum != .max else { return }
            let threshold = min(
                max(lastRoundMinimum / Self.thresholdDivisor, Self.minimumThreshold), Self.maximumThreshold)
            if roundMinimum >= lastRoundMinimum + threshold {
                phase = .conservative(baseline: roundMinimum, roundsLeft: Self.conservativeRounds)
            }
        case .conservative(let baseline, _):
            if roundMinimum < baseline { phase = .slowStart }
        case .finished:
            break
        }
    }

    private mutating func endRound() {
        lastRoundMinimum = roundMinimum
        roundMinimum = .max
        samplesInRound = 0
        if case .conservative(let baseline, let roundsLeft) = phase {
            phase = roundsLeft > 1 ? .conservative(baseline: baseline, roundsLeft: roundsLeft - 1) : .finished
        }
    }
}
