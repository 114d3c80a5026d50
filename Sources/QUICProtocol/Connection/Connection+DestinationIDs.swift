// SPDX-License-Identifier: Apache-2.0

/// Under which of the peer's connection IDs each path sends (RFC 9000, sections 5.1 and 9.5; `M17`).
///
/// A client gives every path an ID of its own. A server mirrors its client: paths on which the client sends to one ID of ours are
/// linked already, by a NAT or by the client itself, and may be answered under one ID; no others may. So an ID of the peer's goes
/// out only where the peer sends to the ID of ours that it was first used with, and a path on which that changes neither lends
/// nor borrows. What departs from that, for want of an unused one, is marked (`Path.needsAnotherConnectionID`), lent to no
/// further path, and replaced as soon as the peer issues more (decision 0005).
extension QUICConnection {
    /// Notes under which of our IDs the peer sends on a path of a server's. If that changes, the peer does not want to be
    /// known by what was used there before: the path needs another ID of the peer's, too.
    ///
    /// It may be an attacker who changes it, by a copy that overtakes the packet with which the peer moves, from where the
    /// peer was or seemed to be already. So the path in use is no exception, as its ID may soon go on with the peer to its true
    /// place; and nobody knows any more whether the peer itself linked this path to others.
    mutating func noteLocalID(_ id: ConnectionID, level: EncryptionLevel, onPathAt index: Int) {
        // Packets of the handshake go to the first of our IDs or to what the client made up in its place, and may come after
        // ones that go to others.
        guard let sequence = level == .oneRTT ? localIDs.sequence(of: id) : 0,
            sequence != paths[index].localIDSequence
        else { return }
        let isFirst = paths[index].localIDSequence == nil
        guard isFirst || level == .oneRTT else { return }
        paths[index].localIDSequence = sequence
        guard !isFirst else { return }
        paths[index].hasChangedLocalID = true
        if paths[index].destinationID != nil { renewConnectionID(ofPathAt: index) }
    }

    /// Chooses the ID for a path that the connection moves to. A peer that moved under a new ID of ours is answered under a
    /// new ID of its; one that kept the ID did not choose to move, and is answered under the same.
    mutating func chooseConnectionID(ofPathAt index: Int, movedFrom oldIndex: Int) {
        giveConnectionID(toPathAt: index)
        guard paths[index].destinationID == nil else { return }
        // The path must not fall silent when no ID is left: none could come while nothing is sent.
        paths[index].needsAnotherConnectionID = true
        shareConnectionID(ofPathAt: oldIndex, withPathAt: index)
    }

    /// Gives a path that has no ID that of a path to which the peer linked it, or an unused one.
    mutating func giveConnectionID(toPathAt index: Int) {
        guard paths[index].destinationID == nil else { return }
        if let other = indexOfPathLinkedByPeer(toPathAt: index) {
            shareConnectionID(ofPathAt: other, withPathAt: index)
        } else {
            paths[index].destinationID = remoteIDs.take(for: paths[index].id)
            noteTokenChanges()
        }
        if paths[index].destinationID != nil {
            paths[index].needsAnotherConnectionID = false
        } else {
            noteLackOfConnectionID(ofPathAt: index)
        }
    }

    /// A path on which the peer sends from the same place of its choice, to the same ID and address of ours, and whose own ID is
    /// used for nothing else.
    private func indexOfPathLinkedByPeer(toPathAt index: Int) -> Int? {
        guard let sequence = paths[index].localIDSequence, !paths[index].hasChangedLocalID else { return nil }
        return (0..<paths.count).first { other in
            other != index && paths[other].localIDSequence == sequence && !paths[other].hasChangedLocalID
                && paths[other].destinationID != nil && !paths[other].needsAnotherConnectionID
                && paths[other].tuple.local == paths[index].tuple.local
        }
    }

    private mutating func shareConnectionID(ofPathAt other: Int, withPathAt index: Int) {
        remoteIDs.share(from: paths[other].id, with: paths[index].id)
        paths[index].destinationID = remoteIDs.id(of: paths[index].id)
    }

    /// Takes another ID of the peer's for a path: at once, or as soon as there is one.
    private mutating func renewConnectionID(ofPathAt index: Int) {
        paths[index].needsAnotherConnectionID =
            remoteIDs.unusedCount == 0 && indexOfPathLinkedByPeer(toPathAt: index) == nil
        guard !paths[index].needsAnotherConnectionID else { return }
        releaseConnectionID(ofPathAt: index)
        giveConnectionID(toPathAt: index)
    }

    // MARK: What the peer issues and revokes

    mutating func receiveNewConnectionID(_ frame: NewConnectionIDFrame, now: Instant) throws(TransportError) {
        let bereft = try remoteIDs.receive(frame)
        for id in bereft {
            if let index = paths.index(of: id) { paths[index].destinationID = nil }
        }
        // The path in use first: it must not be left without an ID, and others may be an attacker's.
        giveConnectionID(toPathAt: paths.activeIndex)
        for id in bereft {
            if let index = paths.index(of: id) { giveConnectionID(toPathAt: index) }
        }
        renewMarkedConnectionIDs()
        serveWaitingPaths(now: now)
        noteTokenChanges()
    }

    private mutating func renewMarkedConnectionIDs() {
        for index in [paths.activeIndex] + (0..<paths.count) where paths[index].needsAnotherConnectionID {
            renewConnectionID(ofPathAt: index)
        }
    }

    /// Gives waiting validations their connection IDs, as far as there are any, oldest path first (M3).
    mutating func serveWaitingPaths(now: Instant) {
        guard handshake.isConfirmed else { return }
        for index in 0..<paths.count where paths[index].isWaitingForConnectionID {
            giveConnectionID(toPathAt: index)
            guard paths[index].destinationID != nil else { continue }
            paths[index].isWaitingForConnectionID = false
            paths[index].validator.repeatChallenge(at: now)
        }
    }

    /// A path needs a connection ID of the peer's, and there is none. That is told once, until there is one (M45).
    private mutating func noteLackOfConnectionID(ofPathAt index: Int) {
        guard !paths[index].isToldToLackConnectionID else { return }
        paths[index].isToldToLackConnectionID = true
        events.append(.path(.connectionIDsExhausted(paths[index].id)))
    }

    /// Retires the ID that a path sends under, unless another path sends under it.
    mutating func releaseConnectionID(ofPathAt index: Int) {
        paths[index].destinationID = nil
        do throws(TransportError) {
            try remoteIDs.release(paths[index].id)
        } catch {
            fail(error, now: clock)
        }
        noteTokenChanges()
    }

    /// Tells the endpoint which reset tokens may come in from now on.
    mutating func noteTokenChanges() {
        for change in remoteIDs.takeTokenChanges() {
            routingChanges.append(change.isActive ? .addToken(change.token) : .removeToken(change.token))
        }
    }
}
