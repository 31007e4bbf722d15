/* Who lives: leases, stalled members, what peers say of each other, budgets. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void silence_is_suspect_then_lost(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    b->members[2].silent = true;
    bench_wait_ms(b, 1400);
    assert_string_equal(bench_state(b, 2), "running");
    bench_wait_ms(b, 600);
    assert_string_equal(bench_state(b, 2), "suspect");
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_wait_ms(b, 1100);
    assert_non_null(strstr(bench_told(b, 1, CORE_OVER)->text, "rank 1 on n2"));
    assert_non_null(strstr(bench_told(b, 1, CORE_OVER)->text, "pid 2"));
    assert_non_null(strstr(bench_told(b, 1, CORE_OVER)->text, "silent for"));
    assert_true(b->closed & 1u << 2);
    bench_free(b);
}

static void a_beat_in_time_takes_the_suspicion_back(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    b->members[2].silent = true;
    bench_wait_ms(b, 2000);
    assert_string_equal(bench_state(b, 2), "suspect");
    b->members[2].silent = false;
    bench_wait_ms(b, 3000);
    assert_string_equal(bench_state(b, 2), "running");
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_free(b);
}

/* It stood still itself (SIGSTOP, a suspended machine): its clock went on, its ticks did not. */
static void its_own_absence_accuses_nobody(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    for (int i = 0; i < 20; i++) {
        b->now_us += 10000000;
        bench_tick(b);
        assert_string_equal(bench_state(b, 1), "running");
        bench_wait_ms(b, 500);
    }
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_free(b);
}

static void many_nodes_silent_at_once_get_another_window(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 8, 2, 8);
    for (core_conn conn = 1; conn <= 3; conn++) {
        b->members[conn].silent = true;
    }
    bench_wait_ms(b, 4500);
    assert_null(bench_told(b, 8, CORE_OVER));
    bench_wait_ms(b, 1000);
    assert_non_null(bench_told(b, 8, CORE_OVER));
    bench_free(b);
}

static void two_of_eight_are_no_such_case(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 8, 2, 8);
    b->members[1].silent = b->members[2].silent = true;
    bench_wait_ms(b, 3100);
    assert_non_null(bench_told(b, 8, CORE_OVER));
    bench_free(b);
}

/* Steps of half a second, so that 20 of them, 10 s, are the limit. */
static void run_steps(struct bench *b, uint32_t members, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        for (core_conn conn = 1; conn <= members; conn++) {
            b->members[conn].step++;
        }
        bench_wait_ms(b, 500);
    }
}

static void who_owes_what_others_wait_for_is_stalled(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    run_steps(b, 2, 8);
    b->members[1].phase = CORE_PHASE_EXCHANGE;
    b->members[2].phase_us = b->now_us;
    bench_wait_ms(b, 9000);
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_wait_ms(b, 3000);
    assert_non_null(strstr(bench_told(b, 1, CORE_OVER)->text, "stalled: in compute of step 8"));
    assert_int_equal(bench_told(b, 2, CORE_REFUSED)->code, 75);
    bench_free(b);
}

/* The usual step is a median: one that took ten times as long does not make the limit longer. */
static void one_slow_step_is_not_usual(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    run_steps(b, 2, 8);
    bench_wait_ms(b, 4500);
    run_steps(b, 2, 1);
    b->members[1].phase = CORE_PHASE_EXCHANGE;
    b->members[2].phase_us = b->now_us;
    bench_wait_ms(b, 12000);
    assert_non_null(strstr(bench_told(b, 1, CORE_OVER)->text, "stalled: in compute of step 9"));
    bench_free(b);
}

static void waiting_is_never_stalled(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    run_steps(b, 2, 8);
    for (core_conn conn = 1; conn <= 2; conn++) {
        b->members[conn].phase = CORE_PHASE_EXCHANGE;
        b->members[conn].phase_us = b->now_us;
    }
    bench_wait_ms(b, 300000);
    assert_string_equal(bench_job(b).state, "running");
    /* Nor one that computes while nobody waits for it. */
    b->members[1].phase = b->members[2].phase = CORE_PHASE_COMPUTE;
    bench_wait_ms(b, 300000);
    assert_string_equal(bench_job(b).state, "running");
    bench_free(b);
}

static void accuse(struct bench *b, core_conn accuser, uint8_t accused, uint64_t generation)
{
    struct core_message message = {.type = CORE_PEER_LOST, .generation = generation};
    message.peer_lost = (struct core_peer_lost){
        .member_id = {{accused}}, .why = CORE_LOST_UNREACHABLE, .text = "it took no byte"};
    bench_say(b, accuser, message);
}

/* Everybody who is in the generation reports and enters it. */
static void form_again(struct bench *b, uint32_t count, uint64_t generation)
{
    for (core_conn conn = 1; conn <= count; conn++) {
        if (b->members[conn].number != 0) {
            bench_report(b, conn, generation - 1, 0);
        }
    }
    for (core_conn conn = 1; conn <= count; conn++) {
        if (b->members[conn].number != 0) {
            bench_entered(b, conn, generation, 0);
        }
    }
}

