// SPDX-License-Identifier: Apache-2.0

// Packet protection (RFC 9001, section 5) and digests.

#include "tern_crypto.h"

#include <CNIOBoringSSL_aead.h>
#include <CNIOBoringSSL_aes.h>
#include <CNIOBoringSSL_chacha.h>
#include <CNIOBoringSSL_digest.h>
#include <CNIOBoringSSL_hkdf.h>
#include <CNIOBoringSSL_hmac.h>
#include <CNIOBoringSSL_mem.h>
#include <CNIOBoringSSL_rand.h>
#include <CNIOBoringSSL_sha2.h>
#include <string.h>

enum {
    AES_128_GCM = 0x1301,
    AES_256_GCM = 0x1302,
    CHACHA20_POLY1305 = 0x1303,
    IV_LENGTH = 12,
};

int tern_hkdf_extract_sha256(const uint8_t *secret, size_t secret_length, const uint8_t *salt, size_t salt_length,
                             uint8_t *out) {
    size_t written = 0;
    return HKDF_extract(out, &written, EVP_sha256(), secret, secret_length, salt, salt_length) && written == 32;
}

int tern_hkdf_expand_label(uint16_t suite, const uint8_t *secret, size_t secret_length, const uint8_t *label,
                           size_t label_length, uint8_t *out, size_t out_length) {
    static const char prefix[] = "tls13 ";
    const size_t prefix_length = sizeof(prefix) - 1;
    uint8_t info[2 + 1 + 6 + 32 + 1];
    if (label_length > 32 || out_length > 255) {
        return 0;
    }
    info[0] = (uint8_t)(out_length >> 8);
    info[1] = (uint8_t)out_length;
    info[2] = (uint8_t)(prefix_length + label_length);
    memcpy(info + 3, prefix, prefix_length);
    memcpy(info + 3 + prefix_length, label, label_length);
    info[3 + prefix_length + label_length] = 0;
    const EVP_MD *digest = suite == AES_256_GCM ? EVP_sha384() : EVP_sha256();
    return HKDF_expand(out, out_length, digest, secret, secret_length, info, 4 + prefix_length + label_length);
}

// MARK: AEAD

struct tern_aead_key {
    EVP_AEAD_CTX context;
    uint8_t iv[IV_LENGTH];
};

tern_aead_key *tern_aead_key_create(uint16_t suite, const uint8_t *key, const uint8_t *iv) {
    const EVP_AEAD *aead;
    switch (suite) {
    case AES_128_GCM:
        aead = EVP_aead_aes_128_gcm();
        break;
    case AES_256_GCM:
        aead = EVP_aead_aes_256_gcm();
        break;
    case CHACHA20_POLY1305:
        aead = EVP_aead_chacha20_poly1305();
        break;
    default:
        return NULL;
    }
    tern_aead_key *result = OPENSSL_zalloc(sizeof(*result));
    if (result == NULL) {
        return NULL;
    }
    if (!EVP_AEAD_CTX_init(&result->context, aead, key, EVP_AEAD_key_length(aead), TERN_AEAD_TAG_LENGTH, NULL)) {
        OPENSSL_free(result);
        return NULL;
    }
    memcpy(result->iv, iv, IV_LENGTH);
    return result;
}

void tern_aead_key_destroy(tern_aead_key *key) {
    if (!key) {
        return;
    }
    EVP_AEAD_CTX_cleanup(&key->context);
    // Overwrites what it frees.
    OPENSSL_free(key);
}

// RFC 9001, section 5.3: the packet number in network order, exclusive-ored with the end of the IV.
static void make_nonce(const tern_aead_key *key, uint64_t packet_number, uint8_t nonce[IV_LENGTH]) {
    memcpy(nonce, key->iv, IV_LENGTH);
    for (int index = 0; index < 8; index++) {
        nonce[IV_LENGTH - 1 - index] ^= (uint8_t)(packet_number >> (8 * index));
    }
}

int tern_aead_key_seal(const tern_aead_key *key, uint64_t packet_number, uint8_t *packet, size_t header_length,
                       size_t payload_length) {
    if (!key) {
        return 0;
    }
    uint8_t nonce[IV_LENGTH];
    make_nonce(key, packet_number, nonce);
    uint8_t *payload = packet + header_length;
    size_t tag_length = 0;
    return EVP_AEAD_CTX_seal_scatter(&key->context, payload, payload + payload_length, &tag_length,
                                     TERN_AEAD_TAG_LENGTH, nonce, IV_LENGTH, payload, payload_length, NULL, 0, packet,
                                     header_length) &&
           tag_length == TERN_AEAD_TAG_LENGTH;
}

