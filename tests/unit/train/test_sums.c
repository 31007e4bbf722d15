/* Partial sums: whoever brings which shard, in whatever order and on however many threads, each top
 * is told once a bucket and has the bits of the canonical tree. */
#include "train/sums.h"
#include "unit/train/tree.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ELEMENTS 40
#define BUCKETS  2
#define SHARDS   64
#define WORLDS   8
#define THREADS  4

/* Two buckets, the later elements first, as a model's are. */
static const struct model_spec spec = {
    .name = "toy",
    .param_count = ELEMENTS - MODEL_METRICS,
    .gradient_count = ELEMENTS,
    .buckets = {{24, 16}, {0, 24}},
    .bucket_count = BUCKETS,
};

/* One step of one job, and the sums of one member. */
struct rig {
    const struct device_ops *ops;
    struct device *device;
    struct device_stream *stream;
    struct sums sums;
    uint32_t shards;                         /* S */
    struct plan_mask present;                /* shards with samples */
    float values[ELEMENTS][PLAN_SHARDS_MAX]; /* of each element in each shard */
    unsigned told[BUCKETS][SUMS_NODES];      /* how often a top was said to be ready */
    uint64_t seed;                           /* of all of it */
};

static void rig_open(struct rig *rig)
{
    const struct device_options options = {"native"};
    struct device_error error;

    memset(rig, 0, sizeof *rig);
    rig->ops = device_cpu_ops();
    assert_int_equal(rig->ops->open(&options, &rig->device, &error), DEVICE_OK);
    assert_int_equal(rig->ops->stream_open(rig->device, &rig->stream, &error), DEVICE_OK);
    assert_int_equal(sums_init(&rig->sums, rig->ops, rig->device, &spec), 0);
}

static void rig_close(struct rig *rig)
{
    sums_release(&rig->sums);
    sums_release(&rig->sums);
    rig->ops->stream_close(rig->stream);
    rig->ops->close(rig->device);
}

/* A new step. */
static void rig_begin(struct rig *rig, uint32_t shards, const struct plan_mask *present,
                      uint64_t seed)
{
    rig->shards = shards;
    rig->present = *present;
    rig->seed = seed;
    for (uint32_t e = 0; e < ELEMENTS; e++)
        for (uint32_t i = 0; i < shards; i++)
            rig->values[e][i] = tree_value(&seed);
    memset(rig->told, 0, sizeof rig->told);
    sums_begin(&rig->sums, shards, present);
}

static uint32_t place(uint32_t level, uint32_t index)
{
    return SUMS_NODES - (SUMS_NODES >> level) + index;
}

static float *new_leaf(struct rig *rig)
{
    float *leaf = sums_leaf(&rig->sums);

    assert_non_null(leaf);
    return leaf;
}

/* A shard's bucket is computed and brought. */
static void bring(struct rig *rig, uint32_t shard, float *leaf, uint32_t bucket)
{
    const struct model_bucket *range = &spec.buckets[bucket];
    struct sums_top top;

    for (uint64_t e = range->offset; e < range->offset + range->count; e++)
        leaf[e] = rig->values[e][shard];
    if (sums_ready(&rig->sums, rig->stream, shard, leaf, bucket, &top)) {
        assert_int_equal(top.bucket, bucket);
        __atomic_add_fetch(&rig->told[bucket][place(top.level, top.index)], 1, __ATOMIC_RELAXED);
    }
}

static void expect_top(struct rig *rig, const struct plan_node *node, unsigned told)
{
    const float *value = sums_value(&rig->sums, node->level, node->index);

    assert_int_equal(sums_ready_buckets(&rig->sums, node->level, node->index), (1u << BUCKETS) - 1);
    assert_non_null(value);
    for (uint32_t b = 0; b < BUCKETS; b++)
        if (rig->told[b][place(node->level, node->index)] != told)
            fail_msg("S %u, seed %llu: top %u.%u was told %u times in bucket %u", rig->shards,
                     (unsigned long long)rig->seed, node->level, node->index,
                     rig->told[b][place(node->level, node->index)], b);
    for (uint32_t e = 0; e < ELEMENTS; e++) {
        float expected = tree_sum(rig->values[e], &rig->present,
                                  (uint32_t)node->index << node->level, 1u << node->level);

        if (memcmp(&value[e], &expected, sizeof expected) != 0)
            fail_msg("S %u, seed %llu, node %u.%u, element %u: %a, the tree gives %a", rig->shards,
                     (unsigned long long)rig->seed, node->level, node->index, e, (double)value[e],
                     (double)expected);
    }
}

/* Shards of a mask in a scattered order. */
static uint32_t scatter(const struct plan_mask *mask, uint64_t *seed,
                        uint32_t order[PLAN_SHARDS_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < PLAN_SHARDS_MAX; i++) {
        uint32_t at = (uint32_t)(tree_random(seed) % (count + 1));

        if (!plan_mask_has(mask, i))
            continue;
        order[count] = order[at];
        order[at] = i;
        count++;
    }
    return count;
}

