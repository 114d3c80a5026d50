// SPDX-License-Identifier: Apache-2.0

// Settings of TLS 1.3 for QUIC (RFC 9001, section 4).

#include "tern_tls_internal.h"

#include <CNIOBoringSSL_bio.h>
#include <CNIOBoringSSL_err.h>
#include <CNIOBoringSSL_evp.h>
#include <CNIOBoringSSL_mem.h>
#include <CNIOBoringSSL_pem.h>
#include <CNIOBoringSSL_pool.h>
#include <limits.h>
#include <string.h>

static void log_key(const SSL *ssl, const char *line) {
    const tern_tls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (context->key_log != NULL) {
        context->key_log(context->key_log_argument, line);
    }
}

// The first of our protocols that the client offers: the order of preference is the server's.
static int select_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_length, const uint8_t *offered,
                       unsigned offered_length, void *argument) {
    const tern_tls_context *context = argument;
    for (size_t ours = 0; ours < context->alpn_length; ours += 1 + (size_t)context->alpn[ours]) {
        for (unsigned theirs = 0; theirs < offered_length; theirs += 1 + (unsigned)offered[theirs]) {
            if (offered[theirs] == context->alpn[ours] && offered[theirs] < offered_length - theirs &&
                memcmp(offered + theirs + 1, context->alpn + ours + 1, offered[theirs]) == 0) {
                *out = offered + theirs + 1;
                *out_length = offered[theirs];
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    tern_tls_note_alpn_mismatch(ssl, offered, offered_length);
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static enum ssl_verify_result_t accept_anything(SSL *ssl, uint8_t *out_alert) {
    (void)ssl;
    (void)out_alert;
    return ssl_verify_ok;
}

tern_tls_context *tern_tls_context_create(int is_server, int verification) {
    tern_tls_context *context = OPENSSL_zalloc(sizeof(*context));
    if (context == NULL) {
        return NULL;
    }
    context->is_server = is_server;
    context->verification = verification;
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    context->ctx = ctx;
    if (ctx == NULL || !SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) ||
        !SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) || !SSL_CTX_set_quic_method(ctx, &tern_tls_quic_method)) {
        tern_tls_context_destroy(context);
        ERR_clear_error();
        return NULL;
    }
    SSL_CTX_set_app_data(ctx, context);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    if (verification == TERN_TLS_VERIFY_NONE) {
        if (!is_server) {
            SSL_CTX_set_custom_verify(ctx, SSL_VERIFY_PEER, accept_anything);
        }
    } else {
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
        SSL_CTX_set_cert_verify_callback(ctx, tern_tls_verify_certificate, NULL);
        // Whatever certificate was given as a root is one, be it an authority's or the peer's own.
        X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
        // A name in the subject's common name alone has not counted for long (RFC 9525, section 2).
        X509_VERIFY_PARAM_set_hostflags(SSL_CTX_get0_param(ctx), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    }
    return context;
}

void tern_tls_context_destroy(tern_tls_context *context) {
    SSL_CTX_free(context->ctx);
    for (size_t index = 0; index < context->chain_length; index++) {
        CRYPTO_BUFFER_free(context->chain[index]);
    }
    OPENSSL_free(context->chain);
    OPENSSL_free(context->alpn);
    OPENSSL_free(context);
}

static X509 *parse_certificate(const uint8_t *der, size_t length) {
    if (length > LONG_MAX) {
        return NULL;
    }
    const uint8_t *cursor = der;
    X509 *x509 = d2i_X509(NULL, &cursor, (long)length);
    if (x509 != NULL && cursor != der + length) {
        X509_free(x509);
        x509 = NULL;
    }
    ERR_clear_error();
    return x509;
}

int tern_tls_context_add_certificate(tern_tls_context *context, const uint8_t *der, size_t length) {
    X509 *x509 = parse_certificate(der, length);
    if (x509 == NULL) {
        return 0;
    }
    X509_free(x509);
    CRYPTO_BUFFER **chain =
        OPENSSL_realloc(context->chain, (context->chain_length + 1) * sizeof(CRYPTO_BUFFER *));
    if (chain == NULL) {
        return 0;
    }
    context->chain = chain;
    CRYPTO_BUFFER *buffer = CRYPTO_BUFFER_new(der, length, NULL);
    if (buffer == NULL) {
        return 0;
    }
    context->chain[context->chain_length++] = buffer;
    return 1;
}

int tern_tls_context_set_private_key(tern_tls_context *context, const uint8_t *der, size_t length) {
    if (length > LONG_MAX) {
        return TERN_TLS_KEY_MALFORMED;
    }
    const uint8_t *cursor = der;
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &cursor, (long)length);
    if (key == NULL || cursor != der + length) {
        EVP_PKEY_free(key);
        ERR_clear_error();
        return TERN_TLS_KEY_MALFORMED;
    }
    int result = TERN_TLS_KEY_OK;
    ERR_clear_error();
    if (!SSL_CTX_set_chain_and_key(context->ctx, context->chain, context->chain_length, key, NULL)) {
        int reason = ERR_GET_REASON(ERR_peek_error());
        result = reason == X509_R_KEY_VALUES_MISMATCH || reason == X509_R_KEY_TYPE_MISMATCH ||
                         reason == SSL_R_BAD_ECC_CERT
                     ? TERN_TLS_KEY_MISMATCH
                     : TERN_TLS_KEY_UNSUPPORTED;
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return result;
}

static int add_trusted(tern_tls_context *context, X509 *x509) {
    return X509_STORE_add_cert(SSL_CTX_get_cert_store(context->ctx), x509);
}

int tern_tls_context_add_trusted_certificate(tern_tls_context *context, const uint8_t *der, size_t length) {
    X509 *x509 = parse_certificate(der, length);
    int added = x509 != NULL && add_trusted(context, x509);
    X509_free(x509);
    return added;
}

static long add_trusted_bio(tern_tls_context *context, BIO *bio) {
    long count = 0;
    ERR_clear_error();
    for (;;) {
        X509 *x509 = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (x509 == NULL) {
            break;
        }
        int added = add_trusted(context, x509);
        X509_free(x509);
        if (!added) {
            ERR_clear_error();
            return -1;
        }
        count++;
    }
    uint32_t error = ERR_peek_last_error();
    // Reading on until no certificate starts any more is the regular end.
    int at_end = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return at_end ? count : -1;
}

long tern_tls_context_add_trusted_pem(tern_tls_context *context, const uint8_t *pem, size_t length) {
    BIO *bio = BIO_new_mem_buf(pem, (ossl_ssize_t)length);
    if (bio == NULL) {
        return -1;
    }
    long count = add_trusted_bio(context, bio);
    BIO_free(bio);
    return count;
}

long tern_tls_context_add_trusted_file(tern_tls_context *context, const char *path) {
    BIO *bio = BIO_new_file(path, "rb");
    if (bio == NULL) {
        ERR_clear_error();
        return -2;
    }
    long count = add_trusted_bio(context, bio);
    BIO_free(bio);
    return count;
}

int tern_tls_context_set_alpn(tern_tls_context *context, const uint8_t *names, size_t length) {
    uint8_t *copy = OPENSSL_memdup(names, length);
    if (copy == NULL) {
        return 0;
    }
    OPENSSL_free(context->alpn);
    context->alpn = copy;
    context->alpn_length = length;
    if (context->is_server) {
        SSL_CTX_set_alpn_select_cb(context->ctx, select_alpn, context);
        return 1;
    }
    // Unlike the others, this one returns 0 on success.
    int failed = SSL_CTX_set_alpn_protos(context->ctx, names, length);
    ERR_clear_error();
    return !failed;
}

int tern_tls_context_set_cipher_suites(tern_tls_context *context, const uint16_t *suites, size_t count) {
    int set = SSL_CTX_set1_tls13_ciphers(context->ctx, suites, NULL, count);
    ERR_clear_error();
    return set;
}

int tern_tls_context_set_groups(tern_tls_context *context, const uint16_t *groups, size_t count) {
    int set = SSL_CTX_set1_group_ids(context->ctx, groups, count);
    ERR_clear_error();
    return set;
}

void tern_tls_context_set_key_log(tern_tls_context *context, tern_tls_key_log callback, void *argument) {
    context->key_log = callback;
    context->key_log_argument = argument;
    SSL_CTX_set_keylog_callback(context->ctx, log_key);
}
