// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import NIOCore
internal import NIOPosix
internal import Synchronization

#if canImport(Network)
internal import Dispatch
internal import Network
#endif

/// The networks as the system has them. Any word of a change has all of them read anew, so that none can be missed.
final class SystemNetworks: Sendable {
    private let state = Mutex(State())

    private struct State {
        var isWanted = false
        #if canImport(Network)
        var monitor: NWPathMonitor?
        #else
        var channel: (any Channel)?
        #endif
    }

    /// Has `report` called on some thread when the networks may have changed.
    func start(_ report: @escaping @Sendable ([LocalNetwork]) -> Void) {
        let isNew = state.withLock { state in
            defer { state.isWanted = true }
            return !state.isWanted
        }
        if isNew { watch(report) }
    }

    #if canImport(Network)

    private func watch(_ report: @escaping @Sendable ([LocalNetwork]) -> Void) {
        let monitor = NWPathMonitor()
        monitor.pathUpdateHandler = { [weak self] _ in
            if let self { report(read()) }
        }
        state.withLock { $0.monitor = monitor }
        monitor.start(queue: DispatchQueue(label: "tern.networks"))
    }

    func stop() {
        let monitor = state.withLock { state in
            state.isWanted = false
            defer { state.monitor = nil }
            return state.monitor
        }
        monitor?.cancel()
    }

    func read() -> [LocalNetwork] {
        let path = state.withLock { $0.monitor?.currentPath }
        let kinds = (path?.availableInterfaces ?? []).reduce(into: [String: LocalNetwork.Kind]()) { kinds, interface in
            kinds[interface.name] =
                switch interface.type {
                case .wiredEthernet: .wired
                case .wifi: .wifi
                case .cellular: .cellular
                case .loopback: .loopback
                default: interface.name.hasPrefix("utun") ? .vpn : .other
                }
        }
        var networks: [String: LocalNetwork] = [:]
        for device in (try? System.enumerateDevices()) ?? [] {
            guard let address = device.address.flatMap({ NetworkAddress($0) }), let kind = kinds[device.name] else {
                continue
            }
            let new = LocalNetwork(
                name: device.name, interface: device.name, index: device.interfaceIndex, kind: kind, addresses: [],
                isExpensive: kind == .cellular)
            networks[device.name, default: new].addresses.append(
                address.withPort(0).scoped(toInterface: device.interfaceIndex))
        }
        return networks.values.sorted { $0.index < $1.index }
    }

    #else

    /// Reads the netlink socket through a channel of NIO's, on the loop that all who name none share.
    private func watch(_ report: @escaping @Sendable ([LocalNetwork]) -> Void) {
        var descriptor: Int32 = -1
        guard tern_networks_watch(&descriptor) == 0 else { return }
        let opened = descriptor
        NIOPipeBootstrap(group: MultiThreadedEventLoopGroup.singleton.next())
            .channelOption(.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 32_768))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(
                        ChangeHandler { [weak self] in
                            if let self { report(read()) }
                        })
                }
            }
            .takingOwnershipOfDescriptor(input: opened)
            .whenComplete { result in
                switch result {
                case .failure:
                    _ = tern_socket_close(opened)
                case .success(let channel):
                    let isWanted = self.state.withLock { state in
                        if state.isWanted { state.channel = channel }
                        return state.isWanted
                    }
                    guard isWanted else { return channel.close(promise: nil) }
                    // What changed before the socket was open.
                    report(self.read())
                }
            }
    }

    func stop() {
        let channel = state.withLock { state in
            state.isWanted = false
            defer { state.channel = nil }
            return state.channel
        }
        channel?.close(promise: nil)
    }

    /// Interfaces and addresses of a host that are looked at.
    private static let capacity = 256

    func read() -> [LocalNetwork] {
        var interfaces = [tern_network_interface](repeating: tern_network_interface(), count: Self.capacity)
        var addresses = [tern_network_address](repeating: tern_network_address(), count: Self.capacity)
        var (interfaceCount, addressCount) = (0, 0)
        let error = tern_networks_read(
            &interfaces, interfaces.count, &interfaceCount, &addresses, addresses.count, &addressCount)
        guard error == 0 else { return [] }
        return interfaces[..<min(interfaceCount, interfaces.count)].map { interface in
            let name = withUnsafeBytes(of: interface.name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            let kind = LocalNetwork.Kind(interface.kind)
            return LocalNetwork(
                name: name, interface: name, index: Int(interface.index), kind: kind,
                addresses: addresses[..<min(addressCount, addresses.count)]
                    .filter { $0.index == interface.index }.map { NetworkAddress($0.address) },
                isExpensive: kind == .cellular, isRunning: interface.is_running)
        }
    }

    #endif
}

#if !canImport(Network)
/// Drops what is read, and tells once a read that something was.
private final class ChangeHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let changed: () -> Void

    init(changed: @escaping () -> Void) { self.changed = changed }

    func channelReadComplete(context: ChannelHandlerContext) { changed() }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {}

    func errorCaught(context: ChannelHandlerContext, error: any Error) { changed() }
}

extension LocalNetwork.Kind {
    init(_ kind: tern_network_kind) {
        switch kind {
        case TERN_NETWORK_WIRED: self = .wired
        case TERN_NETWORK_WIFI: self = .wifi
        case TERN_NETWORK_CELLULAR: self = .cellular
        case TERN_NETWORK_VPN: self = .vpn
        case TERN_NETWORK_LOOPBACK: self = .loopback
        default: self = .other
        }
    }
}
#endif
