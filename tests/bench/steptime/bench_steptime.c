/* Where the time of a step goes, op by op, on one thread: the worker's model, sums, update and
 * hashes over the CPU device, through a vtable that measures. Beside it the machine's own matmul
 * speed.
 *
 *     bench_steptime BATCH SHARDS STEPS */
#include "base/clock.h"
#include "device/device.h"
#include "model/model.h"

#include <dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 8
#define MATMUL     768

enum op {
    LOAD,
    FORWARD,
    BACKWARD = FORWARD + LAYERS_MAX,
    LOSS = BACKWARD + LAYERS_MAX,
    NORMALIZE,
    ADD,
    UPDATE,
    HASHES,
    OPS
};

static const struct device_ops *real;
static struct device_layer *layers[LAYERS_MAX];
static struct device_layer_spec specs[LAYERS_MAX];
static uint32_t layer_count;
static uint64_t spent_us[OPS];

static uint32_t index_of(const struct device_layer *layer)
{
    uint32_t i = 0;

    while (i < layer_count && layers[i] != layer)
        i++;
    return i;
}

static enum device_status timed_layer_new(struct device_stream *stream,
                                          const struct device_layer_spec *spec,
                                          struct device_layer *below, struct device_layer **layer,
                                          struct device_error *error)
{
    enum device_status status = real->layer_new(stream, spec, below, layer, error);

    if (status == DEVICE_OK && layer_count < LAYERS_MAX) {
        layers[layer_count] = *layer;
        specs[layer_count++] = *spec;
    }
    return status;
}

static void timed_load(struct device_layer *layer, const float *params)
{
    uint64_t begin = clock_monotonic_us();

    real->layer_load(layer, params);
    spent_us[LOAD] += clock_monotonic_us() - begin;
}

static void timed_forward(struct device_layer *layer, const float *input)
{
    uint64_t begin = clock_monotonic_us();

    real->layer_forward(layer, input);
    spent_us[FORWARD + index_of(layer)] += clock_monotonic_us() - begin;
}

static void timed_backward(struct device_layer *layer, const float *doutput, float *dparams,
                           bool want_input)
{
    uint64_t begin = clock_monotonic_us();

    real->layer_backward(layer, doutput, dparams, want_input);
    spent_us[BACKWARD + index_of(layer)] += clock_monotonic_us() - begin;
}

static void timed_loss(struct device_stream *stream, const float *logits, const uint8_t *labels,
                       uint32_t batch, uint32_t classes, uint32_t real_samples, float *dlogits,
                       float metrics[3])
{
    uint64_t begin = clock_monotonic_us();

    real->loss(stream, logits, labels, batch, classes, real_samples, dlogits, metrics);
    spent_us[LOSS] += clock_monotonic_us() - begin;
}

static void timed_normalize(struct device_stream *stream, const uint8_t *bytes, uint64_t n,
                            float *out)
{
    uint64_t begin = clock_monotonic_us();

    real->normalize(stream, bytes, n, out);
    spent_us[NORMALIZE] += clock_monotonic_us() - begin;
}

static void timed_add(struct device_stream *stream, float *dst, const float *a, const float *b,
                      uint64_t n)
{
    uint64_t begin = clock_monotonic_us();

    real->add(stream, dst, a, b, n);
    spent_us[ADD] += clock_monotonic_us() - begin;
}

static void timed_update(struct device_stream *stream, const struct device_update *update)
{
    uint64_t begin = clock_monotonic_us();

    real->update(stream, update);
    spent_us[UPDATE] += clock_monotonic_us() - begin;
}

static void timed_hashes(struct device_stream *stream, const void *bytes, uint64_t n,
                         uint64_t *hashes)
{
    uint64_t begin = clock_monotonic_us();

    real->hashes(stream, bytes, n, hashes);
    spent_us[HASHES] += clock_monotonic_us() - begin;
}

/* ---- one step ------------------------------------------------------------------------------- */

struct bench {
    struct device_ops ops;        /* real, measured */
    struct device *device;
    struct device_stream *stream;
    struct model_context *model;
    const struct model_spec *spec;
    uint32_t batch, shards;
    float *params, *first, *second; /* [param_count] */
    float *sums;                  /* [shards][gradient_count] */
    float real_samples;           /* of a batch */
    uint8_t *images, *labels;     /* of one batch */
    uint64_t *hashes;
};

