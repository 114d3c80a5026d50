// SPDX-License-Identifier: Apache-2.0

extension QUICConnection {
    // MARK: Acknowledgements

    /// - Parameters:
    ///   - path: the path that the frame came on.
    mutating func receiveAck(
        _ ack: AckFrame, bytes: RawSpan, space: PacketNumberSpaceID, on path: PathID, now: Instant
    ) throws(TransportError) {
        ackOutcome.reset()
        let isNewest = spaces[space].largestAcknowledged.map { ack.largest > $0 } ?? true
        try spaces[space].beginAck(largest: ack.largest)
        var ranges = AckRangeReader(ack, in: bytes)
        while let range = ranges.next() {
            try spaces[space].acknowledge(range: range, outcome: &ackOutcome)
        }
        if space != .initial { handshake.peerCompletedAddressValidation = true }
        guard ackOutcome.acknowledged.count > 0 else { return }
        updateRTT(ack, space: space, arrivedOn: path, now: now)
        if space == .application, let largest = spaces.application.largestAcknowledged {
            protection.acknowledged(largest)
        }
        if space == .application, ecnReports.marksSent > 0, isNewest { receiveECNReport(ack.ecn, now: now) }
        resolve(in: space, now: now)
        // A client cannot tell from an Initial acknowledgement that the server can send freely (RFC 9002, section 6.2.1).
        if role == .server || handshake.peerCompletedAddressValidation {
            if timers.probeTimeoutCount > 0 { heardAfterTimeouts() }
            timers.probeTimeoutCount = 0
        }
        if space == .application, handshake.isConfirmed { reconsiderAckFrequency(now: now) }
    }

    @inline(__always)
    private mutating func reconsiderAckFrequency(now: Instant) {
        let index = paths.activeIndex
        ackFrequency.reconsider(
            window: paths[index].recovery.congestion.window, maximumDatagramSize: paths[index].maximumDatagramSize,
            isInSlowStart: paths[index].recovery.congestion.isInSlowStart,
            smoothedRTT: paths[index].recovery.rtt.smoothed, minimumRTT: paths[index].recovery.rtt.minimum, now: now)
        spaces.application.received.setRTT(paths[index].recovery.rtt.smoothed)
    }

    /// Takes a sample on the path that the largest packet was sent on, if the frame gives one (RFC 9000, section 9.4).
    private mutating func updateRTT(
        _ ack: AckFrame, space: PacketNumberSpaceID, arrivedOn arrival: PathID, now: Instant
    ) {
        let delay: Nanoseconds =
            space == .application
            ? RTTEstimator.ackDelay(encoded: ack.encodedDelay, exponent: peerParameters.ackDelayExponent) : .zero
        let isSampled =
            ackOutcome.largestNewlyAcknowledged.map { isRoundTrip(of: $0.path, andBackOn: arrival) } ?? false
        for index in 0..<paths.count {
            paths[index].recovery.acknowledgementReceived(
                ackOutcome, in: space, largest: ack.largest, ackDelay: delay, maxAckDelay: peerParameters.maxAckDelay,
                isHandshakeConfirmed: handshake.isConfirmed, isSampled: isSampled, now: now)
        }
    }

    /// Whether what was sent on one path and answered on another went round one network. The answer to a probe of a standby,
    /// which comes over the active path, tells of both of them; but an address that is not proved yet is the active path's
    /// own behind a NAT that has just rebound.
    @inline(__always)
    private func isRoundTrip(of path: PathID, andBackOn arrival: PathID) -> Bool {
        if path == arrival { return true }
        guard path == paths.activeID, let index = paths.index(of: arrival) else { return false }
        return !paths[index].isValidated
    }

    /// Finds what is lost, and draws the conclusions.
    private mutating func resolve(in space: PacketNumberSpaceID, now: Instant) {
        timers.lossLimits.removeAll(keepingCapacity: true)
        for index in 0..<paths.count { timers.lossLimits.append(paths[index].recovery.lossLimit(in: space)) }
        let limits = timers.lossLimits
        spaces[space].detectLoss(now: now, limits: limits.span, outcome: &ackOutcome)
        draw(conclusionsIn: space, now: now)
    }

