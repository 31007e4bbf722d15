/* Connection and time of a session.
 *
 * Invariants:
 *   1. At most one connection: SESSION_CONNECT is asked for only in IDLE and RESTING, and whoever
 *      leaves CONNECTING, GREETING or ATTACHED otherwise than by CLOSED asks for SESSION_CLOSE.
 *   2. HELLO is the first frame of every connection, and the only one before WELCOME.
 *   3. Once admitted, a session ends only by REFUSED, GOODBYE or STOP: never by time.
 *   4. A pause is drawn from 0 .. min(cap, base * 2^n), so that a thousand members do not come back
 *      at the same moment (full jitter: Brooker, "Exponential Backoff And Jitter", 2015). The cap
 *      of a small group is smaller: a coordinator that is back has its members within a second.
 *   5. A silent coordinator is not left at once: its process may be stopped, and the end of the
 *      connection would be the end of this member there. So silence_timeout_ms is long.
 */
#include "session_private.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum {
    CONNECT_TIMEOUT_MS = 60000,
    GREETING_TIMEOUT_MS = 30000,
    SILENCE_TIMEOUT_MS = 60000,
    BACKOFF_BASE_MS = 100,
    BACKOFF_CAP_MS = 5000,
    BACKOFF_GROUP_MS = 500, /* of a small group, whose members are known */
    BACKOFF_MEMBER_MS = 4,  /* and so much for each member of a large one */
    HANGS_AFTER = 4,        /* times refresh_ms */
    BEAT_MIN_MS = 20,
    BEAT_MAX_MS = 60000,
};

void session_config_init(struct session_config *config)
{
    *config = (struct session_config){
        .job = "",
        .kind = WIRE_KIND_WORKER,
        .node = "",
        .host = "",
        .data_address = "",
        .program = "",
        .spec = "",
        .fingerprint = "",
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .greeting_timeout_ms = GREETING_TIMEOUT_MS,
        .silence_timeout_ms = SILENCE_TIMEOUT_MS,
        .backoff_base_ms = BACKOFF_BASE_MS,
        .backoff_cap_ms = BACKOFF_CAP_MS,
    };
}

/* What one GENERATION of so many members needs in an arena; every text is rounded up to 8 bytes. */
static size_t roster_bytes(uint32_t members_max)
{
    const size_t texts = 3 * (WIRE_NAME_BYTES + 8) + WIRE_OWNED_BYTES;

    return members_max * (sizeof(struct wire_member) + texts) + WIRE_REASON_BYTES + 8;
}

size_t session_memory_bytes(uint32_t members_max)
{
    assert(members_max <= WIRE_MEMBERS_MAX);
    return 2 * roster_bytes(members_max);
}

void session_init(struct session *session, const struct session_config *config, void *memory,
                  size_t memory_bytes)
{
    size_t half_bytes = memory_bytes / 2 & ~(size_t)7;

    assert(strlen(config->job) > 0);
    *session = (struct session){
        .config = config,
        .state = SESSION_IDLE,
        .job_uid = config->job_uid,
        .held.step = config->known_applied,
        .status = {.phase = WIRE_PHASE_STARTUP, .applied = config->known_applied},
        .largest = config->known_generation,
    };
    wire_arena_init(&session->rosters[0].arena, memory, half_bytes);
    wire_arena_init(&session->rosters[1].arena, (uint8_t *)memory + half_bytes, half_bytes);
}

/* ---- actions ---- */

struct session_action *session_push(struct session_actions *actions, enum session_action_type type)
{
    struct session_action *action = &actions->list[actions->count];

    assert(actions->count < SESSION_ACTIONS_MAX);
    actions->count++;
    action->type = type;
    return action;
}

struct wire_message *session_send(struct session_actions *actions, enum frame_type type,
                                  const struct session_position *at)
{
    struct wire_message *message = &session_push(actions, SESSION_SEND)->message;

    message->header = (struct frame_header){
        .version = FRAME_VERSION_MIN,
        .type = (uint8_t)type,
        .generation = at->generation,
        .nonce = at->nonce,
        .step = at->step,
    };
    return message;
}

