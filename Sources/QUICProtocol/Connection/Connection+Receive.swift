// SPDX-License-Identifier: Apache-2.0

extension QUICConnection {
    /// Takes in one datagram, which is decrypted in place.
    ///
    /// - Returns: whether any of its packets was authenticated.
    @discardableResult
    mutating func receive(
        _ datagram: inout MutableRawSpan, on tuple: FourTuple, ecn: ECNCodepoint, now: Instant
    ) -> Bool {
        clock = now
        guard state != .closed else { return false }
        let known = paths.index(of: tuple)
        if role == .client, known == nil, wildcardPath(for: tuple) == nil {
            // A server does not move, but to its preferred address (RFC 9000, section 9).
            countDrop()
            return false
        }
        statistics.datagramsReceived += 1
        statistics.bytesReceived += UInt64(datagram.byteCount)
        timers.isAmplificationBlocked = false
        if let known { paths[known].amplification.datagramReceived(datagram.byteCount) }
        let arrival = Arrival(tuple: tuple, datagramSize: datagram.byteCount, ecn: ecn, now: now)
        let authenticated = receivePackets(&datagram, arrival: arrival)
        if authenticated { readEarlyDatagrams(now: now) }
        return authenticated
    }

    /// Takes in the datagrams from `offset` on that begin with a short header for `id`, the first of which does. Moves the
    /// offset behind them.
    mutating func receive(
        _ datagrams: inout MutableRawSpan, from offset: inout Int, segmentSize: Int, for id: ConnectionID,
        on tuple: FourTuple, ecn: ECNCodepoint, now: Instant
    ) {
        repeat {
            let end = min(offset + max(segmentSize, 1), datagrams.byteCount)
            var datagram = datagrams._mutatingExtracting(offset..<end)
            receive(&datagram, on: tuple, ecn: ecn, now: now)
            offset = end
        } while offset < datagrams.byteCount && ShortHeader.begins(datagrams.bytes, at: offset, destination: id)
    }

    /// What all packets of one datagram have in common.
    struct Arrival {
        var tuple: FourTuple
        var datagramSize: Int
        var ecn: ECNCodepoint
        var now: Instant
    }

    mutating func countDrop() { statistics.packetsDropped += 1 }

    /// A client on a wildcard socket does not know its address until a packet comes in on it: the path that this may be.
    func wildcardPath(for tuple: FourTuple) -> Int? {
        for index in 0..<paths.count {
            let known = paths[index].tuple
            if known.local.isUnspecified, known.transport == tuple.transport, known.remote == tuple.remote,
                known.local.port == tuple.local.port
            {
                return index
            }
        }
        return nil
    }

    private mutating func receivePackets(_ datagram: inout MutableRawSpan, arrival: Arrival) -> Bool {
        var offset = 0
        var authenticated = false
        var isFirst = true
        while offset < datagram.byteCount, isOpen() || state == .closing || state == .draining {
            guard
                let header = PacketHeader.parse(
                    datagram.bytes, at: offset,
                    shortHeaderConnectionIDLength: Int(localIDs.active.first?.id.length ?? 0))
            else { break }
            do throws(TransportError) {
                switch header {
                case .short(let short):
                    offset = short.packet.upperBound
                    if try receiveShort(short, datagram: &datagram, arrival: arrival) { authenticated = true }
                case .long(let long):
                    offset = long.packet.upperBound
                    if try receiveLong(long, datagram: &datagram, arrival: arrival) { authenticated = true }
                case .retry(let retry):
                    if isFirst { receiveRetry(retry, datagram: datagram) }
                    return authenticated
                case .versionNegotiation(let negotiation):
                    // It answers our packet, so it names the IDs of that (RFC 9000, section 17.2.1).
                    if isFirst, negotiation.scid == handshake.originalDestinationID,
                        negotiation.dcid == localIDs.active.first?.id
                    {
                        receiveVersionNegotiation(
                            VersionNegotiation.versions(of: negotiation, in: datagram.bytes), now: arrival.now)
                    }
                    return authenticated
                case .unknownVersion:
                    countDrop()
                    return authenticated
                }
            } catch {
                // Only what was authenticated can fail a connection.
                fail(error, now: arrival.now)
                return true
            }
            isFirst = false
        }
        return authenticated
    }

