/* The coordinator on one page: an event with its time goes in, one switch hands it to the rule that
 * it concerns, actions and a reason come out. The rules:
 *
 *   hello.c       who may come in, come back, or is refused and why
 *   rendezvous.c  when a generation is formed, with whom, at which ranks; the rule of one world
 *   generation.c  stored, then told; ended with one push; plans taken at a boundary
 *   life.c        ends of connections, leases, stalled members, peers' reports
 *   straggler.c   who is slow; plans that only spread the shards anew
 *   barrier.c     barriers released once; deadlock decided by who waits for whom
 *   ledger.c      collectives: who differs, who waits for whom for ever;  why.c tells it
 *   record.c      a job as bytes; members.c the tables; view.c what status shows, check and hash */
#include "core/internal.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- the switch ----------------------------------------------------------------------------- */

static void on_goodbye(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    bool participant = m->kind == CORE_PARTICIPANT;
    const char *text = message->goodbye.text;

    core_log(core, CORE_INFO, job,
             core_say(core, "%s says goodbye (exit %u)%s%s", core_member_name(core, m),
                      message->goodbye.exit_code, text[0] ? ": " : "", text));
    if ((m->in_generation || m->in_plan) && !m->released && job->state == CORE_JOB_RUNNING) {
        member_lost(core, m, text[0] ? text : "it said goodbye before it was released", 0);
        m->gone = true;
    } else if (m->state == MEMBER_LOST || m->state == MEMBER_FROZEN) {
        member_set_conn(core, m, 0);
        m->left = m->state == MEMBER_FROZEN;
        m->state = MEMBER_LOST;
        m->gone = true;
    } else {
        job->group_left += participant;
        job->waiting_due = true;
        member_free(core, m);
    }
    if (participant)
        barrier_decide(core, job, CORE_PARTICIPANT);
    job_try(core, job);
}

static void on_message(struct core *core, const struct core_event *event)
{
    const struct core_message *message = event->message;
    struct member *m = member_by_conn(core, event->conn);

    if (message->type == CORE_HELLO) {
        on_hello(core, event->conn, message);
        return;
    }
    if (m == NULL)
        return; /* what it said before it was declared lost */
    m->seen_us = core->now_us;
    m->suspect = false;
    switch (message->type) {
    case CORE_BEAT:
        on_beat(core, m, message);
        break;
    case CORE_REPORT:
        on_report(core, m, message);
        break;
    case CORE_ENTERED:
        on_entered(core, m, message);
        break;
    case CORE_READY:
        on_ready(core, m, message);
        break;
    case CORE_PEER_LOST:
        on_peer_lost(core, m, message);
        break;
    case CORE_LEAVE:
        on_leave(core, m, message);
        break;
    case CORE_GOODBYE:
        on_goodbye(core, m, message);
        break;
    case CORE_FINISHED:
        on_finished(core, m, message);
        break;
    case CORE_BARRIER_ENTER:
        on_barrier_enter(core, m, message);
        break;
    case CORE_HELLO:
    case CORE_WELCOME:
    case CORE_REFUSED:
    case CORE_WAITING:
    case CORE_GENERATION:
    case CORE_OVER:
    case CORE_RELEASED:
    case CORE_DRAIN_REQUEST:
    case CORE_DONE:
    case CORE_BARRIER_RESULT:
    case CORE_BEAT_ACK:
    case CORE_VERDICT:
    default:
        break; /* a coordinator's message from a member: the frame layer refuses it */
    }
}

static void on_closed(struct core *core, core_conn conn)
{
    struct member *m = member_by_conn(core, conn);

    if (m != NULL)
        member_closed(core, m);
}

static void on_stored(struct core *core, uint64_t lsn, bool failed)
{
    for (uint32_t i = 0; i < core->limits.jobs; i++) {
        struct job *job = &core->jobs[i];

        if (!job->used || job->pending == PENDING_NONE || job->pending_lsn != lsn)
            continue;
        if (!failed) {
            generation_stored(core, job);
            return;
        }
        job->retry_us = core->now_us + (uint64_t)core->times.store_retry_ms * 1000;
        core_log(core, CORE_ERROR, job,
                 "the state could not be stored: nothing new is formed until it can");
    }
}

static void on_probed(struct core *core, uint64_t probe, bool gone)
{
    uint32_t index = (uint32_t)probe;
    struct member *m;

    if (index >= core->limits.members || !gone)
        return;
    m = &core->members[index];
    if (m->state == MEMBER_FREE || m->conn != 0 || m->order != (uint32_t)(probe >> 32))
        return;
    member_gone(core, m, "nobody listens at");
    job_try(core, &core->jobs[m->job]);
}

