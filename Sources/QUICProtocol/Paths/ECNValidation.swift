// SPDX-License-Identifier: Apache-2.0

/// What is known of a path's treatment of ECN marks (RFC 9000, section 13.4.2).
public enum PathECNState: Hashable, Sendable {
    /// Nothing is marked: the handshake is not confirmed, or ECN is not wanted.
    case off
    /// The first datagrams leave with the mark ECT(0).
    case testing
    /// They left, and the verdict is awaited; nothing more is marked meanwhile.
    case unknown
    /// Marks arrive as they were sent, or as CE where a queue grew: everything is marked.
    case capable
    /// Marks are erased, changed or not reported, or marked datagrams vanish: nothing is marked any more.
    case failed
}

/// Finds out whether a path carries ECN marks, as RFC 9000, appendix A.4, proposes.
///
/// ```
///          start          enough are marked            an acknowledgement reports the marks
///   off ──────────▶ testing ───────────────▶ unknown ─────────────────────────────────────▶ capable
///                      │                         │  all of the marked ones were lost            │
///                      └─────────────────────────┴──────────────▶ failed ◀──────────────────────┘
///                             a report that does not fit, or silence
/// ```
/// It belongs to its path: it starts on another one after a move, and is taken up again with the path (M13).
struct ECNValidation {
    /// Packets that are marked before it is known whether marks arrive.
    static let testedPackets = 10
    /// The same on a path that carried marks before and then fell silent: few, so that their loss does not stop the rest.
    static let retestedPackets = 1

    private(set) var state = PathECNState.off
    private var packetsToMark = Self.testedPackets
    private var packetsMarked = 0
    private var packetsLost = 0
    /// Marks stopped because nothing was heard any more: they are tested again when something is.
    private var isSuspected = false

    @inline(__always)
    var isMarking: Bool { state == .testing || state == .capable }

    mutating func start() {
        self = ECNValidation()
        state = .testing
    }

    /// Packets leave with a mark.
    mutating func packetsSent(_ count: Int) {
        guard state == .testing else { return }
        packetsMarked += count
        if packetsMarked >= packetsToMark { state = .unknown }
    }

    /// The peer reports the marks of packets newly acknowledged.
    mutating func confirmed() {
        guard state == .testing || state == .unknown else { return }
        state = .capable
        isSuspected = false
    }

    mutating func failed() {
        if state != .off { state = .failed }
    }

    /// A marked packet was lost. If all are, the marks may be the reason.
    mutating func packetLost() {
        guard state == .testing || state == .unknown, !isSuspected else { return }
        packetsLost += 1
        if packetsLost >= packetsMarked, state == .unknown { state = .failed }
    }

    /// Nothing is heard any more. While it is tested, the rest goes without marks; a path that once carried them may carry
    /// them no more.
    mutating func probeTimeoutExpired() {
        switch state {
        case .testing where packetsMarked > 0:
            state = .unknown
        case .capable:
            isSuspected = true
            state = .unknown
        default:
            break
        }
    }

    /// An acknowledgement came after probe timeouts: the path lives, at least without marks.
    mutating func heardAgain() {
        guard isSuspected, state == .unknown else { return }
        start()
        packetsToMark = Self.retestedPackets
    }
}

/// The peer's reports of ECN marks in the packet number space of application data. A report counts the packets of all paths,
/// so what it says is told apart by its growth: only packets newly acknowledged can have made it grow.
struct ECNReports {
    /// The packets that left with ECT(0), of all paths.
    var marksSent: UInt64 = 0
    private var last = ECNCounts()

    /// What the growth of a report says.
    enum Verdict: Equatable {
        /// Nothing: no marked packet is newly acknowledged.
        case none
        /// Every mark arrived; so many of them as CE.
        case valid(congestionExperienced: UInt64)
        /// Marks were erased, changed, invented or not reported.
        case invalid
    }

    /// Takes in the counts of an ACK frame that acknowledges more than any before it. Frames that came out of order say
    /// nothing (RFC 9000, section 13.4.2.1).
    ///
    /// - Parameters:
    ///   - marked: how many packets newly acknowledged left with ECT(0).
    mutating func receive(_ counts: ECNCounts?, newlyAcknowledged marked: Int) -> Verdict {
        guard let counts else { return marked > 0 ? .invalid : .none }
        guard counts.ect0 >= last.ect0, counts.ect1 >= last.ect1, counts.ce >= last.ce else { return .invalid }
        let ect0 = counts.ect0 - last.ect0
        let ect1 = counts.ect1 - last.ect1
        let ce = counts.ce - last.ce
        last = counts
        let (sum, overflow) = ect0.addingReportingOverflow(ce)
        guard !overflow, sum >= UInt64(marked), ect1 == 0, counts.ect0 <= marksSent else { return .invalid }
        return marked > 0 || ce > 0 ? .valid(congestionExperienced: ce) : .none
    }
}
