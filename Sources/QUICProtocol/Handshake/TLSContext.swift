// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// TLS settings made ready: certificates parsed, trust roots loaded. Made once and shared by many connections.
///
/// It is `@unchecked Sendable` because BoringSSL's `SSL_CTX` behind `pointer` is documented to be safe for use from
/// several threads once it is configured, and nothing configures it after `init`. The rest is immutable.
public final class TLSContext: @unchecked Sendable {
    let role: Role
    let verification: TLSSettings.Verification
    let pointer: OpaquePointer
    /// What C calls with a line of the key log. Lives as long as `pointer`.
    private let keyLog: KeyLogBox?

    private final class KeyLogBox: Sendable {
        let log: @Sendable (String) -> Void
        init(_ log: @escaping @Sendable (String) -> Void) { self.log = log }
    }

    /// Reads certificates and keys, files included, and checks that they fit together.
    public init(_ settings: TLSSettings, role: Role) throws(TLSConfigurationError) {
        let verifies =
            role == .client ? settings.verification : settings.requiresClientCertificate ? .noHostname : .none
        let mode =
            switch verifies {
            case .full: TERN_TLS_VERIFY_FULL
            case .noHostname: TERN_TLS_VERIFY_NO_HOSTNAME
            case .none: TERN_TLS_VERIFY_NONE
            }
        guard let pointer = tern_tls_context_create(role == .server ? 1 : 0, CInt(mode)) else {
            throw TLSConfigurationError("(all)", "TLS could not be set up", advice: "check that there is memory")
        }
        self.role = role
        self.verification = verifies
        self.pointer = pointer
        self.keyLog = settings.keyLog.map { KeyLogBox($0) }

        try setIdentity(settings)
        try setApplicationProtocols(settings.applicationProtocols)
        try setAlgorithms(settings)
        if verifies != .none {
            try add(settings.trustRoots, setting: "trustRoots")
            for (index, roots) in settings.additionalTrustRoots.enumerated() {
                try add(roots, setting: "additionalTrustRoots[\(index)]")
            }
        }
        if let keyLog {
            tern_tls_context_set_key_log(
                pointer,
                { box, line in
                    guard let box else { return }
                    Unmanaged<KeyLogBox>.fromOpaque(box).takeUnretainedValue().log(String(cString: line))
                }, Unmanaged.passUnretained(keyLog).toOpaque())
        }
    }

    deinit { tern_tls_context_destroy(pointer) }

    private func setIdentity(_ settings: TLSSettings) throws(TLSConfigurationError) {
        for (index, certificate) in settings.certificateChain.enumerated() {
            guard tern_tls_context_add_certificate(pointer, certificate, certificate.count) == 1 else {
                throw TLSConfigurationError(
                    "certificateChain[\(index)]", "not a certificate in DER",
                    advice: "convert PEM to DER first, one certificate an element")
            }
        }
        guard let key = settings.privateKey else {
            if role == .server || !settings.certificateChain.isEmpty {
                throw TLSConfigurationError(
                    "privateKey", "missing",
                    advice: role == .server
                        ? "a server needs certificateChain and privateKey" : "give the key of certificateChain[0]")
            }
            return
        }
        guard !settings.certificateChain.isEmpty else {
            throw TLSConfigurationError(
                "certificateChain", "empty although there is a private key",
                advice: "give the key's certificate, in DER")
        }
        switch Int(tern_tls_context_set_private_key(pointer, key, key.count)) {
        case TERN_TLS_KEY_OK: return
        case TERN_TLS_KEY_MALFORMED:
            throw TLSConfigurationError(
                "privateKey", "not a private key in DER",
                advice: "give PKCS #8, SEC 1 or PKCS #1 in DER, without a passphrase")
        case TERN_TLS_KEY_MISMATCH:
            throw TLSConfigurationError(
                "privateKey", "not the key of certificateChain[0]", advice: "put the key's own certificate first")
        default:
            throw TLSConfigurationError(
                "privateKey", "of a kind that TLS 1.3 cannot sign with here",
                advice: "use an ECDSA key on P-256 or P-384, or an RSA key of 2,048 bits or more")
        }
    }

