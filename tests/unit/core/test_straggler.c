/* Who is a straggler and who is not, and the plans that only spread the shards anew. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define USUAL_US 20000u
#define BEAT_MS  500u

/* Members that all do `steps` a beat, with so many shards each. */
static struct bench *group(uint32_t count, uint32_t steps, bool rebalance)
{
    struct bench *b = bench_new();
    b->times.rebalance = rebalance;
    bench_take_times(b);
    bench_running(b, count, 1, count);
    for (core_conn conn = 1; conn <= count; conn++) {
        b->members[conn].steps = steps;
        b->members[conn].shard_us = USUAL_US;
        b->members[conn].shards = 24 / count;
    }
    return b;
}

static bool straggles(const struct bench *b, uint32_t number)
{
    return strcmp(bench_state(b, number), "straggler") == 0;
}

/* ---- named ---------------------------------------------------------------------------------- */

static void a_slow_member_is_named_and_kept(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    bench_wait_ms(b, 3000);
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    b->members[3].shard_us = 41000;
    bench_wait_ms(b, 2000);
    assert_false(straggles(b, 3)); /* the run began with the first beat: 1.5 s ago */
    bench_wait_ms(b, BEAT_MS);
    assert_true(straggles(b, 3));
    assert_string_equal(bench_logged(b, "straggler"),
                        "rank 2 on n3 (n3, pid 3) is a straggler: 41.0 ms a shard, the median is "
                        "20.0 ms, for 40 steps");
    bench_wait_ms(b, 600000);
    assert_true(straggles(b, 3));
    assert_int_equal(bench_times_logged(b, "straggler"), 1);
    for (core_conn conn = 1; conn <= 3; conn++) {
        assert_null(bench_told(b, conn, CORE_OVER));
        assert_null(bench_told(b, conn, CORE_REFUSED));
        assert_int_equal(bench_times_told(b, conn, CORE_GENERATION), 1); /* no plan either */
    }
    bench_free(b);
}

/* Steps that take long: it is their number that counts. */
static void twenty_steps_are_needed(void **state)
{
    struct bench *b = group(3, 0, false);
    (void)state;
    b->members[2].shard_us = 2 * USUAL_US;
    for (uint32_t step = 1; step <= 20; step++) {
        for (core_conn conn = 1; conn <= 3; conn++) {
            b->members[conn].step++;
        }
        assert_false(straggles(b, 2));
        bench_wait_ms(b, 5000);
    }
    assert_false(straggles(b, 2)); /* the first beat of the run was of step 1 */
    b->members[2].step++;
    bench_wait_ms(b, BEAT_MS);
    assert_true(straggles(b, 2));
    bench_free(b);
}

static void once_and_a_half_is_not_slow_and_the_end_is_below_that(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    b->members[1].shard_us = USUAL_US * 3 / 2;
    bench_wait_ms(b, 10000);
    assert_false(straggles(b, 1));
    b->members[1].shard_us = USUAL_US * 3 / 2 + USUAL_US / 100;
    bench_wait_ms(b, 3000);
    assert_true(straggles(b, 1));
    b->members[1].shard_us = USUAL_US * 5 / 4;
    bench_wait_ms(b, 10000);
    assert_true(straggles(b, 1));
    b->members[1].shard_us = USUAL_US * 5 / 4 - USUAL_US / 100;
    bench_wait_ms(b, 2000);
    assert_true(straggles(b, 1));
    bench_wait_ms(b, BEAT_MS);
    assert_false(straggles(b, 1));
    assert_non_null(strstr(bench_logged(b, "no straggler any more"), "rank 0 on n1"));
    bench_free(b);
}

static void one_good_beat_begins_the_run_anew(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    for (int round = 0; round < 10; round++) {
        b->members[2].shard_us = 10 * USUAL_US;
        bench_wait_ms(b, 3 * BEAT_MS);
        b->members[2].shard_us = USUAL_US;
        bench_wait_ms(b, BEAT_MS);
    }
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    bench_free(b);
}

static void of_two_the_faster_is_the_measure(void **state)
{
    struct bench *b = group(2, 10, false);
    (void)state;
    b->members[1].shard_us = 2 * USUAL_US;
    bench_wait_ms(b, 4000);
    assert_true(straggles(b, 1));
    assert_false(straggles(b, 2));
    bench_free(b);
}

