/* A bounded scanner of the JSON that safetensors headers are made of: strings and whole numbers
 * between punctuation. It allocates nothing and does not recurse: what may follow what is the
 * caller's grammar, which has no nesting of its own. Private to this library. */
#ifndef CKPT_SCAN_H
#define CKPT_SCAN_H

#include "ckpt/error.h"

#include <stdbool.h>
#include <stdint.h>

struct scan {
    const char *at, *end;     /* what is left */
    const char *path;         /* for sentences */
    struct ckpt_error *error; /* the first one is kept */
    bool broken;              /* there was one */
};

/* Keeps the sentence "path: header: what" with CKPT_FORMAT; always false. */
bool scan_bad(struct scan *scan, const char *what);
void scan_space(struct scan *scan);

/* Is c next? Then it is taken. */
bool scan_take(struct scan *scan, char c);
bool scan_expect(struct scan *scan, char c);

/* A string of less than `bytes` bytes, escapes resolved, without a 0 inside. */
bool scan_string(struct scan *scan, char *out, size_t bytes);
bool scan_number(struct scan *scan, uint64_t *value);

/* Well-formed UTF-8: no overlong form, no surrogate, nothing beyond U+10FFFF. */
bool scan_utf8(const char *bytes, uint64_t length);

#endif
