// SPDX-License-Identifier: Apache-2.0

/// A packet that was authenticated and decrypted in place.
struct OpenedPacket: Equatable {
    var packetNumber: PacketNumber
    /// Where the frames are, in the datagram.
    var payload: Range<Int>
}

/// The packet protection of a connection, at all levels and in both directions (RFC 9001, sections 5 and 6).
///
/// Sealing and opening work in place and allocate nothing; a key update allocates the keys of one generation.
struct PacketProtection: ~Copyable {
    /// Bytes that sealing adds to a packet; the same for all cipher suites.
    static let tagLength = 16
    /// A packet needs that many bytes from its packet number on: header protection samples 16 bytes, four bytes after the
    /// number's start (RFC 9001, section 5.4.2).
    static let minimumBytesFromPacketNumber = 20

    /// The keys of a level that never changes them.
    private struct LevelKeys: ~Copyable {
        var reading: PacketKeys?
        var writing: PacketKeys?
    }

    let role: Role
    let version: QUICVersion
    /// Asks for a key update each time that many packets were sealed with one key; nil leaves it to the AEAD's limit.
    var keyUpdateInterval: UInt64?
    /// Lower limits than the cipher suite's own.
    var confidentialityLimit: UInt64?
    var integrityLimit: UInt64?

    /// The keys of the levels before 1-RTT, which a connection has for its first moments only: they take no room in it after.
    private final class EarlyKeys {
        var initial = LevelKeys()
        var earlyData = LevelKeys()
        var handshake = LevelKeys()

        func set(_ keys: consuming PacketKeys, level: EncryptionLevel, forReading: Bool) {
            switch (level, forReading) {
            case (.initial, true): initial.reading = consume keys
            case (.initial, false): initial.writing = consume keys
            case (.earlyData, true): earlyData.reading = consume keys
            case (.earlyData, false): earlyData.writing = consume keys
            case (.handshake, true): handshake.reading = consume keys
            case (.handshake, false): handshake.writing = consume keys
            case (.oneRTT, _): break
            }
        }

        func open(
            _ level: EncryptionLevel, _ start: UnsafeMutablePointer<UInt8>, _ length: Int, _ numberOffset: Int,
            _ largestReceived: PacketNumber?, _ failures: inout UInt64, _ integrityLimit: UInt64?
        ) throws(TransportError) -> UnprotectedHeader? {
            switch level {
            case .initial:
                try PacketProtection.open(
                    start, length, numberOffset, initial.reading, largestReceived, &failures, integrityLimit)
            case .earlyData:
                try PacketProtection.open(
                    start, length, numberOffset, earlyData.reading, largestReceived, &failures, integrityLimit)
            case .handshake:
                try PacketProtection.open(
                    start, length, numberOffset, handshake.reading, largestReceived, &failures, integrityLimit)
            case .oneRTT: nil
            }
        }
    }

    private var early: EarlyKeys?
    private var oneRTTReading: OneRTTReadKeys?
    private var oneRTTWriting: OneRTTWriteKeys?
    /// The levels whose keys are there, a bit each. To ask the optionals above would copy the keys.
    private var readable: UInt8 = 0
    private var writable: UInt8 = 0
    private var isConfirmed = false
    /// Packets of this connection that failed authentication, under whatever keys (RFC 9001, section 6.6).
    private(set) var authenticationFailures: UInt64 = 0

    init(role: Role, version: QUICVersion) {
        self.role = role
        self.version = version
    }

    // MARK: Keys

    /// Makes the keys of Initial packets from the client's first Destination Connection ID, or, after a Retry, from the
    /// one that the server chose.
    mutating func installInitialKeys(destinationConnectionID: ConnectionID) throws(TransportError) {
        let secrets = try InitialSecrets(destinationConnectionID: destinationConnectionID, version: version)
        let early = makeEarlyKeys()
        early.initial.reading = try PacketKeys(
            suite: .aes128GCM, secret: secrets.secret(writtenBy: role.peer), version: version)
        early.initial.writing = try PacketKeys(
            suite: .aes128GCM, secret: secrets.secret(writtenBy: role), version: version)
        readable |= EncryptionLevel.initial.bit
        writable |= EncryptionLevel.initial.bit
    }

    private mutating func makeEarlyKeys() -> EarlyKeys {
        let keys = early ?? EarlyKeys()
        early = keys
        return keys
    }