void session_deliver(struct session_actions *actions, enum session_news news,
                     const struct wire_message *message)
{
    struct session_action *action = session_push(actions, SESSION_DELIVER);

    action->delivery = (struct session_delivery){.news = news, .message = message};
}

static bool connected(const struct session *session)
{
    return session->state == SESSION_CONNECTING || session->state == SESSION_GREETING ||
           session->state == SESSION_ATTACHED;
}

void session_copy_text(char *to, size_t room_bytes, const char *from)
{
    (void)snprintf(to, room_bytes, "%s", from ? from : "");
}

void session_finish(struct session *session, enum session_end end, uint32_t exit_code,
                    struct session_actions *actions)
{
    struct session_delivery *delivery;

    if (connected(session))
        (void)session_push(actions, SESSION_CLOSE);
    session->state = SESSION_ENDED;
    session_deliver(actions, SESSION_NEWS_ENDED, NULL);
    delivery = &actions->list[actions->count - 1].delivery;
    delivery->end = end;
    delivery->exit_code = exit_code;
    delivery->text = session->text;
}

/* ---- the connection ---- */

static uint64_t us(uint32_t ms)
{
    return (uint64_t)ms * 1000;
}

static void connect_now(struct session *session, struct session_actions *actions)
{
    session->state = SESSION_CONNECTING;
    session->deadline_us = session->now_us + us(session->config->greeting_timeout_ms);
    (void)session_push(actions, SESSION_CONNECT);
}

/* The longest pause: as long as it takes to spread those who come back at the same moment. */
static uint32_t cap_ms(const struct session *session)
{
    const struct wire_message *group = session_roster_held(session);
    uint32_t group_ms =
        group ? group->generation.members_count * BACKOFF_MEMBER_MS : BACKOFF_CAP_MS;

    if (group_ms < BACKOFF_GROUP_MS)
        group_ms = BACKOFF_GROUP_MS;
    return group_ms < session->config->backoff_cap_ms ? group_ms : session->config->backoff_cap_ms;
}

/* Full jitter; the exponent stops before it could overflow. */
static uint64_t pause_us(const struct session *session)
{
    uint32_t exponent = session->attempts < 20 ? session->attempts : 20;
    uint64_t longest_us = us(session->config->backoff_base_ms) << exponent;

    if (longest_us > us(cap_ms(session)))
        longest_us = us(cap_ms(session));
    return session->random % (longest_us + 1);
}

static void rest(struct session *session, const char *why, struct session_actions *actions)
{
    bool was_attached = session->state == SESSION_ATTACHED;

    session_copy_text(session->failure, sizeof session->failure, why);
    session->state = SESSION_RESTING;
    session->deadline_us = session->now_us + pause_us(session);
    session->attempts++;
    if (!was_attached)
        return;
    session_copy_text(session->text, sizeof session->text, session->failure);
    session_deliver(actions, SESSION_NEWS_DOWN, NULL);
    actions->list[actions->count - 1].delivery.text = session->text;
}

void session_drop(struct session *session, const char *why, struct session_actions *actions)
{
    (void)session_push(actions, SESSION_CLOSE);
    rest(session, why, actions);
}

static enum wire_attach attach_of(const struct session *session)
{
    uint64_t held = session->held.generation;

    if (held == 0)
        return WIRE_ATTACH_JOIN;
    return held <= session->over || held <= session->reported ? WIRE_ATTACH_FROZEN
                                                              : WIRE_ATTACH_RUNNING;
}

