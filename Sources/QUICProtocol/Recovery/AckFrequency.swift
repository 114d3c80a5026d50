// SPDX-License-Identifier: Apache-2.0

/// What we, as a sender of data, ask the peer to acknowledge and how often (draft-ietf-quic-ack-frequency).
///
/// Each acknowledgement costs both sides a system call and a wake-up, so few of them are asked for: one for a sixteenth of
/// the window. What waits to be acknowledged is missing from what may be in flight, and a link with a short queue idles for
/// so long. On a path of less than a millisecond, where hosts wait and not links, it is one for a quarter of the window (an
/// eighth in slow start, which needs the RTT samples). That is only while the window is large and neither a packet was lost
/// nor a path changed for some round trips. With the first such event the usual ones are asked for at once: those that
/// follow a loss bring the window back, and those that follow a move may be lost themselves.
struct AckFrequency {
    static let windowDivisor = 16
    /// The same for a path of less than `shortPath`; twice as many in slow start.
    static let shortPathDivisor = 4
    static let shortPath = Nanoseconds.milliseconds(1)
    /// It must be so many packets to be worth asking, and more where hosts take the time: there what arrives in one read is
    /// acknowledged together anyway, and a request for less saves nothing. That is a path of less than
    /// `RTTEstimator.hostPath` or, once something was lost, timed out or moved, less than `shortPath`: it may have been
    /// a link's short queue, which bears few packets at once (decision 0016).
    static let leastPackets = 3
    static let leastPacketsOnHostPath = 10
    /// A receiver processes no more than that many datagrams at once either.
    static let mostPackets = 64
    /// For how many round trips nothing may have happened, and how long at least.
    static let calmRoundTrips: Int64 = 4
    static let calmTime = Nanoseconds.milliseconds(50)
    /// A change by less than this factor is not worth a frame.
    static let worthwhileFactor = 2

    /// What the peer is to do.
    struct Request: Equatable {
        /// Ack-eliciting packets for which there is one ACK.
        var packets = 2
        var delay: Nanoseconds
        var isSparse: Bool { packets > 2 }
    }

    /// The peer's min_ack_delay, and its max_ack_delay; nil if it does not know the extension.
    private var limits: (least: Nanoseconds, most: Nanoseconds)?
    private var current = Request(delay: .milliseconds(25))
    private var nextSequence: UInt64 = 0
    private var lastDisturbance = Instant.zero
    private var wasDisturbed = false
    private var lastSentAt = Instant.zero
    /// An ACK_FREQUENCY frame waits to be sent.
    private(set) var isPending = false
    /// An IMMEDIATE_ACK frame waits to be sent.
    private(set) var wantsImmediateAck = false

    mutating func negotiated(_ peer: TransportParameters, now: Instant) {
        guard let least = peer.minAckDelay else { return }
        limits = (least, peer.maxAckDelay)
        current.delay = peer.maxAckDelay
        lastDisturbance = now
    }

    @inline(__always)
    var hasFrames: Bool { isPending || wantsImmediateAck }

    /// A packet was lost, a probe timeout expired, or a path changed.
    ///
    /// - Parameters:
    ///   - needsAnswer: the peer is to acknowledge the next packet at once.
    mutating func disturbed(now: Instant, needsAnswer: Bool) {
        guard let limits else { return }
        lastDisturbance = now
        wasDisturbed = true
        if needsAnswer { wantsImmediateAck = true }
        guard current.isSparse else { return }
        ask(Request(delay: limits.most), now: now)
    }

    /// Packets were acknowledged: perhaps the window has grown so much that something else is wanted.
    mutating func reconsider(
        window: Int, maximumDatagramSize: Int, isInSlowStart: Bool, smoothedRTT: Nanoseconds, minimumRTT: Nanoseconds,
        now: Instant
    ) {
        guard let limits, now - lastSentAt >= smoothedRTT,
            now - lastDisturbance >= max(smoothedRTT * Self.calmRoundTrips, Self.calmTime)
        else { return }
        let datagrams = window / max(maximumDatagramSize, 1)
        let divisor =
            minimumRTT >= Self.shortPath
            ? Self.windowDivisor : isInSlowStart ? 2 * Self.shortPathDivisor : Self.shortPathDivisor
        let packets = min(datagrams / divisor, Self.mostPackets)
        let isHostPath = minimumRTT < (wasDisturbed ? Self.shortPath : RTTEstimator.hostPath)
        let least = isHostPath ? Self.leastPacketsOnHostPath : Self.leastPackets
        guard packets >= least else {
            // Not for a small change either.
            if isHostPath, current.isSparse, packets * Self.worthwhileFactor < least {
                ask(Request(delay: limits.most), now: now)
            }
            return
        }
        let delay = min(max(smoothedRTT / Int64(divisor), limits.least), limits.most)
        guard
            packets >= current.packets * Self.worthwhileFactor || packets * Self.worthwhileFactor <= current.packets
                || delay >= current.delay * 2 || delay * 2 <= current.delay
        else { return }
        ask(Request(packets: packets, delay: delay), now: now)
    }

    private mutating func ask(_ request: Request, now: Instant) {
        guard request != current else { return }
        current = request
        lastSentAt = now
        isPending = true
    }

    /// The frame to send.
    var frame: AckFrequencyFrame {
        // Asking for an ACK of out-of-order packets before the packet threshold would gain nothing (section 9).
        AckFrequencyFrame(
            sequence: nextSequence, ackElicitingThreshold: UInt64(current.packets - 1),
            requestedMaxAckDelay: UInt64(clamping: current.delay.inMicroseconds),
            reorderingThreshold: current.isSparse ? UInt64(PacketNumberSpace.packetThreshold) : 1)
    }

    mutating func frameSent() {
        nextSequence += 1
        isPending = false
    }

    mutating func immediateAckSent() { wantsImmediateAck = false }

    /// A frame was lost: it is sent again, as what is wanted now, unless a newer one is under way.
    mutating func lost(sequence: UInt64) {
        if sequence &+ 1 == nextSequence { isPending = true }
    }
}
