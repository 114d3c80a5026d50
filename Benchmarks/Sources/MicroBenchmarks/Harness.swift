// SPDX-License-Identifier: Apache-2.0

import CAllocationCounter

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What an operation costs: the medians of several runs.
struct Cost {
    var room: String
    var name: String
    var nanoseconds: Double
    /// The time of the fastest run, which other load on the processor's core has disturbed least.
    var leastNanoseconds: Double
    var allocations: Double
    /// It is carried out for every packet, or nearly so, and must allocate nothing.
    var isSteady: Bool

    var breaksRule: Bool { isSteady && allocations > 0 }
}

/// Takes the time and the allocations between `start` and `stop`.
///
/// The clock is that of the thread: what other processes take from it does not count.
struct Stopwatch {
    /// What reading the clock twice takes.
    private let overhead: Double
    private var nanoseconds = 0.0
    private var allocations: UInt64 = 0
    private var operations = 0
    private var startedAt: Int64 = 0
    private var allocationsAtStart: UInt64 = 0

    init(overhead: Double) { self.overhead = overhead }

    /// Sections should take ten microseconds at least, beside which the clock's own time is small.
    @inline(__always)
    mutating func start() {
        allocationsAtStart = allocation_count()
        startedAt = Self.now()
    }

    @inline(__always)
    mutating func stop(after operations: Int) {
        let passed = Self.now() - startedAt
        allocations += allocation_count() - allocationsAtStart
        nanoseconds += max(Double(passed) - overhead, 0)
        self.operations += operations
    }

    var nanosecondsPerOperation: Double { nanoseconds / Double(max(operations, 1)) }
    var allocationsPerOperation: Double { Double(allocations) / Double(max(operations, 1)) }

    /// The median of what a section with nothing in it takes.
    static func measureOverhead() -> Double {
        var samples = [Double]()
        for _ in 0..<1_001 {
            var watch = Stopwatch(overhead: 0)
            watch.start()
            watch.stop(after: 1)
            samples.append(watch.nanoseconds)
        }
        return median(samples)
    }

    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}

/// Runs operations and keeps what they cost.
struct Harness {
    static let runs = 11

    /// A tenth of the iterations.
    let isShort: Bool
    /// Whose operations are measured now.
    var room = ""
    private(set) var costs: [Cost] = []
    /// Made of all results, so that none is optimised away.
    private(set) var checksum: UInt64 = 0
    private let overhead = Stopwatch.measureOverhead()

    init(isShort: Bool) { self.isShort = isShort }

    /// Measures all of what `body` does.
    ///
    /// - Parameters:
    ///   - passes: given to `body`, a tenth of them in a short run.
    ///   - operations: how many a pass carries out.
    ///   - isSteady: nothing may be allocated.
    ///   - body: returns something that depends on what it computed.
    mutating func measure(
        _ name: String, passes: Int, of operations: Int = 1, isSteady: Bool = true, _ body: (Int) throws -> UInt64
    ) rethrows {
        try measureSections(name, passes: passes, isSteady: isSteady) { passes, watch in
            watch.start()
            let result = try body(passes)
            watch.stop(after: passes * operations)
            return result
        }
    }

    /// Measures what `body` does between `start` and `stop` of the watch.
    mutating func measureSections(
        _ name: String, passes: Int, isSteady: Bool = true, _ body: (Int, inout Stopwatch) throws -> UInt64
    ) rethrows {
        let passes = isShort ? max(passes / 10, 1) : passes
        var nanoseconds = [Double]()
        var allocations = [Double]()
        for run in 0...Self.runs {
            var watch = Stopwatch(overhead: overhead)
            checksum ^= try body(passes, &watch)
            // The first run warms caches, pools and the memory of collections.
            if run == 0 { continue }
            nanoseconds.append(watch.nanosecondsPerOperation)
            allocations.append(watch.allocationsPerOperation)
        }
        costs.append(
            Cost(
                room: room, name: name, nanoseconds: median(nanoseconds),
                leastNanoseconds: nanoseconds.min() ?? 0, allocations: median(allocations), isSteady: isSteady))
    }
}

func median(_ values: [Double]) -> Double { values.isEmpty ? 0 : values.sorted()[values.count / 2] }

/// Memory filled with zeros that lasts as long as the process.
func lastingBytes(_ count: Int) -> UnsafeMutableRawBufferPointer {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 64)
    bytes.initializeMemory(as: UInt8.self, repeating: 0)
    return bytes
}

/// An operation did not do what is to be measured.
struct UnexpectedResult: Error {
    var what: String
    init(_ what: String) { self.what = what }
}
