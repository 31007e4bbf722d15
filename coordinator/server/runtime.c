/* Invariants
 *   1. The core is stepped from one place, step(), and never from inside another step: what comes
 *      back while actions are carried out (a store that fails at once) is kept and stepped
 *      afterwards.
 *   2. Deadlines are judged after a poll: the timer only marks a tick as due and keeps the loop
 *      from sleeping; the check handle, which libuv runs after it has read the sockets, makes it.
 *      Otherwise a daemon that was stopped would judge its members before it reads what they sent
 *      meanwhile.
 *   3. A secret is seen here only to be digested; the core holds digests. */
#include "server/runtime.h"

#include "base/clock.h"
#include "base/exits.h"
#include "base/netaddr.h"
#include "base/random.h"
#include "server/adapt.h"
#include "server/conn.h"
#include "server/control.h"
#include "server/http.h"
#include "server/notice.h"
#include "server/probe.h"
#include "server/status.h"
#include "server/store.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define TICK_MS      100
#define RANDOM_BYTES 4096
#define KEPT_MAX     32
#define SPARE_FILES  64 /* descriptors that are not members' connections */

struct runtime {
    uv_loop_t *loop;
    uv_timer_t timer;
    uv_check_t check;
    uv_idle_t idle;         /* keeps the loop from sleeping while a tick is due */
    bool tick_due;
    bool stepping;
    bool stopping;
    bool greeting;          /* the event that is stepped is a HELLO */
    const struct log *log;
    struct notices notices;
    struct core *core;
    void *core_memory;
    struct core_actions actions;
    struct conns *conns;
    struct store *store;
    struct http *http;
    struct control *control;
    struct wire_arena arena;
    uint8_t *arena_memory;
    struct adapt_scratch scratch;
    uint8_t random[RANDOM_BYTES];
    size_t random_used;
    struct core_event kept[KEPT_MAX]; /* came while another event was being worked on */
    uint32_t kept_count;
};

/* ---- actions -------------------------------------------------------------------------------- */

static void send_message(struct runtime *rt, const struct core_action *action)
{
    struct wire_message wire;
    const uint8_t *frame;
    size_t bytes;
    enum wire_error status;

    wire_arena_reset(&rt->arena);
    if (!adapt_to_wire(&action->message, &rt->scratch, &wire))
        return;
    status = wire_encode(&rt->arena, &wire, &frame, &bytes);
    if (status != WIRE_OK) {
        char text[160];

        (void)snprintf(text, sizeof text, "a message could not be encoded: %s",
                       wire_error_text(status));
        log_line(rt->log, LOG_ERROR_LEVEL, action->job, text);
        return;
    }
    conns_send(rt->conns, action->conns, action->conn_count, frame, bytes);
}

static void on_probed(void *owner, uint64_t tag, enum probe_result result);

/* Who is refused can come again at once: such lines have a limit. */
static void log_action(struct runtime *rt, const struct core_action *action)
{
    if (rt->greeting && action->level == CORE_WARNING)
        notice_refusal(&rt->notices, clock_monotonic_us(), action->job, action->text);
    else
        log_line(rt->log, (enum log_level)action->level, action->job, action->text);
}

static void carry_out(struct runtime *rt, const struct core_action *action)
{
    switch (action->type) {
    case CORE_ACTION_SEND:
        send_message(rt, action);
        break;
    case CORE_ACTION_ADMIT:
        conns_admit(rt->conns, action->conns[0]);
        break;
    case CORE_ACTION_CLOSE:
        conns_close(rt->conns, action->conns[0]);
        break;
    case CORE_ACTION_STORE:
        store_put(rt->store, action->lsn, action->job, action->record, action->record_bytes);
        break;
    case CORE_ACTION_PROBE:
        (void)probe_start(rt->loop, action->text, on_probed, rt, action->probe);
        break;
    case CORE_ACTION_LOG:
        log_action(rt, action);
        break;
    case CORE_ACTION_ANSWER:
        control_answer(rt->control, action->ticket, action->ok, action->text);
        break;
    }
}

/* Kernel randomness, a page at a time: 20,000 beats a second must not cost as many system calls. */
static void fill_random(struct runtime *rt, struct core_event *event)
{
    if (rt->random_used + sizeof event->random > RANDOM_BYTES) {
        if (random_fill(rt->random, RANDOM_BYTES) != 0)
            log_line(rt->log, LOG_ERROR_LEVEL, "", "the kernel gives no randomness");
        rt->random_used = 0;
    }
    memcpy(event->random, rt->random + rt->random_used, sizeof event->random);
    memset(rt->random + rt->random_used, 0, sizeof event->random);
    rt->random_used += sizeof event->random;
}

