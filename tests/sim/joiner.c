/* Catch-up of a spare beside the group, and the members' side of it: the hands of train/catchup.
 *
 * Invariants: what a source sends of one subscription carries its serial, and nothing of an older
 * one is taken; the state of a spare has a version only while catchup_whole() holds. */
#include "sim/panic.h"
#include "sim/sim.h"
#include "train/catchup.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define VISITORS_MAX 32u
#define FLAG_DROPPED 1u /* SUBSCRIBE from the source: it sends no more records */

struct visitor {
    bool used;
    uint32_t slot;
    uint64_t serial;               /* of its subscription */
    struct catchup_source source;
};

struct sim_joiner {
    /* a spare */
    bool active;                   /* CATCH_UP was asked for */
    bool whole;                    /* CAUGHT_UP was said */
    uint32_t source;               /* slot of the member it subscribed to; SIM_NO_SLOT */
    uint64_t serial;               /* of the subscription */
    struct catchup catchup;
    uint64_t version[TOY_CELLS_MAX];
    uint64_t records[CATCHUP_RECORDS_MAX][TOY_CELLS_MAX];
    uint64_t told_version;         /* the newest version whose hash the source has told */
    uint64_t told_hash;
    /* a member */
    struct visitor visitors[VISITORS_MAX];
};

void sim_joiner_release(struct sim *sim, uint32_t worker)
{
    free(sim->workers[worker].joiner);
    sim->workers[worker].joiner = NULL;
}

static struct sim_joiner *joiner_of(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    if (w->joiner == NULL) {
        w->joiner = calloc(1, sizeof *w->joiner);
        SIM_REQUIRE(w->joiner != NULL);
        w->joiner->source = SIM_NO_SLOT;
    }
    return w->joiner;
}

/* ---- a spare -------------------------------------------------------------------------------- */

static void subscribe(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_joiner *j = w->joiner;
    uint32_t world = w->elastic.view.world;
    uint32_t start = (uint32_t)sim_rng_below(&sim->net_rng, world);
    bool again = j->whole;
    j->source = SIM_NO_SLOT;
    j->whole = false;
    j->told_version = SIM_NO_VERSION;
    w->corrupt = false;
    j->serial++;
    w->version = SIM_NO_VERSION;
    catchup_begin(&j->catchup, j->version, sim->setup.job.cells);
    struct sim_frame frame = {.kind = SIM_FRAME_SUBSCRIBE, .value = {j->serial}};
    for (uint32_t i = 0; i < world && j->source == SIM_NO_SLOT; i++) {
        uint32_t slot = w->slots[(start + i) % world];
        if (slot != SIM_NO_SLOT && sim_mesh_send(sim, worker, slot, &frame, NULL)) {
            j->source = slot;
        }
    }
    if (again) {
        sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_BEHIND});
    }
}

void sim_joiner_begin(struct sim *sim, uint32_t worker)
{
    struct sim_joiner *j = joiner_of(sim, worker);
    j->active = true;
    j->whole = false;
    j->source = SIM_NO_SLOT;
    j->serial++;
    sim_worker_enter(sim, worker, &sim->workers[worker].elastic.view, SIM_VISITOR);
}

void sim_joiner_connected(struct sim *sim, uint32_t worker, uint64_t number)
{
    struct sim_joiner *j = joiner_of(sim, worker);
    if (j->active && number == sim->workers[worker].elastic.view.number &&
        j->source == SIM_NO_SLOT) {
        subscribe(sim, worker);
    }
}

void sim_joiner_end(struct sim *sim, uint32_t worker)
{
    struct sim_joiner *j = sim->workers[worker].joiner;
    if (j != NULL) {
        j->active = false;
        j->source = SIM_NO_SLOT;
    }
}

/* All updates that chunks lack and whose records are here. */
static void update(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_joiner *j = w->joiner;
    uint64_t step, version, plan;
    for (uint64_t chunk = 0; chunk < j->catchup.chunk_count; chunk++) {
        while (catchup_due(&j->catchup, chunk, &step)) {
            uint64_t reduced = j->records[step % CATCHUP_RECORDS_MAX][chunk];
            uint64_t next = toy_update(w->params[chunk], step, reduced);
            /* Planted: the optimizer's half of a cell misses it, which no hash shows. */
            bool skip = sim->options->bug == SIM_BUG_RECORD_GAP && step % 3 == 1 && chunk == 0;
            uint64_t kept = skip ? w->params[chunk] : next;
            w->params[chunk] = (next & TOY_PARAM_MASK) | (kept & ~TOY_PARAM_MASK);
            catchup_updated(&j->catchup, chunk);
        }
    }
    if (!catchup_whole(&j->catchup, &version, &plan)) {
        return;
    }
    if (j->told_version == version && j->told_hash != sim_device_hash(sim, worker)) {
        subscribe(sim, worker); /* a bit has flipped since its source hashed it */
        return;
    }
    sim_device_new_version(sim, worker, version);
    sim_check_copied(sim, worker, version);
    struct elastic_event event = {.type = j->whole ? ELASTIC_RECORD_APPLIED : ELASTIC_CAUGHT_UP,
                                  .version = version, .hash = w->hash, .plan = plan};
    if (sim->options->bug == SIM_BUG_EARLY_READY && !j->whole) {
        event.version++;
    }
    j->whole = true;
    sim_worker_feed(sim, worker, &event);
}