/* Both still answer: the same group gets one more chance, then one of the pair goes. */
static void a_pair_that_fails_twice_loses_one(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    accuse(b, 1, 3, 1);
    form_again(b, 3, 2);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->generation, 2);
    assert_int_equal(bench_told(b, 3, CORE_GENERATION)->world, 3);
    accuse(b, 2, 3, 2);
    bench_wait_ms(b, 1500);
    assert_int_equal(bench_told(b, 3, CORE_REFUSED)->code, 75);
    assert_non_null(strstr(bench_told(b, 3, CORE_REFUSED)->text, "unreachable"));
    bench_free(b);
}

/* Who comes back says again whom it missed: that is one report. Rank 0 and rank 2 have one each
 * against them, and of equals the higher rank goes. */
static void who_says_it_twice_counts_once(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    accuse(b, 1, 3, 1);
    form_again(b, 3, 2);
    accuse(b, 3, 1, 2);
    accuse(b, 3, 1, 2);
    accuse(b, 1, 3, 2);
    bench_wait_ms(b, 1500);
    assert_null(bench_told(b, 1, CORE_REFUSED));
    assert_non_null(strstr(bench_told(b, 3, CORE_REFUSED)->text, ": 1 report against it"));
    bench_free(b);
}

/* Two pairs that are cut from each other: the first report is not the verdict, or one of each side
 * would go, and one of each again, until nobody is left to train. */
static void a_cut_through_the_middle_leaves_one_half(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 4, 2, 4);
    accuse(b, 1, 3, 1);
    form_again(b, 4, 2);
    accuse(b, 3, 1, 2);
    for (core_conn low = 1; low <= 2; low++) {
        for (core_conn high = 3; high <= 4; high++) {
            accuse(b, low, (uint8_t)high, 2);
            if (low != 1 || high != 3) {
                accuse(b, high, (uint8_t)low, 2);
            }
        }
    }
    assert_int_equal(bench_job(b).generation, 2);
    bench_wait_ms(b, 1500);
    assert_int_equal(bench_told(b, 4, CORE_REFUSED)->code, 75);
    form_again(b, 3, 3);
    accuse(b, 3, 1, 3);
    accuse(b, 1, 3, 3);
    accuse(b, 2, 3, 3);
    bench_wait_ms(b, 1500);
    assert_int_equal(bench_told(b, 3, CORE_REFUSED)->code, 75);
    form_again(b, 2, 4);
    assert_int_equal(bench_job(b).world, 2);
    assert_string_equal(bench_state(b, 1), "running");
    assert_string_equal(bench_state(b, 2), "running");
    bench_free(b);
}

static void an_accusation_of_another_generation_is_nothing(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    accuse(b, 1, 2, 9);
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_free(b);
}

/* Chaos, seed 2: members were killed while the coordinator was stopped. What their peers said of it
 * lay before the end of their connections in its mail, and two that could not exchange data were
 * seen where one had died. */
static void what_peers_said_meanwhile_waits_for_the_end_of_connections(void **state)
{
    struct bench *b = bench_new();
    struct core_message message = {.type = CORE_PEER_LOST, .generation = 1};
    (void)state;
    bench_running(b, 3, 1, 3);
    b->now_us += 8000000;
    message.peer_lost = (struct core_peer_lost){
        .member_id = {{2}}, .why = CORE_LOST_CLOSED, .text = "its data connection ended"};
    bench_say(b, 1, message);
    assert_string_equal(bench_job(b).state, "running");
    bench_end(b, 2);
    assert_non_null(strstr(bench_job(b).reason, "rank 1 on n2 (n2, pid 2) is lost"));
    bench_free(b);
}

static void regroup_without(struct bench *b, core_conn lost, core_conn left)
{
    uint64_t generation = bench_job(b).generation;
    bench_end(b, lost);
    bench_report(b, left, generation, 1);
    bench_entered(b, left, bench_job(b).generation, 1);
}

/* A node that keeps failing waits, while others train; another node's newcomer does not. */
static void a_node_that_keeps_failing_cools_down(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 4);
    core_conn lost = 2;
    for (int i = 0; i < 3; i++) {
        uint64_t generation;
        regroup_without(b, lost, 1);
        lost = bench_join(b, "n2", 1, 4);
        generation = bench_job(b).generation;
        bench_ready(b, lost, generation, 1);
        if (i == 2) {
            break;
        }
        assert_int_equal(bench_told(b, lost, CORE_GENERATION)->mode, CORE_PLAN);
        bench_entered(b, 1, generation + 1, 1);
        bench_entered(b, lost, generation + 1, 1);
    }
    assert_int_equal(bench_told(b, lost, CORE_GENERATION)->mode, CORE_VIEW);
    core_conn other = bench_join(b, "n3", 1, 4);
    bench_ready(b, other, bench_job(b).generation, 1);
    assert_int_equal(bench_told(b, other, CORE_GENERATION)->mode, CORE_PLAN);
    assert_int_equal(bench_told(b, other, CORE_GENERATION)->world, 2);
    bench_free(b);
}

