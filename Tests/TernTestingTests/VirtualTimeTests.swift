// SPDX-License-Identifier: Apache-2.0

import Dispatch
import NIOCore
import Tern
import TernTesting
import Testing

@Suite("Virtual time")
struct VirtualTimeTests {
    @TaskLocal static var marker = 0

    /// An actor of the application's, which sleeps.
    private actor Ticker {
        private(set) var ticks = 0

        func tick(_ count: Int, every interval: Duration) async throws {
            for _ in 0..<count {
                try await Task.sleep(for: interval)
                ticks += 1
            }
        }
    }

    private func duration(
        of body: @escaping @Sendable (SimulatedInternet) async throws -> Void
    ) async throws -> Duration {
        try await SimulatedInternet.run(seed: 1) { internet in
            try await body(internet)
            return internet.elapsed
        }
    }

    @Test("nothing takes time but what waits for it")
    func standsStill() async throws {
        let elapsed = try await duration { _ in
            var sum = 0
            for value in 0..<100 {
                async let a = value
                await Task.yield()
                sum += await a
            }
            #expect(sum == 4_950)
        }
        #expect(elapsed == .zero)
    }

    @Test("sleeping by the simulation's clock takes exactly as long as was asked for, and no real time")
    func sleeping() async throws {
        let started = ContinuousClock.now
        let elapsed = try await duration { internet in
            try await internet.sleep(for: .microseconds(1_500_001))
            try await Task.sleep(for: .seconds(60), clock: internet.clock)
            let deadline = internet.clock.now.advanced(by: .seconds(10))
            async let other: Void = internet.clock.sleep(until: deadline)
            try await internet.clock.sleep(until: deadline)
            try await other
            // Past.
            try await internet.clock.sleep(until: deadline.advanced(by: .seconds(-1)))
        }
        #expect(elapsed == .microseconds(71_500_001))
        #expect(ContinuousClock.now - started < .seconds(20))
    }

    @Test(
        "Task.sleep waits for virtual time in tasks, groups and actors",
        .enabled(if: SimulatedInternet.makesTaskSleepVirtual))
    func taskSleep() async throws {
        let started = ContinuousClock.now
        let elapsed = try await duration { internet in
            try await Task.sleep(for: .seconds(60))
            try await Task.sleep(nanoseconds: 1_000_000)
            try await withThrowingDiscardingTaskGroup { group in
                for seconds in 1...10 { group.addTask { try await Task.sleep(for: .seconds(seconds)) } }
            }
            let ticker = Ticker()
            try await ticker.tick(5, every: .seconds(1))
            #expect(await ticker.ticks == 5)
        }
        // The real clock has a hand in it: a thread that is not scheduled in the wrong place takes that time off.
        #expect(elapsed <= .milliseconds(75_001) && elapsed > .seconds(70))
        #expect(ContinuousClock.now - started < .seconds(20))
    }

    @Test(
        "tasks of their own belong to the simulation, and time waits for them",
        .enabled(if: SimulatedInternet.makesTaskSleepVirtual))
    func unstructuredTasks() async throws {
        let elapsed = try await duration { internet in
            let early = Task {
                try await Task.sleep(for: .seconds(10))
                // Work that takes real time.
                let end = ContinuousClock.now + .milliseconds(20)
                while ContinuousClock.now < end { await Task.yield() }
                return internet.elapsed
            }
            let late = Task.detached {
                try await internet.sleep(for: .seconds(11))
                return internet.elapsed
            }
            let ends = (try await early.value, try await late.value)
            #expect(ends.0 <= .seconds(10) && ends.0 > .seconds(5))
            #expect(ends.1 == .seconds(11))
        }
        #expect(elapsed == .seconds(11))
    }

    @Test("a sleep that is cancelled ends at once")
    func cancelledSleep() async throws {
        let elapsed = try await duration { internet in
            for isOfTheClock in [true, false] {
                let sleeper = Task {
                    if isOfTheClock {
                        try await internet.sleep(for: .seconds(100))
                    } else {
                        try await Task.sleep(for: .seconds(100))
                    }
                }
                try await internet.sleep(for: .seconds(1))
                sleeper.cancel()
                await #expect(throws: CancellationError.self) { try await sleeper.value }
            }
        }
        #expect(elapsed == .seconds(2))
    }

