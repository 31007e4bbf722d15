/* The session: connections, beats, deadlines, what is stale, the end. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void joins_and_beats(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.known_generation = 7;
    bench.config.known_applied = 120;
    session_init(&bench.session, &bench.config, bench.memory, session_memory_bytes(MEMBERS_MAX));
    assert_true(session_wake_us(&bench.session) == SESSION_NEVER_US);
    bench_step_type(&bench, SESSION_START);
    (void)bench_action(&bench, SESSION_CONNECT);
    bench_step_type(&bench, SESSION_CONNECTED);
    assert_int_equal(bench_sent(&bench)->header.type, FRAME_HELLO);
    assert_int_equal(bench_sent(&bench)->header.generation, 7);
    assert_int_equal(bench_sent(&bench)->header.step, 120);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_JOIN);
    assert_int_equal(bench_sent(&bench)->hello.applied, 120);
    assert_string_equal(bench_sent(&bench)->hello.job, "mnist");
    assert_true(wire_id_equal(&bench_sent(&bench)->hello.member_id, &bench_self));
    bench_welcome(&bench);
    assert_int_equal(bench_news(&bench)->news, SESSION_NEWS_UP);
    for (uint32_t beat = 1; beat <= 3; beat++) {
        assert_int_equal(session_wake_us(&bench.session), bench.now_us + 500000);
        bench_wake_at(&bench, bench.now_us + 500000);
        assert_int_equal(bench_sent(&bench)->header.type, FRAME_BEAT);
        assert_int_equal(bench_sent(&bench)->beat.seq, beat);
        assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_STARTUP);
        assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, beat * 500);
    }
    bench_release(&bench);
}

static struct session_ledger open_at(uint64_t generation, uint64_t at, uint64_t since_us)
{
    struct session_ledger ledger = {.generation = generation, .entered = at, .left = at - 1,
                                    .at = at, .open = true, .since_us = since_us, .count = 7};

    (void)snprintf(ledger.op, sizeof ledger.op, "all_reduce");
    return ledger;
}

/* What it says of another generation than the one that is held is not told. */
static void beats_tell_the_ledger_of_their_generation(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 1, 11);
    bench_entered(&bench, 1, 11, 0);
    bench_step(&bench, (struct session_event){.type = SESSION_LEDGER,
                                              .ledger = open_at(1, 9, bench.now_us)});
    bench_wake_at(&bench, session_wake_us(&bench.session));
    assert_string_equal(bench_sent(&bench)->beat.op, "all_reduce");
    assert_int_equal(bench_sent(&bench)->beat.at, 9);
    assert_int_equal(bench_sent(&bench)->beat.left, 8);
    assert_int_equal(bench_sent(&bench)->beat.count, 7);
    assert_true(bench_sent(&bench)->beat.open);
    assert_int_equal(bench_sent(&bench)->beat.at_age_ms, SESSION_LONG_MS);
    bench_step(&bench, (struct session_event){.type = SESSION_LEDGER,
                                              .ledger = open_at(2, 1, bench.now_us)});
    bench_wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.at, 0);
    assert_int_equal(bench_sent(&bench)->beat.entered, 0);
    assert_string_equal(bench_sent(&bench)->beat.op, "");
    bench_release(&bench);
}

/* One that lasts is told before the next beat is due: once, and the regular ones stay as they
 * were. */
static void a_long_wait_is_told_early_once(void **state)
{
    struct bench bench;
    uint64_t begun_us, seq;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    begun_us = bench.now_us;
    seq = bench_sent(&bench)->beat.seq;
    bench.now_us += 50000;
    bench_step(&bench, (struct session_event){.type = SESSION_LEDGER,
                                              .ledger = open_at(0, 1, bench.now_us)});
    assert_int_equal(session_wake_us(&bench.session), begun_us + 150000);
    bench_wake_at(&bench, begun_us + 150000);
    assert_int_equal(bench_sent(&bench)->beat.seq, seq + 1);
    assert_int_equal(session_wake_us(&bench.session), begun_us + 500000);
    /* a barrier that is entered then waits for its turn */
    bench.now_us += 10000;
    bench_step(&bench, (struct session_event){.type = SESSION_BARRIER, .barrier = {.name = "b"}});
    assert_int_equal(session_wake_us(&bench.session), begun_us + 500000);
    bench_wake_at(&bench, begun_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.seq, seq + 2);
    assert_int_equal(session_wake_us(&bench.session), begun_us + 1000000);
    assert_int_equal(session_stands_since_us(&bench.session), begun_us + 160000);
    bench_release(&bench);
}

