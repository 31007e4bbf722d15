/* A spare beside the group: the hands of train/catchup, which keeps the books.
 *
 * It connects to all members of the generation it views, and subscribes to one: from then on it
 * gets a record of every step (the raw reduced gradient and what else the update needs), and the
 * state in chunks. If that member goes, or drops it because it was too slow, it subscribes to the
 * next.
 *
 * Invariants
 *   1. Only frames of the source that carry the serial number of the subscription change anything.
 *   2. The state is of one version only while `whole`; the machine hears BEHIND when that ends.
 *   3. It is whole only with the hash that the source has told of that version, if it has. */
#include "train/trainer.h"

#include "base/exits.h"

#include <stdlib.h>
#include <string.h>

static void forget_record(struct trainer *t, struct record *r)
{
    if (r->reduced == NULL)
        return;
    t->ops->stream_sync(t->stream); /* updates that read it */
    t->ops->release(t->device, r->reduced);
    r->reduced = NULL;
}

static void forget_records(struct trainer *t)
{
    for (uint32_t i = 0; i < CATCHUP_RECORDS_MAX; i++)
        forget_record(t, &t->joiner.records[i]);
}

/* Asks for everything anew, of the next member that is connected. */
static void subscribe(struct trainer *t)
{
    struct joiner *j = &t->joiner;
    uint32_t world = t->elastic.view.world;
    bool again = j->whole;

    forget_records(t);
    j->source = COMM_NO_PEER;
    j->whole = false;
    j->told_hash = 0;
    j->serial++;
    catchup_begin(&j->catchup, j->version, state_chunk_count(&t->state));
    for (uint32_t i = 0; i < world && j->source == COMM_NO_PEER; i++) {
        struct comm_frame request = {.kind = COMM_REQUEST, .value = {REQUEST_RECORDS, 0},
                                     .flags = j->serial};
        uint32_t peer = comm_peer_at(t->comm, j->next_rank++ % world);

        if (peer != COMM_NO_PEER && comm_send(t->comm, peer, &request, NULL, 0, NULL) == COMM_OK)
            j->source = peer;
    }
    if (again) {
        struct elastic_event event = trainer_event_of(ELASTIC_BEHIND);

        trainer_event(t, &event);
    }
}

/* From the start, and that is said: who never gets in can see why. */
static void again(struct trainer *t, const char *why)
{
    char text[200];

    (void)snprintf(text, sizeof text, "catching up begins again (restart %u): %s",
                   ++t->joiner.restarts, why);
    report_note(t, text);
    subscribe(t);
}

static void begin_now(struct trainer *t)
{
    const struct elastic_roster *view = &t->elastic.view;
    struct comm_member *members = calloc(view->world, sizeof *members);
    struct comm_generation generation;
    struct joiner *j = &t->joiner;

    if (j->version == NULL)
        j->version = calloc(state_chunk_count(&t->state), sizeof *j->version);
    if (members == NULL || j->version == NULL) {
        free(members);
        trainer_exit(t, EXIT_UNAVAILABLE, "out of memory for catching up");
        return;
    }
    for (uint32_t rank = 0; rank < view->world; rank++) {
        memcpy(members[rank].id, view->members[rank].id.byte, COMM_ID_BYTES);
        members[rank].rank = rank;
        memcpy(members[rank].address, t->view_addresses.address[rank], COMM_ADDRESS_BYTES);
    }
    memset(&generation, 0, sizeof generation);
    generation.number = view->number;
    generation.nonce = view->nonce;
    memcpy(generation.key, t->view_key, COMM_KEY_BYTES);
    generation.members = members;
    generation.member_count = view->world;
    generation.me = COMM_VISITOR;
    j->active = true;
    j->whole = false;
    j->restarts = 0;
    j->source = COMM_NO_PEER;
    j->serial++;
    j->next_rank = t->me.byte[0]; /* spares spread over the members */
    fault_point(t, "catchup", 0);
    (void)comm_enter(t->comm, &generation);
    free(members);
}

void joiner_begin(struct trainer *t)
{
    compute_when_idle(t, begin_now);
}

/* All members of the view are connected. */
void joiner_connected(struct trainer *t, uint64_t number)
{
    struct joiner *j = &t->joiner;

    if (j->active && number == t->elastic.view.number && j->source == COMM_NO_PEER)
        subscribe(t);
}

void joiner_end(struct trainer *t)
{
    if (t->when_idle == begin_now)
        t->when_idle = NULL;
    t->joiner.active = false;
    t->joiner.source = COMM_NO_PEER;
    forget_records(t);
}

/* Applies the records that a chunk lacks; false: one is not here. */
static bool advance_chunk(struct trainer *t, uint64_t chunk)
{
    struct joiner *j = &t->joiner;
    uint64_t step, first = chunk * STATE_CHUNK_BLOCKS, count = t->state.block_count - first;

    if (count > STATE_CHUNK_BLOCKS)
        count = STATE_CHUNK_BLOCKS;
    while (catchup_due(&j->catchup, chunk, &step)) {
        const struct record *r = &j->records[step % CATCHUP_RECORDS_MAX];

        if (r->reduced == NULL || r->step != step)
            return false;
        state_update(&t->state, t->stream, step, r->reduced, r->clip, first, count,
                     t->state.block_hashes);
        catchup_updated(&j->catchup, chunk);
    }
    return true;
}

