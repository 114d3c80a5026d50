// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    /// Family 5: challenges that are lost, late, answered elsewhere, blocked or forged.
    static let challenges: [NamedScenario] = [
        NamedScenario(
            5, "the first datagrams to a new address are lost, challenge and all: it is validated later (M11)"
        ) {
            random in
            let lost = random.integer(in: 1...6)
            var scenario = Scenario.behindNAT()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                var isRebound = false
                testbed.at(.milliseconds(300)) {
                    testbed.nat?.rebindAddress()
                    isRebound = true
                }
                testbed.dropFirst(lost) { isRebound && $0.source == Testbed.serverAddress }
                testbed.hold()
                testbed.onServerPathEvent { event, _ in
                    if case .validated = event, isRebound {
                        isRebound = false
                        testbed.release()
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        },
        NamedScenario(5, "an answer that comes after further challenges counts for the one it answers (M2)") { random in
            let delay = random.time(in: .milliseconds(250)...(.milliseconds(700)))
            var scenario = Scenario.severalNetworks()
            scenario.otherInterfaces[0] = LinkConditions(delay: delay)
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.onClientPathEvent { event in
                    guard case .validated(_, let rtt, let challenges) = event else { return }
                    testbed.expect(challenges > 1, "answered before a second challenge: the test does not bite")
                    let expected = delay * 2 + .milliseconds(20)
                    testbed.expect(
                        rtt >= expected && rtt < expected + .milliseconds(50), "an RTT of \(rtt), not \(expected)")
                }
                testbed.whenProbed(at: .milliseconds(300), timeout: .seconds(10)) { _ in }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 0 && $0.switches == 0, "the probe moved the connection")
        },
        NamedScenario(
            5, "a challenge is answered from another port, as the NAT rebound again: it counts all the same (M16)"
        ) {
            _ in
            var scenario = Scenario.behindNAT(.init(oldMappings: .linger(.seconds(2))))
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(.milliseconds(300)) { testbed.nat?.rebindPort() }
                // The challenge is on its way to the second port when the third replaces it.
                testbed.onServerPathEvent { event, _ in
                    if case .peerMoved = event, testbed.nat?.rebindingCount == 1 { testbed.nat?.rebindPort() }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 2, "\($0.peerMoves) moves of 2")
        },
        NamedScenario(5, "a path that is dead in one direction fails its probe, and the other carries on (M8)") {
            random in
            let isInboundDead = random.next() % 2 == 0
            var scenario = Scenario.severalNetworks(queueLimit: 500_000)
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                let other = testbed.client.interfaces[1]
                if isInboundDead {
                    other.inbound.conditions.isUp = false
                } else {
                    other.outbound.conditions.isUp = false
                }
                testbed.expectProbeFails(at: .milliseconds(300), timeout: .seconds(1))
            }
            return scenario
        } expecting: {
            unless($0.switches == 0 && $0.peerMoves == 0, "a probe moved the connection (M10)")
                ?? unless($0.largestGap < .milliseconds(200), "a gap of \($0.largestGap)")
        },
        NamedScenario(5, "answers of an earlier validation, replayed, validate nothing (M10)") { _ in
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                let second = testbed.client.interfaces[1]
                var answers: [SimulatedDatagram] = []
                testbed.watch(second.address) { datagram, isFrom in
                    if !isFrom, answers.count < 50 { answers.append(datagram) }
                }
                testbed.whenProbed(at: .milliseconds(200)) { path in
                    testbed.closePath(path)
                    // Nothing leaves any more, but what was answered comes again and again.
                    second.outbound.conditions.isUp = false
                    for round in 1...20 {
                        for answer in answers {
                            testbed.network.inject(answer, after: .milliseconds(Int64(100 * round)))
                        }
                    }
                    testbed.expectProbeFails(at: testbed.elapsed + .milliseconds(50), timeout: .seconds(2))
                }
            }
            return scenario
        },
        NamedScenario(5, "a probe under loss of a quarter of all datagrams succeeds in the end (M2)") { _ in
            var scenario = Scenario.severalNetworks()
            scenario.otherInterfaces[0].loss = 0.25
            scenario.timeLimit = .seconds(90)
            scenario.script = { testbed in testbed.whenProbed(at: .milliseconds(300), timeout: .seconds(60)) { _ in } }
            return scenario
        },
        NamedScenario(5, "a burst swallows the challenge and its first repetitions") { random in
            let length = random.time(in: .milliseconds(100)...(.milliseconds(900)))
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                let second = testbed.client.interfaces[1]
                second.isUp = false
                testbed.at(.milliseconds(300) + length) { second.isUp = true }
                testbed.whenProbed(at: .milliseconds(300), timeout: .seconds(10)) { _ in
                    testbed.expect(
                        testbed.elapsed <= .milliseconds(300) + length * 3 + .milliseconds(300),
                        "validated only at \(testbed.elapsed)")
                }
            }
            return scenario
        },
    ]

    /// Family 6: responses leave by the right socket.
    static let sockets: [NamedScenario] = [
        NamedScenario(
            6, "five networks are probed at once: each answer comes back to where its challenge left (M3, M16)"
        ) {
            _ in
            var scenario = Scenario.severalNetworks(6)
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                for number in 1...5 {
                    var (asked, answered) = (0, 0)
                    testbed.watch(testbed.client.interfaces[number].address) { datagram, isFrom in
                        if isFrom { asked += 1 } else if datagram.payload.count >= 1_200 { answered += 1 }
                    }
                    testbed.whenProbed(number, at: .milliseconds(300)) { _ in
                        testbed.expect(asked > 0 && answered > 0, "network \(number): \(asked) out, \(answered) back")
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 0 && $0.peerMoves == 0, "a probe moved the connection (M10)")
        },
        NamedScenario(
            6, "after a switch the server challenges the old path, and the answer leaves by the old socket (M14)"
        ) {
            _ in
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                var movedAt: Instant?
                var answers = 0
                testbed.watch(testbed.client.interfaces[0].address) { datagram, isFrom in
                    guard let moved = movedAt, isFrom, testbed.now > moved + .milliseconds(15) else { return }
                    if datagram.payload.count >= 1_200 { answers += 1 }
                }
                testbed.onServerPathEvent { event, _ in if case .peerMoved = event { movedAt = testbed.now } }
                testbed.moveGracefully(at: .milliseconds(300))
                testbed.hold()
                testbed.at(.seconds(3)) {
                    testbed.expect(answers > 0, "no answer left the old socket")
                    testbed.release()
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        },
        NamedScenario(6, "the socket closes between the challenge and its answer: nobody answers for it (M7)") { _ in
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                let second = testbed.client.interfaces[1]
                var wasAsked = false
                testbed.watch(second.address) { _, isFrom in
                    guard !isFrom, !wasAsked else { return }
                    wasAsked = true
                    testbed.after(.zero) { testbed.client.lose(second) }
                }
                testbed.at(.milliseconds(300)) {
                    if let path = try? testbed.addPath(over: second).get() { testbed.probe(path) }
                }
                testbed.onClientPathEvent { event in
                    if case .validated = event { testbed.expect(false, "validated over a closed socket") }
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 0, "the connection moved")
        },
        NamedScenario(
            6, "both sides challenge at once, over three networks, while the NAT of the first rebinds (M14, M16)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(280)...(.milliseconds(340)))
            var scenario = Scenario.severalNetworks(3)
            scenario.nat = .init()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(moment) { testbed.nat?.rebindPort() }
                for number in 1...2 { testbed.whenProbed(number, at: .milliseconds(300)) { _ in } }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        },
        NamedScenario(6, "back and forth between two sockets of one host on one network (M4)") { random in
            let pause = random.time(in: .milliseconds(30)...(.milliseconds(150)))
            var scenario = Scenario.severalNetworks()
            scenario.bottleneck = LinkConditions(delay: .milliseconds(1), bandwidth: 4_000_000)
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.whenProbed(at: .milliseconds(200)) { path in
                    func hop(_ left: Int) {
                        guard left > 0 else { return testbed.release() }
                        let target = testbed.activePath == path ? PathID(0) : path
                        if case .failure(let error) = testbed.switchPath(to: target) {
                            testbed.expect(false, "\(error)")
                        }
                        testbed.after(pause) { hop(left - 1) }
                    }
                    testbed.hold()
                    hop(8)
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 8, "\($0.switches) switches")
        },
    ]
}
