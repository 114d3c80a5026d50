// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// An AEAD key with its IV and its expanded context: what a key update replaces.
struct AEADKey: ~Copyable {
    /// Nil after `release`.
    private var key: OpaquePointer?

    init(suite: CipherSuite, secret: borrowing TrafficSecret, version: QUICVersion) throws(TransportError) {
        guard let constants = KeyScheduleConstants.constants(for: version) else { throw .unknownVersion }
        // 32 bytes of key and 12 of IV, on the stack.
        var material: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
        let secret = copy secret
        let key = withUnsafeMutableBytes(of: &material) { bytes -> OpaquePointer? in
            let keyBytes = UnsafeMutableRawBufferPointer(rebasing: bytes[..<suite.keyLength])
            let iv = UnsafeMutableRawBufferPointer(rebasing: bytes[32..<44])
            guard secret.expand(constants.keyLabel, suite: suite, into: keyBytes),
                secret.expand(constants.ivLabel, suite: suite, into: iv),
                let keyBase = keyBytes.baseAddress, let ivBase = iv.baseAddress
            else { return nil }
            let result = tern_aead_key_create(
                suite.rawValue, keyBase.assumingMemoryBound(to: UInt8.self), ivBase.assumingMemoryBound(to: UInt8.self))
            tern_cleanse(keyBase, bytes.count)
            return result
        }
        guard let key else { throw TransportError(.internalError, "packet keys could not be made") }
        self.key = key
    }

    deinit { tern_aead_key_destroy(key) }

    /// Frees the context. Nothing is sealed or opened with this key any more: both say that they failed.
    mutating func release() {
        tern_aead_key_destroy(key)
        key = nil
    }

    /// Encrypts in place and writes the 16 bytes of the tag behind the payload.
    ///
    /// - Parameter packet: must have room for header, payload and tag.
    @inline(__always)
    func seal(
        _ packet: UnsafeMutablePointer<UInt8>, headerLength: Int, payloadLength: Int, packetNumber: PacketNumber
    ) -> Bool {
        tern_aead_key_seal(key, packetNumber, packet, headerLength, payloadLength) == 1
    }

    /// Authenticates and decrypts in place. On failure the payload is gone; the tag, which may be a stateless reset
    /// token, stays as it was.
    @inline(__always)
    func open(
        _ packet: UnsafeMutablePointer<UInt8>, headerLength: Int, payloadLength: Int, packetNumber: PacketNumber
    ) -> Bool {
        tern_aead_key_open(key, packetNumber, packet, headerLength, payloadLength) == 1
    }
}

/// A header protection key (RFC 9001, section 5.4): it stays the same over key updates.
struct HeaderProtectionKey: ~Copyable {
    private let key: OpaquePointer

    init(suite: CipherSuite, secret: borrowing TrafficSecret, version: QUICVersion) throws(TransportError) {
        guard let constants = KeyScheduleConstants.constants(for: version) else { throw .unknownVersion }
        var material: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
        let secret = copy secret
        let key = withUnsafeMutableBytes(of: &material) { bytes -> OpaquePointer? in
            let keyBytes = UnsafeMutableRawBufferPointer(rebasing: bytes[..<suite.keyLength])
            guard secret.expand(constants.headerProtectionLabel, suite: suite, into: keyBytes),
                let base = keyBytes.baseAddress
            else { return nil }
            let result = tern_header_key_create(suite.rawValue, base.assumingMemoryBound(to: UInt8.self))
            tern_cleanse(base, bytes.count)
            return result
        }
        guard let key else { throw TransportError(.internalError, "header protection keys could not be made") }
        self.key = key
    }

    deinit { tern_header_key_destroy(key) }

    /// Five bytes, the first in the lowest.
    ///
    /// - Parameter sample: 16 bytes of the protected packet.
    @inline(__always)
    func mask(_ sample: UnsafePointer<UInt8>) -> UInt64 { tern_header_key_mask(key, sample) }
}

enum SealResult {
    case sealed
    /// The key has sealed as many packets as it may.
    case usedUp
    case noKeys
    case failed
}

/// The keys of one direction at one level.
struct PacketKeys: ~Copyable {
    let suite: CipherSuite
    let version: QUICVersion
    var aead: AEADKey
    let header: HeaderProtectionKey
    /// Packets sealed with the AEAD key that is in use.
    private(set) var sealedCount: UInt64 = 0

