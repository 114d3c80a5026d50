// SPDX-License-Identifier: Apache-2.0

/// Addresses to which a server asks its clients to move when they are connected, one of each family at most (RFC 9000,
/// section 9.6): what clients reach, so the address outside of a NAT if there is one.
///
/// The endpoint must receive what comes to them, on whatever sockets.
public struct PreferredAddresses: Hashable, Sendable {
    public var ipv4: NetworkAddress?
    public var ipv6: NetworkAddress?

    /// - Returns: nil if an address is not of its family, or has no port, or is the unspecified one: nobody could be sent
    ///   there.
    public init?(ipv4: NetworkAddress? = nil, ipv6: NetworkAddress? = nil) {
        for (address, family) in [(ipv4, NetworkAddress.Family.ipv4), (ipv6, .ipv6)] {
            guard let address else { continue }
            guard address.family == family, address.port != 0, !address.isUnspecified, !address.isMulticast else {
                return nil
            }
        }
        self.ipv4 = ipv4
        self.ipv6 = ipv6
    }

    /// What is worth telling a client that came to `address`: not where it is already.
    func announcement(to address: NetworkAddress) -> PreferredAddresses? {
        var rest = self
        if rest.ipv4 == address { rest.ipv4 = nil }
        if rest.ipv6 == address { rest.ipv6 = nil }
        return rest.ipv4 == nil && rest.ipv6 == nil ? nil : rest
    }
}

/// How a connection stands to the addresses of its server.
///
/// ```
///             offer             follow              answered
///   staying ─────────▶ offered ────────▶ validating ────────▶ moved
///      ▲                                   │    ▲ │
///      └───────────────────────────────────┘    └─┘ failed, and there is another
///                   failed
/// ```
/// A client that moves to another network of its own while it is not `moved` starts again from `staying`.
struct PreferredAddressState {
    enum Progress: Equatable {
        case staying
        /// Whoever knows the sockets was asked where an address could be reached from.
        case offered
        /// A way to one of the addresses is being proved; `others` follow if it fails. The path is forgotten then, unless the
        /// application has added it.
        case validating(PathID, isApplications: Bool, others: [FourTuple])
        case moved
    }

    /// The server's address in the handshake.
    let handshakeAddress: NetworkAddress
    /// Of a client: the addresses that the server announced, without those that must not be sent to.
    var announced: [NetworkAddress] = []
    /// Of a client: those of them that answered a challenge once, so that data may go there (RFC 9000, section 9.6.2).
    var proved: [NetworkAddress] = []
    var progress = Progress.staying
    /// Of a client: when it gives up the paths to the handshake's address. What the server sent from there before it followed
    /// is still under way until then.
    var abandonsHandshakeAddressAt: Instant = .distantFuture
    /// Of a server: the path to its preferred address on which the client's newest packet came, and which is yet to be
    /// proved before the server may follow (RFC 9000, section 9.6.2).
    var awaitedMove: PathID?

    init(handshakeAddress: NetworkAddress) {
        self.handshakeAddress = handshakeAddress
    }

    /// Addresses at which the server may be reached, as far as a client knows.
    var serverAddresses: [NetworkAddress] { [handshakeAddress] + announced }

    /// Whether data may be sent to an address of the server's before a challenge was answered on the path itself.
    func isProved(_ address: NetworkAddress) -> Bool { address == handshakeAddress || proved.contains(address) }

    mutating func prove(_ address: NetworkAddress) {
        if announced.contains(address), !proved.contains(address) { proved.append(address) }
    }
}
