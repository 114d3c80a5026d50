// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

extension Worker {
    /// Hands each datagram of one read to the endpoint. Nothing is sent before `serviceTouched`, but for stateless answers.
    func received(_ envelope: AddressedEnvelope<ByteBuffer>, on socket: UDPSocket) {
        guard let remote = NetworkAddress(envelope.remoteAddress), remote.port != 0 else { return }
        let tuple = FourTuple(
            transport: socket.id, local: socket.localAddress(from: envelope.metadata?.packetInfo), remote: remote)
        let ecn = ECNCodepoint(envelope.metadata?.ecnState ?? .transportNotCapable)
        let merged = envelope.metadata?.segmentSize ?? 0
        envelope.data.withUnsafeReadableBytes { bytes in
            // Packets are decrypted where they lie. The storage is NIO's pooled read buffer; this slice of it was made for
            // this envelope, the handler is the channel's last, and the pool fills the buffer anew only when no envelope
            // refers to it any more: nobody else reads these bytes.
            received(
                UnsafeMutableRawBufferPointer(mutating: bytes), segmentSize: merged > 0 ? merged : bytes.count,
                tuple: tuple, ecn: ecn, on: socket)
        }
    }

    /// The same for datagrams of one sender, each of `segmentSize` bytes but for the last. They are overwritten.
    func received(
        _ bytes: UnsafeMutableRawBufferPointer, segmentSize: Int, tuple: FourTuple, ecn: ECNCodepoint,
        on socket: UDPSocket
    ) {
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
