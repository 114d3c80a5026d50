// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

/// RFC 9001, section 6.
struct KeyUpdateTests {
    /// A pair in which both sides have acknowledged packet 0 of the other.
    private func pair(suite: CipherSuite = .aes128GCM) throws -> ProtectedPair {
        var pair = try ProtectedPair(suite: suite)
        #expect(try pair.server.accepts(pair.client.ping(0)))
        #expect(try pair.client.accepts(pair.server.ping(0)))
        pair.client.acknowledged(0)
        pair.server.acknowledged(0)
        return pair
    }

    @Test("an update needs a confirmed handshake and an acknowledgement in the current phase (6.1)")
    func preconditions() throws {
        var pair = try ProtectedPair(confirmed: false)
        _ = try pair.client.ping(0)
        pair.client.acknowledged(0)
        verify(!pair.client.initiateKeyUpdate())
        pair.client.handshakeConfirmed()
        verify(pair.client.initiateKeyUpdate())
        verify(pair.client.writeKeyPhase)

        var other = try ProtectedPair()
        verify(!other.client.initiateKeyUpdate(), "nothing was sent")
        _ = try other.client.ping(3)
        verify(!other.client.initiateKeyUpdate(), "nothing was acknowledged")
        other.client.acknowledged(2)
        verify(!other.client.initiateKeyUpdate(), "packet 2 is none of this phase")
        other.client.acknowledged(3)
        verify(other.client.initiateKeyUpdate())
    }

    @Test(
        "either side may update, again and again, and the other follows at once (6.2)", arguments: CipherSuite.allCases)
    func updates(suite: CipherSuite) throws {
        var pair = try pair(suite: suite)
        var now = Instant.zero
        var number: PacketNumber = 0
        for round in 0..<6 {
            number += 1
            let phase = pair.client.writeKeyPhase
            if round % 2 == 0 {
                verify(pair.client.initiateKeyUpdate())
                verify(!pair.client.initiateKeyUpdate(), "the peer has not followed")
                let packet = try pair.client.ping(number)
                verify(pair.server.writeKeyPhase == phase)
                #expect(try pair.server.accepts(packet, now: now))
                verify(pair.server.writeKeyPhase != phase)
                #expect(try pair.client.accepts(pair.server.ping(number), now: now))
            } else {
                verify(pair.server.initiateKeyUpdate())
                #expect(try pair.client.accepts(pair.server.ping(number), now: now))
                verify(pair.client.writeKeyPhase != phase)
                #expect(try pair.server.accepts(pair.client.ping(number), now: now))
            }
            pair.client.acknowledged(number)
            pair.server.acknowledged(number)
            verify(!pair.client.initiateKeyUpdate(), "the old keys are still kept (6.5)")
            now += .seconds(3)
            verify(pair.client.keyExpiry == now)
            pair.client.expireOldKeys(now: now)
            pair.server.expireOldKeys(now: now)
            verify(pair.client.keyExpiry == nil)
        }
        verify(pair.server.authenticationFailures == 0)
    }

    @Test(
        "after a silence, packets of either phase are opened with keys made anew, and a forged phase changes nothing (9.5)"
    )
    func silence() throws {
        var pair = try pair()
        pair.server.releaseIdleMemory()
        #expect(try pair.server.accepts(pair.client.ping(1)), "the current phase")
        pair.server.releaseIdleMemory()
        verify(pair.client.initiateKeyUpdate())
        var forged = try pair.client.ping(2)
        forged[forged.count - 1] ^= 1
        #expect(try !pair.server.accepts(forged))
        verify(!pair.server.writeKeyPhase)
        pair.server.releaseIdleMemory()
        #expect(try pair.server.accepts(pair.client.ping(3)), "the next phase")
        verify(pair.server.writeKeyPhase)
        pair.server.releaseIdleMemory()
        #expect(try pair.client.accepts(pair.server.ping(1)))
        pair.server.acknowledged(1)
        pair.server.expireOldKeys(now: .zero + .seconds(60))
        pair.client.expireOldKeys(now: .zero + .seconds(60))
        pair.server.releaseIdleMemory()
        pair.client.releaseIdleMemory()
        verify(pair.server.initiateKeyUpdate(), "an update needs no key of the generation before it")
        #expect(try pair.client.accepts(pair.server.ping(2)))
        #expect(try pair.server.accepts(pair.client.ping(4)))
    }

    @Test("both sides may update at the same time")
    func simultaneous() throws {
        var pair = try pair()
        verify(pair.client.initiateKeyUpdate())
        verify(pair.server.initiateKeyUpdate())
        let up = try pair.client.ping(1)
        let down = try pair.server.ping(1)
        #expect(try pair.server.accepts(up))
        #expect(try pair.client.accepts(down))
        verify(pair.client.writeKeyPhase && pair.server.writeKeyPhase)
        #expect(try pair.server.accepts(pair.client.ping(2)))
    }