static void alone_nobody_is_slow(void **state)
{
    struct bench *b = group(2, 10, false);
    (void)state;
    b->members[1].shard_us = 2 * USUAL_US;
    bench_wait_ms(b, 4000);
    assert_true(straggles(b, 1));
    bench_end(b, 2);
    bench_report(b, 1, 1, b->members[1].step);
    bench_entered(b, 1, bench_job(b).generation, b->members[1].step);
    bench_wait_ms(b, 1000);
    assert_string_equal(bench_state(b, 1), "running");
    bench_free(b);
}

/* It is the process that is slow: a new generation does not change that. */
static void a_straggler_stays_one_when_another_is_lost(void **state)
{
    struct bench *b = group(4, 10, false);
    (void)state;
    b->members[1].shard_us = 2 * USUAL_US;
    bench_wait_ms(b, 4000);
    assert_true(straggles(b, 1));
    bench_end(b, 4);
    for (core_conn conn = 1; conn <= 3; conn++) {
        bench_report(b, conn, 1, b->members[1].step);
    }
    for (core_conn conn = 1; conn <= 3; conn++) {
        bench_entered(b, conn, bench_job(b).generation, b->members[1].step);
    }
    assert_true(straggles(b, 1));
    assert_int_equal(bench_times_logged(b, "straggler"), 1);
    bench_free(b);
}

/* ---- not named ------------------------------------------------------------------------------ */

/* Members that say nothing of it are not compared and not judged. */
static void who_does_not_tell_is_not_judged(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    b->members[1].shard_us = b->members[2].shard_us = 0;
    b->members[3].shard_us = 10 * USUAL_US;
    bench_wait_ms(b, 10000);
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    b->members[1].shard_us = USUAL_US;
    bench_wait_ms(b, 4000);
    assert_true(straggles(b, 3));
    assert_false(straggles(b, 2));
    bench_free(b);
}

/* One that was stopped for a second: its mean is spoilt for eight steps, in one beat. */
static void a_pause_makes_no_straggler(void **state)
{
    struct bench *b = group(3, 100, false);
    (void)state;
    for (int round = 0; round < 20; round++) {
        b->members[2].silent = true;
        bench_wait_ms(b, 1000);
        b->members[2].silent = false;
        b->members[2].shard_us = USUAL_US + 1000000 / 8;
        bench_wait_ms(b, BEAT_MS);
        b->members[2].shard_us = USUAL_US;
        bench_wait_ms(b, 2 * BEAT_MS);
    }
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    bench_free(b);
}

/* Nobody knows what was in the beats that were missed. */
static void missed_beats_begin_the_run_anew(void **state)
{
    struct bench *b = group(3, 100, false);
    (void)state;
    b->members[2].shard_us = 10 * USUAL_US;
    for (int round = 0; round < 10; round++) {
        bench_wait_ms(b, 3 * BEAT_MS);
        b->members[2].silent = true;
        bench_wait_ms(b, 4 * BEAT_MS);
        b->members[2].silent = false;
    }
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    bench_free(b);
}

static void beat_of(struct bench *b, core_conn conn, uint64_t step, uint32_t shard_us)
{
    bench_say(b, conn, (struct core_message){.type = CORE_BEAT, .generation = 1, .step = step,
                                             .beat = {.phase = CORE_PHASE_COMPUTE,
                                                      .shard_us = shard_us}});
}

/* Beats of a minute that come in one heap. */
static void beats_in_a_heap_count_once(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    bench_wait_ms(b, 1000);
    for (uint64_t step = 100; step < 1000; step += 10) {
        beat_of(b, 2, step, 3 * USUAL_US);
    }
    b->members[2].step = 1000;
    bench_wait_ms(b, 5000);
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    bench_free(b);
}

/* The coordinator stood still. One member's heap of mail is read before the others' is: beside
 * their old beats it looks slow, beside their new ones it is not. */
