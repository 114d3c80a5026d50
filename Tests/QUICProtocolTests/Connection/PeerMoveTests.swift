// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("A peer that moves")
struct PeerMoveTests {
    private func established() throws -> EnginePair {
        let pair = try EnginePair()
        pair.exchange()
        pair.run(for: .milliseconds(100))
        return pair
    }

    private func ping(_ pair: EnginePair) throws {
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.exchange()
    }

    /// Holds the client's next datagram back, and returns it when it is asked for.
    private func holdFirst(of pair: EnginePair) -> () -> [UInt8]? {
        var held: [UInt8]?
        pair.passes = { side, bytes in
            if side == .client, held == nil {
                held = bytes
                return false
            }
            return true
        }
        return { held }
    }

    private func moves(_ pair: EnginePair) -> [PeerMove] {
        (pair.events[.server] ?? []).compactMap { event in
            if case .path(.peerMoved(_, _, let kind)) = event { kind } else { nil }
        }
    }

    @Test("a new port is adopted at once, keeps RTT, window and connection ID, and is proved under way (M11, M12, M17)")
    func portOnly() throws {
        let pair = try established()
        let before = try pair.onServer {
            (
                $0.paths.active.recovery.congestion.window, $0.paths.active.recovery.rtt.smoothed,
                $0.paths.active.destinationID
            )
        }
        pair.clientAddress.port += 1
        try ping(pair)
        #expect(moves(pair) == [.portOnly])
        try pair.onServer { connection in
            #expect(connection.paths.active.tuple.remote == pair.clientAddress)
            #expect(connection.paths.active.recovery.congestion.window >= before.0)
            #expect(connection.paths.active.destinationID == before.2)
            verify(connection.paths.active.isValidated)
        }
    }

    @Test("credit that went to an address which the peer has left is said again to the new one at once (M20)")
    func creditAgain() throws {
        let pair = try EnginePair { configuration, side in
            if side == .server { configuration.initialMaxStreamData = 20_000 }
        }
        pair.exchange()
        pair.run(for: .milliseconds(100))
        let id = try pair.onClient { connection in
            let id = try connection.openStream(.bidirectional)
            try connection.write(SharedBytes(copying: [UInt8](repeating: 7, count: 40_000)), to: id, finish: true)
            return id
        }
        pair.run(for: .milliseconds(50))
        let blocked = try pair.onClient { connection in
            verify(connection.streams.isFlowControlBlocked)
            return connection.streams.peek(id)?.pointee.send.limit ?? 0
        }
        // The server reads all, and what it then sends is lost.
        pair.passes = { side, _ in side == .client }
        try pair.onServer { connection in
            var chunk = [UInt8](repeating: 0, count: 65_536)
            _ = try chunk.withUnsafeMutableBytes { try connection.read(id, into: $0) }
        }
        pair.exchange()
        #expect(try pair.onClient { $0.streams.peek(id)?.pointee.send.limit } == blocked)
        pair.passes = { _, _ in true }
        pair.clientAddress.port += 1
        try ping(pair)
        #expect(moves(pair) == [.portOnly])
        #expect(try pair.onClient { $0.streams.peek(id)?.pointee.send.limit } ?? 0 >= 40_000)
    }

    @Test("a peer that moves to and fro and never acknowledges piles nothing up without end (M40)")
    func neverAcknowledges() throws {
        let pair = try established()
        let ports = [pair.clientAddress.port, pair.clientAddress.port + 1]
        for port in ports {
            pair.clientAddress.port = port
            try ping(pair)
        }
        try pair.onServer { connection in
            for index in 0..<connection.paths.count { verify(connection.paths[index].isValidated) }
        }
        // It hears nothing any more, and so acknowledges nothing.
        pair.passes = { side, _ in side == .client }
        for count in 0..<10_000 {
            pair.clientAddress.port = ports[count % 2]
            try ping(pair)
        }
        let inFlight = try pair.onServer { $0.spaces.application.packetsInFlight }
        #expect(inFlight >= QUICConnection.packetsWithoutQuestion)
        #expect(inFlight <= QUICConnection.packetsWithoutQuestion + 100)
    }

