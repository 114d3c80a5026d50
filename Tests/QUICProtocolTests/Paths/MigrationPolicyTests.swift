// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("The automatic policy, row by row (M35 to M38)")
struct MigrationPolicyTests {
    private static let rtt = Nanoseconds.milliseconds(20)

    @Test("a second network is probed and kept proved, again every 15 s (M37)")
    func warmStandby() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        #expect(trace.take() == [.probe(["cellular"], .standby)])
        trace.answer("cellular")
        #expect(trace.take() == [.standby("cellular", rtt: Self.rtt)])
        trace.pass(.seconds(14))
        #expect(trace.probed.isEmpty)
        trace.pass(.seconds(1))
        #expect(trace.probed.count == 1)
        trace.answer("cellular")
        #expect(trace.take().isEmpty, "a standby that still answers is no news")
        #expect(trace.activeNetwork == "wifi")
    }

    @Test("network lost: the data moves at once to the proved standby, and the old path is closed (M36)")
    func networkLostWithStandby() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        _ = trace.take()
        trace.networks([PolicyTrace.cellular])
        #expect(
            trace.take() == [.move(from: "wifi", to: "cellular", validated: true, .networkLost("wifi"))])
        #expect(!trace.openPaths.contains(PathID(0)))
    }

    @Test("network lost without a proved standby: the data moves at once all the same, and is proved under way (M36)")
    func networkLostWithoutStandby() {
        var settings = AutomaticMigration()
        settings.keepsWarmStandby = false
        var trace = PolicyTrace(settings, networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        #expect(trace.take().isEmpty && trace.openPaths.count == 1, "no standby was asked for")
        trace.networks([PolicyTrace.cellular])
        #expect(
            trace.take() == [
                .probe(["cellular"], .networkLost("wifi")),
                .move(from: "wifi", to: "cellular", validated: false, .networkLost("wifi")),
            ])
    }

    @Test("of several networks the proved one is moved to, though another ranks higher (M36)")
    func provedBeforePreferred() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.networks([PolicyTrace.cellular, AvailableNetwork("other", rank: 0)])
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("the active socket dies: at once to the standby; without another network to a new port of the same (M36)")
    func transportLost() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        _ = trace.take()
        trace.event(.failed(PathID(0), .transportLost))
        #expect(trace.take().contains(.move(from: "wifi", to: "cellular", validated: true, .transportLost)))

        var alone = PolicyTrace()
        alone.event(.failed(PathID(0), .transportLost))
        #expect(alone.take().contains(.move(from: "wifi", to: "wifi", validated: false, .transportLost)))
        #expect(alone.active != PathID(0) && alone.openPaths == [alone.active])
    }

    @Test("a new preferred network is probed first, and moved to when it answers (M36)")
    func preferredAppears() {
        var trace = PolicyTrace(on: "cellular", networks: [PolicyTrace.cellular])
        trace.networks([PolicyTrace.wifi, PolicyTrace.cellular])
        #expect(trace.take() == [.probe(["wifi"], .preferredNetwork("wifi"))])
        #expect(trace.activeNetwork == "cellular")
        trace.answer("wifi")
        #expect(
            trace.take().contains(.move(from: "cellular", to: "wifi", validated: true, .preferredNetwork("wifi"))))
        #expect(trace.openPaths.contains(PathID(0)), "the network left stands by")
    }

    @Test("a preferred network that does not answer is asked again after 1, 2, 4 s, and not moved to (M36)")
    func preferredDoesNotAnswer() {
        var trace = PolicyTrace(on: "cellular", networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        for delay in [1, 2, 4] as [Int64] {
            #expect(trace.probed.count == 1)
            trace.failProbes()
            trace.pass(.seconds(delay) - .milliseconds(1))
            #expect(trace.probed.isEmpty)
            trace.pass(.milliseconds(1))
        }
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("a network of equal rank is not moved to (M36)")
    func equalRank() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, AvailableNetwork("other", rank: 0)])
        trace.answer("other")
        trace.pass(.seconds(40))
        trace.answer("other")
        #expect(trace.activeNetwork == "wifi")
    }

    @Test("degrading: the other networks and a new port are probed at once, the first that answers is taken (M36)")
    func degrading() {
        var trace = PolicyTrace(
            networks: [PolicyTrace.wifi, PolicyTrace.cellular, AvailableNetwork("other", rank: 2)])
        trace.answer("cellular")
        _ = trace.take()
        trace.event(.degraded(PathID(0)))
        #expect(trace.take() == [.probe(["wifi", "cellular", "other"], .degrading)])
        #expect(trace.probed.count == 3)
        trace.answer("other")
        #expect(trace.take().first == .move(from: "wifi", to: "other", validated: true, .degrading))
    }

    @Test("degrading on the only network: a new port is probed and taken, and the old one closed (M36)")
    func degradingAlone() {
        var trace = PolicyTrace()
        trace.event(.degraded(PathID(0)))
        #expect(trace.take() == [.probe(["wifi"], .degrading)])
        trace.answer("wifi")
        #expect(trace.take() == [.move(from: "wifi", to: "wifi", validated: true, .degrading)])
        #expect(trace.openPaths == [trace.active])
    }

    @Test("the path recovers before another answers: stay, and close the new port (M36)")
    func recovers() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.event(.degraded(PathID(0)))
        _ = trace.take()
        trace.event(.recovered(PathID(0)))
        #expect(trace.take() == [.recovered])
        #expect(trace.openPaths.count == 2, "the new port is closed, the standby is not")
        trace.answer("cellular")
        #expect(trace.activeNetwork == "wifi")
    }

    @Test("nothing answers: hold, and probe again after 1, 2, 4 s; there is a network, so never give up (M36)")
    func nothingAnswers() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.event(.degraded(PathID(0)))
        _ = trace.take()
        trace.failProbes()
        #expect(trace.take() == [.hold(.nothingAnswers)])
        for delay in [1, 2, 4] as [Int64] {
            trace.pass(.seconds(delay))
            #expect(trace.take() == [.probe(["wifi", "cellular"], .degrading)])
            trace.failProbes()
        }
        trace.pass(.seconds(60))
        #expect(!trace.gaveUp)
    }

    @Test("no network: hold for 10 s, then give up (M36)")
    func noNetworkForTooLong() {
        var trace = PolicyTrace()
        trace.networks([])
        #expect(trace.take() == [.hold(.noNetwork)])
        trace.pass(.milliseconds(9_999))
        #expect(!trace.gaveUp)
        trace.pass(.milliseconds(1))
        #expect(trace.gaveUp)
        #expect(trace.take() == [.giveUp(.noNetwork)])
        trace.networks([PolicyTrace.wifi])
        #expect(trace.take().isEmpty, "what was given up stays so")
    }

    @Test("no network on which a socket can be opened is no network (M36)")
    func brokenNetwork() {
        var trace = PolicyTrace()
        trace.broken = ["cellular"]
        trace.networks([PolicyTrace.cellular])
        #expect(trace.take() == [.probe(["cellular"], .networkLost("wifi")), .hold(.noNetwork)])
        trace.pass(.seconds(11))
        #expect(trace.gaveUp)
    }

    @Test("a network comes within the 10 s: the data moves there at once (M36)")
    func anotherNetworkComes() {
        var trace = PolicyTrace()
        trace.networks([])
        trace.pass(.seconds(9))
        trace.networks([PolicyTrace.cellular])
        trace.pass(.seconds(5))
        #expect(trace.activeNetwork == "cellular" && !trace.gaveUp)
    }

    @Test("the same network is back within the 10 s: stay on it, and say so to the peer (M36)")
    func sameNetworkComesBack() {
        var trace = PolicyTrace()
        trace.networks([])
        trace.pass(.seconds(9))
        _ = trace.take()
        trace.networks([PolicyTrace.wifi])
        #expect(trace.take() == [.recovered])
        #expect(trace.resumed == 1 && trace.active == PathID(0))
        trace.pass(.seconds(5))
        #expect(!trace.gaveUp)
    }

    @Test("back to the preferred network after 1, 2, 4 s of it working (M36)")
    func returns() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        for delay in [1, 2, 4] as [Int64] {
            trace.networks([PolicyTrace.cellular])
            #expect(trace.activeNetwork == "cellular")
            trace.networks([PolicyTrace.wifi, PolicyTrace.cellular])
            trace.answer("wifi")
            #expect(trace.take().contains(.returnLater("wifi", after: .seconds(delay))))
            trace.pass(.seconds(delay) - .milliseconds(1))
            #expect(trace.activeNetwork == "cellular" && trace.probed.isEmpty)
            trace.pass(.milliseconds(1))
            #expect(trace.activeNetwork == "cellular", "it is probed once more")
            trace.answer("wifi")
            #expect(trace.activeNetwork == "wifi")
            trace.answer("cellular")
        }
    }

    @Test("a preferred network that flaps is not moved to before it has worked for the whole time (M36)")
    func flapping() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.networks([PolicyTrace.cellular])
        for _ in 0..<100 {
            trace.networks([PolicyTrace.wifi, PolicyTrace.cellular])
            trace.answer("wifi")
            trace.pass(.milliseconds(900))
            trace.networks([PolicyTrace.cellular])
            trace.pass(.milliseconds(200))
            trace.answer("cellular")
            #expect(trace.activeNetwork == "cellular")
        }
        #expect(trace.openPaths.count <= 2)
    }

    @Test("a send error moves the data at once; after five the network is left no more on errors (M38)")
    func sendErrors() {
        var settings = AutomaticMigration()
        settings.firstReturnDelay = .milliseconds(10)
        settings.longestReturnDelay = .milliseconds(10)
        var trace = PolicyTrace(settings, networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        for _ in 0..<5 {
            _ = trace.take()
            trace.event(.failed(trace.active, .sendError(101)))
            #expect(
                trace.take().first == .move(from: "wifi", to: "cellular", validated: true, .sendError(101)))
            trace.answer("wifi")
            trace.pass(.milliseconds(20))
            trace.answer("wifi")
            #expect(trace.activeNetwork == "wifi")
            trace.answer("cellular")
        }
        _ = trace.take()
        trace.event(.failed(trace.active, .sendError(101)))
        #expect(trace.take() == [.stay(cause: .sendError(101), because: .limitReached)])
        #expect(trace.activeNetwork == "wifi")
        // What holds for errors does not hold for a network that is gone.
        var gone = trace
        gone.networks([PolicyTrace.cellular])
        #expect(gone.activeNetwork == "cellular")
        trace.event(.recovered(trace.active))
        trace.pass(.seconds(61))
        trace.answer("cellular")
        trace.event(.failed(trace.active, .sendError(101)))
        #expect(trace.activeNetwork == "cellular", "after a quiet period the count starts again")
    }

    @Test("after five moves on degrading a network is left no more for that; four new ports are tried still (M38)")
    func degradingLimit() {
        var settings = AutomaticMigration()
        settings.firstReturnDelay = .milliseconds(10)
        settings.longestReturnDelay = .milliseconds(10)
        var trace = PolicyTrace(settings, networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        for _ in 0..<5 {
            trace.event(.degraded(trace.active))
            trace.answer("cellular")
            trace.returnFromCellular()
        }
        for _ in 0..<4 {
            _ = trace.take()
            trace.event(.degraded(trace.active))
            #expect(trace.take() == [.probe(["wifi"], .degrading)])
            trace.answer("wifi")
            #expect(trace.activeNetwork == "wifi")
        }
        _ = trace.take()
        trace.event(.degraded(trace.active))
        #expect(trace.take() == [.stay(cause: .degrading, because: .limitReached)])
    }

    @Test("a connection whose last stream ended over 30 s ago is left alone until it has one again (M38)")
    func idle() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.streams(false)
        trace.pass(.seconds(29))
        trace.answer("cellular")
        trace.pass(.seconds(60))
        #expect(trace.probed.count <= 1, "an idle connection keeps no standby warm")
        trace.probed = []
        _ = trace.take()
        trace.networks([])
        #expect(trace.take() == [.stay(cause: .networkLost("wifi"), because: .idle)])
        trace.pass(.seconds(60))
        #expect(!trace.gaveUp)
        trace.networks([PolicyTrace.cellular])
        #expect(trace.activeNetwork == "wifi")
        trace.streams(true)
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("one that has been idle for less moves (M38)")
    func idleForLess() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular], hasOpenStreams: false)
        trace.answer("cellular")
        trace.pass(.seconds(29))
        trace.networks([PolicyTrace.cellular])
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("a path that was moved to unproved and is never proved is left for another that answers (M36)")
    func unreachable() {
        var settings = AutomaticMigration()
        settings.keepsWarmStandby = false
        var trace = PolicyTrace(
            settings, networks: [PolicyTrace.wifi, PolicyTrace.cellular, AvailableNetwork("other", rank: 2)])
        trace.networks([PolicyTrace.cellular, AvailableNetwork("other", rank: 2)])
        #expect(trace.activeNetwork == "cellular")
        _ = trace.take()
        trace.event(.failed(trace.active, .noResponse))
        #expect(trace.take() == [.probe(["cellular", "other"], .unreachable)])
        trace.answer("other")
        #expect(trace.activeNetwork == "other")
    }

    @Test("the peer forbids migration: nothing is done, and it is said once (M38)")
    func forbidden() {
        var trace = PolicyTrace()
        _ = trace.take()
        trace.policy.networksChanged([PolicyTrace.wifi, PolicyTrace.cellular], now: trace.now)
        guard case .open(let candidate, _) = trace.policy.actions.popFirst() else {
            Issue.record("no socket was asked for")
            return
        }
        trace.policy.openingFailed(candidate, .migrationDisabledByPeer, now: trace.now)
        trace.settle()
        #expect(trace.take().last == .stay(cause: .standby, because: .migrationForbidden))
        trace.networks([])
        trace.pass(.seconds(60))
        #expect(trace.take().isEmpty && !trace.gaveUp)
    }

    @Test("a switch that is refused is not repeated without end (M36)")
    func refusedSwitch() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.refusesSwitches = true
        trace.networks([PolicyTrace.cellular])
        #expect(trace.activeNetwork == "wifi")
        trace.pass(.seconds(3))
        trace.refusesSwitches = false
        trace.pass(.seconds(9))
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("the application's own switch is accepted, and its paths are never closed")
    func applicationSwitches() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.networkOfPath[PathID(50)] = "cellular"
        trace.openPaths.insert(PathID(50))
        trace.active = PathID(50)
        trace.event(.switched(from: PathID(0), to: PathID(50), .application))
        trace.networks([PolicyTrace.wifi])
        #expect(trace.activeNetwork == "wifi")
        #expect(trace.openPaths.contains(PathID(50)))
    }

    @Test("whatever happens in whatever order: few paths, no endless loop, never the active path closed (M38, M40)")
    func randomTraces() {
        let all = [PolicyTrace.wired, PolicyTrace.wifi, PolicyTrace.cellular, AvailableNetwork("other", rank: 2)]
        for seed in 0..<500 as Range<UInt64> {
            var random = RandomSource.seeded(seed)
            var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
            for _ in 0..<200 {
                switch random.next() % 12 {
                case 0, 1:
                    let mask = random.next()
                    trace.networks(all.enumerated().filter { mask >> $0.offset & 1 == 1 }.map(\.element))
                case 2, 3:
                    if let path = trace.probed.randomElement(using: &random) {
                        trace.answer(trace.networkOfPath[path] ?? "")
                    }
                case 4: trace.failProbes()
                case 5: trace.event(.degraded(trace.active))
                case 6: trace.event(.recovered(trace.active))
                case 7: trace.event(.failed(trace.active, .sendError(1)))
                case 8: trace.event(.suspected(trace.active))
                case 9: trace.event(.silent(trace.active))
                case 10: trace.streams(random.next() % 2 == 0)
                default: trace.pass(.milliseconds(Int64(random.next() % 4_000)))
                }
                trace.broken = random.next() % 8 == 0 ? ["cellular"] : []
                #expect(trace.openPaths.count <= MigrationPolicyEngine.maximumCandidates)
                #expect(trace.openPaths.contains(trace.active))
                #expect(trace.policy.candidates.count <= MigrationPolicyEngine.maximumCandidates)
            }
        }
    }
}
