// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

@Suite("The client's last flight is lost (RFC 9002, section 6.2)")
struct HandshakeLossTests {
    private static func containsHandshakePacket(_ datagram: [UInt8]) -> Bool {
        let span = datagram.span.bytes
        var offset = 0
        while offset < datagram.count,
            case .long(let header)? = PacketHeader.parse(span, at: offset, shortHeaderConnectionIDLength: 8)
        {
            if header.type == .handshake { return true }
            offset = header.packet.upperBound
        }
        return false
    }

    /// Loses those of the client's datagrams with Handshake packets whose bit is set, the first being bit 0. The client
    /// starts to upload `upload` bytes as soon as it has its keys.
    private static func run(losing lost: Int, upload: Int) throws -> EnginePair {
        let pair = try EnginePair()
        var count = 0
        var failure: (any Error)?
        pair.passes = { [unowned pair] side, datagram in
            guard side == .client, containsHandshakePacket(datagram) else { return true }
            if count == 0, upload > 0 {
                do {
                    try pair.onClient { connection in
                        let id = try connection.openStream(.bidirectional)
                        let bytes = SharedBytes(copying: [UInt8](repeating: 1, count: upload))
                        try connection.write(bytes, to: id, finish: true)
                    }
                } catch { failure = error }
            }
            defer { count += 1 }
            return count >= Int.bitWidth || lost >> count & 1 == 0
        }
        pair.run(for: .seconds(5))
        if let failure { throw failure }
        #expect(count > 0)
        return pair
    }

    @Test("whichever of its first five datagrams, the handshake is confirmed within seconds", arguments: 0..<32)
    func anyOfTheFirst(lost: Int) throws {
        let pair = try Self.run(losing: lost, upload: 0)
        #expect(try pair.onClient { $0.isHandshakeConfirmed })
    }

    @Test("the same while 1-RTT data, which nobody can acknowledge yet, fills the congestion window", arguments: 0..<32)
    func behindAFullWindow(lost: Int) throws {
        let pair = try Self.run(losing: lost, upload: 60_000)
        #expect(try pair.onClient { $0.isHandshakeConfirmed })
    }
}
