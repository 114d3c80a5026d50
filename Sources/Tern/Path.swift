// SPDX-License-Identifier: Apache-2.0

/// One way from here to the peer: a local and a remote address, with its own round-trip time, congestion state and
/// connection ID.
///
/// A `Path` is a name: it may outlive the path it names. Calls on one that is gone throw `MigrationError.unknownPath`, and on
/// a connection that has ended its `CloseReason`, inside `MigrationError.connectionClosed`.
public struct Path: Sendable, Identifiable {
    public let id: PathID
    let tuple: FourTuple
    let driver: ConnectionDriver

    /// Our address, as far as this host knows it: a NAT may show another to the peer.
    public var localAddress: NetworkAddress { tuple.local }
    public var remoteAddress: NetworkAddress { tuple.remote }

    /// What is known of the path's reachability; nil once it is closed.
    public var state: PathState? { driver.published.withLock { $0.path(id)?.state } }

    /// Whether the peer answered a challenge here, or completed the handshake.
    public var isValidated: Bool { state == .validated }

    /// Whether the application's data goes this way.
    public var isActive: Bool { driver.published.withLock { $0.activePath == id } }

    /// What ``setPriority(_:)`` set last; nil, as at first: the path is used only when the application switches to it.
    public var priority: PathPriority? { driver.published.withLock { $0.path(id)?.priority } }

    /// Round-trip times, congestion window and counters, as they are now; nil once the path is closed.
    public var statistics: PathSnapshot? {
        get async {
            await driver.call { [id] connection, _ in connection.pathSnapshot(id) } ?? nil
        }
    }

    /// How ``switch(_:)`` goes about it.
    public enum SwitchMode: Hashable, Sendable {
        /// Only to a path that is validated: no data is lost, the old path stays as it is.
        case validated
        /// At once, and validates under way: for when the old path is gone.
        case withoutValidation
    }

    /// Asks the peer whether it can be reached this way (RFC 9000, section 8.2). A validated path can be probed again, at any
    /// time; probes of several paths run at once.
    ///
    /// Waits for the handshake's confirmation first, if need be. Cancelling the task cancels the probe (and throws
    /// `MigrationError.cancelled`).
    ///
    /// - Parameter timeout: for all of it; challenges are repeated until then.
    /// - Throws: `.timedOut`, `.noConnectionIDAvailable` (the peer gave no spare ID in time), `.transportLost` and others.
    @discardableResult
    public func probe(timeout: Duration = .seconds(3)) async throws(MigrationError) -> ProbeReport {
        try await migrating { () async throws -> ProbeReport in try await driver.probe(id, timeout: timeout) }
    }

    /// Sends the application's data this way from now on, under a connection ID that was not seen on any other path
    /// (RFC 9000, sections 9.2 and 9.5).
    ///
    /// - Throws: `.notValidated` if no probe has succeeded yet, in mode `.withoutValidation` only towards an address of the
    ///   server's that has never answered; `.noConnectionIDAvailable`, `.transportLost`, `.migrationDisabled` and others.
    public func `switch`(_ mode: SwitchMode = .validated) async throws(MigrationError) {
        try await migrating { () async throws in
            try await driver.switchPath(to: id, withoutValidation: mode == .withoutValidation)
        }
    }

    /// Says how much the data is wanted here when the connection must choose by itself. Nothing is sent; the path keeps its
    /// priority until it is closed.
    ///
    /// When the socket under the active path is closed or fails, the data goes on at once over the validated path of the
    /// highest priority, of equal ones over that with the shortest round trip; if none is validated yet, over the first
    /// that is (`SwitchReason.fallback`). A path without a priority is not chosen: while none has one, the connection
    /// stays where it is until you ``switch(_:)``. The connection does not go back by itself.
    ///
    /// With ``Connection/migration`` `.automatic` a path's priority comes before its network's rank, in every choice among
    /// networks that the policy has a path over; one without a priority counts as `.available`. With `.disabled` it has no
    /// effect.
    ///
    /// ```swift
    /// let cellular = try await connection.addPath(over: mobile)
    /// try await cellular.probe()
    /// try await cellular.setPriority(.backup)  // Where to go when WiFi's socket is lost.
    /// ```
    ///
    /// - Throws: `.serverCannotMigrate`, `.unknownPath`, `.connectionClosed`.
    public func setPriority(_ priority: PathPriority?) async throws(MigrationError) {
        try await migrating { () async throws in try await driver.setPriority(priority, of: id) }
    }

    /// Gives the path up and retires its connection IDs. Twice is harmless; its transport stays open.
    ///
    /// - Throws: `.pathActive` if the application's data goes this way.
    public func close() async throws(MigrationError) {
        try await migrating { () async throws in try await driver.closePath(id) }
    }

    private func migrating<R>(_ body: () async throws -> R) async throws(MigrationError) -> R {
        do {
            return try await body()
        } catch let error as MigrationError {
            throw error
        } catch let reason as CloseReason {
            throw .connectionClosed(reason)
        } catch {
            // What is left is the cancellation of the task.
            throw .cancelled(id)
        }
    }
}

extension Path: Hashable {
    public static func == (a: Path, b: Path) -> Bool { a.id == b.id && a.driver === b.driver }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(id)
        hasher.combine(ObjectIdentifier(driver))
    }
}

extension Path: CustomStringConvertible {
    public var description: String { "\(id) (\(tuple))" }
}

/// What a successful probe found.
public struct ProbeReport: Hashable, Sendable {
    /// From the answered challenge to its response.
    public var rtt: Duration
    /// Challenges sent until one was answered.
    public var challenges: Int
}
