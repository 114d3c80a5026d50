// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("A path that makes no progress (M35)")
struct DegradingTests {
    /// A confirmed pair that has exchanged something.
    private static func pair() throws -> EnginePair {
        let pair = try EnginePair()
        pair.run(for: .seconds(1))
        #expect(try pair.onClient { $0.isHandshakeConfirmed })
        pair.events = [.client: [], .server: []]
        return pair
    }

    private static func write(_ count: Int, on pair: EnginePair) throws {
        try pair.onClient { connection in
            let id = try connection.openStream(.bidirectional)
            try connection.write(SharedBytes(copying: [UInt8](repeating: 1, count: count)), to: id, finish: true)
        }
    }

    /// Nothing arrives any more, and the policy has another network to ask about.
    ///
    /// - Returns: the client's probe timeout.
    private static func silence(_ pair: EnginePair) throws -> Nanoseconds {
        pair.passes = { _, _ in false }
        return try pair.onClient { connection in
            connection.timers.isWatchful = true
            return connection.probeTimeout
        }
    }

    private static func told(_ pair: EnginePair) -> [PathEvent] {
        (pair.events[.client] ?? []).compactMap { event in
            guard case .path(let event) = event else { return nil }
            switch event {
            case .suspected, .silent, .degraded, .recovered: return event
            default: return nil
            }
        }
    }

    @Test("is degraded four probe timeouts after the first packet that nobody answered, and told once (M35)")
    func degraded() throws {
        let pair = try Self.pair()
        let patience = try pair.onClient { $0.probeTimeout } * 4
        pair.passes = { _, _ in false }
        try Self.write(500, on: pair)
        pair.run(for: patience - .microseconds(1))
        #expect(Self.told(pair).isEmpty)
        pair.run(for: .microseconds(2))
        #expect(Self.told(pair) == [.degraded(PathID(0))])
        pair.run(for: patience * 2)
        #expect(Self.told(pair).count == 1)
    }

    @Test("is suspected after two and silent after three, where the policy has another network to ask (M36)")
    func suspected() throws {
        let pair = try Self.pair()
        let timeout = try Self.silence(pair)
        try Self.write(500, on: pair)
        pair.run(for: timeout * 2 - .microseconds(1))
        #expect(Self.told(pair).isEmpty)
        pair.run(for: .microseconds(2))
        #expect(Self.told(pair) == [.suspected(PathID(0))])
        pair.run(for: timeout)
        #expect(Self.told(pair) == [.suspected(PathID(0)), .silent(PathID(0))])
        pair.run(for: timeout)
        #expect(Self.told(pair) == [.suspected(PathID(0)), .silent(PathID(0)), .degraded(PathID(0))])
        pair.passes = { _, _ in true }
        pair.run(for: .seconds(5))
        #expect(Self.told(pair).last == .recovered(PathID(0)) && Self.told(pair).count == 4)
    }

    @Test("several steps that are due at once are taken at once, and the next is in the future")
    func late() throws {
        let pair = try Self.pair()
        let timeout = try Self.silence(pair)
        try Self.write(500, on: pair)
        pair.exchange()
        // As when the probe timeout has become shorter since the last step.
        pair.now += timeout * 5 / 2
        let next = try pair.onClient { connection in
            connection.noteLackOfProgress(now: pair.now)
            return connection.progressDeadline
        }
        pair.exchange()
        #expect(Self.told(pair) == [.suspected(PathID(0))])
        #expect(try #require(next) > pair.now)
    }

    @Test("is not silent while fewer than six packets wait for an answer: it may be chance (M36)")
    func fewUnanswered() throws {
        let pair = try Self.pair()
        let timeout = try Self.silence(pair)
        // A window that losses have made small: two packets fill it.
        try pair.onClient { $0.paths.active.recovery.congestion.persistentCongestion(now: pair.now) }
        try Self.write(1_000, on: pair)
        pair.run(for: timeout * 4 + .milliseconds(1))
        #expect(Self.told(pair) == [.suspected(PathID(0)), .degraded(PathID(0))])
    }

    @Test("a suspicion ends with the first acknowledgement, and nothing is degraded (M36)")
    func suspicionEnds() throws {
        let pair = try Self.pair()
        let timeout = try Self.silence(pair)
        try Self.write(500, on: pair)
        pair.run(for: timeout * 2 + .milliseconds(1))
        pair.passes = { _, _ in true }
        pair.run(for: .seconds(20))
        #expect(
            Self.told(pair) == [.suspected(PathID(0)), .recovered(PathID(0))])
    }

    @Test("recovers with the first acknowledgement, and may degrade again (M35)")
    func recovers() throws {
        let pair = try Self.pair()
        for _ in 0..<2 {
            let patience = try pair.onClient { $0.probeTimeout } * 4
            pair.events = [.client: [], .server: []]
            pair.passes = { _, _ in false }
            try Self.write(500, on: pair)
            pair.run(for: patience + .milliseconds(1))
            pair.passes = { _, _ in true }
            pair.run(for: .seconds(5))
            #expect(Self.told(pair) == [.degraded(PathID(0)), .recovered(PathID(0))])
        }
    }

    @Test("is not degraded while nothing is waited for, however long the silence (M35)")
    func silence() throws {
        let pair = try Self.pair()
        pair.passes = { _, _ in false }
        pair.run(for: .seconds(20))
        #expect(Self.told(pair).isEmpty)
    }

    @Test("is not degraded while a server thinks, and acknowledges (M35, M22)")
    func thinking() throws {
        let pair = try Self.pair()
        try Self.write(500, on: pair)
        pair.run(for: .seconds(20))
        #expect(Self.told(pair).isEmpty)
    }

    @Test("a policy that forbids migration refuses paths with a reason, until it is changed")
    func disabled() throws {
        let pair = try EnginePair { configuration, side in
            if side == .client { configuration.migration = .disabled }
        }
        pair.run(for: .seconds(1))
        let tuple = FourTuple(
            transport: TransportID(1), local: NetworkAddress(192, 0, 2, 9, port: 9), remote: pair.serverAddress)
        try pair.onClient { connection in
            #expect(throws: MigrationError.migrationDisabled) { _ = try connection.addPath(over: tuple) }
            connection.isMigrationDisabled = false
            _ = try connection.addPath(over: tuple)
        }
    }
}
