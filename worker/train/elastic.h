/* The worker's membership logic: a pure step machine. Events in, actions and a reason out.
 *
 * It knows shards, partial sums P, the reduced gradient R and the parameters only as versions:
 * `applied` = updates applied = version of the parameters; step k turns version k into k + 1.
 * Time and everything else arrives in the event; nothing here allocates, waits, or calls anything.
 * The real worker (train/train.c) and the simulator (tests/sim) run this same code.
 *
 * Calling sequence
 *
 *     elastic_init(&e, &config, applied)            applied: 0, or what the checkpoint said
 *     elastic_step(&e, &event, &actions)            for every event, in the order in which they
 *                                                   come
 *         carry out actions.list[0..count) in this order; each that takes time ends with its event
 *
 * States and the function that leaves them (numbers: worker/DESIGN.md)
 *
 *     IDLE ──FORMED──► CONNECTING ──CONNECTED──► COPYING ──COPIED──► (APPLYING ─►) STEPPING
 *      │ VIEW               │  applied == s ────────────────────────────────────────► STEPPING
 *      ▼                    ▼ OVER                                                       │
 *                                                                    EXCHANGED
 *     SPARE ──RECORD(plan)► STEPPING                      FROZEN ◄──OVER── any ◄─APPLIED─ APPLYING
 *                                                           └──FORMED──► CONNECTING
 *     STEPPING ──last word──► FINISHING ──DONE──► GONE        LEAVING ──RELEASED──► GONE
 */
#ifndef TRAIN_ELASTIC_H
#define TRAIN_ELASTIC_H

#include "comm/reduce_plan.h"

#include <stdbool.h>
#include <stdint.h>

#define ELASTIC_ID_BYTES    16
#define ELASTIC_KEY_BYTES   16
#define ELASTIC_WORLD_MAX   PLAN_WORLD_MAX
#define ELASTIC_ACTIONS_MAX 24
#define ELASTIC_TEXT_BYTES  200
#define ELASTIC_NO_RANK     UINT32_MAX
#define ELASTIC_NO_SHARD    UINT32_MAX

struct elastic_id {
    uint8_t byte[ELASTIC_ID_BYTES];
};

struct elastic_member {
    struct elastic_id id;
    uint64_t applied;       /* updates applied when it froze, or known from its checkpoint */
    struct plan_mask owned; /* shards it owned in the generation that ended */
    bool frozen;            /* it was a member of the last generation and reported */
    uint32_t weight;        /* PLAN: its speed, as plan_weighted() takes it */
};

/* A generation as the coordinator tells it: by rank. */
struct elastic_roster {
    uint64_t number;
    uint64_t nonce;
    uint64_t step;                                   /* FORMED: updates applied when it begins */
    struct elastic_member members[ELASTIC_WORLD_MAX];
    uint32_t world;
    bool pause;                                      /* PLAN: at the boundary all save and freeze */
};

struct elastic_config {
    struct elastic_id me;
    struct plan_shape shape;
    uint64_t steps_total;
    uint64_t save_every;  /* updates between checkpoints; 0 = only the last */
    uint64_t hash_every;  /* versions whose parameters are hashed; 0 = 1 */
    bool saves;           /* a checkpoint folder was given */
    bool alone;           /* --standalone: no coordinator; nobody waits for DONE */
};

/* Why a peer is reported; the numbers are those of LostWhy in messages.proto. */
enum elastic_lost_why {
    ELASTIC_LOST_CLOSED = 1,
    ELASTIC_LOST_UNREACHABLE = 2,
    ELASTIC_LOST_HASH = 3,
    ELASTIC_LOST_STRANGER = 4,
};

/* X(name): what happened. The fields used are named in struct elastic_event. */
#define ELASTIC_EVENTS(X)                                                                          \
    X(FORMED)         /* roster: enter it now */                                                   \
    X(PLAN)           /* roster: enter it after the first step in which everybody holds it */      \
    X(VIEW)           /* roster: you are a spare, these train */                                   \
    X(OVER)           /* number: that generation is over, with all plans */                        \
    X(RELEASED)       /* a leaver may go */                                                        \
    X(DONE)           /* the job is done and recorded, or nobody answered in time (ok = false) */  \
    X(CONTROL)        /* ok: the coordinator is connected, or not */                               \
    X(CONNECTED)      /* number: the data plane to all members of it stands */                     \
    X(PEER_LOST)      /* peer, why */                                                              \
    X(SHARD_DONE)     /* step, shard */                                                            \
    X(EXCHANGED)      /* number, nonce, step, votes */                                             \
    X(CORRUPT)        /* step: the parameters are not what the word of the step said of them */    \
    X(APPLIED)        /* version, hash if hashed */                                                \
    X(COPIED)         /* ok; R(version - 1) or the state at version has arrived, or has not */     \
    X(RELOADED)       /* version, hash: answer to RELOAD */                                        \
    X(CAUGHT_UP)      /* version, hash, plan: a spare's whole state is at version; the plan as     \
                         below */                                                                  \
    X(BEHIND)         /* a spare's catch-up began again from the start */                          \
    X(RECORD_APPLIED) /* version, hash, plan (entered after that step, 0 = none) */                \
    X(SAVED)          /* version */                                                                \
    X(EVALUATED)      /* the test set has been gone through */                                     \
    X(STOP)           /* SIGTERM, SIGINT or DRAIN_REQUEST: leave at the next boundary */

