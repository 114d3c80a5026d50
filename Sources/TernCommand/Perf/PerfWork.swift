// SPDX-License-Identifier: Apache-2.0

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
    /// Exchanges of 1 KB in all, one after the other on each connection.
    var requests = 0
    /// Connections that share the bytes or the requests.
    var connections = 1
    /// Connections to open and leave alone for `hold`.
    var idle = 0
    var hold = Duration.seconds(10)
    /// What happens to the network in a transfer, again and again after this time.
    var disturbance: (kind: Disturbance, interval: Duration)?
    var configuration = ConnectionConfiguration()

    enum Disturbance: Sendable {
        /// The client's socket gets a new port, which the client does not tell: what a NAT does.
        case rebinding
        /// The client switches to another path, and then back.
        case switching
    }
}

/// What was done, the time it took and the CPU time of each role that is in this process.
struct PerfResult: Sendable {
    enum Quantity: Sendable {
        /// Bytes of all streams together.
        case bytes(Int, upload: Bool)
        case handshakes(Int)
        case requests(Int, connections: Int)
        case idle(Int)
    }

    var quantity: Quantity
    var elapsed: Duration
    /// By role, in the order to print them.
    var cpu: [(role: String, time: Duration)]
    /// The longest time between two chunks of a download.
    var largestGap: Duration?
    /// Rebindings or switches that there were.
    var disturbances = 0
    /// Packets that the client sent and received.
    var packets = 0
    /// How long each request waited for its answer, in ascending order.
    var latencies: [Duration] = []

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
            let gap = largestGap.map { "   largest gap \($0.text)" } ?? ""
            let moves = disturbances > 0 ? "   \(disturbances) move\(disturbances == 1 ? "" : "s")" : ""
            return "\(isUpload ? "upload  " : "download")  \(Format.bytes(bytes)) in \(elapsed.text)   "
                + "\(Format.decimal(gigabits, places: 2)) Gbit/s   CPU s/GB: \(perUnit(Double(bytes) / 1e9, places: 3))"
                + "   µs a packet: \(perUnit(Double(max(packets, 1)) / 1e6, places: 2))" + gap + moves
        case .handshakes(let count):
            return
                "handshakes  \(count) in \(elapsed.text)   \(Format.decimal(Double(count) / seconds, places: 0)) a second   "
                + "CPU ms each: \(perUnit(Double(count) / 1e3, places: 3))"
        case .requests(let count, let connections):
            return
                "requests  \(count) on \(connections) connection\(connections == 1 ? "" : "s") in \(elapsed.text)   "
                + "\(Format.decimal(Double(count) / seconds, places: 0)) a second   p50 \(latency(0.5).text)   "
                + "p99 \(latency(0.99).text)   CPU µs each: \(perUnit(Double(count) / 1e6, places: 1))"
        case .idle(let count):
            return "idle  \(count) connections for \(elapsed.text)   "
                + "CPU ms a second: \(perUnit(seconds / 1e3, places: 3))"
        }
    }

    /// The time within which that share of the requests was answered.
    private func latency(_ share: Double) -> Duration {
        guard !latencies.isEmpty else { return .zero }
        return latencies[min(Int(Double(latencies.count) * share), latencies.count - 1)]
    }

    var json: JSON {
        var members: [(String, JSON)] = []
        let units: Double
        let unit: String
        switch quantity {
        case .bytes(let bytes, let isUpload):
            members.append(("test", isUpload ? "upload" : "download"))
            members.append(("bytes", .int(bytes)))
            members.append(("gigabitsPerSecond", .number(Double(bytes) * 8 / seconds / 1e9)))
            members.append(("largestGapSeconds", .seconds(largestGap)))
            members.append(("moves", .int(disturbances)))
            (units, unit) = (Double(bytes) / 1e9, "cpuSecondsPerGB")
        case .handshakes(let count):
            members.append(("test", "handshakes"))
            members.append(("handshakes", .int(count)))
            members.append(("handshakesPerSecond", .number(Double(count) / seconds)))
            (units, unit) = (Double(count), "cpuSecondsPerHandshake")
        case .requests(let count, let connections):
            members.append(("test", "requests"))
            members.append(("requests", .int(count)))
            members.append(("connections", .int(connections)))
            members.append(("requestsPerSecond", .number(Double(count) / seconds)))
            members.append(("p50Seconds", .seconds(latency(0.5))))
            members.append(("p99Seconds", .seconds(latency(0.99))))
            (units, unit) = (Double(count), "cpuSecondsPerRequest")
        case .idle(let count):
            members.append(("test", "idle"))
            members.append(("connections", .int(count)))
            (units, unit) = (seconds, "cpuSecondsPerSecond")
        }
        if packets > 0 { members.append(("packets", .int(packets))) }
        members.append(("seconds", .seconds(elapsed)))
        members.append((unit, .object(cpu.map { ($0.role, .number($0.time.inSeconds / units)) })))
        return .object(members)
    }
}
