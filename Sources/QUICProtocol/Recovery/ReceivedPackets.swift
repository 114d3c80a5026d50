// SPDX-License-Identifier: Apache-2.0

import BasicContainers

/// The packets received in a space: which they are, what of them has to be reported, and when (RFC 9000, section 13.2).
///
/// Two things are told apart. Ranges are kept, as many as fit, so that a duplicate is known as one. Only those that the
/// peer may not have heard of yet are reported.
struct ReceivedPackets: ~Copyable {
    /// How many ranges are kept. Beyond it the oldest goes, and every number up to its end counts as received.
    static let maximumRanges = 64

    /// Contiguous packet numbers, both ends included. Not private: a private type as the element of a stored container
    /// makes the compiler (6.3) emit a broken debug build of the other files that use this type.
    struct NumberRange {
        var first: PacketNumber
        var last: PacketNumber
    }

    private let isByAddress = ByAddress()
    /// Ascending, never adjacent.
    private var ranges = UniqueArray<NumberRange>()
    /// Numbers below it count as received.
    private var floor: PacketNumber = 0
    /// Numbers below it are reported no more: the peer knows.
    private var reportFloor: PacketNumber = 0
    private(set) var largest: PacketNumber?
    /// When `largest` came: the ACK delay is counted from here.
    private(set) var largestReceivedAt = Instant.zero
    private var largestAckEliciting: PacketNumber?
    /// How many packets came with each codepoint.
    private(set) var ecnCounts = ECNCounts()

    private let acknowledgesAtOnce: Bool
    /// When an ACK is due. The caller asks once it has processed all it received, so that there is at most one ACK a batch.
    private var policy = AckPolicy()
    /// Largest Acknowledged of the last ACK written.
    private var largestReported: PacketNumber?

    /// There is something to report that no ACK has reported yet: worth an ACK in a packet that is sent anyway.
    private(set) var hasUnreportedPackets = false
    private var unreportedAckElicitingCount = 0
    /// The least number that no ACK has reported yet, and the one of the last ACK written; `PacketNumber.max` for none.
    private var lowestUnreported = PacketNumber.max
    private var lowestInLastReport = PacketNumber.max
    /// When an ACK is due; in the past if at once.
    private(set) var ackDeadline: Instant?

    /// - Parameters:
    ///   - acknowledgesAtOnce: of the Initial and Handshake spaces, whose ACKs are never delayed (RFC 9000, 13.2.1).
    init(acknowledgesAtOnce: Bool) { self.acknowledgesAtOnce = acknowledgesAtOnce }

    /// Sets the delay that our max_ack_delay promises not to exceed.
    mutating func setAckDelay(max delay: Nanoseconds) { policy.maxAckDelay = Swift.max(delay, .zero) }

    /// The peer says how often it wants acknowledgements (draft-ietf-quic-ack-frequency, section 4).
    ///
    /// - Parameters:
    ///   - minAckDelay: the least delay that we offered.
    /// - Throws: PROTOCOL_VIOLATION if it asks for a delay that is not allowed.
    mutating func request(_ frame: AckFrequencyFrame, minAckDelay: Nanoseconds) throws(TransportError) {
        try policy.request(frame, minAckDelay: minAckDelay)
    }

    /// The peer asked for fewer acknowledgements than usual.
    var isSparse: Bool { policy.isSparse }

    /// The peer moved: what it gets back now is likely to be lost, and the more so the less there is of it.
    mutating func peerMoved() { policy.disturbed() }

    /// The RTT of the path: acknowledgements that nobody asked to be rare are late by a part of it at most.
    mutating func setRTT(_ rtt: Nanoseconds) { policy.rtt = rtt }

    var hasUnreportedAckEliciting: Bool { unreportedAckElicitingCount > 0 }

    func isAckDue(now: Instant) -> Bool { ackDeadline.map { $0 <= now } ?? false }

    /// How many ranges are kept.
    var rangeCount: Int { ranges.count }

    // MARK: Receiving

    /// Whether a packet is a duplicate. Numbers below the ranges kept count as received: a packet must never be
    /// processed twice (RFC 9000, section 12.3).
    @inline(__always)
    func contains(_ number: PacketNumber) -> Bool {
        if number < floor { return true }
        let index = indexAfter(number)
        return index > 0 && ranges[index - 1].last >= number
    }

