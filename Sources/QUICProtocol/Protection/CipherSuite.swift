// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// The cipher suites of TLS 1.3 that protect QUIC packets (RFC 9001, section 5.3), by their TLS numbers.
enum CipherSuite: UInt16, CaseIterable, Sendable {
    case aes128GCM = 0x1301
    case aes256GCM = 0x1302
    case chaCha20Poly1305 = 0x1303

    /// Bytes of a traffic secret: the length of the suite's hash.
    var secretLength: Int { self == .aes256GCM ? 48 : 32 }

    /// Bytes of the AEAD key and of the header protection key.
    var keyLength: Int { self == .aes128GCM ? 16 : 32 }

    /// How many packets may be sealed with one key (RFC 9001, section 6.6).
    var confidentialityLimit: UInt64 {
        switch self {
        case .aes128GCM, .aes256GCM: 1 << 23
        // More than there are packet numbers.
        case .chaCha20Poly1305: 1 << 62
        }
    }

    /// How many packets may fail authentication in one connection (RFC 9001, section 6.6).
    var integrityLimit: UInt64 {
        switch self {
        case .aes128GCM, .aes256GCM: 1 << 52
        case .chaCha20Poly1305: 1 << 36
        }
    }
}

/// What of the key schedule depends on the version of QUIC (RFC 9001, sections 5.1, 5.2 and 5.8).
struct KeyScheduleConstants {
    let initialSalt: [UInt8]
    let keyLabel: StaticString
    let ivLabel: StaticString
    let headerProtectionLabel: StaticString
    let keyUpdateLabel: StaticString
    let retryKey: [UInt8]
    let retryNonce: [UInt8]

    static let v1 = KeyScheduleConstants(
        initialSalt: [
            0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
            0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a,
        ],
        keyLabel: "quic key",
        ivLabel: "quic iv",
        headerProtectionLabel: "quic hp",
        keyUpdateLabel: "quic ku",
        retryKey: [
            0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e,
        ],
        retryNonce: [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb]
    )

    /// Nil for a version that this engine does not speak.
    static func constants(for version: QUICVersion) -> KeyScheduleConstants? {
        version == .v1 ? .v1 : nil
    }
}

/// A secret that packet keys are derived from, of 32 or 48 bytes, held inline: it can be kept for the next key update
/// without a heap object a connection.
struct TrafficSecret: Sendable {
    static let maximumLength = 48

    private var storage: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
    private(set) var length: Int

    /// Nil for more than 48 bytes, or none.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty, bytes.count <= Self.maximumLength else { return nil }
        length = bytes.count
        Swift.withUnsafeMutableBytes(of: &storage) { $0.copyMemory(from: bytes) }
    }

    init?(_ bytes: [UInt8]) {
        guard let secret = bytes.withUnsafeBytes({ TrafficSecret($0) }) else { return nil }
        self = secret
    }

    private init(length: Int) {
        self.length = length
    }

    var bytes: [UInt8] { withUnsafeBytes { [UInt8]($0) } }

    func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        Swift.withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<length])) }
    }

    /// Overwrites the secret. Copies, which the compiler is free to make, are not reached.
    mutating func erase() {
        Swift.withUnsafeMutableBytes(of: &storage) { bytes in
            if let base = bytes.baseAddress { tern_cleanse(base, bytes.count) }
        }
        length = 0
    }

    /// HKDF-Expand-Label with the hash of the suite. Nil only if the label is over-long.
    func expand(_ label: StaticString, suite: CipherSuite, into output: UnsafeMutableRawBufferPointer) -> Bool {
        guard let out = output.baseAddress else { return false }
        return withUnsafeBytes { secret in
            guard let base = secret.baseAddress else { return false }
            return tern_hkdf_expand_label(
                suite.rawValue, base.assumingMemoryBound(to: UInt8.self), secret.count,
                label.utf8Start, label.utf8CodeUnitCount,
                out.assumingMemoryBound(to: UInt8.self), output.count) == 1
        }
    }

    func expand(_ label: StaticString, suite: CipherSuite) throws(TransportError) -> TrafficSecret {
        var result = TrafficSecret(length: suite.secretLength)
        let expanded = Swift.withUnsafeMutableBytes(of: &result.storage) { bytes in
            expand(label, suite: suite, into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<suite.secretLength]))
        }
        guard expanded else { throw TransportError(.internalError, "a secret could not be derived") }
        return result
    }

    /// The secret after a key update (RFC 9001, section 6.1).
    func nextGeneration(suite: CipherSuite, version: QUICVersion) throws(TransportError) -> TrafficSecret {
        guard let constants = KeyScheduleConstants.constants(for: version) else { throw .unknownVersion }
        return try expand(constants.keyUpdateLabel, suite: suite)
    }
}

extension TransportError {
    /// A caller's mistake: versions are checked before keys are made.
    static var unknownVersion: TransportError {
        TransportError(.internalError, "no key schedule is known for this version of QUIC")
    }
}

/// The secrets of Initial packets, which anyone who sees the connection ID can derive: they protect against accidents
/// and off-path attackers, not against observers (RFC 9001, section 5.2).
struct InitialSecrets {
    let client: TrafficSecret
    let server: TrafficSecret

    init(destinationConnectionID id: ConnectionID, version: QUICVersion) throws(TransportError) {
        guard let constants = KeyScheduleConstants.constants(for: version) else { throw .unknownVersion }
        var initial = [UInt8](repeating: 0, count: 32)
        // A pointer to the ID's bytes even when it has none.
        let idBytes = id.bytes + [0]
        let extracted = tern_hkdf_extract_sha256(
            idBytes, Int(id.length), constants.initialSalt, constants.initialSalt.count, &initial)
        guard extracted == 1, let secret = TrafficSecret(initial) else {
            throw TransportError(.internalError, "the Initial secret could not be derived")
        }
        client = try secret.expand("client in", suite: .aes128GCM)
        server = try secret.expand("server in", suite: .aes128GCM)
    }

    /// The secret that an endpoint of this role writes with.
    func secret(writtenBy role: Role) -> TrafficSecret { role == .client ? client : server }
}
