// SPDX-License-Identifier: Apache-2.0

/// What is to be done, given what is known: decided anew after everything that happens.
extension MigrationPolicyEngine {
    mutating func evaluate(_ now: Instant) {
        wakeAt = nil
        guard let current = activeCandidate, !isForbidden, pendingMove == nil else { return }
        forgetOldCounts(now)
        if let network = current.network {
            if !isAvailable(network) {
                begin(.networkLost(network))
            } else if trouble?.cause == .networkLost(network) {
                // Back before there was another: the socket and what is known of the path are still good.
                endTrouble()
                actions.append(.resume)
                decide(.recovered)
            }
        }
        if let trouble {
            if isIdle(now) { return stay(because: .idle) }
            if trouble.isGone { leave(now) } else { search(now) }
        } else {
            tendCompanion(now)
        }
    }

    private mutating func wake(at instant: Instant, now: Instant) {
        let instant = max(instant, now + .milliseconds(1))
        wakeAt = min(wakeAt ?? instant, instant)
    }

    /// Tells once that nothing is done about the trouble.
    private mutating func stay(because reason: PolicyReason) {
        guard let cause = trouble?.cause, trouble?.told != reason else { return }
        trouble?.told = reason
        decide(.stay(cause: cause, because: reason))
    }

    // MARK: The active path cannot be used any more

    private mutating func leave(_ now: Instant) {
        guard let current = activeCandidate, let trouble else { return }
        if case .sendError = trouble.cause, let network = current.network,
            histories[network].map({ $0.errorMoves >= settings.movesOnErrors }) ?? false
        {
            return stay(because: .limitReached)
        }
        // Where only the socket died its network may do for another one.
        let usable = usableNetworks(now: now).filter {
            $0.id != current.network || trouble.cause == .transportLost
        }
        let reachable = usable.compactMap { network in
            candidates.first { $0.id != active && $0.network == network.id && $0.path != nil }
        }
        if let best = best(of: reachable.filter(\.isProved)) ?? best(of: reachable.filter { $0.failures == 0 }) {
            return move(to: best.id, trouble.cause)
        }
        if candidates.contains(where: { $0.path == nil }) { return }
        if let untried = usable.first(where: { network in !reachable.contains { $0.network == network.id } }) {
            decide(.probe([untried.id], trouble.cause))
            return open(on: untried.id)
        }
        if let last = reachable.first(where: { $0.nextProbeAt.map { $0 <= now } ?? true }) {
            return move(to: last.id, trouble.cause)
        }
        for candidate in reachable { if let next = candidate.nextProbeAt { wake(at: next, now: now) } }
        hold(now)
    }

    /// That of the highest priority; of those alike the first, whose network ranks highest.
    private func best(of candidates: [Candidate]) -> Candidate? {
        candidates.reduce(nil) { best, next in
            guard let best else { return next }
            return priority(of: next) > priority(of: best) ? next : best
        }
    }

    /// Waits; not longer than the limit if there is no network at all.
    private mutating func hold(_ now: Instant) {
        let isEmpty = usableNetworks(now: now).isEmpty
        let reason: PolicyReason = isEmpty ? .noNetwork : .nothingAnswers
        if trouble?.told != reason {
            trouble?.told = reason
            decide(.hold(reason))
        }
        for entry in broken.values where entry.until > now { wake(at: entry.until, now: now) }
        guard isEmpty || holdUntil != nil else { return }
        let limit = holdUntil ?? now + settings.holdLimit
        holdUntil = limit
        guard now >= limit, isEmpty else { return wake(at: limit, now: now) }
        decide(.giveUp(.noNetwork))
        actions.append(.giveUp)
        isForbidden = true
    }

    // MARK: The active path is silent

    private mutating func search(_ now: Instant) {
        guard let trouble else { return }
        if let suspicion = trouble.suspicion { return pursue(suspicion, now) }
        if trouble.isProbing {
            let isPending = candidates.contains { $0.id != active && ($0.isProbing || $0.path == nil) }
            if isPending { return }
            // Nobody answered: another round, after 1, 2, 4 … s.
            let delay = Self.retryDelay * (1 << min(max(trouble.rounds - 1, 0), 5))
            self.trouble?.isProbing = false
            self.trouble?.nextRoundAt = now + delay
        }
        if let next = self.trouble?.nextRoundAt, next > now {
            wake(at: next, now: now)
            return hold(now)
        }
        startRound(now)
    }

