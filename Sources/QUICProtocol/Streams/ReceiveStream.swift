// SPDX-License-Identifier: Apache-2.0

/// The receiving part of a stream (RFC 9000, section 3.2).
///
///     receiving ──FIN──▶ sizeKnown ──application read all──▶ dataRead
///       │   │               │   │
///       │   └──RESET_STREAM─┴───│──▶ reset ──application read it──▶ resetRead
///       └──application stops────┴──▶ stopped ──final size known──▶ discarded
///
/// `sizeKnown` covers the RFC's Data Recvd. A reset that arrives after all data did is ignored: the data is delivered.
/// Otherwise data not read yet is dropped at once, and the next read reports the reset.
struct ReceiveStream: ~Copyable {
    enum State: Equatable {
        /// A unidirectional stream of ours: there is no receiving part.
        case absent
        case receiving
        /// The FIN arrived; data before it may be missing.
        case sizeKnown
        /// The application wants no more. Data is counted and dropped until its final size is known.
        case stopped
        /// The peer abandoned the stream; the application has not seen that yet.
        case reset(code: UInt64)
        case dataRead
        case resetRead(code: UInt64)
        case discarded
    }

    /// What storing a frame's data led to.
    struct Stored {
        /// Bytes dropped, to be credited to the connection.
        var dropped: UInt64 = 0
        /// There is something for the application to read.
        var isReadable = false
    }

    /// Runs of data waiting for missing data that any stream may have; larger windows allow more (`gapLimit`).
    private static let baseGapLimit = 1_024

    private(set) var state: State
    private(set) var window: ReceiveWindow
    private var buffer = ReceiveBuffer()
    /// The highest offset received: what the stream takes of the connection's window.
    private(set) var highest: UInt64 = 0
    private(set) var finalSize: UInt64?
    /// Bytes read or dropped.
    private var settled: UInt64 = 0
    /// No event tells the application of what is there to be read: the next that becomes readable raises one.
    private var isArmed = true

    init(state: State, initialWindow: UInt64, maximumWindow: UInt64) {
        self.state = state
        self.window = ReceiveWindow(initial: initialWindow, maximum: maximumWindow)
    }

    mutating func takeStorage(of former: inout ReceiveStream) { buffer.takeStorage(of: &former.buffer) }

    /// Neither data nor an error is left to be delivered, and nothing from the peer matters any more.
    var isTerminal: Bool {
        switch state {
        case .absent, .dataRead, .resetRead, .discarded: true
        case .receiving, .sizeKnown, .stopped, .reset: false
        }
    }

    /// The peer has still to send something.
    var isAwaitingData: Bool {
        switch state {
        case .receiving, .stopped: true
        case .sizeKnown: !hasAllData
        case .absent, .reset, .dataRead, .resetRead, .discarded: false
        }
    }

    /// MAX_STREAM_DATA makes sense only while the final size is unknown and the data wanted.
    var wantsCredit: Bool { state == .receiving }
    /// STOP_SENDING makes sense only while the final size is unknown.
    var wantsStop: Bool { state == .stopped }
    var readable: Int { buffer.readable }

    private var hasAllData: Bool { finalSize == buffer.contiguousEnd }
    private var gapLimit: Int { Self.baseGapLimit + Int(truncatingIfNeeded: window.size / 4_096) }

    // MARK: The peer

    /// Checks an end of data, or a final size, against what is known and against the stream's window.
    ///
    /// - Returns: by how much it exceeds the highest offset so far: what it takes of the connection's window.
    @inline(__always)
    func admit(end: UInt64, isFinal: Bool, frameType: UInt64) throws(TransportError) -> UInt64 {
        if let finalSize {
            guard end <= finalSize, !isFinal || end == finalSize else {
                throw TransportError(
                    .finalSizeError, frameType: frameType, "the final size of a stream changed or was exceeded")
            }
        } else if isFinal, end < highest {
            throw TransportError(
                .finalSizeError, frameType: frameType, "the final size of a stream is below data already received")
        }
        guard end > highest else { return 0 }
        guard end <= window.limit else {
            throw TransportError(.flowControlError, frameType: frameType, "a stream exceeded its flow control limit")
        }
        return end &- highest
    }

