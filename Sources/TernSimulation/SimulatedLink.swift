// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// What a link does to the ECN marks of the datagrams it carries.
public enum ECNTreatment: Sendable, Equatable {
    /// They pass as they are, unless the link marks congestion itself.
    case passes
    /// They are erased.
    case bleaches
    /// ECT(0) becomes ECT(1), as by a router that means something else by the bits.
    case remarks
    /// Datagrams that carry any mark vanish.
    case drops
}

/// Losses that come in bursts: a chain of two states, a good one without these losses and a bad one (Gilbert and Elliott).
///
/// The share of datagrams that meet the bad state is `begins / (begins + ends)`; a burst is `1 / ends` datagrams long, but does
/// not outlast a second in which there are none: what swallows a burst is over by then, and not there for hours because
/// nobody sends.
public struct BurstLoss: Sendable, Equatable {
    /// The probability, for each datagram, that the bad state begins with it.
    public var begins: Double
    /// The probability, for each datagram in the bad state, that it is the last there.
    public var ends: Double
    /// The probability that a datagram in the bad state is lost.
    public var loss: Double

    static let longestPause: Nanoseconds = .seconds(1)

    public init(begins: Double, ends: Double, loss: Double = 1) {
        self.begins = begins
        self.ends = ends
        self.loss = loss
    }
}

/// How one direction of a link treats datagrams. May be changed while datagrams are under way.
public struct LinkConditions: Sendable, Equatable {
    /// Time on the wire, besides that for transmission and in the queue.
    public var delay: Nanoseconds
    /// Up to so much is added to the delay of each datagram, at random. Jitter alone keeps the order.
    public var jitter: Nanoseconds
    /// Datagrams arrive at whole multiples of it, together with all others since the last, as from a network card that
    /// spares its host interrupts. Zero for each by itself.
    public var coalescing = Nanoseconds.zero
    /// The probability that a datagram is lost.
    public var loss: Double
    /// Losses in bursts, besides those.
    public var bursts: BurstLoss?
    /// The probability that one bit of a datagram's payload arrives wrong, unnoticed by the checksum of UDP.
    public var corruption: Double
    /// The probability that a datagram arrives twice.
    public var duplication: Double
    /// The probability that a datagram is held back for up to `reorderingDelay`, so that later ones overtake it.
    public var reordering: Double
    public var reorderingDelay: Nanoseconds
    /// The largest UDP payload in bytes that gets through; larger datagrams vanish without a word.
    public var maximumPayload: Int
    /// Bits a second, or nil for no limit.
    public var bandwidth: Int?
    /// Bytes that may wait for transmission; a datagram that finds no room is dropped. Of no meaning without `bandwidth`.
    public var queueLimit: Int
    public var ecn = ECNTreatment.passes
    /// Bytes in the queue above which datagrams with a mark become CE, as by a router that manages its queue (RFC 3168).
    /// Nil for a link that marks nothing.
    public var congestionMarkThreshold: Int?
    /// A link that is down drops everything, also what is under way.
    public var isUp: Bool

    public init(
        delay: Nanoseconds = .milliseconds(5), jitter: Nanoseconds = .zero, loss: Double = 0,
        bursts: BurstLoss? = nil, corruption: Double = 0, duplication: Double = 0, reordering: Double = 0,
        reorderingDelay: Nanoseconds = .milliseconds(5), maximumPayload: Int = 1472, bandwidth: Int? = nil,
        queueLimit: Int = 128 * 1024, isUp: Bool = true
    ) {
        self.delay = delay
        self.jitter = jitter
        self.loss = loss
        self.bursts = bursts
        self.corruption = corruption
        self.duplication = duplication
        self.reordering = reordering
        self.reorderingDelay = reorderingDelay
        self.maximumPayload = maximumPayload
        self.bandwidth = bandwidth
        self.queueLimit = queueLimit
        self.isUp = isUp
    }

    /// A link without any delay or limit, for the side of the network that a scenario is not about.
    public static let perfect = LinkConditions(delay: .zero, maximumPayload: 65_507)
}

/// What became of the datagrams handed to a link.
public struct LinkCounters: Sendable, Equatable {
    public var carried = 0
    public var carriedBytes = 0
    public var lost = 0
    public var corrupted = 0
    public var duplicated = 0
    public var reordered = 0
    public var tooLarge = 0
    public var queueFull = 0
    public var down = 0
    /// Marked as CE.
    public var congestionMarked = 0
}

/// One direction of a link: decides whether and when a datagram arrives.
public final class SimulatedLink {
    public enum Fate: Sendable, Equatable {
        /// Arrives at the first instant and, if the link duplicated it, once more at the second.
        case arrives(at: Instant, again: Instant?)
        case dropped(Reason)
    }
    public enum Reason: String, Sendable {
        case down = "link down"
        case tooLarge = "too large"
        case queueFull = "queue full"
        case lost = "lost"
        case ecn = "its ECN mark"
    }

    public var conditions: LinkConditions
    /// What is under way.
    let lane = Scheduler.Lane()
    public private(set) var counters = LinkCounters()
    private var random: RandomSource
    /// What bursts and bit errors are drawn from: a link without them has the same fate with and without this source.
    private var errorRandom: RandomSource
    private var isInBurst = false
    private var lastDatagramAt = Instant.zero
    /// When the last byte accepted so far will have left.
    private var busyUntil = Instant.zero
    /// When the last datagram that kept its order arrives.
    private var lastArrival = Instant.zero

