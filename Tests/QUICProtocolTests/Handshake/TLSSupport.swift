// SPDX-License-Identifier: Apache-2.0

import Synchronization

@testable import QUICProtocol

/// A certificate for "server.example" and two addresses, made once for all tests.
struct TestCertificate {
    static let shared = Result { () throws(TLSConfigurationError) in try TestCertificate() }

    let certificate: [UInt8]
    let privateKey: [UInt8]

    init(dnsNames: [String] = ["server.example", "*.wild.example"]) throws(TLSConfigurationError) {
        let made = try SelfSignedCertificate.generate(
            commonName: "a server for tests", dnsNames: dnsNames,
            ipAddresses: [
                NetworkAddress(192, 0, 2, 7, port: 0), NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 7, port: 0),
            ],
            validFor: 14)
        certificate = made.certificate
        privateKey = made.privateKey
    }

    var serverSettings: TLSSettings {
        TLSSettings(certificateChain: [certificate], privateKey: privateKey, applicationProtocols: ["perf", "h3"])
    }

    var clientSettings: TLSSettings {
        TLSSettings(trustRoots: .certificates([certificate]), applicationProtocols: ["h3", "perf"])
    }
}

/// Both ends of a handshake, whose outputs go straight to the other end.
struct HandshakePair: ~Copyable {
    struct Secret: Hashable {
        let bytes: [UInt8]
        let suite: CipherSuite
        let level: EncryptionLevel
    }

    var client: TLSSession
    var server: TLSSession
    private(set) var clientReads: Set<Secret> = []
    private(set) var clientWrites: Set<Secret> = []
    private(set) var serverReads: Set<Secret> = []
    private(set) var serverWrites: Set<Secret> = []
    /// In order: the level of each run of bytes, a client's ones first letter "c", a server's "s".
    private(set) var flights: [String] = []
    /// The most bytes handed over at once.
    var pieceSize = Int.max

    init(client: TLSSettings, server: TLSSettings, serverName: String? = "server.example") throws {
        let clientSession = try TLSSession(
            context: TLSContext(client, role: .client), role: .client, serverName: serverName,
            transportParameters: [0x04, 0x01, 0x3f])
        let serverSession = try TLSSession(
            context: TLSContext(server, role: .server), role: .server, serverName: nil,
            transportParameters: [0x04, 0x01, 0x20])
        self.client = clientSession
        self.server = serverSession
    }

    mutating func run() throws(TransportError) {
        try client.start()
        var isMoving = true
        while isMoving {
            isMoving = false
            while let output = client.nextOutput() {
                isMoving = true
                try deliver(output, fromClient: true)
            }
            while let output = server.nextOutput() {
                isMoving = true
                try deliver(output, fromClient: false)
            }
        }
    }

    private mutating func deliver(_ output: TLSOutput, fromClient: Bool) throws(TransportError) {
        switch output {
        case .bytes(let level, let bytes):
            flights.append("\(fromClient ? "c" : "s") \(level)")
            for start in stride(from: 0, to: bytes.count, by: min(pieceSize, bytes.count)) {
                let piece = Array(bytes[start..<min(bytes.count, start + min(pieceSize, bytes.count))])
                if fromClient {
                    try server.receive(piece, level: level)
                } else {
                    try client.receive(piece, level: level)
                }
            }
        case .secret(let secret, let suite, let level, let forReading):
            let value = Secret(bytes: secret.bytes, suite: suite, level: level)
            switch (fromClient, forReading) {
            case (true, true): clientReads.insert(value)
            case (true, false): clientWrites.insert(value)
            case (false, true): serverReads.insert(value)
            case (false, false): serverWrites.insert(value)
            }
        }
    }
}

extension TLSSession {
    mutating func receive(_ bytes: [UInt8], level: EncryptionLevel) throws(TransportError) {
        try bytes.span.bytes.withUnsafeBytes { raw throws(TransportError) in try receive(raw, level: level) }
    }
}

/// Lines gathered from wherever they come.
final class LineLog: Sendable {
    private let storage = Mutex<[String]>([])
    var lines: [String] { storage.withLock { $0 } }
    func append(_ line: String) { storage.withLock { $0.append(line) } }
}
