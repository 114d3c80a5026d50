// SPDX-License-Identifier: Apache-2.0

/// The round-trip time of a path (RFC 9002, section 5), and the timeouts that follow from it.
struct RTTEstimator {
    /// What is assumed before the first sample (RFC 9002, section 6.2.2).
    static let defaultInitial = Nanoseconds.milliseconds(333)
    /// kGranularity: no timeout is shorter (RFC 9002, section 6.1.2).
    static let granularity = Nanoseconds.milliseconds(1)
    /// No sample is shorter, so that rates derived from it are finite.
    static let minimumSample = Nanoseconds.microseconds(1)
    /// On a path of less than that, hosts take most of the time, and batches save it (decision 0016).
    static let hostPath = Nanoseconds.milliseconds(5)

    /// The newest sample, with the peer's delay in it.
    private(set) var latest: Nanoseconds
    private(set) var smoothed: Nanoseconds
    private(set) var variation: Nanoseconds
    /// The least sample; never corrected by what the peer says about its delay.
    private(set) var minimum: Nanoseconds
    /// How many samples there were; so a reader can see whether `latest` is new to it.
    private(set) var sampleCount: UInt32 = 0

    /// - Parameters:
    ///   - initial: what is known of the path before a sample, for instance the delay of a PATH_RESPONSE.
    init(initial: Nanoseconds = Self.defaultInitial) {
        let initial = max(initial, Self.minimumSample)
        self.latest = initial
        self.smoothed = initial
        self.variation = initial / 2
        self.minimum = initial
    }

    var hasSample: Bool { sampleCount > 0 }

    /// Takes a sample in.
    ///
    /// - Parameters:
    ///   - sample: from the sending of the largest packet acknowledged to now.
    ///   - ackDelay: what the peer says it waited; any value is safe. Zero for Initial packets.
    ///   - maxAckDelay: the peer's max_ack_delay, which limits `ackDelay` once the handshake is confirmed.
    mutating func update(
        sample: Nanoseconds, ackDelay: Nanoseconds, maxAckDelay: Nanoseconds, isHandshakeConfirmed: Bool
    ) {
        latest = max(sample, Self.minimumSample)
        guard hasSample else {
            sampleCount = 1
            minimum = latest
            smoothed = latest
            variation = latest / 2
            return
        }
        sampleCount &+= 1
        if sampleCount == 0 { sampleCount = 1 }
        minimum = min(minimum, latest)
        var delay = max(ackDelay, .zero)
        if isHandshakeConfirmed { delay = min(delay, max(maxAckDelay, .zero)) }
        // Never below the minimum: so a peer that lies about its delay cannot make the path look faster than it is.
        let adjusted = latest >= minimum + delay ? latest - delay : latest
        let deviation = smoothed > adjusted ? smoothed - adjusted : adjusted - smoothed
        variation = (variation * 3 + deviation) / 4
        smoothed = (smoothed * 7 + adjusted) / 8
    }

    /// The probe timeout without backoff (RFC 9002, section 6.2.1). `maxAckDelay` is zero for the Initial and Handshake
    /// spaces.
    func pto(maxAckDelay: Nanoseconds) -> Nanoseconds {
        smoothed + max(variation * 4, Self.granularity) + max(maxAckDelay, .zero)
    }

    /// How long a packet may stay behind one sent later before it counts as lost (RFC 9002, section 6.1.2).
    var lossDelay: Nanoseconds {
        let rtt = max(smoothed, latest)
        return max(rtt + rtt / 8, Self.granularity)
    }

    /// Over how long everything must be lost to be persistent congestion (RFC 9002, section 7.6.1).
    func persistentCongestionDuration(maxAckDelay: Nanoseconds) -> Nanoseconds {
        pto(maxAckDelay: maxAckDelay) * 3
    }

    /// Lets the minimum start again from the newest sample, after persistent congestion (RFC 9002, section 5.2).
    mutating func restartMinimum() { minimum = latest }

    /// Forgets all samples, as for a path whose other end moved (RFC 9000, section 9.4).
    mutating func reset(initial: Nanoseconds = Self.defaultInitial) { self = RTTEstimator(initial: initial) }

    /// Sets what is assumed of the path as long as it has no sample (RFC 9002, section 6.2.2).
    mutating func setInitial(_ initial: Nanoseconds) {
        if !hasSample { reset(initial: initial) }
    }

    /// The ACK Delay field as a span of time (RFC 9000, section 19.3). No value overflows.
    static func ackDelay(encoded: UInt64, exponent: UInt64) -> Nanoseconds {
        let (microseconds, overflow) = encoded.multipliedReportingOverflow(by: 1 << min(exponent, 20))
        guard !overflow, let value = Int64(exactly: microseconds) else { return .max }
        return .microseconds(value)
    }
}
