/* The model on a device whose memory is not the host's and whose work is not done when a call
 * returns: the same bits as on the device that it is made of. */
#include "model/model.h"
#include "unit/device/far.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SHARD   65 /* of micro-batches of 32 */
#define SAMPLES 37 /* two of them, the second one short */

/* What one device makes of the samples. */
struct result {
    float *gradient, *seen; /* [gradient_count]; seen: each bucket when it was said to be ready */
    double metrics[3];
};

struct reader {
    const struct device_ops *ops;
    struct device_stream *stream; /* another one than the model's */
    const float *gradient;        /* the device's */
    struct result *result;
};

static void on_ready(void *owner, uint32_t bucket)
{
    struct reader *r = owner;
    const struct model_bucket *b = &model_convnet()->buckets[bucket];

    r->ops->download(r->stream, r->result->seen + b->offset, r->gradient + b->offset,
                     b->count * sizeof(float));
    r->ops->stream_sync(r->stream);
}

static void make_samples(uint8_t *images, uint8_t *labels)
{
    uint64_t seed = 5;

    for (size_t i = 0; i < (size_t)SAMPLES * MODEL_IMAGE_BYTES; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        images[i] = (uint8_t)(seed >> 40);
    }
    for (size_t i = 0; i < SAMPLES; i++)
        labels[i] = (uint8_t)(images[i] % MODEL_CLASSES);
}

/* Pictures are the host's and go as soon as the call is back. */
static void work(const struct reader *reader, struct model_context *model, float *gradient)
{
    uint8_t *images = malloc((size_t)SAMPLES * MODEL_IMAGE_BYTES), *labels = malloc(SAMPLES);

    assert_non_null(images);
    assert_non_null(labels);
    make_samples(images, labels);
    model_shard(model, images, labels, SAMPLES, gradient, on_ready, (void *)(uintptr_t)reader);
    model_evaluate(model, images, labels, SAMPLES, reader->result->metrics);
    free(images);
    free(labels);
}

static void run_on(const struct device_ops *ops, struct result *result)
{
    const struct model_spec *spec = model_convnet();
    struct device_options options = {"native"};
    size_t bytes = spec->gradient_count * sizeof(float);
    struct reader reader = {.ops = ops, .result = result};
    struct device_stream *stream;
    struct model_context *model;
    struct device_error error;
    struct device *device;
    float *params, *gradient, *here = malloc(bytes);

    assert_non_null(here);
    result->gradient = malloc(bytes);
    result->seen = malloc(bytes);
    assert_non_null(result->gradient);
    assert_non_null(result->seen);
    assert_int_equal(ops->open(&options, &device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(device, &stream, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(device, &reader.stream, &error), DEVICE_OK);
    params = ops->alloc(device, bytes);
    reader.gradient = gradient = ops->alloc(device, bytes);
    model_init(spec, 3, here);
    ops->upload(stream, params, here, spec->param_count * sizeof(float));
    assert_int_equal(model_open(ops, device, stream, spec, SHARD, &model, &error), DEVICE_OK);
    model_load(model, params, 0);
    work(&reader, model, gradient);
    ops->download(reader.stream, result->gradient, gradient, bytes);
    ops->stream_sync(reader.stream);
    model_close(model);
    ops->release(device, params);
    ops->release(device, gradient);
    ops->stream_close(stream);
    ops->stream_close(reader.stream);
    ops->close(device);
    free(here);
}

static void a_shard_has_the_same_bits_far_away(void **state)
{
    size_t bytes = model_convnet()->gradient_count * sizeof(float);
    struct result near = {.gradient = NULL}, far = {.gradient = NULL};

    (void)state;
    run_on(device_reference_ops(), &near);
    run_on(far_ops(), &far);
    assert_memory_equal(near.gradient, far.gradient, bytes);
    assert_memory_equal(near.seen, near.gradient, bytes);
    assert_memory_equal(far.seen, far.gradient, bytes);
    assert_memory_equal(near.metrics, far.metrics, sizeof near.metrics);
    assert_true(near.metrics[2] == SAMPLES);
    free(near.gradient);
    free(near.seen);
    free(far.gradient);
    free(far.seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_shard_has_the_same_bits_far_away)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
