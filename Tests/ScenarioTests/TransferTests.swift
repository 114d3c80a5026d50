// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("Transfers over networks of all kinds")
struct TransferTests {
    @Test("a clean link: handshake, download and upload at once")
    func cleanLink() async {
        await check { _ in
            var scenario = Scenario("clean link")
            scenario.plans = [StreamPlan(download: 500_000, upload: 100_000)]
            scenario.timeLimit = .seconds(5)
            return scenario
        } expecting: { report in
            unless(report.clientStatistics.packetsLost == 0, "the client took packets for lost on a perfect link")
                ?? unless(
                    report.serverStatistics.packetsLost == 0, "the server took packets for lost on a perfect link")
        }
    }

    @Test("a run replays from its seed, down to the number of steps")
    func replay() async {
        await overSeeds { seed in
            var scenario = Scenario("replay")
            scenario.access.loss = 0.03
            scenario.access.jitter = .milliseconds(3)
            scenario.access.duplication = 0.02
            scenario.nat = .init()
            scenario.script = { $0.nat?.rebindAtRandom([.port], pauses: .milliseconds(50)...(.seconds(1)), count: 3) }
            let (first, second) = (scenario.run(seed: seed), scenario.run(seed: seed))
            guard first.isClean else { return "\(first)" }
            return unless(
                first.duration == second.duration && first.steps == second.steps,
                "two runs differ: \(first.steps) and \(second.steps) steps, \(first.duration) and \(second.duration)")
        }
    }

    @Test("loss of 1 to 10 % in both directions, both congestion controllers")
    func lossyLink() async {
        await check { random in
            var scenario = Scenario("lossy link")
            scenario.access.loss = random.number(in: 0.01...0.1)
            scenario.client.congestionControl = random.next() % 2 == 0 ? .cubic : .newReno
            scenario.server.congestionControl = random.next() % 2 == 0 ? .cubic : .newReno
            scenario.plans = [StreamPlan(download: 200_000, upload: 100_000)]
            return scenario
        }
    }

    @Test("round trips of 300 to 800 ms")
    func longLink() async {
        await check { random in
            var scenario = Scenario("long link")
            scenario.setRoundTrip(random.time(in: .milliseconds(300)...(.milliseconds(800))))
            scenario.access.loss = random.next() % 2 == 0 ? 0 : 0.01
            return scenario
        }
    }

    @Test("a network of 1 ms, where nothing may wait for a timer made for longer ones")
    func shortLink() async {
        await check { random in
            var scenario = Scenario("short link")
            scenario.setRoundTrip(.milliseconds(1))
            scenario.access.loss = random.next() % 2 == 0 ? 0 : 0.02
            scenario.timeLimit = .seconds(10)
            return scenario
        }
    }

    @Test("reordering of every third datagram, jitter and duplicates")
    func untidyLink() async {
        await check { random in
            var scenario = Scenario("untidy link")
            scenario.access.reordering = 0.3
            scenario.access.reorderingDelay = random.time(in: .milliseconds(1)...(.milliseconds(40)))
            scenario.access.jitter = .milliseconds(10)
            scenario.access.duplication = 0.2
            scenario.plans = [StreamPlan(download: 200_000, upload: 100_000)]
            return scenario
        }
    }

    @Test("reordering alone slows a transfer down and loses none of it")
    func mildReordering() async {
        await check { _ in
            var scenario = Scenario("mild reordering")
            scenario.access.reordering = 0.05
            scenario.access.reorderingDelay = .milliseconds(2)
            scenario.timeLimit = .seconds(20)
            return scenario
        }
    }

    @Test("an MTU of 1,280 bytes")
    func smallMTU() async {
        await check { random in
            var scenario = Scenario("MTU of 1,280")
            scenario.access.maximumPayload = 1_280 - 48
            scenario.access.loss = random.next() % 2 == 0 ? 0 : 0.02
            scenario.plans = [StreamPlan(download: 200_000, upload: 200_000)]
            return scenario
        }
    }

