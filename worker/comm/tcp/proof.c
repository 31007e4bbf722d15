/* The text under the HMAC is a label, purpose, generation, both ids and both challenges, all of
 * fixed size: no two different sessions give the same text. RFC 2104 by libcrypto. */
#include "comm/tcp/proof.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

static const char label[16] = "muster data 1";

struct proof_text {
    char label[sizeof label];
    uint8_t purpose[8];
    uint8_t number[8];
    uint8_t nonce[8];
    struct proof_session session;
};
_Static_assert(sizeof(struct proof_text) ==
                   sizeof label + 24 + 2 * COMM_ID_BYTES + 2 * WIRE_CHALLENGE_BYTES,
               "the text under a proof has no padding");

static void put64(uint8_t out[8], uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

bool proof_challenge(uint8_t challenge[WIRE_CHALLENGE_BYTES])
{
    return RAND_bytes(challenge, WIRE_CHALLENGE_BYTES) == 1;
}

bool proof_make(const uint8_t key[COMM_KEY_BYTES], enum proof_purpose purpose, uint64_t number,
                uint64_t nonce, const struct proof_session *session,
                uint8_t proof[WIRE_PROOF_BYTES])
{
    struct proof_text text;
    memcpy(text.label, label, sizeof label);
    put64(text.purpose, (uint64_t)purpose);
    put64(text.number, number);
    put64(text.nonce, nonce);
    text.session = *session;
    unsigned length = 0;
    const uint8_t *made = HMAC(EVP_sha256(), key, COMM_KEY_BYTES, (const uint8_t *)&text,
                               sizeof text, proof, &length);
    return made != NULL && length == WIRE_PROOF_BYTES;
}

bool proof_check(const uint8_t key[COMM_KEY_BYTES], enum proof_purpose purpose, uint64_t number,
                 uint64_t nonce, const struct proof_session *session,
                 const uint8_t proof[WIRE_PROOF_BYTES])
{
    uint8_t expected[WIRE_PROOF_BYTES];
    if (!proof_make(key, purpose, number, nonce, session, expected)) {
        return false;
    }
    return CRYPTO_memcmp(expected, proof, sizeof expected) == 0;
}
