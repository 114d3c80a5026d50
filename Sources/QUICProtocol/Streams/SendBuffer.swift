// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// What the application wrote on one stream and the peer has not acknowledged.
///
/// The bytes stay where the application put them. They are copied into packets when those are written, and let go from
/// the front as it is acknowledged.
struct SendBuffer: ~Copyable {
    // Not private: a private type in a noncopyable container breaks the linkage of its metadata (Swift 6.3).
    struct Chunk {
        let bytes: SharedBytes
        /// Offset of the first byte in the stream.
        let start: UInt64

        var end: UInt64 { start &+ UInt64(bytes.count) }
    }

    private var chunks = UniqueDeque<Chunk>()
    /// Index of the chunk that `next` lies in; `chunks.count` when all was sent.
    private var cursor = 0

    /// How much was written: the offset of the next byte the application writes.
    private(set) var written: UInt64 = 0
    /// The offset of the first byte never sent.
    private(set) var next: UInt64 = 0
    /// All before this offset was acknowledged.
    private(set) var acknowledgedEnd: UInt64 = 0
    /// What was acknowledged beyond `acknowledgedEnd`.
    private var acknowledged = OffsetRangeSet()
    /// What was lost and is to be sent again.
    private var lost = OffsetRangeSet()

    /// Bytes written and never sent.
    var unsent: UInt64 { written &- next }
    var isAllAcknowledged: Bool { acknowledgedEnd == written }
    var hasLost: Bool { !lost.isEmpty }
    /// The lost range to send first.
    var firstLost: OffsetRange? { lost.first }
    /// Pieces that the application's writes left in memory.
    var chunkCount: Int { chunks.count }

    mutating func append(_ bytes: SharedBytes) {
        guard bytes.count > 0 else { return }
        chunks.append(Chunk(bytes: bytes, start: written))
        written &+= UInt64(bytes.count)
    }

    /// Writes the next `count` unsent bytes; the caller has checked that they are there and that they fit.
    @_lifetime(writer: copy writer)
    mutating func writeNext(_ count: Int, into writer: inout PacketWriter) {
        cursor = copy(count, from: next, chunk: cursor, into: &writer)
        next &+= UInt64(count)
    }

    /// Writes `count` bytes from the start of the first lost range, which they do not exceed.
    @_lifetime(writer: copy writer)
    mutating func writeLost(_ count: Int, into writer: inout PacketWriter) {
        guard let range = lost.first else { return }
        _ = copy(count, from: range.lower, chunk: chunkIndex(of: range.lower), into: &writer)
        lost.remove(range.lower, range.lower &+ UInt64(count))
    }

    /// Returns the index of the chunk that the byte after the last one copied lies in.
    @_lifetime(writer: copy writer)
    private func copy(_ count: Int, from offset: UInt64, chunk: Int, into writer: inout PacketWriter) -> Int {
        var index = chunk
        var position = offset
        var left = count
        while index < chunks.count {
            let available = Int(truncatingIfNeeded: chunks[index].end &- position)
            if available > 0 {
                guard left > 0 else { break }
                let size = min(available, left)
                let start = Int(truncatingIfNeeded: position &- chunks[index].start)
                writer.writeBytes(UnsafeRawBufferPointer(rebasing: chunks[index].bytes.bytes[start..<start + size]))
                left -= size
                position &+= UInt64(size)
                if size < available { break }
            }
            index += 1
        }
        return index
    }

    private func chunkIndex(of offset: UInt64) -> Int {
        var low = 0
        var high = chunks.count
        while low < high {
            let middle = (low + high) / 2
            if chunks[middle].end <= offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The bytes of `lower..<upper` arrived.
    mutating func acknowledge(_ lower: UInt64, _ upper: UInt64) {
        let upper = min(upper, next)
        guard lower < upper, upper > acknowledgedEnd else { return }
        if lower <= acknowledgedEnd {
            acknowledgedEnd = acknowledged.isEmpty ? upper : acknowledged.absorb(from: upper)
            while !chunks.isEmpty, chunks[0].end <= acknowledgedEnd {
                chunks.removeFirst()
                cursor = max(cursor - 1, 0)
            }
        } else {
            acknowledged.insert(lower, upper)
        }
        // Declared lost too early: it need not be sent again.
        if !lost.isEmpty { lost.remove(lower, upper) }
    }

    /// The bytes of `lower..<upper` are to be sent again, but for those acknowledged by way of another packet.
    mutating func markLost(_ lower: UInt64, _ upper: UInt64) {
        let upper = min(upper, next)
        var position = max(lower, acknowledgedEnd)
        guard position < upper else { return }
        var index = acknowledged.index(endingAtOrAfter: position)
        while position < upper {
            guard index < acknowledged.count, acknowledged[index].lower < upper else {
                lost.insert(position, upper)
                return
            }
            lost.insert(position, acknowledged[index].lower)
            position = max(position, acknowledged[index].upper)
            index += 1
        }
    }

    /// Chunks that a buffer at its end keeps room for.
    private static let keptCapacity = 8

    /// Takes over the storage of a buffer that is done with.
    mutating func takeStorage(of former: inout SendBuffer) {
        former.chunks.removeAll()
        swap(&chunks, &former.chunks)
    }

    /// Lets go of all bytes. What was sent stays counted.
    mutating func discard() {
        chunks.removeAll()
        if chunks.capacity > Self.keptCapacity { chunks.reallocate(capacity: 0) }
        cursor = 0
        written = next
        acknowledged.removeAll()
        lost.removeAll()
    }
}