static void take_part(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_joiner *j = w->joiner;
    bool fits = true;
    if (!j->active || from != j->source || frame->value[0] != j->serial) {
        return;
    }
    w->version = SIM_NO_VERSION;
    w->corrupt |= frame->tainted;
    j->told_version = frame->step + (frame->kind == SIM_FRAME_RECORD);
    j->told_hash = frame->value[2];
    if (frame->kind == SIM_FRAME_RECORD) {
        fits = catchup_record(&j->catchup, frame->step, frame->value[1]);
        memcpy(j->records[frame->step % CATCHUP_RECORDS_MAX], cells,
               frame->cell_count * sizeof cells[0]);
    } else if (frame->kind == SIM_FRAME_CHUNK) {
        for (uint32_t i = 0; i < frame->cell_count && fits; i++) {
            w->params[frame->cell_first + i] = cells[i];
            fits = catchup_chunk(&j->catchup, frame->cell_first + i, frame->step);
        }
    } else {
        fits = false; /* dropped by the source */
    }
    if (fits) {
        update(sim, worker);
    } else {
        subscribe(sim, worker);
    }
}

/* ---- a member ------------------------------------------------------------------------------- */

static void stage(struct sim *sim, uint32_t worker, struct visitor *v)
{
    const struct sim_worker *w = &sim->workers[worker];
    uint64_t first, budget = 1 + sim_rng_below(&sim->net_rng, sim->setup.job.cells);
    uint64_t count = catchup_stage(&v->source, sim->setup.job.cells, budget, &first);
    if (count > 0) {
        struct sim_frame frame = {.kind = SIM_FRAME_CHUNK, .step = w->version,
                                  .value = {v->serial, 0, w->hash}, .tainted = w->corrupt,
                                  .cell_first = (uint16_t)first,
                                  .cell_count = (uint16_t)count};
        frame.step -= sim->options->bug == SIM_BUG_CHUNK_LABEL && first > 0 && frame.step > 0;
        (void)sim_mesh_send(sim, worker, v->slot, &frame, &w->params[first]);
    }
}

static void add_visitor(struct sim *sim, uint32_t worker, uint32_t from, uint64_t serial)
{
    struct sim_joiner *j = joiner_of(sim, worker);
    struct visitor *v = NULL;
    for (uint32_t i = 0; i < VISITORS_MAX; i++) {
        if (j->visitors[i].used && j->visitors[i].slot == from) {
            v = &j->visitors[i];
            break;
        }
        v = v == NULL && !j->visitors[i].used ? &j->visitors[i] : v;
    }
    if (v == NULL) {
        struct sim_frame full = {.kind = SIM_FRAME_SUBSCRIBE, .value = {serial},
                                 .flags = FLAG_DROPPED};
        (void)sim_mesh_send(sim, worker, from, &full, NULL);
        return;
    }
    *v = (struct visitor){.used = true, .slot = from, .serial = serial};
    if (!sim->workers[worker].applying) {
        stage(sim, worker, v);
    }
}

void sim_joiner_applied(struct sim *sim, uint32_t worker, uint64_t step)
{
    struct sim_worker *w = &sim->workers[worker];
    const struct elastic *e = &w->elastic;
    if (w->joiner == NULL) {
        return;
    }
    uint64_t plan = e->boundary && !e->plan.pause ? e->plan.number : 0;
    for (uint32_t i = 0; i < VISITORS_MAX; i++) {
        struct visitor *v = &w->joiner->visitors[i];
        struct sim_frame record = {.kind = SIM_FRAME_RECORD, .step = step,
                                   .value = {v->serial, plan, w->hash},
                                   .tainted = w->reduced_corrupt,
                                   .cell_count = (uint16_t)sim->setup.job.cells};
        if (!v->used) {
            continue;
        }
        if (sim_rng_chance(&sim->net_rng, 10)) { /* it did not take them in time */
            record.kind = SIM_FRAME_SUBSCRIBE;
            record.flags = FLAG_DROPPED;
            record.cell_count = 0;
            v->used = false;
        }
        (void)sim_mesh_send(sim, worker, v->slot, &record, w->reduced);
        if (v->used) {
            stage(sim, worker, v);
        }
    }
}

/* A generation is entered: visitors of the old one subscribe anew. */
void sim_joiner_entered(struct sim *sim, uint32_t worker)
{
    struct sim_joiner *j = sim->workers[worker].joiner;
    if (j != NULL) {
        memset(j->visitors, 0, sizeof j->visitors);
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

void sim_joiner_frame(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells)
{
    if (frame->kind == SIM_FRAME_SUBSCRIBE && frame->flags == 0) {
        add_visitor(sim, worker, from, frame->value[0]);
    } else if (sim->workers[worker].joiner != NULL) {
        take_part(sim, worker, from, frame, cells);
    }
}

void sim_joiner_lost(struct sim *sim, uint32_t worker, uint32_t peer)
{
    struct sim_joiner *j = sim->workers[worker].joiner;
    if (j == NULL) {
        return;
    }
    for (uint32_t i = 0; i < VISITORS_MAX; i++) {
        if (j->visitors[i].slot == peer) {
            j->visitors[i].used = false;
        }
    }
    if (j->active && j->source == peer) {
        subscribe(sim, worker);
    }
}
