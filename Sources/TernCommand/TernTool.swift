// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// The command `tern`.
@main
struct TernTool: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tern",
        abstract: "QUIC for connections that outlive the network under them.",
        subcommands: [
            DemoCommand.self, ServeCommand.self, GetCommand.self, RoamCommand.self, NATCommand.self,
            PerfCommand.self,
        ]
    )

    /// Runs the subcommand; whatever goes wrong becomes one line on standard error and an exit code other than 0.
    static func main() async {
        do {
            var command = try parseAsRoot()
            if var asynchronous = command as? any AsyncParsableCommand {
                try await asynchronous.run()
            } else {
                try command.run()
            }
        } catch {
            let code = exitCode(for: error)
            // Help that was asked for, and exit codes that were already explained.
            if code == .success || error is ExitCode { exit(withError: error) }
            let explained = explain(error) ?? message(for: error)
            StandardError.write("tern: \(explained.split(separator: "\n").joined(separator: " "))\n")
            exit(withError: code)
        }
    }
}
