// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// Where the engine gets its randomness: the system's generator, or a seeded one that makes a run repeatable.
///
/// Connection IDs, reset tokens and path challenges must not be guessed, so only tests and simulations may use `seeded`.
public enum RandomSource: RandomNumberGenerator, Sendable {
    case system
    /// SplitMix64: small, and good enough for a simulation.
    case seeded(UInt64)

    public mutating func next() -> UInt64 {
        switch self {
        case .system:
            // A generator of this process that the system seeds: asking the system each time is a system call each time.
            var word: UInt64 = 0
            tern_random(&word, MemoryLayout<UInt64>.size)
            return word
        case .seeded(let state):
            let advanced = state &+ 0x9e37_79b9_7f4a_7c15
            self = .seeded(advanced)
            var z = advanced
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }

    /// An independent source: it never yields the same sequence as this one, and leaves a seeded run repeatable.
    public mutating func split() -> RandomSource {
        switch self {
        case .system: .system
        case .seeded: .seeded(next())
        }
    }

    public mutating func bytes(_ count: Int) -> [UInt8] {
        var result = [UInt8]()
        result.reserveCapacity(count)
        while result.count < count {
            var word = next()
            for _ in 0..<Swift.min(8, count - result.count) {
                result.append(UInt8(truncatingIfNeeded: word))
                word >>= 8
            }
        }
        return result
    }
}
