// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("Path MTU search")
struct PathMTUSearchTests {
    private let start = Instant.zero + .seconds(1)

    /// Runs a search over a path that bears `limit` bytes and loses nothing else; returns the probes sent.
    private func run(_ search: inout PathMTUSearch, limit: Int, now: Instant, from first: PacketNumber = 0) -> [Int] {
        var sizes: [Int] = []
        var number = first
        search.datagramFilled()
        while let size = search.probeSize(now: now), sizes.count < 100 {
            sizes.append(size)
            search.probeSent(number, size: size)
            if size <= limit {
                verify(search.probeAcknowledged(number))
            } else {
                search.probeLost(number, pathMayBeDead: false)
            }
            search.datagramFilled()
            number += 1
        }
        return sizes
    }

    @Test("one probe is enough where the path bears the ceiling (RFC 8899, section 5.3.2)")
    func ceiling() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        verify(run(&search, limit: 1_500, now: start) == [1_472])
        #expect(search.current == 1_472)
        #expect(search.phase == .complete(until: start + .seconds(600)))
    }

    @Test("the search ends within 16 bytes of what the path bears, after at most 18 probes", arguments: 1_200...1_472)
    func converges(limit: Int) {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        let probes = run(&search, limit: limit, now: start)
        #expect(search.current <= limit)
        #expect(limit - search.current <= PathMTUSearch.resolution)
        #expect(probes.count <= 18)
    }

    @Test("no probe leaves before a datagram was filled, nor while one is under way")
    func worthwhile() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        verify(search.probeSize(now: start) == nil)
        search.datagramFilled()
        verify(search.probeSize(now: start) == 1_472)
        search.probeSent(7, size: 1_472)
        search.datagramFilled()
        verify(search.probeSize(now: start) == nil)
        verify(!search.probeAcknowledged(6))
        verify(search.probeAcknowledged(7))
    }

    @Test("one or two lost probes prove nothing, three do; losses on a dead path prove nothing either")
    func losses() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        for number in 0..<10 as Range<UInt64> {
            search.datagramFilled()
            verify(search.probeSize(now: start) == 1_472)
            search.probeSent(number, size: 1_472)
            search.probeLost(number, pathMayBeDead: number >= 2)
        }
        search.datagramFilled()
        search.probeSent(10, size: 1_472)
        search.probeLost(10, pathMayBeDead: false)
        search.datagramFilled()
        verify(search.probeSize(now: start) == 1_336)
    }

    @Test("larger sizes are tried again ten minutes later (RFC 8899, section 5.1.1)")
    func raise() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        _ = run(&search, limit: 1_300, now: start)
        let found = search.current
        verify(run(&search, limit: 1_500, now: start + .seconds(599)).isEmpty)
        verify(run(&search, limit: 1_500, now: start + .seconds(601), from: 100) == [1_472])
        #expect(found < search.current)
    }

    @Test("four large packets lost while smaller ones arrive are a black hole: back to 1,200 bytes, and up again")
    func blackHole() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        _ = run(&search, limit: 1_500, now: start)
        search.largePacketAcknowledged(20)
        verify(!search.packetLost(19, size: 1_472), "it was overtaken by one that arrived")
        for number in 21...23 as ClosedRange<UInt64> { verify(!search.packetLost(number, size: 1_472)) }
        verify(!search.packetLost(24, size: 1_000), "small packets say nothing")
        verify(search.packetLost(25, size: 1_472))
        search.fallBack()
        #expect(search.current == 1_200)
        let probes = run(&search, limit: 1_300, now: start, from: 100)
        #expect(probes.prefix(3) == [1_472, 1_472, 1_472])
        #expect(search.current > 1_280 && search.current <= 1_300)
    }

    @Test("what the system refuses is not tried again, and a size in use that it refuses is given up at once")
    func refused() {
        var search = PathMTUSearch(current: 1_200)
        search.start(ceiling: 1_472)
        search.datagramFilled()
        search.probeSent(0, size: 1_472)
        verify(!search.refused(size: 1_472))
        search.datagramFilled()
        verify(search.probeSize(now: start) == 1_336)
        _ = run(&search, limit: 1_500, now: start)
        let found = search.current
        #expect(found < 1_472)
        verify(search.refused(size: found))
        #expect(search.current == 1_200)
    }
}

