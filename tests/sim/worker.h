/* A simulated worker: the real elastic machine, exchange and catch-up, with toy gradients in the
 * place of a device and the simulated mesh in the place of sockets. What train.c does around them
 * is done here. */
#ifndef SIM_WORKER_H
#define SIM_WORKER_H

#include "client/session.h"
#include "sim/fault.h"
#include "sim/mesh.h"
#include "sim/toy.h"
#include "train/elastic.h"
#include "train/exchange.h"
#include "train/pace.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_SHARDS_MAX  64u
#define SIM_BUCKETS_MAX 4u
#define SIM_THREADS_MAX 4u
#define SIM_INBOX_MAX   96u
#define SIM_SAVES_MAX   4u
#define SIM_CHECKPOINTS 3u /* kept */
#define SIM_KEYS        8u
#define SIM_NO_VERSION  UINT64_MAX

struct sim;

/* Computations of a worker that take time. */
enum sim_work {
    SIM_WORK_SHARD,     /* value = thread */
    SIM_WORK_APPLY,
    SIM_WORK_SAVE,      /* value = index of the save */
    SIM_WORK_EVALUATE,
    SIM_WORK_RELOAD,
    SIM_WORK_DRAIN,     /* the drain deadline */
    SIM_WORK_UNHEARD,   /* finished, and no coordinator for so long; value = how often it was
                           down */
    SIM_WORK_LINGER,    /* the end that was put off has come; value = exit code */
    SIM_WORK_CHECK,     /* value = serial of the check */
    SIM_WORK_AUDIT,     /* value = serial of the audited shard */
};

struct sim_thread {
    bool busy;
    uint64_t step;
    uint32_t shard;
    uint64_t hash;      /* of the parameters it read */
    uint64_t begun_us;  /* on the process's clock */
    uint32_t serial;    /* events of an older task are void */
};

struct sim_checkpoint {
    bool valid;
    bool torn;          /* damaged; a reader that checks sees it */
    bool tainted;       /* a flipped bit may be in it; nobody sees that */
    uint64_t version;
    uint64_t generation;
    uint64_t hash;
    uint64_t params[TOY_CELLS_MAX];
};

/* A frame of the step or generation to come, kept until the exchange for it begins. */
struct sim_early {
    struct sim_early *next;
    uint32_t from;
    struct sim_frame frame;
    uint64_t cells[];
};

/* Getting R or the state from another member. */
struct sim_copy {
    bool active;
    bool state;         /* else R */
    uint32_t slot;      /* who has it */
    uint64_t version;   /* state: wanted version; R: its step */
    uint64_t serial;    /* answers to older requests are void */
    uint32_t cells;     /* that have come */
};

struct sim_key {
    uint64_t number;    /* generation */
    uint64_t key;       /* of its data plane */
};

struct sim_joiner;

struct sim_worker {
    struct elastic elastic;
    struct elastic_event inbox[SIM_INBOX_MAX]; /* ring */
    uint32_t inbox_first, inbox_count;
    bool pumping;

    /* the device */
    uint64_t params[TOY_CELLS_MAX];
    uint64_t hash;                             /* of params */
    uint64_t version;                          /* updates applied to params */
    bool hashed;                               /* hash was made by the update */
    bool corrupt_next;                         /* a bit flips with the next update */
    bool corrupt;                              /* a flipped bit may be in params */
    bool reduced_flips;                        /* a bit of R flips before the next update */
    bool reduced_corrupt;                      /* a flipped bit may be in R */
    bool sum_flips;                            /* a bit of the next audited sum */
    bool sum_corrupt;                          /* one of this version's has */
    uint64_t reduced[TOY_CELLS_MAX];           /* R, cell by cell */
    uint64_t reduced_of[TOY_CELLS_MAX];        /* 1 + step the cell is of; 0 = none */
    uint64_t reduced_shards[TOY_CELLS_MAX];    /* which shards are in it */
    uint64_t shard_value[PLAN_SHARDS_MAX];     /* P of step shard_step, shard by shard */
    uint64_t shard_step;
    struct plan_mask shard_have;
    struct plan_mask shard_todo;               /* asked for, not begun */
    struct sim_thread threads[SIM_THREADS_MAX];
    bool applying;
    uint64_t apply_step;
    bool apply_hashed;
    bool evaluating;
    struct sim_checkpoint saves[SIM_SAVES_MAX]; /* being written; valid = in use */
    uint32_t slow_factor;                      /* computes so many times slower */
    uint64_t slow_until_us;
    struct pace pace;                          /* how long a shard takes here */

    /* the exchange */
    struct exchange exchange;
    struct exchange_votes votes;               /* of the last one; lives until the next */
    bool exchanging;
    uint64_t exchange_step;
    uint64_t exchange_number;
    uint64_t (*pieces)[TOY_CELLS_MAX];         /* owned: [node][cell], of my chunks */
    uint64_t piece_shards[SIM_BUCKETS_MAX][PLAN_NODES_MAX];
    uint32_t node_ready;                       /* nodes of mine that were offered */
    uint8_t node_offered[PLAN_NODES_MAX];
    bool checking;                             /* CHECK was asked for and not answered */
    uint32_t check_serial;                     /* answers to older ones are void */
    bool auditing, audit_have;                 /* a shard of another one, of this version */
    uint32_t audit_serial;                     /* results for older ones are void */
    uint64_t audit_value;
    struct sim_early *early, *early_last;
    uint32_t slots[SIM_WORLD_MAX];             /* of the generation entered, by rank */
    struct sim_copy copy;

