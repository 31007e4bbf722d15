/* Updates, clipping and schedules beside PyTorch's, as stored by tests/data/make_optim.py; and that
 * an update made range by range, in any order, gives the same bits. */
#include "ckpt/safetensors.h"
#include "optim/optim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define STEPS   12
#define COUNT   37
#define DIVISOR 8.0f
#define LIMIT   1e-6 /* relative L2 distance of the parameters after all steps */
#define RATE    0.5
#define WARMUP  5
#define TOTAL   23
#define RANGE   10007 /* elements of the updates that are cut */

struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
};

static struct rig rig_open(const struct device_ops *ops)
{
    struct device_options options = {"native"};
    struct device_error error;
    struct rig rig = {ops, NULL, NULL};

    assert_int_equal(ops->open(&options, &rig.device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig.device, &rig.stream, &error), DEVICE_OK);
    return rig;
}

static void rig_close(struct rig *rig)
{
    rig->ops->stream_close(rig->stream);
    rig->ops->close(rig->device);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static float next_value(uint64_t *seed)
{
    return (float)((int64_t)(next_random(seed) % 2001) - 1000) / 700.0f;
}

/* ---- PyTorch's values ----------------------------------------------------------------------- */

/* CASE.PART of the stored file. */
static void stored(const char *name, const char *part, enum safetensors_type type, void *to,
                   size_t bytes)
{
    struct safetensors file;
    struct ckpt_error error;
    char tensor[64];

    (void)snprintf(tensor, sizeof tensor, "%s.%s", name, part);
    if (safetensors_open(TORCH_VALUES, &file, &error) != CKPT_OK ||
        safetensors_read(&file, tensor, type, to, bytes, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    safetensors_close(&file);
}

static void stored_options(const char *name, enum device_update_kind kind,
                           struct optim_options *options)
{
    double values[8];

    stored(name, "options", SAFETENSORS_F64, values, sizeof values);
    memset(options, 0, sizeof *options);
    options->kind = kind;
    options->rate = values[0];
    options->beta1 = values[1];
    options->beta2 = values[2];
    options->epsilon = values[3];
    options->decay = values[4];
    options->momentum = values[5];
    options->nesterov = values[6] != 0;
    options->clip_norm = values[7];
}

/* One step of COUNT elements; gradient is that of the mean, so it goes in as the sum over DIVISOR
 * samples. */
static void step_once(struct rig *rig, const struct optim_options *options, uint64_t step,
                      const float *gradient, float *params, float *first, float *second)
{
    const float divisor = DIVISOR;
    float sums[COUNT], clip;
    struct device_update update;
    double squares;

    for (int i = 0; i < COUNT; i++)
        sums[i] = gradient[i] * DIVISOR;
    rig->ops->square_sums(rig->stream, sums, COUNT, &squares);
    clip = optim_clip(options, optim_norm(&squares, 1, (double)DIVISOR));
    optim_update(options, step, clip, &update);
    update.divisor = &divisor;
    update.params = params;
    update.gradient = sums;
    update.first = first;
    update.second = second;
    update.n = COUNT;
    rig->ops->update(rig->stream, &update);
}

static void compare(const char *device, const char *name, int step, const float *ours,
                    const float *theirs)
{
    double difference = 0, size = 0;

    for (int i = 0; i < COUNT; i++) {
        difference += pow((double)ours[i] - (double)theirs[i], 2);
        size += pow((double)theirs[i], 2);
        if (fabs((double)ours[i] - (double)theirs[i]) > 1e-5 * (1 + fabs((double)theirs[i])))
            fail_msg("%s, %s, step %d: parameter %d is %.9g, PyTorch's %.9g", device, name, step, i,
                     (double)ours[i], (double)theirs[i]);
    }
    if (sqrt(difference / size) > LIMIT)
        fail_msg("%s, %s, step %d: relative L2 distance %g > %g", device, name, step,
                 sqrt(difference / size), LIMIT);
}

static void run_case(const struct device_ops *ops, const char *name, enum device_update_kind kind)
{
    float gradients[STEPS][COUNT], params[STEPS + 1][COUNT], ours[COUNT];
    float first[COUNT] = {0}, second[COUNT] = {0};
    struct rig rig = rig_open(ops);
    struct optim_options options;

    stored_options(name, kind, &options);
    stored(name, "gradients", SAFETENSORS_F32, gradients, sizeof gradients);
    stored(name, "params", SAFETENSORS_F32, params, sizeof params);
    memcpy(ours, params[0], sizeof ours);
    for (int step = 0; step < STEPS; step++) {
        step_once(&rig, &options, (uint64_t)step, gradients[step], ours, first, second);
        compare(ops->name, name, step, ours, params[step + 1]);
    }
    rig_close(&rig);
}

static void updates_are_as_pytorchs(void **state)
{
    static const struct {
        const char *name;
        enum device_update_kind kind;
    } cases[] = {
        {"adam", DEVICE_ADAM},        {"adam.odd", DEVICE_ADAM},    {"adam.clip", DEVICE_ADAM},
        {"adamw", DEVICE_ADAMW},      {"adamw.odd", DEVICE_ADAMW},  {"sgd", DEVICE_SGD},
        {"sgd.momentum", DEVICE_SGD}, {"sgd.nesterov", DEVICE_SGD}, {"sgd.clip", DEVICE_SGD}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        run_case(device_reference_ops(), cases[i].name, cases[i].kind);
        run_case(device_cpu_ops(), cases[i].name, cases[i].kind);
    }
}

/* ---- ranges --------------------------------------------------------------------------------- */

struct values {
    float params[RANGE], first[RANGE], second[RANGE];
};

static void update_range(struct rig *rig, const struct optim_options *options, uint64_t step,
                         const float *gradient, struct values *values, uint64_t at, uint64_t count)
{
    const float divisor = 3.0f;
    struct device_update update;

    optim_update(options, step, 0.7f, &update);
    update.divisor = &divisor;
    update.params = values->params + at;
    update.first = values->first + at;
    update.second = values->second + at;
    update.gradient = gradient + at;
    update.n = count;
    rig->ops->update(rig->stream, &update);
}

/* Cuts [0, RANGE) at random places and makes the pieces in a scattered order. */
static void update_pieces(struct rig *rig, const struct optim_options *options, uint64_t step,
                          const float *gradient, struct values *values, uint64_t *seed)
{
    uint64_t cuts[64] = {0}, done = 0, count = 1 + next_random(seed) % 40;

    for (uint64_t i = 1; i < count; i++) {
        uint64_t at = next_random(seed) % RANGE, k = i;

        for (; k > 0 && cuts[k - 1] > at; k--)
            cuts[k] = cuts[k - 1];
        cuts[k] = at;
    }
    cuts[count] = RANGE;
    for (uint64_t i = 0, k = next_random(seed) % count; i < count; i++, k = (k + 1) % count) {
        update_range(rig, options, step, gradient, values, cuts[k], cuts[k + 1] - cuts[k]);
        done += cuts[k + 1] - cuts[k];
    }
    assert_int_equal(done, RANGE);
}

static void cut_anywhere(const struct device_ops *ops, enum device_update_kind kind)
{
    const struct optim_options options = {.kind = kind,
                                          .rate = 1e-2,
                                          .beta1 = 0.9,
                                          .beta2 = 0.99,
                                          .epsilon = 1e-3,
                                          .decay = 0.1,
                                          .momentum = 0.9};
    struct values *whole = calloc(1, sizeof *whole), *cut = calloc(1, sizeof *cut);
    float *gradient = calloc(RANGE, sizeof *gradient);
    struct rig rig = rig_open(ops);
    uint64_t seed = 11;

    assert_non_null(whole);
    assert_non_null(cut);
    assert_non_null(gradient);
    for (int i = 0; i < RANGE; i++)
        whole->params[i] = cut->params[i] = next_value(&seed);
    for (uint64_t step = 0; step < 10; step++) {
        for (int i = 0; i < RANGE; i++)
            gradient[i] = next_value(&seed);
        update_range(&rig, &options, step, gradient, whole, 0, RANGE);
        update_pieces(&rig, &options, step, gradient, cut, &seed);
        for (int i = 0; i < RANGE; i++)
            if (memcmp(&whole->params[i], &cut->params[i], sizeof(float)) != 0)
                fail_msg("%s, rule %d, seed 11, step %llu: element %d is %.9g whole and %.9g cut",
                         ops->name, kind, (unsigned long long)step, i, (double)whole->params[i],
                         (double)cut->params[i]);
        assert_memory_equal(whole, cut, sizeof *whole);
    }
    rig_close(&rig);
    free(whole);
    free(cut);
    free(gradient);
}

static void pieces_give_the_bits_of_the_whole(void **state)
{
    static const enum device_update_kind kinds[] = {DEVICE_ADAM, DEVICE_ADAMW, DEVICE_SGD};

    (void)state;
    for (int k = 0; k < 3; k++) {
        cut_anywhere(device_cpu_ops(), kinds[k]);
        cut_anywhere(device_reference_ops(), kinds[k]);
    }
}

/* ---- clipping ------------------------------------------------------------------------------- */

static void clipping_is_a_factor_of_at_most_one(void **state)
{
    struct optim_options options = {.clip_norm = 2.0};

    (void)state;
    assert_true(optim_clip(&options, 0) == 1.0f);
    assert_true(optim_clip(&options, 1.0) == 1.0f);
    assert_true(optim_clip(&options, 2.0) == (float)(2.0 / 2.000001));
    assert_true(optim_clip(&options, 4.0) == (float)(2.0 / 4.000001));
    assert_true(optim_clip(&options, (double)INFINITY) == 0.0f);
    assert_true(optim_clip(&options, (double)NAN) == 1.0f); /* what is not a number stays one */
    options.clip_norm = 0;
    assert_true(optim_clip(&options, 1e30) == 1.0f);
}

/* Block by block, from any thread: the norm is a function of the blocks alone. */
static void the_norm_is_of_fixed_blocks(void **state)
{
    static const uint64_t counts[] = {
        1, 7, DEVICE_BLOCK - 1, DEVICE_BLOCK, DEVICE_BLOCK + 1, 2 * DEVICE_BLOCK + 4321};
    struct rig rig = rig_open(device_cpu_ops());
    float *x = calloc(3 * DEVICE_BLOCK, sizeof *x);
    uint64_t seed = 3;

    (void)state;
    assert_non_null(x);
    for (uint64_t i = 0; i < 3 * DEVICE_BLOCK; i++)
        x[i] = next_value(&seed);
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        double whole[3] = {0}, parts[3] = {0}, sum = 0, norm;
        uint64_t n = counts[c], blocks = (n + DEVICE_BLOCK - 1) / DEVICE_BLOCK;

        rig.ops->square_sums(rig.stream, x, n, whole);
        for (uint64_t b = blocks; b-- > 0;)
            rig.ops->square_sums(rig.stream, x + b * DEVICE_BLOCK,
                                 b + 1 < blocks ? DEVICE_BLOCK : n - b * DEVICE_BLOCK, &parts[b]);
        assert_memory_equal(whole, parts, sizeof whole);
        for (uint64_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)x[i];
        norm = optim_norm(whole, blocks, 4.0);
        if (fabs(norm - sqrt(sum) / 4) > 1e-12 * norm)
            fail_msg("%llu elements: norm %.17g, expected %.17g", (unsigned long long)n, norm,
                     sqrt(sum) / 4);
    }
    free(x);
    rig_close(&rig);
}

/* ---- schedules ------------------------------------------------------------------------------ */

static struct optim_options schedule_of(enum optim_schedule schedule, uint64_t warmup,
                                        uint64_t total)
{
    struct optim_options options = {
        .rate = RATE, .schedule = schedule, .warmup_steps = warmup, .total_steps = total};

    return options;
}

static void schedules_are_as_pytorchs(void **state)
{
    static const struct {
        const char *name;
        enum optim_schedule schedule;
    } rows[] = {{"constant", OPTIM_CONSTANT}, {"linear", OPTIM_LINEAR}, {"cosine", OPTIM_COSINE}};
    double rates[TOTAL];

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct optim_options options = schedule_of(rows[k].schedule, WARMUP, TOTAL);

        stored(rows[k].name, "rates", SAFETENSORS_F64, rates, sizeof rates);
        for (uint64_t step = 0; step < TOTAL; step++)
            if (fabs(optim_rate(&options, step) - rates[step]) > 1e-12)
                fail_msg("%s, step %llu: rate %.17g, PyTorch's %.17g", rows[k].name,
                         (unsigned long long)step, optim_rate(&options, step), rates[step]);
    }
}

static void expect_rate(enum optim_schedule schedule, uint64_t warmup, uint64_t total,
                        uint64_t step, double rate)
{
    struct optim_options options = schedule_of(schedule, warmup, total);
    double got = optim_rate(&options, step);

    if (got != rate)
        fail_msg("schedule %d, warm-up %llu of %llu, step %llu: rate %.17g, expected %.17g",
                 schedule, (unsigned long long)warmup, (unsigned long long)total,
                 (unsigned long long)step, got, rate);
}

static void schedules_hold_at_their_edges(void **state)
{
    static const enum optim_schedule all[] = {OPTIM_CONSTANT, OPTIM_LINEAR, OPTIM_COSINE};

    (void)state;
    for (int k = 0; k < 3; k++) {
        double end = all[k] == OPTIM_CONSTANT ? RATE : 0;

        expect_rate(all[k], 0, 10, 0, RATE);
        expect_rate(all[k], 1, 10, 0, RATE);
        expect_rate(all[k], 4, 10, 0, RATE / 4);
        expect_rate(all[k], 4, 10, 3, RATE);
        expect_rate(all[k], 4, 10, 4, RATE);
        expect_rate(all[k], 4, 10, 10, end);
        expect_rate(all[k], 4, 10, UINT64_MAX, end);
        expect_rate(all[k], 10, 10, 9, RATE);
        expect_rate(all[k], 10, 10, 10, RATE); /* warm-up to the end: nothing is left to fall */
        expect_rate(all[k], 20, 10, 9, RATE / 2);
        expect_rate(all[k], 20, 10, 30, RATE);
        expect_rate(all[k], 0, 0, 0, RATE);
        expect_rate(all[k], 0, 1, 0, RATE);
    }
    expect_rate(OPTIM_LINEAR, 0, 10, 5, RATE / 2);
}

static void rates_never_rise_after_the_warm_up(void **state)
{
    (void)state;
    for (int schedule = OPTIM_LINEAR; schedule <= OPTIM_COSINE; schedule++) {
        struct optim_options options = schedule_of((enum optim_schedule)schedule, 7, 1000);

        for (uint64_t step = 0; step < 1001; step++) {
            double a = optim_rate(&options, step), b = optim_rate(&options, step + 1);

            if (step < 6 ? b <= a : b > a || a < 0)
                fail_msg("schedule %d: rate %.17g at step %llu, %.17g after it", schedule, a,
                         (unsigned long long)step, b);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_are_as_pytorchs),
        cmocka_unit_test(pieces_give_the_bits_of_the_whole),
        cmocka_unit_test(clipping_is_a_factor_of_at_most_one),
        cmocka_unit_test(the_norm_is_of_fixed_blocks),
        cmocka_unit_test(schedules_are_as_pytorchs),
        cmocka_unit_test(schedules_hold_at_their_edges),
        cmocka_unit_test(rates_never_rise_after_the_warm_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