/* Does the operator's word name this member: node, host, "rank N", or pid? */
static bool named(const struct member *m, const char *target)
{
    char rank[16], pid[16];

    (void)snprintf(rank, sizeof rank, "%u", m->rank);
    (void)snprintf(pid, sizeof pid, "%u", m->pid);
    return strcmp(m->node, target) == 0 || strcmp(m->host, target) == 0 ||
           strcmp(rank, target) == 0 || strcmp(pid, target) == 0;
}

static uint32_t command_members(struct core *core, struct job *job, const struct core_event *event)
{
    uint32_t count = 0, begin = core_list_begin(core);
    struct core_message *message;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->kind != CORE_WORKER || !named(m, event->target))
            continue;
        if (event->command == CORE_COMMAND_FORGET && m->state == MEMBER_LOST && !m->gone) {
            m->gone = true;
            count++;
        } else if (event->command == CORE_COMMAND_DRAIN && m->conn != 0) {
            core_list_add(core, m->conn);
            count++;
        }
    }
    message = core_send_list(core, begin, CORE_DRAIN_REQUEST, job);
    if (message != NULL)
        message->released.reason = "drained by the operator";
    return count;
}

/* The job that a command means; NULL and why not. Unnamed, it is the only one, or the only one that
 * is not over. */
static struct job *command_job(struct core *core, const struct core_event *event, const char **why)
{
    struct job *any = NULL, *open = NULL;
    uint32_t jobs = 0, open_jobs = 0;

    if (event->job[0] != '\0') {
        any = job_find(core, event->job);
        *why = any == NULL ? core_say(core, "there is no job '%s'", event->job) : "";
        return any;
    }
    for (uint32_t i = 0; i < core->limits.jobs; i++) {
        struct job *job = &core->jobs[i];

        if (!job->used)
            continue;
        any = job;
        jobs++;
        if (job->state != CORE_JOB_DONE && job->state != CORE_JOB_FAILED) {
            open = job;
            open_jobs++;
        }
    }
    if (open_jobs == 1 || jobs == 1)
        return open_jobs == 1 ? open : any;
    *why = jobs == 0 ? "there is no job yet"
                     : core_say(core, "there are %u jobs: say which, with --job (muster status "
                                      "lists them)", jobs);
    return NULL;
}

static void on_command(struct core *core, const struct core_event *event)
{
    struct core_action *answer;
    const char *text = "";
    struct job *job = command_job(core, event, &text);
    uint32_t count = 0;

    if (job != NULL && event->command == CORE_COMMAND_WHY) {
        text = core_why(core, job);
        count = 1;
    } else if (job != NULL) {
        count = command_members(core, job, event);
        text =
            count > 0
                ? core_say(core, "%u member%s", count, count == 1 ? "" : "s")
                : core_say(core, "nobody of job '%s' is called '%s' (a node, host, rank or pid)%s",
                           job->name, event->target,
                           event->command == CORE_COMMAND_FORGET ? " and missing" : "");
    }
    answer = core_act(core, CORE_ACTION_ANSWER);
    answer->ticket = event->ticket;
    answer->ok = count > 0;
    answer->text = text;
    if (job != NULL)
        job_try(core, job);
}

void core_step(struct core *core, const struct core_event *event, struct core_actions *actions)
{
    assert(event->now_us >= core->now_us);
    core->now_us = event->now_us;
    memcpy(core->random, event->random, sizeof core->random);
    core->random_used = 0;
    core->actions = actions;
    actions->count = 0;
    core->conns_used = core->roster_used = core->texts_used = 0;
    switch (event->type) {
    case CORE_EVENT_TICK:
        life_tick(core);
        break;
    case CORE_EVENT_OPENED:
        break;
    case CORE_EVENT_CLOSED:
        on_closed(core, event->conn);
        break;
    case CORE_EVENT_MESSAGE:
        on_message(core, event);
        break;
    case CORE_EVENT_STORED:
        on_stored(core, event->lsn, false);
        break;
    case CORE_EVENT_STORE_FAILED:
        on_stored(core, event->lsn, true);
        break;
    case CORE_EVENT_RESTORE:
        if (!record_restore(core, event->record, event->record_bytes))
            core_log(core, CORE_ERROR, NULL, "a stored record is damaged and was passed over");
        break;
    case CORE_EVENT_PROBED:
        on_probed(core, event->probe, event->gone);
        break;
    case CORE_EVENT_COMMAND:
        on_command(core, event);
        break;
    }
    core->actions = NULL;
}

