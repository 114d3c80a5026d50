// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Moves that are not followed (M41)")
struct RefusedMoveTests {
    private func ping(_ pair: EnginePair) throws {
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.exchange()
    }

    @Test(
        "a peer that seems to move to another scope, or to a reflector's port, is not followed and gets no answer (M41)",
        arguments: [
            NetworkAddress(127, 0, 0, 1, port: 50_000), NetworkAddress(169, 254, 0, 9, port: 50_000),
            NetworkAddress(224, 0, 0, 251, port: 50_000), NetworkAddress(0, 0, 0, 0, port: 50_000),
            NetworkAddress(192, 0, 2, 1, port: 53), NetworkAddress(203, 0, 113, 5, port: 11_211),
        ])
    func refused(address: NetworkAddress) throws {
        let pair = try EnginePair()
        pair.exchange()
        let home = pair.clientAddress
        let sent = pair.trace.count { $0.from == .server }
        pair.clientAddress = address
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.exchange()
        #expect(pair.trace.count { $0.from == .server } == sent)
        try pair.onServer { connection in
            #expect(connection.paths.count == 1)
            #expect(connection.statistics.peerMoves == 0)
        }
        pair.clientAddress = home
        _ = try pair.upload(10_000)
    }

    @Test("on loopback a peer may move to another address and port of loopback (M41)")
    func onLoopback() throws {
        let pair = try EnginePair()
        pair.clientAddress = NetworkAddress(127, 0, 0, 1, port: 50_000)
        pair.exchange()
        pair.clientAddress = NetworkAddress(127, 0, 0, 2, port: 50_001)
        try ping(pair)
        try pair.onServer { #expect($0.paths.active.tuple.remote == pair.clientAddress) }
        _ = try pair.upload(10_000)
    }

    @Test("nobody at a reflector's port gets a connection, nor an answer without one (M41)")
    func newConnection() throws {
        let pair = try EnginePair()
        pair.clientAddress = NetworkAddress(192, 0, 2, 1, port: 123)
        pair.run(for: .seconds(1))
        #expect(pair.accepted == nil)
        #expect(!pair.trace.contains { $0.from == .server })
    }

    @Test("the fifth move in a row that nobody answers ends the connection if the old path is dead, too (M41)")
    func repeatedFailure() throws {
        let pair = try EnginePair()
        pair.exchange()
        pair.run(for: .milliseconds(100))
        pair.passes = { side, _ in side == .client }
        for index in 0..<5 {
            #expect(pair.closeReason(.server) == nil, "closed after \(index) moves")
            pair.clientAddress.port += 1
            try ping(pair)
            // What the client sends meanwhile must not count as another move.
            pair.passes = { _, _ in false }
            pair.run(for: .seconds(4))
            pair.passes = { side, _ in side == .client }
        }
        guard case .transport(let error, byPeer: false) = pair.closeReason(.server) else {
            Issue.record("\(String(describing: pair.closeReason(.server)))")
            return
        }
        #expect(error.code == .noViablePath)
    }

    @Test("after five moves that failed the peer is followed to a proved address only, and keeps its connection (M41)")
    func proofFirst() throws {
        let pair = try EnginePair()
        pair.exchange()
        pair.run(for: .milliseconds(100))
        let moves = try pair.onServer { connection in
            connection.moves.failed = PeerMoves.maximumFailed
            return connection.statistics.peerMoves
        }
        pair.passes = { side, _ in side == .client }
        pair.clientAddress.port += 1
        try ping(pair)
        try pair.onServer { connection in
            #expect(connection.statistics.peerMoves == moves)
            #expect(connection.paths.active.isValidated)
        }
        pair.passes = { _, _ in true }
        pair.run(for: .seconds(4))
        try pair.onServer { connection in
            #expect(connection.statistics.peerMoves == moves + 1)
            #expect(connection.paths.active.tuple.remote == pair.clientAddress)
            #expect(connection.moves.failed == 0)
        }
        _ = try pair.upload(1_000)
    }

    @Test("a move that succeeds makes up for those that failed before (M41)")
    func successResets() throws {
        let pair = try EnginePair()
        pair.exchange()
        pair.run(for: .milliseconds(100))
        for index in 0..<9 {
            let succeeds = index % 3 == 0
            pair.passes = { side, _ in side == .client || succeeds }
            pair.clientAddress.port += 1
            try ping(pair)
            pair.passes = { _, _ in succeeds }
            pair.run(for: .seconds(4))
        }
        #expect(pair.closeReason(.server) == nil)
        pair.passes = { _, _ in true }
        _ = try pair.upload(1_000)
    }
}