    @Test("packets of the old phase that come late are opened until the old keys expire (6.5)")
    func reordering() throws {
        var pair = try pair()
        let late = try (1...3).map { try pair.client.ping($0) }
        verify(pair.client.initiateKeyUpdate())
        #expect(try pair.server.accepts(pair.client.ping(5)))
        #expect(try pair.server.accepts(late[1]))
        #expect(try pair.server.accepts(late[0]))
        verify(pair.server.keyExpiry == Instant(nanoseconds: 3_000_000_000))
        verify(pair.server.writeKeyPhase)
        // A packet of the new phase that was overtaken by the first.
        var number4 = try ProtectedPair()
        _ = try number4.client.ping(0)
        number4.client.acknowledged(0)
        verify(number4.client.initiateKeyUpdate())
        #expect(try pair.server.accepts(number4.client.ping(4)))
        pair.server.expireOldKeys(now: Instant(nanoseconds: 2_999_999_999))
        verify(pair.server.keyExpiry != nil)
        pair.server.expireOldKeys(now: Instant(nanoseconds: 3_000_000_000))
        #expect(try !pair.server.accepts(late[2]))
        #expect(try pair.server.accepts(pair.client.ping(6)))
    }

    @Test("until the peer follows our update, its packets of the old phase are opened")
    func peerStillInOldPhase() throws {
        var pair = try pair()
        let before = try pair.server.ping(1)
        verify(pair.client.initiateKeyUpdate())
        let update = try pair.client.ping(1)
        #expect(try pair.client.accepts(before))
        #expect(try pair.client.accepts(pair.server.ping(2)))
        #expect(try pair.server.accepts(update))
        #expect(try pair.client.accepts(pair.server.ping(3)))
    }

    @Test("forged key phase bits change nothing, however many they are")
    func forgedPhase() throws {
        var pair = try pair()
        for number in 1...50 {
            var forged = try pair.client.ping(PacketNumber(number))
            // Header protection is an exclusive or, so that this flips the bit underneath.
            forged[0] ^= 0x04
            #expect(try !pair.server.accepts(forged))
            verify(!pair.server.writeKeyPhase)
            verify(pair.server.keyExpiry == nil)
        }
        verify(pair.server.authenticationFailures == 50)
        #expect(try pair.server.accepts(pair.client.ping(60)))
        verify(pair.client.initiateKeyUpdate())
        #expect(try pair.server.accepts(pair.client.ping(61)))
        var forged = try pair.client.ping(62)
        forged[0] ^= 0x04
        #expect(try !pair.server.accepts(forged))
        #expect(try pair.server.accepts(pair.client.ping(63)))
        verify(pair.server.writeKeyPhase)
    }

    @Test("a second update before we sent anything in the first is KEY_UPDATE_ERROR (6.2)")
    func updateTwice() throws {
        var pair = try pair()
        verify(pair.client.initiateKeyUpdate())
        #expect(try pair.server.accepts(pair.client.ping(1)))
        // The server has sent nothing in this phase. A client that goes on regardless has the same keys as one whose
        // server has answered.
        var other = try self.pair()
        verify(other.client.initiateKeyUpdate())
        #expect(try other.server.accepts(other.client.ping(1)))
        #expect(try other.client.accepts(other.server.ping(1)))
        other.client.acknowledged(1)
        other.client.expireOldKeys(now: .distantFuture)
        verify(other.client.initiateKeyUpdate())
        let packet = try other.client.ping(2)
        let error = #expect(throws: TransportError.self) { _ = try pair.server.accepts(packet) }
        #expect(error?.code == .keyUpdateError)
    }

    @Test("new keys on a lower packet number than the old keys had is KEY_UPDATE_ERROR (6.4)")
    func newKeysOnOldNumber() throws {
        var pair = try pair()
        #expect(try pair.server.accepts(pair.client.ping(10)))
        verify(pair.client.initiateKeyUpdate())
        let packet = try pair.client.ping(9)
        let error = #expect(throws: TransportError.self) { _ = try pair.server.accepts(packet) }
        #expect(error?.code == .keyUpdateError)
    }

    @Test("new keys on a packet number between those of the old keys is KEY_UPDATE_ERROR after the update too (6.4)")
    func newKeysBelowOldNumbers() throws {
        var pair = try pair()
        let late = try pair.client.ping(8)
        verify(pair.client.initiateKeyUpdate())
        let low = try pair.client.ping(7)
        #expect(try pair.server.accepts(pair.client.ping(12)))
        #expect(try pair.server.accepts(late))
        let error = #expect(throws: TransportError.self) { _ = try pair.server.accepts(low) }
        #expect(error?.code == .keyUpdateError)
    }

    @Test("an update is asked for at half of the confidentiality limit, and at the interval if one is set")
    func wanted() throws {
        var pair = try pair()
        pair.client.confidentialityLimit = 20
        for number in 1..<9 { _ = try pair.client.ping(PacketNumber(number)) }
        verify(!pair.client.shouldUpdateKeys)
        _ = try pair.client.ping(9)
        verify(pair.client.shouldUpdateKeys)
        verify(pair.client.initiateKeyUpdate())
        verify(!pair.client.shouldUpdateKeys)

        pair.server.keyUpdateInterval = 3
        verify(!pair.server.shouldUpdateKeys)
        _ = try pair.server.ping(1)
        _ = try pair.server.ping(2)
        verify(pair.server.shouldUpdateKeys)
    }

    @Test("an update makes room under the confidentiality limit again")
    func limitAfterUpdate() throws {
        var pair = try pair()
        pair.client.confidentialityLimit = 4
        for number in 1..<4 { _ = try pair.client.ping(PacketNumber(number)) }
        #expect(throws: TransportError.self) { _ = try pair.client.ping(4) }
        verify(pair.client.initiateKeyUpdate())
        for number in 5..<9 { #expect(try pair.server.accepts(pair.client.ping(PacketNumber(number)))) }
        #expect(throws: TransportError.self) { _ = try pair.client.ping(9) }
    }
}
