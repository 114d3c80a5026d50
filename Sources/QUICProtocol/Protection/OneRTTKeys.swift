// SPDX-License-Identifier: Apache-2.0

/// The keys of 1-RTT packets, which are updated while the connection lives (RFC 9001, section 6).
///
///     generation        n-1          n           n+1
///     reading        previous?    current       next      (next is always ready: RFC 9001, section 6.3)
///     writing                   n, or n+1 while our own update waits for the peer's first packet in it
///
/// Reading moves on when a packet is authenticated by the `next` keys, and by nothing else: a forged key phase bit costs
/// one failed authentication. Writing moves on with it, or before it when the update is ours.
///
/// A silent connection has the secrets only: it makes the keys of both directions again when it has a use for them.
struct OneRTTReadKeys: ~Copyable {
    private let isByAddress = ByAddress()
    let suite: CipherSuite
    let version: QUICVersion
    let header: HeaderProtectionKey
    /// How many times the keys were updated; its lowest bit is the key phase.
    private(set) var generation: UInt64 = 0
    /// When the keys of the previous generation are to be dropped; nil if there are none.
    private(set) var previousExpiry: Instant?

    private var previous: AEADKey?
    private var current: AEADKey
    private var next: AEADKey
    /// `current` and `next` are there: not while the connection is silent.
    private var isReady = true
    /// The secrets of `current` and of `next`.
    private var secret: TrafficSecret
    private var nextSecret: TrafficSecret

    /// The packet numbers authenticated in the current generation, and the largest of those before it. A newer key on an
    /// older packet, or the reverse, is the peer's error (RFC 9001, section 6.4).
    private var lowest: PacketNumber?
    private var highest: PacketNumber = 0
    private var highestOfPrevious: PacketNumber?

    enum Outcome {
        /// The packet is to be dropped and counted as a forgery.
        case failed
        case opened
        /// The packet was the first in the next generation, whose keys are the current ones now.
        case openedByUpdate
        case violation
    }

    init(suite: CipherSuite, secret: TrafficSecret, version: QUICVersion) throws(TransportError) {
        guard secret.length == suite.secretLength else {
            throw TransportError(.internalError, "a traffic secret does not have the length of its cipher suite")
        }
        let nextSecret = try secret.nextGeneration(suite: suite, version: version)
        let header = try HeaderProtectionKey(suite: suite, secret: secret, version: version)
        let current = try AEADKey(suite: suite, secret: secret, version: version)
        let next = try AEADKey(suite: suite, secret: nextSecret, version: version)
        self.suite = suite
        self.version = version
        self.header = header
        self.previous = nil
        self.current = current
        self.next = next
        self.secret = secret
        self.nextSecret = nextSecret
    }

    var hasPrevious: Bool { previousExpiry != nil }

    /// Removes the header protection of a packet and opens it with the keys that its phase bit and number ask for.
    ///
    /// Exactly one authentication is tried whatever they are, with keys that exist already, so that time does not tell
    /// which it was (RFC 9001, section 9.5). After a silence both generations' are made again for the first packet,
    /// before anything of it is looked at. A forgery can have them made once in a silence, and so take back what was freed.
    ///
    /// - Parameters:
    ///   - length: of the whole packet, which has 20 bytes from its number on at least.
    mutating func open(
        _ packet: UnsafeMutablePointer<UInt8>, length: Int, packetNumberOffset: Int, largestReceived: PacketNumber?,
        now: Instant, keyDiscardDelay: Nanoseconds
    ) throws(TransportError) -> (outcome: Outcome, header: UnprotectedHeader) {
        if !isReady { try makeKeysAgain() }
        let header = UnprotectedHeader(
            removingProtectionOf: packet, packetNumberOffset: packetNumberOffset, key: self.header,
            largestReceived: largestReceived)
        let outcome = try open(
            packet, header: header, payloadLength: length - header.length - PacketProtection.tagLength, now: now,
            keyDiscardDelay: keyDiscardDelay)
        return (outcome, header)
    }

