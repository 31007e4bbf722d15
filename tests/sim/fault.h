/* What can go wrong: the kinds of fault, the phases of a job in which they strike, the roles they
 * strike.
 *
 * A cell of the table is (phase, role, kind). A fault counts for a cell when, at the moment it
 * strikes, some live member of the job is in that phase and the process that is struck has that
 * role. */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_W 1u /* strikes workers */
#define SIM_C 2u /* strikes the coordinator */
#define SIM_J 4u /* strikes a newcomer alone */
#define SIM_B 3u
#define SIM_M 8u /* strikes members of a generation: a newcomer's parameters are nobody's yet */

/* X(name, word, whom) */
#define SIM_FAULTS(X)                                                                              \
    X(LOSS, "loss", SIM_B)               /* packets come a retransmission later */                 \
    X(DUPLICATE, "duplicate", SIM_B)     /* what a re-attach says again comes twice */             \
    X(DELAY, "delay", SIM_B)             /* every packet is late */                                \
    X(REORDER, "reorder", SIM_B)         /* connections overtake each other by much */             \
    X(CLOG, "clog", SIM_B)               /* nothing passes for a while, then all at once */        \
    X(SWIZZLE, "swizzle", SIM_B)         /* paths clogged one by one, opened in another order */   \
    X(PARTITION, "partition", SIM_B)     /* both ways, both planes; the coordinator's: isolated */ \
    X(PARTITION_ASYM, "one-way", SIM_B)  /* one way only */                                        \
    X(HALF_OPEN, "half-open", SIM_W)     /* one end of the control connection forgets it */        \
    X(RESET, "reset", SIM_B)             /* control connections end */                             \
    X(DATA_CUT, "data-cut", SIM_W)       /* data plane of a pair, control plane up */              \
    X(DATA_ASYM, "data-one-way", SIM_W)  /* the same, one way */                                   \
    X(DATA_SLOW, "data-slow", SIM_W)     /* its data plane crawls */                               \
    X(DATA_RESET, "data-reset", SIM_W)   /* a data connection ends */                              \
    X(CRASH, "crash", SIM_B)             /* the process; its kernel says so */                     \
    X(HOST_CRASH, "host-crash", SIM_B)   /* the host: nobody says anything */                      \
    X(RESTART, "restart", SIM_B)         /* crash, and back at once */                             \
    X(CRASH_TWO, "crash-two", SIM_W)     /* it and another at the same moment */                   \
    X(CRASH_MOST, "crash-most", SIM_W)   /* all but one */                                         \
    X(PAUSE, "pause", SIM_B)             /* stopped, then continued */                             \
    X(ZOMBIE, "zombie", SIM_W)           /* stopped until the others are in a newer generation */  \
    X(SLOW, "slow", SIM_W)               /* computes slowly */                                     \
    X(CLOCK_STEP, "clock-step", SIM_B)   /* its monotonic clock leaps */                           \
    X(CORRUPT, "corrupt", SIM_M)         /* a bit of its parameters flips with an update */        \
    X(FLIP, "flip", SIM_M)               /* one flips in memory, after it was hashed */            \
    X(FLIP_OPTIM, "flip-optimizer", SIM_M) /* one of what its optimizer remembers */               \
    X(FLIP_REDUCED, "flip-reduced", SIM_M) /* one of its copy of R */                              \
    X(FLIP_SUM, "flip-sum", SIM_M)       /* one of the sums that an audit looks at */              \
    X(CKPT_TORN, "ckpt-torn", SIM_W)     /* the newest checkpoint is damaged, its writer dies */   \
    X(IMPOSTOR, "impostor", SIM_W)       /* somebody else comes with its identity */               \
    X(LEAVE, "leave", SIM_W)             /* SIGTERM */                                             \
    X(DRAIN, "drain", SIM_W)             /* the operator drains it */                              \
    X(JOIN, "join", SIM_J)               /* a newcomer */                                          \
    X(STORE_LOST, "store-lost", SIM_C)   /* crash, unacknowledged writes are gone */               \
    X(STORE_TORN, "store-torn", SIM_C)   /* crash, the last write is half there */                 \
    X(STORE_SLOW, "store-slow", SIM_C)   /* writes take long */                                    \
    X(STORE_FAILING, "store-failing", SIM_C) /* writes fail */                                     \
    X(STORE_EMPTY, "store-empty", SIM_C) /* crash, and an empty store afterwards */                \
    X(STORE_OLD, "store-old", SIM_C)     /* crash, and an older store afterwards */                \
    X(CUT_OFF, "cut-off", SIM_C)         /* cut off from the whole group while newcomers arrive */

enum sim_fault {
#define SIM_FAULT_ENUM(name, word, whom) SIM_FAULT_##name,
    SIM_FAULTS(SIM_FAULT_ENUM)
#undef SIM_FAULT_ENUM
    SIM_FAULT_COUNT
};

/* X(name, word): where a member is */
#define SIM_PHASES(X)                                                                              \
    X(STARTUP, "startup")       /* before its first step */                                        \
    X(COMPUTE, "compute")       /* owes its sums */                                                \
    X(EXCHANGE, "exchange")     /* has sent them, waits for the others */                          \
    X(APPLY, "apply")           /* R is whole, the update runs */                                  \
    X(FROZEN, "regroup")        /* its generation is over, or it connects to the next */           \
    X(COPY, "copy")             /* gets R or the state from another */                             \
    X(CATCH_UP, "catch-up")     /* a newcomer beside the group */                                  \
    X(BOUNDARY, "boundary")     /* holds a plan that it has not entered */                         \
    X(END, "end")               /* all steps applied, evaluates */                                 \
    X(CHECKPOINT, "checkpoint") /* a checkpoint is being written */

enum sim_phase {
#define SIM_PHASE_ENUM(name, word) SIM_PHASE_##name,
    SIM_PHASES(SIM_PHASE_ENUM)
#undef SIM_PHASE_ENUM
    SIM_PHASE_COUNT
};

/* X(name, word, whom) */
#define SIM_ROLES(X)                                                                               \
    X(FIRST, "rank 0", SIM_W | SIM_M)                                                              \
    X(OWNER, "owner", SIM_W | SIM_M) /* owns a chunk, neither first nor last */                    \
    X(LAST, "last rank", SIM_W | SIM_M)                                                            \
    X(JOINER, "joiner", SIM_W | SIM_J)                                                             \
    X(LEAVER, "leaver", SIM_W | SIM_M)                                                             \
    X(COORDINATOR, "coordinator", SIM_C)

enum sim_role {
#define SIM_ROLE_ENUM(name, word, whom) SIM_ROLE_##name,
    SIM_ROLES(SIM_ROLE_ENUM)
#undef SIM_ROLE_ENUM
    SIM_ROLE_COUNT
};

#define SIM_CELL_COUNT ((uint32_t)SIM_PHASE_COUNT * SIM_ROLE_COUNT * SIM_FAULT_COUNT)

/* Strikes seen, over all seeds of a run. */
struct sim_table {
    uint64_t cell[SIM_PHASE_COUNT][SIM_ROLE_COUNT][SIM_FAULT_COUNT];
    uint64_t kind[SIM_FAULT_COUNT];  /* strikes of a kind, in any phase */
};

const char *sim_fault_word(enum sim_fault fault);
const char *sim_phase_word(enum sim_phase phase);
const char *sim_role_word(enum sim_role role);
bool sim_fault_known(const char *word, enum sim_fault *fault);

/* Whether the kind can strike the role at all. */
bool sim_cell_exists(enum sim_role role, enum sim_fault fault);

#endif
