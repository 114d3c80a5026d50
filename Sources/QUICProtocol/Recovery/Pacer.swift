// SPDX-License-Identifier: Apache-2.0

/// Spreads a window over a round trip (RFC 9002, section 7.7): a bucket that fills at the path's rate and from which each
/// packet takes its bytes.
///
/// The bucket is as deep as batches need, in which segmentation offload pays, and timers that wake late; and no deeper than
/// a queue at the bottleneck can be expected to bear. It holds what leaves in a millisecond, but no more than an eighth of
/// the window. On a path of less than a few milliseconds that would be little to wake up for: there it holds up to 64 KiB,
/// the less the longer the path is, but no more than a quarter of the window. Two datagrams fit always. Without an RTT
/// nothing is known to spread over: then the window alone limits.
///
/// On a path of less than `RTTEstimator.hostPath` batches save time. Until a packet is lost or
/// marked there is no sign of a short queue either: up to then ten datagrams may leave at once, or a millisecond's worth and a
/// quarter of the window (decision 0016). Afterwards only a path of less than `shortPathStep`, on which there is no link to speak
/// of, has batches larger than a millisecond's worth and an eighth of the window.
struct Pacer {
    /// The burst that is always allowed, in datagrams.
    static let minimumBurstDatagrams = 2
    /// The same on a path of less than `RTTEstimator.hostPath` that has not lost or marked a packet yet: as much as an initial window.
    static let untroubledBurstDatagrams = 10
    /// How much sending at the rate the bucket holds.
    static let burstSpan = Nanoseconds.milliseconds(1)
    /// What the bucket may hold on a path of no length, in bytes; it halves with each `shortPathStep` of RTT.
    static let shortPathBurst = 64 * 1_024
    static let shortPathStep = Nanoseconds.microseconds(512)

    /// Bytes that may leave; below zero after packets that do not wait, like probes.
    private var tokens: Double?
    private var lastRefill = Instant.zero
    /// Bytes per nanosecond; nil if the path's RTT is not known.
    private var rate: Double?
    /// Bytes that the bucket holds.
    private(set) var capacity = 0
    /// The path has lost or marked packets.
    private(set) var hasSeenCongestion = false

    init() {}

    /// The rate in bytes per second, nil if the path is not paced.
    var bytesPerSecond: Double? { rate.map { $0 * 1e9 } }

    /// How many bytes are worth waiting for, rather than sending a datagram whenever one may leave.
    var preferredBatch: Int { capacity / 2 }

    /// How many bytes may leave now.
    ///
    /// - Parameters:
    ///   - smoothedRTT: nil or zero if nothing is known of the path.
    ///   - minimumRTT: what the path takes without queues.
    ///   - isInSlowStart: the window doubles in a round trip, so the rate must be twice as high.
    mutating func budget(
        now: Instant, window: Int, smoothedRTT: Nanoseconds?, minimumRTT: Nanoseconds, maximumDatagramSize: Int,
        isInSlowStart: Bool
    ) -> Int {
        let isUntroubled = minimumRTT < RTTEstimator.hostPath && !hasSeenCongestion
        let minimumBurst =
            (isUntroubled ? Self.untroubledBurstDatagrams : Self.minimumBurstDatagrams) * maximumDatagramSize
        guard let smoothedRTT, smoothedRTT > .zero else {
            rate = nil
            capacity = minimumBurst
            return window
        }
        let span = Double(max(smoothedRTT, RTTEstimator.minimumSample).rawValue)
        let rate = (isInSlowStart ? 2 : 1.25) * Double(window) / span
        self.rate = rate
        let inSpan = Int(min(Double(window / (isUntroubled ? 4 : 8)), rate * Double(Self.burstSpan.rawValue)))
        // Where a loss may be one of a link's short queue, only window and rate count.
        let bearsBatches = minimumRTT < Self.shortPathStep || !hasSeenCongestion
        let shortPathBurst = bearsBatches ? min(window / 4, Self.shortPathBurst(minimumRTT: minimumRTT)) : 0
        capacity = max(minimumBurst, inSpan, shortPathBurst)
        let limit = Double(capacity)
        if let tokens {
            let passed = Double(max(now - lastRefill, .zero).rawValue)
            self.tokens = min(tokens + passed * rate, limit)
        } else {
            tokens = limit
        }
        lastRefill = now
        return max(0, Int(tokens ?? 0))
    }

    private static func shortPathBurst(minimumRTT: Nanoseconds) -> Int {
        let steps = max(minimumRTT.rawValue, 0) / shortPathStep.rawValue
        return steps < 16 ? shortPathBurst >> Int(steps) : 0
    }

    /// Bytes have left. Packets that do not wait for the pacer are counted as well.
    mutating func sent(bytes: Int) {
        guard let tokens else { return }
        self.tokens = max(tokens - Double(bytes), -Double(capacity))
    }

    /// When so many bytes may leave, by the rate of the last `budget`; no sooner than `now`. More than the bucket holds is
    /// not waited for.
    func nextSendTime(now: Instant, bytes: Int) -> Instant {
        guard let rate, let tokens, rate > 0 else { return now }
        let missing = Double(min(bytes, capacity)) - tokens
        guard missing > 0 else { return now }
        // One nanosecond more rather than rounding up, which would need the C library's mathematics.
        let wait = missing / rate
        return max(lastRefill + Nanoseconds(wait < 9e18 ? Int64(wait) + 1 : .max), now)
    }

    /// Bursts are small from now on.
    mutating func congested() { hasSeenCongestion = true }

    /// Empties the bucket: what comes to a path, or comes back to it, starts at its rate and not with a burst.
    mutating func reset(now: Instant) {
        tokens = 0
        lastRefill = now
    }
}
