// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// What must hold in every run, whatever the network does. A simulation records a violation when one of these does not:
///
/// - each byte of each stream arrives once and in order (`ContentReader`), and nothing is left after the end (`Testbed`);
/// - no address gets more than three times what came from it before it is validated, after every datagram (M15);
/// - no packet number of application data is used twice, so no nonce is: keys change, the numbers go on (RFC 9001,
///   section 5.3);
/// - a client uses no connection ID on two paths or towards two addresses, and a server only where its client did, or had no other left
///   (M17);
/// - the bytes in flight of every path are the sum of its packets, and what a peer can fill stays within its limits (M40):
///   `QUICConnection.brokenInvariant`;
/// - deadlines that were handled give way to ones in the future, and none is left when the connection is over.
struct ConnectionBooks {
    /// What was sent to and received from one address of the peer's: the books of RFC 9000, section 8.1.
    struct Ledger {
        var received = 0
        var sent = 0
        /// The address was proved at some time. It stays so for the connection, whatever becomes of the path that proved it.
        var isValidated = false

        /// More went there than an address that is not proved may get (M15).
        var isOverdrawn: Bool { !isValidated && sent > 3 * received }
    }

    var ledgers: [NetworkAddress: Ledger] = [:]
    /// By connection ID of the peer's, the address of the path on which it was first used: for a client its own, for a
    /// server the client's.
    var addressByDestinationID: [ConnectionID: NetworkAddress] = [:]
    /// Of a client, the server's address to which each was first used.
    var remoteByDestinationID: [ConnectionID: NetworkAddress] = [:]
    var sharedDestinationIDCount = 0
    /// Our ID in the handshake.
    var firstLocalID: ConnectionID?
    /// The addresses at which the peer was. Others may be an attacker's, whom a server cannot tell from a NAT.
    var genuineSources: Set<NetworkAddress> = []
    /// By connection ID of ours, the addresses from which the peer sent to it; all of the handshake's as one, of no length.
    var sourcesByLocalID: [ConnectionID: Set<NetworkAddress>] = [:]
    var highestNumberSent: UInt64?
    /// Deadlines handled one after the other, each of which left one that was due.
    var deadlinesInARow = 0

    mutating func noteReceived(_ datagram: SimulatedDatagram, idLength: Int, on record: ConnectionRecord) {
        record.datagramsReceived += 1
        record.bytesReceived += datagram.payload.count
        guard record.role == .server else { return }
        ledgers[datagram.source, default: .init()].received += datagram.payload.count
        if record.handshakeConfirmedAt == nil, datagram.containsHandshakePacket {
            ledgers[datagram.source]?.isValidated = true
        }
        guard !datagram.isInjected else { return }
        genuineSources.insert(datagram.source)
        if let id = localID(of: datagram, idLength: idLength) {
            sourcesByLocalID[id, default: []].insert(datagram.source)
        }
    }

    /// The ID of ours that a datagram came to. In the handshake that is the first, or what the client made up in its place.
    private func localID(of datagram: SimulatedDatagram, idLength: Int) -> ConnectionID? {
        if datagram.hasLongHeader { return .empty }
        let id = datagram.shortHeaderDestinationID(length: idLength)
        return id == firstLocalID ? .empty : id
    }

    /// Whether the peer was at both addresses, and never sent from both to one ID of ours, which would link them itself.
    func peerKeptApart(_ first: NetworkAddress, _ second: NetworkAddress) -> Bool {
        guard genuineSources.contains(first), genuineSources.contains(second) else { return false }
        return !sourcesByLocalID.values.contains { $0.contains(first) && $0.contains(second) }
    }
}

extension SimulatedEndpoint {
    /// So many deadlines may be handled at one instant: the loss timer's, the probe timeout's, a path's.
    private static let deadlineLimit = 3

