/* Owners, nodes and chunks, over all worlds from 1 to 8 and all S from 1 to 64. */
#include "comm/reduce_plan.h"
#include "unit/train/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define WORLDS 8
#define SHARDS 64

static void masks_are_sets(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (int i = 0; i < 200; i++) {
        struct plan_mask a = tree_some(SHARDS, &seed), b = tree_some(PLAN_SHARDS_MAX, &seed);
        struct plan_mask both = plan_mask_and(&a, &b), rest = plan_mask_minus(&a, &b);
        uint32_t count = 0;

        for (uint32_t k = 0; k < PLAN_SHARDS_MAX; k++) {
            bool in_a = plan_mask_has(&a, k), in_b = plan_mask_has(&b, k);

            count += in_a;
            assert_int_equal(plan_mask_has(&both, k), in_a && in_b);
            assert_int_equal(plan_mask_has(&rest, k), in_a && !in_b);
        }
        assert_int_equal(plan_mask_count(&a), count);
        assert_int_equal(plan_mask_count(&both) + plan_mask_count(&rest), count);
        assert_false(plan_mask_empty(&a));
        both = plan_mask_minus(&a, &a);
        assert_true(plan_mask_empty(&both));
    }
}

/* ---- steps ---------------------------------------------------------------------------------- */

static void check_epoch(const struct plan_shape *shape)
{
    uint64_t steps = plan_steps_per_epoch(shape), total = 0;

    for (uint64_t step = steps; step < 2 * steps; step++) { /* the second epoch */
        struct plan_mask present = plan_present(shape, step);
        bool short_one = false;

        for (uint32_t i = 0; i < shape->shards; i++) {
            uint32_t real = plan_shard_real(shape, step, i);

            total += real;
            assert_int_equal(plan_mask_has(&present, i), real > 0);
            assert_true(real <= shape->shard_samples);
            if (short_one)
                assert_int_equal(real, 0);
            short_one = real < shape->shard_samples;
            if (short_one)
                assert_int_equal(step, 2 * steps - 1);
        }
        assert_false(plan_mask_empty(&present));
    }
    if (total != shape->samples)
        fail_msg("%llu samples in %u shards of %u: %llu were given out",
                 (unsigned long long)shape->samples, shape->shards, shape->shard_samples,
                 (unsigned long long)total);
}

static void every_sample_is_in_one_shard_of_an_epoch(void **state)
{
    static const uint64_t large[] = {59999, 60000, 60001};

    (void)state;
    for (uint32_t shards = 1; shards <= 9; shards++)
        for (uint32_t size = 1; size <= 5; size++) {
            for (uint64_t samples = 1; samples <= 100; samples++)
                check_epoch(&(struct plan_shape){samples, shards, size});
        }
    for (int i = 0; i < 3; i++) {
        check_epoch(&(struct plan_shape){large[i], 8, 32});
        check_epoch(&(struct plan_shape){large[i], 24, 11});
    }
}

/* ---- owners --------------------------------------------------------------------------------- */

static void balanced_owners_are_contiguous_and_even(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= WORLDS; world++)
        for (uint32_t shards = 1; shards <= SHARDS; shards++) {
            uint16_t owner[PLAN_SHARDS_MAX];
            uint32_t load[WORLDS] = {0};

            plan_balanced(shards, world, owner);
            for (uint32_t i = 0; i < shards; i++) {
                assert_true(owner[i] < world);
                assert_true(i == 0 || owner[i] == owner[i - 1] || owner[i] == owner[i - 1] + 1);
                load[owner[i]]++;
            }
            for (uint32_t r = 0; r < world; r++) {
                struct plan_mask owned = plan_owned(shards, owner, (uint16_t)r);

                assert_int_equal(plan_mask_count(&owned), load[r]);
                assert_int_equal(load[r], shards / world + (r < shards % world));
            }
        }
}

/* Loads by owner; contiguous, in the order of ranks, nobody without a shard where there are enough.
 */
static void loads_of(uint32_t shards, uint32_t world, const uint16_t *owner, uint32_t *load)
{
    memset(load, 0, world * sizeof *load);
    for (uint32_t i = 0; i < shards; i++) {
        assert_true(owner[i] < world);
        assert_true(i == 0 ? owner[0] == 0
                           : owner[i] - owner[i - 1] <= 1 && owner[i] >= owner[i - 1]);
        load[owner[i]]++;
    }
    for (uint32_t r = 0; r < world && world <= shards; r++)
        assert_true(load[r] > 0);
}

