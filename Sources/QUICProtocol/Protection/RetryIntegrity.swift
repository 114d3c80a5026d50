// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// The Retry Integrity Tag (RFC 9001, section 5.8): it shows that a Retry packet answers a packet that its sender saw.
enum RetryIntegrity {
    static let tagLength = 16

    /// The tag of a Retry packet, empty for a version that this engine does not speak.
    ///
    /// - Parameters:
    ///   - originalDestinationConnectionID: of the Initial packet that the Retry answers.
    ///   - retryPacketWithoutTag: the Retry packet from its first byte up to the tag.
    static func tag(
        version: QUICVersion, originalDestinationConnectionID: ConnectionID,
        retryPacketWithoutTag: UnsafeRawBufferPointer
    ) -> [UInt8] {
        guard let constants = KeyScheduleConstants.constants(for: version) else { return [] }
        var pseudoPacket = [UInt8]()
        pseudoPacket.reserveCapacity(1 + ConnectionID.maximumLength + retryPacketWithoutTag.count)
        pseudoPacket.append(originalDestinationConnectionID.length)
        originalDestinationConnectionID.withUnsafeBytes { pseudoPacket.append(contentsOf: $0) }
        pseudoPacket.append(contentsOf: retryPacketWithoutTag)
        var tag = [UInt8](repeating: 0, count: tagLength)
        let made = tern_aes128_gcm_tag(
            constants.retryKey, constants.retryNonce, pseudoPacket, pseudoPacket.count, &tag)
        return made == 1 ? tag : []
    }

    /// Whether the tag that ended a Retry packet shows that it answers a packet to this connection ID.
    static func isValid(
        tag: [UInt8], version: QUICVersion, originalDestinationConnectionID: ConnectionID,
        retryPacketWithoutTag: UnsafeRawBufferPointer
    ) -> Bool {
        let expected = self.tag(
            version: version, originalDestinationConnectionID: originalDestinationConnectionID,
            retryPacketWithoutTag: retryPacketWithoutTag)
        guard expected.count == tagLength, tag.count == tagLength else { return false }
        return tern_equal(expected, tag, tagLength) == 1
    }
}
