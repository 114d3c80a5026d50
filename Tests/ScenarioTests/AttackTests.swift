// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("Attackers beside the path")
struct AttackTests {
    /// The address from which forged and copied datagrams seem to come.
    private static let attacker = NetworkAddress(198, 51, 100, 66, port: 50_066)

    /// A transfer both ways of about a second.
    private static func victim(_ title: String) -> Scenario {
        var scenario = Scenario(title)
        scenario.setRoundTrip(.milliseconds(40))
        scenario.access.bandwidth = 4_000_000
        scenario.access.queueLimit = 60_000
        scenario.plans = [StreamPlan(download: 250_000, upload: 150_000)]
        return scenario
    }

    /// Calls `body` with every datagram from the client to the server once the handshake is done.
    private static func tapClient(
        _ testbed: Testbed, _ body: @escaping (SimulatedDatagram) -> SimulatedNetwork.TapVerdict
    ) {
        var isConfirmed = false
        testbed.whenConfirmed { isConfirmed = true }
        testbed.network.addTap { datagram in
            guard isConfirmed, datagram.destination == Testbed.serverAddress, !datagram.hasLongHeader else {
                return .pass
            }
            return body(datagram)
        }
    }

    /// The server must not send a byte to the attacker.
    private static func expectSilence(_ testbed: Testbed) {
        testbed.network.addTap { datagram in
            testbed.expect(
                !datagram.destination.hasSameIP(as: attacker),
                "the server sent \(datagram.payload.count) bytes to the attacker")
            return .pass
        }
    }

    private static let nothingMoved: @Sendable (SimulationReport) -> String? = { report in
        unless(report.peerMoves == 0, "the connection moved \(report.peerMoves) times")
    }

    @Test("forged packets with the right connection ID from another address move nothing and get no answer (M10)")
    func forged() async {
        await check(
            { _ in
                var scenario = Self.victim("forged packets")
                scenario.script = { testbed in
                    Self.expectSilence(testbed)
                    Self.tapClient(testbed) { datagram in
                        var forged = datagram
                        forged.source = Self.attacker
                        // The header with its ID stays, the rest is made up, or one bit is.
                        if testbed.random.next() % 2 == 0 {
                            forged.payload =
                                datagram.payload.prefix(9)
                                + testbed.random.bytes(testbed.random.integer(in: 20...1_200))
                        } else {
                            let place = testbed.random.integer(in: 9...datagram.payload.count - 1)
                            forged.payload[place] ^= 1 << UInt8(testbed.random.integer(in: 0...7))
                        }
                        testbed.network.inject(forged)
                        return .pass
                    }
                }
                return scenario
            }, expecting: Self.nothingMoved)
    }

    @Test("packets replayed from another address move nothing and get no answer (M10)")
    func replayed() async {
        await check(
            { _ in
                var scenario = Self.victim("replayed packets")
                scenario.script = { testbed in
                    Self.expectSilence(testbed)
                    Self.tapClient(testbed) { datagram in
                        var copy = datagram
                        copy.source = Self.attacker
                        let delays = Nanoseconds.milliseconds(1)...(.milliseconds(300))
                        testbed.network.inject(copy, after: testbed.random.time(in: delays))
                        return .pass
                    }
                }
                return scenario
            }, expecting: Self.nothingMoved)
    }

    @Test("packets held back and delivered late from another address move nothing (M10)")
    func reordered() async {
        await check(
            { _ in
                var scenario = Self.victim("reordered packets")
                scenario.script = { testbed in
                    Self.expectSilence(testbed)
                    var held: SimulatedDatagram?
                    Self.tapClient(testbed) { datagram in
                        if let late = held {
                            // It comes from elsewhere, after the one that followed it.
                            held = nil
                            testbed.network.inject(late, after: .milliseconds(10))
                        } else if testbed.random.next() % 10 == 0 {
                            held = datagram
                            held?.source = Self.attacker
                            return .drop
                        }
                        return .pass
                    }
                }
                return scenario
            }, expecting: Self.nothingMoved)
    }

    @Test("the same to the client: forged and replayed packets, from the server's address and from others (M10)")
    func againstTheClient() async {
        await check { _ in
            var scenario = Self.victim("against the client")
            scenario.script = { testbed in
                var isConfirmed = false
                testbed.whenConfirmed { isConfirmed = true }
                testbed.network.addTap { datagram in
                    guard isConfirmed, datagram.source == Testbed.serverAddress else { return .pass }
                    var copy = datagram
                    if testbed.random.next() % 2 == 0 { copy.source = Self.attacker }
                    if testbed.random.next() % 2 == 0 { copy.payload[copy.payload.count - 1] ^= 1 }
                    testbed.network.inject(copy, after: testbed.random.next() % 2 == 0 ? .zero : .milliseconds(30))
                    return .pass
                }
            }
            return scenario
        }
    }

