// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import QUICProtocol
import Testing

@testable import Tern

@Suite("A connection that moves between loopback addresses", .timeLimit(.minutes(10)))
struct MigrationTests {
    @Test("adds, probes, switches and closes, and the stream goes on (M1, M2, M4, M5)")
    func fourVerbs() async throws {
        let pair = try await TestPair.connected(serverAddress: "0.0.0.0:0")
        let echo = pair.echo()
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        #expect(try await stream.read()?.readableBytes == 1)

        let other = try await Transport.bind(to: "127.0.0.2:0")
        let path = try await pair.client.addPath(over: other)
        #expect(path.localAddress == other.localAddress)
        #expect(path.state == .unvalidated)
        await #expect(throws: MigrationError.notValidated(path.id)) { try await path.switch() }
        await #expect(throws: MigrationError.pathActive(pair.client.initialPath.id)) {
            try await pair.client.initialPath.close()
        }

        let report = try await path.probe(timeout: .seconds(2))
        #expect(report.rtt < .seconds(2))
        #expect(report.challenges >= 1)
        #expect(path.isValidated)
        // A validated path can be probed again.
        _ = try await path.probe(timeout: .seconds(2))

        let old = pair.client.initialPath
        try await path.switch()
        #expect(pair.client.activePath == path)
        #expect(pair.client.localAddress == other.localAddress)
        try await stream.write([2])
        #expect(try await stream.read()?.readableBytes == 1)
        try await old.close()
        try await old.close()
        await pair.clientTransport.close()
        try await stream.write([3])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(pair.server.remoteAddress == other.localAddress)
        #expect(await pair.listener.connectionTable.first?.clientAddress == other.localAddress)
        await other.close()
        await pair.close()
        await echo.value
    }

    @Test("goes on when the socket under the active path is closed, by a switch without validation (M7)")
    func socketLost() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        #expect(try await stream.read()?.readableBytes == 1)
        await pair.clientTransport.close()
        let other = try await Transport.bind(to: "127.0.0.1:0")
        let path = try await pair.client.addPath(over: other)
        try await path.switch(.withoutValidation)
        try await stream.write([2])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(pair.client.closeReason == nil)
        await other.close()
        await pair.close()
        await echo.value
    }

    @Test("goes on over the path in reserve when the socket under the active one is closed, without a call (M7)")
    func socketLostWithPriority() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        #expect(try await stream.read()?.readableBytes == 1)
        let other = try await Transport.bind(to: "127.0.0.2:0")
        let path = try await pair.client.addPath(over: other)
        #expect(path.priority == nil)
        try await path.probe()
        try await path.setPriority(.backup)
        #expect(path.priority == .backup)
        #expect(!path.isActive)
        await pair.clientTransport.close()
        try await stream.write([2])
        #expect(try await stream.read()?.readableBytes == 1)
        #expect(path.isActive)
        #expect(pair.server.remoteAddress == other.localAddress)
        await other.close()
        await pair.close()
        await #expect(throws: MigrationError.self) { try await path.setPriority(nil) }
        await echo.value
    }

    @Test("moves a hundred times in the middle of a transfer and loses nothing (M6)")
    func manyMoves() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        let content = pattern(4 * 1_024 * 1_024)
        async let answer = pair.exchange(content)
        var transport = pair.clientTransport
        for _ in 0..<100 {
            let next = try await Transport.bind(to: "127.0.0.1:0")
            let old = pair.client.activePath
            let path = try await pair.client.addPath(over: next)
            try await path.probe()
            try await path.switch()
            try await old.close()
            await transport.close()
            transport = next
        }
        #expect(try await answer == content)
        #expect(pair.client.paths.count == 1)
        await transport.close()
        await pair.close()
        await echo.value
    }

    @Test("reports a probe that nobody answers, and one that is cancelled (M8)")
    func unansweredProbe() async throws {
        let pair = try await TestPair.connected()
        // Wait for the handshake's confirmation, so that the timeout is the probe's own.
        let other = try await Transport.bind(to: "127.0.0.1:0")
        let path = try await pair.client.addPath(over: other)
        // The server's socket is gone: nothing answers.
        await pair.serverTransport.close()
        let started = ContinuousClock.now
        await #expect(throws: MigrationError.timedOut(path.id)) { try await path.probe(timeout: .milliseconds(200)) }
        #expect(ContinuousClock.now - started < .seconds(5))
        let patient = Task { try await path.probe(timeout: .seconds(30)) }
        try await Task.sleep(for: .milliseconds(20))
        patient.cancel()
        await #expect(throws: MigrationError.cancelled(path.id)) { try await patient.value }
        await other.close()
        await pair.close()
    }

    @Test("is not the server's to move (M1)")
    func serverCannotMove() async throws {
        let pair = try await TestPair.connected()
        await #expect(throws: MigrationError.serverCannotMigrate) {
            try await pair.server.addPath(over: pair.serverTransport)
        }
        await pair.close()
    }

    @Test("tells its subscribers on both sides what happens to its paths")
    func events() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        let clientEvents = pair.client.pathEvents
        let serverEvents = pair.server.pathEvents
        let other = try await Transport.bind(to: "127.0.0.2:0")
        let path = try await pair.client.addPath(over: other)
        try await path.probe()
        try await path.switch()
        #expect(try await pair.exchange([1, 2, 3]) == [1, 2, 3])
        var validated = false
        for await event in clientEvents {
            if case .validated(path.id, _, _) = event { validated = true }
            if case .switched(_, path.id, .application) = event { break }
        }
        #expect(validated)
        for await event in serverEvents {
            if case .peerMoved(_, _, let move) = event {
                #expect(move == .address)
                break
            }
        }
        await other.close()
        await pair.close()
        await echo.value
    }

    @Test("goes on when NIO closes the channel that reads")
    func channelLost() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        for transport in [pair.clientTransport, pair.serverTransport] {
            for socket in transport.socketsForTesting {
                try await transport.eventLoop.submit { socket.breakChannelForTesting() }.get()
            }
            #expect(try await pair.exchange([1]) == [1])
        }
        await pair.close()
        await echo.value
    }

    @Test("takes a path only over a transport of its own event loop and address family")
    func foreignTransport() async throws {
        let pair = try await TestPair.connected()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let elsewhere = try await Transport.bind(to: "127.0.0.1:0", on: group.next())
        await #expect(throws: TernError.transportOnAnotherEventLoop) { try await pair.client.addPath(over: elsewhere) }
        let inet6 = try await Transport.bind(to: "[::1]:0")
        await #expect(throws: TernError.addressFamilyUnavailable(.ipv4)) { try await pair.client.addPath(over: inet6) }
        await inet6.close()
        await #expect(throws: TernError.transportClosed) { try await pair.client.addPath(over: inet6) }
        await elsewhere.close()
        await pair.close()
        try await group.shutdownGracefully()
    }
}
