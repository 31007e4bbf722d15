/* The simulated data plane: the promises of worker/comm/comm.h between simulated workers.
 *
 * Kept here as there: frames arrive in order, once, and only between ends that are in the same
 * generation; one of an older generation (or of the one halted) is read and dropped, one of a newer
 * waits unread until the receiver enters it; halting cancels what is queued; connections to
 * survivors stay over a change; a spare enters the generation it views as a visitor; a peer that is
 * lost stays lost until a later enter names it again.
 *
 *   sim_mesh_enter(sim, worker, &entry)   -> sim_worker_mesh_ready()
 *   sim_mesh_send(sim, worker, peer, &frame, cells)    -> sim_worker_frame() there
 *   sim_mesh_halt(sim, worker)
 *                                         -> sim_worker_peer_lost()
 * Peers are named by their slot (index of the simulated worker). */
#ifndef SIM_MESH_H
#define SIM_MESH_H

#include "sim/net.h"
#include "sim/toy.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_VISITOR  UINT32_MAX
#define SIM_NO_SLOT  UINT32_MAX
#define SIM_WORLD_MAX 80u        /* members of a simulated generation */

enum sim_frame_kind {
    SIM_FRAME_HELLO,   /* I am in this generation, with this rank */
    SIM_FRAME_WORD,
    SIM_FRAME_PIECE,
    SIM_FRAME_RESULT,
    SIM_FRAME_REQUEST,
    SIM_FRAME_REDUCED,
    SIM_FRAME_STATE,
    SIM_FRAME_SUBSCRIBE,
    SIM_FRAME_CHUNK,
    SIM_FRAME_RECORD,
    SIM_FRAME_NOTE,
    SIM_FRAME_AUDIT,
};

struct sim_frame {
    uint64_t number;      /* generation of the sender; set by send */
    uint64_t nonce;       /* the same */
    uint64_t step;
    uint64_t value[3];    /* by kind */
    uint64_t shards;      /* PIECE, RESULT: which shards are in it, one bit each (checkers only) */
    uint16_t kind;        /* enum sim_frame_kind */
    uint16_t bucket;
    uint16_t chunk;
    uint16_t level;
    uint16_t index;
    uint16_t flags;       /* by kind */
    uint16_t cell_first;  /* of the payload, in its bucket or in the state */
    uint16_t cell_count;
    bool tainted;         /* a flipped bit may be in it (checkers only) */
};

struct sim_parcel {
    struct sim_parcel *next;
    uint64_t due_us;      /* arrival */
    uint32_t room;        /* cells that fit */
    bool end;             /* the sender's end is gone */
    struct sim_frame frame;
    uint64_t cells[];
};

/* One direction of a link. */
struct sim_lane {
    struct sim_parcel *first;
    struct sim_parcel *last;
    uint64_t due_us;      /* arrival of the last parcel */
    uint64_t stuck_us;    /* since when the path is shut, 0 = it is not */
    uint64_t armed_us;    /* an event is set for then, 0 = none */
};

/* A connection of two workers. */
struct sim_link {
    uint32_t serial;      /* events of an older connection are void */
    bool open[2];         /* the low, the high slot holds it */
    uint32_t proc[2];     /* serial of their processes when it was made */
    bool met;             /* one of them has found that the other belongs */
};

/* What one end knows of one peer. */
struct sim_peer {
    bool wanted;          /* in the roster entered */
    bool lost;            /* told, until the next enter */
    bool ready;           /* both are in the same generation */
    bool dialing;         /* my attempt is on its way */
    uint32_t rank;        /* of it in my generation; SIM_VISITOR */
};

/* A worker's end. */
struct sim_mesh_end {
    uint64_t number;      /* generation entered, 0 = none yet */
    uint64_t nonce;
    uint64_t key;         /* of the generation */
    bool halted;
    uint32_t rank;        /* mine; SIM_VISITOR */
    uint32_t world;
    uint32_t slots[SIM_WORLD_MAX]; /* by rank; SIM_NO_SLOT = a process that is gone */
    uint32_t missing;     /* members not ready yet */
    bool told_ready;
};

struct sim_mesh {
    uint32_t slots;             /* workers */
    struct sim_link *links;     /* owned, [low * slots + high] */
    struct sim_lane *lanes;     /* owned, [from * slots + to] */
    struct sim_peer *peers;     /* owned, [me * slots + peer] */
    struct sim_mesh_end *ends;  /* owned, [slot] */
    struct sim_parcel *pool[2]; /* parcels of POOL_CELLS and of TOY_CELLS_MAX cells */
    uint32_t connect_ms;
    uint32_t progress_ms;
    bool stale;                 /* planted: frames of older generations are delivered */
};

/* A generation to enter: slot of each rank (SIM_NO_SLOT where that process is gone). */
struct sim_entry {
    uint64_t number;
    uint64_t nonce;
    uint64_t key;
    uint32_t rank;              /* mine; SIM_VISITOR */
    uint32_t world;
    const uint32_t *slots;
};

void sim_mesh_init(struct sim *sim, uint32_t slots);
void sim_mesh_release(struct sim *sim);

void sim_mesh_enter(struct sim *sim, uint32_t me, const struct sim_entry *entry);
void sim_mesh_halt(struct sim *sim, uint32_t me);
bool sim_mesh_send(struct sim *sim, uint32_t me, uint32_t peer, const struct sim_frame *frame,
                   const uint64_t *cells);
uint32_t sim_mesh_serial(const struct sim *sim, uint32_t a, uint32_t b);
bool sim_mesh_ready(const struct sim *sim, uint32_t me, uint32_t peer);

/* The connection of two workers ends; both are told. */
void sim_mesh_reset(struct sim *sim, uint32_t a, uint32_t b);

/* The process is gone. quiet: its host too. */
void sim_mesh_abandon(struct sim *sim, uint32_t me, bool quiet);

/* Events of the heap. */
void sim_mesh_syn(struct sim *sim, uint32_t from, uint32_t to);
void sim_mesh_greet(struct sim *sim, uint32_t from, uint32_t to);
void sim_mesh_lane(struct sim *sim, uint32_t from, uint32_t to);
void sim_mesh_deadline(struct sim *sim, uint32_t me, uint32_t rank, uint64_t number);

#endif
