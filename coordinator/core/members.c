/* Tables: jobs by name, members by identity and by connection.
 *
 * Both indices are open addressing with linear probing and back-shift deletion, at most half full,
 * so that 18,000 members cost O(1) each. */
#include "core/internal.h"

static uint32_t hash_bytes(const uint8_t *bytes, size_t count)
{
    uint64_t h = 1469598103934665603u;

    for (size_t i = 0; i < count; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return (uint32_t)(h ^ h >> 32);
}

static uint32_t hash_conn(core_conn conn)
{
    uint64_t h = conn * 0x9e3779b97f4a7c15u;

    return (uint32_t)(h >> 32);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

struct job *job_find(struct core *core, const char *name)
{
    for (uint32_t i = 0; i < core->limits.jobs; i++)
        if (core->jobs[i].used && strcmp(core->jobs[i].name, name) == 0)
            return &core->jobs[i];
    return NULL;
}

/* A job that never began and of which nobody is left is kept for the numbers that its members
 * remember, as long as its place is not needed. */
static bool replaceable(const struct job *job)
{
    return job->state == CORE_JOB_FORMING && job->number == 0 && job->pending == PENDING_NONE &&
           job->first == NOBODY;
}

struct job *job_new(struct core *core, const char *name)
{
    struct job *job = NULL;

    for (uint32_t i = 0; i < core->limits.jobs && (job == NULL || job->used); i++)
        if (!core->jobs[i].used || (job == NULL && replaceable(&core->jobs[i])))
            job = &core->jobs[i];
    if (job == NULL)
        return NULL;
    memset(job, 0, sizeof *job);
    job->used = true;
    core_copy_text(job->name, sizeof job->name, name);
    job->first = job->last = NOBODY;
    job->state = CORE_JOB_FORMING;
    job->changed_us = job->arrived_us = job->first_us = core->now_us;
    return job;
}

uint32_t job_index(const struct core *core, const struct job *job)
{
    return (uint32_t)(job - core->jobs);
}

/* ---- members by identity -------------------------------------------------------------------- */

static uint32_t id_home(const struct core *core, const struct core_id *id)
{
    return hash_bytes(id->byte, sizeof id->byte) & (core->by_id_size - 1);
}

struct member *member_by_id(struct core *core, const struct core_id *id)
{
    for (uint32_t at = id_home(core, id); core->by_id_index[at] != NOBODY;
         at = (at + 1) & (core->by_id_size - 1)) {
        struct member *m = &core->members[core->by_id_index[at]];

        if (core_id_equal(&m->id, id))
            return m;
    }
    return NULL;
}

static void id_insert(struct core *core, uint32_t index)
{
    uint32_t at = id_home(core, &core->members[index].id);

    while (core->by_id_index[at] != NOBODY)
        at = (at + 1) & (core->by_id_size - 1);
    core->by_id_index[at] = index;
}

static void id_remove(struct core *core, uint32_t index)
{
    uint32_t mask = core->by_id_size - 1, at = id_home(core, &core->members[index].id), next;

    while (core->by_id_index[at] != index)
        at = (at + 1) & mask;
    core->by_id_index[at] = NOBODY;
    for (next = (at + 1) & mask; core->by_id_index[next] != NOBODY; next = (next + 1) & mask) {
        uint32_t moved = core->by_id_index[next];

        core->by_id_index[next] = NOBODY;
        id_insert(core, moved);
    }
}

/* ---- members by connection ------------------------------------------------------------------ */

static uint32_t conn_slot(const struct core *core, core_conn conn)
{
    uint32_t at = hash_conn(conn) & (core->by_conn_size - 1);

    while (core->by_conn[at] != 0 && core->by_conn[at] != conn)
        at = (at + 1) & (core->by_conn_size - 1);
    return at;
}

struct member *member_by_conn(struct core *core, core_conn conn)
{
    uint32_t at = conn_slot(core, conn);

    return core->by_conn[at] == conn && conn != 0 ? &core->members[core->by_conn_index[at]] : NULL;
}

static void conn_remove(struct core *core, core_conn conn)
{
    uint32_t mask = core->by_conn_size - 1, at = conn_slot(core, conn), next;

    assert(core->by_conn[at] == conn);
    core->by_conn[at] = 0;
    for (next = (at + 1) & mask; core->by_conn[next] != 0; next = (next + 1) & mask) {
        core_conn moved = core->by_conn[next];
        uint32_t index = core->by_conn_index[next], home;

        core->by_conn[next] = 0;
        home = conn_slot(core, moved);
        core->by_conn[home] = moved;
        core->by_conn_index[home] = index;
    }
}

void member_set_conn(struct core *core, struct member *m, core_conn conn)
{
    struct job *job = &core->jobs[m->job];

    if (m->conn != 0) {
        conn_remove(core, m->conn);
        job->workers -= m->kind == CORE_WORKER;
    }
    m->conn = conn;
    if (conn != 0) {
        uint32_t at = conn_slot(core, conn);

        assert(core->by_conn[at] == 0);
        core->by_conn[at] = conn;
        core->by_conn_index[at] = member_index(core, m);
        job->workers += m->kind == CORE_WORKER;
    }
}

/* ---- the list of a job ---------------------------------------------------------------------- */

struct member *member_new(struct core *core, struct job *job, const struct core_id *id)
{
    uint32_t index = core->free_member;
    struct member *m;

    if (index == NOBODY)
        return NULL;
    m = &core->members[index];
    core->free_member = m->next;
    core->members_used++;
    memset(m, 0, sizeof *m);
    m->id = *id;
    m->state = MEMBER_WAITING;
    m->job = job_index(core, job);
    m->order = job->order++;
    m->rank = m->rank_new = NOBODY;
    m->barrier = NOBODY;
    m->weight = m->weight_new = CORE_WEIGHT_USUAL;
    m->seen_us = m->phase_us = core->now_us;
    m->next = NOBODY;
    m->previous = job->last;
    if (job->last != NOBODY)
        core->members[job->last].next = index;
    else
        job->first = index;
    job->last = index;
    id_insert(core, index);
    return m;
}

void member_free(struct core *core, struct member *m)
{
    struct job *job = &core->jobs[m->job];
    uint32_t index = member_index(core, m);

    assert(m->state != MEMBER_FREE);
    barrier_leave(core, m);
    member_set_conn(core, m, 0);
    id_remove(core, index);
    if (m->previous != NOBODY)
        core->members[m->previous].next = m->next;
    else
        job->first = m->next;
    if (m->next != NOBODY)
        core->members[m->next].previous = m->previous;
    else
        job->last = m->previous;
    m->state = MEMBER_FREE;
    m->next = core->free_member;
    core->free_member = index;
    core->members_used--;
}
