// SPDX-License-Identifier: Apache-2.0

/// Writes packets into borrowed memory.
///
/// The callers measure before they write: what does not fit below `limit` is not written and turns `overflowed` on,
/// so that a mistake can neither write out of bounds nor send half a field.
struct PacketWriter: ~Copyable, ~Escapable {
    private var bytes: MutableRawSpan
    /// Where the next byte goes, from the start of the span.
    private(set) var offset: Int
    /// No byte is written at or beyond this offset; at most the span's size.
    private(set) var limit: Int
    /// Something did not fit. The packet must not be sent.
    private(set) var overflowed = false

    @_lifetime(copy bytes)
    init(_ bytes: consuming MutableRawSpan) {
        self.limit = bytes.byteCount
        self.offset = 0
        self.bytes = bytes
    }

    /// Writes into memory that its owner lends for as long as the writer lives.
    @_lifetime(&buffer)
    init(_ buffer: inout MutableRawSpan) {
        let size = buffer.byteCount
        self.init(buffer._mutatingExtracting(0..<size))
    }

    var remaining: Int { limit - offset }
    var capacity: Int { bytes.byteCount }

    /// Moves the limit, for instance to the end of the datagram being built; clamped to the span.
    @_lifetime(self: copy self)
    mutating func setLimit(_ newLimit: Int) {
        limit = min(max(newLimit, offset), bytes.byteCount)
    }

    /// Drops what was written from `offset` on.
    @_lifetime(self: copy self)
    mutating func truncate(to offset: Int) {
        self.offset = min(max(offset, 0), self.offset)
        overflowed = false
    }

    @_lifetime(self: copy self)
    private mutating func reserve(_ count: Int) -> Int? {
        guard count <= limit - offset else {
            overflowed = true
            return nil
        }
        let start = offset
        offset += count
        return start
    }

    @_lifetime(self: copy self)
    private mutating func append<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
        guard let start = reserve(MemoryLayout<T>.size) else { return }
        bytes.storeBytes(of: value.bigEndian, toByteOffset: start, as: T.self)
    }

    @_lifetime(self: copy self)
    mutating func writeUInt8(_ value: UInt8) { append(value) }
    @_lifetime(self: copy self)
    mutating func writeUInt16(_ value: UInt16) { append(value) }
    @_lifetime(self: copy self)
    mutating func writeUInt32(_ value: UInt32) { append(value) }
    @_lifetime(self: copy self)
    mutating func writeUInt64(_ value: UInt64) { append(value) }

    /// The low `length` bytes (1 to 4) of a packet number.
    @_lifetime(self: copy self)
    mutating func writePacketNumber(_ number: PacketNumber, length: Int) {
        for index in stride(from: length - 1, through: 0, by: -1) {
            append(UInt8(truncatingIfNeeded: number >> (8 * UInt64(index))))
        }
    }

    /// The shortest encoding (RFC 9000, section 16). A value above 2^62-1 is an overflow.
    @_lifetime(self: copy self)
    mutating func writeVarint(_ value: UInt64) {
        switch Varint.encodedSize(value) {
        case 1: append(UInt8(truncatingIfNeeded: value))
        case 2: append(UInt16(truncatingIfNeeded: value) | 0x4000)
        case 4: append(UInt32(truncatingIfNeeded: value) | 0x8000_0000)
        default:
            guard value <= Varint.maximum else {
                overflowed = true
                return
            }
            append(value | 0xc000_0000_0000_0000)
        }
    }

    /// A varint in two bytes whatever its value, for a length that is known only later.
    @_lifetime(self: copy self)
    mutating func writeTwoByteVarint(_ value: Int, at position: Int? = nil) {
        guard value >= 0, value < 1 << 14 else {
            overflowed = true
            return
        }
        if let position {
            guard position >= 0, position + 2 <= offset else {
                overflowed = true
                return
            }
            bytes.storeBytes(of: (UInt16(value) | 0x4000).bigEndian, toByteOffset: position, as: UInt16.self)
        } else {
            append(UInt16(value) | 0x4000)
        }
    }

    @_lifetime(self: copy self)
    mutating func writeBytes(_ source: UnsafeRawBufferPointer) {
        guard let start = reserve(source.count), source.count > 0 else { return }
        bytes.withUnsafeMutableBytes { destination in
            UnsafeMutableRawBufferPointer(rebasing: destination[start..<start + source.count]).copyMemory(from: source)
        }
    }

    @_lifetime(self: copy self)
    mutating func writeBytes(_ source: [UInt8]) {
        source.withUnsafeBytes { writeBytes($0) }
    }

    @_lifetime(self: copy self)
    mutating func writeConnectionID(_ id: ConnectionID) {
        id.withUnsafeBytes { writeBytes($0) }
    }

    @_lifetime(self: copy self)
    mutating func writeResetToken(_ token: StatelessResetToken) {
        token.withUnsafeBytes { writeBytes($0) }
    }

    @_lifetime(self: copy self)
    mutating func writeZeros(_ count: Int) {
        guard count > 0, let start = reserve(count) else { return }
        bytes.withUnsafeMutableBytes { destination in
            _ = UnsafeMutableRawBufferPointer(rebasing: destination[start..<start + count]).initializeMemory(
                as: UInt8.self, repeating: 0)
        }
    }

    /// Changes a byte that was written before.
    @_lifetime(self: copy self)
    mutating func overwrite(at position: Int, with value: UInt8) {
        guard position >= 0, position < offset else {
            overflowed = true
            return
        }
        bytes.storeBytes(of: value, toByteOffset: position, as: UInt8.self)
    }

    /// The whole memory, written or not, for protecting a packet in place.
    @_lifetime(self: copy self)
    mutating func withUnsafeMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
        bytes.withUnsafeMutableBytes(body)
    }
}
