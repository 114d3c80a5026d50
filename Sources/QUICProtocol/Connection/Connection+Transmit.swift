// SPDX-License-Identifier: Apache-2.0

extension QUICConnection {
    /// Datagrams of one batch; the kernel takes no more segments at once (UDP_MAX_SEGMENTS).
    private static var maximumSegments: Int { 64 }
    /// Bytes of one batch: what an IP packet could hold.
    private static var maximumBatch: Int { 65_000 }

    /// Writes the datagrams that may leave now, all of one size but for the last, which may be shorter, and all on one
    /// path. Call it until it returns nil: another path or a datagram of another size may follow.
    ///
    /// - Parameters:
    ///   - buffer: written from its start; 64 KiB let a batch be as large as it may.
    public mutating func transmit(into buffer: inout MutableRawSpan, now: Instant) -> Transmission? {
        clock = now
        switch state {
        case .closed, .draining: return nil
        case .closing: return transmitClose(into: &buffer, now: now)
        case .handshaking, .established: break
        }
        if handshake.hasPeerParameters, protection.canSeal(.oneRTT), let path = pathWithFramesToSend(now: now) {
            if let transmission = transmitPathFrames(pathIndex: path, into: &buffer, now: now) { return transmission }
        }
        let active = paths.activeIndex
        guard paths[active].state != .transportLost, paths[active].destinationID != nil else { return nil }
        let transmission: Transmission?
        if protection.canSeal(.initial) || protection.canSeal(.handshake) {
            transmission = transmitHandshake(into: &buffer, now: now)
        } else {
            if let size = paths[active].mtu.probeSize(now: now), paths[active].isValidated,
                let probe = transmitMTUProbe(size: size, into: &buffer, now: now)
            {
                return probe
            }
            transmission = transmitBatch(into: &buffer, now: now)
        }
        timers.isAmplificationBlocked =
            transmission == nil && paths[active].amplification.remaining < smallestUsefulDatagram
        return transmission
    }

    /// With less than this nothing that waits could be sent: a datagram with an Initial packet must be padded.
    private var smallestUsefulDatagram: Int {
        protection.canSeal(.initial) ? ConnectionConfiguration.minimumUDPPayload : Path.smallestUsefulDatagram
    }

    // MARK: The handshake's datagrams

    /// One datagram with a packet of each level that has something to say (RFC 9000, section 12.2).
    private mutating func transmitHandshake(into buffer: inout MutableRawSpan, now: Instant) -> Transmission? {
        let index = paths.activeIndex
        let limit = min(paths[index].maximumDatagramSize, buffer.byteCount, paths[index].amplification.remaining)
        var writer = PacketWriter(&buffer)
        writer.setLimit(limit)
        var needsPadding = false
        for level in [EncryptionLevel.initial, .handshake, .oneRTT] {
            guard wantsToSend(level, now: now) else { continue }
            // A datagram with an Initial packet that elicits an acknowledgement is padded (RFC 9000, section 14.1).
            if level == .initial, role == .client || spaces.probes(.initial) > 0 || hasSendableInitialData {
                guard limit >= ConnectionConfiguration.minimumUDPPayload else { continue }
                needsPadding = true
            }
            // What a client says because it hears nothing gives a server that is short of it as much credit as it can.
            if level == .handshake, role == .client, spaces.probes(.handshake) > 0, !handshake.isComplete {
                needsPadding = limit >= ConnectionConfiguration.minimumUDPPayload
            }
            let isLast = !EncryptionLevel.allCases.contains {
                $0.rawValue > level.rawValue && $0 != .earlyData && wantsToSend($0, now: now)
            }
            let padTo = needsPadding && isLast ? ConnectionConfiguration.minimumUDPPayload : 0
            let isMade = buildHandshakePacket(level, padTo: padTo, writer: &writer, now: now)
            if role == .client, level == .handshake, isMade {
                // The server has the client's Handshake packet next (RFC 9001, section 4.9.1).
                discard(.initial)
            }
        }
        guard writer.offset > 0 else { return nil }
        if needsPadding, writer.offset < ConnectionConfiguration.minimumUDPPayload {
            // A later packet was to be padded and did not fit: bytes behind the last packet are no packet, and dropped.
            writer.setLimit(limit)
            writer.writeZeros(ConnectionConfiguration.minimumUDPPayload - writer.offset)
        }
        return finishDatagram(size: writer.offset, segmentSize: writer.offset, pathIndex: index, datagrams: 1, now: now)
    }

