// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// What a stream of a transfer carries, in bytes, besides the request of eight bytes.
public struct StreamPlan: Sendable, Hashable {
    public var download: Int
    public var upload: Int

    public init(download: Int = 0, upload: Int = 0) {
        self.download = download
        self.upload = upload
    }
}

/// The client of the ALPN `perf`: opens a stream for each plan when the handshake is done, all at once or as many as the
/// peer allows, uploads, downloads, and checks every byte.
public final class Transfer: SimulatedApplication {
    private final class Stream {
        let plan: StreamPlan
        var reader: ContentReader
        var writer: ContentWriter
        var isDownloadFinished = false
        var isUploadAcknowledged = false
        var isDone = false

        init(_ id: StreamID, _ plan: StreamPlan) {
            self.plan = plan
            reader = ContentReader(key: ContentKey.download(id))
            let wanted = UInt64(plan.download)
            writer = ContentWriter(
                key: ContentKey.upload(id), count: plan.upload,
                header: (0..<8).map { UInt8(truncatingIfNeeded: wanted >> (56 - 8 * $0)) })
        }
    }

    public let plans: [StreamPlan]
    private let sendBufferLimit: Int
    private var waiting: ArraySlice<StreamPlan>
    /// Looked up by ID only.
    private var streams: [StreamID: Stream] = [:]
    private var finishedStreams = 0
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)

    /// The first thing that went wrong.
    public private(set) var fault: String?
    /// Bytes downloaded, all streams together.
    public private(set) var downloadedBytes = 0
    /// When the first stream was opened.
    public private(set) var startedAt: Instant?
    /// When the last stream was downloaded to its end and acknowledged to its end.
    public private(set) var finishedAt: Instant?
    /// The longest time without a byte delivered between the first and the last one.
    public private(set) var largestGap: Nanoseconds = .zero
    /// When that gap ended.
    public private(set) var largestGapEnd: Instant?
    private var lastDelivery: Instant?

    public init(_ plans: [StreamPlan], sendBufferLimit: Int) {
        self.plans = plans
        self.sendBufferLimit = sendBufferLimit
        waiting = plans[...]
    }

    deinit { scratch.deallocate() }

    public var isFinished: Bool { finishedAt != nil }
    public var plannedDownload: Int { plans.reduce(0) { $0 + $1.download } }
    public var plannedUpload: Int { plans.reduce(0) { $0 + $1.upload } }

    /// What is missing, for the message of a run that did not end.
    public var progress: String {
        "\(finishedStreams) of \(plans.count) streams done, \(streams.count) opened, \(downloadedBytes) of "
            + "\(plannedDownload) bytes downloaded"
    }

    public func handle(_ event: ConnectionEvent, on connection: ConnectionRecord, of endpoint: SimulatedEndpoint) {
        switch event {
        case .handshakeCompleted:
            startedAt = endpoint.network.now
            if plans.isEmpty { finishedAt = startedAt }
            openStreams(connection, endpoint)
        case .streamsAvailable:
            openStreams(connection, endpoint)
        case .streamReadable(let id):
            guard let stream = streams[id] else { return fail("stream \(id) was readable and never opened") }
            read(id, stream, connection, endpoint)
            finishIfDone(stream, endpoint)
        case .streamWritable(let id):
            guard let stream = streams[id] else { return fail("stream \(id) was writable and never opened") }
            write(id, stream, connection, endpoint)
        case .streamSendClosed(let id):
            guard let stream = streams[id], stream.writer.isFinished, !stream.isUploadAcknowledged else {
                return fail("stream \(id) was acknowledged before it was written, or twice")
            }
            stream.isUploadAcknowledged = true
            finishIfDone(stream, endpoint)
        case .streamStopped(let id, let code):
            fail("the server stopped stream \(id) with code \(code)")
        default: break
        }
    }

    private func openStreams(_ connection: ConnectionRecord, _ endpoint: SimulatedEndpoint) {
        while let plan = waiting.first {
            var opened: StreamID?
            var failure: StreamError?
            endpoint.withConnection(connection) { engine in
                do throws(StreamError) {
                    opened = try engine.openStream(.bidirectional)
                } catch { failure = error }
            }
            if case .limitReached = failure { return }
            guard let id = opened else {
                return fail("no stream can be opened: \(failure.map { "\($0)" } ?? "the connection is gone")")
            }
            waiting.removeFirst()
            let stream = Stream(id, plan)
            if streams.updateValue(stream, forKey: id) != nil { fail("stream \(id) was opened twice") }
            write(id, stream, connection, endpoint)
        }
    }

    private func write(
        _ id: StreamID, _ stream: Stream, _ connection: ConnectionRecord, _ endpoint: SimulatedEndpoint
    ) {
        var failure: StreamError?
        endpoint.withConnection(connection) { engine in
            do throws(StreamError) {
                try stream.writer.write(to: id, of: &engine, limit: sendBufferLimit)
            } catch { failure = error }
        }
        if let failure { fail("stream \(id): writing failed: \(failure)") }
    }

    private func read(
        _ id: StreamID, _ stream: Stream, _ connection: ConnectionRecord, _ endpoint: SimulatedEndpoint
    ) {
        var failure: StreamError?
        var received = 0
        endpoint.withConnection(connection) { engine in
            do throws(StreamError) {
                while !stream.isDownloadFinished {
                    let result = try engine.read(id, into: scratch)
                    stream.reader.accept(UnsafeRawBufferPointer(rebasing: scratch[..<result.count]), of: id)
                    received += result.count
                    stream.isDownloadFinished = result.isFinished
                    if result.count == 0 { break }
                }
            } catch { failure = error }
        }
        if let failure { fail("stream \(id): reading failed: \(failure)") }
        if let fault = stream.reader.fault { fail(fault) }
        if stream.isDownloadFinished, stream.reader.offset != stream.plan.download {
            fail("stream \(id) ended after \(stream.reader.offset) of \(stream.plan.download) bytes")
        }
        if received > 0 { noteDelivery(received, at: endpoint.network.now) }
    }

    private func noteDelivery(_ count: Int, at now: Instant) {
        downloadedBytes += count
        if let lastDelivery, now - lastDelivery > largestGap {
            largestGap = now - lastDelivery
            largestGapEnd = now
        }
        lastDelivery = now
    }

    private func finishIfDone(_ stream: Stream, _ endpoint: SimulatedEndpoint) {
        guard stream.isDownloadFinished, stream.isUploadAcknowledged, !stream.isDone else { return }
        stream.isDone = true
        finishedStreams += 1
        if finishedStreams == plans.count { finishedAt = endpoint.network.now }
    }

    private func fail(_ reason: String) {
        if fault == nil { fault = "client: " + reason }
    }
}
