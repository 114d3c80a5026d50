// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

/// A client with WiFi and cellular whose connection the policy moves. No script calls a verb of paths.
struct RoamingScenario {
    var scenario: Scenario
    var names: [NetworkID] = ["WiFi", "cellular"]
    var order: [NetworkID]?
    var settings = AutomaticMigration()

    init(_ title: String, _ random: inout RandomSource, download: Int = 2_000_000) {
        scenario = Scenario(title)
        // Queues are short, so that probe timeouts measure the network rather than its queues.
        scenario.access = LinkConditions(bandwidth: 4_000_000, queueLimit: 24 * 1_024)
        scenario.otherInterfaces = [LinkConditions(bandwidth: 3_000_000, queueLimit: 24 * 1_024)]
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(100))))
        scenario.otherInterfaces[0].delay = random.time(in: .milliseconds(5)...(.milliseconds(60)))
        scenario.plans = [StreamPlan(download: download)]
    }

    func script(_ body: @escaping @Sendable (Testbed, SimulatedRoamer) -> Void) -> Scenario {
        var scenario = scenario
        let (names, order, settings) = (names, order, settings)
        scenario.script = { testbed in
            body(testbed, testbed.roam(over: names, preferring: order, settings: settings))
        }
        return scenario
    }
}

extension SimulatedRoamer {
    var log: String {
        decisions.map { "\(($0.instant - Scheduler.start).inMilliseconds) ms  \($0.decision)" }
            .joined(separator: "\n  ")
    }

    /// At a time, these were the moves so far; the run goes on until then.
    func expect(_ expected: [PolicyDecision], at time: Nanoseconds, in testbed: Testbed) {
        testbed.hold()
        testbed.at(time) {
            let found = self.moves.map(\.decision)
            testbed.expect(found == expected, "moved \(found) instead of \(expected):\n  \(self.log)")
            testbed.release()
        }
    }
}

@Suite("The automatic policy moves a connection between networks (M35 to M38, family 12)")
struct RoamingTests {
    private static let away = PolicyDecision.move(
        from: "WiFi", to: "cellular", validated: true, .networkLost("WiFi"))
    private static let home = PolicyDecision.move(
        from: "cellular", to: "WiFi", validated: true, .preferredNetwork("WiFi"))

    @Test("WiFi goes and comes back: at once to the standby, and back when WiFi has worked for a second (M36, M37)")
    func wifiToCellularAndBack() async {
        await check { random in
            let lost = random.time(in: .milliseconds(600)...(.milliseconds(1_500)))
            let back = lost + random.time(in: .milliseconds(300)...(.milliseconds(1_500)))
            return RoamingScenario("WiFi to cellular and back", &random).script { testbed, roamer in
                testbed.at(lost) { roamer.vanish("WiFi") }
                testbed.at(back) { roamer.appear("WiFi") }
                roamer.expect([Self.away, Self.home], at: back + .milliseconds(2_500), in: testbed)
            }
        } expecting: {
            unless($0.largestGap < .milliseconds(700), "a gap of \($0.largestGap)")
        }
    }

    @Test("WiFi appears: it is probed and moved to without a gap, and cellular stands by (M36)")
    func wifiAppears() async {
        await check { random in
            let moment = random.time(in: .milliseconds(500)...(.milliseconds(2_000)))
            var roaming = RoamingScenario("WiFi appears", &random)
            roaming.names = ["cellular", "WiFi"]
            roaming.order = ["WiFi", "cellular"]
            return roaming.script { testbed, roamer in
                roamer.vanish("WiFi")
                testbed.at(moment) { roamer.appear("WiFi") }
                roamer.expect([Self.home], at: moment + .seconds(1), in: testbed)
            }
        } expecting: {
            unless($0.largestGap < .milliseconds(300), "a gap of \($0.largestGap)")
        }
    }

