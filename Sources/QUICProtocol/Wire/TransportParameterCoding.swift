// SPDX-License-Identifier: Apache-2.0

/// The parameters of RFC 9000 by number (section 18.2), and min_ack_delay (draft-ietf-quic-ack-frequency, section 3).
private enum ParameterID: UInt64 {
    case originalDestinationConnectionID = 0x00
    case maxIdleTimeout = 0x01
    case statelessResetToken = 0x02
    case maxUDPPayloadSize = 0x03
    case initialMaxData = 0x04
    case initialMaxStreamDataBidiLocal = 0x05
    case initialMaxStreamDataBidiRemote = 0x06
    case initialMaxStreamDataUni = 0x07
    case initialMaxStreamsBidi = 0x08
    case initialMaxStreamsUni = 0x09
    case ackDelayExponent = 0x0a
    case maxAckDelay = 0x0b
    case disableActiveMigration = 0x0c
    case preferredAddress = 0x0d
    case activeConnectionIDLimit = 0x0e
    case initialSourceConnectionID = 0x0f
    case retrySourceConnectionID = 0x10
    case minAckDelay = 0xff04_de1b

    /// As the RFC calls it, for error messages.
    var name: String {
        switch self {
        case .originalDestinationConnectionID: "original_destination_connection_id"
        case .maxIdleTimeout: "max_idle_timeout"
        case .statelessResetToken: "stateless_reset_token"
        case .maxUDPPayloadSize: "max_udp_payload_size"
        case .initialMaxData: "initial_max_data"
        case .initialMaxStreamDataBidiLocal: "initial_max_stream_data_bidi_local"
        case .initialMaxStreamDataBidiRemote: "initial_max_stream_data_bidi_remote"
        case .initialMaxStreamDataUni: "initial_max_stream_data_uni"
        case .initialMaxStreamsBidi: "initial_max_streams_bidi"
        case .initialMaxStreamsUni: "initial_max_streams_uni"
        case .ackDelayExponent: "ack_delay_exponent"
        case .maxAckDelay: "max_ack_delay"
        case .disableActiveMigration: "disable_active_migration"
        case .preferredAddress: "preferred_address"
        case .activeConnectionIDLimit: "active_connection_id_limit"
        case .initialSourceConnectionID: "initial_source_connection_id"
        case .retrySourceConnectionID: "retry_source_connection_id"
        case .minAckDelay: "min_ack_delay"
        }
    }

    var isServerOnly: Bool {
        switch self {
        case .originalDestinationConnectionID, .statelessResetToken, .preferredAddress, .retrySourceConnectionID: true
        default: false
        }
    }
}

/// What a value may be (RFC 9000, section 18.2).
private enum ParameterLimit {
    static let minimumUDPPayloadSize: UInt64 = 1_200
    static let maximumAckDelayExponent: UInt64 = 20
    /// In milliseconds.
    static let maximumAckDelay: UInt64 = (1 << 14) - 1
    static let minimumActiveConnectionIDs: UInt64 = 2
}

