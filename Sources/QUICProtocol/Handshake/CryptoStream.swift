// SPDX-License-Identifier: Apache-2.0

/// The CRYPTO stream of one encryption level, both directions (RFC 9000, section 19.6).
///
/// TLS messages are few and small, so bytes are kept in plain arrays, which are empty, and own nothing, as soon as all is
/// read and acknowledged.
struct CryptoStream: ~Copyable {
    /// Bytes that may wait beyond what was read. The RFC asks for 4,096 (RFC 9000, section 7.5); a server's certificates
    /// may take more, and they may come in any order.
    static let maximumBuffered: UInt64 = 64 * 1024
    /// Separate runs that may wait. A sender that fills packets never makes that many out of 64 KB.
    static let maximumFragments = 128

    // Receiving: `received[i]` is the byte at `readOffset + i`, valid where `arrived` says so.
    private var readOffset: UInt64 = 0
    private var received: [UInt8] = []
    private var arrived = CryptoRangeSet()

    // Sending: `outgoing[i]` is the byte at `outgoingStart + i`; all below was acknowledged.
    private var outgoing: [UInt8] = []
    private var outgoingStart: UInt64 = 0
    /// What was sent at least once ends here.
    private var sentEnd: UInt64 = 0
    private var acknowledgedRanges = CryptoRangeSet()
    private var lostRanges = CryptoRangeSet()

    init() {}

    // MARK: Receiving

    /// Takes the data of a CRYPTO frame, which may repeat or overlap others.
    ///
    /// - Throws: CRYPTO_BUFFER_EXCEEDED beyond `maximumBuffered` or `maximumFragments`.
    /// - Complexity: O(*n* + *f*) for *n* bytes and *f* fragments that wait.
    mutating func receive(offset: UInt64, bytes: UnsafeRawBufferPointer) throws(TransportError) {
        let (end, overflow) = offset.addingReportingOverflow(UInt64(bytes.count))
        guard !overflow, end <= readOffset || end - readOffset <= Self.maximumBuffered else {
            throw TransportError(
                .cryptoBufferExceeded, frameType: 0x06, "more than \(Self.maximumBuffered) bytes of CRYPTO data wait")
        }
        let start = max(offset, readOffset)
        guard end > start else { return }
        let new = UnsafeRawBufferPointer(rebasing: bytes[Int(start - offset)...])
        let index = Int(start - readOffset)
        // Both below `maximumBuffered`.
        let neededCount = index + new.count
        if received.count < neededCount {
            received.append(contentsOf: repeatElement(0, count: neededCount - received.count))
        }
        received.withUnsafeMutableBytes { buffer in
            UnsafeMutableRawBufferPointer(rebasing: buffer[index..<neededCount]).copyMemory(from: new)
        }
        arrived.insert(start..<end)
        guard arrived.count <= Self.maximumFragments else {
            throw TransportError(
                .cryptoBufferExceeded, frameType: 0x06, "CRYPTO data came in more than \(Self.maximumFragments) pieces")
        }
    }

    /// The bytes that follow those read before, or nil if the next byte has not come.
    mutating func readContiguous() -> [UInt8]? {
        guard let first = arrived.first, first.lowerBound == readOffset else { return nil }
        let count = Int(first.upperBound - first.lowerBound)
        readOffset = first.upperBound
        arrived.removeFirst()
        if count == received.count {
            defer { received = [] }
            return received
        }
        let result = [UInt8](received[..<count])
        received.removeFirst(count)
        return result
    }

    // MARK: Sending

    mutating func enqueue(_ bytes: [UInt8]) {
        if outgoing.isEmpty { outgoing = bytes } else { outgoing += bytes }
    }

    private var outgoingEnd: UInt64 { outgoingStart + UInt64(outgoing.count) }

    /// Something was never sent, or was lost.
    var hasPendingData: Bool { sentEnd < outgoingEnd || !lostRanges.isEmpty }

    /// Something was enqueued that the peer has not acknowledged, sent or not.
    var hasUnacknowledgedData: Bool { !outgoing.isEmpty }

