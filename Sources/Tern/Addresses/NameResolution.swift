// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOPosix

#if canImport(Darwin)
internal import Darwin
#elseif canImport(Musl)
internal import Musl
#else
internal import Glibc
#endif

enum NameResolution {
    /// Addresses of one name that are tried at most.
    static let maximumAddresses = 8

    /// The addresses of a name, in the system's order of preference. Asks the system on a thread of the pool, since
    /// getaddrinfo blocks.
    static func addresses(
        of target: HostAndPort, on simulation: (any SimulatedEventLoop)? = nil
    ) async throws(TernError) -> [NetworkAddress] {
        if let literal = target.literal { return [literal] }
        if let simulation {
            let addresses = simulation.addresses(of: target.host)
            guard !addresses.isEmpty else {
                throw .unknownHost(target.host, explanation: "no host of the simulation has this name")
            }
            return addresses.map { $0.withPort(target.port) }
        }
        let result: Result<[NetworkAddress], TernError>
        do {
            result = try await NIOThreadPool.singleton.runIfActive { lookUp(target) }
        } catch {
            throw Task.isCancelled ? .cancelled : .unknownHost(target.host, explanation: "\(error)")
        }
        return try result.get()
    }

    private static func lookUp(_ target: HostAndPort) -> Result<[NetworkAddress], TernError> {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        #if canImport(Glibc)
        hints.ai_socktype = CInt(SOCK_DGRAM.rawValue)
        #else
        hints.ai_socktype = SOCK_DGRAM
        #endif
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(target.host, String(target.port), &hints, &list)
        guard status == 0 else {
            return .failure(.unknownHost(target.host, explanation: String(cString: gai_strerror(status))))
        }
        defer { freeaddrinfo(list) }
        var addresses: [NetworkAddress] = []
        var entry = list
        while let current = entry, addresses.count < maximumAddresses {
            if let address = address(of: current.pointee), !addresses.contains(address) { addresses.append(address) }
            entry = current.pointee.ai_next
        }
        guard !addresses.isEmpty else {
            return .failure(.unknownHost(target.host, explanation: "it has neither an IPv4 nor an IPv6 address"))
        }
        return .success(addresses)
    }

    private static func address(of entry: addrinfo) -> NetworkAddress? {
        guard let raw = UnsafeRawPointer(entry.ai_addr) else { return nil }
        // The length that getaddrinfo gives for a family is that of the family's structure.
        switch entry.ai_family {
        case AF_INET: return NetworkAddress(SocketAddress(raw.loadUnaligned(as: sockaddr_in.self), host: ""))
        case AF_INET6: return NetworkAddress(SocketAddress(raw.loadUnaligned(as: sockaddr_in6.self), host: ""))
        default: return nil
        }
    }
}
