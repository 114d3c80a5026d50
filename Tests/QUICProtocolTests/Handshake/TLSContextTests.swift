// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

struct TLSContextTests {
    private let certificate: TestCertificate

    init() throws { certificate = try TestCertificate.shared.get() }

    private func refusal(_ settings: TLSSettings, role: Role) -> TLSConfigurationError? {
        do throws(TLSConfigurationError) {
            _ = try TLSContext(settings, role: role)
            return nil
        } catch {
            return error
        }
    }

    @Test("settings that cannot work are refused, and the error names the setting")
    func refusals() throws {
        let good = certificate.serverSettings
        #expect(refusal(good, role: .server) == nil)

        var settings = good
        settings.privateKey = nil
        #expect(refusal(settings, role: .server)?.setting == "privateKey")
        settings.privateKey = Array(certificate.privateKey.dropLast())
        #expect(refusal(settings, role: .server)?.setting == "privateKey")
        settings.privateKey = try TestCertificate().privateKey
        #expect(refusal(settings, role: .server)?.problem == "not the key of certificateChain[0]")

        settings = good
        settings.certificateChain = []
        #expect(refusal(settings, role: .server)?.setting == "certificateChain")
        settings.certificateChain = [certificate.certificate, [1, 2, 3]]
        #expect(refusal(settings, role: .server)?.setting == "certificateChain[1]")

        settings = good
        settings.applicationProtocols = []
        #expect(refusal(settings, role: .server)?.setting == "applicationProtocols")
        settings.applicationProtocols = [""]
        #expect(refusal(settings, role: .server)?.setting == "applicationProtocols")
        settings.applicationProtocols = [String(repeating: "a", count: 256)]
        #expect(refusal(settings, role: .server)?.setting == "applicationProtocols")

        settings = good
        settings.cipherSuites = []
        #expect(refusal(settings, role: .server)?.setting == "cipherSuites")
        settings.cipherSuites = nil
        settings.keyExchangeGroups = []
        #expect(refusal(settings, role: .server)?.setting == "keyExchangeGroups")

        var client = certificate.clientSettings
        client.trustRoots = .certificates([certificate.certificate, []])
        #expect(refusal(client, role: .client)?.setting == "trustRoots[1]")
        client.trustRoots = .file("/nonexistent/roots.pem")
        #expect(refusal(client, role: .client)?.description.contains("/nonexistent/roots.pem") == true)
        client.trustRoots = .pem([UInt8]("no certificate".utf8))
        #expect(refusal(client, role: .client)?.setting == "trustRoots")
        client = certificate.clientSettings
        client.additionalTrustRoots = [.pem([])]
        #expect(refusal(client, role: .client)?.setting == "additionalTrustRoots[0]")
        client.verification = .none
        #expect(refusal(client, role: .client) == nil, "roots are not read when nothing is verified")
    }

    @Test("trust roots may be PEM text, and additional roots count as well")
    func pemRoots() throws {
        let base64 = Base64.encode(certificate.certificate)
        let pem = "a comment\n-----BEGIN CERTIFICATE-----\n\(base64)-----END CERTIFICATE-----\n"
        var client = certificate.clientSettings
        client.trustRoots = .pem([UInt8](pem.utf8))
        var pair = try HandshakePair(client: client, server: certificate.serverSettings)
        try pair.run()
        verify(pair.client.isComplete)

        client.trustRoots = .certificates([try TestCertificate().certificate])
        client.additionalTrustRoots = [.certificates([certificate.certificate])]
        pair = try HandshakePair(client: client, server: certificate.serverSettings)
        try pair.run()
        verify(pair.client.isComplete)

        client.trustRoots = .pem([UInt8](pem.replacing("MI", with: "AA").utf8))
        #expect(refusal(client, role: .client) != nil)
    }

    @Test("the defaults load the system's roots, which do not vouch for a certificate made here")
    func systemRoots() throws {
        let settings = TLSSettings(applicationProtocols: ["perf"])
        if let refusal = refusal(settings, role: .client) {
            // A system without any.
            #expect(refusal.setting == "trustRoots")
            #expect(refusal.problem.contains("/etc/ssl/certs/ca-certificates.crt"))
            return
        }
        var pair = try HandshakePair(client: settings, server: certificate.serverSettings)
        let error = #expect(throws: TransportError.self) { try pair.run() }
        #expect(error?.code == .tlsAlert(48))
    }

    @Test("certificates are refused with impossible names or times")
    func certificateMistakes() {
        func refusal(_ name: String, _ dnsNames: [String], _ days: Int) -> String? {
            do throws(TLSConfigurationError) {
                _ = try SelfSignedCertificate.generate(
                    commonName: name, dnsNames: dnsNames, ipAddresses: [NetworkAddress](), validFor: days)
                return nil
            } catch {
                return error.setting
            }
        }
        #expect(refusal("a", [], 1) == nil)
        #expect(refusal("", [], 1) == "commonName")
        #expect(refusal(String(repeating: "a", count: 65), [], 1) == "commonName")
        #expect(refusal("a", ["b\0c"], 1) == "dnsNames")
        #expect(refusal("a", [""], 1) == "dnsNames")
        #expect(refusal("a", [], 0) == "validFor")
        #expect(refusal("a", [], 1_000_000) == "validFor")
        #expect(throws: TLSConfigurationError.self) {
            _ = try SelfSignedCertificate.generate(
                commonName: "a", dnsNames: [], ipAddresses: ["300.1.2.3"], validFor: .seconds(1))
        }
        #expect(throws: Never.self) {
            _ = try SelfSignedCertificate.generate(
                commonName: "a", dnsNames: [], ipAddresses: ["10.1.2.3", "::1"], validFor: .seconds(1))
        }
    }

    @Test("each certificate has a key of its own")
    func freshKeys() throws {
        let a = try TestCertificate()
        let b = try TestCertificate()
        #expect(a.privateKey != b.privateKey)
        #expect(a.certificate != b.certificate)
    }
}

private enum Base64 {
    static func encode(_ bytes: [UInt8]) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
        var text = ""
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let word = group.enumerated().reduce(UInt32(0)) { $0 | UInt32($1.element) << (16 - 8 * UInt32($1.offset)) }
            for index in 0..<4 {
                text.append(index <= group.count ? alphabet[Int(word >> (18 - 6 * UInt32(index))) & 63] : "=")
            }
            if start % 48 == 45 { text.append("\n") }
        }
        return text.hasSuffix("\n") ? text : text + "\n"
    }
}
