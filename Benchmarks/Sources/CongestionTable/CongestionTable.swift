// SPDX-License-Identifier: Apache-2.0

/// Prints how congestion control uses links from 10 Mbit/s to 10 Gbit/s (`Options.usage`).
///
/// Time is virtual: the figures do not depend on the machine, and the same seed gives the same figures but for what TLS
/// draws by itself.
@main
struct CongestionTable {
    static func main() async {
        if CommandLine.arguments.contains("--help") { return print(Options.usage) }
        do throws(Options.Misuse) {
            let options = try Options(Array(CommandLine.arguments.dropFirst()))
            let cells = Grid.cells(for: options)
            if options.traceInterval != nil {
                for cell in cells { Run.printTrace(of: cell, options) }
                return
            }
            let report = await run(cells, options)
            print(options.isJSON ? report.json : report.markdown)
        } catch {
            print("\(error.argument)?\n\(Options.usage)")
        }
    }

    /// The dearest cells first, so that none is left to run alone at the end.
    private static func run(_ cells: [Cell], _ options: Options) async -> Report {
        let order = cells.indices.sorted { cells[$0].cost > cells[$1].cost }
        let measurements = await withTaskGroup(of: (Int, Measurement).self) { group in
            var waiting = order[...]
            var measurements = [Int: Measurement]()
            func startNext() {
                guard let index = waiting.popFirst() else { return }
                let cell = cells[index]
                group.addTask { (index, Run.measure(cell, seed: options.seed)) }
            }
            for _ in 0..<options.jobs { startNext() }
            for await (index, measurement) in group {
                measurements[index] = measurement
                startNext()
            }
            return measurements
        }
        return Report(results: cells.indices.map { (cells[$0], measurements[$0] ?? Measurement()) })
    }
}
