// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("What is told of paths, and how often (M45)")
struct PathEventTests {
    /// A confirmed pair whose client may hold two of the server's IDs: the handshake's, and one to spare.
    private static func shortOfIDs() throws -> EnginePair {
        let pair = try EnginePair { configuration, side in
            if side == .client { configuration.activeConnectionIDLimit = 2 }
        }
        pair.run(for: .milliseconds(100))
        return pair
    }

    private static func addPath(_ number: UInt32, on pair: EnginePair) throws -> PathID {
        let tuple = FourTuple(
            transport: TransportID(number), local: NetworkAddress(192, 0, 2, UInt8(number), port: 9),
            remote: pair.serverAddress)
        return try pair.onClient { try $0.addPath(over: tuple) }
    }

    private static func shortages(_ pair: EnginePair) throws -> [PathID] {
        try pair.onClient { connection in
            var paths: [PathID] = []
            while let event = connection.nextEvent() {
                if case .path(.connectionIDsExhausted(let path)) = event { paths.append(path) }
            }
            return paths
        }
    }

    @Test("that a path waits for a connection ID is told once, however often the others are served (M45)")
    func oneShortageEach() throws {
        let pair = try Self.shortOfIDs()
        let paths = try (11...14).map { try Self.addPath($0, on: pair) }
        pair.passes = { _, _ in false }
        for path in paths { try pair.onClient { try $0.probe(path, timeout: .seconds(1), now: pair.now) } }
        try pair.onClient { $0.serveWaitingPaths(now: pair.now) }
        #expect(try Self.shortages(pair) == Array(paths.dropFirst()))
        // Another probe while the first one waits is of the same shortage.
        try pair.onClient { try $0.probe(paths[1], timeout: .seconds(1), now: pair.now) }
        #expect(try Self.shortages(pair).isEmpty)
    }

    @Test("a shortage that ended with the probe is told again with the next one (M45)")
    func shortageAgain() throws {
        let pair = try Self.shortOfIDs()
        let paths = try (11...12).map { try Self.addPath($0, on: pair) }
        pair.passes = { _, _ in false }
        for path in paths { try pair.onClient { try $0.probe(path, timeout: .seconds(1), now: pair.now) } }
        #expect(try Self.shortages(pair) == [paths[1]])
        try pair.onClient { connection in
            connection.cancelProbe(paths[1])
            try connection.probe(paths[1], timeout: .seconds(1), now: pair.now)
        }
        #expect(try Self.shortages(pair) == [paths[1]])
    }

    @Test("a server whose client challenges again and again where it has no ID to answer under says so once (M45)")
    func serversShortage() throws {
        let pair = try EnginePair { configuration, side in
            if side == .server { configuration.activeConnectionIDLimit = 2 }
        }
        pair.run(for: .milliseconds(100))
        try pair.onServer { connection in
            while connection.nextEvent() != nil {}
            // Its one spare ID is in use elsewhere.
            #expect(connection.remoteIDs.take(for: PathID(77)) != nil)
            let tuple = FourTuple(
                transport: TransportID(0), local: pair.serverAddress, remote: NetworkAddress(203, 0, 113, 9, port: 9))
            let path = connection.addClientPath(over: tuple)
            let id = connection.paths[path].id
            for data in 1...3 { connection.receivePathChallenge(UInt64(data), on: id) }
            var told = 0
            while let event = connection.nextEvent() {
                if case .path(.connectionIDsExhausted(id)) = event { told += 1 }
            }
            #expect(told == 1)
        }
    }
}
