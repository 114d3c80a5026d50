// SPDX-License-Identifier: Apache-2.0

import Dispatch
import NIOCore
import QUICProtocol
import Synchronization
import Tern
import TernSimulation

#if canImport(Darwin)
import Darwin
#elseif canImport(Musl)
import Musl
#else
import Glibc
#endif

/// A simulated host as the datapath sees it: an event loop, and what stands in for the system on it. All hosts of a simulation
/// run on its one thread, and by its clock.
///
/// `@unchecked Sendable`: what changes is touched on the thread alone.
final class HostEventLoop: SimulatedEventLoop, @unchecked Sendable {
    let name: String
    let time: VirtualTime
    private let network: SimulatedNetwork
    private let names: HostNames

    private(set) var interfaces: [HostInterface] = []
    private var sockets: [HostSocket] = []
    /// Those that are still to come: without the others a timer that was cancelled keeps nothing alive.
    private var timers: [UInt64: HostTimer] = [:]
    private let lastTimer = Atomic<UInt64>(0)
    private var isOver = false
    private var nextPort: UInt16 = 49_152
    /// What the host knows of its networks.
    let monitor = NetworkMonitor()

    init(name: String, time: VirtualTime, network: SimulatedNetwork, names: HostNames) {
        self.name = name
        self.time = time
        self.network = network
        self.names = names
    }

    // MARK: EventLoop

    var inEventLoop: Bool { time.isCurrent }

    var now: NIODeadline { .uptimeNanoseconds(UInt64(clamping: time.now.nanoseconds)) }

    func execute(_ task: @escaping @Sendable () -> Void) { time.add(.call(task)) }

    @preconcurrency
    func scheduleTask<T>(
        deadline: NIODeadline, _ task: @escaping @Sendable () throws -> T
    ) -> Scheduled<T> {
        let promise = makePromise(of: T.self)
        let timer = HostTimer(
            run: { do { promise.assumeIsolated().succeed(try task()) } catch { promise.fail(error) } },
            giveUp: { promise.fail(EventLoopError.shutdown) })
        let id = lastTimer.add(1, ordering: .relaxed).newValue
        let instant = Instant(nanoseconds: Int64(clamping: deadline.uptimeNanoseconds))
        time.onThread { [self] in
            guard !isOver else { return timer.giveUp() }
            timers[id] = timer
            time.scheduler.schedule(at: instant) { [weak self] in self?.timers.removeValue(forKey: id)?.run() }
        }
        // By its number: whoever keeps this does not keep what was to be done.
        return Scheduled(promise: promise) { [self] in time.onThread { [self] in timers[id] = nil } }
    }

    @preconcurrency
    func scheduleTask<T>(in delay: TimeAmount, _ task: @escaping @Sendable () throws -> T) -> Scheduled<T> {
        scheduleTask(deadline: now + delay, task)
    }

    func shutdownGracefully(queue: DispatchQueue, _ callback: @escaping @Sendable ((any Error)?) -> Void) {
        // It ends with its simulation.
        queue.async { callback(nil) }
    }

    func preconditionInEventLoop(file: StaticString, line: UInt) {
        precondition(inEventLoop, "not on the thread of the simulation", file: file, line: line)
    }

    func preconditionNotInEventLoop(file: StaticString, line: UInt) {
        precondition(!inEventLoop, "on the thread of the simulation", file: file, line: line)
    }

    // MARK: The system

    var instant: Instant { time.now }
    var taskExecutor: any TaskExecutor { time }

    func makeRandomSource() -> RandomSource { network.makeRandomSource() }

    func addresses(of name: String) -> [NetworkAddress] { names.addresses(of: name) }

    func addresses(ofInterface name: String) -> [NetworkAddress] {
        interfaces.filter { $0.name == name }.map(\.address)
    }

    func openSocket(at address: NetworkAddress, device: String?) throws(TernError) -> any SimulatedSocket {
        let call = "bind to \(address)"
        guard !isOver else { throw .system(call: call, errno: ENETDOWN) }
        guard address.isUnspecified || interfaces.contains(where: { $0.address.hasSameIP(as: address) }) else {
            throw .system(call: call, errno: EADDRNOTAVAIL)
        }
        func isTaken(_ port: UInt16) -> Bool {
            sockets.contains { other in
                other.address.port == port && other.address.family == address.family
                    && (other.address.isUnspecified || address.isUnspecified || other.address.hasSameIP(as: address))
            }
        }
        var port = address.port
        if port == 0 {
            guard let free = (0..<16_384).lazy.map({ _ in self.takePort() }).first(where: { !isTaken($0) }) else {
                throw .system(call: call, errno: EADDRINUSE)
            }
            port = free
        } else if isTaken(port) {
            throw .system(call: call, errno: EADDRINUSE)
        }
        let socket = HostSocket(address: address.withPort(port), device: device, host: self)
        sockets.append(socket)
        return socket
    }

    private func takePort() -> UInt16 {
        defer { nextPort = nextPort == .max ? 49_152 : nextPort + 1 }
        return nextPort
    }

