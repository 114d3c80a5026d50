// SPDX-License-Identifier: Apache-2.0

/// The folder whose files a server gives out, and nothing outside it.
struct ServedFolder: Sendable {
    /// Absolute, without symbolic links.
    let root: String

    init(_ path: String) throws {
        guard let root = FileSystem.realPath(path), FileSystem.isDirectory(root) else {
            throw CommandError("no such folder: \(path)")
        }
        self.root = root
    }

    /// The file that a request's path names.
    ///
    /// The path is resolved by the file system, `..` and symbolic links included, and what that gives must lie below the
    /// root: whatever a path looks like, it leads to no other file.
    ///
    /// - Returns: nil when there is no such file, or it lies outside the root.
    func file(for path: String) -> String? {
        guard let decoded = percentDecoded(String(path.prefix { $0 != "?" })) else { return nil }
        guard let resolved = FileSystem.realPath(root + "/" + decoded) else { return nil }
        let prefix = root.hasSuffix("/") ? root : root + "/"
        guard resolved.hasPrefix(prefix), !FileSystem.isDirectory(resolved) else { return nil }
        return resolved
    }
}
