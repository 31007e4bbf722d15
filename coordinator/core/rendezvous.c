/* When a generation is formed, with whom, and at which ranks.
 *
 * The rule of one world: a generation that may still run (the last one, and a plan that was issued)
 * must be fenced before another is formed. A frozen member fences it, since no step of it ends
 * without that member's sums; so does the proof that nobody of it lives. Without either the job is
 * paused. */
#include "core/internal.h"

#include <stdio.h>
#include <stdlib.h>

/* What the members of a job look like, in one pass. */
struct census {
    uint32_t survivors;       /* frozen, connected */
    uint32_t owing;           /* running: their report is awaited */
    uint32_t waiting;         /* workers that joined and are connected */
    uint32_t in_step;         /* of them spares that stand at the survivors' step */
    uint32_t missing;         /* lost and not proven to be gone */
    bool generation_frozen, plan_frozen;
    bool generation_missing, plan_missing;
    uint64_t survivors_step, waiting_step;
    uint64_t released_step;   /* of those who may go and have not gone yet */
    uint64_t missing_step;    /* newest step that one who is missing is known to have reached */
};

static void count_member(struct census *c, const struct job *job, const struct member *m)
{
    switch (m->state) {
    case MEMBER_FROZEN:
        c->survivors += !m->released; /* who may go fences, but does not train again */
        c->generation_frozen |= m->in_generation;
        c->plan_frozen |= m->in_plan;
        if (m->applied > c->survivors_step)
            c->survivors_step = m->applied;
        if (m->released && m->applied > c->released_step)
            c->released_step = m->applied;
        break;
    case MEMBER_RUNNING:
        c->owing++;
        break;
    case MEMBER_LOST:
        if (m->gone)
            break;
        c->missing++;
        if (m->step > c->missing_step)
            c->missing_step = m->step;
        if (m->applied > c->missing_step)
            c->missing_step = m->applied;
        if (m->in_generation && job->step > c->missing_step)
            c->missing_step = job->step; /* somebody had it when the generation began */
        c->generation_missing |= m->in_generation;
        c->plan_missing |= m->in_plan;
        break;
    case MEMBER_WAITING:
        if (m->conn == 0 || m->leaving)
            break;
        c->waiting++;
        if (m->applied > c->waiting_step)
            c->waiting_step = m->applied;
        break;
    case MEMBER_FREE:
    default:
        assert(0);
    }
}

static void take_census(const struct core *core, const struct job *job, struct census *c)
{
    memset(c, 0, sizeof *c);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER)
            count_member(c, job, m);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->state == MEMBER_WAITING && m->conn != 0 && m->ready &&
            !m->leaving && m->applied == c->survivors_step)
            c->in_step++;
}

/* A frozen member fences its generation, but one that had not yet got the state does not stand for
 * the others: while somebody may live who is more than a step ahead, nobody goes back below him. */
static bool fenced(const struct job *job, const struct census *c)
{
    if (c->missing_step > c->survivors_step + 1 && c->missing_step > c->waiting_step + 1)
        return false;
    if (c->generation_missing && !c->generation_frozen)
        return false;
    return job->plan_number == 0 || !c->plan_missing || c->plan_frozen;
}

static bool quiet(const struct core *core, const struct job *job, uint64_t since_us, uint32_t ms)
{
    (void)job;
    return core->now_us >= since_us + (uint64_t)ms * 1000;
}

/* A checkpoint proves that somebody trained whom this store, which is empty or old, does not know:
 * their re-attachment is waited for. */
static bool recalls(const struct core *core, const struct job *job, const struct census *c)
{
    return c->survivors == 0 && (job->number == 0 || job->told_number > job->number) &&
           c->waiting_step > 0 && !quiet(core, job, job->first_us, core->times.reconnect_ms);
}

/* The decision: world size to form with now, 0 = not yet. *step: updates applied when it begins. */
static uint32_t decide(const struct core *core, const struct job *job, const struct census *c,
                       uint64_t *step)
{
    uint32_t all = c->survivors + c->waiting;

    *step = c->survivors_step > c->waiting_step || c->waiting == 0 ? c->survivors_step
                                                                   : c->waiting_step;
    if (c->owing > 0 || !fenced(job, c))
        return 0;
    if (c->survivors >= job->min && c->survivors_step == *step) {
        all = c->survivors + c->in_step;
        return all < job->max ? all : job->max;
    }
    if (all < job->min)
        return 0;
    /* Nobody starts again below a member that lives, even if it is on its way out. */
    if (c->survivors == 0 && c->released_step > c->waiting_step)
        return 0;
    if (recalls(core, job, c))
        return 0;
    if (all >= job->max)
        return job->max;
    return quiet(core, job, job->arrived_us, core->times.quiet_ms) ? all : 0;
}

