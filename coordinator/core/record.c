/* A job as bytes for the store: little endian, versioned, bounded; read back with the same care as
 * bytes from a stranger, since disks lie. No secret leaves here but digests; keys are not stored.
 *
 *   u32 magic "MJOB", u32 version, text name, id uid, text spec, text fingerprint, u32 min, u32
 *   max, u32 state (0 running, 1 done, 2 failed), u64 number_max, u64 number, u64 nonce, u64 step,
 *   u64 plan number, u64 plan nonce, u32 plan pauses, u64 hash, u32 world (of a job that is over or
 *   deserted, else 0; since version 2), u32 members, then each member: id, digest, u32 flags (1
 *   generation, 2 plan), u32 rank, u32 rank in the plan, u32 pid, text node, text host, text
 *   address;
 *   u64 checksum (FNV-1a of everything before). text = u32 length, bytes. */
#include "core/internal.h"

#define MAGIC   0x424f4a4du
#define VERSION 2u

struct writer {
    uint8_t *at, *end;
};

static void put_bytes(struct writer *w, const void *bytes, size_t count)
{
    assert((size_t)(w->end - w->at) >= count);
    memcpy(w->at, bytes, count);
    w->at += count;
}

static void put_u32(struct writer *w, uint32_t value)
{
    uint8_t b[4];

    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(value >> (8 * i));
    put_bytes(w, b, sizeof b);
}

static void put_u64(struct writer *w, uint64_t value)
{
    put_u32(w, (uint32_t)value);
    put_u32(w, (uint32_t)(value >> 32));
}

static void put_text(struct writer *w, const char *text)
{
    uint32_t length = (uint32_t)strlen(text);

    put_u32(w, length);
    put_bytes(w, text, length);
}