    private func wantsToSend(_ level: EncryptionLevel, now: Instant) -> Bool {
        guard level != .earlyData, protection.canSeal(level) else { return false }
        let space = level.space
        if spaces.probes(space) > 0 { return true }
        if level == .oneRTT {
            guard handshake.hasPeerParameters else { return false }
            let received =
                handshake.isComplete && spaces.application.received.hasUnreportedPackets
                && spaces.application.received.isAckDue(now: now)
            return received || (hasApplicationFrames && mayFillWindow(pathIndex: paths.activeIndex))
        }
        if spaces[space].received.hasUnreportedAckEliciting { return true }
        return crypto[level].hasPendingData && mayFillWindow(pathIndex: paths.activeIndex)
    }

    private var hasSendableInitialData: Bool {
        crypto.initial.hasPendingData && mayFillWindow(pathIndex: paths.activeIndex)
    }

    private func mayFillWindow(pathIndex: Int) -> Bool {
        paths[pathIndex].recovery.canSend(bytes: paths[pathIndex].maximumDatagramSize)
    }

    private mutating func buildHandshakePacket(
        _ level: EncryptionLevel, padTo: Int, writer: inout PacketWriter, now: Instant
    ) -> Bool {
        let index = paths.activeIndex
        guard let packet = beginPacket(level, pathIndex: index, writer: &writer) else { return false }
        let space = level.space
        writeAck(in: space, writer: &writer, now: now)
        let isProbe = spaces.probes(space) > 0
        let mayFill = isProbe || mayFillWindow(pathIndex: index)
        let before = frameLog.count
        if mayFill {
            if let frame = crypto[level].writeFrame(into: &writer) { frameLog.append(frame) }
            if level == .oneRTT {
                writeConnectionFrames(writer: &writer)
                streams.writeControlFrames(into: &writer, log: &frameLog)
                streams.writeStreamFrames(into: &writer, log: &frameLog)
            }
        }
        if isProbe { addPing(ifNeededSince: before, writer: &writer) }
        let isAckEliciting = frameLog.count > before
        guard writer.offset > packet.payloadOffset else {
            abandonPacket(packet, writer: &writer)
            return false
        }
        if isProbe, isAckEliciting { spaces.setProbes(spaces.probes(space) - 1, in: space) }
        return finishPacket(
            packet, level: level, pathIndex: index, isAckEliciting: isAckEliciting, padTo: padTo, writer: &writer,
            now: now)
    }

    // MARK: Application data

    /// There is something to say in 1-RTT packets besides acknowledgements.
    @inline(__always)
    private var hasApplicationFrames: Bool {
        hasConnectionFrames || crypto.oneRTT.hasPendingData || streams.hasControlFramesToSend
            || streams.hasStreamDataToSend
    }

