/* The exchange of a step over the simulated mesh, and copies of R and of the state.
 *
 * Which piece goes where and what is added when is said by train/exchange; here are its hands.
 * Beside every value travels the set of shards in it, so that a checker can name the shard that is
 * missing or doubled. */
#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ELEMENTS_PER_CELL PLAN_CHUNK_ALIGN

static void carry_out(struct sim *sim, uint32_t worker, struct exchange_actions *actions);

static void fault(struct sim *sim, uint32_t worker, uint32_t from, enum exchange_fault found,
                  const char *what)
{
    if (found != EXCHANGE_FINE) {
        sim_fail(sim, SIM_CHECK_WORDS, "worker %u gets a %s of worker %u: %s", worker, what, from,
                 exchange_fault_text(found));
    }
}

/* ---- cells ---------------------------------------------------------------------------------- */

static uint32_t bucket_first(const struct sim *sim, uint32_t bucket)
{
    uint32_t first = 0;
    for (uint32_t b = 0; b < bucket; b++) {
        first += sim->setup.bucket_cells[b];
    }
    return first;
}

/* Cells of a chunk, counted over all buckets. */
static void chunk_cells(const struct sim *sim, const struct sim_worker *w, uint32_t bucket,
                        uint32_t chunk, uint32_t *first, uint32_t *count)
{
    uint64_t element, elements;
    plan_chunk((uint64_t)sim->setup.bucket_cells[bucket] * ELEMENTS_PER_CELL,
               w->exchange.config.world, chunk, &element, &elements);
    *first = bucket_first(sim, bucket) + (uint32_t)(element / ELEMENTS_PER_CELL);
    *count = (uint32_t)(elements / ELEMENTS_PER_CELL);
}

static uint64_t node_shards(const struct sim *sim, const struct sim_worker *w,
                            const struct plan_node *node)
{
    uint64_t shards = 0;
    for (uint32_t leaf = 0; leaf < (1u << node->level); leaf++) {
        uint32_t shard = ((uint32_t)node->index << node->level) + leaf;
        if (shard < sim->setup.job.shape.shards &&
            plan_mask_has(&w->exchange.config.present, shard)) {
            shards |= UINT64_C(1) << shard;
        }
    }
    return shards;
}

static void node_values(const struct sim *sim, const struct sim_worker *w,
                        const struct plan_node *node, uint32_t first, uint32_t count,
                        uint64_t *values)
{
    for (uint32_t i = 0; i < count; i++) {
        values[i] = toy_node(w->shard_value, &w->exchange.config.present,
                             sim->setup.job.shape.shards, node->level, node->index, first + i);
    }
}

/* ---- sending -------------------------------------------------------------------------------- */

static void send_to(struct sim *sim, uint32_t worker, uint32_t rank, const struct sim_frame *frame,
                    const uint64_t *cells)
{
    uint32_t slot = sim->workers[worker].slots[rank];
    if (slot != SIM_NO_SLOT) {
        (void)sim_mesh_send(sim, worker, slot, frame, cells);
    }
}

static void send_word(struct sim *sim, uint32_t worker)
{
    const struct exchange *x = &sim->workers[worker].exchange;
    const struct exchange_word *mine = &x->word[x->config.me];
    struct sim_frame frame = {.kind = SIM_FRAME_WORD,
                              .step = sim->workers[worker].exchange_step,
                              .value = {mine->plan, mine->hash, mine->audit},
                              .flags = mine->hashed};
    if (sim->options->bug == SIM_BUG_NEWEST_PLAN && x->config.bucket_count > 0) {
        frame.value[0] = sim->check.number_max;
    }
    for (uint32_t rank = 0; rank < x->config.world; rank++) {
        if (rank != x->config.me) {
            send_to(sim, worker, rank, &frame, NULL);
        }
    }
}

