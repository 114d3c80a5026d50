// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Tern
import TernTesting
import Testing

@Suite("An application on a simulated internet")
struct SimulatedInternetTests {
    // The article shows this test as it is here.
    @Test("a call survives its NAT (M11)")
    func rebinding() async throws {
        let certificate = try TestCertificate(for: "echo.example")
        try await SimulatedInternet.run(seed: 1) { internet in
            let nat = internet.makeNAT()
            let server = try await internet.addHost("echo.example").bind(port: 4433)
            let phone = try await internet.addHost("phone", behind: nat).bind()
            async let _ = EchoServer(transport: server, tls: certificate.server).run()
            let call = try await EchoCall(to: "echo.example:4433", over: phone, tls: certificate.client)
            #expect(try await call.say("hello") == "hello")
            nat.rebind()
            #expect(try await call.say("still there?") == "still there?")
            await call.hangUp()
        }
    }

    @Test("the server sees each rebinding, of the port and of the address (M11, M12)")
    func serverSees() async throws {
        try await SimulatedInternet.run(seed: 2) { internet in
            let certificate = try TestCertificate(for: "echo.example")
            let nat = internet.makeNAT()
            let server = try await internet.addHost("echo.example").bind(port: 4433)
            let listener = try await server.listen(tls: certificate.server, applicationProtocols: ["echo"])
            let phone = try await internet.addHost("phone", behind: nat).bind()
            async let call = EchoCall(to: "echo.example:4433", over: phone, tls: certificate.client)
            var connections = listener.connections.makeAsyncIterator()
            let accepted = try #require(try await connections.next())
            let moves = Task {
                var kinds: [PeerMove] = []
                for await case .peerMoved(_, _, let kind) in accepted.pathEvents { kinds.append(kind) }
                return kinds
            }
            let before = accepted.remoteAddress
            #expect(before.hasSameIP(as: nat.address) && before.port != phone.localAddress.port)
            let connection = try await call.connection
            for kind in [SimulatedNAT.Rebinding.port, .address] {
                nat.rebind(kind)
                _ = try await connection.openStream(writing: ByteBuffer(string: "hello"))
                try await internet.sleep(for: .seconds(1))
            }
            #expect(accepted.remoteAddress.hasSameIP(as: nat.address) && !accepted.remoteAddress.hasSameIP(as: before))
            await connection.close()
            #expect(await moves.value == [.portOnly, .address])
        }
    }

    @Test("a client with two interfaces adds a path, probes it, switches to it, and closes the first (M1 to M5)")
    func fourVerbs() async throws {
        try await Conversation(link: .roundTrip(.milliseconds(20))).run { internet, phone, call in
            let cellular = phone.addInterface(.cellular, link: .roundTrip(.milliseconds(80)))
            let path = try await call.connection.addPath(over: cellular.bind())
            let report = try await path.probe()
            // The server's link takes 10 ms.
            #expect(report.rtt == .milliseconds(90) && report.challenges == 1)
            let wifi = call.connection.activePath
            try await path.switch()
            try await wifi.close()
            phone.interfaces[0].isUp = false
            #expect(try await call.say("over cellular") == "over cellular")
            #expect(call.connection.localAddress.hasSameIP(as: cellular.address))
            #expect(call.connection.paths.map(\.id) == [path.id])
        }
    }

    @Test("the automatic policy moves a call when its network goes down, and back when it is there again (M35 to M37)")
    func automaticPolicy() async throws {
        var configuration = ConnectionConfiguration()
        configuration.migration = .automatic
        try await Conversation(client: configuration).run { internet, phone, call in
            let wifi = phone.interfaces[0]
            let cellular = phone.addInterface(.cellular, link: .roundTrip(.milliseconds(60)))
            #expect(try await call.say("over WiFi") == "over WiFi")
            try await internet.sleep(for: .seconds(1))
            wifi.isUp = false
            #expect(try await call.say("over cellular") == "over cellular")
            #expect(call.connection.localAddress.hasSameIP(as: cellular.address))
            try await internet.sleep(for: .seconds(30))
            wifi.isUp = true
            for _ in 0..<10 where !call.connection.localAddress.hasSameIP(as: wifi.address) {
                try await internet.sleep(for: .seconds(2))
                _ = try await call.say("back?")
            }
            #expect(call.connection.localAddress.hasSameIP(as: wifi.address))
        }
    }

    @Test("the automatic policy leaves a network that loses everything and says nothing (M37)")
    func silentNetwork() async throws {
        var configuration = ConnectionConfiguration()
        configuration.migration = .automatic
        try await Conversation(client: configuration).run { internet, phone, call in
            phone.addInterface(.cellular)
            _ = try await call.say("over WiFi")
            try await internet.sleep(for: .seconds(1))
            phone.interfaces[0].losesEverything = true
            let before = internet.elapsed
            #expect(try await call.say("over cellular") == "over cellular")
            #expect(internet.elapsed - before < .seconds(1))
        }
    }

