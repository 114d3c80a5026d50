// SPDX-License-Identifier: Apache-2.0

/// The instants from which a connection's deadlines are reckoned.
struct TimerState {
    /// When the idle timeout last started anew (RFC 9000, section 10.1).
    var idleRestartedAt: Instant = .zero
    /// An ack-eliciting packet was sent since the last one was received.
    var hasSentSinceReceived = false
    var lastReceivedAt: Instant = .zero
    var lastSentAt: Instant = .zero
    /// What is to be said exceeds what may be sent to an unproved address: only a datagram from there can change that.
    var isAmplificationBlocked = false
    /// When the pacer lets the next packet go, if data waits for it.
    var pacingDeadline: Instant?
    /// When the last probe timeout expired: the next is reckoned from there, should nothing have been sent.
    var lastProbeTimeoutAt: Instant = .zero
    /// The packet number from which on one is left out.
    var skipsPacketNumberAt: PacketNumber = 0
    /// Probe timeouts in a row; each doubles the next (RFC 9002, section 6.2.1).
    var probeTimeoutCount = 0
    /// How much later than doubled the next probe timeout is, in 128ths. Without it a network that changes in step with
    /// the doubling (a NAT that rebinds every 100 ms) could swallow each probe's answer.
    var probeTimeoutJitter: Int64 = 0
    /// When the silence began that is borne now: the last packet received, or the last PING into the silence.
    var silentSince: Instant = .zero
    /// How long a silence is borne before the next PING (M22); zero: a few round trips.
    var silenceInterval: Nanoseconds = .zero
    /// What sending and receiving take in memory was given back since the last packet.
    var isMemoryReleased = false
    /// Since when an answer on the active path is waited for; nil if none is. It begins anew with each sign of progress.
    var answerAwaitedSince: Instant?
    /// Of the peer's streams, when progress was last seen.
    var streamBytesAtProgress: UInt64 = 0
    /// The last packet received carried data of a stream: if nothing follows, data has stopped in mid-flow.
    var lastArrivalHadData = false
    /// The automatic policy has another network, and wants to hear of a silence before the path counts as degraded.
    var isWatchful = false
    var silence = SilenceWatch()
    /// Scratch for loss detection.
    var lossLimits: [PathLossLimit] = []

    mutating func received(now: Instant) {
        lastReceivedAt = now
        silentSince = now
        idleRestartedAt = now
        hasSentSinceReceived = false
        isMemoryReleased = false
    }

    /// The probe timeout after so many in a row.
    @inline(__always)
    func backedOff(_ timeout: Nanoseconds) -> Nanoseconds {
        guard probeTimeoutCount > 0 else { return timeout }
        let doubled = timeout * (Int64(1) << Int64(min(probeTimeoutCount, 16)))
        return doubled + doubled / 128 * probeTimeoutJitter
    }

    mutating func ackElicitingSent(now: Instant) {
        if !hasSentSinceReceived { idleRestartedAt = now }
        hasSentSinceReceived = true
    }
}

extension QUICConnection {
    /// When `handleDeadline` is to be called next, if nothing happens before; nil: not at all.
    public var nextDeadline: Instant? {
        switch state {
        case .closed:
            return nil
        case .closing, .draining:
            return closing.endsAt
        case .handshaking, .established:
            break
        }
        var earliest = idleDeadline
        func consider(_ instant: Instant?) {
            if let instant, instant < earliest { earliest = instant }
        }
        if !handshake.isComplete { consider(handshake.startedAt + configuration.handshakeTimeout) }
        consider(lossDeadline()?.instant)
        if canSendOnActivePath {
            for space in PacketNumberSpaceID.allCases where spaces.has(space) {
                consider(spaces[space].received.ackDeadline)
            }
            consider(timers.pacingDeadline)
            consider(pingDeadline)
        }
        consider(paths.nextDeadline)
        consider(preferred.abandonsHandshakeAddressAt)
        consider(progressDeadline)
        consider(protection.keyExpiry)
        consider(memoryReleaseAt)
        return earliest == .distantFuture ? nil : earliest
    }

