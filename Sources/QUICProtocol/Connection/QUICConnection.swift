// SPDX-License-Identifier: Apache-2.0

import BasicContainers
import DequeModule

/// One QUIC connection as a state machine: it is fed datagrams, deadlines and calls of the application, and yields
/// datagrams, its next deadline and events. It owns no socket, reads no clock and starts no task.
///
/// Not for use from several threads: its driver confines it, with its endpoint, to one event loop.
///
/// The rooms that it composes each have a folder of their own; its own code is in this folder:
/// `Connection+Receive` (datagram to frames), `+Frames` (frames to rooms), `+Acknowledgements` (loss, probe timeouts),
/// `+Transmit` and `+PacketBuilding` (rooms to datagrams), `+Handshake`, `+Timers`, `+Paths` (the application's verbs),
/// `+Migration` (the peer's moves), `+Policy` (the automatic policy's), `+Priorities` (where to go when a socket is
/// lost), `+PreferredAddress`, `+Discovery` (datagram sizes and ECN), `+Streams` and `+Close`.
public struct QUICConnection: ~Copyable {
    public let role: Role
    public internal(set) var state: ConnectionState = .handshaking
    public internal(set) var statistics = ConnectionStatistics()
    /// Why it ended, once it did.
    public internal(set) var closeReason: CloseReason?
    /// The application's verbs are refused (``MigrationPolicy/Mode/disabled``).
    public var isMigrationDisabled: Bool

    private let isByAddress = ByAddress()
    private let sharedConfiguration: SharedConfiguration
    let version: QUICVersion
    var random: RandomSource

    var protection: PacketProtection
    var handshake: HandshakeState
    var tls: TLSSession?
    var crypto = CryptoStreams()
    var spaces = PacketNumberSpaces()
    var streams: StreamTable
    var localIDs: LocalConnectionIDs
    var remoteIDs: RemoteConnectionIDs
    var paths: PathTable
    var preferred: PreferredAddressState
    var closing = ClosingState()
    var timers = TimerState()
    var moves = PeerMoves()
    var ecnReports = ECNReports()
    /// How often the peer is asked to acknowledge.
    var ackFrequency = AckFrequency()

    /// How our ACK delays are to be read (RFC 9000, section 18.2).
    let ackDelayExponent: UInt64
    var peerParameters = TransportParameters()

    /// Events that are not streams' own; those are asked of the stream table.
    var events = Deque<ConnectionEvent>()
    /// What the endpoint must change in its routing table.
    var routingChanges: [RoutingChange] = []
    /// Lent to ACK processing and packet building, so that neither allocates.
    var ackOutcome = AckOutcome()
    var frameLog = SentFrameLog()
    /// The latest instant passed in.
    var clock: Instant

    /// - Parameters:
    ///   - originalDestinationID: the destination of the client's first packet, from which the Initial keys come.
    ///   - remoteID: where our packets go at first.
    ///   - preferredAddress: what a server announces, with an ID that is routed to this connection.
    init(
        role: Role, tuple: FourTuple, configuration sharedConfiguration: SharedConfiguration, tls context: TLSContext,
        serverName: String?,
        originalDestinationID: ConnectionID, remoteID: ConnectionID, localID: ConnectionID,
        localToken: StatelessResetToken, preferredAddress: PreferredAddress? = nil,
        random: RandomSource, blocks: ReceiveBlockReserve, now: Instant
    ) throws(TransportError) {
        let configuration = sharedConfiguration.value
        var random = random
        var parameters = configuration.transportParameters()
        parameters.initialSourceConnectionID = localID
        if role == .server {
            parameters.originalDestinationConnectionID = originalDestinationID
            parameters.statelessResetToken = localToken
            parameters.preferredAddress = preferredAddress
        }
        // Whatever may fail comes first: a value that cannot be copied cannot be half made.
        let session = try TLSSession(
            context: context, role: role, serverName: serverName,
            transportParameters: parameters.encoded(for: role, using: &random))
        var protection = PacketProtection(role: role, version: .v1)
        try protection.installInitialKeys(destinationConnectionID: originalDestinationID)
        protection.keyUpdateInterval = configuration.keyUpdateInterval
        self.role = role
        self.sharedConfiguration = sharedConfiguration
        self.isMigrationDisabled = configuration.migration.mode == .disabled
        self.version = .v1
        self.ackDelayExponent = parameters.ackDelayExponent
        self.clock = now
        self.protection = consume protection
        self.handshake = HandshakeState(originalDestinationID: originalDestinationID, startedAt: now)
        self.tls = consume session
        self.random = random
        self.streams = StreamTable(role: role, local: parameters, limits: configuration.streamLimits, blocks: blocks)
        self.localIDs = LocalConnectionIDs(handshakeID: localID, resetToken: localToken)
        if let preferredAddress {
            localIDs.issueWithPreferredAddress(preferredAddress.connectionID, resetToken: preferredAddress.resetToken)
        }
        self.remoteIDs = RemoteConnectionIDs(
            limit: Int(parameters.activeConnectionIDLimit), initialID: remoteID, path: PathID(0))
        self.paths = PathTable(
            initialTuple: tuple, amplification: AmplificationBudget(isLifted: role == .client),
            congestionControl: configuration.congestionControl, initialRTT: configuration.initialRTT,
            maximumDatagramSize: ConnectionConfiguration.minimumUDPPayload, now: now)
        self.preferred = PreferredAddressState(handshakeAddress: tuple.remote)
        paths.active.destinationID = remoteID
        timers.idleRestartedAt = now
        timers.lastReceivedAt = now
        spaces.application.received.setAckDelay(max: parameters.maxAckDelay)
    }

