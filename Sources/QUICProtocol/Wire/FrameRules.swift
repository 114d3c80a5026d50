// SPDX-License-Identifier: Apache-2.0

extension Frame {
    /// No stream limit may be larger: stream IDs would no longer fit into a varint (RFC 9000, section 4.6).
    static let maximumStreamCount: UInt64 = 1 << 60

    /// Whether a packet of this level may hold the frame (RFC 9000, section 12.4, table 3). If not, it is a
    /// PROTOCOL_VIOLATION.
    func isPermitted(at level: EncryptionLevel) -> Bool {
        switch level {
        case .oneRTT: return true
        case .earlyData:
            switch self {
            case .ack, .crypto, .newToken, .pathResponse, .handshakeDone: return false
            // What the peer supports is not remembered (draft-ietf-quic-ack-frequency, section 3).
            case .ackFrequency, .immediateAck: return false
            default: return true
            }
        case .initial, .handshake:
            switch self {
            case .padding, .ping, .ack, .crypto: return true
            case .connectionClose(let frame): return !frame.isApplication
            default: return false
            }
        }
    }
}

extension FrameType {
    /// The name that RFC 9000 gives to a frame type, for error messages.
    static func name(_ type: UInt64) -> String {
        switch type {
        case padding: "PADDING"
        case ping: "PING"
        case ack, ackECN: "ACK"
        case resetStream: "RESET_STREAM"
        case stopSending: "STOP_SENDING"
        case crypto: "CRYPTO"
        case newToken: "NEW_TOKEN"
        case stream...(stream | StreamFlags.mask): "STREAM"
        case maxData: "MAX_DATA"
        case maxStreamData: "MAX_STREAM_DATA"
        case maxStreamsBidirectional, maxStreamsUnidirectional: "MAX_STREAMS"
        case dataBlocked: "DATA_BLOCKED"
        case streamDataBlocked: "STREAM_DATA_BLOCKED"
        case streamsBlockedBidirectional, streamsBlockedUnidirectional: "STREAMS_BLOCKED"
        case newConnectionID: "NEW_CONNECTION_ID"
        case retireConnectionID: "RETIRE_CONNECTION_ID"
        case pathChallenge: "PATH_CHALLENGE"
        case pathResponse: "PATH_RESPONSE"
        case connectionClose, applicationClose: "CONNECTION_CLOSE"
        case handshakeDone: "HANDSHAKE_DONE"
        case immediateAck: "IMMEDIATE_ACK"
        case ackFrequency: "ACK_FREQUENCY"
        default: "frame type 0x\(String(type, radix: 16))"
        }
    }
}
