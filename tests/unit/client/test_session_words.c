/* What the program says: every word now, after a re-attach, and no longer than it stands. */
#include "bench.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* What was said without a connection, or on one that broke, is said after WELCOME; not for ever. */
static void says_again_what_still_stands(void **state)
{
    struct bench bench;
    uint8_t owned[2] = {0x0f, 0x01};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    bench_entered(&bench, 5, 55, 40);
    assert_int_equal(bench_sent(&bench)->header.type, FRAME_ENTERED);
    bench_step(&bench, (struct session_event){.type = SESSION_PEER_LOST,
                                              .position = {5, 55, 40},
                                              .peer_lost = {.member_id = bench_other,
                                                            .why = WIRE_LOST_CLOSED,
                                                            .text = "eof"}});
    assert_int_equal(bench_sent(&bench)->header.type, FRAME_PEER_LOST);
    bench_step(&bench, (struct session_event){.type = SESSION_LEAVE,
                                              .position = {5, 55, 40},
                                              .leave = {.drain_ms = 9}});
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_ENTERED), 1);
    assert_int_equal(bench_count_sent(&bench, FRAME_PEER_LOST), 1);
    assert_int_equal(bench_count_sent(&bench, FRAME_LEAVE), 1);
    assert_int_equal(bench_count_sent(&bench, FRAME_REPORT), 0);
    bench_over(&bench, 5);
    bench_step(&bench, (struct session_event){
                           .type = SESSION_REPORT,
                           .position = {5, 55, 40},
                           .report = {.entered = true, .owned = owned, .owned_bytes = 2}});
    assert_int_equal(bench_sent(&bench)->header.type, FRAME_REPORT);
    memset(owned, 0, sizeof owned);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_ENTERED), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_PEER_LOST), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_REPORT), 1);
    assert_int_equal(bench_count_sent(&bench, FRAME_LEAVE), 1);
    assert_int_equal(bench.session.said.report.owned[0], 0x0f);
    bench_tell(&bench, WIRE_MODE_FORMED, 6, 66);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_REPORT), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_LEAVE), 1);
    bench_release(&bench);
}

/* A word of the program, and the frame it becomes. */
struct word {
    enum session_event_type event;
    uint8_t frame;
};

static const struct word all_words[] = {
    {SESSION_ENTERED, FRAME_ENTERED},       {SESSION_REPORT, FRAME_REPORT},
    {SESSION_READY, FRAME_READY},           {SESSION_PEER_LOST, FRAME_PEER_LOST},
    {SESSION_FINISHED, FRAME_FINISHED},     {SESSION_LEAVE, FRAME_LEAVE},
    {SESSION_BARRIER, FRAME_BARRIER_ENTER}, {SESSION_GOODBYE, FRAME_GOODBYE},
};

enum { WORD_COUNT = sizeof all_words / sizeof all_words[0] };

/* The word with recognisable content, in generation 5 at step 41; its texts are short-lived. */
static void say(struct bench *bench, enum session_event_type type)
{
    char text[16] = "short-lived";
    uint8_t owned[3] = {1, 2, 3};
    struct session_event event = {.type = type, .position = {5, 55, 41}};

    if (type == SESSION_ENTERED)
        event.entered = (struct wire_entered){1, 2, 3};
    if (type == SESSION_REPORT)
        event.report = (struct wire_report){
            .plan = 6, .has_reduced = true, .owned = owned, .owned_bytes = 3, .entered = true};
    if (type == SESSION_READY)
        event.ready.params_hash = 77;
    if (type == SESSION_PEER_LOST)
        event.peer_lost = (struct wire_peer_lost){bench_other, WIRE_LOST_HASH, text};
    if (type == SESSION_FINISHED)
        event.finished = (struct wire_finished){88, 0.5};
    if (type == SESSION_LEAVE)
        event.leave.drain_ms = 99;
    if (type == SESSION_BARRIER)
        event.barrier = (struct wire_barrier_enter){.name = text, .place = text};
    if (type == SESSION_GOODBYE)
        event.goodbye = (struct wire_goodbye){3, text};
    bench_step(bench, event);
    memset(text, 'X', sizeof text - 1);
    memset(owned, 0xff, sizeof owned);
}

