// SPDX-License-Identifier: Apache-2.0

/// A packet number space: the packets sent in it that are not resolved yet, and those received.
///
/// What a caller does with an ACK frame, in this order:
///
/// 1. `beginAck(largest:)`, then `acknowledge(range:outcome:)` for each range;
/// 2. `PathRecovery.acknowledgementReceived` of every path: RTT and loss limits move;
/// 3. `detectLoss(now:limits:outcome:)`;
/// 4. `PathRecovery.apply` of every path: bytes in flight and congestion control;
/// 5. the frames of `outcome.acknowledged`, `lost` and `discarded`, by `frame(at:)`;
/// 6. `releaseResolved()` and `outcome.reset()`, before the next packet is sent.
///
/// In-flight packets leave exactly once: in `acknowledged`, in `lost` or in `discarded`.
struct PacketNumberSpace: ~Copyable {
    /// kPacketThreshold (RFC 9002, section 6.1.1).
    static let packetThreshold = 3
    /// How many records are kept of packets that are not in flight. A peer that has nothing to acknowledge may never
    /// acknowledge our ACKs, and a receiver sends little else.
    static let maximumUntrackedTail = 128
    /// A packet that so many later numbers have overtaken counts as lost whatever path it took, so that one packet on
    /// a dead path can hold neither memory nor time. Raised to four times the packets in flight.
    static let overtakenLimit = 1 << 14
    /// How many paths `detectLoss` tells apart; packets of others are judged against the whole space.
    static let maximumLimits = 16

    let id: PacketNumberSpaceID
    /// The packets received, and when to acknowledge them.
    var received: ReceivedPackets
    /// The largest number that the peer has acknowledged.
    private(set) var largestAcknowledged: PacketNumber?
    /// The path on which that packet was sent.
    private var largestAcknowledgedPath: PathID?
    /// When `detectLoss` has to be called again, if nothing else happens.
    private(set) var lossTime: Instant?
    private(set) var timeOfLastAckElicitingSent: Instant?
    /// How many ack-eliciting packets are outstanding.
    private(set) var ackElicitingInFlight = 0
    /// How many packets in flight are outstanding, ack-eliciting or not.
    private(set) var packetsInFlight = 0

    private var packets = SequencedRing(placeholder: SentPacket.placeholder)
    private var frames = SequencedRing(placeholder: SentFrame.ping)
    /// Where the frames of the packet being built start.
    private var currentFirstFrame: UInt64 = 0
    /// The numbers last skipped; `PacketNumber.max` where there is none. They are remembered when their records are gone.
    private var recentlySkipped = InlineArray<4, PacketNumber>(repeating: .max)
    private var skippedCount = 0

    init(id: PacketNumberSpaceID) {
        self.id = id
        self.received = ReceivedPackets(acknowledgesAtOnce: id != .application)
    }

    // MARK: Sending

    /// The number that the next packet gets.
    var nextPacketNumber: PacketNumber { packets.end }

    /// Leaves a gap in the numbers. A peer that acknowledges it acknowledges what it has not seen (RFC 9000, section 21.4).
    mutating func skipPacketNumber() {
        recentlySkipped[skippedCount % recentlySkipped.count] = nextPacketNumber
        skippedCount &+= 1
        var record = SentPacket.placeholder
        record.number = nextPacketNumber
        record.firstFrame = currentFirstFrame
        packets.append(record)
    }

    /// Notes a frame of the packet being built.
    mutating func logFrame(_ frame: SentFrame) { frames.append(frame) }

    /// How many frames the packet being built has so far.
    var framesLogged: Int { Int(truncatingIfNeeded: frames.end &- currentFirstFrame) }

    /// The frame of that ordinal, from 0 to `framesLogged` - 1, of the packet being built.
    func loggedFrame(_ ordinal: Int) -> SentFrame { frames[currentFirstFrame &+ UInt64(ordinal)] }

    /// Forgets the frames of the packet being built, which is dropped. The caller has read them by `loggedFrame` and has
    /// marked what they name to be sent again.
    mutating func abandonFrames() { frames.removeLast(from: currentFirstFrame) }

