// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

struct PacketProtectionTests {
    @Test(
        "what one side seals the other opens, with every suite, length of packet number and size",
        arguments: CipherSuite.allCases)
    func roundTrip(suite: CipherSuite) throws {
        var random = RandomSource.seeded(7)
        var pair = try ProtectedPair(suite: suite)
        var number: PacketNumber = 0
        for _ in 0..<300 {
            let length = Int.random(in: 1...4, using: &random)
            number += UInt64.random(in: 1...100, using: &random)
            let id = random.bytes(Int.random(in: 0...20, using: &random))
            var header: [UInt8] = [0x40 | UInt8(length - 1)] + id
            for index in (0..<length).reversed() { header.append(UInt8(truncatingIfNeeded: number >> (8 * index))) }
            let payload = random.bytes(Int.random(in: (4 - length)...1_400, using: &random))
            let packet = try pair.client.sealed(
                .oneRTT, header: header, packetNumberLength: length, packetNumber: number, payload: payload)
            #expect(packet.count == header.count + payload.count + PacketProtection.tagLength)
            let opened = try #require(
                try pair.server.opened(
                    .oneRTT, packet, packetNumberOffset: 1 + id.count, largestReceived: number - 1))
            #expect(opened.packetNumber == number)
            #expect(opened.payload == payload)
        }
        verify(pair.server.authenticationFailures == 0)
    }

    @Test(
        "a packet with any bit changed is dropped and its last 16 bytes stay as they came",
        arguments: CipherSuite.allCases)
    func forgeries(suite: CipherSuite) throws {
        var pair = try ProtectedPair(suite: suite)
        let packet = try pair.client.ping(5)
        var failures: UInt64 = 0
        for bit in 0..<(packet.count * 8) {
            var forged = packet
            forged[bit / 8] ^= 1 << UInt8(bit % 8)
            let original = forged
            var span = forged.mutableSpan
            var raw = span.mutableBytes
            let opened = try pair.server.open(
                .oneRTT, datagram: &raw, packet: 0..<original.count, packetNumberOffset: 1, largestReceived: nil,
                now: .zero, keyDiscardDelay: .zero)
            #expect(opened == nil)
            #expect(Array(forged.suffix(16)) == Array(original.suffix(16)))
            failures += 1
        }
        verify(pair.server.authenticationFailures == failures)
        #expect(try pair.server.accepts(packet))
    }

    @Test("packets too short for a sample, without keys, or with ranges beyond the datagram are dropped uncounted")
    func unopenable() throws {
        var pair = try ProtectedPair()
        let packet = try pair.client.ping(5)
        for length in 0..<packet.count where length < 21 {
            #expect(try pair.server.opened(.oneRTT, Array(packet[..<length]), packetNumberOffset: 1) == nil)
        }
        #expect(try pair.server.opened(.handshake, packet, packetNumberOffset: 1) == nil)
        #expect(try pair.server.opened(.initial, packet, packetNumberOffset: 1) == nil)
        for offset in [-1, 0, packet.count, Int.max] {
            #expect(try pair.server.opened(.oneRTT, packet, packetNumberOffset: offset) == nil)
        }
        var bytes = packet
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        let opened = try pair.server.open(
            .oneRTT, datagram: &raw, packet: 0..<packet.count + 1, packetNumberOffset: 1, largestReceived: nil,
            now: .zero, keyDiscardDelay: .zero)
        #expect(opened == nil)
        verify(pair.server.authenticationFailures == 0)
    }

    @Test("header protection covers five bits of a short header's first byte and four of a long one's (5.4.1)")
    func protectedBits() throws {
        var pair = try ProtectedPair()
        try pair.client.installInitialKeys(destinationConnectionID: .empty)
        var short: UInt8 = 0
        var long: UInt8 = 0
        for number in 0..<200 {
            let bytes = [0, 0, 0, UInt8(number)]
            let payload: [UInt8] = [1, 2, 3, 4]
            short |=
                try 0x43
                ^ pair.client.sealed(
                    .oneRTT, header: [0x43] + bytes, packetNumberLength: 4, packetNumber: UInt64(number),
                    payload: payload)[0]
            long |=
                try 0xc3
                ^ pair.client.sealed(
                    .initial, header: [0xc3] + bytes, packetNumberLength: 4, packetNumber: UInt64(number),
                    payload: payload)[0]
        }
        #expect(short == 0x1f)
        #expect(long == 0x0f)
    }

    @Test(
        "reserved bits that are set close the connection, but only in an authentic packet",
        arguments: [0x08, 0x10, 0x18])
    func reservedBits(bits: UInt8) throws {
        var pair = try ProtectedPair()
        let packet = try pair.client.sealed(
            .oneRTT, header: [0x43 | bits, 0, 0, 0, 9], packetNumberLength: 4, packetNumber: 9, payload: [1, 1, 1, 1])
        var forged = packet
        forged[packet.count - 1] ^= 1
        #expect(try pair.server.opened(.oneRTT, forged, packetNumberOffset: 1) == nil)
        let error = #expect(throws: TransportError.self) {
            _ = try pair.server.opened(.oneRTT, packet, packetNumberOffset: 1)
        }
        #expect(error?.code == .protocolViolation)
    }

    @Test("the connection ends when more packets fail than the integrity limit, counted over all levels")
    func integrityLimit() throws {
        var pair = try ProtectedPair()
        pair.server.integrityLimit = 10
        try pair.server.installInitialKeys(destinationConnectionID: .empty)
        let garbage = [UInt8](repeating: 0x55, count: 40)
        for _ in 0..<5 {
            #expect(try pair.server.opened(.oneRTT, garbage, packetNumberOffset: 1) == nil)
            #expect(try pair.server.opened(.initial, garbage, packetNumberOffset: 1) == nil)
        }
        let error = #expect(throws: TransportError.self) {
            _ = try pair.server.opened(.oneRTT, garbage, packetNumberOffset: 1)
        }
        #expect(error?.code == .aeadLimitReached)
    }

    @Test("a key seals no more packets than its confidentiality limit")
    func confidentialityLimit() throws {
        var pair = try ProtectedPair(confirmed: false)
        pair.client.confidentialityLimit = 8
        for number in 0..<8 { _ = try pair.client.ping(PacketNumber(number)) }
        let error = #expect(throws: TransportError.self) { _ = try pair.client.ping(8) }
        #expect(error?.code == .aeadLimitReached)
    }

    @Test("the limits are those of RFC 9001, section 6.6")
    func limits() {
        #expect(CipherSuite.aes128GCM.confidentialityLimit == 8_388_608)
        #expect(CipherSuite.aes256GCM.confidentialityLimit == 8_388_608)
        #expect(CipherSuite.chaCha20Poly1305.confidentialityLimit >= 1 << 62)
        #expect(CipherSuite.aes128GCM.integrityLimit == 1 << 52)
        #expect(CipherSuite.aes256GCM.integrityLimit == 1 << 52)
        #expect(CipherSuite.chaCha20Poly1305.integrityLimit == 1 << 36)
    }

    @Test("sealing without room for the tag, without keys or without a sample throws and does not trap")
    func sealingMistakes() throws {
        var pair = try ProtectedPair()
        var buffer = [UInt8](repeating: 0, count: 30)
        for (count, level) in [(20, EncryptionLevel.oneRTT), (10, .handshake), (3, .oneRTT)] {
            let error = #expect(throws: TransportError.self) {
                var span = buffer.mutableSpan
                var writer = PacketWriter(span.mutableBytes)
                writer.writeZeros(count)
                try pair.client.seal(
                    level, writer: &writer, packetStart: 0, packetNumberOffset: 1, packetNumberLength: 2,
                    packetNumber: 0)
            }
            #expect(error?.code == .internalError)
        }
    }

    @Test("discarded keys neither seal nor open, and a Retry replaces the Initial keys")
    func discarding() throws {
        var client = PacketProtection(role: .client, version: .v1)
        verify(!client.canSeal(.initial) && !client.canOpen(.initial))
        let first = try #require(ConnectionID([1, 2, 3, 4, 5, 6, 7, 8]))
        let second = try #require(ConnectionID([9, 9, 9]))
        try client.installInitialKeys(destinationConnectionID: first)
        try client.installInitialKeys(destinationConnectionID: second)
        verify(client.canSeal(.initial) && client.canOpen(.initial))
        let packet = try client.sealed(
            .initial, header: [0xc3, 0, 0, 0, 0], packetNumberLength: 4, packetNumber: 0, payload: [1, 0, 0, 0])
        for (id, isSame) in [(first, false), (second, true)] {
            var server = PacketProtection(role: .server, version: .v1)
            try server.installInitialKeys(destinationConnectionID: id)
            #expect(try (server.opened(.initial, packet, packetNumberOffset: 1) != nil) == isSame)
        }
        client.discard(.initial)
        verify(!client.canSeal(.initial) && !client.canOpen(.initial))
        for level in EncryptionLevel.allCases {
            try client.install(secret(suite: .aes256GCM, seed: 3), suite: .aes256GCM, level: level, forReading: true)
            verify(client.canOpen(level) && !client.canSeal(level))
            try client.install(secret(suite: .aes256GCM, seed: 3), suite: .aes256GCM, level: level, forReading: false)
            verify(client.canSeal(level))
            client.discard(level)
            verify(!client.canOpen(level) && !client.canSeal(level))
        }
    }

    @Test("HMAC-SHA256 is that of RFC 4231, and SHA-256 that of FIPS 180")
    func digests() {
        #expect(
            KeyedHash.hmacSHA256(key: [UInt8]("Jefe".utf8), [UInt8]("what do ya want for nothing?".utf8))
                == bytes(hex: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"))
        #expect(KeyedHash.hmacSHA256(key: [], []).count == 32)
        var digest = SHA256Digest()
        #expect(
            digest.finalize() == bytes(hex: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"))
        for part in ["a", "", "bc"] { [UInt8](part.utf8).withUnsafeBytes { digest.update($0) } }
        let expected = bytes(hex: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(digest.finalize() == expected)
        #expect(digest.finalize() == expected)
    }
}
