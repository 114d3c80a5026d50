// SPDX-License-Identifier: Apache-2.0

import QUICProtocol

/// The sending end of a stream whose bytes a `Content` key makes up: writes as much as back-pressure allows.
struct ContentWriter {
    private static let chunkSize = 16 * 1024

    let key: UInt64
    /// Bytes of content, after the header.
    let count: Int
    /// Sent before the content.
    var header: [UInt8]
    private(set) var offset = 0
    private(set) var isFinished = false

    init(key: UInt64, count: Int, header: [UInt8] = []) {
        self.key = key
        self.count = count
        self.header = header
    }

    /// Writes until the stream holds more than `limit` bytes, which makes the engine tell when there is room again, or
    /// until all is written.
    mutating func write(to stream: StreamID, of connection: inout QUICConnection, limit: Int) throws(StreamError) {
        while !isFinished, connection.sendBuffered(stream) <= limit {
            let size = min(Self.chunkSize, count - offset)
            let (key, offset, header) = (key, offset, header)
            let chunk = [UInt8](unsafeUninitializedCapacity: header.count + size) { buffer, initializedCount in
                let bytes = UnsafeMutableRawBufferPointer(buffer)
                bytes.copyBytes(from: header)
                let content = UnsafeMutableRawBufferPointer(rebasing: bytes[header.count..<header.count + size])
                Content.fill(content, key: key, offset: offset)
                initializedCount = header.count + size
            }
            self.header = []
            self.offset += size
            isFinished = self.offset == count
            try connection.write(SharedBytes(copying: chunk), to: stream, finish: isFinished)
        }
    }
}

/// The receiving end: checks every byte against its offset.
struct ContentReader {
    let key: UInt64
    private(set) var offset = 0
    /// What is wrong with the bytes received, if anything is.
    private(set) var fault: String?

    init(key: UInt64) {
        self.key = key
    }

    mutating func accept(_ bytes: UnsafeRawBufferPointer, of stream: StreamID) {
        if fault == nil, let place = Content.firstDifference(in: bytes, key: key, offset: offset) {
            fault = "stream \(stream): the byte at offset \(offset + place) is not the one that was sent"
        }
        offset += bytes.count
    }
}

/// The keys of the contents of a stream, one a direction.
enum ContentKey {
    static func upload(_ stream: StreamID) -> UInt64 { stream.rawValue &* 2 &+ 0x5445_524e_0000_0001 }
    static func download(_ stream: StreamID) -> UInt64 { stream.rawValue &* 2 &+ 0x5445_524e_0000_0002 }
}
