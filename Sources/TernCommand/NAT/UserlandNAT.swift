// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix
import QUICProtocol

/// A network address translator in a process of ours: what stands in most people's homes, made to misbehave at will.
///
/// Datagrams that clients send to its inside address leave from an outside socket of the client's own, and what the
/// server sends there goes back to the client. `rebindPort` and `rebindAddress` replace the outside sockets in the
/// middle of everything, as a NAT does that lost its table or changed its uplink: the server sees its peer move, and
/// what it still sends to the old address vanishes.
///
/// Like most NATs it lets in only what the server itself sends, never strangers.
final class UserlandNAT: Sendable {
    struct Configuration: Sendable {
        /// Where clients send to. Port 0 takes any.
        var listen: SocketAddress
        /// The server.
        var target: SocketAddress
        /// The IP addresses that outside sockets are bound to; `rebindAddress` goes through them in turn.
        var outside: [SocketAddress]
        /// The same for clients on networks of their own, by the client's IP address.
        var outsideOfClient: [String: [SocketAddress]] = [:]
        /// The probability that a datagram is lost, in each direction.
        var dropProbability = 0.0
        /// How long each datagram is held, in each direction.
        var delay = TimeAmount.zero
        /// Decides which datagrams are lost.
        var seed: UInt64 = 1
        /// Clients known at once; beyond it the one that has been silent for longest is forgotten.
        var maxClients = 1_024
        /// A client silent for longer is forgotten at the next rebinding (RFC 4787, section 4.3: at least 2 minutes).
        var maxIdleTime = TimeAmount.minutes(2)
    }

    enum RebindingKind: String, Sendable {
        case port
        case address
    }

    /// A client whose outside address changed.
    struct Rebinding: Sendable {
        var kind: RebindingKind
        var client: SocketAddress
        var old: SocketAddress
        var new: SocketAddress
    }

    /// What went one way.
    struct Flow: Sendable {
        var datagrams = 0
        var bytes = 0
        /// Lost on purpose.
        var dropped = 0
        /// Refused by the kernel, for want of room most of the time.
        var failed = 0
    }

    struct Counters: Sendable {
        var toServer = Flow()
        var toClient = Flow()
        var rebindings = 0
        var clients = 0
    }

    /// The address that clients send to.
    let address: SocketAddress
    private let eventLoop: any EventLoop
    private let table: NIOLoopBound<NATTable>

    private init(address: SocketAddress, table: NIOLoopBound<NATTable>, eventLoop: any EventLoop) {
        self.address = address
        self.table = table
        self.eventLoop = eventLoop
    }

    /// Binds the inside socket and starts to translate.
    static func start(_ configuration: Configuration, on eventLoop: any EventLoop) async throws -> UserlandNAT {
        precondition(
            !configuration.outside.isEmpty && configuration.outsideOfClient.values.allSatisfy { !$0.isEmpty },
            "a NAT needs an outside address"
        )
        return try await eventLoop.flatSubmit {
            let table = NATTable(configuration, eventLoop: eventLoop)
            let bound = NIOLoopBound(table, eventLoop: eventLoop)
            return table.start().map { UserlandNAT(address: $0, table: bound, eventLoop: eventLoop) }
        }.get()
    }

    /// Gives every client a new outside port on the same IP address.
    @discardableResult
    func rebindPort() async throws -> [Rebinding] {
        try await rebind(.port)
    }

    /// Gives every client the next outside IP address, and a new port.
    @discardableResult
    func rebindAddress() async throws -> [Rebinding] {
        try await rebind(.address)
    }

    func rebind(_ kind: RebindingKind) async throws -> [Rebinding] {
        let table = table
        return try await eventLoop.flatSubmit { table.value.rebind(kind) }.get()
    }

    func counters() async throws -> Counters {
        let table = table
        return try await eventLoop.submit { table.value.counters }.get()
    }

