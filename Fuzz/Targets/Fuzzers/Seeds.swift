// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

extension Fuzzer {
    /// Inputs that each reach something by themselves, for a corpus to start from.
    var seeds: [[UInt8]] {
        var random = RandomSource.seeded(7)
        switch self {
        case .frames: return Self.frameSeeds(&random)
        case .parameters: return Self.parameterSeeds(&random)
        case .datagrams, .tls, .paths:
            // Steps are bytes: random ones are as good as any.
            return (0..<64).map { index in
                let bytes = random.bytes(4 + Int(random.next() % 120))
                return [UInt8(index & 7)] + bytes.map { random.next() & 1 == 0 ? $0 & 0x1f : $0 }
            } + [[0], [1], [2], [3]]
        }
    }

    private static func parameterSeeds(_ random: inout RandomSource) -> [[UInt8]] {
        var parameters = FuzzSettings.peerParameters
        parameters.maxAckDelay = .milliseconds(11)
        parameters.ackDelayExponent = 10
        parameters.disableActiveMigration = true
        parameters.initialSourceConnectionID = .random(length: 8, using: &random)
        let client = parameters.encoded(for: .client, using: &random)
        parameters.originalDestinationConnectionID = .random(length: 8, using: &random)
        parameters.retrySourceConnectionID = .random(length: 5, using: &random)
        parameters.statelessResetToken = StatelessResetToken(prefixOf: random.bytes(16))
        parameters.preferredAddress = PreferredAddress(
            ipv4: NetworkAddress(192, 0, 2, 9, port: 443),
            ipv6: NetworkAddress(ipv6: 0x2001_0db8_0000_0000, 1, port: 443),
            connectionID: .random(length: 8, using: &random),
            resetToken: StatelessResetToken(prefixOf: random.bytes(16)))
        let server = parameters.encoded(for: .server, using: &random)
        return [[0] + client, [2] + client, [1] + server, [3] + server, [3, 4, 4, 0x80, 1, 0, 0], [2, 0x0f, 0]]
    }

    /// One input of each frame to a client and to a server.
    private static func frameSeeds(_ random: inout RandomSource) -> [[UInt8]] {
        let token = StatelessResetToken(prefixOf: random.bytes(16))
        let id = ConnectionID.random(length: 8, using: &random)
        let frames: [[UInt8]] = [
            [0x01], [0x00, 0x00], ackFrame(0...1), [0x03, 2, 0, 1, 0, 0, 0, 1, 1, 1],
            written {
                $0.writeResetStream(ResetStreamFrame(id: StreamID(rawValue: 0), applicationErrorCode: 1, finalSize: 9))
            },
            written { $0.writeStopSending(StopSendingFrame(id: StreamID(rawValue: 1), applicationErrorCode: 1)) },
            cryptoFrame(offset: 0, [4, 0, 0, 2, 0, 0]), written { $0.writeNewToken([1, 2, 3]) },
            written {
                $0.writeStreamHeader(id: StreamID(rawValue: 0), offset: 0, length: 5, isFinal: false)
                $0.writeBytes([1, 2, 3, 4, 5])
            },
            written {
                $0.writeStreamHeader(id: StreamID(rawValue: 2), offset: 7, length: nil, isFinal: true)
                $0.writeBytes([1, 2, 3, 4, 5])
            },
            written { $0.writeMaxData(1 << 30) }, written { $0.writeMaxStreamData(StreamID(rawValue: 1), 1 << 20) },
            written { $0.writeMaxStreams(.bidirectional, 99) }, written { $0.writeDataBlocked(5) },
            written { $0.writeStreamDataBlocked(StreamID(rawValue: 0), 5) },
            written { $0.writeStreamsBlocked(.unidirectional, 5) },
            written {
                $0.writeNewConnectionID(
                    NewConnectionIDFrame(sequence: 1, retirePriorTo: 1, connectionID: id, resetToken: token))
            },
            written { $0.writeRetireConnectionID(sequence: 1) }, written { $0.writePathChallenge(1) },
            written { $0.writePathResponse(1) },
            written { $0.writeConnectionClose(errorCode: 1, frameType: 6, reason: "bye", maximumReasonLength: 9) },
            written { $0.writeConnectionClose(errorCode: 1, frameType: nil, reason: "bye", maximumReasonLength: 9) },
            [0x1e],
        ]
        var seeds: [[UInt8]] = []
        for role in [UInt8(0), 1] {
            for frame in frames { seeds.append([role, 0, UInt8(frame.count)] + frame + [9, 18]) }
            // All that lets the connection live, among what an application does.
            let calls: [UInt8] = [14, 0, 0, 0, 14, 2, role ^ 1, 99, 14, 1, 0, 0, 10, 1, 9, 20, 14, 4, 0, 99]
            seeds.append(
                [role]
                    + frames.prefix(20).enumerated().filter { ![6, 7].contains($0.offset) }.flatMap { _, frame in
                        [0, UInt8(frame.count)] + frame + calls
                    })
        }
        return seeds
    }
}
