/* Serving spares that catch up: a record of every step, and the state in chunks.
 *
 * Invariants
 *   1. A visitor gets the record of every update since it was added, in order, or a NOTE that it
 *      was dropped.
 *   2. What is sent was copied between two updates, and carries the version it was copied at.
 *   3. All that is sent of one subscription carries its serial number in `flags`.
 *   4. A record carries the hash of the version that it leads to, a chunk that of its own version
 *      (0: there is none), so that the spare can tell whether it holds what its source does. */
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

#define STAGE_BYTES (64u << 20) /* of the state, for one spare between two updates */
#define QUEUED_MAX  256         /* blobs under way to a spare before it must start again */

static struct blob *blob_new(size_t floats)
{
    struct blob *blob = malloc(sizeof *blob + floats * sizeof(float));

    if (blob != NULL) {
        blob->references = 0;
        blob->bytes = floats * sizeof(float);
    }
    return blob;
}

static bool send_blob(struct trainer *t, struct visitor *v, struct comm_frame *frame,
                      struct blob *blob)
{
    struct comm_part part = {blob->data, blob->bytes};

    frame->flags = v->serial;
    if (v->queued >= QUEUED_MAX || comm_send(t->comm, v->peer, frame, &part, 1, blob) != COMM_OK)
        return false;
    blob->references++;
    v->queued++;
    return true;
}

/* It hears no more records, and is told so. */
static void drop(struct trainer *t, struct visitor *v)
{
    struct comm_frame note = {.kind = COMM_NOTE, .value = {REQUEST_RECORDS, 0},
                              .flags = v->serial};

    v->used = false;
    (void)comm_send(t->comm, v->peer, &note, NULL, 0, NULL);
}

static uint64_t hash_of(const struct trainer *t)
{
    return t->hashed ? t->hash : 0;
}

/* One chunk of parameters and moments as they are now. */
static bool send_chunk(struct trainer *t, struct visitor *v, uint64_t chunk)
{
    struct comm_frame frame = {.kind = COMM_STATE, .step = t->state.applied,
                               .value = {hash_of(t), 0}, .chunk = (uint32_t)chunk};
    uint64_t first, count, n = t->state.spec->param_count;
    struct blob *blob;
    bool sent;

    state_chunk(&t->state, chunk, &first, &count);
    blob = blob_new(3 * count);
    if (blob == NULL)
        return false;
    for (uint64_t k = 0; k < 3; k++)
        t->ops->download(t->stream, blob->data + k * count, t->state.values + k * n + first,
                         count * sizeof(float));
    t->ops->stream_sync(t->stream);
    sent = send_blob(t, v, &frame, blob);
    if (!sent)
        free(blob);
    return sent;
}

static void stage_chunks(struct trainer *t, struct visitor *v)
{
    uint64_t budget = STAGE_BYTES / (3 * STATE_CHUNK_BLOCKS * STATE_BLOCK * sizeof(float));
    uint64_t first, count;

    if (budget > (QUEUED_MAX - v->queued) / 2)
        budget = (QUEUED_MAX - v->queued) / 2; /* room for records */
    count = catchup_stage(&v->source, state_chunk_count(&t->state), budget, &first);
    for (uint64_t i = 0; i < count; i++)
        if (!send_chunk(t, v, first + i)) {
            drop(t, v);
            return;
        }
}

void visitors_add(struct trainer *t, uint32_t peer, uint32_t serial)
{
    struct visitor *free_one = NULL;

    visitors_lost(t, peer); /* its older subscription */
    for (int i = 0; i < VISITORS_MAX && free_one == NULL; i++)
        if (!t->visitors[i].used)
            free_one = &t->visitors[i];
    if (free_one == NULL) {
        drop(t, &(struct visitor){.peer = peer, .serial = serial});
        return;
    }
    *free_one = (struct visitor){.used = true, .peer = peer, .serial = serial};
    if (t->elastic.state != ELASTIC_STATE_APPLYING)
        stage_chunks(t, free_one);
}

/* After an update: its record to every spare, and more chunks. */
void visitors_applied(struct trainer *t, uint64_t plan)
{
    struct comm_frame frame = {.kind = COMM_RECORD, .step = t->apply_step,
                               .value = {plan, hash_of(t)}};
    struct blob *blob = NULL;

    memcpy(&frame.index, &t->apply_clip, sizeof frame.index); /* the clip factor's bits */
    for (int i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &t->visitors[i];

        if (!v->used)
            continue;
        if (blob == NULL) {
            blob = blob_new(t->state.spec->gradient_count);
            if (blob != NULL) {
                t->ops->download(t->stream, blob->data, t->state.reduced, blob->bytes);
                t->ops->stream_sync(t->stream);
            }
        }
        if (blob == NULL || !send_blob(t, v, &frame, blob))
            drop(t, v);
        else
            stage_chunks(t, v);
    }
    if (blob != NULL && blob->references == 0)
        free(blob);
}

void visitors_sent(struct trainer *t, uint32_t peer, struct blob *blob)
{
    for (int i = 0; i < VISITORS_MAX; i++)
        if (t->visitors[i].used && t->visitors[i].peer == peer && t->visitors[i].queued > 0)
            t->visitors[i].queued--;
    if (--blob->references == 0)
        free(blob);
}

void visitors_lost(struct trainer *t, uint32_t peer)
{
    for (int i = 0; i < VISITORS_MAX; i++)
        if (t->visitors[i].peer == peer)
            t->visitors[i].used = false;
}

void visitors_clear(struct trainer *t)
{
    memset(t->visitors, 0, sizeof t->visitors);
}
