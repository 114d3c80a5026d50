// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Testing

@testable import Tern

@Suite("A server with a preferred address, over loopback (M30, M31)", .timeLimit(.minutes(10)))
struct PreferredAddressTests {
    /// A connected pair whose server listens on one address and prefers others.
    private static func connected(
        listening: String = "127.0.0.1:0", preferring addresses: [String], client: String = "[::]:0",
        clientConfiguration: ConnectionConfiguration = ConnectionConfiguration()
    ) async throws -> (pair: TestPair, preferred: [Transport]) {
        let serverTransport = try await Transport.bind(to: listening)
        let clientTransport = try await Transport.bind(to: client)
        var preferred: [Transport] = []
        for address in addresses { preferred.append(try await Transport.bind(to: address)) }
        let listener = try await serverTransport.listen(
            tls: TestCredentials.server(), applicationProtocols: ["test"], preferred: preferred)
        async let accepted = listener.next()
        let host = serverTransport.localAddress.family == .ipv6 ? "[::1]" : "127.0.0.1"
        let connection = try await clientTransport.connect(
            to: "\(host):\(serverTransport.localAddress.port)", tls: TestCredentials.client(),
            applicationProtocols: ["test"], configuration: clientConfiguration)
        let server = try #require(try await accepted)
        let pair = TestPair(
            serverTransport: serverTransport, clientTransport: clientTransport, listener: listener, client: connection,
            server: server)
        return (pair, preferred)
    }

    /// Waits until a condition holds, for half a minute at most: probe timeouts are long where a busy machine makes round
    /// trips long.
    private static func eventually(_ condition: () async -> Bool) async throws -> Bool {
        for _ in 0..<3_000 {
            if await condition() { return true }
            try await Task.sleep(for: .milliseconds(10))
        }
        return await condition()
    }

    @Test(
        "the client moves there in mid-transfer, within a family and to the other one (M30, M31)",
        arguments: [
            ("127.0.0.1:0", "127.0.0.2:0"), ("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:0", "[::1]:0"),
            ("[::1]:0", "127.0.0.3:0"), ("[::1]:0", "[::1]:0"), ("0.0.0.0:0", "[::1]:0"),
        ])
    func moves(from listening: String, to address: String) async throws {
        let (pair, preferred) = try await Self.connected(listening: listening, preferring: [address])
        let echo = pair.echo()
        let content = pattern(2 * 1_024 * 1_024)
        async let answer = pair.exchange(content)
        let target = preferred[0].localAddress
        #expect(try await Self.eventually { pair.client.remoteAddress == target && pair.server.localAddress == target })
        #expect(try await answer == content)
        #expect(pair.client.activePath.isValidated)
        #expect(pair.client.serverAddresses == [pair.client.serverAddresses[0], target])
        // The address of the handshake is given up, and what comes after goes to the other.
        #expect(try await Self.eventually { pair.client.paths.count == 1 })
        await pair.serverTransport.close()
        #expect(try await pair.exchange(content) == content)
        await pair.close()
        for transport in preferred { await transport.close() }
        await echo.value
    }

    @Test("is told by an event with its reason, on both sides")
    func events() async throws {
        let (pair, preferred) = try await Self.connected(preferring: ["127.0.0.2:0"])
        let echo = pair.echo()
        // The move takes a round trip after the confirmation: subscribers of `connect`'s return hear of it, mostly.
        let entry = try await Self.eventually {
            await pair.listener.connectionTable.first?.paths.contains { $0.tuple.local == preferred[0].localAddress }
                ?? false
        }
        #expect(entry)
        #expect(try await pair.exchange([1, 2, 3]) == [1, 2, 3])
        #expect(try await Self.eventually { pair.server.localAddress == preferred[0].localAddress })
        #expect(await pair.server.statistics.peerMoves == 1)
        await pair.close()
        await preferred[0].close()
        await echo.value
    }

