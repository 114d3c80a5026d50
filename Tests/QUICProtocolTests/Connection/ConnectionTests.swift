// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

extension EnginePair {
    /// Writes `count` bytes on a new stream of the client's, with its end, and lets the server read them all.
    func upload(_ count: Int) throws -> [UInt8] {
        let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
        let id = try onClient { connection in
            let id = try connection.openStream(.bidirectional)
            try connection.write(SharedBytes(copying: data), to: id, finish: true)
            return id
        }
        var received: [UInt8] = []
        var isFinished = false
        for _ in 0..<10_000 where !isFinished {
            exchange()
            let result = try? onServer { connection in
                var chunk = [UInt8](repeating: 0, count: 65_536)
                let result = try chunk.withUnsafeMutableBytes { try connection.read(id, into: $0) }
                received += chunk[..<result.count]
                return result
            }
            isFinished = result?.isFinished ?? false
            if !isFinished { run(for: .milliseconds(1)) }
        }
        #expect(isFinished)
        #expect(received == data)
        return received
    }

    func has(_ side: Side, _ matches: (ConnectionEvent) -> Bool) -> Bool {
        events[side]?.contains(where: matches) ?? false
    }

    func closeReason(_ side: Side) -> CloseReason? {
        for case .closed(let reason) in events[side] ?? [] { return reason }
        return nil
    }
}

@Suite("A connection")
struct ConnectionTests {
    @Test("a handshake completes on both sides, is confirmed, and leaves eight connection IDs each (M6)")
    func handshake() throws {
        let pair = try EnginePair()
        pair.exchange()
        try pair.onClient { connection in
            #expect(connection.state == .established)
            verify(connection.isHandshakeConfirmed)
            #expect(connection.applicationProtocol == "test")
            verify(!connection.protection.canSeal(.initial))
            verify(!connection.protection.canSeal(.handshake))
            #expect(connection.remoteIDs.entries.count == 8)
        }
        try pair.onServer { connection in
            verify(connection.isHandshakeConfirmed)
            verify(connection.paths.active.isValidated)
            #expect(connection.remoteIDs.entries.count == 8)
        }
        #expect(pair.has(.client) { if case .handshakeCompleted("test") = $0 { true } else { false } })
    }

    @Test(
        "a connection that gave back its memory after a second of silence takes old handshake packets, data and a key update"
    )
    func silence() throws {
        let pair = try EnginePair()
        pair.exchange()
        let handshake = pair.trace.filter { $0.bytes[0] & 0x80 != 0 }
        #expect(handshake.count > 1)
        pair.run(for: .seconds(2))
        try pair.onClient { verify($0.timers.isMemoryReleased && !$0.spaces.has(.handshake)) }
        try pair.onServer { verify($0.timers.isMemoryReleased && !$0.spaces.has(.handshake)) }
        for datagram in handshake { pair.deliver(datagram.bytes, from: datagram.from) }
        _ = try pair.upload(10_000)
        pair.run(for: .seconds(2))
        try pair.onClient {
            $0.initiateKeyUpdate()
            #expect($0.statistics.keyUpdates == 1)
        }
        _ = try pair.upload(10_000)
        try pair.onServer { verify($0.protection.writeKeyPhase) }
    }

    @Test("stream data arrives byte for byte", arguments: [0, 1, 1_000, 300_000])
    func upload(count: Int) throws {
        let pair = try EnginePair()
        pair.exchange()
        _ = try pair.upload(count)
    }

    @Test("the loss of any one datagram of the handshake is made good", arguments: 0..<10)
    func handshakeLoss(lost: Int) throws {
        let pair = try EnginePair()
        var count = 0
        pair.passes = { _, _ in
            count += 1
            return count - 1 != lost
        }
        pair.run(for: .seconds(5))
        try pair.onClient { verify($0.isHandshakeConfirmed) }
        try pair.onServer { verify($0.isHandshakeConfirmed) }
    }

    @Test("a server sends no more than three times what it received before the client's address is proved (M15)")
    func amplification() throws {
        let pair = try EnginePair()
        var received = 0
        var sent = 0
        pair.passes = { side, bytes in
            switch side {
            case .client:
                // The ClientHello takes two datagrams; nothing that would prove the address comes after them.
                guard received < 2_400 else { return false }
                received += bytes.count
            case .server:
                sent += bytes.count
                #expect(sent <= 3 * received)
            }
            return true
        }
        pair.run(for: .seconds(9))
        #expect(sent > 2_400)
    }

