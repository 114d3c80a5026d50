// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// What two endpoints in memory need to trust each other: a certificate of the server's own, which the client expects.
public struct TLSPair {
    public let server: TLSContext
    public let client: TLSContext

    public init() throws {
        let certificate = try SelfSignedCertificate.generate(
            commonName: "localhost", dnsNames: ["localhost"], ipAddresses: [NetworkAddress](), validFor: 2)
        var settings = TLSSettings()
        settings.certificateChain = [certificate.certificate]
        settings.privateKey = certificate.privateKey
        settings.applicationProtocols = ["bench"]
        server = try TLSContext(settings, role: .server)
        settings = TLSSettings()
        settings.trustRoots = .certificates([certificate.certificate])
        settings.applicationProtocols = ["bench"]
        client = try TLSContext(settings, role: .client)
    }
}
