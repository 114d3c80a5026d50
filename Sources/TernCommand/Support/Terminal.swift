// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// Standard output without buffering, so that a line is there when it is printed, whatever reads it.
enum StandardOutput {
    static let isTerminal = isatty(STDOUT_FILENO) == 1
    static func write(_ text: String) { writeAll(text, to: STDOUT_FILENO) }
    static func line(_ text: String = "") { write(text + "\n") }
}

enum StandardError {
    static let isTerminal = isatty(STDERR_FILENO) == 1
    static func write(_ text: String) { writeAll(text, to: STDERR_FILENO) }
    static func line(_ text: String = "") { write(text + "\n") }
}

private func writeAll(_ text: String, to descriptor: CInt) {
    var text = text
    text.withUTF8 { bytes in
        var rest = UnsafeRawBufferPointer(bytes)
        while !rest.isEmpty {
            #if canImport(Glibc)
            let written = Glibc.write(descriptor, rest.baseAddress, rest.count)
            #elseif canImport(Musl)
            let written = Musl.write(descriptor, rest.baseAddress, rest.count)
            #else
            let written = Darwin.write(descriptor, rest.baseAddress, rest.count)
            #endif
            if written > 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            } else if errno != EINTR {
                return
            }
        }
    }
}

/// How text is dressed: not at all unless it goes to a terminal that wants it.
struct TextStyle: Sendable {
    var isEnabled: Bool

    /// - Parameter allowed: what the user asked for; `NO_COLOR` (no-color.org) and a dumb terminal count as well.
    init(allowed: Bool, isTerminal: Bool) {
        isEnabled =
            allowed && isTerminal && getenv("NO_COLOR") == nil && environment("TERM").map { $0 != "dumb" } ?? false
    }

    func bold(_ text: String) -> String { wrap(text, "1") }
    func dim(_ text: String) -> String { wrap(text, "2") }
    func red(_ text: String) -> String { wrap(text, "31") }
    func green(_ text: String) -> String { wrap(text, "32") }
    func yellow(_ text: String) -> String { wrap(text, "33") }
    func cyan(_ text: String) -> String { wrap(text, "36") }

    private func wrap(_ text: String, _ code: String) -> String {
        isEnabled ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text
    }
}

/// One line of a terminal that is written over and over; silent where there is no terminal.
struct LiveLine: Sendable {
    /// Whether anything is written at all.
    let isEnabled: Bool
    private let write: @Sendable (String) -> Void

    static func onStandardError(isEnabled: Bool = true) -> LiveLine {
        LiveLine(isEnabled: isEnabled && StandardError.isTerminal, write: { StandardError.write($0) })
    }

    static func onStandardOutput(isEnabled: Bool = true) -> LiveLine {
        LiveLine(isEnabled: isEnabled && StandardOutput.isTerminal, write: { StandardOutput.write($0) })
    }

    func show(_ text: String) {
        if isEnabled { write("\r\u{1b}[2K" + String(text.prefix(Self.columns - 1))) }
    }

    /// Makes room for a lasting line.
    func clear() {
        if isEnabled { write("\r\u{1b}[2K") }
    }

    /// The width of the terminal.
    static var columns: Int {
        var size = winsize()
        for descriptor in [STDERR_FILENO, STDOUT_FILENO]
        where ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 20 {
            return Int(size.ws_col)
        }
        return 80
    }
}

/// A bar of eighth blocks: `████▌     `.
func progressBar(_ fraction: Double, width: Int) -> String {
    let eighths = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
    let filled = Int((min(max(fraction.isFinite ? fraction : 0, 0), 1) * Double(width * 8)).rounded(.down))
    let bar = String(repeating: "█", count: filled / 8) + eighths[filled % 8]
    return Format.left(bar, width)
}

/// The value of an environment variable, or nil when it is not set or empty.
func environment(_ name: String) -> String? {
    guard let value = getenv(name) else { return nil }
    let text = String(cString: value)
    return text.isEmpty ? nil : text
}
