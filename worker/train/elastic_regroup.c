/* From the end of a generation to the step of the next: freeze, report, enter, copy or redo.
 * elastic.c has the invariants. */
#include "train/elastic_private.h"

#include <assert.h>
#include <string.h>

/* ---- freezing ------------------------------------------------------------------------------- */

static void report(struct elastic *e, struct elastic_actions *actions)
{
    struct elastic_action *action = elastic_act(actions, ELASTIC_DO_SEND_REPORT);

    action->version = e->applied;
    action->plan = e->plan.number;
    action->shards = elastic_owned(e);
    action->has_reduced = e->has_reduced;
    action->entered = e->entered;
    e->plan.number = 0;
    e->boundary = false;
    e->pausing = false;
    e->pending_plan = 0;
    e->state = ELASTIC_STATE_FROZEN;
}

/* A checkpoint of the parameters as they are now. They are written only after every replica's word
 * agreed with them: what is out-voted never becomes the state that a job resumes from. */
struct elastic_action *elastic_save(struct elastic *e, struct elastic_actions *actions)
{
    struct elastic_action *action = elastic_act(actions, ELASTIC_DO_SAVE);

    action->version = e->applied;
    e->saved = e->applied;
    return action;
}

static void reload(struct elastic *e, struct elastic_actions *actions)
{
    e->mixed = true;
    if (!e->reloading)
        elastic_act(actions, ELASTIC_DO_RELOAD);
    e->reloading = true;
}

/* Frozen: says what it holds, at once or when it has something to hold again. */
void elastic_freeze(struct elastic *e, struct elastic_actions *actions)
{
    e->state = ELASTIC_STATE_FROZEN;
    if (e->mixed)
        reload(e, actions);
    else
        report(e, actions);
}

/* One that never trained: a spare that is in step says so, any other looks for a newer
 * checkpoint. */
static void on_over_outside(struct elastic *e, struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_SPARE) {
        elastic_act(actions, ELASTIC_DO_END_CATCH_UP);
        e->view.number = 0;
    } else {
        e->mixed = true;
    }
    e->entered = false;
    elastic_freeze(e, actions);
}

void elastic_on_over(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_GONE)
        return;
    if (e->state == ELASTIC_STATE_SPARE || e->generation.number == 0) {
        on_over_outside(e, actions);
        return;
    }
    if (event->number < e->before)
        return;
    if (e->released) {
        if (e->state != ELASTIC_STATE_FROZEN) /* else its checkpoint is awaited */
            elastic_go(e, actions);
        return;
    }
    if (e->state != ELASTIC_STATE_FROZEN)
        elastic_act(actions, ELASTIC_DO_STOP_EXCHANGE);
    if (e->state == ELASTIC_STATE_APPLYING)
        e->freeze_after_apply = true;
    else
        elastic_freeze(e, actions);
}

/* ---- entering a generation ------------------------------------------------------------------ */

static void connect(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    e->rank = elastic_find_rank(&e->generation, &e->config.me);
    assert(e->rank != ELASTIC_NO_RANK);
    e->entered = false;
    e->leave_sent = false;
    e->released = false;
    e->recovering = true;
    e->connected = false;
    e->formed_us = now_us;
    e->connected_us = now_us;
    e->state = ELASTIC_STATE_CONNECTING;
    elastic_act(actions, ELASTIC_DO_CONNECT);
    if (e->applied == e->generation.step && !e->mixed)
        elastic_compute_missing(e, actions);
}

void elastic_on_formed(struct elastic *e, const struct elastic_event *event,
                       struct elastic_actions *actions)
{
    const struct elastic_roster *roster = event->roster;
    struct plan_mask owned[ELASTIC_WORLD_MAX];

