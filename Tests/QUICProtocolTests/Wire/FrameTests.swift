// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// Every kind of frame that can be written, STREAM with and without a length.
enum FrameKind: CaseIterable {
    case padding, ping, ack, ackECN, resetStream, stopSending, crypto, newToken, stream, openStream, maxData
    case maxStreamData, maxStreams, dataBlocked, streamDataBlocked, streamsBlocked, newConnectionID
    case retireConnectionID, pathChallenge, pathResponse, connectionClose, applicationClose, handshakeDone
    case ackFrequency, immediateAck

    /// Writes such a frame with random content; returns it as it should be parsed, and its size as `FrameSize` has it.
    func write(to writer: inout PacketWriter, _ random: inout RandomSource) throws -> (Frame, size: Int?) {
        let id = StreamID(rawValue: random.varint())
        let value = random.varint()
        let direction: StreamDirection = random.next() & 1 == 0 ? .bidirectional : .unidirectional
        switch self {
        case .padding:
            let count = 1 + random.count(below: 30)
            writer.writeZeros(count)
            return (.padding(count: count), count)
        case .ping:
            writer.writePing()
            return (.ping, FrameSize.ping)
        case .ack, .ackECN:
            let ecn =
                self == .ackECN ? ECNCounts(ect0: random.varint(), ect1: random.varint(), ce: random.varint()) : nil
            let ranges = random.ackRanges()
            let delay = random.varint()
            writeAck(ranges, encodedDelay: delay, ecn: ecn, to: &writer)
            let tail = ecn.map { [$0.ect0, $0.ect1, $0.ce].map(Varint.encodedSize).reduce(0, +) } ?? 0
            let pairs = zip(ranges, ranges.dropFirst()).map { above, range in
                Varint.encodedSize(above.lowerBound - range.upperBound - 2)
                    + Varint.encodedSize(range.upperBound - range.lowerBound)
            }.reduce(0, +)
            let frame = AckFrame(
                largest: ranges[0].upperBound, encodedDelay: delay,
                firstRange: ranges[0].upperBound - ranges[0].lowerBound, additionalRangeCount: ranges.count - 1,
                additionalRanges: ByteRange(offset: writer.offset - tail - pairs, count: pairs), ecn: ecn)
            return (.ack(frame), nil)
        case .resetStream:
            let frame = ResetStreamFrame(id: id, applicationErrorCode: value, finalSize: random.varint())
            writer.writeResetStream(frame)
            return (.resetStream(frame), FrameSize.resetStream(frame))
        case .stopSending:
            let frame = StopSendingFrame(id: id, applicationErrorCode: value)
            writer.writeStopSending(frame)
            return (.stopSending(frame), FrameSize.stopSending(frame))
        case .crypto:
            let data = random.bytes(random.count(below: 100))
            let offset = min(value, Varint.maximum - UInt64(data.count))
            writer.writeCryptoHeader(offset: offset, length: data.count)
            let range = ByteRange(offset: writer.offset, count: data.count)
            writer.writeBytes(data)
            let size = FrameSize.cryptoHeader(offset: offset, length: data.count) + data.count
            return (.crypto(CryptoFrame(offset: offset, data: range)), size)
        case .newToken:
            let token = random.bytes(1 + random.count(below: 100))
            writer.writeNewToken(token)
            let range = ByteRange(offset: writer.offset - token.count, count: token.count)
            return (.newToken(range), FrameSize.newToken(length: token.count))
        case .stream, .openStream:
            let data = random.bytes(random.count(below: 100))
            let offset = min(value, Varint.maximum - UInt64(data.count))
            let isFinal = random.next() & 1 == 0
            let length = self == .stream ? data.count : nil
            writer.writeStreamHeader(id: id, offset: offset, length: length, isFinal: isFinal)
            let range = ByteRange(offset: writer.offset, count: data.count)
            writer.writeBytes(data)
            let size = FrameSize.streamHeader(id: id, offset: offset, length: length) + data.count
            return (.stream(StreamFrame(id: id, offset: offset, data: range, isFinal: isFinal)), size)
        case .ackFrequency:
            let frame = AckFrequencyFrame(
                sequence: value, ackElicitingThreshold: random.varint(), requestedMaxAckDelay: random.varint(),
                reorderingThreshold: random.varint())
            writer.writeAckFrequency(frame)
            return (.ackFrequency(frame), FrameSize.ackFrequency(frame))
        case .immediateAck:
            writer.writeImmediateAck()
            return (.immediateAck, FrameSize.immediateAck)
        case .maxData:
            writer.writeMaxData(value)
            return (.maxData(value), FrameSize.maxData(value))
        case .maxStreamData:
            writer.writeMaxStreamData(id, value)
            return (.maxStreamData(id, value), FrameSize.maxStreamData(id, value))
        case .maxStreams:
            let count = random.varint(upTo: 1 << 60)
            writer.writeMaxStreams(direction, count)
            return (.maxStreams(direction, count), FrameSize.maxStreams(count))
        case .dataBlocked:
            writer.writeDataBlocked(value)
            return (.dataBlocked(value), FrameSize.dataBlocked(value))
        case .streamDataBlocked:
            writer.writeStreamDataBlocked(id, value)
            return (.streamDataBlocked(id, value), FrameSize.streamDataBlocked(id, value))
        case .streamsBlocked:
            let count = random.varint(upTo: 1 << 60)
            writer.writeStreamsBlocked(direction, count)
            return (.streamsBlocked(direction, count), FrameSize.streamsBlocked(count))
        case .newConnectionID:
            let frame = NewConnectionIDFrame(
                sequence: value, retirePriorTo: random.varint(upTo: value), connectionID: random.connectionID(1...20),
                resetToken: try random.resetToken())
            writer.writeNewConnectionID(frame)
            return (.newConnectionID(frame), FrameSize.newConnectionID(frame))
        case .retireConnectionID:
            writer.writeRetireConnectionID(sequence: value)
            return (.retireConnectionID(sequence: value), FrameSize.retireConnectionID(sequence: value))
        case .pathChallenge:
            writer.writePathChallenge(value)
            return (.pathChallenge(value), FrameSize.pathChallenge)
        case .pathResponse:
            writer.writePathResponse(value)
            return (.pathResponse(value), FrameSize.pathResponse)
        case .connectionClose, .applicationClose:
            let isApplication = self == .applicationClose
            let frameType = isApplication ? nil : random.varint()
            let reason = String(repeating: "é", count: random.count(below: 40))
            let limit = random.count(below: 90)
            let length = min(reason.utf8.count, limit / 2 * 2)
            writer.writeConnectionClose(
                errorCode: value, frameType: frameType, reason: reason, maximumReasonLength: limit)
            let frame = ConnectionCloseFrame(
                isApplication: isApplication, errorCode: value, frameType: frameType ?? 0,
                reason: ByteRange(offset: writer.offset - length, count: length))
            let size = FrameSize.connectionClose(errorCode: value, frameType: frameType, reasonLength: length)
            return (.connectionClose(frame), size)
        case .handshakeDone:
            writer.writeHandshakeDone()
            return (.handshakeDone, FrameSize.handshakeDone)
        }
    }
}

