// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import TernCommand

@Suite("Arguments and numbers")
struct ArgumentTests {
    @Test(
        "times are read with their units", arguments: [("250ms", 0.25), ("2s", 2), ("1.5", 1.5), ("3m", 180), ("0", 0)])
    func durations(text: String, seconds: Double) {
        #expect(DurationArgument(argument: text)?.duration.inSeconds == seconds)
    }

    @Test("what is no time is refused", arguments: ["", "x", "-1s", "ms", "1e30s", "nan"])
    func noDurations(text: String) {
        #expect(DurationArgument(argument: text) == nil)
    }

    @Test(
        "numbers of bytes are read with decimal and binary prefixes",
        arguments: [
            ("65536", 65_536), ("10MB", 10_000_000), ("256MiB", 268_435_456), ("2g", 2_000_000_000), ("1.5k", 1_500),
        ]
    )
    func byteCounts(text: String, bytes: Int) {
        #expect(ByteCountArgument(argument: text)?.bytes == bytes)
    }

    @Test("what is no number of bytes is refused", arguments: ["", "-1", "MB", "1x", "1e40", "inf"])
    func noByteCounts(text: String) {
        #expect(ByteCountArgument(argument: text) == nil)
    }

    @Test("hosts and ports of both families are taken apart")
    func hostsAndPorts() {
        #expect(HostPort("127.0.0.1:4433", defaultPort: nil) == HostPort(host: "127.0.0.1", port: 4_433))
        #expect(HostPort("[::1]:1", defaultPort: nil) == HostPort(host: "::1", port: 1))
        #expect(HostPort("files.example", defaultPort: 443) == HostPort(host: "files.example", port: 443))
        #expect(HostPort("[::1]", defaultPort: 443)?.description == "[::1]:443")
        for text in ["", ":1", "a", "a:", "a:70000", "::1:4433", "[::1", "[::1]4433", "a:-1"] {
            #expect(HostPort(text, defaultPort: nil) == nil, "\(text)")
        }
        #expect(HostPort(bindAddress: "127.0.0.2")?.description == "127.0.0.2:0")
        #expect(HostPort(bindAddress: "::1")?.description == "[::1]:0")
        #expect(HostPort(bindAddress: "[::1]:5")?.description == "[::1]:5")
        #expect(HostPort(bindAddress: "name.example:5") == nil)
    }

    @Test("numbers are written with the places asked for")
    func numbers() {
        #expect(Format.decimal(1.005, places: 1) == "1.0")
        #expect(Format.decimal(0.0499, places: 2) == "0.05")
        #expect(Format.decimal(-0.001, places: 2) == "0.00")
        #expect(Format.decimal(-1.5, places: 0) == "-2")
        #expect(Format.decimal(.nan, places: 2) == "–")
        #expect(Format.bytes(999) == "999 B")
        #expect(Format.bytes(1 << 28) == "256 MiB")
        #expect(Format.rate(bytesPerSecond: 13_400_000) == "13.4 MB/s")
        #expect(Duration.microseconds(250).text == "250 µs")
        #expect(Duration.milliseconds(1_500).text == "1.50 s")
    }

    @Test("JSON is escaped, ordered and without what it has no word for")
    func json() {
        let value = JSON.object([
            ("b", .string("a\"\\\n\u{1}é")), ("a", .array([1, .number(.infinity), true, .null])), ("e", .object([])),
        ])
        #expect(
            value.text == """
                {
                  "b": "a\\"\\\\\\n\\u0001é",
                  "a": [
                    1,
                    null,
                    true,
                    null
                  ],
                  "e": {}
                }
                """
        )
    }
}
