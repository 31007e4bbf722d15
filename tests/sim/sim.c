/* The frame: one seed from nothing to its end, and the order in which events reach processes.
 *
 * Invariants: time never goes back; an event of a process that is gone is void; what comes to a
 * process that is stopped is kept in order and comes when it goes on, ticks last (the daemon reads
 * before it judges). */
#include "sim/sim.h"

#include "sim/panic.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sim_outcome *current; /* of the seed that runs: sim_fail() fills it */

/* ---- services ------------------------------------------------------------------------------- */

void sim_fail(struct sim *sim, enum sim_checker by, const char *format, ...)
{
    va_list arguments;
    if (sim->ended) {
        return;
    }
    sim->ended = true;
    current->failed = true;
    current->by = by;
    current->at_us = sim->now_us;
    va_start(arguments, format);
    (void)vsnprintf(current->sentence, sizeof current->sentence, format, arguments);
    va_end(arguments);
    sim_trace(sim, "FAILED       %s", current->sentence);
}

void sim_trace_line(const struct sim *sim, const char *format, ...)
{
    va_list arguments;
    printf("%12.6f  ", (double)sim->now_us / 1e6);
    va_start(arguments, format);
    (void)vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void sim_struck(struct sim *sim, enum sim_fault fault)
{
    sim->table->kind[fault]++;
}

struct sim_proc *sim_proc_of(struct sim *sim, uint32_t member)
{
    return member == SIM_COORDINATOR ? &sim->coord_proc : &sim->members[member].proc;
}

uint64_t sim_proc_now_us(const struct sim *sim, const struct sim_proc *proc)
{
    return sim->now_us + proc->skew_us;
}

/* ---- stopped processes ---------------------------------------------------------------------- */

void sim_proc_pause(struct sim *sim, uint32_t member)
{
    sim_proc_of(sim, member)->paused = true;
}

void sim_proc_resume(struct sim *sim, uint32_t member)
{
    struct sim_proc *proc = sim_proc_of(sim, member);
    proc->paused = false;
    proc->skewed_us = sim->now_us;
    sim_proc_unpark(sim, proc);
}

static void park(struct sim_proc *proc, const struct sim_event *event)
{
    if (proc->parked_count == proc->parked_room) {
        proc->parked_room = proc->parked_room == 0 ? 16 : 2 * proc->parked_room;
        proc->parked = realloc(proc->parked, proc->parked_room * sizeof *proc->parked);
        SIM_REQUIRE(proc->parked != NULL);
    }
    proc->parked[proc->parked_count++] = *event;
}

void sim_proc_unpark(struct sim *sim, struct sim_proc *proc)
{
    for (int ticks = 0; ticks < 2; ticks++) {
        for (uint32_t i = 0; i < proc->parked_count; i++) {
            struct sim_event event = proc->parked[i];
            if ((event.kind == SIM_EV_TICK) == (ticks == 1)) {
                event.at_us = sim->now_us;
                sim_heap_push(&sim->heap, &event);
            }
        }
    }
    proc->parked_count = 0;
}

/* ---- events --------------------------------------------------------------------------------- */

static bool conn_event(uint32_t kind)
{
    return kind == SIM_EV_SYN || kind == SIM_EV_ACCEPT || kind == SIM_EV_PIPE_UP ||
           kind == SIM_EV_BROKEN_UP || kind == SIM_EV_ANSWER || kind == SIM_EV_PIPE_DOWN ||
           kind == SIM_EV_BROKEN_DOWN;
}

/* Of an older connection, link, injury or process. */
static bool void_event(struct sim *sim, const struct sim_event *event)
{
    if (conn_event(event->kind)) {
        return sim->net.conns[event->target].serial != event->serial;
    }
    switch (event->kind) {
    case SIM_EV_TICK:
    case SIM_EV_PROBED:
        return sim->coord_proc.serial != event->serial;
    case SIM_EV_STORE:
        return sim->store.serial != event->serial;
    case SIM_EV_WAKE:
        return sim_member_wakes_not(sim, event->target, event->serial);
    case SIM_EV_WORK:
    case SIM_EV_LINK_DEADLINE:
        return sim->members[event->target].proc.serial != event->serial;
    case SIM_EV_LANE:
    case SIM_EV_LINK_GREET:
        return sim_mesh_serial(sim, event->target, event->extra) != event->serial;
    case SIM_EV_HEAL:
        return sim->strikes.injuries[event->target].serial != event->serial;
    default:
        return false;
    }
}

/* The process that handles it; NULL: kernels, or the world. */
static struct sim_proc *proc_of(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_EV_ACCEPT:
    case SIM_EV_PIPE_UP:
    case SIM_EV_BROKEN_UP:
    case SIM_EV_TICK:
    case SIM_EV_STORE:
    case SIM_EV_PROBED:
        return &sim->coord_proc;
    case SIM_EV_ANSWER:
    case SIM_EV_PIPE_DOWN:
    case SIM_EV_BROKEN_DOWN:
        return &sim->members[sim->net.conns[event->target].member].proc;
    case SIM_EV_WAKE:
    case SIM_EV_WORK:
    case SIM_EV_LINK_DEADLINE:
    case SIM_EV_LINK_GREET:
        return &sim->members[event->target].proc;
    case SIM_EV_LANE:
        return &sim->members[event->extra].proc;
    default:
        return NULL;
    }
}