static void step_once(struct runtime *rt, struct core_event *event)
{
    event->now_us = clock_monotonic_us();
    fill_random(rt, event);
    core_step(rt->core, event, &rt->actions);
    for (uint32_t i = 0; i < rt->actions.count; i++)
        carry_out(rt, &rt->actions.list[i]);
}

static void step(struct runtime *rt, struct core_event *event)
{
    if (rt->stopping)
        return;
    if (rt->stepping) {
        assert(rt->kept_count < KEPT_MAX);
        rt->kept[rt->kept_count++] = *event;
        return;
    }
    rt->stepping = true;
    step_once(rt, event);
    while (rt->kept_count > 0) {
        struct core_event next = rt->kept[0];

        rt->kept_count--;
        memmove(&rt->kept[0], &rt->kept[1], rt->kept_count * sizeof next);
        step_once(rt, &next);
    }
    rt->stepping = false;
}

/* ---- what comes in -------------------------------------------------------------------------- */

static void on_opened(void *owner, uint64_t id)
{
    (void)owner;
    (void)id; /* a stranger is no event: the core hears of it when it says HELLO */
}

static struct core_id digest(const wire_id *secret)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    struct core_id id;

    memset(sum, 0, sizeof sum);
    (void)EVP_Digest(secret->bytes, sizeof secret->bytes, sum, NULL, EVP_sha256(), NULL);
    memcpy(id.byte, sum, sizeof id.byte);
    return id;
}

/* A sentence for both ends: what is wrong with the body, and where. */
static void body_fault(uint8_t type, enum wire_error status, const struct lint_fault *fault,
                       char *text, size_t text_bytes)
{
    if (status == WIRE_ERROR_LINT)
        (void)snprintf(text, text_bytes, "%s: %s (%s.%s at byte %zu)", frame_type_name(type),
                       lint_error_text(fault->error), fault->message, fault->field,
                       fault->offset_bytes);
    else
        (void)snprintf(text, text_bytes, "%s: %s", frame_type_name(type), wire_error_text(status));
}

static void on_frame(void *owner, uint64_t id, const struct frame_header *header,
                     const uint8_t *body)
{
    struct runtime *rt = owner;
    struct core_event event = {.type = CORE_EVENT_MESSAGE, .conn = id};
    struct core_message message;
    struct wire_message wire;
    struct lint_fault fault;
    struct adapt_peer peer = {.host = ""};
    char host[CONN_ADDRESS_BYTES], why[400];
    enum wire_error status;

    wire_arena_reset(&rt->arena);
    status = wire_decode(&rt->arena, header, body, &wire, &fault);
    if (status != WIRE_OK) {
        body_fault(header->type, status, &fault, why, sizeof why);
        conns_break(rt->conns, id, why);
        return;
    }
    if (header->type == FRAME_HELLO) {
        conns_peer(rt->conns, id, host, sizeof host);
        peer.host = host;
        peer.secret = digest(&wire.hello.secret);
    }
    if (!adapt_to_core(&wire, &peer, &rt->scratch, &message)) {
        conns_break(rt->conns, id, frame_error_text(FRAME_ERROR_STATE));
        return;
    }
    event.message = &message;
    rt->greeting = header->type == FRAME_HELLO;
    step(rt, &event);
    rt->greeting = false;
}

/* Its last word, before it is closed. */
static void on_broken(void *owner, uint64_t id, const char *peer, const char *why)
{
    struct runtime *rt = owner;
    const struct wire_message refused = {
        .header = {.type = FRAME_REFUSED},
        .refused = {.why = WIRE_REFUSAL_PROTOCOL, .exit_code = EXIT_REFUSED, .text = why},
    };
    const uint8_t *frame;
    size_t bytes;

    notice_connection(&rt->notices, clock_monotonic_us(), peer, "refused", why);
    wire_arena_reset(&rt->arena);
    if (wire_encode(&rt->arena, &refused, &frame, &bytes) == WIRE_OK)
        conns_send(rt->conns, &id, 1, frame, bytes);
}

static void on_conn_closed(void *owner, uint64_t id, const char *peer, const char *why)
{
    struct runtime *rt = owner;
    struct core_event event = {.type = CORE_EVENT_CLOSED, .conn = id};

    if (why[0] != '\0')
        notice_connection(&rt->notices, clock_monotonic_us(), peer, "ended", why);
    step(rt, &event);
}

static void on_stored(void *owner, uint64_t lsn, const char *failure)
{
    struct runtime *rt = owner;
    struct core_event event = {.type = failure == NULL ? CORE_EVENT_STORED
                                                       : CORE_EVENT_STORE_FAILED,
                               .lsn = lsn};

    if (failure != NULL)
        log_line(rt->log, LOG_ERROR_LEVEL, "", failure);
    step(rt, &event);
}

