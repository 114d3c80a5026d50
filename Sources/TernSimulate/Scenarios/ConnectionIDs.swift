// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

extension Catalogue {
    /// A client that goes from network to network, and closes each that it leaves.
    private static func wanderer(
        _ moves: Int, pause: Nanoseconds = .milliseconds(120), timeout: Nanoseconds = .seconds(3)
    ) -> Scenario {
        var scenario = Scenario.severalNetworks(moves + 1)
        scenario.plans = [StreamPlan(download: 200_000, upload: 200_000)]
        scenario.timeLimit = .seconds(60)
        scenario.script = { testbed in
            for number in 1...moves {
                testbed.moveGracefully(
                    number, at: .milliseconds(200) + pause * Int64(number), timeout: timeout, closingOld: true)
            }
        }
        return scenario
    }

    /// Family 9: connection IDs are fresh, run out, and are retired at the worst of times.
    static let connectionIDs: [NamedScenario] = [
        NamedScenario(9, "seven networks in a row: seven fresh IDs each way, none on two networks (M6, M17)") { _ in
            wanderer(7)
        } expecting: { report in
            unless(report.switches == 7 && report.serverDestinationIDs >= 8, "\(report.serverDestinationIDs) IDs")
                ?? unless(report.sharedServerDestinationIDs == 0, "the server linked paths by an ID (M17)")
        },
        NamedScenario(9, "with two IDs at once each move waits for the next ID, and none fails (M3, M6)") { _ in
            var scenario = wanderer(6, pause: .milliseconds(200))
            scenario.client.activeConnectionIDLimit = 2
            scenario.server.activeConnectionIDLimit = 2
            return scenario
        } expecting: {
            unless($0.switches == 6, "\($0.switches) switches")
        },
        NamedScenario(9, "NEW_CONNECTION_ID and RETIRE_CONNECTION_ID are lost again and again: moves go on (M6)") { _ in
            var scenario = wanderer(5, pause: .milliseconds(300), timeout: .seconds(20))
            for index in scenario.otherInterfaces.indices { scenario.otherInterfaces[index].loss = 0.12 }
            scenario.access.loss = 0.12
            scenario.client.activeConnectionIDLimit = 3
            return scenario
        } expecting: {
            unless($0.switches == 5, "\($0.switches) switches")
        },
        NamedScenario(
            9,
            "a path is closed while its challenge is under way: the answer meets a retired ID, and nothing breaks (M5)"
        ) {
            random in
            let delay = random.time(in: .milliseconds(1)...(.milliseconds(60)))
            var scenario = Scenario.severalNetworks()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                func again(_ left: Int) {
                    guard left > 0 else { return testbed.release() }
                    guard let path = try? testbed.addPath(over: testbed.client.interfaces[1]).get() else {
                        return testbed.expect(false, "addPath failed with \(left) left")
                    }
                    testbed.probe(path)
                    testbed.after(delay) {
                        if case .failure(let error) = testbed.closePath(path) { testbed.expect(false, "\(error)") }
                        testbed.after(.milliseconds(20)) { again(left - 1) }
                    }
                }
                testbed.hold()
                testbed.whenConfirmed { again(20) }
            }
            return scenario
        } expecting: {
            unless($0.switches == 0 && $0.peerMoves == 0, "a probe moved the connection (M10)")
        },
        NamedScenario(9, "the NAT rebinds while the client moves under a new ID: the server keeps the two apart (M17)")
        {
            random in
            let offset = random.time(in: .zero...(.milliseconds(60)))
            var scenario = Scenario.severalNetworks()
            scenario.nat = .init()
            scenario.timeLimit = .seconds(20)
            scenario.script = { testbed in
                testbed.moveGracefully(at: .milliseconds(300))
                testbed.at(.milliseconds(300) + offset) { testbed.nat?.rebindPort() }
            }
            return scenario
        } expecting: {
            unless($0.switches == 1, "\($0.switches) switches")
        },
        NamedScenario(9, "IDs of 4 and of 20 bytes, through moves and rebindings (M6, M11)") { random in
            let isShort = random.next() % 2 == 0
            var scenario = wanderer(3)
            scenario.nat = .init()
            scenario.clientEndpoint.connectionIDLength = isShort ? 4 : 20
            scenario.serverEndpoint.connectionIDLength = isShort ? 20 : 4
            let moves = scenario.script
            scenario.script = { testbed in
                moves(testbed)
                testbed.at(.milliseconds(150)) { testbed.nat?.rebindPort() }
                testbed.at(.milliseconds(230)) { testbed.nat?.rebindAddress() }
            }
            return scenario
        } expecting: {
            unless($0.switches == 3, "\($0.switches) switches")
        },
        NamedScenario(
            9, "a client whose own IDs have no bytes moves by itself, and the server finds it by its address (M18)"
        ) {
            _ in
            var scenario = wanderer(4)
            scenario.clientEndpoint.connectionIDLength = 0
            return scenario
        } expecting: {
            unless($0.switches == 4, "\($0.switches) switches")
        },
        NamedScenario(9, "keys and IDs change at the same moment, again and again (M17)") { _ in
            var scenario = wanderer(6, pause: .milliseconds(150))
            scenario.client.keyUpdateInterval = 20
            scenario.server.keyUpdateInterval = 25
            return scenario
        } expecting: {
            unless($0.switches == 6, "\($0.switches) switches")
        },
        NamedScenario(9, "a server with no unused ID left follows a rebinding and a move all the same (decision 0005)")
        {
            random in
            let moment = random.time(in: .milliseconds(250)...(.milliseconds(500)))
            var scenario = Scenario.severalNetworks(3)
            scenario.nat = .init()
            scenario.server.activeConnectionIDLimit = 2
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.at(moment) {
                    testbed.nat?.rebindAddress()
                    testbed.moveAtOnce(1)
                }
                testbed.at(moment + .milliseconds(10)) { testbed.moveAtOnce(2) }
            }
            return scenario
        } expecting: {
            unless($0.switches == 2, "\($0.switches) switches")
        },
    ]
}
