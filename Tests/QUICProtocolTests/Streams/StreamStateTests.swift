// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// The rules of RFC 9000, sections 2 to 4, one by one.
@Suite struct StreamStateTests {
    /// The error that a call must throw.
    private func transportError(_ body: () throws -> Void) -> TransportErrorCode? {
        do {
            try body()
            return nil
        } catch let error as TransportError {
            #expect(error.frameType != nil)
            return error.code
        } catch {
            return nil
        }
    }

    // MARK: Which streams a frame may name (section 19)

    @Test("frames for the receiving part of a stream that only we send on are STREAM_STATE_ERROR")
    func receiveOnSendOnly() throws {
        let end = StreamEnd(.client)
        _ = try end.table.open(.unidirectional)
        #expect(transportError { try end.receive(2, [1]) } == .streamStateError)
        #expect(transportError { try end.receiveReset(2, finalSize: 0) } == .streamStateError)
        #expect(transportError { try end.table.receiveStreamDataBlocked(.clientUni0, at: 0) } == .streamStateError)
    }

    @Test("frames for the sending part of a stream that only the peer sends on are STREAM_STATE_ERROR")
    func sendOnReceiveOnly() throws {
        let end = StreamEnd(.client)
        #expect(transportError { try end.receiveStop(3) } == .streamStateError)
        #expect(transportError { try end.table.receiveMaxStreamData(.serverUni0, 5) } == .streamStateError)
    }

    @Test("frames for a stream of ours that was not opened are STREAM_STATE_ERROR")
    func unopenedLocal() throws {
        let end = StreamEnd(.server)
        #expect(transportError { try end.receive(1, [1]) } == .streamStateError)
        #expect(transportError { try end.receiveReset(1, finalSize: 0) } == .streamStateError)
        #expect(transportError { try end.receiveStop(1) } == .streamStateError)
        #expect(transportError { try end.table.receiveMaxStreamData(.server0, 5) } == .streamStateError)
        #expect(transportError { try end.table.receiveStreamDataBlocked(.server0, at: 0) } == .streamStateError)
        #expect(transportError { try end.receiveStop(3) } == .streamStateError)
        _ = try end.table.open(.bidirectional)
        try end.receive(1, [1])
    }

    @Test("a stream beyond the limit is STREAM_LIMIT_ERROR, the last within it is not")
    func streamLimit() throws {
        let end = StreamEnd(.server, local: .streams(bidirectional: 3, unidirectional: 2))
        try end.receive(8, [1])
        #expect(transportError { try end.receive(12, [1]) } == .streamLimitError)
        try end.receive(6, [1])
        #expect(transportError { try end.receiveReset(10, finalSize: 0) } == .streamLimitError)
        #expect(transportError { try end.table.receiveStreamDataBlocked(StreamID(rawValue: .max >> 2), at: 0) } != nil)
        #expect(transportError { try end.receiveStop(12) } == .streamLimitError)
    }

    @Test("opening a stream opens all lower ones of its kind, in order and without objects for them")
    func opensLower() throws {
        let end = StreamEnd(.server)
        try end.receive(4 * 50, [1])
        #expect(end.table.activeStreamCount == 51)
        #expect(end.table.map.count == 1)
        #expect(end.table.totals.streamsAccepted == 51)
        var events = end.events()
        let opened = (0...50).map {
            StreamEvent.opened(StreamID(initiator: .client, direction: .bidirectional, ordinal: $0))
        }
        #expect(Array(events.prefix(51)) == opened)
        #expect(Array(events.dropFirst(51)) == [.readable(StreamID(rawValue: 200))])
        // A lower one may be written at once, and be received on.
        try end.write(StreamID(rawValue: 4), [1, 2])
        try end.receive(8, [3])
        #expect(end.table.map.count == 3)
        #expect(end.table.activeStreamCount == 51)
        events = end.events()
        #expect(events == [.readable(StreamID(rawValue: 8))])
        #expect(try end.read(StreamID(rawValue: 12)).bytes == [])
        #expect(throws: StreamError.unknownStream(StreamID(rawValue: 204))) { try end.read(StreamID(rawValue: 204)) }
    }

    @Test("MAX_STREAM_DATA and STOP_SENDING open a bidirectional stream of the peer's (section 3.2)")
    func openedByControl() throws {
        let end = StreamEnd(.server)
        try end.table.receiveMaxStreamData(.client0, 5)
        #expect(end.events() == [.opened(.client0)])
        try end.receiveStop(4)
        let second = StreamID(rawValue: 4)
        #expect(end.events() == [.opened(second), .stopped(second, code: 9)])
        #expect(throws: StreamError.stoppedByPeer(code: 9)) { try end.write(second, [1]) }
    }

