// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import Testing

@testable import TernCommand

@Suite("The userland NAT", .timeLimit(.minutes(10)))
struct UserlandNATTests {
    @Test("datagrams go both ways, and the server sees the outside address")
    func translation() async throws {
        let setup = try await Setup()
        let client = try await Peer()
        client.send("hello", to: setup.nat.address)
        let request = try await setup.server.next()
        #expect(request.text == "hello")
        #expect(request.source != client.address)
        setup.server.send("welcome", to: request.source)
        let answer = try await client.next()
        #expect(answer.text == "welcome")
        #expect(answer.source == setup.nat.address)
        try await setup.stop()
    }

    @Test("a new port and a new address are what the server sees next, and what goes to the old ones vanishes")
    func rebinding() async throws {
        let setup = try await Setup()
        let client = try await Peer()
        client.send("1", to: setup.nat.address)
        let first = try await setup.server.next().source

        let port = try await setup.nat.rebindPort()
        #expect(port.map(\.old) == [first])
        client.send("2", to: setup.nat.address)
        let second = try await setup.server.next().source
        #expect(port.map(\.new) == [second])
        #expect(second.ipAddress == first.ipAddress)
        #expect(second.port != first.port)

        let address = try await setup.nat.rebindAddress()
        #expect(address.map(\.client) == [client.address])
        client.send("3", to: setup.nat.address)
        let third = try await setup.server.next().source
        #expect(third.ipAddress != second.ipAddress)

        setup.server.send("lost", to: first)
        setup.server.send("lost", to: second)
        setup.server.send("found", to: third)
        #expect(try await client.next().text == "found")
        #expect(try await setup.nat.counters().rebindings == 2)
        try await setup.stop()
    }

    @Test("each client has an outside address of its own, and gets its own answers")
    func severalClients() async throws {
        let setup = try await Setup()
        let (one, other) = (try await Peer(), try await Peer())
        one.send("one", to: setup.nat.address)
        let oneOutside = try await setup.server.next().source
        other.send("other", to: setup.nat.address)
        let otherOutside = try await setup.server.next().source
        #expect(oneOutside != otherOutside)
        setup.server.send("for the other", to: otherOutside)
        setup.server.send("for one", to: oneOutside)
        #expect(try await one.next().text == "for one")
        #expect(try await other.next().text == "for the other")
        try await setup.stop()
    }

    @Test("a stranger's datagrams to the outside address are not let in")
    func filtering() async throws {
        let setup = try await Setup()
        let (client, stranger) = (try await Peer(), try await Peer())
        client.send("hello", to: setup.nat.address)
        let outside = try await setup.server.next().source
        stranger.send("psst", to: outside)
        setup.server.send("welcome", to: outside)
        #expect(try await client.next().text == "welcome")
        try await setup.stop()
    }

    @Test("loss is as probable as asked for, and the same seed loses the same")
    func loss() async throws {
        func lost(seed: UInt64) async throws -> Int {
            let setup = try await Setup { configuration in
                configuration.dropProbability = 0.25
                configuration.seed = seed
            }
            let client = try await Peer()
            for index in 0..<400 {
                client.send("\(index)", to: setup.nat.address)
                // Not so fast that a socket's buffer overflows.
                if index % 50 == 49 { try await Task.sleep(for: .milliseconds(5)) }
            }
            var flow = UserlandNAT.Flow()
            while flow.datagrams + flow.dropped < 400 {
                try await Task.sleep(for: .milliseconds(5))
                flow = try await setup.nat.counters().toServer
            }
            try await setup.stop()
            return flow.dropped
        }
        let first = try await lost(seed: 7)
        #expect((60...140).contains(first))
        #expect(try await lost(seed: 7) == first)
    }

    @Test("held datagrams come later and in order, and leave by the newest socket")
    func delay() async throws {
        let setup = try await Setup { $0.delay = .milliseconds(50) }
        let client = try await Peer()
        let start = ContinuousClock.now
        client.send("a", to: setup.nat.address)
        client.send("b", to: setup.nat.address)
        #expect(try await setup.server.next().text == "a")
        #expect(ContinuousClock.now - start >= .milliseconds(50))
        #expect(try await setup.server.next().text == "b")
        client.send("c", to: setup.nat.address)
        try await Task.sleep(for: .milliseconds(10))
        let moves = try await setup.nat.rebindPort()
        #expect(moves.map(\.new) == [try await setup.server.next().source])
        try await setup.stop()
    }
}

/// A server behind a NAT.
private struct Setup {
    let server: Peer
    let nat: UserlandNAT

    init(_ change: (inout UserlandNAT.Configuration) -> Void = { _ in }) async throws {
        server = try await Peer()
        var configuration = UserlandNAT.Configuration(
            listen: try SocketAddress(ipAddress: "127.0.0.1", port: 0),
            target: server.address,
            outside: try ["127.0.1.1", "127.0.1.2"].map { try SocketAddress(ipAddress: $0, port: 0) }
        )
        change(&configuration)
        nat = try await UserlandNAT.start(configuration, on: MultiThreadedEventLoopGroup.singleton.next())
    }

    func stop() async throws { try await nat.stop() }
}

/// A plain UDP socket.
private final class Peer: Sendable {
    struct Datagram: Sendable {
        var text: String
        var source: SocketAddress
    }

    private let channel: any Channel
    let address: SocketAddress
    private let datagrams: AsyncStream<Datagram>

    init() async throws {
        let (datagrams, continuation) = AsyncStream.makeStream(of: Datagram.self)
        self.datagrams = datagrams
        channel = try await DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(Handler(continuation: continuation))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        address = try #require(channel.localAddress)
    }

    deinit { channel.close(promise: nil) }

    func send(_ text: String, to destination: SocketAddress) {
        channel.writeAndFlush(
            AddressedEnvelope(remoteAddress: destination, data: ByteBuffer(string: text)), promise: nil)
    }

    func next() async throws -> Datagram {
        for await datagram in datagrams { return datagram }
        throw CancellationError()
    }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        let continuation: AsyncStream<Datagram>.Continuation

        init(continuation: AsyncStream<Datagram>.Continuation) { self.continuation = continuation }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let envelope = unwrapInboundIn(data)
            continuation.yield(Datagram(text: String(buffer: envelope.data), source: envelope.remoteAddress))
        }
    }
}
