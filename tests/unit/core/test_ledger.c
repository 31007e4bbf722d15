/* Collectives: who differs and who waits for ever is told by name, once and for certain; who is
 * merely slow is awaited. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* It enters #seq of batch seq at its own line. */
static void enter_what(struct bench *b, core_conn conn, uint64_t seq, struct core_beat what)
{
    struct bench_member *m = &b->members[conn];
    static char places[BENCH_MEMBERS][16];
    (void)snprintf(places[conn], sizeof places[conn], "train.c:%u", (unsigned)conn * 10);
    what.entered = what.at = seq;
    what.left = m->ledger.left;
    what.open = true;
    what.place = places[conn];
    what.op = what.op != NULL ? what.op : "all_reduce";
    what.dtype = what.dtype != NULL ? what.dtype : "float32";
    what.name = what.name != NULL ? what.name : "grads";
    what.count = what.count != 0 ? what.count : 1000;
    m->ledger = what;
    m->ledger_us = b->now_us;
    m->phase = CORE_PHASE_EXCHANGE;
}

static void enter(struct bench *b, core_conn conn, uint64_t seq)
{
    enter_what(b, conn, seq, (struct core_beat){.batch = seq});
}

static void leave(struct bench *b, core_conn conn)
{
    b->members[conn].ledger.left = b->members[conn].ledger.at;
    b->members[conn].ledger.open = false;
    b->members[conn].ledger_us = b->now_us;
    b->members[conn].phase = CORE_PHASE_COMPUTE;
    b->members[conn].phase_us = b->now_us;
}

/* Everybody of 1 .. count passes collectives up to #seq. */
static void pass(struct bench *b, uint32_t count, uint64_t seq)
{
    for (core_conn conn = 1; conn <= count; conn++) {
        enter(b, conn, seq);
        leave(b, conn);
    }
}

static const struct bench_heard *verdict(const struct bench *b, core_conn conn)
{
    return bench_told(b, conn, CORE_VERDICT);
}

static uint32_t ended(const struct bench *b, core_conn conn)
{
    const struct bench_heard *heard = bench_told(b, conn, CORE_BARRIER_RESULT);
    return heard != NULL ? heard->code : 0;
}

static struct bench *bench_with(enum core_on_deadlock policy, uint32_t count, uint32_t min)
{
    struct bench *b = bench_new();
    b->times.on_deadlock = policy;
    bench_take_times(b);
    bench_running(b, count, min, count);
    return b;
}

static void says(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL) {
        fail_msg("'%s' is not in '%s'", wanted, text);
    }
}

/* ---- differences ---- */

static void alike_is_no_mismatch(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 3, 3);
    (void)state;
    for (uint64_t seq = 1; seq <= 20; seq++) {
        for (core_conn conn = 1; conn <= 3; conn++) {
            enter(b, conn, seq);
            bench_wait_ms(b, 100);
        }
        bench_wait_ms(b, 700);
        pass(b, 3, seq);
    }
    assert_null(verdict(b, 1));
    assert_int_equal(bench_job(b).verdicts, 0);
    bench_free(b);
}

