#include "ckpt/ckpt.h"

#include "ckpt/folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    enum ckpt_code code = folder_scan(folder, rows, count, error);
    struct ckpt_found *found = calloc(1, sizeof *found);

    if (found == NULL)
        code = ckpt_fail(error, CKPT_MEMORY, "%s: out of memory", ckpt_tail(folder));
    for (uint32_t i = 0; code == CKPT_OK && i < *count; i++)
        verify_row(folder, &(*rows)[i], found);
    free(found);
    return code;
}

/* All that were passed over by name, as many as fit, and what was wrong with the newest. */
static enum ckpt_code all_broken(const char *folder, const struct ckpt_row *rows, uint32_t count,
                                 struct ckpt_error *error)
{
    char names[200] = "";
    size_t used = 0;

    for (uint32_t i = 0; i < count; i++) {
        bool fits = used + sizeof rows[i].name + 4 < sizeof names;

        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                                 fits ? rows[i].name : "..");
        if (!fits)
            break;
    }
    return ckpt_fail(error, CKPT_BROKEN, "none of the %u checkpoints in %s is valid (%s): %s",
                     count, ckpt_tail(folder), names, rows[0].why);
}

enum ckpt_code ckpt_find(const char *folder, struct ckpt_found *found, ckpt_passed_cb passed_cb,
                         void *owner, struct ckpt_error *error)
{
    struct ckpt_row *rows;
    uint32_t count, i = 0;
    enum ckpt_code code = folder_scan(folder, &rows, &count, error);

    for (; code == CKPT_OK && i < count; i++) {
        verify_row(folder, &rows[i], found);
        if (rows[i].valid)
            break;
        if (passed_cb != NULL)
            passed_cb(owner, &rows[i]);
    }
    if (code == CKPT_OK && i == count)
        code = all_broken(folder, rows, count, error);
    free(rows);
    return code;
}

enum ckpt_code ckpt_read(const struct ckpt_found *found, const char *name, const char *tensor,
                         enum safetensors_type type, void *to, uint64_t bytes,
                         struct ckpt_error *error)
{
    struct safetensors file;
    char path[FOLDER_PATH_BYTES];
    enum ckpt_code code;

    (void)snprintf(path, sizeof path, "%s/%.255s", found->path, name);
    code = safetensors_open(path, &file, error);
    if (code != CKPT_OK)
        return code;
    code = safetensors_read(&file, tensor, type, to, bytes, error);
    safetensors_close(&file);
    return code;
}
