/* The joint simulator: one process, virtual time, one seed.
 *
 * Under test, the very code of the programs: coordinator/core, the session of coordinator/client,
 * the elastic machine, exchange and catch-up of worker/train, reduce_plan of worker/comm, and the
 * translation coordinator/server/adapt. Everything else here is pretence: network, store, clock,
 * gradients.
 *
 *   sim_run(&options, seed, &table, &outcome)     one seed, from nothing to the end of its liveness
 *                                                 phase
 *
 * A seed draws its own job, network, mix of faults and wishes (cells of the table it tries to
 * strike), lives through a safety phase with faults, is healed, and must then finish within a
 * bound. Checkers (check.h) look at what the machines say and do, from outside. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "sim/bug.h"
#include "sim/check.h"
#include "sim/coord.h"
#include "sim/fault.h"
#include "sim/heap.h"
#include "sim/member.h"
#include "sim/mesh.h"
#include "sim/net.h"
#include "sim/puppet.h"
#include "sim/rng.h"
#include "sim/store.h"
#include "sim/strike.h"
#include "sim/toy.h"
#include "sim/worker.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum sim_event_kind {
    /* the network: handled by the kernels of hosts, even while a process is stopped */
    SIM_EV_SYN,
    SIM_EV_LINK_SYN,
    /* the coordinator's process */
    SIM_EV_ACCEPT,
    SIM_EV_PIPE_UP,
    SIM_EV_BROKEN_UP,
    SIM_EV_TICK,
    SIM_EV_STORE,
    SIM_EV_PROBED,
    /* a member's process; target = connection */
    SIM_EV_ANSWER,
    SIM_EV_PIPE_DOWN,
    SIM_EV_BROKEN_DOWN,
    /* a member's process; target = member */
    SIM_EV_WAKE,
    SIM_EV_WORK,       /* a computation of a worker ends; extra = enum sim_work */
    SIM_EV_LINK_DEADLINE,
    SIM_EV_LINK_GREET, /* target = from, extra = to */
    SIM_EV_LANE,       /* target = from, extra = to; the process is that of `to` */
    /* the world */
    SIM_EV_BIRTH,      /* a process starts on a slot */
    SIM_EV_STRIKE,     /* value = wish or kind */
    SIM_EV_HEAL,       /* target = injury */
    SIM_EV_KEEP_STORE, /* a copy is taken that may come back later as an old store */
    SIM_EV_CALM,       /* safety ends, liveness begins */
    SIM_EV_END,        /* the seed's time is over */
};

#define SIM_COORDINATOR UINT32_MAX /* in the place of a member */

/* What the command line says. */
struct sim_options {
    uint64_t seed;          /* first */
    uint64_t seeds;         /* how many */
    bool seeds_given;       /* on the command line */
    uint32_t minutes;       /* stop after so many, 0 = never */
    uint64_t hours;         /* simulated hours to reach, 0 = no matter */
    uint32_t workers;       /* 0 = drawn */
    uint32_t step_ms;       /* of one step, 0 = drawn */
    uint32_t puppets;       /* members that train nothing, beside no workers; 0 = none */
    uint64_t mask;          /* kinds of fault allowed, bit by enum sim_fault */
    bool trace;             /* print what happens */
    bool json;              /* the report as one object */
    bool table;             /* print the whole table */
    bool complete;          /* an empty cell is a failure */
    uint64_t least;         /* strikes of every kind; fewer are a failure */
    bool twice;             /* run every seed twice */
    enum sim_bug bug;       /* planted */
};

/* What a seed draws: its job and its world. */
struct sim_setup {
    struct toy_job job;
    uint32_t slots;         /* processes that may exist at once */
    uint32_t start_count;   /* that start at the beginning */
    uint32_t min, max;
    uint32_t hosts;         /* of workers */
    uint32_t puppets;       /* members without gradients; then no workers */
    uint32_t bucket_count;
    uint32_t bucket_cells[4];
    uint64_t save_every;    /* updates between checkpoints */
    uint32_t hash_every;    /* versions between hashes */
    uint32_t audit;         /* steps between audits; 0 = none */
    bool saves;
    uint32_t threads;       /* of a worker */
    uint32_t shard_us;      /* mean time of one shard */
    uint32_t apply_us, save_us, evaluate_us, copy_us;
    uint32_t connect_timeout_ms;
    uint32_t tick_ms;
    uint64_t safety_us;     /* faults until then */
    uint64_t liveness_us;   /* must finish by then */
    uint64_t kinds;         /* of faults, bit by enum sim_fault */
    uint32_t rate_us;       /* mean time between two random strikes; 0 = none */
    uint32_t wishes;        /* cells of the table that it tries to strike */
    uint32_t loss_permille; /* of packets, all the time */
    uint32_t slow_slot;     /* its machine is slow by nature; SIM_NO_SLOT = none is */
    uint32_t slow_factor;   /* so many times */
    bool rebalance;         /* the coordinator's option; and how soon a slow one is a straggler */
    uint32_t straggler_steps, straggler_ms;
    uint32_t settle_ms, balance_ms; /* between plans that only spread the shards */
};

