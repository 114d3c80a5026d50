// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Datagrams into endpoints: raw ones, and such as are right where chance would never get them right.
///
/// The first byte says how far a connection between the two endpoints has come; then come steps.
enum DatagramFuzzer {
    static func run(_ input: FuzzInput) throws(FuzzFailure) {
        var input = input
        let stage = input.byte()
        let endpoints = try Endpoints(isConnecting: stage & 3 != 0)
        if stage & 3 == 2 { try endpoints.exchange(flights: 1) }
        if stage & 3 == 3 { try endpoints.exchange(flights: 20) }
        var steps = 0
        while !input.isEmpty, steps < 128 {
            steps += 1
            let kind = input.byte()
            let side: Role = kind & 1 == 0 ? .server : .client
            switch kind >> 1 & 0x0f {
            case 0...3: try endpoints.deliver(input.run(scale: 1 + Int(kind >> 5)), to: side, from: kind)
            case 4, 5: try endpoints.deliver(endpoints.addressed(input.run(scale: 2), to: side), to: side, from: kind)
            case 6, 7, 8: try endpoints.deliver(endpoints.changed(&input, to: side), to: side, from: 0)
            case 9: try endpoints.deliver(endpoints.retry(&input), to: .client, from: 0)
            case 10: try endpoints.deliver(endpoints.versionNegotiation(&input), to: .client, from: 0)
            case 11: try endpoints.deliver(endpoints.reset(&input, of: side), to: side, from: 0)
            case 12: try endpoints.pass(.microseconds(Int64(1) << Int64(input.choice(below: 24))))
            case 13: try endpoints.exchange(flights: 1)
            case 14: try endpoints.deliver(endpoints.padded(input.run()), to: side, from: kind)
            default: try endpoints.deliverMerged(&input, to: side)
            }
        }
        try endpoints.pass(.seconds(1))
        try endpoints.finish()
    }
}

/// A client's and a server's endpoint.
private final class Endpoints {
    let client = QUICEndpoint(random: .seeded(1))
    let server: QUICEndpoint
    private let configuration: ServerConfiguration
    private var clientHandle: ConnectionHandle?
    private var accepted: [ConnectionHandle] = []
    private var now = Instant.zero + .seconds(100)
    /// What each side has sent, newest last, and what of it the other has not got yet.
    private var sent: [Role: [[UInt8]]] = [.client: [], .server: []]
    private var underWay: [Role: [[UInt8]]] = [.client: [], .server: []]
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
    private let clientAddress = NetworkAddress(192, 0, 2, 1, port: 50_000)
    private let serverAddress = NetworkAddress(198, 51, 100, 1, port: 4_433)

    init(isConnecting: Bool) throws(FuzzFailure) {
        let credentials = try Credentials.shared.get()
        var limits = EndpointConfiguration()
        limits.maximumConnections = 4
        limits.maximumHandshakes = 3
        server = QUICEndpoint(configuration: limits, random: .seeded(2))
        configuration = ServerConfiguration(tls: credentials.server, connection: FuzzSettings.connection)
        guard isConnecting else { return }
        let tuple = FourTuple(transport: TransportID(0), local: clientAddress, remote: serverAddress)
        let start = now
        clientHandle = try prepare { () throws(TransportError) in
            try client.connect(
                over: tuple, tls: credentials.client, serverName: Credentials.serverName,
                configuration: FuzzSettings.connection, now: start)
        }
        try turn()
    }

    deinit { buffer.deallocate() }

    private func endpoint(_ side: Role) -> QUICEndpoint { side == .client ? client : server }
    private func handles(_ side: Role) -> [ConnectionHandle] {
        side == .client ? [clientHandle].compactMap { $0 } : accepted
    }

    // MARK: Making datagrams

    /// An ID under which the connection of that side is found.
    private func id(of side: Role) -> ConnectionID {
        for handle in handles(side) {
            if let id = endpoint(side).withConnection(handle, { $0.localConnectionID }) { return id }
        }
        return .empty
    }

