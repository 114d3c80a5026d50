// SPDX-License-Identifier: Apache-2.0

/// What a path knows of its network: RTT, congestion window, pace, and the bytes in flight. It lives and goes with its
/// path; a path that is left keeps it for the day it is taken up again.
struct PathRecovery {
    /// No backoff doubles the PTO more often.
    static let maximumBackoff = 20

    /// The name of the path: packets are told apart by it.
    let path: PathID
    var rtt: RTTEstimator
    var congestion: CongestionController
    var pacer = Pacer()
    /// Bytes of the packets in flight that were sent on the path.
    private(set) var bytesInFlight = 0
    /// Ack-eliciting packets outstanding on the path, of all spaces.
    private(set) var ackElicitingInFlight = 0
    private(set) var timeOfLastAckElicitingSent: Instant?
    /// When the first RTT sample was taken, before which there is no persistent congestion (RFC 9002, section 7.6.2).
    private(set) var firstRTTSampleAt: Instant?
    /// Consecutive probe timeouts without an acknowledgement.
    var ptoCount = 0
    /// The RTT was set from the path's validation: good enough to pace by.
    private var isRTTSeeded = false
    /// The largest number acknowledged of the packets sent on the path, by space.
    private var largestAcknowledged = InlineArray<3, PacketNumber?>(repeating: nil)
    /// When sending last stopped at the window, or close to it, although data was waiting. The acknowledgement of a packet
    /// sent up to here shows that the network bears the window; later ones show only what the application sent.
    private var lastLimitedAt: Instant?

    /// - Parameters:
    ///   - initialRTT: what is assumed of the path before a sample. It sets timeouts, and no pace.
    init(
        path: PathID, algorithm: CongestionAlgorithm, maximumDatagramSize: Int,
        initialRTT: Nanoseconds = RTTEstimator.defaultInitial
    ) {
        self.path = path
        self.rtt = RTTEstimator(initial: initialRTT)
        self.congestion = CongestionController(algorithm, maximumDatagramSize: maximumDatagramSize)
    }

    /// Starts again as on a network of which nothing is known (RFC 9000, section 9.4). What is in flight still is.
    mutating func reset(now: Instant, initialRTT: Nanoseconds = RTTEstimator.defaultInitial) {
        rtt.reset(initial: initialRTT)
        isRTTSeeded = false
        congestion = CongestionController(
            congestion.algorithm, maximumDatagramSize: congestion.maximumDatagramSize)
        pacer = Pacer()
        pacer.reset(now: now)
        firstRTTSampleAt = nil
        lastLimitedAt = nil
        ptoCount = 0
    }

    /// The same network under another address, as after a port-only rebinding: RTT and window go on, while the packets in
    /// flight stay with the path that they were sent on (RFC 9000, section 9.4).
    func continued(on path: PathID, now: Instant) -> PathRecovery {
        var copy = PathRecovery(
            path: path, algorithm: congestion.algorithm, maximumDatagramSize: congestion.maximumDatagramSize)
        copy.rtt = rtt
        copy.congestion = congestion
        copy.firstRTTSampleAt = firstRTTSampleAt
        copy.isRTTSeeded = isRTTSeeded
        if pacer.hasSeenCongestion { copy.pacer.congested() }
        copy.pacer.reset(now: now)
        return copy
    }

    /// Goes on with another path's RTT and window, while the packets in flight here stay: the peer moved to a path that it
    /// had probed before.
    mutating func takeOver(_ other: PathRecovery, now: Instant) {
        var copy = other.continued(on: path, now: now)
        copy.bytesInFlight = bytesInFlight
        copy.ackElicitingInFlight = ackElicitingInFlight
        copy.timeOfLastAckElicitingSent = timeOfLastAckElicitingSent
        copy.largestAcknowledged = largestAcknowledged
        self = copy
    }

    /// Takes what the path's validation took for its RTT, until there is a sample. Afterwards it is one more sample if both
    /// challenge and response took the path: of a standby, whose packets are acknowledged elsewhere, there are no others.
    mutating func pathAnswered(after delay: Nanoseconds, isRoundTrip: Bool) {
        guard !rtt.hasSample else {
            if isRoundTrip {
                rtt.update(sample: delay, ackDelay: .zero, maxAckDelay: .zero, isHandshakeConfirmed: true)
            }
            return
        }
        rtt.setInitial(delay)
        isRTTSeeded = true
    }

