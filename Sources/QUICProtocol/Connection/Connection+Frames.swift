// SPDX-License-Identifier: Apache-2.0

extension QUICConnection {
    /// Hands one frame to the room that it concerns. That it may come at this level has been checked.
    mutating func handle(
        _ frame: Frame, bytes: RawSpan, level: EncryptionLevel, path: PathID, destination: ConnectionID,
        arrival: Arrival
    ) throws(TransportError) {
        switch frame {
        case .padding, .ping:
            break
        case .stream(let frame):
            try receiveStream(frame, bytes: bytes, now: arrival.now)
        case .ack(let frame):
            try receiveAck(frame, bytes: bytes, space: level.space, on: path, now: arrival.now)
        case .crypto(let frame):
            try receiveCrypto(frame, bytes: bytes, level: level)
        case .resetStream(let frame):
            try streams.receive(frame)
        case .stopSending(let frame):
            try streams.receive(frame)
        case .maxData(let limit):
            streams.receiveMaxData(limit)
        case .maxStreamData(let id, let limit):
            try streams.receiveMaxStreamData(id, limit)
        case .maxStreams(let direction, let limit):
            streams.receiveMaxStreams(direction, limit)
        case .dataBlocked(let limit):
            streams.receiveDataBlocked(at: limit)
        case .streamDataBlocked(let id, let limit):
            try streams.receiveStreamDataBlocked(id, at: limit)
        case .streamsBlocked(let direction, let limit):
            streams.receiveStreamsBlocked(direction, at: limit)
        case .newToken:
            guard role == .client else {
                throw TransportError(.protocolViolation, frameType: frame.type, "only a server gives tokens")
            }
        case .newConnectionID(let frame):
            try receiveNewConnectionID(frame, now: arrival.now)
        case .retireConnectionID(let sequence):
            try receiveRetireConnectionID(sequence, packetID: destination, now: arrival.now)
        case .pathChallenge(let data):
            receivePathChallenge(data, on: path)
        case .pathResponse(let data):
            receivePathResponse(data, on: path, now: arrival.now)
        case .connectionClose(let frame):
            receiveClose(frame, bytes: bytes, now: arrival.now)
        case .handshakeDone:
            guard role == .client else {
                throw TransportError(
                    .protocolViolation, frameType: frame.type, "only a server says that the handshake is done")
            }
            guard handshake.isComplete else {
                throw TransportError(.protocolViolation, frameType: frame.type, "the handshake is not done")
            }
            handshakeConfirmed()
        case .ackFrequency(let frame):
            try spaces.application.received.request(frame, minAckDelay: configuration.minAckDelay)
        case .immediateAck:
            // With the packet's number it is noted that an acknowledgement is due.
            break
        }
    }

    private mutating func receiveStream(_ frame: StreamFrame, bytes: RawSpan, now: Instant) throws(TransportError) {
        let rtt = paths.active.recovery.rtt.smoothed
        try bytes.withUnsafeBytes { pointer throws(TransportError) in
            try streams.receive(
                frame, bytes: UnsafeRawBufferPointer(rebasing: pointer[frame.data.range]), now: now, rtt: rtt)
        }
    }

    private mutating func receiveCrypto(_ frame: CryptoFrame, bytes: RawSpan, level: EncryptionLevel)
        throws(TransportError)
    {
        try bytes.withUnsafeBytes { pointer throws(TransportError) in
            try crypto[level].receive(
                offset: frame.offset, bytes: UnsafeRawBufferPointer(rebasing: pointer[frame.data.range]))
        }
    }

    private mutating func receiveRetireConnectionID(
        _ sequence: UInt64, packetID: ConnectionID, now: Instant
    ) throws(TransportError) {
        // A packet sent before the retirement may come after it.
        let linger = probeTimeout(in: .application) * 3
        let gone = try localIDs.retire(sequence: sequence, usedByPacket: packetID, now: now, lingerUntil: now + linger)
        for id in gone { routingChanges.append(.removeID(id)) }
        forgetPaths(usingLocalID: sequence)
    }
}
