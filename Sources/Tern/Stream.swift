// SPDX-License-Identifier: Apache-2.0

public import NIOCore
internal import Synchronization

/// A stream of bytes within a connection (RFC 9000, section 2), in both directions or in one.
///
/// A stream lives until each of its directions has ended: ours with ``finish()`` or ``reset(errorCode:)``, the peer's when its
/// end was read or with ``stopReading(errorCode:)``. One that is dropped without keeps counting against the peer's limit.
///
/// All calls may be made from any task and can be cancelled. On a connection that has ended they throw its `CloseReason`,
/// else `StreamError` for what happened to the stream, or `CancellationError`.
///
/// A call hops to the connection's event loop and back. A task that runs there already, because its actor or its preferred
/// task executor is that of ``Connection/eventLoop``, is not even suspended where it need not wait.
public final class Stream: Sendable, Identifiable {
    public let id: StreamID
    let driver: ConnectionDriver
    /// The last byte was read: the engine may have forgotten the stream, and reading goes on finding the end.
    let hasReadEnd = Atomic(false)

    init(id: StreamID, driver: ConnectionDriver) {
        self.id = id
        self.driver = driver
    }

    /// The connection that the stream belongs to.
    public var connection: Connection { Connection(driver: driver) }
    /// Whether bytes go both ways.
    public var isBidirectional: Bool { id.direction == .bidirectional }

    // MARK: Writing

    /// Writes all readable bytes of `bytes`, without copying them: the stream refers to the buffer's storage until the peer has
    /// acknowledged them. Changing the buffer meanwhile is safe (it copies itself then); a small slice of a large buffer
    /// keeps all of it.
    ///
    /// Waits while the stream holds `ConnectionConfiguration.sendBufferLimit` bytes or more that are not sent yet, then takes
    /// all, however many: so large writes cost little, and the memory in use is the limit and one write. Returns before
    /// the peer has the bytes. A cancelled write wrote nothing.
    ///
    /// - Parameter finishing: nothing follows: ends our direction as ``finish()`` does, in the same call, and where there is room
    ///   in the same packet. Bytes may then be none.
    /// - Throws: `StreamError.stoppedByPeer` if the peer does not want them, `.finished` after ``finish()``,
    ///   `.notWritable` on a unidirectional stream of the peer's.
    nonisolated(nonsending)
        public func write(_ bytes: ByteBuffer, finishing: Bool = false) async throws
    {
        guard bytes.readableBytes > 0 || finishing else { return }
        try await driver.write(bytes, finishing: finishing, to: id)
    }

    /// Writes a copy of the bytes; see ``write(_:finishing:)-(ByteBuffer,_)``.
    nonisolated(nonsending)
        public func write(_ bytes: some Collection<UInt8>, finishing: Bool = false) async throws
    {
        try await write(ByteBuffer(bytes: bytes), finishing: finishing)
    }

    /// Ends our direction after what was written. Does not wait for the peer.
    nonisolated(nonsending)
        public func finish() async throws
    {
        try await driver.finish(id)
    }

    /// Abandons our direction: what was not delivered is lost, and the peer's reads throw with the code
    /// (RFC 9000, section 19.4).
    nonisolated(nonsending)
        public func reset(errorCode: UInt64) async throws
    {
        try await driver.reset(id, code: errorCode)
    }

    // MARK: Reading

    /// The next bytes, as many as are there, up to `limit`; nil at the end. Waits while nothing is there.
    ///
    /// - Throws: `StreamError.resetByPeer` if the peer abandoned the stream; `TernError.concurrentRead` if another task is
    ///   reading from it.
    nonisolated(nonsending)
        public func read(upTo limit: Int = Stream.defaultReadLimit) async throws -> ByteBuffer?
    {
        var buffer = ByteBuffer()
        return try await read(into: &buffer, upTo: limit) == 0 ? nil : buffer
    }

    /// Reads after what `buffer` holds, into its own storage if that has room. When the call throws, the buffer is empty.
    ///
    /// - Returns: how many bytes were read; 0 at the end.
    @discardableResult
    nonisolated(nonsending)
        public func read(into buffer: inout ByteBuffer, upTo limit: Int = Stream.defaultReadLimit) async throws -> Int
    {
        guard !hasReadEnd.load(ordering: .relaxed) else { return 0 }
        let progress = try await driver.read(id, into: &buffer, limit: max(limit, 1))
        if progress.isFinished { hasReadEnd.store(true, ordering: .relaxed) }
        return progress.count
    }

    /// Tells the peer that we read no more (STOP_SENDING; RFC 9000, section 19.5). What has come is dropped.
    nonisolated(nonsending)
        public func stopReading(errorCode: UInt64) async throws
    {
        try await driver.stopReading(id, code: errorCode)
    }

    /// Bytes a read takes at most unless told otherwise.
    public static let defaultReadLimit = 256 * 1_024

    /// The bytes the peer sends, in chunks as large as are there when asked for. Ends with the peer's end.
    public var bytes: Bytes { Bytes(stream: self) }

    public struct Bytes: AsyncSequence, Sendable {
        public typealias Element = ByteBuffer
        public typealias Failure = any Error

        let stream: Stream

        public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(stream: stream) }

        public struct AsyncIterator: AsyncIteratorProtocol {
            let stream: Stream

            public mutating func next() async throws -> ByteBuffer? { try await stream.read() }
            public mutating func next(isolation actor: isolated (any Actor)?) async throws(any Error) -> ByteBuffer? {
                try await stream.read()
            }
        }
    }
}

extension Stream: CustomStringConvertible {
    public var description: String { "stream \(id)" }
}

/// The streams that the peer opens, in order; each goes to one iterator. Ends with the connection.
public struct IncomingStreams: AsyncSequence, Sendable {
    public typealias Element = Stream
    public typealias Failure = Never

    let mailbox: Mailbox<Stream>

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(mailbox: mailbox) }

    public struct AsyncIterator: AsyncIteratorProtocol {
        let mailbox: Mailbox<Stream>

        public mutating func next() async -> Stream? { await mailbox.next() }
        public mutating func next(isolation actor: isolated (any Actor)?) async throws(Never) -> Stream? {
            await mailbox.next()
        }
    }
}
