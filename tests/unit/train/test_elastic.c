/* The elastic machine's story, told to one worker: what it is told, and what it does then. The
 * simulator runs many of them together; here each rule stands alone. */
#include "train/elastic.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SHARDS 4u

struct bench {
    struct elastic e;
    struct elastic_actions actions;
    struct elastic_roster roster; /* of the next event */
    uint32_t weights[4];          /* in it, by rank */
    char did[1024];               /* the last event's actions, in words */
};

/* ---- words ---------------------------------------------------------------------------------- */

static void say_shards(char *text, size_t bytes, const struct plan_mask *mask)
{
    for (uint32_t i = 0; i < SHARDS; i++)
        if (plan_mask_has(mask, i))
            (void)snprintf(text + strlen(text), bytes - strlen(text), "%u", i);
}

/* What matters of the action. */
static void say_detail(char *text, size_t bytes, const struct elastic_action *action)
{
    enum elastic_action_type type = action->type;

    if (type == ELASTIC_DO_EXCHANGE)
        (void)snprintf(text, bytes, "%" PRIu64 "%s%s", action->step,
                       action->words_only ? " words" : "", action->hashed ? "" : " unhashed");
    if (type == ELASTIC_DO_APPLY && !action->hashed)
        (void)snprintf(text, bytes, "%" PRIu64 " unhashed", action->step);
    else if (type == ELASTIC_DO_APPLY || type == ELASTIC_DO_STEP_DONE)
        (void)snprintf(text, bytes, "%" PRIu64, action->step);
    if (type == ELASTIC_DO_COPY_REDUCED || type == ELASTIC_DO_COPY_STATE)
        (void)snprintf(text, bytes, "from %u", action->from);
    if (type == ELASTIC_DO_SEND_PEER_LOST)
        (void)snprintf(text, bytes, "%u", action->peer.byte[0]);
    if (type == ELASTIC_DO_EXIT)
        (void)snprintf(text, bytes, "%d", action->code);
    if (type == ELASTIC_DO_SEND_REPORT)
        (void)snprintf(text, bytes, "%" PRIu64 "%s ", action->version,
                       action->has_reduced ? "R" : "");
    if (type == ELASTIC_DO_SEND_REPORT || type == ELASTIC_DO_COMPUTE)
        say_shards(text, bytes, &action->shards);
}

static void say(char *text, size_t bytes, const struct elastic_action *action)
{
    char detail[64] = "";

    say_detail(detail, sizeof detail, action);
    (void)snprintf(text + strlen(text), bytes - strlen(text), "%s%s%s%s%s", text[0] ? " " : "",
                   elastic_action_name(action->type), detail[0] ? "(" : "", detail,
                   detail[0] ? ")" : "");
}

static const char *tell(struct bench *bench, struct elastic_event event)
{
    const char *sentence = NULL;

    elastic_step(&bench->e, &event, &bench->actions);
    if (elastic_check(&bench->e, &sentence) != 0)
        fail_msg("after %s: %s", elastic_event_name(event.type), sentence);
    bench->did[0] = '\0';
    for (uint32_t i = 0; i < bench->actions.count; i++)
        say(bench->did, sizeof bench->did, &bench->actions.list[i]);
    return bench->did;
}

/* ---- what it is told ------------------------------------------------------------------------ */

/* Members are known by one letter, their rank by their place; the worker under test is 1. */
static const char *roster(struct bench *bench, enum elastic_event_type type, uint64_t number,
                          uint64_t step, const char *members)
{
    memset(&bench->roster, 0, sizeof bench->roster);
    bench->roster.number = number;
    bench->roster.nonce = number;
    bench->roster.step = step;
    bench->roster.world = (uint32_t)strlen(members);
    for (uint32_t rank = 0; rank < bench->roster.world; rank++) {
        bench->roster.members[rank].id.byte[0] = (uint8_t)(members[rank] - '0');
        bench->roster.members[rank].applied = step;
        bench->roster.members[rank].weight = bench->weights[rank];
    }
    return tell(bench, (struct elastic_event){.type = type, .roster = &bench->roster});
}