    /// Records the packet that was built: it takes the next number and the frames logged.
    ///
    /// - Parameters:
    ///   - size: bytes of UDP payload that the packet takes, header and tag included.
    @discardableResult
    mutating func packetSent(
        time: Instant, path: PathID, size: Int, isAckEliciting: Bool, isInFlight: Bool, isMTUProbe: Bool = false,
        isAppLimited: Bool = false, isECNMarked: Bool = false
    ) -> PacketNumber {
        assert(isInFlight || !isAckEliciting, "ack-eliciting packets are in flight")
        let number = nextPacketNumber
        var flags: SentPacket.Flags = []
        if isAckEliciting { flags.insert(.ackEliciting) }
        if isInFlight { flags.insert(.inFlight) }
        if isMTUProbe { flags.insert(.mtuProbe) }
        if isAppLimited { flags.insert(.appLimited) }
        if isECNMarked { flags.insert(.ecnMarked) }
        packets.append(
            SentPacket(
                number: number, timeSent: time, firstFrame: currentFirstFrame, path: path,
                size: UInt16(clamping: size), frameCount: UInt16(clamping: framesLogged), flags: flags,
                state: .outstanding))
        currentFirstFrame = frames.end
        if isInFlight { packetsInFlight += 1 }
        if isAckEliciting {
            ackElicitingInFlight += 1
            timeOfLastAckElicitingSent = time
        }
        if packets.count > Self.maximumUntrackedTail { releaseResolved() }
        // Too long a tail behind one unresolved packet: have `detectLoss` called to cut it.
        if packets.count > overtakenLimit { lossTime = min(lossTime ?? time, time) }
        return number
    }

    private var overtakenLimit: Int { max(Self.overtakenLimit, 4 * packetsInFlight) }

    // MARK: Looking at what was sent

    /// The frame at an index of the log. The frames of a packet are `firstFrame ..< firstFrame + frameCount`; they can be
    /// read until `releaseResolved`.
    func frame(at index: UInt64) -> SentFrame { frames[index] }

    /// The record of a packet that is neither acknowledged nor lost.
    func outstandingPacket(_ number: PacketNumber) -> SentPacket? {
        guard packets.contains(number), packets[number].state == .outstanding else { return nil }
        return packets[number]
    }

    /// The oldest packet in flight that is neither acknowledged nor lost.
    var firstOutstanding: PacketNumber? { outstanding(from: packets.start) }

    /// The packet in flight after `number` that is neither acknowledged nor lost.
    func nextOutstanding(after number: PacketNumber) -> PacketNumber? { outstanding(from: number &+ 1) }

    private func outstanding(from number: PacketNumber) -> PacketNumber? {
        guard packetsInFlight > 0 else { return nil }
        var number = max(number, packets.start)
        while number < packets.end {
            if packets[number].state == .outstanding, packets[number].isInFlight { return number }
            number &+= 1
        }
        return nil
    }

    // MARK: Acknowledgements

    /// Starts on an ACK frame.
    ///
    /// - Throws: PROTOCOL_VIOLATION if the packet was never sent (RFC 9000, section 13.1).
    mutating func beginAck(largest: PacketNumber) throws(TransportError) {
        guard largest < nextPacketNumber else { throw Self.neverSent(largest) }
        if largestAcknowledged.map({ $0 < largest }) ?? true { largestAcknowledged = largest }
    }

    /// Resolves the packets of a range of an ACK frame. Those already acknowledged, declared lost or forgotten are passed
    /// over.
    ///
    /// - Throws: PROTOCOL_VIOLATION if the range holds a number that was never sent.
    /// - Complexity: O(records kept within the range), whatever the size of the range.
    mutating func acknowledge(
        range: ClosedRange<PacketNumber>, outcome: inout AckOutcome
    ) throws(TransportError) {
        guard range.upperBound < nextPacketNumber else { throw Self.neverSent(range.upperBound) }
        for index in recentlySkipped.indices where range.contains(recentlySkipped[index]) {
            throw Self.neverSent(recentlySkipped[index])
        }
        var number = max(range.lowerBound, packets.start)
        while number <= range.upperBound {
            switch packets[number].state {
            case .outstanding:
                packets[number].state = .acknowledged
                let packet = packets[number]
                leaveFlight(packet)
                if number == largestAcknowledged { largestAcknowledgedPath = packet.path }
                outcome.appendAcknowledged(packet)
            case .acknowledged:
                break
            case .abandoned:
                // It stays abandoned: what it carried may have been sent again. It did arrive, though, and must count
                // as such for persistent congestion.
                packets[number].state = .acknowledged
                if packets[number].isInFlight { outcome.spuriousLossCount += 1 }
            case .skipped:
                throw Self.neverSent(number)
            }
            number &+= 1
        }
    }

