// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `tern-simulate`: bad days in virtual time, as many as wanted.
@main
struct SimulateTool: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tern-simulate",
        abstract: "Runs Tern in a simulated network: random explorations and named scenarios, from seeds.",
        subcommands: [RunCommand.self, ListCommand.self, ExploreCommand.self, ReplayCommand.self])
}

/// A range of seeds as arguments spell it: `0..<20000`, `5`, `3...9`.
struct SeedRange: ExpressibleByArgument {
    var seeds: Range<UInt64>

    init?(argument: String) {
        func bounds(_ separator: String) -> (UInt64, UInt64)? {
            guard let place = argument.firstRange(of: separator) else { return nil }
            guard let lower = UInt64(argument[..<place.lowerBound]), let upper = UInt64(argument[place.upperBound...]),
                lower <= upper, upper < .max
            else { return nil }
            return (lower, upper)
        }
        if let (lower, upper) = bounds("..<") {
            seeds = lower..<upper
        } else if let (lower, upper) = bounds("...") {
            seeds = lower..<upper + 1
        } else if let seed = UInt64(argument), seed < .max {
            seeds = seed..<seed + 1
        } else {
            return nil
        }
    }

    init(_ seeds: Range<UInt64>) { self.seeds = seeds }
}
