// SPDX-License-Identifier: Apache-2.0

/// What is known of a path's reachability.
public enum PathState: Hashable, Sendable {
    /// Nothing was tried, or a validation was given up by the application.
    case unvalidated
    /// Challenges are under way.
    case validating
    /// The peer answered a challenge, or completed the handshake here.
    case validated
    /// No challenge was answered in time.
    case failed
    /// The socket it used is gone.
    case transportLost
}

/// One way between the two endpoints: a pair of addresses with everything that belongs to the network between them.
struct Path {
    let id: PathID
    var tuple: FourTuple
    private(set) var state: PathState
    var validator = PathValidator()
    var amplification: AmplificationBudget
    var recovery: PathRecovery
    /// It carried the application's data once, so that what it knows of its network is worth keeping.
    var wasActive = false
    /// Where this path's packets go: an ID that the peer issued, used on this path alone.
    var destinationID: ConnectionID? {
        didSet { if destinationID != nil { isToldToLackConnectionID = false } }
    }
    /// The sequence number of our ID under which the peer sends here.
    var localIDSequence: UInt64?
    /// It sent to another one before, or somebody else's copies from here did: that the peer linked this path to others is not
    /// certain.
    var hasChangedLocalID = false
    /// The data of the newest PATH_CHALLENGE that came on this path and waits for its response (M16).
    var pendingResponse: UInt64?
    /// A validation waits for a connection ID of the peer's (M3).
    var isWaitingForConnectionID = false
    /// It was told that there is no connection ID for it; once until there is, or the validation that waits for it ends.
    var isToldToLackConnectionID = false
    /// It goes on under an ID by which another path is known, for want of an unused one (decision 0005).
    var needsAnotherConnectionID = false
    /// An application asked for the validation, rather than a move of the peer's.
    var isProbedByApplication = false
    /// A challenge that could not be padded was answered: padded ones follow, to prove the size (M15).
    var isProvingSize = false
    /// The application's word for when the connection must choose a path by itself.
    var priority: PathPriority?
    /// The search for the largest datagram that fits here.
    var mtu: PathMTUSearch
    var ecn = ECNValidation()
    /// For choosing which path to forget when there are too many.
    var lastUsed: Instant
    /// When an authentic packet last came on it.
    var lastHeard: Instant
    var statistics = PathStatistics()
    /// Nothing that was sent here was answered for four probe timeouts (M35); told once until something is.
    var isDegraded = false
    /// The last send failed; told once until one succeeds.
    var hasSendError = false

    init(
        id: PathID, tuple: FourTuple, amplification: AmplificationBudget, recovery: PathRecovery,
        maximumDatagramSize: Int, now: Instant
    ) {
        self.id = id
        self.tuple = tuple
        self.state = .unvalidated
        self.amplification = amplification
        self.recovery = recovery
        self.mtu = PathMTUSearch(current: maximumDatagramSize)
        self.lastUsed = now
        self.lastHeard = now
    }

    var isValidated: Bool { state == .validated }
    /// Bytes of UDP payload that fit a datagram here, as far as is known.
    @inline(__always)
    var maximumDatagramSize: Int { mtu.current }

    /// A short header with the longest ID, a challenge, a response and the tag.
    private static let smallestProbe = 1 + 20 + 4 + FrameSize.pathChallenge + FrameSize.pathResponse + 16
    /// Room for a packet with an ACK frame whatever its numbers: with less, nothing might be sent at all.
    static let smallestUsefulDatagram = 128

    /// Whether a challenge or a response could leave now.
    var canSendProbes: Bool {
        state != .transportLost && destinationID != nil && !isWaitingForConnectionID
            && amplification.remaining >= Self.smallestProbe
    }

    /// When the validation wants something to be done. A path that cannot send waits for an ID or a datagram to come.
    var nextDeadline: Instant {
        guard validator.isRunning else { return .distantFuture }
        return canSendProbes ? min(validator.nextChallengeAt, validator.failsAt) : validator.failsAt
    }

    mutating func beginValidation(now: Instant, interval: Nanoseconds, timeout: Nanoseconds) {
        if state != .validated { state = .validating }
        validator.start(now: now, interval: interval, timeout: timeout)
    }

    mutating func validated() {
        state = .validated
        amplification.lift()
        validationEnded()
    }

    mutating func validationFailed() {
        state = .failed
        validationEnded()
    }

    /// The application does not wait for the answer any longer; what was proved before stays proved.
    mutating func validationCancelled() {
        if state == .validating { state = .unvalidated }
        validationEnded()
    }

    mutating func transportLost() {
        state = .transportLost
        validationEnded()
    }

    private mutating func validationEnded() {
        validator.stop()
        isProbedByApplication = false
        isWaitingForConnectionID = false
        isToldToLackConnectionID = false
        isProvingSize = false
    }
}

/// Counters of one path. Bytes are of UDP payload.
public struct PathStatistics: Hashable, Sendable {
    public var bytesSent: UInt64 = 0
    public var bytesReceived: UInt64 = 0
    public var packetsSent: UInt64 = 0
    public var packetsReceived: UInt64 = 0
    public var packetsLost: UInt64 = 0
    public var challengesSent: UInt64 = 0
    public var challengesReceived: UInt64 = 0
    public var mtuProbesSent: UInt64 = 0
    /// Packets that the peer reports as marked by a congested queue (CE, RFC 3168).
    public var congestionMarks: UInt64 = 0
    public var sendErrors: UInt64 = 0

    public init() {}
}