static void each_difference_has_its_sentence(void **state)
{
    static const struct {
        struct core_beat what;
        enum core_verdict_kind kind;
        const char *sentence;
    } rows[] = {
        {{.op = "broadcast"}, CORE_VERDICT_OPS,
         "mismatch: different collectives in #7: rank 1 on n2 (n2, pid 2) is in broadcast #7 "
         "'grads' (float32 x 1000, train.c:20), but rank 0 on n1 (n1, pid 1) in all_reduce #7 "
         "'grads' (float32 x 1000, train.c:10)"},
        {{.dtype = "float64"}, CORE_VERDICT_TYPES,
         "mismatch: different types in all_reduce #7 'grads': rank 1 on n2 (n2, pid 2) exchanges "
         "float64 x 1000 (train.c:20), but rank 0 on n1 (n1, pid 1) float32 x 1000 (train.c:10)"},
        {{.count = 2000}, CORE_VERDICT_COUNTS,
         "mismatch: different counts in all_reduce #7 'grads': rank 1 on n2 (n2, pid 2) exchanges "
         "2000 elements of float32 (train.c:20), but rank 0 on n1 (n1, pid 1) 1000 (train.c:10)"},
        {{.name = "loss"}, CORE_VERDICT_NAMES,
         "mismatch: different names in all_reduce #7 of float32 x 1000: rank 1 on n2 (n2, pid 2) "
         "exchanges 'loss' (train.c:20), but rank 0 on n1 (n1, pid 1) 'grads' (train.c:10)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
        pass(b, 2, 6);
        enter(b, 1, 7);
        bench_beat(b, 1);
        bench_wait_ms(b, 200);
        assert_null(verdict(b, 1));
        enter_what(b, 2, 7, rows[i].what);
        bench_beat(b, 2);
        bench_tick(b);
        assert_non_null(verdict(b, 2));
        assert_int_equal(verdict(b, 1)->code, rows[i].kind);
        assert_string_equal(verdict(b, 1)->text, rows[i].sentence);
        bench_wait_ms(b, 5000);
        assert_int_equal(bench_times_told(b, 1, CORE_VERDICT), 1);
        assert_string_equal(bench_job(b).verdict, rows[i].sentence);
        bench_free(b);
    }
}

static void the_majority_is_right(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 4, 4);
    (void)state;
    for (core_conn conn = 1; conn <= 4; conn++) {
        enter_what(b, conn, 3, (struct core_beat){.count = conn == 1 ? 999 : 1000});
    }
    bench_wait_ms(b, 600);
    says(verdict(b, 3)->text, "rank 0 on n1 (n1, pid 1) exchanges 999 elements of float32");
    says(verdict(b, 3)->text, "but rank 1 on n2 (n2, pid 2) (and 2 more) 1000");
    bench_free(b);
}

/* A transport that does not mind goes on, and the verdict with it. */
static void a_difference_that_passes_is_forgotten(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    enter(b, 1, 1);
    enter_what(b, 2, 1, (struct core_beat){.name = "other"});
    bench_wait_ms(b, 600);
    assert_int_equal(bench_job(b).verdicts, 1);
    leave(b, 1);
    leave(b, 2);
    bench_wait_ms(b, 600);
    assert_string_equal(bench_job(b).verdict, "");
    bench_free(b);
}

static void numbers_of_another_generation_are_not_compared(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 3, 2);
    (void)state;
    enter(b, 1, 5);
    enter(b, 2, 5);
    bench_wait_ms(b, 600);
    bench_end(b, 3);
    bench_report(b, 1, 1, 0);
    bench_report(b, 2, 1, 0);
    assert_int_equal(bench_job(b).generation, 2);
    bench_entered(b, 1, 2, 0);
    bench_entered(b, 2, 2, 0);
    enter_what(b, 1, 5, (struct core_beat){.op = "broadcast"});
    b->members[2].generation = 1; /* its beat was on its way */
    bench_wait_ms(b, 3000);
    assert_null(verdict(b, 1));
    b->members[2].generation = 2;
    bench_wait_ms(b, 600);
    assert_non_null(verdict(b, 1));
    bench_free(b);
}

/* ---- waits ---- */

