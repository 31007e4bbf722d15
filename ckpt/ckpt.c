/* Writing: DIR/step-N.tmp-PID/ gets its files, then manifest.json, each durable by itself; then the folder is
 * renamed to DIR/step-N and DIR is synced. A crash before the rename leaves a folder that no reader looks at;
 * the rename is the commit. */
#include "ckpt/ckpt.h"

#include "ckpt/durable.h"
#include "ckpt/manifest.h"
#include "ckpt/system.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define PATH_BYTES  1400
#define PREFIX      "step-"
#define MANIFEST    "manifest.json"
#define READ_BYTES  (1u << 20)

/* ---- writing -------------------------------------------------------------------------------- */

static void hash_text(XXH3_state_t *state, char text[33])
{
    XXH128_hash_t h = XXH3_128bits_digest(state);

    (void)snprintf(text, 33, "%016llx%016llx", (unsigned long long)h.high64,
                   (unsigned long long)h.low64);
}

static enum ckpt_code write_tensors(const char *folder, const struct ckpt_file *file,
                                    struct manifest_file *row, struct ckpt_error *error)
{
    uint32_t *order = calloc(file->count + 1, sizeof *order);
    struct ckpt_bytes *parts = calloc(file->count + 1, sizeof *parts);
    XXH3_state_t *state = XXH3_createState();
    char *header = NULL;
    size_t header_bytes = 0;
    enum ckpt_code code = CKPT_MEMORY;

    if (order == NULL || parts == NULL || state == NULL) {
        (void)ckpt_fail(error, CKPT_MEMORY, "out of memory for a checkpoint");
        goto done;
    }
    code = safetensors_header(file->tensors, file->count, &header, &header_bytes, order, error);
    if (code != CKPT_OK)
        goto done;
    parts[0].data = header;
    parts[0].bytes = header_bytes;
    (void)XXH3_128bits_reset(state);
    (void)XXH3_128bits_update(state, header, header_bytes);
    row->bytes = header_bytes;
    for (uint32_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *t = &file->tensors[order[i]];

        parts[i + 1].data = t->data;
        parts[i + 1].bytes = safetensors_type_bytes(t->type);
        for (uint32_t k = 0; k < t->dims; k++)
            parts[i + 1].bytes *= t->shape[k];
        (void)XXH3_128bits_update(state, t->data, parts[i + 1].bytes);
        row->bytes += parts[i + 1].bytes;
    }
    hash_text(state, row->xxh128);
    (void)snprintf(row->name, sizeof row->name, "%s", file->name);
    code = ckpt_durable_write(folder, file->name, parts, file->count + 1, error);
done:
    free(order);
    free(parts);
    free(header);
    XXH3_freeState(state);
    return code;
}

static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    char name[PATH_BYTES];
    struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        (void)snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        (void)ckpt_system()->unlink(name);
    }
    if (folder != NULL)
        (void)closedir(folder);
    (void)ckpt_system()->rmdir(path);
}

static enum ckpt_code write_folder(const char *path, const struct ckpt_meta *meta,
                                   const struct ckpt_file *files, uint32_t count,
                                   struct ckpt_error *error)
{
    struct manifest manifest = {.meta = *meta, .count = count};
    struct ckpt_bytes part;
    enum ckpt_code code = CKPT_OK;
    char *text;

    if (ckpt_system()->mkdir(path, 0755) != 0)
        return ckpt_fail(error, CKPT_SYSTEM, "%s cannot be made: %s", path, strerror(errno));
    for (uint32_t i = 0; i < count && code == CKPT_OK; i++)
        code = write_tensors(path, &files[i], &manifest.files[i], error);
    if (code != CKPT_OK)
        return code;
    text = manifest_text(&manifest);
    if (text == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "out of memory for a manifest");
    part.data = text;
    part.bytes = strlen(text);
    code = ckpt_durable_write(path, MANIFEST, &part, 1, error);
    free(text);
    return code;
}

static enum ckpt_code make_base(const char *folder, struct ckpt_error *error)
{
    if (ckpt_system()->mkdir(folder, 0755) == 0 || errno == EEXIST)
        return CKPT_OK;
    return ckpt_fail(error, CKPT_SYSTEM, "%s cannot be made: %s", folder, strerror(errno));
}

/* ---- looking -------------------------------------------------------------------------------- */

/* "step-NNNNNNNN" and nothing else. */
static bool step_of(const char *name, uint64_t *step)
{
    char *end;

    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
        return false;
    *step = strtoull(name + sizeof PREFIX - 1, &end, 10);
    return end != name + sizeof PREFIX - 1 && *end == '\0';
}

static enum ckpt_code read_manifest(const char *path, struct manifest *manifest,
                                    struct ckpt_error *error)
{
    char name[PATH_BYTES], *text;
    enum ckpt_code code;
    ssize_t length;
    int fd;

