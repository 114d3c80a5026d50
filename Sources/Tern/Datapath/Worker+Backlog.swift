// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import NIOCore

#if canImport(Darwin)
internal import Darwin
#elseif canImport(Musl)
internal import Musl
#else
internal import Glibc
#endif

extension Worker {
    /// The socket's buffer, or the interface's queue, is full: the datagrams can go a little later.
    static func isFull(_ errno: Int32) -> Bool { errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM }

    /// Keeps the rest of a batch until the socket has room.
    func postpone(_ batch: PendingBatch, on socket: UDPSocket) {
        let isFirst = socket.backlog.isEmpty
        guard socket.backlog.append(batch, now: now()) else { return }
        if isFirst { scheduleRetry(on: socket) }
    }

    private func scheduleRetry(on socket: UDPSocket) {
        eventLoop.scheduleTask(in: Limits.backlogRetry) { self.retry(on: socket) }
    }

    private func retry(on socket: UDPSocket) {
        guard !socket.isClosed else { return }
        while var batch = socket.backlog.popFirst() {
            let result = batch.bytes.withUnsafeBytes {
                socket.send($0, segmentSize: batch.segmentSize, tuple: batch.tuple, ecn: batch.ecn)
            }
            if Self.isFull(result.error) {
                if now() - socket.backlog.since > SendBacklog.patience {
                    socket.backlog.dropAll()
                    break
                }
                batch.bytes.removeFirst(min(result.sent, batch.bytes.count))
                socket.backlog.putBack(batch)
                scheduleRetry(on: socket)
                return
            }
            if result.error != 0 {
                for part in batch.parts {
                    sendOutcomes.append(SendOutcome(part: part, errno: result.error, segmentSize: batch.segmentSize))
                }
            }
        }
        reportSendOutcomes()
        for driver in socket.backlog.takeWaiting() { touch(driver) }
        serviceTouched()
    }
}
