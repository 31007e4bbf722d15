/* Conv(1,32,3) ReLU MaxPool(2) Conv(32,64,3) ReLU MaxPool(2) Linear(1600,256) ReLU Linear(256,10)
 * on 28x28 pixels, (x / 255 - 0.5) / 0.5; the names are those of the tutorial's module. */
#include "model/model.h"

#include "model/philox.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS          4
#define MICROBATCH_MAX  64
#define MICROBATCH      32

struct model_context {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
    const struct model_spec *spec;
    struct device_layer *layers[LAYERS];
    uint32_t micro;      /* samples of one pass */
    uint64_t version;    /* of the parameters that are loaded */
    const float *params;
    /* the device's memory */
    uint8_t *pixels;     /* [micro][784] */
    uint8_t *labels;     /* [micro] */
    float *input;        /* [micro][784] */
    float *dlogits;      /* [micro][10] */
    float *part;         /* gradient of a micro-batch after the first; metrics of an evaluation */
};

/* Tensor i and i + 1 are weight and bias of layer i / 2. Buckets: the linear layers first, as
 * backward ends them first; the metrics travel with them. */
static const struct model_spec convnet = {
    .name = "convnet",
    .tensors = {{"conv_layers.0.weight", 4, {32, 1, 3, 3}, 0, 288},
                {"conv_layers.0.bias", 1, {32}, 288, 32},
                {"conv_layers.3.weight", 4, {64, 32, 3, 3}, 320, 18432},
                {"conv_layers.3.bias", 1, {64}, 18752, 64},
                {"fc_layers.0.weight", 2, {256, 1600}, 18816, 409600},
                {"fc_layers.0.bias", 1, {256}, 428416, 256},
                {"fc_layers.2.weight", 2, {10, 256}, 428672, 2560},
                {"fc_layers.2.bias", 1, {10}, 431232, 10}},
    .tensor_count = 8,
    .param_count = 431242,
    .gradient_count = 431242 + MODEL_METRICS,
    .buckets = {{18816, 431242 + MODEL_METRICS - 18816}, {0, 18816}},
    .bucket_count = 2,
};

const struct model_spec *model_convnet(void)
{
    return &convnet;
}

/* ---- initial values ------------------------------------------------------------------------- */

/* PyTorch's default for Conv2d and Linear: uniform in (-b, b), b = 1 / sqrt(fan in), for weight and
 * bias. */
void model_init(const struct model_spec *spec, uint64_t seed, float *params)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (uint32_t t = 0; t < spec->tensor_count; t++) {
        const struct model_tensor *tensor = &spec->tensors[t];
        const struct model_tensor *weight = &spec->tensors[t / 2 * 2];
        uint64_t fan_in = weight->count / weight->shape[0];
        float bound = (float)(1.0 / sqrt((double)fan_in));

        for (uint64_t i = 0; i < tensor->count; i++) {
            uint32_t counter[4] = {(uint32_t)i, (uint32_t)(i >> 32), t, 0}, out[4];

            philox4x32(counter, key, out);
            params[tensor->offset + i] =
                ((float)(out[0] >> 8) * (1.0f / 8388608.0f) - 1.0f) * bound;
        }
    }
}

uint32_t model_microbatch(uint32_t shard_samples)
{
    return shard_samples <= MICROBATCH_MAX ? shard_samples : MICROBATCH;
}

/* ---- contexts ------------------------------------------------------------------------------- */

static void describe_layers(uint32_t batch, struct device_layer_spec specs[LAYERS])
{
    memset(specs, 0, LAYERS * sizeof *specs);
    for (int i = 0; i < LAYERS; i++)
        specs[i].batch = batch;
    specs[0].kind = specs[1].kind = DEVICE_CONV_RELU_POOL;
    specs[0].channels_in = 1;
    specs[0].channels_out = specs[1].channels_in = 32;
    specs[1].channels_out = 64;
    specs[0].height = specs[0].width = 28;
    specs[1].height = specs[1].width = 13;
    specs[2].kind = DEVICE_LINEAR_RELU;
    specs[3].kind = DEVICE_LINEAR;
    specs[2].inputs = 1600;
    specs[2].outputs = specs[3].inputs = 256;
    specs[3].outputs = MODEL_CLASSES;
}

void model_close(struct model_context *c)
{
    if (c == NULL)
        return;
    c->ops->stream_sync(c->stream);
    for (int i = 0; i < LAYERS; i++)
        c->ops->layer_free(c->layers[i]);
    c->ops->release(c->device, c->pixels);
    c->ops->release(c->device, c->labels);
    c->ops->release(c->device, c->input);
    c->ops->release(c->device, c->dlogits);
    c->ops->release(c->device, c->part);
    free(c);
}

static bool make_buffers(struct model_context *c)
{
    const struct device_ops *ops = c->ops;
    size_t micro = c->micro;

    c->pixels = ops->alloc(c->device, micro * MODEL_IMAGE_BYTES);
    c->labels = ops->alloc(c->device, micro);
    c->input = ops->alloc(c->device, micro * MODEL_IMAGE_BYTES * sizeof(float));
    c->dlogits = ops->alloc(c->device, micro * MODEL_CLASSES * sizeof(float));
    c->part = ops->alloc(c->device, c->spec->gradient_count * sizeof(float));
    return c->pixels != NULL && c->labels != NULL && c->input != NULL && c->dlogits != NULL &&
           c->part != NULL;
}

