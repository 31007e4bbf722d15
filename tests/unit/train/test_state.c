/* The replica's state: updated in any order of blocks it is the same, its hash is of the parameters
 * alone, and what is saved is loaded again, or refused with the tensor's name. */
#include "train/state.h"
#include "unit/train/tree.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#define ROWS   300
#define PARAMS (ROWS * 200 + 77) /* three blocks and a part of a fourth */
#define FOLDER 64

static const struct model_spec spec = {
    .name = "toy",
    .tensors = {{"w.weight", 2, {ROWS, 200}, 0, ROWS * 200}, {"w.bias", 1, {77}, ROWS * 200, 77}},
    .tensor_count = 2,
    .param_count = PARAMS,
    .gradient_count = PARAMS + MODEL_METRICS,
    .buckets = {{0, PARAMS + MODEL_METRICS}},
    .bucket_count = 1,
};

struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
    struct state state;
};

static struct rig *rig_open(double clip_norm)
{
    const struct optim_options optim = {.kind = DEVICE_ADAM,
                                        .rate = 1e-2,
                                        .beta1 = 0.9,
                                        .beta2 = 0.99,
                                        .epsilon = 1e-6,
                                        .clip_norm = clip_norm};
    const struct device_options options = {"native"};
    struct rig *rig = calloc(1, sizeof *rig);
    struct device_error error;
    uint64_t seed = 4;

    assert_non_null(rig);
    rig->ops = device_cpu_ops();
    assert_int_equal(rig->ops->open(&options, &rig->device, &error), DEVICE_OK);
    assert_int_equal(rig->ops->stream_open(rig->device, &rig->stream, &error), DEVICE_OK);
    assert_int_equal(state_init(&rig->state, rig->ops, rig->device, &spec, &optim), 0);
    for (uint64_t i = 0; i < PARAMS; i++)
        state_params(&rig->state)[i] = tree_value(&seed);
    for (uint64_t i = 0; i < PARAMS; i++)
        rig->state.reduced[i] = tree_value(&seed);
    rig->state.reduced[PARAMS + 0] = 12.0f; /* sum of losses, correct, real samples */
    rig->state.reduced[PARAMS + 1] = 3.0f;
    rig->state.reduced[PARAMS + 2] = 8.0f;
    state_hash_all(&rig->state, rig->stream);
    return rig;
}

static void rig_close(struct rig *rig)
{
    state_release(&rig->state);
    state_release(&rig->state);
    rig->ops->stream_close(rig->stream);
    rig->ops->close(rig->device);
    free(rig);
}

/* ---- updates -------------------------------------------------------------------------------- */

static void blocks_and_chunks_are_all_of_it(void **state)
{
    struct rig *rig = rig_open(0);
    uint64_t first, count, at = 0;

    (void)state;
    assert_int_equal(rig->state.block_count, 4);
    assert_int_equal(state_chunk_count(&rig->state), 1);
    for (uint64_t chunk = 0; chunk < state_chunk_count(&rig->state); chunk++) {
        state_chunk(&rig->state, chunk, &first, &count);
        assert_int_equal(first, at);
        at += count;
    }
    assert_int_equal(at, PARAMS);
    rig_close(rig);
}

static void any_order_of_blocks_gives_the_same_state(void **state)
{
    static const uint64_t orders[][4] = {{3, 1, 0, 2}, {2, 3, 1, 0}, {0, 2, 1, 3}};
    struct rig *whole = rig_open(0.5), *parts = rig_open(0.5);

    (void)state;
    for (uint64_t step = 0; step < 3; step++) {
        float clip = state_clip(&whole->state, whole->stream, whole->state.reduced);

        assert_true(clip > 0 && clip < 1);
        state_update(&whole->state, whole->stream, step, whole->state.reduced, clip, 0, 4,
                     whole->state.block_hashes);
        for (int i = 0; i < 4; i++)
            state_update(&parts->state, parts->stream, step, parts->state.reduced, clip,
                         orders[step][i], 1, parts->state.block_hashes);
        assert_memory_equal(whole->state.values, parts->state.values,
                            state_value_bytes(&whole->state));
        assert_memory_equal(whole->state.block_hashes, parts->state.block_hashes,
                            4 * sizeof(uint64_t));
    }
    state_hash_all(&whole->state, whole->stream);
    assert_memory_equal(whole->state.block_hashes, parts->state.block_hashes, 4 * sizeof(uint64_t));
    assert_true(state_hash(&whole->state, whole->stream) ==
                state_hash(&parts->state, parts->stream));
    rig_close(whole);
    rig_close(parts);
}

