// SPDX-License-Identifier: Apache-2.0

import BenchmarkSupport
import CProcessFigures
import QUICProtocol

/// A client and a server joined in memory that send to each other without end, and an attacker between them.
final class Victim {
    enum Failure: Error { case noConnection, stalled }

    private let clientEndpoint = QUICEndpoint()
    private let serverEndpoint = QUICEndpoint()
    private let configuration: ServerConfiguration
    private let client: ConnectionHandle
    private var server: ConnectionHandle?
    private var now = Instant(nanoseconds: 1_000_000_000)
    private let clientAddress = NetworkAddress(192, 0, 2, 1, port: 50_000)
    private let serverAddress = NetworkAddress(198, 51, 100, 1, port: 4_433)
    private let wire = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 64)
    /// Hostile datagrams that come at once: they are made ahead, so that their making is not in the measurement.
    private let hostile = UnsafeMutableRawBufferPointer.allocate(
        byteCount: Victim.volley * Victim.hostileCapacity, alignment: 64)
    private let sink = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
    private let source = SharedBytes(copying: [UInt8](repeating: 0x5a, count: 16 * 1_024))
    private var upload = StreamID(rawValue: 0)
    private var download = StreamID(rawValue: 0)
    private var written = 0
    private(set) var delivered = 0
    private(set) var mostPaths = 0

    private var attack: Attack?
    private var hostileSent = 0
    private var hostileLimit = 0
    private var volleys = 0
    private var genuine = 0
    private var hostileTime: UInt64 = 0
    /// Nanoseconds that a measurement of nothing shows.
    private let measuringTime: Double

    /// Hostile datagrams after or before one genuine one, but for races.
    private static let volley = 10
    private static let hostileCapacity = 2_048

    init() throws {
        let tls = try TLSPair()
        let start = thread_cpu_nanoseconds()
        for _ in 0..<10_000 { _ = thread_cpu_nanoseconds() }
        measuringTime = Double(thread_cpu_nanoseconds() - start) / 10_000
        configuration = ServerConfiguration(tls: tls.server)
        client = try clientEndpoint.connect(
            over: FourTuple(transport: TransportID(0), local: clientAddress, remote: serverAddress),
            tls: tls.client, serverName: "localhost", now: now)
        // Not longer: time would go on to the idle timeout.
        for _ in 0..<100 where clientEndpoint.withConnection(client, { $0.isHandshakeConfirmed }) != true { step() }
        guard let server else { throw Failure.noConnection }
        let opened = try clientEndpoint.withConnection(client) { connection throws(StreamError) in
            try connection.openStream(.unidirectional)
        }
        let other = try serverEndpoint.withConnection(server) { connection throws(StreamError) in
            try connection.openStream(.unidirectional)
        }
        guard let opened, let other else { throw Failure.noConnection }
        upload = opened
        download = other
    }

    deinit {
        wire.deallocate()
        hostile.deallocate()
        sink.deallocate()
    }

    var paths: Int { server.flatMap { serverEndpoint.withConnection($0) { $0.pathSnapshots().count } } ?? 0 }
    var dropped: UInt64 { server.flatMap { serverEndpoint.withConnection($0) { $0.statistics.packetsDropped } } ?? 0 }
    var moves: UInt64 { server.flatMap { serverEndpoint.withConnection($0) { $0.statistics.peerMoves } } ?? 0 }

    /// Windows grow and pools fill.
    func settle() throws {
        let end = delivered + 16 << 20
        while delivered < end { try round() }
    }

    /// Goes on with the transfer until so many hostile datagrams have come in all.
    func endure(_ attack: Attack, until limit: Int) throws -> Cost {
        self.attack = attack
        hostileLimit = limit
        hostileTime = 0
        volleys = 0
        let before = hostileSent
        let start = thread_cpu_nanoseconds()
        var idle = 0
        while hostileSent < limit {
            let sent = hostileSent
            try round()
            mostPaths = max(mostPaths, paths)
            idle = hostileSent == sent ? idle + 1 : 0
            guard idle < 200_000 else { throw Failure.stalled }
        }
        self.attack = nil
        let count = Double(hostileSent - before)
        let receiving = Double(hostileTime) - Double(volleys) * measuringTime
        return Cost(receiving: receiving / count, everything: Double(thread_cpu_nanoseconds() - start) / count)
    }

    /// Whether all that was written arrives.
    func finish() throws -> Bool {
        for _ in 0..<1_000_000 where delivered < written { try round(isWriting: false) }
        return delivered == written
    }

    private func round(isWriting: Bool = true) throws {
        guard let server else { throw Failure.noConnection }
        if isWriting {
            written += try write(to: upload, of: client, at: clientEndpoint)
            written += try write(to: download, of: server, at: serverEndpoint)
        }
        step()
        delivered += try read(upload, of: server, at: serverEndpoint)
        delivered += try read(download, of: client, at: clientEndpoint)
    }

    private func write(to stream: StreamID, of handle: ConnectionHandle, at endpoint: QUICEndpoint) throws -> Int {
        let bytes = source
        let count = try endpoint.withConnection(handle) { connection throws(StreamError) -> Int in
            guard connection.sendBuffered(stream) < 64 * 1_024 else { return 0 }
            try connection.write(bytes, to: stream, finish: false)
            return bytes.count
        }
        guard let count else { throw Failure.noConnection }
        return count
    }

    private func read(_ stream: StreamID, of handle: ConnectionHandle, at endpoint: QUICEndpoint) throws -> Int {
        let buffer = sink
        let count = try endpoint.withConnection(handle) { connection throws(StreamError) -> Int in
            guard connection.readableBytes(stream) > 0 else { return 0 }
            return try connection.read(stream, into: buffer).count
        }
        return count ?? 0
    }

    /// Both sides send what they may, and time passes: to the next deadline if nothing was sent.
    private func step() {
        let isMoving = flush(client, of: clientEndpoint) { self.deliverToServer($0) }
        var isAnswering = false
        if let server { isAnswering = flush(server, of: serverEndpoint) { self.deliverToClient($0) } }
        now = now + .microseconds(100)
        guard !isMoving, !isAnswering else { return }
        let deadlines = [
            clientEndpoint.withConnection(client) { $0.nextDeadline } ?? nil,
            server.flatMap { serverEndpoint.withConnection($0) { $0.nextDeadline } ?? nil },
        ]
        if let next = deadlines.compactMap({ $0 }).min(), next > now { now = next }
    }

    private func flush(
        _ handle: ConnectionHandle, of endpoint: QUICEndpoint, _ deliver: (Transmission) -> Void
    ) -> Bool {
        var isMoving = false
        while true {
            let transmission = endpoint.withConnection(handle) { connection -> Transmission? in
                if let deadline = connection.nextDeadline, deadline <= now { connection.handleDeadline(now: now) }
                while let event = connection.nextEvent() {
                    if case .closed(let reason) = event { print("  a connection ended: \(reason)") }
                }
                var span = wire.mutableBytes
                return connection.transmit(into: &span, now: now)
            }
            guard let transmission, let transmission else { return isMoving }
            isMoving = true
            deliver(transmission)
        }
    }

    private func deliverToClient(_ transmission: Transmission) {
        // What goes to a spoofed address reaches nobody.
        guard transmission.tuple.remote == clientAddress else { return }
        let tuple = FourTuple(transport: TransportID(0), local: clientAddress, remote: serverAddress)
        var datagrams = UnsafeMutableRawBufferPointer(rebasing: wire[..<transmission.byteCount]).mutableBytes
        var offset = 0
        while offset < transmission.byteCount {
            _ = clientEndpoint.receive(
                &datagrams, from: &offset, segmentSize: transmission.segmentSize, on: tuple, ecn: .notECT,
                accepting: nil, now: now)
        }
    }

    private func deliverToServer(_ transmission: Transmission) {
        for start in stride(from: 0, to: transmission.byteCount, by: transmission.segmentSize) {
            let end = min(start + transmission.segmentSize, transmission.byteCount)
            let datagram = UnsafeMutableRawBufferPointer(rebasing: wire[start..<end])
            genuine += 1
            switch attack {
            case .forged?:
                attack(with: UnsafeRawBufferPointer(datagram), times: Self.volley, isForged: true)
                receive(datagram, from: clientAddress)
            case .replayed?:
                prepare(UnsafeRawBufferPointer(datagram), times: Self.volley, isForged: false)
                receive(datagram, from: clientAddress)
                fire(Self.volley, of: datagram.count)
            case .raced? where genuine % 2 == 0:
                attack(with: UnsafeRawBufferPointer(datagram), times: 1, isForged: false)
                receive(datagram, from: clientAddress)
            default:
                receive(datagram, from: clientAddress)
            }
        }
    }

    private func attack(with bytes: UnsafeRawBufferPointer, times: Int, isForged: Bool) {
        prepare(bytes, times: times, isForged: isForged)
        fire(times, of: bytes.count)
    }

    private func prepare(_ bytes: UnsafeRawBufferPointer, times: Int, isForged: Bool) {
        for number in 0..<times {
            let copy = UnsafeMutableRawBufferPointer(rebasing: hostile[(number * Self.hostileCapacity)...])
            copy.copyMemory(from: bytes)
            if isForged { copy[bytes.count - 1] ^= 1 }
        }
    }

    /// Each from a source of its own.
    private func fire(_ times: Int, of size: Int) {
        // What has a long header is of the handshake.
        guard hostile[0] & 0x80 == 0 else { return }
        let count = min(times, hostileLimit - hostileSent)
        guard count > 0 else { return }
        volleys += 1
        let start = thread_cpu_nanoseconds()
        for number in 0..<count {
            let first = number * Self.hostileCapacity
            receive(
                UnsafeMutableRawBufferPointer(rebasing: hostile[first..<first + size]),
                from: source(hostileSent + number))
        }
        hostileTime += thread_cpu_nanoseconds() - start
        hostileSent += count
    }

    /// A different address for each of the sources, with ports that a peer may have (M41).
    private func source(_ number: Int) -> NetworkAddress {
        NetworkAddress(ipv4: 0x0a00_0000 + UInt32(number), port: UInt16(20_000 + number % 40_000))
    }

    private func receive(_ datagram: UnsafeMutableRawBufferPointer, from address: NetworkAddress) {
        let tuple = FourTuple(transport: TransportID(0), local: serverAddress, remote: address)
        var bytes = datagram.mutableBytes
        let outcome = serverEndpoint.receive(&bytes, on: tuple, ecn: .notECT, accepting: configuration, now: now)
        if case .accepted(let handle) = outcome { server = handle }
    }
}
