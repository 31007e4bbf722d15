/* What a seed draws before it begins. Swarm testing: every seed has its own few kinds of fault
 * (Groce et al., "Swarm Testing", ISSTA 2012), its own job, speed and network. */
#include "sim/sim.h"

#define ALL_KINDS ((UINT64_C(1) << SIM_FAULT_COUNT) - 1)
#define KIND(fault) (UINT64_C(1) << SIM_FAULT_##fault)

/* Puppets have no data plane, parameters, checkpoints or way to leave. */
#define PUPPET_KINDS                                                                               \
    (KIND(LOSS) | KIND(DUPLICATE) | KIND(DELAY) | KIND(REORDER) | KIND(CLOG) | KIND(SWIZZLE) |     \
     KIND(PARTITION) | KIND(PARTITION_ASYM) | KIND(HALF_OPEN) | KIND(RESET) | KIND(CRASH) |        \
     KIND(HOST_CRASH) | KIND(RESTART) | KIND(CRASH_TWO) | KIND(CRASH_MOST) | KIND(PAUSE) |         \
     KIND(CLOCK_STEP) | KIND(JOIN) | KIND(STORE_LOST) | KIND(STORE_TORN) | KIND(STORE_SLOW) |      \
     KIND(STORE_FAILING))

#define SLOWEST_US       60000000u /* of a machine that is slow by nature: one shard */
#define SLOWEST_APPLY_US 4000000u  /* its update */

static uint32_t draw(struct sim *sim, uint32_t least, uint32_t most)
{
    return (uint32_t)sim_rng_range(&sim->rng, least, most);
}

/* Small groups most of the time, now and then a large one, and rarely one of the largest. */
static uint32_t draw_workers(struct sim *sim)
{
    if (sim->options->workers > 0) {
        return sim->options->workers;
    }
    uint32_t kind = draw(sim, 0, 99);
    return kind < 70   ? draw(sim, 1, 5)
           : kind < 95 ? draw(sim, 4, 10)
           : kind < 99 ? draw(sim, 10, 24)
                       : draw(sim, 24, 64);
}

static void draw_job(struct sim *sim, uint32_t workers)
{
    struct sim_setup *setup = &sim->setup;
    uint32_t shards = workers;
    while (shards < 64 && sim_rng_chance(&sim->rng, 750)) {
        shards++;
    }
    setup->bucket_count = draw(sim, 1, 3);
    uint32_t cells = 0;
    for (uint32_t b = 0; b < setup->bucket_count; b++) {
        setup->bucket_cells[b] = workers > 16 ? workers / setup->bucket_count : draw(sim, 1, 8);
        cells += setup->bucket_cells[b];
    }
    setup->job.seed = sim_rng_next(&sim->rng);
    setup->job.cells = cells;
    setup->job.steps = draw(sim, 3, 14);
    setup->job.shape.shards = shards;
    setup->job.shape.shard_samples = 4;
    /* An epoch of a few steps, the last one short: some shards of it are absent. */
    setup->job.shape.samples =
        (uint64_t)shards * 4 * draw(sim, 1, 5) + draw(sim, 1, shards * 4);
    setup->save_every = draw(sim, 0, 4);
    setup->saves = sim_rng_chance(&sim->rng, 800);
    setup->hash_every = sim_rng_chance(&sim->rng, 850) ? 1 : draw(sim, 2, 5);
    setup->audit = sim_rng_chance(&sim->rng, 400) ? 0 : draw(sim, 1, 3);
}

/* From milliseconds to a minute a step. */
static void draw_times(struct sim *sim, uint32_t workers)
{
    struct sim_setup *setup = &sim->setup;
    static const uint32_t steps_ms[] = {20, 100, 300, 1000, 3000, 10000, 60000};
    uint32_t step_ms = sim->options->step_ms > 0
                           ? sim->options->step_ms
                           : steps_ms[draw(sim, 0, 99) < 85 ? draw(sim, 0, 4) : draw(sim, 5, 6)];
    setup->threads = draw(sim, 1, 3);
    uint32_t shards_each = (setup->job.shape.shards + workers - 1) / workers;
    uint32_t rounds = (shards_each + setup->threads - 1) / setup->threads;
    setup->shard_us = step_ms * 900 / rounds + 1;
    setup->apply_us = step_ms * 100 / 2 + 1;
    setup->save_us = draw(sim, 1000, 2000000);
    setup->evaluate_us = draw(sim, 1000, 1000000);
    setup->copy_us = draw(sim, 100, 40000);
    setup->connect_timeout_ms = draw(sim, 20000, 60000);
    setup->tick_ms = 100;
    uint64_t ideal_us = (uint64_t)step_ms * 1000 * (setup->job.steps + 2);
    setup->safety_us = 5000000 + 2 * ideal_us + draw(sim, 0, 30000000);
    setup->liveness_us = setup->safety_us + 300000000 + 60 * ideal_us;
}

