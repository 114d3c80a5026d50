// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

extension Testbed {
    /// Runs `body` when all is transferred, before the connection is closed.
    func whenTransferred(_ body: @escaping () -> Void) {
        hold()
        func look() {
            guard transfer.isFinished else { return after(.milliseconds(5), look) }
            body()
            release()
        }
        after(.milliseconds(5), look)
    }

    /// The server's active path.
    var serverPath: PathSnapshot? { withServer { $0.pathSnapshot($0.activePath) } ?? nil }
    /// The client's active path.
    var clientPath: PathSnapshot? { withClient { $0.pathSnapshot($0.activePath) } ?? nil }
}

@Suite("Datagram sizes are found on each path (RFC 8899)")
struct PathMTUTests {
    private static func download(_ title: String, _ random: inout RandomSource) -> Scenario {
        var scenario = Scenario(title)
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(100))))
        scenario.access.bandwidth = 20_000_000
        scenario.plans = [StreamPlan(download: 2_000_000)]
        return scenario
    }

    @Test("the size is found to 16 bytes within 30 round trips, and one that fits is in use after 3")
    func search() async {
        await check { random in
            var scenario = Self.download("search", &random)
            let limit = random.integer(in: 1_200...1_472)
            scenario.access.maximumPayload = limit
            // The queue's delay is not to be counted.
            scenario.access.bandwidth = nil
            let roundTrip = scenario.roundTrip
            scenario.script = { testbed in
                var confirmed = testbed.now
                testbed.whenConfirmed { confirmed = testbed.now }
                testbed.onServerPathEvent { event, _ in
                    guard case .datagramSizeChanged(_, _, let size, let change) = event else { return }
                    testbed.expect(change == .probed && size <= limit, "\(size) bytes by \(change)")
                    testbed.expect(
                        testbed.now - confirmed <= roundTrip * 30 + .milliseconds(200),
                        "\(size) bytes only after \(testbed.now - confirmed)")
                }
                testbed.whenTransferred {
                    guard let path = testbed.serverPath else { return testbed.expect(false, "no path") }
                    testbed.expect(path.maximumDatagramSize <= limit, "\(path.maximumDatagramSize) of \(limit)")
                    // A short transfer over a long path may end before the search does.
                    testbed.expect(
                        limit - path.maximumDatagramSize <= 16 || testbed.now - confirmed < roundTrip * 30,
                        "\(path.maximumDatagramSize) of \(limit) after \(testbed.now - confirmed)")
                }
            }
            return scenario
        }
    }

    @Test("random loss of 5 % does not keep the size down, and is hardly ever taken for a black hole")
    func randomLoss() async {
        await check { random in
            var scenario = Self.download("search under loss", &random)
            scenario.access.loss = 0.05
            scenario.timeLimit = .seconds(120)
            scenario.script = { testbed in
                var blackHoles = 0
                testbed.onServerPathEvent { event, _ in
                    if case .datagramSizeChanged(_, _, _, .blackHole) = event { blackHoles += 1 }
                }
                testbed.whenTransferred {
                    testbed.expect(blackHoles <= 1, "\(blackHoles) times a black hole was suspected")
                    let size = testbed.serverPath?.maximumDatagramSize ?? 0
                    testbed.expect(size >= 1_400, "\(size) bytes of 1,472")
                }
            }
            return scenario
        }
    }

    @Test("the path's MTU drops in mid-transfer: smaller datagrams go on, and the new size is found (family 13)")
    func drop() async {
        await check { random in
            var scenario = Self.download("MTU drop", &random)
            scenario.plans = [StreamPlan(download: 3_000_000)]
            let limit = random.integer(in: 1_200...1_400)
            let moment = random.time(in: .milliseconds(500)...(.milliseconds(700)))
            scenario.script = { testbed in
                var isBlackHoleFound = false
                testbed.at(moment) {
                    var conditions = testbed.client.interfaces[0].inbound.conditions
                    conditions.maximumPayload = limit
                    testbed.client.interfaces[0].setConditions(conditions)
                }
                testbed.onServerPathEvent { event, _ in
                    if case .datagramSizeChanged(_, _, 1_200, .blackHole) = event { isBlackHoleFound = true }
                }
                testbed.whenTransferred {
                    let size = testbed.serverPath?.maximumDatagramSize ?? 0
                    testbed.expect(isBlackHoleFound, "nothing was noticed")
                    testbed.expect(size <= limit, "\(size) of \(limit)")
                }
            }
            return scenario
        } expecting: {
            unless($0.largestGap <= .seconds(2), "a gap of \($0.largestGap.inMilliseconds) ms")
        }
    }

    @Test(
        "a new path with a small MTU is searched from 1,200 bytes; the old one has its size back at once (M13, family 7)"
    )
    func smallerPath() async {
        await check { random in
            var scenario = Self.download("small MTU on the new path", &random)
            let limit = random.integer(in: 1_200...1_300)
            scenario.plans = [StreamPlan(download: 4_000_000)]
            var second = scenario.access
            second.maximumPayload = limit
            scenario.otherInterfaces = [second]
            scenario.script = { testbed in
                // What the search had found when the path was left: a datagram of that size may have to wait for the window.
                var left = 1_200
                testbed.onServerPathEvent { event, record in
                    if case .datagramSizeChanged(PathID(0), _, let size, _) = event { left = size }
                    guard case .peerMoved = event, let path = testbed.serverPath else { return }
                    if record.peerMoveCount == 1 {
                        testbed.expect(path.maximumDatagramSize == 1_200, "starts with \(path.maximumDatagramSize)")
                    } else {
                        testbed.expect(
                            path.maximumDatagramSize == left, "restored \(path.maximumDatagramSize) of \(left)")
                    }
                }
                var paths: [PathID] = []
                testbed.onClientPathEvent { event in
                    guard case .validated(let path, _, _) = event, path == paths.last else { return }
                    testbed.switchPath(to: path)
                    testbed.after(.milliseconds(400)) {
                        let size = testbed.serverPath?.maximumDatagramSize ?? 0
                        testbed.expect(size <= limit, "\(size) of \(limit) on the new path")
                        testbed.switchPath(to: PathID(0))
                    }
                }
                testbed.at(.milliseconds(600)) {
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "no path")
                    }
                    paths.append(path)
                    testbed.probe(path)
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 2, "\($0.peerMoves) moves")
        }
    }

    @Test("with the search turned off every datagram has the size given")
    func turnedOff() async {
        await check(atMost: 2) { random in
            var scenario = Self.download("no search", &random)
            scenario.server.searchesPathMTU = false
            scenario.client.searchesPathMTU = false
            scenario.script = { testbed in
                testbed.network.addTap { datagram in
                    testbed.expect(datagram.payload.count <= 1_200, "\(datagram.payload.count) bytes")
                    return .pass
                }
            }
            return scenario
        }
    }
}