static void the_coordinators_own_absence_makes_no_straggler(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    for (int round = 0; round < 10; round++) {
        bench_wait_ms(b, 1000);
        for (core_conn conn = 1; conn <= 3; conn++) {
            b->members[conn].shard_us *= 2; /* the machine is busy: all are slower */
        }
        b->now_us += 9000000;
        for (core_conn conn = 1; conn <= 3; conn++) {
            for (uint32_t i = 0; i < 18; i++) {
                b->members[conn].step += 10;
                beat_of(b, conn, b->members[conn].step, b->members[conn].shard_us);
            }
        }
        bench_tick(b);
        assert_int_equal(bench_times_logged(b, "straggler"), 0);
        for (core_conn conn = 1; conn <= 3; conn++) {
            b->members[conn].shard_us /= 2;
        }
    }
    bench_free(b);
}

/* A run that was broken off by a gap does not go on behind it. */
static void a_gap_begins_the_run_anew(void **state)
{
    struct bench *b = group(3, 10, false);
    (void)state;
    b->members[2].shard_us = 3 * USUAL_US;
    for (int round = 0; round < 10; round++) {
        bench_wait_ms(b, 2000);
        b->now_us += 5000000;
        bench_tick(b);
    }
    assert_int_equal(bench_times_logged(b, "straggler"), 0);
    bench_free(b);
}

/* Any beats: a straggler is never put out for it, and verdicts take turns. */
static void whatever_the_beats_say_nobody_is_lost(void **state)
{
    struct bench *b = group(5, 10, false);
    uint64_t seed = 9;
    (void)state;
    for (int round = 0; round < 1000; round++) {
        for (core_conn conn = 1; conn <= 5; conn++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            b->members[conn].shard_us = (uint32_t)(seed >> 33) % 8 == 0 ? (uint32_t)(seed >> 32)
                                                                        : USUAL_US;
            b->members[conn].steps = (uint32_t)(seed >> 40) % 50;
        }
        bench_wait_ms(b, BEAT_MS * (1 + (uint32_t)(seed >> 60)));
    }
    assert_null(bench_told(b, 1, CORE_OVER));
    assert_int_equal(bench_job(b).world, 5);
    bench_free(b);
}

/* ---- shards by speed ------------------------------------------------------------------------ */

/* Everybody enters the newest plan and owns so many shards from then on. */
static void enter_plan(struct bench *b, const uint32_t *shards)
{
    uint64_t number = bench_told(b, 1, CORE_GENERATION)->generation;
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    for (core_conn conn = 1; conn <= b->last; conn++) {
        if (b->members[conn].number != 0) {
            bench_entered(b, conn, number, b->members[conn].step);
            b->members[conn].shards = shards[bench_told(b, conn, CORE_GENERATION)->rank];
        }
    }
    assert_int_equal(bench_job(b).generation, number);
}

static void a_straggler_gets_fewer_shards_until_it_has_recovered(void **state)
{
    struct bench *b = group(3, 10, true);
    (void)state;
    b->members[2].shard_us = 4 * USUAL_US;
    bench_wait_ms(b, 3000);
    const struct bench_heard *plan = bench_told(b, 3, CORE_GENERATION);
    assert_true(straggles(b, 2));
    assert_int_equal(plan->mode, CORE_PLAN);
    assert_int_equal(plan->world, 3);
    assert_int_equal(plan->weights[0], 100);
    assert_int_equal(plan->weights[1], 25);
    assert_int_equal(plan->weights[2], 100);
    enter_plan(b, (const uint32_t[]){11, 3, 10});
    assert_int_equal(bench_job(b).recoveries, 0);
    bench_wait_ms(b, 60000);
    assert_int_equal(bench_job(b).generation, 2); /* once is enough */
    b->members[2].shard_us = USUAL_US;
    bench_wait_ms(b, 3000);
    assert_false(straggles(b, 2));
    plan = bench_told(b, 3, CORE_GENERATION);
    assert_int_equal(plan->generation, 3);
    for (uint32_t rank = 0; rank < 3; rank++) {
        assert_int_equal(plan->weights[rank], 100);
    }
    enter_plan(b, (const uint32_t[]){8, 8, 8});
    bench_wait_ms(b, 60000);
    assert_int_equal(bench_job(b).generation, 3);
    bench_free(b);
}

