/* The thread that carries out what the session asks for. Invariants: carrier.h. */
#include "carrier.h"
#include "client/where.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#define STANDS_US UINT64_C(2000000) /* unmoved for so long: where does it stand? */

/* splitmix64, https://prng.di.unimi.it/splitmix64.c */
static uint64_t random_next(struct carrier *carrier)
{
    uint64_t z = carrier->random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void carrier_fail(struct carrier *carrier, const char *what, const char *why)
{
    const struct client_address *to = &carrier->muster->coordinator;

    carrier->failed = true;
    (void)snprintf(carrier->failure, sizeof carrier->failure, "%s %.128s:%s: %s", what, to->host,
                   to->port, why);
}

void carrier_settle(struct carrier *carrier)
{
    struct session_event event = {.type = SESSION_WAKE};

    if (carrier->failed)
        carrier_step(carrier, &event);
}

/* ---- steps ---- */

static void carry_out(struct carrier *carrier, const struct session_action *action)
{
    switch (action->type) {
    case SESSION_CONNECT:
        carrier_connect(carrier);
        break;
    case SESSION_SEND:
        carrier_send(carrier, &action->message);
        break;
    case SESSION_CLOSE:
        carrier_disconnect(carrier);
        break;
    case SESSION_DELIVER:
        muster_queue_news(carrier->muster, &action->delivery);
        break;
    }
}

/* A worker that has not moved for long tells where its thread stands, with the next beat: the one
 * that was named, unless who named it has itself said nothing since. */
static void look_where(struct carrier *carrier)
{
    struct muster *muster = carrier->muster;
    uint64_t since_us = session_stands_since_us(&carrier->session), now_us = uv_hrtime() / 1000;
    char text[WHERE_BYTES] = "";
    struct session_event event = {.type = SESSION_WHERE, .text = text};

    if (carrier->session.state == SESSION_ATTACHED && now_us > since_us + STANDS_US &&
        muster->config.kind == WIRE_KIND_WORKER)
        where_thread(now_us > __atomic_load_n(&muster->spoken_us, __ATOMIC_RELAXED) + STANDS_US
                         ? __atomic_load_n(&muster->speaker, __ATOMIC_RELAXED)
                         : __atomic_load_n(&muster->thread, __ATOMIC_RELAXED), text);
    if (text[0] == '\0' && !carrier->where_told)
        return;
    carrier->where_told = text[0] != '\0';
    carrier_step(carrier, &event);
}

static void wake_due(uv_timer_t *timer)
{
    struct session_event event = {.type = SESSION_WAKE};

    look_where(timer->data);
    carrier_step(timer->data, &event);
}

static void arm_timer(struct carrier *carrier)
{
    uint64_t wake_us = session_wake_us(&carrier->session);
    uint64_t now_us = uv_hrtime() / 1000;
    uint64_t delay_ms = wake_us > now_us ? (wake_us - now_us + 999) / 1000 : 0;

    uv_update_time(&carrier->loop);
    if (wake_us == SESSION_NEVER_US)
        (void)uv_timer_stop(&carrier->timer);
    else
        (void)uv_timer_start(&carrier->timer, wake_due, delay_ms, 0);
}

static void one_step(struct carrier *carrier, struct session_event *event)
{
    event->now_us = uv_hrtime() / 1000;
    event->random = random_next(carrier);
    (void)session_step(&carrier->session, event, &carrier->actions);
    for (uint32_t i = 0; i < carrier->actions.count; i++)
        carry_out(carrier, &carrier->actions.list[i]);
}

/* The event, after the progress that was told before it; NULL = none was. */
static void step_after(struct carrier *carrier, const struct session_status *status,
                       struct session_event *event)
{
    struct session_event progress = {.type = SESSION_STATUS};
    struct session_event ledger = {.type = SESSION_LEDGER};

    if (status != NULL) {
        progress.status = *status;
        one_step(carrier, &progress);
    }
    if (ledger_look(&carrier->muster->ledger, &carrier->ledger_seen, &ledger.ledger))
        one_step(carrier, &ledger);
    if (!carrier->failed)
        one_step(carrier, event);
    while (carrier->failed) {
        struct session_event closed = {.type = SESSION_CLOSED, .text = carrier->failure};

        carrier->failed = false;
        carrier_close_link(carrier->link);
        one_step(carrier, &closed);
    }
    arm_timer(carrier);
    if (carrier->session.state == SESSION_ENDED && carrier->links == 0)
        muster_set_quiet(carrier->muster);
}

void carrier_step(struct carrier *carrier, struct session_event *event)
{
    struct session_status status;
    bool is_new = muster_take_status(carrier->muster, &status);

    step_after(carrier, is_new ? &status : NULL, event);
}

/* ---- the thread ---- */

/* The program closes the session: nothing is waited for any more. */
static void close_all(struct carrier *carrier)
{
    if (uv_is_closing((uv_handle_t *)&carrier->wake))
        return;
    carrier_close_link(carrier->link);
    carrier_close_link(carrier->goodbye);
    carrier_forget_addresses(carrier);
    uv_close((uv_handle_t *)&carrier->wake, NULL);
    uv_close((uv_handle_t *)&carrier->timer, NULL);
    uv_close((uv_handle_t *)&carrier->linger, NULL);
    uv_close((uv_handle_t *)&carrier->look, NULL);
}

static void look_due(uv_timer_t *timer)
{
    struct session_event event = {.type = SESSION_WAKE};
    struct carrier *carrier = timer->data;

    __atomic_store_n(&carrier->muster->looking, false, __ATOMIC_SEQ_CST);
    carrier_step(carrier, &event);
}

static void woken(uv_async_t *async)
{
    struct carrier *carrier = async->data;
    struct session_event event;
    struct said said;

    if (__atomic_load_n(&carrier->muster->looking, __ATOMIC_SEQ_CST) &&
        !uv_is_active((uv_handle_t *)&carrier->look) &&
        !uv_is_closing((uv_handle_t *)&carrier->look)) {
        uv_update_time(&carrier->loop);
        (void)uv_timer_start(&carrier->look, look_due, LOOK_MS, 0);
    }
    muster_take_said(carrier->muster, &said);
    while (said.commands) {
        struct command *command = said.commands;

        said.commands = command->next;
        step_after(carrier, command->has_status ? &command->status : NULL, &command->event);
        free(command);
    }
    event = (struct session_event){.type = SESSION_STOP};
    if (said.give_up || said.close)
        carrier_step(carrier, &event);
    if (said.close)
        close_all(carrier);
}

static void run(void *context)
{
    struct carrier *carrier = context;
    struct session_event start = {.type = SESSION_START};

    (void)pthread_setname_np(pthread_self(), "muster-control");
    carrier_step(carrier, &start);
    (void)uv_run(&carrier->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&carrier->loop);
}

static void carrier_free(struct carrier *carrier)
{
    free(carrier->rosters);
    free(carrier->arena_memory);
    free(carrier);
}

static struct carrier *carrier_new(struct muster *muster)
{
    struct carrier *carrier = calloc(1, sizeof *carrier);
    size_t rosters_bytes = session_memory_bytes(WIRE_MEMBERS_MAX);

    if (!carrier)
        return NULL;
    carrier->muster = muster;
    carrier->rosters = malloc(rosters_bytes);
    carrier->arena_memory = malloc(2 * WIRE_ARENA_BYTES);
    if (!carrier->rosters || !carrier->arena_memory) {
        carrier_free(carrier);
        return NULL;
    }
    session_init(&carrier->session, &muster->config, carrier->rosters, rosters_bytes);
    wire_arena_init(&carrier->in, carrier->arena_memory, WIRE_ARENA_BYTES);
    wire_arena_init(&carrier->out, (uint8_t *)carrier->arena_memory + WIRE_ARENA_BYTES,
                    WIRE_ARENA_BYTES);
    return carrier;
}

/* The thread starts with every signal blocked, the caller's mask is as before afterwards. */
static int start_thread(struct carrier *carrier)
{
    sigset_t all, before;
    int error;

    (void)sigfillset(&all);
    if (pthread_sigmask(SIG_BLOCK, &all, &before) != 0)
        return UV_EINVAL;
    error = uv_thread_create(&carrier->thread, run, carrier);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    uv_close(handle, NULL);
}

static int start_loop(struct carrier *carrier)
{
    int error = uv_loop_init(&carrier->loop);

    if (error != 0)
        return error;
    error = uv_async_init(&carrier->loop, &carrier->wake, woken);
    if (error == 0)
        error = uv_timer_init(&carrier->loop, &carrier->timer);
    if (error == 0)
        error = uv_timer_init(&carrier->loop, &carrier->linger);
    if (error == 0)
        error = uv_timer_init(&carrier->loop, &carrier->look);
    carrier->look.data = carrier;
    carrier->wake.data = carrier;
    carrier->timer.data = carrier;
    carrier->linger.data = carrier;
    if (error == 0)
        error = start_thread(carrier);
    if (error != 0) {
        uv_walk(&carrier->loop, close_handle, NULL);
        (void)uv_run(&carrier->loop, UV_RUN_DEFAULT);
        (void)uv_loop_close(&carrier->loop);
    }
    return error;
}

int carrier_start(struct muster *muster, struct carrier **out)
{
    struct carrier *carrier = carrier_new(muster);
    int error;

    if (!carrier)
        return UV_ENOMEM;
    *out = carrier;
    error = uv_random(NULL, NULL, &carrier->random, sizeof carrier->random, 0, NULL);
    if (error == 0)
        error = start_loop(carrier);
    if (error != 0) {
        *out = NULL;
        carrier_free(carrier);
    }
    return error;
}

void carrier_wake(struct carrier *carrier)
{
    (void)uv_async_send(&carrier->wake);
}

void carrier_stop(struct carrier *carrier)
{
    carrier_wake(carrier);
    (void)uv_thread_join(&carrier->thread);
    carrier_free(carrier);
}

const char *muster_carrier_version(void)
{
    return uv_version_string();
}

const char *muster_wire_version(void)
{
    return wire_library_version();
}