    if (roster->number <= e->number_max || e->state == ELASTIC_STATE_GONE ||
        elastic_find_rank(roster, &e->config.me) == ELASTIC_NO_RANK)
        return;
    if (e->state == ELASTIC_STATE_APPLYING)
        return; /* it has not reported, so nobody can have formed with it */
    if (e->state == ELASTIC_STATE_SPARE)
        elastic_act(actions, ELASTIC_DO_END_CATCH_UP);
    else if (e->state != ELASTIC_STATE_IDLE && e->state != ELASTIC_STATE_FROZEN)
        elastic_act(actions, ELASTIC_DO_STOP_EXCHANGE);
    if (e->mixed)
        reload(e, actions);
    e->number_max = roster->number;
    e->generation = *roster;
    e->before = roster->number;
    e->plan.number = 0;
    e->view.number = 0;
    e->boundary = false;
    e->pausing = false;
    for (uint32_t rank = 0; rank < roster->world; rank++)
        owned[rank] =
            roster->members[rank].frozen ? roster->members[rank].owned : elastic_none_held();
    plan_regroup(e->config.shape.shards, roster->world, owned, e->owner);
    connect(e, event->now_us, actions);
}

/* The plan is the generation now: everybody takes it after the same step. The shards are spread
 * anew: nobody holds anything of the step to come. */
static void take_plan(struct elastic *e)
{
    uint32_t weight[ELASTIC_WORLD_MAX];

    e->before = e->generation.number;
    e->generation = e->plan;
    e->generation.step = e->applied;
    e->plan.number = 0;
    e->boundary = false;
    e->pending_plan = 0;
    if (e->before == 0)
        e->before = e->generation.number;
    for (uint32_t rank = 0; rank < e->generation.world; rank++)
        weight[rank] = e->generation.members[rank].weight;
    plan_weighted(e->config.shape.shards, e->generation.world, weight, e->owner);
}

void elastic_enter_plan(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    take_plan(e);
    connect(e, now_us, actions);
}

/* Everything that was agreed on is durable: who leaves may go, who stays waits for others to
 * come. */
void elastic_pause(struct elastic *e, struct elastic_actions *actions)
{
    take_plan(e);
    e->rank = elastic_find_rank(&e->generation, &e->config.me);
    e->entered = true;
    elastic_act(actions, ELASTIC_DO_SEND_ENTERED)->step = e->applied;
    report(e, actions);
}

/* A leaver serves R of its last step until everybody has applied it. */
static void serve(struct elastic *e, struct elastic_actions *actions)
{
    e->boundary = false;
    e->pausing = false;
    e->state = ELASTIC_STATE_LEAVING;
    if (e->released)
        elastic_go(e, actions);
}

/* The last words of a generation that pauses agree: the first of those who stay makes it
 * durable. */
void elastic_pause_words(struct elastic *e, struct elastic_actions *actions)
{
    uint32_t rank = elastic_find_rank(&e->plan, &e->config.me);

    if (rank == ELASTIC_NO_RANK) {
        serve(e, actions);
    } else if (rank == 0 && e->config.saves) {
        e->state = ELASTIC_STATE_PAUSING;
        elastic_save(e, actions)->last = true;
    } else {
        elastic_pause(e, actions);
    }
}

void elastic_take_boundary(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    if (e->plan.pause) {
        e->boundary = false;
        e->pausing = true;
        elastic_begin_step(e, now_us, actions);
    } else if (elastic_find_rank(&e->plan, &e->config.me) == ELASTIC_NO_RANK) {
        serve(e, actions);
    } else {
        elastic_enter_plan(e, now_us, actions);
    }
}

void elastic_on_plan(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions)
{
    const struct elastic_roster *roster = event->roster;

    if (roster->number <= e->number_max || e->state == ELASTIC_STATE_FROZEN ||
        e->state == ELASTIC_STATE_GONE || e->state == ELASTIC_STATE_LEAVING)
        return;
    e->number_max = roster->number;
    e->plan = *roster;
    if (e->state == ELASTIC_STATE_SPARE && e->pending_plan == roster->number) {
        elastic_act(actions, ELASTIC_DO_END_CATCH_UP);
        elastic_enter_plan(e, event->now_us, actions);
    }
}

static void catch_up(struct elastic *e, struct elastic_actions *actions)
{
    e->mixed = true;
    elastic_act(actions, ELASTIC_DO_CATCH_UP);
}

