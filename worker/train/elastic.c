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
#include "train/elastic_private.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* ---- small things --------------------------------------------------------------------------- */

bool elastic_id_equal(const struct elastic_id *a, const struct elastic_id *b)
{
    return memcmp(a->byte, b->byte, sizeof a->byte) == 0;
}

struct elastic_action *elastic_act(struct elastic_actions *actions, enum elastic_action_type type)
{
    struct elastic_action *action;

    assert(actions->count < ELASTIC_ACTIONS_MAX);
    action = &actions->list[actions->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    return action;
}

void elastic_leave_for_good(struct elastic *e, struct elastic_actions *actions, int code,
                            const char *text)
{
    struct elastic_action *action;

    if (e->control && !e->config.alone) {
        action = elastic_act(actions, ELASTIC_DO_GOODBYE);
        action->code = code;
        if (code != 0)
            (void)snprintf(action->text, sizeof action->text, "%s", text);
    }
    action = elastic_act(actions, ELASTIC_DO_EXIT);
    action->code = code;
    (void)snprintf(action->text, sizeof action->text, "%s", text);
    e->state = ELASTIC_STATE_GONE;
}

uint32_t elastic_find_rank(const struct elastic_roster *roster, const struct elastic_id *id)
{
    for (uint32_t rank = 0; rank < roster->world; rank++)
        if (elastic_id_equal(&roster->members[rank].id, id))
            return rank;
    return ELASTIC_NO_RANK;
}

struct plan_mask elastic_none_held(void)
{
    struct plan_mask none = {{0}};

    return none;
}

struct plan_mask elastic_owned(const struct elastic *e)
{
    if (e->generation.number == 0 || e->rank == ELASTIC_NO_RANK)
        return elastic_none_held();
    return plan_owned(e->config.shape.shards, e->owner, (uint16_t)e->rank);
}

/* Present shards of step `applied` that I own. */
struct plan_mask elastic_due_now(const struct elastic *e)
{
    struct plan_mask owned = elastic_owned(e), present;

    if (e->applied >= e->config.steps_total)
        return elastic_none_held();
    present = plan_present(&e->config.shape, e->applied);
    return plan_mask_and(&owned, &present);
}

bool elastic_owes(const struct elastic *e)
{
    struct plan_mask due = elastic_due_now(e), rest = plan_mask_minus(&due, &e->held);

    return e->state == ELASTIC_STATE_STEPPING && !e->pausing && !plan_mask_empty(&rest);
}

bool elastic_training(const struct elastic *e)
{
    return e->state == ELASTIC_STATE_STEPPING || e->state == ELASTIC_STATE_APPLYING;
}

void elastic_new_version(struct elastic *e, uint64_t version, uint64_t hash)
{
    e->applied = version;
    e->hash = hash;
    e->held = elastic_none_held();
    e->asked = elastic_none_held();
}

/* The whole state came from somewhere else: from another member, its records, or a checkpoint. */
void elastic_new_state(struct elastic *e, uint64_t version, uint64_t hash)
{
    elastic_new_version(e, version, hash);
    e->compared = version;
    e->has_reduced = false;
    e->mixed = false;
}

/* ---- a spare -------------------------------------------------------------------------------- */

/* The record of the last step said that the group entered a plan after it. */
static void follow_plan(struct elastic *e, const struct elastic_event *event,
                        struct elastic_actions *actions)
{
    if (event->plan == 0)
        return;
    if (e->plan.number != event->plan) {
        e->pending_plan = event->plan; /* the coordinator's word of it is still on its way */
    } else if (elastic_find_rank(&e->plan, &e->config.me) != ELASTIC_NO_RANK) {
        elastic_act(actions, ELASTIC_DO_END_CATCH_UP);
        elastic_enter_plan(e, event->now_us, actions);
    } else {
        e->plan.number = 0;
    }
}

/* One that was dropped after the plan with it was told catches up anew, and may be whole only with
 * the record of that boundary: the others wait for it already. */
static void on_caught_up(struct elastic *e, const struct elastic_event *event,
                         struct elastic_actions *actions)
{
    struct elastic_action *action;

