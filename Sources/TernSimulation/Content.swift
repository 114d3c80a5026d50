// SPDX-License-Identifier: Apache-2.0

/// Bytes that a receiver can check without having them: each eight are a hash of their offset and of a key. A byte that
/// is missing, doubled, moved or of another stream differs.
enum Content {
    @inline(__always)
    private static func word(key: UInt64, index: UInt64) -> UInt64 {
        var z = (index ^ key) &* 0x9e37_79b9_7f4a_7c15
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        return (z ^ (z >> 27)).littleEndian
    }

    /// Writes the bytes from `offset` on.
    static func fill(_ buffer: UnsafeMutableRawBufferPointer, key: UInt64, offset: Int) {
        var position = 0
        while position < buffer.count {
            let index = UInt64(offset + position)
            let within = Int(index & 7)
            var word = word(key: key, index: index >> 3)
            if within == 0, buffer.count - position >= 8 {
                buffer.storeBytes(of: word, toByteOffset: position, as: UInt64.self)
                position += 8
            } else {
                let count = min(8 - within, buffer.count - position)
                withUnsafeBytes(of: &word) { bytes in
                    for index in 0..<count { buffer[position + index] = bytes[within + index] }
                }
                position += count
            }
        }
    }

    /// The place of the first byte that is not the one at its offset, or nil if all are right.
    static func firstDifference(in buffer: UnsafeRawBufferPointer, key: UInt64, offset: Int) -> Int? {
        var position = 0
        while position < buffer.count {
            let index = UInt64(offset + position)
            let within = Int(index & 7)
            var word = word(key: key, index: index >> 3)
            if within == 0, buffer.count - position >= 8 {
                if buffer.loadUnaligned(fromByteOffset: position, as: UInt64.self) == word {
                    position += 8
                    continue
                }
            }
            let count = min(8 - within, buffer.count - position)
            let difference = withUnsafeBytes(of: &word) { bytes in
                (0..<count).first { buffer[position + $0] != bytes[within + $0] }
            }
            if let difference { return position + difference }
            position += count
        }
        return nil
    }
}
