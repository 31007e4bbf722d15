/* The answer to `muster why`: one line per member, who is waited for first; and the words for
 * collectives and for who is awaited that ledger.c and status use. */
#include "core/internal.h"

#include <stdarg.h>
#include <stdio.h>

#define NAMED_MAX 4u /* ranks that are named in a list */

/* ---- words ---------------------------------------------------------------------------------- */

/* The end of a long path says enough. */
const char *short_place(const char *place)
{
    size_t bytes = strlen(place);
    const char *end = bytes > 48 ? strchr(place + bytes - 48, '/') : NULL;

    return end != NULL ? end + 1 : place;
}

void ledger_call(const struct ledger *l, char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "%s #%llu '%s' (%s x %llu%s%.64s)",
                   l->op[0] != '\0' ? l->op : "collective", (unsigned long long)l->at, l->name,
                   l->dtype[0] != '\0' ? l->dtype : "?", (unsigned long long)l->count,
                   l->place[0] != '\0' ? ", " : "", short_place(l->place));
}

static double seconds(const struct core *core, uint64_t since_us)
{
    return (double)(core->now_us - since_us) / 1e6;
}

/* What it does instead of entering the collective. */
static void does_what(const struct core *core, const struct job *job, const struct member *m,
                      char *text, size_t bytes)
{
    char more[300] = "";

    if (m->conn == 0)
        (void)snprintf(text, bytes, "it is not connected");
    else if (m->suspect)
        (void)snprintf(text, bytes, "it is silent for %.1f s", seconds(core, m->seen_us));
    else if (m->finished)
        (void)snprintf(text, bytes, "it has finished");
    else if (m->barrier != NOBODY) {
        barrier_text(core, m, more, sizeof more);
        (void)snprintf(text, bytes, "it waits at barrier %s", more);
    } else if (ledger_of(core, job, m)->open) {
        ledger_call(ledger_of(core, job, m), more, sizeof more);
        (void)snprintf(text, bytes, "it is in %s", more);
    } else {
        (void)snprintf(text, bytes, "it is in phase %s of step %llu for %.1f s",
                       phase_word(m->phase), (unsigned long long)m->step,
                       seconds(core, m->phase_us));
    }
}

/* The newest collective in which somebody waits, and its lowest rank; NULL = nobody waits. */
static const struct member *longest(const struct core *core, const struct job *job)
{
    const struct member *found = NULL;

    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        uint64_t at = ledger_of(core, job, m)->at;
        uint64_t best = found != NULL ? ledger_of(core, job, found)->at : 0;

        if (ledger_waits(core, job, m) &&
            (at > best || (at == best && m->rank < found->rank)))
            found = m;
    }
    return found;
}

static bool misses(const struct core *core, const struct job *job, const struct member *m,
                   uint64_t at)
{
    return m->in_generation && ledger_of(core, job, m)->entered < at;
}

void ledger_awaited(const struct core *core, const struct job *job, char *text, size_t bytes)
{
    const struct member *waiting = longest(core, job), *missing = NULL;
    const struct ledger *l = waiting != NULL ? ledger_of(core, job, waiting) : NULL;
    char call[300], name[300], what[400];
    uint32_t count = 0;

    text[0] = '\0';
    for (const struct member *m = member_first(core, job); l != NULL && m != NULL;
         m = member_next(core, m))
        if (misses(core, job, m, l->at)) {
            count++;
            missing = missing == NULL || m->rank < missing->rank ? m : missing;
        }
    if (l == NULL)
        return;
    ledger_call(l, call, sizeof call);
    member_text(missing != NULL ? missing : waiting, name, sizeof name);
    if (missing == NULL) {
        (void)snprintf(text, bytes, "all have entered %s, and %s has not left it for %.1f s", call,
                       name, seconds(core, l->since_us));
        return;
    }
    does_what(core, job, missing, what, sizeof what);
    (void)snprintf(text, bytes, "%s%s is awaited in %s for %.1f s: %s", name,
                   count > 1 ? " (and more)" : "", call, seconds(core, l->since_us), what);
}

/* ---- the answer ----------------------------------------------------------------------------- */

struct paper {
    char *text;
    size_t used, room;
    bool full;
};

__attribute__((format(printf, 2, 3))) static void put(struct paper *paper, const char *format, ...)
{
    size_t left = paper->room - paper->used;
    va_list arguments;
    int done;

    va_start(arguments, format);
    done = vsnprintf(paper->text + paper->used, left, format, arguments);
    va_end(arguments);
    if (done < 0 || (size_t)done >= left)
        paper->full = true;
    else
        paper->used += (size_t)done;
}

/* "rank 1, 3 and 5 more": of those for whom the question is answered with yes. */
typedef bool (*question)(const struct core *core, const struct job *job, const struct member *m,
                         const struct member *of);

/* Sorted, of at most NAMED_MAX: the lowest are kept. */
static void keep_rank(uint32_t ranks[NAMED_MAX], uint32_t count, uint32_t rank)
{
    uint32_t at = count < NAMED_MAX ? count : NAMED_MAX - 1;

    if (count >= NAMED_MAX && rank > ranks[at])
        return;
    for (; at > 0 && ranks[at - 1] > rank; at--)
        ranks[at] = ranks[at - 1];
    ranks[at] = rank;
}

