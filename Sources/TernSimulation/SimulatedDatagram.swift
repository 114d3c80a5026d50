// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A UDP datagram on its way through the simulated network.
public struct SimulatedDatagram: Sendable {
    public var source: NetworkAddress
    public var destination: NetworkAddress
    public var ecn: ECNCodepoint
    /// The UDP payload.
    public var payload: [UInt8]
    /// Somebody put it into the network who is not its source.
    package var isInjected = false

    public init(
        source: NetworkAddress, destination: NetworkAddress, ecn: ECNCodepoint = .notECT, payload: [UInt8]
    ) {
        self.source = source
        self.destination = destination
        self.ecn = ecn
        self.payload = payload
    }

    /// The bytes it occupies on a link: payload, UDP header and IP header.
    public var sizeOnWire: Int { payload.count + 8 + (destination.family == .ipv4 ? 20 : 40) }
}

/// The packets of version 1 (RFC 9000, section 17).
public enum PacketKind: String, Sendable {
    case initial = "Initial"
    case zeroRTT = "0-RTT"
    case handshake = "Handshake"
    case retry = "Retry"
    case oneRTT = "1-RTT"
    case padding = "padding"
    case unknown = "unknown"
}

/// What anyone on the path can read of a QUIC packet without keys (RFC 8999; RFC 9000, section 17).
extension SimulatedDatagram {
    /// Whether the first packet has a long header, so belongs to a handshake.
    public var hasLongHeader: Bool { payload.first.map { $0 & 0x80 != 0 } ?? false }

    /// The version of a long header, or nil. 0 marks version negotiation.
    public var longHeaderVersion: UInt32? {
        guard hasLongHeader, payload.count >= 5 else { return nil }
        return payload[1..<5].reduce(0) { $0 << 8 | UInt32($1) }
    }

    /// The destination and source connection IDs of a long header.
    public var longHeaderIDs: (destination: [UInt8], source: [UInt8])? {
        guard hasLongHeader, payload.count >= 6 else { return nil }
        let destinationEnd = 6 + Int(payload[5])
        guard payload.count > destinationEnd else { return nil }
        let sourceEnd = destinationEnd + 1 + Int(payload[destinationEnd])
        guard payload.count >= sourceEnd else { return nil }
        return (Array(payload[6..<destinationEnd]), Array(payload[destinationEnd + 1..<sourceEnd]))
    }

    /// The destination connection ID of a short header; its length is not in the packet, so it must be known.
    public func shortHeaderDestinationID(length: Int) -> ConnectionID? {
        guard !hasLongHeader, length > 0, payload.count > length else { return nil }
        return ConnectionID(payload[1..<1 + length])
    }

    /// The coalesced packets of version 1 in their order, as far as they can be told apart (RFC 9000, section 12.2).
    public var packets: [(kind: PacketKind, size: Int)] {
        var packets: [(kind: PacketKind, size: Int)] = []
        var offset = 0
        while offset < payload.count {
            let rest = payload.count - offset
            guard payload[offset] & 0x80 != 0 else {
                // Zeros behind a long header are padding that belongs to no packet.
                packets.append((payload[offset] & 0x40 != 0 ? .oneRTT : .padding, rest))
                break
            }
            guard let (kind, end) = longHeaderPacket(at: offset) else {
                packets.append((.unknown, rest))
                break
            }
            packets.append((kind, end - offset))
            offset = end
        }
        return packets
    }

    /// Whether one of the coalesced packets is a version 1 Handshake packet: from a client, it proves that the client
    /// received what the server sent to its address (RFC 9000, section 8.1).
    public var containsHandshakePacket: Bool { packets.contains { $0.kind == .handshake } }

    /// For traces: the packets and their sizes.
    var summary: String { packets.map { "\($0.kind.rawValue) \($0.size)" }.joined(separator: " + ") + " B" }

    private func longHeaderPacket(at offset: Int) -> (PacketKind, end: Int)? {
        guard offset + 6 < payload.count else { return nil }
        let kind = [PacketKind.initial, .zeroRTT, .handshake, .retry][Int(payload[offset] >> 4 & 3)]
        guard payload[offset + 1..<offset + 5].elementsEqual([0, 0, 0, 1]) else { return (.unknown, payload.count) }
        if kind == .retry { return (.retry, payload.count) }
        var position = offset + 5
        for _ in 0..<2 {
            guard position < payload.count else { return nil }
            position += 1 + Int(payload[position])
        }
        if kind == .initial {
            guard let length = variableLengthInteger(at: &position), length <= UInt64(payload.count) else { return nil }
            position += Int(length)
        }
        guard let length = variableLengthInteger(at: &position), length <= UInt64(payload.count),
            position + Int(length) <= payload.count
        else { return nil }
        return (kind, position + Int(length))
    }

    private func variableLengthInteger(at position: inout Int) -> UInt64? {
        guard position < payload.count else { return nil }
        let length = 1 << Int(payload[position] >> 6)
        guard position + length <= payload.count else { return nil }
        var value = UInt64(payload[position] & 0x3f)
        for byte in payload[position + 1..<position + length] { value = value << 8 | UInt64(byte) }
        position += length
        return value
    }
}
