/* The coordinator's words become events of the elastic machine, and its actions words to the
 * coordinator. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"
#include "base/version.h"
#include "train/crash.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BEAT_MS    250  /* how often the next beat's content is refreshed */
#define GOODBYE_MS 2000 /* for the last word to leave */
#define LINGER_MS  3000 /* what was sent to other members has arrived by then, or never will */
#define TELL_US    2000000u /* without an answer of the coordinator: it is said */
#define HUNG_S     10   /* from the end of the session to that of the process, at most */

static void drain_events(struct trainer *t);

static volatile sig_atomic_t hung_code, heeded; /* the session has ended so; the loop knows it */

/* ---- from the coordinator ------------------------------------------------------------------- */

static bool fill_roster(const struct muster_event *event, struct elastic_roster *roster,
                        struct addresses *addresses)
{
    if (event->member_count > ELASTIC_WORLD_MAX)
        return false;
    memset(roster, 0, sizeof *roster);
    roster->number = event->generation;
    roster->nonce = event->nonce;
    roster->step = event->step;
    roster->world = event->member_count;
    roster->pause = event->pause;
    for (uint32_t i = 0; i < event->member_count; i++) {
        const struct muster_member *from = &event->members[i];
        struct elastic_member *to = &roster->members[i];
        uint32_t bytes = from->owned_bytes < PLAN_MASK_BYTES ? from->owned_bytes : PLAN_MASK_BYTES;

        memcpy(to->id.byte, from->id, ELASTIC_ID_BYTES);
        to->applied = from->applied;
        to->frozen = from->frozen;
        to->weight = from->weight;
        if (bytes > 0)
            memcpy(to->owned.byte, from->owned, bytes);
        (void)snprintf(addresses->address[i], COMM_ADDRESS_BYTES, "%s", from->data_address);
    }
    return true;
}

static void on_roster(struct trainer *t, const struct muster_event *event)
{
    struct elastic_event e;

    if (event->type == MUSTER_FORMED) {
        if (event->generation <= t->elastic.number_max ||
            !fill_roster(event, &t->roster, &t->formed_addresses))
            return;
        memcpy(t->key, event->key, sizeof t->key);
        e = trainer_event_of(ELASTIC_FORMED);
        t->detect_us = event->detect_us;
        t->push_us = event->push_us;
        t->rendezvous_us = event->rendezvous_us;
        (void)snprintf(t->reason, sizeof t->reason, "%s", event->text);
    } else if (event->type == MUSTER_PLAN) {
        if (event->generation <= t->elastic.number_max ||
            !fill_roster(event, &t->roster, &t->plan_addresses))
            return;
        memcpy(t->plan_key, event->key, sizeof t->plan_key);
        t->plan_told = event->generation;
        e = trainer_event_of(ELASTIC_PLAN);
    } else {
        if (!fill_roster(event, &t->roster, &t->view_addresses))
            return;
        memcpy(t->view_key, event->key, sizeof t->view_key);
        e = trainer_event_of(ELASTIC_VIEW);
    }
    e.roster = &t->roster;
    trainer_event(t, &e);
}

static void on_waiting(struct trainer *t, const struct muster_event *event)
{
    char text[700];

    (void)snprintf(text, sizeof text, "%s%s, since %.1f s", event->paused ? "paused: " : "",
                   event->text, (double)event->since_ms / 1000.0);
    report_note(t, text);
}

static void on_up(struct trainer *t, const struct muster_event *event)
{
    struct elastic_event e = trainer_event_of(ELASTIC_CONTROL);

    memcpy(t->job_uid, event->job_uid, sizeof t->job_uid);
    if (event->text[0] != '\0')
        report_note(t, event->text);
    if (t->session_up && event->attached)
        report_note(t, "the coordinator is back");
    t->session_up = true;
    e.ok = true;
    trainer_event(t, &e);
}

static void on_ended(struct trainer *t, const struct muster_event *event)
{
    heeded = 1;
    t->session_ended = true;
    uv_poll_stop(&t->session_poll);
    if (t->leaving)
        return;
    trainer_exit(t, event->exit_code, event->text);
}

