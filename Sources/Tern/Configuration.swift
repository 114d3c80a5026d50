// SPDX-License-Identifier: Apache-2.0

public import Logging
internal import NIOCore

/// What may be set for a ``Transport``. What belongs to a connection is set by `ConnectionConfiguration`.
public struct TransportConfiguration: Sendable {
    /// Where the transport and the connections over it log. Nothing above `notice` in healthy operation, and nothing a
    /// packet below `trace`.
    public var logger: Logger
    /// Bytes of the kernel's send buffer to ask for. The system may allow less.
    public var sendBufferSize = 4 * 1_024 * 1_024
    /// Bytes of the kernel's receive buffer to ask for: what arrives while the event loop is busy waits there.
    public var receiveBufferSize = 7 * 1_024 * 1_024
    /// Sends a batch in one call where the kernel and the device can cut it into datagrams (UDP_SEGMENT).
    public var usesSegmentationOffload = true
    /// Receives datagrams of one sender merged where the kernel can (UDP_GRO).
    public var usesReceiveOffload = true
    /// How many reads are made when the event loop finds something, before any of it is answered: 1 to 1,024, others are taken as
    /// the nearest of these. Each takes a datagram, or as many as the kernel merged. The more there are, the more each of many
    /// connections finds acknowledged at once, and the larger are the batches that it sends then; the longer waits the first.
    /// Reading ends after about 2 MB or 2 ms all the same.
    public var readsPerWakeUp = 512

    /// Where connections with the automatic migration policy learn of this host's networks.
    public var networkMonitor = NetworkMonitor.system

    /// The simulated host whose sockets transports are that name no event loop. Nil: this host's, as is always so outside of
    /// tests.
    package var simulation: (any SimulatedEventLoop)?

    public init(logger: Logger = Logger(label: "tern")) {
        self.logger = logger
    }
}

extension TransportConfiguration {
    /// The simulated host on which a transport is to be bound, if it is one.
    func simulation(on eventLoop: (any EventLoop)?) -> (any SimulatedEventLoop)? {
        guard let eventLoop else { return simulation }
        return eventLoop as? any SimulatedEventLoop
    }
}

/// By reference, as the connections that have none are many.
final class SharedTransportConfiguration: Sendable {
    let value: TransportConfiguration

    init(_ value: TransportConfiguration) { self.value = value }
}
