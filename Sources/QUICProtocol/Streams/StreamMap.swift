// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// The streams of a connection by ID: a hash table with open addressing that owns the streams.
///
/// The multiplication spreads the sequential IDs evenly. A peer could open and close streams until those that remain
/// collide, but only as many remain as its limit on open streams allows, so a search stays bounded.
struct StreamMap: ~Copyable {
    // Not private, see `SendBuffer.Chunk`.
    struct Slot {
        var id: UInt64 = 0
        var stream: StreamReference?
    }

    private static let minimumCapacity = 8
    /// Places of former streams that are kept for new ones: a request after the other allocates nothing.
    private static let maximumSpares = 8

    /// A power of two of slots, or none.
    private var slots = UniqueArray<Slot>()
    private(set) var count = 0
    /// Streams at their end, which `insert` makes into others.
    private var spares = UniqueArray<StreamReference>()

    var isEmpty: Bool { count == 0 }
    /// Slots to pass to `stream(atSlot:)`.
    var slotCount: Int { slots.count }

    /// Places of former streams that are kept.
    var spareCount: Int { spares.count }

    func stream(atSlot index: Int) -> StreamReference? { slots[index].stream }

    private func home(of id: UInt64) -> Int {
        Int(truncatingIfNeeded: (id &* 0x9e37_79b9_7f4a_7c15) >> 32) & (slots.count - 1)
    }

    func find(_ id: StreamID) -> StreamReference? {
        guard count > 0 else { return nil }
        var index = home(of: id.rawValue)
        // There is always an empty slot, so the search ends.
        while let stream = slots[index].stream {
            if slots[index].id == id.rawValue { return stream }
            index = (index + 1) & (slots.count - 1)
        }
        return nil
    }

    /// Takes a stream whose ID is not in the map.
    mutating func insert(_ stream: consuming Stream) -> StreamReference {
        if (count + 1) * 4 > slots.count * 3 { resize(to: max(Self.minimumCapacity, slots.count * 2)) }
        let id = stream.id.rawValue
        let reference: StreamReference
        if let spare = spares.popLast() {
            reference = spare
            spare.pointee.renew(as: stream)
        } else {
            reference = .allocate(capacity: 1)
            reference.initialize(to: stream)
        }
        place(Slot(id: id, stream: reference))
        count += 1
        return reference
    }

    /// Takes out a stream, and lets go of all that it holds.
    mutating func remove(_ id: StreamID) {
        guard count > 0 else { return }
        var index = home(of: id.rawValue)
        while slots[index].stream != nil, slots[index].id != id.rawValue {
            index = (index + 1) & (slots.count - 1)
        }
        guard let stream = slots[index].stream else { return }
        retire(stream)
        slots[index].stream = nil
        count -= 1
        closeGap(at: index)
        if slots.count > Self.minimumCapacity, count * 8 < slots.count { resize(to: slots.count / 2) }
    }

    private mutating func retire(_ stream: StreamReference) {
        if spares.count < Self.maximumSpares {
            stream.pointee.send.release()
            spares.append(stream)
        } else {
            Self.destroy(stream)
        }
    }

    private static func destroy(_ stream: StreamReference) {
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Gives up what is kept for new streams only.
    mutating func releaseIdleMemory() {
        while let stream = spares.popLast() {
            Self.destroy(stream)
        }
        spares.removeAll()
        if count == 0 { slots.removeAll() }
    }

    mutating func removeAll() {
        for index in 0..<slots.count {
            guard let stream = slots[index].stream else { continue }
            Self.destroy(stream)
        }
        count = 0
        releaseIdleMemory()
    }

    /// Moves the streams after an emptied slot back to where a search finds them.
    private mutating func closeGap(at emptied: Int) {
        let mask = slots.count - 1
        var gap = emptied
        var index = (gap + 1) & mask
        while let stream = slots[index].stream {
            // It may move unless its home lies after the gap.
            if (index &- home(of: slots[index].id)) & mask >= (index &- gap) & mask {
                slots[gap] = Slot(id: slots[index].id, stream: stream)
                slots[index].stream = nil
                gap = index
            }
            index = (index + 1) & mask
        }
    }

    private mutating func place(_ slot: Slot) {
        var index = home(of: slot.id)
        while slots[index].stream != nil { index = (index + 1) & (slots.count - 1) }
        slots[index] = slot
    }

    private mutating func resize(to capacity: Int) {
        var old = UniqueArray(repeating: Slot(), count: capacity)
        swap(&old, &slots)
        for index in 0..<old.count where old[index].stream != nil { place(old[index]) }
    }

    deinit {
        for index in 0..<spares.count {
            Self.destroy(spares[index])
        }
        for index in 0..<slots.count {
            guard let stream = slots[index].stream else { continue }
            Self.destroy(stream)
        }
    }
}
