// SPDX-License-Identifier: Apache-2.0

/// What a connection tells its driver. Streams' events name the stream; the state is then read from the connection.
public enum ConnectionEvent: Sendable {
    /// TLS is done: the peer's identity is proved as far as the configuration asks, and streams may be used.
    case handshakeCompleted(applicationProtocol: String)
    /// The peer has completed the handshake, too: paths may be added (RFC 9001, section 4.1.2).
    case handshakeConfirmed
    /// The peer opened a stream.
    case streamOpened(StreamID)
    /// There is data, the end, or a reset to be read.
    case streamReadable(StreamID)
    /// A stream that held more than it should has room again.
    case streamWritable(StreamID)
    /// Everything sent on the stream, its end included, was acknowledged.
    case streamSendClosed(StreamID)
    /// The peer does not want to read any more of it.
    case streamStopped(StreamID, code: UInt64)
    /// The peer allows more streams, after one was refused.
    case streamsAvailable(StreamDirection)
    case path(PathEvent)
    /// The server would rather be reached at one of these addresses, the best first: answer with
    /// `followPreferredAddress(over:now:)`, or the connection stays where it is (RFC 9000, section 9.6). Comes again when the
    /// client moves to another network before it has followed.
    case preferredAddressOffered([NetworkAddress])
    /// Once: no more application data goes either way.
    case closed(CloseReason)
}

/// Where a connection is in its life.
public enum ConnectionState: Hashable, Sendable {
    case handshaking
    case established
    /// We closed it and answer what still comes with CONNECTION_CLOSE (RFC 9000, section 10.2.1).
    case closing
    /// The peer closed it; we are silent (RFC 9000, section 10.2.2).
    case draining
    /// Nothing is left to do: forget it.
    case closed
}

/// Datagrams to be sent: `byteCount` bytes at the start of the caller's buffer, cut every `segmentSize` bytes.
public struct Transmission: Sendable {
    public var path: PathID
    public var tuple: FourTuple
    public var byteCount: Int
    /// Bytes of each datagram; the last may be shorter.
    public var segmentSize: Int
    public var ecn: ECNCodepoint
}

/// Counters of a whole connection.
public struct ConnectionStatistics: Hashable, Sendable {
    public var datagramsReceived: UInt64 = 0
    public var datagramsSent: UInt64 = 0
    public var bytesReceived: UInt64 = 0
    public var bytesSent: UInt64 = 0
    public var packetsReceived: UInt64 = 0
    public var packetsSent: UInt64 = 0
    public var packetsLost: UInt64 = 0
    /// Packets that could not be authenticated, were duplicates, or came from where nothing may come from.
    public var packetsDropped: UInt64 = 0
    /// Probe timeouts that expired.
    public var probeTimeouts: UInt64 = 0
    public var keyUpdates: UInt64 = 0
    /// Times the peer was followed to another address.
    public var peerMoves: UInt64 = 0

    public init() {}
}