    /// Lets the paths and the owners of frames know what became of the packets that `ackOutcome` names.
    private mutating func draw(conclusionsIn space: PacketNumberSpaceID, now: Instant) {
        let entersRecovery = applyOutcome(now: now)
        noteSizes(space: space)
        for index in 0..<ackOutcome.acknowledged.count {
            let packet = ackOutcome.acknowledged[index]
            for frame in packet.frames { frameAcknowledged(spaces[space].frame(at: frame), space: space) }
        }
        for index in 0..<ackOutcome.lost.count {
            let packet = ackOutcome.lost[index]
            for frame in packet.frames { sendAgain(spaces[space].frame(at: frame), space: space) }
        }
        if entersRecovery, space != .application, crypto[space.level].hasPendingData {
            // One packet may leave although the window shrinks (RFC 9002, section 7.3.2): 1-RTT packets, which the peer cannot
            // acknowledge before it has this data, may fill it.
            spaces.requestProbe(in: space)
        }
        spaces[space].releaseResolved()
    }

    /// A path is gone, and what was in flight on it with it.
    mutating func sendAgainWhatWasInFlight(onPathAt index: Int, now: Instant) {
        ackOutcome.reset()
        spaces.application.declareLost(path: paths[index].id, outcome: &ackOutcome)
        draw(conclusionsIn: .application, now: now)
    }

    /// Brings the paths' bytes in flight and congestion windows up to date with `ackOutcome`.
    ///
    /// - Returns: whether a loss begins a recovery period on any path.
    @discardableResult
    mutating func applyOutcome(now: Instant) -> Bool {
        var entersRecovery = false
        for index in 0..<paths.count {
            let change = paths[index].recovery.apply(ackOutcome, maxAckDelay: peerParameters.maxAckDelay, now: now)
            paths[index].statistics.packetsLost += UInt64(change.packetsLost)
            statistics.packetsLost += UInt64(change.packetsLost)
            if change.packetsAcknowledged > 0, index == paths.activeIndex { noteProgress(now: now) }
            if change.packetsLost > 0 { ackFrequency.disturbed(now: now, needsAnswer: false) }
            if change.isCongestionEvent { entersRecovery = true }
        }
        return entersRecovery
    }

    private mutating func frameAcknowledged(_ frame: SentFrame, space: PacketNumberSpaceID) {
        switch frame {
        case .stream, .resetStream, .stopSending, .maxData, .maxStreamData, .maxStreams, .dataBlocked,
            .streamDataBlocked,
            .streamsBlocked:
            streams.acknowledged(frame)
        case .ack(let largest):
            spaces[space].received.acknowledgementAcknowledged(largest: largest)
        case .crypto(let offset, let length):
            crypto[space.level].acknowledged(offset: offset, length: length)
        case .retireConnectionID(let sequence):
            remoteIDs.retirementAcknowledged(sequence)
        case .ping, .newConnectionID, .pathChallenge, .handshakeDone, .ackFrequency, .immediateAck:
            // A challenge is answered by its response, not by an acknowledgement (RFC 9000, section 8.2.2).
            break
        }
    }

    // MARK: Loss

    /// What a frame said is still to be said (RFC 9000, section 13.3).
    private mutating func sendAgain(_ frame: SentFrame, space: PacketNumberSpaceID) {
        switch frame {
        case .stream, .resetStream, .stopSending, .maxData, .maxStreamData, .maxStreams, .dataBlocked,
            .streamDataBlocked,
            .streamsBlocked:
            streams.lost(frame)
        case .crypto(let offset, let length):
            crypto[space.level].lost(offset: offset, length: length)
        case .newConnectionID(let sequence):
            localIDs.announcementLost(sequence)
        case .retireConnectionID(let sequence):
            remoteIDs.retirementLost(sequence)
        case .handshakeDone:
            handshake.isHandshakeDonePending = true
        case .ackFrequency(let sequence):
            ackFrequency.lost(sequence: sequence)
        case .ack, .ping, .pathChallenge, .immediateAck:
            // Acknowledgements go out anew; a challenge is repeated by its validator, with new data.
            break
        }
    }

