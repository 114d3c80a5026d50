// SPDX-License-Identifier: Apache-2.0

/// The preferred address a server announces (RFC 9000, section 18.2).
public struct PreferredAddress: Hashable, Sendable {
    public var ipv4: NetworkAddress?
    public var ipv6: NetworkAddress?
    public var connectionID: ConnectionID
    public var resetToken: StatelessResetToken

    public init(
        ipv4: NetworkAddress?, ipv6: NetworkAddress?, connectionID: ConnectionID, resetToken: StatelessResetToken
    ) {
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.connectionID = connectionID
        self.resetToken = resetToken
    }
}

/// What an endpoint declares in the TLS handshake (RFC 9000, section 18.2), with the defaults of absent parameters.
public struct TransportParameters: Hashable, Sendable {
    public var originalDestinationConnectionID: ConnectionID?
    /// Zero means none.
    public var maxIdleTimeout: Nanoseconds = .zero
    public var statelessResetToken: StatelessResetToken?
    /// Bytes of UDP payload, at least 1,200.
    public var maxUDPPayloadSize: UInt64 = 65_527
    public var initialMaxData: UInt64 = 0
    public var initialMaxStreamDataBidiLocal: UInt64 = 0
    public var initialMaxStreamDataBidiRemote: UInt64 = 0
    public var initialMaxStreamDataUni: UInt64 = 0
    public var initialMaxStreamsBidi: UInt64 = 0
    public var initialMaxStreamsUni: UInt64 = 0
    /// 0 to 20.
    public var ackDelayExponent: UInt64 = 3
    /// Below 2^14 milliseconds.
    public var maxAckDelay: Nanoseconds = .milliseconds(25)
    /// The least delay of acknowledgements that the peer may ask for; nil if it may ask for none
    /// (draft-ietf-quic-ack-frequency, section 3). No longer than `maxAckDelay`; in whole microseconds.
    public var minAckDelay: Nanoseconds?
    public var disableActiveMigration = false
    public var preferredAddress: PreferredAddress?
    /// At least 2.
    public var activeConnectionIDLimit: UInt64 = 2
    public var initialSourceConnectionID: ConnectionID?
    public var retrySourceConnectionID: ConnectionID?

    public init() {}
}
