// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
package import NIOCore

// The seam between the datapath and a simulated network (decision 0041). On a simulated host the event loop stands in for
// the system: it has the clock, the sockets, the names and the randomness. The datapath asks for it where a socket is opened
// or a name is looked up, and once a batch where it is sent.

/// The event loop of a simulated host.
package protocol SimulatedEventLoop: EventLoop {
    /// The virtual time. From any thread.
    var instant: Instant { get }
    /// Runs tasks while virtual time stands still.
    var taskExecutor: any TaskExecutor { get }
    /// Randomness that replays. On the loop.
    func makeRandomSource() -> RandomSource
    /// The addresses of a host of the simulated network, with port 0; empty if nobody has the name. From any thread.
    func addresses(of name: String) -> [NetworkAddress]
    /// The addresses of one of this host's interfaces, with port 0. On the loop.
    func addresses(ofInterface name: String) -> [NetworkAddress]
    /// Binds a socket; port 0 has the host choose. `device` ties it to an interface. On the loop.
    func openSocket(at address: NetworkAddress, device: String?) throws(TernError) -> any SimulatedSocket
}

/// A UDP socket of a simulated host. Used on the host's event loop alone.
package protocol SimulatedSocket: AnyObject {
    /// What it is bound to.
    var address: NetworkAddress { get }
    /// Whom to give what arrives. Held weakly.
    var receiver: SimulatedReceiver? { get set }
    /// Sends one datagram; 0, or an `errno`.
    func send(
        _ payload: UnsafeRawBufferPointer, from local: NetworkAddress, to remote: NetworkAddress, ecn: ECNCodepoint
    ) -> Int32
    /// The address that a datagram to `remote` would leave from, of a socket that is bound to none. Throws without a route.
    func source(towards remote: NetworkAddress) throws(TernError) -> NetworkAddress
    func close()
}

/// Hands what arrives for a simulated socket to the datapath, as a channel does for a socket of the system.
package final class SimulatedReceiver {
    private unowned let socket: UDPSocket

    init(_ socket: UDPSocket) { self.socket = socket }

    /// A datagram arrives. Connections answer when the loop has run what is queued.
    package func receive(
        _ payload: [UInt8], from remote: NetworkAddress, to local: NetworkAddress, ecn: ECNCodepoint
    ) {
        guard !socket.isClosed, remote.port != 0 else { return }
        // Packets are decrypted where they lie.
        var bytes = payload
        bytes.withUnsafeMutableBytes {
            socket.worker.received(
                $0, segmentSize: $0.count, tuple: FourTuple(transport: socket.id, local: local, remote: remote),
                ecn: ecn,
                on: socket)
        }
        socket.worker.scheduleService()
    }
}

extension SimulatedEventLoop {
    /// Ends every connection of the host and closes its sockets: for when the simulation is over. On the loop.
    package func closeEverything() {
        Worker.of(self).closeEverything()
    }
}

extension SimulatedSocket {
    /// Cuts a batch into its datagrams, as the kernel or the network card does.
    func send(
        _ batch: UnsafeRawBufferPointer, segmentSize: Int, from local: NetworkAddress, to remote: NetworkAddress,
        ecn: ECNCodepoint
    ) -> tern_send_result {
        var result = tern_send_result()
        while result.sent < batch.count {
            let end = min(result.sent + max(segmentSize, 1), batch.count)
            result.error = send(
                UnsafeRawBufferPointer(rebasing: batch[result.sent..<end]), from: local, to: remote, ecn: ecn)
            guard result.error == 0 else { break }
            result.sent = end
        }
        return result
    }
}

extension Transport {
    /// Opens sockets of a simulated host.
    ///
    /// `[::]` stands for both families on one port, as with the system.
    static func bind(
        to address: NetworkAddress, device: String? = nil, onSimulated eventLoop: any SimulatedEventLoop,
        configuration: TransportConfiguration
    ) async throws(TernError) -> Transport {
        try await open(on: eventLoop, configuration: configuration) { () throws(TernError) in
            let first = try eventLoop.openSocket(at: address, device: device)
            guard address.family == .ipv6, address.isUnspecified else { return [first] }
            do throws(TernError) {
                return [
                    first, try eventLoop.openSocket(at: .unspecified(.ipv4, port: first.address.port), device: device),
                ]
            } catch {
                first.close()
                throw error
            }
        }
    }

    /// Opens sockets on the addresses of an interface of a simulated host.
    static func bind(
        interface name: String, onSimulated eventLoop: any SimulatedEventLoop, configuration: TransportConfiguration
    ) async throws(TernError) -> Transport {
        try await open(on: eventLoop, configuration: configuration) { () throws(TernError) in
            let addresses = eventLoop.addresses(ofInterface: name)
            guard !addresses.isEmpty else { throw .interfaceUnavailable(name) }
            var sockets: [any SimulatedSocket] = []
            for address in addresses { sockets.append(try eventLoop.openSocket(at: address, device: name)) }
            return sockets
        }
    }

    private static func open(
        on eventLoop: any SimulatedEventLoop, configuration: TransportConfiguration,
        _ open: @escaping @Sendable () throws(TernError) -> [any SimulatedSocket]
    ) async throws(TernError) -> Transport {
        let worker = Worker.of(eventLoop)
        let opened: Result<[UDPSocket], TernError> = await worker.run {
            do throws(TernError) {
                let sockets = try open().map { socket in
                    UDPSocket(
                        id: worker.makeTransportID(), simulated: socket, worker: worker, configuration: configuration)
                }
                for socket in sockets {
                    worker.add(socket)
                    socket.sibling = sockets.first { $0 !== socket }
                }
                return .success(sockets)
            } catch {
                return .failure(error)
            }
        }
        return Transport(worker: worker, configuration: configuration, sockets: try opened.get())
    }
}
