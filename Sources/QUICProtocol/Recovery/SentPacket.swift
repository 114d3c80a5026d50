// SPDX-License-Identifier: Apache-2.0

/// The record of a packet that was sent (RFC 9002, section A.1.1). A plain value of 40 bytes: one is kept for every
/// packet in flight.
struct SentPacket {
    /// What became of the packet.
    enum State: UInt8 {
        /// Neither acknowledged nor given up.
        case outstanding
        case acknowledged
        /// Declared lost, or its keys are gone. An acknowledgement that still comes changes nothing.
        case abandoned
        /// The number was left out on purpose and never sent.
        case skipped
    }

    struct Flags: OptionSet {
        var rawValue: UInt8
        static let ackEliciting = Flags(rawValue: 1 << 0)
        static let inFlight = Flags(rawValue: 1 << 1)
        static let mtuProbe = Flags(rawValue: 1 << 2)
        static let ecnMarked = Flags(rawValue: 1 << 3)
        static let appLimited = Flags(rawValue: 1 << 4)
        static let followsAcknowledged = Flags(rawValue: 1 << 5)
        static let overdue = Flags(rawValue: 1 << 6)
    }

    var number: PacketNumber
    var timeSent: Instant
    /// The index of its first frame in the space's frame log.
    var firstFrame: UInt64
    var path: PathID
    /// Bytes of UDP payload that the packet took, header and AEAD tag included.
    var size: UInt16
    var frameCount: UInt16
    var flags: Flags
    var state: State

    /// The peer acknowledges it without being asked twice.
    var isAckEliciting: Bool { flags.contains(.ackEliciting) }
    /// Counts towards the bytes in flight: everything but packets of nothing but ACK and CONNECTION_CLOSE.
    var isInFlight: Bool { flags.contains(.inFlight) }
    /// Its loss says something about its size and nothing about congestion (RFC 9000, section 14.4).
    var isMTUProbe: Bool { flags.contains(.mtuProbe) }
    /// Left as ECT, so that its acknowledgement must report an ECN count (RFC 9000, section 13.4.2).
    var isECNMarked: Bool { flags.contains(.ecnMarked) }
    /// Nothing else was waiting to be sent behind it: what is measured with it is the application's rate.
    var isAppLimited: Bool { flags.contains(.appLimited) }
    /// Of a lost packet: an acknowledged packet of the same path lies between it and the lost one before it in the same
    /// `AckOutcome`, which ends a period of persistent congestion (RFC 9002, section 7.6.2).
    var followsAcknowledged: Bool { flags.contains(.followsAcknowledged) }

    /// Of a lost packet: nothing sent after it on its path was acknowledged, only packets of other paths. The path may be
    /// dead, so this is no sign of congestion.
    var isOverdue: Bool { flags.contains(.overdue) }

    static let placeholder = SentPacket(
        number: 0, timeSent: .zero, firstFrame: 0, path: PathID(0), size: 0, frameCount: 0, flags: [], state: .skipped)
}