enum elastic_event_type {
#define ELASTIC_EVENT_ENUM(name) ELASTIC_##name,
    ELASTIC_EVENTS(ELASTIC_EVENT_ENUM)
#undef ELASTIC_EVENT_ENUM
};

struct elastic_event {
    enum elastic_event_type type;
    uint64_t now_us;                     /* monotonic; for the phase times only */
    const struct elastic_roster *roster;
    uint64_t number, nonce;
    uint64_t step;
    uint64_t version;
    uint64_t hash;
    uint64_t plan;
    uint32_t shard;
    struct elastic_id peer;
    enum elastic_lost_why why;
    bool ok;
    bool hashed;                         /* APPLIED, EXCHANGED: with hashes */
    /* EXCHANGED: what the words and the audit said (exchange_votes) */
    uint64_t plan_min;
    bool unanimous, majority;
    uint32_t shard_odd;                  /* its sums differ, not the parameters; ELASTIC_NO_SHARD */
    const uint32_t *outvoted;            /* ranks */
    uint32_t outvoted_count;
};

/* X(name): what to do. */
#define ELASTIC_DO(X)                                                                              \
    X(CONNECT)        /* data plane to elastic.generation; -> CONNECTED */                         \
    X(COMPUTE)        /* step, shards; -> SHARD_DONE each. Shards under way are not asked again */ \
    X(EXCHANGE)       /* step, plan: exchange_start() with this word; hashed: with the hash of the \
                         parameters, made now if the update made none; -> EXCHANGED or CORRUPT.    \
                         words_only: the last one, without sums */                                 \
    X(STOP_EXCHANGE)  /* freeze: no frame of the generation changes anything any more */           \
    X(APPLY)          /* step: R(step) to the parameters, hashed or not; -> APPLIED */             \
    X(COPY_REDUCED)   /* step, from: get R(step) from that rank; -> COPIED */                      \
    X(COPY_STATE)     /* version, from: parameters and optimizer state; -> COPIED */               \
    X(CATCH_UP)       /* elastic.view: connect, subscribe, copy; -> CAUGHT_UP, RECORD_APPLIED */   \
    X(END_CATCH_UP)   /* records are no longer needed or no longer come */                         \
    X(RELOAD)         /* the state is a mixture of versions, or perhaps old: read the newest       \
                         checkpoint, or make the first state anew; -> RELOADED */                  \
    X(SEND_REPORT)    /* to the coordinator: applied, plan, owned, has_reduced, entered */         \
    X(SEND_ENTERED)   /* step, connect_us, state_us, recompute_us */                               \
    X(SEND_READY)     /* version, hash */                                                          \
    X(SEND_PEER_LOST) /* peer, why, text */                                                        \
    X(SEND_LEAVE)                                                                                  \
    X(SEND_FINISHED) /* hash */                                                                    \
    X(SAVE)          /* version: a checkpoint, copied before the next action is carried out;       \
                        last: everything waits for it; -> SAVED */                                 \
    X(EVALUATE)      /* -> EVALUATED */                                                            \
    X(STEP_DONE)     /* step finished and applied: the log line; number, rank, world of it, hash   \
                        if hashed */                                                               \
    X(GENERATION)    /* a generation was entered and its first sums are here: the log line */      \
    X(GOODBYE)       /* the last word to the coordinator: code, text */                            \
    X(EXIT)          /* code, text */

enum elastic_action_type {
#define ELASTIC_DO_ENUM(name) ELASTIC_DO_##name,
    ELASTIC_DO(ELASTIC_DO_ENUM)
#undef ELASTIC_DO_ENUM
};

