// SPDX-License-Identifier: Apache-2.0

/// A transport error code (RFC 9000, section 20.1).
public struct TransportErrorCode: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let noError = Self(rawValue: 0x00)
    public static let internalError = Self(rawValue: 0x01)
    public static let connectionRefused = Self(rawValue: 0x02)
    public static let flowControlError = Self(rawValue: 0x03)
    public static let streamLimitError = Self(rawValue: 0x04)
    public static let streamStateError = Self(rawValue: 0x05)
    public static let finalSizeError = Self(rawValue: 0x06)
    public static let frameEncodingError = Self(rawValue: 0x07)
    public static let transportParameterError = Self(rawValue: 0x08)
    public static let connectionIDLimitError = Self(rawValue: 0x09)
    public static let protocolViolation = Self(rawValue: 0x0a)
    public static let invalidToken = Self(rawValue: 0x0b)
    public static let applicationError = Self(rawValue: 0x0c)
    public static let cryptoBufferExceeded = Self(rawValue: 0x0d)
    public static let keyUpdateError = Self(rawValue: 0x0e)
    public static let aeadLimitReached = Self(rawValue: 0x0f)
    public static let noViablePath = Self(rawValue: 0x10)

    /// The code of a TLS alert (RFC 9001, section 4.8).
    public static func tlsAlert(_ alert: UInt8) -> Self { Self(rawValue: 0x0100 + UInt64(alert)) }
    /// The alert behind a code of the range 0x0100 to 0x01ff.
    public var tlsAlert: UInt8? { rawValue >> 8 == 1 ? UInt8(truncatingIfNeeded: rawValue) : nil }
}

extension TransportErrorCode: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noError: "NO_ERROR"
        case .internalError: "INTERNAL_ERROR"
        case .connectionRefused: "CONNECTION_REFUSED"
        case .flowControlError: "FLOW_CONTROL_ERROR"
        case .streamLimitError: "STREAM_LIMIT_ERROR"
        case .streamStateError: "STREAM_STATE_ERROR"
        case .finalSizeError: "FINAL_SIZE_ERROR"
        case .frameEncodingError: "FRAME_ENCODING_ERROR"
        case .transportParameterError: "TRANSPORT_PARAMETER_ERROR"
        case .connectionIDLimitError: "CONNECTION_ID_LIMIT_ERROR"
        case .protocolViolation: "PROTOCOL_VIOLATION"
        case .invalidToken: "INVALID_TOKEN"
        case .applicationError: "APPLICATION_ERROR"
        case .cryptoBufferExceeded: "CRYPTO_BUFFER_EXCEEDED"
        case .keyUpdateError: "KEY_UPDATE_ERROR"
        case .aeadLimitReached: "AEAD_LIMIT_REACHED"
        case .noViablePath: "NO_VIABLE_PATH"
        default: tlsAlert.map { "CRYPTO_ERROR (TLS alert \($0))" } ?? "0x\(String(rawValue, radix: 16))"
        }
    }
}

/// A fault that ends the connection: what goes into the CONNECTION_CLOSE frame of type 0x1c (RFC 9000, section 19.19).
public struct TransportError: Error, Hashable, Sendable {
    public var code: TransportErrorCode
    /// The type of the frame at fault, if one is known.
    public var frameType: UInt64?
    /// For people; sent to the peer as the reason phrase.
    public var reason: String

    public init(_ code: TransportErrorCode, frameType: UInt64? = nil, _ reason: String) {
        self.code = code
        self.frameType = frameType
        self.reason = reason
    }
}

extension TransportError: CustomStringConvertible {
    public var description: String {
        "\(code): \(reason)" + (frameType.map { " (frame type 0x\(String($0, radix: 16)))" } ?? "")
    }
}
