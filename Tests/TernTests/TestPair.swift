// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Testing

@testable import Tern

/// A server that answers, and a client connected to it, over loopback.
struct TestPair: Sendable {
    let serverTransport: Transport
    let clientTransport: Transport
    let listener: Listener
    let client: Connection
    let server: Connection

    /// - Parameters:
    ///   - serverAddress: what the server binds to; the client connects to `target`, or to that.
    static func connected(
        serverAddress: String = "127.0.0.1:0", clientAddress: String = "127.0.0.1:0", targetHost: String = "127.0.0.1",
        clientConfiguration: ConnectionConfiguration = ConnectionConfiguration(),
        serverConfiguration: ConnectionConfiguration = ConnectionConfiguration(),
        clientMonitor: NetworkMonitor = .system,
        transportConfiguration: TransportConfiguration = TransportConfiguration()
    ) async throws -> TestPair {
        let serverTransport = try await Transport.bind(to: serverAddress, configuration: transportConfiguration)
        var clientSettings = transportConfiguration
        clientSettings.networkMonitor = clientMonitor
        let clientTransport = try await Transport.bind(to: clientAddress, configuration: clientSettings)
        let listener = try await serverTransport.listen(
            tls: TestCredentials.server(), applicationProtocols: ["test"], configuration: serverConfiguration)
        async let accepted = listener.next()
        let client = try await clientTransport.connect(
            to: "\(targetHost):\(serverTransport.localAddress.port)", tls: TestCredentials.client(),
            applicationProtocols: ["test"], configuration: clientConfiguration)
        let server = try #require(try await accepted)
        return TestPair(
            serverTransport: serverTransport, clientTransport: clientTransport, listener: listener, client: client,
            server: server)
    }

    func close() async {
        await client.close()
        await server.close()
        await clientTransport.close()
        await serverTransport.close()
    }

    /// Sends back on each stream what comes on it, until the connection ends.
    func echo() -> Task<Void, Never> {
        Task { [server] in
            await withDiscardingTaskGroup { group in
                for await stream in server.incomingStreams {
                    group.addTask {
                        do {
                            for try await chunk in stream.bytes { try await stream.write(chunk) }
                            try await stream.finish()
                        } catch {
                            try? await stream.reset(errorCode: 99)
                        }
                    }
                }
            }
        }
    }

    /// Sends `request` on a new stream and returns what comes back.
    func exchange(_ request: [UInt8]) async throws -> [UInt8] {
        let stream = try await client.openStream()
        async let answer = stream.readToEnd()
        try await stream.write(request)
        try await stream.finish()
        return try await answer
    }

    /// So many exchanges at once, each of other bytes.
    func exchange(_ count: Int, of size: Int) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<count {
                group.addTask {
                    let request = pattern(size, seed: UInt64(number))
                    let answer = try await exchange(request)
                    #expect(answer == request)
                }
            }
            try await group.waitForAll()
        }
    }
}

extension Listener {
    func next() async throws -> Connection? {
        var iterator = connections.makeAsyncIterator()
        return try await iterator.next()
    }
}

extension Tern.Stream {
    func readToEnd() async throws -> [UInt8] {
        var all: [UInt8] = []
        for try await chunk in bytes { all += chunk.readableBytesView }
        return all
    }
}

/// Bytes that differ from place to place.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var random = RandomSource.seeded(seed)
    return random.bytes(count)
}
