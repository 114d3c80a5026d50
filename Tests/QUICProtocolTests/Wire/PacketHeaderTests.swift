// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

private func parse(_ bytes: [UInt8], at offset: Int = 0, idLength: Int = 8) -> PacketHeader? {
    PacketHeader.parse(bytes.span.bytes, at: offset, shortHeaderConnectionIDLength: idLength)
}

@Suite("Packet headers, Version Negotiation and Retry")
struct PacketHeaderTests {
    let clientChosen = ConnectionID(hex("8394c8f03e515708")) ?? .empty
    let serverChosen = ConnectionID(hex("f067a5502a4262b5")) ?? .empty

    @Test("the client's Initial packet of RFC 9001, appendix A.2 parses as described")
    func sampleClientInitial() throws {
        let datagram =
            hex("c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b")
            + [UInt8](repeating: 0xaa, count: 1_200 - 38)
        let header = LongHeader(
            type: .initial, version: .v1, dcid: clientChosen, scid: .empty, token: ByteRange(offset: 16, count: 0),
            packetNumberOffset: 18, packet: 0..<1_200)
        #expect(parse(datagram) == .long(header))
        // Its Length is 1182: with one byte less it is not all there.
        #expect(parse(datagram.dropLast()) == nil)
    }

    @Test("the client's Initial header of RFC 9001, appendix A.2 is written as described")
    func writeSampleClientInitial() {
        let header = written { writer in
            let start = writer.beginLongPacket(
                type: .initial, version: .v1, destination: clientChosen, source: .empty, packetNumber: 2,
                packetNumberLength: 4)
            #expect(
                start == PacketStart(start: 0, packetNumberOffset: 18, packetNumberLength: 4, lengthFieldOffset: 16))
            writer.writeZeros(1_162)
            writer.finishLength(start, tagLength: 16)
            writer.truncate(to: start.payloadOffset)
        }
        #expect(header == hex("c300000001088394c8f03e5157080000449e00000002"))
    }

    @Test("the server's Initial packet of RFC 9001, appendix A.3 parses and is written as described")
    func sampleServerInitial() {
        let datagram = hex(
            """
            cf000000010008f067a5502a4262b500 4075c0d95a482cd0991cd25b0aac406a
            5816b6394100f37a1c69797554780bb3 8cc5a99f5ede4cf73c3ec2493a1839b3
            dbcba3f6ea46c5b7684df3548e7ddeb9 c3bf9c73cc3f3bded74b562bfb19fb84
            022f8ef4cdd93795d77d06edbb7aaf2f 58891850abbdca3d20398c276456cbc4
            2158407dd074ee
            """)
        let header = LongHeader(
            type: .initial, version: .v1, dcid: .empty, scid: serverChosen, token: ByteRange(offset: 16, count: 0),
            packetNumberOffset: 18, packet: 0..<135)
        #expect(parse(datagram) == .long(header))
        let unprotected = written { writer in
            let start = writer.beginLongPacket(
                type: .initial, version: .v1, destination: .empty, source: serverChosen, packetNumber: 1,
                packetNumberLength: 2)
            writer.writeZeros(99)
            writer.finishLength(start, tagLength: 16)
            writer.truncate(to: start.payloadOffset)
        }
        #expect(unprotected == hex("c1000000010008f067a5502a4262b50040750001"))
    }

    @Test("the Retry packet of RFC 9001, appendix A.4 parses and is written as described")
    func sampleRetry() {
        let datagram = hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")
        let header = RetryHeader(
            dcid: .empty, scid: serverChosen, token: ByteRange(offset: 15, count: 5),
            integrityTag: ByteRange(offset: 20, count: 16), packet: ByteRange(offset: 0, count: 36))
        #expect(parse(datagram) == .retry(header))
        var random = RandomSource.seeded(20)
        let packet = RetryPacket.withoutTag(
            version: .v1, destination: .empty, source: serverChosen, token: Array("token".utf8), using: &random)
        #expect(packet.first.map { $0 & 0xf0 } == 0xf0)
        #expect(packet.dropFirst().elementsEqual(datagram[1..<20]))
    }

    @Test("the short header packet of RFC 9001, appendix A.5 parses and is written as described")
    func sampleShort() {
        let datagram = hex("4cfe4189655e5cd55c41f69080575d7999c25a5bfb")
        let header = ShortHeader(dcid: .empty, spin: false, packetNumberOffset: 1, packet: 0..<21)
        #expect(parse(datagram, idLength: 0) == .short(header))
        let unprotected = written { writer in
            let start = writer.beginShortPacket(
                destination: .empty, spin: false, keyPhase: false, packetNumber: 654_360_564, packetNumberLength: 3)
            #expect(
                start == PacketStart(start: 0, packetNumberOffset: 1, packetNumberLength: 3, lengthFieldOffset: nil))
            writer.writeUInt8(1)
            writer.finishLength(start, tagLength: 16)
            writer.truncate(to: start.payloadOffset)
        }
        #expect(unprotected == hex("4200bff4"))
    }

    @Test("a long header is parsed as it was written, and as large as it was measured")
    func longRoundTrip() throws {
        var random = RandomSource.seeded(21)
        for _ in 0..<500 {
            let type = [LongPacketType.initial, .zeroRTT, .handshake][random.count(below: 3)]
            let (dcid, scid) = (random.connectionID(), random.connectionID())
            let token = random.bytes(random.count(below: 200))
            let length = 1 + random.count(below: 4)
            let number = random.varint()
            let payload = random.count(below: 1_000)
            var size = 0
            let bytes = try #require(
                written { writer in
                    let start = writer.beginLongPacket(
                        type: type, version: .v1, destination: dcid, source: scid, token: token, packetNumber: number,
                        packetNumberLength: length)
                    size = writer.offset
                    writer.writeZeros(payload)
                    writer.finishLength(start, tagLength: 16)
                    writer.writeZeros(16)
                    // Another packet may follow.
                    writer.writeZeros(9)
                })
            #expect(
                size
                    == HeaderSize.long(
                        type: type, destination: dcid, source: scid, tokenLength: token.count,
                        packetNumberLength: length))
            guard case .long(let header)? = parse(bytes) else {
                Issue.record("not a long header")
                continue
            }
            #expect(header.type == type)
            #expect(header.version == .v1)
            #expect(header.dcid == dcid)
            #expect(header.scid == scid)
            #expect(bytes.span.bytes.copyBytes(in: header.token) == (type == .initial ? token : []))
            #expect(header.packetNumberOffset == size - length)
            #expect(header.packet == 0..<bytes.count - 9)
            #expect(bytes[0] & HeaderBits.packetNumberLength == UInt8(length - 1))
            let truncated = bytes[size - length..<size].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            #expect(truncated == number & ((1 << (8 * UInt64(length))) - 1))
        }
    }

    @Test("a short header carries its ID and bits")
    func shortRoundTrip() throws {
        var random = RandomSource.seeded(22)
        for spin in [false, true] {
            for keyPhase in [false, true] {
                for length in 1...4 {
                    let dcid = random.connectionID()
                    let bytes = try #require(
                        written { writer in
                            _ = writer.beginShortPacket(
                                destination: dcid, spin: spin, keyPhase: keyPhase, packetNumber: 0x0102_0304,
                                packetNumberLength: length)
                        })
                    #expect(bytes.count == HeaderSize.short(destination: dcid, packetNumberLength: length))
                    #expect(bytes[0] == 0x40 | (spin ? 0x20 : 0) | (keyPhase ? 4 : 0) | UInt8(length - 1))
                    #expect(bytes.suffix(length).elementsEqual([1, 2, 3, 4].suffix(length)))
                    let header = ShortHeader(
                        dcid: dcid, spin: spin, packetNumberOffset: 1 + Int(dcid.length), packet: 0..<bytes.count)
                    #expect(parse(bytes, idLength: Int(dcid.length)) == .short(header))
                }
            }
        }
    }

    @Test("coalesced packets are found one after the other")
    func coalesced() throws {
        let bytes = try #require(
            written { writer in
                for type in [LongPacketType.initial, .handshake] {
                    let start = writer.beginLongPacket(
                        type: type, version: .v1, destination: clientChosen, source: serverChosen, packetNumber: 7,
                        packetNumberLength: 1)
                    writer.writeZeros(50)
                    writer.finishLength(start, tagLength: 0)
                }
                _ = writer.beginShortPacket(
                    destination: clientChosen, spin: true, keyPhase: false, packetNumber: 7, packetNumberLength: 2)
                writer.writeZeros(30)
            })
        guard case .long(let first)? = parse(bytes),
            case .long(let second)? = parse(bytes, at: first.packet.upperBound),
            case .short(let third)? = parse(bytes, at: second.packet.upperBound)
        else {
            Issue.record("three packets expected")
            return
        }
        #expect([first.type, second.type] == [.initial, .handshake])
        #expect(second.packetNumberOffset == first.packet.upperBound + 25)
        #expect(third.packetNumberOffset == second.packet.upperBound + 9)
        #expect(third.packet.upperBound == bytes.count)
        #expect(parse(bytes, at: bytes.count) == nil)
        #expect(parse(bytes, at: -1) == nil)
    }

    @Test(
        "what version 1 does not allow is dropped",
        arguments: [
            // The fixed bit is 0: long, then short.
            "80 00000001 00 00 00 01 00", "00 0102030405060708 00",
            // IDs of 21 bytes.
            "c0 00000001 15 000102030405060708090a0b0c0d0e0f1011121314 00 00 01 00",
            "c0 00000001 00 15 000102030405060708090a0b0c0d0e0f1011121314 00 01 00",
            // Length, then the token, reach beyond the datagram; both at their extreme.
            "c0 00000001 00 00 00 02 00", "c0 00000001 00 00 05 01 00", "c0 00000001 00 00 00 ffffffffffffffff 00",
            "c0 00000001 00 00 ffffffffffffffff 01 00", "e0 00000001 00 00 02 00",
            // A short header with 7 of the 8 bytes of its ID.
            "40 01020304050607",
            // A Retry without a token, and one without a whole tag.
            "f0 00000001 00 00 000102030405060708090a0b0c0d0e0f", "f0 00000001 00 00 0001",
            // Version Negotiation without a version, and with half of one.
            "80 00000000 00 00", "80 00000000 00 00 00000001 0000",
        ])
    func dropped(datagram: String) {
        #expect(parse(hex(datagram)) == nil)
    }

    @Test("every truncation of a header is dropped")
    func truncated() throws {
        let long = try #require(
            written { writer in
                let start = writer.beginLongPacket(
                    type: .initial, version: .v1, destination: clientChosen, source: serverChosen, token: [1, 2, 3],
                    packetNumber: 7, packetNumberLength: 2)
                writer.writeZeros(50)
                writer.finishLength(start, tagLength: 0)
            })
        for length in 0..<long.count { #expect(parse(Array(long[..<length])) == nil) }
        #expect(parse(long) != nil)
        let unknown = hex("80 1a2a3a4a 03 010203 02 0102")
        for length in 0..<unknown.count { #expect(parse(Array(unknown[..<length])) == nil) }
        #expect(parse(unknown) != nil)
    }

    @Test("an impossible length of our own IDs drops short headers", arguments: [-1, 21, .max])
    func impossibleIDLength(length: Int) {
        #expect(parse([UInt8](repeating: 0x40, count: 100), idLength: length) == nil)
    }

    @Test("a long header of another version keeps IDs of up to 255 bytes")
    func unknownVersion() {
        var random = RandomSource.seeded(23)
        for (first, second) in [(0, 0), (8, 20), (21, 255), (255, 255)] {
            // The fixed bit is no concern of other versions.
            let head = hex("80 6b3343cf")
            let datagram =
                head + [UInt8(first)] + random.bytes(first) + [UInt8(second)] + random.bytes(second) + [1, 2, 3]
            let expected = PacketHeader.unknownVersion(
                version: 0x6b33_43cf, dcidBytes: ByteRange(offset: 6, count: first),
                scidBytes: ByteRange(offset: 7 + first, count: second))
            #expect(parse(datagram) == expected)
        }
    }

    @Test("a Version Negotiation packet answers with the IDs swapped, a reserved version and ours")
    func versionNegotiation() throws {
        var random = RandomSource.seeded(24)
        var firstBytes: Set<UInt8> = []
        for _ in 0..<100 {
            let (dcid, scid) = (random.connectionID(), random.connectionID())
            // A client that asks for this provokes the answer with a reserved version, which must not come back.
            let asked = UInt32(truncatingIfNeeded: random.next()) & 0xf0f0_f0f0 | 0x0a0a_0a0a
            let datagram =
                [0xc0] + (0..<4).map { UInt8(truncatingIfNeeded: asked >> (24 - 8 * UInt32($0))) } + [dcid.length]
                + dcid.bytes + [scid.length] + scid.bytes
            guard case .unknownVersion(let version, let dcidBytes, let scidBytes)? = parse(datagram) else {
                Issue.record("not an unknown version")
                continue
            }
            let answer = VersionNegotiation.packet(
                answering: version, destination: dcidBytes, source: scidBytes, in: datagram.span.bytes, using: &random)
            firstBytes.insert(answer[0])
            #expect(answer[0] & 0xc0 == 0xc0)
            guard case .versionNegotiation(let header)? = parse(answer) else {
                Issue.record("not a Version Negotiation packet")
                continue
            }
            #expect(header.dcid == scid)
            #expect(header.scid == dcid)
            let versions = VersionNegotiation.versions(of: header, in: answer.span.bytes)
            #expect(versions.count == 2)
            #expect(versions.contains(.v1))
            #expect(versions.contains { $0.rawValue & 0x0f0f_0f0f == 0x0a0a_0a0a })
            #expect(!versions.contains(QUICVersion(rawValue: asked)))
        }
        #expect(firstBytes.count > 10, "the unused bits should be random")
    }

    @Test("a Version Negotiation packet returns IDs longer than version 1 allows")
    func versionNegotiationLongIDs() {
        var random = RandomSource.seeded(25)
        let datagram = random.bytes(600)
        let answer = VersionNegotiation.packet(
            answering: 7, destination: ByteRange(offset: 10, count: 255), source: ByteRange(offset: 300, count: 100),
            in: datagram.span.bytes, using: &random)
        let expected: [UInt8] =
            [0, 0, 0, 0, 100] + Array(datagram[300..<400]) + [255] + Array(datagram[10..<265])
        #expect(Array(answer[1..<expected.count + 1]) == expected)
        #expect(answer.count == expected.count + 1 + 8)
        // No client of ours has such IDs.
        #expect(parse(answer) == nil)
    }

    @Test("the reserved version listed is never the one answered")
    func greaseDiffers() {
        var random = RandomSource.seeded(26)
        var copy = random
        _ = copy.next()
        let version = UInt32(truncatingIfNeeded: copy.next()) & 0xf0f0_f0f0 | 0x0a0a_0a0a
        let empty = [UInt8]()
        let answer = VersionNegotiation.packet(
            answering: version, destination: .empty, source: .empty, in: empty.span.bytes, using: &random)
        guard case .versionNegotiation(let header)? = parse(answer) else {
            Issue.record("not a Version Negotiation packet")
            return
        }
        let versions = VersionNegotiation.versions(of: header, in: answer.span.bytes)
        #expect(!versions.contains(QUICVersion(rawValue: version)))
        #expect(versions.contains { $0.rawValue & 0x0f0f_0f0f == 0x0a0a_0a0a })
    }

    @Test("a packet that does not fit its memory is noticed")
    func writerOverflow() {
        for capacity in 0..<30 {
            let header = written(capacity: capacity) { writer in
                let start = writer.beginLongPacket(
                    type: .handshake, version: .v1, destination: clientChosen, source: serverChosen, packetNumber: 1,
                    packetNumberLength: 2)
                writer.finishLength(start, tagLength: 16)
            }
            #expect((header == nil) == (capacity < 27))
        }
    }
}
