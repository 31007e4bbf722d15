/* Checkpoints: a folder per step with safetensors files and manifest.json, written last. FORMAT.md has the
 * bytes, the crash cases and the promise.
 *
 *     ckpt_save(folder, &meta, files, count, keep, &error)      durable when it returns CKPT_OK
 *     ckpt_find(folder, &found, passed_cb, owner, &error)       the newest valid one
 *     ckpt_read(&found, "model.safetensors", name, type, to, bytes, &error)
 *     ckpt_release(&found)
 *
 * A reader takes the newest valid checkpoint and says what was wrong with the others; with none that is valid
 * it is CKPT_BROKEN, with nothing there at all CKPT_NONE. A manifest never fixes a number of ranks. */
#ifndef CKPT_CKPT_H
#define CKPT_CKPT_H

#include "ckpt/error.h"
#include "ckpt/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

#define CKPT_SPEC_BYTES 4097
#define CKPT_FILES_MAX  16

/* What manifest.json says beside the list of files. */
struct ckpt_meta {
    uint64_t step;           /* updates applied */
    uint64_t generation;     /* in which it was written; 0 = alone */
    uint8_t job_uid[16];
    char job[65];
    uint64_t seed, epoch, step_in_epoch, shards;
    double loss_scale;
    uint64_t params_hash;
    char spec[CKPT_SPEC_BYTES];
};

/* A file to be written: its tensors with data. */
struct ckpt_file {
    const char *name; /* "model.safetensors" */
    const struct safetensors_tensor *tensors;
    uint32_t count;
};

/* One folder that was looked at. */
struct ckpt_row {
    char name[64];     /* "step-00000042" */
    uint64_t step, generation, bytes;
    bool valid;
    char why[512];     /* what is wrong, with the file; "" = nothing */
};

struct ckpt_found {
    char path[1024];   /* folder/step-NNNNNNNN */
    struct ckpt_meta meta;
};

/* Called for each folder that was passed over, newest first. */
typedef void (*ckpt_passed_cb)(void *owner, const struct ckpt_row *row);

/* folder is made when it is missing. keep: how many are kept, older ones are removed only after this one is
 * durable; 0 = all. A checkpoint of the same step is kept as it is; a newer generation there is CKPT_OLDER. */
enum ckpt_code ckpt_save(const char *folder, const struct ckpt_meta *meta,
                         const struct ckpt_file *files, uint32_t count, uint64_t keep,
                         struct ckpt_error *error);
enum ckpt_code ckpt_find(const char *folder, struct ckpt_found *found, ckpt_passed_cb passed_cb,
                         void *owner, struct ckpt_error *error);
enum ckpt_code ckpt_read(const struct ckpt_found *found, const char *file, const char *tensor,
                         enum safetensors_type type, void *to, uint64_t bytes,
                         struct ckpt_error *error);

/* All checkpoints of a folder, newest first, each verified. *rows is malloc'ed. */
enum ckpt_code ckpt_list(const char *folder, struct ckpt_row **rows, uint32_t *count,
                         struct ckpt_error *error);

/* Verifies one: manifest and its checksum, sizes and hashes of all files, their headers. */
enum ckpt_code ckpt_verify(const char *path, struct ckpt_meta *meta, uint64_t *bytes,
                           struct ckpt_error *error);

#endif