static void who_computes_is_awaited_and_no_verdict(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 3, 3);
    (void)state;
    b->times.startup_ms = 600000;
    pass(b, 3, 10);
    enter(b, 1, 11);
    enter(b, 3, 11);
    bench_wait_ms(b, 30000);
    assert_null(verdict(b, 1));
    says(bench_job(b).awaited, "rank 1 on n2 (n2, pid 2) is awaited in all_reduce #11 'grads' "
                               "(float32 x 1000, train.c:10) for 30.");
    says(bench_job(b).awaited, "it is in phase compute of step 0 for 30.");
    const char *why = bench_command(b, CORE_COMMAND_WHY, "");
    says(why, "\nrank 1 on n2 (n2, pid 2): compute of step 0 for 30.");
    says(why, "; left all_reduce #10 'grads' (float32 x 1000, train.c:20) 30.");
    says(why, "; awaited by rank 0, 2");
    says(why, "\nrank 0 on n1 (n1, pid 1): exchange of step 0");
    says(why, "; in all_reduce #11 'grads' (float32 x 1000, train.c:10) for 30.");
    says(why, "; waits for rank 1");
    assert_true(strstr(why, "\nrank 1") < strstr(why, "\nrank 0")); /* who is awaited is first */
    enter(b, 2, 11);
    bench_wait_ms(b, 600);
    says(bench_job(b).awaited, "all have entered all_reduce #11");
    bench_free(b);
}

/* Ranks are told in their order, whoever joined first. */
static void those_who_wait_are_in_order(void **state)
{
    static const char *const nodes[] = {"n3", "n1", "n6", "n2", "n5", "n4", "n7"};
    struct bench *b = bench_new();
    (void)state;
    for (uint32_t i = 0; i < 7; i++) {
        (void)bench_join(b, nodes[i], 7, 7);
    }
    for (core_conn conn = 1; conn <= 7; conn++) {
        bench_entered(b, conn, 1, 0);
        b->members[conn].generation = 1;
    }
    pass(b, 7, 10);
    for (core_conn conn = 1; conn <= 7; conn++) {
        if (conn != 2) { /* rank 0 */
            enter(b, conn, 11);
        }
    }
    bench_wait_ms(b, 2000);
    says(bench_command(b, CORE_COMMAND_WHY, ""), "; awaited by rank 1, 2, 3, 4 and 2 more");
    bench_free(b);
}

static void one_more_batch(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    bench_wait_ms(b, 500);
    enter(b, 1, 11);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_barrier(b, 2, "epoch-end", 1);
    bench_wait_ms(b, 600);
    assert_int_equal(verdict(b, 1)->code, CORE_VERDICT_BATCHES);
    assert_string_equal(verdict(b, 1)->text,
                        "deadlock: unequal batches: rank 0 on n1 (n1, pid 1) waits in all_reduce "
                        "#11 'grads' (float32 x 1000, train.c:10) of step 11, but rank 1 on n2 "
                        "(n2, pid 2) at barrier 'epoch-end' #1 (main.c:12) after 10 steps");
    assert_int_equal(ended(b, 2), CORE_BARRIER_DEADLOCK);
    assert_string_equal(bench_told(b, 2, CORE_BARRIER_RESULT)->text, verdict(b, 1)->text);
    /* It asks again: it is answered again, and nothing is said twice. */
    bench_barrier(b, 2, "epoch-end", 2);
    bench_wait_ms(b, 2000);
    assert_int_equal(bench_times_told(b, 2, CORE_BARRIER_RESULT), 2);
    assert_int_equal(bench_times_told(b, 2, CORE_VERDICT), 1);
    assert_int_equal(bench_job(b).verdicts, 1);
    bench_free(b);
}

static void a_barrier_in_one_branch(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 3, 3);
    (void)state;
    pass(b, 3, 10);
    for (core_conn conn = 1; conn <= 3; conn += 2) {
        enter_what(b, conn, 11, (struct core_beat){.batch = 10, .name = "metrics"});
    }
    bench_barrier(b, 2, "save", 4);
    bench_wait_ms(b, 400); /* it says that it computes: perhaps another of its threads does */
    assert_null(verdict(b, 1));
    bench_wait_ms(b, 1200);
    assert_int_equal(verdict(b, 1)->code, CORE_VERDICT_BRANCH);
    assert_string_equal(verdict(b, 1)->text,
                        "deadlock: a barrier in one branch only: rank 1 on n2 (n2, pid 2) waits at "
                        "barrier 'save' #4 (main.c:12), but rank 0 on n1 (n1, pid 1) (and 1 more) "
                        "in all_reduce #11 'metrics' (float32 x 1000, train.c:10), in the same "
                        "step (10)");
    assert_int_equal(ended(b, 2), CORE_BARRIER_MISMATCH);
    bench_free(b);
}

