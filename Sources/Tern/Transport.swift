// SPDX-License-Identifier: Apache-2.0

internal import Logging
public import NIOCore
public import NIOSSL
internal import Synchronization

/// A UDP socket (or one for IPv4 and one for IPv6) that connections are made over, in both roles.
///
/// It stays open until ``close()`` is called, whether handles are left or not. What happens to it happens to the paths over
/// it, never to a connection that has another (M7).
public final class Transport: Sendable {
    let worker: Worker
    let configuration: TransportConfiguration
    /// At most one of each family.
    private let sockets: [UDPSocket]
    private let state = Mutex(State())

    private struct State {
        var isClosed = false
        var listener: ListenerState?
    }

    init(worker: Worker, configuration: TransportConfiguration, sockets: [UDPSocket]) {
        self.worker = worker
        self.configuration = configuration
        self.sockets = sockets
    }

    /// The event loop that the transport and the connections over it run on.
    public var eventLoop: any EventLoop { worker.eventLoop }

    /// The address that it is bound to; of the first socket if there are two.
    public var localAddress: NetworkAddress { sockets.first?.boundAddress ?? .unspecified(.ipv4, port: 0) }

    /// The addresses of all its sockets.
    public var localAddresses: [NetworkAddress] { sockets.map(\.boundAddress) }

    var isClosed: Bool { state.withLock { $0.isClosed } }

    func owns(_ id: TransportID) -> Bool { sockets.contains { $0.id == id } }

    func socket(for family: NetworkAddress.Family) -> UDPSocket? { sockets.first { $0.boundAddress.family == family } }

    // MARK: Connecting

    /// Opens a connection; returns when its handshake is complete. Cancelling the task gives it up.
    ///
    /// - Parameters:
    ///   - target: `host:port`. A name's addresses are tried one after the other; the name is also what the server's
    ///     certificate must be for.
    ///   - tls: as swift-nio-ssl has it. QUIC is TLS 1.3 always: cipher suites and versions are not read.
    ///   - applicationProtocols: ALPN identifiers, the preferred first; if empty, those of `tls`.
    ///   - configuration: limits and timeouts of the connection.
    public func connect(
        to target: String, tls: TLSConfiguration, applicationProtocols: [String] = [],
        configuration: ConnectionConfiguration = ConnectionConfiguration()
    ) async throws(TernError) -> Connection {
        let parsed = try HostAndPort(parsing: target)
        let context = try TLSContextCache.shared.context(
            for: tls, applicationProtocols: applicationProtocols, role: .client)
        let addresses = try await NameResolution.addresses(of: parsed, on: worker.simulation)
        let usable = addresses.filter { socket(for: $0.family) != nil }
        guard !usable.isEmpty else { throw .addressFamilyUnavailable(addresses.first?.family ?? .ipv4) }
        var lastError = TernError.transportClosed
        for address in usable {
            do throws(TernError) {
                return try await connect(
                    to: address, serverName: parsed.host, context: context, configuration: configuration)
            } catch .connectionFailed(let reason)
                where reason == .handshakeTimeout || reason == .idleTimeout || reason == .noViablePath
            {
                // Nobody answered there; another address of the same name may.
                lastError = .connectionFailed(reason)
            } catch .system(let call, let errno) {
                lastError = .system(call: call, errno: errno)
            }
        }
        throw lastError
    }

    private func connect(
        to address: NetworkAddress, serverName: String, context: TLSContext, configuration: ConnectionConfiguration
    ) async throws(TernError) -> Connection {
        let attempt = ConnectAttempt()
        let result = await worker.suspend(
            for: Void.self,
            onCancel: { _ in attempt.driver.withLock { $0 }?.close(errorCode: 0, reason: "") },
            start: { suspension in
                do throws(TernError) {
                    let driver = try self.startConnecting(
                        to: address, serverName: serverName, context: context, configuration: configuration,
                        suspension: suspension)
                    attempt.driver.withLock { $0 = driver }
                } catch {
                    suspension.resume(throwing: error)
                }
            })
        switch result {
        case .success:
            guard let driver = attempt.driver.withLock({ $0 }) else { throw .transportClosed }
            return Connection(driver: driver)
        case .failure(let error as TernError): throw error
        case .failure(let reason as CloseReason): throw .connectionFailed(reason)
        case .failure: throw .cancelled
        }
    }