static void on_session_event(struct trainer *t, const struct muster_event *event)
{
    struct elastic_event e;

    switch (event->type) {
    case MUSTER_UP:
        on_up(t, event);
        return;
    case MUSTER_DOWN:
        if (t->elastic.state != ELASTIC_STATE_IDLE)
            report_note(t, elastic_training(&t->elastic)
                               ? "the coordinator is gone; training goes on"
                               : "the coordinator is gone; waiting for it to come back");
        e = trainer_event_of(ELASTIC_CONTROL);
        break;
    case MUSTER_WAITING:
        on_waiting(t, event);
        return;
    case MUSTER_FORMED:
    case MUSTER_PLAN:
    case MUSTER_VIEW:
        on_roster(t, event);
        return;
    case MUSTER_OVER:
        report_note(t, event->text);
        e = trainer_event_of(ELASTIC_OVER);
        e.number = event->generation;
        break;
    case MUSTER_RELEASED:
        e = trainer_event_of(ELASTIC_RELEASED);
        break;
    case MUSTER_DRAIN:
        report_note(t, event->text);
        e = trainer_event_of(ELASTIC_STOP);
        break;
    case MUSTER_DONE:
        e = trainer_event_of(ELASTIC_DONE);
        e.ok = true;
        break;
    case MUSTER_ENDED:
        on_ended(t, event);
        return;
    case MUSTER_VERDICT:
        report_warning(t, event->text);
        return;
    case MUSTER_BARRIER:
    default:
        return;
    }
    trainer_event(t, &e);
}

