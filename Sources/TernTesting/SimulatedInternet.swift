// SPDX-License-Identifier: Apache-2.0

import Foundation
import QUICProtocol
import Synchronization
@_exported public import Tern
@_exported public import TernSimulation

/// An internet in virtual time, on whose hosts an application runs as it is: over Tern's public API, with its own tasks. What
/// happens to its networks is what a test says.
///
/// ```swift
/// try await SimulatedInternet.run(seed: 1) { internet in
///     let nat = internet.makeNAT()
///     let server = try await internet.addHost("echo.example").bind(port: 4433)
///     let phone = try await internet.addHost("phone", behind: nat).bind()
///     …
///     nat.rebind()
/// }
/// ```
///
/// **Time.** All that belongs to the simulation runs on one thread, and its clock stands still while anything there can go on.
/// When nothing can, the clock goes at once to the next thing that is to happen: an hour of silence takes no time. What
/// belongs to it are the body of ``run(seed:timeLimit:trace:_:)``, child tasks, tasks that these make with `Task { }` and
/// `Task.detached`, actors that they call, and every event loop of a host. `Task.sleep` in a task waits for virtual time
/// (<doc:TernTesting#What-the-clock-waits-for> has the exceptions).
///
/// What happens elsewhere, on the main actor, a dispatch queue or another event loop, takes no virtual time and is not waited
/// for: say ``holdingTime(_:)`` around it.
///
/// **Chance.** What networks lose and delay, ports and connection IDs are drawn from the seed. TLS draws its own keys. So bytes
/// differ between two runs of a seed; when which datagram is sent and lost does not, but where the length of a signature, a
/// byte or two, takes its time on a link of little bandwidth.
///
/// **Threading.** Its methods, and those of hosts, interfaces and NATs, are for code that belongs to the simulation: they trap
/// on any other thread. ``elapsed`` and ``clock`` may be read anywhere.
public final class SimulatedInternet: Sendable {
    /// Why a simulation ended before its body did.
    public enum Failure: Error, Hashable, CustomStringConvertible {
        /// So much virtual time passed.
        case timeLimit(Duration)
        /// Nothing was left to happen: everybody waits for somebody else, or for something that happens outside of the
        /// simulation without ``SimulatedInternet/holdingTime(_:)``.
        case nothingLeft
        /// Tasks went on and on while the clock stood still: one that waits by `Task.yield()`, for instance.
        case busy

        public var description: String {
            switch self {
            case .timeLimit(let limit): "the simulation was not over after \(limit) of virtual time"
            case .nothingLeft: "nothing is left to happen in the simulation, and its body waits"
            case .busy: "tasks of the simulation go on without end, and no time passes"
            }
        }
    }

    let time: VirtualTime
    private let state: State

    /// On the thread of the simulation alone, and before it has begun.
    private final class State: @unchecked Sendable {
        let network: SimulatedNetwork
        let names = HostNames()
        var hosts: [HostEventLoop] = []
        var natCount: UInt32 = 0
        var addressCounts: [UInt32: UInt32] = [:]

        init(network: SimulatedNetwork) { self.network = network }
    }

    private init(seed: UInt64, trace: (@Sendable (String) -> Void)?) {
        let network = SimulatedNetwork(seed: seed)
        network.journal.trace = trace
        state = State(network: network)
        time = VirtualTime(scheduler: network.scheduler)
    }

    // MARK: Running

