/* Invariants (worker/DESIGN.md gives the reasons; elastic_check() walks them)
 *   1. A generation is entered only if its number is larger than every number seen before.
 *   2. Parameters change only by APPLY of a whole R, or by a copy of the whole state.
 *   3. An update that has begun is finished before the member reports: a report says what it holds.
 *   4. After STOP_EXCHANGE no EXCHANGED of that generation counts: `state` is no longer STEPPING.
 *   5. held is a subset of asked; both belong to step `applied` and are emptied when it grows.
 *   6. A plan is entered only after a step in which every word held it, so all enter after the same
 *      one.
 *   7. Nothing is exchanged in IDLE, SPARE, FROZEN, LEAVING, GONE.
 *   8. While the state is a mixture of versions (mixed: a copy or a catch-up has begun and is not
 *      whole) no version of it is claimed: it is read again (RELOAD) before anything is reported or
 *      begun with it. */
#include "train/elastic.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- small things --------------------------------------------------------------------------- */

bool elastic_id_equal(const struct elastic_id *a, const struct elastic_id *b)
{
    return memcmp(a->byte, b->byte, sizeof a->byte) == 0;
}

static struct elastic_action *act(struct elastic_actions *actions, enum elastic_action_type type)
{
    struct elastic_action *action;

    assert(actions->count < ELASTIC_ACTIONS_MAX);
    action = &actions->list[actions->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    return action;
}

static void leave_for_good(struct elastic *e, struct elastic_actions *actions, int code,
                           const char *text)
{
    struct elastic_action *action;

    if (e->control && !e->config.alone)
        act(actions, ELASTIC_DO_GOODBYE)->code = code;
    action = act(actions, ELASTIC_DO_EXIT);
    action->code = code;
    (void)snprintf(action->text, sizeof action->text, "%s", text);
    e->state = ELASTIC_STATE_GONE;
}

static uint32_t find_rank(const struct elastic_roster *roster, const struct elastic_id *id)
{
    for (uint32_t rank = 0; rank < roster->world; rank++)
        if (elastic_id_equal(&roster->members[rank].id, id))
            return rank;
    return ELASTIC_NO_RANK;
}

static struct plan_mask none_held(void)
{
    struct plan_mask none = {{0}};

    return none;
}

static struct plan_mask owned_now(const struct elastic *e)
{
    if (e->generation.number == 0 || e->rank == ELASTIC_NO_RANK)
        return none_held();
    return plan_owned(e->config.shape.shards, e->owner, (uint16_t)e->rank);
}

/* Present shards of step `applied` that I own. */
static struct plan_mask due_now(const struct elastic *e)
{
    struct plan_mask owned = owned_now(e), present;

    if (e->applied >= e->config.steps_total)
        return none_held();
    present = plan_present(&e->config.shape, e->applied);
    return plan_mask_and(&owned, &present);
}

bool elastic_owes(const struct elastic *e)
{
    struct plan_mask due = due_now(e), rest = plan_mask_minus(&due, &e->held);

    return e->state == ELASTIC_STATE_STEPPING && !e->pausing && !plan_mask_empty(&rest);
}

bool elastic_training(const struct elastic *e)
{
    return e->state == ELASTIC_STATE_STEPPING || e->state == ELASTIC_STATE_APPLYING;
}

static void new_version(struct elastic *e, uint64_t version, uint64_t hash)
{
    e->applied = version;
    e->hash = hash;
    e->held = none_held();
    e->asked = none_held();
}

/* ---- a step --------------------------------------------------------------------------------- */

static void compute_missing(struct elastic *e, struct elastic_actions *actions)
{
    struct plan_mask due = due_now(e), missing = plan_mask_minus(&due, &e->asked);
    struct elastic_action *action;

    if (plan_mask_empty(&missing))
        return;
    for (uint32_t i = 0; i < e->config.shape.shards; i++)
        if (plan_mask_has(&missing, i))
            plan_mask_set(&e->asked, i);
    action = act(actions, ELASTIC_DO_COMPUTE);
    action->step = e->applied;
    action->shards = missing;
}

/* The log line of a generation, once the sums that had to be made anew are here. */
static void tell_recovered(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action;

    if (!e->recovering || e->state != ELASTIC_STATE_STEPPING || elastic_owes(e))
        return;
    e->recovering = false;
    action = act(actions, ELASTIC_DO_GENERATION);
    action->connect_us = e->connected_us - e->formed_us;
    action->state_us = e->stepping_us - e->connected_us;
    action->recompute_us = now_us - e->stepping_us;
}

static void begin_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action;

