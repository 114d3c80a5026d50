// SPDX-License-Identifier: Apache-2.0

import BasicContainers

/// A queue whose elements are found by their number: each appended element gets the next one, and elements leave at the
/// front. Packet records live in one under their packet numbers.
///
/// The memory grows by doubling, never shrinks by itself, and none is taken before the first element.
///
/// - Complexity: O(1) for every access; appending is amortised O(1).
struct SequencedRing<Element>: ~Copyable {
    /// As long as the ring has memory, a power of two of elements; those outside `start ..< end` are leftovers.
    private var storage = UniqueArray<Element>()
    private var mask = 0
    private let placeholder: Element
    private let minimumCapacity: Int
    /// The number of the first element.
    private(set) var start: UInt64 = 0
    /// The number that the next element gets.
    private(set) var end: UInt64 = 0

    /// - Parameters:
    ///   - placeholder: fills memory that holds no element.
    ///   - minimumCapacity: how many elements the first memory holds; a power of two.
    init(placeholder: Element, minimumCapacity: Int = 16) {
        self.placeholder = placeholder
        self.minimumCapacity = minimumCapacity
    }

    var count: Int { Int(truncatingIfNeeded: end &- start) }
    var isEmpty: Bool { start == end }
    var capacity: Int { storage.count }

    func contains(_ number: UInt64) -> Bool { number >= start && number < end }

    /// The element of a number for which `contains` holds.
    subscript(number: UInt64) -> Element {
        @inline(__always) _read {
            assert(contains(number))
            yield storage[Int(truncatingIfNeeded: number) & mask]
        }
        @inline(__always) _modify {
            assert(contains(number))
            yield &storage[Int(truncatingIfNeeded: number) & mask]
        }
    }

    mutating func append(_ element: Element) {
        if count == storage.count { grow() }
        storage[Int(truncatingIfNeeded: end) & mask] = element
        end &+= 1
    }

    /// Drops the elements before `number`; beyond the end it drops them all.
    mutating func removeFirst(until number: UInt64) {
        start = Swift.min(Swift.max(number, start), end)
    }

    /// Drops the elements from `number` on; their numbers are given again.
    mutating func removeLast(from number: UInt64) {
        end = Swift.max(Swift.min(number, end), start)
    }

    /// Gives the memory back if there is no element.
    mutating func releaseMemory() {
        guard isEmpty, storage.count > 0 else { return }
        storage = UniqueArray()
        mask = 0
    }

    private mutating func grow() {
        let capacity = storage.count == 0 ? minimumCapacity : storage.count * 2
        var larger = UniqueArray(repeating: placeholder, count: capacity)
        var number = start
        while number != end {
            larger[Int(truncatingIfNeeded: number) & (capacity - 1)] = self[number]
            number &+= 1
        }
        storage = larger
        mask = capacity - 1
    }
}