/* FORMED after a loss: all that are there were frozen, and owned these shards (by rank). */
static const char *reformed(struct bench *bench, uint64_t number, uint64_t step,
                            const char *members, const char *const owned[])
{
    memset(&bench->roster, 0, sizeof bench->roster);
    bench->roster.number = bench->roster.nonce = number;
    bench->roster.step = step;
    bench->roster.world = (uint32_t)strlen(members);
    for (uint32_t rank = 0; rank < bench->roster.world; rank++) {
        struct elastic_member *m = &bench->roster.members[rank];

        m->id.byte[0] = (uint8_t)(members[rank] - '0');
        m->applied = step;
        m->frozen = true;
        for (const char *s = owned[rank]; *s != '\0'; s++)
            plan_mask_set(&m->owned, (uint32_t)(*s - '0'));
    }
    return tell(bench, (struct elastic_event){.type = ELASTIC_FORMED, .roster = &bench->roster});
}

/* PLAN: after the next boundary too few are there. */
static void make_pause(struct bench *bench, uint64_t number, const char *members)
{
    (void)roster(bench, ELASTIC_PLAN, number, 0, members);
    bench->roster.pause = true;
    bench->e.plan.pause = true;
}

static const char *over(struct bench *bench, uint64_t number)
{
    return tell(bench, (struct elastic_event){.type = ELASTIC_OVER, .number = number});
}

static const char *connected(struct bench *bench)
{
    return tell(bench, (struct elastic_event){.type = ELASTIC_CONNECTED,
                                              .number = bench->e.generation.number});
}

static const char *shard_done(struct bench *bench, uint32_t shard)
{
    return tell(bench, (struct elastic_event){
                           .type = ELASTIC_SHARD_DONE, .step = bench->e.applied, .shard = shard});
}

static struct elastic_event exchanged(const struct bench *bench, uint64_t plan_min)
{
    return (struct elastic_event){.type = ELASTIC_EXCHANGED,
                                  .number = bench->e.generation.number,
                                  .nonce = bench->e.generation.nonce,
                                  .step = bench->e.applied,
                                  .plan_min = plan_min,
                                  .unanimous = true,
                                  .majority = true,
                                  .hashed = true,
                                  .shard_odd = ELASTIC_NO_SHARD};
}

static const char *versioned(struct bench *bench, enum elastic_event_type type, uint64_t version)
{
    return tell(bench,
                (struct elastic_event){
                    .type = type, .version = version, .hash = version, .ok = true, .hashed = true});
}

static void begin(struct bench *bench, uint64_t steps, bool saves)
{
    struct elastic_config config = {
        .me = {{1}},
        .shape = {.samples = 64, .shards = SHARDS, .shard_samples = 4},
        .steps_total = steps,
        .saves = saves,
    };

    memset(bench, 0, sizeof *bench);
    elastic_init(&bench->e, &config, 0, 0);
    (void)tell(bench, (struct elastic_event){.type = ELASTIC_CONTROL, .ok = true});
}

/* Rank 1 of three, in step 0, whose sums are not here yet. It owns shard 2. */
static void begin_three(struct bench *bench)
{
    begin(bench, 10, false);
    assert_string_equal(roster(bench, ELASTIC_FORMED, 1, 0, "213"), "CONNECT COMPUTE(2)");
    assert_string_equal(connected(bench), "SEND_ENTERED EXCHANGE(0)");
}

/* ---- the story ------------------------------------------------------------------------------ */

static void a_step_is_sums_exchange_update(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    assert_true(elastic_owes(&bench.e));
    assert_string_equal(shard_done(&bench, 2), "GENERATION SEND_ENTERED");
    assert_false(elastic_owes(&bench.e));
    assert_string_equal(tell(&bench, exchanged(&bench, 1)), "APPLY(0)");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1),
                        "STEP_DONE(0) COMPUTE(2) EXCHANGE(1)");
}

static void only_what_the_lost_one_owed_is_made_anew(void **state)
{
    static const char *const owned[] = {"01", "2"};
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)shard_done(&bench, 2);
    assert_string_equal(over(&bench, 1), "STOP_EXCHANGE SEND_REPORT(0 2)");
    assert_string_equal(reformed(&bench, 2, 0, "21", owned), "CONNECT COMPUTE(3)");
    assert_string_equal(connected(&bench), "SEND_ENTERED EXCHANGE(0)");
    assert_string_equal(shard_done(&bench, 3), "GENERATION SEND_ENTERED");
}

