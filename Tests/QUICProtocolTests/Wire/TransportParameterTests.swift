// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// A parameter as on the wire.
private func parameter(_ id: UInt64, _ value: [UInt8]) -> [UInt8] {
    Varint.encoded(id) + Varint.encoded(UInt64(value.count)) + value
}

private func decodingError(_ bytes: [UInt8], sentBy role: Role) -> TransportError? {
    do {
        _ = try TransportParameters.decode(bytes, sentBy: role)
        return nil
    } catch {
        return error
    }
}

/// The parameters' numbers, in order.
private func identifiers(_ bytes: [UInt8]) throws -> [UInt64] {
    var reader = WireReader(bytes.span.bytes)
    var result: [UInt64] = []
    while !reader.isAtEnd {
        result.append(try reader.readVarint())
        _ = try reader.readBytes(try reader.readVarint())
    }
    return result
}

@Suite("Transport parameters")
struct TransportParameterTests {
    private let serverOnly: [UInt64] = [0x00, 0x02, 0x0d, 0x10]

    private func randomParameters(_ random: inout RandomSource) throws -> TransportParameters {
        var parameters = TransportParameters()
        func maybe<T>(_ value: T) -> T? { random.next() % 4 == 0 ? nil : value }
        parameters.originalDestinationConnectionID = maybe(random.connectionID())
        parameters.maxIdleTimeout = .milliseconds(Int64(random.next() >> 30))
        parameters.statelessResetToken = maybe(try random.resetToken())
        parameters.maxUDPPayloadSize = max(1_200, random.varint())
        parameters.initialMaxData = random.varint()
        parameters.initialMaxStreamDataBidiLocal = random.varint()
        parameters.initialMaxStreamDataBidiRemote = random.varint()
        parameters.initialMaxStreamDataUni = random.varint()
        parameters.initialMaxStreamsBidi = random.varint(upTo: 1 << 60)
        parameters.initialMaxStreamsUni = random.varint(upTo: 1 << 60)
        parameters.ackDelayExponent = random.next() % 21
        parameters.maxAckDelay = .milliseconds(Int64(random.next() % (1 << 14)))
        parameters.minAckDelay = maybe(
            min(.microseconds(Int64(random.next() % 20_000_000)), parameters.maxAckDelay))
        parameters.disableActiveMigration = random.next() & 1 == 0
        parameters.activeConnectionIDLimit = max(2, random.varint())
        parameters.initialSourceConnectionID = maybe(random.connectionID(1...20))
        parameters.retrySourceConnectionID = maybe(random.connectionID())
        parameters.preferredAddress = maybe(
            PreferredAddress(
                ipv4: maybe(NetworkAddress(192, 0, 2, 7, port: 4_433)),
                ipv6: maybe(NetworkAddress(ipv6: 0x2001_0db8_0000_0000, random.next(), port: 443)),
                connectionID: random.connectionID(1...20), resetToken: try random.resetToken()))
        return parameters
    }

    @Test("what a server sends is what the client reads")
    func serverRoundTrip() throws {
        var random = RandomSource.seeded(30)
        for _ in 0..<300 {
            let parameters = try randomParameters(&random)
            let bytes = parameters.encoded(for: .server, using: &random)
            #expect(try TransportParameters.decode(bytes, sentBy: .server) == parameters)
        }
    }

    @Test("a client leaves out what only a server may send")
    func clientRoundTrip() throws {
        var random = RandomSource.seeded(31)
        for _ in 0..<300 {
            var parameters = try randomParameters(&random)
            let bytes = parameters.encoded(for: .client, using: &random)
            #expect(try identifiers(bytes).allSatisfy { !serverOnly.contains($0) })
            parameters.originalDestinationConnectionID = nil
            parameters.statelessResetToken = nil
            parameters.preferredAddress = nil
            parameters.retrySourceConnectionID = nil
            #expect(try TransportParameters.decode(bytes, sentBy: .client) == parameters)
        }
    }

    @Test("defaults are not sent, one reserved parameter always is, and the order varies")
    func greaseAndOrder() throws {
        var random = RandomSource.seeded(32)
        for _ in 0..<200 {
            let ids = try identifiers(TransportParameters().encoded(for: .client, using: &random))
            #expect(ids.count == 1)
            #expect(ids[0] % 31 == 27)
        }
        var parameters = TransportParameters()
        parameters.initialMaxData = 1
        parameters.initialMaxStreamsUni = 2
        parameters.initialSourceConnectionID = .empty
        let orders = try Set(
            (0..<50).map { _ in try identifiers(parameters.encoded(for: .client, using: &random)).filter { $0 < 16 } })
        #expect(orders.count > 1)
    }

