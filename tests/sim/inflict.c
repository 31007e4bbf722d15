/* What each kind of fault does to the simulated world, and how it is undone. */
#include "sim/panic.h"
#include "sim/sim.h"

#include <stdio.h>
#include <string.h>

#define MS UINT64_C(1000)
#define ALL_OTHERS UINT32_MAX

static uint64_t between_ms(struct sim *sim, uint64_t least, uint64_t most)
{
    return sim_rng_range(&sim->rng, least, most) * MS;
}

static uint32_t host_of(struct sim *sim, uint32_t target)
{
    return sim_proc_of(sim, target)->host;
}

struct sim_injury *sim_injury_new(struct sim *sim, enum sim_fault fault, uint32_t target,
                                  uint64_t for_us)
{
    for (uint32_t i = 0; i < SIM_INJURIES_MAX; i++) {
        struct sim_injury *injury = &sim->strikes.injuries[i];
        if (!injury->used) {
            *injury = (struct sim_injury){.used = true, .fault = fault, .a = target,
                                          .serial = injury->serial + 1,
                                          .until_us = sim->now_us + for_us,
                                          .hosts = {host_of(sim, target), ALL_OTHERS}};
            struct sim_event event = {.at_us = sim->now_us + for_us, .kind = SIM_EV_HEAL,
                                      .target = i, .serial = injury->serial};
            sim_heap_push(&sim->heap, &event);
            return injury;
        }
    }
    return NULL;
}

void sim_birth_later(struct sim *sim, uint32_t member, uint64_t after_us)
{
    struct sim_event event = {.at_us = sim->now_us + after_us, .kind = SIM_EV_BIRTH,
                              .target = member};
    sim_heap_push(&sim->heap, &event);
}

/* ---- paths ---------------------------------------------------------------------------------- */

typedef void (*path_cb)(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                        int sign);

/* CUT_OFF: is this one of the hosts that it concerns? */
static bool cut_from(const struct sim_injury *injury, uint32_t host)
{
    return (injury->hosts_mask[host / 64] >> (host % 64) & 1) != 0;
}

/* The paths of an injury: from hosts[0] to hosts[1] or all others, and back unless it is
 * one-way. */
static void each_path(struct sim *sim, const struct sim_injury *injury, path_cb do_path, int sign)
{
    for (uint32_t host = 0; host < sim->net.host_count; host++) {
        bool meant = injury->hosts[1] == ALL_OTHERS ? host != injury->hosts[0]
                                                    : host == injury->hosts[1];
        if (injury->fault == SIM_FAULT_CUT_OFF) {
            meant = cut_from(injury, host);
        }
        if (!meant) {
            continue;
        }
        if (injury->way != -1) {
            do_path(sim, sim_net_path(sim, injury->hosts[0], host), injury, sign);
        }
        if (injury->way != 1) {
            do_path(sim, sim_net_path(sim, host, injury->hosts[0]), injury, sign);
        }
    }
}

static void path_cut(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                     int sign)
{
    (void)sim;
    bool control = injury->fault != SIM_FAULT_DATA_CUT && injury->fault != SIM_FAULT_DATA_ASYM;
    path->cuts[SIM_DATA] += (uint32_t)sign;
    path->cuts[SIM_CONTROL] += control ? (uint32_t)sign : 0;
}

static void path_lossy(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                       int sign)
{
    (void)sim;
    (void)injury;
    path->loss_permille = sign > 0 ? 250 : sim->setup.loss_permille;
}

static void path_slow(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                      int sign)
{
    (void)sim;
    bool data = injury->fault == SIM_FAULT_DATA_SLOW;
    path->slow_us[data ? SIM_DATA : SIM_CONTROL] = sign > 0 ? injury->slow_us : 0;
}

static void path_jitter(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                        int sign)
{
    (void)sim;
    path->jitter_us = sign > 0 ? injury->slow_us : 0;
}

static void path_clog(struct sim *sim, struct sim_path *path, const struct sim_injury *injury,
                      int sign)
{
    path->clog_until_us = sign > 0 ? injury->until_us : sim->now_us;
}