    /// Probes the other networks, and moves once it is time to one that has answered since, the best first. What does not
    /// answer is asked again when the path counts as degraded.
    private mutating func pursue(_ suspicion: (began: Instant, isRipe: Bool), _ now: Instant) {
        if trouble?.rounds == 0 { startRound(now) }
        guard suspicion.isRipe else { return }
        let answered = candidates.filter { candidate in
            candidate.id != active && candidate.isProved && candidate.answeredAt.map { $0 >= suspicion.began } ?? false
        }
        for network in usableNetworks(now: now) {
            guard let candidate = answered.first(where: { $0.network == network.id }) else { continue }
            return move(to: candidate.id, .suspected)
        }
    }

    /// Probes every candidate at once: the other networks, and, unless the path is only suspected, a new port on the same one.
    private mutating func startRound(_ now: Instant) {
        guard let cause = trouble?.cause else { return }
        let home = activeCandidate?.network
        let mayLeave = mayLeave(home)
        let mayChangePort = cause != .suspected && portChanges < settings.portChanges
        let usable = usableNetworks(now: now)
        let targets = usable.filter { $0.id == home ? mayChangePort : mayLeave }.prefix(Self.maximumCandidates - 1)
        guard !targets.isEmpty else {
            if cause == .suspected { return }
            if usable.isEmpty { return hold(now) }
            return stay(because: mayLeave && mayChangePort ? .nothingAnswers : .limitReached)
        }
        trouble?.rounds += 1
        trouble?.isProbing = true
        decide(.probe(targets.map(\.id), cause))
        for target in targets {
            // What answered nothing on the network itself is replaced: a port that is new each time is the point of it.
            if target.id == home {
                for spare in candidates where spare.id != active && spare.network == home { discard(spare.id) }
            }
            if let index = candidates.firstIndex(where: { $0.id != active && $0.network == target.id }) {
                if candidates[index].path != nil, !candidates[index].isProbing { probe(candidateAt: index) }
            } else {
                open(on: target.id)
            }
        }
    }

    // MARK: All is well

    /// Sees to the best other network: as a standby, or to move there if it ranks higher.
    private mutating func tendCompanion(_ now: Instant) {
        let home = activeCandidate?.network
        let companion = usableNetworks(now: now).first { $0.id != home }
        let isWanted = companion.map { settings.keepsWarmStandby || isPreferred($0.id) } ?? false
        for candidate in candidates where candidate.id != active && !candidate.isApplications {
            if !isWanted || candidate.network != companion?.id { discard(candidate.id) }
        }
        for entry in broken.values where entry.until > now { wake(at: entry.until, now: now) }
        if let next = falseAlarms.heedsNextAt, next > now { wake(at: next, now: now) }
        guard let companion, isWanted, !isIdle(now) else { return }
        let reason: PolicyReason = isPreferred(companion.id) ? .preferredNetwork(companion.id) : .standby
        guard let index = candidates.firstIndex(where: { $0.id != active && $0.network == companion.id }) else {
            decide(.probe([companion.id], reason))
            return open(on: companion.id)
        }
        guard candidates[index].path != nil, !candidates[index].isProbing else { return }
        if candidates[index].isProved, isPreferred(companion.id), let since = candidates[index].provedSince {
            let due = since + returnDelay(of: companion.id)
            guard now < due else {
                candidates[index].isConfirming = true
                decide(.probe([companion.id], reason))
                return probe(candidateAt: index)
            }
            wake(at: due, now: now)
        }
        let next = candidates[index].nextProbeAt ?? now
        guard next <= now else { return wake(at: next, now: now) }
        probe(candidateAt: index)
    }

    // MARK: Doing it

