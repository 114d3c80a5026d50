// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// Takes the datagrams that reach an interface.
public protocol DatagramReceiver: AnyObject {
    func receive(_ datagram: SimulatedDatagram, on interface: SimulatedInterface)
}

/// A host's attachment to the network: an address, and a link in each direction, perhaps behind a NAT.
public final class SimulatedInterface {
    public let name: String
    /// The socket that is bound to this interface.
    public let transport: TransportID
    /// The host's own address on it; behind a NAT the peer sees another.
    public let address: NetworkAddress
    public let outbound: SimulatedLink
    public let inbound: SimulatedLink
    public let nat: SimulatedNAT?
    /// The router between the host's access (and NAT) and the core, if there is one.
    public let router: SimulatedRouter?
    /// Every send fails with this errno, as without a route to the peer.
    public var sendError: Int32?
    /// Sends of larger UDP payloads fail at once with EMSGSIZE. Nil when the host does not know the path's MTU.
    public var localMaximumPayload: Int?
    /// False once its socket is closed.
    public internal(set) var isOpen = true
    weak var receiver: (any DatagramReceiver)?

    init(
        name: String, transport: TransportID, address: NetworkAddress, outbound: SimulatedLink, inbound: SimulatedLink,
        nat: SimulatedNAT?, router: SimulatedRouter?, receiver: any DatagramReceiver
    ) {
        self.name = name
        self.router = router
        self.transport = transport
        self.address = address
        self.outbound = outbound
        self.inbound = inbound
        self.nat = nat
        self.receiver = receiver
    }

    /// Whether datagrams pass: takes down or brings back both directions at once.
    public var isUp: Bool {
        get { outbound.conditions.isUp && inbound.conditions.isUp }
        set {
            outbound.conditions.isUp = newValue
            inbound.conditions.isUp = newValue
        }
    }

    /// Changes both directions at once.
    public func setConditions(_ conditions: LinkConditions) {
        outbound.conditions = conditions
        inbound.conditions = conditions
    }
}

/// A network in virtual time.
///
/// Every interface hangs on a core by its own pair of links; a datagram crosses the outbound link of its sender, the
/// sender's NATs, its router, the core, and the same in reverse order to the receiver's inbound link. In the core stand the taps: whoever
/// watches there may copy, drop or delay what passes, and anyone may inject datagrams under any source address.
public final class SimulatedNetwork {
    /// What happens to a datagram that a tap has seen.
    public enum TapVerdict: Sendable {
        case pass
        case drop
        /// It goes on later; further taps do not see it.
        case delay(Nanoseconds)
    }

    private enum Route {
        /// Sockets of one host's interface, told apart by their ports.
        case sockets([SimulatedInterface])
        case nat(SimulatedNAT)
        case balancer(SimulatedLoadBalancer)
    }

    public let scheduler: Scheduler
    public let journal: Journal
    /// Everything drawn in the network comes from here.
    private var random: RandomSource
    /// By IP address, with port 0. Only ever looked up, never iterated, as its order differs between processes.
    private var routes: [NetworkAddress: Route] = [:]
    private var insideInterfaces: [NetworkAddress: SimulatedInterface] = [:]
    private var taps: [(SimulatedDatagram) -> TapVerdict] = []
    private var nextTransport: UInt32 = 1
    /// Datagrams to an address that nobody has.
    public private(set) var unroutableCount = 0

    public init(seed: UInt64) {
        scheduler = Scheduler()
        journal = Journal(scheduler: scheduler)
        random = .seeded(seed)
    }

    /// An independent source of randomness that replays with the network's seed.
    public func makeRandomSource() -> RandomSource { random.split() }

    public var now: Instant { scheduler.now }

