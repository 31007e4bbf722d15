/* Copies: R(s) or the whole state for a member that regroups, and the catch-up of a spare beside the group.
 *
 * A member that regroups asks one that stands at the generation's step. The holder's R and state stay as they are
 * until that step is applied, which takes the asker's own sums, so they are sent without a copy.
 *
 * A spare subscribes to one member: from then on it gets a record of every step (the raw reduced gradient and
 * what else the update needs). Then it gets the state in chunks, each with the version at which it was copied
 * between two updates, at most STAGE_BYTES a step. Since the update is element-wise, a chunk of version v and the
 * records from v on give the same bits as having been there. */
#include "train/trainer.h"

#include "base/exits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BLOCKS 16                      /* blocks of the state in one chunk */
#define STAGE_BYTES  (64u << 20)             /* staged for one spare between two updates */
#define QUEUED_MAX   256                     /* blobs under way to a spare before it must start again */
#define COPY_BYTES   (8u << 20)              /* of one frame of a copy */

enum what { WHAT_REDUCED = 1, WHAT_STATE = 2, WHAT_RECORDS = 3 };

static uint64_t param_count(const struct trainer *t)
{
    return t->state.spec->param_count;
}

static uint64_t reduced_bytes(const struct trainer *t)
{
    return t->state.spec->gradient_count * sizeof(float);
}

static void copied(struct trainer *t, bool ok, uint64_t version)
{
    struct elastic_event event = trainer_event_of(ELASTIC_COPIED);

    t->copy_version = 0;
    event.ok = ok;
    event.version = version;
    event.hash = t->hash;
    trainer_event(t, &event);
}

/* ---- copies for a member that regroups ------------------------------------------------------ */

void transfer_copy(struct trainer *t, const struct elastic_action *action)
{
    struct comm_frame frame = {.kind = COMM_REQUEST, .step = action->version};

    t->copy_state = action->type == ELASTIC_DO_COPY_STATE;
    t->copy_version = action->version;
    t->copy_got = 0;
    t->copy_bytes = t->copy_state ? state_value_bytes(&t->state) : reduced_bytes(t);
    t->copy_peer = comm_peer_at(t->comm, action->from);
    frame.value[0] = t->copy_state ? WHAT_STATE : WHAT_REDUCED;
    fault_point(t, "copy", action->version);
    if (t->copy_peer == COMM_NO_PEER ||
        comm_send(t->comm, t->copy_peer, &frame, NULL, 0, NULL) != COMM_OK)
        copied(t, false, action->version);
}

static void refuse_copy(struct trainer *t, uint32_t peer, const struct comm_frame *request)
{
    struct comm_frame note = {.kind = COMM_NOTE, .step = request->step,
                              .value = {request->value[0], 0}};

    (void)comm_send(t->comm, peer, &note, NULL, 0, NULL);
}

static void serve_copy(struct trainer *t, uint32_t peer, const struct comm_frame *request)
{
    bool state = request->value[0] == WHAT_STATE;
    const uint8_t *bytes = (const uint8_t *)(state ? t->state.values : t->state.reduced);
    uint64_t all = state ? state_value_bytes(&t->state) : reduced_bytes(t);
    struct comm_frame frame = {.kind = state ? COMM_STATE : COMM_REDUCED, .step = request->step};

    fault_point(t, "serve", request->step);
    if (t->state.applied != request->step || (!state && !t->elastic.has_reduced)) {
        refuse_copy(t, peer, request);
        return;
    }
    for (uint64_t at = 0; at < all; at += COPY_BYTES) {
        struct comm_part part = {bytes + at, all - at < COPY_BYTES ? all - at : COPY_BYTES};

        frame.offset = at;
        (void)comm_send(t->comm, peer, &frame, &part, 1, NULL);
    }
}

static void *copy_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    uint8_t *into = (uint8_t *)(t->copy_state ? t->state.values : t->state.reduced);
    bool wanted = frame->kind == (t->copy_state ? (uint32_t)COMM_STATE : (uint32_t)COMM_REDUCED);

    if (!wanted || peer != t->copy_peer || t->copy_version == 0 || frame->step != t->copy_version ||
        frame->offset > t->copy_bytes || frame->length > t->copy_bytes - frame->offset)
        return NULL;
    return into + frame->offset;
}

