/* The exchange of a step: exchange.c says what to send and add, comm carries it, the device adds.
 *
 * Invariants
 *   1. Two exchanges may be open: the step at hand and the next, since peers may be one step ahead.
 *   2. R's range of a chunk is written only when every rank has sent its word of the step, that is,
 *      when no member needs R of the step before any more (exchange.c says why the sums are not
 *      enough). From then until the update reduced_whole is false: R is of no step.
 *   3. Pieces are received straight into staging, results straight into R; nothing is copied on the
 *      way.
 *   4. What is sent (tops of the sums, R) does not change before every receiver has it: a top lives
 *      until its step is applied, which takes results that the receivers made of it; R until the
 *      next step's words are in, and for who is not a member then, comm/tcp keeps a copy. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define WORD_HASHED 1u /* in the flags of a word; the bits above it are its sender's --audit */

static void carry_out(struct trainer *t, uint32_t slot, const struct exchange_actions *actions);

/* ---- places --------------------------------------------------------------------------------- */

static const struct model_bucket *bucket_at(const struct trainer *t, uint32_t bucket)
{
    return &t->state.spec->buckets[bucket];
}

/* Elements of my chunk of all buckets before `bucket`. */
static uint64_t chunk_before(const struct trainer *t, uint32_t bucket, uint32_t world, uint32_t me)
{
    uint64_t sum = 0, first, count;

    for (uint32_t b = 0; b < bucket; b++) {
        plan_chunk(bucket_at(t, b)->count, world, me, &first, &count);
        sum += count;
    }
    return sum;
}

static float *piece_place(const struct trainer *t, const struct exchange *x, uint32_t bucket,
                          uint32_t node)
{
    uint32_t world = x->config.world, me = x->config.me;
    uint64_t each = chunk_before(t, t->state.spec->bucket_count, world, me);

    assert((node + 1) * each <= t->staging_floats);
    return t->staging + node * each + chunk_before(t, bucket, world, me);
}

static float *result_place(const struct trainer *t, const struct exchange *x, uint32_t bucket,
                           uint32_t chunk, uint64_t *count)
{
    uint64_t first;

    plan_chunk(bucket_at(t, bucket)->count, x->config.world, chunk, &first, count);
    return t->state.reduced + bucket_at(t, bucket)->offset + first;
}

static bool grow(struct trainer *t, float **memory, size_t *have, size_t need)
{
    if (*have >= need)
        return true;
    t->ops->stream_sync(t->stream);
    t->ops->release(t->device, *memory);
    *memory = t->ops->alloc(t->device, need * sizeof(float));
    *have = *memory != NULL ? need : 0;
    return *memory != NULL;
}

/* Room for the pieces of my chunks of every node, and for values in between. */
static bool make_staging(struct trainer *t)
{
    uint32_t world = t->elastic.generation.world, count;
    struct plan_node nodes[PLAN_NODES_MAX];
    struct plan_mask all = {{0}};
    uint64_t each = chunk_before(t, t->state.spec->bucket_count, world, t->elastic.rank);

    for (uint32_t i = 0; i < t->shape.shards; i++)
        plan_mask_set(&all, i);
    count = plan_all_nodes(t->shape.shards, world, t->elastic.owner, &all, nodes);
    return grow(t, &t->staging, &t->staging_floats, (size_t)(world > 1 ? count * each : 0)) &&
           grow(t, &t->temps, &t->temps_floats, (size_t)(PLAN_TEMPS_MAX * each));
}

void reduce_release(struct trainer *t)
{
    if (t->ops == NULL)
        return;
    t->ops->release(t->device, t->staging);
    t->ops->release(t->device, t->temps);
}

/* ---- opening an exchange -------------------------------------------------------------------- */