static void beats_tell_where_the_thread_stands(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_step(&bench, (struct session_event){.type = SESSION_WHERE, .text = "thread 7 sleeps"});
    bench_wake_at(&bench, session_wake_us(&bench.session));
    assert_string_equal(bench_sent(&bench)->beat.where, "thread 7 sleeps");
    bench_release(&bench);
}

static void a_verdict_is_of_the_generation_that_is_held(void **state)
{
    struct bench bench;
    struct wire_message verdict = {.header = {.type = FRAME_VERDICT, .generation = 1},
                                   .verdict = {.kind = WIRE_VERDICT_COUNTS, .text = "they differ"}};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 1, 11);
    bench_hear(&bench, &verdict);
    assert_int_equal(bench_news(&bench)->message->verdict.kind, WIRE_VERDICT_COUNTS);
    verdict.header.generation = 2;
    bench_hear(&bench, &verdict);
    assert_int_equal(bench.actions.count, 0);
    bench_release(&bench);
}

static void beats_tell_the_status(void **state)
{
    struct bench bench;
    struct session_status status = {.phase = WIRE_PHASE_EXCHANGE,
                                    .applied = 41,
                                    .loss = 0.5f,
                                    .shard_us = 7000,
                                    .shards = 8};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench.now_us += 100000;
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    assert_int_equal(bench.actions.count, 0);
    bench_wake_at(&bench, bench.now_us + 400000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE);
    assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, 400);
    assert_int_equal(bench_sent(&bench)->header.step, 41);
    assert_int_equal(bench_sent(&bench)->beat.shard_us, 7000);
    assert_int_equal(bench_sent(&bench)->beat.shards, 8);
    /* the same again does not make the phase younger, another step does */
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, 900);
    status.applied = 42;
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, 500);
    status.part = 3; /* nor is a phase overdue that goes on, however long it takes in all */
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, 500);
    bench_release(&bench);
}

/* A thread that slept sends one beat, not a burst, and says how late it was. */
static void late_beat_is_one_beat(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_wake_at(&bench, bench.now_us + 4 * SECOND_US);
    assert_int_equal(bench_count_sent(&bench, FRAME_BEAT), 1);
    assert_int_equal(bench_sent(&bench)->beat.lag_ms, 3500);
    assert_int_equal(session_wake_us(&bench.session), bench.now_us + 500000);
    bench_release(&bench);
}

/* A beat that is a little late does not move the ones after it. */
static void beats_keep_their_grid(void **state)
{
    struct bench bench;
    uint64_t began;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    began = bench.now_us;
    bench_wake_at(&bench, began + 510000);
    assert_int_equal(bench_sent(&bench)->beat.lag_ms, 10);
    assert_int_equal(session_wake_us(&bench.session), began + 1000000);
    bench_release(&bench);
}

/* WAKE before its time does nothing, in any state. */
static void early_wakes_are_harmless(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_step_type(&bench, SESSION_WAKE);
    assert_int_equal(bench.actions.count, 0);
    bench_step_type(&bench, SESSION_START);
    bench_wake_at(&bench, bench.now_us + SECOND_US);
    assert_int_equal(bench.actions.count, 0);
    bench_step_type(&bench, SESSION_CONNECTED);
    assert_int_equal(session_wake_us(&bench.session), bench.now_us + 30 * SECOND_US);
    bench_wake_at(&bench, bench.now_us + SECOND_US);
    assert_int_equal(bench.actions.count, 0);
    bench_welcome(&bench);
    bench_wake_at(&bench, bench.now_us + 1000);
    assert_int_equal(bench.actions.count, 0);
    bench_release(&bench);
}

