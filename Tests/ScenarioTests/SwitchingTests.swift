// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("The client moves by itself")
struct SwitchingTests {
    /// A client with two networks of 40 ms and 4 Mbit/s, downloading for about a second.
    ///
    /// - Parameters:
    ///   - queueLimit: bytes. Where gaps are measured it holds the whole transfer, so that none comes from a full queue.
    private static func twoNetworks(_ title: String, queueLimit: Int = 60_000) -> Scenario {
        var scenario = Scenario(title)
        scenario.access = LinkConditions(delay: .milliseconds(10), bandwidth: 4_000_000, queueLimit: queueLimit)
        scenario.otherInterfaces = [scenario.access]
        scenario.serverAccess.delay = .milliseconds(10)
        scenario.plans = [StreamPlan(download: 400_000, upload: 50_000)]
        return scenario
    }

    /// Adds a path over the second interface at `time`, probes it, and calls `body` when it is validated.
    private static func probeSecond(
        _ testbed: Testbed, at time: Nanoseconds, then body: @escaping (PathID) -> Void
    ) {
        var second: PathID?
        testbed.hold()
        testbed.at(time) {
            second = testbed.addPath(over: testbed.client.interfaces[1]).value
            testbed.expect(second != nil, "addPath failed")
            if let second { testbed.expect(testbed.probe(second).failure == nil, "probe refused") }
        }
        testbed.onClientPathEvent { event in
            guard case .validated(let path, _, _) = event, path == second else { return }
            second = nil
            body(path)
            testbed.release()
        }
    }

