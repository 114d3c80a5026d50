// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// Hostile bytes: none of them may trap. A run is repeatable: all comes from the seed.
@Suite("Parsers against hostile bytes")
struct WireFuzzTests {
    /// Two seconds at most, so that a slow machine is not held up; a fast one does all the iterations.
    private func fuzz(iterations: Int, _ body: () throws -> Void) rethrows {
        let end = ContinuousClock.now.advanced(by: .seconds(2))
        for iteration in 0..<iterations {
            if iteration % 256 == 0, ContinuousClock.now > end { return }
            try body()
        }
    }

    @Test("random payloads parse or fail, and what is parsed lies within them")
    func frames() {
        var random = RandomSource.seeded(40)
        var parsed = 0
        fuzz(iterations: 100_000) {
            var bytes = random.bytes(random.count(below: 48))
            // Most first bytes are no frame type.
            if !bytes.isEmpty, random.next() & 7 != 0 { bytes[0] &= 0x1f }
            var parser = FrameParser(bytes.span.bytes, payload: 0..<bytes.count)
            while let frame = try? parser.next() {
                parsed += 1
                check(frame, in: bytes)
            }
        }
        #expect(parsed > 100)
    }

    @Test("valid frames with bytes changed parse or fail, and what is parsed lies within them")
    func mutatedFrames() throws {
        var random = RandomSource.seeded(41)
        var seeds: [[UInt8]] = []
        for kind in FrameKind.allCases {
            for _ in 0..<5 { seeds.append(try #require(written { _ = try? kind.write(to: &$0, &random) })) }
        }
        var parsed = 0
        fuzz(iterations: 100_000) {
            var bytes = seeds[random.count(below: seeds.count)] + seeds[random.count(below: seeds.count)]
            for _ in 0..<1 + random.count(below: 3) {
                bytes[random.count(below: bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            bytes.removeLast(random.count(below: min(4, bytes.count)))
            var parser = FrameParser(bytes.span.bytes, payload: 0..<bytes.count)
            while let frame = try? parser.next() {
                parsed += 1
                check(frame, in: bytes)
            }
        }
        #expect(parsed > 100)
    }

    private func check(_ frame: Frame, in bytes: [UInt8]) {
        func isInside(_ range: ByteRange) -> Bool {
            range.offset >= 0 && range.count >= 0 && range.offset + range.count <= bytes.count
        }
        switch frame {
        case .ack(let ack):
            var reader = AckRangeReader(ack, in: bytes.span.bytes)
            var count = 0
            var below = PacketNumber.max
            var isOrdered = true
            while let range = reader.next() {
                if range.upperBound >= below { isOrdered = false }
                below = range.lowerBound
                count += 1
            }
            if !isOrdered || count != ack.additionalRangeCount + 1 || !isInside(ack.additionalRanges) {
                Issue.record("bad ranges in \(bytes)")
            }
        case .crypto(let crypto):
            if !isInside(crypto.data) || crypto.offset + UInt64(crypto.data.count) > Varint.maximum {
                Issue.record("bad CRYPTO frame in \(bytes)")
            }
        case .stream(let stream):
            if !isInside(stream.data) || stream.offset + UInt64(stream.data.count) > Varint.maximum {
                Issue.record("bad STREAM frame in \(bytes)")
            }
        case .newToken(let token):
            if !isInside(token) || token.count == 0 { Issue.record("bad NEW_TOKEN frame in \(bytes)") }
        case .connectionClose(let close):
            if !isInside(close.reason) { Issue.record("bad CONNECTION_CLOSE frame in \(bytes)") }
        case .newConnectionID(let new):
            if new.connectionID.length == 0 || new.retirePriorTo > new.sequence {
                Issue.record("bad NEW_CONNECTION_ID frame in \(bytes)")
            }
        default: break
        }
    }

    @Test("random datagrams are headers or are dropped, and every header lies within its datagram")
    func headers() {
        var random = RandomSource.seeded(42)
        var found = 0
        let versions: [[UInt8]] = [[0, 0, 0, 1], [0, 0, 0, 0], [0x6b, 0x33, 0x43, 0xcf]]
        fuzz(iterations: 100_000) {
            var bytes = random.bytes(random.count(below: 80))
            if bytes.count > 6, random.next() & 7 != 0 {
                bytes.replaceSubrange(1..<5, with: versions[random.count(below: 3)])
                bytes[5] &= 0x1f
            }
            let start = random.count(below: 4)
            let header = PacketHeader.parse(
                bytes.span.bytes, at: start == 3 ? random.count(below: 90) - 5 : 0,
                shortHeaderConnectionIDLength: random.count(below: 24) - 1)
            guard let header else { return }
            found += 1
            let all = 0..<bytes.count
            let isSound =
                switch header {
                case .versionNegotiation(let header):
                    header.versions.count >= 4 && all.contains(header.versions.range)
                case .retry(let header):
                    header.token.count > 0 && header.integrityTag.count == 16
                        && all.contains(header.integrityTag.range) && all.contains(header.token.range)
                case .long(let header):
                    all.contains(header.packet) && all.contains(header.token.range)
                        && header.packetNumberOffset <= header.packet.upperBound && !header.packet.isEmpty
                case .short(let header):
                    all.contains(header.packet) && header.packetNumberOffset <= header.packet.upperBound
                case .unknownVersion(_, let dcidBytes, let scidBytes):
                    all.contains(dcidBytes.range) && all.contains(scidBytes.range)
                }
            if !isSound { Issue.record("bad header \(header) in \(bytes)") }
        }
        #expect(found > 100)
    }

    @Test("random transport parameters are taken or refused")
    func parameters() throws {
        var random = RandomSource.seeded(43)
        var parameters = TransportParameters()
        parameters.initialMaxData = 1 << 20
        parameters.initialMaxStreamsBidi = 100
        parameters.initialSourceConnectionID = random.connectionID(8...8)
        parameters.statelessResetToken = try random.resetToken()
        parameters.preferredAddress = PreferredAddress(
            ipv4: NetworkAddress(192, 0, 2, 1, port: 1), ipv6: nil, connectionID: random.connectionID(4...4),
            resetToken: try random.resetToken())
        var taken = 0
        fuzz(iterations: 50_000) {
            var bytes: [UInt8]
            if random.next() & 1 == 0 {
                bytes = random.bytes(random.count(below: 60))
                for index in bytes.indices where random.next() & 1 == 0 { bytes[index] &= 0x0f }
            } else {
                bytes = parameters.encoded(for: .server, using: &random)
                bytes[random.count(below: bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            let role: Role = random.next() & 1 == 0 ? .client : .server
            if let result = try? TransportParameters.decode(bytes, sentBy: role) {
                taken += 1
                if result.maxUDPPayloadSize < 1_200 || result.ackDelayExponent > 20
                    || result.activeConnectionIDLimit < 2 || result.initialMaxStreamsBidi > 1 << 60
                    || result.preferredAddress?.connectionID.length == 0
                {
                    Issue.record("bad parameters \(result) from \(bytes)")
                }
            }
        }
        #expect(taken > 100)
    }
}
