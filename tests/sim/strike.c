#include "sim/strike.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the words ------------------------------------------------------------------------------ */

const char *sim_fault_word(enum sim_fault fault)
{
    static const char *const words[] = {
#define SIM_FAULT_WORD(name, word, whom) word,
        SIM_FAULTS(SIM_FAULT_WORD)
#undef SIM_FAULT_WORD
    };
    return words[fault];
}

const char *sim_phase_word(enum sim_phase phase)
{
    static const char *const words[] = {
#define SIM_PHASE_WORD(name, word) word,
        SIM_PHASES(SIM_PHASE_WORD)
#undef SIM_PHASE_WORD
    };
    return words[phase];
}

const char *sim_role_word(enum sim_role role)
{
    static const char *const words[] = {
#define SIM_ROLE_WORD(name, word, whom) word,
        SIM_ROLES(SIM_ROLE_WORD)
#undef SIM_ROLE_WORD
    };
    return words[role];
}

bool sim_fault_known(const char *word, enum sim_fault *fault)
{
    for (uint32_t i = 0; i < SIM_FAULT_COUNT; i++) {
        if (strcmp(word, sim_fault_word((enum sim_fault)i)) == 0) {
            *fault = (enum sim_fault)i;
            return true;
        }
    }
    return false;
}

bool sim_cell_exists(enum sim_role role, enum sim_fault fault)
{
    static const uint32_t faults[] = {
#define SIM_FAULT_WHOM(name, word, whom) whom,
        SIM_FAULTS(SIM_FAULT_WHOM)
#undef SIM_FAULT_WHOM
    };
    static const uint32_t roles[] = {
#define SIM_ROLE_WHOM(name, word, whom) whom,
        SIM_ROLES(SIM_ROLE_WHOM)
#undef SIM_ROLE_WHOM
    };
    return (faults[fault] & roles[role]) != 0;
}

/* ---- phases and roles ----------------------------------------------------------------------- */

static uint32_t job_phases(const struct sim *sim)
{
    uint32_t phases = 0;
    for (uint32_t i = 0; sim->workers != NULL && i < sim->member_count; i++) {
        phases |= sim_worker_phases(sim, i);
    }
    return phases;
}

static uint32_t roles_of(const struct sim *sim, enum sim_fault fault, uint32_t target)
{
    uint32_t roles = 0;
    if (target == SIM_COORDINATOR) {
        return 1u << SIM_ROLE_COORDINATOR;
    }
    if (fault == SIM_FAULT_JOIN) {
        return 1u << SIM_ROLE_JOINER;
    }
    for (uint32_t role = 0; sim->workers != NULL && role < SIM_ROLE_COUNT; role++) {
        roles |= (uint32_t)sim_worker_has_role(sim, target, (enum sim_role)role) << role;
    }
    return roles;
}

/* One more strike in every cell that fits. */
static void count(struct sim *sim, enum sim_fault fault, uint32_t phases, uint32_t roles)
{
    sim->table->kind[fault]++;
    for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
        for (uint32_t phase = 0; (roles >> role & 1) != 0 && phase < SIM_PHASE_COUNT; phase++) {
            if ((phases >> phase & 1) != 0 && sim_cell_exists((enum sim_role)role, fault)) {
                sim->table->cell[phase][role][fault]++;
            }
        }
    }
}

/* A process with the role, `first` if it has it; SIM_NO_SLOT if nobody has. */
static uint32_t find_role(struct sim *sim, enum sim_role role, uint32_t first)
{
    if (role == SIM_ROLE_COORDINATOR) {
        return SIM_COORDINATOR;
    }
    if (first < sim->member_count && sim_worker_has_role(sim, first, role)) {
        return first;
    }
    uint32_t start = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    for (uint32_t i = 0; i < sim->member_count; i++) {
        uint32_t member = (start + i) % sim->member_count;
        if (sim_worker_has_role(sim, member, role)) {
            return member;
        }
    }
    return SIM_NO_SLOT;
}

