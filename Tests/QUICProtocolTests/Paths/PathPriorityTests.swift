// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Priorities of paths")
struct PathPriorityTests {
    // MARK: A connection that its application moves

    private static func confirmed() throws -> EnginePair {
        let pair = try EnginePair()
        pair.run(for: .milliseconds(100))
        return pair
    }

    private static func transport(_ number: UInt32) -> TransportID { TransportID(number) }

    /// Adds a path over a socket of its own.
    private static func addPath(
        _ number: UInt32, _ priority: PathPriority?, rtt: Nanoseconds = .milliseconds(30), isValidated: Bool = true,
        on pair: EnginePair
    ) throws -> PathID {
        let tuple = FourTuple(
            transport: transport(number), local: NetworkAddress(192, 0, 2, UInt8(number), port: 9),
            remote: pair.serverAddress)
        return try pair.onClient { connection in
            let id = try connection.addPath(over: tuple)
            try connection.setPriority(priority, of: id, now: pair.now)
            if let index = connection.paths.index(of: id), isValidated {
                connection.paths[index].recovery.pathAnswered(after: rtt, isRoundTrip: true)
                connection.paths[index].validated()
            }
            return id
        }
    }

    private static func lose(_ number: UInt32, on pair: EnginePair) throws -> PathID {
        try pair.onClient { connection in
            connection.transportLost(transport(number), now: pair.now)
            return connection.activePath
        }
    }

    @Test(
        "a lost socket: on over the validated path of the highest priority, of equal ones the nearest, until none is left"
    )
    func order() throws {
        let pair = try Self.confirmed()
        let backup = try Self.addPath(11, .backup, rtt: .milliseconds(1), on: pair)
        let far = try Self.addPath(12, .available, rtt: .milliseconds(60), on: pair)
        let near = try Self.addPath(13, .available, rtt: .milliseconds(20), on: pair)
        _ = try Self.addPath(14, .preferred, isValidated: false, on: pair)
        let unranked = try Self.addPath(15, nil, rtt: .milliseconds(1), on: pair)
        try pair.onClient { while $0.nextEvent() != nil {} }
        #expect(try Self.lose(0, on: pair) == near)
        try pair.onClient { connection in
            var switches: [PathEvent] = []
            while let event = connection.nextEvent() {
                if case .path(let event) = event, case .switched = event { switches.append(event) }
            }
            #expect(switches == [.switched(from: PathID(0), to: near, .fallback)])
        }
        #expect(try Self.lose(13, on: pair) == far)
        #expect(try Self.lose(12, on: pair) == backup)
        #expect(try Self.lose(11, on: pair) == backup, "a path without a priority was chosen")
        try pair.onClient { try $0.setPriority(.backup, of: unranked, now: pair.now) }
        #expect(try pair.onClient { $0.activePath } == unranked, "a priority that comes late is of no use")
    }

    @Test("without a priority nothing moves when a socket is lost, nor where the policy forbids it (M7)")
    func noneOrForbidden() throws {
        let pair = try Self.confirmed()
        let path = try Self.addPath(11, nil, on: pair)
        #expect(try Self.lose(0, on: pair) == PathID(0))
        try pair.onClient { connection in
            connection.isMigrationDisabled = true
            try connection.setPriority(.preferred, of: path, now: pair.now)
            #expect(connection.activePath == PathID(0))
        }
    }

