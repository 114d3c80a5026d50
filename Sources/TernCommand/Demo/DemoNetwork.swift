// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import NIOSSL
import QUICProtocol
import Tern

/// The demo's small internet, all of it on this host's loopback.
///
/// The client has two networks, and each reaches the server through a NAT with addresses of its own:
///
///     client                       NAT                            server
///     WiFi      127.0.0.2 ──┐                ┌── 127.0.1.1, .2 ──┐
///                           ├── 127.0.0.4 ───┤                   ├── 127.0.0.1
///     cellular  127.0.0.3 ──┘                └── 127.0.2.1 ──────┘
struct DemoNetwork: Sendable {
    static let serverIP = "127.0.0.1"
    static let wifiIP = "127.0.0.2"
    static let cellularIP = "127.0.0.3"
    static let insideIP = "127.0.0.4"
    /// The client's networks, as its automatic policy knows them.
    static let wifi = LocalNetwork(
        name: "WiFi", kind: .wifi, addresses: [NetworkAddress(127, 0, 0, 2, port: 0)])
    static let cellular = LocalNetwork(
        name: "cellular", kind: .cellular, addresses: [NetworkAddress(127, 0, 0, 3, port: 0)])
    static let wifiOutsideIPs = ["127.0.1.1", "127.0.1.2"]
    static let cellularOutsideIPs = ["127.0.2.1"]

    let server: Transport
    let listener: Listener
    let nat: UserlandNAT
    /// Tells the client's automatic policy which networks there are.
    let clientNetworks = NetworkMonitor(networks: [wifi, cellular])
    /// What the client must trust.
    let clientTLS: TLSConfiguration
    /// The server's address as the client knows it.
    var serverAddressForClient: String { nat.address.text }

    /// Starts the server's socket and the NAT, each on an event loop of its own.
    static func start() async throws -> DemoNetwork {
        let tls = try Certificates.throwAwayPair(hosts: [insideIP])
        let serverLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        let (server, listener) = try await attempting("cannot start the server on \(serverIP)") {
            let server = try await Transport.bind(to: "\(serverIP):0", on: serverLoop)
            let listener = try await server.listen(
                tls: tls.server,
                applicationProtocols: [HTTP09.applicationProtocol]
            )
            return (server, listener)
        }
        let wifiOutside = try wifiOutsideIPs.map { try SocketAddress(ipAddress: $0, port: 0) }
        let cellularOutside = try cellularOutsideIPs.map { try SocketAddress(ipAddress: $0, port: 0) }
        let configuration = UserlandNAT.Configuration(
            listen: try SocketAddress(ipAddress: insideIP, port: 0),
            target: try SocketAddress(ipAddress: serverIP, port: Int(server.localAddress.port)),
            outside: wifiOutside,
            outsideOfClient: [wifiIP: wifiOutside, cellularIP: cellularOutside]
        )
        let nat = try await attempting("cannot start the NAT on \(insideIP)") {
            try await UserlandNAT.start(configuration, on: MultiThreadedEventLoopGroup(numberOfThreads: 1).next())
        }
        return DemoNetwork(server: server, listener: listener, nat: nat, clientTLS: tls.client)
    }

    func stop() async {
        await server.close()
        try? await nat.stop()
    }
}

/// A socket of the client's on one of its networks.
struct DemoUplink: Sendable {
    let name: String
    let transport: Transport

    static func wifi(
        on eventLoop: (any EventLoop)? = nil, monitor: NetworkMonitor = .system
    ) async throws -> DemoUplink {
        var configuration = TransportConfiguration()
        configuration.networkMonitor = monitor
        return try await bind("WiFi", DemoNetwork.wifiIP, on: eventLoop, configuration)
    }

    static func cellular(on eventLoop: (any EventLoop)? = nil) async throws -> DemoUplink {
        try await bind("cellular", DemoNetwork.cellularIP, on: eventLoop, TransportConfiguration())
    }

    private static func bind(
        _ name: String, _ address: String, on eventLoop: (any EventLoop)?, _ configuration: TransportConfiguration
    ) async throws -> DemoUplink {
        try await attempting("cannot open a socket on \(address), which stands for \(name)") {
            let transport = try await Transport.bind(to: "\(address):0", on: eventLoop, configuration: configuration)
            return DemoUplink(name: name, transport: transport)
        }
    }
}
