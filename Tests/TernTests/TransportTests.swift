// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOEmbedded
import NIOPosix
import QUICProtocol
import Testing

@testable import Tern

@Suite("A transport", .timeLimit(.minutes(10)))
struct TransportTests {
    @Test("on the IPv6 wildcard address has a socket for each family on one port")
    func bothFamilies() async throws {
        let transport = try await Transport.bind(to: "[::]:0")
        let addresses = transport.localAddresses
        #expect(Set(addresses.map(\.port)).count == 1)
        #expect(transport.localAddress.port != 0)
        #expect(addresses.contains { $0.family == .ipv4 })
        await transport.close()
    }

    @Test("on an address in use cannot be bound, and can when the other is closed")
    func portIsReleased() async throws {
        let first = try await Transport.bind(to: "127.0.0.1:0")
        let address = first.localAddress
        await #expect(throws: TernError.self) { try await Transport.bind(to: address) }
        await first.close()
        await first.close()
        // NIO closes its own descriptor in the loop's next turn.
        try await first.eventLoop.submit {}.get()
        let second = try await Transport.bind(to: address)
        #expect(second.localAddress == address)
        await second.close()
    }

    @Test("on an interface is bound to its addresses")
    func interface() async throws {
        let loopback = try #require(
            try System.enumerateDevices().first { $0.address.flatMap { NetworkAddress($0) }?.isLoopback == true }?.name)
        let transport = try await Transport.bind(interface: loopback)
        #expect(transport.localAddresses.allSatisfy { $0.isLoopback && $0.port != 0 })
        await transport.close()
        await #expect(throws: TernError.interfaceUnavailable("no-such-interface")) {
            try await Transport.bind(interface: "no-such-interface")
        }
    }

    @Test("refuses an event loop that runs no sockets")
    func unsupportedLoop() async throws {
        let loop = NIOAsyncTestingEventLoop()
        let binding = Task { () -> TernError? in
            do throws(TernError) {
                _ = try await Transport.bind(to: "127.0.0.1:0", on: loop)
                return nil
            } catch {
                return error
            }
        }
        #expect(await binding.value == .eventLoopUnsupported)
        await loop.shutdownGracefully()
    }

    @Test("opens another channel on the same socket when NIO closes the one that reads")
    func reopens() async throws {
        let transport = try await Transport.bind(to: "127.0.0.1:0")
        let socket = try #require(transport.socketsForTesting.first)
        for _ in 0..<3 {
            let before = try await transport.eventLoop.submit { socket.channelForTesting }.get()
            try await transport.eventLoop.submit { socket.breakChannelForTesting() }.get()
            while true {
                let now = try await transport.eventLoop.submit { socket.channelForTesting }.get()
                if let now, now !== before, now.isActive { break }
                try await Task.sleep(for: .milliseconds(1))
            }
            // Still bound: nobody else gets the address.
            let address = transport.localAddress
            await #expect(throws: TernError.self) { try await Transport.bind(to: address) }
        }
        await transport.close()
    }

    @Test("listens once at a time")
    func listensOnce() async throws {
        let transport = try await Transport.bind(to: "127.0.0.1:0")
        let tls = try TestCredentials.server()
        let listener = try await transport.listen(tls: tls, applicationProtocols: ["test"])
        await #expect(throws: TernError.alreadyListening) {
            try await transport.listen(tls: tls, applicationProtocols: ["test"])
        }
        await listener.close()
        var connections = listener.connections.makeAsyncIterator()
        #expect(try await connections.next() == nil)
        let again = try await transport.listen(tls: tls, applicationProtocols: ["test"])
        await transport.close()
        var more = again.connections.makeAsyncIterator()
        await #expect(throws: TernError.transportClosed) { try await more.next() }
        await #expect(throws: TernError.transportClosed) {
            try await transport.listen(tls: tls, applicationProtocols: ["test"])
        }
    }
}
