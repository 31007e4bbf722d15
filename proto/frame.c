/* Invariants of a parser:
 *   1. `have_bytes` counts header bytes until the header is whole, and body bytes from
 *      FRAME_NEED_MEMORY on; it never exceeds the part it counts.
 *   2. A header is judged before its body_bytes is used: it is <= the limit of state and type.
 *   3. `memory` is only written below header.body_bytes, and only after frame_parser_give().
 *   4. After FRAME_BROKEN every feed returns FRAME_BROKEN and takes nothing.
 */
#include "proto/frame.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

static const uint8_t frame_magic[4] = {'M', 'S', 'T', 'R'};

enum frame_sender { FRAME_SENDER_NOBODY, FRAME_SENDER_MEMBER, FRAME_SENDER_COORDINATOR };

struct frame_rule {
    const char *name;         /* of the type; NULL = there is none of this number */
    enum frame_sender sender; /* who may send it */
    uint32_t limit_bytes;     /* of its body */
};

static const struct frame_rule frame_rules[UINT8_MAX + 1] = {
#define FRAME_RULE_ROW(name, number, sender, limit)                                                \
    [number] = {#name, FRAME_SENDER_##sender, limit},
    FRAME_TYPES(FRAME_RULE_ROW)
#undef FRAME_RULE_ROW
};

static void put_u16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *out, uint32_t value)
{
    put_u16(out, (uint16_t)value);
    put_u16(out + 2, (uint16_t)(value >> 16));
}

static void put_u64(uint8_t *out, uint64_t value)
{
    put_u32(out, (uint32_t)value);
    put_u32(out + 4, (uint32_t)(value >> 32));
}

static uint16_t get_u16(const uint8_t *in)
{
    return (uint16_t)(in[0] | (uint16_t)(in[1] << 8));
}

static uint32_t get_u32(const uint8_t *in)
{
    return get_u16(in) | (uint32_t)get_u16(in + 2) << 16;
}

static uint64_t get_u64(const uint8_t *in)
{
    return get_u32(in) | (uint64_t)get_u32(in + 4) << 32;
}

static bool state_allows(enum frame_state state, uint8_t type)
{
    switch (state) {
    case FRAME_STATE_STRANGER:
        return type == FRAME_HELLO;
    case FRAME_STATE_MEMBER:
        return type != FRAME_HELLO && frame_rules[type].sender == FRAME_SENDER_MEMBER;
    case FRAME_STATE_COORDINATOR:
        return frame_rules[type].sender == FRAME_SENDER_COORDINATOR;
    }
    return false;
}

enum frame_error frame_limit(enum frame_state state, uint8_t type, uint16_t flags,
                             uint32_t *limit_bytes)
{
    if (!frame_rules[type].name)
        return FRAME_ERROR_TYPE;
    if (!state_allows(state, type))
        return FRAME_ERROR_STATE;
    if (flags & ~FRAME_FLAG_ROSTER || (flags && type != FRAME_HELLO))
        return FRAME_ERROR_FLAGS;
    *limit_bytes = flags & FRAME_FLAG_ROSTER ? FRAME_ROSTER_BYTES : frame_rules[type].limit_bytes;
    return FRAME_OK;
}

void frame_header_encode(const struct frame_header *header, uint8_t out[FRAME_HEADER_BYTES])
{
    memcpy(out, frame_magic, sizeof frame_magic);
    out[4] = header->version;
    out[5] = header->type;
    put_u16(out + 6, header->flags);
    put_u32(out + 8, header->body_bytes);
    put_u64(out + 12, header->generation);
    put_u64(out + 20, header->nonce);
    put_u64(out + 28, header->step);
}

enum frame_error frame_header_decode(enum frame_state state, const uint8_t in[FRAME_HEADER_BYTES],
                                     struct frame_header *header)
{
    struct frame_header seen;
    uint32_t limit_bytes = 0;
    enum frame_error error;

    if (memcmp(in, frame_magic, sizeof frame_magic) != 0)
        return FRAME_ERROR_MAGIC;
    seen.version = in[4];
    seen.type = in[5];
    seen.flags = get_u16(in + 6);
    seen.body_bytes = get_u32(in + 8);
    seen.generation = get_u64(in + 12);
    seen.nonce = get_u64(in + 20);
    seen.step = get_u64(in + 28);
    if (seen.version < FRAME_VERSION_MIN || seen.version > FRAME_VERSION_MAX)
        return FRAME_ERROR_VERSION;
    error = frame_limit(state, seen.type, seen.flags, &limit_bytes);
    if (error != FRAME_OK)
        return error;
    if (seen.body_bytes > limit_bytes)
        return FRAME_ERROR_LENGTH;
    *header = seen;
    return FRAME_OK;
}