/* A slot on which no process lives. */
static uint32_t free_slot(struct sim *sim)
{
    uint32_t start = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    for (uint32_t i = 0; i < sim->member_count; i++) {
        uint32_t member = (start + i) % sim->member_count;
        if (!sim->members[member].proc.alive &&
            !sim->net.host_down[sim->members[member].proc.host]) {
            return member;
        }
    }
    return SIM_NO_SLOT;
}

/* ---- striking ------------------------------------------------------------------------------- */

static bool strike_at(struct sim *sim, enum sim_fault fault, uint32_t target)
{
    uint32_t phases = job_phases(sim);
    uint32_t roles;
    if (fault == SIM_FAULT_JOIN) {
        target = free_slot(sim);
    }
    if (target == SIM_NO_SLOT && fault == SIM_FAULT_JOIN) {
        return false;
    }
    roles = roles_of(sim, fault, target);
    sim_trace(sim, "FAULT        %s, %s %d (phases %03x, roles %02x)", sim_fault_word(fault),
              target == SIM_COORDINATOR ? "coordinator" : "worker", (int)target, phases, roles);
    if (!sim_inflict(sim, fault, target)) {
        sim_trace(sim, "FAULT        ... which makes no sense now");
        return false;
    }
    sim_mark(sim, 0xfa << 8 | fault);
    sim_check_struck(sim, fault, target == SIM_COORDINATOR);
    count(sim, fault, phases, roles);
    return true;
}

static void strike_later(struct sim *sim, uint64_t what, uint64_t after_us)
{
    struct sim_event event = {.at_us = sim->now_us + after_us, .kind = SIM_EV_STRIKE,
                              .value = what};
    sim_heap_push(&sim->heap, &event);
}

static void strike_random(struct sim *sim)
{
    enum sim_fault fault = (enum sim_fault)sim_rng_below(&sim->rng, SIM_FAULT_COUNT);
    strike_later(sim, 0, 1 + sim_rng_below(&sim->rng, 2ull * sim->setup.rate_us));
    if ((sim->setup.kinds >> fault & 1) == 0) {
        return;
    }
    bool workers = sim_cell_exists(SIM_ROLE_FIRST, fault);
    bool coordinator = sim_cell_exists(SIM_ROLE_COORDINATOR, fault);
    bool at_coordinator = coordinator && (!workers || sim_rng_chance(&sim->rng, 250));
    uint32_t target = (uint32_t)sim_rng_below(&sim->rng, sim->member_count);
    (void)strike_at(sim, fault, at_coordinator ? SIM_COORDINATOR : target);
}

static void update_wished(struct sim_strikes *strikes)
{
    strikes->wished_phases = 0;
    for (uint32_t i = 0; i < strikes->wish_count; i++) {
        if (strikes->wishes[i].waits) {
            strikes->wished_phases |= 1u << strikes->wishes[i].phase;
        }
    }
}

/* A wish whose moment was seen a moment ago: is it still there? */
static void strike_wish(struct sim *sim, struct sim_wish *wish)
{
    uint32_t first = SIM_NO_SLOT;
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if ((sim_worker_phases(sim, i) >> wish->phase & 1) != 0) {
            first = i;
            break;
        }
    }
    uint32_t target = find_role(sim, wish->role, first);
    bool there = first != SIM_NO_SLOT && (target != SIM_NO_SLOT || wish->fault == SIM_FAULT_JOIN ||
                                          wish->role == SIM_ROLE_COORDINATOR);
    wish->waits = !there || !strike_at(sim, wish->fault, target);
    update_wished(&sim->strikes);
}

void sim_strike(struct sim *sim, uint64_t what)
{
    if (sim->calm) {
        return;
    }
    if (what == 0) {
        strike_random(sim);
    } else if (what <= sim->strikes.wish_count) {
        strike_wish(sim, &sim->strikes.wishes[what - 1]);
    } else {
        (void)strike_at(sim, (enum sim_fault)(what >> 8 & 0xff), (uint32_t)(what >> 16) - 1);
    }
}