static path_cb path_of(enum sim_fault fault)
{
    switch ((int)fault) {
    case SIM_FAULT_LOSS:
        return path_lossy;
    case SIM_FAULT_DELAY:
    case SIM_FAULT_DATA_SLOW:
        return path_slow;
    case SIM_FAULT_REORDER:
        return path_jitter;
    case SIM_FAULT_CLOG:
    case SIM_FAULT_SWIZZLE:
        return path_clog;
    case SIM_FAULT_PARTITION:
    case SIM_FAULT_PARTITION_ASYM:
    case SIM_FAULT_DATA_CUT:
    case SIM_FAULT_DATA_ASYM:
    case SIM_FAULT_CUT_OFF:
        return path_cut;
    default:
        return NULL;
    }
}

/* A second host with a live worker, not this one; hosts[0] itself if there is none. */
static uint32_t other_host(struct sim *sim, uint32_t target)
{
    uint32_t start = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    for (uint32_t i = 0; i < sim->member_count; i++) {
        const struct sim_proc *proc = &sim->members[(start + i) % sim->member_count].proc;
        if (proc->alive && proc->host != host_of(sim, target)) {
            return proc->host;
        }
    }
    return host_of(sim, target);
}

static bool hurt_paths(struct sim *sim, enum sim_fault fault, uint32_t target, uint64_t for_us)
{
    struct sim_injury *injury = sim_injury_new(sim, fault, target, for_us);
    if (injury == NULL) {
        return false;
    }
    bool one_way = fault == SIM_FAULT_PARTITION_ASYM || fault == SIM_FAULT_DATA_ASYM;
    injury->way = !one_way ? 0 : sim_rng_chance(&sim->rng, 500) ? 1 : -1;
    injury->slow_us = (uint32_t)between_ms(sim, 20, fault == SIM_FAULT_DATA_SLOW ? 400 : 900);
    if (fault == SIM_FAULT_DATA_CUT || fault == SIM_FAULT_DATA_ASYM) {
        injury->hosts[1] = other_host(sim, target);
    }
    each_path(sim, injury, path_of(fault), 1);
    return true;
}

/* A random half of the hosts, each for a time of its own. */
static bool swizzle(struct sim *sim, uint32_t target)
{
    bool any = hurt_paths(sim, SIM_FAULT_SWIZZLE, target, between_ms(sim, 100, 4000));
    for (uint32_t host = 1; host < sim->net.host_count; host++) {
        struct sim_injury *injury;
        if (!sim_rng_chance(&sim->rng, 500) || host == host_of(sim, target)) {
            continue;
        }
        injury = sim_injury_new(sim, SIM_FAULT_SWIZZLE, target, between_ms(sim, 100, 4000));
        if (injury != NULL) {
            injury->hosts[0] = host;
            each_path(sim, injury, path_clog, 1);
        }
    }
    return any;
}

/* The coordinator loses the hosts of everybody who is there now; newcomers come on other hosts. */
static bool cut_off(struct sim *sim)
{
    struct sim_injury *injury =
        sim_injury_new(sim, SIM_FAULT_CUT_OFF, SIM_COORDINATOR, between_ms(sim, 3000, 30000));
    uint32_t births = 0;
    if (injury == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (sim->members[i].proc.alive) {
            uint32_t host = sim->members[i].proc.host;
            injury->hosts_mask[host / 64] |= UINT64_C(1) << (host % 64);
        }
    }
    each_path(sim, injury, path_cut, 1);
    for (uint32_t i = 0; i < sim->member_count && births < sim->setup.min; i++) {
        if (!sim->members[i].proc.alive && !cut_from(injury, sim->members[i].proc.host)) {
            sim_birth_later(sim, i, between_ms(sim, 0, 3000));
            births++;
        }
    }
    return true;
}

/* ---- connections ---------------------------------------------------------------------------- */

static bool reset_connections(struct sim *sim, uint32_t target)
{
    bool any = false;
    for (uint32_t i = 0; i < sim->net.conn_count; i++) {
        struct sim_conn *conn = &sim->net.conns[i];
        if (conn->used && (target == SIM_COORDINATOR || conn->member == target)) {
            sim_net_reset(sim, i);
            any = true;
        }
    }
    return any;
}

