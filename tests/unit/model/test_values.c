/* The ConvNet's tensors are PyTorch's by name and shape; initial values are a function of seed,
 * tensor and element alone. */
#include "ckpt/safetensors.h"
#include "model/model.h"
#include "model/philox.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define THREADS 3
#define SEED    0x123456789abcdefu

static float *new_params(void)
{
    float *params = calloc(model_convnet()->param_count, sizeof *params);

    assert_non_null(params);
    return params;
}

static void tensors_fill_the_vector(void **state)
{
    const struct model_spec *spec = model_convnet();
    uint64_t at = 0;

    (void)state;
    for (uint32_t t = 0; t < spec->tensor_count; t++) {
        const struct model_tensor *tensor = &spec->tensors[t];
        uint64_t count = 1;

        for (uint32_t d = 0; d < tensor->dims; d++)
            count *= tensor->shape[d];
        assert_int_equal(tensor->count, count);
        assert_int_equal(tensor->offset, at);
        at += count;
    }
    assert_int_equal(spec->param_count, at);
    assert_int_equal(spec->gradient_count, at + MODEL_METRICS);
}

/* In the order in which backward ends them: from the end of the vector to its begin, without a
 * hole. */
static void buckets_fill_the_gradient(void **state)
{
    const struct model_spec *spec = model_convnet();
    uint64_t at = spec->gradient_count;

    (void)state;
    assert_in_range(spec->bucket_count, 1, MODEL_BUCKETS_MAX);
    for (uint32_t b = 0; b < spec->bucket_count; b++) {
        assert_true(spec->buckets[b].count > 0);
        at -= spec->buckets[b].count;
        assert_int_equal(spec->buckets[b].offset, at);
    }
    assert_int_equal(at, 0);
}

static void names_and_shapes_are_pytorchs(void **state)
{
    const struct model_spec *spec = model_convnet();
    struct safetensors file;
    struct ckpt_error error;

    (void)state;
    if (safetensors_open(TORCH_INIT, &file, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    assert_int_equal(file.count, spec->tensor_count);
    for (uint32_t t = 0; t < spec->tensor_count; t++) {
        const struct safetensors_tensor *theirs = safetensors_find(&file, spec->tensors[t].name);

        if (theirs == NULL)
            fail_msg("PyTorch's module has no %s", spec->tensors[t].name);
        assert_int_equal(theirs->type, SAFETENSORS_F32);
        assert_int_equal(theirs->dims, spec->tensors[t].dims);
        for (uint32_t d = 0; d < theirs->dims; d++)
            assert_int_equal(theirs->shape[d], spec->tensors[t].shape[d]);
    }
    safetensors_close(&file);
}

/* Known answers of Random123's own test (kat_vectors). */
static void philox_is_philox(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t out[4];

        philox4x32(rows[i].counter, rows[i].key, out);
        for (int k = 0; k < 4; k++)
            if (out[k] != rows[i].out[k])
                fail_msg("row %zu, word %d: %08x, expected %08x", i, k, out[k], rows[i].out[k]);
    }
}

/* Uniform in [-b, b), b = 1 / sqrt(fan in): PyTorch's default for both layers. The seed is fixed,
 * so that the limits (4 sigma) hold always or never. */
static void values_are_uniform_within_the_bound(void **state)
{
    static const double fan_in[] = {9, 9, 288, 288, 1600, 1600, 256, 256};
    const struct model_spec *spec = model_convnet();
    float *params = new_params();

    (void)state;
    model_init(spec, SEED, params);
    for (uint32_t t = 0; t < spec->tensor_count; t++) {
        const struct model_tensor *tensor = &spec->tensors[t];
        double bound = 1 / sqrt(fan_in[t]), n = (double)tensor->count, sum = 0, squares = 0;

        for (uint64_t i = 0; i < tensor->count; i++) {
            double x = (double)params[tensor->offset + i] / bound;

            if (x < -1.000001 || x > 1.000001)
                fail_msg("%s[%llu] is %g of its bound", tensor->name, (unsigned long long)i, x);
            sum += x;
            squares += x * x;
        }
        if (fabs(sum / n) > 4 * sqrt(1 / (3 * n)) ||
            fabs(squares / n - 1.0 / 3) > 4 * sqrt(4 / (45 * n)))
            fail_msg("%s: mean %g, variance %g, expected 0 and 1/3", tensor->name, sum / n,
                     squares / n);
    }
    free(params);
}

static void seeds_and_tensors_have_values_of_their_own(void **state)
{
    static const uint64_t seeds[] = {0, 1, (uint64_t)1 << 32, UINT64_MAX};
    const struct model_spec *spec = model_convnet();
    float *a = new_params(), *b = new_params();

    (void)state;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++) {
            uint64_t same = 0;

            model_init(spec, seeds[i], a);
            model_init(spec, seeds[j], b);
            for (uint64_t k = 0; k < spec->param_count; k++)
                same += a[k] == b[k];
            if (same > 10)
                fail_msg("seeds %llu and %llu share %llu values", (unsigned long long)seeds[i],
                         (unsigned long long)seeds[j], (unsigned long long)same);
        }
    /* weight and bias of the last layer share a bound, but no stream */
    assert_memory_not_equal(a + spec->tensors[6].offset, a + spec->tensors[7].offset,
                            10 * sizeof *a);
    free(a);
    free(b);
}

static void *init_whole(void *params)
{
    model_init(model_convnet(), SEED, params);
    return NULL;
}

/* On several threads at once, and for the first tensors alone: nothing but seed and place counts.
 */
static void values_do_not_depend_on_who_makes_them(void **state)
{
    struct model_spec head = *model_convnet();
    float *whole = new_params(), *part = new_params(), *others[THREADS];
    pthread_t threads[THREADS];
    uint64_t end;

    (void)state;
    model_init(model_convnet(), SEED, whole);
    for (int i = 0; i < THREADS; i++) {
        others[i] = new_params();
        assert_int_equal(pthread_create(&threads[i], NULL, init_whole, others[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_memory_equal(others[i], whole, head.param_count * sizeof *whole);
        free(others[i]);
    }
    head.tensor_count = 4;
    end = head.tensors[4].offset;
    model_init(&head, SEED, part);
    assert_memory_equal(part, whole, end * sizeof *whole);
    for (uint64_t i = end; i < head.param_count; i++)
        assert_true(part[i] == 0);
    free(whole);
    free(part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_fill_the_vector),
        cmocka_unit_test(buckets_fill_the_gradient),
        cmocka_unit_test(names_and_shapes_are_pytorchs),
        cmocka_unit_test(philox_is_philox),
        cmocka_unit_test(values_are_uniform_within_the_bound),
        cmocka_unit_test(seeds_and_tensors_have_values_of_their_own),
        cmocka_unit_test(values_do_not_depend_on_who_makes_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
