#include "unit/ckpt/box.h"

#include <dirent.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define LAYERS 3

void box_make(char folder[BOX_FOLDER_BYTES])
{
    (void)snprintf(folder, BOX_FOLDER_BYTES, "/tmp/muster-ckpt-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void box_remove(const char *folder)
{
    assert_int_equal(nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

struct box_bytes box_slurp(const char *path)
{
    struct box_bytes file = {NULL, 0};
    FILE *stream = fopen(path, "rb");
    long length;

    if (stream == NULL)
        fail_msg("%s cannot be opened", path);
    assert_int_equal(fseek(stream, 0, SEEK_END), 0);
    length = ftell(stream);
    assert_true(length >= 0);
    rewind(stream);
    file.bytes = (size_t)length;
    file.data = malloc(file.bytes + 1);
    assert_non_null(file.data);
    assert_int_equal(fread(file.data, 1, file.bytes, stream), file.bytes);
    (void)fclose(stream);
    return file;
}

void box_spit(const char *path, const void *data, size_t bytes)
{
    FILE *stream = fopen(path, "wb");

    if (stream == NULL)
        fail_msg("%s cannot be made", path);
    assert_int_equal(fwrite(data, 1, bytes, stream), bytes);
    assert_int_equal(fclose(stream), 0);
}

unsigned box_count(const char *folder, const char *prefix)
{
    DIR *names = opendir(folder);
    struct dirent *entry;
    unsigned count = 0;

    assert_non_null(names);
    while ((entry = readdir(names)) != NULL)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    (void)closedir(names);
    return count;
}

uint64_t box_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

static float value(uint64_t step, uint64_t flavour, uint32_t i)
{
    return (float)step + (float)flavour * 0.5f + (float)i * 0.001f;
}

void box_meta(uint64_t step, uint64_t generation, uint64_t flavour, struct ckpt_meta *meta)
{
    memset(meta, 0, sizeof *meta);
    meta->step = step;
    meta->generation = generation;
    memset(meta->job_uid, 7, sizeof meta->job_uid);
    (void)snprintf(meta->job, sizeof meta->job, "box");
    meta->seed = UINT64_MAX - 1;
    meta->epoch = step / 10;
    meta->step_in_epoch = step % 10;
    meta->shards = 8;
    meta->loss_scale = 1;
    meta->params_hash = step * 1000 + flavour;
    (void)snprintf(meta->spec, sizeof meta->spec, "model=box\nseed=1\n");
    (void)snprintf(meta->fingerprint, sizeof meta->fingerprint, "device=box\n");
}

enum ckpt_code box_save(const char *folder, uint64_t step, uint64_t generation, uint64_t flavour,
                        uint64_t keep, struct ckpt_error *error)
{
    static const char *const names[LAYERS] = {BOX_TENSOR, "fc.bias", "conv.weight"};
    struct safetensors_tensor tensors[LAYERS] = {{.name = ""}};
    float values[BOX_VALUES];
    struct ckpt_meta meta;
    const struct ckpt_file files[2] = {{BOX_MODEL, tensors, LAYERS}, {BOX_OPTIMIZER, tensors, 1}};

    box_meta(step, generation, flavour, &meta);
    for (uint32_t i = 0; i < BOX_VALUES; i++)
        values[i] = value(step, flavour, i);
    for (uint32_t i = 0; i < LAYERS; i++) {
        (void)snprintf(tensors[i].name, sizeof tensors[i].name, "%s", names[i]);
        tensors[i].type = SAFETENSORS_F32;
        tensors[i].dims = 1;
        tensors[i].shape[0] = BOX_VALUES;
        tensors[i].data = values;
    }
    return ckpt_save(folder, &meta, files, 2, keep, error);
}

void box_expect(const struct ckpt_found *found, uint64_t step, uint64_t flavour)
{
    float values[BOX_VALUES];
    struct ckpt_error error;

    if (found->meta.step != step || found->meta.params_hash != step * 1000 + flavour)
        fail_msg("step %llu with hash %llu was found, expected %llu with %llu",
                 (unsigned long long)found->meta.step, (unsigned long long)found->meta.params_hash,
                 (unsigned long long)step, (unsigned long long)(step * 1000 + flavour));
    if (ckpt_read(found, BOX_MODEL, BOX_TENSOR, SAFETENSORS_F32, values, sizeof values, &error) !=
        CKPT_OK)
        fail_msg("%s", error.text);
    for (uint32_t i = 0; i < BOX_VALUES; i++)
        if (values[i] != value(step, flavour, i))
            fail_msg("value %u is %g, expected %g", i, (double)values[i],
                     (double)value(step, flavour, i));
}