/* Could every member be done by `time` (in shards per weight, as a fraction of top over bottom)? */
static bool done_by(uint32_t shards, uint32_t world, const uint32_t *weight, uint64_t top,
                    uint64_t bottom)
{
    uint64_t most = 0;

    for (uint32_t r = 0; r < world; r++) {
        uint64_t fits = top * weight[r] / bottom;

        most += fits > 0 ? fits : 1; /* its one shard, however long that takes */
    }
    return most >= shards;
}

/* No other way to spread the shards has the slowest done earlier. */
static void check_weighted(uint32_t shards, uint32_t world, const uint32_t *weight)
{
    uint16_t owner[PLAN_SHARDS_MAX], again[PLAN_SHARDS_MAX];
    uint32_t load[WORLDS], last = 0;

    memset(owner, 0xaa, sizeof owner);
    plan_weighted(shards, world, weight, owner);
    plan_weighted(shards, world, weight, again);
    assert_memory_equal(owner, again, shards * sizeof owner[0]);
    loads_of(shards, world, owner, load);
    for (uint32_t r = 1; r < world; r++)
        if ((uint64_t)load[r] * weight[last] > (uint64_t)load[last] * weight[r])
            last = r;
    if (load[last] > 1 && done_by(shards, world, weight, (uint64_t)load[last] * 1000000 - 1,
                                  (uint64_t)weight[last] * 1000000))
        fail_msg("S %u, world %u: rank %u of weight %u has %u shards, and is done last", shards,
                 world, last, weight[last], load[last]);
}

static void weighted_owners_have_the_slowest_done_earliest(void **state)
{
    uint64_t seed = 11;

    (void)state;
    for (uint32_t world = 1; world <= WORLDS; world++)
        for (uint32_t shards = 1; shards <= SHARDS; shards++)
            for (int i = 0; i < 40; i++) {
                uint32_t weight[WORLDS];

                for (uint32_t r = 0; r < world; r++)
                    weight[r] = i < 20 && tree_random(&seed) % 2 == 0
                                    ? PLAN_WEIGHT_USUAL
                                    : 1 + (uint32_t)(tree_random(&seed) % PLAN_WEIGHT_USUAL);
                check_weighted(shards, world, weight);
            }
}

static void equal_weights_are_balanced(void **state)
{
    static const uint32_t weights[] = {0, 1, PLAN_WEIGHT_USUAL, UINT32_MAX};

    (void)state;
    for (uint32_t world = 1; world <= WORLDS; world++)
        for (uint32_t shards = 1; shards <= SHARDS; shards++)
            for (uint32_t k = 0; k < 4; k++) {
                uint16_t owner[PLAN_SHARDS_MAX], balanced[PLAN_SHARDS_MAX];
                uint32_t weight[WORLDS];

                for (uint32_t r = 0; r < world; r++)
                    weight[r] = k == 0 && r % 2 == 0 ? PLAN_WEIGHT_USUAL : weights[k];
                plan_weighted(shards, world, weight, owner);
                plan_balanced(shards, world, balanced);
                assert_memory_equal(owner, balanced, shards * sizeof owner[0]);
            }
}

static void weights_give_these_loads(void **state)
{
    static const struct {
        uint32_t shards, world, weight[4], load[4];
    } rows[] = {
        {8, 3, {100, 100, 50}, {4, 3, 1}},         {8, 3, {100, 50, 100}, {4, 1, 3}},
        {24, 3, {100, 100, 20}, {11, 11, 2}},      {24, 3, {20, 100, 100}, {2, 11, 11}},
        {16, 4, {100, 100, 100, 1}, {5, 5, 5, 1}}, {4, 4, {100, 1, 100, 1}, {1, 1, 1, 1}},
        {2, 3, {1, 100, 100}, {1, 1, 0}},          {64, 2, {100, 25}, {52, 12}},
    };

    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        uint16_t owner[PLAN_SHARDS_MAX];
        uint32_t load[WORLDS];

        plan_weighted(rows[k].shards, rows[k].world, rows[k].weight, owner);
        loads_of(rows[k].shards, rows[k].world, owner, load);
        for (uint32_t r = 0; r < rows[k].world; r++)
            if (load[r] != rows[k].load[r])
                fail_msg("row %zu, rank %u: %u shards, expected %u", k, r, load[r],
                         rows[k].load[r]);
    }
}

