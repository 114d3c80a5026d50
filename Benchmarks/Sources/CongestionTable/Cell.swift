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

    /// The bandwidth-delay product in bytes.
    var product: Double { Double(bandwidth) / 8 * roundTrip.inSeconds }

    /// What waits at most, in bytes; besides it one datagram is on its way onto the link. A queue holds one at least.
    var queueLimit: Int { max(Self.wireSize, Int(product * queue)) }

    /// Bytes that the link could carry in the run, and at once: what the run costs in time and memory.
    var capacity: Double { Double(bandwidth) / 8 * span.inSeconds * 2 }
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
    /// What the RFC's equations let one expect after slow start.
    var expectedUse = 0.0
    var fault: String?
}

/// The cells that are run. The whole grid has 320.
enum Grid {
    static let bandwidths = [10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000]
    static let roundTrips: [Nanoseconds] = [1, 10, 50, 100, 300].map { .milliseconds($0) }
    static let losses = [0, 0.001, 0.01, 0.02]
    static let queues = [0.1, 0.5, 1, 4]

    /// A cell is left out if the link could hold more bytes at once: each waits in memory.
    static let mostInFlight = 400e6

    /// - Parameter isShort: a few cells of each kind, in less than a minute.
    static func cells(isShort: Bool) -> [Cell] {
        var cells = [Cell]()
        for bandwidth in bandwidths {
            for roundTrip in roundTrips {
                for loss in losses {
                    for queue in queues {
                        let cell = Cell(
                            bandwidth: bandwidth, roundTrip: roundTrip, loss: loss, queue: queue,
                            span: isShort ? .seconds(5) : span(bandwidth: bandwidth, loss: loss))
                        guard cell.mostInFlight <= mostInFlight else { continue }
                        // With random loss the window of a long path never comes near the queue: one of them is enough.
                        if loss > 0, queue != 1, cell.product > 200_000 { continue }
                        if isShort, !isInShortForm(cell) { continue }
                        cells.append(cell)
                    }
                }
            }
        }
        return cells
    }

    /// Long enough for several of CUBIC's periods where they are short, and not more than one can wait for.
    private static func span(bandwidth: Int, loss: Double) -> Nanoseconds {
        switch bandwidth {
        case ..<50_000_000: .seconds(30)
        case ..<500_000_000: .seconds(20)
        case ..<5_000_000_000: loss > 0 ? .seconds(20) : .seconds(8)
        default: loss > 0 ? .seconds(10) : .seconds(2)
        }
    }

    private static func isInShortForm(_ cell: Cell) -> Bool {
        cell.bandwidth <= 100_000_000 && cell.roundTrip >= .milliseconds(10) && cell.roundTrip <= .milliseconds(100)
            && (cell.loss == 0 || cell.loss == 0.01 && cell.queue == 1)
    }
}
