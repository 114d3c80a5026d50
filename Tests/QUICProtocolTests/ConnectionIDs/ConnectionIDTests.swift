// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import QUICProtocol

private func token(_ byte: UInt8) -> StatelessResetToken {
    StatelessResetToken(prefixOf: [UInt8](repeating: byte, count: 16))
}
private func id(_ byte: UInt8) -> ConnectionID { ConnectionID([byte, byte, byte, byte]) ?? .empty }

private func frame(_ sequence: UInt64, retirePriorTo: UInt64 = 0, byte: UInt8? = nil) -> NewConnectionIDFrame {
    let byte = byte ?? UInt8(truncatingIfNeeded: sequence)
    return NewConnectionIDFrame(
        sequence: sequence, retirePriorTo: retirePriorTo, connectionID: id(byte), resetToken: token(byte))
}

@Suite("The peer's connection IDs")
struct RemoteConnectionIDTests {
    private func make(limit: Int = 8) -> RemoteConnectionIDs {
        RemoteConnectionIDs(limit: limit, initialID: id(0), path: PathID(0))
    }

    @Test("an ID is used on one path only, and retired when the path closes (M5, M17)")
    func oneEach() throws {
        var ids = make()
        _ = try ids.receive(frame(1))
        _ = try ids.receive(frame(2))
        #expect(ids.take(for: PathID(1)) == id(1))
        #expect(ids.take(for: PathID(1)) == id(1))
        #expect(ids.take(for: PathID(2)) == id(2))
        #expect(ids.take(for: PathID(3)) == nil)
        try ids.release(PathID(1))
        #expect(ids.pendingRetirements == [1])
        #expect(ids.take(for: PathID(3)) == nil)
        _ = try ids.receive(frame(3))
        #expect(ids.take(for: PathID(3)) == id(3))
    }

    @Test("a repeated NEW_CONNECTION_ID changes nothing, even after its ID was retired (M40)")
    func idempotent() throws {
        var ids = make()
        _ = try ids.receive(frame(1))
        _ = try ids.receive(frame(1))
        #expect(ids.entries.count == 2)
        _ = ids.take(for: PathID(1))
        try ids.release(PathID(1))
        _ = try ids.receive(frame(1))
        #expect(ids.entries.count == 1)
        #expect(ids.pendingRetirements == [1])
    }

    @Test("one sequence number for two IDs, or one ID under two, is a PROTOCOL_VIOLATION")
    func contradictions() throws {
        var ids = make()
        _ = try ids.receive(frame(1))
        #expect(throws: TransportError.self) { _ = try ids.receive(frame(1, byte: 9)) }
        #expect(throws: TransportError.self) { _ = try ids.receive(frame(2, byte: 1)) }
    }

    @Test("more IDs than our limit are a CONNECTION_ID_LIMIT_ERROR")
    func limit() throws {
        var ids = make(limit: 3)
        _ = try ids.receive(frame(1))
        _ = try ids.receive(frame(2))
        do {
            _ = try ids.receive(frame(3))
            Issue.record("a fourth ID was taken")
        } catch {
            #expect(error.code == .connectionIDLimitError)
        }
    }

    @Test("retire_prior_to makes room at once, and names the paths that need another ID")
    func retirePriorTo() throws {
        var ids = make(limit: 2)
        _ = try ids.receive(frame(1))
        let bereft = try ids.receive(frame(2, retirePriorTo: 2))
        #expect(bereft == [PathID(0)])
        #expect(ids.pendingRetirements == [0, 1])
        #expect(ids.take(for: PathID(0)) == id(2))
        // What comes late and is already revoked is retired without ever being used.
        _ = try ids.receive(frame(3, retirePriorTo: 2))
        #expect(ids.entries.count == 2)
    }

