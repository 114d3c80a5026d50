// SPDX-License-Identifier: Apache-2.0

import NIOCore
import QUICProtocol
import Tern

/// Where downloaded files go.
enum DownloadTarget: Sendable {
    case standardOutput
    case file(String)
    case folder(String)

    /// - Parameters:
    ///   - output: what the user said; nil is the current folder.
    ///   - count: how many files there will be.
    init(output: String?, count: Int) throws {
        switch output {
        case nil:
            self = .folder(".")
        case "-"?:
            guard count == 1 else { throw CommandError("--output - takes one URL") }
            self = .standardOutput
        case let output?:
            if count > 1 || output.hasSuffix("/") || FileSystem.isDirectory(output) {
                try FileSystem.makeDirectory(output)
                self = .folder(output)
            } else {
                self = .file(output)
            }
        }
    }

    /// Receives a file: under a name of its own while it is incomplete, under its name once it is all there.
    func write(
        _ url: FileURL, from chunks: some AsyncSequence<ByteBuffer, any Error>, counting progress: TransferProgress
    )
        async throws
    {
        let path: String
        switch self {
        case .standardOutput:
            let writer = FileWriter()
            for try await chunk in chunks {
                try writer.write(chunk)
                progress.received(chunk.readableBytes)
            }
            return
        case .file(let file): path = file
        case .folder(let folder): path = folder + "/" + url.fileName
        }
        let partial = path + ".part"
        do {
            let writer = try FileWriter(path: partial)
            for try await chunk in chunks {
                try writer.write(chunk)
                progress.received(chunk.readableBytes)
            }
        } catch {
            FileSystem.remove(partial)
            throw error
        }
        try FileSystem.rename(partial, to: path)
    }
}

/// Fetches files of one server, all at once, over one connection.
struct Download: Sendable {
    let authority: HostPort
    let urls: [FileURL]
    let target: DownloadTarget
    let progress: TransferProgress

    /// - Returns: a line for each file that could not be had.
    func run(over connection: Connection) async throws -> [String] {
        try await withThrowingTaskGroup(of: String?.self) { group in
            for url in urls {
                group.addTask { try await fetch(url, over: connection) }
            }
            var problems: [String] = []
            for try await problem in group {
                if let problem { problems.append(problem) }
            }
            return problems
        }
    }

    private func fetch(_ url: FileURL, over connection: Connection) async throws -> String? {
        do {
            let stream = try await connection.openStream()
            try await stream.write(HTTP09.request(for: url.path))
            try await stream.finish()
            try await target.write(url, from: stream.bytes, counting: progress)
            progress.finishedFile()
            return nil
        } catch StreamError.resetByPeer(let code) {
            return "\(url.path): \(HTTP09.meaning(ofReset: code))"
        }
    }
}
