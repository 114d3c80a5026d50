// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// How far a transfer is: counted by those who receive, read by those who show it or wait for it.
final class TransferProgress: Sendable {
    struct Snapshot: Sendable {
        var bytes = 0
        var filesDone = 0
    }

    private struct State {
        var snapshot = Snapshot()
        var milestones: [(bytes: Int, continuation: AsyncStream<Void>.Continuation)] = []
    }

    private let state = Mutex(State())

    var snapshot: Snapshot { state.withLock { $0.snapshot } }

    func received(_ count: Int) {
        let reached = state.withLock { state in
            state.snapshot.bytes += count
            let bytes = state.snapshot.bytes
            let reached = state.milestones.filter { $0.bytes <= bytes }
            if !reached.isEmpty { state.milestones.removeAll { $0.bytes <= bytes } }
            return reached
        }
        for milestone in reached { milestone.continuation.yield() }
    }

    func finishedFile() { state.withLock { $0.snapshot.filesDone += 1 } }

    /// Waits until so many bytes have come.
    ///
    /// - Returns: false when the task was cancelled first.
    func reached(bytes: Int) async -> Bool {
        let (milestone, continuation) = AsyncStream<Void>.makeStream()
        let isReached = state.withLock { state in
            if state.snapshot.bytes >= bytes { return true }
            state.milestones.append((bytes, continuation))
            return false
        }
        if isReached { return true }
        for await _ in milestone { return true }
        return false
    }
}

/// The line that shows a transfer while it lasts.
///
/// HTTP/0.9 does not say how long a file is: with one file the bar only shows that something moves, with several it
/// fills as they are done.
struct TransferLine {
    let name: String
    let fileCount: Int
    private let start = ContinuousClock.now
    private var lastTime = ContinuousClock.now
    private var lastBytes = 0
    private var rate = 0.0
    private var frame = 0

    init(name: String, fileCount: Int) {
        self.name = name
        self.fileCount = fileCount
    }

    mutating func text(for progress: TransferProgress.Snapshot, width: Int) -> String {
        let now = ContinuousClock.now
        let span = (now - lastTime).inSeconds
        if span > 0 {
            let current = Double(progress.bytes - lastBytes) / span
            rate = frame == 0 ? current : rate * 0.8 + current * 0.2
        }
        lastTime = now
        lastBytes = progress.bytes
        frame += 1

        let numbers =
            "\(Format.right(Format.bytes(progress.bytes), 9))  \(Format.right(Format.rate(bytesPerSecond: rate), 10))"
            + "  \(Format.decimal((now - start).inSeconds, places: 1)) s"
        let label = fileCount == 1 ? String(name.suffix(24)) : "\(progress.filesDone) of \(fileCount) files"
        let barWidth = max(8, min(32, width - numbers.count - label.count - 8))
        return "\(label)  ▕\(bar(for: progress, width: barWidth))▏ \(numbers)"
    }

    private func bar(for progress: TransferProgress.Snapshot, width: Int) -> String {
        if fileCount > 1 { return progressBar(Double(progress.filesDone) / Double(fileCount), width: width) }
        // A block that goes to and fro.
        let block = min(6, width)
        let span = max(1, width - block)
        let phase = frame % (2 * span)
        let position = phase < span ? phase : 2 * span - phase
        return Format.left(String(repeating: " ", count: position) + String(repeating: "█", count: block), width)
    }
}