/* Draws the largest pause (beyond = 0) or one more, which wraps to none (beyond = 1). */
static void check_pauses(uint64_t beyond)
{
    static const uint64_t longest_us[] = {100000,  200000,  400000,  800000, 1600000,
                                          3200000, 5000000, 5000000, 5000000};
    struct bench bench;

    bench_init(&bench);
    bench.config.connect_timeout_ms = 0;
    bench_step_type(&bench, SESSION_START);
    for (size_t i = 0; i < sizeof longest_us / sizeof longest_us[0]; i++) {
        bench.random = longest_us[i] + beyond;
        bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "refused"});
        assert_int_equal(bench.actions.count, 0);
        assert_int_equal(session_wake_us(&bench.session) - bench.now_us,
                         beyond ? 0 : longest_us[i]);
        if (!beyond) {
            bench_wake_at(&bench, session_wake_us(&bench.session) - 1);
            assert_int_equal(bench.actions.count, 0);
        }
        bench_wake_at(&bench, session_wake_us(&bench.session));
        (void)bench_action(&bench, SESSION_CONNECT);
    }
    bench_release(&bench);
}

static void pauses_are_full_jitter(void **state)
{
    (void)state;
    check_pauses(0);
    check_pauses(1);
}

/* A group of two does not have to spread over five seconds. */
static void a_small_group_comes_back_soon(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    for (uint32_t i = 0; i < 12; i++) {
        bench.random = i < 3 ? 0 : 500000;
        bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "refused"});
        assert_int_equal(session_wake_us(&bench.session) - bench.now_us, bench.random);
        bench_wake_at(&bench, session_wake_us(&bench.session));
        (void)bench_action(&bench, SESSION_CONNECT);
    }
    bench_release(&bench);
}

/* A welcome makes the next pause short again. */
static void welcome_resets_the_pauses(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    for (uint32_t i = 0; i < 8; i++) {
        bench.random = 100000;
        bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "gone"});
        assert_int_equal(session_wake_us(&bench.session) - bench.now_us, 100000);
        bench_wake_at(&bench, session_wake_us(&bench.session));
        bench_step_type(&bench, SESSION_CONNECTED);
        bench_welcome(&bench);
        assert_int_equal(bench.session.attempts, 0);
    }
    bench_release(&bench);
}

/* Rosters of many generations fit in the memory of two. */
static void rosters_do_not_pile_up(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    for (uint64_t number = 1; number <= 200; number += 2) {
        bench_tell(&bench, WIRE_MODE_FORMED, number, number);
        bench_tell(&bench, WIRE_MODE_PLAN, number + 1, number + 1);
    }
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->header.generation, 199);
    assert_int_equal(bench_sent(&bench)->hello.roster_count, 2);
    bench_release(&bench);
}

static void gives_up_before_it_was_admitted(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_step_type(&bench, SESSION_START);
    bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "host:1: refused"});
    while (bench.session.state != SESSION_ENDED) {
        bench_wake_at(&bench, session_wake_us(&bench.session));
        assert_true(bench.now_us <= 65 * SECOND_US);
        if (bench.session.state == SESSION_CONNECTING)
            bench_step(&bench,
                       (struct session_event){.type = SESSION_CLOSED, .text = "host:1: refused"});
        bench.random += 77777;
    }
    assert_int_equal(bench.now_us, 65 * SECOND_US);
    assert_int_equal(bench_news(&bench)->news, SESSION_NEWS_ENDED);
    assert_int_equal(bench_news(&bench)->end, SESSION_END_UNREACHABLE);
    assert_int_equal(bench_news(&bench)->exit_code, 69);
    assert_string_equal(bench_news(&bench)->text,
                        "no coordinator within 60000 ms: host:1: refused");
    bench_step_type(&bench, SESSION_START);
    assert_false(bench.accepted);
    bench_release(&bench);
}

static void deadlines_of_a_connection(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.connect_timeout_ms = 0;
    bench_step_type(&bench, SESSION_START);
    bench_wake_at(&bench, session_wake_us(&bench.session)); /* no TCP connection in time */
    (void)bench_action(&bench, SESSION_CLOSE);
    assert_int_equal(bench.session.state, SESSION_RESTING);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_wake_at(&bench, session_wake_us(&bench.session)); /* no answer to HELLO in time */
    (void)bench_action(&bench, SESSION_CLOSE);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_welcome(&bench);
    for (uint64_t end = bench.now_us + 60 * SECOND_US; bench.now_us < end;)
        bench_wake_at(&bench, session_wake_us(&bench.session)); /* attached, but not one frame */
    (void)bench_action(&bench, SESSION_CLOSE);
    assert_int_equal(bench_news(&bench)->news, SESSION_NEWS_DOWN);
    bench_release(&bench);
}