    private func startConnecting(
        to address: NetworkAddress, serverName: String, context: TLSContext, configuration: ConnectionConfiguration,
        suspension: Suspension<Void>
    ) throws(TernError) -> ConnectionDriver {
        guard !isClosed, let socket = socket(for: address.family) else { throw .transportClosed }
        let local = try socket.localAddress(towards: address)
        let tuple = FourTuple(transport: socket.id, local: local, remote: address)
        let handle: ConnectionHandle
        do throws(TransportError) {
            handle = try worker.endpoint.connect(
                over: tuple, tls: context, serverName: serverName, configuration: configuration, now: worker.now())
        } catch {
            throw .connectionFailed(.transport(error, byPeer: false))
        }
        let driver = worker.addDriver(
            for: handle, role: .client, establishment: .connecting(suspension),
            sendBufferLimit: configuration.sendBufferLimit, logger: self.configuration.logger)
        driver.transportConfiguration = SharedTransportConfiguration(self.configuration)
        driver.published.withLock { $0.migration = configuration.migration }
        worker.touch(driver)
        worker.scheduleService()
        return driver
    }

    // MARK: Listening

    /// Accepts connections from clients. A transport listens once; it can go on connecting meanwhile.
    ///
    /// - Parameters:
    ///   - tls: with a certificate chain and a private key.
    ///   - applicationProtocols: ALPN identifiers, the preferred first; if empty, those of `tls`.
    ///   - configuration: limits and timeouts of each connection.
    ///   - backlog: connections in their handshake or waiting to be taken from ``Listener/connections``, at most; beyond, new
    ///     clients are not answered and try again.
    ///   - preferred: sockets on addresses to which clients are asked to move once they are connected, one of each family at
    ///     most, on the same event loop (RFC 9000, section 9.6). They take no new connections unless they listen themselves,
    ///     and must stay open while connections use them. What clients are told is their ``localAddresses``, unless
    ///     `configuration.preferredAddresses` names others, such as those outside of a NAT.
    /// - Throws: ``TernError/transportOnAnotherEventLoop``, ``TernError/transportClosed``,
    ///   ``TernError/noPreferredAddress(_:)``, ``TernError/alreadyListening``, and what is wrong with `tls`.
    public func listen(
        tls: TLSConfiguration, applicationProtocols: [String] = [],
        configuration: ConnectionConfiguration = ConnectionConfiguration(), backlog: Int = 1_024,
        preferred: [Transport] = []
    ) async throws(TernError) -> Listener {
        let configuration = try announcing(preferred, in: configuration)
        let context = try TLSContextCache.shared.context(
            for: tls, applicationProtocols: applicationProtocols, role: .server)
        let listener = ListenerState(
            configuration: ServerConfiguration(tls: context, connection: configuration),
            connectionConfiguration: configuration, backlog: backlog, logger: self.configuration.logger)
        let result: Result<Void, TernError> = await worker.run {
            let refusal = self.state.withLock { state -> TernError? in
                if state.isClosed { return .transportClosed }
                if state.listener != nil { return .alreadyListening }
                state.listener = listener
                return nil
            }
            if let refusal { return .failure(refusal) }
            for socket in self.sockets { socket.listener = listener }
            return .success(())
        }
        try result.get()
        return Listener(state: listener, transport: self)
    }

    /// On the event loop.
    func stopListening(_ listener: ListenerState, failure: TernError? = nil) {
        let isCurrent = state.withLock { state in
            guard state.listener === listener else { return false }
            state.listener = nil
            return true
        }
        guard isCurrent else { return }
        for socket in sockets { socket.listener = nil }
        listener.close(failure: failure)
    }

    // MARK: Closing

    /// Closes the socket. Connections lose the paths over it, and go on over others if they have any.
    public func close() async {
        await worker.run { self.closeOnLoop() }
    }

    /// The same for a caller on the event loop.
    func closeOnLoop() {
        let listener = state.withLock { state in
            state.isClosed = true
            return state.listener
        }
        if let listener { stopListening(listener, failure: .transportClosed) }
        for socket in sockets { worker.remove(socket) }
    }

    /// Gives the socket another port without telling anyone, as a NAT would that has forgotten its mapping: for tests and
    /// measurements. ``localAddress`` goes on naming the first one.
    ///
    /// - Throws: `TernError.system` with EINVAL where the system cannot do it: only a socket of Linux whose port the system
    ///   chose.
    @_spi(Testing)
    public func rebind() async throws(TernError) {
        let errno = await worker.run { self.sockets.map { $0.rebindForTesting() }.first { $0 != 0 } }
        if let errno { throw .system(call: "connect(AF_UNSPEC)", errno: errno) }
    }

    /// The sockets, for tests.
    var socketsForTesting: [UDPSocket] { sockets }
}

/// The connection that a call of `connect` is making: set on the event loop, read when the call ends.
private final class ConnectAttempt: Sendable {
    let driver = Mutex<ConnectionDriver?>(nil)
}

extension Transport: CustomStringConvertible {
    public var description: String {
        "transport on " + localAddresses.map(\.description).joined(separator: ", ")
    }
}
