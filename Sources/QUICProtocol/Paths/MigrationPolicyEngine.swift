// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// The automatic policy as a state machine: it is told what becomes of networks, paths and time, and says what to do and
/// why (M35 to M38). It owns no socket and reads no clock; the binding and the simulator drive it alike.
///
/// | cause | action |
/// |---|---|
/// | the active network is gone, or its socket | move at once: to a proved standby, else unproved to the best network |
/// | the system refuses to send | the same, five times a network; without another network wait for it to recover |
/// | the active path made no progress for two probe timeouts | suspect it: probe all other networks, and stay; when false, heed the next suspicion after 1, 2, 4 … s |
/// | … for three, of six packets or more, and a network has answered since | move there, five times a network together with the next row |
/// | the active path degrades: it made none for four | probe all other networks and a new port on this one, move to the first that answers, five times a network and four times a port |
/// | the path moved to is never proved | the same |
/// | a network that ranks higher appears | probe it, then move |
/// | … that was left before | the same, once it has worked for 1, 2, 4 … s |
/// | a second network exists | keep a path over it proved, by a probe every 15 s |
/// | the path makes progress again before another answers | stay |
/// | the active network is back before there is another | stay, and say so to the peer |
/// | there is no network | hold; after 10 s give up |
/// | networks, but none answers | hold; probe again after 1, 2, 4 … s; the idle timeout has the last word |
/// | no stream was open for 30 s | do nothing until there is one |
/// | the peer forbids migration | do nothing |
///
/// A *candidate* is a path over one network, with a socket of its own; at most one a network is kept when all is well.
public struct MigrationPolicyEngine: Sendable {
    /// Names a candidate to whoever opens and closes its socket.
    public struct CandidateID: Hashable, Sendable {
        public var rawValue: UInt32
        public init(_ rawValue: UInt32) { self.rawValue = rawValue }
    }

    struct Candidate: Sendable {
        let id: CandidateID
        /// Nil for a path whose local address is on no network that we know.
        let network: NetworkID?
        /// Nil until its socket is open.
        var path: PathID?
        /// The application's: it is never closed by us.
        var isApplications = false
        var isProbing = false
        /// The last probe was answered.
        var isProved = false
        /// When a probe was last answered.
        var answeredAt: Instant?
        /// Since when every probe was answered.
        var provedSince: Instant?
        /// Probes and switches in a row that failed.
        var failures: Int64 = 0
        var nextProbeAt: Instant?
        /// The probe decides whether to go back to its network.
        var isConfirming = false
        /// It was told that this path stands by.
        var isToldToStandBy = false
    }

    /// What is wrong with the active path.
    struct Trouble: Sendable {
        var cause: PolicyReason
        /// Of a suspicion: when it began, and whether it may be acted upon.
        var suspicion: (began: Instant, isRipe: Bool)?
        /// The decision to stay or to hold was told.
        var told: PolicyReason?
        /// Rounds of probes so far, and whether one is under way.
        var rounds: Int64 = 0
        var isProbing = false
        var nextRoundAt: Instant?

        var isSuspicion: Bool { suspicion != nil }

        var isSendError: Bool { if case .sendError = cause { true } else { false } }

        /// Nothing can be sent any more, so that waiting for an answer would only lose time.
        var isGone: Bool {
            switch cause {
            case .networkLost, .transportLost, .sendError: true
            default: false
            }
        }
    }

    /// What a network did before.
    struct History: Sendable {
        var degradingMoves = 0
        var errorMoves = 0
        /// Times it was left for trouble.
        var departures: Int64 = 0
        var lastDeparture: Instant
    }

    /// Suspicions in a row of which nothing came, and since when the next is heeded.
    struct FalseAlarms: Sendable {
        var count: Int64 = 0
        var heedsNextAt: Instant?
    }

    enum Action: Hashable, Sendable {
        case open(CandidateID, NetworkID)
        case probe(PathID, timeout: Nanoseconds)
        case switchTo(PathID, withoutValidation: Bool)
        case resume
        case discard(CandidateID, PathID?)
        case giveUp
    }

    /// Candidates at once: fewer than the paths of a connection (M40), for the application may have some of its own.
    static let maximumCandidates = 6
    /// Networks whose past is remembered.
    static let maximumHistories = 16
    /// Decisions that wait to be taken.
    static let maximumDecisions = 64

