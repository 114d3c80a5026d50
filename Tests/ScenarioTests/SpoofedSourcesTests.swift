// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

/// An attacker with 100,000 source addresses against one connection.
@Suite("100,000 spoofed sources")
struct SpoofedSourcesTests {
    private static let sources = 100_000

    /// A transfer of some 2,000 datagrams each way.
    private static func victim(_ title: String) -> Scenario {
        var scenario = Scenario(title)
        scenario.setRoundTrip(.milliseconds(20))
        scenario.access.bandwidth = 50_000_000
        scenario.plans = [StreamPlan(download: 1_000_000, upload: 2_000_000)]
        scenario.timeLimit = .seconds(120)
        return scenario
    }

    /// A different address for each of the sources.
    private static func source(_ index: Int) -> NetworkAddress {
        NetworkAddress(ipv4: 0x0a00_0000 + UInt32(index), port: UInt16(1_024 + index % 60_000))
    }

    /// Has `body` make datagrams of the client's into hostile ones, 100 of each, until there were as many as sources.
    private static func attack(
        _ testbed: Testbed, verdict: SimulatedNetwork.TapVerdict = .pass,
        _ body: @escaping (inout SimulatedDatagram, Testbed) -> Void
    ) {
        var isConfirmed = false
        testbed.whenConfirmed { isConfirmed = true }
        var used = 0
        testbed.hold()
        testbed.network.addTap { datagram in
            guard isConfirmed, datagram.destination == Testbed.serverAddress, !datagram.hasLongHeader,
                used < sources, testbed.random.next() % 2 == 0
            else { return .pass }
            for _ in 0..<200 where used < sources {
                var hostile = datagram
                hostile.source = source(used)
                body(&hostile, testbed)
                testbed.network.inject(hostile)
                used += 1
            }
            if used == sources { testbed.release() }
            return verdict
        }
        testbed.onServerEvent { _, _ in
            testbed.expect(testbed.server.engine.routeCount <= 64, "\(testbed.server.engine.routeCount) routes")
        }
    }

    @Test("100,000 forged packets from as many addresses make no path, and the transfer completes (M10, M40)")
    func forged() async {
        await check(atMost: 1) { _ in
            var scenario = Self.victim("100,000 forged sources")
            scenario.script = { testbed in
                Self.attack(testbed) { datagram, testbed in
                    let place = testbed.random.integer(in: 9...datagram.payload.count - 1)
                    datagram.payload[place] ^= 1
                }
            }
            return scenario
        } expecting: { report in
            unless(report.serverStatistics.packetsDropped >= 100_000, "the test does not bite")
                ?? unless(report.mostServerPaths == 1, "\(report.mostServerPaths) paths")
                ?? unless(report.peerMoves == 0, "\(report.peerMoves) moves")
        }
    }

    @Test("100,000 copies raced ahead from as many addresses: at most 8 paths, and the transfer completes (M14, M40)")
    func raced() async {
        await check(atMost: 1) { _ in
            var scenario = Self.victim("100,000 raced sources")
            scenario.script = { testbed in
                Self.attack(testbed, verdict: .delay(.milliseconds(2))) { _, _ in }
            }
            return scenario
        } expecting: { report in
            unless(report.peerMoves >= 100, "only \(report.peerMoves) moves: the test does not bite")
                ?? unless(report.mostServerPaths <= 8, "\(report.mostServerPaths) paths")
        }
    }
}