static void send_audit(struct sim *sim, uint32_t worker)
{
    const struct exchange *x = &sim->workers[worker].exchange;
    struct sim_frame frame = {.kind = SIM_FRAME_AUDIT,
                              .step = sim->workers[worker].exchange_step,
                              .value = {x->audit_hash[x->config.me]}};
    for (uint32_t rank = 0; rank < x->config.world; rank++) {
        if (rank != x->config.me) {
            send_to(sim, worker, rank, &frame, NULL);
        }
    }
}

static void send_pieces(struct sim *sim, uint32_t worker, uint32_t bucket, uint32_t n)
{
    struct sim_worker *w = &sim->workers[worker];
    const struct exchange *x = &w->exchange;
    const struct plan_node *node = &x->nodes[n];
    struct sim_frame frame = {.kind = SIM_FRAME_PIECE, .step = w->exchange_step,
                              .bucket = (uint16_t)bucket, .level = node->level,
                              .index = node->index, .shards = node_shards(sim, w, node)};
    for (uint32_t rank = 0; rank < x->config.world; rank++) {
        uint64_t values[TOY_CELLS_MAX];
        uint32_t first, count;
        chunk_cells(sim, w, bucket, rank, &first, &count);
        if (rank == x->config.me || count == 0) {
            continue;
        }
        node_values(sim, w, node, first, count, values);
        frame.chunk = (uint16_t)rank;
        frame.cell_first = (uint16_t)first;
        frame.cell_count = (uint16_t)count;
        send_to(sim, worker, rank, &frame, values);
    }
}

static void send_result(struct sim *sim, uint32_t worker, uint32_t bucket)
{
    struct sim_worker *w = &sim->workers[worker];
    const struct exchange *x = &w->exchange;
    uint32_t first, count;
    chunk_cells(sim, w, bucket, x->config.me, &first, &count);
    struct sim_frame frame = {.kind = SIM_FRAME_RESULT, .step = w->exchange_step,
                              .bucket = (uint16_t)bucket, .chunk = (uint16_t)x->config.me,
                              .cell_first = (uint16_t)first, .cell_count = (uint16_t)count,
                              .shards = w->reduced_shards[first]};
    for (uint32_t rank = 0; rank < x->config.world; rank++) {
        if (rank != x->config.me) {
            send_to(sim, worker, rank, &frame, &w->reduced[first]);
        }
    }
}

/* ---- adding --------------------------------------------------------------------------------- */

static uint64_t run_program(const struct sim_worker *w, uint32_t cell)
{
    const struct exchange *x = &w->exchange;
    const struct plan_program *program = &x->program;
    uint64_t temps[PLAN_TEMPS_MAX];
    uint64_t result = 0;
    for (uint32_t i = 0; i < program->op_count; i++) {
        const struct plan_op *op = &program->ops[i];
        uint64_t a = op->a < x->node_count ? w->pieces[op->a][cell] : temps[op->a - x->node_count];
        uint64_t value = a;
        if (op->b != PLAN_COPY) {
            uint64_t b =
                op->b < x->node_count ? w->pieces[op->b][cell] : temps[op->b - x->node_count];
            value = toy_add(a, b);
        }
        if (op->dst == PLAN_RESULT) {
            result = value;
        } else {
            temps[op->dst - x->node_count] = value;
        }
    }
    return result;
}

static uint64_t add_in_a_row(const struct sim_worker *w, uint32_t cell)
{
    uint64_t sum = w->pieces[0][cell];
    for (uint32_t n = 1; n < w->exchange.node_count; n++) {
        sum = toy_add(sum, w->pieces[n][cell]);
    }
    return sum;
}

static uint64_t all_shards(struct sim *sim, uint32_t worker, uint32_t bucket)
{
    const struct sim_worker *w = &sim->workers[worker];
    uint64_t shards = 0;
    for (uint32_t n = 0; n < w->exchange.node_count; n++) {
        if ((shards & w->piece_shards[bucket][n]) != 0) {
            sim_fail(sim, SIM_CHECK_SHARDS,
                     "worker %u adds shards %016" PRIx64 " of step %" PRIu64 " twice", worker,
                     shards & w->piece_shards[bucket][n], w->exchange_step);
        }
        shards |= w->piece_shards[bucket][n];
    }
    return shards;
}