struct sim {
    const struct sim_options *options;
    struct sim_setup setup;
    uint64_t seed;
    uint64_t now_us;         /* virtual */
    bool calm;               /* the liveness phase: no fault strikes any more */
    bool ended;              /* a checker has spoken */
    bool over;               /* the seed's time is over */
    bool look_done;          /* a process ended, or the calm began: perhaps all is done */
    uint64_t events;         /* handled */
    uint64_t hash;           /* over all events and what the machines said */
    struct sim_heap heap;
    struct sim_rng rng;      /* faults and setup */
    struct sim_rng net_rng;  /* network, store, durations */
    struct sim_rng id_rng;   /* what the code under test gets as randomness */
    struct sim_net net;
    struct sim_mesh mesh;
    struct sim_store store;
    struct sim_proc coord_proc;
    struct sim_coord coord;
    struct sim_member *members; /* owned, setup.slots or setup.puppets */
    uint32_t member_count;
    struct sim_worker *workers; /* owned, one per member; NULL with puppets */
    struct sim_puppet *puppets; /* owned, one per member; NULL with workers */
    struct elastic_actions actions; /* scratch of the machine that is stepped */
    struct sim_checkpoint checkpoints[SIM_CHECKPOINTS]; /* the job's folder */
    struct sim_strikes strikes;
    struct sim_check check;
    struct sim_table *table;  /* of the whole run */
};

/* What became of a seed. */
struct sim_outcome {
    bool failed;
    enum sim_checker by;     /* which checker saw it */
    char sentence[512];      /* what was broken, with both values */
    uint64_t at_us;          /* when */
    uint64_t hash;
    uint64_t events;
    uint64_t virtual_us;
    uint64_t steps;          /* updates applied, over all workers */
    uint64_t generations;
    uint64_t stragglers;     /* named */
    uint64_t spreads;        /* plans that only spread the shards */
    bool unprotected;        /* an empty or older store: checks 4 to 7 were off */
    bool excused;            /* it could not finish, and a checker says why */
    char excuse[256];
};

void sim_run(const struct sim_options *options, uint64_t seed, struct sim_table *table,
             struct sim_outcome *outcome);

/* Draws the setup of a seed; setup.c. */
void sim_setup_draw(struct sim *sim);

/* ---- services of the frame for all parts ---- */

/* One more thing that the hash covers. */
static inline void sim_mark(struct sim *sim, uint64_t value)
{
    sim->hash = (sim->hash ^ value) * 0x100000001b3u + (sim->hash >> 47);
}

/* A violation, and the checker that saw it: the first one counts, and the seed ends with it. */
void sim_fail(struct sim *sim, enum sim_checker by, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line of the trace; nothing without --trace. */
void sim_trace_line(const struct sim *sim, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
#define sim_trace(sim, ...)                                                                        \
    do {                                                                                           \
        if ((sim)->options->trace) {                                                               \
            sim_trace_line((sim), __VA_ARGS__);                                                    \
        }                                                                                          \
    } while (0)

/* A fault of this kind took effect (beside the table's cells, which strike.c counts). */
void sim_struck(struct sim *sim, enum sim_fault fault);

struct sim_proc *sim_proc_of(struct sim *sim, uint32_t member);
uint64_t sim_proc_now_us(const struct sim *sim, const struct sim_proc *proc);
void sim_proc_pause(struct sim *sim, uint32_t member);
void sim_proc_resume(struct sim *sim, uint32_t member);
void sim_proc_unpark(struct sim *sim, struct sim_proc *proc);

#endif
