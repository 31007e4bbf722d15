/* The coordinator's process in the simulator: the real core in a shell that carries its actions out
 * over the simulated network and store, as coordinator/server does over real ones.
 *
 * Order in one turn, as there: what has come is read first, then deadlines are judged by a tick. */
#ifndef SIM_COORD_H
#define SIM_COORD_H

#include "core/core.h"
#include "proto/wire.h"
#include "server/adapt.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_PROBES 64u

struct sim;

struct sim_probe {
    uint64_t probe;           /* as the core named it */
    uint32_t serial;          /* of the coordinator's process */
    bool used;
    bool gone;                /* what will be answered */
};

struct sim_coord {
    struct core *core;        /* in memory; NULL while the process is dead */
    void *memory;             /* owned */
    size_t memory_bytes;
    struct core_limits limits;
    struct core_times times;
    struct core_actions actions;
    struct adapt_scratch scratch;
    struct core_message message; /* of the event being stepped */
    uint64_t lsn_base;        /* unused numbers start here after a restart */
    uint64_t ticks;
    uint32_t births;
    bool refused_store;       /* it could not read its store and started with an empty one */
};

void sim_coord_init(struct sim *sim);
void sim_coord_release(struct sim *sim);
void sim_coord_birth(struct sim *sim);
void sim_coord_death(struct sim *sim, bool quiet);

/* Events of the heap and upcalls. */
void sim_coord_tick(struct sim *sim);
void sim_coord_opened(struct sim *sim, uint32_t conn);
void sim_coord_closed(struct sim *sim, uint32_t conn, const char *why);
void sim_coord_message(struct sim *sim, uint32_t conn, const struct wire_message *message);
void sim_coord_stored(struct sim *sim, uint64_t lsn, bool ok);
void sim_coord_probed(struct sim *sim, uint64_t probe, bool gone);

/* The operator: drain a member, forget one. target: a rank or a node's name, as the core
 * understands it. */
void sim_coord_command(struct sim *sim, enum core_command command, const char *job,
                       const char *target);

#endif