    /// Does what is due. Call `transmit` and drain the events afterwards.
    public mutating func handleDeadline(now: Instant) {
        clock = now
        switch state {
        case .closed:
            return
        case .closing, .draining:
            if now >= closing.endsAt { state = .closed }
            return
        case .handshaking, .established:
            break
        }
        if now >= idleDeadline { return end(isPeerUnreachable ? .noViablePath : .idleTimeout, now: now) }
        if !handshake.isComplete, now >= handshake.startedAt + configuration.handshakeTimeout {
            return end(.handshakeTimeout, now: now)
        }
        if let (instant, timer) = lossDeadline(), now >= instant { lossDeadlineExpired(timer, now: now) }
        if let instant = timers.pacingDeadline, now >= instant { timers.pacingDeadline = nil }
        if let instant = pingDeadline, now >= instant { sendPing(now: now) }
        if let instant = progressDeadline, now >= instant { noteLackOfProgress(now: now) }
        pathDeadlineExpired(now: now)
        preferredAddressDeadlineExpired(now: now)
        protection.expireOldKeys(now: now)
        if let instant = memoryReleaseAt, now >= instant { releaseIdleMemory() }
    }

    /// When a connection that falls silent gives back what it needs only while it sends and receives.
    private var memoryReleaseAt: Instant? {
        guard !timers.isMemoryReleased, handshake.isConfirmed else { return nil }
        return max(timers.lastReceivedAt, timers.lastSentAt) + .seconds(1)
    }

    private mutating func releaseIdleMemory() {
        timers.isMemoryReleased = true
        spaces.releaseIdleMemory()
        streams.releaseIdleMemory()
        crypto.releaseIdleMemory()
        protection.releaseIdleMemory()
        ackOutcome.reset()
        ackOutcome.releaseMemory()
        frameLog.releaseMemory()
        timers.lossLimits = []
        if events.isEmpty { events = [] }
    }

    /// Whether anything could be sent on the active path, so that deadlines of sending are worth waking up for.
    var canSendOnActivePath: Bool {
        paths.active.state != .transportLost && paths.active.destinationID != nil && !timers.isAmplificationBlocked
    }

    // MARK: Idle timeout

    /// The timeout in force: the smaller of both sides', but three probe timeouts at least (RFC 9000, section 10.1).
    var idleTimeout: Nanoseconds? {
        var timeout = configuration.maxIdleTimeout
        let peers = peerParameters.maxIdleTimeout
        if peers > .zero, timeout == .zero || peers < timeout { timeout = peers }
        guard timeout > .zero else { return nil }
        return max(timeout, probeTimeout(in: .application) * 3)
    }

    /// What was sent stays without an answer, or cannot be sent: it is not for lack of news that nothing is heard (M21).
    private var isPeerUnreachable: Bool {
        switch paths.active.state {
        case .failed, .transportLost: true
        case .unvalidated, .validating, .validated: paths.active.hasSendError || timers.probeTimeoutCount > 0
        }
    }

    private var idleDeadline: Instant {
        idleTimeout.map { timers.idleRestartedAt + $0 } ?? .distantFuture
    }

    // MARK: Keep-alive and silence

    /// When a PING is due that nobody asked for: to keep a NAT's mapping, or because an awaited answer does not come.
    private var pingDeadline: Instant? {
        guard handshake.isConfirmed else { return nil }
        var deadline: Instant?
        if let interval = configuration.keepAliveInterval {
            deadline = max(timers.lastReceivedAt, timers.lastSentAt) + interval
        }
        // What is in flight has its own probe timeout.
        if role == .client, configuration.probesSilence, spaces.application.ackElicitingInFlight == 0,
            streams.isAwaitingPeerData || streams.isFlowControlBlocked
        {
            let silence = timers.silentSince + max(timers.silenceInterval, initialSilence)
            deadline = min(deadline ?? silence, silence)
        }
        return deadline
    }

    /// Three round trips, but enough that no clock's or scheduler's whim counts as silence. Where the policy may suspect the
    /// path, a probe timeout at most, so that a path that lives has answered before that.
    private var initialSilence: Nanoseconds {
        var silence = paths.active.recovery.rtt.smoothed * 3
        if timers.isWatchful { silence = min(silence, probeTimeout(in: .application)) }
        return max(silence, .milliseconds(20))
    }

    /// The longest pause between two PINGs into a silence.
    private static var longestSilence: Nanoseconds { .seconds(5) }

    private mutating func sendPing(now: Instant) {
        if timers.lastArrivalHadData, timers.answerAwaitedSince == nil, streams.isAwaitingPeerData {
            timers.answerAwaitedSince = max(timers.silentSince, now - initialSilence)
        }
        spaces.requestProbe(in: .application)
        // If it is credit that we wait for, say so again (RFC 9000, section 4.1).
        if streams.isFlowControlBlocked { streams.repeatBlockedFrames() }
        // The answer tells that the path lives, not that data comes: wait longer each time until some does.
        let longest: Nanoseconds = paths.active.hasSendError ? .milliseconds(250) : Self.longestSilence
        timers.silenceInterval = min(max(timers.silenceInterval, initialSilence) * 2, longest)
        timers.silentSince = now
        timers.lastSentAt = now
    }
}
