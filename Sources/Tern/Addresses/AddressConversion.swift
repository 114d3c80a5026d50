// SPDX-License-Identifier: Apache-2.0

internal import CTernSocket
internal import NIOCore

#if canImport(Darwin)
internal import Darwin
#elseif canImport(Musl)
internal import Musl
#else
internal import Glibc
#endif

extension NetworkAddress {
    /// Nil for a Unix domain socket's. Reads the system's structure in place: this runs for every read.
    init?(_ address: SocketAddress) {
        switch address {
        case .v4(let inet):
            let raw = inet.address
            self.init(ipv4: UInt32(bigEndian: raw.sin_addr.s_addr), port: UInt16(bigEndian: raw.sin_port))
        case .v6(let inet6):
            let raw = inet6.address
            let halves = withUnsafeBytes(of: raw.sin6_addr) {
                ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            }
            self.init(
                ipv6: UInt64(bigEndian: halves.0), UInt64(bigEndian: halves.1), port: UInt16(bigEndian: raw.sin6_port),
                scopeID: raw.sin6_scope_id)
        case .unixDomainSocket:
            return nil
        }
    }

    /// An address as the C module writes it.
    init(_ address: tern_address) {
        if address.family == 6 {
            self.init(ipv6: address.high, address.low, port: address.port, scopeID: address.scope_id)
        } else {
            self.init(ipv4: UInt32(truncatingIfNeeded: address.low), port: address.port)
        }
    }

    /// The form that the C module reads.
    var cAddress: tern_address {
        if let halves = ipv6 {
            return tern_address(high: halves.high, low: halves.low, scope_id: scopeID, port: port, family: 6)
        }
        return tern_address(high: 0, low: UInt64(ipv4 ?? 0), scope_id: 0, port: port, family: 4)
    }

    /// The same IP address with the scope that a link-local one needs to be reached.
    func scoped(toInterface index: Int) -> NetworkAddress {
        guard family == .ipv6, isLinkLocal, let halves = ipv6 else { return self }
        return NetworkAddress(ipv6: halves.high, halves.low, port: port, scopeID: UInt32(clamping: index))
    }

    /// `0.0.0.0` or `[::]` with this port.
    static func unspecified(_ family: Family, port: UInt16) -> NetworkAddress {
        family == .ipv4 ? NetworkAddress(ipv4: 0, port: port) : NetworkAddress(ipv6: 0, 0, port: port)
    }
}

extension ECNCodepoint {
    init(_ state: NIOExplicitCongestionNotificationState) {
        switch state {
        case .transportNotCapable: self = .notECT
        case .transportCapableFlag0: self = .ect0
        case .transportCapableFlag1: self = .ect1
        case .congestionExperienced: self = .ce
        }
    }
}

/// The system's words for an `errno`.
func systemErrorText(_ errno: Int32) -> String {
    strerror(errno).map { String(cString: $0) } ?? "unknown error"
}