/* Distance in the tree: the level of the smallest subtree with both. */
static uint32_t distance(uint32_t a, uint32_t b)
{
    uint32_t level = 0;

    for (; a != b; a /= 2, b /= 2)
        level++;
    return level;
}

/* The nearest shard that the heir owned, is as near as any that anybody owns. */
static void check_heir(uint32_t shards, uint32_t world, uint32_t lost, const uint16_t *before,
                       const uint16_t *owner)
{
    uint32_t nearest = UINT32_MAX, own = UINT32_MAX;

    for (uint32_t i = 0; i < shards; i++) {
        bool settled = before[i] != PLAN_NOBODY || i < lost;

        if (settled && distance(i, lost) < nearest)
            nearest = distance(i, lost);
        if (settled && owner[i] == owner[lost] && distance(i, lost) < own)
            own = distance(i, lost);
    }
    if (own != nearest && own != UINT32_MAX)
        fail_msg("S %u, world %u: shard %u went to rank %u at distance %u, somebody is at %u",
                 shards, world, lost, owner[lost], own, nearest);
}

static void check_regroup(uint32_t shards, uint32_t world, const uint16_t *before)
{
    struct plan_mask owned[WORLDS];
    uint16_t owner[PLAN_SHARDS_MAX];
    uint32_t load[WORLDS] = {0};

    for (uint32_t r = 0; r < world; r++)
        owned[r] = plan_owned(shards, before, (uint16_t)r);
    plan_regroup(shards, world, owned, owner);
    for (uint32_t i = 0; i < shards; i++) {
        if (before[i] != PLAN_NOBODY && owner[i] != before[i])
            fail_msg("S %u, world %u: shard %u moved from %u to %u", shards, world, i, before[i],
                     owner[i]);
        assert_true(owner[i] < world);
        load[owner[i]]++;
        if (before[i] == PLAN_NOBODY)
            check_heir(shards, world, i, before, owner);
    }
    for (uint32_t r = 0; r < world; r++)
        if (load[r] == 0 && plan_mask_empty(&owned[r])) {
            for (uint32_t i = 0; i < shards; i++)
                if (before[i] == PLAN_NOBODY && load[owner[i]] > 1 &&
                    !plan_mask_empty(&owned[owner[i]]))
                    fail_msg("S %u, world %u: rank %u has nothing, and %u got shard %u", shards,
                             world, r, owner[i], i);
        }
}

/* Each rank of each world is lost, alone and with its neighbour, with newcomers or without. */
static void only_lost_shards_move_and_not_far(void **state)
{
    (void)state;
    for (uint32_t world = 2; world <= WORLDS; world++)
        for (uint32_t shards = 1; shards <= SHARDS; shards++)
            for (uint32_t lost = 0; lost < world; lost++)
                for (uint32_t more = 0; more < 2; more++) {
                    uint16_t before[PLAN_SHARDS_MAX], rank[WORLDS];
                    uint32_t left = 0, living = 0;

                    for (uint32_t r = 0; r < world; r++)
                        rank[r] =
                            r == lost || (more && r == lost + 1) ? PLAN_NOBODY : (uint16_t)left++;
                    plan_balanced(shards, world, before);
                    for (uint32_t i = 0; i < shards; i++) {
                        before[i] = rank[before[i]];
                        living += before[i] != PLAN_NOBODY;
                    }
                    if (left > 0 && living > 0)
                        check_regroup(shards, left + (left < WORLDS && lost % 2), before);
                }
}

