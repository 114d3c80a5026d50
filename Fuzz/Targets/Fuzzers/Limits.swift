// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

extension Subject {
    /// Nothing that a peer can fill is fuller than its limit (M40), and what is counted twice is counted alike.
    func checkLimits() throws(FuzzFailure) { try connection.checkLimits() }
}

extension QUICConnection {
    func checkLimits() throws(FuzzFailure) {
        try require(paths.count <= PathTable.maximumPaths, "\(paths.count) paths")
        try require(localIDs.active.count <= LocalConnectionIDs.maximumActive, "too many IDs of ours")
        try require(
            localIDs.allRouted.count <= LocalConnectionIDs.maximumActive + LocalConnectionIDs.maximumLingering + 1,
            "too many IDs of ours are routed")
        try require(
            localIDs.pendingAnnouncements.count <= LocalConnectionIDs.maximumActive, "too many announcements pend")
        // One too many ends the connection, and stays with what is left of it.
        try require(remoteIDs.entries.count <= (isOpen() ? 8 : 9), "too many IDs of the peer's")
        try require(
            remoteIDs.pendingRetirements.count <= RemoteConnectionIDs.maximumUnacknowledgedRetirements,
            "too many retirements pend")
        try require(
            handshake.undecryptable.count <= HandshakeState.maximumUndecryptable, "too many datagrams are kept")
        for space in PacketNumberSpaceID.allCases where spaces.has(space) {
            try require(
                spaces[space].received.rangeCount <= ReceivedPackets.maximumRanges, "too many ranges of packets")
        }
        try checkStreams()
        if isOpen() { try checkFlight() }
    }

    private func checkStreams() throws(FuzzFailure) {
        let most = Int(configuration.maxBidirectionalStreams + configuration.maxUnidirectionalStreams)
        let ours = Int(clamping: streams.localOpenings[0].opened + streams.localOpenings[1].opened)
        try require(streams.map.count <= most + ours, "\(streams.map.count) streams in the table")
        try require(
            streams.received <= streams.receiveWindow.limit, "more was taken in than the connection's window allows")
        // Each stream may have a block that it has hardly begun.
        let blocks = Int(configuration.maximumReceiveWindow) / ReceiveBlockPool.blockSize + most + ours
        try require(streams.pool.outstanding <= 2 * blocks, "\(streams.pool.outstanding) blocks of stream data")
        try require(streams.sent <= streams.sendLimit, "more was sent than the peer's MAX_DATA allows")
    }

    /// The bytes in flight of each path are those of its packets.
    private func checkFlight() throws(FuzzFailure) {
        var sums: [PathID: Int] = [:]
        for space in PacketNumberSpaceID.allCases where spaces.has(space) {
            var number = spaces[space].firstOutstanding
            while let current = number {
                if let packet = spaces[space].outstandingPacket(current) {
                    sums[packet.path, default: 0] += Int(packet.size)
                }
                number = spaces[space].nextOutstanding(after: current)
            }
        }
        for index in 0..<paths.count {
            let counted = paths[index].recovery.bytesInFlight
            let sum = sums[paths[index].id] ?? 0
            try require(counted == sum, "\(paths[index].id) counts \(counted) bytes in flight, its packets have \(sum)")
            try require(
                paths[index].recovery.congestion.window >= paths[index].recovery.congestion.minimumWindow,
                "a congestion window below the least")
        }
    }
}