    // MARK: Sending

    /// Whether the congestion window has room for a packet.
    func canSend(bytes: Int) -> Bool { bytesInFlight + bytes <= congestion.window }

    /// How many bytes may leave now: the room in the window, as far as the pacer lets it go.
    mutating func allowance(now: Instant) -> Int {
        let room = max(0, congestion.window - bytesInFlight)
        let budget = pacer.budget(
            now: now, window: congestion.window,
            smoothedRTT: rtt.hasSample || isRTTSeeded ? rtt.smoothed : nil,
            minimumRTT: rtt.minimum, maximumDatagramSize: congestion.maximumDatagramSize,
            isInSlowStart: congestion.isInSlowStart)
        return min(room, budget)
    }

    /// Call it when `allowance` stopped sending while data was waiting: it says when to go on.
    ///
    /// - Returns: when the pacer lets a batch go; nil if the window is full and only an acknowledgement makes room.
    mutating func sendingStopped(now: Instant) -> Instant? {
        if isWindowInUse { lastLimitedAt = now }
        let size = congestion.maximumDatagramSize
        guard canSend(bytes: size) else { return nil }
        let room = congestion.window - bytesInFlight
        return pacer.nextSendTime(now: now, bytes: max(size, min(pacer.preferredBatch, room)))
    }

    /// Whether a stop of the pacer's is one of the window's, too: a sender that would fill the window without the pacer is
    /// limited by it (RFC 9002, section 7.8). One that sends bursts of its own, which the pacer spreads and which leave most
    /// of the window empty, is not; its window would grow with each of them. In slow start half a window is enough, for it
    /// doubles while it is being filled.
    private var isWindowInUse: Bool {
        congestion.isInSlowStart
            ? bytesInFlight >= congestion.window / 2 : bytesInFlight >= congestion.window - congestion.window / 4
    }

    /// A packet leaves on the path.
    mutating func packetSent(time: Instant, size: Int, isAckEliciting: Bool, isInFlight: Bool) {
        guard isInFlight else { return }
        bytesInFlight += size
        pacer.sent(bytes: size)
        if isAckEliciting {
            ackElicitingInFlight += 1
            timeOfLastAckElicitingSent = time
        }
        if !canSend(bytes: congestion.maximumDatagramSize) { lastLimitedAt = time }
    }

    /// The probe timeout with its backoff (RFC 9002, section 6.2.1).
    func probeTimeout(maxAckDelay: Nanoseconds) -> Nanoseconds {
        rtt.pto(maxAckDelay: maxAckDelay) * (1 << Int64(min(max(ptoCount, 0), Self.maximumBackoff)))
    }

    // MARK: Acknowledgements and losses

    /// How the packets of the path are judged in a space.
    func lossLimit(in space: PacketNumberSpaceID) -> PathLossLimit {
        PathLossLimit(
            path: path, largestAcknowledged: largestAcknowledged[Int(space.rawValue)], lossDelay: rtt.lossDelay)
    }

    /// Takes the RTT and the largest number out of an acknowledgement, before losses are detected.
    ///
    /// - Parameters:
    ///   - largest: the frame's Largest Acknowledged.
    ///   - ackDelay: the frame's delay; zero for the Initial space.
    ///   - isSampled: the time that the largest packet took is one of its path.
    mutating func acknowledgementReceived(
        _ outcome: borrowing AckOutcome, in space: PacketNumberSpaceID, largest: PacketNumber, ackDelay: Nanoseconds,
        maxAckDelay: Nanoseconds, isHandshakeConfirmed: Bool, isSampled: Bool = true, now: Instant
    ) {
        for index in outcome.largestByPath.indices where outcome.largestByPath[index].path == path {
            let number = outcome.largestByPath[index].number
            let slot = Int(space.rawValue)
            largestAcknowledged[slot] = max(largestAcknowledged[slot] ?? number, number)
        }
        guard isSampled, let (samplePath, sample) = outcome.rttSample(largest: largest, now: now), samplePath == path
        else { return }
        rtt.update(
            sample: sample, ackDelay: ackDelay, maxAckDelay: maxAckDelay, isHandshakeConfirmed: isHandshakeConfirmed)
        firstRTTSampleAt = firstRTTSampleAt ?? now
    }