static void one_that_finished_is_not_waited_for_in_a_collective(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    bench_wait_ms(b, 500);
    bench_say(b, 2, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 10});
    enter(b, 1, 11);
    bench_wait_ms(b, 1000);
    assert_int_equal(verdict(b, 1)->code, CORE_VERDICT_FINISHED);
    says(verdict(b, 1)->text, "deadlock: one has finished while others wait: rank 1 on n2 (n2, pid "
                              "2) has finished after 10 steps and 10 collectives, and rank 0 on n1 "
                              "(n1, pid 1) waits in all_reduce #11 'grads' (float32 x 1000, "
                              "train.c:10) of step 11 for it");
    bench_free(b);
}

/* It came to the barrier first, and the other finished then: nobody enters anything any more. */
static void one_that_finishes_after_the_others_wait_at_a_barrier(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    bench_barrier(b, 1, "end", 1);
    bench_wait_ms(b, 500);
    bench_say(b, 2, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 10});
    bench_tick(b);
    assert_int_equal(ended(b, 1), CORE_BARRIER_FINISHED);
    bench_free(b);
}

/* Two that contradict each other need not wait for a third who computes. */
static void two_are_enough_after_two_beats(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 3, 3);
    (void)state;
    pass(b, 3, 10);
    enter(b, 1, 11);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_barrier(b, 2, "save", 1);
    bench_wait_ms(b, 800);
    assert_null(verdict(b, 1));
    bench_wait_ms(b, 1200);
    assert_non_null(verdict(b, 3));
    bench_free(b);
}

/* ---- beats of different times ---- */

/* Its last beat was sent before it entered and left #11 and came to the barrier. */
static void an_old_beat_is_no_evidence(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_wait_ms(b, 500);
    enter(b, 1, 11);
    b->now_us += 150000;
    bench_beat(b, 1); /* it has waited for long when it says so */
    bench_barrier(b, 2, "epoch-end", 1);
    bench_tick(b);
    bench_tick(b);
    assert_null(verdict(b, 1));
    enter(b, 2, 11);
    leave(b, 2);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_beat(b, 2); /* what had happened before it came to the barrier */
    b->members[1].silent = true; /* and the other's news are late */
    bench_wait_ms(b, 1200);
    assert_null(verdict(b, 1));
    b->members[1].silent = false;
    leave(b, 1);
    bench_barrier(b, 1, "epoch-end", 1);
    bench_wait_ms(b, 600);
    assert_int_equal(ended(b, 1), CORE_BARRIER_RELEASED);
    assert_int_equal(bench_job(b).verdicts, 0);
    bench_free(b);
}

static void nor_of_one_that_has_finished_since(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    bench_wait_ms(b, 500);
    enter(b, 1, 11);
    b->now_us += 150000;
    bench_beat(b, 1);
    bench_say(b, 2, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 11});
    bench_tick(b);
    bench_tick(b);
    enter(b, 2, 11);
    leave(b, 2);
    bench_beat(b, 2);
    bench_wait_ms(b, 1000);
    assert_null(verdict(b, 1));
    bench_free(b);
}

/* A broadcast, say, whose root goes on at once: a beat that saw it in there says nothing. */
static void a_wait_is_one_when_a_beat_has_called_it_long(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_barrier(b, 2, "x", 1);
    bench_beat(b, 2);
    enter(b, 1, 11);
    bench_beat(b, 1);
    b->members[1].silent = true;
    bench_wait_ms(b, 1200);
    assert_null(verdict(b, 1));
    b->members[1].silent = false;
    bench_wait_ms(b, 600);
    assert_non_null(verdict(b, 1));
    bench_free(b);
}

