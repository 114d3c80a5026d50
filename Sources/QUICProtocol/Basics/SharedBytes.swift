// SPDX-License-Identifier: Apache-2.0

/// Bytes that somebody else owns, kept alive by a reference to their owner: how stream data reaches the engine without
/// a copy. They are read when a packet is written, perhaps more than once, and let go when the peer acknowledged them.
public struct SharedBytes {
    /// Keeps `bytes` valid.
    @usableFromInline let owner: AnyObject?
    public let bytes: UnsafeRawBufferPointer

    /// - Parameters:
    ///   - bytes: must stay valid and unchanged as long as `owner` lives.
    @inlinable
    public init(unsafeBytes bytes: UnsafeRawBufferPointer, owner: AnyObject?) {
        self.bytes = bytes
        self.owner = owner
    }

    /// Copies bytes into storage of its own.
    public init(copying source: some Collection<UInt8>) {
        let storage = Storage(count: source.count)
        storage.bytes.copyBytes(from: source)
        self.init(unsafeBytes: UnsafeRawBufferPointer(storage.bytes), owner: storage)
    }

    @inlinable
    public var count: Int { bytes.count }

    private final class Storage {
        let bytes: UnsafeMutableRawBufferPointer
        init(count: Int) { bytes = .allocate(byteCount: count, alignment: 1) }
        deinit { bytes.deallocate() }
    }
}