    init(suite: CipherSuite, secret: TrafficSecret, version: QUICVersion) throws(TransportError) {
        guard secret.length == suite.secretLength else {
            throw TransportError(.internalError, "a traffic secret does not have the length of its cipher suite")
        }
        let aead = try AEADKey(suite: suite, secret: secret, version: version)
        let header = try HeaderProtectionKey(suite: suite, secret: secret, version: version)
        self.suite = suite
        self.version = version
        self.aead = aead
        self.header = header
    }

    /// Goes on with the keys of the next generation; the header protection key stays (RFC 9001, section 6.1).
    mutating func replaceAEAD(with secret: TrafficSecret) throws(TransportError) {
        aead = try AEADKey(suite: suite, secret: secret, version: version)
        sealedCount = 0
    }

    /// The connection is silent, and makes the key again when it goes on.
    mutating func releaseAEAD() { aead.release() }

    /// After `releaseAEAD`: the same key, which has sealed what it had.
    mutating func restoreAEAD(with secret: TrafficSecret) throws(TransportError) {
        aead = try AEADKey(suite: suite, secret: secret, version: version)
    }

    /// Five bytes, the first in the lowest.
    func headerMask(_ sample: UnsafePointer<UInt8>) -> UInt64 { header.mask(sample) }

    /// Encrypts the packet in place, appends the tag and protects the header.
    ///
    /// - Parameters:
    ///   - packet: the packet's first byte; there must be room for `length` bytes and the tag.
    ///   - packetNumberOffset: from the packet's start.
    ///   - length: of header and payload; at least four bytes from the packet number on.
    ///   - limit: a lower limit on the packets sealed with one key than the suite's own.
    @inline(__always)
    mutating func seal(
        _ packet: UnsafeMutablePointer<UInt8>, packetNumberOffset: Int, packetNumberLength: Int, length: Int,
        packetNumber: PacketNumber, limit: UInt64? = nil
    ) -> SealResult {
        guard sealedCount < limit ?? suite.confidentialityLimit else { return .usedUp }
        let headerLength = packetNumberOffset + packetNumberLength
        guard
            aead.seal(
                packet, headerLength: headerLength, payloadLength: length - headerLength, packetNumber: packetNumber)
        else { return .failed }
        sealedCount += 1
        var mask = header.mask(packet + packetNumberOffset + 4)
        packet[0] ^= UInt8(truncatingIfNeeded: mask) & protectedBits(firstByte: packet[0])
        for index in packetNumberOffset..<headerLength {
            mask >>= 8
            packet[index] ^= UInt8(truncatingIfNeeded: mask)
        }
        return .sealed
    }

    /// Decrypts a packet whose header is unprotected.
    @inline(__always)
    func open(
        _ packet: UnsafeMutablePointer<UInt8>, headerLength: Int, payloadLength: Int, packetNumber: PacketNumber
    ) -> Bool {
        aead.open(packet, headerLength: headerLength, payloadLength: payloadLength, packetNumber: packetNumber)
    }
}

/// The bits of the first byte that header protection covers (RFC 9001, section 5.4.1).
@inline(__always)
private func protectedBits(firstByte: UInt8) -> UInt8 { firstByte & 0x80 != 0 ? 0x0f : 0x1f }

/// A packet whose header protection was removed, but which nothing has authenticated yet.
struct UnprotectedHeader {
    let firstByte: UInt8
    let packetNumber: PacketNumber
    /// From the packet's start to its payload.
    let length: Int

    /// Removes header protection in place and recovers the packet number.
    ///
    /// - Parameters:
    ///   - packet: the packet's first byte; at least 20 bytes follow its packet number's offset.
    ///   - largestReceived: in the packet's number space.
    @inline(__always)
    init(
        removingProtectionOf packet: UnsafeMutablePointer<UInt8>, packetNumberOffset: Int,
        key: borrowing HeaderProtectionKey, largestReceived: PacketNumber?
    ) {
        var mask = key.mask(packet + packetNumberOffset + 4)
        let firstByte = packet[0] ^ UInt8(truncatingIfNeeded: mask) & protectedBits(firstByte: packet[0])
        packet[0] = firstByte
        let length = packetNumberOffset + Int(firstByte & 0b11) + 1
        var truncated: UInt64 = 0
        for index in packetNumberOffset..<length {
            mask >>= 8
            packet[index] ^= UInt8(truncatingIfNeeded: mask)
            truncated = truncated << 8 | UInt64(packet[index])
        }
        self.firstByte = firstByte
        self.packetNumber = PacketNumberCoding.decode(
            truncated: truncated, length: length - packetNumberOffset, largestReceived: largestReceived)
        self.length = length
    }
}