static void add(struct sim *sim, uint32_t worker, uint32_t bucket)
{
    struct sim_worker *w = &sim->workers[worker];
    struct exchange_actions actions = {.count = 0};
    uint32_t first, count;
    chunk_cells(sim, w, bucket, w->exchange.config.me, &first, &count);
    uint64_t shards = all_shards(sim, worker, bucket);
    for (uint32_t cell = first; cell < first + count; cell++) {
        w->reduced[cell] = sim->options->bug == SIM_BUG_ADD_ORDER ? add_in_a_row(w, cell)
                                                                  : run_program(w, cell);
        w->reduced_of[cell] = w->exchange_step + 1;
        w->reduced_shards[cell] = shards;
    }
    fault(sim, worker, worker, exchange_added(&w->exchange, bucket, &actions), "sum");
    carry_out(sim, worker, &actions);
}

/* ---- the end of an exchange ----------------------------------------------------------------- */

static void complete(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    sim_worker_tell_ledger(sim, worker);
    w->exchanging = false;
    exchange_votes(&w->exchange, &w->votes);
    if (w->exchange.config.bucket_count > 0 && w->votes.unanimous) {
        w->reduced_corrupt = false;
        sim_check_sums(sim, worker, w->exchange_step, &w->exchange.config.present);
        sim_check_exchanged(sim, worker, w->exchange_step, w->exchange_number);
    }
    struct elastic_event event = {.type = ELASTIC_EXCHANGED,
                                  .number = w->exchange_number,
                                  .nonce = w->elastic.generation.nonce,
                                  .step = w->exchange_step,
                                  .plan_min = w->votes.plan_min,
                                  .unanimous = w->votes.unanimous,
                                  .majority = w->votes.majority,
                                  .hashed = w->votes.hashed,
                                  .shard_odd = w->votes.shard,
                                  .outvoted = w->votes.outvoted,
                                  .outvoted_count = w->votes.outvoted_count};
    sim_worker_feed(sim, worker, &event);
}

/* ---- corruption ----------------------------------------------------------------------------- */

static void later(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value,
                  uint64_t mean_us)
{
    uint64_t took_us = mean_us / 2 + sim_rng_below(&sim->net_rng, mean_us + 1);
    struct sim_event event = {.at_us = sim->now_us + took_us,
                              .kind = SIM_EV_WORK,
                              .target = worker,
                              .extra = work,
                              .value = value,
                              .serial = sim->members[worker].proc.serial};
    sim_heap_push(&sim->heap, &event);
}

static void begin_check(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    w->checking = true;
    later(sim, worker, SIM_WORK_CHECK, ++w->check_serial, sim->setup.shard_us / 20);
}

static void end_check(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct exchange_actions actions = {.count = 0};
    uint64_t hash = sim->options->bug == SIM_BUG_BLIND_CHECK
                        ? w->exchange.word[w->exchange.config.me].hash
                        : sim_device_hash(sim, worker);
    w->checking = false;
    if (exchange_checked(&w->exchange, hash, &actions)) {
        carry_out(sim, worker, &actions);
    } else {
        sim_worker_feed(sim, worker,
                        &(struct elastic_event){.type = ELASTIC_CORRUPT, .step = w->exchange_step});
    }
    sim_worker_tell_status(sim, worker);
    sim_worker_tell_ledger(sim, worker);
}

