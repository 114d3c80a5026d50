// SPDX-License-Identifier: Apache-2.0

/// How much may be sent to an address that has not proved that it wants it: three times what came from there
/// (RFC 9000, section 8.1). Every byte of UDP payload counts, padding and challenges included (M15).
struct AmplificationBudget {
    private var received: Int = 0
    private var sent: Int = 0
    /// The peer's address is proved, or is one that we chose ourselves.
    private(set) var isLifted: Bool

    init(isLifted: Bool) {
        self.isLifted = isLifted
    }

    var remaining: Int { isLifted ? .max : max(0, 3 * received - sent) }

    mutating func datagramReceived(_ size: Int) {
        if !isLifted { received += size }
    }

    mutating func datagramSent(_ size: Int) {
        if !isLifted { sent += size }
    }

    mutating func lift() { isLifted = true }
}
