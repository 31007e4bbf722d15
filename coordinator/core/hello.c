/* Who may come in: HELLO, its refusals, re-attachment, and adoption of a generation that the store
 * does not know. Every refusal is a sentence with both values. */
#include "core/internal.h"

#include <stdio.h>

static void refuse(struct core *core, core_conn conn, const struct job *job, enum core_refusal why,
                   const char *text)
{
    static const uint32_t codes[] = {
#define CORE_REFUSAL_CODE(name, number, code) [number] = (code),
        CORE_REFUSALS(CORE_REFUSAL_CODE)
#undef CORE_REFUSAL_CODE
    };
    struct core_message *message = core_send(core, conn, CORE_REFUSED, job);

    message->refused.why = why;
    message->refused.exit_code = codes[why];
    message->refused.text = text;
    core_act(core, CORE_ACTION_CLOSE)->conns = &core->conns[core->conns_used - 1];
    core->actions->list[core->actions->count - 1].conn_count = 1;
    core_log(core, why == CORE_REFUSAL_DONE ? CORE_INFO : CORE_WARNING, job,
             core_say(core, "refused: %s", text));
}

/* First line in which two "key=value\n" texts differ; copies both lines. */
static void first_difference(const char *ours, const char *theirs, char *a, char *b, size_t bytes)
{
    const char *x = ours, *y = theirs, *line_x = ours, *line_y = theirs;

    while (*x != '\0' && *x == *y) {
        if (*x == '\n') {
            line_x = x + 1;
            line_y = y + 1;
        }
        x++;
        y++;
    }
    (void)snprintf(a, bytes, "%.*s", (int)strcspn(line_x, "\n"), line_x);
    (void)snprintf(b, bytes, "%.*s", (int)strcspn(line_y, "\n"), line_y);
}

/* The spec must be the job's, whether it is done or not. */
static bool check_spec(struct core *core, core_conn conn, const struct job *job,
                       const struct core_hello *hello)
{
    char ours[160], theirs[160];

    if (strcmp(job->spec, hello->spec) == 0)
        return true;
    first_difference(job->spec, hello->spec, ours, theirs, sizeof ours);
    refuse(core, conn, job, CORE_REFUSAL_SPEC,
           core_say(core, "the spec differs: job '%s'%s has %s, this worker has %s; it defines the "
                          "bits, so %s",
                    job->name, job->state == CORE_JOB_DONE ? ", which is done," : "",
                    ours[0] ? ours : "nothing more", theirs[0] ? theirs : "nothing more",
                    job->state == CORE_JOB_DONE ? "it is another job: choose another --job"
                                                : "it must be equal on all"));
    return false;
}

/* Spec and fingerprint must be the job's. */
static bool check_same(struct core *core, core_conn conn, struct job *job,
                       const struct core_hello *hello)
{
    char ours[160], theirs[160];

    if (!check_spec(core, conn, job, hello))
        return false;
    if (strcmp(job->fingerprint, hello->fingerprint) != 0) {
        first_difference(job->fingerprint, hello->fingerprint, ours, theirs, sizeof ours);
        refuse(core, conn, job, CORE_REFUSAL_FINGERPRINT,
               core_say(core, "the fingerprint differs: job '%s' has %s, this worker has %s; other "
                              "kernels give other bits", job->name,
                        ours[0] ? ours : "nothing more", theirs[0] ? theirs : "nothing more"));
        return false;
    }
    return true;
}

static void take_identity(struct member *m, const struct core_hello *hello)
{
    m->secret = hello->secret;
    m->kind = hello->kind;
    m->pid = hello->pid;
    m->rank_hint = hello->rank_hint;
    m->asked_min = hello->min;
    m->asked_max = hello->max;
    core_copy_text(m->node, sizeof m->node, hello->node);
    core_copy_text(m->host, sizeof m->host, hello->host);
    core_copy_text(m->address, sizeof m->address, hello->data_address);
}

