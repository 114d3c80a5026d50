// SPDX-License-Identifier: Apache-2.0

// Shared by the files of this target; not part of the module.

#ifndef TERN_TLS_INTERNAL_H
#define TERN_TLS_INTERNAL_H

#include "tern_crypto.h"

#include <CNIOBoringSSL_ssl.h>
#include <CNIOBoringSSL_x509.h>

struct tern_tls_context {
    SSL_CTX *ctx;
    int is_server;
    int verification;
    CRYPTO_BUFFER **chain;
    size_t chain_length;
    uint8_t *alpn;
    size_t alpn_length;
    tern_tls_key_log key_log;
    void *key_log_argument;
};

extern const SSL_QUIC_METHOD tern_tls_quic_method;

/// Verifies as BoringSSL would, and notes in the session why a certificate is refused.
int tern_tls_verify_certificate(X509_STORE_CTX *store, void *argument);

/// Notes in the session which protocols the client offered in vain.
void tern_tls_note_alpn_mismatch(SSL *ssl, const uint8_t *offered, size_t length);

#endif
