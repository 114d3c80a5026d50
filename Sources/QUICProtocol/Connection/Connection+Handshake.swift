// SPDX-License-Identifier: Apache-2.0

/// How far the handshake is, and what is remembered of it to be checked.
struct HandshakeState: ~Copyable {
    /// The destination of the client's first Initial packet.
    let originalDestinationID: ConnectionID
    let startedAt: Instant
    /// TLS is done (RFC 9001, section 4.1.1).
    var isComplete = false
    /// The peer is known to be done, too (RFC 9001, section 4.1.2).
    var isConfirmed = false
    var hasPeerParameters = false
    var applicationProtocol: String?
    /// The source ID of the peer's first Initial packet: ours go there from then on (RFC 9000, section 7.2).
    var peerInitialSourceID: ConnectionID?
    /// The source ID of a Retry packet that was followed.
    var retrySourceID: ConnectionID?
    /// The token of a Retry packet, for the Initial packets from then on.
    var token: [UInt8] = []
    /// A packet of the peer's was authenticated: Retry and Version Negotiation come too late (RFC 9000, sections 6.2, 17.2.5.2).
    var hasReceivedPacket = false
    /// The client knows that the server has validated its address, and so may send freely.
    var peerCompletedAddressValidation = false
    /// The server has a HANDSHAKE_DONE frame to send.
    var isHandshakeDonePending = false
    /// Datagrams that came before their keys, to be read once those are there.
    var undecryptable: [EarlyDatagram] = []

    static let maximumUndecryptable = 8

    struct EarlyDatagram {
        var bytes: [UInt8]
        var tuple: FourTuple
        var ecn: ECNCodepoint
    }

    init(originalDestinationID: ConnectionID, startedAt: Instant) {
        self.originalDestinationID = originalDestinationID
        self.startedAt = startedAt
    }
}

extension QUICConnection {
    /// Hands what arrived of a level's CRYPTO stream to TLS, and takes out what TLS has to send and which keys it made.
    mutating func advanceHandshake(level: EncryptionLevel, now: Instant) throws(TransportError) {
        while let bytes = crypto[level].readContiguous() {
            guard tls != nil else {
                // After the handshake a server expects nothing more (RFC 9001, section 4.4 and 4.6.1).
                throw TransportError(
                    .tlsAlert(10), frameType: FrameType.crypto, "unexpected TLS message after the handshake")
            }
            try receiveTLS(bytes, level: level)
        }
        try drainTLS()
    }

    private mutating func receiveTLS(_ bytes: [UInt8], level: EncryptionLevel) throws(TransportError) {
        let result: Result<Void, TransportError> = bytes.withUnsafeBytes { pointer in
            do throws(TransportError) {
                try tls?.receive(pointer, level: level)
                return .success(())
            } catch {
                return .failure(error)
            }
        }
        try drainTLS()
        try result.get()
    }

    mutating func drainTLS() throws(TransportError) {
        while let output = tls?.nextOutput() {
            switch output {
            case .bytes(let level, let bytes):
                // A level that is over has no stream any more.
                if protection.canSeal(level) { crypto[level].enqueue(bytes) }
            case .secret(let secret, let suite, let level, let forReading):
                try protection.install(secret, suite: suite, level: level, forReading: forReading)
            }
        }
        if !handshake.hasPeerParameters, let encoded = tls?.peerTransportParameters {
            try apply(TransportParameters.decode(encoded, sentBy: role.peer))
        }
        if !handshake.isComplete, tls?.isComplete == true {
            guard handshake.hasPeerParameters else {
                throw TransportError(.tlsAlert(109), "the peer sent no transport parameters")
            }
            try handshakeCompleted(applicationProtocol: tls?.applicationProtocol ?? "")
        }
    }

    /// Checks the peer's parameters against what was seen (RFC 9000, section 7.3) and puts them in force.
    mutating func apply(_ parameters: TransportParameters) throws(TransportError) {
        func mismatch(_ name: String) -> TransportError {
            TransportError(.transportParameterError, "\(name) does not match the handshake's packets")
        }
        guard parameters.initialSourceConnectionID == handshake.peerInitialSourceID else {
            throw mismatch("initial_source_connection_id")
        }
        if role == .client {
            guard parameters.originalDestinationConnectionID == handshake.originalDestinationID else {
                throw mismatch("original_destination_connection_id")
            }
            guard parameters.retrySourceConnectionID == handshake.retrySourceID else {
                throw mismatch("retry_source_connection_id")
            }
            if let token = parameters.statelessResetToken { remoteIDs.setInitialToken(token) }
            if let preferred = parameters.preferredAddress {
                // Its ID has sequence number 1 and counts like any other (RFC 9000, section 5.1.1).
                _ = try remoteIDs.receive(
                    NewConnectionIDFrame(
                        sequence: 1, retirePriorTo: 0, connectionID: preferred.connectionID,
                        resetToken: preferred.resetToken))
                notePreferredAddress(preferred)
            }
        }
        peerParameters = parameters
        handshake.hasPeerParameters = true
        streams.setPeerParameters(parameters)
        ackFrequency.negotiated(parameters, now: clock)
        localIDs.setPeerLimit(parameters.activeConnectionIDLimit)
    }

