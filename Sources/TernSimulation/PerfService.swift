// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// The server of the ALPN `perf`: the first eight bytes of a stream, big-endian, say how many bytes the client wants;
/// it may upload after them. What it uploads is checked, what it gets is checkable.
public final class PerfService: SimulatedApplication {
    /// The largest answer a client may ask for.
    public static let requestLimit = 1 << 40

    private final class Stream {
        var request: [UInt8] = []
        var upload: ContentReader
        var writer: ContentWriter?
        var isUploadFinished = false

        init(_ id: StreamID) {
            upload = ContentReader(key: ContentKey.upload(id))
        }
    }

    private struct Key: Hashable {
        var connection: ConnectionHandle
        var stream: StreamID
    }

    /// Waits so long between a request and its answer, as a server does that has to think.
    public var thinkTime: Nanoseconds = .zero
    /// Bytes of uploads received, all streams together.
    public private(set) var uploadedBytes = 0
    /// Streams whose upload came to its end.
    public private(set) var finishedUploads = 0
    /// The first thing that went wrong.
    public private(set) var fault: String?
    private let sendBufferLimit: Int
    private var streams: [Key: Stream] = [:]
    private let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)

    public init(sendBufferLimit: Int) {
        self.sendBufferLimit = sendBufferLimit
    }

    deinit { scratch.deallocate() }

    public func handle(_ event: ConnectionEvent, on connection: ConnectionRecord, of endpoint: SimulatedEndpoint) {
        switch event {
        case .streamOpened(let id):
            streams[Key(connection: connection.handle, stream: id)] = Stream(id)
        case .streamReadable(let id):
            guard let stream = streams[Key(connection: connection.handle, stream: id)] else {
                return fail("stream \(id) was readable and never opened")
            }
            read(id, stream, connection, endpoint)
        case .streamWritable(let id):
            guard let stream = streams[Key(connection: connection.handle, stream: id)] else { return }
            write(id, stream, connection, endpoint)
        default: break
        }
    }

    private func read(
        _ id: StreamID, _ stream: Stream, _ connection: ConnectionRecord, _ endpoint: SimulatedEndpoint
    ) {
        let hadRequest = stream.writer != nil
        var failure: StreamError?
        endpoint.withConnection(connection) { engine in
            do throws(StreamError) {
                while !stream.isUploadFinished {
                    let result = try engine.read(id, into: scratch)
                    accept(result.count, id, stream)
                    if result.isFinished {
                        stream.isUploadFinished = true
                        finishedUploads += 1
                    } else if result.count == 0 {
                        break
                    }
                }
            } catch { failure = error }
        }
        if let failure { fail("stream \(id): reading failed: \(failure)") }
        if let fault = stream.upload.fault { fail(fault) }
        if stream.isUploadFinished, stream.request.count < 8 { fail("stream \(id) ended within its request") }
        guard !hadRequest, stream.writer != nil else { return }
        if thinkTime == .zero {
            write(id, stream, connection, endpoint)
        } else {
            endpoint.network.scheduler.schedule(after: thinkTime) { [self] in write(id, stream, connection, endpoint) }
        }
    }

    private func accept(_ count: Int, _ id: StreamID, _ stream: Stream) {
        let missing = min(8 - stream.request.count, count)
        stream.request += scratch[..<missing]
        if stream.request.count == 8, stream.writer == nil {
            let wanted = stream.request.reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            if wanted > UInt64(Self.requestLimit) {
                fail("stream \(id) asks for \(wanted) bytes")
            } else {
                stream.writer = ContentWriter(key: ContentKey.download(id), count: Int(wanted))
            }
        }
        uploadedBytes += count - missing
        stream.upload.accept(UnsafeRawBufferPointer(rebasing: scratch[missing..<count]), of: id)
    }

    private func write(
        _ id: StreamID, _ stream: Stream, _ connection: ConnectionRecord, _ endpoint: SimulatedEndpoint
    ) {
        guard connection.closeReason == nil else { return }
        var failure: StreamError?
        endpoint.withConnection(connection) { engine in
            do throws(StreamError) {
                try stream.writer?.write(to: id, of: &engine, limit: sendBufferLimit)
            } catch { failure = error }
        }
        if let failure { fail("stream \(id): writing failed: \(failure)") }
    }

    private func fail(_ reason: String) {
        if fault == nil { fault = "server: " + reason }
    }
}