    /// Connects a host: one socket of it, or all of an address if the port is 0. Behind a NAT, `address` is known on the
    /// inside only; behind a load balancer, it is the balancer's.
    public func attach(
        _ receiver: any DatagramReceiver, named name: String, at address: NetworkAddress, outbound: LinkConditions,
        inbound: LinkConditions, behind nat: SimulatedNAT? = nil, over router: SimulatedRouter? = nil,
        balancedBy balancer: SimulatedLoadBalancer? = nil
    ) -> SimulatedInterface {
        let interface = SimulatedInterface(
            name: name, transport: TransportID(nextTransport), address: address,
            outbound: SimulatedLink(outbound, random: random.split()),
            inbound: SimulatedLink(inbound, random: random.split()), nat: nat, router: router, receiver: receiver)
        nextTransport += 1
        if let balancer {
            balancer.add(interface)
        } else if nat == nil {
            addRoute(to: interface)
        } else {
            insideInterfaces[address] = interface
        }
        return interface
    }

    /// Another socket on an interface, at the next free port: the same links, the same NAT.
    func openSocket(beside interface: SimulatedInterface, port: UInt16) -> SimulatedInterface? {
        guard let receiver = interface.receiver else { return nil }
        let socket = SimulatedInterface(
            name: "\(interface.name):\(port)", transport: TransportID(nextTransport),
            address: interface.address.withPort(port), outbound: interface.outbound, inbound: interface.inbound,
            nat: interface.nat, router: interface.router, receiver: receiver)
        nextTransport += 1
        socket.sendError = interface.sendError
        socket.localMaximumPayload = interface.localMaximumPayload
        if interface.nat == nil {
            addRoute(to: socket)
        } else {
            insideInterfaces[socket.address] = socket
        }
        return socket
    }

    func forget(_ socket: SimulatedInterface) {
        insideInterfaces[socket.address] = nil
        guard socket.nat == nil, case .sockets(let sockets) = routes[socket.address.withPort(0)] else { return }
        routes[socket.address.withPort(0)] = .sockets(sockets.filter { $0 !== socket })
    }

    private func addRoute(to interface: SimulatedInterface) {
        let key = interface.address.withPort(0)
        var sockets: [SimulatedInterface] = []
        if case .sockets(let known) = routes[key] { sockets = known }
        routes[key] = .sockets(sockets + [interface])
    }

    /// A NAT whose first outside address is `address`; each rebinding of the address takes the next one.
    ///
    /// - Parameter outer: another NAT that translates once more what leaves this one.
    public func makeNAT(
        at address: NetworkAddress, _ configuration: SimulatedNAT.Configuration = .init(),
        behind outer: SimulatedNAT? = nil
    ) -> SimulatedNAT {
        let nat = SimulatedNAT(
            network: self, address: address, configuration: configuration, behind: outer, random: random.split())
        route(address, to: nat)
        return nat
    }

    func route(_ address: NetworkAddress, to nat: SimulatedNAT) {
        if let outer = nat.outer {
            outer.route(address, to: nat)
        } else {
            routes[address.withPort(0)] = .nat(nat)
        }
    }

    /// A router that several hosts may share, between their access and the core: a bottleneck, or a hop with a small MTU.
    public func makeRouter(
        named name: String, toCore: LinkConditions, fromCore: LinkConditions? = nil
    ) -> SimulatedRouter {
        SimulatedRouter(
            name: name, toCore: SimulatedLink(toCore, random: random.split()),
            fromCore: SimulatedLink(fromCore ?? toCore, random: random.split()))
    }

    /// A balancer for servers that share `address`.
    public func makeLoadBalancer(
        at address: NetworkAddress, _ policy: SimulatedLoadBalancer.Policy
    ) -> SimulatedLoadBalancer {
        let balancer = SimulatedLoadBalancer(address: address, policy: policy)
        routes[address.withPort(0)] = .balancer(balancer)
        return balancer
    }

    /// Lets `tap` see every datagram in the core, after the sender's NAT and before the receiver's. Taps see a datagram
    /// in the order in which they were added, until one does not let it pass.
    public func addTap(_ tap: @escaping (SimulatedDatagram) -> TapVerdict) {
        taps.append(tap)
    }

    /// Puts a datagram into the core under whatever source it carries. Taps do not see it.
    public func inject(_ datagram: SimulatedDatagram, after delay: Nanoseconds = .zero) {
        scheduler.schedule(after: delay) { [self] in
            journal.note("injected \(datagram.source) → \(datagram.destination) \(datagram.summary)")
            var datagram = datagram
            datagram.isInjected = true
            forward(datagram)
        }
    }