extension TransportParameters {
    /// The content of the TLS extension quic_transport_parameters (RFC 9000, section 18).
    ///
    /// What `role` may not send is left out, and so is what equals its default; a value that the RFC does not allow is
    /// brought to the nearest one that it does. A reserved parameter is included (section 18.1) and the order is random,
    /// so that peers come to depend on neither. Times are rounded up to milliseconds.
    func encoded(for role: Role, using random: inout RandomSource) -> [UInt8] {
        let defaults = TransportParameters()
        var encoder = ParameterEncoder(role: role)
        if let id = originalDestinationConnectionID { encoder.add(.originalDestinationConnectionID, id.bytes) }
        encoder.add(.maxIdleTimeout, maxIdleTimeout.wholeMilliseconds, default: 0)
        if let token = statelessResetToken { encoder.add(.statelessResetToken, token.bytes) }
        encoder.add(
            .maxUDPPayloadSize, max(maxUDPPayloadSize, ParameterLimit.minimumUDPPayloadSize),
            default: defaults.maxUDPPayloadSize)
        encoder.add(.initialMaxData, initialMaxData, default: 0)
        encoder.add(.initialMaxStreamDataBidiLocal, initialMaxStreamDataBidiLocal, default: 0)
        encoder.add(.initialMaxStreamDataBidiRemote, initialMaxStreamDataBidiRemote, default: 0)
        encoder.add(.initialMaxStreamDataUni, initialMaxStreamDataUni, default: 0)
        encoder.add(.initialMaxStreamsBidi, min(initialMaxStreamsBidi, Frame.maximumStreamCount), default: 0)
        encoder.add(.initialMaxStreamsUni, min(initialMaxStreamsUni, Frame.maximumStreamCount), default: 0)
        encoder.add(
            .ackDelayExponent, min(ackDelayExponent, ParameterLimit.maximumAckDelayExponent),
            default: defaults.ackDelayExponent)
        encoder.add(
            .maxAckDelay, min(maxAckDelay.wholeMilliseconds, ParameterLimit.maximumAckDelay),
            default: defaults.maxAckDelay.wholeMilliseconds)
        if let delay = minAckDelay {
            let most = min(maxAckDelay.wholeMilliseconds, ParameterLimit.maximumAckDelay) * 1_000
            encoder.add(.minAckDelay, Varint.encoded(min(UInt64(clamping: delay.inMicroseconds), most)))
        }
        if disableActiveMigration { encoder.add(.disableActiveMigration, []) }
        if let address = preferredAddress, address.connectionID.length > 0, initialSourceConnectionID != .empty {
            encoder.add(.preferredAddress, address.encoded)
        }
        encoder.add(
            .activeConnectionIDLimit, max(activeConnectionIDLimit, ParameterLimit.minimumActiveConnectionIDs),
            default: defaults.activeConnectionIDLimit)
        if let id = initialSourceConnectionID { encoder.add(.initialSourceConnectionID, id.bytes) }
        if let id = retrySourceConnectionID { encoder.add(.retrySourceConnectionID, id.bytes) }
        encoder.addReserved(using: &random)
        return encoder.parameters.shuffled(using: &random).flatMap { $0 }
    }

    /// Parses what a peer declared, with every check that the values alone allow (RFC 9000, sections 7.4 and 18.2).
    ///
    /// Whether the connection IDs are there and are the right ones (section 7.3) is known to the connection alone.
    ///
    /// - Throws: TRANSPORT_PARAMETER_ERROR, with the parameter's name in the reason.
    static func decode(_ bytes: [UInt8], sentBy role: Role) throws(TransportError) -> TransportParameters {
        var decoder = ParameterDecoder(bytes.span.bytes, sentBy: role)
        return try decoder.decode()
    }
}

/// Collects parameters, each encoded by itself.
private struct ParameterEncoder {
    let role: Role
    var parameters: [[UInt8]] = []

    init(role: Role) { self.role = role }

    mutating func add(_ id: ParameterID, _ value: [UInt8]) {
        guard role == .server || !id.isServerOnly else { return }
        addRaw(id.rawValue, value)
    }

    mutating func add(_ id: ParameterID, _ value: UInt64, default: UInt64) {
        guard value != `default` else { return }
        add(id, Varint.encoded(min(value, Varint.maximum)))
    }

    /// A parameter of the form 31 × N + 27 with a value of up to 16 random bytes.
    mutating func addReserved(using random: inout RandomSource) {
        let id = 31 * UInt64.random(in: 0...(Varint.maximum - 27) / 31, using: &random) + 27
        addRaw(id, random.bytes(Int.random(in: 0...16, using: &random)))
    }

    private mutating func addRaw(_ id: UInt64, _ value: [UInt8]) {
        parameters.append(Varint.encoded(id) + Varint.encoded(UInt64(value.count)) + value)
    }
}