static void handle_world(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_EV_BIRTH:
        sim_strike_birth(sim, event->target);
        break;
    case SIM_EV_STRIKE:
        sim_strike(sim, event->value);
        break;
    case SIM_EV_HEAL:
        sim_strike_heal(sim, event->target);
        break;
    case SIM_EV_KEEP_STORE:
        sim_store_keep_old(sim);
        break;
    case SIM_EV_CALM:
        sim_strike_calm(sim);
        break;
    case SIM_EV_END:
        sim->over = true;
        break;
    default:
        SIM_REQUIRE(!"an event of an unknown kind");
    }
}

static void handle_data(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_EV_LANE:
        sim_mesh_lane(sim, event->target, event->extra);
        break;
    case SIM_EV_LINK_SYN:
        sim_mesh_syn(sim, event->target, event->extra);
        break;
    case SIM_EV_LINK_GREET:
        sim_mesh_greet(sim, event->target, event->extra);
        break;
    case SIM_EV_LINK_DEADLINE:
        sim_mesh_deadline(sim, event->target, event->extra, event->value);
        break;
    case SIM_EV_WORK:
        if (sim->workers != NULL) {
            sim_worker_work(sim, event->target, (enum sim_work)event->extra, event->value);
        } else {
            sim_puppet_work(sim, event->target);
        }
        break;
    default:
        handle_world(sim, event);
        break;
    }
}

static void handle(struct sim *sim, const struct sim_event *event)
{
    switch (event->kind) {
    case SIM_EV_SYN:
        sim_net_syn(sim, event->target);
        break;
    case SIM_EV_ACCEPT:
        sim_net_accept(sim, event->target);
        break;
    case SIM_EV_ANSWER:
        sim_net_answer(sim, event->target, event->extra != 0);
        break;
    case SIM_EV_PIPE_UP:
    case SIM_EV_PIPE_DOWN:
        sim_net_pipe(sim, event->target, (enum sim_end)event->extra);
        break;
    case SIM_EV_BROKEN_UP:
    case SIM_EV_BROKEN_DOWN:
        sim_net_broken(sim, event->target, (enum sim_end)event->extra);
        break;
    case SIM_EV_TICK:
        sim_coord_tick(sim);
        break;
    case SIM_EV_STORE:
        sim_store_done(sim);
        break;
    case SIM_EV_PROBED:
        sim_coord_probed(sim, event->value, event->extra != 0);
        break;
    case SIM_EV_WAKE:
        sim_member_wake(sim, event->target);
        break;
    default:
        handle_data(sim, event);
        break;
    }
}

static void turn(struct sim *sim, const struct sim_event *event)
{
    SIM_REQUIRE(event->at_us >= sim->now_us);
    sim->now_us = event->at_us;
    if (void_event(sim, event)) {
        return;
    }
    struct sim_proc *proc = proc_of(sim, event);
    bool judge_first = sim->options->bug == SIM_BUG_JUDGE_FIRST && event->kind == SIM_EV_TICK;
    if (proc != NULL && proc->paused && !judge_first) {
        park(proc, event);
        return;
    }
    sim->events++;
    sim_mark(sim, event->at_us ^ (uint64_t)event->kind << 56 ^ (uint64_t)event->target << 40);
    handle(sim, event);
}

/* ---- a seed --------------------------------------------------------------------------------- */

