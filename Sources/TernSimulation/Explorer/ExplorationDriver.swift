// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// Lets the faults of an exploration happen, and is the application that a client with several interfaces has: one that
/// leaves a path whose socket is gone or whose sends fail, over whatever interface is left.
final class ExplorationDriver {
    /// No fault lasts longer.
    static let longestFault: Nanoseconds = .seconds(3)
    private static let retryInterval: Nanoseconds = .milliseconds(100)

    private let testbed: Testbed
    private let faults: [TimedFault]
    private let attacker: SimulatedAttacker
    /// Paths that are switched to when they are validated, and whether the path left is closed then.
    private var targets: [PathID: Bool] = [:]
    private var isEscapePending = false
    private var portsGiven: UInt16 = 0

    init(_ testbed: Testbed, _ faults: [TimedFault]) {
        self.testbed = testbed
        self.faults = faults
        attacker = SimulatedAttacker(
            in: testbed.network, at: NetworkAddress(198, 51, 100, 66, port: 50_066), against: Testbed.serverAddress)
    }

    func begin() {
        for timed in faults {
            testbed.at(timed.at) { [self] in
                guard testbed.connection?.closeReason == nil else { return }
                testbed.network.journal.note("FAULT \(timed.fault)")
                perform(timed.fault)
            }
        }
        testbed.onClientPathEvent { [self] event in
            switch event {
            case .failed(let path, .transportLost), .failed(let path, .sendError):
                if path == testbed.activePath { escape() }
            case .validated(let path, _, _):
                guard let closesOld = targets.removeValue(forKey: path) else { return }
                let old = testbed.activePath
                if testbed.switchPath(to: path).isSuccess, closesOld, let old, old != path { testbed.closePath(old) }
            case .failed(let path, _), .closed(let path): targets[path] = nil
            default: break
            }
        }
    }

    private func perform(_ fault: Fault) {
        switch fault {
        case .rebinding(let kind, let ofCarrier):
            ((ofCarrier ? testbed.outerNAT : nil) ?? testbed.nat)?.rebind(kind)
        case .outage(let place, let span):
            temporarily(at: place, for: span) { $0.isUp = false }
        case .weather(let place, let weather, let span):
            temporarily(at: place, for: span) { $0 = $0.under(weather) }
        case .sendErrors(let place, let errno, let span):
            guard let interface = interface(at: place) else { return }
            interface.sendError = errno
            testbed.after(span) { interface.sendError = nil }
        case .socketLost(let number):
            // Before the handshake is confirmed a client may not move, nor ever if the server does not want it to: it would
            // be the end (RFC 9000, section 9).
            guard let interface = openInterface(number), testbed.connection?.handshakeConfirmedAt != nil,
                !testbed.scenario.server.disableActiveMigration,
                // Nor may it move without an unused ID of the server's, and none comes once it hears nothing.
                testbed.withClient({ $0.unusedPeerConnectionIDs }) ?? 0 > 0
            else { return }
            testbed.client.lose(interface)
        case .move(let number, let move):
            guard let interface = openInterface(number), let path = path(over: interface) else { return }
            switch move {
            case .withoutValidation: testbed.switchPath(to: path, withoutValidation: true)
            case .graceful, .closingOld:
                targets[path] = move == .closingOld
                testbed.probe(path)
            }
        case .probe(let number, let timeout):
            guard let interface = openInterface(number), let path = path(over: interface) else { return }
            testbed.probe(path, timeout: timeout)
        case .closeSpares:
            let spares = testbed.withClient { connection in
                connection.pathSnapshots().filter { !$0.isActive }.map(\.id)
            }
            for path in spares ?? [] { testbed.closePath(path) }
        case .attack(let method, let span):
            attacker.start(method)
            testbed.after(span) { [self] in attacker.stop(method) }
        case .keyUpdate(let byServer):
            if byServer {
                testbed.withServer { $0.initiateKeyUpdate() }
            } else {
                testbed.withClient { $0.initiateKeyUpdate() }
            }
        }
    }