    // MARK: Probe timeout

    /// The time without an acknowledgement after which the peer is probed, before backing off (RFC 9002, section 6.2.1).
    @inline(__always)
    func probeTimeout(in space: PacketNumberSpaceID) -> Nanoseconds {
        let maxAckDelay: Nanoseconds =
            space == .application && handshake.hasPeerParameters ? peerParameters.maxAckDelay : .zero
        return paths.active.recovery.rtt.pto(maxAckDelay: maxAckDelay)
    }

    /// The same with its backoff. However far that has gone, four probes leave within an idle timeout: a path that comes back
    /// in time must be noticed in time (RFC 9000, section 10.1.2).
    private func backedOffProbeTimeout(in space: PacketNumberSpaceID) -> Nanoseconds {
        let timeout = probeTimeout(in: space)
        guard timers.probeTimeoutCount > 0 else { return timeout }
        return min(timers.backedOff(timeout), max(timeout, (idleTimeout ?? .seconds(60)) / 4))
    }

    /// Old read keys are kept for three probe timeouts after a key update (RFC 9001, section 6.5).
    @inline(__always)
    var keyDiscardDelay: Nanoseconds { probeTimeout(in: .application) * 3 }

    /// The earlier of what the loss time and the probe timeout ask for, and what is to be done then (RFC 9002, A.8).
    func lossDeadline() -> (instant: Instant, kind: LossTimer)? {
        var loss: (Instant, LossTimer)?
        for space in PacketNumberSpaceID.allCases where spaces.has(space) {
            if let time = spaces[space].lossTime, loss.map({ time < $0.0 }) ?? true { loss = (time, .loss(space)) }
        }
        if let loss { return loss }
        // At the anti-amplification limit nothing could be sent (RFC 9002, section 6.2.2.1).
        guard isOpen(), canSendOnActivePath else { return nil }
        var earliest: (Instant, LossTimer)?
        for space in PacketNumberSpaceID.allCases where spaces.has(space) {
            guard space != .application || handshake.isConfirmed else { continue }
            // What was lost may wait for room in the congestion window, which 1-RTT packets fill that the peer cannot read yet:
            // only a probe, which needs no room, can go on from there (RFC 9002, section 7.5).
            let isHeldBack = !handshake.isConfirmed && crypto[space.level].hasPendingData
            guard spaces[space].ackElicitingInFlight > 0 || isHeldBack else { continue }
            let sent = spaces[space].timeOfLastAckElicitingSent ?? timers.lastSentAt
            let instant = max(sent, timers.lastProbeTimeoutAt) + backedOffProbeTimeout(in: space)
            if earliest.map({ instant < $0.0 }) ?? true { earliest = (instant, .probe(space)) }
        }
        if earliest == nil, role == .client, !handshake.isConfirmed {
            // The server may wait for more bytes before it may send (RFC 9002, section 6.2.2.1), even if it has acknowledged
            // a Handshake packet: it may have followed us to another address since (M19).
            let space: PacketNumberSpaceID = protection.canSeal(.handshake) ? .handshake : .initial
            earliest = (timers.lastSentAt + backedOffProbeTimeout(in: space), .probe(space))
        }
        return earliest
    }

    enum LossTimer {
        case loss(PacketNumberSpaceID)
        case probe(PacketNumberSpaceID)
    }

