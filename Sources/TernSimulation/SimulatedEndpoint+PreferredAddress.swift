// SPDX-License-Identifier: Apache-2.0

internal import QUICProtocol

extension SimulatedEndpoint {
    /// The server prefers other addresses: tells the engine over which interfaces they can be reached, as a real binding
    /// does. That in use comes first, then the first one of the other family.
    func followPreferredAddress(_ addresses: [NetworkAddress], on record: ConnectionRecord) {
        let now = network.now
        withConnection(record) { connection in
            let active = connection.pathSnapshot(connection.activePath)?.tuple.transport
            let ways = addresses.compactMap { address -> FourTuple? in
                let usable = interfaces.filter { $0.isOpen && $0.address.family == address.family }
                guard let interface = usable.first(where: { $0.transport == active }) ?? usable.first else {
                    return nil
                }
                return FourTuple(transport: interface.transport, local: interface.address, remote: address)
            }
            connection.followPreferredAddress(over: ways, now: now)
        }
    }
}
