// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import Logging

// Reading on a loop of our own (decision 0050).
extension UDPSocket {
    /// Reads once, and hands what was there to the worker. Connections are serviced by the loop when it has read all sockets.
    func read(with receiver: OpaquePointer) {
        var datagrams: UnsafePointer<tern_datagrams>?
        var count = 0
        let error = receive(with: receiver, &datagrams, &count)
        if error != 0 {
            // An ICMP message that the kernel turned into a read error, for instance. Paths fail by silence, not by hearsay.
            configuration.logger.debug("read error", metadata: ["errno": "\(error)"])
            noteReadError()
            return
        }
        guard let datagrams, count > 0 else { return }
        for entry in UnsafeBufferPointer(start: datagrams, count: count) {
            let remote = NetworkAddress(entry.remote)
            guard remote.port != 0 else { continue }
            let tuple = FourTuple(transport: id, local: localAddress(from: entry.local), remote: remote)
            worker.received(
                UnsafeMutableRawBufferPointer(start: entry.bytes, count: entry.count), segmentSize: entry.segment_size,
                tuple: tuple, ecn: ECNCodepoint(rawValue: entry.ecn) ?? .notECT, on: self)
        }
    }

    /// Where a datagram was sent to, as far as we can know.
    private func localAddress(from address: tern_address) -> NetworkAddress {
        guard isWildcard, address.family != 0 else { return boundAddress }
        var unscoped = address
        unscoped.scope_id = 0
        return NetworkAddress(unscoped).withPort(boundAddress.port).scoped(toInterface: Int(address.scope_id))
    }
}
