// SPDX-License-Identifier: Apache-2.0

internal import DequeModule
public import QUICProtocol

/// A network address translator: hosts behind it are seen under its address and a port that it chooses.
///
/// It stands between the access link of its hosts and the rest of the network, so datagrams that are on that access
/// link when it rebinds leave under the new mapping. A rebinding forgets the mappings; a new one comes into being with
/// the next datagram *from* the inside. Until then, and unless old mappings linger, nothing gets in.
public final class SimulatedNAT {
    /// What becomes of the mappings when the NAT rebinds.
    public enum OldMappings: Sendable, Equatable {
        /// Datagrams to them vanish.
        case die
        /// They still let datagrams in for this long.
        case linger(Nanoseconds)
    }

    /// Whether a host has one mapping or one for each remote address that it sends to (RFC 4787, section 4.1).
    public enum Mapping: Sendable {
        case endpointIndependent
        case addressAndPortDependent
    }

    /// Who may send to a mapping from the outside (RFC 4787, section 5). A NAT whose mappings and filters are both
    /// endpoint-independent is what STUN once called a full cone; one in which both depend on address and port, symmetric.
    public enum Filtering: Sendable {
        case endpointIndependent
        /// Hosts to which something was sent.
        case addressDependent
        /// Hosts and ports to which something was sent.
        case addressAndPortDependent
    }

    public enum Rebinding: Sendable, Hashable, CaseIterable {
        case port
        /// Another address, and another port as well.
        case address
        /// Another address under which the ports stay, as where a whole network gets another provider.
        case addressOnly
    }

    public struct Configuration: Sendable {
        public var mapping = Mapping.endpointIndependent
        public var filtering = Filtering.endpointIndependent
        public var oldMappings = OldMappings.die
        /// A mapping that carried nothing from the inside for this long is forgotten. Nil for never.
        public var idleTimeout: Nanoseconds?

        public init(
            mapping: Mapping = .endpointIndependent, filtering: Filtering = .endpointIndependent,
            oldMappings: OldMappings = .die, idleTimeout: Nanoseconds? = nil
        ) {
            self.mapping = mapping
            self.filtering = filtering
            self.oldMappings = oldMappings
            self.idleTimeout = idleTimeout
        }
    }

    private struct Flow: Hashable {
        var inside: NetworkAddress
        /// Nil where the mapping does not depend on it.
        var remote: NetworkAddress?
    }

    private struct Entry {
        var flow: Flow
        var lastSent: Instant
        /// When an old mapping that lingers stops letting datagrams in.
        var expiry: Instant?
        /// The remote addresses that something was sent to, as far as the filter asks for them.
        var contacted: Set<NetworkAddress> = []
    }

    /// Ports below are left alone: some are those of protocols that a careful peer does not send to.
    private static let ports: ClosedRange<UInt16> = 40_000...64_999
    /// Old mappings kept at most; the oldest go first.
    private static let lingeringLimit = 1_024

    private unowned let network: SimulatedNetwork
    private let configuration: Configuration
    private var random: RandomSource
    private var outsideByFlow: [Flow: NetworkAddress] = [:]
    private var entryByOutside: [NetworkAddress: Entry] = [:]
    /// The outside addresses of current mappings, and of old ones that linger, each in order of creation.
    private var current: [NetworkAddress] = []
    private var lingering: Deque<NetworkAddress> = []
    private var lastPort: UInt16
    /// The ports that flows keep at their next mapping, after a rebinding of the address only.
    private var keptPorts: [Flow: UInt16] = [:]
    /// The NAT behind which this one stands, if it is not the outermost: a home's router behind a carrier's.
    let outer: SimulatedNAT?
    /// The NATs behind this one, by their outside IP address. Looked up only.
    private var inner: [NetworkAddress: SimulatedNAT] = [:]

    /// The outside address of new mappings; its port means nothing.
    public private(set) var address: NetworkAddress
    public private(set) var rebindingCount = 0
    /// Datagrams from the outside for which there was no mapping.
    public private(set) var unmappedCount = 0

    init(
        network: SimulatedNetwork, address: NetworkAddress, configuration: Configuration, behind outer: SimulatedNAT?,
        random: RandomSource
    ) {
        self.network = network
        self.outer = outer
        self.address = address.withPort(0)
        self.configuration = configuration
        self.random = random
        self.lastPort = Self.ports.lowerBound + UInt16(self.random.next() % 20_000)
    }

    /// From now on hosts are seen under other ports of the same address.
    public func rebindPort() {
        rebindingCount += 1
        retireMappings()
        network.journal.note("NAT rebinds its ports")
    }

    /// From now on hosts are seen under another address.
    public func rebindAddress() {
        rebindingCount += 1
        retireMappings()
        takeNextAddress()
    }

    /// From now on hosts are seen under another address and the ports that they had.
    public func rebindAddressOnly() {
        rebindingCount += 1
        let ports = outsideByFlow.mapValues(\.port)
        retireMappings()
        keptPorts = ports
        takeNextAddress()
    }

    private func takeNextAddress() {
        address = successor(of: address)
        network.route(address, to: self)
        network.journal.note("NAT rebinds to \(address)")
    }

