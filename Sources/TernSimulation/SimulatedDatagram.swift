// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A UDP datagram on its way through the simulated network.
public struct SimulatedDatagram: Sendable {
    public var source: NetworkAddress
    public var destination: NetworkAddress
    public var ecn: ECNCodepoint
    /// The UDP payload.
    public var payload: [UInt8]

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

    /// Whether one of the coalesced packets is a version 1 Handshake packet: from a client, it proves that the client
    /// received what the server sent to its address (RFC 9000, section 8.1).
    public var containsHandshakePacket: Bool {
        var offset = 0
        while offset + 6 < payload.count, payload[offset] & 0x80 != 0 {
            let type = payload[offset] >> 4 & 3
            if type == 2 { return true }
            var position = offset + 5
            for _ in 0..<2 {
                guard position < payload.count else { return false }
                position += 1 + Int(payload[position])
            }
            if type == 0 {
                guard let tokenLength = variableLengthInteger(at: &position) else { return false }
                guard tokenLength <= UInt64(payload.count) else { return false }
                position += Int(tokenLength)
            }
            guard let length = variableLengthInteger(at: &position), length <= UInt64(payload.count) else {
                return false
            }
            offset = position + Int(length)
        }
        return false
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
