// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("How connections begin, age and end")
struct LifecycleTests {
    @Test("the first flights are lost in part, in both directions: the handshake completes all the same")
    func lossOfFirstFlights() async {
        await check { random in
            let (fromClient, fromServer) = (random.integer(in: 0...6), random.integer(in: 0...6))
            var scenario = Scenario("loss of the first flights")
            scenario.plans = [StreamPlan(download: 20_000)]
            scenario.client.handshakeTimeout = .seconds(50)
            scenario.server.handshakeTimeout = .seconds(50)
            scenario.script = { testbed in
                var seen = (0, 0)
                testbed.network.addTap { datagram in
                    if datagram.source == Testbed.serverAddress {
                        seen.0 += 1
                        guard seen.0 <= fromServer else { return .pass }
                    } else {
                        seen.1 += 1
                        guard seen.1 <= fromClient else { return .pass }
                    }
                    return testbed.random.next() % 4 == 0 ? .pass : .drop
                }
            }
            return scenario
        }
    }

    @Test("a certificate of several datagrams under loss: the amplification limit never deadlocks the handshake")
    func amplificationDeadlock() async throws {
        let names = (0..<90).map { "a-rather-long-name-to-fill-the-certificate-\($0).server.simulation" }
        let credentials = try SimulationCredentials(additionalNames: names)
        await check { random in
            let dropped = (0..<12).map { _ in random.next() % 3 == 0 }
            var scenario = Scenario("large certificate")
            scenario.credentials = credentials
            scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(300))))
            scenario.client.handshakeTimeout = .seconds(50)
            scenario.server.handshakeTimeout = .seconds(50)
            // Most of the first datagrams may be lost: the waits in between double up to 16 s and more.
            scenario.client.maxIdleTimeout = .seconds(60)
            scenario.server.maxIdleTimeout = .seconds(60)
            scenario.plans = [StreamPlan(download: 20_000)]
            scenario.script = { testbed in
                var seen = 0
                testbed.network.addTap { _ in
                    defer { seen += 1 }
                    return seen < dropped.count && dropped[seen] ? .drop : .pass
                }
            }
            return scenario
        }
    }

    @Test(
        "one of five datagrams is lost, both ways, and both sides have much to say: the handshake is done in time (RFC 9002, 6.2)"
    )
    func lossyHandshake() async throws {
        let names = (0..<90).map { "a-rather-long-name-to-fill-the-certificate-\($0).server.simulation" }
        let credentials = try SimulationCredentials(additionalNames: names)
        await check { random in
            var scenario = Scenario("lossy handshake")
            if random.next() % 2 == 0 { scenario.credentials = credentials }
            scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(200))))
            scenario.access.loss = 0.2
            scenario.client.handshakeTimeout = .seconds(30)
            scenario.server.handshakeTimeout = .seconds(30)
            scenario.plans = [StreamPlan(upload: 200_000), StreamPlan(download: 200_000)]
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    let time = testbed.elapsed
                    testbed.expect(time <= .seconds(15), "the handshake took \(time)")
                    // What follows is other tests' subject.
                    for interface in testbed.client.interfaces { interface.setConditions(LinkConditions()) }
                }
            }
            return scenario
        }
    }

    @Test("three of ten datagrams are lost: slow, but it completes")
    func heavyLoss() async {
        await check(atMost: 5) { _ in
            var scenario = Scenario("heavy loss")
            scenario.access.loss = 0.3
            scenario.setRoundTrip(.milliseconds(20))
            scenario.client.handshakeTimeout = .seconds(60)
            scenario.server.handshakeTimeout = .seconds(60)
            scenario.plans = [StreamPlan(download: 20_000)]
            scenario.timeLimit = .seconds(240)
            return scenario
        }
    }

    @Test("silence ends the connection on both sides after the smaller idle timeout")
    func idleTimeout() async {
        await check { random in
            let timeout = random.time(in: .seconds(2)...(.seconds(20)))
            var scenario = Scenario("idle timeout")
            scenario.client.maxIdleTimeout = timeout
            scenario.ending = .silence
            scenario.plans = [StreamPlan(download: 20_000)]
            return scenario
        } expecting: { report in
            // What the server still had under way when the network went is not answered: then it is the path that failed.
            unless(
                report.serverCloseReason == .idleTimeout || report.serverCloseReason == .noViablePath,
                "the server's connection ended so: \(report.serverCloseReason as Any)")
                ?? unless(report.totalDuration < .seconds(24), "it took \(report.totalDuration)")
        }
    }

    @Test("either side closes: the other hears the code and the reason, and nothing is left")
    func closing() async {
        await check { random in
            let isServer = random.next() % 2 == 0
            var scenario = Scenario(isServer ? "the server closes" : "the client closes")
            scenario.ending = .script
            scenario.plans = [StreamPlan(download: 5_000_000)]
            scenario.access.bandwidth = 4_000_000
            let moment = random.time(in: .milliseconds(100)...(.seconds(1)))
            scenario.script = { testbed in
                testbed.at(moment) {
                    testbed.close(isServer ? testbed.server : testbed.client, code: 42, reason: "that will do")
                }
            }
            return scenario
        } expecting: { report in
            let reasons = [report.clientCloseReason, report.serverCloseReason]
            return unless(
                [true, false].allSatisfy {
                    reasons.contains(.application(code: 42, reason: "that will do", byPeer: $0))
                }, "they ended so: \(reasons)")
                ?? unless(report.totalDuration < .seconds(5), "nothing was forgotten for \(report.totalDuration)")
        }
    }

    @Test("a server that answers no more: the handshake times out, and nothing is left")
    func handshakeTimeout() async {
        await check(atMost: 3) { _ in
            var scenario = Scenario("handshake timeout")
            scenario.ending = .script
            scenario.client.handshakeTimeout = .seconds(4)
            scenario.expectedClientClose = { $0 == .handshakeTimeout }
            scenario.script = { $0.server.interfaces[0].isUp = false }
            return scenario
        } expecting: {
            unless($0.totalDuration <= .seconds(9), "it took \($0.totalDuration)")
        }
    }

    @Test("a server that lost its state resets the connection, from a migrated address, too")
    func statelessReset() async {
        await check { random in
            let isRebound = random.next() % 2 == 0
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(600)))
            var scenario = Scenario("stateless reset")
            scenario.ending = .script
            scenario.serverEndpoint.statelessResetKey = [UInt8](repeating: 7, count: 32)
            scenario.nat = .init()
            scenario.access.bandwidth = 4_000_000
            scenario.plans = [StreamPlan(download: 1_000_000, upload: 1_000_000)]
            scenario.expectedClientClose = { $0 == .statelessReset }
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.at(moment) {
                    testbed.server.restart()
                    if isRebound { testbed.nat?.rebindAddress() }
                }
            }
            return scenario
        }
    }

    @Test("a version nobody speaks is answered with version negotiation, once a datagram, if it is large enough")
    func versionNegotiationByTheServer() async {
        await check { _ in
            var scenario = Scenario("version negotiation")
            scenario.plans = [StreamPlan(download: 20_000)]
            scenario.script = { testbed in
                let stranger = NetworkAddress(198, 51, 100, 7, port: 50_007)
                let header: [UInt8] = [
                    0xc0, 0x5a, 0x6a, 0x7a, 0x8a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 11, 12, 13, 14, 15, 16, 17, 18,
                ]
                var answers: [SimulatedDatagram] = []
                testbed.network.addTap { datagram in
                    guard datagram.destination == stranger else { return .pass }
                    answers.append(datagram)
                    return .drop
                }
                for size in [1_200, 1_350, 1_199, 100] {
                    testbed.network.inject(
                        SimulatedDatagram(
                            source: stranger, destination: Testbed.serverAddress,
                            payload: header + [UInt8](repeating: 0, count: size - header.count)))
                }
                testbed.hold()
                testbed.at(.milliseconds(200)) {
                    testbed.expect(answers.count == 2, "\(answers.count) answers to 2 datagrams of a client's size")
                    for answer in answers {
                        testbed.expect(answer.longHeaderVersion == 0, "the answer is no version negotiation")
                        testbed.expect(
                            answer.longHeaderIDs?.destination == Array(header[15..<23])
                                && answer.longHeaderIDs?.source == Array(header[6..<14]), "the IDs are not swapped")
                    }
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("a client to whom the server names versions it does not speak gives up and says which they are")
    func versionNegotiationToTheClient() async {
        await check(atMost: 3) { _ in
            var scenario = Scenario("no common version")
            scenario.ending = .script
            let versions = [QUICVersion(rawValue: 0x6b33_43cf), QUICVersion(rawValue: 0xff00_001d)]
            scenario.expectedClientClose = { $0 == .versionNegotiationFailed(versions) }
            scenario.script = { testbed in
                testbed.network.addTap { datagram in
                    guard let ids = datagram.longHeaderIDs, datagram.destination == Testbed.serverAddress else {
                        return .drop
                    }
                    var answer: [UInt8] = [0x80, 0, 0, 0, 0, UInt8(ids.source.count)] + ids.source
                    answer += [UInt8(ids.destination.count)] + ids.destination
                    for version in versions {
                        answer += (0..<4).map { UInt8(truncatingIfNeeded: version.rawValue >> (24 - 8 * $0)) }
                    }
                    testbed.network.inject(
                        SimulatedDatagram(source: datagram.destination, destination: datagram.source, payload: answer))
                    return .drop
                }
            }
            return scenario
        }
    }

    @Test("key updates every 100 packets by the client, the server or both, under loss and reordering")
    func keyUpdates() async {
        await check { random in
            let who = random.integer(in: 1...3)
            var scenario = Scenario("key updates")
            if who & 1 != 0 { scenario.client.keyUpdateInterval = 100 }
            if who & 2 != 0 { scenario.server.keyUpdateInterval = 100 }
            scenario.access.loss = random.number(in: 0...0.04)
            scenario.access.reordering = 0.05
            scenario.plans = [StreamPlan(download: 800_000, upload: 800_000)]
            return scenario
        } expecting: { report in
            let updates = max(report.clientStatistics.keyUpdates, report.serverStatistics.keyUpdates)
            return unless(updates >= 3, "only \(updates) key updates")
        }
    }

    @Test("key updates while ports and addresses change")
    func keyUpdatesAndRebindings() async {
        await check { random in
            var scenario = Scenario("key updates and rebindings")
            scenario.client.keyUpdateInterval = 100
            scenario.server.keyUpdateInterval = 100
            scenario.nat = .init()
            scenario.access.loss = 0.01
            scenario.plans = [StreamPlan(download: 400_000, upload: 400_000)]
            let pauses = Nanoseconds.milliseconds(10)...(.milliseconds(400))
            scenario.script = { testbed in
                testbed.whenConfirmed { testbed.nat?.rebindAtRandom([.port, .address], pauses: pauses, count: 5) }
            }
            return scenario
        }
    }
}
