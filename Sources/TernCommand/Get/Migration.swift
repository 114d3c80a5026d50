// SPDX-License-Identifier: Apache-2.0

import QUICProtocol
import Tern

/// Moves a connection from address to address while a transfer goes on.
actor Migration {
    private let connection: Connection
    private let line: LiveLine?
    /// The socket that the connection uses now.
    private var transport: Transport
    private var path: Path
    private var problem: String?
    private var pending = 0

    init(connection: Connection, initialTransport: Transport, reportsTo line: LiveLine?) {
        self.connection = connection
        self.transport = initialTransport
        self.path = connection.initialPath
        self.line = line
    }

    /// The socket to close in the end, and what went wrong, if anything did.
    var result: (Transport, String?) {
        guard problem == nil, pending > 0 else { return (transport, problem) }
        return (
            transport, "the transfer ended before the connection could move" + (pending == 1 ? "" : " \(pending) times")
        )
    }

    /// Goes through the addresses, one after each `interval` bytes received.
    func run(_ hops: [HostPort], every interval: Int, of progress: TransferProgress) async {
        pending = hops.count
        for (index, hop) in hops.enumerated() {
            guard await progress.reached(bytes: interval * (index + 1)) else { return }
            do {
                try await move(to: hop)
                pending -= 1
            } catch is CancellationError {
                return
            } catch {
                problem = "could not move to \(hop.host): \(explain(error) ?? "\(error)")"
                return
            }
        }
    }

    /// Make before break: the new path is proved before any data goes there, and the old one is closed last.
    private func move(to hop: HostPort) async throws {
        let next = try await Transport.bind(to: hop.description, on: connection.eventLoop)
        do {
            let newPath = try await connection.addPath(over: next)
            let report = try await newPath.probe(timeout: .seconds(5))
            try await newPath.switch()
            let oldAddress = path.localAddress
            try? await path.close()
            await transport.close()
            (transport, path) = (next, newPath)
            line?.clear()
            if line != nil {
                StandardError.line(
                    "migrated \(oldAddress) → \(newPath.localAddress), validated in \(report.rtt.text), "
                        + "\(report.challenges) challenge\(report.challenges == 1 ? "" : "s")"
                )
            }
        } catch {
            if next !== transport { await next.close() }
            throw error
        }
    }
}
