// SPDX-License-Identifier: Apache-2.0

// What the engine needs of BoringSSL: packet protection, TLS 1.3 for QUIC, digests. No BoringSSL type appears here, so
// that the Swift module does not depend on how BoringSSL is packaged.
//
// Functions that return int give 1 for success and 0 for failure unless they say otherwise. None of them keeps a pointer
// that it was given beyond the call, and none is safe to call from two threads on one object, contexts excepted.

#ifndef TERN_CRYPTO_H
#define TERN_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

#if defined(__cplusplus)
extern "C" {
#endif

// MARK: Packet protection

enum {
    TERN_AEAD_TAG_LENGTH = 16,
    TERN_HEADER_SAMPLE_LENGTH = 16,
};

/// HKDF-Extract with SHA-256: 32 bytes are written to `out`.
int tern_hkdf_extract_sha256(const uint8_t *secret, size_t secret_length, const uint8_t *salt, size_t salt_length,
                             uint8_t *out);

/// HKDF-Expand-Label of TLS 1.3 with an empty context, by the hash of the cipher suite. The label comes without its
/// "tls13 " prefix and is at most 32 bytes.
int tern_hkdf_expand_label(uint16_t suite, const uint8_t *secret, size_t secret_length, const uint8_t *label,
                           size_t label_length, uint8_t *out, size_t out_length);

/// An AEAD context and the IV that packet numbers are mixed into.
typedef struct tern_aead_key tern_aead_key;

/// `key` holds 16 bytes for AES-128 and 32 for the others, `iv` 12. NULL if the suite is unknown or memory is short.
tern_aead_key *_Nullable tern_aead_key_create(uint16_t suite, const uint8_t *key, const uint8_t *iv);
void tern_aead_key_destroy(tern_aead_key *_Nullable key);

/// Encrypts `payload_length` bytes after the `header_length` bytes of header at `packet`, in place, and writes the tag
/// behind them. Does not allocate. Fails without a key.
int tern_aead_key_seal(const tern_aead_key *_Nullable key, uint64_t packet_number, uint8_t *packet, size_t header_length,
                       size_t payload_length);

/// The reverse; `payload_length` counts without the tag. On failure the payload is lost (zeroed); header and tag are
/// left as they are. Does not allocate. Fails without a key.
int tern_aead_key_open(const tern_aead_key *_Nullable key, uint64_t packet_number, uint8_t *packet, size_t header_length,
                       size_t payload_length);

/// A header protection key.
typedef struct tern_header_key tern_header_key;

tern_header_key *_Nullable tern_header_key_create(uint16_t suite, const uint8_t *key);
void tern_header_key_destroy(tern_header_key *key);

/// The mask of five bytes for a sample of 16, the first in the lowest byte. Does not allocate.
uint64_t tern_header_key_mask(const tern_header_key *key, const uint8_t *sample);

/// The tag of AES-128-GCM over additional data alone, with a key of 16 bytes and a nonce of 12; 16 bytes are written.
int tern_aes128_gcm_tag(const uint8_t *key, const uint8_t *nonce, const uint8_t *data, size_t length, uint8_t *out);

// MARK: Digests

/// HMAC-SHA256; 32 bytes are written to `out`.
int tern_hmac_sha256(const uint8_t *key, size_t key_length, const uint8_t *_Nullable data, size_t length, uint8_t *out);

/// The state of an incremental SHA-256: plain memory that may be copied.
typedef struct tern_sha256 {
    uint64_t opaque[16];
} tern_sha256;

void tern_sha256_start(tern_sha256 *state);
void tern_sha256_update(tern_sha256 *state, const uint8_t *_Nullable data, size_t length);
/// Writes 32 bytes.
void tern_sha256_finish(tern_sha256 *state, uint8_t *out);

/// Random bytes that nobody guesses.
void tern_random(void *bytes, size_t length);

/// Whether two runs of bytes are equal, in a time that does not depend on where they differ.
int tern_equal(const uint8_t *a, const uint8_t *b, size_t length);
/// Overwrites secrets in a way that is not optimised out.
void tern_cleanse(void *bytes, size_t length);

// MARK: TLS contexts

/// Settings shared by many sessions. Once configured it may be used from any thread.
typedef struct tern_tls_context tern_tls_context;

typedef void (*tern_tls_key_log)(void *_Nullable argument, const char *line);

enum {
    TERN_TLS_VERIFY_FULL = 0,
    TERN_TLS_VERIFY_NO_HOSTNAME = 1,
    TERN_TLS_VERIFY_NONE = 2,
};

enum {
    TERN_TLS_KEY_OK = 0,
    TERN_TLS_KEY_MALFORMED = 1,
    TERN_TLS_KEY_MISMATCH = 2,
    TERN_TLS_KEY_UNSUPPORTED = 3,
};

/// TLS 1.3 only, without session tickets and without trust roots. On a server, a `verification` other than NONE asks for
/// client certificates and insists on them.
tern_tls_context *_Nullable tern_tls_context_create(int is_server, int verification);
void tern_tls_context_destroy(tern_tls_context *context);

/// Appends a DER certificate to our chain, the leaf first.
int tern_tls_context_add_certificate(tern_tls_context *context, const uint8_t *der, size_t length);
/// Sets the private key of the chain added before: PKCS #8, SEC 1 or PKCS #1 in DER. Returns a TERN_TLS_KEY_ code.
int tern_tls_context_set_private_key(tern_tls_context *context, const uint8_t *der, size_t length);
int tern_tls_context_add_trusted_certificate(tern_tls_context *context, const uint8_t *der, size_t length);
/// Adds all certificates of a PEM text and returns their number, or -1 if one of them is malformed.
long tern_tls_context_add_trusted_pem(tern_tls_context *context, const uint8_t *pem, size_t length);
/// The same from a file, or -2 if it cannot be read.
long tern_tls_context_add_trusted_file(tern_tls_context *context, const char *path);
/// The protocols in wire format: each name after its length in one byte.
int tern_tls_context_set_alpn(tern_tls_context *context, const uint8_t *names, size_t length);
int tern_tls_context_set_cipher_suites(tern_tls_context *context, const uint16_t *suites, size_t count);
int tern_tls_context_set_groups(tern_tls_context *context, const uint16_t *groups, size_t count);
/// `argument` must stay valid as long as the context and its sessions.
void tern_tls_context_set_key_log(tern_tls_context *context, tern_tls_key_log callback, void *_Nullable argument);

// MARK: TLS sessions

/// The handshake of one connection. Its context must outlive it.
typedef struct tern_tls_session tern_tls_session;

enum {
    TERN_TLS_OK = 0,
    /// The handshake failed with an alert.
    TERN_TLS_ALERT = 1,
    /// A message came at the wrong level, or bytes were left over at a change of keys (RFC 9001, section 4.1.3).
    TERN_TLS_PROTOCOL_VIOLATION = 2,
    /// More bytes of an unfinished message than we hold.
    TERN_TLS_BUFFER_EXCEEDED = 3,
    TERN_TLS_INTERNAL = 4,
};

enum {
    TERN_TLS_OUTPUT_BYTES = 0,
    TERN_TLS_OUTPUT_READ_SECRET = 1,
    TERN_TLS_OUTPUT_WRITE_SECRET = 2,
};

typedef struct tern_tls_output {
    int kind;
    /// 0 Initial, 1 0-RTT, 2 Handshake, 3 1-RTT.
    int level;
    /// The cipher suite of a secret.
    uint16_t suite;
    const uint8_t *_Nullable bytes;
    size_t length;
} tern_tls_output;

/// `server_name` is a DNS name or the text of an IP address, which a certificate must then have among its addresses; only
/// a DNS name is sent to the server. NULL if a name is needed for verification and missing, or memory is short.
tern_tls_session *_Nullable tern_tls_session_create(tern_tls_context *context, const char *_Nullable server_name,
                                                    const uint8_t *transport_parameters, size_t length);
void tern_tls_session_destroy(tern_tls_session *session);

/// Goes on with the handshake as far as the bytes received allow. Returns TERN_TLS_OK or why it failed.
int tern_tls_session_advance(tern_tls_session *session);
/// Takes bytes of the CRYPTO stream of a level, in order, and goes on.
int tern_tls_session_receive(tern_tls_session *session, int level, const uint8_t *bytes, size_t length);
/// The alert of the failure, or 0.
uint8_t tern_tls_session_alert(const tern_tls_session *session);
/// What failed, for people.
const char *tern_tls_session_failure(const tern_tls_session *session);
/// The next output in order, whose bytes stay valid until the next call on the session; 0 if there is none.
int tern_tls_session_next_output(tern_tls_session *session, tern_tls_output *out);
int tern_tls_session_is_complete(const tern_tls_session *session);
/// The values below are empty (0) until they are known, and valid until the next call on the session.
size_t tern_tls_session_alpn(const tern_tls_session *session, const uint8_t *_Nullable *_Nonnull out);
size_t tern_tls_session_peer_transport_parameters(const tern_tls_session *session,
                                                  const uint8_t *_Nullable *_Nonnull out);
uint16_t tern_tls_session_group(const tern_tls_session *session);

// MARK: Certificates

/// A certificate signed by its own key, on P-256.
typedef struct tern_certificate tern_certificate;

tern_certificate *_Nullable tern_certificate_create(void);
void tern_certificate_destroy(tern_certificate *certificate);
/// At most 64 bytes of UTF-8.
int tern_certificate_set_common_name(tern_certificate *certificate, const uint8_t *name, size_t length);
int tern_certificate_add_dns_name(tern_certificate *certificate, const uint8_t *name, size_t length);
/// 4 or 16 bytes.
int tern_certificate_add_ip_address(tern_certificate *certificate, const uint8_t *address, size_t length);
/// The address in a text such as "192.0.2.1", "2001:db8::1" or "[fe80::1%eth0]", without its zone: 4 or 16 bytes are
/// written to `out`, which holds 16. Returns their number, or 0 if it is none.
size_t tern_parse_ip_address(const char *text, uint8_t *out);
/// Makes a key and signs; valid from one hour ago for so many days.
int tern_certificate_sign(tern_certificate *certificate, long days);
/// The certificate in DER, or the key as PKCS #8 in DER; owned by the object.
size_t tern_certificate_der(const tern_certificate *certificate, const uint8_t *_Nullable *_Nonnull out);
size_t tern_certificate_key(const tern_certificate *certificate, const uint8_t *_Nullable *_Nonnull out);

#if defined(__cplusplus)
}
#endif

#pragma clang assume_nonnull end

#endif
