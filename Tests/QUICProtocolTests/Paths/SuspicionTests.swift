// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("The automatic policy suspects a silent path, row by row (M36, M38)")
struct SuspicionTests {
    private static let other = AvailableNetwork("other", rank: 2)
    private static let moved = PolicyDecision.move(from: "wifi", to: "cellular", validated: true, .suspected)

    /// On WiFi, with cellular as a standby that has answered.
    private static func trace(
        _ networks: [AvailableNetwork] = [PolicyTrace.wifi, PolicyTrace.cellular],
        change: (inout AutomaticMigration) -> Void = { _ in }
    ) -> PolicyTrace {
        var settings = AutomaticMigration()
        change(&settings)
        var trace = PolicyTrace(settings, networks: networks)
        trace.answer("cellular")
        trace.pass(.seconds(1))
        _ = trace.take()
        return trace
    }

    @Test("suspected: all other networks are probed and nothing moves, until it is silent for a third timeout (M36)")
    func suspected() {
        var trace = Self.trace([PolicyTrace.wifi, PolicyTrace.cellular, Self.other])
        trace.event(.suspected(PathID(0)))
        #expect(trace.take() == [.probe(["cellular", "other"], .suspected)], "a new port is not asked yet")
        trace.answer("cellular")
        trace.pass(.seconds(2))
        #expect(trace.take().isEmpty && trace.activeNetwork == "wifi")
        trace.event(.silent(PathID(0)))
        #expect(trace.take().first == Self.moved)
    }

    @Test("a network that answers when the third timeout is over is moved to at once (M36)")
    func lateAnswer() {
        var trace = Self.trace()
        trace.event(.suspected(PathID(0)))
        trace.event(.silent(PathID(0)))
        #expect(trace.activeNetwork == "wifi")
        trace.answer("cellular")
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("of several that have answered the best is moved to, whichever was first (M36)")
    func bestOfSeveral() {
        var trace = Self.trace([PolicyTrace.wifi, PolicyTrace.cellular, Self.other])
        trace.event(.suspected(PathID(0)))
        trace.answer("other")
        trace.answer("cellular")
        trace.event(.silent(PathID(0)))
        #expect(trace.activeNetwork == "cellular")
    }

    @Test("that the standby answered before is not enough: four timeouts, and all that there is is probed (M36)")
    func nobodyAnswers() {
        var trace = Self.trace()
        trace.event(.suspected(PathID(0)))
        trace.event(.silent(PathID(0)))
        trace.pass(.milliseconds(100))
        #expect(trace.take() == [.probe(["cellular"], .suspected)])
        #expect(trace.activeNetwork == "wifi")
        trace.event(.degraded(PathID(0)))
        #expect(trace.take() == [.probe(["wifi", "cellular"], .degrading)])
        trace.answer("wifi")
        #expect(trace.take() == [.move(from: "wifi", to: "wifi", validated: true, .degrading)])
    }

    @Test("progress ends a suspicion without a word; the next are heeded after 1, 2, 4 s (M36, M38)")
    func withdrawn() {
        var trace = Self.trace()
        for delay in [1, 2, 4] as [Int64] {
            trace.event(.suspected(PathID(0)))
            #expect(trace.take() == [.probe(["cellular"], .suspected)])
            trace.answer("cellular")
            trace.event(.recovered(PathID(0)))
            trace.pass(.seconds(delay) - .milliseconds(1))
            #expect(!trace.policy.heedsSuspicions(trace.now))
            trace.event(.suspected(PathID(0)))
            trace.event(.recovered(PathID(0)))
            #expect(trace.take().isEmpty && trace.probed.isEmpty && trace.activeNetwork == "wifi")
            trace.pass(.milliseconds(1))
            #expect(trace.policy.heedsSuspicions(trace.now))
        }
        #expect(trace.policy.histories.isEmpty, "a path that was not left counts for nothing")
        trace.pass(.seconds(61))
        trace.probed = []
        trace.event(.suspected(PathID(0)))
        trace.event(.recovered(PathID(0)))
        trace.pass(.seconds(1))
        #expect(trace.policy.heedsSuspicions(trace.now), "after a quiet period the delays start again")
    }

    @Test("a suspicion that is not heeded does no harm: degrading is (M36)")
    func notHeededThenDegraded() {
        var trace = Self.trace()
        trace.event(.suspected(PathID(0)))
        trace.answer("cellular")
        trace.event(.recovered(PathID(0)))
        trace.event(.suspected(PathID(0)))
        trace.event(.silent(PathID(0)))
        #expect(trace.activeNetwork == "wifi")
        _ = trace.take()
        trace.event(.degraded(PathID(0)))
        #expect(trace.take() == [.probe(["wifi", "cellular"], .degrading)])
    }

    @Test("the system says that a suspected network is gone: the data moves at once (M36)")
    func suspectedAndLost() {
        var trace = Self.trace()
        trace.event(.suspected(PathID(0)))
        _ = trace.take()
        trace.networks([PolicyTrace.cellular])
        #expect(trace.take() == [.move(from: "wifi", to: "cellular", validated: true, .networkLost("wifi"))])
    }

    @Test("moves on suspicion count as those on degrading: after five there are none (M38)")
    func limit() {
        var trace = Self.trace {
            $0.firstReturnDelay = .milliseconds(10)
            $0.longestReturnDelay = .milliseconds(10)
        }
        for turn in 0..<5 {
            if turn % 2 == 0 {
                trace.event(.suspected(trace.active))
                trace.answer("cellular")
                trace.event(.silent(trace.active))
            } else {
                trace.event(.degraded(trace.active))
                trace.answer("cellular")
            }
            trace.returnFromCellular()
        }
        _ = trace.take()
        trace.event(.suspected(trace.active))
        #expect(trace.take().isEmpty && trace.probed.isEmpty)
        trace.event(.degraded(trace.active))
        #expect(trace.take() == [.probe(["wifi"], .degrading)])
    }

    @Test("nothing is suspected by an idle connection, on the only network, or if it is not wanted (M38)")
    func notWanted() {
        var idle = Self.trace()
        idle.streams(false)
        idle.pass(.seconds(31))
        var alone = PolicyTrace()
        var unwilling = Self.trace { $0.suspectsSilence = false }
        for trace in [idle, alone, unwilling] { #expect(!trace.policy.heedsSuspicions(trace.now)) }
        for trace in [idle, alone, unwilling] as [PolicyTrace] {
            var trace = trace
            _ = trace.take()
            trace.probed = []
            trace.event(.suspected(PathID(0)))
            trace.event(.silent(PathID(0)))
            trace.pass(.seconds(2))
            #expect(trace.take().isEmpty && trace.probed.isEmpty)
        }
        alone.event(.degraded(PathID(0)))
        unwilling.event(.degraded(PathID(0)))
        #expect(alone.probed.count == 1 && unwilling.probed.count == 2, "degrading is another matter")
    }

    @Test("without a warm standby the other network is opened and asked, and moved to when it answers (M36)")
    func withoutStandby() {
        var trace = Self.trace { $0.keepsWarmStandby = false }
        trace.event(.suspected(PathID(0)))
        #expect(trace.take() == [.probe(["cellular"], .suspected)])
        #expect(trace.openPaths.count == 2)
        trace.answer("cellular")
        trace.event(.silent(PathID(0)))
        #expect(trace.take().first == Self.moved)

        var withdrawn = Self.trace { $0.keepsWarmStandby = false }
        withdrawn.event(.suspected(PathID(0)))
        withdrawn.event(.recovered(PathID(0)))
        #expect(withdrawn.openPaths == [PathID(0)], "its socket is closed again")
    }
}
