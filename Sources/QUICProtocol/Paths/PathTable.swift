// SPDX-License-Identifier: Apache-2.0

/// The paths of one connection, and which of them carries the application's data.
struct PathTable: ~Copyable {
    /// Paths at once (M40).
    static let maximumPaths = 8

    private(set) var paths: [Path] = []
    private(set) var activeIndex = 0
    private var nextID: UInt32 = 0
    /// The last active path that was validated: where to return when the active one fails (M13).
    private(set) var fallback: PathID?

    init(
        initialTuple: FourTuple, amplification: AmplificationBudget, congestionControl: CongestionAlgorithm,
        initialRTT: Nanoseconds, maximumDatagramSize: Int, now: Instant
    ) {
        _ = add(
            initialTuple, amplification: amplification, congestionControl: congestionControl,
            maximumDatagramSize: maximumDatagramSize,
            now: now)
        paths[0].recovery.rtt.setInitial(initialRTT)
        paths[0].wasActive = true
    }

    var count: Int { paths.count }
    /// How many paths were ever added.
    var addedCount: Int { Int(nextID) }
    var activeID: PathID { paths[activeIndex].id }

    var active: Path {
        @inline(__always) _read { yield paths[activeIndex] }
        @inline(__always) _modify { yield &paths[activeIndex] }
    }

    subscript(index: Int) -> Path {
        @inline(__always) _read { yield paths[index] }
        @inline(__always) _modify { yield &paths[index] }
    }

    func index(of id: PathID) -> Int? {
        if paths[activeIndex].id == id { return activeIndex }
        // By index: a closure would be handed a copy of each path.
        for index in paths.indices where paths[index].id == id { return index }
        return nil
    }

    @inline(__always)
    func index(of tuple: FourTuple) -> Int? {
        if paths[activeIndex].tuple == tuple { return activeIndex }
        return index(ofOther: tuple)
    }

    private func index(ofOther tuple: FourTuple) -> Int? {
        for index in paths.indices where paths[index].tuple == tuple { return index }
        return nil
    }

    /// Whether the peer has proved an address, on whatever path.
    func contains(validatedRemote remote: NetworkAddress) -> Bool {
        for index in paths.indices where paths[index].isValidated && paths[index].tuple.remote == remote { return true }
        return false
    }

    /// Whether there was a path of this ID, open or closed.
    func hasExisted(_ id: PathID) -> Bool { id.rawValue < nextID }

    var isFull: Bool { paths.count >= Self.maximumPaths }

    /// Adds a path without looking at the limit: the caller makes room first.
    mutating func add(
        _ tuple: FourTuple, amplification: AmplificationBudget, congestionControl: CongestionAlgorithm,
        maximumDatagramSize: Int, now: Instant
    ) -> Int {
        let id = PathID(nextID)
        nextID &+= 1
        let recovery = PathRecovery(path: id, algorithm: congestionControl, maximumDatagramSize: maximumDatagramSize)
        paths.append(
            Path(
                id: id, tuple: tuple, amplification: amplification, recovery: recovery,
                maximumDatagramSize: maximumDatagramSize, now: now))
        return paths.count - 1
    }

    /// The path to forget when the peer shows up on one more than we keep: not the active one nor the one to fall back
    /// to; unproved ones first, then the one used least recently.
    func indexToEvict() -> Int? {
        paths.indices
            .filter { $0 != activeIndex && paths[$0].id != fallback && !paths[$0].isProbedByApplication }
            .min { a, b in
                if paths[a].isValidated != paths[b].isValidated { return !paths[a].isValidated }
                return paths[a].lastUsed < paths[b].lastUsed
            }
    }

    /// Removes a path that is not the active one.
    mutating func remove(at index: Int) {
        guard index != activeIndex, paths.indices.contains(index) else { return }
        if fallback == paths[index].id { fallback = nil }
        paths.remove(at: index)
        if index < activeIndex { activeIndex -= 1 }
    }

    mutating func activate(_ index: Int) {
        guard paths.indices.contains(index), index != activeIndex else { return }
        if paths[activeIndex].isValidated { fallback = paths[activeIndex].id }
        activeIndex = index
        paths[index].wasActive = true
        if fallback == paths[index].id { fallback = nil }
    }

    /// The earliest deadline of any path's validation.
    var nextDeadline: Instant {
        var earliest = Instant.distantFuture
        for index in paths.indices { earliest = min(earliest, paths[index].nextDeadline) }
        return earliest
    }
}
