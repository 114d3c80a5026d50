// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// HMAC, by which an endpoint finds again what it gave out without keeping it: stateless reset tokens
/// (RFC 9000, section 10.3.2) and the like.
enum KeyedHash {
    /// 32 bytes.
    static func hmacSHA256(key: [UInt8], _ data: [UInt8]) -> [UInt8] {
        var result = [UInt8](repeating: 0, count: 32)
        // It fails only without memory, and a known result would be as good as the key.
        guard tern_hmac_sha256(key, key.count, data, data.count, &result) == 1 else {
            preconditionFailure("HMAC-SHA256 is not available")
        }
        return result
    }
}

/// SHA-256 over bytes that come in parts, such as a file received over a stream.
///
/// A value of 128 bytes: a copy goes on from the same point.
public struct SHA256Digest: Sendable {
    private var state = tern_sha256()

    public init() {
        tern_sha256_start(&state)
    }

    /// Goes on with more bytes.
    public mutating func update(_ bytes: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        tern_sha256_update(&state, base.assumingMemoryBound(to: UInt8.self), bytes.count)
    }

    /// The digest of all bytes so far, of 32 bytes. More may follow.
    public func finalize() -> [UInt8] {
        var copy = state
        var result = [UInt8](repeating: 0, count: 32)
        tern_sha256_finish(&copy, &result)
        return result
    }
}