static void a_frozen_one_is_not_moved_by_late_frames(void **state)
{
    struct bench bench;
    struct elastic_event late;

    (void)state;
    begin_three(&bench);
    late = exchanged(&bench, 1);
    assert_string_equal(over(&bench, 1), "STOP_EXCHANGE SEND_REPORT(0 2)");
    assert_string_equal(tell(&bench, late), "");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), "");
    assert_int_equal(bench.e.applied, 0);
}

static void an_update_that_has_begun_is_finished_before_the_report(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)tell(&bench, exchanged(&bench, 1));
    assert_string_equal(over(&bench, 1), "STOP_EXCHANGE");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), "STEP_DONE(0) SEND_REPORT(1R 2)");
}

static void one_step_behind_copies_the_reduced_gradient(void **state)
{
    static const char *const owned[] = {"01", "2"};
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)over(&bench, 1);
    assert_string_equal(reformed(&bench, 2, 1, "21", owned), "CONNECT");
    assert_string_equal(connected(&bench), "COPY_REDUCED(from 0)");
    assert_string_equal(versioned(&bench, ELASTIC_COPIED, 1), "APPLY(0)");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1),
                        "STEP_DONE(0) SEND_ENTERED COMPUTE(23) EXCHANGE(1)");
}

static void a_holder_that_fails_is_followed_by_the_next_and_then_told(void **state)
{
    static const char *const owned[] = {"01", "2", "3"};
    struct elastic_event failed = {.type = ELASTIC_COPIED};
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)over(&bench, 1);
    (void)reformed(&bench, 2, 1, "213", owned);
    assert_string_equal(connected(&bench), "COPY_REDUCED(from 0)");
    assert_string_equal(tell(&bench, failed), "COPY_REDUCED(from 2)");
    assert_string_equal(tell(&bench, failed), "COPY_STATE(from 0)");
    assert_string_equal(tell(&bench, failed), "COPY_STATE(from 2)");
    assert_string_equal(tell(&bench, failed), "SEND_PEER_LOST(2)");
    /* The state may be a mixture now: it is read again before anything is said of it. */
    assert_string_equal(over(&bench, 2), "STOP_EXCHANGE RELOAD");
    assert_string_equal(versioned(&bench, ELASTIC_RELOADED, 0), "SEND_REPORT(0 2)");
}

static void an_older_generation_is_refused(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)over(&bench, 1);
    (void)roster(&bench, ELASTIC_FORMED, 5, 0, "21");
    assert_string_equal(roster(&bench, ELASTIC_FORMED, 4, 0, "213"), "");
    assert_string_equal(roster(&bench, ELASTIC_FORMED, 5, 0, "213"), "");
    assert_int_equal(bench.e.generation.world, 2);
}

static void a_plan_waits_until_every_word_holds_it(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    assert_string_equal(roster(&bench, ELASTIC_PLAN, 2, 0, "2134"), "");
    assert_string_equal(tell(&bench, exchanged(&bench, 1)), "GENERATION SEND_ENTERED APPLY(0)");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1),
                        "STEP_DONE(0) COMPUTE(2) EXCHANGE(1)");
    (void)tell(&bench, exchanged(&bench, 2));
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 2), "STEP_DONE(1) CONNECT COMPUTE(1)");
    /* OVER of the generation before the plan ends this one too. */
    assert_string_equal(over(&bench, 1), "STOP_EXCHANGE SEND_REPORT(2R 1)");
}

/* The same members, other shares: from the boundary on it computes what the weights give it. */
static void a_plan_spreads_the_shards_by_weight(void **state)
{
    static const struct {
        uint32_t weights[4];
        const char *then;
    } rows[] = {
        {{100, 100, 100}, "STEP_DONE(0) CONNECT COMPUTE(2)"},
        {{0, 0, 0}, "STEP_DONE(0) CONNECT COMPUTE(2)"},
        {{40, 100, 100}, "STEP_DONE(0) CONNECT COMPUTE(12)"},
        {{100, 40, 100}, "STEP_DONE(0) CONNECT COMPUTE(2)"},
        {{50, 50, 100}, "STEP_DONE(0) CONNECT COMPUTE(1)"},
    };

    (void)state;
    for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
        struct bench bench;

        begin_three(&bench);
        memcpy(bench.weights, rows[k].weights, sizeof bench.weights);
        (void)roster(&bench, ELASTIC_PLAN, 2, 0, "213");
        (void)tell(&bench, exchanged(&bench, 2));
        assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), rows[k].then);
        assert_string_equal(connected(&bench), "SEND_ENTERED EXCHANGE(1)");
        assert_int_equal(bench.e.generation.number, 2);
    }
}

