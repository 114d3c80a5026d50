// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOSSL
import Tern

// A small application, written as one is that knows nothing of simulations.

/// Sends back whatever its clients send.
struct EchoServer: Sendable {
    let transport: Transport
    let tls: TLSConfiguration
    var configuration = ConnectionConfiguration()

    /// Serves until it is cancelled.
    func run() async throws {
        let listener = try await transport.listen(
            tls: tls, applicationProtocols: ["echo"], configuration: configuration)
        try await withThrowingDiscardingTaskGroup { connections in
            for try await connection in listener.connections {
                connections.addTask {
                    await withDiscardingTaskGroup { streams in
                        for await stream in connection.incomingStreams {
                            streams.addTask { try? await Self.serve(stream) }
                        }
                    }
                }
            }
        }
    }

    private static func serve(_ stream: Tern.Stream) async throws {
        for try await chunk in stream.bytes { try await stream.write(chunk) }
        try await stream.finish()
    }
}

/// A conversation with an echo server over one stream.
struct EchoCall: Sendable {
    let connection: Connection
    private let stream: Tern.Stream

    init(
        to target: String, over transport: Transport, tls: TLSConfiguration,
        configuration: ConnectionConfiguration = ConnectionConfiguration()
    ) async throws {
        connection = try await transport.connect(
            to: target, tls: tls, applicationProtocols: ["echo"], configuration: configuration)
        stream = try await connection.openStream()
    }

    /// Says something, and returns what comes back.
    func say(_ text: String) async throws -> String {
        try await stream.write(ByteBuffer(string: text))
        var answer = ByteBuffer()
        while answer.readableBytes < text.utf8.count, var chunk = try await stream.read() { answer.writeBuffer(&chunk) }
        return String(buffer: answer)
    }

    /// Sends `bytes` and receives as many at the same time; says whether they came back as they were.
    func repeats(_ bytes: ByteBuffer) async throws -> Bool {
        async let sent: Void = stream.write(bytes)
        var answer = ByteBuffer()
        while answer.readableBytes < bytes.readableBytes, var chunk = try await stream.read() {
            answer.writeBuffer(&chunk)
        }
        try await sent
        return answer == bytes
    }

    func hangUp() async { await connection.close() }
}