    private mutating func receiveLong(
        _ header: LongHeader, datagram: inout MutableRawSpan, arrival: Arrival
    ) throws(TransportError) -> Bool {
        let level: EncryptionLevel
        switch header.type {
        case .initial: level = .initial
        case .handshake: level = .handshake
        case .zeroRTT, .retry:
            countDrop()
            return false
        }
        // A client's Initial packets carry a token or none; a server's carry none (RFC 9000, section 17.2.2).
        guard header.version == version, !(level == .initial && role == .client && header.token.count > 0) else {
            countDrop()
            return false
        }
        // RFC 9000, section 14.1: a client pads every datagram with an Initial packet.
        guard
            level == .handshake || role == .client || arrival.datagramSize >= ConnectionConfiguration.minimumUDPPayload
        else {
            countDrop()
            return false
        }
        // The peer's source ID is fixed by its first packet (RFC 9000, section 7.2).
        if let known = handshake.peerInitialSourceID, known != header.scid {
            countDrop()
            return false
        }
        guard
            try receivePacket(
                level, packet: header.packet, packetNumberOffset: header.packetNumberOffset, destination: header.dcid,
                source: header.scid, datagram: &datagram, arrival: arrival)
        else { return false }
        if level == .handshake, role == .server {
            // The client has our Handshake keys, so it owns its address (RFC 9000, section 8.1).
            // That is the address which our Initial packets went to, and no other (RFC 9000, section 8.1).
            if !paths.hasExisted(PathID(1)), let index = paths.index(of: arrival.tuple) { paths[index].validated() }
            discard(.initial)
        }
        return true
    }

    private mutating func receiveShort(
        _ header: ShortHeader, datagram: inout MutableRawSpan, arrival: Arrival
    ) throws(TransportError) -> Bool {
        // Until TLS is done a peer's 1-RTT packets wait, although their keys may be there (RFC 9001, section 5.7).
        guard role == .client || handshake.isComplete else {
            keepEarly(datagram, arrival: arrival)
            return false
        }
        return try receivePacket(
            .oneRTT, packet: header.packet, packetNumberOffset: header.packetNumberOffset, destination: header.dcid,
            source: nil, datagram: &datagram, arrival: arrival)
    }

    /// Opens one packet and handles its frames.
    ///
    /// - Returns: whether it was authenticated, duplicate or not.
    private mutating func receivePacket(
        _ level: EncryptionLevel, packet: Range<Int>, packetNumberOffset: Int, destination: ConnectionID,
        source: ConnectionID?, datagram: inout MutableRawSpan, arrival: Arrival
    ) throws(TransportError) -> Bool {
        guard protection.canOpen(level) else {
            keepEarly(datagram, arrival: arrival)
            return false
        }
        let space = level.space
        let opened = try protection.open(
            level, datagram: &datagram, packet: packet, packetNumberOffset: packetNumberOffset,
            largestReceived: spaces[space].received.largest, now: arrival.now, keyDiscardDelay: keyDiscardDelay)
        guard let opened else {
            countDrop()
            if level == .oneRTT, isStatelessReset(datagram.bytes) { end(.statelessReset, now: arrival.now) }
            return false
        }
        if state == .closing || state == .draining {
            closing.packetReceived(now: arrival.now)
            if state == .closing { readClose(datagram.bytes, payload: opened.payload, level: level, now: arrival.now) }
            return true
        }
        guard !spaces[space].received.contains(opened.packetNumber) else {
            countDrop()
            return true
        }
        guard !opened.payload.isEmpty else {
            throw TransportError(.protocolViolation, "a packet without frames")
        }
        noteAuthenticated(source: source, now: arrival.now)
        guard let pathIndex = arrivalPath(arrival) else {
            countDrop()
            return true
        }
        paths[pathIndex].statistics.packetsReceived += 1
        paths[pathIndex].statistics.bytesReceived += UInt64(packet.count)
        let pathID = paths[pathIndex].id
        let isHighest = spaces[space].received.largest.map { opened.packetNumber > $0 } ?? true

        if role == .server, isHighest || paths[pathIndex].localIDSequence == nil {
            noteLocalID(destination, level: level, onPathAt: pathIndex)
        }
        let contents = try receiveFrames(
            datagram.bytes, payload: opened.payload, level: level, path: pathID, destination: destination,
            arrival: arrival)
        guard isOpen() else { return true }
        spaces[space].received.record(
            opened.packetNumber, isAckEliciting: contents.isAckEliciting, asksForAck: contents.asksForAck,
            ecn: arrival.ecn, now: arrival.now)
        packetArrived(
            on: pathID, level: level, isHighest: isHighest, isProbing: contents.isProbing,
            now: arrival.now)
        if contents.hasCrypto { try advanceHandshake(level: level, now: arrival.now) }
        if contents.hasStreamData { timers.silenceInterval = .zero }
        if level == .oneRTT { noteArrival(on: pathID, hasStreamData: contents.hasStreamData, now: arrival.now) }
        return true
    }

