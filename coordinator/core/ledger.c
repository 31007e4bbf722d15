/* Collectives: where everybody stands, as the beats tell, and which waits can never be met.
 *
 * A member leaves collective #n only when everybody has entered #n, and a barrier only when
 * everybody has come to it. So two are enough to know: one that waits in #n, and one that waits at
 * a barrier (or has finished) without having entered #n. Which of the two is to go on first?
 * Neither can, whatever the others do, and whenever the two were seen: their beats need not be of
 * the same moment, only each must be whole. That it is, is looked after here:
 *   - a number says something only in the generation in which it was counted;
 *   - what is known of one at a barrier, or finished, is what a beat said after it came there;
 *   - a wait counts when a beat called it long, and no work was begun after it;
 *   - who has entered nothing where others have left something does not mark its collectives.
 * Two that say different things of the same number differ for certain, whenever they said so.
 *
 * To be waited for is no verdict: who computes is awaited, which status and `muster why` show. */
#include "core/internal.h"

#include <stdio.h>

#define LONG_MS 100u /* session.h calls a wait long then, and beats once more */
#define NUMBERS 4u   /* different numbers that are compared at a tick */
#define SELDOM_US UINT64_C(10000000) /* between lines of the same kind about a job */

enum stand { STANDS_ELSEWHERE, STANDS_IN_COLLECTIVE, STANDS_AT_BARRIER, STANDS_FINISHED };

/* What is wrong, and who shows it. */
struct finding {
    enum core_verdict_kind kind;
    uint64_t at;                  /* number of the collective */
    struct member *odd;           /* the lowest rank of those who are different, or will not come */
    struct member *other;         /* the lowest rank of those who wait, or of the majority */
    uint32_t odd_more, other_more; /* that stand with each of them */
    bool whole;                   /* everybody of the generation waits */
};

/* ---- what beats tell ------------------------------------------------------------------------ */

/* FNV-1a, the end of a text included. */
static uint64_t digest_text(uint64_t h, const char *text)
{
    do
        h = (h ^ (uint8_t)*text) * 1099511628211u;
    while (*text++ != '\0');
    return h;
}

static uint64_t digest(const struct ledger *l)
{
    uint64_t h = digest_text(14695981039346656037u ^ l->count, l->op);

    return digest_text(digest_text(h, l->dtype), l->name);
}

void ledger_beat(struct core *core, struct member *m, const struct core_message *message)
{
    const struct core_beat *beat = &message->beat;
    struct ledger *l = &core->ledgers[member_index(core, m)];
    bool tells = beat->entered != 0 || (beat->where != NULL && beat->where[0] != '\0');

    m->beaten = true;
    if (m->kind != CORE_WORKER || (!tells && !m->has_ledger))
        return; /* its memory stays untouched */
    m->has_ledger = true;
    l->generation = message->generation;
    l->entered = beat->entered;
    l->left = beat->left;
    l->at = beat->at;
    l->since_us = core->now_us - (beat->at_age_ms * 1000 < core->now_us ? beat->at_age_ms * 1000
                                                                        : core->now_us);
    l->open = beat->open;
    l->lasted = beat->open && beat->at_age_ms >= LONG_MS;
    l->count = beat->count;
    l->batch = beat->batch;
    core_copy_text(l->op, sizeof l->op, beat->op);
    core_copy_text(l->dtype, sizeof l->dtype, beat->dtype);
    core_copy_text(l->name, sizeof l->name, beat->name);
    l->digest = digest(l);
    core_copy_text(l->place, sizeof l->place, beat->place);
    core_copy_text(l->where, sizeof l->where, beat->where);
}

const struct ledger *ledger_of(const struct core *core, const struct job *job,
                               const struct member *m)
{
    static const struct ledger nothing;
    const struct ledger *l = &core->ledgers[member_index(core, m)];

    return m->has_ledger && l->generation == job->number ? l : &nothing;
}

/* What is known of it is of this generation, and it lives. */
static bool known(const struct job *job, const struct member *m)
{
    return m->in_generation && m->state == MEMBER_RUNNING && m->conn != 0 && !m->suspect &&
           m->entered == job->number;
}

static bool owing(enum core_phase phase)
{
    return phase == CORE_PHASE_COMPUTE || phase == CORE_PHASE_EVALUATE ||
           phase == CORE_PHASE_CHECKPOINT;
}

/* Does it wait in a collective that it entered after whatever else it does? */
bool ledger_waits(const struct core *core, const struct job *job, const struct member *m)
{
    const struct ledger *l = &core->ledgers[member_index(core, m)];

    return m->has_ledger && l->lasted && l->generation == job->number && known(job, m) &&
           !m->finished && m->barrier == NOBODY &&
           (!owing(m->phase) || m->phase_us <= l->since_us);
}

