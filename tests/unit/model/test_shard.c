/* The gradient of one shard: right, written and not added, a function of its samples alone, bucket
 * by bucket. */
#include "model/model.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SAMPLES 96
#define SEED    77
#define GUARD   16 /* floats behind a gradient */

/* One context on one device, with samples of its own size in memory so that one byte too much is
 * seen. */
struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
    struct model_context *context;
    float *params;   /* [param_count] */
    float *gradient; /* [gradient_count + GUARD] */
};

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void fill_samples(uint8_t images[SAMPLES * MODEL_IMAGE_BYTES], uint8_t labels[SAMPLES])
{
    uint64_t seed = SEED;

    for (size_t i = 0; i < SAMPLES * MODEL_IMAGE_BYTES; i++)
        images[i] = (uint8_t)(next_random(&seed) % 3 == 0 ? next_random(&seed) : 0);
    for (size_t i = 0; i < SAMPLES; i++)
        labels[i] = (uint8_t)(next_random(&seed) % MODEL_CLASSES);
}

static struct rig rig_open(const struct device_ops *ops, uint32_t shard_samples)
{
    const struct model_spec *spec = model_convnet();
    struct device_options options = {"native"};
    struct device_error error = {DEVICE_OK, ""};
    struct rig rig = {.ops = ops};

    assert_int_equal(ops->open(&options, &rig.device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig.device, &rig.stream, &error), DEVICE_OK);
    if (model_open(ops, rig.device, rig.stream, spec, shard_samples, &rig.context, &error) !=
        DEVICE_OK)
        fail_msg("%s: %s", ops->name, error.text);
    rig.params = calloc(spec->param_count, sizeof *rig.params);
    rig.gradient = calloc(spec->gradient_count + GUARD, sizeof *rig.gradient);
    assert_non_null(rig.params);
    assert_non_null(rig.gradient);
    model_init(spec, SEED, rig.params);
    model_load(rig.context, rig.params, 0);
    return rig;
}

static void rig_close(struct rig *rig)
{
    model_close(rig->context);
    rig->ops->stream_close(rig->stream);
    rig->ops->close(rig->device);
    free(rig->params);
    free(rig->gradient);
}

/* Samples [first, first + real) from memory of exactly their size; gradient is full of NaN before.
 */
static void work(struct rig *rig, uint32_t first, uint32_t real, model_ready_cb ready_cb,
                 void *owner)
{
    const struct model_spec *spec = model_convnet();
    uint8_t *all = malloc(SAMPLES * MODEL_IMAGE_BYTES), all_labels[SAMPLES];
    uint8_t *images = malloc((size_t)real * MODEL_IMAGE_BYTES), *labels = malloc(real);

    assert_non_null(all);
    assert_non_null(images);
    assert_non_null(labels);
    fill_samples(all, all_labels);
    memcpy(images, all + (size_t)first * MODEL_IMAGE_BYTES, (size_t)real * MODEL_IMAGE_BYTES);
    memcpy(labels, all_labels + first, real);
    for (uint64_t i = 0; i < spec->gradient_count + GUARD; i++)
        rig->gradient[i] = NAN;
    model_shard(rig->context, images, labels, real, rig->gradient, ready_cb, owner);
    for (uint64_t i = 0; i < spec->gradient_count; i++)
        if (isnan(rig->gradient[i]))
            fail_msg("%s: element %llu was not written", rig->ops->name, (unsigned long long)i);
    for (uint64_t i = 0; i < GUARD; i++)
        assert_true(isnan(rig->gradient[spec->gradient_count + i]));
    assert_true(rig->gradient[spec->param_count + 2] == (float)real);
    assert_true(rig->gradient[spec->param_count + 3] == 0);
    free(all);
    free(images);
    free(labels);
}

static void assert_same_bits(const char *what, const float *a, const float *b)
{
    for (uint64_t i = 0; i < model_convnet()->gradient_count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: element %llu is %.9g and %.9g", what, (unsigned long long)i, (double)a[i],
                     (double)b[i]);
}

static float *copy_of(const float *gradient)
{
    size_t bytes = model_convnet()->gradient_count * sizeof *gradient;
    float *copy = malloc(bytes);

    assert_non_null(copy);
    memcpy(copy, gradient, bytes);
    return copy;
}

/* ---- right ---------------------------------------------------------------------------------- */

