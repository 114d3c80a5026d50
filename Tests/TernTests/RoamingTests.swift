// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Testing

@testable import Tern

@Suite("A connection that roams by itself between loopback addresses", .timeLimit(.minutes(10)))
struct RoamingTests {
    private static let wifi = LocalNetwork(
        name: "WiFi", kind: .wifi, addresses: [NetworkAddress(127, 0, 0, 2, port: 0)])
    private static let cellular = LocalNetwork(
        name: "cellular", kind: .cellular, addresses: [NetworkAddress(127, 0, 0, 3, port: 0)])

    /// A connection from WiFi to a server on loopback, and the monitor that its policy goes by.
    private static func connected(
        _ networks: [LocalNetwork], policy: MigrationPolicy = .automatic
    ) async throws -> (pair: TestPair, monitor: NetworkMonitor, echo: Task<Void, Never>) {
        let monitor = NetworkMonitor(networks: networks)
        var configuration = ConnectionConfiguration()
        configuration.migration = policy
        let pair = try await TestPair.connected(
            serverAddress: "0.0.0.0:0", clientAddress: "127.0.0.2:0", clientConfiguration: configuration,
            clientMonitor: monitor)
        return (pair, monitor, pair.echo())
    }

    /// Reads decisions until one fits.
    private static func wait(
        for connection: Connection, _ fits: @escaping @Sendable (PolicyDecision) -> Bool
    ) async -> Bool {
        for await decision in connection.policyDecisions where fits(decision) { return true }
        return false
    }

    @Test("WiFi and its socket go: the stream goes on over cellular; WiFi is back: it returns (M35, M36, M37)")
    func awayAndBack() async throws {
        let (pair, monitor, echo) = try await Self.connected([Self.wifi, Self.cellular])
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(await Self.wait(for: pair.client) { if case .standby("cellular", _) = $0 { true } else { false } })

        monitor.update([Self.cellular])
        await pair.clientTransport.close()
        #expect(
            await Self.wait(for: pair.client) {
                $0 == .move(from: "WiFi", to: "cellular", validated: true, .networkLost("WiFi"))
            })
        try await stream.write([2])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(pair.client.localAddress.hasSameIP(as: Self.cellular.addresses[0]))

        monitor.update([Self.wifi, Self.cellular])
        #expect(
            await Self.wait(for: pair.client) {
                $0 == .move(from: "cellular", to: "WiFi", validated: true, .preferredNetwork("WiFi"))
            })
        try await stream.write([3])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(pair.client.localAddress.hasSameIP(as: Self.wifi.addresses[0]))
        await pair.close()
        await echo.value
    }

    @Test("the sockets that the policy opened are closed with the connection (M38)")
    func leavesNothing() async throws {
        let (pair, monitor, echo) = try await Self.connected([Self.wifi, Self.cellular])
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        #expect(await Self.wait(for: pair.client) { if case .standby = $0 { true } else { false } })
        monitor.update([Self.cellular])
        #expect(await Self.wait(for: pair.client) { if case .move = $0 { true } else { false } })
        let driver = pair.client.driver
        #expect(await driver.worker.run { driver.roamer?.transportCountForTesting } ?? 0 > 0)
        await pair.close()
        await echo.value
        #expect(monitor.subscriberCountForTesting == 0)
        var open = 1
        for _ in 0..<500 where open > 0 {
            try await Task.sleep(for: .milliseconds(10))
            open = await driver.worker.run { driver.roamer?.transportCountForTesting ?? 0 }
        }
        #expect(open == 0)
    }

    @Test("the policy may be changed while the connection lives")
    func changedAtRunTime() async throws {
        let (pair, monitor, echo) = try await Self.connected([Self.wifi, Self.cellular], policy: .disabled)
        let other = try await Transport.bind(to: "127.0.0.4:0")
        await #expect(throws: MigrationError.migrationDisabled) { _ = try await pair.client.addPath(over: other) }
        pair.client.migration = .manual
        let path = try await pair.client.addPath(over: other)
        try await path.close()
        #expect(monitor.subscriberCountForTesting == 0)
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        pair.client.migration = .automatic
        #expect(await Self.wait(for: pair.client) { if case .standby("cellular", _) = $0 { true } else { false } })
        pair.client.migration = .manual
        monitor.update([Self.cellular])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(pair.client.localAddress.hasSameIP(as: Self.wifi.addresses[0]), "nobody moved it")
        await other.close()
        await pair.close()
        await echo.value
    }
}

@Suite("Networks of this host")
struct NetworkMonitorTests {
    @Test("the system has a loopback interface with its address, which is not used unless asked for")
    func system() throws {
        let networks = NetworkMonitor.system.networks
        let loopback = try #require(networks.first { $0.kind == .loopback })
        #expect(loopback.hasAddress(NetworkAddress(127, 0, 0, 1, port: 0)))
        #expect(NetworkPreference.standard.available([loopback]).isEmpty)
        #expect(NetworkPreference.kinds([.loopback]).available([loopback]).count == 1)
    }

    @Test("wired before WiFi before cellular, the cheaper of two alike first; those that are down not at all")
    func ranking() {
        func network(_ name: String, _ kind: LocalNetwork.Kind, expensive: Bool = false, up: Bool = true)
            -> LocalNetwork
        {
            LocalNetwork(
                name: name, kind: kind, addresses: [NetworkAddress(192, 0, 2, 1, port: 0)], isExpensive: expensive,
                isRunning: up)
        }
        let available = NetworkPreference.standard.available([
            network("cell", .cellular, expensive: true), network("hotspot", .wifi, expensive: true),
            network("home", .wifi), network("eth", .wired), network("down", .wired, up: false),
        ])
        #expect(available.sorted { $0.rank < $1.rank }.map(\.id.name) == ["eth", "home", "hotspot", "cell"])
        let own = NetworkPreference { $0.name == "cell" ? 0 : nil }
        #expect(own.available([network("cell", .cellular), network("home", .wifi)]).map(\.id.name) == ["cell"])
    }

    @Test("an address of link scope alone makes no network")
    func linkLocalOnly() {
        let network = LocalNetwork(
            name: "x", kind: .wired, addresses: [NetworkAddress(ipv6: 0xfe80 << 48, 1, port: 0, scopeID: 2)])
        #expect(!network.isUsable)
    }

    @Test("snapshots reach every listener, once each, and those of a sequence are followed", .timeLimit(.minutes(1)))
    func snapshots() async {
        let (sequence, continuation) = AsyncStream.makeStream(of: [LocalNetwork].self)
        let monitor = NetworkMonitor(following: sequence)
        var updates = monitor.updates.makeAsyncIterator()
        #expect(await updates.next() == [])
        let network = LocalNetwork(name: "x", kind: .wired, addresses: [NetworkAddress(192, 0, 2, 1, port: 0)])
        continuation.yield([network])
        #expect(await updates.next() == [network])
        #expect(monitor.networks == [network])
    }
}