    /// Looks at a datagram that is about to be sent.
    func checkSent(
        _ datagram: SimulatedDatagram, of connection: inout QUICConnection, _ record: ConnectionRecord
    ) {
        if record.role == .server { checkAmplification(datagram, of: connection, record) }
        if record.books.firstLocalID == nil, let source = datagram.longHeaderIDs?.source {
            record.books.firstLocalID = ConnectionID(source)
        }
        checkConnectionID(datagram, of: &connection, record)
        checkPacketNumber(datagram, of: &connection, record)
    }

    /// Which path proved an address does not matter: a server with two addresses has two paths to each of the client's.
    private func checkAmplification(
        _ datagram: SimulatedDatagram, of connection: borrowing QUICConnection, _ record: ConnectionRecord
    ) {
        let remote = datagram.destination
        var ledger = record.books.ledgers[remote] ?? .init()
        ledger.sent += datagram.payload.count
        if ledger.isOverdrawn {
            ledger.isValidated = connection.pathSnapshots().contains {
                $0.tuple.remote == remote && $0.state == .validated
            }
            if !ledger.isValidated {
                network.journal.violation(
                    "\(name): sent \(ledger.sent) bytes to \(remote), which is not validated and sent "
                        + "\(ledger.received) (M15)")
            }
        }
        record.books.ledgers[remote] = ledger
    }

    /// RFC 9000, section 9.5. A server whose client is behind a NAT that rebinds goes on under the ID that it used; with no
    /// unused ID left it has no choice (decision 0005).
    private func checkConnectionID(
        _ datagram: SimulatedDatagram, of connection: inout QUICConnection, _ record: ConnectionRecord
    ) {
        // In the handshake IDs are visible to all, and change without a move.
        guard connection.isHandshakeComplete,
            let id = datagram.shortHeaderDestinationID(length: peerConnectionIDLength)
        else { return }
        let address = record.role == .client ? datagram.source : datagram.destination
        if record.role == .client {
            let first = record.books.remoteByDestinationID[id] ?? datagram.destination
            record.books.remoteByDestinationID[id] = first
            if first != datagram.destination {
                network.journal.violation(
                    "\(name): connection ID \(id) was used towards \(first) and \(datagram.destination) (M17)")
            }
        }
        guard let first = record.books.addressByDestinationID[id] else {
            record.books.addressByDestinationID[id] = address
            return
        }
        guard first != address else { return }
        record.books.sharedDestinationIDCount += 1
        if record.role == .client {
            network.journal.violation("\(name): connection ID \(id) was used from \(first) and from \(address) (M17)")
        } else if record.books.peerKeptApart(first, address), connection.unusedPeerConnectionIDs > 0 {
            network.journal.violation(
                "\(name): connection ID \(id) was used to \(first) and to \(address), which the client did not link (M17)"
            )
        }
    }

    private func checkPacketNumber(
        _ datagram: SimulatedDatagram, of connection: inout QUICConnection, _ record: ConnectionRecord
    ) {
        guard !datagram.hasLongHeader,
            let number = connection.sealedPacketNumber(
                of: datagram.payload, connectionIDLength: peerConnectionIDLength)
        else { return }
        if let highest = record.books.highestNumberSent, number <= highest {
            network.journal.violation("\(name): packet number \(number) was used after \(highest)")
        }
        record.books.highestNumberSent = number
    }

    /// Looks at a connection that has had its turn.
    func inspect(
        _ connection: inout QUICConnection, _ record: ConnectionRecord, deadlineExpired: Bool, now: Instant
    ) {
        if let rule = connection.brokenInvariant() { network.journal.violation("\(name): \(rule)") }
        // One may lead to another: what the loss timer finds lost was also what the probe timeout waited for.
        if deadlineExpired, let deadline = connection.nextDeadline, deadline <= now {
            record.books.deadlinesInARow += 1
            if record.books.deadlinesInARow > Self.deadlineLimit {
                network.journal.violation(
                    "\(name): a deadline \((now - deadline).inMicroseconds) µs ago is still there after it was handled")
            }
        } else {
            record.books.deadlinesInARow = 0
        }
        record.mostPaths = max(record.mostPaths, connection.pathCount)
    }
}
