// SPDX-License-Identifier: Apache-2.0

/// All connections of one event loop: finds the connection of each datagram by its connection ID, whatever addresses it
/// came from and to, accepts new ones, and answers what belongs to none.
///
/// Sans-I/O like the connections; not for use from several threads.
public final class QUICEndpoint {
    private let configuration: EndpointConfiguration
    private var random: RandomSource
    private var statelessReset: StatelessReset
    private var slots: [Slot] = []
    private var freeSlots: [UInt32] = []
    private var routes: [ConnectionID: ConnectionHandle] = [:]
    private var resetTokens: [StatelessResetToken: ConnectionHandle] = [:]
    /// Clients with zero-length IDs are found by address.
    private var tupleRoutes: [FourTuple: ConnectionHandle] = [:]
    private var response: StatelessResponse?
    private var handshakes = 0
    /// What all connections put data into that waits to be read.
    private let blocks = ReceiveBlockReserve()
    public private(set) var connectionCount = 0

    /// Holds a connection in place: it is large, and cannot be copied.
    private final class Box {
        var connection: QUICConnection
        var countsAsHandshake: Bool
        /// A route that the connection itself does not know of: the client's made-up destination ID. It is kept, so that a
        /// copy of the client's first packet that comes late does not make another connection.
        var firstDestinationID: ConnectionID?
        var tuples: [FourTuple] = []

        init(_ connection: consuming QUICConnection, countsAsHandshake: Bool) {
            self.connection = connection
            self.countsAsHandshake = countsAsHandshake
        }
    }

    private struct Slot {
        var generation: UInt32 = 0
        var box: Box?
    }

    /// - Parameters:
    ///   - random: `.seeded` only in simulations.
    public init(configuration: EndpointConfiguration = EndpointConfiguration(), random: RandomSource = .system) {
        var configuration = configuration
        let length = configuration.connectionIDLength
        configuration.connectionIDLength = length <= 0 ? 0 : min(max(length, 4), ConnectionID.maximumLength)
        self.configuration = configuration
        var random = random
        let key = configuration.statelessResetKey ?? random.bytes(32)
        self.random = random
        self.statelessReset = StatelessReset(key: key, perSecond: configuration.statelessResetsPerSecond)
    }

    /// Starts a connection to `tuple.remote`. Nothing is sent until `transmit` is called on it.
    ///
    /// - Parameters:
    ///   - serverName: the name or IP address that the server's certificate must be for, and for SNI.
    /// - Throws: `internalError` if TLS cannot be set up.
    public func connect(
        over tuple: FourTuple, tls: TLSContext, serverName: String,
        configuration connectionConfiguration: ConnectionConfiguration = ConnectionConfiguration(), now: Instant
    ) throws(TransportError) -> ConnectionHandle {
        // Eight bytes, which no attacker off the path guesses (RFC 9000, section 7.2).
        let remoteID = ConnectionID.random(length: 8, using: &random)
        let localID = makeConnectionID()
        var connection = try QUICConnection(
            role: .client, tuple: tuple, configuration: SharedConfiguration(connectionConfiguration), tls: tls,
            serverName: serverName,
            originalDestinationID: remoteID, remoteID: remoteID, localID: localID,
            localToken: statelessReset.token(of: localID), random: random.split(), blocks: blocks, now: now)
        try connection.startHandshake()
        let handle = insert(Box(connection, countsAsHandshake: false))
        route(localID, to: handle)
        update(handle)
        return handle
    }

    /// Takes in one UDP datagram, which is decrypted in place.
    ///
    /// - Parameters:
    ///   - accepting: how to serve new connections, if the socket listens.
    public func receive(
        _ datagram: inout MutableRawSpan, on tuple: FourTuple, ecn: ECNCodepoint, accepting: ServerConfiguration?,
        now: Instant
    ) -> DatagramOutcome {
        var offset = 0
        let size = datagram.byteCount
        return receive(
            &datagram, from: &offset, segmentSize: size, on: tuple, ecn: ecn, accepting: accepting, now: now)
    }

