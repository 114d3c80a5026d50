// SPDX-License-Identifier: Apache-2.0

/// What an endpoint presents, whom it trusts, and what it speaks: TLS 1.3 for QUIC (RFC 9001, section 4).
///
/// The defaults are a client's that trusts the system's root certificates and checks the server's name.
public struct TLSSettings: Sendable {
    /// What a client demands of the server's certificate. Servers check clients only with `requiresClientCertificate`.
    public enum Verification: Sendable {
        /// A chain to a trust root, and the server's name or address in the certificate.
        case full
        /// A chain to a trust root.
        case noHostname
        /// Nothing at all: whoever answers is believed. For tests.
        case none
    }

    /// Certificates at which a chain may end.
    public enum TrustRoots: Sendable {
        /// The operating system's, from where Linux distributions and the BSDs keep them.
        case system
        /// Each in DER. A peer's own certificate may be among them: it is pinned then.
        case certificates([[UInt8]])
        /// The path of a file in PEM.
        case file(String)
        /// The text of such a file.
        case pem([UInt8])
    }

    /// Key exchanges of TLS 1.3, by their TLS numbers.
    public enum KeyExchangeGroup: UInt16, Sendable, CaseIterable {
        /// X25519 together with ML-KEM-768, against recordings that a quantum computer may decrypt later. It makes a
        /// ClientHello of two packets.
        case x25519MLKEM768 = 0x11ec
        case x25519 = 0x001d
        case p256 = 0x0017
        case p384 = 0x0018
        case p521 = 0x0019
    }

    /// Cipher suites of TLS 1.3, by their TLS numbers.
    public enum CipherPreference: UInt16, Sendable, CaseIterable {
        case aes128GCM = 0x1301
        case aes256GCM = 0x1302
        case chaCha20Poly1305 = 0x1303
    }

    /// Our certificate and those that lead from it to a root, each in DER. A server needs one.
    public var certificateChain: [[UInt8]]
    /// The key of the first certificate, in DER: PKCS #8, SEC 1 or PKCS #1.
    public var privateKey: [UInt8]?
    public var trustRoots: TrustRoots
    /// Roots besides `trustRoots`.
    public var additionalTrustRoots: [TrustRoots]
    public var verification: Verification
    /// Makes a server ask for a certificate and refuse clients without one that leads to a trust root.
    public var requiresClientCertificate: Bool
    /// The protocols spoken over the connection, the preferred first. QUIC needs at least one (RFC 9001, section 8.1).
    public var applicationProtocols: [String]
    /// The cipher suites, the preferred first; nil for all, in an order that suits the processor.
    public var cipherSuites: [CipherPreference]?
    /// The key exchanges, the preferred first.
    public var keyExchangeGroups: [KeyExchangeGroup]
    /// Is given each secret of each connection as a line of an `SSLKEYLOGFILE`, without its newline. Whoever has the
    /// lines can decrypt the connection. Called on the thread that drives the connection.
    public var keyLog: (@Sendable (String) -> Void)?

    public init(
        certificateChain: [[UInt8]] = [],
        privateKey: [UInt8]? = nil,
        trustRoots: TrustRoots = .system,
        additionalTrustRoots: [TrustRoots] = [],
        verification: Verification = .full,
        requiresClientCertificate: Bool = false,
        applicationProtocols: [String] = [],
        cipherSuites: [CipherPreference]? = nil,
        keyExchangeGroups: [KeyExchangeGroup] = [.x25519MLKEM768, .x25519, .p256],
        keyLog: (@Sendable (String) -> Void)? = nil
    ) {
        self.certificateChain = certificateChain
        self.privateKey = privateKey
        self.trustRoots = trustRoots
        self.additionalTrustRoots = additionalTrustRoots
        self.verification = verification
        self.requiresClientCertificate = requiresClientCertificate
        self.applicationProtocols = applicationProtocols
        self.cipherSuites = cipherSuites
        self.keyExchangeGroups = keyExchangeGroups
        self.keyLog = keyLog
    }
}

/// TLS settings that cannot work: which of them, what is wrong with it, and what to do.
public struct TLSConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The name of the setting, such as `privateKey` or `certificateChain[1]`.
    public let setting: String
    public let problem: String
    public let advice: String

    public init(_ setting: String, _ problem: String, advice: String) {
        self.setting = setting
        self.problem = problem
        self.advice = advice
    }

    public var description: String { "TLS setting \(setting): \(problem); \(advice)" }
}
