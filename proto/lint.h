/* The lint: bounds the bytes of a body before protobuf-c sees them.
 *
 * protobuf-c unpacks without limits: nested messages overflow the stack, one MiB of empty repeated
 * messages becomes 136 MiB, repeated singular sub-messages cost quadratic time. The lint is an
 * iterative scanner with an explicit stack, driven by one table per message. A body passes only if
 *
 *   - every field number is in the table of its message, with the wire type of the table (unknown
 *     fields are an error: what differs between versions is settled by the version number);
 *   - every singular field comes at most once, repeated ones at most `count_max` times;
 *   - every bytes field has between `bytes_min` and `bytes_max` bytes, and is there if it must have
 *     any;
 *   - text is UTF-8 without control characters (LINT_LINES: a line feed is allowed), so that names
 *     cannot be confused or break a log line;
 *   - varints are minimal and not larger than `value_max`; no groups; depth <= LINT_DEPTH_MAX;
 *   - no length points beyond its message.
 *
 * Cost: linear, one pass, no allocation. Tables are compared with messages.proto by a test.
 */
#ifndef PROTO_LINT_H
#define PROTO_LINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINT_DEPTH_MAX  4u  /* messages inside messages; the schema has 2 */
#define LINT_FIELDS_MAX 32u /* field numbers of a message are below it */

/* How a field looks on the wire and what its bytes may be. */
enum lint_kind {
    LINT_VARINT,  /* uint32, uint64, bool, enum: value <= value_max */
    LINT_FIXED32, /* float */
    LINT_FIXED64, /* double */
    LINT_BYTES,   /* any bytes */
    LINT_TEXT,    /* UTF-8, no control characters */
    LINT_LINES,   /* UTF-8, of the control characters only line feed */
    LINT_MESSAGE, /* sub-message */
};

struct lint_table;

struct lint_field {
    const char *name;                /* as in messages.proto; NULL = no such field */
    enum lint_kind kind;             /* see above */
    uint64_t value_max;              /* LINT_VARINT: largest value */
    uint32_t bytes_min;              /* bytes, text: least length; > 0 makes the field mandatory */
    uint32_t bytes_max;              /* bytes, text: largest length */
    uint32_t count_max;              /* 0: singular; else repeated at most this often */
    bool or_empty;                   /* besides bytes_min..bytes_max, absent or empty is allowed */
    const struct lint_table *inside; /* LINT_MESSAGE: the table of it */
};

struct lint_table {
    const char *name;                          /* of the message, as in messages.proto */
    struct lint_field fields[LINT_FIELDS_MAX]; /* index = field number; [0] is never used */
};

/* X(name, sentence) */
#define LINT_ERRORS(X)                                                                             \
    X(LINT_OK, "no error")                                                                         \
    X(LINT_ERROR_TYPE, "there is no message of this type")                                         \
    X(LINT_ERROR_TRUNCATED, "the message ends inside a field")                                     \
    X(LINT_ERROR_VARINT, "a number is encoded longer than needed or too large for any field")      \
    X(LINT_ERROR_UNKNOWN, "an unknown field")                                                      \
    X(LINT_ERROR_ENCODING, "a field with another wire type than the schema has")                   \
    X(LINT_ERROR_DUPLICATE, "a field that may come once comes twice")                              \
    X(LINT_ERROR_COUNT, "a repeated field comes more often than allowed")                          \
    X(LINT_ERROR_BYTES, "a field is longer or shorter than allowed")                               \
    X(LINT_ERROR_VALUE, "a number is larger than its field allows")                                \
    X(LINT_ERROR_TEXT, "text that is not UTF-8 or has control characters")                         \
    X(LINT_ERROR_MISSING, "a mandatory field is missing")                                          \
    X(LINT_ERROR_DEPTH, "messages nested too deeply")

enum lint_error {
#define LINT_ERROR_ENUM(name, sentence) name,
    LINT_ERRORS(LINT_ERROR_ENUM)
#undef LINT_ERROR_ENUM
};

/* Where it broke, for a log line: "Member.node at byte 118". */
struct lint_fault {
    enum lint_error error; /* what is wrong */
    const char *message;   /* name of the message; static */
    const char *field;     /* name of the field; static; "?" for an unknown one */
    size_t offset_bytes;   /* in the body */
};

/* LINT_OK, or the first thing wrong, told in *fault (which may be NULL). */
enum lint_error lint_check(uint8_t type, const uint8_t *body, size_t body_bytes,
                           struct lint_fault *fault);

/* The table of a frame type; NULL for an unknown one. */
const struct lint_table *lint_table(uint8_t type);

/* Largest body in bytes that passes a table. */
size_t lint_table_bytes_max(const struct lint_table *table);

/* True if the text may stand in a field of this kind (LINT_TEXT or LINT_LINES). */
bool lint_text_valid(enum lint_kind kind, const uint8_t *text, size_t text_bytes);

/* Bytes of the first character of a text that is not empty; 0 when it may not stand there. */
size_t lint_text_character(enum lint_kind kind, const uint8_t *text, size_t text_bytes);

const char *lint_error_text(enum lint_error error); /* the sentence */

#endif
