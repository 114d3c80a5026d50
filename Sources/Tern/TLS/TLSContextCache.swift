// SPDX-License-Identifier: Apache-2.0

internal import NIOSSL
internal import Synchronization

/// The TLS contexts made of the configurations used last. Reading trust roots and keys takes milliseconds, and a session can
/// be resumed only under the context that it began under.
final class TLSContextCache: Sendable {
    static let shared = TLSContextCache()
    static let maximumEntries = 16

    private struct Entry {
        var configuration: TLSConfiguration
        var applicationProtocols: [String]
        var role: Role
        var context: TLSContext
    }

    /// The last used last.
    private let entries = Mutex<[Entry]>([])

    func context(
        for configuration: TLSConfiguration, applicationProtocols: [String], role: Role
    ) throws(TernError) -> TLSContext {
        if let known = find(configuration, applicationProtocols, role) { return known }
        let settings = try TLSSettings(configuration, applicationProtocols: applicationProtocols, role: role)
        let context: TLSContext
        do throws(TLSConfigurationError) {
            context = try TLSContext(settings, role: role)
        } catch {
            throw .tls("\(error)")
        }
        entries.withLock { entries in
            if entries.count >= Self.maximumEntries { entries.removeFirst() }
            entries.append(
                Entry(
                    configuration: configuration, applicationProtocols: applicationProtocols, role: role,
                    context: context))
        }
        return context
    }

    private func find(_ configuration: TLSConfiguration, _ protocols: [String], _ role: Role) -> TLSContext? {
        entries.withLock { entries in
            let index = entries.lastIndex {
                $0.role == role && $0.applicationProtocols == protocols
                    && $0.configuration.bestEffortEquals(configuration)
            }
            guard let index else { return nil }
            let entry = entries.remove(at: index)
            entries.append(entry)
            return entry.context
        }
    }
}