static void a_lost_shard_goes_to_its_sibling_first(void **state)
{
    static const struct {
        uint32_t world;
        uint16_t before[8], after[8];
    } rows[] = {
        {3, {0, 0, 0xffff, 0xffff, 1, 1, 2, 2}, {0, 0, 0, 0, 1, 1, 2, 2}},
        {3, {0, 1, 1, 1, 2, 2, 0xffff, 0xffff}, {0, 1, 1, 1, 2, 2, 2, 2}},
        {4, {0, 1, 2, 0xffff, 0xffff, 3, 3, 3}, {0, 1, 2, 2, 3, 3, 3, 3}},
        {2, {0, 0, 0, 0xffff, 0xffff, 1, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}},
        {2, {0, 1, 1, 1, 0xffff, 0xffff, 0xffff, 0xffff}, {0, 1, 1, 1, 0, 0, 0, 0}},
        {3, {0, 0, 0, 0xffff, 0xffff, 1, 1, 1}, {0, 0, 0, 2, 1, 1, 1, 1}},
    };

    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct plan_mask owned[4];
        uint16_t before[PLAN_SHARDS_MAX], owner[PLAN_SHARDS_MAX];

        memcpy(before, rows[k].before, sizeof rows[k].before);
        for (uint32_t r = 0; r < rows[k].world; r++)
            owned[r] = plan_owned(8, before, (uint16_t)r);
        plan_regroup(8, rows[k].world, owned, owner);
        for (uint32_t i = 0; i < 8; i++) {
            if (owner[i] != rows[k].after[i])
                fail_msg("row %zu, shard %u: rank %u, expected %u", k, i, owner[i],
                         rows[k].after[i]);
        }
    }
}

static void if_nobody_owned_anything_it_is_balanced(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= WORLDS; world++)
        for (uint32_t shards = 1; shards <= SHARDS; shards++) {
            struct plan_mask owned[WORLDS] = {{{0}}};
            uint16_t owner[PLAN_SHARDS_MAX], balanced[PLAN_SHARDS_MAX];

            plan_regroup(shards, world, owned, owner);
            plan_balanced(shards, world, balanced);
            assert_memory_equal(owner, balanced, shards * sizeof owner[0]);
        }
}

/* ---- nodes ---------------------------------------------------------------------------------- */

/* Whole: with present shards, all of them in mask. */
static bool whole(uint32_t shards, uint32_t level, uint32_t index, const struct plan_mask *mask,
                  const struct plan_mask *present)
{
    bool any = false;

    for (uint32_t i = index << level; i < (index + 1) << level && i < shards; i++) {
        if (plan_mask_has(present, i) && !plan_mask_has(mask, i))
            return false;
        any = any || plan_mask_has(present, i);
    }
    return any;
}

/* Disjoint, in order, whole, maximal, and all that is owned and present. */
static void check_nodes(uint32_t shards, const struct plan_mask *mask,
                        const struct plan_mask *present)
{
    struct plan_node nodes[PLAN_NODES_MAX];
    uint32_t count = plan_nodes(shards, mask, present, nodes), end = 0;
    struct plan_mask left = plan_mask_and(mask, present), covered = {{0}};

    for (uint32_t k = 0; k < count; k++) {
        const struct plan_node *node = &nodes[k];
        uint32_t first = (uint32_t)node->index << node->level;

        assert_true(first >= end);
        end = first + (1u << node->level);
        assert_true(whole(shards, node->level, node->index, mask, present));
        if (1u << node->level < shards)
            assert_false(whole(shards, node->level + 1u, node->index / 2u, mask, present));
        for (uint32_t i = first; i < end && i < shards; i++)
            plan_mask_set(&covered, i);
    }
    left = plan_mask_minus(&left, &covered);
    if (!plan_mask_empty(&left))
        fail_msg("S %u: %u shards that are owned and present are in no node", shards,
                 plan_mask_count(&left));
}

static void nodes_are_the_maximal_subtrees(void **state)
{
    uint64_t seed = 5;

    (void)state;
    for (uint32_t shards = 1; shards <= SHARDS; shards++) {
        struct plan_mask all = tree_prefix(shards);

        check_nodes(shards, &all, &all);
        for (int i = 0; i < 30; i++) {
            struct plan_mask mask = tree_some(shards, &seed), present = tree_some(shards, &seed);
            struct plan_mask prefix = tree_prefix(1 + (uint32_t)(tree_random(&seed) % shards));

            check_nodes(shards, &mask, &all);
            check_nodes(shards, &mask, &present);
            check_nodes(shards, &mask, &prefix);
            check_nodes(shards, &all, &prefix);
        }
    }
    for (int i = 0; i < 30; i++) {
        struct plan_mask mask = tree_some(PLAN_SHARDS_MAX, &seed);
        struct plan_mask present = tree_some(PLAN_SHARDS_MAX, &seed);

        check_nodes(PLAN_SHARDS_MAX, &mask, &present);
    }
}

