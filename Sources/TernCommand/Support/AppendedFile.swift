// SPDX-License-Identifier: Apache-2.0

import NIOCore

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A file that lines are appended to, by any thread and by other processes too: each append is one system call.
final class AppendedFile: Sendable {
    private let descriptor: CInt

    init?(path: String) {
        descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
    }

    deinit { close(descriptor) }

    /// Appends a line; it may bring its line feed with it.
    func append(line: ByteBuffer) {
        var line = line
        if line.readableBytesView.last != UInt8(ascii: "\n") { line.writeInteger(UInt8(ascii: "\n")) }
        line.withUnsafeReadableBytes { _ = write(descriptor, $0.baseAddress, $0.count) }
    }
}
