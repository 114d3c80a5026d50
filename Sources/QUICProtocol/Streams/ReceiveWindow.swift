// SPDX-License-Identifier: Apache-2.0

/// How much the peer may send, on one stream or on all of them together (RFC 9000, section 4.1), and how that grows.
///
/// The limit moves when a quarter of the window has been consumed, so not with every packet. The window doubles when the
/// application consumes it in less than two round trips, up to a maximum: then the window, not the network or the
/// application, is what limits the peer.
struct ReceiveWindow {
    /// A window larger than this is not honoured: it could not be held in memory.
    static let ceiling: UInt64 = 1 << 34

    /// The offset that the peer may not send beyond, as it was told.
    private(set) var limit: UInt64
    /// Bytes read, or dropped in place of being read.
    private(set) var consumed: UInt64 = 0
    /// How far the limit is to be ahead of what was consumed.
    private(set) var size: UInt64
    let maximumSize: UInt64

    /// When and where the current measurement began; nil before the first byte.
    private var epochStart: Instant?
    private var epochConsumed: UInt64 = 0

    init(initial: UInt64, maximum: UInt64) {
        size = min(initial, Self.ceiling)
        limit = size
        maximumSize = max(size, min(maximum, Self.ceiling))
    }

    /// A quarter of the window was consumed: time for the peer to hear of a new limit.
    var isUpdateDue: Bool { limit &- consumed <= size &- size / 4 && nextLimit > limit }

    private var nextLimit: UInt64 { min(consumed &+ size, Varint.maximum) }

    /// Starts measuring with the first byte that arrives.
    mutating func noteArrival(now: Instant) {
        if epochStart == nil { epochStart = now }
    }

    /// Counts bytes that were handed to the application. True when an update is due.
    mutating func consume(_ count: UInt64, now: Instant, rtt: Nanoseconds) -> Bool {
        consumed &+= count
        guard isUpdateDue else { return false }
        tune(now: now, rtt: rtt)
        return true
    }

    /// Counts bytes that were dropped: they say nothing about the application's speed. True when an update is due.
    mutating func credit(_ count: UInt64) -> Bool {
        consumed &+= count
        return isUpdateDue
    }

    private mutating func tune(now: Instant, rtt: Nanoseconds) {
        let measured = consumed &- epochConsumed
        guard let start = epochStart, measured > size / 2, rtt > .zero else { return }
        let roundTrips = (now - start).inSeconds / rtt.inSeconds
        let windows = Double(measured) / Double(size)
        if roundTrips < 2 * windows { size = min(size * 2, maximumSize) }
        epochStart = now
        epochConsumed = consumed
    }

    /// Keeps the connection's window ahead of the largest stream's.
    mutating func ensureSize(atLeast minimum: UInt64) {
        size = max(size, min(minimum, maximumSize))
    }

    /// The limit to write into a MAX_DATA or MAX_STREAM_DATA frame: from now on it holds.
    mutating func advance() -> UInt64 {
        limit = max(limit, nextLimit)
        return limit
    }
}
