/* Named barriers and deadlock.
 *
 * A barrier is released exactly once, when everybody of its group waits at it. A group is the
 * participants of a job (--of W of them) or the workers of its generation. Deadlock is decided, not
 * timed out: when everybody of the group that lives waits and no barrier can be met, all of them
 * are told who waits where and for whom: participants at once, workers at the next tick. Counting
 * is O(1) a member; only a decision walks the list. Barriers beside collectives: ledger.c.
 *
 * While a plan is being entered there are two groups. Who waits in the plan's waits until it is the
 * generation; who enters it waits in the older one no more. */
#include "core/internal.h"

#include <stdio.h>

struct barrier *barrier_at(const struct core *core, const struct job *job, uint32_t slot)
{
    return &core->barriers[(size_t)job_index(core, job) * core->limits.barriers + slot];
}

static uint32_t slot_of(struct core *core, struct job *job, enum core_kind kind, const char *name)
{
    uint32_t free_slot = NOBODY;

    for (uint32_t i = 0; i < core->limits.barriers; i++) {
        struct barrier *b = barrier_at(core, job, i);

        if (b->waiting > 0 && !b->releasing && b->kind == kind && strcmp(b->name, name) == 0)
            return i;
        if (b->waiting == 0 && free_slot == NOBODY)
            free_slot = i;
    }
    if (free_slot != NOBODY) {
        barrier_at(core, job, free_slot)->kind = kind;
        core_copy_text(barrier_at(core, job, free_slot)->name, CORE_NAME_BYTES, name);
    }
    return free_slot;
}

static const char generation_ended[] = "the generation ended: enter again";

static uint32_t *waiting_of(struct job *job, enum core_kind kind)
{
    return kind == CORE_PARTICIPANT ? &job->waiting_participants : &job->waiting_workers;
}

/* It waits no more, for whatever reason. */
void barrier_leave(struct core *core, struct member *m)
{
    struct job *job = &core->jobs[m->job];
    struct barrier *b;

    if (m->barrier == NOBODY)
        return;
    b = barrier_at(core, job, m->barrier);
    assert(b->waiting > 0);
    b->waiting--;
    b->releasing = b->releasing && b->waiting > 0;
    (*waiting_of(job, m->kind))--;
    m->barrier = NOBODY;
}

static void result(struct core *core, struct member *m, enum core_barrier_end end, const char *name,
                   const char *text)
{
    struct core_message *message = core_send(core, m->conn, CORE_BARRIER_RESULT,
                                             &core->jobs[m->job]);

    message->barrier_result.name = name;
    message->barrier_result.seq = m->barrier_seq;
    message->barrier_result.end = end;
    message->barrier_result.text = text;
}

/* One message to all who wait like the first of them, at the same barrier with the same sequence
 * number; false when nobody of the kind waits at the slot (NOBODY: at any). */
static bool end_alike(struct core *core, struct job *job, enum core_kind kind, uint32_t slot,
                      enum core_barrier_end end, const char *text)
{
    uint32_t begin = core_list_begin(core), at = NOBODY;
    struct core_message *message;
    uint64_t seq = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->kind != kind || m->barrier == NOBODY || (slot != NOBODY && m->barrier != slot) ||
            (at != NOBODY && (m->barrier != at || m->barrier_seq != seq)))
            continue;
        at = m->barrier;
        seq = m->barrier_seq;
        if (end == CORE_BARRIER_RELEASED)
            m->released_seq = seq;
        core_list_add(core, m->conn);
        barrier_leave(core, m);
    }
    message = core_send_list(core, begin, CORE_BARRIER_RESULT, job);
    if (message != NULL) {
        message->barrier_result.name = core_say(core, "%s", barrier_at(core, job, at)->name);
        message->barrier_result.seq = seq;
        message->barrier_result.end = end;
        message->barrier_result.text = text;
    }
    return at != NOBODY;
}

/* Ends the wait of everybody of the kind at the slot (NOBODY: at any). In a healthy group all count
 * alike, and it is one action; where there are too many different ones, a release goes on at the
 * next tick. */
static void end_wait(struct core *core, struct job *job, enum core_kind kind, uint32_t slot,
                     enum core_barrier_end end, const char *text)
{
    bool more = true;

    while (more && core->actions->count + 8 < CORE_ACTIONS_MAX)
        more = end_alike(core, job, kind, slot, end, text);
    if (end == CORE_BARRIER_RELEASED) {
        barrier_at(core, job, slot)->releasing = more && barrier_at(core, job, slot)->waiting > 0;
        if (kind == CORE_WORKER && job->verdict.at == 0)
            job->verdict.kind = CORE_VERDICT_NONE; /* they have found each other since */
    }
}

