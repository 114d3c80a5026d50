// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// The results as tables in Markdown, one for each bandwidth, or as JSON.
struct Report {
    /// Less than so much of what is expected is out of line.
    static let tolerance = 0.9

    var results: [(cell: Cell, measurement: Measurement)]

    var markdown: String {
        var text = ""
        for bandwidth in Grid.bandwidths {
            let rows = results.filter { $0.cell.bandwidth == bandwidth }
            guard !rows.isEmpty else { continue }
            text += "\n### \(Self.rate(bandwidth))\n\n"
            text +=
                "| RTT ms | loss % | queue BDP | s | use % from start | after slow start | model | response function | of both flows |"
            text +=
                " queue ms mean | model | p95 | overflow % from start | after slow start | fairness | model | note |\n"
            text += "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|\n"
            for row in rows { text += Self.row(row.cell, row.measurement) + "\n" }
        }
        return text
    }

    private static func row(_ cell: Cell, _ measurement: Measurement) -> String {
        let columns = [
            fixed(cell.roundTrip.inSeconds * 1e3, 0), fixed(cell.loss * 100, 1), fixed(cell.queue, 1),
            fixed(cell.span.inSeconds, 0),
            percent(measurement.useFromStart),
            measurement.slowStartEnd == nil ? "–" : percent(measurement.useAfterSlowStart),
            measurement.expectedUse.map(percent) ?? "–",
            cell.loss > 0 ? percent(Model.use(byResponseFunctionIn: cell)) : "–",
            percent(measurement.useByBoth), fixed(measurement.meanQueueingDelay.inSeconds * 1e3, 2),
            measurement.expectedQueueingDelay.map { fixed($0.inSeconds * 1e3, 2) } ?? "–",
            fixed(measurement.queueingDelay95.inSeconds * 1e3, 2), fixed(measurement.overflowFromStart * 100, 2),
            fixed(measurement.overflowAfterSlowStart * 100, 2), fixed(measurement.fairness, 2),
            measurement.expectedFairness.map { fixed($0, 2) } ?? "–",
            notes(cell, measurement).joined(separator: " "),
        ]
        return "| " + columns.joined(separator: " | ") + " |"
    }

    /// Letters for what is out of line; the document says why.
    static func notes(_ cell: Cell, _ measurement: Measurement) -> [String] {
        if let fault = measurement.fault { return ["FAULT: \(fault)"] }
        var notes = [String]()
        if measurement.slowStartEnd == nil { notes.append("s") }
        if let expected = measurement.expectedUse, measurement.useAfterSlowStart < tolerance * expected {
            notes.append(cell.queueLimit < 4 * Cell.wireSize ? "q" : "u")
        }
        if let expected = measurement.expectedQueueingDelay,
            cell.roundTrip + measurement.meanQueueingDelay
                > Nanoseconds(Int64(Double((cell.roundTrip + expected).rawValue) / tolerance))
        {
            notes.append("d")
        }
        if let expected = measurement.expectedFairness, measurement.fairness < tolerance * expected {
            notes.append("f")
        }
        return notes
    }

    var json: String {
        let rows = results.map { cell, measurement in
            let fields: [(String, String)] = [
                ("bandwidth", "\(cell.bandwidth)"), ("rttSeconds", "\(cell.roundTrip.inSeconds)"),
                ("loss", "\(cell.loss)"), ("queueProducts", "\(cell.queue)"),
                ("spanSeconds", "\(cell.span.inSeconds)"),
                ("useFromStart", "\(measurement.useFromStart)"),
                ("useAfterSlowStart", "\(measurement.useAfterSlowStart)"),
                ("expectedUse", measurement.expectedUse.map { "\($0)" } ?? "null"),
                ("useByBoth", "\(measurement.useByBoth)"),
                ("slowStartSeconds", measurement.slowStartEnd.map { "\($0.inSeconds)" } ?? "null"),
                ("meanQueueingSeconds", "\(measurement.meanQueueingDelay.inSeconds)"),
                (
                    "expectedQueueingSeconds",
                    measurement.expectedQueueingDelay.map { "\($0.inSeconds)" } ?? "null"
                ),
                ("p95QueueingSeconds", "\(measurement.queueingDelay95.inSeconds)"),
                ("overflowFromStart", "\(measurement.overflowFromStart)"),
                ("overflowAfterSlowStart", "\(measurement.overflowAfterSlowStart)"),
                ("lossFromStart", "\(measurement.lossFromStart)"), ("fairness", "\(measurement.fairness)"),
                ("expectedFairness", measurement.expectedFairness.map { "\($0)" } ?? "null"),
            ]
            return "  {" + fields.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
        }
        return "[\n" + rows.joined(separator: ",\n") + "\n]\n"
    }

    private static func rate(_ bandwidth: Int) -> String {
        bandwidth >= 1_000_000_000 ? "\(bandwidth / 1_000_000_000) Gbit/s" : "\(bandwidth / 1_000_000) Mbit/s"
    }

    private static func percent(_ value: Double) -> String { fixed(value * 100, 1) }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        let scale = [1.0, 10.0, 100.0][digits]
        let scaled = Int((value * scale).rounded())
        guard digits > 0 else { return "\(scaled)" }
        let fraction = String(abs(scaled) % Int(scale))
        return "\(scaled / Int(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
