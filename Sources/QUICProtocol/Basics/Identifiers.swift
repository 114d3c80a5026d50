// SPDX-License-Identifier: Apache-2.0

/// A packet number within its space, 0 to 2^62-1 (RFC 9000, section 12.3).
public typealias PacketNumber = UInt64

/// Which side of the connection an endpoint is.
public enum Role: Sendable {
    case client
    case server

    var peer: Role { self == .client ? .server : .client }
}

/// A QUIC version number (RFC 8999, section 5.4).
public struct QUICVersion: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// RFC 9000.
    public static let v1 = QUICVersion(rawValue: 0x0000_0001)
    /// The version of a Version Negotiation packet.
    static let negotiation = QUICVersion(rawValue: 0)
    /// One of the versions reserved to exercise version negotiation (RFC 9000, section 15).
    static let greased = QUICVersion(rawValue: 0x1a2a_3a4a)
    /// The versions this engine speaks, the preferred first.
    public static let supported: [QUICVersion] = [.v1]
}

/// The direction of a stream (RFC 9000, section 2.1).
public enum StreamDirection: UInt8, Sendable {
    case bidirectional = 0
    case unidirectional = 1
}

/// A stream's ID: its initiator, its direction and its ordinal in one number (RFC 9000, section 2.1).
public struct StreamID: RawRepresentable, Hashable, Comparable, Sendable {
    public var rawValue: UInt64
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public init(initiator: Role, direction: StreamDirection, ordinal: UInt64) {
        self.rawValue = ordinal << 2 | UInt64(direction.rawValue) << 1 | (initiator == .server ? 1 : 0)
    }

    @inlinable
    public var initiator: Role { rawValue & 1 == 0 ? .client : .server }
    @inlinable
    public var direction: StreamDirection { rawValue & 2 == 0 ? .bidirectional : .unidirectional }
    /// How many streams of this kind were opened before it.
    @inlinable
    public var ordinal: UInt64 { rawValue >> 2 }
    @inlinable
    public static func < (a: StreamID, b: StreamID) -> Bool { a.rawValue < b.rawValue }
}

extension StreamID: CustomStringConvertible {
    public var description: String { "\(rawValue)" }
}

/// The keys a packet is protected with (RFC 9001, section 2.1).
enum EncryptionLevel: UInt8, CaseIterable, Sendable {
    case initial = 0
    case earlyData = 1
    case handshake = 2
    case oneRTT = 3

    var space: PacketNumberSpaceID {
        switch self {
        case .initial: .initial
        case .handshake: .handshake
        case .earlyData, .oneRTT: .application
        }
    }
}

/// The three packet number spaces (RFC 9000, section 12.3).
enum PacketNumberSpaceID: UInt8, CaseIterable, Sendable {
    case initial = 0
    case handshake = 1
    case application = 2
}

/// Names a path within its connection. Never used again once the path is gone, so a late acknowledgement cannot be
/// counted for a newer path.
public struct PathID: Hashable, Sendable {
    public var rawValue: UInt32
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

extension PathID: CustomStringConvertible {
    public var description: String { "path \(rawValue)" }
}
