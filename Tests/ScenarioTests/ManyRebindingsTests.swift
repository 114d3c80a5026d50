// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation
import Testing

@Suite("Rebindings without end")
struct ManyRebindingsTests {
    @Test("1,000 rebindings of port or address in one connection (M6)")
    func thousandRebindings() async {
        await check(atMost: 1) { _ in
            var scenario = Scenario("1,000 rebindings")
            scenario.setRoundTrip(.milliseconds(4))
            scenario.access.bandwidth = 1_000_000
            scenario.access.queueLimit = 8_000
            scenario.nat = .init()
            scenario.plans = [StreamPlan(download: 1_500_000, upload: 1_500_000)]
            scenario.timeLimit = .seconds(300)
            scenario.script = { testbed in
                testbed.hold()
                testbed.whenConfirmed {
                    testbed.nat?.rebindAtRandom(
                        [.port, .port, .port, .address], pauses: .milliseconds(10)...(.milliseconds(30)), count: 1_000)
                }
                func awaitLast() {
                    guard testbed.nat?.rebindingCount != 1_000 else { return testbed.release() }
                    testbed.after(.milliseconds(50), awaitLast)
                }
                awaitLast()
            }
            return scenario
        } expecting: {
            unless($0.rebindings == 1_000 && $0.peerMoves >= 500, "\($0.peerMoves) moves")
        }
    }

    /// At 30 ms of RTT, with and without a new port every 50 ms for 10 s.
    private static func everyFiftyMilliseconds(
        _ plan: StreamPlan, _ nat: SimulatedNAT.Configuration, isDisturbed: Bool
    ) -> Scenario {
        var scenario = Scenario(isDisturbed ? "a new port every 50 ms" : "undisturbed")
        scenario.setRoundTrip(.milliseconds(30))
        scenario.access.bandwidth = 10_000_000
        scenario.access.queueLimit = 25 * 1_500
        scenario.nat = nat
        scenario.plans = [plan]
        scenario.script = { testbed in
            guard isDisturbed else { return }
            testbed.whenConfirmed { testbed.nat?.rebind(.port, every: .milliseconds(50), count: 200) }
        }
        return scenario
    }

    /// - Parameters:
    ///   - share: of the undisturbed goodput that must be reached; `docs/decisions/0006-rebinding-every-50-ms.md` says why
    ///     a download cannot reach what an upload does.
    private static func compareGoodput(
        _ plan: StreamPlan, _ nat: SimulatedNAT.Configuration, share: Double, seed: UInt64
    ) -> String? {
        let calm = everyFiftyMilliseconds(plan, nat, isDisturbed: false).run(seed: seed)
        guard calm.isClean else { return "\(calm)" }
        let disturbed = everyFiftyMilliseconds(plan, nat, isDisturbed: true).run(seed: seed, trace: Seeds.trace)
        guard disturbed.isClean else { return "\(disturbed)" }
        return unless(
            disturbed.goodput >= share * calm.goodput && disturbed.rebindings >= 195,
            "\(Int(100 * disturbed.goodput / calm.goodput)) % of the undisturbed goodput\n\(calm)\n\(disturbed)")
    }

    @Test("a new port every 50 ms for 10 s while downloading, old ones lingering: 60 % of the goodput (M20)")
    func downloadEveryFiftyMilliseconds() async {
        await overSeeds(atMost: 2) { seed in
            Self.compareGoodput(
                StreamPlan(download: 12_500_000), .init(oldMappings: .linger(.seconds(1))), share: 0.6, seed: seed)
        }
    }

    @Test("a new port every 50 ms for 10 s while uploading, old ones dead at once: 95 % of the goodput (M20)")
    func uploadEveryFiftyMilliseconds() async {
        await overSeeds(atMost: 2) { seed in
            Self.compareGoodput(StreamPlan(upload: 12_500_000), .init(), share: 0.95, seed: seed)
        }
    }

    @Test("ports that change every 50, 100 or 300 ms and are dead at once: the download completes all the same (M11)")
    func deadAtOnce() async {
        await check { random in
            let interval = [50, 100, 300][random.integer(in: 0...2)]
            var scenario = Scenario("a new port every \(interval) ms")
            scenario.setRoundTrip(.milliseconds(30))
            scenario.access.loss = random.number(in: 0...0.02)
            scenario.nat = .init()
            scenario.plans = [StreamPlan(download: 150_000)]
            scenario.timeLimit = .seconds(120)
            scenario.script = { testbed in
                testbed.whenConfirmed {
                    testbed.nat?.rebind(.port, every: .milliseconds(Int64(interval)), count: 2_000)
                }
            }
            return scenario
        }
    }

    // MARK: Silence (M22)

    @Test("the mapping dies while the server thinks: the waiting client speaks and gets its answer (M22)")
    func rebindingWhileServerThinks() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(300)))
            let moment = random.time(in: .milliseconds(700)...(.milliseconds(1_900)))
            let kind: SimulatedNAT.Rebinding = random.next() % 2 == 0 ? .port : .address
            var scenario = Scenario("rebinding while the server thinks")
            scenario.setRoundTrip(roundTrip)
            scenario.nat = .init()
            scenario.thinkTime = .seconds(2)
            scenario.plans = [StreamPlan(download: 100_000)]
            scenario.timeLimit = .seconds(15)
            scenario.script = { testbed in testbed.at(moment) { testbed.nat?.rebind(kind) } }
            return scenario
        }
    }

    @Test("the mapping dies in mid-download, and again: the client notices the silence within a few RTTs (M22)")
    func rebindingsInMidDownload() async {
        await check { random in
            let roundTrip = random.time(in: .milliseconds(10)...(.milliseconds(150)))
            let pauses = Nanoseconds.milliseconds(1)...(.milliseconds(800))
            var scenario = Scenario("rebindings in mid-download")
            scenario.setRoundTrip(roundTrip)
            scenario.access.bandwidth = 2_000_000
            scenario.access.queueLimit = 30_000
            scenario.nat = .init()
            scenario.plans = [StreamPlan(download: 400_000)]
            scenario.timeLimit = .seconds(30)
            scenario.script = { testbed in
                testbed.whenConfirmed { testbed.nat?.rebindAtRandom([.port, .address], pauses: pauses, count: 3) }
            }
            return scenario
        } expecting: { report in
            unless(report.largestGap < .seconds(3), "nothing arrived for \(report.largestGap)")
        }
    }

    @Test("a keep-alive interval keeps the mapping of a NAT that forgets after 5 s")
    func keepAlive() async {
        await check(atMost: 3) { _ in
            var scenario = Scenario("keep-alive")
            scenario.nat = .init(idleTimeout: .seconds(5))
            scenario.client.keepAliveInterval = .seconds(2)
            scenario.client.probesSilence = false
            scenario.thinkTime = .seconds(20)
            scenario.plans = [StreamPlan(download: 20_000)]
            scenario.timeLimit = .seconds(25)
            return scenario
        } expecting: {
            unless($0.peerMoves == 0, "the mapping changed \($0.peerMoves) times")
        }
    }
}
