// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// A random run: what the network is like, what is transferred and what befalls it all come from one seed.
///
/// It is judged by the invariants alone, and by one expectation: faults are over after a while and none of them is
/// allowed to end a connection, so the transfer completes. A run that fails is repeated with fewer and fewer faults
/// (`shrunk`), until each of those left is needed for it.
public struct Exploration: Sendable {
    public let seed: UInt64
    /// In order of time.
    public private(set) var faults: [TimedFault]
    /// Which of the seed's faults are left, by their place among all of them.
    public private(set) var keptFaults: [Int]
    /// Without faults: addresses, links, configurations, streams.
    public private(set) var base: Scenario
    /// Whether loss, jitter and the like of the links were taken out.
    public private(set) var hasCalmLinks = false

    private static let faultsLimit = 12
    /// From the last fault to the end of the transfer.
    private static let patience: Nanoseconds = .seconds(180)

    public init(seed: UInt64) {
        self.seed = seed
        var random = RandomSource.seeded(seed ^ 0x6578_706c_6f72_6500)
        base = Self.drawScenario(&random, seed: seed)
        let horizon = random.time(in: .milliseconds(300)...(.seconds(6)))
        let count = random.integer(in: 0...Self.faultsLimit)
        let interfaces = 1 + base.otherInterfaces.count
        let isBehindNAT = base.nat != nil
        faults = (0..<count).map { _ in
            // Some come in the handshake.
            let limit = random.integer(in: 0...3) == 0 ? Nanoseconds.milliseconds(400) : horizon
            let at = random.time(in: .zero...limit)
            return TimedFault(at: at, fault: Self.drawFault(&random, interfaces: interfaces, isBehindNAT: isBehindNAT))
        }.sorted { $0.at < $1.at }
        keptFaults = Array(faults.indices)
    }

    /// The same run with some of its faults only, by their place among the seed's.
    public func keeping(_ indices: [Int], calmLinks: Bool = false) -> Exploration {
        var copy = Exploration(seed: seed)
        copy.keptFaults = indices.filter(copy.faults.indices.contains).sorted()
        copy.faults = copy.keptFaults.map { copy.faults[$0] }
        if calmLinks { copy.calmLinks() }
        return copy
    }

    private mutating func calmLinks() {
        func calm(_ link: inout LinkConditions) {
            link = LinkConditions(delay: link.delay, bandwidth: link.bandwidth, queueLimit: link.queueLimit)
        }
        hasCalmLinks = true
        calm(&base.access)
        calm(&base.serverAccess)
        for index in base.otherInterfaces.indices { calm(&base.otherInterfaces[index]) }
    }

    public func run(trace: ((String) -> Void)? = nil) -> SimulationReport {
        var scenario = base
        let last = faults.last?.at ?? .zero
        scenario.timeLimit = last + ExplorationDriver.longestFault + Self.patience
        let faults = faults
        scenario.script = { testbed in ExplorationDriver(testbed, faults).begin() }
        return scenario.run(seed: seed, trace: trace)
    }

    /// A run that fails as well and has no fault that it could do without. Runs again and again.
    ///
    /// - Returns: nil if the run does not fail when it is repeated.
    public func shrunk() -> Exploration? {
        guard !run().isClean else { return nil }
        var best = self
        var step = max(1, best.keptFaults.count / 2)
        while true {
            var start = 0
            while start < best.keptFaults.count {
                var left = best.keptFaults
                left.removeSubrange(start..<min(start + step, left.count))
                let candidate = keeping(left)
                if candidate.run().isClean { start += step } else { best = candidate }
            }
            if step == 1 { break }
            step /= 2
        }
        let calm = keeping(best.keptFaults, calmLinks: true)
        return calm.run().isClean ? best : calm
    }

    // MARK: Drawing

