// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import Logging
internal import NIOCore
internal import NIOPosix

/// One UDP socket. A NIO channel waits until something can be read, and reads the first of it; the rest is read, and everything
/// is written, on a descriptor of our own (decisions 0007 and 0050).
///
/// Our descriptor is a second one of the same socket. NIO closes a channel on errors that to QUIC are news of one path, or
/// of none; the socket itself then lives on in our descriptor, and a new channel reads from it.
///
/// `@unchecked Sendable`: the reference crosses threads inside NIO's closures, but every `var` is touched on the worker's
/// event loop alone.
final class UDPSocket: @unchecked Sendable {
    let id: TransportID
    let boundAddress: NetworkAddress
    /// The interface that the socket is tied to, if any.
    let device: String?
    /// Bound to no address in particular: each send names its source, each read reports where the datagram was sent to.
    let isWildcard: Bool
    let worker: Worker
    let configuration: TransportConfiguration

    /// -1 on a simulated host.
    let descriptor: Int32
    /// What takes the descriptor's place on a simulated host.
    private let simulated: (any SimulatedSocket)?
    private var simulatedReceiver: SimulatedReceiver?
    private(set) var isClosed = false
    private(set) var usesSegmentation: Bool
    private var channel: (any Channel)?
    /// Channels that NIO closed one shortly after the other; the delay before the next grows with it.
    private var quickReopenings = 0
    private var openedAt = Instant.zero
    var backlog = SendBacklog()
    /// Who takes the connections of new clients.
    var listener: ListenerState?
    /// The socket of the same transport for the other address family.
    weak var sibling: UDPSocket?

    /// A datagram of ours is never larger than a socket takes in one call (RFC 768, and the IP header).
    static let maximumBatchSize = 65_487

    /// Takes over the descriptor, which `tern_socket_open` made.
    init(
        id: TransportID, descriptor: Int32, boundAddress: NetworkAddress, device: String?, worker: Worker,
        configuration: TransportConfiguration
    ) {
        self.id = id
        self.descriptor = descriptor
        self.simulated = nil
        self.boundAddress = boundAddress
        self.device = device
        self.isWildcard = boundAddress.isUnspecified
        self.worker = worker
        self.configuration = configuration
        self.usesSegmentation =
            configuration.usesSegmentationOffload && tern_socket_supports_segmentation(descriptor)
        tern_socket_set_buffer_sizes(
            descriptor, Int32(clamping: configuration.sendBufferSize), Int32(clamping: configuration.receiveBufferSize))
    }

    /// A socket of a simulated host.
    init(
        id: TransportID, simulated: any SimulatedSocket, worker: Worker, configuration: TransportConfiguration
    ) {
        self.id = id
        self.descriptor = -1
        self.simulated = simulated
        self.boundAddress = simulated.address
        self.device = nil
        self.isWildcard = simulated.address.isUnspecified
        self.worker = worker
        self.configuration = configuration
        self.usesSegmentation = true
        let receiver = SimulatedReceiver(self)
        simulatedReceiver = receiver
        simulated.receiver = receiver
    }

    deinit {
        if !isClosed { closeDescriptor() }
    }

    private func closeDescriptor() {
        if let simulated {
            simulated.close()
        } else {
            _ = tern_socket_close(descriptor)
        }
    }

    // MARK: Reading