    /// Stores data that was admitted.
    mutating func store(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isFinal: Bool, now: Instant, pool: inout ReceiveBlockPool
    ) throws(TransportError) -> Stored {
        let end = offset &+ UInt64(bytes.count)
        var stored = Stored()
        highest = max(highest, end)
        switch state {
        case .receiving, .sizeKnown:
            if isFinal {
                finalSize = end
                state = .sizeKnown
            }
            window.noteArrival(now: now)
            buffer.insert(bytes, at: offset, pool: &pool)
            guard buffer.gapCount <= gapLimit else {
                throw TransportError(.protocolViolation, frameType: FrameType.stream, "too many gaps in a stream")
            }
            stored.isReadable = takeReadable()
        case .stopped:
            stored.dropped = settleAll()
            if isFinal {
                finalSize = end
                state = .discarded
            }
        case .absent, .reset, .dataRead, .resetRead, .discarded:
            break
        }
        return stored
    }

    /// RESET_STREAM with an admitted final size.
    mutating func reset(code: UInt64, finalSize size: UInt64, pool: inout ReceiveBlockPool) -> Stored {
        var stored = Stored()
        switch state {
        case .receiving, .sizeKnown:
            if state == .sizeKnown, hasAllData { return stored }
            highest = size
            finalSize = size
            state = .reset(code: code)
            buffer.discard(pool: &pool)
            stored.dropped = settleAll()
            stored.isReadable = takeReadable()
        case .stopped:
            highest = size
            finalSize = size
            state = .discarded
            stored.dropped = settleAll()
        case .absent, .reset, .dataRead, .resetRead, .discarded:
            break
        }
        return stored
    }

    // MARK: The application

    /// Takes up the reset that a read is to report, if any.
    mutating func takeReset() -> UInt64? {
        switch state {
        case .reset(let code), .resetRead(let code):
            state = .resetRead(code: code)
            return code
        case .absent, .receiving, .sizeKnown, .stopped, .dataRead, .discarded:
            return nil
        }
    }

    mutating func read(
        id: StreamID, into destination: UnsafeMutableRawBufferPointer, pool: inout ReceiveBlockPool
    ) throws(StreamError) -> StreamReadResult {
        switch state {
        case .receiving, .sizeKnown:
            let count = buffer.read(into: destination, pool: &pool)
            settled &+= UInt64(count)
            // After any read the next arrival is news again.
            isArmed = true
            guard finalSize == buffer.consumed else { return StreamReadResult(count: count, isFinished: false) }
            state = .dataRead
            buffer.discard(pool: &pool)
            return StreamReadResult(count: count, isFinished: true)
        case .absent: throw .notReadable(id)
        case .dataRead: throw .finished(id)
        case .stopped, .discarded: throw .stoppedLocally
        case .reset(let code), .resetRead(let code): throw .resetByPeer(code: code)
        }
    }

    /// There is something that a read would deliver, and the application was told so or is about to be.
    var hasUnreadNews: Bool {
        switch state {
        case .receiving: buffer.readable > 0
        case .sizeKnown: buffer.readable > 0 || hasAllData
        case .reset: true
        case .absent, .stopped, .dataRead, .resetRead, .discarded: false
        }
    }

    private mutating func takeReadable() -> Bool {
        guard isArmed, hasUnreadNews else { return false }
        isArmed = false
        return true
    }

    /// Counts bytes that were read against the stream's window. True when MAX_STREAM_DATA is due.
    mutating func consume(_ count: Int, now: Instant, rtt: Nanoseconds) -> Bool {
        window.consume(UInt64(count), now: now, rtt: rtt) && wantsCredit
    }

    /// The limit for a MAX_STREAM_DATA frame.
    mutating func advanceLimit() -> UInt64 { window.advance() }

    /// The application wants no more data.
    ///
    /// - Returns: bytes dropped, to be credited to the connection.
    mutating func stop(pool: inout ReceiveBlockPool) -> UInt64 {
        switch state {
        case .receiving: state = .stopped
        case .sizeKnown: state = .discarded
        case .reset(let code): state = .resetRead(code: code)
        case .absent, .stopped, .dataRead, .resetRead, .discarded: return 0
        }
        buffer.discard(pool: &pool)
        return settleAll()
    }

    /// Gives the memory of the stream back, at its end.
    mutating func release(pool: inout ReceiveBlockPool) { buffer.discard(pool: &pool) }

    private mutating func settleAll() -> UInt64 {
        let dropped = highest &- settled
        settled = highest
        return dropped
    }
}