static void compare_tensors(const float *ours, const float *reference, uint32_t real)
{
    const struct model_spec *spec = model_convnet();

    for (uint32_t t = 0; t < spec->tensor_count; t++) {
        const struct model_tensor *tensor = &spec->tensors[t];
        double difference = 0, size = 0;

        for (uint64_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
            difference += pow((double)ours[i] - (double)reference[i], 2);
            size += pow((double)reference[i], 2);
        }
        if (size == 0 || sqrt(difference / size) > 1e-5)
            fail_msg("%u samples, %s: relative L2 distance %g", real, tensor->name,
                     sqrt(difference / size));
    }
    for (uint32_t i = 0; i < 2; i++)
        if (fabs((double)ours[spec->param_count + i] - (double)reference[spec->param_count + i]) >
            1e-4)
            fail_msg("%u samples, metric %u: %g, by the reference %g", real, i,
                     (double)ours[spec->param_count + i], (double)reference[spec->param_count + i]);
}

/* Of a batch of 5, and the short one at an epoch's end. */
static void the_gradient_is_the_references(void **state)
{
    struct rig cpu = rig_open(device_cpu_ops(), 5), reference = rig_open(device_reference_ops(), 5);

    (void)state;
    for (uint32_t real = 1; real <= 5; real += 2) {
        work(&cpu, 0, real, NULL, NULL);
        work(&reference, 0, real, NULL, NULL);
        compare_tensors(cpu.gradient, reference.gradient, real);
    }
    rig_close(&cpu);
    rig_close(&reference);
}

/* Loss of params + scale * direction. */
static double loss_along(struct rig *rig, const float *params, const float *direction, double scale,
                         uint64_t version)
{
    uint64_t n = model_convnet()->param_count;

    for (uint64_t i = 0; i < n; i++)
        rig->params[i] = (float)((double)params[i] + scale * (double)direction[i]);
    model_load(rig->context, rig->params, version);
    work(rig, 0, 4, NULL, NULL);
    return (double)rig->gradient[n];
}

/* Down its own gradient the loss falls as fast as the gradient says. */
static void the_gradient_is_the_slope_of_the_loss(void **state)
{
    struct rig rig = rig_open(device_cpu_ops(), 4);
    uint64_t n = model_convnet()->param_count;
    float *params = calloc(n, sizeof *params), *gradient;
    double squares = 0, h, slope;

    (void)state;
    assert_non_null(params);
    memcpy(params, rig.params, n * sizeof *params);
    work(&rig, 0, 4, NULL, NULL);
    gradient = copy_of(rig.gradient);
    for (uint64_t i = 0; i < n; i++)
        squares += pow((double)gradient[i], 2);
    h = 1e-3 / sqrt(squares);
    slope = (loss_along(&rig, params, gradient, h, 1) - loss_along(&rig, params, gradient, -h, 2)) /
            (2 * h);
    if (fabs(slope / squares - 1) > 0.01)
        fail_msg("the loss changes by %g, the gradient says %g", slope, squares);
    free(params);
    free(gradient);
    rig_close(&rig);
}

/* ---- a function of its samples -------------------------------------------------------------- */

static void what_ran_before_does_not_count(void **state)
{
    struct rig rig = rig_open(device_cpu_ops(), 8);
    float *other = calloc(model_convnet()->param_count, sizeof *other), *first, *shorter;

    (void)state;
    assert_non_null(other);
    model_init(model_convnet(), SEED + 1, other);
    work(&rig, 0, 8, NULL, NULL);
    first = copy_of(rig.gradient);
    work(&rig, 8, 3, NULL, NULL);
    shorter = copy_of(rig.gradient);
    model_load(rig.context, other, 1);
    work(&rig, 16, 8, NULL, NULL);
    model_load(rig.context, rig.params, 2);
    work(&rig, 8, 3, NULL, NULL);
    assert_same_bits("a short shard after others", rig.gradient, shorter);
    work(&rig, 0, 8, NULL, NULL);
    assert_same_bits("a shard after others", rig.gradient, first);
    free(other);
    free(first);
    free(shorter);
    rig_close(&rig);
}

static void *work_alone(void *argument)
{
    struct rig rig = rig_open(device_cpu_ops(), 8);

    work(&rig, 0, 8, NULL, NULL);
    memcpy(argument, rig.gradient, model_convnet()->gradient_count * sizeof(float));
    rig_close(&rig);
    return NULL;
}

