// SPDX-License-Identifier: Apache-2.0

/// What a sent packet carried, as far as it matters when the packet is acknowledged or lost (RFC 9000, section 13.3).
///
/// It names state rather than repeating bytes: what is sent again is written from the state of that time.
enum SentFrame: Equatable, Sendable {
    case ping
    /// The largest packet number that an ACK frame reported: when it is acknowledged, older ranges need no more report.
    case ack(largest: PacketNumber)
    case crypto(offset: UInt64, length: UInt32)
    case stream(id: StreamID, offset: UInt64, length: UInt32, isFinal: Bool)
    case resetStream(StreamID)
    case stopSending(StreamID)
    case maxData
    case maxStreamData(StreamID)
    case maxStreams(StreamDirection)
    case dataBlocked
    case streamDataBlocked(StreamID)
    case streamsBlocked(StreamDirection)
    case newConnectionID(sequence: UInt64)
    case retireConnectionID(sequence: UInt64)
    case pathChallenge(PathID)
    case handshakeDone
    case ackFrequency(sequence: UInt64)
    case immediateAck
}