    /// Records a packet, once it was processed.
    ///
    /// - Parameters:
    ///   - asksForAck: it has an IMMEDIATE_ACK frame.
    mutating func record(
        _ number: PacketNumber, isAckEliciting: Bool, asksForAck: Bool = false, ecn: ECNCodepoint, now: Instant
    ) {
        guard number >= floor, insert(number) else { return }
        switch ecn {
        case .notECT: break
        case .ect0: ecnCounts.ect0 &+= 1
        case .ect1: ecnCounts.ect1 &+= 1
        case .ce: ecnCounts.ce &+= 1
        }
        if largest.map({ $0 < number }) ?? true {
            largest = number
            largestReceivedAt = now
        }
        // So late that the peer has already seen everything around it acknowledged: report this part again.
        reportFloor = min(reportFloor, number)
        lowestUnreported = min(lowestUnreported, number)
        hasUnreportedPackets = true
        guard isAckEliciting else { return }

        unreportedAckElicitingCount += 1
        let isReordered = isOutOfOrder(number)
        largestAckEliciting = max(largestAckEliciting ?? number, number)
        policy.received(isReordered: isReordered)
        let isMarkDue = policy.isDue(mark: ecn)
        let isImmediate =
            acknowledgesAtOnce || asksForAck || policy.isDue(unreported: unreportedAckElicitingCount) || isMarkDue
            || isBeyondReordering(number, isReordered: isReordered)
            // No range may be forgotten before it was reported.
            || (ranges.count > Self.maximumRanges - 8 && ranges[8].last >= lowestUnreported)
        let deadline = isImmediate ? now : now + policy.delay
        ackDeadline = min(ackDeadline ?? deadline, deadline)
    }

    /// Whether an ack-eliciting packet is or shows one that is further out of order than the peer bears without a word
    /// (draft-ietf-quic-ack-frequency, section 6.2): the peer declares it lost, or has done so.
    @inline(__always)
    private func isBeyondReordering(_ number: PacketNumber, isReordered: Bool) -> Bool {
        let threshold = policy.reorderingThreshold
        if threshold == 1 { return isReordered }
        guard threshold > 1, let newest = ranges.indices.last else { return false }
        let largest = largestReported ?? 0
        let reported = largest >= threshold ? largest - threshold : nil
        if let reported, number <= reported { return true }
        let lower = max(floor, reported.map { $0 + 1 } ?? 0)
        guard ranges[newest].first > lower else { return false }
        return isBeyondReordering(threshold, missingFrom: lower)
    }

    /// The smallest number missing from `lower` on is so far behind the largest.
    private func isBeyondReordering(_ threshold: UInt64, missingFrom lower: PacketNumber) -> Bool {
        guard let largest = largestAckEliciting else { return false }
        var index = ranges.count - 1
        while index > 0, ranges[index - 1].last >= lower { index -= 1 }
        // What lies below this range is missing; if it begins before `lower`, what follows it is.
        let missing = ranges[index].first > lower ? lower : ranges[index].last &+ 1
        return missing < largest && largest - missing >= threshold
    }

    /// Whether an ack-eliciting packet, just inserted, came out of order or after a gap (RFC 9000, section 13.2.1).
    @inline(__always)
    private func isOutOfOrder(_ number: PacketNumber) -> Bool {
        guard let previous = largestAckEliciting else { return false }
        if number < previous { return true }
        let index = indexAfter(number)
        return index == 0 || ranges[index - 1].first > previous
    }

    /// The index of the first range that starts after `number`. The newest ranges are where packets arrive.
    @inline(__always)
    private func indexAfter(_ number: PacketNumber) -> Int {
        var index = ranges.count
        while index > 0, ranges[index - 1].first > number { index -= 1 }
        return index
    }

    /// False if it was there already.
    private mutating func insert(_ number: PacketNumber) -> Bool {
        var index = indexAfter(number)
        if index > 0, ranges[index - 1].last >= number { return false }
        let joinsPrevious = index > 0 && ranges[index - 1].last &+ 1 == number
        let joinsNext = index < ranges.count && ranges[index].first == number &+ 1
        switch (joinsPrevious, joinsNext) {
        case (true, true):
            ranges[index - 1].last = ranges[index].last
            _ = ranges.remove(at: index)
        case (true, false):
            ranges[index - 1].last = number
        case (false, true):
            ranges[index].first = number
        case (false, false):
            if ranges.count == Self.maximumRanges {
                guard index > 0 else {
                    floor = number &+ 1
                    return true
                }
                floor = ranges[0].last &+ 1
                _ = ranges.remove(at: 0)
                index -= 1
            }
            ranges.insert(NumberRange(first: number, last: number), at: index)
        }
        return true
    }

