// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Testing

@testable import Tern

@Suite("Addresses")
struct AddressTests {
    @Test(
        "of the form host:port are taken apart",
        arguments: [
            ("127.0.0.1:4433", "127.0.0.1", 4_433), ("[::1]:0", "::1", 0),
            ("files.example:65535", "files.example", 65_535),
            ("[fe80::1%lo]:1", "fe80::1%lo", 1),
        ] as [(String, String, UInt16)])
    func parses(text: String, host: String, port: UInt16) throws {
        let parsed = try HostAndPort(parsing: text)
        #expect(parsed.host == host)
        #expect(parsed.port == port)
    }

    @Test(
        "that are not of that form are refused",
        arguments: [
            "", "host", "host:", ":1", "::1:80", "[::1]", "[::1", "host:65536", "host:-1", "host:+1", "[]:1", "a:b:1",
        ])
    func refuses(text: String) {
        #expect(throws: TernError.invalidAddress(text)) { try HostAndPort(parsing: text) }
    }

    @Test(
        "survive the way to NIO's form and to C's and back",
        arguments: [("127.0.0.1", 4_433), ("::1", 1), ("2001:db8::8:800:200c:417a", 65_535), ("255.255.255.255", 0)])
    func converts(host: String, port: Int) throws {
        let socketAddress = try SocketAddress(ipAddress: host, port: port)
        let address = try #require(NetworkAddress(socketAddress))
        #expect(Int(address.port) == port)
        #expect(address.description == (host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"))
        #expect(NetworkAddress(address.cAddress) == address)
    }

    @Test("of a name come from the system")
    func resolves() async throws {
        let addresses = try await NameResolution.addresses(of: HostAndPort(parsing: "localhost:80"))
        #expect(!addresses.isEmpty)
        #expect(addresses.allSatisfy { $0.isLoopback && $0.port == 80 })
    }

    @Test("of a name that does not exist are reported as unknown")
    func reportsUnknownHost() async throws {
        let target = try HostAndPort(parsing: "does-not-exist.invalid:80")
        await #expect {
            try await NameResolution.addresses(of: target)
        } throws: { error in
            if case .unknownHost("does-not-exist.invalid", _) = error as? TernError { true } else { false }
        }
    }
}
