/* The worker's device: shards, updates and checkpoints that take time.
 *
 * Invariants: a shard's value is made of the parameters that its thread read when it began;
 * parameters change only when an update or a copied state is whole, or a bit flips; R is tagged
 * cell by cell with the step it is of. `hash` is what the update made: flips since then are not in
 * it. */
#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <string.h>

static void later(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value,
                  uint64_t mean_us)
{
    uint64_t took_us = mean_us / 2 + sim_rng_below(&sim->net_rng, mean_us + 1);
    struct sim_event event = {.at_us = sim->now_us + took_us, .kind = SIM_EV_WORK,
                              .target = worker, .extra = work, .value = value,
                              .serial = sim->members[worker].proc.serial};
    sim_heap_push(&sim->heap, &event);
}

static uint64_t proc_now_us(const struct sim *sim, uint32_t worker)
{
    return sim_proc_now_us(sim, &sim->members[worker].proc);
}

static uint64_t slowed_us(const struct sim *sim, const struct sim_worker *w, uint64_t mean_us)
{
    bool by_nature = (uint32_t)(w - sim->workers) == sim->setup.slow_slot;
    mean_us *= by_nature ? sim->setup.slow_factor : 1;
    return w->slow_until_us > sim->now_us ? mean_us * w->slow_factor : mean_us;
}

/* ---- shards --------------------------------------------------------------------------------- */

static void begin_shards(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    for (uint32_t t = 0; t < sim->setup.threads; t++) {
        struct sim_thread *thread = &w->threads[t];
        uint32_t shard = 0;
        while (shard < sim->setup.job.shape.shards && !plan_mask_has(&w->shard_todo, shard)) {
            shard++;
        }
        if (shard == sim->setup.job.shape.shards) {
            return;
        }
        if (!thread->busy) {
            struct plan_mask one = {{0}};
            plan_mask_set(&one, shard);
            w->shard_todo = plan_mask_minus(&w->shard_todo, &one);
            *thread = (struct sim_thread){.busy = true, .step = w->shard_step, .shard = shard,
                                          .hash = sim_device_hash(sim, worker),
                                          .serial = thread->serial + 1,
                                          .begun_us = proc_now_us(sim, worker)};
            if (w->planted_hash != 0) {
                thread->hash = w->planted_hash;
                w->planted_hash = 0;
            }
            later(sim, worker, SIM_WORK_SHARD, t, slowed_us(sim, w, sim->setup.shard_us));
        }
    }
}

void sim_device_compute(struct sim *sim, uint32_t worker, uint64_t step,
                        const struct plan_mask *shards)
{
    struct sim_worker *w = &sim->workers[worker];
    if (w->version != step) {
        sim_fail(sim, SIM_CHECK_CHAIN,
                 "worker %u shall compute step %" PRIu64 " on parameters of version %" PRIu64,
                 worker, step, w->version);
        return;
    }
    w->shard_step = step;
    for (uint32_t shard = 0; shard < sim->setup.job.shape.shards; shard++) {
        if (plan_mask_has(shards, shard)) {
            plan_mask_set(&w->shard_todo, shard);
        }
    }
    begin_shards(sim, worker);
}

uint64_t sim_device_hash(const struct sim *sim, uint32_t worker)
{
    return toy_params_hash(&sim->setup.job, sim->workers[worker].params);
}

/* A shard's value, right or not. */
uint64_t sim_device_shard(struct sim *sim, uint32_t worker, uint64_t step, uint32_t shard,
                          uint64_t hash)
{
    struct sim_worker *w = &sim->workers[worker];
    struct plan_mask present = plan_present(&sim->setup.job.shape, step);
    uint64_t value = toy_shard(&sim->setup.job, step, shard, hash);
    if (w->sum_flips && w->elastic.generation.world >= 3 &&
        shard == audit_shard(sim->setup.audit, step, sim->setup.job.shape.shards, &present)) {
        w->sum_flips = false;
        w->sum_corrupt = true;
        value ^= 1;
    }
    return value;
}

static uint64_t value_of(struct sim *sim, uint32_t worker, const struct sim_thread *thread)
{
    struct sim_worker *w = &sim->workers[worker];
    uint64_t step = thread->step;
    if (sim->options->bug == SIM_BUG_STALE_SUMS && w->planted > 0 && step > 0) {
        w->planted--;
        step--;
    }
    uint32_t shard = thread->shard;
    if (sim->options->bug == SIM_BUG_DOUBLE_SHARD && w->planted > 0) {
        w->planted--;
        shard ^= 1u;
    }
    return sim_device_shard(sim, worker, step, shard, thread->hash);
}

