// SPDX-License-Identifier: Apache-2.0

/// The connection IDs that the peer issued: we put them into the packets we send it (RFC 9000, section 5.1.2).
///
/// Each ID is in use on one path, so that nobody on two networks can tell that both carry one connection; but a peer that
/// was moved by a NAT, and so kept the ID it sends to, may be answered under the same ID on both paths.
struct RemoteConnectionIDs: ~Copyable {
    /// RETIRE_CONNECTION_ID frames sent and unacknowledged, or waiting to be sent. More of them only a peer causes that
    /// issues and revokes without end (RFC 9000, section 19.15).
    static let maximumUnacknowledgedRetirements = 64

    struct Entry {
        var sequence: UInt64
        var id: ConnectionID
        var resetToken: StatelessResetToken?
        /// The paths that send under it; none if it was never used.
        var paths: [PathID]

        var isUsed: Bool { !paths.isEmpty }
    }

    private(set) var entries: [Entry] = []
    private var seen = SequenceSet()
    private var retirePriorTo: UInt64 = 0
    /// What we advertised as active_connection_id_limit.
    private let limit: Int
    private(set) var pendingRetirements: [UInt64] = []
    /// Retired by us; the peer has not acknowledged it yet.
    private var unacknowledgedRetirements: [UInt64] = []
    /// Tokens of IDs that came into use or went out of it since the endpoint asked.
    private(set) var tokenChanges: [(token: StatelessResetToken, isActive: Bool)] = []

    init(limit: Int, initialID: ConnectionID, path: PathID) {
        self.limit = max(2, limit)
        entries.append(Entry(sequence: 0, id: initialID, resetToken: nil, paths: [path]))
        _ = seen.insert(0)
    }

    /// The peer uses zero-length IDs: one for all paths, and no more can come.
    var usesEmptyID: Bool { entries.first.map { $0.sequence == 0 && $0.id.length == 0 } ?? false }
    var unusedCount: Int { entries.count { !$0.isUsed } }

    /// The ID of the peer's first packet replaces the one that the client made up (RFC 9000, section 7.2).
    mutating func replaceInitialID(with id: ConnectionID) {
        guard let index = entries.firstIndex(where: { $0.sequence == 0 }) else { return }
        entries[index].id = id
    }

    /// The token of the ID with sequence number 0, from the transport parameters.
    mutating func setInitialToken(_ token: StatelessResetToken) {
        guard let index = entries.firstIndex(where: { $0.sequence == 0 }) else { return }
        entries[index].resetToken = token
        if entries[index].isUsed { tokenChanges.append((token, true)) }
    }

    /// Takes in a NEW_CONNECTION_ID frame (RFC 9000, section 19.15).
    ///
    /// - Returns: paths whose ID the peer revoked: they need another.
    mutating func receive(_ frame: NewConnectionIDFrame) throws(TransportError) -> [PathID] {
        func violation(_ code: TransportErrorCode, _ reason: String) -> TransportError {
            TransportError(code, frameType: FrameType.newConnectionID, reason)
        }
        guard !usesEmptyID else { throw violation(.protocolViolation, "the peer uses zero-length connection IDs") }
        if seen.contains(frame.sequence) {
            if let known = entries.first(where: { $0.sequence == frame.sequence }),
                known.id != frame.connectionID || (known.resetToken.map { $0 != frame.resetToken } ?? false)
            {
                throw violation(.protocolViolation, "a sequence number was used for two connection IDs")
            }
        } else {
            guard !entries.contains(where: { $0.id == frame.connectionID }) else {
                throw violation(.protocolViolation, "a connection ID was issued under two sequence numbers")
            }
            guard seen.insert(frame.sequence) else {
                throw violation(.connectionIDLimitError, "the sequence numbers of connection IDs leave too many gaps")
            }
            if frame.sequence < retirePriorTo {
                try queueRetirement(frame.sequence)
            } else {
                entries.append(
                    Entry(
                        sequence: frame.sequence, id: frame.connectionID, resetToken: frame.resetToken, paths: []))
            }
        }
        var bereft: [PathID] = []
        if frame.retirePriorTo > retirePriorTo {
            retirePriorTo = frame.retirePriorTo
            for entry in entries where entry.sequence < retirePriorTo {
                bereft += entry.paths
                try retire(entry)
            }
            entries.removeAll { $0.sequence < retirePriorTo }
        }
        guard !entries.isEmpty else { throw violation(.protocolViolation, "every connection ID is revoked") }
        guard entries.count <= limit else {
            throw violation(.connectionIDLimitError, "more connection IDs than the limit of \(limit)")
        }
        return bereft
    }

