// SPDX-License-Identifier: Apache-2.0

/// What became of the peer's moves to addresses that were not proved ahead.
struct PeerMoves {
    /// Moves in a row whose address was never proved, after which the peer is followed to no address before it is proved, and
    /// the connection ends if there is none to go back to: somebody uses it to have us send to others (M41).
    static let maximumFailed = 5

    /// The path that the peer was followed to last, until its validation succeeds or fails.
    var unproved: PathID?
    /// Moves in a row that failed.
    var failed = 0
}

/// Following a peer that moves, and proving paths (RFC 9000, sections 8.2 and 9; `M10` to `M18`).
extension QUICConnection {
    /// The path that an authenticated packet came on, which is made if it is new.
    ///
    /// - Returns: nil if nothing may come from there.
    mutating func arrivalPath(_ arrival: Arrival) -> Int? {
        if let index = paths.index(of: arrival.tuple) { return index }
        guard role == .server else {
            guard let index = wildcardPath(for: arrival.tuple) else { return nil }
            paths[index].tuple = arrival.tuple
            return index
        }
        guard mayFollowPeer(to: arrival.tuple.remote) else { return nil }
        if paths.isFull {
            guard let index = paths.indexToEvict() else { return nil }
            removePath(at: index)
        }
        // The peer's address may be proved already, and only ours be another.
        let isProved = paths.contains(validatedRemote: arrival.tuple.remote)
        let index = paths.add(
            arrival.tuple, amplification: AmplificationBudget(isLifted: isProved),
            congestionControl: configuration.congestionControl,
            maximumDatagramSize: ConnectionConfiguration.minimumUDPPayload, now: arrival.now)
        paths[index].amplification.datagramReceived(arrival.datagramSize)
        events.append(.path(.added(paths[index].id)))
        return index
    }

    /// Whether the peer may be answered at an address that it was not heard from before (M41).
    private func mayFollowPeer(to address: NetworkAddress) -> Bool {
        if AddressPolicy.refusal(of: address, knownAs: paths.active.tuple.remote) == nil { return true }
        for index in 0..<paths.count
        where paths[index].isValidated
            && AddressPolicy.refusal(of: address, knownAs: paths[index].tuple.remote) == nil
        {
            return true
        }
        return false
    }

    /// A packet was taken in on a path: the peer may have moved there.
    ///
    /// - Parameters:
    ///   - isHighest: no packet with a higher number was seen before in its space (M10).
    mutating func packetArrived(
        on id: PathID, level: EncryptionLevel, isHighest: Bool, isProbing: Bool, now: Instant
    ) {
        guard let index = paths.index(of: id) else { return }
        paths[index].lastUsed = now
        paths[index].lastHeard = now
        guard role == .server, !isPiledUp else { return }
        if index == paths.activeIndex {
            // Who is heard again where a validation had failed gets another chance.
            if level == .oneRTT { proveActivePath(now: now) }
            if isHighest, !isProbing { preferred.awaitedMove = nil }
        } else if level == .oneRTT, isProbing {
            // Probes over a slow network are overtaken by what goes over the one in use.
            prepareProof(ofPathAt: index, now: now)
        } else if isHighest {
            if mustProveBeforeFollowing(toPathAt: index) {
                if level == .oneRTT { awaitProof(ofPathAt: index, now: now) }
            } else if level == .oneRTT || !handshake.isComplete {
                followPeer(toPathAt: index, now: now)
            }
        }
    }

    /// So much is out that was never acknowledged that the peer means to have it pile up: four times what the largest window
    /// holds. Moves and challenges have packets sent beyond any window, so they are ignored by then. One that acknowledges does
    /// not come here: what its moves leave behind is acknowledged or lost in a few round trips (M40).
    private var isPiledUp: Bool {
        let count = spaces.application.packetsInFlight
        guard count > Self.packetsWithoutQuestion else { return false }
        var window = 0
        for index in 0..<paths.count { window = max(window, paths[index].recovery.congestion.window) }
        return count > 4 * window / ConnectionConfiguration.minimumUDPPayload
    }

    /// Fewer packets in flight never count as piled up.
    static var packetsWithoutQuestion: Int { 1 << 13 }

    /// The peer probes a path, and may soon move to it: prove it ahead, under IDs of its own (RFC 9000, section 9.1).
    mutating func prepareProof(ofPathAt index: Int, now: Instant) {
        giveConnectionID(toPathAt: index)
        if paths[index].state == .unvalidated {
            startValidation(ofPathAt: index, now: now)
        }
    }

