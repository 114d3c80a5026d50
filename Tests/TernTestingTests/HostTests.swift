// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import Tern
import TernTesting
import Testing

@Suite("Simulated hosts")
struct HostTests {
    @Test("an application binds its transports itself, with the configuration or the event loop of a host")
    func ownTransports() async throws {
        let certificate = try TestCertificate(for: "echo.example", addresses: ["192.0.2.1"])
        try await SimulatedInternet.run(seed: 1) { internet in
            let server = internet.addHost("echo.example")
            let phone = internet.addHost("phone")
            let listening = try await Transport.bind(
                to: "[::]:4433", configuration: server.transportConfiguration)
            #expect(listening.localAddresses.map(\.port) == [4433, 4433])
            async let _ = EchoServer(transport: listening, tls: certificate.server).run()
            let wildcard = try await Transport.bind(to: "0.0.0.0:0", on: phone.eventLoop)
            let tied = try await Transport.bind(interface: "eth0", configuration: phone.transportConfiguration)
            #expect(tied.localAddress.hasSameIP(as: phone.interfaces[0].address))
            for target in ["echo.example:4433", "192.0.2.1:4433"] {
                for transport in [wildcard, tied] {
                    let call = try await EchoCall(to: target, over: transport, tls: certificate.client)
                    #expect(try await call.say("hello") == "hello")
                    #expect(call.connection.localAddress.hasSameIP(as: phone.interfaces[0].address))
                    await call.hangUp()
                }
            }
        }
    }

