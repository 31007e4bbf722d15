/* The replica's state: parameters, optimizer buffers, the reduced gradient, and what changes them.
 *
 * `values` is one block: parameters, first and second moments, each param_count floats, so that it
 * can be sent and received as a whole. Updates are element-wise in fixed blocks, so ranges can be
 * updated by any number of threads, and by a joiner chunk by chunk from records, with the same
 * bits.
 *
 * All of it is the device's memory; state.c has the arithmetic, state_files.c brings values here
 * and there. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H

#include "ckpt/ckpt.h"
#include "model/model.h"
#include "optim/optim.h"

#define STATE_BLOCK        (DEVICE_HASH_BYTES / 4) /* elements of one block of updates and hashes */
#define STATE_CHUNK_BLOCKS 16u                     /* blocks of one chunk, for a joiner */

struct state {
    const struct device_ops *ops;
    struct device *device;
    const struct model_spec *spec;
    struct optim_options optim;
    float *values;           /* [3 * param_count] */
    float *reduced;          /* [gradient_count] R: raw sums, then metrics */
    uint64_t *block_hashes;  /* [block_count] of the parameters */
    uint64_t *hash_parts;    /* on their way to one hash */
    double *square_sums;     /* of the gradient's blocks, for its norm */
    double *square_sums_here; /* the host's copy */
    uint64_t block_count;
    uint64_t applied;        /* version of values */
};

int state_init(struct state *state, const struct device_ops *ops, struct device *device,
               const struct model_spec *spec, const struct optim_options *optim);
void state_release(struct state *state); /* accepts an empty one */

static inline float *state_params(const struct state *state)
{
    return state->values;
}

static inline uint64_t state_value_bytes(const struct state *state)
{
    return 3 * state->spec->param_count * sizeof(float);
}

static inline uint64_t state_chunk_count(const struct state *state)
{
    return (state->block_count + STATE_CHUNK_BLOCKS - 1) / STATE_CHUNK_BLOCKS;
}

/* Elements of a chunk of the parameters (and of each moment). */
static inline void state_chunk(const struct state *state, uint64_t chunk, uint64_t *first,
                               uint64_t *count)
{
    uint64_t n = state->spec->param_count, size = (uint64_t)STATE_CHUNK_BLOCKS * STATE_BLOCK;

    *first = chunk * size;
    *count = n - *first < size ? n - *first : size;
}

/* Blocks [first, first + count) of the update of step `step` from a raw reduced gradient; also
 * their hashes when hashes != NULL. clip from state_clip(). */
void state_update(const struct state *state, struct device_stream *stream, uint64_t step,
                  const float *reduced, float clip, uint64_t first, uint64_t count,
                  uint64_t *hashes);
float state_clip(const struct state *state, struct device_stream *stream, const float *reduced);

/* Hashes of blocks [first, first + count) of the parameters as they are, into hashes[first ..]; all
 * of them into block_hashes (after a load or a copy); and the combination of all, of those kept
 * there or elsewhere. */
void state_hash_blocks(const struct state *state, struct device_stream *stream, uint64_t first,
                       uint64_t count, uint64_t *hashes);
void state_hash_all(struct state *state, struct device_stream *stream);
uint64_t state_hash(const struct state *state, struct device_stream *stream);
uint64_t state_combine(const struct state *state, struct device_stream *stream,
                       const uint64_t *hashes);

/* Loss, accuracy and real samples of a reduced gradient. */
void state_metrics(const struct state *state, struct device_stream *stream, const float *reduced,
                   double *loss, double *correct, double *real);

/* Initial values: of a seed, or from a safetensors file (hash: XXH3-64 of them). */
enum ckpt_code state_seed(struct state *state, struct device_stream *stream, uint64_t seed,
                          struct ckpt_error *error);
enum ckpt_code state_load_init(struct state *state, struct device_stream *stream, const char *path,
                               uint64_t *hash, struct ckpt_error *error);
/* From a checkpoint: parameters and optimizer. The parameters' hash must be the manifest's. */
enum ckpt_code state_load(struct state *state, struct device_stream *stream,
                          const struct ckpt_found *found, struct ckpt_error *error);
/* values: the host's copy of state->values, taken at meta->step. */
enum ckpt_code state_save(const struct state *state, const float *values, const char *folder,
                          const struct ckpt_meta *meta, uint64_t keep, struct ckpt_error *error);

#endif
