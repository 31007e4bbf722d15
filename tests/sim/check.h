/* The checkers: what must hold whatever fails, looked at from outside the code under test.
 *
 *  1. One chain per job: parameters after k updates are those of the undisturbed run, on every
 *     worker.
 *  2. Every (step, shard) is exactly once in the sums that are applied.
 *  3. A generation has one nonce and one list of members for everybody; ranks 0 .. n-1 once each.
 *  4. Numbers of generations grow, over restarts of the coordinator too.
 *  5. Two groups never both train: when a newer generation has finished a step, no older one
 *     finishes a later step than that (a plan: not even the same).
 *  6. Nobody starts again below a live member's version.
 *  7. What was acknowledged stays: a job that was told to be done is never formed again.
 *  8. No member is declared lost as silent whose connection stood and that was heard within its
 *     lease.
 *  9. Barriers: whoever is told "released" had entered, and so had all others of its group; once.
 * 10. Who can finish does, with the right bits and exit code (at the end of the liveness phase).
 * 11. No loss without a cause: while nothing was done to any path, clock, store or processor for a
 *     minute, nobody who lives is put out, and no data connection is said to have failed.
 * 12. Leaving loses nothing: where the members went by leaving, the job goes on no lower than where
 *     they left it.
 * 13. A boundary is everybody's: nobody takes a plan after a step while one who trains beside him
 *     does not hold it.
 * 14. There is no verdict: the workers' collectives are alike, and who waits is waited with.
 *
 * With an empty or older store 4 to 7 and 12 cannot be promised by anybody (coordinator/DESIGN.md
 * says so) until a member of the newest generation has come back, and never again when another was
 * formed before that; `unprotected` is such a time, and the others hold all the same. */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include "comm/reduce_plan.h"
#include "proto/wire.h"
#include "sim/fault.h"

#include <stdbool.h>
#include <stdint.h>

/* X(name, word): who sees what is wrong; the first fourteen are those above, in their order. */
#define SIM_CHECKERS(X)                                                                            \
    X(NONE, "none")                                                                                \
    X(CHAIN, "one chain")                                                                          \
    X(SHARDS, "every shard once")                                                                  \
    X(LISTS, "one list of members")                                                                \
    X(NUMBERS, "numbers grow")                                                                     \
    X(WORLDS, "one world")                                                                         \
    X(START, "nobody starts below")                                                                \
    X(KEPT, "what was said stays")                                                                 \
    X(ALIVE, "no false death")                                                                     \
    X(BARRIERS, "barriers once")                                                                   \
    X(FINISH, "who can finish does")                                                               \
    X(CAUSE, "no loss without a cause")                                                            \
    X(LEAVING, "leaving loses nothing")                                                            \
    X(BOUNDARY, "boundaries for all")                                                              \
    X(VERDICT, "no verdict")                                                                       \
    X(MACHINES, "invariants of the machines")                                                      \
    X(WORDS, "words that make sense")                                                              \
    X(CANARY, "the canary")

enum sim_checker {
#define SIM_CHECKER_ENUM(name, word) SIM_CHECK_##name,
    SIM_CHECKERS(SIM_CHECKER_ENUM)
#undef SIM_CHECKER_ENUM
};

const char *sim_checker_word(enum sim_checker checker);

#define SIM_GENERATIONS_MAX 4096u
#define SIM_BARRIERS_MAX    64u

struct sim;
struct sim_checkpoint;
struct sim_outcome;

struct sim_generation {
    uint64_t number, nonce;
    uint64_t members;        /* hash of the list */
    uint64_t step;           /* FORMED: where it begins */
    bool plan;               /* told as a plan first */
    bool trained;            /* somebody finished a step in it */
    uint64_t first_done, last_done; /* steps finished in it */
};

struct sim_check {
    uint32_t closing;        /* member whose connection the coordinator closed last */
    uint64_t closing_us;     /* when it did; 0 = it has closed none */
    uint64_t closing_arrived_us; /* when something had come over it last; 0 = nothing had */
    uint64_t *chain;         /* owned; [steps + 1] */
    struct sim_generation *generations; /* owned, in the order in which they were told first */
    uint32_t generation_count;
    uint64_t number_max;     /* told so far */
    uint64_t number_before;  /* of the newest generation formed; 0 = none */
    uint64_t first_step_us;  /* when the first step was finished, 0 = none */
    uint64_t steps;          /* updates applied, over all */
    uint64_t barriers_passed; /* by puppets, over all */
    uint64_t barriers_in_calm; /* of them */
    bool done_told;          /* that the job is done, and the store has not forgotten it since */
    bool done_once;          /* it was told, perhaps by a store that went back afterwards */
    bool unprotected;        /* the store lies and members cannot say so: 4 to 7 are off */
    uint32_t forgotten_count; /* generations when that began */
    uint32_t adopted;        /* times that it ended again, because a member said so */
    uint32_t finished;       /* processes that exited 0 with all steps applied */
    uint64_t lost_told;      /* losses announced */
    uint64_t stragglers;     /* named */
    uint64_t spreads;        /* plans that only spread the shards anew */
    bool job_failed;         /* the restart budget was spent */
    uint64_t excused_us;     /* until then a loss may have a cause that no process can see */
    uint64_t left_version;   /* largest version of those who left since somebody went otherwise */
    uint64_t left_us;        /* when the last of them went */
    uint64_t died_us;        /* when somebody was last killed; 0 = never */
    bool corrupted;          /* a bit of some replica was flipped */
    bool spread;             /* a flipped bit was copied, or was alone, before anybody could vote on
                                 it: nobody can tell then */
};

void sim_check_init(struct sim *sim);
void sim_check_release(struct sim *sim);

/* The coordinator's side: a message leaves for a connection, has come. */
void sim_check_told(struct sim *sim, const struct wire_message *message);

/* The coordinator closes a connection; it says something in its log. */
void sim_check_closing(struct sim *sim, uint32_t conn);
void sim_check_log(struct sim *sim, const char *text);
void sim_check_said(struct sim *sim, uint32_t conn, const struct wire_message *message);

/* The workers' side. */
void sim_check_loaded(struct sim *sim, uint32_t worker, const struct sim_checkpoint *checkpoint);
void sim_check_sums(struct sim *sim, uint32_t worker, uint64_t step,
                    const struct plan_mask *present);
void sim_check_exchanged(struct sim *sim, uint32_t worker, uint64_t step, uint64_t number);
void sim_check_applied(struct sim *sim, uint32_t worker, uint64_t step);
void sim_check_copied(struct sim *sim, uint32_t worker, uint64_t version);
void sim_check_reported(struct sim *sim, uint32_t worker, uint64_t version);
void sim_check_finished(struct sim *sim, uint32_t worker, uint64_t version);
void sim_check_exit(struct sim *sim, uint32_t worker, int code, const char *text);

/* The store was emptied or set back: what it had acknowledged is forgotten. */
void sim_check_forgotten(struct sim *sim);

/* check_cause.c: a fault was struck or healed; a process is gone (left: after it was released);
 * the coordinator says something in its log; a generation is formed. */
void sim_check_struck(struct sim *sim, enum sim_fault fault, bool coordinator);
void sim_check_gone(struct sim *sim, uint32_t worker, bool left);
void sim_check_cause(struct sim *sim, const char *text);
void sim_check_resumed(struct sim *sim, const struct wire_message *message);

/* A worker's last step of its generation is complete: it will take the plan that it holds. */
void sim_check_boundary(struct sim *sim, uint32_t worker);

/* The end of a seed: did everybody who can finish? */
void sim_check_end(struct sim *sim, struct sim_outcome *outcome);

#endif