    @Test("a socket that is bound to no address leaves by the first interface that is up")
    func wildcard() async throws {
        let certificate = try TestCertificate(for: "echo.example")
        try await SimulatedInternet.run(seed: 1) { internet in
            let server = try await internet.addHost("echo.example").bind(port: 4433)
            async let _ = EchoServer(transport: server, tls: certificate.server).run()
            let phone = internet.addHost("phone", .wifi)
            let cellular = phone.addInterface(.cellular)
            phone.interfaces[0].isUp = false
            let call = try await EchoCall(to: "echo.example:4433", over: phone.bind(), tls: certificate.client)
            #expect(call.connection.localAddress.hasSameIP(as: cellular.address))
            #expect(try await call.say("hello") == "hello")
            cellular.isUp = false
            await #expect(throws: TernError.self) {
                try await EchoCall(to: "echo.example:4433", over: phone.bind(), tls: certificate.client)
            }
        }
    }

    @Test("a connection moves from IPv4 to IPv6 between two addresses of its server")
    func families() async throws {
        let certificate = try TestCertificate(for: "echo.example")
        try await SimulatedInternet.run(seed: 1) { internet in
            let host = internet.addHost("echo.example")
            let inet6 = NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 1, port: 0)
            host.addInterface(.wired, address: inet6)
            let server = try await Transport.bind(to: "[::]:4433", configuration: host.transportConfiguration)
            var configuration = ConnectionConfiguration()
            configuration.preferredAddresses = PreferredAddresses(ipv6: inet6.withPort(4433))
            async let _ = EchoServer(
                transport: server, tls: certificate.server, configuration: configuration
            ).run()
            let phone = internet.addHost("phone", .wifi)
            let cellular = phone.addInterface(
                .cellular, address: NetworkAddress(ipv6: 0x2001_0db8_0000_0001, 1, port: 0))
            let call = try await EchoCall(
                to: "echo.example:4433", over: phone.interfaces[0].bind(), tls: certificate.client)
            let path = try await call.connection.addPath(over: cellular.bind())
            #expect(path.remoteAddress == inet6.withPort(4433))
            try await path.probe()
            try await path.switch()
            #expect(try await call.say("over IPv6") == "over IPv6")
        }
    }

    @Test(
        "what the system refuses, a simulated host refuses: ports in use, addresses of others, unknown names and interfaces"
    )
    func refusals() async throws {
        try await SimulatedInternet.run(seed: 1) { internet in
            let host = internet.addHost("host")
            let other = internet.addHost("other")
            let first = try await host.bind(port: 53)
            await #expect(throws: TernError.system(call: "bind to 0.0.0.0:53", errno: EADDRINUSE)) {
                try await host.bind(port: 53)
            }
            await first.close()
            _ = try await host.bind(port: 53)
            _ = try await other.bind(port: 53)
            let foreign = other.interfaces[0].address.withPort(54)
            await #expect(throws: TernError.system(call: "bind to \(foreign)", errno: EADDRNOTAVAIL)) {
                try await Transport.bind(to: foreign, configuration: host.transportConfiguration)
            }
            await #expect(throws: TernError.interfaceUnavailable("wlan7")) {
                try await Transport.bind(interface: "wlan7", configuration: host.transportConfiguration)
            }
            await #expect(
                throws: TernError.unknownHost("nobody", explanation: "no host of the simulation has this name")
            ) {
                try await host.bind().connect(
                    to: "nobody:1", tls: TestCertificate(for: "nobody").client, applicationProtocols: ["echo"])
            }
        }
    }

    @Test("transports of different hosts are on different event loops")
    func loops() async throws {
        try await Conversation().run { internet, _, call in
            let stranger = try await internet.addHost("stranger").bind()
            await #expect(throws: TernError.transportOnAnotherEventLoop) {
                try await call.connection.addPath(over: stranger)
            }
        }
    }

    @Test("a network monitor says what interfaces there are, and when they go up and down")
    func monitor() async throws {
        try await SimulatedInternet.run(seed: 1) { internet in
            let phone = internet.addHost("phone", .wifi)
            var updates = phone.networkMonitor.updates.makeAsyncIterator()
            #expect(await updates.next()?.map(\.name) == ["wlan0"])
            phone.addInterface(.cellular)
            #expect(await updates.next()?.map(\.kind) == [.wifi, .cellular])
            phone.interfaces[0].isUp = false
            #expect(await updates.next()?.map(\.isRunning) == [false, true])
        }
    }

    @Test("a link can be changed under a call, and its datagrams be watched")
    func changingLink() async throws {
        try await Conversation(link: .roundTrip(.milliseconds(20))).run { internet, phone, call in
            _ = try await call.say("quickly")
            // The server's link takes 10 ms; acknowledgements may take their time, answers do not.
            let before = internet.elapsed
            phone.interfaces[0].link = .roundTrip(.milliseconds(500))
            _ = try await call.say("slowly")
            #expect(internet.elapsed - before == .milliseconds(510))
            nonisolated(unsafe) var seen = 0
            internet.network.addTap { _ in
                seen += 1
                return .pass
            }
            _ = try await call.say("watched")
            #expect(seen >= 2)
        }
    }

    @Test("handles that outlive their simulation say that it is over")
    func afterwards() async throws {
        let (transport, connection, host) = try await SimulatedInternet.run(seed: 1) { internet in
            let certificate = try TestCertificate(for: "echo.example")
            let server = try await internet.addHost("echo.example").bind(port: 4433)
            let phone = internet.addHost("phone")
            async let _ = EchoServer(transport: server, tls: certificate.server).run()
            let transport = try await phone.bind()
            let call = try await EchoCall(to: "echo.example:4433", over: transport, tls: certificate.client)
            return (transport, call.connection, phone)
        }
        #expect(connection.closeReason == .endpointClosed)
        await #expect(throws: CloseReason.endpointClosed) { try await connection.openStream() }
        await #expect(throws: (any Error).self) {
            try await transport.connect(
                to: "192.0.2.1:4433", tls: TestCertificate(for: "echo.example").client, applicationProtocols: ["echo"])
        }
        await #expect(throws: TernError.system(call: "bind to 0.0.0.0:0", errno: ENETDOWN)) { try await host.bind() }
    }

    @Test("nothing is left of a simulation")
    func memory() async throws {
        weak var left: SimulatedInternet?
        weak var loop: (any EventLoop)?
        weak var transport: Transport?
        (left, loop, transport) = try await Conversation().run { internet, phone, call in
            _ = try await call.say("hello")
            return (internet, phone.eventLoop, try await phone.bind())
        }
        // The thread is let go of a little later.
        for _ in 0..<1_000 where left != nil || loop != nil { try await Task.sleep(for: .milliseconds(1)) }
        #expect(left == nil)
        #expect(loop == nil)
        #expect(transport == nil)
    }
}
