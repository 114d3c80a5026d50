// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    private static let hadNoPath: @Sendable (SimulationReport) -> String? = {
        unless(
            $0.clientCloseReason == .noViablePath && $0.serverCloseReason == .noViablePath,
            "they ended so: \($0.clientCloseReason.map { "\($0)" } ?? "not"), \($0.serverCloseReason.map { "\($0)" } ?? "not")"
        )
    }

    /// Family 14: the last path dies, and comes back inside the limits or outside of them.
    static let lastPaths: [NamedScenario] = [
        NamedScenario(14, "an outage of 20 s with an idle timeout of 30 s: the transfer goes on soon after (M21)") {
            random in
            let length = random.time(in: .seconds(5)...(.seconds(20)))
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(600)))
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = moment + length + .seconds(25)
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                testbed.at(moment) { access.isUp = false }
                testbed.at(moment + length) { access.isUp = true }
            }
            return scenario
        } expecting: {
            // Probe timeouts double: the next may be as far as the outage was long.
            unless($0.largestGap < .seconds(45), "a gap of \($0.largestGap)")
        },
        NamedScenario(
            14,
            "an outage longer than the idle timeout: both sides hear that no path is viable, and nothing is left (M21)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(600)))
            var scenario = Scenario.severalNetworks(1)
            scenario.ending = .script
            scenario.client.maxIdleTimeout = .seconds(8)
            scenario.timeLimit = .seconds(30)
            scenario.expectedClientClose = { $0 == .noViablePath }
            scenario.script = { testbed in
                testbed.at(moment) { testbed.client.interfaces[0].isUp = false }
                testbed.at(moment + .seconds(20)) { testbed.client.interfaces[0].isUp = true }
            }
            return scenario
        } expecting: {
            hadNoPath($0)
        },
        NamedScenario(14, "the only socket is lost, another is opened 20 s later: the connection lives (M7, M21)") {
            random in
            let pause = random.time(in: .seconds(1)...(.seconds(20)))
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(.milliseconds(400)) { testbed.client.lose(testbed.client.interfaces[0]) }
                testbed.at(.milliseconds(400) + pause) {
                    testbed.moveAtOnce()
                    testbed.release()
                }
            }
            return scenario
        },
        NamedScenario(14, "the only socket is lost for good: both sides end in time (M21)") { _ in
            var scenario = Scenario.severalNetworks(1)
            scenario.ending = .script
            scenario.client.maxIdleTimeout = .seconds(10)
            scenario.plans = [StreamPlan(download: 2_000_000)]
            scenario.timeLimit = .seconds(40)
            scenario.expectedClientClose = { _ in true }
            scenario.script = { testbed in
                testbed.at(.milliseconds(400)) { testbed.client.lose(testbed.client.interfaces[0]) }
            }
            return scenario
        } expecting: {
            unless($0.totalDuration < .seconds(40), "it took \($0.totalDuration)")
        },
        NamedScenario(14, "a network that flaps every half a second for 20 s: the transfer completes (M21)") { random in
            let up = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            let down = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = .seconds(90)
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                func flap(_ left: Int) {
                    access.isUp = left % 2 == 0
                    guard left > 0 else { return }
                    testbed.after(left % 2 == 0 ? up : down) { flap(left - 1) }
                }
                testbed.at(.milliseconds(200)) { flap(60) }
            }
            return scenario
        },
        NamedScenario(14, "the server's network is away for 10 s (M21)") { random in
            let moment = random.time(in: .milliseconds(100)...(.milliseconds(600)))
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = .seconds(45)
            scenario.script = { testbed in
                testbed.at(moment) { testbed.server.interfaces[0].isUp = false }
                testbed.at(moment + .seconds(10)) { testbed.server.interfaces[0].isUp = true }
            }
            return scenario
        },
        NamedScenario(14, "no route for 10 s, and it is back: data flows within a second (M7)") { random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            var scenario = Scenario.severalNetworks(1)
            scenario.plans = [StreamPlan(download: 300_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                testbed.at(moment) {
                    access.sendError = 101
                    access.inbound.conditions.isUp = false
                }
                testbed.at(moment + .seconds(10)) {
                    access.sendError = nil
                    access.inbound.conditions.isUp = true
                }
            }
            return scenario
        } expecting: {
            unless($0.largestGap < .seconds(11), "a gap of \($0.largestGap)")
        },
        NamedScenario(14, "nothing comes in for 5 s while everything goes out (M22)") { random in
            let moment = random.time(in: .milliseconds(100)...(.milliseconds(600)))
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = .seconds(40)
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                testbed.at(moment) { access.inbound.conditions.isUp = false }
                testbed.at(moment + .seconds(5)) { access.inbound.conditions.isUp = true }
            }
            return scenario
        },
        NamedScenario(14, "the network comes back under another address, a few seconds later (M11, M21)") { random in
            let length = random.time(in: .seconds(1)...(.seconds(8)))
            var scenario = Scenario.behindNAT()
            scenario.timeLimit = .seconds(40)
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                testbed.at(.milliseconds(400)) { access.isUp = false }
                testbed.at(.milliseconds(400) + length) {
                    testbed.nat?.rebindAddress()
                    access.isUp = true
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        },
        NamedScenario(14, "two networks die one after the other, and the first comes back (M4, M21)") { random in
            let pause = random.time(in: .milliseconds(100)...(.seconds(4)))
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(45)
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    testbed.client.interfaces[0].isUp = false
                    testbed.moveAtOnce()
                }
                testbed.at(.milliseconds(500)) { testbed.client.interfaces[1].isUp = false }
                testbed.at(.milliseconds(500) + pause) {
                    testbed.client.interfaces[0].isUp = true
                    if case .failure(let error) = testbed.switchPath(to: PathID(0), withoutValidation: true) {
                        testbed.expect(false, "the switch was refused: \(error)")
                    }
                    testbed.release()
                }
            }
            return scenario
        },
    ]
}
