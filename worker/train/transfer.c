/* Copies of R(s) or of the whole state for a member that regroups; and which frame that is no
 * exchange is whose.
 *
 * A member that regroups asks one that stands at the generation's step. The holder's state, and its
 * R if it is whole, stay as they are until that step is applied, which takes the asker's own word,
 * so they are sent without a copy. R may be torn when the generation begins: results of the step
 * that was broken off are written over it once all members of *that* generation had applied the
 * step before, but who comes back from a checkpoint was none of them. Then only the state is
 * served, with the hash that its holder knows of it: bits that have flipped in its memory since are
 * not taken over. */
#include "train/trainer.h"

#define COPY_BYTES (8u << 20) /* of one frame of a copy */

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

static void ask_for_copy(struct trainer *t)
{
    struct comm_frame frame = {.kind = COMM_REQUEST, .step = t->copy_version};

    if (t->copy_version == 0)
        return; /* its holder was lost meanwhile */
    frame.value[0] = t->copy_state ? REQUEST_STATE : REQUEST_REDUCED;
    fault_point(t, "copy", t->copy_version);
    if (t->copy_peer == COMM_NO_PEER ||
        comm_send(t->comm, t->copy_peer, &frame, NULL, 0, NULL) != COMM_OK)
        copied(t, false, t->copy_version);
}

void transfer_copy(struct trainer *t, const struct elastic_action *action)
{
    t->copy_state = action->type == ELASTIC_DO_COPY_STATE;
    t->copy_version = action->version;
    t->copy_got = 0;
    t->copy_bytes = t->copy_state ? state_value_bytes(&t->state) : reduced_bytes(t);
    t->copy_peer = comm_peer_at(t->comm, action->from);
    if (t->copy_state)
        compute_when_idle(t, ask_for_copy);
    else
        ask_for_copy(t);
}

static void refuse_copy(struct trainer *t, uint32_t peer, const struct comm_frame *request)
{
    struct comm_frame note = {.kind = COMM_NOTE, .step = request->step,
                              .value = {request->value[0], 0}};

    (void)comm_send(t->comm, peer, &note, NULL, 0, NULL);
}

static void serve_copy(struct trainer *t, uint32_t peer, const struct comm_frame *request)
{
    bool state = request->value[0] == REQUEST_STATE;
    const uint8_t *bytes = (const uint8_t *)(state ? t->state.values : t->state.reduced);
    uint64_t all = state ? state_value_bytes(&t->state) : reduced_bytes(t);
    struct comm_frame frame = {.kind = state ? COMM_STATE : COMM_REDUCED, .step = request->step,
                               .value = {t->hashed ? t->hash : 0, 0}};

    fault_point(t, "serve", request->step);
    if (t->state.applied != request->step || (!state && !t->reduced_whole)) {
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
    if (!t->copy_state)
        t->reduced_whole = false; /* until the update that it is for is done */
    return into + frame->offset;
}

/* The whole state has come: is it what its holder says of it? 0: it has no hash of it. */
static bool take_copied_state(struct trainer *t, uint64_t hash)
{
    struct plan_mask present;

    t->reduced_whole = false;
    trainer_rehash(t);
    if (hash != 0 && hash != t->hash) {
        report_warning(t, "the copy of the state differs from what its holder has hashed: corrupt");
        return false;
    }
    t->state.applied = t->copy_version;
    if (t->state.applied < t->steps_total) {
        present = plan_present(&t->shape, t->state.applied);
        sums_begin(&t->sums, t->shape.shards, &present);
    }
    return true;
}

static void copy_frame(struct trainer *t, const struct comm_frame *frame)
{
    bool ok = true;

    t->copy_got += frame->length;
    if (t->copy_version == 0 || t->copy_got < t->copy_bytes)
        return;
    if (t->copy_state)
        ok = take_copied_state(t, frame->value[0]);
    copied(t, ok, t->copy_version);
}

/* ---- frames --------------------------------------------------------------------------------- */

/* Is it memory of the state itself, where a copy is received? */
static bool is_copy(const struct trainer *t, const void *payload)
{
    const uint8_t *at = payload, *values = (const uint8_t *)t->state.values,
                  *reduced = (const uint8_t *)t->state.reduced;

    return (at >= values && at < values + state_value_bytes(&t->state)) ||
           (at >= reduced && at < reduced + reduced_bytes(t));
}

void *transfer_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    return t->joiner.active ? joiner_place(t, peer, frame) : copy_place(t, peer, frame);
}

static void on_request(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    if (frame->value[0] == REQUEST_RECORDS)
        visitors_add(t, peer, frame->flags);
    else
        serve_copy(t, peer, frame);
}

static void on_note(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    if (frame->value[0] == REQUEST_RECORDS)
        joiner_dropped(t, peer, frame->flags);
    else if (t->copy_version != 0 && peer == t->copy_peer)
        copied(t, false, t->copy_version);
}

void transfer_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    if (frame->kind == COMM_REQUEST)
        on_request(t, peer, frame);
    else if (frame->kind == COMM_NOTE)
        on_note(t, peer, frame);
    else if (payload != NULL && is_copy(t, payload))
        copy_frame(t, frame);
    else if (payload != NULL)
        joiner_frame(t, peer, frame, payload);
}

/* A frame that will not come: memory of its own is given back. */
void transfer_drop(struct trainer *t, uint32_t peer, const struct comm_frame *frame, void *payload)
{
    (void)peer;
    (void)frame;
    if (!is_copy(t, payload))
        t->ops->release(t->device, payload);
}

void transfer_lost(struct trainer *t, uint32_t peer)
{
    visitors_lost(t, peer);
    joiner_lost(t, peer);
    if (t->copy_version != 0 && peer == t->copy_peer)
        copied(t, false, t->copy_version);
}