    e->state = ELASTIC_STATE_STEPPING;
    e->last_words = e->applied >= e->config.steps_total;
    if (!e->pausing)
        compute_missing(e, actions);
    action = act(actions, ELASTIC_DO_EXCHANGE);
    action->step = e->applied;
    action->plan = e->plan.number != 0 ? e->plan.number : e->generation.number;
    action->hash = e->hash;
    action->words_only = e->last_words || e->pausing;
    tell_recovered(e, now_us, actions);
}

/* Connected and at the generation's step. */
static void enter_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    struct elastic_action *action = act(actions, ELASTIC_DO_SEND_ENTERED);

    assert(e->applied == e->generation.step);
    e->entered = true;
    e->stepping_us = now_us;
    action->step = e->applied;
    action->connect_us = e->connected_us - e->formed_us;
    action->state_us = now_us - e->connected_us;
    if (e->stop && !e->leave_sent && !e->config.alone) {
        act(actions, ELASTIC_DO_SEND_LEAVE);
        e->leave_sent = true;
    }
    begin_step(e, now_us, actions);
}

/* ---- freezing ------------------------------------------------------------------------------- */

static void report(struct elastic *e, struct elastic_actions *actions)
{
    struct elastic_action *action = act(actions, ELASTIC_DO_SEND_REPORT);

    action->version = e->applied;
    action->plan = e->plan.number;
    action->shards = owned_now(e);
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
static struct elastic_action *save(struct elastic *e, struct elastic_actions *actions)
{
    struct elastic_action *action = act(actions, ELASTIC_DO_SAVE);

    action->version = e->applied;
    e->saved = e->applied;
    return action;
}

static void reload(struct elastic *e, struct elastic_actions *actions)
{
    e->mixed = true;
    if (!e->reloading)
        act(actions, ELASTIC_DO_RELOAD);
    e->reloading = true;
}

/* Frozen: says what it holds, at once or when it has something to hold again. */
static void freeze(struct elastic *e, struct elastic_actions *actions)
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
        act(actions, ELASTIC_DO_END_CATCH_UP);
        e->view.number = 0;
    } else {
        e->mixed = true;
    }
    e->entered = false;
    freeze(e, actions);
}

static void on_over(struct elastic *e, const struct elastic_event *event,
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
    if (e->state != ELASTIC_STATE_FROZEN)
        act(actions, ELASTIC_DO_STOP_EXCHANGE);
    if (e->state == ELASTIC_STATE_APPLYING)
        e->freeze_after_apply = true;
    else
        freeze(e, actions);
}

/* ---- entering a generation ------------------------------------------------------------------ */

static void connect(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    e->rank = find_rank(&e->generation, &e->config.me);
    assert(e->rank != ELASTIC_NO_RANK);
    e->entered = false;
    e->leave_sent = false;
    e->recovering = true;
    e->connected = false;
    e->formed_us = now_us;
    e->connected_us = now_us;
    e->state = ELASTIC_STATE_CONNECTING;
    act(actions, ELASTIC_DO_CONNECT);
    if (e->applied == e->generation.step && !e->mixed)
        compute_missing(e, actions);
}

static void on_formed(struct elastic *e, const struct elastic_event *event,
                      struct elastic_actions *actions)
{
    const struct elastic_roster *roster = event->roster;
    struct plan_mask owned[ELASTIC_WORLD_MAX];

