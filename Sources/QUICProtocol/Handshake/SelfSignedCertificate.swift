// SPDX-License-Identifier: Apache-2.0

internal import CTernCrypto

/// Certificates that nobody vouches for: for tests and demonstrations, and for peers that are given the certificate to
/// trust it.
public enum SelfSignedCertificate {
    /// Makes a key on P-256 and a certificate for it, valid from one hour ago.
    ///
    /// - Parameters:
    ///   - commonName: for people; at most 64 bytes. Clients look at the names and addresses only.
    ///   - dnsNames: in ASCII, international names in their `xn--` form.
    ///   - ipAddresses: their ports do not matter.
    ///   - days: 1 to 36,500.
    /// - Returns: the certificate in DER, and its key as PKCS #8 in DER.
    public static func generate(
        commonName: String, dnsNames: [String], ipAddresses: [NetworkAddress], validFor days: Int
    ) throws(TLSConfigurationError) -> (certificate: [UInt8], privateKey: [UInt8]) {
        try generate(commonName, dnsNames, addresses: ipAddresses.map(\.networkOrderBytes), days: days)
    }

    /// The same from the texts of addresses, and for a span of time, rounded up to days.
    public static func generate(
        commonName: String, dnsNames: [String], ipAddresses: [String], validFor duration: Duration
    ) throws(TLSConfigurationError) -> (certificate: [UInt8], privateKey: [UInt8]) {
        var addresses: [[UInt8]] = []
        for text in ipAddresses {
            var bytes = [UInt8](repeating: 0, count: 16)
            let length = tern_parse_ip_address(text, &bytes)
            guard length > 0 else {
                throw TLSConfigurationError(
                    "ipAddresses", "\"\(text)\" is not an IP address", advice: "put names among the dnsNames")
            }
            addresses.append([UInt8](bytes[..<length]))
        }
        let (days, rest) = duration.components.seconds.quotientAndRemainder(dividingBy: 86_400)
        return try generate(commonName, dnsNames, addresses: addresses, days: Int(days) + (rest > 0 ? 1 : 0))
    }

    private static func generate(
        _ commonName: String, _ dnsNames: [String], addresses: [[UInt8]], days: Int
    ) throws(TLSConfigurationError) -> (certificate: [UInt8], privateKey: [UInt8]) {
        guard let builder = tern_certificate_create() else {
            throw TLSConfigurationError("certificate", "it could not be made", advice: "check that there is memory")
        }
        defer { tern_certificate_destroy(builder) }
        let name = [UInt8](commonName.utf8)
        guard !name.isEmpty, tern_certificate_set_common_name(builder, name, name.count) == 1 else {
            throw TLSConfigurationError(
                "commonName", "\"\(commonName)\" does not fit into a certificate", advice: "use 1 to 64 bytes")
        }
        for dnsName in dnsNames {
            let bytes = [UInt8](dnsName.utf8)
            guard 1...253 ~= bytes.count, bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7f }),
                tern_certificate_add_dns_name(builder, bytes, bytes.count) == 1
            else {
                throw TLSConfigurationError(
                    "dnsNames", "\"\(dnsName)\" is not a DNS name", advice: "use 1 to 253 characters of ASCII")
            }
        }
        for bytes in addresses {
            guard tern_certificate_add_ip_address(builder, bytes, bytes.count) == 1 else {
                throw TLSConfigurationError("ipAddresses", "an address does not fit", advice: "use fewer")
            }
        }
        guard 1...36_500 ~= days, tern_certificate_sign(builder, days) == 1 else {
            throw TLSConfigurationError(
                "validFor", "a certificate for \(days) days could not be made", advice: "use 1 to 36,500 days")
        }
        var bytes: UnsafePointer<UInt8>?
        let certificateLength = tern_certificate_der(builder, &bytes)
        let certificate = [UInt8](UnsafeBufferPointer(start: bytes, count: certificateLength))
        let keyLength = tern_certificate_key(builder, &bytes)
        return (certificate, [UInt8](UnsafeBufferPointer(start: bytes, count: keyLength)))
    }
}

extension NetworkAddress {
    /// The IP address as in a packet: 4 or 16 bytes.
    fileprivate var networkOrderBytes: [UInt8] {
        if let ipv4 { return withUnsafeBytes(of: ipv4.bigEndian) { [UInt8]($0) } }
        guard let ipv6 else { return [] }
        return withUnsafeBytes(of: ipv6.high.bigEndian) { [UInt8]($0) }
            + withUnsafeBytes(of: ipv6.low.bigEndian) { [UInt8]($0) }
    }
}
