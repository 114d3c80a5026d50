// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// What a peer or somebody on the network may do on purpose.
@Suite("A hostile peer")
struct HostilePeerTests {
    private let victim = NetworkAddress(203, 0, 113, 77, port: 7_777)

    @Test("a client that completes its handshake from another address has not proved that address (M15)")
    func handshakeFromVictim() throws {
        let pair = try EnginePair()
        var toVictim = 0
        var fromVictim = 0
        var isMoved = false
        pair.passes = { side, bytes in
            switch side {
            case .client:
                // The first flight comes from the client's own address, everything else from the victim's.
                if pair.trace.contains(where: { $0.from == .server }), !isMoved {
                    isMoved = true
                    pair.clientAddress = self.victim
                }
                if isMoved { fromVictim += bytes.count }
                return true
            case .server:
                guard isMoved else { return true }
                toVictim += bytes.count
                // The victim answers nothing.
                return false
            }
        }
        pair.exchange()
        try pair.onServer { connection in
            let id = try connection.openStream(.unidirectional)
            try connection.write(SharedBytes(copying: [UInt8](repeating: 7, count: 500_000)), to: id, finish: true)
        }
        pair.run(for: .seconds(5))
        #expect(isMoved)
        #expect(toVictim <= 3 * fromVictim)
        try pair.onServer { verify(!$0.paths.active.isValidated) }
    }

    @Test("a path whose validation failed in an outage is proved when the peer is heard again")
    func outageAfterMove() throws {
        let pair = try EnginePair()
        pair.exchange()
        pair.run(for: .milliseconds(100))
        pair.clientAddress.port += 1
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.passes = { side, _ in side == .client }
        pair.exchange()
        pair.run(for: .seconds(6))
        try pair.onServer { verify(!$0.paths.active.isValidated) }
        pair.passes = { _, _ in true }
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.run(for: .seconds(2))
        try pair.onServer { verify($0.paths.active.isValidated) }
        _ = try pair.upload(50_000)
    }

    @Test("a peer that revokes every connection ID, the one that it gives included, is refused")
    func revokesAll() throws {
        var ids = RemoteConnectionIDs(limit: 8, initialID: ConnectionID([1, 2, 3, 4]) ?? .empty, path: PathID(0))
        func frame(_ sequence: UInt64, retirePriorTo: UInt64) -> NewConnectionIDFrame {
            NewConnectionIDFrame(
                sequence: sequence, retirePriorTo: retirePriorTo,
                connectionID: ConnectionID([9, 9, 9, UInt8(sequence)]) ?? .empty,
                resetToken: StatelessResetToken(prefixOf: [UInt8](repeating: UInt8(sequence), count: 16)))
        }
        _ = try ids.receive(frame(1, retirePriorTo: 0))
        _ = ids.take(for: PathID(1))
        try ids.release(PathID(1))
        #expect(throws: TransportError.self) { _ = try ids.receive(frame(1, retirePriorTo: 1)) }
    }

    @Test("an ID that two paths of a rebound peer share is retired when neither uses it (M17)")
    func sharedID() throws {
        var ids = RemoteConnectionIDs(limit: 2, initialID: ConnectionID([1, 2, 3, 4]) ?? .empty, path: PathID(0))
        ids.share(from: PathID(0), with: PathID(1))
        #expect(ids.id(of: PathID(1)) == ids.id(of: PathID(0)))
        try ids.release(PathID(1))
        #expect(ids.pendingRetirements.isEmpty)
        try ids.release(PathID(0))
        #expect(ids.pendingRetirements == [0])
    }

    @Test("an acknowledgement of a packet number that was left out ends the connection")
    func optimisticAcknowledgement() throws {
        var space = PacketNumberSpace(id: .application)
        space.skipPacketNumber()
        space.packetSent(time: .zero, path: PathID(0), size: 100, isAckEliciting: true, isInFlight: true)
        var outcome = AckOutcome()
        try space.beginAck(largest: 1)
        var code: TransportErrorCode?
        do { try space.acknowledge(range: 0...1, outcome: &outcome) } catch { code = error.code }
        #expect(code == .protocolViolation)
    }

    @Test("packet numbers are left out now and then, and an honest peer does not mind")
    func skippedNumbers() throws {
        let pair = try EnginePair()
        pair.exchange()
        _ = try pair.upload(2_000_000)
        try pair.onClient { connection in
            let sent = connection.statistics.packetsSent
            let numbers = connection.spaces.application.nextPacketNumber
            #expect(numbers > 0 && sent > 0)
            verify(connection.timers.skipsPacketNumberAt > 64)
        }
        #expect(pair.closeReason(.client) == nil)
    }

    @Test("a server drops Initial packets in datagrams that are not padded")
    func smallInitial() throws {
        let pair = try EnginePair()
        var isFirst = true
        pair.passes = { side, _ in
            defer { if side == .client { isFirst = false } }
            return side == .client && isFirst
        }
        pair.exchange()
        let received = try pair.onServer { $0.statistics.packetsReceived }
        guard let bytes = pair.trace.last(where: { $0.from == .client })?.bytes else { return }
        pair.inject(Array(bytes.prefix(1_199)), into: .server)
        try pair.onServer { #expect($0.statistics.packetsReceived == received) }
    }

    @Test("a copy of the client's first datagram that comes late makes no second connection")
    func lateDuplicate() throws {
        let pair = try EnginePair()
        pair.exchange()
        guard let first = pair.trace.first?.bytes else { return }
        pair.inject(first, into: .server)
        #expect(pair.serverEndpoint.connectionCount == 1)
    }

    @Test("a forged datagram to another local address of a wildcard client changes nothing (M10)")
    func wildcardClient() throws {
        let pair = try EnginePair()
        pair.exchange()
        let genuine = pair.trace.last { $0.from == .server }?.bytes ?? []
        try pair.onClient { connection in
            connection.paths.active.tuple.local = NetworkAddress(0, 0, 0, 0, port: 50_000)
            let before = connection.paths.active.tuple
            var forged = genuine
            forged[forged.count - 1] ^= 1
            var span = forged.mutableSpan
            var raw = span.mutableBytes
            let other = FourTuple(
                transport: before.transport, local: NetworkAddress(192, 0, 2, 99, port: 50_000), remote: before.remote)
            connection.receive(&raw, on: other, ecn: .notECT, now: pair.now)
            #expect(connection.paths.active.tuple == before)
        }
    }
}