    private static func neverSent(_ number: PacketNumber) -> TransportError {
        TransportError(
            .protocolViolation, frameType: FrameType.ack, "acknowledges packet \(number), which was never sent")
    }

    private mutating func leaveFlight(_ packet: SentPacket) {
        if packet.isInFlight { packetsInFlight -= 1 }
        if packet.isAckEliciting { ackElicitingInFlight -= 1 }
    }

    // MARK: Loss

    /// Declares packets lost, by the packet and the time threshold (RFC 9002, section 6.1), and sets `lossTime`.
    ///
    /// Packets are held against later ones of the same path: a path that is shorter than another must not make it look
    /// lossy. A path on which nothing later was acknowledged, as one that was just left, may be dead, though: once later
    /// packets of another path are acknowledged, its packets are lost by time alone, after the longer delay of the two.
    /// A packet of a path that is not in `limits` is judged against the whole space.
    ///
    /// - Complexity: O(records kept up to the largest acknowledged).
    mutating func detectLoss(now: Instant, limits: Span<PathLossLimit>, outcome: inout AckOutcome) {
        lossTime = nil
        let limitCount = min(limits.count, Self.maximumLimits)
        // Of each path: packets up to this number are lost by the packet threshold.
        var thresholds = InlineArray<16, PacketNumber?>(repeating: nil)
        var longestDelay: Nanoseconds?
        var leadingDelay = Nanoseconds.zero
        for index in 0..<limitCount {
            longestDelay = max(longestDelay ?? .zero, limits[index].lossDelay)
            if limits[index].path == largestAcknowledgedPath { leadingDelay = limits[index].lossDelay }
            guard let largest = limits[index].largestAcknowledged else { continue }
            thresholds[index] = packetThreshold(path: limits[index].path, largest: largest)
        }
        let fallback = PathLossLimit(
            path: PathID(.max), largestAcknowledged: largestAcknowledged,
            lossDelay: longestDelay ?? RTTEstimator().lossDelay)

        let tail = UInt64(overtakenLimit)
        let overtaken = packets.end &- packets.start > tail ? packets.end &- tail : packets.start
        let end = max(overtaken, min(largestAcknowledged ?? 0, packets.end))
        // A bit for each limit, the last for the fallback: a packet of the path was acknowledged since its last loss.
        var acknowledgedSinceLoss: UInt32 = 0
        var number = packets.start
        while number < end {
            defer { number &+= 1 }
            let state = packets[number].state
            if state == .skipped || (state != .outstanding && outcome.lost.isEmpty) { continue }
            let path = packets[number].path
            var index = 0
            while index < limitCount, limits[index].path != path { index += 1 }
            let isKnown = index < limitCount
            let bit: UInt32 = 1 << UInt32(index)
            guard state == .outstanding else {
                if state == .acknowledged { acknowledgedSinceLoss |= bit }
                continue
            }
            let limit = isKnown ? limits[index] : fallback
            let isBehindOwnPath = limit.largestAcknowledged.map { number < $0 } ?? false
            if number >= overtaken {
                let isReordered: Bool
                if !isBehindOwnPath {
                    isReordered = false
                } else if isKnown {
                    isReordered = thresholds[index].map { number <= $0 } ?? false
                } else {
                    isReordered = (largestAcknowledged ?? number) &- number >= UInt64(Self.packetThreshold)
                }
                let delay = isBehindOwnPath ? limit.lossDelay : max(limit.lossDelay, leadingDelay)
                let timeSent = packets[number].timeSent
                if !isReordered, timeSent > now - delay {
                    if packets[number].isInFlight {
                        let time = timeSent + delay
                        lossTime = min(lossTime ?? time, time)
                    }
                    continue
                }
            }
            if !isBehindOwnPath { packets[number].flags.insert(.overdue) }
            if acknowledgedSinceLoss & bit != 0 { packets[number].flags.insert(.followsAcknowledged) }
            acknowledgedSinceLoss &= ~bit
            lose(number, outcome: &outcome)
        }
    }

