// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Connection-ID and path frames in any order, from any address, among the application's verbs.
enum PathFuzzer {
    static func run(_ input: FuzzInput) throws(FuzzFailure) {
        var input = input
        let kind = input.byte()
        var parameters = FuzzSettings.peerParameters
        parameters.activeConnectionIDLimit = kind & 2 == 0 ? 8 : 2
        parameters.disableActiveMigration = kind & 4 != 0
        let subject = try Subject(role: kind & 1 == 0 ? .server : .client, parameters: parameters)
        var peer = Peer()
        var steps = 0
        while !input.isEmpty, subject.connection.state != .closed, steps < 256 {
            steps += 1
            let step = input.byte()
            switch step & 0x0f {
            case 0...6: try peer.send(to: subject, &input)
            case 7: try peer.repeatLast(to: subject, &input)
            case 8: try subject.pass(.microseconds(Int64(1) << Int64(input.choice(below: 25))))
            case 9: try peer.acknowledge(to: subject, all: input.flag())
            case 10: subject.isDeaf.toggle()
            case 11: try write(subject, &input)
            default: try verb(subject, &input)
            }
        }
        subject.isDeaf = false
        try subject.pass(.seconds(1))
    }

    private static func write(_ subject: Subject, _ input: inout FuzzInput) throws(FuzzFailure) {
        let size = Int(input.byte()) * 256
        try subject.apply { connection in
            guard let id = try? connection.openStream(.bidirectional) else { return }
            try? connection.write(SharedBytes(copying: [UInt8](repeating: 3, count: size)), to: id, finish: true)
        }
    }

    /// What an application, or its sockets, may do to paths.
    private static func verb(_ subject: Subject, _ input: inout FuzzInput) throws(FuzzFailure) {
        let choice = input.byte()
        let argument = input.byte()
        let id = PathID(UInt32(argument & 0x0f))
        let now = subject.now
        try subject.apply { connection in
            switch choice % 10 {
            case 0, 1: _ = try? connection.addPath(over: Subject.tuple(argument))
            case 2, 3: try? connection.probe(id, timeout: .milliseconds(Int64(argument) * 8), now: now)
            case 4: try? connection.switchPath(to: id, withoutValidation: argument & 0x80 != 0, now: now)
            case 5: try? connection.closePath(id, now: now)
            case 6:
                connection.sendFailed(
                    on: id, errno: argument & 0x80 != 0 ? 90 : 101, segmentSize: argument & 0x40 != 0 ? 1_452 : 1_200,
                    now: now)
            case 7: connection.sendSucceeded(on: id)
            case 8: connection.cancelProbe(id)
            default: connection.transportLost(TransportID(UInt32(argument & 1)), now: now)
            }
        }
    }
}

/// What the peer does in the path fuzzer.
private struct Peer {
    private var nextSequence: UInt64 = 1
    private var last: [UInt8] = []

    /// One packet of a few frames, to one of our IDs, from anywhere.
    mutating func send(to subject: Subject, _ input: inout FuzzInput) throws(FuzzFailure) {
        let tuple = subject.role == .client && input.flag() ? Subject.mainTuple : Subject.tuple(input.byte())
        let kind = input.byte()
        var options = Forge.Options()
        let ids = subject.connection.localIDs.allRouted
        if kind & 0x0f != 0, !ids.isEmpty { options.destination = ids[Int(kind & 0x0f) % ids.count] }
        if kind & 0x10 != 0 { options.padTo = 1_200 }
        if kind & 0x20 != 0 { options.skip = UInt64(input.byte()) }
        if kind & 0x40 != 0 {
            // An older number, seen before or not.
            let next = subject.forge.nextNumber[2]
            options.number = next > 0 ? next - 1 - UInt64(input.byte()) % next : 0
        }
        var frames: [UInt8] = []
        let count = 1 + input.choice(below: 6)
        for _ in 0..<count { frames += frame(subject, &input) }
        guard var datagram = subject.forge.seal(frames, at: .oneRTT, options: options) else { return }
        if kind & 0x80 != 0 {
            datagram[datagram.count - 1] ^= 1
        } else {
            subject.noteResponses(in: frames)
            last = datagram
        }
        try subject.receive(datagram: datagram, from: tuple)
    }

    /// The last datagram once more, from anywhere.
    mutating func repeatLast(to subject: Subject, _ input: inout FuzzInput) throws(FuzzFailure) {
        guard !last.isEmpty else { return }
        let first = input.byte()
        for offset in 0..<1 + input.byte() % 24 {
            try subject.receive(datagram: last, from: Subject.tuple(first &+ offset))
        }
    }

    mutating func acknowledge(to subject: Subject, all: Bool) throws(FuzzFailure) {
        let numbers = subject.takeUnacknowledged()
        guard let first = numbers.first, let last = numbers.last else { return }
        try subject.receive(ackFrame((all ? first : last)...last))
    }

    private mutating func frame(_ subject: Subject, _ input: inout FuzzInput) -> [UInt8] {
        switch input.byte() & 0x0f {
        case 0: return [0x01]
        case 1: return [UInt8](repeating: 0, count: Int(input.byte()))
        case 2, 3, 4: return newConnectionID(&input)
        case 5, 6:
            let sequence = input.number()
            return written { $0.writeRetireConnectionID(sequence: sequence) }
        case 7, 8:
            let data = UInt64(input.byte())
            return written { $0.writePathChallenge(data) }
        case 9, 10, 11:
            let known = subject.challenges
            let index = Int(input.byte())
            let data = known.isEmpty || index == 255 ? 0xbad : known[known.count - 1 - index % known.count].data
            return written { $0.writePathResponse(data) }
        case 12:
            let id = StreamID(rawValue: UInt64(input.byte() & 0x0f))
            return written {
                $0.writeStreamHeader(id: id, offset: 0, length: 4, isFinal: false)
                $0.writeBytes([1, 2, 3, 4])
            }
        case 13:
            let numbers = subject.takeUnacknowledged()
            guard let first = numbers.first, let last = numbers.last else { return [0x01] }
            return ackFrame(first...last)
        default: return input.take(Int(input.byte() & 0x1f))
        }
    }

    /// Mostly the next sequence number with an ID of its own, now and then anything.
    private mutating func newConnectionID(_ input: inout FuzzInput) -> [UInt8] {
        let kind = input.byte()
        let sequence = kind & 0x80 == 0 ? nextSequence : input.number()
        if kind & 0x80 == 0 { nextSequence += 1 }
        let retirePriorTo = kind & 0x40 == 0 ? UInt64(kind & 0x07) : min(sequence, input.number())
        let byte = kind & 0x20 == 0 ? UInt8(truncatingIfNeeded: sequence) : input.byte()
        guard let id = ConnectionID([UInt8](repeating: byte, count: 8)) else { return [] }
        return written {
            $0.writeNewConnectionID(
                NewConnectionIDFrame(
                    sequence: sequence, retirePriorTo: min(retirePriorTo, sequence), connectionID: id,
                    resetToken: StatelessResetToken(prefixOf: [UInt8](repeating: byte, count: 16))))
        }
    }
}
