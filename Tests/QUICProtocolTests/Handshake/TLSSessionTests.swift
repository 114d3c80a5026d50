// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

struct TLSSessionTests {
    private let certificate: TestCertificate

    init() throws { certificate = try TestCertificate.shared.get() }

    /// The error that a handshake between these ends with.
    private func failure(
        client: TLSSettings, server: TLSSettings, serverName: String? = "server.example"
    ) -> TransportError? {
        do {
            var pair = try HandshakePair(client: client, server: server, serverName: serverName)
            try pair.run()
            return nil
        } catch let error as TransportError {
            return error
        } catch {
            return TransportError(.internalError, "not a transport error: \(error)")
        }
    }

    @Test("a handshake completes with each key exchange", arguments: TLSSettings.KeyExchangeGroup.allCases)
    func groups(group: TLSSettings.KeyExchangeGroup) throws {
        var client = certificate.clientSettings
        var server = certificate.serverSettings
        client.keyExchangeGroups = [group]
        server.keyExchangeGroups = [group]
        var pair = try HandshakePair(client: client, server: server)
        try pair.run()
        verify(pair.client.isComplete)
        verify(pair.server.isComplete)
        verify(pair.client.keyExchangeGroup == group)
        verify(pair.server.keyExchangeGroup == group)
    }

    @Test(
        "a handshake completes with each cipher suite, and both sides have the same secrets",
        arguments: TLSSettings.CipherPreference.allCases)
    func suites(suite: TLSSettings.CipherPreference) throws {
        var client = certificate.clientSettings
        client.cipherSuites = [suite]
        var pair = try HandshakePair(client: client, server: certificate.serverSettings)
        try pair.run()
        verify(pair.client.isComplete && pair.server.isComplete)
        verify(pair.clientReads == pair.serverWrites)
        verify(pair.clientWrites == pair.serverReads)
        verify(Set(pair.clientReads.map(\.level)) == [.handshake, .oneRTT])
        verify(Set(pair.clientWrites.map(\.level)) == [.handshake, .oneRTT])
        for secret in pair.clientReads.union(pair.clientWrites) {
            #expect(secret.suite.rawValue == suite.rawValue)
            #expect(secret.bytes.count == secret.suite.secretLength)
        }
        verify(pair.clientReads.union(pair.clientWrites).count == 4)
    }

    @Test("the application protocol is the server's choice, and transport parameters cross over")
    func negotiated() throws {
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        verify(pair.client.applicationProtocol == nil)
        verify(pair.client.peerTransportParameters == nil)
        try pair.run()
        verify(pair.client.applicationProtocol == "perf")
        verify(pair.server.applicationProtocol == "perf")
        verify(pair.client.peerTransportParameters == [0x04, 0x01, 0x20])
        verify(pair.server.peerTransportParameters == [0x04, 0x01, 0x3f])
        verify(pair.client.keyExchangeGroup == .x25519MLKEM768)
        // No session tickets follow, and nothing else does.
        verify(pair.flights.last == "c handshake")
    }

    @Test("a server that lacks the key share offered asks for another and completes")
    func helloRetryRequest() throws {
        var server = certificate.serverSettings
        server.keyExchangeGroups = [.p384]
        var client = certificate.clientSettings
        client.keyExchangeGroups = [.x25519, .p384]
        var pair = try HandshakePair(client: client, server: server)
        try pair.run()
        verify(pair.client.isComplete && pair.server.isComplete)
        verify(pair.client.keyExchangeGroup == .p384)
        verify(pair.flights.filter { $0 == "c initial" }.count == 2)
    }

    @Test("messages may come in pieces of any size", arguments: [1, 7, 100])
    func pieces(size: Int) throws {
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        pair.pieceSize = size
        try pair.run()
        verify(pair.client.isComplete && pair.server.isComplete)
    }