    @Test("is ignored by a client that does not follow, and by one without a socket of the family (M31)")
    func stays() async throws {
        var ignoring = ConnectionConfiguration()
        ignoring.followsPreferredAddress = false
        for (address, client, configuration) in [
            ("127.0.0.2:0", "127.0.0.1:0", ignoring), ("[::1]:0", "127.0.0.1:0", ConnectionConfiguration()),
        ] {
            let (pair, preferred) = try await Self.connected(
                preferring: [address], client: client, clientConfiguration: configuration)
            let echo = pair.echo()
            let home = pair.client.remoteAddress
            #expect(pair.client.serverAddresses == [home, preferred[0].localAddress])
            for _ in 0..<3 { #expect(try await pair.exchange([1, 2, 3]) == [1, 2, 3]) }
            #expect(pair.client.remoteAddress == home)
            #expect(pair.client.paths.count == 1)
            #expect(await pair.server.statistics.peerMoves == 0)
            await pair.close()
            await preferred[0].close()
            await echo.value
        }
    }

    @Test("goes from IPv4 to IPv6 and back where the server is known at both, over one transport (M1 to M5)")
    func betweenFamilies() async throws {
        var ignoring = ConnectionConfiguration()
        ignoring.followsPreferredAddress = false
        let (pair, preferred) = try await Self.connected(preferring: ["[::1]:0"], clientConfiguration: ignoring)
        let echo = pair.echo()
        let content = pattern(4 * 1_024 * 1_024)
        async let answer = pair.exchange(content)
        let addresses = pair.client.serverAddresses
        #expect(addresses.map(\.family) == [.ipv4, .ipv6])
        for round in 0..<6 {
            let remote = addresses[(round + 1) % 2]
            let old = pair.client.activePath
            let path = try await pair.client.addPath(over: pair.clientTransport, to: remote)
            #expect(path.remoteAddress == remote)
            try await path.probe()
            try await path.switch()
            try await old.close()
        }
        #expect(try await answer == content)
        #expect(pair.client.remoteAddress == addresses[0])
        let stranger = addresses[0].withPort(1_234)
        await #expect(throws: MigrationError.unknownServerAddress(stranger)) {
            try await pair.client.addPath(over: pair.clientTransport, to: stranger)
        }
        await pair.close()
        await preferred[0].close()
        await echo.value
    }

    @Test("over a transport of the other family alone a path leads to the server's address of that family")
    func defaultRemote() async throws {
        var ignoring = ConnectionConfiguration()
        ignoring.followsPreferredAddress = false
        let (pair, preferred) = try await Self.connected(
            preferring: ["[::1]:0"], client: "127.0.0.1:0", clientConfiguration: ignoring)
        let echo = pair.echo()
        let other = try await Transport.bind(to: "[::1]:0")
        let path = try await pair.client.addPath(over: other)
        #expect(path.remoteAddress == preferred[0].localAddress)
        try await path.probe()
        try await path.switch()
        await pair.clientTransport.close()
        #expect(try await pair.exchange([4, 5]) == [4, 5])
        await pair.close()
        await other.close()
        await preferred[0].close()
        await echo.value
    }

    @Test("is refused before anything is sent if clients could not be told it")
    func refusals() async throws {
        let transport = try await Transport.bind(to: "127.0.0.1:0")
        let one = try await Transport.bind(to: "127.0.0.2:0")
        let two = try await Transport.bind(to: "127.0.0.3:0")
        let any = try await Transport.bind(to: "0.0.0.0:0")
        func listen(_ preferred: [Transport]) async throws {
            _ = try await transport.listen(
                tls: TestCredentials.server(), applicationProtocols: ["test"], preferred: preferred)
        }
        for transports in [[one, two], [any]] {
            do {
                try await listen(transports)
                Issue.record("\(transports) were announced")
            } catch TernError.noPreferredAddress {
            }
        }
        await one.close()
        await #expect(throws: TernError.transportClosed) { try await listen([one]) }
        for transport in [transport, two, any] { await transport.close() }
    }

    @Test("a socket bound to no address in particular serves as one when the configuration names it")
    func namedAddress() async throws {
        let transport = try await Transport.bind(to: "0.0.0.0:0")
        var configuration = ConnectionConfiguration()
        configuration.preferredAddresses = PreferredAddresses(
            ipv4: NetworkAddress(127, 0, 0, 9, port: transport.localAddress.port))
        let listener = try await transport.listen(
            tls: TestCredentials.server(), applicationProtocols: ["test"], configuration: configuration)
        let client = try await Transport.bind(to: "0.0.0.0:0")
        async let accepted = listener.next()
        let connection = try await client.connect(
            to: "127.0.0.1:\(transport.localAddress.port)", tls: TestCredentials.client(),
            applicationProtocols: ["test"])
        let server = try #require(try await accepted)
        let pair = TestPair(
            serverTransport: transport, clientTransport: client, listener: listener, client: connection, server: server)
        let echo = pair.echo()
        let target = try #require(configuration.preferredAddresses?.ipv4)
        #expect(try await Self.eventually { connection.remoteAddress == target && server.localAddress == target })
        #expect(try await pair.exchange([1, 2, 3]) == [1, 2, 3])
        await pair.close()
        await echo.value
    }
}