enum device_status model_open(const struct device_ops *ops, struct device *device,
                              struct device_stream *stream, const struct model_spec *spec,
                              uint32_t shard_samples, struct model_context **out,
                              struct device_error *error)
{
    struct model_context *c = calloc(1, sizeof *c);
    struct device_layer_spec specs[LAYERS];
    enum device_status status = DEVICE_MEMORY;

    *out = NULL;
    if (c == NULL)
        return DEVICE_MEMORY;
    c->ops = ops;
    c->device = device;
    c->stream = stream;
    c->spec = spec;
    c->micro = model_microbatch(shard_samples);
    c->version = UINT64_MAX;
    describe_layers(c->micro, specs);
    if (make_buffers(c))
        status = DEVICE_OK;
    for (int i = 0; i < LAYERS && status == DEVICE_OK; i++)
        status = ops->layer_new(stream, &specs[i], i > 0 ? c->layers[i - 1] : NULL, &c->layers[i],
                                error);
    if (status != DEVICE_OK) {
        model_close(c);
        return status;
    }
    *out = c;
    return DEVICE_OK;
}

void model_load(struct model_context *c, const float *params, uint64_t version)
{
    if (c->version == version && c->params == params)
        return;
    c->version = version;
    c->params = params;
    for (uint32_t i = 0; i < LAYERS; i++)
        c->ops->layer_load(c->layers[i], params + c->spec->tensors[2 * i].offset);
}

/* ---- forward and backward ------------------------------------------------------------------- */

/* Pixels and labels of one micro-batch; places beyond `real` are zeros, and masked by the loss. */
static void take(struct model_context *c, const uint8_t *images, const uint8_t *labels,
                 uint32_t real)
{
    size_t pixels = (size_t)real * MODEL_IMAGE_BYTES, all = (size_t)c->micro * MODEL_IMAGE_BYTES;

    c->ops->upload(c->stream, c->pixels, images, pixels);
    c->ops->upload(c->stream, c->labels, labels, real);
    c->ops->normalize(c->stream, c->pixels, pixels, c->input);
    if (real == c->micro)
        return;
    c->ops->fill(c->stream, c->input + pixels, 0, (all - pixels) * sizeof *c->input);
    c->ops->fill(c->stream, c->labels + real, 0, c->micro - real);
}

static void forward(struct model_context *c, uint32_t real, float metrics[3])
{
    for (int i = 0; i < LAYERS; i++)
        c->ops->layer_forward(c->layers[i], c->input);
    c->ops->loss(c->stream, c->ops->layer_output(c->layers[LAYERS - 1]), c->labels, c->micro,
                 MODEL_CLASSES, real, c->dlogits, metrics);
}

/* Adds bucket b of the part to the gradient, first operand on the left. */
static void add_bucket(struct model_context *c, float *gradient, uint32_t b)
{
    const struct model_bucket *bucket = &c->spec->buckets[b];

    c->ops->add(c->stream, gradient + bucket->offset, gradient + bucket->offset,
                c->part + bucket->offset, bucket->count);
}

static void micro_batch(struct model_context *c, uint32_t real, float *gradient, bool first,
                        bool last, model_ready_cb ready_cb, void *owner)
{
    float *into = first ? gradient : c->part;
    float *tail = into + c->spec->param_count;

    forward(c, real, tail);
    c->ops->fill(c->stream, tail + 3, 0, sizeof *tail);
    for (int i = LAYERS - 1; i >= 0; i--) {
        uint32_t bucket = i >= 2 ? 0 : 1;

        c->ops->layer_backward(c->layers[i], c->dlogits,
                               into + c->spec->tensors[2 * i].offset, i > 0);
        if (i != 2 && i != 0)
            continue;
        if (!first)
            add_bucket(c, gradient, bucket);
        if (!last)
            continue;
        c->ops->stream_sync(c->stream);
        if (ready_cb != NULL)
            ready_cb(owner, bucket);
    }
}

void model_shard(struct model_context *c, const uint8_t *images, const uint8_t *labels,
                 uint32_t real, float *gradient, model_ready_cb ready_cb, void *owner)
{
    for (uint32_t at = 0; at < real; at += c->micro) {
        uint32_t count = real - at < c->micro ? real - at : c->micro;

        take(c, images + (size_t)at * MODEL_IMAGE_BYTES, labels + at, count);
        micro_batch(c, count, gradient, at == 0, at + count == real, ready_cb, owner);
    }
}

void model_evaluate(struct model_context *c, const uint8_t *images, const uint8_t *labels,
                    uint64_t count, double metrics[3])
{
    metrics[0] = metrics[1] = metrics[2] = 0;
    for (uint64_t at = 0; at < count; at += c->micro) {
        uint32_t real = count - at < c->micro ? (uint32_t)(count - at) : c->micro;
        float part[3];

        take(c, images + (size_t)at * MODEL_IMAGE_BYTES, labels + at, real);
        forward(c, real, c->part);
        c->ops->download(c->stream, part, c->part, sizeof part);
        c->ops->stream_sync(c->stream);
        for (int i = 0; i < 3; i++)
            metrics[i] += (double)part[i];
    }
}
