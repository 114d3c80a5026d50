// SPDX-License-Identifier: Apache-2.0

/// Why bytes from the network could not be read.
enum WireError: Error, Equatable {
    /// The field reaches beyond the end.
    case truncated
    /// The field's value is not allowed.
    case malformed
}

/// Reads fields from borrowed bytes, each checked against their end. Nothing it is given can make it trap.
struct WireReader: ~Escapable {
    private let bytes: RawSpan
    /// Where the next field starts, from the start of the span.
    private(set) var offset: Int
    /// Where reading ends; never beyond the span.
    private let end: Int

    /// Reads the bytes of `range`, which is clamped to the span.
    @_lifetime(copy bytes)
    init(_ bytes: RawSpan, in range: Range<Int>) {
        self.bytes = bytes
        self.end = min(max(range.upperBound, 0), bytes.byteCount)
        self.offset = min(max(range.lowerBound, 0), self.end)
    }

    @_lifetime(copy bytes)
    init(_ bytes: RawSpan) {
        self.init(bytes, in: 0..<bytes.byteCount)
    }

    var remaining: Int { end - offset }
    var isAtEnd: Bool { offset == end }

    private func load<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type, at offset: Int) -> T {
        // The callers have checked that the bytes are there.
        T(bigEndian: bytes.unsafeLoadUnaligned(fromByteOffset: offset, as: T.self))
    }

    @_lifetime(self: copy self)
    private mutating func readInteger<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) throws(WireError) -> T {
        guard remaining >= MemoryLayout<T>.size else { throw .truncated }
        let value = load(T.self, at: offset)
        offset += MemoryLayout<T>.size
        return value
    }

    @_lifetime(self: copy self)
    mutating func readUInt8() throws(WireError) -> UInt8 { try readInteger(UInt8.self) }
    @_lifetime(self: copy self)
    mutating func readUInt16() throws(WireError) -> UInt16 { try readInteger(UInt16.self) }
    @_lifetime(self: copy self)
    mutating func readUInt32() throws(WireError) -> UInt32 { try readInteger(UInt32.self) }
    @_lifetime(self: copy self)
    mutating func readUInt64() throws(WireError) -> UInt64 { try readInteger(UInt64.self) }

    /// A variable-length integer (RFC 9000, section 16): 0 to 2^62-1.
    @inline(__always)
    @_lifetime(self: copy self)
    mutating func readVarint() throws(WireError) -> UInt64 {
        guard offset < end else { throw .truncated }
        // Types, small IDs, gaps and counts take one byte: most varints of a packet.
        let first = bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
        guard first >= 0x40 else {
            offset &+= 1
            return UInt64(first)
        }
        return try readLongVarint(first: first)
    }

    /// A varint of two bytes or more, of which the first is there.
    @inline(never)
    @_lifetime(self: copy self)
    private mutating func readLongVarint(first: UInt8) throws(WireError) -> UInt64 {
        let length = 1 << Int(first >> 6)
        guard remaining >= length else { throw .truncated }
        let value: UInt64
        switch length {
        case 2: value = UInt64(load(UInt16.self, at: offset) & 0x3fff)
        case 4: value = UInt64(load(UInt32.self, at: offset) & 0x3fff_ffff)
        default: value = load(UInt64.self, at: offset) & 0x3fff_ffff_ffff_ffff
        }
        offset &+= length
        return value
    }

    /// Where the next `count` bytes are; they are passed over.
    @_lifetime(self: copy self)
    mutating func readBytes(_ count: UInt64) throws(WireError) -> ByteRange {
        guard count <= UInt64(remaining) else { throw .truncated }
        let range = ByteRange(offset: offset, count: Int(count))
        offset += range.count
        return range
    }

    @_lifetime(self: copy self)
    mutating func readConnectionID(length: Int) throws(WireError) -> ConnectionID {
        guard length >= 0, length <= ConnectionID.maximumLength else { throw .malformed }
        guard length <= remaining, let id = ConnectionID(bytes, at: offset, length: length) else { throw .truncated }
        offset += length
        return id
    }

    @_lifetime(self: copy self)
    mutating func readResetToken() throws(WireError) -> StatelessResetToken {
        guard remaining >= StatelessResetToken.length, let token = StatelessResetToken(bytes, at: offset) else {
            throw .truncated
        }
        offset += StatelessResetToken.length
        return token
    }

    /// Passes over bytes of value zero and returns how many there were.
    @_lifetime(self: copy self)
    mutating func skipZeros() -> Int {
        let start = offset
        // Initial packets and probes hold a thousand of them: take words first.
        while remaining >= 8, load(UInt64.self, at: offset) == 0 { offset += 8 }
        while offset < end, bytes.unsafeLoad(fromByteOffset: offset, as: UInt8.self) == 0 { offset += 1 }
        return offset - start
    }

    /// Goes back to an offset seen before.
    @_lifetime(self: copy self)
    mutating func rewind(to offset: Int) {
        self.offset = min(max(offset, 0), end)
    }
}

extension RawSpan {
    /// A copy of the bytes of a range that lies within the span; bytes beyond it are left out.
    func copyBytes(in range: ByteRange) -> [UInt8] {
        withUnsafeBytes { [UInt8]($0[range.range.clamped(to: 0..<$0.count)]) }
    }
}

/// Sizes of variable-length integers (RFC 9000, section 16).
enum Varint {
    static let maximum: UInt64 = (1 << 62) - 1

    /// Bytes of the shortest encoding of a value of at most `maximum`.
    @inline(__always)
    static func encodedSize(_ value: UInt64) -> Int {
        value < 1 << 6 ? 1 : value < 1 << 14 ? 2 : value < 1 << 30 ? 4 : 8
    }
}
