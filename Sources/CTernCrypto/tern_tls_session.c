// SPDX-License-Identifier: Apache-2.0

// One handshake of TLS 1.3 for QUIC. BoringSSL calls back with secrets, bytes and alerts; they are kept in order here
// until the engine takes them, so that no callback enters the engine.

#include "tern_tls_internal.h"

#include <CNIOBoringSSL_bio.h>
#include <CNIOBoringSSL_err.h>
#include <CNIOBoringSSL_mem.h>
#include <CNIOBoringSSL_x509.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct output_node {
    struct output_node *next;
    int kind;
    int level;
    uint16_t suite;
    size_t length;
    uint8_t bytes[];
} output_node;

struct tern_tls_session {
    SSL *ssl;
    const tern_tls_context *context;
    output_node *head;
    output_node *tail;
    /// The node handed out last.
    output_node *lent;
    uint8_t alert;
    /// What the peer's name had to be.
    char expected_name[256];
    /// Why a callback refused; goes before BoringSSL's own reason.
    char detail[400];
    char failure[512];
};

// MARK: Outputs

static void free_node(output_node *node) {
    // Overwrites what it frees, secrets with it.
    OPENSSL_free(node);
}

static int append_output(SSL *ssl, int kind, int level, uint16_t suite, const uint8_t *bytes, size_t length) {
    tern_tls_session *session = SSL_get_app_data(ssl);
    output_node *node = OPENSSL_malloc(sizeof(output_node) + length);
    if (node == NULL) {
        return 0;
    }
    node->next = NULL;
    node->kind = kind;
    node->level = level;
    node->suite = suite;
    node->length = length;
    if (length > 0) {
        memcpy(node->bytes, bytes, length);
    }
    if (session->tail == NULL) {
        session->head = node;
    } else {
        session->tail->next = node;
    }
    session->tail = node;
    return 1;
}

static int set_read_secret(SSL *ssl, enum ssl_encryption_level_t level, const SSL_CIPHER *cipher,
                           const uint8_t *secret, size_t length) {
    return append_output(ssl, TERN_TLS_OUTPUT_READ_SECRET, (int)level, SSL_CIPHER_get_protocol_id(cipher), secret,
                         length);
}

static int set_write_secret(SSL *ssl, enum ssl_encryption_level_t level, const SSL_CIPHER *cipher,
                            const uint8_t *secret, size_t length) {
    return append_output(ssl, TERN_TLS_OUTPUT_WRITE_SECRET, (int)level, SSL_CIPHER_get_protocol_id(cipher), secret,
                         length);
}

static int add_handshake_data(SSL *ssl, enum ssl_encryption_level_t level, const uint8_t *bytes, size_t length) {
    return append_output(ssl, TERN_TLS_OUTPUT_BYTES, (int)level, 0, bytes, length);
}

static int flush_flight(SSL *ssl) {
    (void)ssl;
    return 1;
}

static int send_alert(SSL *ssl, enum ssl_encryption_level_t level, uint8_t alert) {
    (void)level;
    tern_tls_session *session = SSL_get_app_data(ssl);
    session->alert = alert;
    return 1;
}

const SSL_QUIC_METHOD tern_tls_quic_method = {
    .set_read_secret = set_read_secret,
    .set_write_secret = set_write_secret,
    .add_handshake_data = add_handshake_data,
    .flush_flight = flush_flight,
    .send_alert = send_alert,
};

int tern_tls_session_next_output(tern_tls_session *session, tern_tls_output *out) {
    if (session->lent != NULL) {
        free_node(session->lent);
        session->lent = NULL;
    }
    output_node *node = session->head;
    if (node == NULL) {
        return 0;
    }
    session->head = node->next;
    if (session->head == NULL) {
        session->tail = NULL;
    }
    session->lent = node;
    out->kind = node->kind;
    out->level = node->level;
    out->suite = node->suite;
    out->bytes = node->bytes;
    out->length = node->length;
    return 1;
}

// MARK: Reasons

/// A text under construction. Once full it stays as it is, always terminated.
typedef struct text {
    char *bytes;
    size_t capacity;
    size_t length;
} text;

// What comes from the peer may go into a log, so only printable ASCII is taken from it.
static void append_bytes(text *text, const uint8_t *bytes, size_t length) {
    for (size_t index = 0; index < length && text->length + 1 < text->capacity; index++) {
        text->bytes[text->length++] = bytes[index] >= 0x20 && bytes[index] < 0x7f ? (char)bytes[index] : '?';
    }
    text->bytes[text->length] = 0;
}

static void append(text *text, const char *string) {
    append_bytes(text, (const uint8_t *)string, strlen(string));
}

static void append_alpn(text *text, const uint8_t *names, size_t length) {
    size_t offset = 0;
    while (offset < length && names[offset] < length - offset) {
        append(text, offset == 0 ? "" : ", ");
        append_bytes(text, names + offset + 1, names[offset]);
        offset += 1 + (size_t)names[offset];
    }
}