static void refusal_ends_it(void **state)
{
    struct wire_message message = {
        .header = {.version = 1, .type = FRAME_REFUSED},
        .refused = {.why = WIRE_REFUSAL_SPEC, .exit_code = 77, .text = "lr=0.1 here, lr=0.2 there"},
    };

    (void)state;
    for (int attached = 0; attached < 2; attached++) {
        struct bench bench;

        bench_init(&bench);
        if (attached) {
            bench_attach(&bench);
        } else {
            bench_step_type(&bench, SESSION_START);
            bench_step_type(&bench, SESSION_CONNECTED);
        }
        bench_hear(&bench, &message);
        (void)bench_action(&bench, SESSION_CLOSE);
        assert_int_equal(bench_news(&bench)->end, SESSION_END_REFUSED);
        assert_int_equal(bench_news(&bench)->refusal, WIRE_REFUSAL_SPEC);
        assert_int_equal(bench_news(&bench)->exit_code, 77);
        assert_string_equal(bench_news(&bench)->text, "lr=0.1 here, lr=0.2 there");
        assert_true(session_wake_us(&bench.session) == SESSION_NEVER_US);
        bench_release(&bench);
    }
}

/* HELLO of a re-attach says what the member is: running, with the roster; then frozen. */
static void reattaches_as_what_it_is(void **state)
{
    struct bench bench;
    const struct wire_hello *hello;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(bench_news(&bench)->message->header.generation, 5);
    bench_reconnect(&bench);
    hello = &bench_sent(&bench)->hello;
    assert_int_equal(hello->attach, WIRE_ATTACH_RUNNING);
    assert_int_equal(bench_sent(&bench)->header.generation, 5);
    assert_int_equal(bench_sent(&bench)->header.nonce, 55);
    assert_int_equal(bench_sent(&bench)->header.step, 40); /* somebody has it, if not this one */
    assert_int_equal(hello->applied, 0);
    assert_int_equal(hello->roster_count, 2);
    assert_string_equal(hello->roster[1].node, "node1");
    assert_true(wire_id_equal(&hello->roster[0].id, &bench_other));
    assert_true(wire_id_equal(&hello->job_uid, &bench_job_uid));
    bench_welcome(&bench);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 66);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->header.generation, 5);
    assert_int_equal(bench_sent(&bench)->hello.plan, 6);
    assert_int_equal(bench_sent(&bench)->hello.roster_count, 2);
    bench_welcome(&bench);
    bench_entered(&bench, 6, 66, 41);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->header.generation, 6);
    assert_int_equal(bench_sent(&bench)->header.step, 41);
    assert_int_equal(bench_sent(&bench)->hello.plan, 0);
    assert_int_equal(bench_sent(&bench)->hello.roster_count, 2);
    bench_welcome(&bench);
    bench_over(&bench, 6);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    bench_release(&bench);
}

/* A spare is in no generation: it comes back as a joiner. */
static void spare_comes_back_as_joiner(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_VIEW, 5, 55);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_JOIN);
    assert_int_equal(bench_sent(&bench)->header.generation, 5);
    assert_int_equal(bench_sent(&bench)->hello.roster_count, 0);
    bench_release(&bench);
}

static void roster_that_does_not_fit_is_left_out(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    session_init(&bench.session, &bench.config, bench.memory, 256);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_RUNNING);
    assert_int_equal(bench_sent(&bench)->hello.roster_count, 0);
    bench_release(&bench);
}

static void stale_generations_are_dropped(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55); /* again */
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_PLAN, 4, 44); /* smaller */
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_PLAN, 5, 99); /* the same number, another nonce */
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 66);
    assert_int_equal(bench.actions.count, 1);
    bench_over(&bench, 4); /* before the newest FORMED */
    assert_int_equal(bench.actions.count, 0);
    bench_over(&bench, 5); /* ends 5 and the plan 6 */
    assert_int_equal(bench.actions.count, 1);
    bench_over(&bench, 5); /* again */
    assert_int_equal(bench.actions.count, 0);
    bench_over(&bench, 6); /* the plan is over already */
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 6, 66); /* the number of a plan that ended */
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 7, 77);
    assert_int_equal(bench.actions.count, 1);
    assert_int_equal(bench.session.dropped, 7);
    bench_release(&bench);
}

/* The number in a manifest counts as seen. */
static void manifest_counts_as_seen(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.known_generation = 9;
    session_init(&bench.session, &bench.config, bench.memory, session_memory_bytes(MEMBERS_MAX));
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 8, 1);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 9, 1);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 10, 1);
    assert_int_equal(bench.actions.count, 1);
    bench_release(&bench);
}