static void welcome(struct core *core, struct member *m, struct job *job,
                    const struct core_hello *hello, bool attached)
{
    struct core_message *message;
    struct core_action *admit = core_act(core, CORE_ACTION_ADMIT);
    const char *note = "";

    admit->conns = &core->conns[core->conns_used];
    admit->conn_count = 1;
    core_list_add(core, m->conn);
    if (hello->kind == CORE_WORKER && hello->min != 0 &&
        (hello->min != job->min || hello->max != job->max))
        note = core_say(core, "the first worker's --min %u --max %u stand (asked: %u, %u)",
                        job->min, job->max, hello->min, hello->max);
    message = core_send(core, m->conn, CORE_WELCOME, job);
    message->welcome.version = 1;
    message->welcome.job_uid = job->uid;
    message->welcome.beat_ms = core->times.beat_ms;
    message->welcome.lease_ms = core->times.beat_ms * core->times.lost_beats;
    message->welcome.min = job->min;
    message->welcome.max = job->max;
    message->welcome.note = note;
    message->welcome.attached = attached;
}

/* ---- a job nobody knows --------------------------------------------------------------------- */

static struct job *job_begin(struct core *core, core_conn conn, const struct core_hello *hello)
{
    struct job *job = job_new(core, hello->job);

    if (job == NULL) {
        refuse(core, conn, NULL, CORE_REFUSAL_FULL,
               core_say(core,
                        "this coordinator already holds %u jobs, done ones included: raise its "
                        "--jobs-max, or use another",
                        core->limits.jobs));
        return NULL;
    }
    job->uid = core_id_zero(&hello->job_uid) ? core_random_id(core) : hello->job_uid;
    return job;
}

/* The first worker's word stands. */
static void take_terms(struct job *job, const struct core_hello *hello)
{
    if (job->max != 0)
        return;
    job->min = hello->min == 0 ? 1 : hello->min;
    job->max = hello->max < job->min ? job->min : hello->max;
    core_copy_text(job->spec, sizeof job->spec, hello->spec);
    core_copy_text(job->fingerprint, sizeof job->fingerprint, hello->fingerprint);
}

/* Does the coordinator hear anybody of the generation it knows? Then it needs nobody's word for
 * it. */
static bool generation_connected(const struct core *core, const struct job *job)
{
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if ((m->in_generation || m->in_plan) && m->conn != 0)
            return true;
    return false;
}

/* A roster that can be that of a generation: ranks 0 .. count - 1 once each, the sender among them,
 * nobody of another job, and room for all. NULL, or what is wrong with it. */
static const char *roster_fault(struct core *core, const struct job *job,
                                const struct core_hello *hello)
{
    uint8_t ranks[CORE_WORLD_MAX / 8] = {0};
    uint32_t unknown = 0;
    bool sender = false;

    if (hello->roster_count > CORE_WORLD_MAX)
        return "more members than a generation can have";
    for (uint32_t i = 0; i < hello->roster_count; i++) {
        const struct core_roster_member *told = &hello->roster[i];
        const struct member *known = member_by_id(core, &told->id);

        if (told->rank >= hello->roster_count || (ranks[told->rank / 8] >> told->rank % 8 & 1) != 0)
            return "ranks are not 0 to the size of the list, once each";
        ranks[told->rank / 8] = (uint8_t)(ranks[told->rank / 8] | 1u << told->rank % 8);
        if (core_id_zero(&told->id) || (known != NULL && known->job != job_index(core, job)))
            return "a member of it is of another job";
        for (uint32_t j = 0; j < i; j++)
            if (memcmp(told->id.byte, hello->roster[j].id.byte, CORE_ID_BYTES) == 0)
                return "a member is in it twice";
        sender |= core_id_equal(&told->id, &hello->member_id);
        unknown += known == NULL;
    }
    if (unknown > core->limits.members - core->members_used)
        return "more members than this coordinator has room for (--members-max)";
    return sender ? NULL : "the sender is not in it";
}

/* A member of a running generation that the store does not know, or knows an older one of: its word
 * is taken, with fresh leases for the others of its roster. */
