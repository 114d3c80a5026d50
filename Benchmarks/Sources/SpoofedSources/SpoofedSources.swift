// SPDX-License-Identifier: Apache-2.0

import CProcessFigures
import QUICProtocol

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// What 100,000 spoofed sources do to one connection that is busy with a transfer both ways (M40): the memory that they
/// leave, the CPU time that a hostile datagram takes, and whether the transfer completes.
///
/// Exits with 1 if it does not, if memory grew with the number of sources, if there were more than eight paths, or if the
/// last tenth of the datagrams cost several times what the first did.
@main
enum SpoofedSources {
    /// Heap bytes from the first tenth of the sources to the last: paths come and go, and differ in what they hold.
    static let mostHeapGrowth = 64 * 1_024
    /// Heap bytes from before the attack: seven more paths, and what the connection keeps of them.
    static let mostHeapInAll = 256 * 1_024
    /// Resident bytes from the first tenth to the last. A source that left 16 bytes would show.
    static let mostResidentGrowth = 1 << 20
    /// How much dearer the last tenth may be than the first. If something were kept of each source and looked through, it
    /// would be some nineteen times.
    static let mostSlowdown = 4.0

    static func main() {
        let sources = CommandLine.arguments.contains("--short") ? 20_000 : 100_000
        print("one connection with a transfer both ways, \(sources) spoofed sources of each kind (M40)")
        var isSound = true
        for attack in Attack.allCases {
            do {
                if try !measure(attack, sources: sources) { isSound = false }
            } catch {
                print("  the transfer DID NOT COMPLETE: \(error)")
                isSound = false
            }
        }
        guard isSound else {
            print("a limit was exceeded")
            exit(1)
        }
    }

    /// Memory in use.
    struct Memory {
        let heap = Int(allocated_bytes())
        let resident = Int(resident_bytes())

        var description: String { "heap \(heap >> 10) KiB, resident \(resident >> 10) KiB" }
    }

    /// - Returns: whether all limits hold.
    static func measure(_ attack: Attack, sources: Int) throws -> Bool {
        let victim = try Victim()
        try victim.settle()
        print(attack.description)
        let before = Memory()
        print("  before: \(before.description)")
        var first: (cost: Cost, memory: Memory)?
        var isSound = true
        for tenth in 1...10 {
            let cost = try victim.endure(attack, until: sources * tenth / 10)
            let memory = Memory()
            if tenth == 1 || tenth == 10 {
                print(
                    "  \(sources * tenth / 10) sources: \(memory.description); \(Int(cost.receiving)) ns CPU to take in "
                        + "a hostile datagram of this tenth, \(Int(cost.everything)) ns with the transfer")
            }
            guard let first else {
                first = (cost, memory)
                continue
            }
            if memory.heap - first.memory.heap > mostHeapGrowth || memory.heap - before.heap > mostHeapInAll
                || memory.resident - first.memory.resident > mostResidentGrowth
            {
                print("  \(sources * tenth / 10) sources: memory grew: \(memory.description)")
                isSound = false
            }
            if tenth == 10, cost.receiving > mostSlowdown * first.cost.receiving {
                print("  a hostile datagram costs \(cost.receiving / first.cost.receiving) times what it did")
                isSound = false
            }
        }
        let isComplete = try victim.finish()
        print(
            "  the transfer \(isComplete ? "completed" : "DID NOT COMPLETE"), \(victim.delivered >> 20) MiB; "
                + "\(victim.dropped) packets dropped, \(victim.moves) moves, most paths at once: \(victim.mostPaths)")
        return isSound && isComplete && victim.mostPaths <= 8
    }
}

/// CPU time in nanoseconds a hostile datagram.
struct Cost {
    /// Of the victim's endpoint, from the datagram's arrival to its last consequence in the connection.
    var receiving: Double
    /// Of all that went on meanwhile, on both sides of the transfer.
    var everything: Double
}

enum Attack: CaseIterable {
    /// The connection ID is right, the rest is not authentic.
    case forged
    /// Genuine packets once more.
    case replayed
    /// Every second packet is copied, and the copy comes first.
    case raced

    var description: String {
        switch self {
        case .forged: "forged packets under the right connection ID"
        case .replayed: "replays of genuine packets"
        case .raced: "copies of every second packet, raced ahead of it"
        }
    }
}
