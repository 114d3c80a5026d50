// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Path validation")
struct PathValidatorTests {
    private let start = Instant.zero + .seconds(1)

    @Test("challenges are repeated, each after twice the time of that before, until the timeout (M2)")
    func backoff() {
        var validator = PathValidator()
        validator.start(now: start, interval: .milliseconds(30), timeout: .seconds(1))
        var sent: [Int64] = []
        var now = start
        while now < validator.failsAt {
            #expect(validator.isChallengeDue(now: now))
            validator.challengeSent(UInt64(sent.count), now: now)
            sent.append((now - start).rawValue / 1_000_000)
            #expect(!validator.isChallengeDue(now: now))
            now = validator.nextChallengeAt
        }
        #expect(sent == [0, 30, 90, 210, 450, 930])
    }

    @Test("a response to any outstanding challenge counts, from its own sending time")
    func anyChallenge() {
        var validator = PathValidator()
        validator.start(now: start, interval: .milliseconds(10), timeout: .seconds(1))
        validator.challengeSent(11, now: start)
        validator.challengeSent(22, now: start + .milliseconds(10))
        #expect(validator.challenge(with: 11)?.sentAt == start)
        #expect(validator.challenge(with: 22)?.sentAt == start + .milliseconds(10))
        #expect(validator.challenge(with: 33) == nil)
    }

    @Test("only the newest challenges are remembered, and none after the validation ends")
    func bounded() {
        var validator = PathValidator()
        validator.start(now: start, interval: .milliseconds(1), timeout: .seconds(1))
        for data in 0..<20 as Range<UInt64> { validator.challengeSent(data, now: start) }
        #expect(validator.challenge(with: 11) == nil)
        #expect(validator.challenge(with: 12) != nil)
        validator.stop()
        #expect(validator.challenge(with: 19) == nil)
        #expect(validator.failsAt == .distantFuture)
    }
}

@Suite("Amplification")
struct AmplificationTests {
    @Test("three times what was received may be sent, and no byte more, until the address is proved (M15)")
    func budget() {
        var budget = AmplificationBudget(isLifted: false)
        #expect(budget.remaining == 0)
        budget.datagramReceived(100)
        #expect(budget.remaining == 300)
        budget.datagramSent(250)
        #expect(budget.remaining == 50)
        budget.datagramSent(60)
        #expect(budget.remaining == 0)
        budget.lift()
        #expect(budget.remaining == .max)
    }
}

@Suite("The table of paths")
struct PathTableTests {
    private func tuple(_ port: UInt16) -> FourTuple {
        FourTuple(
            transport: TransportID(0), local: NetworkAddress(127, 0, 0, 1, port: 4433),
            remote: NetworkAddress(127, 0, 0, 1, port: port))
    }

    private func table() -> PathTable {
        PathTable(
            initialTuple: tuple(1), amplification: AmplificationBudget(isLifted: true), congestionControl: .cubic,
            initialRTT: .milliseconds(333), maximumDatagramSize: 1_200, now: .zero)
    }

    private func add(_ port: UInt16, to table: inout PathTable, at now: Instant) -> Int {
        table.add(
            tuple(port), amplification: AmplificationBudget(isLifted: false), congestionControl: .cubic,
            maximumDatagramSize: 1_200, now: now)
    }

    @Test(
        "unproved paths are forgotten first, then the one used least recently; never the active or the fallback path (M40)"
    )
    func eviction() {
        var table = table()
        table.active.validated()
        for port in 2...5 as ClosedRange<UInt16> { _ = add(port, to: &table, at: .zero + .seconds(Int64(port))) }
        for index in 1...3 { table[index].validated() }
        #expect(table.indexToEvict() == 4)
        table.remove(at: 4)
        #expect(table.indexToEvict() == 1)
        table.activate(1)
        // The first path is now the one to fall back to.
        #expect(table.fallback == PathID(0))
        #expect(table.indexToEvict() == 2)
        table.remove(at: 0)
        #expect(table.fallback == nil)
        #expect(table.activeIndex == 0)
        #expect(table.active.tuple == tuple(2))
    }

    @Test("path IDs are never used again")
    func freshIDs() {
        var table = table()
        let first = table[add(2, to: &table, at: .zero)].id
        table.remove(at: 1)
        let second = table[add(2, to: &table, at: .zero)].id
        #expect(first != second)
        verify(table.hasExisted(first))
        verify(!table.hasExisted(PathID(9)))
    }
}
