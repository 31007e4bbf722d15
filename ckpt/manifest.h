/* manifest.json: what a checkpoint holds, and the checksums that prove it. Private to this library. */
#ifndef CKPT_MANIFEST_H
#define CKPT_MANIFEST_H

#include "ckpt/ckpt.h"

#define MANIFEST_BYTES_MAX (1u << 20)

struct manifest_file {
    char name[64];
    uint64_t bytes;
    char xxh128[33]; /* hexadecimal digits */
};

struct manifest {
    struct ckpt_meta meta;
    struct manifest_file files[CKPT_FILES_MAX];
    uint32_t count;
};

/* Text of a manifest, malloc'ed; NULL = out of memory. */
char *manifest_text(const struct manifest *manifest);

/* Parses and checks; path is for the sentence. */
enum ckpt_code manifest_parse(const char *text, size_t bytes, const char *path,
                              struct manifest *manifest, struct ckpt_error *error);

#endif
