// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("Priorities of paths decide where a connection goes when a socket is lost (M7, M36)")
struct PriorityTests {
    private static func networks(_ count: Int, _ title: String, _ random: inout RandomSource) -> Scenario {
        var scenario = Scenario(title)
        scenario.access.bandwidth = 3_000_000
        scenario.otherInterfaces = Array(repeating: scenario.access, count: count - 1)
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(60))))
        scenario.plans = [StreamPlan(download: 900_000, upload: 100_000)]
        return scenario
    }

    @Test("one socket after the other is lost: on at once by priority, then the application's turn (M7)")
    func inOrder() async {
        await check { random in
            let moment = random.time(in: .milliseconds(400)...(.milliseconds(900)))
            let pause = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            var scenario = Self.networks(4, "sockets are lost", &random)
            scenario.script = { testbed in
                var paths: [PathID] = []
                testbed.hold()
                testbed.whenConfirmed {
                    for (number, priority) in [PathPriority.backup, .preferred, nil].enumerated() {
                        guard let path = testbed.addPath(over: testbed.client.interfaces[number + 1]).value else {
                            return testbed.expect(false, "addPath failed")
                        }
                        paths.append(path)
                        testbed.probe(path)
                        let result = testbed.setPriority(priority, of: path)
                        testbed.expect(result.failure == nil, "refused: \(result)")
                    }
                }
                func lose(_ number: Int, expecting index: Int) {
                    testbed.client.lose(testbed.client.interfaces[number])
                    testbed.expect(
                        testbed.clientPath?.id == paths[index],
                        "after the loss of \(number) on \(String(describing: testbed.clientPath?.id))")
                }
                testbed.at(moment) { lose(0, expecting: 1) }
                testbed.at(moment + pause) { lose(2, expecting: 0) }
                // None with a priority is left.
                testbed.at(moment + pause * 2) { lose(1, expecting: 0) }
                testbed.at(moment + pause * 2 + .milliseconds(100)) {
                    testbed.expect(testbed.clientPath?.id == paths[0], "a path without a priority was chosen")
                    let result = testbed.switchPath(to: paths[2])
                    testbed.expect(result.failure == nil, "switch refused: \(result)")
                    testbed.release()
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 3, "\($0.switches) switches")
                ?? unless($0.largestGap < .milliseconds(900), "a gap of \($0.largestGap)")
        }
    }

    @Test("the socket is lost before the path with a priority is validated: the data goes there when it is")
    func validatedLater() async {
        await check { random in
            let moment = random.time(in: .milliseconds(300)...(.milliseconds(600)))
            let ahead = random.time(in: .microseconds(100)...(.milliseconds(4)))
            var scenario = Self.networks(2, "validated later", &random)
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(moment) {
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "addPath failed")
                    }
                    testbed.setPriority(.backup, of: path)
                    testbed.probe(path)
                    testbed.onClientPathEvent { event in
                        guard case .switched(let from, let to, let reason) = event else { return }
                        testbed.expect(
                            from == PathID(0) && to == path && reason == .fallback, "switched to \(to): \(reason)")
                        testbed.release()
                    }
                    testbed.after(ahead) { testbed.client.lose(testbed.client.interfaces[0]) }
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 1, "\($0.switches) switches")
        }
    }

    @Test("the application prefers the standby's path: the policy moves there, and stays (M36)")
    func policyFollowsPriority() async {
        await check { random in
            let roaming = RoamingScenario("cellular preferred", &random)
            return roaming.script { testbed, roamer in
                testbed.at(.milliseconds(800)) {
                    guard let standby = testbed.otherPath else { return testbed.expect(false, "no standby") }
                    let result = testbed.setPriority(.preferred, of: standby)
                    testbed.expect(result.failure == nil, "refused: \(result)")
                }
                roamer.expect(
                    [.move(from: "WiFi", to: "cellular", validated: true, .preferredNetwork("cellular"))],
                    at: .seconds(4), in: testbed)
            }
        } expecting: {
            unless($0.largestGap < .milliseconds(300), "a gap of \($0.largestGap)")
        }
    }

    @Test(
        "the standby has a priority and WiFi's socket dies: one move with its reason, and WiFi is opened anew (M36, M38)"
    )
    func policyAdopts() async {
        await check { random in
            let moment = random.time(in: .milliseconds(900)...(.milliseconds(1_500)))
            let roaming = RoamingScenario("socket lost under the policy", &random)
            return roaming.script { testbed, roamer in
                testbed.at(.milliseconds(800)) {
                    guard let standby = testbed.otherPath else { return testbed.expect(false, "no standby") }
                    testbed.setPriority(.backup, of: standby)
                }
                testbed.at(moment) { testbed.client.lose(testbed.client.interfaces[0]) }
                testbed.hold()
                testbed.at(moment + .milliseconds(1)) {
                    let moves = roamer.moves.map(\.decision)
                    testbed.expect(
                        moves == [.move(from: "WiFi", to: "cellular", validated: true, .transportLost)],
                        "moved \(moves)\n  \(roamer.log)")
                }
                // Back on WiFi, over another socket: the standby is a backup.
                testbed.at(moment + .seconds(3)) {
                    testbed.expect(roamer.activeNetwork == "WiFi", "not back:\n  \(roamer.log)")
                    testbed.release()
                }
            }
        } expecting: {
            unless($0.largestGap < .milliseconds(700), "a gap of \($0.largestGap)")
        }
    }
}

extension Testbed {
    /// The client's path that does not carry the data, if there is one.
    fileprivate var otherPath: PathID? {
        withClient { $0.pathSnapshots().first { !$0.isActive }?.id } ?? nil
    }
}
