// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import NIOCore

/// A task that reads: what it wants, and the buffer that the bytes go into.
///
/// `@unchecked Sendable`: made by the calling task, then touched on the event loop alone until the task is resumed.
final class ReadRequest: Suspension<ReadProgress>, @unchecked Sendable {
    private var driver: ConnectionDriver?
    private var id: StreamID
    var buffer: ByteBuffer
    private(set) var limit: Int
    /// There was nothing to be read when the call looked, in this turn of the loop.
    private let isKnownToWait: Bool

    init(driver: ConnectionDriver, id: StreamID, buffer: ByteBuffer, limit: Int, isKnownToWait: Bool) {
        self.driver = driver
        self.id = id
        self.buffer = buffer
        self.limit = limit
        self.isKnownToWait = isKnownToWait
    }

    /// Has a request that is done with ask for something else.
    func renew(driver: ConnectionDriver, id: StreamID, buffer: ByteBuffer, limit: Int) {
        renew()
        self.driver = driver
        self.id = id
        self.buffer = buffer
        self.limit = limit
    }

    /// Takes the bytes out, and refers to nothing any more.
    func finish() -> ByteBuffer {
        defer {
            buffer = ByteBuffer()
            driver = nil
        }
        return buffer
    }

    override func began() {
        guard let driver else { return }
        if !isKnownToWait, let result = driver.tryReading(id, into: &buffer, limit: limit) { return resume(result) }
        driver.streamWaits[id, default: StreamWaits()].reader = self
    }

    override func withdrawn() {
        driver?.updateWaits(of: id) { if $0.reader === self { $0.reader = nil } }
    }
}

/// What a read came to.
struct ReadProgress: Sendable {
    var count = 0
    /// The end of the stream was reached.
    var isFinished = false
}

/// A task that writes: its bytes, until the stream has room for them.
///
/// `@unchecked Sendable`: what varies is the suspension's.
final class WriteRequest: Suspension<Void>, @unchecked Sendable {
    private let driver: ConnectionDriver
    private let id: StreamID
    let bytes: ByteBuffer
    /// Nothing follows.
    let finishing: Bool
    /// There was no room when the call looked, in this turn of the loop.
    private let isKnownToWait: Bool

    init(driver: ConnectionDriver, id: StreamID, bytes: ByteBuffer, finishing: Bool, isKnownToWait: Bool) {
        self.driver = driver
        self.id = id
        self.bytes = bytes
        self.finishing = finishing
        self.isKnownToWait = isKnownToWait
    }

    override func began() {
        if !isKnownToWait, let result = driver.tryWriting(bytes, finishing: finishing, to: id) { return resume(result) }
        driver.streamWaits[id, default: StreamWaits()].writers.append(self)
    }

    override func withdrawn() {
        driver.updateWaits(of: id) { $0.writers.remove(self) }
    }
}

/// A stream that a task wants to open, and what it wants to write there.
struct OpenRequest {
    var bytes: ByteBuffer
    var finishing: Bool
    var suspension: Suspension<StreamID>
}

/// The tasks that wait to write on one stream, in order. Mostly there is one, for which nothing is allocated.
struct WriteQueue {
    private(set) var first: WriteRequest?
    private var others = Deque<WriteRequest>()

    var isEmpty: Bool { first == nil }

    mutating func append(_ request: WriteRequest) {
        if first == nil { first = request } else { others.append(request) }
    }

    mutating func removeFirst() { first = others.popFirst() }

    mutating func remove(_ request: WriteRequest) {
        if first === request { return removeFirst() }
        others.removeAll { $0 === request }
    }

    mutating func fail(_ error: any Error) {
        while let request = first {
            removeFirst()
            request.resume(throwing: error)
        }
    }
}

/// The tasks that wait on one stream. Streams on which nobody waits have no entry.
struct StreamWaits {
    var reader: ReadRequest?
    var writers = WriteQueue()

    var isEmpty: Bool { reader == nil && writers.isEmpty }

    mutating func fail(_ error: any Error) {
        reader?.resume(throwing: error)
        writers.fail(error)
    }
}

/// The tasks that wait until the peer allows another stream, in order.
struct OpenWaits {
    var bidirectional = Deque<OpenRequest>()
    var unidirectional = Deque<OpenRequest>()

    subscript(direction: StreamDirection) -> Deque<OpenRequest> {
        _read {
            switch direction {
            case .bidirectional: yield bidirectional
            case .unidirectional: yield unidirectional
            }
        }
        _modify {
            switch direction {
            case .bidirectional: yield &bidirectional
            case .unidirectional: yield &unidirectional
            }
        }
    }

    mutating func fail(_ error: any Error) {
        for wait in bidirectional { wait.suspension.resume(throwing: error) }
        for wait in unidirectional { wait.suspension.resume(throwing: error) }
        self = OpenWaits()
    }
}