static void shard_done(struct sim *sim, uint32_t worker, uint32_t t)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_thread *thread = &w->threads[t];
    struct sim_thread done = *thread;
    thread->busy = false;
    pace_shard(&w->pace, done.step, proc_now_us(sim, worker) - done.begun_us);
    if (done.step == w->shard_step && done.step == w->version) {
        w->shard_value[done.shard] = value_of(sim, worker, &done);
        plan_mask_set(&w->shard_have, done.shard);
        begin_shards(sim, worker);
        sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_SHARD_DONE,
                                                             .step = done.step,
                                                             .shard = done.shard});
        sim_sums_shard(sim, worker);
    } else {
        begin_shards(sim, worker);
    }
}

void sim_device_new_version(struct sim *sim, uint32_t worker, uint64_t version)
{
    struct sim_worker *w = &sim->workers[worker];
    w->version = version;
    w->shard_step = version;
    w->shard_have = (struct plan_mask){{0}};
    w->shard_todo = (struct plan_mask){{0}};
    w->hash = sim_device_hash(sim, worker);
    w->hashed = true;
    w->auditing = w->audit_have = w->sum_corrupt = false;
    w->audit_serial++;
}

/* ---- updates -------------------------------------------------------------------------------- */

void sim_device_apply(struct sim *sim, uint32_t worker, uint64_t step, bool hashed)
{
    struct sim_worker *w = &sim->workers[worker];
    SIM_REQUIRE(!w->applying);
    w->applying = true;
    w->apply_step = step;
    w->apply_hashed = hashed;
    later(sim, worker, SIM_WORK_APPLY, 0, slowed_us(sim, w, sim->setup.apply_us));
}

static void flip_reduced(struct sim_worker *w)
{
    if (w->reduced_flips && w->elastic.generation.world >= 3) {
        w->reduced_flips = false;
        w->reduced_corrupt = true;
        w->reduced[0] ^= 1;
    }
}

static void applied(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    uint64_t step = w->apply_step;
    bool sum_corrupt = w->sum_corrupt;
    w->applying = false;
    flip_reduced(w);
    for (uint32_t cell = 0; cell < sim->setup.job.cells; cell++) {
        if (w->reduced_of[cell] != step + 1) {
            sim_fail(sim, SIM_CHECK_SHARDS,
                     "worker %u applies step %" PRIu64 ", but cell %u of R is of step %" PRId64,
                     worker, step, cell, (int64_t)w->reduced_of[cell] - 1);
            return;
        }
        w->params[cell] = toy_update(w->params[cell], step, w->reduced[cell]);
    }
    if (w->corrupt_next) {
        w->corrupt_next = false;
        w->corrupt = true;
        w->params[0] ^= UINT64_C(1) << (step % TOY_PARAM_BITS);
    }
    sim_device_new_version(sim, worker, step + 1);
    w->hashed = w->apply_hashed;
    /* Alone, a wrong sum of one's own is in one's R, and nobody can tell. */
    w->corrupt |= w->reduced_corrupt || (sum_corrupt && w->elastic.generation.world == 1);
    sim_check_applied(sim, worker, step);
    sim_joiner_applied(sim, worker, step);
    sim_worker_feed(
        sim, worker,
        &(struct elastic_event){
            .type = ELASTIC_APPLIED, .version = step + 1, .hash = w->hash, .hashed = w->hashed});
}

/* ---- checkpoints ---------------------------------------------------------------------------- */

/* The newest ones are kept; one of a version that is there already is the same. */
static void publish(struct sim *sim, const struct sim_checkpoint *checkpoint)
{
    struct sim_checkpoint *oldest = &sim->checkpoints[0];
    for (uint32_t i = 0; i < SIM_CHECKPOINTS; i++) {
        struct sim_checkpoint *at = &sim->checkpoints[i];
        if (at->valid && at->version == checkpoint->version) {
            *at = *checkpoint;
            return;
        }
        if (!at->valid || (oldest->valid && at->version < oldest->version)) {
            oldest = at;
        }
    }
    if (!oldest->valid || oldest->version < checkpoint->version) {
        *oldest = *checkpoint;
    }
}

/* A worker's end waits until what it writes is there. */
void sim_device_flush(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    for (uint32_t i = 0; i < SIM_SAVES_MAX; i++) {
        if (w->saves[i].valid && sim->options->bug != SIM_BUG_EARLY_SAVED) {
            publish(sim, &w->saves[i]);
        }
        w->saves[i].valid = false;
    }
}

