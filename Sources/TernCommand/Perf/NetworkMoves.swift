// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Synchronization
@_spi(Testing) import Tern

/// Moves a connection again and again while it transfers.
final class NetworkMoves: Sendable {
    private let connection: Connection
    private let transport: Transport
    private let local: String
    private let state = Mutex<(count: Int, other: Transport?)>((0, nil))

    init(connection: Connection, transport: Transport, local: String) {
        self.connection = connection
        self.transport = transport
        self.local = local
    }

    var count: Int { state.withLock { $0.count } }

    /// Until the task is cancelled.
    func run(_ kind: PerfWork.Disturbance, every interval: Duration) async throws {
        var paths: [Path] = []
        if kind == .switching {
            let other = try await Transport.bind(to: local, on: transport.eventLoop)
            state.withLock { $0.other = other }
            paths = [connection.initialPath, try await connection.addPath(over: other)]
            try await paths[1].probe()
        }
        while true {
            do {
                try await Task.sleep(for: interval)
                switch kind {
                case .rebinding: try await transport.rebind()
                case .switching: try await paths[(count + 1) % 2].switch()
                }
            } catch {
                if Task.isCancelled || connection.closeReason != nil { return }
                throw error
            }
            state.withLock { $0.count += 1 }
        }
    }

    func close() async { await state.withLock { $0.other }?.close() }
}

/// The longest time between two arrivals.
final class GapMeter: Sendable {
    private let state = Mutex<(last: ContinuousClock.Instant?, largest: Duration)>((nil, .zero))

    func arrived() {
        let now = ContinuousClock.now
        state.withLock { state in
            if let last = state.last { state.largest = max(state.largest, now - last) }
            state.last = now
        }
    }

    var largest: Duration { state.withLock { $0.largest } }
}
