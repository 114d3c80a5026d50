// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOSSL
import QUICProtocol
import Tern

/// Something the user can act on, said in one line.
struct CommandError: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// Says what an error means to the one who typed the command; nil for errors of the command line itself, which the
/// argument parser words better.
func explain(_ error: any Error) -> String? {
    switch error {
    case let error as CommandError: error.description
    case let error as IOError: "\(error)"
    case is CancellationError, TernError.cancelled: "interrupted"
    case TernError.connectionFailed(let reason): meaning(of: reason)
    case MigrationError.connectionClosed(let reason): meaning(of: reason)
    case let reason as CloseReason: meaning(of: reason)
    case is ChannelError: "the socket could not be used: \(error)"
    default: nil
    }
}

private func meaning(of reason: CloseReason) -> String {
    switch reason {
    case .handshakeTimeout: "no answer"
    case .idleTimeout: "nothing was heard any more"
    case .noViablePath: "no network leads to the peer any more, or it is gone"
    case .transport(let error, byPeer: false) where error.code.refusesCertificate:
        "the server's certificate was refused: \(error.reason)"
    default: "\(reason)"
    }
}

extension TransportErrorCode {
    /// bad_certificate to unknown_ca (RFC 8446, section 6).
    fileprivate var refusesCertificate: Bool { tlsAlert.map { 42...48 ~= $0 && $0 != 47 } ?? false }
}

/// Adds what was being done to an error that does not say it.
nonisolated(nonsending) func attempting<Result>(
    _ activity: @autoclosure () -> String,
    _ body: nonisolated(nonsending) () async throws -> Result
) async throws -> Result {
    do {
        return try await body()
    } catch let error as CommandError {
        throw error
    } catch let error as CancellationError {
        throw error
    } catch {
        throw CommandError("\(activity()): \(explain(error) ?? "\(error)")")
    }
}