/* One that says that it computes may wait there with another thread, and go on: it is given two
 * beats to show that. */
bool ledger_waits_at_barrier(const struct core *core, const struct job *job,
                             const struct member *m)
{
    uint64_t beat_us = (uint64_t)core->times.beat_ms * 1000;

    if (!known(job, m) || m->barrier == NOBODY || !m->beaten || m->finished ||
        ledger_of(core, job, m)->open)
        return false;
    return !owing(m->phase) || (core->now_us >= m->barrier_us + 2 * beat_us &&
                                m->phase_us <= m->barrier_us + beat_us);
}

static enum stand stand_of(const struct core *core, const struct job *job, const struct member *m)
{
    if (known(job, m) && m->finished && m->beaten)
        return STANDS_FINISHED;
    if (ledger_waits(core, job, m))
        return STANDS_IN_COLLECTIVE;
    return ledger_waits_at_barrier(core, job, m) ? STANDS_AT_BARRIER : STANDS_ELSEWHERE;
}

/* ---- one look at all ------------------------------------------------------------------------ */

/* A number that members stand at, and whether they say different things of it. */
struct number {
    uint64_t at, digest;
    bool differ;
};

struct look {
    struct number numbers[NUMBERS]; /* the smallest ones, in order */
    uint32_t count;
    struct member *waiting; /* in a collective: the lowest rank at the newest one; NULL = nobody */
    uint64_t waiting_at;
    bool finished;          /* somebody has */
};

static void note_number(struct look *look, const struct ledger *l)
{
    struct number *numbers = look->numbers;
    uint32_t i = 0;

    while (i < look->count && numbers[i].at < l->at)
        i++;
    if (i < look->count && numbers[i].at == l->at) {
        numbers[i].differ |= numbers[i].digest != l->digest;
        return;
    }
    if (i == NUMBERS)
        return;
    look->count += look->count < NUMBERS;
    memmove(&numbers[i + 1], &numbers[i], (look->count - 1 - i) * sizeof *numbers);
    numbers[i] = (struct number){.at = l->at, .digest = l->digest};
}

static void look_at_all(const struct core *core, const struct job *job, struct look *look)
{
    *look = (struct look){.count = 0};
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        const struct ledger *l = ledger_of(core, job, m);

        look->finished |= m->finished;
        if (l->at == 0 || !known(job, m))
            continue;
        note_number(look, l);
        if (l->at >= look->waiting_at && ledger_waits(core, job, m) &&
            (look->waiting == NULL || l->at > look->waiting_at || m->rank < look->waiting->rank)) {
            look->waiting = m;
            look->waiting_at = l->at;
        }
    }
}

/* ---- the same number, different things ------------------------------------------------------ */

static bool says(const struct core *core, const struct job *job, const struct member *m,
                 uint64_t at)
{
    return known(job, m) && at != 0 && ledger_of(core, job, m)->at == at;
}

static enum core_verdict_kind difference(const struct ledger *a, const struct ledger *b)
{
    if (strcmp(a->op, b->op) != 0)
        return CORE_VERDICT_OPS;
    if (strcmp(a->dtype, b->dtype) != 0)
        return CORE_VERDICT_TYPES;
    if (a->count != b->count)
        return CORE_VERDICT_COUNTS;
    return strcmp(a->name, b->name) != 0 ? CORE_VERDICT_NAMES : CORE_VERDICT_NONE;
}

static enum core_verdict_kind differ(const struct core *core, const struct job *job,
                                     const struct member *a, const struct member *b)
{
    return difference(ledger_of(core, job, a), ledger_of(core, job, b));
}

/* Whom more than half agree with (Boyer and Moore's vote), else the lowest rank. */
static struct member *majority_at(const struct core *core, const struct job *job, uint64_t at)
{
    struct member *lead = NULL, *lowest = NULL;
    uint32_t agree = 0, all = 0;
    int32_t ahead = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (!says(core, job, m, at))
            continue;
        lead = ahead == 0 ? m : lead;
        ahead += differ(core, job, m, lead) == CORE_VERDICT_NONE ? 1 : -1;
        lowest = lowest == NULL || m->rank < lowest->rank ? m : lowest;
        all++;
    }
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        agree += says(core, job, m, at) && differ(core, job, m, lead) == CORE_VERDICT_NONE;
    return agree * 2 > all ? lead : lowest;
}

static void take_lowest(struct member **lowest, uint32_t *more, struct member *m)
{
    *more += *lowest != NULL;
    if (*lowest == NULL || m->rank < (*lowest)->rank)
        *lowest = m;
}

