// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import NIOCore
import NIOPosix
import NIOSSL
import QUICProtocol
import Tern

/// `tern perf`: how fast, and for how much CPU time.
struct PerfCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perf",
        abstract: "Measures throughput, handshakes and the CPU time they cost (ALPN perf).",
        discussion: """
            By itself it runs both roles in this process over loopback, each on a thread of its own. \
            Its options: 'tern help perf loopback'.
            """,
        subcommands: [PerfServeCommand.self, PerfGetCommand.self, PerfLoopbackCommand.self],
        defaultSubcommand: PerfLoopbackCommand.self
    )
}

/// What to measure, as typed.
struct PerfOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Bytes to receive.", valueName: "bytes"))
    var download: ByteCountArgument?

    @Option(help: ArgumentHelp("Bytes to send.", valueName: "bytes"))
    var upload: ByteCountArgument?

    @Option(help: ArgumentHelp("Handshakes to make, each a new connection.", valueName: "count"))
    var handshakes: Int?

    @Option(help: "Streams a connection that share the bytes.")
    var streams = 1

    @Option(help: "Handshakes under way at once.")
    var concurrency = 8

    @Option(help: ArgumentHelp("Requests with answers of 1 KB, each on a new stream.", valueName: "count"))
    var requests: Int?

    @Option(help: "Connections that share the bytes or the requests.")
    var connections = 1

    @Option(help: ArgumentHelp("Connections to open and leave alone.", valueName: "count"))
    var idle: Int?

    @Option(help: "How long idle connections are left alone.")
    var hold = DurationArgument(.seconds(10))

    @Option(help: ArgumentHelp("In a transfer: gives the client's socket a new port each time.", valueName: "interval"))
    var rebindEvery: DurationArgument?

    @Option(help: ArgumentHelp("In a transfer: switches to another path each time.", valueName: "interval"))
    var switchEvery: DurationArgument?

    @Option(help: ArgumentHelp("The groups offered: x25519, p256, x25519mlkem768.", valueName: "groups"))
    var keyExchange: String?

    @Option(help: ArgumentHelp("Bytes of UDP payload in a datagram, at most.", valueName: "bytes"))
    var datagramSize = 1_452

    @Flag(help: "Prints JSON.")
    var json = false

    func validate() throws {
        guard (1...100).contains(streams) else { throw ValidationError("--streams takes 1 to 100") }
        guard (1...1_000).contains(concurrency) else { throw ValidationError("--concurrency takes 1 to 1000") }
        guard (1_200...65_000).contains(datagramSize) else {
            throw ValidationError("--datagram-size takes 1200 to 65000")
        }
        if let handshakes, handshakes < 1 { throw ValidationError("--handshakes takes 1 or more") }
        if let requests, requests < 1 { throw ValidationError("--requests takes 1 or more") }
        guard (1...10_000).contains(connections) else { throw ValidationError("--connections takes 1 to 10000") }
        if let idle, !(1...100_000).contains(idle) { throw ValidationError("--idle takes 1 to 100000") }
        if rebindEvery != nil, switchEvery != nil {
            throw ValidationError("--rebind-every or --switch-every, not both")
        }
        _ = try curves()
    }

    /// The TLS groups that `--key-exchange` names; nil for the usual ones.
    func curves() throws -> [NIOTLSCurve]? {
        try keyExchange?.lowercased().split(separator: ",").map { name in
            switch name {
            case "x25519": .x25519
            case "p256": .secp256r1
            case "x25519mlkem768": .x25519_MLKEM768
            default: throw ValidationError("--key-exchange knows x25519, p256 and x25519mlkem768, not “\(name)”")
            }
        }
    }

    var connectionConfiguration: ConnectionConfiguration {
        var configuration = ConnectionConfiguration()
        configuration.initialUDPPayload = datagramSize
        configuration.maxUDPPayload = datagramSize
        return configuration
    }

    /// 1 GiB of download when nothing is asked for.
    var work: PerfWork {
        let asksForNothing =
            download == nil && upload == nil && handshakes == nil && requests == nil && idle == nil
        var work = PerfWork()
        work.upload = upload?.bytes ?? 0
        work.download = download?.bytes ?? (asksForNothing ? 1 << 30 : 0)
        work.streams = streams
        work.handshakes = handshakes ?? 0
        work.concurrency = concurrency
        work.requests = requests ?? 0
        work.connections = connections
        work.idle = idle ?? 0
        work.hold = hold.duration
        if let rebindEvery { work.disturbance = (.rebinding, rebindEvery.duration) }
        if let switchEvery { work.disturbance = (.switching, switchEvery.duration) }
        work.configuration = connectionConfiguration
        return work
    }

    func show(_ results: [PerfResult]) {
        if json {
            StandardOutput.line(JSON.array(results.map(\.json)).text)
        } else {
            for result in results { StandardOutput.line(result.text) }
        }
    }
}