    mutating func install(
        _ secret: TrafficSecret, suite: CipherSuite, level: EncryptionLevel, forReading: Bool
    ) throws(TransportError) {
        switch (level, forReading) {
        case (.oneRTT, true): oneRTTReading = try OneRTTReadKeys(suite: suite, secret: secret, version: version)
        case (.oneRTT, false): oneRTTWriting = try OneRTTWriteKeys(suite: suite, secret: secret, version: version)
        default:
            let keys = try PacketKeys(suite: suite, secret: secret, version: version)
            makeEarlyKeys().set(keys, level: level, forReading: forReading)
        }
        if forReading { readable |= level.bit } else { writable |= level.bit }
    }

    mutating func discard(_ level: EncryptionLevel) {
        readable &= ~level.bit
        writable &= ~level.bit
        switch level {
        case .initial: early?.initial = LevelKeys()
        case .earlyData: early?.earlyData = LevelKeys()
        case .handshake: early?.handshake = LevelKeys()
        case .oneRTT:
            oneRTTReading = nil
            oneRTTWriting = nil
        }
        if (readable | writable) & ~EncryptionLevel.oneRTT.bit == 0 { early = nil }
    }

    @inline(__always)
    func canSeal(_ level: EncryptionLevel) -> Bool { writable & level.bit != 0 }

    @inline(__always)
    func canOpen(_ level: EncryptionLevel) -> Bool { readable & level.bit != 0 }

    // MARK: Opening

    /// Removes header protection, recovers the packet number, authenticates and decrypts, all in place.
    ///
    /// A packet that cannot be opened may have its header and its payload changed, but never its last 16 bytes, where a
    /// stateless reset has its token.
    ///
    /// - Parameters:
    ///   - packet: where the packet is in the datagram.
    ///   - packetNumberOffset: from the start of the datagram.
    ///   - largestReceived: the largest packet number authenticated in the packet's number space.
    ///   - keyDiscardDelay: how long keys stay after a key update replaced them: three PTO (RFC 9001, section 6.5).
    /// - Returns: nil if the packet is to be dropped: no keys, too short, or not authentic.
    /// - Throws: what must end the connection: AEAD_LIMIT_REACHED, PROTOCOL_VIOLATION for reserved bits that are not
    ///   zero, KEY_UPDATE_ERROR.
    mutating func open(
        _ level: EncryptionLevel, datagram: inout MutableRawSpan, packet: Range<Int>, packetNumberOffset: Int,
        largestReceived: PacketNumber?, now: Instant, keyDiscardDelay: Nanoseconds
    ) throws(TransportError) -> OpenedPacket? {
        guard packet.lowerBound >= 0, packet.upperBound <= datagram.byteCount, packetNumberOffset > packet.lowerBound,
            packetNumberOffset <= packet.upperBound,
            packet.upperBound - packetNumberOffset >= Self.minimumBytesFromPacketNumber
        else { return nil }
        return try datagram.withUnsafeMutableBytes { bytes throws(TransportError) -> OpenedPacket? in
            guard let base = bytes.baseAddress else { return nil }
            let start = base.assumingMemoryBound(to: UInt8.self) + packet.lowerBound
            let length = packet.count
            let numberOffset = packetNumberOffset - packet.lowerBound
            let header: UnprotectedHeader?
            switch level {
            case .initial, .earlyData, .handshake:
                header = try early?.open(
                    level, start, length, numberOffset, largestReceived, &authenticationFailures, integrityLimit)
            case .oneRTT:
                header = try openOneRTT(start, length, numberOffset, largestReceived, now, keyDiscardDelay)
            }
            guard let header else { return nil }
            // Only a packet that is authentic may fail the connection (RFC 9000, section 17.2).
            guard header.firstByte & (header.firstByte & 0x80 != 0 ? 0x0c : 0x18) == 0 else {
                throw TransportError(.protocolViolation, "the reserved bits of a packet's header are not zero")
            }
            let payloadStart = packet.lowerBound + header.length
            return OpenedPacket(
                packetNumber: header.packetNumber, payload: payloadStart..<packet.upperBound - Self.tagLength)
        }
    }

