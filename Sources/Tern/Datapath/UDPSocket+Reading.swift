// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import NIOCore

extension UDPSocket {
    /// Bytes that are read in one wake-up, give or take a call. Each call's are decrypted before the next is made.
    private static let bytesPerWakeUp = 2 * 1_024 * 1_024
    /// How long the first datagram of a wake-up may wait to be answered, give or take a call. Bytes alone do not bound that: one
    /// that begins a handshake takes a hundred times as long as another.
    static let readingTime = Nanoseconds.milliseconds(2)

    /// Hands over what NIO read: the first run of datagrams of this wake-up.
    fileprivate func received(_ envelope: AddressedEnvelope<ByteBuffer>) {
        guard let remote = NetworkAddress(envelope.remoteAddress) else { return }
        let info = envelope.metadata?.packetInfo
        let local = localAddress(
            info.flatMap { NetworkAddress($0.destinationAddress) }, interface: info?.interfaceIndex ?? 0)
        let ecn = ECNCodepoint(envelope.metadata?.ecnState ?? .transportNotCapable)
        let merged = envelope.metadata?.segmentSize ?? 0
        envelope.data.withUnsafeReadableBytes { bytes in
            // Packets are decrypted where they lie. The storage is NIO's pooled read buffer; the handler is the channel's last, and
            // the pool fills the buffer anew only when no envelope refers to it any more: nobody else reads these bytes.
            worker.received(
                UnsafeMutableRawBufferPointer(mutating: bytes), segmentSize: merged > 0 ? merged : bytes.count,
                tuple: FourTuple(transport: id, local: local, remote: remote), ecn: ecn, on: self)
        }
    }

    /// Reads what else there is, so that all of it is answered together, within `readsPerWakeUp`, `bytesPerWakeUp` and
    /// the time. What is left wakes the loop again.
    ///
    /// With many connections each of them has a few packets in a read. The more reads there are in a wake-up, the more packets
    /// a connection finds there, acknowledges at once and sends in turn.
    ///
    /// - Returns: how many runs of datagrams that were.
    @discardableResult
    func readRest(for time: Nanoseconds = readingTime) -> Int {
        let most = min(max(configuration.readsPerWakeUp, 1), 1_024) - 1
        var runs = 0
        var bytes = Self.bytesPerWakeUp
        let end = worker.now() + time
        // Each call may take twice as many as the one before: one run may hold fifty handshakes, and time is looked at in between.
        var limit = 1
        while runs < most, bytes > 0, !isClosed {
            limit = min(limit, most - runs, DatagramReceiver.slots)
            let count = worker.receiver.read(descriptor, limit: limit) { datagrams in
                bytes -= datagrams.count
                let local = localAddress(
                    datagrams.local.family == 0 ? nil : NetworkAddress(datagrams.local),
                    interface: Int(datagrams.interface_index))
                worker.received(
                    UnsafeMutableRawBufferPointer(start: datagrams.bytes, count: datagrams.count),
                    segmentSize: datagrams.segment_size,
                    tuple: FourTuple(transport: id, local: local, remote: NetworkAddress(datagrams.remote)),
                    ecn: ECNCodepoint(rawValue: datagrams.ecn) ?? .notECT, on: self)
            }
            runs += count
            guard count == limit, worker.now() < end else { break }
            limit *= 2
        }
        return runs
    }

    /// Where a datagram was sent to, as far as we can know.
    private func localAddress(_ address: NetworkAddress?, interface: Int) -> NetworkAddress {
        guard isWildcard, let address else { return boundAddress }
        return address.withPort(boundAddress.port).scoped(toInterface: interface)
    }
}

/// The only handler of a socket's channel.
final class DatagramHandler: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>

    private let socket: UDPSocket

    init(socket: UDPSocket) { self.socket = socket }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        socket.received(unwrapInboundIn(data))
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        socket.readRest()
        socket.worker.serviceTouched()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // An ICMP message that the kernel turned into a read error, for instance. Paths fail by silence, not by hearsay.
        socket.configuration.logger.debug("read error", metadata: ["error": "\(error)"])
    }

    func channelInactive(context: ChannelHandlerContext) {
        socket.channelClosed()
    }
}

/// The memory that a worker's sockets are read into, and the calls that do it.
struct DatagramReceiver: ~Copyable {
    /// Runs of datagrams a call. With more of them, what was read first would have left the cache when it is looked at.
    static let slots = 16

    private let receiver = tern_receiver_make(Self.slots)

    deinit { tern_receiver_free(receiver) }

    /// Reads in one call, and hands over each run of datagrams that is of use. `body` may overwrite them.
    ///
    /// - Returns: the runs read: fewer than `limit`, which is `slots` at most, if there are no more, or on an error.
    func read(_ descriptor: Int32, limit: Int, _ body: (borrowing tern_datagrams) -> Void) -> Int {
        guard let receiver else { return 0 }
        var datagrams: UnsafePointer<tern_datagrams>?
        var count = 0
        // Errors are of no interest: one that lasts comes again in the channel's next read, and one that does not was an ICMP
        // message.
        guard tern_receiver_read(receiver, descriptor, limit, &datagrams, &count) == 0, let datagrams else { return 0 }
        for index in 0..<count where datagrams[index].count > 0 { body(datagrams[index]) }
        return count
    }
}
