// SPDX-License-Identifier: Apache-2.0

/// Where a client's data goes when the path in use has lost its socket (M7; decision 0032).
extension QUICConnection {
    /// Says how much the application wants its data on a path when the connection must choose by itself. The peer is not
    /// told.
    ///
    /// - Parameters:
    ///   - priority: nil, as at first: the path is used only when the application switches to it.
    public mutating func setPriority(
        _ priority: PathPriority?, of id: PathID, now: Instant
    ) throws(MigrationError) {
        clock = now
        let index = try index(ofPath: id)
        guard role == .client else { throw .serverCannotMigrate }
        guard paths[index].priority != priority else { return }
        paths[index].priority = priority
        events.append(.path(.priorityChanged(id, priority)))
        leaveLostPath(now: now)
    }

    /// The priorities that the application gave, for a policy that begins now.
    public var pathPriorities: [PathID: PathPriority] {
        var priorities: [PathID: PathPriority] = [:]
        for index in 0..<paths.count { priorities[paths[index].id] = paths[index].priority }
        return priorities
    }

    /// Goes on elsewhere if the socket under the active path is gone: on the validated path of the highest priority, of
    /// equal ones on that with the shortest round trip. Without such a path the application is waited for, or a path that
    /// is validated later.
    mutating func leaveLostPath(now: Instant) {
        guard role == .client, isOpen(), paths.active.state == .transportLost else { return }
        var usable: [(id: PathID, priority: PathPriority, rtt: Nanoseconds)] = []
        for index in 0..<paths.count where paths[index].isValidated {
            guard let priority = paths[index].priority else { continue }
            usable.append((paths[index].id, priority, paths[index].recovery.rtt.smoothed))
        }
        usable.sort { $0.priority == $1.priority ? $0.rtt < $1.rtt : $0.priority > $1.priority }
        for path in usable {
            do throws(MigrationError) {
                return try switchPath(to: path.id, withoutValidation: false, reason: .fallback, now: now)
            } catch {
                // No connection ID is left for it, or the application's policy forbids it: the next one may do.
            }
        }
    }
}
