// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("Sockets that close and sends that fail concern one path (M7)")
struct LostTransportTests {
    private static func twoNetworks(_ title: String, _ random: inout RandomSource) -> Scenario {
        var scenario = Scenario(title)
        scenario.access.bandwidth = 3_000_000
        scenario.otherInterfaces = [scenario.access]
        scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(100))))
        scenario.plans = [StreamPlan(download: 200_000, upload: 100_000)]
        return scenario
    }

    @Test("the active path's socket is closed: a switch to another network goes on where it stopped")
    func activeSocketLost() async {
        await check { random in
            let moment = random.time(in: .zero...(.milliseconds(350)))
            let pause = random.time(in: .zero...(.seconds(2)))
            var scenario = Self.twoNetworks("active socket lost", &random)
            scenario.script = { testbed in
                var wasTold = false
                testbed.hold()
                testbed.onClientPathEvent { event in
                    if case .failed(PathID(0), .transportLost) = event { wasTold = true }
                }
                testbed.whenConfirmed {
                    testbed.after(moment) { testbed.client.lose(testbed.client.interfaces[0]) }
                    testbed.after(moment + .milliseconds(1)) {
                        testbed.expect(wasTold, "no event told that the transport was lost")
                    }
                    testbed.after(moment + pause) {
                        guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                            return testbed.expect(false, "addPath failed after the socket was lost")
                        }
                        let result = testbed.switchPath(to: path, withoutValidation: true)
                        testbed.expect(result.failure == nil, "switch refused: \(result)")
                        testbed.expect(
                            testbed.probe(PathID(0)).failure == .transportLost(PathID(0)),
                            "a path without socket was probed")
                        testbed.release()
                    }
                }
            }
            return scenario
        }
    }

    @Test("the socket of a path in reserve is closed: the active one notices nothing")
    func spareSocketLost() async {
        await check { random in
            var scenario = Self.twoNetworks("spare socket lost", &random)
            scenario.script = { testbed in
                testbed.at(.milliseconds(250)) {
                    if let path = testbed.addPath(over: testbed.client.interfaces[1]).value { testbed.probe(path) }
                }
                testbed.at(.milliseconds(450)) { testbed.client.lose(testbed.client.interfaces[1]) }
            }
            return scenario
        } expecting: {
            unless($0.switches == 0 && $0.largestGap < .milliseconds(300), "a gap of \($0.largestGap)")
        }
    }

    @Test("every send fails with ENETUNREACH for a while: the path recovers, the connection never ends")
    func sendErrors() async {
        await check { random in
            let moment = random.time(in: .milliseconds(50)...(.milliseconds(500)))
            let span = random.time(in: .milliseconds(10)...(.seconds(2)))
            var scenario = Self.twoNetworks("ENETUNREACH for a while", &random)
            scenario.script = { testbed in
                let interface = testbed.client.interfaces[0]
                testbed.at(moment) { interface.sendError = 101 }
                testbed.at(moment + span) { interface.sendError = nil }
            }
            return scenario
        }
    }

    @Test("every send fails for good: the client is told and switches, and the rest arrives")
    func sendErrorsForGood() async {
        await check { random in
            let pause = random.time(in: .zero...(.milliseconds(400)))
            let errno = [Int32(1), 13, 22, 99, 100, 101, 113][random.integer(in: 0...6)]
            var scenario = Self.twoNetworks("errno \(errno) for good", &random)
            scenario.script = { testbed in
                var hasMoved = false
                testbed.hold()
                testbed.whenConfirmed {
                    testbed.after(pause) { testbed.client.interfaces[0].sendError = errno }
                }
                testbed.onClientPathEvent { event in
                    guard case .failed(PathID(0), .sendError(errno)) = event, !hasMoved else { return }
                    hasMoved = true
                    guard let path = testbed.addPath(over: testbed.client.interfaces[1]).value else {
                        return testbed.expect(false, "addPath failed")
                    }
                    let result = testbed.switchPath(to: path, withoutValidation: true)
                    testbed.expect(result.failure == nil, "switch refused: \(result)")
                    testbed.release()
                }
            }
            return scenario
        }
    }

    @Test("the server's sends fail for a while, too")
    func serverSendErrors() async {
        await check { random in
            let moment = random.time(in: .milliseconds(50)...(.milliseconds(500)))
            var scenario = Self.twoNetworks("the server's sends fail", &random)
            scenario.script = { testbed in
                testbed.at(moment) { testbed.server.interfaces[0].sendError = 1 }
                testbed.at(moment + .milliseconds(700)) { testbed.server.interfaces[0].sendError = nil }
            }
            return scenario
        }
    }

    @Test("an interface with a smaller MTU refuses large datagrams with EMSGSIZE: smaller ones are sent")
    func messageTooLong() async {
        await check { random in
            var scenario = Self.twoNetworks("EMSGSIZE", &random)
            scenario.client.initialUDPPayload = 1_452
            scenario.script = { $0.client.interfaces[0].localMaximumPayload = 1_252 }
            return scenario
        }
    }
}
