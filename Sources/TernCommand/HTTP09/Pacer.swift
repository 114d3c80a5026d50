// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// Spreads what an application writes evenly over time.
///
/// All that share a pacer share its rate. A late writer may catch up, but for no more than a tenth of a second.
final class Pacer: Sendable {
    private let bytesPerSecond: Double
    private let next: Mutex<ContinuousClock.Instant>

    init(bytesPerSecond: Double) {
        self.bytesPerSecond = max(1, bytesPerSecond)
        self.next = Mutex(ContinuousClock.now)
    }

    /// Bytes to write at a time for a smooth flow: those of about 5 ms.
    var chunkSize: Int { min(max(Int(bytesPerSecond * 0.005), 1_200), 256 * 1_024) }

    /// Returns when `count` more bytes are due.
    func wait(for count: Int) async throws {
        let span = Duration.seconds(Double(count) / bytesPerSecond)
        let due = next.withLock { next in
            let due = max(next, ContinuousClock.now - .milliseconds(100))
            next = due + span
            return due
        }
        if due > ContinuousClock.now { try await Task.sleep(until: due, tolerance: .zero) }
    }
}