    @inline(__always)
    private mutating func open(
        _ packet: UnsafeMutablePointer<UInt8>, header: UnprotectedHeader, payloadLength: Int, now: Instant,
        keyDiscardDelay: Nanoseconds
    ) throws(TransportError) -> Outcome {
        let number = header.packetNumber
        let phase = header.firstByte & 0x04 != 0
        if phase == (generation & 1 == 1) {
            guard
                current.open(
                    packet, headerLength: header.length, payloadLength: payloadLength, packetNumber: number)
            else { return .failed }
            if let limit = highestOfPrevious, number < limit { return .violation }
            lowest = min(lowest ?? number, number)
            highest = max(highest, number)
            return .opened
        }
        if let lowest, number < lowest, hasPrevious {
            let opened =
                previous?.open(
                    packet, headerLength: header.length, payloadLength: payloadLength, packetNumber: number) ?? false
            guard opened else { return .failed }
            highestOfPrevious = max(highestOfPrevious ?? number, number)
            return .opened
        }
        guard
            next.open(packet, headerLength: header.length, payloadLength: payloadLength, packetNumber: number)
        else { return .failed }
        // The current keys protected a higher number than this one's, which newer keys protect.
        if lowest != nil, number < highest { return .violation }
        try promote(firstPacketNumber: number, expiry: now + keyDiscardDelay)
        return .openedByUpdate
    }

    private mutating func promote(firstPacketNumber number: PacketNumber, expiry: Instant) throws(TransportError) {
        var following = try nextSecret.nextGeneration(suite: suite, version: version)
        var incoming = try AEADKey(suite: suite, secret: following, version: version)
        swap(&incoming, &next)
        swap(&incoming, &current)
        previous = consume incoming
        previousExpiry = expiry
        secret.erase()
        secret = nextSecret
        nextSecret = following
        following.erase()
        generation += 1
        if lowest != nil { highestOfPrevious = highest }
        lowest = number
        highest = number
    }

    /// The connection is silent: the keys are made again when a packet comes.
    mutating func releaseIdleMemory() {
        current.release()
        next.release()
        isReady = false
    }

    @inline(never)
    private mutating func makeKeysAgain() throws(TransportError) {
        current = try AEADKey(suite: suite, secret: secret, version: version)
        next = try AEADKey(suite: suite, secret: nextSecret, version: version)
        isReady = true
    }

    mutating func expire(now: Instant) {
        guard let previousExpiry, previousExpiry <= now else { return }
        previous = nil
        self.previousExpiry = nil
    }
}

/// The writing half of the 1-RTT keys.
struct OneRTTWriteKeys: ~Copyable {
    var keys: PacketKeys
    private(set) var generation: UInt64 = 0
    /// The first packet sealed in this generation.
    private(set) var firstPacketNumber: PacketNumber?
    /// The peer has acknowledged a packet of this generation, so that it has the keys.
    private(set) var isAcknowledged = false
    private var secret: TrafficSecret
    /// The AEAD key is there: not while the connection is silent.
    private var isReady = true

    init(suite: CipherSuite, secret: TrafficSecret, version: QUICVersion) throws(TransportError) {
        keys = try PacketKeys(suite: suite, secret: secret, version: version)
        self.secret = secret
    }

    mutating func update() throws(TransportError) {
        var replaced = secret
        secret = try secret.nextGeneration(suite: keys.suite, version: keys.version)
        replaced.erase()
        try keys.replaceAEAD(with: secret)
        isReady = true
        generation += 1
        firstPacketNumber = nil
        isAcknowledged = false
    }

    @inline(__always)
    mutating func seal(
        _ packet: UnsafeMutablePointer<UInt8>, packetNumberOffset: Int, packetNumberLength: Int, length: Int,
        packetNumber: PacketNumber, limit: UInt64?
    ) -> SealResult {
        if !isReady, !makeKeyAgain() { return .failed }
        let result = keys.seal(
            packet, packetNumberOffset: packetNumberOffset, packetNumberLength: packetNumberLength, length: length,
            packetNumber: packetNumber, limit: limit)
        if result == .sealed, firstPacketNumber == nil { firstPacketNumber = packetNumber }
        return result
    }

    /// The connection is silent: the key is made again for the next packet that is sent.
    mutating func releaseIdleMemory() {
        keys.releaseAEAD()
        isReady = false
    }

    @inline(never)
    private mutating func makeKeyAgain() -> Bool {
        do {
            try keys.restoreAEAD(with: secret)
            isReady = true
            return true
        } catch {
            return false
        }
    }

    mutating func acknowledged(_ packetNumber: PacketNumber) {
        if let firstPacketNumber, packetNumber >= firstPacketNumber { isAcknowledged = true }
    }
}
