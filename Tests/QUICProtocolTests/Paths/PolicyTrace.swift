// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// The policy alone, with a binding that does at once what it asks for.
struct PolicyTrace {
    static let wifi = AvailableNetwork("wifi", rank: 0)
    static let cellular = AvailableNetwork("cellular", rank: 1)
    static let wired = AvailableNetwork("wired", rank: -1)

    var policy: MigrationPolicyEngine
    var now = Instant.zero + .seconds(1_000)
    var nextPath: UInt32 = 1
    var networkOfPath: [PathID: NetworkID] = [:]
    var openPaths: Set<PathID> = []
    /// Paths that were probed and have not answered.
    var probed: [PathID] = []
    var active = PathID(0)
    var decisions: [PolicyDecision] = []
    var resumed = 0
    var gaveUp = false
    /// Networks on which no socket can be opened.
    var broken: Set<NetworkID> = []
    var refusesSwitches = false

    init(
        _ settings: AutomaticMigration = AutomaticMigration(), on network: NetworkID? = "wifi",
        networks: [AvailableNetwork] = [wifi], hasOpenStreams: Bool = true
    ) {
        policy = MigrationPolicyEngine(settings: settings)
        networkOfPath[active] = network
        openPaths = [active]
        policy.start(on: active, over: network, networks: networks, hasOpenStreams: hasOpenStreams, now: now)
        settle()
    }

    var activeNetwork: NetworkID? { networkOfPath[active] }

    /// Does what the policy wants, until it wants nothing.
    mutating func settle() {
        while let action = policy.actions.popFirst() {
            switch action {
            case .open(let candidate, let network):
                if broken.contains(network) {
                    policy.openingFailed(candidate, nil, now: now)
                } else {
                    let path = PathID(nextPath)
                    nextPath += 1
                    networkOfPath[path] = network
                    openPaths.insert(path)
                    policy.opened(candidate, path: path, now: now)
                }
            case .probe(let path, _): probed.append(path)
            case .switchTo(let path, _):
                if !refusesSwitches { active = path }
                policy.switched(to: path, succeeded: !refusesSwitches, now: now)
            case .discard(_, let path):
                if let path {
                    #expect(path != active, "the active path was closed")
                    openPaths.remove(path)
                    probed.removeAll { $0 == path }
                }
            case .resume: resumed += 1
            case .giveUp: gaveUp = true
            }
        }
        while let decision = policy.nextDecision() { decisions.append(decision) }
    }

    mutating func networks(_ networks: [AvailableNetwork]) {
        policy.networksChanged(networks, now: now)
        settle()
    }

    mutating func event(_ event: PathEvent) {
        let known = networkOfPath
        policy.handle(event, now: now) { known[$0] }
        settle()
    }

    /// The probes under way over a network are answered.
    mutating func answer(_ network: NetworkID, rtt: Nanoseconds = .milliseconds(20)) {
        let paths = probed.filter { networkOfPath[$0] == network }
        probed.removeAll { paths.contains($0) }
        for path in paths { event(.validated(path, rtt: rtt, challenges: 1)) }
    }

    /// The probes under way are not answered in time.
    mutating func failProbes() {
        let paths = probed
        probed = []
        for path in paths { event(.failed(path, .noResponse)) }
    }

    /// Time passes, with the policy's deadlines in it.
    mutating func pass(_ span: Nanoseconds) {
        let end = now + span
        var steps = 0
        while let deadline = policy.nextDeadline, deadline <= end, steps < 10_000 {
            steps += 1
            now = max(now, deadline)
            policy.handleDeadline(now: now)
            settle()
        }
        #expect(steps < 10_000, "the policy keeps waking itself")
        now = end
    }

    mutating func streams(_ open: Bool) {
        policy.noteActivity(hasOpenStreams: open, now: now)
        settle()
    }

    /// The decisions since the last call.
    mutating func take() -> [PolicyDecision] {
        defer { decisions = [] }
        return decisions
    }

    /// Expects to be on cellular, and to go back to WiFi when that has worked for 20 ms; cellular stands by again.
    mutating func returnFromCellular() {
        #expect(activeNetwork == "cellular")
        answer("wifi")
        pass(.milliseconds(20))
        answer("wifi")
        #expect(activeNetwork == "wifi")
        answer("cellular")
    }
}
