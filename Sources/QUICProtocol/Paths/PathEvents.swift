// SPDX-License-Identifier: Apache-2.0

/// Why a path failed or a probe did not succeed.
public enum PathFailure: Hashable, Sendable {
    /// No challenge was answered before the timeout.
    case noResponse
    /// The peer answers, but datagrams of the 1,200 bytes that QUIC needs do not get through (RFC 9000, section 8.2.1).
    case datagramsTooLarge
    /// The peer gave no connection ID that the path could have used.
    case noConnectionIDAvailable
    /// The socket that the path used is closed.
    case transportLost
    /// The system refused to send; the number is the `errno`. The path may recover.
    case sendError(Int32)
}

/// Why the application's data goes another way now.
public enum SwitchReason: Hashable, Sendable {
    /// `switchPath` was called.
    case application
    /// The automatic policy decided it; its decision says why.
    case policy
    /// The peer was heard from another address.
    case peerMoved
    /// To the address that the server prefers (RFC 9000, section 9.6).
    case preferredAddress
    /// On a server: the path that the peer moved to failed its validation, so back to the last one that was proved. On a
    /// client: the socket of the active path is gone, so on to the path that its ``PathPriority`` says.
    case fallback
}

/// How the peer's address changed.
public enum PeerMove: Hashable, Sendable {
    /// The IP address is the same: nearly always a NAT that forgot its mapping. RTT and congestion state are kept (M12).
    case portOnly
    /// Another IP address, so perhaps another network.
    case address
    /// It sends to the server's preferred address now, from the same address as before (RFC 9000, section 9.6).
    case preferredAddress
}

/// How much the application wants its data on a path when the connection must choose by itself (client; decision 0032).
///
/// `backup` and `available` are the terms of draft-ietf-quic-multipath, section 3.3. Nothing is sent to the peer.
public enum PathPriority: Int, Hashable, Sendable, Comparable {
    /// Only if no other path can be used: one that costs money, say.
    case backup
    /// As good as another.
    case available
    /// Rather than the others.
    case preferred

    public static func < (a: PathPriority, b: PathPriority) -> Bool { a.rawValue < b.rawValue }
}

/// Why datagrams on a path have another size now.
public enum DatagramSizeChange: Hashable, Sendable {
    /// A probe of that size arrived (RFC 8899).
    case probed
    /// The system refused a larger one: the MTU of its interface is smaller.
    case refused
    /// Larger ones vanish, or nothing gets through at all: back to the size that every path bears, and searched from there.
    case blackHole
}

/// What happens to a connection's paths (M45).
public enum PathEvent: Hashable, Sendable {
    case added(PathID)
    case probing(PathID)
    /// - Parameters:
    ///   - rtt: from the answered challenge to its response.
    ///   - challenges: how many were sent until one was answered.
    case validated(PathID, rtt: Nanoseconds, challenges: Int)
    case failed(PathID, PathFailure)
    case switched(from: PathID, to: PathID, SwitchReason)
    case peerMoved(from: PathID, to: PathID, PeerMove)
    /// The congestion state and RTT of a path left before are in force again (M13).
    case restored(PathID)
    case closed(PathID)
    /// Nothing was answered on the active path for two probe timeouts. Told, as is `silent`, only where the automatic policy has
    /// another network to ask about (decision 31). It ends with `recovered`, or goes on to `silent` and `degraded`.
    case suspected(PathID)
    /// Nothing was answered on the suspected path for three probe timeouts, although much was sent.
    case silent(PathID)
    /// The active path makes no progress: nothing was answered for four probe timeouts (M35). It may recover.
    case degraded(PathID)
    /// The active path makes progress again after `suspected`, `silent` or `degraded`, or the system sends there again.
    case recovered(PathID)
    /// A path waits for the peer to issue a connection ID; told once for each time that it has to.
    case connectionIDsExhausted(PathID)
    /// The application has given the path a priority, or taken it back.
    case priorityChanged(PathID, PathPriority?)
    /// Datagrams on the path have another size now, in bytes of UDP payload (RFC 9000, section 14.3).
    case datagramSizeChanged(PathID, from: Int, to: Int, DatagramSizeChange)
    /// What is known of the path's treatment of ECN marks has changed (RFC 9000, section 13.4.2).
    case ecnChanged(PathID, from: PathECNState, to: PathECNState)
}

/// A path as it was when asked.
public struct PathSnapshot: Sendable {
    public var id: PathID
    public var tuple: FourTuple
    public var state: PathState
    /// The application's data goes this way.
    public var isActive: Bool
    /// Where the data goes when the connection must choose; nil unless the application said so.
    public var priority: PathPriority?
    public var destinationConnectionID: ConnectionID?
    public var smoothedRTT: Nanoseconds
    public var latestRTT: Nanoseconds
    public var minimumRTT: Nanoseconds
    /// Bytes.
    public var congestionWindow: Int
    /// The window still doubles with every round trip (RFC 9002, section 7.3.1).
    public var isInSlowStart: Bool
    /// Bytes.
    public var bytesInFlight: Int
    /// Bytes of UDP payload in a datagram.
    public var maximumDatagramSize: Int
    public var ecn: PathECNState
    public var statistics: PathStatistics
}

