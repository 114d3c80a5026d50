// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A scenario while it runs: its hosts, its network, and the means by which a script interferes.
///
/// The server is at 192.0.2.1:4433. The client's first interface is at 192.168.0.2 behind a NAT that is seen as
/// 198.18.0.1 and up, or without one at 203.0.113.2; its other interfaces are at 203.0.113.3 and up.
public final class Testbed {
    public static let serverAddress = NetworkAddress(192, 0, 2, 1, port: 4433)
    /// What `Scenario.offerPreferredAddresses` gives the server besides.
    public static let preferredIPv4 = NetworkAddress(192, 0, 2, 77, port: 4434)
    public static let preferredIPv6 = NetworkAddress(ipv6: 0x2001_0db8_0002_0000, 0x77, port: 4434)
    /// Time for draining, or for a last timeout, after the connection was closed.
    private static let windingUpLimit: Nanoseconds = .seconds(30)

    public let scenario: Scenario
    public let seed: UInt64
    public let network: SimulatedNetwork
    /// The servers behind the server's address, nearly always one.
    public let servers: [SimulatedEndpoint]
    public let client: SimulatedEndpoint
    public let nat: SimulatedNAT?
    public let outerNAT: SimulatedNAT?
    public let router: SimulatedRouter?
    public let transfer: Transfer
    private let services: [PerfService]
    /// For what a script leaves to chance.
    public var random: RandomSource
    private let clientContext: TLSContext
    /// The client's connection, once it was opened.
    public private(set) var connection: ConnectionRecord?
    private var holds = 0
    private var clientHandlers: [(ConnectionEvent) -> Void] = []
    private var serverHandlers: [(ConnectionEvent, ConnectionRecord) -> Void] = []

    init(_ scenario: Scenario, seed: UInt64, trace: ((String) -> Void)?) throws {
        self.scenario = scenario
        self.seed = seed
        let network = SimulatedNetwork(seed: seed)
        network.journal.trace = trace
        self.network = network
        random = network.makeRandomSource()
        let credentials = try scenario.credentials ?? SimulationCredentials.shared.get()
        clientContext = try credentials.clientContext()
        transfer = Transfer(scenario.plans, sendBufferLimit: scenario.client.sendBufferLimit)

        let balancer =
            scenario.serverCount > 1 ? network.makeLoadBalancer(at: Self.serverAddress, scenario.balancing) : nil
        var services: [PerfService] = []
        var servers: [SimulatedEndpoint] = []
        for number in 0..<max(1, scenario.serverCount) {
            let service = PerfService(sendBufferLimit: scenario.server.sendBufferLimit)
            service.thinkTime = scenario.thinkTime
            let server = SimulatedEndpoint(
                named: balancer == nil ? "server" : "server \(number)", in: network,
                configuration: scenario.serverEndpoint)
            server.addInterface(at: Self.serverAddress, scenario.serverAccess, balancedBy: balancer)
            for (address, conditions) in scenario.otherServerAddresses { server.addInterface(at: address, conditions) }
            server.listening = ServerConfiguration(tls: try credentials.serverContext(), connection: scenario.server)
            server.application = service
            server.peerConnectionIDLength = scenario.clientEndpoint.connectionIDLength
            services.append(service)
            servers.append(server)
        }
        self.services = services
        self.servers = servers

        client = SimulatedEndpoint(named: "client", in: network, configuration: scenario.clientEndpoint)
        client.application = transfer
        client.peerConnectionIDLength = scenario.serverEndpoint.connectionIDLength
        let outer = scenario.nat == nil ? nil : scenario.outerNAT
        outerNAT = outer.map { network.makeNAT(at: NetworkAddress(198, 18, 0, 1, port: 0), $0) }
        let carrier = outerNAT
        nat = scenario.nat.map {
            network.makeNAT(
                at: NetworkAddress(carrier == nil ? 198 : 100, carrier == nil ? 18 : 64, 0, 1, port: 0), $0,
                behind: carrier)
        }
        router = scenario.bottleneck.map { network.makeRouter(named: "bottleneck", toCore: $0) }
        client.addInterface(
            at: nat == nil
                ? NetworkAddress(203, 0, 113, 2, port: 50_001) : NetworkAddress(192, 168, 0, 2, port: 50_001),
            scenario.access, inbound: scenario.accessInbound, behind: nat, over: router)
        for (index, conditions) in scenario.otherInterfaces.enumerated() {
            let host = NetworkAddress(203, 0, 113, 3, port: 0).ipv4.map { $0 + UInt32(index) } ?? 0
            client.addInterface(at: NetworkAddress(ipv4: host, port: 50_002 + UInt16(index)), conditions, over: router)
        }
        if let conditions = scenario.clientIPv6 {
            client.addInterface(at: NetworkAddress(ipv6: 0x2001_0db8_0001_0000, 2, port: 50_001), conditions)
        }
        client.onEvent = { [unowned self] event, _ in
            for handler in clientHandlers { handler(event) }
        }
        for server in servers {
            server.onEvent = { [unowned self] event, record in
                for handler in serverHandlers { handler(event, record) }
            }
        }
    }

