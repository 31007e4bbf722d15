#include "train/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_FILE "model.safetensors"
#define OPTIM_FILE "optimizer.safetensors"

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
    state->block_hashes = calloc(state->block_count, sizeof *state->block_hashes);
    state->square_sums = calloc((spec->param_count + DEVICE_BLOCK - 1) / DEVICE_BLOCK,
                                sizeof *state->square_sums);
    return state->values != NULL && state->reduced != NULL && state->block_hashes != NULL &&
                   state->square_sums != NULL
               ? 0
               : -1;
}

void state_release(struct state *state)
{
    if (state->ops == NULL)
        return;
    state->ops->release(state->device, state->values);
    state->ops->release(state->device, state->reduced);
    free(state->block_hashes);
    free(state->square_sums);
    memset(state, 0, sizeof *state);
}

/* ---- updates -------------------------------------------------------------------------------- */

void state_metrics(const struct state *state, const float *reduced, double *loss, double *correct,
                   double *real)
{
    const float *tail = reduced + state->spec->param_count;

    *real = (double)tail[2];
    *loss = (double)tail[0] / *real;
    *correct = (double)tail[1];
}

float state_clip(const struct state *state, struct device_stream *stream, const float *reduced)
{
    uint64_t n = state->spec->param_count, count = (n + DEVICE_BLOCK - 1) / DEVICE_BLOCK;

    if (state->optim.clip_norm <= 0)
        return 1.0f;
    state->ops->square_sums(stream, reduced, n, state->square_sums);
    return optim_clip(&state->optim,
                      optim_norm(state->square_sums, count, (double)reduced[n + 2]));
}

void state_update(const struct state *state, struct device_stream *stream, uint64_t step,
                  const float *reduced, float clip, uint64_t first, uint64_t count,
                  uint64_t *hashes)
{
    uint64_t n = state->spec->param_count, at = first * STATE_BLOCK;
    uint64_t end = (first + count) * STATE_BLOCK < n ? (first + count) * STATE_BLOCK : n;
    struct device_update update;

    optim_update(&state->optim, step, reduced[n + 2], clip, &update);
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
    uint64_t hash = 0, parts[64];
    uint64_t bytes = state->block_count * sizeof *hashes;

    /* one more level: 64 Ki parameters of 16 KiB blocks each are more than any model here has */
    if (bytes <= DEVICE_HASH_BYTES) {
        state->ops->hashes(stream, hashes, bytes, &hash);
        return hash;
    }
    memset(parts, 0, sizeof parts);
    state->ops->hashes(stream, hashes, bytes, parts);
    state->ops->hashes(stream, parts, sizeof parts, &hash);
    return hash;
}

uint64_t state_hash(const struct state *state, struct device_stream *stream)
{
    return state_combine(state, stream, state->block_hashes);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void describe(const struct model_tensor *tensor, const char *prefix, const float *values,
                     struct safetensors_tensor *out)
{
    memset(out, 0, sizeof *out);
    (void)snprintf(out->name, sizeof out->name, "%s%s", prefix, tensor->name);
    out->type = SAFETENSORS_F32;
    out->dims = tensor->dims;
    for (uint32_t i = 0; i < tensor->dims; i++)
        out->shape[i] = tensor->shape[i];
    out->data = values + tensor->offset;
}

enum ckpt_code state_save(const struct state *state, const float *values, const char *folder,
                          const struct ckpt_meta *meta, uint64_t keep, struct ckpt_error *error)
{
    const struct model_spec *spec = state->spec;
    struct safetensors_tensor *tensors = calloc(3 * spec->tensor_count, sizeof *tensors);
    struct ckpt_file files[2] = {
        {MODEL_FILE, tensors, spec->tensor_count},
        {OPTIM_FILE, tensors + spec->tensor_count, 2 * spec->tensor_count}};
    enum ckpt_code code;

    if (tensors == NULL)
        return ckpt_fail(error, CKPT_MEMORY, "out of memory for a checkpoint");
    for (uint32_t i = 0; i < spec->tensor_count; i++) {
        describe(&spec->tensors[i], "", values, &tensors[i]);
        describe(&spec->tensors[i], "exp_avg.", values + spec->param_count,
                 &tensors[spec->tensor_count + i]);
        describe(&spec->tensors[i], "exp_avg_sq.", values + 2 * spec->param_count,
                 &tensors[2 * spec->tensor_count + i]);
    }
    code = ckpt_save(folder, meta, files, 2, keep, error);
    free(tensors);
    return code;
}

static enum ckpt_code load_tensor(const struct safetensors *file, const struct model_tensor *tensor,
                                  const char *prefix, float *values, struct ckpt_error *error)
{
    char name[SAFETENSORS_NAME_BYTES];
    const struct safetensors_tensor *found;

    (void)snprintf(name, sizeof name, "%s%s", prefix, tensor->name);
    found = safetensors_find(file, name);
    for (uint32_t i = 0; found != NULL && i < tensor->dims; i++)
        if (found->dims != tensor->dims || found->shape[i] != tensor->shape[i])
            return ckpt_fail(error, CKPT_MISMATCH,
                             "%s: tensor %s has another shape than the model's", file->path, name);
    return safetensors_read(file, name, SAFETENSORS_F32, values + tensor->offset,
                            tensor->count * sizeof(float), error);
}

static enum ckpt_code load_file(struct state *state, const char *path, const char *const *prefixes,
                                uint32_t count, float *values, struct ckpt_error *error)
{
    struct safetensors file;
    enum ckpt_code code = safetensors_open(path, &file, error);

    if (code != CKPT_OK)
        return code;
    for (uint32_t k = 0; k < count; k++)
        for (uint32_t i = 0; i < state->spec->tensor_count && code == CKPT_OK; i++)
            code = load_tensor(&file, &state->spec->tensors[i], prefixes[k],
                               values + k * state->spec->param_count, error);
    safetensors_close(&file);
    return code;
}

enum ckpt_code state_load_init(struct state *state, const char *path, struct ckpt_error *error)
{
    static const char *const prefixes[] = {""};

    return load_file(state, path, prefixes, 1, state->values, error);
}

enum ckpt_code state_load(struct state *state, struct device_stream *stream,
                          const struct ckpt_found *found, struct ckpt_error *error)
{
    static const char *const model[] = {""}, *const optim[] = {"exp_avg.", "exp_avg_sq."};
    char path[1100];
    enum ckpt_code code;
    uint64_t hash;

    (void)snprintf(path, sizeof path, "%s/" MODEL_FILE, found->path);
    code = load_file(state, path, model, 1, state->values, error);
    (void)snprintf(path, sizeof path, "%s/" OPTIM_FILE, found->path);
    if (code == CKPT_OK)
        code = load_file(state, path, optim, 2, state->values + state->spec->param_count, error);
    if (code != CKPT_OK)
        return code;
    state->applied = found->meta.step;
    state_hash_all(state, stream);
    hash = state_hash(state, stream);
    if (hash != found->meta.params_hash)
        return ckpt_fail(error, CKPT_MISMATCH,
                         "%s: its parameters have the params_hash %016llx, its manifest says "
                         "%016llx", found->path, (unsigned long long)hash,
                         (unsigned long long)found->meta.params_hash);
    return CKPT_OK;
}
