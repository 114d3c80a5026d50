// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// What the demo writes for people: a timeline of lasting lines, and below it one line that lives.
actor DemoConsole {
    private let style: TextStyle
    private let live: LiveLine
    private let isSilent: Bool
    private var liveText = ""

    /// - Parameter isSilent: writes nothing at all; somebody else prints JSON.
    init(color: Bool, isSilent: Bool) {
        self.style = TextStyle(allowed: color, isTerminal: StandardOutput.isTerminal)
        self.live = LiveLine.onStandardOutput(isEnabled: !isSilent)
        self.isSilent = isSilent
    }

    nonisolated var hasLiveLine: Bool { live.isEnabled }

    private func write(_ lines: [String]) {
        guard !isSilent else { return }
        live.clear()
        StandardOutput.write(lines.map { $0 + "\n" }.joined())
        if !liveText.isEmpty { live.show(liveText) }
    }

    func showLive(_ text: String) {
        liveText = text
        live.show(text)
    }

    func endLive() {
        liveText = ""
        live.clear()
    }

    func note(_ text: String) { write([style.dim(text)]) }

    func header(size: Int, network: DemoNetwork) {
        write([
            style.bold("One QUIC connection, six moves, \(Format.bytes(size)) without a break"),
            "",
            row("client", "WiFi \(DemoNetwork.wifiIP), cellular \(DemoNetwork.cellularIP)"),
            row(
                "NAT",
                "inside \(network.nat.address.text), outside \(DemoNetwork.wifiOutsideIPs.joined(separator: " and ")) "
                    + "(WiFi), \(DemoNetwork.cellularOutsideIPs.joined(separator: " and ")) (cellular)"
            ),
            row("server", "\(network.server.localAddress)"),
            "",
        ])
    }

    func connected(handshake: Duration, table: [DemoTableRow]) {
        write(
            [headline(.zero, style.bold("connected over WiFi"), "handshake in \(handshake.text)")]
                + self.table([("table", table)]) + [""]
        )
    }

    func move(_ move: DemoMove) {
        let followed = move.followed.map { "the server followed after \($0.text), " } ?? ""
        let worse = move.gapAround > .milliseconds(250)
        let gap = "\(move.gapAround.text)"
        write(
            [
                headline(move.start, style.bold(move.kind.title), "\(move.from) → \(move.to)")
            ] + (move.decision.map { [row("policy", "\($0)")] } ?? []) + [
                row(
                    "path",
                    "\(followed)validated in \(style.green(move.validation.text)) "
                        + "with \(move.challenges) challenge\(move.challenges == 1 ? "" : "s")"
                ),
                row(
                    "largest gap", "\(worse ? style.yellow(gap) : style.green(gap)), was \(move.gapBefore.text) before"),
                row(
                    "goodput",
                    "\(Format.rate(bytesPerSecond: move.goodputBefore)) before, "
                        + "\(Format.rate(bytesPerSecond: move.goodputAfter)) after"
                ),
            ] + table([("before", move.tableBefore), ("after", move.tableAfter)]) + [""]
        )
    }

    func end(_ outcome: DemoOutcome) {
        endLive()
        var lines: [String] = []
        if outcome.received > 0 {
            let rate = Double(outcome.received) / max(outcome.elapsed.inSeconds, 1e-9)
            lines.append(
                headline(
                    outcome.elapsed,
                    style.bold(outcome.received == outcome.size ? "transfer complete" : "transfer incomplete"),
                    "\(Format.bytes(outcome.received)), \(Format.rate(bytesPerSecond: rate))"
                )
            )
        }
        if let digest = outcome.sentDigest { lines.append(row("SHA-256", "sent      \(digest)")) }
        if let digest = outcome.receivedDigest {
            lines.append(row("", "received  \(outcome.isIdentical ? style.green(digest) : style.red(digest))"))
        }
        lines.append("")
        if outcome.isSuccess {
            lines.append(style.green("✓") + " every move happened and every byte arrived, over one connection")
        } else {
            lines.append(style.red("✗") + " " + (outcome.problem ?? "the files differ"))
        }
        write(lines)
    }

    // MARK: Layout

    private func headline(_ time: Duration, _ title: String, _ detail: String) -> String {
        "\(Format.right(Format.decimal(time.inSeconds, places: 2), 6)) s  \(style.cyan("●")) \(title)  \(detail)"
    }

    private func row(_ label: String, _ text: String) -> String {
        String(repeating: " ", count: 12) + style.dim(Format.left(label, 13)) + text
    }

    /// The server's connection table, aligned over all the parts shown together.
    private func table(_ parts: [(label: String, rows: [DemoTableRow])]) -> [String] {
        let cells = parts.flatMap { part in
            part.rows.enumerated().map { index, row in
                (
                    label: index == 0 ? part.label : "",
                    columns: [
                        row.connectionID, "\(row.clientAddress)", row.state,
                        row.isValidated ? "validated" : "not validated",
                        "\(row.pathsSeen) path\(row.pathsSeen == 1 ? "" : "s") seen",
                    ]
                )
            }
        }
        let widths = (0..<5).map { column in cells.map { $0.columns[column].count }.max() ?? 0 }
        return cells.map { cell in
            let last = cell.columns.count - 1
            let padded = cell.columns[..<last].enumerated().map { Format.left($1, widths[$0]) } + [cell.columns[last]]
            return row(cell.label, padded.joined(separator: "  "))
        }
    }
}
