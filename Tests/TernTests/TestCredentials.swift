// SPDX-License-Identifier: Apache-2.0

import NIOSSL

/// A self-signed certificate for `localhost`, `server.example`, `127.0.0.1`, `127.0.0.2` and `::1`, valid from 2020 to 2119, with
/// its key. It protects nothing.
enum TestCredentials {
    static let certificatePEM = """
        -----BEGIN CERTIFICATE-----
        MIIBkDCCATWgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlUZXJuIHRl
        c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjExOTEyMzEyMzU5NTlaMBQxEjAQBgNVBAMM
        CVRlcm4gdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFrFC4YjzNGNvkZY
        lZvxOk1u7Ku9DqvxzR6edkub3oR/OoYclgMDfzFZGM7bLJA9oFio7yHdaL7BwlZy
        7KRGSnijdjB0MEIGA1UdEQQ7MDmCCWxvY2FsaG9zdIIOc2VydmVyLmV4YW1wbGWH
        BH8AAAGHBH8AAAKHEAAAAAAAAAAAAAAAAAAAAAEwDwYDVR0TAQH/BAUwAwEB/zAd
        BgNVHQ4EFgQUdKLKVeirHTNJlt2wL1yLGqanCKQwCgYIKoZIzj0EAwIDSQAwRgIh
        AOr8wA646ygsmJZ3KMzKDS3WGKTpELhKT83AruAUH3lqAiEAqf8pAUr0fEqzgOYW
        YawB5ZyrT6iUPkFoaSwrlm50WUg=
        -----END CERTIFICATE-----
        """

    static let privateKeyPEM = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTAQFUzkh7TCrJopR
        yvlgsgAVDe6knUB5OVK7atd/7fChRANCAARaxQuGI8zRjb5GWJWb8TpNbuyrvQ6r
        8c0ennZLm96EfzqGHJYDA38xWRjO2yyQPaBYqO8h3Wi+wcJWcuykRkp4
        -----END PRIVATE KEY-----
        """

    static func certificates() throws -> [NIOSSLCertificate] {
        try NIOSSLCertificate.fromPEMBytes(Array(certificatePEM.utf8))
    }

    static func server() throws -> TLSConfiguration {
        TLSConfiguration.makeServerConfiguration(
            certificateChain: try certificates().map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem)))
    }

    /// Trusts the server's certificate and nothing else.
    static func client() throws -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.trustRoots = .certificates(try certificates())
        return configuration
    }
}
