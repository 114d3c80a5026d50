// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// The bytes of a text in hexadecimal; white space is passed over.
func bytes(hex text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }.map { UInt8($0.hexDigitValue ?? 0) }
    return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

extension PacketProtection {
    /// A sealed packet with the given header, whose last bytes are the packet number.
    mutating func sealed(
        _ level: EncryptionLevel, header: [UInt8], packetNumberLength: Int, packetNumber: PacketNumber,
        payload: [UInt8]
    ) throws(TransportError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xee, count: header.count + payload.count + Self.tagLength)
        var span = bytes.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        writer.writeBytes(header)
        writer.writeBytes(payload)
        try seal(
            level, writer: &writer, packetStart: 0, packetNumberOffset: header.count - packetNumberLength,
            packetNumberLength: packetNumberLength, packetNumber: packetNumber)
        return bytes
    }

    /// The number and the plaintext of a packet, or nil if it is dropped.
    mutating func opened(
        _ level: EncryptionLevel, _ packet: [UInt8], packetNumberOffset: Int, largestReceived: PacketNumber? = nil,
        now: Instant = .zero, keyDiscardDelay: Nanoseconds = .seconds(3)
    ) throws(TransportError) -> (packetNumber: PacketNumber, payload: [UInt8])? {
        var bytes = packet
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        let opened = try open(
            level, datagram: &raw, packet: 0..<packet.count, packetNumberOffset: packetNumberOffset,
            largestReceived: largestReceived, now: now, keyDiscardDelay: keyDiscardDelay)
        return opened.map { ($0.packetNumber, Array(bytes[$0.payload])) }
    }
}

/// A connection's two ends with 1-RTT keys, and packets with an empty connection ID.
struct ProtectedPair: ~Copyable {
    var client = PacketProtection(role: .client, version: .v1)
    var server = PacketProtection(role: .server, version: .v1)

    init(suite: CipherSuite = .aes128GCM, confirmed: Bool = true) throws {
        let up = try secret(suite: suite, seed: 1)
        let down = try secret(suite: suite, seed: 2)
        try client.install(up, suite: suite, level: .oneRTT, forReading: false)
        try client.install(down, suite: suite, level: .oneRTT, forReading: true)
        try server.install(down, suite: suite, level: .oneRTT, forReading: false)
        try server.install(up, suite: suite, level: .oneRTT, forReading: true)
        if confirmed {
            client.handshakeConfirmed()
            server.handshakeConfirmed()
        }
    }
}

func secret(suite: CipherSuite, seed: UInt64) throws -> TrafficSecret {
    var random = RandomSource.seeded(seed)
    guard let secret = TrafficSecret(random.bytes(suite.secretLength)) else {
        throw TransportError(.internalError, "no secret")
    }
    return secret
}

extension PacketProtection {
    /// A 1-RTT packet with a PING frame in the current key phase.
    mutating func ping(_ number: PacketNumber) throws(TransportError) -> [UInt8] {
        let first: UInt8 = 0x40 | (writeKeyPhase ? 0x04 : 0) | 0b11
        let header = [first] + (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * UInt64($0))) }
        return try sealed(
            .oneRTT, header: header, packetNumberLength: 4, packetNumber: number, payload: [1, 0, 0, 0])
    }

    /// Whether such a packet is authentic.
    mutating func accepts(
        _ packet: [UInt8], now: Instant = .zero, keyDiscardDelay: Nanoseconds = .seconds(3)
    ) throws(TransportError) -> Bool {
        let opened = try opened(.oneRTT, packet, packetNumberOffset: 1, now: now, keyDiscardDelay: keyDiscardDelay)
        return opened?.payload == [1, 0, 0, 0]
    }
}