/* Its own end forgets the connection, and nobody tells the other. */
static bool half_open(struct sim *sim, uint32_t target)
{
    uint32_t conn = sim->members[target].conn;
    if (conn == SIM_NO_CONN || sim->members[target].proc.paused) {
        return false;
    }
    sim_net_abandon(sim, conn, SIM_END_MEMBER, true);
    sim_member_closed(sim, target, "the connection was forgotten on the way");
    return true;
}

static bool reset_data(struct sim *sim, uint32_t target)
{
    uint32_t start = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    for (uint32_t i = 0; i < sim->member_count; i++) {
        uint32_t peer = (start + i) % sim->member_count;
        if (peer != target && sim_mesh_ready(sim, target, peer)) {
            sim_mesh_reset(sim, target, peer);
            return true;
        }
    }
    return false;
}

/* ---- processes ------------------------------------------------------------------------------ */

static void kill_worker(struct sim *sim, uint32_t member, bool quiet, uint64_t back_us)
{
    if (sim->members[member].proc.alive) {
        bool stopped = sim->members[member].stop_asked;
        sim_trace(sim, "worker %-3u   is killed", member);
        sim_member_death(sim, member, quiet ? SIM_DEATH_HOST : SIM_DEATH_KILLED, 0);
        if (back_us > 0 && !stopped && sim->members[member].impostor_of == 0) {
            sim_birth_later(sim, member, back_us);
        }
    }
}

/* Whether and when a crashed worker comes back. */
static uint64_t back_after_us(struct sim *sim)
{
    return sim_rng_chance(&sim->rng, 600) ? between_ms(sim, 100, 8000) : 0;
}

static bool crash(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    if (target == SIM_COORDINATOR) {
        uint64_t back_us =
            fault == SIM_FAULT_RESTART ? between_ms(sim, 20, 200) : between_ms(sim, 200, 8000);
        sim_store_crash(sim, sim_rng_chance(&sim->rng, 500), false);
        sim_coord_death(sim, false);
        sim_birth_later(sim, SIM_COORDINATOR, back_us);
        return true;
    }
    kill_worker(sim, target, false,
                fault == SIM_FAULT_RESTART ? between_ms(sim, 50, 300) : back_after_us(sim));
    return true;
}

static bool crash_host(struct sim *sim, uint32_t target)
{
    uint32_t host = host_of(sim, target);
    struct sim_injury *injury =
        sim_injury_new(sim, SIM_FAULT_HOST_CRASH, target, between_ms(sim, 500, 20000));
    if (injury == NULL || sim->net.host_down[host]) {
        return false;
    }
    sim->net.host_down[host] = true;
    if (target == SIM_COORDINATOR) {
        sim_store_crash(sim, sim_rng_chance(&sim->rng, 500), false);
        sim_coord_death(sim, true);
        sim_birth_later(sim, SIM_COORDINATOR, between_ms(sim, 500, 9000));
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (sim->members[i].proc.host == host) {
            kill_worker(sim, i, true, back_after_us(sim));
        }
    }
    return true;
}

/* How many of the others go with it: one, or all but one. */
static bool crash_many(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    uint32_t spared = fault == SIM_FAULT_CRASH_MOST ? SIM_NO_SLOT : target;
    uint32_t start = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    for (uint32_t i = 0; i < sim->member_count; i++) {
        uint32_t member = (start + i) % sim->member_count;
        if (member == target || !sim->members[member].proc.alive) {
            continue;
        }
        if (fault == SIM_FAULT_CRASH_TWO) {
            kill_worker(sim, member, false, back_after_us(sim));
            break;
        }
        if (spared == SIM_NO_SLOT) {
            spared = member;
        } else {
            kill_worker(sim, member, false, back_after_us(sim));
        }
    }
    kill_worker(sim, target, false, back_after_us(sim));
    return true;
}

