// SPDX-License-Identifier: Apache-2.0

/// The automatic policy's part of a connection (M35 to M38): whether it makes progress, and doing what the policy says.
extension QUICConnection {
    /// Whether any stream is open: a connection without is idle to the policy (M38).
    public var hasOpenStreams: Bool { streams.activeStreamCount > 0 }

    /// Does what the policy wants of the connection, until it wants something of the owner of the sockets. Call it until it
    /// returns nil.
    public mutating func nextErrand(of policy: inout MigrationPolicyEngine, now: Instant) -> PolicyErrand? {
        clock = now
        while let action = policy.actions.popFirst() {
            switch action {
            case .open(let candidate, let network):
                return .open(candidate, network)
            case .probe(let path, let timeout):
                do throws(MigrationError) {
                    try probe(path, timeout: timeout, now: now)
                } catch {
                    policy.handle(.failed(path, .noResponse), now: now) { _ in nil }
                }
            case .switchTo(let path, let withoutValidation):
                do throws(MigrationError) {
                    try switchPath(to: path, withoutValidation: withoutValidation, reason: .policy, now: now)
                    policy.switched(to: path, succeeded: true, now: now)
                } catch {
                    policy.switched(to: path, succeeded: false, now: now)
                }
            case .resume:
                resumeSending(now: now)
            case .discard(let candidate, let path):
                // The socket of a path that carries the data stays, whatever the policy takes for the active one.
                if let path, path == activePath { continue }
                if let path { try? closePath(path, now: now) }
                return .close(candidate)
            case .giveUp:
                end(
                    .transport(TransportError(.noViablePath, "there was no network for too long"), byPeer: false),
                    now: now)
            }
        }
        timers.isWatchful = policy.heedsSuspicions(now)
        return nil
    }

    /// The policy has no say any more: silence on the active path is nobody's business before it counts as degraded.
    public mutating func policyEnded() { timers.isWatchful = false }

    /// The network is back: say so at once, rather than when the next probe is due.
    private mutating func resumeSending(now: Instant) {
        guard isOpen() else { return }
        timers.probeTimeoutCount = 0
        timers.silenceInterval = .zero
        spaces.requestProbe(in: .application)
    }

    // MARK: Progress

    /// How long the active path's answer to a packet is waited for before another is sent, without any backoff (RFC 9002,
    /// section 6.2.1): the unit of the policy's patience.
    public var probeTimeout: Nanoseconds { probeTimeout(in: .application) }

    /// When the lack of progress on the active path is to be acted upon next: reckoned from what should have been answered
    /// first. Four probe timeouts and it counts as degraded (M35); a watchful policy has it asked and suspected before.
    var progressDeadline: Instant? {
        guard handshake.isConfirmed, role == .client, !paths.active.isDegraded, canSendOnActivePath,
            let since = timers.answerAwaitedSince
        else { return nil }
        let quarters = timers.isWatchful ? timers.silence.nextQuarter : SilenceWatch.degraded
        return since + probeTimeout(in: .application) * quarters / 4
    }

    mutating func noteLackOfProgress(now: Instant) {
        // The probe timeout may have become shorter meanwhile, so that several quarters have passed at once.
        let since = timers.answerAwaitedSince ?? now
        let quarter = max(probeTimeout(in: .application).rawValue / 4, 1)
        timers.silence.skip(toQuarter: (now - since).rawValue / quarter)
        guard timers.isWatchful, timers.silence.nextQuarter < SilenceWatch.degraded else {
            paths.active.isDegraded = true
            return events.append(.path(.degraded(paths.activeID)))
        }
        if timers.silence.isSuspectedNow() { events.append(.path(.suspected(paths.activeID))) }
        if timers.silence.isSilentNow(unanswered: paths.active.recovery.ackElicitingInFlight) {
            events.append(.path(.silent(paths.activeID)))
        }
        timers.silence.nextQuarter += 1
        // Asked but once, the path would be condemned for two lost packets. No probe timeout has expired that would allow to
        // exceed the congestion window (RFC 9002, section 7); if that is full, there is enough that could be answered.
        guard paths.active.recovery.canSend(bytes: paths.active.maximumDatagramSize) else { return }
        spaces.requestProbe(in: .application)
        resendOldest(in: .application, packets: 1)
    }

    /// A packet came on a path: progress if it brought what is new to the streams, or if nothing else is waited for.
    @inline(__always)
    mutating func noteArrival(on id: PathID, hasStreamData: Bool, now: Instant) {
        timers.lastArrivalHadData = hasStreamData
        guard timers.answerAwaitedSince != nil, role == .client, id == paths.activeID else { return }
        let total = streams.totals.bytesReceived
        guard paths.active.recovery.ackElicitingInFlight == 0 || total != timers.streamBytesAtProgress else { return }
        timers.streamBytesAtProgress = total
        noteProgress(now: now)
    }

    /// Something sent on the active path was acknowledged, or something came there that was waited for.
    mutating func noteProgress(now: Instant) {
        timers.answerAwaitedSince = paths.active.recovery.ackElicitingInFlight > 0 ? now : nil
        let wasSuspected = timers.silence.isSuspected
        timers.silence = SilenceWatch()
        guard wasSuspected || paths.active.isDegraded else { return }
        paths.active.isDegraded = false
        events.append(.path(.recovered(paths.activeID)))
    }
}

/// How far the silence on the active path has gone where the policy is watchful (decision 31), in quarters of a probe timeout
/// since what should have been answered: from the fourth on the path is asked at each.
struct SilenceWatch {
    private static let suspected: Int64 = 8
    private static let silent: Int64 = 12
    static let degraded: Int64 = 16
    /// Packets without an answer that are worth more than chance. A congestion window that losses have made small holds fewer.
    private static let leastUnanswered = 6

    var nextQuarter: Int64 = 4
    private(set) var isSuspected = false
    private var isSilent = false

    mutating func skip(toQuarter passed: Int64) {
        nextQuarter = min(max(nextQuarter, passed), Self.degraded)
    }

    /// True once.
    mutating func isSuspectedNow() -> Bool {
        guard !isSuspected, nextQuarter >= Self.suspected else { return false }
        isSuspected = true
        return true
    }

    /// True once.
    mutating func isSilentNow(unanswered count: Int) -> Bool {
        guard !isSilent, nextQuarter >= Self.silent, count >= Self.leastUnanswered else { return false }
        isSilent = true
        return true
    }
}

/// What the automatic policy wants of the owner of the sockets.
public enum PolicyErrand: Hashable, Sendable {
    /// Open a socket on the network, add a path over it and answer with `MigrationPolicyEngine.opened`, or with
    /// `openingFailed`.
    case open(MigrationPolicyEngine.CandidateID, NetworkID)
    /// Close the socket that was opened for the candidate, if one was.
    case close(MigrationPolicyEngine.CandidateID)
}