void barrier_tick(struct core *core, struct job *job)
{
    for (uint32_t i = 0; i < core->limits.barriers; i++)
        if (barrier_at(core, job, i)->releasing)
            end_wait(core, job, barrier_at(core, job, i)->kind, i, CORE_BARRIER_RELEASED, "");
}

static bool any_releasing(struct core *core, const struct job *job, enum core_kind kind)
{
    for (uint32_t i = 0; i < core->limits.barriers; i++)
        if (barrier_at(core, job, i)->releasing && barrier_at(core, job, i)->kind == kind)
            return true;
    return false;
}

void barrier_text(const struct core *core, const struct member *m, char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "'%s' #%llu%s%.64s%s",
                   barrier_at(core, &core->jobs[m->job], m->barrier)->name,
                   (unsigned long long)m->barrier_seq, m->place[0] != '\0' ? " (" : "",
                   short_place(m->place), m->place[0] != '\0' ? ")" : "");
}

/* "rank 0 on a (a.local, pid 4711) waits at barrier 'x' #1 (main.c:12) for 1.2 s; ..": one of each
 * barrier before the second of any, as many as there is room for. */
static void who_waits(struct core *core, struct job *job, enum core_kind kind, char *text,
                      size_t bytes)
{
    uint32_t told = 0, all = *waiting_of(job, kind);
    size_t used = 0, room = bytes - 20;
    char name[200], where[300];

    text[0] = '\0';
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        int n;

        if (m->kind != kind || m->barrier == NOBODY)
            continue;
        member_text(m, name, sizeof name);
        barrier_text(core, m, where, sizeof where);
        n = snprintf(text + used, room - used, "%s%s waits at barrier %s for %.1f s",
                     told > 0 ? "; " : "", name, where,
                     (double)(core->now_us - m->barrier_us) / 1e6);
        if (n < 0 || (size_t)n >= room - used)
            break;
        used += (size_t)n;
        told++;
    }
    text[used] = '\0';
    if (all > told)
        (void)snprintf(text + used, bytes - used, "; and %u more", all - told);
}

/* Size of the group, and how many of it will never come. */
static void group_of(const struct job *job, enum core_kind kind, uint32_t *size, uint32_t *here,
                     uint32_t *left)
{
    bool participants = kind == CORE_PARTICIPANT;

    *size = participants ? job->group_size : job->world;
    *here = participants ? job->group_here : job->world;
    *left = participants ? job->group_left : 0;
}

void barrier_end_waits(struct core *core, struct job *job, enum core_barrier_end end,
                       const char *text)
{
    if (job->waiting_workers > 0)
        end_wait(core, job, CORE_WORKER, NOBODY, end, text);
}

/* Nothing at all can be met: participants are told, workers judged as the operator wishes. */
static void give_up(struct core *core, struct job *job, enum core_kind kind,
                    enum core_barrier_end end, const char *text)
{
    struct verdict verdict = {.kind = end == CORE_BARRIER_FINISHED ? CORE_VERDICT_FINISHED
                                                                   : CORE_VERDICT_BARRIERS,
                              .end = end};

    if (kind == CORE_WORKER) {
        verdict_give(core, job, &verdict, text);
        return;
    }
    core_log(core, CORE_ERROR, job, text);
    end_wait(core, job, kind, NOBODY, end, text);
}

/* Those at the barrier where most wait stay, of two equal ones at that of the lowest rank; if some
 * have finished and they are not more than those who wait, it is they who go. */
static void choose_minority(const struct core *core, const struct job *job, uint32_t finished)
{
    const struct member *stays = NULL;

    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        uint32_t here, best;

        if (m->kind != CORE_WORKER || m->barrier == NOBODY)
            continue;
        here = barrier_at(core, job, m->barrier)->waiting;
        best = stays != NULL ? barrier_at(core, job, stays->barrier)->waiting : 0;
        if (here > best || (here == best && m->rank < stays->rank))
            stays = m;
    }
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        m->minority = finished == 0 ? stays != NULL && m->barrier != stays->barrier
                                    : m->finished == (finished <= job->waiting_workers);
}

/* "rank 1 on b (b.local, pid 4712) has finished after 10 steps; ": of those who have, the lowest
 * rank. */