    /// Opens a packet of a level without key updates. Nil if it is to be dropped.
    @inline(__always)
    private static func open(
        _ start: UnsafeMutablePointer<UInt8>, _ length: Int, _ numberOffset: Int, _ keys: borrowing PacketKeys?,
        _ largestReceived: PacketNumber?, _ failures: inout UInt64, _ integrityLimit: UInt64?
    ) throws(TransportError) -> UnprotectedHeader? {
        switch keys {
        case .none: return nil
        case .some(let keys):
            let header = UnprotectedHeader(
                removingProtectionOf: start, packetNumberOffset: numberOffset, key: keys.header,
                largestReceived: largestReceived)
            guard
                keys.open(
                    start, headerLength: header.length, payloadLength: length - header.length - tagLength,
                    packetNumber: header.packetNumber)
            else {
                try countFailure(&failures, limit: integrityLimit ?? keys.suite.integrityLimit)
                return nil
            }
            return header
        }
    }

    private mutating func openOneRTT(
        _ start: UnsafeMutablePointer<UInt8>, _ length: Int, _ numberOffset: Int, _ largestReceived: PacketNumber?,
        _ now: Instant, _ keyDiscardDelay: Nanoseconds
    ) throws(TransportError) -> UnprotectedHeader? {
        guard
            let packet = try oneRTTReading?.open(
                start, length: length, packetNumberOffset: numberOffset, largestReceived: largestReceived, now: now,
                keyDiscardDelay: keyDiscardDelay)
        else { return nil }
        switch packet.outcome {
        case .opened: return packet.header
        case .openedByUpdate:
            try followUpdate()
            return packet.header
        case .violation:
            throw TransportError(.keyUpdateError, "packets were not protected with newer keys in order of number")
        case .failed:
            if let limit = integrityLimit ?? oneRTTReading?.suite.integrityLimit {
                try Self.countFailure(&authenticationFailures, limit: limit)
            }
            return nil
        }
    }

    /// The peer's packets come in a new generation: ours must follow before anything is sent (RFC 9001, section 6.2).
    private mutating func followUpdate() throws(TransportError) {
        guard let readGeneration = oneRTTReading?.generation, let writeGeneration = oneRTTWriting?.generation,
            writeGeneration < readGeneration
        else { return }
        // This is an update on top of one that we have not sent a single packet in, so none can have acknowledged it.
        if writeGeneration > 0, oneRTTWriting?.firstPacketNumber == nil {
            throw TransportError(.keyUpdateError, "keys were updated twice without an acknowledgement in between")
        }
        try oneRTTWriting?.update()
    }

    private static func countFailure(_ failures: inout UInt64, limit: UInt64) throws(TransportError) {
        failures += 1
        if failures > limit {
            throw TransportError(.aeadLimitReached, "too many packets failed authentication")
        }
    }

    // MARK: Sealing

    /// Seals the packet that the writer holds from `packetStart` to its offset: encrypts it in place, appends the tag and
    /// protects the header.
    ///
    /// The packet's first byte already has the bits of the packet number's length, and `writeKeyPhase` if it is a 1-RTT
    /// packet. From the packet number on it has at least four bytes, and below the writer's limit there is room for the
    /// tag.
    ///
    /// - Throws: AEAD_LIMIT_REACHED if the keys are used up, INTERNAL_ERROR if the packet is not as described.
    mutating func seal(
        _ level: EncryptionLevel, writer: inout PacketWriter, packetStart: Int, packetNumberOffset: Int,
        packetNumberLength: Int, packetNumber: PacketNumber
    ) throws(TransportError) {
        let length = writer.offset - packetStart
        guard !writer.overflowed, writer.remaining >= Self.tagLength, packetStart >= 0,
            packetNumberOffset > packetStart, 1...4 ~= packetNumberLength,
            packetNumberOffset + 4 <= writer.offset, packetNumberOffset + packetNumberLength <= writer.offset
        else { throw TransportError(.internalError, "a packet has no room for its tag or is too short") }
        let numberOffset = packetNumberOffset - packetStart
        writer.writeZeros(Self.tagLength)
        let limit = confidentialityLimit
        let result = writer.withUnsafeMutableBytes { bytes -> SealResult in
            guard let base = bytes.baseAddress else { return .failed }
            let start = base.assumingMemoryBound(to: UInt8.self) + packetStart
            switch level {
            case .initial:
                return early?.initial.writing?.seal(
                    start, packetNumberOffset: numberOffset, packetNumberLength: packetNumberLength, length: length,
                    packetNumber: packetNumber, limit: limit) ?? .noKeys
            case .earlyData:
                return early?.earlyData.writing?.seal(
                    start, packetNumberOffset: numberOffset, packetNumberLength: packetNumberLength, length: length,
                    packetNumber: packetNumber, limit: limit) ?? .noKeys
            case .handshake:
                return early?.handshake.writing?.seal(
                    start, packetNumberOffset: numberOffset, packetNumberLength: packetNumberLength, length: length,
                    packetNumber: packetNumber, limit: limit) ?? .noKeys
            case .oneRTT:
                return oneRTTWriting?.seal(
                    start, packetNumberOffset: numberOffset, packetNumberLength: packetNumberLength, length: length,
                    packetNumber: packetNumber, limit: limit) ?? .noKeys
            }
        }
        switch result {
        case .sealed: return
        case .usedUp:
            throw TransportError(.aeadLimitReached, "the packet protection keys are used up")
        case .noKeys:
            throw TransportError(.internalError, "a packet was to be sealed at a level without keys")
        case .failed:
            throw TransportError(.internalError, "a packet could not be sealed")
        }
    }