int tern_aead_key_open(const tern_aead_key *key, uint64_t packet_number, uint8_t *packet, size_t header_length,
                       size_t payload_length) {
    if (!key) {
        return 0;
    }
    uint8_t nonce[IV_LENGTH];
    make_nonce(key, packet_number, nonce);
    uint8_t *payload = packet + header_length;
    return EVP_AEAD_CTX_open_gather(&key->context, payload, nonce, IV_LENGTH, payload, payload_length,
                                    payload + payload_length, TERN_AEAD_TAG_LENGTH, packet, header_length);
}

int tern_aes128_gcm_tag(const uint8_t *key, const uint8_t *nonce, const uint8_t *data, size_t length, uint8_t *out) {
    EVP_AEAD_CTX context;
    if (!EVP_AEAD_CTX_init(&context, EVP_aead_aes_128_gcm(), key, 16, TERN_AEAD_TAG_LENGTH, NULL)) {
        return 0;
    }
    size_t written = 0;
    int sealed = EVP_AEAD_CTX_seal(&context, out, &written, TERN_AEAD_TAG_LENGTH, nonce, IV_LENGTH, NULL, 0, data,
                                   length);
    EVP_AEAD_CTX_cleanup(&context);
    return sealed && written == TERN_AEAD_TAG_LENGTH;
}

// MARK: Header protection

struct tern_header_key {
    uint16_t suite;
    union {
        AES_KEY aes;
        uint8_t chacha[32];
    };
};

tern_header_key *tern_header_key_create(uint16_t suite, const uint8_t *key) {
    tern_header_key *result = OPENSSL_zalloc(sizeof(*result));
    if (result == NULL) {
        return NULL;
    }
    result->suite = suite;
    int created = 0;
    switch (suite) {
    case AES_128_GCM:
        created = AES_set_encrypt_key(key, 128, &result->aes) == 0;
        break;
    case AES_256_GCM:
        created = AES_set_encrypt_key(key, 256, &result->aes) == 0;
        break;
    case CHACHA20_POLY1305:
        memcpy(result->chacha, key, sizeof(result->chacha));
        created = 1;
        break;
    }
    if (!created) {
        OPENSSL_free(result);
        return NULL;
    }
    return result;
}

void tern_header_key_destroy(tern_header_key *key) {
    OPENSSL_free(key);
}

uint64_t tern_header_key_mask(const tern_header_key *key, const uint8_t *sample) {
    uint8_t block[AES_BLOCK_SIZE] = {0};
    if (key->suite == CHACHA20_POLY1305) {
        // RFC 9001, section 5.4.4: the counter in little-endian order, then the nonce.
        uint32_t counter = (uint32_t)sample[0] | (uint32_t)sample[1] << 8 | (uint32_t)sample[2] << 16 |
                           (uint32_t)sample[3] << 24;
        CRYPTO_chacha_20(block, block, 5, key->chacha, sample + 4, counter);
    } else {
        // One block, by the processor's AES instructions where there are any.
        AES_encrypt(sample, block, &key->aes);
    }
    return (uint64_t)block[0] | (uint64_t)block[1] << 8 | (uint64_t)block[2] << 16 | (uint64_t)block[3] << 24 |
           (uint64_t)block[4] << 32;
}

// MARK: Digests

int tern_hmac_sha256(const uint8_t *key, size_t key_length, const uint8_t *data, size_t length, uint8_t *out) {
    unsigned written = 0;
    return HMAC(EVP_sha256(), key, key_length, data, length, out, &written) != NULL && written == 32;
}

_Static_assert(sizeof(SHA256_CTX) <= sizeof(tern_sha256), "the state of SHA-256 must fit");
_Static_assert(_Alignof(SHA256_CTX) <= _Alignof(tern_sha256), "the state of SHA-256 must be aligned");

// The state is copied in and out because the header's type and BoringSSL's may not alias.
void tern_sha256_start(tern_sha256 *state) {
    SHA256_CTX context;
    SHA256_Init(&context);
    memcpy(state->opaque, &context, sizeof(context));
}

void tern_sha256_update(tern_sha256 *state, const uint8_t *data, size_t length) {
    SHA256_CTX context;
    memcpy(&context, state->opaque, sizeof(context));
    SHA256_Update(&context, data, length);
    memcpy(state->opaque, &context, sizeof(context));
}

void tern_sha256_finish(tern_sha256 *state, uint8_t *out) {
    SHA256_CTX context;
    memcpy(&context, state->opaque, sizeof(context));
    SHA256_Final(out, &context);
}

void tern_random(void *bytes, size_t length) {
    // Never fails: it ends the process rather than return what could be guessed.
    RAND_bytes(bytes, length);
}

int tern_equal(const uint8_t *a, const uint8_t *b, size_t length) {
    return CRYPTO_memcmp(a, b, length) == 0;
}

void tern_cleanse(void *bytes, size_t length) {
    OPENSSL_cleanse(bytes, length);
}
