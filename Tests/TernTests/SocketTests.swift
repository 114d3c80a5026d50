// SPDX-License-Identifier: Apache-2.0

import CTernSocket
import NIOCore
import NIOPosix
import QUICProtocol
import Testing

@testable import Tern

#if canImport(Darwin)
import Darwin
#elseif canImport(Musl)
import Musl
#else
import Glibc
#endif

/// A bound descriptor, closed with the value that owns it.
private final class TestSocket: Sendable {
    let descriptor: Int32
    let address: NetworkAddress

    init(on address: NetworkAddress) throws {
        var local = address.cAddress
        var descriptor: Int32 = -1
        var isTied = false
        let error = tern_socket_open(&local, nil, &descriptor, &isTied)
        try #require(error == 0, "bind: errno \(error)")
        self.descriptor = descriptor
        var bound = tern_address()
        try #require(tern_socket_local_address(descriptor, &bound) == 0)
        self.address = NetworkAddress(bound)
    }

    deinit { _ = tern_socket_close(descriptor) }

    func send(
        _ bytes: [UInt8], segmentSize: Int, to remote: NetworkAddress, from source: NetworkAddress? = nil,
        ecn: ECNCodepoint = .notECT, segmentation: Bool
    ) -> tern_send_result {
        var destination = remote.cAddress
        if let source {
            var source = source.cAddress
            return tern_socket_send(
                descriptor, bytes, bytes.count, segmentSize, &destination, &source, ecn.rawValue, segmentation)
        }
        return tern_socket_send(
            descriptor, bytes, bytes.count, segmentSize, &destination, nil, ecn.rawValue, segmentation)
    }

    func sendOne(of size: Int, to remote: NetworkAddress) throws {
        let bytes = [UInt8](repeating: UInt8(size), count: size)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = remote.port.bigEndian
        address.sin_addr.s_addr = try #require(remote.ipv4).bigEndian
        let sent = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, bytes, size, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        try #require(sent == size)
    }

    /// The next datagram and where it came from, as the system delivers it; waits up to two seconds.
    func receive() throws -> (bytes: [UInt8], source: NetworkAddress) {
        var event = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        try #require(poll(&event, 1, 2_000) == 1, "nothing arrived")
        var bytes = [UInt8](repeating: 0, count: 65_536)
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let count = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                recvfrom(descriptor, &bytes, bytes.count, 0, $0, &length)
            }
        }
        try #require(count >= 0)
        let address: SocketAddress =
            Int32(storage.ss_family) == AF_INET6
            ? SocketAddress(withUnsafeBytes(of: storage) { $0.loadUnaligned(as: sockaddr_in6.self) })
            : SocketAddress(withUnsafeBytes(of: storage) { $0.loadUnaligned(as: sockaddr_in.self) })
        return (Array(bytes[..<count]), try #require(NetworkAddress(address)))
    }
}

private let loopback = NetworkAddress(127, 0, 0, 1, port: 0)
private let loopback6 = NetworkAddress(ipv6: 0, 1, port: 0)

@Suite("Sending a batch", .timeLimit(.minutes(10)))
struct SendTests {
    @Test(
        "delivers datagrams of the segment size and a shorter last one, with and without segmentation offload",
        arguments: [true, false], [loopback, loopback6])
    func batch(segmentation: Bool, local: NetworkAddress) throws {
        let sender = try TestSocket(on: local)
        let receiver = try TestSocket(on: local)
        let bytes = (0..<(1_200 * 54 - 100)).map { UInt8(truncatingIfNeeded: $0 / 1_200) }
        let result = sender.send(bytes, segmentSize: 1_200, to: receiver.address, segmentation: segmentation)
        #expect(result.error == 0)
        #expect(result.sent == bytes.count)
        for index in 0..<54 {
            let (datagram, source) = try receiver.receive()
            #expect(datagram == [UInt8](repeating: UInt8(index), count: index == 53 ? 1_100 : 1_200))
            #expect(source == sender.address)
        }
    }

