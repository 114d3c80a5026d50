// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Testing

@testable import TernSimulation

@Suite("The simulator itself")
struct SimulatorTests {
    /// A host that writes down what reaches it.
    private final class Recorder: DatagramReceiver {
        var arrivals: [(at: Nanoseconds, datagram: SimulatedDatagram)] = []
        let network: SimulatedNetwork
        init(_ network: SimulatedNetwork) { self.network = network }

        func receive(_ datagram: SimulatedDatagram, on interface: SimulatedInterface) {
            arrivals.append((network.scheduler.elapsed, datagram))
        }
    }

    private static let alice = NetworkAddress(203, 0, 113, 1, port: 1_000)
    private static let bob = NetworkAddress(203, 0, 113, 2, port: 2_000)
    private static let outside = NetworkAddress(198, 18, 0, 1, port: 0)
    private static let inside = NetworkAddress(192, 168, 0, 2, port: 500)

    private static func datagram(_ number: Int = 0, size: Int = 100, to: NetworkAddress = bob) -> SimulatedDatagram {
        SimulatedDatagram(
            source: alice, destination: to, payload: [UInt8](repeating: UInt8(number & 255), count: size))
    }

    /// What Bob got of `count` datagrams sent a millisecond apart.
    private static func deliver(
        _ count: Int, over conditions: LinkConditions, seed: UInt64 = 1, size: Int = 100
    ) -> (recorder: Recorder, link: SimulatedLink) {
        let network = SimulatedNetwork(seed: seed)
        let recorder = Recorder(network)
        let a = network.attach(recorder, named: "a", at: alice, outbound: conditions, inbound: .perfect)
        _ = network.attach(recorder, named: "b", at: bob, outbound: .perfect, inbound: .perfect)
        for number in 0..<count {
            network.scheduler.schedule(after: .milliseconds(Int64(number))) {
                network.send(datagram(number, size: size), from: a)
            }
        }
        _ = network.scheduler.run(until: .distantFuture)
        return (recorder, a.outbound)
    }

    @Test("actions run in order of time, and in order of scheduling within one instant")
    func order() {
        let scheduler = Scheduler()
        var seen: [Int] = []
        for (number, milliseconds) in [(0, 5), (1, 1), (2, 5), (3, 1), (4, 0)] {
            scheduler.schedule(after: .milliseconds(Int64(milliseconds))) {
                seen.append(number)
                if number == 1 { scheduler.schedule(after: .zero) { seen.append(10) } }
            }
        }
        #expect(scheduler.run(until: .distantFuture) == .nothingLeft)
        #expect(seen == [4, 1, 3, 10, 0, 2])
        #expect(scheduler.elapsed == .milliseconds(5))
    }

    @Test("lanes change nothing about the order, also where one of them is asked to go back in time")
    func lanes() {
        var random = RandomSource.seeded(1)
        let due = (0..<500).map { _ in random.integer(in: 0...99) }
        func run(in lanes: [Scheduler.Lane?]) -> [Int] {
            let scheduler = Scheduler()
            var seen: [Int] = []
            for (number, milliseconds) in due.enumerated() {
                // The first instants of a lane rise, as those of a link do; later ones do as they like.
                let instant = number < 200 ? number / 4 : milliseconds
                scheduler.schedule(after: .milliseconds(Int64(instant)), in: lanes[number % lanes.count]) {
                    seen.append(number)
                    if number % 50 == 0 {
                        scheduler.schedule(after: .milliseconds(1), in: lanes[0]) { seen.append(1_000 + number) }
                    }
                }
            }
            #expect(scheduler.pendingCount == due.count)
            #expect(scheduler.run(until: .distantFuture) == .nothingLeft)
            #expect(scheduler.pendingCount == 0)
            return seen
        }
        #expect(run(in: [Scheduler.Lane(), nil, Scheduler.Lane()]) == run(in: [nil]))

        let (scheduler, lane) = (Scheduler(), Scheduler.Lane())
        var count = 0
        for _ in 0..<3 { scheduler.schedule(after: .milliseconds(1), in: lane) { count += 1 } }
        scheduler.removeAll()
        scheduler.schedule(after: .milliseconds(2), in: lane) { count += 1 }
        #expect(scheduler.pendingCount == 1)
        #expect(scheduler.run(until: .distantFuture) == .nothingLeft && count == 1)
    }

