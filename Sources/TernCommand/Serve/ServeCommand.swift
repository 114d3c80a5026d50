// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import QUICProtocol
import Tern

/// `tern serve`: gives out a folder's files.
struct ServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serves a folder's files over HTTP/0.9 on QUIC (ALPN hq-interop).",
        discussion: """
            Without --cert and --key a throw-away certificate is made, which clients take with --insecure only. \
            SSLKEYLOGFILE names a file for the TLS secrets. SIGINT or SIGTERM ends it.
            """
    )

    @Option(help: "The folder. Nothing outside it is given out.")
    var root: String

    @Option(help: "The address to listen on; port 0 takes any.")
    var listen = HostPort(host: "127.0.0.1", port: 4_433)

    @Option(
        name: .customLong("preferred-address"),
        help: ArgumentHelp(
            "Another address to serve on, to which clients are asked to move; one of each family.", valueName: "address"
        )
    )
    var preferredAddresses: [HostPort] = []

    @Option(name: .customLong("cert"), help: ArgumentHelp("The certificate and its chain, PEM.", valueName: "file"))
    var certificate: String?

    @Option(name: .customLong("key"), help: ArgumentHelp("The certificate's private key, PEM.", valueName: "file"))
    var privateKey: String?

    @Option(help: ArgumentHelp("Bytes a second to send at most, all answers together.", valueName: "bytes"))
    var rate: ByteCountArgument?

    @Flag(help: "Prints only errors and the ready line.")
    var quiet = false

    func validate() throws {
        if let rate, rate.bytes < 1_000 { throw ValidationError("--rate takes 1000 bytes a second or more") }
    }

    func run() async throws {
        let folder = try ServedFolder(root)
        let tls = try Certificates.server(
            certificate: certificate,
            privateKey: privateKey,
            hosts: Array(Set([listen.host, "localhost"])).sorted()
        )
        let address = try listen.resolved()
        let preferred = try await bindPreferredAddresses()
        let (transport, listener) = try await attempting("cannot listen on \(listen)") {
            let transport = try await Transport.bind(to: address.text)
            let listener = try await transport.listen(
                tls: tls, applicationProtocols: [HTTP09.applicationProtocol], preferred: preferred)
            return (transport, listener)
        }
        for transport in preferred { StandardOutput.line("preferred \(transport.localAddress)") }
        StandardOutput.line("ready \(transport.localAddress)")
        let server = fileServer(for: folder)
        try await untilSignalled {
            try await withThrowingDiscardingTaskGroup { group in
                for try await connection in listener.connections {
                    group.addTask { await serve(connection, with: server) }
                }
            }
        }
        await transport.close()
        for transport in preferred { await transport.close() }
    }

    private func bindPreferredAddresses() async throws -> [Transport] {
        var transports: [Transport] = []
        for address in preferredAddresses {
            let text = try address.resolved().text
            transports.append(try await attempting("cannot use \(address)") { try await Transport.bind(to: text) })
        }
        return transports
    }

    private func fileServer(for folder: ServedFolder) -> FileServer {
        var server = FileServer(folder: folder)
        if let rate {
            let pacer = Pacer(bytesPerSecond: Double(rate.bytes))
            server.chunkSize = pacer.chunkSize
            server.throttle = { _, next in try await pacer.wait(for: next) }
        }
        if !quiet {
            server.report = { path, sent, problem in
                StandardOutput.line("GET \(printable(path))  \(Format.bytes(sent))" + (problem.map { "  \($0)" } ?? ""))
            }
        }
        return server
    }

    /// Serves one connection and, unless it shall be quiet, tells where its client moves.
    private func serve(_ connection: Connection, with server: FileServer) async {
        await withDiscardingTaskGroup { group in
            if !quiet {
                group.addTask {
                    for await event in connection.pathEvents {
                        if let text = event.text(in: connection) { StandardOutput.line(text) }
                    }
                }
            }
            await server.serve(connection)
        }
    }
}

extension PathEvent {
    /// What a server's operator wants to hear of it; nil for the rest.
    fileprivate func text(in connection: Connection) -> String? {
        func address(_ path: PathID) -> String { connection.path(path).map { "\($0.remoteAddress)" } ?? "\(path)" }
        return switch self {
        case .peerMoved(let old, let new, let move):
            move == .preferredAddress
                ? "client \(address(new)) came to \(connection.path(new).map { "\($0.localAddress)" } ?? "\(new)")"
                : "client moved \(address(old)) → \(address(new))" + (move == .portOnly ? " (port only)" : "")
        case .validated(let path, let rtt, let challenges):
            // A path that was closed meanwhile has no address any more.
            connection.path(path).map {
                "client validated at \($0.remoteAddress) in \(rtt.duration.text), "
                    + "\(challenges) challenge\(challenges == 1 ? "" : "s")"
            }
        case .failed(let path, let failure): "client's address \(address(path)) failed: \(failure)"
        default: nil
        }
    }
}

/// A peer's text without what would play with a terminal.
func printable(_ text: String) -> String {
    String(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7f || $0.value == 0x9b ? "?" : Character($0) })
}
