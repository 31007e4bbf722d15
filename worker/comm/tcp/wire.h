/* The data plane's bytes: messages of the handshake, frame headers and trailers. Little endian,
 * fixed sizes.
 *
 *   dialer                                acceptor
 *     HELLO  generation, ids, challenge  ->
 *                                        <-  ANSWER  code, challenge, proof
 *     PROOF  proof                       ->
 *     frames                            <->  frames
 *
 * The first frame that each side sends in a generation is ENTER, with a proof that it holds that
 * generation's key too; this is also how a connection that stays moves on to the next generation.
 *
 *   frame = header [payload trailer]     the trailer says whether the payload is whole or was
 *                                        aborted
 *   ENTER = header proof */
#ifndef MUSTER_COMM_TCP_WIRE_H
#define MUSTER_COMM_TCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/comm.h"

#define WIRE_VERSION 1
#define WIRE_PROOF_BYTES 32
#define WIRE_CHALLENGE_BYTES 32

#define WIRE_HELLO_BYTES 88
#define WIRE_ANSWER_BYTES 72
#define WIRE_PROOF_MESSAGE_BYTES 40
#define WIRE_HEADER_BYTES 88
#define WIRE_ENTER_BYTES (WIRE_HEADER_BYTES + WIRE_PROOF_BYTES)
#define WIRE_TRAILER_BYTES 8

/* Beside enum comm_kind: the carrier's own frame. */
#define WIRE_KIND_ENTER 0x100u

/* What the acceptor says to a HELLO: name, sentence (seen from the dialer). */
#define WIRE_ANSWERS(X)                                                                            \
    X(OK, "accepted")                                                                              \
    X(OLDER, "it is in a newer generation")                                                        \
    X(BUSY, "it connects to us itself")                                                            \
    X(OTHER, "somebody else answers there")                                                        \
    X(UNKNOWN, "it knows another generation by this number")                                       \
    X(FULL, "it has as many visitors as it may")                                                   \
    X(LOST, "it has given us up in this generation")

enum wire_answer {
#define WIRE_ANSWER_ENUM(name, sentence) WIRE_ANSWER_##name,
    WIRE_ANSWERS(WIRE_ANSWER_ENUM)
#undef WIRE_ANSWER_ENUM
    WIRE_ANSWER_COUNT
};

struct wire_hello {
    uint64_t number; /* generation the dialer is in */
    uint64_t nonce;
    uint8_t from[COMM_ID_BYTES];
    uint8_t to[COMM_ID_BYTES];
    uint8_t challenge[WIRE_CHALLENGE_BYTES];
};

struct wire_answer_message {
    enum wire_answer code;
    uint8_t challenge[WIRE_CHALLENGE_BYTES];
    uint8_t proof[WIRE_PROOF_BYTES];
};

const char *wire_answer_text(enum wire_answer code);

void wire_put_hello(uint8_t out[WIRE_HELLO_BYTES], const struct wire_hello *hello);
void wire_put_answer(uint8_t out[WIRE_ANSWER_BYTES], const struct wire_answer_message *answer);
void wire_put_proof(uint8_t out[WIRE_PROOF_MESSAGE_BYTES], const uint8_t proof[WIRE_PROOF_BYTES]);
void wire_put_header(uint8_t out[WIRE_HEADER_BYTES], const struct comm_frame *frame);
void wire_put_trailer(uint8_t out[WIRE_TRAILER_BYTES], bool aborted);

/* false: what begins with these bytes is no HELLO, however it goes on. */
bool wire_may_be_hello(const uint8_t *in, size_t bytes);

/* false: the bytes are none of ours (magic, version, code). */
bool wire_get_hello(const uint8_t in[WIRE_HELLO_BYTES], struct wire_hello *hello);
bool wire_get_answer(const uint8_t in[WIRE_ANSWER_BYTES], struct wire_answer_message *answer);
bool wire_get_proof(const uint8_t in[WIRE_PROOF_MESSAGE_BYTES], uint8_t proof[WIRE_PROOF_BYTES]);
bool wire_get_header(const uint8_t in[WIRE_HEADER_BYTES], struct comm_frame *frame);
bool wire_get_trailer(const uint8_t in[WIRE_TRAILER_BYTES], bool *aborted);

#endif