    /* the control plane */
    bool control;                              /* attached */
    uint32_t downs;
    bool finished_said;
    bool evaluated_once;
    enum wire_phase told_phase;                /* with the last STATUS */
    uint32_t told_part;                        /* shards held, as told */
    uint64_t told_applied;
    struct session_ledger ledger;              /* as told */
    struct elastic_roster roster;              /* scratch of the event under way */
    struct sim_key keys[SIM_KEYS];             /* by number modulo SIM_KEYS */
    struct sim_joiner *joiner;                 /* owned; catch-up, on both sides (joiner.c) */
    uint32_t planted;                          /* planted bug: how often it still strikes */
    uint64_t planted_hash;                     /* the same: what the next shard is made of; 0 = the
                                                  parameters */
};

void sim_worker_init(struct sim *sim, uint32_t worker);
void sim_worker_release(struct sim *sim, uint32_t worker);

/* A process begins: picks the newest valid checkpoint and fills in what HELLO says of it. */
void sim_worker_birth(struct sim *sim, uint32_t worker, struct session_config *config);
void sim_worker_death(struct sim *sim, uint32_t worker);
/* Where it stands in its exchange, if that is news. */
void sim_worker_tell_status(struct sim *sim, uint32_t worker);
void sim_worker_tell_ledger(struct sim *sim, uint32_t worker);

/* From the session, the mesh, the heap, the operator. */
void sim_worker_news(struct sim *sim, uint32_t worker, const struct session_delivery *delivery);
void sim_worker_mesh_ready(struct sim *sim, uint32_t worker, uint64_t number);
void sim_worker_frame(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells);
void sim_worker_peer_lost(struct sim *sim, uint32_t worker, uint32_t peer, uint32_t rank,
                          bool closed);
void sim_worker_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value);
void sim_worker_stop(struct sim *sim, uint32_t worker);

/* Bits of enum sim_phase in which it is now, and whether it has a role. */
uint32_t sim_worker_phases(const struct sim *sim, uint32_t worker);
bool sim_worker_has_role(const struct sim *sim, uint32_t worker, enum sim_role role);

/* ---- between the files of the worker ---- */

/* Gives the machine an event; it is stepped before this returns, or by the call that is stepping
 * now. */
void sim_worker_feed(struct sim *sim, uint32_t worker, const struct elastic_event *event);

/* device.c: time, sums, updates, checkpoints */
void sim_device_compute(struct sim *sim, uint32_t worker, uint64_t step,
                        const struct plan_mask *shards);
void sim_device_apply(struct sim *sim, uint32_t worker, uint64_t step, bool hashed);
uint64_t sim_device_shard(struct sim *sim, uint32_t worker, uint64_t step, uint32_t shard,
                          uint64_t hash);
uint64_t sim_device_hash(const struct sim *sim, uint32_t worker); /* of params as they are now */
void sim_device_save(struct sim *sim, uint32_t worker, uint64_t version, bool last);
void sim_device_flush(struct sim *sim, uint32_t worker);
void sim_device_reload(struct sim *sim, uint32_t worker);
void sim_device_evaluate(struct sim *sim, uint32_t worker);
void sim_device_new_version(struct sim *sim, uint32_t worker, uint64_t version);
void sim_device_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value);
const struct sim_checkpoint *sim_device_load(struct sim *sim, uint32_t worker);

/* sums.c: the exchange of a step, and copies of R and of the state */
void sim_sums_begin(struct sim *sim, uint32_t worker, const struct elastic_action *action);
void sim_sums_stop(struct sim *sim, uint32_t worker);
void sim_sums_shard(struct sim *sim, uint32_t worker);
void sim_sums_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value);
void sim_sums_frame(struct sim *sim, uint32_t worker, uint32_t from, const struct sim_frame *frame,
                    const uint64_t *cells);
void sim_sums_forget(struct sim *sim, uint32_t worker);
void sim_copy_begin(struct sim *sim, uint32_t worker, const struct elastic_action *action);
void sim_copy_frame(struct sim *sim, uint32_t worker, uint32_t from, const struct sim_frame *frame,
                    const uint64_t *cells);
void sim_copy_lost(struct sim *sim, uint32_t worker, uint32_t peer);

/* worker.c: enters a generation, or with SIM_VISITOR one that it views, on the mesh */
void sim_worker_enter(struct sim *sim, uint32_t worker, const struct elastic_roster *roster,
                      uint32_t rank);

/* joiner.c: catch-up of a spare, and the members' side of it */
void sim_joiner_begin(struct sim *sim, uint32_t worker);
void sim_joiner_end(struct sim *sim, uint32_t worker);
void sim_joiner_release(struct sim *sim, uint32_t worker);
void sim_joiner_connected(struct sim *sim, uint32_t worker, uint64_t number);
void sim_joiner_lost(struct sim *sim, uint32_t worker, uint32_t peer);
void sim_joiner_frame(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells);
void sim_joiner_applied(struct sim *sim, uint32_t worker, uint64_t step);
void sim_joiner_entered(struct sim *sim, uint32_t worker);

#endif