/// `tern perf`: both roles over loopback.
struct PerfLoopbackCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loopback",
        abstract: "Runs both roles in this process."
    )

    @OptionGroup
    var options: PerfOptions

    func run() async throws {
        let (serverLoop, clientLoop) = (Self.makeEventLoop(), Self.makeEventLoop())
        var tls = try Certificates.throwAwayPair(hosts: ["127.0.0.1"])
        if let curves = try options.curves() { tls.client.curves = curves }
        let transport = try await Transport.bind(to: "127.0.0.1:0", on: serverLoop)
        let listener = try await transport.listen(
            tls: tls.server,
            applicationProtocols: [PerfProtocol.applicationProtocol],
            configuration: options.connectionConfiguration
        )
        let client = PerfClient(
            eventLoop: clientLoop,
            server: transport.localAddress.description,
            local: "127.0.0.1:0",
            tls: tls.client,
            work: options.work,
            cpuTimes: {
                // Each role's application runs on its event loop, so the threads' times are the roles'.
                let server = try await CPUTime.of(serverLoop)
                let client = try await CPUTime.of(clientLoop)
                return [("client", client), ("server", server), ("process", CPUTime.ofProcess())]
            }
        )
        let executor = EventLoopExecutor(serverLoop)
        let results = try await withThrowingTaskGroup(of: [PerfResult]?.self) { group in
            group.addTask(executorPreference: executor) {
                try await PerfProtocol.serve(listener)
                return nil
            }
            group.addTask { try await client.run() }
            defer { group.cancelAll() }
            while let results = try await group.next() {
                if let results { return results }
            }
            return []
        }
        await transport.close()
        options.show(results)
    }

    private static func makeEventLoop() -> any EventLoop {
        MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
    }
}

/// `tern perf serve`.
struct PerfServeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Answers `tern perf get`; says what it cost when it is ended with SIGINT or SIGTERM."
    )

    @Option(help: "The address to listen on; port 0 takes any.")
    var listen = HostPort(host: "127.0.0.1", port: 4_433)

    @Option(name: .customLong("cert"), help: ArgumentHelp("The certificate and its chain, PEM.", valueName: "file"))
    var certificate: String?

    @Option(name: .customLong("key"), help: ArgumentHelp("The certificate's private key, PEM.", valueName: "file"))
    var privateKey: String?

    @Option(help: ArgumentHelp("Bytes of UDP payload in a datagram, at most.", valueName: "bytes"))
    var datagramSize = 1_452

    func validate() throws {
        guard (1_200...65_000).contains(datagramSize) else {
            throw ValidationError("--datagram-size takes 1200 to 65000")
        }
    }

    func run() async throws {
        let tls = try Certificates.server(certificate: certificate, privateKey: privateKey, hosts: [listen.host])
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        let address = try listen.resolved()
        var configuration = ConnectionConfiguration()
        configuration.initialUDPPayload = datagramSize
        configuration.maxUDPPayload = datagramSize
        let connectionConfiguration = configuration
        let (transport, listener) = try await attempting("cannot listen on \(listen)") {
            let transport = try await Transport.bind(to: address.text, on: eventLoop)
            let listener = try await transport.listen(
                tls: tls,
                applicationProtocols: [PerfProtocol.applicationProtocol],
                configuration: connectionConfiguration
            )
            return (transport, listener)
        }
        StandardOutput.line("ready \(transport.localAddress)")
        let before = CPUTime.ofProcess()
        try await untilSignalled {
            try await withTaskExecutorPreference(EventLoopExecutor(eventLoop)) {
                try await PerfProtocol.serve(listener)
            }
        }
        StandardOutput.line("CPU \(Format.decimal((CPUTime.ofProcess() - before).inSeconds, places: 3)) s")
        await transport.close()
    }
}

/// `tern perf get`.
struct PerfGetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Measures against `tern perf serve` or any other server of the protocol."
    )

    @Argument(help: "The server: HOST:PORT.")
    var server: HostPort

    @OptionGroup
    var options: PerfOptions

    @Flag(help: "Takes any certificate.")
    var insecure = false

    @Option(
        name: .customLong("cacert"),
        help: ArgumentHelp("Authorities to trust instead of the system's, PEM.", valueName: "file")
    )
    var authorities: String?

    func run() async throws {
        let remote = try server.resolved()
        var tls = try Certificates.client(insecure: insecure, authorities: authorities)
        if let curves = try options.curves() { tls.curves = curves }
        let client = PerfClient(
            eventLoop: MultiThreadedEventLoopGroup(numberOfThreads: 1).next(),
            server: server.description,
            local: remote.protocol == .inet6 ? "[::]:0" : "0.0.0.0:0",
            tls: tls,
            work: options.work,
            cpuTimes: { [("client", CPUTime.ofProcess())] }
        )
        options.show(try await client.run())
    }
}
