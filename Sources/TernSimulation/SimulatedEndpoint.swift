// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// What runs on a simulated endpoint: it hears every event of every connection and calls back through `withConnection`.
public protocol SimulatedApplication: AnyObject {
    func handle(_ event: ConnectionEvent, on connection: ConnectionRecord, of endpoint: SimulatedEndpoint)
}

/// A host with one or several interfaces that drives a `QUICEndpoint` as a real binding does: it hands in all datagrams
/// of an instant, then lets every connection concerned transmit, tells its events, and re-arms its deadline.
///
/// On the way it checks what must hold in every run (`Invariants.swift`).
public final class SimulatedEndpoint: DatagramReceiver {
    /// A connection that has more to send in one go has lost its way.
    private static let transmissionLimit = 20_000
    /// The engine is looked into after so many of its turns, and whenever a deadline expired.
    private static let inspectionInterval = 4
    /// What `sendmsg` says without a socket, and for a datagram above the interface's MTU.
    private static let badDescriptor: Int32 = 9
    private static let messageTooLong: Int32 = 90

    public let name: String
    public let network: SimulatedNetwork
    public private(set) var engine: QUICEndpoint
    public private(set) var interfaces: [SimulatedInterface] = []
    /// With it, connections are accepted on every interface.
    public var listening: ServerConfiguration?
    public var application: (any SimulatedApplication)?
    /// Hears every event before the application does. For scripts of scenarios.
    public var onEvent: ((ConnectionEvent, ConnectionRecord) -> Void)?
    /// Every connection since the start, in order of creation.
    public private(set) var connections: [ConnectionRecord] = []
    /// Datagrams that the engine attributed to no connection and did not answer.
    public private(set) var droppedDatagrams = 0
    /// Version negotiations and stateless resets.
    public private(set) var statelessResponses = 0
    /// Whether the invariants are checked: what is sent, and now and then the connection, which takes time in proportion to
    /// what is in flight.
    public var checksInvariants = true
    /// The length of the connection IDs that the peers chose, by which short headers are read here.
    public var peerConnectionIDLength = 8

    private let configuration: EndpointConfiguration
    /// The length of the connection IDs chosen here.
    private var idLength: Int { configuration.connectionIDLength }
    private var recordByHandle: [ConnectionHandle: ConnectionRecord] = [:]
    private var touched: [ConnectionRecord] = []
    private var isFlushScheduled = false
    private var serviceCount = 0
    private var nextPort: UInt16 = 52_000
    private var pendingEvents: [ConnectionEvent] = []
    private let buffer: UnsafeMutableRawBufferPointer

    public init(named name: String, in network: SimulatedNetwork, configuration: EndpointConfiguration = .init()) {
        self.name = name
        self.network = network
        self.configuration = configuration
        engine = QUICEndpoint(configuration: configuration, random: network.makeRandomSource())
        buffer = .allocate(byteCount: 65_536, alignment: 16)
    }

    deinit { buffer.deallocate() }

    // MARK: Interfaces

    /// Adds an interface with a link that is alike in both directions unless `inbound` says otherwise.
    @discardableResult
    public func addInterface(
        at address: NetworkAddress, _ outbound: LinkConditions, inbound: LinkConditions? = nil,
        behind nat: SimulatedNAT? = nil, over router: SimulatedRouter? = nil,
        balancedBy balancer: SimulatedLoadBalancer? = nil
    ) -> SimulatedInterface {
        let interface = network.attach(
            self, named: "\(name)/\(interfaces.count)", at: address, outbound: outbound, inbound: inbound ?? outbound,
            behind: nat, over: router, balancedBy: balancer)
        interfaces.append(interface)
        return interface
    }

    /// Opens another socket on an interface, at a port that was not used before.
    public func openSocket(beside interface: SimulatedInterface) -> SimulatedInterface? {
        nextPort += 1
        guard let socket = network.openSocket(beside: interface, port: nextPort) else { return nil }
        interfaces.append(socket)
        return socket
    }

    /// Closes a socket that `openSocket` made.
    public func closeSocket(_ socket: SimulatedInterface) {
        lose(socket)
        network.forget(socket)
        interfaces.removeAll { $0 === socket }
    }

    /// Closes the interface's socket: all connections hear that the transport is lost.
    public func lose(_ interface: SimulatedInterface) {
        guard interface.isOpen else { return }
        interface.isOpen = false
        network.journal.note("\(interface.name) is lost")
        for record in connections where record.isLive {
            withConnection(record) { $0.transportLost(interface.transport, now: self.network.now) }
        }
    }

    /// Forgets all connections without a word to their peers, as after a crash; same addresses, same configuration.
    public func restart() {
        network.journal.note("\(name) restarts")
        for record in connections { record.isLive = false }
        recordByHandle = [:]
        engine = QUICEndpoint(configuration: configuration, random: network.makeRandomSource())
    }

