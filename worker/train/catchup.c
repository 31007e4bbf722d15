/* Invariants
 *   1. oldest <= next, and next - oldest <= CATCHUP_RECORDS_MAX: the records kept are oldest ..
 *      next - 1.
 *   2. The version of a chunk that is here is between oldest and next.
 *   3. here counts chunks that are here, current those at next.
 *   4. A record is taken only if it is the next one. */
#include "train/catchup.h"

#include <assert.h>

void catchup_begin(struct catchup *c, uint64_t *version, uint64_t chunk_count)
{
    *c = (struct catchup){.version = version, .chunk_count = chunk_count, .next = CATCHUP_NOTHING,
                          .oldest = CATCHUP_NOTHING};
    for (uint64_t i = 0; i < chunk_count; i++)
        version[i] = CATCHUP_NOTHING;
}

static void first_step(struct catchup *c, uint64_t step)
{
    if (c->next == CATCHUP_NOTHING)
        c->next = c->oldest = step;
}

uint64_t catchup_needed(const struct catchup *c)
{
    uint64_t needed = c->next;

    for (uint64_t i = 0; i < c->chunk_count && c->current < c->here; i++)
        if (c->version[i] < needed)
            needed = c->version[i];
    return needed;
}

bool catchup_record(struct catchup *c, uint64_t step, uint64_t plan)
{
    first_step(c, step);
    if (step != c->next)
        return false;
    if (step - c->oldest == CATCHUP_RECORDS_MAX) {
        c->oldest = catchup_needed(c);
        if (step - c->oldest == CATCHUP_RECORDS_MAX)
            return false;
    }
    c->next++;
    c->current = 0;
    c->plan = plan;
    return true;
}

bool catchup_chunk(struct catchup *c, uint64_t chunk, uint64_t version)
{
    first_step(c, version);
    if (chunk >= c->chunk_count || version < c->oldest || version > c->next)
        return false;
    if (c->version[chunk] == CATCHUP_NOTHING)
        c->here++;
    else if (c->version[chunk] == c->next)
        c->current--;
    c->version[chunk] = version;
    c->current += version == c->next;
    return true;
}

bool catchup_due(const struct catchup *c, uint64_t chunk, uint64_t *step)
{
    assert(chunk < c->chunk_count);
    if (c->version[chunk] == CATCHUP_NOTHING || c->version[chunk] == c->next)
        return false;
    *step = c->version[chunk];
    return true;
}

void catchup_updated(struct catchup *c, uint64_t chunk)
{
    assert(c->version[chunk] < c->next);
    c->version[chunk]++;
    c->current += c->version[chunk] == c->next;
}

bool catchup_whole(const struct catchup *c, uint64_t *version, uint64_t *plan)
{
    if (c->here < c->chunk_count || c->current < c->chunk_count || c->chunk_count == 0)
        return false;
    *version = c->next;
    *plan = c->plan;
    return true;
}

uint64_t catchup_stage(struct catchup_source *s, uint64_t chunk_count, uint64_t budget,
                       uint64_t *first)
{
    uint64_t left = chunk_count - s->next_chunk, count = left < budget ? left : budget;

    *first = s->next_chunk;
    s->next_chunk += count;
    return count;
}