    /// The client makes its first flight; a server waits for it.
    mutating func startHandshake() throws(TransportError) {
        try tls?.start()
        try drainTLS()
    }

    var configuration: ConnectionConfiguration {
        @inline(__always) _read { yield sharedConfiguration.value }
    }

    public var applicationProtocol: String? { handshake.applicationProtocol }
    public var isHandshakeComplete: Bool { handshake.isComplete }
    public var isHandshakeConfirmed: Bool { handshake.isConfirmed }
    public var peerTransportParameters: TransportParameters? { handshake.hasPeerParameters ? peerParameters : nil }
    /// The ID under which the peer sends to us on the active path: names the connection in tables that people read.
    public var localConnectionID: ConnectionID {
        let current = paths.active.localIDSequence.flatMap { localIDs.id(of: $0) }
        return current ?? localIDs.active.first?.id ?? .empty
    }
    /// The destination of the client's first packet: names the connection in traces.
    public var originalDestinationConnectionID: ConnectionID { handshake.originalDestinationID }

    /// How many paths there have been, those closed since included.
    public var pathsSeen: Int { paths.addedCount }

    /// The next event; nil when there is none for now.
    public mutating func nextEvent() -> ConnectionEvent? {
        if let event = events.popFirst() { return event }
        guard state == .established || state == .handshaking, let event = streams.nextEvent() else { return nil }
        return switch event {
        case .opened(let id): .streamOpened(id)
        case .readable(let id): .streamReadable(id)
        case .writable(let id): .streamWritable(id)
        case .sendClosed(let id): .streamSendClosed(id)
        case .stopped(let id, let code): .streamStopped(id, code: code)
        case .streamsAvailable(let direction): .streamsAvailable(direction)
        }
    }

    /// Starts using new keys, if the last update is over (RFC 9001, section 6). Harmless when it is not.
    public mutating func initiateKeyUpdate() {
        if protection.initiateKeyUpdate() { statistics.keyUpdates += 1 }
    }

    @inline(__always)
    func isOpen() -> Bool { state == .handshaking || state == .established }
}

/// What the endpoint must do to its routing table after a call.
enum RoutingChange {
    case removeID(ConnectionID)
    case addToken(StatelessResetToken)
    case removeToken(StatelessResetToken)
}

/// The three packet number spaces.
///
/// Their accessors and those of `CryptoStreams` are inlined, as a coroutine that is called allocates its frame, and these
/// are called for every packet. The spaces are not in an inline array: to read from one by an index copies all of it.
struct PacketNumberSpaces: ~Copyable {
    /// That of application data comes first; the two of the handshake end as one that is vacant, and a silent connection
    /// has not even that.
    private var spaces: UniqueArray<PacketNumberSpace>
    /// Packets that may be sent beyond the congestion window, because a probe timeout expired (RFC 9002, section 6.2.4).
    private var probeCounts = SIMD4<Int>(repeating: 0)