static void adopt(struct core *core, struct job *job, const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;

    for (struct member *m = member_first(core, job), *next; m != NULL; m = next) {
        next = member_next(core, m);
        if (m->kind == CORE_WORKER && m->conn == 0)
            member_free(core, m);
        else if (m->kind == CORE_WORKER)
            m->in_generation = m->in_plan = false;
    }
    job->number = message->generation;
    if (job->number_max < job->number)
        job->number_max = job->number;
    job->nonce = message->nonce;
    job->world = hello->roster_count;
    job->step = message->step;
    job->key_known = false;
    job->plan_number = 0;
    job->all_entered = true;
    for (uint32_t i = 0; i < hello->roster_count; i++) {
        const struct core_roster_member *told = &hello->roster[i];
        struct member *m = member_by_id(core, &told->id);

        if (m == NULL)
            m = member_new(core, job, &told->id);
        if (m == NULL || m->job != job_index(core, job))
            continue;
        m->kind = CORE_WORKER;
        m->state = MEMBER_RUNNING;
        m->in_generation = true;
        m->rank = told->rank;
        m->entered = job->number;
        m->weight =
            told->weight - 1 < CORE_WEIGHT_USUAL ? told->weight : CORE_WEIGHT_USUAL; /* 0: usual */
        m->pid = told->pid;
        core_copy_text(m->node, sizeof m->node, told->node);
        core_copy_text(m->host, sizeof m->host, told->host);
        core_copy_text(m->address, sizeof m->address, told->data_address);
    }
    job_set_state(core, job, CORE_JOB_RUNNING);
    job_reason(core, job, CORE_WARNING,
               core_say(core, "generation %llu was taken over from its members: the store did not "
                              "know it", (unsigned long long)job->number));
    generation_keep(core, job);
}

/* ---- participants --------------------------------------------------------------------------- */

static bool join_group(struct core *core, core_conn conn, struct job *job,
                       const struct core_hello *hello)
{
    if (hello->group_size == 0 || hello->rank_hint == 0 || hello->rank_hint > hello->group_size) {
        refuse(core, conn, job, CORE_REFUSAL_GROUP,
               core_say(core,
                        "participant %u of %u: expected an index from 0 below the size of the "
                        "group",
                        hello->rank_hint - 1, hello->group_size));
        return false;
    }
    if (job->group_here == job->group_left)
        job->group_size = job->group_here = job->group_left = 0;
    if (job->group_size != 0 && job->group_size != hello->group_size) {
        refuse(core, conn, job, CORE_REFUSAL_GROUP,
               core_say(core, "the group of job '%s' has %u participants, this one says %u",
                        job->name, job->group_size, hello->group_size));
        return false;
    }
    /* Every participant of a job has its index only once; O(group) for small groups, skipped for
     * large. */
    if (hello->group_size <= 256)
        for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
            if (m->kind == CORE_PARTICIPANT && m->rank_hint == hello->rank_hint) {
                refuse(core, conn, job, CORE_REFUSAL_IDENTITY,
                       core_say(core, "participant %u of job '%s' is already there (%s)",
                                hello->rank_hint - 1, job->name, core_member_name(core, m)));
                return false;
            }
    job->group_size = hello->group_size;
    return true;
}

/* ---- joining and coming back ---------------------------------------------------------------- */

/* A spare that was here before the coordinator's restart: it knows who trains, and the key. (A
 * checkpoint tells a generation's number, but not its nonce.) */
static bool has_view(const struct job *job, const struct core_message *message)
{
    return message->generation == job->number && message->nonce == job->nonce;
}

/* The newest generation that it knows. */
static void take_number(struct job *job, uint64_t number)
{
    if (number > job->told_number)
        job->told_number = number;
    if (number > job->number_max)
        job->number_max = number;
}

static void join(struct core *core, core_conn conn, struct job *job,
                 const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;
    struct member *m;

    if (hello->kind == CORE_PARTICIPANT && !join_group(core, conn, job, hello))
        return;
    m = member_new(core, job, &hello->member_id);
    if (m == NULL) {
        refuse(core, conn, job, CORE_REFUSAL_FULL,
               core_say(core, "this coordinator already holds %u members: raise its --members-max",
                        core->limits.members));
        return;
    }
    take_identity(m, hello);
    m->applied = hello->applied;
    member_set_conn(core, m, conn);
    welcome(core, m, job, hello, false);
    if (hello->kind == CORE_PARTICIPANT) {
        if (job->group_left > 0)
            job->group_left--;
        else
            job->group_here++;
        return;
    }
    take_number(job, message->generation);
    job->arrived_us = core->now_us;
    job->waiting_due = true;
    if (job->state == CORE_JOB_RUNNING && !has_view(job, message))
        generation_view(core, job, m);
}