    @Test("add, probe, switch, close: the download goes on without a gap of more than a round trip (M1 to M5)")
    func graceful() async {
        await check { random in
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(600)))
            var scenario = Self.twoNetworks("graceful switch", queueLimit: 500_000)
            scenario.script = { testbed in
                Self.probeSecond(testbed, at: moment) { path in
                    testbed.expect(testbed.switchPath(to: path).failure == nil, "switch refused")
                    testbed.after(.milliseconds(100)) {
                        testbed.expect(testbed.closePath(PathID(0)).failure == nil, "close refused")
                        testbed.client.lose(testbed.client.interfaces[0])
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(report.switches == 1 && report.peerMoves == 1, "not one switch and one move")
                ?? unless(report.largestGap <= .milliseconds(130), "a gap of \(report.largestGap)")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server linked paths by an ID (M17)")
        }
    }

    @Test(
        "addPath sends nothing (M1); a probe is one padded challenge under a fresh ID, answered at once (M2, M16, M17)")
    func probing() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(1)...(.milliseconds(200)))
            var scenario = Self.twoNetworks("probing")
            scenario.setRoundTrip(roundTrip)
            scenario.otherInterfaces[0].bandwidth = nil
            scenario.script = { testbed in
                let second = testbed.client.interfaces[1].address
                var sentAt: Instant?
                var answers = 0
                testbed.network.addTap { datagram in
                    if datagram.source == second {
                        if sentAt == nil { sentAt = testbed.now }
                        testbed.expect(
                            datagram.payload.count >= 1_200, "a challenge in \(datagram.payload.count) bytes (M2)")
                    } else if datagram.destination == second, let sent = sentAt {
                        if answers == 0 {
                            let delay = testbed.now - sent
                            testbed.expect(
                                delay <= testbed.scenario.serverAccess.delay * 2 + .milliseconds(1),
                                "answered after \(delay) (M16)")
                            testbed.expect(datagram.payload.count >= 1_200, "the answer is not padded (M16)")
                        }
                        answers += 1
                    }
                    return .pass
                }
                testbed.hold()
                var path: PathID?
                testbed.at(.seconds(1)) {
                    path = testbed.addPath(over: testbed.client.interfaces[1]).value
                    testbed.expect(path != nil, "addPath failed")
                }
                testbed.at(.seconds(2)) {
                    testbed.expect(sentAt == nil, "addPath sent something (M1)")
                    if let path { testbed.probe(path) }
                }
                var validations = 0
                testbed.onClientPathEvent { event in
                    guard case .validated(let id, let rtt, let challenges) = event, id == path else { return }
                    validations += 1
                    testbed.expect(challenges == 1, "\(challenges) challenges without loss")
                    testbed.expect(
                        rtt >= roundTrip - .microseconds(1) && rtt <= roundTrip + .milliseconds(1),
                        "an RTT of \(rtt), not \(roundTrip)")
                    guard validations == 1 else { return testbed.release() }
                    // A validated path can be probed again.
                    testbed.after(.milliseconds(500)) {
                        testbed.expect(testbed.probe(id).failure == nil, "a second probe was refused")
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(report.peerMoves == 0 && report.switches == 0, "a probe moved the connection (M10)")
        }
    }

    @Test("lost challenges are repeated, soon on a short network and ever more slowly (M2)")
    func repeatedChallenges() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(1)...(.milliseconds(60)))
            let lost = random.integer(in: 1...4)
            var scenario = Self.twoNetworks("lost challenges")
            scenario.access.bandwidth = nil
            scenario.otherInterfaces[0].bandwidth = nil
            scenario.setRoundTrip(roundTrip)
            scenario.script = { testbed in
                let second = testbed.client.interfaces[1].address
                var sent: [Instant] = []
                testbed.network.addTap { datagram in
                    guard datagram.source == second else { return .pass }
                    sent.append(testbed.now)
                    return sent.count <= lost ? .drop : .pass
                }
                Self.probeSecond(testbed, at: .seconds(1)) { _ in
                    let gaps = zip(sent, sent.dropFirst()).map { $1 - $0 }
                    testbed.expect(sent.count > lost, "validated without a challenge that got through")
                    testbed.expect(
                        gaps.first.map { $0 <= roundTrip * 6 + .milliseconds(10) } ?? false,
                        "the first repetition came after \(gaps)")
                    testbed.expect(
                        zip(gaps, gaps.dropFirst()).allSatisfy { $1.rawValue >= $0.rawValue * 3 / 2 },
                        "no backoff: \(gaps)")
                }
            }
            return scenario
        }
    }

    @Test("a probe into a black hole fails at its timeout and disturbs nothing (M8)")
    func probeTimeout() async {
        await check { random in
            let timeout = random.time(in: .milliseconds(100)...(.seconds(3)))
            var scenario = Self.twoNetworks("probe timeout", queueLimit: 500_000)
            scenario.otherInterfaces[0].isUp = false
            scenario.script = { testbed in
                var started: Instant?
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else { return }
                    started = testbed.now
                    testbed.probe(path, timeout: timeout)
                    testbed.onClientPathEvent { event in
                        guard case .failed(path, let failure) = event, let start = started else { return }
                        started = nil
                        testbed.expect(failure == .noResponse, "it failed with \(failure)")
                        let time = testbed.now - start
                        testbed.expect(
                            time >= timeout && time <= timeout + .milliseconds(30),
                            "it failed after \(time), not \(timeout)")
                        testbed.expect(
                            testbed.switchPath(to: path).failure == .notValidated(path), "switch to a failed path (M4)")
                        testbed.release()
                    }
                }
            }
            return scenario
        } expecting: {
            unless($0.largestGap < .milliseconds(150), "a gap of \($0.largestGap)")
        }
    }

    @Test("six candidates are probed at once with three spare IDs: each gets its turn (M3)")
    func manyCandidates() async {
        await check { _ in
            var scenario = Self.twoNetworks("six candidates")
            scenario.otherInterfaces = (1...6).map { LinkConditions(delay: .milliseconds(Int64(5 * $0))) }
            scenario.client.activeConnectionIDLimit = 4
            scenario.script = { testbed in
                var waiting: [PathID] = []
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    for interface in testbed.client.interfaces.dropFirst() {
                        guard let path = testbed.addPath(over: interface).value else {
                            return testbed.expect(false, "addPath failed")
                        }
                        waiting.append(path)
                        testbed.probe(path, timeout: .seconds(5))
                    }
                }
                testbed.onClientPathEvent { event in
                    switch event {
                    case .validated(let path, _, _):
                        guard let index = waiting.firstIndex(of: path) else { return }
                        waiting.remove(at: index)
                        // Its ID is retired, and the server issues another.
                        testbed.closePath(path)
                        if waiting.isEmpty { testbed.release() }
                    case .failed(let path, let failure): testbed.expect(false, "\(path) failed: \(failure)")
                    default: break
                    }
                }
            }
            return scenario
        }
    }

    @Test("without spare IDs a candidate waits, and fails with that reason at its timeout (M3)")
    func noSpareID() async {
        await check(atMost: 3) { _ in
            var scenario = Self.twoNetworks("no spare ID")
            scenario.otherInterfaces = (0..<2).map { _ in LinkConditions() }
            scenario.client.activeConnectionIDLimit = 2
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    let paths = testbed.client.interfaces.dropFirst().compactMap { testbed.addPath(over: $0).value }
                    guard paths.count == 2 else { return testbed.expect(false, "addPath failed") }
                    for path in paths { testbed.probe(path, timeout: .seconds(1)) }
                    testbed.onClientPathEvent { event in
                        switch event {
                        case .failed(let path, let failure):
                            testbed.expect(
                                path == paths[1] && failure == .noConnectionIDAvailable, "\(path) failed: \(failure)")
                            testbed.release()
                        case .validated(let path, _, _):
                            testbed.expect(path == paths[0], "\(path) was validated without an ID")
                        default: break
                        }
                    }
                }
            }
            return scenario
        }
    }

    @Test("WiFi dies and the client switches to an unvalidated path at once: data flows, then it is validated (M4)")
    func withoutValidation() async {
        await check { random in
            let moment = random.time(in: .milliseconds(150)...(.milliseconds(700)))
            var scenario = Self.twoNetworks("switch without validation")
            scenario.otherInterfaces[0].loss = random.next() % 2 == 0 ? 0 : 0.02
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(moment) {
                    testbed.client.interfaces[0].isUp = false
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "addPath failed")
                    }
                    testbed.expect(
                        testbed.switchPath(to: path).failure == .notValidated(path), "a switch without a probe")
                    let result = testbed.switchPath(to: path, withoutValidation: true)
                    testbed.expect(result.failure == nil, "refused: \(result)")
                    testbed.onClientPathEvent { event in
                        if case .validated(path, _, _) = event { testbed.release() }
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(report.largestGap < .seconds(2), "a gap of \(report.largestGap)")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server linked paths by an ID (M17)")
        }
    }

    @Test(
        "verbs are refused with the right errors: active path, server, too many paths, closed connection (M1, M5, M8, M40)"
    )
    func refusals() async {
        await check(atMost: 3) { _ in
            var scenario = Self.twoNetworks("refusals")
            scenario.otherInterfaces = (0..<8).map { _ in LinkConditions() }
            scenario.ending = .script
            scenario.script = { testbed in
                testbed.at(.milliseconds(300)) {
                    testbed.expect(
                        testbed.closePath(PathID(0)).failure == .pathActive(PathID(0)), "the active path was closed")
                    let added = testbed.client.interfaces.dropFirst().map { testbed.addPath(over: $0) }
                    testbed.expect(added.prefix(7).allSatisfy { $0.value != nil }, "fewer than 8 paths: \(added)")
                    testbed.expect(added[7].failure == .tooManyPaths(limit: 8), "a ninth path: \(added[7])")
                    guard let path = added[0].value else { return }
                    testbed.expect(testbed.closePath(path).failure == nil, "close refused")
                    testbed.expect(testbed.closePath(path).failure == nil, "closing twice does harm")
                    testbed.expect(testbed.probe(path).failure == .unknownPath(path), "a closed path was probed")
                    testbed.withServer { connection in
                        do throws(MigrationError) {
                            _ = try connection.addPath(
                                over: FourTuple(
                                    transport: testbed.server.interfaces[0].transport, local: Testbed.serverAddress,
                                    remote: NetworkAddress(203, 0, 113, 99, port: 9)))
                            testbed.expect(false, "a server added a path")
                        } catch {
                            testbed.expect(error == .serverCannotMigrate, "\(error)")
                        }
                    }
                }
                testbed.at(.milliseconds(400)) {
                    let other = PathID(2)
                    testbed.close(testbed.client, code: 7)
                    let reason = CloseReason.application(code: 7, reason: "", byPeer: false)
                    let results = [
                        testbed.probe(other).failure, testbed.switchPath(to: other).failure,
                        testbed.closePath(other).failure, testbed.addPath(over: testbed.client.interfaces[8]).failure,
                    ]
                    testbed.expect(
                        results.allSatisfy { $0 == .connectionClosed(reason) }, "after close the verbs said \(results)")
                }
            }
            return scenario
        }
    }

    @Test("1,000 switches between two paths that are kept, under load (M6)")
    func thousandSwitches() async {
        await check(atMost: 1) { _ in
            Self.thousand(.keepsPaths)
        } expecting: { report in
            unless(report.switches == 1_000, "\(report.switches) switches")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server linked paths by an ID (M17)")
        }
    }

    @Test("1,000 switches, each to a path added and probed for it, each old path closed, under load (M6, M17)")
    func thousandFreshPaths() async {
        await check(atMost: 1) { _ in
            Self.thousand(.closesPaths)
        } expecting: { report in
            unless(report.switches == 1_000, "\(report.switches) switches")
                ?? unless(report.serverDestinationIDs >= 900, "only \(report.serverDestinationIDs) IDs were used (M17)")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server linked paths by an ID (M17)")
        }
    }

    private static func thousand(_ style: Hopper.Style) -> Scenario {
        var scenario = twoNetworks("1,000 switches")
        scenario.access.bandwidth = 2_000_000
        scenario.otherInterfaces = [scenario.access]
        scenario.setRoundTrip(.milliseconds(4))
        scenario.plans = [StreamPlan(download: 1_500_000, upload: 500_000)]
        scenario.timeLimit = .seconds(120)
        scenario.script = { testbed in
            Hopper(testbed, style, moves: 1_000, pauses: .milliseconds(1)...(.milliseconds(10)))
        }
        return scenario
    }

    @Test("40 switches under loss, reordering and duplication (M6, M10, M17)")
    func switchesUnderLoss() async {
        await check { random in
            var scenario = Self.twoNetworks("switches under loss")
            scenario.access.loss = random.number(in: 0...0.05)
            scenario.access.reordering = 0.05
            scenario.access.duplication = 0.05
            scenario.otherInterfaces = [scenario.access]
            scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(100))))
            scenario.timeLimit = .seconds(180)
            let style: Hopper.Style = random.next() % 2 == 0 ? .keepsPaths : .closesPaths
            scenario.script = { testbed in
                Hopper(testbed, style, moves: 40, pauses: .milliseconds(1)...(.milliseconds(100)))
            }
            return scenario
        } expecting: {
            unless($0.switches == 40, "\($0.switches) switches")
        }
    }
}