    init() {
        spaces = UniqueArray(minimumCapacity: PacketNumberSpaceID.allCases.count)
        for id in [PacketNumberSpaceID.application, .handshake, .initial] { spaces.append(PacketNumberSpace(id: id)) }
    }

    subscript(id: PacketNumberSpaceID) -> PacketNumberSpace {
        @inline(__always) _read { yield spaces[index(of: id)] }
        @inline(__always) _modify { yield &spaces[index(of: id)] }
    }

    var initial: PacketNumberSpace {
        @inline(__always) _read { yield spaces[index(of: .initial)] }
        @inline(__always) _modify { yield &spaces[index(of: .initial)] }
    }

    var application: PacketNumberSpace {
        @inline(__always) _read { yield spaces[0] }
        @inline(__always) _modify { yield &spaces[0] }
    }

    @inline(__always)
    private func index(of id: PacketNumberSpaceID) -> Int {
        assert(has(id), "a space of the handshake is used after its end")
        return min(2 - Int(id.rawValue), spaces.count - 1)
    }

    /// Whether there is anything in the space's place. The handshake's spaces, without keys for them, may be gone.
    @inline(__always)
    func has(_ id: PacketNumberSpaceID) -> Bool { id == .application || spaces.count > 1 }

    /// Nothing is sent or acknowledged in a space any more: what is left in its place holds no memory and has no deadlines.
    mutating func vacate(_ id: PacketNumberSpaceID) {
        self[id] = PacketNumberSpace(id: id)
        setProbes(0, in: id)
    }

    var isHandshakeOver: Bool { spaces.count <= 2 }

    /// The handshake's spaces are both vacant for good: one in their place is enough.
    mutating func handshakeIsOver() {
        guard spaces.count > 2 else { return }
        spaces.removeLast()
        spaces.reallocate(capacity: spaces.count)
    }

    /// The same, for good: no packet of the handshake is being taken in any more.
    mutating func releaseIdleMemory() {
        application.releaseIdleMemory()
        guard spaces.count == 2 else { return }
        spaces.removeLast()
        spaces.reallocate(capacity: spaces.count)
    }

    @inline(__always)
    func probes(_ id: PacketNumberSpaceID) -> Int { probeCounts[Int(id.rawValue)] }

    @inline(__always)
    mutating func setProbes(_ count: Int, in id: PacketNumberSpaceID) { probeCounts[Int(id.rawValue)] = count }

    /// Sees to it that the space sends at least one probe.
    mutating func requestProbe(in id: PacketNumberSpaceID) { setProbes(max(1, probes(id)), in: id) }
}

/// The CRYPTO streams of the three levels that have one.
struct CryptoStreams: ~Copyable {
    /// In the order of `PacketNumberSpaces`: the two of the handshake end as one that is empty, and then as none.
    private var streams: UniqueArray<CryptoStream>

    init() {
        streams = UniqueArray(minimumCapacity: PacketNumberSpaceID.allCases.count)
        for _ in PacketNumberSpaceID.allCases { streams.append(CryptoStream()) }
    }

    @inline(__always)
    private func index(of id: PacketNumberSpaceID) -> Int {
        assert(id == .application || streams.count > 1, "a CRYPTO stream of the handshake is used after its end")
        return min(2 - Int(id.rawValue), streams.count - 1)
    }

    /// No packet of the handshake is being taken in any more.
    mutating func releaseIdleMemory() {
        guard streams.count == 2 else { return }
        streams.removeLast()
        streams.reallocate(capacity: streams.count)
    }

    /// Both levels of the handshake are discarded.
    mutating func handshakeIsOver() {
        guard streams.count > 2 else { return }
        streams.removeLast()
        streams.reallocate(capacity: streams.count)
    }

    /// There is none for 0-RTT, which carries no CRYPTO frames (RFC 9000, table 3): the caller has refused them.
    subscript(level: EncryptionLevel) -> CryptoStream {
        @inline(__always) _read { yield streams[index(of: level.space)] }
        @inline(__always) _modify { yield &streams[index(of: level.space)] }
    }

    var initial: CryptoStream {
        @inline(__always) _read { yield streams[index(of: .initial)] }
        @inline(__always) _modify { yield &streams[index(of: .initial)] }
    }

    var oneRTT: CryptoStream {
        @inline(__always) _read { yield streams[0] }
        @inline(__always) _modify { yield &streams[0] }
    }
}
