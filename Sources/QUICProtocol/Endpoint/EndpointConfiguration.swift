// SPDX-License-Identifier: Apache-2.0

/// What all connections of an endpoint have in common.
public struct EndpointConfiguration: Sendable {
    /// Bytes of the connection IDs that we issue, 4 to 20; 0 for clients that are told apart by their addresses alone, and
    /// whose server then cannot tell connections apart when addresses change.
    public var connectionIDLength = 8
    /// The secret from which stateless reset tokens are made, 32 bytes. With one that outlives the process, connections of
    /// a process that is gone are reset rather than left to time out. Nil: a random one.
    public var statelessResetKey: [UInt8]?
    /// Connections at once; more Initial packets are dropped.
    public var maximumConnections = 1_000_000
    /// Connections at once whose handshake is under way.
    public var maximumHandshakes = 10_000
    /// Stateless resets sent at most, a second.
    public var statelessResetsPerSecond = 100

    public init() {}
}

/// How a listening endpoint serves its connections.
public final class ServerConfiguration: Sendable {
    public let tls: TLSContext
    public var connection: ConnectionConfiguration { shared.value }
    let shared: SharedConfiguration

    public init(tls: TLSContext, connection: ConnectionConfiguration = ConnectionConfiguration()) {
        self.tls = tls
        self.shared = SharedConfiguration(connection)
    }
}

/// Names a connection within its endpoint. Never used again.
public struct ConnectionHandle: Hashable, Sendable {
    var slot: UInt32
    var generation: UInt32
}

/// What became of a datagram.
public enum DatagramOutcome: Hashable, Sendable {
    case connection(ConnectionHandle)
    /// A new connection, of a listening endpoint.
    case accepted(ConnectionHandle)
    /// It belongs to no connection; `takeResponse` has an answer to be sent.
    case response
    case dropped
}

/// A datagram that belongs to no connection.
public struct StatelessResponse: Sendable {
    public var tuple: FourTuple
    public var bytes: [UInt8]
}