static bool pause_process(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    struct sim_proc *proc = sim_proc_of(sim, target);
    uint64_t for_us =
        fault == SIM_FAULT_ZOMBIE ? between_ms(sim, 3000, 40000) : between_ms(sim, 50, 8000);
    struct sim_injury *injury;
    if (proc->paused || !proc->alive) {
        return false;
    }
    injury = sim_injury_new(sim, fault, target, for_us);
    if (injury == NULL) {
        return false;
    }
    injury->proc_serial = proc->serial;
    sim_proc_pause(sim, target);
    return true;
}

static bool clock_step(struct sim *sim, uint32_t target)
{
    struct sim_proc *proc = sim_proc_of(sim, target);
    proc->skew_us += between_ms(sim, 300, 20000);
    proc->skewed_us = sim->now_us;
    if (target != SIM_COORDINATOR && !proc->paused) {
        sim_member_wake(sim, target);
    }
    return true;
}

static bool slow_down(struct sim *sim, uint32_t target)
{
    struct sim_worker *w = &sim->workers[target];
    w->slow_factor = (uint32_t)sim_rng_range(&sim->rng, 2, 30);
    w->slow_until_us = sim->now_us + between_ms(sim, 200, 20000);
    return true;
}

/* ---- membership ----------------------------------------------------------------------------- */

static bool leave(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    struct sim_member *m = &sim->members[target];
    char pid[16];
    if (m->proc.paused) {
        return false;
    }
    m->stop_asked = true;
    if (fault == SIM_FAULT_LEAVE) {
        sim_worker_stop(sim, target);
        return true;
    }
    (void)snprintf(pid, sizeof pid, "%u", m->config.pid);
    sim_coord_command(sim, CORE_COMMAND_DRAIN, "job", pid);
    return true;
}

/* Somebody with the same identity and another secret. */
static bool impostor(struct sim *sim, uint32_t target)
{
    if (!sim->workers[target].control) {
        return false; /* the coordinator does not know it: any stranger may take a free identity */
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (!sim->members[i].proc.alive && !sim->net.host_down[sim->members[i].proc.host]) {
            struct sim_injury *injury =
                sim_injury_new(sim, SIM_FAULT_IMPOSTOR, i, between_ms(sim, 500, 3000));
            if (injury == NULL) {
                return false;
            }
            sim->members[i].impostor_of = 1 + target;
            sim->members[target].impersonated = true;
            sim_member_birth(sim, i);
            injury->proc_serial = sim->members[i].proc.serial;
            return true;
        }
    }
    return false;
}

static bool tear_checkpoint(struct sim *sim, uint32_t target)
{
    struct sim_checkpoint *newest = NULL;
    for (uint32_t i = 0; i < SIM_CHECKPOINTS; i++) {
        struct sim_checkpoint *at = &sim->checkpoints[i];
        if (at->valid && (newest == NULL || at->version > newest->version)) {
            newest = at;
        }
    }
    if (newest != NULL) {
        newest->torn = true;
        newest->params[0] ^= 1;
    }
    kill_worker(sim, target, false, between_ms(sim, 100, 3000));
    return true;
}

static bool any_corrupt(const struct sim *sim)
{
    for (uint32_t i = 0; i < sim->member_count; i++) {
        const struct sim_worker *w = &sim->workers[i];
        if (w->corrupt || w->corrupt_next || w->reduced_flips || w->reduced_corrupt ||
            w->sum_flips || w->sum_corrupt) {
            return true;
        }
    }
    return false;
}

/* Its own look at its parameters is still to come, in the exchange that is under way. */
static bool checks_itself(const struct sim_worker *w)
{
    return w->elastic.state == ELASTIC_STATE_STEPPING && w->exchanging && !w->exchange.checked &&
           (w->exchange.mine_open > 0 || w->exchange.last_held) &&
           w->exchange.word[w->exchange.config.me].hashed;
}

/* One bit of one worker, where others can tell which one is right; of the parameters, as long as it
 * can tell that itself, also where they cannot. With hashes of some versions only, sums may be
 * wrong until the next one: that is said, and no history to look at. */
