/* State and sums on a device whose memory is not the host's and whose work is not done when a call
 * returns: the same bits, hashes and numbers as on the device that it is made of. */
#include "train/state.h"
#include "train/sums.h"
#include "unit/device/far.h"
#include "unit/train/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PARAMS (2 * STATE_BLOCK + 77)
#define SHARDS 4

static const struct model_spec spec = {
    .name = "toy",
    .tensors = {{"w", 1, {PARAMS}, 0, PARAMS}},
    .tensor_count = 1,
    .param_count = PARAMS,
    .gradient_count = PARAMS + MODEL_METRICS,
    .buckets = {{1000, PARAMS + MODEL_METRICS - 1000}, {0, 1000}},
    .bucket_count = 2,
};

struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *loop, *lanes[2];
    struct device_event *reduced;
    struct state state;
    struct sums sums;
};

/* All that can be told of it at the end. */
struct told {
    float *values; /* [3 * PARAMS] */
    uint64_t hash, init_hash;
    float clip;
    double loss, correct, real;
};

static struct rig *rig_open(const struct device_ops *ops)
{
    const struct optim_options optim = {.kind = DEVICE_ADAM, .rate = 1e-2, .beta1 = 0.9,
                                        .beta2 = 0.99, .epsilon = 1e-6, .clip_norm = 0.5};
    struct device_options options = {"native"};
    struct rig *rig = calloc(1, sizeof *rig);
    struct device_error error;

    assert_non_null(rig);
    rig->ops = ops;
    assert_int_equal(ops->open(&options, &rig->device, &error), DEVICE_OK);
    assert_int_equal(ops->stream_open(rig->device, &rig->loop, &error), DEVICE_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ops->stream_open(rig->device, &rig->lanes[i], &error), DEVICE_OK);
    assert_int_equal(ops->event_open(rig->device, &rig->reduced, &error), DEVICE_OK);
    assert_int_equal(state_init(&rig->state, ops, rig->device, &spec, &optim), 0);
    assert_int_equal(sums_init(&rig->sums, ops, rig->device, &spec), 0);
    return rig;
}

static void rig_close(struct rig *rig)
{
    sums_release(&rig->sums);
    state_release(&rig->state);
    rig->ops->event_close(rig->reduced);
    rig->ops->stream_close(rig->loop);
    rig->ops->stream_close(rig->lanes[0]);
    rig->ops->stream_close(rig->lanes[1]);
    rig->ops->close(rig->device);
    free(rig);
}

/* Shard by shard, on two lanes in turn, as compute threads do; R is what came of it. */
static void add_up(struct rig *rig, const struct plan_node *root)
{
    struct plan_mask present = tree_prefix(SHARDS);
    uint64_t seed = 8;

    sums_begin(&rig->sums, SHARDS, &present);
    sums_tops(&rig->sums, rig->loop, root, 1);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct device_stream *lane = rig->lanes[shard % 2];
        float *here = malloc(spec.gradient_count * sizeof *here), *leaf = sums_leaf(&rig->sums);
        struct sums_top top;

        assert_non_null(here);
        for (uint64_t i = 0; i < spec.gradient_count; i++)
            here[i] = tree_value(&seed);
        here[PARAMS] = 3;
        here[PARAMS + 1] = 1;
        here[PARAMS + 2] = 2;
        rig->ops->upload(lane, leaf, here, spec.gradient_count * sizeof *here);
        rig->ops->stream_sync(lane); /* a model's promise when a bucket is ready */
        free(here);
        for (uint32_t b = 0; b < spec.bucket_count; b++)
            assert_int_equal(sums_ready(&rig->sums, lane, shard, leaf, b, &top),
                             shard + 1 == SHARDS);
    }
    rig->ops->copy(rig->loop, rig->state.reduced, sums_value(&rig->sums, root->level, root->index),
                   spec.gradient_count * sizeof(float));
}

/* One step as the worker makes it: two lanes apply what the loop's stream has reduced. */
static void step(struct rig *rig, uint64_t number, struct told *told)
{
    struct plan_node root = plan_root(SHARDS);

    add_up(rig, &root);
    told->clip = state_clip(&rig->state, rig->loop, rig->state.reduced);
    rig->ops->event_record(rig->reduced, rig->loop);
    for (uint64_t i = 0; i < 2; i++) {
        rig->ops->event_wait(rig->reduced, rig->lanes[i]);
        state_update(&rig->state, rig->lanes[i], number, rig->state.reduced, told->clip, i, 1 + i,
                     rig->state.block_hashes);
        rig->ops->stream_sync(rig->lanes[i]);
    }
    rig->state.applied = number + 1;
    told->hash = state_hash(&rig->state, rig->loop);
    state_metrics(&rig->state, rig->loop, rig->state.reduced, &told->loss, &told->correct,
                  &told->real);
}

static void fetch(struct rig *rig, struct told *told)
{
    rig->ops->download(rig->loop, told->values, rig->state.values, state_value_bytes(&rig->state));
    rig->ops->stream_sync(rig->loop);
}

/* Two steps, to a checkpoint and back, --init from its model, one step more. */
static void run_on(const struct device_ops *ops, struct told *told)
{
    struct ckpt_meta meta = {.step = 2, .shards = SHARDS, .loss_scale = 1};
    char folder[] = "/tmp/muster-far-XXXXXX", path[200], command[100];
    struct ckpt_error error = {CKPT_OK, ""};
    struct rig *rig = rig_open(ops), *other = rig_open(ops);
    struct ckpt_found found;

    assert_non_null(mkdtemp(folder));
    told->values = malloc(state_value_bytes(&rig->state));
    assert_non_null(told->values);
    assert_int_equal(state_seed(&rig->state, rig->loop, 7, &error), CKPT_OK);
    state_hash_all(&rig->state, rig->loop);
    step(rig, 0, told);
    step(rig, 1, told);
    fetch(rig, told);
    meta.params_hash = told->hash;
    if (state_save(&rig->state, told->values, folder, &meta, 3, &error) != CKPT_OK ||
        ckpt_find(folder, &found, NULL, NULL, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    (void)snprintf(path, sizeof path, "%s/model.safetensors", found.path);
    if (state_load_init(&other->state, other->loop, path, &told->init_hash, &error) != CKPT_OK ||
        state_load(&other->state, other->loop, &found, &error) != CKPT_OK)
        fail_msg("%s", error.text);
    step(other, 2, told);
    fetch(other, told);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    rig_close(rig);
    rig_close(other);
}

static void steps_have_the_same_bits_far_away(void **state)
{
    struct told near, far;

    (void)state;
    memset(&near, 0, sizeof near);
    memset(&far, 0, sizeof far);
    run_on(device_reference_ops(), &near);
    run_on(far_ops(), &far);
    assert_memory_equal(near.values, far.values, 3 * PARAMS * sizeof(float));
    assert_true(near.hash == far.hash && near.hash != 0);
    assert_true(near.init_hash == far.init_hash && near.init_hash != 0);
    assert_true(near.clip == far.clip && near.clip > 0 && near.clip < 1);
    assert_true(near.loss == 1.5 && near.correct == SHARDS && near.real == 2 * SHARDS);
    assert_true(far.loss == 1.5 && far.correct == SHARDS && far.real == 2 * SHARDS);
    free(near.values);
    free(far.values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps_have_the_same_bits_far_away)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