    @Test("a connection whose network loses everything ends at its idle timeout of 30 s, which takes no real time")
    func idleTimeout() async throws {
        var configuration = ConnectionConfiguration()
        configuration.maxIdleTimeout = .seconds(30)
        let started = ContinuousClock.now
        try await Conversation(client: configuration).run { internet, phone, call in
            _ = try await call.say("hello")
            phone.interfaces[0].losesEverything = true
            let before = internet.elapsed
            let reason = try await call.connection.waitUntilClosed()
            #expect(reason == .noViablePath)
            #expect(internet.elapsed - before >= .seconds(29) && internet.elapsed - before < .seconds(32))
        }
        #expect(ContinuousClock.now - started < .seconds(20))
    }

    @Test("an hour of silence with a keep-alive is bridged, and takes no real time")
    func keepAlive() async throws {
        var configuration = ConnectionConfiguration()
        configuration.keepAliveInterval = .seconds(15)
        let started = ContinuousClock.now
        try await Conversation(client: configuration).run(timeLimit: .seconds(4_000)) { internet, _, call in
            try await internet.sleep(for: .seconds(3_600))
            #expect(try await call.say("after an hour") == "after an hour")
        }
        #expect(ContinuousClock.now - started < .seconds(60))
    }

    @Test("what a link loses is sent again, and every byte comes back", arguments: 1...5 as ClosedRange<UInt64>)
    func lossyLink(seed: UInt64) async throws {
        let link = LinkConditions.roundTrip(.milliseconds(40), loss: 0.05)
        try await Conversation(seed: seed, link: link).run { internet, phone, call in
            let repeats = try await call.repeats(ByteBuffer(repeating: 0x5a, count: 200_000))
            #expect(repeats)
            let (sent, received) = (phone.interfaces[0].sent, phone.interfaces[0].received)
            #expect(sent.lost > 0 && received.lost > 0 && received.carriedBytes > 200_000)
        }
    }

    @Test("one seed gives one course of events, another seed another")
    func replay() async throws {
        struct Course: Equatable {
            var duration: Duration
            var datagrams: [Int]
        }
        @Sendable func course(seed: UInt64) async throws -> Course {
            var link = LinkConditions.roundTrip(.milliseconds(40), loss: 0.03)
            link.jitter = .milliseconds(5)
            return try await Conversation(seed: seed, link: link).run { internet, phone, call in
                let repeats = try await call.repeats(ByteBuffer(repeating: 0x5a, count: 100_000))
                #expect(repeats)
                let (sent, received) = (phone.interfaces[0].sent, phone.interfaces[0].received)
                return Course(
                    duration: internet.elapsed, datagrams: [sent.carried, sent.lost, received.carried, received.lost])
            }
        }
        let first = try await course(seed: 7)
        for _ in 0..<4 { #expect(try await course(seed: 7) == first) }
        #expect(try await course(seed: 8) != first)
    }

    @Test("a link of 8 Mbit/s takes at least a second for a megabyte, and not much more")
    func bandwidth() async throws {
        let link = LinkConditions.roundTrip(.milliseconds(20), bandwidth: 8_000_000)
        try await Conversation(link: link).run { internet, _, call in
            let before = internet.elapsed
            let repeats = try await call.repeats(ByteBuffer(repeating: 0x5a, count: 1_000_000))
            #expect(repeats)
            let duration = internet.elapsed - before
            #expect(duration > .seconds(1) && duration < .seconds(2))
        }
    }

    @Test("simulations run side by side, each by its own clock")
    func sideBySide() async throws {
        let finishes = try await withThrowingTaskGroup(of: Duration.self) { group in
            for seed in 1...8 as ClosedRange<UInt64> {
                group.addTask {
                    try await Conversation(seed: seed).run { internet, _, call in
                        try await internet.sleep(for: .seconds(Int(seed)))
                        #expect(try await call.say("hello") == "hello")
                        return internet.elapsed
                    }
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(Set(finishes.map { $0.components.seconds }) == Set(1...8))
    }
}

/// A telephone that is connected to an echo server.
struct Conversation: Sendable {
    var seed: UInt64 = 1
    var link = LinkConditions.roundTrip(.milliseconds(30))
    var client = ConnectionConfiguration()

    func run<Value: Sendable>(
        timeLimit: Duration = .seconds(600),
        _ body: @escaping @Sendable (SimulatedInternet, SimulatedInternet.Host, EchoCall) async throws -> Value
    ) async throws -> Value {
        let certificate = try TestCertificate(for: "echo.example")
        return try await SimulatedInternet.run(seed: seed, timeLimit: timeLimit) { internet in
            let server = try await internet.addHost("echo.example").bind(port: 4433)
            let phone = internet.addHost("phone", .wifi, link: link)
            async let _ = EchoServer(transport: server, tls: certificate.server).run()
            let call = try await EchoCall(
                to: "echo.example:4433", over: phone.interfaces[0].bind(), tls: certificate.client,
                configuration: client)
            let value = try await body(internet, phone, call)
            await call.hangUp()
            return value
        }
    }
}
