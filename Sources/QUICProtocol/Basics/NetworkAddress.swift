// SPDX-License-Identifier: Apache-2.0

/// An IP address and a UDP port, as a value without references: it is compared for every datagram.
public struct NetworkAddress: Hashable, Sendable {
    public enum Family: UInt8, Sendable { case ipv4 = 4, ipv6 = 6 }

    /// The first eight bytes of an IPv6 address in host order; 0 for IPv4.
    @usableFromInline var high: UInt64
    /// The last eight bytes of an IPv6 address, or the IPv4 address, in host order.
    @usableFromInline var low: UInt64
    public var port: UInt16
    public var family: Family
    /// The interface index of a link-local IPv6 address, else 0.
    public var scopeID: UInt32

    /// An IPv4 address given as a number: `127.0.0.1` is `0x7f00_0001`.
    public init(ipv4 address: UInt32, port: UInt16) {
        self.high = 0
        self.low = UInt64(address)
        self.port = port
        self.family = .ipv4
        self.scopeID = 0
    }

    /// The four numbers of a dotted IPv4 address.
    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8, port: UInt16) {
        self.init(ipv4: UInt32(a) << 24 | UInt32(b) << 16 | UInt32(c) << 8 | UInt32(d), port: port)
    }

    /// An IPv6 address given as its two halves in host order: `::1` is `(0, 1)`.
    public init(ipv6 high: UInt64, _ low: UInt64, port: UInt16, scopeID: UInt32 = 0) {
        self.high = high
        self.low = low
        self.port = port
        self.family = .ipv6
        self.scopeID = scopeID
    }

    /// The IPv4 address as a number, or nil for IPv6.
    public var ipv4: UInt32? { family == .ipv4 ? UInt32(truncatingIfNeeded: low) : nil }
    /// The two halves of an IPv6 address in host order, or nil for IPv4.
    public var ipv6: (high: UInt64, low: UInt64)? { family == .ipv6 ? (high, low) : nil }

    /// Whether the IP addresses are equal, whatever the ports: a rebinding that keeps the IP is a port-only change.
    @inlinable
    public func hasSameIP(as other: NetworkAddress) -> Bool {
        low == other.low && high == other.high && family == other.family && scopeID == other.scopeID
    }

    @inlinable
    public static func == (a: NetworkAddress, b: NetworkAddress) -> Bool { a.port == b.port && a.hasSameIP(as: b) }

    public var isUnspecified: Bool { high == 0 && low == 0 }

    public var isLoopback: Bool {
        switch family {
        case .ipv4: low >> 24 == 127
        case .ipv6: high == 0 && low == 1
        }
    }

    public var isLinkLocal: Bool {
        switch family {
        case .ipv4: low >> 16 == 0xa9fe
        case .ipv6: high >> 54 == 0x3fa
        }
    }

    public var isMulticast: Bool {
        switch family {
        case .ipv4: low >> 28 == 0xe || low == 0xffff_ffff
        case .ipv6: high >> 56 == 0xff
        }
    }

    public func withPort(_ port: UInt16) -> NetworkAddress {
        var copy = self
        copy.port = port
        return copy
    }
}

extension NetworkAddress: CustomStringConvertible {
    public var description: String {
        switch family {
        case .ipv4:
            return "\(low >> 24 & 255).\(low >> 16 & 255).\(low >> 8 & 255).\(low & 255):\(port)"
        case .ipv6:
            let groups = (0..<8).map { UInt16(truncatingIfNeeded: ($0 < 4 ? high : low) >> (48 - 16 * UInt64($0 % 4))) }
            // RFC 5952: the longest run of zero groups, if of two or more, becomes "::".
            var best = 0..<0
            var start = 0
            for index in 0...8 where index == 8 || groups[index] != 0 {
                if index - start > best.count { best = start..<index }
                start = index + 1
            }
            let hex = groups.map { String($0, radix: 16) }
            let text =
                best.count < 2
                ? hex.joined(separator: ":")
                : hex[..<best.lowerBound].joined(separator: ":") + "::" + hex[best.upperBound...].joined(separator: ":")
            return scopeID == 0 ? "[\(text)]:\(port)" : "[\(text)%\(scopeID)]:\(port)"
        }
    }
}

/// Names one of the sockets that an endpoint sends and receives on. The binding chooses the numbers.
public struct TransportID: Hashable, Sendable {
    public var rawValue: UInt32
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// Where a datagram came in or goes out: the socket, our address and the peer's.
///
/// The local address is the one the peer sees us under as far as this host knows: on a wildcard socket the binding
/// fills in the destination address of each received datagram.
public struct FourTuple: Hashable, Sendable {
    public var transport: TransportID
    public var local: NetworkAddress
    public var remote: NetworkAddress

    public init(transport: TransportID, local: NetworkAddress, remote: NetworkAddress) {
        self.transport = transport
        self.local = local
        self.remote = remote
    }

    /// What differs first comes first: this is asked for every datagram.
    @inline(__always)
    public static func == (a: FourTuple, b: FourTuple) -> Bool {
        a.remote.port == b.remote.port && a.transport == b.transport && a.remote == b.remote && a.local == b.local
    }
}

extension FourTuple: CustomStringConvertible {
    public var description: String { "\(local) ↔ \(remote)" }
}

/// The two ECN bits of the IP header (RFC 3168).
public enum ECNCodepoint: UInt8, Sendable {
    case notECT = 0b00
    case ect1 = 0b01
    case ect0 = 0b10
    case ce = 0b11
}