    /// Writes one CRYPTO frame of what is pending, lost data first, as long as fits below the writer's limit.
    ///
    /// - Returns: nil, having written nothing, if nothing is pending or not a single byte fits.
    mutating func writeFrame(into writer: inout PacketWriter) -> SentFrame? {
        let range: Range<UInt64>
        if let lost = lostRanges.first {
            range = lost
        } else if sentEnd < outgoingEnd {
            range = sentEnd..<outgoingEnd
        } else {
            return nil
        }
        let available = Int(range.upperBound - range.lowerBound)
        let room = writer.remaining - 1 - Varint.encodedSize(range.lowerBound)
        let length = Self.lengthThatFits(available: available, room: room)
        guard length > 0 else { return nil }
        writer.writeUInt8(0x06)
        writer.writeVarint(range.lowerBound)
        writer.writeVarint(UInt64(length))
        let index = Int(range.lowerBound - outgoingStart)
        outgoing.withUnsafeBytes { bytes in
            writer.writeBytes(UnsafeRawBufferPointer(rebasing: bytes[index..<index + length]))
        }
        let end = range.lowerBound + UInt64(length)
        lostRanges.remove(range.lowerBound..<end)
        sentEnd = max(sentEnd, end)
        return .crypto(offset: range.lowerBound, length: UInt32(length))
    }

    /// The most data that fits into `room` bytes together with its length.
    private static func lengthThatFits(available: Int, room: Int) -> Int {
        // The length takes one byte up to 63, and two up to 16,383.
        max(min(available, room - 1, 63), min(available, room - 2, 16_383), min(available, room - 4, 1 << 30 - 1))
    }

    /// The peer has these bytes.
    mutating func acknowledged(offset: UInt64, length: UInt32) {
        let start = max(offset, outgoingStart)
        let end = min(offset.saturatingAdd(UInt64(length)), sentEnd)
        guard start < end else { return }
        lostRanges.remove(start..<end)
        acknowledgedRanges.insert(start..<end)
        guard let first = acknowledgedRanges.first, first.lowerBound == outgoingStart else { return }
        acknowledgedRanges.removeFirst()
        let count = Int(first.upperBound - outgoingStart)
        outgoingStart = first.upperBound
        if count == outgoing.count { outgoing = [] } else { outgoing.removeFirst(count) }
    }

    /// These bytes are to be sent again, unless they were acknowledged in another frame.
    mutating func lost(offset: UInt64, length: UInt32) {
        let start = max(offset, outgoingStart)
        let end = min(offset.saturatingAdd(UInt64(length)), sentEnd)
        guard start < end else { return }
        lostRanges.insert(start..<end)
        for range in acknowledgedRanges.ranges { lostRanges.remove(range) }
    }

    /// Everything sent and not acknowledged is to be sent again: for a probe, or after a Retry.
    mutating func retransmitAllUnacknowledged() {
        guard outgoingStart < sentEnd else { return }
        lostRanges.insert(outgoingStart..<sentEnd)
        for range in acknowledgedRanges.ranges { lostRanges.remove(range) }
    }
}

/// Disjoint ranges of stream offsets in ascending order, none of them empty and no two touching.
struct CryptoRangeSet {
    private(set) var ranges: [Range<UInt64>] = []

    var isEmpty: Bool { ranges.isEmpty }
    var count: Int { ranges.count }
    var first: Range<UInt64>? { ranges.first }

    mutating func removeFirst() {
        if ranges.count == 1 { ranges = [] } else { ranges.removeFirst() }
    }

    /// The ranges that overlap or touch the given one.
    private func neighbours(of range: Range<UInt64>) -> Range<Int> {
        let start = ranges.firstIndex { $0.upperBound >= range.lowerBound } ?? ranges.count
        let end = ranges[start...].firstIndex { $0.lowerBound > range.upperBound } ?? ranges.count
        return start..<end
    }

    mutating func insert(_ range: Range<UInt64>) {
        guard !range.isEmpty else { return }
        let affected = neighbours(of: range)
        var merged = range
        if let first = ranges[affected].first, let last = ranges[affected].last {
            merged = min(first.lowerBound, range.lowerBound)..<max(last.upperBound, range.upperBound)
        }
        ranges.replaceSubrange(affected, with: CollectionOfOne(merged))
    }

    mutating func remove(_ range: Range<UInt64>) {
        guard !range.isEmpty, !ranges.isEmpty else { return }
        let affected = neighbours(of: range)
        var rest: [Range<UInt64>] = []
        for old in ranges[affected] {
            if old.lowerBound < range.lowerBound { rest.append(old.lowerBound..<min(old.upperBound, range.lowerBound)) }
            if old.upperBound > range.upperBound { rest.append(max(old.lowerBound, range.upperBound)..<old.upperBound) }
        }
        ranges.replaceSubrange(affected, with: rest)
    }
}

extension UInt64 {
    fileprivate func saturatingAdd(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
