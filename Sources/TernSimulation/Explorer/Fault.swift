// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// Something that befalls a connection, or that its application does, as data: so that a run can be repeated without it.
public enum Fault: Sendable, Hashable {
    /// The client's NAT forgets its mappings; or the carrier's, behind which it stands.
    case rebinding(SimulatedNAT.Rebinding, ofCarrier: Bool)
    /// Nothing passes on one of the client's interfaces, or on the server's.
    case outage(Place, lasting: Nanoseconds)
    /// The link of one of the client's interfaces, or the server's, is bad in one way.
    case weather(Place, Weather, lasting: Nanoseconds)
    /// The system refuses every send there.
    case sendErrors(Place, errno: Int32, lasting: Nanoseconds)
    /// The client's socket there is closed for good.
    case socketLost(interface: Int)
    /// The client moves to an interface.
    case move(interface: Int, Move)
    /// The client probes the way over an interface.
    case probe(interface: Int, timeout: Nanoseconds)
    /// The client closes every path but the active one.
    case closeSpares
    case attack(SimulatedAttacker.Method, lasting: Nanoseconds)
    case keyUpdate(byServer: Bool)

    public enum Place: Sendable, Hashable {
        case client(interface: Int)
        case server
    }

    public enum Weather: Sendable, Hashable, CaseIterable {
        case heavyLoss
        case bursts
        case reordering
        case duplication
        case bitErrors
        case jitter
        case longDelay
        case narrow
        /// The delay falls to almost nothing, so that what is sent now overtakes what was sent before.
        case shortDelay
        /// Large datagrams vanish.
        case smallMTU
        /// ECN marks are erased, or what carries one vanishes.
        case bleaching
        case droppedMarks
    }

    public enum Move: Sendable, Hashable, CaseIterable {
        /// Probe first, then switch and keep the old path.
        case graceful
        /// The same, and the old path is closed at once.
        case closingOld
        case withoutValidation
    }
}

extension LinkConditions {
    /// These conditions with one thing gone bad.
    func under(_ weather: Fault.Weather) -> LinkConditions {
        var conditions = self
        switch weather {
        case .heavyLoss: conditions.loss = 0.25
        case .bursts: conditions.bursts = BurstLoss(begins: 0.05, ends: 0.2)
        case .reordering: (conditions.reordering, conditions.reorderingDelay) = (0.4, .milliseconds(60))
        case .duplication: conditions.duplication = 0.5
        case .bitErrors: conditions.corruption = 0.2
        case .jitter: conditions.jitter = .milliseconds(120)
        case .longDelay: conditions.delay = conditions.delay + .milliseconds(400)
        case .narrow: (conditions.bandwidth, conditions.queueLimit) = (200_000, 8_000)
        case .shortDelay: conditions.delay = .microseconds(100)
        case .smallMTU: conditions.maximumPayload = 1_200
        case .bleaching: conditions.ecn = .bleaches
        case .droppedMarks: conditions.ecn = .drops
        }
        return conditions
    }
}

/// A fault and when it comes, from the client's first packet on.
public struct TimedFault: Sendable, Hashable, CustomStringConvertible {
    public var at: Nanoseconds
    public var fault: Fault

    public var description: String {
        // Without the names of the types that a case carries.
        let words = "\(fault)".split(separator: "TernSimulation.").joined()
        return "at \(at.inMilliseconds) ms: \(words)"
    }
}