static void plans_of_shares_do_not_follow_each_other_closely(void **state)
{
    struct bench *b = group(3, 10, true);
    uint64_t planned_us = 0;
    uint32_t plans = 0, told = 1;
    (void)state;
    for (uint32_t at = 0; at < 1200; at++) { /* ten minutes of a member that never decides */
        b->members[2].shard_us = at / 6 % 2 == 0 ? 4 * USUAL_US : USUAL_US;
        bench_wait_ms(b, BEAT_MS);
        if (bench_times_told(b, 1, CORE_GENERATION) == told) {
            continue;
        }
        told++;
        plans++;
        assert_true(planned_us == 0 || b->now_us >= planned_us + 10000000);
        planned_us = b->now_us;
        enter_plan(b, (const uint32_t[]){8, 8, 8});
    }
    assert_in_range(plans, 10, 60);
    bench_free(b);
}

/* Another speed is another share, but not for every breath. */
static void a_straggler_that_gets_slower_gets_less(void **state)
{
    struct bench *b = group(3, 10, true);
    (void)state;
    b->members[2].shard_us = 2 * USUAL_US;
    bench_wait_ms(b, 3000);
    enter_plan(b, (const uint32_t[]){10, 5, 9});
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->weights[1], 50);
    b->members[2].shard_us = 2 * USUAL_US * 14 / 10;
    bench_wait_ms(b, 60000);
    assert_int_equal(bench_job(b).generation, 2);
    b->members[2].shard_us = 10 * USUAL_US;
    bench_wait_ms(b, 10000);
    enter_plan(b, (const uint32_t[]){11, 2, 11});
    assert_in_range(bench_told(b, 1, CORE_GENERATION)->weights[1], 10, 40);
    bench_free(b);
}

static void a_join_carries_the_weights_along(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    b->times.rebalance = true;
    bench_take_times(b);
    bench_running(b, 3, 1, 4);
    for (core_conn conn = 1; conn <= 3; conn++) {
        b->members[conn].steps = 10;
        b->members[conn].shards = 8;
        b->members[conn].shard_us = conn == 1 ? 2 * USUAL_US : USUAL_US;
    }
    bench_wait_ms(b, 3000);
    enter_plan(b, (const uint32_t[]){5, 10, 9});
    core_conn spare = bench_join(b, "n4", 1, 4);
    bench_ready(b, spare, 2, 60);
    const struct bench_heard *plan = bench_told(b, spare, CORE_GENERATION);
    assert_int_equal(plan->mode, CORE_PLAN);
    assert_int_equal(plan->world, 4);
    assert_int_equal(plan->weights[0], 50);
    assert_int_equal(plan->weights[3], 100);
    bench_free(b);
}

/* ---- shards after a loss -------------------------------------------------------------------- */

/* Rank 3 of four was lost; its shards went to rank 2. */
static struct bench *after_loss(uint32_t max)
{
    struct bench *b = bench_new();
    static const uint32_t shards[] = {6, 6, 12};
    bench_running(b, 4, 1, max);
    bench_wait_ms(b, 5000);
    bench_end(b, 4);
    for (core_conn conn = 1; conn <= 3; conn++) {
        bench_report(b, conn, 1, 50);
    }
    for (core_conn conn = 1; conn <= 3; conn++) {
        bench_entered(b, conn, bench_job(b).generation, 50);
        b->members[conn].shards = shards[conn - 1];
        b->members[conn].shard_us = USUAL_US;
    }
    assert_int_equal(bench_job(b).world, 3);
    return b;
}

static void steps_go_on(struct bench *b, uint32_t steps)
{
    for (core_conn conn = 1; conn <= b->last; conn++) {
        b->members[conn].steps = steps;
    }
}

static void after_a_loss_the_shards_are_spread_anew(void **state)
{
    struct bench *b = after_loss(4);
    uint64_t generation = bench_job(b).generation;
    (void)state;
    bench_wait_ms(b, 10000); /* the step that was broken off takes its time */
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    steps_go_on(b, 1);
    bench_wait_ms(b, 600);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->generation, generation + 1);
    enter_plan(b, (const uint32_t[]){8, 8, 8});
    assert_int_equal(bench_times_logged(b, "the shards are spread anew, evenly"), 1);
    bench_wait_ms(b, 60000);
    assert_int_equal(bench_job(b).generation, generation + 1);
    assert_int_equal(bench_job(b).recoveries, 1);
    bench_free(b);
}