/* The frame among the actions, whole and at its position. */
static void check_word(const struct bench *bench, uint8_t type)
{
    const struct wire_message *found = NULL;

    assert_int_equal(bench_count_sent(bench, type), 1);
    for (uint32_t i = 0; i < bench->actions.count; i++) {
        const struct session_action *action = &bench->actions.list[i];

        if (action->type == SESSION_SEND && action->message.header.type == type)
            found = &action->message;
    }
    assert_int_equal(found->header.generation, 5);
    assert_int_equal(found->header.nonce, 55);
    assert_int_equal(found->header.step, 41);
    if (type == FRAME_ENTERED)
        assert_int_equal(found->entered.recompute_us, 3);
    if (type == FRAME_REPORT) {
        assert_int_equal(found->report.plan, 6);
        assert_true(found->report.has_reduced);
        assert_memory_equal(found->report.owned, "\1\2\3", 3);
    }
    if (type == FRAME_READY)
        assert_int_equal(found->ready.params_hash, 77);
    if (type == FRAME_PEER_LOST) {
        assert_true(wire_id_equal(&found->peer_lost.member_id, &bench_other));
        assert_string_equal(found->peer_lost.text, "short-lived");
    }
    if (type == FRAME_FINISHED)
        assert_int_equal(found->finished.params_hash, 88);
    if (type == FRAME_LEAVE)
        assert_int_equal(found->leave.drain_ms, 99);
    if (type == FRAME_BARRIER_ENTER) {
        assert_string_equal(found->barrier_enter.name, "short-lived");
        assert_string_equal(found->barrier_enter.place, "short-lived");
    }
    if (type == FRAME_GOODBYE)
        assert_string_equal(found->goodbye.text, "short-lived");
}

/* In generation 5 at step 41, attached. */
static void bench_in_generation(struct bench *bench)
{
    struct session_status status = {.phase = WIRE_PHASE_COMPUTE, .applied = 41};

    bench_init(bench);
    bench_attach(bench);
    bench_tell(bench, WIRE_MODE_FORMED, 5, 55);
    bench_step(bench, (struct session_event){.type = SESSION_STATUS, .status = status});
}

static void every_word_is_said_and_said_again(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < WORD_COUNT; i++) {
        struct bench bench;

        bench_in_generation(&bench);
        say(&bench, all_words[i].event);
        assert_true(bench.accepted);
        check_word(&bench, all_words[i].frame);
        bench_release(&bench);

        bench_in_generation(&bench);
        bench_step(&bench, (struct session_event){.type = SESSION_CLOSED, .text = "gone"});
        say(&bench, all_words[i].event);
        assert_true(bench.accepted);
        assert_int_equal(bench.actions.count, 0);
        bench_wake_at(&bench, session_wake_us(&bench.session));
        bench_step_type(&bench, SESSION_CONNECTED);
        bench_welcome(&bench);
        check_word(&bench, all_words[i].frame);
        bench_release(&bench);
    }
}

/* What ends the standing of a word: rows are words, columns what happens. */
static void words_stand_as_long_as_they_should(void **state)
{
    static const struct {
        enum session_event_type event;
        uint8_t frame;
        uint32_t over, formed, view; /* times it is said again after each */
    } rows[] = {
        {SESSION_ENTERED, FRAME_ENTERED, 0, 0, 1},
        {SESSION_REPORT, FRAME_REPORT, 1, 0, 1},
        {SESSION_READY, FRAME_READY, 0, 0, 0},
        {SESSION_PEER_LOST, FRAME_PEER_LOST, 0, 0, 1},
        {SESSION_FINISHED, FRAME_FINISHED, 0, 0, 1},
        {SESSION_LEAVE, FRAME_LEAVE, 1, 1, 1},
        {SESSION_BARRIER, FRAME_BARRIER_ENTER, 1, 1, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (uint32_t what = 0; what < 3; what++) {
            struct bench bench;
            uint32_t expected = what == 0   ? rows[i].over
                                : what == 1 ? rows[i].formed
                                            : rows[i].view;

            bench_in_generation(&bench);
            say(&bench, rows[i].event);
            if (what == 0)
                bench_over(&bench, 5);
            else
                bench_tell(&bench, what == 1 ? WIRE_MODE_FORMED : WIRE_MODE_VIEW, 6, 66);
            bench_reconnect(&bench);
            bench_welcome(&bench);
            if (bench_count_sent(&bench, rows[i].frame) != expected)
                fail_msg("%s after event %u: said %u times, expected %u",
                         frame_type_name(rows[i].frame), what,
                         bench_count_sent(&bench, rows[i].frame), expected);
            bench_release(&bench);
        }
    }
}

/* Words about a generation that is over, or that was reported, are void. */
static void void_words_change_nothing(void **state)
{
    static const enum session_event_type about[] = {SESSION_ENTERED, SESSION_READY,
                                                    SESSION_PEER_LOST, SESSION_FINISHED};
    struct bench bench;

    (void)state;
    for (uint32_t i = 0; i < sizeof about / sizeof about[0]; i++) {
        bench_in_generation(&bench);
        bench_over(&bench, 5);
        say(&bench, about[i]);
        assert_false(bench.accepted);
        assert_int_equal(bench.actions.count, 0);
        bench_release(&bench);
    }
    bench_in_generation(&bench);
    say(&bench, SESSION_REPORT);
    say(&bench, SESSION_ENTERED);
    assert_false(bench.accepted);
    bench_release(&bench);
}

/* A job may be over before a beat was due: what its last step brought is told before its end. */
static void the_newest_progress_comes_before_the_end(void **state)
{
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS,
                                              .status = {.applied = 41, .loss = 0.25f}});
    say(&bench, SESSION_FINISHED);
    assert_int_equal(bench.actions.count, 2);
    assert_int_equal(bench.actions.list[0].message.header.type, FRAME_BEAT);
    assert_true(bench.actions.list[0].message.beat.loss == 0.25f);
    assert_int_equal(bench.actions.list[1].message.header.type, FRAME_FINISHED);
    bench_release(&bench);
}