static void who_finished(const struct core *core, const struct job *job, char *text, size_t bytes)
{
    const struct member *lowest = NULL;
    char name[200];

    text[0] = '\0';
    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation && m->finished && (lowest == NULL || m->rank < lowest->rank))
            lowest = m;
    if (lowest == NULL)
        return;
    member_text(lowest, name, sizeof name);
    (void)snprintf(text, bytes, "%.120s has finished after %llu step%s; ", name,
                   (unsigned long long)lowest->applied, lowest->applied == 1 ? "" : "s");
}

void barrier_decide(struct core *core, struct job *job, enum core_kind kind)
{
    uint32_t waiting = *waiting_of(job, kind), size, here, left, finished = 0;
    char who[CORE_SENTENCE_BYTES - 100], gone[256] = "";
    bool same_seq = true;
    const struct member *first = NULL;

    group_of(job, kind, &size, &here, &left);
    if (waiting == 0 || here < size || any_releasing(core, job, kind))
        return;
    for (struct member *m = member_first(core, job); kind == CORE_WORKER && m != NULL;
         m = member_next(core, m))
        finished += m->in_generation && m->finished;
    if (waiting + left + finished < size)
        return;
    if (finished > 0)
        who_finished(core, job, gone, sizeof gone);
    who_waits(core, job, kind, who, sizeof who - strlen(gone)); /* both fit in a sentence */
    choose_minority(core, job, finished);
    if (left + finished > 0) {
        give_up(core, job, kind, CORE_BARRIER_FINISHED,
                core_say(core, "deadlock: %u of %u finished or left while others wait: %s%s",
                         left + finished, size, gone, who));
        return;
    }
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->kind != kind || m->barrier == NOBODY)
            continue;
        if (first == NULL)
            first = m;
        same_seq = same_seq && m->barrier_seq == first->barrier_seq;
    }
    give_up(core, job, kind, same_seq ? CORE_BARRIER_MISMATCH : CORE_BARRIER_DEADLOCK,
            core_say(core, "%s: everybody waits and nothing can be met: %s",
                     same_seq ? "mismatch" : "deadlock", who));
}

/* Has somebody entered the plan already? Then nothing is released until all have. *all: who belongs
 * to the generation or to the plan. */
static bool between(const struct core *core, const struct job *job, uint32_t *all)
{
    bool begun = false;

    *all = 0;
    if (job->plan_number == 0)
        return false;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        begun |= m->in_plan && m->entered >= job->plan_number;
        *all += m->in_generation || m->in_plan;
    }
    return begun;
}

/* Somebody has entered the barrier at the slot. */
static void settle(struct core *core, struct job *job, enum core_kind kind, uint32_t slot)
{
    uint32_t size, here, left, all;
    bool both = kind == CORE_WORKER && between(core, job, &all);

    if (both && job->waiting_workers < all)
        return;
    group_of(job, kind, &size, &here, &left);
    if (!both && barrier_at(core, job, slot)->waiting == size)
        end_wait(core, job, kind, slot, CORE_BARRIER_RELEASED, "");
    else if (kind == CORE_PARTICIPANT)
        barrier_decide(core, job, kind);
}


/* The plan is the generation now: those who were waiting for it may all be there. */
void barrier_plan_taken(struct core *core, struct job *job)
{
    for (uint32_t i = 0; i < core->limits.barriers && job->waiting_workers > 0; i++)
        if (barrier_at(core, job, i)->kind == CORE_WORKER &&
            barrier_at(core, job, i)->waiting == job->world)
            end_wait(core, job, CORE_WORKER, i, CORE_BARRIER_RELEASED, "");
}

/* It has entered the plan: nobody of the older generation is waited for any more. False: it waits
 * in the plan's, or not at all. */
bool barrier_entered(struct core *core, struct member *m, uint64_t generation)
{
    if (m->barrier == NOBODY || m->barrier_generation >= generation)
        return false;
    result(core, m, CORE_BARRIER_GENERATION,
           core_say(core, "%s", barrier_at(core, &core->jobs[m->job], m->barrier)->name),
           generation_ended);
    barrier_leave(core, m);
    return true;
}

/* All wait while the plan is entered: those in the older generation have missed it, and go on to
 * enter the plan. False: nobody waits there. */
static bool send_on_to_plan(struct core *core, struct job *job)
{
    bool sent = false;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (core->actions->count + 8 >= CORE_ACTIONS_MAX)
            return true; /* the others at the next tick */
        if (m->kind == CORE_WORKER)
            sent |= barrier_entered(core, m, job->plan_number);
    }
    return sent;
}

