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

    private var watches: [FlowWatch] = []
    private var afterSlowStart: Snapshot?
    /// The flows as they stood when the last of them left slow start.
    private var standing: [Model.Flow] = []
    private var standingSince: Instant?
    private var delays: [Int64] = []
    private var samplesDelays = true

    private init(_ cell: Cell, seed: UInt64) throws {
        self.cell = cell
        network = SimulatedNetwork(seed: seed)
        let credentials = try SimulationCredentials.shared.get()
        clientContext = try credentials.clientContext()
        let configuration = Self.configuration(of: cell)
        server = SimulatedEndpoint(named: "server", in: network)
        service = PerfService(sendBufferLimit: configuration.sendBufferLimit)
        server.application = service
        // The scenarios look; here windows are of tens of thousands of packets.
        server.checksInvariants = false
        server.listening = ServerConfiguration(tls: try credentials.serverContext(), connection: configuration)
        let outbound = LinkConditions(
            delay: cell.roundTrip / 2, loss: cell.loss, bandwidth: cell.bandwidth,
            queueLimit: cell.queueLimit + Cell.wireSize)
        bottleneck = server.addInterface(at: Self.serverAddress, outbound, inbound: .perfect).outbound
        for index in 0..<2 {
            let client = SimulatedEndpoint(named: "client \(index + 1)", in: network)
            var access = LinkConditions.perfect
            access.delay = cell.roundTrip - cell.roundTrip / 2
            var card = LinkConditions.perfect
            card.coalescing = cell.coalescing
            client.addInterface(
                at: NetworkAddress(203, 0, 113, UInt8(2 + index), port: 50_001), access, inbound: card)
            let transfer = Transfer(
                [StreamPlan(download: Self.endless)], sendBufferLimit: configuration.sendBufferLimit)
            client.application = transfer
            client.checksInvariants = false
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
        let alone = snapshot()
        measurement.useFromStart = use(from: start, to: alone)
        measurement.overflowFromStart = share(of: \.overflowed, from: start, to: alone)
        measurement.lossFromStart = share(of: \.lost, from: start, to: alone)
        if let afterSlowStart {
            measurement.slowStartEnd = afterSlowStart.instant - start.instant
            measurement.useAfterSlowStart = use(from: afterSlowStart, to: alone)
            measurement.overflowAfterSlowStart = share(of: \.overflowed, from: afterSlowStart, to: alone)
            let seconds = (alone.instant - afterSlowStart.instant).inSeconds
            measurement.expectedUse = Model.use(of: cell, by: standing[0], for: seconds)
            measurement.expectedQueueingDelay = Model.queueingDelay(of: cell, by: standing[0], for: seconds)
        }
        noteDelays(in: &measurement)
        try connect(1)
        run(for: cell.span / 2)
        let middle = snapshot()
        run(for: cell.span / 2)
        let end = snapshot()
        measurement.useByBoth = use(from: middle, to: end)
        measurement.fairness = Model.jainsIndex(zip(middle.delivered, end.delivered).map { Double($1 - $0) })
        if standing.count == 2, let standingSince {
            let offset = max(.zero, middle.instant - standingSince)
            measurement.expectedFairness = Model.fairness(
                of: cell, between: standing, for: (end.instant - (standingSince + offset)).inSeconds,
                after: offset.inSeconds)
        }
        measurement.fault = network.journal.violations.first ?? service.fault ?? transfers.compactMap(\.fault).first
        return measurement
    }

    private func noteDelays(in measurement: inout Measurement) {
        samplesDelays = false
        delays.sort()
        guard !delays.isEmpty else { return }
        measurement.meanQueueingDelay = Nanoseconds(delays.reduce(0, +) / Int64(delays.count))
        measurement.queueingDelay95 = Nanoseconds(delays[min(delays.count - 1, delays.count * 95 / 100)])
    }

    // MARK: Tracing

    /// Prints what the cell's flows do as CSV, the second from the middle on.
    static func printTrace(of cell: Cell, _ options: Options) {
        print("seconds,queue bytes,flow,window,in flight,slow start,smoothed RTT ms,lost,overflowed,delivered bytes")
        do {
            let run = try Run(cell, seed: options.seed)
            try run.connect(0)
            run.trace(every: Nanoseconds(Int64((options.traceInterval ?? 1) * 1e6)), from: run.network.now)
            run.run(for: cell.span)
            try run.connect(1)
            run.run(for: cell.span)
            run.network.scheduler.removeAll()
        } catch {
            print("\(error)")
        }
    }

    private func trace(every interval: Nanoseconds, from start: Instant) {
        for flow in server.connections.indices {
            guard let path = path(of: flow) else { continue }
            let fields = [
                "\((network.now - start).inSeconds)", "\(bottleneck.queuedBytes(now: network.now))", "\(flow + 1)",
                "\(path.congestionWindow)", "\(path.bytesInFlight)", "\(path.isInSlowStart)",
                "\(path.smoothedRTT.inMilliseconds)", "\(bottleneck.counters.lost)", "\(bottleneck.counters.queueFull)",
                "\(transfers[flow].downloadedBytes)",
            ]
            print(fields.joined(separator: ","))
        }
        network.scheduler.schedule(after: interval) { [self] in trace(every: interval, from: start) }
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

    /// Looks at the queue and the flows every so often.
    private func sample() {
        let queued = bottleneck.queuedBytes(now: network.now)
        let delay = Double(queued) * 8 / Double(cell.bandwidth)
        look(roundTrip: cell.roundTrip.inSeconds + delay)
        if samplesDelays, afterSlowStart != nil { delays.append(Int64(delay * 1e9)) }
        network.scheduler.schedule(after: max(cell.roundTrip / 20, cell.span / 100_000)) { [self] in sample() }
    }

    private func look(roundTrip: Double) {
        while watches.count < server.connections.count { watches.append(FlowWatch()) }
        for index in watches.indices {
            guard let path = path(of: index) else { return }
            watches[index].look(at: path, now: network.now)
        }
        guard standing.count < watches.count, watches.allSatisfy({ $0.slowStartEnd != nil }) else { return }
        standing = watches.map { $0.flow(now: network.now, roundTrip: roundTrip) }
        standingSince = network.now
        if watches.count == 1 { afterSlowStart = snapshot() }
    }

    private func path(of flow: Int) -> PathSnapshot? {
        server.engine.withConnection(server.connections[flow].handle) { $0.pathSnapshots().first } ?? nil
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
}
