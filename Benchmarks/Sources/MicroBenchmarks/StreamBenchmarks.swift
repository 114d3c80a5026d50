// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

private let frameSize = 1_400
/// What the application writes at once, and the room it reads into.
private let chunkSize = 256 * 1_024
private let framesPerChunk = chunkSize / frameSize

/// Streams as packets fill and empty them, with their flow control and events.
extension Harness {
    mutating func measureStreams() throws {
        room = "Streams"
        try measureReceiving("1,400 bytes received in order, read by 256 KiB", order: Array(0..<10))
        // One frame in ten is overtaken by three.
        try measureReceiving(
            "1,400 bytes received, 10 % reordered, read by 256 KiB", order: [0, 1, 2, 3, 5, 6, 7, 4, 8, 9])
        try measureSending("STREAM frame written, chunks of 256 KiB") { sender, watch in
            watch.start()
            try sender.fill()
            sender.writePackets(framesPerChunk)
            watch.stop(after: framesPerChunk)
            sender.acknowledge()
        }
        try measureSending("STREAM frame acknowledged in order") { sender, watch in
            try sender.fill()
            sender.writePackets(framesPerChunk)
            watch.start()
            sender.acknowledge()
            watch.stop(after: framesPerChunk)
        }
        try measureSending("STREAM frame lost and written again, every 10th") { sender, watch in
            try sender.fill()
            sender.writePackets(framesPerChunk)
            watch.start()
            let count = sender.loseAndRewrite(every: 10)
            watch.stop(after: count)
            sender.acknowledge()
        }
    }

    private mutating func measureReceiving(_ name: String, order: [UInt64]) throws {
        var receiver = Receiver()
        // Whole groups of frames for each read.
        let groups = framesPerChunk / order.count
        try measure(name, passes: 50, of: groups * order.count) { passes in
            for _ in 0..<passes {
                for _ in 0..<groups { try receiver.receive(inOrder: order) }
                try receiver.read()
            }
            return receiver.table.totals.bytesRead
        }
    }

    private mutating func measureSending(
        _ name: String, _ body: (inout Sender, inout Stopwatch) throws -> Void
    ) throws {
        var sender = try Sender()
        try measureSections(name, passes: 50) { passes, watch in
            for _ in 0..<passes { try body(&sender, &watch) }
            return sender.table.totals.bytesSent
        }
    }
}

/// A server that one stream of the client's fills.
private struct Receiver: ~Copyable {
    var table: StreamTable
    private var log = SentFrameLog()
    private let id = StreamID(initiator: .client, direction: .unidirectional, ordinal: 0)
    private var offset: UInt64 = 0
    private var now = Instant(nanoseconds: 1_000_000_000)
    private let payload = UnsafeRawBufferPointer(lastingBytes(frameSize))
    private let destination = lastingBytes(chunkSize)
    private let packet = lastingBytes(1_452)

    init() {
        var parameters = TransportParameters()
        parameters.initialMaxData = 4 << 20
        parameters.initialMaxStreamDataUni = 4 << 20
        parameters.initialMaxStreamsUni = 1
        table = StreamTable(role: .server, local: parameters)
    }

    /// Frames that come in that order, each a whole number of frames after the end of the last group.
    mutating func receive(inOrder order: [UInt64]) throws(TransportError) {
        for position in order {
            now += .microseconds(1)
            let frame = StreamFrame(
                id: id, offset: offset &+ position &* UInt64(frameSize),
                data: ByteRange(offset: 20, count: frameSize), isFinal: false)
            try table.receive(frame, bytes: payload, now: now, rtt: .milliseconds(10))
        }
        offset &+= UInt64(order.count * frameSize)
    }

    /// What the application and the next packet do when the stream has become readable.
    mutating func read() throws {
        var isReadable = false
        while let event = table.nextEvent() {
            if case .readable = event { isReadable = true }
        }
        guard isReadable else { throw UnexpectedResult("the stream is not readable") }
        while true {
            let result = try table.read(id, into: destination, now: now, rtt: .milliseconds(10))
            if result.count < destination.count { break }
        }
        guard table.readableBytes(id) == 0 else { throw UnexpectedResult("not all was read") }
        if table.hasControlFramesToSend {
            var span = packet.mutableBytes
            var writer = PacketWriter(&span)
            table.writeControlFrames(into: &writer, log: &log)
            log.removeAll()
        }
    }
}

/// A client that writes one stream, and that no flow control holds back.
private struct Sender: ~Copyable {
    var table: StreamTable
    private let id: StreamID
    private var log = SentFrameLog()
    private let source = SharedBytes(unsafeBytes: UnsafeRawBufferPointer(lastingBytes(chunkSize)), owner: nil)
    private let packet = lastingBytes(frameSize + 16)

    init() throws {
        table = StreamTable(role: .client, local: TransportParameters())
        var parameters = TransportParameters()
        parameters.initialMaxData = Varint.maximum
        parameters.initialMaxStreamDataUni = Varint.maximum
        parameters.initialMaxStreamsUni = 1
        table.setPeerParameters(parameters)
        while table.nextEvent() != nil {}
        id = try table.open(.unidirectional)
    }

    /// Writes until the stream holds as much as an application should write.
    mutating func fill() throws(StreamError) {
        while table.sendBuffered(id) < table.limits.sendBufferLimit {
            try table.write(source, to: id, finish: false)
        }
    }

    mutating func writePackets(_ count: Int) {
        for _ in 0..<count {
            var span = packet.mutableBytes
            var writer = PacketWriter(&span)
            table.writeStreamFrames(into: &writer, log: &log)
        }
    }

    /// The peer acknowledges all that is in flight.
    mutating func acknowledge() {
        for index in 0..<log.count { table.acknowledged(log[index]) }
        log.removeAll()
        while table.nextEvent() != nil {}
    }

    /// Takes every so many packets for lost and writes what they carried again. Returns how many frames that were.
    mutating func loseAndRewrite(every period: Int) -> Int {
        let first = log.count
        for index in stride(from: 0, to: first, by: period) { table.lost(log[index]) }
        let lost = (first + period - 1) / period
        writePackets(lost)
        return lost
    }
}