/* Some wishes are struck at once, some a moment later, well inside of the phase. */
static uint64_t moment_us(struct sim *sim, enum sim_phase phase)
{
    uint64_t inside_us = phase == SIM_PHASE_COMPUTE  ? sim->setup.shard_us
                         : phase == SIM_PHASE_APPLY ? sim->setup.apply_us
                                                    : 2u * sim->net.latency_us;
    return sim_rng_chance(&sim->rng, 500) ? 0 : sim_rng_below(&sim->rng, inside_us + 1);
}

/* Who is in the phase that a wish for a leaver wants, while nobody leaves, is asked to. */
static bool ask_to_leave(struct sim *sim, const struct sim_wish *wish, uint32_t worker)
{
    if (wish->role != SIM_ROLE_LEAVER || (sim->options->mask >> SIM_FAULT_LEAVE & 1) == 0) {
        return false;
    }
    strike_later(sim, (uint64_t)(worker + 1) << 16 | (uint64_t)SIM_FAULT_LEAVE << 8, 0);
    return true;
}

void sim_strike_phase(struct sim *sim, uint32_t worker)
{
    struct sim_strikes *strikes = &sim->strikes;
    if (strikes->wished_phases == 0 || sim->calm) {
        return;
    }
    uint32_t phases = sim_worker_phases(sim, worker) & strikes->wished_phases;
    for (uint32_t i = 0; phases != 0 && i < strikes->wish_count; i++) {
        struct sim_wish *wish = &strikes->wishes[i];
        if (!wish->waits || (phases >> wish->phase & 1) == 0 || !sim_rng_chance(&sim->rng, 400)) {
            continue;
        }
        bool has = wish->fault == SIM_FAULT_JOIN || wish->role == SIM_ROLE_COORDINATOR ||
                   find_role(sim, wish->role, worker) != SIM_NO_SLOT;
        if (has || ask_to_leave(sim, wish, worker)) {
            wish->waits = false;
            strike_later(sim, 1 + i, moment_us(sim, wish->phase));
        }
    }
    update_wished(strikes);
}

/* ---- the seed's wishes ---------------------------------------------------------------------- */

/* Cells that exist, in a fixed order. */
static uint32_t cells_existing(struct sim_wish *list)
{
    uint32_t cells = 0;
    for (uint32_t phase = 0; phase < SIM_PHASE_COUNT; phase++) {
        for (uint32_t role = 0; role < SIM_ROLE_COUNT; role++) {
            for (uint32_t fault = 0; fault < SIM_FAULT_COUNT; fault++) {
                if (sim_cell_exists((enum sim_role)role, (enum sim_fault)fault)) {
                    list[cells++] = (struct sim_wish){(enum sim_phase)phase, (enum sim_role)role,
                                                      (enum sim_fault)fault, true};
                }
            }
        }
    }
    return cells;
}

static void help_with(struct sim *sim, enum sim_fault helper)
{
    uint64_t target = sim_rng_below(&sim->rng, sim->setup.start_count);
    strike_later(sim, (target + 1) << 16 | (uint64_t)helper << 8,
                 sim_rng_below(&sim->rng, sim->setup.safety_us / 2 + 1));
}

/* A phase or role that does not come by itself is brought about by other faults. A copy happens
 * when somebody is behind the others as a generation forms: after losses, and with newcomers in it.
 */
static void bring_about(struct sim *sim, const struct sim_wish *wish)
{
    if (wish->role == SIM_ROLE_LEAVER) {
        help_with(sim, SIM_FAULT_LEAVE);
    }
    if (wish->role == SIM_ROLE_JOINER || wish->phase == SIM_PHASE_CATCH_UP ||
        wish->phase == SIM_PHASE_BOUNDARY) {
        help_with(sim, SIM_FAULT_JOIN);
    }
    if (wish->phase == SIM_PHASE_FROZEN) {
        help_with(sim, SIM_FAULT_CRASH);
    }
    for (uint32_t i = 0; wish->phase == SIM_PHASE_COPY && i < 3; i++) {
        help_with(sim, SIM_FAULT_JOIN);
        help_with(sim, sim_rng_chance(&sim->rng, 400) ? SIM_FAULT_CRASH_MOST : SIM_FAULT_CRASH);
    }
}

