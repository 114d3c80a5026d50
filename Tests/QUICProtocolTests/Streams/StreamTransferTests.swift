// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// Two tables joined by a network that loses, reorders and duplicates, and by a loss detection that is sometimes wrong.
///
/// The applications act on events alone: they read only after `readable` and, once the buffer is full, write only after
/// `writable`. So a lost wake-up or a lost byte ends in a transfer that never completes.
@Suite struct StreamTransferTests {
    /// An application that writes a known content to its streams and reads until the end.
    private final class Application {
        let end: StreamEnd
        let readSize: Int
        let mark: Int
        /// What is still to be written.
        var toWrite: [StreamID: (next: Int, total: Int)] = [:]
        /// Streams written in full whose end comes later, alone.
        var toFinish: [StreamID] = []
        var readSoFar: [StreamID: UInt64] = [:]
        var finished: Set<StreamID> = []
        var resets: Set<StreamID> = []
        var stopped: Set<StreamID> = []
        var sendClosed: Set<StreamID> = []
        var announced: Set<StreamID> = []
        var toOpen: Int
        let sizes: ClosedRange<Int>

        init(_ end: StreamEnd, readSize: Int, mark: Int, streams: Int, sizes: ClosedRange<Int>) {
            self.end = end
            self.readSize = readSize
            self.mark = mark
            self.toOpen = streams
            self.sizes = sizes
        }

        func openStreams(using random: inout RandomSource) throws {
            while toOpen > 0 {
                let direction: StreamDirection = Bool.random(using: &random) ? .bidirectional : .unidirectional
                do {
                    let id = try end.table.open(direction)
                    toOpen -= 1
                    toWrite[id] = (0, Int.random(in: sizes, using: &random))
                    try write(id, using: &random)
                } catch StreamError.limitReached {
                    return
                }
            }
        }

        func write(_ id: StreamID, using random: inout RandomSource) throws {
            guard var state = toWrite[id] else { return }
            while end.table.sendBuffered(id) < mark {
                let count = min(Int.random(in: 0...mark, using: &random), state.total - state.next)
                let bytes = streamBytes(id, from: UInt64(state.next), count: count)
                state.next += count
                let isLast = state.next == state.total
                // The end goes with the last bytes or alone.
                let isAlone = isLast && Bool.random(using: &random)
                try end.write(id, bytes, finish: isLast && !isAlone)
                if isAlone { toFinish.append(id) }
                if isLast {
                    toWrite[id] = nil
                    return
                }
                toWrite[id] = state
            }
        }

        func finishSome(using random: inout RandomSource) throws {
            guard let id = toFinish.last, UInt64.random(in: 0..<10, using: &random) == 0 else { return }
            toFinish.removeLast()
            if !stopped.contains(id) { try end.write(id, [], finish: true) }
        }

        func handleEvents(using random: inout RandomSource) throws {
            try finishSome(using: &random)
            while let event = end.table.nextEvent() {
                switch event {
                case .opened(let id):
                    #expect(announced.insert(id).inserted)
                    guard id.direction == .bidirectional else { break }
                    toWrite[id] = (0, Int.random(in: sizes, using: &random))
                    try write(id, using: &random)
                case .readable(let id): try read(id)
                case .writable(let id): try write(id, using: &random)
                case .sendClosed(let id):
                    #expect(toWrite[id] == nil)
                    #expect(sendClosed.insert(id).inserted)
                case .stopped(let id, let code):
                    #expect(code == 11)
                    #expect(stopped.insert(id).inserted)
                    toWrite[id] = nil
                case .streamsAvailable: try openStreams(using: &random)
                }
            }
        }