    @Test("of more segments than the kernel takes at once is cut into several calls", arguments: [true, false])
    func manySegments(segmentation: Bool) throws {
        let sender = try TestSocket(on: loopback)
        let receiver = try TestSocket(on: loopback)
        let bytes = (0..<2_000).map { UInt8(truncatingIfNeeded: $0 / 10) }
        let result = sender.send(bytes, segmentSize: 10, to: receiver.address, segmentation: segmentation)
        #expect(result.error == 0)
        #expect(result.sent == bytes.count)
        for index in 0..<200 { #expect(try receiver.receive().bytes == [UInt8](repeating: UInt8(index), count: 10)) }
    }

    @Test("from a wildcard socket carries the source address that was asked for")
    func sourceAddress() throws {
        let sender = try TestSocket(on: .unspecified(.ipv4, port: 0))
        let receiver = try TestSocket(on: loopback)
        for last in 2...4 as ClosedRange<UInt8> {
            let source = NetworkAddress(127, 0, 0, last, port: sender.address.port)
            let result = sender.send([1, 2], segmentSize: 1, to: receiver.address, from: source, segmentation: true)
            #expect(result.error == 0)
            #expect(try receiver.receive().source == source)
            #expect(try receiver.receive().source == source)
        }
    }

    @Test("that is too large for the path is refused with EMSGSIZE, and the socket goes on", arguments: [true, false])
    func tooLarge(segmentation: Bool) throws {
        let sender = try TestSocket(on: loopback)
        let receiver = try TestSocket(on: loopback)
        let large = [UInt8](repeating: 7, count: 65_520)
        let refused = sender.send(large, segmentSize: large.count, to: receiver.address, segmentation: segmentation)
        #expect(refused.error == EMSGSIZE)
        #expect(refused.sent == 0)
        #expect(!refused.segmentation_refused)
        #expect(sender.send([1], segmentSize: 1, to: receiver.address, segmentation: segmentation).error == 0)
        #expect(try receiver.receive().bytes == [1])
    }

    @Test("to where no route leads is refused with an error that is not fatal, and does not condemn offload")
    func unreachable() throws {
        let sender = try TestSocket(on: loopback)
        let receiver = try TestSocket(on: loopback)
        // Nothing leaves this host from a loopback address.
        let elsewhere = NetworkAddress(192, 0, 2, 99, port: 9)
        let refused = sender.send(
            [UInt8](repeating: 0, count: 2_400), segmentSize: 1_200, to: elsewhere, segmentation: true)
        #expect(refused.error != 0)
        #expect(refused.sent == 0)
        #expect(!refused.segmentation_refused)
        #expect(sender.send([1], segmentSize: 1, to: receiver.address, segmentation: true).error == 0)
        #expect(try receiver.receive().bytes == [1])
    }

    @Test("to a full receiver loses datagrams and reports nothing")
    func fullReceiver() throws {
        let sender = try TestSocket(on: loopback)
        let receiver = try TestSocket(on: loopback)
        let bytes = [UInt8](repeating: 0, count: 60_000)
        for _ in 0..<1_000 {
            let result = sender.send(bytes, segmentSize: 1_200, to: receiver.address, segmentation: true)
            #expect(result.error == 0 || result.error == EAGAIN)
        }
    }

    @Test("does not report the ICMP error of an earlier datagram as its own")
    func connectionRefused() throws {
        let sender = try TestSocket(on: loopback)
        let gone = try TestSocket(on: loopback).address
        for _ in 0..<10 { #expect(sender.send([1], segmentSize: 1, to: gone, segmentation: true).error == 0) }
    }

    @Test("is possible from the address that the system names for a route")
    func routeSource() throws {
        var remote = NetworkAddress(127, 0, 0, 9, port: 1).cAddress
        var source = tern_address()
        #expect(tern_source_address(&remote, nil, &source) == 0)
        #expect(NetworkAddress(source).isLoopback)
    }

    @Test("uses the buffers that were asked for, as far as the system allows")
    func buffers() throws {
        let socket = try TestSocket(on: loopback)
        var before: (Int32, Int32) = (0, 0)
        tern_socket_buffer_sizes(socket.descriptor, &before.0, &before.1)
        tern_socket_set_buffer_sizes(socket.descriptor, 4_194_304, 7_340_032)
        var after: (Int32, Int32) = (0, 0)
        tern_socket_buffer_sizes(socket.descriptor, &after.0, &after.1)
        #expect(after.0 >= before.0)
        #expect(after.1 >= before.1)
    }
}

/// Datagrams of one sender that were read together.
private struct Run {
    var bytes: [UInt8]
    var segmentSize: Int
    var ecn: ECNCodepoint
    var source: NetworkAddress?
    var destination: NetworkAddress?

    init(_ datagrams: borrowing tern_datagrams) {
        bytes = Array(UnsafeBufferPointer(start: datagrams.bytes, count: datagrams.count))
        segmentSize = datagrams.segment_size
        ecn = ECNCodepoint(rawValue: datagrams.ecn) ?? .notECT
        source = NetworkAddress(datagrams.remote)
        destination = datagrams.local.family == 0 ? nil : NetworkAddress(datagrams.local)
    }

    init(_ envelope: AddressedEnvelope<ByteBuffer>) throws {
        let metadata = try #require(envelope.metadata)
        bytes = Array(envelope.data.readableBytesView)
        segmentSize = metadata.segmentSize ?? envelope.data.readableBytes
        ecn = ECNCodepoint(metadata.ecnState)
        source = NetworkAddress(envelope.remoteAddress)
        destination = metadata.packetInfo.flatMap { NetworkAddress($0.destinationAddress) }
    }
}

/// The two ways in which a transport reads its socket.
private enum Way: CaseIterable {
    /// The first run of a wake-up.
    case channel
    /// The others.
    case descriptor
}

/// A socket that asks for all that a transport may ask for, read in one way.
private final class Reader: Sendable {
    private final class Collector: ChannelInboundHandler, Sendable {
        typealias InboundIn = AddressedEnvelope<ByteBuffer>
        let envelopes: AsyncStream<AddressedEnvelope<ByteBuffer>>
        private let continuation: AsyncStream<AddressedEnvelope<ByteBuffer>>.Continuation

        init() { (envelopes, continuation) = AsyncStream.makeStream() }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { continuation.yield(unwrapInboundIn(data)) }
    }

    private let socket: TestSocket
    private let way: Way
    private let collector = Collector()
    private let channel: any Channel

    var address: NetworkAddress { socket.address }

    init(on address: NetworkAddress, _ way: Way) async throws {
        socket = try TestSocket(on: address)
        self.way = way
        var duplicate: Int32 = -1
        try #require(tern_socket_duplicate(socket.descriptor, &duplicate) == 0)
        var bootstrap = DatagramBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.autoRead, value: way == .channel)
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 65_536))
            .channelOption(.explicitCongestionNotification, value: true)
            .channelOption(.receivePacketInfo, value: true)
        if System.supportsUDPReceiveOffload {
            bootstrap =
                bootstrap
                .channelOption(.datagramReceiveOffload, value: true)
                .channelOption(.datagramReceiveSegmentSize, value: true)
        }
        let collector = collector
        channel = try await bootstrap.channelInitializer { $0.pipeline.addHandler(collector) }
            .withBoundSocket(duplicate).get()
    }

    func close() async throws { try await channel.close() }

    /// Calls `body` with each run, until it returns true or nothing more comes.
    func read(_ body: (Run) throws -> Bool) async throws {
        switch way {
        case .channel:
            for await envelope in collector.envelopes {
                if try body(Run(envelope)) { return }
            }
            Issue.record("nothing more arrived")
        case .descriptor:
            let receiver = DatagramReceiver()
            while true {
                var event = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
                try #require(poll(&event, 1, 2_000) == 1, "nothing arrived")
                var runs: [Run] = []
                let count = receiver.read(socket.descriptor, limit: DatagramReceiver.slots) { runs.append(Run($0)) }
                #expect(count > 0)
                for run in runs where try body(run) { return }
            }
        }
    }
}

