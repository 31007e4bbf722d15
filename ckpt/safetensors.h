/* safetensors files: u64 length of the header (little endian), JSON header, data. FORMAT.md has the rules.
 *
 * The header is parsed by a bounded parser of its own: limits before memory, duplicate keys refused, no holes,
 * no overlap, no trailing bytes. */
#ifndef CKPT_SAFETENSORS_H
#define CKPT_SAFETENSORS_H

#include "ckpt/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SAFETENSORS_NAME_BYTES   256
#define SAFETENSORS_DIMS_MAX     8
#define SAFETENSORS_TENSORS_MAX  4096
#define SAFETENSORS_HEADER_BYTES (4u << 20)

/* name, word, bytes of an element; in the order of the format's enumeration */
#define SAFETENSORS_TYPES(X)                                                                       \
    X(BOOL, 1) X(U8, 1) X(I8, 1) X(I16, 2) X(U16, 2) X(F16, 2) X(BF16, 2) X(I32, 4) X(U32, 4)      \
    X(F32, 4) X(F64, 8) X(I64, 8) X(U64, 8)

enum safetensors_type {
#define SAFETENSORS_TYPE_ENUM(name, bytes) SAFETENSORS_##name,
    SAFETENSORS_TYPES(SAFETENSORS_TYPE_ENUM)
#undef SAFETENSORS_TYPE_ENUM
    SAFETENSORS_TYPE_COUNT
};

struct safetensors_tensor {
    char name[SAFETENSORS_NAME_BYTES];
    enum safetensors_type type;
    uint32_t dims;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    uint64_t begin, end; /* in the data */
    const void *data;    /* writing: the caller's bytes; reading: NULL */
};

struct safetensors {
    struct safetensors_tensor *tensors; /* owned; by offset */
    uint32_t count;
    uint64_t data_at;    /* offset of the data in the file */
    uint64_t file_bytes;
    int fd;              /* open while reading, -1 = not */
    char path[1024];
};

/* Sorts a copy of the tensors as the format wants and makes the header, padded with spaces so that the data
 * begins at a multiple of 4096. *header is malloc'ed; order[i] = index of the i-th tensor in the file. */
enum ckpt_code safetensors_header(const struct safetensors_tensor *tensors, uint32_t count,
                                  char **header, size_t *header_bytes, uint32_t *order,
                                  struct ckpt_error *error);

/* Opens a file and checks its whole header. */
enum ckpt_code safetensors_open(const char *path, struct safetensors *file,
                                struct ckpt_error *error);

/* Parses a header in memory: bytes[0..length) follows the 8 bytes of its length. */
enum ckpt_code safetensors_parse(const char *bytes, uint64_t length, uint64_t file_bytes,
                                 struct safetensors *file, struct ckpt_error *error);
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* Reads a tensor into the caller's memory of bytes; type and size must be right. */
enum ckpt_code safetensors_read(const struct safetensors *file, const char *name,
                                enum safetensors_type type, void *to, uint64_t bytes,
                                struct ckpt_error *error);
void safetensors_close(struct safetensors *file); /* accepts an empty one */

uint64_t safetensors_type_bytes(enum safetensors_type type);
const char *safetensors_type_word(enum safetensors_type type);

#endif
