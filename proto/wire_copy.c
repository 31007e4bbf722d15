/* Deep copy of a message into an arena: the struct is copied whole, then every pointer in it. */
#include "proto/wire.h"
#include "proto/wire_fields.h"

#include <string.h>

static bool copy_mask(struct wire_arena *arena, const uint8_t **mask, uint32_t bytes)
{
    uint8_t *copy = bytes > 0 ? wire_arena_take(arena, bytes) : NULL;

    if (copy)
        memcpy(copy, *mask, bytes);
    *mask = copy;
    return copy || bytes == 0;
}

static bool copy_text(struct wire_arena *arena, const char **text)
{
    size_t bytes;
    char *copy;

    if (!*text || **text == '\0') {
        *text = ""; /* most are empty: they cost nothing */
        return true;
    }
    bytes = strlen(*text) + 1;
    copy = wire_arena_take(arena, bytes);
    if (!copy)
        return false;
    memcpy(copy, *text, bytes);
    *text = copy;
    return true;
}

#define COPY_PLAIN(field)
#define COPY_ENUMERATION(field)
#define COPY_IDENTITY(field)
#define COPY_UID(field)
#define COPY_NAME(field)        ok = ok && copy_text(arena, &to->field);
#define COPY_SPEECH_16(field)   COPY_NAME(field)
#define COPY_SPEECH_32(field)   COPY_NAME(field)
#define COPY_SPEECH_64(field)   COPY_NAME(field)
#define COPY_SPEECH_128(field)  COPY_NAME(field)
#define COPY_SPEECH_256(field)  COPY_NAME(field)
#define COPY_SPEECH_512(field)  COPY_NAME(field)
#define COPY_MASK(field)        ok = ok && copy_mask(arena, &to->field, to->field##_bytes);
#define COPY_ROSTER(field)      ok = ok && copy_roster(arena, &to->field, to->field##_count);
#define COPY_IDENTITIES(field)  ok = ok && copy_ids(arena, &to->field, to->field##_count);
#define COPY_FIELD(kind, field) COPY_##kind(field)

static bool copy_member(struct wire_arena *arena, struct wire_member *to)
{
    bool ok = true;

    WIRE_MEMBER_FIELDS(COPY_FIELD)
    return ok;
}

static bool copy_roster(struct wire_arena *arena, const struct wire_member **roster, uint32_t count)
{
    struct wire_member *copy = wire_arena_take(arena, count * sizeof *copy);
    bool ok = copy != NULL;

    for (uint32_t i = 0; i < count && ok; i++) {
        copy[i] = (*roster)[i];
        ok = copy_member(arena, &copy[i]);
    }
    *roster = copy;
    return ok;
}

static bool copy_ids(struct wire_arena *arena, const wire_id **ids, uint32_t count)
{
    wire_id *copy = wire_arena_take(arena, count * sizeof *copy);

    if (!copy)
        return false;
    if (count > 0)
        memcpy(copy, *ids, count * sizeof *copy);
    *ids = copy;
    return true;
}

#define COPY_MESSAGE(type, name, message)                                                          \
    static bool copy_##name(struct wire_arena *arena, struct wire_##name *to)                      \
    {                                                                                              \
        bool ok = true;                                                                            \
                                                                                                   \
        (void)arena;                                                                               \
        (void)to;                                                                                  \
        WIRE_##type##_FIELDS(COPY_FIELD) return ok;                                                \
    }
WIRE_MESSAGES(COPY_MESSAGE)

enum wire_error wire_message_copy(struct wire_arena *arena, const struct wire_message *from,
                                  struct wire_message *to)
{
    *to = *from;
    switch ((enum frame_type)to->header.type) {
#define COPY_CASE(type, name, message)                                                             \
    case FRAME_##type:                                                                             \
        return copy_##name(arena, &to->name) ? WIRE_OK : WIRE_ERROR_MEMORY;
        WIRE_MESSAGES(COPY_CASE)
    }
    return WIRE_ERROR_TYPE;
}
