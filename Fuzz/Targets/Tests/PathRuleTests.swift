// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// The rules of paths, one by one, against a peer that has the keys and sends exactly what a rule is about.
///
/// Each of them has a deliberate bug in `Scripts/mutations` that it catches.
@Suite("Path rules against a peer with the keys")
struct PathRuleTests {
    private static let ping: [UInt8] = [0x01]
    private static let sameHost = Subject.tuple(1)
    private static let otherHost = Subject.tuple(4)

    private func server() throws -> Subject {
        let subject = try Subject(role: .server)
        // Fresh IDs of the peer's, enough for every path.
        for sequence in UInt64(1)...6 { try subject.receive(newConnectionID(sequence)) }
        subject.takeSent()
        return subject
    }

    private func newConnectionID(_ sequence: UInt64) -> [UInt8] {
        let bytes = [UInt8](repeating: UInt8(0xa0 + sequence), count: 8)
        return written {
            $0.writeNewConnectionID(
                NewConnectionIDFrame(
                    sequence: sequence, retirePriorTo: 0, connectionID: ConnectionID(bytes) ?? .empty,
                    resetToken: StatelessResetToken(prefixOf: bytes + bytes)))
        }
    }

    private func challenge(_ data: UInt64) -> [UInt8] { written { $0.writePathChallenge(data) } }
    private func response(_ data: UInt64) -> [UInt8] { written { $0.writePathResponse(data) } }
    private func padded(_ number: PacketNumber? = nil) -> Forge.Options { Forge.Options(number: number, padTo: 1_200) }

    private func frames(_ sent: Subject.Sent) -> [Frame] {
        var parser = FrameParser(sent.payload.span.bytes, payload: 0..<sent.payload.count)
        var frames: [Frame] = []
        while let frame = try? parser.next() { frames.append(frame) }
        return frames
    }

    private func responses(_ sent: [Subject.Sent]) -> [(remote: NetworkAddress, data: UInt64, size: Int)] {
        sent.flatMap { sent in
            frames(sent).compactMap { frame in
                if case .pathResponse(let data) = frame { (sent.remote, data, sent.datagramSize) } else { nil }
            }
        }
    }

    private func challenges(_ sent: [Subject.Sent]) -> [(remote: NetworkAddress, data: UInt64, size: Int)] {
        sent.flatMap { sent in
            frames(sent).compactMap { frame in
                if case .pathChallenge(let data) = frame { (sent.remote, data, sent.datagramSize) } else { nil }
            }
        }
    }

    private func activeRemote(_ subject: Subject) -> NetworkAddress { subject.connection.paths.active.tuple.remote }

    /// Moves the peer, and proves the address.
    private func move(_ subject: Subject, to tuple: FourTuple) throws {
        try subject.receive(Self.ping, from: tuple, options: padded())
        for challenge in challenges(subject.takeSent()) where challenge.remote == tuple.remote {
            try subject.receive(response(challenge.data), from: tuple)
        }
    }

    @Test("a probing packet does not move the path, even with the highest number (M10)")
    func probingPacket() throws {
        let subject = try server()
        try subject.receive(challenge(1) + newConnectionID(7) + [0, 0], from: Self.otherHost, options: padded())
        #expect(activeRemote(subject) == Subject.mainTuple.remote)
        try subject.receive(Self.ping, from: Self.otherHost, options: padded())
        #expect(activeRemote(subject) == Self.otherHost.remote)
    }

    @Test("a packet without the highest number does not move the path (M10)")
    func lowerNumber() throws {
        let subject = try server()
        let skipped = subject.forge.nextNumber[2]
        try subject.receive(Self.ping, options: Forge.Options(skip: 5))
        try subject.receive(Self.ping, from: Self.otherHost, options: padded(skipped + 1))
        #expect(activeRemote(subject) == Subject.mainTuple.remote)
    }

    @Test("PATH_RESPONSE goes out where its challenge came from, padded, and once (M16)")
    func responseOnItsPath() throws {
        let subject = try server()
        try subject.receive(challenge(77), from: Self.otherHost, options: padded())
        let sent = responses(subject.takeSent())
        #expect(sent.map(\.data) == [77])
        #expect(sent.first?.remote == Self.otherHost.remote)
        #expect(sent.first?.size ?? 0 >= 1_200)
        // Nothing is acknowledged: what is lost is sent again, but not this.
        try subject.pass(.seconds(5))
        #expect(responses(subject.takeSent()).isEmpty)
    }

    @Test("a response proves a path only with the data of a challenge that is outstanding (M2, M14)")
    func matchingData() throws {
        let subject = try server()
        try subject.receive(Self.ping, from: Self.otherHost, options: padded())
        let sent = challenges(subject.takeSent())
        let data = try #require(sent.first { $0.remote == Self.otherHost.remote }?.data)
        try subject.receive(response(data ^ 1), from: Self.otherHost, options: padded())
        #expect(!subject.isActivePathValidated)
        // Those of the new path and of the one that was left.
        #expect(subject.runningValidations == 2)
        try subject.receive(response(data), from: Self.otherHost, options: padded())
        #expect(subject.isActivePathValidated)
    }