    @Test("an empty extension means the defaults of RFC 9000, section 18.2")
    func defaults() throws {
        let parameters = try TransportParameters.decode([], sentBy: .server)
        #expect(parameters == TransportParameters())
        #expect(parameters.maxUDPPayloadSize == 65_527)
        #expect(parameters.ackDelayExponent == 3)
        #expect(parameters.maxAckDelay == .milliseconds(25))
        #expect(parameters.activeConnectionIDLimit == 2)
        #expect(parameters.maxIdleTimeout == .zero)
        #expect(!parameters.disableActiveMigration)
    }

    @Test("the parameters of the ClientHello of RFC 9001, appendix A.2 parse as they are")
    func sample() throws {
        let bytes = hex(
            """
            0408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff
            """)
        var expected = TransportParameters()
        expected.initialMaxData = Varint.maximum
        expected.initialMaxStreamDataBidiLocal = 65_535
        expected.initialMaxStreamDataBidiRemote = 65_535
        expected.initialMaxStreamDataUni = 65_535
        expected.initialMaxStreamsBidi = 16
        expected.initialMaxStreamsUni = 16
        expected.maxIdleTimeout = .seconds(30)
        expected.initialSourceConnectionID = ConnectionID(hex("8394c8f03e515708"))
        #expect(try TransportParameters.decode(bytes, sentBy: .client) == expected)
    }

    @Test(
        "a value outside its limits is a TRANSPORT_PARAMETER_ERROR that names the parameter",
        arguments: [
            (0x03, 1_199, "max_udp_payload_size"), (0x03, 0, "max_udp_payload_size"),
            (0x08, 1 << 60 + 1, "initial_max_streams_bidi"), (0x09, 1 << 60 + 1, "initial_max_streams_uni"),
            (0x08, Varint.maximum, "initial_max_streams_bidi"), (0x0a, 21, "ack_delay_exponent"),
            (0x0b, 1 << 14, "max_ack_delay"), (0x0b, Varint.maximum, "max_ack_delay"),
            (0x0e, 1, "active_connection_id_limit"), (0x0e, 0, "active_connection_id_limit"),
        ] as [(UInt64, UInt64, String)])
    func limits(id: UInt64, value: UInt64, name: String) {
        for role in [Role.client, .server] {
            let error = decodingError(parameter(id, Varint.encoded(value)), sentBy: role)
            #expect(error?.code == .transportParameterError)
            #expect(error?.reason.hasPrefix("\(name): ") == true)
        }
    }

    @Test("a min_ack_delay above max_ack_delay is a TRANSPORT_PARAMETER_ERROR, in whatever order they come")
    func minAckDelay() {
        let least = parameter(0xff04_de1b, Varint.encoded(10_001))
        let most = parameter(0x0b, Varint.encoded(10))
        for bytes in [least + most, most + least, parameter(0xff04_de1b, Varint.encoded(25_001))] {
            let error = decodingError(bytes, sentBy: .client)
            #expect(error?.code == .transportParameterError)
            #expect(error?.reason.hasPrefix("min_ack_delay: ") == true)
        }
        #expect(decodingError(parameter(0xff04_de1b, Varint.encoded(Varint.maximum)), sentBy: .server) != nil)
        #expect(decodingError(parameter(0xff04_de1b, Varint.encoded(25_000)), sentBy: .client) == nil)
        #expect(decodingError(parameter(0xff04_de1b, [0, 0]), sentBy: .client) != nil)
    }

    @Test(
        "a value at its limit is taken",
        arguments: [
            (0x01, Varint.maximum), (0x03, 1_200), (0x03, Varint.maximum), (0x08, 1 << 60), (0x09, 1 << 60), (0x0a, 20),
            (0x0b, 1 << 14 - 1), (0x0b, 0), (0x0e, 2), (0x0e, Varint.maximum),
        ] as [(UInt64, UInt64)])
    func atLimits(id: UInt64, value: UInt64) {
        #expect(decodingError(parameter(id, Varint.encoded(value)), sentBy: .client) == nil)
    }