    @Test("1 Mbit/s with room for 10 KB in the queue: at least half of it is used")
    func narrowLink() async {
        await check { _ in
            var scenario = Scenario("narrow link")
            scenario.access.bandwidth = 1_000_000
            scenario.access.queueLimit = 10_000
            scenario.plans = [StreamPlan(download: 250_000)]
            return scenario
        } expecting: {
            unless($0.goodput > 500_000, "goodput \($0.goodput)")
        }
    }

    @Test("1 Gbit/s, 1 ms and 9 packets of queue: batches made for hosts do not keep a flow from 60 % of the link")
    func shortLinkWithShortQueue() async {
        await check(atMost: 3) { _ in
            var scenario = Scenario("short link, short queue")
            scenario.setRoundTrip(.milliseconds(1))
            var inbound = scenario.access
            inbound.bandwidth = 1_000_000_000
            inbound.queueLimit = 14_000
            scenario.accessInbound = inbound
            scenario.plans = [StreamPlan(download: 24_000_000)]
            return scenario
        } expecting: {
            unless($0.goodput > 600e6, "goodput \($0.goodput)")
        }
    }

    @Test("10 Mbit/s, 30 ms and 25 packets of queue: at least 80 % of the link is used")
    func ordinaryLink() async {
        await check(atMost: 3) { _ in
            var scenario = Scenario("ordinary link")
            scenario.setRoundTrip(.milliseconds(30))
            scenario.access.bandwidth = 10_000_000
            scenario.access.queueLimit = 25 * 1_500
            scenario.plans = [StreamPlan(download: 4_000_000)]
            return scenario
        } expecting: {
            unless($0.goodput > 8_000_000, "goodput \($0.goodput)")
        }
    }

    @Test("an upload through a narrow uplink while the downlink is wide")
    func asymmetricLink() async {
        await check { _ in
            var scenario = Scenario("asymmetric link")
            scenario.access.bandwidth = 500_000
            scenario.access.queueLimit = 20_000
            scenario.accessInbound = LinkConditions(bandwidth: 20_000_000)
            scenario.plans = [StreamPlan(download: 300_000, upload: 60_000)]
            return scenario
        }
    }

    @Test("100 streams at once, under loss")
    func manyStreams() async {
        await check { random in
            var scenario = Scenario("100 streams")
            scenario.access.loss = 0.02
            scenario.plans = (0..<100).map { _ in
                StreamPlan(download: random.integer(in: 0...6_000), upload: random.integer(in: 0...3_000))
            }
            return scenario
        }
    }

    @Test("300 streams where the peer allows 16 at once")
    func streamLimit() async {
        await check { _ in
            var scenario = Scenario("stream limit")
            scenario.server.maxBidirectionalStreams = 16
            scenario.access.loss = 0.01
            scenario.plans = (0..<300).map { StreamPlan(download: 400 + $0, upload: $0) }
            return scenario
        }
    }

    @Test("windows of a few packets never deadlock, under loss")
    func smallWindows() async {
        await check { random in
            var scenario = Scenario("small windows")
            for side in [\Scenario.client, \Scenario.server] {
                scenario[keyPath: side].initialMaxData = UInt64(random.integer(in: 2_000...30_000))
                scenario[keyPath: side].initialMaxStreamData = UInt64(random.integer(in: 1_000...10_000))
                scenario[keyPath: side].maximumReceiveWindow = 30_000
                scenario[keyPath: side].maximumStreamReceiveWindow = 20_000
                scenario[keyPath: side].sendBufferLimit = random.integer(in: 1_000...50_000)
            }
            scenario.access.loss = random.number(in: 0...0.05)
            scenario.plans = (0..<4).map { _ in StreamPlan(download: 40_000, upload: 40_000) }
            scenario.timeLimit = .seconds(120)
            return scenario
        }
    }

    @Test("a link that is dead for two seconds in mid-transfer")
    func outage() async {
        await check { random in
            let moment = random.time(in: .milliseconds(20)...(.milliseconds(400)))
            var scenario = Scenario("outage")
            scenario.access.bandwidth = 4_000_000
            scenario.plans = [StreamPlan(download: 200_000, upload: 100_000)]
            scenario.script = { testbed in
                let access = testbed.client.interfaces[0]
                testbed.at(moment) { access.isUp = false }
                testbed.at(moment + .seconds(2)) { access.isUp = true }
            }
            return scenario
        }
    }
}