    /// The first effects of a packet that was authenticated and is no duplicate.
    private mutating func noteAuthenticated(source: ConnectionID?, now: Instant) {
        statistics.packetsReceived += 1
        handshake.hasReceivedPacket = true
        if timers.probeTimeoutCount > 1 { probeAfterSilence(now: now) }
        timers.received(now: now)
        if handshake.peerInitialSourceID == nil, let source {
            handshake.peerInitialSourceID = source
            remoteIDs.replaceInitialID(with: source)
            paths.active.destinationID = source
        }
    }

    struct PacketContents {
        var isAckEliciting = false
        var isProbing = true
        var hasCrypto = false
        var hasStreamData = false
        var asksForAck = false
    }

    private mutating func receiveFrames(
        _ bytes: RawSpan, payload: Range<Int>, level: EncryptionLevel, path: PathID, destination: ConnectionID,
        arrival: Arrival
    ) throws(TransportError) -> PacketContents {
        var contents = PacketContents()
        var parser = FrameParser(bytes, payload: payload)
        while let frame = try parser.next() {
            guard frame.isPermitted(at: level) else {
                throw TransportError(.protocolViolation, frameType: frame.type, "not permitted in this type of packet")
            }
            if frame.isAckEliciting { contents.isAckEliciting = true }
            if !frame.isProbing { contents.isProbing = false }
            switch frame {
            case .crypto: contents.hasCrypto = true
            case .stream: contents.hasStreamData = true
            case .immediateAck: contents.asksForAck = true
            default: break
            }
            try handle(frame, bytes: bytes, level: level, path: path, destination: destination, arrival: arrival)
            guard isOpen() else { break }
        }
        return contents
    }

    // MARK: Packets that came before their keys

    /// Keeps a datagram whose keys may still come: reordering and loss in the handshake would else cost a round trip.
    private mutating func keepEarly(_ datagram: borrowing MutableRawSpan, arrival: Arrival) {
        guard !handshake.isComplete, isOpen(), handshake.undecryptable.count < HandshakeState.maximumUndecryptable,
            datagram.byteCount <= 1_500
        else { return countDrop() }
        let bytes = datagram.bytes.copyBytes(in: ByteRange(offset: 0, count: datagram.byteCount))
        if handshake.undecryptable.last?.bytes == bytes { return }
        handshake.undecryptable.append(.init(bytes: bytes, tuple: arrival.tuple, ecn: arrival.ecn))
    }

    private mutating func readEarlyDatagrams(now: Instant) {
        guard !handshake.undecryptable.isEmpty,
            handshake.isComplete || (role == .client && protection.canOpen(.handshake))
        else {
            return
        }
        let early = handshake.undecryptable
        handshake.undecryptable = []
        for datagram in early {
            var bytes = datagram.bytes
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            _ = receivePackets(
                &raw,
                arrival: Arrival(tuple: datagram.tuple, datagramSize: datagram.bytes.count, ecn: datagram.ecn, now: now)
            )
        }
    }

    // MARK: Stateless reset

    /// Whether the datagram ends with a token of an ID that we use (RFC 9000, section 10.3.1).
    private func isStatelessReset(_ bytes: RawSpan) -> Bool {
        guard bytes.byteCount >= StatelessReset.minimumSize,
            let token = StatelessResetToken(bytes, at: bytes.byteCount - StatelessResetToken.length)
        else { return false }
        return remoteIDs.recognizes(token)
    }
}