static void a_leaver_stays_until_it_is_released(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_STOP}), "SEND_LEAVE");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_STOP}), "");
    (void)roster(&bench, ELASTIC_PLAN, 2, 0, "23");
    (void)tell(&bench, exchanged(&bench, 2));
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), "STEP_DONE(0)");
    assert_int_equal(bench.e.state, ELASTIC_STATE_LEAVING);
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED}),
                        "GOODBYE EXIT(0)");
}

/* The others may have entered without it while it still lacks a result of its last step. */
static void a_leaver_that_is_released_early_ends_its_last_step(void **state)
{
    struct bench bench;

    (void)state;
    begin_three(&bench);
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_STOP});
    (void)roster(&bench, ELASTIC_PLAN, 2, 0, "23");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED}), "");
    assert_string_equal(tell(&bench, exchanged(&bench, 2)), "GENERATION SEND_ENTERED APPLY(0)");
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), "STEP_DONE(0) GOODBYE EXIT(0)");
    /* What it lacks may not come any more. */
    begin_three(&bench);
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_STOP});
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED});
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_PEER_LOST,
                                                            .peer = {{2}},
                                                            .why = ELASTIC_LOST_CLOSED}),
                        "GOODBYE EXIT(0)");
}

/* The others part from it when they have entered the plan, perhaps before its own update has ended.
 */
static void a_leaver_does_not_accuse_those_who_part_from_it(void **state)
{
    struct bench bench;
    struct elastic_event lost = {
        .type = ELASTIC_PEER_LOST, .peer = {{2}}, .why = ELASTIC_LOST_CLOSED};

    (void)state;
    begin_three(&bench);
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_STOP});
    (void)roster(&bench, ELASTIC_PLAN, 2, 0, "23");
    (void)tell(&bench, exchanged(&bench, 2));
    assert_string_equal(tell(&bench, lost), "");
    lost.why = ELASTIC_LOST_UNREACHABLE;
    assert_string_equal(tell(&bench, lost), "SEND_PEER_LOST(2)");
}

/* The job is paused after a loss: whoever leaves then may be the last that knows the step. */
static void a_leaver_that_was_frozen_makes_its_step_durable(void **state)
{
    struct bench bench;

    (void)state;
    begin(&bench, 10, true);
    (void)roster(&bench, ELASTIC_FORMED, 1, 0, "213");
    (void)connected(&bench);
    (void)tell(&bench, exchanged(&bench, 1));
    (void)versioned(&bench, ELASTIC_APPLIED, 1);
    assert_string_equal(over(&bench, 1), "STOP_EXCHANGE SEND_REPORT(1R 2)");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_STOP}), "SEND_LEAVE");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED}), "SAVE");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED}), "");
    assert_string_equal(over(&bench, 2), "");
    assert_string_equal(versioned(&bench, ELASTIC_SAVED, 1), "GOODBYE EXIT(0)");
}

static void expect_farewell(struct bench *bench, const char *begins)
{
    const struct elastic_action *last;

    (void)tell(bench, (struct elastic_event){.type = ELASTIC_RELEASED});
    last = &bench->actions.list[bench->actions.count - 1];
    assert_int_equal(last->type, ELASTIC_DO_EXIT);
    assert_int_equal(last->code, 0);
    if (strncmp(last->text, begins, strlen(begins)) != 0)
        fail_msg("it goes with '%s', expected '%s..'", last->text, begins);
}

/* After one step, without checkpoints: the plan pauses, and these are the members in it. */
static void leave_in_a_pause(struct bench *bench, const char *members, const char *stay)
{
    begin(bench, 10, false);
    (void)roster(bench, ELASTIC_FORMED, 1, 0, members);
    (void)connected(bench);
    (void)tell(bench, (struct elastic_event){.type = ELASTIC_STOP});
    make_pause(bench, 2, stay);
    (void)tell(bench, exchanged(bench, 2));
    (void)versioned(bench, ELASTIC_APPLIED, 1);
    (void)tell(bench, exchanged(bench, 2));
}