    @Test("an application's close reaches the peer with its code, and both sides end")
    func close() throws {
        let pair = try EnginePair()
        pair.exchange()
        try pair.onClient { $0.close(applicationErrorCode: 42, reason: "enough", now: pair.now) }
        pair.run(for: .seconds(5))
        #expect(pair.closeReason(.server) == .application(code: 42, reason: "enough", byPeer: true))
        #expect(pair.closeReason(.client) == .application(code: 42, reason: "enough", byPeer: false))
        try pair.onClient { #expect($0.state == .closed) }
        try pair.onServer { #expect($0.state == .closed) }
        pair.clientEndpoint.remove(pair.client)
        if let accepted = pair.accepted { pair.serverEndpoint.remove(accepted) }
        #expect(pair.clientEndpoint.routeCount == 0)
        #expect(pair.serverEndpoint.routeCount == 0)
        #expect(pair.serverEndpoint.connectionCount == 0)
    }

    @Test("a close in mid-handshake says nothing of the application and is understood")
    func closeInHandshake() throws {
        let pair = try EnginePair()
        pair.passes = { side, _ in side == .client }
        pair.exchange()
        pair.passes = { _, _ in true }
        try pair.onClient { $0.close(applicationErrorCode: 42, reason: "secret", now: pair.now) }
        pair.exchange()
        guard case .transport(let error, byPeer: true) = pair.closeReason(.server) else {
            Issue.record("the server did not hear of it")
            return
        }
        #expect(error.code == .applicationError)
        #expect(error.reason.isEmpty)
    }

    @Test("silence for the idle timeout ends the connection, on each side by itself")
    func idle() throws {
        let pair = try EnginePair(configure: { configuration, _ in configuration.maxIdleTimeout = .seconds(5) })
        pair.exchange()
        pair.run(for: .milliseconds(4_900))
        #expect(pair.closeReason(.client) == nil)
        pair.run(for: .seconds(1))
        #expect(pair.closeReason(.client) == .idleTimeout)
        #expect(pair.closeReason(.server) == .idleTimeout)
    }

    @Test("a keep-alive keeps an idle connection")
    func keepAlive() throws {
        let pair = try EnginePair(configure: { configuration, side in
            configuration.maxIdleTimeout = .seconds(5)
            if side == .client { configuration.keepAliveInterval = .seconds(2) }
        })
        pair.exchange()
        pair.run(for: .seconds(60))
        #expect(pair.closeReason(.client) == nil)
    }

    @Test("a handshake that is never answered ends")
    func handshakeTimeout() throws {
        let pair = try EnginePair()
        pair.passes = { _, _ in false }
        pair.run(for: .seconds(11))
        #expect(pair.closeReason(.client) == .handshakeTimeout)
    }

    @Test("a server that lost its state ends the connection by a stateless reset")
    func statelessReset() throws {
        let pair = try EnginePair()
        pair.exchange()
        if let accepted = pair.accepted { pair.serverEndpoint.remove(accepted) }
        pair.accepted = nil
        try pair.onClient { connection in
            let id = try connection.openStream(.bidirectional)
            try connection.write(SharedBytes(copying: [UInt8](repeating: 1, count: 500)), to: id, finish: true)
        }
        pair.exchange()
        #expect(pair.closeReason(.client) == .statelessReset)
    }

    @Test("both sides update their keys again and again under way", arguments: [EnginePair.Side.client, .server])
    func keyUpdate(side: EnginePair.Side) throws {
        let pair = try EnginePair(configure: { configuration, which in
            if which == side { configuration.keyUpdateInterval = 5 }
        })
        pair.exchange()
        for _ in 0..<5 {
            _ = try pair.upload(200_000)
            // An update waits until the old keys of the last one are gone.
            pair.run(for: .milliseconds(300))
        }
        let updates =
            try side == .client
            ? pair.onClient { $0.statistics.keyUpdates } : pair.onServer { $0.statistics.keyUpdates }
        #expect(updates >= 3)
    }

    @Test("random bytes and damaged packets change nothing")
    func garbage() throws {
        let pair = try EnginePair()
        pair.exchange()
        var random = RandomSource.seeded(3)
        let genuine = pair.trace.map(\.bytes)
        for _ in 0..<500 {
            pair.inject(random.bytes(Int(random.next() % 1_400)), into: .server)
            pair.inject(random.bytes(Int(random.next() % 1_400)), into: .client)
            var damaged = genuine[Int(random.next() % UInt64(genuine.count))]
            damaged[Int(random.next() % UInt64(damaged.count))] ^= UInt8(1 + random.next() % 255)
            pair.inject(damaged, into: .server)
            pair.inject(damaged, into: .client)
        }
        pair.exchange()
        #expect(pair.closeReason(.client) == nil)
        #expect(pair.closeReason(.server) == nil)
        _ = try pair.upload(10_000)
    }
}
