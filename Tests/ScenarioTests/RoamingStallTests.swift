// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization
import TernSimulation
import Testing

@Suite("How long a lost network stalls a download that has a warm standby (M36, M37)")
struct RoamingStallTests {
    /// A stall, and the probe timeout and round trip it is measured by.
    fileprivate struct Stall {
        var time: Nanoseconds
        var probeTimeout: Nanoseconds
        var roundTrip: Nanoseconds
    }

    fileprivate final class Stalls: Sendable {
        private let list = Mutex<[Stall]>([])

        var all: [Stall] { list.withLock { $0 } }

        func add(_ stall: Stall) { list.withLock { $0.append(stall) } }

        /// A line with the medians.
        func summary(_ title: String) -> String {
            list.withLock { list in
                func median(_ values: [Double]) -> Double { values.isEmpty ? 0 : values.sorted()[values.count / 2] }
                func text(_ value: Double) -> Double { (value * 100).rounded() / 100 }
                let milliseconds = median(list.map(\.time.inMilliseconds))
                let timeouts = median(list.map { $0.time.inSeconds / $0.probeTimeout.inSeconds })
                let worst = list.map { $0.time.inSeconds / $0.probeTimeout.inSeconds }.max() ?? 0
                return "\(title), \(list.count) seeds: median stall \(text(milliseconds)) ms = \(text(timeouts)) PTO, "
                    + "largest \(text(worst)) PTO"
            }
        }
    }

    /// Both networks alike, 10 to 300 ms apart from the server. Measures from `take` to the next byte that came over the
    /// other network.
    private static func scenario(
        _ title: String, _ random: inout RandomSource, stalls: Stalls,
        take: @escaping @Sendable (SimulatedRoamer) -> Void
    ) -> Scenario {
        let moment = random.time(in: .milliseconds(1_800)...(.milliseconds(2_600)))
        let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(300)))
        var roaming = RoamingScenario(title, &random, download: 3_000_000)
        roaming.scenario.access = LinkConditions(bandwidth: 4_000_000, queueLimit: 32 * 1_024)
        roaming.scenario.otherInterfaces = [roaming.scenario.access]
        roaming.scenario.setRoundTrip(roundTrip)
        return roaming.script { testbed, roamer in
            testbed.at(moment) {
                let probeTimeout = testbed.withClient { $0.probeTimeout } ?? .zero
                take(roamer)
                // What was on its way when the network went may still be read at this instant.
                testbed.after(.microseconds(1)) {
                    let start = testbed.transfer.downloadedBytes
                    func watch() {
                        guard testbed.transfer.downloadedBytes == start else {
                            return stalls.add(
                                Stall(
                                    time: testbed.now - Scheduler.start - moment, probeTimeout: probeTimeout,
                                    roundTrip: roundTrip))
                        }
                        testbed.after(.microseconds(200)) { watch() }
                    }
                    watch()
                }
            }
            testbed.hold()
            testbed.at(moment + .seconds(8)) {
                testbed.expect(roamer.moves.count == 1, "moved \(roamer.moves.count) times:\n  \(roamer.log)")
                testbed.release()
            }
        }
    }

    @Test("reported by the system: one probe timeout at most (M36)")
    func reported() async {
        let stalls = Stalls()
        await check { random in
            Self.scenario("reported loss", &random, stalls: stalls) { $0.vanish("WiFi") }
        }
        print(stalls.summary("loss reported"))
        stalls.expectAll { $0.time <= $0.probeTimeout + .milliseconds(1) }
    }

    @Test("told by silence alone: four probe timeouts at most, and the answers of the probe and of the move (M35, M36)")
    func silent() async {
        let stalls = Stalls()
        await check { random in
            Self.scenario("silent loss", &random, stalls: stalls) { $0.fallSilent("WiFi") }
        }
        print(stalls.summary("loss told by silence"))
        stalls.expectAll { $0.time <= $0.probeTimeout * 4 + $0.roundTrip * 2 + .milliseconds(10) }
    }
}

extension RoamingStallTests.Stalls {
    fileprivate func expectAll(
        _ condition: (RoamingStallTests.Stall) -> Bool, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let outliers = all.filter { !condition($0) }
        #expect(!all.isEmpty && outliers.isEmpty, "\(outliers)", sourceLocation: sourceLocation)
    }
}