    private static func drawScenario(_ random: inout RandomSource, seed: UInt64) -> Scenario {
        var scenario = Scenario("exploration")
        func oneIn(_ count: Int) -> Bool { random.integer(in: 0...count - 1) == 0 }
        func drawLink() -> LinkConditions {
            var link = LinkConditions(delay: random.time(in: .microseconds(200)...(.milliseconds(60))))
            if oneIn(3) { link.loss = 0.03 * random.unit() }
            if oneIn(6) { link.bursts = BurstLoss(begins: 0.005, ends: 0.3) }
            if oneIn(6) { link.corruption = 0.01 }
            if oneIn(6) { link.duplication = 0.05 }
            if oneIn(5) {
                (link.reordering, link.reorderingDelay) = (0.05, random.time(in: .zero...(.milliseconds(20))))
            }
            if oneIn(4) { link.jitter = random.time(in: .zero...(.milliseconds(20))) }
            if oneIn(2) {
                link.bandwidth = random.integer(in: 500_000...20_000_000)
                link.queueLimit = random.integer(in: 8_000...150_000)
            }
            if oneIn(4) { link.maximumPayload = random.integer(in: 1_200...1_472) }
            if oneIn(6) { link.ecn = [.bleaches, .remarks, .drops][random.integer(in: 0...2)] }
            if oneIn(6) { link.congestionMarkThreshold = random.integer(in: 2_000...40_000) }
            return link
        }
        scenario.access = drawLink()
        if oneIn(4) { scenario.accessInbound = drawLink() }
        scenario.serverAccess = LinkConditions(delay: random.time(in: .microseconds(100)...(.milliseconds(40))))
        scenario.otherInterfaces = (0..<random.integer(in: 0...3)).map { _ in drawLink() }
        if !oneIn(3) { scenario.nat = drawNAT(&random) }
        if scenario.nat != nil, oneIn(4) { scenario.outerNAT = drawNAT(&random) }
        if oneIn(8) { scenario.bottleneck = LinkConditions(delay: .milliseconds(2), bandwidth: 5_000_000) }
        if oneIn(8) { scenario.serverCount = 2 }
        if oneIn(4) { scenario.thinkTime = random.time(in: .zero...(.seconds(2))) }
        scenario.plans = (0..<random.integer(in: 1...5)).map { _ in
            StreamPlan(download: random.integer(in: 0...60_000), upload: random.integer(in: 0...30_000))
        }
        scenario.clientEndpoint.connectionIDLength = [0, 4, 8, 8, 8, 20][random.integer(in: 0...5)]
        scenario.serverEndpoint.connectionIDLength = [4, 8, 8, 20][random.integer(in: 0...3)]
        scenario.client = drawConfiguration(&random)
        scenario.server = drawConfiguration(&random)
        scenario.server.disableActiveMigration = oneIn(10)
        if oneIn(6) { scenario.credentials = largeCredentials }
        if oneIn(5) {
            scenario.ending = .serverCloses
            // Where the NAT has rebound meanwhile, or an attacker is at it, a server's last word may not arrive, and nothing
            // else does.
            scenario.expectedClientClose = { reason in
                switch reason {
                case .application(_, _, byPeer: true), .idleTimeout, .noViablePath, .statelessReset: true
                default: false
                }
            }
        }
        return scenario
    }

    /// A certificate that takes several datagrams.
    private static let largeCredentials = try? SimulationCredentials(
        additionalNames: (0..<100).map { "name-\($0).of.the.server.simulation" })

    private static func drawNAT(_ random: inout RandomSource) -> SimulatedNAT.Configuration {
        SimulatedNAT.Configuration(
            mapping: random.integer(in: 0...2) == 0 ? .addressAndPortDependent : .endpointIndependent,
            filtering: [.endpointIndependent, .addressDependent, .addressAndPortDependent][random.integer(in: 0...2)],
            oldMappings: random.integer(in: 0...2) == 0 ? .linger(random.time(in: .zero...(.seconds(2)))) : .die,
            idleTimeout: random.integer(in: 0...3) == 0 ? random.time(in: .seconds(1)...(.seconds(20))) : nil)
    }

