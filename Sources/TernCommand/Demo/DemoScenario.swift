// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Tern

/// Runs the demo: a transfer, and in the middle of it everything that may happen to an address.
actor DemoScenario {
    private let size: Int
    private let seconds: Double
    private let console: DemoConsole
    private let network: DemoNetwork
    private let server: DemoServer
    private let folder: String
    private let receipts = Receipts()
    private let clock = ContinuousClock()
    private var start = ContinuousClock.now
    private var outcome = DemoOutcome()
    /// The socket that the client uses now.
    private var uplink: DemoUplink
    private var path: Path?

    private static let fileName = "file.bin"
    /// What each step may take, beyond what the transfer itself needs.
    private static let patience = Duration.seconds(10)
    /// How long the transfer is watched before and after each move.
    private static let margin = Duration.seconds(1)

    /// - Parameter folder: an existing folder for the file that is sent and the one that is received.
    init(size: Int, seconds: Double, folder: String, network: DemoNetwork, console: DemoConsole) async throws {
        self.size = size
        self.seconds = seconds
        self.console = console
        self.network = network
        self.folder = folder
        self.uplink = try await DemoUplink.wifi(monitor: network.clientNetworks)
        self.server = DemoServer(
            listener: network.listener,
            folder: try ServedFolder(Self.sourceFolder(in: folder)),
            size: size,
            seconds: seconds
        )
        outcome.size = size
    }

    private static func sourceFolder(in folder: String) -> String { folder + "/served" }
    private var source: String { Self.sourceFolder(in: folder) + "/" + Self.fileName }
    private var destination: String { folder + "/received.bin" }

    /// Fills the file to be sent with random bytes.
    static func makeSource(in folder: String, size: Int) throws {
        try FileSystem.makeDirectory(sourceFolder(in: folder))
        let writer = try FileWriter(path: sourceFolder(in: folder) + "/" + fileName)
        var random = RandomSource.seeded(RandomSource.system.firstWord())
        var words = [UInt64](repeating: 0, count: 32_768)
        var rest = size
        while rest > 0 {
            for index in words.indices { words[index] = random.next() }
            try words.withUnsafeBytes { bytes in
                try writer.write(UnsafeRawBufferPointer(rebasing: bytes.prefix(rest)))
            }
            rest -= min(rest, words.count * 8)
        }
    }

    /// Removes what `makeSource` and the transfer left.
    static func removeFiles(in folder: String) {
        FileSystem.remove(sourceFolder(in: folder) + "/" + fileName)
        FileSystem.removeDirectory(sourceFolder(in: folder))
        FileSystem.remove(folder + "/received.bin")
        FileSystem.removeDirectory(folder)
    }

    func run() async -> DemoOutcome {
        do {
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await self.server.run() }
                // Ends the group: the server goes on for as long as it is let.
                group.addTask { try await self.runClient() }
                defer { group.cancelAll() }
                try await group.next()
            }
        } catch {
            note(error)
        }
        outcome.received = receipts.total
        await uplink.transport.close()
        do {
            outcome.sentDigest = try FileSystem.sha256(of: source)
            outcome.receivedDigest = try FileSystem.sha256(of: destination)
        } catch {
            note(error)
        }
        if outcome.problem == nil, !outcome.isIdentical { outcome.problem = "what was received is not what was sent" }
        return outcome
    }

    /// Keeps the first problem: those that follow are its consequences.
    private func note(_ error: any Error) {
        if outcome.problem == nil { outcome.problem = explain(error) ?? "\(error)" }
    }

    // MARK: The client

    private func runClient() async throws {
        let begin = clock.now
        let connection = try await attempting("cannot connect") {
            try await uplink.transport.connect(
                to: network.serverAddressForClient,
                tls: network.clientTLS,
                applicationProtocols: [HTTP09.applicationProtocol],
                configuration: ConnectionConfiguration()
            )
        }
        outcome.handshake = clock.now - begin
        path = connection.initialPath
        let table = try await tableOnceValidated { _ in true }
        await console.connected(handshake: outcome.handshake, table: table)

        start = clock.now
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await self.receive(over: connection) }
            group.addTask {
                // The transfer ends whatever becomes of the moves; the outcome tells.
                do { try await self.makeMoves(of: connection) } catch { await self.note(error) }
                self.server.allowToFinish()
            }
            let status = console.hasLiveLine ? Task { await self.showStatus() } : nil
            defer {
                status?.cancel()
                group.cancelAll()
            }
            try await group.waitForAll()
        }
        outcome.elapsed = clock.now - start
        await connection.close(errorCode: 0, reason: "")
    }

    private func receive(over connection: Connection) async throws {
        let stream = try await connection.openStream()
        try await stream.write(HTTP09.request(for: "/" + Self.fileName))
        try await stream.finish()
        let writer = try FileWriter(path: destination)
        for try await bytes in stream.bytes {
            receipts.add(bytes.readableBytes)
            try writer.write(bytes)
        }
    }

    private func showStatus() async {
        while !Task.isCancelled {
            let (now, received) = (clock.now, receipts.total)
            let fraction = Double(received) / Double(max(size, 1))
            let rate = receipts.goodput(from: max(start, now - Self.margin), to: now)
            let time = Format.right(Format.decimal((now - start).inSeconds, places: 1), 6)
            await console.showLive(
                "\(time) s  ▕\(progressBar(fraction, width: 24))▏"
                    + "\(Format.right(Format.decimal(fraction * 100, places: 0), 4)) %"
                    + "  \(Format.right(Format.rate(bytesPerSecond: rate), 10))  \(uplink.name)"
            )
            try? await Task.sleep(for: .milliseconds(100))
        }
        await console.endLive()
    }

    // MARK: The moves

    private func makeMoves(of connection: Connection) async throws {
        for kind in DemoMove.Kind.allCases {
            let due = start + max(.seconds(seconds * kind.moment), Self.margin)
            try await Task.sleep(until: due, tolerance: .zero)
            let move = try await attempting("“\(kind.title)” failed") { try await make(kind, of: connection) }
            outcome.moves.append(move)
            await console.move(move)
        }
    }

    /// How a new path was proved.
    private struct Validation {
        var time: Duration
        var challenges: Int
    }

    private func make(_ kind: DemoMove.Kind, of connection: Connection) async throws -> DemoMove {
        let before = await server.table()
        guard let old = before.first?.clientAddress else { throw CommandError("the server has no connection") }
        let begin = clock.now
        var report: Validation?
        var decision: PolicyDecision?
        let expected: (NetworkAddress) -> Bool
        switch kind {
        case .natPort, .natAddress:
            let moves = try await kind == .natPort ? network.nat.rebindPort() : network.nat.rebindAddress()
            let new = moves.map(\.new.text)
            expected = { new.contains("\($0)") }
        case .toCellular, .backToWiFi:
            report = try await changeUplink(
                to: kind == .toCellular
                    ? DemoUplink.cellular(on: connection.eventLoop) : DemoUplink.wifi(on: connection.eventLoop),
                of: connection
            )
            expected = { !$0.hasSameIP(as: old) }
        case .wifiDies, .wifiReturns:
            (decision, report) =
                try await kind == .wifiDies
                ? loseWiFi(of: connection) : returnWiFi(to: connection)
            expected = { !$0.hasSameIP(as: old) }
        }
        let after = try await tableOnceValidated(expected)
        let settled = clock.now
        let sightings = server.sightings(since: begin)
        guard let new = after.first?.clientAddress, let validation = report ?? Self.validation(in: sightings) else {
            throw CommandError("the server saw no path validated")
        }
        let followed = sightings.first { if case .peerMoved = $0.event { true } else { false } }
        try await Task.sleep(until: settled + Self.margin, tolerance: .zero)
        return DemoMove(
            kind: kind,
            decision: decision,
            start: begin - start,
            from: old,
            to: new,
            followed: followed.map { $0.time - begin },
            validation: validation.time,
            challenges: validation.challenges,
            gapBefore: receipts.largestGap(from: begin - Self.margin, to: begin, cutsLast: true),
            gapAround: receipts.largestGap(from: begin, to: settled + Self.margin),
            goodputBefore: receipts.goodput(from: begin - Self.margin, to: begin),
            goodputAfter: receipts.goodput(from: settled, to: settled + Self.margin),
            tableBefore: before,
            tableAfter: after
        )
    }

    /// Adds the new network's path, probes it, switches to it, and closes the old path and its socket.
    private func changeUplink(to next: DemoUplink, of connection: Connection) async throws -> Validation {
        do {
            let newPath = try await connection.addPath(over: next.transport)
            let report = try await newPath.probe(timeout: Self.patience)
            try await newPath.switch()
            let (oldUplink, oldPath) = (uplink, path)
            (uplink, path) = (next, newPath)
            try await oldPath?.close()
            await oldUplink.transport.close()
            return Validation(time: report.rtt, challenges: report.challenges)
        } catch {
            if next.transport !== uplink.transport { await next.transport.close() }
            throw error
        }
    }

    /// Both networks are up and the policy is automatic; then WiFi's socket is closed. No call moves the connection.
    private func loseWiFi(of connection: Connection) async throws -> (PolicyDecision, Validation?) {
        connection.migration = .automatic
        let standby = try await decision(of: connection) { if case .standby = $0 { true } else { false } }
        guard case .standby(_, let rtt) = standby else { throw CommandError("no standby") }
        network.clientNetworks.update([DemoNetwork.cellular])
        await uplink.transport.close()
        let move = try await decision(of: connection) {
            if case .move(_, DemoNetwork.cellular.id, _, _) = $0 { true } else { false }
        }
        return (move, Validation(time: rtt.duration, challenges: 1))
    }

    /// WiFi can be used again; the policy goes back to it when it has worked for a second.
    private func returnWiFi(to connection: Connection) async throws -> (PolicyDecision, Validation?) {
        let events = connection.pathEvents
        network.clientNetworks.update([DemoNetwork.wifi, DemoNetwork.cellular])
        let move = try await decision(of: connection) {
            if case .move(_, DemoNetwork.wifi.id, _, _) = $0 { true } else { false }
        }
        let active = connection.activePath.id
        for await event in events {
            if case .validated(active, let rtt, let challenges) = event {
                return (move, Validation(time: rtt.duration, challenges: challenges))
            }
        }
        return (move, nil)
    }

    /// The first decision that fits. Those made before are among them.
    private func decision(
        of connection: Connection, _ fits: @escaping @Sendable (PolicyDecision) -> Bool
    ) async throws -> PolicyDecision {
        try await withThrowingTaskGroup(of: PolicyDecision?.self) { group in
            group.addTask {
                for await decision in connection.policyDecisions where fits(decision) { return decision }
                return nil
            }
            group.addTask {
                try await Task.sleep(for: Self.patience)
                return nil
            }
            defer { group.cancelAll() }
            guard let decision = try await group.next() ?? nil else {
                throw CommandError("the policy did not move the connection within \(Self.patience.text)")
            }
            return decision
        }
    }

    /// The server's table as soon as it has the client at an expected address that is proved.
    private func tableOnceValidated(_ expected: (NetworkAddress) -> Bool) async throws -> [DemoTableRow] {
        let deadline = clock.now + Self.patience
        while clock.now < deadline {
            let table = await server.table()
            if let row = table.first, row.isValidated, expected(row.clientAddress) { return table }
            try await Task.sleep(for: .milliseconds(2))
        }
        throw CommandError("the server did not follow within \(Self.patience.text)")
    }

    /// The server's own proof of the path that its client moved to last.
    private static func validation(in sightings: [DemoServer.Sighting]) -> Validation? {
        for sighting in sightings.reversed() {
            if case .validated(_, let rtt, let challenges) = sighting.event {
                return Validation(time: rtt.duration, challenges: challenges)
            }
        }
        return nil
    }
}

extension RandomSource {
    /// One word of a source that is not kept.
    fileprivate func firstWord() -> UInt64 {
        var source = self
        return source.next()
    }
}
