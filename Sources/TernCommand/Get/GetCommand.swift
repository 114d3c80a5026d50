// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import NIOSSL
import QUICProtocol
import Tern

/// `tern get`: fetches files, and moves the connection to another address on the way if told to.
struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Fetches files over HTTP/0.9 on QUIC (ALPN hq-interop).",
        discussion: """
            Files of one server come over one connection, all at once. With --migrate-after the connection moves to \
            the address given with --via once so many bytes have come: the new path is added, probed and switched to, \
            the old one and its socket are closed. Several --via are gone through, each after so many bytes more. \
            SSLKEYLOGFILE names a file for the TLS secrets.
            """
    )

    @Argument(help: "What to fetch: https://HOST[:PORT]/PATH.")
    var urls: [String]

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Folder or file to write to, - for standard output. (default: here)", valueName: "path")
    )
    var output: String?

    @Flag(help: "Takes any certificate: anybody could be the server.")
    var insecure = false

    @Option(
        name: .customLong("cacert"),
        help: ArgumentHelp("Authorities to trust instead of the system's, PEM.", valueName: "file")
    )
    var authorities: String?

    @Option(help: ArgumentHelp("The address to send from at first.", valueName: "address"))
    var local: String?

    @Option(help: ArgumentHelp("Bytes after which the connection moves.", valueName: "bytes"))
    var migrateAfter: ByteCountArgument?

    @Option(help: ArgumentHelp("The address to move to.", valueName: "address"))
    var via: [String] = []

    @Option(help: ArgumentHelp("How long silence is borne.", valueName: "time"))
    var idleTimeout = DurationArgument(.seconds(30))

    @Flag(name: .customLong("stay"), help: "Does not move to an address that the server prefers.")
    var isStaying = false

    @Flag(name: .shortAndLong, help: "Shows no progress and no summary.")
    var quiet = false

    func validate() throws {
        guard (migrateAfter == nil) == via.isEmpty else {
            throw ValidationError("--migrate-after and --via go together")
        }
        if let migrateAfter, !(1...1 << 50).contains(migrateAfter.bytes) {
            throw ValidationError("--migrate-after takes 1 byte to 1 PiB")
        }
        if insecure, authorities != nil { throw ValidationError("--insecure and --cacert exclude each other") }
        for address in via + (local.map { [$0] } ?? []) {
            guard HostPort(bindAddress: address) != nil else {
                throw ValidationError("“\(address)” is no IP address, with or without a port")
            }
        }
    }

    func run() async throws {
        let urls = try urls.map { text in
            guard let url = FileURL(text) else { throw CommandError("“\(text)” is no https://HOST[:PORT]/PATH") }
            return url
        }
        let tls = try Certificates.client(insecure: insecure, authorities: authorities)
        let target = try DownloadTarget(output: output, count: urls.count)
        let progress = TransferProgress()
        let start = ContinuousClock.now
        let line = LiveLine.onStandardError(isEnabled: !quiet)

        var problems: [String] = []
        let authorities = urls.map(\.authority).reduce(into: [HostPort]()) { if !$0.contains($1) { $0.append($1) } }
        for authority in authorities {
            let download = Download(
                authority: authority,
                urls: urls.filter { $0.authority == authority },
                target: target,
                progress: progress
            )
            problems += try await run(download, tls: tls, line: line)
        }
        line.clear()
        let seconds = (ContinuousClock.now - start).inSeconds
        let snapshot = progress.snapshot
        if !quiet {
            let rate = Format.rate(bytesPerSecond: Double(snapshot.bytes) / max(seconds, 1e-9))
            StandardError.line(
                "\(snapshot.filesDone) of \(urls.count) file\(urls.count == 1 ? "" : "s"), "
                    + "\(Format.bytes(snapshot.bytes)) in \(Format.decimal(seconds, places: 2)) s, \(rate)"
            )
        }
        for problem in problems { StandardError.line("tern: \(problem)") }
        if !problems.isEmpty { throw ExitCode.failure }
    }

    /// Fetches one server's files.
    ///
    /// - Returns: a line for each thing that went wrong without ending the connection.
    private func run(_ download: Download, tls: TLSConfiguration, line: LiveLine) async throws -> [String] {
        let authority = download.authority
        let remote = try authority.resolved()
        // A socket of each family, so that a server may prefer to be reached at an address of the other one.
        let any = isStaying ? (remote.protocol == .inet6 ? "[::]:0" : "0.0.0.0:0") : "[::]:0"
        let transport = try await attempting("cannot use the address \(local ?? any)") {
            try await Transport.bind(to: local.flatMap { HostPort(bindAddress: $0)?.description } ?? any)
        }
        let idleTimeout = Nanoseconds(idleTimeout.duration)
        let connection = try await attempting("cannot connect to \(authority)") {
            var configuration = ConnectionConfiguration()
            configuration.maxIdleTimeout = idleTimeout
            configuration.followsPreferredAddress = !isStaying
            return try await transport.connect(
                to: authority.description,
                tls: tls,
                applicationProtocols: [HTTP09.applicationProtocol],
                configuration: configuration
            )
        }
        let migration = Migration(connection: connection, initialTransport: transport, reportsTo: quiet ? nil : line)
        let problems = try await withThrowingTaskGroup(of: Void.self) { group in
            if line.isEnabled { group.addTask { await show(download, on: line) } }
            if !quiet { group.addTask { await reportServerMoves(of: connection, above: line) } }
            if let migrateAfter {
                let hops = via.compactMap { HostPort(bindAddress: $0) }
                group.addTask { await migration.run(hops, every: migrateAfter.bytes, of: download.progress) }
            }
            defer { group.cancelAll() }
            return try await attempting("transfer from \(authority) failed") {
                try await download.run(over: connection)
            }
        }
        await connection.close(errorCode: 0, reason: "")
        let (lastTransport, migrationProblem) = await migration.result
        await lastTransport.close()
        return problems + (migrationProblem.map { [$0] } ?? [])
    }

    /// Tells when the connection goes to an address that its server prefers.
    private func reportServerMoves(of connection: Connection, above line: LiveLine) async {
        func report(_ path: Path) {
            line.clear()
            StandardError.line("server preferred \(path.remoteAddress)")
        }
        let initial = connection.initialPath.remoteAddress
        let events = connection.pathEvents
        // It may have moved before anybody listened.
        if connection.remoteAddress != initial { return report(connection.activePath) }
        for await event in events {
            guard case .switched(_, let id, .preferredAddress) = event, let path = connection.path(id) else { continue }
            return report(path)
        }
    }

    private func show(_ download: Download, on line: LiveLine) async {
        var text = TransferLine(name: download.urls.first?.fileName ?? "", fileCount: download.urls.count)
        while !Task.isCancelled {
            line.show(text.text(for: download.progress.snapshot, width: LiveLine.columns))
            try? await Task.sleep(for: .milliseconds(100))
        }
    }
}

extension HostPort {
    /// An IP address to bind to, with or without a port.
    init?(bindAddress text: String) {
        let bare = HostPort(host: text, port: 0)
        guard let parsed = bare.isIPAddress ? bare : HostPort(text, defaultPort: 0), parsed.isIPAddress else {
            return nil
        }
        self = parsed
    }
}
