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

    public enum Rebinding: Sendable {
        case port
        case address
    }

    public struct Configuration: Sendable {
        public var mapping = Mapping.endpointIndependent
        public var oldMappings = OldMappings.die
        /// A mapping that carried nothing from the inside for this long is forgotten. Nil for never.
        public var idleTimeout: Nanoseconds?

        public init(
            mapping: Mapping = .endpointIndependent, oldMappings: OldMappings = .die, idleTimeout: Nanoseconds? = nil
        ) {
            self.mapping = mapping
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

    /// The outside address of new mappings; its port means nothing.
    public private(set) var address: NetworkAddress
    public private(set) var rebindingCount = 0
    /// Datagrams from the outside for which there was no mapping.
    public private(set) var unmappedCount = 0

    init(network: SimulatedNetwork, address: NetworkAddress, configuration: Configuration, random: RandomSource) {
        self.network = network
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
        address = successor(of: address)
        network.route(address, to: self)
        network.journal.note("NAT rebinds to \(address)")
    }

    public func rebind(_ kind: Rebinding) {
        switch kind {
        case .port: rebindPort()
        case .address: rebindAddress()
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
            entryByOutside[outside] = entry
            return outside
        }
        if let idle = outsideByFlow[flow] { entryByOutside[idle] = nil }
        let outside = address.withPort(freePort())
        outsideByFlow[flow] = outside
        entryByOutside[outside] = Entry(flow: flow, lastSent: now, expiry: nil)
        current.append(outside)
        network.journal.note("NAT maps \(inside) to \(outside)")
        return outside
    }

    /// The host to which a datagram for `outside` goes on, or nil when it may not come in.
    func insideAddress(of outside: NetworkAddress, from remote: NetworkAddress, now: Instant) -> NetworkAddress? {
        guard let entry = entryByOutside[outside], !isIdle(entry, now: now), entry.expiry.map({ now < $0 }) ?? true,
            entry.flow.remote.map({ $0 == remote }) ?? true
        else {
            unmappedCount += 1
            return nil
        }
        return entry.flow.inside
    }

    private func isIdle(_ entry: Entry, now: Instant) -> Bool {
        configuration.idleTimeout.map { now - entry.lastSent > $0 } ?? false
    }

    private func retireMappings() {
        outsideByFlow = [:]
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
