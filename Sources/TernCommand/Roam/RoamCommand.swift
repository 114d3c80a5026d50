// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import QUICProtocol
import Tern

/// `tern roam`: fetches a file over whatever networks there are, and prints what the automatic policy decides.
struct RoamCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "roam",
        abstract: "Fetches a file, moving between this machine's networks by itself.",
        discussion: """
            Prints the networks that there are, and then each decision of the automatic migration policy with its \
            reason; after each move, how long nothing came. Take a network away while it runs. Files come over HTTP/0.9 \
            on QUIC (ALPN hq-interop).
            """
    )

    @Argument(help: "What to fetch: https://HOST[:PORT]/PATH.")
    var url: String

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Folder or file to write to. (default: here)", valueName: "path")
    )
    var output: String?

    @Flag(help: "Takes any certificate: anybody could be the server.")
    var insecure = false

    @Option(
        name: .customLong("cacert"),
        help: ArgumentHelp("Authorities to trust instead of the system's, PEM.", valueName: "file")
    )
    var authorities: String?

    @Option(help: ArgumentHelp("How long silence is borne.", valueName: "time"))
    var idleTimeout = DurationArgument(.seconds(30))

    func validate() throws {
        if insecure, authorities != nil { throw ValidationError("--insecure and --cacert exclude each other") }
        if output == "-" { throw ValidationError("the decisions are printed: --output names a file or folder") }
    }

    func run() async throws {
        guard let url = FileURL(url) else { throw CommandError("“\(url)” is no https://HOST[:PORT]/PATH") }
        let tls = try Certificates.client(insecure: insecure, authorities: authorities)
        let target = try DownloadTarget(output: output, count: 1)
        let remote = try url.authority.resolved()
        for network in NetworkMonitor.system.networks where network.isUsable && network.kind != .loopback {
            StandardOutput.line("network    \(network)")
        }
        var configuration = ConnectionConfiguration()
        configuration.maxIdleTimeout = Nanoseconds(idleTimeout.duration)
        configuration.migration = .automatic
        let transport = try await Transport.bind(to: remote.protocol == .inet6 ? "[::]:0" : "0.0.0.0:0")
        let settings = configuration
        let connection = try await attempting("cannot connect to \(url.authority)") {
            try await transport.connect(
                to: url.authority.description, tls: tls, applicationProtocols: [HTTP09.applicationProtocol],
                configuration: settings)
        }
        let log = RoamLog()
        StandardOutput.line("\(log.time)  connected  \(connection.localAddress) → \(connection.remoteAddress)")
        let download = Download(
            authority: url.authority, urls: [url], target: target, progress: TransferProgress())
        let problems = try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await log.follow(connection, download.progress) }
            defer { group.cancelAll() }
            return try await attempting("transfer from \(url.authority) failed") {
                try await download.run(over: connection)
            }
        }
        await connection.close()
        await transport.close()
        for problem in problems { StandardError.line("tern: \(problem)") }
        if !problems.isEmpty { throw ExitCode.failure }
        let bytes = download.progress.snapshot.bytes
        let rate = Format.rate(bytesPerSecond: Double(bytes) / max(log.elapsed.inSeconds, 1e-9))
        StandardOutput.line("\(log.time)  complete   \(Format.bytes(bytes)), \(rate)")
    }
}

/// Prints decisions, and what moves cost.
private struct RoamLog: Sendable {
    private let start = ContinuousClock.now
    private let receipts = Receipts()
    /// Silence before a move was decided is part of its cost, as far as this.
    private static let lookBack = Duration.seconds(5)

    var elapsed: Duration { .now - start }
    var time: String { Format.right(Format.decimal(elapsed.inSeconds, places: 3), 8) + " s" }

    func follow(_ connection: Connection, _ progress: TransferProgress) async {
        await withDiscardingTaskGroup { group in
            group.addTask { await sample(progress) }
            for await decision in connection.policyDecisions {
                StandardOutput.line("\(time)  policy     \(decision)")
                if case .move = decision { group.addTask { await measure(progress, connection) } }
            }
        }
    }

    private func sample(_ progress: TransferProgress) async {
        var seen = 0
        while !Task.isCancelled {
            let bytes = progress.snapshot.bytes
            if bytes > seen { receipts.add(bytes - seen) }
            seen = bytes
            try? await Task.sleep(for: .milliseconds(2), tolerance: .zero)
        }
    }

    private func measure(_ progress: TransferProgress, _ connection: Connection) async {
        let moved = ContinuousClock.now
        guard await progress.reached(bytes: progress.snapshot.bytes + 1) else { return }
        try? await Task.sleep(for: .milliseconds(5))
        let gap = receipts.largestGap(from: max(start, moved - Self.lookBack), to: .now, cutsLast: true)
        StandardOutput.line("\(time)  stall      \(gap.text), now from \(connection.localAddress)")
    }
}