static void drain_events(struct trainer *t)
{
    struct muster_event *event;

    while (t->session != NULL && muster_next(t->session, 0, &event) == MUSTER_OK) {
        on_session_event(t, event);
        muster_event_free(event);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    drain_events(poll->data);
}

/* ---- to the coordinator --------------------------------------------------------------------- */

static struct muster_position position(const struct trainer *t, uint64_t step)
{
    struct muster_position p = {t->elastic.generation.number, t->elastic.generation.nonce, step};

    return p;
}

static void on_done_timer(uv_timer_t *timer)
{
    struct elastic_event e = trainer_event_of(ELASTIC_DONE);

    trainer_event(timer->data, &e);
}

static void say_report(struct trainer *t, const struct elastic_action *action)
{
    struct muster_position p = position(t, action->version);
    struct muster_report report = {.plan = action->plan,
                                   .has_reduced = action->has_reduced && t->reduced_whole,
                                   .entered = action->entered};
    uint32_t bytes = (t->shape.shards + 7) / 8;

    if (!plan_mask_empty(&action->shards)) {
        report.owned = action->shards.byte;
        report.owned_bytes = bytes;
    }
    if (!action->entered && t->elastic.view.number != 0) {
        p.generation = t->elastic.view.number;
        p.nonce = t->elastic.view.nonce;
    }
    (void)muster_report(t->session, &p, &report);
}

static void on_linger_timer(uv_timer_t *timer)
{
    struct trainer *t = timer->data;

    if (t->session != NULL)
        (void)muster_goodbye(t->session, EXIT_RETRY, t->linger_text, GOODBYE_MS);
    trainer_exit(t, EXIT_RETRY, t->linger_text);
}

/* The end, to be tried again, after a while: what was sent to others arrives before anybody hears
 * of it. */
void control_linger(struct trainer *t, const struct elastic_action *action)
{
    (void)snprintf(t->linger_text, sizeof t->linger_text, "%s", action->text);
    report_warning(t, action->text);
    (void)uv_timer_start(&t->linger_timer, on_linger_timer, LINGER_MS, 0);
}

/* With its address: what is to be looked at is the way there. */
static void say_peer_lost(struct trainer *t, const struct elastic_action *action)
{
    struct muster_position p = position(t, t->elastic.applied);
    const struct elastic_roster *g = &t->elastic.generation;
    char text[ELASTIC_TEXT_BYTES + COMM_ADDRESS_BYTES];
    uint32_t rank = 0;

    while (rank < g->world && !elastic_id_equal(&g->members[rank].id, &action->peer))
        rank++;
    (void)snprintf(text, sizeof text, "%s, at %s", action->text,
                   rank < g->world ? t->formed_addresses.address[rank] : "an unknown address");
    (void)muster_peer_lost(t->session, &p, action->peer.byte, (enum muster_lost_why)action->why,
                           text);
}

/* A member that is out-voted: whoever looks after these machines wants to know which. */
static void warn_of(struct trainer *t, const struct elastic_action *action)
{
    char text[ELASTIC_TEXT_BYTES + 100];

    (void)snprintf(text, sizeof text, "rank %u is out-voted in step %llu: %s", action->from,
                   (unsigned long long)t->elastic.applied, action->text);
    report_warning(t, text);
}

void control_say(struct trainer *t, const struct elastic_action *action)
{
    struct muster_position p = position(t, t->elastic.applied);
    struct muster_times times = {action->connect_us, action->state_us, action->recompute_us};

    if (t->session == NULL)
        return;
    switch ((int)action->type) {
    case ELASTIC_DO_SEND_REPORT:
        say_report(t, action);
        break;
    case ELASTIC_DO_SEND_ENTERED:
        p.step = action->step;
        (void)muster_entered(t->session, &p, &times);
        break;
    case ELASTIC_DO_SEND_READY:
        p.generation = t->elastic.view.number;
        p.nonce = t->elastic.view.nonce;
        p.step = action->version;
        (void)muster_ready(t->session, &p, action->hash);
        break;
    case ELASTIC_DO_SEND_PEER_LOST:
        if (action->why == ELASTIC_LOST_HASH)
            warn_of(t, action);
        say_peer_lost(t, action);
        break;
    case ELASTIC_DO_SEND_LEAVE:
        (void)muster_leave(t->session, &p, (uint32_t)t->settings->drain_ms);
        break;
    case ELASTIC_DO_SEND_FINISHED:
        control_progress(t);
        (void)muster_finished(t->session, &p, action->hash, t->accuracy);
        (void)uv_timer_start(&t->done_timer, on_done_timer, t->settings->connect_timeout_ms, 0);
        break;
    case ELASTIC_DO_GOODBYE:
        (void)muster_goodbye(t->session, (uint32_t)action->code, action->text, GOODBYE_MS);
        break;
    default:
        break;
    }
    control_progress(t);
}

static enum muster_phase phase_of(const struct trainer *t)
{
    switch (t->elastic.state) {
    case ELASTIC_STATE_IDLE:
    case ELASTIC_STATE_SPARE:
    case ELASTIC_STATE_PAUSING:
    case ELASTIC_STATE_LEAVING:
        return MUSTER_PHASE_WAITING;
    case ELASTIC_STATE_CONNECTING:
    case ELASTIC_STATE_COPYING:
        return MUSTER_PHASE_EXCHANGE;
    case ELASTIC_STATE_STEPPING:
        return elastic_owes(&t->elastic) || inspect_owes(t) ? MUSTER_PHASE_COMPUTE
                                                            : MUSTER_PHASE_EXCHANGE;
    case ELASTIC_STATE_APPLYING:
        return save_waits(t) ? MUSTER_PHASE_CHECKPOINT : MUSTER_PHASE_COMPUTE;
    case ELASTIC_STATE_FROZEN:
        return MUSTER_PHASE_FROZEN;
    case ELASTIC_STATE_FINISHING:
    case ELASTIC_STATE_GONE:
    default:
        return t->elastic.evaluated ? MUSTER_PHASE_FINISHED : MUSTER_PHASE_EVALUATE;
    }
}

void control_progress(struct trainer *t)
{
    struct plan_mask owned = elastic_owned(&t->elastic);
    struct muster_progress progress = {.phase = phase_of(t),
                                       .part = plan_mask_count(&t->elastic.held),
                                       .applied = t->elastic.applied,
                                       .loss = (float)t->loss,
                                       .samples_per_s = (float)t->samples_per_s,
                                       .shard_us = pace_us(&t->pace),
                                       .shards = plan_mask_count(&owned)};

    if (progress.phase == MUSTER_PHASE_COMPUTE)
        progress.thread = compute_thread(t);

    if (t->session != NULL && !t->session_ended)
        muster_progress(t->session, &progress);
}

/* Said once, long before it is given up: whoever started it may have named the wrong one. */
static void tell_unreachable(struct trainer *t)
{
    char text[400];

    if (t->session_us == 0 || t->session_up || t->session_ended ||
        clock_monotonic_us() < t->session_us + TELL_US)
        return;
    t->session_us = 0;
    (void)snprintf(text, sizeof text, "no coordinator at %s yet: it is tried for %.1f s "
                                      "(--connect-timeout)", t->settings->coordinator,
                   (double)t->settings->connect_timeout_ms / 1000);
    report_warning(t, text);
}

static void on_beat_timer(uv_timer_t *timer)
{
    control_progress(timer->data);
    tell_unreachable(timer->data);
}

/* ---- the end of a worker that hangs ---------------------------------------------------------- */

static void on_alarm(int number)
{
    static const char text[] = "muster-worker: the coordinator has ended this member, and the "
                               "thread that was to heed it hangs: ending at once\n";

    (void)number;
    if (heeded)
        return; /* it ends, and perhaps writes a checkpoint first */
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(hung_code);
}

/* On the library's thread. The loop ends the process; if it does not, it hangs, and would hold the
 * machine for ever. */
static void on_session_over(void *context, int exit_code)
{
    (void)context;
    if (exit_code == 0)
        return;
    hung_code = exit_code;
    (void)alarm(HUNG_S);
}

static void watch_for_the_end(struct muster_options *options)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};

    (void)sigaction(SIGALRM, &action, NULL);
    options->ended_cb = on_session_over;
}

