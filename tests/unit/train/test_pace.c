/* How long a shard takes: a single pause is soon forgotten, pauses that come again are not. */
#include "train/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void nothing_is_known_before_the_first_shard(void **state)
{
    struct pace pace = {0};

    (void)state;
    assert_int_equal(pace_us(&pace), 0);
    pace_shard(&pace, 0, 0);
    assert_int_equal(pace_us(&pace), 1);
}

static void it_is_the_mean_of_a_steps_shards(void **state)
{
    struct pace pace = {0};

    (void)state;
    pace_shard(&pace, 7, 1000);
    pace_shard(&pace, 7, 3000);
    assert_int_equal(pace_us(&pace), 2000);
    pace_shard(&pace, 8, 5000); /* a step of one shard counts as much as one of two */
    assert_int_equal(pace_us(&pace), 3500);
}

static void a_single_pause_is_gone_after_eight_steps(void **state)
{
    struct pace pace = {0};

    (void)state;
    for (uint64_t step = 0; step < 100; step++) {
        uint64_t since = step - 50;

        pace_shard(&pace, step, step == 50 ? 801000 : 1000);
        pace_shard(&pace, step, 1000);
        assert_int_equal(pace_us(&pace),
                         step >= 50 && since < PACE_STEPS ? 1000 + 400000 / PACE_STEPS : 1000);
    }
}

/* 10 ms of each 100 ms: a pause of 90 ms in every fifth step is ten times the usual time. */
static void a_starved_one_is_seen_at_every_step(void **state)
{
    struct pace pace = {0};

    (void)state;
    for (uint64_t step = 0; step < 100; step++) {
        for (uint32_t shard = 0; shard < 2; shard++)
            pace_shard(&pace, step, step % 5 == 0 && shard == 0 ? 91000 : 1000);
        if (step >= PACE_STEPS)
            assert_true(pace_us(&pace) > 1500);
    }
}

static void it_ends_at_what_a_beat_can_carry(void **state)
{
    struct pace pace = {0};

    (void)state;
    pace_shard(&pace, 0, (uint64_t)1 << 40);
    assert_int_equal(pace_us(&pace), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_before_the_first_shard),
        cmocka_unit_test(it_is_the_mean_of_a_steps_shards),
        cmocka_unit_test(a_single_pause_is_gone_after_eight_steps),
        cmocka_unit_test(a_starved_one_is_seen_at_every_step),
        cmocka_unit_test(it_ends_at_what_a_beat_can_carry),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
