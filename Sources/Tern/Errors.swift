// SPDX-License-Identifier: Apache-2.0

/// Why a call about transports, or the making of a connection, did not succeed.
///
/// Calls on a connection that ended throw its `CloseReason`; calls on streams throw `StreamError`, calls on paths
/// `MigrationError`.
public enum TernError: Error, Hashable, Sendable {
    /// Not an address of the form `host:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
    case invalidAddress(String)
    /// The name has no address; the system's explanation follows.
    case unknownHost(String, explanation: String)
    /// There is no such network interface, or it has no address to send from.
    case interfaceUnavailable(String)
    /// The system refused a call; the number is its `errno`.
    case system(call: String, errno: Int32)
    /// The transport has no socket for the address family of the peer: bind one that has.
    case addressFamilyUnavailable(NetworkAddress.Family)
    /// The event loop cannot run sockets: use one of a `MultiThreadedEventLoopGroup`.
    case eventLoopUnsupported
    /// The transport belongs to another event loop than the connection: bind it `on:` the connection's ``Connection/eventLoop``.
    case transportOnAnotherEventLoop
    /// The transports given as preferred have no address that clients could be told; the text says why.
    case noPreferredAddress(String)
    /// The transport was closed.
    case transportClosed
    /// The transport listens already.
    case alreadyListening
    /// No application protocol (ALPN) was given; QUIC requires one (RFC 9001, section 8.1).
    case noApplicationProtocol
    /// The TLS configuration cannot be used for QUIC; the text says what is wrong with it.
    case tls(String)
    /// The connection ended before its handshake was complete.
    case connectionFailed(CloseReason)
    /// Another task reads from this stream: a stream has one reader at a time.
    case concurrentRead(StreamID)
    /// The task that called was cancelled.
    case cancelled
}

extension TernError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .invalidAddress(let text):
            "'\(text)' is not an address: write host:port, 192.0.2.1:port or [2001:db8::1]:port"
        case .unknownHost(let host, let explanation): "no address found for '\(host)': \(explanation)"
        case .interfaceUnavailable(let name): "there is no interface '\(name)' with an IP address"
        case .system(let call, let errno): "\(call) failed: \(systemErrorText(errno)) (errno \(errno))"
        case .addressFamilyUnavailable(let family):
            "the transport has no \(family == .ipv4 ? "IPv4" : "IPv6") socket: bind one to an address of that family"
        case .eventLoopUnsupported: "the event loop cannot run sockets: use one of a MultiThreadedEventLoopGroup"
        case .transportOnAnotherEventLoop:
            "the transport runs on another event loop: bind it with `on: connection.eventLoop`"
        case .noPreferredAddress(let reason): "no preferred address: \(reason)"
        case .transportClosed: "the transport is closed"
        case .alreadyListening: "the transport listens already"
        case .noApplicationProtocol: "no application protocol (ALPN) was given, and QUIC requires one"
        case .tls(let reason): "TLS configuration: \(reason)"
        case .connectionFailed(let reason): "the connection failed: \(reason)"
        case .concurrentRead(let id): "another task is reading from stream \(id)"
        case .cancelled: "cancelled"
        }
    }
}
