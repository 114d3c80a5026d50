// SPDX-License-Identifier: Apache-2.0

/// The connection IDs that we issued: the peer puts them into the packets it sends us (RFC 9000, section 5.1.1).
struct LocalConnectionIDs: ~Copyable {
    /// How many of our IDs the peer may hold unretired at once, whatever more it would allow.
    static let maximumActive = 8
    /// Retired IDs that are still routed, for packets that were overtaken by the retirement.
    static let maximumLingering = 32

    struct Entry {
        var sequence: UInt64
        var id: ConnectionID
        var resetToken: StatelessResetToken
    }

    private(set) var active: [Entry] = []
    private var lingering: [(entry: Entry, until: Instant)] = []
    private var nextSequence: UInt64 = 0
    /// How many the peer is willing to hold: its active_connection_id_limit.
    private var peerLimit = 2
    /// Sequence numbers whose NEW_CONNECTION_ID frame is to be sent, for the first time or again.
    private(set) var pendingAnnouncements: [UInt64] = []
    /// We use zero-length IDs: there is nothing to issue.
    let usesEmptyID: Bool

    /// - Parameters:
    ///   - handshakeID: the source connection ID of our first packets, sequence number 0.
    init(handshakeID: ConnectionID, resetToken: StatelessResetToken) {
        usesEmptyID = handshakeID.length == 0
        active.append(Entry(sequence: 0, id: handshakeID, resetToken: resetToken))
        nextSequence = 1
    }

    /// The ID that goes with the preferred address has sequence number 1; no frame announces it (RFC 9000, section 5.1.1).
    mutating func issueWithPreferredAddress(_ id: ConnectionID, resetToken: StatelessResetToken) {
        guard nextSequence == 1, !usesEmptyID else { return }
        active.append(Entry(sequence: 1, id: id, resetToken: resetToken))
        nextSequence = 2
    }

    mutating func setPeerLimit(_ limit: UInt64) {
        peerLimit = Int(min(limit, UInt64(Self.maximumActive)))
    }

    /// How many IDs may be issued now.
    var deficit: Int { usesEmptyID ? 0 : max(0, peerLimit - active.count) }

    /// Takes an ID into use and queues its announcement.
    mutating func issue(_ id: ConnectionID, resetToken: StatelessResetToken) {
        active.append(Entry(sequence: nextSequence, id: id, resetToken: resetToken))
        pendingAnnouncements.append(nextSequence)
        nextSequence += 1
    }

    /// The frame of a pending announcement; nil if the peer retired the ID meanwhile.
    func announcement(_ sequence: UInt64) -> NewConnectionIDFrame? {
        guard let entry = active.first(where: { $0.sequence == sequence }) else { return nil }
        return NewConnectionIDFrame(
            sequence: sequence, retirePriorTo: 0, connectionID: entry.id, resetToken: entry.resetToken)
    }

    mutating func announcementSent() {
        pendingAnnouncements.removeFirst()
        if pendingAnnouncements.isEmpty { pendingAnnouncements = [] }
    }

    mutating func announcementLost(_ sequence: UInt64) {
        guard active.contains(where: { $0.sequence == sequence }), !pendingAnnouncements.contains(sequence) else {
            return
        }
        pendingAnnouncements.append(sequence)
    }

    /// The peer retires an ID (RFC 9000, section 19.16). It stays routed until `lingerUntil`.
    ///
    /// - Returns: IDs that are no longer to be routed: the oldest of those that lingered.
    mutating func retire(
        sequence: UInt64, usedByPacket packetID: ConnectionID, now: Instant, lingerUntil: Instant
    ) throws(TransportError) -> [ConnectionID] {
        guard sequence < nextSequence else {
            throw TransportError(
                .protocolViolation, frameType: FrameType.retireConnectionID,
                "a connection ID was retired that was never issued")
        }
        guard !usesEmptyID else {
            throw TransportError(
                .protocolViolation, frameType: FrameType.retireConnectionID,
                "our connection ID has no bytes to be retired")
        }
        guard let index = active.firstIndex(where: { $0.sequence == sequence }) else { return [] }
        guard active[index].id != packetID else {
            throw TransportError(
                .protocolViolation, frameType: FrameType.retireConnectionID,
                "a connection ID was retired by a packet that was sent to it")
        }
        lingering.append((active.remove(at: index), lingerUntil))
        pendingAnnouncements.removeAll { $0 == sequence }
        return removeExpired(now: now)
    }

    private mutating func removeExpired(now: Instant) -> [ConnectionID] {
        var removed: [ConnectionID] = []
        while let first = lingering.first, first.until <= now || lingering.count > Self.maximumLingering {
            removed.append(first.entry.id)
            lingering.removeFirst()
        }
        return removed
    }

    /// The sequence number of one of our IDs, in use or retired of late.
    func sequence(of id: ConnectionID) -> UInt64? {
        active.first { $0.id == id }?.sequence ?? lingering.first { $0.entry.id == id }?.entry.sequence
    }

    /// The ID with a sequence number, unless the peer has retired it.
    func id(of sequence: UInt64) -> ConnectionID? {
        active.first { $0.sequence == sequence }?.id
    }

    /// Whether an ID with this sequence number has been retired by the peer.
    func isRetired(_ sequence: UInt64) -> Bool {
        sequence < nextSequence && !active.contains { $0.sequence == sequence }
    }

    /// Every ID that packets may still come to.
    var allRouted: [ConnectionID] { active.map(\.id) + lingering.map(\.entry.id) }
}
