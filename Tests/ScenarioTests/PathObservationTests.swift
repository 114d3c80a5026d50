// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("What can be seen of paths: every event, every figure (M45)")
struct PathObservationTests {
    private static func twoNetworks(_ title: String, _ random: inout RandomSource) -> Scenario {
        var scenario = Scenario(title)
        scenario.access.bandwidth = 3_000_000
        scenario.otherInterfaces = [scenario.access]
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(60))))
        scenario.plans = [StreamPlan(download: 400_000, upload: 50_000)]
        return scenario
    }

    /// Gathers what is told of paths, but for datagram sizes and ECN, which have tests of their own.
    private final class Log {
        var client: [PathEvent] = []
        var server: [PathEvent] = []

        init(_ testbed: Testbed) {
            testbed.onClientPathEvent { if Log.isKept($0) { self.client.append($0) } }
            testbed.onServerPathEvent { event, _ in if Log.isKept(event) { self.server.append(event) } }
        }

        private static func isKept(_ event: PathEvent) -> Bool {
            switch event {
            case .datagramSizeChanged, .ecnChanged: false
            default: true
            }
        }
    }

    private static let first = PathID(0)
    private static let second = PathID(1)

    @Test("a path's life in order: added, probing, validated with its RTT, switched with its reason, closed (M45)")
    func life() async {
        await check { random in
            var scenario = Self.twoNetworks("a path's life", &random)
            let roundTrip = scenario.roundTrip
            scenario.script = { testbed in
                let log = Log(testbed)
                testbed.hold()
                testbed.at(.milliseconds(400)) {
                    log.client = []
                    log.server = []
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "addPath failed")
                    }
                    testbed.probe(path)
                }
                testbed.at(.milliseconds(650)) { testbed.switchPath(to: Self.second) }
                testbed.at(.milliseconds(900)) { testbed.closePath(Self.first) }
                testbed.at(.milliseconds(1_200)) {
                    guard log.client.count == 5, case .validated(Self.second, let rtt, challenges: 1) = log.client[2]
                    else { return testbed.expect(false, "told \(log.client)") }
                    testbed.expect(
                        rtt >= roundTrip && rtt < roundTrip + .milliseconds(100), "\(rtt) of \(roundTrip)")
                    let expected: [PathEvent] = [
                        .added(Self.second), .probing(Self.second), log.client[2],
                        .switched(from: Self.first, to: Self.second, .application), .closed(Self.first),
                    ]
                    testbed.expect(log.client == expected, "told \(log.client)")
                    // A packet that was overtaken on the old path may come after its end, and is of another one then.
                    let atServer = log.server.filter { if case .validated = $0 { false } else { true } }.prefix(4)
                    let expectedAtServer: [PathEvent] = [
                        .added(Self.second), .peerMoved(from: Self.first, to: Self.second, .address),
                        .switched(from: Self.first, to: Self.second, .peerMoved), .closed(Self.first),
                    ]
                    testbed.expect(Array(atServer) == expectedAtServer, "the server was told \(log.server)")
                    let isProved = log.server.contains {
                        if case .validated(Self.second, let rtt, _) = $0 { rtt >= roundTrip } else { false }
                    }
                    testbed.expect(isProved, "the server was told of no proof: \(log.server)")
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("back on a path that was left: restored, before the move that it comes with (M13, M45)")
    func restored() async {
        await check { random in
            var scenario = Self.twoNetworks("back again", &random)
            scenario.script = { testbed in
                let log = Log(testbed)
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    if let path = testbed.addPath(over: testbed.client.interfaces[1]).value { testbed.probe(path) }
                }
                testbed.at(.milliseconds(600)) { testbed.switchPath(to: Self.second) }
                testbed.at(.milliseconds(900)) {
                    log.server = []
                    testbed.switchPath(to: Self.first)
                }
                testbed.at(.milliseconds(1_200)) {
                    let told = log.server.filter { if case .validated = $0 { false } else { true } }
                    let expected: [PathEvent] = [
                        .restored(Self.first), .peerMoved(from: Self.second, to: Self.first, .address),
                        .switched(from: Self.second, to: Self.first, .peerMoved),
                    ]
                    testbed.expect(told == expected, "the server was told \(log.server)")
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("a NAT's new port and new address are told apart (M12, M45)")
    func kindsOfMoves() async {
        await check { random in
            var scenario = Self.twoNetworks("two kinds of moves", &random)
            scenario.nat = .init()
            scenario.script = { testbed in
                var moves: [PeerMove] = []
                testbed.onServerPathEvent { event, _ in
                    if case .peerMoved(_, _, let kind) = event { moves.append(kind) }
                }
                testbed.hold()
                testbed.at(.milliseconds(300)) { testbed.nat?.rebindPort() }
                testbed.at(.milliseconds(800)) { testbed.nat?.rebindAddress() }
                testbed.at(.milliseconds(1_500)) {
                    testbed.expect(moves == [.portOnly, .address], "\(moves)")
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("each failure with its reason: no response, refused sends and their end, a lost socket (M45)")
    func failures() async {
        await check { random in
            var scenario = Self.twoNetworks("failures", &random)
            scenario.script = { testbed in
                let log = Log(testbed)
                let interfaces = testbed.client.interfaces
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    log.client = []
                    interfaces[1].isUp = false
                    if let path = testbed.addPath(over: interfaces[1]).value {
                        testbed.probe(path, timeout: .milliseconds(400))
                    }
                }
                // ENETUNREACH, in mid-transfer.
                testbed.at(.milliseconds(800)) { interfaces[0].sendError = 101 }
                testbed.at(.milliseconds(850)) { interfaces[0].sendError = nil }
                testbed.at(.milliseconds(2_500)) { testbed.client.lose(interfaces[1]) }
                testbed.at(.milliseconds(2_600)) {
                    let told = log.client.filter { if case .degraded = $0 { false } else { true } }
                    let expected: [PathEvent] = [
                        .added(Self.second), .probing(Self.second), .failed(Self.second, .noResponse),
                        .failed(Self.first, .sendError(101)), .recovered(Self.first),
                        .failed(Self.second, .transportLost),
                    ]
                    testbed.expect(told == expected, "told \(log.client)")
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("bytes and packets are those of the path's link, and every other figure is of this path (M45)")
    func figures() async {
        await check(atMost: 5) { random in
            var scenario = Self.twoNetworks("figures", &random)
            scenario.access.congestionMarkThreshold = 6_000
            scenario.access.queueLimit = 1 << 20
            scenario.plans = [StreamPlan(download: 800_000, upload: 400_000)]
            let roundTrip = scenario.roundTrip
            scenario.script = { testbed in
                let link = testbed.client.interfaces[0]
                // Lost behind the client's own link, so that this one carries all that the client sends.
                var count = 0
                testbed.network.addTap { datagram in
                    count += 1
                    return count % 101 == 0 && datagram.payload.count > 1_000 ? .drop : .pass
                }
                testbed.at(.milliseconds(300)) { testbed.probe(Self.first) }
                testbed.at(.milliseconds(400)) { link.sendError = 101 }
                testbed.at(.milliseconds(430)) { link.sendError = nil }
                testbed.whenTransferred {
                    testbed.hold()
                    // Until all is acknowledged.
                    testbed.after(.seconds(1)) {
                        guard let path = testbed.clientPath, let server = testbed.serverPath else {
                            return testbed.expect(false, "no path")
                        }
                        let counters = path.statistics
                        let carried = link.outbound.counters
                        let received = link.inbound.counters
                        // But for datagrams of the handshake that came again, when their keys were gone.
                        let unread = received.carriedBytes - Int(counters.bytesReceived)
                        testbed.expect(
                            (0...6_000).contains(unread), "\(unread) bytes of \(received.carriedBytes) do not count")
                        // Refused datagrams count as sent: they are retransmitted like lost ones.
                        let refused = Int(counters.bytesSent) - carried.carriedBytes
                        testbed.expect(
                            (1...64 * 1_500).contains(refused), "\(refused) bytes more than \(carried.carriedBytes)")
                        testbed.expect(
                            counters.packetsSent > UInt64(carried.carried)
                                && counters.packetsReceived + 5 > UInt64(received.carried),
                            "\(counters) for \(carried) and \(received)")
                        testbed.expect(
                            counters.packetsLost > 0 && server.statistics.packetsLost > 0, "nothing counts as lost")
                        // Behind a long queue a challenge is repeated, and one may be lost.
                        let answered = server.statistics.challengesReceived
                        testbed.expect(
                            answered >= 1 && (answered...answered + 1).contains(counters.challengesSent),
                            "\(counters.challengesSent) and \(answered) challenges")
                        testbed.expect(counters.mtuProbesSent > 0, "no MTU probe")
                        testbed.expect(server.statistics.congestionMarks > 0, "no congestion mark")
                        testbed.expect(counters.sendErrors > 0, "no send error")
                        testbed.expect(
                            path.minimumRTT >= roundTrip && path.smoothedRTT >= path.minimumRTT
                                && path.latestRTT >= path.minimumRTT,
                            "RTT \(path.minimumRTT), \(path.smoothedRTT), \(path.latestRTT) of \(roundTrip)")
                        testbed.expect(
                            path.maximumDatagramSize > 1_200 && server.maximumDatagramSize > 1_200, "no larger datagram"
                        )
                        testbed.expect(
                            server.congestionWindow >= 2 * server.maximumDatagramSize && !server.isInSlowStart,
                            "a window of \(server.congestionWindow)")
                        testbed.expect(path.ecn == .capable && server.ecn == .capable, "\(path.ecn), \(server.ecn)")
                        testbed.expect(path.bytesInFlight == 0, "\(path.bytesInFlight) bytes in flight")
                        testbed.expect(
                            path.isActive && path.state == .validated && path.destinationConnectionID != nil, "\(path)")
                        testbed.release()
                    }
                }
            }
            return scenario
        }
    }
}