static bool corrupt(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    struct sim_worker *w = &sim->workers[target];
    bool few = w->elastic.generation.world < 3;
    if (any_corrupt(sim) || sim->setup.hash_every > 1 || w->version == SIM_NO_VERSION ||
        (few && (fault != SIM_FAULT_FLIP || !checks_itself(w))) ||
        (fault == SIM_FAULT_FLIP_SUM && sim->setup.audit == 0)) {
        return false;
    }
    sim->check.corrupted = true;
    w->corrupt_next = fault == SIM_FAULT_CORRUPT;
    w->reduced_flips = fault == SIM_FAULT_FLIP_REDUCED;
    w->sum_flips = fault == SIM_FAULT_FLIP_SUM;
    if (fault == SIM_FAULT_FLIP || fault == SIM_FAULT_FLIP_OPTIM) {
        uint64_t bit = sim_rng_below(&sim->rng, TOY_PARAM_BITS);
        bit += fault == SIM_FAULT_FLIP_OPTIM ? TOY_PARAM_BITS : 0;
        w->params[sim_rng_below(&sim->rng, sim->setup.job.cells)] ^= UINT64_C(1) << bit;
        w->corrupt = true;
    }
    return true;
}

/* ---- the coordinator's store ---------------------------------------------------------------- */

static bool hurt_store(struct sim *sim, enum sim_fault fault)
{
    bool empty = fault == SIM_FAULT_STORE_EMPTY;
    bool old = fault == SIM_FAULT_STORE_OLD;
    if (fault == SIM_FAULT_STORE_SLOW) {
        sim->store.slow_until_us = sim->now_us + between_ms(sim, 500, 10000);
        return true;
    }
    if (fault == SIM_FAULT_STORE_FAILING) {
        sim->store.failing_until_us = sim->now_us + between_ms(sim, 500, 10000);
        return true;
    }
    sim_store_crash(sim, true, fault == SIM_FAULT_STORE_TORN);
    sim_coord_death(sim, false);
    if (empty) {
        sim_store_empty(sim);
    } else if (old) {
        sim_store_go_back(sim);
    }
    /* Nobody can promise one world when those who know better cannot say so in time. */
    if (empty || old) {
        sim_check_forgotten(sim);
    }
    sim_birth_later(sim, SIM_COORDINATOR, between_ms(sim, 50, 3000));
    return true;
}

/* ---- the one switch ------------------------------------------------------------------------- */

static bool inflict_paths(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    switch ((int)fault) {
    case SIM_FAULT_DUPLICATE:
        return sim_injury_new(sim, fault, target, between_ms(sim, 500, 20000)) != NULL;
    case SIM_FAULT_CLOG:
        return hurt_paths(sim, fault, target, between_ms(sim, 50, 5000));
    case SIM_FAULT_SWIZZLE:
        return swizzle(sim, target);
    case SIM_FAULT_HALF_OPEN:
        return half_open(sim, target);
    case SIM_FAULT_RESET:
        return reset_connections(sim, target);
    case SIM_FAULT_DATA_RESET:
        return reset_data(sim, target);
    case SIM_FAULT_CUT_OFF:
        return cut_off(sim);
    default:
        return hurt_paths(sim, fault, target, between_ms(sim, 200, 30000));
    }
}