/* ---- choosing members ----------------------------------------------------------------------- */

/* Natural order: runs of digits compare as numbers, so node2 < node10. */
static int natural(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
            char *end_a, *end_b;
            unsigned long long x = strtoull(a, &end_a, 10), y = strtoull(b, &end_b, 10);

            if (x != y)
                return x < y ? -1 : 1;
            a = end_a;
            b = end_b;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++;
            b++;
        }
    }
    return (*a != '\0') - (*b != '\0');
}

/* Is x before y among the newcomers? Wished rank, node, order of joining. */
static bool before(const struct member *x, const struct member *y)
{
    uint32_t hint_x = x->rank_hint != 0 ? x->rank_hint : NOBODY;
    uint32_t hint_y = y->rank_hint != 0 ? y->rank_hint : NOBODY;
    int order;

    if (hint_x != hint_y)
        return hint_x < hint_y;
    order = natural(x->node, y->node);
    return order != 0 ? order < 0 : x->order < y->order;
}

/* The first unranked newcomer, one of `node` if there is any. */
static struct member *next_newcomer(const struct core *core, const struct job *job,
                                    const char *node)
{
    struct member *best = NULL, *best_here = NULL;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (!m->chosen || m->rank_new != NOBODY)
            continue;
        if (best == NULL || before(m, best))
            best = m;
        if (node != NULL && strcmp(m->node, node) == 0 &&
            (best_here == NULL || before(m, best_here)))
            best_here = m;
    }
    return best_here != NULL ? best_here : best;
}

/* Ranks for the chosen: who had one below the new world keeps it, the holes are filled so that a
 * node's ranks lie side by side where possible. */
void job_rank(struct core *core, struct job *job, uint32_t world)
{
    struct member *at[CORE_WORLD_MAX] = {NULL};

    assert(world <= CORE_WORLD_MAX);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        bool keeps = m->chosen && (m->in_generation || m->in_plan) && m->rank < world &&
                     at[m->rank] == NULL;

        m->rank_new = keeps ? m->rank : NOBODY;
        if (keeps)
            at[m->rank] = m;
    }
    for (uint32_t rank = 0; rank < world; rank++) {
        if (at[rank] != NULL)
            continue;
        at[rank] = next_newcomer(core, job, rank > 0 ? at[rank - 1]->node : NULL);
        assert(at[rank] != NULL);
        at[rank]->rank_new = rank;
    }
}

/* Can it be chosen at all, and does it have the state that the generation begins with? */
static bool fits(const struct member *m)
{
    if (m->kind != CORE_WORKER || m->conn == 0 || m->chosen)
        return false;
    return m->state == MEMBER_FROZEN ? !m->released : m->state == MEMBER_WAITING && !m->leaving;
}

/* Somebody who has the state first, then survivors, then spares in step, then whoever stands at the
 * step, then the others, in the order of their joining. */
static bool fits_round(const struct member *m, int round, uint64_t step)
{
    switch (round) {
    case 0:
        return m->applied == step;
    case 1:
        return m->state == MEMBER_FROZEN;
    case 2:
        return m->applied == step && m->ready;
    case 3:
        return m->applied == step;
    default:
        return true;
    }
}

static uint32_t choose(struct core *core, struct job *job, uint32_t world, uint64_t step)
{
    uint32_t chosen = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        m->chosen = false;
    for (int round = 0; round < 5; round++)
        for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
            if (chosen < (round == 0 ? 1 : world) && fits(m) && fits_round(m, round, step)) {
                m->chosen = true;
                chosen++;
            }
    return chosen;
}

/* ---- plans ---------------------------------------------------------------------------------- */

/* A spare that still catches up can take over from those who leave: a pause is put off while they
 * have time. */
static bool relief_comes(const struct core *core, const struct job *job)
{
    uint64_t reserve_us = (uint64_t)core->times.report_ms * 1000;
    bool comes = false, late = false;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        comes |= m->kind == CORE_WORKER && m->state == MEMBER_WAITING && m->conn != 0 &&
                 !m->ready && !m->leaving;
        late |= m->leaving && m->leave_us != 0 && core->now_us + reserve_us > m->leave_us;
    }
    return comes && !late;
}

/* The same members, other shares of the shards. */
static void plan_shares(struct core *core, struct job *job)
{
    bool by_speed = false;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        m->chosen = m->in_generation;
        by_speed |= m->in_generation && straggler_weight(core, m) != CORE_WEIGHT_USUAL;
    }
    job->balanced_us = core->now_us;
    core_log(core, CORE_INFO, job,
             by_speed ? "the shards are spread anew, by speed"
                      : "the shards are spread anew, evenly");
    generation_plan(core, job, job->world, false);
}

