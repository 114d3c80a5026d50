// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import TernSimulation

/// One cell in virtual time: a server whose link is the bottleneck, and two clients that download without end.
final class Run {
    private static let serverAddress = NetworkAddress(192, 0, 2, 1, port: 4433)
    /// More than any flow downloads.
    private static let endless = 1 << 39

    private let cell: Cell
    private let network: SimulatedNetwork
    private let server: SimulatedEndpoint
    private let bottleneck: SimulatedLink
    private var clients: [SimulatedEndpoint] = []
    private var transfers: [Transfer] = []
    private let service: PerfService
    private let clientContext: TLSContext

    /// What had passed the link at some moment.
    private struct Snapshot {
        var instant: Instant
        var bytesPassed: Double
        var carried: Int
        var overflowed: Int
        var lost: Int
        var delivered: [Int]
    }

    private var afterSlowStart: Snapshot?
    private var delays: [Int64] = []
    private var isSampling = true

    private init(_ cell: Cell, seed: UInt64) throws {
        self.cell = cell
        network = SimulatedNetwork(seed: seed)
        let credentials = try SimulationCredentials.shared.get()
        clientContext = try credentials.clientContext()
        let configuration = Self.configuration(of: cell)
        server = SimulatedEndpoint(named: "server", in: network)
        service = PerfService(sendBufferLimit: configuration.sendBufferLimit)
        server.application = service
        server.listening = ServerConfiguration(tls: try credentials.serverContext(), connection: configuration)
        let outbound = LinkConditions(
            delay: cell.roundTrip / 2, loss: cell.loss, bandwidth: cell.bandwidth,
            queueLimit: cell.queueLimit + Cell.wireSize)
        bottleneck = server.addInterface(at: Self.serverAddress, outbound, inbound: .perfect).outbound
        for index in 0..<2 {
            let client = SimulatedEndpoint(named: "client \(index + 1)", in: network)
            var access = LinkConditions.perfect
            access.delay = cell.roundTrip - cell.roundTrip / 2
            client.addInterface(
                at: NetworkAddress(203, 0, 113, UInt8(2 + index), port: 50_001), access, inbound: .perfect)
            let transfer = Transfer(
                [StreamPlan(download: Self.endless)], sendBufferLimit: configuration.sendBufferLimit)
            client.application = transfer
            clients.append(client)
            transfers.append(transfer)
        }
    }

    /// As by default, but for larger datagrams and for windows that are no limit on this link.
    private static func configuration(of cell: Cell) -> ConnectionConfiguration {
        var configuration = ConnectionConfiguration()
        configuration.initialUDPPayload = Cell.datagramSize
        configuration.maxUDPPayload = Cell.datagramSize
        let window = UInt64(4 * cell.mostInFlight)
        configuration.maximumStreamReceiveWindow = max(configuration.maximumStreamReceiveWindow, window)
        configuration.maximumReceiveWindow = max(configuration.maximumReceiveWindow, window + window / 2)
        configuration.sendBufferLimit = max(configuration.sendBufferLimit, Int(cell.product / 4))
        return configuration
    }

    static func measure(_ cell: Cell, seed: UInt64) -> Measurement {
        do {
            return try Run(cell, seed: seed).measure()
        } catch {
            return Measurement(fault: "\(error)")
        }
    }

    private func measure() throws -> Measurement {
        defer { network.scheduler.removeAll() }
        var measurement = Measurement()
        try connect(0)
        let start = snapshot()
        sample()
        run(for: cell.span)
        isSampling = false
        let alone = snapshot()
        measurement.useFromStart = use(from: start, to: alone)
        measurement.overflowFromStart = share(of: \.overflowed, from: start, to: alone)
        measurement.lossFromStart = share(of: \.lost, from: start, to: alone)
        if let afterSlowStart {
            measurement.slowStartEnd = afterSlowStart.instant - start.instant
            measurement.useAfterSlowStart = use(from: afterSlowStart, to: alone)
            measurement.overflowAfterSlowStart = share(of: \.overflowed, from: afterSlowStart, to: alone)
        }
        delays.sort()
        if !delays.isEmpty {
            measurement.meanQueueingDelay = Nanoseconds(delays.reduce(0, +) / Int64(delays.count))
            measurement.queueingDelay95 = Nanoseconds(delays[min(delays.count - 1, delays.count * 95 / 100)])
        }
        try connect(1)
        run(for: cell.span / 2)
        let middle = snapshot()
        run(for: cell.span / 2)
        let end = snapshot()
        measurement.useByBoth = use(from: middle, to: end)
        measurement.fairness = fairness(from: middle, to: end)
        measurement.expectedUse = Model.use(byEquationsIn: cell, random: .seeded(1))
        measurement.fault = network.journal.violations.first ?? service.fault ?? transfers.compactMap(\.fault).first
        return measurement
    }

    private func connect(_ index: Int) throws {
        _ = try clients[index].connect(
            to: Self.serverAddress, over: clients[index].interfaces[0], tls: clientContext,
            serverName: SimulationCredentials.serverName, configuration: Self.configuration(of: cell))
    }

    private func run(for span: Nanoseconds) {
        _ = network.scheduler.run(until: network.now + span)
    }

    // MARK: Looking

    /// Looks at the queue every so often, and for the end of slow start.
    private func sample() {
        guard isSampling else { return }
        if afterSlowStart == nil, let connection = server.connections.first {
            let inSlowStart = server.engine.withConnection(connection.handle) {
                $0.pathSnapshots().first?.isInSlowStart ?? true
            }
            if inSlowStart == false { afterSlowStart = snapshot() }
        }
        if afterSlowStart != nil {
            let waiting = Double(bottleneck.queuedBytes(now: network.now)) * 8 / Double(cell.bandwidth)
            delays.append(Int64(waiting * 1e9))
        }
        let interval = max(cell.roundTrip / 20, cell.span / 20_000)
        network.scheduler.schedule(after: interval) { [self] in sample() }
    }

    private func snapshot() -> Snapshot {
        let counters = bottleneck.counters
        let accepted = counters.carriedBytes + 28 * counters.carried
        return Snapshot(
            instant: network.now, bytesPassed: Double(accepted - bottleneck.queuedBytes(now: network.now)),
            carried: counters.carried, overflowed: counters.queueFull, lost: counters.lost,
            delivered: transfers.map(\.downloadedBytes))
    }

    private func use(from start: Snapshot, to end: Snapshot) -> Double {
        let seconds = (end.instant - start.instant).inSeconds
        return seconds > 0 ? (end.bytesPassed - start.bytesPassed) * 8 / seconds / Double(cell.bandwidth) : 0
    }

    private func share(of counter: KeyPath<Snapshot, Int>, from start: Snapshot, to end: Snapshot) -> Double {
        let sent =
            end.carried - start.carried + end.overflowed - start.overflowed + end.lost - start.lost
        return sent > 0 ? Double(end[keyPath: counter] - start[keyPath: counter]) / Double(sent) : 0
    }

    /// Jain's index: 1 for equal shares, a half when one flow of two has everything.
    private func fairness(from start: Snapshot, to end: Snapshot) -> Double {
        let shares = zip(start.delivered, end.delivered).map { Double($1 - $0) }
        let sum = shares.reduce(0, +)
        let squares = shares.reduce(0) { $0 + $1 * $1 }
        return squares > 0 ? sum * sum / (Double(shares.count) * squares) : 0
    }
}