/* The generation was stored, but the coordinator died before it told this member of it. Nobody can
 * train in it without this member, so it is over; a member that never was in any has nothing to
 * report. */
static void never_told(struct core *core, struct job *job, struct member *m,
                       const struct core_hello *hello)
{
    if (hello->attach == CORE_ATTACH_JOIN) {
        m->state = MEMBER_FROZEN;
        m->applied = hello->applied;
        m->owned_bytes = 0;
    }
    generation_over(core, job,
                    core_say(core, "generation %llu was stored, but %s was never told",
                             (unsigned long long)job->number, core_member_name(core, m)), 0);
}

/* A member holds a plan, or is in a generation, that the store has lost. It cannot be told from
 * here when it is entered, so it is over, with the generation: everybody freezes and a newer one is
 * formed. */
static bool never_heard_of(struct core *core, struct job *job, const struct core_message *message)
{
    uint64_t known = job->plan_number > job->number ? job->plan_number : job->number;
    uint64_t newest =
        message->hello.plan > message->generation ? message->hello.plan : message->generation;

    if (newest <= known)
        return false;
    generation_over(core, job,
                    core_say(core, "generation %llu is not known here: the store is older than its "
                                   "members", (unsigned long long)newest), 0);
    return true;
}

/* A plan is issued, and it is one of those who must know of it. */
static bool missed_plan(const struct job *job, const struct member *m,
                        const struct core_message *message)
{
    return (m->in_generation || m->in_plan) && message->generation < job->plan_number &&
           message->hello.plan < job->plan_number;
}

/* One lives who was believed to be gone: that is known after a restart too. */
static void not_deserted(struct core *core, struct job *job)
{
    if (job->deserted_number == 0 || job->deserted_number != job->number)
        return;
    job->deserted_number = 0;
    if (job->pending == PENDING_NONE || job->pending == PENDING_KEEP)
        generation_keep(core, job);
}

/* The connection of a known member is made anew. */
static void attach(struct core *core, core_conn conn, struct job *job, struct member *m,
                   const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;
    bool attached = m->state == MEMBER_RUNNING || m->state == MEMBER_FROZEN;

    if (m->conn != 0) {
        struct core_action *close = core_act(core, CORE_ACTION_CLOSE);

        close->conns = &core->conns[core->conns_used];
        close->conn_count = 1;
        core_list_add(core, m->conn);
    }
    take_identity(m, hello);
    if (m->state == MEMBER_LOST) {
        m->state = MEMBER_RUNNING;
        m->gone = m->left = false;
        not_deserted(core, job);
    }
    m->seen_us = core->now_us;
    m->suspect = false;
    member_set_conn(core, m, conn);
    welcome(core, m, job, hello, attached);
    take_number(job, message->generation);
    if (hello->plan > job->number_max)
        job->number_max = hello->plan;
    if (m->kind != CORE_WORKER)
        return;
    barrier_take_passed(core, job, message);
    if (m->state == MEMBER_RUNNING && job->state != CORE_JOB_RUNNING) {
        struct core_message *over = core_send(core, conn, CORE_OVER, job);

        over->generation = job->plan_number != 0 ? job->plan_number : job->number;
        over->nonce = job->plan_number != 0 ? job->plan_nonce : job->nonce;
        over->over.reason = job->reason;
        m->report_us = core->now_us;
    } else if (m->state == MEMBER_RUNNING && m->in_generation &&
               message->generation < job->number) {
        never_told(core, job, m, hello);
    } else if (m->state == MEMBER_RUNNING && never_heard_of(core, job, message)) {
        return;
    } else if (m->state == MEMBER_RUNNING && missed_plan(job, m, message)) {
        generation_plan_again(core, job, m);
    } else if (m->state == MEMBER_WAITING && job->state == CORE_JOB_RUNNING &&
               !has_view(job, message)) {
        generation_view(core, job, m);
    }
}