    // MARK: Final size (section 4.5)

    @Test("a final size that changes is FINAL_SIZE_ERROR")
    func finalSizeChanges() throws {
        for change in 0..<6 {
            let end = StreamEnd(.server)
            try end.receive(0, at: 4, [1, 2], isFinal: true)
            let code = transportError {
                switch change {
                case 0: try end.receive(0, at: 0, [1], isFinal: true)
                case 1: try end.receive(0, at: 6, [1], isFinal: false)
                case 2: try end.receive(0, at: 7, [], isFinal: true)
                case 3: try end.receiveReset(0, finalSize: 5)
                case 4: try end.receiveReset(0, finalSize: 7)
                default: try end.receive(0, at: 0, [1, 2, 3, 4, 5, 6, 7])
                }
            }
            #expect(code == .finalSizeError, "change \(change)")
        }
    }

    @Test("a final size below data already received is FINAL_SIZE_ERROR")
    func finalSizeTooSmall() throws {
        let end = StreamEnd(.server)
        try end.receive(0, at: 10, [1])
        #expect(transportError { try end.receive(0, at: 10, [], isFinal: true) } == .finalSizeError)
        #expect(transportError { try end.receiveReset(0, finalSize: 10) } == .finalSizeError)
        try end.receive(0, at: 11, [], isFinal: true)
    }

    @Test("the final size stays checked after a reset while the stream lives")
    func finalSizeAfterReset() throws {
        let end = StreamEnd(.server)
        try end.receiveReset(0, finalSize: 5)
        #expect(transportError { try end.receive(0, at: 5, [1]) } == .finalSizeError)
        #expect(transportError { try end.receiveReset(0, finalSize: 6) } == .finalSizeError)
        try end.receive(0, at: 0, [1, 2, 3])
        try end.receiveReset(0, finalSize: 5)
    }

    // MARK: Flow control (section 4.1)

    @Test("data beyond the stream's limit is FLOW_CONTROL_ERROR, data up to it is not")
    func streamFlowControl() throws {
        let end = StreamEnd(.server, local: .streams(data: 1_000, streamData: 10))
        try end.receive(0, at: 8, [1, 2])
        #expect(transportError { try end.receive(0, at: 10, [1]) } == .flowControlError)
        #expect(transportError { try end.receiveReset(4, finalSize: 11) } == .flowControlError)
        #expect(transportError { try end.receive(8, at: (1 << 62) - 2, [1]) } == .flowControlError)
    }