    @Test("an idle timeout too long for our clock is as good as forever")
    func longIdleTimeout() throws {
        let bytes = parameter(0x01, Varint.encoded(Varint.maximum))
        #expect(try TransportParameters.decode(bytes, sentBy: .client).maxIdleTimeout == .max)
    }

    @Test(
        "an integer parameter that is empty, cut short or followed by more is refused",
        arguments: 0x01...0x0e as ClosedRange<UInt64>)
    func integers(id: UInt64) {
        guard id != 0x02, id != 0x0c, id != 0x0d else { return }
        // Two is valid for all but the datagram size.
        let value = Varint.encoded(id == 0x03 ? 1_500 : 2)
        #expect(decodingError(parameter(id, value), sentBy: .client) == nil)
        for wrong in [[], value + [0], [0x40], [0xc0, 0, 0, 0, 0, 0, 0]] {
            #expect(decodingError(parameter(id, wrong), sentBy: .client)?.code == .transportParameterError)
        }
    }

    @Test("an integer in more bytes than it needs is allowed")
    func longIntegers() throws {
        let bytes = parameter(0x0e, hex("c000000000000003"))
        #expect(try TransportParameters.decode(bytes, sentBy: .client).activeConnectionIDLimit == 3)
    }

    @Test("a client that sends a server's parameter is refused")
    func serverOnlyFromClient() throws {
        var random = RandomSource.seeded(33)
        let address = [UInt8](repeating: 1, count: 24) + [1, 9] + random.bytes(16)
        let values: [(UInt64, [UInt8])] = [
            (0x00, random.bytes(8)), (0x02, random.bytes(16)), (0x0d, address), (0x10, random.bytes(8)),
        ]
        for (id, value) in values {
            #expect(decodingError(parameter(id, value), sentBy: .server) == nil)
            let error = decodingError(parameter(id, value), sentBy: .client)
            #expect(error?.code == .transportParameterError)
            #expect(error?.reason.hasSuffix("sent by a client") == true)
        }
    }

    @Test(
        "connection IDs of more than 20 bytes are refused, empty ones are taken",
        arguments: [0x00, 0x0f, 0x10] as [UInt64])
    func connectionIDs(id: UInt64) {
        #expect(decodingError(parameter(id, []), sentBy: .server) == nil)
        #expect(decodingError(parameter(id, [UInt8](repeating: 1, count: 20)), sentBy: .server) == nil)
        let error = decodingError(parameter(id, [UInt8](repeating: 1, count: 21)), sentBy: .server)
        #expect(error?.code == .transportParameterError)
    }

    @Test("a stateless reset token is 16 bytes, and disable_active_migration has none")
    func fixedSizes() {
        for length in 0..<40 {
            let value = [UInt8](repeating: 1, count: length)
            #expect((decodingError(parameter(0x02, value), sentBy: .server) == nil) == (length == 16))
            #expect((decodingError(parameter(0x0c, value), sentBy: .client) == nil) == (length == 0))
        }
    }

    @Test("a parameter sent twice is refused, known or not", arguments: [0x04, 0x01, 0x1b, 0x3f5a_1234] as [UInt64])
    func duplicates(id: UInt64) {
        let once = parameter(id, [7])
        #expect(decodingError(once + parameter(0x05, [7]), sentBy: .client) == nil)
        let error = decodingError(once + parameter(0x05, [7]) + once, sentBy: .client)
        #expect(error?.code == .transportParameterError)
        #expect(error?.reason.hasSuffix("sent twice") == true)
    }

    @Test("unknown parameters are passed over, whatever they hold")
    func unknown() throws {
        var random = RandomSource.seeded(34)
        var bytes = parameter(0x04, [9])
        for id in [0x11, 0x20, 0x2ab2, 31 * 1_000_000 + 27, Varint.maximum] as [UInt64] {
            bytes += parameter(id, random.bytes(random.count(below: 100)))
        }
        #expect(try TransportParameters.decode(bytes, sentBy: .client).initialMaxData == 9)
    }

