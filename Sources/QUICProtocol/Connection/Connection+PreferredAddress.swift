// SPDX-License-Identifier: Apache-2.0

/// Moving to an address that the server prefers (RFC 9000, section 9.6; `M30`, `M31`).
extension QUICConnection {
    /// The addresses at which the server may be reached: that of the handshake, and those it announced as preferred, but for
    /// such as must not be sent to (M41). Paths can be added to these and to no others. On a server empty.
    public var serverAddresses: [NetworkAddress] { role == .client ? preferred.serverAddresses : [] }

    // MARK: The client

    /// Takes note of what the server announced. What may not be sent to is left out, as if it had not been announced.
    mutating func notePreferredAddress(_ address: PreferredAddress) {
        let current = paths.active.tuple.remote
        preferred.announced = [address.ipv4, address.ipv6].compactMap { $0 }
            .map { $0.inScope(of: current) }
            .filter { $0 != current && AddressPolicy.refusal(of: $0, knownAs: current) == nil }
    }

    /// Asks whoever knows the sockets from where the preferred addresses could be reached. The family in use comes first: a
    /// client that moves stays with it if it can (RFC 9000, section 9.6.3).
    mutating func offerPreferredAddress() {
        guard role == .client, configuration.followsPreferredAddress, handshake.isConfirmed, isOpen(),
            preferred.progress != .moved, !preferred.announced.isEmpty
        else { return }
        let current = paths.active.tuple.remote
        guard current == preferred.handshakeAddress else { return }
        // Begun from an address that we have left, it goes on from where we are now (section 9.6.3).
        giveUpPreferredPath()
        preferred.progress = .offered
        let (same, other) = (
            preferred.announced.filter { $0.family == current.family },
            preferred.announced.filter { $0.family != current.family }
        )
        events.append(.preferredAddressOffered(same + other))
    }

    /// Answers the event `.preferredAddressOffered`: proves one way after the other until the server answers on one, and
    /// then moves there. Stays where it is if none is given, and if none works.
    ///
    /// - Parameter tuples: ways to the addresses offered, the best first. Others are passed over.
    public mutating func followPreferredAddress(over tuples: [FourTuple], now: Instant) {
        clock = now
        guard isOpen(), preferred.progress == .offered else { return }
        let usable = tuples.filter { preferred.announced.contains($0.remote) }
        validatePreferredAddress(over: Array(usable.prefix(PathTable.maximumPaths)), now: now)
    }

    private mutating func validatePreferredAddress(over tuples: [FourTuple], now: Instant) {
        preferred.progress = .staying
        for (number, tuple) in tuples.enumerated() {
            let others = Array(tuples[(number + 1)...])
            let known = paths.index(of: tuple)
            // The application was quicker.
            if let known, paths[known].isValidated { return moveToPreferredAddress(at: known, now: now) }
            guard known != nil || !paths.isFull else { continue }
            let index = known ?? addClientPath(over: tuple)
            preferred.progress = .validating(paths[index].id, isApplications: known != nil, others: others)
            guard !paths[index].validator.isRunning else { return }
            startValidation(ofPathAt: index, now: now)
            paths[index].isWaitingForConnectionID = true
            events.append(.path(.probing(paths[index].id)))
            return serveWaitingPaths(now: now)
        }
    }

    /// A path was proved: the one to the preferred address, perhaps.
    mutating func clientPathValidated(_ id: PathID, now: Instant) {
        guard let index = paths.index(of: id) else { return }
        preferred.prove(paths[index].tuple.remote)
        if case .validating(id, _, _) = preferred.progress { moveToPreferredAddress(at: index, now: now) }
    }

    /// A path failed: the one to the preferred address, perhaps. The next way is tried then.
    mutating func preferredPathFailed(_ id: PathID, now: Instant) {
        guard case .validating(id, _, let others) = preferred.progress else { return }
        giveUpPreferredPath()
        validatePreferredAddress(over: others, now: now)
    }

    /// A socket is gone, and with it perhaps the way that was being proved.
    mutating func preferredPathsLost(now: Instant) {
        guard case .validating(let id, _, _) = preferred.progress, let index = paths.index(of: id),
            paths[index].state == .transportLost
        else { return }
        preferredPathFailed(id, now: now)
    }

    private mutating func giveUpPreferredPath() {
        guard case .validating(let id, let isApplications, _) = preferred.progress else { return }
        preferred.progress = .staying
        guard !isApplications, let index = paths.index(of: id), index != paths.activeIndex else { return }
        removePath(at: index)
    }

    private mutating func moveToPreferredAddress(at index: Int, now: Instant) {
        guard index != paths.activeIndex else { return }
        activate(index, reason: .preferredAddress)
    }

    /// A client sends its data another way now: to another address of the server's, or from another one of its own.
    mutating func activePathChanged(from old: PathID) {
        guard role == .client else { return }
        if paths.active.tuple.remote == preferred.handshakeAddress {
            offerPreferredAddress()
        } else if preferred.progress != .moved {
            giveUpPreferredPath()
            preferred.progress = .moved
            abandonHandshakeAddress(leaving: old)
        }
    }

    /// Validations towards the old address are abandoned, and so is the address (RFC 9000, sections 9.6.1 and 9.6.3); but
    /// what the server sent before it followed is still on its way from there.
    private mutating func abandonHandshakeAddress(leaving old: PathID) {
        var delay = probeTimeout(in: .application)
        for id in (0..<paths.count).map({ paths[$0].id }) where id != paths.activeID {
            guard let index = paths.index(of: id), paths[index].tuple.remote == preferred.handshakeAddress else {
                continue
            }
            if id == old || paths[index].wasActive {
                delay = max(delay, paths[index].recovery.rtt.pto(maxAckDelay: peerParameters.maxAckDelay))
            } else {
                removePath(at: index)
            }
        }
        preferred.abandonsHandshakeAddressAt = clock + delay * 3
    }

    mutating func preferredAddressDeadlineExpired(now: Instant) {
        guard now >= preferred.abandonsHandshakeAddressAt else { return }
        preferred.abandonsHandshakeAddressAt = .distantFuture
        for id in (0..<paths.count).map({ paths[$0].id }) where id != paths.activeID {
            guard let index = paths.index(of: id), paths[index].tuple.remote == preferred.handshakeAddress else {
                continue
            }
            removePath(at: index)
        }
    }

    // MARK: The server

    /// Whether the peer must answer a challenge before it is followed to a path, rather than under way: when the path
    /// leads from another address of ours, as the preferred one does (RFC 9000, section 9.6.2), and after too many moves that
    /// failed (M41). An attacker who races copies ahead then gets challenges, and the peer keeps its connection.
    func mustProveBeforeFollowing(toPathAt index: Int) -> Bool {
        guard !paths[index].isValidated else { return false }
        if moves.failed == PeerMoves.maximumFailed, paths.active.isValidated { return true }
        return configuration.preferredAddresses != nil && paths[index].tuple.local != paths.active.tuple.local
    }

    /// The client's newest packet came on a path that must be proved first: it is followed when that is done. Until then we go
    /// on sending on the old one.
    mutating func awaitProof(ofPathAt index: Int, now: Instant) {
        preferred.awaitedMove = paths[index].id
        prepareProof(ofPathAt: index, now: now)
    }
}

extension NetworkAddress {
    /// A link-local address is one on the link on which it was heard of.
    fileprivate func inScope(of other: NetworkAddress) -> NetworkAddress {
        guard isLinkLocal, other.isLinkLocal, let halves = ipv6 else { return self }
        return NetworkAddress(ipv6: halves.high, halves.low, port: port, scopeID: other.scopeID)
    }
}
