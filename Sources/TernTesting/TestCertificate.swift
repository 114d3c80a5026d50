// SPDX-License-Identifier: Apache-2.0

public import NIOSSL
import QUICProtocol

/// A self-signed certificate for tests: what a server presents, and what makes a client trust it.
///
/// Keys come from the system's randomness. Making one takes well under a millisecond.
public struct TestCertificate: Sendable {
    private let certificate: NIOSSLCertificate
    private let privateKey: NIOSSLPrivateKey

    /// Makes one that is valid from an hour ago, for a day.
    ///
    /// - Parameters:
    ///   - names: of hosts.
    ///   - addresses: `"192.0.2.1"` or `"2001:db8::1"`, for clients that connect to an address.
    /// - Throws: `TLSConfigurationError` if a name or an address is none.
    public init(for names: String..., addresses: [String] = []) throws {
        let (certificate, privateKey) = try SelfSignedCertificate.generate(
            commonName: "test", dnsNames: names, ipAddresses: addresses, validFor: .seconds(86_400))
        self.certificate = try NIOSSLCertificate(bytes: certificate, format: .der)
        self.privateKey = try NIOSSLPrivateKey(bytes: privateKey, format: .der)
    }

    /// Presents the certificate.
    public var server: TLSConfiguration {
        .makeServerConfiguration(certificateChain: [.certificate(certificate)], privateKey: .privateKey(privateKey))
    }

    /// Trusts the certificate and no other.
    public var client: TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates([certificate])
        return configuration
    }
}
