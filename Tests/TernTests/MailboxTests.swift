// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Tern

@Suite("A mailbox", .timeLimit(.minutes(10)))
struct MailboxTests {
    @Test("hands out elements in order and ends after the last")
    func ordered() async {
        let mailbox = Mailbox<Int>()
        for number in 0..<10 { #expect(mailbox.put(number)) }
        mailbox.finish()
        #expect(!mailbox.put(10))
        var seen: [Int] = []
        while let number = await mailbox.next() { seen.append(number) }
        #expect(seen == Array(0..<10))
    }

    @Test("gives each element to one of those who wait")
    func shared() async {
        let mailbox = Mailbox<Int>()
        let total = await withTaskGroup(of: Int.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    var sum = 0
                    while let number = await mailbox.next() { sum += number }
                    return sum
                }
            }
            for number in 1...1_000 { mailbox.put(number) }
            mailbox.finish()
            return await group.reduce(0, +)
        }
        #expect(total == 500_500)
    }

    @Test("lets go of a task that is cancelled, before and while it waits")
    func cancellation() async {
        let mailbox = Mailbox<Int>()
        for delay in [0, 5] {
            let task = Task { await mailbox.next() }
            if delay > 0 { try? await Task.sleep(for: .milliseconds(delay)) }
            task.cancel()
            #expect(await task.value == nil)
        }
        mailbox.put(1)
        #expect(await mailbox.next() == 1)
    }
}