    init(_ conditions: LinkConditions, random: RandomSource) {
        self.conditions = conditions
        self.random = random
        var copy = random
        errorRandom = copy.split()
    }

    /// The bytes that wait for transmission, rounded to what `bandwidth` sends in that time.
    public func queuedBytes(now: Instant) -> Int {
        guard let bandwidth = conditions.bandwidth, busyUntil > now else { return 0 }
        return Int((busyUntil - now).inSeconds * Double(bandwidth) / 8)
    }

    /// Decides what becomes of a datagram, whose bits and ECN mark may suffer on the way.
    func carry(_ datagram: inout SimulatedDatagram, now: Instant) -> Fate {
        guard conditions.isUp else {
            counters.down += 1
            return .dropped(.down)
        }
        guard datagram.payload.count <= conditions.maximumPayload else {
            counters.tooLarge += 1
            return .dropped(.tooLarge)
        }
        switch conditions.ecn {
        case .passes: break
        case .bleaches: datagram.ecn = .notECT
        case .remarks: if datagram.ecn == .ect0 { datagram.ecn = .ect1 }
        case .drops:
            if datagram.ecn != .notECT {
                counters.lost += 1
                return .dropped(.ecn)
            }
        }
        // The same draws are made for each datagram whatever their outcome: one changed probability does not change
        // the fate of everything that follows.
        let draws = (unit(), unit(), unit(), unit(), unit())
        let isLostInBurst = fallsIntoBurst(now: now)
        if draws.0 < conditions.loss || isLostInBurst {
            counters.lost += 1
            return .dropped(.lost)
        }
        var departure = now
        if let bandwidth = conditions.bandwidth {
            let size = datagram.sizeOnWire
            guard busyUntil <= now || queuedBytes(now: now) + size <= conditions.queueLimit else {
                counters.queueFull += 1
                return .dropped(.queueFull)
            }
            if let threshold = conditions.congestionMarkThreshold, datagram.ecn != .notECT,
                queuedBytes(now: now) > threshold
            {
                datagram.ecn = .ce
                counters.congestionMarked += 1
            }
            let transmission = Nanoseconds(Int64(Double(size * 8) / Double(max(1, bandwidth)) * 1e9))
            busyUntil = max(busyUntil, now) + transmission
            departure = busyUntil
        }
        let jitter = Nanoseconds(Int64(Double(conditions.jitter.rawValue) * draws.1))
        var arrival = departure + conditions.delay + jitter
        if draws.2 < conditions.reordering {
            counters.reordered += 1
            arrival += Nanoseconds(Int64(Double(conditions.reorderingDelay.rawValue) * draws.3))
        } else {
            // When the delay of the link is shortened, what is sent later still arrives later.
            arrival = max(arrival, lastArrival)
            lastArrival = arrival
        }
        if conditions.coalescing > .zero { arrival = Self.roundedUp(arrival, to: conditions.coalescing) }
        corrupt(&datagram)
        counters.carried += 1
        counters.carriedBytes += datagram.payload.count
        guard draws.4 < conditions.duplication else { return .arrives(at: arrival, again: nil) }
        counters.duplicated += 1
        return .arrives(
            at: arrival, again: arrival + Nanoseconds(Int64(Double(conditions.reorderingDelay.rawValue) * unit())))
    }

    private static func roundedUp(_ instant: Instant, to step: Nanoseconds) -> Instant {
        let excess = instant.nanoseconds % step.rawValue
        return excess == 0 ? instant : instant + Nanoseconds(step.rawValue - excess)
    }

    /// Moves between the two states, and says whether the datagram is lost in the bad one.
    private func fallsIntoBurst(now: Instant) -> Bool {
        let draws = (errorRandom.unit(), errorRandom.unit(), errorRandom.unit())
        if now - lastDatagramAt >= BurstLoss.longestPause { isInBurst = false }
        lastDatagramAt = now
        guard let bursts = conditions.bursts else {
            isInBurst = false
            return false
        }
        if !isInBurst { isInBurst = draws.0 < bursts.begins }
        guard isInBurst else { return false }
        isInBurst = draws.1 >= bursts.ends
        return draws.2 < bursts.loss
    }

    private func corrupt(_ datagram: inout SimulatedDatagram) {
        let draws = (errorRandom.unit(), errorRandom.next())
        guard draws.0 < conditions.corruption, !datagram.payload.isEmpty else { return }
        counters.corrupted += 1
        datagram.payload[Int(draws.1 >> 3) % datagram.payload.count] ^= 1 << UInt8(draws.1 & 7)
    }

    func countDown() {
        counters.down += 1
    }

    /// A number from 0 up to but not including 1.
    private func unit() -> Double { random.unit() }
}

extension RandomSource {
    /// A number from 0 up to but not including 1.
    public mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// A whole number of the range, every one about as likely.
    public mutating func integer(in range: ClosedRange<Int>) -> Int {
        let count = UInt64(truncatingIfNeeded: range.upperBound &- range.lowerBound) &+ 1
        return count == 0 ? Int(truncatingIfNeeded: next()) : range.lowerBound + Int(next() % count)
    }

    /// A span of time of the range.
    public mutating func time(in range: ClosedRange<Nanoseconds>) -> Nanoseconds {
        Nanoseconds(Int64(integer(in: Int(range.lowerBound.rawValue)...Int(range.upperBound.rawValue))))
    }
}