/// Why a call about paths was refused or did not succeed.
public enum MigrationError: Error, Hashable, Sendable {
    /// Only the client may move a connection (RFC 9000, section 9). On a server, wait for the peer's moves.
    case serverCannotMigrate
    /// The peer sent disable_active_migration. Rebindings by a NAT still work.
    case migrationDisabledByPeer
    /// The connection's own policy is ``MigrationPolicy/disabled``.
    case migrationDisabled
    /// The peer uses connection IDs of no length, so it could not tell whose packets come from a new address (M18).
    case peerUsesNoConnectionIDs
    /// The handshake is not confirmed yet; wait for it.
    case handshakeNotConfirmed
    /// The path was not validated: probe it, or switch `withoutValidation` if the old path is gone.
    case notValidated(PathID)
    /// The path carries the application's data: switch to another first.
    case pathActive(PathID)
    /// The server is not known to be at this address: paths lead to that of the handshake and to those that the server
    /// prefers (RFC 9000, section 9).
    case unknownServerAddress(NetworkAddress)
    /// No such path; it was closed.
    case unknownPath(PathID)
    /// The peer gave no unused connection ID; try again later.
    case noConnectionIDAvailable(PathID)
    /// No challenge was answered before the timeout.
    case timedOut(PathID)
    /// The socket that the path used is closed: add a path over another.
    case transportLost(PathID)
    /// As many paths as there may be at once are in use: close one.
    case tooManyPaths(limit: Int)
    /// A path over these addresses exists already.
    case pathExists(PathID)
    /// The probe was cancelled by the caller.
    case cancelled(PathID)
    case connectionClosed(CloseReason)
}

/// Why a connection ended.
public enum CloseReason: Error, Hashable, Sendable {
    /// One of the endpoints found a fault.
    case transport(TransportError, byPeer: Bool)
    /// An application closed it, with a code of its protocol's.
    case application(code: UInt64, reason: String, byPeer: Bool)
    /// Nothing was heard for the idle timeout, and nobody had anything to say (RFC 9000, section 10.1).
    case idleTimeout
    /// Nothing was heard for the idle timeout although we spoke: no path leads to the peer any more, or it is gone (M21).
    case noViablePath
    /// The handshake did not complete in time.
    case handshakeTimeout
    /// The peer has lost the connection's state (RFC 9000, section 10.3).
    case statelessReset
    /// The server speaks none of our versions; these are its own.
    case versionNegotiationFailed([QUICVersion])
    /// The endpoint was shut down.
    case endpointClosed
}

extension CloseReason: CustomStringConvertible {
    public var description: String {
        switch self {
        case .transport(let error, let byPeer):
            "\(byPeer ? "the peer closed the connection" : "connection closed"): \(error)"
        case .application(let code, let reason, let byPeer):
            "closed by \(byPeer ? "the peer's" : "our") application with code \(code)"
                + (reason.isEmpty ? "" : ": \(reason)")
        case .idleTimeout: "idle timeout: nothing was heard from the peer"
        case .noViablePath: "no viable path: what was sent to the peer is not answered on any path"
        case .handshakeTimeout: "the handshake did not complete in time"
        case .statelessReset: "stateless reset: the peer has lost the connection's state"
        case .versionNegotiationFailed(let versions):
            "no common QUIC version; the server speaks "
                + versions.map { "0x" + String($0.rawValue, radix: 16) }.joined(separator: ", ")
        case .endpointClosed: "the endpoint was shut down"
        }
    }
}

extension MigrationError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .serverCannotMigrate: "a server cannot move a connection; the client does"
        case .migrationDisabledByPeer: "the peer does not allow active migration"
        case .migrationDisabled: "the connection's own policy does not allow active migration"
        case .peerUsesNoConnectionIDs: "the peer uses zero-length connection IDs and cannot follow a migration"
        case .handshakeNotConfirmed: "the handshake is not confirmed yet"
        case .notValidated(let path): "\(path) is not validated; probe it first"
        case .pathActive(let path): "\(path) carries the application's data; switch to another path first"
        case .unknownServerAddress(let address): "the server is not known to be at \(address)"
        case .unknownPath(let path): "\(path) does not exist (any more)"
        case .noConnectionIDAvailable(let path): "the peer gave no unused connection ID for \(path)"
        case .timedOut(let path): "no challenge on \(path) was answered in time"
        case .transportLost(let path): "the socket of \(path) is closed"
        case .tooManyPaths(let limit): "\(limit) paths are in use; close one"
        case .pathExists(let path): "these addresses are those of \(path)"
        case .cancelled(let path): "the probe of \(path) was cancelled"
        case .connectionClosed(let reason): "the connection is closed: \(reason)"
        }
    }
}