/* Sorts those who stand at #at into the majority and the rest. */
static bool differs_at(const struct core *core, const struct job *job, uint64_t at,
                       struct finding *f)
{
    const struct member *right = majority_at(core, job, at);

    *f = (struct finding){.at = at};
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        m->minority = false;
        if (!says(core, job, m, at))
            continue;
        m->minority = differ(core, job, m, right) != CORE_VERDICT_NONE;
        if (m->minority)
            take_lowest(&f->odd, &f->odd_more, m);
        else
            take_lowest(&f->other, &f->other_more, m);
    }
    if (f->odd != NULL)
        f->kind = differ(core, job, f->odd, f->other);
    return f->odd != NULL;
}

static bool find_difference(const struct core *core, const struct job *job,
                            const struct look *look, struct finding *f)
{
    for (uint32_t i = 0; i < look->count; i++)
        if (look->numbers[i].differ && differs_at(core, job, look->numbers[i].at, f))
            return true;
    return false;
}

/* ---- waits that can never be met ------------------------------------------------------------ */

/* It stands where it will not enter what `waiting` waits in. */
static bool never_comes(const struct core *core, const struct job *job, const struct member *m,
                        const struct member *waiting)
{
    const struct ledger *its = ledger_of(core, job, m), *l = ledger_of(core, job, waiting);
    enum stand stand = stand_of(core, job, m);
    bool marks = its->entered != 0 || l->left == 0;

    return (stand == STANDS_AT_BARRIER || stand == STANDS_FINISHED) && marks &&
           its->entered < l->at;
}

static enum core_verdict_kind kind_of_wait(const struct core *core, const struct job *job,
                                           const struct member *odd, const struct member *other)
{
    const struct ledger *its = ledger_of(core, job, odd), *l = ledger_of(core, job, other);

    if (odd->finished)
        return CORE_VERDICT_FINISHED;
    if (l->batch != 0 && (its->batch != 0 || its->entered == 0))
        return l->batch != its->batch ? CORE_VERDICT_BATCHES : CORE_VERDICT_BRANCH;
    return other->step != odd->step ? CORE_VERDICT_BATCHES : CORE_VERDICT_BRANCH;
}

/* The smaller of the two sides goes; of two equal ones the finished, else the one without the
 * lowest rank. */
static void choose_minority(const struct core *core, const struct job *job,
                            const struct finding *f)
{
    uint32_t odd = 1 + f->odd_more, other = 1 + f->other_more;
    bool odd_goes = odd != other ? odd < other
                    : f->kind == CORE_VERDICT_FINISHED ? true
                                                       : f->odd->rank > f->other->rank;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        m->minority = odd_goes ? never_comes(core, job, m, f->other) : ledger_waits(core, job, m);
}

static bool find_deadlock(const struct core *core, const struct job *job,
                          struct member *waiting, struct finding *f)
{
    struct member *finished = NULL;
    uint32_t ignored = 0;

    *f = (struct finding){.whole = true, .at = ledger_of(core, job, waiting)->at};
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (never_comes(core, job, m, waiting)) {
            take_lowest(&f->odd, &f->odd_more, m);
            if (m->finished)
                take_lowest(&finished, &ignored, m);
        } else if (ledger_waits(core, job, m)) {
            take_lowest(&f->other, &f->other_more, m);
        }
        f->whole = f->whole &&
                   (!m->in_generation || stand_of(core, job, m) != STANDS_ELSEWHERE);
    }
    if (f->odd == NULL)
        return false;
    f->odd = finished != NULL ? finished : f->odd;
    f->other = waiting; /* who may stand at a newer one than a lower rank */
    f->kind = kind_of_wait(core, job, f->odd, waiting);
    choose_minority(core, job, f);
    return true;
}

/* ---- sentences ------------------------------------------------------------------------------ */

static const char *call(struct core *core, const struct ledger *l)
{
    char text[300];

    ledger_call(l, text, sizeof text);
    return core_say(core, "%s", text);
}

static const char *more(struct core *core, uint32_t count)
{
    return count == 0 ? "" : core_say(core, " (and %u more)", count);
}

static const char *place_of(struct core *core, const struct ledger *l)
{
    return l->place[0] == '\0' ? "" : core_say(core, " (%.64s)", short_place(l->place));
}

