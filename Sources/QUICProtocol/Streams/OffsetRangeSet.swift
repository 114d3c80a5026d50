// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// The offsets from `lower` up to but not including `upper`.
struct OffsetRange: Equatable {
    var lower: UInt64
    var upper: UInt64

    var count: UInt64 { upper &- lower }
}

/// A set of offsets as sorted ranges that neither overlap nor touch.
///
/// Made for few ranges and for changes near the end; others cost O(log n) to find and O(n) to move. An empty set owns no
/// memory until its first insertion.
struct OffsetRangeSet: ~Copyable {
    private var ranges = UniqueArray<OffsetRange>()

    var isEmpty: Bool { ranges.isEmpty }
    /// How many ranges, not how many offsets.
    var count: Int { ranges.count }
    var first: OffsetRange? { ranges.isEmpty ? nil : ranges[0] }

    /// - Precondition: `index` is at least 0 and below `count`.
    subscript(index: Int) -> OffsetRange { ranges[index] }

    /// The first range that ends at or beyond `offset`; `count` if there is none.
    func index(endingAtOrAfter offset: UInt64) -> Int {
        var low = 0
        var high = ranges.count
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upper < offset { low = middle + 1 } else { high = middle }
        }
        return low
    }

    func contains(_ offset: UInt64) -> Bool {
        guard offset < .max else { return false }
        let index = index(endingAtOrAfter: offset + 1)
        return index < ranges.count && ranges[index].lower <= offset
    }

    /// Adds the offsets of `lower..<upper`; an empty range adds none.
    mutating func insert(_ lower: UInt64, _ upper: UInt64) {
        guard lower < upper else { return }
        let count = ranges.count
        // In order: at the end or beyond it.
        guard count > 0, ranges[count - 1].upper >= lower else {
            ranges.append(OffsetRange(lower: lower, upper: upper))
            return
        }
        let start = index(endingAtOrAfter: lower)
        guard ranges[start].lower <= upper else {
            ranges.insert(OffsetRange(lower: lower, upper: upper), at: start)
            return
        }
        var end = start
        while end + 1 < count, ranges[end + 1].lower <= upper { end += 1 }
        ranges[start] = OffsetRange(lower: min(lower, ranges[start].lower), upper: max(upper, ranges[end].upper))
        if end > start { ranges.removeSubrange(start + 1..<end + 1) }
    }

    /// Takes away the offsets of `lower..<upper`.
    mutating func remove(_ lower: UInt64, _ upper: UInt64) {
        guard lower < upper, !ranges.isEmpty else { return }
        var start = index(endingAtOrAfter: lower)
        if start < ranges.count, ranges[start].upper == lower { start += 1 }
        guard start < ranges.count, ranges[start].lower < upper else { return }
        if ranges[start].lower < lower {
            let end = ranges[start].upper
            ranges[start].upper = lower
            start += 1
            if end > upper {
                ranges.insert(OffsetRange(lower: upper, upper: end), at: start)
                return
            }
        }
        var end = start
        while end < ranges.count, ranges[end].upper <= upper { end += 1 }
        if end < ranges.count, ranges[end].lower < upper { ranges[end].lower = upper }
        if end > start { ranges.removeSubrange(start..<end) }
    }

    /// Takes away the ranges that `end`, the end of a run from below all of them, reaches; returns the end of the run
    /// together with them.
    mutating func absorb(from end: UInt64) -> UInt64 {
        var reached = end
        var taken = 0
        while taken < ranges.count, ranges[taken].lower <= reached {
            reached = max(reached, ranges[taken].upper)
            taken += 1
        }
        if taken > 0 { ranges.removeSubrange(0..<taken) }
        return reached
    }

    mutating func removeAll() { ranges.removeAll() }
}