    /// Changes both directions of a link for a while.
    private func temporarily(at place: Fault.Place, for span: Nanoseconds, _ change: (inout LinkConditions) -> Void) {
        guard let interface = interface(at: place) else { return }
        let usual = usualConditions(at: place)
        change(&interface.outbound.conditions)
        change(&interface.inbound.conditions)
        testbed.after(span) {
            interface.outbound.conditions = usual.outbound
            interface.inbound.conditions = usual.inbound
        }
    }

    private func usualConditions(at place: Fault.Place) -> (outbound: LinkConditions, inbound: LinkConditions) {
        let scenario = testbed.scenario
        switch place {
        case .server: return (scenario.serverAccess, scenario.serverAccess)
        case .client(0): return (scenario.access, scenario.accessInbound ?? scenario.access)
        case .client(let number):
            let conditions = scenario.otherInterfaces[(number - 1) % scenario.otherInterfaces.count]
            return (conditions, conditions)
        }
    }

    private func interface(at place: Fault.Place) -> SimulatedInterface? {
        switch place {
        case .server: testbed.server.interfaces.first
        case .client(let number): openInterface(number)
        }
    }

    /// The socket that stands for one of the scenario's interfaces now: when one is closed, another is opened there.
    private func openInterface(_ number: Int) -> SimulatedInterface? {
        let count = 1 + testbed.scenario.otherInterfaces.count
        return testbed.client.interfaces.enumerated().last { index, interface in
            interface.isOpen && (index < count ? index == number : interface.name.hasSuffix("-\(number)"))
        }?.element
    }

    /// The client's path over an interface, made if there is none.
    private func path(over interface: SimulatedInterface) -> PathID? {
        switch testbed.addPath(over: interface) {
        case .success(let path): return path
        case .failure(.pathExists(let path)): return path
        case .failure(.tooManyPaths):
            let spare = testbed.withClient { connection in
                connection.pathSnapshots().first { !$0.isActive && targets[$0.id] == nil }?.id
            }
            if let spare = spare ?? nil { testbed.closePath(spare) }
            return testbed.addPath(over: interface).success
        case .failure: return nil
        }
    }

    /// The active path cannot be used: takes another interface at once, or a new socket where the old one was.
    private func escape() {
        guard !isEscapePending else { return }
        isEscapePending = true
        testbed.after(.milliseconds(10)) { [self] in
            isEscapePending = false
            guard testbed.connection?.closeReason == nil, isActivePathUnusable else { return }
            let open = testbed.client.interfaces.filter { $0.isOpen && $0.sendError == nil }
            let choice = open.isEmpty ? nil : open[testbed.random.integer(in: 0...open.count - 1)]
            let interface = choice ?? reopenedInterface()
            if let path = path(over: interface), path != testbed.activePath,
                testbed.switchPath(to: path, withoutValidation: true).isSuccess
            {
                return
            }
            // Before the handshake is confirmed, or without a connection ID, there is nothing to do but try again.
            testbed.after(Self.retryInterval) { [self] in escape() }
        }
    }

    private var isActivePathUnusable: Bool {
        guard let path = testbed.activePath else { return false }
        guard let snapshot = testbed.withClient({ $0.pathSnapshot(path) }) ?? nil else { return false }
        return testbed.client.interfaces.first { $0.transport == snapshot.tuple.transport }
            .map { !$0.isOpen || $0.sendError != nil } ?? true
    }

    private func reopenedInterface() -> SimulatedInterface {
        portsGiven += 1
        return testbed.client.addInterface(
            at: NetworkAddress(203, 0, 113, 200, port: 0).withHost(plus: portsGiven, port: 51_000 + portsGiven),
            testbed.scenario.access, inbound: testbed.scenario.accessInbound)
    }
}

extension NetworkAddress {
    fileprivate func withHost(plus number: UInt16, port: UInt16) -> NetworkAddress {
        NetworkAddress(ipv4: (ipv4 ?? 0) + UInt32(number), port: port)
    }
}

extension Result {
    fileprivate var isSuccess: Bool { if case .success = self { true } else { false } }
    fileprivate var success: Success? { try? get() }
}
