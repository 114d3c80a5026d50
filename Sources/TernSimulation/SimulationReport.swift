// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// How a run of a scenario went.
public struct SimulationReport: Sendable {
    public var title: String
    public var seed: UInt64
    /// Why the run did not do what it was to do; nil when it did.
    public var failure: String?
    /// Rules that were broken on the way, whether or not it did.
    public var violations: [String] = []
    /// From the client's first packet to the end of the transfer, in virtual time.
    public var duration: Nanoseconds = .zero
    /// Until the last connection was forgotten.
    public var totalDuration: Nanoseconds = .zero
    public var downloadedBytes = 0
    public var uploadedBytes = 0
    /// The longest time without a byte delivered to the client's application while it downloaded.
    public var largestGap: Nanoseconds = .zero
    public var rebindings = 0
    /// Times the server followed its client.
    public var peerMoves = 0
    /// Times the client's data took another way.
    public var switches = 0
    public var clientCloseReason: CloseReason?
    public var serverCloseReason: CloseReason?
    /// As they were when the transfer had ended.
    public var clientStatistics = ConnectionStatistics()
    public var serverStatistics = ConnectionStatistics()
    /// Connection IDs that the server sent to, and those of them that went to more than one address.
    public var serverDestinationIDs = 0
    public var sharedServerDestinationIDs = 0
    /// The most paths that the server's connection held at once.
    public var mostServerPaths = 0
    /// Actions of the scheduler: equal in two runs that replay each other.
    public var steps = 0

    /// Nothing went wrong.
    public var isClean: Bool { failure == nil && violations.isEmpty }

    /// Bits of content a second that reached the applications, both directions together.
    public var goodput: Double {
        duration > .zero ? Double((downloadedBytes + uploadedBytes) * 8) / duration.inSeconds : 0
    }
}

extension SimulationReport: CustomStringConvertible {
    public var description: String {
        let verdict = isClean ? "passed" : ([failure].compactMap { $0 } + violations).joined(separator: "\n  ")
        let megabits = (goodput / 1e4).rounded() / 100
        return """
            \(title), seed \(seed): \(verdict)
              \(downloadedBytes) bytes down, \(uploadedBytes) up in \(duration.inMilliseconds) ms, \(megabits) Mbit/s, \
            largest gap \(largestGap.inMilliseconds) ms, \(rebindings) rebindings, \(peerMoves) moves of the peer, \
            \(switches) switches
            """
    }
}