/* Workers are judged at ticks, since what is decided may be the end of the generation. */
void barrier_judge_workers(struct core *core, struct job *job)
{
    uint32_t all;
    bool both;

    if (job->waiting_workers == 0)
        return;
    both = between(core, job, &all);
    if (both && job->waiting_workers < all)
        return;
    if (!both || !send_on_to_plan(core, job))
        barrier_decide(core, job, CORE_WORKER);
}

/* ---- after a restart ------------------------------------------------------------------------- */

/* Was it released from this one, by a coordinator that knows nothing of it any more? All count
 * alike in a generation, so one who has passed it speaks for all. */
static bool was_released(const struct job *job, uint64_t generation, uint64_t number,
                         const char *name)
{
    return number != 0 && number == job->passed && generation == job->passed_generation &&
           strcmp(name, job->passed_name) == 0;
}

/* Do all who wait at the slot wait at what was released? */
static bool slot_was_released(struct core *core, const struct job *job, uint32_t slot)
{
    const struct barrier *b = barrier_at(core, job, slot);

    if (b->waiting == 0 || b->kind != CORE_WORKER)
        return false;
    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->barrier == slot &&
            !was_released(job, m->barrier_generation, m->barrier_number, b->name))
            return false;
    return true;
}

/* A worker comes back and says which barrier it passed last: who waits there still has only not
 * heard of it. */
void barrier_take_passed(struct core *core, struct job *job, const struct core_message *message)
{
    const struct core_hello *hello = &message->hello;

    if (hello->passed == 0 || message->generation < job->passed_generation ||
        (message->generation == job->passed_generation && hello->passed <= job->passed))
        return;
    job->passed_generation = message->generation;
    job->passed = hello->passed;
    core_copy_text(job->passed_name, sizeof job->passed_name, hello->passed_name);
    for (uint32_t i = 0; i < core->limits.barriers && job->waiting_workers > 0; i++)
        if (slot_was_released(core, job, i))
            end_wait(core, job, CORE_WORKER, i, CORE_BARRIER_RELEASED, "");
}

/* ---- entering -------------------------------------------------------------------------------- */

/* It need not wait. */
static void answer(struct core *core, struct member *m, const struct core_barrier_enter *enter,
                   enum core_barrier_end end, const char *text)
{
    m->barrier_seq = enter->seq;
    result(core, m, end, core_say(core, "%s", enter->name), text);
}

void on_barrier_enter(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    const struct core_barrier_enter *enter = &message->barrier_enter;
    bool planned = m->in_plan && message->generation == job->plan_number;
    uint32_t slot;

    if (m->kind == CORE_WORKER &&
        ((!m->in_generation && !planned) || job->state != CORE_JOB_RUNNING)) {
        answer(core, m, enter, CORE_BARRIER_GENERATION,
               "no generation runs: enter again in the next one");
        return;
    }
    if (m->kind == CORE_WORKER && message->generation < m->entered) {
        /* Said again by one that waited there while it entered the plan. */
        answer(core, m, enter, CORE_BARRIER_GENERATION, generation_ended);
        return;
    }
    if (enter->seq <= m->released_seq) {
        answer(core, m, enter, CORE_BARRIER_RELEASED, "");
        return;
    }
    if (m->barrier != NOBODY && m->barrier_seq == enter->seq)
        return; /* said again after a broken connection */
    barrier_leave(core, m);
    if (m->kind == CORE_WORKER &&
        was_released(job, message->generation, enter->number, enter->name)) {
        m->released_seq = enter->seq;
        answer(core, m, enter, CORE_BARRIER_RELEASED, "");
        return;
    }
    slot = slot_of(core, job, m->kind, enter->name);
    m->barrier_seq = enter->seq;
    if (slot == NOBODY) {
        result(core, m, CORE_BARRIER_DEADLOCK, core_say(core, "%s", enter->name),
               core_say(core, "more than %u barriers are waited at", core->limits.barriers));
        return;
    }
    m->barrier = slot;
    m->barrier_us = core->now_us;
    m->beaten = false;
    m->barrier_generation = message->generation;
    m->barrier_number = enter->number;
    core_copy_text(m->place, sizeof m->place, enter->place);
    barrier_at(core, job, slot)->waiting++;
    (*waiting_of(job, m->kind))++;
    settle(core, job, m->kind, slot);
}

void barrier_generation_ended(struct core *core, struct job *job)
{
    barrier_end_waits(core, job, CORE_BARRIER_GENERATION, generation_ended);
}
