/* A step: its sums, the words that agree, the update, and what follows it. elastic.c has the
 * invariants. */
#include "train/elastic_private.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- a step --------------------------------------------------------------------------------- */

void elastic_compute_missing(struct elastic *e, struct elastic_actions *actions)
{
    struct plan_mask due = elastic_due_now(e), missing = plan_mask_minus(&due, &e->asked);
    struct elastic_action *action;

    if (plan_mask_empty(&missing))
        return;
    for (uint32_t i = 0; i < e->config.shape.shards; i++)
        if (plan_mask_has(&missing, i))
            plan_mask_set(&e->asked, i);
    action = elastic_act(actions, ELASTIC_DO_COMPUTE);
    action->step = e->applied;
    action->shards = missing;
}

/* Said when it is entered, and again when what had to be computed anew is there: the phase that
 * takes the longest is known only then. */
static void say_entered(const struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action = elastic_act(actions, ELASTIC_DO_SEND_ENTERED);
    uint64_t recompute_us = now_us - e->stepping_us;

    action->step = e->generation.step;
    action->connect_us = e->connected_us - e->formed_us;
    action->state_us = e->stepping_us - e->connected_us;
    if (!e->recovering)
        action->recompute_us = recompute_us > 0 ? recompute_us : 1; /* 0 = not yet known */
}

/* The log line of a generation, once the sums that had to be made anew are here. */
static void tell_recovered(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action;

    if (!e->recovering || e->state != ELASTIC_STATE_STEPPING || elastic_owes(e))
        return;
    e->recovering = false;
    action = elastic_act(actions, ELASTIC_DO_GENERATION);
    action->connect_us = e->connected_us - e->formed_us;
    action->state_us = e->stepping_us - e->connected_us;
    action->recompute_us = now_us - e->stepping_us;
    if (!e->config.alone)
        say_entered(e, now_us, actions);
}

/* Versions whose parameters are hashed, so that the words compare them. Members that differ in this
 * compare where both have a hash. What a generation begins with, and what a checkpoint may hold,
 * is compared always. */
static bool hash_due(const struct elastic *e, uint64_t version)
{
    const struct elastic_config *c = &e->config;

    return c->hash_every <= 1 || version % c->hash_every == 0 ||
           (c->save_every != 0 && version % c->save_every == 0) || version >= c->steps_total;
}

void elastic_begin_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action;

    e->state = ELASTIC_STATE_STEPPING;
    e->last_words = e->applied >= e->config.steps_total;
    if (!e->pausing)
        elastic_compute_missing(e, actions);
    action = elastic_act(actions, ELASTIC_DO_EXCHANGE);
    action->step = e->applied;
    action->plan = e->plan.number != 0 ? e->plan.number : e->generation.number;
    action->words_only = e->last_words || e->pausing;
    action->hashed =
        action->words_only || e->applied == e->generation.step || hash_due(e, e->applied);
    tell_recovered(e, now_us, actions);
}

/* Connected and at the generation's step. */
void elastic_enter_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    assert(e->applied == e->generation.step);
    e->entered = true;
    e->stepping_us = now_us;
    say_entered(e, now_us, actions);
    if (e->stop && !e->leave_sent && !e->config.alone) {
        elastic_act(actions, ELASTIC_DO_SEND_LEAVE);
        e->leave_sent = true;
    }
    elastic_begin_step(e, now_us, actions);
}

/* ---- the end of a step ---------------------------------------------------------------------- */

void elastic_finish(struct elastic *e, struct elastic_actions *actions)
{
    e->state = ELASTIC_STATE_FINISHING;
    if (!e->evaluated) {
        if (!e->evaluating)
            elastic_act(actions, ELASTIC_DO_EVALUATE);
        e->evaluating = true; /* one is enough, however often the group forms anew meanwhile */
        return;
    }
    if (e->config.saves && e->rank == 0 && !e->saved_last) {
        elastic_save(e, actions)->last = true;
        return;
    }
    if (e->config.alone)
        elastic_leave_for_good(e, actions, 0, "");
    else
        elastic_act(actions, ELASTIC_DO_SEND_FINISHED)->hash = e->hash;
}

