// SPDX-License-Identifier: Apache-2.0

/// A value to be printed as JSON (RFC 8259) for programs to read; keys keep their order.
enum JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([(String, JSON)])

    init(stringLiteral value: String) { self = .string(value) }
    init(integerLiteral value: Int) { self = .int(value) }
    init(booleanLiteral value: Bool) { self = .bool(value) }

    /// Seconds, to the microsecond; null when there are none.
    static func seconds(_ duration: Duration?) -> JSON {
        duration.map { .number(($0.inSeconds * 1e6).rounded() / 1e6) } ?? .null
    }

    static func optional(_ text: String?) -> JSON { text.map { .string($0) } ?? .null }

    /// The text, indented by two spaces a level.
    var text: String {
        var result = ""
        write(to: &result, indent: 0)
        return result
    }

    private func write(to result: inout String, indent: Int) {
        switch self {
        case .null: result += "null"
        case .bool(let value): result += value ? "true" : "false"
        case .int(let value): result += "\(value)"
        case .number(let value): result += value.isFinite ? "\(value)" : "null"
        case .string(let value): Self.write(quoted: value, to: &result)
        case .array(let values):
            Self.writeItems(values, to: &result, indent: indent, open: "[", close: "]") { value, result in
                value.write(to: &result, indent: indent + 1)
            }
        case .object(let members):
            Self.writeItems(members, to: &result, indent: indent, open: "{", close: "}") { member, result in
                Self.write(quoted: member.0, to: &result)
                result += ": "
                member.1.write(to: &result, indent: indent + 1)
            }
        }
    }

    private static func writeItems<Item>(
        _ items: [Item],
        to result: inout String,
        indent: Int,
        open: String,
        close: String,
        write: (Item, inout String) -> Void
    ) {
        guard !items.isEmpty else {
            result += open + close
            return
        }
        result += open
        for (index, item) in items.enumerated() {
            result += (index == 0 ? "\n" : ",\n") + String(repeating: "  ", count: indent + 1)
            write(item, &result)
        }
        result += "\n" + String(repeating: "  ", count: indent) + close
    }

    private static func write(quoted text: String, to result: inout String) {
        result += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case "\r": result += "\\r"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        result += "\""
    }
}
