// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("The last path dies, and connections end on paths they moved to")
struct LastPathTests {
    private static func download(_ title: String, idle: Nanoseconds = .seconds(6)) -> Scenario {
        var scenario = Scenario(title)
        scenario.setRoundTrip(.milliseconds(40))
        scenario.access.bandwidth = 8_000_000
        scenario.plans = [StreamPlan(download: 2_000_000)]
        scenario.client.maxIdleTimeout = idle
        scenario.server.maxIdleTimeout = idle
        return scenario
    }

    @Test("the last path dies and comes back within the idle timeout: the transfer goes on (family 14)")
    func comesBack() async {
        await check { random in
            var scenario = Self.download("comes back")
            let moment = random.time(in: .milliseconds(100)...(.milliseconds(800)))
            let outage = random.time(in: .milliseconds(500)...(.seconds(4)))
            scenario.script = { testbed in
                testbed.at(moment) { testbed.client.interfaces[0].isUp = false }
                testbed.at(moment + outage) { testbed.client.interfaces[0].isUp = true }
            }
            return scenario
        }
    }

    @Test(
        "the last path dies for longer than the idle timeout: both sides hear that no path is viable (M21, family 14)")
    func staysDead() async {
        await check { random in
            var scenario = Self.download("stays dead")
            scenario.ending = .script
            scenario.timeLimit = .seconds(20)
            scenario.expectedClientClose = { $0 == .noViablePath }
            let moment = random.time(in: .milliseconds(100)...(.milliseconds(800)))
            let isTold = random.next() % 2 == 0
            scenario.script = { testbed in
                testbed.at(moment) {
                    if isTold { testbed.client.lose(testbed.client.interfaces[0]) }
                    testbed.client.interfaces[0].isUp = false
                }
                testbed.onClientEvent {
                    guard case .closed = $0 else { return }
                    testbed.expect(
                        testbed.elapsed <= moment + .seconds(7), "the client heard it only at \(testbed.elapsed)")
                }
            }
            return scenario
        } expecting: {
            unless($0.serverCloseReason == .noViablePath, "the server's reason: \($0.serverCloseReason as Any)")
        }
    }

    @Test("who has nothing to say when the idle timeout expires hears of an idle timeout, not of a dead path (M21)")
    func idle() async {
        await check(atMost: 3) { _ in
            var scenario = Self.download("idle", idle: .seconds(3))
            scenario.plans = [StreamPlan(download: 10_000)]
            scenario.ending = .silence
            // So that everything is acknowledged when the network goes.
            scenario.script = { testbed in
                testbed.hold()
                testbed.at(.seconds(1)) { testbed.release() }
            }
            return scenario
        } expecting: {
            unless($0.serverCloseReason == .idleTimeout, "the server's reason: \($0.serverCloseReason as Any)")
        }
    }

    @Test(
        "CONNECTION_CLOSE reaches the other side from and to an address that the client moved to (M21, family 13)",
        arguments: [Scenario.Ending.clientCloses, .serverCloses])
    func closeAfterMove(ending: Scenario.Ending) async {
        await check { random in
            var scenario = Self.download("close after a move")
            scenario.plans = [StreamPlan(download: 500_000)]
            scenario.ending = ending
            let isRebinding = random.next() % 2 == 0
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            if isRebinding { scenario.nat = .init() } else { scenario.otherInterfaces = [scenario.access] }
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    testbed.after(.milliseconds(100)) {
                        if let nat = testbed.nat { return nat.rebind(kind) }
                        guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                            return testbed.expect(false, "no path")
                        }
                        testbed.switchPath(to: path, withoutValidation: true)
                    }
                }
            }
            return scenario
        } expecting: { report in
            let reasons = [report.clientCloseReason, report.serverCloseReason]
            let heard = reasons[ending == .clientCloses ? 1 : 0]
            guard case .application(_, _, byPeer: true) = heard else { return "it was told: \(heard as Any)" }
            return unless(report.peerMoves == 1, "\(report.peerMoves) moves")
        }
    }

    @Test(
        "a path that answers and bears no 1,200 bytes is not viable: NO_VIABLE_PATH (M15, M21; RFC 9000, section 8.2.1)"
    )
    func tooSmall() async {
        await check { random in
            var scenario = Self.download("a path of 1,000 bytes", idle: .seconds(30))
            scenario.nat = .init()
            scenario.ending = .script
            scenario.timeLimit = .seconds(40)
            scenario.expectedClientClose = {
                guard case .transport(let error, byPeer: true) = $0 else { return false }
                return error.code == .noViablePath
            }
            let moment = random.time(in: .milliseconds(200)...(.milliseconds(800)))
            scenario.script = { testbed in
                testbed.at(moment) {
                    var conditions = testbed.client.interfaces[0].inbound.conditions
                    conditions.maximumPayload = 1_000
                    testbed.client.interfaces[0].inbound.conditions = conditions
                    testbed.nat?.rebindAddress()
                }
            }
            return scenario
        }
    }
}
