// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// One UDP socket of the NAT: read through a NIO channel in batches with GRO, written with `sendmsg` and GSO.
///
/// A channel's own writes are no use here: NIO closes a datagram channel on most errors of a write, and a NAT has to
/// outlive a peer that is gone. A send that fails is a datagram lost, as on any network.
///
/// Confined to its channel's event loop.
final class NATSocket {
    /// The address the socket is bound to.
    let address: SocketAddress
    private let channel: any Channel
    private let descriptor: NIOBSDSocket.Handle

    private init(channel: any Channel, address: SocketAddress, descriptor: NIOBSDSocket.Handle) {
        self.channel = channel
        self.address = address
        self.descriptor = descriptor
    }

    /// Binds a socket and hands every datagram, or run of datagrams of one size, to `receive`.
    ///
    /// Call it on `eventLoop`; the future's value and `receive` stay on that loop too.
    static func bind(
        to address: SocketAddress,
        on eventLoop: any EventLoop,
        receive: @escaping (AddressedEnvelope<ByteBuffer>) -> Void
    ) -> EventLoopFuture<NIOLoopBound<NATSocket>> {
        let receiver = NIOLoopBound(Receiver(receive: receive), eventLoop: eventLoop)
        let slots = 8
        var bootstrap = DatagramBootstrap(group: eventLoop)
            .channelOption(.datagramVectorReadMessageCount, value: slots)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: slots * 65_536))
            .channelOption(.explicitCongestionNotification, value: true)
            .channelOption(.socketOption(.so_rcvbuf), value: 4 << 20)
            .channelOption(.socketOption(.so_sndbuf), value: 4 << 20)
        if System.supportsUDPReceiveOffload {
            bootstrap =
                bootstrap
                .channelOption(.datagramReceiveOffload, value: true)
                .channelOption(.datagramReceiveSegmentSize, value: true)
        }
        return
            bootstrap
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(receiver.value)
                }
            }
            .bind(to: address)
            .flatMapThrowing { channel in
                guard let local = channel.localAddress else { throw ChannelError.unknownLocalAddress }
                let descriptor = try channel.pipeline.syncOperations.withUnsafeTransportIfAvailable(
                    of: NIOBSDSocket.Handle.self
                ) { $0 }
                guard let descriptor else { throw ChannelError.operationUnsupported }
                return NIOLoopBound(
                    NATSocket(channel: channel, address: local, descriptor: descriptor),
                    eventLoop: eventLoop
                )
            }
    }

    /// Closes the socket: from now on datagrams to its address vanish.
    func close() {
        channel.close(promise: nil)
    }

    /// Sends `bytes` as datagrams of `segmentSize` bytes (the last may be shorter), in one system call if it can.
    ///
    /// - Returns: whether the kernel took them all.
    func send(
        _ bytes: UnsafeRawBufferPointer,
        segmentSize: Int,
        to destination: SocketAddress,
        ecn: NIOExplicitCongestionNotificationState
    ) -> Bool {
        guard channel.isActive else { return false }
        #if os(Linux)
        if bytes.count <= segmentSize { return sendMessage(bytes, segmentSize: nil, to: destination, ecn: ecn) }
        if sendMessage(bytes, segmentSize: segmentSize, to: destination, ecn: ecn) { return true }
        // No room in the socket's buffer: one by one would fare no better.
        if errno == EAGAIN || errno == ENOBUFS { return false }
        #endif
        var start = 0
        var allSent = true
        while start < bytes.count {
            let end = min(start + segmentSize, bytes.count)
            let datagram = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
            allSent = sendMessage(datagram, segmentSize: nil, to: destination, ecn: ecn) && allSent
            start = end
        }
        return allSent
    }

    private func sendMessage(
        _ bytes: UnsafeRawBufferPointer,
        segmentSize: Int?,
        to destination: SocketAddress,
        ecn: NIOExplicitCongestionNotificationState
    ) -> Bool {
        var control = ControlMessages()
        let ecnBits = CInt(ecn.bits)
        if ecnBits != 0 {
            switch destination {
            case .v4: control.append(level: CInt(IPPROTO_IP), type: CInt(IP_TOS), ecnBits)
            case .v6: control.append(level: CInt(IPPROTO_IPV6), type: CInt(IPV6_TCLASS), ecnBits)
            case .unixDomainSocket: break
            }
        }
        if let segmentSize {
            // UDP_SEGMENT (linux/udp.h): the kernel cuts what it is given into datagrams of this size.
            control.append(level: CInt(IPPROTO_UDP), type: 103, UInt16(clamping: segmentSize))
        }
        return destination.withSockAddr { name, nameLength in
            control.withUnsafeBytes { controlBytes in
                var vector = iovec(iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: bytes.count)
                return withUnsafeMutablePointer(to: &vector) { vector in
                    var message = msghdr()
                    message.msg_name = UnsafeMutableRawPointer(mutating: name)
                    message.msg_namelen = socklen_t(nameLength)
                    message.msg_iov = vector
                    message.msg_iovlen = 1
                    if !controlBytes.isEmpty {
                        message.msg_control = UnsafeMutableRawPointer(mutating: controlBytes.baseAddress)
                        message.msg_controllen = .init(controlBytes.count)
                    }
                    while true {
                        let sent = sendmsg(descriptor, &message, CInt(MSG_DONTWAIT))
                        if sent >= 0 { return true }
                        if errno != EINTR { return false }
                    }
                }
            }
        }
    }
}

extension NATSocket {
    /// Hands on what the channel reads.
    private final class Receiver: ChannelInboundHandler {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>

        private let receive: (AddressedEnvelope<ByteBuffer>) -> Void

        init(receive: @escaping (AddressedEnvelope<ByteBuffer>) -> Void) { self.receive = receive }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            receive(unwrapInboundIn(data))
        }

        /// News about one datagram; the socket goes on.
        func errorCaught(context: ChannelHandlerContext, error: any Error) {}
    }
}

/// The control messages of one `sendmsg`, laid out as the kernel's `CMSG_` macros would, which Swift cannot call.
private struct ControlMessages {
    private var storage: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)
    private var count = 0

    #if canImport(Darwin)
    private static let alignment = 4
    #else
    private static let alignment = MemoryLayout<Int>.size
    #endif
    private static func aligned(_ size: Int) -> Int { (size + alignment - 1) & ~(alignment - 1) }

    mutating func append(level: CInt, type: CInt, _ value: some BitwiseCopyable) {
        let headerSize = Self.aligned(MemoryLayout<cmsghdr>.size)
        let valueSize = MemoryLayout.size(ofValue: value)
        let start = count
        precondition(start + headerSize + Self.aligned(valueSize) <= MemoryLayout.size(ofValue: storage))
        var header = cmsghdr()
        header.cmsg_len = .init(headerSize + valueSize)
        header.cmsg_level = level
        header.cmsg_type = type
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.storeBytes(of: header, toByteOffset: start, as: cmsghdr.self)
            Swift.withUnsafeBytes(of: value) { value in
                UnsafeMutableRawBufferPointer(rebasing: bytes[(start + headerSize)...]).copyMemory(from: value)
            }
        }
        count += headerSize + Self.aligned(valueSize)
    }

    func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        Swift.withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
}

extension NIOExplicitCongestionNotificationState {
    /// The two bits as they stand in the IP header (RFC 3168, section 5).
    fileprivate var bits: UInt8 {
        switch self {
        case .transportNotCapable: 0b00
        case .transportCapableFlag1: 0b01
        case .transportCapableFlag0: 0b10
        case .congestionExperienced: 0b11
        }
    }
}