    @Test("challenges fill 1,200 bytes where the budget allows (M15)")
    func paddedChallenges() throws {
        let subject = try server()
        try subject.receive(Self.ping, from: Self.otherHost, options: padded())
        let sent = challenges(subject.takeSent()).filter { $0.remote == Self.otherHost.remote }
        #expect(sent.map(\.size) == [1_200])
    }

    @Test("no more than three times what came goes to a new address, padding included (M15)")
    func budget() throws {
        let subject = try server()
        try subject.apply { connection in
            guard let id = try? connection.openStream(.unidirectional) else { return }
            try? connection.write(SharedBytes(copying: [UInt8](repeating: 1, count: 60_000)), to: id, finish: true)
        }
        subject.takeSent()
        // The subject itself watches the budget of every address at every datagram.
        for isPadded in [true, false, false, true, false, false] {
            try subject.receive(Self.ping, from: Self.otherHost, options: isPadded ? padded() : Forge.Options())
            try subject.pass(.milliseconds(700))
        }
        #expect(subject.takeSent().contains { $0.remote == Self.otherHost.remote })
    }

    @Test("the path that a peer left is challenged, too (M14)")
    func oldPathChallenged() throws {
        let subject = try server()
        try subject.receive(Self.ping, from: Self.otherHost, options: padded())
        #expect(challenges(subject.takeSent()).contains { $0.remote == Subject.mainTuple.remote })
    }

    @Test("a new port keeps RTT and window, a new address does not, and who comes back finds them again (M12, M13)")
    func recoveryState() throws {
        let subject = try server()
        // A window that grew.
        try subject.apply { connection in
            guard let id = try? connection.openStream(.unidirectional) else { return }
            try? connection.write(SharedBytes(copying: [UInt8](repeating: 1, count: 60_000)), to: id, finish: true)
        }
        for _ in 0..<8 {
            try subject.pass(.milliseconds(20))
            let numbers = subject.takeUnacknowledged()
            if let first = numbers.first, let last = numbers.last { try subject.receive(ackFrame(first...last)) }
        }
        let grown = subject.activeWindow
        #expect(grown > 14_720)
        try move(subject, to: Self.sameHost)
        #expect(subject.activeWindow == grown)
        try move(subject, to: Self.otherHost)
        #expect(subject.activeWindow < grown)
        try move(subject, to: Self.sameHost)
        #expect(subject.activeWindow == grown)
    }

    @Test(
        "a peer that moves under a new ID is answered under a new ID, and its old one is retired when it says so (M17)")
    func freshIDs() throws {
        let subject = try server()
        let before = try #require(subject.connection.paths.active.destinationID)
        let other = try #require(subject.connection.localIDs.active.last?.id)
        try subject.receive(
            Self.ping, from: Self.otherHost, options: Forge.Options(destination: other, padTo: 1_200))
        let sent = subject.takeSent().filter { $0.remote == Self.otherHost.remote }
        #expect(!sent.isEmpty)
        for packet in sent { #expect(packet.destination != before) }
        // The old path's ID of ours is retired, and so is what we sent to there.
        let retire = written { $0.writeRetireConnectionID(sequence: 0) }
        for challenge in challenges(sent) {
            try subject.receive(
                response(challenge.data), from: Self.otherHost, options: Forge.Options(destination: other))
        }
        try subject.receive(retire, from: Self.otherHost, options: Forge.Options(destination: other))
        try subject.pass(.milliseconds(100))
        let retired = subject.takeSent().flatMap { frames($0) }.contains { frame in
            if case .retireConnectionID(let sequence) = frame { sequence == 0 } else { false }
        }
        #expect(retired)
    }

    @Test("at most eight paths, whatever sources the packets name (M40)")
    func pathLimit() throws {
        let subject = try server()
        // The subject itself counts.
        for index in UInt8(1)...31 { try subject.receive(Self.ping, from: Subject.tuple(index), options: padded()) }
        #expect(subject.connection.paths.count <= PathTable.maximumPaths)
    }

    @Test("when a new address does not answer, the connection goes back to the last one that did (M13)")
    func fallback() throws {
        let subject = try server()
        try subject.receive(Self.ping, from: Self.otherHost, options: padded())
        // The old address answers its challenge, the new one does not.
        for challenge in challenges(subject.takeSent()) where challenge.remote == Subject.mainTuple.remote {
            try subject.receive(response(challenge.data), options: padded(subject.forge.nextNumber[2] - 1))
        }
        try subject.pass(.seconds(10))
        #expect(activeRemote(subject) == Subject.mainTuple.remote)
    }

    @Test("disable_active_migration does not keep a NAT from rebinding (M18)")
    func rebindingWhenDisabled() throws {
        var parameters = FuzzSettings.peerParameters
        parameters.disableActiveMigration = true
        let subject = try Subject(role: .server, parameters: parameters)
        try subject.receive(Self.ping, from: Self.sameHost, options: padded())
        #expect(activeRemote(subject) == Self.sameHost.remote)
    }
}
