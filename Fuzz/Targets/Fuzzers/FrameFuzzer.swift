// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Frames into an established connection: the first byte is the role, then come steps.
enum FrameFuzzer {
    static func run(_ input: FuzzInput) throws(FuzzFailure) {
        var input = input
        let subject = try Subject(role: input.flag() ? .client : .server)
        var steps = 0
        while !input.isEmpty, subject.connection.state != .closed, steps < 256 {
            steps += 1
            switch input.byte() & 0x0f {
            case 0...7:
                try subject.receive(input.run())
            case 8:
                try subject.receive(input.run(scale: 5))
            case 9:
                try subject.pass(.microseconds(Int64(1) << Int64(input.choice(below: 26))))
            case 10:
                // An honest acknowledgement of all, or of the last only.
                let numbers = subject.takeUnacknowledged()
                guard let first = numbers.first, let last = numbers.last else { continue }
                try subject.receive(ackFrame((input.flag() ? first : last)...last))
            case 11:
                try subject.receive(input.run(), options: Forge.Options(skip: input.number() % 100_000))
            case 12:
                let ecn: ECNCodepoint = [.ect0, .ect1, .ce][input.choice(below: 3)]
                guard let datagram = subject.forge.seal(input.run(), at: .oneRTT) else { continue }
                try subject.receive(datagram: datagram, from: Subject.mainTuple, ecn: ecn)
            case 13:
                subject.isDeaf.toggle()
            default:
                try application(subject, &input)
            }
        }
        try subject.pass(.seconds(1))
    }

    /// Something that the application does.
    private static func application(_ subject: Subject, _ input: inout FuzzInput) throws(FuzzFailure) {
        let choice = input.byte()
        let id = StreamID(rawValue: UInt64(input.byte() & 0x1f))
        let size = Int(input.byte()) * 64
        var buffer = [UInt8](repeating: 0, count: size)
        let now = subject.now
        try subject.apply { connection in
            switch choice % 8 {
            case 0: _ = try? connection.openStream(.bidirectional)
            case 1: _ = try? connection.openStream(.unidirectional)
            case 2, 3:
                let bytes = SharedBytes(copying: [UInt8](repeating: 7, count: size))
                try? connection.write(bytes, to: id, finish: choice & 8 != 0)
            case 4, 5:
                _ = buffer.withUnsafeMutableBytes { bytes in try? connection.read(id, into: bytes) }
            case 6: try? connection.reset(id, code: UInt64(size))
            default:
                switch choice >> 3 & 3 {
                case 0: connection.initiateKeyUpdate()
                case 1: connection.close(applicationErrorCode: 7, reason: "done", now: now)
                default: try? connection.stopSending(id, code: UInt64(size))
                }
            }
        }
    }
}
