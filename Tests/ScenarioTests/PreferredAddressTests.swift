// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

/// Family 11: a server with an address that it prefers (RFC 9000, section 9.6).
@Suite("The server's preferred address (M30, M31)")
struct PreferredAddressTests {
    /// A download of about a second and a small upload, from a server that prefers other addresses, over 40 ms.
    private static func preferring(_ title: String, ipv4: Bool = true, ipv6: Bool = false) -> Scenario {
        var scenario = Scenario(title)
        scenario.access = LinkConditions(delay: .milliseconds(10), bandwidth: 4_000_000, queueLimit: 500_000)
        scenario.serverAccess.delay = .milliseconds(10)
        if ipv6 { scenario.clientIPv6 = scenario.access }
        scenario.plans = [StreamPlan(download: 400_000, upload: 50_000)]
        scenario.offerPreferredAddresses(ipv4: ipv4, ipv6: ipv6)
        return scenario
    }

    /// Holds to it that the client ends up at `address` by a move for that reason, and its server with it.
    private static func expectMove(_ testbed: Testbed, to address: NetworkAddress, by move: PeerMove? = nil) {
        testbed.hold()
        testbed.hold()
        testbed.onClientPathEvent { event in
            guard case .switched(_, let path, .preferredAddress) = event else { return }
            let remote = testbed.withClient { $0.pathSnapshot(path)?.tuple.remote }
            testbed.expect(remote == address, "moved to \(String(describing: remote)), not \(address)")
            testbed.release()
        }
        testbed.onServerPathEvent { event, _ in
            switch event {
            case .peerMoved(let old, let path, let kind):
                let snapshot = testbed.withServer { $0.pathSnapshot(path) } ?? nil
                let left = testbed.withServer { $0.pathSnapshot(old) } ?? nil
                // From there the client is followed at once (M11).
                guard snapshot?.tuple.local == address, left?.tuple.local != address else { return }
                testbed.expect(snapshot?.state == .validated, "followed before \(address) was proved (9.6.2)")
                testbed.expect(move.map { $0 == kind } ?? true, "the move was taken for \(kind)")
                testbed.release()
            default: break
            }
        }
    }

    /// Nothing is ever sent but to and from the address of the handshake.
    private static func expectNoMove(_ testbed: Testbed, unlessProbing probed: [NetworkAddress] = []) {
        let known = [Testbed.serverAddress] + probed
        let clients = testbed.client.interfaces.map(\.address)
        testbed.network.addTap { datagram in
            testbed.expect(
                !clients.contains(datagram.source) || known.contains(datagram.destination),
                "the client sent to \(datagram.destination)")
            return .pass
        }
        testbed.onClientPathEvent { event in
            if case .switched = event { testbed.expect(false, "the client moved: \(event)") }
        }
    }

