// SPDX-License-Identifier: Apache-2.0

import CFuzzMemory

@testable import FuzzTargets

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

// libFuzzer has the program's `main`, and its arguments; the environment has ours. `TERN_FUZZER` names the target.

private let fuzzer = getenv("TERN_FUZZER").flatMap { Fuzzer(rawValue: String(cString: $0)) } ?? .datagrams
private let memory = MemoryWatch()

/// Called once, before the first input. With `TERN_FUZZ_SEEDS`, writes what the corpus starts from to that folder, and
/// that is all.
@_cdecl("LLVMFuzzerInitialize")
func initialize(
    _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutableRawPointer
) -> CInt {
    guard let folder = getenv("TERN_FUZZ_SEEDS") else { return 0 }
    for (index, seed) in fuzzer.seeds.enumerated() {
        let path = "\(String(cString: folder))/seed-\(index)"
        guard let file = fopen(path, "wb") else { fatalError("cannot write \(path)") }
        fwrite(seed, 1, seed.count, file)
        fclose(file)
    }
    exit(0)
}

@_cdecl("LLVMFuzzerTestOneInput")
func testOneInput(_ data: UnsafePointer<UInt8>?, _ size: Int) -> CInt {
    let input = [UInt8](UnsafeBufferPointer(start: data, count: size))
    memory.watch {
        do {
            try fuzzer.run(input)
        } catch {
            fatalError("\(fuzzer.rawValue): \(error)")
        }
    }
    return 0
}

/// Notices memory that an input leaves behind. libFuzzer runs one input after the other on one thread.
final class MemoryWatch: @unchecked Sendable {
    /// What all inputs together may leave behind: tables that are made on first use, and no more.
    private static let limit = 16 << 20

    private var kept = 0

    func watch(_ body: () -> Void) {
        let before = tern_fuzz_bytes_in_use()
        body()
        kept += Int(tern_fuzz_bytes_in_use() - before)
        guard kept <= Self.limit else { fatalError("the inputs so far have left \(kept) bytes behind") }
    }
}