static void die(const char *what)
{
    (void)fprintf(stderr, "bench_steptime: %s\n", what);
    exit(69);
}

static void *get(size_t bytes)
{
    void *memory =
        aligned_alloc(DEVICE_ALIGN, (bytes + DEVICE_ALIGN - 1) / DEVICE_ALIGN * DEVICE_ALIGN);

    if (memory == NULL)
        die("out of memory");
    memset(memory, 0, bytes);
    return memory;
}

/* Like sums.c in a worker that owns all shards: the canonical tree, in place. */
static void add_up(struct bench *b)
{
    uint64_t n = b->spec->gradient_count;

    for (uint32_t stride = 1; stride < b->shards; stride *= 2)
        for (uint32_t i = 0; i + stride < b->shards; i += 2 * stride)
            b->ops.add(b->stream, b->sums + i * n, b->sums + i * n, b->sums + (i + stride) * n, n);
}

static void step(struct bench *b, uint64_t number)
{
    uint32_t each = b->batch / b->shards;
    struct device_update update = {.kind = DEVICE_ADAM,
                                   .params = b->params,
                                   .gradient = b->sums,
                                   .first = b->first,
                                   .second = b->second,
                                   .n = b->spec->param_count,
                                   .divisor = &b->real_samples,
                                   .clip = 1,
                                   .rate = 0.001,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .epsilon = 1e-8,
                                   .step = number + 1};

    model_load(b->model, b->params, number + 1);
    for (uint32_t s = 0; s < b->shards; s++)
        model_shard(b->model, b->images + (size_t)s * each * MODEL_IMAGE_BYTES,
                    b->labels + s * each, each, b->sums + s * b->spec->gradient_count, NULL, NULL);
    add_up(b);
    b->ops.update(b->stream, &update);
    b->ops.hashes(b->stream, b->params, b->spec->param_count * sizeof(float), b->hashes);
}

static void open_all(struct bench *b)
{
    struct device_options options = {.isa = "native"};
    struct device_error error;
    uint64_t n;

    real = device_cpu_ops();
    b->ops = *real;
    b->ops.layer_new = timed_layer_new;
    b->ops.layer_load = timed_load;
    b->ops.layer_forward = timed_forward;
    b->ops.layer_backward = timed_backward;
    b->ops.loss = timed_loss;
    b->ops.normalize = timed_normalize;
    b->ops.add = timed_add;
    b->ops.update = timed_update;
    b->ops.hashes = timed_hashes;
    b->spec = model_convnet();
    b->real_samples = (float)b->batch;
    n = b->spec->param_count;
    if (real->open(&options, &b->device, &error) != DEVICE_OK ||
        real->stream_open(b->device, &b->stream, &error) != DEVICE_OK ||
        model_open(&b->ops, b->device, b->stream, b->spec, b->batch / b->shards, &b->model,
                   &error) != DEVICE_OK)
        die(error.text);
    b->params = get(n * sizeof(float));
    b->first = get(n * sizeof(float));
    b->second = get(n * sizeof(float));
    b->sums = get(b->shards * b->spec->gradient_count * sizeof(float));
    b->hashes = get((n * sizeof(float) / DEVICE_HASH_BYTES + 1) * sizeof(uint64_t));
    b->images = get((size_t)b->batch * MODEL_IMAGE_BYTES);
    b->labels = get(b->batch);
    model_init(b->spec, 0, b->params);
    for (size_t i = 0; i < (size_t)b->batch * MODEL_IMAGE_BYTES; i++)
        b->images[i] = (uint8_t)(i * 2654435761u >> 24);
    for (uint32_t i = 0; i < b->batch; i++)
        b->labels[i] = (uint8_t)(i % MODEL_CLASSES);
}

static void close_all(struct bench *b)
{
    model_close(b->model);
    real->stream_close(b->stream);
    real->close(b->device);
    free(b->params);
    free(b->first);
    free(b->second);
    free(b->sums);
    free(b->hashes);
    free(b->images);
    free(b->labels);
}

/* ---- the report ----------------------------------------------------------------------------- */

/* Multiplications and additions of a layer's forward over one batch. */
static double flops(const struct device_layer_spec *spec, uint32_t batch)
{
    if (spec->kind == DEVICE_CONV_RELU_POOL)
        return 2.0 * batch * spec->channels_out * (spec->height - 2) * (spec->width - 2) *
               spec->channels_in * 9;
    return 2.0 * batch * spec->inputs * spec->outputs;
}