    @Test("data beyond the connection's limit is FLOW_CONTROL_ERROR, gaps count and repeats do not")
    func connectionFlowControl() throws {
        let end = StreamEnd(.server, local: .streams(data: 20, streamData: 15))
        try end.receive(0, at: 9, [1])
        try end.receive(0, at: 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        try end.receive(4, at: 9, [1])
        #expect(transportError { try end.receive(4, at: 10, [1]) } == .flowControlError)
        #expect(transportError { try end.receiveReset(8, finalSize: 1) } == .flowControlError)
        try end.receive(4, at: 0, [1, 2])
    }

    @Test("a peer that leaves more gaps than the limit is cut off")
    func tooManyGaps() throws {
        let end = StreamEnd(.server)
        var code: TransportErrorCode?
        var sent: UInt64 = 0
        while code == nil, sent < 10_000 {
            sent += 1
            code = transportError { try end.receive(0, at: sent * 2, [1]) }
        }
        #expect(code == .protocolViolation)
        #expect(sent == 1_024 + (256 << 10) / 4_096 + 1)
    }

    // MARK: Receiving

    @Test("the end may come alone, before data, or with data that was received before")
    func finalFrames() throws {
        let end = StreamEnd(.server)
        try end.receive(0, [1, 2])
        #expect(try end.read(.client0) == ([1, 2], false))
        _ = end.events()
        try end.receive(0, at: 2, [], isFinal: true)
        #expect(end.events() == [.readable(.client0)])
        #expect(try end.read(.client0) == ([], true))
        #expect(throws: StreamError.finished(.client0)) { try end.read(.client0) }

        try end.receive(4, at: 3, [], isFinal: true)
        _ = end.events()
        try end.receive(4, at: 1, [2, 3])
        #expect(end.events() == [])
        try end.receive(4, at: 0, [1, 2, 3], isFinal: true)
        #expect(try end.read(StreamID(rawValue: 4)) == ([1, 2, 3], true))

        try end.receive(8, [1])
        try end.receive(8, [1], isFinal: true)
        #expect(try end.read(StreamID(rawValue: 8)) == ([1], true))
    }

    @Test("a reset drops what was not read, is reported by a read, and the bytes are credited to the connection")
    func resetReceived() throws {
        let end = StreamEnd(.server, local: .streams(data: 100, streamData: 90))
        try end.receive(2, [UInt8](repeating: 5, count: 50))
        _ = try end.read(.clientUni0, atMost: 10)
        try end.receiveReset(2, code: 77, finalSize: 80)
        #expect(end.table.readableBytes(.clientUni0) == 0)
        #expect(end.table.receiveWindow.consumed == 80)
        #expect(end.events() == [.opened(.clientUni0), .readable(.clientUni0)])
        #expect(throws: StreamError.resetByPeer(code: 77)) { try end.read(.clientUni0) }
        #expect(end.table.activeStreamCount == 0)
        #expect(end.table.pool.outstanding == 0)
        // Late frames are ignored, whatever they say.
        try end.receive(2, at: 0, [1])
        try end.receiveReset(2, finalSize: 99)
        #expect(end.table.received == 80)
        let frames = try end.packets().flatMap { try StreamEnd.frames($0.payload) }
        #expect(frames.contains { if case .maxData(180) = $0 { true } else { false } })
    }

    @Test("a reset after all data arrived is ignored: the data is delivered")
    func resetAfterAllData() throws {
        let end = StreamEnd(.server)
        try end.receive(2, [1, 2, 3], isFinal: true)
        try end.receiveReset(2, finalSize: 3)
        #expect(try end.read(.clientUni0) == ([1, 2, 3], true))
    }

    @Test("a stopped stream drops and credits what arrives, until its final size is known")
    func stopSending() throws {
        let end = StreamEnd(.server, local: .streams(data: 1_000, streamData: 900))
        try end.receive(2, [UInt8](repeating: 5, count: 300))
        try end.table.stopSending(.clientUni0, code: 5)
        #expect(end.table.pool.outstanding == 0)
        #expect(end.table.receiveWindow.consumed == 300)
        let packets = end.packets()
        #expect(packets.flatMap(\.frames).contains(.stopSending(.clientUni0)))
        #expect(throws: StreamError.stoppedLocally) { try end.read(.clientUni0) }
        // Asking twice sends once; losing it sends it again.
        try end.table.stopSending(.clientUni0, code: 6)
        #expect(!end.packets().flatMap(\.frames).contains(.stopSending(.clientUni0)))
        end.lose(packets)
        let again = try end.packets().flatMap { try StreamEnd.frames($0.payload) }
        #expect(
            again.contains { if case .stopSending(let frame) = $0 { frame.applicationErrorCode == 5 } else { false } })
        try end.receive(2, at: 500, [1])
        #expect(end.table.receiveWindow.consumed == 501)
        #expect(end.table.pool.outstanding == 0)
        try end.receiveReset(2, finalSize: 600)
        #expect(end.table.receiveWindow.consumed == 600)
        #expect(end.events() == [.opened(.clientUni0)])
        #expect(end.table.activeStreamCount == 0)
        end.lose(packets)
        #expect(!end.packets().flatMap(\.frames).contains(.stopSending(.clientUni0)))
    }

    // MARK: Sending

