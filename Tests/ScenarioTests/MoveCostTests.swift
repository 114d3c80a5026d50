// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

/// What a move costs the receiver, as medians over seeds. `TERN_SEEDS=1000 swift test --filter MoveCostTests` prints the
/// figures of `docs/migration.md`.
@Suite("What a move costs the receiver")
struct MoveCostTests {
    static let roundTrips = [10, 50, 100, 300].map { Nanoseconds.milliseconds($0) }

    private enum Move {
        case none
        case rebinding(SimulatedNAT.Rebinding)
        /// To a path that was probed before.
        case makeBeforeBreak

        var name: String {
            switch self {
            case .none: "no move"
            case .rebinding(.port): "a new port"
            case .rebinding: "a new address"
            case .makeBeforeBreak: "a switch to a probed path"
            }
        }
    }

    /// A download over the link by which the public interop runner judges migration, and a move in the midst of it.
    private static func scenario(_ move: Move, roundTrip: Nanoseconds, seed: UInt64) -> Scenario {
        var random = RandomSource.seeded(seed ^ 0x6761_7073)
        var scenario = Scenario("the cost of \(move)")
        scenario.setRoundTrip(roundTrip)
        scenario.access.bandwidth = 10_000_000
        scenario.access.queueLimit = 25 * 1_500
        scenario.otherInterfaces = [scenario.access]
        scenario.nat = .init()
        scenario.plans = [StreamPlan(download: 1_500_000)]
        let moment = roundTrip * 4 + random.time(in: .milliseconds(100)...(.milliseconds(600)))
        scenario.script = { testbed in
            // The same in all cases, so that runs can be compared.
            testbed.whenConfirmed {
                guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                    return testbed.expect(false, "no path")
                }
                testbed.probe(path)
                testbed.at(moment) {
                    switch move {
                    case .none: break
                    case .rebinding(let kind): testbed.nat?.rebind(kind)
                    case .makeBeforeBreak:
                        let result = testbed.switchPath(to: path)
                        testbed.expect(result.failure == nil, "\(result)")
                    }
                }
            }
        }
        return scenario
    }

    /// The largest gaps over all seeds, in milliseconds, sorted.
    private static func gaps(_ move: Move, roundTrip: Nanoseconds) async -> [Double] {
        await withTaskGroup(of: Double?.self) { group in
            for seed in Seeds.list(atMost: 5) {
                group.addTask {
                    await Seeds.compute {
                        let report = scenario(move, roundTrip: roundTrip, seed: seed).run(seed: seed)
                        if !report.isClean { Issue.record("\(report)") }
                        return report.isClean ? report.largestGap.inSeconds * 1_000 : nil
                    }
                }
            }
            return await group.reduce(into: []) { if let gap = $1 { $0.append(gap) } }.sorted()
        }
    }

    private static func text(_ milliseconds: Double) -> String { "\((milliseconds * 10).rounded() / 10) ms" }

    /// Compares the medians with and without the move and prints them.
    private static func added(by move: Move, roundTrip: Nanoseconds) async -> Double {
        let undisturbed = await gaps(.none, roundTrip: roundTrip)
        let moved = await gaps(move, roundTrip: roundTrip)
        guard !undisturbed.isEmpty, !moved.isEmpty else { return .infinity }
        let (before, after) = (undisturbed[undisturbed.count / 2], moved[moved.count / 2])
        print(
            "largest gap at \(roundTrip.inMilliseconds) ms RTT, median over \(moved.count) seeds: \(text(before)) undisturbed, "
                + "\(text(after)) with \(move.name), \(text(after - before)) added; 90th percentile with it "
                + text(moved[moved.count * 9 / 10]))
        return after - before
    }

    @Test("a rebinding adds at most one round trip to the largest gap", arguments: roundTrips)
    func rebinding(roundTrip: Nanoseconds) async {
        for kind in [SimulatedNAT.Rebinding.port, .address] {
            let added = await Self.added(by: .rebinding(kind), roundTrip: roundTrip)
            #expect(added <= roundTrip.inSeconds * 1_000, "\(kind): \(added) ms added at \(roundTrip)")
        }
    }

    @Test("a make-before-break switch adds nothing to the largest gap", arguments: roundTrips)
    func makeBeforeBreak(roundTrip: Nanoseconds) async {
        let added = await Self.added(by: .makeBeforeBreak, roundTrip: roundTrip)
        // Four datagrams on this link take 5 ms; less than that is no gap.
        #expect(added <= 5, "\(added) ms added at \(roundTrip)")
    }

    /// What reaches the client's interface in a span of time, in bytes.
    private final class Throughput {
        var before = 0.0
        var after = 0.0
    }

    @Test(
        "falling back from an address that is never proved returns to 90 % of the throughput within two round trips (M13)"
    )
    func fallback() async {
        let attacker = NetworkAddress(198, 51, 100, 66, port: 50_066)
        let roundTrip = Nanoseconds.milliseconds(40)
        await check { random in
            var scenario = Scenario("falling back")
            scenario.setRoundTrip(roundTrip)
            scenario.access.bandwidth = 10_000_000
            scenario.plans = [StreamPlan(download: 6_000_000)]
            scenario.timeLimit = .seconds(60)
            let start = random.time(in: .milliseconds(800)...(.milliseconds(1_200)))
            scenario.script = { testbed in
                let throughput = Throughput()
                var isAttacked = false
                var isOver = false
                func measure(over span: Nanoseconds, _ body: @escaping (Double) -> Void) {
                    let link = testbed.client.interfaces[0].inbound
                    let bytes = link.counters.carriedBytes
                    testbed.after(span) { body(Double(link.counters.carriedBytes - bytes) / span.inSeconds) }
                }
                testbed.hold()
                testbed.at(start - roundTrip * 4) { measure(over: roundTrip * 4) { throughput.before = $0 } }
                testbed.at(start) { isAttacked = true }
                // Every packet of the client's is overtaken by a copy from another address, until the server has had enough.
                testbed.network.addTap { datagram in
                    guard isAttacked, datagram.destination == Testbed.serverAddress else { return .pass }
                    var copy = datagram
                    copy.source = attacker
                    testbed.network.inject(copy)
                    return .delay(.milliseconds(2))
                }
                testbed.onServerPathEvent { event, _ in
                    guard case .switched(_, _, .fallback) = event, !isOver else { return }
                    isAttacked = false
                    isOver = true
                    testbed.after(roundTrip * 2) {
                        measure(over: roundTrip * 4) {
                            throughput.after = $0
                            testbed.expect(
                                throughput.after >= throughput.before * 0.9,
                                "\(throughput.before) bytes a second became \(throughput.after)")
                            testbed.release()
                        }
                    }
                }
            }
            return scenario
        }
    }
}