static void world_begin(struct sim *sim)
{
    sim_rng_init(&sim->rng, sim->seed, 1);
    sim_rng_init(&sim->net_rng, sim->seed, 2);
    sim_rng_init(&sim->id_rng, sim->seed, 3);
    sim_setup_draw(sim);
    sim->member_count = sim->setup.slots;
    sim->members = calloc(sim->member_count, sizeof *sim->members);
    SIM_REQUIRE(sim->members != NULL);
    if (sim->setup.puppets > 0) {
        sim->puppets = calloc(sim->member_count, sizeof *sim->puppets);
        SIM_REQUIRE(sim->puppets != NULL);
    } else {
        sim->workers = calloc(sim->member_count, sizeof *sim->workers);
        SIM_REQUIRE(sim->workers != NULL);
        sim_mesh_init(sim, sim->member_count);
        sim->mesh.stale = sim->options->bug == SIM_BUG_STALE_FRAMES;
    }
    sim->store.lies = sim->options->bug == SIM_BUG_EARLY_PROMISE;
    uint32_t latency_us = sim->net.latency_us, jitter_us = sim->net.jitter_us;
    SIM_REQUIRE(sim->setup.hosts < SIM_HOSTS_MAX);
    sim_net_init(sim, sim->setup.hosts + 1, 4 * sim->member_count + 64);
    sim->net.latency_us = latency_us;
    sim->net.jitter_us = jitter_us;
    for (uint32_t i = 0; i < sim->net.host_count * sim->net.host_count; i++) {
        sim->net.paths[i].loss_permille = sim->setup.loss_permille;
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        sim->members[i].proc.host = 1 + i % sim->setup.hosts;
        sim->members[i].conn = SIM_NO_CONN;
        if (sim->workers != NULL) {
            sim_worker_init(sim, i);
        }
    }
    sim_check_init(sim);
    sim_coord_init(sim);
}

static void later(struct sim *sim, enum sim_event_kind kind, uint64_t at_us)
{
    struct sim_event event = {.at_us = at_us, .kind = kind};
    sim_heap_push(&sim->heap, &event);
}

static void tell_setup(struct sim *sim)
{
    const struct sim_setup *setup = &sim->setup;
    sim_trace(
        sim,
        "SEED %" PRIu64 "  %u workers (%u slots on %u hosts), min %u, max %u, %u shards, %" PRIu64
        " steps, %u cells, threads %u, shard %u us, save every %" PRIu64 ", faults %010" PRIx64,
        sim->seed, setup->start_count, setup->slots, setup->hosts, setup->min, setup->max,
        setup->job.shape.shards, setup->job.steps, setup->job.cells, setup->threads,
        setup->shard_us, setup->saves ? setup->save_every : 0, setup->kinds);
    for (uint32_t i = 0; i < sim->strikes.wish_count; i++) {
        const struct sim_wish *wish = &sim->strikes.wishes[i];
        sim_trace(sim, "WISH         %s of %s in %s", sim_fault_word(wish->fault),
                  sim_role_word(wish->role), sim_phase_word(wish->phase));
    }
}

static void first_events(struct sim *sim)
{
    sim_coord_birth(sim);
    for (uint32_t i = 0; i < sim->setup.start_count; i++) {
        sim_birth_later(sim, i, sim_rng_below(&sim->rng, 1500000));
    }
    sim_strike_begin(sim);
    later(sim, SIM_EV_CALM, sim->setup.safety_us);
    later(sim, SIM_EV_END, sim->setup.liveness_us);
    tell_setup(sim);
}

/* All processes have ended well, and nobody will come any more. */
static bool all_done(struct sim *sim)
{
    sim->look_done = false;
    bool done = sim->check.finished > 0 || sim->check.done_told;
    if (!sim->calm || sim->workers == NULL || !done) {
        return false;
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (sim->members[i].proc.alive) {
            return false;
        }
    }
    return true;
}

static void world_end(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (sim->workers != NULL) {
            sim_worker_release(sim, i);
        }
        sim_member_release(sim, i);
    }
    if (sim->workers != NULL) {
        sim_mesh_release(sim);
    }
    free(sim->members);
    free(sim->workers);
    free(sim->puppets);
    free(sim->coord_proc.parked);
    sim_coord_release(sim);
    sim_check_release(sim);
    sim_store_release(sim);
    sim_net_release(sim);
    sim_heap_release(&sim->heap);
}

void sim_run(const struct sim_options *options, uint64_t seed, struct sim_table *table,
             struct sim_outcome *outcome)
{
    struct sim *sim = calloc(1, sizeof *sim);
    struct sim_event event;
    SIM_REQUIRE(sim != NULL);
    *outcome = (struct sim_outcome){0};
    current = outcome;
    sim->options = options;
    sim->seed = seed;
    sim->table = table;
    sim_heap_init(&sim->heap);
    world_begin(sim);
    first_events(sim);
    if (options->bug == SIM_BUG_CANARY && seed % 97 == 13) {
        sim_fail(sim, SIM_CHECK_CANARY, "the canary sings: expected %d, got %d", 0, 1);
    }
    while (!sim->ended && !sim->over && sim_heap_pop(&sim->heap, &event)) {
        turn(sim, &event);
        if (sim->look_done && all_done(sim)) {
            break;
        }
    }
    sim_check_end(sim, outcome);
    outcome->hash = sim->hash;
    outcome->events = sim->events;
    outcome->virtual_us = sim->now_us;
    outcome->steps = sim->check.steps;
    outcome->generations = sim->check.generation_count;
    outcome->stragglers = sim->check.stragglers;
    outcome->spreads = sim->check.spreads;
    outcome->unprotected = sim->check.unprotected;
    world_end(sim);
    free(sim);
}