@Suite("Reading", .timeLimit(.minutes(10)))
struct ReceiveTests {
    private static let cases = Way.allCases.flatMap { way in [loopback, loopback6].map { (way, $0) } }

    @Test(
        "reports the ECN mark that was sent, in both families",
        arguments: [ECNCodepoint.notECT, .ect0, .ect1, .ce], cases)
    fileprivate func ecn(mark: ECNCodepoint, from parameters: (way: Way, local: NetworkAddress)) async throws {
        let reader = try await Reader(on: parameters.local, parameters.way)
        let sender = try TestSocket(on: parameters.local)
        let result = sender.send([1, 2, 3], segmentSize: 2, to: reader.address, ecn: mark, segmentation: true)
        #expect(result.error == 0)
        var bytes = 0
        try await reader.read { run in
            #expect(run.ecn == mark)
            #expect(run.source == sender.address)
            bytes += run.bytes.count
            return bytes == 3
        }
        try await reader.close()
    }

    @Test("reports where a datagram to a wildcard socket was sent to", arguments: Way.allCases)
    fileprivate func packetInfo(way: Way) async throws {
        let reader = try await Reader(on: .unspecified(.ipv4, port: 0), way)
        let sender = try TestSocket(on: loopback)
        for last in 1...3 as ClosedRange<UInt8> {
            let target = NetworkAddress(127, 0, 0, last, port: reader.address.port)
            #expect(sender.send([last], segmentSize: 1, to: target, segmentation: true).error == 0)
        }
        var seen: Set<UInt8> = []
        try await reader.read { run in
            let last = try #require(run.bytes.first)
            #expect(try #require(run.destination).hasSameIP(as: NetworkAddress(127, 0, 0, last, port: 0)))
            seen.insert(last)
            return seen.count == 3
        }
        try await reader.close()
    }

