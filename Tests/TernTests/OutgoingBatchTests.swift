// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOPosix
import Testing

@testable import QUICProtocol
@testable import Tern

@Suite("Datagrams that leave together")
struct OutgoingBatchTests {
    private let driver = ConnectionDriver(
        worker: .of(MultiThreadedEventLoopGroup.singleton.next()), handle: ConnectionHandle(slot: 0, generation: 0),
        slot: 0, role: .server, establishment: .done, sendBufferLimit: 1, logger: Logger(label: "test"))

    private func transmission(
        _ byteCount: Int, segmentSize: Int? = nil, port: UInt16 = 1, ecn: ECNCodepoint = .notECT
    ) -> Transmission {
        Transmission(
            path: PathID(0),
            tuple: FourTuple(
                transport: TransportID(1), local: NetworkAddress(ipv4: 0x7f00_0001, port: 9),
                remote: NetworkAddress(ipv4: 0x7f00_0001, port: port)),
            byteCount: byteCount, segmentSize: segmentSize ?? byteCount, ecn: ecn)
    }

    private func route(_ transmission: Transmission) -> OutgoingBatch.Route {
        OutgoingBatch.Route(tuple: transmission.tuple, ecn: transmission.ecn)
    }

    /// A batch in which these wait.
    private func batch(_ transmissions: Transmission...) -> OutgoingBatch {
        var batch = OutgoingBatch()
        for (number, transmission) in transmissions.enumerated() {
            #expect(number == 0 || batch.accepts(transmission, route: route(transmission)))
            batch.space.copyBytes(from: [UInt8](repeating: UInt8(number + 1), count: transmission.byteCount))
            batch.append(
                transmission, route: route(transmission), part: .init(driver: driver, path: transmission.path))
        }
        return batch
    }

    private func accepts(_ batch: OutgoingBatch, _ transmission: Transmission) -> Bool {
        batch.accepts(transmission, route: route(transmission))
    }

    @Test("are of one size, but for the end of the last batch, which nothing follows")
    func sizes() {
        var waiting = batch(transmission(2_904, segmentSize: 1_452), transmission(1_452))
        defer { waiting.deallocate() }
        #expect(Array(waiting.bytes) == [UInt8](repeating: 1, count: 2_904) + [UInt8](repeating: 2, count: 1_452))
        #expect(waiting.parts.count == 2)
        #expect(!accepts(waiting, transmission(1_453)))
        #expect(!accepts(waiting, transmission(2_400, segmentSize: 1_200)))
        // It would be lost with a probe of the path's size.
        #expect(!accepts(waiting, transmission(40)))
        let last = transmission(1_500, segmentSize: 1_452)
        #expect(accepts(waiting, last))
        waiting.append(last, route: route(last), part: .init(driver: driver, path: PathID(0)))
        #expect(waiting.isFull)
        #expect(!accepts(waiting, transmission(1_452)))
    }

    @Test("go to one address from one socket, with one ECN mark")
    func routes() {
        let waiting = batch(transmission(100))
        defer { waiting.deallocate() }
        #expect(accepts(waiting, transmission(100)))
        #expect(!accepts(waiting, transmission(100, port: 2)))
        #expect(!accepts(waiting, transmission(100, ecn: .ect0)))
    }

    @Test("are no more than the kernel cuts at once, and wait for no more when they are many bytes")
    func limits() {
        var small = batch(transmission(30))
        defer { small.deallocate() }
        let another = transmission(30)
        for _ in 1..<64 {
            #expect(accepts(small, another))
            small.append(another, route: route(another), part: .init(driver: driver, path: PathID(0)))
        }
        #expect(small.isFull)
        #expect(!accepts(small, another))
        let large = batch(transmission(1_452 * 12, segmentSize: 1_452))
        defer { large.deallocate() }
        #expect(large.isFull)
    }

    @Test("find room for the largest batch behind those that wait, and start over in front")
    func space() {
        var waiting = batch(transmission(60_000, segmentSize: 1_200))
        defer { waiting.deallocate() }
        #expect(waiting.hasSpace)
        #expect(waiting.space.count == UDPSocket.maximumBatchSize)
        waiting.clear()
        #expect(waiting.isEmpty)
        let next = transmission(60_000, segmentSize: 1_200)
        waiting.append(next, route: route(next), part: .init(driver: driver, path: PathID(0)))
        #expect(!waiting.hasSpace)
        waiting.clear()
        waiting.rewind()
        #expect(waiting.hasSpace)
    }
}
