// SPDX-License-Identifier: Apache-2.0

@testable import QUICProtocol

/// TLS settings for both sides, made once.
struct Credentials: Sendable {
    static let shared = Result { () throws(FuzzFailure) in try Credentials() }

    static let protocolName = "fuzz"
    static let serverName = "localhost"

    let client: TLSContext
    let server: TLSContext

    init() throws(FuzzFailure) {
        let certificate = try prepare {
            try SelfSignedCertificate.generate(
                commonName: Self.serverName, dnsNames: [Self.serverName], ipAddresses: [NetworkAddress](), validFor: 30)
        }
        var serverSettings = TLSSettings()
        serverSettings.certificateChain = [certificate.certificate]
        serverSettings.privateKey = certificate.privateKey
        serverSettings.applicationProtocols = [Self.protocolName]
        var clientSettings = TLSSettings()
        clientSettings.trustRoots = .certificates([certificate.certificate])
        clientSettings.applicationProtocols = [Self.protocolName]
        server = try prepare { try TLSContext(serverSettings, role: .server) }
        client = try prepare { try TLSContext(clientSettings, role: .client) }
    }

    func context(for role: Role) -> TLSContext { role == .client ? client : server }
}

/// What the connections under test are set to: limits so low that a few kilobytes of input reach them.
enum FuzzSettings {
    static let window: UInt64 = 256 * 1_024
    static let streamWindow: UInt64 = 64 * 1_024
    static let streams: UInt64 = 16

    static var connection: ConnectionConfiguration {
        var configuration = ConnectionConfiguration()
        configuration.initialMaxData = window
        configuration.maximumReceiveWindow = window
        configuration.initialMaxStreamData = streamWindow
        configuration.maximumStreamReceiveWindow = streamWindow
        configuration.maxBidirectionalStreams = streams
        configuration.maxUnidirectionalStreams = streams
        configuration.sendBufferLimit = 64 * 1_024
        return configuration
    }

    /// What the peer declares.
    static var peerParameters: TransportParameters {
        var parameters = TransportParameters()
        parameters.maxIdleTimeout = .seconds(30)
        parameters.initialMaxData = 1 << 20
        parameters.initialMaxStreamDataBidiLocal = 1 << 18
        parameters.initialMaxStreamDataBidiRemote = 1 << 18
        parameters.initialMaxStreamDataUni = 1 << 18
        parameters.initialMaxStreamsBidi = 8
        parameters.initialMaxStreamsUni = 8
        parameters.activeConnectionIDLimit = 8
        return parameters
    }
}