    /// The peer is at another address now: adopt it at once and prove it under way (M11).
    private mutating func followPeer(toPathAt index: Int, now: Instant) {
        let oldIndex = paths.activeIndex
        let old = paths[oldIndex]
        let isToPreferredAddress = old.tuple.local != paths[index].tuple.local
        let isPortOnly = old.tuple.remote.hasSameIP(as: paths[index].tuple.remote) && !isToPreferredAddress
        let isNew = !paths[index].wasActive
        if isNew, isPortOnly {
            // The same network by another port of the NAT's: RTT and congestion state stay (M12, RFC 9000, section 9.4).
            paths[index].recovery.takeOver(old.recovery, now: now)
            paths[index].mtu = old.mtu.continued()
            paths[index].ecn = old.ecn
        } else if isNew {
            setMaximumDatagramSize(
                handshake.isComplete ? initialDatagramSize : old.maximumDatagramSize, ofPathAt: index)
        } else {
            events.append(.path(.restored(paths[index].id)))
        }
        chooseConnectionID(ofPathAt: index, movedFrom: oldIndex)
        statistics.peerMoves += 1
        let isSameAddress = isToPreferredAddress && old.tuple.remote == paths[index].tuple.remote
        let move: PeerMove = isPortOnly ? .portOnly : isSameAddress ? .preferredAddress : .address
        events.append(.path(.peerMoved(from: old.id, to: paths[index].id, move)))
        preferred.awaitedMove = nil
        activate(index, reason: isToPreferredAddress ? .preferredAddress : .peerMoved)
        moves.unproved = paths.active.isValidated ? nil : paths.activeID
        proveActivePath(now: now)
        // An attacker may have raced a copied packet ahead: whoever is at the old address can then answer (M14, section 9.3.3).
        if old.isValidated, !old.validator.isRunning || old.isProvingSize, handshake.isComplete {
            paths[oldIndex].isProvingSize = false
            startValidation(ofPathAt: oldIndex, now: now)
        }
        // The packet that moved the peer may have closed the old path as well.
        if let sequence = old.localIDSequence, localIDs.isRetired(sequence) { forgetPaths(usingLocalID: sequence) }
    }

    /// Starts the validation of the active path, unless it is proved or under way.
    mutating func proveActivePath(now: Instant) {
        let index = paths.activeIndex
        guard handshake.isComplete, !paths[index].isValidated, !paths[index].validator.isRunning,
            paths[index].state != .transportLost
        else { return }
        startValidation(ofPathAt: index, now: now)
    }

    /// Starts a validation that nobody set a limit for.
    mutating func startValidation(ofPathAt index: Int, now: Instant) {
        paths[index].beginValidation(now: now, interval: challengeInterval, timeout: validationTimeout(ofPathAt: index))
    }

    /// Starts to prove that a path bears 1,200 bytes, or starts anew where nothing could be sent for a while: what did not go
    /// out says nothing about sizes.
    mutating func startSizeProof(ofPathAt index: Int, now: Instant) {
        startValidation(ofPathAt: index, now: now)
        paths[index].isProvingSize = true
    }

    /// When a validation that nobody set a limit for fails (RFC 9000, section 8.2.4).
    private func validationTimeout(ofPathAt index: Int) -> Nanoseconds {
        let current = probeTimeout(in: .application)
        let initial = RTTEstimator(initial: configuration.initialRTT).pto(maxAckDelay: peerParameters.maxAckDelay)
        return max(current, paths[index].recovery.rtt.pto(maxAckDelay: peerParameters.maxAckDelay), initial) * 3
    }

    // MARK: Challenges

    mutating func receivePathChallenge(_ data: UInt64, on id: PathID) {
        guard let index = paths.index(of: id) else { return }
        paths[index].statistics.challengesReceived += 1
        guard !isPiledUp else { return }
        // Only the newest is answered (M16).
        paths[index].pendingResponse = data
        // A client hears in this way that a NAT has moved it.
        if index == paths.activeIndex { ackFrequency.disturbed(now: clock, needsAnswer: false) }
        giveConnectionID(toPathAt: index)
    }

