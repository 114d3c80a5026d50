// SPDX-License-Identifier: Apache-2.0

import BasicContainers

/// What an acknowledgement or a loss timer did to the packets sent. One is kept and used again, so that its memory is
/// taken once.
struct AckOutcome: ~Copyable {
    /// Packets newly acknowledged, in the order of the frame: the ranges as they were given (the largest first), and
    /// ascending within each.
    fileprivate(set) var acknowledged = UniqueArray<SentPacket>()
    /// Packets in flight that were declared lost, ascending.
    fileprivate(set) var lost = UniqueArray<SentPacket>()
    /// Packets in flight whose keys or space went away: neither received nor lost, ascending.
    fileprivate(set) var discarded = UniqueArray<SentPacket>()
    /// For each path that has packets in `acknowledged`, the one of the largest number.
    fileprivate(set) var largestByPath = UniqueArray<SentPacket>()
    /// The largest of `acknowledged`.
    private(set) var largestNewlyAcknowledged: SentPacket?
    /// Whether any of `acknowledged` was ack-eliciting, without which the frame gives no RTT sample.
    private(set) var includesAckEliciting = false
    /// How many of `acknowledged` left with an ECN mark.
    private(set) var ecnMarkedCount = 0
    /// How many packets were acknowledged after all that had been declared lost before.
    var spuriousLossCount = 0

    init() {}

    /// Forgets everything and keeps the memory.
    mutating func reset() {
        acknowledged.removeAll(keepingCapacity: true)
        lost.removeAll(keepingCapacity: true)
        discarded.removeAll(keepingCapacity: true)
        largestByPath.removeAll(keepingCapacity: true)
        largestNewlyAcknowledged = nil
        includesAckEliciting = false
        ecnMarkedCount = 0
        spuriousLossCount = 0
    }

    /// Gives the memory back. Only after `reset`.
    mutating func releaseMemory() { self = AckOutcome() }

    /// The RTT sample that a frame gives which acknowledges up to `largest`, and the path to which it belongs: that of
    /// the largest packet, if it is newly acknowledged and any packet was ack-eliciting (RFC 9002, section 5.1).
    func rttSample(largest: PacketNumber, now: Instant) -> (path: PathID, sample: Nanoseconds)? {
        guard includesAckEliciting, let packet = largestNewlyAcknowledged, packet.number == largest else { return nil }
        return (packet.path, now - packet.timeSent)
    }

    mutating func appendAcknowledged(_ packet: SentPacket) {
        acknowledged.append(packet)
        if packet.isAckEliciting { includesAckEliciting = true }
        if packet.isECNMarked { ecnMarkedCount += 1 }
        if largestNewlyAcknowledged.map({ $0.number < packet.number }) ?? true { largestNewlyAcknowledged = packet }
        var index = 0
        while index < largestByPath.count {
            if largestByPath[index].path == packet.path {
                if largestByPath[index].number < packet.number { largestByPath[index] = packet }
                return
            }
            index += 1
        }
        largestByPath.append(packet)
    }

    mutating func appendLost(_ packet: SentPacket) { lost.append(packet) }
    mutating func appendDiscarded(_ packet: SentPacket) { discarded.append(packet) }
}
