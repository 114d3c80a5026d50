// SPDX-License-Identifier: Apache-2.0

import CAllocationCounter
import QUICProtocol

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What the engine costs without sockets: two endpoints in one thread, batches handed over in memory.
///
/// Prints, for a download and an upload in steady state, the allocations a packet of both ends together and the time a
/// packet. Exits with 1 if there are more than the application's writes explain: one for each, of 256 KiB.
@main
enum EngineBenchmark {
    static func main() throws {
        let isShort = CommandLine.arguments.contains("--short")
        let bytes = isShort ? 128 << 20 : 1 << 30
        print("engine, both ends in one thread, AES-128-GCM, 1,452-byte datagrams, \(bytes >> 20) MiB after a warm-up")
        var isClean = true
        for direction in [Direction.download, .upload] {
            let result = try measure(direction, bytes: bytes)
            let perPacket = Double(result.allocations) / Double(result.packets)
            let seconds = Double(result.time.components.attoseconds) / 1e18 + Double(result.time.components.seconds)
            let rate = Double(bytes) * 8 / seconds / 1e9
            print(
                "\(direction): \(result.packets) packets, \(result.allocations) allocations (\(fixed(perPacket, 5)) a packet), "
                    + "\(fixed(seconds * 1e9 / Double(result.packets), 0)) ns a packet for both ends, \(fixed(rate, 2)) Gbit/s"
            )
            if perPacket > 0.01 { isClean = false }
        }
        guard allocation_counting_works() == 1 else { return print("allocations are not counted on this system") }
        guard isClean else {
            print("more than 0.01 allocations a packet")
            exit(1)
        }
    }

    enum Failure: Error { case noConnection, stalled }
    enum Direction { case download, upload }

    struct Measurement {
        var packets: UInt64
        var allocations: UInt64
        var time: Duration
    }

    static func measure(_ direction: Direction, bytes: Int) throws -> Measurement {
        let pair = try Pair()
        try pair.open(from: direction == .download ? .server : .client)
        // Windows grow and pools fill in the warm-up.
        try pair.transfer(64 << 20)
        let packets = pair.packets
        let allocations = allocation_count()
        let clock = ContinuousClock()
        let start = clock.now
        try pair.transfer(bytes)
        return Measurement(
            packets: pair.packets - packets, allocations: allocation_count() - allocations, time: clock.now - start)
    }

    static func fixed(_ value: Double, _ digits: Int) -> String {
        var scale = 1.0
        for _ in 0..<digits { scale *= 10 }
        let rounded = UInt64(value * scale + 0.5)
        guard digits > 0 else { return "\(rounded)" }
        let fraction = String(rounded % UInt64(scale))
        return "\(rounded / UInt64(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
    }
}
