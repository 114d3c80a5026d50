// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// A regular file opened for reading, from its start to its end.
///
/// Reads block; from the page cache that takes microseconds, which is why no thread pool stands in between.
final class FileReader {
    private let descriptor: CInt
    private let path: String
    /// Bytes in the file when it was opened.
    let size: Int

    init(path: String) throws {
        self.path = path
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw CommandError("cannot read \(path): \(errorText(errno))") }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw CommandError("cannot read \(path): not a regular file")
        }
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// The next bytes, `maximum` at most; nil at the end.
    func read(upTo maximum: Int) throws -> ByteBuffer? {
        var buffer = ByteBufferAllocator().buffer(capacity: maximum)
        let count = try buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: maximum) { bytes in
            while true {
                let count = systemRead(descriptor, bytes.baseAddress, maximum)
                if count >= 0 { return count }
                guard errno == EINTR else { throw CommandError("cannot read \(path): \(errorText(errno))") }
            }
        }
        return count == 0 ? nil : buffer
    }
}

/// A file being written.
final class FileWriter {
    private let descriptor: CInt
    private let path: String
    private let closesDescriptor: Bool

    /// Creates or empties a file.
    init(path: String) throws {
        self.path = path
        descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        closesDescriptor = true
        guard descriptor >= 0 else { throw CommandError("cannot write \(path): \(errorText(errno))") }
    }

    /// Writes to standard output.
    init() {
        path = "standard output"
        descriptor = STDOUT_FILENO
        closesDescriptor = false
    }

    deinit { if closesDescriptor { close(descriptor) } }

    func write(_ buffer: ByteBuffer) throws {
        try buffer.withUnsafeReadableBytes { try write($0) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while !rest.isEmpty {
            let count = systemWrite(descriptor, rest.baseAddress, rest.count)
            if count >= 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            } else if errno != EINTR {
                throw CommandError("cannot write \(path): \(errorText(errno))")
            }
        }
    }
}

/// What the command asks of the file system besides reading and writing.
enum FileSystem {
    /// The absolute path without symbolic links, `.` and `..`; nil when nothing is there.
    static func realPath(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Makes a folder and those above it that are missing.
    static func makeDirectory(_ path: String) throws {
        if isDirectory(path) { return }
        if let slash = path.lastIndex(of: "/"), slash != path.startIndex {
            try makeDirectory(String(path[..<slash]))
        }
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else {
            throw CommandError("cannot make the folder \(path): \(errorText(errno))")
        }
    }

    /// Makes a folder of its own below the system's folder for such.
    static func makeTemporaryDirectory() throws -> String {
        let template = (environment("TMPDIR") ?? "/tmp") + "/tern.XXXXXX"
        var bytes = Array(template.utf8CString)
        let made = bytes.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) } != nil
        }
        guard made else { throw CommandError("cannot make a temporary folder \(template): \(errorText(errno))") }
        return String(decoding: bytes.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    static func rename(_ from: String, to: String) throws {
        guard systemRename(from, to) == 0 else { throw CommandError("cannot write \(to): \(errorText(errno))") }
    }

    static func remove(_ path: String) { _ = unlink(path) }

    static func removeDirectory(_ path: String) { _ = rmdir(path) }

    /// The SHA-256 of a file's contents, in hexadecimal.
    static func sha256(of path: String) throws -> String {
        let file = try FileReader(path: path)
        var digest = SHA256Digest()
        while let buffer = try file.read(upTo: 1 << 20) {
            buffer.withUnsafeReadableBytes { digest.update($0) }
        }
        return hexadecimal(digest.finalize())
    }
}

func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.reduce(into: "") { text, byte in
        text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
}

/// What the system says about an error number.
func errorText(_ number: CInt) -> String { String(cString: strerror(number)) }

// The system's calls under names that the methods above do not hide.
private func systemRead(_ descriptor: CInt, _ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int {
    read(descriptor, bytes, count)
}

private func systemWrite(_ descriptor: CInt, _ bytes: UnsafeRawPointer?, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}

private func systemRename(_ from: String, _ to: String) -> CInt { rename(from, to) }