    /// Opens the channel that reads.
    func start() -> EventLoopFuture<Void> {
        let eventLoop = worker.eventLoop
        eventLoop.assertInEventLoop()
        guard let bootstrap = DatagramBootstrap(validatingGroup: eventLoop) else {
            return eventLoop.makeFailedFuture(TernError.eventLoopUnsupported)
        }
        var duplicate: Int32 = -1
        let error = tern_socket_duplicate(descriptor, &duplicate)
        guard error == 0 else {
            return eventLoop.makeFailedFuture(TernError.system(call: "fcntl(F_DUPFD_CLOEXEC)", errno: error))
        }
        openedAt = worker.now()
        var options = ChannelOptions.Storage()
        // One read a wake-up; the others are ours.
        options.append(key: .maxMessagesPerRead, value: 1)
        options.append(key: .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Int(TERN_LONGEST_RUN)))
        options.append(key: .explicitCongestionNotification, value: true)
        if isWildcard { options.append(key: .receivePacketInfo, value: true) }
        if configuration.usesReceiveOffload, System.supportsUDPReceiveOffload {
            options.append(key: .datagramReceiveOffload, value: true)
            options.append(key: .datagramReceiveSegmentSize, value: true)
        }
        let applied = options
        return
            bootstrap
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(DatagramHandler(socket: self))
                    self.channel = channel
                }.flatMap { applied.applyAllChannelOptions(to: channel) }
            }
            .withBoundSocket(duplicate)
            .map { _ in }
    }

    /// NIO closed the channel: on our request, or on an error that it holds for fatal.
    func channelClosed() {
        channel = nil
        guard !isClosed else { return }
        quickReopenings = worker.now() - openedAt < .seconds(1) ? min(quickReopenings + 1, 10) : 0
        // 0, 2, 4, … 1,024 ms.
        let delay = quickReopenings == 0 ? 0 : Int64(1) << quickReopenings
        configuration.logger.notice(
            "reading channel closed; opening another one",
            metadata: ["local": "\(boundAddress)", "delay-ms": "\(delay)"])
        worker.eventLoop.scheduleTask(in: .milliseconds(delay)) { self.reopen() }
    }

    private func reopen() {
        guard !isClosed else { return }
        // A channel that never became active does not report its end.
        start().whenFailure { error in
            self.configuration.logger.error("cannot reopen the socket's channel", metadata: ["error": "\(error)"])
            self.channel?.close(promise: nil)
            self.channelClosed()
        }
    }

    /// The local address of a path to `remote`, as the peer will see it unless there is a NAT between: looked up once, when
    /// the path is made. Throws what the system says if there is no route.
    func localAddress(towards remote: NetworkAddress) throws(TernError) -> NetworkAddress {
        guard isWildcard else { return boundAddress }
        if let simulated { return try simulated.source(towards: remote).withPort(boundAddress.port) }
        var source = tern_address()
        var destination = remote.cAddress
        let error = tern_source_address(&destination, device, &source)
        guard error == 0 else { throw .system(call: "route to \(remote)", errno: error) }
        return NetworkAddress(source).withPort(boundAddress.port)
    }

    // MARK: Writing

    /// Sends a batch now. EAGAIN means that the rest (from `sent` on) must wait.
    func send(
        _ bytes: UnsafeRawBufferPointer, segmentSize: Int, tuple: FourTuple, ecn: ECNCodepoint
    ) -> tern_send_result {
        guard !isClosed, let base = bytes.baseAddress else { return tern_send_result() }
        if let simulated {
            return simulated.send(bytes, segmentSize: segmentSize, from: tuple.local, to: tuple.remote, ecn: ecn)
        }
        var remote = tuple.remote.cAddress
        let result: tern_send_result
        if isWildcard, !tuple.local.isUnspecified {
            var source = tuple.local.cAddress
            result = tern_socket_send(
                descriptor, base, bytes.count, segmentSize, &remote, &source, ecn.rawValue, usesSegmentation)
        } else {
            result = tern_socket_send(
                descriptor, base, bytes.count, segmentSize, &remote, nil, ecn.rawValue, usesSegmentation)
        }
        if result.segmentation_refused {
            usesSegmentation = false
            configuration.logger.info(
                "the device cannot segment; sending datagrams one by one", metadata: ["local": "\(boundAddress)"])
        }
        return result
    }

    // MARK: Closing

    /// Closes the socket for good. What waits to be sent is dropped.
    func close() {
        worker.eventLoop.assertInEventLoop()
        guard !isClosed else { return }
        isClosed = true
        backlog.dropAll()
        channel?.close(promise: nil)
        channel = nil
        closeDescriptor()
    }

    /// Takes another port; 0, or the `errno`.
    func rebindForTesting() -> Int32 { isClosed ? 0 : tern_socket_rebind(descriptor) }

    /// Ends the reading channel as an error would, and not the socket.
    func breakChannelForTesting() {
        channel?.close(promise: nil)
    }

    /// The channel that reads, for tests.
    var channelForTesting: (any Channel)? { channel }
}