/* RELEASED and DONE are the answers: what they answer is not said again. */
static void answers_end_the_question(void **state)
{
    struct wire_message released = {.header = {.version = 1, .type = FRAME_RELEASED}};
    struct wire_message done = {.header = {.version = 1, .type = FRAME_DONE}};
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    say(&bench, SESSION_LEAVE);
    say(&bench, SESSION_FINISHED);
    bench_hear(&bench, &released);
    assert_int_equal(bench_news(&bench)->message->header.type, FRAME_RELEASED);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_LEAVE), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_FINISHED), 1);
    bench_hear(&bench, &done);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_FINISHED), 0);
    bench_release(&bench);
}

/* A report forgets what was said in the generation; a FORMED forgets the plans before it. */
static void freezing_and_forming_forget(void **state)
{
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    say(&bench, SESSION_PEER_LOST);
    say(&bench, SESSION_REPORT);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 66);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.plan, 6);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_PEER_LOST), 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 7, 77);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.plan, 0);
    bench_release(&bench);
}

/* A plan that is entered takes the place of the generation: what was said of the old one is gone.
 */
static void entering_a_plan_forgets_the_old(void **state)
{
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    say(&bench, SESSION_PEER_LOST);
    say(&bench, SESSION_READY);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 66);
    bench_entered(&bench, 6, 66, 42);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->header.step, 42);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_PEER_LOST), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_READY), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_ENTERED), 1);
    bench_release(&bench);
}

/* A spare reported when a generation it watched was over, then entered another by a plan: after a
 * re-attach the coordinator must not take the old report for a new one. */
static void entering_a_plan_forgets_a_report(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_VIEW, 5, 55);
    bench_over(&bench, 5);
    bench_step(&bench, (struct session_event){.type = SESSION_REPORT});
    bench_tell(&bench, WIRE_MODE_VIEW, 6, 66);
    bench_tell(&bench, WIRE_MODE_PLAN, 7, 77);
    bench_entered(&bench, 7, 77, 42);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_REPORT), 0);
    assert_int_equal(bench_count_sent(&bench, FRAME_ENTERED), 1);
    bench_release(&bench);
}

/* The newest few lost peers are kept, no more than there is room for. */
static void lost_peers_are_a_ring(void **state)
{
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    for (uint32_t i = 0; i < 3 * SESSION_LOST_MAX; i++)
        say(&bench, SESSION_PEER_LOST);
    bench_reconnect(&bench);
    bench_welcome(&bench);
    assert_int_equal(bench_count_sent(&bench, FRAME_PEER_LOST), SESSION_LOST_MAX);
    bench_release(&bench);
}

/* One number in several modes: a joiner in a plan may be told a view of it, but never formed. */
static void modes_of_one_number(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_PLAN, 6, 66);
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_FORMED, 6, 66);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_VIEW, 6, 66);
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_VIEW, 6, 66);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_VIEW, 7, 77); /* a new number begins anew */
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_PLAN, 7, 77);
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_VIEW, 0, 0); /* no number at all */
    assert_int_equal(bench.actions.count, 0);
    bench_over(&bench, 9); /* of a generation this member was never told */
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_VIEW, 9, 0);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 10, 1);
    assert_int_equal(bench.actions.count, 1);
    assert_int_equal(bench.session.dropped, 4);
    bench_release(&bench);
}

