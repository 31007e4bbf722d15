/* Layouts of wire.h, one put and one get beside each other. */
#include "comm/tcp/wire.h"

#include <string.h>

#define MAGIC_HELLO 0x4C48754Du   /* "MuHL" */
#define MAGIC_ANSWER 0x4E41754Du  /* "MuAN" */
#define MAGIC_PROOF 0x5250754Du   /* "MuPR" */
#define MAGIC_FRAME 0x5246754Du   /* "MuFR" */
#define MAGIC_WHOLE 0x4B4F754Du   /* "MuOK" */
#define MAGIC_ABORTED 0x4241754Du /* "MuAB" */

struct cursor {
    uint8_t *at;
};

struct reader {
    const uint8_t *at;
};

static void put32(struct cursor *cursor, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        *cursor->at++ = (uint8_t)(value >> (8 * i));
    }
}

static void put64(struct cursor *cursor, uint64_t value)
{
    put32(cursor, (uint32_t)value);
    put32(cursor, (uint32_t)(value >> 32));
}

static void put_bytes(struct cursor *cursor, const uint8_t *bytes, size_t count)
{
    memcpy(cursor->at, bytes, count);
    cursor->at += count;
}

static uint32_t get32(struct reader *reader)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        value |= (uint32_t)*reader->at++ << (8 * i);
    }
    return value;
}

static uint64_t get64(struct reader *reader)
{
    uint64_t low = get32(reader);
    return low | (uint64_t)get32(reader) << 32;
}

static void get_bytes(struct reader *reader, uint8_t *bytes, size_t count)
{
    memcpy(bytes, reader->at, count);
    reader->at += count;
}

const char *wire_answer_text(enum wire_answer code)
{
#define SENTENCE(name, sentence) sentence,
    static const char *const texts[] = {WIRE_ANSWERS(SENTENCE)};
#undef SENTENCE
    return (unsigned)code < WIRE_ANSWER_COUNT ? texts[code]
                                              : "it gave an answer that does not exist";
}

void wire_put_hello(uint8_t out[WIRE_HELLO_BYTES], const struct wire_hello *hello)
{
    struct cursor cursor = {out};
    put32(&cursor, MAGIC_HELLO);
    put32(&cursor, WIRE_VERSION);
    put64(&cursor, hello->number);
    put64(&cursor, hello->nonce);
    put_bytes(&cursor, hello->from, COMM_ID_BYTES);
    put_bytes(&cursor, hello->to, COMM_ID_BYTES);
    put_bytes(&cursor, hello->challenge, WIRE_CHALLENGE_BYTES);
}

bool wire_may_be_hello(const uint8_t *in, size_t bytes)
{
    uint8_t magic[4];
    struct cursor cursor = {magic};
    put32(&cursor, MAGIC_HELLO);
    return memcmp(in, magic, bytes < sizeof magic ? bytes : sizeof magic) == 0;
}

bool wire_get_hello(const uint8_t in[WIRE_HELLO_BYTES], struct wire_hello *hello)
{
    struct reader reader = {in};
    if (get32(&reader) != MAGIC_HELLO || get32(&reader) != WIRE_VERSION) {
        return false;
    }
    hello->number = get64(&reader);
    hello->nonce = get64(&reader);
    get_bytes(&reader, hello->from, COMM_ID_BYTES);
    get_bytes(&reader, hello->to, COMM_ID_BYTES);
    get_bytes(&reader, hello->challenge, WIRE_CHALLENGE_BYTES);
    return true;
}

void wire_put_answer(uint8_t out[WIRE_ANSWER_BYTES], const struct wire_answer_message *answer)
{
    struct cursor cursor = {out};
    put32(&cursor, MAGIC_ANSWER);
    put32(&cursor, (uint32_t)answer->code);
    put_bytes(&cursor, answer->challenge, WIRE_CHALLENGE_BYTES);
    put_bytes(&cursor, answer->proof, WIRE_PROOF_BYTES);
}

bool wire_get_answer(const uint8_t in[WIRE_ANSWER_BYTES], struct wire_answer_message *answer)
{
    struct reader reader = {in};
    if (get32(&reader) != MAGIC_ANSWER) {
        return false;
    }
    uint32_t code = get32(&reader);
    get_bytes(&reader, answer->challenge, WIRE_CHALLENGE_BYTES);
    get_bytes(&reader, answer->proof, WIRE_PROOF_BYTES);
    if (code >= WIRE_ANSWER_COUNT) {
        return false;
    }
    answer->code = (enum wire_answer)code;
    return true;
}

void wire_put_proof(uint8_t out[WIRE_PROOF_MESSAGE_BYTES], const uint8_t proof[WIRE_PROOF_BYTES])
{
    struct cursor cursor = {out};
    put32(&cursor, MAGIC_PROOF);
    put32(&cursor, 0);
    put_bytes(&cursor, proof, WIRE_PROOF_BYTES);
}

bool wire_get_proof(const uint8_t in[WIRE_PROOF_MESSAGE_BYTES], uint8_t proof[WIRE_PROOF_BYTES])
{
    struct reader reader = {in};
    if (get32(&reader) != MAGIC_PROOF || get32(&reader) != 0) {
        return false;
    }
    get_bytes(&reader, proof, WIRE_PROOF_BYTES);
    return true;
}

void wire_put_header(uint8_t out[WIRE_HEADER_BYTES], const struct comm_frame *frame)
{
    struct cursor cursor = {out};
    put32(&cursor, MAGIC_FRAME);
    put32(&cursor, frame->kind);
    put64(&cursor, frame->number);
    put64(&cursor, frame->nonce);
    put64(&cursor, frame->step);
    put64(&cursor, frame->offset);
    put64(&cursor, frame->length);
    put64(&cursor, frame->value[0]);
    put64(&cursor, frame->value[1]);
    put32(&cursor, frame->bucket);
    put32(&cursor, frame->chunk);
    put32(&cursor, frame->level);
    put32(&cursor, frame->index);
    put32(&cursor, frame->flags);
    put32(&cursor, 0);
}

bool wire_get_header(const uint8_t in[WIRE_HEADER_BYTES], struct comm_frame *frame)
{
    struct reader reader = {in};
    if (get32(&reader) != MAGIC_FRAME) {
        return false;
    }
    frame->kind = get32(&reader);
    frame->number = get64(&reader);
    frame->nonce = get64(&reader);
    frame->step = get64(&reader);
    frame->offset = get64(&reader);
    frame->length = get64(&reader);
    frame->value[0] = get64(&reader);
    frame->value[1] = get64(&reader);
    frame->bucket = get32(&reader);
    frame->chunk = get32(&reader);
    frame->level = get32(&reader);
    frame->index = get32(&reader);
    frame->flags = get32(&reader);
    return get32(&reader) == 0;
}

void wire_put_trailer(uint8_t out[WIRE_TRAILER_BYTES], bool aborted)
{
    struct cursor cursor = {out};
    put32(&cursor, aborted ? MAGIC_ABORTED : MAGIC_WHOLE);
    put32(&cursor, 0);
}

bool wire_get_trailer(const uint8_t in[WIRE_TRAILER_BYTES], bool *aborted)
{
    struct reader reader = {in};
    uint32_t magic = get32(&reader);
    *aborted = magic == MAGIC_ABORTED;
    return (magic == MAGIC_WHOLE || *aborted) && get32(&reader) == 0;
}
