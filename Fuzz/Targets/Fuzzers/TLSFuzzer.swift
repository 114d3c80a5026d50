// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// The peer's TLS messages, changed on their way into the CRYPTO frames of a handshake.
///
/// The peer is a TLS session of its own, so that messages are real and their keys known; the input says what becomes
/// of each of its flights.
enum TLSFuzzer {
    static func run(_ input: FuzzInput) throws(FuzzFailure) {
        var input = input
        let kind = input.byte()
        let handshake = try Handshake(victim: kind & 1 == 0 ? .server : .client)
        try handshake.start()
        var rounds = 0
        while rounds < 32, try handshake.round(&input) { rounds += 1 }
        if kind & 2 != 0 { try handshake.pass(.seconds(2)) }
        // What is left of the input comes after the handshake, if there was one.
        while !input.isEmpty, handshake.connection.isOpen(), rounds < 64 {
            rounds += 1
            try handshake.send(input.run(), at: [.initial, .handshake, .oneRTT][input.choice(below: 3)], &input)
        }
        try handshake.pass(.seconds(1))
    }
}

/// The connection under test and a bare TLS session as its peer.
private final class Handshake {
    private let victim: Role
    private(set) var connection: QUICConnection
    private var session: TLSSession
    private var forge: Forge
    private var now = Instant.zero + .seconds(100)
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
    /// By packet number space: where the peer's next message goes, and what it waits for.
    private var sendOffsets: [UInt64] = [0, 0, 0]
    private var received: [CryptoAssembly] = [CryptoAssembly(), CryptoAssembly(), CryptoAssembly()]
    private var largestSeen: [PacketNumber?] = [nil, nil, nil]
    private var isPeerDone = false

    init(victim: Role) throws(FuzzFailure) {
        self.victim = victim
        let credentials = try Credentials.shared.get()
        var random = RandomSource.seeded(5)
        let original = ConnectionID.random(length: 8, using: &random)
        let peerID = ConnectionID.random(length: 8, using: &random)
        let localID = ConnectionID.random(length: 8, using: &random)
        let start = now
        connection = try prepare { () throws(TransportError) in
            try QUICConnection(
                role: victim, tuple: Subject.mainTuple, configuration: SharedConfiguration(FuzzSettings.connection),
                tls: credentials.context(for: victim), serverName: Credentials.serverName,
                originalDestinationID: original, remoteID: victim == .server ? peerID : original, localID: localID,
                localToken: StatelessResetToken(prefixOf: random.bytes(16)), random: random.split(),
                blocks: ReceiveBlockReserve(), now: start)
        }
        var parameters = FuzzSettings.peerParameters
        parameters.initialSourceConnectionID = peerID
        if victim == .client { parameters.originalDestinationConnectionID = original }
        let encoded = parameters.encoded(for: victim.peer, using: &random)
        session = try prepare { () throws(TransportError) in
            try TLSSession(
                context: credentials.context(for: victim.peer), role: victim.peer, serverName: Credentials.serverName,
                transportParameters: encoded)
        }
        forge = Forge(role: victim.peer, destination: victim == .server ? original : localID, source: peerID)
        try prepare { () throws(TransportError) in
            try forge.protection.installInitialKeys(destinationConnectionID: original)
        }
    }

    deinit { buffer.deallocate() }

    func start() throws(FuzzFailure) {
        let victim = victim
        try prepare { () throws(TransportError) in
            if victim == .client { try connection.startHandshake() } else { try session.start() }
        }
        try turn()
    }

    /// Hands over what the peer's TLS has to say.
    ///
    /// - Returns: whether there was anything.
    func round(_ input: inout FuzzInput) throws(FuzzFailure) -> Bool {
        var isMoving = false
        while let output = session.nextOutput() {
            isMoving = true
            switch output {
            case .bytes(let level, let bytes):
                try send(changed(bytes, &input), at: level, &input)
            case .secret(let secret, let suite, let level, let forReading):
                // Keys that the forge has for good; a 1-RTT read key that comes twice is refused by nobody.
                try prepare { () throws(TransportError) in
                    try forge.protection.install(secret, suite: suite, level: level, forReading: forReading)
                }
            }
        }
        return isMoving && connection.isOpen()
    }

    /// A flight as it was, or with a byte changed, cut short, lengthened, or replaced.
    private func changed(_ bytes: [UInt8], _ input: inout FuzzInput) -> [UInt8] {
        var bytes = bytes
        switch input.byte() & 7 {
        case 1:
            for _ in 0..<1 + input.byte() % 4 where !bytes.isEmpty {
                let place = Int(input.uint16()) % bytes.count
                bytes[place] ^= input.byte()
            }
        case 2: bytes.removeLast(Int(input.uint16()) % (bytes.count + 1))
        case 3: bytes += input.run()
        case 4: bytes = input.run(scale: 4)
        case 5:
            let place = Int(input.uint16()) % (bytes.count + 1)
            bytes.insert(contentsOf: input.run(), at: place)
        default: break
        }
        return bytes
    }