static void who_leaves_says_what_is_lost(void **state)
{
    struct bench bench;

    (void)state;
    leave_in_a_pause(&bench, "1", "1");
    assert_int_equal(bench.e.state, ELASTIC_STATE_FROZEN);
    expect_farewell(&bench, "left; steps that are saved nowhere, and lost: 1 (--ckpt DIR");
    leave_in_a_pause(&bench, "12", "12");
    assert_int_equal(bench.e.state, ELASTIC_STATE_FROZEN);
    expect_farewell(
        &bench, "left; steps that are saved nowhere, and lost if nobody else holds them: 1 (--c");
    leave_in_a_pause(&bench, "12", "2");
    assert_int_equal(bench.e.state, ELASTIC_STATE_LEAVING);
    expect_farewell(&bench, "left at a boundary; nothing was lost");
    /* Nothing was trained yet, or nothing is held. */
    begin_three(&bench);
    (void)over(&bench, 1);
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_STOP});
    expect_farewell(&bench, "left; nothing was lost");
    begin(&bench, 10, false);
    (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_STOP});
    expect_farewell(&bench, "left; nothing was lost");
}

static void a_spare_asks_before_it_leaves(void **state)
{
    struct bench bench;

    (void)state;
    begin(&bench, 10, true);
    (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_STOP}), "SEND_LEAVE");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_RELEASED}),
                        "GOODBYE EXIT(0)");
    /* Nobody is there to be asked. */
    begin(&bench, 10, true);
    (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
    (void)tell(&bench, (struct elastic_event){.type = ELASTIC_CONTROL, .ok = false});
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_STOP}), "EXIT(0)");
}

static void a_spare_enters_with_the_group(void **state)
{
    struct bench bench;
    struct elastic_event record = {
        .type = ELASTIC_RECORD_APPLIED, .version = 8, .hash = 8, .plan = 2};

    (void)state;
    begin(&bench, 10, false);
    assert_string_equal(roster(&bench, ELASTIC_VIEW, 1, 0, "23"), "CATCH_UP");
    assert_string_equal(versioned(&bench, ELASTIC_CAUGHT_UP, 7), "SEND_READY");
    /* The record that says "entered" may come before the coordinator's plan. */
    assert_string_equal(tell(&bench, record), "");
    assert_string_equal(roster(&bench, ELASTIC_PLAN, 2, 8, "231"),
                        "END_CATCH_UP CONNECT COMPUTE(3)");
    assert_string_equal(connected(&bench), "SEND_ENTERED EXCHANGE(8)");
}

/* It was dropped after the plan with it was told, and is whole again only with the boundary's
 * record: the others wait for it, so it enters and says no READY. */
