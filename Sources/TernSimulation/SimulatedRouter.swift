// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A hop between hosts and the core, with a link to each side that all its hosts share: a bottleneck where flows meet, or a
/// place with an MTU smaller than that of the hosts' own links.
public final class SimulatedRouter {
    public let name: String
    public let toCore: SimulatedLink
    public let fromCore: SimulatedLink

    init(name: String, toCore: SimulatedLink, fromCore: SimulatedLink) {
        self.name = name
        self.toCore = toCore
        self.fromCore = fromCore
    }

    /// Changes both directions at once.
    public func setConditions(_ conditions: LinkConditions) {
        toCore.conditions = conditions
        fromCore.conditions = conditions
    }
}

/// Several servers behind one address, each with that address as its own, so that they answer clients directly.
public final class SimulatedLoadBalancer {
    public enum Policy: Sendable {
        /// By the client's address: a client whose NAT rebinds reaches another server, which knows nothing of it.
        case fourTuple
        /// By connection ID, as QUIC is meant to be balanced: whoever issued it gets the packet. First packets go by address.
        case connectionID
    }

    public let address: NetworkAddress
    public let policy: Policy
    public private(set) var targets: [SimulatedInterface] = []
    /// Targets that are not served any more; what would go there goes to the next.
    public var drained: Set<Int> = []

    init(address: NetworkAddress, policy: Policy) {
        self.address = address
        self.policy = policy
    }

    func add(_ interface: SimulatedInterface) { targets.append(interface) }

    func target(of datagram: SimulatedDatagram) -> SimulatedInterface? {
        guard !targets.isEmpty else { return nil }
        if policy == .connectionID {
            // A balancer of the real world reads the server from the ID; this one asks the servers.
            for target in targets {
                if let endpoint = target.receiver as? SimulatedEndpoint, endpoint.owns(datagram) { return target }
            }
        }
        let hash = Self.hash(datagram.source)
        for step in targets.indices {
            let index = (Int(hash % UInt64(targets.count)) + step) % targets.count
            if !drained.contains(index) { return targets[index] }
        }
        return nil
    }

    /// The same in every process, unlike `Hasher`'s.
    private static func hash(_ address: NetworkAddress) -> UInt64 {
        var source = RandomSource.seeded(
            UInt64(address.ipv4 ?? 0) << 16 ^ (address.ipv6.map { $0.0 ^ $0.1 } ?? 0) ^ UInt64(address.port))
        return source.next()
    }
}