/* The program says ENTERED before it took the OVER that is already in its queue: void. */
static void word_about_an_ended_generation_is_void(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    bench_over(&bench, 5);
    bench_entered(&bench, 5, 55, 40);
    assert_false(bench.accepted);
    assert_int_equal(bench.actions.count, 0);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    bench_release(&bench);
}

/* A report of the program's own accord freezes it, and the OVER that follows is still delivered. */
static void own_report_freezes(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    bench_step(&bench, (struct session_event){.type = SESSION_REPORT,
                                              .position = {5, 55, 41},
                                              .report = {.entered = true}});
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_FROZEN);
    assert_int_equal(bench_sent(&bench)->header.step, 41);
    bench_welcome(&bench);
    bench_over(&bench, 5);
    assert_int_equal(bench_news(&bench)->message->header.type, FRAME_OVER);
    bench_release(&bench);
}

static void barriers_keep_their_number(void **state)
{
    struct bench bench;
    struct session_event enter = {.type = SESSION_BARRIER, .barrier = {.name = "b", .place = "p"}};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_step(&bench, enter);
    assert_int_equal(bench_sent(&bench)->barrier_enter.seq, 1);
    bench_step(&bench, enter); /* one at a time */
    assert_false(bench.accepted);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_BARRIER_ENTER), 1);
    assert_int_equal(bench.session.said.barrier.seq, 1); /* the same again */
    bench_barrier_result(&bench, 2);                     /* not ours */
    assert_int_equal(bench.actions.count, 0);
    bench_barrier_result(&bench, 1);
    assert_int_equal(bench_news(&bench)->message->barrier_result.seq, 1);
    bench_barrier_result(&bench, 1); /* twice */
    assert_int_equal(bench.actions.count, 0);
    bench_step(&bench, enter);
    assert_int_equal(bench_sent(&bench)->barrier_enter.seq, 2);
    bench_release(&bench);
}

/* A coordinator that was restarted hears what was passed in this generation; each generation counts
 * anew. */
static void hello_tells_the_barrier_that_was_passed(void **state)
{
    struct bench bench;
    struct session_event enter = {.type = SESSION_BARRIER, .barrier = {.name = "b", .place = "p"}};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 9);
    bench_entered(&bench, 5, 9, 0);
    bench_step(&bench, enter);
    assert_int_equal(bench_sent(&bench)->barrier_enter.number, 1);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.passed, 0);
    bench_welcome(&bench);
    bench_barrier_result(&bench, 1);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.passed, 1);
    assert_string_equal(bench_sent(&bench)->hello.passed_name, "b");
    bench_welcome(&bench);
    bench_step(&bench, enter);
    assert_int_equal(bench_sent(&bench)->barrier_enter.number, 2);
    bench_barrier_result(&bench, 2);
    bench_tell(&bench, WIRE_MODE_FORMED, 6, 10);
    bench_entered(&bench, 6, 10, 0);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.passed, 0);
    bench_welcome(&bench);
    bench_step(&bench, enter);
    assert_int_equal(bench_sent(&bench)->barrier_enter.seq, 3);
    assert_int_equal(bench_sent(&bench)->barrier_enter.number, 1);
    bench_release(&bench);
}

/* It waited in the generation before when it entered this one: said again, the word is of that. */
static void barrier_said_again_keeps_its_generation(void **state)
{
    struct bench bench;
    struct session_event enter = {.type = SESSION_BARRIER, .barrier = {.name = "b", .place = "p"}};
    bool again = false;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 9);
    bench_entered(&bench, 5, 9, 0);
    bench_step(&bench, enter);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 10);
    bench_entered(&bench, 6, 10, 1);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    for (uint32_t i = 0; i < bench.actions.count; i++) {
        const struct frame_header *header = &bench.actions.list[i].message.header;

        again |= header->type == FRAME_BARRIER_ENTER && header->generation == 5;
    }
    assert_true(again);
    bench_release(&bench);
}