/* What everything waits for is written in any case, after what was asked for before it. */
void sim_device_save(struct sim *sim, uint32_t worker, uint64_t version, bool last)
{
    struct sim_worker *w = &sim->workers[worker];
    uint32_t i = 0;
    while (i < SIM_SAVES_MAX && w->saves[i].valid) {
        i++;
    }
    if (i == SIM_SAVES_MAX && last) {
        sim_device_flush(sim, worker);
        i = 0;
    }
    if (i == SIM_SAVES_MAX) { /* the disk cannot follow: this one is left out */
        sim_worker_feed(sim, worker,
                        &(struct elastic_event){.type = ELASTIC_SAVED, .version = version});
        return;
    }
    w->saves[i] = (struct sim_checkpoint){.valid = true,
                                          .version = w->version,
                                          .hash = w->hash,
                                          .tainted = w->corrupt,
                                          .generation = w->elastic.generation.number};
    memcpy(w->saves[i].params, w->params, sizeof w->params);
    later(sim, worker, SIM_WORK_SAVE, i, sim->setup.save_us);
    if (sim->options->bug == SIM_BUG_EARLY_SAVED) {
        sim_worker_feed(sim, worker,
                        &(struct elastic_event){.type = ELASTIC_SAVED, .version = version});
    }
}

static void saved(struct sim *sim, uint32_t worker, uint32_t i)
{
    struct sim_worker *w = &sim->workers[worker];
    if (!w->saves[i].valid) {
        return; /* it was flushed meanwhile */
    }
    publish(sim, &w->saves[i]);
    sim_trace(sim, "worker %-3u   saved version %" PRIu64, worker, w->saves[i].version);
    w->saves[i].valid = false;
    sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_SAVED,
                                                         .version = w->saves[i].version});
}

static const struct sim_checkpoint *newest_valid(const struct sim *sim)
{
    const struct sim_checkpoint *newest = NULL;
    for (uint32_t i = 0; i < SIM_CHECKPOINTS; i++) {
        const struct sim_checkpoint *at = &sim->checkpoints[i];
        bool usable = at->valid && (!at->torn || sim->options->bug == SIM_BUG_OLD_CHECKPOINT);
        if (usable && (newest == NULL || at->version > newest->version)) {
            newest = at;
        }
    }
    return newest;
}

/* The newest valid one, or the first state: NULL. */
const struct sim_checkpoint *sim_device_load(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    const struct sim_checkpoint *newest = newest_valid(sim);
    toy_params_first(&sim->setup.job, w->params);
    if (newest != NULL) {
        memcpy(w->params, newest->params, sizeof w->params);
    }
    sim_device_new_version(sim, worker, newest != NULL ? newest->version : 0);
    w->corrupt = newest != NULL && newest->tainted;
    sim_check_loaded(sim, worker, newest);
    return newest;
}

void sim_device_reload(struct sim *sim, uint32_t worker)
{
    later(sim, worker, SIM_WORK_RELOAD, 0, 20000);
}

static void reloaded(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    (void)sim_device_load(sim, worker);
    sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_RELOADED,
                                                         .version = w->version, .hash = w->hash});
}

/* ---- the rest ------------------------------------------------------------------------------- */

void sim_device_evaluate(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    if (w->evaluating)
        sim_fail(sim, SIM_CHECK_MACHINES, "worker %u is to evaluate while it evaluates", worker);
    w->evaluating = true;
    later(sim, worker, SIM_WORK_EVALUATE, 0, slowed_us(sim, w, sim->setup.evaluate_us));
}

void sim_device_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value)
{
    switch (work) {
    case SIM_WORK_SHARD:
        shard_done(sim, worker, (uint32_t)value);
        break;
    case SIM_WORK_APPLY:
        applied(sim, worker);
        break;
    case SIM_WORK_SAVE:
        saved(sim, worker, (uint32_t)value);
        break;
    case SIM_WORK_EVALUATE:
        sim->workers[worker].evaluating = false;
        sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_EVALUATED});
        break;
    case SIM_WORK_RELOAD:
        reloaded(sim, worker);
        break;
    case SIM_WORK_DRAIN:
    case SIM_WORK_UNHEARD:
    case SIM_WORK_LINGER:
    case SIM_WORK_CHECK:
    case SIM_WORK_AUDIT:
        break;
    }
}