    /// The bytes with a destination in the right place that reaches the connection.
    func addressed(_ bytes: [UInt8], to side: Role) -> [UInt8] {
        var bytes = bytes
        let id = id(of: side).bytes
        guard let first = bytes.first else { return bytes }
        let start = first & 0x80 == 0 ? 1 : 6
        if start == 6, bytes.count > 5 {
            bytes.replaceSubrange(1..<5, with: [0, 0, 0, 1])
            bytes[5] = UInt8(id.count)
        }
        guard bytes.count >= start + id.count else { return bytes }
        bytes.replaceSubrange(start..<start + id.count, with: id)
        return bytes
    }

    /// As large as a first datagram must be.
    func padded(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: max(0, 1_200 - bytes.count)) }

    /// A datagram that the other side sent, with a byte changed or its end cut off.
    func changed(_ input: inout FuzzInput, to side: Role) -> [UInt8] {
        let known = sent[side.peer] ?? []
        guard !known.isEmpty else { return [] }
        var bytes = known[known.count - 1 - Int(input.byte()) % known.count]
        for _ in 0..<input.byte() & 3 {
            guard !bytes.isEmpty else { break }
            let place = Int(input.uint16()) % bytes.count
            bytes[place] ^= input.byte()
        }
        if input.flag() { bytes.removeLast(Int(input.uint16()) % (bytes.count + 1)) }
        return bytes
    }

    /// A Retry packet that answers the client, with a valid tag or without.
    func retry(_ input: inout FuzzInput) -> [UInt8] {
        guard let clientHandle,
            let original = client.withConnection(clientHandle, { $0.originalDestinationConnectionID })
        else { return [] }
        var random = RandomSource.seeded(3)
        let source = ConnectionID(input.take(input.choice(below: 21))) ?? .empty
        var packet = RetryPacket.withoutTag(
            version: .v1, destination: id(of: .client), source: source, token: input.run(), using: &random)
        let tag = packet.withUnsafeBytes {
            RetryIntegrity.tag(version: .v1, originalDestinationConnectionID: original, retryPacketWithoutTag: $0)
        }
        packet += tag
        if input.byte() & 0x0f == 1 { packet[packet.count - 1] ^= 1 }
        return packet
    }

    func versionNegotiation(_ input: inout FuzzInput) -> [UInt8] {
        guard let clientHandle,
            let original = client.withConnection(clientHandle, { $0.originalDestinationConnectionID })
        else { return [] }
        let destination = id(of: .client)
        var packet: [UInt8] = [input.byte() | 0x80, 0, 0, 0, 0, destination.length] + destination.bytes
        packet += [original.length] + original.bytes
        if input.byte() & 7 == 1 { packet[packet.count - 1] ^= 1 }
        return packet + input.run()
    }

    /// A stateless reset with a token that the side knows, or with none.
    func reset(_ input: inout FuzzInput, of side: Role) -> [UInt8] {
        let tokens = handles(side).compactMap { endpoint(side).withConnection($0) { $0.remoteIDs.activeTokens } }
        let token = tokens.flatMap { $0 }.first?.bytes ?? [UInt8](repeating: 9, count: 16)
        var bytes = [0x40 | input.byte() & 0x3f] + input.run()
        if input.flag() { bytes = addressed(bytes, to: side) }
        return bytes + token
    }

    // MARK: Delivering

    func deliver(_ bytes: [UInt8], to side: Role, from kind: UInt8) throws(FuzzFailure) {
        guard !bytes.isEmpty else { return }
        var offset = 0
        try deliver(bytes, from: &offset, segmentSize: bytes.count, to: side, port: UInt16(kind >> 5))
    }

    /// Several datagrams at once, as the system merges them.
    func deliverMerged(_ input: inout FuzzInput, to side: Role) throws(FuzzFailure) {
        let size = 1 + Int(input.byte())
        var bytes: [UInt8] = []
        for _ in 0..<1 + input.byte() % 4 { bytes += addressed(input.take(size), to: side) }
        guard !bytes.isEmpty else { return }
        var offset = 0
        var rounds = 0
        while offset < bytes.count {
            let before = offset
            try deliver(bytes, from: &offset, segmentSize: size, to: side, port: 0)
            rounds += 1
            try require(offset > before && rounds < 2_000, "merged datagrams are not taken in")
        }
    }

    private func deliver(
        _ bytes: [UInt8], from offset: inout Int, segmentSize: Int, to side: Role, port: UInt16
    ) throws(FuzzFailure) {
        var bytes = bytes
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        let outcome: DatagramOutcome
        switch side {
        case .server:
            let remote = clientAddress.withPort(50_000 + port)
            outcome = server.receive(
                &raw, from: &offset, segmentSize: segmentSize,
                on: FourTuple(transport: TransportID(0), local: serverAddress, remote: remote), ecn: .notECT,
                accepting: configuration, now: now)
        case .client:
            let remote = serverAddress.withPort(4_433 + port)
            outcome = client.receive(
                &raw, from: &offset, segmentSize: segmentSize,
                on: FourTuple(transport: TransportID(0), local: clientAddress, remote: remote), ecn: .notECT,
                accepting: nil, now: now)
        }
        switch outcome {
        case .accepted(let handle): accepted.append(handle)
        case .response:
            guard let response = endpoint(side).takeResponse() else { throw FuzzFailure("no response to take") }
            // Nobody is answered with more than was asked, but for a list of versions.
            try require(response.bytes.count <= max(segmentSize, 1_200), "a response larger than its cause")
        case .connection, .dropped: break
        }
        try turn()
    }

    /// Brings what is under way to the other side, so many times.
    func exchange(flights: Int) throws(FuzzFailure) {
        for _ in 0..<flights {
            let batches = underWay
            underWay = [.client: [], .server: []]
            guard batches.values.contains(where: { !$0.isEmpty }) else { return }
            for side in [Role.client, .server] {
                for datagram in batches[side] ?? [] { try deliver(datagram, to: side.peer, from: 0) }
            }
        }
    }

    func pass(_ span: Nanoseconds) throws(FuzzFailure) {
        let end = now + span
        var steps = 0
        while true {
            let deadlines = [Role.client, .server].flatMap { side in
                handles(side).compactMap { endpoint(side).withConnection($0) { $0.nextDeadline } ?? nil }
            }
            guard let next = deadlines.min(), next <= end else { break }
            steps += 1
            try require(steps < 20_000, "deadlines without end")
            now = max(now, next)
            for side in [Role.client, .server] {
                for handle in handles(side) {
                    endpoint(side).withConnection(handle) { connection in
                        if let deadline = connection.nextDeadline, deadline <= now {
                            connection.handleDeadline(now: now)
                        }
                    }
                }
            }
            try turn()
        }
        now = end
    }

    /// Everything that the connections want to send and to say.
    private func turn() throws(FuzzFailure) {
        for side in [Role.client, .server] {
            for handle in handles(side) { try turn(side, handle) }
            let endpoint = endpoint(side)
            try require(endpoint.connectionCount <= 4, "\(endpoint.connectionCount) connections")
            try require(
                endpoint.routeCount <= (endpoint.connectionCount + 1) * 64, "\(endpoint.routeCount) routes are kept")
        }
    }

    private func turn(_ side: Role, _ handle: ConnectionHandle) throws(FuzzFailure) {
        var rounds = 0
        while true {
            let transmission = endpoint(side).withConnection(handle) { connection -> Transmission? in
                while connection.nextEvent() != nil {}
                var raw = buffer.mutableBytes
                return connection.transmit(into: &raw, now: now)
            }
            guard let transmission = transmission ?? nil else { break }
            rounds += 1
            try require(rounds < 1_000, "sends without end")
            for start in stride(from: 0, to: transmission.byteCount, by: transmission.segmentSize) {
                let end = min(start + transmission.segmentSize, transmission.byteCount)
                sent[side, default: []].append([UInt8](buffer[start..<end]))
                underWay[side, default: []].append([UInt8](buffer[start..<end]))
            }
        }
        let failure = endpoint(side).withConnection(handle) { connection -> FuzzFailure? in
            do throws(FuzzFailure) {
                try connection.checkLimits()
                return nil
            } catch {
                return error
            }
        }
        if let failure = failure ?? nil { throw failure }
    }

    /// Nothing is left of connections that are forgotten.
    func finish() throws(FuzzFailure) {
        for side in [Role.client, .server] {
            for handle in handles(side) { endpoint(side).remove(handle) }
            try require(endpoint(side).connectionCount == 0, "connections are left")
            try require(endpoint(side).routeCount == 0, "\(endpoint(side).routeCount) routes are left")
        }
    }
}
