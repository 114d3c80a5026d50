// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Addresses that a peer must not send us to (M41)")
struct AddressPolicyTests {
    private static let routed = NetworkAddress(198, 51, 100, 7, port: 50_000)
    private static let loopback = NetworkAddress(127, 0, 0, 1, port: 50_000)

    @Test("an address has the scope of its range, also when IPv6 wraps an IPv4 address")
    func scopes() {
        let expected: [(NetworkAddress, AddressScope)] = [
            (NetworkAddress(0, 0, 0, 0, port: 1), .unspecified),
            (NetworkAddress(0, 1, 2, 3, port: 1), .unspecified),
            (NetworkAddress(ipv6: 0, 0, port: 1), .unspecified),
            (NetworkAddress(127, 9, 9, 9, port: 1), .loopback),
            (NetworkAddress(ipv6: 0, 1, port: 1), .loopback),
            (NetworkAddress(ipv6: 0, 0xffff_7f00_0001, port: 1), .loopback),
            (NetworkAddress(169, 254, 1, 1, port: 1), .linkLocal),
            (NetworkAddress(ipv6: 0xfe80_0000_0000_0000, 5, port: 1, scopeID: 2), .linkLocal),
            (NetworkAddress(224, 0, 0, 251, port: 1), .multicast),
            (NetworkAddress(255, 255, 255, 255, port: 1), .multicast),
            (NetworkAddress(ipv6: 0xff02_0000_0000_0000, 1, port: 1), .multicast),
            (NetworkAddress(10, 0, 0, 1, port: 1), .routed),
            (NetworkAddress(192, 168, 1, 1, port: 1), .routed),
            (NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 1, port: 1), .routed),
        ]
        for (address, scope) in expected { #expect(address.scope == scope, "\(address)") }
    }

    @Test("loopback and link-local addresses are open to a connection that is there already, and to no other")
    func crossing() {
        let link = NetworkAddress(ipv6: 0xfe80_0000_0000_0000, 5, port: 50_000, scopeID: 2)
        let sameLink = NetworkAddress(ipv6: 0xfe80_0000_0000_0000, 6, port: 50_000, scopeID: 2)
        let otherLink = NetworkAddress(ipv6: 0xfe80_0000_0000_0000, 6, port: 50_000, scopeID: 3)
        #expect(AddressPolicy.refusal(of: Self.loopback, knownAs: Self.routed) == .scope(.loopback))
        #expect(AddressPolicy.refusal(of: Self.loopback.withPort(50_001), knownAs: Self.loopback) == nil)
        #expect(AddressPolicy.refusal(of: Self.routed, knownAs: Self.loopback) == nil)
        #expect(AddressPolicy.refusal(of: link, knownAs: Self.routed) == .scope(.linkLocal))
        #expect(AddressPolicy.refusal(of: sameLink, knownAs: link) == nil)
        #expect(AddressPolicy.refusal(of: otherLink, knownAs: link) == .scope(.linkLocal))
    }

    @Test("multicast and unspecified addresses are never sent to, nor are ports of known reflectors")
    func never() {
        let multicast = NetworkAddress(224, 0, 0, 251, port: 50_000)
        #expect(AddressPolicy.refusal(of: multicast, knownAs: multicast) == .scope(.multicast))
        let nowhere = NetworkAddress(0, 0, 0, 0, port: 50_000)
        #expect(AddressPolicy.refusal(of: nowhere, knownAs: nowhere) == .scope(.unspecified))
        for port in [0, 19, 53, 123, 1_900, 5_353, 11_211] as [UInt16] {
            #expect(
                AddressPolicy.refusal(of: Self.routed.withPort(port), knownAs: Self.routed) == .reflectorPort(port))
        }
        for port in [443, 1_024, 4_433, 50_000] as [UInt16] {
            #expect(AddressPolicy.refusal(of: Self.routed.withPort(port), knownAs: Self.routed) == nil)
        }
    }
}