void tern_tls_note_alpn_mismatch(SSL *ssl, const uint8_t *offered, size_t length) {
    tern_tls_session *session = SSL_get_app_data(ssl);
    text reason = {session->detail, sizeof(session->detail), 0};
    append(&reason, "no application protocol in common: the client offers ");
    append_alpn(&reason, offered, length);
    append(&reason, "; this server speaks ");
    append_alpn(&reason, session->context->alpn, session->context->alpn_length);
}

static void append_time(text *text, const ASN1_TIME *time) {
    BIO *bio = BIO_new(BIO_s_mem());
    const uint8_t *bytes = NULL;
    size_t length = 0;
    if (bio != NULL && time != NULL && ASN1_TIME_print(bio, time) && BIO_mem_contents(bio, &bytes, &length)) {
        append_bytes(text, bytes, length);
    }
    BIO_free(bio);
}

// The names and addresses that a certificate is good for; a dozen is enough to see what went wrong.
static void append_names(text *text, const X509 *certificate) {
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    size_t count = names == NULL ? 0 : sk_GENERAL_NAME_num(names);
    size_t shown = 0;
    for (size_t index = 0; index < count && shown < 12; index++) {
        int type = 0;
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
        const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
        char address[INET6_ADDRSTRLEN] = "";
        if (type == GEN_DNS) {
            append(text, shown++ == 0 ? "" : ", ");
            append_bytes(text, ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
        } else if (type == GEN_IPADD && (ASN1_STRING_length(value) == 4 || ASN1_STRING_length(value) == 16)) {
            int family = ASN1_STRING_length(value) == 4 ? AF_INET : AF_INET6;
            append(text, shown++ == 0 ? "" : ", ");
            append(text, inet_ntop(family, ASN1_STRING_get0_data(value), address, sizeof(address)) ? address : "?");
        }
    }
    if (shown == 0) {
        append(text, "no name");
    }
    GENERAL_NAMES_free(names);
}

static void append_subject(text *text, const X509 *certificate) {
    char *subject = certificate == NULL ? NULL : X509_NAME_oneline(X509_get_subject_name(certificate), NULL, 0);
    if (subject != NULL) {
        append(text, " (");
        append_bytes(text, (const uint8_t *)subject, strlen(subject) > 80 ? 80 : strlen(subject));
        append(text, ")");
    }
    OPENSSL_free(subject);
}

int tern_tls_verify_certificate(X509_STORE_CTX *store, void *argument) {
    (void)argument;
    int verified = X509_verify_cert(store);
    if (verified > 0) {
        return verified;
    }
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    tern_tls_session *session = SSL_get_app_data(ssl);
    const X509 *certificate = X509_STORE_CTX_get_current_cert(store);
    text reason = {session->detail, sizeof(session->detail), 0};
    append(&reason, "certificate refused: ");
    int error = X509_STORE_CTX_get_error(store);
    switch (error) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        append(&reason, "self-signed certificate that is not among the trust roots");
        append_subject(&reason, certificate);
        break;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        append(&reason, "unknown issuer: the chain does not end at a trust root");
        append_subject(&reason, certificate);
        break;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        append(&reason, "expired on ");
        append_time(&reason, certificate == NULL ? NULL : X509_get0_notAfter(certificate));
        append_subject(&reason, certificate);
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        append(&reason, "not valid before ");
        append_time(&reason, certificate == NULL ? NULL : X509_get0_notBefore(certificate));
        append_subject(&reason, certificate);
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        append(&reason, error == X509_V_ERR_HOSTNAME_MISMATCH ? "hostname mismatch" : "IP address mismatch");
        append(&reason, ": it is for ");
        append_names(&reason, X509_STORE_CTX_get0_cert(store));
        append(&reason, ", not for ");
        append(&reason, session->expected_name);
        break;
    default:
        append(&reason, X509_verify_cert_error_string(error));
        append_subject(&reason, certificate);
    }
    return verified;
}

static void append_lowercase(text *text, const char *constant) {
    for (; *constant != 0 && text->length + 1 < text->capacity; constant++) {
        text->bytes[text->length++] = *constant == '_' ? ' ' : (char)tolower((unsigned char)*constant);
    }
    text->bytes[text->length] = 0;
}