/* What can be said of a HELLO without its job: the version, and numbers within their bounds. */
static bool well_formed(struct core *core, core_conn conn, const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;

    if (hello->version_min > 1 || hello->version_max < 1) {
        refuse(core, conn, NULL, CORE_REFUSAL_VERSION,
               core_say(core, "this coordinator speaks protocol version 1, the member %u to %u",
                        hello->version_min, hello->version_max));
        return false;
    }
    if (hello->min > CORE_WORLD_MAX || hello->max > CORE_WORLD_MAX) {
        refuse(core, conn, NULL, CORE_REFUSAL_PROTOCOL,
               core_say(core, "min %u, max %u: a generation has at most %u members", hello->min,
                        hello->max, CORE_WORLD_MAX));
        return false;
    }
    if (message->generation > CORE_NUMBER_MAX || hello->plan > CORE_NUMBER_MAX ||
        message->step > CORE_NUMBER_MAX || hello->applied > CORE_NUMBER_MAX) {
        refuse(core, conn, NULL, CORE_REFUSAL_PROTOCOL,
               core_say(core, "generation %llu, plan %llu, step %llu: no job comes that far",
                        (unsigned long long)message->generation, (unsigned long long)hello->plan,
                        (unsigned long long)hello->applied));
        return false;
    }
    return true;
}

/* The generation that it brings is newer than what is known here, and nobody of that is heard. */
static bool brings_newer(const struct core *core, const struct job *job,
                         const struct core_message *message)
{
    return message->hello.attach != CORE_ATTACH_JOIN && message->generation > job->number &&
           message->generation != job->plan_number && message->hello.roster_count > 0 &&
           !generation_connected(core, job);
}

/* The job of a HELLO, ready to be joined; NULL when it was refused. */
static struct job *job_of(struct core *core, core_conn conn, const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;
    struct job *job = job_find(core, hello->job);

    if (job == NULL)
        job = job_begin(core, conn, hello);
    if (job == NULL)
        return NULL;
    if (job->state == CORE_JOB_DONE && hello->kind == CORE_WORKER) {
        if (check_spec(core, conn, job, hello))
            refuse(core, conn, job, CORE_REFUSAL_DONE,
                   core_say(core, "job '%s' is done", job->name));
        return NULL;
    }
    if (job->state == CORE_JOB_FAILED && hello->kind == CORE_WORKER) {
        refuse(core, conn, job, CORE_REFUSAL_FAILED,
               core_say(core, "job '%s' has failed: %s", job->name, job->reason));
        return NULL;
    }
    if (hello->kind == CORE_WORKER)
        take_terms(job, hello);
    if (hello->kind == CORE_WORKER && !check_same(core, conn, job, hello))
        return NULL;
    return job;
}

void on_hello(struct core *core, core_conn conn, const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;
    struct member *m = member_by_id(core, &hello->member_id);
    struct job *job;
    const char *fault;

    if (member_by_conn(core, conn) != NULL || !well_formed(core, conn, message))
        return;
    job = job_of(core, conn, message);
    if (job == NULL)
        return;
    if (m != NULL && m->job != job_index(core, job)) {
        refuse(core, conn, job, CORE_REFUSAL_IDENTITY,
               core_say(core, "this identity belongs to another job"));
        return;
    }
    if (brings_newer(core, job, message)) {
        fault = roster_fault(core, job, hello);
        if (fault != NULL) {
            refuse(core, conn, job, CORE_REFUSAL_PROTOCOL,
                   core_say(core, "its list of generation %llu is not one: %s",
                            (unsigned long long)message->generation, fault));
            return;
        }
        adopt(core, job, message);
        m = member_by_id(core, &hello->member_id);
    }
    if (m == NULL && hello->attach != CORE_ATTACH_JOIN && message->generation != 0) {
        refuse(core, conn, job, CORE_REFUSAL_EVICTED,
               core_say(core, "generation %llu is over and this member was declared lost; job '%s' "
                              "is at generation %llu: join again as a new member",
                        (unsigned long long)message->generation, job->name,
                        (unsigned long long)job->number));
        return;
    }
    if (m != NULL && core_id_zero(&m->secret))
        m->secret = hello->secret;
    if (m != NULL && !core_id_equal(&m->secret, &hello->secret)) {
        refuse(core, conn, job, CORE_REFUSAL_IDENTITY,
               core_say(core, "this identity is held by %s", core_member_name(core, m)));
        return;
    }
    if (m != NULL)
        attach(core, conn, job, m, message);
    else
        join(core, conn, job, message);
    job_try(core, job);
}