    mutating func handshakeCompleted(applicationProtocol: String) throws(TransportError) {
        handshake.isComplete = true
        handshake.applicationProtocol = applicationProtocol
        if state == .handshaking { state = .established }
        events.append(.handshakeCompleted(applicationProtocol: applicationProtocol))
        setMaximumDatagramSize(initialDatagramSize, ofPathAt: paths.activeIndex)
        if role == .server {
            handshake.isHandshakeDonePending = true
            handshakeConfirmed()
            // A client that moved in mid-handshake is still to be proved.
            proveActivePath(now: clock)
        }
    }

    /// The largest datagram that a new path may be used with.
    var initialDatagramSize: Int {
        Int(
            min(
                UInt64(max(configuration.initialUDPPayload, ConnectionConfiguration.minimumUDPPayload)),
                peerParameters.maxUDPPayloadSize))
    }

    mutating func setMaximumDatagramSize(_ size: Int, ofPathAt index: Int) {
        paths[index].mtu.assume(size)
        paths[index].recovery.congestion.setMaximumDatagramSize(size)
    }

    /// Both sides are done: the Handshake keys go, and paths may be added (RFC 9001, section 4.9.2).
    mutating func handshakeConfirmed() {
        guard !handshake.isConfirmed else { return }
        handshake.isConfirmed = true
        handshake.peerCompletedAddressValidation = true
        protection.handshakeConfirmed()
        discard(.handshake)
        // Who completes the handshake can be reached where it was made (RFC 9000, section 8.1).
        if role == .client { paths.active.validated() }
        if role == .server {
            // A client sends no TLS message after its Finished.
            tls = nil
        }
        events.append(.handshakeConfirmed)
        startDiscovery(ofPathAt: paths.activeIndex)
        serveWaitingPaths(now: clock)
        offerPreferredAddress()
    }

    /// Forgets the keys of a level, and with them its packets in flight (RFC 9001, section 4.9; RFC 9002, section 6.4).
    mutating func discard(_ level: EncryptionLevel) {
        guard protection.canSeal(level) || protection.canOpen(level) else { return }
        protection.discard(level)
        ackOutcome.reset()
        spaces[level.space].removeAll(outcome: &ackOutcome)
        applyOutcome(now: clock)
        spaces.vacate(level.space)
        timers.probeTimeoutCount = 0
        crypto[level] = CryptoStream()
        if !protection.canOpen(.initial), !protection.canOpen(.handshake), handshake.isComplete {
            spaces.handshakeIsOver()
            crypto.handshakeIsOver()
        }
    }

    /// The server asks for a token: start over with it and with new keys (RFC 9000, section 17.2.5).
    mutating func receiveRetry(_ header: RetryHeader, datagram: borrowing MutableRawSpan) {
        guard role == .client, !handshake.hasReceivedPacket, handshake.retrySourceID == nil, header.token.count > 0,
            header.scid != remoteIDs.entries.first?.id
        else { return countDrop() }
        let isAuthentic = datagram.bytes.withUnsafeBytes { bytes in
            let packet = UnsafeRawBufferPointer(rebasing: bytes[header.packet.range])
            let tag = [UInt8](UnsafeRawBufferPointer(rebasing: bytes[header.integrityTag.range]))
            let body = UnsafeRawBufferPointer(rebasing: packet[..<(packet.count - tag.count)])
            return RetryIntegrity.isValid(
                tag: tag, version: version, originalDestinationConnectionID: handshake.originalDestinationID,
                retryPacketWithoutTag: body)
        }
        guard isAuthentic else { return countDrop() }
        handshake.retrySourceID = header.scid
        handshake.token = datagram.bytes.copyBytes(in: header.token)
        remoteIDs.replaceInitialID(with: header.scid)
        paths.active.destinationID = header.scid
        ackOutcome.reset()
        spaces.initial.removeAll(outcome: &ackOutcome)
        applyOutcome(now: clock)
        spaces.initial.releaseResolved()
        timers.probeTimeoutCount = 0
        crypto.initial.retransmitAllUnacknowledged()
        do throws(TransportError) {
            try protection.installInitialKeys(destinationConnectionID: header.scid)
        } catch {
            fail(error, now: clock)
        }
    }

    /// The server does not speak our version (RFC 9000, section 6.2).
    mutating func receiveVersionNegotiation(_ versions: [QUICVersion], now: Instant) {
        guard role == .client, !handshake.hasReceivedPacket, handshake.retrySourceID == nil, !versions.contains(version)
        else {
            return countDrop()
        }
        end(.versionNegotiationFailed(versions), now: now)
    }
}