    if (e->state != ELASTIC_STATE_SPARE)
        return;
    elastic_new_state(e, event->version, event->hash);
    follow_plan(e, event, actions);
    if (e->state != ELASTIC_STATE_SPARE)
        return;
    action = elastic_act(actions, ELASTIC_DO_SEND_READY);
    action->version = event->version;
    action->hash = event->hash;
}

static void on_record_applied(struct elastic *e, const struct elastic_event *event,
                              struct elastic_actions *actions)
{
    if (e->state != ELASTIC_STATE_SPARE)
        return;
    elastic_new_state(e, event->version, event->hash);
    follow_plan(e, event, actions);
}

/* ---- leaving, ending ------------------------------------------------------------------------ */

/* A spare asks too: the others may be about to enter a plan with it. */
static void on_stop(struct elastic *e, struct elastic_actions *actions)
{
    bool asks = e->generation.number != 0 || (e->state == ELASTIC_STATE_SPARE && e->control);

    e->stop = true;
    if (e->config.alone || e->leave_sent || e->state == ELASTIC_STATE_GONE)
        return;
    if (!asks) {
        elastic_leave_for_good(e, actions, 0, "left before it trained");
        return;
    }
    elastic_act(actions, ELASTIC_DO_SEND_LEAVE);
    e->leave_sent = true;
}

/* Who waits in a leaver's place has its state: it was released only then. One that was frozen in a
 * pause has saved what it knows, if it can save; else the job's state ends with the last who knows
 * it, and whether others do it cannot tell, unless it was the only one. */
void elastic_go(struct elastic *e, struct elastic_actions *actions)
{
    bool knows = e->state == ELASTIC_STATE_FROZEN && e->generation.number != 0 && !e->mixed;
    char text[ELASTIC_TEXT_BYTES];

    if (e->state == ELASTIC_STATE_LEAVING)
        (void)snprintf(text, sizeof text, "left at a boundary; nothing was lost");
    else if (!knows || e->config.saves || e->applied == 0)
        (void)snprintf(text, sizeof text, "left; nothing was lost");
    else
        (void)snprintf(
            text, sizeof text,
            "left; steps that are saved nowhere, and lost%s: %llu (--ckpt DIR would keep them)",
            e->generation.world == 1 ? "" : " if nobody else holds them",
            (unsigned long long)e->applied);
    elastic_leave_for_good(e, actions, 0, text);
}

/* The others may be done with the leaver's last step before it is itself. One that was frozen when
 * the job paused after a loss may be the last that knows it: it makes it durable. */
static void on_released(struct elastic *e, struct elastic_actions *actions)
{
    bool knows = e->state == ELASTIC_STATE_FROZEN && e->generation.number != 0 && !e->mixed;

    if ((!e->stop && e->state != ELASTIC_STATE_LEAVING) || e->state == ELASTIC_STATE_GONE ||
        (e->released && e->state == ELASTIC_STATE_FROZEN))
        return;
    if (elastic_training(e)) {
        e->released = true;
    } else if (knows && e->config.saves && e->saved != e->applied) {
        e->released = true;
        elastic_save(e, actions)->last = true;
    } else {
        elastic_go(e, actions);
    }
}

static void on_evaluated(struct elastic *e, struct elastic_actions *actions)
{
    e->evaluating = false;
    e->evaluated = true;
    if (e->state == ELASTIC_STATE_FINISHING)
        elastic_finish(e, actions);
}

static void on_done(struct elastic *e, const struct elastic_event *event,
                    struct elastic_actions *actions)
{
    if (e->state == ELASTIC_STATE_GONE)
        return;
    elastic_leave_for_good(
        e, actions, 0, event->ok ? "" : "the coordinator did not answer: the end was not recorded");
}

static const char *lost_text(enum elastic_lost_why why)
{
    switch (why) {
    case ELASTIC_LOST_CLOSED:
        return "its data connection ended";
    case ELASTIC_LOST_UNREACHABLE:
        return "no data can be exchanged with it (a firewall? see --data-listen)";
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
    bool departs =
        e->plan.number != 0 && elastic_find_rank(&e->plan, &e->config.me) == ELASTIC_NO_RANK;
    struct elastic_action *action;

    if (e->state == ELASTIC_STATE_GONE || e->state == ELASTIC_STATE_LEAVING ||
        e->state == ELASTIC_STATE_FROZEN ||
        elastic_find_rank(&e->generation, &event->peer) == ELASTIC_NO_RANK)
        return;
    if (e->released) { /* what it still lacks does not come any more; the others have it */
        elastic_go(e, actions);
        return;
    }
    /* The others part from a leaver on purpose, perhaps long before its own update has ended. */
    if (departs && event->why == ELASTIC_LOST_CLOSED)
        return;
    action = elastic_act(actions, ELASTIC_DO_SEND_PEER_LOST);
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
    e->compared = applied;
    e->saved = applied;
}

void elastic_step(struct elastic *e, const struct elastic_event *event,
                  struct elastic_actions *actions)
{
    actions->count = 0;
    switch (event->type) {
    case ELASTIC_FORMED:
        elastic_on_formed(e, event, actions);
        break;
    case ELASTIC_PLAN:
        elastic_on_plan(e, event, actions);
        break;
    case ELASTIC_VIEW:
        elastic_on_view(e, event, actions);
        break;
    case ELASTIC_OVER:
        elastic_on_over(e, event, actions);
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
        elastic_on_connected(e, event, actions);
        break;
    case ELASTIC_PEER_LOST:
        on_peer_lost(e, event, actions);
        break;
    case ELASTIC_SHARD_DONE:
        elastic_on_shard_done(e, event, actions);
        break;
    case ELASTIC_EXCHANGED:
        elastic_on_exchanged(e, event, actions);
        break;
    case ELASTIC_CORRUPT:
        elastic_on_corrupt(e, event, actions);
        break;
    case ELASTIC_APPLIED:
        elastic_on_applied(e, event, actions);
        break;
    case ELASTIC_COPIED:
        elastic_on_copied(e, event, actions);
        break;
    case ELASTIC_RELOADED:
        elastic_on_reloaded(e, event, actions);
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
        elastic_on_saved(e, event->version, actions);
        break;
    case ELASTIC_EVALUATED:
        on_evaluated(e, actions);
        break;
    case ELASTIC_STOP:
        on_stop(e, actions);
        break;
    }
}