static void send_hello(struct session *session, struct session_actions *actions)
{
    const struct session_config *config = session->config;
    const struct wire_message *roster = session_roster_held(session);
    struct session_position at = session->held;
    struct wire_message *message;
    bool passed;

    if (at.generation == 0) {
        at.generation = session->largest;
        at.nonce = session->largest_nonce;
    }
    /* Whoever has not yet copied what the generation began with knows that somebody has it. */
    if (roster && roster->header.step > at.step)
        at.step = roster->header.step;
    passed = session->barrier_generation == at.generation && session->passed != 0;
    message = session_send(actions, FRAME_HELLO, &at);
    message->hello = (struct wire_hello){
        .version_min = FRAME_VERSION_MIN,
        .version_max = FRAME_VERSION_MAX,
        .job = config->job,
        .member_id = config->member_id,
        .secret = config->secret,
        .kind = config->kind,
        .attach = attach_of(session),
        .node = config->node,
        .host = config->host,
        .pid = config->pid,
        .data_address = config->data_address,
        .min = config->min,
        .max = config->max,
        .spec = config->spec,
        .fingerprint = config->fingerprint,
        .job_uid = session->job_uid,
        .rank_hint = config->rank_hint,
        .group_size = config->group_size,
        .roster = roster ? roster->generation.members : NULL,
        .roster_count = roster ? roster->generation.members_count : 0,
        .program = config->program,
        .plan = session->largest > session->held.generation ? session->largest : 0,
        .applied = session->held.step,
        .passed = passed ? session->passed : 0,
        .passed_name = passed ? session->passed_name : "",
    };
}

static void greet(struct session *session, struct session_actions *actions)
{
    session->state = SESSION_GREETING;
    session->deadline_us = session->now_us + us(session->config->greeting_timeout_ms);
    send_hello(session, actions);
}

static void attach(struct session *session, const struct wire_message *message,
                   struct session_actions *actions)
{
    const struct wire_welcome *welcome = &message->welcome;

    session->state = SESSION_ATTACHED;
    session->admitted = true;
    session->attempts = 0;
    session->job_uid = welcome->job_uid;
    session->beat_ms = welcome->beat_ms < BEAT_MIN_MS   ? BEAT_MIN_MS
                       : welcome->beat_ms > BEAT_MAX_MS ? BEAT_MAX_MS
                                                        : welcome->beat_ms;
    session->beat_due_us = session->now_us + us(session->beat_ms);
    session_deliver(actions, SESSION_NEWS_UP, message);
    session_say_again(session, actions);
}

static void refuse(struct session *session, const struct wire_refused *refused,
                   struct session_actions *actions)
{
    session_copy_text(session->text, sizeof session->text, refused->text);
    session_finish(session, SESSION_END_REFUSED, refused->exit_code, actions);
    actions->list[actions->count - 1].delivery.refusal = refused->why;
}

/* Invariant 2, from the other side: WELCOME or REFUSED first, WELCOME only once. */
static void hear(struct session *session, const struct wire_message *message,
                 struct session_actions *actions)
{
    bool welcome = message->header.type == FRAME_WELCOME;

    session->heard_us = session->now_us;
    if (message->header.type == FRAME_REFUSED)
        refuse(session, &message->refused, actions);
    else if (welcome != (session->state == SESSION_GREETING))
        session_drop(session, "the coordinator broke the protocol (order of frames)", actions);
    else if (welcome && (message->welcome.version < FRAME_VERSION_MIN ||
                         message->welcome.version > FRAME_VERSION_MAX))
        session_drop(session, "the coordinator chose a protocol version not spoken here", actions);
    else if (welcome)
        attach(session, message, actions);
    else
        session_told(session, message, actions);
}

/* ---- time ---- */

/* What the ledger says holds in its own generation only. */
static void beat_ledger(const struct session *session, struct wire_beat *beat)
{
    const struct session_ledger *ledger = &session->ledger;

    beat->name = beat->op = beat->dtype = beat->place = "";
    if (ledger->generation != session->held.generation)
        return;
    beat->entered = ledger->entered;
    beat->left = ledger->left;
    beat->at = ledger->at;
    beat->at_age_ms =
        session->now_us > ledger->since_us ? (session->now_us - ledger->since_us) / 1000 : 0;
    beat->open = ledger->open;
    beat->op = ledger->op;
    beat->name = ledger->name;
    beat->dtype = ledger->dtype;
    beat->count = ledger->count;
    beat->place = ledger->place;
    beat->batch = ledger->batch;
}

