// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A throw-away certificate for the servers of simulations, and what makes their clients trust it.
///
/// Keys and signatures come from the system's randomness: they differ between runs of one seed, their lengths hardly.
public struct SimulationCredentials: Sendable {
    public static let serverName = "server.simulation"
    public static let applicationProtocol = "perf"

    private let certificate: [UInt8]
    private let privateKey: [UInt8]

    /// Those that scenarios use unless told otherwise, made once a process.
    public static let shared = Result { try SimulationCredentials() }

    /// - Parameter additionalNames: names that enlarge the certificate, for handshakes of several datagrams.
    public init(additionalNames: [String] = []) throws {
        (certificate, privateKey) = try SelfSignedCertificate.generate(
            commonName: Self.serverName, dnsNames: [Self.serverName] + additionalNames,
            ipAddresses: [NetworkAddress](), validFor: 1)
    }

    /// What a server presents.
    public func serverContext() throws -> TLSContext {
        var settings = TLSSettings()
        settings.certificateChain = [certificate]
        settings.privateKey = privateKey
        settings.applicationProtocols = [Self.applicationProtocol]
        return try TLSContext(settings, role: .server)
    }

    /// Trusts this certificate and no other.
    public func clientContext() throws -> TLSContext {
        var settings = TLSSettings()
        settings.trustRoots = .certificates([certificate])
        settings.applicationProtocols = [Self.applicationProtocol]
        return try TLSContext(settings, role: .client)
    }
}