    func forget(_ socket: HostSocket) { sockets.removeAll { $0 === socket } }

    /// Where a socket's datagrams to a host of this family leave: the first interface that is up.
    func route(towards remote: NetworkAddress, device: String?) -> HostInterface? {
        interfaces.first { $0.isUp && $0.address.family == remote.family && (device == nil || $0.name == device) }
    }

    func send(
        _ payload: UnsafeRawBufferPointer, from local: NetworkAddress, to remote: NetworkAddress, ecn: ECNCodepoint
    ) -> Int32 {
        let interface =
            local.isUnspecified
            ? route(towards: remote, device: nil) : interfaces.first { $0.isUp && $0.address.hasSameIP(as: local) }
        guard let interface else { return ENETUNREACH }
        network.send(
            SimulatedDatagram(
                source: interface.address.withPort(local.port), destination: remote, ecn: ecn, payload: [UInt8](payload)
            ),
            from: interface.attachment)
        return 0
    }

    // MARK: Interfaces

    func addInterface(
        _ kind: LocalNetwork.Kind, named interface: String, at address: NetworkAddress, link: LinkConditions,
        behind nat: SimulatedNAT?
    ) -> HostInterface {
        let attachment = network.attach(
            self, named: "\(name).\(interface)", at: address, outbound: link, inbound: link, behind: nat)
        let interface = HostInterface(name: interface, kind: kind, attachment: attachment)
        interfaces.append(interface)
        interfacesChanged()
        return interface
    }

    func interfacesChanged() {
        monitor.update(
            interfaces.enumerated().map { index, interface in
                LocalNetwork(
                    name: interface.name, interface: interface.name, index: index + 1, kind: interface.kind,
                    addresses: [interface.address], isExpensive: interface.kind == .cellular, isRunning: interface.isUp)
            })
    }

    /// Ends its connections, closes its sockets, gives up its timers.
    func shutDown() {
        isOver = true
        closeEverything()
        interfaces = []
        let left = timers.values
        timers = [:]
        for timer in left { timer.giveUp() }
    }
}

extension HostEventLoop: DatagramReceiver {
    func receive(_ datagram: SimulatedDatagram, on attachment: SimulatedInterface) {
        let local = datagram.destination
        // As with the system, a socket of one address comes before one that is bound to none.
        let candidates = sockets.filter { $0.address.port == local.port && $0.address.family == local.family }
        let socket =
            candidates.first { $0.address.hasSameIP(as: local) } ?? candidates.first { $0.address.isUnspecified }
        socket?.receiver?.receive(datagram.payload, from: datagram.source, to: local, ecn: datagram.ecn)
    }
}

/// A UDP socket of a simulated host.
final class HostSocket: SimulatedSocket {
    let address: NetworkAddress
    private let device: String?
    private let host: HostEventLoop
    weak var receiver: SimulatedReceiver?

    init(address: NetworkAddress, device: String?, host: HostEventLoop) {
        self.address = address
        self.device = device
        self.host = host
    }

    func send(
        _ payload: UnsafeRawBufferPointer, from local: NetworkAddress, to remote: NetworkAddress, ecn: ECNCodepoint
    ) -> Int32 {
        host.send(payload, from: local.withPort(address.port), to: remote, ecn: ecn)
    }

    func source(towards remote: NetworkAddress) throws(TernError) -> NetworkAddress {
        guard let interface = host.route(towards: remote, device: device) else {
            throw .system(call: "route to \(remote)", errno: ENETUNREACH)
        }
        return interface.address
    }

    func close() { host.forget(self) }
}

/// One of a host's interfaces, on the thread alone.
final class HostInterface {
    let name: String
    let kind: LocalNetwork.Kind
    /// With port 0.
    var address: NetworkAddress { attachment.address }
    let attachment: SimulatedInterface
    var isUp = true { didSet { passOn() } }
    var losesEverything = false { didSet { passOn() } }

    init(name: String, kind: LocalNetwork.Kind, attachment: SimulatedInterface) {
        self.name = name
        self.kind = kind
        self.attachment = attachment
    }

    /// Of both directions.
    var conditions: LinkConditions {
        get { attachment.outbound.conditions }
        set {
            attachment.setConditions(newValue)
            passOn()
        }
    }

    private func passOn() { attachment.isUp = isUp && !losesEverything }
}

/// The names of a simulation's hosts. From any thread.
final class HostNames: Sendable {
    private let addresses = Mutex<[String: [NetworkAddress]]>([:])

    func addresses(of name: String) -> [NetworkAddress] { addresses.withLock { $0[name.lowercased()] ?? [] } }
    func add(_ address: NetworkAddress, to name: String) {
        addresses.withLock { $0[name.lowercased(), default: []].append(address) }
    }
}

/// What is to be done on a host's event loop later; done or given up once.
private struct HostTimer: Sendable {
    let run: @Sendable () -> Void
    let giveUp: @Sendable () -> Void
}