    if (roster->number <= e->number_max || e->state == ELASTIC_STATE_GONE ||
        find_rank(roster, &e->config.me) == ELASTIC_NO_RANK)
        return;
    if (e->state == ELASTIC_STATE_APPLYING)
        return; /* it has not reported, so nobody can have formed with it */
    if (e->state == ELASTIC_STATE_SPARE)
        act(actions, ELASTIC_DO_END_CATCH_UP);
    else if (e->state != ELASTIC_STATE_IDLE && e->state != ELASTIC_STATE_FROZEN)
        act(actions, ELASTIC_DO_STOP_EXCHANGE);
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
        owned[rank] = roster->members[rank].frozen ? roster->members[rank].owned : none_held();
    plan_regroup(e->config.shape.shards, roster->world, owned, e->owner);
    connect(e, event->now_us, actions);
}

/* The plan is the generation now: everybody takes it after the same step. */
static void take_plan(struct elastic *e)
{
    e->before = e->generation.number;
    e->generation = e->plan;
    e->generation.step = e->applied;
    e->plan.number = 0;
    e->boundary = false;
    e->pending_plan = 0;
    if (e->before == 0)
        e->before = e->generation.number;
    plan_balanced(e->config.shape.shards, e->generation.world, e->owner);
}

static void enter_plan(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    take_plan(e);
    connect(e, now_us, actions);
}

/* Everything that was agreed on is durable: who leaves may go, who stays waits for others to
 * come. */
static void pause(struct elastic *e, struct elastic_actions *actions)
{
    take_plan(e);
    e->rank = find_rank(&e->generation, &e->config.me);
    e->entered = true;
    act(actions, ELASTIC_DO_SEND_ENTERED)->step = e->applied;
    report(e, actions);
}

/* A leaver serves R of its last step until everybody has applied it. */
static void serve(struct elastic *e)
{
    e->boundary = false;
    e->pausing = false;
    e->state = ELASTIC_STATE_LEAVING;
}

/* The last words of a generation that pauses agree: the first of those who stay makes it
 * durable. */
static void pause_words(struct elastic *e, struct elastic_actions *actions)
{
    uint32_t rank = find_rank(&e->plan, &e->config.me);

    if (rank == ELASTIC_NO_RANK) {
        serve(e);
    } else if (rank == 0 && e->config.saves) {
        e->state = ELASTIC_STATE_PAUSING;
        save(e, actions)->last = true;
    } else {
        pause(e, actions);
    }
}

static void take_boundary(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    if (e->plan.pause) {
        e->boundary = false;
        e->pausing = true;
        begin_step(e, now_us, actions);
    } else if (find_rank(&e->plan, &e->config.me) == ELASTIC_NO_RANK) {
        serve(e);
    } else {
        enter_plan(e, now_us, actions);
    }
}

static void on_plan(struct elastic *e, const struct elastic_event *event,
                    struct elastic_actions *actions)
{
    const struct elastic_roster *roster = event->roster;

    if (roster->number <= e->number_max || e->state == ELASTIC_STATE_FROZEN ||
        e->state == ELASTIC_STATE_GONE || e->state == ELASTIC_STATE_LEAVING)
        return;
    e->number_max = roster->number;
    e->plan = *roster;
    if (e->state == ELASTIC_STATE_SPARE && e->pending_plan == roster->number) {
        act(actions, ELASTIC_DO_END_CATCH_UP);
        enter_plan(e, event->now_us, actions);
    }
}

static void catch_up(struct elastic *e, struct elastic_actions *actions)
{
    e->mixed = true;
    act(actions, ELASTIC_DO_CATCH_UP);
}

static void on_view(struct elastic *e, const struct elastic_event *event,
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

        if (rank == e->rank || holder->applied != target ||
            (!e->copying_state && !holder->frozen))
            continue;
        e->source_next = rank + 1;
        e->mixed = e->copying_state;
        action = act(actions,
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
            action = act(actions, ELASTIC_DO_SEND_PEER_LOST);
            action->peer = e->generation.members[rank].id;
            action->why = ELASTIC_LOST_UNREACHABLE;
            return;
        }
    /* The coordinator believed that I hold it. */
    act(actions, ELASTIC_DO_STOP_EXCHANGE);
    freeze(e, actions);
}

/* Connected, and what is held is whole: to the generation's step. Who holds a later version says
 * so, and the generation is formed again: the highest step wins. */