static void begin_exchange(struct trainer *t, uint64_t step)
{
    uint32_t slot = (uint32_t)(step % 2);
    struct exchange_config config;

    memset(&config, 0, sizeof config);
    config.step = step;
    config.world = t->elastic.generation.world;
    config.me = t->elastic.rank;
    config.shards = t->shape.shards;
    config.owner = t->elastic.owner;
    config.present = plan_present(&t->shape, step);
    if (step < t->steps_total) {
        config.bucket_count = t->state.spec->bucket_count;
        for (uint32_t b = 0; b < config.bucket_count; b++)
            config.bucket_elements[b] = bucket_at(t, b)->count;
    }
    exchange_begin(t->exchange[slot], &config);
    t->marked_entered[slot] = t->marked_left[slot] = 0;
    t->exchange_step[slot] = step;
    t->exchange_begun[slot] = true;
    t->exchange_started[slot] = false;
}

/* The exchange of this step, opened when its time has come; NULL when it has not. */
static struct exchange *exchange_of(struct trainer *t, uint64_t step)
{
    uint32_t slot = (uint32_t)(step % 2);
    enum elastic_state state = t->elastic.state;

    if (t->exchange_begun[slot] && t->exchange_step[slot] == step)
        return t->exchange[slot];
    if ((step != t->exchange_base && step != t->exchange_base + 1) ||
        (state != ELASTIC_STATE_CONNECTING && state != ELASTIC_STATE_COPYING &&
         state != ELASTIC_STATE_STEPPING && state != ELASTIC_STATE_APPLYING))
        return NULL;
    begin_exchange(t, step);
    return t->exchange[slot];
}

/* The sums are those of the step at hand, and their tops those of the generation. */
void reduce_prepare(struct trainer *t)
{
    struct plan_node nodes[PLAN_NODES_MAX];
    struct plan_mask owned, present;
    uint64_t step = t->elastic.applied;
    uint32_t count;

    if (step >= t->steps_total)
        return;
    present = plan_present(&t->shape, step);
    owned = plan_owned(t->shape.shards, t->elastic.owner, (uint16_t)t->elastic.rank);
    count = plan_nodes(t->shape.shards, &owned, &present, nodes);
    sums_tops(&t->sums, t->stream, nodes, count);
}

void reduce_applied(struct trainer *t)
{
    struct plan_mask present;

    t->exchange_base = t->state.applied;
    if (t->state.applied >= t->steps_total)
        return;
    present = plan_present(&t->shape, t->state.applied);
    sums_begin(&t->sums, t->shape.shards, &present);
}

/* ---- carrying out --------------------------------------------------------------------------- */

static void send_frame(struct trainer *t, uint32_t rank, const struct comm_frame *frame,
                       const void *data, size_t bytes)
{
    uint32_t peer = comm_peer_at(t->comm, rank);
    struct comm_part part = {data, bytes};

    if (peer != COMM_NO_PEER)
        (void)comm_send(t->comm, peer, frame, &part, bytes > 0 ? 1 : 0, NULL);
}

static void send_to_others(struct trainer *t, const struct exchange *x,
                           const struct comm_frame *frame, const void *data, size_t bytes)
{
    for (uint32_t rank = 0; rank < x->config.world; rank++)
        if (rank != x->config.me)
            send_frame(t, rank, frame, data, bytes);
}

static void send_word(struct trainer *t, const struct exchange *x, uint64_t step)
{
    const struct exchange_word *word = &x->word[x->config.me];
    struct comm_frame frame = {.kind = COMM_WORD, .step = step,
                               .value = {word->plan, word->hash},
                               .flags = (word->hashed ? WORD_HASHED : 0) | word->audit << 1};

    send_to_others(t, x, &frame, NULL, 0);
}

static struct exchange_word word_of(const struct comm_frame *frame)
{
    struct exchange_word word = {frame->value[0], frame->value[1],
                                 (frame->flags & WORD_HASHED) != 0, frame->flags >> 1};

    return word;
}

