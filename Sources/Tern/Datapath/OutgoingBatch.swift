// SPDX-License-Identifier: Apache-2.0

/// Datagrams that will leave in one system call: those of one connection, or of several whose datagrams are alike.
///
/// The kernel cuts one buffer into datagrams of one size, of which only the last may be shorter (UDP_SEGMENT), for one
/// destination. Connections write behind each other into one buffer, and while what they write fits that rule it waits for
/// more: a proxy's connections to one server, or those of a load generator, leave together, and the peer's kernel hands them
/// over together. It waits no longer than to the end of the worker's pass.
struct OutgoingBatch {
    /// A connection's share, to tell it what became of it.
    struct Part {
        let driver: ConnectionDriver
        let path: PathID
    }

    /// What a datagram must have in common with those before it.
    struct Route: Equatable {
        var tuple: FourTuple
        var ecn: ECNCodepoint
    }

    /// The kernel takes no more segments at once (UDP_MAX_SEGMENTS).
    private static let maximumSegments = 64
    /// From here on joining others saves next to nothing, and the peer could have begun to read.
    private static let fullSize = 16 * 1_024

    /// Room for one batch that waits and, behind it, for one as large as may be.
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 2 * UDPSocket.maximumBatchSize, alignment: 64)
    /// Where the batch that waits is in the buffer.
    private var range = 0..<0
    private(set) var segmentSize = 0
    private(set) var route: Route?
    private(set) var parts: [Part] = []

    var isEmpty: Bool { range.isEmpty }
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[range]) }

    /// Nothing more may join: the last datagram is shorter, or the batch is as large as it should be.
    var isFull: Bool {
        guard segmentSize > 0 else { return false }
        return range.count >= Self.fullSize || range.count % segmentSize != 0
            || range.count / segmentSize >= Self.maximumSegments
    }

    /// There is room behind what waits for a batch of any size.
    var hasSpace: Bool { range.upperBound <= UDPSocket.maximumBatchSize }

    /// Where the next connection writes, once `hasSpace`.
    var space: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(
            rebasing: buffer[range.upperBound..<range.upperBound + UDPSocket.maximumBatchSize])
    }

    /// Whether what was written into `space` may leave with what waits.
    func accepts(_ transmission: Transmission, route: Route) -> Bool {
        // A single shorter one could follow, too. But it would be lost with what it follows if that proves too large: a probe of
        // the path's size may.
        guard !isEmpty, !isFull, route == self.route, transmission.segmentSize == segmentSize,
            range.count + transmission.byteCount <= UDPSocket.maximumBatchSize
        else { return false }
        let segments = (transmission.byteCount + segmentSize - 1) / segmentSize
        return range.count / segmentSize + segments <= Self.maximumSegments
    }

    /// Takes what was written into `space` to what waits, which accepts it, or which was cleared.
    mutating func append(_ transmission: Transmission, route: Route, part: Part) {
        if isEmpty {
            segmentSize = transmission.segmentSize
            self.route = route
        }
        range = range.lowerBound..<range.upperBound + transmission.byteCount
        parts.append(part)
    }

    /// Lets what waits go. What is in `space` stays where it is.
    mutating func clear() {
        range = range.upperBound..<range.upperBound
        parts.removeAll(keepingCapacity: true)
        route = nil
    }

    /// Starts over at the front, when nothing waits and nothing is in `space`.
    mutating func rewind() { range = 0..<0 }

    func deallocate() { buffer.deallocate() }
}
