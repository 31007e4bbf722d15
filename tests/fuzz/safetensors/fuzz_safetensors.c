/* Fuzz target over the header of a safetensors file, which may come from anybody.
 *
 * The first four bytes are the size of the data behind the header (little endian), the rest is the
 * header. Properties: nothing crashes; what is refused is refused as a broken format, with a
 * sentence that names the file; what is accepted has no hole, no overlap, no name twice and sizes
 * as its shapes say; and written anew by our own writer it is read as the same tensors.
 *
 * Built by clang with -fsanitize=fuzzer (-DMUSTER_FUZZ=ON), and by every compiler with
 * ../proto/replay.c, which runs the corpus as an ordinary test. */
#include "ckpt/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "fuzz.safetensors"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

static enum ckpt_code parse(const char *header, size_t length, uint64_t data_bytes,
                            struct safetensors *file, struct ckpt_error *error)
{
    memset(file, 0, sizeof *file);
    memset(error, 0, sizeof *error);
    (void)snprintf(file->path, sizeof file->path, NAME);
    return safetensors_parse(header, length, 8 + length + data_bytes, file, error);
}

static void check_layout(const struct safetensors *file, uint64_t data_bytes)
{
    uint64_t at = 0, bytes;

    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];

        require(safetensors_bytes(t, &bytes) && t->begin == at && t->end == at + bytes);
        require(t->type < SAFETENSORS_TYPE_COUNT && t->dims <= SAFETENSORS_DIMS_MAX);
        require(memchr(t->name, '\0', sizeof t->name) != NULL);
        require(safetensors_find(file, t->name) == t);
        at = t->end;
    }
    require(at == data_bytes);
}

/* Numbers beyond 2^63 are read, but not written. */
static int writable(const struct safetensors *file)
{
    for (uint32_t i = 0; i < file->count; i++)
        for (uint32_t d = 0; d < file->tensors[i].dims; d++)
            if (file->tensors[i].shape[d] > INT64_MAX)
                return 0;
    return 1;
}

static void check_round_trip(const struct safetensors *file, uint64_t data_bytes)
{
    uint32_t *order = calloc((size_t)file->count + 1, sizeof *order);
    struct ckpt_error error;
    struct safetensors again;
    size_t bytes = 0;
    char *header = NULL;

    require(order != NULL);
    require(safetensors_header(file->tensors, file->count, &header, &bytes, order, &error) ==
            CKPT_OK);
    require(bytes % 4096 == 0);
    require(parse(header + 8, bytes - 8, data_bytes, &again, &error) == CKPT_OK);
    require(again.count == file->count);
    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[i];
        const struct safetensors_tensor *same = safetensors_find(&again, t->name);

        require(same != NULL && same->type == t->type && same->dims == t->dims);
        require(memcmp(same->shape, t->shape, t->dims * sizeof t->shape[0]) == 0);
    }
    safetensors_close(&again);
    free(header);
    free(order);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors file;
    struct ckpt_error error;
    uint64_t data_bytes = 0;
    enum ckpt_code code;

    if (size < 4)
        return 0;
    for (unsigned i = 0; i < 4; i++)
        data_bytes |= (uint64_t)data[i] << (8 * i);
    code = parse((const char *)data + 4, size - 4, data_bytes, &file, &error);
    require(code == CKPT_OK || code == CKPT_FORMAT);
    require((strstr(error.text, NAME ": header: ") != NULL) == (code != CKPT_OK));
    if (code == CKPT_OK) {
        check_layout(&file, data_bytes);
        if (writable(&file))
            check_round_trip(&file, data_bytes);
    }
    safetensors_close(&file);
    return 0;
}