@Suite("ECN is validated on each path (RFC 9000, section 13.4.2)")
struct PathECNTests {
    private static func scenario(_ title: String, _ random: inout RandomSource) -> Scenario {
        var scenario = Scenario(title)
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(60))))
        scenario.access.bandwidth = 10_000_000
        scenario.plans = [StreamPlan(download: 1_500_000, upload: 200_000)]
        return scenario
    }

    @Test("a path that carries marks is found capable by both sides")
    func capable() async {
        await check { random in
            var scenario = Self.scenario("ECN passes", &random)
            scenario.access.loss = random.number(in: 0...0.02)
            scenario.script = { testbed in
                testbed.whenTransferred {
                    testbed.expect(testbed.serverPath?.ecn == .capable, "server: \(testbed.serverPath?.ecn as Any)")
                    testbed.expect(testbed.clientPath?.ecn == .capable, "client: \(testbed.clientPath?.ecn as Any)")
                }
            }
            return scenario
        }
    }

    @Test("a queue that marks instead of dropping is heeded: nothing is lost, and the link stays in use")
    func congestionMarks() async {
        await check { random in
            var scenario = Self.scenario("a marking queue", &random)
            scenario.setRoundTrip(.milliseconds(40))
            scenario.access.congestionMarkThreshold = 30_000
            scenario.plans = [StreamPlan(download: 4_000_000)]
            scenario.script = { testbed in
                testbed.whenTransferred {
                    let marks = testbed.serverPath?.statistics.congestionMarks ?? 0
                    testbed.expect(marks > 0, "no mark was reported")
                }
            }
            return scenario
        } expecting: {
            unless($0.serverStatistics.packetsLost == 0, "\($0.serverStatistics.packetsLost) packets lost")
                ?? unless($0.goodput >= 8_000_000, "\($0.goodput) bit/s of 10 Mbit/s")
        }
    }

    @Test(
        "where marks are erased, changed or make datagrams vanish, marking stops and the transfer hardly suffers (family 13)",
        arguments: [ECNTreatment.bleaches, .remarks, .drops])
    func broken(treatment: ECNTreatment) async {
        await check { random in
            var scenario = Self.scenario("ECN is broken: \(treatment)", &random)
            scenario.access.ecn = treatment
            scenario.script = { testbed in
                testbed.whenTransferred {
                    testbed.expect(testbed.serverPath?.ecn == .failed, "server: \(testbed.serverPath?.ecn as Any)")
                }
            }
            return scenario
        } expecting: {
            // The loss of all the packets of the test cannot be told from congestion: slow start ends early.
            unless($0.goodput >= (treatment == .drops ? 2_500_000 : 6_500_000), "\($0.goodput) bit/s of 10 Mbit/s")
        }
    }

    @Test("marks that begin to be erased, changed or fatal in mid-transfer are noticed (family 13)")
    func breaksLater() async {
        await check { random in
            var scenario = Self.scenario("ECN breaks", &random)
            let treatment: ECNTreatment = [.bleaches, .remarks, .drops][random.integer(in: 0...2)]
            scenario.plans = [StreamPlan(download: 3_000_000)]
            scenario.script = { testbed in
                testbed.at(.milliseconds(500)) {
                    var conditions = testbed.client.interfaces[0].inbound.conditions
                    conditions.ecn = treatment
                    testbed.client.interfaces[0].setConditions(conditions)
                }
                testbed.whenTransferred {
                    testbed.expect(testbed.serverPath?.ecn != .capable, "\(treatment) was not noticed")
                }
            }
            return scenario
        } expecting: {
            // Where what carries marks vanishes both ways, each side must notice by its own probe timeouts.
            unless($0.largestGap <= .seconds(4), "a gap of \($0.largestGap.inMilliseconds) ms")
        }
    }

    @Test("another address is tested anew, and a path taken up again has its verdict back (M12, M13)")
    func moves() async {
        await check { random in
            var scenario = Self.scenario("ECN over a move", &random)
            scenario.plans = [StreamPlan(download: 4_000_000)]
            scenario.otherInterfaces = [scenario.access]
            scenario.access.ecn = .bleaches
            scenario.accessInbound = scenario.access
            scenario.script = { testbed in
                testbed.onServerPathEvent { event, record in
                    guard case .peerMoved = event, let path = testbed.serverPath else { return }
                    let isFirst = record.peerMoveCount == 1
                    // The datagrams to be tested may all have left already.
                    let expected: [PathECNState] = isFirst ? [.testing, .unknown] : [.failed]
                    testbed.expect(expected.contains(path.ecn), "\(path.ecn) after move \(record.peerMoveCount)")
                }
                testbed.onClientPathEvent { event in
                    guard case .validated(let path, _, _) = event, path != PathID(0) else { return }
                    testbed.switchPath(to: path)
                    testbed.after(.milliseconds(800)) {
                        testbed.expect(testbed.serverPath?.ecn == .capable, "\(testbed.serverPath?.ecn as Any)")
                        testbed.switchPath(to: PathID(0))
                    }
                }
                testbed.at(.milliseconds(600)) {
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "no path")
                    }
                    testbed.probe(path)
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 2, "\($0.peerMoves) moves")
        }
    }
}
