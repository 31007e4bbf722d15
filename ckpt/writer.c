/* DIR/step-N.tmp-G-ID/ gets its files, then manifest.json, each durable by itself; then the folder
 * takes the name DIR/step-N, and DIR is synced. A crash before the rename leaves a folder that no
 * reader looks at; the rename is the commit. */
#include "ckpt/ckpt.h"

#include "ckpt/durable.h"
#include "ckpt/folder.h"
#include "ckpt/hash.h"
#include "ckpt/retain.h"
#include "ckpt/system.h"
#include "ckpt/verify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* One save, from its begin to its end. */
struct writer {
    const char *folder;                /* DIR */
    const struct ckpt_meta *meta;      /* the caller's */
    char path[FOLDER_PATH_BYTES];      /* DIR/step-N */
    char temporary[FOLDER_PATH_BYTES]; /* DIR/step-N.tmp-G-ID */
    struct ckpt_error *error;          /* the caller's */
};

static enum ckpt_code refused(const char *path, const char *step, struct ckpt_error *error)
{
    return ckpt_fail(error, CKPT_SYSTEM, "%s: %s failed: %s", ckpt_tail(path), step,
                     strerror(errno));
}

/* ---- files ---------------------------------------------------------------------------------- */

/* The parts of a file in their order, and its checksums on the way. */
static enum ckpt_code list_parts(const struct ckpt_file *file, const uint32_t *order,
                                 struct ckpt_bytes *parts, struct manifest_file *row,
                                 struct ckpt_error *error)
{
    struct ckpt_hash hash;
    bool fine = ckpt_hash_init(&hash, CKPT_CHUNK_BYTES);

    for (uint32_t i = 0; fine && i <= file->count; i++) {
        if (i > 0) {
            const struct safetensors_tensor *t = &file->tensors[order[i - 1]];
            uint64_t bytes;

            (void)safetensors_bytes(t, &bytes);
            parts[i].data = t->data;
            parts[i].bytes = (size_t)bytes;
        }
        if (parts[i].bytes > 0)
            ckpt_hash_update(&hash, parts[i].data, parts[i].bytes);
    }
    fine = fine && ckpt_hash_end(&hash, row->xxh128);
    if (fine) {
        row->bytes = hash.bytes;
        row->chunk_bytes = hash.chunk_bytes;
        row->chunk_count = hash.count;
        row->chunks = hash.chunks;
        hash.chunks = NULL;
    }
    ckpt_hash_release(&hash);
    return fine ? CKPT_OK : ckpt_fail(error, CKPT_MEMORY, "out of memory for checksums");
}

static enum ckpt_code write_tensors(const char *folder, const struct ckpt_file *file,
                                    struct manifest_file *row, struct ckpt_error *error)
{
    uint32_t *order = calloc((size_t)file->count + 1, sizeof *order);
    struct ckpt_bytes *parts = calloc((size_t)file->count + 1, sizeof *parts);
    enum ckpt_code code;
    char *header = NULL;

    if (strlen(file->name) >= sizeof row->name)
        code = ckpt_fail(error, CKPT_LIMIT, "%s: the name is too long", ckpt_tail(file->name));
    else if (order == NULL || parts == NULL)
        code = ckpt_fail(error, CKPT_MEMORY, "out of memory for a checkpoint");
    else
        code =
            safetensors_header(file->tensors, file->count, &header, &parts[0].bytes, order, error);
    if (code != CKPT_OK)
        goto done;
    parts[0].data = header;
    memcpy(row->name, file->name, strlen(file->name) + 1);
    code = list_parts(file, order, parts, row, error);
    if (code == CKPT_OK)
        code = ckpt_durable_write(folder, file->name, parts, (size_t)file->count + 1, error);
done:
    free(order);
    free(parts);
    free(header);
    return code;
}

static enum ckpt_code write_manifest(const struct writer *w, const struct manifest *manifest)
{
    struct ckpt_bytes part;
    enum ckpt_code code;
    char *text = manifest_text(manifest);

    if (text == NULL)
        return ckpt_fail(w->error, CKPT_FORMAT,
                         "%s: no manifest can be made of this: out of memory, "
                         "or a value that JSON does not have",
                         ckpt_tail(w->path));
    part.data = text;
    part.bytes = strlen(text);
    if (part.bytes > MANIFEST_BYTES_MAX)
        code = ckpt_fail(w->error, CKPT_LIMIT, "%s: a manifest of %zu bytes, at most %u are read",
                         ckpt_tail(w->path), part.bytes, MANIFEST_BYTES_MAX);
    else
        code = ckpt_durable_write(w->temporary, MANIFEST_NAME, &part, 1, w->error);
    free(text);
    return code;
}

