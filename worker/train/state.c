#include "train/state.h"

#include <stdlib.h>
#include <string.h>

#define PARTS 64 /* hashes of blocks of block hashes */

static size_t square_sums_bytes(const struct model_spec *spec)
{
    return (spec->param_count + DEVICE_BLOCK - 1) / DEVICE_BLOCK * sizeof(double);
}

int state_init(struct state *state, const struct device_ops *ops, struct device *device,
               const struct model_spec *spec, const struct optim_options *optim)
{
    memset(state, 0, sizeof *state);
    state->ops = ops;
    state->device = device;
    state->spec = spec;
    state->optim = *optim;
    state->block_count = (spec->param_count + STATE_BLOCK - 1) / STATE_BLOCK;
    state->values = ops->alloc(device, state_value_bytes(state));
    state->reduced = ops->alloc(device, spec->gradient_count * sizeof(float));
    state->block_hashes = ops->alloc(device, state->block_count * sizeof *state->block_hashes);
    state->hash_parts = ops->alloc(device, (PARTS + 1) * sizeof *state->hash_parts);
    state->square_sums = ops->alloc(device, square_sums_bytes(spec));
    state->square_sums_here = malloc(square_sums_bytes(spec));
    return state->values != NULL && state->reduced != NULL && state->block_hashes != NULL &&
                   state->hash_parts != NULL && state->square_sums != NULL &&
                   state->square_sums_here != NULL
               ? 0
               : -1;
}

void state_release(struct state *state)
{
    if (state->ops == NULL)
        return;
    state->ops->release(state->device, state->values);
    state->ops->release(state->device, state->reduced);
    state->ops->release(state->device, state->block_hashes);
    state->ops->release(state->device, state->hash_parts);
    state->ops->release(state->device, state->square_sums);
    free(state->square_sums_here);
    memset(state, 0, sizeof *state);
}

/* ---- updates -------------------------------------------------------------------------------- */

/* The host's copy of a few bytes. */
static void fetch(const struct state *state, struct device_stream *stream, void *to,
                  const void *from, size_t bytes)
{
    state->ops->download(stream, to, from, bytes);
    state->ops->stream_sync(stream);
}

void state_metrics(const struct state *state, struct device_stream *stream, const float *reduced,
                   double *loss, double *correct, double *real)
{
    float tail[MODEL_METRICS];

    fetch(state, stream, tail, reduced + state->spec->param_count, sizeof tail);
    *real = (double)tail[2];
    *loss = (double)tail[0] / *real;
    *correct = (double)tail[1];
}

float state_clip(const struct state *state, struct device_stream *stream, const float *reduced)
{
    uint64_t n = state->spec->param_count, bytes = square_sums_bytes(state->spec);
    double loss, correct, real;

    if (state->optim.clip_norm <= 0)
        return 1.0f;
    state->ops->square_sums(stream, reduced, n, state->square_sums);
    state->ops->download(stream, state->square_sums_here, state->square_sums, bytes);
    state_metrics(state, stream, reduced, &loss, &correct, &real);
    return optim_clip(&state->optim,
                      optim_norm(state->square_sums_here, bytes / sizeof(double), real));
}

void state_update(const struct state *state, struct device_stream *stream, uint64_t step,
                  const float *reduced, float clip, uint64_t first, uint64_t count,
                  uint64_t *hashes)
{
    uint64_t n = state->spec->param_count, at = first * STATE_BLOCK;
    uint64_t end = (first + count) * STATE_BLOCK < n ? (first + count) * STATE_BLOCK : n;
    struct device_update update;

    optim_update(&state->optim, step, clip, &update);
    update.divisor = reduced + n + 2;
    update.params = state->values + at;
    update.first = state->values + n + at;
    update.second = state->values + 2 * n + at;
    update.gradient = reduced + at;
    update.n = end - at;
    state->ops->update(stream, &update);
    if (hashes != NULL)
        state_hash_blocks(state, stream, first, count, hashes);
}

void state_hash_blocks(const struct state *state, struct device_stream *stream, uint64_t first,
                       uint64_t count, uint64_t *hashes)
{
    uint64_t n = state->spec->param_count, at = first * STATE_BLOCK;
    uint64_t end = (first + count) * STATE_BLOCK < n ? (first + count) * STATE_BLOCK : n;

    state->ops->hashes(stream, state->values + at, (end - at) * sizeof(float), hashes + first);
}

void state_hash_all(struct state *state, struct device_stream *stream)
{
    state_hash_blocks(state, stream, 0, state->block_count, state->block_hashes);
}

uint64_t state_combine(const struct state *state, struct device_stream *stream,
                       const uint64_t *hashes)
{
    uint64_t hash, bytes = state->block_count * sizeof *hashes;
    uint64_t *parts = state->hash_parts, *last = parts + PARTS;

    /* one more level: 64 Ki parameters of 16 KiB blocks each are more than any model here has */
    if (bytes <= DEVICE_HASH_BYTES) {
        state->ops->hashes(stream, hashes, bytes, last);
    } else {
        state->ops->fill(stream, parts, 0, PARTS * sizeof *parts);
        state->ops->hashes(stream, hashes, bytes, parts);
        state->ops->hashes(stream, parts, PARTS * sizeof *parts, last);
    }
    fetch(state, stream, &hash, last, sizeof hash);
    return hash;
}

uint64_t state_hash(const struct state *state, struct device_stream *stream)
{
    return state_combine(state, stream, state->block_hashes);
}
