// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Dispatch
import Foundation
import Synchronization
import TernSimulation

struct ExploreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explore",
        abstract: "Runs random topologies, workloads and faults, one a seed, checked by the invariants alone.",
        discussion: "A seed that fails is run again with fewer faults, and the command that replays it is printed.")

    @Option(help: "The seeds, as 0...19999, or as 0..<20000 in quotes.")
    var seeds = SeedRange(0..<1_000)

    @Option(help: "How many to run at once.")
    var jobs = 2

    @Option(help: "Stop after so many seconds, whatever is left.")
    var seconds: Double?

    @Option(help: "Stop after so many seeds that failed.")
    var failures = 10

    private struct Progress {
        var next: UInt64
        var done = 0
        var virtualSeconds = 0.0
        var bytes = 0
        var moves = 0
        var failed: [(seed: UInt64, text: String)] = []
    }

    func run() throws {
        guard jobs > 0 else { throw ValidationError("--jobs must be at least 1") }
        let start = Date()
        let progress = Mutex(Progress(next: seeds.seeds.lowerBound))
        let memory = ProcessMemory.resident
        DispatchQueue.concurrentPerform(iterations: jobs) { _ in
            while let seed = takeSeed(progress, start) { explore(seed, progress) }
        }
        let result = progress.withLock { $0 }
        let taken = Date().timeIntervalSince(start)
        print(
            """
            \(result.done) seeds in \(taken.rounded(toPlaces: 1)) s on \(jobs) threads, \
            \((Double(result.done) / max(taken, 0.001)).rounded(toPlaces: 1)) a second; \
            \(Int(result.virtualSeconds)) s of virtual time, \(result.bytes / 1_000_000) MB, \(result.moves) moves; \
            memory \(memory / 1_048_576) MB before, \(ProcessMemory.resident / 1_048_576) MB after
            """)
        guard result.failed.isEmpty else {
            print(
                "\(result.failed.count) seeds failed: \(result.failed.map { String($0.seed) }.sorted().joined(separator: ", "))"
            )
            throw ExitCode(1)
        }
    }

    private func takeSeed(_ progress: borrowing Mutex<Progress>, _ start: Date) -> UInt64? {
        progress.withLock { progress in
            guard progress.next < seeds.seeds.upperBound, progress.failed.count < failures,
                seconds.map({ Date().timeIntervalSince(start) < $0 }) ?? true
            else { return nil }
            defer { progress.next += 1 }
            return progress.next
        }
    }

    private func explore(_ seed: UInt64, _ progress: borrowing Mutex<Progress>) {
        let exploration = Exploration(seed: seed)
        let report = exploration.run()
        if !report.isClean {
            let shrunk = exploration.shrunk()
            let text =
                "\(report)\n"
                + (shrunk.map { "fails with no more than this:\n\($0)\ntern-simulate \($0.replayArguments) --trace" }
                    ?? "does not fail again\ntern-simulate \(exploration.replayArguments) --trace")
            print(text + "\n")
            progress.withLock { $0.failed.append((seed, text)) }
        }
        progress.withLock { progress in
            progress.done += 1
            progress.virtualSeconds += report.totalDuration.inSeconds
            progress.bytes += report.downloadedBytes + report.uploadedBytes
            progress.moves += report.peerMoves
            if progress.done % 1_000 == 0 {
                FileHandle.standardError.write(Data("\(progress.done) seeds, \(progress.failed.count) failed\n".utf8))
            }
        }
    }
}

struct ReplayCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replay", abstract: "Runs one random exploration again, all of it or with some of its faults.")

    @Option(help: "The seed.")
    var seed: UInt64

    @Option(help: "The faults to keep, by their numbers, as 0,3,4; or none.")
    var keep: String?

    @Flag(help: "Without loss, jitter and the like on the links, but for that of faults.")
    var calm = false

    @Flag(help: "Print each datagram and event.")
    var trace = false

    @Flag(help: "Look for the fewest faults that make it fail.")
    var shrink = false

    func run() throws {
        var exploration = Exploration(seed: seed)
        if keep != nil || calm {
            let kept = keep.map { $0.split(separator: ",").compactMap { Int($0) } } ?? exploration.keptFaults
            exploration = exploration.keeping(kept, calmLinks: calm)
        }
        if shrink, let shrunk = exploration.shrunk() { exploration = shrunk }
        print(exploration)
        let report = exploration.run(trace: trace ? { print($0) } : nil)
        print(report)
        if !report.isClean { throw ExitCode(1) }
    }
}

extension Double {
    func rounded(toPlaces places: Int) -> Double {
        let factor = pow(10, Double(places))
        return (self * factor).rounded() / factor
    }
}

enum ProcessMemory {
    /// Bytes of this process in memory; 0 where that cannot be told.
    static var resident: Int {
        guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return 0 }
        let fields = text.split(separator: " ")
        return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4_096 : 0
    }
}
