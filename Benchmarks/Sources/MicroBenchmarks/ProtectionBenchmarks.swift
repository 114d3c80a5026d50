// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

private let packetSize = 1_452
/// The first byte and a destination ID of eight bytes.
private let packetNumberOffset = 9
private let packetNumberLength = 2

/// Sealing and opening of full 1-RTT packets, header protection included.
extension Harness {
    mutating func measureProtection() throws {
        room = "Protection"
        let suites: [(CipherSuite, String)] = [
            (.aes128GCM, "AES-128-GCM"), (.aes256GCM, "AES-256-GCM"), (.chaCha20Poly1305, "ChaCha20-Poly1305"),
        ]
        for (suite, name) in suites { try measureSealing(suite, name) }
        for (suite, name) in suites { try measureOpening(suite, name) }
        for (suite, name) in suites { try measureMask(suite, name) }
        try measureKeyUpdate()
    }

    private mutating func measureSealing(_ suite: CipherSuite, _ name: String) throws {
        var protection = try makeProtection(.client, suite: suite)
        let memory = lastingBytes(packetSize)
        var number: PacketNumber = 0
        try measure("1,452 bytes sealed, \(name)", passes: 10_000) { passes in
            var span = memory.mutableBytes
            var writer = PacketWriter(&span)
            let start = beginPacket(number, into: &writer)
            let length = writer.offset
            for _ in 0..<passes {
                // Seals again what was sealed before: the time does not depend on the bytes.
                writer.truncate(to: length)
                writer.overwrite(at: 0, with: HeaderBits.fixed | UInt8(packetNumberLength - 1))
                try seal(number, from: start, in: &writer, with: &protection)
                number += 1
            }
            return number
        }
    }

    private mutating func measureOpening(_ suite: CipherSuite, _ name: String) throws {
        var sealing = try makeProtection(.client, suite: suite)
        var opening = try makeProtection(.server, suite: suite)
        // As many as fit a batch of the kernel's, and the inner caches.
        let count = 44
        let sealed = lastingBytes(count * packetSize)
        let memory = lastingBytes(count * packetSize)
        for index in 0..<count {
            var span = UnsafeMutableRawBufferPointer(rebasing: sealed[(index * packetSize)...]).mutableBytes
            var writer = PacketWriter(&span)
            writer.setLimit(packetSize)
            let start = beginPacket(PacketNumber(index), into: &writer)
            try seal(PacketNumber(index), from: start, in: &writer, with: &sealing)
        }
        try measureSections("1,452 bytes opened, \(name)", passes: 250) { passes, watch in
            var sum: PacketNumber = 0
            for _ in 0..<passes {
                memory.copyMemory(from: UnsafeRawBufferPointer(sealed))
                var datagrams = memory.mutableBytes
                watch.start()
                for index in 0..<count {
                    let start = index * packetSize
                    let opened = try opening.open(
                        .oneRTT, datagram: &datagrams, packet: start..<start + packetSize,
                        packetNumberOffset: start + packetNumberOffset, largestReceived: PacketNumber(count),
                        now: .zero, keyDiscardDelay: .seconds(1))
                    guard let opened else { throw UnexpectedResult("a packet was not opened") }
                    sum &+= opened.packetNumber
                }
                watch.stop(after: count)
            }
            return sum
        }
    }

    private mutating func measureMask(_ suite: CipherSuite, _ name: String) throws {
        let key = try HeaderProtectionKey(suite: suite, secret: makeSecret(suite), version: .v1)
        let sample = lastingBytes(16).bindMemory(to: UInt8.self)
        guard let base = sample.baseAddress else { return }
        measure("header protection mask, \(name)", passes: 50_000) { passes in
            var sum: UInt64 = 0
            for pass in 0..<passes {
                base[pass & 15] &+= 1
                sum &+= key.mask(base)
            }
            return sum
        }
    }

    /// What each some million packets cost besides; it makes a key, and so allocates.
    private mutating func measureKeyUpdate() throws {
        let suite = CipherSuite.aes128GCM
        var keys = try OneRTTWriteKeys(suite: suite, secret: makeSecret(suite), version: .v1)
        try measure("key update of the sender, AES-128-GCM", passes: 500, isSteady: false) { passes in
            for _ in 0..<passes { try keys.update() }
            return keys.generation
        }
    }
}

/// The keys of both directions are the same: a client's packets can be opened by a server made here, and the reverse.
private func makeProtection(_ role: Role, suite: CipherSuite) throws(TransportError) -> PacketProtection {
    var protection = PacketProtection(role: role, version: .v1)
    let secret = try makeSecret(suite)
    try protection.install(secret, suite: suite, level: .oneRTT, forReading: true)
    try protection.install(secret, suite: suite, level: .oneRTT, forReading: false)
    protection.handshakeConfirmed()
    return protection
}

private func makeSecret(_ suite: CipherSuite) throws(TransportError) -> TrafficSecret {
    guard let secret = TrafficSecret([UInt8](repeating: 0x77, count: suite.secretLength)) else {
        throw TransportError(.internalError, "no traffic secret")
    }
    return secret
}

/// A packet that is full but for its tag.
private func beginPacket(_ number: PacketNumber, into writer: inout PacketWriter) -> PacketStart {
    let id = ConnectionID([1, 2, 3, 4, 5, 6, 7, 8]) ?? .empty
    let start = writer.beginShortPacket(
        destination: id, spin: false, keyPhase: false, packetNumber: number, packetNumberLength: packetNumberLength)
    writer.writeZeros(packetSize - PacketProtection.tagLength - start.payloadOffset)
    return start
}

private func seal(
    _ number: PacketNumber, from start: PacketStart, in writer: inout PacketWriter,
    with protection: inout PacketProtection
) throws(TransportError) {
    try protection.seal(
        .oneRTT, writer: &writer, packetStart: start.start, packetNumberOffset: start.packetNumberOffset,
        packetNumberLength: start.packetNumberLength, packetNumber: number)
}
