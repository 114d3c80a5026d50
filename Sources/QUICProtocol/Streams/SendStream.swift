// SPDX-License-Identifier: Apache-2.0

/// The sending part of a stream (RFC 9000, section 3.1).
///
///     ready ──finish──▶ finishing ──all acknowledged──▶ dataAcknowledged
///       │                   │
///       └──reset, stopped───┴──▶ reset ──acknowledged──▶ resetAcknowledged
///
/// `ready` is the RFC's Ready and Send; `finishing` is Send until the FIN goes out and Data Sent from then on.
struct SendStream: ~Copyable {
    enum State: Equatable {
        /// A unidirectional stream of the peer's: there is no sending part.
        case absent
        /// The application may write.
        case ready
        /// The application wrote all; data or the end is not acknowledged yet.
        case finishing
        /// RESET_STREAM is to be sent or in flight.
        case reset(code: UInt64)
        case dataAcknowledged
        case resetAcknowledged
    }

    /// Where the end of the stream is in its way to the peer.
    enum Fin { case none, toBeSent, inFlight, acknowledged }

    private(set) var state: State
    private(set) var buffer = SendBuffer()
    private var fin = Fin.none
    /// The peer's limit on the offsets we may send (MAX_STREAM_DATA).
    private(set) var limit: UInt64
    /// The limit that the last STREAM_DATA_BLOCKED frame reported, so that each is reported once.
    private var blockedAt: UInt64?
    /// The code of the peer's STOP_SENDING.
    private(set) var stopCode: UInt64?
    /// The unsent data reached the mark; the application waits to hear when it has shrunk.
    private var isAboveMark = false

    init(state: State, limit: UInt64) {
        self.state = state
        self.limit = limit
    }

    mutating func takeStorage(of former: inout SendStream) { buffer.takeStorage(of: &former.buffer) }

    /// Lets go of what the application wrote: the stream is over.
    mutating func release() { buffer.discard() }

    /// Nothing is left to be sent or to be acknowledged.
    var isTerminal: Bool {
        switch state {
        case .absent, .dataAcknowledged, .resetAcknowledged: true
        case .ready, .finishing, .reset: false
        }
    }

    private var isSending: Bool { state == .ready || state == .finishing }

    /// There is something that no flow-control limit holds back: lost data, or the bare end of the stream.
    var hasUnmetered: Bool { isSending && (buffer.hasLost || (fin == .toBeSent && buffer.unsent == 0)) }
    /// There is data never sent before that the stream's limit allows.
    var hasFresh: Bool { isSending && buffer.unsent > 0 && buffer.next < limit }
    /// There is data that the stream's limit holds back.
    var isBlocked: Bool { isSending && buffer.unsent > 0 && buffer.next >= limit }
    /// How much of the unsent data the stream's limit allows.
    var freshCount: UInt64 { hasFresh ? min(buffer.written, limit) &- buffer.next : 0 }

    // MARK: The application

    mutating func write(_ bytes: SharedBytes, id: StreamID, finish: Bool, mark: Int) throws(StreamError) {
        switch state {
        case .ready: break
        case .absent: throw .notWritable(id)
        case .finishing, .dataAcknowledged: throw .finished(id)
        case .reset, .resetAcknowledged:
            if let stopCode { throw .stoppedByPeer(code: stopCode) }
            throw .resetLocally
        }
        buffer.append(bytes)
        if finish {
            state = .finishing
            fin = .toBeSent
        }
        if buffer.unsent >= UInt64(max(mark, 1)) { isAboveMark = true }
    }

    /// Abandons the stream. False when there is nothing left to abandon.
    mutating func reset(code: UInt64) -> Bool {
        guard isSending else { return false }
        state = .reset(code: code)
        buffer.discard()
        isAboveMark = false
        return true
    }

    // MARK: The peer

    /// STOP_SENDING arrived. True when the stream is to be reset with its code now.
    mutating func stop(code: UInt64) -> Bool {
        guard reset(code: code) else { return false }
        stopCode = code
        return true
    }

    /// A larger limit arrived. A smaller one has no effect.
    mutating func raiseLimit(to newLimit: UInt64) {
        limit = max(limit, newLimit)
    }

    // MARK: Sending

    /// Whether a STREAM frame that ends at `end` carries the FIN bit.
    func isFinal(endingAt end: UInt64) -> Bool { fin != .none && end == buffer.written }

    @_lifetime(writer: copy writer)
    mutating func writeFresh(_ count: Int, isFinal: Bool, into writer: inout PacketWriter) {
        buffer.writeNext(count, into: &writer)
        if isFinal, fin == .toBeSent { fin = .inFlight }
    }

    @_lifetime(writer: copy writer)
    mutating func writeLost(_ count: Int, isFinal: Bool, into writer: inout PacketWriter) {
        if count > 0 { buffer.writeLost(count, into: &writer) }
        if isFinal, fin == .toBeSent { fin = .inFlight }
    }

    /// True once when the unsent data has fallen below half the mark after having reached it.
    mutating func takeWritable(mark: Int) -> Bool {
        guard isAboveMark, buffer.unsent < UInt64(max(mark / 2, 1)) else { return false }
        isAboveMark = false
        return state == .ready
    }

    /// True when the stream's limit holds data back and that limit was not reported yet.
    mutating func takeBlocked() -> Bool {
        guard isBlocked, blockedAt != limit else { return false }
        blockedAt = limit
        return true
    }

    /// Reports the limit again if it still holds data back.
    mutating func repeatBlocked() -> Bool {
        blockedAt = nil
        return takeBlocked()
    }

    // MARK: The fate of what was sent

    /// True when this was the last that had to be acknowledged.
    mutating func acknowledged(_ lower: UInt64, _ upper: UInt64, isFinal: Bool) -> Bool {
        guard isSending else { return false }
        buffer.acknowledge(lower, upper)
        if isFinal { fin = .acknowledged }
        guard fin == .acknowledged, buffer.isAllAcknowledged else { return false }
        state = .dataAcknowledged
        buffer.discard()
        return true
    }

    mutating func lost(_ lower: UInt64, _ upper: UInt64, isFinal: Bool) {
        guard isSending else { return }
        buffer.markLost(lower, upper)
        if isFinal, fin == .inFlight { fin = .toBeSent }
    }

    /// RESET_STREAM arrived at the peer.
    mutating func resetAcknowledged() {
        if case .reset = state { state = .resetAcknowledged }
    }
}