static uint64_t checksum(const uint8_t *bytes, size_t count)
{
    uint64_t h = 1469598103934665603u;

    for (size_t i = 0; i < count; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h;
}

/* What it will be when the store has it: the chosen are in. */
static uint32_t flags_of(const struct member *m, enum pending what)
{
    if (m->kind != CORE_WORKER)
        return 0;
    if (what == PENDING_FORM)
        return m->chosen ? 1 : 0;
    if (what == PENDING_PLAN)
        return (m->in_generation ? 1u : 0u) | (m->chosen ? 2u : 0u);
    return m->in_generation ? 1 : 0;
}

static void put_member(struct writer *w, const struct member *m, uint32_t flags, bool form)
{
    uint32_t rank = form || m->rank == NOBODY ? m->rank_new : m->rank;

    put_bytes(w, m->id.byte, CORE_ID_BYTES);
    put_bytes(w, m->secret.byte, CORE_ID_BYTES);
    put_u32(w, flags);
    put_u32(w, rank);
    put_u32(w, (flags & 2) != 0 ? m->rank_new : rank);
    put_u32(w, m->pid);
    put_text(w, m->node);
    put_text(w, m->host);
    put_text(w, m->address);
}

size_t record_encode(struct core *core, const struct job *job, enum pending what)
{
    struct writer w = {core->record, core->record + RECORD_BYTES};
    bool form = what == PENDING_FORM, plan = what == PENDING_PLAN;
    /* Nobody of it is awaited after a restart, and no step is to come that says how far it came. */
    bool over = what == PENDING_DONE || job->state == CORE_JOB_FAILED ||
                (what == PENDING_KEEP && job_deserted(core, job));
    uint32_t count = 0;

    put_u32(&w, MAGIC);
    put_u32(&w, VERSION);
    put_text(&w, job->name);
    put_bytes(&w, job->uid.byte, CORE_ID_BYTES);
    put_text(&w, job->spec);
    put_text(&w, job->fingerprint);
    put_u32(&w, job->min);
    put_u32(&w, job->max);
    put_u32(&w, what == PENDING_DONE ? 1 : job->state == CORE_JOB_FAILED ? 2 : 0);
    put_u64(&w, job->number_max);
    put_u64(&w, form ? job->pending_number : job->number);
    put_u64(&w, form ? job->pending_nonce : job->nonce);
    put_u64(&w, form ? job->pending_step : over ? job_step(core, job) : job->step);
    put_u64(&w, plan ? job->pending_number : 0);
    put_u64(&w, plan ? job->pending_nonce : 0);
    put_u32(&w, plan && job->pending_pause);
    put_u64(&w, job->hash);
    put_u32(&w, over ? job->world : 0);
    for (struct member *m = member_first(core, job); m != NULL && !over; m = member_next(core, m))
        count += flags_of(m, what) != 0;
    put_u32(&w, count);
    for (struct member *m = member_first(core, job); m != NULL && !over; m = member_next(core, m))
        if (flags_of(m, what) != 0)
            put_member(&w, m, flags_of(m, what), form);
    put_u64(&w, checksum(core->record, (size_t)(w.at - core->record)));
    return (size_t)(w.at - core->record);
}

/* ---- reading -------------------------------------------------------------------------------- */

struct reader {
    const uint8_t *at, *end;
    bool broken;
};

static void get_bytes(struct reader *r, void *out, size_t count)
{
    if (r->broken || (size_t)(r->end - r->at) < count) {
        r->broken = true;
        memset(out, 0, count);
        return;
    }
    memcpy(out, r->at, count);
    r->at += count;
}

static uint32_t get_u32(struct reader *r)
{
    uint8_t b[4];

    get_bytes(r, b, sizeof b);
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t get_u64(struct reader *r)
{
    uint64_t low = get_u32(r);

    return low | (uint64_t)get_u32(r) << 32;
}

static void get_text(struct reader *r, char *out, size_t bytes)
{
    uint32_t length = get_u32(r);

    out[0] = '\0';
    if (length >= bytes) {
        r->broken = true;
        return;
    }
    get_bytes(r, out, length);
    out[length] = '\0';
    if (strlen(out) != length)
        r->broken = true;
}

static void get_member(struct core *core, struct job *job, struct reader *r)
{
    struct core_id id;
    struct member *m;
    uint32_t flags;

    get_bytes(r, id.byte, sizeof id.byte);
    if (r->broken || core_id_zero(&id) || member_by_id(core, &id) != NULL ||
        (m = member_new(core, job, &id)) == NULL) {
        r->broken = true;
        return;
    }
    m->kind = CORE_WORKER;
    m->state = MEMBER_RUNNING;
    get_bytes(r, m->secret.byte, sizeof m->secret.byte);
    flags = get_u32(r);
    m->in_generation = (flags & 1) != 0;
    m->in_plan = (flags & 2) != 0;
    m->rank = get_u32(r);
    m->rank_new = get_u32(r);
    m->pid = get_u32(r);
    get_text(r, m->node, sizeof m->node);
    get_text(r, m->host, sizeof m->host);
    get_text(r, m->address, sizeof m->address);
    m->entered = m->in_generation ? job->number : 0;
    job->world += m->in_generation;
    if (flags == 0 || flags > 3 || m->rank >= CORE_WORLD_MAX || m->rank_new >= CORE_WORLD_MAX)
        r->broken = true;
}

static void get_job(struct core *core, struct job *job, uint32_t version, struct reader *r)
{
    uint32_t state, count;

    get_bytes(r, job->uid.byte, sizeof job->uid.byte);
    get_text(r, job->spec, sizeof job->spec);
    get_text(r, job->fingerprint, sizeof job->fingerprint);
    job->min = get_u32(r);
    job->max = get_u32(r);
    state = get_u32(r);
    job->number_max = get_u64(r);
    job->number = get_u64(r);
    job->nonce = get_u64(r);
    job->step = get_u64(r);
    job->plan_number = get_u64(r);
    job->plan_nonce = get_u64(r);
    job->plan_pause = get_u32(r) != 0;
    job->hash = get_u64(r);
    job->world = version > 1 ? get_u32(r) : 0;
    count = get_u32(r);
    if (state > 2 || count > CORE_WORLD_MAX || job->world > CORE_WORLD_MAX ||
        job->max > CORE_WORLD_MAX || job->min > job->max)
        r->broken = true;
    for (uint32_t i = 0; i < count && !r->broken; i++)
        get_member(core, job, r);
    job->all_entered = true;
    job->state = state == 1          ? CORE_JOB_DONE
                 : state == 2        ? CORE_JOB_FAILED
                 : job->number == 0  ? CORE_JOB_FORMING
                 : job->first == NOBODY ? CORE_JOB_PAUSED
                                        : CORE_JOB_RUNNING;
    job->deserted_number = job->state == CORE_JOB_PAUSED ? job->number : 0;
}

static void free_members(struct core *core, struct job *job)
{
    while (job->first != NOBODY)
        member_free(core, &core->members[job->first]);
}

/* A job with fresh leases for all its members; false (and nothing of it) when the record is
 * damaged. */
bool record_restore(struct core *core, const uint8_t *record, size_t bytes)
{
    struct reader r = {record, record + bytes, bytes < 24};
    char name[CORE_NAME_BYTES];
    uint32_t version;
    struct job *job;

    if (r.broken)
        return false;
    r.at = record + bytes - 8;
    if (get_u64(&r) != checksum(record, bytes - 8))
        return false;
    r.at = record;
    r.end = record + bytes - 8;
    if (get_u32(&r) != MAGIC)
        return false;
    version = get_u32(&r);
    if (version < 1 || version > VERSION)
        return false;
    get_text(&r, name, sizeof name);
    if (r.broken || name[0] == '\0' || job_find(core, name) != NULL ||
        (job = job_new(core, name)) == NULL)
        return false;
    get_job(core, job, version, &r);
    core_copy_text(job->reason, sizeof job->reason, "restored from the store");
    if (r.broken || r.at != r.end) {
        free_members(core, job);
        job->used = false;
        return false;
    }
    if (job->state == CORE_JOB_DONE || job->state == CORE_JOB_FAILED)
        free_members(core, job); /* version 1 holds them */
    return true;
}