static const char *say_difference(struct core *core, const struct job *job,
                                  const struct finding *f)
{
    const struct ledger *a = ledger_of(core, job, f->odd), *b = ledger_of(core, job, f->other);
    const char *odd = core_member_name(core, f->odd), *other = core_member_name(core, f->other);
    const char *odds = more(core, f->odd_more), *others = more(core, f->other_more);
    unsigned long long at = f->at;

    switch ((int)f->kind) {
    case CORE_VERDICT_OPS:
        return core_say(core, "different collectives in #%llu: %s%s is in %s, but %s%s in %s", at,
                        odd, odds, call(core, a), other, others, call(core, b));
    case CORE_VERDICT_TYPES:
        return core_say(core, "different types in %s #%llu '%s': %s%s exchanges %s x %llu%s, but "
                              "%s%s %s x %llu%s", a->op, at, a->name, odd, odds, a->dtype,
                        (unsigned long long)a->count, place_of(core, a), other, others, b->dtype,
                        (unsigned long long)b->count, place_of(core, b));
    case CORE_VERDICT_COUNTS:
        return core_say(core, "different counts in %s #%llu '%s': %s%s exchanges %llu elements of "
                              "%s%s, but %s%s %llu%s", a->op, at, a->name, odd, odds,
                        (unsigned long long)a->count, a->dtype, place_of(core, a), other, others,
                        (unsigned long long)b->count, place_of(core, b));
    default:
        return core_say(core, "different names in %s #%llu of %s x %llu: %s%s exchanges '%s'%s, "
                              "but %s%s '%s'%s", a->op, at, a->dtype, (unsigned long long)a->count,
                        odd, odds, a->name, place_of(core, a), other, others, b->name,
                        place_of(core, b));
    }
}

/* " of step 11": as the program counts, else by the updates that it told of. */
static const char *step_of(struct core *core, const struct ledger *l)
{
    return l->batch == 0 ? "" : core_say(core, " of step %llu", (unsigned long long)l->batch);
}

static unsigned long long steps_done(const struct member *m, const struct ledger *l,
                                     bool counted)
{
    return counted ? l->batch : m->step;
}

/* "at barrier 'epoch-end' #1 (train.c:52)" */
static const char *at_barrier(struct core *core, const struct member *m)
{
    char text[300] = "";

    if (m->barrier == NOBODY)
        return "at no barrier";
    barrier_text(core, m, text, sizeof text);
    return core_say(core, "at barrier %s", text);
}

static const char *say_deadlock(struct core *core, const struct job *job, const struct finding *f)
{
    const struct ledger *its = ledger_of(core, job, f->odd), *l = ledger_of(core, job, f->other);
    const char *odd = core_member_name(core, f->odd), *other = core_member_name(core, f->other);
    const char *odds = more(core, f->odd_more), *others = more(core, f->other_more);
    unsigned long long steps = steps_done(f->odd, its, l->batch != 0);

    switch ((int)f->kind) {
    case CORE_VERDICT_FINISHED:
        return core_say(core, "one has finished while others wait: %s%s has finished after %llu "
                              "steps and %llu collectives, and %s%s waits in %s%s for it", odd,
                        odds, steps, (unsigned long long)its->entered, other, others,
                        call(core, l), step_of(core, l));
    case CORE_VERDICT_BATCHES:
        return core_say(core, "unequal batches: %s%s waits in %s%s, but %s%s %s after %llu steps",
                        other, others, call(core, l), step_of(core, l), odd, odds,
                        at_barrier(core, f->odd), steps);
    default:
        return core_say(core, "a barrier in one branch only: %s%s waits %s, but %s%s in %s, in "
                              "the same step (%llu)", odd, odds, at_barrier(core, f->odd), other,
                        others, call(core, l), steps);
    }
}

/* ---- verdicts ------------------------------------------------------------------------------- */

static void tell_verdict(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation)
            core_list_add(core, m->conn);
    message = core_send_list(core, begin, CORE_VERDICT, job);
    if (message == NULL)
        return;
    message->verdict.kind = job->verdict.kind;
    message->verdict.text = job->verdict_text;
}

/* Those whom a finder marked are out, and the others regroup; as many as one step has room for. */
static void evict_minority(struct core *core, struct job *job, const char *text)
{
    const char *why = core_say(core, "in a %.400s", text);

    for (struct member *m = member_first(core, job), *next; m != NULL; m = next) {
        next = member_next(core, m);
        if (m->minority && m->in_generation && m->state == MEMBER_RUNNING &&
            core->actions->count + 20 < CORE_ACTIONS_MAX)
            member_evict(core, m, why, 0);
    }
}

