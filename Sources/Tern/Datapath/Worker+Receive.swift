// SPDX-License-Identifier: Apache-2.0

extension Worker {
    /// Hands datagrams of one sender, each of `segmentSize` bytes but for the last, to the endpoint. They are overwritten. Nothing
    /// is sent before `serviceTouched`, but for stateless answers.
    func received(
        _ bytes: UnsafeMutableRawBufferPointer, segmentSize: Int, tuple: FourTuple, ecn: ECNCodepoint,
        on socket: UDPSocket
    ) {
        guard tuple.remote.port != 0 else { return }
        let accepting = socket.listener?.acceptingConfiguration
        let now = now()
        var datagrams = bytes.mutableBytes
        var offset = 0
        while offset < datagrams.byteCount {
            let outcome = endpoint.receive(
                &datagrams, from: &offset, segmentSize: segmentSize, on: tuple, ecn: ecn, accepting: accepting, now: now
            )
            switch outcome {
            case .connection(let handle):
                touch(handle)
            case .accepted(let handle):
                socket.listener?.accepted(handle, by: self)
                touch(handle)
            case .response:
                while let response = endpoint.takeResponse() { sendResponse(response, over: socket) }
            case .dropped:
                break
            }
        }
    }

    /// An answer without a connection: lost if the socket has no room, as it may be on any network.
    private func sendResponse(_ response: StatelessResponse, over socket: UDPSocket) {
        response.bytes.withUnsafeBytes {
            _ = socket.send($0, segmentSize: $0.count, tuple: response.tuple, ecn: .notECT)
        }
    }
}
