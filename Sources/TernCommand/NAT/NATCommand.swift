// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import NIOCore
import NIOPosix

/// `tern nat`: the userland NAT by itself, to put any QUIC client's or server's migration to the test.
struct NATCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "nat",
        abstract: "A NAT between a client and a server that changes the client's address every so often.",
        discussion: """
            Point the client at --listen. Each rebinding is printed as a line; SIGINT or SIGTERM prints the counters \
            and ends it.
            """
    )

    enum Rebind: String, ExpressibleByArgument, CaseIterable {
        /// A new port on the same IP address.
        case port
        /// The next IP address, and a new port.
        case address
        /// The one and the other in turn.
        case both
    }

    @Option(help: "The address that clients send to.")
    var listen: HostPort

    @Option(help: "The server.")
    var to: HostPort

    @Option(help: ArgumentHelp("Time between rebindings, for example 500ms or 5s; never if not given.", valueName: "D"))
    var rebindEvery: DurationArgument?

    @Option(help: "What changes: \(Rebind.allCases.map(\.rawValue).joined(separator: ", ")).")
    var rebind = Rebind.port

    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp(
            "IP addresses to send from, used in turn. (default: 127.0.1.1 … 127.0.1.8 for a server on loopback)",
            valueName: "ip"
        )
    )
    var outside: [String] = []

    @Option(help: ArgumentHelp("Probability that a datagram is lost, each way.", valueName: "P"))
    var drop = 0.0

    @Option(help: ArgumentHelp("How long each datagram is held, each way.", valueName: "D"))
    var delay = DurationArgument(.zero)

    @Option(help: "Decides which datagrams are lost.")
    var seed: UInt64 = 1

    func validate() throws {
        guard (0..<1).contains(drop) else { throw ValidationError("--drop takes a probability from 0 to below 1") }
        if let rebindEvery, rebindEvery.duration < .milliseconds(1) {
            throw ValidationError("--rebind-every takes 1ms or more")
        }
        guard delay.duration <= .seconds(10) else { throw ValidationError("--delay takes 10s at most") }
    }

    func run() async throws {
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let target = try to.resolved()
        let configuration = UserlandNAT.Configuration(
            listen: try listen.resolved(),
            target: target,
            outside: try outsideAddresses(for: target),
            dropProbability: drop,
            delay: TimeAmount(delay.duration),
            seed: seed
        )
        let nat = try await attempting("cannot listen on \(listen)") {
            try await UserlandNAT.start(configuration, on: eventLoop)
        }
        StandardOutput.line("nat \(nat.address.text) → \(target.text)")
        try await untilSignalled {
            try await rebindForever(nat)
        }
        let counters = try await nat.counters()
        try await nat.stop()
        StandardOutput.line("to server  \(summary(of: counters.toServer))")
        StandardOutput.line("to client  \(summary(of: counters.toClient))")
        let clients = "\(counters.clients) client\(counters.clients == 1 ? "" : "s")"
        StandardOutput.line("\(clients), \(counters.rebindings) rebinding\(counters.rebindings == 1 ? "" : "s")")
    }

    private func outsideAddresses(for target: SocketAddress) throws -> [SocketAddress] {
        if !outside.isEmpty {
            return try outside.map { text in
                guard let address = try? SocketAddress(ipAddress: text, port: 0) else {
                    throw CommandError("“\(text)” is no IP address")
                }
                return address
            }
        }
        if target.isIPv4Loopback { return try (1...8).map { try SocketAddress(ipAddress: "127.0.1.\($0)", port: 0) } }
        guard rebind == .port else {
            throw CommandError("--rebind \(rebind.rawValue) needs --outside with the IP addresses to go through")
        }
        return [try SocketAddress(ipAddress: target.protocol == .inet6 ? "::" : "0.0.0.0", port: 0)]
    }

    private func rebindForever(_ nat: UserlandNAT) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        guard let interval = rebindEvery?.duration else {
            while true { try await Task.sleep(for: .seconds(3_600)) }
        }
        var count = 0
        var next = start
        while true {
            next += interval
            try await Task.sleep(until: next)
            count += 1
            let kind: UserlandNAT.RebindingKind =
                switch rebind {
                case .port: .port
                case .address: .address
                case .both: count % 2 == 1 ? .port : .address
                }
            let moves = try await attempting("cannot bind a new outside socket") { try await nat.rebind(kind) }
            let time = Format.right(Format.decimal((clock.now - start).inSeconds, places: 3), 9)
            for move in moves {
                StandardOutput.line(
                    "\(time) s  rebind \(Format.left(kind.rawValue, 7)) client \(move.client.text)  "
                        + "\(move.old.text) → \(move.new.text)"
                )
            }
        }
    }

    private func summary(of flow: UserlandNAT.Flow) -> String {
        "\(flow.datagrams) datagrams, \(Format.bytes(flow.bytes)), \(flow.dropped) dropped, \(flow.failed) failed"
    }
}
