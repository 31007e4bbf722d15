/* Setting up, and what is only read: status, invariants, hash. */
#include "core/internal.h"

const uint64_t core_bucket_us[CORE_BUCKETS] = {
    1000,   2500,   5000,    10000,   25000,    50000,
    100000, 250000, 1000000, 2500000, 10000000, 60000000,
};

#define ALIGN(bytes) (((bytes) + 15) / 16 * 16)

void core_limits_default(struct core_limits *limits)
{
    limits->jobs = 64;
    limits->members = 16384;
    limits->barriers = 64;
}

void core_times_default(struct core_times *times)
{
    times->beat_ms = 500;
    times->suspect_beats = 3;
    times->lost_beats = 5;
    times->quiet_ms = 2000;
    times->probe_ms = 1000;
    times->reconnect_ms = 5000;
    times->startup_ms = 120000;
    times->stalled_ms = 5000;
    times->stalled_steps = 20;
    times->report_ms = 10000;
    times->pair_ms = 30000;
    times->waiting_ms = 250;
    times->store_retry_ms = 500;
    times->cooldown_losses = 3;
    times->cooldown_ms = 60000;
    times->restart_budget = 64;
    times->straggler_steps = 20;
    times->straggler_ms = 2000;
    times->settle_ms = 2000;
    times->balance_ms = 10000;
    times->rebalance = false;
    times->on_deadlock = CORE_ON_DEADLOCK_REPORT;
}

static uint32_t table_size(uint32_t entries)
{
    uint32_t size = 16;

    while (size < 2 * entries)
        size *= 2;
    return size;
}

/* Places of all arrays behind struct core; with core == NULL only their size. */
static size_t lay_out(struct core *core, const struct core_limits *limits)
{
    uint32_t table = table_size(limits->members);
    uint32_t conns = 4 * limits->members + 4096;
    size_t at = ALIGN(sizeof *core);

#define PLACE(field, count)                                                                        \
    do {                                                                                           \
        if (core != NULL)                                                                          \
            core->field = (void *)((uint8_t *)core + at);                                          \
        at += ALIGN((size_t)(count) * sizeof *((struct core *)NULL)->field);                       \
    } while (0)
    PLACE(jobs, limits->jobs);
    PLACE(members, limits->members);
    PLACE(barriers, (size_t)limits->jobs * limits->barriers);
    PLACE(by_conn, table);
    PLACE(by_conn_index, table);
    PLACE(by_id_index, table);
    PLACE(conns, conns);
    PLACE(roster, 2 * CORE_WORLD_MAX);
    PLACE(lost, CORE_WORLD_MAX);
    PLACE(speeds, CORE_WORLD_MAX);
    PLACE(texts, TEXTS);
    PLACE(record, RECORD_BYTES);
    PLACE(why, WHY_BYTES);
    PLACE(ledgers, limits->members);
#undef PLACE
    if (core != NULL) {
        core->by_conn_size = core->by_id_size = table;
        core->conns_size = conns;
    }
    return at;
}

size_t core_size(const struct core_limits *limits)
{
    return lay_out(NULL, limits);
}

struct core *core_init(void *memory, const struct core_limits *limits,
                       const struct core_times *times, uint64_t now_us)
{
    struct core *core = memory;

    assert(((uintptr_t)memory & 15) == 0);
    memset(core, 0, sizeof *core);
    core->limits = *limits;
    core->times = *times;
    core->now_us = core->tick_us = now_us;
    (void)lay_out(core, limits);
    memset(core->jobs, 0, limits->jobs * sizeof *core->jobs);
    memset(core->members, 0, limits->members * sizeof *core->members);
    memset(core->barriers, 0, (size_t)limits->jobs * limits->barriers * sizeof *core->barriers);
    memset(core->by_conn, 0, core->by_conn_size * sizeof *core->by_conn);
    memset(core->by_id_index, 0xff, core->by_id_size * sizeof *core->by_id_index);
    for (uint32_t i = 0; i < limits->members; i++)
        core->members[i].next = i + 1 < limits->members ? i + 1 : NOBODY;
    core->free_member = limits->members > 0 ? 0 : NOBODY;
    return core;
}

