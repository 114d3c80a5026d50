// SPDX-License-Identifier: Apache-2.0

/// Bytes within the packet being parsed: a frame says where its data is, so that a parsed frame owns nothing.
struct ByteRange: Equatable {
    var offset: Int
    var count: Int

    var range: Range<Int> { offset..<offset + count }
    static let empty = ByteRange(offset: 0, count: 0)
}

/// A frame of QUIC version 1 (RFC 9000, section 19), as parsed.
///
/// A value without references. What is of variable length stays in the packet and is named by a `ByteRange`.
enum Frame: Equatable {
    /// A run of `count` PADDING frames.
    case padding(count: Int)
    case ping
    case ack(AckFrame)
    case resetStream(ResetStreamFrame)
    case stopSending(StopSendingFrame)
    case crypto(CryptoFrame)
    case newToken(ByteRange)
    case stream(StreamFrame)
    case maxData(UInt64)
    case maxStreamData(StreamID, UInt64)
    case maxStreams(StreamDirection, UInt64)
    case dataBlocked(UInt64)
    case streamDataBlocked(StreamID, UInt64)
    case streamsBlocked(StreamDirection, UInt64)
    case newConnectionID(NewConnectionIDFrame)
    case retireConnectionID(sequence: UInt64)
    case pathChallenge(UInt64)
    case pathResponse(UInt64)
    case connectionClose(ConnectionCloseFrame)
    case handshakeDone
    /// The peer, as a sender of data, says how often it wants acknowledgements (draft-ietf-quic-ack-frequency, section 4).
    case ackFrequency(AckFrequencyFrame)
    /// The peer wants an acknowledgement at once (the same, section 5).
    case immediateAck
}

struct ECNCounts: Equatable, Sendable {
    var ect0: UInt64 = 0
    var ect1: UInt64 = 0
    var ce: UInt64 = 0
}

struct AckFrame: Equatable {
    var largest: PacketNumber
    /// As on the wire: to be multiplied by 2 to the peer's ack_delay_exponent, in microseconds.
    var encodedDelay: UInt64
    /// How many packets below `largest` the first range holds besides it.
    var firstRange: UInt64
    /// Number of (gap, length) pairs that follow, and where they are. Their sums were checked when the frame was parsed:
    /// no range reaches below packet 0.
    var additionalRangeCount: Int
    var additionalRanges: ByteRange
    var ecn: ECNCounts?
}

struct ResetStreamFrame: Equatable {
    var id: StreamID
    var applicationErrorCode: UInt64
    var finalSize: UInt64
}

struct StopSendingFrame: Equatable {
    var id: StreamID
    var applicationErrorCode: UInt64
}

struct CryptoFrame: Equatable {
    /// `offset + data.count` does not exceed 2^62-1.
    var offset: UInt64
    var data: ByteRange
}

struct StreamFrame: Equatable {
    var id: StreamID
    /// `offset + data.count` does not exceed 2^62-1.
    var offset: UInt64
    var data: ByteRange
    var isFinal: Bool
}

struct NewConnectionIDFrame: Equatable {
    var sequence: UInt64
    var retirePriorTo: UInt64
    var connectionID: ConnectionID
    var resetToken: StatelessResetToken
}

struct ConnectionCloseFrame: Equatable {
    /// Type 0x1d, sent by the application, rather than 0x1c.
    var isApplication: Bool
    var errorCode: UInt64
    /// The type of the offending frame, for 0x1c; 0 if unknown.
    var frameType: UInt64
    var reason: ByteRange
}

struct AckFrequencyFrame: Equatable {
    var sequence: UInt64
    /// An acknowledgement is due with more than so many ack-eliciting packets.
    var ackElicitingThreshold: UInt64
    /// In microseconds. What it may be, the connection knows.
    var requestedMaxAckDelay: UInt64
    /// How far packets may be out of order before an acknowledgement is due at once; 0 for never.
    var reorderingThreshold: UInt64
}

/// Frame types by number (RFC 9000, table 3; draft-ietf-quic-ack-frequency, section 10.2).
enum FrameType {
    static let padding: UInt64 = 0x00
    static let ping: UInt64 = 0x01
    static let ack: UInt64 = 0x02
    static let ackECN: UInt64 = 0x03
    static let resetStream: UInt64 = 0x04
    static let stopSending: UInt64 = 0x05
    static let crypto: UInt64 = 0x06
    static let newToken: UInt64 = 0x07
    static let stream: UInt64 = 0x08
    static let maxData: UInt64 = 0x10
    static let maxStreamData: UInt64 = 0x11
    static let maxStreamsBidirectional: UInt64 = 0x12
    static let maxStreamsUnidirectional: UInt64 = 0x13
    static let dataBlocked: UInt64 = 0x14
    static let streamDataBlocked: UInt64 = 0x15
    static let streamsBlockedBidirectional: UInt64 = 0x16
    static let streamsBlockedUnidirectional: UInt64 = 0x17
    static let newConnectionID: UInt64 = 0x18
    static let retireConnectionID: UInt64 = 0x19
    static let pathChallenge: UInt64 = 0x1a
    static let pathResponse: UInt64 = 0x1b
    static let connectionClose: UInt64 = 0x1c
    static let applicationClose: UInt64 = 0x1d
    static let handshakeDone: UInt64 = 0x1e
    static let immediateAck: UInt64 = 0x1f
    static let ackFrequency: UInt64 = 0xaf
}

extension Frame {
    /// The frame's type number; that of a STREAM frame without its flags.
    var type: UInt64 {
        switch self {
        case .padding: FrameType.padding
        case .ping: FrameType.ping
        case .ack(let frame): frame.ecn == nil ? FrameType.ack : FrameType.ackECN
        case .resetStream: FrameType.resetStream
        case .stopSending: FrameType.stopSending
        case .crypto: FrameType.crypto
        case .newToken: FrameType.newToken
        case .stream: FrameType.stream
        case .maxData: FrameType.maxData
        case .maxStreamData: FrameType.maxStreamData
        case .maxStreams(let direction, _):
            direction == .bidirectional ? FrameType.maxStreamsBidirectional : FrameType.maxStreamsUnidirectional
        case .dataBlocked: FrameType.dataBlocked
        case .streamDataBlocked: FrameType.streamDataBlocked
        case .streamsBlocked(let direction, _):
            direction == .bidirectional ? FrameType.streamsBlockedBidirectional : FrameType.streamsBlockedUnidirectional
        case .newConnectionID: FrameType.newConnectionID
        case .retireConnectionID: FrameType.retireConnectionID
        case .pathChallenge: FrameType.pathChallenge
        case .pathResponse: FrameType.pathResponse
        case .connectionClose(let frame):
            frame.isApplication ? FrameType.applicationClose : FrameType.connectionClose
        case .handshakeDone: FrameType.handshakeDone
        case .ackFrequency: FrameType.ackFrequency
        case .immediateAck: FrameType.immediateAck
        }
    }

    /// Whether a packet with this frame must be acknowledged (RFC 9002, section 2).
    var isAckEliciting: Bool {
        switch self {
        case .padding, .ack, .connectionClose: false
        default: true
        }
    }

    /// Whether a packet of nothing but such frames is a probing packet, which moves no path (RFC 9000, section 9.1).
    var isProbing: Bool {
        switch self {
        case .padding, .newConnectionID, .pathChallenge, .pathResponse: true
        default: false
        }
    }
}