    public func rebind(_ kind: Rebinding) {
        switch kind {
        case .port: rebindPort()
        case .address: rebindAddress()
        case .addressOnly: rebindAddressOnly()
        }
    }

    /// Rebinds every `interval`, `count` times, the first time after one interval.
    public func rebind(_ kind: Rebinding, every interval: Nanoseconds, count: Int) {
        guard count > 0 else { return }
        network.scheduler.schedule(after: interval) { [self] in
            rebind(kind)
            rebind(kind, every: interval, count: count - 1)
        }
    }

    /// Rebinds `count` times, ports and addresses as it falls, after pauses drawn from `pauses`.
    public func rebindAtRandom(_ kinds: [Rebinding], pauses: ClosedRange<Nanoseconds>, count: Int) {
        guard count > 0, !kinds.isEmpty else { return }
        network.scheduler.schedule(after: random.time(in: pauses)) { [self] in
            rebind(kinds[random.integer(in: 0...kinds.count - 1)])
            rebindAtRandom(kinds, pauses: pauses, count: count - 1)
        }
    }

    /// The address under which a datagram from the inside continues.
    func outsideAddress(of inside: NetworkAddress, for remote: NetworkAddress, now: Instant) -> NetworkAddress {
        let flow = Flow(inside: inside, remote: configuration.mapping == .endpointIndependent ? nil : remote)
        if let outside = outsideByFlow[flow], var entry = entryByOutside[outside], !isIdle(entry, now: now) {
            entry.lastSent = now
            note(remote, in: &entry)
            entryByOutside[outside] = entry
            return outside
        }
        if let idle = outsideByFlow[flow] { entryByOutside[idle] = nil }
        let kept = keptPorts.removeValue(forKey: flow).map { address.withPort($0) }
        let outside = kept.flatMap { entryByOutside[$0] == nil ? $0 : nil } ?? address.withPort(freePort())
        outsideByFlow[flow] = outside
        var entry = Entry(flow: flow, lastSent: now, expiry: nil)
        note(remote, in: &entry)
        entryByOutside[outside] = entry
        current.append(outside)
        network.journal.note("NAT maps \(inside) to \(outside)")
        return outside
    }

    /// The host to which a datagram for `outside` goes on, or nil when it may not come in.
    func insideAddress(of outside: NetworkAddress, from remote: NetworkAddress, now: Instant) -> NetworkAddress? {
        guard let entry = entryByOutside[outside], !isIdle(entry, now: now), entry.expiry.map({ now < $0 }) ?? true,
            entry.flow.remote.map({ $0 == remote }) ?? true, isLetIn(remote, by: entry)
        else {
            unmappedCount += 1
            return nil
        }
        return entry.flow.inside
    }

    private func note(_ remote: NetworkAddress, in entry: inout Entry) {
        switch configuration.filtering {
        case .endpointIndependent: break
        case .addressDependent: entry.contacted.insert(remote.withPort(0))
        case .addressAndPortDependent: entry.contacted.insert(remote)
        }
    }

    private func isLetIn(_ remote: NetworkAddress, by entry: Entry) -> Bool {
        switch configuration.filtering {
        case .endpointIndependent: true
        case .addressDependent: entry.contacted.contains(remote.withPort(0))
        case .addressAndPortDependent: entry.contacted.contains(remote)
        }
    }

    /// Makes the address of a NAT behind this one known.
    func route(_ address: NetworkAddress, to nat: SimulatedNAT) { inner[address.withPort(0)] = nat }

    /// The NAT behind this one that has an address.
    func inner(at address: NetworkAddress) -> SimulatedNAT? { inner[address.withPort(0)] }

    private func isIdle(_ entry: Entry, now: Instant) -> Bool {
        configuration.idleTimeout.map { now - entry.lastSent > $0 } ?? false
    }

    private func retireMappings() {
        outsideByFlow = [:]
        keptPorts = [:]
        defer { current = [] }
        guard case .linger(let time) = configuration.oldMappings else {
            entryByOutside = [:]
            return
        }
        let now = network.scheduler.now
        for outside in current where entryByOutside[outside] != nil {
            entryByOutside[outside]?.expiry = now + time
            lingering.append(outside)
        }
        while let oldest = lingering.first {
            let isExpired = entryByOutside[oldest]?.expiry.map { $0 <= now } ?? true
            guard isExpired || lingering.count > Self.lingeringLimit else { break }
            lingering.removeFirst()
            entryByOutside[oldest] = nil
        }
    }

    /// Ports go up, so that the one just given up is not soon used again; by how much is drawn.
    private func freePort() -> UInt16 {
        repeat {
            let next = Int(lastPort) + random.integer(in: 1...7)
            lastPort =
                next > Int(Self.ports.upperBound)
                ? Self.ports.lowerBound + UInt16(next - Int(Self.ports.upperBound)) : UInt16(next)
        } while entryByOutside[address.withPort(lastPort)] != nil
        return lastPort
    }

    private func successor(of address: NetworkAddress) -> NetworkAddress {
        if let ipv4 = address.ipv4 { return NetworkAddress(ipv4: ipv4 &+ 1, port: 0) }
        let (high, low) = address.ipv6 ?? (0, 0)
        return NetworkAddress(ipv6: high, low &+ 1, port: 0, scopeID: address.scopeID)
    }
}
