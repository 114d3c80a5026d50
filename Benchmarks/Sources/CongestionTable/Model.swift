// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What RFC 9438 lets one expect of flows, by means that share nothing with the implementation: its equations, round trip by
/// round trip. Datagrams are whole, and lost at random or when they overflow the queue; a round trip takes what the link and its
/// queue take, and what it takes to send a datagram and to wait for the second of two that are acknowledged together (RFC
/// 9000, section 13.2.2).
struct Model {
    private static let aggressiveness = 0.4
    private static let decrease = 0.7
    private static let friendlyIncrease = 3 * (1 - decrease) / (1 + decrease)

    /// A flow in congestion avoidance; windows are in datagrams.
    struct Flow {
        var window: Double
        /// W_max as fast convergence leaves it, and cwnd_prior.
        var most: Double
        var prior: Double
        /// W_est.
        var friendly: Double
        /// Seconds since the stage began.
        var elapsed: Double
        /// What is lost while a loss is being repaired is the same event, and the window does not grow meanwhile.
        var isRecovering = false
        /// Datagrams that passed the link.
        var carried = 0.0

        /// K: how long CUBIC takes to come back to where it was (section 4.2).
        private var climb: Double { cbrt(max(0, most - prior * Model.decrease) / Model.aggressiveness) }

        fileprivate mutating func reduce() {
            isRecovering = true
            most = window < most ? window * (1 + Model.decrease) / 2 : window
            prior = window
            window = max(2, window * Model.decrease)
            friendly = window
            elapsed = 0
        }

        fileprivate mutating func grow(after seconds: Double) {
            elapsed += seconds
            friendly += friendly >= prior ? 1 : Model.friendlyIncrease
            // Without a reduction K is 0 (section 4.10).
            let distance = elapsed - (prior > 0 ? climb : 0)
            let curve = Model.aggressiveness * distance * distance * distance + most
            window = max(friendly, min(max(curve, window), 1.5 * window))
        }
    }

    private let cell: Cell
    /// What the link holds, and with its queue and the datagram that is being sent, in datagrams.
    private let product: Double
    private let capacity: Double
    private var random: RandomSource
    private var flows: [Flow]

    private init(_ cell: Cell, flows: [Flow], random: RandomSource) {
        self.cell = cell
        self.flows = flows
        self.random = random
        product = cell.product / Double(Cell.wireSize)
        capacity = cell.mostInFlight / Double(Cell.wireSize) + 1
    }

    /// One round trip. Returns how long it took, in seconds.
    private mutating func advance() -> Double {
        let total = flows.reduce(0) { $0 + $1.window.rounded(.down) }
        let carried = min(total, capacity)
        let least = cell.roundTrip.inSeconds
        // Every other datagram waits for the one after it.
        let alone = least + least / product + least / (2 * total / Double(flows.count))
        let duration = max(alone, carried / product * least)
        for index in flows.indices {
            let share = flows[index].window.rounded(.down) / total
            flows[index].carried += carried * share
            var luck = pow(1 - cell.loss, carried * share)
            if total > capacity { luck *= pow(1 - share, max(1, total - capacity)) }
            let isLossy = random.unit() >= luck
            if flows[index].isRecovering {
                flows[index].isRecovering = false
            } else if isLossy {
                flows[index].reduce()
            } else {
                flows[index].grow(after: duration)
            }
        }
        return duration
    }

    /// What flows did in a span of time.
    private struct Outcome {
        /// Datagrams, by flow.
        var carried: [Double]
        var seconds: Double
        /// The time that a datagram waited in the queue, in seconds, averaged over time.
        var queueing: Double
    }

    private mutating func run(for seconds: Double, after offset: Double) -> Outcome {
        var time = 0.0
        while time < offset { time += advance() }
        for index in flows.indices { flows[index].carried = 0 }
        let start = time
        var waited = 0.0
        while time < offset + seconds {
            let before = flows.reduce(0) { $0 + $1.carried }
            let duration = advance()
            let inFlight = flows.reduce(0) { $0 + $1.carried } - before
            waited += max(0, inFlight / product - 1) * cell.roundTrip.inSeconds * duration
            time += duration
        }
        return Outcome(carried: flows.map(\.carried), seconds: time - start, queueing: waited / max(time - start, 1e-9))
    }

    /// Averages a figure of so many runs that they have some ten thousand round trips.
    private static func average(
        of cell: Cell, _ flows: [Flow], for seconds: Double, after offset: Double, _ figure: (Outcome) -> Double
    ) -> Double {
        let rounds = (seconds + offset) / cell.roundTrip.inSeconds
        let runs = Int(min(max(20_000 / rounds, 3), 200))
        var sum = 0.0
        for seed in 1...runs {
            var model = Model(cell, flows: flows, random: .seeded(UInt64(seed)))
            sum += figure(model.run(for: seconds, after: offset))
        }
        return sum / Double(runs)
    }

    // MARK: Questions

    /// The share of the link that a flow uses in the time from where it stands.
    static func use(of cell: Cell, by flow: Flow, for seconds: Double) -> Double {
        let rate = Double(cell.bandwidth) / 8 / Double(Cell.wireSize)
        return average(of: cell, [flow], for: seconds, after: 0) { min(1, $0.carried[0] / $0.seconds / rate) }
    }

    /// How long a datagram waits in the queue meanwhile, averaged over time.
    static func queueingDelay(of cell: Cell, by flow: Flow, for seconds: Double) -> Nanoseconds {
        Nanoseconds(Int64(average(of: cell, [flow], for: seconds, after: 0, \.queueing) * 1e9))
    }

    /// Jain's index of what flows carry in the time after `offset`, from where they stand.
    static func fairness(of cell: Cell, between flows: [Flow], for seconds: Double, after offset: Double) -> Double {
        average(of: cell, flows, for: seconds, after: offset) { jainsIndex($0.carried) }
    }

    /// 1 for equal shares, a half when one flow of two has everything.
    static func jainsIndex(_ shares: [Double]) -> Double {
        let sum = shares.reduce(0, +)
        let squares = shares.reduce(0) { $0 + $1 * $1 }
        return squares > 0 ? sum * sum / (Double(shares.count) * squares) : 0
    }

    /// The average window in datagrams under random loss, on a link without limit: the larger of CUBIC's own (AVG_W_cubic
    /// of RFC 9438, section 5.1) and that of the Reno-friendly region, which is Reno's (section 4.3).
    static func responseFunction(loss: Double, roundTrip: Nanoseconds) -> Double {
        let own =
            pow(aggressiveness * (3 + decrease) / (4 * (1 - decrease)), 0.25)
            * pow(roundTrip.inSeconds, 0.75) / pow(loss, 0.75)
        return max(own, sqrt(1.5 / loss))
    }

    /// The share of the link that the response function gives, which knows neither the link's limit nor its queue.
    static func use(byResponseFunctionIn cell: Cell) -> Double {
        let window = responseFunction(loss: cell.loss, roundTrip: cell.roundTrip)
        return min(1, window / (cell.product / Double(Cell.wireSize)))
    }

    /// How long it takes in seconds from one overflow of the queue to the next, with the RTT of a full queue: by CUBIC's curve
    /// (section 4.2) or, if that is sooner, in the Reno-friendly region.
    static func period(of cell: Cell) -> Double {
        let most = cell.mostInFlight / Double(Cell.wireSize)
        let lost = most * (1 - decrease)
        return min(cbrt(lost / aggressiveness), lost / friendlyIncrease * cell.roundTrip.inSeconds * (1 + cell.queue))
    }
}