    (void)snprintf(name, sizeof name, "%s/" MANIFEST, path);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ckpt_fail(error, CKPT_FORMAT, "%s: %s", name, strerror(errno));
    text = malloc(MANIFEST_BYTES_MAX + 1);
    length = text != NULL ? read(fd, text, MANIFEST_BYTES_MAX + 1) : -1;
    (void)close(fd);
    if (length < 0 || length > (ssize_t)MANIFEST_BYTES_MAX)
        code = ckpt_fail(error, CKPT_FORMAT, "%s: %s", name,
                         length < 0 ? strerror(errno) : "larger than a manifest may be");
    else
        code = manifest_parse(text, (size_t)length, name, manifest, error);
    free(text);
    return code;
}

static enum ckpt_code verify_file(const char *path, const struct manifest_file *row,
                                  struct ckpt_error *error)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *memory = malloc(READ_BYTES);
    struct safetensors file;
    char name[PATH_BYTES], sum[33] = "";
    uint64_t bytes = 0;
    enum ckpt_code code;
    ssize_t got = 0;

    (void)snprintf(name, sizeof name, "%s/%s", path, row->name);
    code = safetensors_open(name, &file, error);
    if (code == CKPT_OK && (state == NULL || memory == NULL))
        code = ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", name);
    if (code == CKPT_OK) {
        (void)XXH3_128bits_reset(state);
        while ((got = pread(file.fd, memory, READ_BYTES, (off_t)bytes)) > 0) {
            (void)XXH3_128bits_update(state, memory, (size_t)got);
            bytes += (uint64_t)got;
        }
        hash_text(state, sum);
        if (got < 0)
            code = ckpt_fail(error, CKPT_SYSTEM, "%s: %s", name, strerror(errno));
        else if (bytes != row->bytes || strcmp(sum, row->xxh128) != 0)
            code = ckpt_fail(error, CKPT_FORMAT, "%s: %llu bytes with checksum %s, the manifest says "
                                                 "%llu and %s", name, (unsigned long long)bytes, sum,
                             (unsigned long long)row->bytes, row->xxh128);
        safetensors_close(&file);
    }
    free(memory);
    XXH3_freeState(state);
    return code;
}

enum ckpt_code ckpt_verify(const char *path, struct ckpt_meta *meta, uint64_t *bytes,
                           struct ckpt_error *error)
{
    const char *base = strrchr(path, '/');
    struct manifest manifest;
    enum ckpt_code code = read_manifest(path, &manifest, error);
    uint64_t step;

    *bytes = 0;
    if (code != CKPT_OK)
        return code;
    if (!step_of(base != NULL ? base + 1 : path, &step) || step != manifest.meta.step)
        return ckpt_fail(error, CKPT_FORMAT, "%s: its manifest is of step %llu", path,
                         (unsigned long long)manifest.meta.step);
    for (uint32_t i = 0; i < manifest.count && code == CKPT_OK; i++) {
        code = verify_file(path, &manifest.files[i], error);
        *bytes += manifest.files[i].bytes;
    }
    *meta = manifest.meta;
    return code;
}

static int newest_first(const void *a, const void *b)
{
    const struct ckpt_row *x = a, *y = b;

    return x->step > y->step ? -1 : x->step < y->step;
}

/* Names of all step folders, newest first, not yet verified. */
static enum ckpt_code scan(const char *path, struct ckpt_row **rows, uint32_t *count,
                           struct ckpt_error *error)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    uint32_t room = 0;

    *rows = NULL;
    *count = 0;
    if (folder == NULL)
        return ckpt_fail(error, errno == ENOENT ? CKPT_NONE : CKPT_SYSTEM, "%s: %s", path,
                         strerror(errno));
    while ((entry = readdir(folder)) != NULL) {
        uint64_t step;

        if (!step_of(entry->d_name, &step) || strlen(entry->d_name) >= sizeof (*rows)->name)
            continue;
        if (*count == room) {
            struct ckpt_row *more = realloc(*rows, (room + 32) * sizeof *more);

            if (more == NULL)
                break;
            *rows = more;
            room += 32;
        }
        memset(&(*rows)[*count], 0, sizeof **rows);
        (void)snprintf((*rows)[*count].name, sizeof (*rows)->name, "%s", entry->d_name);
        (*rows)[(*count)++].step = step;
    }
    (void)closedir(folder);
    if (*count == 0)
        return ckpt_fail(error, CKPT_NONE, "%s holds no checkpoint", path);
    qsort(*rows, *count, sizeof **rows, newest_first);
    return CKPT_OK;
}

static void verify_row(const char *folder, struct ckpt_row *row, struct ckpt_found *found)
{
    struct ckpt_error why = {CKPT_OK, ""};

    (void)snprintf(found->path, sizeof found->path, "%s/%s", folder, row->name);
    row->valid = ckpt_verify(found->path, &found->meta, &row->bytes, &why) == CKPT_OK;
    row->generation = row->valid ? found->meta.generation : 0;
    (void)snprintf(row->why, sizeof row->why, "%s", why.text);
}

