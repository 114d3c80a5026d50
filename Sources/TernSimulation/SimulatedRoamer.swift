// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// The client's networks as its system would report them, and the automatic policy that moves its connection between them:
/// what `Tern` does with real sockets, in virtual time.
///
/// ```swift
/// scenario.otherInterfaces = [LinkConditions(delay: .milliseconds(30))]
/// scenario.script = { testbed in
///     let roamer = testbed.roam(over: ["WiFi", "cellular"])
///     testbed.at(.seconds(1)) { roamer.vanish("WiFi") }
///     testbed.at(.seconds(3)) { roamer.appear("WiFi") }
/// }
/// ```
public final class SimulatedRoamer {
    /// What was decided, and when.
    public struct TimedDecision: Sendable {
        public var instant: Instant
        public var decision: PolicyDecision
    }

    private struct HostNetwork {
        let id: NetworkID
        let rank: Int
        /// Its first socket: the scenario's interface.
        let interface: SimulatedInterface
        var isPresent = true
    }

    /// ENETUNREACH.
    private static let networkUnreachable: Int32 = 101
    public static let decisionLimit = 10_000

    private unowned let testbed: Testbed
    private var networks: [HostNetwork]
    private var policy: MigrationPolicyEngine
    private var sockets: [MigrationPolicyEngine.CandidateID: SimulatedInterface] = [:]
    private var waitingEvents: [PathEvent] = []
    private var isProcessScheduled = false
    private var isStarted = false
    private var wakeNumber = 0
    public private(set) var decisions: [TimedDecision] = []
    /// Hears each decision when it is made.
    public var onDecision: ((PolicyDecision) -> Void)?

    init(_ testbed: Testbed, names: [NetworkID], preferring order: [NetworkID], settings: AutomaticMigration) {
        self.testbed = testbed
        policy = MigrationPolicyEngine(settings: settings)
        networks = zip(names, testbed.client.interfaces).map { name, interface in
            HostNetwork(id: name, rank: order.firstIndex(of: name) ?? order.count, interface: interface)
        }
        // It lives as long as the testbed's handlers.
        testbed.onClientEvent { event in
            switch event {
            case .handshakeConfirmed: self.start()
            case .path(let event): self.waitingEvents.append(event)
            default: break
            }
            self.scheduleProcess()
        }
    }

    public var moves: [TimedDecision] { decisions.filter { if case .move = $0.decision { true } else { false } } }

    /// Sockets that the policy has open.
    public var socketCount: Int { sockets.count }

    /// The network that carries the application's data; nil if that is none of ours.
    public var activeNetwork: NetworkID? {
        let active = testbed.withClient { connection in connection.pathSnapshot(connection.activePath)?.tuple.local }
        return active.flatMap { $0 }.flatMap { network(of: $0) }
    }

    /// Lets the policy see what the script has done to the connection, and waits for no event.
    public func refresh() { process() }

    // MARK: What befalls the networks

    /// The interface goes away, with its addresses and routes, and the system says so.
    ///
    /// - Parameter reported: after so long.
    public func vanish(_ id: NetworkID, reported: Nanoseconds = .zero) {
        set(id, isUp: false, sendError: Self.networkUnreachable)
        testbed.after(reported) { self.setPresent(id, false) }
    }

    public func appear(_ id: NetworkID) {
        set(id, isUp: true, sendError: nil)
        setPresent(id, true)
    }

    /// Everything is lost there from now on, and nobody says so.
    public func fallSilent(_ id: NetworkID) { set(id, isUp: false, sendError: nil) }
    public func speakAgain(_ id: NetworkID) { set(id, isUp: true, sendError: nil) }

    /// The system refuses every send there, although the network is listed.
    public func refuseSends(on id: NetworkID, errno: Int32?) {
        for socket in sockets(on: id) { socket.sendError = errno }
    }

    private func sockets(on id: NetworkID) -> [SimulatedInterface] {
        guard let base = networks.first(where: { $0.id == id })?.interface else { return [] }
        return testbed.client.interfaces.filter { $0.address.hasSameIP(as: base.address) }
    }

    private func set(_ id: NetworkID, isUp: Bool, sendError: Int32?) {
        for socket in sockets(on: id) {
            socket.isUp = isUp
            socket.sendError = sendError
        }
    }

