// SPDX-License-Identifier: Apache-2.0

/// A span of time in nanoseconds.
///
/// The engine measures in whole nanoseconds rather than in `Duration`, whose 128-bit attoseconds cost several times
/// more to add and compare, and it does so for every packet. Arithmetic saturates: no value from the network can
/// overflow it.
public struct Nanoseconds: Hashable, Comparable, Sendable {
    public var rawValue: Int64

    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }

    public static let zero = Nanoseconds(0)
    public static let max = Nanoseconds(.max)

    @inlinable
    public static func microseconds(_ count: Int64) -> Nanoseconds { Nanoseconds(count.saturatingMultiply(by: 1_000)) }
    @inlinable
    public static func milliseconds(_ count: Int64) -> Nanoseconds {
        Nanoseconds(count.saturatingMultiply(by: 1_000_000))
    }
    @inlinable
    public static func seconds(_ count: Int64) -> Nanoseconds {
        Nanoseconds(count.saturatingMultiply(by: 1_000_000_000))
    }

    /// Rounds down to the nanosecond; spans that do not fit become `.max`.
    public init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        self.rawValue = seconds.saturatingMultiply(by: 1_000_000_000).saturatingAdd(attoseconds / 1_000_000_000)
    }

    public var duration: Duration { .nanoseconds(rawValue) }
    /// Seconds as a floating-point number, for rates and for people.
    @inlinable
    public var inSeconds: Double { Double(rawValue) / 1e9 }
    @inlinable
    public var inMilliseconds: Double { Double(rawValue) / 1e6 }
    /// Whole microseconds, rounded down: the unit of ACK delays (RFC 9000, section 19.3).
    @inlinable
    public var inMicroseconds: Int64 { rawValue / 1_000 }

    @inlinable
    public static func < (a: Nanoseconds, b: Nanoseconds) -> Bool { a.rawValue < b.rawValue }
    @inlinable
    public static func + (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        Nanoseconds(a.rawValue.saturatingAdd(b.rawValue))
    }
    @inlinable
    public static func - (a: Nanoseconds, b: Nanoseconds) -> Nanoseconds {
        Nanoseconds(a.rawValue.saturatingSubtract(b.rawValue))
    }
    @inlinable
    public static func * (a: Nanoseconds, factor: Int64) -> Nanoseconds {
        Nanoseconds(a.rawValue.saturatingMultiply(by: factor))
    }
    /// Division by zero gives `.max`.
    @inlinable
    public static func / (a: Nanoseconds, divisor: Int64) -> Nanoseconds {
        divisor == 0 ? .max : Nanoseconds(a.rawValue / divisor)
    }
    @inlinable
    public static func += (a: inout Nanoseconds, b: Nanoseconds) { a = a + b }
}

extension Nanoseconds: CustomStringConvertible {
    public var description: String { rawValue == .max ? "forever" : "\(duration)" }
}

/// A point on the monotonic clock that the caller passes in; the engine never reads a clock.
public struct Instant: Hashable, Comparable, Sendable {
    /// Nanoseconds since the clock's own, arbitrary origin.
    public var nanoseconds: Int64

    @inlinable
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    public static let zero = Instant(nanoseconds: 0)
    public static let distantFuture = Instant(nanoseconds: .max)

    @inlinable
    public static func < (a: Instant, b: Instant) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable
    public static func + (a: Instant, b: Nanoseconds) -> Instant {
        Instant(nanoseconds: a.nanoseconds.saturatingAdd(b.rawValue))
    }
    @inlinable
    public static func - (a: Instant, b: Nanoseconds) -> Instant {
        Instant(nanoseconds: a.nanoseconds.saturatingSubtract(b.rawValue))
    }
    @inlinable
    public static func - (a: Instant, b: Instant) -> Nanoseconds {
        Nanoseconds(a.nanoseconds.saturatingSubtract(b.nanoseconds))
    }
    @inlinable
    public static func += (a: inout Instant, b: Nanoseconds) { a = a + b }
}

extension Int64 {
    @inlinable
    func saturatingAdd(_ other: Int64) -> Int64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? (other > 0 ? .max : .min) : sum
    }
    @inlinable
    func saturatingSubtract(_ other: Int64) -> Int64 {
        let (difference, overflow) = subtractingReportingOverflow(other)
        return overflow ? (other < 0 ? .max : .min) : difference
    }
    @inlinable
    func saturatingMultiply(by other: Int64) -> Int64 {
        let (product, overflow) = multipliedReportingOverflow(by: other)
        return overflow ? ((self < 0) == (other < 0) ? .max : .min) : product
    }
}