/* None is to be believed: all end, and go back to the newest checkpoint. Not at once, and without a
 * goodbye: what is known of the others' end must not come to anybody before the words that are on
 * their way to him, or he would go on alone with what he has. */
static void leave_without_majority(struct elastic *e, const struct elastic_event *event,
                                   struct elastic_actions *actions)
{
    struct elastic_action *action = elastic_act(actions, ELASTIC_DO_EXIT);

    action->code = 75;
    action->linger = !e->config.alone;
    if (event->shard_odd == ELASTIC_NO_SHARD)
        (void)snprintf(action->text, sizeof action->text,
                       "the replicas differ and none has a majority: start again from the newest "
                       "checkpoint");
    else
        (void)snprintf(
            action->text, sizeof action->text,
            "ranks %u and %u have different sums of shard %u, and no majority says whose "
            "are right: start again from the newest checkpoint",
            event->outvoted[0], event->outvoted[1], event->shard_odd);
    e->state = ELASTIC_STATE_GONE;
}

/* What is wrong with one that is out-voted, said of it. */
static void odd_text(const struct elastic *e, const struct elastic_event *event,
                     char text[ELASTIC_TEXT_BYTES])
{
    if (event->shard_odd != ELASTIC_NO_SHARD)
        (void)snprintf(text, ELASTIC_TEXT_BYTES,
                       "its sums of shard %u differ from those of two others", event->shard_odd);
    else if (e->applied > e->compared + 1)
        (void)snprintf(text, ELASTIC_TEXT_BYTES,
                       "its parameters differ from the others'; they were equal before step %llu, "
                       "and sums since then may be wrong",
                       (unsigned long long)e->compared);
    else
        (void)snprintf(text, ELASTIC_TEXT_BYTES, "its parameters differ from the others'");
}

static void leave_corrupt(struct elastic *e, const char *what, struct elastic_actions *actions)
{
    char text[ELASTIC_TEXT_BYTES];

    (void)snprintf(text, sizeof text, "this replica (rank %u) is corrupt: %s", e->rank, what);
    elastic_leave_for_good(e, actions, 75, text);
}

/* Words that differ: somebody's parameters, or sums, are not what they should be. Nothing is
 * applied. The exchange is not stopped: the others shall see the same words, and say so too. */
static void on_outvoted(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    char text[ELASTIC_TEXT_BYTES];

    if (!event->majority) {
        leave_without_majority(e, event, actions);
        return;
    }
    odd_text(e, event, text);
    for (uint32_t i = 0; i < event->outvoted_count; i++)
        if (event->outvoted[i] == e->rank) {
            leave_corrupt(e, text, actions);
            return;
        }
    for (uint32_t i = 0; i < event->outvoted_count && actions->count + 2 < ELASTIC_ACTIONS_MAX;
         i++) {
        struct elastic_action *action = elastic_act(actions, ELASTIC_DO_SEND_PEER_LOST);

        action->peer = e->generation.members[event->outvoted[i]].id;
        action->from = event->outvoted[i];
        action->why = ELASTIC_LOST_HASH;
        memcpy(action->text, text, sizeof action->text);
    }
}

/* Found by itself, before its last sums could leave: the others finish the step without it. */
void elastic_on_corrupt(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_STEPPING && event->step == e->applied)
        leave_corrupt(e, "its parameters changed in memory after they were hashed", actions);
}

void elastic_apply(struct elastic *e, struct elastic_actions *actions)
{
    struct elastic_action *action = elastic_act(actions, ELASTIC_DO_APPLY);

    action->step = e->applied;
    action->hashed = e->boundary || e->reapplying || hash_due(e, e->applied + 1);
    e->state = ELASTIC_STATE_APPLYING;
}

