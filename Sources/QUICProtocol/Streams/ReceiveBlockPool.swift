// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// Blocks of memory for data that arrived and was not read yet, shared by the streams of a connection.
///
/// A few blocks are kept for the next stream or the next batch, so that a transfer in progress allocates nothing;
/// `trim` gives them up when the connection falls idle.
struct ReceiveBlockPool: ~Copyable {
    /// Bytes of a block: large beside a packet, small beside a window.
    static let blockSize = 16 * 1_024
    /// Blocks kept at most, so that a hundred streams of one batch allocate little. No more are kept than were ever used
    /// at once.
    static let maximumKept = 64

    private var kept = UniqueArray<UnsafeMutableRawPointer>()
    /// Blocks taken and not given back.
    private(set) var outstanding = 0

    var keptCount: Int { kept.count }

    /// A block of `blockSize` uninitialised bytes. It must be given back, or be deallocated.
    mutating func take() -> UnsafeMutableRawPointer {
        outstanding += 1
        return kept.popLast() ?? .allocate(byteCount: Self.blockSize, alignment: 16)
    }

    mutating func give(_ block: UnsafeMutableRawPointer) {
        outstanding -= 1
        if kept.count < Self.maximumKept { kept.append(block) } else { block.deallocate() }
    }

    /// Frees the blocks that nobody uses.
    mutating func trim() {
        while let block = kept.popLast() { block.deallocate() }
        kept.removeAll()
    }

    deinit {
        for index in 0..<kept.count { kept[index].deallocate() }
    }
}