    package func send(_ datagram: SimulatedDatagram, from interface: SimulatedInterface) {
        carry(datagram, over: interface.outbound, "\(interface.name) out") { [self] in leave($0, interface) }
    }

    /// Lets go of everything that is under way and of whoever watched.
    package func shutDown() {
        scheduler.removeAll()
        taps = []
    }

    private func leave(_ datagram: SimulatedDatagram, _ interface: SimulatedInterface) {
        var datagram = datagram
        var translator = interface.nat
        while let nat = translator {
            datagram.source = nat.outsideAddress(of: datagram.source, for: datagram.destination, now: now)
            translator = nat.outer
        }
        guard let router = interface.router else { return enterCore(datagram) }
        carry(datagram, over: router.toCore, "\(router.name) to core") { [self] in enterCore($0) }
    }

    private func enterCore(_ datagram: SimulatedDatagram) {
        for tap in taps {
            switch tap(datagram) {
            case .pass: continue
            case .drop:
                journal.note("tap drops \(datagram.source) → \(datagram.destination) \(datagram.summary)")
            case .delay(let delay):
                scheduler.schedule(after: delay) { [self] in forward(datagram) }
            }
            return
        }
        forward(datagram)
    }

    private func forward(_ datagram: SimulatedDatagram) {
        switch routes[datagram.destination.withPort(0)] {
        case .sockets(let sockets):
            guard
                let socket = sockets.first(where: {
                    $0.address.port == datagram.destination.port || $0.address.port == 0
                })
            else {
                unroutableCount += 1
                return
            }
            leaveCore(datagram, socket)
        case .nat(let nat):
            enter(datagram, nat)
        case .balancer(let balancer) where balancer.address.port == datagram.destination.port:
            guard let interface = balancer.target(of: datagram) else {
                unroutableCount += 1
                return
            }
            leaveCore(datagram, interface)
        default:
            unroutableCount += 1
        }
    }

    /// Goes inwards from NAT to NAT.
    private func enter(_ datagram: SimulatedDatagram, _ nat: SimulatedNAT) {
        var translated = datagram
        guard let inside = nat.insideAddress(of: datagram.destination, from: datagram.source, now: now) else {
            journal.note("NAT has no mapping for \(datagram.destination), \(datagram.summary)")
            return
        }
        translated.destination = inside
        if let inner = nat.inner(at: inside) {
            enter(translated, inner)
        } else if let interface = insideInterfaces[inside] ?? insideInterfaces[inside.withPort(0)] {
            leaveCore(translated, interface)
        }
    }

    private func leaveCore(_ datagram: SimulatedDatagram, _ interface: SimulatedInterface) {
        guard let router = interface.router else { return arrive(datagram, interface) }
        carry(datagram, over: router.fromCore, "\(router.name) from core") { [self] in arrive($0, interface) }
    }

    private func arrive(_ datagram: SimulatedDatagram, _ interface: SimulatedInterface) {
        carry(datagram, over: interface.inbound, "\(interface.name) in") { [self] datagram in
            guard interface.isOpen else { return }
            journal.note("\(interface.name) ← \(datagram.source) \(datagram.summary)")
            interface.receiver?.receive(datagram, on: interface)
        }
    }

    private func carry(
        _ datagram: SimulatedDatagram, over link: SimulatedLink, _ place: @autoclosure () -> String,
        then action: @escaping (SimulatedDatagram) -> Void
    ) {
        var datagram = datagram
        let fate = link.carry(&datagram, now: now)
        let onArrival = { [datagram] in
            guard link.conditions.isUp else {
                link.countDown()
                return
            }
            action(datagram)
        }
        switch fate {
        case .dropped(let reason):
            journal.note("\(place()) drops \(datagram.summary): \(reason.rawValue)")
        case .arrives(let instant, let again):
            scheduler.schedule(at: instant, in: link.lane, onArrival)
            if let again { scheduler.schedule(at: again, onArrival) }
        }
    }
}