static void on_probed(void *owner, uint64_t tag, enum probe_result result)
{
    struct core_event event = {.type = CORE_EVENT_PROBED,
                               .probe = tag,
                               .gone = result == PROBE_REFUSED};

    step(owner, &event);
}

static void on_record(void *owner, const char *job, const uint8_t *record, size_t bytes)
{
    struct core_event event = {.type = CORE_EVENT_RESTORE, .record = record, .record_bytes = bytes};

    (void)job;
    step(owner, &event);
}

static void on_control(void *owner, uint64_t ticket, const struct control_request *request)
{
    struct runtime *rt = owner;
    struct core_event event = {.type = CORE_EVENT_COMMAND,
                               .ticket = ticket,
                               .job = request->job,
                               .target = request->target};
    char text[256];

    if (strcmp(request->command, "drain") == 0) {
        event.command = CORE_COMMAND_DRAIN;
    } else if (strcmp(request->command, "forget") == 0) {
        event.command = CORE_COMMAND_FORGET;
    } else if (strcmp(request->command, "why") == 0) {
        event.command = CORE_COMMAND_WHY;
    } else {
        control_answer(rt->control, ticket, false,
                       "unknown command: drain, forget and why are there");
        return;
    }
    (void)snprintf(text, sizeof text, "operator (uid %u, pid %u): %s %s", request->peer_uid,
                   request->peer_pid, request->command, request->target);
    log_line(rt->log, LOG_INFO_LEVEL, request->job, text);
    step(rt, &event);
}

static void on_page(void *owner, const char *path, struct http_page *page)
{
    struct runtime *rt = owner;
    struct conn_counters counters;

    conns_counters(rt->conns, &counters);
    status_page(rt->core, &counters, path, page);
}

/* ---- ticks ---------------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void on_timer(uv_timer_t *timer)
{
    struct runtime *rt = timer->data;

    rt->tick_due = true;
    (void)uv_idle_start(&rt->idle, on_idle);
}

static void on_check(uv_check_t *check)
{
    struct runtime *rt = check->data;
    struct core_event event = {.type = CORE_EVENT_TICK};
    const char *sentence;
    int broken;

    if (!rt->tick_due)
        return;
    rt->tick_due = false;
    (void)uv_idle_stop(&rt->idle);
    conns_judge(rt->conns, uv_now(rt->loop) * 1000);
    control_judge(rt->control, uv_now(rt->loop) * 1000);
    step(rt, &event);
    broken = core_check(rt->core, &sentence);
    if (broken != 0)
        notice_broken(&rt->notices, clock_monotonic_us(), broken, sentence);
    notices_tick(&rt->notices, clock_monotonic_us());
}

/* ---- opening -------------------------------------------------------------------------------- */

/* As many connections as the system lets us have. */
static uint32_t raise_files(uint32_t wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return wanted;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted + SPARE_FILES)
        return limit.rlim_cur > 2 * SPARE_FILES ? (uint32_t)limit.rlim_cur - SPARE_FILES
                                                : SPARE_FILES;
    return wanted;
}