/* The hash of the audited shard, if it is asked for and here. */
static void offer_audit(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct exchange *x = &w->exchange;
    struct exchange_actions actions = {.count = 0};
    uint32_t shard = x->audit.shard;
    if (!w->exchanging || shard == AUDIT_NO_SHARD || w->exchange_step != w->shard_step) {
        return;
    }
    if (x->audit.rank[0] != x->config.me && w->audit_have) {
        (void)exchange_audited(x, w->audit_value, &actions);
    } else if (x->audit.rank[0] == x->config.me && plan_mask_has(&w->shard_have, shard)) {
        uint64_t value = w->shard_value[shard];
        if (sim->options->bug == SIM_BUG_BLIND_AUDIT) {
            value = toy_shard(&sim->setup.job, w->exchange_step, shard, w->hash);
        }
        (void)exchange_audited(x, value, &actions);
    }
    carry_out(sim, worker, &actions);
}

static void begin_audit(struct sim *sim, uint32_t worker, uint32_t shard)
{
    struct sim_worker *w = &sim->workers[worker];
    if (w->exchange.audit.rank[0] != w->exchange.config.me && !w->audit_have && !w->auditing) {
        w->auditing = true;
        w->audit_value =
            sim_device_shard(sim, worker, w->exchange_step, shard, sim_device_hash(sim, worker));
        later(sim, worker, SIM_WORK_AUDIT, w->audit_serial, sim->setup.shard_us);
    }
    offer_audit(sim, worker);
}

void sim_sums_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value)
{
    struct sim_worker *w = &sim->workers[worker];
    if (work == SIM_WORK_CHECK && w->exchanging && w->checking && value == w->check_serial) {
        end_check(sim, worker);
    } else if (work == SIM_WORK_AUDIT && w->auditing && value == w->audit_serial) {
        w->auditing = false;
        w->audit_have = true;
        offer_audit(sim, worker);
        sim_worker_tell_status(sim, worker);
    }
}

static void carry_out(struct sim *sim, uint32_t worker, struct exchange_actions *actions)
{
    for (uint32_t i = 0; i < actions->count && !sim->ended; i++) {
        const struct exchange_action *action = &actions->list[i];
        switch (action->type) {
        case EXCHANGE_SEND_WORD:
            send_word(sim, worker);
            break;
        case EXCHANGE_SEND_PIECES:
            send_pieces(sim, worker, action->bucket, action->node);
            break;
        case EXCHANGE_ADD:
            add(sim, worker, action->bucket);
            break;
        case EXCHANGE_SEND_RESULT:
            send_result(sim, worker, action->bucket);
            break;
        case EXCHANGE_CHECK:
            begin_check(sim, worker);
            break;
        case EXCHANGE_AUDIT:
            begin_audit(sim, worker, action->node);
            break;
        case EXCHANGE_SEND_AUDIT:
            send_audit(sim, worker);
            break;
        case EXCHANGE_COMPLETE:
            complete(sim, worker);
            break;
        }
    }
}

/* ---- its beginning -------------------------------------------------------------------------- */

/* All sums of the node are here: offers it in every bucket. */
static void offer_node(struct sim *sim, uint32_t worker, uint32_t n)
{
    struct sim_worker *w = &sim->workers[worker];
    const struct plan_node *node = &w->exchange.nodes[n];
    w->node_offered[n] = 1;
    for (uint32_t b = 0; b < w->exchange.config.bucket_count && w->exchanging; b++) {
        struct exchange_actions actions = {.count = 0};
        uint32_t first, count;
        chunk_cells(sim, w, b, w->exchange.config.me, &first, &count);
        node_values(sim, w, node, first, count, &w->pieces[n][first]);
        w->piece_shards[b][n] = node_shards(sim, w, node);
        fault(sim, worker, worker, exchange_node_ready(&w->exchange, b, n, &actions), "node");
        carry_out(sim, worker, &actions);
    }
}

static bool node_is_here(const struct sim *sim, const struct sim_worker *w,
                         const struct plan_node *node)
{
    uint64_t shards = node_shards(sim, w, node);
    for (uint32_t shard = 0; shard < sim->setup.job.shape.shards; shard++) {
        if ((shards >> shard & 1) != 0 && !plan_mask_has(&w->shard_have, shard)) {
            return false;
        }
    }
    return true;
}

