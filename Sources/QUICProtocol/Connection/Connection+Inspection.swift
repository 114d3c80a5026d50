// SPDX-License-Identifier: Apache-2.0

/// For simulations, which look inside: what must hold between any two calls. Nothing in the engine calls it.
extension QUICConnection {
    /// The first of the engine's own rules that does not hold, in words; nil when all do.
    ///
    /// - Complexity: O(packets in flight).
    package func brokenInvariant() -> String? {
        guard isOpen() else { return nil }
        return brokenFlightBooks() ?? brokenLimit() ?? brokenIdentifiers()
    }

    /// The bytes in flight that each path counts are the sum of its packets that are outstanding.
    private func brokenFlightBooks() -> String? {
        var bytes: [PathID: Int] = [:]
        var ackEliciting: [PathID: Int] = [:]
        for space in PacketNumberSpaceID.allCases
        where spaces.has(space) && (space != .initial || spaces.hasHandshakeSpaces) {
            var counted = (packets: 0, ackEliciting: 0)
            var next = spaces[space].firstOutstanding
            while let number = next {
                next = spaces[space].nextOutstanding(after: number)
                guard let packet = spaces[space].outstandingPacket(number) else { continue }
                counted.packets += 1
                bytes[packet.path, default: 0] += Int(packet.size)
                if packet.isAckEliciting {
                    counted.ackEliciting += 1
                    ackEliciting[packet.path, default: 0] += 1
                }
            }
            if counted.packets != spaces[space].packetsInFlight
                || counted.ackEliciting != spaces[space].ackElicitingInFlight
            {
                return "space \(space) counts \(spaces[space].packetsInFlight) packets in flight, "
                    + "\(spaces[space].ackElicitingInFlight) ack-eliciting, and has \(counted)"
            }
        }
        for index in 0..<paths.count {
            let id = paths[index].id
            if paths[index].recovery.bytesInFlight != bytes[id, default: 0]
                || paths[index].recovery.ackElicitingInFlight != ackEliciting[id, default: 0]
            {
                return "\(id) counts \(paths[index].recovery.bytesInFlight) bytes in flight in "
                    + "\(paths[index].recovery.ackElicitingInFlight) ack-eliciting packets, and its packets are "
                    + "\(bytes[id, default: 0]) bytes in \(ackEliciting[id, default: 0])"
            }
        }
        return nil
    }

    /// What a peer can fill stays within its limits (M40).
    private func brokenLimit() -> String? {
        func over(_ count: Int, _ limit: Int, _ what: String) -> String? {
            count > limit ? "\(count) \(what), of \(limit) at most (M40)" : nil
        }
        return over(paths.count, PathTable.maximumPaths, "paths")
            ?? over(localIDs.active.count, LocalConnectionIDs.maximumActive, "connection IDs issued")
            ?? over(
                localIDs.allRouted.count, LocalConnectionIDs.maximumActive + LocalConnectionIDs.maximumLingering,
                "connection IDs routed")
            ?? over(remoteIDs.entries.count, 8, "connection IDs of the peer's")
            ?? over(
                remoteIDs.pendingRetirements.count, RemoteConnectionIDs.maximumUnacknowledgedRetirements,
                "retirements to be sent")
            ?? over(handshake.undecryptable.count, HandshakeState.maximumUndecryptable, "datagrams kept for later keys")
            ?? over(events.count, 4 * 1_024, "events that nobody took")
    }

    /// Each path sends under the ID that the table of IDs has for it.
    private func brokenIdentifiers() -> String? {
        for index in 0..<paths.count {
            guard let id = paths[index].destinationID else { continue }
            let known = remoteIDs.id(of: paths[index].id)
            if known != id {
                return "\(paths[index].id) sends under \(id), which is not its own: \(known.map { "\($0)" } ?? "none")"
            }
        }
        return nil
    }

    package var pathCount: Int { paths.count }

    /// IDs of the peer's that no path has used yet.
    package var unusedPeerConnectionIDs: Int { remoteIDs.unusedCount }

    /// The number of a 1-RTT packet that was just sealed, read back from its protected header.
    ///
    /// - Returns: nil if the bytes are no such packet.
    package func sealedPacketNumber(of datagram: [UInt8], connectionIDLength: Int) -> UInt64? {
        guard let first = datagram.first, first & 0x80 == 0 else { return nil }
        return protection.sealedPacketNumber(
            of: datagram, packetNumberOffset: 1 + connectionIDLength, expected: spaces.application.nextPacketNumber)
    }
}

extension PacketNumberSpaces {
    /// Once the handshake is over one vacant space stands for both of its own.
    fileprivate var hasHandshakeSpaces: Bool { !isHandshakeOver }
}

extension QUICEndpoint {
    /// Whether a datagram's destination connection ID is one that a connection here issued.
    package func hasRoute(for datagram: [UInt8]) -> Bool {
        let header = datagram.withUnsafeBytes { bytes in
            PacketHeader.parse(
                RawSpan(_unsafeBytes: bytes), at: 0, shortHeaderConnectionIDLength: connectionIDLength)
        }
        return switch header {
        case .short(let short): isRouted(short.dcid)
        case .long(let long): isRouted(long.dcid)
        default: false
        }
    }
}
