// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOSSL

extension TLSSettings {
    /// What QUIC's TLS needs of a configuration made for NIOSSL. Reads files that it names.
    ///
    /// TLS 1.3 leaves no choice of versions, cipher suites and renegotiation; those settings are not read.
    init(_ configuration: TLSConfiguration, applicationProtocols: [String], role: Role) throws(TernError) {
        if let maximum = configuration.maximumTLSVersion, maximum != .tlsv13 {
            throw .tls("maximumTLSVersion excludes TLS 1.3, which QUIC requires")
        }
        if configuration.pskClientProvider != nil || configuration.pskServerProvider != nil {
            throw .tls("external pre-shared keys are not supported")
        }
        let protocols = applicationProtocols.isEmpty ? configuration.applicationProtocols : applicationProtocols
        guard !protocols.isEmpty else { throw .noApplicationProtocol }
        guard protocols.allSatisfy({ 1...255 ~= $0.utf8.count }) else {
            throw .tls("an application protocol (ALPN) has 1 to 255 bytes")
        }
        self.init()
        self.applicationProtocols = protocols
        do {
            certificateChain = try configuration.certificateChain.flatMap { try sources.certificates($0) }
            privateKey = try configuration.privateKey.map { try sources.privateKey($0) }
            switch configuration.trustRoots {
            case nil, .default?: trustRoots = .system
            case .file(let path)?: trustRoots = .file(path)
            case .certificates(let list)?: trustRoots = .certificates(try list.map { try $0.toDERBytes() })
            }
            additionalTrustRoots = try configuration.additionalTrustRoots.map { roots in
                switch roots {
                case .file(let path): .file(path)
                case .certificates(let list): .certificates(try list.map { try $0.toDERBytes() })
                }
            }
        } catch {
            throw .tls("\(error)")
        }
        switch configuration.certificateVerification {
        case .fullVerification: verification = .full
        case .noHostnameVerification: verification = .noHostname
        case .none(let options):
            if options.validatePresentedCertificates {
                // A server always presents its certificate in TLS 1.3 without pre-shared keys; a client may keep its own.
                guard role == .client else { throw .tls("optional client certificates are not supported") }
                verification = .noHostname
            } else {
                verification = .none
            }
        }
        requiresClientCertificate = role == .server && configuration.certificateVerification != .none
        if let curves = configuration.curves {
            keyExchangeGroups = curves.compactMap { KeyExchangeGroup(rawValue: $0.rawValue) }
            guard !keyExchangeGroups.isEmpty else { throw .tls("none of the curves is supported") }
        }
        if role == .server, certificateChain.isEmpty || privateKey == nil {
            throw .tls("a server needs a certificate chain and a private key")
        }
        if let log = configuration.keyLogCallback {
            keyLog = { line in log(ByteBuffer(string: line + "\n")) }
        }
    }
}

/// NIOSSL deprecates sources that are files but takes them, and so do we: through a protocol, since a function that names a
/// deprecated case may not be called without a warning.
private protocol SourceLoading {
    func certificates(_ source: NIOSSLCertificateSource) throws -> [[UInt8]]
    func privateKey(_ source: NIOSSLPrivateKeySource) throws -> [UInt8]
}

private struct SourceLoader: SourceLoading {
    @available(*, deprecated)
    func certificates(_ source: NIOSSLCertificateSource) throws -> [[UInt8]] {
        switch source {
        case .certificate(let certificate): [try certificate.toDERBytes()]
        case .file(let path): try NIOSSLCertificate.fromPEMFile(path).map { try $0.toDERBytes() }
        }
    }

    @available(*, deprecated)
    func privateKey(_ source: NIOSSLPrivateKeySource) throws -> [UInt8] {
        switch source {
        case .privateKey(let key): try key.derBytes
        case .file(let path):
            try NIOSSLPrivateKey(file: path, format: path.hasSuffix(".pem") ? .pem : .der).derBytes
        }
    }
}

private let sources: any SourceLoading & Sendable = SourceLoader()
