// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite struct StreamSendingTests {
    @Test("the last frame omits its length when it fills the packet, the others have one")
    func lengthOmitted() throws {
        let end = StreamEnd(.client)
        let first = try end.table.open(.bidirectional)
        let second = try end.table.open(.bidirectional)
        try end.write(first, streamBytes(first, count: 100), finish: true)
        try end.write(second, streamBytes(second, count: 5_000))
        let packet = try #require(end.packet(size: 1_200))
        #expect(packet.payload.count == 1_200)
        // FIN and LEN; then neither.
        #expect(packet.payload[0] == 0x0b)
        let frames = try StreamEnd.streamFrames(packet.payload)
        #expect(frames.map(\.id) == [first, second])
        #expect(frames[0].isFinal && frames[0].data.count == 100)
        #expect(packet.payload[frames[1].data.offset - 2] == 0x08)
        #expect(frames[1].data.range.upperBound == 1_200)
    }

    @Test("whatever the amount of data, packets are full or hold all of it, and no byte is sent twice or left out")
    func everyAmount() throws {
        for amount in 1...330 {
            let end = StreamEnd(.client)
            let id = try end.table.open(.bidirectional)
            try end.write(id, streamBytes(id, count: amount), finish: true)
            var received = [UInt8]()
            var isFinished = false
            let packets = end.packets(size: 100)
            for (index, packet) in packets.enumerated() {
                if index < packets.count - 1 { #expect(packet.payload.count == 100, "\(amount) bytes") }
                let frames = try StreamEnd.streamFrames(packet.payload)
                #expect(frames.count == 1)
                for frame in frames {
                    #expect(frame.offset == UInt64(received.count))
                    received += packet.payload[frame.data.range]
                    isFinished = frame.isFinal
                }
            }
            #expect(isFinished)
            #expect(received == streamBytes(id, count: amount), "\(amount) bytes")
        }
    }

    @Test("what readers wait for first is sent again when asked, as far as it was sent, and the streams' ends with it")
    func heads() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.bidirectional)
        end.table.resendHeads(upTo: 2_000)
        #expect(end.packet() == nil)
        try end.write(id, streamBytes(id, count: 3_000), finish: true)
        let packets = end.packets()
        for frame in packets[0].frames { end.table.acknowledged(frame) }
        let acknowledged = try #require(StreamEnd.streamFrames(packets[0].payload).first).data.range.count
        end.table.resendHeads(upTo: 1_000)
        let again = try StreamEnd.streamFrames(try #require(end.packet()).payload)
        #expect(again.map(\.offset) == [UInt64(acknowledged)])
        #expect(again.map(\.data.range.count) == [1_000] && !again[0].isFinal)
        #expect(end.packet() == nil)
        end.table.resendHeads(upTo: .max)
        let rest = try end.packets().flatMap { try StreamEnd.streamFrames($0.payload) }
        #expect(rest.first?.offset == UInt64(acknowledged) && rest.last?.isFinal == true)
        #expect(rest.map(\.data.range.count).reduce(0, +) == 3_000 - acknowledged)
    }

    @Test("streams take turns packet by packet")
    func fairness() throws {
        let end = StreamEnd(.client, peer: .streams(data: 10 << 20))
        var ids = [StreamID]()
        for _ in 0..<5 {
            let id = try end.table.open(.bidirectional)
            try end.write(id, [UInt8](repeating: 1, count: 100_000))
            ids.append(id)
        }
        var served = [StreamID]()
        for _ in 0..<50 { served += try StreamEnd.streamFrames(try #require(end.packet()).payload).map(\.id) }
        #expect(served == (0..<50).map { ids[$0 % 5] })
        // One that comes later waits for a turn, not for the end of the others.
        let late = try end.table.open(.bidirectional)
        try end.write(late, [UInt8](repeating: 1, count: 5_000))
        var turns = [StreamID]()
        for _ in 0..<6 { turns += try StreamEnd.streamFrames(try #require(end.packet()).payload).map(\.id) }
        #expect(turns.filter { $0 == late }.count == 1)
    }

    @Test("lost data goes before new data, on whatever stream, and flow control does not hold it")
    func lostFirst() throws {
        let end = StreamEnd(.client, peer: .streams(data: 4_000, streamData: 3_000))
        let first = try end.table.open(.bidirectional)
        let second = try end.table.open(.bidirectional)
        try end.write(first, streamBytes(first, count: 3_000))
        let packets = end.packets()
        try end.write(second, streamBytes(second, count: 3_000))
        #expect(end.table.hasStreamDataToSend == true)
        end.lose([packets[1]])
        var served = [(id: StreamID, offset: UInt64)]()
        for packet in end.packets() {
            served += try StreamEnd.streamFrames(packet.payload).map { ($0.id, $0.offset) }
        }
        #expect(served.first?.id == first)
        #expect(served.first?.offset == UInt64(try StreamEnd.streamFrames(packets[0].payload)[0].data.count))
        #expect(end.table.sent == 4_000)
        #expect(end.table.hasStreamDataToSend == false)
        end.lose([packets[0]])
        #expect(end.table.hasStreamDataToSend == true)
        #expect(
            end.packets().flatMap(\.frames).contains { if case .stream(first, 0, _, _) = $0 { true } else { false } })
        #expect(end.table.sent == 4_000)
    }

    @Test("data that turns out to have arrived is not sent again")
    func spuriousLoss() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.unidirectional)
        try end.write(id, streamBytes(id, count: 3_000), finish: true)
        let packets = end.packets()
        end.lose(packets)
        end.acknowledge([packets[1], packets[2]])
        let again = end.packets()
        #expect(again.count == 1)
        #expect(again[0].frames == packets[0].frames)
        end.acknowledge([packets[0]])
        #expect(end.events() == [.sendClosed(id)])
        end.lose(again)
        #expect(end.packet() == nil)
    }

    @Test("blocked limits are reported once each, again when lost, and not any more once raised")
    func blocked() throws {
        let end = StreamEnd(.client, peer: .streams(data: 1_500, streamData: 1_000, bidirectional: 2))
        let first = try end.table.open(.bidirectional)
        let second = try end.table.open(.bidirectional)
        #expect(throws: StreamError.limitReached(.bidirectional)) { try end.table.open(.bidirectional) }
        #expect(throws: StreamError.limitReached(.bidirectional)) { try end.table.open(.bidirectional) }
        try end.write(first, [UInt8](repeating: 1, count: 1_200))
        try end.write(second, [UInt8](repeating: 1, count: 1_200))
        let packets = end.packets()
        let control: [SentFrame] = [.streamsBlocked(.bidirectional), .streamDataBlocked(first), .dataBlocked]
        for frame in control {
            #expect(packets.flatMap(\.frames).filter { $0 == frame }.count == 1, "\(frame)")
        }
        #expect(end.table.isFlowControlBlocked == true)
        end.lose(packets)
        let again = end.packets()
        for frame in control {
            #expect(again.flatMap(\.frames).filter { $0 == frame }.count == 1, "\(frame)")
        }
        end.table.repeatBlockedFrames()
        #expect(Set(end.packets().flatMap(\.frames).map { "\($0)" }) == Set(["\(control[1])", "\(control[2])"]))
        // Raised limits make what is lost now moot.
        end.table.receiveMaxData(10_000)
        try end.table.receiveMaxStreamData(first, 5_000)
        try end.table.receiveMaxStreamData(second, 5_000)
        end.table.receiveMaxStreams(.bidirectional, 3)
        end.lose(again.map { StreamEnd.Packet(payload: [], frames: $0.frames.filter { control.contains($0) }) })
        #expect(!end.packets().flatMap(\.frames).contains { control.contains($0) })
        #expect(end.events() == [.streamsAvailable(.bidirectional)])
        #expect(try end.table.open(.bidirectional) == StreamID(rawValue: 8))
        #expect(end.table.isFlowControlBlocked == false)
        // A smaller limit has no effect.
        end.table.receiveMaxData(9_000)
        try end.table.receiveMaxStreamData(first, 4_000)
        #expect(end.table.sendLimit == 10_000)
    }

    @Test("a peer that is blocked by an older limit than it was told hears the limit again, another does not")
    func blockedByOldLimit() throws {
        let end = StreamEnd(.server, local: .streams(data: 1_500, streamData: 1_000, bidirectional: 2))
        // One stream runs into its limit and one closes, the connection's limit is almost reached, and all is read.
        try end.receive(0, [UInt8](repeating: 1, count: 1_000))
        try end.receive(4, [UInt8](repeating: 1, count: 400), isFinal: true)
        _ = try end.read(.client0)
        _ = try end.read(StreamID(rawValue: 4))
        try end.write(StreamID(rawValue: 4), [], finish: true)
        let first = end.packets()
        for packet in first { for frame in packet.frames { end.table.acknowledged(frame) } }
        _ = end.events()
        // What tells the new limits is lost, and nobody knows yet.
        let told: [SentFrame] = [.maxStreamData(.client0), .maxData, .maxStreams(.bidirectional)]
        let sent = (first + end.packets()).flatMap(\.frames)
        for frame in told { #expect(sent.contains(frame), "\(frame)") }
        end.table.receiveDataBlocked(at: 1_500)
        try end.table.receiveStreamDataBlocked(.client0, at: 1_000)
        end.table.receiveStreamsBlocked(.bidirectional, at: 2)
        #expect(Set(end.packets().flatMap(\.frames).map { "\($0)" }) == Set(told.map { "\($0)" }))
        // By the present limit it is blocked because nothing was read; larger ones it was never told.
        for extra: UInt64 in [0, 1, 1 << 40] {
            let window = end.table.receiveWindow.limit + extra
            let found = end.table.peek(.client0)
            let stream = try #require(found).pointee.receive.window.limit + extra
            end.table.receiveDataBlocked(at: window)
            try end.table.receiveStreamDataBlocked(.client0, at: stream)
            end.table.receiveStreamsBlocked(.bidirectional, at: end.table.peerOpenings[0].limit + extra)
            #expect(end.packets().isEmpty)
        }
    }

    @Test("before the peer's parameters nothing is sent, afterwards what was written goes out")
    func beforeHandshake() throws {
        let end = StreamEnd(.client, peer: nil)
        #expect(throws: StreamError.limitReached(.unidirectional)) { try end.table.open(.unidirectional) }
        #expect(end.packet() == nil)
        end.table.setPeerParameters(.streams())
        #expect(end.events() == [.streamsAvailable(.unidirectional)])
        #expect(end.packet() == nil)
        // Remembered parameters first, larger ones later (0-RTT).
        let early = StreamEnd(.client, peer: .streams(data: 1_000, streamData: 500))
        let id = try early.table.open(.bidirectional)
        try early.write(id, [UInt8](repeating: 1, count: 5_000))
        _ = early.packets()
        #expect(early.table.sent == 500)
        early.table.setPeerParameters(.streams(data: 4_000, streamData: 3_000))
        _ = early.packets()
        #expect(early.table.sent == 3_000)
    }

    @Test("control frames that do not fit wait for the next packet")
    func controlInPieces() throws {
        let end = StreamEnd(.server)
        for ordinal in 0..<60 { try end.receive(UInt64(ordinal) * 4, [1]) }
        _ = end.events()
        for ordinal in 0..<60 {
            let id = StreamID(rawValue: UInt64(ordinal) * 4)
            try end.table.reset(id, code: 3)
            try end.table.stopSending(id, code: 4)
        }
        let packets = end.packets(size: 40)
        #expect(packets.allSatisfy { $0.payload.count <= 40 })
        let frames = packets.flatMap(\.frames)
        #expect(frames.count == 120)
        #expect(Set(frames.map { "\($0)" }).count == 120)
    }

    @Test("windows are updated by the quarter, and double when they are read in less than two round trips")
    func autoTuning() throws {
        let end = StreamEnd(.server, local: .streams(data: 96_000, streamData: 64_000))
        end.rtt = .milliseconds(50)
        var offset: UInt64 = 0
        var updates = 0
        var reads = 0
        /// One window in pieces of 1,000 bytes, each read at once, over the given time.
        func transfer(bytes: UInt64, over time: Nanoseconds) throws {
            for _ in 0..<bytes / 1_000 {
                end.now += time / Int64(bytes / 1_000)
                try end.receive(0, at: offset, [UInt8](repeating: 1, count: 1_000))
                offset += 1_000
                _ = try end.read(.client0)
                reads += 1
                if end.packets().flatMap(\.frames).contains(.maxStreamData(.client0)) { updates += 1 }
            }
        }
        try transfer(bytes: 1_000, over: .milliseconds(1))
        let found = end.table.peek(.client0)
        let stream = try #require(found)
        // Slowly: the window stays.
        try transfer(bytes: 256_000, over: .seconds(4))
        #expect(stream.pointee.receive.window.size == 64_000)
        #expect(updates >= 12 && updates <= 17)
        // A window each round trip: it doubles, and the connection's stays ahead.
        try transfer(bytes: 640_000, over: .milliseconds(500))
        #expect(stream.pointee.receive.window.size >= 256_000)
        #expect(end.table.receiveWindow.size >= stream.pointee.receive.window.size / 2 * 3)
        // Not without bound.
        try transfer(bytes: 60_000_000, over: .milliseconds(50))
        #expect(stream.pointee.receive.window.size == 16 << 20)
        #expect(end.table.receiveWindow.size == 24 << 20)
        #expect(updates < reads / 10)
    }

    @Test("MAX_STREAMS follows the streams that closed, at the latest when few are left")
    func maxStreams() throws {
        let server = StreamEnd(.server, local: .streams(bidirectional: 10, unidirectional: 4))
        let client = StreamEnd(.client, peer: .streams(bidirectional: 10, unidirectional: 4))
        var opened = 0
        for _ in 0..<200 {
            let id = try client.table.open(.unidirectional)
            opened += 1
            try client.write(id, [1, 2, 3], finish: true)
            try client.exchange(with: server)
            #expect(try server.read(id) == ([1, 2, 3], true))
            _ = server.events()
            _ = client.events()
            try client.exchange(with: server)
        }
        #expect(opened == 200)
        #expect(client.table.activeStreamCount == 0 && server.table.activeStreamCount == 0)
        // Never more than the window ahead of what closed.
        #expect(server.table.peerOpenings[1].limit <= 204)
        #expect(server.table.peerOpenings[1].closed == 200)

        // Streams closed before the rest was opened count when the rest is opened.
        var ids = [StreamID]()
        for _ in 0..<4 { ids.append(try client.table.open(.bidirectional)) }
        for id in ids {
            try client.write(id, [1], finish: true)
            try client.exchange(with: server)
            _ = try server.read(id)
            try server.write(id, [], finish: true)
            try client.exchange(with: server)
            _ = try client.read(id)
        }
        _ = (client.events(), server.events())
        try client.exchange(with: server)
        #expect(server.table.activeStreamCount == 0)
        for _ in 0..<6 { try client.write(try client.table.open(.bidirectional), [1]) }
        try client.exchange(with: server)
        _ = try client.table.open(.bidirectional)
    }

    @Test("a thousand streams that opened and closed leave nothing behind")
    func thousandStreams() throws {
        let parameters = TransportParameters.streams(data: 1 << 20, bidirectional: 1_000)
        let client = StreamEnd(.client, local: parameters, peer: parameters)
        let server = StreamEnd(.server, local: parameters, peer: parameters)
        var ids = [StreamID]()
        for _ in 0..<1_000 {
            let id = try client.table.open(.bidirectional)
            try client.write(id, streamBytes(id, count: 300), finish: true)
            ids.append(id)
        }
        #expect(client.table.activeStreamCount == 1_000)
        try client.exchange(with: server)
        #expect(server.table.activeStreamCount == 1_000)
        for event in server.events() {
            guard case .readable(let id) = event else { continue }
            let (bytes, isFinished) = try server.read(id)
            #expect(isFinished && bytes == streamBytes(id, count: 300))
            try server.write(id, bytes, finish: true)
        }
        try client.exchange(with: server)
        for event in client.events() {
            guard case .readable(let id) = event else { continue }
            #expect(try client.read(id).bytes == streamBytes(id, count: 300))
        }
        try client.exchange(with: server)
        for end in [client, server] {
            _ = end.events()
            #expect(end.table.activeStreamCount == 0)
            #expect(end.table.map.slotCount <= 8 && end.table.map.spareCount <= 8)
            #expect(end.table.pool.outstanding == 0)
            // As many as waited to be read at once.
            #expect(end.table.pool.reserve.keptCount <= 1_000)
            end.table.releaseIdleMemory()
            #expect(end.table.map.slotCount == 0 && end.table.map.spareCount == 0)
            #expect(end.table.pool.reserve.keptCount == 0)
            #expect(end.table.isAwaitingPeerData == false)
            #expect(end.table.totals.streamsClosed == 1_000)
        }
        #expect(throws: StreamError.finished(ids[5])) { try client.read(ids[5]) }
        #expect(throws: StreamError.finished(ids[5])) { try client.write(ids[5], [1]) }
    }

    @Test("writable comes once, when the unsent data has fallen below half the mark after having reached it")
    func writable() throws {
        let limits = StreamLimits(sendBufferLimit: 10_000)
        let parameters = TransportParameters.streams()
        let end = StreamEnd(.client, local: parameters, peer: parameters, limits: limits)
        let id = try end.table.open(.bidirectional)
        try end.write(id, [UInt8](repeating: 1, count: 9_999))
        _ = end.packets()
        #expect(end.events() == [])
        try end.write(id, [UInt8](repeating: 1, count: 25_000))
        #expect(end.table.sendBuffered(id) == 25_000)
        while end.table.sendBuffered(id) >= 5_000 {
            #expect(end.events() == [])
            _ = end.packet()
        }
        #expect(end.events() == [.writable(id)])
        _ = end.packets()
        #expect(end.events() == [])
    }
}