    @Test("reports where a datagram to a wildcard socket for IPv6 was sent to", arguments: Way.allCases)
    fileprivate func packetInfo6(way: Way) async throws {
        let reader = try await Reader(on: .unspecified(.ipv6, port: 0), way)
        let sender = try TestSocket(on: loopback6)
        let target = loopback6.withPort(reader.address.port)
        #expect(sender.send([7], segmentSize: 1, to: target, segmentation: true).error == 0)
        try await reader.read { run in
            #expect(run.bytes == [7])
            #expect(run.destination?.withPort(0) == loopback6)
            return true
        }
        try await reader.close()
    }

    @Test(
        "takes a segmented batch as few merged reads with the segment size",
        .enabled(if: System.supportsUDPReceiveOffload), arguments: cases)
    fileprivate func merged(way: Way, local: NetworkAddress) async throws {
        let reader = try await Reader(on: local, way)
        let sender = try TestSocket(on: local)
        let bytes = (0..<(1_200 * 50)).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(sender.send(bytes, segmentSize: 1_200, to: reader.address, segmentation: true).error == 0)
        var received: [UInt8] = []
        var reads = 0
        try await reader.read { run in
            reads += 1
            received += run.bytes
            if run.bytes.count > 1_200 { #expect(run.segmentSize == 1_200) }
            return received.count >= bytes.count
        }
        #expect(received == bytes)
        #expect(reads <= 3)
        try await reader.close()
    }

    @Test("reports of each run what belongs to it and not to what was in its place before", arguments: Way.allCases)
    fileprivate func nothingLeftOver(way: Way) async throws {
        let reader = try await Reader(on: loopback, way)
        let first = try TestSocket(on: loopback)
        let second = try TestSocket(on: loopback)
        let batch = [UInt8](repeating: 2, count: 6_000)
        let sends: [(sender: TestSocket, bytes: [UInt8], segmentSize: Int, ecn: ECNCodepoint)] = [
            (first, [1], 1, .ce), (second, batch, 1_200, .notECT), (first, [3, 3], 2, .ect0), (second, [4], 1, .notECT),
        ]
        for send in sends {
            let result = send.sender.send(
                send.bytes, segmentSize: send.segmentSize, to: reader.address, ecn: send.ecn, segmentation: true)
            #expect(result.error == 0)
            var count = 0
            try await reader.read { run in
                #expect(run.source == send.sender.address)
                #expect(run.ecn == send.ecn)
                #expect(run.segmentSize == min(send.segmentSize, run.bytes.count))
                #expect(run.destination?.withPort(0) == loopback)
                count += run.bytes.count
                return count == send.bytes.count
            }
        }
        try await reader.close()
    }

    @Test("reads no more runs than it is asked to, and the others afterwards, in order")
    func limited() throws {
        let target = try TestSocket(on: loopback)
        let sender = try TestSocket(on: loopback)
        // This socket does not ask for merged datagrams.
        for size in 1...5 { try sender.sendOne(of: size, to: target.address) }
        let receiver = DatagramReceiver()
        var sizes: [Int] = []
        let counts = (0..<3).map { _ in receiver.read(target.descriptor, limit: 3) { sizes.append($0.count) } }
        #expect(counts == [3, 2, 0])
        #expect(sizes == [1, 2, 3, 4, 5])
    }

    @Test("counts a datagram of no bytes, and hands it to nobody")
    func empty() throws {
        let target = try TestSocket(on: loopback)
        let sender = try TestSocket(on: loopback)
        for size in [1, 0, 2] { try sender.sendOne(of: size, to: target.address) }
        var sizes: [Int] = []
        #expect(DatagramReceiver().read(target.descriptor, limit: 16) { sizes.append($0.count) } == 3)
        #expect(sizes == [1, 2])
    }

    @Test("ends after as many runs as are to be read in a wake-up", arguments: [1, 2, 16, 17, 18, 512, -1])
    func wakeUp(runs: Int) async throws {
        var configuration = TransportConfiguration()
        configuration.readsPerWakeUp = runs
        let transport = try await Transport.bind(to: "127.0.0.1:0", configuration: configuration)
        let sender = try TestSocket(on: loopback)
        let socket = try #require(transport.socket(for: .ipv4))
        // On the loop, so that its channel does not read meanwhile.
        let count = try await socket.worker.eventLoop.submit {
            for size in 1...40 { try sender.sendOne(of: size, to: socket.boundAddress) }
            // However slow the machine is.
            return socket.readRest(for: .seconds(60))
        }.get()
        // The channel's own read, which is missing here, is one of them.
        #expect(count == min(max(runs, 1) - 1, 40))
        await transport.close()
    }
}