    @Test("copies raced ahead of every packet for half a second: the client gets its connection back (M13, M14)")
    func racedCopies() async {
        await check { random in
            let start = random.time(in: .milliseconds(200)...(.milliseconds(500)))
            let isPortOnly = random.next() % 2 == 0
            var scenario = Self.victim("raced copies")
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.onServerPathEvent { event, _ in
                    guard case .validated(let path, _, _) = event else { return }
                    let tuple = testbed.withServer { $0.pathSnapshot(path)?.tuple } ?? nil
                    testbed.expect(tuple?.remote.port != Self.attacker.port, "the attacker's address was validated")
                }
                Self.tapClient(testbed) { datagram in
                    guard testbed.elapsed >= start, testbed.elapsed < start + .milliseconds(500) else { return .pass }
                    var copy = datagram
                    copy.source = isPortOnly ? datagram.source.withPort(Self.attacker.port) : Self.attacker
                    testbed.network.inject(copy)
                    return .delay(.milliseconds(5))
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 1, "no copy moved the connection: the test does not bite")
        }
    }

    @Test("raced copies of every third packet, all the time: the transfer completes")
    func racedNowAndThen() async {
        await check { random in
            var scenario = Self.victim("copies raced now and then")
            scenario.timeLimit = .seconds(60)
            scenario.access.loss = random.next() % 2 == 0 ? 0 : 0.01
            scenario.script = { testbed in
                Self.tapClient(testbed) { datagram in
                    guard testbed.random.next() % 3 == 0 else { return .pass }
                    var copy = datagram
                    copy.source = Self.attacker
                    testbed.network.inject(copy)
                    return .delay(.milliseconds(3))
                }
            }
            return scenario
        }
    }

    @Test(
        "copies raced ahead under addresses of other scopes and reflectors' ports get no answer and move nothing (M41)")
    func forbiddenSources() async {
        let sources = [
            NetworkAddress(127, 0, 0, 1, port: 50_000), NetworkAddress(169, 254, 1, 1, port: 50_000),
            NetworkAddress(224, 0, 0, 251, port: 50_000), NetworkAddress(0, 0, 0, 0, port: 50_000),
            Self.attacker.withPort(53), Self.attacker.withPort(1_900),
        ]
        await check(
            { _ in
                var scenario = Self.victim("forbidden sources")
                scenario.script = { testbed in
                    testbed.network.addTap { datagram in
                        testbed.expect(
                            !sources.contains(datagram.destination), "the server sent to \(datagram.destination)")
                        return .pass
                    }
                    Self.tapClient(testbed) { datagram in
                        var copy = datagram
                        copy.source = sources[testbed.random.integer(in: 0...sources.count - 1)]
                        testbed.network.inject(copy)
                        return .delay(.milliseconds(2))
                    }
                }
                return scenario
            }, expecting: Self.nothingMoved)
    }

    @Test("10,000 spoofed sources with valid copies: at most 8 paths, and the transfer completes (M40)")
    func spoofedSources() async {
        await check(atMost: 2) { _ in
            var scenario = Self.victim("10,000 spoofed sources")
            scenario.plans = [StreamPlan(download: 300_000, upload: 1_000_000)]
            scenario.timeLimit = .seconds(120)
            scenario.script = { testbed in
                var sources = 0
                testbed.hold()
                Self.tapClient(testbed) { datagram in
                    guard sources < 10_000, testbed.random.next() % 2 == 0 else { return .pass }
                    for _ in 0..<30 where sources < 10_000 {
                        var copy = datagram
                        copy.source = NetworkAddress(ipv4: 0xc613_0000 + UInt32(sources), port: 50_000)
                        testbed.network.inject(copy)
                        sources += 1
                    }
                    if sources == 10_000 { testbed.release() }
                    return .delay(.milliseconds(2))
                }
            }
            return scenario
        } expecting: { report in
            unless(report.peerMoves >= 100, "only \(report.peerMoves) copies moved it: the test does not bite")
                ?? unless(report.mostServerPaths <= 8, "\(report.mostServerPaths) paths")
        }
    }

    @Test("datagrams of random bytes, to both sides all the time, change nothing")
    func noise() async {
        await check(
            { _ in
                var scenario = Self.victim("noise")
                scenario.script = { testbed in
                    func inject() {
                        let length = testbed.random.integer(in: 1...1_400)
                        var noise = SimulatedDatagram(
                            source: Self.attacker, destination: Testbed.serverAddress,
                            payload: testbed.random.bytes(length))
                        testbed.network.inject(noise)
                        noise.source = Testbed.serverAddress
                        noise.destination = testbed.client.interfaces[0].address
                        testbed.network.inject(noise)
                        if !testbed.transfer.isFinished { testbed.after(.milliseconds(3), inject) }
                    }
                    inject()
                }
                return scenario
            }, expecting: Self.nothingMoved)
    }
}
