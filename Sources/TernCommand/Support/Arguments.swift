// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import NIOCore

/// A span of time as people type it: `250ms`, `2s`, `1.5s`, `3m`; a bare number is in seconds.
struct DurationArgument: ExpressibleByArgument {
    var duration: Duration

    init(_ duration: Duration) { self.duration = duration }

    init?(argument: String) {
        let units: [(suffix: String, nanoseconds: Double)] = [
            ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3_600e9), ("", 1e9),
        ]
        for unit in units where argument.hasSuffix(unit.suffix) {
            guard let number = Double(argument.dropLast(unit.suffix.count)) else { continue }
            let nanoseconds = number * unit.nanoseconds
            guard nanoseconds >= 0, nanoseconds < 1e18 else { return nil }
            duration = .nanoseconds(Int64(nanoseconds))
            return
        }
        return nil
    }

    var defaultValueDescription: String { duration.text }
}

/// A number of bytes as people type it: `65536`, `10MB`, `256MiB`, `2G` (powers of 1024 with an `i`, of 1000 without).
struct ByteCountArgument: ExpressibleByArgument {
    var bytes: Int

    init(_ bytes: Int) { self.bytes = bytes }

    init?(argument: String) {
        var text = argument.lowercased()[...]
        if text.hasSuffix("b") { text = text.dropLast() }
        var base = 1_000.0
        if text.hasSuffix("i") {
            text = text.dropLast()
            base = 1_024
        }
        var factor = 1.0
        for (index, prefix) in ["k", "m", "g", "t"].enumerated() where text.hasSuffix(prefix) {
            text = text.dropLast()
            for _ in 0...index { factor *= base }
        }
        guard let number = Double(text) else { return nil }
        let bytes = number * factor
        guard bytes >= 0, bytes < 1e18 else { return nil }
        self.bytes = Int(bytes)
    }

    var defaultValueDescription: String { Format.bytes(bytes) }
}

/// A host and a port: `127.0.0.1:4433`, `[::1]:4433`, `files.example:4433`.
struct HostPort: ExpressibleByArgument, CustomStringConvertible, Hashable, Sendable {
    var host: String
    var port: Int

    init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    init?(argument: String) { self.init(argument, defaultPort: nil) }

    /// - Parameter defaultPort: taken when the text has none; nil makes the port obligatory.
    init?(_ text: some StringProtocol, defaultPort: Int?) {
        var rest = text[...]
        if rest.hasPrefix("[") {
            guard let end = rest.firstIndex(of: "]") else { return nil }
            host = String(rest[rest.index(after: rest.startIndex)..<end])
            rest = rest[rest.index(after: end)...]
        } else {
            let end = rest.lastIndex(of: ":") ?? rest.endIndex
            host = String(rest[..<end])
            rest = rest[end...]
        }
        if rest.isEmpty, let defaultPort {
            port = defaultPort
        } else {
            guard rest.first == ":", let number = UInt16(rest.dropFirst()) else { return nil }
            port = Int(number)
        }
        // Several colons and no brackets: an IPv6 address of which the last group would be taken for the port.
        guard !host.isEmpty, text.hasPrefix("[") || !host.contains(":") else { return nil }
    }

    var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    var isIPAddress: Bool { (try? SocketAddress(ipAddress: host, port: port)) != nil }

    /// The socket address; asks the resolver when the host is a name.
    func resolved() throws -> SocketAddress {
        if let address = try? SocketAddress(ipAddress: host, port: port) { return address }
        do {
            return try SocketAddress.makeAddressResolvingHost(host, port: port)
        } catch {
            throw CommandError("no address is known for “\(host)”")
        }
    }
}

extension SocketAddress {
    /// `127.0.0.1:4433` or `[::1]:4433`, as `NetworkAddress` writes them.
    var text: String { HostPort(host: ipAddress ?? "?", port: port ?? 0).description }

    /// Whether it is in 127.0.0.0/8, every address of which is there on Linux.
    var isIPv4Loopback: Bool { ipAddress?.hasPrefix("127.") == true }
}
