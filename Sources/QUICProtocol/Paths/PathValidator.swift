// SPDX-License-Identifier: Apache-2.0

/// Proves that the peer can be reached on a path (RFC 9000, section 8.2).
///
/// ```
///            start                    challengeSent (again and again, backing off)
///   idle ──────────────▶ validating ────────────────┐
///    ▲                    │  │   ▲──────────────────┘
///    │  response matches  │  │ deadline
///    └────────────────────┘  └─────────────▶ the owner is told that it failed
/// ```
/// A response is matched against all outstanding challenges, on whatever path it arrives (RFC 9000, section 8.2.3).
struct PathValidator {
    /// Challenges that may still be answered; with each resend the oldest goes.
    static let maximumOutstanding = 8

    struct Challenge: Equatable {
        var data: UInt64
        var sentAt: Instant
        /// Its datagram had 1,200 bytes, so that its answer proves that the path bears as many.
        var isPadded: Bool
    }

    private var outstanding: [Challenge] = []

    private(set) var isRunning = false
    /// Challenges sent since the validation started.
    private(set) var challengesSent = 0
    private var interval: Nanoseconds = .zero
    /// When the next challenge is due, while running.
    private(set) var nextChallengeAt: Instant = .distantFuture
    /// When the validation fails, while running.
    private(set) var failsAt: Instant = .distantFuture
    private(set) var startedAt: Instant = .zero

    /// - Parameters:
    ///   - interval: the time to the first resend; each further one takes twice as long as that before.
    mutating func start(now: Instant, interval: Nanoseconds, timeout: Nanoseconds) {
        isRunning = true
        challengesSent = 0
        outstanding = []
        self.interval = max(interval, .milliseconds(1))
        nextChallengeAt = now
        startedAt = now
        failsAt = now + timeout
    }

    mutating func stop() {
        isRunning = false
        outstanding = []
        nextChallengeAt = .distantFuture
        failsAt = .distantFuture
    }

    func isChallengeDue(now: Instant) -> Bool { isRunning && now >= nextChallengeAt }

    /// A challenge with this data leaves now.
    mutating func challengeSent(_ data: UInt64, isPadded: Bool = true, now: Instant) {
        if outstanding.count == Self.maximumOutstanding { outstanding.removeFirst() }
        outstanding.append(Challenge(data: data, sentAt: now, isPadded: isPadded))
        challengesSent += 1
        nextChallengeAt = now + interval
        interval = interval * 2
    }

    /// Sends one more challenge at once, for instance a padded one after one that could not be padded (M15).
    mutating func repeatChallenge(at instant: Instant) {
        nextChallengeAt = min(nextChallengeAt, instant)
    }

    /// The outstanding challenge with that data.
    func challenge(with data: UInt64) -> Challenge? { outstanding.first { $0.data == data } }
}
