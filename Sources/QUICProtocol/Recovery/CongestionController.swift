// SPDX-License-Identifier: Apache-2.0

/// How the congestion window of a path grows and shrinks.
public enum CongestionAlgorithm: Sendable {
    /// RFC 9002, section 7.
    case newReno
    /// RFC 9438, with HyStart++ (RFC 9406) in slow start.
    case cubic
}

/// The congestion window of a path (RFC 9002, section 7). A plain value, so a path can put it by and take it up again.
struct CongestionController {
    /// No window is larger, whatever is acknowledged.
    static let maximumWindow = 1 << 32
    /// kMinimumWindow in datagrams (RFC 9002, section 7.2).
    static let minimumDatagrams = 2

    /// What congestion avoidance remembers.
    private enum Avoidance {
        /// Bytes acknowledged that did not yet make up a window.
        case newReno(credit: Int)
        case cubic(Cubic)
    }

    let algorithm: CongestionAlgorithm
    private(set) var maximumDatagramSize: Int
    /// Bytes that may be in flight.
    private(set) var window: Int
    /// `Int.max` until the first congestion event or the end of HyStart++.
    private(set) var slowStartThreshold = Int.max
    /// When the recovery period started: packets sent up to here neither grow the window nor shrink it again (RFC 9002,
    /// section 7.3.2).
    private(set) var recoveryStartedAt: Instant?
    private(set) var congestionEventCount = 0
    private var avoidance: Avoidance
    private var hyStart = HyStart()

    init(_ algorithm: CongestionAlgorithm, maximumDatagramSize: Int) {
        self.algorithm = algorithm
        self.maximumDatagramSize = maximumDatagramSize
        self.window = Self.initialWindow(maximumDatagramSize: maximumDatagramSize)
        self.avoidance = Self.freshAvoidance(algorithm)
    }

    private static func freshAvoidance(_ algorithm: CongestionAlgorithm) -> Avoidance {
        switch algorithm {
        case .newReno: .newReno(credit: 0)
        case .cubic: .cubic(Cubic())
        }
    }

    /// RFC 9002, section 7.2.
    static func initialWindow(maximumDatagramSize size: Int) -> Int { min(10 * size, max(14_720, 2 * size)) }

    var minimumWindow: Int { Self.minimumDatagrams * maximumDatagramSize }

    var isInSlowStart: Bool { window < slowStartThreshold }

    /// Whether a packet sent at that time belongs to the recovery period.
    func isInRecovery(sentAt: Instant) -> Bool { recoveryStartedAt.map { sentAt <= $0 } ?? false }

    /// Packets were acknowledged: once for each ACK frame.
    ///
    /// - Parameters:
    ///   - bytes: the bytes in flight among them that may grow the window: neither of packets of the recovery period nor of
    ///     packets that left while the window was not used up.
    ///   - sentAt: when the newest of the packets acknowledged was sent, whatever its kind.
    ///   - isAppLimited: the window was not used up: it does not grow (RFC 9002, section 7.8), nor does CUBIC's clock go.
    mutating func acknowledged(
        bytes: Int, sentAt: Instant, now: Instant, rtt: borrowing RTTEstimator, isAppLimited: Bool
    ) {
        if isInSlowStart, case .cubic = avoidance, slowStartThreshold == .max {
            // HyStart++ watches the first slow start only: later ones know their threshold.
            hyStart.acknowledged(sentAt: sentAt, rtt: rtt, now: now)
            if hyStart.isFinished { slowStartThreshold = window }
        }
        guard bytes > 0, !isInRecovery(sentAt: sentAt) else { return }
        if isInSlowStart {
            guard !isAppLimited else { return }
            grow(to: window + bytes / hyStart.growthDivisor)
            return
        }
        switch avoidance {
        case .newReno(var credit):
            guard !isAppLimited else { return }
            // Counting bytes (RFC 3465) rather than dividing keeps what a division would round away.
            credit += bytes
            let wanted = window
            if credit >= wanted {
                credit -= wanted
                grow(to: window + maximumDatagramSize)
            }
            avoidance = .newReno(credit: min(credit, window))
        case .cubic(var cubic):
            let larger = cubic.acknowledged(
                bytes: bytes, window: window, maximumDatagramSize: maximumDatagramSize, now: now,
                smoothedRTT: rtt.smoothed, isAppLimited: isAppLimited)
            avoidance = .cubic(cubic)
            grow(to: larger)
        }
    }

    private mutating func grow(to larger: Int) { window = min(max(window, larger), Self.maximumWindow) }

    /// Packets were lost, or the peer reports more CE marks: the window shrinks, once a round trip (RFC 9002, section
    /// 7.3.2).
    ///
    /// - Parameters:
    ///   - newestLostSentAt: when the newest packet was sent that was lost; for CE marks, the largest acknowledged.
    ///   - isECN: the sign was a CE mark. Both signs shrink the window alike (RFC 9002, section 7.1).
    /// - Returns: whether it shrank.
    @discardableResult
    mutating func congestionEvent(newestLostSentAt: Instant, now: Instant, isECN: Bool) -> Bool {
        guard !isInRecovery(sentAt: newestLostSentAt) else { return false }
        recoveryStartedAt = now
        congestionEventCount += 1
        let reduced: Int
        switch avoidance {
        case .newReno:
            reduced = window / 2
            avoidance = .newReno(credit: 0)
        case .cubic(var cubic):
            reduced = cubic.reduced(window: window)
            avoidance = .cubic(cubic)
        }
        slowStartThreshold = max(reduced, minimumWindow)
        window = slowStartThreshold
        hyStart.finish()
        return true
    }

    /// Everything over a long time was lost: slow start from the minimum window (RFC 9002, section 7.6.2).
    mutating func persistentCongestion(now: Instant) {
        window = minimumWindow
        recoveryStartedAt = nil
        // The window at which CUBIC last saw congestion means nothing on this path any more (RFC 9438, section 4.8).
        avoidance = Self.freshAvoidance(algorithm)
    }

    /// The path's datagram size was found out, or shrank. A window that never moved starts again from the new size
    /// (RFC 9002, section 7.2).
    mutating func setMaximumDatagramSize(_ size: Int) {
        let wasInitial =
            slowStartThreshold == .max && window == Self.initialWindow(maximumDatagramSize: maximumDatagramSize)
        maximumDatagramSize = size
        if wasInitial { window = Self.initialWindow(maximumDatagramSize: size) }
        window = max(window, minimumWindow)
        if slowStartThreshold != .max { slowStartThreshold = max(slowStartThreshold, minimumWindow) }
    }
}
