/* Builds one JSON object in a line, with a bound. Keys are the program's own and are not escaped.
 *
 *     jsonl_begin(&line); jsonl_text(&line, "event", "step"); jsonl_uint(&line, "step", 7);
 *     text = jsonl_end(&line, &length);         ends with a line feed and NUL (not counted); valid
 *                                               until the next begin
 *
 * Text may be any bytes: what is not UTF-8 becomes ?. A line that would be longer than
 * JSONL_MAX_BYTES loses its last fields and gets "cut":true. */
#ifndef BASE_JSONL_H
#define BASE_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSONL_MAX_BYTES (1u << 20)

struct jsonl {
    char *memory;    /* owned; grows */
    size_t capacity;
    size_t length;
    bool cut;        /* a field did not fit */
};

void jsonl_release(struct jsonl *line); /* accepts an empty one */
void jsonl_begin(struct jsonl *line);
void jsonl_text(struct jsonl *line, const char *key, const char *value);
void jsonl_uint(struct jsonl *line, const char *key, uint64_t value);
void jsonl_int(struct jsonl *line, const char *key, int64_t value);
/* %.9g; not finite: null */
void jsonl_real(struct jsonl *line, const char *key, double value);
void jsonl_bool(struct jsonl *line, const char *key, bool value);
void jsonl_hex(struct jsonl *line, const char *key, uint64_t value);     /* 16 digits as text */
void jsonl_uints(struct jsonl *line, const char *key, const uint64_t *values, size_t count);
const char *jsonl_end(struct jsonl *line, size_t *length);

#endif