/* Parameters, first and second moments lie one behind the other. */
static void moments_have_places_of_their_own(void **state)
{
    struct rig *rig = rig_open(0);
    const float *values = rig->state.values;

    (void)state;
    state_update(&rig->state, rig->stream, 0, rig->state.reduced, 1.0f, 0, 4, NULL);
    for (uint64_t i = 0; i < PARAMS; i++) {
        double g = (double)rig->state.reduced[i] / 8, first = 0.1 * g, second = 0.01 * g * g;

        if (fabs((double)values[PARAMS + i] - first) > 1e-6 * fabs(first) ||
            fabs((double)values[2 * PARAMS + i] - second) > 1e-6 * second)
            fail_msg("element %llu: moments %g and %g, expected %g and %g", (unsigned long long)i,
                     (double)values[PARAMS + i], (double)values[2 * PARAMS + i], first, second);
    }
    rig_close(rig);
}

static void metrics_are_means_over_real_samples(void **state)
{
    struct rig *rig = rig_open(0);
    double loss, correct, real;

    (void)state;
    state_metrics(&rig->state, rig->stream, rig->state.reduced, &loss, &correct, &real);
    assert_true(loss == 1.5 && correct == 3 && real == 8);
    assert_true(state_clip(&rig->state, rig->stream, rig->state.reduced) == 1.0f);
    rig_close(rig);
}

static uint64_t hash_of(struct rig *rig)
{
    state_hash_all(&rig->state, rig->stream);
    return state_hash(&rig->state, rig->stream);
}

/* One bit anywhere in the parameters; nothing of the moments. */
static void the_hash_is_of_the_parameters(void **state)
{
    struct rig *rig = rig_open(0);
    uint64_t hash = hash_of(rig), seed = 6;

    (void)state;
    for (int i = 0; i < 100; i++) {
        uint64_t at = i == 0 ? 0 : i == 1 ? PARAMS * 4 - 1 : tree_random(&seed) % (PARAMS * 4);
        uint8_t *byte = (uint8_t *)state_params(&rig->state) + at, bit = (uint8_t)(1u << i % 8);

        *byte ^= bit;
        if (hash_of(rig) == hash)
            fail_msg("byte %llu, bit %d: the hash stays", (unsigned long long)at, i % 8);
        *byte ^= bit;
    }
    rig->state.values[PARAMS] = 5;
    rig->state.values[3 * PARAMS - 1] = 5;
    assert_true(hash_of(rig) == hash);
    rig_close(rig);
}