static void a_spare_that_was_dropped_still_enters_with_the_group(void **state)
{
    struct bench bench;
    struct elastic_event whole = {.type = ELASTIC_CAUGHT_UP, .version = 8, .hash = 8, .plan = 2};

    (void)state;
    for (int told = 0; told < 2; told++) {
        begin(&bench, 10, false);
        (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
        (void)versioned(&bench, ELASTIC_CAUGHT_UP, 7);
        if (told == 0)
            assert_string_equal(roster(&bench, ELASTIC_PLAN, 2, 0, "231"), "");
        (void)tell(&bench, (struct elastic_event){.type = ELASTIC_BEHIND});
        assert_string_equal(tell(&bench, whole),
                            told == 0 ? "END_CATCH_UP CONNECT COMPUTE(3)" : "SEND_READY");
        if (told == 1)
            assert_string_equal(roster(&bench, ELASTIC_PLAN, 2, 0, "231"),
                                "END_CATCH_UP CONNECT COMPUTE(3)");
        assert_string_equal(connected(&bench), "SEND_ENTERED EXCHANGE(8)");
    }
    /* A plan without it: it is a spare as before. */
    begin(&bench, 10, false);
    (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
    (void)roster(&bench, ELASTIC_PLAN, 2, 0, "23");
    assert_string_equal(tell(&bench, whole), "SEND_READY");
}

static void a_half_copied_spare_reads_its_state_again_before_it_reports(void **state)
{
    struct bench bench;

    (void)state;
    begin(&bench, 10, false);
    (void)roster(&bench, ELASTIC_VIEW, 1, 0, "23");
    assert_string_equal(over(&bench, 1), "END_CATCH_UP RELOAD");
    assert_string_equal(versioned(&bench, ELASTIC_RELOADED, 4), "SEND_REPORT(4 )");
}

static void an_outvoted_replica_is_found_before_the_update(void **state)
{
    static const uint32_t other[] = {2}, me[] = {1};
    struct bench bench;
    struct elastic_event votes;

    (void)state;
    begin_three(&bench);
    votes = exchanged(&bench, 1);
    votes.unanimous = false;
    votes.outvoted = other;
    votes.outvoted_count = 1;
    assert_string_equal(tell(&bench, votes), "SEND_PEER_LOST(3)");
    assert_int_equal(bench.e.state, ELASTIC_STATE_STEPPING);
    votes.outvoted = me;
    assert_string_equal(tell(&bench, votes), "GOODBYE EXIT(75)");
    /* None to be believed: it does not say so before the others have seen the same words. */
    begin_three(&bench);
    votes.majority = false;
    assert_string_equal(tell(&bench, votes), "EXIT(75)");
    assert_true(bench.actions.list[0].linger);
}

/* Whoever finds its own parameters changed goes at once: its last sums have not left. */
static void a_corrupt_replica_finds_itself(void **state)
{
    struct elastic_event corrupt = {.type = ELASTIC_CORRUPT, .step = 0};
    struct bench bench;

    (void)state;
    begin_three(&bench);
    assert_string_equal(tell(&bench, corrupt), "GOODBYE EXIT(75)");
    assert_non_null(strstr(bench.actions.list[0].text, "rank 1) is corrupt"));
    assert_string_equal(bench.actions.list[1].text, bench.actions.list[0].text);
    /* An answer that comes when the exchange is over, or of an older step, says nothing. */
    begin_three(&bench);
    (void)over(&bench, 1);
    assert_string_equal(tell(&bench, corrupt), "");
    begin_three(&bench);
    (void)tell(&bench, exchanged(&bench, 1));
    (void)versioned(&bench, ELASTIC_APPLIED, 1);
    assert_string_equal(tell(&bench, corrupt), "");
}

static void odd_sums_are_told_from_odd_parameters(void **state)
{
    static const uint32_t other[] = {2}, me[] = {1}, both[] = {0, 1};
    struct bench bench;
    struct elastic_event votes;

    (void)state;
    begin_three(&bench);
    votes = exchanged(&bench, 1);
    votes.unanimous = false;
    votes.shard_odd = 3;
    votes.outvoted = other;
    votes.outvoted_count = 1;
    assert_string_equal(tell(&bench, votes), "SEND_PEER_LOST(3)");
    assert_non_null(strstr(bench.actions.list[0].text, "its sums of shard 3 differ"));
    assert_int_equal(bench.actions.list[0].why, ELASTIC_LOST_HASH);
    votes.outvoted = me;
    assert_string_equal(tell(&bench, votes), "GOODBYE EXIT(75)");
    assert_non_null(strstr(bench.actions.list[1].text, "(rank 1) is corrupt: its sums of shard 3"));
    begin_three(&bench);
    votes.majority = false;
    votes.outvoted = both;
    votes.outvoted_count = 2;
    assert_string_equal(tell(&bench, votes), "EXIT(75)");
    assert_non_null(strstr(bench.actions.list[0].text, "ranks 0 and 1"));
    assert_true(bench.actions.list[0].linger);
}

/* One step; the words and the update that follow. */
static const char *step_on(struct bench *bench)
{
    struct elastic_event applied = {
        .type = ELASTIC_APPLIED, .version = bench->e.applied + 1, .hashed = true};
    static char did[256];

    (void)snprintf(did, sizeof did, "%s ", tell(bench, exchanged(bench, 1)));
    (void)snprintf(did + strlen(did), sizeof did - strlen(did), "%s", tell(bench, applied));
    return did;
}

static void hashes_are_made_every_n_steps_and_where_they_are_needed(void **state)
{
    static const char *const owned[] = {"01", "23"};
    struct bench bench;

    (void)state;
    begin_three(&bench);
    bench.e.config.hash_every = 3;
    bench.e.config.save_every = 4; /* what a checkpoint holds was compared */
    (void)shard_done(&bench, 2);
    assert_string_equal(step_on(&bench),
                        "APPLY(0 unhashed) STEP_DONE(0) COMPUTE(2) EXCHANGE(1 unhashed)");
    (void)step_on(&bench);
    assert_string_equal(step_on(&bench), "APPLY(2) STEP_DONE(2) COMPUTE(2) EXCHANGE(3)");
    assert_string_equal(step_on(&bench), "APPLY(3) STEP_DONE(3) COMPUTE(2) EXCHANGE(4)");
    assert_string_equal(step_on(&bench),
                        "APPLY(4 unhashed) STEP_DONE(4) COMPUTE(2) EXCHANGE(5 unhashed)");
    /* What a generation begins with is compared. */
    (void)over(&bench, 1);
    (void)reformed(&bench, 2, 5, "21", owned);
    assert_string_equal(connected(&bench), "SEND_ENTERED EXCHANGE(5)");
    (void)roster(&bench, ELASTIC_PLAN, 3, 5, "214");
    assert_string_equal(tell(&bench, exchanged(&bench, 3)), "GENERATION SEND_ENTERED APPLY(5)");
    (void)versioned(&bench, ELASTIC_APPLIED, 6);
    (void)connected(&bench);
    assert_string_equal(tell(&bench, exchanged(&bench, 3)),
                        "GENERATION SEND_ENTERED APPLY(6 unhashed)");
    (void)roster(&bench, ELASTIC_PLAN, 4, 5, "21");
    (void)versioned(&bench, ELASTIC_APPLIED, 7);
    assert_string_equal(tell(&bench, exchanged(&bench, 4)), "APPLY(7)"); /* a boundary */
}

static void how_long_sums_may_have_been_wrong_is_said(void **state)
{
    static const uint32_t other[] = {2};
    struct bench bench;
    struct elastic_event votes;

    (void)state;
    begin_three(&bench);
    bench.e.config.hash_every = 3;
    for (int i = 0; i < 3; i++) {
        struct elastic_event event = exchanged(&bench, 1);

        event.hashed = i == 0;
        (void)tell(&bench, event);
        (void)versioned(&bench, ELASTIC_APPLIED, bench.e.applied + 1);
    }
    votes = exchanged(&bench, 1);
    votes.unanimous = false;
    votes.outvoted = other;
    votes.outvoted_count = 1;
    assert_string_equal(tell(&bench, votes), "SEND_PEER_LOST(3)");
    assert_non_null(strstr(bench.actions.list[0].text, "equal before step 0"));
}

static void the_end_is_agreed_evaluated_saved_and_told(void **state)
{
    struct bench bench;

    (void)state;
    begin(&bench, 1, true);
    (void)roster(&bench, ELASTIC_FORMED, 1, 0, "12"); /* rank 0 saves */
    (void)connected(&bench);
    (void)tell(&bench, exchanged(&bench, 1));
    assert_string_equal(versioned(&bench, ELASTIC_APPLIED, 1), "STEP_DONE(0) EXCHANGE(1 words)");
    assert_string_equal(tell(&bench, exchanged(&bench, 1)), "EVALUATE");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_EVALUATED}), "SAVE");
    assert_string_equal(versioned(&bench, ELASTIC_SAVED, 1), "SEND_FINISHED");
    assert_string_equal(tell(&bench, (struct elastic_event){.type = ELASTIC_DONE, .ok = true}),
                        "GOODBYE EXIT(0)");
}

