// SPDX-License-Identifier: Apache-2.0

import Foundation
import QUICProtocol
import TernSimulation
import Testing

/// Which seeds a scenario runs with: `TERN_SEEDS` says how many (10 unless set), `TERN_SEED` names a single one, and with
/// `TERN_TRACE` set that one is traced on the standard output.
enum Seeds {
    static let requestedCount = ProcessInfo.processInfo.environment["TERN_SEEDS"].flatMap { Int($0) }
    static let single = ProcessInfo.processInfo.environment["TERN_SEED"].flatMap { UInt64($0) }
    static let isTraced = ProcessInfo.processInfo.environment["TERN_TRACE"] != nil && single != nil

    static var trace: ((String) -> Void)? { isTraced ? { print($0) } : nil }

    /// Simulations only compute. On threads of their own they leave the tests with real sockets room to answer in time.
    private static let queue: OperationQueue = {
        let queue = OperationQueue()
        queue.maxConcurrentOperationCount = ProcessInfo.processInfo.activeProcessorCount
        queue.qualityOfService = .background
        return queue
    }()

    static func compute<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            queue.addOperation { continuation.resume(returning: body()) }
        }
    }

    static func list(atMost limit: Int) -> [UInt64] {
        if let single { return [single] }
        return Array(1...UInt64(max(1, requestedCount ?? min(limit, 10))))
    }
}

/// Runs `body` with every seed, side by side, and records an issue for each of which it returns a complaint. The issue
/// starts with the line that replays the seed.
///
/// - Parameters:
///   - limit: how many seeds to run when the environment does not say, at most 10.
///   - command: the line, if it is not this test with one seed.
func overSeeds(
    atMost limit: Int = 10, replaying command: ((UInt64) -> String)? = nil, function: String = #function,
    sourceLocation: SourceLocation = #_sourceLocation, _ body: @escaping @Sendable (UInt64) -> String?
) async {
    let failures = await withTaskGroup(of: (UInt64, String)?.self, returning: [(UInt64, String)].self) { group in
        for seed in Seeds.list(atMost: limit) {
            group.addTask { await Seeds.compute { body(seed) }.map { (seed, $0) } }
        }
        return await group.reduce(into: []) { list, failure in if let failure { list.append(failure) } }
    }
    let name = function.prefix { $0 != "(" }
    for (seed, complaint) in failures.sorted(by: { $0.0 < $1.0 }).prefix(5) {
        let replay =
            command?(seed) ?? "TERN_SEED=\(seed) TERN_TRACE=1 swift test --filter ScenarioTests.*/\(name)"
        Issue.record("\(replay)\n\(complaint)", sourceLocation: sourceLocation)
    }
    if failures.count > 5 {
        Issue.record("\(failures.count) seeds failed; the first five are shown", sourceLocation: sourceLocation)
    }
}

/// Runs the scenario made for each seed; it must be clean, and `verify` must find nothing to complain about.
func check(
    atMost limit: Int = 10, function: String = #function, sourceLocation: SourceLocation = #_sourceLocation,
    _ makeScenario: @escaping @Sendable (inout RandomSource) -> Scenario,
    expecting verify: @escaping @Sendable (SimulationReport) -> String? = { _ in nil }
) async {
    await overSeeds(atMost: limit, function: function, sourceLocation: sourceLocation) { seed in
        // Not the seed itself, or the scenario's choices and the network's would be the same numbers.
        var random = RandomSource.seeded(seed ^ 0x7465_726e_0000_0000)
        let report = makeScenario(&random).run(seed: seed, trace: Seeds.trace)
        guard report.isClean else { return "\(report)" }
        return verify(report).map { "\($0)\n\(report)" }
    }
}

extension RandomSource {
    mutating func number(in range: ClosedRange<Double>) -> Double {
        range.lowerBound + unit() * (range.upperBound - range.lowerBound)
    }
}

/// A complaint unless `condition` holds.
func unless(_ condition: Bool, _ complaint: @autoclosure () -> String) -> String? {
    condition ? nil : complaint()
}
