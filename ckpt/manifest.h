/* manifest.json: what a checkpoint holds, and the checksums that prove it. Private to this library;
 * FORMAT.md has its keys. */
#ifndef CKPT_MANIFEST_H
#define CKPT_MANIFEST_H

#include "ckpt/ckpt.h"

#define MANIFEST_NAME      "manifest.json"
#define MANIFEST_BYTES_MAX (4u << 20)

/* Characters behind the last byte that the manifest's own checksum covers: its key, its value, the
 * end. */
#define MANIFEST_TAIL_BYTES 53

struct manifest_file {
    char name[64];        /* in the checkpoint's folder */
    uint64_t bytes;       /* the whole file */
    char xxh128[33];      /* hexadecimal digits, of the whole */
    uint64_t chunk_bytes; /* of every chunk but the last */
    uint64_t *chunks;     /* owned: XXH3-64 of each */
    uint32_t chunk_count; /* as bytes and chunk_bytes say */
};

struct manifest {
    struct ckpt_meta meta;
    struct manifest_file files[CKPT_FILES_MAX];
    uint32_t count; /* of files */
};

/* Text of a manifest with its checksum, malloc'ed; NULL: out of memory, or a value that JSON does
 * not have (a name that is not UTF-8, a number of 64 bits, a loss scale that is not finite). */
char *manifest_text(const struct manifest *manifest);

/* Parses and checks: the checksum first, so that a parser never sees what was damaged by chance.
 * path is for the sentence. Release it, also after an error. */
enum ckpt_code manifest_parse(const char *text, size_t bytes, const char *path,
                              struct manifest *manifest, struct ckpt_error *error);
void manifest_release(struct manifest *manifest); /* accepts an empty one */

#endif
