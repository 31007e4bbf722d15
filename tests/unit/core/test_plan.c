/* Boundaries: joins, leaves and drains become a plan; who leaves is released, and not before. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void leave(struct bench *b, core_conn conn)
{
    bench_say(b, conn, (struct core_message){.type = CORE_LEAVE, .generation = 1});
}

static void a_spare_in_step_joins_by_a_plan(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 4);
    core_conn spare = bench_join(b, "n3", 2, 4);
    assert_int_equal(bench_told(b, spare, CORE_GENERATION)->mode, CORE_VIEW);
    assert_int_equal(bench_times_told(b, 1, CORE_GENERATION), 1);
    bench_ready(b, spare, 1, 3);
    const struct bench_heard *plan = bench_told(b, 1, CORE_GENERATION);
    assert_int_equal(plan->mode, CORE_PLAN);
    assert_int_equal(plan->generation, 2);
    assert_int_equal(plan->world, 3);
    assert_int_equal(bench_told(b, spare, CORE_GENERATION)->rank, 2);
    for (core_conn conn = 1; conn <= 3; conn++) {
        assert_int_equal(bench_job(b).generation, 1);
        bench_entered(b, conn, 2, 4);
    }
    assert_int_equal(bench_job(b).generation, 2);
    assert_int_equal(bench_job(b).world, 3);
    bench_free(b);
}

static void newcomers_that_come_together_join_together(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 5);
    core_conn spares[3];
    for (uint32_t i = 0; i < 3; i++) {
        spares[i] = bench_join(b, "n9", 2, 5);
    }
    for (uint32_t i = 0; i < 3; i++) {
        bench_say(b, spares[i],
                  (struct core_message){.type = CORE_READY, .generation = 1, .step = 1});
    }
    bench_tick(b);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->world, 5);
    bench_free(b);
}

static void who_leaves_is_released_when_all_have_entered(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    leave(b, 1);
    const struct bench_heard *plan = bench_told(b, 2, CORE_GENERATION);
    assert_int_equal(plan->mode, CORE_PLAN);
    assert_int_equal(plan->world, 2);
    assert_false(plan->pause);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->rank, UINT32_MAX);
    bench_entered(b, 2, 2, 1);
    assert_null(bench_told(b, 1, CORE_RELEASED));
    bench_entered(b, 3, 2, 1);
    assert_non_null(bench_told(b, 1, CORE_RELEASED));
    bench_end(b, 1);
    assert_string_equal(bench_job(b).state, "running");
    assert_int_equal(bench_job(b).recoveries, 0);
    bench_free(b);
}

static void fewer_than_min_pauses_by_plan(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    leave(b, 2);
    assert_true(bench_told(b, 1, CORE_GENERATION)->pause);
    bench_entered(b, 1, 2, 1);
    assert_non_null(bench_told(b, 2, CORE_RELEASED));
    bench_report(b, 1, 2, 1);
    bench_end(b, 2);
    assert_string_equal(bench_job(b).state, "paused");
    bench_free(b);
}

/* Seed 990 of the simulator: the leaver was chosen beside its relief, the plan never stood, and the
 * core made plans until it died. */
static void all_leave_and_their_relief_is_in_step(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 1, 1, 3);
    core_conn second = bench_join(b, "n2", 1, 3), third = bench_join(b, "n3", 1, 3);
    leave(b, 1);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    b->hold_store = true;
    bench_ready(b, second, 1, 1);
    bench_ready(b, third, 1, 1);
    b->hold_store = false;
    bench_store_answers(b, false);
    const struct bench_heard *plan = bench_told(b, 1, CORE_GENERATION);
    assert_int_equal(plan->mode, CORE_PLAN);
    assert_int_equal(plan->rank, UINT32_MAX);
    assert_int_equal(bench_told(b, second, CORE_GENERATION)->generation, plan->generation);
    assert_int_equal(bench_told(b, second, CORE_GENERATION)->rank, 0);
    bench_free(b);
}

/* Seed 7398 of the simulator: who missed a peer said so in the plan's generation, and it was
 * forgotten when the last member had entered it. */
