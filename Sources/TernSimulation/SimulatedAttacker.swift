// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// Somebody who means ill, at a place in the core from where it sees what passes. Off the path it can copy datagrams and
/// send some of its own under any address; on the path it can also hold, spoil and drop what passes. It has no keys.
public final class SimulatedAttacker {
    public enum Method: Sendable, Hashable, CaseIterable {
        /// Copies of the client's datagrams, from the attacker's address, behind the originals.
        case copy
        /// Copies that arrive before the originals, so that the server takes the attacker's address for the client's (RFC
        /// 9000, section 9.3.3).
        case race
        /// Made-up packets under connection IDs that were seen, from many addresses.
        case spoof
        /// Nonsense, many times the traffic, to both sides.
        case flood
        /// Old datagrams once more, under their own source address or the attacker's, to both sides.
        case replay
        /// On the path: a third of all datagrams vanishes.
        case drop
        /// On the path: bits are turned.
        case spoil
        /// On the path: a datagram now and then is held back for a while.
        case hold
    }

    private unowned let network: SimulatedNetwork
    private let address: NetworkAddress
    private let server: NetworkAddress
    private var random: RandomSource
    private var active: Set<Method> = []
    /// Whether only datagrams of established connections are touched.
    public var sparesHandshakes = false
    /// Datagrams that the attacker has sent or touched.
    public private(set) var deedCount = 0
    private var seen: [SimulatedDatagram] = []
    private static let memory = 64

    /// - Parameters:
    ///   - address: its own.
    ///   - server: the address whose traffic it watches.
    public init(in network: SimulatedNetwork, at address: NetworkAddress, against server: NetworkAddress) {
        self.network = network
        self.address = address
        self.server = server
        random = network.makeRandomSource()
        network.addTap { [self] in watch($0) }
    }

    public func start(_ method: Method) { active.insert(method) }
    public func stop(_ method: Method) { active.remove(method) }
    public func stopAll() { active = [] }

    private func watch(_ datagram: SimulatedDatagram) -> SimulatedNetwork.TapVerdict {
        let isToServer = datagram.destination == server
        guard isToServer || datagram.source == server else { return .pass }
        if sparesHandshakes, datagram.hasLongHeader { return .pass }
        remember(datagram)
        var verdict = SimulatedNetwork.TapVerdict.pass
        for method in Method.allCases where active.contains(method) {
            if let other = apply(method, to: datagram, isToServer: isToServer) { verdict = other }
        }
        return verdict
    }

    private func remember(_ datagram: SimulatedDatagram) {
        if seen.count < Self.memory {
            seen.append(datagram)
        } else {
            seen[random.integer(in: 0...Self.memory - 1)] = datagram
        }
    }

    /// - Returns: what becomes of the original, if not its usual way.
    private func apply(
        _ method: Method, to datagram: SimulatedDatagram, isToServer: Bool
    ) -> SimulatedNetwork.TapVerdict? {
        switch method {
        case .copy:
            if isToServer { inject(datagram, from: address, after: .milliseconds(Int64(random.integer(in: 0...20)))) }
        case .race:
            guard isToServer else { return nil }
            inject(datagram, from: address)
            return .delay(.milliseconds(Int64(random.integer(in: 1...8))))
        case .spoof:
            var forged = datagram
            forged.payload = datagram.payload.prefix(20) + random.bytes(random.integer(in: 20...1_180))
            inject(forged, from: isToServer ? spoofedAddress() : datagram.source)
        case .flood:
            for _ in 0..<4 {
                var noise = datagram
                noise.payload = random.bytes(random.integer(in: 1...1_400))
                // Now and then it looks like the first packet of a version that is known, or of one that is not.
                if random.next() % 4 == 0 {
                    noise.payload.replaceSubrange(0..<min(1, noise.payload.count), with: [0xc3])
                }
                inject(noise, from: isToServer ? spoofedAddress() : datagram.source)
            }
        case .replay:
            guard let old = seen.isEmpty ? nil : seen[random.integer(in: 0...seen.count - 1)] else { return nil }
            let source = old.destination == server && random.next() % 2 == 0 ? address : old.source
            inject(old, from: source, after: .milliseconds(Int64(random.integer(in: 0...50))))
        case .drop:
            guard random.next() % 3 == 0 else { return nil }
            deedCount += 1
            return .drop
        case .spoil:
            guard random.next() % 3 == 0, !datagram.payload.isEmpty else { return nil }
            var spoiled = datagram
            for _ in 0...random.integer(in: 0...3) {
                spoiled.payload[random.integer(in: 0...spoiled.payload.count - 1)] ^= UInt8(random.integer(in: 1...255))
            }
            inject(spoiled, from: datagram.source)
            return .drop
        case .hold:
            guard random.next() % 5 == 0 else { return nil }
            deedCount += 1
            return .delay(.milliseconds(Int64(random.integer(in: 1...300))))
        }
        return nil
    }

    private func spoofedAddress() -> NetworkAddress {
        NetworkAddress(
            ipv4: 0xc633_6400 | UInt32(random.integer(in: 1...254)), port: UInt16(random.integer(in: 1...65_535)))
    }

    private func inject(_ datagram: SimulatedDatagram, from source: NetworkAddress, after delay: Nanoseconds = .zero) {
        deedCount += 1
        var copy = datagram
        copy.source = source
        network.inject(copy, after: delay)
    }
}