static void put_ranks(struct paper *paper, const struct core *core, const struct job *job,
                      const char *words, question asked, const struct member *of)
{
    uint32_t ranks[NAMED_MAX], count = 0;

    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m != of && m->in_generation && asked(core, job, m, of))
            keep_rank(ranks, count++, m->rank);
    for (uint32_t i = 0; i < count && i < NAMED_MAX; i++)
        put(paper, "%s%u", i == 0 ? words : ", ", ranks[i]);
    if (count > NAMED_MAX)
        put(paper, " and %u more", count - NAMED_MAX);
}

/* Has m not entered what `of` waits in, or not come to its barrier? */
static bool lets_wait(const struct core *core, const struct job *job, const struct member *m,
                      const struct member *of)
{
    if (of->barrier != NOBODY)
        return m->barrier != of->barrier;
    return ledger_of(core, job, of)->open && misses(core, job, m, ledger_of(core, job, of)->at);
}

static bool waits_for(const struct core *core, const struct job *job, const struct member *m,
                      const struct member *of)
{
    return lets_wait(core, job, of, m);
}

static bool awaited(const struct core *core, const struct job *job, const struct member *of)
{
    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m != of && m->in_generation && lets_wait(core, job, of, m))
            return true;
    return false;
}

static void put_state(struct paper *paper, const struct core *core, const struct member *m)
{
    if (m->state == MEMBER_LOST)
        put(paper, "lost");
    else if (m->state == MEMBER_FROZEN)
        put(paper, "frozen at step %llu", (unsigned long long)m->applied);
    else if (m->conn == 0)
        put(paper, "not connected");
    else if (m->suspect)
        put(paper, "suspect: silent for %.1f s", seconds(core, m->seen_us));
    else if (!m->in_generation)
        put(paper, m->ready ? "a spare, in step" : "waiting");
    else
        put(paper, "%s of step %llu for %.1f s%s", phase_word(m->phase),
            (unsigned long long)m->step, seconds(core, m->phase_us),
            m->finished ? ", finished" : "");
}

static void put_collective(struct paper *paper, const struct core *core, const struct job *job,
                           const struct member *m)
{
    const struct ledger *l = ledger_of(core, job, m);
    char call[300];

    if (!m->in_generation || l->at == 0)
        return;
    ledger_call(l, call, sizeof call);
    if (l->open)
        put(paper, "; in %s for %.1f s", call, seconds(core, l->since_us));
    else
        put(paper, "; left %s %.1f s ago", call, seconds(core, l->since_us));
}

/* One member; false when there was no room for it. */
static bool put_member(struct paper *paper, const struct core *core, const struct job *job,
                       const struct member *m)
{
    size_t before = paper->used;
    char text[300];

    member_text(m, text, sizeof text);
    put(paper, "\n%s: ", text);
    if (m->kind == CORE_WORKER)
        put_state(paper, core, m);
    put_collective(paper, core, job, m);
    if (m->barrier != NOBODY) {
        barrier_text(core, m, text, sizeof text);
        put(paper, "%swaits at barrier %s for %.1f s", m->kind == CORE_WORKER ? "; " : "", text,
            seconds(core, m->barrier_us));
    } else if (m->kind == CORE_PARTICIPANT) {
        put(paper, "waits at no barrier");
    }
    if (m->in_generation) {
        put_ranks(paper, core, job, "; waits for rank ", lets_wait, m);
        put_ranks(paper, core, job, "; awaited by rank ", waits_for, m);
    }
    if (m->has_ledger && core->ledgers[member_index(core, m)].where[0] != '\0')
        put(paper, "; %s", core->ledgers[member_index(core, m)].where);
    if (paper->full) {
        paper->used = before;
        paper->text[before] = '\0';
    }
    return !paper->full;
}

/* Those who are waited for come first, then the rest of the generation, then the others. */
static uint32_t turn_of(const struct core *core, const struct job *job, const struct member *m)
{
    if (!m->in_generation)
        return 2;
    return awaited(core, job, m) ? 0 : 1;
}

static void put_members(struct paper *paper, const struct core *core, const struct job *job)
{
    uint32_t all = 0, told = 0;

    for (const struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        all++;
    for (uint32_t turn = 0; turn < 3; turn++)
        for (const struct member *m = member_first(core, job); m != NULL && !paper->full;
             m = member_next(core, m))
            if (turn_of(core, job, m) == turn)
                told += put_member(paper, core, job, m);
    paper->room = WHY_BYTES;
    if (told < all)
        put(paper, "\nand %u more", all - told);
}

const char *core_why(struct core *core, struct job *job)
{
    struct paper paper = {.text = core->why, .room = WHY_BYTES - 40};
    char text[CORE_SENTENCE_BYTES];

    put(&paper, "job '%s': %s", job->name, job->reason);
    job_waits_for(core, job, text, sizeof text);
    if (text[0] != '\0')
        put(&paper, "%s%s", job->reason[0] != '\0' ? "\n" : "", text);
    ledger_awaited(core, job, text, sizeof text);
    if (job->verdict.kind != CORE_VERDICT_NONE)
        put(&paper, "\n%s", job->verdict_text);
    else if (text[0] != '\0')
        put(&paper, "\n%s", text);
    put_members(&paper, core, job);
    return core->why;
}
