// SPDX-License-Identifier: Apache-2.0

/// Ends connections that this endpoint knows nothing of (RFC 9000, section 10.3).
struct StatelessReset {
    /// The least bytes of a datagram that may be a stateless reset: five, and the token.
    static let minimumSize = 21
    /// As many bytes as look like a short packet with a connection ID of the longest kind.
    static let usualSize = 1 + ConnectionID.maximumLength + 4 + 1 + StatelessResetToken.length

    let key: [UInt8]
    private let perSecond: Int
    private var windowStart: Instant = .zero
    private var sentInWindow = 0

    init(key: [UInt8], perSecond: Int) {
        self.key = key
        self.perSecond = perSecond
    }

    /// The token of an ID: the same on every machine with this key, and not to be guessed (RFC 9000, section 10.3.2).
    func token(of id: ConnectionID) -> StatelessResetToken {
        StatelessResetToken(prefixOf: KeyedHash.hmacSHA256(key: key, id.bytes))
    }

    /// The answer to a packet for an unknown ID: shorter than it, so that two endpoints without state do not answer each
    /// other without end (RFC 9000, section 10.3.3).
    mutating func packet(
        answering size: Int, id: ConnectionID, random: inout RandomSource, now: Instant
    ) -> [UInt8]? {
        let length = min(size - 1, Self.usualSize)
        guard length >= Self.minimumSize else { return nil }
        if now - windowStart >= .seconds(1) {
            windowStart = now
            sentInWindow = 0
        }
        guard sentInWindow < perSecond else { return nil }
        sentInWindow += 1
        var bytes = random.bytes(length - StatelessResetToken.length)
        bytes[0] = bytes[0] & 0x3f | 0x40
        return bytes + token(of: id).bytes
    }
}
