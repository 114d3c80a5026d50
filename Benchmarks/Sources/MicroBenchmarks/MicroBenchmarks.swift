// SPDX-License-Identifier: Apache-2.0

import CAllocationCounter

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What the engine's single operations cost, room by room: the time of the thread and the allocations of each.
///
///     swift run -c release -Xswiftc -enable-testing MicroBenchmarks [--short] [--json]
///
/// Exits with 1 if an operation allocates that is carried out for every packet. The operations are called from another
/// module than the engine's own, so the smallest of them cost a call more here than in the engine.
@main
enum MicroBenchmarks {
    static func main() throws {
        let arguments = CommandLine.arguments.dropFirst()
        if let unknown = arguments.first(where: { $0 != "--short" && $0 != "--json" }) {
            complain("MicroBenchmarks: unknown argument \(unknown); there are --short and --json")
            exit(2)
        }
        var harness = Harness(isShort: arguments.contains("--short"))
        try harness.measureWire()
        try harness.measureProtection()
        try harness.measureRecovery()
        try harness.measureStreams()
        harness.measurePaths()
        try harness.measureEndpoint()

        let countsAllocations = allocation_counting_works() == 1
        let culprits = harness.costs.filter(\.breaksRule)
        if arguments.contains("--json") {
            printJSON(harness, countsAllocations: countsAllocations)
        } else {
            printTable(harness, countsAllocations: countsAllocations)
        }
        for cost in culprits { complain("allocates, and must not: \(cost.room), \(cost.name)") }
        if !culprits.isEmpty { exit(1) }
    }

    // MARK: Reports

    /// To the standard error, so that the standard output stays valid JSON.
    private static func complain(_ text: String) {
        let bytes = Array((text + "\n").utf8)
        _ = bytes.withUnsafeBytes { write(2, $0.baseAddress, $0.count) }
    }

    private static func printTable(_ harness: Harness, countsAllocations: Bool) {
        let width = harness.costs.map(\.name.count).max() ?? 0
        var room = ""
        print(line("", "ns", "allocations", width: width))
        for cost in harness.costs {
            if cost.room != room {
                room = cost.room
                print("\n\(room)")
            }
            print(
                line(
                    cost.name, fixed(cost.nanoseconds, cost.nanoseconds < 100 ? 1 : 0),
                    countsAllocations ? fixed(cost.allocations, cost.allocations == 0 ? 0 : 3) : "-", width: width))
        }
        print("\nmedians of \(Harness.runs) runs; check \(String(harness.checksum, radix: 16))")
        if !countsAllocations { print("allocations are not counted on this system") }
    }

    private static func line(_ name: String, _ nanoseconds: String, _ allocations: String, width: Int) -> String {
        "  " + name + spaces(width - name.count) + right(nanoseconds, 10) + right(allocations, 13)
    }

    private static func right(_ text: String, _ width: Int) -> String { spaces(width - text.count) + text }

    private static func spaces(_ count: Int) -> String { String(repeating: " ", count: max(count, 0)) }

    private static func printJSON(_ harness: Harness, countsAllocations: Bool) {
        print("{\n  \"runs\": \(Harness.runs),\n  \"short\": \(harness.isShort),")
        print("  \"checksum\": \"\(String(harness.checksum, radix: 16))\",\n  \"operations\": [")
        for (index, cost) in harness.costs.enumerated() {
            let allocations = countsAllocations ? fixed(cost.allocations, 4) : "null"
            print(
                "    {\"room\": \"\(cost.room)\", \"name\": \"\(cost.name)\", \"ns\": \(fixed(cost.nanoseconds, 2)), "
                    + "\"least_ns\": \(fixed(cost.leastNanoseconds, 2)), \"allocations\": \(allocations), \"steady\": \(cost.isSteady)}"
                    + (index < harness.costs.count - 1 ? "," : ""))
        }
        print("  ]\n}")
    }

    private static func fixed(_ value: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let rounded = UInt64(value * scale + 0.5)
        guard digits > 0 else { return "\(rounded)" }
        let fraction = String(rounded % UInt64(scale))
        return "\(rounded / UInt64(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
