// SPDX-License-Identifier: Apache-2.0

/// What is left of a connection that is over: it answers stray packets for a while (RFC 9000, section 10.2).
struct ClosingState {
    /// When everything may be forgotten.
    var endsAt: Instant = .distantFuture
    /// A CONNECTION_CLOSE is to be sent.
    var isClosePending = false
    private var packetsReceived = 0
    private var nextAnswerAt = 1

    /// Answers the first, second, fourth, eighth … packet, so that two closing endpoints do not feed each other.
    mutating func packetReceived(now: Instant) {
        packetsReceived += 1
        guard packetsReceived >= nextAnswerAt else { return }
        nextAnswerAt *= 2
        isClosePending = true
    }
}

extension QUICConnection {
    /// Closes the connection with a code of the application's protocol. Nothing more is sent or received but this.
    /// Harmless if it is closed already.
    public mutating func close(applicationErrorCode: UInt64, reason: String, now: Instant) {
        clock = now
        beginClosing(
            .application(code: min(applicationErrorCode, Varint.maximum), reason: reason, byPeer: false), now: now)
    }

    /// Ends the connection for a fault, ours or the peer's.
    mutating func fail(_ error: TransportError, now: Instant) {
        beginClosing(.transport(error, byPeer: false), now: now)
    }

    private mutating func beginClosing(_ reason: CloseReason, now: Instant) {
        guard isOpen() else { return }
        over(reason)
        state = .closing
        closing.isClosePending = true
        closing.endsAt = now + probeTimeout(in: .application) * 3
    }

    /// Ends the connection at once and without a word.
    mutating func end(_ reason: CloseReason, now: Instant) {
        guard isOpen() else { return }
        over(reason)
        if reason == .statelessReset {
            // What the peer still has under way must not be answered (RFC 9000, section 10.3.1).
            state = .draining
            closing.endsAt = now + probeTimeout(in: .application) * 3
        } else {
            state = .closed
        }
    }

    /// The endpoint shuts down: no word is sent any more.
    public mutating func abandon(now: Instant) {
        end(.endpointClosed, now: now)
        state = .closed
    }

    private mutating func over(_ reason: CloseReason) {
        closeReason = reason
        events.append(.closed(reason))
        streams.closeAll()
        handshake.undecryptable = []
        tls = nil
    }

    /// The peer closed the connection: be silent until stray packets are gone.
    mutating func receiveClose(_ frame: ConnectionCloseFrame, bytes: RawSpan, now: Instant) {
        guard isOpen() else { return }
        let reason = String(decoding: bytes.copyBytes(in: frame.reason), as: UTF8.self)
        if frame.isApplication {
            over(.application(code: frame.errorCode, reason: reason, byPeer: true))
        } else {
            over(
                .transport(
                    TransportError(
                        TransportErrorCode(rawValue: frame.errorCode),
                        frameType: frame.frameType == 0 ? nil : frame.frameType, reason),
                    byPeer: true))
        }
        enterDraining(now: now)
    }

    private mutating func enterDraining(now: Instant) {
        state = .draining
        closing.isClosePending = false
        closing.endsAt = now + probeTimeout(in: .application) * 3
    }

    /// A packet that came while we are closing: if the peer closes, too, there is nobody left to tell.
    mutating func readClose(_ bytes: RawSpan, payload: Range<Int>, level: EncryptionLevel, now: Instant) {
        var parser = FrameParser(bytes, payload: payload)
        while let frame = try? parser.next() {
            if case .connectionClose = frame { return enterDraining(now: now) }
        }
    }

    /// Writes a datagram with CONNECTION_CLOSE in every level that the peer may be able to read (RFC 9000, section 10.2.3).
    mutating func transmitClose(into buffer: inout MutableRawSpan, now: Instant) -> Transmission? {
        guard closing.isClosePending, let reason = closeReason, paths.active.state != .transportLost else { return nil }
        closing.isClosePending = false
        let limit = min(
            ConnectionConfiguration.minimumUDPPayload, buffer.byteCount, paths.active.amplification.remaining)
        var writer = PacketWriter(&buffer)
        writer.setLimit(limit)
        for level in [EncryptionLevel.initial, .handshake, .oneRTT] where protection.canSeal(level) {
            if level == .oneRTT, !handshake.isComplete, role == .server { continue }
            // A server's Initial packet must be padded only if it elicits acknowledgements; a client's always.
            let isLast = level == .oneRTT || !protection.canSeal(level == .initial ? .handshake : .oneRTT)
            let padding = role == .client && protection.canSeal(.initial) && isLast ? limit : 0
            buildClosePacket(reason, level: level, padTo: padding, writer: &writer, now: now)
        }
        guard writer.offset > 0 else { return nil }
        return finishDatagram(
            size: writer.offset, segmentSize: writer.offset, pathIndex: paths.activeIndex, datagrams: 1, now: now)
    }

    private mutating func buildClosePacket(
        _ reason: CloseReason, level: EncryptionLevel, padTo: Int, writer: inout PacketWriter, now: Instant
    ) {
        guard let packet = beginPacket(level, pathIndex: paths.activeIndex, writer: &writer) else { return }
        let room = writer.remaining
        switch reason {
        case .application(let code, let text, _) where level == .oneRTT:
            writer.writeConnectionClose(errorCode: code, frameType: nil, reason: text, maximumReasonLength: room - 24)
        case .application:
            // What the application says is not for a peer that is not proved yet (RFC 9000, section 10.2.3).
            writer.writeConnectionClose(
                errorCode: TransportErrorCode.applicationError.rawValue, frameType: 0, reason: "",
                maximumReasonLength: 0)
        case .transport(let error, _):
            writer.writeConnectionClose(
                errorCode: error.code.rawValue, frameType: error.frameType ?? 0, reason: error.reason,
                maximumReasonLength: room - 24)
        default:
            writer.writeConnectionClose(
                errorCode: TransportErrorCode.noError.rawValue, frameType: 0, reason: "", maximumReasonLength: 0)
        }
        _ = finishPacket(
            packet, level: level, pathIndex: paths.activeIndex, isAckEliciting: false, padTo: padTo, writer: &writer,
            now: now)
    }
}
