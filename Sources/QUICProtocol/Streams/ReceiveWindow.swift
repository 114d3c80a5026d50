// SPDX-License-Identifier: Apache-2.0

/// How much the peer may send, on one stream or on all of them together (RFC 9000, section 4.1), and how that grows.
///
/// The limit moves when a quarter of the window has been consumed, so not with every packet.
///
/// The window is kept at four times of what the application consumes in a round trip, up to a maximum. A sender in slow
/// start sends in each round trip twice of what it sent in the one before; what it may send now is what was granted half a
/// round trip ago, for what was received then, which was sent a round trip ago; and a quarter of the window may be due
/// and not granted. With less than four times, slow start would be at an end when it meets the window.
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

    /// How often what is consumed in a round trip fits into the window.
    private static let roundTripsHeld: UInt64 = 4

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
        tune(now: now, rtt: rtt)
        return isUpdateDue
    }

    /// Counts bytes that were dropped: they say nothing about the application's speed. True when an update is due.
    mutating func credit(_ count: UInt64) -> Bool {
        consumed &+= count
        return isUpdateDue
    }

    /// Grows the window if more was consumed since the measurement began, or in a round trip of it, than a quarter of the
    /// window: at once, for in slow start the next round trip brings twice as much.
    private mutating func tune(now: Instant, rtt: Nanoseconds) {
        guard rtt > .zero, size < maximumSize else { return }
        guard let start = epochStart else {
            epochStart = now
            epochConsumed = consumed
            return
        }
        var measured = consumed &- epochConsumed
        let elapsed = now - start
        if elapsed > rtt {
            measured = UInt64(Double(measured) * (rtt.inSeconds / elapsed.inSeconds))
            epochStart = now
            epochConsumed = consumed
        }
        while measured > size / Self.roundTripsHeld, size < maximumSize { size = min(size * 2, maximumSize) }
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