/* A checkpoint's manifest names the generation that still trains, but not its nonce: the first view
 * of it stands. */
static void view_of_a_generation_known_from_a_manifest(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.session.largest = 5;
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_VIEW, 4, 44);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(bench.actions.count, 0);
    bench_tell(&bench, WIRE_MODE_VIEW, 5, 55);
    assert_int_equal(bench.actions.count, 1);
    bench_tell(&bench, WIRE_MODE_PLAN, 5, 56);
    assert_int_equal(bench.actions.count, 0);
    bench_release(&bench);
}

/* A FORMED that this member is not in is told, but it does not count itself in. */
static void formed_without_it(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench);
    bench.config.member_id = (wire_id){{0xcc}};
    bench_attach(&bench);
    bench_tell(&bench, WIRE_MODE_FORMED, 5, 55);
    assert_int_equal(bench.actions.count, 1);
    bench_reconnect(&bench);
    assert_int_equal(bench_sent(&bench)->hello.attach, WIRE_ATTACH_JOIN);
    assert_int_equal(bench_sent(&bench)->header.nonce, 55);
    bench_release(&bench);
}

/* It waits for others, as far as it said; but it promised to say so again and does not. */
static void who_breaks_its_promise_to_speak_hangs(void **state)
{
    struct bench bench;
    struct session_status status = {.phase = WIRE_PHASE_EXCHANGE, .applied = 41};

    (void)state;
    bench_init(&bench);
    bench_attach(&bench);
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 9000000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE); /* nothing promised */
    bench.config.refresh_ms = 250;
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 900000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE);
    bench_wake_at(&bench, bench.now_us + 600000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_COMPUTE);
    assert_int_equal(bench_sent(&bench)->beat.phase_age_ms, 1500);
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 500000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE);
    /* nothing ran for 9 s, this library neither: that is not its fault */
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 9000000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EXCHANGE);
    /* what it entered after it had spoken is no excuse */
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench.now_us += 300000;
    bench_step(&bench, (struct session_event){
                           .type = SESSION_LEDGER,
                           .ledger = {.generation = 0, .entered = 9, .left = 8, .at = 9,
                                      .open = true, .since_us = bench.now_us}});
    bench_wake_at(&bench, bench.now_us + 400000);
    bench_wake_at(&bench, bench.now_us + 400000);
    bench_wake_at(&bench, bench.now_us + 400000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_COMPUTE);
    assert_in_range(bench_sent(&bench)->beat.phase_age_ms, 1, 1199);
    bench_step(&bench, (struct session_event){.type = SESSION_LEDGER});
    status.phase = WIRE_PHASE_EVALUATE; /* has a limit of its own, and may hold the thread */
    bench_step(&bench, (struct session_event){.type = SESSION_STATUS, .status = status});
    bench_wake_at(&bench, bench.now_us + 9000000);
    assert_int_equal(bench_sent(&bench)->beat.phase, WIRE_PHASE_EVALUATE);
    bench_release(&bench);
}

static void stopping_ends_it_without_a_word(void **state)
{
    struct bench bench;

    (void)state;
    bench_in_generation(&bench);
    bench_step_type(&bench, SESSION_STOP);
    assert_true(bench.accepted);
    assert_int_equal(bench_count_sent(&bench, FRAME_GOODBYE), 0);
    (void)bench_action(&bench, SESSION_CLOSE);
    assert_int_equal(bench_news(&bench)->end, SESSION_END_STOPPED);
    assert_string_equal(bench_news(&bench)->text, "stopped by the program");
    bench_release(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_again_what_still_stands),
        cmocka_unit_test(every_word_is_said_and_said_again),
        cmocka_unit_test(words_stand_as_long_as_they_should),
        cmocka_unit_test(void_words_change_nothing),
        cmocka_unit_test(the_newest_progress_comes_before_the_end),
        cmocka_unit_test(answers_end_the_question),
        cmocka_unit_test(freezing_and_forming_forget),
        cmocka_unit_test(entering_a_plan_forgets_the_old),
        cmocka_unit_test(entering_a_plan_forgets_a_report),
        cmocka_unit_test(lost_peers_are_a_ring),
        cmocka_unit_test(modes_of_one_number),
        cmocka_unit_test(view_of_a_generation_known_from_a_manifest),
        cmocka_unit_test(formed_without_it),
        cmocka_unit_test(who_breaks_its_promise_to_speak_hangs),
        cmocka_unit_test(stopping_ends_it_without_a_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
