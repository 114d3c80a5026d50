// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization
import Tern

/// The demo's server: gives out the file at a steady pace, and keeps what it sees of its client's moves.
final class DemoServer: Sendable {
    /// What the server heard of a path, and when.
    struct Sighting: Sendable {
        var time: ContinuousClock.Instant
        var event: PathEvent
    }

    private struct State {
        var sightings: [Sighting] = []
        var mayFinish = false
    }

    private let listener: Listener
    private let files: FileServer
    private let state: SharedState

    /// Shared with the throttle, which the file server owns.
    private final class SharedState: Sendable {
        let value = Mutex(State())
    }

    /// - Parameter seconds: how long the file shall take.
    init(listener: Listener, folder: ServedFolder, size: Int, seconds: Double) {
        self.listener = listener
        let state = SharedState()
        self.state = state
        let pacer = Pacer(bytesPerSecond: Double(size) / seconds)
        files = FileServer(
            folder: folder,
            chunkSize: pacer.chunkSize,
            throttle: { answer, next in
                try await pacer.wait(for: next)
                // The end waits until all moves are done, so that each happens in the middle of the transfer.
                while answer.sent + next > answer.size - answer.size / 20, !state.value.withLock({ $0.mayFinish }) {
                    try await Task.sleep(for: .milliseconds(10))
                }
            }
        )
    }

    /// Lets the last twentieth of the file go.
    func allowToFinish() { state.value.withLock { $0.mayFinish = true } }

    /// Serves every connection, until cancelled.
    func run() async throws {
        try await withThrowingDiscardingTaskGroup { group in
            for try await connection in listener.connections {
                group.addTask { await self.files.serve(connection) }
                group.addTask { await self.watch(connection) }
            }
        }
    }

    private func watch(_ connection: Connection) async {
        for await event in connection.pathEvents {
            let sighting = Sighting(time: .now, event: event)
            state.value.withLock { state in
                // A demo has a handful of moves; a peer that moves without end shall not fill our memory.
                if state.sightings.count < 10_000 { state.sightings.append(sighting) }
            }
        }
    }

    /// What was seen since.
    func sightings(since time: ContinuousClock.Instant) -> [Sighting] {
        state.value.withLock { $0.sightings.filter { $0.time >= time } }
    }

    /// The connection table.
    func table() async -> [DemoTableRow] {
        var rows: [DemoTableRow] = []
        for entry in await listener.connectionTable {
            rows.append(
                DemoTableRow(
                    connectionID: "\(entry.id)",
                    clientAddress: entry.clientAddress,
                    state: "\(entry.state)",
                    isValidated: entry.isValidated,
                    pathsSeen: entry.pathsSeen
                )
            )
        }
        return rows
    }
}

/// A row of the server's connection table.
struct DemoTableRow: Sendable {
    var connectionID: String
    var clientAddress: NetworkAddress
    var state: String
    var isValidated: Bool
    var pathsSeen: Int
}