/* All nodes, in order; those of one rank are what plan_nodes says of what it owns. */
static void check_all_nodes(uint32_t shards, uint32_t world, const uint16_t *owner,
                            const struct plan_mask *present)
{
    struct plan_node all[PLAN_NODES_MAX], its[PLAN_NODES_MAX];
    uint32_t count = plan_all_nodes(shards, world, owner, present, all), seen = 0;

    for (uint32_t k = 1; k < count; k++)
        assert_true((uint32_t)all[k - 1].index << all[k - 1].level <
                    (uint32_t)all[k].index << all[k].level);
    for (uint32_t rank = 0; rank < world; rank++) {
        struct plan_mask mask = plan_owned(shards, owner, (uint16_t)rank);
        uint32_t its_count = plan_nodes(shards, &mask, present, its), at = 0;

        for (uint32_t k = 0; k < count; k++) {
            if (all[k].owner != rank)
                continue;
            assert_true(at < its_count);
            assert_int_equal(all[k].index, its[at].index);
            assert_int_equal(all[k].level, its[at].level);
            at++;
        }
        assert_int_equal(at, its_count);
        seen += at;
    }
    assert_int_equal(seen, count);
}

static void all_nodes_are_those_of_every_rank(void **state)
{
    uint64_t seed = 7;

    (void)state;
    for (uint32_t shards = 1; shards <= SHARDS; shards++)
        for (uint32_t world = 1; world <= WORLDS; world++) {
            struct plan_mask all = tree_prefix(shards), some = tree_some(shards, &seed);
            uint16_t owner[PLAN_SHARDS_MAX];

            plan_balanced(shards, world, owner);
            check_all_nodes(shards, world, owner, &all);
            check_all_nodes(shards, world, owner, &some);
            for (uint32_t i = 0; i < shards; i++) /* now and then nobody's */
                owner[i] = (uint16_t)(tree_random(&seed) % 8 == 0 ? PLAN_NOBODY
                                                                  : tree_random(&seed) % world);
            check_all_nodes(shards, world, owner, &all);
            check_all_nodes(shards, world, owner, &some);
        }
}

/* ---- chunks --------------------------------------------------------------------------------- */

static void chunks_are_aligned_even_and_all(void **state)
{
    static const uint64_t lengths[] = {
        0, 1, 15, 16, 17, 127, 128, 129, 1000, 18816, 412430, 431246, (uint64_t)1 << 33};

    (void)state;
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++)
        for (uint32_t world = 1; world <= PLAN_WORLD_MAX; world += world < 9 ? 1 : 19) {
            uint64_t at = 0, least = UINT64_MAX, most = 0;

            for (uint32_t chunk = 0; chunk < world; chunk++) {
                uint64_t first, count;

                plan_chunk(lengths[k], world, chunk, &first, &count);
                assert_int_equal(first, at);
                assert_true(first % PLAN_CHUNK_ALIGN == 0 || count == 0);
                at += count;
                least = count < least ? count : least;
                most = count > most ? count : most;
            }
            assert_int_equal(at, lengths[k]);
            if (most - least > 2 * PLAN_CHUNK_ALIGN)
                fail_msg("%llu elements over %u: chunks of %llu and of %llu",
                         (unsigned long long)lengths[k], world, (unsigned long long)least,
                         (unsigned long long)most);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_sets),
        cmocka_unit_test(every_sample_is_in_one_shard_of_an_epoch),
        cmocka_unit_test(balanced_owners_are_contiguous_and_even),
        cmocka_unit_test(weighted_owners_have_the_slowest_done_earliest),
        cmocka_unit_test(equal_weights_are_balanced),
        cmocka_unit_test(weights_give_these_loads),
        cmocka_unit_test(only_lost_shards_move_and_not_far),
        cmocka_unit_test(a_lost_shard_goes_to_its_sibling_first),
        cmocka_unit_test(if_nobody_owned_anything_it_is_balanced),
        cmocka_unit_test(nodes_are_the_maximal_subtrees),
        cmocka_unit_test(all_nodes_are_those_of_every_rank),
        cmocka_unit_test(chunks_are_aligned_even_and_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
