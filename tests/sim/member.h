/* A member's process as far as the control plane goes: a session carried by the simulated network,
 * and above it either a worker (worker.h) or a puppet that trains nothing (puppet.h).
 *
 *   sim_member_birth(sim, i)            a process starts on slot i with an identity of its own
 *   sim_member_tell(sim, i, &event)     what the program says to its session
 *   sim_member_death(sim, i, ...)       the process ends, by itself or not */
#ifndef SIM_MEMBER_H
#define SIM_MEMBER_H

#include "client/session.h"
#include "sim/net.h"

#include <stdbool.h>
#include <stdint.h>

struct sim;
struct sim_proc;

enum sim_death {
    SIM_DEATH_EXIT,       /* it ended by itself */
    SIM_DEATH_KILLED,     /* its kernel tells the peers */
    SIM_DEATH_HOST,       /* nobody tells anybody */
};

struct sim_member_names {
    char node[24], host[24], address[32];
};

/* sim_proc lies in struct sim_member, which sim.h completes: every part sees one process type. */
struct sim_proc {
    uint32_t host;
    uint32_t serial;          /* grows with every birth and death */
    bool alive;
    bool paused;
    uint64_t skew_us;         /* its monotonic clock is ahead of virtual time by this; only grows */
    uint64_t born_us;
    uint64_t skewed_us;       /* when its clock leapt or it stood still last (virtual time) */
    struct sim_event *parked; /* what came while it was stopped; owned */
    uint32_t parked_count;
    uint32_t parked_room;
};

struct sim_member {
    struct sim_proc proc;
    struct session session;
    struct session_config config;
    void *memory;             /* of the session's rosters; owned */
    size_t memory_bytes;
    wire_id id;
    struct sim_member_names names;
    uint32_t conn;            /* SIM_NO_CONN: none */
    uint64_t wake_us;         /* a WAKE is set for then (virtual time); 0 = none */
    uint32_t births;          /* processes so far on this slot */
    int exit_code;            /* of the last process that ended by itself */
    bool stop_asked;          /* SIGTERM */
    uint32_t impostor_of;     /* 1 + member whose identity it claims; 0 = none */
    bool impersonated;        /* somebody came with its identity while it lived */
    uint32_t attached_to;     /* births of the coordinator that it said HELLO to last */
};

void sim_member_birth(struct sim *sim, uint32_t member);
void sim_member_death(struct sim *sim, uint32_t member, enum sim_death how, int exit_code);
void sim_member_release(struct sim *sim, uint32_t member);

/* Fills type-independent fields (time, randomness) and steps the session. */
void sim_member_tell(struct sim *sim, uint32_t member, struct session_event *event);

/* The slot of a process by its identity, SIM_NO_SLOT if that process is gone. */
uint32_t sim_member_slot(const struct sim *sim, const uint8_t id[WIRE_ID_BYTES]);

/* Upcalls of the network, and the event WAKE. */
void sim_member_connected(struct sim *sim, uint32_t member);
void sim_member_closed(struct sim *sim, uint32_t member, const char *why);
void sim_member_message(struct sim *sim, uint32_t member, const struct wire_message *message);
/* Is this WAKE void: of a process that ended, or replaced by a nearer one that has come? */
bool sim_member_wakes_not(const struct sim *sim, uint32_t member, uint32_t serial);
void sim_member_wake(struct sim *sim, uint32_t member);

#endif