/* ---- anything at any time ------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The hands of a spare speak only while it catches up, and of records only when it is whole. */
static bool possible(const struct elastic *e, enum elastic_event_type type)
{
    bool catching_up = e->state == ELASTIC_STATE_SPARE && !e->reloading;

    if (type == ELASTIC_CAUGHT_UP)
        return catching_up && e->mixed;
    if (type == ELASTIC_RECORD_APPLIED || type == ELASTIC_BEHIND)
        return catching_up && !e->mixed;
    return type != ELASTIC_RELEASED && type != ELASTIC_DONE && type != ELASTIC_STOP;
}

/* Rosters of any number; answers that come late or twice; everything else as it may come. */
static void random_event(struct bench *bench, uint64_t *seed)
{
    static const char *const groups[] = {"1", "12", "213", "23", "4132"};
    static const enum elastic_event_type told[] = {ELASTIC_FORMED, ELASTIC_PLAN, ELASTIC_VIEW};
    enum elastic_event_type type =
        (enum elastic_event_type)(next_random(seed) % (ELASTIC_STOP + 1));
    uint64_t number = bench->e.number_max + next_random(seed) % 3;
    struct elastic_event event = exchanged(bench, number);

    if (next_random(seed) % 3 == 0 || type <= ELASTIC_VIEW) {
        (void)roster(bench, told[next_random(seed) % 3], number + (number == 0),
                     bench->e.applied + next_random(seed) % 3 / 2, groups[next_random(seed) % 5]);
        return;
    }
    if (!possible(&bench->e, type))
        type = ELASTIC_CONNECTED;
    if (type != ELASTIC_EXCHANGED)
        event.number = next_random(seed) % 2 ? bench->e.generation.number : number;
    event.type = type;
    event.version = bench->e.applied + next_random(seed) % 2;
    event.hash = event.version;
    event.shard = (uint32_t)(next_random(seed) % SHARDS);
    event.ok = next_random(seed) % 4 != 0;
    event.peer.byte[0] = (uint8_t)(1 + next_random(seed) % 4);
    event.why = ELASTIC_LOST_CLOSED;
    (void)tell(bench, event);
}

