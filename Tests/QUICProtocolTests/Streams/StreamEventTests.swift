// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite struct StreamEventTests {
    @Test("readable is raised once until the application reads, and again for what arrives after that")
    func readableEdge() throws {
        let end = StreamEnd(.server)
        try end.receive(2, [1, 2])
        try end.receive(2, at: 2, [3])
        #expect(end.events() == [.opened(.clientUni0), .readable(.clientUni0)])
        try end.receive(2, at: 3, [4])
        #expect(end.events() == [])
        #expect(try end.read(.clientUni0, atMost: 2).bytes == [1, 2])
        // Something is left, but nothing new has come.
        #expect(end.events() == [])
        try end.receive(2, at: 4, [5])
        #expect(end.events() == [.readable(.clientUni0)])
        #expect(try end.read(.clientUni0).bytes == [3, 4, 5])
        // Beyond a gap nothing is readable; a repeat is not news.
        try end.receive(2, at: 6, [7])
        try end.receive(2, at: 4, [5])
        #expect(end.events() == [])
        try end.receive(2, at: 5, [6])
        #expect(end.events() == [.readable(.clientUni0)])
    }

    @Test("an event that a read has made pointless is withdrawn")
    func withdrawn() throws {
        let end = StreamEnd(.server)
        try end.receive(2, [1])
        #expect(try end.read(.clientUni0).bytes == [1])
        #expect(end.events() == [.opened(.clientUni0)])
        try end.receive(2, at: 1, [2])
        #expect(try end.read(.clientUni0, atMost: 0).bytes == [])
        #expect(end.events() == [.readable(.clientUni0)])
        try end.receive(2, at: 2, [3], isFinal: true)
        #expect(try end.read(.clientUni0) == ([2, 3], true))
        #expect(end.events() == [])
        #expect(end.table.activeStreamCount == 0)
    }

    @Test(
        "no event is lost and none is false, under random arrivals, reads and takings",
        arguments: 0..<60 as Range<UInt64>)
    func randomised(seed: UInt64) throws {
        var random = RandomSource.seeded(seed)
        let end = StreamEnd(.server)
        let size = 3_000
        let id = StreamID.clientUni0
        let content = streamBytes(id, count: size)
        /// The application was told and has not read until nothing was left since.
        var isToldOf = false
        var read = 0
        var isOver = false
        var arrived = Set<Int>()
        var firstGap = 0
        var hasEnd = false
        while !isOver {
            switch UInt64.random(in: 0..<3, using: &random) {
            case 0:
                let start = min(size, max(0, firstGap + Int.random(in: -50...100, using: &random)))
                let count = min(Int.random(in: 0...200, using: &random), size - start)
                try end.receive(
                    2, at: UInt64(start), Array(content[start..<start + count]), isFinal: start + count == size)
                if start + count == size { hasEnd = true }
                arrived.formUnion(start..<start + count)
                while firstGap < size, arrived.contains(firstGap) { firstGap += 1 }
            case 1:
                while let event = end.table.nextEvent() {
                    if event == .readable(id) {
                        #expect(firstGap > read || (hasEnd && firstGap == size), "an event without a reason")
                        isToldOf = true
                    }
                }
                // All events were taken: if there is something, the application must know.
                if firstGap > read || (hasEnd && firstGap == size) { #expect(isToldOf, "a lost wake-up at \(read)") }
            default:
                guard isToldOf else { break }
                let room = Int.random(in: 1...150, using: &random)
                let (bytes, isFinished) = try end.read(id, atMost: room)
                #expect(bytes == Array(content[read..<read + bytes.count]))
                read += bytes.count
                if bytes.count < room { isToldOf = false }
                isOver = isFinished
            }
        }
        #expect(read == size)
        #expect(end.table.activeStreamCount == 0)
    }

    @Test("the queue is bounded: however much happens, a stream has at most one event of each kind")
    func bounded() throws {
        let end = StreamEnd(.server)
        for round in 0..<200 {
            for ordinal in 0..<10 {
                let id = StreamID(rawValue: UInt64(ordinal) * 4)
                try end.receive(id.rawValue, at: UInt64(round), [1])
                _ = try end.read(id, atMost: 0)
                if round == 100 { try end.receiveStop(id.rawValue, code: 1) }
            }
        }
        let events = end.events()
        #expect(events.count == 30)
        #expect(Set(events).count == 30)
    }

    @Test("a stream stays until its last event was taken, so that none is lost with it")
    func lastEvents() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.bidirectional)
        try end.write(id, [1, 2, 3], finish: true)
        try end.receive(id.rawValue, [4], isFinal: true)
        _ = try end.read(id)
        end.acknowledge(end.packets())
        #expect(end.table.activeStreamCount == 1)
        #expect(end.events() == [.sendClosed(id)])
        #expect(end.table.activeStreamCount == 0)
    }

    @Test("an endpoint waits for the peer as long as some stream may still bring data")
    func awaiting() throws {
        let end = StreamEnd(.client)
        #expect(end.table.isAwaitingPeerData == false)
        let uni = try end.table.open(.unidirectional)
        try end.write(uni, [1], finish: true)
        #expect(end.table.isAwaitingPeerData == false)
        let id = try end.table.open(.bidirectional)
        #expect(end.table.isAwaitingPeerData == true)
        try end.receive(id.rawValue, at: 1, [2], isFinal: true)
        #expect(end.table.isAwaitingPeerData == true)
        try end.receive(id.rawValue, [1])
        #expect(end.table.isAwaitingPeerData == false)
        try end.receive(7, [1])
        #expect(end.table.isAwaitingPeerData == true)
        try end.receiveReset(7, finalSize: 1)
        #expect(end.table.isAwaitingPeerData == true)
        try end.receiveReset(3, finalSize: 0)
        #expect(end.table.isAwaitingPeerData == false)
        let stopped = try end.table.open(.bidirectional)
        try end.table.stopSending(stopped, code: 1)
        #expect(end.table.isAwaitingPeerData == true)
        try end.receiveReset(stopped.rawValue, finalSize: 0)
        #expect(end.table.isAwaitingPeerData == false)
    }
}