static void reach_step(struct elastic *e, uint64_t now_us, struct elastic_actions *actions)
{
    if (e->applied == e->generation.step) {
        enter_step(e, now_us, actions);
        return;
    }
    if (e->applied > e->generation.step) {
        act(actions, ELASTIC_DO_STOP_EXCHANGE);
        report(e, actions);
        return;
    }
    e->copying_state = e->applied + 1 != e->generation.step;
    e->source_next = 0;
    copy_next(e, actions);
}

static void on_connected(struct elastic *e, const struct elastic_event *event,
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
static void on_reloaded(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    if (!e->reloading)
        return;
    e->reloading = false;
    e->mixed = false;
    e->has_reduced = false;
    new_version(e, event->version, event->hash);
    if (e->state == ELASTIC_STATE_SPARE)
        catch_up(e, actions);
    else if (e->state == ELASTIC_STATE_FROZEN)
        report(e, actions);
    else if (e->state == ELASTIC_STATE_CONNECTING && e->connected)
        reach_step(e, event->now_us, actions);
    else if (e->state == ELASTIC_STATE_CONNECTING && e->applied == e->generation.step)
        compute_missing(e, actions);
}

static void on_copied(struct elastic *e, const struct elastic_event *event,
                      struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_COPYING)
        return;
    if (!event->ok || event->version != e->generation.step) {
        copy_next(e, actions);
        return;
    }
    if (e->copying_state) {
        new_version(e, event->version, event->hash);
        e->has_reduced = false;
        e->mixed = false;
        enter_step(e, event->now_us, actions);
        return;
    }
    e->state = ELASTIC_STATE_APPLYING;
    e->reapplying = true;
    act(actions, ELASTIC_DO_APPLY)->step = e->applied;
}

/* ---- the end of a step ---------------------------------------------------------------------- */

static void finish(struct elastic *e, struct elastic_actions *actions)
{
    e->state = ELASTIC_STATE_FINISHING;
    if (!e->evaluated) {
        if (!e->evaluating)
            act(actions, ELASTIC_DO_EVALUATE);
        e->evaluating = true; /* one is enough, however often the group forms anew meanwhile */
        return;
    }
    if (e->config.saves && e->rank == 0 && !e->saved_last) {
        save(e, actions)->last = true;
        return;
    }
    if (e->config.alone)
        leave_for_good(e, actions, 0, "");
    else
        act(actions, ELASTIC_DO_SEND_FINISHED)->hash = e->hash;
}

/* Words that differ: somebody's parameters are not what they should be. Nothing is applied, and the
 * sums of this exchange are void. It is not stopped: the others shall see the same words, and say
 * so too. */
static void on_outvoted(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    e->has_reduced = false;
    if (!event->majority) {
        leave_for_good(e, actions, 75,
                       "the replicas differ and none has a majority: start again from the newest "
                       "checkpoint");
        return;
    }
    for (uint32_t i = 0; i < event->outvoted_count; i++)
        if (event->outvoted[i] == e->rank) {
            leave_for_good(e, actions, 75,
                           "this replica's parameters differ from the majority's: it is corrupt");
            return;
        }
    for (uint32_t i = 0; i < event->outvoted_count && actions->count + 2 < ELASTIC_ACTIONS_MAX;
         i++) {
        struct elastic_action *action = act(actions, ELASTIC_DO_SEND_PEER_LOST);

        action->peer = e->generation.members[event->outvoted[i]].id;
        action->why = ELASTIC_LOST_HASH;
    }
}

static void on_exchanged(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_STEPPING || event->number != e->generation.number ||
        event->nonce != e->generation.nonce || event->step != e->applied)
        return;
    if (!event->unanimous) {
        on_outvoted(e, event, actions);
        return;
    }
    /* My last sums may be in everybody's R before the word that they are done has reached this
     * machine. */
    if (!e->pausing && !e->last_words)
        e->held = due_now(e);
    tell_recovered(e, event->now_us, actions);
    if (e->pausing) {
        pause_words(e, actions);
        return;
    }
    if (e->last_words) {
        finish(e, actions);
        return;
    }
    if (e->config.saves && e->rank == 0 && e->config.save_every != 0 && e->applied != e->saved &&
        e->applied % e->config.save_every == 0)
        (void)save(e, actions);
    e->boundary = e->plan.number != 0 && event->plan_min >= e->plan.number;
    e->state = ELASTIC_STATE_APPLYING;
    act(actions, ELASTIC_DO_APPLY)->step = e->applied;
}

