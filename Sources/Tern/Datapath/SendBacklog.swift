// SPDX-License-Identifier: Apache-2.0

internal import DequeModule

/// What is left of a batch that the socket had no room for.
struct PendingBatch {
    var bytes: [UInt8]
    var segmentSize: Int
    var tuple: FourTuple
    var ecn: ECNCodepoint
    /// Who is told if it cannot be sent after all.
    var parts: [OutgoingBatch.Part]
}

/// The batches that wait for room in one socket's buffer, and the connections that wait to write the next.
///
/// Bounded in number and time: beyond the limits batches are dropped, which to QUIC is a loss like any other. A connection
/// comes here with one batch and then writes no more, so the number is reached only by many at once; the time is reached
/// when an interface has stopped, and then a connection must be free to use another path.
struct SendBacklog {
    static let maximumBatches = 64
    static let patience = Nanoseconds.milliseconds(20)

    /// When the oldest batch came.
    private(set) var since = Instant.zero

    private(set) var batches = Deque<PendingBatch>()
    private var waiting: [ConnectionDriver] = []

    var isEmpty: Bool { batches.isEmpty }

    /// - Returns: false if there was no room.
    mutating func append(_ batch: PendingBatch, now: Instant) -> Bool {
        guard batches.count < Self.maximumBatches else { return false }
        if batches.isEmpty { since = now }
        batches.append(batch)
        return true
    }

    mutating func popFirst() -> PendingBatch? { batches.popFirst() }
    mutating func putBack(_ batch: PendingBatch) { batches.prepend(batch) }

    mutating func dropAll() { batches = [] }

    /// Has the connection wait until there is room.
    mutating func wait(_ driver: ConnectionDriver) {
        guard !driver.awaitsSocket else { return }
        driver.awaitsSocket = true
        waiting.append(driver)
    }

    mutating func takeWaiting() -> [ConnectionDriver] {
        defer { waiting = [] }
        for driver in waiting { driver.awaitsSocket = false }
        return waiting
    }
}
