// SPDX-License-Identifier: Apache-2.0

/// Finds the largest datagram that a path bears, by packets of nothing but PING and PADDING (RFC 8899, as RFC 9000,
/// section 14.3, fits it to QUIC).
///
/// ```
///             start                     candidates exhausted
///   idle ────────────────▶ searching ────────────────────────▶ complete
///                            ▲    ▲                               │
///                            │    └───────────────────────────────┤ after `raiseInterval`
///                            └────────────────────────────────────┘ black hole, or refused by the system
/// ```
/// Nothing here has a timer of its own. A search is worth its probes only while there is more to send than fits a datagram,
/// so the next step is taken when such a datagram leaves; an idle connection is not woken for it.
///
/// It belongs to its path: a path that is left and taken up again goes on where it was (M13).
struct PathMTUSearch {
    /// What every path of QUIC must bear (RFC 9000, section 14): BASE_PLPMTU.
    static let base = ConnectionConfiguration.minimumUDPPayload
    /// A size is too large when so many probes of it were lost: MAX_PROBES (RFC 8899, section 5.1.2).
    static let maximumProbes = 3
    /// When a larger size is tried again, should the path have changed: PMTU_RAISE_TIMER (RFC 8899, section 5.1.1).
    static let raiseInterval: Nanoseconds = .seconds(600)
    /// A gain of fewer bytes than this is not worth a probe.
    static let resolution = 16
    /// So many large packets lost, with none that was sent later arrived, while smaller ones do arrive: a black hole.
    static let blackHoleLosses = 4
    /// Probe timeouts in a row after which the size is suspected, because probes are large, too.
    static let blackHoleTimeouts = 2

    enum Phase: Hashable {
        /// Not started, or not wanted.
        case idle
        case searching
        case complete(until: Instant)
    }

    private struct Probe {
        var number: PacketNumber
        var size: Int
    }

    private(set) var phase = Phase.idle
    /// The size in use: the largest that is known to pass, or that the application vouched for.
    private(set) var current: Int
    /// Never more than this.
    private var ceiling = Self.base
    /// The smallest size that is known not to pass; `ceiling` + 1 while nothing is known.
    private var tooLarge = Self.base + 1
    /// The size that passed before a black hole was suspected: the first to be tried again.
    private var suspended: Int?
    private var attempts = 0
    private var probe: Probe?
    /// A datagram was filled since the last step.
    private var isWorthwhile = false
    /// The largest number of a packet above the base size that was acknowledged.
    private var largestAcknowledged: PacketNumber?
    private var suspiciousLosses = 0

    init(current: Int) {
        self.current = current
    }

    /// Starts, or starts over with another ceiling.
    ///
    /// - Parameters:
    ///   - ceiling: bytes of UDP payload, the least of what the peer takes, what the application allows and what the
    ///     network's usual links bear.
    mutating func start(ceiling: Int) {
        self.ceiling = max(ceiling, current)
        tooLarge = self.ceiling + 1
        suspended = nil
        attempts = 0
        phase = .searching
    }

    /// The application vouches for a size, or it is that of the handshake: nothing is searched for yet.
    mutating func assume(_ size: Int) {
        self = PathMTUSearch(current: size)
    }

    /// Goes on with what another path found: the same network under another port (M12).
    func continued() -> PathMTUSearch {
        var copy = self
        copy.probe = nil
        copy.largestAcknowledged = nil
        copy.suspiciousLosses = 0
        return copy
    }

    // MARK: Probing

    /// A full datagram left, and more is to come.
    @inline(__always)
    mutating func datagramFilled() { isWorthwhile = true }

    /// The size of the probe to be sent now, if any.
    @inline(__always)
    mutating func probeSize(now: Instant) -> Int? {
        guard isWorthwhile, phase != .idle, probe == nil else { return nil }
        return nextSize(now: now)
    }

    private mutating func nextSize(now: Instant) -> Int? {
        if case .complete(let until) = phase {
            guard now >= until, current < ceiling else {
                isWorthwhile = false
                return nil
            }
            start(ceiling: ceiling)
        }
        if let suspended { return suspended }
        guard tooLarge - current > Self.resolution || tooLarge > ceiling && current < ceiling else {
            phase = .complete(until: now + Self.raiseInterval)
            return nil
        }
        // The ceiling first: most paths bear it. Then halves of what is left.
        return tooLarge > ceiling ? ceiling : current + (tooLarge - current) / 2
    }

    mutating func probeSent(_ number: PacketNumber, size: Int) {
        probe = Probe(number: number, size: size)
        isWorthwhile = false
    }

    /// A probe was acknowledged.
    ///
    /// - Returns: whether the datagram size grew.
    mutating func probeAcknowledged(_ number: PacketNumber) -> Bool {
        guard let probe, probe.number == number else { return false }
        self.probe = nil
        attempts = 0
        suspended = nil
        isWorthwhile = true
        guard phase == .searching, probe.size > current, probe.size < tooLarge else { return false }
        current = probe.size
        return true
    }

    /// A probe was lost, which says something about its size only if the path lives.
    mutating func probeLost(_ number: PacketNumber, pathMayBeDead: Bool) {
        guard let probe, probe.number == number else { return }
        self.probe = nil
        isWorthwhile = true
        guard !pathMayBeDead else { return }
        attempts += 1
        if attempts >= Self.maximumProbes { sizeFailed(probe.size) }
    }

    private mutating func sizeFailed(_ size: Int) {
        attempts = 0
        suspended = nil
        if size > current { tooLarge = min(tooLarge, size) }
    }

    // MARK: Smaller than thought

    /// The system refused a datagram because of its size: its interface is smaller than that, which is a hint at once.
    ///
    /// - Returns: whether the datagram size shrank.
    mutating func refused(size: Int) -> Bool {
        if probe?.size == size { probe = nil }
        isWorthwhile = true
        guard size > Self.base else { return false }
        if size > current {
            sizeFailed(size)
            return false
        }
        current = Self.base
        tooLarge = size
        attempts = 0
        suspended = nil
        suspiciousLosses = 0
        if phase != .idle { phase = .searching }
        return true
    }

    /// A packet above the base size arrived.
    mutating func largePacketAcknowledged(_ number: PacketNumber) {
        largestAcknowledged = max(largestAcknowledged ?? number, number)
        suspiciousLosses = 0
    }

    /// - Returns: whether the losses amount to a black hole for packets above the base size.
    mutating func packetLost(_ number: PacketNumber, size: Int) -> Bool {
        guard size > Self.base, size <= current, largestAcknowledged.map({ number > $0 }) ?? true else { return false }
        suspiciousLosses += 1
        return suspiciousLosses >= Self.blackHoleLosses
    }

    /// Falls back to the size that every path bears, and searches from there (RFC 8899, section 4.3). The size that was in
    /// use is tried first: a path that was silent for other reasons is soon back at it.
    mutating func fallBack() {
        guard current > Self.base else { return }
        suspended = current
        tooLarge = max(ceiling, current) + 1
        current = Self.base
        attempts = 0
        suspiciousLosses = 0
        probe = nil
        isWorthwhile = true
        if phase != .idle { phase = .searching }
    }
}
