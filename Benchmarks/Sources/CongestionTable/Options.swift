// SPDX-License-Identifier: Apache-2.0

/// What the command was asked for.
struct Options {
    static let usage = """
        CongestionTable [--rates MBIT,…] [--rtts MS,…] [--losses PERCENT,…] [--queues BDP,…] [--seconds S] [--seed N]
                        [--jobs N] [--short] [--json] [--trace MS]

        Prints how congestion control uses links. A list stands in for that of the grid; --seconds sets how long a flow runs
        alone, and both then, instead of what the cell needs. --short is a few cells of each kind, in less than a minute.
        --trace prints what the flows do every so many milliseconds, as CSV, instead of the table.
        """

    var rates: [Double]?
    var roundTrips: [Double]?
    var losses: [Double]?
    var queues: [Double]?
    var seconds: Double?
    var seed: UInt64 = 1
    var jobs = 2
    var isShort = false
    var isJSON = false
    /// Milliseconds from one line of the trace to the next.
    var traceInterval: Double?

    struct Misuse: Error {
        var argument: String
    }

    init(_ arguments: some Collection<String>) throws(Misuse) {
        var rest = Array(arguments)[...]
        while let argument = rest.popFirst() {
            func numbers(in range: ClosedRange<Double>) throws(Misuse) -> [Double] {
                let numbers = (rest.popFirst() ?? "").split(separator: ",").map { Double($0) ?? .nan }
                guard !numbers.isEmpty, numbers.allSatisfy({ range.contains($0) }) else {
                    throw Misuse(argument: argument)
                }
                return numbers
            }
            switch argument {
            case "--rates": rates = try numbers(in: 0.1...100_000)
            case "--rtts": roundTrips = try numbers(in: 0.1...10_000)
            case "--losses": losses = try numbers(in: 0...50)
            case "--queues": queues = try numbers(in: 0...100)
            case "--seconds": seconds = try numbers(in: 0.1...100_000)[0]
            case "--seed": seed = UInt64(try numbers(in: 0...1e9)[0])
            case "--jobs": jobs = Int(try numbers(in: 1...1_000)[0])
            case "--trace": traceInterval = try numbers(in: 0.001...1e6)[0]
            case "--short": isShort = true
            case "--json": isJSON = true
            default: throw Misuse(argument: argument)
            }
        }
    }
}