static void the_thread_does_not_count(void **state)
{
    struct rig rig = rig_open(device_cpu_ops(), 8);
    float *others[2];
    pthread_t threads[2];

    (void)state;
    work(&rig, 0, 8, NULL, NULL);
    for (int i = 0; i < 2; i++) {
        others[i] = copy_of(rig.gradient);
        memset(others[i], 0, sizeof *others[i]);
        assert_int_equal(pthread_create(&threads[i], NULL, work_alone, others[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_same_bits("another thread", others[i], rig.gradient);
        free(others[i]);
    }
    rig_close(&rig);
}

/* ---- micro-batches and buckets -------------------------------------------------------------- */

static void a_microbatch_is_a_function_of_the_shard(void **state)
{
    static const uint32_t sizes[][2] = {{1, 1}, {7, 7}, {64, 64}, {65, 32}, {1024, 32}};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        assert_int_equal(model_microbatch(sizes[i][0]), sizes[i][1]);
}

/* 70 samples of a shard of 96 are those of 32, 32 and 6, added in order. */
static void a_large_shard_is_the_ordered_sum_of_its_microbatches(void **state)
{
    struct rig large = rig_open(device_cpu_ops(), SAMPLES), small = rig_open(device_cpu_ops(), 32);
    float *sum;

    (void)state;
    work(&small, 0, 32, NULL, NULL);
    sum = copy_of(small.gradient);
    for (uint32_t first = 32; first < 70; first += 32) {
        work(&small, first, first + 32 < 70 ? 32 : 70 - first, NULL, NULL);
        for (uint64_t i = 0; i < model_convnet()->gradient_count; i++)
            sum[i] += small.gradient[i];
    }
    work(&large, 0, 70, NULL, NULL);
    assert_same_bits("70 samples", large.gradient, sum);
    free(sum);
    rig_close(&large);
    rig_close(&small);
}

/* What each bucket held when it was said to be ready. */
struct seen {
    const float *gradient; /* being made */
    float *copy;           /* [gradient_count] */
    uint32_t next;         /* the bucket that must come now */
};

static void on_ready(void *owner, uint32_t bucket)
{
    struct seen *seen = owner;
    const struct model_bucket *b = &model_convnet()->buckets[bucket];

    assert_int_equal(bucket, seen->next++);
    memcpy(seen->copy + b->offset, seen->gradient + b->offset, b->count * sizeof(float));
}

static void a_bucket_that_is_ready_is_final(void **state)
{
    static const uint32_t reals[] = {1, 32, 70, SAMPLES};
    struct rig rig = rig_open(device_cpu_ops(), SAMPLES);

    (void)state;
    for (size_t i = 0; i < sizeof reals / sizeof reals[0]; i++) {
        struct seen seen = {rig.gradient, copy_of(rig.gradient), 0};

        work(&rig, 0, reals[i], on_ready, &seen);
        assert_int_equal(seen.next, model_convnet()->bucket_count);
        assert_same_bits("when it was ready, and at the end", seen.copy, rig.gradient);
        free(seen.copy);
    }
    rig_close(&rig);
}

/* ---- evaluation ----------------------------------------------------------------------------- */

static void evaluation_is_the_sum_over_all_samples(void **state)
{
    struct rig rig = rig_open(device_cpu_ops(), 32);
    uint8_t *images = malloc(SAMPLES * MODEL_IMAGE_BYTES), labels[SAMPLES];
    uint64_t n = model_convnet()->param_count;
    double metrics[3], loss = 0, correct = 0;

    (void)state;
    assert_non_null(images);
    fill_samples(images, labels);
    model_evaluate(rig.context, images, labels, 0, metrics);
    assert_true(metrics[0] == 0 && metrics[1] == 0 && metrics[2] == 0);
    for (uint32_t i = 0; i < 70; i++) {
        work(&rig, i, 1, NULL, NULL);
        loss += (double)rig.gradient[n];
        correct += (double)rig.gradient[n + 1];
    }
    model_evaluate(rig.context, images, labels, 70, metrics);
    if (metrics[2] != 70 || metrics[1] != correct || fabs(metrics[0] - loss) > 1e-4 * loss)
        fail_msg("%g samples, %g correct, loss %g; expected 70, %g, %g", metrics[2], metrics[1],
                 metrics[0], correct, loss);
    free(images);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_is_the_references),
        cmocka_unit_test(the_gradient_is_the_slope_of_the_loss),
        cmocka_unit_test(what_ran_before_does_not_count),
        cmocka_unit_test(the_thread_does_not_count),
        cmocka_unit_test(a_microbatch_is_a_function_of_the_shard),
        cmocka_unit_test(a_large_shard_is_the_ordered_sum_of_its_microbatches),
        cmocka_unit_test(a_bucket_that_is_ready_is_final),
        cmocka_unit_test(evaluation_is_the_sum_over_all_samples),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