    @Test(
        "the client proves it when the handshake is confirmed, then moves, under a new ID, and no data is held up (M30, M31)"
    )
    func moves() async {
        await check { random in
            var scenario = Self.preferring("preferred IPv4 address")
            scenario.setRoundTrip(random.time(in: .milliseconds(2)...(.milliseconds(150))))
            scenario.script = { testbed in
                Self.expectMove(testbed, to: Testbed.preferredIPv4, by: .preferredAddress)
                var isConfirmed = false
                var isProved = false
                var handshakeIDs: Set<ConnectionID> = []
                testbed.whenConfirmed { isConfirmed = true }
                testbed.onClientPathEvent { event in
                    if case .validated = event { isProved = true }
                }
                var firstFromThere: Int?
                testbed.network.addTap { datagram in
                    let id = datagram.shortHeaderDestinationID(length: 8)
                    if datagram.destination == Testbed.serverAddress, let id { handshakeIDs.insert(id) }
                    if datagram.destination == Testbed.preferredIPv4 {
                        testbed.expect(isConfirmed, "sent to the preferred address in the handshake")
                        testbed.expect(
                            isProved || datagram.payload.count >= 1_200,
                            "no padded challenge: \(datagram.payload.count)")
                        testbed.expect(id.map { !handshakeIDs.contains($0) } ?? false, "an ID used before (M17)")
                    }
                    if datagram.source == Testbed.preferredIPv4, firstFromThere == nil {
                        firstFromThere = datagram.payload.count
                        testbed.expect(datagram.payload.count >= 1_200, "the server's answer is not padded (M16)")
                    }
                    return .pass
                }
                // Neither side uses the old address any more, after what the server wrote before it followed.
                testbed.onClientPathEvent { event in
                    guard case .closed(PathID(0)) = event else { return }
                    testbed.network.addTap { datagram in
                        testbed.expect(
                            datagram.destination != Testbed.serverAddress && datagram.source != Testbed.serverAddress,
                            "the old address is still in use (9.6.1)")
                        return .pass
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(
                report.switches == 1 && report.peerMoves == 1, "\(report.switches) switches, \(report.peerMoves) moves")
                ?? unless(report.largestGap <= .milliseconds(400), "a gap of \(report.largestGap)")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server used an ID towards two addresses (M17)")
        }
    }

    @Test("a server that prefers an IPv6 address takes a client from IPv4 there (M30, M31)")
    func otherFamily() async {
        await check { _ in
            var scenario = Self.preferring("preferred IPv6 address", ipv4: false, ipv6: true)
            scenario.script = { Self.expectMove($0, to: Testbed.preferredIPv6, by: .address) }
            return scenario
        } expecting: { report in
            unless(
                report.switches == 1 && report.peerMoves == 1, "\(report.switches) switches, \(report.peerMoves) moves")
        }
    }

    @Test("of two families the client takes the one that it uses already (M31, section 9.6.3)")
    func sameFamilyFirst() async {
        await check(atMost: 3) { _ in
            var scenario = Self.preferring("both families", ipv6: true)
            scenario.script = { Self.expectMove($0, to: Testbed.preferredIPv4, by: .preferredAddress) }
            return scenario
        } expecting: {
            unless($0.switches == 1, "\($0.switches) switches")
        }
    }

    @Test("without a socket of the only family offered the client stays (M31)")
    func noSuchFamily() async {
        await check(atMost: 3) { _ in
            var scenario = Self.preferring("no IPv6 here", ipv4: false, ipv6: true)
            scenario.clientIPv6 = nil
            scenario.script = { Self.expectNoMove($0) }
            return scenario
        }
    }

    @Test("where nobody answers at the preferred address the client stays, undisturbed, and forgets the path (M31)")
    func failing() async {
        await check { random in
            var scenario = Self.preferring("dead preferred address")
            scenario.otherServerAddresses[0].conditions.isUp = random.next() % 2 == 0
            scenario.otherServerAddresses[0].conditions.maximumPayload = 1_000
            scenario.script = { testbed in
                Self.expectNoMove(testbed, unlessProbing: [Testbed.preferredIPv4])
                testbed.hold()
                var failed: PathID?
                testbed.onClientPathEvent { event in
                    switch event {
                    case .failed(let path, let failure):
                        testbed.expect(failure == .noResponse, "failed for \(failure)")
                        failed = path
                    case .closed(let path) where path == failed: testbed.release()
                    default: break
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(report.switches == 0 && report.peerMoves == 0, "moved")
                ?? unless(report.largestGap <= .milliseconds(200), "a gap of \(report.largestGap)")
        }
    }

    @Test("where the family in use fails, the other one is tried (M31)")
    func secondChoice() async {
        await check(atMost: 5) { _ in
            var scenario = Self.preferring("dead preferred IPv4 address", ipv6: true)
            scenario.otherServerAddresses[0].conditions.isUp = false
            scenario.plans = [StreamPlan(download: 400_000), StreamPlan(upload: 400_000)]
            scenario.script = { Self.expectMove($0, to: Testbed.preferredIPv6) }
            return scenario
        }
    }

    @Test("a client that is told to ignores it; the ID that came with it is used like any other (M31)")
    func ignoring() async {
        await check(atMost: 3) { _ in
            var scenario = Self.preferring("ignored preferred address")
            scenario.client.followsPreferredAddress = false
            scenario.script = { Self.expectNoMove($0) }
            return scenario
        }
    }

    @Test(
        "addresses that could harm others are not sent to: loopback, link-local, multicast, reflector ports (M31, M41)")
    func hostile() async {
        await check { random in
            let hostile: [PreferredAddresses?] = [
                PreferredAddresses(ipv4: NetworkAddress(127, 0, 0, 1, port: 4_433)),
                PreferredAddresses(ipv6: NetworkAddress(ipv6: 0, 1, port: 4_433)),
                PreferredAddresses(ipv4: NetworkAddress(169, 254, 169, 254, port: 4_433)),
                PreferredAddresses(ipv6: NetworkAddress(ipv6: 0xfe80 << 48, 7, port: 4_433)),
                PreferredAddresses(ipv6: NetworkAddress(ipv6: 0, 0xffff_7f00_0001, port: 4_433)),
                PreferredAddresses(ipv4: NetworkAddress(192, 0, 2, 77, port: 53)),
            ]
            var scenario = Self.preferring("hostile preferred address", ipv6: true)
            scenario.server.preferredAddresses = hostile[Int(random.next() % UInt64(hostile.count))]
            scenario.script = { Self.expectNoMove($0) }
            return scenario
        } expecting: {
            unless($0.switches == 0, "moved")
        }
    }

    @Test("disable_active_migration does not stop it, and ends with it: from there the client may move on (M18, M31)")
    func migrationDisabled() async {
        await check { _ in
            var scenario = Self.preferring("preferred address, migration disabled")
            scenario.server.disableActiveMigration = true
            scenario.otherInterfaces = [scenario.access]
            scenario.script = { testbed in
                Self.expectMove(testbed, to: Testbed.preferredIPv4)
                testbed.whenConfirmed {
                    let early = testbed.addPath(over: testbed.client.interfaces[1], to: Testbed.preferredIPv4)
                    testbed.expect(early.failure == .migrationDisabledByPeer, "addPath before the move: \(early)")
                }
                testbed.hold()
                var second: PathID?
                testbed.onClientPathEvent { event in
                    switch event {
                    case .switched(_, _, .preferredAddress):
                        let old = testbed.addPath(over: testbed.client.interfaces[1])
                        testbed.expect(old.failure == .migrationDisabledByPeer, "addPath to the old address: \(old)")
                        second = testbed.addPath(over: testbed.client.interfaces[1], to: Testbed.preferredIPv4).value
                        testbed.expect(second != nil, "addPath refused after the move")
                        if let second { testbed.probe(second) }
                    case .validated(let path, _, _) where path == second:
                        testbed.expect(testbed.switchPath(to: path).failure == nil, "switch refused after the move")
                        testbed.release()
                    default: break
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(
                report.switches == 2 && report.peerMoves == 2, "\(report.switches) switches, \(report.peerMoves) moves")
        }
    }

    @Test("loss, reordering and duplication: the transfer completes, at whichever address (M30, M31)")
    func lossy() async {
        await check { random in
            var scenario = Self.preferring("lossy preferred address", ipv6: random.next() % 2 == 0)
            let loss = random.number(in: 0.01...0.15)
            // The handshake's own losses are other tests' subject.
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    for interface in testbed.client.interfaces + testbed.server.interfaces {
                        var conditions = interface.outbound.conditions
                        conditions.loss = loss / 2
                        conditions.reordering = 0.05
                        conditions.duplication = 0.02
                        interface.setConditions(conditions)
                    }
                }
            }
            scenario.plans = [StreamPlan(download: 200_000), StreamPlan(upload: 200_000)]
            return scenario
        }
    }

    @Test("the client's NAT rebinds around the move, port or address: the transfer completes (M11, M31, section 9.6.3)")
    func rebindingMeanwhile() async {
        await check { random in
            var scenario = Self.preferring("rebinding at the preferred address")
            scenario.nat = .init()
            scenario.nat?.oldMappings = random.next() % 2 == 0 ? .die : .linger(.seconds(1))
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            let moments = (0..<3).map { _ in random.time(in: .zero...(.milliseconds(180))) }
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    for moment in moments { testbed.after(moment) { testbed.nat?.rebind(kind) } }
                }
                Self.expectMove(testbed, to: Testbed.preferredIPv4)
            }
            return scenario
        }
    }

    @Test("a client that moves while it proves the address goes on from its new network (M31, section 9.6.3)")
    func clientMovesMeanwhile() async {
        await check { random in
            var scenario = Self.preferring("moving while moving")
            scenario.otherInterfaces = [scenario.access]
            let moment = random.time(in: .zero...(.milliseconds(39)))
            scenario.script = { testbed in
                Self.expectMove(testbed, to: Testbed.preferredIPv4)
                testbed.whenConfirmed {
                    testbed.after(moment) {
                        let path = testbed.addPath(over: testbed.client.interfaces[1]).value
                        testbed.client.lose(testbed.client.interfaces[0])
                        guard let path else { return testbed.expect(false, "addPath refused") }
                        let result = testbed.switchPath(to: path, withoutValidation: true)
                        testbed.expect(result.failure == nil, "switch refused: \(result)")
                    }
                }
                testbed.onClientPathEvent { event in
                    guard case .switched(_, let path, .preferredAddress) = event else { return }
                    let local = testbed.withClient { $0.pathSnapshot(path)?.tuple.local }
                    testbed.expect(local == testbed.client.interfaces[1].address, "moved from the network that is gone")
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 2, "\($0.switches) switches")
        }
    }

    @Test("copies of the client's packets, sent to the preferred address by a stranger, move nothing (M10, M30)")
    func copies() async {
        await check { random in
            let stranger = NetworkAddress(198, 51, 100, 66, port: 4_000)
            let every = Int(random.next() % 3) + 1
            var scenario = Self.preferring("copies to the preferred address")
            scenario.client.followsPreferredAddress = false
            scenario.script = { testbed in
                var count = 0
                testbed.network.addTap { datagram in
                    guard datagram.destination == Testbed.serverAddress, !datagram.hasLongHeader else { return .pass }
                    count += 1
                    guard count % every == 0 else { return .pass }
                    var copy = datagram
                    copy.source = stranger
                    copy.destination = Testbed.preferredIPv4
                    testbed.network.inject(copy)
                    // The original comes a little later: what the server sees first is the copy.
                    return .delay(.milliseconds(1))
                }
            }
            return scenario
        } expecting: {
            unless(
                $0.peerMoves == 0, "the server followed a stranger that answered no challenge: \($0.peerMoves) moves")
                ?? unless($0.largestGap <= .milliseconds(200), "a gap of \($0.largestGap)")
        }
    }

    @Test(
        "from IPv4 to IPv6 and back, by the application, where the server is known at addresses of both (M1 to M5, M31)"
    )
    func betweenFamilies() async {
        await check { random in
            var scenario = Self.preferring("between families", ipv6: true)
            scenario.plans = [StreamPlan(download: 600_000, upload: 100_000)]
            let pauses = (0..<6).map { _ in random.time(in: .milliseconds(30)...(.milliseconds(150))) }
            scenario.script = { testbed in
                testbed.hold()
                var moves = 0
                var target: PathID?
                func hop() {
                    guard moves < pauses.count else { return testbed.release() }
                    let remote = moves % 2 == 0 ? Testbed.preferredIPv6 : Testbed.preferredIPv4
                    let interfaces = testbed.client.interfaces.filter { $0.address.family == remote.family }
                    let result = testbed.addPath(over: interfaces[0], to: remote)
                    target = result.value
                    guard let target else { return testbed.expect(false, "addPath to \(remote): \(result)") }
                    testbed.probe(target)
                }
                testbed.onClientPathEvent { event in
                    switch event {
                    case .switched(_, _, .preferredAddress): testbed.after(.milliseconds(200)) { hop() }
                    case .validated(let path, _, _) where path == target:
                        let old = testbed.activePath
                        testbed.expect(testbed.switchPath(to: path).failure == nil, "switch refused")
                        if let old { testbed.closePath(old) }
                        let pause = pauses[moves]
                        moves += 1
                        testbed.after(pause) { hop() }
                    default: break
                    }
                }
            }
            return scenario
        } expecting: { report in
            unless(
                report.switches == 7 && report.peerMoves == 7, "\(report.switches) switches, \(report.peerMoves) moves")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server used an ID towards two addresses (M17)")
        }
    }

    @Test("an address that the server did not name is refused, and one that never answered gets no data (M1, M4)")
    func unknownAddresses() async {
        await check(atMost: 2) { _ in
            var scenario = Self.preferring("unknown address of the server", ipv6: true)
            scenario.otherServerAddresses[1].conditions.isUp = false
            scenario.client.followsPreferredAddress = false
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    let stranger = NetworkAddress(192, 0, 2, 78, port: 4_434)
                    let result = testbed.addPath(over: testbed.client.interfaces[0], to: stranger)
                    testbed.expect(result.failure == .unknownServerAddress(stranger), "\(result)")
                    let path = testbed.addPath(over: testbed.client.interfaces[1], to: Testbed.preferredIPv6).value
                    guard let path else { return testbed.expect(false, "addPath refused") }
                    let refused = testbed.switchPath(to: path, withoutValidation: true)
                    testbed.expect(refused.failure == .notValidated(path), "data to an address never heard: \(refused)")
                }
            }
            return scenario
        }
    }

    @Test("a client with connection IDs of no length follows, too (M18, M31)")
    func emptyClientIDs() async {
        await check(atMost: 5) { random in
            var scenario = Self.preferring(
                "preferred address, client without IDs", ipv4: random.next() % 2 == 0, ipv6: true)
            scenario.clientEndpoint.connectionIDLength = 0
            let expected = scenario.server.preferredAddresses?.ipv4 ?? Testbed.preferredIPv6
            scenario.script = { Self.expectMove($0, to: expected) }
            return scenario
        }
    }

    @Test("the server closes from its preferred address, and a server that lost its state resets from there (M21, M30)")
    func endings() async {
        await check { random in
            var scenario = Self.preferring("ending at the preferred address")
            let isReset = random.next() % 2 == 0
            scenario.serverEndpoint.statelessResetKey = [UInt8](repeating: 7, count: 32)
            scenario.ending = .script
            scenario.expectedClientClose = { reason in
                switch reason {
                case .statelessReset: isReset
                case .application(7, _, byPeer: true): !isReset
                default: false
                }
            }
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(.milliseconds(300)) {
                    let remote = testbed.withClient { $0.pathSnapshot($0.activePath)?.tuple.remote }
                    testbed.expect(remote == Testbed.preferredIPv4, "not there: \(String(describing: remote))")
                    if isReset { testbed.server.restart() } else { testbed.close(testbed.server, code: 7) }
                    testbed.release()
                }
            }
            return scenario
        }
    }
}