    /// The server that has the connection; the first as long as none has.
    public var server: SimulatedEndpoint {
        servers.first { $0.connections.contains { $0.handshakeCompletedAt != nil } }
            ?? servers.first { !$0.connections.isEmpty } ?? servers[0]
    }
    /// What runs on that server.
    public var service: PerfService { services[servers.firstIndex { $0 === server } ?? 0] }

    // MARK: For scripts

    public var now: Instant { network.now }
    /// Virtual time since the client's first packet.
    public var elapsed: Nanoseconds { network.scheduler.elapsed }
    /// The server's side of the connection. The newest whose handshake was completed, if there are several.
    public var serverConnection: ConnectionRecord? {
        let connections = server.connections
        return connections.last { $0.handshakeCompletedAt != nil } ?? connections.last
    }

    /// Runs `body` when so much virtual time has passed since the client's first packet.
    public func at(_ time: Nanoseconds, _ body: @escaping () -> Void) {
        network.scheduler.schedule(at: Scheduler.start + time, body)
    }

    /// Runs `body` when so much time has passed from now on.
    public func after(_ delay: Nanoseconds, _ body: @escaping () -> Void) {
        network.scheduler.schedule(after: delay, body)
    }

    /// Hears the client's events before the application does.
    public func onClientEvent(_ handler: @escaping (ConnectionEvent) -> Void) {
        clientHandlers.append(handler)
    }

    public func onServerEvent(_ handler: @escaping (ConnectionEvent, ConnectionRecord) -> Void) {
        serverHandlers.append(handler)
    }

    public func onClientPathEvent(_ handler: @escaping (PathEvent) -> Void) {
        onClientEvent { if case .path(let event) = $0 { handler(event) } }
    }

    public func onServerPathEvent(_ handler: @escaping (PathEvent, ConnectionRecord) -> Void) {
        onServerEvent { if case .path(let event) = $0 { handler(event, $1) } }
    }

    /// Runs `body` once paths may be added.
    public func whenConfirmed(_ body: @escaping () -> Void) {
        onClientEvent { if case .handshakeConfirmed = $0 { body() } }
    }

    /// The run does not end before `release` was called as often as `hold`, even if the transfer is done.
    public func hold() { holds += 1 }
    public func release() { holds -= 1 }

    /// Records a violation unless `condition` holds.
    public func expect(_ condition: Bool, _ otherwise: @autoclosure () -> String) {
        if !condition { network.journal.violation(otherwise()) }
    }

    /// The path the client's data takes.
    public var activePath: PathID? { withClient { $0.activePath } }

    @discardableResult
    public func withClient<R>(_ body: (inout QUICConnection) -> R) -> R? {
        connection.flatMap { client.withConnection($0, body) }
    }

    @discardableResult
    public func withServer<R>(_ body: (inout QUICConnection) -> R) -> R? {
        serverConnection.flatMap { server.withConnection($0, body) }
    }

    public func addPath(
        over interface: SimulatedInterface, to remote: NetworkAddress = Testbed.serverAddress
    ) -> Result<PathID, MigrationError> {
        let tuple = FourTuple(transport: interface.transport, local: interface.address, remote: remote)
        return verb { connection throws(MigrationError) in try connection.addPath(over: tuple) }
    }

    @discardableResult
    public func probe(_ path: PathID, timeout: Nanoseconds = .seconds(3)) -> Result<Void, MigrationError> {
        let now = now
        return verb { connection throws(MigrationError) in try connection.probe(path, timeout: timeout, now: now) }
    }

    @discardableResult
    public func switchPath(to path: PathID, withoutValidation: Bool = false) -> Result<Void, MigrationError> {
        let now = now
        return verb { connection throws(MigrationError) in
            try connection.switchPath(to: path, withoutValidation: withoutValidation, now: now)
        }
    }

    @discardableResult
    public func setPriority(_ priority: PathPriority?, of path: PathID) -> Result<Void, MigrationError> {
        let now = now
        return verb { connection throws(MigrationError) in
            try connection.setPriority(priority, of: path, now: now)
        }
    }

    @discardableResult
    public func closePath(_ path: PathID) -> Result<Void, MigrationError> {
        let now = now
        return verb { connection throws(MigrationError) in try connection.closePath(path, now: now) }
    }

    public func close(_ endpoint: SimulatedEndpoint, code: UInt64 = 0, reason: String = "") {
        let now = now
        for record in endpoint.connections where record.isLive {
            endpoint.withConnection(record) { $0.close(applicationErrorCode: code, reason: reason, now: now) }
        }
    }

    private func verb<R>(
        _ body: (inout QUICConnection) throws(MigrationError) -> R
    ) -> Result<R, MigrationError> {
        let result = withClient { connection -> Result<R, MigrationError> in
            do throws(MigrationError) {
                return .success(try body(&connection))
            } catch {
                return .failure(error)
            }
        }
        return result ?? .failure(.connectionClosed(connection?.closeReason ?? .endpointClosed))
    }

    // MARK: The run

