// SPDX-License-Identifier: Apache-2.0

/// One of this host's networks: an interface with its addresses, as the system or the application describes it.
public struct LocalNetwork: Sendable, Hashable, Identifiable {
    public enum Kind: Sendable, Hashable, CaseIterable {
        /// Ethernet, also the one that a container has.
        case wired
        case wifi
        case cellular
        /// A tunnel.
        case vpn
        case loopback
        /// A bridge, or what we do not know.
        case other
    }

    /// The interface's name, `wlan0` for example; any name that is used once for a network of the application's own making.
    public var name: String
    /// Sockets are tied to the interface of this name. Nil: the address alone decides where datagrams leave.
    public var interface: String?
    /// The interface's index, or 0.
    public var index: Int
    public var kind: Kind
    /// Those that can be sent from; ports are 0.
    public var addresses: [NetworkAddress]
    /// Its use costs money, or somebody's goodwill.
    public var isExpensive: Bool
    /// It is up and has a carrier.
    public var isRunning: Bool

    public init(
        name: String, interface: String? = nil, index: Int = 0, kind: Kind, addresses: [NetworkAddress],
        isExpensive: Bool = false, isRunning: Bool = true
    ) {
        self.name = name
        self.interface = interface
        self.index = index
        self.kind = kind
        self.addresses = addresses
        self.isExpensive = isExpensive
        self.isRunning = isRunning
    }

    public var id: NetworkID { NetworkID(name) }

    /// Whether a socket could be bound here: an address of link scope alone leads nowhere.
    public var isUsable: Bool { isRunning && addresses.contains { !$0.isLinkLocal && !$0.isUnspecified } }

    /// The address to reach a peer from; nil if there is none of its family.
    func address(towards remote: NetworkAddress) -> NetworkAddress? {
        addresses.first { $0.family == remote.family && $0.isLinkLocal == remote.isLinkLocal }
    }

    func hasAddress(_ address: NetworkAddress) -> Bool { addresses.contains { $0.hasSameIP(as: address) } }
}

/// Which networks to use, and which rather than which.
public struct NetworkPreference: Sendable {
    private let rank: @Sendable (LocalNetwork) -> Int?

    /// - Parameter rank: the smaller, the better; nil for a network that must not be used. Called for usable networks only.
    public init(_ rank: @escaping @Sendable (LocalNetwork) -> Int?) {
        self.rank = rank
    }

    /// Kinds of networks, the best first. Others are not used. Of two of one kind the cheaper is preferred.
    public static func kinds(_ order: [LocalNetwork.Kind]) -> NetworkPreference {
        NetworkPreference { network in
            order.firstIndex(of: network.kind).map { $0 * 2 + (network.isExpensive ? 1 : 0) }
        }
    }

    /// A tunnel if there is one, then wired, WiFi, cellular, and what we do not know; never loopback.
    public static let standard = kinds([.vpn, .wired, .wifi, .cellular, .other])

    func available(_ networks: [LocalNetwork]) -> [AvailableNetwork] {
        networks.compactMap { network in
            guard network.isUsable, let rank = rank(network) else { return nil }
            return AvailableNetwork(network.id, rank: rank)
        }
    }
}

extension LocalNetwork: CustomStringConvertible {
    public var description: String {
        "\(name) (\(kind)\(isExpensive ? ", expensive" : "")\(isRunning ? "" : ", down")) "
            + addresses.filter { !$0.isLinkLocal }.map(\.ipDescription).joined(separator: " ")
    }
}

extension NetworkAddress {
    /// Without the port.
    fileprivate var ipDescription: String {
        let text = "\(self)"
        return String(text[..<(text.lastIndex(of: ":") ?? text.endIndex)])
    }
}
