// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// Transport parameters: what parses can be written and parsed again to the same, and a connection lives with it.
enum ParameterFuzzer {
    static func run(_ bytes: [UInt8]) throws(FuzzFailure) {
        guard let kind = bytes.first else { return }
        let sender: Role = kind & 1 == 0 ? .client : .server
        guard let parameters = try? TransportParameters.decode(Array(bytes.dropFirst()), sentBy: sender) else { return }
        var random = RandomSource.seeded(1)
        let again = parameters.encoded(for: sender, using: &random)
        let decoded = try prepare { try TransportParameters.decode(again, sentBy: sender) }
        try require(decoded == parameters, "parameters changed on their way: \(parameters) became \(decoded)")
        guard kind & 2 != 0 else { return }
        try live(with: parameters, sentBy: sender)
    }

    /// A second of a connection whose peer declares this.
    private static func live(with parameters: TransportParameters, sentBy sender: Role) throws(FuzzFailure) {
        var parameters = parameters
        // With another source ID, or a Retry that was none, the connection would end before it began.
        parameters.retrySourceConnectionID = nil
        let subject: Subject
        do {
            subject = try Subject(role: sender.peer, parameters: parameters)
        } catch {
            // The preferred address may name an ID that is the peer's already.
            guard parameters.preferredAddress != nil else { throw error }
            return
        }
        try subject.apply { connection in
            for direction in [StreamDirection.bidirectional, .unidirectional] {
                guard let id = try? connection.openStream(direction) else { continue }
                try? connection.write(SharedBytes(copying: [UInt8](repeating: 1, count: 10_000)), to: id, finish: true)
            }
        }
        for _ in 0..<4 {
            let numbers = subject.takeUnacknowledged()
            if let first = numbers.first, let last = numbers.last { try subject.receive(ackFrame(first...last)) }
            try subject.pass(.milliseconds(250))
        }
    }
}