    /// Takes in the next of several UDP datagrams that the system read as one, and those behind it that are for the same
    /// connection ID: finding the connection is done once for all of them.
    ///
    /// - Parameters:
    ///   - datagrams: all of one size, but for the last, which may be shorter.
    ///   - offset: where the next one starts; moved behind the last that was taken in. Call until it is at the end.
    ///   - segmentSize: the size in bytes, above zero.
    ///   - accepting: how to serve new connections, if the socket listens.
    public func receive(
        _ datagrams: inout MutableRawSpan, from offset: inout Int, segmentSize: Int, on tuple: FourTuple,
        ecn: ECNCodepoint, accepting: ServerConfiguration?, now: Instant
    ) -> DatagramOutcome {
        let start = offset
        offset = min(start + max(segmentSize, 1), datagrams.byteCount)
        guard
            let header = PacketHeader.parse(
                datagrams.bytes.extracting(start..<offset), at: 0,
                shortHeaderConnectionIDLength: configuration.connectionIDLength)
        else { return .dropped }
        if let handle = owner(of: header, tuple: tuple) {
            guard let box = box(of: handle) else { return .dropped }
            if case .short(let short) = header {
                offset = start
                box.connection.receive(
                    &datagrams, from: &offset, segmentSize: segmentSize, for: short.dcid, on: tuple, ecn: ecn, now: now)
            } else {
                var datagram = datagrams._mutatingExtracting(start..<offset)
                box.connection.receive(&datagram, on: tuple, ecn: ecn, now: now)
            }
            update(handle)
            return .connection(handle)
        }
        // What would be answered without a connection, or with a new one, may come from a forged source (M41).
        guard !AddressPolicy.isReflectorPort(tuple.remote.port) else { return .dropped }
        var datagram = datagrams._mutatingExtracting(start..<offset)
        switch header {
        case .short(let short):
            return receiveUnknown(short, datagram: datagram, tuple: tuple, now: now)
        case .long(let long):
            guard let accepting, long.type == .initial, datagram.byteCount >= ConnectionConfiguration.minimumUDPPayload,
                long.dcid.length >= 8
            else { return .dropped }
            return accept(long, datagram: &datagram, tuple: tuple, ecn: ecn, server: accepting, now: now)
        case .unknownVersion(let version, let destination, let source):
            // A client that offers a version we do not speak (RFC 9000, section 6.1).
            guard accepting != nil, datagram.byteCount >= ConnectionConfiguration.minimumUDPPayload else {
                return .dropped
            }
            response = StatelessResponse(
                tuple: tuple,
                bytes: VersionNegotiation.packet(
                    answering: version, destination: destination, source: source, in: datagram.bytes, using: &random))
            return .response
        case .versionNegotiation, .retry:
            return .dropped
        }
    }

    /// The answer to the datagram that `receive` has just returned `.response` for.
    public func takeResponse() -> StatelessResponse? {
        defer { response = nil }
        return response
    }

    /// Runs `body` with a connection, and then brings the routing table up to date.
    ///
    /// - Returns: nil if there is no such connection any more.
    public func withConnection<R, E: Error>(
        _ handle: ConnectionHandle, _ body: (inout QUICConnection) throws(E) -> R
    ) throws(E) -> R? {
        guard let box = box(of: handle) else { return nil }
        defer { update(handle) }
        return try body(&box.connection)
    }

    /// Forgets a connection, whatever its state. Its IDs are answered with stateless resets from now on.
    public func remove(_ handle: ConnectionHandle) {
        guard let box = box(of: handle) else { return }
        if let id = box.firstDestinationID { unroute(id, from: handle) }
        for id in box.connection.localIDs.allRouted { unroute(id, from: handle) }
        for token in box.connection.remoteIDs.activeTokens where resetTokens[token] == handle {
            resetTokens[token] = nil
        }
        for tuple in box.tuples where tupleRoutes[tuple] == handle { tupleRoutes[tuple] = nil }
        if box.countsAsHandshake { handshakes -= 1 }
        slots[Int(handle.slot)].box = nil
        freeSlots.append(handle.slot)
        connectionCount -= 1
        if connectionCount == 0 { blocks.release() }
    }

    /// Everything that is kept for routing: 0 when no connection is left.
    public var routeCount: Int { routes.count + resetTokens.count + tupleRoutes.count }

    // MARK: Routing

    var connectionIDLength: Int { configuration.connectionIDLength }

    func isRouted(_ id: ConnectionID) -> Bool { routes[id] != nil }

    private func owner(of header: PacketHeader, tuple: FourTuple) -> ConnectionHandle? {
        let id: ConnectionID
        switch header {
        case .short(let short): id = short.dcid
        case .long(let long): id = long.dcid
        case .retry(let retry): id = retry.dcid
        case .versionNegotiation(let negotiation): id = negotiation.dcid
        case .unknownVersion: return nil
        }
        if id.length == 0 { return tupleRoutes[Self.routingKey(tuple)] }
        return routes[id]
    }

    /// A short packet for an ID that we do not know: the reset of a connection of ours, or a packet of one that we forgot.
    private func receiveUnknown(
        _ header: ShortHeader, datagram: borrowing MutableRawSpan, tuple: FourTuple, now: Instant
    ) -> DatagramOutcome {
        let size = datagram.byteCount
        guard size >= StatelessReset.minimumSize else { return .dropped }
        if let token = StatelessResetToken(datagram.bytes, at: size - StatelessResetToken.length),
            let handle = resetTokens[token],
            let box = box(of: handle)
        {
            box.connection.end(.statelessReset, now: now)
            update(handle)
            return .connection(handle)
        }
        guard header.dcid.length > 0,
            let bytes = statelessReset.packet(answering: size, id: header.dcid, random: &random, now: now)
        else { return .dropped }
        response = StatelessResponse(tuple: tuple, bytes: bytes)
        return .response
    }

