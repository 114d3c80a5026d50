// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Dispatch
import Synchronization
import TernSimulation

struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Runs named scenarios over seeds.",
        discussion: "tern-simulate run \"flaps\" --seeds 1...1000 runs every scenario whose title has that word.")

    @Argument(help: "Part of a scenario's title, or the number of a family; all of them without.")
    var scenario: String?

    @Option(help: "The seeds, as 1...10.")
    var seeds = SeedRange(1..<11)

    @Option(help: "How many to run at once.")
    var jobs = 2

    @Flag(help: "Print each datagram and event of the first seed.")
    var trace = false

    func run() throws {
        let chosen = Catalogue.all.filter { named in
            guard let scenario else { return true }
            return named.title.contains(scenario) || Int(scenario) == named.family
        }
        guard !chosen.isEmpty, jobs > 0 else {
            throw ValidationError("no scenario has “\(scenario ?? "")” in its title")
        }
        if trace {
            let (report, complaint) = chosen[0].run(seed: seeds.seeds.lowerBound) { print($0) }
            print(complaint ?? "\(report)")
            if complaint != nil { throw ExitCode(1) }
            return
        }
        var failed = 0
        for named in chosen {
            let failures = Mutex<[(UInt64, String)]>([])
            let next = Mutex(seeds.seeds.lowerBound)
            DispatchQueue.concurrentPerform(iterations: jobs) { _ in
                while let seed = take(next) {
                    if let complaint = named.run(seed: seed).complaint {
                        failures.withLock { $0.append((seed, complaint)) }
                    }
                }
            }
            let list = failures.withLock { $0.sorted { $0.0 < $1.0 } }
            print("\(list.isEmpty ? "ok    " : "failed")  family \(named.family): \(named.title)")
            for (seed, complaint) in list.prefix(3) { print("\(complaint)\n\(named.replayCommand(seed: seed))") }
            if list.count > 3 { print("and \(list.count - 3) more seeds") }
            failed += list.isEmpty ? 0 : 1
        }
        print("\(chosen.count - failed) of \(chosen.count) scenarios passed with \(seeds.seeds.count) seeds each")
        if failed > 0 { throw ExitCode(1) }
    }

    private func take(_ next: borrowing Mutex<UInt64>) -> UInt64? {
        next.withLock { next in
            guard next < seeds.seeds.upperBound else { return nil }
            defer { next += 1 }
            return next
        }
    }
}

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists the named scenarios.")

    func run() {
        for named in Catalogue.all { print("family \(named.family): \(named.title)") }
    }
}
