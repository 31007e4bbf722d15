/* Barriers are released exactly once; deadlock is decided, with a sentence that says who waits
 * where. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t ended(const struct bench *b, core_conn conn)
{
    const struct bench_heard *heard = bench_told(b, conn, CORE_BARRIER_RESULT);
    return heard != NULL ? heard->code : 0;
}

static void enter_in(struct bench *b, core_conn conn, const char *name, uint64_t seq,
                     uint64_t generation)
{
    bench_say(b, conn, (struct core_message){.type = CORE_BARRIER_ENTER, .generation = generation,
                                             .barrier_enter = {name, "main.c:12", seq}});
}

static void participants(struct bench *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        (void)bench_hello(b, (struct bench_hello){.node = "n1", .participant = i, .of = count});
    }
}

static void all_are_released_exactly_once(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 3, 3);
    bench_barrier(b, 1, "epoch", 1);
    bench_barrier(b, 2, "epoch", 1);
    assert_int_equal(ended(b, 1), 0);
    bench_barrier(b, 3, "epoch", 1);
    for (core_conn conn = 1; conn <= 3; conn++) {
        assert_int_equal(ended(b, conn), CORE_BARRIER_RELEASED);
        assert_int_equal(bench_times_told(b, conn, CORE_BARRIER_RESULT), 1);
    }
    /* Said again by one whose connection broke before it heard of it. */
    bench_barrier(b, 2, "epoch", 1);
    assert_int_equal(ended(b, 2), CORE_BARRIER_RELEASED);
    assert_int_equal(bench_times_told(b, 1, CORE_BARRIER_RESULT), 1);
    bench_free(b);
}

static void entering_again_does_not_count_twice(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_barrier(b, 1, "epoch", 1);
    bench_barrier(b, 1, "epoch", 1);
    assert_int_equal(ended(b, 1), 0);
    bench_barrier(b, 2, "epoch", 1);
    assert_int_equal(ended(b, 1), CORE_BARRIER_RELEASED);
    bench_free(b);
}

static void a_deadlock_names_who_waits_where(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    participants(b, 3);
    bench_barrier(b, 1, "save", 1);
    bench_wait_ms(b, 1200);
    bench_barrier(b, 2, "load", 2);
    assert_int_equal(ended(b, 1), 0);
    const char *why = bench_command(b, CORE_COMMAND_WHY, "");
    assert_non_null(strstr(why, "participant 0 on n1 (pid 1): waits at barrier 'save' #1 "
                                "(main.c:12) for 1.2 s"));
    bench_barrier(b, 3, "load", 2);
    assert_int_equal(ended(b, 1), CORE_BARRIER_DEADLOCK);
    assert_int_equal(ended(b, 3), CORE_BARRIER_DEADLOCK);
    const char *text = bench_told(b, 2, CORE_BARRIER_RESULT)->text;
    assert_non_null(strstr(text, "everybody waits and nothing can be met"));
    assert_non_null(strstr(text, "participant 0 on n1 (pid 1) waits at barrier 'save' #1"));
    assert_non_null(strstr(text, "participant 2 on n1 (pid 3) waits at barrier 'load' #2"));
    bench_free(b);
}

/* The same call by number, and two names: the programs differ. */
static void a_mismatch_is_told_from_a_deadlock(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    bench_barrier(b, 1, "epoch-end", 7);
    bench_barrier(b, 2, "evaluate", 7);
    bench_tick(b);
    assert_int_equal(ended(b, 1), CORE_BARRIER_MISMATCH);
    assert_non_null(strstr(bench_told(b, 1, CORE_BARRIER_RESULT)->text,
                           "rank 1 on n2 (n2, pid 2) waits at barrier 'evaluate' #7 (main.c:12)"));
    assert_int_equal(bench_told(b, 2, CORE_VERDICT)->code, CORE_VERDICT_BARRIERS);
    bench_free(b);
}

/* Members of different age count differently: each is told its own number, over several ticks if
 * need be. */
static void different_numbers_are_all_released(void **state)
{
    struct bench *b = bench_new();
    const uint32_t count = 80;
    (void)state;
    participants(b, count);
    for (core_conn conn = 1; conn <= count; conn++) {
        bench_barrier(b, conn, "epoch", 100 + conn);
    }
    bench_wait_ms(b, 500);
    for (core_conn conn = 1; conn <= count; conn++) {
        assert_int_equal(bench_times_told(b, conn, CORE_BARRIER_RESULT), 1);
        assert_int_equal(ended(b, conn), CORE_BARRIER_RELEASED);
        assert_int_equal(bench_told(b, conn, CORE_BARRIER_RESULT)->seq, 100 + conn);
    }
    bench_free(b);
}

