// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOSSL
import QUICProtocol

/// The TLS configurations that the subcommands use.
enum Certificates {
    /// A server's: from PEM files, or with a throw-away certificate for the names and addresses it listens on.
    static func server(certificate: String?, privateKey: String?, hosts: [String]) throws -> TLSConfiguration {
        let chain: [NIOSSLCertificate]
        let key: NIOSSLPrivateKey
        switch (certificate, privateKey) {
        case (let certificate?, let privateKey?):
            try checkReadable(certificate)
            try checkReadable(privateKey)
            do {
                chain = try NIOSSLCertificate.fromPEMFile(certificate)
            } catch {
                throw CommandError("\(certificate) holds no certificate in PEM format")
            }
            do {
                key = try NIOSSLPrivateKey(file: privateKey, format: .pem)
            } catch {
                throw CommandError("\(privateKey) holds no private key in PEM format")
            }
            guard !chain.isEmpty else { throw CommandError("\(certificate) holds no certificate in PEM format") }
        case (nil, nil):
            (chain, key) = try selfSigned(hosts: hosts)
        default:
            throw CommandError("--cert and --key go together")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(key)
        )
        configuration.keyLogCallback = KeyLog.shared
        return configuration
    }

    /// A client's.
    ///
    /// - Parameters:
    ///   - insecure: takes any certificate.
    ///   - authorities: a PEM file of the authorities to trust instead of the system's.
    static func client(insecure: Bool, authorities: String?) throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let authorities {
            try checkReadable(authorities)
            do {
                let certificates = try NIOSSLCertificate.fromPEMFile(authorities)
                guard !certificates.isEmpty else { throw CommandError("") }
                configuration.trustRoots = .certificates(certificates)
            } catch {
                throw CommandError("\(authorities) holds no certificate in PEM format")
            }
        }
        if insecure { configuration.certificateVerification = .none }
        configuration.keyLogCallback = KeyLog.shared
        return configuration
    }

    /// The configurations of a server and of the client that trusts it and nobody else.
    static func throwAwayPair(hosts: [String]) throws -> (server: TLSConfiguration, client: TLSConfiguration) {
        let (chain, key) = try selfSigned(hosts: hosts)
        var server = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(key)
        )
        var client = TLSConfiguration.makeClientConfiguration()
        client.trustRoots = .certificates(chain)
        server.keyLogCallback = KeyLog.shared
        client.keyLogCallback = KeyLog.shared
        return (server, client)
    }

    private static func selfSigned(hosts: [String]) throws -> ([NIOSSLCertificate], NIOSSLPrivateKey) {
        let addresses = hosts.filter { HostPort(host: $0, port: 0).isIPAddress }
        let names = hosts.filter { !HostPort(host: $0, port: 0).isIPAddress }
        let made = try SelfSignedCertificate.generate(
            commonName: names.first ?? "localhost",
            dnsNames: names,
            ipAddresses: addresses,
            validFor: .seconds(14 * 86_400)
        )
        let certificate = try NIOSSLCertificate(bytes: made.certificate, format: .der)
        let key = try NIOSSLPrivateKey(bytes: made.privateKey, format: .der)
        return ([certificate], key)
    }

    private static func checkReadable(_ path: String) throws {
        _ = try FileReader(path: path)
    }
}

/// Appends the TLS secrets to the file that `SSLKEYLOGFILE` names, for Wireshark and its like.
private enum KeyLog {
    /// nil when the variable is not set.
    static let shared: NIOSSLKeyLogCallback? = {
        guard let path = environment("SSLKEYLOGFILE") else { return nil }
        guard let log = AppendedFile(path: path) else {
            StandardError.line("tern: cannot write the key log \(path)")
            return nil
        }
        return { line in log.append(line: line) }
    }()
}
