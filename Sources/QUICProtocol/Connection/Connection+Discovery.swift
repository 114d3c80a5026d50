// SPDX-License-Identifier: Apache-2.0

/// Finding out what a path bears: the size of datagrams (RFC 9000, section 14.3) and ECN marks (section 13.4).
extension QUICConnection {
    /// Starts on a path that carries the application's data and was not looked at before. One that did before goes on where
    /// it was (M13).
    mutating func startDiscovery(ofPathAt index: Int) {
        guard handshake.isConfirmed else { return }
        if configuration.searchesPathMTU, paths[index].mtu.phase == .idle {
            paths[index].mtu.start(ceiling: largestDatagram(onPathAt: index))
        }
        if configuration.usesECN, paths[index].ecn.state == .off {
            changeECN(ofPathAt: index) { $0.start() }
        }
    }

    /// The most bytes of UDP payload worth trying.
    private func largestDatagram(onPathAt index: Int) -> Int {
        // An Ethernet of 1,500 bytes without the headers of IP and UDP.
        let usual = paths[index].tuple.remote.family == .ipv4 ? 1_472 : 1_452
        return Int(min(UInt64(max(configuration.maxUDPPayload ?? usual, 0)), peerParameters.maxUDPPayloadSize))
    }

    // MARK: Datagram sizes

    /// A packet of a size that the path may or may not bear (RFC 9000, section 14.4).
    mutating func transmitMTUProbe(size: Int, into buffer: inout MutableRawSpan, now: Instant) -> Transmission? {
        let index = paths.activeIndex
        guard size <= buffer.byteCount, paths[index].recovery.canSend(bytes: size) else { return nil }
        var writer = PacketWriter(&buffer)
        writer.setLimit(size)
        guard let packet = beginPacket(.oneRTT, pathIndex: index, writer: &writer) else { return nil }
        writer.writePing()
        frameLog.append(.ping)
        let number = spaces.application.nextPacketNumber
        guard
            finishPacket(
                packet, level: .oneRTT, pathIndex: index, isAckEliciting: true, padTo: size, isMTUProbe: true,
                writer: &writer, now: now)
        else { return nil }
        paths[index].mtu.probeSent(number, size: size)
        paths[index].statistics.mtuProbesSent += 1
        let total = writer.offset
        return finishDatagram(size: total, segmentSize: total, pathIndex: index, datagrams: 1, now: now)
    }

    /// What `ackOutcome` says about the sizes that paths bear, and about marked packets that do not arrive.
    mutating func noteSizes(space: PacketNumberSpaceID) {
        guard space == .application else { return }
        noteProvedSizes()
        var newestLarge: (number: PacketNumber, path: PathID)?
        for position in 0..<ackOutcome.acknowledged.count {
            let packet = ackOutcome.acknowledged[position]
            if packet.isMTUProbe { probeAcknowledged(packet) }
            guard Int(packet.size) > PathMTUSearch.base else { continue }
            if let newest = newestLarge, newest.path == packet.path {
                newestLarge = (max(newest.number, packet.number), packet.path)
            } else {
                noteLargeAcknowledged(newestLarge)
                newestLarge = (packet.number, packet.path)
            }
        }
        noteLargeAcknowledged(newestLarge)
        for position in 0..<ackOutcome.lost.count {
            let packet = ackOutcome.lost[position]
            guard let index = paths.index(of: packet.path) else { continue }
            if packet.isECNMarked { changeECN(ofPathAt: index) { $0.packetLost() } }
            if packet.isMTUProbe {
                paths[index].mtu.probeLost(packet.number, pathMayBeDead: packet.isOverdue)
            } else if !packet.isOverdue, paths[index].mtu.packetLost(packet.number, size: Int(packet.size)) {
                fallBackToBaseSize(ofPathAt: index)
            }
        }
    }

    /// A path that has borne 1,200 bytes need not answer a challenge to prove that it does (RFC 9000, section 8.2.1).
    private mutating func noteProvedSizes() {
        for index in 0..<paths.count where paths[index].isProvingSize {
            let id = paths[index].id
            for position in 0..<ackOutcome.acknowledged.count {
                let packet = ackOutcome.acknowledged[position]
                guard packet.path == id, Int(packet.size) >= PathMTUSearch.base else { continue }
                paths[index].validated()
                break
            }
        }
    }

