// SPDX-License-Identifier: Apache-2.0

/// Prints how congestion control uses links from 10 Mbit/s to 10 Gbit/s: `CongestionTable [--short] [--json] [--only TEXT]`.
///
/// Time is virtual: the figures do not depend on the machine, and the same seed gives the same figures but for what TLS
/// draws by itself.
@main
struct CongestionTable {
    static func main() async {
        let arguments = CommandLine.arguments.dropFirst()
        let isShort = arguments.contains("--short")
        let only = arguments.firstIndex(of: "--only").map { arguments.index(after: $0) }
            .flatMap { $0 < arguments.endIndex ? Double(arguments[$0]) : nil }
        var cells = Grid.cells(isShort: isShort)
        if let only { cells = cells.filter { $0.bandwidth == Int(only * 1e6) } }
        let report = await run(cells)
        print(arguments.contains("--json") ? report.json : report.markdown)
    }

    /// The dearest cells first, so that none is left to run alone at the end.
    private static func run(_ cells: [Cell]) async -> Report {
        let order = cells.indices.sorted { cells[$0].capacity > cells[$1].capacity }
        let measurements = await withTaskGroup(of: (Int, Measurement).self) { group in
            var waiting = order[...]
            var measurements = [Int: Measurement]()
            func startNext() {
                guard let index = waiting.popFirst() else { return }
                let cell = cells[index]
                group.addTask { (index, Run.measure(cell, seed: 1)) }
            }
            for _ in 0..<2 { startNext() }
            for await (index, measurement) in group {
                measurements[index] = measurement
                startNext()
            }
            return measurements
        }
        return Report(results: cells.indices.map { (cells[$0], measurements[$0] ?? Measurement()) })
    }
}
