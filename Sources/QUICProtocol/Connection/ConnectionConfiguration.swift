// SPDX-License-Identifier: Apache-2.0

/// What an endpoint may set for a connection. The defaults suit most applications.
public struct ConnectionConfiguration: Sendable {
    /// Nothing heard for so long ends the connection (RFC 9000, section 10.1). Zero: never. The smaller of both sides' counts.
    public var maxIdleTimeout: Nanoseconds = .seconds(30)
    /// The handshake must complete within it.
    public var handshakeTimeout: Nanoseconds = .seconds(10)
    /// A PING keeps the connection and the NAT's mapping alive after so long a silence. Nil: none are sent.
    public var keepAliveInterval: Nanoseconds?
    /// While answers are awaited and nothing arrives for a few round trips, a client speaks up, so that a server whose
    /// packets go to a dead NAT mapping learns the new one (M22).
    public var probesSilence = true

    /// Bytes the peer may send on all streams together before more is granted; grows with the bandwidth.
    public var initialMaxData: UInt64 = 1_536 * 1_024
    /// Bytes the peer may send on one stream before more is granted; grows with the bandwidth.
    public var initialMaxStreamData: UInt64 = 1_024 * 1_024
    /// Bytes to which the grants of all streams and of one stream may grow.
    public var maximumReceiveWindow: UInt64 = 24 * 1_024 * 1_024
    public var maximumStreamReceiveWindow: UInt64 = 16 * 1_024 * 1_024
    /// Streams that the peer may have open at once.
    public var maxBidirectionalStreams: UInt64 = 128
    public var maxUnidirectionalStreams: UInt64 = 128
    /// Bytes a stream holds that were written and not yet sent, before the writer is asked to wait.
    public var sendBufferLimit = 1_024 * 1_024

    public var congestionControl: CongestionAlgorithm = .cubic
    /// Bytes of UDP payload in the datagrams that we send at first on a path, once the handshake is complete: at least 1,200,
    /// which every path of QUIC bears (RFC 9000, section 14). Raise it only where the MTU of all networks is known.
    public var initialUDPPayload = 1_200
    /// The most bytes of UDP payload in a datagram that we send, whatever a path bears. Nil: 1,472 over IPv4 and 1,452 over
    /// IPv6, what an Ethernet bears.
    public var maxUDPPayload: Int?
    /// Searches each path for the largest datagrams that it bears, from `initialUDPPayload` to `maxUDPPayload`, while there
    /// is enough to send to be worth it, and finds out when they do not get through any more (RFC 9000, section 14.3).
    public var searchesPathMTU = true
    /// Marks packets with ECT(0) where the path proves to carry it, and treats the marks of congested queues that the peer
    /// reports like losses (RFC 9000, section 13.4).
    public var usesECN = true
    /// The longest we wait before acknowledging (RFC 9000, section 13.2.1).
    public var maxAckDelay: Nanoseconds = .milliseconds(25)
    /// The least delay of acknowledgements that a peer may ask for (draft-ietf-quic-ack-frequency, section 3).
    var minAckDelay: Nanoseconds { min(.milliseconds(1), maxAckDelay) }
    /// Tells the peer not to move the connection (RFC 9000, section 18.2). Rebindings are followed all the same.
    public var disableActiveMigration = false
    /// A server's: addresses of its own to which its clients are asked to move (RFC 9000, section 9.6; M30).
    public var preferredAddresses: PreferredAddresses?
    /// A client's: whether it moves to an address that its server prefers, once that has answered there (M31).
    public var followsPreferredAddress = true
    /// Who moves the connection between networks. Of a client; a server cannot (RFC 9000, section 9).
    public var migration = MigrationPolicy.manual
    /// Connection IDs of the peer's that we hold at once, 2 to 8.
    public var activeConnectionIDLimit = 8
    /// Packets sealed with one key before we start a key update. Nil: as late as the cipher allows.
    public var keyUpdateInterval: UInt64?
    /// The RTT assumed before the first sample (RFC 9002, section 6.2.2).
    public var initialRTT: Nanoseconds = .milliseconds(333)

    public init() {}

    static let minimumUDPPayload = 1_200

    var streamLimits: StreamLimits {
        StreamLimits(
            sendBufferLimit: sendBufferLimit, maximumStreamReceiveWindow: maximumStreamReceiveWindow,
            maximumConnectionReceiveWindow: maximumReceiveWindow)
    }

    /// The parameters to declare, but for the connection IDs, which the handshake adds.
    func transportParameters() -> TransportParameters {
        var parameters = TransportParameters()
        parameters.maxIdleTimeout = maxIdleTimeout
        parameters.maxUDPPayloadSize = 65_527
        parameters.initialMaxData = min(initialMaxData, Varint.maximum)
        parameters.initialMaxStreamDataBidiLocal = min(initialMaxStreamData, Varint.maximum)
        parameters.initialMaxStreamDataBidiRemote = min(initialMaxStreamData, Varint.maximum)
        parameters.initialMaxStreamDataUni = min(initialMaxStreamData, Varint.maximum)
        parameters.initialMaxStreamsBidi = min(maxBidirectionalStreams, 1 << 60)
        parameters.initialMaxStreamsUni = min(maxUnidirectionalStreams, 1 << 60)
        parameters.maxAckDelay = min(max(maxAckDelay, .zero), .milliseconds((1 << 14) - 1))
        parameters.minAckDelay = max(minAckDelay, .zero)
        parameters.disableActiveMigration = disableActiveMigration
        parameters.activeConnectionIDLimit = UInt64(min(max(activeConnectionIDLimit, 2), 8))
        return parameters
    }
}

/// One configuration that all connections of a listener refer to: each would have some hundred bytes of its own.
final class SharedConfiguration: Sendable {
    let value: ConnectionConfiguration

    init(_ value: ConnectionConfiguration) { self.value = value }
}