    /// An unused ID for a path, or the one that it has.
    mutating func take(for path: PathID) -> ConnectionID? {
        if usesEmptyID { return entries.first?.id }
        if let own = id(of: path) { return own }
        guard
            let index = entries.indices.filter({ !entries[$0].isUsed }).min(by: {
                entries[$0].sequence < entries[$1].sequence
            })
        else { return nil }
        entries[index].paths = [path]
        if let token = entries[index].resetToken { tokenChanges.append((token, true)) }
        return entries[index].id
    }

    func id(of path: PathID) -> ConnectionID? {
        usesEmptyID ? entries.first?.id : entries.first { $0.paths.contains(path) }?.id
    }

    /// A path that has no ID sends under that of another: a NAT rebinding, which the peer did not choose.
    mutating func share(from old: PathID, with new: PathID) {
        guard id(of: new) == nil, let index = entries.firstIndex(where: { $0.paths.contains(old) }) else { return }
        entries[index].paths.append(new)
    }

    /// A path is closed: its ID is retired, never to be used on another path, unless another sends under it already.
    mutating func release(_ path: PathID) throws(TransportError) {
        guard !usesEmptyID, let index = entries.firstIndex(where: { $0.paths.contains(path) }) else { return }
        if entries[index].paths.count > 1 {
            entries[index].paths.removeAll { $0 == path }
        } else {
            try retire(entries.remove(at: index))
        }
    }

    private mutating func retire(_ entry: Entry) throws(TransportError) {
        if entry.isUsed, let token = entry.resetToken { tokenChanges.append((token, false)) }
        try queueRetirement(entry.sequence)
    }

    private mutating func queueRetirement(_ sequence: UInt64) throws(TransportError) {
        guard unacknowledgedRetirements.count < Self.maximumUnacknowledgedRetirements else {
            throw TransportError(
                .connectionIDLimitError, frameType: FrameType.newConnectionID,
                "connection IDs are revoked faster than their retirement is acknowledged")
        }
        unacknowledgedRetirements.append(sequence)
        pendingRetirements.append(sequence)
    }

    mutating func retirementSent() {
        pendingRetirements.removeFirst()
    }

    mutating func retirementLost(_ sequence: UInt64) {
        guard unacknowledgedRetirements.contains(sequence), !pendingRetirements.contains(sequence) else { return }
        pendingRetirements.append(sequence)
    }

    mutating func retirementAcknowledged(_ sequence: UInt64) {
        unacknowledgedRetirements.removeAll { $0 == sequence }
    }

    mutating func takeTokenChanges() -> [(token: StatelessResetToken, isActive: Bool)] {
        defer { tokenChanges.removeAll(keepingCapacity: true) }
        return tokenChanges
    }

    /// Whether the token belongs to an ID that we send under. Every token is compared, in constant time each.
    func recognizes(_ token: StatelessResetToken) -> Bool {
        var found = false
        for entry in entries where entry.isUsed {
            if let known = entry.resetToken, known == token { found = true }
        }
        return found
    }

    /// The tokens of all IDs in use.
    var activeTokens: [StatelessResetToken] { entries.compactMap { $0.isUsed ? $0.resetToken : nil } }
}