/// Reads parameters one after the other into a `TransportParameters`.
private struct ParameterDecoder: ~Escapable {
    private let bytes: RawSpan
    private var reader: WireReader
    private let role: Role
    private var result = TransportParameters()
    /// What was read so far, to find duplicates; the peer's bytes bound it.
    private var seen: Set<UInt64> = []

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan, sentBy role: Role) {
        self.bytes = bytes
        self.reader = WireReader(bytes)
        self.role = role
    }

    @_lifetime(self: copy self)
    mutating func decode() throws(TransportError) -> TransportParameters {
        while !reader.isAtEnd {
            let number: UInt64
            let value: ByteRange
            do {
                number = try reader.readVarint()
                value = try reader.readBytes(try reader.readVarint())
            } catch {
                throw TransportError(.transportParameterError, "a transport parameter is cut short")
            }
            let id = ParameterID(rawValue: number)
            guard seen.insert(number).inserted else {
                throw TransportError(
                    .transportParameterError,
                    "\(id?.name ?? "transport parameter 0x\(String(number, radix: 16))"): sent twice")
            }
            guard let id else { continue }
            guard role == .server || !id.isServerOnly else { throw fault(id, "sent by a client") }
            try decode(id, value)
        }
        if result.preferredAddress != nil, result.initialSourceConnectionID == .empty {
            throw fault(.preferredAddress, "sent by a server that uses no connection IDs")
        }
        if let delay = result.minAckDelay, delay > result.maxAckDelay {
            throw fault(.minAckDelay, "longer than max_ack_delay")
        }
        return result
    }

    @_lifetime(self: copy self)
    private mutating func decode(_ id: ParameterID, _ value: ByteRange) throws(TransportError) {
        switch id {
        case .originalDestinationConnectionID: result.originalDestinationConnectionID = try connectionID(id, value)
        case .maxIdleTimeout: result.maxIdleTimeout = .milliseconds(Int64(clamping: try integer(id, value)))
        case .statelessResetToken:
            guard value.count == StatelessResetToken.length,
                let token = StatelessResetToken(bytes, at: value.offset)
            else { throw fault(id, "not 16 bytes") }
            result.statelessResetToken = token
        case .maxUDPPayloadSize:
            result.maxUDPPayloadSize = try integer(id, value, in: ParameterLimit.minimumUDPPayloadSize...Varint.maximum)
        case .initialMaxData: result.initialMaxData = try integer(id, value)
        case .initialMaxStreamDataBidiLocal: result.initialMaxStreamDataBidiLocal = try integer(id, value)
        case .initialMaxStreamDataBidiRemote: result.initialMaxStreamDataBidiRemote = try integer(id, value)
        case .initialMaxStreamDataUni: result.initialMaxStreamDataUni = try integer(id, value)
        case .initialMaxStreamsBidi:
            result.initialMaxStreamsBidi = try integer(id, value, in: 0...Frame.maximumStreamCount)
        case .initialMaxStreamsUni:
            result.initialMaxStreamsUni = try integer(id, value, in: 0...Frame.maximumStreamCount)
        case .ackDelayExponent:
            result.ackDelayExponent = try integer(id, value, in: 0...ParameterLimit.maximumAckDelayExponent)
        case .maxAckDelay:
            let delay = try integer(id, value, in: 0...ParameterLimit.maximumAckDelay)
            result.maxAckDelay = .milliseconds(Int64(delay))
        case .disableActiveMigration:
            guard value.count == 0 else { throw fault(id, "has a value") }
            result.disableActiveMigration = true
        case .preferredAddress: result.preferredAddress = try preferredAddress(value)
        case .activeConnectionIDLimit:
            result.activeConnectionIDLimit = try integer(
                id, value, in: ParameterLimit.minimumActiveConnectionIDs...Varint.maximum)
        case .initialSourceConnectionID: result.initialSourceConnectionID = try connectionID(id, value)
        case .retrySourceConnectionID: result.retrySourceConnectionID = try connectionID(id, value)
        case .minAckDelay: result.minAckDelay = .microseconds(Int64(clamping: try integer(id, value)))
        }
    }

    private func fault(_ id: ParameterID, _ reason: String) -> TransportError {
        TransportError(.transportParameterError, "\(id.name): \(reason)")
    }

    private func integer(
        _ id: ParameterID, _ value: ByteRange, in allowed: ClosedRange<UInt64> = 0...Varint.maximum
    ) throws(TransportError) -> UInt64 {
        var reader = WireReader(bytes, in: value.range)
        guard let number = try? reader.readVarint(), reader.isAtEnd else {
            throw fault(id, "not one variable-length integer")
        }
        guard allowed.contains(number) else {
            throw fault(id, "\(number) is not in \(allowed.lowerBound) to \(allowed.upperBound)")
        }
        return number
    }

    private func connectionID(_ id: ParameterID, _ value: ByteRange) throws(TransportError) -> ConnectionID {
        guard let connectionID = ConnectionID(bytes, at: value.offset, length: value.count) else {
            throw fault(id, "longer than 20 bytes")
        }
        return connectionID
    }

    private func preferredAddress(_ value: ByteRange) throws(TransportError) -> PreferredAddress {
        var reader = WireReader(bytes, in: value.range)
        let address: PreferredAddress?
        do throws(WireError) {
            let ipv4 = NetworkAddress(ipv4: try reader.readUInt32(), port: try reader.readUInt16())
            let ipv6 = NetworkAddress(
                ipv6: try reader.readUInt64(), try reader.readUInt64(), port: try reader.readUInt16())
            let length = Int(try reader.readUInt8())
            address = PreferredAddress(
                ipv4: ipv4.isUsable ? ipv4 : nil, ipv6: ipv6.isUsable ? ipv6 : nil,
                connectionID: try reader.readConnectionID(length: length), resetToken: try reader.readResetToken())
        } catch {
            address = nil
        }
        guard let address, reader.isAtEnd else { throw fault(.preferredAddress, "not of the right form") }
        guard address.connectionID.length > 0 else { throw fault(.preferredAddress, "an empty connection ID") }
        return address
    }
}

