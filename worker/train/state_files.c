/* Values of the state from a seed, from files and to files, by way of the host's memory. */
#include "train/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MODEL_FILE "model.safetensors"
#define OPTIM_FILE "optimizer.safetensors"

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

/* Memory of the host for as many values as the model has parameters. */
static enum ckpt_code staging_new(const struct state *state, float **staging,
                                  struct ckpt_error *error)
{
    *staging = malloc(state->spec->param_count * sizeof **staging);
    return *staging != NULL ? CKPT_OK
                            : ckpt_fail(error, CKPT_MEMORY, "out of memory for the model");
}

static void upload(struct state *state, struct device_stream *stream, float *to,
                   const float *staging)
{
    state->ops->upload(stream, to, staging, state->spec->param_count * sizeof *staging);
    state->ops->stream_sync(stream);
}

/* All tensors with this prefix, by way of the staging, to where they are kept. */
static enum ckpt_code load_values(struct state *state, struct device_stream *stream,
                                  const struct safetensors *file, const char *prefix,
                                  float *staging, float *values, struct ckpt_error *error)
{
    enum ckpt_code code = CKPT_OK;

    for (uint32_t i = 0; i < state->spec->tensor_count && code == CKPT_OK; i++)
        code = load_tensor(file, &state->spec->tensors[i], prefix, staging, error);
    if (code == CKPT_OK)
        upload(state, stream, values, staging);
    return code;
}

enum ckpt_code state_seed(struct state *state, struct device_stream *stream, uint64_t seed,
                          struct ckpt_error *error)
{
    float *staging;

    if (staging_new(state, &staging, error) != CKPT_OK)
        return error->code;
    model_init(state->spec, seed, staging);
    upload(state, stream, state->values, staging);
    free(staging);
    return CKPT_OK;
}

enum ckpt_code state_load_init(struct state *state, struct device_stream *stream, const char *path,
                               uint64_t *hash, struct ckpt_error *error)
{
    struct safetensors file;
    float *staging;
    enum ckpt_code code = safetensors_open(path, &file, error);

    if (code != CKPT_OK)
        return code;
    code = staging_new(state, &staging, error);
    if (code == CKPT_OK)
        code = load_values(state, stream, &file, "", staging, state->values, error);
    if (code == CKPT_OK)
        *hash = XXH3_64bits(staging, state->spec->param_count * sizeof *staging);
    free(staging);
    safetensors_close(&file);
    return code;
}

static enum ckpt_code load_file(struct state *state, struct device_stream *stream,
                                const struct ckpt_found *found, const char *name,
                                const char *const *prefixes, float *values,
                                struct ckpt_error *error)
{
    struct safetensors file;
    char path[1100];
    float *staging;
    enum ckpt_code code;

    (void)snprintf(path, sizeof path, "%s/%s", found->path, name);
    code = safetensors_open(path, &file, error);
    if (code != CKPT_OK)
        return code;
    code = staging_new(state, &staging, error);
    for (; *prefixes != NULL && code == CKPT_OK; prefixes++, values += state->spec->param_count)
        code = load_values(state, stream, &file, *prefixes, staging, values, error);
    free(staging);
    safetensors_close(&file);
    return code;
}

enum ckpt_code state_load(struct state *state, struct device_stream *stream,
                          const struct ckpt_found *found, struct ckpt_error *error)
{
    static const char *const model[] = {"", NULL};
    static const char *const optim[] = {"exp_avg.", "exp_avg_sq.", NULL};
    float *moments = state->values + state->spec->param_count;
    enum ckpt_code code = load_file(state, stream, found, MODEL_FILE, model, state->values, error);
    uint64_t hash;

    if (code == CKPT_OK)
        code = load_file(state, stream, found, OPTIM_FILE, optim, moments, error);
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
