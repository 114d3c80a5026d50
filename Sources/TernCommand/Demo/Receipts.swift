// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// When the client's application received how many bytes: what gaps and goodput are read from.
final class Receipts: Sendable {
    private struct Receipt {
        var time: ContinuousClock.Instant
        var bytes: Int
    }

    private struct State {
        var receipts: [Receipt] = []
        var total = 0

        /// The first receipt later than a time; O(log n).
        func firstIndex(after time: ContinuousClock.Instant) -> Int {
            var (low, high) = (0, receipts.count)
            while low < high {
                let middle = (low + high) / 2
                if receipts[middle].time <= time { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }

    private let state = Mutex(State())

    /// All bytes so far.
    var total: Int { state.withLock { $0.total } }

    /// - Parameter time: not before that of the last call.
    func add(_ bytes: Int, at time: ContinuousClock.Instant = .now) {
        state.withLock { state in
            state.receipts.append(Receipt(time: time, bytes: bytes))
            state.total += bytes
        }
    }

    /// The longest time without a byte that has a part in the span; time that is not over yet counts, too.
    ///
    /// - Parameter cutsLast: counts a gap that is not over at the end of the span only up to there.
    func largestGap(
        from start: ContinuousClock.Instant,
        to end: ContinuousClock.Instant,
        cutsLast: Bool = false
    ) -> Duration {
        state.withLock { state in
            var largest = Duration.zero
            var index = state.firstIndex(after: start)
            var previous = index > 0 ? state.receipts[index - 1].time : start
            while previous < end {
                let next = index < state.receipts.count ? state.receipts[index].time : ContinuousClock.now
                largest = max(largest, (cutsLast ? min(next, end) : next) - previous)
                guard index < state.receipts.count else { break }
                previous = next
                index += 1
            }
            return largest
        }
    }

    /// Bytes a second in a span.
    func goodput(from start: ContinuousClock.Instant, to end: ContinuousClock.Instant) -> Double {
        guard end > start else { return 0 }
        let bytes = state.withLock { state in
            state.receipts[state.firstIndex(after: start)..<state.firstIndex(after: end)].reduce(0) { $0 + $1.bytes }
        }
        return Double(bytes) / (end - start).inSeconds
    }
}