/* A program that promised to say how it stands, and does not, hangs: whatever it waited for when it
 * last spoke, now others wait for it. */
static bool hangs(const struct session *session)
{
    uint64_t patience_us = HANGS_AFTER * us(session->config->refresh_ms);

    return patience_us != 0 && session->status.phase == WIRE_PHASE_EXCHANGE &&
           session->now_us > session->status_us + patience_us;
}

/* Since it spoke last, or entered the collective that is open: what it waits for there is no
 * excuse, whichever of the two was later by the coordinator's milliseconds. */
static uint64_t hung_since_us(const struct session *session)
{
    uint64_t entered_us = session->ledger.open ? session->ledger.since_us + 1000 : 0;
    uint64_t since_us = session->status_us > entered_us ? session->status_us : entered_us;

    return since_us < session->now_us ? since_us : session->now_us;
}

void session_beat(struct session *session, struct session_actions *actions)
{
    struct session_position at = session->held;
    struct wire_message *message = session_send(actions, FRAME_BEAT, &at);
    bool hung = hangs(session);
    uint64_t since_us = hung ? hung_since_us(session) : session->phase_since_us;

    session->beaten_us = session->now_us;
    message->beat = (struct wire_beat){
        .seq = ++session->beat_seq,
        .phase = hung ? WIRE_PHASE_COMPUTE : session->status.phase,
        .phase_age_ms = (session->now_us - since_us) / 1000,
        .loss = session->status.loss,
        .samples_per_s = session->status.samples_per_s,
        .lag_ms = session->lag_ms,
        .shard_us = session->status.shard_us,
        .shards = session->status.shards,
        .where = session->where,
    };
    beat_ledger(session, &message->beat);
}

static uint64_t later(const struct session *session, uint64_t since_us, uint64_t by_us)
{
    return since_us + by_us < session->now_us ? since_us + by_us : session->now_us;
}

static void beat(struct session *session, struct session_actions *actions)
{
    uint64_t lag_us = session->now_us - session->beat_due_us;

    session->lag_ms = (uint32_t)(lag_us / 1000);
    if (lag_us > us(session->beat_ms)) { /* nobody ran meanwhile, nor is it the program's fault */
        session->status_us = later(session, session->status_us, lag_us);
        session->phase_since_us = later(session, session->phase_since_us, lag_us);
    }
    session->beat_due_us += us(session->beat_ms);
    if (session->beat_due_us <= session->now_us) /* it slept: no burst of beats */
        session->beat_due_us = session->now_us + us(session->beat_ms);
    session_beat(session, actions);
}

/* Since when it waits in a collective, or at a barrier: the later of the two. */
static uint64_t waits_since_us(const struct session *session)
{
    uint64_t since_us = session->ledger.open ? session->ledger.since_us : 0;

    if (session->said.has_barrier && session->barrier_since_us > since_us)
        since_us = session->barrier_since_us;
    return since_us;
}

/* When a wait has become long that no beat has told of as such: once between two regular beats. */
static uint64_t early_due_us(const struct session *session)
{
    uint64_t since_us = waits_since_us(session), long_us = since_us + us(SESSION_LONG_MS);
    uint64_t again_us = session->early_us + us(session->beat_ms);

    if (since_us == 0 || session->beaten_us >= long_us)
        return SESSION_NEVER_US;
    return session->early_us != 0 && again_us > long_us ? again_us : long_us;
}

uint64_t session_stands_since_us(const struct session *session)
{
    uint64_t since_us = waits_since_us(session);

    return since_us > session->phase_since_us ? since_us : session->phase_since_us;
}

/* When it gives up; only before the first WELCOME. */
static uint64_t give_up_us(const struct session *session)
{
    uint32_t timeout_ms = session->config->connect_timeout_ms;

    return session->admitted || timeout_ms == 0 ? SESSION_NEVER_US
                                                : session->started_us + us(timeout_ms);
}

