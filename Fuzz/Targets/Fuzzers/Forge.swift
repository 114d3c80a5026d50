// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// A peer that has the keys and no scruples: it seals whatever it is given and opens what it gets.
struct Forge: ~Copyable {
    var protection: PacketProtection
    /// Where its packets go, and the source that those with long headers name.
    var destination: ConnectionID
    var source: ConnectionID
    /// By packet number space.
    private(set) var nextNumber: [PacketNumber] = [0, 0, 0]
    private(set) var largestOpened: [PacketNumber?] = [nil, nil, nil]

    init(role: Role, destination: ConnectionID, source: ConnectionID) {
        protection = PacketProtection(role: role, version: .v1)
        self.destination = destination
        self.source = source
    }

    /// How a packet differs from what an honest peer would make.
    struct Options {
        /// The packet's number, in place of the next one.
        var number: PacketNumber?
        /// Numbers left out before it.
        var skip: PacketNumber = 0
        var destination: ConnectionID?
        /// The datagram has so many bytes at least.
        var padTo = 0
    }

    /// A datagram with one packet that carries `frames`; nil if there are no keys.
    mutating func seal(_ frames: [UInt8], at level: EncryptionLevel, options: Options = Options()) -> [UInt8]? {
        guard protection.canSeal(level) else { return nil }
        let space = Int(level.space.rawValue)
        let number = min(options.number ?? (nextNumber[space] + options.skip), Varint.maximum)
        nextNumber[space] = min(max(nextNumber[space], number + 1), Varint.maximum)
        var bytes = [UInt8](repeating: 0, count: frames.count + 1_300)
        var span = bytes.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        let packet: PacketStart
        if level == .oneRTT {
            packet = writer.beginShortPacket(
                destination: options.destination ?? destination, spin: false, keyPhase: protection.writeKeyPhase,
                packetNumber: number, packetNumberLength: 4)
        } else {
            packet = writer.beginLongPacket(
                type: level == .initial ? .initial : level == .handshake ? .handshake : .zeroRTT, version: .v1,
                destination: options.destination ?? destination, source: source, packetNumber: number,
                packetNumberLength: 4)
        }
        writer.writeBytes(frames)
        writer.writeZeros(options.padTo - PacketProtection.tagLength - writer.offset)
        writer.finishLength(packet, tagLength: PacketProtection.tagLength)
        do {
            try protection.seal(
                level, writer: &writer, packetStart: packet.start, packetNumberOffset: packet.packetNumberOffset,
                packetNumberLength: packet.packetNumberLength, packetNumber: number)
        } catch {
            return nil
        }
        let size = writer.offset
        return Array(bytes[..<size])
    }

    struct Opened {
        var level: EncryptionLevel
        var number: PacketNumber
        var destination: ConnectionID
        var payload: [UInt8]
    }

    /// The packets of a datagram that can be opened.
    mutating func open(_ datagram: [UInt8], now: Instant) -> [Opened] {
        var bytes = datagram
        var opened: [Opened] = []
        var offset = 0
        while offset < bytes.count {
            let header = PacketHeader.parse(
                bytes.span.bytes, at: offset, shortHeaderConnectionIDLength: Int(source.length))
            let level: EncryptionLevel
            let packet: Range<Int>
            let numberOffset: Int
            let id: ConnectionID
            switch header {
            case .long(let long):
                level = long.type == .initial ? .initial : long.type == .handshake ? .handshake : .earlyData
                (packet, numberOffset, id) = (long.packet, long.packetNumberOffset, long.dcid)
            case .short(let short):
                level = .oneRTT
                (packet, numberOffset, id) = (short.packet, short.packetNumberOffset, short.dcid)
            default: return opened
            }
            offset = packet.upperBound
            let space = Int(level.space.rawValue)
            var span = bytes.mutableSpan
            var raw = span.mutableBytes
            let result = try? protection.open(
                level, datagram: &raw, packet: packet, packetNumberOffset: numberOffset,
                largestReceived: largestOpened[space], now: now, keyDiscardDelay: .seconds(3))
            guard let result = result ?? nil else { continue }
            largestOpened[space] = max(largestOpened[space] ?? 0, result.packetNumber)
            opened.append(
                Opened(
                    level: level, number: result.packetNumber, destination: id, payload: Array(bytes[result.payload])))
        }
        return opened
    }
}

/// The bytes that `body` writes.
func written(_ body: (inout PacketWriter) -> Void) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4_096)
    var span = bytes.mutableSpan
    var writer = PacketWriter(span.mutableBytes)
    body(&writer)
    let count = writer.overflowed ? 0 : writer.offset
    return Array(bytes[..<count])
}

/// An ACK frame of one range.
func ackFrame(_ range: ClosedRange<PacketNumber>, delay: UInt64 = 0) -> [UInt8] {
    written {
        $0.writeUInt8(0x02)
        $0.writeVarint(min(range.upperBound, Varint.maximum))
        $0.writeVarint(delay)
        $0.writeVarint(0)
        $0.writeVarint(min(range.upperBound - range.lowerBound, Varint.maximum))
    }
}

func cryptoFrame(offset: UInt64, _ bytes: [UInt8]) -> [UInt8] {
    written {
        $0.writeCryptoHeader(offset: min(offset, Varint.maximum - 65_536), length: bytes.count)
        $0.writeBytes(bytes)
    }
}