static void one_that_left_is_not_waited_for(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    participants(b, 2);
    bench_barrier(b, 1, "end", 1);
    bench_end(b, 2);
    assert_int_equal(ended(b, 1), CORE_BARRIER_FINISHED);
    assert_non_null(strstr(bench_told(b, 1, CORE_BARRIER_RESULT)->text, "1 of 2 finished or left"));
    bench_free(b);
}

/* Who waits at a barrier for those who have finished is told who that is: the lowest of them. */
static void those_who_finished_are_named(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 3, 3);
    bench_barrier(b, 1, "end", 1);
    bench_say(b, 3, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 12});
    assert_int_equal(ended(b, 1), 0); /* one still computes */
    bench_say(b, 2, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 10});
    bench_tick(b);
    assert_int_equal(ended(b, 1), CORE_BARRIER_FINISHED);
    assert_string_equal(bench_told(b, 1, CORE_BARRIER_RESULT)->text,
                        "deadlock: 2 of 3 finished or left while others wait: rank 1 on n2 (n2, "
                        "pid 2) has finished after 10 steps; rank 0 on n1 (n1, pid 1) waits at "
                        "barrier 'end' #1 (main.c:12) for 0.0 s");
    bench_free(b);
}

static void the_end_of_a_generation_returns_those_who_wait(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 3, 2, 3);
    bench_barrier(b, 1, "epoch", 1);
    bench_end(b, 3);
    assert_int_equal(ended(b, 1), CORE_BARRIER_GENERATION);
    bench_barrier(b, 1, "epoch", 2);
    assert_int_equal(ended(b, 1), CORE_BARRIER_GENERATION);
    assert_int_equal(bench_times_told(b, 1, CORE_BARRIER_RESULT), 2);
    bench_free(b);
}

/* Found by puppets in the simulator: three of four had entered the plan, and as many as the older
 * generation had were taken for all. */
static void a_plan_that_all_have_not_entered_releases_nobody(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    enter_in(b, 1, "epoch", 1, 1);
    bench_ready(b, spare, 1, 1);
    bench_entered(b, 1, 2, 1);
    assert_int_equal(ended(b, 1), CORE_BARRIER_GENERATION);
    enter_in(b, 1, "epoch", 2, 2);
    bench_entered(b, 2, 2, 1);
    enter_in(b, 2, "epoch", 1, 2);
    assert_int_equal(ended(b, 2), 0);
    bench_entered(b, spare, 2, 1);
    assert_int_equal(ended(b, 2), 0);
    enter_in(b, spare, "epoch", 1, 2);
    assert_int_equal(ended(b, 1), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, 2), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, spare), CORE_BARRIER_RELEASED);
    bench_free(b);
}

/* Found by puppets in the simulator: one waited in the older generation when the plan reached it,
 * the others in the plan's, and all of them were told "deadlock". */
static void one_that_has_missed_the_plan_is_sent_on_to_it(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 3);
    core_conn spare = bench_join(b, "n3", 2, 3);
    enter_in(b, 2, "old", 1, 1);
    bench_ready(b, spare, 1, 1);
    bench_entered(b, 1, 2, 1);
    bench_entered(b, spare, 2, 1);
    enter_in(b, 1, "new", 1, 2);
    enter_in(b, spare, "new", 1, 2);
    bench_wait_ms(b, 500);
    assert_int_equal(ended(b, 2), CORE_BARRIER_GENERATION);
    assert_int_equal(ended(b, 1), 0);
    bench_entered(b, 2, 2, 1);
    enter_in(b, 2, "old", 1, 1); /* said again after a broken connection */
    assert_int_equal(bench_times_told(b, 2, CORE_BARRIER_RESULT), 2);
    enter_in(b, 2, "new", 2, 2);
    bench_wait_ms(b, 500);
    assert_int_equal(ended(b, 1), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, 2), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, spare), CORE_BARRIER_RELEASED);
    bench_free(b);
}

/* Scripts and workers may choose the same word: each has its own barrier of that name. */
static void workers_and_participants_do_not_meet(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 2, 2, 2);
    participants(b, 2);
    bench_barrier(b, 1, "start", 1);
    bench_barrier(b, 3, "start", 1);
    assert_int_equal(ended(b, 3), 0);
    bench_barrier(b, 4, "start", 1);
    assert_int_equal(ended(b, 1), 0);
    assert_int_equal(ended(b, 3), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, 4), CORE_BARRIER_RELEASED);
    bench_barrier(b, 2, "start", 1);
    assert_int_equal(ended(b, 1), CORE_BARRIER_RELEASED);
    assert_int_equal(ended(b, 2), CORE_BARRIER_RELEASED);
    bench_free(b);
}

