// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("A NAT rebinds under the connection")
struct RebindingTests {
    /// 10 to 300 ms of RTT, 0 to 5 % of loss, one to eight rebindings at random moments after the handshake.
    private static func randomRebinding(
        _ title: String, _ kinds: [SimulatedNAT.Rebinding], _ plans: [StreamPlan], _ random: inout RandomSource,
        nat: SimulatedNAT.Configuration = .init()
    ) -> Scenario {
        var scenario = Scenario(title)
        let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(300)))
        scenario.setRoundTrip(roundTrip)
        scenario.access.loss = random.next() % 4 == 0 ? 0 : random.number(in: 0...0.05)
        scenario.nat = nat
        scenario.plans = plans
        scenario.timeLimit = .seconds(180)
        let count = random.integer(in: 1...8)
        scenario.script = { testbed in
            testbed.whenConfirmed {
                testbed.nat?.rebindAtRandom(kinds, pauses: .milliseconds(1)...(roundTrip * 5), count: count)
            }
        }
        return scenario
    }

    @Test("ports change at random moments of a download under loss (M11, M12)")
    func portsDuringDownload() async {
        await check { Self.randomRebinding("ports, download", [.port], [StreamPlan(download: 200_000)], &$0) }
    }

    @Test("addresses change at random moments of a download under loss (M11, M12)")
    func addressesDuringDownload() async {
        await check { Self.randomRebinding("addresses, download", [.address], [StreamPlan(download: 200_000)], &$0) }
    }

    @Test("ports and addresses change at random moments of an upload under loss (M11)")
    func duringUpload() async {
        await check { Self.randomRebinding("upload", [.port, .address], [StreamPlan(upload: 200_000)], &$0) }
    }

    @Test("ports and addresses change at random moments of three streams in both directions (M11)")
    func duringBoth() async {
        await check { random in
            let plans = (0..<3).map { _ in StreamPlan(download: 60_000, upload: 40_000) }
            return Self.randomRebinding("both directions", [.port, .address], plans, &random)
        }
    }

    @Test("a symmetric NAT rebinds, and one whose old mappings linger (M11)")
    func otherNATs() async {
        await check { random in
            let nat: SimulatedNAT.Configuration =
                random.next() % 2 == 0
                ? .init(mapping: .addressAndPortDependent) : .init(oldMappings: .linger(.milliseconds(500)))
            return Self.randomRebinding(
                "other NATs", [.port, .address], [StreamPlan(download: 200_000)], &random, nat: nat)
        }
    }

    @Test("a rebinding at any moment of the handshake does not break it (M19)")
    func duringHandshake() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(200)))
            let moment = random.time(in: .zero...(roundTrip * 2))
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            var scenario = Scenario("rebinding in the handshake")
            scenario.setRoundTrip(roundTrip)
            // A client that resends its Initial from the new port is served there; old answers must not be lost for good.
            scenario.nat = .init(oldMappings: .linger(.seconds(1)))
            scenario.plans = [StreamPlan(download: 50_000)]
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebind(kind) } }
            return scenario
        }
    }

    @Test(
        "a rebinding at any moment of the handshake does not break it, old mappings dead at once, under loss too (M19)")
    func duringHandshakeDead() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(200)))
            let moment = random.time(in: .zero...(roundTrip * 2))
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            var scenario = Scenario("rebinding in the handshake, dead mappings")
            scenario.setRoundTrip(roundTrip)
            scenario.access.loss = random.next() % 2 == 0 ? 0 : random.number(in: 0...0.1)
            scenario.nat = .init()
            scenario.plans = [StreamPlan(download: 50_000)]
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebind(kind) } }
            return scenario
        }
    }

    @Test("a rebinding between the client's Initial and Handshake packets does not break the handshake (M19)")
    func betweenInitialAndHandshake() async {
        await check { random in
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            let isLossy = random.next() % 2 == 0
            var scenario = Scenario("rebinding between Initial and Handshake")
            scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(200))))
            scenario.access.loss = isLossy ? 0.05 : 0
            scenario.nat = .init()
            scenario.plans = [StreamPlan(download: 50_000)]
            scenario.script = { testbed in
                var isDone = false
                testbed.network.addTap { datagram in
                    // The server's flight has passed the NAT's outside: what the client answers has another source.
                    if !isDone, datagram.source == Testbed.serverAddress, datagram.containsHandshakePacket {
                        isDone = true
                        testbed.after(testbed.scenario.access.delay / 2) { testbed.nat?.rebind(kind) }
                    }
                    return .pass
                }
            }
            return scenario
        }
    }

    @Test("a client with connection IDs of no length survives rebindings (M18)")
    func zeroLengthIDs() async {
        await check { random in
            var scenario = Self.randomRebinding(
                "zero-length IDs", [.port, .address], [StreamPlan(download: 200_000)], &random)
            scenario.clientEndpoint.connectionIDLength = 0
            return scenario
        }
    }

    @Test("disable_active_migration stops neither port nor address rebindings, and stops addPath (M1, M18)")
    func migrationDisabled() async {
        await check { random in
            var scenario = Self.randomRebinding(
                "migration disabled", [.port, .address], [StreamPlan(download: 100_000)], &random)
            scenario.server.disableActiveMigration = true
            scenario.otherInterfaces = [LinkConditions()]
            let rebinding = scenario.script
            scenario.script = { testbed in
                rebinding(testbed)
                testbed.whenConfirmed {
                    let result = testbed.addPath(over: testbed.client.interfaces[1])
                    testbed.expect(result.failure == .migrationDisabledByPeer, "addPath said \(result)")
                }
            }
            return scenario
        }
    }

    /// Rebinds once after a while of download, and compares the server's congestion window before and after.
    private static func windowScenario(
        _ kind: SimulatedNAT.Rebinding, judge: @escaping @Sendable (_ before: Int, _ after: Int) -> Bool
    ) -> Scenario {
        var scenario = Scenario("congestion window over a rebinding")
        scenario.setRoundTrip(.milliseconds(40))
        scenario.access.bandwidth = 40_000_000
        scenario.access.queueLimit = 400_000
        scenario.nat = .init(oldMappings: .linger(.seconds(1)))
        scenario.plans = [StreamPlan(download: 1_500_000)]
        scenario.script = { testbed in
            var before = 0
            testbed.hold()
            testbed.at(.milliseconds(280)) {
                before = testbed.withServer { $0.pathSnapshot($0.activePath)?.congestionWindow ?? 0 } ?? 0
                testbed.nat?.rebind(kind)
            }
            testbed.onServerPathEvent { event, _ in
                guard case .peerMoved(_, let path, let move) = event else { return }
                testbed.expect(move == (kind == .port ? .portOnly : .address), "the move was taken for \(move)")
                let after = testbed.withServer { $0.pathSnapshot(path)?.congestionWindow ?? 0 } ?? 0
                testbed.expect(judge(before, after), "\(before) bytes of window became \(after)")
                testbed.release()
            }
        }
        return scenario
    }

    @Test("a new port keeps RTT and congestion window (M12)")
    func portKeepsWindow() async {
        await check(atMost: 3) { _ in
            Self.windowScenario(.port) { $0 > 40_000 && $1 >= $0 / 2 }
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        }
    }

    @Test("a new address starts with a new congestion window (M12)")
    func addressResetsWindow() async {
        await check(atMost: 3) { _ in
            Self.windowScenario(.address) { $0 > 40_000 && $1 <= 20_000 }
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        }
    }

    @Test("the server's first datagram to a new address comes at once, and its answer validates it (M11)")
    func adoptsAtOnce() async {
        await check { random in
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            let roundTrip = random.time(in: .milliseconds(20)...(.milliseconds(200)))
            var scenario = Scenario("adopts at once")
            scenario.setRoundTrip(roundTrip)
            scenario.nat = .init()
            scenario.access.bandwidth = 4_000_000
            scenario.plans = [StreamPlan(download: 300_000, upload: 300_000)]
            scenario.script = { testbed in
                var movedAt: Instant?
                testbed.hold()
                testbed.whenConfirmed { testbed.after(.milliseconds(150)) { testbed.nat?.rebind(kind) } }
                testbed.onServerPathEvent { event, _ in
                    switch event {
                    case .peerMoved: movedAt = testbed.now
                    case .validated:
                        guard let moved = movedAt else { return }
                        movedAt = nil
                        // The queue of the narrow link takes its time besides the round trip.
                        testbed.expect(
                            testbed.now - moved <= roundTrip + .milliseconds(400),
                            "validated only after \(testbed.now - moved)")
                        testbed.release()
                    default: break
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves == 1, "\($0.peerMoves) moves")
        }
    }
}

extension Result {
    /// The error, if it is one.
    var failure: Failure? {
        if case .failure(let error) = self { return error }
        return nil
    }
    var value: Success? { try? get() }
}
