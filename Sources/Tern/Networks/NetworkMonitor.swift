// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import Synchronization

/// Knows the host's networks, and says when they change: what the automatic policy goes by (M35).
///
/// ``system`` asks the system: rtnetlink on Linux, the path monitor on Apple systems. An application that knows more (or a
/// test) makes its own and calls ``update(_:)``. A monitor may serve any number of connections.
public final class NetworkMonitor: Sendable {
    /// What the system reports, ranked by ``NetworkPreference/standard``. Nothing runs while nobody listens.
    public static let system = NetworkMonitor.system(preferring: .standard)

    /// What the system reports, ranked by the application.
    public static func system(preferring preference: NetworkPreference) -> NetworkMonitor {
        NetworkMonitor(networks: [], preference: preference, source: SystemNetworks())
    }

    public let preference: NetworkPreference
    /// Whether the networks are the system's.
    let isSystem: Bool
    private let source: SystemNetworks?
    private let state: Mutex<State>

    private struct State {
        var networks: [LocalNetwork]
        var subscribers: [UInt64: @Sendable ([LocalNetwork]) -> Void] = [:]
        var nextSubscriber: UInt64 = 0
    }

    private init(networks: [LocalNetwork], preference: NetworkPreference, source: SystemNetworks?) {
        self.preference = preference
        self.source = source
        self.isSystem = source != nil
        self.state = Mutex(State(networks: networks))
    }

    /// A monitor of the application's own: it knows what it is told by ``update(_:)``.
    public convenience init(networks: [LocalNetwork] = [], preference: NetworkPreference = .standard) {
        self.init(networks: networks, preference: preference, source: nil)
    }

    /// A monitor that follows a sequence of snapshots, each of which has all networks, until it ends.
    public convenience init<Snapshots: AsyncSequence & Sendable>(
        following snapshots: Snapshots, preference: NetworkPreference = .standard
    ) where Snapshots.Element == [LocalNetwork], Snapshots.Failure == Never {
        self.init(networks: [], preference: preference)
        Task { [weak self] in
            for await networks in snapshots {
                guard let self else { return }
                update(networks)
            }
        }
    }

    /// The networks there are now: those of a ``system`` monitor are read from the system.
    public var networks: [LocalNetwork] { source?.read() ?? state.withLock { $0.networks } }

    /// Tells all networks there are from now on, whatever was told before. Not for a ``system`` monitor, which is told by
    /// the system.
    public func update(_ networks: [LocalNetwork]) {
        let subscribers = state.withLock { state -> [@Sendable ([LocalNetwork]) -> Void] in
            guard state.networks != networks else { return [] }
            state.networks = networks
            return Array(state.subscribers.values)
        }
        for subscriber in subscribers { subscriber(networks) }
    }

    /// All networks, now and after each change. Only the newest snapshot waits for a reader that is slow.
    public var updates: AsyncStream<[LocalNetwork]> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: [LocalNetwork].self, bufferingPolicy: .bufferingNewest(1))
        let number = subscribe { continuation.yield($0) }
        continuation.yield(networks)
        continuation.onTermination = { [self] _ in unsubscribe(number) }
        return stream
    }

    /// Has `body` called, on some thread, after each change until `unsubscribe`.
    func subscribe(_ body: @escaping @Sendable ([LocalNetwork]) -> Void) -> UInt64 {
        let (number, isFirst) = state.withLock { state in
            defer { state.nextSubscriber += 1 }
            state.subscribers[state.nextSubscriber] = body
            return (state.nextSubscriber, state.subscribers.count == 1)
        }
        if isFirst, let source {
            state.withLock { $0.networks = source.read() }
            source.start { [weak self] in self?.update($0) }
        }
        return number
    }

    var subscriberCountForTesting: Int { state.withLock { $0.subscribers.count } }

    func unsubscribe(_ number: UInt64) {
        let isLast = state.withLock { state in
            state.subscribers.removeValue(forKey: number) != nil && state.subscribers.isEmpty
        }
        if isLast { source?.stop() }
    }
}