    /// Closes every socket.
    func stop() async throws {
        let table = table
        try await eventLoop.submit { table.value.stop() }.get()
    }
}

/// The NAT's state, confined to its event loop.
private final class NATTable {
    private let configuration: UserlandNAT.Configuration
    private let eventLoop: any EventLoop
    private var inside: NATSocket?
    private var mappings: [SocketAddress: Mapping] = [:]
    /// How often the outside IP address changed: the index, wrapped, of the address that new sockets get.
    private var addressRebindings = 0
    private var random: RandomSource
    private(set) var counters = UserlandNAT.Counters()

    init(_ configuration: UserlandNAT.Configuration, eventLoop: any EventLoop) {
        self.configuration = configuration
        self.eventLoop = eventLoop
        self.random = .seeded(configuration.seed)
    }

    /// A client and its outside socket.
    private final class Mapping {
        let client: SocketAddress
        /// nil until the first socket is bound.
        var outside: NATSocket?
        /// What came before it was.
        var waiting: [AddressedEnvelope<ByteBuffer>] = []
        var lastUsed = NIODeadline.now()
        /// Set once the mapping is out of the table: a socket that is bound later is closed at once.
        var isForgotten = false

        init(client: SocketAddress) { self.client = client }
    }

    /// Datagrams that wait for a client's first socket.
    private static let maxWaiting = 64

    func start() -> EventLoopFuture<SocketAddress> {
        NATSocket.bind(to: configuration.listen, on: eventLoop) { [weak self] in self?.received(fromClient: $0) }
            .assumeIsolated()
            .map { [self] socket in
                inside = socket.value
                return socket.value.address
            }
            .nonisolated()
    }

    func stop() {
        inside?.close()
        inside = nil
        for mapping in mappings.values { forget(mapping) }
        mappings.removeAll()
    }

    // MARK: Datagrams

    private func received(fromClient envelope: AddressedEnvelope<ByteBuffer>) {
        let mapping = mappings[envelope.remoteAddress] ?? addMapping(for: envelope.remoteAddress)
        mapping.lastUsed = .now()
        guard mapping.outside != nil else {
            if mapping.waiting.count < Self.maxWaiting { mapping.waiting.append(envelope) }
            return
        }
        afterDelay(envelope) { [configuration] table, envelope in
            // The outside socket is looked up when the datagram leaves, so it leaves from the newest.
            guard let outside = mapping.outside else { return }
            table.forward(envelope, through: outside, to: configuration.target, counting: \.toServer)
        }
    }

    private func received(_ envelope: AddressedEnvelope<ByteBuffer>, for mapping: Mapping) {
        guard envelope.remoteAddress == configuration.target else { return }
        mapping.lastUsed = .now()
        afterDelay(envelope) { table, envelope in
            guard let inside = table.inside else { return }
            table.forward(envelope, through: inside, to: mapping.client, counting: \.toClient)
        }
    }

    private func afterDelay(
        _ envelope: AddressedEnvelope<ByteBuffer>,
        _ body: @escaping (NATTable, AddressedEnvelope<ByteBuffer>) -> Void
    ) {
        guard configuration.delay > .zero else { return body(self, envelope) }
        var held = envelope
        // What was read is a slice of a large buffer: a small datagram must not keep all of it for long.
        held.data = ByteBuffer(bytes: envelope.data.readableBytesView)
        eventLoop.assumeIsolated().scheduleTask(in: configuration.delay) { [weak self] in
            guard let self else { return }
            body(self, held)
        }
    }

