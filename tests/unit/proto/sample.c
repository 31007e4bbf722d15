#include "sample.h"

#include "proto/wire_fields.h"

#include <assert.h>
#include <string.h>

const uint8_t sample_types[] = {
#define TYPE_ROW(type, name, message) FRAME_##type,
    WIRE_MESSAGES(TYPE_ROW)
#undef TYPE_ROW
};

const uint32_t sample_type_count = sizeof sample_types / sizeof sample_types[0];

uint64_t sample_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* What is filled in at the moment. */
struct filler {
    struct wire_arena *arena;
    uint64_t *state;
    const struct lint_table *table; /* of the message: caps by name */
    uint32_t count;                 /* of rosters and lists */
    bool full;                      /* texts of the largest length */
};

static const struct lint_field *field_named(const struct lint_table *table, const char *name)
{
    for (uint32_t i = 1; i < LINT_FIELDS_MAX; i++) {
        if (table->fields[i].name && strcmp(table->fields[i].name, name) == 0)
            return &table->fields[i];
    }
    assert(!"a field without a row in its lint table");
    return NULL;
}

/* Small numbers, large numbers and the ends of the range, each often. */
static uint64_t number(struct filler *filler, uint64_t largest)
{
    uint64_t value = sample_random(filler->state);
    uint32_t shift = (uint32_t)(sample_random(filler->state) % 64);

    if (shift == 0 || largest == 0)
        return largest;
    value >>= shift;
    return largest == UINT64_MAX ? value : value % (largest + 1);
}

static void fill_bool(struct filler *filler, bool *to)
{
    *to = number(filler, 1) != 0;
}

static void fill_u32(struct filler *filler, uint32_t *to)
{
    *to = (uint32_t)number(filler, UINT32_MAX);
}

static void fill_u64(struct filler *filler, uint64_t *to)
{
    *to = number(filler, UINT64_MAX);
}

static void fill_float(struct filler *filler, float *to)
{
    *to = (float)number(filler, 1u << 20) / 7;
}

static void fill_double(struct filler *filler, double *to)
{
    *to = (double)number(filler, 1u << 20) / 7;
}

static void fill_id(struct filler *filler, wire_id *to)
{
    for (uint32_t i = 0; i < WIRE_ID_BYTES; i++)
        to->bytes[i] = (uint8_t)(1 + sample_random(filler->state) % 255);
}

