// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// An established connection under test, whose peer is a `Forge`.
///
/// TLS is left out, which would take a thousand times as long as most inputs: the keys are put in place, and the
/// handshake's end is told to the connection.
final class Subject {
    let role: Role
    private(set) var connection: QUICConnection
    var forge: Forge
    var now = Instant.zero + .seconds(100)
    /// The peer hears nothing of what is sent.
    var isDeaf = false
    /// Numbers of packets that the peer has got since it last acknowledged.
    private(set) var unacknowledged: [PacketNumber] = []
    /// What the peer has got since somebody asked: a test, not a fuzzer.
    private var sent: [Sent] = []
    /// Challenges that the peer has seen, newest last, with the address that each went to.
    private(set) var challenges: [(data: UInt64, remote: NetworkAddress)] = []
    private var ledgers: [NetworkAddress: Ledger] = [:]
    private var random = RandomSource.seeded(1)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
    private var isClosed = false

    /// What went to an address and came from there.
    private struct Ledger {
        var received = 0
        var sent = 0
        /// Somebody answered a challenge that went there, or it was the handshake's.
        var isProved = false
    }

    /// A 1-RTT packet that the connection sent.
    struct Sent {
        var remote: NetworkAddress
        var destination: ConnectionID
        var payload: [UInt8]
        var datagramSize: Int
    }

    static let mainTuple = tuple(0)

    /// The addresses of the tests: a few ports of a few hosts, over two sockets of ours.
    static func tuple(_ index: UInt8) -> FourTuple {
        let remote = NetworkAddress(192, 0, 2, 1 + index >> 2 & 7, port: 50_000 + UInt16(index & 3))
        let transport = UInt32(index >> 5 & 1)
        return FourTuple(
            transport: TransportID(transport), local: NetworkAddress(198, 51, 100, 1 + UInt8(transport), port: 4_433),
            remote: remote)
    }

    init(role: Role, parameters: TransportParameters = FuzzSettings.peerParameters) throws(FuzzFailure) {
        self.role = role
        let credentials = try Credentials.shared.get()
        let original = ConnectionID.random(length: 8, using: &random)
        let peerID = ConnectionID.random(length: 8, using: &random)
        let localID = ConnectionID.random(length: 8, using: &random)
        let token = StatelessResetToken(prefixOf: random.bytes(16))
        let split = random.split()
        let start = now
        connection = try prepare { () throws(TransportError) in
            try QUICConnection(
                role: role, tuple: Self.mainTuple, configuration: SharedConfiguration(FuzzSettings.connection),
                tls: credentials.context(for: role), serverName: Credentials.serverName,
                originalDestinationID: original, remoteID: peerID, localID: localID, localToken: token, random: split,
                blocks: ReceiveBlockReserve(),
                now: start)
        }
        forge = Forge(role: role.peer, destination: localID, source: peerID)
        var parameters = parameters
        parameters.initialSourceConnectionID = peerID
        if role == .client { parameters.originalDestinationConnectionID = original }
        try establish(parameters)
        ledgers[Self.mainTuple.remote] = Ledger(isProved: true)
        try turn()
    }

    deinit { buffer.deallocate() }

    private func establish(_ parameters: TransportParameters) throws(FuzzFailure) {
        guard let clientSecret = TrafficSecret([UInt8](repeating: 1, count: 32)),
            let serverSecret = TrafficSecret([UInt8](repeating: 2, count: 32))
        else { throw FuzzFailure("no secrets") }
        let ours = role == .client ? clientSecret : serverSecret
        let theirs = role == .client ? serverSecret : clientSecret
        try prepare { () throws(TransportError) in
            try connection.protection.install(ours, suite: .aes128GCM, level: .oneRTT, forReading: false)
            try connection.protection.install(theirs, suite: .aes128GCM, level: .oneRTT, forReading: true)
            try forge.protection.install(theirs, suite: .aes128GCM, level: .oneRTT, forReading: false)
            try forge.protection.install(ours, suite: .aes128GCM, level: .oneRTT, forReading: true)
            connection.handshake.hasReceivedPacket = true
            connection.handshake.peerInitialSourceID = forge.source
            try connection.apply(parameters)
            try connection.handshakeCompleted(applicationProtocol: Credentials.protocolName)
            connection.handshakeConfirmed()
            connection.discard(.initial)
        }
        if role == .server { connection.paths.active.validated() }
        // Whatever else the peer's parameters asked for has happened; the session was never started.
        connection.tls = nil
        try issueIDs()
    }

    // MARK: In

    /// Frames of the peer's, in one packet.
    func receive(
        _ frames: [UInt8], from tuple: FourTuple = mainTuple, options: Forge.Options = Forge.Options()
    ) throws(FuzzFailure) {
        guard let datagram = forge.seal(frames, at: .oneRTT, options: options) else { return }
        noteResponses(in: frames)
        try receive(datagram: datagram, from: tuple)
    }