    @Test("a storm of revocations that are never acknowledged ends the connection (M40)")
    func storm() {
        var ids = make()
        var failure: TransportErrorCode?
        for sequence in 1...200 as ClosedRange<UInt64> {
            do { _ = try ids.receive(frame(sequence, retirePriorTo: sequence)) } catch {
                failure = error.code
                break
            }
        }
        #expect(failure == .connectionIDLimitError)
        #expect(ids.pendingRetirements.count <= RemoteConnectionIDs.maximumUnacknowledgedRetirements)
    }

    @Test("sequence numbers may not leave gaps without end (M40)")
    func gaps() {
        var ids = make()
        var failure: TransportErrorCode?
        for sequence in stride(from: 2 as UInt64, to: 400, by: 2) {
            do {
                _ = try ids.receive(frame(sequence, retirePriorTo: sequence))
                for retired in ids.pendingRetirements { ids.retirementAcknowledged(retired) }
                while !ids.pendingRetirements.isEmpty { ids.retirementSent() }
            } catch {
                failure = error.code
                break
            }
        }
        #expect(failure == .connectionIDLimitError)
    }

    @Test("NEW_CONNECTION_ID is refused from a peer with zero-length IDs")
    func empty() {
        var ids = RemoteConnectionIDs(limit: 8, initialID: .empty, path: PathID(0))
        #expect(throws: TransportError.self) { _ = try ids.receive(frame(1)) }
        #expect(ids.take(for: PathID(5)) == .empty)
    }
}

@Suite("Our connection IDs")
struct LocalConnectionIDTests {
    @Test("as many are issued as the peer's limit and ours allow, and refilled as they are retired (M6)")
    func refill() throws {
        var ids = LocalConnectionIDs(handshakeID: id(0), resetToken: token(0))
        ids.setPeerLimit(100)
        #expect(ids.deficit == LocalConnectionIDs.maximumActive - 1)
        var byte: UInt8 = 1
        while ids.deficit > 0 {
            ids.issue(id(byte), resetToken: token(byte))
            byte += 1
        }
        #expect(ids.pendingAnnouncements == [1, 2, 3, 4, 5, 6, 7])
        _ = try ids.retire(sequence: 0, usedByPacket: id(1), now: .zero, lingerUntil: .zero + .seconds(1))
        #expect(ids.deficit == 1)
        #expect(ids.sequence(of: id(0)) == 0)
    }

    @Test("retiring what was never issued, or the ID of the packet itself, is a PROTOCOL_VIOLATION")
    func violations() {
        var ids = LocalConnectionIDs(handshakeID: id(0), resetToken: token(0))
        #expect(throws: TransportError.self) {
            _ = try ids.retire(sequence: 1, usedByPacket: id(7), now: .zero, lingerUntil: .zero)
        }
        #expect(throws: TransportError.self) {
            _ = try ids.retire(sequence: 0, usedByPacket: id(0), now: .zero, lingerUntil: .zero)
        }
    }

    @Test("retired IDs stay routed for a while, and no more of them than a bound")
    func lingering() throws {
        var ids = LocalConnectionIDs(handshakeID: id(0), resetToken: token(0))
        ids.setPeerLimit(8)
        var removed: [ConnectionID] = []
        for number in 1...100 {
            ids.issue(ConnectionID([1, UInt8(number), 0, 0]) ?? .empty, resetToken: token(1))
            removed += try ids.retire(
                sequence: UInt64(number - 1), usedByPacket: .empty, now: .zero, lingerUntil: .zero + .seconds(1))
        }
        #expect(ids.allRouted.count == 1 + LocalConnectionIDs.maximumLingering)
        #expect(removed.count == 100 - LocalConnectionIDs.maximumLingering)
    }
}

@Suite("Sets of sequence numbers")
struct SequenceSetTests {
    @Test("agrees with a plain set as long as its ranges suffice")
    func model() {
        var random = RandomSource.seeded(7)
        for _ in 0..<50 {
            var set = SequenceSet()
            var model: Set<UInt64> = []
            for _ in 0..<60 {
                let number = random.next() % 48
                if set.insert(number) { model.insert(number) }
                for probe in 0..<48 as Range<UInt64> { #expect(set.contains(probe) == model.contains(probe)) }
            }
        }
    }
}