    func run() -> SimulationReport {
        var report = SimulationReport(title: scenario.title, seed: seed)
        scenario.script(self)
        do {
            connection = try client.connect(
                to: Self.serverAddress, over: client.interfaces[0], tls: clientContext,
                serverName: SimulationCredentials.serverName, configuration: scenario.client)
        } catch {
            report.failure = "connect failed: \(error)"
        }
        if report.failure == nil { report.failure = runTransfer() }
        collect(into: &report)
        if report.failure == nil { report.failure = windUp() }
        report.clientCloseReason = connection?.closeReason
        report.serverCloseReason = serverConnection?.closeReason
        report.totalDuration = elapsed
        report.steps = network.scheduler.stepCount
        report.violations = network.journal.violations
        tearDown()
        return report
    }

    private var fault: String? { transfer.fault ?? services.lazy.compactMap(\.fault).first }

    private var isTransferOver: Bool {
        if fault != nil { return true }
        if scenario.ending == .script { return connection?.closeReason != nil }
        return connection?.closeReason != nil || transfer.isFinished && holds <= 0
    }

    /// Runs until the transfer is done. Returns why it was not.
    private func runTransfer() -> String? {
        let outcome = network.scheduler.run(until: Scheduler.start + scenario.timeLimit) { !isTransferOver }
        if let fault { return fault }
        let state = "\(transfer.progress), close reason: \(connection?.closeReason.map { "\($0)" } ?? "none")"
        switch outcome {
        case .timeLimit: return "not done within \(scenario.timeLimit): \(state)"
        case .nothingLeft: return "everything is asleep for good after \(elapsed): \(state)"
        case .stuck: return "an endless loop at \(elapsed): \(state)"
        case .finished: break
        }
        guard scenario.ending != .script else { return nil }
        guard transfer.isFinished, connection?.closeReason == nil else { return "closed early: \(state)" }
        guard service.uploadedBytes == transfer.plannedUpload, service.finishedUploads == transfer.plans.count else {
            return "the server has \(service.uploadedBytes) of \(transfer.plannedUpload) uploaded bytes"
        }
        return nil
    }

    /// Closes the connection and runs until nothing of it is left. Returns what is.
    private func windUp() -> String? {
        switch scenario.ending {
        case .clientCloses: close(client)
        case .serverCloses: close(server)
        case .silence:
            for interface in client.interfaces { interface.isUp = false }
        case .script: break
        }
        let idle = max(scenario.client.maxIdleTimeout, scenario.server.maxIdleTimeout)
        let limit = now + idle + Self.windingUpLimit
        let endpoints = [client] + servers
        let outcome = network.scheduler.run(until: limit) {
            !endpoints.allSatisfy(\.liveConnections.isEmpty)
        }
        guard outcome == .finished else {
            return "not wound up: \(client.liveConnections.count) connections of the client's and "
                + "\(servers.reduce(0) { $0 + $1.liveConnections.count }) of the server's are left (\(outcome))"
        }
        for endpoint in endpoints where endpoint.engine.connectionCount + endpoint.engine.routeCount > 0 {
            return "leaked: \(endpoint.name) holds \(endpoint.engine.connectionCount) connections and "
                + "\(endpoint.engine.routeCount) routes after the last connection was removed"
        }
        return checkCloseReasons()
    }

    private func checkCloseReasons() -> String? {
        guard let reason = connection?.closeReason else { return "the client never heard why the connection ended" }
        if let expected = scenario.expectedClientClose {
            return expected(reason) ? nil : "the client's connection ended so: \(reason)"
        }
        switch (scenario.ending, reason) {
        case (.clientCloses, .application(_, _, byPeer: false)), (.serverCloses, .application(_, _, byPeer: true)),
            (.silence, .idleTimeout), (.silence, .noViablePath), (.script, _):
            return nil
        default: return "the client's connection ended so: \(reason)"
        }
    }

    private func collect(into report: inout SimulationReport) {
        report.duration = (transfer.finishedAt ?? now) - Scheduler.start
        report.downloadedBytes = transfer.downloadedBytes
        report.uploadedBytes = service.uploadedBytes
        report.largestGap = transfer.largestGap
        report.rebindings = (nat?.rebindingCount ?? 0) + (outerNAT?.rebindingCount ?? 0)
        report.peerMoves = serverConnection?.peerMoveCount ?? 0
        report.switches = connection?.switchCount ?? 0
        if let statistics = withClient({ $0.statistics }) { report.clientStatistics = statistics }
        if let statistics = withServer({ $0.statistics }) { report.serverStatistics = statistics }
        report.serverDestinationIDs = serverConnection?.destinationIDCount ?? 0
        report.sharedServerDestinationIDs = serverConnection?.sharedDestinationIDCount ?? 0
        report.mostServerPaths = serverConnection?.mostPaths ?? 0
    }

    /// What waits in the scheduler, and the handlers, hold references in circles.
    private func tearDown() {
        network.shutDown()
        clientHandlers = []
        serverHandlers = []
        client.onEvent = nil
        for server in servers { server.onEvent = nil }
    }
}
