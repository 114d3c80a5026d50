// SPDX-License-Identifier: Apache-2.0

/// A connection ID of 0 to 20 bytes (RFC 9000, section 5.1), held inline.
public struct ConnectionID: Hashable, Sendable {
    /// QUIC version 1 allows no more.
    public static let maximumLength = 20

    // The bytes in order of memory; those beyond the length are zero, so that equality may compare whole words.
    @usableFromInline var storage: (UInt64, UInt64, UInt32)
    public let length: UInt8

    /// An ID of no bytes, as an endpoint uses that tells its connections apart by address alone.
    public static let empty = ConnectionID()

    private init() {
        storage = (0, 0, 0)
        length = 0
    }

    /// - Precondition: none; nil is returned for more than 20 bytes.
    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count <= Self.maximumLength else { return nil }
        storage = (0, 0, 0)
        length = UInt8(bytes.count)
        withUnsafeMutableBytes(of: &storage) { $0.copyBytes(from: bytes) }
    }

    /// The ID at `offset`, or nil if it is longer than 20 bytes or reaches beyond the span.
    init?(_ span: RawSpan, at offset: Int, length: Int) {
        guard length >= 0, length <= Self.maximumLength, offset >= 0, length <= span.byteCount - offset else {
            return nil
        }
        storage = (0, 0, 0)
        self.length = UInt8(length)
        withUnsafeMutableBytes(of: &storage) { destination in
            span.extracting(droppingFirst: offset).withUnsafeBytes { source in
                destination.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[..<length]))
            }
        }
    }

    /// A random ID of the given length, at most 20 bytes.
    public static func random(length: Int, using random: inout RandomSource) -> ConnectionID {
        ConnectionID(random.bytes(min(length, maximumLength))) ?? .empty
    }

    public var bytes: [UInt8] { withUnsafeBytes { [UInt8]($0) } }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        Swift.withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<Int(length)])) }
    }

    @inlinable
    public static func == (a: ConnectionID, b: ConnectionID) -> Bool {
        a.storage.0 == b.storage.0 && a.storage.1 == b.storage.1 && a.storage.2 == b.storage.2 && a.length == b.length
    }

    @inlinable
    public func hash(into hasher: inout Hasher) {
        hasher.combine(storage.0)
        if length > 8 {
            hasher.combine(storage.1)
            hasher.combine(storage.2)
        }
    }
}

extension ConnectionID: CustomStringConvertible {
    public var description: String {
        length == 0 ? "(empty)" : bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}

/// The 16 bytes by which an endpoint without state ends a connection (RFC 9000, section 10.3).
public struct StatelessResetToken: Hashable, Sendable {
    public static let length = 16
    @usableFromInline let words: (UInt64, UInt64)

    public init?(_ bytes: some Collection<UInt8>) {
        guard bytes.count == Self.length else { return nil }
        var words: (UInt64, UInt64) = (0, 0)
        Swift.withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes) }
        self.words = words
    }

    /// The first 16 of the bytes, of which there should be as many.
    init(prefixOf bytes: [UInt8]) {
        var words: (UInt64, UInt64) = (0, 0)
        Swift.withUnsafeMutableBytes(of: &words) { $0.copyBytes(from: bytes.prefix(Self.length)) }
        self.words = words
    }

    /// The token at `offset`, or nil if it reaches beyond the span.
    init?(_ span: RawSpan, at offset: Int) {
        guard offset >= 0, Self.length <= span.byteCount - offset else { return nil }
        words = (
            span.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self),
            span.unsafeLoadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)
        )
    }

    public var bytes: [UInt8] { withUnsafeBytes { [UInt8]($0) } }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        Swift.withUnsafeBytes(of: words, body)
    }

    /// Takes the same time wherever the first difference is (RFC 9000, section 10.3.1).
    public static func == (a: StatelessResetToken, b: StatelessResetToken) -> Bool {
        (a.words.0 ^ b.words.0) | (a.words.1 ^ b.words.1) == 0
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(words.0)
        hasher.combine(words.1)
    }
}