        private func read(_ id: StreamID) throws {
            while true {
                do {
                    let (bytes, isFinished) = try end.read(id, atMost: readSize)
                    let offset = readSoFar[id, default: 0]
                    #expect(bytes == streamBytes(id, from: offset, count: bytes.count), "stream \(id) at \(offset)")
                    readSoFar[id] = offset + UInt64(bytes.count)
                    if isFinished {
                        #expect(finished.insert(id).inserted)
                        return
                    }
                    if bytes.count < readSize { return }
                } catch StreamError.resetByPeer(let code) {
                    #expect(code == 11 || code == 12)
                    resets.insert(id)
                    return
                }
            }
        }
    }

    private struct InFlight {
        var at: Int
        var toServer: Bool
        var packet: StreamEnd.Packet
        /// What happens at that time: the packet arrives, its sender hears of it, or takes it for lost.
        enum Kind { case arrival, acknowledgement, loss }
        var kind: Kind
    }

    private static func run(seed: UInt64, lossPercent: UInt64, abandons: Bool) throws {
        var random = RandomSource.seeded(seed)
        // Windows from tight to roomy, so that flow control stops the transfer again and again.
        let streamData = UInt64.random(in: 500...60_000, using: &random)
        let parameters = TransportParameters.streams(
            data: streamData + UInt64.random(in: 0...60_000, using: &random), streamData: streamData,
            bidirectional: UInt64.random(in: 1...8, using: &random),
            unidirectional: UInt64.random(in: 1...8, using: &random))
        let mark = Int.random(in: 1...20_000, using: &random)
        let limits = StreamLimits(
            sendBufferLimit: mark, maximumStreamReceiveWindow: 100_000, maximumConnectionReceiveWindow: 150_000)
        let client = StreamEnd(.client, local: parameters, peer: parameters, limits: limits)
        let server = StreamEnd(.server, local: parameters, peer: parameters, limits: limits)
        let readSize = Int.random(in: 1...9_000, using: &random)
        let applications = [
            Application(client, readSize: readSize, mark: mark, streams: 12, sizes: 0...40_000),
            Application(server, readSize: readSize, mark: mark, streams: 5, sizes: 0...40_000),
        ]
        var network = [InFlight]()
        var time = 0
        for application in applications { try application.openStreams(using: &random) }

        while true {
            time += 1
            client.now = Instant(nanoseconds: Int64(time) * 1_000_000)
            server.now = client.now
            var sent = 0
            for (index, end) in [client, server].enumerated() {
                // A congestion window of sorts.
                var budget = Int.random(in: 0...6, using: &random)
                while budget > 0, let packet = end.packet(size: Int.random(in: 60...1_400, using: &random)) {
                    budget -= 1
                    sent += 1
                    #expect(!packet.payload.isEmpty && !packet.frames.isEmpty)
                    let toServer = index == 0
                    let delay = Int.random(in: 1...20, using: &random)
                    let isLost = UInt64.random(in: 0..<100, using: &random) < lossPercent
                    func add(_ delay: Int, _ kind: InFlight.Kind) {
                        network.append(InFlight(at: time + delay, toServer: toServer, packet: packet, kind: kind))
                    }
                    if isLost {
                        add(delay + 25, .loss)
                        continue
                    }
                    add(delay, .arrival)
                    switch UInt64.random(in: 0..<20, using: &random) {
                    case 0: add(1, .loss)  // Too early: it arrives all the same, and is not heard of.
                    case 1:  // Too early, and then acknowledged.
                        add(1, .loss)
                        add(delay + 3, .acknowledgement)
                    case 2:  // Duplicated by the network.
                        add(delay + 7, .arrival)
                        add(delay + 8, .acknowledgement)
                    default: add(delay + Int.random(in: 1...10, using: &random), .acknowledgement)
                    }
                }
            }
            for item in network where item.at == time {
                let (sender, receiver) = item.toServer ? (client, server) : (server, client)
                switch item.kind {
                case .arrival: try receiver.receive(item.packet.payload)
                case .acknowledgement: sender.acknowledge([item.packet])
                case .loss: sender.lose([item.packet])
                }
            }
            network.removeAll { $0.at <= time }
            if abandons, time % 40 == 0 {
                let application = applications[time / 40 % 2]
                // Abandons what it writes, or has the other side abandon what it reads.
                if let id = application.toWrite.keys.sorted().randomElement(using: &random) {
                    application.toWrite[id] = nil
                    try application.end.table.reset(id, code: 12)
                }
                let reading = application.readSoFar.keys.filter { !application.finished.contains($0) }.sorted()
                if let id = reading.randomElement(using: &random) {
                    try application.end.table.stopSending(id, code: 11)
                }
            }
            for application in applications { try application.handleEvents(using: &random) }
            for end in [client, server] {
                // What windows allow to arrive bounds the memory, however the pieces fall.
                let open = end.table.activeStreamCount
                #expect(end.table.pool.outstanding <= 150_000 / ReceiveBlockPool.blockSize + 2 * open)
                #expect(end.table.sent <= end.table.sendLimit)
            }
            if sent == 0, network.isEmpty, applications.allSatisfy(\.toFinish.isEmpty),
                !client.table.hasStreamDataToSend, !server.table.hasStreamDataToSend,
                !client.table.hasControlFramesToSend, !server.table.hasControlFramesToSend
            {
                break
            }
            guard time < 200_000 else {
                Issue.record("the transfer does not end")
                return
            }
        }

        // Quiet: so everything must be done.
        for (application, other) in [(applications[0], applications[1]), (applications[1], applications[0])] {
            #expect(application.toOpen == 0)
            #expect(application.toWrite.isEmpty)
            let table = application.end
            #expect(table.table.activeStreamCount == 0)
            #expect(table.table.pool.outstanding == 0)
            #expect(table.table.hasEvents == false)
            #expect(table.table.isAwaitingPeerData == false)
            #expect(table.table.sent == other.end.table.received)
            #expect(table.table.receiveWindow.consumed == table.table.received)
            if !abandons {
                #expect(application.sendClosed == other.finished)
                #expect(application.resets.isEmpty)
            }
        }
        if !abandons {
            #expect(applications[0].finished.count + applications[1].finished.count >= 17)
        }
    }