static void stop_alone(struct elastic *e, struct elastic_actions *actions)
{
    e->state = ELASTIC_STATE_LEAVING;
    if (e->config.saves && e->saved != e->applied)
        save(e, actions)->last = true;
    else
        leave_for_good(e, actions, 0, "stopped after the step that was under way");
}

static void on_applied(struct elastic *e, const struct elastic_event *event,
                       struct elastic_actions *actions)
{
    struct elastic_action *action;
    bool reapplied = e->reapplying;

    if (e->state != ELASTIC_STATE_APPLYING || event->version != e->applied + 1)
        return;
    action = act(actions, ELASTIC_DO_STEP_DONE);
    action->step = e->applied;
    action->number = e->generation.number;
    action->rank = e->rank;
    action->world = e->generation.world;
    action->hash = event->hash;
    new_version(e, event->version, event->hash);
    e->has_reduced = true;
    e->reapplying = false;
    if (e->freeze_after_apply) {
        e->freeze_after_apply = false;
        freeze(e, actions);
    } else if (reapplied) {
        enter_step(e, event->now_us, actions);
    } else if (e->boundary) {
        take_boundary(e, event->now_us, actions);
    } else if (e->config.alone && e->stop) {
        stop_alone(e, actions);
    } else {
        begin_step(e, event->now_us, actions);
    }
}

static void on_saved(struct elastic *e, uint64_t version, struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_LEAVING && e->config.alone && version == e->applied)
        leave_for_good(e, actions, 0, "stopped after the step that was under way");
    if (e->state == ELASTIC_STATE_PAUSING && version == e->applied) {
        pause(e, actions);
        return;
    }
    if (e->state != ELASTIC_STATE_FINISHING || version != e->applied)
        return;
    e->saved_last = true;
    finish(e, actions);
}

static void on_shard_done(struct elastic *e, const struct elastic_event *event,
                          struct elastic_actions *actions)
{
    if (event->step != e->applied || !plan_mask_has(&e->asked, event->shard))
        return;
    plan_mask_set(&e->held, event->shard);
    tell_recovered(e, event->now_us, actions);
}

/* ---- a spare -------------------------------------------------------------------------------- */

static void on_caught_up(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions)
{
    struct elastic_action *action;

    if (e->state != ELASTIC_STATE_SPARE)
        return;
    new_version(e, event->version, event->hash);
    e->has_reduced = false;
    e->mixed = false;
    action = act(actions, ELASTIC_DO_SEND_READY);
    action->version = event->version;
    action->hash = event->hash;
}

static void on_record_applied(struct elastic *e, const struct elastic_event *event,
                              struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_SPARE)
        return;
    new_version(e, event->version, event->hash);
    if (event->plan == 0)
        return;
    if (e->plan.number != event->plan) {
        e->pending_plan = event->plan; /* the coordinator's word of it is still on its way */
    } else if (find_rank(&e->plan, &e->config.me) != ELASTIC_NO_RANK) {
        act(actions, ELASTIC_DO_END_CATCH_UP);
        enter_plan(e, event->now_us, actions);
    } else {
        e->plan.number = 0;
    }
}

/* ---- leaving, ending ------------------------------------------------------------------------ */

static void on_stop(struct elastic *e, struct elastic_actions *actions)
{
    e->stop = true;
    if (e->generation.number == 0 && e->state != ELASTIC_STATE_GONE) {
        leave_for_good(e, actions, 0, "left before it trained");
        return;
    }
    if (e->config.alone || e->leave_sent || e->state == ELASTIC_STATE_FROZEN ||
        e->state == ELASTIC_STATE_GONE)
        return;
    act(actions, ELASTIC_DO_SEND_LEAVE);
    e->leave_sent = true;
}