    private func accept(
        _ header: LongHeader, datagram: inout MutableRawSpan, tuple: FourTuple, ecn: ECNCodepoint,
        server: ServerConfiguration,
        now: Instant
    ) -> DatagramOutcome {
        guard configuration.connectionIDLength > 0, connectionCount < configuration.maximumConnections,
            handshakes < configuration.maximumHandshakes
        else {
            return .dropped
        }
        let localID = makeConnectionID()
        let preferredAddress = makePreferredAddress(of: server, for: tuple, besides: localID)
        let connection: QUICConnection
        do throws(TransportError) {
            connection = try QUICConnection(
                role: .server, tuple: tuple, configuration: server.shared, tls: server.tls, serverName: nil,
                originalDestinationID: header.dcid, remoteID: header.scid, localID: localID,
                localToken: statelessReset.token(of: localID), preferredAddress: preferredAddress,
                random: random.split(), blocks: blocks, now: now)
        } catch {
            return .dropped
        }
        let box = Box(connection, countsAsHandshake: true)
        guard box.connection.receive(&datagram, on: tuple, ecn: ecn, now: now) else {
            // Not one packet could be authenticated: nobody asked for a connection.
            return .dropped
        }
        let handle = insert(box)
        box.firstDestinationID = header.dcid
        route(localID, to: handle)
        route(header.dcid, to: handle)
        if let preferredAddress { route(preferredAddress.connectionID, to: handle) }
        handshakes += 1
        update(handle)
        return .accepted(handle)
    }

    /// What a server announces to a client that came to `tuple.local`, if there is anything (RFC 9000, section 9.6.1).
    private func makePreferredAddress(
        of server: ServerConfiguration, for tuple: FourTuple, besides localID: ConnectionID
    ) -> PreferredAddress? {
        guard let addresses = server.shared.value.preferredAddresses?.announcement(to: tuple.local) else { return nil }
        var id = makeConnectionID()
        while id == localID { id = makeConnectionID() }
        return PreferredAddress(
            ipv4: addresses.ipv4, ipv6: addresses.ipv6, connectionID: id, resetToken: statelessReset.token(of: id))
    }

    private func box(of handle: ConnectionHandle) -> Box? {
        guard slots.indices.contains(Int(handle.slot)), slots[Int(handle.slot)].generation == handle.generation else {
            return nil
        }
        return slots[Int(handle.slot)].box
    }

    private func insert(_ box: Box) -> ConnectionHandle {
        connectionCount += 1
        let slot = freeSlots.popLast() ?? UInt32(slots.count)
        if slot == slots.count { slots.append(Slot()) }
        slots[Int(slot)].generation &+= 1
        slots[Int(slot)].box = box
        return ConnectionHandle(slot: slot, generation: slots[Int(slot)].generation)
    }

    private func route(_ id: ConnectionID, to handle: ConnectionHandle) {
        if id.length > 0 { routes[id] = handle }
    }

    private func unroute(_ id: ConnectionID, from handle: ConnectionHandle) {
        if routes[id] == handle { routes[id] = nil }
    }

    private func makeConnectionID() -> ConnectionID {
        guard configuration.connectionIDLength > 0 else { return .empty }
        var id: ConnectionID
        repeat {
            id = ConnectionID.random(length: configuration.connectionIDLength, using: &random)
        } while routes[id] != nil
        return id
    }

    /// Carries out what a call left to be done to the routing table, and issues the IDs that the peer may still hold.
    private func update(_ handle: ConnectionHandle) {
        guard let box = box(of: handle) else { return }
        if !box.connection.routingChanges.isEmpty {
            for change in box.connection.routingChanges {
                switch change {
                case .removeID(let id): unroute(id, from: handle)
                case .addToken(let token): resetTokens[token] = handle
                case .removeToken(let token): if resetTokens[token] == handle { resetTokens[token] = nil }
                }
            }
            box.connection.routingChanges.removeAll(keepingCapacity: true)
        }
        if configuration.connectionIDLength == 0 { updateTuples(of: box, handle: handle) }
        guard box.connection.isHandshakeComplete, box.connection.isOpen() else { return }
        if box.countsAsHandshake {
            box.countsAsHandshake = false
            handshakes -= 1
        }
        while box.connection.localIDs.deficit > 0 {
            let id = makeConnectionID()
            box.connection.localIDs.issue(id, resetToken: statelessReset.token(of: id))
            route(id, to: handle)
        }
    }

    /// The local IP address of a wildcard socket is known only once a datagram came; the socket and its port say enough.
    private static func routingKey(_ tuple: FourTuple) -> FourTuple {
        var key = tuple
        key.local = NetworkAddress(ipv4: 0, port: tuple.local.port)
        return key
    }

    private func updateTuples(of box: Box, handle: ConnectionHandle) {
        let tuples = (0..<box.connection.paths.count).map { Self.routingKey(box.connection.paths[$0].tuple) }
        guard tuples != box.tuples else { return }
        for tuple in box.tuples where tupleRoutes[tuple] == handle { tupleRoutes[tuple] = nil }
        for tuple in tuples { tupleRoutes[tuple] = handle }
        box.tuples = tuples
    }
}
