// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// HTTP/0.9 over QUIC, the protocol that QUIC stacks test each other with: a bidirectional stream a request, `GET /path`
/// and the end of the stream one way, the file's bytes and the end of the stream the other way.
enum HTTP09 {
    static let applicationProtocol = "hq-interop"

    /// Bytes of a request, beyond which it is refused.
    static let maximumRequestSize = 8_192

    /// Codes of streams that are reset: HTTP/0.9 has no status line to say why.
    enum ErrorCode {
        static let notFound: UInt64 = 1
        static let badRequest: UInt64 = 2
        static let internalError: UInt64 = 3
    }

    static func request(for path: String) -> ByteBuffer { ByteBuffer(string: "GET \(path)\r\n") }

    /// The path asked for; nil when the bytes are no request.
    static func path(ofRequest request: ByteBuffer) -> String? {
        let line = request.readableBytesView.prefix { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }
        let words = String(decoding: line, as: UTF8.self).split(separator: " ", omittingEmptySubsequences: true)
        guard words.count == 2 || words.count == 3, words[0] == "GET", words[1].hasPrefix("/") else { return nil }
        return String(words[1])
    }

    /// What a reset of the answer means.
    static func meaning(ofReset code: UInt64) -> String {
        switch code {
        case ErrorCode.notFound: "the server has no such file"
        case ErrorCode.badRequest: "the server did not understand the request"
        default: "the server gave it up with code \(code)"
        }
    }
}

/// A URL of HTTP/0.9 over QUIC: `https://host:port/path`, the scheme may be left out.
struct FileURL: Sendable {
    var authority: HostPort
    /// Begins with `/`; the query, if there is one, is part of it.
    var path: String

    init?(_ text: String) {
        var rest = text[...]
        if let scheme = rest.range(of: "://") {
            guard ["https", "hq"].contains(rest[..<scheme.lowerBound].lowercased()) else { return nil }
            rest = rest[scheme.upperBound...]
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        guard let authority = HostPort(rest[..<slash], defaultPort: 443) else { return nil }
        self.authority = authority
        path = slash == rest.endIndex ? "/" : String(rest[slash...].prefix { $0 != "#" })
        // A space or a control character would end the request line early.
        guard path.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) else { return nil }
    }

    /// The name to keep the file under: the last part of the path.
    var fileName: String {
        let bare = path.prefix { $0 != "?" }
        let name = percentDecoded(bare.split(separator: "/").last.map(String.init) ?? "") ?? ""
        return name.isEmpty || name == "." || name == ".." || name.contains("/") ? "index.html" : name
    }
}

extension Substring {
    /// Where `other` first occurs.
    fileprivate func range(of other: String) -> Range<Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(other) { return start..<index(start, offsetBy: other.count) }
            start = index(after: start)
        }
        return nil
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1); nil when it is broken, is no UTF-8, or hides a zero byte.
func percentDecoded(_ text: String) -> String? {
    func digit(_ byte: UInt8?) -> UInt8? { byte.flatMap { Character(UnicodeScalar($0)).hexDigitValue }.map(UInt8.init) }
    var bytes: [UInt8] = []
    var iterator = text.utf8.makeIterator()
    while let byte = iterator.next() {
        guard byte == UInt8(ascii: "%") else {
            bytes.append(byte)
            continue
        }
        guard let high = digit(iterator.next()), let low = digit(iterator.next()) else { return nil }
        bytes.append(high << 4 | low)
    }
    guard !bytes.contains(0) else { return nil }
    return String(validating: bytes, as: UTF8.self)
}