    @Test(
        "a certificate is accepted for its names and addresses",
        arguments: [
            "server.example", "SERVER.example", "server.example.", "a.wild.example", "192.0.2.7", "2001:db8::7",
            "[2001:db8::7]",
        ])
    func goodNames(name: String) {
        #expect(
            failure(client: certificate.clientSettings, server: certificate.serverSettings, serverName: name) == nil)
    }

    @Test(
        "a certificate is refused for any other name, and the reason says which it has",
        arguments: [
            "other.example", "a.b.wild.example", "wild.example", "192.0.2.8", "2001:db8::8", "a server for tests",
        ])
    func wrongNames(name: String) throws {
        let error = failure(client: certificate.clientSettings, server: certificate.serverSettings, serverName: name)
        let isName = name.contains("example")
        if name == "a server for tests" {
            // Not a name that could be sent, although the certificate has it as its common name.
            #expect(error != nil)
            return
        }
        let alert = try #require(error?.code.tlsAlert)
        #expect(alert == 42 || alert == 46, "bad_certificate or certificate_unknown")
        let reason = try #require(error?.reason)
        #expect(reason.contains(isName ? "hostname mismatch" : "IP address mismatch"))
        verify(reason.contains("server.example"))
        #expect(reason.contains("192.0.2.7"))
        #expect(reason.contains(name))
    }

    @Test("a full verification without a name is refused before anything is sent; without hostname it is not")
    func noName() {
        var client = certificate.clientSettings
        #expect(failure(client: client, server: certificate.serverSettings, serverName: nil) != nil)
        #expect(failure(client: client, server: certificate.serverSettings, serverName: "") != nil)
        #expect(failure(client: client, server: certificate.serverSettings, serverName: "server.example\0.evil") != nil)
        client.verification = .noHostname
        #expect(failure(client: client, server: certificate.serverSettings, serverName: nil) == nil)
        #expect(failure(client: client, server: certificate.serverSettings, serverName: "other.example") == nil)
    }

    @Test("a certificate that leads to no trust root is refused, also without hostname, but not without verification")
    func untrusted() throws {
        let stranger = try TestCertificate()
        var client = stranger.clientSettings
        for verification in [TLSSettings.Verification.full, .noHostname] {
            client.verification = verification
            let error = failure(client: client, server: certificate.serverSettings)
            #expect(error?.code == .tlsAlert(48), "unknown_ca")
            #expect(error?.reason.contains("self-signed certificate") == true)
        }
        client.verification = .none
        #expect(failure(client: client, server: certificate.serverSettings) == nil)
        #expect(failure(client: client, server: certificate.serverSettings, serverName: "192.0.2.99") == nil)
    }

    @Test("a certificate that has expired is refused with its date, although it is trusted; its key may be SEC 1")
    func expired() throws {
        var server = certificate.serverSettings
        server.certificateChain = [ExpiredCertificate.certificate]
        server.privateKey = ExpiredCertificate.sec1Key
        var client = certificate.clientSettings
        client.trustRoots = .certificates([ExpiredCertificate.certificate])
        let error = failure(client: client, server: server)
        #expect(error?.code == .tlsAlert(45), "certificate_expired")
        #expect(error?.reason.contains("expired on Feb  1 00:00:00 2020 GMT (/CN=expired)") == true)
        client.verification = .none
        #expect(failure(client: client, server: server) == nil)
    }

    @Test("without an application protocol in common the server sends no_application_protocol and names both sides'")
    func noCommonProtocol() {
        var client = certificate.clientSettings
        client.applicationProtocols = ["hq-interop", "per"]
        let error = failure(client: client, server: certificate.serverSettings)
        #expect(error?.code == .tlsAlert(120))
        #expect(error?.reason.contains("hq-interop, per") == true)
        #expect(error?.reason.contains("perf, h3") == true)
    }

    @Test("without a cipher suite or a key exchange in common the handshake fails")
    func nothingInCommon() {
        var client = certificate.clientSettings
        client.cipherSuites = [.chaCha20Poly1305]
        var server = certificate.serverSettings
        server.cipherSuites = [.aes128GCM]
        #expect(failure(client: client, server: server)?.code == .tlsAlert(40))
        client = certificate.clientSettings
        client.keyExchangeGroups = [.x25519]
        server = certificate.serverSettings
        server.keyExchangeGroups = [.p256]
        #expect(failure(client: client, server: server)?.code == .tlsAlert(40))
    }

    @Test("a server that wants client certificates completes with one it trusts and with no other")
    func clientCertificates() throws {
        let identity = try TestCertificate(dnsNames: ["client.example"])
        let stranger = try TestCertificate(dnsNames: ["client.example"])
        var server = certificate.serverSettings
        server.requiresClientCertificate = true
        server.trustRoots = .certificates([identity.certificate])
        var client = certificate.clientSettings
        #expect(failure(client: client, server: server)?.code == .tlsAlert(116), "certificate_required")
        client.certificateChain = [stranger.certificate]
        client.privateKey = stranger.privateKey
        #expect(failure(client: client, server: server)?.code == .tlsAlert(48))
        client.certificateChain = [identity.certificate]
        client.privateKey = identity.privateKey
        #expect(failure(client: client, server: server) == nil)
    }

    @Test("the key log gets the lines that Wireshark wants")
    func keyLog() throws {
        let log = LineLog()
        var client = certificate.clientSettings
        client.keyLog = { log.append($0) }
        var pair = try HandshakePair(client: client, server: certificate.serverSettings)
        try pair.run()
        let labels = Set(log.lines.map { $0.split(separator: " ")[0] })
        #expect(
            labels.isSuperset(of: [
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0",
                "SERVER_TRAFFIC_SECRET_0",
            ]))
        #expect(log.lines.allSatisfy { !$0.contains("\n") })
        let secret = try #require(pair.clientWrites.first { $0.level == .oneRTT })
        let line = try #require(log.lines.first { $0.hasPrefix("CLIENT_TRAFFIC_SECRET_0") })
        #expect(bytes(hex: String(line.split(separator: " ")[2])) == secret.bytes)
    }

    @Test("bytes at a level that TLS does not read from are PROTOCOL_VIOLATION (RFC 9001, section 4.1.3)")
    func wrongLevel() throws {
        for level in [EncryptionLevel.handshake, .oneRTT, .earlyData] {
            var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
            let error = #expect(throws: TransportError.self) { try pair.server.receive([1, 0, 0, 1], level: level) }
            #expect(error?.code == .protocolViolation)
        }
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        try pair.run()
        for level in [EncryptionLevel.initial, .handshake] {
            let error = #expect(throws: TransportError.self) { try pair.client.receive([4, 0, 0, 0], level: level) }
            #expect(error?.code == .protocolViolation)
        }
    }

    @Test("bytes left over at the Initial level when the keys change are PROTOCOL_VIOLATION (RFC 9001, section 4.1.3)")
    func leftOver() throws {
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        try pair.client.start()
        guard case .bytes(.initial, let hello)? = pair.client.nextOutput() else {
            Issue.record("no ClientHello")
            return
        }
        let error = #expect(throws: TransportError.self) {
            try pair.server.receive(hello + [1, 0, 0, 4], level: .initial)
        }
        #expect(error?.code == .protocolViolation)
    }

    @Test("a TLS KeyUpdate and other messages out of place are unexpected_message (RFC 9001, section 6)")
    func keyUpdateMessage() throws {
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        try pair.run()
        let error = #expect(throws: TransportError.self) {
            try pair.client.receive([24, 0, 0, 1, 0], level: .oneRTT)
        }
        #expect(error?.code == .tlsAlert(10))
    }

    @Test("an endless message exhausts a limit and not memory")
    func endlessMessage() throws {
        var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
        var received = 0
        let error = #expect(throws: TransportError.self) {
            try pair.server.receive([1, 0xff, 0xff, 0xff], level: .initial)
            while received < 1 << 24 {
                try pair.server.receive([UInt8](repeating: 0, count: 1_000), level: .initial)
                received += 1_000
            }
        }
        #expect(error != nil)
        #expect(received < 64 * 1024)
    }

    @Test("random bytes instead of messages fail without a trap, at every point of the handshake")
    func garbage() throws {
        var random = RandomSource.seeded(11)
        for round in 0..<200 {
            var pair = try HandshakePair(client: certificate.clientSettings, server: certificate.serverSettings)
            try pair.client.start()
            guard case .bytes(.initial, var hello)? = pair.client.nextOutput() else { continue }
            if round % 2 == 0 {
                for _ in 0..<3 {
                    hello[Int.random(in: 0..<hello.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
            } else {
                hello = random.bytes(Int.random(in: 1...600, using: &random))
            }
            do throws(TransportError) {
                try pair.server.receive(hello, level: .initial)
                while let output = pair.server.nextOutput() {
                    guard case .bytes(let level, var bytes) = output, !bytes.isEmpty else { continue }
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 0x55
                    try pair.client.receive(bytes, level: level)
                }
            } catch {
                #expect(error.code != .noError)
                #expect(!error.reason.isEmpty)
            }
            verify(!pair.server.isComplete)
        }
    }
}

/// A certificate for "server.example" that was valid in January 2020.
private enum ExpiredCertificate {
    static let certificate = bytes(
        hex: """
            308201303081d6a003020102020105300a06082a8648ce3d04030230123110300e06035504030c076578706972656430
            1e170d3230303130313030303030305a170d3230303230313030303030305a30123110300e06035504030c0765787069
            7265643059301306072a8648ce3d020106082a8648ce3d03010703420004052de9ca5cf5ccdb27308a7229130fc2b3c4
            61b395b30b61c4fdcd0e22163768d3ecea459964e10807d3ae0e9715216395b8ade9b2d328caa2fef2b56450944fa31d
            301b30190603551d1104123010820e7365727665722e6578616d706c65300a06082a8648ce3d04030203490030460221
            00cc58aeff6b957c08accd291ecad901363eb0359ccdf74d99ff05617e44c71070022100b3085b15c1e5e4e5025557c8
            a679bcf019e8d4c24c865eee8baeb26aac388df2
            """)

    static let sec1Key = bytes(
        hex: """
            3077020101042002d88e2147ae687fa6ec2632e1a9ea18c77df25372cc7229685ca01a1b863724a00a06082a8648ce3d
            030107a14403420004052de9ca5cf5ccdb27308a7229130fc2b3c461b395b30b61c4fdcd0e22163768d3ecea459964e1
            0807d3ae0e9715216395b8ade9b2d328caa2fef2b56450944f
            """)
}
