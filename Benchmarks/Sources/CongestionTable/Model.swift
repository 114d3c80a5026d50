// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What RFC 9438 lets one expect of a flow, by means that share nothing with the implementation.
enum Model {
    private static let aggressiveness = 0.4
    private static let decrease = 0.7
    private static let friendlyIncrease = 3 * (1 - decrease) / (1 + decrease)

    /// The average window in datagrams under random loss, on a link without limit: the larger of CUBIC's own (AVG_W_cubic
    /// of RFC 9438, section 5.1) and that of the Reno-friendly region, which is Reno's (section 4.3).
    static func responseFunction(loss: Double, roundTrip: Nanoseconds) -> Double {
        let own =
            pow(aggressiveness * (3 + decrease) / (4 * (1 - decrease)), 0.25)
            * pow(roundTrip.inSeconds, 0.75) / pow(loss, 0.75)
        return max(own, sqrt(1.5 / loss))
    }

    /// K: how long CUBIC takes to come back to where it was, in seconds (RFC 9438, section 4.2).
    static func timeToMaximum(_ most: Double, from window: Double) -> Double {
        cbrt(max(0, most - window) / aggressiveness)
    }

    /// The same for a window that fills the link and its queue.
    static func period(of cell: Cell) -> Double {
        let most = cell.mostInFlight / Double(Cell.wireSize)
        return timeToMaximum(most, from: most * decrease)
    }

    /// The share of the link that the response function gives, which knows neither the link's limit nor its queue.
    static func use(byResponseFunctionIn cell: Cell) -> Double {
        let window = responseFunction(loss: cell.loss, roundTrip: cell.roundTrip)
        return min(1, window / (cell.product / Double(Cell.wireSize)))
    }

    /// The share of the link that a flow uses which goes by the RFC's equations round trip by round trip: datagrams are lost
    /// at random or when they overflow the queue, and nothing takes longer than the link and its queue do. The average over
    /// a long time, without slow start.
    static func use(byEquationsIn cell: Cell, random: RandomSource) -> Double {
        var random = random
        let product = cell.product / Double(Cell.wireSize)
        let capacity = product + Double(cell.queueLimit) / Double(Cell.wireSize)
        var window = max(2, product * decrease)
        var most = window
        var friendly = window
        var prior = window
        var elapsed = 0.0
        var isRecovering = false
        var (carried, time) = (0.0, 0.0)
        let rounds = 20_000
        for round in 0..<rounds {
            let sent = min(window, capacity)
            let duration = cell.roundTrip.inSeconds * max(1, sent / product)
            // The first tenth is for getting under way.
            if round >= rounds / 10 {
                carried += sent
                time += duration
            }
            let isLossy = random.unit() > pow(1 - cell.loss, sent)
            // What is lost while a loss is being repaired is the same event, and the window does not grow meanwhile.
            if isRecovering {
                isRecovering = false
                continue
            }
            if window > capacity || isLossy {
                isRecovering = true
                most = window < most ? window * (1 + decrease) / 2 : window
                prior = window
                window = max(2, window * decrease)
                friendly = window
                elapsed = 0
                continue
            }
            let climb = timeToMaximum(most, from: prior * decrease)
            elapsed += duration
            friendly += friendly >= prior ? 1 : friendlyIncrease
            let curve = aggressiveness * pow(elapsed - climb, 3) + most
            window = max(friendly, min(max(curve, window), 1.5 * window))
        }
        return min(1, carried / time / (product / cell.roundTrip.inSeconds))
    }
}