void frame_parser_init(struct frame_parser *parser, enum frame_state state)
{
    memset(parser, 0, sizeof *parser);
    parser->state = state;
    parser->need = FRAME_NEED_HEADER;
}

void frame_parser_admit(struct frame_parser *parser)
{
    assert(parser->state == FRAME_STATE_STRANGER);
    parser->state = FRAME_STATE_MEMBER;
}

/* Moves up to `want` bytes of the input to `out`. */
static size_t take_bytes(uint8_t *out, size_t want, const uint8_t **bytes, size_t *length)
{
    size_t taken = *length < want ? *length : want;

    if (taken > 0)
        memcpy(out, *bytes, taken);
    *bytes += taken;
    *length -= taken;
    return taken;
}

/* A wrong magic is told at its first byte: a stranger that speaks HTTP is not waited for. */
static bool magic_broken(const struct frame_parser *parser)
{
    size_t count =
        parser->have_bytes < sizeof frame_magic ? parser->have_bytes : sizeof frame_magic;

    return memcmp(parser->raw, frame_magic, count) != 0;
}

static enum frame_need feed_header(struct frame_parser *parser, const uint8_t **bytes,
                                   size_t *length)
{
    parser->have_bytes += take_bytes(parser->raw + parser->have_bytes,
                                     FRAME_HEADER_BYTES - parser->have_bytes, bytes, length);
    if (magic_broken(parser)) {
        parser->error = FRAME_ERROR_MAGIC;
        return FRAME_BROKEN;
    }
    if (parser->have_bytes < FRAME_HEADER_BYTES)
        return FRAME_NEED_HEADER;
    parser->error = frame_header_decode(parser->state, parser->raw, &parser->header);
    if (parser->error != FRAME_OK)
        return FRAME_BROKEN;
    parser->have_bytes = 0;
    if (*length < parser->header.body_bytes)
        return FRAME_NEED_MEMORY;
    parser->body = *bytes;
    *bytes += parser->header.body_bytes;
    *length -= parser->header.body_bytes;
    return FRAME_WHOLE;
}

static enum frame_need feed_body(struct frame_parser *parser, const uint8_t **bytes, size_t *length)
{
    size_t body_bytes = parser->header.body_bytes;

    parser->have_bytes += take_bytes(parser->memory + parser->have_bytes,
                                     body_bytes - parser->have_bytes, bytes, length);
    if (parser->have_bytes < body_bytes)
        return FRAME_NEED_BODY;
    parser->have_bytes = 0;
    parser->body = parser->memory;
    return FRAME_WHOLE;
}

enum frame_need frame_parser_feed(struct frame_parser *parser, const uint8_t **bytes,
                                  size_t *length)
{
    switch (parser->need) {
    case FRAME_WHOLE:
        assert(!parser->memory); /* frame_parser_take() comes between two frames */
        parser->body = NULL;
        parser->need = feed_header(parser, bytes, length);
        break;
    case FRAME_NEED_HEADER:
        parser->need = feed_header(parser, bytes, length);
        break;
    case FRAME_NEED_BODY:
        parser->need = feed_body(parser, bytes, length);
        break;
    case FRAME_NEED_MEMORY:
    case FRAME_BROKEN:
        break;
    }
    return parser->need;
}

void frame_parser_give(struct frame_parser *parser, uint8_t *memory)
{
    assert(parser->need == FRAME_NEED_MEMORY);
    assert(memory);
    parser->memory = memory;
    parser->need = FRAME_NEED_BODY;
}

uint8_t *frame_parser_take(struct frame_parser *parser)
{
    uint8_t *memory = parser->memory;

    parser->memory = NULL;
    parser->body = NULL;
    if (parser->need != FRAME_BROKEN) {
        parser->have_bytes = 0;
        parser->need = FRAME_NEED_HEADER;
    }
    return memory;
}

const char *frame_error_text(enum frame_error error)
{
    switch (error) {
#define FRAME_ERROR_CASE(name, sentence)                                                           \
    case name:                                                                                     \
        return sentence;
        FRAME_ERRORS(FRAME_ERROR_CASE)
#undef FRAME_ERROR_CASE
    }
    return "?";
}

const char *frame_type_name(uint8_t type)
{
    return frame_rules[type].name ? frame_rules[type].name : "?";
}
