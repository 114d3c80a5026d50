// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization
import TernSimulation
import Testing

/// A path that only loses packets is not left the sooner for being suspected.
@Suite("Suspicion moves no connection that has lost nothing but packets (M36, M38, family 12)")
struct SuspicionScenarioTests {
    enum Load: String, CaseIterable, Sendable {
        case download, upload
        /// Many answers with pauses between them.
        case pauses

        var plans: [StreamPlan] {
            switch self {
            case .download: [StreamPlan(download: 600_000)]
            case .upload: [StreamPlan(upload: 600_000)]
            case .pauses: Array(repeating: StreamPlan(download: 20_000), count: 10)
            }
        }
    }

    /// What the policy did in all runs together.
    private struct Totals {
        var runs = 0
        var moves = 0
        var suspicions = 0
        var duration = Nanoseconds.zero
    }

    private static func scenario(
        _ load: Load, suspecting: Bool, _ random: inout RandomSource,
        note: @escaping @Sendable (Int, Int, Nanoseconds) -> Void
    ) -> Scenario {
        var roaming = RoamingScenario("\(load.rawValue) under loss", &random)
        roaming.scenario.plans = load.plans
        roaming.scenario.setRoundTrip(random.time(in: .milliseconds(10)...(.milliseconds(300))))
        roaming.scenario.access.loss = 0.05
        roaming.scenario.access.bursts = BurstLoss(begins: 0.01, ends: 0.5)
        roaming.scenario.timeLimit = .seconds(180)
        if load == .pauses {
            roaming.scenario.thinkTime = random.time(in: .milliseconds(100)...(.milliseconds(900)))
            roaming.scenario.server.maxBidirectionalStreams = 1
        }
        roaming.settings.suspectsSilence = suspecting
        return roaming.script { testbed, roamer in
            testbed.hold()
            func watch() {
                guard testbed.transfer.isFinished else { return testbed.after(.milliseconds(5)) { watch() } }
                // To have gone back to WiFi is no move of its own.
                let moves = roamer.moves.filter {
                    if case .move(_, _, _, .preferredNetwork) = $0.decision { false } else { true }
                }
                let suspicions = roamer.decisions.filter {
                    if case .probe(_, .suspected) = $0.decision { true } else { false }
                }
                note(moves.count, suspicions.count, testbed.elapsed)
                testbed.release()
            }
            watch()
        }
    }

    @Test("a loss of 5 % and bursts: hardly more moves than without suspicion", arguments: Load.allCases)
    func loss(load: Load) async {
        let totals = Mutex<[Bool: Totals]>([:])
        for suspecting in [false, true] {
            await check { random in
                Self.scenario(load, suspecting: suspecting, &random) { moves, suspicions, duration in
                    totals.withLock { totals in
                        totals[suspecting, default: Totals()].runs += 1
                        totals[suspecting, default: Totals()].moves += moves
                        totals[suspecting, default: Totals()].suspicions += suspicions
                        totals[suspecting, default: Totals()].duration += duration
                    }
                }
            }
        }
        let (without, with) = totals.withLock { ($0[false] ?? Totals(), $0[true] ?? Totals()) }
        print("loss, \(load.rawValue): without suspicion \(without), with \(with)")
        #expect(with.runs == without.runs && with.runs > 0)
        #expect(without.suspicions == 0)
        // A seed that is played again says nothing about the many.
        guard with.runs >= 10 else { return }
        #expect(with.suspicions <= with.runs)
        // Bursts that outlast three probe timeouts and not four are rare: a move in ten runs of a minute or less.
        #expect(with.moves <= without.moves + with.runs / 10)
    }
}