    let settings: AutomaticMigration
    /// The best first.
    var networks: [AvailableNetwork] = []
    var candidates: [Candidate] = []
    var active: CandidateID?
    var trouble: Trouble?
    var falseAlarms = FalseAlarms()
    var histories: [NetworkID: History] = [:]
    /// What the application said of paths that there are (decision 0032).
    var priorities: [PathID: PathPriority] = [:]
    var portChanges = 0
    var lastPortChange: Instant?
    /// When to give up.
    var holdUntil: Instant?
    /// Networks on which no socket could be opened: they count as absent for 1, 2, 4 … s.
    var broken: [NetworkID: (failures: Int64, until: Instant)] = [:]
    var isForbidden = false
    /// Since when no stream is open.
    var idleSince: Instant?
    /// A switch that was asked for, until it is known to have succeeded.
    var pendingMove: (candidate: CandidateID, isProved: Bool, reason: PolicyReason)?

    var nextCandidate: UInt32 = 0
    var actions = Deque<Action>()
    var decisions = Deque<PolicyDecision>()
    var wakeAt: Instant?

    public init(settings: AutomaticMigration) {
        self.settings = settings
    }

    /// When `handleDeadline` is to be called.
    public var nextDeadline: Instant? { wakeAt }

    /// What was decided, the oldest first; nil when all was taken.
    public mutating func nextDecision() -> PolicyDecision? { decisions.popFirst() }

    // MARK: In

    /// The handshake is confirmed.
    ///
    /// - Parameters:
    ///   - network: that of the active path, if it is known.
    ///   - priorities: of the paths that there are, as far as the application has given them any.
    public mutating func start(
        on path: PathID, over network: NetworkID?, networks: [AvailableNetwork],
        priorities: [PathID: PathPriority] = [:], hasOpenStreams: Bool, now: Instant
    ) {
        guard active == nil else { return }
        self.priorities = priorities
        var candidate = makeCandidate(on: network)
        candidate.path = path
        candidate.isProved = true
        candidates.append(candidate)
        active = candidate.id
        idleSince = hasOpenStreams ? nil : now
        setNetworks(networks)
        evaluate(now)
    }

    /// The host's networks, all of them, whenever one has come, gone or changed.
    public mutating func networksChanged(_ networks: [AvailableNetwork], now: Instant) {
        setNetworks(networks)
        evaluate(now)
    }

    private mutating func setNetworks(_ new: [AvailableNetwork]) {
        networks = new.sorted { ($0.rank, $0.id.name) < ($1.rank, $1.id.name) }
        broken = broken.filter { entry in new.contains { $0.id == entry.key } }
        for candidate in candidates where candidate.id != active {
            if let network = candidate.network, !isAvailable(network) { discard(candidate.id) }
        }
    }

    /// Whether any stream is open, whenever that may have changed.
    public mutating func noteActivity(hasOpenStreams: Bool, now: Instant) {
        guard hasOpenStreams == (idleSince != nil) else { return }
        let wasIdle = isIdle(now)
        idleSince = hasOpenStreams ? nil : now
        if wasIdle, hasOpenStreams { evaluate(now) }
    }

    /// The socket of a candidate is open and its path added.
    public mutating func opened(_ id: CandidateID, path: PathID, now: Instant) {
        guard let index = candidates.firstIndex(where: { $0.id == id }) else {
            // It is not wanted any more.
            actions.append(.discard(id, path))
            return
        }
        candidates[index].path = path
        if let network = candidates[index].network { broken[network] = nil }
        if trouble?.isGone != true { probe(candidateAt: index) }
        evaluate(now)
    }

    /// No socket could be opened there, or no path added.
    public mutating func openingFailed(_ id: CandidateID, _ error: MigrationError?, now: Instant) {
        guard let index = candidates.firstIndex(where: { $0.id == id }) else { return }
        let network = candidates.remove(at: index).network
        switch error {
        case .migrationDisabledByPeer, .peerUsesNoConnectionIDs, .serverCannotMigrate, .migrationDisabled:
            isForbidden = true
            decide(.stay(cause: trouble?.cause ?? .standby, because: .migrationForbidden))
        default:
            if let network {
                let failures = broken[network]?.failures ?? 0
                let delay = min(Self.retryDelay * (1 << min(failures, 6)), settings.standbyInterval)
                broken[network] = (failures + 1, now + delay)
            }
        }
        evaluate(now)
    }