    mutating func lossDeadlineExpired(_ timer: LossTimer, now: Instant) {
        switch timer {
        case .loss(let space):
            ackOutcome.reset()
            resolve(in: space, now: now)
        case .probe(let space):
            // What the system refuses to send costs the network nothing: it need not be spared by backing off far.
            let isRefused = paths.active.hasSendError
            timers.probeTimeoutCount = isRefused ? min(timers.probeTimeoutCount + 1, 1) : timers.probeTimeoutCount + 1
            timers.probeTimeoutJitter = Int64(truncatingIfNeeded: random.next() % 32)
            statistics.probeTimeouts += 1
            if space == .application {
                if !isRefused { suspectSizeAndMarks() }
                ackFrequency.disturbed(now: now, needsAnswer: true)
            }
            // Two probes, so that the loss of one does not cost another timeout (RFC 9002, section 6.2.4).
            spaces.setProbes(2, in: space)
            resendOldest(in: space, packets: 2)
            // What one level lacks may be why the peer cannot acknowledge the other: without the Initial packets' keys it
            // reads no Handshake packet. And packets of the one may fill the congestion window for the other.
            for other in [PacketNumberSpaceID.initial, .handshake]
            where other != space && protection.canSeal(other.level)
                && (other == .handshake || crypto.initial.hasUnacknowledgedData)
            {
                spaces.requestProbe(in: other)
                resendOldest(in: other, packets: 1)
            }
            if space != .application, handshake.isComplete, !handshake.isConfirmed {
                // The server may be done and have no keys of the handshake left, and its HANDSHAKE_DONE may have gone to a NAT's
                // dead mapping: a 1-RTT packet is what it can still read (M19).
                spaces.requestProbe(in: .application)
                resendOldest(in: .application, packets: 1)
            }
            timers.lastSentAt = now
            timers.lastProbeTimeoutAt = now
        }
    }

    /// The peer is heard after a silence in which probe timeouts doubled and doubled: it may be back from where nothing
    /// reached it, so one more probe goes at once. The timeouts go on as they were, until something is acknowledged (RFC 9002,
    /// section 6.2.1).
    mutating func probeAfterSilence(now: Instant) {
        guard handshake.isConfirmed, spaces.application.ackElicitingInFlight > 0,
            now - timers.lastReceivedAt > probeTimeout(in: .application) * 2
        else { return }
        spaces.requestProbe(in: .application)
        resendOldest(in: .application, packets: 1)
    }

    /// Says again what the newest packets granted to the peer: limits of data and streams. It may wait for them, and who
    /// sends little else would hear of the loss only by a probe timeout.
    mutating func resendNewestGrants() {
        let space = PacketNumberSpaceID.application
        // With more in flight the peer gets enough to acknowledge that losses show soon.
        guard spaces[space].packetsInFlight <= Self.packetsWithGrants else { return }
        let end = spaces[space].nextPacketNumber
        var next = spaces[space].nextOutstanding(after: end - min(end, UInt64(Self.packetsWithGrants)))
        while let number = next {
            for index in spaces[space].outstandingPacket(number)?.frames ?? 0..<0 {
                let frame = spaces[space].frame(at: index)
                switch frame {
                case .maxData, .maxStreamData, .maxStreams: sendAgain(frame, space: space)
                default: break
                }
            }
            next = spaces[space].nextOutstanding(after: number)
        }
    }

    /// How far back grants are looked for, so that a peer that moves with each packet costs no more.
    private static var packetsWithGrants: Int { 64 }

    /// Marks what the oldest packets carried to be sent again. They stay in flight: they may yet be acknowledged.
    mutating func resendOldest(in space: PacketNumberSpaceID, packets count: Int) {
        if space != .application {
            crypto[space.level].retransmitAllUnacknowledged()
            return
        }
        var left = count
        var next = spaces[space].firstOutstanding
        while left > 0, let number = next {
            if let packet = spaces[space].outstandingPacket(number), packet.isAckEliciting {
                for frame in packet.frames { sendAgain(spaces[space].frame(at: frame), space: space) }
                left -= 1
            }
            next = spaces[space].nextOutstanding(after: number)
        }
    }
}

extension PacketNumberSpaceID {
    /// The level whose CRYPTO stream belongs to the space.
    var level: EncryptionLevel {
        switch self {
        case .initial: .initial
        case .handshake: .handshake
        case .application: .oneRTT
        }
    }
}

extension SentPacket {
    /// The indices of its frames in the space's log.
    var frames: Range<UInt64> { firstFrame..<firstFrame &+ UInt64(frameCount) }
}
