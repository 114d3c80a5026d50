// SPDX-License-Identifier: Apache-2.0

/// All streams of a connection with their flow control (RFC 9000, sections 2 to 4).
///
/// What comes from the peer is in `StreamTable+Receiving`, what the application asks for in `StreamTable+Application`,
/// what goes into packets and what became of it in `StreamTable+Sending`.
///
/// Streams leave the table as soon as both parts are at their end and the application took the last event. An ID that
/// was opened and is not in the table is closed; frames for it are ignored.
///
/// In a steady transfer a packet allocates nothing, counts no references and, on the stream used last, searches nothing.
struct StreamTable: ~Copyable {
    private let isByAddress = ByAddress()
    let role: Role
    let limits: StreamLimits
    /// Windows that streams start with, as we told the peer.
    private let local: InitialWindows

    var map = StreamMap()
    var pool: ReceiveBlockPool
    /// The stream used last, so that a transfer on one stream finds it without a search.
    private var recent: StreamReference?

    // Streams with something to be done. Each list holds a stream once.
    /// Events that wait for the application.
    var eventful = StreamList(.events)
    /// Control frames to be sent.
    var controlled = StreamList(.control)
    /// Lost data, or a bare end: no flow control holds it back.
    var unmetered = StreamList(.unmetered)
    /// New data that the stream's own limit allows; the connection's may not.
    var fresh = StreamList(.fresh)
    /// Control frames of the connection to be sent.
    var control: ConnectionControlSet = []
    /// Directions in which streams have become available.
    var available: DirectionSet = []

    // Flow control of the connection.
    var receiveWindow: ReceiveWindow
    /// The sum of the highest offsets received.
    var received: UInt64 = 0
    /// The peer's MAX_DATA.
    var sendLimit: UInt64 = 0
    /// The sum of the highest offsets sent.
    var sent: UInt64 = 0
    /// The limit the last DATA_BLOCKED frame reported.
    var blockedAt: UInt64?

    /// Limits that our sending starts with; nil before the handshake told the peer's parameters.
    private(set) var peer: InitialWindows?
    /// By direction.
    var localOpenings = InlineArray<2, LocalOpenings>(repeating: LocalOpenings())
    var peerOpenings: InlineArray<2, PeerOpenings>

    /// Streams in the table whose data the peer has not sent in full.
    var awaitingCount = 0
    private(set) var isClosed = false
    var totals = StreamTotals()

    /// - Parameters:
    ///   - local: what we declare to the peer; it may use the windows and streams given there at once.
    ///   - blocks: the endpoint's.
    init(
        role: Role, local: TransportParameters, limits: StreamLimits = StreamLimits(),
        blocks: ReceiveBlockReserve = ReceiveBlockReserve()
    ) {
        self.role = role
        pool = ReceiveBlockPool(reserve: blocks)
        self.local = InitialWindows(local)
        self.limits = limits
        receiveWindow = ReceiveWindow(initial: local.initialMaxData, maximum: limits.maximumConnectionReceiveWindow)
        peerOpenings = InlineArray<2, PeerOpenings> { index in
            PeerOpenings(limit: index == 0 ? local.initialMaxStreamsBidi : local.initialMaxStreamsUni)
        }
    }

    /// Takes up the peer's limits. May be called again, with the remembered parameters of 0-RTT first: limits only grow.
    mutating func setPeerParameters(_ parameters: TransportParameters) {
        guard !isClosed else { return }
        peer = InitialWindows(parameters)
        sendLimit = max(sendLimit, parameters.initialMaxData)
        receiveMaxStreams(.bidirectional, parameters.initialMaxStreamsBidi)
        receiveMaxStreams(.unidirectional, parameters.initialMaxStreamsUni)
        for slot in 0..<map.slotCount {
            guard let stream = map.stream(atSlot: slot) else { continue }
            stream.pointee.send.raiseLimit(to: initialSendLimit(stream.pointee.id))
            updateSendLists(stream)
        }
        noteConnectionBlocked()
    }

    // MARK: Figures

    /// Streams that are open, those included that the peer opened and nothing was done with yet.
    var activeStreamCount: Int {
        map.count + Int(clamping: peerOpenings[0].untouchedCount + peerOpenings[1].untouchedCount)
    }

    /// Some stream waits for the peer, or an opening for the peer's leave: silence may mean that it is gone.
    var isAwaitingPeerData: Bool {
        awaitingCount > 0 || peerOpenings[0].untouchedCount + peerOpenings[1].untouchedCount > 0
            || localOpenings[0].isBlocked || localOpenings[1].isBlocked
    }

    /// Bytes of the connection's window that the peer left us.
    var sendCredit: UInt64 { sendLimit > sent ? sendLimit - sent : 0 }

    // MARK: Finding streams

    func isLocal(_ id: StreamID) -> Bool { id.initiator == role }

    /// Whether the stream has a sending part: all but the peer's unidirectional ones.
    @inline(__always)
    func hasSendingPart(_ id: StreamID) -> Bool { id.direction == .bidirectional || isLocal(id) }

    @inline(__always)
    func hasReceivingPart(_ id: StreamID) -> Bool { id.direction == .bidirectional || !isLocal(id) }

    /// A stream of the table.
    func peek(_ id: StreamID) -> StreamReference? {
        if let recent, recent.pointee.id == id { return recent }
        return map.find(id)
    }

    /// A stream of the table, to be found without a search the next time.
    @inline(__always)
    mutating func find(_ id: StreamID) -> StreamReference? {
        if let recent, recent.pointee.id == id { return recent }
        guard let stream = map.find(id) else { return nil }
        recent = stream
        return stream
    }

