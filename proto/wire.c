/* Bodies to messages and back: the only place that sees what protoc-c generated.
 *
 * Invariants:
 *   1. protobuf-c sees only bytes that passed the lint, and gets memory only from the arena, at
 *      most WIRE_AMPLIFICATION times the limit of the frame's type.
 *   2. The allocator appends a zero byte to every block, so that the bytes fields of an unpacked
 *      message are text that ends with NUL (the lint refuses NUL inside text).
 *   3. Nothing that wire_encode() gives out would be refused by wire_decode().
 */
#include "proto/wire.h"
#include "proto/wire_fields.h"

#include "messages.pb-c.h"

#include <string.h>

enum { WIRE_AMPLIFICATION = 4 };

_Static_assert(WIRE_ARENA_BYTES >= WIRE_AMPLIFICATION * FRAME_BODY_MAX_BYTES, "arena");
_Static_assert((int)WIRE_PHASE_FINISHED == (int)MUSTER__V1__PHASE__PHASE_FINISHED, "phase");
_Static_assert((int)WIRE_REFUSAL_GROUP == (int)MUSTER__V1__REFUSAL__REFUSAL_GROUP, "refusal");
_Static_assert((int)WIRE_MODE_VIEW == (int)MUSTER__V1__GENERATION_MODE__GENERATION_MODE_VIEW,
               "mode");
_Static_assert((int)WIRE_BARRIER_FINISHED == (int)MUSTER__V1__BARRIER_END__BARRIER_END_FINISHED,
               "barrier end");
_Static_assert((int)WIRE_VERDICT_BARRIERS == (int)MUSTER__V1__VERDICT_KIND__VERDICT_KIND_BARRIERS,
               "verdict");
_Static_assert((int)WIRE_ATTACH_FROZEN == (int)MUSTER__V1__ATTACH__ATTACH_FROZEN, "attach");
_Static_assert((int)WIRE_LOST_STRANGER == (int)MUSTER__V1__LOST_WHY__LOST_WHY_STRANGER, "lost");

/* Any message as protobuf-c knows it. */
union packed {
    ProtobufCMessage base;
#define PACKED_MEMBER(type, name, message) Muster__V1__##message name;
    WIRE_MESSAGES(PACKED_MEMBER)
#undef PACKED_MEMBER
};

/* Limit of a body of this type, whoever may send it; 0 when there is none. */
static uint32_t body_limit(uint8_t type, uint16_t flags)
{
    static const enum frame_state states[] = {FRAME_STATE_STRANGER, FRAME_STATE_MEMBER,
                                              FRAME_STATE_COORDINATOR};
    uint32_t limit_bytes = 0;

    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        if (frame_limit(states[i], type, flags, &limit_bytes) == FRAME_OK)
            return limit_bytes;
    }
    return 0;
}

static const ProtobufCMessageDescriptor *descriptor_of(uint8_t type)
{
    switch ((enum frame_type)type) {
#define DESCRIPTOR_CASE(type, name, message)                                                       \
    case FRAME_##type:                                                                             \
        return &muster__v1__##name##__descriptor;
        WIRE_MESSAGES(DESCRIPTOR_CASE)
#undef DESCRIPTOR_CASE
    }
    return NULL;
}

/* ---- bytes to message ---- */

/* What the allocator of one unpack may still give out. */
struct budget {
    struct wire_arena *arena; /* where blocks come from */
    size_t end_bytes;         /* arena->used_bytes may not grow beyond it */
    bool spent;               /* a block was refused */
};

static void *budget_take(struct budget *budget, size_t bytes)
{
    uint8_t *block = NULL;

    if (bytes < budget->end_bytes && budget->arena->used_bytes <= budget->end_bytes - bytes - 1)
        block = wire_arena_take(budget->arena, bytes + 1);
    if (block)
        block[bytes] = 0;
    else
        budget->spent = true;
    return block;
}

static void *budget_alloc(void *context, size_t bytes)
{
    return budget_take(context, bytes);
}

static void budget_free(void *context, void *block)
{
    (void)context;
    (void)block; /* the arena is reset as a whole */
}

static void decode_id(const ProtobufCBinaryData *from, wire_id *to)
{
    memset(to, 0, sizeof *to);
    if (from->len == WIRE_ID_BYTES)
        memcpy(to->bytes, from->data, WIRE_ID_BYTES);
}

static const char *decode_text(const ProtobufCBinaryData *from)
{
    return from->len > 0 ? (const char *)from->data : "";
}