    /// Runs `body` on an internet of its own, and returns what it returns. Then every connection and transport of its hosts is
    /// closed.
    ///
    /// Cancelling the calling task cancels the body. Simulations may run side by side, each on its own thread.
    ///
    /// - Parameters:
    ///   - seed: what all chance is drawn from.
    ///   - timeLimit: of virtual time.
    ///   - trace: receives a line for each datagram and for what happens to networks, each with the virtual time in seconds.
    /// - Throws: what `body` throws, or ``Failure``, after `body` was cancelled and its transports closed.
    public static func run<Value: Sendable>(
        seed: UInt64, timeLimit: Duration = .seconds(3_600), trace: (@Sendable (String) -> Void)? = nil,
        _ body: @escaping @Sendable (SimulatedInternet) async throws -> Value
    ) async throws -> Value {
        let internet = SimulatedInternet(seed: seed, trace: trace)
        let ending = Ending<Value>()
        // Made here, so that it has the caller's task-local values: a test's expectations know their test by one.
        let task = Task(executorPreference: internet.time) {
            do {
                ending.end(.success(try await body(internet)))
            } catch {
                ending.end(.failure(error))
            }
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let thread = Thread {
                    let result = internet.time.asThread { internet.run(task, ending, timeLimit: timeLimit) }
                    continuation.resume(with: result)
                }
                thread.name = "simulated internet"
                thread.stackSize = 8 * 1_024 * 1_024
                thread.start()
            }
        } onCancel: {
            task.cancel()
        }
    }

    /// On the thread.
    private func run<Value: Sendable>(
        _ task: Task<Void, Never>, _ ending: Ending<Value>, timeLimit: Duration
    ) -> Result<Value, any Error> {
        let start = state.network.now
        let failure: Failure? =
            switch time.run(until: start + Nanoseconds(timeLimit), isDone: { ending.result != nil }) {
            case .finished: nil
            case .timeLimit: .timeLimit(timeLimit)
            case .nothingLeft: .nothingLeft
            case .busy: .busy
            }
        // Whoever waits for the network is told that it is gone.
        if failure != nil { task.cancel() }
        for host in state.hosts { host.shutDown() }
        time.end()
        state.network.shutDown()
        state.hosts = []
        if let failure { return .failure(failure) }
        return ending.result ?? .failure(Failure.nothingLeft)
    }

    // MARK: Time

    /// Virtual time since the start. From any thread.
    public var elapsed: Duration { (time.now - Scheduler.start).duration }

    /// The clock of the simulation, for code that takes one.
    public var clock: SimulatedClock { SimulatedClock(time: time) }

    /// Runs tasks of the simulation, also those that something outside of it wakes. The body and its child tasks prefer it; give
    /// it to a task of its own that does not only wait for the simulation: `Task(executorPreference: internet.executor)`.
    public var executor: any TaskExecutor { time }

    /// Whether `Task.sleep` waits for virtual time in tasks of a simulation: with the compilers of Swift 6.3. With others it
    /// waits for the real clock, and virtual time does not wait for it.
    public static let makesTaskSleepVirtual = VirtualTime.isAskedToSleep

    /// Lets virtual time pass.
    ///
    /// - Throws: `CancellationError` when the task is cancelled.
    public func sleep(for duration: Duration) async throws {
        try await clock.sleep(for: duration)
    }

    /// Has the clock stand still until `body` returns, though it waits for something that the simulation does not know of: the
    /// main actor, a file, another process. What in it waits for the simulated network waits for ever.
    nonisolated(nonsending)
        public func holdingTime<R>(_ body: () async throws -> R) async rethrows -> R
    {
        time.hold()
        defer { time.letGo() }
        return try await body()
    }

    // MARK: The network

    /// The network below: routers, taps that watch, drop and delay datagrams, and the journal.
    public var network: SimulatedNetwork {
        requireThread()
        return state.network
    }

    /// A NAT that is seen from outside at an address of its own, 198.18.1.1 for the first.
    ///
    /// - Parameter outer: another one that translates once more what leaves this one.
    public func makeNAT(_ configuration: SimulatedNAT.Configuration = .init(), behind outer: NAT? = nil) -> NAT {
        requireThread()
        state.natCount += 1
        let address = NetworkAddress(ipv4: 0xc612_0001 + state.natCount << 8, port: 0)
        let nat = state.network.makeNAT(at: address, configuration, behind: outer?.nat)
        return NAT(nat, number: state.natCount, time: time)
    }

    /// A host with one interface: `wlan0` if it is WiFi's, `wwan0` if it is cellular, otherwise `eth0`.
    ///
    /// - Parameters:
    ///   - name: what `connect(to: "name:port")` finds it by. Names must not differ in case alone.
    ///   - link: between the host and the core of the network, in each direction: a round trip between two hosts takes the
    ///     sum of theirs.
    ///   - nat: what stands between the interface and the core. The host cannot be connected to then.
    public func addHost(
        _ name: String, _ kind: LocalNetwork.Kind = .wired, link: LinkConditions = .roundTrip(.milliseconds(10)),
        behind nat: NAT? = nil
    ) -> Host {
        let host = addBareHost(name)
        host.addInterface(kind, link: link, behind: nat)
        return host
    }

    /// A host that has no interface yet, for one whose first interface ``addHost(_:_:link:behind:)`` cannot describe.
    public func addBareHost(_ name: String) -> Host {
        requireThread()
        let loop = HostEventLoop(name: name, time: time, network: state.network, names: state.names)
        state.hosts.append(loop)
        return Host(loop, internet: self)
    }

    /// Gives an interface its place in the network.
    func attach(
        _ kind: LocalNetwork.Kind, named name: String, to loop: HostEventLoop, address: NetworkAddress?,
        link: LinkConditions, behind nat: NAT?
    ) -> HostInterface {
        requireThread()
        let address = address?.withPort(0) ?? nextAddress(behind: nat)
        let interface = loop.addInterface(kind, named: name, at: address, link: link, behind: nat?.nat)
        if nat == nil { state.names.add(address, to: loop.name) }
        return interface
    }

    /// 192.0.2.1 and so on; behind the second NAT 10.2.0.1 and so on.
    private func nextAddress(behind nat: NAT?) -> NetworkAddress {
        let number = nat?.number ?? 0
        state.addressCounts[number, default: 0] += 1
        let host = state.addressCounts[number, default: 1]
        return NetworkAddress(ipv4: (nat == nil ? 0xc000_0200 : 0x0a00_0000 + number << 16) + host, port: 0)
    }

    private func requireThread() {
        precondition(
            time.isCurrent, "a simulated internet is used by its body and by the tasks below it, not from other threads"
        )
    }
}

/// How a body ended.
private final class Ending<Value: Sendable>: Sendable {
    private let state = Mutex<Result<Value, any Error>?>(nil)

    var result: Result<Value, any Error>? { state.withLock { $0 } }
    func end(_ result: Result<Value, any Error>) { state.withLock { $0 = result } }
}