    /// An event of the connection.
    ///
    /// - Parameter networkOf: where a path runs that the policy has not added.
    public mutating func handle(_ event: PathEvent, now: Instant, networkOf: (PathID) -> NetworkID?) {
        switch event {
        case .validated(let path, let rtt, _): answered(path, rtt: rtt, now: now)
        case .failed(let path, let failure): failed(path, failure, now: now)
        case .suspected(let path): if isActive(path) { suspect(now) }
        case .silent(let path): if isActive(path) { trouble?.suspicion?.isRipe = true }
        case .degraded(let path): if isActive(path) { begin(.degrading) }
        case .recovered(let path): if isActive(path) { recovered(now) }
        case .switched(_, let path, let reason):
            if reason != .policy { adopt(path, for: reason, networkOf: networkOf, now: now) }
        case .priorityChanged(let path, let priority): priorities[path] = priority
        case .closed(let path): closed(path)
        default: return
        }
        evaluate(now)
    }

    public mutating func handleDeadline(now: Instant) { evaluate(now) }

    // MARK: What became of paths

    func isActive(_ path: PathID) -> Bool { activeCandidate?.path == path }

    var activeCandidate: Candidate? { candidates.first { $0.id == active } }

    private mutating func answered(_ path: PathID, rtt: Nanoseconds, now: Instant) {
        guard let index = candidates.firstIndex(where: { $0.path == path }) else { return }
        let isConfirmed = candidates[index].isConfirming
        candidates[index].isProbing = false
        candidates[index].isProved = true
        candidates[index].answeredAt = now
        candidates[index].isConfirming = false
        candidates[index].provedSince = candidates[index].provedSince ?? now
        candidates[index].failures = 0
        candidates[index].nextProbeAt = now + settings.standbyInterval
        let candidate = candidates[index]
        guard candidate.id != active, let network = candidate.network else { return }
        if let trouble, !trouble.isGone {
            if trouble.isProbing, !trouble.isSuspicion { move(to: candidate.id, trouble.cause) }
        } else if trouble == nil, isConfirmed || returnDelay(of: network) == .zero, isPreferred(network), !isIdle(now) {
            move(to: candidate.id, .preferredNetwork(network))
        } else if !candidate.isToldToStandBy {
            candidates[index].isToldToStandBy = true
            let delay = returnDelay(of: network)
            decide(isPreferred(network) ? .returnLater(network, after: delay) : .standby(network, rtt: rtt))
        }
    }

    private mutating func failed(_ path: PathID, _ failure: PathFailure, now: Instant) {
        guard let index = candidates.firstIndex(where: { $0.path == path }) else { return }
        if candidates[index].id == active {
            switch failure {
            case .transportLost: begin(.transportLost)
            case .sendError(let errno): begin(.sendError(errno))
            case .noResponse, .datagramsTooLarge, .noConnectionIDAvailable: begin(.unreachable)
            }
        } else if failure == .transportLost {
            discard(candidates[index].id)
        } else {
            noteFailure(ofCandidateAt: index, now: now)
        }
    }

    /// It answers no more, or never did: ask again after 1, 2, 4 … s.
    mutating func noteFailure(ofCandidateAt index: Int, now: Instant) {
        candidates[index].isProbing = false
        candidates[index].isProved = false
        candidates[index].isConfirming = false
        candidates[index].isToldToStandBy = false
        candidates[index].provedSince = nil
        let delay = Self.retryDelay * (1 << min(candidates[index].failures, 6))
        candidates[index].nextProbeAt = now + min(delay, settings.standbyInterval)
        candidates[index].failures += 1
    }

    /// Something is wrong with the active path. What is gone is worse than what is slow.
    mutating func begin(_ cause: PolicyReason) {
        let new = Trouble(cause: cause)
        if let trouble, !trouble.isSuspicion {
            if !new.isGone { return }
            // A send error is soon followed by word of the network, which no limit holds for.
            if trouble.isGone, !trouble.isSendError || new.isSendError { return }
        }
        trouble = new
    }

    /// The active path may be dead: other networks are asked, and it is left if it stays silent and another answers.
    private mutating func suspect(_ now: Instant) {
        guard trouble == nil, heedsSuspicions(now) else { return }
        trouble = Trouble(cause: .suspected, suspicion: (now, false))
    }

    private mutating func recovered(_ now: Instant) {
        guard let cause = trouble?.cause else { return }
        if cause == .suspected {
            falseAlarms.heedsNextAt = now + Self.retryDelay * (1 << min(falseAlarms.count, 5))
            falseAlarms.count += 1
            return endTrouble()
        }
        if case .networkLost = cause { return }
        if cause == .transportLost { return }
        endTrouble()
        decide(.recovered)
    }

