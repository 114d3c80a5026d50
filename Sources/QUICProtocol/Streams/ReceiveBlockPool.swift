// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// Blocks of memory for data that arrived and was not read yet, shared by all connections of an endpoint: what one of them
/// has read the next one fills, while the processor's cache still holds it.
///
/// As many are kept as were in use at once of late, so that transfers in progress allocate nothing.
final class ReceiveBlockReserve {
    /// Blocks kept in any case, so that a hundred streams of one batch allocate little.
    static let alwaysKept = 64
    /// More are never kept: 16 MB. What peers had an endpoint take at its busiest is not held for ever.
    static let mostKept = 1_024

    private var kept = UniqueArray<UnsafeMutableRawPointer>()
    /// Blocks taken and not given back.
    private var outstanding = 0
    /// The most that were outstanding since there were none, and what is left of such peaks before: a reader that falls behind
    /// and catches up again does so many times a second.
    private var peak = 0
    private var formerPeak = 0

    var keptCount: Int { kept.count }

    fileprivate func take() -> UnsafeMutableRawPointer {
        outstanding += 1
        peak = max(peak, outstanding)
        return kept.popLast() ?? .allocate(byteCount: ReceiveBlockPool.blockSize, alignment: 16)
    }

    fileprivate func give(_ block: UnsafeMutableRawPointer) {
        if kept.count < Self.mostKept { kept.append(block) } else { block.deallocate() }
        forget(1)
    }

    /// So many blocks will not be given back: their connection is gone, and has freed them.
    fileprivate func forget(_ count: Int) {
        outstanding -= count
        guard outstanding == 0 else { return }
        formerPeak = max(peak, formerPeak - formerPeak / 16)
        peak = 0
        trim(to: max(Self.alwaysKept, formerPeak))
    }

    /// Frees what nobody uses, unless transfers are in progress.
    func release() {
        guard outstanding == 0 else { return }
        formerPeak = 0
        trim(to: 0)
        kept.removeAll()
    }

    private func trim(to count: Int) {
        while kept.count > count, let block = kept.popLast() { block.deallocate() }
    }

    deinit { trim(to: 0) }
}

/// The blocks of one connection.
struct ReceiveBlockPool: ~Copyable {
    /// Bytes of a block: large beside a packet, small beside a window.
    static let blockSize = 16 * 1_024

    let reserve: ReceiveBlockReserve
    /// Blocks taken and not given back.
    private(set) var outstanding = 0

    init(reserve: ReceiveBlockReserve = ReceiveBlockReserve()) { self.reserve = reserve }

    /// A block of `blockSize` uninitialised bytes. It must be given back, or be deallocated with the pool.
    mutating func take() -> UnsafeMutableRawPointer {
        outstanding += 1
        return reserve.take()
    }

    mutating func give(_ block: UnsafeMutableRawPointer) {
        outstanding -= 1
        reserve.give(block)
    }

    deinit {
        if outstanding > 0 { reserve.forget(outstanding) }
    }
}
