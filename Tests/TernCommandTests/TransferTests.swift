// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TernCommand

@Suite("What is measured of transfers")
struct TransferTests {
    @Test("the largest gap is found wherever it lies, and one that lasts still counts")
    func gaps() {
        let receipts = Receipts()
        let start = ContinuousClock.now
        receipts.add(100, at: start + .milliseconds(10))
        receipts.add(100, at: start + .milliseconds(15))
        receipts.add(100, at: start + .milliseconds(115))
        receipts.add(100, at: start + .milliseconds(120))
        // It begins before the span and ends in it.
        #expect(
            receipts.largestGap(from: start + .milliseconds(100), to: start + .milliseconds(130)) == .milliseconds(100))
        // It begins in the span and ends after it.
        #expect(
            receipts.largestGap(from: start + .milliseconds(12), to: start + .milliseconds(20)) == .milliseconds(100))
        #expect(
            receipts.largestGap(from: start + .milliseconds(12), to: start + .milliseconds(20), cutsLast: true)
                == .milliseconds(5)
        )
        #expect(receipts.largestGap(from: start + .milliseconds(11), to: start + .milliseconds(14)) == .milliseconds(5))
        // Before the first byte, the span's beginning counts.
        #expect(receipts.largestGap(from: start, to: start + .milliseconds(11)) == .milliseconds(10))
        #expect(Receipts().largestGap(from: start - .seconds(5), to: start) >= .seconds(5))
    }

    @Test("goodput counts the bytes of its span")
    func goodput() {
        let receipts = Receipts()
        let start = ContinuousClock.now
        for index in 1...10 { receipts.add(1_000, at: start + .milliseconds(100 * index)) }
        #expect(receipts.goodput(from: start, to: start + .seconds(1)) == 10_000)
        #expect(receipts.goodput(from: start + .milliseconds(500), to: start + .seconds(1)) == 10_000)
        #expect(receipts.goodput(from: start + .seconds(2), to: start + .seconds(3)) == 0)
        #expect(receipts.goodput(from: start, to: start) == 0)
        #expect(receipts.total == 10_000)
    }

    @Test("whoever waits for a number of bytes goes on when they have come, and not before")
    func milestones() async {
        let progress = TransferProgress()
        progress.received(99)
        async let reached = progress.reached(bytes: 100)
        let cancelled = Task { await progress.reached(bytes: 1_000) }
        progress.received(1)
        #expect(await reached)
        #expect(await progress.reached(bytes: 50))
        cancelled.cancel()
        #expect(await cancelled.value == false)
    }

    @Test("a pacer keeps its rate")
    func pacing() async throws {
        let pacer = Pacer(bytesPerSecond: 1_000_000)
        let start = ContinuousClock.now
        for _ in 0..<20 { try await pacer.wait(for: 5_000) }
        // The twentieth chunk is due 95 ms after the first; a late machine only makes it later.
        #expect(ContinuousClock.now - start >= .milliseconds(90))
        #expect(pacer.chunkSize == 5_000)
    }
}