    private mutating func noteLargeAcknowledged(_ newest: (number: PacketNumber, path: PathID)?) {
        guard let newest, let index = paths.index(of: newest.path) else { return }
        paths[index].mtu.largePacketAcknowledged(newest.number)
    }

    private mutating func probeAcknowledged(_ packet: SentPacket) {
        guard let index = paths.index(of: packet.path) else { return }
        let before = paths[index].mtu.current
        if paths[index].mtu.probeAcknowledged(packet.number) {
            datagramSizeChanged(ofPathAt: index, from: before, .probed)
        }
    }

    /// The system refused datagrams of that size on a path (EMSGSIZE).
    mutating func datagramRefused(size: Int, onPathAt index: Int) {
        let before = paths[index].mtu.current
        if paths[index].mtu.refused(size: size) { datagramSizeChanged(ofPathAt: index, from: before, .refused) }
    }

    private mutating func fallBackToBaseSize(ofPathAt index: Int) {
        let before = paths[index].mtu.current
        guard before > PathMTUSearch.base else { return }
        paths[index].mtu.fallBack()
        datagramSizeChanged(ofPathAt: index, from: before, .blackHole)
    }

    private mutating func datagramSizeChanged(ofPathAt index: Int, from before: Int, _ change: DatagramSizeChange) {
        let size = paths[index].mtu.current
        paths[index].recovery.congestion.setMaximumDatagramSize(size)
        events.append(.path(.datagramSizeChanged(paths[index].id, from: before, to: size, change)))
    }

    /// A probe timeout expired on the active path: it may be for the size of the packets or their marks that nothing is heard.
    mutating func suspectSizeAndMarks() {
        let index = paths.activeIndex
        let count = timers.probeTimeoutCount
        if count >= PathMTUSearch.blackHoleTimeouts { fallBackToBaseSize(ofPathAt: index) }
        changeECN(ofPathAt: index) { $0.probeTimeoutExpired() }
    }

    // MARK: ECN

    /// Packets leave with ECT(0). The test counts those in flight only: of the others, nobody ever hears that they were lost.
    @inline(__always)
    mutating func noteMarked(packets count: Int, inFlight: Int, onPathAt index: Int) {
        ecnReports.marksSent += UInt64(count)
        if paths[index].ecn.state == .testing { changeECN(ofPathAt: index) { $0.packetsSent(inFlight) } }
    }

    /// Compares the marks that the peer reports with those of the packets it acknowledges (RFC 9000, section 13.4.2.1).
    mutating func receiveECNReport(_ counts: ECNCounts?, now: Instant) {
        let verdict = ecnReports.receive(counts, newlyAcknowledged: ackOutcome.ecnMarkedCount)
        guard verdict != .none, let newest = ackOutcome.largestNewlyAcknowledged,
            let index = paths.index(of: newest.path)
        else { return }
        switch verdict {
        case .none:
            break
        case .invalid:
            // Which path did it cannot be told when packets of several are acknowledged at once.
            if ackOutcome.largestByPath.count == 1 { changeECN(ofPathAt: index) { $0.failed() } }
        case .valid(let marks):
            if ackOutcome.ecnMarkedCount > 0, ackOutcome.largestByPath.count == 1,
                paths[index].ecn.state != .capable
            {
                changeECN(ofPathAt: index) { $0.confirmed() }
            }
            guard marks > 0, paths[index].ecn.state == .capable else { return }
            paths[index].statistics.congestionMarks += marks
            // As one loss would be taken, once a round trip (RFC 9002, section 7.1).
            paths[index].recovery.pacer.congested()
            paths[index].recovery.congestion.congestionEvent(
                newestLostSentAt: newest.timeSent, now: now, isECN: true)
        }
    }

    mutating func heardAfterTimeouts() {
        changeECN(ofPathAt: paths.activeIndex) { $0.heardAgain() }
    }

    private mutating func changeECN(ofPathAt index: Int, _ change: (inout ECNValidation) -> Void) {
        let before = paths[index].ecn.state
        change(&paths[index].ecn)
        let after = paths[index].ecn.state
        if after != before { events.append(.path(.ecnChanged(paths[index].id, from: before, to: after))) }
    }
}
