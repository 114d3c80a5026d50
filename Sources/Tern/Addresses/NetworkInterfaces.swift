// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

enum NetworkInterfaces {
    /// The addresses of an interface to bind to: one IPv4 and one IPv6 address, whichever it has; a link-local one only if
    /// there is no other of its family.
    static func bindableAddresses(of name: String) throws(TernError) -> [NetworkAddress] {
        let devices: [NIONetworkDevice]
        do {
            devices = try System.enumerateDevices()
        } catch {
            throw .interfaceUnavailable(name)
        }
        var chosen: [NetworkAddress.Family: NetworkAddress] = [:]
        for device in devices where device.name == name {
            guard let address = device.address.flatMap({ NetworkAddress($0) }), !address.isMulticast else { continue }
            let scoped = address.scoped(toInterface: device.interfaceIndex).withPort(0)
            if let known = chosen[address.family], !known.isLinkLocal { continue }
            chosen[address.family] = scoped
        }
        let addresses = [chosen[.ipv4], chosen[.ipv6]].compactMap { $0 }
        guard !addresses.isEmpty else { throw .interfaceUnavailable(name) }
        return addresses
    }
}