    private func setPresent(_ id: NetworkID, _ isPresent: Bool) {
        guard let index = networks.firstIndex(where: { $0.id == id }), networks[index].isPresent != isPresent else {
            return
        }
        networks[index].isPresent = isPresent
        testbed.network.journal.note("client's network \(id) \(isPresent ? "appears" : "is gone")")
        guard isStarted else { return }
        policy.networksChanged(available, now: testbed.now)
        process()
    }

    private var available: [AvailableNetwork] {
        networks.filter(\.isPresent).map { AvailableNetwork($0.id, rank: $0.rank) }
    }

    private func network(of address: NetworkAddress) -> NetworkID? {
        networks.first { $0.interface.address.hasSameIP(as: address) }?.id
    }

    // MARK: Driving the policy

    private func start() {
        guard !isStarted else { return }
        isStarted = true
        testbed.withClient { connection in
            let path = connection.activePath
            let local = connection.pathSnapshot(path)?.tuple.local
            policy.start(
                on: path, over: local.flatMap { network(of: $0) }, networks: available,
                priorities: connection.pathPriorities, hasOpenStreams: connection.hasOpenStreams, now: testbed.now)
        }
    }

    /// After everything else of this instant: the connection has then handled it.
    private func scheduleProcess() {
        guard !isProcessScheduled else { return }
        isProcessScheduled = true
        testbed.after(.zero) {
            self.isProcessScheduled = false
            self.process()
        }
    }

    private func process() {
        guard isStarted else { return }
        var closing: [SimulatedInterface] = []
        let now = testbed.now
        let isAlive: Void? = testbed.withClient { connection in
            policy.noteActivity(hasOpenStreams: connection.hasOpenStreams, now: now)
            let events = waitingEvents
            waitingEvents = []
            for event in events {
                policy.handle(event, now: now) { path in
                    connection.pathSnapshot(path).flatMap { network(of: $0.tuple.local) }
                }
            }
            if let deadline = policy.nextDeadline, deadline <= now { policy.handleDeadline(now: now) }
            while let errand = connection.nextErrand(of: &policy, now: now) {
                switch errand {
                case .open(let candidate, let id): open(candidate, on: id, &connection, now: now)
                case .close(let candidate):
                    if let socket = sockets.removeValue(forKey: candidate) { closing.append(socket) }
                }
            }
        }
        for socket in closing { testbed.client.closeSocket(socket) }
        tellDecisions()
        if isAlive == nil {
            isStarted = false
        } else {
            arm()
        }
    }

    private func open(
        _ candidate: MigrationPolicyEngine.CandidateID, on id: NetworkID, _ connection: inout QUICConnection,
        now: Instant
    ) {
        guard let base = networks.first(where: { $0.id == id && $0.isPresent })?.interface,
            let socket = testbed.client.openSocket(beside: base)
        else { return policy.openingFailed(candidate, nil, now: now) }
        sockets[candidate] = socket
        let tuple = FourTuple(
            transport: socket.transport, local: socket.address, remote: Testbed.serverAddress)
        do throws(MigrationError) {
            policy.opened(candidate, path: try connection.addPath(over: tuple), now: now)
        } catch {
            policy.openingFailed(candidate, error, now: now)
        }
    }

    private func tellDecisions() {
        while let decision = policy.nextDecision() {
            testbed.network.journal.note("client's policy: \(decision)")
            if decisions.count < Self.decisionLimit {
                decisions.append(TimedDecision(instant: testbed.now, decision: decision))
            }
            onDecision?(decision)
        }
    }

    private func arm() {
        wakeNumber += 1
        let number = wakeNumber
        guard let deadline = policy.nextDeadline else { return }
        testbed.network.scheduler.schedule(at: deadline) { [self] in
            if number == wakeNumber { process() }
        }
    }
}

extension Testbed {
    /// Lets the automatic policy move the client's connection.
    ///
    /// - Parameters:
    ///   - names: of the client's interfaces, in their order.
    ///   - order: the preferred first; as the names are, unless given.
    public func roam(
        over names: [NetworkID], preferring order: [NetworkID]? = nil,
        settings: AutomaticMigration = AutomaticMigration()
    ) -> SimulatedRoamer {
        SimulatedRoamer(self, names: names, preferring: order ?? names, settings: settings)
    }
}
