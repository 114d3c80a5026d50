// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// draft-ietf-quic-ack-frequency, between two connections.
@Suite("Acknowledgements by request")
struct AckFrequencyConnectionTests {
    private func established() throws -> EnginePair {
        let pair = try EnginePair()
        pair.run(for: .milliseconds(100))
        try pair.onClient { connection in
            let parameters = connection.peerTransportParameters
            verify(parameters?.minAckDelay == .milliseconds(1))
        }
        return pair
    }

    @Test("a request for a delay that is not allowed closes the connection", arguments: [16_384_000, 999] as [UInt64])
    func hostileDelay(delay: UInt64) throws {
        let pair = try established()
        var bytes: [UInt8] = []
        let frame = AckFrequencyFrame(
            sequence: 0, ackElicitingThreshold: Varint.maximum, requestedMaxAckDelay: delay, reorderingThreshold: 0)
        bytes = try #require(written { $0.writeAckFrequency(frame) })
        try pair.onServer { connection in
            var parser = FrameParser(bytes.span.bytes, payload: 0..<bytes.count)
            guard let parsed = try parser.next() else { throw TransportError(.internalError, "no frame") }
            var code: TransportErrorCode?
            do throws(TransportError) {
                try connection.handle(
                    parsed, bytes: bytes.span.bytes, level: .oneRTT, path: connection.paths.activeID,
                    destination: connection.localConnectionID,
                    arrival: .init(
                        tuple: connection.paths.active.tuple, datagramSize: bytes.count, ecn: .notECT, now: pair.now))
            } catch {
                code = error.code
            }
            verify(code == .protocolViolation)
        }
    }

    @Test("a server that moves data asks for few acknowledgements, and for the usual ones when its client has moved")
    func lifecycle() throws {
        let pair = try established()
        try pair.onServer { connection in
            connection.ackFrequency.reconsider(
                window: 120_000, maximumDatagramSize: 1_200, isInSlowStart: false, smoothedRTT: .milliseconds(10),
                minimumRTT: .milliseconds(10), now: pair.now)
            verify(connection.ackFrequency.isPending)
        }
        pair.exchange()
        try pair.onServer { verify(!$0.ackFrequency.hasFrames) }
        try pair.onClient { verify($0.spaces.application.received.isSparse) }
        // The NAT gives the client another port.
        pair.clientAddress.port += 1
        try pair.onClient { $0.spaces.requestProbe(in: .application) }
        pair.run(for: .milliseconds(50))
        try pair.onServer { verify($0.statistics.peerMoves == 1) }
        try pair.onClient { verify(!$0.spaces.application.received.isSparse) }
    }
}