void elastic_on_view(struct elastic *e, const struct elastic_event *event,
                     struct elastic_actions *actions)
{
    if (event->roster->number < e->number_max || e->state == ELASTIC_STATE_GONE ||
        (e->state != ELASTIC_STATE_IDLE && e->state != ELASTIC_STATE_SPARE &&
         e->state != ELASTIC_STATE_FROZEN))
        return;
    e->number_max = event->roster->number;
    e->view = *event->roster;
    e->plan.number = 0;
    e->entered = false;
    e->state = ELASTIC_STATE_SPARE;
    if (!e->reloading)
        catch_up(e, actions);
}

/* ---- reaching the generation's step --------------------------------------------------------- */

/* Asks the next member that stands at the generation's step: for R if that is enough, else for
 * all. */
static void copy_next(struct elastic *e, struct elastic_actions *actions)
{
    uint64_t target = e->generation.step;
    struct elastic_action *action;

    e->state = ELASTIC_STATE_COPYING;
    for (uint32_t rank = e->source_next; rank < e->generation.world; rank++) {
        const struct elastic_member *holder = &e->generation.members[rank];

        if (rank == e->rank || holder->applied != target || (!e->copying_state && !holder->frozen))
            continue;
        e->source_next = rank + 1;
        e->mixed = e->copying_state;
        action = elastic_act(actions,
                             e->copying_state ? ELASTIC_DO_COPY_STATE : ELASTIC_DO_COPY_REDUCED);
        action->from = rank;
        action->version = target;
        action->step = target - 1;
        return;
    }
    if (!e->copying_state) {
        e->copying_state = true;
        e->source_next = 0;
        copy_next(e, actions);
        return;
    }
    /* Every holder failed: it is said, and the coordinator finds s anew with those who live. */
    for (uint32_t rank = 0; rank < e->generation.world; rank++)
        if (rank != e->rank && e->generation.members[rank].applied == target) {
            action = elastic_act(actions, ELASTIC_DO_SEND_PEER_LOST);
            action->peer = e->generation.members[rank].id;
            action->why = ELASTIC_LOST_UNREACHABLE;
            return;
        }
    /* The coordinator believed that I hold it. */
    elastic_act(actions, ELASTIC_DO_STOP_EXCHANGE);
    elastic_freeze(e, actions);
}

/* Connected, and what is held is whole: to the generation's step. Who holds a later version says
 * so, and the generation is formed again: the highest step wins. */
static void reach_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    if (e->applied == e->generation.step) {
        elastic_enter_step(e, now_us, actions);
        return;
    }
    if (e->applied > e->generation.step) {
        elastic_act(actions, ELASTIC_DO_STOP_EXCHANGE);
        report(e, actions);
        return;
    }
    e->copying_state = e->applied + 1 != e->generation.step;
    e->source_next = 0;
    copy_next(e, actions);
}

void elastic_on_connected(struct elastic *e, const struct elastic_event *event,
                          struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_CONNECTING || event->number != e->generation.number)
        return;
    e->connected = true;
    e->connected_us = event->now_us;
    if (!e->mixed)
        reach_step(e, event->now_us, actions);
}

/* The newest checkpoint was read again, or the first state was made again. */
void elastic_on_reloaded(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions)
{
    if (!e->reloading)
        return;
    e->reloading = false;
    elastic_new_state(e, event->version, event->hash);
    if (e->state == ELASTIC_STATE_SPARE)
        catch_up(e, actions);
    else if (e->state == ELASTIC_STATE_FROZEN)
        report(e, actions);
    else if (e->state == ELASTIC_STATE_CONNECTING && e->connected)
        reach_step(e, event->now_us, actions);
    else if (e->state == ELASTIC_STATE_CONNECTING && e->applied == e->generation.step)
        elastic_compute_missing(e, actions);
}

void elastic_on_copied(struct elastic *e, const struct elastic_event *event,
                       struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_COPYING)
        return;
    if (!event->ok || event->version != e->generation.step) {
        copy_next(e, actions);
        return;
    }
    if (e->copying_state) {
        elastic_new_state(e, event->version, event->hash);
        elastic_enter_step(e, event->now_us, actions);
        return;
    }
    e->reapplying = true;
    elastic_apply(e, actions);
}