extension RandomSource {
    /// 1 to 40 ranges that do not touch, the largest first; at times down to packet 0.
    mutating func ackRanges() -> [ClosedRange<PacketNumber>] {
        var upper = varint()
        var ranges: [ClosedRange<PacketNumber>] = []
        for _ in 0..<1 + count(below: 40) {
            let lower = upper - varint(upTo: next() & 7 == 0 ? upper : min(upper, 300))
            ranges.append(lower...upper)
            guard lower >= 2 else { break }
            upper = lower - 2 - varint(upTo: min(lower - 2, 300))
        }
        return ranges
    }
}

@Suite("Frames")
struct FrameTests {
    @Test(
        "every kind of frame is parsed as it was written, and as large as it was measured",
        arguments: FrameKind.allCases)
    func roundTrip(kind: FrameKind) throws {
        var random = RandomSource.seeded(10)
        for _ in 0..<200 {
            var expected: Frame?
            var size: Int?
            var failure: (any Error)?
            let bytes = try #require(
                written { writer in
                    do {
                        let (frame, measured) = try kind.write(to: &writer, &random)
                        expected = frame
                        size = measured
                    } catch {
                        failure = error
                    }
                })
            #expect(failure == nil)
            #expect(try parseFrames(bytes) == [try #require(expected)])
            if let size { #expect(bytes.count == size) }
        }
    }