/* Joins and leaves that can be taken at the next boundary, all together. */
static void try_plan(struct core *core, struct job *job)
{
    uint32_t stay = 0, leave = 0, joiners = 0;
    bool pause, any_ready = false;

    if (job->plan_number != 0 || job->pending != PENDING_NONE || !job->all_entered)
        return;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        m->chosen = false;
        if (m->in_generation && m->finished)
            return;
        stay += m->in_generation && !m->leaving;
        leave += m->in_generation && m->leaving;
        any_ready |= m->ready;
    }
    for (struct member *m = any_ready ? member_first(core, job) : NULL; m != NULL;
         m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->state == MEMBER_WAITING && m->conn != 0 && m->ready &&
            !m->leaving && stay + joiners < job->max &&
            (stay < job->min || !cooling_holds(core, job, m))) {
            m->chosen = true;
            joiners++;
        }
    if (leave == 0 && joiners == 0) {
        if (balance_due(core, job))
            plan_shares(core, job);
        return;
    }
    pause = stay + joiners < job->min;
    if (pause && relief_comes(core, job))
        return;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->in_generation)
            m->chosen = !m->leaving || (pause && stay == 0); /* somebody must save the last step */
        else if (pause)
            m->chosen = false;
    }
    generation_plan(core, job, pause ? (stay > 0 ? stay : leave) : stay + joiners, pause);
}

/* ---- probes and words of waiting ------------------------------------------------------------ */

/* A worker that is here listens at its address, on its host: who did so before is gone. */
static bool replaced(const struct core *core, const struct member *m)
{
    for (struct member *o = member_first(core, &core->jobs[m->job]); o != NULL;
         o = member_next(core, o))
        if (o != m && o->kind == CORE_WORKER && o->conn != 0 && strcmp(o->host, m->host) == 0 &&
            strcmp(o->address, m->address) == 0)
            return true;
    return false;
}

/* Proven: its process does not live any more. */
void member_gone(struct core *core, struct member *m, const char *why)
{
    struct job *job = &core->jobs[m->job];

    if (m->state == MEMBER_RUNNING)
        member_lost(core, m, "it has not come back, and its process is gone",
                    core->now_us - m->seen_us);
    if (m->state != MEMBER_LOST)
        return;
    m->gone = true;
    core_log(core, CORE_INFO, job,
             core_say(core, "%s is gone: %s %s", core_member_name(core, m), why, m->address));
    job->waiting_due = true;
}

/* Asks whether anybody listens at the member's address; not all the time. */
void member_probe(struct core *core, struct member *m)
{
    struct core_action *action;

    if (m->address[0] != '\0' && replaced(core, m)) {
        member_gone(core, m, "another listens at");
        return;
    }

    if (m->address[0] == '\0' || core->actions->count + 8 > CORE_ACTIONS_MAX ||
        core->now_us < m->probe_us + (uint64_t)core->times.probe_ms * 1000)
        return;
    m->probe_us = core->now_us;
    action = core_act(core, CORE_ACTION_PROBE);
    action->probe = (uint64_t)m->order << 32 | member_index(core, m);
    action->text = m->address;
}

static void probe_missing(struct core *core, struct job *job)
{
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->state == MEMBER_LOST && !m->gone)
            member_probe(core, m);
}

static void waiting_text(const struct core *core, const struct job *job, const struct census *c,
                         char *text, size_t bytes)
{
    uint32_t have = c->survivors + c->waiting;
    char lost[200] = "";
    size_t used = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->state == MEMBER_LOST && !m->gone && used < sizeof lost - 1) {
            int n = snprintf(lost + used, sizeof lost - used, "%srank %u on %s",
                             used == 0 ? "; missing and perhaps alive: " : ", ", m->rank, m->node);

            used += n > 0 ? (size_t)n : 0;
        }
    if (c->owing > 0)
        (void)snprintf(text, bytes, "waiting for the reports of %u", c->owing);
    else if (!fenced(job, c) && c->generation_frozen)
        (void)snprintf(text, bytes,
                       "nobody who has the state of generation %llu is here%s (muster forget, if "
                       "it is gone)", (unsigned long long)job->number, lost);
    else if (!fenced(job, c))
        (void)snprintf(text, bytes,
                       "nobody of generation %llu is here%s (muster forget, if it is gone)",
                       (unsigned long long)job->number, lost);
    else if (have < job->min)
        (void)snprintf(text, bytes, "waiting for %u more (%u of min %u)%s", job->min - have, have,
                       job->min, lost);
    else if (recalls(core, job, c))
        (void)snprintf(text, bytes,
                       "%u are here, and know of step %llu: who trained it has %u ms to come back",
                       have, (unsigned long long)c->waiting_step, core->times.reconnect_ms);
    else
        (void)snprintf(text, bytes,
                       "%u of max %u are here: starting when nobody has come for %u ms", have,
                       job->max, core->times.quiet_ms);
}