    @Test("STOP_SENDING resets the stream with the same code, once, and the final size is what was sent")
    func stopped() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.unidirectional)
        try end.write(id, [UInt8](repeating: 1, count: 2_000))
        let first = try #require(end.packet())
        let sentCount = try #require(try StreamEnd.streamFrames(first.payload).first).data.count
        try end.receiveStop(id.rawValue, code: 33)
        try end.receiveStop(id.rawValue, code: 34)
        #expect(end.events() == [.stopped(id, code: 33)])
        let reset = try #require(end.packet())
        #expect(reset.frames == [.resetStream(id)])
        guard case .resetStream(let frame) = try #require(try StreamEnd.frames(reset.payload).first) else {
            Issue.record("no RESET_STREAM")
            return
        }
        #expect(frame == ResetStreamFrame(id: id, applicationErrorCode: 33, finalSize: UInt64(sentCount)))
        // Lost data of a reset stream stays lost; the lost reset does not.
        end.lose([first])
        #expect(end.packet() == nil)
        end.lose([reset])
        #expect(end.packet()?.frames == [.resetStream(id)])
        #expect(throws: StreamError.stoppedByPeer(code: 33)) { try end.write(id, [1]) }
        end.acknowledge([reset])
        #expect(end.table.activeStreamCount == 0)
        #expect(throws: StreamError.finished(id)) { try end.write(id, [1]) }
    }

    @Test("a reset drops the data, and no STREAM frame follows it")
    func resetSent() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.bidirectional)
        try end.write(id, [1, 2, 3], finish: true)
        try end.table.reset(id, code: 4)
        try end.table.reset(id, code: 5)
        #expect(end.table.sendBuffered(id) == 0)
        let packet = try #require(end.packet())
        #expect(packet.frames == [.resetStream(id)])
        #expect(throws: StreamError.resetLocally) { try end.write(id, [1]) }
        end.acknowledge([packet])
        #expect(end.events() == [])
        // The other direction lives on.
        #expect(end.table.activeStreamCount == 1)
        try end.receive(id.rawValue, [9], isFinal: true)
        #expect(try end.read(id) == ([9], true))
        #expect(end.table.activeStreamCount == 0)
    }

    @Test("sendClosed comes when data and end are acknowledged, whatever the order")
    func sendClosed() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.unidirectional)
        try end.write(id, [UInt8](repeating: 1, count: 3_000))
        try end.write(id, [], finish: true)
        #expect(throws: StreamError.finished(id)) { try end.write(id, [1]) }
        let packets = end.packets()
        #expect(packets.count == 3)
        end.acknowledge([packets[2]])
        end.acknowledge([packets[0]])
        #expect(end.events() == [])
        end.acknowledge([packets[1]])
        #expect(end.table.activeStreamCount == 1)
        #expect(end.events() == [.sendClosed(id)])
        #expect(end.table.activeStreamCount == 0)
        // Nothing of it is found any more.
        end.lose(packets)
        end.acknowledge(packets)
        #expect(end.packet() == nil)
        try end.table.receiveMaxStreamData(id, 1 << 30)
        try end.receiveStop(id.rawValue)
        #expect(end.events() == [])
    }

    @Test("a lost end alone is sent again alone")
    func lostEnd() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.unidirectional)
        try end.write(id, [1, 2])
        let data = end.packets()
        try end.write(id, [], finish: true)
        let final = end.packets()
        #expect(final.flatMap(\.frames) == [.stream(id: id, offset: 2, length: 0, isFinal: true)])
        end.lose(final)
        #expect(end.table.hasStreamDataToSend == true)
        let again = end.packets()
        #expect(again.flatMap(\.frames) == [.stream(id: id, offset: 2, length: 0, isFinal: true)])
        end.acknowledge(data)
        end.acknowledge(again)
        #expect(end.events() == [.sendClosed(id)])
    }

    // MARK: The application's mistakes

    @Test("calls that cannot be carried out say why")
    func mistakes() throws {
        let end = StreamEnd(.client)
        let never = StreamID(rawValue: 400)
        #expect(throws: StreamError.unknownStream(never)) { try end.write(never, [1]) }
        #expect(throws: StreamError.unknownStream(never)) { try end.table.reset(never, code: 0) }
        #expect(throws: StreamError.unknownStream(never)) { try end.table.stopSending(never, code: 0) }
        let id = try end.table.open(.unidirectional)
        #expect(throws: StreamError.notReadable(id)) { try end.read(id) }
        #expect(throws: StreamError.notReadable(id)) { try end.table.stopSending(id, code: 0) }
        try end.receive(3, [1])
        #expect(throws: StreamError.notWritable(.serverUni0)) { try end.write(.serverUni0, [1]) }
        #expect(throws: StreamError.notWritable(.serverUni0)) { try end.table.reset(.serverUni0, code: 0) }
        #expect(end.table.sendBuffered(never) == 0)
        #expect(end.table.readableBytes(never) == 0)
    }

    @Test("after closeAll nothing is left and every call says that the connection is closed")
    func closeAll() throws {
        let end = StreamEnd(.client)
        let id = try end.table.open(.bidirectional)
        try end.write(id, [UInt8](repeating: 1, count: 5_000))
        let packets = end.packets()
        try end.receive(id.rawValue, at: 20, [1, 2])
        try end.receive(5, [1, 2])
        end.table.closeAll()
        #expect(end.table.activeStreamCount == 0)
        #expect(end.table.isAwaitingPeerData == false)
        #expect(end.table.pool.outstanding == 0)
        #expect(end.packet() == nil)
        #expect(end.events() == [])
        #expect(throws: StreamError.connectionClosed) { try end.write(id, [1]) }
        #expect(throws: StreamError.connectionClosed) { try end.read(id) }
        #expect(throws: StreamError.connectionClosed) { try end.table.open(.bidirectional) }
        #expect(throws: StreamError.connectionClosed) { try end.table.reset(id, code: 0) }
        end.lose(packets)
        end.acknowledge(packets)
        try end.receive(9, [1])
        try end.receive(id.rawValue, [1])
        #expect(end.packet() == nil)
        #expect(end.table.activeStreamCount == 0)
    }
}