extension PreferredAddress {
    /// A family that is not offered is all zeros (RFC 9000, section 18.2).
    fileprivate var encoded: [UInt8] {
        var result: [UInt8] = []
        func append(_ value: some FixedWidthInteger) {
            withUnsafeBytes(of: value.bigEndian) { result += $0 }
        }
        append(ipv4?.ipv4 ?? 0)
        append(ipv4?.ipv4 == nil ? 0 : ipv4?.port ?? 0)
        append(ipv6?.ipv6?.high ?? 0)
        append(ipv6?.ipv6?.low ?? 0)
        append(ipv6?.ipv6 == nil ? 0 : ipv6?.port ?? 0)
        append(connectionID.length)
        return result + connectionID.bytes + resetToken.bytes
    }
}

extension NetworkAddress {
    /// Neither the address nor the port is zero: one could send there.
    fileprivate var isUsable: Bool { !isUnspecified && port != 0 }
}

extension Nanoseconds {
    /// Rounded up, so that a short time does not become none; 0 for a negative one.
    fileprivate var wholeMilliseconds: UInt64 {
        guard rawValue > 0 else { return 0 }
        return UInt64(rawValue - 1) / 1_000_000 + 1
    }
}

extension Varint {
    /// The shortest encoding of a value of at most `maximum`.
    static func encoded(_ value: UInt64) -> [UInt8] {
        let size = encodedSize(value)
        // The two bits before the value say which power of two the size is.
        let word = value | UInt64(size.trailingZeroBitCount) << UInt64(8 * size - 2)
        return (0..<size).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * (size - 1 - $0))) }
    }
}
