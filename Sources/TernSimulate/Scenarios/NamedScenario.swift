// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

/// A bad day with a name: what the network is like, what befalls the connection, and how it must go.
struct NamedScenario: Sendable {
    /// Of the families in `docs/testing.md`.
    var family: Int
    /// A sentence that says what must happen.
    var title: String
    /// What chance decides besides what it decides in the network.
    var make: @Sendable (inout RandomSource) -> Scenario
    /// A complaint about a run that broke no rule, or nil.
    var verify: @Sendable (SimulationReport) -> String?

    init(
        _ family: Int, _ title: String, _ make: @escaping @Sendable (inout RandomSource) -> Scenario,
        expecting verify: @escaping @Sendable (SimulationReport) -> String? = { _ in nil }
    ) {
        self.family = family
        self.title = title
        self.make = make
        self.verify = verify
    }

    /// Runs it.
    ///
    /// - Returns: the report, and what is wrong with it; nil if nothing is.
    func run(seed: UInt64, trace: ((String) -> Void)? = nil) -> (report: SimulationReport, complaint: String?) {
        // Not the seed itself, or the scenario's choices and the network's would be the same numbers.
        var random = RandomSource.seeded(seed ^ 0x7465_726e_0000_0000)
        let report = make(&random).run(seed: seed, trace: trace)
        guard report.isClean else { return (report, "\(report)") }
        return (report, verify(report).map { "\($0)\n\(report)" })
    }

    /// The line that runs one seed of it again, with every datagram.
    func replayCommand(seed: UInt64) -> String {
        "swift run -c release tern-simulate run \"\(title)\" --seeds \(seed) --trace"
    }
}

/// All scenarios with names that `tern-simulate` knows; `Tests/ScenarioTests` has more.
enum Catalogue {
    static let all: [NamedScenario] =
        found + rebindings + challenges + sockets + sizes + congestion + connectionIDs + attacks + endings + lastPaths
}

// MARK: What scenarios share

extension Scenario {
    /// A client with several networks of 40 ms and 4 Mbit/s, downloading and uploading for about a second.
    static func severalNetworks(_ count: Int = 2, queueLimit: Int = 60_000) -> Scenario {
        var scenario = Scenario("")
        scenario.access = LinkConditions(delay: .milliseconds(10), bandwidth: 4_000_000, queueLimit: queueLimit)
        scenario.otherInterfaces = (1..<count).map { _ in scenario.access }
        scenario.serverAccess.delay = .milliseconds(10)
        scenario.plans = [StreamPlan(download: 300_000, upload: 100_000)]
        return scenario
    }

    /// A client behind a NAT whose old mappings are dead at once, of 40 ms and 4 Mbit/s.
    static func behindNAT(_ nat: SimulatedNAT.Configuration = .init()) -> Scenario {
        var scenario = severalNetworks(1)
        scenario.nat = nat
        return scenario
    }
}

extension Testbed {
    /// Adds a path over an interface, probes it, and calls `body` when it is validated. The run waits for it. A handshake
    /// that loss has drawn out is waited for first, or the probe's time would run out with it.
    func whenProbed(
        _ number: Int = 1, at time: Nanoseconds, timeout: Nanoseconds = .seconds(3),
        then body: @escaping (PathID) -> Void
    ) {
        var target: PathID?
        var isDue = false
        var isConfirmed = false
        func begin() {
            guard isDue, isConfirmed else { return }
            target = try? addPath(over: client.interfaces[number]).get()
            guard let path = target else { return expect(false, "addPath failed") }
            probe(path, timeout: timeout)
        }
        hold()
        at(time) {
            isDue = true
            begin()
        }
        whenConfirmed {
            isConfirmed = true
            begin()
        }
        onClientPathEvent { [self] event in
            switch event {
            case .validated(let path, _, _) where path == target:
                target = nil
                body(path)
                // Not before the event of what was done has been told.
                after(.milliseconds(1)) { self.release() }
            case .failed(let path, let failure) where path == target:
                target = nil
                expect(false, "the probe failed: \(failure)")
                release()
            default: break
            }
        }
    }

    /// Probes an interface whose path must fail.
    func expectProbeFails(_ number: Int = 1, at time: Nanoseconds, timeout: Nanoseconds) {
        hold()
        at(time) { [self] in
            guard let path = try? addPath(over: client.interfaces[number]).get() else {
                return expect(false, "addPath failed")
            }
            probe(path, timeout: timeout)
            onClientPathEvent { [self] event in
                switch event {
                case .failed(path, let failure):
                    expect(failure == .noResponse, "it failed with \(failure)")
                    release()
                case .validated(path, _, _): expect(false, "a dead path was validated")
                default: break
                }
            }
        }
    }

    /// Moves the client to an interface's path once it was probed.
    func moveGracefully(
        _ number: Int = 1, at time: Nanoseconds, timeout: Nanoseconds = .seconds(3), closingOld: Bool = false
    ) {
        whenProbed(number, at: time, timeout: timeout) { [self] path in
            let old = activePath
            let result = switchPath(to: path)
            if case .failure(let error) = result { expect(false, "the switch was refused: \(error)") }
            if closingOld, let old { closePath(old) }
        }
    }

    /// Moves the client to an interface at once, as when the network it was on is gone.
    func moveAtOnce(_ number: Int = 1) {
        switch addPath(over: client.interfaces[number]) {
        case .success(let path), .failure(.pathExists(let path)):
            if case .failure(let error) = switchPath(to: path, withoutValidation: true) {
                expect(false, "the switch was refused: \(error)")
            }
        case .failure(let error): expect(false, "addPath failed: \(error)")
        }
    }

    /// Calls `body` with every datagram to or from an address, in the core.
    func watch(_ address: NetworkAddress, _ body: @escaping (_ datagram: SimulatedDatagram, _ isFrom: Bool) -> Void) {
        network.addTap { datagram in
            if datagram.source == address {
                body(datagram, true)
            } else if datagram.destination == address {
                body(datagram, false)
            }
            return .pass
        }
    }

    /// Drops the first datagrams for which `condition` holds.
    func dropFirst(_ count: Int, where condition: @escaping (SimulatedDatagram) -> Bool) {
        var left = count
        network.addTap { datagram in
            guard left > 0, condition(datagram) else { return .pass }
            left -= 1
            return .drop
        }
    }
}

/// A complaint unless `condition` holds.
func unless(_ condition: Bool, _ complaint: @autoclosure () -> String) -> String? {
    condition ? nil : complaint()
}
