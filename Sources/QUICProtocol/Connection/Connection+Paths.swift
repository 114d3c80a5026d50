// SPDX-License-Identifier: Apache-2.0

/// The application's verbs: add, probe, switch, close (`M1` to `M8`).
extension QUICConnection {
    /// The path that carries the application's data.
    public var activePath: PathID { paths.activeID }

    public func pathSnapshots() -> [PathSnapshot] {
        (0..<paths.count).map { snapshot(at: $0) }
    }

    /// Nil if the path was closed.
    public func pathSnapshot(_ id: PathID) -> PathSnapshot? {
        paths.index(of: id).map { snapshot(at: $0) }
    }

    private func snapshot(at index: Int) -> PathSnapshot {
        let path = paths[index]
        return PathSnapshot(
            id: path.id, tuple: path.tuple, state: path.state, isActive: index == paths.activeIndex,
            priority: path.priority, destinationConnectionID: path.destinationID,
            smoothedRTT: path.recovery.rtt.smoothed,
            latestRTT: path.recovery.rtt.latest, minimumRTT: path.recovery.rtt.minimum,
            congestionWindow: path.recovery.congestion.window,
            isInSlowStart: path.recovery.congestion.isInSlowStart, bytesInFlight: path.recovery.bytesInFlight,
            maximumDatagramSize: path.maximumDatagramSize, ecn: path.ecn.state, statistics: path.statistics)
    }

    /// Makes another pair of addresses known. Sends nothing (M1). The remote one is one of `serverAddresses`.
    ///
    /// - Returns: the new path, or the one that was closed before over the same addresses, anew.
    public mutating func addPath(over tuple: FourTuple) throws(MigrationError) -> PathID {
        try checkMayMigrate(towards: tuple.remote)
        guard preferred.serverAddresses.contains(tuple.remote) else { throw .unknownServerAddress(tuple.remote) }
        if let index = paths.index(of: tuple) { throw .pathExists(paths[index].id) }
        guard !paths.isFull else { throw .tooManyPaths(limit: PathTable.maximumPaths) }
        return paths[addClientPath(over: tuple)].id
    }

    /// Adds a path of the client's own choice, of which there is room for one more.
    mutating func addClientPath(over tuple: FourTuple) -> Int {
        let index = paths.add(
            tuple, amplification: AmplificationBudget(isLifted: true),
            congestionControl: configuration.congestionControl,
            maximumDatagramSize: initialDatagramSize, now: clock)
        setMaximumDatagramSize(initialDatagramSize, ofPathAt: index)
        events.append(.path(.added(paths[index].id)))
        return index
    }

    private func checkMayMigrate(towards remote: NetworkAddress) throws(MigrationError) {
        if let closeReason { throw .connectionClosed(closeReason) }
        guard role == .client else { throw .serverCannotMigrate }
        guard !isMigrationDisabled else { throw .migrationDisabled }
        // It concerns the address of the handshake only: from a preferred one that the client has moved to it may move on
        // (RFC 9000, section 18.2).
        let isFree = remote != preferred.handshakeAddress && preferred.progress == .moved
        guard !handshake.hasPeerParameters || !peerParameters.disableActiveMigration || isFree else {
            throw .migrationDisabledByPeer
        }
        guard handshake.peerInitialSourceID == nil || !remoteIDs.usesEmptyID else { throw .peerUsesNoConnectionIDs }
    }

    func index(ofPath id: PathID) throws(MigrationError) -> Int {
        if let closeReason { throw .connectionClosed(closeReason) }
        guard let index = paths.index(of: id) else { throw .unknownPath(id) }
        return index
    }