    /// The peer's limit for a new stream of ours, or of its own: its "local" is our "remote".
    private func initialSendLimit(_ id: StreamID) -> UInt64 { peer?.window(of: id, isLocal: !isLocal(id)) ?? 0 }

    /// Puts a stream into the table that is not in it.
    mutating func create(_ id: StreamID) -> StreamReference {
        let send = SendStream(state: hasSendingPart(id) ? .ready : .absent, limit: initialSendLimit(id))
        let receive = ReceiveStream(
            state: hasReceivingPart(id) ? .receiving : .absent,
            initialWindow: local.window(of: id, isLocal: isLocal(id)), maximumWindow: limits.maximumStreamReceiveWindow)
        let stream = map.insert(Stream(id: id, send: send, receive: receive))
        if hasReceivingPart(id) { awaitingCount += 1 }
        recent = stream
        return stream
    }

    /// Takes a stream out of the table if it is at its end and the application took its events.
    ///
    /// The reference must not be used afterwards.
    mutating func removeIfDone(_ stream: StreamReference) {
        guard stream.pointee.isTerminal else { return }
        // There is nothing left to be read or to be written, so nothing left to say about it.
        stream.pointee.events.remove([.readable, .writable])
        guard stream.pointee.events.isEmpty else { return }
        let id = stream.pointee.id
        eventful.remove(stream)
        controlled.remove(stream)
        unmetered.remove(stream)
        fresh.remove(stream)
        stream.pointee.receive.release(pool: &pool)
        if recent == stream { recent = nil }
        map.remove(id)
        totals.streamsClosed &+= 1
        if !isLocal(id) {
            let index = Int(id.direction.rawValue)
            peerOpenings[index].close()
            if peerOpenings[index].isUpdateDue { control.insert(.maxStreams(id.direction)) }
        }
    }

    /// Frees the memory kept for data to come. For a connection that has been silent for some time; the next data
    /// allocates again.
    mutating func releaseIdleMemory() {
        pool.reserve.release()
        map.releaseIdleMemory()
    }

    /// Ends all streams without a word: the connection is over. Frees all memory; later calls throw `connectionClosed` or
    /// do nothing.
    mutating func closeAll() {
        isClosed = true
        eventful.removeAll()
        controlled.removeAll()
        unmetered.removeAll()
        fresh.removeAll()
        control = []
        available = []
        recent = nil
        for slot in 0..<map.slotCount { map.stream(atSlot: slot)?.pointee.receive.release(pool: &pool) }
        map.removeAll()
        awaitingCount = 0
        peerOpenings[0].forgetUntouched()
        peerOpenings[1].forgetUntouched()
    }

    // MARK: Keeping the lists

    /// Brings the lists of streams with data up to date with the stream's state.
    @inline(__always)
    mutating func updateSendLists(_ stream: StreamReference) {
        unmetered.setMembership(stream, stream.pointee.send.hasUnmetered)
        fresh.setMembership(stream, stream.pointee.send.hasFresh)
        if stream.pointee.send.isBlocked { noteStreamBlocked(stream) }
    }

    private mutating func noteStreamBlocked(_ stream: StreamReference) {
        guard peer != nil, stream.pointee.send.takeBlocked() else { return }
        queue(.streamDataBlocked, for: stream)
    }

    /// Has the peer hear that the connection's limit holds data back, once for each limit.
    mutating func noteConnectionBlocked() {
        guard sendCredit == 0, !fresh.isEmpty, blockedAt != sendLimit, peer != nil else { return }
        blockedAt = sendLimit
        control.insert(.dataBlocked)
    }

    mutating func queue(_ frame: StreamControlSet, for stream: StreamReference) {
        stream.pointee.control.insert(frame)
        controlled.append(stream)
    }

    mutating func unqueue(_ frames: StreamControlSet, for stream: StreamReference) {
        stream.pointee.control.remove(frames)
        if stream.pointee.control.isEmpty { controlled.remove(stream) }
    }

    mutating func raise(_ event: StreamEventSet, for stream: StreamReference) {
        stream.pointee.events.insert(event)
        eventful.append(stream)
    }

    /// Credits bytes that were dropped to the connection.
    mutating func creditConnection(_ count: UInt64) {
        if count > 0, receiveWindow.credit(count) { control.insert(.maxData) }
    }
}

/// The initial_max_stream_data parameters of one side (RFC 9000, section 18.2).
struct InitialWindows {
    let bidirectionalLocal: UInt64
    let bidirectionalRemote: UInt64
    let unidirectional: UInt64

    init(_ parameters: TransportParameters) {
        bidirectionalLocal = parameters.initialMaxStreamDataBidiLocal
        bidirectionalRemote = parameters.initialMaxStreamDataBidiRemote
        unidirectional = parameters.initialMaxStreamDataUni
    }

    /// - Parameter isLocal: the side whose parameters these are opened the stream.
    func window(of id: StreamID, isLocal: Bool) -> UInt64 {
        switch id.direction {
        case .unidirectional: unidirectional
        case .bidirectional: isLocal ? bidirectionalLocal : bidirectionalRemote
        }
    }
}

/// Control frames that concern the connection.
struct ConnectionControlSet: OptionSet {
    var rawValue: UInt8

    static let maxData = Self(rawValue: 1)
    static let dataBlocked = Self(rawValue: 2)

    static func maxStreams(_ direction: StreamDirection) -> Self { Self(rawValue: 4 << direction.rawValue) }
    static func streamsBlocked(_ direction: StreamDirection) -> Self { Self(rawValue: 16 << direction.rawValue) }
}

/// A set of stream directions.
struct DirectionSet: OptionSet {
    var rawValue: UInt8

    static func only(_ direction: StreamDirection) -> Self { Self(rawValue: 1 << direction.rawValue) }
}
