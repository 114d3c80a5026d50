// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// What shows of a flow's congestion control from outside, so that the model can go on from there.
struct FlowWatch {
    /// Bytes.
    private(set) var window = 0
    /// Nil in the first slow start.
    private(set) var slowStartEnd: Instant?
    /// The windows before the last reduction, and what fast convergence made of it; in bytes. Nil without a reduction.
    private var prior: Double?
    private var most: Double?
    /// When the window was reduced, or slow start ended without that.
    private var stageStart = Instant.zero

    /// Looks at the flow, several times a round trip.
    mutating func look(at path: PathSnapshot, now: Instant) {
        if path.congestionWindow < window {
            let before = Double(path.congestionWindow) / 0.7
            most = before < most ?? 0 ? before * 0.85 : before
            prior = before
            stageStart = now
        }
        window = path.congestionWindow
        if slowStartEnd == nil, !path.isInSlowStart {
            slowStartEnd = now
            if prior == nil { stageStart = now }
        }
    }

    /// The flow as it stands, for the model.
    ///
    /// - Parameter roundTrip: with what waits in the queue, in seconds.
    func flow(now: Instant, roundTrip: Double) -> Model.Flow {
        let size = Double(Cell.datagramSize)
        let datagrams = Double(window) / size
        let elapsed = max(0, (now - stageStart).inSeconds)
        let before = prior.map { $0 / size }
        let friendly = (before ?? datagrams) * 0.7 + elapsed / roundTrip * 0.53
        return Model.Flow(
            window: datagrams, most: most.map { $0 / size } ?? datagrams, prior: before ?? 0,
            friendly: before == nil ? datagrams : min(datagrams, friendly), elapsed: elapsed,
            isRecovering: before != nil && elapsed < roundTrip)
    }
}