static void send_audit(struct trainer *t, const struct exchange *x, uint64_t step)
{
    struct comm_frame frame = {.kind = COMM_AUDIT, .step = step,
                               .value = {x->audit_hash[x->config.me], 0}};

    send_to_others(t, x, &frame, NULL, 0);
}

static void send_pieces(struct trainer *t, const struct exchange *x, uint64_t step, uint32_t bucket,
                        uint32_t node)
{
    const float *value = sums_value(&t->sums, x->nodes[node].level, x->nodes[node].index);
    struct comm_frame frame = {.kind = COMM_PIECE, .step = step, .bucket = bucket,
                               .level = x->nodes[node].level, .index = x->nodes[node].index};

    for (uint32_t chunk = 0; chunk < x->config.world; chunk++) {
        uint64_t first, count;

        plan_chunk(bucket_at(t, bucket)->count, x->config.world, chunk, &first, &count);
        frame.chunk = chunk;
        if (chunk != x->config.me && count > 0)
            send_frame(t, chunk, &frame, value + bucket_at(t, bucket)->offset + first,
                       count * sizeof(float));
    }
}

static void send_result(struct trainer *t, const struct exchange *x, uint64_t step, uint32_t bucket)
{
    struct comm_frame frame = {.kind = COMM_RESULT, .step = step, .bucket = bucket,
                               .chunk = x->config.me};
    uint64_t count;
    const float *result = result_place(t, x, bucket, x->config.me, &count);

    if (x->config.world > 1)
        t->ops->stream_sync(t->stream); /* it was added there, and leaves from memory */
    send_to_others(t, x, &frame, result, count * sizeof(float));
}

/* All pieces of my chunk, in the order of the tree. */
static void add_chunk(struct trainer *t, const struct exchange *x, uint32_t bucket)
{
    uint64_t first, count, each = t->temps_floats / PLAN_TEMPS_MAX;
    float *slot[PLAN_NODES_MAX + PLAN_TEMPS_MAX];
    float *result = result_place(t, x, bucket, x->config.me, &count);

    t->reduced_whole = false;
    plan_chunk(bucket_at(t, bucket)->count, x->config.world, x->config.me, &first, &count);
    for (uint32_t i = 0; i < x->node_count; i++)
        slot[i] = x->nodes[i].owner == x->config.me
                      ? sums_value(&t->sums, x->nodes[i].level, x->nodes[i].index) +
                            bucket_at(t, bucket)->offset + first
                      : piece_place(t, x, bucket, i);
    for (uint32_t i = 0; i < PLAN_TEMPS_MAX; i++)
        slot[x->node_count + i] = t->temps + i * each;
    for (uint32_t i = 0; i < x->program.op_count; i++) {
        const struct plan_op *op = &x->program.ops[i];
        float *to = op->dst == PLAN_RESULT ? result : slot[op->dst];

        if (op->b == PLAN_COPY)
            t->ops->copy(t->stream, to, slot[op->a], count * sizeof(float));
        else
            t->ops->add(t->stream, to, slot[op->a], slot[op->b], count);
    }
}

/* Workers that do not say the same of it audit nothing: told once a generation. */
static void compare_audits(struct trainer *t, const struct exchange *x)
{
    const struct exchange_word *mine = &x->word[x->config.me];
    char text[160];

    for (uint32_t r = 0; r < x->config.world; r++) {
        if (x->word[r].audit == mine->audit || t->audit_told == t->elastic.generation.number)
            continue;
        t->audit_told = t->elastic.generation.number;
        (void)snprintf(text, sizeof text,
                       "nothing is audited: rank %u says --audit %u, this worker (rank %u) %u", r,
                       x->word[r].audit, x->config.me, mine->audit);
        report_warning(t, text);
    }
}

