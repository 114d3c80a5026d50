// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import NIOCore

/// Bytes that a task wants to read, and the buffer they go into.
///
/// `@unchecked Sendable`: made by the calling task, then touched on the event loop alone until the task is resumed.
final class ReadRequest: @unchecked Sendable {
    var buffer: ByteBuffer
    let limit: Int

    init(buffer: ByteBuffer, limit: Int) {
        self.buffer = buffer
        self.limit = limit
    }
}

/// What a read came to.
struct ReadProgress: Sendable {
    var count = 0
    /// The end of the stream was reached.
    var isFinished = false
}

/// Bytes that a task wants to write once the stream has room.
struct WriteRequest {
    var bytes: ByteBuffer
    /// Nothing follows.
    var finishing: Bool
    var suspension: Suspension<Void>
}

/// A stream that a task wants to open, and what it wants to write there.
struct OpenRequest {
    var bytes: ByteBuffer
    var finishing: Bool
    var suspension: Suspension<StreamID>
}

/// The tasks that wait on one stream. Streams on which nobody waits have no entry.
struct StreamWaits {
    var reader: (request: ReadRequest, suspension: Suspension<ReadProgress>)?
    var writers = Deque<WriteRequest>()

    var isEmpty: Bool { reader == nil && writers.isEmpty }

    func fail(_ error: any Error) {
        reader?.suspension.resume(throwing: error)
        for writer in writers { writer.suspension.resume(throwing: error) }
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
