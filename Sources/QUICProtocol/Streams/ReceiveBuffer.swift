// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers
internal import DequeModule

/// Puts the data of one stream back in order.
///
/// Data is copied once on arrival, into blocks that stand for fixed stretches of the stream, and once more when it is
/// read. What arrives in order moves one number; what arrives beyond a gap is remembered in a range set.
///
/// The caller bounds the offsets by the flow-control window before it inserts, which bounds the blocks; the number of
/// ranges is the caller's to watch through `gapCount`.
struct ReceiveBuffer: ~Copyable {
    /// Block `i` holds the bytes from `(firstBlock + i) * blockSize` on; nil where nothing has arrived.
    private var blocks = UniqueDeque<UnsafeMutableRawPointer?>()
    private var firstBlock: UInt64 = 0
    /// What was read, from the start of the stream.
    private(set) var consumed: UInt64 = 0
    /// Where the first gap starts.
    private(set) var contiguousEnd: UInt64 = 0
    /// What arrived beyond the first gap.
    private var beyond = OffsetRangeSet()

    private static var blockSize: UInt64 { UInt64(ReceiveBlockPool.blockSize) }
    /// Entries that a buffer at its end keeps room for.
    private static let keptCapacity = 8

    /// Bytes that can be read now.
    var readable: Int { Int(truncatingIfNeeded: contiguousEnd &- consumed) }
    /// Runs of data that wait for something missing before them.
    var gapCount: Int { beyond.count }

    /// Stores what is new of the bytes.
    ///
    /// - Parameter offset: at most a window beyond `consumed`.
    mutating func insert(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, pool: inout ReceiveBlockPool) {
        let end = offset &+ UInt64(bytes.count)
        guard end > contiguousEnd else { return }
        if offset <= contiguousEnd {
            let known = Int(truncatingIfNeeded: contiguousEnd &- offset)
            store(UnsafeRawBufferPointer(rebasing: bytes[known...]), at: contiguousEnd, pool: &pool)
            contiguousEnd = beyond.isEmpty ? end : beyond.absorb(from: end)
        } else {
            store(bytes, at: offset, pool: &pool)
            beyond.insert(offset, end)
        }
    }

    private mutating func store(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, pool: inout ReceiveBlockPool) {
        if blocks.isEmpty { firstBlock = consumed / Self.blockSize }
        var index = Int(truncatingIfNeeded: offset / Self.blockSize &- firstBlock)
        var position = Int(truncatingIfNeeded: offset % Self.blockSize)
        var copied = 0
        while copied < bytes.count {
            while blocks.count <= index { blocks.append(nil) }
            let block: UnsafeMutableRawPointer
            if let present = blocks[index] {
                block = present
            } else {
                block = pool.take()
                blocks[index] = block
            }
            // Within the block: `position` is below its size, and no more is copied than fits.
            let count = min(bytes.count - copied, ReceiveBlockPool.blockSize - position)
            UnsafeMutableRawBufferPointer(start: block + position, count: count)
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[copied..<copied + count]))
            copied += count
            position = 0
            index += 1
        }
    }

    /// Moves what is in order into `destination`, as much as fits, and returns how many bytes that was.
    mutating func read(into destination: UnsafeMutableRawBufferPointer, pool: inout ReceiveBlockPool) -> Int {
        var copied = 0
        while copied < destination.count, consumed < contiguousEnd {
            guard let block = blocks[0] else { break }  // Everything below `contiguousEnd` was stored.
            let position = Int(truncatingIfNeeded: consumed % Self.blockSize)
            let count = min(destination.count - copied, min(ReceiveBlockPool.blockSize - position, readable))
            UnsafeMutableRawBufferPointer(rebasing: destination[copied..<copied + count])
                .copyMemory(from: UnsafeRawBufferPointer(start: block + position, count: count))
            copied += count
            consumed &+= UInt64(count)
            if position + count == ReceiveBlockPool.blockSize {
                blocks.removeFirst()
                firstBlock &+= 1
                pool.give(block)
            }
        }
        // An idle stream keeps no block.
        if consumed == contiguousEnd, beyond.isEmpty, !blocks.isEmpty { releaseBlocks(to: &pool) }
        return copied
    }

    /// Drops everything that has not been read, and all memory.
    mutating func discard(pool: inout ReceiveBlockPool) {
        releaseBlocks(to: &pool)
        // A few words are left to the next stream in this one's place.
        if blocks.capacity > Self.keptCapacity { blocks.reallocate(capacity: 0) }
        beyond.removeAll()
        contiguousEnd = consumed
    }

    /// Takes over the storage of a buffer that is done with.
    mutating func takeStorage(of former: inout ReceiveBuffer) {
        swap(&blocks, &former.blocks)
    }

    private mutating func releaseBlocks(to pool: inout ReceiveBlockPool) {
        while let entry = blocks.popLast() {
            if let block = entry { pool.give(block) }
        }
    }

    deinit {
        for index in 0..<blocks.count { blocks[index]?.deallocate() }
    }
}
