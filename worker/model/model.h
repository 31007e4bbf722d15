/* The tutorial's ConvNet in terms of device ops: tensors with PyTorch's names, initial values, and
 * the gradient of one shard.
 *
 *     spec = model_convnet()                        tensors, parameter count, buckets
 *     model_init(spec, seed, params)                initial values: a function of the seed alone
 *     model_open(ops, device, stream, spec, shard_samples, &context, &error)     one per thread
 *     model_load(context, params, version)          cheap when the version has not changed
 *     model_shard(context, images, labels, real, gradient, ready_cb, owner)
 *     model_evaluate(context, images, labels, real, metrics)
 *
 * Gradient vector: [parameters][MODEL_METRICS]: the raw SUM over the real samples of the shard, in
 * the canonical order of the tensors, then loss sum, correct and real samples (exact as floats), so
 * that loss and metrics go through the same tree as the gradient. It is written, never added to.
 *
 * A shard is worked in micro-batches of model_microbatch(B) samples, a function of B alone; their
 * gradients are added in order. So a shard's bits depend on its samples only. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "device/device.h"

#include <stdint.h>

#define MODEL_METRICS     4 /* loss sum, correct, real samples, 0 */
#define MODEL_TENSORS_MAX 16
#define MODEL_BUCKETS_MAX 4
#define MODEL_IMAGE_BYTES 784
#define MODEL_CLASSES     10

struct model_tensor {
    const char *name;
    uint32_t dims;       /* used of shape[] */
    uint32_t shape[4];
    uint64_t offset;     /* in the flat vector, elements */
    uint64_t count;
};

/* A range of the gradient vector that is exchanged together; in the order in which backward ends
 * them. */
struct model_bucket {
    uint64_t offset, count; /* elements of the gradient vector */
};

struct model_spec {
    const char *name;
    struct model_tensor tensors[MODEL_TENSORS_MAX];
    uint32_t tensor_count;
    uint64_t param_count;
    uint64_t gradient_count; /* param_count + MODEL_METRICS */
    struct model_bucket buckets[MODEL_BUCKETS_MAX];
    uint32_t bucket_count;
};

struct model_context;

/* Bucket b of the gradient is complete, and whoever likes may read it; called from inside
 * model_shard. */
typedef void (*model_ready_cb)(void *owner, uint32_t bucket);

const struct model_spec *model_convnet(void);
void model_init(const struct model_spec *spec, uint64_t seed, float *params);
uint32_t model_microbatch(uint32_t shard_samples);

enum device_status model_open(const struct device_ops *ops, struct device *device,
                              struct device_stream *stream, const struct model_spec *spec,
                              uint32_t shard_samples, struct model_context **context,
                              struct device_error *error);
void model_close(struct model_context *context); /* accepts NULL */

/* Parameters and gradients are the device's memory, pictures and labels the host's.
 *
 * params must stay unchanged until the next load. */
void model_load(struct model_context *context, const float *params, uint64_t version);

/* images: real x MODEL_IMAGE_BYTES, labels: real. real >= 1. ready_cb may be NULL. When it returns
 * all of its work is done, and images and labels may be used anew. */
void model_shard(struct model_context *context, const uint8_t *images, const uint8_t *labels,
                 uint32_t real, float *gradient, model_ready_cb ready_cb, void *owner);

/* metrics: [0] loss sum, [1] correct, [2] samples, of any number of samples. */
void model_evaluate(struct model_context *context, const uint8_t *images, const uint8_t *labels,
                    uint64_t count, double metrics[3]);

#endif
