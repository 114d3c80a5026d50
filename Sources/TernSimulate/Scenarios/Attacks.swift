// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    private static let attacker = NetworkAddress(198, 51, 100, 66, port: 50_066)

    /// A transfer under attack by one method for a second.
    private static func under(
        _ method: SimulatedAttacker.Method, sparingHandshakes: Bool = true, from start: Nanoseconds = .milliseconds(300)
    ) -> Scenario {
        var scenario = Scenario.severalNetworks(1)
        scenario.client.handshakeTimeout = .seconds(60)
        scenario.server.handshakeTimeout = .seconds(60)
        scenario.timeLimit = .seconds(60)
        scenario.script = { testbed in
            let villain = SimulatedAttacker(in: testbed.network, at: attacker, against: Testbed.serverAddress)
            villain.sparesHandshakes = sparingHandshakes
            testbed.hold()
            testbed.at(start) { villain.start(method) }
            testbed.at(start + .seconds(1)) {
                villain.stop(method)
                testbed.expect(
                    villain.deedCount > (sparingHandshakes ? 10 : 0),
                    "only \(villain.deedCount) deeds: the test does not bite")
                testbed.release()
            }
        }
        return scenario
    }

    private static let nothingMoved: @Sendable (SimulationReport) -> String? = {
        unless($0.peerMoves == 0, "the connection moved \($0.peerMoves) times")
    }

    /// Family 10: attackers off the path and on it.
    static let attacks: [NamedScenario] = [
        NamedScenario(
            10, "copies that arrive behind the originals, from another address, move nothing (M10)",
            { _ in under(.copy) },
            expecting: nothingMoved),
        NamedScenario(10, "copies that win every race for a second: the client gets its connection back (M13, M14)") {
            _ in
            under(.race)
        } expecting: {
            unless($0.peerMoves >= 1, "no copy moved it: the test does not bite")
        },
        NamedScenario(
            10, "forged packets under IDs that were seen, from 254 addresses, move nothing (M10)",
            { _ in under(.spoof) },
            expecting: nothingMoved),
        NamedScenario(
            10, "four datagrams of nonsense for each of the connection's, to both sides, change nothing",
            { _ in under(.flood) }, expecting: nothingMoved),
        NamedScenario(
            10, "old datagrams played again, to both sides, from everywhere, move nothing (M10)",
            { _ in under(.replay) },
            expecting: nothingMoved),
        NamedScenario(10, "an attacker on the path who drops a third costs time and nothing else") { _ in under(.drop)
        },
        NamedScenario(10, "an attacker on the path who turns bits costs time and nothing else") { _ in under(.spoil) },
        NamedScenario(10, "an attacker on the path who holds every fifth datagram back costs time and nothing else") {
            _ in
            under(.hold)
        },
        NamedScenario(10, "the handshake is raced, copied, replayed or flooded: it completes (M10)") { random in
            let methods: [SimulatedAttacker.Method] = [.race, .copy, .replay, .flood, .spoof]
            return under(methods[random.integer(in: 0...4)], sparingHandshakes: false, from: .zero)
        },
        NamedScenario(
            10, "an attacker forwards both ways and is validated, then falls silent: the client is found again (M14)"
        ) {
            random in
            let length = random.time(in: .milliseconds(200)...(.milliseconds(800)))
            var scenario = Scenario.severalNetworks(1)
            scenario.plans = [StreamPlan(download: 900_000, upload: 300_000)]
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                let client = testbed.client.interfaces[0].address
                let start = Nanoseconds.milliseconds(300)
                testbed.network.addTap { datagram in
                    guard testbed.elapsed >= start, testbed.elapsed < start + length else { return .pass }
                    if datagram.destination == Testbed.serverAddress {
                        // The original does not arrive; what the attacker forwards does.
                        var forwarded = datagram
                        forwarded.source = attacker
                        testbed.network.inject(forwarded, after: .milliseconds(1))
                        return .drop
                    }
                    if datagram.destination.hasSameIP(as: attacker) {
                        var forwarded = datagram
                        forwarded.destination = client
                        testbed.network.inject(forwarded, after: .milliseconds(1))
                        return .drop
                    }
                    return .pass
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 2, "\($0.peerMoves) moves: to the attacker and back are 2")
        },
        NamedScenario(
            10, "a thousand first packets of strangers leave a transfer alone, and no state after they time out"
        ) {
            _ in
            var scenario = Scenario.severalNetworks(1)
            scenario.server.handshakeTimeout = .seconds(3)
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                var first: SimulatedDatagram?
                testbed.network.addTap { datagram in
                    if first == nil, datagram.destination == Testbed.serverAddress { first = datagram }
                    return .pass
                }
                testbed.at(.milliseconds(200)) {
                    guard let first else { return testbed.expect(false, "no first packet was seen") }
                    for number in 0..<1_000 {
                        // The same header and nonsense behind it: the keys are known to all, the rest must fail.
                        var datagram = first
                        datagram.source = NetworkAddress(ipv4: 0xc612_8000 + UInt32(number), port: 4_000)
                        datagram.payload.replaceSubrange(6..<14, with: testbed.random.bytes(8))
                        testbed.network.inject(datagram, after: .milliseconds(Int64(number)))
                    }
                }
            }
            return scenario
        } expecting: {
            nothingMoved($0)
        },
        NamedScenario(10, "stateless resets that are made up end nothing") { _ in
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                let client = testbed.client.interfaces[0].address
                func inject(_ left: Int) {
                    guard left > 0 else { return }
                    var reset = testbed.random.bytes(testbed.random.integer(in: 21...60))
                    reset[0] = reset[0] & 0x3f | 0x40
                    testbed.network.inject(
                        SimulatedDatagram(source: Testbed.serverAddress, destination: client, payload: reset))
                    testbed.after(.milliseconds(2)) { inject(left - 1) }
                }
                testbed.at(.milliseconds(100)) { inject(500) }
            }
            return scenario
        } expecting: {
            nothingMoved($0)
        },
    ]

    /// Family 13: the end on a new path. (MTU and ECN are tested with their rooms.)
    static let endings: [NamedScenario] = [
        NamedScenario(13, "the client closes from the network it has just moved to: the server hears why (M21)") {
            random in
            let delay = random.time(in: .zero...(.milliseconds(100)))
            var scenario = Scenario.severalNetworks()
            scenario.ending = .script
            scenario.plans = [StreamPlan(download: 3_000_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(.milliseconds(400)) {
                    testbed.moveAtOnce()
                    testbed.client.interfaces[0].isUp = false
                    testbed.after(delay) { testbed.close(testbed.client, code: 7, reason: "home") }
                }
            }
            return scenario
        } expecting: {
            unless(
                $0.serverCloseReason == .application(code: 7, reason: "home", byPeer: true),
                "the server's connection ended so: \($0.serverCloseReason.map { "\($0)" } ?? "not")")
        },
        NamedScenario(
            13, "the server closes to an address that it has just followed its client to: the client hears why (M21)"
        ) {
            random in
            let kind = SimulatedNAT.Rebinding.allCases[random.integer(in: 0...2)]
            var scenario = Scenario.behindNAT()
            scenario.ending = .script
            scenario.plans = [StreamPlan(download: 3_000_000, upload: 3_000_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(.milliseconds(400)) { testbed.nat?.rebind(kind) }
                testbed.onServerPathEvent { event, _ in
                    guard case .peerMoved = event else { return }
                    testbed.after(.zero) { testbed.close(testbed.server, code: 9, reason: "closing time") }
                }
            }
            return scenario
        } expecting: {
            unless(
                $0.clientCloseReason == .application(code: 9, reason: "closing time", byPeer: true),
                "the client's connection ended so: \($0.clientCloseReason.map { "\($0)" } ?? "not")")
        },
        NamedScenario(13, "the NAT rebinds between the last packet and the close: nothing is left on either side") {
            random in
            let kind = SimulatedNAT.Rebinding.allCases[random.integer(in: 0...2)]
            var scenario = Scenario.behindNAT()
            scenario.ending = random.next() % 2 == 0 ? .clientCloses : .serverCloses
            scenario.client.maxIdleTimeout = .seconds(15)
            scenario.plans = [StreamPlan(download: 50_000)]
            scenario.timeLimit = .seconds(20)
            // Who the server cannot reach any more learns it from silence.
            scenario.expectedClientClose = {
                switch $0 {
                case .application, .idleTimeout, .statelessReset: true
                default: false
                }
            }
            scenario.script = { testbed in
                testbed.onClientEvent { event in
                    if case .streamSendClosed = event { testbed.after(.milliseconds(1)) { testbed.nat?.rebind(kind) } }
                }
            }
            return scenario
        },
    ]
}