    /// What an outcome meant for the path.
    struct Change {
        var packetsAcknowledged = 0
        var bytesAcknowledged = 0
        /// Without MTU probes.
        var packetsLost = 0
        var isCongestionEvent = false
        var isPersistentCongestion = false
    }

    /// Takes the packets of an outcome that were sent on this path out of the bytes in flight, and lets the congestion
    /// window move.
    ///
    /// - Parameters:
    ///   - maxAckDelay: the peer's, whatever the space (RFC 9002, section 7.6.1).
    @discardableResult
    mutating func apply(_ outcome: borrowing AckOutcome, maxAckDelay: Nanoseconds, now: Instant) -> Change {
        var change = Change()
        applyLosses(outcome, maxAckDelay: maxAckDelay, now: now, change: &change)
        for index in outcome.discarded.indices where outcome.discarded[index].path == path {
            leaveFlight(outcome.discarded[index])
        }
        applyAcknowledgements(outcome, now: now, change: &change)
        return change
    }

    private mutating func applyLosses(
        _ outcome: borrowing AckOutcome, maxAckDelay: Nanoseconds, now: Instant, change: inout Change
    ) {
        var newestLost: Instant?
        var periodStart: Instant?
        var longestPeriod = Nanoseconds.zero
        for index in outcome.lost.indices where outcome.lost[index].path == path {
            let packet = outcome.lost[index]
            leaveFlight(packet)
            if packet.followsAcknowledged { periodStart = nil }
            if packet.isMTUProbe { continue }
            change.packetsLost += 1
            if packet.isOverdue { continue }
            newestLost = max(newestLost ?? packet.timeSent, packet.timeSent)
            guard packet.isAckEliciting, let first = firstRTTSampleAt, packet.timeSent > first else { continue }
            if let start = periodStart {
                longestPeriod = max(longestPeriod, packet.timeSent - start)
            } else {
                periodStart = packet.timeSent
            }
        }
        guard let newestLost else { return }
        pacer.congested()
        change.isCongestionEvent = congestion.congestionEvent(newestLostSentAt: newestLost, now: now, isECN: false)
        if longestPeriod > rtt.persistentCongestionDuration(maxAckDelay: maxAckDelay) {
            congestion.persistentCongestion(now: now)
            rtt.restartMinimum()
            change.isPersistentCongestion = true
        }
    }

    private mutating func applyAcknowledgements(
        _ outcome: borrowing AckOutcome, now: Instant, change: inout Change
    ) {
        var newest: Instant?
        var bytesThatGrow = 0
        var bytesOutsideRecovery = 0
        for index in outcome.acknowledged.indices where outcome.acknowledged[index].path == path {
            let packet = outcome.acknowledged[index]
            change.packetsAcknowledged += 1
            guard packet.isInFlight else { continue }
            leaveFlight(packet)
            let size = Int(packet.size)
            change.bytesAcknowledged += size
            newest = max(newest ?? packet.timeSent, packet.timeSent)
            guard !congestion.isInRecovery(sentAt: packet.timeSent) else { continue }
            bytesOutsideRecovery += size
            if let lastLimitedAt, packet.timeSent <= lastLimitedAt { bytesThatGrow += size }
        }
        guard let newest else { return }
        let isAppLimited = bytesThatGrow == 0
        congestion.acknowledged(
            bytes: isAppLimited ? bytesOutsideRecovery : bytesThatGrow, sentAt: newest, now: now, rtt: rtt,
            isAppLimited: isAppLimited)
    }

    private mutating func leaveFlight(_ packet: SentPacket) {
        guard packet.isInFlight else { return }
        assert(bytesInFlight >= Int(packet.size), "a packet left flight twice")
        bytesInFlight = max(0, bytesInFlight - Int(packet.size))
        if packet.isAckEliciting { ackElicitingInFlight = max(0, ackElicitingInFlight - 1) }
    }
}
