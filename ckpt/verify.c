#include "ckpt/verify.h"

#include "ckpt/folder.h"
#include "ckpt/hash.h"
#include "ckpt/read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (1u << 20)

static enum ckpt_code load_text(const char *name, char **text, uint64_t *bytes,
                                struct ckpt_error *error)
{
    int fd = 0;
    enum ckpt_code code = read_open(name, &fd, error);

    *text = NULL;
    if (code != CKPT_OK)
        return code;
    code = read_size(fd, name, bytes, error);
    if (code == CKPT_OK && *bytes > MANIFEST_BYTES_MAX)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: larger than a manifest may be", ckpt_tail(name));
    if (code == CKPT_OK) {
        *text = malloc((size_t)*bytes + 1);
        code = *text != NULL ? read_exactly(fd, name, *text, *bytes, 0, error)
                             : ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", ckpt_tail(name));
    }
    read_close(fd);
    return code;
}

enum ckpt_code verify_manifest(const char *path, struct manifest *m, struct ckpt_error *error)
{
    const char *base = strrchr(path, '/');
    char name[FOLDER_PATH_BYTES], *text;
    uint64_t bytes = 0, step = 0;
    enum ckpt_code code;

    memset(m, 0, sizeof *m);
    (void)snprintf(name, sizeof name, "%s/" MANIFEST_NAME, path);
    code = load_text(name, &text, &bytes, error);
    if (code == CKPT_OK)
        code = manifest_parse(text, (size_t)bytes, name, m, error);
    free(text);
    if (code == CKPT_OK &&
        (!folder_step(base != NULL ? base + 1 : path, &step) || step != m->meta.step))
        code = ckpt_fail(error, CKPT_FORMAT, "%s: its manifest is of step %llu", ckpt_tail(path),
                         (unsigned long long)m->meta.step);
    return code;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Opens a file that must have the size that the manifest says. */
static enum ckpt_code open_sized(const char *name, uint64_t wanted, int *fd,
                                 struct ckpt_error *error)
{
    uint64_t bytes = 0;
    enum ckpt_code code = read_open(name, fd, error);

    if (code != CKPT_OK)
        return code;
    code = read_size(*fd, name, &bytes, error);
    if (code == CKPT_OK && bytes != wanted)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: %llu bytes, the manifest says %llu",
                         ckpt_tail(name), (unsigned long long)bytes, (unsigned long long)wanted);
    if (code != CKPT_OK)
        read_close(*fd);
    return code;
}

static enum ckpt_code hash_file(int fd, const char *name, struct ckpt_hash *hash, uint64_t bytes,
                                struct ckpt_error *error)
{
    uint8_t *piece = malloc(PIECE_BYTES);
    enum ckpt_code code = piece != NULL ? CKPT_OK
                                        : ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", name);

    for (uint64_t at = 0; at < bytes && code == CKPT_OK; at += PIECE_BYTES) {
        size_t count = bytes - at < PIECE_BYTES ? (size_t)(bytes - at) : PIECE_BYTES;

        code = read_exactly(fd, name, piece, count, at, error);
        if (code == CKPT_OK)
            ckpt_hash_update(hash, piece, count);
    }
    free(piece);
    return code;
}

static enum ckpt_code compare(const char *name, const struct manifest_file *file,
                              struct ckpt_hash *hash, struct ckpt_error *error)
{
    char sum[33];

    if (!ckpt_hash_end(hash, sum))
        return ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", ckpt_tail(name));
    for (uint32_t i = 0; i < hash->count && i < file->chunk_count; i++)
        if (hash->chunks[i] != file->chunks[i])
            return ckpt_fail(
                error, CKPT_FORMAT,
                "%s: damaged: checksum %016llx of bytes %llu to %llu, the manifest says "
                "%016llx",
                ckpt_tail(name), (unsigned long long)hash->chunks[i],
                (unsigned long long)(i * file->chunk_bytes),
                (unsigned long long)(i + 1 < hash->count ? (i + 1) * file->chunk_bytes
                                                         : hash->bytes),
                (unsigned long long)file->chunks[i]);
    if (strcmp(sum, file->xxh128) != 0)
        return ckpt_fail(error, CKPT_FORMAT, "%s: damaged: checksum %s, the manifest says %s",
                         ckpt_tail(name), sum, file->xxh128);
    return CKPT_OK;
}

/* Size and checksums first, so that the parser of headers meets a damaged one only when it was
 * written so. */
static enum ckpt_code verify_file(const char *path, const struct manifest_file *file,
                                  struct ckpt_error *error)
{
    struct safetensors opened;
    struct ckpt_hash hash;
    char name[FOLDER_PATH_BYTES];
    enum ckpt_code code;
    int fd = 0;

    (void)snprintf(name, sizeof name, "%s/%s", path, file->name);
    code = open_sized(name, file->bytes, &fd, error);
    if (code != CKPT_OK)
        return code;
    if (ckpt_hash_init(&hash, file->chunk_bytes))
        code = hash_file(fd, name, &hash, file->bytes, error);
    else
        code = ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", ckpt_tail(name));
    if (code == CKPT_OK)
        code = compare(name, file, &hash, error);
    ckpt_hash_release(&hash);
    read_close(fd);
    if (code == CKPT_OK)
        code = safetensors_open(name, &opened, error);
    if (code == CKPT_OK)
        safetensors_close(&opened);
    return code;
}

bool verify_glance(const char *path)
{
    char name[FOLDER_PATH_BYTES];
    struct ckpt_error ignored;
    struct manifest manifest;
    bool whole = verify_manifest(path, &manifest, &ignored) == CKPT_OK;
    int fd = 0;

    for (uint32_t i = 0; whole && i < manifest.count; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, manifest.files[i].name);
        whole = open_sized(name, manifest.files[i].bytes, &fd, &ignored) == CKPT_OK;
        if (whole)
            read_close(fd);
    }
    manifest_release(&manifest);
    return whole;
}

enum ckpt_code ckpt_verify(const char *path, struct ckpt_meta *meta, uint64_t *bytes,
                           struct ckpt_error *error)
{
    char clean[CKPT_PATH_BYTES];
    struct manifest manifest;
    enum ckpt_code code;

    *bytes = 0;
    if (strlen(path) >= sizeof clean - 64)
        return ckpt_fail(error, CKPT_LIMIT, "..%s: the path is too long", ckpt_tail(path));
    memcpy(clean, path, strlen(path) + 1);
    for (size_t end = strlen(clean); end > 1 && clean[end - 1] == '/'; end--)
        clean[end - 1] = '\0';
    code = verify_manifest(clean, &manifest, error);
    for (uint32_t i = 0; i < manifest.count && code == CKPT_OK; i++) {
        code = verify_file(clean, &manifest.files[i], error);
        *bytes += manifest.files[i].bytes;
    }
    *meta = manifest.meta;
    manifest_release(&manifest);
    return code;
}