    mutating func endTrouble() {
        trouble = nil
        holdUntil = nil
        // A new port on the same network is of no use any more; what was found over other networks may stand by.
        for candidate in candidates where candidate.id != active && candidate.network == activeCandidate?.network {
            discard(candidate.id)
        }
    }

    /// The application closed a path, or the connection forgot it.
    private mutating func closed(_ path: PathID) {
        for candidate in candidates where candidate.path == path && candidate.id != active {
            if pendingMove?.candidate == candidate.id { forgetPendingMove() }
        }
        candidates.removeAll { $0.path == path && $0.id != active }
        priorities[path] = nil
    }

    /// A move that was decided is not to be made any more.
    private mutating func forgetPendingMove() {
        pendingMove = nil
        actions.removeAll { if case .switchTo = $0 { true } else { false } }
    }

    /// The application switched, or the connection by itself: to the server's preferred address, or to where the
    /// application wants it when a socket is lost.
    private mutating func adopt(
        _ path: PathID, for reason: SwitchReason, networkOf: (PathID) -> NetworkID?, now: Instant
    ) {
        guard !isActive(path), active != nil else { return }
        forgetPendingMove()
        if reason == .fallback, let cause = trouble?.cause,
            let index = candidates.firstIndex(where: { $0.path == path && $0.network != nil })
        {
            return arrived(at: index, cause, isProved: true, now: now)
        }
        let lost = trouble?.cause == .transportLost ? active : nil
        if let known = candidates.first(where: { $0.path == path }) {
            active = known.id
        } else {
            var candidate = makeCandidate(on: networkOf(path))
            candidate.path = path
            candidate.isProved = true
            candidate.isApplications = true
            candidates.append(candidate)
            active = candidate.id
        }
        trouble = nil
        holdUntil = nil
        candidates.removeAll { $0.isApplications && $0.id != active }
        if let lost { discard(lost) }
    }

    // MARK: Figures

    static let retryDelay = Nanoseconds.seconds(1)

    func isAvailable(_ network: NetworkID) -> Bool { networks.contains { $0.id == network } }

    /// Whether a suspicion would lead to anything: there is another network, this one may be left, and the last suspicion was
    /// not false a moment ago.
    func heedsSuspicions(_ now: Instant) -> Bool {
        guard settings.suspectsSilence, !isForbidden, !isIdle(now), let current = activeCandidate,
            falseAlarms.heedsNextAt.map({ $0 <= now }) ?? true, mayLeave(current.network)
        else { return false }
        return usableNetworks(now: now).contains { $0.id != current.network }
    }

    /// Whether a network may be left once more because it degrades.
    func mayLeave(_ network: NetworkID?) -> Bool {
        network.flatMap { histories[$0] }.map { $0.degradingMoves < settings.movesOnDegrading } ?? true
    }

    func isIdle(_ now: Instant) -> Bool { idleSince.map { now - $0 >= settings.idleLimit } ?? false }

    /// Networks that a socket can be opened on, the best first.
    func usableNetworks(now: Instant) -> [AvailableNetwork] {
        networks.filter { network in broken[network.id].map { $0.until <= now } ?? true }
    }

    /// Whether to leave the active network for this one when both are well: for the priority of its path, or of paths
    /// alike for its rank. A network that we do not know is not left.
    func isPreferred(_ network: NetworkID) -> Bool {
        guard let home = activeCandidate, let current = networks.first(where: { $0.id == home.network }),
            let other = networks.first(where: { $0.id == network })
        else { return false }
        let theirs =
            candidates.first { $0.id != active && $0.network == network }.map { priority(of: $0) } ?? .available
        let ours = priority(of: home)
        return theirs == ours ? other.rank < current.rank : theirs > ours
    }

    func priority(of candidate: Candidate) -> PathPriority {
        candidate.path.flatMap { priorities[$0] } ?? .available
    }

    /// How long a network must have worked before we go to it: not at all if it was never left.
    func returnDelay(of network: NetworkID) -> Nanoseconds {
        guard let departures = histories[network]?.departures, departures > 0 else { return .zero }
        let delay = settings.firstReturnDelay * (1 << min(departures - 1, 20))
        return min(delay, max(settings.longestReturnDelay, settings.firstReturnDelay))
    }

    mutating func makeCandidate(on network: NetworkID?) -> Candidate {
        defer { nextCandidate &+= 1 }
        return Candidate(id: CandidateID(nextCandidate), network: network)
    }

    mutating func decide(_ decision: PolicyDecision) {
        if decisions.count >= Self.maximumDecisions { decisions.removeFirst() }
        decisions.append(decision)
    }
}