enum ckpt_code ckpt_list(const char *folder, struct ckpt_row **rows, uint32_t *count,
                         struct ckpt_error *error)
{
    enum ckpt_code code = scan(folder, rows, count, error);
    struct ckpt_found found;

    for (uint32_t i = 0; code == CKPT_OK && i < *count; i++)
        verify_row(folder, &(*rows)[i], &found);
    return code;
}

enum ckpt_code ckpt_find(const char *folder, struct ckpt_found *found, ckpt_passed_cb passed_cb,
                         void *owner, struct ckpt_error *error)
{
    struct ckpt_row *rows;
    uint32_t count;
    enum ckpt_code code = scan(folder, &rows, &count, error);
    size_t used;

    if (code != CKPT_OK) {
        free(rows);
        return code;
    }
    code = ckpt_fail(error, CKPT_BROKEN, "none of the %u checkpoints in %s is valid:", count, folder);
    for (uint32_t i = 0; i < count; i++) {
        verify_row(folder, &rows[i], found);
        if (rows[i].valid) {
            code = CKPT_OK;
            break;
        }
        used = strlen(error->text);
        (void)snprintf(error->text + used, sizeof error->text - used, " %s;", rows[i].why);
        if (passed_cb != NULL)
            passed_cb(owner, &rows[i]);
    }
    free(rows);
    return code;
}

enum ckpt_code ckpt_read(const struct ckpt_found *found, const char *name, const char *tensor,
                         enum safetensors_type type, void *to, uint64_t bytes,
                         struct ckpt_error *error)
{
    struct safetensors file;
    char path[PATH_BYTES];
    enum ckpt_code code;

    (void)snprintf(path, sizeof path, "%s/%s", found->path, name);
    code = safetensors_open(path, &file, error);
    if (code != CKPT_OK)
        return code;
    code = safetensors_read(&file, tensor, type, to, bytes, error);
    safetensors_close(&file);
    return code;
}

/* ---- saving --------------------------------------------------------------------------------- */

/* Older ones go, beyond `keep` of those that have a manifest; broken ones that are newer stay to be seen. */
static void retain(const char *folder, uint64_t keep)
{
    struct ckpt_error ignored;
    struct ckpt_row *rows;
    uint32_t count;
    uint64_t kept = 0;

    if (keep != 0 && scan(folder, &rows, &count, &ignored) == CKPT_OK) {
        for (uint32_t i = 0; i < count; i++) {
            char path[PATH_BYTES], manifest[PATH_BYTES + 32];

            (void)snprintf(path, sizeof path, "%s/%s", folder, rows[i].name);
            (void)snprintf(manifest, sizeof manifest, "%s/" MANIFEST, path);
            if (kept >= keep)
                remove_folder(path);
            else
                kept += access(manifest, R_OK) == 0;
        }
        free(rows);
    }
}

/* What already stands under this step's name: CKPT_OK = nothing. */
static enum ckpt_code standing(const char *path, const struct ckpt_meta *meta, bool *done,
                               struct ckpt_error *error)
{
    struct ckpt_error why;
    struct ckpt_meta other;
    uint64_t bytes;

    *done = false;
    if (access(path, F_OK) != 0)
        return CKPT_OK;
    if (ckpt_verify(path, &other, &bytes, &why) != CKPT_OK) {
        remove_folder(path);
        return CKPT_OK;
    }
    if (other.generation > meta->generation && other.params_hash != meta->params_hash)
        return ckpt_fail(error, CKPT_OLDER, "%s was written by generation %llu, this is %llu", path,
                         (unsigned long long)other.generation, (unsigned long long)meta->generation);
    *done = other.params_hash == meta->params_hash;
    if (!*done)
        remove_folder(path);
    return CKPT_OK;
}

enum ckpt_code ckpt_save(const char *folder, const struct ckpt_meta *meta,
                         const struct ckpt_file *files, uint32_t count, uint64_t keep,
                         struct ckpt_error *error)
{
    char path[PATH_BYTES], temporary[PATH_BYTES];
    enum ckpt_code code = make_base(folder, error);
    bool done = false;

    if (code != CKPT_OK)
        return code;
    (void)snprintf(path, sizeof path, "%s/" PREFIX "%08llu", folder, (unsigned long long)meta->step);
    (void)snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    code = standing(path, meta, &done, error);
    if (code != CKPT_OK || done)
        return code;
    remove_folder(temporary);
    code = write_folder(temporary, meta, files, count, error);
    if (code == CKPT_OK && ckpt_system()->rename(temporary, path) != 0)
        code = ckpt_fail(error, CKPT_SYSTEM, "%s: renaming to its name failed: %s", path,
                         strerror(errno));
    if (code != CKPT_OK) {
        remove_folder(temporary);
        return code;
    }
    code = ckpt_durable_folder(folder, error);
    if (code == CKPT_OK)
        retain(folder, keep);
    return code;
}