void sim_sums_shard(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    if (!w->exchanging || w->exchange_step != w->shard_step ||
        w->exchange.config.bucket_count == 0) {
        return;
    }
    for (uint32_t n = 0; n < w->exchange.node_count && w->exchanging && !sim->ended; n++) {
        const struct plan_node *node = &w->exchange.nodes[n];
        if (node->owner == w->exchange.config.me && !w->node_offered[n] &&
            node_is_here(sim, w, node)) {
            offer_node(sim, worker, n);
        }
    }
    offer_audit(sim, worker);
    sim_worker_tell_ledger(sim, worker);
}

static void replay_early(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_early *list = w->early;
    w->early = NULL;
    w->early_last = NULL;
    while (list != NULL) {
        struct sim_early *early = list;
        list = early->next;
        if (!sim->ended) {
            sim_sums_frame(sim, worker, early->from, &early->frame, early->cells);
        }
        free(early);
    }
}

void sim_sums_begin(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    struct sim_worker *w = &sim->workers[worker];
    struct exchange_actions actions = {.count = 0};
    struct exchange_config config = {
        .step = action->step,
        .world = w->elastic.generation.world,
        .me = w->elastic.rank,
        .shards = sim->setup.job.shape.shards,
        .owner = w->elastic.owner,
        .bucket_count = action->words_only ? 0 : sim->setup.bucket_count,
    };
    if (action->words_only) {
        plan_mask_set(&config.present, 0); /* a tree of something; nothing is added */
    } else {
        config.present = plan_present(&sim->setup.job.shape, action->step);
    }
    for (uint32_t b = 0; b < config.bucket_count; b++) {
        config.bucket_elements[b] = (uint64_t)sim->setup.bucket_cells[b] * ELEMENTS_PER_CELL;
    }
    exchange_begin(&w->exchange, &config);
    memset(w->node_offered, 0, sizeof w->node_offered);
    w->exchanging = true;
    w->exchange_step = action->step;
    w->exchange_number = w->elastic.generation.number;
    struct exchange_word word = {action->plan, 0, action->hashed, sim->setup.audit};
    if (word.hashed) {
        word.hash = w->hashed ? w->hash : sim_device_hash(sim, worker);
    }
    exchange_start(&w->exchange, &word, &actions);
    carry_out(sim, worker, &actions);
    sim_sums_shard(sim, worker);
    replay_early(sim, worker);
}

void sim_sums_stop(struct sim *sim, uint32_t worker)
{
    sim->workers[worker].exchanging = false;
    sim->workers[worker].checking = false;
    sim_mesh_halt(sim, worker);
}

void sim_sums_forget(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    (void)sim;
    while (w->early != NULL) {
        struct sim_early *early = w->early;
        w->early = early->next;
        free(early);
    }
    w->early_last = NULL;
}

/* ---- what comes ----------------------------------------------------------------------------- */

static void keep_early(struct sim *sim, uint32_t worker, uint32_t from,
                       const struct sim_frame *frame, const uint64_t *cells)
{
    struct sim_worker *w = &sim->workers[worker];
    size_t bytes = frame->cell_count * sizeof cells[0];
    struct sim_early *early = malloc(sizeof *early + bytes);
    SIM_REQUIRE(early != NULL);
    early->next = NULL;
    early->from = from;
    early->frame = *frame;
    if (bytes > 0) {
        memcpy(early->cells, cells, bytes);
    }
    if (w->early_last != NULL) {
        w->early_last->next = early;
    } else {
        w->early = early;
    }
    w->early_last = early;
}

static void take_piece(struct sim *sim, uint32_t worker, uint32_t rank,
                       const struct sim_frame *frame, const uint64_t *cells,
                       struct exchange_actions *actions)
{
    struct sim_worker *w = &sim->workers[worker];
    uint32_t n = exchange_find_node(&w->exchange, frame->level, frame->index);
    enum exchange_fault found =
        exchange_piece_wanted(&w->exchange, rank, frame->bucket, frame->chunk, n);
    if (found == EXCHANGE_FINE) {
        memcpy(&w->pieces[n][frame->cell_first], cells, frame->cell_count * sizeof cells[0]);
        w->piece_shards[frame->bucket][n] = frame->shards;
        found = exchange_piece(&w->exchange, rank, frame->bucket, frame->chunk, n, actions);
    }
    fault(sim, worker, w->slots[rank], found, "piece");
}