/* Its beats go on, and it never says how far it got: the others wait for that ten seconds. */
static void who_does_not_report_is_lost_after_ten_seconds(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 1, 3);
    bench_end(b, 3);
    bench_report(b, 1, 1, 5);
    bench_wait_ms(b, 9500);
    assert_string_equal(bench_job(b).state, "regrouping");
    assert_null(bench_told(b, 2, CORE_REFUSED));
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 2, CORE_REFUSED)->code, 75);
    assert_non_null(strstr(bench_told(b, 2, CORE_REFUSED)->text, "it did not report after"));
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 1);
    bench_free(b);
}

static void a_job_that_gets_nowhere_has_failed(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    b->times.restart_budget = 2;
    b->times.cooldown_losses = 100;
    bench_take_times(b);
    bench_running(b, 4, 1, 4);
    for (core_conn lost = 4; lost >= 2; lost--) {
        assert_string_equal(bench_job(b).state, "running");
        bench_end(b, lost);
        for (core_conn conn = 1; conn < lost; conn++) {
            bench_report(b, conn, bench_job(b).generation, 0);
        }
    }
    assert_string_equal(bench_job(b).state, "failed");
    assert_int_equal(bench_told(b, 1, CORE_REFUSED)->code, 77);
    bench_free(b);
}

static void progress_refills_the_budget(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    b->times.restart_budget = 2;
    b->times.cooldown_losses = 100;
    bench_take_times(b);
    bench_running(b, 8, 1, 8);
    for (core_conn lost = 8; lost >= 2; lost--) {
        uint64_t generation;
        bench_end(b, lost);
        for (core_conn conn = 1; conn < lost; conn++) {
            bench_report(b, conn, bench_job(b).generation, b->members[1].step);
        }
        assert_string_equal(bench_job(b).state, "running");
        generation = bench_job(b).generation;
        for (core_conn conn = 1; conn < lost; conn++) {
            bench_entered(b, conn, generation, b->members[1].step);
        }
        run_steps(b, (uint32_t)lost - 1, 2);
    }
    bench_free(b);
}

static void recomputed(struct bench *b, core_conn conn, uint64_t recompute_us)
{
    bench_say(b, conn, (struct core_message){.type = CORE_ENTERED, .generation = 2, .step = 1,
                                             .entered = {.connect_us = 5, .state_us = 6,
                                                         .recompute_us = recompute_us}});
}

/* The last phase ends after the generation is entered: it was 0 for ever. A recovery that is broken
 * off by the next loss counts with what is known of it. */
static void a_recovery_counts_when_all_have_computed(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    bench_end(b, 3);
    bench_report(b, 1, 1, 1);
    bench_report(b, 2, 1, 1);
    recomputed(b, 1, 0);
    recomputed(b, 2, 0);
    assert_int_equal(bench_job(b).recoveries, 0);
    recomputed(b, 1, 1);
    recomputed(b, 2, 700);
    assert_int_equal(bench_job(b).recoveries, 1);
    assert_int_equal(bench_job(b).last_us[CORE_RECOVERY_CONNECT], 5);
    assert_int_equal(bench_job(b).last_us[CORE_RECOVERY_RECOMPUTE], 700);
    assert_int_equal(bench_job(b).histograms[CORE_RECOVERY_RECOMPUTE].count, 1);
    recomputed(b, 2, 9000); /* said again */
    assert_int_equal(bench_job(b).recoveries, 1);
    assert_int_equal(bench_job(b).last_us[CORE_RECOVERY_RECOMPUTE], 700);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_suspect_then_lost),
        cmocka_unit_test(a_beat_in_time_takes_the_suspicion_back),
        cmocka_unit_test(its_own_absence_accuses_nobody),
        cmocka_unit_test(many_nodes_silent_at_once_get_another_window),
        cmocka_unit_test(two_of_eight_are_no_such_case),
        cmocka_unit_test(who_owes_what_others_wait_for_is_stalled),
        cmocka_unit_test(one_slow_step_is_not_usual),
        cmocka_unit_test(waiting_is_never_stalled),
        cmocka_unit_test(a_pair_that_fails_twice_loses_one),
        cmocka_unit_test(who_says_it_twice_counts_once),
        cmocka_unit_test(what_peers_said_meanwhile_waits_for_the_end_of_connections),
        cmocka_unit_test(a_cut_through_the_middle_leaves_one_half),
        cmocka_unit_test(an_accusation_of_another_generation_is_nothing),
        cmocka_unit_test(a_node_that_keeps_failing_cools_down),
        cmocka_unit_test(who_does_not_report_is_lost_after_ten_seconds),
        cmocka_unit_test(a_job_that_gets_nowhere_has_failed),
        cmocka_unit_test(progress_refills_the_budget),
        cmocka_unit_test(a_recovery_counts_when_all_have_computed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