void elastic_on_exchanged(struct elastic *e, const struct elastic_event *event,
                          struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_STEPPING || event->number != e->generation.number ||
        event->nonce != e->generation.nonce || event->step != e->applied)
        return;
    if (!event->unanimous) {
        on_outvoted(e, event, actions);
        return;
    }
    if (event->hashed)
        e->compared = e->applied;
    /* My last sums may be in everybody's R before the word that they are done has reached this
     * machine. */
    if (!e->pausing && !e->last_words)
        e->held = elastic_due_now(e);
    tell_recovered(e, event->now_us, actions);
    if (e->pausing) {
        elastic_pause_words(e, actions);
        return;
    }
    if (e->last_words) {
        elastic_finish(e, actions);
        return;
    }
    if (e->config.saves && e->rank == 0 && e->config.save_every != 0 && e->applied != e->saved &&
        e->applied % e->config.save_every == 0)
        (void)elastic_save(e, actions);
    e->boundary = e->plan.number != 0 && event->plan_min >= e->plan.number;
    elastic_apply(e, actions);
}

#define STOPPED "stopped after the step that was under way"

static void stop_alone(struct elastic *e, struct elastic_actions *actions)
{
    char text[ELASTIC_TEXT_BYTES];

    e->state = ELASTIC_STATE_LEAVING;
    if (e->config.saves && e->saved != e->applied) {
        elastic_save(e, actions)->last = true;
    } else if (e->config.saves) {
        elastic_leave_for_good(e, actions, 0, STOPPED);
    } else {
        (void)snprintf(text, sizeof text,
                       STOPPED "; steps that are saved nowhere: %llu (--ckpt DIR would keep them)",
                       (unsigned long long)e->applied);
        elastic_leave_for_good(e, actions, 0, text);
    }
}

void elastic_on_applied(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    struct elastic_action *action;
    bool reapplied = e->reapplying;

    if (e->state != ELASTIC_STATE_APPLYING || event->version != e->applied + 1)
        return;
    action = elastic_act(actions, ELASTIC_DO_STEP_DONE);
    action->step = e->applied;
    action->number = e->generation.number;
    action->rank = e->rank;
    action->world = e->generation.world;
    action->hash = event->hash;
    action->hashed = event->hashed;
    elastic_new_version(e, event->version, event->hash);
    e->has_reduced = true;
    e->reapplying = false;
    if (e->freeze_after_apply) {
        e->freeze_after_apply = false;
        elastic_freeze(e, actions);
    } else if (reapplied) {
        elastic_enter_step(e, event->now_us, actions);
    } else if (e->boundary) {
        elastic_take_boundary(e, event->now_us, actions);
    } else if (e->config.alone && e->stop) {
        stop_alone(e, actions);
    } else {
        elastic_begin_step(e, event->now_us, actions);
    }
}

void elastic_on_saved(struct elastic *e, uint64_t version, struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_LEAVING && e->config.alone && version == e->applied)
        elastic_leave_for_good(e, actions, 0, STOPPED);
    if (e->state == ELASTIC_STATE_FROZEN && e->released && version == e->applied) {
        elastic_go(e, actions);
        return;
    }
    if (e->state == ELASTIC_STATE_PAUSING && version == e->applied) {
        elastic_pause(e, actions);
        return;
    }
    if (e->state != ELASTIC_STATE_FINISHING || version != e->applied)
        return;
    e->saved_last = true;
    elastic_finish(e, actions);
}

void elastic_on_shard_done(struct elastic *e, const struct elastic_event *event,
                           struct elastic_actions *actions)
{
    if (event->step != e->applied || !plan_mask_has(&e->asked, event->shard))
        return;
    plan_mask_set(&e->held, event->shard);
    tell_recovered(e, event->now_us, actions);
}