#define DECODE_PLAIN(field) to->field = from->field;
#define DECODE_UID(field)   decode_id(&from->field, &to->field);
#define DECODE_IDENTITY(field)                                                                     \
    DECODE_UID(field)                                                                              \
    if (wire_id_zero(&to->field))                                                                  \
        return WIRE_ERROR_IDENTITY;
#define DECODE_NAME(field)       to->field = decode_text(&from->field);
#define DECODE_SPEECH_16(field)  DECODE_NAME(field)
#define DECODE_SPEECH_32(field)  DECODE_NAME(field)
#define DECODE_SPEECH_64(field)  DECODE_NAME(field)
#define DECODE_SPEECH_128(field) DECODE_NAME(field)
#define DECODE_SPEECH_256(field) DECODE_NAME(field)
#define DECODE_SPEECH_512(field) DECODE_NAME(field)
#define DECODE_ENUMERATION(field)                                                                  \
    if ((int)from->field == 0)                                                                     \
        return WIRE_ERROR_ENUM;                                                                    \
    to->field = (__typeof__(to->field))from->field;
#define DECODE_MASK(field)                                                                         \
    to->field = from->field.len > 0 ? from->field.data : NULL;                                     \
    to->field##_bytes = (uint32_t)from->field.len;
#define DECODE_ROSTER(field)                                                                       \
    to->field##_count = (uint32_t)from->n_##field;                                                 \
    error = decode_roster(budget, from->field, from->n_##field, &to->field);                       \
    if (error != WIRE_OK)                                                                          \
        return error;
#define DECODE_IDENTITIES(field)                                                                   \
    to->field##_count = (uint32_t)from->n_##field;                                                 \
    error = decode_ids(budget, from->field, from->n_##field, &to->field);                          \
    if (error != WIRE_OK)                                                                          \
        return error;
#define DECODE_FIELD(kind, field) DECODE_##kind(field)

static enum wire_error decode_member(const Muster__V1__Member *from, struct wire_member *to)
{
    WIRE_MEMBER_FIELDS(DECODE_FIELD)
    return WIRE_OK;
}

static enum wire_error decode_roster(struct budget *budget, Muster__V1__Member *const *list,
                                     size_t count, const struct wire_member **to)
{
    struct wire_member *members = budget_take(budget, count * sizeof *members);
    enum wire_error error = members ? WIRE_OK : WIRE_ERROR_MEMORY;

    for (size_t i = 0; i < count && error == WIRE_OK; i++)
        error = decode_member(list[i], &members[i]);
    *to = members;
    return error;
}

static enum wire_error decode_ids(struct budget *budget, const ProtobufCBinaryData *list,
                                  size_t count, const wire_id **to)
{
    wire_id *ids = budget_take(budget, count * sizeof *ids);
    enum wire_error error = ids ? WIRE_OK : WIRE_ERROR_MEMORY;

    for (size_t i = 0; i < count && error == WIRE_OK; i++) {
        decode_id(&list[i], &ids[i]);
        error = wire_id_zero(&ids[i]) ? WIRE_ERROR_IDENTITY : WIRE_OK;
    }
    *to = ids;
    return error;
}

#define DECODE_MESSAGE(type, name, message)                                                        \
    static enum wire_error decode_##name(struct budget *budget, const Muster__V1__##message *from, \
                                         struct wire_##name *to)                                   \
    {                                                                                              \
        enum wire_error error = WIRE_OK;                                                           \
                                                                                                   \
        (void)budget;                                                                              \
        WIRE_##type##_FIELDS(DECODE_FIELD) return error;                                           \
    }
WIRE_MESSAGES(DECODE_MESSAGE)

static enum wire_error decode_any(struct budget *budget, const union packed *packed,
                                  struct wire_message *message)
{
    switch ((enum frame_type)message->header.type) {
#define DECODE_CASE(type, name, ignored)                                                           \
    case FRAME_##type:                                                                             \
        return decode_##name(budget, &packed->name, &message->name);
        WIRE_MESSAGES(DECODE_CASE)
#undef DECODE_CASE
    }
    return WIRE_ERROR_TYPE;
}

enum wire_error wire_decode(struct wire_arena *arena, const struct frame_header *header,
                            const uint8_t *body, struct wire_message *message,
                            struct lint_fault *fault)
{
    size_t limit_bytes = body_limit(header->type, header->flags);
    size_t left_bytes = arena->capacity_bytes - arena->used_bytes;
    struct budget budget = {.arena = arena};
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    const ProtobufCMessage *base;

    if (limit_bytes == 0)
        return WIRE_ERROR_TYPE;
    if (header->body_bytes > limit_bytes)
        return WIRE_ERROR_LENGTH;
    if (lint_check(header->type, body, header->body_bytes, fault) != LINT_OK)
        return WIRE_ERROR_LINT;
    if (left_bytes > WIRE_AMPLIFICATION * limit_bytes)
        left_bytes = WIRE_AMPLIFICATION * limit_bytes;
    budget.end_bytes = arena->used_bytes + left_bytes;
    base = protobuf_c_message_unpack(descriptor_of(header->type), &allocator, header->body_bytes,
                                     body);
    if (!base)
        return budget.spent ? WIRE_ERROR_MEMORY : WIRE_ERROR_UNPACK;
    message->header = *header;
    return decode_any(&budget, (const union packed *)base, message);
}

/* ---- message to bytes ---- */

/* protobuf-c's structs are not const, its packing is. */
static ProtobufCBinaryData view(const void *data, size_t bytes)
{
    return (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)data};
}

static ProtobufCBinaryData encode_id(const wire_id *id)
{
    return view(id->bytes, wire_id_zero(id) ? 0 : WIRE_ID_BYTES);
}

static ProtobufCBinaryData encode_name(const char *text)
{
    return view(text, text ? strlen(text) : 0);
}

/* Text for people: cut at a character, and what is not text becomes '?'. */
static bool encode_speech(struct wire_arena *arena, const char *text, size_t cap_bytes,
                          ProtobufCBinaryData *to)
{
    const uint8_t *from = (const uint8_t *)text;
    size_t bytes = text ? strlen(text) : 0;
    size_t done = 0;
    uint8_t *mended;

    *to = view(text, bytes);
    if (bytes <= cap_bytes && lint_text_valid(LINT_TEXT, from, bytes))
        return true;
    mended = wire_arena_take(arena, cap_bytes);
    if (!mended)
        return false;
    for (size_t at = 0; at < bytes;) {
        size_t length = lint_text_character(LINT_TEXT, from + at, bytes - at);

        if (done + (length ? length : 1) > cap_bytes)
            break;
        if (length > 0)
            memcpy(mended + done, from + at, length);
        else
            mended[done] = '?';
        done += length ? length : 1;
        at += length ? length : 1;
    }
    *to = view(mended, done);
    return true;
}

#define ENCODE_PLAIN(field) to->field = from->field;
#define ENCODE_UID(field)   to->field = encode_id(&from->field);
#define ENCODE_IDENTITY(field)                                                                     \
    ENCODE_UID(field)                                                                              \
    if (to->field.len == 0)                                                                        \
        return WIRE_ERROR_IDENTITY;
#define ENCODE_NAME(field) to->field = encode_name(from->field);
#define ENCODE_SPEECH(field, cap_bytes)                                                            \
    if (!encode_speech(arena, from->field, cap_bytes, &to->field))                                 \
        return WIRE_ERROR_MEMORY;
#define ENCODE_SPEECH_16(field)  ENCODE_SPEECH(field, WIRE_DTYPE_BYTES)
#define ENCODE_SPEECH_32(field)  ENCODE_SPEECH(field, WIRE_OP_BYTES)
#define ENCODE_SPEECH_64(field)  ENCODE_SPEECH(field, WIRE_NAME_BYTES)
#define ENCODE_SPEECH_128(field) ENCODE_SPEECH(field, WIRE_PLACE_BYTES)
#define ENCODE_SPEECH_256(field) ENCODE_SPEECH(field, WIRE_REASON_BYTES)
#define ENCODE_SPEECH_512(field) ENCODE_SPEECH(field, WIRE_SENTENCE_BYTES)
#define ENCODE_ENUMERATION(field)                                                                  \
    if ((int)from->field <= 0)                                                                     \
        return WIRE_ERROR_ENUM;                                                                    \
    to->field = (__typeof__(to->field))from->field;
#define ENCODE_MASK(field) to->field = view(from->field, from->field##_bytes);
#define ENCODE_ROSTER(field)                                                                       \
    to->n_##field = from->field##_count;                                                           \
    error = encode_roster(arena, from->field, from->field##_count, &to->field);                    \
    if (error != WIRE_OK)                                                                          \
        return error;
#define ENCODE_IDENTITIES(field)                                                                   \
    to->n_##field = from->field##_count;                                                           \
    error = encode_ids(arena, from->field, from->field##_count, &to->field);                       \
    if (error != WIRE_OK)                                                                          \
        return error;
#define ENCODE_FIELD(kind, field) ENCODE_##kind(field)

static enum wire_error encode_member(struct wire_arena *arena, const struct wire_member *from,
                                     Muster__V1__Member *to)
{
    muster__v1__member__init(to);
    WIRE_MEMBER_FIELDS(ENCODE_FIELD)
    return WIRE_OK;
}

static enum wire_error encode_roster(struct wire_arena *arena, const struct wire_member *members,
                                     uint32_t count, Muster__V1__Member ***list)
{
    Muster__V1__Member *packed = wire_arena_take(arena, count * sizeof *packed);
    enum wire_error error = WIRE_OK;

    *list = wire_arena_take(arena, count * sizeof **list);
    if (!packed || !*list)
        return WIRE_ERROR_MEMORY;
    for (uint32_t i = 0; i < count && error == WIRE_OK; i++) {
        error = encode_member(arena, &members[i], &packed[i]);
        (*list)[i] = &packed[i];
    }
    return error;
}

static enum wire_error encode_ids(struct wire_arena *arena, const wire_id *ids, uint32_t count,
                                  ProtobufCBinaryData **list)
{
    *list = wire_arena_take(arena, count * sizeof **list);
    if (!*list)
        return WIRE_ERROR_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        (*list)[i] = encode_id(&ids[i]);
        if ((*list)[i].len == 0)
            return WIRE_ERROR_IDENTITY;
    }
    return WIRE_OK;
}

#define ENCODE_MESSAGE(type, name, message)                                                        \
    static enum wire_error encode_##name(struct wire_arena *arena, const struct wire_##name *from, \
                                         Muster__V1__##message *to)                                \
    {                                                                                              \
        enum wire_error error = WIRE_OK;                                                           \
                                                                                                   \
        (void)arena;                                                                               \
        muster__v1__##name##__init(to);                                                            \
        WIRE_##type##_FIELDS(ENCODE_FIELD) return error;                                           \
    }
WIRE_MESSAGES(ENCODE_MESSAGE)

static enum wire_error encode_any(struct wire_arena *arena, const struct wire_message *message,
                                  union packed *packed)
{
    switch ((enum frame_type)message->header.type) {
#define ENCODE_CASE(type, name, ignored)                                                           \
    case FRAME_##type:                                                                             \
        return encode_##name(arena, &message->name, &packed->name);
        WIRE_MESSAGES(ENCODE_CASE)
#undef ENCODE_CASE
    }
    return WIRE_ERROR_TYPE;
}

/* The header as it goes out: what the sender left open is filled in. */
static struct frame_header finish_header(const struct wire_message *message, size_t body_bytes)
{
    struct frame_header header = message->header;

    header.flags = 0;
    if (header.type == FRAME_HELLO && message->hello.roster_count > 0)
        header.flags = FRAME_FLAG_ROSTER;
    if (header.version == 0)
        header.version = FRAME_VERSION_MIN;
    header.body_bytes = (uint32_t)body_bytes;
    return header;
}

enum wire_error wire_encode(struct wire_arena *arena, const struct wire_message *message,
                            const uint8_t **frame, size_t *frame_bytes)
{
    union packed packed;
    struct frame_header header;
    size_t body_bytes;
    uint8_t *out;
    enum wire_error error = encode_any(arena, message, &packed);

    if (error != WIRE_OK)
        return error;
    body_bytes = protobuf_c_message_get_packed_size(&packed.base);
    if (body_bytes > FRAME_BODY_MAX_BYTES)
        return WIRE_ERROR_LENGTH;
    header = finish_header(message, body_bytes);
    if (body_bytes > body_limit(header.type, header.flags))
        return WIRE_ERROR_LENGTH;
    out = wire_arena_take(arena, FRAME_HEADER_BYTES + body_bytes);
    if (!out)
        return WIRE_ERROR_MEMORY;
    frame_header_encode(&header, out);
    (void)protobuf_c_message_pack(&packed.base, out + FRAME_HEADER_BYTES);
    if (lint_check(header.type, out + FRAME_HEADER_BYTES, body_bytes, NULL) != LINT_OK)
        return WIRE_ERROR_LINT;
    *frame = out;
    *frame_bytes = FRAME_HEADER_BYTES + body_bytes;
    return WIRE_OK;
}

const char *wire_library_version(void)
{
    return protobuf_c_version();
}
