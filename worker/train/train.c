/* The whole idea on one page.
 *
 * A step is: compute the sums of my shards, exchange them (pieces to the owners of chunks, results
 * back, one word to everybody), apply the reduced gradient. The elastic machine (elastic.c)
 * decides; here each of its actions is one named call, and what those bring about comes back as its
 * next event:
 *
 *     COMPUTE   compute_shards()   -> SHARD_DONE       EXCHANGE  reduce_start()     -> EXCHANGED
 *     APPLY     compute_apply()    -> APPLIED          CONNECT   reduce_connect()   -> CONNECTED
 *     COPY_..   transfer_copy()    -> COPIED           CATCH_UP  joiner_begin()     -> CAUGHT_UP,
 *                                                                RECORD_APPLIED
 *
 * When a member is lost the others stop exchanging, say how far they are, form the next generation,
 * compute what the lost one owed, and finish the same step: nothing is lost, and the bits are the
 * same. */
#include "train/train.h"

#include "base/clock.h"
#include "base/exits.h"
#include "train/trainer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define HUNG_MS 5000 /* a shard that is still being computed then will never end */

/* ---- actions -------------------------------------------------------------------------------- */

static void take_generation_keys(struct trainer *t)
{
    /* A generation that was a plan brings the plan's addresses and key with it. */
    if (t->elastic.generation.number != t->plan_told)
        return;
    memcpy(t->key, t->plan_key, sizeof t->key);
    t->formed_addresses = t->plan_addresses;
    (void)snprintf(t->reason, sizeof t->reason, "by plan");
    t->detect_us = t->push_us = t->rendezvous_us = 0;
}

static void do_action(struct trainer *t, const struct elastic_action *action)
{
    switch (action->type) {
    case ELASTIC_DO_CONNECT:
        take_generation_keys(t);
        visitors_clear(t);
        reduce_connect(t);
        break;
    case ELASTIC_DO_COMPUTE:
        compute_shards(t, action->step, &action->shards);
        break;
    case ELASTIC_DO_EXCHANGE:
        reduce_start(t, action);
        break;
    case ELASTIC_DO_STOP_EXCHANGE:
        reduce_stop(t);
        save_give_up(t); /* the others wait for the report that the update comes before */
        break;
    case ELASTIC_DO_APPLY:
        compute_apply(t, action->step, action->hashed);
        break;
    case ELASTIC_DO_COPY_REDUCED:
    case ELASTIC_DO_COPY_STATE:
        transfer_copy(t, action);
        break;
    case ELASTIC_DO_CATCH_UP:
        joiner_begin(t);
        break;
    case ELASTIC_DO_END_CATCH_UP:
        joiner_end(t);
        break;
    case ELASTIC_DO_RELOAD:
        trainer_reload(t);
        break;
    case ELASTIC_DO_STEP_DONE:
        report_step(t, action);
        break;
    case ELASTIC_DO_GENERATION:
        report_generation(t, action);
        break;
    case ELASTIC_DO_SAVE:
        save_begin(t, action->version, action->last);
        break;
    case ELASTIC_DO_EVALUATE:
        compute_evaluate(t);
        break;
    case ELASTIC_DO_EXIT:
        if (action->code == 0 && t->elastic.evaluated)
            report_done(t);
        if (action->linger)
            control_linger(t, action);
        else if (action->code == 0 && t->last_unsaved)
            trainer_exit(t, EXIT_UNAVAILABLE, "the last checkpoint could not be written");
        else
            trainer_exit(t, action->code, action->text);
        break;
    case ELASTIC_DO_SEND_REPORT:
    case ELASTIC_DO_SEND_ENTERED:
    case ELASTIC_DO_SEND_READY:
    case ELASTIC_DO_SEND_PEER_LOST:
    case ELASTIC_DO_SEND_LEAVE:
    case ELASTIC_DO_SEND_FINISHED:
    case ELASTIC_DO_GOODBYE:
        control_say(t, action);
        break;
    }
}

/* ---- events --------------------------------------------------------------------------------- */

struct elastic_event trainer_event_of(enum elastic_event_type type)
{
    struct elastic_event event;

    memset(&event, 0, sizeof event);
    event.type = type;
    event.now_us = clock_monotonic_us();
    return event;
}

static void step_once(struct trainer *t, const struct elastic_event *event)
{
    elastic_step(&t->elastic, event, &t->actions);
    for (uint32_t i = 0; i < t->actions.count; i++)
        do_action(t, &t->actions.list[i]);
}

/* Events that come while one is worked on wait for its end, in order. */
void trainer_event(struct trainer *t, const struct elastic_event *event)
{
    if (t->stepping) {
        assert(t->events_count < EVENTS_MAX);
        t->events[(t->events_first + t->events_count++) % EVENTS_MAX] = *event;
        return;
    }
    t->stepping = true;
    step_once(t, event);
    while (t->events_count > 0) {
        struct elastic_event next = t->events[t->events_first];

        t->events_first = (t->events_first + 1) % EVENTS_MAX;
        t->events_count--;
        step_once(t, &next);
    }
    t->stepping = false;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

/* With code -1: nothing new, but perhaps a checkpoint that the exit waited for is written now. */
void trainer_exit(struct trainer *t, int code, const char *text)
{
    if (code >= 0 && !t->leaving) {
        t->leaving = true;
        t->exit_code = code;
        (void)snprintf(t->exit_text, sizeof t->exit_text, "%s", text);
    }
    if (t->leaving && (!save_open(t) || t->signals > 1))
        uv_stop(t->loop);
}

int train(const struct settings *settings, bool *hung, struct error *error)
{
    struct trainer *t = calloc(1, sizeof *t);
    uv_loop_t loop;
    int status;

    if (t == NULL || uv_loop_init(&loop) != 0) {
        free(t);
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    }
    t->settings = settings;
    t->loop = &loop;
    status = trainer_open(t, error);
    if (status == 0) {
        if (!t->leaving)
            (void)uv_run(&loop, UV_RUN_DEFAULT);
        status = t->exit_code;
        error->code = status;
        (void)snprintf(error->text, sizeof error->text, "%s", t->exit_text);
    }
    *hung = !pool_end(t->pool, HUNG_MS);
    if (*hung)
        return status;
    trainer_close(t);
    (void)uv_loop_close(&loop);
    free(t);
    return status;
}