static bool waits(const struct job *job)
{
    return job->state == CORE_JOB_FORMING || job->state == CORE_JOB_REGROUPING ||
           job->state == CORE_JOB_PAUSED;
}

/* Participants at their barriers. */
static void group_waits_for(const struct job *job, char *text, size_t bytes)
{
    uint32_t come = job->group_here - job->group_left;

    if (job->group_left > 0)
        (void)snprintf(text, bytes, "%u of %u participants are here, %u %s left", come,
                       job->group_size, job->group_left, job->group_left == 1 ? "has" : "have");
    else
        (void)snprintf(text, bytes, "%u of %u participants are here", come, job->group_size);
}

void job_waits_for(const struct core *core, const struct job *job, char *text, size_t bytes)
{
    struct census c;

    text[0] = '\0';
    if (job->max == 0 && job->waiting_participants > 0)
        group_waits_for(job, text, bytes);
    if (job->max == 0 || !waits(job))
        return;
    take_census(core, job, &c);
    waiting_text(core, job, &c, text, bytes);
}

void job_tell_waiting(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;
    char text[CORE_SENTENCE_BYTES];
    struct census c;

    if (!job->waiting_due || !waits(job) ||
        !quiet(core, job, job->waiting_us, core->times.waiting_ms))
        return;
    job->waiting_due = false;
    job->waiting_us = core->now_us;
    take_census(core, job, &c);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->conn != 0)
            core_list_add(core, m->conn);
    message = core_send_list(core, begin, CORE_WAITING, job);
    if (message == NULL)
        return;
    message->waiting.have = c.survivors + c.waiting;
    message->waiting.min = job->min;
    message->waiting.max = job->max;
    message->waiting.since_ms = (core->now_us - job->changed_us) / 1000;
    waiting_text(core, job, &c, text, sizeof text);
    message->waiting.text = core_say(core, "%s", text);
    message->waiting.paused = job->state == CORE_JOB_PAUSED;
    core_log(core, CORE_INFO, job, message->waiting.text);
}

/* ---- after every event ---------------------------------------------------------------------- */

/* Nobody of the job lives any more: the job goes on at any size, and the terms are those of the
 * first who came to resume it. */
static void take_new_terms(struct core *core, struct job *job, const struct census *c)
{
    if (c->survivors > 0 || c->owing > 0 || c->missing > 0 || job->number == 0)
        return;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->kind != CORE_WORKER || m->state != MEMBER_WAITING || m->conn == 0 ||
            m->asked_min == 0)
            continue;
        job->min = m->asked_min;
        job->max = m->asked_max < m->asked_min ? m->asked_min : m->asked_max;
        return;
    }
}

bool job_deserted(const struct core *core, const struct job *job)
{
    if (job->state != CORE_JOB_PAUSED)
        return false;
    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->state != MEMBER_WAITING && !m->gone)
            return false; /* a leaver that has not gone yet has the state too */
    return true;
}

static void try_form(struct core *core, struct job *job)
{
    struct census c;
    uint64_t step;
    uint32_t world;

    if (job->pending != PENDING_NONE)
        return;
    take_census(core, job, &c);
    take_new_terms(core, job, &c);
    world = decide(core, job, &c, &step);
    if (world > 0 && world <= CORE_WORLD_MAX) {
        choose(core, job, world, step);
        job_rank(core, job, world);
        generation_form(core, job, world, step);
        return;
    }
    if (job->state == CORE_JOB_REGROUPING && c.owing == 0 &&
        (!fenced(job, &c) || c.survivors < job->min)) {
        job_set_state(core, job, CORE_JOB_PAUSED);
        job->waiting_due = true;
    }
    if (job->state == CORE_JOB_PAUSED)
        generation_release_leavers(core, job);
    if (job_deserted(core, job) && job->deserted_number != job->number) {
        job->deserted_number = job->number;
        generation_keep(core, job);
    }
    if (!fenced(job, &c))
        probe_missing(core, job);
}

void job_try(struct core *core, struct job *job)
{
    if (job->retry_us != 0)
        return;
    switch (job->state) {
    case CORE_JOB_RUNNING:
        try_plan(core, job);
        break;
    case CORE_JOB_FORMING:
    case CORE_JOB_REGROUPING:
    case CORE_JOB_PAUSED:
        if (job->max > 0)
            try_form(core, job);
        break;
    case CORE_JOB_DONE:
    case CORE_JOB_FAILED:
        break;
    }
}