static void complete(struct trainer *t, const struct exchange *x, uint64_t step)
{
    struct elastic_event event = trainer_event_of(ELASTIC_EXCHANGED);

    fault_point(t, "exchanged", step);
    compare_audits(t, x);
    exchange_votes(x, &t->votes);
    event.number = t->elastic.generation.number;
    event.nonce = t->elastic.generation.nonce;
    event.step = step;
    event.plan_min = t->votes.plan_min;
    event.unanimous = t->votes.unanimous;
    event.majority = t->votes.majority;
    event.hashed = t->votes.hashed;
    event.shard_odd = t->votes.shard;
    event.outvoted = t->votes.outvoted; /* the event may wait for its turn */
    event.outvoted_count = t->votes.outvoted_count;
    trainer_event(t, &event);
}

static void carry_out(struct trainer *t, uint32_t slot, const struct exchange_actions *actions)
{
    struct exchange *x = t->exchange[slot];
    uint64_t step = t->exchange_step[slot];

    for (uint32_t i = 0; i < actions->count; i++) {
        const struct exchange_action *action = &actions->list[i];
        struct exchange_actions more = {.count = 0};

        switch (action->type) {
        case EXCHANGE_SEND_WORD:
            send_word(t, x, step);
            break;
        case EXCHANGE_SEND_PIECES:
            fault_point(t, "send", step);
            send_pieces(t, x, step, action->bucket, action->node);
            break;
        case EXCHANGE_ADD:
            fault_point(t, "add", step);
            add_chunk(t, x, action->bucket);
            (void)exchange_added(x, action->bucket, &more);
            break;
        case EXCHANGE_SEND_RESULT:
            fault_point(t, "result", step);
            send_result(t, x, step, action->bucket);
            break;
        case EXCHANGE_CHECK:
            inspect_check(t);
            break;
        case EXCHANGE_AUDIT:
            inspect_audit(t, step, action->node);
            break;
        case EXCHANGE_SEND_AUDIT:
            send_audit(t, x, step);
            break;
        case EXCHANGE_COMPLETE:
            complete(t, x, step);
            break;
        }
        if (more.count > 0)
            carry_out(t, slot, &more);
    }
}

/* ---- the ledger ------------------------------------------------------------------------------ */

/* One collective per bucket of a step, with the same number on all members: entered when all that
 * is owed of it has gone out, left when its result is whole. */
static void mark_bucket(struct trainer *t, uint32_t slot, uint32_t bucket)
{
    uint64_t seq = t->exchange_step[slot] * t->state.spec->bucket_count + bucket + 1;
    uint32_t bit = 1u << bucket;
    char name[48];

    if ((t->marked_entered[slot] & bit) == 0 && exchange_sent(t->exchange[slot], bucket)) {
        t->marked_entered[slot] |= bit;
        (void)snprintf(name, sizeof name, "step %llu bucket %u",
                       (unsigned long long)t->exchange_step[slot], bucket);
        (void)muster_collective_enter(
            t->session, &(struct muster_collective){.op = "all_reduce",
                                                    .name = name,
                                                    .dtype = "float32",
                                                    .count = bucket_at(t, bucket)->count,
                                                    .place = "train/reduce.c",
                                                    .step = t->exchange_step[slot] + 1,
                                                    .seq = seq});
    }
    if ((t->marked_entered[slot] & ~t->marked_left[slot] & bit) != 0 &&
        exchange_whole(t->exchange[slot], bucket)) {
        t->marked_left[slot] |= bit;
        muster_collective_leave(t->session, seq);
    }
}

static void mark(struct trainer *t, uint32_t slot)
{
    if (t->session == NULL || !t->exchange_begun[slot] || !t->exchange_started[slot])
        return;
    for (uint32_t b = 0; b < t->exchange[slot]->config.bucket_count; b++)
        mark_bucket(t, slot, b);
}

/* ---- events --------------------------------------------------------------------------------- */

static bool is_started(const struct trainer *t, uint64_t step)
{
    uint32_t slot = (uint32_t)(step % 2);

    return t->exchange_begun[slot] && t->exchange_step[slot] == step && t->exchange_started[slot];
}

