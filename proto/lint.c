/* Invariants of the scanner:
 *   1. The position only grows; every field costs at least one byte, so a body of n bytes takes at
 *      most n turns.
 *   2. `end` of a level is never beyond the end of the level around it; no byte at or after the end
 *      of the innermost level is read as part of it.
 *   3. The stack holds at most LINT_DEPTH_MAX levels; there is no recursion over the input.
 * Wire format: https://protobuf.dev/programming-guides/encoding/
 */
#include "proto/lint.h"

#include <string.h>

enum encoding {
    ENCODING_VARINT = 0,
    ENCODING_FIXED64 = 1,
    ENCODING_LENGTH = 2,
    ENCODING_FIXED32 = 5
};

/* A message that is being scanned. */
struct level {
    const struct lint_table *table;   /* its rows */
    size_t end;                       /* offset in the body where it ends */
    uint16_t counts[LINT_FIELDS_MAX]; /* how often each field came */
};

struct scanner {
    const uint8_t *body;                 /* what is scanned */
    size_t position;                     /* offset of the next byte */
    const char *field;                   /* name of the field that is read, for the fault */
    uint32_t depth;                      /* levels in use, >= 1 */
    struct level levels[LINT_DEPTH_MAX]; /* [0] is the body itself */
};

/* Sequence length and code point of the character at text; 0 when it is not UTF-8 (RFC 3629). */
static size_t utf8_character(const uint8_t *text, size_t bytes, uint32_t *point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = text[0] < 0x80             ? 1
                    : (text[0] & 0xe0) == 0xc0 ? 2
                    : (text[0] & 0xf0) == 0xe0 ? 3
                    : (text[0] & 0xf8) == 0xf0 ? 4
                                               : 0;

    if (length == 0 || length > bytes)
        return 0;
    *point = length == 1 ? text[0] : text[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        *point = *point << 6 | (text[i] & 0x3f);
    }
    if (*point < least[length] || *point > 0x10ffff || (*point >= 0xd800 && *point <= 0xdfff))
        return 0;
    return length;
}

size_t lint_text_character(enum lint_kind kind, const uint8_t *text, size_t text_bytes)
{
    uint32_t point = 0;
    size_t length = utf8_character(text, text_bytes, &point);

    if (length == 0)
        return 0;
    if (kind == LINT_LINES && point == '\n')
        return length;
    return point < 0x20 || (point >= 0x7f && point <= 0x9f) ? 0 : length;
}

bool lint_text_valid(enum lint_kind kind, const uint8_t *text, size_t text_bytes)
{
    for (size_t at = 0; at < text_bytes;) {
        size_t length = lint_text_character(kind, text + at, text_bytes - at);

        if (length == 0)
            return false;
        at += length;
    }
    return true;
}

static struct level *top(struct scanner *scanner)
{
    return &scanner->levels[scanner->depth - 1];
}

static enum lint_error read_varint(struct scanner *scanner, uint64_t *value)
{
    size_t end = top(scanner)->end;
    uint64_t sum = 0;

    for (uint32_t shift = 0; shift < 64; shift += 7) {
        uint8_t byte;

        if (scanner->position == end)
            return LINT_ERROR_TRUNCATED;
        byte = scanner->body[scanner->position++];
        if (shift == 63 && byte > 1)
            return LINT_ERROR_VARINT;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte & 0x80)
            continue;
        if (byte == 0 && shift > 0)
            return LINT_ERROR_VARINT;
        *value = sum;
        return LINT_OK;
    }
    return LINT_ERROR_VARINT;
}

static enum encoding encoding_of(enum lint_kind kind)
{
    switch (kind) {
    case LINT_VARINT:
        return ENCODING_VARINT;
    case LINT_FIXED32:
        return ENCODING_FIXED32;
    case LINT_FIXED64:
        return ENCODING_FIXED64;
    case LINT_BYTES:
    case LINT_TEXT:
    case LINT_LINES:
    case LINT_MESSAGE:
        break;
    }
    return ENCODING_LENGTH;
}

/* Reads a tag, finds its row and counts it. */
static enum lint_error read_tag(struct scanner *scanner, const struct lint_field **field)
{
    struct level *level = top(scanner);
    uint64_t tag = 0;
    uint32_t count_max;
    enum lint_error error = read_varint(scanner, &tag);

    scanner->field = "?";
    if (error != LINT_OK)
        return error;
    if (tag >> 3 >= LINT_FIELDS_MAX || !level->table->fields[tag >> 3].name)
        return LINT_ERROR_UNKNOWN;
    *field = &level->table->fields[tag >> 3];
    scanner->field = (*field)->name;
    if ((tag & 7) != encoding_of((*field)->kind))
        return LINT_ERROR_ENCODING;
    count_max = (*field)->count_max ? (*field)->count_max : 1;
    if (level->counts[tag >> 3] >= count_max)
        return (*field)->count_max ? LINT_ERROR_COUNT : LINT_ERROR_DUPLICATE;
    level->counts[tag >> 3]++;
    return LINT_OK;
}

static enum lint_error skip(struct scanner *scanner, uint64_t bytes)
{
    if (bytes > top(scanner)->end - scanner->position)
        return LINT_ERROR_TRUNCATED;
    scanner->position += (size_t)bytes;
    return LINT_OK;
}