static enum ckpt_code write_folder(const struct writer *w, const struct ckpt_file *files,
                                   uint32_t count)
{
    struct manifest manifest = {.meta = *w->meta};
    enum ckpt_code code = CKPT_OK;

    if (count == 0 || count > CKPT_FILES_MAX)
        return ckpt_fail(w->error, CKPT_LIMIT, "%u files in a checkpoint, 1 to %u can be", count,
                         CKPT_FILES_MAX);
    if (ckpt_system()->mkdir(w->temporary, 0755) != 0)
        return refused(w->temporary, "making the folder", w->error);
    for (uint32_t i = 0; i < count && code == CKPT_OK; i++) {
        manifest.count = i + 1;
        code = write_tensors(w->temporary, &files[i], &manifest.files[i], w->error);
    }
    if (code == CKPT_OK)
        code = write_manifest(w, &manifest);
    manifest_release(&manifest);
    return code;
}

/* ---- what stands there ---------------------------------------------------------------------- */

/* DIR itself, durable in its parent. */
static enum ckpt_code make_base(const char *folder, struct ckpt_error *error)
{
    char parent[CKPT_PATH_BYTES];
    size_t length = strlen(folder);

    if (length >= FOLDER_LENGTH_MAX)
        return ckpt_fail(error, CKPT_LIMIT, "..%s: the path is too long", ckpt_tail(folder));
    if (ckpt_system()->mkdir(folder, 0755) != 0)
        return errno == EEXIST ? CKPT_OK : refused(folder, "making the folder", error);
    memcpy(parent, folder, length + 1);
    while (length > 0 && parent[length - 1] == '/')
        length--;
    while (length > 0 && parent[length - 1] != '/')
        length--;
    parent[length] = '\0';
    return ckpt_durable_folder(length > 0 ? parent : ".", error);
}

/* A later generation of the same job has written here: this writer has been replaced and does not
 * know. */
static enum ckpt_code check_fence(const struct writer *w)
{
    struct ckpt_row *rows;
    uint32_t count;
    struct ckpt_error ignored;
    enum ckpt_code code = CKPT_OK;

    if (w->meta->generation == 0)
        return CKPT_OK;
    (void)folder_scan(w->folder, &rows, &count, &ignored);
    for (uint32_t i = 0; i < count && code == CKPT_OK; i++) {
        char path[FOLDER_PATH_BYTES];
        struct manifest m;

        (void)snprintf(path, sizeof path, "%s/%s", w->folder, rows[i].name);
        if (verify_manifest(path, &m, &ignored) == CKPT_OK &&
            m.meta.generation > w->meta->generation &&
            memcmp(m.meta.job_uid, w->meta->job_uid, sizeof m.meta.job_uid) == 0)
            code = ckpt_fail(w->error, CKPT_OLDER, "%s was written by generation %llu, this is "
                                                   "generation %llu", ckpt_tail(path),
                             (unsigned long long)m.meta.generation,
                             (unsigned long long)w->meta->generation);
        manifest_release(&m);
    }
    free(rows);
    return code;
}

/* Does a valid checkpoint of this step with this content stand there already? */
static bool stands(const struct writer *w)
{
    struct ckpt_meta *other = calloc(1, sizeof *other);
    struct ckpt_error ignored;
    uint64_t bytes;
    bool same = other != NULL && ckpt_verify(w->path, other, &bytes, &ignored) == CKPT_OK &&
                other->params_hash == w->meta->params_hash && other->seed == w->meta->seed &&
                other->epoch == w->meta->epoch && other->shards == w->meta->shards &&
                other->step_in_epoch == w->meta->step_in_epoch &&
                strcmp(other->spec, w->meta->spec) == 0 &&
                strcmp(other->fingerprint, w->meta->fingerprint) == 0;

    free(other);
    return same;
}

/* ---- the commit ----------------------------------------------------------------------------- */

/* Something else stands under the name. Where the file system cannot exchange two names, the old
 * one steps aside first: a crash between the two renames leaves the other steps, and neither of
 * these. */
static enum ckpt_code replace(const struct writer *w)
{
    char name[FOLDER_NAME_BYTES], aside[FOLDER_PATH_BYTES];

