// SPDX-License-Identifier: Apache-2.0

#if os(Linux)
import NIOCore
import NIOPosix
import QUICProtocol
import Synchronization
import Testing

@testable import Tern

@Suite("An event loop of Tern's own", .timeLimit(.minutes(5)))
struct QUICEventLoopTests {
    @Test("runs jobs in order on its thread, whoever adds them")
    func jobs() async throws {
        let loop = try QUICEventLoop()
        #expect(!loop.inEventLoop)
        let seen = Mutex<[Int]>([])
        for number in 0..<1_000 {
            loop.execute {
                #expect(loop.inEventLoop)
                seen.withLock { $0.append(number) }
                if number % 10 == 0 { loop.execute { seen.withLock { $0.append(-1) } } }
            }
        }
        try await loop.submit {}.get()
        try await loop.submit {}.get()
        let numbers = seen.withLock { $0 }
        #expect(numbers.filter { $0 >= 0 } == Array(0..<1_000))
        #expect(numbers.count == 1_100)
        try await loop.shutdownGracefully()
    }

    @Test("wakes for each of many threads' jobs")
    func wakes() async throws {
        let loop = try QUICEventLoop()
        let count = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<500 { try await loop.submit {}.get() }
                    return 500
                }
            }
            return try await group.reduce(0, +)
        }
        #expect(count == 4_000)
        try await loop.shutdownGracefully()
    }

    @Test("runs timers when they are due and in order, and not those that were cancelled")
    func timers() async throws {
        let loop = try QUICEventLoop()
        let start = NIODeadline.now()
        let order = Mutex<[Int]>([])
        let late = loop.scheduleTask(in: .milliseconds(40)) { order.withLock { $0.append(2) } }
        let early = loop.scheduleTask(in: .milliseconds(20)) { order.withLock { $0.append(1) } }
        let never = loop.scheduleTask(in: .milliseconds(30)) { order.withLock { $0.append(3) } }
        never.cancel()
        try await early.futureResult.get()
        #expect(NIODeadline.now() - start >= .milliseconds(20))
        try await late.futureResult.get()
        #expect(NIODeadline.now() - start >= .milliseconds(40))
        await #expect(throws: EventLoopError.self) { try await never.futureResult.get() }
        #expect(order.withLock { $0 } == [1, 2])
        try await loop.shutdownGracefully()
    }

    @Test("does what it was given before it ends, and drops what comes later")
    func ends() async throws {
        let loop = try QUICEventLoop()
        let count = Mutex(0)
        for _ in 0..<100 { loop.execute { count.withLock { $0 += 1 } } }
        let pending = loop.scheduleTask(in: .hours(1)) {}
        let outcome = Mutex<Bool?>(nil)
        pending.futureResult.whenComplete { result in
            outcome.withLock { $0 = if case .failure = result { true } else { false } }
        }
        try await loop.shutdownGracefully()
        #expect(count.withLock { $0 } == 100)
        while outcome.withLock({ $0 == nil }) { try await Task.sleep(for: .milliseconds(1)) }
        #expect(outcome.withLock { $0 } == true)
        loop.execute { Issue.record("ran after the end") }
        try await Task.sleep(for: .milliseconds(20))
    }

    @Test(
        "carries connections from one loop to another, of either kind", arguments: [false, true], [false, true])
    func kinds(serverIsOwn: Bool, clientIsOwn: Bool) async throws {
        let own = [try QUICEventLoop(), try QUICEventLoop()]
        let nio = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        let pair = try await TestPair.connected(
            serverLoop: serverIsOwn ? own[0] : nio.next(), clientLoop: clientIsOwn ? own[1] : nio.next())
        let echo = pair.echo()
        let content = pattern(1_000_000)
        #expect(try await pair.exchange(content) == content)
        // The marks arrive, and so congestion could be told.
        #expect(await pair.server.statistics.datagramsReceived > 0)
        await pair.close()
        await echo.value
        for loop in own { try await loop.shutdownGracefully() }
        try await nio.shutdownGracefully()
    }

    @Test(
        "sees where a datagram was sent to on a socket that is bound to no address",
        arguments: ["127.0.0.1", "127.0.0.2"])
    func localAddress(of target: String) async throws {
        let loop = try QUICEventLoop()
        let pair = try await TestPair.connected(
            serverAddress: "0.0.0.0:0", targetHost: target, serverLoop: loop, clientLoop: loop)
        #expect(pair.server.localAddress.description.hasPrefix(target + ":"))
        await pair.close()
        try await loop.shutdownGracefully()
    }

    @Test("goes on when sockets are closed in the middle of what is read from them")
    func closing() async throws {
        let loop = try QUICEventLoop()
        let pair = try await TestPair.connected(serverLoop: loop, clientLoop: loop)
        let echo = pair.echo()
        let other = try await Transport.bind(to: "127.0.0.1:0", on: loop)
        let path = try await pair.client.addPath(over: other)
        try await path.probe(timeout: .seconds(5))
        let content = pattern(2_000_000)
        async let answer = pair.exchange(content)
        try await path.switch()
        await pair.clientTransport.close()
        #expect(try await answer == content)
        await pair.close()
        await other.close()
        await echo.value
        try await loop.shutdownGracefully()
    }
}
#endif