    @Test("a link that saves datagrams up hands over all that came since, in their order and never early")
    func coalescing() {
        var conditions = LinkConditions(delay: .milliseconds(2))
        conditions.coalescing = .milliseconds(5)
        let arrivals = Self.deliver(20, over: conditions).recorder.arrivals
        #expect(arrivals.map { $0.datagram.payload[0] } == Array(0..<20))
        for (number, arrival) in arrivals.enumerated() {
            #expect(arrival.at == .milliseconds(Int64((number + 2 + 4) / 5 * 5)))
        }
    }

    @Test("a run stops at its limit with the clock there, and says when it makes no headway")
    func limits() {
        let scheduler = Scheduler()
        var count = 0
        func again(_ delay: Nanoseconds) {
            count += 1
            scheduler.schedule(after: delay) { again(delay) }
        }
        again(.milliseconds(10))
        #expect(scheduler.run(until: Scheduler.start + .milliseconds(35)) == .timeLimit)
        #expect(count == 4)
        #expect(scheduler.elapsed == .milliseconds(35))
        #expect(scheduler.run(until: .distantFuture, while: { count < 6 }) == .finished)
        scheduler.removeAll()
        again(.zero)
        #expect(scheduler.run(until: .distantFuture) == .stuck)
    }

    @Test("a link delays, loses, duplicates and reorders at the rates it was given")
    func rates() {
        let plain = Self.deliver(200, over: LinkConditions(delay: .milliseconds(7)))
        #expect(plain.recorder.arrivals.count == 200)
        #expect(
            plain.recorder.arrivals.enumerated().allSatisfy { $1.at == .milliseconds(Int64($0 + 7)) })

        let lossy = Self.deliver(5_000, over: LinkConditions(loss: 0.1))
        #expect((400...600).contains(lossy.link.counters.lost))
        #expect(lossy.recorder.arrivals.count + lossy.link.counters.lost == 5_000)

        let doubling = Self.deliver(5_000, over: LinkConditions(duplication: 0.2))
        #expect((900...1_100).contains(doubling.link.counters.duplicated))
        #expect(doubling.recorder.arrivals.count == 5_000 + doubling.link.counters.duplicated)

        let shuffled = Self.deliver(256, over: LinkConditions(reordering: 0.2, reorderingDelay: .milliseconds(5)))
        let numbers = shuffled.recorder.arrivals.map { $0.datagram.payload[0] }
        #expect(numbers != numbers.sorted() && numbers.sorted() == Array(0...255))

