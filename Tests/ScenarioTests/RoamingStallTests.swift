// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization
import TernSimulation
import Testing

/// `TERN_SEEDS=1000 swift test --filter RoamingStallTests` prints the figures of `docs/migration.md`.
@Suite("How long a lost network stalls a download that has a warm standby (M36, M37)")
struct RoamingStallTests {
    /// A stall, and the probe timeout that it is measured by.
    fileprivate struct Stall {
        var time: Nanoseconds
        var probeTimeout: Nanoseconds

        var timeouts: Double { time.inSeconds / probeTimeout.inSeconds }
    }

    fileprivate final class Stalls: Sendable {
        private let list = Mutex<[Stall]>([])

        /// The shortest first, as compared with the probe timeout.
        var all: [Stall] { list.withLock { $0.sorted { $0.timeouts < $1.timeouts } } }

        func add(_ stall: Stall) { list.withLock { $0.append(stall) } }
    }

    enum Direction: String, CaseIterable, Sendable {
        case download, upload
    }

    /// Both networks alike. Measures from `take` to the next byte that came over the other network.
    private static func scenario(
        _ title: String, _ direction: Direction, roundTrip: Nanoseconds, _ random: inout RandomSource, stalls: Stalls,
        take: @escaping @Sendable (SimulatedRoamer) -> Void
    ) -> Scenario {
        let moment = random.time(in: .milliseconds(1_800)...(.milliseconds(2_600)))
        var roaming = RoamingScenario(title, &random)
        roaming.scenario.plans = [
            direction == .download ? StreamPlan(download: 3_000_000) : StreamPlan(upload: 3_000_000)
        ]
        roaming.scenario.access = LinkConditions(bandwidth: 4_000_000, queueLimit: 32 * 1_024)
        roaming.scenario.otherInterfaces = [roaming.scenario.access]
        roaming.scenario.setRoundTrip(roundTrip)
        roaming.scenario.ending = .script
        // What was on its way when the network went still arrives.
        let lag = direction == .download ? .microseconds(1) : roundTrip / 4 + .milliseconds(1)
        return roaming.script { testbed, roamer in
            func arrived() -> Int {
                direction == .download ? testbed.transfer.downloadedBytes : testbed.service.uploadedBytes
            }
            testbed.at(moment) {
                let probeTimeout = testbed.withClient { $0.probeTimeout } ?? .zero
                take(roamer)
                testbed.after(lag) {
                    let start = arrived()
                    func watch() {
                        guard arrived() == start else {
                            stalls.add(Stall(time: testbed.elapsed - moment, probeTimeout: probeTimeout))
                            return testbed.after(.seconds(1)) {
                                let moves = roamer.moves.count
                                testbed.expect(moves == 1, "moved \(moves) times:\n  \(roamer.log)")
                                testbed.close(testbed.client)
                            }
                        }
                        testbed.after(.microseconds(200)) { watch() }
                    }
                    watch()
                }
            }
        }
    }

    private static let roundTrips = [10, 50, 100].map { Nanoseconds.milliseconds($0) }

    @Test("reported by the system: one probe timeout at most (M36)", arguments: roundTrips, Direction.allCases)
    func reported(roundTrip: Nanoseconds, direction: Direction) async {
        let stalls = Stalls()
        await check { random in
            Self.scenario("reported loss", direction, roundTrip: roundTrip, &random, stalls: stalls) {
                $0.vanish("WiFi")
            }
        }
        stalls.expect("loss reported", direction, roundTrip, medianAtMost: 1, eachAtMost: 1)
    }

    @Test(
        "told by silence alone: four probe timeouts at most in the median (M35, M36)", arguments: roundTrips,
        Direction.allCases)
    func silent(roundTrip: Nanoseconds, direction: Direction) async {
        let stalls = Stalls()
        await check { random in
            Self.scenario("silent loss", direction, roundTrip: roundTrip, &random, stalls: stalls) {
                $0.fallSilent("WiFi")
            }
        }
        stalls.expect("loss told by silence", direction, roundTrip, medianAtMost: 4, eachAtMost: 4.2)
    }
}

extension RoamingStallTests.Stalls {
    /// Prints the figures and compares them with the limits, in probe timeouts. An upload goes on half a round trip later
    /// than a download: only the server's answer says what has to be sent again.
    fileprivate func expect(
        _ title: String, _ direction: RoamingStallTests.Direction, _ roundTrip: Nanoseconds,
        medianAtMost median: Double,
        eachAtMost limit: Double, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let allowance = direction == .upload ? 0.5 : 0
        let all = all
        guard let last = all.last else {
            Issue.record("nothing was measured", sourceLocation: sourceLocation)
            return
        }
        func text(_ stall: RoamingStallTests.Stall) -> String {
            let (time, timeouts) = (stall.time.inMilliseconds * 10, stall.timeouts * 100)
            return "\(time.rounded() / 10) ms = \(timeouts.rounded() / 100) PTO"
        }
        let middle = all[all.count / 2]
        let summary =
            "\(title), \(direction.rawValue), RTT \(Int(roundTrip.inMilliseconds)) ms, \(all.count) seeds: "
            + "median \(text(middle)), p90 \(text(all[(all.count - 1) * 9 / 10])), longest \(text(last))"
        print(summary)
        #expect(
            middle.timeouts <= median + allowance / 10 && last.timeouts <= limit + allowance, "\(summary)",
            sourceLocation: sourceLocation)
    }
}
