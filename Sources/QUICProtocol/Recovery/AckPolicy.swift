// SPDX-License-Identifier: Apache-2.0

/// How often packets of application data are acknowledged (RFC 9000, section 13.2; draft-ietf-quic-ack-frequency).
///
/// A peer that knows the extension says what it wants. To one that does not, every second packet is acknowledged at first
/// and whenever something was out of order or the peer moved, and every tenth, or what comes in a part of a round trip,
/// once a hundred packets came without such a disturbance: by then its window is large enough to bear it.
struct AckPolicy {
    /// Packets without a disturbance after which acknowledgements may be rare.
    static let calmPackets = 100
    /// The threshold of RFC 9000, section 13.2.2, and that for a calm connection.
    static let usualThreshold = 2
    static let calmThreshold = 10
    /// Acknowledgements that nobody asked to be rare are late by a round trip divided by it, at most.
    static let delayDivisor: Int64 = 8
    /// No timer is set for less where hosts take the time: until a packet is missing, or on a path of less than a millisecond.
    static let leastDelayOnHostPath = Nanoseconds.milliseconds(1)

    /// What the peer asked for.
    private struct Request {
        var sequence: UInt64
        /// Packets with which an ACK is due.
        var threshold: Int
        var delay: Nanoseconds
        var reorderingThreshold: UInt64
    }

    /// Our max_ack_delay.
    var maxAckDelay = Nanoseconds.milliseconds(25)
    /// Zero if it is not known.
    var rtt = Nanoseconds.zero
    private var request: Request?
    private var packetsSinceDisturbance = 0
    private var wasMarked = false
    /// Packets came out of order, which may be the doing of a link whose queue is short.
    private var wasReordered = false

    /// Takes an ACK_FREQUENCY frame; one that was overtaken changes nothing.
    mutating func request(_ frame: AckFrequencyFrame, minAckDelay: Nanoseconds) throws(TransportError) {
        guard frame.requestedMaxAckDelay < (1 << 14) * 1_000 else {
            throw Self.fault("max_ack_delay of \(frame.requestedMaxAckDelay) µs is too long")
        }
        let delay = Nanoseconds.microseconds(Int64(frame.requestedMaxAckDelay))
        guard delay >= minAckDelay else {
            throw Self.fault("max_ack_delay of \(frame.requestedMaxAckDelay) µs is less than min_ack_delay")
        }
        if let request, frame.sequence <= request.sequence { return }
        request = Request(
            sequence: frame.sequence, threshold: Int(clamping: frame.ackElicitingThreshold &+ 1), delay: delay,
            reorderingThreshold: frame.reorderingThreshold)
    }

    private static func fault(_ reason: String) -> TransportError {
        TransportError(.protocolViolation, frameType: FrameType.ackFrequency, reason)
    }

    private var isCalm: Bool { packetsSinceDisturbance >= Self.calmPackets }

    /// Packets with which an ACK is due. After a disturbance more often than the peer asked, which it must bear.
    @inline(__always)
    private var threshold: Int {
        if let request { return isCalm ? request.threshold : min(request.threshold, Self.usualThreshold) }
        return isCalm ? Self.calmThreshold : Self.usualThreshold
    }

    /// The peer asked for fewer acknowledgements than usual.
    var isSparse: Bool { request.map { $0.threshold > Self.usualThreshold } ?? false }

    /// How long an ACK waits for more to report.
    var delay: Nanoseconds {
        if let request { return request.delay }
        guard isCalm, rtt > .zero else { return maxAckDelay }
        let isHostPath = rtt < AckFrequency.shortPath || !wasReordered
        return min(maxAckDelay, max(rtt / Self.delayDivisor, isHostPath ? Self.leastDelayOnHostPath : .zero))
    }

    /// How far packets may be out of order before an ACK is due; 0 for any distance.
    var reorderingThreshold: UInt64 { request?.reorderingThreshold ?? 1 }

    /// An ack-eliciting packet came.
    @inline(__always)
    mutating func received(isReordered: Bool) {
        if isReordered { wasReordered = true }
        // The peer that asks says what is to follow from a gap; of any other the window may have become small.
        if isReordered, request == nil {
            packetsSinceDisturbance = 0
        } else if !isCalm {
            packetsSinceDisturbance += 1
        }
    }

    mutating func disturbed() { packetsSinceDisturbance = 0 }

    @inline(__always)
    func isDue(unreported: Int) -> Bool { unreported >= threshold }

    /// Every CE mark is reported at once; where acknowledgements are rare by request, the first of several
    /// (draft-ietf-quic-ack-frequency, section 6.4).
    @inline(__always)
    mutating func isDue(mark ecn: ECNCodepoint) -> Bool {
        defer { wasMarked = ecn == .ce }
        guard ecn == .ce else { return false }
        guard let request, request.threshold > Self.usualThreshold else { return true }
        return !wasMarked
    }
}
