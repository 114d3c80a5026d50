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
        return nil
    }

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

    /// When the active path counts as degraded: four probe timeouts after what should have been answered (M35).
    var degradingDeadline: Instant? {
        guard handshake.isConfirmed, role == .client, !paths.active.isDegraded, canSendOnActivePath,
            let since = timers.answerAwaitedSince
        else { return nil }
        return since + probeTimeout(in: .application) * 4
    }

    mutating func noteDegrading() {
        paths.active.isDegraded = true
        events.append(.path(.degraded(paths.activeID)))
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
        guard paths.active.isDegraded else { return }
        paths.active.isDegraded = false
        events.append(.path(.recovered(paths.activeID)))
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