    // MARK: Calls of the application

    /// Opens a connection from `interface`.
    public func connect(
        to remote: NetworkAddress, over interface: SimulatedInterface, tls: TLSContext, serverName: String,
        configuration: ConnectionConfiguration
    ) throws(TransportError) -> ConnectionRecord {
        let tuple = FourTuple(transport: interface.transport, local: interface.address, remote: remote)
        let handle = try engine.connect(
            over: tuple, tls: tls, serverName: serverName, configuration: configuration, now: network.now)
        let record = adopt(handle, role: .client)
        touch(record)
        return record
    }

    /// Runs `body` with a connection and afterwards lets it transmit. Nil when the connection is gone.
    @discardableResult
    public func withConnection<R>(_ record: ConnectionRecord, _ body: (inout QUICConnection) -> R) -> R? {
        guard record.isLive else { return nil }
        let result: R? = engine.withConnection(record.handle) { connection in body(&connection) }
        touch(record)
        return result
    }

    /// The connections that are not gone.
    public var liveConnections: [ConnectionRecord] { connections.filter(\.isLive) }

    // MARK: The driver

    public func receive(_ datagram: SimulatedDatagram, on interface: SimulatedInterface) {
        let tuple = FourTuple(transport: interface.transport, local: datagram.destination, remote: datagram.source)
        var payload = datagram.payload
        let now = network.now
        let outcome = payload.withUnsafeMutableBytes { bytes in
            var span = MutableRawSpan(_unsafeBytes: bytes)
            return engine.receive(&span, on: tuple, ecn: datagram.ecn, accepting: listening, now: now)
        }
        switch outcome {
        case .connection(let handle):
            guard let record = recordByHandle[handle] else {
                return network.journal.violation("\(name): a datagram went to a connection that was removed")
            }
            noteReceived(datagram, on: record)
        case .accepted(let handle):
            noteReceived(datagram, on: adopt(handle, role: .server))
        case .response:
            respond(to: datagram, on: interface)
        case .dropped:
            droppedDatagrams += 1
            network.journal.note("\(name) drops a datagram of \(datagram.payload.count) B from \(datagram.source)")
        }
    }

    private func noteReceived(_ datagram: SimulatedDatagram, on record: ConnectionRecord) {
        record.books.noteReceived(datagram, idLength: idLength, on: record)
        touch(record)
    }

    private func adopt(_ handle: ConnectionHandle, role: Role) -> ConnectionRecord {
        let record = ConnectionRecord(handle: handle, role: role, openedAt: network.now)
        if recordByHandle.updateValue(record, forKey: handle) != nil {
            network.journal.violation("\(name): a connection handle was used again")
        }
        connections.append(record)
        return record
    }

    private func touch(_ record: ConnectionRecord) {
        guard !record.isTouched, record.isLive else { return }
        record.isTouched = true
        touched.append(record)
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        // After everything else that arrives at this instant: a batch.
        network.scheduler.schedule(at: network.now) { [self] in
            isFlushScheduled = false
            let records = touched
            touched.removeAll(keepingCapacity: true)
            for record in records where record.isLive { service(record, deadlineExpired: false) }
        }
    }

    private func service(_ record: ConnectionRecord, deadlineExpired: Bool) {
        record.isTouched = false
        let now = network.now
        var isClosed = false
        var deadline: Instant?
        serviceCount += 1
        let inspects = checksInvariants && (deadlineExpired || serviceCount % Self.inspectionInterval == 0)
        let isKnown: Void? = engine.withConnection(record.handle) { connection in
            if deadlineExpired { connection.handleDeadline(now: now) }
            // Taking an event may leave something to be sent, as when a closed stream makes room for another.
            transmitAll(of: &connection, record, now: now)
            while let event = connection.nextEvent() {
                take(event, of: connection, record)
                while let event = connection.nextEvent() { take(event, of: connection, record) }
                transmitAll(of: &connection, record, now: now)
            }
            deadline = connection.nextDeadline
            if case .closed = connection.state { isClosed = true }
            if inspects { inspect(&connection, record, deadlineExpired: deadlineExpired, now: now) }
        }
        guard isKnown != nil else {
            record.isLive = false
            return network.journal.violation("\(name): the endpoint lost a connection that was not removed")
        }
        arm(record, deadline)
        let events = pendingEvents
        pendingEvents.removeAll(keepingCapacity: true)
        for event in events {
            network.journal.note("\(name) event \(event)")
            if record.closeReason != nil, case .closed = event {
                network.journal.violation("\(name): a connection closed twice")
            }
            record.note(event, at: now)
            if case .preferredAddressOffered(let addresses) = event { followPreferredAddress(addresses, on: record) }
            onEvent?(event, record)
            application?.handle(event, on: record, of: self)
        }
        guard isClosed else { return }
        if deadline != nil { network.journal.violation("\(name): a connection that is over has a deadline") }
        if record.closeReason == nil {
            network.journal.violation("\(name): a connection is closed and never said why")
        }
        engine.remove(record.handle)
        recordByHandle[record.handle] = nil
        record.isLive = false
        record.removedAt = now
    }