    /// Sends on what was received, less what is lost on purpose, in as few batches as that leaves.
    private func forward(
        _ envelope: AddressedEnvelope<ByteBuffer>,
        through socket: NATSocket,
        to destination: SocketAddress,
        counting flow: WritableKeyPath<UserlandNAT.Counters, UserlandNAT.Flow>
    ) {
        let ecn = envelope.metadata?.ecnState ?? .transportNotCapable
        envelope.data.withUnsafeReadableBytes { bytes in
            guard !bytes.isEmpty else { return }
            let segmentSize = max(1, min(envelope.metadata?.segmentSize ?? bytes.count, bytes.count))
            var batchStart = 0
            func flush(upTo end: Int) {
                guard end > batchStart else { return }
                let batch = UnsafeRawBufferPointer(rebasing: bytes[batchStart..<end])
                let datagrams = (batch.count + segmentSize - 1) / segmentSize
                if socket.send(batch, segmentSize: segmentSize, to: destination, ecn: ecn) {
                    counters[keyPath: flow].datagrams += datagrams
                    counters[keyPath: flow].bytes += batch.count
                } else {
                    counters[keyPath: flow].failed += datagrams
                }
            }
            if configuration.dropProbability > 0 {
                for start in stride(from: 0, to: bytes.count, by: segmentSize) where losesNext() {
                    flush(upTo: start)
                    batchStart = min(start + segmentSize, bytes.count)
                    counters[keyPath: flow].dropped += 1
                }
            }
            flush(upTo: bytes.count)
        }
    }

    private func losesNext() -> Bool {
        Double.random(in: 0..<1, using: &random) < configuration.dropProbability
    }

    // MARK: Mappings

    private func addMapping(for client: SocketAddress) -> Mapping {
        if mappings.count >= configuration.maxClients,
            let oldest = mappings.values.min(by: { $0.lastUsed < $1.lastUsed })
        {
            mappings[oldest.client] = nil
            forget(oldest)
        }
        let mapping = Mapping(client: client)
        mappings[client] = mapping
        counters.clients += 1
        bindOutside(for: mapping)
            .map { [self] socket in
                mapping.outside = socket
                for envelope in mapping.waiting { received(fromClient: envelope) }
                mapping.waiting = []
            }
            .whenFailure { [self] _ in
                // The next datagram tries again.
                if mappings[client] === mapping { mappings[client] = nil }
            }
        return mapping
    }

    private func forget(_ mapping: Mapping) {
        mapping.isForgotten = true
        mapping.outside?.close()
        mapping.outside = nil
        mapping.waiting = []
    }

    private func bindOutside(for mapping: Mapping) -> EventLoopFuture<NATSocket>.Isolated {
        let ip = mapping.client.ipAddress ?? ""
        let addresses = configuration.outsideOfClient[ip] ?? configuration.outside
        let address = addresses[addressRebindings % addresses.count]
        return NATSocket.bind(to: address, on: eventLoop) { [weak self, weak mapping] envelope in
            guard let self, let mapping else { return }
            received(envelope, for: mapping)
        }
        .assumeIsolated()
        .flatMapThrowing { socket in
            guard !mapping.isForgotten else {
                socket.value.close()
                throw ChannelError.alreadyClosed
            }
            return socket.value
        }
    }

    func rebind(_ kind: UserlandNAT.RebindingKind) -> EventLoopFuture<[UserlandNAT.Rebinding]> {
        if kind == .address { addressRebindings += 1 }
        let deadline = NIODeadline.now() - configuration.maxIdleTime
        for mapping in mappings.values where mapping.lastUsed < deadline {
            mappings[mapping.client] = nil
            forget(mapping)
        }
        let moves = mappings.values.compactMap { mapping -> EventLoopFuture<UserlandNAT.Rebinding>? in
            guard mapping.outside != nil else { return nil }
            return bindOutside(for: mapping)
                .map { [self] socket in
                    let old = mapping.outside
                    mapping.outside = socket
                    old?.close()
                    counters.rebindings += 1
                    return UserlandNAT.Rebinding(
                        kind: kind,
                        client: mapping.client,
                        old: old?.address ?? socket.address,
                        new: socket.address
                    )
                }
                .nonisolated()
        }
        return EventLoopFuture.whenAllSucceed(moves, on: eventLoop)
    }
}
