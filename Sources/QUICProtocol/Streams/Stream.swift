// SPDX-License-Identifier: Apache-2.0

/// A stream in its place in memory, from `StreamMap`, which owns it: valid until the map removes it.
///
/// A pointer rather than an object because streams are visited for every packet, and lists of them must not count
/// references. Only the stream table holds such pointers, and it unlinks a stream from every list before it removes it.
typealias StreamReference = UnsafeMutablePointer<Stream>

/// Both parts of a stream, and where it stands in the table's lists.
struct Stream: ~Copyable {
    let id: StreamID
    var send: SendStream
    var receive: ReceiveStream
    /// Events that the application has not taken yet: one of each kind at most.
    var events: StreamEventSet = []
    /// Frames about the stream that are to be sent.
    var control: StreamControlSet = []
    /// The code of our STOP_SENDING, once one is to be sent.
    var stopCode: UInt64 = 0
    fileprivate var links = InlineArray<4, StreamLink>(repeating: StreamLink())

    init(id: StreamID, send: consuming SendStream, receive: consuming ReceiveStream) {
        self.id = id
        self.send = send
        self.receive = receive
    }

    var isTerminal: Bool { receive.isTerminal && send.isTerminal }

    /// Becomes another stream, which keeps the storage of this one's buffers.
    mutating func renew(as other: consuming Stream) {
        other.send.takeStorage(of: &send)
        other.receive.takeStorage(of: &receive)
        self = other
    }
}

struct StreamEventSet: OptionSet {
    var rawValue: UInt8

    static let stopped = Self(rawValue: 1)
    static let readable = Self(rawValue: 2)
    static let writable = Self(rawValue: 4)
    static let sendClosed = Self(rawValue: 8)
}

struct StreamControlSet: OptionSet {
    var rawValue: UInt8

    static let resetStream = Self(rawValue: 1)
    static let stopSending = Self(rawValue: 2)
    static let maxStreamData = Self(rawValue: 4)
    static let streamDataBlocked = Self(rawValue: 8)
}

struct StreamLink {
    var previous: StreamReference?
    var next: StreamReference?
    var isLinked = false
}

/// A list of streams in the order they were added. The links are in the streams, one pair for each kind of list, so that
/// adding and removing neither searches nor allocates.
struct StreamList {
    /// Which pair of links a list uses. A table has one list of each kind.
    enum Kind: Int { case events, control, unmetered, fresh }

    let kind: Kind
    private(set) var first: StreamReference?
    private var last: StreamReference?

    init(_ kind: Kind) { self.kind = kind }

    var isEmpty: Bool { first == nil }

    func contains(_ stream: StreamReference) -> Bool { stream.pointee.links[kind.rawValue].isLinked }

    /// Adds the stream at the end, unless it is in the list.
    mutating func append(_ stream: StreamReference) {
        let index = kind.rawValue
        guard !stream.pointee.links[index].isLinked else { return }
        stream.pointee.links[index] = StreamLink(previous: last, next: nil, isLinked: true)
        if let last { last.pointee.links[index].next = stream } else { first = stream }
        last = stream
    }

    /// Takes the stream out, if it is in the list.
    mutating func remove(_ stream: StreamReference) {
        let index = kind.rawValue
        let link = stream.pointee.links[index]
        guard link.isLinked else { return }
        if let previous = link.previous { previous.pointee.links[index].next = link.next } else { first = link.next }
        if let next = link.next { next.pointee.links[index].previous = link.previous } else { last = link.previous }
        stream.pointee.links[index] = StreamLink()
    }

    /// Makes the stream's membership what `isMember` says.
    mutating func setMembership(_ stream: StreamReference, _ isMember: Bool) {
        guard isMember != contains(stream) else { return }
        if isMember { append(stream) } else { remove(stream) }
    }

    /// Moves the first stream to the end.
    mutating func rotate() {
        guard let first, first != last else { return }
        remove(first)
        append(first)
    }

    /// Forgets all streams, which are about to be removed themselves.
    mutating func removeAll() {
        first = nil
        last = nil
    }
}
