// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// What TLS hands to QUIC, to be taken in order: bytes go into the CRYPTO stream of their level, secrets become keys.
enum TLSOutput {
    case bytes(EncryptionLevel, [UInt8])
    case secret(TrafficSecret, CipherSuite, EncryptionLevel, forReading: Bool)
}

/// The TLS handshake of one connection (RFC 9001, section 4).
///
///     start ──► nextOutput … ──► receive ──► nextOutput … ──► isComplete ──► receive (session tickets)
///
/// Nothing calls back: what TLS wants to be sent or installed waits until `nextOutput` takes it. Once the handshake is
/// confirmed a server, which sends no session tickets, can let the session go.
struct TLSSession: ~Copyable {
    private let session: OpaquePointer
    /// The C session uses the context's memory.
    private let context: TLSContext

    /// - Parameters:
    ///   - serverName: the server that a client wants to reach: a DNS name, or the text of an IP address, with or without
    ///     the brackets of IPv6. Its certificate must have the one or the other; only a DNS name is sent. Nil is refused
    ///     where the certificate's name is to be verified. Servers ignore it.
    ///   - transportParameters: ours, encoded.
    init(
        context: TLSContext, role: Role, serverName: String?, transportParameters: [UInt8]
    ) throws(TransportError) {
        guard context.role == role else {
            throw TransportError(.internalError, "TLS: the settings were made for the other side of a connection")
        }
        let hasName = serverName.map { !$0.isEmpty } ?? false
        guard role == .server || context.verification != .full || hasName else {
            throw TransportError(.internalError, "TLS: no server name was given to verify the certificate against")
        }
        // A C string ends at the first zero, so a name with one would be another name.
        guard !(serverName?.utf8.contains(0) ?? false) else {
            throw TransportError(.internalError, "TLS: the server name contains a zero byte")
        }
        let session = tern_tls_session_create(
            context.pointer, serverName, transportParameters, transportParameters.count)
        guard let session else {
            throw TransportError(
                .internalError, "TLS: the session could not be made; is \"\(serverName ?? "")\" a server name?")
        }
        self.session = session
        self.context = context
    }

    deinit { tern_tls_session_destroy(session) }

    /// Makes a client's ClientHello. Does nothing on a server.
    mutating func start() throws(TransportError) {
        try check(Int(tern_tls_session_advance(session)))
    }

    /// Takes the next bytes of the CRYPTO stream of a level.
    ///
    /// - Throws: CRYPTO_ERROR with the alert to be sent, PROTOCOL_VIOLATION for bytes at a wrong level, or
    ///   CRYPTO_BUFFER_EXCEEDED. The session is of no use after that.
    mutating func receive(_ bytes: UnsafeRawBufferPointer, level: EncryptionLevel) throws(TransportError) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        let result = tern_tls_session_receive(
            session, CInt(level.rawValue), base.assumingMemoryBound(to: UInt8.self), bytes.count)
        try check(Int(result))
    }

    private func check(_ result: Int) throws(TransportError) {
        if result == TERN_TLS_OK { return }
        let reason = String(cString: tern_tls_session_failure(session))
        let cryptoFrame: UInt64 = 0x06
        switch result {
        case TERN_TLS_ALERT:
            throw TransportError(.tlsAlert(tern_tls_session_alert(session)), frameType: cryptoFrame, reason)
        case TERN_TLS_PROTOCOL_VIOLATION:
            throw TransportError(.protocolViolation, frameType: cryptoFrame, reason)
        case TERN_TLS_BUFFER_EXCEEDED:
            throw TransportError(.cryptoBufferExceeded, frameType: cryptoFrame, reason)
        default:
            // The alert "internal_error".
            throw TransportError(.tlsAlert(80), frameType: cryptoFrame, reason)
        }
    }

    /// The next thing to send or to install, or nil.
    mutating func nextOutput() -> TLSOutput? {
        var output = tern_tls_output()
        while tern_tls_session_next_output(session, &output) == 1 {
            guard let level = EncryptionLevel(rawValue: UInt8(truncatingIfNeeded: output.level)) else { continue }
            let bytes = UnsafeRawBufferPointer(start: output.bytes, count: output.length)
            if Int(output.kind) == TERN_TLS_OUTPUT_BYTES { return .bytes(level, [UInt8](bytes)) }
            guard let suite = CipherSuite(rawValue: output.suite), let secret = TrafficSecret(bytes) else { continue }
            return .secret(
                secret, suite, level, forReading: Int(output.kind) == TERN_TLS_OUTPUT_READ_SECRET)
        }
        return nil
    }

    /// TLS has verified the peer's Finished and sent its own (RFC 9001, section 4.1.1).
    var isComplete: Bool { tern_tls_session_is_complete(session) == 1 }

    /// The protocol that the server selected.
    var applicationProtocol: String? {
        var bytes: UnsafePointer<UInt8>?
        let count = tern_tls_session_alpn(session, &bytes)
        guard count > 0 else { return nil }
        return String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// The peer's transport parameters, encoded, as soon as TLS has them. They are authentic once the handshake is
    /// complete (RFC 9001, section 8.2).
    var peerTransportParameters: [UInt8]? {
        var bytes: UnsafePointer<UInt8>?
        let count = tern_tls_session_peer_transport_parameters(session, &bytes)
        guard count > 0 else { return nil }
        return [UInt8](UnsafeBufferPointer(start: bytes, count: count))
    }

    /// The key exchange of the handshake, once it is known.
    var keyExchangeGroup: TLSSettings.KeyExchangeGroup? {
        TLSSettings.KeyExchangeGroup(rawValue: tern_tls_session_group(session))
    }
}