    @Test("WiFi flaps a hundred times: the connection stays on cellular until WiFi has worked for long enough (M36)")
    func flapping() async {
        await check(atMost: 5) { random in
            var roaming = RoamingScenario("flapping", &random, download: 6_000_000)
            roaming.scenario.timeLimit = .seconds(180)
            return roaming.script { testbed, roamer in
                testbed.hold()
                var flaps = 0
                func flap() {
                    flaps += 1
                    guard flaps <= 100 else {
                        let moves = roamer.moves.count
                        testbed.expect(moves <= 3, "\(moves) moves:\n  \(roamer.log)")
                        testbed.expect(roamer.socketCount <= 2, "\(roamer.socketCount) sockets are open")
                        return testbed.release()
                    }
                    roamer.vanish("WiFi", reported: testbed.random.time(in: .zero...(.milliseconds(50))))
                    testbed.after(testbed.random.time(in: .milliseconds(60)...(.milliseconds(300)))) {
                        roamer.appear("WiFi")
                        testbed.after(testbed.random.time(in: .milliseconds(50)...(.milliseconds(900)))) { flap() }
                    }
                }
                testbed.at(.seconds(1)) { flap() }
            }
        }
    }

    @Test("both networks go and one is back within 10 s: the transfer goes on, whichever it is (M36)")
    func bothGoneAndBackInTime() async {
        await check { random in
            let lost = random.time(in: .milliseconds(300)...(.milliseconds(1_500)))
            let between = random.time(in: .zero...(.milliseconds(300)))
            let back = lost + between + random.time(in: .milliseconds(100)...(.milliseconds(9_900)))
            let name: NetworkID = random.next() % 2 == 0 ? "WiFi" : "cellular"
            return RoamingScenario("both gone and back", &random).script { testbed, roamer in
                testbed.at(lost) { roamer.vanish("WiFi") }
                testbed.at(lost + between) { roamer.vanish("cellular") }
                testbed.at(back) { roamer.appear(name) }
                testbed.hold()
                testbed.at(back + .seconds(1)) {
                    testbed.expect(roamer.activeNetwork == name, "on \(String(describing: roamer.activeNetwork))")
                    testbed.release()
                }
            }
        }
    }

    @Test("both networks are gone for more than 10 s: the connection ends with NO_VIABLE_PATH, after 10 s (M36, M21)")
    func bothGoneForGood() async {
        await check { random in
            let lost = random.time(in: .milliseconds(300)...(.milliseconds(1_500)))
            var roaming = RoamingScenario("both gone", &random)
            roaming.scenario.ending = .script
            roaming.scenario.expectedClientClose = { reason in
                guard case .transport(let error, byPeer: false) = reason else { return false }
                return error.code == .noViablePath
            }
            return roaming.script { testbed, roamer in
                testbed.at(lost) { roamer.vanish("WiFi") }
                testbed.at(lost + .milliseconds(50)) { roamer.vanish("cellular") }
                testbed.onClientEvent { event in
                    guard case .closed = event else { return }
                    let after = testbed.elapsed - lost - .milliseconds(50)
                    testbed.expect(
                        after >= .seconds(10) && after < .milliseconds(10_100), "gave up after \(after)")
                }
            }
        }
    }

    @Test("WiFi falls silent and nobody says so: cellular is asked after two PTO, and taken (M35, M36)")
    func silence() async {
        await check { random in
            let moment = random.time(in: .milliseconds(600)...(.milliseconds(2_000)))
            let isUpload = random.next() % 2 == 0
            var roaming = RoamingScenario("silence", &random)
            if isUpload { roaming.scenario.plans = [StreamPlan(upload: 2_000_000)] }
            return roaming.script { testbed, roamer in
                testbed.at(moment) { roamer.fallSilent("WiFi") }
                roamer.expect(
                    [.move(from: "WiFi", to: "cellular", validated: true, .suspected)],
                    at: moment + .seconds(3), in: testbed)
            }
        }
    }