static void it_is_not_done_at_once(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    steps_go_on(b, 1);
    bench_wait_ms(b, 1500);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    bench_free(b);
}

static void shares_that_are_even_stay(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    b->members[3].shards = 7;
    steps_go_on(b, 1);
    bench_wait_ms(b, 30000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_free(b);
}

/* A newcomer brings the shares along: it is waited for, but not for ever. */
static void a_newcomer_is_waited_for(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    steps_go_on(b, 1);
    core_conn spare = bench_join(b, "n4", 1, 4);
    bench_wait_ms(b, 9000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_ready(b, spare, bench_job(b).generation, b->members[1].step);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 4);
    bench_free(b);
}

static void a_newcomer_that_never_comes_is_not_waited_for(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    steps_go_on(b, 1);
    (void)bench_join(b, "n4", 1, 4);
    bench_wait_ms(b, 11000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 3);
    bench_free(b);
}

static void members_without_shards_have_none_to_spread(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    for (core_conn conn = 1; conn <= 3; conn++) {
        b->members[conn].shards = 0;
    }
    steps_go_on(b, 1);
    bench_wait_ms(b, 30000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_free(b);
}

/* Members that finish have no boundary left. */
static void at_the_end_nothing_is_spread(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    steps_go_on(b, 1);
    bench_wait_ms(b, 1000);
    bench_say(b, 1, (struct core_message){.type = CORE_FINISHED,
                                          .generation = bench_job(b).generation, .step = 60});
    bench_wait_ms(b, 10000);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_free(b);
}

/* The store does not take the plan at first; it is one plan all the same. */
static void a_failing_store_makes_it_later(void **state)
{
    struct bench *b = after_loss(4);
    (void)state;
    steps_go_on(b, 1);
    b->hold_store = true;
    bench_wait_ms(b, 2500);
    assert_int_equal(b->held_count, 1);
    bench_store_answers(b, true);
    bench_wait_ms(b, 600);
    b->hold_store = false;
    bench_store_answers(b, false);
    enter_plan(b, (const uint32_t[]){8, 8, 8});
    bench_wait_ms(b, 30000);
    assert_int_equal(bench_times_logged(b, "the shards are spread anew"), 1);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_member_is_named_and_kept),
        cmocka_unit_test(twenty_steps_are_needed),
        cmocka_unit_test(once_and_a_half_is_not_slow_and_the_end_is_below_that),
        cmocka_unit_test(one_good_beat_begins_the_run_anew),
        cmocka_unit_test(of_two_the_faster_is_the_measure),
        cmocka_unit_test(alone_nobody_is_slow),
        cmocka_unit_test(a_straggler_stays_one_when_another_is_lost),
        cmocka_unit_test(who_does_not_tell_is_not_judged),
        cmocka_unit_test(a_pause_makes_no_straggler),
        cmocka_unit_test(missed_beats_begin_the_run_anew),
        cmocka_unit_test(beats_in_a_heap_count_once),
        cmocka_unit_test(the_coordinators_own_absence_makes_no_straggler),
        cmocka_unit_test(a_gap_begins_the_run_anew),
        cmocka_unit_test(whatever_the_beats_say_nobody_is_lost),
        cmocka_unit_test(a_straggler_gets_fewer_shards_until_it_has_recovered),
        cmocka_unit_test(plans_of_shares_do_not_follow_each_other_closely),
        cmocka_unit_test(a_straggler_that_gets_slower_gets_less),
        cmocka_unit_test(a_join_carries_the_weights_along),
        cmocka_unit_test(after_a_loss_the_shards_are_spread_anew),
        cmocka_unit_test(it_is_not_done_at_once),
        cmocka_unit_test(shares_that_are_even_stay),
        cmocka_unit_test(a_newcomer_is_waited_for),
        cmocka_unit_test(a_newcomer_that_never_comes_is_not_waited_for),
        cmocka_unit_test(members_without_shards_have_none_to_spread),
        cmocka_unit_test(at_the_end_nothing_is_spread),
        cmocka_unit_test(a_failing_store_makes_it_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