    func receive(datagram: [UInt8], from tuple: FourTuple, ecn: ECNCodepoint = .notECT) throws(FuzzFailure) {
        ledgers[tuple.remote, default: Ledger()].received += datagram.count
        var bytes = datagram
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        let before = connection.events.count
        connection.receive(&raw, on: tuple, ecn: ecn, now: now)
        // Each event has a frame or a path as its cause.
        try require(
            connection.events.count - before <= 64 + datagram.count / 4, "one datagram made too many events")
        try turn()
    }

    /// The peer answers challenges: what they went to is proved from now on.
    func noteResponses(in frames: [UInt8]) {
        var parser = FrameParser(frames.span.bytes, payload: 0..<frames.count)
        while let frame = try? parser.next() {
            guard case .pathResponse(let data) = frame else { continue }
            for challenge in challenges where challenge.data == data {
                ledgers[challenge.remote, default: Ledger()].isProved = true
            }
        }
    }

    /// Calls of the application.
    func apply(_ body: (inout QUICConnection) -> Void) throws(FuzzFailure) {
        body(&connection)
        try turn()
    }

    /// Lets time pass from deadline to deadline.
    func pass(_ span: Nanoseconds) throws(FuzzFailure) {
        let end = now + span
        var steps = 0
        var stepsHere = 0
        while let next = connection.nextDeadline, next <= end {
            stepsHere = next <= now ? stepsHere + 1 : 0
            steps += 1
            try require(stepsHere < 64, "time stands still at \(now.nanoseconds)")
            try require(steps < 20_000, "more than 20,000 deadlines in \(span)")
            now = max(now, next)
            connection.handleDeadline(now: now)
            try turn()
        }
        now = end
    }

    // MARK: Out

    /// Everything that the connection wants to send and to say at this instant, and the endpoint's part.
    private func turn() throws(FuzzFailure) {
        var rounds = 0
        while true {
            var raw = buffer.mutableBytes
            guard let transmission = connection.transmit(into: &raw, now: now) else { break }
            rounds += 1
            try require(rounds < 1_000, "sends without end")
            try note(transmission)
        }
        var events = 0
        while let event = connection.nextEvent() {
            events += 1
            try require(events < 10_000, "events without end")
            guard case .closed = event else { continue }
            try require(!isClosed, "closed twice")
            isClosed = true
        }
        try issueIDs()
        try checkLimits()
    }

    private func note(_ transmission: Transmission) throws(FuzzFailure) {
        let size = transmission.segmentSize
        try require(size > 0 && transmission.byteCount > 0, "an empty transmission")
        let remote = transmission.tuple.remote
        ledgers[remote, default: Ledger()].sent += transmission.byteCount
        if role == .server, let ledger = ledgers[remote], !ledger.isProved {
            try require(
                ledger.sent <= 3 * ledger.received,
                "\(ledger.sent) bytes went to the unproved \(remote), from which \(ledger.received) came")
        }
        guard !isDeaf else { return }
        var offset = 0
        while offset < transmission.byteCount {
            let end = min(offset + size, transmission.byteCount)
            let datagram = [UInt8](buffer[offset..<end])
            offset = end
            for packet in forge.open(datagram, now: now) where packet.level == .oneRTT {
                unacknowledged.append(packet.number)
                sent.append(
                    Sent(
                        remote: remote, destination: packet.destination, payload: packet.payload,
                        datagramSize: datagram.count))
                if sent.count > 256 { sent.removeFirst() }
                try noteChallenges(in: packet.payload, to: remote)
            }
        }
    }

    private func noteChallenges(in payload: [UInt8], to remote: NetworkAddress) throws(FuzzFailure) {
        var parser = FrameParser(payload.span.bytes, payload: 0..<payload.count)
        do throws(TransportError) {
            while let frame = try parser.next() {
                guard case .pathChallenge(let data) = frame else { continue }
                challenges.append((data, remote))
                if challenges.count > 256 { challenges.removeFirst() }
            }
        } catch {
            throw FuzzFailure("the connection sent what it would not accept: \(error)")
        }
    }

    /// What the peer has got since it last said so.
    func takeUnacknowledged() -> [PacketNumber] {
        defer { unacknowledged = [] }
        return unacknowledged
    }

    /// The last packets that the peer has got, 256 at most.
    @discardableResult
    func takeSent() -> [Sent] {
        defer { sent = [] }
        return sent
    }

    var isActivePathValidated: Bool { connection.paths.active.isValidated }
    var runningValidations: Int {
        var count = 0
        for index in 0..<connection.paths.count where connection.paths[index].validator.isRunning { count += 1 }
        return count
    }

    /// Bytes.
    var activeWindow: Int { connection.paths.active.recovery.congestion.window }

    /// The endpoint's part: new IDs, and changes of its tables.
    private func issueIDs() throws(FuzzFailure) {
        try require(connection.routingChanges.count <= 256, "too many routing changes at once")
        connection.routingChanges.removeAll()
        guard connection.isHandshakeComplete, connection.isOpen() else { return }
        while connection.localIDs.deficit > 0 {
            connection.localIDs.issue(
                .random(length: 8, using: &random), resetToken: StatelessResetToken(prefixOf: random.bytes(16)))
        }
    }
}