    private func setApplicationProtocols(_ protocols: [String]) throws(TLSConfigurationError) {
        guard !protocols.isEmpty else {
            throw TLSConfigurationError(
                "applicationProtocols", "empty", advice: "QUIC needs at least one name, such as \"h3\"")
        }
        var wire = [UInt8]()
        for name in protocols {
            guard let length = UInt8(exactly: name.utf8.count), length > 0 else {
                throw TLSConfigurationError(
                    "applicationProtocols", "\"\(name)\" has no length of 1 to 255 bytes", advice: "use a shorter name")
            }
            wire.append(length)
            wire.append(contentsOf: name.utf8)
        }
        guard wire.count <= 0xffff - 2, tern_tls_context_set_alpn(pointer, wire, wire.count) == 1 else {
            throw TLSConfigurationError("applicationProtocols", "too long together", advice: "use fewer names")
        }
    }

    private func setAlgorithms(_ settings: TLSSettings) throws(TLSConfigurationError) {
        if let suites = settings.cipherSuites {
            let numbers = suites.map(\.rawValue)
            guard !numbers.isEmpty, tern_tls_context_set_cipher_suites(pointer, numbers, numbers.count) == 1 else {
                throw TLSConfigurationError(
                    "cipherSuites", "empty, or a suite occurs twice", advice: "give each suite once, or nil for all")
            }
        }
        let groups = settings.keyExchangeGroups.map(\.rawValue)
        guard !groups.isEmpty, tern_tls_context_set_groups(pointer, groups, groups.count) == 1 else {
            throw TLSConfigurationError(
                "keyExchangeGroups", "empty, or a group occurs twice", advice: "give each group once")
        }
    }

    // MARK: Trust roots

    /// Where systems keep their root certificates.
    private static let systemRootFiles = [
        "/etc/ssl/certs/ca-certificates.crt",  // Debian, Ubuntu, Alpine, Arch
        "/etc/pki/tls/certs/ca-bundle.crt",  // Fedora, Red Hat
        "/etc/ssl/cert.pem",  // macOS, the BSDs, Alpine
    ]

    private func add(_ roots: TLSSettings.TrustRoots, setting: String) throws(TLSConfigurationError) {
        switch roots {
        case .system:
            guard Self.systemRootFiles.contains(where: { tern_tls_context_add_trusted_file(pointer, $0) > 0 }) else {
                throw TLSConfigurationError(
                    setting, "this system has no root certificates in \(Self.systemRootFiles.joined(separator: ", "))",
                    advice: "install them (package ca-certificates), or give the roots as a file or as certificates")
            }
        case .certificates(let certificates):
            for (index, certificate) in certificates.enumerated() {
                guard tern_tls_context_add_trusted_certificate(pointer, certificate, certificate.count) == 1 else {
                    throw TLSConfigurationError(
                        "\(setting)[\(index)]", "not a certificate in DER",
                        advice: "convert PEM to DER, or use .pem or .file")
                }
            }
        case .file(let path):
            switch tern_tls_context_add_trusted_file(pointer, path) {
            case 1...: return
            case -2:
                throw TLSConfigurationError(
                    setting, "the file \(path) cannot be read", advice: "check that it exists and may be read")
            default:
                throw TLSConfigurationError(
                    setting, "the file \(path) holds no certificates in PEM, or a malformed one",
                    advice: "give a file of -----BEGIN CERTIFICATE----- blocks")
            }
        case .pem(let text):
            guard tern_tls_context_add_trusted_pem(pointer, text, text.count) > 0 else {
                throw TLSConfigurationError(
                    setting, "the text holds no certificates in PEM, or a malformed one",
                    advice: "give -----BEGIN CERTIFICATE----- blocks")
            }
        }
    }
}
