// SPDX-License-Identifier: Apache-2.0

public import QUICProtocol

/// What a simulated endpoint knows about one of its connections, kept after the connection is gone.
public final class ConnectionRecord {
    public let handle: ConnectionHandle
    public let role: Role
    public let openedAt: Instant
    public internal(set) var handshakeCompletedAt: Instant?
    public internal(set) var handshakeConfirmedAt: Instant?
    public internal(set) var applicationProtocol: String?
    /// Set by the event that says so.
    public internal(set) var closeReason: CloseReason?
    public internal(set) var closedAt: Instant?
    /// When the endpoint forgot it, after draining.
    public internal(set) var removedAt: Instant?
    public internal(set) var datagramsSent = 0
    public internal(set) var bytesSent = 0
    public internal(set) var datagramsReceived = 0
    public internal(set) var bytesReceived = 0
    /// Datagrams that the socket refused.
    public internal(set) var failedSends = 0
    /// The most paths the connection was seen to hold at once.
    public internal(set) var mostPaths = 0
    /// What happened to its paths, the oldest first, up to `pathEventLimit`.
    public private(set) var pathEvents: [TimedPathEvent] = []
    public private(set) var peerMoveCount = 0
    public private(set) var switchCount = 0
    public private(set) var validationCount = 0
    /// Connection IDs of the peer's that this side put into short headers, counted once each.
    public var destinationIDCount: Int { books.addressByDestinationID.count }
    /// Of those, how many went to more than one address of the peer's.
    public var sharedDestinationIDCount: Int { books.sharedDestinationIDCount }

    public struct TimedPathEvent: Sendable {
        public var instant: Instant
        public var event: PathEvent
    }

    public static let pathEventLimit = 50_000

    /// What the invariants need to know of its past.
    var books = ConnectionBooks()
    var isTouched = false
    var deadline: Instant?
    /// When the pending wake-up runs, perhaps before the deadline.
    var wakeAt: Instant?
    var wakeNumber = 0
    /// False once the connection is gone or its endpoint was replaced.
    var isLive = true

    init(handle: ConnectionHandle, role: Role, openedAt: Instant) {
        self.handle = handle
        self.role = role
        self.openedAt = openedAt
    }

    func note(_ event: ConnectionEvent, at instant: Instant) {
        switch event {
        case .handshakeCompleted(let applicationProtocol):
            handshakeCompletedAt = instant
            self.applicationProtocol = applicationProtocol
        case .handshakeConfirmed:
            handshakeConfirmedAt = instant
        case .closed(let reason):
            closeReason = reason
            closedAt = instant
        case .path(let event):
            if pathEvents.count < Self.pathEventLimit {
                pathEvents.append(TimedPathEvent(instant: instant, event: event))
            }
            switch event {
            case .peerMoved: peerMoveCount += 1
            case .switched: switchCount += 1
            case .validated: validationCount += 1
            default: break
            }
        default: break
        }
    }
}
