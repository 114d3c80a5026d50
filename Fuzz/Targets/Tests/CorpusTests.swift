// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import QUICProtocol

/// Replays what the fuzzers found interesting, and what once crashed them. New inputs come from `Fuzz/run`.
@Suite("Fuzzers' corpora")
struct CorpusTests {
    private static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()

    private static func inputs(_ fuzzer: Fuzzer, in kind: String) -> [URL] {
        let folder = folder.appendingPathComponent(kind).appendingPathComponent(fuzzer.rawValue)
        let files = try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return (files ?? []).sorted { $0.path < $1.path }
    }

    @Test("every input of the corpora runs within its limits", arguments: Fuzzer.allCases)
    func corpus(fuzzer: Fuzzer) throws {
        let inputs = Self.inputs(fuzzer, in: "Corpus")
        #expect(inputs.count >= 10)
        try replay(inputs, fuzzer: fuzzer)
    }

    @Test("every input that once broke a rule keeps it now", arguments: Fuzzer.allCases)
    func fixed(fuzzer: Fuzzer) throws {
        try replay(Self.inputs(fuzzer, in: "Fixed"), fuzzer: fuzzer)
    }

    @Test(
        "the inputs that corpora start from, and every prefix of some, run within their limits",
        arguments: Fuzzer.allCases)
    func seeds(fuzzer: Fuzzer) throws {
        for (index, seed) in fuzzer.seeds.enumerated() {
            do {
                try fuzzer.run(seed)
                guard index % 16 == 0 else { continue }
                for length in 0..<seed.count { try fuzzer.run(Array(seed.prefix(length))) }
            } catch {
                Issue.record("\(fuzzer.rawValue) seed \(index): \(error)")
            }
        }
    }

    private func replay(_ inputs: [URL], fuzzer: Fuzzer) throws {
        let clock = ContinuousClock()
        for input in inputs {
            let bytes = [UInt8](try Data(contentsOf: input))
            let time = clock.measure {
                do {
                    try fuzzer.run(bytes)
                } catch {
                    Issue.record("\(input.path): \(error)")
                }
            }
            #expect(time < .seconds(30), "\(input.path) took \(time)")
        }
    }
}
