// SPDX-License-Identifier: Apache-2.0

/// What a connection's handles read without going to the event loop. Written when a path changes, not for every packet.
struct PublishedConnection: Sendable {
    struct KnownPath: Sendable {
        var id: PathID
        var tuple: FourTuple
        var state: PathState
        var priority: PathPriority?
    }

    var paths: [KnownPath] = []
    var activePath = PathID(0)
    var initialPath = PathID(0)
    /// The addresses of the path last active: still known when the connection is gone.
    var activeTuple: FourTuple?
    var applicationProtocol: String?
    /// Where the server may be reached, of a client.
    var serverAddresses: [NetworkAddress] = []
    /// Written by the application; put in force on the event loop.
    var migration: MigrationPolicy {
        get { if case .other(let policy) = wantedMigration { policy } else { .manual } }
        set { wantedMigration = .other(newValue) }
    }
    private var wantedMigration = WantedMigration.manual
    var closeReason: CloseReason?
    /// The connection's last counters, once it is over.
    var finalStatistics: ConnectionStatistics?

    /// Of a server's connections, which are many, none has more than the first.
    private indirect enum WantedMigration {
        case manual
        case other(MigrationPolicy)
    }

    func path(_ id: PathID) -> KnownPath? { paths.first { $0.id == id } }
}

extension ConnectionDriver {
    func publish(_ connection: borrowing QUICConnection) {
        let active = connection.activePath
        let paths = connection.pathSnapshots().map {
            PublishedConnection.KnownPath(id: $0.id, tuple: $0.tuple, state: $0.state, priority: $0.priority)
        }
        let applicationProtocol = connection.applicationProtocol
        published.withLock { published in
            published.paths = paths
            published.activePath = active
            published.applicationProtocol = applicationProtocol
            if let tuple = published.path(active)?.tuple { published.activeTuple = tuple }
        }
    }

    /// The first publication: the path that there is now is the handshake's.
    func publishInitially(_ connection: borrowing QUICConnection) {
        let active = connection.activePath
        let addresses = connection.serverAddresses
        published.withLock {
            $0.initialPath = active
            $0.serverAddresses = addresses
        }
        publish(connection)
    }
}
