// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    /// What random exploration found, each as a scenario that failed before it was mended.
    static let found: [NamedScenario] = [
        NamedScenario(
            1, "the client's Finished is lost twice while 1-RTT packets fill the window: it is sent all the same"
        ) { random in
            let count = random.integer(in: 1...3)
            var scenario = Scenario.severalNetworks(1)
            scenario.plans = [StreamPlan(download: 30_000, upload: 60_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                // The probes behind it, which carry a PING only, arrive and are acknowledged.
                testbed.dropFirst(count) { datagram in
                    datagram.destination == Testbed.serverAddress
                        && datagram.packets.contains { $0.kind == .handshake && $0.size > 60 }
                }
            }
            return scenario
        },
        NamedScenario(
            1, "the client changes its address in the handshake, and then loses what the server may still send (M19)"
        ) {
            random in
            let lost = random.integer(in: 1...4)
            var scenario = Scenario.behindNAT()
            scenario.credentials = largeCredentials
            scenario.plans = [StreamPlan(download: 30_000)]
            scenario.timeLimit = .seconds(30)
            scenario.client.handshakeTimeout = .seconds(25)
            scenario.server.handshakeTimeout = .seconds(25)
            scenario.script = { testbed in
                testbed.at(.milliseconds(45)) { testbed.nat?.rebindAddress() }
                let second = NetworkAddress(198, 18, 0, 2, port: 0)
                testbed.dropFirst(lost) { $0.destination.hasSameIP(as: second) }
            }
            return scenario
        },
        NamedScenario(2, "the mapping dies while the client waits for leave to open a stream: it speaks (M22)") {
            random in
            let pauses = Nanoseconds.milliseconds(20)...(.milliseconds(90))
            var scenario = Scenario.behindNAT()
            scenario.server.maxBidirectionalStreams = 1
            scenario.plans = (0..<12).map { _ in StreamPlan(download: random.integer(in: 0...3_000), upload: 500) }
            scenario.timeLimit = .seconds(40)
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    testbed.nat?.rebindAtRandom([.port, .address], pauses: pauses, count: 15)
                }
            }
            return scenario
        },
        NamedScenario(9, "with two IDs at once two sockets are lost one after the other: the third goes on (M6, M7)") {
            random in
            let pause = random.time(in: .milliseconds(300)...(.seconds(1)))
            var scenario = Scenario.severalNetworks(3)
            scenario.client.activeConnectionIDLimit = 2
            scenario.plans = [StreamPlan(download: 600_000, upload: 600_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                for number in 0...1 {
                    testbed.at(.milliseconds(300) + pause * Int64(number)) {
                        testbed.client.lose(testbed.client.interfaces[number])
                        testbed.moveAtOnce(number + 1)
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 2, "\($0.switches) switches")
        },
        NamedScenario(
            9,
            "the client moves before the server has an ID to spare: it gets one of its own as soon as there is one (M17)"
        ) {
            random in
            let delay = random.time(in: .zero...(.milliseconds(20)))
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.whenConfirmed { testbed.after(delay) { testbed.moveAtOnce() } }
                // The client's NEW_CONNECTION_ID frames are among what is lost on the old path.
                testbed.onClientEvent { event in
                    if case .handshakeCompleted = event { testbed.client.interfaces[0].outbound.conditions.loss = 0.7 }
                }
            }
            return scenario
        },
        NamedScenario(
            10,
            "every packet with which the client moves is raced by a copy: no ID of the place it left goes along (M17)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(350)...(.milliseconds(600)))
            var scenario = Scenario.severalNetworks()
            scenario.plans = [StreamPlan(download: 600_000, upload: 600_000)]
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                let villain = SimulatedAttacker(
                    in: testbed.network, at: NetworkAddress(198, 51, 100, 66, port: 50_066),
                    against: Testbed.serverAddress)
                villain.sparesHandshakes = true
                testbed.at(.milliseconds(300)) { villain.start(.race) }
                testbed.at(moment) {
                    testbed.client.lose(testbed.client.interfaces[0])
                    testbed.moveAtOnce()
                }
                testbed.at(moment + .milliseconds(500)) { villain.stop(.race) }
            }
            return scenario
        } expecting: {
            unless($0.switches == 1, "\($0.switches) switches")
        },
        NamedScenario(
            1,
            "addresses die while HANDSHAKE_DONE is under way, and again: what the client repeats moves the server (M19)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(25)...(.milliseconds(40)))
            var scenario = Scenario.behindNAT()
            scenario.setRoundTrip(.milliseconds(92))
            scenario.client.activeConnectionIDLimit = 3
            scenario.server.activeConnectionIDLimit = 3
            scenario.plans = [StreamPlan(download: 10_000, upload: 3_300)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                // Each time that the client's Finished has just passed the NAT, and its answer has not.
                var left = 4
                var nextFrom = Nanoseconds.zero
                testbed.watch(Testbed.serverAddress) { datagram, isFrom in
                    guard !isFrom, left > 0, testbed.elapsed >= nextFrom,
                        datagram.packets.contains(where: { $0.kind == .handshake && $0.size > 60 })
                    else { return }
                    left -= 1
                    nextFrom = testbed.elapsed + .milliseconds(100)
                    testbed.after(moment) { testbed.nat?.rebindAddressOnly() }
                }
            }
            return scenario
        },
        NamedScenario(
            7, "every challenge of 1,200 bytes is lost after a move, but other datagrams bear witness to the size (M15)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            var scenario = Scenario.behindNAT()
            scenario.plans = [StreamPlan(download: 2_000_000)]
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                testbed.at(moment) {
                    testbed.nat?.rebindAddress()
                    testbed.dropFirst(.max) { $0.source == Testbed.serverAddress && $0.payload.count == 1_200 }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves of the peer")
        },
        NamedScenario(
            7, "an outage while the size of a new path is to be proved is no verdict on its size (M15, M21)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            let outage = random.time(in: .milliseconds(500)...(.seconds(4)))
            var scenario = Scenario.behindNAT()
            scenario.plans = [StreamPlan(download: 1_000_000)]
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                var isOver = false
                testbed.at(moment) { testbed.nat?.rebindAddress() }
                testbed.onServerPathEvent { event, _ in
                    guard case .validated = event, testbed.elapsed >= moment, !isOver else { return }
                    isOver = true
                    testbed.client.interfaces[0].isUp = false
                    testbed.after(outage) { testbed.client.interfaces[0].isUp = true }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 1, "\($0.peerMoves) moves of the peer")
        },
        NamedScenario(13, "where marked datagrams are dropped, acknowledgements that nobody acknowledges arrive") {
            random in
            var scenario = Scenario.behindNAT()
            scenario.access.ecn = .drops
            // Nothing of the client's is in flight when its first marked datagram leaves.
            scenario.client.probesSilence = false
            scenario.thinkTime = .seconds(1)
            scenario.plans = [StreamPlan(download: random.integer(in: 20_000...100_000))]
            scenario.timeLimit = .seconds(5)
            return scenario
        },
    ]
}