/* ---- status --------------------------------------------------------------------------------- */

static const char *job_word(enum core_job_state state)
{
    static const char *const words[] = {
#define CORE_JOB_WORD(name, word) word,
        CORE_JOB_STATES(CORE_JOB_WORD)
#undef CORE_JOB_WORD
    };

    return words[state];
}

static const struct job *job_at(const struct core *core, uint32_t index)
{
    for (uint32_t i = 0; i < core->limits.jobs; i++)
        if (core->jobs[i].used && index-- == 0)
            return &core->jobs[i];
    return NULL;
}

static void view_recent(const struct core *core, const struct job *job, struct core_job_view *view)
{
    uint64_t kept = job->recoveries < CORE_RECOVERIES_KEPT ? job->recoveries : CORE_RECOVERIES_KEPT;

    view->recent_count = (uint32_t)kept;
    for (uint64_t i = 0; i < kept; i++) {
        view->recent[i] = job->recent[(job->recoveries - 1 - i) % CORE_RECOVERIES_KEPT];
        view->recent[i].ago_ms = core->now_us / 1000 - view->recent[i].ago_ms;
    }
}

/* Updates applied: of the generation that runs, else the newest that was seen, which may have been
 * lost since. */
uint64_t job_step(const struct core *core, const struct job *job)
{
    uint64_t step = job->step;

    if (job->state != CORE_JOB_RUNNING)
        step = job->progress_step > step ? job->progress_step : step;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation) {
            step = m->step > step ? m->step : step;
            step = m->applied > step ? m->applied : step;
        }
    return step;
}

bool core_view_job(const struct core *core, uint32_t index, struct core_job_view *view)
{
    const struct job *job = job_at(core, index);
    bool waits;

    if (job == NULL)
        return false;
    memset(view, 0, sizeof *view);
    waits = job->state == CORE_JOB_FORMING || job->state == CORE_JOB_PAUSED;
    view->name = job->name;
    view->state = job_word(job->state);
    view->reason = job->reason;
    view->uid = job->uid;
    view->generation = job->number;
    view->step = job_step(core, job);
    view->world = job->world;
    view->min = job->min;
    view->max = job->max;
    view->recoveries = job->recoveries;
    view->last_us = job->last_us;
    view->histograms = job->histograms;
    view_recent(core, job, view);
    view->waiting_since_ms = waits ? (core->now_us - job->changed_us) / 1000 : 0;
    job_waits_for(core, job, view->waits_for, sizeof view->waits_for);
    view->store_failing = job->retry_us != 0;
    view->verdict = job->verdict.kind != CORE_VERDICT_NONE ? job->verdict_text : "";
    view->verdicts = job->verdicts;
    ledger_awaited(core, job, view->awaited, sizeof view->awaited);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        view->members += m->in_generation && m->conn != 0;
    view->loss = job->loss;
    view->samples_per_s =
        job->state == CORE_JOB_RUNNING || job->state == CORE_JOB_REGROUPING ? job->samples_per_s
                                                                            : 0;
    return true;
}

static const char *member_word(const struct core *core, const struct job *job,
                               const struct member *m)
{
    if (m->suspect)
        return "suspect";
    if (m->kind == CORE_PARTICIPANT)
        return m->barrier != NOBODY ? "waiting" : "present";
    switch (m->state) {
    case MEMBER_RUNNING:
        return m->conn == 0   ? "detached"
               : m->leaving   ? "leaving"
               : m->finished  ? "finished"
               : m->straggler ? "straggler"
                              : "running";
    case MEMBER_FROZEN:
        return "frozen";
    case MEMBER_LOST:
        return m->left ? "left" : "lost";
    case MEMBER_WAITING:
    case MEMBER_FREE:
    default:
        return cooling_holds(core, job, m) ? "cooling" : m->ready ? "spare" : "waiting";
    }
}

