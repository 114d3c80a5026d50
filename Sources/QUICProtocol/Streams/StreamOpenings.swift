// SPDX-License-Identifier: Apache-2.0

/// A MAX_STREAMS value above this could not be a stream ID (RFC 9000, section 4.6).
let maximumStreamCount: UInt64 = 1 << 60

/// The streams of one direction that we open.
struct LocalOpenings {
    /// Streams opened so far: the next one's ordinal.
    private(set) var opened: UInt64 = 0
    /// How many the peer allows in all.
    private(set) var limit: UInt64 = 0
    /// An opening was refused since the limit last grew.
    private(set) var isBlocked = false

    /// The ordinal of a new stream, or nil if the peer allows no more.
    mutating func open() -> UInt64? {
        guard opened < limit else {
            isBlocked = true
            return nil
        }
        defer { opened += 1 }
        return opened
    }

    /// Returns true when that lets in an opening that was refused.
    mutating func raiseLimit(to newLimit: UInt64) -> Bool {
        let newLimit = min(newLimit, maximumStreamCount)
        guard newLimit > limit else { return false }
        limit = newLimit
        defer { isBlocked = false }
        return isBlocked
    }
}

/// The streams of one direction that the peer opens.
///
/// A frame for a stream opens all lower ones too (RFC 9000, section 3.2). Those are remembered as a range of ordinals and
/// become objects when they are first used, so one frame cannot make the receiver create a table full of streams.
struct PeerOpenings: ~Copyable {
    /// Streams the peer may have open at once; the limit stays this far ahead of what closed.
    private let window: UInt64
    /// The limit as the peer was told.
    private(set) var limit: UInt64
    /// All ordinals below this one were opened.
    private(set) var opened: UInt64 = 0
    private(set) var closed: UInt64 = 0
    /// Ordinals of opened streams that nothing was done with yet. At most `window` ranges, as it holds open streams.
    private var untouched = OffsetRangeSet()
    private(set) var untouchedCount: UInt64 = 0
    /// Ordinals below this one were announced to the application.
    private var announced: UInt64 = 0

    init(limit: UInt64) {
        self.window = min(limit, maximumStreamCount)
        self.limit = window
    }

    enum Resolution { case exceedsLimit, closed, created }

    /// What is to be done about a stream that is not in the table.
    ///
    /// `created` says that the caller is to put it there.
    mutating func resolve(_ ordinal: UInt64) -> Resolution {
        guard ordinal < limit else { return .exceedsLimit }
        if ordinal >= opened {
            untouched.insert(opened, ordinal)
            untouchedCount += ordinal - opened
            opened = ordinal + 1
            return .created
        }
        return touch(ordinal) ? .created : .closed
    }

    /// Whether the peer opened the stream and nothing was done with it yet.
    func isUntouched(_ ordinal: UInt64) -> Bool { untouched.contains(ordinal) }

    /// True when the stream was untouched; it no longer is.
    mutating func touch(_ ordinal: UInt64) -> Bool {
        guard !untouched.isEmpty, untouched.contains(ordinal) else { return false }
        untouched.remove(ordinal, ordinal + 1)
        untouchedCount -= 1
        return true
    }

    /// The next opened stream that the application has not heard of.
    mutating func nextToAnnounce() -> UInt64? {
        guard announced < opened else { return nil }
        defer { announced += 1 }
        return announced
    }

    var hasAnnouncements: Bool { announced < opened }

    /// Counts a stream that closed.
    mutating func close() { closed += 1 }

    private var nextLimit: UInt64 { min(closed &+ window, maximumStreamCount) }

    /// The peer should hear of a new limit: many streams were closed, or it has few left to open.
    var isUpdateDue: Bool {
        let next = nextLimit
        guard next > limit else { return false }
        return next - limit >= max(window / 2, 1) || limit - opened <= window / 2
    }

    /// The limit for a MAX_STREAMS frame: from now on it holds.
    mutating func advanceLimit() -> UInt64 {
        limit = max(limit, nextLimit)
        return limit
    }

    mutating func forgetUntouched() {
        untouched.removeAll()
        untouchedCount = 0
        announced = opened
    }
}
