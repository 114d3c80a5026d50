// SPDX-License-Identifier: Apache-2.0

import NIOCore
import Testing

@testable import TernCommand

@Suite("HTTP/0.9")
struct HTTP09Tests {
    @Test("a request is read whatever ends its line")
    func requests() {
        for text in ["GET /a/b?c\r\n", "GET /a/b?c\n", "GET /a/b?c", "GET /a/b?c HTTP/0.9\r\n"] {
            #expect(HTTP09.path(ofRequest: ByteBuffer(string: text)) == "/a/b?c", "\(text)")
        }
        for text in ["", "\r\n", "GET\r\n", "POST /\r\n", "GET a\r\n", "GET /a b c\r\n", "get /\r\n"] {
            #expect(HTTP09.path(ofRequest: ByteBuffer(string: text)) == nil, "\(text)")
        }
    }

    @Test("URLs are taken apart, and those that would break the request are refused")
    func urls() {
        let url = FileURL("https://files.example:4433/a/b%20c.bin?x=1#part")
        #expect(url?.authority == HostPort(host: "files.example", port: 4_433))
        #expect(url?.path == "/a/b%20c.bin?x=1")
        #expect(url?.fileName == "b c.bin")
        #expect(FileURL("[::1]/x")?.authority == HostPort(host: "::1", port: 443))
        #expect(FileURL("host")?.path == "/")
        #expect(FileURL("host/a/")?.fileName == "a")
        #expect(FileURL("host/..%2f..%2fetc")?.fileName == "index.html")
        #expect(FileURL("ftp://host/x") == nil)
        #expect(FileURL("host/a b") == nil)
        #expect(FileURL("host/a\r\nGET /b") == nil)
    }

    @Test("percent-encoding that is broken or hides a zero byte is refused")
    func percentDecoding() {
        #expect(percentDecoded("/a%2Fb%c3%A9") == "/a/bé")
        for text in ["%", "%2", "%zz", "%00", "%ff"] { #expect(percentDecoded(text) == nil, "\(text)") }
    }

    @Test("nothing outside the folder is served, whatever the path looks like")
    func traversal() throws {
        let parent = try FileSystem.makeTemporaryDirectory()
        let root = parent + "/root"
        try FileSystem.makeDirectory(root + "/sub")
        let files = [parent + "/secret", root + "/public", root + "/sub/deep", parent + "/root-not"]
        for file in files { try FileWriter(path: file).write(ByteBuffer(string: file)) }
        try #require(symbolicLink(to: parent + "/secret", at: root + "/out"))
        try #require(symbolicLink(to: root + "/sub", at: root + "/in"))
        defer {
            for file in files + [root + "/out", root + "/in"] { FileSystem.remove(file) }
            for folder in [root + "/sub", root, parent] { FileSystem.removeDirectory(folder) }
        }
        let folder = try ServedFolder(root)
        #expect(folder.file(for: "/public") == folder.root + "/public")
        #expect(folder.file(for: "/sub/../public?x") == folder.root + "/public")
        #expect(folder.file(for: "/in/deep") == folder.root + "/sub/deep")
        for path in [
            "/", "/sub", "/none", "/../secret", "/%2e%2e/secret", "/sub/../../secret", "/out", "//../secret",
            "/../root-not", "/public%00", "/..%2fsecret",
        ] {
            #expect(folder.file(for: path) == nil, "\(path)")
        }
        #expect(throws: CommandError.self) { try ServedFolder(root + "/none") }
        #expect(throws: CommandError.self) { try ServedFolder(root + "/public") }
    }
}

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

private func symbolicLink(to target: String, at path: String) -> Bool { symlink(target, path) == 0 }
