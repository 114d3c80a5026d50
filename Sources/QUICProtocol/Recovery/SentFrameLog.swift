// SPDX-License-Identifier: Apache-2.0

internal import BasicContainers

/// The frames of the packet being built, in the order they were written.
///
/// One log serves all packets of a connection: it is emptied into the packet number space after each of them and keeps
/// its storage, so that logging a frame allocates nothing once the log has reached its usual size.
struct SentFrameLog: ~Copyable {
    private var frames = UniqueArray<SentFrame>()

    /// Frames of a usual packet, control frames included.
    private static let usualCapacity = 16

    init() {}

    var count: Int { frames.count }
    var isEmpty: Bool { frames.isEmpty }

    /// - Precondition: `index` is at least 0 and below `count`.
    subscript(index: Int) -> SentFrame { frames[index] }

    mutating func append(_ frame: SentFrame) {
        if frames.capacity == 0 { frames.reserveCapacity(Self.usualCapacity) }
        frames.append(frame)
    }

    /// Gives the memory back, if the log is empty.
    mutating func releaseMemory() { if frames.isEmpty { frames = UniqueArray() } }

    /// Forgets what was logged after the first `count` frames, for a packet that was cut back.
    mutating func truncate(to count: Int) {
        guard count >= 0, count < frames.count else { return }
        frames.removeLast(frames.count - count)
    }

    mutating func removeAll(keepingCapacity keepCapacity: Bool = true) {
        frames.removeAll(keepingCapacity: keepCapacity)
    }
}