    @Test("a new IP address starts with new congestion state (M12)")
    func address() throws {
        let pair = try established()
        _ = try pair.upload(500_000)
        pair.clientAddress = NetworkAddress(203, 0, 113, 9, port: 1_000)
        try ping(pair)
        #expect(moves(pair) == [.address])
        try pair.onServer { connection in
            let size = connection.paths.active.maximumDatagramSize
            #expect(connection.paths.active.recovery.congestion.window <= 11 * size)
            verify(connection.paths.active.isValidated)
        }
    }

    @Test("a replayed datagram from another address moves nothing (M10)")
    func replay() throws {
        let pair = try established()
        _ = try pair.upload(5_000)
        let attacker = NetworkAddress(203, 0, 113, 66, port: 666)
        let paths = try pair.onServer { $0.paths.count }
        for (side, bytes) in pair.trace where side == .client { pair.inject(bytes, into: .server, from: attacker) }
        pair.exchange()
        #expect(moves(pair).isEmpty)
        try pair.onServer { #expect($0.paths.count == paths) }
    }

    @Test("a forged datagram from another address moves nothing and leaves no trace (M10)")
    func forged() throws {
        let pair = try established()
        let attacker = NetworkAddress(203, 0, 113, 66, port: 666)
        guard var bytes = pair.trace.last(where: { $0.from == .client })?.bytes else { return }
        bytes[bytes.count - 1] ^= 1
        let paths = try pair.onServer { $0.paths.count }
        pair.inject(bytes, into: .server, from: attacker)
        pair.exchange()
        #expect(moves(pair).isEmpty)
        try pair.onServer { #expect($0.paths.count == paths) }
    }

    @Test("a genuine packet that was overtaken does not move the peer back (M10)")
    func reordered() throws {
        let pair = try established()
        let held = holdFirst(of: pair)
        try ping(pair)
        try ping(pair)
        pair.clientAddress.port += 1
        try ping(pair)
        #expect(moves(pair) == [.portOnly])
        let old = pair.clientAddress.withPort(pair.clientAddress.port - 1)
        guard let held = held() else {
            Issue.record("nothing was held back")
            return
        }
        pair.inject(held, into: .server, from: old)
        pair.exchange()
        #expect(moves(pair) == [.portOnly])
        try pair.onServer { #expect($0.paths.active.tuple.remote == pair.clientAddress) }
    }

    @Test(
        "whoever answers at the old address takes the connection back from a copied packet that was raced ahead (M14)")
    func racedCopy() throws {
        let pair = try established()
        let attacker = NetworkAddress(203, 0, 113, 66, port: 666)
        pair.passes = { side, bytes in
            guard side == .client else { return true }
            // The copy comes first, then the original: a duplicate.
            pair.inject(bytes, into: .server, from: attacker)
            return true
        }
        try ping(pair)
        pair.passes = { _, _ in true }
        try ping(pair)
        pair.run(for: .seconds(5))
        try pair.onServer { #expect($0.paths.active.tuple.remote == pair.clientAddress) }
        #expect(pair.closeReason(.server) == nil)
        _ = try pair.upload(10_000)
    }

    @Test("a probe that was overtaken on the way is answered and its path proved ahead, and nothing moves (M2, M10)")
    func overtakenProbe() throws {
        let pair = try established()
        let away = FourTuple(
            transport: TransportID(1), local: NetworkAddress(192, 0, 2, 2, port: 1), remote: pair.serverAddress)
        let held = holdFirst(of: pair)
        try pair.onClient { try $0.probe($0.addPath(over: away), timeout: .seconds(1), now: pair.now) }
        pair.exchange()
        try ping(pair)
        let slow = NetworkAddress(203, 0, 113, 9, port: 1_000)
        pair.inject(try #require(held()), into: .server, from: slow)
        pair.exchange()
        try pair.onServer { connection in
            #expect(connection.paths.active.tuple.remote == pair.clientAddress)
            let path = connection.pathSnapshots().first { $0.tuple.remote == slow }
            #expect(path?.state == .validated)
        }
    }

    @Test(
        "a client goes back to its first network, raced by copies from the second: no ID of the one goes to the other (M17)"
    )
    func racedReturn() throws {
        let pair = try established()
        let first = pair.clientAddress
        let second = NetworkAddress(203, 0, 113, 9, port: 1_000)
        let usedFirst = try pair.onServer { $0.paths.active.destinationID }
        let away = FourTuple(
            transport: TransportID(1), local: NetworkAddress(192, 0, 2, 2, port: 1), remote: pair.serverAddress)
        let path = try pair.onClient { try $0.addPath(over: away) }
        pair.clientAddress = second
        try pair.onClient { try $0.probe(path, timeout: .seconds(1), now: pair.now) }
        pair.exchange()
        try pair.onClient { try $0.switchPath(to: path, now: pair.now) }
        pair.exchange()
        var usedThere: Set<ConnectionID> = []
        try pair.onServer { connection in
            #expect(connection.paths.active.tuple.remote == second)
            if let id = connection.paths.active.destinationID { usedThere.insert(id) }
        }
        // Everything with which it returns is seen from the second network first, and the NAT of the first has forgotten it.
        try pair.onClient { try $0.switchPath(to: PathID(0), now: pair.now) }
        pair.exchange()
        try pair.onServer { connection in
            #expect(connection.paths.active.tuple.remote == second)
            verify(connection.paths.active.destinationID != usedFirst)
        }
        pair.clientAddress = first.withPort(first.port + 1)
        try ping(pair)
        try pair.onServer { connection in
            #expect(connection.paths.active.tuple.remote == pair.clientAddress)
            let id = try #require(connection.paths.active.destinationID)
            verify(!usedThere.contains(id))
        }
    }

    @Test("a thousand addresses in a row leave no more than eight paths (M6, M40)")
    func manyMoves() throws {
        let pair = try established()
        for index in 0..<1_000 {
            pair.clientAddress = NetworkAddress(10, 0, UInt8(index >> 8), UInt8(index & 255), port: 5_000)
            try ping(pair)
            try pair.onServer { connection in
                #expect(connection.paths.count <= PathTable.maximumPaths)
                #expect(connection.paths.active.tuple.remote == pair.clientAddress)
            }
        }
        #expect(moves(pair).count == 1_000)
        _ = try pair.upload(10_000)
    }

    @Test("a client takes nothing from an address that is not its server's")
    func strangerToClient() throws {
        let pair = try established()
        var held: [UInt8]?
        pair.passes = { side, bytes in
            if side == .server { held = bytes }
            return side == .client
        }
        try ping(pair)
        let before = try pair.onClient { $0.statistics.packetsReceived }
        guard let held else { return }
        pair.inject(held, into: .client, from: NetworkAddress(203, 0, 113, 66, port: 4_433))
        try pair.onClient { #expect($0.statistics.packetsReceived == before) }
    }

    @Test("where a padded challenge would exceed the limit, an unpadded one goes first and a padded one follows (M15)")
    func sizeProof() throws {
        let pair = try established()
        pair.clientAddress.port += 1
        try ping(pair)
        pair.run(for: .milliseconds(50))
        try pair.onServer { connection in
            // A PING of some 30 bytes allows no datagram of 1,200 in answer: one challenge that fits, and one that is padded.
            #expect(connection.paths.active.statistics.challengesSent == 2)
            #expect(connection.paths.active.statistics.bytesSent > 1_200)
            verify(connection.paths.active.isValidated)
            verify(!connection.paths.active.validator.isRunning)
        }
        let validations = (pair.events[.server] ?? []).count { event in
            if case .path(.validated(let path, _, _)) = event { path != PathID(0) } else { false }
        }
        #expect(validations == 1)
    }

    @Test("a server with connection IDs of no length cannot follow a migration, and the client says so (M18)")
    func emptyIDs() throws {
        let pair = try established()
        let tuple = FourTuple(
            transport: TransportID(1), local: NetworkAddress(192, 0, 2, 2, port: 1), remote: pair.serverAddress)
        var refusal: MigrationError?
        try pair.onClient { connection in
            connection.remoteIDs = RemoteConnectionIDs(limit: 8, initialID: .empty, path: PathID(0))
            do throws(MigrationError) { _ = try connection.addPath(over: tuple) } catch { refusal = error }
        }
        #expect(refusal == .peerUsesNoConnectionIDs)
    }
}
