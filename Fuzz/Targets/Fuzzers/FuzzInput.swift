// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Reads an input as a sequence of choices. Behind its end every choice is 0.
struct FuzzInput {
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isEmpty: Bool { offset >= bytes.count }

    mutating func byte() -> UInt8 {
        guard offset < bytes.count else { return 0 }
        defer { offset += 1 }
        return bytes[offset]
    }

    mutating func flag() -> Bool { byte() & 1 == 1 }

    /// A number from 0 up to but not including `limit`, which is 256 at most.
    mutating func choice(below limit: Int) -> Int { limit < 1 ? 0 : Int(byte()) % limit }

    mutating func uint16() -> UInt16 { UInt16(byte()) << 8 | UInt16(byte()) }

    mutating func uint64() -> UInt64 { (0..<8).reduce(0) { value, _ in value << 8 | UInt64(byte()) } }

    /// A number of any size up to 2^62-1, small ones in few bytes.
    mutating func number() -> UInt64 {
        let first = byte()
        switch first >> 6 {
        case 0, 1: return UInt64(first & 0x7f)
        case 2: return UInt64(first & 0x3f) << 8 | UInt64(byte())
        default: return (UInt64(first & 0x3f) << 56 | uint64() >> 8) & Varint.maximum
        }
    }

    /// As many bytes as the input's next byte says, each of which stands for `scale`.
    mutating func run(scale: Int = 1) -> [UInt8] { take(Int(byte()) * scale) }

    mutating func take(_ count: Int) -> [UInt8] {
        let end = min(bytes.count, offset + max(0, count))
        defer { offset = end }
        return Array(bytes[offset..<end])
    }
}

/// Something that must not happen, whatever the input.
struct FuzzFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

func require(_ condition: Bool, _ rule: @autoclosure () -> String) throws(FuzzFailure) {
    if !condition { throw FuzzFailure(rule()) }
}

/// Runs what should work whatever the input.
func prepare<T: ~Copyable, E: Error>(_ body: () throws(E) -> T) throws(FuzzFailure) -> T {
    do {
        return try body()
    } catch {
        throw FuzzFailure("the preparation failed: \(error)")
    }
}

/// The targets. Each takes any bytes, and returns, or throws a `FuzzFailure`, in bounded time and memory.
enum Fuzzer: String, CaseIterable, Sendable {
    /// Datagrams into endpoints with and without connections.
    case datagrams
    /// Frames in packets that the connection accepts.
    case frames
    /// Transport parameters.
    case parameters
    /// TLS messages in CRYPTO frames.
    case tls
    /// Connection-ID and path frames in any order, from any address, among the application's verbs.
    case paths

    func run(_ bytes: [UInt8]) throws(FuzzFailure) {
        let input = FuzzInput(bytes)
        switch self {
        case .datagrams: try DatagramFuzzer.run(input)
        case .frames: try FrameFuzzer.run(input)
        case .parameters: try ParameterFuzzer.run(bytes)
        case .tls: try TLSFuzzer.run(input)
        case .paths: try PathFuzzer.run(input)
        }
    }
}