static void draw_faults(struct sim *sim)
{
    struct sim_setup *setup = &sim->setup;
    for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
        setup->kinds |= (uint64_t)sim_rng_chance(&sim->rng, 250) << fault;
    }
    setup->kinds &= sim->options->mask;
    uint64_t each_us = setup->safety_us / draw(sim, 2, 20);
    setup->rate_us = sim_rng_chance(&sim->rng, 800) && setup->kinds != 0
                         ? (uint32_t)(each_us < 600000000 ? each_us : 600000000)
                         : 0;
    setup->wishes = sim->options->mask != 0 && sim_rng_chance(&sim->rng, 850) ? SIM_WISHES : 0;
    setup->loss_permille =
        (setup->kinds >> SIM_FAULT_LOSS & 1) != 0 && sim_rng_chance(&sim->rng, 300)
            ? draw(sim, 1, 30)
            : 0;
}

/* Jobs are short here: who is slow is known sooner than in the daemon. Some are longer, on one slow
 * machine among others. From a generator of its own, so that what else a seed draws stays as it
 * was. */
static void draw_balance(struct sim *sim, uint32_t workers)
{
    struct sim_setup *setup = &sim->setup;
    struct sim_rng rng;
    sim_rng_init(&rng, sim->seed, 4);
    setup->slow_slot = SIM_NO_SLOT;
    if (sim_rng_chance(&rng, 150)) {
        setup->slow_slot = (uint32_t)sim_rng_range(&rng, 0, workers - 1);
        setup->slow_factor = (uint32_t)sim_rng_range(&rng, 2, 6);
        setup->job.steps += sim_rng_range(&rng, 10, 40);
    }
    setup->rebalance = sim_rng_chance(&rng, 500);
    setup->straggler_steps = (uint32_t)sim_rng_range(&rng, 1, 4);
    setup->straggler_ms = (uint32_t)sim_rng_range(&rng, 0, 1500);
    setup->settle_ms = (uint32_t)sim_rng_range(&rng, 0, 3000);
    setup->balance_ms = (uint32_t)sim_rng_range(&rng, 200, 10000);
}

static void draw_puppets(struct sim *sim)
{
    struct sim_setup *setup = &sim->setup;
    setup->puppets = sim->options->puppets;
    setup->slots = setup->puppets;
    setup->start_count = setup->puppets;
    setup->max = setup->puppets;
    setup->min = setup->puppets / 2 > 0 ? setup->puppets / 2 : 1;
    setup->hosts = setup->puppets < 60 ? setup->puppets : 60;
    setup->job.steps = 1;
    setup->safety_us = 60000000;
    setup->liveness_us = setup->safety_us + 120000000;
    setup->tick_ms = 100;
    setup->connect_timeout_ms = 60000;
    setup->wishes = 0;
    setup->kinds &= PUPPET_KINDS;
    setup->rate_us = setup->kinds != 0 ? draw(sim, 300000, 3000000) : 0;
}

void sim_setup_draw(struct sim *sim)
{
    struct sim_setup *setup = &sim->setup;
    *setup = (struct sim_setup){0};
    uint32_t workers = draw_workers(sim);
    draw_job(sim, workers);
    draw_balance(sim, workers);
    draw_times(sim, workers);
    /* Whose shards take longer than --startup is put out, and who enters a plan ten seconds after
     * the others is missed on the data plane: not here. */
    if (setup->slow_slot != SIM_NO_SLOT &&
        ((uint64_t)setup->shard_us * setup->slow_factor > SLOWEST_US ||
         (uint64_t)setup->apply_us * setup->slow_factor > SLOWEST_APPLY_US)) {
        setup->slow_slot = SIM_NO_SLOT;
    }
    draw_faults(sim);
    setup->start_count = workers;
    setup->max = workers + (workers < 60 ? draw(sim, 0, 2) : 0);
    setup->min = draw(sim, 1, workers);
    if (setup->job.shape.shards < setup->max) {
        setup->max = setup->job.shape.shards;
    }
    setup->slots = workers + draw(sim, 2, 4) + (workers > 8 ? 0 : setup->min);
    uint32_t per_host = draw(sim, 1, 3);
    setup->hosts = (setup->slots + per_host - 1) / per_host;
    sim->net.latency_us = draw(sim, 50, 3000);
    sim->net.jitter_us = draw(sim, 10, 4000);
    sim->store.latency_us = draw(sim, 100, 5000);
    if (sim->options->puppets > 0) {
        draw_puppets(sim);
    }
    setup->kinds &= ALL_KINDS;
}
