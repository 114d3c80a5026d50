// SPDX-License-Identifier: Apache-2.0

import BenchmarkSupport
import QUICProtocol

/// A client and a server of the engine, joined in memory, with a virtual clock that lets the pacer keep up.
final class Pair {
    enum Side { case client, server }

    private let clientEndpoint = QUICEndpoint()
    private let serverEndpoint = QUICEndpoint()
    private let server: ServerConfiguration
    private let client: ConnectionHandle
    private var accepted: ConnectionHandle?
    private var now = Instant(nanoseconds: 1_000_000_000)
    private let clientTuple: FourTuple
    private let serverTuple: FourTuple
    private let wire = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 64)
    private let sink = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    /// What is written, over and over: stream data is referenced by the engine and not copied.
    private let source: SharedBytes
    private var sender = Side.server
    private var stream = StreamID(rawValue: 0)
    private(set) var packets: UInt64 = 0

    init() throws {
        let tls = try TLSPair()
        var configuration = ConnectionConfiguration()
        configuration.initialUDPPayload = 1_452
        configuration.maxUDPPayload = 1_452
        server = ServerConfiguration(tls: tls.server, connection: configuration)
        let clientAddress = NetworkAddress(127, 0, 0, 1, port: 50_000)
        let serverAddress = NetworkAddress(127, 0, 0, 1, port: 4_433)
        clientTuple = FourTuple(transport: TransportID(0), local: clientAddress, remote: serverAddress)
        serverTuple = FourTuple(transport: TransportID(0), local: serverAddress, remote: clientAddress)
        client = try clientEndpoint.connect(
            over: clientTuple, tls: tls.client, serverName: "localhost",
            configuration: configuration, now: now)
        source = SharedBytes(copying: [UInt8](repeating: 0x5a, count: 256 * 1_024))
        for _ in 0..<100 { step() }
    }

    deinit {
        wire.deallocate()
        sink.deallocate()
    }

    /// Opens the stream that the bytes go on.
    func open(from side: Side) throws {
        sender = side
        let opened = try with(side) { connection throws(StreamError) in try connection.openStream(.unidirectional) }
        guard let opened else { throw EngineBenchmark.Failure.noConnection }
        stream = opened
    }

    /// Moves at least `count` bytes from the sender's application to the receiver's.
    func transfer(_ count: Int) throws {
        var received = 0
        var idle = 0
        while received < count {
            try with(sender) { connection throws(StreamError) in
                if connection.sendBuffered(stream) < 1 << 20 { try connection.write(source, to: stream, finish: false) }
            }
            step()
            let read = try drain()
            received += read
            idle = read == 0 ? idle + 1 : 0
            guard idle < 10_000 else { throw EngineBenchmark.Failure.stalled }
        }
    }

    private func drain() throws -> Int {
        var total = 0
        try with(sender == .client ? .server : .client) { connection throws(StreamError) in
            guard connection.readableBytes(stream) > 0 else { return }
            while true {
                let result = try connection.read(stream, into: sink)
                total += result.count
                if result.count < sink.count { return }
            }
        }
        return total
    }

    @discardableResult
    private func with<R>(
        _ side: Side, _ body: (inout QUICConnection) throws(StreamError) -> R
    ) throws(StreamError) -> R? {
        switch side {
        case .client: return try clientEndpoint.withConnection(client, body)
        case .server:
            guard let accepted else { return nil }
            return try serverEndpoint.withConnection(accepted, body)
        }
    }

    /// Both sides send what they may, and time passes.
    private func step() {
        now = now + .microseconds(50)
        flush(.client)
        flush(.server)
    }

    private func flush(_ side: Side) {
        while true {
            let handle = side == .client ? client : accepted
            let endpoint = side == .client ? clientEndpoint : serverEndpoint
            guard let handle else { return }
            let transmission = endpoint.withConnection(handle) { connection -> Transmission? in
                if let deadline = connection.nextDeadline, deadline <= now { connection.handleDeadline(now: now) }
                while connection.nextEvent() != nil {}
                var span = wire.mutableBytes
                return connection.transmit(into: &span, now: now)
            }
            guard let transmission, let transmission else { return }
            deliver(transmission, from: side)
        }
    }

    private func deliver(_ transmission: Transmission, from side: Side) {
        var datagrams = UnsafeMutableRawBufferPointer(rebasing: wire[..<transmission.byteCount]).mutableBytes
        let size = transmission.segmentSize
        packets += UInt64((transmission.byteCount + size - 1) / size)
        var offset = 0
        while offset < datagrams.byteCount {
            if side == .client {
                let outcome = serverEndpoint.receive(
                    &datagrams, from: &offset, segmentSize: size, on: serverTuple, ecn: .notECT, accepting: server,
                    now: now)
                if case .accepted(let handle) = outcome { accepted = handle }
            } else {
                _ = clientEndpoint.receive(
                    &datagrams, from: &offset, segmentSize: size, on: clientTuple, ecn: .notECT, accepting: nil,
                    now: now)
            }
        }
    }
}
