// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    /// Family 1 and 2: NATs that forget.
    static let rebindings: [NamedScenario] = [
        NamedScenario(
            1, "the mapping dies while HANDSHAKE_DONE is under way: the handshake is confirmed all the same (M19)"
        ) {
            random in
            let kind = SimulatedNAT.Rebinding.allCases[random.integer(in: 0...2)]
            var scenario = Scenario.behindNAT()
            scenario.plans = [StreamPlan(download: 30_000, upload: 10_000)]
            scenario.timeLimit = .seconds(15)
            scenario.script = { testbed in
                // What the server says once it is done meets no mapping.
                testbed.onServerEvent { event, _ in
                    if case .handshakeCompleted = event { testbed.nat?.rebind(kind) }
                }
            }
            return scenario
        },
        NamedScenario(1, "ports or addresses die at any moment of the handshake, mappings dead at once (M19)") {
            random in
            let kind = SimulatedNAT.Rebinding.allCases[random.integer(in: 0...2)]
            let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(200)))
            let moment = random.time(in: .zero...(roundTrip * 3))
            var scenario = Scenario.behindNAT()
            scenario.setRoundTrip(roundTrip)
            scenario.plans = [StreamPlan(download: 30_000, upload: 10_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebind(kind) } }
            return scenario
        },
        NamedScenario(1, "the address changes and the ports stay: followed as a move to another network (M11, M12)") {
            random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(700)))
            var scenario = Scenario.behindNAT()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(moment) { testbed.nat?.rebindAddressOnly() }
                testbed.onServerPathEvent { event, _ in
                    if case .peerMoved(_, _, let move) = event {
                        testbed.expect(move == .address, "the move was taken for \(move)")
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        },
        NamedScenario(1, "behind a home's NAT and a carrier's, either may rebind (M11)") { random in
            let pauses = Nanoseconds.milliseconds(50)...(.milliseconds(600))
            var scenario = Scenario.behindNAT(.init(filtering: .addressAndPortDependent))
            scenario.outerNAT = .init(
                mapping: random.next() % 2 == 0 ? .addressAndPortDependent : .endpointIndependent,
                filtering: .addressDependent)
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    testbed.nat?.rebindAtRandom([.port, .address], pauses: pauses, count: 2)
                    testbed.outerNAT?.rebindAtRandom([.port, .address, .addressOnly], pauses: pauses, count: 2)
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 1, "no move: the test does not bite")
        },
        NamedScenario(1, "a restricted cone lets the server in at once, for the client speaks first (M11)") { random in
            let moment = random.time(in: .milliseconds(100)...(.milliseconds(500)))
            var scenario = Scenario.behindNAT(
                .init(filtering: random.next() % 2 == 0 ? .addressDependent : .addressAndPortDependent))
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebindPort() } }
            return scenario
        },
        NamedScenario(1, "a rebinding at 600 ms of round trip costs a download no more than four of them (M22)") {
            random in
            let moment = random.time(in: .seconds(3)...(.seconds(5)))
            var scenario = Scenario.behindNAT()
            scenario.setRoundTrip(.milliseconds(600))
            scenario.plans = [StreamPlan(download: 2_000_000)]
            scenario.timeLimit = .seconds(40)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebindPort() } }
            return scenario
        } expecting: {
            unless($0.largestGap <= .milliseconds(600 * 4 + 200), "a gap of \($0.largestGap)")
        },
        NamedScenario(1, "behind a balancer by connection ID a rebinding reaches the server that it should (M11)") {
            random in
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            var scenario = Scenario.behindNAT()
            scenario.serverCount = 4
            scenario.timeLimit = .seconds(30)
            let pauses = Nanoseconds.milliseconds(20)...(.milliseconds(300))
            scenario.script = { testbed in
                testbed.whenConfirmed { testbed.nat?.rebindAtRandom([kind], pauses: pauses, count: 4) }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 1, "no move: the test does not bite")
        },
        NamedScenario(
            1, "behind a balancer by address a rebinding reaches another server, which resets the connection (M21)"
        ) {
            _ in
            var scenario = Scenario.behindNAT()
            scenario.serverCount = 2
            scenario.balancing = .fourTuple
            scenario.ending = .script
            scenario.serverEndpoint.statelessResetKey = [UInt8](repeating: 3, count: 32)
            scenario.expectedClientClose = { $0 == .statelessReset }
            scenario.plans = [StreamPlan(download: 3_000_000)]
            scenario.timeLimit = .seconds(40)
            scenario.server.maxIdleTimeout = .seconds(10)
            scenario.script = { testbed in
                // Until the other one is hit.
                testbed.whenConfirmed { testbed.nat?.rebind(.address, every: .milliseconds(200), count: 30) }
            }
            return scenario
        },
        NamedScenario(2, "a symmetric NAT that forgets after a second, a client that is silent for ten (M22)") { _ in
            var scenario = Scenario.behindNAT(.init(mapping: .addressAndPortDependent, idleTimeout: .seconds(1)))
            scenario.thinkTime = .seconds(10)
            scenario.plans = [StreamPlan(download: 100_000)]
            scenario.timeLimit = .seconds(20)
            return scenario
        },
        NamedScenario(2, "two NATs in a row that rebind every 100 ms, out of step (M11)") { random in
            var scenario = Scenario.behindNAT()
            scenario.outerNAT = .init()
            scenario.plans = [StreamPlan(download: 60_000, upload: 60_000)]
            let pauses = Nanoseconds.milliseconds(60)...(.milliseconds(140))
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    testbed.nat?.rebindAtRandom([.port], pauses: pauses, count: 40)
                    testbed.outerNAT?.rebindAtRandom([.port, .address], pauses: pauses, count: 40)
                }
            }
            return scenario
        },
    ]
}