    /// A response counts for the challenge it answers, on whatever path it comes (RFC 9000, section 8.2.3).
    mutating func receivePathResponse(_ data: UInt64, on arrival: PathID, now: Instant) {
        for index in 0..<paths.count {
            guard paths[index].validator.isRunning, let challenge = paths[index].validator.challenge(with: data)
            else { continue }
            let isRoundTrip = arrival == paths[index].id
            pathAnswered(at: index, challenge: challenge, isRoundTrip: isRoundTrip, now: now)
            return
        }
    }

    /// - Parameters:
    ///   - isRoundTrip: the response came on the path of its challenge.
    private mutating func pathAnswered(
        at index: Int, challenge: PathValidator.Challenge, isRoundTrip: Bool, now: Instant
    ) {
        let id = paths[index].id
        let rtt = now - challenge.sentAt
        paths[index].recovery.pathAnswered(after: rtt, isRoundTrip: isRoundTrip && index != paths.activeIndex)
        let challenges = paths[index].validator.challengesSent
        let provedSize = paths[index].isProvingSize
        paths[index].validated()
        if moves.unproved == id || preferred.awaitedMove == id { moves = PeerMoves() }
        if !provedSize { events.append(.path(.validated(id, rtt: rtt, challenges: challenges))) }
        if !challenge.isPadded {
            // The address is proved; that the path bears 1,200 bytes is not yet (RFC 9000, section 8.2.1).
            startSizeProof(ofPathAt: index, now: now)
        }
        if role == .client {
            clientPathValidated(id, now: now)
            leaveLostPath(now: now)
        } else if preferred.awaitedMove == id {
            followPeer(toPathAt: index, now: now)
        }
    }

    // MARK: Deadlines

    mutating func pathDeadlineExpired(now: Instant) {
        // Deadlines of other kinds expire for every few packets, and those must not cost an allocation.
        guard now >= paths.nextDeadline else { return }
        // The active path first, as long as there is one to fall back to.
        let others = (0..<paths.count).map { paths[$0].id }.filter { $0 != paths.activeID }
        for id in [paths.activeID] + others {
            guard let index = paths.index(of: id), paths[index].validator.isRunning,
                now >= paths[index].validator.failsAt
            else {
                continue
            }
            validationFailed(at: index, now: now)
        }
    }

    private mutating func validationFailed(at index: Int, now: Instant) {
        let id = paths[index].id
        // Something was heard after the first challenge should have been answered: a path that has fallen silent altogether says
        // nothing about sizes, nor does one to which nothing could be sent.
        let wasHeard =
            paths[index].lastHeard > paths[index].validator.startedAt + paths[index].recovery.rtt.smoothed * 2
        let failure: PathFailure
        if paths[index].isProvingSize, !paths[index].hasSendError, wasHeard {
            failure = .datagramsTooLarge
        } else {
            failure = paths[index].isWaitingForConnectionID ? .noConnectionIDAvailable : .noResponse
        }
        paths[index].validationFailed()
        events.append(.path(.failed(id, failure)))
        guard role == .server else {
            return preferredPathFailed(id, now: now)
        }
        guard index == paths.activeIndex else { return removePath(at: index) }
        if moves.unproved == id {
            moves.unproved = nil
            moves.failed = min(moves.failed + 1, PeerMoves.maximumFailed)
        }
        guard let fallback = paths.fallback.flatMap({ paths.index(of: $0) }), paths[fallback].state == .validated else {
            if moves.failed == PeerMoves.maximumFailed {
                return fail(
                    TransportError(.noViablePath, "the last \(moves.failed) addresses of the peer's did not answer"),
                    now: now)
            }
            if failure == .datagramsTooLarge {
                // The peer can still hear why (RFC 9000, section 8.2.4).
                fail(TransportError(.noViablePath, "the path does not bear datagrams of 1,200 bytes"), now: now)
            }
            return
        }
        chooseConnectionID(ofPathAt: fallback, movedFrom: index)
        events.append(.path(.restored(paths[fallback].id)))
        activate(fallback, reason: .fallback)
        if let failed = paths.index(of: id) { removePath(at: failed) }
    }

    /// The peer retired one of our IDs: a path on which it used that one is one that it left.
    mutating func forgetPaths(usingLocalID sequence: UInt64) {
        guard role == .server else { return }
        for id in (0..<paths.count).map({ paths[$0].id }) where id != paths.activeID {
            guard let index = paths.index(of: id), paths[index].localIDSequence == sequence else { continue }
            removePath(at: index)
        }
    }
}