/* ---- actions -------------------------------------------------------------------------------- */

struct core_action *core_act(struct core *core, enum core_action_type type)
{
    struct core_action *action;

    assert(core->actions != NULL);
    assert(core->actions->count < CORE_ACTIONS_MAX);
    action = &core->actions->list[core->actions->count++];
    memset(action, 0, sizeof *action);
    action->type = type;
    action->job = "";
    action->text = "";
    return action;
}

const char *core_say(struct core *core, const char *format, ...)
{
    char *text = core->texts[core->texts_used < TEXTS ? core->texts_used++ : TEXTS - 1];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, CORE_SENTENCE_BYTES, format, arguments);
    va_end(arguments);
    return text;
}

void core_log(struct core *core, enum core_level level, const struct job *job, const char *text)
{
    struct core_action *action;

    /* A line less is better than a message less. */
    if (core->actions->count + 12 > CORE_ACTIONS_MAX)
        return;
    action = core_act(core, CORE_ACTION_LOG);
    action->level = level;
    action->job = job != NULL ? job->name : "";
    action->text = text;
}

uint32_t core_list_begin(const struct core *core)
{
    return core->conns_used;
}

void core_list_add(struct core *core, core_conn conn)
{
    if (conn == 0)
        return;
    assert(core->conns_used < core->conns_size);
    core->conns[core->conns_used++] = conn;
}

struct core_message *core_send_list(struct core *core, uint32_t begin,
                                    enum core_message_type type, const struct job *job)
{
    struct core_action *action;

    if (core->conns_used == begin)
        return NULL;
    action = core_act(core, CORE_ACTION_SEND);
    action->conns = &core->conns[begin];
    action->conn_count = core->conns_used - begin;
    action->message.type = type;
    if (job != NULL) {
        action->job = job->name;
        action->message.generation = job->number;
        action->message.nonce = job->nonce;
        action->message.step = job->step;
    }
    return &action->message;
}

struct core_message *core_send(struct core *core, core_conn conn, enum core_message_type type,
                               const struct job *job)
{
    uint32_t begin = core_list_begin(core);

    assert(conn != 0);
    core_list_add(core, conn);
    return core_send_list(core, begin, type, job);
}

/* ---- small things --------------------------------------------------------------------------- */

/* Four fresh numbers come with each event; more are drawn from them (splitmix64). */
uint64_t core_random(struct core *core)
{
    uint64_t *state = &core->random[core->random_used++ % 4], z;

    *state += 0x9e3779b97f4a7c15u;
    z = *state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct core_id core_random_id(struct core *core)
{
    uint64_t words[2] = {core_random(core), core_random(core)};
    struct core_id id;

    memcpy(id.byte, words, sizeof id.byte);
    return id;
}

void core_copy_text(char *to, size_t bytes, const char *from)
{
    size_t length = from == NULL || from[0] == '\0' ? 0 : strnlen(from, bytes - 1);

    if (length > 0)
        memcpy(to, from, length);
    to[length] = '\0';
}

bool core_id_equal(const struct core_id *a, const struct core_id *b)
{
    uint8_t difference = 0;

    for (uint32_t i = 0; i < CORE_ID_BYTES; i++)
        difference = (uint8_t)(difference | (a->byte[i] ^ b->byte[i]));
    return difference == 0;
}

bool core_id_zero(const struct core_id *id)
{
    static const struct core_id zero;

    return core_id_equal(id, &zero);
}

void member_text(const struct member *m, char *text, size_t bytes)
{
    if (m->kind == CORE_PARTICIPANT)
        (void)snprintf(text, bytes, "participant %u on %s (pid %u)", m->rank_hint - 1, m->node,
                       m->pid);
    else if (m->rank == NOBODY)
        (void)snprintf(text, bytes, "a %s on %s (%s, pid %u)", m->leaving ? "leaver" : "spare",
                       m->node, m->host, m->pid);
    else
        (void)snprintf(text, bytes, "rank %u on %s (%s, pid %u)", m->rank, m->node, m->host,
                       m->pid);
}

const char *core_member_name(struct core *core, const struct member *m)
{
    char text[CORE_SENTENCE_BYTES];

    member_text(m, text, sizeof text);
    return core_say(core, "%s", text);
}

void job_reason(struct core *core, struct job *job, enum core_level level, const char *text)
{
    core_copy_text(job->reason, sizeof job->reason, text);
    core_log(core, level, job, text);
}

void job_set_state(struct core *core, struct job *job, enum core_job_state state)
{
    if (job->state == state)
        return;
    job->state = state;
    job->changed_us = core->now_us;
    job->waiting_due = true;
}