    @Test("only the client's port is dead, on its only network: a new one is probed and taken (M36)")
    func deadPort() async {
        await check { random in
            let moment = random.time(in: .milliseconds(600)...(.milliseconds(2_000)))
            var roaming = RoamingScenario("dead port", &random)
            roaming.names = ["WiFi"]
            return roaming.script { testbed, roamer in
                let dead = testbed.client.interfaces[0].address
                var isDead = false
                testbed.network.addTap { datagram in
                    isDead && (datagram.source == dead || datagram.destination == dead) ? .drop : .pass
                }
                testbed.at(moment) { isDead = true }
                roamer.expect(
                    [.move(from: "WiFi", to: "WiFi", validated: true, .degrading)],
                    at: moment + .seconds(3), in: testbed)
            }
        }
    }

    @Test(
        "a short silence on both networks: probes are sent, and the connection stays where it is or moves, and goes on (M36)"
    )
    func shortSilence() async {
        await check { random in
            let moment = random.time(in: .milliseconds(300)...(.milliseconds(1_500)))
            let span = random.time(in: .milliseconds(50)...(.milliseconds(6_000)))
            return RoamingScenario("short silence", &random).script { testbed, roamer in
                testbed.at(moment) {
                    roamer.fallSilent("WiFi")
                    roamer.fallSilent("cellular")
                }
                testbed.at(moment + span) {
                    roamer.speakAgain("WiFi")
                    roamer.speakAgain("cellular")
                }
            }
        }
    }

    @Test("the system refuses every send on WiFi: cellular is taken at once (M35, M36)")
    func sendErrors() async {
        await check { random in
            let moment = random.time(in: .milliseconds(600)...(.milliseconds(2_000)))
            let errno = [Int32(1), 13, 22, 99, 100, 101, 113][random.integer(in: 0...6)]
            return RoamingScenario("errno \(errno)", &random).script { testbed, roamer in
                testbed.at(moment) { roamer.refuseSends(on: "WiFi", errno: errno) }
                roamer.expect(
                    [.move(from: "WiFi", to: "cellular", validated: true, .sendError(errno))],
                    at: moment + .milliseconds(900), in: testbed)
            }
        } expecting: {
            unless($0.largestGap < .milliseconds(700), "a gap of \($0.largestGap)")
        }
    }

    @Test("lossy networks: nothing but a lost network moves the connection off WiFi, and it comes back (M36)")
    func underLoss() async {
        await check { random in
            let lost = random.time(in: .milliseconds(600)...(.milliseconds(1_500)))
            var roaming = RoamingScenario("roaming under loss", &random)
            roaming.scenario.access.loss = 0.02
            roaming.scenario.otherInterfaces[0].loss = 0.02
            return roaming.script { testbed, roamer in
                testbed.at(lost) { roamer.vanish("WiFi") }
                testbed.at(lost + .seconds(1)) { roamer.appear("WiFi") }
                testbed.hold()
                testbed.at(lost + .seconds(6)) {
                    testbed.expect(roamer.activeNetwork == "WiFi", "not back:\n  \(roamer.log)")
                    testbed.release()
                }
            }
        }
    }