/* Words of one to four bytes a character. */
static const char *random_text(struct filler *filler, const struct lint_field *field)
{
    static const char *const letters[] = {
        "a", "Z", "0", "-", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x90\x9d"};
    size_t limit = filler->full ? field->bytes_max : number(filler, field->bytes_max);
    char *text = wire_arena_take(filler->arena, limit + 1);
    size_t done = 0;

    for (;;) {
        const char *letter = letters[sample_random(filler->state) % 7];

        if (done + strlen(letter) > limit)
            break;
        memcpy(text + done, letter, strlen(letter));
        done += strlen(letter);
    }
    memset(text + done, 'x', limit - done);
    text[limit] = '\0';
    return text;
}

static const uint8_t *random_mask(struct filler *filler, uint32_t *bytes)
{
    uint8_t *mask;

    *bytes = filler->full ? WIRE_OWNED_BYTES : (uint32_t)number(filler, WIRE_OWNED_BYTES);
    if (*bytes == 0)
        return NULL;
    mask = wire_arena_take(filler->arena, *bytes);
    for (uint32_t i = 0; i < *bytes; i++)
        mask[i] = (uint8_t)sample_random(filler->state);
    return mask;
}

#define CAP(field) field_named(filler->table, #field)
#define FILL_PLAIN(field)                                                                          \
    _Generic(&to->field, bool *: fill_bool, uint32_t *: fill_u32, uint64_t *: fill_u64,            \
             float *: fill_float, double *: fill_double)(filler, &to->field);
#define FILL_ENUMERATION(field) to->field = 1 + (int)number(filler, CAP(field)->value_max - 1);
#define FILL_IDENTITY(field)    fill_id(filler, &to->field);
#define FILL_UID(field)         fill_id(filler, &to->field);
#define FILL_NAME(field)        to->field = random_text(filler, CAP(field));
#define FILL_SPEECH_16(field)   FILL_NAME(field)
#define FILL_SPEECH_32(field)   FILL_NAME(field)
#define FILL_SPEECH_64(field)   FILL_NAME(field)
#define FILL_SPEECH_128(field)  FILL_NAME(field)
#define FILL_SPEECH_256(field)  FILL_NAME(field)
#define FILL_SPEECH_512(field)  FILL_NAME(field)
#define FILL_MASK(field)        to->field = random_mask(filler, &to->field##_bytes);
#define FILL_ROSTER(field)      to->field = fill_roster(filler, &to->field##_count);
#define FILL_IDENTITIES(field)  to->field = fill_ids(filler, &to->field##_count);
#define FILL_FIELD(kind, field) FILL_##kind(field)

static const struct wire_member *fill_roster(struct filler *outer, uint32_t *count)
{
    struct filler inner = *outer;
    struct filler *filler = &inner;
    struct wire_member *members = wire_arena_take(outer->arena, outer->count * sizeof *members);

    inner.table = lint_table(FRAME_GENERATION)->fields[3].inside;
    *count = outer->count;
    for (uint32_t i = 0; i < *count; i++) {
        struct wire_member *to = &members[i];

        WIRE_MEMBER_FIELDS(FILL_FIELD)
    }
    return members;
}

static const wire_id *fill_ids(struct filler *filler, uint32_t *count)
{
    wire_id *ids = wire_arena_take(filler->arena, filler->count * sizeof *ids);

    *count = filler->count;
    for (uint32_t i = 0; i < *count; i++)
        fill_id(filler, &ids[i]);
    return ids;
}

#define FILL_MESSAGE(type, name, message)                                                          \
    static void fill_##name(struct filler *filler, struct wire_##name *to)                         \
    {                                                                                              \
        WIRE_##type##_FIELDS(FILL_FIELD)                                                           \
    }
WIRE_MESSAGES(FILL_MESSAGE)

void sample_fill(struct wire_arena *arena, uint64_t *state, uint8_t type, uint32_t count, bool full,
                 struct wire_message *message)
{
    struct filler filler = {arena, state, lint_table(type), count, full};

    message->header = (struct frame_header){
        .version = FRAME_VERSION_MIN,
        .type = type,
        .generation = number(&filler, UINT64_MAX),
        .nonce = number(&filler, UINT64_MAX),
        .step = number(&filler, UINT64_MAX),
    };
    switch ((enum frame_type)type) {
#define FILL_CASE(type, name, ignored)                                                             \
    case FRAME_##type:                                                                             \
        fill_##name(&filler, &message->name);                                                      \
        break;
        WIRE_MESSAGES(FILL_CASE)
#undef FILL_CASE
    }
}

static bool same_bytes(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    return a_bytes == b_bytes && (a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

#define CHECK(same, field)                                                                         \
    if (!(same))                                                                                   \
        return #field;
#define SAME_PLAIN(field)                                                                          \
    CHECK(same_bytes(&a->field, sizeof a->field, &b->field, sizeof b->field), field)
#define SAME_ENUMERATION(field) CHECK(a->field == b->field, field)
#define SAME_IDENTITY(field)    CHECK(wire_id_equal(&a->field, &b->field), field)
#define SAME_UID(field)         SAME_IDENTITY(field)
#define SAME_NAME(field)        CHECK(same_text(a->field, b->field), field)
#define SAME_SPEECH_16(field)   SAME_NAME(field)
#define SAME_SPEECH_32(field)   SAME_NAME(field)
#define SAME_SPEECH_64(field)   SAME_NAME(field)
#define SAME_SPEECH_128(field)  SAME_NAME(field)
#define SAME_SPEECH_256(field)  SAME_NAME(field)
#define SAME_SPEECH_512(field)  SAME_NAME(field)
#define SAME_MASK(field)                                                                           \
    CHECK(same_bytes(a->field, a->field##_bytes, b->field, b->field##_bytes), field)
#define SAME_ROSTER(field)                                                                         \
    CHECK(same_roster(a->field, a->field##_count, b->field, b->field##_count), field)
#define SAME_IDENTITIES(field)                                                                     \
    CHECK(same_bytes(a->field, a->field##_count * sizeof(wire_id), b->field,                       \
                     b->field##_count * sizeof(wire_id)),                                          \
          field)
#define SAME_FIELD(kind, field) SAME_##kind(field)

static const char *difference_member(const struct wire_member *a, const struct wire_member *b)
{
    WIRE_MEMBER_FIELDS(SAME_FIELD)
    return NULL;
}

static bool same_roster(const struct wire_member *a, uint32_t a_count, const struct wire_member *b,
                        uint32_t b_count)
{
    if (a_count != b_count)
        return false;
    for (uint32_t i = 0; i < a_count; i++) {
        if (difference_member(&a[i], &b[i]))
            return false;
    }
    return true;
}

#define DIFFERENCE_MESSAGE(type, name, message)                                                    \
    static const char *difference_##name(const struct wire_##name *a, const struct wire_##name *b) \
    {                                                                                              \
        WIRE_##type##_FIELDS(SAME_FIELD) return NULL;                                              \
    }
WIRE_MESSAGES(DIFFERENCE_MESSAGE)

const char *sample_difference(const struct wire_message *a, const struct wire_message *b)
{
    if (a->header.type != b->header.type || a->header.version != b->header.version ||
        a->header.generation != b->header.generation || a->header.nonce != b->header.nonce ||
        a->header.step != b->header.step)
        return "header";
    switch ((enum frame_type)a->header.type) {
#define DIFFERENCE_CASE(type, name, ignored)                                                       \
    case FRAME_##type:                                                                             \
        return difference_##name(&a->name, &b->name);
        WIRE_MESSAGES(DIFFERENCE_CASE)
#undef DIFFERENCE_CASE
    }
    return "type";
}

#define NAME_FIELD(kind, field) #field,
#define NAMES_MESSAGE(type, name, message)                                                         \
    static const char *const names_##name[] = {WIRE_##type##_FIELDS(NAME_FIELD) NULL};
WIRE_MESSAGES(NAMES_MESSAGE)

const char *const *sample_field_names(uint8_t type)
{
    switch ((enum frame_type)type) {
#define NAMES_CASE(type, name, ignored)                                                            \
    case FRAME_##type:                                                                             \
        return names_##name;
        WIRE_MESSAGES(NAMES_CASE)
#undef NAMES_CASE
    }
    return NULL;
}
