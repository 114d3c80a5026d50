// SPDX-License-Identifier: Apache-2.0

/// The application's calls on streams (RFC 9000, section 2.4).
extension QUICConnection {
    /// Opens a stream of ours.
    ///
    /// - Throws: `.limitReached` while the peer allows no more; the event `.streamsAvailable` tells when it does.
    public mutating func openStream(_ direction: StreamDirection) throws(StreamError) -> StreamID {
        try checkOpen()
        return try streams.open(direction)
    }

    /// Takes in data to be sent, all of it: whoever writes asks `sendBuffered` whether to write on.
    ///
    /// - Parameters:
    ///   - finish: nothing follows.
    public mutating func write(_ bytes: SharedBytes, to id: StreamID, finish: Bool) throws(StreamError) {
        try checkOpen()
        try streams.write(bytes, to: id, finish: finish)
    }

    /// Bytes written to a stream that were not sent yet. Above the configuration's `sendBufferLimit` the writer should wait
    /// for `.streamWritable`.
    public func sendBuffered(_ id: StreamID) -> Int { streams.sendBuffered(id) }

    /// Copies what has arrived in order into `destination`, as much as fits.
    public mutating func read(
        _ id: StreamID, into destination: UnsafeMutableRawBufferPointer
    ) throws(StreamError) -> StreamReadResult {
        try checkOpen()
        return try streams.read(id, into: destination, now: clock, rtt: paths.active.recovery.rtt.smoothed)
    }

    /// Bytes that a read would yield now.
    public func readableBytes(_ id: StreamID) -> Int { streams.readableBytes(id) }

    /// Ends our side of a stream without its end: what was not sent is dropped (RFC 9000, section 3.3).
    public mutating func reset(_ id: StreamID, code: UInt64) throws(StreamError) {
        try checkOpen()
        try streams.reset(id, code: min(code, Varint.maximum))
    }

    /// Asks the peer to send no more on a stream (RFC 9000, section 3.5).
    public mutating func stopSending(_ id: StreamID, code: UInt64) throws(StreamError) {
        try checkOpen()
        try streams.stopSending(id, code: min(code, Varint.maximum))
    }

    private func checkOpen() throws(StreamError) {
        guard isOpen() else { throw .connectionClosed }
    }
}