    @Test("time is held for what happens elsewhere")
    func holding() async throws {
        let elapsed = try await duration { internet in
            async let sleeper: Void = internet.sleep(for: .seconds(1))
            let answer = await internet.holdingTime {
                await withCheckedContinuation { continuation in
                    DispatchQueue.global().asyncAfter(deadline: .now() + .milliseconds(50)) {
                        continuation.resume(returning: internet.elapsed)
                    }
                }
            }
            #expect(answer == .zero)
            #expect(internet.elapsed == .zero)
            try await sleeper
        }
        #expect(elapsed == .seconds(1))
    }

    @Test("the body has the task-local values of its caller, so expectations know their test")
    func taskLocals() async throws {
        try await Self.$marker.withValue(42) {
            let seen = try await SimulatedInternet.run(seed: 1) { _ in await Task { Self.marker }.value }
            #expect(seen == 42)
        }
    }

    @Test("what the body throws is thrown")
    func failingBody() async throws {
        await #expect(throws: TernError.alreadyListening) {
            try await SimulatedInternet.run(seed: 1) { _ in throw TernError.alreadyListening }
        }
    }

    @Test("a body that is not done at the limit of virtual time is cancelled, and its connections end")
    func timeLimit() async throws {
        let (reasons, sink) = AsyncStream.makeStream(of: CloseReason?.self)
        await #expect(throws: SimulatedInternet.Failure.timeLimit(.seconds(30))) {
            try await Conversation().run(timeLimit: .seconds(30)) { internet, _, call in
                let end = Task { sink.yield(try? await call.connection.waitUntilClosed()) }
                while true {
                    try await internet.sleep(for: .seconds(1))
                    _ = try await call.say("hello")
                }
                _ = end
            }
        }
        sink.finish()
        #expect(await reasons.first { _ in true } == .some(.endpointClosed))
    }

    @Test("a body that waits for nobody is found out")
    func nothingLeft() async throws {
        await #expect(throws: SimulatedInternet.Failure.nothingLeft) {
            try await SimulatedInternet.run(seed: 1) { internet in
                let host = internet.addHost("server")
                let listener = try await host.bind(port: 4433).listen(
                    tls: TestCertificate(for: "server").server, applicationProtocols: ["echo"])
                for try await _ in listener.connections {}
            }
        }
    }

    @Test("a body that goes on and on while no time passes is found out")
    func busy() async throws {
        await #expect(throws: SimulatedInternet.Failure.busy) {
            try await SimulatedInternet.run(seed: 1) { _ in
                while !Task.isCancelled { await Task.yield() }
            }
        }
    }

    @Test("a task of its own that is woken from outside goes on in the simulation, if it prefers its executor")
    func executor() async throws {
        let elapsed = try await duration { internet in
            let task = Task(executorPreference: internet.executor) {
                await internet.holdingTime {
                    await withCheckedContinuation { continuation in
                        DispatchQueue.global().async { continuation.resume() }
                    }
                }
                // Traps elsewhere.
                _ = internet.makeNAT()
                try await internet.sleep(for: .seconds(1))
            }
            try await task.value
        }
        #expect(elapsed == .seconds(1))
    }

    @Test("cancelling the caller cancels the body")
    func cancelledCaller() async throws {
        let (begun, sink) = AsyncStream.makeStream(of: Void.self)
        let caller = Task {
            try await SimulatedInternet.run(seed: 1) { internet in
                sink.yield()
                try await internet.holdingTime { try await waitForCancellation() }
            }
        }
        _ = await begun.first { _ in true }
        caller.cancel()
        await #expect(throws: CancellationError.self) { try await caller.value }
    }

    /// Waits for its cancellation, and nothing else.
    private func waitForCancellation() async throws {
        let (stream, _) = AsyncStream.makeStream(of: Void.self)
        for await _ in stream {}
        try Task.checkCancellation()
    }
}
