// SPDX-License-Identifier: Apache-2.0

import NIOSSL
import QUICProtocol
import Testing

@testable import Tern

@Suite("A TLS configuration made for NIOSSL")
struct TLSConversionTests {
    @Test("is taken over with its certificates, key, roots and protocols")
    func server() throws {
        let settings = try TLSSettings(TestCredentials.server(), applicationProtocols: ["perf", "hq"], role: .server)
        #expect(settings.certificateChain == [try TestCredentials.certificates()[0].toDERBytes()])
        #expect(settings.privateKey?.isEmpty == false)
        #expect(settings.applicationProtocols == ["perf", "hq"])
        guard case .none = settings.verification else {
            Issue.record("a server does not ask for a client's certificate unless told to")
            return
        }
    }

    @Test("gives a client its trust roots, and its own protocols where the call names none")
    func client() throws {
        var configuration = try TestCredentials.client()
        configuration.applicationProtocols = ["own"]
        let settings = try TLSSettings(configuration, applicationProtocols: [], role: .client)
        #expect(settings.applicationProtocols == ["own"])
        guard case .certificates(let roots) = settings.trustRoots, case .full = settings.verification else {
            Issue.record("trust roots or verification were not taken over")
            return
        }
        #expect(roots == [try TestCredentials.certificates()[0].toDERBytes()])
    }

    @Test("is refused without an application protocol, without TLS 1.3, and on a server without a key")
    func refusals() throws {
        let client = try TestCredentials.client()
        #expect(throws: TernError.noApplicationProtocol) {
            try TLSSettings(client, applicationProtocols: [], role: .client)
        }
        var old = client
        old.maximumTLSVersion = .tlsv12
        #expect(throws: TernError.self) { try TLSSettings(old, applicationProtocols: ["a"], role: .client) }
        #expect(throws: TernError.self) { try TLSSettings(client, applicationProtocols: ["a"], role: .server) }
        #expect(throws: TernError.self) { try TLSSettings(client, applicationProtocols: [""], role: .client) }
    }

    @Test("gives the same context as long as it is the same")
    func cached() throws {
        let cache = TLSContextCache()
        let configuration = try TestCredentials.client()
        let first = try cache.context(for: configuration, applicationProtocols: ["a"], role: .client)
        #expect(try cache.context(for: configuration, applicationProtocols: ["a"], role: .client) === first)
        #expect(try cache.context(for: configuration, applicationProtocols: ["b"], role: .client) !== first)
        for number in 0..<TLSContextCache.maximumEntries {
            _ = try cache.context(for: configuration, applicationProtocols: ["\(number)"], role: .client)
        }
        #expect(try cache.context(for: configuration, applicationProtocols: ["a"], role: .client) !== first)
    }
}