    /// The number of a 1-RTT packet that was sealed here, read back from its protected header: for simulations that check
    /// that none is used twice.
    func sealedPacketNumber(
        of packet: [UInt8], packetNumberOffset: Int, expected: PacketNumber
    ) -> PacketNumber? {
        guard packet.count >= packetNumberOffset + 20 else { return nil }
        var copy = packet
        return copy.withUnsafeMutableBufferPointer { bytes in
            guard let start = bytes.baseAddress else { return nil }
            switch oneRTTWriting {
            case .none: return nil
            case .some(let keys):
                return UnprotectedHeader(
                    removingProtectionOf: start, packetNumberOffset: packetNumberOffset, key: keys.keys.header,
                    largestReceived: expected &- 1
                ).packetNumber
            }
        }
    }

    // MARK: Key update

    /// What the rules of key update ask about the writing keys; nil without any.
    private var writing: (generation: UInt64, isAcknowledged: Bool, sealedCount: UInt64, suite: CipherSuite)? {
        switch oneRTTWriting {
        case .none: nil
        case .some(let state): (state.generation, state.isAcknowledged, state.keys.sealedCount, state.keys.suite)
        }
    }

    private var reading: (generation: UInt64, previousExpiry: Instant?)? {
        switch oneRTTReading {
        case .none: nil
        case .some(let state): (state.generation, state.previousExpiry)
        }
    }

    /// The Key Phase bit of the next 1-RTT packet.
    var writeKeyPhase: Bool { (writing?.generation ?? 0) & 1 == 1 }

    /// Starts a key update: the next packet is sealed with new keys and the other key phase.
    ///
    /// - Returns: false if it is not allowed yet (RFC 9001, sections 6.1 and 6.5): the handshake is not confirmed, no
    ///   packet of the current phase is acknowledged, the peer has not followed the last update, or the keys from before
    ///   it are still kept.
    mutating func initiateKeyUpdate() -> Bool {
        guard mayUpdateKeys else { return false }
        do {
            try oneRTTWriting?.update()
            return true
        } catch {
            return false
        }
    }

    private var mayUpdateKeys: Bool {
        guard isConfirmed, let writing, let reading else { return false }
        return writing.isAcknowledged && reading.generation == writing.generation && reading.previousExpiry == nil
    }

    /// An update is possible and wanted: half of what one key may seal is used up, or `keyUpdateInterval` has passed.
    @inline(__always)
    var shouldUpdateKeys: Bool {
        guard let writing else { return false }
        let limit = confidentialityLimit ?? writing.suite.confidentialityLimit
        return writing.sealedCount >= min(keyUpdateInterval ?? .max, limit / 2) && mayUpdateKeys
    }

    mutating func handshakeConfirmed() { isConfirmed = true }

    /// - Parameter packetNumber: the largest 1-RTT packet number newly acknowledged.
    mutating func acknowledged(_ packetNumber: PacketNumber) {
        oneRTTWriting?.acknowledged(packetNumber)
    }

    /// Drops the read keys from before the last update once their time is over.
    mutating func expireOldKeys(now: Instant) { oneRTTReading?.expire(now: now) }

    /// Frees what the next packet received or sent makes again.
    mutating func releaseIdleMemory() {
        oneRTTReading?.releaseIdleMemory()
        oneRTTWriting?.releaseIdleMemory()
    }

    /// When `expireOldKeys` has something to do.
    var keyExpiry: Instant? { reading?.previousExpiry }
}

extension EncryptionLevel {
    fileprivate var bit: UInt8 { 1 << rawValue }
}