        let jittery = Self.deliver(256, over: LinkConditions(jitter: .milliseconds(20)))
        #expect(jittery.recorder.arrivals.map { $0.datagram.payload[0] } == Array(0...255))
    }

    @Test("bandwidth spaces datagrams out, a full queue and a small MTU drop them")
    func bandwidth() {
        // 1,000 bytes with headers take 8 ms at 1 Mbit/s, and one is sent each millisecond.
        let conditions = LinkConditions(delay: .zero, maximumPayload: 972, bandwidth: 1_000_000, queueLimit: 10_000)
        let narrow = Self.deliver(100, over: conditions, size: 972)
        let arrivals = narrow.recorder.arrivals.map(\.at)
        #expect(arrivals.first == .milliseconds(8))
        #expect(zip(arrivals, arrivals.dropFirst()).allSatisfy { $1 - $0 == .milliseconds(8) })
        #expect(narrow.link.counters.queueFull + arrivals.count == 100)
        // What 99 ms transmit, and what waits then.
        #expect((20...24).contains(arrivals.count))
        #expect(Self.deliver(3, over: conditions, size: 973).link.counters.tooLarge == 3)
    }

    @Test("a link that goes down loses what is under way, and carries again when it is back")
    func outage() {
        let network = SimulatedNetwork(seed: 1)
        let recorder = Recorder(network)
        let conditions = LinkConditions(delay: .milliseconds(10))
        let a = network.attach(recorder, named: "a", at: Self.alice, outbound: conditions, inbound: conditions)
        _ = network.attach(recorder, named: "b", at: Self.bob, outbound: .perfect, inbound: .perfect)
        network.send(Self.datagram(1), from: a)
        network.scheduler.schedule(after: .milliseconds(5)) { a.isUp = false }
        network.scheduler.schedule(after: .milliseconds(15)) { network.send(Self.datagram(2), from: a) }
        network.scheduler.schedule(after: .milliseconds(20)) {
            a.isUp = true
            network.send(Self.datagram(3), from: a)
        }
        _ = network.scheduler.run(until: .distantFuture)
        #expect(recorder.arrivals.map { $0.datagram.payload[0] } == [3])
        #expect(a.outbound.counters.down == 2)
    }

    @Test("one seed gives one run, another seed another")
    func replay() {
        let conditions = LinkConditions(
            jitter: .milliseconds(9), loss: 0.1, duplication: 0.1, reordering: 0.1, reorderingDelay: .milliseconds(9))
        func run(_ seed: UInt64) -> [String] {
            Self.deliver(300, over: conditions, seed: seed).recorder.arrivals.map {
                "\($0.at) \($0.datagram.payload[0])"
            }
        }
        #expect(run(7) == run(7))
        #expect(run(7) != run(8))
    }

    /// Alice behind a NAT, Bob outside.
    private struct Home {
        let network = SimulatedNetwork(seed: 3)
        let recorder: Recorder
        let nat: SimulatedNAT
        let inside: SimulatedInterface
        let outside: SimulatedInterface

        init(_ configuration: SimulatedNAT.Configuration = .init()) {
            recorder = Recorder(network)
            nat = network.makeNAT(at: SimulatorTests.outside, configuration)
            inside = network.attach(
                recorder, named: "in", at: SimulatorTests.inside, outbound: .perfect, inbound: .perfect, behind: nat)
            outside = network.attach(
                recorder, named: "out", at: SimulatorTests.bob, outbound: .perfect, inbound: .perfect)
        }

        /// Sends outwards and returns the source that Bob sees.
        func seenAddress(sendingTo remote: NetworkAddress = SimulatorTests.bob) -> NetworkAddress? {
            let before = recorder.arrivals.count
            network.send(
                SimulatedDatagram(source: inside.address, destination: remote, payload: [1]), from: inside)
            _ = network.scheduler.run(until: network.now)
            return recorder.arrivals.count > before ? recorder.arrivals.last?.datagram.source : nil
        }

        /// Whether a datagram of Bob's to `address` gets in.
        func letsIn(to address: NetworkAddress, from source: NetworkAddress = SimulatorTests.bob) -> Bool {
            let before = recorder.arrivals.count
            network.inject(SimulatedDatagram(source: source, destination: address, payload: [2]))
            _ = network.scheduler.run(until: network.now)
            return recorder.arrivals.count > before
                && recorder.arrivals.last?.datagram.destination == SimulatorTests.inside
        }
    }

    @Test("a NAT keeps its mapping until it rebinds its port or its address, and the old one dies")
    func rebinding() throws {
        let home = Home()
        let first = try #require(home.seenAddress())
        #expect(first.hasSameIP(as: Self.outside))
        #expect(home.seenAddress() == first)
        #expect(home.letsIn(to: first))

        home.nat.rebindPort()
        #expect(!home.letsIn(to: first), "dead until something is sent from the inside, and after")
        let second = try #require(home.seenAddress())
        #expect(second.hasSameIP(as: first) && second.port != first.port)
        #expect(!home.letsIn(to: first) && home.letsIn(to: second))

        home.nat.rebindAddress()
        let third = try #require(home.seenAddress())
        #expect(!third.hasSameIP(as: first))
        #expect(!home.letsIn(to: second) && home.letsIn(to: third))
        #expect(home.nat.rebindingCount == 2 && home.nat.unmappedCount == 3)
    }

    @Test("old mappings linger as long as they were told to, idle ones go, symmetric ones serve one remote")
    func mappings() throws {
        let lingering = Home(.init(oldMappings: .linger(.seconds(1))))
        let first = try #require(lingering.seenAddress())
        lingering.nat.rebindPort()
        #expect(lingering.letsIn(to: first))
        _ = lingering.network.scheduler.run(until: lingering.network.now + .milliseconds(999))
        lingering.network.scheduler.schedule(after: .milliseconds(999)) {}
        _ = lingering.network.scheduler.run(until: .distantFuture)
        #expect(lingering.letsIn(to: first))
        lingering.network.scheduler.schedule(after: .milliseconds(1)) {}
        _ = lingering.network.scheduler.run(until: .distantFuture)
        #expect(!lingering.letsIn(to: first))

        let forgetful = Home(.init(idleTimeout: .seconds(5)))
        let idle = try #require(forgetful.seenAddress())
        forgetful.network.scheduler.schedule(after: .seconds(6)) {}
        _ = forgetful.network.scheduler.run(until: .distantFuture)
        #expect(!forgetful.letsIn(to: idle))
        #expect(forgetful.seenAddress() != idle)

        let symmetric = Home(.init(mapping: .addressAndPortDependent))
        let other = Self.bob.withPort(2_001)
        let mapped = try #require(symmetric.seenAddress())
        #expect(!symmetric.letsIn(to: mapped, from: other) && symmetric.letsIn(to: mapped))
    }

    @Test("10,000 rebindings give 10,000 different addresses in a row, and ports stay within their range")
    func manyRebindings() throws {
        let home = Home(.init(oldMappings: .linger(.milliseconds(1))))
        var last: NetworkAddress?
        for _ in 0..<10_000 {
            home.nat.rebindPort()
            let seen = try #require(home.seenAddress())
            try #require(seen != last && (40_000...64_999).contains(seen.port))
            last = seen
        }
    }

    @Test("taps see, drop and delay what passes, and injected datagrams come from anywhere")
    func taps() {
        let network = SimulatedNetwork(seed: 1)
        let recorder = Recorder(network)
        let a = network.attach(recorder, named: "a", at: Self.alice, outbound: .perfect, inbound: .perfect)
        _ = network.attach(recorder, named: "b", at: Self.bob, outbound: .perfect, inbound: .perfect)
        network.addTap { datagram in
            switch datagram.payload[0] {
            case 1: .drop
            case 2: .delay(.milliseconds(30))
            default: .pass
            }
        }
        for number in 1...3 { network.send(Self.datagram(number), from: a) }
        let spoofed = SimulatedDatagram(
            source: NetworkAddress(198, 19, 0, 1, port: 9), destination: Self.bob, payload: [1])
        network.inject(spoofed, after: .milliseconds(10))
        network.send(Self.datagram(4, to: NetworkAddress(9, 9, 9, 9, port: 9)), from: a)
        _ = network.scheduler.run(until: .distantFuture)
        #expect(recorder.arrivals.map { $0.datagram.payload[0] } == [3, 1, 2])
        #expect(recorder.arrivals.map(\.at) == [.zero, .milliseconds(10), .milliseconds(30)])
        #expect(recorder.arrivals[1].datagram.source == spoofed.source)
        #expect(network.unroutableCount == 1)
    }

    @Test(
        "bytes beyond three times what came from an address that is not proved are reported (M15)",
        arguments: [false, true])
    func amplification(isForgetful: Bool) {
        var scenario = Scenario("amplification")
        scenario.ending = .script
        scenario.client.handshakeTimeout = .seconds(4)
        scenario.server.handshakeTimeout = .seconds(4)
        scenario.expectedClientClose = { $0 == .handshakeTimeout }
        scenario.script = { testbed in
            // Only the client's first message arrives, so the server repeats its flight as far as three times that allows.
            var count = 0
            testbed.network.addTap { datagram in
                guard datagram.destination == Testbed.serverAddress else { return .pass }
                count += 1
                return count > 2 ? .drop : .pass
            }
            guard isForgetful else { return }
            // As if it had heard nothing: its next datagram is one too many.
            testbed.at(.milliseconds(200)) {
                for record in testbed.server.connections {
                    for address in record.books.ledgers.keys { record.books.ledgers[address]?.received = 0 }
                }
            }
        }
        let violations = scenario.run(seed: 1).violations
        #expect(violations.contains { $0.contains("M15") } == isForgetful, "\(violations)")
    }

    @Test("content is checked byte by byte, wherever it is cut")
    func content() {
        let whole = UnsafeMutableRawBufferPointer.allocate(byteCount: 1_000, alignment: 8)
        defer { whole.deallocate() }
        Content.fill(whole, key: 5, offset: 0)
        var random = RandomSource.seeded(1)
        var offset = 0
        while offset < whole.count {
            let count = min(random.integer(in: 1...40), whole.count - offset)
            let part = UnsafeMutableRawBufferPointer(rebasing: whole[offset..<offset + count])
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
            defer { copy.deallocate() }
            Content.fill(copy, key: 5, offset: offset)
            #expect(copy.elementsEqual(part))
            #expect(Content.firstDifference(in: UnsafeRawBufferPointer(part), key: 5, offset: offset) == nil)
            #expect(Content.firstDifference(in: UnsafeRawBufferPointer(part), key: 6, offset: offset) != nil)
            let place = random.integer(in: 0...count - 1)
            part[place] ^= 0x10
            #expect(Content.firstDifference(in: UnsafeRawBufferPointer(part), key: 5, offset: offset) == place)
            part[place] ^= 0x10
            offset += count
        }
        #expect(Content.firstDifference(in: UnsafeRawBufferPointer(whole), key: 5, offset: 8) == 0)
    }

    @Test("headers are read as they are on the wire, and cut ones are not read beyond their end")
    func headers() {
        func datagram(_ payload: [UInt8]) -> SimulatedDatagram {
            SimulatedDatagram(source: Self.alice, destination: Self.bob, payload: payload)
        }
        let initial: [UInt8] = [0xc0, 0, 0, 0, 1, 2, 7, 8, 1, 9, 0, 3, 1, 2, 3]
        let handshake: [UInt8] = [0xe0, 0, 0, 0, 1, 2, 7, 8, 1, 9, 3, 1, 2, 3]
        #expect(datagram(initial).longHeaderVersion == 1)
        #expect(datagram(initial).longHeaderIDs?.destination == [7, 8])
        #expect(datagram(initial).longHeaderIDs?.source == [9])
        #expect(!datagram(initial).containsHandshakePacket)
        #expect(datagram(initial + handshake).containsHandshakePacket)
        #expect(datagram([0x40, 1, 2, 3, 4, 5]).shortHeaderDestinationID(length: 4) == ConnectionID([1, 2, 3, 4]))
        #expect(datagram([0x40, 1]).shortHeaderDestinationID(length: 4) == nil)
        for length in 0..<initial.count {
            let cut = datagram(Array(initial[..<length]))
            #expect(!cut.containsHandshakePacket)
            _ = (cut.longHeaderVersion, cut.longHeaderIDs)
        }
    }
}