/* All shards of a mask: leaf by leaf, or first one bucket of all and then the other. */
static void bring_all(struct rig *rig, const struct plan_mask *mask, uint64_t *seed)
{
    uint32_t order[PLAN_SHARDS_MAX], count = scatter(mask, seed, order);
    float *leaves[PLAN_SHARDS_MAX];
    bool by_bucket = tree_random(seed) % 2 == 0;

    for (uint32_t k = 0; k < count; k++) {
        leaves[k] = new_leaf(rig);
        bring(rig, order[k], leaves[k], 0);
        if (!by_bucket)
            bring(rig, order[k], leaves[k], 1);
    }
    for (uint32_t k = 0; by_bucket && k < count; k++)
        bring(rig, order[k], leaves[k], 1);
}

static void check_step(struct rig *rig, uint32_t shards, uint32_t world, uint64_t seed)
{
    struct plan_mask present = seed % 3 == 0   ? tree_prefix(shards)
                               : seed % 3 == 1 ? tree_prefix(1 + (uint32_t)(seed % shards))
                                               : tree_some(shards, &seed);
    uint16_t owner[PLAN_SHARDS_MAX];

    tree_owners(shards, world, &seed, owner);
    for (uint32_t rank = 0; rank < world; rank++) {
        struct plan_mask owned = plan_owned(shards, owner, (uint16_t)rank), mine;
        struct plan_node nodes[PLAN_NODES_MAX];
        uint32_t count = plan_nodes(shards, &owned, &present, nodes);

        mine = plan_mask_and(&owned, &present);
        rig_begin(rig, shards, &present, seed);
        sums_tops(&rig->sums, rig->stream, nodes, count);
        bring_all(rig, &mine, &seed);
        for (uint32_t k = 0; k < count; k++)
            expect_top(rig, &nodes[k], 1);
    }
}

static void any_member_in_any_order_has_the_bits_of_the_tree(void **state)
{
    struct rig *rig = malloc(sizeof *rig);

    (void)state;
    assert_non_null(rig);
    rig_open(rig);
    for (uint32_t shards = 1; shards <= SHARDS; shards += shards < 17 ? 1 : 7)
        for (uint32_t world = 1; world <= WORLDS; world++)
            check_step(rig, shards, world, shards * 1000 + world * 10);
    check_step(rig, PLAN_SHARDS_MAX, 3, 0);
    rig_close(rig);
    free(rig);
}

/* ---- a loss --------------------------------------------------------------------------------- */

/* A member has brought some of its shards; a rank is lost and its shards come to this one, some of
 * whose tops become halves of larger ones. What it had is kept. */
static void check_regroup(struct rig *rig, uint32_t shards, uint64_t seed)
{
    struct plan_mask present = tree_prefix(shards), mine = tree_some(shards, &seed);
    struct plan_mask more = tree_some(shards, &seed), early = tree_some(shards, &seed), late;
    struct plan_node nodes[PLAN_NODES_MAX];
    uint32_t count = plan_nodes(shards, &mine, &present, nodes);

    rig_begin(rig, shards, &present, seed);
    sums_tops(&rig->sums, rig->stream, nodes, count);
    early = plan_mask_and(&early, &mine);
    bring_all(rig, &early, &seed);
    late = plan_mask_minus(&mine, &early);
    for (uint32_t i = 0; i < shards; i++)
        if (plan_mask_has(&more, i) && !plan_mask_has(&mine, i)) {
            plan_mask_set(&mine, i);
            plan_mask_set(&late, i);
        }
    count = plan_nodes(shards, &mine, &present, nodes);
    sums_tops(&rig->sums, rig->stream, nodes, count);
    memset(rig->told, 0, sizeof rig->told);
    bring_all(rig, &late, &seed);
    for (uint32_t k = 0; k < count; k++) {
        uint32_t first = (uint32_t)nodes[k].index << nodes[k].level, told = 0;

        for (uint32_t i = first; i < first + (1u << nodes[k].level) && i < shards; i++)
            told = told || plan_mask_has(&late, i);
        expect_top(rig, &nodes[k], told); /* what was whole before is not told anew */
    }
}

static void after_a_loss_sums_go_on_growing(void **state)
{
    struct rig *rig = malloc(sizeof *rig);

    (void)state;
    assert_non_null(rig);
    rig_open(rig);
    for (uint64_t seed = 1; seed <= 400; seed++)
        check_regroup(rig, 1 + (uint32_t)(seed % SHARDS), seed);
    rig_close(rig);
    free(rig);
}