/* One that was begun and goes on beside the computing is not waited in. */
static void who_computes_beside_a_collective_does_not_wait(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_barrier(b, 2, "x", 1);
    enter(b, 1, 11);
    bench_wait_ms(b, 100);
    b->members[1].phase = CORE_PHASE_COMPUTE;
    b->members[1].phase_us = b->now_us;
    bench_wait_ms(b, 3000);
    assert_null(verdict(b, 1));
    b->members[1].phase = CORE_PHASE_EXCHANGE;
    bench_wait_ms(b, 600);
    assert_non_null(verdict(b, 1));
    bench_free(b);
}

/* Random walks of members that do the same in their own time, with beats that are lost or late:
 * never a verdict. */
static void skewed_beats_of_a_healthy_group_are_never_a_deadlock(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 3, 3);
        uint64_t at[4] = {0}, barriers[4] = {0}, draw = seed;
        bool waits[4] = {false}, at_barrier[4] = {false};
        for (uint32_t round = 0; round < 1500; round++) {
            draw = draw * 6364136223846793005u + 1442695040888963407u;
            core_conn conn = 1 + (draw >> 33) % 3;
            uint64_t lowest = at[1] < at[2] ? at[1] : at[2];
            lowest = lowest < at[3] ? lowest : at[3];
            if (at_barrier[conn]) {
                const struct bench_heard *heard = bench_told(b, conn, CORE_BARRIER_RESULT);
                if (heard != NULL && heard->seq == barriers[conn]) {
                    assert_int_equal(heard->code, CORE_BARRIER_RELEASED);
                    at_barrier[conn] = false;
                    at[conn]++;
                    leave(b, conn);
                }
            } else if (waits[conn]) {
                if (lowest >= at[conn]) {
                    waits[conn] = false;
                    leave(b, conn);
                }
            } else if ((draw >> 40) % 3 != 0) {
                /* every fifth place is a barrier */
                if ((at[conn] + 1) % 5 == 0) {
                    at_barrier[conn] = true;
                    b->members[conn].phase = CORE_PHASE_WAITING;
                    bench_barrier(b, conn, "five", ++barriers[conn]);
                } else {
                    waits[conn] = true;
                    enter(b, conn, ++at[conn]);
                }
            }
            if ((draw >> 45) % 4 == 0) {
                bench_beat(b, conn);
            }
            if ((draw >> 50) % 3 == 0) {
                b->members[1 + (draw >> 53) % 3].silent ^= (draw >> 57) % 2;
            }
            bench_wait_ms(b, 100);
            for (core_conn c = 1; c <= 3 && round % 10 == 0; c++) { /* silent for a second */
                b->members[c].silent = false;
                bench_beat(b, c);
            }
            b->heard_count = b->heard_count > 1500 ? 0 : b->heard_count;
        }
        assert_int_equal(bench_job(b).verdicts, 0);
        assert_true(at[1] > 40);
        assert_string_equal(bench_job(b).state, "running");
        bench_free(b);
    }
}

/* Collectives go on while another thread waits at a barrier. */
static void who_computes_beside_a_barrier_is_waited_for(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    pass(b, 2, 10);
    bench_barrier(b, 2, "saved", 1);
    enter(b, 1, 11);
    for (int i = 0; i < 10; i++) {
        b->members[2].phase_us = b->now_us; /* a step goes on */
        bench_wait_ms(b, 400);
    }
    assert_null(verdict(b, 1));
    bench_free(b);
}

static void who_does_not_mark_collectives_is_not_judged(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    enter(b, 1, 1);
    leave(b, 1);
    enter(b, 1, 2);
    b->members[2].phase = CORE_PHASE_WAITING;
    bench_barrier(b, 2, "x", 1);
    bench_wait_ms(b, 5000);
    assert_null(verdict(b, 1));
    bench_free(b);
}

