// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
internal import NIOCore

/// Bytes that a task wants to read, and the buffer they go into.
///
/// `@unchecked Sendable`: made by the calling task, then touched on the event loop alone until the task is resumed.
final class ReadRequest: @unchecked Sendable {
    var buffer: ByteBuffer
    let limit: Int
    let suspension: Suspension<ReadOutcome>

    init(buffer: ByteBuffer, limit: Int, suspension: Suspension<ReadOutcome>) {
        self.buffer = buffer
        self.limit = max(limit, 1)
        self.suspension = suspension
    }

    func succeed(count: Int, isFinished: Bool) {
        let filled = buffer
        buffer = ByteBuffer()
        suspension.resume(returning: ReadOutcome(buffer: filled, count: count, isFinished: isFinished))
    }
}

struct ReadOutcome: Sendable {
    var buffer: ByteBuffer
    var count: Int
    /// The end of the stream was reached.
    var isFinished: Bool
}

/// Bytes that a task wants to write once the stream has room.
struct WriteRequest {
    var bytes: ByteBuffer
    var suspension: Suspension<Void>
}

/// The tasks that wait on one stream. Streams on which nobody waits have no entry.
struct StreamWaits {
    var reader: ReadRequest?
    var writers = Deque<WriteRequest>()

    var isEmpty: Bool { reader == nil && writers.isEmpty }

    func fail(_ error: any Error) {
        reader?.suspension.resume(throwing: error)
        for writer in writers { writer.suspension.resume(throwing: error) }
    }
}

/// The tasks that wait until the peer allows another stream, in order.
struct OpenWaits {
    var bidirectional = Deque<Suspension<StreamID>>()
    var unidirectional = Deque<Suspension<StreamID>>()

    subscript(direction: StreamDirection) -> Deque<Suspension<StreamID>> {
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
        for wait in bidirectional { wait.resume(throwing: error) }
        for wait in unidirectional { wait.resume(throwing: error) }
        self = OpenWaits()
    }
}