    private static func drawConfiguration(_ random: inout RandomSource) -> ConnectionConfiguration {
        var configuration = ConnectionConfiguration()
        func oneIn(_ count: Int) -> Bool { random.integer(in: 0...count - 1) == 0 }
        configuration.maxIdleTimeout = .seconds(90)
        configuration.handshakeTimeout = .seconds(60)
        configuration.congestionControl = oneIn(2) ? .cubic : .newReno
        configuration.activeConnectionIDLimit = random.integer(in: 2...8)
        if oneIn(4) { configuration.keyUpdateInterval = UInt64(random.integer(in: 5...200)) }
        if oneIn(4) { configuration.maxBidirectionalStreams = UInt64(random.integer(in: 1...4)) }
        if oneIn(4) {
            configuration.initialMaxData = UInt64(random.integer(in: 2_000...40_000))
            configuration.initialMaxStreamData = UInt64(random.integer(in: 1_000...20_000))
            configuration.maximumReceiveWindow = 60_000
            configuration.maximumStreamReceiveWindow = 30_000
        }
        if oneIn(4) { configuration.sendBufferLimit = random.integer(in: 1_000...50_000) }
        if oneIn(6) { configuration.keepAliveInterval = random.time(in: .milliseconds(300)...(.seconds(5))) }
        if oneIn(3) { configuration.maxAckDelay = random.time(in: .zero...(.milliseconds(100))) }
        if oneIn(4) { configuration.initialRTT = random.time(in: .milliseconds(20)...(.milliseconds(500))) }
        return configuration
    }

    private static func drawFault(_ random: inout RandomSource, interfaces: Int, isBehindNAT: Bool) -> Fault {
        let interface = random.integer(in: 0...interfaces - 1)
        let place = random.integer(in: 0...3) == 0 ? Fault.Place.server : .client(interface: interface)
        let span = random.time(in: .milliseconds(5)...ExplorationDriver.longestFault)
        func one<T>(of all: [T]) -> T { all[random.integer(in: 0...all.count - 1)] }
        switch random.integer(in: 0...13) {
        case 0, 1, 2:
            guard isBehindNAT else { return .keyUpdate(byServer: false) }
            return .rebinding(one(of: SimulatedNAT.Rebinding.allCases), ofCarrier: random.integer(in: 0...3) == 0)
        case 3: return .outage(place, lasting: span)
        case 4, 5: return .weather(place, one(of: Fault.Weather.allCases), lasting: span)
        case 6: return .sendErrors(place, errno: one(of: [1, 22, 99, 100, 101, 113]), lasting: span)
        case 7: return .socketLost(interface: interface)
        case 8, 9: return .move(interface: interface, one(of: Fault.Move.allCases))
        case 10: return .probe(interface: interface, timeout: span)
        case 11: return random.integer(in: 0...1) == 0 ? .closeSpares : .keyUpdate(byServer: random.next() % 2 == 0)
        default: return .attack(one(of: SimulatedAttacker.Method.allCases), lasting: span)
        }
    }
}

extension Exploration: CustomStringConvertible {
    public var description: String {
        var lines = [
            "seed \(seed): \(base.plans.count) streams over \(1 + base.otherInterfaces.count) interfaces, "
                + "\(base.nat.map { "\($0)" } ?? "no NAT")\(base.outerNAT.map { ", carrier \($0)" } ?? "")",
            "  access \(base.access)",
        ]
        for (place, fault) in zip(keptFaults, faults) { lines.append("  [\(place)] \(fault)") }
        return lines.joined(separator: "\n")
    }

    /// The arguments of `tern-simulate` that run just this again.
    public var replayArguments: String {
        let isWhole = keptFaults.count == Exploration(seed: seed).faults.count
        return "replay --seed \(seed)"
            + (isWhole
                ? "" : " --keep \(keptFaults.isEmpty ? "none" : keptFaults.map(String.init).joined(separator: ","))")
            + (hasCalmLinks ? " --calm" : "")
    }
}