/* More block hashes than one block of hashes holds: each of them counts. */
static void the_hash_of_a_large_state_has_one_more_level(void **state)
{
    enum { BLOCKS = 20000 };
    struct rig *rig = rig_open(0);
    uint64_t *hashes = calloc(BLOCKS, sizeof *hashes), before;
    struct state large = rig->state;

    (void)state;
    assert_non_null(hashes);
    large.block_hashes = hashes;
    large.block_count = BLOCKS;
    for (uint64_t i = 0; i < BLOCKS; i++)
        hashes[i] = i;
    before = state_hash(&large, rig->stream);
    for (uint64_t i = 0; i < BLOCKS; i += i + 331 < BLOCKS ? 331 : 1) {
        hashes[i] ^= 1;
        if (state_hash(&large, rig->stream) == before)
            fail_msg("block %llu does not count", (unsigned long long)i);
        hashes[i] ^= 1;
    }
    assert_true(state_hash(&large, rig->stream) == before);
    free(hashes);
    rig_close(rig);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void make_folder(char folder[FOLDER])
{
    (void)snprintf(folder, FOLDER, "/tmp/muster-state-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void remove_folder(const char *folder)
{
    char command[128];

    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void what_is_saved_is_loaded_again(void **state)
{
    struct rig *rig = rig_open(0), *other = rig_open(0);
    struct ckpt_meta meta = {.step = 7, .shards = 8, .loss_scale = 1};
    struct ckpt_found found;
    struct ckpt_error error;
    char folder[FOLDER], path[128];
    uint64_t hash = 0;

    (void)state;
    make_folder(folder);
    state_update(&rig->state, rig->stream, 0, rig->state.reduced, 1.0f, 0, 4, NULL);
    state_hash_all(&rig->state, rig->stream);
    meta.params_hash = state_hash(&rig->state, rig->stream);
    if (state_save(&rig->state, rig->state.values, folder, &meta, 3, &error) != CKPT_OK ||
        ckpt_find(folder, &found, NULL, NULL, &error) != CKPT_OK ||
        state_load(&other->state, other->stream, &found, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    assert_int_equal(other->state.applied, 7);
    assert_memory_equal(rig->state.values, other->state.values, state_value_bytes(&rig->state));
    found.meta.params_hash ^= 1;
    assert_int_equal(state_load(&other->state, other->stream, &found, &error), CKPT_MISMATCH);
    assert_non_null(strstr(error.text, "its manifest says"));
    memset(other->state.values, 0, state_value_bytes(&other->state));
    (void)snprintf(path, sizeof path, "%s/step-00000007/model.safetensors", folder);
    assert_int_equal(state_load_init(&other->state, other->stream, path, &hash, &error), CKPT_OK);
    assert_true(hash == XXH3_64bits(rig->state.values, PARAMS * sizeof(float)));
    assert_memory_equal(rig->state.values, other->state.values, PARAMS * sizeof(float));
    for (uint64_t i = PARAMS; i < 3 * PARAMS; i++) /* the moments are not --init's */
        assert_true(other->state.values[i] == 0);
    remove_folder(folder);
    rig_close(rig);
    rig_close(other);
}

/* A file of two tensors, of which one is not the model's. */
static void expect_refused(const char *folder, const struct safetensors_tensor *first,
                           const struct safetensors_tensor *second, const char *words)
{
    const struct safetensors_tensor tensors[2] = {*first, *second};
    const struct ckpt_file file = {"init.safetensors", tensors, 2};
    const struct ckpt_meta meta = {.step = 1, .shards = 1, .loss_scale = 1};
    struct rig *rig = rig_open(0);
    struct ckpt_error error = {CKPT_OK, ""};
    char path[128];
    enum ckpt_code code;
    uint64_t hash = 0;

    if (ckpt_save(folder, &meta, &file, 1, 0, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    (void)snprintf(path, sizeof path, "%s/step-00000001/init.safetensors", folder);
    code = state_load_init(&rig->state, rig->stream, path, &hash, &error);
    if (code != CKPT_MISMATCH || strstr(error.text, words) == NULL ||
        strstr(error.text, "init.safetensors") == NULL)
        fail_msg("code %d, '%s' was said where '%s' was expected", code, error.text, words);
    rig_close(rig);
    remove_folder(folder);
}

static void tensors_that_are_not_the_models_are_named(void **state)
{
    static const float values[PARAMS];
    const struct safetensors_tensor weight = {.name = "w.weight",
                                              .type = SAFETENSORS_F32,
                                              .dims = 2,
                                              .shape = {ROWS, 200},
                                              .data = values};
    const struct safetensors_tensor bias = {
        .name = "w.bias", .type = SAFETENSORS_F32, .dims = 1, .shape = {77}, .data = values};
    struct safetensors_tensor other;
    char folder[FOLDER];

    (void)state;
    make_folder(folder);
    other = bias;
    (void)snprintf(other.name, sizeof other.name, "v.bias");
    expect_refused(folder, &weight, &other, "tensor w.bias is missing");
    other = weight;
    other.shape[0] = 200;
    other.shape[1] = ROWS;
    expect_refused(folder, &bias, &other, "tensor w.weight has another shape");
    other = weight;
    other.dims = 1;
    other.shape[0] = 200 * ROWS;
    expect_refused(folder, &bias, &other, "tensor w.weight has another shape");
    other = bias;
    other.type = SAFETENSORS_I32;
    expect_refused(folder, &weight, &other,
                   "tensor w.bias is I32 of 308 bytes, expected F32 of 308");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_and_chunks_are_all_of_it),
        cmocka_unit_test(any_order_of_blocks_gives_the_same_state),
        cmocka_unit_test(moments_have_places_of_their_own),
        cmocka_unit_test(metrics_are_means_over_real_samples),
        cmocka_unit_test(the_hash_is_of_the_parameters),
        cmocka_unit_test(the_hash_of_a_large_state_has_one_more_level),
        cmocka_unit_test(what_is_saved_is_loaded_again),
        cmocka_unit_test(tensors_that_are_not_the_models_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
