/* Faults: when they strike, whom, how they are undone, and the table of what was struck.
 *
 * Two sources. Random ones come at the seed's own rate, of the kinds in its mix. Wishes are cells
 * of the table: the seed waits until a member is in the phase, looks for a process with the role,
 * and strikes. Which cells a seed wishes for follows from its number alone, so that consecutive
 * seeds go through the table and every seed replays alone. */
#ifndef SIM_STRIKE_H
#define SIM_STRIKE_H

#include "proto/wire.h"
#include "sim/fault.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_WISHES       8u
#define SIM_INJURIES_MAX 64u
#define SIM_HOSTS_MAX    128u /* the coordinator's, and of 64 workers with their newcomers one
                                 each */

struct sim;

struct sim_wish {
    enum sim_phase phase;
    enum sim_role role;
    enum sim_fault fault;
    bool waits;          /* not yet struck, and no strike of it is under way */
};

/* Something that is undone later. */
struct sim_injury {
    bool used;
    enum sim_fault fault;
    uint32_t a;          /* member; SIM_COORDINATOR */
    uint32_t hosts[2];   /* of the paths concerned; the second UINT32_MAX: all others */
    uint64_t hosts_mask[SIM_HOSTS_MAX / 64]; /* CUT_OFF: which hosts */
    uint64_t until_us;   /* when it heals */
    uint32_t serial;     /* events of an older injury are void */
    uint32_t proc_serial; /* of the process that was stopped or born */
    uint32_t slow_us;    /* DELAY, DATA_SLOW, REORDER: how much */
    int way;             /* 1: only from hosts[0]; -1: only to it; 0: both */
};

struct sim_strikes {
    struct sim_wish wishes[SIM_WISHES];
    uint32_t wish_count;
    uint32_t wished_phases;  /* bits of the wishes that wait */
    struct sim_injury injuries[SIM_INJURIES_MAX];
};

/* Draws the wishes of the seed and sets the first events. */
void sim_strike_begin(struct sim *sim);

/* Events of the heap. */
void sim_strike(struct sim *sim, uint64_t what);    /* value = 1 + wish, or 0 = a random one */
void sim_strike_heal(struct sim *sim, uint32_t injury);
void sim_strike_birth(struct sim *sim, uint32_t member);

/* Undoes everything: the liveness phase begins. */
void sim_strike_calm(struct sim *sim);

/* A worker's phase may have changed; a process ended by itself. */
void sim_strike_phase(struct sim *sim, uint32_t worker);
void sim_strike_exited(struct sim *sim, uint32_t member, int code);

/* True if this message shall be said twice (fault DUPLICATE). */
bool sim_strike_duplicates(struct sim *sim, uint32_t member, const struct wire_message *message);

/* inflict.c: carries one fault out on a process; false when it makes no sense there now. */
bool sim_inflict(struct sim *sim, enum sim_fault fault, uint32_t target);
void sim_cure(struct sim *sim, struct sim_injury *injury);
struct sim_injury *sim_injury_new(struct sim *sim, enum sim_fault fault, uint32_t target,
                                  uint64_t for_us);
void sim_birth_later(struct sim *sim, uint32_t member, uint64_t after_us);

#endif