void sim_strike_begin(struct sim *sim)
{
    struct sim_strikes *strikes = &sim->strikes;
    struct sim_wish *list = calloc(SIM_CELL_COUNT, sizeof *list);
    SIM_REQUIRE(list != NULL);
    uint32_t cells = cells_existing(list);
    strikes->wish_count = sim->setup.wishes;
    for (uint32_t i = 0; i < strikes->wish_count; i++) {
        /* 7919 is prime and does not divide the number of cells: consecutive seeds visit them
         all. */
        uint64_t place = (sim->seed * SIM_WISHES + i) * 7919 % cells;
        strikes->wishes[i] = list[place];
        if ((sim->options->mask >> list[place].fault & 1) == 0) {
            strikes->wishes[i].waits = false;
        } else {
            bring_about(sim, &list[place]);
        }
    }
    free(list);
    update_wished(strikes);
    if (sim->setup.rate_us > 0) {
        strike_later(sim, 0, sim_rng_below(&sim->rng, 2ull * sim->setup.rate_us));
    }
    uint64_t keep_us = sim_rng_below(&sim->rng, sim->setup.safety_us + 1);
    struct sim_event keep = {.at_us = keep_us, .kind = SIM_EV_KEEP_STORE};
    sim_heap_push(&sim->heap, &keep);
}

/* ---- births and the calm -------------------------------------------------------------------- */

/* The supervisor: what ends with "try again" is started again; in the calm also who lost his
 way. */
void sim_strike_exited(struct sim *sim, uint32_t member, int code)
{
    bool again = code == 75 || code == 69 || (code == 0 && sim->calm && !sim->check.done_told &&
                                              sim->check.finished == 0);
    if (again && sim->members[member].impostor_of == 0) {
        sim_birth_later(sim, member, 200000 + sim_rng_below(&sim->rng, 2000000));
    }
}

void sim_strike_birth(struct sim *sim, uint32_t member)
{
    struct sim_proc *proc = sim_proc_of(sim, member);
    if (proc->alive) {
        return;
    }
    if (sim->net.host_down[proc->host]) {
        sim_birth_later(sim, member, 500000);
    } else if (member == SIM_COORDINATOR) {
        sim_coord_birth(sim);
    } else if (!sim->check.done_told || !sim->calm) {
        sim_member_birth(sim, member);
    }
}

void sim_strike_heal(struct sim *sim, uint32_t index)
{
    struct sim_injury *injury = &sim->strikes.injuries[index];
    if (injury->used) {
        sim_cure(sim, injury);
    }
}

void sim_strike_calm(struct sim *sim)
{
    sim->calm = true;
    sim->look_done = true;
    sim_trace(sim, "CALM         everything is healed; who can finish must");
    for (uint32_t i = 0; i < SIM_INJURIES_MAX; i++) {
        if (sim->strikes.injuries[i].used) {
            sim_cure(sim, &sim->strikes.injuries[i]);
        }
    }
    for (uint32_t i = 0; i < sim->net.host_count; i++) {
        sim->net.host_down[i] = false;
    }
    if (!sim->coord_proc.alive) {
        sim_birth_later(sim, SIM_COORDINATOR, 100000);
    }
    uint32_t alive = 0;
    for (uint32_t i = 0; i < sim->member_count; i++) {
        alive += sim->members[i].proc.alive && !sim->members[i].stop_asked;
    }
    for (uint32_t i = 0; i < sim->member_count && alive < sim->setup.min + 1; i++) {
        if (!sim->members[i].proc.alive) {
            sim_birth_later(sim, i, 100000 + sim_rng_below(&sim->rng, 3000000));
            alive++;
        }
    }
}
