// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@Suite("The article")
struct ArticleTests {
    @Test("the article's test is one that runs")
    func code() throws {
        let tests = URL(filePath: #filePath).deletingLastPathComponent()
        let article = try String(
            contentsOf: tests.appending(path: "../../Sources/TernTesting/TernTesting.docc/RebindingInMidCall.md"),
            encoding: .utf8)
        let source = try String(contentsOf: tests.appending(path: "SimulatedInternetTests.swift"), encoding: .utf8)
        let blocks = article.components(separatedBy: "```swift\n").dropFirst().compactMap {
            $0.components(separatedBy: "```").first
        }
        let shown = try #require(blocks.first { $0.contains("@Test") })
        let lines = shown.split(separator: "\n").map { "    \($0)" }.joined(separator: "\n")
        #expect(source.contains(lines))
    }
}