bool sim_inflict(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    if (!sim_proc_of(sim, target)->alive && fault != SIM_FAULT_JOIN) {
        return false;
    }
    switch (fault) {
    case SIM_FAULT_CRASH:
    case SIM_FAULT_RESTART:
        return crash(sim, fault, target);
    case SIM_FAULT_HOST_CRASH:
        return crash_host(sim, target);
    case SIM_FAULT_CRASH_TWO:
    case SIM_FAULT_CRASH_MOST:
        return crash_many(sim, fault, target);
    case SIM_FAULT_PAUSE:
    case SIM_FAULT_ZOMBIE:
        return pause_process(sim, fault, target);
    case SIM_FAULT_SLOW:
        return slow_down(sim, target);
    case SIM_FAULT_CLOCK_STEP:
        return clock_step(sim, target);
    case SIM_FAULT_CORRUPT:
    case SIM_FAULT_FLIP:
    case SIM_FAULT_FLIP_OPTIM:
    case SIM_FAULT_FLIP_REDUCED:
    case SIM_FAULT_FLIP_SUM:
        return corrupt(sim, fault, target);
    case SIM_FAULT_CKPT_TORN:
        return tear_checkpoint(sim, target);
    case SIM_FAULT_IMPOSTOR:
        return impostor(sim, target);
    case SIM_FAULT_LEAVE:
    case SIM_FAULT_DRAIN:
        return leave(sim, fault, target);
    case SIM_FAULT_JOIN:
        sim_member_birth(sim, target);
        return true;
    case SIM_FAULT_STORE_LOST:
    case SIM_FAULT_STORE_TORN:
    case SIM_FAULT_STORE_SLOW:
    case SIM_FAULT_STORE_FAILING:
    case SIM_FAULT_STORE_EMPTY:
    case SIM_FAULT_STORE_OLD:
        return hurt_store(sim, fault);
    case SIM_FAULT_LOSS:
    case SIM_FAULT_DUPLICATE:
    case SIM_FAULT_DELAY:
    case SIM_FAULT_REORDER:
    case SIM_FAULT_CLOG:
    case SIM_FAULT_SWIZZLE:
    case SIM_FAULT_PARTITION:
    case SIM_FAULT_PARTITION_ASYM:
    case SIM_FAULT_HALF_OPEN:
    case SIM_FAULT_RESET:
    case SIM_FAULT_DATA_CUT:
    case SIM_FAULT_DATA_ASYM:
    case SIM_FAULT_DATA_SLOW:
    case SIM_FAULT_DATA_RESET:
    case SIM_FAULT_CUT_OFF:
        return inflict_paths(sim, fault, target);
    case SIM_FAULT_COUNT:
        break;
    }
    return false;
}

/* ---- undoing -------------------------------------------------------------------------------- */

void sim_cure(struct sim *sim, struct sim_injury *injury)
{
    struct sim_proc *proc = sim_proc_of(sim, injury->a);
    bool same = proc->serial == injury->proc_serial;
    path_cb paths = path_of(injury->fault);
    injury->used = false;
    sim_check_struck(sim, injury->fault, injury->a == SIM_COORDINATOR);
    if (paths != NULL) {
        sim_trace(sim, "HEALED       %s of host %u", sim_fault_word(injury->fault),
                  injury->hosts[0]);
        each_path(sim, injury, paths, -1);
    } else if (injury->fault == SIM_FAULT_HOST_CRASH) {
        sim->net.host_down[injury->hosts[0]] = false;
    } else if (injury->fault == SIM_FAULT_PAUSE || injury->fault == SIM_FAULT_ZOMBIE) {
        if (same && proc->paused) {
            sim_proc_resume(sim, injury->a);
        }
    } else if (injury->fault == SIM_FAULT_IMPOSTOR && same && proc->alive) {
        sim_member_death(sim, injury->a, SIM_DEATH_KILLED, 0);
    }
}

bool sim_strike_duplicates(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    static const uint32_t twice = 1u << FRAME_REPORT | 1u << FRAME_ENTERED | 1u << FRAME_READY |
                                  1u << FRAME_PEER_LOST | 1u << FRAME_LEAVE | 1u << FRAME_FINISHED |
                                  1u << FRAME_BARRIER_ENTER;
    uint8_t type = message->header.type;
    bool may = type < 32
                   ? (twice >> type & 1) != 0
                   : type == FRAME_GENERATION || type == FRAME_OVER || type == FRAME_RELEASED ||
                         type == FRAME_DONE || type == FRAME_BARRIER_RESULT;
    if (!may) {
        return false;
    }
    for (uint32_t i = 0; i < SIM_INJURIES_MAX; i++) {
        const struct sim_injury *injury = &sim->strikes.injuries[i];
        if (injury->used && injury->fault == SIM_FAULT_DUPLICATE &&
            (injury->a == member || injury->a == SIM_COORDINATOR)) {
            return sim_rng_chance(&sim->rng, 700);
        }
    }
    return false;
}
