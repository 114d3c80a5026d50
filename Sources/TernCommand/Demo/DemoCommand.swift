// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

/// `tern demo`: shows in half a minute what Tern is for.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Moves a file over one connection while the network under it changes six times.",
        discussion: """
            A server, a NAT and a client in this process, over real UDP sockets on loopback addresses that stand for \
            WiFi and cellular. While the file is on its way the NAT changes its port, then its address; then the \
            client adds, probes and switches to the cellular network and closes its WiFi socket; then it goes back. Last, \
            with the automatic policy, WiFi dies and returns, and the connection moves without a call. \
            Exits with 0 only if every move happened and the SHA-256 of both ends is the same.
            """
    )

    @Option(help: ArgumentHelp("Bytes of the file.", valueName: "bytes"))
    var size = ByteCountArgument(256 << 20)

    @Option(help: ArgumentHelp("About how long the transfer shall take.", valueName: "seconds"))
    var seconds = 22.0

    @Flag(help: "Prints JSON, and nothing else.")
    var json = false

    @Flag(help: "Writes without colors. NO_COLOR in the environment does the same.")
    var noColor = false

    func validate() throws {
        guard size.bytes >= 1 << 20 else { throw ValidationError("--size takes 1MiB or more") }
        guard (12...3_600).contains(seconds) else { throw ValidationError("--seconds takes 12 to 3600") }
    }

    func run() async throws {
        let console = DemoConsole(color: !noColor, isSilent: json)
        let folder = try FileSystem.makeTemporaryDirectory()
        defer { DemoScenario.removeFiles(in: folder) }
        let outcome = OutcomeBox()
        let wasInterrupted = try await untilSignalled {
            await console.note("making a file of \(Format.bytes(size.bytes)) …")
            try DemoScenario.makeSource(in: folder, size: size.bytes)
            let network = try await DemoNetwork.start()
            await console.header(size: size.bytes, network: network)
            let scenario = try await DemoScenario(
                size: size.bytes,
                seconds: seconds,
                folder: folder,
                network: network,
                console: console
            )
            await outcome.set(await scenario.run())
            await network.stop()
        }
        guard !wasInterrupted, let outcome = await outcome.value else {
            await console.endLive()
            throw CommandError("interrupted")
        }
        if json { StandardOutput.line(outcome.json.text) }
        await console.end(outcome)
        if !outcome.isSuccess { throw ExitCode.failure }
    }
}

/// Carries the outcome out of the task that a signal may cancel.
private actor OutcomeBox {
    private(set) var value: DemoOutcome?
    func set(_ outcome: DemoOutcome) { value = outcome }
}