    @Test("every truncation of the extension is refused or ends between two parameters")
    func truncation() throws {
        var random = RandomSource.seeded(35)
        for role in [Role.client, .server] {
            var parameters = try randomParameters(&random)
            // Where max_ack_delay is cut off, it may be too long by itself.
            parameters.minAckDelay = nil
            let bytes = parameters.encoded(for: role, using: &random)
            var ends: Set<Int> = [0]
            var reader = WireReader(bytes.span.bytes)
            while !reader.isAtEnd {
                _ = try reader.readVarint()
                _ = try reader.readBytes(try reader.readVarint())
                ends.insert(reader.offset)
            }
            for length in 0...bytes.count {
                let error = decodingError(Array(bytes[..<length]), sentBy: role)
                #expect((error == nil) == ends.contains(length))
                if let error { #expect(error.code == .transportParameterError) }
            }
        }
    }

    @Test("a preferred address is read field by field; a family of zeros is none")
    func preferredAddress() throws {
        let token = hex("000102030405060708090a0b0c0d0e0f")
        let both = hex("c0000207 1151 20010db8000000000000000000000001 01bb 03 aabbcc") + token
        let address = try #require(
            TransportParameters.decode(parameter(0x0d, both), sentBy: .server).preferredAddress)
        #expect(address.ipv4 == NetworkAddress(192, 0, 2, 7, port: 4_433))
        #expect(address.ipv6 == NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 1, port: 443))
        #expect(address.connectionID.bytes == [0xaa, 0xbb, 0xcc])
        #expect(address.resetToken.bytes == token)

        let onlyIPv6 = hex("00000000 0000 20010db8000000000000000000000001 01bb 03 aabbcc") + token
        let second = try TransportParameters.decode(parameter(0x0d, onlyIPv6), sentBy: .server).preferredAddress
        #expect(second?.ipv4 == nil)
        #expect(second?.ipv6 == NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 1, port: 443))

        for length in 0..<both.count {
            let error = decodingError(parameter(0x0d, Array(both[..<length])), sentBy: .server)
            #expect(error?.code == .transportParameterError)
        }
        #expect(decodingError(parameter(0x0d, both + [0]), sentBy: .server)?.code == .transportParameterError)
    }

    @Test("a preferred address with an empty connection ID, one of 21 bytes, or from a server without IDs is refused")
    func preferredAddressConnectionID() {
        let head = [UInt8](repeating: 1, count: 24)
        let token = [UInt8](repeating: 2, count: 16)
        let empty = parameter(0x0d, head + [0] + token)
        #expect(decodingError(empty, sentBy: .server)?.reason == "preferred_address: an empty connection ID")
        let long = parameter(0x0d, head + [21] + [UInt8](repeating: 3, count: 21) + token)
        #expect(decodingError(long, sentBy: .server)?.code == .transportParameterError)
        let good = parameter(0x0d, head + [1, 3] + token)
        #expect(decodingError(good + parameter(0x0f, [1]), sentBy: .server) == nil)
        for bytes in [good + parameter(0x0f, []), parameter(0x0f, []) + good] {
            #expect(decodingError(bytes, sentBy: .server)?.code == .transportParameterError)
        }
    }

    @Test("values that may not be sent are brought within their limits, and times are rounded up")
    func clamping() throws {
        var random = RandomSource.seeded(36)
        var parameters = TransportParameters()
        parameters.maxUDPPayloadSize = 100
        parameters.initialMaxData = .max
        parameters.initialMaxStreamsBidi = .max
        parameters.initialMaxStreamsUni = 1 << 60 + 1
        parameters.ackDelayExponent = 90
        parameters.maxAckDelay = .seconds(100)
        parameters.activeConnectionIDLimit = 0
        parameters.maxIdleTimeout = Nanoseconds(1)
        let bytes = parameters.encoded(for: .client, using: &random)
        let sent = try TransportParameters.decode(bytes, sentBy: .client)
        #expect(sent.maxUDPPayloadSize == 1_200)
        #expect(sent.initialMaxData == Varint.maximum)
        #expect(sent.initialMaxStreamsBidi == 1 << 60)
        #expect(sent.initialMaxStreamsUni == 1 << 60)
        #expect(sent.ackDelayExponent == 20)
        #expect(sent.maxAckDelay == .milliseconds(16_383))
        #expect(sent.activeConnectionIDLimit == 2)
        #expect(sent.maxIdleTimeout == .milliseconds(1))

        parameters.maxIdleTimeout = Nanoseconds(-5)
        parameters.maxAckDelay = .max
        let other = parameters.encoded(for: .client, using: &random)
        #expect(try TransportParameters.decode(other, sentBy: .client).maxIdleTimeout == .zero)
    }
}