static int fail(tern_tls_session *session) {
    uint32_t error = ERR_peek_error();
    int is_ssl = ERR_GET_LIB(error) == ERR_LIB_SSL;
    text failure = {session->failure, sizeof(session->failure), 0};
    append(&failure, "TLS: ");
    if (session->detail[0] != 0) {
        append(&failure, session->detail);
    } else {
        const char *reason = ERR_reason_error_string(error);
        append_lowercase(&failure, reason == NULL ? "handshake failure" : reason);
    }
    ERR_clear_error();
    if (is_ssl && ERR_GET_REASON(error) == SSL_R_WRONG_ENCRYPTION_LEVEL_RECEIVED) {
        return TERN_TLS_PROTOCOL_VIOLATION;
    }
    if (is_ssl && ERR_GET_REASON(error) == SSL_R_EXCESS_HANDSHAKE_DATA) {
        return TERN_TLS_PROTOCOL_VIOLATION;
    }
    if (session->alert != 0) {
        return TERN_TLS_ALERT;
    }
    if (is_ssl && ERR_GET_REASON(error) == SSL_R_EXCESSIVE_MESSAGE_SIZE) {
        return TERN_TLS_BUFFER_EXCEEDED;
    }
    return TERN_TLS_INTERNAL;
}

// MARK: Sessions

// Sets the name that the certificate must carry and that is asked for. Returns 0 if it cannot be one.
static int set_server_name(tern_tls_session *session, const char *name) {
    int verified = session->context->verification == TERN_TLS_VERIFY_FULL;
    if (name == NULL || name[0] == 0) {
        return !verified;
    }
    size_t length = strlen(name);
    if (length >= sizeof(session->expected_name)) {
        return 0;
    }
    X509_VERIFY_PARAM *parameters = SSL_get0_param(session->ssl);
    memcpy(session->expected_name, name, length + 1);
    uint8_t address[16];
    size_t address_length = tern_parse_ip_address(name, address);
    if (address_length > 0) {
        return !verified || X509_VERIFY_PARAM_set1_ip(parameters, address, address_length);
    }
    // The dot that ends an absolute name is not sent (RFC 6066, section 3).
    if (session->expected_name[length - 1] == '.') {
        session->expected_name[--length] = 0;
    }
    return length > 0 && SSL_set_tlsext_host_name(session->ssl, session->expected_name) &&
           (!verified || X509_VERIFY_PARAM_set1_host(parameters, session->expected_name, length));
}

tern_tls_session *tern_tls_session_create(tern_tls_context *context, const char *server_name,
                                          const uint8_t *transport_parameters, size_t length) {
    tern_tls_session *session = OPENSSL_zalloc(sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    session->context = context;
    session->ssl = SSL_new(context->ctx);
    if (session->ssl == NULL) {
        tern_tls_session_destroy(session);
        return NULL;
    }
    SSL_set_app_data(session->ssl, session);
    // The peer may stay connected for days: let the configuration go when the handshake is over.
    SSL_set_shed_handshake_config(session->ssl, 1);
    int created = SSL_set_quic_transport_params(session->ssl, transport_parameters, length);
    if (context->is_server) {
        SSL_set_accept_state(session->ssl);
    } else {
        SSL_set_connect_state(session->ssl);
        created = created && set_server_name(session, server_name);
    }
    ERR_clear_error();
    if (!created) {
        tern_tls_session_destroy(session);
        return NULL;
    }
    return session;
}

void tern_tls_session_destroy(tern_tls_session *session) {
    SSL_free(session->ssl);
    output_node *node = session->head;
    while (node != NULL) {
        output_node *next = node->next;
        free_node(node);
        node = next;
    }
    if (session->lent != NULL) {
        free_node(session->lent);
    }
    OPENSSL_free(session);
}

int tern_tls_session_advance(tern_tls_session *session) {
    ERR_clear_error();
    if (SSL_in_init(session->ssl)) {
        int result = SSL_do_handshake(session->ssl);
        if (result == 1 || SSL_get_error(session->ssl, result) == SSL_ERROR_WANT_READ) {
            ERR_clear_error();
            return TERN_TLS_OK;
        }
        return fail(session);
    }
    return SSL_process_quic_post_handshake(session->ssl) ? TERN_TLS_OK : fail(session);
}

int tern_tls_session_receive(tern_tls_session *session, int level, const uint8_t *bytes, size_t length) {
    ERR_clear_error();
    if (!SSL_provide_quic_data(session->ssl, (enum ssl_encryption_level_t)level, bytes, length)) {
        return fail(session);
    }
    return tern_tls_session_advance(session);
}

uint8_t tern_tls_session_alert(const tern_tls_session *session) {
    return session->alert;
}

const char *tern_tls_session_failure(const tern_tls_session *session) {
    return session->failure;
}

int tern_tls_session_is_complete(const tern_tls_session *session) {
    return !SSL_in_init(session->ssl);
}

size_t tern_tls_session_alpn(const tern_tls_session *session, const uint8_t **out) {
    unsigned length = 0;
    SSL_get0_alpn_selected(session->ssl, out, &length);
    return length;
}

size_t tern_tls_session_peer_transport_parameters(const tern_tls_session *session, const uint8_t **out) {
    size_t length = 0;
    SSL_get_peer_quic_transport_params(session->ssl, out, &length);
    return length;
}

uint16_t tern_tls_session_group(const tern_tls_session *session) {
    return SSL_get_group_id(session->ssl);
}
