// SPDX-License-Identifier: Apache-2.0

/// Who moves a connection between networks (client; RFC 9000, section 9).
///
/// A NAT's rebindings and the peer's moves are followed whatever the policy is.
public struct MigrationPolicy: Hashable, Sendable {
    public enum Mode: Hashable, Sendable {
        /// Nobody: adding paths and switching is refused with `MigrationError.migrationDisabled`.
        case disabled
        /// The application, with the verbs add, probe, switch and close.
        case manual
        /// The connection itself; see ``AutomaticMigration``. The verbs work as well.
        case automatic
    }

    public var mode: Mode
    /// Read in mode `.automatic`.
    public var settings: AutomaticMigration

    public init(_ mode: Mode, settings: AutomaticMigration = AutomaticMigration()) {
        self.mode = mode
        self.settings = settings
    }

    public static let disabled = MigrationPolicy(.disabled)
    public static let manual = MigrationPolicy(.manual)
    public static let automatic = MigrationPolicy(.automatic)
    public static func automatic(_ settings: AutomaticMigration) -> MigrationPolicy {
        MigrationPolicy(.automatic, settings: settings)
    }
}

/// Limits and delays of the automatic policy (M36 to M38). The defaults suit a telephone and a laptop.
public struct AutomaticMigration: Hashable, Sendable {
    /// Times that one network is left because it degraded or was suspected, until a quiet period has passed (M38).
    public var movesOnDegrading = 5
    /// Times that one network is left because the system refused to send, until a quiet period has passed (M38).
    public var movesOnErrors = 5
    /// Times that a connection takes another port on its network, until a quiet period has passed (M38).
    public var portChanges = 4
    /// So long without another of its kind, and the counts above start again, as do the delays of ``firstReturnDelay``.
    public var quietPeriod: Nanoseconds = .seconds(60)
    /// A connection that has had no stream open for longer is left alone until it has one (M38).
    public var idleLimit: Nanoseconds = .seconds(30)
    /// How long to wait for a network when there is none, before giving the connection up (M36).
    public var holdLimit: Nanoseconds = .seconds(10)
    /// A network that was left must have worked for so long before the connection goes back to it; twice as long each
    /// time that it is left again, up to ``longestReturnDelay`` (M36).
    public var firstReturnDelay: Nanoseconds = .seconds(1)
    public var longestReturnDelay: Nanoseconds = .seconds(32)
    /// How long an answer to a probe is waited for.
    public var probeTimeout: Nanoseconds = .seconds(3)
    /// Keeps a path over the second-best network validated, so that a move costs nothing (M37).
    public var keepsWarmStandby = true
    /// Asks the other networks when two probe timeouts have passed without progress, and moves to one that has answered when
    /// three have, rather than begin to ask after four (M36, decision 31). Without a warm standby it gains less.
    public var suspectsSilence = true
    /// How often the standby is probed. Short enough that a NAT keeps its mapping (RFC 4787, section 4.3, allows it to
    /// forget after two minutes; many do after 30 s).
    public var standbyInterval: Nanoseconds = .seconds(15)

    public init() {}
}

/// Names one of the host's networks to the policy; on a real host the name of its interface.
public struct NetworkID: Hashable, Sendable, CustomStringConvertible, ExpressibleByStringLiteral {
    public var name: String

    public init(_ name: String) { self.name = name }
    public init(stringLiteral name: String) { self.name = name }

    public var description: String { name }
}

/// A network that can be used now.
public struct AvailableNetwork: Hashable, Sendable {
    public var id: NetworkID
    /// The smaller, the better. Of equal ones neither is left for the other.
    public var rank: Int

    public init(_ id: NetworkID, rank: Int) {
        self.id = id
        self.rank = rank
    }
}

/// Why the policy does something, or leaves it.
public enum PolicyReason: Hashable, Sendable {
    /// The network is gone: its interface, or our address there.
    case networkLost(NetworkID)
    /// The socket of the active path is closed.
    case transportLost
    /// The system refuses to send; the number is its `errno`.
    case sendError(Int32)
    /// No forward progress for two probe timeouts, or, of a move, for three. It counts as degrading.
    case suspected
    /// No forward progress for four probe timeouts.
    case degrading
    /// The active path's validation failed: it was moved to without one.
    case unreachable
    /// A network that ranks higher can be used, or whose path has a higher priority.
    case preferredNetwork(NetworkID)
    /// A second network exists.
    case standby
    /// There is no network.
    case noNetwork
    /// No network's path could be proved.
    case nothingAnswers
    /// No stream was open for longer than ``AutomaticMigration/idleLimit``.
    case idle
    /// ``AutomaticMigration/movesOnDegrading``, `movesOnErrors` or `portChanges` is reached.
    case limitReached
    /// The peer does not allow migration, or cannot follow it.
    case migrationForbidden
}

/// What the policy decided, and why (M38).
public enum PolicyDecision: Hashable, Sendable {
    /// Ask whether the peer can be reached over these networks. The active one among them: from a new port.
    case probe([NetworkID], PolicyReason)
    /// The application's data goes over `to` from now on.
    ///
    /// - Parameters:
    ///   - validated: a probe was answered there. Otherwise it is validated under way.
    case move(from: NetworkID?, to: NetworkID, validated: Bool, PolicyReason)
    /// The path over this network answered, and is kept warm for the day the active one fails.
    case standby(NetworkID, rtt: Nanoseconds)
    /// The active path makes progress again: stay.
    case recovered
    /// Go back to a network once it has worked for so long.
    case returnLater(NetworkID, after: Nanoseconds)
    /// Nothing can be used: wait.
    case hold(PolicyReason)
    /// Do nothing although there is a cause.
    case stay(cause: PolicyReason, because: PolicyReason)
    /// Close the connection.
    case giveUp(PolicyReason)
}

extension PolicyReason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .networkLost(let network): "\(network) is gone"
        case .transportLost: "the socket is closed"
        case .sendError(let errno): "the system refuses to send (errno \(errno))"
        case .suspected: "the path is suspected to be dead"
        case .degrading: "no progress for four probe timeouts"
        case .unreachable: "the peer does not answer there"
        case .preferredNetwork(let network): "\(network) is preferred"
        case .standby: "a second network exists"
        case .noNetwork: "there is no network"
        case .nothingAnswers: "no network answers"
        case .idle: "the connection is idle"
        case .limitReached: "a limit is reached"
        case .migrationForbidden: "the peer does not allow migration"
        }
    }
}

extension PolicyDecision: CustomStringConvertible {
    public var description: String {
        switch self {
        case .probe(let networks, let reason):
            "probe \(networks.map(\.name).joined(separator: ", ")): \(reason)"
        case .move(let from, let to, let validated, let reason):
            if from == to {
                "move to another port on \(to): \(reason)"
            } else {
                "move \(from.map { "from \($0) " } ?? "")to \(to)\(validated ? "" : ", unproved"): \(reason)"
            }
        case .standby(let network, let rtt):
            "\(network) stands by, round trip \((rtt.inMilliseconds * 10).rounded() / 10) ms"
        case .recovered: "stay: the path makes progress again"
        case .returnLater(let network, let delay): "back to \(network) when it has worked for \(delay.inSeconds) s"
        case .hold(let reason): "hold: \(reason)"
        case .stay(let cause, let reason): "stay, although \(cause): \(reason)"
        case .giveUp(let reason): "give up: \(reason)"
        }
    }
}
