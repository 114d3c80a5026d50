// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite struct StreamBufferTests {
    @Test(
        "the range set equals a set of numbers under random insertions and removals", arguments: 0..<20 as Range<UInt64>
    )
    func rangeSet(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        var ranges = OffsetRangeSet()
        var model = Set<UInt64>()
        for _ in 0..<400 {
            let lower = UInt64.random(in: 0..<200, using: &random)
            let upper = lower + UInt64.random(in: 0..<20, using: &random)
            switch UInt64.random(in: 0..<10, using: &random) {
            case 0..<5:
                ranges.insert(lower, upper)
                model.formUnion(lower..<upper)
            case 5..<9:
                ranges.remove(lower, upper)
                model.subtract(lower..<upper)
            default:
                // A run from 0 to `upper` reaches into the set.
                let end = ranges.absorb(from: upper)
                var expected = upper
                while model.contains(expected) { expected += 1 }
                // Ranges below `upper` are swallowed too.
                if let touching = model.filter({ $0 < upper }).max(), touching >= expected { expected = touching + 1 }
                #expect(end == expected)
                model = model.filter { $0 >= end }
            }
            var listed = Set<UInt64>()
            for index in 0..<ranges.count {
                #expect(ranges[index].lower < ranges[index].upper)
                if index > 0 { #expect(ranges[index - 1].upper < ranges[index].lower) }
                listed.formUnion(ranges[index].lower..<ranges[index].upper)
            }
            #expect(listed == model)
            #expect(ranges.contains(lower) == model.contains(lower))
        }
    }

    @Test("the stream map equals a dictionary under random openings and closings", arguments: 0..<10 as Range<UInt64>)
    func map(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        var map = StreamMap()
        var model = Set<UInt64>()
        for step in 0..<2_000 {
            // Grows in the first half, shrinks in the second.
            let id = UInt64.random(in: 0..<600, using: &random) * 4
            if UInt64.random(in: 0..<10, using: &random) < (step < 1_000 ? 7 : 3) {
                if model.insert(id).inserted {
                    let send = SendStream(state: .ready, limit: id)
                    let receive = ReceiveStream(state: .receiving, initialWindow: 1, maximumWindow: 1)
                    _ = map.insert(Stream(id: StreamID(rawValue: id), send: send, receive: receive))
                }
            } else {
                map.remove(StreamID(rawValue: id))
                model.remove(id)
            }
            #expect(map.count == model.count)
            let probe = UInt64.random(in: 0..<600, using: &random) * 4
            #expect((map.find(StreamID(rawValue: probe)) != nil) == model.contains(probe))
        }
        for id in model {
            #expect(map.find(StreamID(rawValue: id))?.pointee.send.limit == id)
            map.remove(StreamID(rawValue: id))
        }
        #expect(map.isEmpty && map.slotCount <= 8 && map.spareCount <= 8)
        map.releaseIdleMemory()
        #expect(map.slotCount == 0 && map.spareCount == 0)
    }

    @Test("a stream in the place of a former one has nothing of it but room")
    func spare() throws {
        var map = StreamMap()
        var pool = ReceiveBlockPool()
        let former = map.insert(
            Stream(
                id: .client0, send: SendStream(state: .ready, limit: 7),
                receive: ReceiveStream(state: .receiving, initialWindow: 9_000, maximumWindow: 9_000)))
        try former.pointee.send.write(SharedBytes(copying: [1, 2, 3]), id: .client0, finish: true, mark: 1)
        _ = try [UInt8](repeating: 1, count: 100).withUnsafeBytes {
            try former.pointee.receive.store($0, at: 0, isFinal: true, now: .zero, pool: &pool)
        }
        former.pointee.events = [.readable]
        former.pointee.control = [.resetStream]
        former.pointee.receive.release(pool: &pool)
        map.remove(.client0)
        #expect(map.spareCount == 1)
        let id = StreamID(rawValue: 4)
        let next = map.insert(
            Stream(
                id: id, send: SendStream(state: .ready, limit: 8),
                receive: ReceiveStream(state: .receiving, initialWindow: 1, maximumWindow: 1)))
        #expect(map.spareCount == 0 && next.pointee.id == id && next.pointee.send.limit == 8)
        #expect(next.pointee.send.state == .ready && next.pointee.send.buffer.written == 0)
        #expect(next.pointee.send.buffer.chunkCount == 0 && next.pointee.send.buffer.unsent == 0)
        #expect(next.pointee.receive.state == .receiving && next.pointee.receive.highest == 0)
        #expect(next.pointee.receive.readable == 0 && next.pointee.receive.finalSize == nil)
        #expect(next.pointee.events.isEmpty && next.pointee.control.isEmpty)
        map.remove(id)
    }

    @Test("the reserve keeps as many blocks as were used at once of late, and lets go of more little by little")
    func reserve() {
        let reserve = ReceiveBlockReserve()
        var pool = ReceiveBlockPool(reserve: reserve)
        func use(_ count: Int) {
            var blocks = [UnsafeMutableRawPointer]()
            for _ in 0..<count { blocks.append(pool.take()) }
            #expect(pool.outstanding == count)
            for block in blocks { pool.give(block) }
        }
        use(300)
        #expect(reserve.keptCount == 300)
        use(200)
        #expect(reserve.keptCount <= 300 && reserve.keptCount >= 200)
        for _ in 0..<100 { use(3) }
        #expect(reserve.keptCount == ReceiveBlockReserve.alwaysKept)
        reserve.release()
        #expect(reserve.keptCount == 0)
    }

    @Test("connections share the reserve, and one that ends with blocks of it leaves no gap in its count")
    func sharedReserve() {
        let reserve = ReceiveBlockReserve()
        do {
            var gone = ReceiveBlockPool(reserve: reserve)
            let block = gone.take()
            // Transfers are in progress.
            reserve.release()
            block.deallocate()
        }
        var first = ReceiveBlockPool(reserve: reserve)
        var second = ReceiveBlockPool(reserve: reserve)
        let block = first.take()
        first.give(block)
        #expect(second.take() == block)
        second.give(block)
        #expect(reserve.keptCount == 1)
        reserve.release()
        #expect(reserve.keptCount == 0)
    }

    @Test("reassembly delivers the stream whatever pieces arrive in whatever order", arguments: 0..<15 as Range<UInt64>)
    func reassembly(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        let size = Int.random(in: 1...70_000, using: &random)
        let id = StreamID(rawValue: seed)
        let content = streamBytes(id, count: size)
        var pool = ReceiveBlockPool()
        var buffer = ReceiveBuffer()
        var arrived = [Bool](repeating: false, count: size)
        var firstGap = 0
        var delivered = [UInt8]()
        let largest = [10, 1_500, 40_000][Int(seed % 3)]
        let window = 50_000
        var steps = 0
        while delivered.count < size {
            steps += 1
            // Within the window, as the caller guarantees; sometimes exactly what is missing, so that it ends.
            let end = min(size, delivered.count + window)
            let start =
                steps % 3 == 0 ? firstGap : Int.random(in: max(0, delivered.count - 2_000)...end, using: &random)
            let count = min(Int.random(in: 0...largest, using: &random), end - min(start, end))
            content.withUnsafeBytes { bytes in
                let piece = UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])
                buffer.insert(piece, at: UInt64(start), pool: &pool)
            }
            for index in start..<start + count { arrived[index] = true }
            while firstGap < size, arrived[firstGap] { firstGap += 1 }
            #expect(buffer.contiguousEnd == UInt64(firstGap))
            #expect(buffer.readable == firstGap - delivered.count)
            #expect(pool.outstanding <= window / ReceiveBlockPool.blockSize + 2)
            if Bool.random(using: &random) {
                var target = [UInt8](repeating: 0, count: Int.random(in: 0...30_000, using: &random))
                let read = target.withUnsafeMutableBytes { buffer.read(into: $0, pool: &pool) }
                #expect(read == min(target.count, firstGap - delivered.count))
                delivered += target[..<read]
            }
        }
        #expect(delivered == content)
        #expect(buffer.gapCount == 0)
        #expect(pool.outstanding == 0)
    }

    @Test("data in order touches no range set and keeps no block once it was read")
    func inOrder() {
        var pool = ReceiveBlockPool()
        var buffer = ReceiveBuffer()
        var target = [UInt8](repeating: 0, count: 4_000)
        for packet in 0..<100 {
            let data = streamBytes(.client0, from: UInt64(packet) * 1_300, count: 1_300)
            data.withUnsafeBytes { buffer.insert($0, at: UInt64(packet) * 1_300, pool: &pool) }
            #expect(buffer.gapCount == 0)
            #expect(pool.outstanding <= 2)
            let count = target.withUnsafeMutableBytes { buffer.read(into: $0, pool: &pool) }
            #expect(Array(target[..<count]) == data)
            #expect(pool.outstanding == 0)
        }
        #expect(pool.reserve.keptCount <= 2)
    }

    @Test(
        "the send buffer sends what was lost and not acknowledged, and keeps no more",
        arguments: 0..<15 as Range<UInt64>)
    func sendBuffer(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        let id = StreamID(rawValue: seed)
        var buffer = SendBuffer()
        // What the model thinks of every byte.
        enum Fate { case unsent, inFlight, lost, acknowledged }
        var fates = [Fate]()
        var sent = [(start: Int, count: Int)]()
        var wire = [UInt8](repeating: 0, count: 5_000)
        for _ in 0..<400 {
            switch UInt64.random(in: 0..<8, using: &random) {
            case 0:
                let count = Int.random(in: 0...900, using: &random)
                buffer.append(SharedBytes(copying: streamBytes(id, from: UInt64(fates.count), count: count)))
                fates += [Fate](repeating: .unsent, count: count)
            case 1..<4:
                let next = Int(buffer.next)
                let count = min(Int.random(in: 1...700, using: &random), Int(buffer.unsent))
                let bytes = write(count, into: &wire) { writer in buffer.writeNext(count, into: &writer) }
                #expect(bytes == streamBytes(id, from: UInt64(next), count: count))
                for index in next..<next + count { fates[index] = .inFlight }
                if count > 0 { sent.append((next, count)) }
            case 4:
                guard let range = buffer.firstLost else { break }
                #expect(range.lower == UInt64(fates.firstIndex(of: .lost) ?? -1))
                let count = min(Int.random(in: 1...700, using: &random), Int(range.count))
                let bytes = write(count, into: &wire) { writer in buffer.writeLost(count, into: &writer) }
                #expect(bytes == streamBytes(id, from: range.lower, count: count))
                let start = Int(range.lower)
                for index in start..<start + count { fates[index] = .inFlight }
                sent.append((start, count))
            default:
                guard let index = sent.indices.randomElement(using: &random) else { break }
                let packet = sent.remove(at: index)
                let isLost = UInt64.random(in: 0..<3, using: &random) == 0
                let upper = UInt64(packet.start + packet.count)
                if isLost {
                    buffer.markLost(UInt64(packet.start), upper)
                    // Sometimes it arrives all the same.
                    if Bool.random(using: &random) { sent.append(packet) }
                } else {
                    buffer.acknowledge(UInt64(packet.start), upper)
                }
                for index in packet.start..<packet.start + packet.count where fates[index] != .acknowledged {
                    fates[index] = isLost ? .lost : .acknowledged
                }
            }
            let firstOpen = fates.firstIndex { $0 != .acknowledged } ?? fates.count
            #expect(buffer.acknowledgedEnd == UInt64(firstOpen))
            #expect(buffer.hasLost == fates.contains(.lost))
            #expect(buffer.isAllAcknowledged == (firstOpen == fates.count))
            if buffer.isAllAcknowledged { #expect(buffer.chunkCount == 0) }
        }
    }

    private func write(
        _ count: Int, into wire: inout [UInt8], _ body: (inout PacketWriter) -> Void
    ) -> [UInt8] {
        var span = wire.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        body(&writer)
        #expect(writer.overflowed == false)
        let written = writer.offset
        #expect(written == count)
        return Array(wire[..<written])
    }

    @Test("written bytes are let go as soon as the peer acknowledged them")
    func letsGo() {
        final class Owner { let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 100, alignment: 1) }
        var buffer = SendBuffer()
        weak var first: Owner?
        weak var second: Owner?
        do {
            let one = Owner()
            let two = Owner()
            (first, second) = (one, two)
            buffer.append(SharedBytes(unsafeBytes: UnsafeRawBufferPointer(one.bytes), owner: one))
            buffer.append(SharedBytes(unsafeBytes: UnsafeRawBufferPointer(two.bytes), owner: two))
        }
        var wire = [UInt8](repeating: 0, count: 200)
        _ = write(200, into: &wire) { buffer.writeNext(200, into: &$0) }
        buffer.acknowledge(100, 200)
        #expect(first != nil && second != nil)
        buffer.acknowledge(0, 99)
        #expect(first != nil)
        buffer.acknowledge(99, 100)
        #expect(first == nil && second == nil)
        #expect(buffer.isAllAcknowledged == true)
    }
}
