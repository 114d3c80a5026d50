// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOSSL
import QUICProtocol
import Tern

/// What `tern perf` shall measure.
struct PerfWork: Sendable {
    var upload = 0
    var download = 0
    var streams = 1
    var handshakes = 0
    /// Handshakes under way at once.
    var concurrency = 8
    var configuration = ConnectionConfiguration()
}

/// A number of bytes or handshakes, the time they took and the CPU time of each role that is in this process.
struct PerfResult: Sendable {
    enum Quantity: Sendable {
        /// Bytes of all streams together.
        case bytes(Int, upload: Bool)
        case handshakes(Int)
    }

    var quantity: Quantity
    var elapsed: Duration
    /// By role, in the order to print them.
    var cpu: [(role: String, time: Duration)]

    private var seconds: Double { max(elapsed.inSeconds, 1e-9) }

    /// Such as `download  1.00 GiB in 1.23 s   6.98 Gbit/s   CPU s/GB: client 0.61, server 0.58`.
    var text: String {
        func perUnit(_ units: Double, places: Int) -> String {
            cpu.map { "\($0.role) \(Format.decimal($0.time.inSeconds / units, places: places))" }.joined(
                separator: ", ")
        }
        switch quantity {
        case .bytes(let bytes, let isUpload):
            let gigabits = Double(bytes) * 8 / seconds / 1e9
            return "\(isUpload ? "upload  " : "download")  \(Format.bytes(bytes)) in \(elapsed.text)   "
                + "\(Format.decimal(gigabits, places: 2)) Gbit/s   CPU s/GB: \(perUnit(Double(bytes) / 1e9, places: 3))"
        case .handshakes(let count):
            return
                "handshakes  \(count) in \(elapsed.text)   \(Format.decimal(Double(count) / seconds, places: 0)) a second   "
                + "CPU ms each: \(perUnit(Double(count) / 1e3, places: 3))"
        }
    }

    var json: JSON {
        var members: [(String, JSON)] = []
        let units: Double
        switch quantity {
        case .bytes(let bytes, let isUpload):
            members.append(("test", isUpload ? "upload" : "download"))
            members.append(("bytes", .int(bytes)))
            members.append(("gigabitsPerSecond", .number(Double(bytes) * 8 / seconds / 1e9)))
            units = Double(bytes) / 1e9
        case .handshakes(let count):
            members.append(("test", "handshakes"))
            members.append(("handshakes", .int(count)))
            members.append(("handshakesPerSecond", .number(Double(count) / seconds)))
            units = Double(count)
        }
        members.append(("seconds", .seconds(elapsed)))
        let name: String = if case .bytes = quantity { "cpuSecondsPerGB" } else { "cpuSecondsPerHandshake" }
        members.append((name, .object(cpu.map { ($0.role, .number($0.time.inSeconds / units)) })))
        return .object(members)
    }
}

/// The client's side of the measurements.
struct PerfClient: Sendable {
    /// The event loop that carries the client's connections and its application.
    let eventLoop: any EventLoop
    let server: String
    /// The local address to bind to.
    let local: String
    let tls: TLSConfiguration
    let work: PerfWork
    /// Reads the CPU time of each role so far.
    let cpuTimes: @Sendable () async throws -> [(role: String, time: Duration)]

    /// Does all that is asked for, one after the other.
    func run() async throws -> [PerfResult] {
        let executor = EventLoopExecutor(eventLoop)
        return try await withTaskExecutorPreference(executor) {
            var results: [PerfResult] = []
            if work.handshakes > 0 { results.append(try await handshakes()) }
            if work.download > 0 { results.append(try await transfer(isUpload: false)) }
            if work.upload > 0 { results.append(try await transfer(isUpload: true)) }
            return results
        }
    }

    private func transfer(isUpload: Bool) async throws -> PerfResult {
        let transport = try await Transport.bind(to: local, on: eventLoop)
        let connection = try await connect(over: transport)
        let bytes = isUpload ? work.upload : work.download
        let share = bytes / work.streams
        let result = try await measure(.bytes(share * work.streams, upload: isUpload)) {
            try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<work.streams {
                    group.addTask {
                        try await PerfProtocol.exchange(
                            upload: isUpload ? share : 0,
                            download: isUpload ? 0 : share,
                            over: connection
                        )
                    }
                }
                try await group.waitForAll()
            }
        }
        await connection.close(errorCode: 0, reason: "")
        await transport.close()
        return result
    }

    /// Handshake after handshake, a few at once, all over one socket.
    private func handshakes() async throws -> PerfResult {
        let transport = try await Transport.bind(to: local, on: eventLoop)
        let result = try await measure(.handshakes(work.handshakes)) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<work.handshakes {
                    if index >= work.concurrency { try await group.next() }
                    group.addTask {
                        let connection = try await connect(over: transport)
                        await connection.close(errorCode: 0, reason: "")
                    }
                }
                try await group.waitForAll()
            }
        }
        await transport.close()
        return result
    }

    private func connect(over transport: Transport) async throws -> Connection {
        try await attempting("cannot connect to \(server)") {
            try await transport.connect(
                to: server,
                tls: tls,
                applicationProtocols: [PerfProtocol.applicationProtocol],
                configuration: work.configuration
            )
        }
    }

    private func measure(_ quantity: PerfResult.Quantity, _ body: () async throws -> Void) async throws -> PerfResult {
        let before = try await cpuTimes()
        let start = ContinuousClock.now
        try await body()
        let elapsed = ContinuousClock.now - start
        let after = try await cpuTimes()
        let cpu = zip(before, after).map { (role: $0.role, time: $1.time - $0.time) }
        return PerfResult(quantity: quantity, elapsed: elapsed, cpu: cpu)
    }
}
