// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// A client and a server joined by a wire without delay, for tests of the engine that need no network.
final class EnginePair {
    enum Side { case client, server }

    static let certificate = try? SelfSignedCertificate.generate(
        commonName: "localhost", dnsNames: ["localhost"], ipAddresses: [], validFor: 30)

    var now = Instant.zero + .seconds(100)
    let clientEndpoint: QUICEndpoint
    let serverEndpoint: QUICEndpoint
    let server: ServerConfiguration
    let client: ConnectionHandle
    var accepted: ConnectionHandle?
    var clientAddress = NetworkAddress(192, 0, 2, 1, port: 50_000)
    let serverAddress = NetworkAddress(198, 51, 100, 1, port: 4_433)
    /// Datagrams for which this is false are lost.
    var passes: (Side, [UInt8]) -> Bool = { _, _ in true }
    var events: [Side: [ConnectionEvent]] = [.client: [], .server: []]
    /// Every datagram, as it was sent.
    var trace: [(from: Side, bytes: [UInt8])] = []
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 8)

    init(
        seed: UInt64 = 1, configure: (inout ConnectionConfiguration, Side) -> Void = { _, _ in },
        endpoint: EndpointConfiguration = EndpointConfiguration()
    ) throws {
        guard let certificate = Self.certificate else { throw TransportError(.internalError, "no certificate") }
        var settings = TLSSettings()
        settings.certificateChain = [certificate.certificate]
        settings.privateKey = certificate.privateKey
        settings.applicationProtocols = ["test"]
        let serverTLS = try TLSContext(settings, role: .server)
        var clientSettings = TLSSettings()
        clientSettings.trustRoots = .certificates([certificate.certificate])
        clientSettings.applicationProtocols = ["test"]
        let clientTLS = try TLSContext(clientSettings, role: .client)
        var serverConfiguration = ConnectionConfiguration()
        configure(&serverConfiguration, .server)
        var clientConfiguration = ConnectionConfiguration()
        configure(&clientConfiguration, .client)
        server = ServerConfiguration(tls: serverTLS, connection: serverConfiguration)
        clientEndpoint = QUICEndpoint(configuration: endpoint, random: .seeded(seed))
        serverEndpoint = QUICEndpoint(random: .seeded(seed &+ 1))
        client = try clientEndpoint.connect(
            over: FourTuple(transport: TransportID(0), local: clientAddress, remote: serverAddress), tls: clientTLS,
            serverName: "localhost", configuration: clientConfiguration, now: now)
    }

    deinit { buffer.deallocate() }

    @discardableResult
    func onClient<R>(_ body: (inout QUICConnection) throws -> R) throws -> R {
        guard let result = try clientEndpoint.withConnection(client, body) else {
            throw TransportError(.internalError, "the client's connection is gone")
        }
        return result
    }

    @discardableResult
    func onServer<R>(_ body: (inout QUICConnection) throws -> R) throws -> R {
        guard let accepted, let result = try serverEndpoint.withConnection(accepted, body) else {
            throw TransportError(.internalError, "the server has no connection")
        }
        return result
    }

    /// Exchanges datagrams until both sides are silent at this instant.
    func exchange() {
        var rounds = 0
        while rounds < 10_000 {
            rounds += 1
            let sent = flush(.client) + flush(.server)
            if sent == 0 { return }
        }
    }

    /// Exchanges datagrams and lets time pass, from deadline to deadline.
    func run(for span: Nanoseconds) {
        let end = now + span
        var steps = 0
        while true {
            exchange()
            steps += 1
            if steps > 100_000 {
                Issue.record("time stands still at \(now.nanoseconds): \(describe(.client)) \(describe(.server))")
                return
            }
            let deadlines = [deadline(.client), deadline(.server)].compactMap { $0 }
            guard let next = deadlines.min(), next <= end else {
                now = end
                return
            }
            now = max(next, now)
            for side in [Side.client, .server] {
                guard let deadline = deadline(side), deadline <= now else { continue }
                with(side) { $0.handleDeadline(now: now) }
            }
        }
    }

    private func describe(_ side: Side) -> String {
        with(side) {
            "\(side): deadline \(String(describing: $0.nextDeadline)), loss \(String(describing: $0.lossDeadline())), pacing \(String(describing: $0.timers.pacingDeadline)), ack \(String(describing: $0.spaces.application.received.ackDeadline)), paths \($0.paths.nextDeadline) ping \($0.timers) in flight \($0.paths.active.recovery.bytesInFlight) window \($0.paths.active.recovery.congestion.window) unsent \($0.streams.hasStreamDataToSend)"
        } ?? "none"
    }

    private func deadline(_ side: Side) -> Instant? { with(side) { $0.nextDeadline } ?? nil }

    private func with<R>(_ side: Side, _ body: (inout QUICConnection) -> R) -> R? {
        switch side {
        case .client: clientEndpoint.withConnection(client, body)
        case .server: accepted.flatMap { serverEndpoint.withConnection($0, body) }
        }
    }

    private func flush(_ side: Side) -> Int {
        var count = 0
        while true {
            let transmission = with(side) { connection in
                var raw = buffer.mutableBytes
                return connection.transmit(into: &raw, now: now)
            }
            guard let transmission = transmission ?? nil else { break }
            var offset = 0
            while offset < transmission.byteCount {
                let end = min(offset + transmission.segmentSize, transmission.byteCount)
                deliver([UInt8](buffer[offset..<end]), from: side, ecn: transmission.ecn)
                offset = end
                count += 1
            }
        }
        while let event = with(side, { $0.nextEvent() }) ?? nil { events[side]?.append(event) }
        return count
    }

    /// Brings one datagram to the other side, unless it is lost.
    func deliver(_ bytes: [UInt8], from side: Side, ecn: ECNCodepoint = .notECT) {
        trace.append((side, bytes))
        guard passes(side, bytes) else { return }
        inject(bytes, into: side == .client ? .server : .client, ecn: ecn)
    }

    /// Brings one datagram to a side, from the other one's address or from a given one.
    @discardableResult
    func inject(
        _ bytes: [UInt8], into side: Side, from address: NetworkAddress? = nil, ecn: ECNCodepoint = .notECT
    ) -> DatagramOutcome {
        var bytes = bytes
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        switch side {
        case .server:
            let tuple = FourTuple(transport: TransportID(0), local: serverAddress, remote: address ?? clientAddress)
            let outcome = serverEndpoint.receive(&raw, on: tuple, ecn: ecn, accepting: server, now: now)
            if case .accepted(let handle) = outcome { accepted = handle }
            if case .response = outcome, let response = serverEndpoint.takeResponse() {
                deliver(response.bytes, from: .server)
            }
            return outcome
        case .client:
            let tuple = FourTuple(
                transport: TransportID(0), local: originalClientAddress, remote: address ?? serverAddress)
            return clientEndpoint.receive(&raw, on: tuple, ecn: ecn, accepting: nil, now: now)
        }
    }

    /// The client does not know of the NAT that changes its address.
    private let originalClientAddress = NetworkAddress(192, 0, 2, 1, port: 50_000)
}
