// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// Flow control against the rules of RFC 9000, section 4, counted by hand. A failing seed is the test's argument.
@Suite("Flow control against a simple model")
struct FlowControlPropertyTests {
    @Test(
        "limits never shrink, never fall behind what was consumed, and are told in steps of a quarter",
        arguments: 1...20 as ClosedRange<UInt64>)
    func window(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        let initial = 1_000 + random.next() % 100_000
        var window = ReceiveWindow(initial: initial, maximum: initial * 8)
        var now = Instant.zero + .seconds(1)
        var told = window.limit
        var consumed: UInt64 = 0
        var received: UInt64 = 0
        window.noteArrival(now: now)
        for _ in 0..<2_000 {
            now += .microseconds(Int64(random.next() % 5_000))
            // The peer uses some of its credit, and the application reads some of that.
            received += random.next() % (told - received + 1)
            let count = random.next() % (received - consumed + 1)
            let isDue =
                random.next() & 1 == 0
                ? window.consume(count, now: now, rtt: .milliseconds(10)) : window.credit(count)
            consumed += count
            #expect(window.consumed == consumed)
            #expect(isDue == window.isUpdateDue)
            // What the peer was told stays true until it is told more.
            #expect(window.limit == told)
            guard isDue else {
                // It still has more than half of what it may have on its way.
                #expect(told - consumed > window.size / 2)
                continue
            }
            let limit = window.advance()
            #expect(limit > told && limit == consumed + window.size)
            told = limit
        }
        #expect(window.size <= initial * 8)
    }

    @Test(
        "a sender stays within both limits, and sends everything once they are raised",
        arguments: 1...20 as ClosedRange<UInt64>)
    func sender(seed: UInt64) throws {
        var random = RandomSource.seeded(seed)
        let end = StreamEnd(.client, peer: .streams(data: 5_000, streamData: 2_000, bidirectional: 4))
        var connectionLimit: UInt64 = 5_000
        var streamLimits: [UInt64] = []
        var highest: [UInt64] = []
        var written: [Int] = []
        var ids: [StreamID] = []
        for _ in 0..<3 {
            ids.append(try end.table.open(.bidirectional))
            streamLimits.append(2_000)
            highest.append(0)
            written.append(0)
        }
        func send() throws {
            for packet in end.packets() {
                for frame in try StreamEnd.streamFrames(packet.payload) {
                    let index = try #require(ids.firstIndex(of: frame.id))
                    highest[index] = max(highest[index], frame.offset + UInt64(frame.data.count))
                }
                end.acknowledge([packet])
            }
            for index in ids.indices { #expect(highest[index] <= streamLimits[index]) }
            #expect(highest.reduce(0, +) <= connectionLimit)
        }
        for _ in 0..<200 {
            let index = random.count(below: ids.count)
            switch random.next() % 4 {
            case 0:
                let count = random.count(below: 3_000)
                try end.write(ids[index], [UInt8](repeating: 1, count: count))
                written[index] += count
            case 1:
                // At times lower than before, which changes nothing (RFC 9000, section 4.1).
                let limit = random.next() % 60_000
                streamLimits[index] = max(streamLimits[index], limit)
                try end.table.receiveMaxStreamData(ids[index], limit)
            case 2:
                let limit = random.next() % 100_000
                connectionLimit = max(connectionLimit, limit)
                end.table.receiveMaxData(limit)
            default: break
            }
            try send()
        }
        connectionLimit = 1 << 40
        end.table.receiveMaxData(connectionLimit)
        for index in ids.indices {
            streamLimits[index] = 1 << 40
            try end.table.receiveMaxStreamData(ids[index], 1 << 40)
        }
        try send()
        #expect(highest == written.map { UInt64($0) })
    }
}
