/* Checkpoints: a folder per step with safetensors files and manifest.json, written last. FORMAT.md
 * has the bytes, the crash cases and the promise.
 *
 *     ckpt_save(folder, &meta, files, count, keep, &error)      durable when it returns CKPT_OK
 *     ckpt_find(folder, &found, passed_cb, owner, &error)       the newest valid one
 *     ckpt_read(&found, "model.safetensors", name, type, to, bytes, &error)
 *
 * A reader takes the newest valid checkpoint and says what was wrong with the others; with none
 * that is valid it is CKPT_BROKEN, with nothing there at all CKPT_NONE. A manifest never fixes a
 * number of ranks.
 *
 * Every function may be called from any thread, and by several processes on one folder at once.
 * They block on the disk: call ckpt_save from a thread of its own, with a copy of what changes
 * meanwhile. */
#ifndef CKPT_CKPT_H
#define CKPT_CKPT_H

#include "ckpt/error.h"
#include "ckpt/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

#define CKPT_SPEC_BYTES        4097
#define CKPT_FINGERPRINT_BYTES 1025
#define CKPT_FILES_MAX         64
#define CKPT_PATH_BYTES        1024 /* of a checkpoint's folder */

/* What manifest.json says beside the list of files. Counts are below 2^63. */
struct ckpt_meta {
    uint64_t step;                /* updates applied */
    uint64_t generation;          /* in which it was written; 0 = alone */
    uint8_t job_uid[16];          /* whose generations these are */
    char job[65];                 /* its name, UTF-8 */
    uint64_t seed;                /* of initial values and sample order */
    uint64_t epoch;               /* cursor of the data: the next step's */
    uint64_t step_in_epoch;       /* cursor of the data */
    uint64_t shards;              /* S */
    double loss_scale;            /* 1 = none */
    uint64_t params_hash;         /* of the parameters */
    char spec[CKPT_SPEC_BYTES];   /* what defines the job's mathematics, UTF-8 */
    char fingerprint[CKPT_FINGERPRINT_BYTES]; /* what else decides the bits: kernels, libraries;
                                                 "" = written before manifests said it */
};

/* A file to be written: its tensors with data. */
struct ckpt_file {
    const char *name; /* "model.safetensors": at most 63 bytes, no path */
    const struct safetensors_tensor *tensors; /* the caller's */
    uint32_t count;   /* of tensors */
};

/* One folder that was looked at. */
struct ckpt_row {
    char name[64];             /* "step-00000042" */
    uint64_t step;             /* by its name */
    uint64_t generation;       /* valid ones: by its manifest */
    uint64_t bytes;            /* of all files that the manifest names */
    bool valid;                /* verified to the last byte */
    char why[CKPT_TEXT_BYTES]; /* what is wrong, with the file; "" = nothing */
};

/* The newest valid one. */
struct ckpt_found {
    char path[CKPT_PATH_BYTES]; /* folder/step-NNNNNNNN */
    struct ckpt_meta meta;
};

/* Called for each folder that was passed over, newest first. */
typedef void (*ckpt_passed_cb)(void *owner, const struct ckpt_row *row);

/* folder is made when it is missing (its parent must be there). keep: how many are kept (retain.h),
 * older ones are removed only after this one is durable; 0 = all.
 *
 * A valid checkpoint of the same step with the same content is kept as it is, and all is well:
 * several workers may save one step. One with other content, or a broken one, is replaced in one
 * exchange of names. CKPT_OLDER: a later generation of this job has written here, so this writer is
 * a ghost (a writer that is alone, generation 0, is the only one and never a ghost). After any
 * error the older checkpoints are as they were, and this one is complete or absent. */
enum ckpt_code ckpt_save(const char *folder, const struct ckpt_meta *meta,
                         const struct ckpt_file *files, uint32_t count, uint64_t keep,
                         struct ckpt_error *error);
enum ckpt_code ckpt_find(const char *folder, struct ckpt_found *found, ckpt_passed_cb passed_cb,
                         void *owner, struct ckpt_error *error);

/* One tensor into the caller's memory; type and size must be right. For many tensors of a file, or
 * to look at shapes first, open it by safetensors.h. */
enum ckpt_code ckpt_read(const struct ckpt_found *found, const char *file, const char *tensor,
                         enum safetensors_type type, void *to, uint64_t bytes,
                         struct ckpt_error *error);

/* All checkpoints of a folder, newest first, each verified. *rows is malloc'ed. */
enum ckpt_code ckpt_list(const char *folder, struct ckpt_row **rows, uint32_t *count,
                         struct ckpt_error *error);

/* Verifies one: manifest and its checksum, sizes and checksums of all files, their headers. */
enum ckpt_code ckpt_verify(const char *path, struct ckpt_meta *meta, uint64_t *bytes,
                           struct ckpt_error *error);

/* Of the libraries in use: jansson, xxHash. */
const char *ckpt_json_version(void);
const char *ckpt_hash_version(void);

#endif
