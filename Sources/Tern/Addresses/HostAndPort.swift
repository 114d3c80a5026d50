// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// `host:port` taken apart. The host is a name or an IP address without brackets.
struct HostAndPort: Hashable, Sendable {
    var host: String
    var port: UInt16

    init(parsing text: String) throws(TernError) {
        let host: Substring
        let port: Substring
        if text.hasPrefix("[") {
            guard let end = text.lastIndex(of: "]") else { throw .invalidAddress(text) }
            host = text[text.index(after: text.startIndex)..<end]
            let rest = text[text.index(after: end)...]
            guard rest.hasPrefix(":") else { throw .invalidAddress(text) }
            port = rest.dropFirst()
        } else {
            guard let colon = text.lastIndex(of: ":"), !text[..<colon].contains(":") else {
                throw .invalidAddress(text)
            }
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        guard !host.isEmpty, !port.isEmpty, port.utf8.allSatisfy({ UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }),
            let number = UInt16(port)
        else { throw .invalidAddress(text) }
        self.host = String(host)
        self.port = number
    }

    /// The address, if the host is an IP address rather than a name.
    var literal: NetworkAddress? {
        guard let address = try? SocketAddress(ipAddress: host, port: Int(port)) else { return nil }
        return NetworkAddress(address)
    }
}
