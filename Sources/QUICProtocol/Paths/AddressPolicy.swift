// SPDX-License-Identifier: Apache-2.0

/// How far an IP address reaches.
enum AddressScope: Hashable, Sendable {
    /// No address at all: 0.0.0.0/8, ::.
    case unspecified
    /// Many hosts at once, broadcast included.
    case multicast
    /// This host alone.
    case loopback
    /// The hosts of one link alone.
    case linkLocal
    /// Everything else. Private ranges are in here: networks use them on purpose, and RFC 9000, section 21.5.6, advises
    /// against refusing them.
    case routed
}

extension NetworkAddress {
    var scope: AddressScope {
        var address = self
        if family == .ipv6, high == 0, low >> 32 == 0xffff {
            // An IPv4 address in IPv6's clothes goes where the IPv4 address goes.
            address = NetworkAddress(ipv4: UInt32(truncatingIfNeeded: low), port: port)
        }
        if address.isUnspecified || address.family == .ipv4 && address.low >> 24 == 0 { return .unspecified }
        if address.isMulticast { return .multicast }
        if address.isLoopback { return .loopback }
        return address.isLinkLocal ? .linkLocal : .routed
    }
}

/// Where a peer must not send us (RFC 9000, section 21.5; M41).
///
/// Whoever names an address, as a server does with its preferred address and a client by the source of a packet, could
/// otherwise have us send to hosts which the namer itself cannot reach: those behind our own firewall, and servers of other
/// protocols that take a datagram for a request.
enum AddressPolicy {
    /// Why an address is not sent to.
    enum Refusal: Hashable, Sendable {
        /// It is in a scope in which the connection is not.
        case scope(AddressScope)
        /// Servers of another protocol listen on the port, and answer what they do not understand.
        case reflectorPort(UInt16)
    }

    /// - Parameters:
    ///   - candidate: where the peer would have us send.
    ///   - known: where the peer is reached already, and has proved it.
    /// - Returns: nil if nothing speaks against it.
    static func refusal(of candidate: NetworkAddress, knownAs known: NetworkAddress) -> Refusal? {
        if isReflectorPort(candidate.port) { return .reflectorPort(candidate.port) }
        switch candidate.scope {
        case .routed:
            return nil
        case .loopback where known.scope == .loopback:
            return nil
        case .linkLocal where known.scope == .linkLocal && known.scopeID == candidate.scopeID:
            return nil
        case let scope:
            return .scope(scope)
        }
    }

    /// Whether the port is of a protocol over UDP whose servers answer strangers, often with more than they were sent, or
    /// answer so that a loop results. No client has such a source port by chance but through a NAT that is careless about
    /// low ports, and most of such a NAT's other ports are fine.
    static func isReflectorPort(_ port: UInt16) -> Bool {
        switch port {
        case 0,  // Not a port that anything can be sent to.
            7,  // Echo.
            13,  // Daytime.
            17,  // Quote of the day.
            19,  // Character generator.
            37,  // Time.
            53,  // DNS.
            69,  // TFTP.
            111,  // Portmapper.
            123,  // NTP.
            137,  // NetBIOS name service.
            138,  // NetBIOS datagram service.
            161,  // SNMP.
            389,  // CLDAP.
            500,  // IKE.
            520,  // RIP.
            1_900,  // SSDP.
            3_702,  // WS-Discovery.
            5_353,  // mDNS.
            5_355,  // LLMNR.
            11_211:  // Memcached.
            true
        default:
            false
        }
    }
}