static void give_up(struct session *session, struct session_actions *actions)
{
    (void)snprintf(session->text, sizeof session->text, "no coordinator within %u ms: %s",
                   session->config->connect_timeout_ms,
                   session->failure[0] ? session->failure : "no answer yet");
    session_finish(session, SESSION_END_UNREACHABLE, 69, actions);
}

static uint64_t silent_us(const struct session *session)
{
    return session->heard_us + us(session->config->silence_timeout_ms);
}

static void wake_attached(struct session *session, struct session_actions *actions)
{
    if (session->now_us >= silent_us(session))
        session_drop(session, "the coordinator was silent for too long", actions);
    else if (session->now_us >= session->beat_due_us)
        beat(session, actions);
    else if (session->now_us >= early_due_us(session)) {
        session->early_us = session->now_us;
        session_beat(session, actions);
    }
}

static void wake(struct session *session, struct session_actions *actions)
{
    bool due = session->now_us >= session->deadline_us;

    if (session->state == SESSION_ATTACHED)
        wake_attached(session, actions);
    else if (session->now_us >= give_up_us(session))
        give_up(session, actions);
    else if (session->state == SESSION_RESTING && due)
        connect_now(session, actions);
    else if (session->state == SESSION_CONNECTING && due)
        session_drop(session, "the connection could not be made in time", actions);
    else if (session->state == SESSION_GREETING && due)
        session_drop(session, "the coordinator did not answer HELLO in time", actions);
}

uint64_t session_wake_us(const struct session *session)
{
    uint64_t first_us = session->deadline_us;
    uint64_t second_us = give_up_us(session);

    if (session->state == SESSION_IDLE || session->state == SESSION_ENDED)
        return SESSION_NEVER_US;
    if (session->state == SESSION_ATTACHED) {
        first_us = session->beat_due_us;
        second_us = silent_us(session);
        if (early_due_us(session) < first_us)
            first_us = early_due_us(session);
    }
    return first_us < second_us ? first_us : second_us;
}

/* ---- events ---- */

static bool start(struct session *session, struct session_actions *actions)
{
    if (session->state != SESSION_IDLE)
        return false;
    session->started_us = session->now_us;
    session->phase_since_us = session->now_us;
    connect_now(session, actions);
    return true;
}

static bool carrier_event(struct session *session, const struct session_event *event,
                          struct session_actions *actions)
{
    if (event->type == SESSION_CONNECTED && session->state == SESSION_CONNECTING)
        greet(session, actions);
    else if (event->type == SESSION_CLOSED && connected(session))
        rest(session, event->text, actions);
    else if (event->type == SESSION_MESSAGE &&
             (session->state == SESSION_GREETING || session->state == SESSION_ATTACHED))
        hear(session, event->message, actions);
    else
        return false;
    return true;
}

bool session_step(struct session *session, const struct session_event *event,
                  struct session_actions *actions)
{
    actions->count = 0;
    assert(event->now_us >= session->now_us);
    session->now_us = event->now_us;
    session->random = event->random;
    if (session->state == SESSION_ENDED)
        return false;
    switch (event->type) {
    case SESSION_START:
        return start(session, actions);
    case SESSION_CONNECTED:
    case SESSION_CLOSED:
    case SESSION_MESSAGE:
        return carrier_event(session, event, actions);
    case SESSION_WAKE:
        wake(session, actions);
        return true;
    case SESSION_STOP:
        session_copy_text(session->text, sizeof session->text, "stopped by the program");
        session_finish(session, SESSION_END_STOPPED, 0, actions);
        return true;
    case SESSION_STATUS:
    case SESSION_LEDGER:
    case SESSION_WHERE:
    case SESSION_REPORT:
    case SESSION_ENTERED:
    case SESSION_READY:
    case SESSION_PEER_LOST:
    case SESSION_LEAVE:
    case SESSION_FINISHED:
    case SESSION_GOODBYE:
    case SESSION_BARRIER:
        return session_say(session, event, actions);
    }
    return false;
}
