// SPDX-License-Identifier: Apache-2.0

extension QUICConnection {
    /// Writes a packet's header and leaves room for the tag below the writer's limit. The caller writes frames, logs
    /// them in `frameLog`, and calls `finishPacket` or `abandonPacket`.
    ///
    /// - Returns: nil if there is no room for a packet, or no key or connection ID to make one.
    mutating func beginPacket(
        _ level: EncryptionLevel, pathIndex: Int, writer: inout PacketWriter
    ) -> PacketStart? {
        guard protection.canSeal(level), let destination = paths[pathIndex].destinationID else { return nil }
        let number = spaces[level.space].nextPacketNumber
        let length = PacketNumberCoding.encodedLength(
            number, largestAcknowledged: spaces[level.space].largestAcknowledged)
        let start = writer.offset
        let packet: PacketStart
        switch level {
        case .oneRTT:
            packet = writer.beginShortPacket(
                destination: destination, spin: false, keyPhase: protection.writeKeyPhase, packetNumber: number,
                packetNumberLength: length)
        case .initial, .handshake, .earlyData:
            packet = writer.beginLongPacket(
                type: level == .initial ? .initial : level == .handshake ? .handshake : .zeroRTT, version: version,
                destination: destination,
                source: localIDs.active.first?.id ?? .empty, token: level == .initial ? handshake.token : [],
                packetNumber: number, packetNumberLength: length)
        }
        let limit = writer.limit - PacketProtection.tagLength
        // Four bytes from the packet number on, at least, are needed for the header protection's sample.
        guard !writer.overflowed, writer.offset + 4 <= limit else {
            writer.truncate(to: start)
            return nil
        }
        writer.setLimit(limit)
        return packet
    }

    /// Drops the packet being written: it carries nothing. The limit is again that of the datagram.
    mutating func abandonPacket(_ packet: PacketStart, writer: inout PacketWriter) {
        writer.truncate(to: packet.start)
        writer.setLimit(writer.limit + PacketProtection.tagLength)
    }

    /// Pads, protects and records the packet being written.
    ///
    /// - Parameters:
    ///   - padTo: where the datagram is to end at least, from the start of the writer's memory.
    ///   - isECNMarked: its datagram leaves as ECT(0).
    /// - Returns: whether the packet was made.
    mutating func finishPacket(
        _ packet: PacketStart, level: EncryptionLevel, pathIndex: Int, isAckEliciting: Bool, padTo: Int,
        isMTUProbe: Bool = false, isECNMarked: Bool = false, writer: inout PacketWriter, now: Instant
    ) -> Bool {
        let minimum = max(packet.packetNumberOffset + 4, padTo - PacketProtection.tagLength)
        let isPadded = writer.offset < minimum
        if isPadded { writer.writeZeros(min(minimum, writer.limit) - writer.offset) }
        writer.setLimit(writer.limit + PacketProtection.tagLength)
        writer.finishLength(packet, tagLength: PacketProtection.tagLength)
        let number = spaces[level.space].nextPacketNumber
        do throws(TransportError) {
            guard !writer.overflowed else {
                throw TransportError(.internalError, "a packet did not fit its datagram")
            }
            try protection.seal(
                level, writer: &writer, packetStart: packet.start, packetNumberOffset: packet.packetNumberOffset,
                packetNumberLength: packet.packetNumberLength, packetNumber: number)
        } catch {
            writer.truncate(to: packet.start)
            frameLog.removeAll()
            fail(error, now: now)
            return false
        }
        let size = writer.offset - packet.start
        for index in 0..<frameLog.count { spaces[level.space].logFrame(frameLog[index]) }
        frameLog.removeAll()
        let isInFlight = isAckEliciting || isPadded && closeReason == nil
        spaces[level.space].packetSent(
            time: now, path: paths[pathIndex].id, size: size, isAckEliciting: isAckEliciting, isInFlight: isInFlight,
            isMTUProbe: isMTUProbe, isECNMarked: isECNMarked)
        timers.isMemoryReleased = false
        statistics.packetsSent += 1
        paths[pathIndex].statistics.packetsSent += 1
        paths[pathIndex].recovery.packetSent(
            time: now, size: size, isAckEliciting: isAckEliciting, isInFlight: isInFlight)
        if isAckEliciting {
            timers.ackElicitingSent(now: now)
            timers.lastSentAt = now
            if level == .oneRTT, timers.answerAwaitedSince == nil, pathIndex == paths.activeIndex {
                timers.answerAwaitedSince = now
            }
        }
        return true
    }

    /// Accounts for datagrams that are about to leave.
    mutating func finishDatagram(
        size: Int, segmentSize: Int, pathIndex: Int, datagrams: Int, ecn: ECNCodepoint = .notECT, now: Instant
    ) -> Transmission {
        paths[pathIndex].amplification.datagramSent(size)
        paths[pathIndex].lastUsed = now
        paths[pathIndex].statistics.bytesSent += UInt64(size)
        statistics.bytesSent += UInt64(size)
        statistics.datagramsSent += UInt64(datagrams)
        return Transmission(
            path: paths[pathIndex].id, tuple: paths[pathIndex].tuple, byteCount: size, segmentSize: segmentSize,
            ecn: ecn)
    }

    // MARK: Frames

    /// Writes an ACK frame if there is news to report.
    mutating func writeAck(in space: PacketNumberSpaceID, writer: inout PacketWriter, now: Instant) {
        if let largest = spaces[space].received.writeAck(
            into: &writer, delayExponent: ackDelayExponent, now: now)
        {
            frameLog.append(.ack(largest: largest))
        }
    }

    /// Writes the frames that manage the connection, as far as they fit.
    mutating func writeConnectionFrames(writer: inout PacketWriter) {
        if handshake.isHandshakeDonePending, writer.remaining >= FrameSize.handshakeDone {
            writer.writeHandshakeDone()
            frameLog.append(.handshakeDone)
            handshake.isHandshakeDonePending = false
        }
        if ackFrequency.hasFrames { writeAckFrequencyFrames(writer: &writer) }
        while let sequence = remoteIDs.pendingRetirements.first,
            writer.remaining >= FrameSize.retireConnectionID(sequence: sequence)
        {
            writer.writeRetireConnectionID(sequence: sequence)
            frameLog.append(.retireConnectionID(sequence: sequence))
            remoteIDs.retirementSent()
        }
        while let sequence = localIDs.pendingAnnouncements.first {
            guard let frame = localIDs.announcement(sequence) else {
                localIDs.announcementSent()
                continue
            }
            guard writer.remaining >= FrameSize.newConnectionID(frame) else { break }
            writer.writeNewConnectionID(frame)
            frameLog.append(.newConnectionID(sequence: sequence))
            localIDs.announcementSent()
        }
    }

    private mutating func writeAckFrequencyFrames(writer: inout PacketWriter) {
        if ackFrequency.isPending {
            let frame = ackFrequency.frame
            if writer.remaining >= FrameSize.ackFrequency(frame) {
                writer.writeAckFrequency(frame)
                frameLog.append(.ackFrequency(sequence: frame.sequence))
                ackFrequency.frameSent()
            }
        }
        if ackFrequency.wantsImmediateAck, writer.remaining >= FrameSize.immediateAck {
            writer.writeImmediateAck()
            frameLog.append(.immediateAck)
            ackFrequency.immediateAckSent()
        }
    }

    @inline(__always)
    var hasConnectionFrames: Bool {
        handshake.isHandshakeDonePending || ackFrequency.hasFrames || !remoteIDs.pendingRetirements.isEmpty
            || !localIDs.pendingAnnouncements.isEmpty
    }
}