/* A top of the sums became ready in a bucket. */
void reduce_top(struct trainer *t, const struct sums_top *top)
{
    uint64_t step = t->elastic.applied;
    uint32_t slot = (uint32_t)(step % 2), node;
    struct exchange_actions actions = {.count = 0};

    if (!is_started(t, step))
        return; /* found ready when the exchange starts */
    node = exchange_find_node(t->exchange[slot], top->level, top->index);
    if (node == UINT32_MAX || t->exchange[slot]->nodes[node].owner != t->elastic.rank)
        return;
    (void)exchange_node_ready(t->exchange[slot], top->bucket, node, &actions);
    carry_out(t, slot, &actions);
    mark(t, slot);
    control_progress(t);
}

/* The parameters were hashed again: this hash. */
void reduce_checked(struct trainer *t, uint64_t hash)
{
    struct elastic_event event = trainer_event_of(ELASTIC_CORRUPT);
    struct exchange_actions actions = {.count = 0};
    uint64_t step = t->elastic.applied;
    uint32_t slot = (uint32_t)(step % 2);

    assert(is_started(t, step));
    event.step = step;
    if (exchange_checked(t->exchange[slot], hash, &actions)) {
        carry_out(t, slot, &actions);
        mark(t, slot);
    } else {
        trainer_event(t, &event);
    }
    control_progress(t);
}

/* The hash of the shard that the audit of the step asks for, if it does. */
void reduce_audited(struct trainer *t)
{
    struct exchange_actions actions = {.count = 0};
    uint64_t step = t->audit.step;
    uint32_t slot = (uint32_t)(step % 2);

    if (!is_started(t, step))
        return;
    (void)exchange_audited(t->exchange[slot], t->audit.hash, &actions);
    carry_out(t, slot, &actions);
}

static void offer_ready_tops(struct trainer *t, uint32_t slot)
{
    struct exchange *x = t->exchange[slot];

    for (uint32_t i = 0; i < x->node_count && x->config.bucket_count > 0; i++) {
        uint32_t ready;

        if (x->nodes[i].owner != x->config.me)
            continue;
        ready = sums_ready_buckets(&t->sums, x->nodes[i].level, x->nodes[i].index);
        for (uint32_t b = 0; b < x->config.bucket_count; b++) {
            struct exchange_actions actions = {.count = 0};

            if ((ready >> b & 1) != 0 &&
                exchange_node_ready(x, b, i, &actions) == EXCHANGE_FINE)
                carry_out(t, slot, &actions);
        }
    }
}

void reduce_start(struct trainer *t, const struct elastic_action *action)
{
    struct exchange *x = exchange_of(t, action->step);
    struct exchange_word word = {action->plan, action->hashed ? trainer_hash(t) : 0,
                                 action->hashed, (uint32_t)t->settings->audit};
    struct exchange_actions actions = {.count = 0};
    uint32_t slot = (uint32_t)(action->step % 2);

    assert(x != NULL);
    fault_point(t, action->words_only ? "last" : "start", action->step);
    t->exchange_started[slot] = true;
    if (action->words_only)
        exchange_words_only(x);
    else
        reduce_prepare(t);
    exchange_start(x, &word, &actions);
    carry_out(t, slot, &actions);
    offer_ready_tops(t, slot);
    mark(t, slot);
    control_progress(t);
}

void reduce_stop(struct trainer *t)
{
    fault_point(t, "over", t->elastic.applied);
    inspect_stop(t);
    if (t->comm != NULL)
        comm_halt(t->comm);
    for (int slot = 0; slot < 2; slot++)
        t->exchange_begun[slot] = t->exchange_started[slot] = false;
}