static int open_core(struct runtime *rt, const struct settings *settings, struct error *error)
{
    struct core_limits limits;
    struct core_times times;

    core_limits_default(&limits);
    core_times_default(&times);
    limits.jobs = (uint32_t)settings->jobs_max;
    limits.members = (uint32_t)settings->members_max;
    times.beat_ms = (uint32_t)settings->beat_ms;
    times.suspect_beats = (uint32_t)settings->suspect_beats;
    times.lost_beats = (uint32_t)settings->lost_beats;
    times.quiet_ms = (uint32_t)settings->quiet_ms;
    times.stalled_ms = (uint32_t)settings->stalled_ms;
    times.stalled_steps = (uint32_t)settings->stalled_steps;
    times.startup_ms = (uint32_t)settings->startup_ms;
    times.cooldown_losses = (uint32_t)settings->cooldown_losses;
    times.cooldown_ms = (uint32_t)settings->cooldown_ms;
    times.restart_budget = (uint32_t)settings->restart_budget;
    times.rebalance = settings->rebalance;
    times.on_deadlock = strcmp(settings->on_deadlock, "abort") == 0   ? CORE_ON_DEADLOCK_ABORT
                        : strcmp(settings->on_deadlock, "evict") == 0 ? CORE_ON_DEADLOCK_EVICT
                                                                      : CORE_ON_DEADLOCK_REPORT;
    rt->core_memory = aligned_alloc(64, (core_size(&limits) + 63) / 64 * 64);
    rt->arena_memory = malloc(WIRE_ARENA_BYTES);
    if (rt->core_memory == NULL || rt->arena_memory == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    wire_arena_init(&rt->arena, rt->arena_memory, WIRE_ARENA_BYTES);
    rt->core = core_init(rt->core_memory, &limits, &times, clock_monotonic_us());
    return 0;
}

static int open_store(struct runtime *rt, const struct settings *settings, struct error *error)
{
    char why[400];
    enum store_error status =
        store_open(&rt->store, rt->loop, settings->state, on_stored, rt, why, sizeof why);

    if (status == STORE_OK)
        status = store_load(rt->store, on_record, rt, why, sizeof why);
    return status == STORE_OK ? 0 : error_set(error, EXIT_UNAVAILABLE, "%s", why);
}

static int open_members(struct runtime *rt, const struct settings *settings, struct error *error)
{
    static const struct conn_events events = {on_opened, on_frame, on_broken,
                                              on_conn_closed};
    struct sockaddr_storage address;
    struct conn_limits limits;
    char why[200];

    if (netaddr_parse(settings->listen, "--listen", &address, error) != 0)
        return error->code;
    if (!netaddr_is_loopback(&address) && !settings->insecure)
        return error_set(error, EXIT_USAGE,
                         "--listen %s is not loopback, and members are not encrypted yet: give "
                         "--insecure if this network is trusted", settings->listen);
    conn_limits_default(&limits);
    limits.conn_count = raise_files((uint32_t)settings->members_max + limits.stranger_count);
    if (conns_open(&rt->conns, rt->loop, &limits, &events, rt, (struct sockaddr *)&address, why,
                   sizeof why) != 0)
        return error_set(error, EXIT_UNAVAILABLE, "--listen %s: %s", settings->listen, why);
    return 0;
}

static int open_doors(struct runtime *rt, const struct settings *settings, struct error *error)
{
    struct sockaddr_storage address;
    struct http_limits limits;
    char why[256], path[512];

    if (netaddr_parse(settings->http, "--http", &address, error) != 0)
        return error->code;
    http_limits_default(&limits);
    if (http_start(&rt->http, rt->loop, &limits, (struct sockaddr *)&address, on_page, rt, why,
                   sizeof why) != 0)
        return error_set(error, EXIT_UNAVAILABLE, "--http %s: %s", settings->http, why);
    (void)snprintf(path, sizeof path, "%s/control.sock", settings->state);
    if (control_start(&rt->control, rt->loop, settings->control != NULL ? settings->control : path,
                      on_control, rt, why, sizeof why) != 0)
        return error_set(error, EXIT_UNAVAILABLE, "%s", why);
    return 0;
}

static void start_ticks(struct runtime *rt)
{
    (void)uv_timer_init(rt->loop, &rt->timer);
    (void)uv_check_init(rt->loop, &rt->check);
    (void)uv_idle_init(rt->loop, &rt->idle);
    rt->timer.data = rt->check.data = rt->idle.data = rt;
    (void)uv_timer_start(&rt->timer, on_timer, TICK_MS, TICK_MS);
    (void)uv_check_start(&rt->check, on_check);
}

int runtime_open(struct runtime **out, uv_loop_t *loop, const struct settings *settings,
                 const struct log *log, struct error *error)
{
    struct runtime *rt = calloc(1, sizeof *rt);
    int status;

    *out = rt;
    if (rt == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory");
    rt->loop = loop;
    rt->log = log;
    notices_init(&rt->notices, log);
    rt->random_used = RANDOM_BYTES;
    start_ticks(rt);
    status = open_core(rt, settings, error);
    if (status == 0)
        status = open_store(rt, settings, error);
    if (status == 0)
        status = open_members(rt, settings, error);
    if (status == 0)
        status = open_doors(rt, settings, error);
    return status;
}

void runtime_ready_text(const struct runtime *rt, char *text, size_t text_bytes)
{
    char tcp[CONN_ADDRESS_BYTES], http[CONN_ADDRESS_BYTES];

    conns_address(rt->conns, tcp, sizeof tcp);
    http_address(rt->http, http, sizeof http);
    (void)snprintf(text, text_bytes, "tcp=%s http=%s", tcp, http);
}

void runtime_stop(struct runtime *rt)
{
    if (rt == NULL || rt->stopping)
        return;
    rt->stopping = true;
    uv_close((uv_handle_t *)&rt->timer, NULL);
    uv_close((uv_handle_t *)&rt->check, NULL);
    uv_close((uv_handle_t *)&rt->idle, NULL);
    conns_stop(rt->conns);
    http_stop(rt->http);
    control_stop(rt->control);
    store_close(rt->store);
}

void runtime_free(struct runtime *rt)
{
    if (rt == NULL)
        return;
    free(rt->core_memory);
    free(rt->arena_memory);
    free(rt);
}

const char *runtime_crypto_version(void)
{
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}