    // MARK: Reporting

    /// Writes an ACK frame with as many ranges, the newest first, as fit below the writer's limit, and ECN counts if any
    /// codepoint was seen (RFC 9000, section 19.3).
    ///
    /// - Parameters:
    ///   - delayExponent: our ack_delay_exponent; for Initial and Handshake packets 3, the default.
    /// - Returns: the largest number that it reports; nil, with nothing written, if it did not fit or there is nothing that
    ///   the peer may not know.
    mutating func writeAck(into writer: inout PacketWriter, delayExponent: UInt64, now: Instant) -> PacketNumber? {
        guard let newest = ranges.indices.last, ranges[newest].last >= reportFloor else { return nil }
        let largest = ranges[newest].last
        let firstLength = largest - max(ranges[newest].first, reportFloor)
        let elapsed = max(now - largestReceivedAt, .zero)
        let delay = UInt64(clamping: elapsed.inMicroseconds) >> min(delayExponent, 20)
        let hasECN = ecnCounts != ECNCounts()

        // The number of further ranges is at most 63, which takes one byte.
        var size = 2 + Varint.encodedSize(largest) + Varint.encodedSize(delay) + Varint.encodedSize(firstLength)
        if hasECN {
            size += Varint.encodedSize(ecnCounts.ect0) + Varint.encodedSize(ecnCounts.ect1)
            size += Varint.encodedSize(ecnCounts.ce)
        }
        guard size <= writer.remaining else { return nil }
        var oldest = newest
        while oldest > 0, ranges[oldest - 1].last >= reportFloor {
            let (gap, length) = additionalRange(oldest - 1)
            size += Varint.encodedSize(gap) + Varint.encodedSize(length)
            if size > writer.remaining { break }
            oldest -= 1
        }

        writer.writeUInt8(UInt8(truncatingIfNeeded: hasECN ? FrameType.ackECN : FrameType.ack))
        writer.writeVarint(largest)
        writer.writeVarint(delay)
        writer.writeVarint(UInt64(newest - oldest))
        writer.writeVarint(firstLength)
        var index = newest
        while index > oldest {
            index -= 1
            let (gap, length) = additionalRange(index)
            writer.writeVarint(gap)
            writer.writeVarint(length)
        }
        if hasECN {
            writer.writeVarint(ecnCounts.ect0)
            writer.writeVarint(ecnCounts.ect1)
            writer.writeVarint(ecnCounts.ce)
        }
        hasUnreportedPackets = false
        largestReported = largest
        lowestInLastReport = lowestUnreported
        lowestUnreported = .max
        unreportedAckElicitingCount = 0
        ackDeadline = nil
        return largest
    }

    /// The Gap and ACK Range Length of the range at `index`, which is not the newest.
    private func additionalRange(_ index: Int) -> (gap: UInt64, length: UInt64) {
        let range = ranges[index]
        // Ranges are never adjacent: at least one number is between them.
        return (ranges[index + 1].first &- range.last &- 2, range.last - max(range.first, reportFloor))
    }

    /// The peer acknowledged a packet with an ACK frame that reported up to `largest`: what is not above it is reported no
    /// more (RFC 9000, section 13.2.4). It is still known as received. What came after that ACK was written, however low
    /// its number, is yet to be reported.
    mutating func acknowledgementAcknowledged(largest: PacketNumber) {
        guard let received = self.largest, largest <= received else { return }
        reportFloor = max(reportFloor, min(largest &+ 1, lowestUnreported))
    }

    /// The packet with the last ACK frame was not sent after all: an ACK is due again.
    mutating func acknowledgementDropped(now: Instant) {
        guard let largest, largest >= reportFloor else { return }
        hasUnreportedPackets = true
        lowestUnreported = min(lowestUnreported, lowestInLastReport)
        guard largestAckEliciting.map({ $0 >= reportFloor }) ?? false else { return }
        unreportedAckElicitingCount = max(unreportedAckElicitingCount, 1)
        ackDeadline = min(ackDeadline ?? now, now)
    }
}