    /// As many full datagrams on the active path as congestion, pacing and amplification allow.
    private mutating func transmitBatch(into buffer: inout MutableRawSpan, now: Instant) -> Transmission? {
        if protection.shouldUpdateKeys { initiateKeyUpdate() }
        skipPacketNumberNowAndThen()
        let index = paths.activeIndex
        let size = paths[index].maximumDatagramSize
        let capacity = min(buffer.byteCount, Self.maximumBatch)
        let packetsInFlight = spaces.application.packetsInFlight
        var allowance = sendAllowance(pathIndex: index, now: now)
        // Whether bare acknowledgements arrive with a mark nobody would ever know, and without one they do as well.
        let isMarked = paths[index].ecn.isMarking && mayFillPacket(pathIndex: index, allowance: allowance)
        var writer = PacketWriter(&buffer)
        var segment = 0
        var datagrams = 0
        while datagrams < Self.maximumSegments, isOpen() {
            let start = writer.offset
            let limit = min(start + size, capacity, paths[index].amplification.remaining)
            writer.setLimit(limit)
            guard
                buildApplicationPacket(
                    pathIndex: index, allowance: allowance, isMarked: isMarked, writer: &writer, now: now)
            else { break }
            let written = writer.offset - start
            allowance -= written
            datagrams += 1
            if segment == 0 { segment = written }
            // Only the last datagram of a batch may be shorter, and none may be longer, than the first.
            if written < size || start + written + size > capacity { break }
        }
        guard writer.offset > 0 else { return nil }
        if allowance < size, hasApplicationFrames { sendingHeldBack(pathIndex: index, now: now) }
        if segment == size { paths[index].mtu.datagramFilled() }
        if isMarked {
            noteMarked(
                packets: datagrams, inFlight: spaces.application.packetsInFlight - packetsInFlight, onPathAt: index)
        }
        let total = writer.offset
        return finishDatagram(
            size: total, segmentSize: segment, pathIndex: index, datagrams: datagrams, ecn: isMarked ? .ect0 : .notECT,
            now: now)
    }

    /// Leaves out a packet number at random, ever more seldom: a peer that acknowledges it acknowledges what it has not seen,
    /// to make us send faster than the network bears (RFC 9000, section 21.4).
    private mutating func skipPacketNumberNowAndThen() {
        let next = spaces.application.nextPacketNumber
        guard next >= timers.skipsPacketNumberAt else { return }
        if timers.skipsPacketNumberAt > 0 { spaces.application.skipPacketNumber() }
        timers.skipsPacketNumberAt = next + 64 + random.next() % (64 + next)
    }

    /// Bytes in flight that may be added now; sets the pacing deadline when the pacer is what holds data back.
    private mutating func sendAllowance(pathIndex: Int, now: Instant) -> Int {
        timers.pacingDeadline = nil
        guard hasApplicationFrames else { return 0 }
        let allowance = paths[pathIndex].recovery.allowance(now: now)
        if allowance < paths[pathIndex].maximumDatagramSize { sendingHeldBack(pathIndex: pathIndex, now: now) }
        return allowance
    }

    /// Whether the next packet may have more to say than acknowledgements.
    @inline(__always)
    private func mayFillPacket(pathIndex: Int, allowance: Int) -> Bool {
        spaces.probes(.application) > 0
            || allowance >= paths[pathIndex].maximumDatagramSize && hasApplicationFrames
    }

    /// Congestion control or the pacer stops data that waits.
    private mutating func sendingHeldBack(pathIndex: Int, now: Instant) {
        timers.pacingDeadline = paths[pathIndex].recovery.sendingStopped(now: now)
    }

    /// A probe that has nothing to say is a PING. So is one that has only connection IDs to give away: without it the packet
    /// would be a probing one, which does not move the peer to where it came from (RFC 9000, section 9.1).
    @_lifetime(writer: copy writer)
    private mutating func addPing(ifNeededSince before: Int, writer: inout PacketWriter) {
        guard writer.remaining > 0 else { return }
        for index in before..<frameLog.count {
            if case .newConnectionID = frameLog[index] { continue }
            return
        }
        writer.writePing()
        frameLog.append(.ping)
    }

