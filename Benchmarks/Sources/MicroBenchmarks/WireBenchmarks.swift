// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Varints, frames and headers, parsed and written.
extension Harness {
    mutating func measureWire() throws {
        room = "Wire"
        for (value, name) in [(UInt64(37), "1"), (15_293, "2"), (494_878_333, "4"), (151_288_809_941_952_652, "8")] {
            try measureVarint(value, "\(name)-byte varint")
        }
        measureShortHeader()
        try measureLongHeader()
        try measureStreamFrame()
        try measureAckFrame(ranges: 1, "1 range")
        try measureAckFrame(ranges: 32, "32 ranges")
        try measureControlFrames()
    }

    // MARK: Varints

    private mutating func measureVarint(_ value: UInt64, _ name: String) throws {
        let count = 1_024
        let memory = lastingBytes(8 * count)
        measure("\(name), written", passes: 500, of: count) { passes in
            var written = 0
            for _ in 0..<passes {
                var span = memory.mutableBytes
                var writer = PacketWriter(&span)
                for _ in 0..<count { writer.writeVarint(value) }
                written += writer.offset
            }
            return UInt64(written)
        }
        try measure("\(name), read", passes: 500, of: count) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                var reader = WireReader(memory.bytes)
                for _ in 0..<count { sum &+= try reader.readVarint() }
            }
            return sum
        }
    }

    // MARK: Headers

    private mutating func measureShortHeader() {
        let memory = lastingBytes(1_452)
        var random = RandomSource.seeded(1)
        let id = ConnectionID.random(length: 8, using: &random)
        var number: PacketNumber = 0
        measure("short header, written", passes: 100_000) { passes in
            var sum = 0
            for _ in 0..<passes {
                var span = memory.mutableBytes
                var writer = PacketWriter(&span)
                let start = writer.beginShortPacket(
                    destination: id, spin: false, keyPhase: false, packetNumber: number, packetNumberLength: 2)
                number += 1
                sum &+= start.payloadOffset
            }
            return UInt64(sum)
        }
        measure("short header, parsed", passes: 100_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                let header = PacketHeader.parse(memory.bytes, at: 0, shortHeaderConnectionIDLength: 8)
                if case .short(let short) = header { sum &+= UInt64(short.packetNumberOffset) }
            }
            return sum
        }
    }

    private mutating func measureLongHeader() throws {
        let memory = lastingBytes(1_200)
        var random = RandomSource.seeded(2)
        var span = memory.mutableBytes
        var writer = PacketWriter(&span)
        let start = writer.beginLongPacket(
            type: .initial, version: .v1, destination: .random(length: 8, using: &random),
            source: .random(length: 8, using: &random), packetNumber: 0, packetNumberLength: 2)
        writer.writeZeros(1_100)
        writer.finishLength(start, tagLength: PacketProtection.tagLength)
        try measure("Initial header, parsed", passes: 100_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                guard case .long(let long) = PacketHeader.parse(memory.bytes, at: 0, shortHeaderConnectionIDLength: 8)
                else { throw UnexpectedResult("no Initial header") }
                sum &+= UInt64(long.packet.upperBound)
            }
            return sum
        }
    }

    // MARK: Frames

    private mutating func measureStreamFrame() throws {
        let memory = lastingBytes(1_452)
        let data = UnsafeRawBufferPointer(lastingBytes(1_400))
        let id = StreamID(initiator: .client, direction: .bidirectional, ordinal: 3)
        var offset: UInt64 = 1 << 20
        var length = 0
        measure("STREAM of 1,400 bytes, written", passes: 100_000) { passes in
            for _ in 0..<passes {
                var span = memory.mutableBytes
                var writer = PacketWriter(&span)
                writer.writeStreamHeader(id: id, offset: offset, length: data.count, isFinal: false)
                writer.writeBytes(data)
                offset += 1_400
                length = writer.offset
            }
            return offset
        }
        try measure("STREAM of 1,400 bytes, parsed", passes: 100_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                var parser = FrameParser(memory.bytes, payload: 0..<length)
                guard case .stream(let frame)? = try parser.next() else { throw UnexpectedResult("no STREAM frame") }
                sum &+= frame.offset &+ UInt64(frame.data.count)
            }
            return sum
        }
    }

    private mutating func measureAckFrame(ranges: UInt64, _ name: String) throws {
        let memory = lastingBytes(256)
        var received = ReceivedPackets(acknowledgesAtOnce: false)
        let start = Instant(nanoseconds: 1_000_000_000)
        for range in 0..<ranges {
            for number in 0..<10 as Range<UInt64> {
                received.record(100_000 + 12 * range + number, isAckEliciting: true, ecn: .notECT, now: start)
            }
        }
        var length = 0
        try measure("ACK of \(name), written", passes: 50_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                var span = memory.mutableBytes
                var writer = PacketWriter(&span)
                let largest = received.writeAck(into: &writer, delayExponent: 3, now: start + .microseconds(400))
                guard let largest else { throw UnexpectedResult("no ACK frame") }
                sum &+= largest
                length = writer.offset
            }
            return sum
        }
        try measure("ACK of \(name), parsed and walked", passes: 50_000) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                let bytes = memory.bytes
                var parser = FrameParser(bytes, payload: 0..<length)
                guard case .ack(let frame)? = try parser.next() else { throw UnexpectedResult("no ACK frame") }
                var walker = AckRangeReader(frame, in: bytes)
                while let range = walker.next() { sum &+= range.lowerBound &+ range.upperBound }
            }
            return sum
        }
    }

    private mutating func measureControlFrames() throws {
        let memory = lastingBytes(256)
        var random = RandomSource.seeded(3)
        let issued = NewConnectionIDFrame(
            sequence: 5, retirePriorTo: 2, connectionID: .random(length: 8, using: &random),
            resetToken: StatelessResetToken(prefixOf: random.bytes(StatelessResetToken.length)))
        let id = StreamID(rawValue: 400)
        // As many as `writeControlMix` writes.
        let count = 14
        var length = 0
        measure("control frame, written (mean of \(count) types)", passes: 5_000, of: count) { passes in
            for pass in 0..<passes {
                var span = memory.mutableBytes
                var writer = PacketWriter(&span)
                writeControlMix(into: &writer, id: id, value: 1 << 20 | UInt64(pass), issued: issued)
                length = writer.offset
            }
            return UInt64(length)
        }
        try measure("control frame, parsed (mean of \(count) types)", passes: 5_000, of: count) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                var parser = FrameParser(memory.bytes, payload: 0..<length)
                var parsed = 0
                while let frame = try parser.next() {
                    if case .maxData(let limit) = frame { sum &+= limit }
                    sum &+= frame.isProbing ? 1 : 0
                    parsed += 1
                }
                guard parsed == count else { throw UnexpectedResult("not all control frames") }
            }
            return sum
        }
    }
}

/// Each control frame that has no data of variable length, once.
private func writeControlMix(
    into writer: inout PacketWriter, id: StreamID, value: UInt64, issued: NewConnectionIDFrame
) {
    writer.writePing()
    writer.writeMaxData(value)
    writer.writeMaxStreamData(id, value)
    writer.writeMaxStreams(.bidirectional, 200)
    writer.writeDataBlocked(value)
    writer.writeStreamDataBlocked(id, value)
    writer.writeStreamsBlocked(.unidirectional, 200)
    writer.writeResetStream(ResetStreamFrame(id: id, applicationErrorCode: 7, finalSize: value))
    writer.writeStopSending(StopSendingFrame(id: id, applicationErrorCode: 7))
    writer.writeNewConnectionID(issued)
    writer.writeRetireConnectionID(sequence: 4)
    writer.writePathChallenge(value)
    writer.writePathResponse(value)
    writer.writeHandshakeDone()
}