bool core_view_member(const struct core *core, uint32_t job_number, uint32_t index,
                      struct core_member_view *view)
{
    const struct job *job = job_at(core, job_number);

    if (job == NULL)
        return false;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (index-- != 0)
            continue;
        view->node = m->node;
        view->host = m->host;
        view->data_address = m->address;
        view->state = member_word(core, job, m);
        view->rank = m->kind == CORE_PARTICIPANT ? m->rank_hint - 1 : m->rank;
        view->pid = m->pid;
        view->step = m->step > m->applied ? m->step : m->applied;
        view->silent_ms = (core->now_us - m->seen_us) / 1000;
        view->waits_at =
            m->barrier != NOBODY
                ? core->barriers[(size_t)m->job * core->limits.barriers + m->barrier].name
                : "";
        view->shards = m->shards;
        view->shard_us = m->shard_us;
        view->in_generation = m->in_generation;
        view->straggler = m->straggler;
        view->participant = m->kind == CORE_PARTICIPANT;
        return true;
    }
    return false;
}

/* ---- invariants ----------------------------------------------------------------------------- */

static int check_job(const struct core *core, const struct job *job, const char **sentence)
{
    uint8_t ranks[CORE_WORLD_MAX / 8] = {0};
    uint32_t members = 0, participants = 0, workers = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        participants += m->kind == CORE_PARTICIPANT && m->barrier != NOBODY;
        workers += m->kind == CORE_WORKER && m->barrier != NOBODY;
        if (m->in_generation && job->state == CORE_JOB_RUNNING) {
            if (m->rank >= job->world || (ranks[m->rank / 8] >> (m->rank % 8) & 1) != 0) {
                *sentence = "a rank is taken twice, or is not below the world size";
                return 1;
            }
            ranks[m->rank / 8] = (uint8_t)(ranks[m->rank / 8] | 1u << (m->rank % 8));
            members++;
        }
        if (m->state == MEMBER_LOST && m->conn != 0) {
            *sentence = "a lost member has a connection";
            return 4;
        }
        if (m->entered > job->number_max) {
            *sentence = "a member entered a generation that was never issued";
            return 5;
        }
    }
    if (job->state == CORE_JOB_RUNNING && members != job->world) {
        *sentence = "the world size is not the number of members";
        return 2;
    }
    if (job->number > job->number_max || job->plan_number > job->number_max) {
        *sentence = "a generation is newer than the newest number";
        return 3;
    }
    if (participants != job->waiting_participants || workers != job->waiting_workers) {
        *sentence = "the count of those who wait is wrong";
        return 6;
    }
    return 0;
}

int core_check(const struct core *core, const char **sentence)
{
    *sentence = "";
    for (uint32_t i = 0; i < core->limits.jobs; i++) {
        int broken = core->jobs[i].used ? check_job(core, &core->jobs[i], sentence) : 0;

        if (broken != 0)
            return broken;
    }
    return 0;
}

static uint64_t mix(uint64_t h, uint64_t value)
{
    return (h ^ value) * 0x9e3779b97f4a7c15u + (h >> 29);
}

uint64_t core_hash(const struct core *core)
{
    uint64_t h = core->now_us;

    for (uint32_t i = 0; i < core->limits.jobs; i++) {
        const struct job *job = &core->jobs[i];

        if (!job->used)
            continue;
        h = mix(mix(mix(mix(h, job->number), job->nonce), job->plan_number), job->number_max);
        h = mix(mix(h, (uint64_t)job->state), job->step);
        for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
            h = mix(mix(mix(h, (uint64_t)m->state), m->rank), m->applied);
            h = mix(mix(h, m->conn), m->seen_us);
            h = mix(mix(h, m->weight), m->straggler);
        }
    }
    return h;
}
