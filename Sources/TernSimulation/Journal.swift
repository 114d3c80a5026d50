// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// What a simulation has to say: rules that were broken and, if asked for, a line for each datagram and event.
public final class Journal {
    /// One fault tends to break its rule for every packet that follows: only the first ones are kept.
    public static let violationLimit = 20

    private let scheduler: Scheduler
    /// Each with the virtual time at which it was seen.
    public private(set) var violations: [String] = []
    private var seen: Set<String> = []
    /// Receives one line for each thing that happens. Nil, which costs nothing, unless a run is to be looked at.
    public var trace: ((String) -> Void)?

    init(scheduler: Scheduler) {
        self.scheduler = scheduler
    }

    /// Records that a rule was broken. A run with violations has failed, whatever else it achieved.
    public func violation(_ text: String) {
        trace?("\(timestamp) VIOLATION \(text)")
        guard violations.count < Journal.violationLimit, seen.insert(text).inserted else { return }
        violations.append("at \(timestamp): \(text)")
    }

    public func note(_ text: @autoclosure () -> String) {
        guard let trace else { return }
        trace("\(timestamp) \(text())")
    }

    private var timestamp: String {
        let microseconds = scheduler.elapsed.inMicroseconds
        let fraction = String(microseconds % 1_000_000)
        return "\(microseconds / 1_000_000)." + String(repeating: "0", count: 6 - fraction.count) + fraction
    }
}