@Suite("ECN validation")
struct ECNValidationTests {
    @Test("ten marked packets go ahead; a report of them makes the path capable")
    func capable() {
        var ecn = ECNValidation()
        #expect(!ecn.isMarking)
        ecn.start()
        ecn.packetsSent(4)
        #expect(ecn.isMarking)
        ecn.packetsSent(6)
        #expect(ecn.state == .unknown && !ecn.isMarking)
        ecn.confirmed()
        #expect(ecn.state == .capable && ecn.isMarking)
        ecn.failed()
        #expect(ecn.state == .failed && !ecn.isMarking)
        ecn.confirmed()
        #expect(ecn.state == .failed)
    }

    @Test("a path that loses every marked packet has failed; one that loses some has not")
    func losses() {
        var ecn = ECNValidation()
        ecn.start()
        ecn.packetsSent(10)
        for _ in 0..<9 { ecn.packetLost() }
        #expect(ecn.state == .unknown)
        ecn.packetLost()
        #expect(ecn.state == .failed)
    }

    @Test("a capable path that falls silent is tested again with one packet when it is heard")
    func silence() {
        var ecn = ECNValidation()
        ecn.start()
        ecn.packetsSent(10)
        ecn.confirmed()
        for _ in 0..<3 {
            ecn.probeTimeoutExpired()
            #expect(ecn.state == .unknown)
            // Losses in a silence may have any reason.
            for _ in 0..<20 { ecn.packetLost() }
            ecn.heardAgain()
            #expect(ecn.state == .testing)
            ecn.packetsSent(1)
            #expect(ecn.state == .unknown)
            ecn.confirmed()
            #expect(ecn.state == .capable)
        }
        ecn.probeTimeoutExpired()
        ecn.heardAgain()
        ecn.packetsSent(1)
        ecn.packetLost()
        #expect(ecn.state == .failed)
    }

    @Test("reports must grow by what is acknowledged, and hold no mark that was not sent (RFC 9000, section 13.4.2.1)")
    func reports() {
        var reports = ECNReports()
        reports.marksSent = 100
        verify(reports.receive(nil, newlyAcknowledged: 0) == .none)
        verify(reports.receive(nil, newlyAcknowledged: 1) == .invalid)
        verify(reports.receive(ECNCounts(ect0: 10), newlyAcknowledged: 10) == .valid(congestionExperienced: 0))
        verify(reports.receive(ECNCounts(ect0: 18, ce: 2), newlyAcknowledged: 10) == .valid(congestionExperienced: 2))
        verify(reports.receive(ECNCounts(ect0: 20, ce: 2), newlyAcknowledged: 3) == .invalid, "one was erased")
        verify(reports.receive(ECNCounts(ect0: 20, ect1: 3, ce: 2), newlyAcknowledged: 3) == .invalid, "remarked")
        verify(reports.receive(ECNCounts(ect0: 10, ect1: 3, ce: 2), newlyAcknowledged: 0) == .invalid, "it shrank")
        verify(reports.receive(ECNCounts(ect0: 101, ect1: 3, ce: 2), newlyAcknowledged: 1) == .invalid, "never sent")
    }

    @Test("counts of any size do not overflow")
    func overflow() {
        var reports = ECNReports()
        reports.marksSent = 1
        let most = UInt64.max >> 2
        verify(reports.receive(ECNCounts(ect0: most, ect1: most, ce: most), newlyAcknowledged: 1) == .invalid)
    }
}