    /// Asks whether the peer can be reached on a path, and how quickly (M2). The answer comes as an event, `.validated` or
    /// `.failed`. A path can be probed again at any time. Before the handshake is confirmed the probe waits for it.
    public mutating func probe(_ id: PathID, timeout: Nanoseconds, now: Instant) throws(MigrationError) {
        clock = now
        let index = try index(ofPath: id)
        try checkMayMigrate(towards: paths[index].tuple.remote)
        guard paths[index].state != .transportLost else { throw .transportLost(id) }
        paths[index].beginValidation(now: now, interval: challengeInterval, timeout: timeout)
        paths[index].isProbedByApplication = true
        paths[index].isWaitingForConnectionID = true
        events.append(.path(.probing(id)))
        serveWaitingPaths(now: now)
    }

    /// When a challenge is repeated first: about three times the RTT as far as it is known (M2).
    var challengeInterval: Nanoseconds {
        let rtt = paths.active.recovery.rtt
        return rtt.hasSample ? max(rtt.smoothed * 3, .milliseconds(3)) : configuration.initialRTT
    }

    /// The application does not wait for a probe any longer (M8). What was proved before stays so.
    public mutating func cancelProbe(_ id: PathID) {
        guard let index = paths.index(of: id), paths[index].isProbedByApplication else { return }
        paths[index].validationCancelled()
    }

    /// Sends the application's data another way from now on (M4).
    ///
    /// - Parameters:
    ///   - withoutValidation: the old path is gone, so data moves at once and the new path is validated under way.
    public mutating func switchPath(
        to id: PathID, withoutValidation: Bool = false, now: Instant
    ) throws(MigrationError) {
        try switchPath(to: id, withoutValidation: withoutValidation, reason: .application, now: now)
    }

    mutating func switchPath(
        to id: PathID, withoutValidation: Bool, reason: SwitchReason, now: Instant
    ) throws(MigrationError) {
        clock = now
        let index = try index(ofPath: id)
        try checkMayMigrate(towards: paths[index].tuple.remote)
        guard handshake.isConfirmed else { throw .handshakeNotConfirmed }
        guard paths[index].state != .transportLost else { throw .transportLost(id) }
        guard index != paths.activeIndex else { return }
        // No data to an address of the server's that never answered (RFC 9000, section 9.6.2).
        guard paths[index].isValidated || (withoutValidation && preferred.isProved(paths[index].tuple.remote)) else {
            throw .notValidated(id)
        }
        guard let destination = remoteIDs.take(for: id) else { throw .noConnectionIDAvailable(id) }
        paths[index].destinationID = destination
        paths[index].isWaitingForConnectionID = false
        if !paths[index].isValidated, !paths[index].validator.isRunning {
            startValidation(ofPathAt: index, now: now)
        }
        noteTokenChanges()
        activate(index, reason: reason)
    }

    /// Makes a path the one for the application's data, and sees to it that the peer hears of it.
    mutating func activate(_ index: Int, reason: SwitchReason) {
        let old = paths.activeID
        let oldTuple = paths.active.tuple
        let oldIndex = paths.activeIndex
        paths.activate(index)
        releaseConnectionIDIfLost(ofPathAt: oldIndex)
        timers.probeTimeoutCount = 0
        timers.pacingDeadline = nil
        timers.isAmplificationBlocked = false
        timers.answerAwaitedSince = nil
        timers.silence = SilenceWatch()
        paths.active.isDegraded = false
        ackFrequency.disturbed(now: clock, needsAnswer: true)
        spaces.application.received.peerMoved()
        // A server that is to follow needs a packet that is no probe.
        spaces.requestProbe(in: .application)
        // To move for trouble, or to follow who did, is to expect that what was in flight is lost. Acknowledgements are
        // among it, so the last is said again; and the oldest packets' frames and what the streams' readers wait for go again
        // at once, so that streams go on after one round trip rather than when the loss is proved.
        let isSameNetwork =
            oldTuple.local.hasSameIP(as: paths.active.tuple.local)
            && oldTuple.remote.hasSameIP(as: paths.active.tuple.remote)
        if reason != .application {
            resendNewestGrants()
            if !isSameNetwork {
                spaces.application.received.acknowledgementDropped(now: clock)
                resendOldest(in: .application, packets: 2)
                streams.resendHeads(upTo: 2 * paths.active.maximumDatagramSize)
            }
        }
        events.append(.path(.switched(from: old, to: paths.activeID, reason)))
        startDiscovery(ofPathAt: paths.activeIndex)
        activePathChanged(from: old)
    }

