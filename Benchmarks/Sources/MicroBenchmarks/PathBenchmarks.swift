// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Which path a datagram belongs to.
extension Harness {
    mutating func measurePaths() {
        room = "Paths"
        let tuples = (0..<8).map { index in
            FourTuple(
                transport: TransportID(0), local: NetworkAddress(192, 0, 2, 1, port: 4_433),
                remote: NetworkAddress(198, 51, 100, UInt8(index), port: 50_000))
        }
        let unknown = FourTuple(
            transport: TransportID(0), local: tuples[0].local, remote: NetworkAddress(203, 0, 113, 1, port: 50_000))
        measureLookup("path found by 4-tuple, 1 path", paths: tuples[..<1], wanted: [tuples[0]])
        measureLookup("path found by 4-tuple, the active one of 8", paths: tuples[...], wanted: [tuples[0]])
        measureLookup("path found by 4-tuple, each of 8 in turn", paths: tuples[...], wanted: tuples)
        measureLookup("no path for a 4-tuple, of 8", paths: tuples[...], wanted: [unknown])
    }

    private mutating func measureLookup(_ name: String, paths: ArraySlice<FourTuple>, wanted: [FourTuple]) {
        var table = PathTable(
            initialTuple: paths[0], amplification: AmplificationBudget(isLifted: true), congestionControl: .cubic,
            initialRTT: .milliseconds(333), maximumDatagramSize: 1_452, now: .zero)
        for tuple in paths.dropFirst() {
            _ = table.add(
                tuple, amplification: AmplificationBudget(isLifted: false), congestionControl: .cubic,
                maximumDatagramSize: 1_452, now: .zero)
        }
        measure(name, passes: 20_000, of: wanted.count) { passes in
            var sum: UInt64 = 0
            for _ in 0..<passes {
                for tuple in wanted { sum &+= UInt64(table.index(of: tuple) ?? table.count) }
            }
            return sum
        }
    }
}
