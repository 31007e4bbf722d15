/* safetensors files: u64 length of the header (little endian), JSON header, data. FORMAT.md has the
 * rules.
 *
 *     safetensors_open(path, &file, &error)                      checks the whole header
 *     safetensors_find(&file, name)                              type, shape
 *     safetensors_read(&file, name, type, to, bytes, &error)     into the caller's memory
 *     safetensors_close(&file)
 *
 * The header is parsed by a bounded parser of its own: limits before memory, duplicate keys
 * refused, no holes, no overlap, no trailing bytes. Every sentence names the file. An open file may
 * be read by several threads. */
#ifndef CKPT_SAFETENSORS_H
#define CKPT_SAFETENSORS_H

#include "ckpt/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SAFETENSORS_NAME_BYTES   257 /* with the closing 0 */
#define SAFETENSORS_DIMS_MAX     8
#define SAFETENSORS_TENSORS_MAX  65536
#define SAFETENSORS_HEADER_BYTES (8u << 20) /* the format allows 100,000,000 */

/* name, bytes of an element; in the order of the format's enumeration, which also is the writer's
 * order. Its types of less than a byte are not here. */
#define SAFETENSORS_TYPES(X)                                                                       \
    X(BOOL, 1)                                                                                     \
    X(U8, 1)                                                                                       \
    X(I8, 1)                                                                                       \
    X(F8_E5M2, 1)                                                                                  \
    X(F8_E4M3, 1)                                                                                  \
    X(F8_E8M0, 1)                                                                                  \
    X(F8_E4M3FNUZ, 1)                                                                              \
    X(F8_E5M2FNUZ, 1)                                                                              \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(F16, 2)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(I32, 4)                                                                                      \
    X(U32, 4)                                                                                      \
    X(F32, 4)                                                                                      \
    X(C64, 8)                                                                                      \
    X(F64, 8)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U64, 8)

enum safetensors_type {
#define SAFETENSORS_TYPE_ENUM(name, bytes) SAFETENSORS_##name,
    SAFETENSORS_TYPES(SAFETENSORS_TYPE_ENUM)
#undef SAFETENSORS_TYPE_ENUM
    SAFETENSORS_TYPE_COUNT
};

struct safetensors_tensor {
    char name[SAFETENSORS_NAME_BYTES];
    enum safetensors_type type;
    uint32_t dims;                        /* 0 = one element */
    uint64_t shape[SAFETENSORS_DIMS_MAX]; /* [dims] */
    uint64_t begin, end;                  /* bytes in the data; writing: ignored */
    const void *data;                     /* writing: the caller's bytes; reading: NULL */
};

struct safetensors {
    struct safetensors_tensor *tensors; /* owned; by offset */
    uint32_t count;                     /* of tensors */
    uint64_t data_at;                   /* offset of the data in the file */
    uint64_t file_bytes;                /* the whole file */
    int fd;                             /* open while reading; 0 or less = not */
    char path[1024];                    /* for sentences */
};

/* Makes the header for the tensors in the format's order, padded with spaces so that the data
 * begins at a multiple of 4096. *header is malloc'ed and begins with its length; order[i] = index
 * of the i-th tensor in the file. CKPT_FORMAT: a name twice, or a name, number of dimensions or
 * size that the format or this library does not take. */
enum ckpt_code safetensors_header(const struct safetensors_tensor *tensors, uint32_t count,
                                  char **header, size_t *header_bytes, uint32_t *order,
                                  struct ckpt_error *error);

/* Opens a file and checks its whole header. */
enum ckpt_code safetensors_open(const char *path, struct safetensors *file,
                                struct ckpt_error *error);

/* Parses a header in memory: bytes[0..length) follows the 8 bytes of its length. *file is empty but
 * for its path; safetensors_close() frees it, also after an error. */
enum ckpt_code safetensors_parse(const char *bytes, uint64_t length, uint64_t file_bytes,
                                 struct safetensors *file, struct ckpt_error *error);

/* NULL = no such tensor. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name);

/* Reads a tensor into the caller's memory of bytes; type and size must be right. */
enum ckpt_code safetensors_read(const struct safetensors *file, const char *name,
                                enum safetensors_type type, void *to, uint64_t bytes,
                                struct ckpt_error *error);
void safetensors_close(struct safetensors *file); /* accepts an empty one */

/* Bytes of one element; the word of the format. */
uint64_t safetensors_type_bytes(enum safetensors_type type);
const char *safetensors_type_word(enum safetensors_type type);

/* Bytes of a tensor by its type and shape; false: more than 64 bits hold. */
bool safetensors_bytes(const struct safetensors_tensor *tensor, uint64_t *bytes);

#endif
