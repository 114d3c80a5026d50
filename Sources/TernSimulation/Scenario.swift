// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// A client, a server, a network between them, what they transfer and what befalls them: run it with any seed.
///
/// ```swift
/// var scenario = Scenario("a phone call in a lift")
/// scenario.nat = .init()
/// scenario.plans = [StreamPlan(download: 1_000_000)]
/// scenario.script = { testbed in
///     testbed.at(.milliseconds(300)) { testbed.nat?.rebindPort() }
/// }
/// let report = scenario.run(seed: 1)
/// ```
///
/// In every run it is checked that each byte arrives once and in order, that nothing is left when the connection is closed,
/// and the rules in `Invariants.swift`.
public struct Scenario: Sendable {
    /// How the connection ends once the transfer is done.
    public enum Ending: Sendable {
        case clientCloses
        case serverCloses
        /// The network goes away and both sides time out.
        case silence
        /// The script ends the connection. The transfer need not be complete.
        case script
    }

    public var title: String
    /// The link of the client's first interface, which stands behind the NAT if there is one.
    public var access = LinkConditions()
    /// The same in the direction to the client, where it differs.
    public var accessInbound: LinkConditions?
    /// The link of the server. The client's access should be the narrower one.
    public var serverAccess = LinkConditions(delay: .milliseconds(5))
    /// The links of further interfaces of the client, without NAT: cellular, for example.
    public var otherInterfaces: [LinkConditions] = []
    /// The link of the client's IPv6 interface, if it has one: the last of its interfaces, at 2001:db8:1::2.
    public var clientIPv6: LinkConditions?
    /// Further addresses of the server, each with its own link and socket: its preferred ones, for example.
    public var otherServerAddresses: [(address: NetworkAddress, conditions: LinkConditions)] = []
    public var nat: SimulatedNAT.Configuration?
    /// A second NAT outside the first, as of a carrier; only with `nat`.
    public var outerNAT: SimulatedNAT.Configuration?
    /// A router that all interfaces of the client share, behind its access links and NATs.
    public var bottleneck: LinkConditions?
    /// Servers behind the one address, by the policy of `balancing`.
    public var serverCount = 1
    public var balancing = SimulatedLoadBalancer.Policy.connectionID
    /// One for each stream. Without any, the transfer is done with the handshake.
    public var plans = [StreamPlan(download: 200_000)]
    public var client = ConnectionConfiguration()
    public var server = ConnectionConfiguration()
    public var clientEndpoint = EndpointConfiguration()
    public var serverEndpoint = EndpointConfiguration()
    /// Nil for the shared ones.
    public var credentials: SimulationCredentials?
    /// The server waits so long before it answers.
    public var thinkTime: Nanoseconds = .zero
    public var ending = Ending.clientCloses
    /// The reason why the client's connection ends, if not the application's or, after silence, a timeout.
    public var expectedClientClose: (@Sendable (CloseReason) -> Bool)?
    /// The transfer must be done by then; a run that is not has failed.
    public var timeLimit: Nanoseconds = .seconds(60)
    /// Runs before the client sends its first packet: schedules what is to happen.
    public var script: @Sendable (Testbed) -> Void = { _ in }

    public init(_ title: String) {
        self.title = title
    }

    /// Sets the delays so that a round trip takes `time`, one half of it on the client's access and one on the server's.
    public mutating func setRoundTrip(_ time: Nanoseconds) {
        access.delay = time / 4
        accessInbound?.delay = time / 4
        serverAccess.delay = time / 2 - time / 4
        for index in otherInterfaces.indices { otherInterfaces[index].delay = time / 4 }
    }

    /// Gives the server another address of each family named, and has it ask its clients to move there.
    public mutating func offerPreferredAddresses(ipv4: Bool = true, ipv6: Bool = false) {
        let offered = (ipv4 ? [Testbed.preferredIPv4] : []) + (ipv6 ? [Testbed.preferredIPv6] : [])
        otherServerAddresses += offered.map { ($0, serverAccess) }
        server.preferredAddresses = PreferredAddresses(
            ipv4: ipv4 ? Testbed.preferredIPv4 : nil, ipv6: ipv6 ? Testbed.preferredIPv6 : nil)
    }

    /// The time of a round trip over the first interface without queues.
    public var roundTrip: Nanoseconds { access.delay + (accessInbound ?? access).delay + serverAccess.delay * 2 }

    /// Runs it. Everything belongs to this call, so runs may go on side by side.
    ///
    /// - Parameter trace: receives a line for each datagram and event.
    public func run(seed: UInt64, trace: ((String) -> Void)? = nil) -> SimulationReport {
        do {
            return try Testbed(self, seed: seed, trace: trace).run()
        } catch {
            return SimulationReport(title: title, seed: seed, failure: "the scenario could not be set up: \(error)")
        }
    }
}
