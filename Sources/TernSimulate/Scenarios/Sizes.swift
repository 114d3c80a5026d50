// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    private static let stranger = NetworkAddress(198, 51, 100, 66, port: 50_066)

    /// Family 7: small MTUs, and no address gets more than three times what it sent.
    static let sizes: [NamedScenario] = [
        NamedScenario(7, "a new network that bears 1,200 bytes and no more carries the connection (M15)") { _ in
            var scenario = Scenario.severalNetworks()
            scenario.otherInterfaces[0].maximumPayload = 1_200
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.moveGracefully(at: .milliseconds(300), closingOld: true)
                testbed.at(.milliseconds(600)) { testbed.client.interfaces[0].isUp = false }
            }
            return scenario
        } expecting: {
            unless($0.switches == 1, "\($0.switches) switches")
        },
        NamedScenario(7, "a network that bears 1,199 bytes is no path: its probe fails, and nothing moves (M15)") { _ in
            var scenario = Scenario.severalNetworks(queueLimit: 500_000)
            scenario.otherInterfaces[0].maximumPayload = 1_199
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.expectProbeFails(at: .milliseconds(300), timeout: .seconds(2))
            }
            return scenario
        } expecting: {
            unless($0.switches == 0 && $0.largestGap < .milliseconds(200), "a gap of \($0.largestGap)")
        },
        NamedScenario(
            7, "a download's small ACKs from a new port are answered within the limit, and the path is proved (M15)"
        ) {
            random in
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            var scenario = Scenario.behindNAT()
            scenario.plans = [StreamPlan(download: 500_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                var movedAt: Instant?
                testbed.hold()
                testbed.at(.milliseconds(400)) { testbed.nat?.rebind(kind) }
                testbed.onServerPathEvent { event, _ in
                    switch event {
                    case .peerMoved: movedAt = testbed.now
                    case .validated:
                        guard let moved = movedAt else { return }
                        movedAt = nil
                        testbed.expect(
                            testbed.now - moved < .milliseconds(500), "validated only after \(testbed.now - moved)")
                        testbed.release()
                    default: break
                    }
                }
            }
            return scenario
        },
        NamedScenario(
            7, "a spoofed source is sent at most three times what seemed to come from it, at every moment (M15)"
        ) {
            _ in
            var scenario = Scenario.severalNetworks(1)
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in
                var (sent, received) = (0, 0)
                var isActive = false
                testbed.whenConfirmed { isActive = true }
                testbed.at(.seconds(1)) { isActive = false }
                testbed.network.addTap { datagram in
                    if datagram.destination == stranger {
                        sent += datagram.payload.count
                        testbed.expect(sent <= 3 * received, "\(sent) bytes sent for \(received)")
                    }
                    guard isActive, datagram.destination == Testbed.serverAddress else { return .pass }
                    var copy = datagram
                    copy.source = stranger
                    received += copy.payload.count
                    testbed.network.inject(copy)
                    return .delay(.milliseconds(4))
                }
            }
            return scenario
        } expecting: {
            unless($0.peerMoves >= 1, "no copy moved the connection: the test does not bite")
        },
        NamedScenario(7, "a client that vanishes after its first packet is sent three times its size and no more (M15)")
        {
            random in
            let vanishes = random.integer(in: 1...2)
            var scenario = Scenario.severalNetworks(1)
            scenario.ending = .script
            scenario.credentials = largeCredentials
            scenario.expectedClientClose = { $0 == .handshakeTimeout }
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                var (came, went, passed) = (0, 0, 0)
                testbed.network.addTap { datagram in
                    if datagram.source == Testbed.serverAddress {
                        went += datagram.payload.count
                        testbed.expect(went <= 3 * came, "\(went) bytes sent for \(came)")
                        return .drop
                    }
                    passed += 1
                    guard passed <= vanishes else { return .drop }
                    came += datagram.payload.count
                    return .pass
                }
            }
            return scenario
        },
        NamedScenario(
            7, "a certificate of several datagrams, a rebinding in its midst, 5 % loss: never above the limit (M15)"
        ) {
            random in
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            let moment = random.time(in: .milliseconds(10)...(.milliseconds(150)))
            var scenario = Scenario.behindNAT()
            scenario.credentials = largeCredentials
            scenario.access.loss = 0.05
            scenario.client.handshakeTimeout = .seconds(30)
            scenario.server.handshakeTimeout = .seconds(30)
            scenario.plans = [StreamPlan(download: 50_000)]
            scenario.timeLimit = .seconds(60)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebind(kind) } }
            return scenario
        },
        NamedScenario(7, "moves among networks of different MTUs, each larger than the smallest (M15)") { random in
            let pause = random.time(in: .milliseconds(80)...(.milliseconds(200)))
            var scenario = Scenario.severalNetworks(4)
            scenario.client.maxUDPPayload = 1_200
            for (index, size) in [1_232, 1_200, 1_452].enumerated() {
                scenario.otherInterfaces[index].maximumPayload = size
            }
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                for number in 1...3 {
                    testbed.moveGracefully(number, at: .milliseconds(200) + pause * Int64(number))
                }
            }
            return scenario
        } expecting: {
            unless($0.switches == 3, "\($0.switches) switches")
        },
    ]

    static let largeCredentials = try? SimulationCredentials(
        additionalNames: (0..<150).map { "name-\($0).of.the.server.simulation" })

    /// Family 8: congestion state is reset, kept and restored, and no path is met with a burst.
    static let congestion: [NamedScenario] = [
        NamedScenario(8, "who comes back to a network finds the window that was left there (M13)") { random in
            let away = random.time(in: .milliseconds(100)...(.milliseconds(400)))
            var scenario = Scenario.severalNetworks(queueLimit: 300_000)
            scenario.access.bandwidth = 20_000_000
            scenario.otherInterfaces[0].bandwidth = 1_000_000
            scenario.plans = [StreamPlan(upload: 2_500_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                var before = 0
                testbed.whenProbed(at: .milliseconds(200)) { path in
                    testbed.hold()
                    testbed.after(.milliseconds(200)) {
                        before = testbed.withClient { $0.pathSnapshot(PathID(0))?.congestionWindow ?? 0 } ?? 0
                        testbed.switchPath(to: path)
                        testbed.after(away) {
                            testbed.switchPath(to: PathID(0))
                            let after = testbed.withClient { $0.pathSnapshot(PathID(0))?.congestionWindow ?? 0 } ?? 0
                            testbed.expect(
                                before > 30_000 && after >= before * 7 / 10, "\(before) bytes of window became \(after)"
                            )
                            testbed.release()
                        }
                    }
                }
            }
            return scenario
        },
        NamedScenario(8, "a new address is met with no more than an initial window in its first round trip (M12)") {
            _ in
            var scenario = Scenario.behindNAT(.init(oldMappings: .linger(.seconds(1))))
            scenario.access = LinkConditions(delay: .milliseconds(10), bandwidth: 100_000_000, queueLimit: 1_000_000)
            scenario.plans = [StreamPlan(download: 4_000_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                var movedAt: Instant?
                var bytes = 0
                testbed.hold()
                testbed.at(.milliseconds(350)) { testbed.nat?.rebindAddress() }
                testbed.onServerPathEvent { event, _ in
                    guard case .peerMoved = event else { return }
                    movedAt = testbed.now
                    testbed.after(.milliseconds(39)) {
                        testbed.expect(bytes > 0 && bytes <= 16 * 1_472, "\(bytes) bytes in the first round trip")
                        testbed.release()
                    }
                }
                testbed.network.addTap { datagram in
                    if let moved = movedAt, datagram.destination.hasSameIP(as: NetworkAddress(198, 18, 0, 2, port: 0)),
                        testbed.now < moved + .milliseconds(39)
                    {
                        bytes += datagram.payload.count
                    }
                    return .pass
                }
            }
            return scenario
        },
        NamedScenario(8, "from 50 Mbit/s to 2 Mbit/s with a short queue: few packets are lost on the way (M12)") {
            random in
            let moment = random.time(in: .milliseconds(250)...(.milliseconds(500)))
            var scenario = Scenario.severalNetworks(queueLimit: 3_000_000)
            scenario.access.bandwidth = 50_000_000
            scenario.otherInterfaces[0].bandwidth = 2_000_000
            scenario.otherInterfaces[0].queueLimit = 30_000
            scenario.plans = [StreamPlan(upload: 3_000_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in testbed.moveGracefully(at: moment, closingOld: true) }
            return scenario
        } expecting: { report in
            let lost = report.clientStatistics.packetsLost
            return unless(report.switches == 1, "\(report.switches) switches")
                ?? unless(lost * 10 < report.clientStatistics.packetsSent, "\(lost) packets lost")
        },
        NamedScenario(8, "from 1 Mbit/s to 20 Mbit/s: the rest of the download is there in two seconds (M12)") {
            random in
            let moment = random.time(in: .milliseconds(500)...(.seconds(1)))
            var scenario = Scenario.severalNetworks(queueLimit: 200_000)
            scenario.access.bandwidth = 1_000_000
            scenario.otherInterfaces[0].bandwidth = 20_000_000
            scenario.plans = [StreamPlan(download: 2_000_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in testbed.moveGracefully(at: moment, closingOld: true) }
            return scenario
        } expecting: {
            unless($0.duration < .seconds(4), "it took \($0.duration)")
        },
        NamedScenario(
            8, "from 10 ms to 400 ms of round trip: the new one is measured anew, without a storm of probes (M12)"
        ) {
            random in
            let moment = random.time(in: .milliseconds(250)...(.milliseconds(500)))
            var scenario = Scenario.severalNetworks(queueLimit: 200_000)
            scenario.access.delay = .milliseconds(1)
            scenario.serverAccess.delay = .milliseconds(4)
            scenario.otherInterfaces[0].delay = .milliseconds(196)
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in testbed.moveGracefully(at: moment, closingOld: true) }
            return scenario
        } expecting: { report in
            let timeouts = report.clientStatistics.probeTimeouts + report.serverStatistics.probeTimeouts
            return unless(timeouts <= 10, "\(timeouts) probe timeouts")
        },
        NamedScenario(8, "a port that changes in mid-flight costs no more than a few packets (M12)") { random in
            let moment = random.time(in: .milliseconds(300)...(.milliseconds(600)))
            var scenario = Scenario.behindNAT(.init(oldMappings: .linger(.seconds(1))))
            scenario.access.queueLimit = 400_000
            scenario.plans = [StreamPlan(upload: 800_000)]
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebindPort() } }
            return scenario
        } expecting: { report in
            unless(report.peerMoves == 1, "\(report.peerMoves) moves")
                ?? unless(
                    report.clientStatistics.packetsLost <= 10, "\(report.clientStatistics.packetsLost) packets lost")
        },
        NamedScenario(8, "two connections' worth of switches through one bottleneck leave its queue in bounds (M13)") {
            random in
            let pause = random.time(in: .milliseconds(60)...(.milliseconds(160)))
            var scenario = Scenario.severalNetworks(queueLimit: 300_000)
            scenario.access.bandwidth = nil
            scenario.otherInterfaces[0].bandwidth = nil
            scenario.bottleneck = LinkConditions(delay: .milliseconds(2), bandwidth: 8_000_000, queueLimit: 60_000)
            scenario.plans = [StreamPlan(upload: 1_500_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.whenProbed(at: .milliseconds(200)) { path in
                    func hop(_ left: Int) {
                        guard left > 0 else { return testbed.release() }
                        testbed.switchPath(to: testbed.activePath == path ? PathID(0) : path)
                        testbed.after(pause) { hop(left - 1) }
                    }
                    testbed.hold()
                    hop(8)
                }
            }
            return scenario
        } expecting: { report in
            unless(
                report.clientStatistics.packetsLost * 16 < report.clientStatistics.packetsSent,
                "\(report.clientStatistics.packetsLost) of \(report.clientStatistics.packetsSent) packets lost")
        },
    ]
}
