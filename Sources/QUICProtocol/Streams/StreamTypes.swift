// SPDX-License-Identifier: Apache-2.0

/// What a read delivered.
public struct StreamReadResult: Hashable, Sendable {
    /// Bytes written into the caller's buffer, from its start. Zero when nothing is there to be read now.
    public var count: Int
    /// The peer's last byte was delivered, by this read: there is nothing more to come.
    public var isFinished: Bool

    @inlinable
    public init(count: Int, isFinished: Bool) {
        self.count = count
        self.isFinished = isFinished
    }
}

/// Why a call on a stream could not be carried out. Nothing was sent or changed on its account.
public enum StreamError: Error, Hashable, Sendable {
    /// No such stream was opened.
    case unknownStream(StreamID)
    /// The peer allows no more streams of this direction for now.
    case limitReached(StreamDirection)
    /// A unidirectional stream of ours has no receiving part.
    case notReadable(StreamID)
    /// A unidirectional stream of the peer's has no sending part.
    case notWritable(StreamID)
    /// The direction asked for was finished before, or the whole stream is closed.
    case finished(StreamID)
    /// The peer abandoned sending (RESET_STREAM).
    case resetByPeer(code: UInt64)
    /// The peer does not want to receive any more (STOP_SENDING); the stream was reset in answer.
    case stoppedByPeer(code: UInt64)
    /// We abandoned sending.
    case resetLocally
    /// We asked the peer to stop sending.
    case stoppedLocally
    /// The connection is over.
    case connectionClosed
}

extension StreamError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .unknownStream(let id):
            "stream \(id) was never opened: use an ID that opening a stream or an event gave"
        case .limitReached(let direction):
            "the peer allows no more \(direction) streams now: wait for streamsAvailable, then open again"
        case .notReadable(let id):
            "stream \(id) is ours and unidirectional: it can only be written"
        case .notWritable(let id):
            "stream \(id) is the peer's and unidirectional: it can only be read"
        case .finished(let id):
            "stream \(id) is finished in this direction: open another one"
        case .resetByPeer(let code):
            "the peer reset the stream with application code \(code): what it had not delivered is lost"
        case .stoppedByPeer(let code):
            "the peer stopped the stream with application code \(code): it takes no more data"
        case .resetLocally:
            "the stream was reset by this side: nothing more can be written"
        case .stoppedLocally:
            "this side stopped the stream: nothing more can be read"
        case .connectionClosed:
            "the connection is closed: its streams are gone"
        }
    }
}

/// What happened on the streams, for the application to act on. See `StreamTable.nextEvent()`.
enum StreamEvent: Hashable, Sendable {
    /// The peer opened a stream. Reported in order, once for each stream, before any other event of it.
    case opened(StreamID)
    /// There is data, the end, or a reset to be seen by a read.
    case readable(StreamID)
    /// A stream that held more than `StreamLimits.sendBufferLimit` is below half of it.
    case writable(StreamID)
    /// Everything sent, the end included, was acknowledged. Not reported for a stream that was reset.
    case sendClosed(StreamID)
    /// The peer asked us to stop sending; the stream was reset with the same code.
    case stopped(StreamID, code: UInt64)
    /// The peer allows more streams of a direction that `open` was refused before.
    case streamsAvailable(StreamDirection)
}

/// Bounds of the memory that streams take. All in bytes.
struct StreamLimits: Hashable, Sendable {
    /// The mark on one stream's unsent bytes from which a writer should wait for `StreamEvent.writable`.
    var sendBufferLimit = 1 << 20
    /// What the receive window of one stream may grow to.
    var maximumStreamReceiveWindow: UInt64 = 16 << 20
    /// What the receive window of the connection may grow to.
    var maximumConnectionReceiveWindow: UInt64 = 24 << 20
}

/// Sums over the life of a connection.
struct StreamTotals: Hashable, Sendable {
    /// Bytes of stream data sent for the first time.
    var bytesSent: UInt64 = 0
    /// Bytes of stream data sent again.
    var bytesRetransmitted: UInt64 = 0
    /// Bytes of stream data as the peer's flow control counts them: the sum of the highest offsets.
    var bytesReceived: UInt64 = 0
    /// Bytes handed to the application.
    var bytesRead: UInt64 = 0
    /// Streams opened by us and by the peer.
    var streamsOpened: UInt64 = 0
    var streamsAccepted: UInt64 = 0
    /// Streams of either side that closed in both directions.
    var streamsClosed: UInt64 = 0
}