/* Enters a sub-message whose length was just read. */
static enum lint_error push(struct scanner *scanner, const struct lint_field *field, uint64_t bytes)
{
    struct level *level;

    if (bytes > top(scanner)->end - scanner->position)
        return LINT_ERROR_TRUNCATED;
    if (scanner->depth == LINT_DEPTH_MAX)
        return LINT_ERROR_DEPTH;
    scanner->depth++;
    level = top(scanner);
    level->table = field->inside;
    level->end = scanner->position + (size_t)bytes;
    memset(level->counts, 0, sizeof level->counts);
    return LINT_OK;
}

static enum lint_error read_bytes(struct scanner *scanner, const struct lint_field *field,
                                  uint64_t bytes)
{
    const uint8_t *at = scanner->body + scanner->position;
    enum lint_error error = skip(scanner, bytes);

    if (error != LINT_OK)
        return error;
    if (bytes == 0 && field->or_empty)
        return LINT_OK;
    if (bytes < field->bytes_min || bytes > field->bytes_max)
        return LINT_ERROR_BYTES;
    if (field->kind != LINT_BYTES && !lint_text_valid(field->kind, at, (size_t)bytes))
        return LINT_ERROR_TEXT;
    return LINT_OK;
}

static enum lint_error read_field(struct scanner *scanner)
{
    const struct lint_field *field = NULL;
    uint64_t value = 0;
    enum lint_error error = read_tag(scanner, &field);

    if (error != LINT_OK)
        return error;
    if (field->kind == LINT_FIXED32)
        return skip(scanner, 4);
    if (field->kind == LINT_FIXED64)
        return skip(scanner, 8);
    error = read_varint(scanner, &value); /* the number itself, or a length */
    if (error != LINT_OK)
        return error;
    if (field->kind == LINT_VARINT)
        return value <= field->value_max ? LINT_OK : LINT_ERROR_VALUE;
    if (field->kind == LINT_MESSAGE)
        return push(scanner, field, value);
    return read_bytes(scanner, field, value);
}

/* The level ends: is every mandatory field there? */
static enum lint_error pop(struct scanner *scanner)
{
    const struct level *level = top(scanner);

    for (uint32_t number = 1; number < LINT_FIELDS_MAX; number++) {
        const struct lint_field *field = &level->table->fields[number];

        if (field->bytes_min == 0 || field->or_empty || field->count_max > 0)
            continue;
        if (level->counts[number] == 0) {
            scanner->field = field->name;
            return LINT_ERROR_MISSING;
        }
    }
    scanner->depth--;
    return LINT_OK;
}

static enum lint_error scan(struct scanner *scanner)
{
    enum lint_error error = LINT_OK;

    while (error == LINT_OK && scanner->depth > 0) {
        if (scanner->position == top(scanner)->end)
            error = pop(scanner);
        else
            error = read_field(scanner);
    }
    return error;
}

enum lint_error lint_check(uint8_t type, const uint8_t *body, size_t body_bytes,
                           struct lint_fault *fault)
{
    struct scanner scanner;
    enum lint_error error = LINT_ERROR_TYPE;
    const char *message = "?";

    scanner.body = body;
    scanner.position = 0;
    scanner.field = "?";
    scanner.depth = 1;
    scanner.levels[0].table = lint_table(type);
    scanner.levels[0].end = body_bytes;
    memset(scanner.levels[0].counts, 0, sizeof scanner.levels[0].counts);
    if (scanner.levels[0].table)
        error = scan(&scanner);
    if (error == LINT_OK || !fault)
        return error;
    if (error != LINT_ERROR_TYPE)
        message = top(&scanner)->table->name;
    *fault = (struct lint_fault){error, message, scanner.field, scanner.position};
    return error;
}

static size_t varint_bytes(uint64_t value)
{
    size_t bytes = 1;

    for (; value >= 0x80; value >>= 7)
        bytes++;
    return bytes;
}

static size_t field_bytes_max(const struct lint_field *field)
{
    switch (field->kind) {
    case LINT_VARINT:
        return varint_bytes(field->value_max);
    case LINT_FIXED32:
        return 4;
    case LINT_FIXED64:
        return 8;
    case LINT_BYTES:
    case LINT_TEXT:
    case LINT_LINES:
        return varint_bytes(field->bytes_max) + field->bytes_max;
    case LINT_MESSAGE:
        break;
    }
    /* Recursion over the static tables, which are not deeper than LINT_DEPTH_MAX. */
    size_t inside = lint_table_bytes_max(field->inside);
    return varint_bytes(inside) + inside;
}

size_t lint_table_bytes_max(const struct lint_table *table)
{
    size_t sum = 0;

    for (uint32_t number = 1; number < LINT_FIELDS_MAX; number++) {
        const struct lint_field *field = &table->fields[number];
        size_t count = field->count_max ? field->count_max : 1;

        if (field->name)
            sum += count * (varint_bytes((uint64_t)number << 3) + field_bytes_max(field));
    }
    return sum;
}

const char *lint_error_text(enum lint_error error)
{
    switch (error) {
#define LINT_ERROR_CASE(name, sentence)                                                            \
    case name:                                                                                     \
        return sentence;
        LINT_ERRORS(LINT_ERROR_CASE)
#undef LINT_ERROR_CASE
    }
    return "?";
}
