/* Which shard is audited and by whom: over time everybody's sums are computed by others, and the
 * odd one out is found. */
#include "train/audit.h"
#include "unit/train/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void every_shard_comes_up_once_a_round(void **state)
{
    static const uint32_t sizes[] = {1, 2, 7, 8, 12, 30, 64, 255, 256};

    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        uint32_t shards = sizes[k];
        struct plan_mask all = tree_prefix(shards);

        for (uint64_t round = 0; round < 5; round++) {
            struct plan_mask seen = {{0}};

            for (uint32_t i = 0; i < shards; i++) {
                uint32_t shard = audit_shard(3, 3 * (round * shards + i), shards, &all);

                assert_true(shard < shards);
                plan_mask_set(&seen, shard);
            }
            assert_int_equal(plan_mask_count(&seen), shards);
        }
    }
}

static void only_every_nth_step_is_audited(void **state)
{
    struct plan_mask all = tree_prefix(8);

    (void)state;
    for (uint64_t step = 0; step < 40; step++) {
        assert_int_equal(audit_shard(0, step, 8, &all), AUDIT_NO_SHARD);
        assert_int_equal(audit_shard(4, step, 8, &all) == AUDIT_NO_SHARD, step % 4 != 0);
        assert_int_not_equal(audit_shard(1, step, 8, &all), AUDIT_NO_SHARD);
    }
}

/* A short step has shards without samples: nobody computes them. */
static void only_shards_with_samples_are_audited(void **state)
{
    uint64_t seed = 1;

    (void)state;
    for (uint64_t step = 0; step < 500; step++) {
        struct plan_mask present = tree_some(12, &seed);

        assert_true(plan_mask_has(&present, audit_shard(1, step, 12, &present)));
    }
}

static void every_rank_comes_up_as_owner_and_beside_every_other(void **state)
{
    (void)state;
    for (uint32_t world = 2; world <= 9; world++) {
        uint32_t met[9][9] = {{0}};

        for (uint64_t step = 0; step < 2000; step++) {
            uint32_t owner = (uint32_t)(step % world);
            struct audit audit;

            audit_draw(&audit, 5, step, world, owner);
            assert_int_equal(audit.shard, 5);
            assert_int_equal(audit.count, world == 2 ? 2 : 3);
            assert_int_equal(audit.rank[0], owner);
            for (uint32_t i = 0; i < audit.count; i++) {
                assert_true(audit.rank[i] < world);
                assert_true(audit_has(&audit, audit.rank[i]));
                for (uint32_t k = 0; k < i; k++)
                    assert_int_not_equal(audit.rank[i], audit.rank[k]);
                met[owner][audit.rank[i]]++;
            }
        }
        for (uint32_t a = 0; a < world; a++)
            for (uint32_t b = 0; b < world; b++)
                assert_true(met[a][b] > 0);
    }
}

static void alone_there_is_nobody_to_ask(void **state)
{
    struct audit audit;

    (void)state;
    audit_draw(&audit, 5, 0, 1, 0);
    assert_int_equal(audit.shard, AUDIT_NO_SHARD);
    assert_int_equal(audit.count, 0);
    assert_false(audit_has(&audit, 0));
    audit_draw(&audit, AUDIT_NO_SHARD, 0, 4, 0);
    assert_int_equal(audit.count, 0);
}

static void the_odd_one_out_is_found(void **state)
{
    static const struct {
        uint32_t count;
        uint64_t hash[3];
        uint32_t odd[3], odd_count;
    } rows[] = {
        {0, {0}, {0}, 0},       {2, {7, 7}, {0}, 0},          {2, {7, 8}, {0, 1}, 2},
        {3, {7, 7, 7}, {0}, 0}, {3, {8, 7, 7}, {0}, 1},       {3, {7, 8, 7}, {1}, 1},
        {3, {7, 7, 8}, {2}, 1}, {3, {7, 8, 9}, {0, 1, 2}, 3},
    };

    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct audit audit = {.shard = 1, .count = rows[k].count, .rank = {4, 5, 6}};
        uint32_t odd[AUDIT_RANKS_MAX];

        assert_int_equal(audit_odd(&audit, rows[k].hash, odd), rows[k].odd_count);
        assert_memory_equal(odd, rows[k].odd, rows[k].odd_count * sizeof odd[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shard_comes_up_once_a_round),
        cmocka_unit_test(only_every_nth_step_is_audited),
        cmocka_unit_test(only_shards_with_samples_are_audited),
        cmocka_unit_test(every_rank_comes_up_as_owner_and_beside_every_other),
        cmocka_unit_test(alone_there_is_nobody_to_ask),
        cmocka_unit_test(the_odd_one_out_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