    private func take(_ event: ConnectionEvent, of connection: borrowing QUICConnection, _ record: ConnectionRecord) {
        pendingEvents.append(event)
        guard record.role == .server, case .path(.validated(let path, _, _)) = event,
            let remote = connection.pathSnapshot(path)?.tuple.remote
        else { return }
        record.books.ledgers[remote, default: .init()].isValidated = true
    }

    /// Wakes the connection at its deadline. A wake-up that is pending already and not later is kept: it re-arms itself,
    /// so that a deadline moved by every packet does not leave an action for each.
    private func arm(_ record: ConnectionRecord, _ deadline: Instant?) {
        record.deadline = deadline
        guard let deadline else { return }
        let due = max(deadline, network.now)
        if let wakeAt = record.wakeAt, wakeAt <= due { return }
        record.wakeAt = due
        record.wakeNumber += 1
        let number = record.wakeNumber
        network.scheduler.schedule(at: due) { [self] in
            guard record.isLive, record.wakeNumber == number else { return }
            record.wakeAt = nil
            guard let deadline = record.deadline else { return }
            if deadline > network.now {
                arm(record, deadline)
            } else {
                service(record, deadlineExpired: true)
            }
        }
    }

    private func transmitAll(of connection: inout QUICConnection, _ record: ConnectionRecord, now: Instant) {
        var count = 0
        while true {
            var span = MutableRawSpan(_unsafeBytes: buffer)
            guard let transmission = connection.transmit(into: &span, now: now) else { return }
            count += 1
            guard count <= Self.transmissionLimit, transmission.byteCount > 0,
                transmission.byteCount <= buffer.count, transmission.segmentSize > 0
            else {
                return network.journal.violation("\(name): transmit does not end, or wrote nothing: \(transmission)")
            }
            guard let errno = send(transmission, of: &connection, record) else {
                connection.sendSucceeded(on: transmission.path)
                continue
            }
            record.failedSends += 1
            connection.sendFailed(
                on: transmission.path, errno: errno, segmentSize: transmission.segmentSize, now: now)
        }
    }

    /// Sends a transmission datagram by datagram. Returns the errno of a send that failed; the rest is then not sent.
    private func send(
        _ transmission: Transmission, of connection: inout QUICConnection, _ record: ConnectionRecord
    ) -> Int32? {
        let tuple = transmission.tuple
        guard let interface = interfaces.first(where: { $0.transport == tuple.transport }), interface.isOpen else {
            return Self.badDescriptor
        }
        if !tuple.local.isUnspecified, !tuple.local.hasSameIP(as: interface.address) {
            network.journal.violation("\(name): a datagram for \(tuple) was handed to \(interface.name)")
        }
        var offset = 0
        while offset < transmission.byteCount {
            if let error = interface.sendError { return error }
            let end = min(offset + transmission.segmentSize, transmission.byteCount)
            if let limit = interface.localMaximumPayload, end - offset > limit { return Self.messageTooLong }
            let datagram = SimulatedDatagram(
                source: interface.address, destination: tuple.remote, ecn: transmission.ecn,
                payload: [UInt8](UnsafeRawBufferPointer(rebasing: buffer[offset..<end])))
            offset = end
            record.datagramsSent += 1
            record.bytesSent += datagram.payload.count
            if checksInvariants { checkSent(datagram, of: &connection, record) }
            network.journal.note("\(interface.name) → \(tuple.remote) \(datagram.summary)")
            network.send(datagram, from: interface)
        }
        return nil
    }

    /// Whether a datagram is for a connection here, by its connection ID.
    func owns(_ datagram: SimulatedDatagram) -> Bool { engine.hasRoute(for: datagram.payload) }

    private func respond(to datagram: SimulatedDatagram, on interface: SimulatedInterface) {
        guard let response = engine.takeResponse() else {
            return network.journal.violation("\(name): a response was announced and not there")
        }
        statelessResponses += 1
        if response.bytes.count > 3 * datagram.payload.count
            || !datagram.hasLongHeader && response.bytes.count >= datagram.payload.count
        {
            network.journal.violation(
                "\(name): answered \(datagram.payload.count) bytes with \(response.bytes.count) without a connection")
        }
        network.send(
            SimulatedDatagram(
                source: interface.address, destination: response.tuple.remote, payload: response.bytes),
            from: interface)
    }
}
