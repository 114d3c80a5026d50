// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// The conditions of one row of the table: a bottleneck that one flow has for itself, and then shares with a second.
struct Cell: Sendable {
    /// UDP payload of the datagrams in bytes: what fits an Ethernet with IPv6.
    static let datagramSize = 1_452
    /// The same on the wire, with the headers of UDP and IPv4.
    static let wireSize = datagramSize + 28

    /// Bits a second.
    var bandwidth: Int
    var roundTrip: Nanoseconds
    /// The probability that a datagram is lost on the way to the client.
    var loss: Double
    /// What the bottleneck's queue holds, in bandwidth-delay products.
    var queue: Double
    /// How long the first flow runs alone, and how long both then run.
    var span: Nanoseconds

    /// What a client's network card saves up before it interrupts its host.
    var coalescing: Nanoseconds { min(roundTrip / 50, .microseconds(100)) }

    /// The bandwidth-delay product in bytes.
    var product: Double { Double(bandwidth) / 8 * roundTrip.inSeconds }

    /// What waits at most, in bytes; besides it one datagram is on its way onto the link. A queue holds one at least.
    var queueLimit: Int { max(Self.wireSize, Int(product * queue)) }

    /// Bytes that the link could carry in the run, of which random loss leaves a part: what the run costs in time.
    var cost: Double {
        let use = loss > 0 ? Model.use(byResponseFunctionIn: self) : 1
        return Double(bandwidth) / 8 * span.inSeconds * 2 * use
    }
    /// Bytes that link and queue hold: what the run costs in memory.
    var mostInFlight: Double { product + Double(queueLimit) }
}

/// What was seen of a cell.
struct Measurement: Sendable {
    /// Shares of the link's bandwidth that were used, from 0 to 1: from the first byte on, after slow start, and by both
    /// flows together.
    var useFromStart = 0.0
    var useAfterSlowStart = 0.0
    var useByBoth = 0.0
    /// When the first flow's slow start was over; nil if it was not at the end of its time alone.
    var slowStartEnd: Nanoseconds?
    /// Of the first flow alone, after slow start.
    var meanQueueingDelay = Nanoseconds.zero
    var queueingDelay95 = Nanoseconds.zero
    /// Of the first flow alone: shares of all datagrams.
    var overflowFromStart = 0.0
    var overflowAfterSlowStart = 0.0
    var lossFromStart = 0.0
    /// Of the second half of the time that both flows ran.
    var fairness = 0.0
    /// What the RFC's equations let one expect from where the flows stood when slow start was over; nil if it was not.
    var expectedUse: Double?
    var expectedQueueingDelay: Nanoseconds?
    var expectedFairness: Double?
    var fault: String?
}

/// The cells that are run.
enum Grid {
    static let bandwidths = [10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000]
    static let roundTrips: [Nanoseconds] = [1, 10, 50, 100, 300].map { .milliseconds($0) }
    static let losses = [0, 0.001, 0.01, 0.02]
    static let queues = [0.1, 0.5, 1, 4]
    /// What a cell may hold at once, in bytes: each waits in memory, several times.
    static let mostInFlight = 800e6

    /// The cells that are asked for: a list in the options stands in for the grid's own.
    static func cells(for options: Options) -> [Cell] {
        let bandwidths = options.rates.map { $0.map { Int($0 * 1e6) } } ?? bandwidths
        let roundTrips = options.roundTrips.map { $0.map { Nanoseconds(Int64($0 * 1e6)) } } ?? roundTrips
        let losses = options.losses.map { $0.map { $0 / 100 } } ?? losses
        var cells = [Cell]()
        for bandwidth in bandwidths {
            for roundTrip in roundTrips {
                for loss in losses {
                    for queue in options.queues ?? queues {
                        var cell = Cell(
                            bandwidth: bandwidth, roundTrip: roundTrip, loss: loss, queue: queue, span: .seconds(5))
                        if options.queues == nil, isLeftOut(cell) || options.isShort && !isInShortForm(cell) {
                            continue
                        }
                        if let seconds = options.seconds {
                            cell.span = Nanoseconds(Int64(seconds * 1e9))
                        } else if !options.isShort {
                            cell.span = span(of: cell)
                        }
                        cells.append(cell)
                    }
                }
            }
        }
        return cells
    }

    private static func isLeftOut(_ cell: Cell) -> Bool {
        // With random loss the window of a long path never comes near the queue: one of them is enough.
        if cell.loss > 0 { return cell.queue != 1 && cell.product > 200_000 }
        // The dearest cells, of which the others show what there is to see.
        return cell.product > 50e6 && (cell.queue == 0.5 || cell.mostInFlight > mostInFlight)
    }

    /// Long enough for several of CUBIC's periods or for hundreds of losses, as far as one can wait for them.
    private static func span(of cell: Cell) -> Nanoseconds {
        let datagrams = Double(cell.bandwidth) / 8 / Double(Cell.wireSize)
        let (wanted, use) =
            cell.loss > 0
            ? (
                300 / cell.loss / datagrams / Model.use(byResponseFunctionIn: cell),
                Model.use(byResponseFunctionIn: cell)
            )
            : (30 * Model.period(of: cell), 1)
        let least = max(4, 40 * cell.roundTrip.inSeconds)
        let affordable = mostDatagrams(bandwidth: cell.bandwidth) / datagrams / use
        return Nanoseconds(Int64(max(least, min(wanted, affordable)) * 1e9))
    }

    /// Half of what a cell sends if it uses its link.
    private static func mostDatagrams(bandwidth: Int) -> Double {
        switch bandwidth {
        case ..<500_000_000: 1e6
        case ..<5_000_000_000: 2e6
        default: 4e6
        }
    }

    private static func isInShortForm(_ cell: Cell) -> Bool {
        cell.bandwidth <= 100_000_000 && cell.roundTrip >= .milliseconds(10) && cell.roundTrip <= .milliseconds(100)
            && (cell.loss == 0 || cell.loss == 0.01 && cell.queue == 1)
    }
}