struct elastic_action {
    enum elastic_action_type type;
    uint64_t step;
    uint64_t version;
    uint64_t hash;
    uint64_t plan;
    uint64_t number;        /* STEP_DONE: generation in which the step was finished */
    uint32_t rank, world;   /* STEP_DONE */
    uint32_t from;          /* rank of the current generation */
    struct plan_mask shards;
    struct elastic_id peer;
    enum elastic_lost_why why;
    bool words_only, last, has_reduced, entered, hashed;
    bool linger;            /* EXIT with 75: after a while, so that what was sent arrives first */
    uint64_t connect_us, state_us, recompute_us;
    int code;
    char text[ELASTIC_TEXT_BYTES];
};

struct elastic_actions {
    struct elastic_action list[ELASTIC_ACTIONS_MAX];
    uint32_t count;
};

/* X(name, word) */
#define ELASTIC_STATES(X)                                                                          \
    X(IDLE, "waiting")                                                                             \
    X(SPARE, "spare")                                                                              \
    X(CONNECTING, "connecting")                                                                    \
    X(COPYING, "copying")                                                                          \
    X(STEPPING, "training")                                                                        \
    X(APPLYING, "applying")                                                                        \
    X(FROZEN, "frozen")                                                                            \
    X(PAUSING, "pausing")                                                                          \
    X(FINISHING, "finishing")                                                                      \
    X(LEAVING, "leaving")                                                                          \
    X(GONE, "gone")

enum elastic_state {
#define ELASTIC_STATE_ENUM(name, word) ELASTIC_STATE_##name,
    ELASTIC_STATES(ELASTIC_STATE_ENUM)
#undef ELASTIC_STATE_ENUM
};

struct elastic {
    struct elastic_config config;
    enum elastic_state state;
    uint64_t applied;                   /* version of the parameters */
    uint64_t hash;                      /* of the parameters at that version, if one was made */
    uint64_t compared;                  /* newest version at which all replicas were equal */
    bool has_reduced;                   /* R(applied - 1) is here and whole */
    struct elastic_roster generation;   /* the one I am in, or was in last; number 0 = none */
    uint32_t rank;                      /* in it */
    uint16_t owner[PLAN_SHARDS_MAX];    /* of it */
    bool entered;                       /* its first word was sent */
    struct elastic_roster plan;         /* number 0 = none */
    struct elastic_roster view;         /* a spare's; number 0 = none */
    uint64_t number_max;                /* largest generation number seen */
    uint64_t before;                    /* the generation left by the plan that made this one; else
                                           its own number. OVER of either ends this one */
    struct plan_mask held;              /* shards of step `applied` whose sums are here */
    struct plan_mask asked;             /* shards of step `applied` that are held or being computed
                                           */
    bool boundary;                      /* the plan is entered after the step being applied */
    bool pausing;                       /* last words before a pause: no sums, then a checkpoint */
    uint64_t saved;                     /* newest version that a checkpoint was asked of or read
                                           from */
    bool freeze_after_apply;            /* OVER came while an update was being applied */
    bool reapplying;                    /* the update being applied is a copied R */
    bool stop;                          /* wishes to leave */
    bool leave_sent;                    /* for this generation */
    bool released;                      /* may go, when its last step is applied */
    bool evaluating;                    /* EVALUATE was asked for and has not been answered */
    bool evaluated, saved_last, last_words;
    bool control;                       /* the coordinator is connected */
    bool mixed;                         /* the state is of no version: a copy or a catch-up has
                                           begun */
    bool reloading;                     /* RELOAD was asked for and has not been answered */
    bool connected;                     /* CONNECTING: the data plane stands already */
    uint64_t pending_plan;              /* a spare saw this plan entered before it was told of it */
    bool copying_state;                 /* the copy under way is the whole state, not R */
    uint32_t source_next;               /* first rank not yet asked for it */
    uint64_t formed_us, connected_us, stepping_us; /* phase times of the recovery under way */
    bool recovering;                    /* recompute_us is not yet known */
};

void elastic_init(struct elastic *e, const struct elastic_config *config, uint64_t applied,
                  uint64_t hash);
void elastic_step(struct elastic *e, const struct elastic_event *event,
                  struct elastic_actions *actions);

/* Sums of the current step that are still to be computed here: it owes them. */
bool elastic_owes(const struct elastic *e);

/* The shards that it owns in the generation that it is in, or was in last. */
struct plan_mask elastic_owned(const struct elastic *e);

/* A member of its current generation with a place in the next step's sums. */
bool elastic_training(const struct elastic *e);

/* 0, or the number of the first broken invariant of worker/DESIGN.md, with its sentence. */
int elastic_check(const struct elastic *e, const char **sentence);

const char *elastic_state_word(enum elastic_state state);
const char *elastic_event_name(enum elastic_event_type type);
const char *elastic_action_name(enum elastic_action_type type);
bool elastic_id_equal(const struct elastic_id *a, const struct elastic_id *b);

#endif