static void take_result(struct sim *sim, uint32_t worker, uint32_t rank,
                        const struct sim_frame *frame, const uint64_t *cells,
                        struct exchange_actions *actions)
{
    struct sim_worker *w = &sim->workers[worker];
    enum exchange_fault found =
        exchange_result_wanted(&w->exchange, rank, frame->bucket, frame->chunk);
    if (found == EXCHANGE_FINE) {
        for (uint32_t i = 0; i < frame->cell_count; i++) {
            w->reduced[frame->cell_first + i] = cells[i];
            w->reduced_of[frame->cell_first + i] = frame->step + 1;
            w->reduced_shards[frame->cell_first + i] = frame->shards;
        }
        found = exchange_result(&w->exchange, rank, frame->bucket, frame->chunk, actions);
    }
    fault(sim, worker, w->slots[rank], found, "result");
}

/* Planted: all pieces are here, so the words that are still on their way are taken to be as
 * mine. */
static void guess_words(struct sim_worker *w, struct exchange_actions *actions)
{
    struct exchange *x = &w->exchange;
    bool whole = x->config.bucket_count > 0;
    for (uint32_t b = 0; b < x->config.bucket_count; b++) {
        whole = whole && x->piece_count[b] == x->node_count;
    }
    for (uint32_t rank = 0; whole && rank < x->config.world; rank++) {
        (void)exchange_word(x, rank, &x->word[x->config.me], actions);
    }
}

static uint32_t rank_of(const struct sim_worker *w, uint32_t slot)
{
    for (uint32_t rank = 0; rank < w->elastic.generation.world; rank++) {
        if (w->slots[rank] == slot) {
            return rank;
        }
    }
    return EXCHANGE_NO_RANK;
}

void sim_sums_frame(struct sim *sim, uint32_t worker, uint32_t from, const struct sim_frame *frame,
                    const uint64_t *cells)
{
    struct sim_worker *w = &sim->workers[worker];
    struct exchange_actions actions = {.count = 0};
    if (!w->exchanging || frame->step > w->exchange_step) {
        keep_early(sim, worker, from, frame, cells);
        return;
    }
    if (frame->step < w->exchange_step) {
        return;
    }
    uint32_t rank = rank_of(w, from);
    if (rank == EXCHANGE_NO_RANK) {
        sim_fail(sim, SIM_CHECK_WORDS,
                 "worker %u gets sums of worker %u, which has no rank in generation %" PRIu64,
                 worker, from, w->elastic.generation.number);
    } else if (frame->kind == SIM_FRAME_PIECE) {
        take_piece(sim, worker, rank, frame, cells, &actions);
    } else if (frame->kind == SIM_FRAME_AUDIT) {
        fault(sim, worker, from, exchange_audit(&w->exchange, rank, frame->value[0], &actions),
              "hash");
    } else if (frame->kind == SIM_FRAME_RESULT) {
        take_result(sim, worker, rank, frame, cells, &actions);
    } else {
        struct exchange_word word = {frame->value[0], frame->value[1], frame->flags != 0,
                                     (uint32_t)frame->value[2]};
        fault(sim, worker, from, exchange_word(&w->exchange, rank, &word, &actions), "word");
    }
    if (sim->options->bug == SIM_BUG_EARLY_APPLY) {
        guess_words(w, &actions);
    }
    uint32_t serial = sim->members[worker].proc.serial;
    carry_out(sim, worker, &actions);
    if (!sim->ended && sim->members[worker].proc.serial == serial) {
        sim_worker_tell_ledger(sim, worker);
    }
}
