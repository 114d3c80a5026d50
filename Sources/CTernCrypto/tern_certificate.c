// SPDX-License-Identifier: Apache-2.0

// Certificates signed by their own key, for tests, demonstrations and peers that pin.

#include "tern_crypto.h"

#include <CNIOBoringSSL_asn1.h>
#include <CNIOBoringSSL_bytestring.h>
#include <CNIOBoringSSL_ec.h>
#include <CNIOBoringSSL_ec_key.h>
#include <CNIOBoringSSL_err.h>
#include <CNIOBoringSSL_evp.h>
#include <CNIOBoringSSL_mem.h>
#include <CNIOBoringSSL_nid.h>
#include <CNIOBoringSSL_rand.h>
#include <CNIOBoringSSL_x509.h>
#include <arpa/inet.h>
#include <string.h>

struct tern_certificate {
    X509 *x509;
    GENERAL_NAMES *names;
    uint8_t *der;
    size_t der_length;
    uint8_t *key;
    size_t key_length;
};

tern_certificate *tern_certificate_create(void) {
    tern_certificate *result = OPENSSL_zalloc(sizeof(*result));
    if (result == NULL) {
        return NULL;
    }
    result->x509 = X509_new();
    result->names = GENERAL_NAMES_new();
    if (result->x509 == NULL || result->names == NULL) {
        tern_certificate_destroy(result);
        return NULL;
    }
    return result;
}

void tern_certificate_destroy(tern_certificate *certificate) {
    X509_free(certificate->x509);
    GENERAL_NAMES_free(certificate->names);
    OPENSSL_free(certificate->der);
    OPENSSL_free(certificate->key);
    OPENSSL_free(certificate);
}

int tern_certificate_set_common_name(tern_certificate *certificate, const uint8_t *name, size_t length) {
    X509_NAME *subject = X509_NAME_new();
    int done = subject != NULL && length <= 64 &&
               X509_NAME_add_entry_by_NID(subject, NID_commonName, MBSTRING_UTF8, name, (int)length, -1, 0) &&
               X509_set_subject_name(certificate->x509, subject) && X509_set_issuer_name(certificate->x509, subject);
    X509_NAME_free(subject);
    ERR_clear_error();
    return done;
}

static int add_name(tern_certificate *certificate, int type, ASN1_STRING *value, const uint8_t *bytes, size_t length) {
    GENERAL_NAME *name = GENERAL_NAME_new();
    if (value == NULL || name == NULL || !ASN1_STRING_set(value, bytes, (ossl_ssize_t)length)) {
        ASN1_STRING_free(value);
        GENERAL_NAME_free(name);
        return 0;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (!sk_GENERAL_NAME_push(certificate->names, name)) {
        GENERAL_NAME_free(name);
        return 0;
    }
    return 1;
}

int tern_certificate_add_dns_name(tern_certificate *certificate, const uint8_t *name, size_t length) {
    return add_name(certificate, GEN_DNS, ASN1_IA5STRING_new(), name, length);
}

int tern_certificate_add_ip_address(tern_certificate *certificate, const uint8_t *address, size_t length) {
    return (length == 4 || length == 16) &&
           add_name(certificate, GEN_IPADD, ASN1_OCTET_STRING_new(), address, length);
}

size_t tern_parse_ip_address(const char *text, uint8_t *out) {
    char address[INET6_ADDRSTRLEN + 1];
    size_t length = strcspn(text, "%");
    int bracketed = text[0] == '[' && text[strlen(text) - 1] == ']';
    if (bracketed) {
        length = (text[length] == '%' ? length : length - 1) - 1;
    }
    if (length >= sizeof(address)) {
        return 0;
    }
    memcpy(address, text + bracketed, length);
    address[length] = 0;
    if (inet_pton(AF_INET, address, out) == 1) {
        return 4;
    }
    return inet_pton(AF_INET6, address, out) == 1 ? 16 : 0;
}

static int add_extension(X509 *x509, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, x509, x509, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, &context, nid, value);
    int added = extension != NULL && X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
    return added;
}

static int set_serial_number(X509 *x509) {
    uint8_t bytes[16];
    RAND_bytes(bytes, sizeof(bytes));
    // Positive, and not of fewer bytes for a leading zero.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
    ASN1_INTEGER *serial = number == NULL ? NULL : BN_to_ASN1_INTEGER(number, NULL);
    int set = serial != NULL && X509_set_serialNumber(x509, serial);
    ASN1_INTEGER_free(serial);
    BN_free(number);
    return set;
}

static EVP_PKEY *make_key(void) {
    EC_KEY *ec = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    EVP_PKEY *key = EVP_PKEY_new();
    if (ec == NULL || key == NULL || !EC_KEY_generate_key(ec) || !EVP_PKEY_set1_EC_KEY(key, ec)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    EC_KEY_free(ec);
    return key;
}

static int marshal_key(tern_certificate *certificate, const EVP_PKEY *key) {
    CBB out;
    if (!CBB_init(&out, 256)) {
        return 0;
    }
    if (!EVP_marshal_private_key(&out, key) || !CBB_finish(&out, &certificate->key, &certificate->key_length)) {
        CBB_cleanup(&out);
        return 0;
    }
    return 1;
}

int tern_certificate_sign(tern_certificate *certificate, long days) {
    X509 *x509 = certificate->x509;
    EVP_PKEY *key = make_key();
    int done = key != NULL && days > 0 && days <= 36500 && X509_set_version(x509, X509_VERSION_3) &&
               set_serial_number(x509) && X509_gmtime_adj(X509_getm_notBefore(x509), -3600) != NULL &&
               X509_gmtime_adj(X509_getm_notAfter(x509), days * 86400) != NULL && X509_set_pubkey(x509, key) &&
               // Not an authority, and no key usage: without one, a verifier that is given this very certificate as its
               // trust root accepts it as its own issuer.
               add_extension(x509, NID_basic_constraints, "critical,CA:FALSE") &&
               add_extension(x509, NID_ext_key_usage, "serverAuth,clientAuth") &&
               add_extension(x509, NID_subject_key_identifier, "hash") &&
               // Tells certificates of one name apart where several of them are trusted.
               add_extension(x509, NID_authority_key_identifier, "keyid:always") &&
               (sk_GENERAL_NAME_num(certificate->names) == 0 ||
                X509_add1_ext_i2d(x509, NID_subject_alt_name, certificate->names, 0, X509V3_ADD_DEFAULT)) &&
               X509_sign(x509, key, EVP_sha256()) > 0 && marshal_key(certificate, key);
    if (done) {
        int length = i2d_X509(x509, &certificate->der);
        done = length > 0;
        certificate->der_length = done ? (size_t)length : 0;
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return done;
}

size_t tern_certificate_der(const tern_certificate *certificate, const uint8_t **out) {
    *out = certificate->der;
    return certificate->der_length;
}

size_t tern_certificate_key(const tern_certificate *certificate, const uint8_t **out) {
    *out = certificate->key;
    return certificate->key_length;
}