    /// Closes a path and retires its connection ID (M5). Harmless if it is closed already.
    public mutating func closePath(_ id: PathID, now: Instant) throws(MigrationError) {
        clock = now
        if let closeReason { throw .connectionClosed(closeReason) }
        guard let index = paths.index(of: id) else {
            if paths.hasExisted(id) { return }
            throw .unknownPath(id)
        }
        guard index != paths.activeIndex else { throw .pathActive(id) }
        removePath(at: index)
    }

    /// Forgets a path that is not the active one.
    mutating func removePath(at index: Int) {
        let id = paths[index].id
        releaseConnectionID(ofPathAt: index)
        paths.remove(at: index)
        events.append(.path(.closed(id)))
    }

    /// The system refused to send on a path. Only that path is concerned (M7): what was not sent is lost, and found so.
    ///
    /// - Parameters:
    ///   - segmentSize: of the datagrams refused, in bytes.
    public mutating func sendFailed(on id: PathID, errno: Int32, segmentSize: Int, now: Instant) {
        clock = now
        guard isOpen(), let index = paths.index(of: id) else { return }
        paths[index].statistics.sendErrors += 1
        if errno == SystemError.messageTooLong {
            // The interface's MTU is smaller than we were told: every path bears 1,200 bytes (RFC 9000, section 14).
            datagramRefused(size: segmentSize, onPathAt: index)
            return
        }
        guard !paths[index].hasSendError else { return }
        paths[index].hasSendError = true
        events.append(.path(.failed(id, .sendError(errno))))
    }

    /// Something could be sent on a path again.
    public mutating func sendSucceeded(on id: PathID) {
        guard let index = paths.index(of: id), paths[index].hasSendError else { return }
        paths[index].hasSendError = false
        if paths[index].isProvingSize { startSizeProof(ofPathAt: index, now: clock) }
        guard index == paths.activeIndex else { return }
        events.append(.path(.recovered(id)))
        // The network is back: say so at once, rather than when the next probe is due.
        timers.probeTimeoutCount = 0
        timers.silenceInterval = .zero
        spaces.requestProbe(in: .application)
    }

    /// A socket is gone: its paths cannot be used any more. The connection lives on, and so do its other paths (M7).
    public mutating func transportLost(_ transport: TransportID, now: Instant) {
        clock = now
        guard isOpen() else { return }
        for index in 0..<paths.count
        where paths[index].tuple.transport == transport && paths[index].state != .transportLost {
            paths[index].transportLost()
            events.append(.path(.failed(paths[index].id, .transportLost)))
            sendAgainWhatWasInFlight(onPathAt: index, now: now)
            releaseConnectionIDIfLost(ofPathAt: index)
        }
        preferredPathsLost(now: now)
        leaveLostPath(now: now)
    }

    /// A path whose socket is gone sends nothing any more: its ID is given back, so that the peer issues another (M6). The
    /// active one keeps its own, which tells the peer's resets apart.
    private mutating func releaseConnectionIDIfLost(ofPathAt index: Int) {
        guard index != paths.activeIndex, paths[index].state == .transportLost, paths[index].destinationID != nil else {
            return
        }
        releaseConnectionID(ofPathAt: index)
    }
}

/// The numbers of system errors that mean something to the engine, the same on all systems it runs on but one.
enum SystemError {
    /// EMSGSIZE.
    #if canImport(Darwin)
    static let messageTooLong: Int32 = 40
    #else
    static let messageTooLong: Int32 = 90
    #endif
}
