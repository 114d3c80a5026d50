// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import Logging
public import NIOCore

#if canImport(Darwin)
internal import Darwin
#elseif canImport(Musl)
internal import Musl
#else
internal import Glibc
#endif

extension Transport {
    /// Opens a UDP socket.
    ///
    /// `[::]:port` opens two: one for IPv6 and one for IPv4 on the same port. Port 0 has the system choose.
    ///
    /// - Parameters:
    ///   - address: `host:port`, of this host.
    ///   - eventLoop: one of a `MultiThreadedEventLoopGroup`, to run on, or in a test a simulated host's (`TernTesting`). Nil:
    ///     the loop that all transports share which name none, so that connections can use any of them as a path.
    public static func bind(
        to address: String, on eventLoop: (any EventLoop)? = nil,
        configuration: TransportConfiguration = TransportConfiguration()
    ) async throws(TernError) -> Transport {
        let parsed = try HostAndPort(parsing: address)
        let simulation = configuration.simulation(on: eventLoop)
        guard let resolved = try await NameResolution.addresses(of: parsed, on: simulation).first else {
            throw .unknownHost(parsed.host, explanation: "no address")
        }
        return try await bind(to: resolved, on: eventLoop, configuration: configuration)
    }

    /// Opens a UDP socket on an address of this host; see ``bind(to:on:configuration:)-(String,_,_)``.
    public static func bind(
        to address: NetworkAddress, on eventLoop: (any EventLoop)? = nil,
        configuration: TransportConfiguration = TransportConfiguration()
    ) async throws(TernError) -> Transport {
        if let simulation = configuration.simulation(on: eventLoop) {
            return try await bind(to: address, onSimulated: simulation, configuration: configuration)
        }
        let opened =
            address.family == .ipv6 && address.isUnspecified
            ? try OpenSocket.openBothFamilies(port: address.port) : [try OpenSocket(on: address)]
        return try await start(opened, on: eventLoop, configuration: configuration)
    }

    /// Opens one socket on an address of this host, tied to the interface `device` if that is not nil.
    static func bind(
        to address: NetworkAddress, device: String?, on eventLoop: (any EventLoop)?,
        configuration: TransportConfiguration
    ) async throws(TernError) -> Transport {
        if let simulation = configuration.simulation(on: eventLoop) {
            return try await bind(to: address, device: device, onSimulated: simulation, configuration: configuration)
        }
        return try await start(
            [try OpenSocket(on: address, device: device)], on: eventLoop, configuration: configuration)
    }

    /// Opens UDP sockets on the addresses of a network interface, one IPv4 and one IPv6 as far as it has them, and ties them
    /// to it, so that what they send leaves there whatever the routes say.
    ///
    /// Where the process may not tie sockets to an interface, the source address alone decides.
    public static func bind(
        interface name: String, on eventLoop: (any EventLoop)? = nil,
        configuration: TransportConfiguration = TransportConfiguration()
    ) async throws(TernError) -> Transport {
        if let simulation = configuration.simulation(on: eventLoop) {
            return try await bind(interface: name, onSimulated: simulation, configuration: configuration)
        }
        let addresses = try NetworkInterfaces.bindableAddresses(of: name)
        var opened: [OpenSocket] = []
        var failure: TernError?
        for address in addresses {
            do throws(TernError) {
                opened.append(try OpenSocket(on: address, device: name))
            } catch {
                failure = error
            }
        }
        // One family is enough: an IPv6 address that is still tentative cannot be bound to, for instance.
        if opened.isEmpty { throw failure ?? .interfaceUnavailable(name) }
        return try await start(opened, on: eventLoop, configuration: configuration)
    }

    private static func start(
        _ opened: [OpenSocket], on eventLoop: (any EventLoop)?, configuration: TransportConfiguration
    ) async throws(TernError) -> Transport {
        let worker = eventLoop.map { Worker.of($0) } ?? .shared
        for socket in opened where socket.device != nil && !socket.isTiedToDevice {
            configuration.logger.notice(
                "not permitted to tie the socket to its interface; its source address has to do",
                metadata: ["interface": "\(socket.device ?? "")", "local": "\(socket.address)"])
        }
        let sockets = await worker.run {
            opened.map { socket in
                UDPSocket(
                    id: worker.makeTransportID(), descriptor: socket.descriptor, boundAddress: socket.address,
                    device: socket.device, worker: worker, configuration: configuration)
            }
        }
        do {
            for socket in sockets {
                try await worker.eventLoop.flatSubmit {
                    worker.add(socket)
                    socket.sibling = sockets.first { $0 !== socket }
                    return socket.start()
                }.get()
            }
        } catch {
            await worker.run {
                for socket in sockets { worker.remove(socket) }
                // Those that were not added yet.
                for socket in sockets { socket.close() }
            }
            if let error = error as? TernError { throw error }
            throw .system(call: "register socket (\(error))", errno: (error as? IOError)?.errnoCode ?? 0)
        }
        return Transport(worker: worker, configuration: configuration, sockets: sockets)
    }
}

/// A bound descriptor that no `UDPSocket` owns yet.
private struct OpenSocket: Sendable {
    let descriptor: Int32
    let address: NetworkAddress
    let device: String?
    let isTiedToDevice: Bool

    init(on address: NetworkAddress, device: String? = nil) throws(TernError) {
        var local = address.cAddress
        var descriptor: Int32 = -1
        var isTied = false
        let error =
            if let device {
                device.withCString { tern_socket_open(&local, $0, &descriptor, &isTied) }
            } else {
                tern_socket_open(&local, nil, &descriptor, &isTied)
            }
        guard error == 0 else { throw .system(call: "bind to \(address)", errno: error) }
        var bound = tern_address()
        let nameError = tern_socket_local_address(descriptor, &bound)
        guard nameError == 0 else {
            _ = tern_socket_close(descriptor)
            throw .system(call: "getsockname", errno: nameError)
        }
        self.descriptor = descriptor
        self.address = NetworkAddress(bound)
        self.device = device
        self.isTiedToDevice = isTied
    }

    /// Both families on one port. A host without IPv6 has one socket, IPv4, and a host without IPv4 the other.
    static func openBothFamilies(port: UInt16) throws(TernError) -> [OpenSocket] {
        let attempts = port == 0 ? 8 : 1
        var lastError = TernError.system(call: "bind", errno: EADDRINUSE)
        for _ in 0..<attempts {
            let inet6: OpenSocket
            do throws(TernError) {
                inet6 = try OpenSocket(on: .unspecified(.ipv6, port: port))
            } catch .system(_, EAFNOSUPPORT), .system(_, EADDRNOTAVAIL) {
                return [try OpenSocket(on: .unspecified(.ipv4, port: port))]
            }
            do throws(TernError) {
                return [inet6, try OpenSocket(on: .unspecified(.ipv4, port: inet6.address.port))]
            } catch .system(_, EAFNOSUPPORT) {
                return [inet6]
            } catch {
                // The port that was free for IPv6 is not for IPv4: another one may be.
                _ = tern_socket_close(inet6.descriptor)
                lastError = error
            }
        }
        throw lastError
    }
}
