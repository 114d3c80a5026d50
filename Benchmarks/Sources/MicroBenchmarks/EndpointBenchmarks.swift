// SPDX-License-Identifier: Apache-2.0

import BenchmarkSupport
@testable import QUICProtocol

/// Which connection a datagram belongs to.
extension Harness {
    mutating func measureEndpoint() throws {
        room = "Endpoint"
        measureRouting("connection ID looked up, 1 connection", connections: 1)
        measureRouting("connection ID looked up, 10,000 connections", connections: 10_000)
        try measureDelivery("datagram dropped by its connection, 1 connection", connections: 1)
        try measureDelivery("datagram dropped by its connection, each of 1,000", connections: 1_000)
        measureUnknownDatagram()
    }

    /// A table like the endpoint's by itself: ten thousand connections would take seconds and hundreds of megabytes.
    private mutating func measureRouting(_ name: String, connections: Int) {
        // As many as a connection has issued after its handshake.
        let idsPerConnection = 4
        var random = RandomSource.seeded(4)
        var routes: [ConnectionID: ConnectionHandle] = [:]
        var ids: [ConnectionID] = []
        for connection in 0..<connections {
            for index in 0..<idsPerConnection {
                let id = ConnectionID.random(length: 8, using: &random)
                routes[id] = ConnectionHandle(slot: UInt32(connection), generation: 1)
                if index == 0 { ids.append(id) }
            }
        }
        // Datagrams come in no order of connections.
        ids.shuffle(using: &random)
        measure(name, passes: 100_000) { passes in
            var sum: UInt64 = 0
            var next = 0
            for _ in 0..<passes {
                sum &+= UInt64(routes[ids[next]]?.slot ?? .max)
                next += 1
                if next == ids.count { next = 0 }
            }
            return sum
        }
    }

    /// All that an endpoint does with a datagram but for what is in it: clients drop what comes from another address than
    /// their server's.
    private mutating func measureDelivery(_ name: String, connections: Int) throws {
        let endpoint = QUICEndpoint()
        let tls = try TLSPair().client
        let server = NetworkAddress(198, 51, 100, 1, port: 443)
        let size = 40
        let datagrams = lastingBytes(size * connections)
        for (index, place) in (0..<connections).shuffled().enumerated() {
            let tuple = endpointTuple(port: UInt16(10_000 + index), remote: server)
            let handle = try endpoint.connect(over: tuple, tls: tls, serverName: "localhost", now: .zero)
            let id = endpoint.withConnection(handle) { $0.localIDs.active.first?.id }
            guard let id = id ?? nil else { throw UnexpectedResult("a connection without an ID") }
            datagrams[place * size] = HeaderBits.fixed
            datagrams[(place * size + 1)...].copyBytes(from: id.bytes)
        }
        let elsewhere = endpointTuple(port: 10_000, remote: NetworkAddress(203, 0, 113, 1, port: 443))
        measure(name, passes: 50_000) { passes in
            var delivered: UInt64 = 0
            var next = 0
            for _ in 0..<passes {
                let bytes = UnsafeMutableRawBufferPointer(rebasing: datagrams[next..<next + size])
                next += size
                if next == datagrams.count { next = 0 }
                var datagram = bytes.mutableBytes
                let outcome = endpoint.receive(&datagram, on: elsewhere, ecn: .notECT, accepting: nil, now: .zero)
                if case .connection = outcome { delivered += 1 }
            }
            return delivered
        }
    }

    /// What anybody can make an endpoint do: a datagram for an ID that it does not know, too short to be answered.
    private mutating func measureUnknownDatagram() {
        let endpoint = QUICEndpoint(random: .seeded(5))
        let memory = lastingBytes(StatelessReset.minimumSize - 1)
        memory[0] = HeaderBits.fixed
        let tuple = endpointTuple(port: 4_433, remote: NetworkAddress(198, 51, 100, 1, port: 50_000))
        measure("datagram for an unknown ID dropped", passes: 100_000) { passes in
            var dropped: UInt64 = 0
            for pass in 0..<passes {
                memory[1] = UInt8(truncatingIfNeeded: pass)
                var datagram = memory.mutableBytes
                let outcome = endpoint.receive(&datagram, on: tuple, ecn: .notECT, accepting: nil, now: .zero)
                if outcome == .dropped { dropped += 1 }
            }
            return dropped
        }
    }
}

private func endpointTuple(port: UInt16, remote: NetworkAddress) -> FourTuple {
    FourTuple(transport: TransportID(0), local: NetworkAddress(192, 0, 2, 1, port: port), remote: remote)
}