void reduce_connect(struct trainer *t)
{
    const struct elastic_roster *g = &t->elastic.generation;
    struct comm_member *members;
    struct comm_generation generation;
    enum comm_error status;

    inspect_stop(t);
    for (int slot = 0; slot < 2; slot++)
        t->exchange_begun[slot] = t->exchange_started[slot] = false;
    t->exchange_base = g->step;
    if (!make_staging(t)) {
        trainer_exit(t, EXIT_UNAVAILABLE, "out of memory for the exchange");
        return;
    }
    if (t->comm == NULL) {
        struct elastic_event event = trainer_event_of(ELASTIC_CONNECTED);

        event.number = g->number;
        trainer_event(t, &event);
        return;
    }
    fault_point(t, "connect", g->step);
    members = calloc(g->world, sizeof *members);
    if (members == NULL) {
        trainer_exit(t, EXIT_UNAVAILABLE, "out of memory for the roster");
        return;
    }
    for (uint32_t rank = 0; rank < g->world; rank++) {
        memcpy(members[rank].id, g->members[rank].id.byte, COMM_ID_BYTES);
        members[rank].rank = rank;
        memcpy(members[rank].address, t->formed_addresses.address[rank], COMM_ADDRESS_BYTES);
    }
    memset(&generation, 0, sizeof generation);
    generation.number = g->number;
    generation.nonce = g->nonce;
    memcpy(generation.key, t->key, COMM_KEY_BYTES);
    generation.members = members;
    generation.member_count = g->world;
    generation.me = t->elastic.rank;
    status = comm_enter(t->comm, &generation);
    free(members);
    if (status != COMM_OK)
        trainer_exit(t, EXIT_RETRY, comm_error_text(status));
}

/* ---- frames --------------------------------------------------------------------------------- */

static uint32_t rank_of(struct trainer *t, uint32_t peer)
{
    const struct comm_member *member = comm_peer_member(t->comm, peer);

    return member != NULL ? member->rank : COMM_VISITOR;
}

void *reduce_place(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    struct exchange *x = exchange_of(t, frame->step);
    uint32_t from = rank_of(t, peer), node;
    uint64_t first, count;
    float *place;

    if (x == NULL || frame->bucket >= x->config.bucket_count)
        return NULL;
    if (frame->kind == COMM_PIECE) {
        node = exchange_find_node(x, frame->level, frame->index);
        if (node == UINT32_MAX || exchange_piece_wanted(x, from, frame->bucket, frame->chunk,
                                                        node) != EXCHANGE_FINE)
            return NULL;
        plan_chunk(bucket_at(t, frame->bucket)->count, x->config.world, x->config.me, &first,
                   &count);
        place = piece_place(t, x, frame->bucket, node);
    } else {
        if (exchange_result_wanted(x, from, frame->bucket, frame->chunk) != EXCHANGE_FINE)
            return NULL;
        place = result_place(t, x, frame->bucket, frame->chunk, &count);
        t->reduced_whole = false;
    }
    return frame->length == count * sizeof(float) ? place : NULL;
}

void reduce_frame(struct trainer *t, uint32_t peer, const struct comm_frame *frame)
{
    struct exchange *x = exchange_of(t, frame->step);
    struct exchange_word word = word_of(frame);
    struct exchange_actions actions = {.count = 0};
    uint32_t from = rank_of(t, peer);

    if (x == NULL)
        return;
    if (frame->kind == COMM_WORD)
        (void)exchange_word(x, from, &word, &actions);
    else if (frame->kind == COMM_AUDIT)
        (void)exchange_audit(x, from, frame->value[0], &actions);
    else if (frame->kind == COMM_PIECE)
        (void)exchange_piece(x, from, frame->bucket, frame->chunk,
                             exchange_find_node(x, frame->level, frame->index), &actions);
    else
        (void)exchange_result(x, from, frame->bucket, frame->chunk, &actions);
    carry_out(t, (uint32_t)(frame->step % 2), &actions);
    mark(t, (uint32_t)(frame->step % 2));
}
