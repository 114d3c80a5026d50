// SPDX-License-Identifier: Apache-2.0

extension Transport {
    /// The configuration of a listener whose clients are asked to move to the addresses of `transports`.
    func announcing(
        _ transports: [Transport], in configuration: ConnectionConfiguration
    ) throws(TernError) -> ConnectionConfiguration {
        for transport in transports {
            // Connection IDs are found on the sockets of one event loop.
            guard transport.worker === worker else { throw .transportOnAnotherEventLoop }
            guard !transport.isClosed else { throw .transportClosed }
        }
        guard configuration.preferredAddresses == nil, !transports.isEmpty else { return configuration }
        var announced = configuration
        announced.preferredAddresses = try Self.announcedAddresses(of: transports.flatMap(\.localAddresses))
        return announced
    }

    private static func announcedAddresses(of addresses: [NetworkAddress]) throws(TernError) -> PreferredAddresses {
        func only(_ family: NetworkAddress.Family) throws(TernError) -> NetworkAddress? {
            let ofFamily = addresses.filter { $0.family == family }
            guard ofFamily.count < 2 else {
                throw .noPreferredAddress("\(ofFamily[0]) and \(ofFamily[1]) are of one family")
            }
            return ofFamily.first
        }
        guard let preferred = PreferredAddresses(ipv4: try only(.ipv4), ipv6: try only(.ipv6)) else {
            throw .noPreferredAddress(
                "a socket bound to none in particular needs configuration.preferredAddresses to name one")
        }
        return preferred
    }
}

extension ConnectionDriver {
    /// The server prefers other addresses: tells the engine over which sockets they can be reached (M31). The socket in use
    /// comes first, then that of its transport for the other family.
    func followPreferredAddress(_ addresses: [NetworkAddress], of connection: inout QUICConnection, now: Instant) {
        guard let active = connection.pathSnapshot(connection.activePath)?.tuple,
            let socket = worker.socket(active.transport)
        else { return }
        var tuples: [FourTuple] = []
        for address in addresses {
            guard let socket = socket.boundAddress.family == address.family ? socket : socket.sibling, !socket.isClosed
            else { continue }
            do throws(TernError) {
                let local = try socket.localAddress(towards: address)
                tuples.append(FourTuple(transport: socket.id, local: local, remote: address))
            } catch {
                logger.debug(
                    "the server's preferred address cannot be reached",
                    metadata: ["address": "\(address)", "error": "\(error)"])
            }
        }
        connection.followPreferredAddress(over: tuples, now: now)
    }
}
