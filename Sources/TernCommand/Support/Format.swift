// SPDX-License-Identifier: Apache-2.0

/// Numbers and times as people read them.
enum Format {
    /// `1.5 MiB`: three digits or so.
    static func bytes(_ count: Int) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var value = Double(count)
        var unit = 0
        while value >= 1_000, unit < units.count - 1 {
            value /= 1_024
            unit += 1
        }
        return unit == 0
            ? "\(count) B" : "\(decimal(value, places: value < 10 ? 2 : value < 100 ? 1 : 0)) \(units[unit])"
    }

    /// `12.3 MB/s`, with decimal prefixes as network rates have them.
    static func rate(bytesPerSecond: Double) -> String {
        let units = ["B/s", "kB/s", "MB/s", "GB/s"]
        var value = bytesPerSecond
        var unit = 0
        while value >= 1_000, unit < units.count - 1 {
            value /= 1_000
            unit += 1
        }
        return "\(decimal(value, places: unit == 0 ? 0 : value < 10 ? 2 : 1)) \(units[unit])"
    }

    /// A number with a fixed count of decimal places.
    static func decimal(_ value: Double, places: Int) -> String {
        guard value.isFinite else { return "–" }
        var scale = 1.0
        for _ in 0..<places { scale *= 10 }
        let scaled = (abs(value) * scale).rounded()
        guard scaled < 1e18 else { return "\(value)" }
        let digits = String(UInt64(scaled))
        let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return sign + padded }
        return sign + padded.dropLast(places) + "." + padded.suffix(places)
    }

    /// Pads with spaces to a width; text that is longer stays whole.
    static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    static func right(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}

extension Duration {
    /// Seconds as a floating-point number.
    var inSeconds: Double {
        let (seconds, attoseconds) = components
        return Double(seconds) + Double(attoseconds) / 1e18
    }

    var inMilliseconds: Double { inSeconds * 1_000 }

    /// `250 µs`, `12.3 ms`, `4.56 s`.
    var text: String {
        let seconds = inSeconds
        return switch abs(seconds) {
        case ..<0.001: "\(Format.decimal(seconds * 1e6, places: 0)) µs"
        case ..<1: "\(Format.decimal(seconds * 1e3, places: abs(seconds) < 0.1 ? 1 : 0)) ms"
        default: "\(Format.decimal(seconds, places: 2)) s"
        }
    }
}