/* A shard that has moved to somebody else comes late: it is added to nothing that is sent. */
static void a_shard_that_is_not_mine_changes_no_top(void **state)
{
    const struct plan_node mine = {0, 0, 0};
    struct plan_mask present = tree_prefix(2);
    struct rig *rig = malloc(sizeof *rig);

    (void)state;
    assert_non_null(rig);
    rig_open(rig);
    for (uint32_t first = 0; first < 2; first++) {
        rig_begin(rig, 2, &present, first + 1);
        sums_tops(&rig->sums, rig->stream, &mine, 1);
        for (uint32_t k = 0; k < 2; k++) {
            float *leaf = new_leaf(rig);

            for (uint32_t b = 0; b < BUCKETS; b++)
                bring(rig, k == 0 ? first : 1 - first, leaf, b);
        }
        expect_top(rig, &mine, 1);
    }
    rig_close(rig);
    free(rig);
}

/* ---- threads -------------------------------------------------------------------------------- */

/* A thread that brings every THREADS-th shard of an order. */
struct bringer {
    pthread_t thread;
    struct rig *rig;
    uint32_t which;                  /* of the threads */
    uint32_t order[PLAN_SHARDS_MAX]; /* of all shards */
    uint32_t count;                  /* of shards */
};

static void *bring_share(void *argument)
{
    struct bringer *b = argument;

    for (uint32_t k = b->which; k < b->count; k += THREADS) {
        float *leaf = new_leaf(b->rig);

        bring(b->rig, b->order[k], leaf, 0);
        bring(b->rig, b->order[k], leaf, 1);
    }
    return NULL;
}

static void threads_do_not_count(void **state)
{
    struct rig *rig = malloc(sizeof *rig);
    struct bringer *bringers = calloc(THREADS, sizeof *bringers);

    (void)state;
    assert_non_null(rig);
    assert_non_null(bringers);
    rig_open(rig);
    for (uint64_t round = 1; round <= 60; round++) {
        uint64_t seed = round;
        struct plan_mask present = round % 2 ? tree_prefix(SHARDS) : tree_some(SHARDS, &seed);
        struct plan_node root = plan_root(SHARDS);

        rig_begin(rig, SHARDS, &present, seed);
        sums_tops(&rig->sums, rig->stream, &root, 1);
        for (uint32_t i = 0; i < THREADS; i++) {
            uint64_t same = round;

            bringers[i].rig = rig;
            bringers[i].which = i;
            bringers[i].count = scatter(&present, &same, bringers[i].order);
            assert_int_equal(pthread_create(&bringers[i].thread, NULL, bring_share, &bringers[i]),
                             0);
        }
        for (uint32_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(bringers[i].thread, NULL), 0);
        expect_top(rig, &root, 1);
    }
    rig_close(rig);
    free(rig);
    free(bringers);
}

/* ---- buffers -------------------------------------------------------------------------------- */

static void expect_distinct_buffers(struct rig *rig, uint32_t count)
{
    float *leaves[PLAN_SHARDS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        leaves[i] = new_leaf(rig);
        for (uint32_t k = 0; k < i; k++)
            if (leaves[i] == leaves[k])
                fail_msg("seed %llu: leaves %u and %u are one buffer",
                         (unsigned long long)rig->seed, k, i);
    }
    for (uint32_t i = 0; i < count; i++)
        sums_drop(&rig->sums, leaves[i]);
}

/* Steps that were given up, with shards missing or in one bucket only, give every buffer back, and
 * once. */
static void buffers_are_given_back_once(void **state)
{
    struct rig *rig = malloc(sizeof *rig);

    (void)state;
    assert_non_null(rig);
    rig_open(rig);
    for (uint64_t round = 1; round <= 200; round++) {
        uint64_t seed = round;
        uint32_t order[PLAN_SHARDS_MAX], count;
        struct plan_mask present = tree_prefix(16), some = tree_some(16, &seed);
        struct plan_node root = plan_root(16);

        rig_begin(rig, 16, &present, seed);
        sums_tops(&rig->sums, rig->stream, &root, 1);
        count = scatter(&some, &seed, order);
        for (uint32_t k = 0; k < count; k++) {
            float *leaf = new_leaf(rig);

            bring(rig, order[k], leaf, 0);
            if (round % 2 == 0 || tree_random(&seed) % 2 == 0)
                bring(rig, order[k], leaf, 1);
        }
        rig_begin(rig, 16, &present, seed);
        expect_distinct_buffers(rig, 16);
    }
    assert_true(rig->sums.buffer_count <= 16);
    rig_close(rig);
    free(rig);
}

static void without_memory_there_is_no_leaf(void **state)
{
    struct rig *rig = malloc(sizeof *rig);
    uint32_t count = 0;

    (void)state;
    assert_non_null(rig);
    rig_open(rig);
    while (sums_leaf(&rig->sums) != NULL)
        count++;
    assert_true(count >= PLAN_SHARDS_MAX);
    rig_close(rig);
    free(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_member_in_any_order_has_the_bits_of_the_tree),
        cmocka_unit_test(after_a_loss_sums_go_on_growing),
        cmocka_unit_test(a_shard_that_is_not_mine_changes_no_top),
        cmocka_unit_test(threads_do_not_count),
        cmocka_unit_test(buffers_are_given_back_once),
        cmocka_unit_test(without_memory_there_is_no_leaf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