    if (ckpt_system()->exchange(w->temporary, w->path) == 0)
        return CKPT_OK;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        return refused(w->path, "exchanging it with the new one", w->error);
    folder_temporary_name(w->meta->step, w->meta->generation, name);
    (void)snprintf(aside, sizeof aside, "%s/%s", w->folder, name);
    if (ckpt_system()->rename(w->path, aside) != 0)
        return refused(w->path, "moving the old one aside", w->error);
    if (ckpt_system()->rename(w->temporary, w->path) != 0) {
        (void)refused(w->path, "renaming to its name", w->error);
        (void)ckpt_system()->rename(aside, w->path);
        return CKPT_SYSTEM;
    }
    folder_remove(aside);
    return CKPT_OK;
}

/* Gives the finished folder its name. Somebody else may have been faster: then theirs is looked
 * at. */
static enum ckpt_code commit(const struct writer *w)
{
    enum ckpt_code code = CKPT_OK;

    if (ckpt_system()->rename(w->temporary, w->path) != 0) {
        if (errno != EEXIST && errno != ENOTEMPTY)
            return refused(w->path, "renaming to its name", w->error);
        if (!stands(w))
            code = replace(w);
    }
    return code == CKPT_OK ? ckpt_durable_folder(w->folder, w->error) : code;
}

/* ---- what goes ------------------------------------------------------------------------------ */

/* A checkpoint goes by losing its name at once, and then its files: half of one is never seen. */
static void discard(const struct writer *w, const struct ckpt_row *row)
{
    char name[FOLDER_NAME_BYTES], from[FOLDER_PATH_BYTES], to[FOLDER_PATH_BYTES];

    folder_temporary_name(row->step, w->meta->generation, name);
    (void)snprintf(from, sizeof from, "%s/%s", w->folder, row->name);
    (void)snprintf(to, sizeof to, "%s/%s", w->folder, name);
    if (ckpt_system()->rename(from, to) == 0)
        folder_remove(to);
}

static void retain(const struct writer *w, uint64_t keep)
{
    struct ckpt_error ignored;
    struct ckpt_row *rows;
    uint32_t count;
    enum ckpt_code code = folder_scan(w->folder, &rows, &count, &ignored);

    for (uint32_t i = 0; keep != 0 && code == CKPT_OK && i < count; i++) {
        char path[FOLDER_PATH_BYTES];

        (void)snprintf(path, sizeof path, "%s/%s", w->folder, rows[i].name);
        rows[i].valid = verify_glance(path);
    }
    for (uint32_t i = count; keep != 0 && code == CKPT_OK && i-- > 0;)
        if (retain_drops(rows, count, i, w->meta->step, keep))
            discard(w, &rows[i]);
    free(rows);
}

/* Ages by the file system's own clock: that of the folder that was renamed a moment ago. */
static void sweep(void *owner, const char *name)
{
    const struct writer *w = owner;
    struct stat now, then;
    uint64_t step, generation;
    char path[FOLDER_PATH_BYTES];

    (void)snprintf(path, sizeof path, "%s/%s", w->folder, name);
    if (folder_temporary(name, &step, &generation) && stat(w->path, &now) == 0 &&
        stat(path, &then) == 0 &&
        retain_drops_temporary(step, generation, now.st_ctim.tv_sec - then.st_mtim.tv_sec,
                               w->meta->step, w->meta->generation))
        folder_remove(path);
}

/* ---- saving --------------------------------------------------------------------------------- */

enum ckpt_code ckpt_save(const char *folder, const struct ckpt_meta *meta,
                         const struct ckpt_file *files, uint32_t count, uint64_t keep,
                         struct ckpt_error *error)
{
    struct writer w = {.folder = folder, .meta = meta, .error = error};
    char name[FOLDER_NAME_BYTES];
    struct ckpt_error ignored;
    enum ckpt_code code = make_base(folder, error);

    if (code != CKPT_OK)
        return code;
    folder_step_name(meta->step, name);
    (void)snprintf(w.path, sizeof w.path, "%s/%s", folder, name);
    folder_temporary_name(meta->step, meta->generation, name);
    (void)snprintf(w.temporary, sizeof w.temporary, "%s/%s", folder, name);
    if (stands(&w))
        return ckpt_durable_folder(folder, error);
    code = check_fence(&w);
    if (code != CKPT_OK)
        return code;
    code = write_folder(&w, files, count);
    if (code == CKPT_OK)
        code = commit(&w);
    folder_remove(w.temporary); /* what was not renamed, or what came in exchange */
    if (code != CKPT_OK)
        return code;
    retain(&w, keep);
    (void)folder_each(folder, sweep, &w, &ignored);
    return CKPT_OK;
}
