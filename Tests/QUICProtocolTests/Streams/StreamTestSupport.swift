// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// One end of a connection as far as streams go: packets come out of it and go into it as bare payloads.
final class StreamEnd {
    struct Packet {
        var payload: [UInt8]
        var frames: [SentFrame]
    }

    var table: StreamTable
    private var log = SentFrameLog()
    var now = Instant.zero
    var rtt = Nanoseconds.milliseconds(20)

    init(_ role: Role, local: TransportParameters = .streams(), peer: TransportParameters? = .streams()) {
        table = StreamTable(role: role, local: local)
        if let peer { table.setPeerParameters(peer) }
    }

    init(_ role: Role, local: TransportParameters, peer: TransportParameters?, limits: StreamLimits) {
        table = StreamTable(role: role, local: local, limits: limits)
        if let peer { table.setPeerParameters(peer) }
    }

    /// Control frames first, then stream data; nil if there is nothing to send.
    func packet(size: Int = 1_200) -> Packet? {
        guard table.hasControlFramesToSend || table.hasStreamDataToSend else { return nil }
        var storage = [UInt8](repeating: 0xee, count: size)
        var span = storage.mutableSpan
        var writer = PacketWriter(span.mutableBytes)
        table.writeControlFrames(into: &writer, log: &log)
        if table.hasStreamDataToSend { table.writeStreamFrames(into: &writer, log: &log) }
        #expect(writer.overflowed == false)
        let count = writer.offset
        var frames = [SentFrame]()
        for index in 0..<log.count { frames.append(log[index]) }
        log.removeAll()
        storage.removeLast(size - count)
        return Packet(payload: storage, frames: frames)
    }

    /// All packets that may be sent now.
    func packets(size: Int = 1_200) -> [Packet] {
        var result = [Packet]()
        while let packet = packet(size: size) { result.append(packet) }
        return result
    }

    func receive(_ payload: [UInt8]) throws(TransportError) {
        var parser = FrameParser(payload.span.bytes, payload: 0..<payload.count)
        while let frame = try parser.next() {
            switch frame {
            case .padding: break
            case .stream(let frame):
                let data = Array(payload[frame.data.range])
                try receive(frame.id.rawValue, at: frame.offset, data, isFinal: frame.isFinal)
            case .resetStream(let frame): try table.receive(frame)
            case .stopSending(let frame): try table.receive(frame)
            case .maxData(let maximum): table.receiveMaxData(maximum)
            case .maxStreamData(let id, let maximum): try table.receiveMaxStreamData(id, maximum)
            case .maxStreams(let direction, let maximum): table.receiveMaxStreams(direction, maximum)
            case .streamDataBlocked(let id, let limit): try table.receiveStreamDataBlocked(id, at: limit)
            case .dataBlocked(let limit): table.receiveDataBlocked(at: limit)
            case .streamsBlocked(let direction, let limit): table.receiveStreamsBlocked(direction, at: limit)
            default: Issue.record("unexpected frame \(frame)")
            }
        }
    }

    /// A STREAM frame.
    func receive(
        _ id: UInt64, at offset: UInt64 = 0, _ data: [UInt8] = [], isFinal: Bool = false
    ) throws(TransportError) {
        let frame = StreamFrame(
            id: StreamID(rawValue: id), offset: offset, data: ByteRange(offset: 0, count: data.count), isFinal: isFinal)
        var thrown: TransportError?
        data.withUnsafeBytes { bytes in
            do throws(TransportError) {
                try table.receive(frame, bytes: bytes, now: now, rtt: rtt)
            } catch {
                thrown = error
            }
        }
        if let thrown { throw thrown }
    }

    func receiveReset(_ id: UInt64, code: UInt64 = 7, finalSize: UInt64) throws(TransportError) {
        try table.receive(
            ResetStreamFrame(id: StreamID(rawValue: id), applicationErrorCode: code, finalSize: finalSize))
    }

    func receiveStop(_ id: UInt64, code: UInt64 = 9) throws(TransportError) {
        try table.receive(StopSendingFrame(id: StreamID(rawValue: id), applicationErrorCode: code))
    }

    func write(_ id: StreamID, _ bytes: [UInt8], finish: Bool = false) throws(StreamError) {
        try table.write(SharedBytes(copying: bytes), to: id, finish: finish)
    }

    /// One read.
    func read(_ id: StreamID, atMost count: Int = 65_536) throws(StreamError) -> (bytes: [UInt8], isFinished: Bool) {
        var buffer = [UInt8](repeating: 0, count: count)
        let outcome = buffer.withUnsafeMutableBytes { bytes -> Result<StreamReadResult, StreamError> in
            do throws(StreamError) {
                return .success(try table.read(id, into: bytes, now: now, rtt: rtt))
            } catch {
                return .failure(error)
            }
        }
        let result = try outcome.get()
        buffer.removeLast(count - result.count)
        return (buffer, result.isFinished)
    }

    func events() -> [StreamEvent] {
        var result = [StreamEvent]()
        while let event = table.nextEvent() { result.append(event) }
        return result
    }

    func acknowledge(_ packets: [Packet]) {
        for packet in packets { for frame in packet.frames { table.acknowledged(frame) } }
    }

    func lose(_ packets: [Packet]) {
        for packet in packets { for frame in packet.frames { table.lost(frame) } }
    }

    /// Hands everything over to the other end and back until neither has anything to send. Nothing is lost.
    func exchange(with other: StreamEnd) throws {
        while true {
            let mine = packets()
            let theirs = other.packets()
            if mine.isEmpty && theirs.isEmpty { return }
            for packet in mine { try other.receive(packet.payload) }
            for packet in theirs { try receive(packet.payload) }
            acknowledge(mine)
            other.acknowledge(theirs)
        }
    }

    /// The frames of a payload.
    static func frames(_ payload: [UInt8]) throws -> [Frame] {
        var parser = FrameParser(payload.span.bytes, payload: 0..<payload.count)
        var result = [Frame]()
        while let frame = try parser.next() { result.append(frame) }
        return result
    }

    static func streamFrames(_ payload: [UInt8]) throws -> [StreamFrame] {
        try frames(payload).compactMap { if case .stream(let frame) = $0 { frame } else { nil } }
    }
}

extension TransportParameters {
    static func streams(
        data: UInt64 = 1 << 20, streamData: UInt64 = 256 << 10, bidirectional: UInt64 = 100,
        unidirectional: UInt64 = 100
    ) -> TransportParameters {
        var parameters = TransportParameters()
        parameters.initialMaxData = data
        parameters.initialMaxStreamDataBidiLocal = streamData
        parameters.initialMaxStreamDataBidiRemote = streamData
        parameters.initialMaxStreamDataUni = streamData
        parameters.initialMaxStreamsBidi = bidirectional
        parameters.initialMaxStreamsUni = unidirectional
        return parameters
    }
}

/// The byte at an offset of a stream: different streams and different offsets give different bytes.
func streamByte(_ id: StreamID, _ offset: UInt64) -> UInt8 {
    UInt8(truncatingIfNeeded: ((offset &+ id.rawValue &* 0x1_0001) &* 0x9e37_79b9_7f4a_7c15) >> 40)
}

func streamBytes(_ id: StreamID, from offset: UInt64 = 0, count: Int) -> [UInt8] {
    (0..<UInt64(count)).map { streamByte(id, offset + $0) }
}

extension StreamID {
    /// The first streams of each kind.
    static let client0 = StreamID(rawValue: 0)
    static let server0 = StreamID(rawValue: 1)
    static let clientUni0 = StreamID(rawValue: 2)
    static let serverUni0 = StreamID(rawValue: 3)
}