/* ---- opening -------------------------------------------------------------------------------- */

int control_open(struct trainer *t, struct error *error)
{
    const struct settings *s = t->settings;
    struct muster_options options;
    struct muster_error why;
    char address[COMM_ADDRESS_BYTES] = "", program[64];

    muster_options_init(&options);
    comm_address(t->comm, address, sizeof address);
    (void)snprintf(program, sizeof program, "muster-worker %s", version_number());
    options.coordinator = s->coordinator;
    options.job = s->job;
    options.kind = MUSTER_WORKER;
    options.node = s->node;
    options.data_address = address;
    options.program = program;
    options.spec = t->spec;
    options.fingerprint = t->fingerprint;
    options.min = (uint32_t)s->min;
    options.max = (uint32_t)s->max;
    memcpy(options.member_id, t->me.byte, sizeof options.member_id);
    memcpy(options.job_uid, t->job_uid, sizeof options.job_uid);
    options.known_generation = t->known_generation;
    options.known_applied = t->state.applied;
    options.refresh_ms = BEAT_MS;
    watch_for_the_end(&options);
    options.connect_timeout_ms = (uint32_t)s->connect_timeout_ms;
    if (muster_open(&options, &t->session, &why) != MUSTER_OK)
        return error_set(error, why.exit_code, "%s", why.text);
    t->stack = crash_stack();
    crash_watch(t->session, s->log);
    (void)uv_poll_init(t->loop, &t->session_poll, muster_descriptor(t->session));
    t->session_poll.data = t;
    t->session_polled = true;
    (void)uv_poll_start(&t->session_poll, UV_READABLE, on_readable);
    t->session_us = clock_monotonic_us();
    (void)uv_timer_start(&t->beat_timer, on_beat_timer, BEAT_MS, BEAT_MS);
    return 0;
}

void control_close(struct trainer *t)
{
    if (t->session_polled)
        uv_close((uv_handle_t *)&t->session_poll, NULL);
    t->session_polled = false;
    crash_unwatch();
    crash_stack_free(t->stack);
    t->stack = NULL;
    muster_close(t->session);
    t->session = NULL;
}
