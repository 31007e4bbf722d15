#include "ckpt/safetensors.h"

#include "ckpt/read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum ckpt_code read_header(struct safetensors *file, struct ckpt_error *error)
{
    uint64_t length = 0, bytes = 0;
    uint8_t head[8];
    char *text;
    enum ckpt_code code = read_size(file->fd, file->path, &bytes, error);

    if (code == CKPT_OK && bytes < sizeof head)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: shorter than 8 bytes", ckpt_tail(file->path));
    if (code == CKPT_OK)
        code = read_exactly(file->fd, file->path, head, sizeof head, 0, error);
    if (code != CKPT_OK)
        return code;
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)head[i] << (8 * i);
    if (length > SAFETENSORS_HEADER_BYTES)
        return ckpt_fail(error, CKPT_LIMIT, "%s: a header of %llu bytes, at most %u are read",
                         ckpt_tail(file->path), (unsigned long long)length,
                         SAFETENSORS_HEADER_BYTES);
    if (length > bytes - sizeof head)
        return ckpt_fail(error, CKPT_FORMAT, "%s: the header is longer than the file",
                         ckpt_tail(file->path));
    text = malloc(length > 0 ? (size_t)length : 1);
    if (text == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", ckpt_tail(file->path));
    code = read_exactly(file->fd, file->path, text, length, sizeof head, error);
    if (code == CKPT_OK)
        code = safetensors_parse(text, length, bytes, file, error);
    free(text);
    return code;
}

enum ckpt_code safetensors_open(const char *path, struct safetensors *file,
                                struct ckpt_error *error)
{
    enum ckpt_code code;

    memset(file, 0, sizeof *file);
    if (strlen(path) >= sizeof file->path)
        return ckpt_fail(error, CKPT_LIMIT, "..%s: the path is too long", ckpt_tail(path));
    memcpy(file->path, path, strlen(path) + 1);
    code = read_open(path, &file->fd, error);
    if (code == CKPT_OK)
        code = read_header(file, error);
    if (code != CKPT_OK)
        safetensors_close(file);
    return code;
}

void safetensors_close(struct safetensors *file)
{
    if (file->fd > 0)
        read_close(file->fd);
    free(file->tensors);
    memset(file, 0, sizeof *file);
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    for (uint32_t i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

enum ckpt_code safetensors_read(const struct safetensors *file, const char *name,
                                enum safetensors_type type, void *to, uint64_t bytes,
                                struct ckpt_error *error)
{
    const struct safetensors_tensor *t = safetensors_find(file, name);

    if (t == NULL)
        return ckpt_fail(error, CKPT_MISMATCH, "%s: tensor %.80s is missing", ckpt_tail(file->path),
                         name);
    if (t->type != type || t->end - t->begin != bytes)
        return ckpt_fail(error, CKPT_MISMATCH,
                         "%s: tensor %.80s is %s of %llu bytes, expected %s of %llu",
                         ckpt_tail(file->path), name, safetensors_type_word(t->type),
                         (unsigned long long)(t->end - t->begin), safetensors_type_word(type),
                         (unsigned long long)bytes);
    return read_exactly(file->fd, file->path, to, bytes, file->data_at + t->begin, error);
}
