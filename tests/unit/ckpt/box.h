/* A temporary folder, files in it, and small checkpoints whose values are a function of their step.
 */
#ifndef TESTS_UNIT_CKPT_BOX_H
#define TESTS_UNIT_CKPT_BOX_H

#include "ckpt/ckpt.h"

#define BOX_FOLDER_BYTES 64
#define BOX_MODEL        "model.safetensors"
#define BOX_OPTIMIZER    "optimizer.safetensors"
#define BOX_TENSOR       "fc.weight"
#define BOX_VALUES       600 /* floats of BOX_TENSOR */

/* Bytes of a file. */
struct box_bytes {
    char *data;   /* owned */
    size_t bytes; /* of data */
};

void box_make(char folder[BOX_FOLDER_BYTES]);
void box_remove(const char *folder);
struct box_bytes box_slurp(const char *path);
void box_spit(const char *path, const void *data, size_t bytes);

/* Names in a folder that begin with `prefix`. */
unsigned box_count(const char *folder, const char *prefix);

/* The next of a seeded sequence. */
uint64_t box_random(uint64_t *seed);

/* A checkpoint of a model and an optimizer; `flavour` changes its content and its params_hash. */
void box_meta(uint64_t step, uint64_t generation, uint64_t flavour, struct ckpt_meta *meta);
enum ckpt_code box_save(const char *folder, uint64_t step, uint64_t generation, uint64_t flavour,
                        uint64_t keep, struct ckpt_error *error);

/* Fails the test unless found holds the values of this step and flavour. */
void box_expect(const struct ckpt_found *found, uint64_t step, uint64_t flavour);

#endif