static void goodbye_is_the_last_word(void **state)
{
    struct session_event goodbye = {.type = SESSION_GOODBYE, .goodbye = {.exit_code = 0}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_step(&bench, goodbye);
    assert_int_equal(bench.actions.list[0].message.header.type, FRAME_GOODBYE);
    assert_int_equal(bench.actions.list[1].type, SESSION_CLOSE);
    assert_int_equal(bench_news(&bench)->end, SESSION_END_GOODBYE);
    bench_step_type(&bench, SESSION_STOP);
    assert_false(bench.accepted);
    bench_release(&bench);

    bench_init(&bench); /* without a connection: after the next WELCOME */
    bench_attach(&bench);
    bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "gone"});
    bench_step(&bench, goodbye);
    assert_int_equal(bench.actions.count, 0);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_GOODBYE), 1);
    assert_int_equal(bench.session.state, SESSION_ENDED);
    bench_release(&bench);

    bench_init(&bench); /* never admitted: nobody to say it to */
    bench_step_type(&bench, SESSION_START);
    bench_step(&bench, goodbye);
    (void)bench_action(&bench, SESSION_CLOSE);
    assert_int_equal(bench_news(&bench)->end, SESSION_END_GOODBYE);
    assert_string_equal(bench_news(&bench)->text, "left before it was admitted");
    bench_release(&bench);
}

static void coordinator_that_breaks_the_protocol(void **state)
{
    struct wire_message ack = {.header = {.version = 1, .type = FRAME_BEAT_ACK}};
    struct wire_message beat = {.header = {.version = 1, .type = FRAME_BEAT}};
    struct wire_message version = {.header = {.version = 1, .type = FRAME_WELCOME},
                                   .welcome = {.version = 2, .beat_ms = 500}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_step_type(&bench, SESSION_START);
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_hear(&bench, &ack); /* before WELCOME */
    (void)bench_action(&bench, SESSION_CLOSE);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_hear(&bench, &version); /* a version not offered */
    (void)bench_action(&bench, SESSION_CLOSE);
    bench_wake_at(&bench, session_wake_us(&bench.session));
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_welcome(&bench);
    bench_hear(&bench, &ack);
    assert_int_equal(bench.actions.count, 0);
    bench_hear(&bench, &beat); /* a member's message */
    (void)bench_action(&bench, SESSION_CLOSE);
    bench_hear(&bench, &ack); /* nothing of that connection counts any more */
    assert_false(bench.accepted);
    bench_release(&bench);
}

static void beat_interval_is_bounded(void **state)
{
    struct wire_message message = {.header = {.version = 1, .type = FRAME_WELCOME},
                                   .welcome = {.version = 1, .beat_ms = 0}};
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_step_type(&bench, SESSION_START);
    bench_step_type(&bench, SESSION_CONNECTED);
    bench_hear(&bench, &message);
    assert_true(session_wake_us(&bench.session) >= bench.now_us + 20000);
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joins_and_beats),
        cmocka_unit_test(beats_tell_the_status),
        cmocka_unit_test(beats_tell_the_ledger_of_their_generation),
        cmocka_unit_test(a_long_wait_is_told_early_once),
        cmocka_unit_test(beats_tell_where_the_thread_stands),
        cmocka_unit_test(a_verdict_is_of_the_generation_that_is_held),
        cmocka_unit_test(late_beat_is_one_beat),
        cmocka_unit_test(beats_keep_their_grid),
        cmocka_unit_test(early_wakes_are_harmless),
        cmocka_unit_test(pauses_are_full_jitter),
        cmocka_unit_test(a_small_group_comes_back_soon),
        cmocka_unit_test(welcome_resets_the_pauses),
        cmocka_unit_test(rosters_do_not_pile_up),
        cmocka_unit_test(gives_up_before_it_was_admitted),
        cmocka_unit_test(deadlines_of_a_connection),
        cmocka_unit_test(refusal_ends_it),
        cmocka_unit_test(reattaches_as_what_it_is),
        cmocka_unit_test(spare_comes_back_as_joiner),
        cmocka_unit_test(roster_that_does_not_fit_is_left_out),
        cmocka_unit_test(stale_generations_are_dropped),
        cmocka_unit_test(manifest_counts_as_seen),
        cmocka_unit_test(word_about_an_ended_generation_is_void),
        cmocka_unit_test(own_report_freezes),
        cmocka_unit_test(barriers_keep_their_number),
        cmocka_unit_test(hello_tells_the_barrier_that_was_passed),
        cmocka_unit_test(barrier_said_again_keeps_its_generation),
        cmocka_unit_test(goodbye_is_the_last_word),
        cmocka_unit_test(coordinator_that_breaks_the_protocol),
        cmocka_unit_test(beat_interval_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
