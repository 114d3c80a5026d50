// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket

/// What the system said to a batch, for one of the connections that it was of.
struct SendOutcome {
    var part: OutgoingBatch.Part
    /// 0 if it was sent.
    var errno: Int32
    var segmentSize: Int
}

extension Worker {
    /// Where the next connection writes its datagrams.
    func sendSpace() -> UnsafeMutableRawBufferPointer {
        if !outgoing.hasSpace { flush() }
        if outgoing.isEmpty { outgoing.rewind() }
        return outgoing.space
    }

    /// Sends what a connection has just written into `sendSpace`, together with what waits and what follows if it is alike.
    func send(_ transmission: Transmission, of driver: ConnectionDriver) {
        let route = OutgoingBatch.Route(tuple: transmission.tuple, ecn: transmission.ecn)
        if !outgoing.isEmpty, !outgoing.accepts(transmission, route: route) { flush() }
        outgoing.append(transmission, route: route, part: .init(driver: driver, path: transmission.path))
        if outgoing.isFull { flush() }
    }

    /// Hands what waits to its socket.
    func flush() {
        guard let route = outgoing.route, !outgoing.isEmpty else { return }
        // A socket that was closed meanwhile: its connections have been told.
        if let socket = socket(route.tuple.transport) { flush(to: socket, route: route) }
        outgoing.clear()
    }

    private func flush(to socket: UDPSocket, route: OutgoingBatch.Route) {
        var sent = 0
        // While others wait for this socket, a batch joins them: what was first goes first.
        if socket.backlog.isEmpty {
            let result = socket.send(
                outgoing.bytes, segmentSize: outgoing.segmentSize, tuple: route.tuple, ecn: route.ecn)
            if !Self.isFull(result.error) {
                for part in outgoing.parts where result.error != 0 || part.driver.isRefused(part.path) {
                    sendOutcomes.append(
                        SendOutcome(part: part, errno: result.error, segmentSize: outgoing.segmentSize))
                }
                return
            }
            sent = min(result.sent, outgoing.bytes.count)
        }
        let batch = PendingBatch(
            bytes: Array(outgoing.bytes[sent...]), segmentSize: outgoing.segmentSize, tuple: route.tuple,
            ecn: route.ecn,
            parts: outgoing.parts)
        for part in outgoing.parts { socket.backlog.wait(part.driver) }
        postpone(batch, on: socket)
    }

    /// Tells connections what became of what they sent. None of them may be in use by the caller.
    func reportSendOutcomes() {
        guard !sendOutcomes.isEmpty else { return }
        let now = now()
        let outcomes = sendOutcomes
        sendOutcomes = []
        for outcome in outcomes {
            let driver = outcome.part.driver
            endpoint.withConnection(driver.handle) { driver.heard(outcome, &$0, now: now) }
            touch(driver)
        }
    }
}
