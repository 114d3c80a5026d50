// SPDX-License-Identifier: Apache-2.0

public import NIOCore
import QUICProtocol
public import Tern
public import TernSimulation

extension SimulatedInternet {
    /// A computer on a ``SimulatedInternet``: a telephone, a server.
    ///
    /// The application gets its transports either from ``bind(port:)`` or, if it binds them itself, is given
    /// ``transportConfiguration`` (or ``eventLoop``) to bind them with: `Transport.bind(to: "0.0.0.0:4433", configuration:
    /// host.transportConfiguration)` opens a socket of this host.
    ///
    /// For code that belongs to the simulation, as ``SimulatedInternet`` says.
    public final class Host: Sendable {
        let loop: HostEventLoop
        private let internet: SimulatedInternet

        init(_ loop: HostEventLoop, internet: SimulatedInternet) {
            self.loop = loop
            self.internet = internet
        }

        public var name: String { loop.name }

        /// Its event loop. Transports that are bound on it are this host's.
        public var eventLoop: any EventLoop { loop }

        /// Knows the host's interfaces, and hears when they go up and down: as the system tells it to ``NetworkMonitor/system``.
        public var networkMonitor: NetworkMonitor { loop.monitor }

        /// Transports that are bound with it are this host's. Its connections find their networks by ``networkMonitor``.
        public var transportConfiguration: TransportConfiguration {
            var configuration = TransportConfiguration()
            configuration.simulation = loop
            configuration.networkMonitor = loop.monitor
            return configuration
        }

        /// In the order in which they were added; a socket that is bound to no address sends over the first that is up.
        public var interfaces: [Interface] {
            loop.preconditionInEventLoop()
            return loop.interfaces.map { Interface($0, of: self) }
        }

        /// Gives the host another interface.
        ///
        /// - Parameters:
        ///   - kind: what ``networkMonitor`` says of it.
        ///   - name: nil: by its kind `eth0`, `wlan0` or `wwan0`, or the next number that is free.
        ///   - address: IPv4 or IPv6, its port is ignored; each address once in an internet. Nil: 192.0.2.1 and so on, and behind
        ///     a NAT 10.1.0.1 and so on.
        ///   - link: between the host and the core of the network, in each direction.
        ///   - nat: what stands between the interface and the core.
        @discardableResult
        public func addInterface(
            _ kind: LocalNetwork.Kind, named name: String? = nil, address: NetworkAddress? = nil,
            link: LinkConditions = .roundTrip(.milliseconds(10)), behind nat: NAT? = nil
        ) -> Interface {
            let prefix =
                switch kind {
                case .wifi: "wlan"
                case .cellular: "wwan"
                case .vpn: "tun"
                default: "eth"
                }
            let taken = Set(loop.interfaces.map(\.name))
            let free = (0...taken.count).lazy.map { "\(prefix)\($0)" }.first { !taken.contains($0) }
            let interface = internet.attach(
                kind, named: name ?? free ?? prefix, to: loop, address: address, link: link, behind: nat)
            return Interface(interface, of: self)
        }

        /// A socket that is bound to no address, as `Transport.bind(to: "0.0.0.0:port")` opens it: it sends over whatever
        /// interface is the first that is up when a path is made, and receives over all.
        ///
        /// - Parameter port: 0 has the host choose.
        /// - Throws: `TernError.system` with EADDRINUSE.
        public func bind(port: UInt16 = 0) async throws(TernError) -> Transport {
            try await Transport.bind(
                to: NetworkAddress(ipv4: 0, port: port), configuration: transportConfiguration)
        }
    }

    /// An interface of a ``Host``, and the link that leads from it into the network.
    public final class Interface: @unchecked Sendable {
        // The reference is constant, and what it names is used on the thread alone: each call checks that.
        private let interface: HostInterface
        private let host: Host

        init(_ interface: HostInterface, of host: Host) {
            self.interface = interface
            self.host = host
        }

        public var name: String { interface.name }
        public var kind: LocalNetwork.Kind { interface.kind }
        /// The host's own address, with port 0. Behind a NAT others see another one.
        public var address: NetworkAddress { interface.address }

        /// Whether there is a network. When there is none the host knows: its ``Host/networkMonitor`` says so, and sends fail with
        /// ENETUNREACH. What is under way on the link is lost.
        public var isUp: Bool {
            get { onThread { interface.isUp } }
            set {
                onThread {
                    interface.isUp = newValue
                    host.loop.interfacesChanged()
                }
            }
        }

        /// Whether everything that is sent and received here vanishes without a word, though the interface is up: WiFi at the
        /// edge of its reach, a router that has crashed.
        public var losesEverything: Bool {
            get { onThread { interface.losesEverything } }
            set { onThread { interface.losesEverything = newValue } }
        }

        /// Delay, bandwidth, loss and whatever else of the link, in each direction. Can be changed while datagrams are under
        /// way. `isUp` in it is not read: ``isUp`` and ``losesEverything`` decide.
        public var link: LinkConditions {
            get { onThread { interface.conditions } }
            set { onThread { interface.conditions = newValue } }
        }

        /// What became of the datagrams that the host sent here.
        public var sent: LinkCounters { onThread { interface.attachment.outbound.counters } }
        /// What became of the datagrams that others sent to the host here.
        public var received: LinkCounters { onThread { interface.attachment.inbound.counters } }

        /// A socket on this interface's address.
        ///
        /// - Parameter port: 0 has the host choose.
        /// - Throws: `TernError.system` with EADDRINUSE.
        public func bind(port: UInt16 = 0) async throws(TernError) -> Transport {
            try await Transport.bind(
                to: interface.address.withPort(port), configuration: host.transportConfiguration)
        }

        private func onThread<R>(_ body: () -> R) -> R {
            host.loop.preconditionInEventLoop()
            return body()
        }
    }

    /// A network address translator: hosts behind it are seen under its address and ports that it chooses.
    public final class NAT: @unchecked Sendable {
        // The reference is constant, and what it names is used on the thread alone: each call checks that.
        private let wrapped: SimulatedNAT
        private let time: VirtualTime
        let number: UInt32

        init(_ wrapped: SimulatedNAT, number: UInt32, time: VirtualTime) {
            self.wrapped = wrapped
            self.number = number
            self.time = time
        }

        var nat: SimulatedNAT {
            precondition(time.isCurrent, "a simulated NAT is used by the simulation's body and by the tasks below it")
            return wrapped
        }

        /// Forgets its mappings: hosts behind it are seen under other ports, another address, or both, from the next datagram
        /// on that they send. What is sent to the old ones does not arrive, unless `SimulatedNAT.Configuration.oldMappings`
        /// lets them linger.
        public func rebind(_ kind: SimulatedNAT.Rebinding = .port) { nat.rebind(kind) }

        /// How often it has rebound.
        public var rebindingCount: Int { nat.rebindingCount }

        /// The address of new mappings, with port 0.
        public var address: NetworkAddress { nat.address }
    }
}

extension LinkConditions {
    /// A link on which a round trip takes `time`, the same in both directions.
    ///
    /// - Parameters:
    ///   - time: of a round trip without queues; each direction takes half of it.
    ///   - bandwidth: in bits a second, of each direction; nil for no limit.
    ///   - loss: the probability, from 0 to 1, that a datagram is lost, in each direction.
    public static func roundTrip(_ time: Duration, bandwidth: Int? = nil, loss: Double = 0) -> LinkConditions {
        LinkConditions(delay: Nanoseconds(time / 2), loss: loss, bandwidth: bandwidth)
    }
}