    private mutating func open(on network: NetworkID) {
        guard candidates.count < Self.maximumCandidates else { return }
        let candidate = makeCandidate(on: network)
        candidates.append(candidate)
        actions.append(.open(candidate.id, network))
    }

    mutating func probe(candidateAt index: Int) {
        guard let path = candidates[index].path else { return }
        candidates[index].isProbing = true
        actions.append(.probe(path, timeout: settings.probeTimeout))
    }

    mutating func discard(_ id: CandidateID) {
        guard id != active, pendingMove?.candidate != id, let index = candidates.firstIndex(where: { $0.id == id })
        else { return }
        let candidate = candidates.remove(at: index)
        // One whose socket is being opened is closed when it is.
        if let path = candidate.path, !candidate.isApplications { actions.append(.discard(id, path)) }
    }

    mutating func move(to id: CandidateID, _ reason: PolicyReason) {
        guard pendingMove == nil, let target = candidates.first(where: { $0.id == id }), let path = target.path else {
            return
        }
        pendingMove = (id, target.isProved, reason)
        actions.append(.switchTo(path, withoutValidation: !target.isProved))
    }

    /// The connection has switched, or would not.
    mutating func switched(to path: PathID, succeeded: Bool, now: Instant) {
        guard let pending = pendingMove, let index = candidates.firstIndex(where: { $0.path == path }),
            candidates[index].id == pending.candidate
        else { return }
        pendingMove = nil
        if succeeded {
            arrived(at: index, pending.reason, isProved: pending.isProved, now: now)
        } else {
            noteFailure(ofCandidateAt: index, now: now)
        }
        evaluate(now)
    }

    mutating func arrived(at index: Int, _ reason: PolicyReason, isProved: Bool, now: Instant) {
        guard let old = activeCandidate, let network = candidates[index].network else { return }
        let wasGone = trouble?.isGone ?? false
        count(reason, from: old.network, to: network, now: now)
        candidates[index].isConfirming = false
        candidates[index].isToldToStandBy = false
        active = candidates[index].id
        trouble = nil
        falseAlarms = FalseAlarms()
        holdUntil = nil
        decide(.move(from: old.network, to: network, validated: isProved, reason))
        if wasGone || old.network == network || old.network == nil {
            discard(old.id)
        } else if let index = candidates.firstIndex(where: { $0.id == old.id }) {
            // It may stand by, once it is proved anew.
            candidates[index].isProved = false
            candidates[index].provedSince = nil
            candidates[index].nextProbeAt = now
            candidates[index].failures = 0
        }
        // One path a network is enough now.
        for candidate in candidates where candidate.id != active && candidate.id != old.id {
            if candidate.network == network || candidate.network == old.network { discard(candidate.id) }
        }
    }

    // MARK: Counts

    private mutating func count(_ reason: PolicyReason, from old: NetworkID?, to new: NetworkID, now: Instant) {
        if old == new {
            portChanges += 1
            lastPortChange = now
            return
        }
        guard let old else { return }
        if case .preferredNetwork = reason { return }
        var history = histories[old] ?? History(lastDeparture: now)
        switch reason {
        case .suspected, .degrading, .unreachable: history.degradingMoves += 1
        case .sendError: history.errorMoves += 1
        default: break
        }
        history.departures += 1
        history.lastDeparture = now
        histories[old] = history
        if histories.count > Self.maximumHistories,
            let oldest = histories.min(by: {
                ($0.value.lastDeparture, $0.key.name) < ($1.value.lastDeparture, $1.key.name)
            })
        {
            histories[oldest.key] = nil
        }
    }

    /// After a quiet period the counts start again. That a network was left before is not forgotten.
    private mutating func forgetOldCounts(_ now: Instant) {
        if let last = lastPortChange, now - last > settings.quietPeriod {
            portChanges = 0
            lastPortChange = nil
        }
        if let last = falseAlarms.heedsNextAt, now - last > settings.quietPeriod { falseAlarms = FalseAlarms() }
        for (network, history) in histories where now - history.lastDeparture > settings.quietPeriod {
            histories[network]?.degradingMoves = 0
            histories[network]?.errorMoves = 0
            histories[network]?.departures = 1
        }
    }
}