static void a_broken_pair_of_the_plan_is_not_forgotten(void **state)
{
    struct bench *b = bench_new();
    struct core_message lost = {.type = CORE_PEER_LOST, .generation = 2,
                                .peer_lost = {{{2}}, CORE_LOST_CLOSED, "reset"}};
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    bench_ready(b, spare, 1, 1);
    bench_entered(b, 1, 2, 1);
    bench_say(b, 1, lost);
    bench_entered(b, 2, 2, 1);
    bench_entered(b, spare, 2, 1);
    assert_int_equal(bench_job(b).generation, 2);
    assert_null(bench_told(b, 1, CORE_OVER));
    bench_wait_ms(b, 1500);
    assert_non_null(bench_told(b, 1, CORE_OVER));
    bench_free(b);
}

static void a_drain_is_asked_of_those_who_are_named(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 1, 3);
    assert_string_equal(bench_command(b, CORE_COMMAND_DRAIN, "n2"), "1 member");
    assert_non_null(bench_told(b, 2, CORE_DRAIN_REQUEST));
    assert_null(bench_told(b, 1, CORE_DRAIN_REQUEST));
    assert_non_null(strstr(bench_command(b, CORE_COMMAND_DRAIN, "n9"), "'n9'"));
    bench_free(b);
}

/* A node of many devices goes as one, and a command that may mean either job means none. */
static void a_drain_of_a_node_asks_all_of_it(void **state)
{
    struct bench *b = bench_new();
    const uint32_t count = 80;
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        (void)bench_join(b, "big", count, count);
    assert_string_equal(bench_command(b, CORE_COMMAND_DRAIN, "big"), "80 members");
    for (core_conn conn = 1; conn <= count; conn++)
        assert_int_equal(bench_times_told(b, conn, CORE_DRAIN_REQUEST), 1);
    (void)bench_hello(b, (struct bench_hello){.node = "big", .job = "other", .min = 2, .max = 2});
    assert_non_null(strstr(bench_command(b, CORE_COMMAND_DRAIN, "big"), "there are 2 jobs"));
    assert_int_equal(bench_times_told(b, 1, CORE_DRAIN_REQUEST), 1);
    bench_free(b);
}

/* Each was released by a message of its own, and the actions of one step were used up: the
 * coordinator ended with an assertion. */
static void many_leave_at_one_boundary(void **state)
{
    struct bench *b = bench_new();
    const uint32_t count = 80;
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        (void)bench_join(b, "big", 2, count);
    for (core_conn conn = 1; conn <= count; conn++)
        bench_entered(b, conn, 1, 0);
    for (core_conn conn = 3; conn <= count; conn++)
        leave(b, conn);
    for (uint64_t generation = 2; generation <= 3; generation++)
        for (core_conn conn = 1; conn <= count; conn++)
            if (bench_told(b, conn, CORE_RELEASED) == NULL)
                bench_entered(b, conn, generation, generation);
    assert_int_equal(bench_job(b).world, 2);
    for (core_conn conn = 3; conn <= count; conn++)
        assert_int_equal(bench_times_told(b, conn, CORE_RELEASED), 1);
    assert_null(bench_told(b, 1, CORE_RELEASED));
    bench_free(b);
}

/* The same where what is left is fewer than min: all of them are released by the plan that
 * pauses. */
static void many_leave_and_the_rest_pauses(void **state)
{
    struct bench *b = bench_new();
    const uint32_t count = 80;
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        (void)bench_join(b, "big", count - 1, count);
    for (core_conn conn = 1; conn <= count; conn++)
        bench_entered(b, conn, 1, 0);
    for (core_conn conn = 1; conn <= count; conn++)
        leave(b, conn);
    for (uint64_t generation = 2; generation <= 3; generation++)
        for (core_conn conn = 1; conn <= count; conn++)
            if (bench_told(b, conn, CORE_RELEASED) == NULL)
                bench_entered(b, conn, generation, generation);
    for (core_conn conn = 1; conn <= count; conn++)
        assert_int_equal(bench_times_told(b, conn, CORE_RELEASED), 1);
    bench_free(b);
}

/* A drain with a limit: who has not left by then leaves as lost. */
static void a_drain_ends_in_time(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 1, 2);
    bench_say(b, 1, (struct core_message){.type = CORE_LEAVE, .generation = 1,
                                          .leave = {.drain_ms = 3000}});
    assert_string_equal(bench_state(b, 1), "leaving");
    bench_wait_ms(b, 2500);
    assert_null(bench_told(b, 1, CORE_REFUSED));
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 1, CORE_REFUSED)->code, 75);
    bench_free(b);
}