/* The workers are done, the scripts around them are not. */
static void one_that_left_after_the_end_is_not_waited_for(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    bench_running(b, 1, 1, 1);
    participants(b, 2);
    bench_say(b, 1, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 5});
    assert_string_equal(bench_job(b).state, "done");
    assert_int_equal(bench_job(b).step, 5); /* though no beat told of it */
    bench_barrier(b, 2, "tidy up", 1);
    bench_end(b, 3);
    assert_int_equal(ended(b, 2), CORE_BARRIER_FINISHED);
    bench_free(b);
}

/* A participant that was stopped blocked its barrier for good. */
static void a_silent_participant_is_not_waited_for(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    participants(b, 2);
    bench_barrier(b, 1, "epoch", 1);
    bench_wait_ms(b, 10000);
    assert_int_equal(ended(b, 1), 0);
    b->members[2].silent = true;
    bench_wait_ms(b, 3500);
    assert_int_equal(ended(b, 1), CORE_BARRIER_FINISHED);
    assert_int_equal(b->closed, 1u << 2);
    bench_free(b);
}

/* One of three is killed before the third has come: that is said, in the log and to who asks. */
static void a_participant_that_is_lost_is_named(void **state)
{
    struct bench *b = bench_new();
    (void)state;
    (void)bench_hello(b, (struct bench_hello){.node = "n1", .participant = 0, .of = 3});
    (void)bench_hello(b, (struct bench_hello){.node = "n2", .participant = 1, .of = 3});
    bench_barrier(b, 1, "epoch", 1);
    assert_string_equal(bench_job(b).waits_for, "2 of 3 participants are here");
    bench_end(b, 2);
    assert_string_equal(bench_logged(b, "is lost"),
                        "participant 1 on n2 (pid 2) is lost: its connection ended");
    assert_string_equal(bench_job(b).waits_for, "1 of 3 participants are here, 1 has left");
    assert_non_null(strstr(bench_command(b, CORE_COMMAND_WHY, ""), "1 of 3 participants are here"));
    bench_free(b);
}

static void enter_number(struct bench *b, core_conn conn, const char *name, uint64_t seq,
                         uint64_t number)
{
    bench_say(b, conn,
              (struct core_message){.type = CORE_BARRIER_ENTER, .generation = 1,
                                    .barrier_enter = {name, "main.c:12", seq, number}});
}

static core_conn back(struct bench *b, uint32_t number, uint64_t passed)
{
    return bench_hello(b, (struct bench_hello){.node = "n1", .number = number,
                                               .attach = CORE_ATTACH_RUNNING, .generation = 1,
                                               .passed = passed, .passed_name = "epoch"});
}

/* The coordinator ends in the middle of a release: two were told and one was not. It counts as
 * released, whoever of them comes back first; their own counts differ, that of the generation does
 * not. */
static void what_one_has_passed_is_released(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        struct bench *b = bench_new();
        core_conn conns[3];

        bench_running(b, 3, 3, 3);
        bench_restart(b);
        if (first == 0) { /* who was not told comes first */
            conns[2] = back(b, 3, 1);
            enter_number(b, conns[2], "epoch", 7, 2);
            assert_int_equal(ended(b, conns[2]), 0);
        }
        conns[0] = back(b, 1, 2);
        conns[1] = back(b, 2, 2);
        if (first == 1) {
            conns[2] = back(b, 3, 1);
            enter_number(b, conns[2], "epoch", 7, 2);
        }
        assert_int_equal(ended(b, conns[2]), CORE_BARRIER_RELEASED);
        assert_int_equal(bench_told(b, conns[2], CORE_BARRIER_RESULT)->seq, 7);
        /* The next one of the same name waits for all, as ever. */
        enter_number(b, conns[0], "epoch", 3, 3);
        enter_number(b, conns[2], "epoch", 8, 3);
        assert_int_equal(ended(b, conns[0]), 0);
        enter_number(b, conns[1], "epoch", 3, 3);
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(ended(b, conns[i]), CORE_BARRIER_RELEASED);
        }
        bench_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_released_exactly_once),
        cmocka_unit_test(entering_again_does_not_count_twice),
        cmocka_unit_test(a_deadlock_names_who_waits_where),
        cmocka_unit_test(a_mismatch_is_told_from_a_deadlock),
        cmocka_unit_test(different_numbers_are_all_released),
        cmocka_unit_test(one_that_left_is_not_waited_for),
        cmocka_unit_test(those_who_finished_are_named),
        cmocka_unit_test(the_end_of_a_generation_returns_those_who_wait),
        cmocka_unit_test(a_plan_that_all_have_not_entered_releases_nobody),
        cmocka_unit_test(one_that_has_missed_the_plan_is_sent_on_to_it),
        cmocka_unit_test(workers_and_participants_do_not_meet),
        cmocka_unit_test(one_that_left_after_the_end_is_not_waited_for),
        cmocka_unit_test(a_silent_participant_is_not_waited_for),
        cmocka_unit_test(a_participant_that_is_lost_is_named),
        cmocka_unit_test(what_one_has_passed_is_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