static void whatever_comes_the_invariants_hold(void **state)
{
    (void)state;
    for (uint64_t walk = 1; walk <= 2000; walk++) {
        uint64_t seed = walk, applied = 0;
        struct bench bench;

        begin(&bench, 20, walk % 2 == 0);
        for (uint32_t i = 0; i < 200 && bench.e.state != ELASTIC_STATE_GONE; i++) {
            uint64_t before = bench.e.number_max;

            random_event(&bench, &seed);
            if (bench.e.number_max < before)
                fail_msg("walk %" PRIu64 ": generation %" PRIu64 " after %" PRIu64, walk,
                         bench.e.number_max, before);
            applied = bench.e.applied > applied ? bench.e.applied : applied;
        }
        if (walk == 1)
            assert_true(applied > 0); /* it gets somewhere */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_sums_exchange_update),
        cmocka_unit_test(only_what_the_lost_one_owed_is_made_anew),
        cmocka_unit_test(a_frozen_one_is_not_moved_by_late_frames),
        cmocka_unit_test(an_update_that_has_begun_is_finished_before_the_report),
        cmocka_unit_test(one_step_behind_copies_the_reduced_gradient),
        cmocka_unit_test(a_holder_that_fails_is_followed_by_the_next_and_then_told),
        cmocka_unit_test(an_older_generation_is_refused),
        cmocka_unit_test(a_plan_waits_until_every_word_holds_it),
        cmocka_unit_test(a_plan_spreads_the_shards_by_weight),
        cmocka_unit_test(a_leaver_stays_until_it_is_released),
        cmocka_unit_test(a_leaver_that_is_released_early_ends_its_last_step),
        cmocka_unit_test(a_leaver_does_not_accuse_those_who_part_from_it),
        cmocka_unit_test(a_leaver_that_was_frozen_makes_its_step_durable),
        cmocka_unit_test(who_leaves_says_what_is_lost),
        cmocka_unit_test(a_spare_asks_before_it_leaves),
        cmocka_unit_test(a_spare_enters_with_the_group),
        cmocka_unit_test(a_spare_that_was_dropped_still_enters_with_the_group),
        cmocka_unit_test(a_half_copied_spare_reads_its_state_again_before_it_reports),
        cmocka_unit_test(an_outvoted_replica_is_found_before_the_update),
        cmocka_unit_test(a_corrupt_replica_finds_itself),
        cmocka_unit_test(odd_sums_are_told_from_odd_parameters),
        cmocka_unit_test(hashes_are_made_every_n_steps_and_where_they_are_needed),
        cmocka_unit_test(how_long_sums_may_have_been_wrong_is_said),
        cmocka_unit_test(the_end_is_agreed_evaluated_saved_and_told),
        cmocka_unit_test(whatever_comes_the_invariants_hold),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