    /// Sends TLS bytes in CRYPTO frames: in one run, in small pieces, backwards, twice, or with gaps.
    func send(_ bytes: [UInt8], at level: EncryptionLevel, _ input: inout FuzzInput) throws(FuzzFailure) {
        let space = Int(level.space.rawValue)
        let style = input.byte()
        let start = sendOffsets[space]
        sendOffsets[space] += UInt64(bytes.count)
        let size = style & 1 == 0 ? 1_000 : 1 + Int(input.byte())
        var pieces: [(offset: UInt64, bytes: [UInt8])] = []
        var offset = 0
        while offset < bytes.count, pieces.count < 64 {
            // The last piece has the rest.
            let end = pieces.count == 63 ? min(bytes.count, offset + 1_000) : min(bytes.count, offset + size)
            pieces.append((start + UInt64(offset), Array(bytes[offset..<end])))
            offset = end
        }
        if style & 2 != 0 { pieces.reverse() }
        if style & 4 != 0 { pieces += pieces }
        if style & 8 != 0, let last = pieces.indices.last { pieces[last].offset += input.number() % 100_000 }
        for piece in pieces {
            var frames = cryptoFrame(offset: piece.offset, piece.bytes)
            if style & 16 != 0, let seen = largestSeen[space] { frames += ackFrame(0...seen) }
            if style & 32 != 0 { frames += [0x01] }
            let padding = victim == .server && level == .initial ? 1_200 : 0
            guard let datagram = forge.seal(frames, at: level, options: Forge.Options(padTo: padding)) else { return }
            try receive(datagram)
        }
    }

    private func receive(_ datagram: [UInt8]) throws(FuzzFailure) {
        var bytes = datagram
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        connection.receive(&raw, on: Subject.mainTuple, ecn: .notECT, now: now)
        try turn()
    }

    private func turn() throws(FuzzFailure) {
        var rounds = 0
        while true {
            var raw = buffer.mutableBytes
            guard let transmission = connection.transmit(into: &raw, now: now) else { break }
            rounds += 1
            try require(rounds < 1_000, "sends without end")
            for start in stride(from: 0, to: transmission.byteCount, by: transmission.segmentSize) {
                let end = min(start + transmission.segmentSize, transmission.byteCount)
                try note([UInt8](buffer[start..<end]))
            }
        }
        while connection.nextEvent() != nil {}
        try connection.checkLimits()
    }

    /// What the connection sends, for the peer's TLS.
    private func note(_ datagram: [UInt8]) throws(FuzzFailure) {
        for packet in forge.open(datagram, now: now) {
            let space = Int(packet.level.space.rawValue)
            largestSeen[space] = max(largestSeen[space] ?? 0, packet.number)
            var parser = FrameParser(packet.payload.span.bytes, payload: 0..<packet.payload.count)
            do throws(TransportError) {
                while let frame = try parser.next() {
                    guard case .crypto(let crypto) = frame else { continue }
                    received[space].insert(Array(packet.payload[crypto.data.range]), at: crypto.offset)
                }
            } catch {
                throw FuzzFailure("the connection sent what it would not accept: \(error)")
            }
            while !isPeerDone, let bytes = received[space].next() {
                // The connection's messages are sound, but they may answer ones that the peer never sent.
                do throws(TransportError) {
                    try bytes.span.bytes.withUnsafeBytes { bytes throws(TransportError) in
                        try session.receive(bytes, level: packet.level)
                    }
                } catch {
                    isPeerDone = true
                }
            }
        }
    }

    func pass(_ span: Nanoseconds) throws(FuzzFailure) {
        let end = now + span
        var steps = 0
        while let next = connection.nextDeadline, next <= end {
            steps += 1
            try require(steps < 20_000, "deadlines without end")
            now = max(now, next)
            connection.handleDeadline(now: now)
            try turn()
        }
        now = end
    }
}

/// Puts the CRYPTO data of one level in order.
private struct CryptoAssembly {
    private var pieces: [UInt64: [UInt8]] = [:]
    private var offset: UInt64 = 0

    mutating func insert(_ bytes: [UInt8], at start: UInt64) {
        guard start + UInt64(bytes.count) > offset else { return }
        if let known = pieces[start], known.count >= bytes.count { return }
        pieces[start] = bytes
    }

    mutating func next() -> [UInt8]? {
        for (start, bytes) in pieces where start <= offset {
            pieces[start] = nil
            let end = start + UInt64(bytes.count)
            guard end > offset else { continue }
            defer { offset = end }
            return Array(bytes.dropFirst(Int(offset - start)))
        }
        return nil
    }
}