    @Test("bytes and ends arrive exactly, whatever is lost or reordered", arguments: 0..<16 as Range<UInt64>)
    func transfer(seed: UInt64) throws {
        try Self.run(seed: seed, lossPercent: seed % 4 * 12, abandons: false)
    }

    @Test(
        "streams abandoned by either side leave nothing behind, and all credit returns",
        arguments: 100..<116 as Range<UInt64>)
    func abandoned(seed: UInt64) throws {
        try Self.run(seed: seed, lossPercent: seed % 4 * 12, abandons: true)
    }

    @Test("a long transfer holds no more at its end than after its beginning")
    func steadyState() throws {
        let parameters = TransportParameters.streams(data: 200_000, streamData: 128_000)
        let client = StreamEnd(.client, local: parameters, peer: parameters)
        let server = StreamEnd(.server, local: parameters, peer: parameters)
        let id = try client.table.open(.unidirectional)
        var offset: UInt64 = 0
        for _ in 0..<60 {
            try client.write(id, streamBytes(id, from: offset, count: 20_000))
            try client.exchange(with: server)
            var count = 0
            while true {
                let bytes = try server.read(id, atMost: 16_000).bytes
                count += bytes.count
                if bytes.count < 16_000 { break }
            }
            #expect(count == 20_000)
            offset += 20_000
            try client.exchange(with: server)
            #expect(server.table.pool.outstanding == 0)
            #expect(server.table.pool.reserve.keptCount <= ReceiveBlockReserve.alwaysKept)
            #expect(client.table.peek(id)?.pointee.send.buffer.chunkCount == 0)
        }
        #expect(client.table.totals.bytesRetransmitted == 0)
        #expect(server.table.totals.bytesRead == 1_200_000)
        server.table.releaseIdleMemory()
        #expect(server.table.pool.reserve.keptCount == 0)
    }
}