void verdict_give(struct core *core, struct job *job, const struct verdict *verdict,
                  const char *text)
{
    job->verdict = *verdict;
    job->verdicts++;
    core_copy_text(job->verdict_text, sizeof job->verdict_text, text);
    core_log(core, CORE_ERROR, job, text);
    tell_verdict(core, job);
    if (core->times.on_deadlock == CORE_ON_DEADLOCK_ABORT)
        job_fail(core, job, text);
    else if (core->times.on_deadlock == CORE_ON_DEADLOCK_EVICT)
        evict_minority(core, job, text);
    else if (verdict->end != 0)
        barrier_end_waits(core, job, verdict->end, text);
}

/* Another generation counts anew. */
void verdict_forget(struct job *job)
{
    job->verdict = (struct verdict){.kind = CORE_VERDICT_NONE};
    job->differed_at = job->differed_us = job->contradiction_us = 0;
    job->noted_at = job->noted_us = 0;
    job->verdict_text[0] = '\0';
}

static bool now_and_then(const struct core *core, uint64_t last_us)
{
    return last_us != 0 && core->now_us < last_us + SELDOM_US;
}

/* Somebody has left the collective of the verdict: it was none, or is none any more. */
static void forget_if_passed(const struct core *core, struct job *job)
{
    if (job->verdict.kind == CORE_VERDICT_NONE || job->verdict.at == 0)
        return;
    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (known(job, m) && ledger_of(core, job, m)->left >= job->verdict.at) {
            job->verdict.kind = CORE_VERDICT_NONE;
            job->verdict_text[0] = '\0';
            return;
        }
}

/* Who is awaited for longer than a step usually takes is named in the log, once for each wait. */
static void note_awaited(struct core *core, struct job *job, const struct member *waiting)
{
    uint64_t patience_us = 2000 * (uint64_t)core->times.beat_ms + 2 * job->step_us;
    const struct ledger *l = ledger_of(core, job, waiting);
    char text[CORE_SENTENCE_BYTES];

    if (l->at == job->noted_at || now_and_then(core, job->noted_us) ||
        core->now_us < l->since_us + patience_us)
        return;
    ledger_awaited(core, job, text, sizeof text);
    job->noted_at = l->at;
    job->noted_us = core->now_us;
    if (text[0] != '\0')
        core_log(core, CORE_INFO, job, core_say(core, "%s", text));
}

/* Once for a number; and a program whose transport does not mind does not fill the log. */
static bool judge_difference(struct core *core, struct job *job, const struct look *look)
{
    struct finding f;

    if (!find_difference(core, job, look, &f) || f.at == job->differed_at ||
        now_and_then(core, job->differed_us))
        return false;
    job->differed_at = f.at;
    job->differed_us = core->now_us;
    verdict_give(core, job, &(struct verdict){.kind = f.kind, .at = f.at},
                 core_say(core, "mismatch: %s", say_difference(core, job, &f)));
    return true;
}

/* Once for a number. Who comes to a barrier again nevertheless has his answer again. */
static void judge_deadlock(struct core *core, struct job *job, const struct finding *f)
{
    uint64_t patience_us = 2000 * (uint64_t)core->times.beat_ms;
    struct verdict verdict = {.kind = f->kind, .at = f->at, .end = CORE_BARRIER_DEADLOCK};

    if (job->contradiction_us == 0)
        job->contradiction_us = core->now_us;
    if (!f->whole && core->now_us < job->contradiction_us + patience_us)
        return;
    if (f->kind == CORE_VERDICT_FINISHED)
        verdict.end = CORE_BARRIER_FINISHED;
    if (f->kind == CORE_VERDICT_BRANCH)
        verdict.end = CORE_BARRIER_MISMATCH;
    if (job->verdict.kind == f->kind && job->verdict.at == f->at)
        barrier_end_waits(core, job, verdict.end, core_say(core, "%s", job->verdict_text));
    else
        verdict_give(core, job, &verdict,
                     core_say(core, "deadlock: %s", say_deadlock(core, job, f)));
}

void ledger_tick(struct core *core, struct job *job)
{
    struct look look;
    struct finding f;

    if (job->state != CORE_JOB_RUNNING || !job->all_entered)
        return;
    forget_if_passed(core, job);
    look_at_all(core, job, &look);
    if (judge_difference(core, job, &look))
        return;
    if (job->waiting_workers != 0) {
        barrier_judge_workers(core, job);
        if (job->state != CORE_JOB_RUNNING)
            return;
        look_at_all(core, job, &look);
    }
    /* Who computes comes: only barriers and ends keep somebody away. */
    if (look.waiting != NULL && (look.finished || job->waiting_workers != 0) &&
        find_deadlock(core, job, look.waiting, &f)) {
        judge_deadlock(core, job, &f);
        return;
    }
    job->contradiction_us = 0;
    if (look.waiting != NULL)
        note_awaited(core, job, look.waiting);
}