    @Test("frames of all kinds follow one another in a payload that starts anywhere in the datagram")
    func sequences() throws {
        var random = RandomSource.seeded(11)
        let kinds = FrameKind.allCases.filter { $0 != .openStream }
        for _ in 0..<200 {
            var expected: [Frame] = []
            var start = 0
            let bytes = try #require(
                written(capacity: 32_768) { writer in
                    writer.writeBytes(random.bytes(random.count(below: 50)))
                    start = writer.offset
                    for _ in 0..<20 {
                        let kind = kinds[random.count(below: kinds.count)]
                        guard let (frame, _) = try? kind.write(to: &writer, &random) else { continue }
                        if case .padding(let more) = frame, case .padding(let before)? = expected.last {
                            expected[expected.count - 1] = .padding(count: before + more)
                        } else {
                            expected.append(frame)
                        }
                    }
                })
            let trailer: [UInt8] = [0xff, 0xff, 0xff]
            let datagram = bytes + trailer
            var parser = FrameParser(datagram.span.bytes, payload: start..<bytes.count)
            var frames: [Frame] = []
            while let frame = try parser.next() { frames.append(frame) }
            #expect(frames == expected)
        }
    }

    @Test("every truncation of a frame is an error", arguments: FrameKind.allCases)
    func truncation(kind: FrameKind) throws {
        var random = RandomSource.seeded(12)
        for _ in 0..<20 {
            var frame: Frame?
            let bytes = try #require(written { frame = try? kind.write(to: &$0, &random).0 })
            let expected = try #require(frame)
            for length in 1..<max(bytes.count, 1) {
                let prefix = Array(bytes[..<length])
                switch expected {
                case .padding:
                    #expect(try parseFrames(prefix) == [.padding(count: length)])
                case .stream(let stream) where kind == .openStream && length >= stream.data.offset:
                    // Without a length field the end of the packet ends the data.
                    var short = stream
                    short.data.count = length - stream.data.offset
                    #expect(try parseFrames(prefix) == [.stream(short)])
                default:
                    let error = frameError(prefix)
                    #expect(error?.code == .frameEncodingError)
                    // A type of two bytes that is cut itself names no frame.
                    let isTypeCut = length < Varint.encodedSize(expected.type)
                    #expect(error?.frameType.map { $0 & ~7 } == (isTypeCut ? nil : expected.type & ~7))
                }
            }
        }
    }

    @Test("an empty payload holds no frame")
    func empty() throws {
        #expect(try parseFrames([]).isEmpty)
        let bytes: [UInt8] = [1, 1]
        var parser = FrameParser(bytes.span.bytes, payload: 5..<9)
        let frame = try parser.next()
        #expect(frame == nil)
    }

    @Test(
        "an unknown frame type is a FRAME_ENCODING_ERROR that names it",
        arguments: [0x21, 0x20, 0x30, 0x4000, 1 << 40] as [UInt64])
    func unknownTypes(type: UInt64) {
        let error = frameError(Varint.encoded(type))
        #expect(error?.code == .frameEncodingError)
        #expect(error?.frameType == type)
    }

    @Test(
        "a frame type in more bytes than it needs is a PROTOCOL_VIOLATION",
        arguments: ["4001", "80000001", "c000000000000001", "4006", "4008"])
    func longTypes(encoded: String) {
        #expect(frameError(hex(encoded))?.code == .protocolViolation)
    }

    @Test("a frame type that is cut short is a FRAME_ENCODING_ERROR", arguments: ["40", "80", "c0", "c0000000000000"])
    func cutTypes(encoded: String) {
        #expect(frameError(hex(encoded)) == TransportError(.frameEncodingError, "a frame type is cut short"))
    }

    @Test(
        "what breaks a frame's own rules is a FRAME_ENCODING_ERROR of its type",
        arguments: [
            // CRYPTO, then STREAM with all flags, beyond offset 2^62-1.
            ("06 ffffffffffffffff 01 aa", 0x06), ("0f 00 ffffffffffffffff 01 aa", 0x0f),
            // STREAM without a length.
            ("0c 00 ffffffffffffffff aa", 0x0c),
            // An empty NEW_TOKEN.
            ("07 00", 0x07),
            // MAX_STREAMS and STREAMS_BLOCKED of 2^60 + 1.
            ("12 d000000000000001", 0x12), ("13 d000000000000001", 0x13), ("16 d000000000000001", 0x16),
            ("17 ffffffffffffffff", 0x17),
            // NEW_CONNECTION_ID with IDs of 0 and 21 bytes, and retire_prior_to above the sequence number.
            ("18 01 00 00 000102030405060708090a0b0c0d0e0f", 0x18),
            ("18 01 00 15 000102030405060708090a0b0c0d0e0f1011121314 000102030405060708090a0b0c0d0e0f", 0x18),
            ("18 01 02 01 aa 000102030405060708090a0b0c0d0e0f", 0x18),
            // ACK ranges below packet 0: the first, a gap, a length; then sums that would overflow 64 bits.
            ("02 05 00 00 06", 0x02), ("02 05 00 01 00 04 00", 0x02), ("02 05 00 01 00 03 01", 0x02),
            ("02 ffffffffffffffff 00 01 00 ffffffffffffffff ffffffffffffffff", 0x02),
            ("03 ffffffffffffffff 00 01 ffffffffffffffff 00 00 00 00 00", 0x03),
            // More ranges than there are bytes.
            ("02 3f 00 ffffffffffffffff 00 00 00", 0x02), ("02 3f 00 02 00 00 00 00", 0x02),
        ] as [(String, UInt64)])
    func rules(encoded: String, type: UInt64) {
        let error = frameError(hex(encoded))
        #expect(error?.code == .frameEncodingError)
        #expect(error?.frameType == type)
    }

    @Test("the extremes that the rules allow are parsed")
    func extremes() throws {
        #expect(try parseFrames(hex("12 d000000000000000")) == [.maxStreams(.bidirectional, 1 << 60)])
        #expect(try parseFrames(hex("17 d000000000000000")) == [.streamsBlocked(.unidirectional, 1 << 60)])
        #expect(
            try parseFrames(hex("06 fffffffffffffffe 01 aa"))
                == [.crypto(CryptoFrame(offset: Varint.maximum - 1, data: ByteRange(offset: 10, count: 1)))])
        let end = StreamFrame(
            id: StreamID(rawValue: 0), offset: Varint.maximum, data: ByteRange(offset: 10, count: 0), isFinal: true)
        #expect(try parseFrames(hex("0d 00 ffffffffffffffff")) == [.stream(end)])
        #expect(try parseFrames(hex("18 05 05 01 aa 000102030405060708090a0b0c0d0e0f")).count == 1)
    }

    @Test("the ranges of an ACK frame come out as they went in, the largest first")
    func ackRanges() throws {
        var random = RandomSource.seeded(13)
        for _ in 0..<500 {
            let ranges = random.ackRanges()
            let bytes = try #require(written { writeAck(ranges, encodedDelay: 7, ecn: nil, to: &$0) })
            guard case .ack(let frame)? = try parseFrames(bytes).first else {
                Issue.record("no ACK frame")
                continue
            }
            #expect(acknowledgedRanges(frame, in: bytes) == ranges)
        }
    }

    @Test("an ACK frame may reach down to packet 0")
    func ackToZero() throws {
        let bytes = hex("02 05 00 01 00 03 00")
        guard case .ack(let frame)? = try parseFrames(bytes).first else {
            Issue.record("no ACK frame")
            return
        }
        #expect(acknowledgedRanges(frame, in: bytes) == [5...5, 0...0])
    }

    @Test("reading ranges from bytes other than the frame's ends early and does not trap")
    func ackOverOtherBytes() {
        let frame = AckFrame(
            largest: 10, encodedDelay: 0, firstRange: 2, additionalRangeCount: 3,
            additionalRanges: ByteRange(offset: 0, count: 100), ecn: nil)
        #expect(acknowledgedRanges(frame, in: [0, 1, 0xff]) == [8...10, 5...6])
        #expect(acknowledgedRanges(frame, in: [UInt8](repeating: 0xff, count: 100)) == [8...10])
    }

    @Test("each frame is permitted where table 3 of RFC 9000 has it")
    func permitted() throws {
        var random = RandomSource.seeded(14)
        // In the order Initial, 0-RTT, Handshake, 1-RTT.
        let table: [FrameKind: String] = [
            .padding: "I0H1", .ping: "I0H1", .ack: "I_H1", .ackECN: "I_H1", .resetStream: "_0_1",
            .stopSending: "_0_1", .crypto: "I_H1", .newToken: "___1", .stream: "_0_1", .openStream: "_0_1",
            .maxData: "_0_1", .maxStreamData: "_0_1", .maxStreams: "_0_1", .dataBlocked: "_0_1",
            .streamDataBlocked: "_0_1", .streamsBlocked: "_0_1", .newConnectionID: "_0_1",
            .retireConnectionID: "_0_1", .pathChallenge: "_0_1", .pathResponse: "___1", .connectionClose: "I0H1",
            .applicationClose: "_0_1", .handshakeDone: "___1", .ackFrequency: "___1", .immediateAck: "___1",
        ]
        for kind in FrameKind.allCases {
            var frame: Frame?
            _ = written { frame = try? kind.write(to: &$0, &random).0 }
            let parsed = try #require(frame)
            let found = zip(EncryptionLevel.allCases, "I0H1").map { parsed.isPermitted(at: $0) ? $1 : "_" }
            #expect(String(found) == table[kind], "\(kind)")
        }
    }

    @Test("a reason phrase is cut between characters")
    func reasonPhrase() {
        #expect(FrameSize.reasonLength("", atMost: 5) == 0)
        #expect(FrameSize.reasonLength("abc", atMost: 5) == 3)
        #expect(FrameSize.reasonLength("abc", atMost: 2) == 2)
        #expect(FrameSize.reasonLength("aé€😀", atMost: 100) == 10)
        #expect(FrameSize.reasonLength("aé€😀", atMost: 9) == 6)
        #expect(FrameSize.reasonLength("aé€😀", atMost: 5) == 3)
        #expect(FrameSize.reasonLength("abc", atMost: -1) == 0)
    }

    @Test("the payloads of RFC 9001, appendix A parse as described")
    func samplePayloads() throws {
        let server = hex(
            """
            02000000000600405a020000560303ee fce7f7b37ba1d1632e96677825ddf739
            88cfc79825df566dc5430b9a045a1200 130100002e00330024001d00209d3c94
            0d89690b84d08a60993c144eca684d10 81287c834d5311bcf32bb9da1a002b00
            020304
            """)
        let ack = AckFrame(
            largest: 0, encodedDelay: 0, firstRange: 0, additionalRangeCount: 0,
            additionalRanges: ByteRange(offset: 5, count: 0), ecn: nil)
        #expect(
            try parseFrames(server)
                == [.ack(ack), .crypto(CryptoFrame(offset: 0, data: ByteRange(offset: 9, count: 90)))])
        #expect(server.count == 99)

        let client = hex("060040f1") + [UInt8](repeating: 1, count: 241) + [UInt8](repeating: 0, count: 917)
        #expect(
            try parseFrames(client)
                == [.crypto(CryptoFrame(offset: 0, data: ByteRange(offset: 4, count: 241))), .padding(count: 917)])
    }
}
