// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOSSL
import QUICProtocol
import Synchronization
import Tern

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
            if work.requests > 0 { results.append(try await requests()) }
            if work.idle > 0 { results.append(try await idle()) }
            if work.download > 0 { results.append(try await transfer(isUpload: false)) }
            if work.upload > 0 { results.append(try await transfer(isUpload: true)) }
            return results
        }
    }

    private func transfer(isUpload: Bool) async throws -> PerfResult {
        let transports = try await bind(for: work.connections)
        let connections = try await open(work.connections, over: transports)
        let bytes = isUpload ? work.upload : work.download
        let streams = work.streams * connections.count
        let share = bytes / streams
        // Each task waits with a buffer of its own: large ones of thousands of tasks would be all in memory.
        let chunk = streams > 100 ? 16 * 1_024 : PerfProtocol.chunkSize
        let gaps = GapMeter()
        let moves = NetworkMoves(connection: connections[0], transport: transports[0], local: local)
        let packets = await self.packets(of: connections)
        var result = try await measure(.bytes(share * streams, upload: isUpload)) {
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for index in 0..<streams {
                    group.addTask {
                        var buffer = ByteBuffer()
                        let download = isUpload ? 0 : share
                        try await PerfProtocol.exchange(
                            PerfProtocol.request(download: download), upload: isUpload ? share : 0,
                            download: download, over: connections[index % connections.count], buffer: &buffer,
                            chunk: chunk, progress: { gaps.arrived() })
                        return true
                    }
                }
                if let disturbance = work.disturbance {
                    group.addTask {
                        try await moves.run(disturbance.kind, every: disturbance.interval)
                        return false
                    }
                }
                var finished = 0
                while finished < streams, let isStream = try await group.next() { finished += isStream ? 1 : 0 }
                group.cancelAll()
            }
        }
        result.packets = await self.packets(of: connections) - packets
        if !isUpload, connections.count == 1 { result.largestGap = gaps.largest }
        result.disturbances = moves.count
        for connection in connections { await connection.close(errorCode: 0, reason: "") }
        await moves.close()
        for transport in transports { await transport.close() }
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

    /// Request after request on each of several connections.
    private func requests() async throws -> PerfResult {
        let transports = try await bind(for: work.connections)
        let connections = try await open(work.connections, over: transports)
        let share = max(work.requests / work.connections, 1)
        let times = Mutex<[Duration]>([])
        let packets = await self.packets(of: connections)
        var result = try await measure(.requests(share * work.connections, connections: work.connections)) {
            try await withThrowingTaskGroup(of: [Duration].self) { group in
                for connection in connections {
                    group.addTask {
                        let request = PerfProtocol.request(download: 1_024)
                        var buffer = ByteBuffer()
                        var latencies: [Duration] = []
                        latencies.reserveCapacity(share)
                        for _ in 0..<share {
                            let start = ContinuousClock.now
                            try await PerfProtocol.exchange(
                                request, download: 1_024, over: connection, buffer: &buffer)
                            latencies.append(ContinuousClock.now - start)
                        }
                        return latencies
                    }
                }
                for try await latencies in group { times.withLock { $0 += latencies } }
            }
        }
        result.packets = await self.packets(of: connections) - packets
        result.latencies = times.withLock { $0.sorted() }
        for connection in connections { await connection.close(errorCode: 0, reason: "") }
        for transport in transports { await transport.close() }
        return result
    }

    /// Connections that do nothing: what they cost in memory is measured from outside meanwhile.
    private func idle() async throws -> PerfResult {
        let transport = try await Transport.bind(to: local, on: eventLoop)
        let connections = try await open(work.idle, over: [transport])
        StandardOutput.line("\(connections.count) connections are open")
        let result = try await measure(.idle(connections.count)) { try await Task.sleep(for: work.hold) }
        if let closed = connections.first(where: { $0.closeReason != nil }) {
            throw CommandError("a connection did not stay: \(closed.closeReason.map { "\($0)" } ?? "")")
        }
        for connection in connections { await connection.close(errorCode: 0, reason: "") }
        await transport.close()
        return result
    }

    /// Connections that share a socket at most: the windows that they begin with fit in its receive buffer.
    private static let connectionsPerSocket = 100

    private func bind(for connections: Int) async throws -> [Transport] {
        var transports: [Transport] = []
        for _ in 0..<(connections + Self.connectionsPerSocket - 1) / Self.connectionsPerSocket {
            transports.append(try await Transport.bind(to: local, on: eventLoop))
        }
        return transports
    }

    /// Opens so many connections, a few at once.
    private func open(_ count: Int, over transports: [Transport]) async throws -> [Connection] {
        try await withThrowingTaskGroup(of: Connection.self) { group in
            var connections: [Connection] = []
            for index in 0..<count {
                if index >= work.concurrency, let connection = try await group.next() { connections.append(connection) }
                group.addTask { try await connect(over: transports[index % transports.count]) }
            }
            for try await connection in group { connections.append(connection) }
            return connections
        }
    }

    /// Packets sent and received so far.
    private func packets(of connections: [Connection]) async -> Int {
        var count: UInt64 = 0
        for connection in connections {
            let statistics = await connection.statistics
            count += statistics.packetsSent + statistics.packetsReceived
        }
        return Int(clamping: count)
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
