// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Testing

@testable import Tern

@Suite("The deadlines of a worker")
struct DeadlineHeapTests {
    @Test("behave like a dictionary that is searched for its minimum", arguments: 0..<20)
    func matchesModel(seed: UInt64) {
        var random = RandomSource.seeded(seed)
        var heap = DeadlineHeap()
        var model: [Int: Instant] = [:]
        for _ in 0..<2_000 {
            let slot = Int.random(in: 0..<40, using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0...5:
                let deadline = Instant(nanoseconds: Int64.random(in: 0..<1_000, using: &random))
                heap.set(deadline, for: slot)
                model[slot] = deadline
            case 6...7:
                heap.set(nil, for: slot)
                model[slot] = nil
            default:
                let now = Instant(nanoseconds: Int64.random(in: 0..<1_000, using: &random))
                let expected = model.values.min().flatMap { $0 <= now ? $0 : nil }
                let popped = heap.popExpired(now: now)
                #expect((popped == nil) == (expected == nil))
                if let popped {
                    #expect(model[popped] == expected)
                    model[popped] = nil
                }
            }
            #expect(heap.count == model.count)
            #expect(heap.earliest == model.values.min())
            #expect(heap.deadline(of: slot) == model[slot])
        }
        var last = Instant.zero
        while let slot = heap.popExpired(now: .distantFuture) {
            let deadline = model.removeValue(forKey: slot)
            #expect(deadline.map { last <= $0 } == true)
            last = deadline ?? last
        }
        #expect(model.isEmpty)
    }
}