static void copy_frame(struct trainer *t, const struct comm_frame *frame)
{
    struct plan_mask present;

    t->copy_got += frame->length;
    if (t->copy_version == 0 || t->copy_got < t->copy_bytes)
        return;
    if (t->copy_state) {
        t->state.applied = t->copy_version;
        state_hash_all(&t->state, t->stream);
        t->hash = state_hash(&t->state, t->stream);
        if (t->state.applied < t->steps_total) {
            present = plan_present(&t->shape, t->state.applied);
            sums_begin(&t->sums, t->shape.shards, &present);
        }
    }
    copied(t, true, t->copy_version);
}

/* ---- serving a spare ------------------------------------------------------------------------ */

static uint64_t chunk_total(const struct trainer *t)
{
    return (t->state.block_count + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
}

/* Elements of a chunk of the parameters. */
static void chunk_range(const struct trainer *t, uint64_t chunk, uint64_t *first, uint64_t *count)
{
    uint64_t n = param_count(t), size = (uint64_t)CHUNK_BLOCKS * STATE_BLOCK;

    *first = chunk * size;
    *count = n - *first < size ? n - *first : size;
}

static struct blob *blob_new(size_t floats)
{
    struct blob *blob = malloc(sizeof *blob + floats * sizeof(float));

    if (blob != NULL) {
        blob->references = 0;
        blob->bytes = floats * sizeof(float);
    }
    return blob;
}

static bool send_blob(struct trainer *t, struct visitor *v, const struct comm_frame *frame,
                      struct blob *blob)
{
    struct comm_part part = {blob->data, blob->bytes};

    if (comm_send(t->comm, v->peer, frame, &part, 1, blob) != COMM_OK)
        return false;
    blob->references++;
    v->queued++;
    return true;
}

/* Chunks of the state as it is now, at most STAGE_BYTES of them. */
static void stage_chunks(struct trainer *t, struct visitor *v)
{
    uint64_t budget = STAGE_BYTES, n = param_count(t);

    while (v->next_chunk < chunk_total(t)) {
        struct comm_frame frame = {.kind = COMM_STATE, .step = t->state.applied};
        uint64_t first, count;
        struct blob *blob;

        chunk_range(t, v->next_chunk, &first, &count);
        if (3 * count * sizeof(float) > budget)
            return;
        blob = blob_new(3 * count);
        if (blob == NULL)
            return;
        for (uint64_t k = 0; k < 3; k++)
            memcpy(blob->data + k * count, t->state.values + k * n + first, count * sizeof(float));
        frame.offset = v->next_chunk;
        if (!send_blob(t, v, &frame, blob)) {
            free(blob);
            return;
        }
        budget -= blob->bytes;
        v->next_chunk++;
    }
}

static void add_visitor(struct trainer *t, uint32_t peer)
{
    for (int i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &t->visitors[i];

        if (v->used)
            continue;
        memset(v, 0, sizeof *v);
        v->used = true;
        v->peer = peer;
        if (t->elastic.state != ELASTIC_STATE_APPLYING)
            stage_chunks(t, v);
        return;
    }
}

/* After an update: its record to every spare, and more chunks. */
void transfer_applied(struct trainer *t, uint64_t plan)
{
    struct comm_frame frame = {.kind = COMM_RECORD, .step = t->apply_step, .value = {plan, 0}};
    struct blob *blob = NULL;
    uint32_t clip_bits;

    memcpy(&clip_bits, &t->apply_clip, sizeof clip_bits);
    frame.value[1] = clip_bits;
    for (int i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &t->visitors[i];

        if (!v->used)
            continue;
        if (blob == NULL) {
            blob = blob_new(t->state.spec->gradient_count);
            if (blob == NULL)
                return;
            memcpy(blob->data, t->state.reduced, blob->bytes);
        }
        if (v->queued > QUEUED_MAX || !send_blob(t, v, &frame, blob)) {
            v->used = false; /* it hears no more records, and starts again */
            continue;
        }
        stage_chunks(t, v);
    }
    if (blob != NULL && blob->references == 0)
        free(blob);
}

void transfer_sent(struct trainer *t, uint32_t peer, void *tag)
{
    struct blob *blob = tag;

    for (int i = 0; i < VISITORS_MAX; i++)
        if (t->visitors[i].used && t->visitors[i].peer == peer && t->visitors[i].queued > 0)
            t->visitors[i].queued--;
    if (--blob->references == 0)
        free(blob);
}

void transfer_lost(struct trainer *t, uint32_t peer)
{
    for (int i = 0; i < VISITORS_MAX; i++)
        if (t->visitors[i].peer == peer)
            t->visitors[i].used = false;
    if (t->copy_version != 0 && peer == t->copy_peer)
        copied(t, false, t->copy_version);
}

/* ---- a spare -------------------------------------------------------------------------------- */

static void forget_records(struct trainer *t)
{
    for (uint32_t i = 0; i < t->record_count; i++)
        free(t->records[i].reduced);
    t->record_count = 0;
}

/* Asks the source anew for everything. */
static void subscribe(struct trainer *t)
{
    struct comm_frame frame = {.kind = COMM_REQUEST, .value = {WHAT_RECORDS, 0}};
    uint32_t peer = comm_peer_at(t->comm, t->source_rank);

    if (peer == COMM_NO_PEER)
        return;
    forget_records(t);
    for (uint64_t i = 0; i < t->chunk_count; i++)
        t->chunk_version[i] = UINT64_MAX;
    t->chunks_here = 0;
    t->caught_up = false;
    t->subscribed = comm_send(t->comm, peer, &frame, NULL, 0, NULL) == COMM_OK;
}

void transfer_catch_up(struct trainer *t)
{
    const struct elastic_roster *view = &t->elastic.view;
    struct comm_member *members = calloc(view->world, sizeof *members);
    struct comm_generation generation;

    t->chunk_count = chunk_total(t);
    if (t->chunk_version == NULL)
        t->chunk_version = calloc(t->chunk_count, sizeof *t->chunk_version);
    if (members == NULL || t->chunk_version == NULL) {
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
    t->catching_up = true;
    t->subscribed = t->caught_up = false;
    t->source_rank = t->me.byte[0] % view->world;
    fault_point(t, "catchup", 0);
    (void)comm_enter(t->comm, &generation);
    free(members);
}

/* All members of the view are connected. */
void transfer_connected(struct trainer *t, uint32_t peer)
{
    (void)peer;
    if (t->catching_up && !t->subscribed)
        subscribe(t);
}

void transfer_end_catch_up(struct trainer *t)
{
    t->catching_up = t->subscribed = t->caught_up = false;
    forget_records(t);
}

/* Applies the records that a chunk lacks; true when it stands at the newest version. */
static void advance_chunk(struct trainer *t, uint64_t chunk)
{
    uint64_t first = chunk * CHUNK_BLOCKS, count = t->state.block_count - first;

    if (count > CHUNK_BLOCKS)
        count = CHUNK_BLOCKS;
    for (uint32_t i = 0; i < t->record_count; i++) {
        const struct record *r = &t->records[i];

        if (r->step != t->chunk_version[chunk])
            continue;
        state_update(&t->state, t->stream, r->step, r->reduced, r->clip, first, count,
                     t->state.block_hashes);
        t->chunk_version[chunk]++;
    }
}

/* Version of the whole state, when every chunk has the same; else UINT64_MAX. */
static uint64_t common_version(const struct trainer *t)
{
    for (uint64_t i = 1; i < t->chunk_count; i++)
        if (t->chunk_version[i] != t->chunk_version[0])
            return UINT64_MAX;
    return t->chunk_version[0];
}

static void tell_progress(struct trainer *t, uint64_t plan)
{
    uint64_t version = t->chunks_here == t->chunk_count ? common_version(t) : UINT64_MAX;
    struct elastic_event event =
        trainer_event_of(t->caught_up ? ELASTIC_RECORD_APPLIED : ELASTIC_CAUGHT_UP);
    bool newest = t->record_count == 0 || t->records[t->record_count - 1].step + 1 == version;
    struct plan_mask present;

    if (version == UINT64_MAX || !newest)
        return;
    if (!t->caught_up)
        state_hash_all(&t->state, t->stream);
    t->state.applied = version;
    t->hash = state_hash(&t->state, t->stream);
    t->caught_up = true;
    forget_records(t);
    if (version < t->steps_total) {
        present = plan_present(&t->shape, version);
        sums_begin(&t->sums, t->shape.shards, &present);
    }
    event.version = version;
    event.hash = t->hash;
    event.plan = plan;
    trainer_event(t, &event);
}

static void on_chunk(struct trainer *t, const struct comm_frame *frame, float *payload)
{
    uint64_t first, count, n = param_count(t);

    chunk_range(t, frame->offset, &first, &count);
    if (t->chunk_version[frame->offset] == UINT64_MAX)
        t->chunks_here++;
    for (uint64_t k = 0; k < 3; k++)
        memcpy(t->state.values + k * n + first, payload + k * count, count * sizeof(float));
    t->chunk_version[frame->offset] = frame->step;
    free(payload);
    advance_chunk(t, frame->offset);
    tell_progress(t, 0);
}

static void on_record(struct trainer *t, const struct comm_frame *frame, float *payload)
{
    struct record *r;
    uint32_t clip_bits = (uint32_t)frame->value[1];

    if (t->record_count == RECORDS_MAX ||
        (t->record_count > 0 && t->records[t->record_count - 1].step + 1 != frame->step)) {
        free(payload);
        subscribe(t); /* a gap, or it cannot keep up: from the start */
        return;
    }
    r = &t->records[t->record_count++];
    r->step = frame->step;
    r->plan = frame->value[0];
    memcpy(&r->clip, &clip_bits, sizeof r->clip);
    r->reduced = payload;
    for (uint64_t i = 0; i < t->chunk_count; i++)
        if (t->chunk_version[i] != UINT64_MAX)
            advance_chunk(t, i);
    tell_progress(t, frame->value[0]);
}

/* ---- frames --------------------------------------------------------------------------------- */

void *transfer_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    uint64_t first, count;

    if (!t->catching_up)
        return copy_place(t, peer, frame);
    if (!t->subscribed)
        return NULL;
    if (frame->kind == COMM_RECORD && frame->length == reduced_bytes(t))
        return malloc(frame->length);
    if (frame->kind != COMM_STATE || frame->offset >= t->chunk_count)
        return NULL;
    chunk_range(t, frame->offset, &first, &count);
    return frame->length == 3 * count * sizeof(float) ? malloc(frame->length) : NULL;
}

void transfer_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    bool wanted = t->catching_up && t->subscribed;

    if (frame->kind == COMM_REQUEST && frame->value[0] == WHAT_RECORDS) {
        transfer_lost(t, peer);
        add_visitor(t, peer);
    } else if (frame->kind == COMM_REQUEST) {
        serve_copy(t, peer, frame);
    } else if (frame->kind == COMM_NOTE) {
        if (t->copy_version != 0 && peer == t->copy_peer)
            copied(t, false, t->copy_version);
    } else if (payload == NULL) {
        return;
    } else if ((uint8_t *)payload >= (uint8_t *)t->state.values &&
               (uint8_t *)payload < (uint8_t *)t->state.values + state_value_bytes(&t->state)) {
        copy_frame(t, frame);
    } else if ((uint8_t *)payload >= (uint8_t *)t->state.reduced &&
               (uint8_t *)payload < (uint8_t *)t->state.reduced + reduced_bytes(t)) {
        copy_frame(t, frame);
    } else if (!wanted) {
        free(payload);
    } else if (frame->kind == COMM_RECORD) {
        on_record(t, frame, payload);
    } else {
        on_chunk(t, frame, payload);
    }
}

/* A frame that will not come: memory of its own is given back. */
void transfer_drop(struct trainer *t, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    uint8_t *at = payload;
    uint8_t *values = (uint8_t *)t->state.values, *reduced = (uint8_t *)t->state.reduced;

    (void)peer;
    if ((at >= values && at < values + state_value_bytes(&t->state)) ||
        (at >= reduced && at < reduced + reduced_bytes(t)))
        return;
    if (frame->kind == COMM_STATE || frame->kind == COMM_RECORD)
        free(payload);
}

void transfer_release(struct trainer *t)
{
    forget_records(t);
    free(t->chunk_version);
    t->chunk_version = NULL;
}
