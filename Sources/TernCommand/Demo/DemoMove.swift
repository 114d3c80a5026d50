// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// One thing that moved, and what it did to the transfer.
struct DemoMove: Sendable {
    enum Kind: String, Sendable, CaseIterable {
        case natPort = "nat-port"
        case natAddress = "nat-address"
        case toCellular = "to-cellular"
        case backToWiFi = "back-to-wifi"
        case wifiDies = "wifi-dies"
        case wifiReturns = "wifi-returns"

        var title: String {
            switch self {
            case .natPort: "the NAT changes its port"
            case .natAddress: "the NAT changes its address"
            case .toCellular: "WiFi → cellular"
            case .backToWiFi: "cellular → WiFi"
            case .wifiDies: "WiFi dies; the connection moves by itself"
            case .wifiReturns: "WiFi is back; the connection returns by itself"
            }
        }

        /// When it begins, as a part of the transfer's time.
        var moment: Double {
            switch self {
            case .natPort: 0.08
            case .natAddress: 0.22
            case .toCellular: 0.36
            case .backToWiFi: 0.50
            case .wifiDies: 0.66
            case .wifiReturns: 0.80
            }
        }
    }

    var kind: Kind
    /// Why the automatic policy moved the connection, where it did.
    var decision: PolicyDecision?
    /// Since the transfer began.
    var start: Duration
    /// What the server knew the client by before, and knows it by now.
    var from: NetworkAddress
    var to: NetworkAddress
    /// From the move to the server's adopting the new address.
    var followed: Duration?
    /// How the new path was proved, by the server if it was a NAT's move and by the client if it was its own.
    var validation: Duration
    var challenges: Int
    /// The longest time without a byte in the second before it, and from its beginning until a second after its end.
    var gapBefore: Duration
    var gapAround: Duration
    /// Bytes a second in the second before it and in the second after it.
    var goodputBefore: Double
    var goodputAfter: Double
    var tableBefore: [DemoTableRow]
    var tableAfter: [DemoTableRow]
}

/// How the whole demo went.
struct DemoOutcome: Sendable {
    var size = 0
    var received = 0
    var handshake = Duration.zero
    var elapsed = Duration.zero
    var moves: [DemoMove] = []
    var sentDigest: String?
    var receivedDigest: String?
    /// The first thing that went wrong.
    var problem: String?

    var isIdentical: Bool { sentDigest != nil && sentDigest == receivedDigest }
    var isSuccess: Bool {
        problem == nil && isIdentical && received == size && moves.map(\.kind) == DemoMove.Kind.allCases
    }

    var json: JSON {
        .object([
            ("success", .bool(isSuccess)),
            ("problem", .optional(problem)),
            ("bytes", .int(size)),
            ("bytesReceived", .int(received)),
            ("seconds", .seconds(elapsed)),
            ("handshakeSeconds", .seconds(handshake)),
            ("sha256Sent", .optional(sentDigest)),
            ("sha256Received", .optional(receivedDigest)),
            ("moves", .array(moves.map(\.json))),
        ])
    }
}

extension DemoMove {
    fileprivate var json: JSON {
        .object([
            ("move", .string(kind.rawValue)),
            ("decision", .optional(decision.map { "\($0)" })),
            ("atSeconds", .seconds(start)),
            ("from", .string("\(from)")),
            ("to", .string("\(to)")),
            ("followedAfterSeconds", .seconds(followed)),
            ("validationSeconds", .seconds(validation)),
            ("challenges", .int(challenges)),
            ("largestGapBeforeSeconds", .seconds(gapBefore)),
            ("largestGapAroundSeconds", .seconds(gapAround)),
            ("goodputBefore", .number(goodputBefore.rounded())),
            ("goodputAfter", .number(goodputAfter.rounded())),
            ("connectionTableBefore", .array(tableBefore.map(\.json))),
            ("connectionTableAfter", .array(tableAfter.map(\.json))),
        ])
    }
}

extension DemoTableRow {
    fileprivate var json: JSON {
        .object([
            ("connectionID", .string(connectionID)),
            ("clientAddress", .string("\(clientAddress)")),
            ("state", .string(state)),
            ("validated", .bool(isValidated)),
            ("pathsSeen", .int(pathsSeen)),
        ])
    }
}