    /// Writes one 1-RTT packet on the active path, up to the writer's limit.
    ///
    /// - Returns: false if there was nothing to say.
    private mutating func buildApplicationPacket(
        pathIndex: Int, allowance: Int, isMarked: Bool, writer: inout PacketWriter, now: Instant
    ) -> Bool {
        let isProbe = spaces.probes(.application) > 0
        let fills = mayFillPacket(pathIndex: pathIndex, allowance: allowance)
        let acknowledges = spaces.application.received.isAckDue(now: now)
        guard fills || acknowledges, let packet = beginPacket(.oneRTT, pathIndex: pathIndex, writer: &writer) else {
            return false
        }
        if acknowledges || spaces.application.received.hasUnreportedAckEliciting {
            writeAck(in: .application, writer: &writer, now: now)
        }
        let before = frameLog.count
        if fills {
            if crypto.oneRTT.hasPendingData, let frame = crypto.oneRTT.writeFrame(into: &writer) {
                frameLog.append(frame)
            }
            writeConnectionFrames(writer: &writer)
            if streams.hasControlFramesToSend { streams.writeControlFrames(into: &writer, log: &frameLog) }
            if streams.hasStreamDataToSend { streams.writeStreamFrames(into: &writer, log: &frameLog) }
            if isProbe { addPing(ifNeededSince: before, writer: &writer) }
        }
        let isAckEliciting = frameLog.count > before
        guard writer.offset > packet.payloadOffset else {
            abandonPacket(packet, writer: &writer)
            return false
        }
        if isProbe, isAckEliciting { spaces.setProbes(spaces.probes(.application) - 1, in: .application) }
        return finishPacket(
            packet, level: .oneRTT, pathIndex: pathIndex, isAckEliciting: isAckEliciting, padTo: 0,
            isECNMarked: isMarked, writer: &writer, now: now)
    }

    // MARK: Challenges and responses

    /// A path with a response to give or a challenge to make; responses first.
    @inline(__always)
    private func pathWithFramesToSend(now: Instant) -> Int? {
        var challenged: Int?
        for index in 0..<paths.count where paths[index].canSendProbes {
            if paths[index].pendingResponse != nil { return index }
            if challenged == nil, paths[index].validator.isChallengeDue(now: now) { challenged = index }
        }
        return challenged
    }

    /// One datagram of probing frames on any path, padded to prove the path's size as well (RFC 9000, section 8.2.1).
    private mutating func transmitPathFrames(pathIndex: Int, into buffer: inout MutableRawSpan, now: Instant)
        -> Transmission?
    {
        let budget = paths[pathIndex].amplification.remaining
        let size = ConnectionConfiguration.minimumUDPPayload
        var writer = PacketWriter(&buffer)
        writer.setLimit(min(size, writer.capacity, budget))
        guard let packet = beginPacket(.oneRTT, pathIndex: pathIndex, writer: &writer) else { return nil }
        let isActive = pathIndex == paths.activeIndex
        var wantsPadding = false
        if let data = paths[pathIndex].pendingResponse {
            writer.writePathResponse(data)
            wantsPadding = true
            paths[pathIndex].pendingResponse = nil
        }
        if paths[pathIndex].validator.isChallengeDue(now: now) {
            let data = random.next()
            writer.writePathChallenge(data)
            frameLog.append(.pathChallenge(paths[pathIndex].id))
            wantsPadding = true
            paths[pathIndex].validator.challengeSent(data, isPadded: budget >= size, now: now)
            paths[pathIndex].statistics.challengesSent += 1
        }
        if isActive {
            // Anything else would move the peer, on another path than the active one (RFC 9000, section 9.1).
            if spaces.application.received.hasUnreportedAckEliciting {
                writeAck(in: .application, writer: &writer, now: now)
            }
        }
        let made = finishPacket(
            packet, level: .oneRTT, pathIndex: pathIndex, isAckEliciting: true,
            padTo: wantsPadding && budget >= size ? size : 0,
            writer: &writer, now: now)
        guard made else { return nil }
        let total = writer.offset
        return finishDatagram(size: total, segmentSize: total, pathIndex: pathIndex, datagrams: 1, now: now)
    }
}
