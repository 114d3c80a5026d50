// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// A peer that sends whatever it likes.
@Suite struct StreamHostilityTests {
    /// Draws frames and calls at random, extremes among them.
    private final class Attack {
        static let extremes: [UInt64] = [0, 1, 29_999, 30_000, 30_001, 40_000, 1 << 60, (1 << 60) + 1, Varint.maximum]
        let role: Role
        let parameters = TransportParameters.streams(
            data: 40_000, streamData: 30_000, bidirectional: 6, unidirectional: 6)
        var random: RandomSource
        var end: StreamEnd
        var sent = [StreamEnd.Packet]()

        init(seed: UInt64) {
            role = seed % 2 == 0 ? .client : .server
            random = .seeded(seed)
            end = StreamEnd(role, local: parameters, peer: parameters)
        }

        func startOver() {
            end = StreamEnd(role, local: parameters, peer: parameters)
            sent = []
        }

        private func below(_ bound: UInt64) -> UInt64 { UInt64.random(in: 0..<bound, using: &random) }

        private func number() -> UInt64 {
            below(20) == 0 ? Self.extremes[Int(below(UInt64(Self.extremes.count)))] : below(3_000)
        }

        private func streamID() -> StreamID {
            StreamID(rawValue: below(60) == 0 ? Varint.maximum - below(4) : below(24))
        }

        /// A frame of the peer's.
        func frame() throws {
            let id = streamID()
            switch below(10) {
            case 0..<5:
                let data = [UInt8](repeating: 1, count: Int(below(600)))
                // As the parser guarantees: no end beyond 2^62-1.
                let offset = min(number(), Varint.maximum - UInt64(data.count))
                try end.receive(id.rawValue, at: offset, data, isFinal: below(30) == 0)
            case 5: try end.receiveReset(id.rawValue, code: number(), finalSize: number())
            case 6: try end.receiveStop(id.rawValue, code: number())
            case 7: try end.table.receiveMaxStreamData(id, number())
            case 8: end.table.receiveMaxStreams(.bidirectional, number() % 40)
            default:
                end.table.receiveMaxData(number())
                try end.table.receiveStreamDataBlocked(id, at: 0)
            }
        }

        /// What our side does meanwhile; calls that cannot be carried out are part of it.
        func act() {
            switch below(4) {
            case 0:
                let id = (try? end.table.open(below(2) == 0 ? .bidirectional : .unidirectional)) ?? streamID()
                try? end.write(id, [UInt8](repeating: 2, count: 700), finish: below(2) == 0)
            case 1:
                for event in end.events() {
                    if case .readable(let id) = event { _ = try? end.read(id, atMost: Int(below(2_000))) }
                }
            case 2:
                if below(2) == 0 { try? end.table.reset(streamID(), code: 1) }
                if below(2) == 0 { try? end.table.stopSending(streamID(), code: 1) }
            default:
                sent += end.packets(size: Int(30 + below(1_300)))
                while sent.count > 5 {
                    let packet = sent.remove(at: Int(below(UInt64(sent.count))))
                    if below(2) == 0 { end.acknowledge([packet]) } else { end.lose([packet]) }
                }
            }
        }
    }

    @Test(
        "no sequence of frames makes the table trap or hold more than its windows", arguments: 0..<20 as Range<UInt64>)
    func randomFrames(seed: UInt64) {
        let attack = Attack(seed: seed)
        var codes = Set<TransportErrorCode>()
        for step in 0..<3_000 {
            do {
                if step % 3 == 0 { attack.act() } else { try attack.frame() }
            } catch {
                let code = (error as? TransportError)?.code ?? .internalError
                #expect(code != .internalError)
                codes.insert(code)
                attack.startOver()
            }
            let end = attack.end
            let streams = end.table.activeStreamCount
            #expect(end.table.received <= end.table.receiveWindow.limit)
            #expect(end.table.pool.outstanding <= 40_000 / ReceiveBlockPool.blockSize + 2 * streams)
            #expect(end.table.sent <= end.table.sendLimit)
        }
        let expected: Set<TransportErrorCode> = [
            .flowControlError, .finalSizeError, .streamStateError, .streamLimitError,
        ]
        #expect(codes.count >= 3 && codes.isSubset(of: expected))
        attack.end.table.closeAll()
        #expect(attack.end.table.pool.outstanding == 0)
    }

    @Test("single bytes far apart cost a block each and no more than the window's blocks")
    func sparse() throws {
        let end = StreamEnd(.server, local: .streams(data: 1 << 20, streamData: 1 << 20))
        for offset in stride(from: UInt64(1), to: 1 << 20, by: 5_000) { try end.receive(0, at: offset, [1]) }
        #expect(end.table.pool.outstanding == (1 << 20) / ReceiveBlockPool.blockSize)
        try end.receiveReset(0, finalSize: 1 << 20)
        #expect(end.table.pool.outstanding == 0)
    }

    @Test("a peer that opens the highest stream and abandons it again and again gets no more than its limit")
    func churn() throws {
        let end = StreamEnd(.server, local: .streams(unidirectional: 16))
        var ordinal: UInt64 = 15
        for _ in 0..<50 {
            let id = StreamID(initiator: .client, direction: .unidirectional, ordinal: ordinal)
            try end.receiveReset(id.rawValue, finalSize: 0)
            #expect(throws: StreamError.resetByPeer(code: 7)) { try end.read(id) }
            _ = end.packets()
            let limit = end.table.peerOpenings[1].limit
            #expect(end.table.activeStreamCount <= 16)
            #expect(limit == end.table.peerOpenings[1].closed + 16)
            ordinal = limit - 1
        }
        #expect(end.table.map.count == 0)
        #expect(end.table.peerOpenings[1].untouchedCount == 15)
    }
}