/* The whole state is of one version: does it have the hash that its source has told? What flipped
 * in the memory of either since it was hashed there has not. */
static bool is_sound(struct trainer *t, uint64_t version)
{
    const struct joiner *j = &t->joiner;

    if (!j->whole)
        state_hash_all(&t->state, t->stream);
    t->hash = state_hash(&t->state, t->stream);
    t->hashed = true;
    return j->told_hash == 0 || j->told_version != version || j->told_hash == t->hash;
}

/* It is sound, and the sums of its step can begin. */
static void tell_whole(struct trainer *t, uint64_t version, uint64_t plan)
{
    struct joiner *j = &t->joiner;
    struct elastic_event event =
        trainer_event_of(j->whole ? ELASTIC_RECORD_APPLIED : ELASTIC_CAUGHT_UP);

    t->state.applied = version;
    t->reduced_whole = false; /* records have memory of their own */
    j->whole = true;
    forget_records(t);
    if (version < t->steps_total) {
        struct plan_mask present = plan_present(&t->shape, version);

        sums_begin(&t->sums, t->shape.shards, &present);
    }
    event.version = version;
    event.hash = t->hash;
    event.plan = plan;
    trainer_event(t, &event);
}

static bool take_chunk(struct trainer *t, const struct comm_frame *frame, const float *payload)
{
    uint64_t first, count, n = t->state.spec->param_count;

    state_chunk(&t->state, frame->chunk, &first, &count);
    for (uint64_t k = 0; k < 3; k++)
        t->ops->copy(t->stream, t->state.values + k * n + first, payload + k * count,
                     count * sizeof(float));
    return catchup_chunk(&t->joiner.catchup, frame->chunk, frame->step) &&
           advance_chunk(t, frame->chunk);
}

/* Takes over the payload. */
static bool take_record(struct trainer *t, const struct comm_frame *frame, float *payload)
{
    struct joiner *j = &t->joiner;
    struct record *r = &j->records[frame->step % CATCHUP_RECORDS_MAX];
    bool fits = catchup_record(&j->catchup, frame->step, frame->value[0]);

    forget_record(t, r);
    r->step = frame->step;
    memcpy(&r->clip, &frame->index, sizeof r->clip);
    r->reduced = payload;
    for (uint64_t i = 0; i < j->catchup.chunk_count && fits; i++)
        fits = advance_chunk(t, i);
    return fits;
}

static bool wanted(const struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    const struct joiner *j = &t->joiner;

    return j->active && j->source != COMM_NO_PEER && peer == j->source &&
           frame->flags == j->serial;
}

void *joiner_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    uint64_t first, count;

    if (!wanted(t, peer, frame))
        return NULL;
    if (frame->kind == COMM_RECORD)
        return frame->length == t->state.spec->gradient_count * sizeof(float)
                   ? t->ops->alloc(t->device, frame->length)
                   : NULL;
    if (frame->kind != COMM_STATE || frame->chunk >= state_chunk_count(&t->state))
        return NULL;
    state_chunk(&t->state, frame->chunk, &first, &count);
    return frame->length == 3 * count * sizeof(float) ? t->ops->alloc(t->device, frame->length)
                                                      : NULL;
}

static void take_hash(struct trainer *t, const struct comm_frame *frame)
{
    bool record = frame->kind == COMM_RECORD;

    t->joiner.told_version = record ? frame->step + 1 : frame->step;
    t->joiner.told_hash = frame->value[record ? 1 : 0];
}

void joiner_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame, float *payload)
{
    uint64_t version, plan;
    bool fits;

    if (!wanted(t, peer, frame)) {
        t->ops->release(t->device, payload);
        return;
    }
    take_hash(t, frame);
    if (frame->kind == COMM_RECORD) {
        fits = take_record(t, frame, payload);
    } else {
        fits = take_chunk(t, frame, payload);
        t->ops->stream_sync(t->stream);
        t->ops->release(t->device, payload);
    }
    if (!fits)
        again(t, "a record is missing");
    else if (!catchup_whole(&t->joiner.catchup, &version, &plan))
        return;
    else if (is_sound(t, version))
        tell_whole(t, version, plan);
    else
        again(t, "what came differs from what its source has hashed");
}

/* The source sends no more records. */
void joiner_dropped(struct trainer *t, uint32_t peer, uint32_t serial)
{
    if (t->joiner.active && t->joiner.source == peer && t->joiner.serial == serial)
        again(t, "this worker is too slow for the group, or the group has no room for it");
}

void joiner_lost(struct trainer *t, uint32_t peer)
{
    if (t->joiner.active && t->joiner.source == peer)
        again(t, "its source is gone");
}

void joiner_release(struct trainer *t)
{
    forget_records(t);
    free(t->joiner.version);
    t->joiner.version = NULL;
}
