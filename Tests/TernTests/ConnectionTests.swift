// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Synchronization
import Testing

@testable import Tern

@Suite("A connection over loopback", .timeLimit(.minutes(10)))
struct ConnectionTests {
    @Test(
        "carries bytes there and back, in either family and to a wildcard address",
        arguments: [
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]:0", "[::1]"),
            ("[::]:0", "[::]:0", "127.0.0.1"),
            ("[::]:0", "0.0.0.0:0", "localhost"), ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.2"),
        ])
    func echo(server: String, client: String, host: String) async throws {
        let pair = try await TestPair.connected(serverAddress: server, clientAddress: client, targetHost: host)
        let echo = pair.echo()
        for size in [1, 1_000, 100_000] {
            let request = pattern(size, seed: UInt64(size))
            #expect(try await pair.exchange(request) == request)
        }
        #expect(pair.client.applicationProtocol == "test")
        #expect(pair.server.applicationProtocol == "test")
        #expect(pair.client.localAddress == pair.server.remoteAddress)
        #expect(pair.client.remoteAddress == pair.server.localAddress)
        #expect(pair.client.paths == [pair.client.initialPath])
        await pair.close()
        await echo.value
    }

    @Test("carries many streams at once, more than the peer allows to be open")
    func manyStreams() async throws {
        let pair = try await TestPair.connected()
        let echo = pair.echo()
        try await pair.exchange(300, of: 5_000)
        await pair.close()
        await echo.value
    }

    @Test("loses nothing, however little or much is read in a wake-up", arguments: [-1, 1, 2, 17, 1_000_000])
    func readsPerWakeUp(count: Int) async throws {
        var configuration = TransportConfiguration()
        configuration.readsPerWakeUp = count
        let pair = try await TestPair.connected(transportConfiguration: configuration)
        let echo = pair.echo()
        try await pair.exchange(20, of: 200_000)
        await pair.close()
        await echo.value
    }

    @Test("carries a large transfer in buffers of any size")
    func large() async throws {
        let pair = try await TestPair.connected()
        let content = ByteBuffer(bytes: pattern(8 * 1_024 * 1_024))
        let stream = try await pair.client.openUnidirectionalStream()
        let writing = Task {
            var rest = content
            var size = 1
            while rest.readableBytes > 0 {
                size = min(size * 3, 700_000, rest.readableBytes)
                if let slice = rest.readSlice(length: size) { try await stream.write(slice) }
            }
            try await stream.finish()
        }
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(!received.isBidirectional)
        #expect(try await received.readToEnd() == Array(content.readableBytesView))
        try await writing.value
        #expect(try await received.read() == nil)
        await #expect(throws: StreamError.self) { try await received.write([1]) }
        await pair.close()
    }

    @Test("makes a writer wait while the reader does not read, and lets it be cancelled")
    func backPressure() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        let written = Counter()
        let writer = Task {
            let chunk = ByteBuffer(repeating: 1, count: 256 * 1_024)
            while true {
                try await stream.write(chunk)
                written.add(chunk.readableBytes)
            }
        }
        // The windows and the send buffer fill, and then nothing moves.
        var last = -1
        while last != written.value || last == 0 {
            last = written.value
            try await Task.sleep(for: .milliseconds(200))
        }
        #expect(written.value < 64 * 1_024 * 1_024)
        writer.cancel()
        await #expect(throws: CancellationError.self) { try await writer.value }
        try await stream.finish()
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        var count = 0
        for try await chunk in received.bytes { count += chunk.readableBytes }
        // A cancelled write wrote nothing.
        #expect(count == written.value)
        await pair.close()
    }

    @Test("lets a read be cancelled and the next one go on")
    func cancelledRead() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(try await received.read()?.readableBytes == 1)
        let reading = Task { try await received.read() }
        try await Task.sleep(for: .milliseconds(10))
        await #expect(throws: TernError.concurrentRead(received.id)) { try await received.read() }
        reading.cancel()
        await #expect(throws: CancellationError.self) { try await reading.value }
        try await stream.write([2, 3])
        #expect(try await received.read().map { Array($0.readableBytesView) } == [2, 3])
        await pair.close()
    }

    @Test("tells a reader of a reset and a writer of a stop, each with its code")
    func resetAndStop() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        try await stream.write([1])
        var incoming = pair.server.incomingStreams.makeAsyncIterator()
        let received = try #require(await incoming.next())
        #expect(try await received.read()?.readableBytes == 1)
        let reading = Task { try await received.read() }
        try await stream.reset(errorCode: 7)
        await #expect(throws: StreamError.resetByPeer(code: 7)) { try await reading.value }
        try await stream.stopReading(errorCode: 8)
        await #expect(throws: StreamError.stoppedByPeer(code: 8)) {
            while true {
                try await received.write([1])
                try await Task.sleep(for: .milliseconds(5))
            }
        }
        await pair.close()
    }

    @Test("tells both sides the code and reason it was closed with, and refuses every call afterwards with them (M8)")
    func closeReason() async throws {
        let pair = try await TestPair.connected()
        let stream = try await pair.client.openStream()
        let reading = Task { try await stream.read() }
        let accepting = Task { () -> Bool in
            for await _ in pair.client.incomingStreams {}
            return true
        }
        await pair.server.close(errorCode: 42, reason: "enough")
        let expected = CloseReason.application(code: 42, reason: "enough", byPeer: true)
        #expect(try await pair.client.waitUntilClosed() == expected)
        #expect(try await pair.server.waitUntilClosed() == .application(code: 42, reason: "enough", byPeer: false))
        await #expect(throws: expected) { try await reading.value }
        #expect(await accepting.value)
        await #expect(throws: expected) { try await pair.client.openStream() }
        await #expect(throws: expected) { try await stream.write([1]) }
        await #expect(throws: expected) { try await pair.client.addPath(over: pair.clientTransport) }
        await #expect(throws: MigrationError.connectionClosed(expected)) { try await pair.client.initialPath.probe() }
        #expect(pair.client.closeReason == expected)
        await pair.close()
    }

    @Test("shows in the server's table with the client's address")
    func table() async throws {
        let pair = try await TestPair.connected()
        let table = await pair.listener.connectionTable
        #expect(table.count == 1)
        let entry = try #require(table.first)
        #expect(entry.clientAddress == pair.client.localAddress)
        #expect(entry.isValidated)
        #expect(entry.state == .established)
        #expect(entry.connection == pair.server)
        #expect(entry.id.length > 0)
        await pair.close()
    }

    @Test("is refused when the certificate is not trusted, or for another name")
    func untrusted() async throws {
        let server = try await Transport.bind(to: "127.0.0.1:0")
        let client = try await Transport.bind(to: "127.0.0.1:0")
        _ = try await server.listen(tls: TestCredentials.server(), applicationProtocols: ["test"])
        var strict = try TestCredentials.client()
        strict.trustRoots = .certificates([])
        await #expect {
            _ = try await client.connect(
                to: "127.0.0.1:\(server.localAddress.port)", tls: strict, applicationProtocols: ["test"])
        } throws: { error in
            guard case .connectionFailed(.transport(let reason, byPeer: false)) = error as? TernError else {
                return false
            }
            return reason.code.tlsAlert != nil
        }
        await #expect {
            _ = try await client.connect(
                to: "127.0.0.1:\(server.localAddress.port)", tls: TestCredentials.client(),
                applicationProtocols: ["other"])
        } throws: { error in
            guard case .connectionFailed(.transport(let reason, byPeer: true)) = error as? TernError else {
                return false
            }
            return reason.code.tlsAlert == 120
        }
        await client.close()
        await server.close()
    }

    @Test("to where nobody listens fails at the handshake's timeout, or at once when the task is cancelled")
    func nobodyThere() async throws {
        let client = try await Transport.bind(to: "127.0.0.1:0")
        let gone = try await Transport.bind(to: "127.0.0.1:0")
        let address = gone.localAddress
        await gone.close()
        var configuration = ConnectionConfiguration()
        configuration.handshakeTimeout = .milliseconds(300)
        await #expect(throws: TernError.connectionFailed(.handshakeTimeout)) {
            try await client.connect(
                to: address.description, tls: TestCredentials.client(), applicationProtocols: ["test"],
                configuration: configuration)
        }
        let patient = Task {
            try await client.connect(
                to: address.description, tls: TestCredentials.client(), applicationProtocols: ["test"])
        }
        try await Task.sleep(for: .milliseconds(20))
        patient.cancel()
        await #expect(throws: TernError.cancelled) { try await patient.value }
        await client.close()
    }
}

/// A number that tasks add to.
final class Counter: Sendable {
    private let total = Atomic(0)
    func add(_ amount: Int) { total.add(amount, ordering: .relaxed) }
    var value: Int { total.load(ordering: .relaxed) }
}