/* Whatever it calls its phase, it waits; the one who owes is out. */
static void who_waits_in_a_collective_is_not_stalled(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 1);
    (void)state;
    for (uint64_t step = 1; step <= 4; step++) { /* steps of half a second are measured */
        bench_wait_ms(b, 500);
        b->members[1].step = b->members[2].step = step;
    }
    pass(b, 2, 10);
    enter(b, 1, 11);
    b->members[1].phase = CORE_PHASE_COMPUTE;
    b->members[1].phase_us = b->now_us;
    bench_wait_ms(b, 14000);
    assert_null(bench_told(b, 1, CORE_REFUSED));
    assert_non_null(bench_told(b, 2, CORE_REFUSED));
    says(bench_told(b, 2, CORE_REFUSED)->text, "stalled: in compute");
    bench_free(b);
}

/* ---- what follows ---- */

static void the_job_fails_with_the_sentence(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_ABORT, 2, 2);
    (void)state;
    enter(b, 1, 1);
    enter_what(b, 2, 1, (struct core_beat){.count = 4});
    bench_wait_ms(b, 600);
    assert_string_equal(bench_job(b).state, "failed");
    for (core_conn conn = 1; conn <= 2; conn++) {
        assert_int_equal(bench_told(b, conn, CORE_REFUSED)->code, 77);
        says(bench_told(b, conn, CORE_REFUSED)->text, "different counts in all_reduce #1");
    }
    /* It is stored: who comes after a restart is told the same. */
    bench_restart(b);
    core_conn late = bench_join(b, "n9", 2, 2);
    assert_int_equal(bench_told(b, late, CORE_REFUSED)->code, 77);
    bench_free(b);
}

static void the_minority_is_out_and_the_rest_goes_on(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 3, 2);
    (void)state;
    for (core_conn conn = 1; conn <= 3; conn++) {
        enter_what(b, conn, 1, (struct core_beat){.dtype = conn == 2 ? "int8" : "float32"});
    }
    bench_wait_ms(b, 600);
    assert_int_equal(bench_told(b, 2, CORE_REFUSED)->code, 75);
    says(bench_told(b, 2, CORE_REFUSED)->text, "different types");
    assert_non_null(bench_told(b, 1, CORE_OVER));
    says(bench_told(b, 1, CORE_OVER)->text, "rank 1 on n2");
    bench_report(b, 1, 1, 0);
    bench_report(b, 3, 1, 0);
    assert_string_equal(bench_job(b).state, "running");
    assert_int_equal(bench_job(b).world, 2);
    assert_string_equal(bench_job(b).verdict, "");
    bench_free(b);
}

/* The barrier of those who stay is not given up: they enter it again. */
static void of_two_barriers_the_smaller_one_goes(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 3, 2);
    (void)state;
    bench_barrier(b, 1, "one", 1);
    bench_barrier(b, 2, "two", 1);
    bench_barrier(b, 3, "two", 1);
    bench_tick(b);
    assert_int_equal(bench_told(b, 1, CORE_REFUSED)->code, 75);
    assert_int_equal(ended(b, 2), CORE_BARRIER_GENERATION);
    assert_int_equal(ended(b, 3), CORE_BARRIER_GENERATION);
    bench_free(b);
}

static void of_two_halves_the_higher_rank_goes(void **state)
{
    for (core_conn waits = 1; waits <= 2; waits++) {
        struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 2, 1);
        core_conn other = 3 - waits;
        (void)state;
        pass(b, 2, 1);
        enter(b, waits, 2);
        b->members[other].phase = CORE_PHASE_WAITING;
        bench_barrier(b, other, "x", 1);
        bench_wait_ms(b, 1000);
        assert_int_equal(bench_told(b, 2, CORE_REFUSED)->code, 75);
        assert_null(bench_told(b, 1, CORE_REFUSED));
        bench_free(b);
    }
}