static void row(const char *name, uint64_t us, uint32_t steps, uint64_t total_us, double work,
                double peak)
{
    double each_us = (double)us / steps;

    (void)printf("%-34s %9.0f us %5.1f %%", name, each_us, 100.0 * (double)us / (double)total_us);
    if (work > 0 && us > 0)
        (void)printf("  %6.1f GFLOP/s, %3.0f %% of matmul", work / each_us / 1e3,
                     100 * work / each_us / 1e3 / peak);
    (void)printf("\n");
}

/* GFLOP/s of a square matmul, the best of some. */
static double matmul_speed(void)
{
    const dnnl_dim_t n = MATMUL;
    float *a = get((size_t)(n * n) * sizeof *a), *b = get((size_t)(n * n) * sizeof *b);
    float *c = get((size_t)(n * n) * sizeof *c);
    double best = 0;

    for (int i = 0; i < 12; i++) {
        uint64_t begin = clock_monotonic_us();
        double speed;

        (void)dnnl_sgemm('N', 'N', n, n, n, 1, a, n, b, n, 0, c, n);
        speed = 2.0 * (double)(n * n * n) / (double)(clock_monotonic_us() - begin + 1) / 1e3;
        best = speed > best ? speed : best;
    }
    free(a);
    free(b);
    free(c);
    return best;
}

static void report(const struct bench *b, uint32_t steps, uint64_t total_us, double peak)
{
    uint64_t rest = total_us;
    char name[64];

    (void)printf("one thread: %.0f samples/s, %.2f ms a step; matmul %d: %.1f GFLOP/s\n",
                 (double)steps * b->batch * 1e6 / (double)total_us, (double)total_us / steps / 1e3,
                 MATMUL, peak);
    for (uint32_t i = 0; i < layer_count; i++) {
        const char *kind = specs[i].kind == DEVICE_CONV_RELU_POOL ? "conv+relu+pool" : "linear";

        (void)snprintf(name, sizeof name, "%s %u forward", kind, i);
        row(name, spent_us[FORWARD + i], steps, total_us, flops(&specs[i], b->batch), peak);
        (void)snprintf(name, sizeof name, "%s %u backward", kind, i);
        row(name, spent_us[BACKWARD + i], steps, total_us,
            (i == 0 ? 1 : 2) * flops(&specs[i], b->batch), peak);
    }
    row("softmax cross-entropy", spent_us[LOSS], steps, total_us, 0, peak);
    row("normalize", spent_us[NORMALIZE], steps, total_us, 0, peak);
    row("weights to blocked layout", spent_us[LOAD], steps, total_us, 0, peak);
    row("sums of shards", spent_us[ADD], steps, total_us, 0, peak);
    row("Adam", spent_us[UPDATE], steps, total_us, 0, peak);
    row("hashes", spent_us[HASHES], steps, total_us, 0, peak);
    for (int i = 0; i < OPS; i++)
        rest -= spent_us[i] < rest ? spent_us[i] : rest;
    row("the rest", rest, steps, total_us, 0, peak);
}

int main(int argc, char **argv)
{
    struct bench bench = {.batch = 256, .shards = 8};
    uint32_t steps = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 40;
    uint64_t begin_us;

    (void)setenv("OMP_NUM_THREADS", "1", 1);
    if (argc > 2) {
        bench.batch = (uint32_t)strtoul(argv[1], NULL, 10);
        bench.shards = (uint32_t)strtoul(argv[2], NULL, 10);
    }
    if (steps == 0 || bench.shards == 0 || bench.batch == 0 || bench.batch % bench.shards != 0) {
        (void)fprintf(stderr,
                      "usage: bench_steptime [BATCH SHARDS STEPS]; shards divide the batch\n");
        return 64;
    }
    open_all(&bench);
    for (uint32_t i = 0; i < 3; i++)
        step(&bench, i);
    memset(spent_us, 0, sizeof spent_us);
    begin_us = clock_monotonic_us();
    for (uint32_t i = 0; i < steps; i++)
        step(&bench, 3 + i);
    begin_us = clock_monotonic_us() - begin_us;
    report(&bench, steps, begin_us, matmul_speed());
    close_all(&bench);
    return 0;
}