    @Test(
        "WiFi degrades again and again: it is left five times, then no more but for a new port, and the rest arrives (M38)"
    )
    func limits() async {
        await check(atMost: 5) { random in
            var roaming = RoamingScenario("limits", &random, download: 12_000_000)
            roaming.scenario.access.bandwidth = 1_500_000
            roaming.scenario.otherInterfaces[0].bandwidth = 1_500_000
            roaming.settings.firstReturnDelay = .milliseconds(100)
            roaming.settings.longestReturnDelay = .milliseconds(100)
            roaming.scenario.timeLimit = .seconds(180)
            return roaming.script { testbed, roamer in
                testbed.hold()
                var isSilent = false
                func degrade() {
                    let isLimited = roamer.decisions.contains {
                        $0.decision == .stay(cause: .degrading, because: .limitReached)
                            || $0.decision == .probe(["WiFi"], .degrading)
                    }
                    guard !isLimited, testbed.elapsed < .seconds(60) else {
                        let moves = roamer.moves.filter {
                            if case .move("WiFi", "cellular", _, .suspected) = $0.decision { return true }
                            if case .move("WiFi", "cellular", _, .degrading) = $0.decision { return true }
                            return false
                        }
                        testbed.expect(isLimited && moves.count == 5, "\(moves.count) moves:\n  \(roamer.log)")
                        return testbed.release()
                    }
                    if roamer.activeNetwork == "WiFi" {
                        isSilent = true
                        roamer.fallSilent("WiFi")
                    }
                    testbed.after(.milliseconds(2_500)) {
                        if isSilent { roamer.speakAgain("WiFi") }
                        isSilent = false
                        testbed.after(.milliseconds(2_500)) { degrade() }
                    }
                }
                testbed.at(.seconds(1)) { degrade() }
            }
        }
    }

    @Test("an idle connection is left alone; with its next stream it goes to the network that there is (M38)")
    func idle() async {
        await check { random in
            let rest = random.time(in: .seconds(31)...(.seconds(50)))
            var roaming = RoamingScenario("idle", &random, download: 50_000)
            roaming.scenario.client.maxIdleTimeout = .seconds(120)
            roaming.scenario.server.maxIdleTimeout = .seconds(120)
            roaming.scenario.timeLimit = .seconds(120)
            return roaming.script { testbed, roamer in
                testbed.hold()
                testbed.at(.seconds(3) + rest) { roamer.vanish("WiFi") }
                testbed.at(.seconds(15) + rest) {
                    testbed.expect(roamer.moves.isEmpty, "moved:\n  \(roamer.log)")
                    let stay = PolicyDecision.stay(cause: .networkLost("WiFi"), because: .idle)
                    testbed.expect(roamer.decisions.last?.decision == stay, "not left alone:\n  \(roamer.log)")
                    testbed.withClient { _ = try? $0.openStream(.bidirectional) }
                    roamer.refresh()
                    testbed.expect(roamer.activeNetwork == "cellular", "not moved:\n  \(roamer.log)")
                    testbed.release()
                }
            }
        }
    }

    @Test("the standby is probed every 15 s, and its first RTT is that of its challenge (M37)")
    func warmStandby() async {
        await check { random in
            var roaming = RoamingScenario("warm standby", &random, download: 4_000_000)
            roaming.scenario.access.bandwidth = 1_000_000
            return roaming.script { testbed, roamer in
                var answers: [(time: Nanoseconds, rtt: Nanoseconds)] = []
                testbed.onClientPathEvent { event in
                    if case .validated(let path, let rtt, _) = event, path != testbed.activePath {
                        answers.append((testbed.elapsed, rtt))
                    }
                }
                testbed.hold()
                testbed.at(.seconds(32)) {
                    testbed.expect(answers.count == 3, "\(answers.count) answers:\n  \(roamer.log)")
                    for (first, second) in zip(answers, answers.dropFirst()) {
                        let gap = second.time - first.time
                        testbed.expect(gap >= .seconds(15) && gap < .milliseconds(15_500), "\(gap) between probes")
                    }
                    roamer.vanish("WiFi")
                    testbed.after(.microseconds(1)) {
                        // That of the challenge: its acknowledgement came over WiFi, with WiFi's queue.
                        let rtt = testbed.withClient { $0.pathSnapshot($0.activePath)?.smoothedRTT } ?? nil
                        let challenge = answers.last?.rtt ?? .zero
                        testbed.expect(
                            roamer.activeNetwork == "cellular" && rtt == challenge,
                            "\(String(describing: rtt)) assumed, not the challenge's \(challenge)")
                        testbed.release()
                    }
                }
            }
        }
    }
}
