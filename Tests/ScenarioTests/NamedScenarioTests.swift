// SPDX-License-Identifier: Apache-2.0

import TernSimulation
import Testing

@testable import TernSimulate

@Suite("Bad days with names")
struct NamedScenarioTests {
    @Test("goes as its name says", arguments: Catalogue.all)
    func named(_ scenario: NamedScenario) async {
        await overSeeds(replaying: scenario.replayCommand) { seed in scenario.run(seed: seed).complaint }
    }

    @Test("each has a name of its own, and all families from 1 to 14 but those with suites of their own are there")
    func names() {
        #expect(Set(Catalogue.all.map(\.title)).count == Catalogue.all.count)
        #expect(Set(Catalogue.all.map(\.family)) == [1, 2, 5, 6, 7, 8, 9, 10, 13, 14])
        #expect(Catalogue.all.count >= 60)
    }
}

extension NamedScenario: CustomTestStringConvertible {
    public var testDescription: String { "family \(family): \(title)" }
}

@Suite("Random exploration")
struct ExplorationTests {
    @Test("random networks, transfers and faults break no rule, and every transfer completes")
    func explore() async {
        let command = { (seed: UInt64) in "swift run -c release tern-simulate explore --seeds \(seed)0...\(seed)9" }
        await overSeeds(atMost: 4, replaying: command) { seed in
            // Ten explorations a seed: they are small.
            for number in UInt64(0)..<10 {
                let report = Exploration(seed: seed * 10 + number).run()
                if !report.isClean { return "exploration \(seed * 10 + number): \(report)" }
            }
            return nil
        }
    }

    @Test(
        "seeds that once broke a rule do so no more",
        arguments: [
            5120, 6687, 7601, 8412, 12707, 14715, 20965, 25191, 26189, 26276, 29264, 30646, 35037, 37792, 38098,
            56781,
        ] as [UInt64])
    func onceFailed(seed: UInt64) {
        let report = Exploration(seed: seed).run()
        #expect(report.isClean, "\(report)")
    }

    @Test("an exploration is the same each time it is made from its seed, and loses just the faults it is told to lose")
    func isRepeatable() {
        for seed in UInt64(0)..<50 {
            let (first, second) = (Exploration(seed: seed), Exploration(seed: seed))
            #expect(first.faults == second.faults && first.description == second.description)
            let odd = first.keptFaults.filter { $0 % 2 == 1 }
            #expect(first.keeping(odd).faults == odd.map { first.faults[$0] })
        }
    }
}
