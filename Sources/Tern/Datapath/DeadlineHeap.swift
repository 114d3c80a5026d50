// SPDX-License-Identifier: Apache-2.0

/// The deadlines of a worker's connections, the earliest first: a binary heap that knows where each slot's entry is, so that
/// moving or removing one takes O(log n) and needs no search. A slot is a small number that names a connection to the worker.
struct DeadlineHeap {
    private struct Entry {
        var deadline: Instant
        var slot: Int
    }

    private static let absent = -1

    private var entries: [Entry] = []
    /// The index in `entries` of each slot's entry, or `absent`.
    private var positions: [Int] = []

    var count: Int { entries.count }
    var isEmpty: Bool { entries.isEmpty }
    /// O(1).
    var earliest: Instant? { entries.first?.deadline }

    func deadline(of slot: Int) -> Instant? {
        guard slot < positions.count, positions[slot] != Self.absent else { return nil }
        return entries[positions[slot]].deadline
    }

    /// Sets, moves or (with nil) removes the deadline of a slot. O(log n); O(1) if it does not change.
    mutating func set(_ deadline: Instant?, for slot: Int) {
        while positions.count <= slot { positions.append(Self.absent) }
        let position = positions[slot]
        guard let deadline else {
            if position != Self.absent { remove(at: position) }
            return
        }
        if position == Self.absent {
            entries.append(Entry(deadline: deadline, slot: slot))
            positions[slot] = entries.count - 1
            siftUp(entries.count - 1)
        } else if deadline < entries[position].deadline {
            entries[position].deadline = deadline
            siftUp(position)
        } else if entries[position].deadline < deadline {
            entries[position].deadline = deadline
            siftDown(position)
        }
    }

    /// Removes the earliest deadline if it is not later than `now`, and says whose it was.
    mutating func popExpired(now: Instant) -> Int? {
        guard let first = entries.first, first.deadline <= now else { return nil }
        remove(at: 0)
        return first.slot
    }

    private mutating func remove(at index: Int) {
        positions[entries[index].slot] = Self.absent
        let last = entries.removeLast()
        guard index < entries.count else { return }
        let removed = entries[index].deadline
        entries[index] = last
        positions[last.slot] = index
        if last.deadline < removed { siftUp(index) } else { siftDown(index) }
    }

    private mutating func siftUp(_ start: Int) {
        let moving = entries[start]
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard moving.deadline < entries[parent].deadline else { break }
            place(entries[parent], at: index)
            index = parent
        }
        place(moving, at: index)
    }

    private mutating func siftDown(_ start: Int) {
        let moving = entries[start]
        var index = start
        while true {
            var child = 2 * index + 1
            guard child < entries.count else { break }
            if child + 1 < entries.count, entries[child + 1].deadline < entries[child].deadline { child += 1 }
            guard entries[child].deadline < moving.deadline else { break }
            place(entries[child], at: index)
            index = child
        }
        place(moving, at: index)
    }

    private mutating func place(_ entry: Entry, at index: Int) {
        entries[index] = entry
        positions[entry.slot] = index
    }
}