/* Said again (by a new connection, in the next generation), it gives no more time. */
static void a_drain_said_again_ends_when_it_was_to(void **state)
{
    struct bench *b = bench_new();
    struct core_message say = {.type = CORE_LEAVE, .generation = 1, .leave = {.drain_ms = 3000}};
    (void)state;
    bench_running(b, 2, 1, 2);
    bench_say(b, 1, say);
    bench_wait_ms(b, 2500);
    bench_say(b, 1, say);
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 1, CORE_REFUSED)->code, 75);
    bench_free(b);
}

/* The job is paused after a loss; whoever wished to go, before or during the pause, may. */
static void who_leaves_a_paused_job_is_released(void **state)
{
    (void)state;
    for (int during = 0; during < 2; during++) {
        struct bench *b = bench_new();
        bench_running(b, 3, 3, 3);
        bench_end(b, 3);
        if (during == 0) {
            leave(b, 1);
            assert_null(bench_told(b, 1, CORE_RELEASED));
        }
        bench_report(b, 1, 1, 4);
        bench_report(b, 2, 1, 4);
        assert_string_equal(bench_job(b).state, "paused");
        if (during == 1) {
            leave(b, 1);
        }
        assert_int_equal(bench_times_told(b, 1, CORE_RELEASED), 1);
        assert_null(bench_told(b, 2, CORE_RELEASED));
        bench_free(b);
    }
}

/* A released one is not chosen, though it is still connected when the plan is stored. */
static void a_spare_that_may_go_is_in_no_plan(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    b->hold_store = true;
    bench_ready(b, spare, 1, 1);
    leave(b, spare);
    assert_int_equal(bench_times_told(b, spare, CORE_RELEASED), 1);
    b->hold_store = false;
    bench_store_answers(b, false);
    bench_tick(b);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_FORMED);
    bench_free(b);
}

/* A node of many devices leaves by one plan and is released with one message. */
static void all_of_a_node_leave_together(void **state)
{
    struct bench *b = bench_new();
    const uint32_t count = 80, stay = 2;
    (void)state;
    for (uint32_t i = 0; i < count; i++)
        (void)bench_join(b, i < stay ? "n1" : "big", 1, count);
    for (core_conn conn = 1; conn <= count; conn++)
        bench_entered(b, conn, 1, 0);
    b->hold_store = true; /* the first of them makes a plan, which waits */
    for (core_conn conn = stay + 1; conn <= count; conn++)
        leave(b, conn);
    b->hold_store = false;
    bench_store_answers(b, false);
    assert_int_equal(bench_told(b, 1, CORE_GENERATION)->mode, CORE_PLAN);
    for (uint64_t plan = 2; bench_job(b).world > stay; plan++) {
        assert_in_range(plan, 2, 3);
        for (core_conn conn = 1; conn <= count; conn++)
            if (bench_told(b, conn, CORE_GENERATION)->rank != UINT32_MAX)
                bench_entered(b, conn, plan, plan);
    }
    for (core_conn conn = stay + 1; conn <= count; conn++)
        assert_int_equal(bench_times_told(b, conn, CORE_RELEASED), 1);
    assert_int_equal(bench_job(b).recoveries, 0);
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_spare_in_step_joins_by_a_plan),
        cmocka_unit_test(newcomers_that_come_together_join_together),
        cmocka_unit_test(who_leaves_is_released_when_all_have_entered),
        cmocka_unit_test(fewer_than_min_pauses_by_plan),
        cmocka_unit_test(all_leave_and_their_relief_is_in_step),
        cmocka_unit_test(a_broken_pair_of_the_plan_is_not_forgotten),
        cmocka_unit_test(a_drain_is_asked_of_those_who_are_named),
        cmocka_unit_test(a_drain_of_a_node_asks_all_of_it),
        cmocka_unit_test(many_leave_at_one_boundary),
        cmocka_unit_test(many_leave_and_the_rest_pauses),
        cmocka_unit_test(a_drain_ends_in_time),
        cmocka_unit_test(a_drain_said_again_ends_when_it_was_to),
        cmocka_unit_test(who_leaves_a_paused_job_is_released),
        cmocka_unit_test(a_spare_that_may_go_is_in_no_plan),
        cmocka_unit_test(all_of_a_node_leave_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