static void the_one_who_finished_goes(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_EVICT, 2, 1);
    (void)state;
    pass(b, 2, 3);
    bench_wait_ms(b, 500);
    bench_say(b, 1, (struct core_message){.type = CORE_FINISHED, .generation = 1, .step = 3});
    enter(b, 2, 4);
    bench_wait_ms(b, 1000);
    assert_int_equal(bench_told(b, 1, CORE_REFUSED)->code, 75);
    assert_null(bench_told(b, 2, CORE_REFUSED));
    bench_free(b);
}

/* ---- why ---- */

static void the_answer_is_bounded_and_counts_the_rest(void **state)
{
    struct bench *b = bench_new();
    const char *why;
    uint32_t lines = 0, more = 0;
    (void)state;
    for (uint32_t i = 0; i < 90; i++) {
        core_conn conn = bench_hello(b, (struct bench_hello){
            .node = "a-node-with-a-name-of-sixty-four-bytes-aaaaaaaaaaaaaaaaaaaaaaaaa",
            .participant = i, .of = 91});
        bench_barrier(b, conn, "the same long name of a barrier for each of them", 1);
    }
    why = bench_command(b, CORE_COMMAND_WHY, "");
    assert_in_range(strlen(why), 7000, 8191);
    for (const char *at = why; (at = strstr(at, "\nparticipant ")) != NULL; at++) {
        lines++;
    }
    assert_int_equal(sscanf(strstr(why, "\nand "), "\nand %u more", &more), 1);
    assert_int_equal(lines + more, 90);
    bench_free(b);
}

static void the_place_of_the_thread_is_shown(void **state)
{
    struct bench *b = bench_with(CORE_ON_DEADLOCK_REPORT, 2, 2);
    (void)state;
    b->members[2].ledger.where = "thread 7 sleeps in futex: futex_wait < do_futex";
    bench_wait_ms(b, 500);
    says(bench_command(b, CORE_COMMAND_WHY, ""), "thread 7 sleeps in futex: futex_wait < do_futex");
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alike_is_no_mismatch),
        cmocka_unit_test(each_difference_has_its_sentence),
        cmocka_unit_test(the_majority_is_right),
        cmocka_unit_test(a_difference_that_passes_is_forgotten),
        cmocka_unit_test(numbers_of_another_generation_are_not_compared),
        cmocka_unit_test(who_computes_is_awaited_and_no_verdict),
        cmocka_unit_test(those_who_wait_are_in_order),
        cmocka_unit_test(one_more_batch),
        cmocka_unit_test(a_barrier_in_one_branch),
        cmocka_unit_test(one_that_finished_is_not_waited_for_in_a_collective),
        cmocka_unit_test(one_that_finishes_after_the_others_wait_at_a_barrier),
        cmocka_unit_test(two_are_enough_after_two_beats),
        cmocka_unit_test(an_old_beat_is_no_evidence),
        cmocka_unit_test(nor_of_one_that_has_finished_since),
        cmocka_unit_test(a_wait_is_one_when_a_beat_has_called_it_long),
        cmocka_unit_test(who_computes_beside_a_collective_does_not_wait),
        cmocka_unit_test(skewed_beats_of_a_healthy_group_are_never_a_deadlock),
        cmocka_unit_test(who_computes_beside_a_barrier_is_waited_for),
        cmocka_unit_test(who_does_not_mark_collectives_is_not_judged),
        cmocka_unit_test(who_waits_in_a_collective_is_not_stalled),
        cmocka_unit_test(the_job_fails_with_the_sentence),
        cmocka_unit_test(the_minority_is_out_and_the_rest_goes_on),
        cmocka_unit_test(of_two_barriers_the_smaller_one_goes),
        cmocka_unit_test(of_two_halves_the_higher_rank_goes),
        cmocka_unit_test(the_one_who_finished_goes),
        cmocka_unit_test(the_answer_is_bounded_and_counts_the_rest),
        cmocka_unit_test(the_place_of_the_thread_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