    /// Declares all outstanding packets of a path lost: the path is gone. Nothing is said about congestion.
    mutating func declareLost(path: PathID, outcome: inout AckOutcome) {
        var number = packets.start
        while number < packets.end {
            if packets[number].state == .outstanding, packets[number].path == path {
                packets[number].flags.insert(.overdue)
                lose(number, outcome: &outcome)
            }
            number &+= 1
        }
    }

    /// The number of the third packet of the path before its largest acknowledged, among the records kept. Counting
    /// packets rather than numbers keeps packets of other paths and skipped numbers from making a path look reordered.
    private func packetThreshold(path: PathID, largest: PacketNumber) -> PacketNumber? {
        var number = min(largest, packets.end)
        var count = 0
        while number > packets.start {
            number -= 1
            guard packets[number].path == path, packets[number].state != .skipped else { continue }
            count += 1
            if count == Self.packetThreshold { return number }
        }
        return nil
    }

    /// Packets that are not in flight go without a word: nothing in them is sent again (RFC 9002, section 6.1).
    private mutating func lose(_ number: PacketNumber, outcome: inout AckOutcome) {
        packets[number].state = .abandoned
        let packet = packets[number]
        leaveFlight(packet)
        if packet.isInFlight { outcome.appendLost(packet) }
    }

    // MARK: Letting go

    /// Frees the records of resolved packets at the front, and their frames with them. Call it once the outcome was
    /// processed.
    mutating func releaseResolved() {
        var number = packets.start
        while number < packets.end {
            let isKept =
                packets[number].state == .outstanding
                && (packets[number].isInFlight || packets.end &- number <= UInt64(Self.maximumUntrackedTail))
            if isKept { break }
            number &+= 1
        }
        guard number != packets.start else { return }
        packets.removeFirst(until: number)
        frames.removeFirst(until: packets.isEmpty ? currentFirstFrame : packets[number].firstFrame)
    }

    /// Gives back the memory of the records if nothing is in flight. An acknowledgement of packets that nobody waits for,
    /// which may come late or never, is no news then.
    mutating func releaseIdleMemory() {
        guard packetsInFlight == 0 else { return }
        packets.removeFirst(until: packets.end)
        frames.removeFirst(until: currentFirstFrame)
        packets.releaseMemory()
        frames.releaseMemory()
    }

    /// Takes all outstanding packets out: the keys of the space were discarded, 0-RTT was rejected, or a Retry came
    /// (RFC 9002, section 6.4). Those in flight go to `outcome.discarded`.
    mutating func removeAll(outcome: inout AckOutcome) {
        var number = packets.start
        while number < packets.end {
            if packets[number].state == .outstanding {
                packets[number].state = .abandoned
                let packet = packets[number]
                leaveFlight(packet)
                if packet.isInFlight { outcome.appendDiscarded(packet) }
            }
            number &+= 1
        }
        lossTime = nil
        timeOfLastAckElicitingSent = nil
    }

    /// Gives back the memory of a space in which nothing is outstanding: it was discarded, or the connection is idle.
    mutating func releaseMemory() {
        releaseResolved()
        packets.releaseMemory()
        frames.releaseMemory()
    }
}

/// How the packets of one path in one space are judged. The caller keeps it for each path and space.
struct PathLossLimit {
    var path: PathID
    /// The largest packet number acknowledged of those sent on the path.
    var largestAcknowledged: PacketNumber?
    /// The time threshold (`RTTEstimator.lossDelay`).
    var lossDelay: Nanoseconds
}