    @Test("a path without a connection ID is passed over (M3)")
    func noConnectionID() throws {
        let pair = try EnginePair { configuration, side in
            if side == .client { configuration.activeConnectionIDLimit = 2 }
        }
        pair.run(for: .milliseconds(100))
        _ = try Self.addPath(11, .preferred, on: pair)
        let second = try Self.addPath(12, .backup, on: pair)
        try pair.onClient { #expect($0.remoteIDs.take(for: second) != nil) }
        #expect(try Self.lose(0, on: pair) == second)
    }

    @Test("a priority is told once, shows in the snapshot, and is refused on a server and on a path that is closed")
    func told() throws {
        let pair = try Self.confirmed()
        let path = try Self.addPath(11, .backup, on: pair)
        try pair.onClient { connection in
            try connection.setPriority(.backup, of: path, now: pair.now)
            #expect(connection.pathSnapshot(path)?.priority == .backup)
            #expect(connection.pathPriorities == [path: .backup])
            var told: [PathEvent] = []
            while let event = connection.nextEvent() {
                if case .path(let event) = event, case .priorityChanged = event { told.append(event) }
            }
            #expect(told == [.priorityChanged(path, .backup)])
            try connection.closePath(path, now: pair.now)
            #expect(throws: MigrationError.unknownPath(path)) {
                try connection.setPriority(nil, of: path, now: pair.now)
            }
        }
        try pair.onServer { connection in
            #expect(throws: MigrationError.serverCannotMigrate) {
                try connection.setPriority(.backup, of: PathID(0), now: pair.now)
            }
        }
    }

    // MARK: A connection that the policy moves

    private static let other = AvailableNetwork("other", rank: 2)

    @Test("the policy goes to the network whose path has the higher priority, and not back for its rank (M36)")
    func policyPrefers() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        _ = trace.take()
        trace.event(.priorityChanged(PathID(1), .preferred))
        trace.answer("cellular")
        #expect(
            trace.take().contains(
                .move(from: "wifi", to: "cellular", validated: true, .preferredNetwork("cellular"))))
        trace.answer("wifi")
        trace.pass(.seconds(60))
        #expect(trace.activeNetwork == "cellular")
        trace.event(.priorityChanged(PathID(1), nil))
        trace.answer("wifi")
        #expect(trace.activeNetwork == "wifi", "without its priority the rank decides")
    }

    @Test("the policy does not go to a backup path while all is well, whatever its network's rank (M36)")
    func policyKeepsBackupInReserve() {
        var trace = PolicyTrace(on: "cellular", networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.event(.priorityChanged(PathID(1), .backup))
        trace.answer("wifi")
        trace.pass(.seconds(60))
        #expect(trace.activeNetwork == "cellular")
        trace.networks([PolicyTrace.wifi])
        #expect(trace.activeNetwork == "wifi", "a backup is there to be used")
    }

    @Test("network lost: of the proved networks that with the highest priority is taken, then the highest rank (M36)")
    func policyLeaves() {
        let all = [PolicyTrace.wifi, PolicyTrace.cellular, Self.other]
        for priority in [PathPriority?.none, .preferred] {
            var trace = PolicyTrace(networks: all)
            // Degrading has all networks probed, so that there are two to choose from.
            trace.event(.degraded(PathID(0)))
            guard let path = trace.networkOfPath.first(where: { $0.value == "other" })?.key else {
                Issue.record("no path over the third network")
                return
            }
            trace.event(.priorityChanged(path, priority))
            trace.networks([PolicyTrace.cellular, Self.other])
            #expect(trace.activeNetwork == (priority == nil ? "cellular" : "other"))
        }
    }

    @Test("a connection that went by itself where its path's priority said is moved no further, and says why (M38)")
    func policyAdoptsFallback() {
        var trace = PolicyTrace(networks: [PolicyTrace.wifi, PolicyTrace.cellular])
        trace.answer("cellular")
        trace.event(.priorityChanged(PathID(1), .backup))
        _ = trace.take()
        // As the engine tells it: both at once, before the policy can act.
        let known = trace.networkOfPath
        trace.policy.handle(.failed(PathID(0), .transportLost), now: trace.now) { known[$0] }
        trace.policy.handle(.switched(from: PathID(0), to: PathID(1), .fallback), now: trace.now) { known[$0] }
        trace.active = PathID(1)
        trace.settle()
        #expect(
            trace.take().filter { if case .move = $0 { true } else { false } } == [
                .move(from: "wifi", to: "cellular", validated: true, .transportLost)
            ])
        #expect(!trace.openPaths.contains(PathID(0)), "the path without a socket is left open")
        #expect(trace.activeNetwork == "cellular")
    }
}
