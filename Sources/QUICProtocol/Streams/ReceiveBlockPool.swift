// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// Blocks of memory for data that arrived and was not read yet, shared by the streams of a connection.
///
/// As many blocks are kept as were in use at once of late, so that a transfer in progress allocates nothing; `trim` gives
/// them up when the connection falls idle.
struct ReceiveBlockPool: ~Copyable {
    /// Bytes of a block: large beside a packet, small beside a window.
    static let blockSize = 16 * 1_024
    /// Blocks kept in any case, so that a hundred streams of one batch allocate little.
    static let alwaysKept = 64
    /// Blocks kept while no stream expects data: those of the next exchange.
    static let keptWhileIdle = 2

    private var kept = UniqueArray<UnsafeMutableRawPointer>()
    /// Blocks taken and not given back.
    private(set) var outstanding = 0
    /// The most that were outstanding since there were none, and what is left of such peaks before: a reader that falls behind
    /// and catches up again does so many times a second.
    private var peak = 0
    private var formerPeak = 0

    var keptCount: Int { kept.count }

    /// A block of `blockSize` uninitialised bytes. It must be given back, or be deallocated.
    mutating func take() -> UnsafeMutableRawPointer {
        outstanding += 1
        peak = max(peak, outstanding)
        return kept.popLast() ?? .allocate(byteCount: Self.blockSize, alignment: 16)
    }

    mutating func give(_ block: UnsafeMutableRawPointer) {
        outstanding -= 1
        kept.append(block)
        guard outstanding == 0 else { return }
        formerPeak = max(peak, formerPeak - formerPeak / 16)
        peak = 0
        trim(to: max(Self.alwaysKept, formerPeak))
    }

    /// Frees the blocks that nobody uses, but for so many.
    mutating func trim(to count: Int = 0) {
        while kept.count > count, let block = kept.popLast() { block.deallocate() }
        if count == 0 { kept.removeAll() }
    }

    deinit {
        for index in 0..<kept.count { kept[index].deallocate() }
    }
}