static void on_released(struct elastic *e, struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_LEAVING || (e->stop && e->state != ELASTIC_STATE_GONE))
        leave_for_good(e, actions, 0, "left at a boundary; nothing was lost");
}

static void on_done(struct elastic *e, const struct elastic_event *event,
                    struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_GONE)
        return;
    leave_for_good(e, actions, 0,
                   event->ok ? "" : "the coordinator did not answer: the end was not recorded");
}

static const char *lost_text(enum elastic_lost_why why)
{
    switch (why) {
    case ELASTIC_LOST_CLOSED:
        return "its data connection ended";
    case ELASTIC_LOST_UNREACHABLE:
        return "its data address cannot be reached (a firewall? see --data-listen)";
    case ELASTIC_LOST_HASH:
        return "its parameters differ from the others'";
    case ELASTIC_LOST_STRANGER:
        return "somebody else answers at its data address";
    }
    return "";
}

static void on_peer_lost(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions)
{
    struct elastic_action *action;

    /* The others part from a leaver on purpose. */
    if (e->state == ELASTIC_STATE_GONE || e->state == ELASTIC_STATE_LEAVING ||
        e->state == ELASTIC_STATE_FROZEN ||
        find_rank(&e->generation, &event->peer) == ELASTIC_NO_RANK)
        return;
    action = act(actions, ELASTIC_DO_SEND_PEER_LOST);
    action->peer = event->peer;
    action->why = event->why;
    (void)snprintf(action->text, sizeof action->text, "%s", lost_text(event->why));
}

/* ---- the one switch ------------------------------------------------------------------------- */

void elastic_init(struct elastic *e, const struct elastic_config *config, uint64_t applied,
                  uint64_t hash)
{
    assert(config->shape.shards > 0 && config->shape.shards <= PLAN_SHARDS_MAX);
    memset(e, 0, sizeof *e);
    e->config = *config;
    e->state = ELASTIC_STATE_IDLE;
    e->rank = ELASTIC_NO_RANK;
    e->applied = applied;
    e->hash = hash;
    e->saved = applied;
}

void elastic_step(struct elastic *e, const struct elastic_event *event,
                  struct elastic_actions *actions)
{
    actions->count = 0;
    switch (event->type) {
    case ELASTIC_FORMED:
        on_formed(e, event, actions);
        break;
    case ELASTIC_PLAN:
        on_plan(e, event, actions);
        break;
    case ELASTIC_VIEW:
        on_view(e, event, actions);
        break;
    case ELASTIC_OVER:
        on_over(e, event, actions);
        break;
    case ELASTIC_RELEASED:
        on_released(e, actions);
        break;
    case ELASTIC_DONE:
        on_done(e, event, actions);
        break;
    case ELASTIC_CONTROL:
        e->control = event->ok;
        break;
    case ELASTIC_CONNECTED:
        on_connected(e, event, actions);
        break;
    case ELASTIC_PEER_LOST:
        on_peer_lost(e, event, actions);
        break;
    case ELASTIC_SHARD_DONE:
        on_shard_done(e, event, actions);
        break;
    case ELASTIC_EXCHANGED:
        on_exchanged(e, event, actions);
        break;
    case ELASTIC_APPLIED:
        on_applied(e, event, actions);
        break;
    case ELASTIC_COPIED:
        on_copied(e, event, actions);
        break;
    case ELASTIC_RELOADED:
        on_reloaded(e, event, actions);
        break;
    case ELASTIC_CAUGHT_UP:
        on_caught_up(e, event, actions);
        break;
    case ELASTIC_BEHIND:
        e->mixed = e->mixed || e->state == ELASTIC_STATE_SPARE;
        break;
    case ELASTIC_RECORD_APPLIED:
        on_record_applied(e, event, actions);
        break;
    case ELASTIC_SAVED:
        on_saved(e, event->version, actions);
        break;
    case ELASTIC_EVALUATED:
        e->evaluating = false;
        e->evaluated = true;
        if (e->state == ELASTIC_STATE_FINISHING)
            finish(e, actions);
        break;
    case ELASTIC_STOP:
        on_stop(e, actions);
        break;
    }
}
