/* Proof that an end holds the key of a generation: HMAC-SHA256 over everything both sides said. */
#ifndef MUSTER_COMM_TCP_PROOF_H
#define MUSTER_COMM_TCP_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/tcp/wire.h"

/* What a proof is bound to. A proof made for one purpose, side, pair or connection is none for
 * another. */
enum proof_purpose {
    PROOF_ACCEPTOR, /* ANSWER */
    PROOF_DIALER,   /* PROOF */
    PROOF_ENTER_ACCEPTOR,
    PROOF_ENTER_DIALER
};

struct proof_session {
    uint8_t dialer[COMM_ID_BYTES];
    uint8_t acceptor[COMM_ID_BYTES];
    uint8_t dialer_challenge[WIRE_CHALLENGE_BYTES];
    uint8_t acceptor_challenge[WIRE_CHALLENGE_BYTES];
};

/* false: libcrypto failed. */
bool proof_challenge(uint8_t challenge[WIRE_CHALLENGE_BYTES]);
bool proof_make(const uint8_t key[COMM_KEY_BYTES], enum proof_purpose purpose, uint64_t number,
                uint64_t nonce, const struct proof_session *session,
                uint8_t proof[WIRE_PROOF_BYTES]);

/* Compares in constant time. */
bool proof_check(const uint8_t key[COMM_KEY_BYTES], enum proof_purpose purpose, uint64_t number,
                 uint64_t nonce, const struct proof_session *session,
                 const uint8_t proof[WIRE_PROOF_BYTES]);

#endif
