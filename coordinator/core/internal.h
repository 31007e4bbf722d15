/* What the core's files share: its state, and the few helpers that all of them use. */
#ifndef CORE_INTERNAL_H
#define CORE_INTERNAL_H

#include "core/core.h"

#include <assert.h>
#include <string.h>

#define NOBODY       UINT32_MAX
#define TICK_US      100000u
#define TEXTS        128           /* sentences of one core_step */
#define RECORD_BYTES (512u * 1024u)
#define WHY_BYTES    8192u         /* of the answer to `muster why` */

enum member_state {
    MEMBER_FREE,
    MEMBER_WAITING, /* joined; a spare, or waits for the job to form; every participant */
    MEMBER_RUNNING, /* of the generation or the plan, and not known to be frozen */
    MEMBER_FROZEN,  /* reported: no frame of the ended generation changes it any more */
    MEMBER_LOST,    /* was of the ended generation; kept until it is gone or fenced off */
};

/* A member that comes back says again whom it missed: at most so many. */
#define ACCUSATIONS 4
struct accusation {
    uint64_t generation;          /* 0 = this is none */
    uint32_t order;               /* of the accused */
    bool hash;                    /* by the word of the step */
};

struct member {
    struct core_id id, secret;
    enum member_state state;
    enum core_kind kind;
    uint32_t job;                 /* index */
    uint32_t next, previous;      /* in the job's list; next also links the free ones */
    uint32_t order;               /* of joining, in the job */
    core_conn conn;               /* 0 = none */
    char node[CORE_NAME_BYTES], host[CORE_NAME_BYTES], address[CORE_NAME_BYTES];
    uint32_t pid, rank_hint;
    uint32_t asked_min, asked_max; /* of its HELLO; 0 = no opinion */
    /* generation */
    bool in_generation, in_plan;  /* a member of it */
    bool chosen;                  /* for the generation or plan that is being stored */
    uint32_t rank, rank_new;      /* in the generation; in the plan or what is being stored */
    uint64_t entered;             /* newest generation number it said it entered */
    bool recomputed;              /* and that what it had to compute anew in it is there */
    uint64_t applied;             /* updates: reported, ready, or known from a checkpoint */
    uint8_t owned[CORE_OWNED_BYTES];
    uint32_t owned_bytes;
    bool froze;                   /* it was frozen when the generation was formed */
    bool ready;                   /* a spare that has caught up with the generation */
    uint64_t ready_in;            /* generation beside which it last said so; a plan's, when the
                                     others have not all said yet that they entered it */
    bool leaving, released;       /* wishes to go; may go */
    bool finished;
    uint64_t leave_us;            /* until then it must have left, 0 = no limit */
    /* signs of life */
    uint64_t seen_us;             /* last sign of life */
    uint64_t report_us;           /* since when it owes a report, 0 = it does not */
    uint64_t phase_us;            /* since when it is in its phase */
    uint64_t step;                /* of its last beat */
    enum core_phase phase;
    bool suspect;
    uint32_t accused;             /* by so many peers, in this generation */
    uint64_t accused_us;          /* a peer saw its data connection end; 0 = none did */
    uint64_t accused_in;          /* newest generation in which one did */
    uint32_t hash_accused;        /* by so many, by the word of the step, in this generation */
    struct accusation said[ACCUSATIONS]; /* its own newest, so that none counts twice */
    uint32_t said_count;
    /* speed: straggler.c */
    uint32_t shard_us, shards;    /* of its last beat: time of one, and how many it owns */
    uint64_t told;                /* generation of its last beat */
    bool paced;                   /* it has told its speed since the last tick */
    bool straggler;
    uint64_t run_us, run_step;    /* since when its beats speak against that; 0 = they do not */
    uint64_t judged_us;           /* its last beat that was judged */
    uint32_t pace;                /* its time of a shard in percent of the median, smoothed */
    uint32_t weight, weight_new;  /* its speed in the generation; in the plan */
    /* lost */
    uint64_t probe_us;            /* last probe */
    bool gone;                    /* proven: its process does not live any more */
    bool left;                    /* it said goodbye when it might */
    /* barrier and collectives */
    bool beaten;                  /* since it came to its barrier, or finished */
    bool has_ledger;              /* its struct ledger holds something */
    bool minority;                /* of the finding that is being judged */
    uint32_t barrier;             /* slot it waits at, NOBODY = none */
    uint64_t barrier_seq, barrier_us, released_seq;
    uint64_t barrier_generation;  /* in which it waits */
    uint64_t barrier_number;      /* its count of barriers in that */
    char place[CORE_PLACE_BYTES];
};

/* Where a member stands among its collectives, by its last beat. */
struct ledger {
    uint64_t generation;          /* in which all this holds */
    uint64_t entered, left;       /* newest */
    uint64_t at;                  /* the one described: the oldest that is open, else the newest */
    uint64_t since_us;            /* when it was entered, or, if it is not open, left */
    bool open;
    bool lasted;                  /* open, and long, when the beat was sent */
    uint64_t count, batch;
    uint64_t digest;              /* of op, dtype, name and count */
    char op[CORE_OP_BYTES], dtype[CORE_DTYPE_BYTES], name[CORE_NAME_BYTES];
    char place[CORE_PLACE_BYTES];
    char where[CORE_WHERE_BYTES]; /* its thread, in the kernel */
};

struct verdict {
    enum core_verdict_kind kind;
    uint64_t at;                  /* number of the collective, 0 = it is about barriers alone */
    enum core_barrier_end end;    /* of the barriers that are waited at, 0 = they go on */
};

struct barrier {
    char name[CORE_NAME_BYTES];   /* "" = free */
    enum core_kind kind;          /* whose: workers and participants each have their own names */
    uint32_t waiting;             /* members that wait here */
    bool releasing;               /* it is met; those who wait still are told at the next tick */
};

/* A node that lost members. */
struct cooling {
    char node[CORE_NAME_BYTES];
    uint32_t losses;              /* since since_us; 0 = slot is free */
    uint64_t since_us, until_us;  /* first of these losses; its newcomers wait until then */
};

#define COOLING_NODES 16
#define STEP_TIMES    9

/* What waits for the store; KEEP: a generation that was taken over, or that everybody has left, so
 * that it is known after the next restart. */
enum pending { PENDING_NONE, PENDING_FORM, PENDING_PLAN, PENDING_DONE, PENDING_KEEP };

struct job {
    bool used;
    char name[CORE_NAME_BYTES];
    struct core_id uid;
    char spec[CORE_SPEC_BYTES], fingerprint[CORE_FINGERPRINT_BYTES];
    enum core_job_state state;
    uint32_t min, max;
    uint32_t first, last;         /* members */
    uint32_t workers;             /* with a connection, in any state but LOST */
    uint32_t order;               /* joins so far */
    /* generation and plan; number 0 = none */
    uint64_t number, nonce, number_max;
    uint64_t told_number;         /* newest that a member brought along; above `number`: the store
                                     is older than that */
    struct core_id key;
    bool key_known;               /* false after a restart: keys are never stored */
    uint64_t step;                /* at which the generation began */
    uint32_t world;
    bool all_entered;             /* every member of the generation said so */
    uint64_t settled_us;          /* since when they all are in it */
    uint64_t balanced_us;         /* last plan to spread the shards anew, 0 = none */
    bool paced;                   /* some member has, since the last tick */
    uint64_t plan_number, plan_nonce;
    struct core_id plan_key;
    bool plan_pause;
    uint64_t deserted_number;     /* generation of which it is stored that nobody lives */
    /* being stored */
    enum pending pending;
    uint64_t pending_lsn, pending_number, pending_nonce, pending_step;
    struct core_id pending_key;
    bool pending_pause;
    uint32_t pending_world;       /* members chosen for it */
    uint64_t retry_us;            /* a failed store is tried again then; 0 = none failed */
    /* times */
    uint64_t changed_us;          /* since when it is in its state */
    uint64_t arrived_us, first_us; /* last and first arrival */
    uint64_t waiting_us;          /* last WAITING */
    bool waiting_due;
    uint64_t over_us;             /* when the last generation ended */
    uint64_t pair_us;             /* last regroup because of a data plane failure, 0 = none */
    uint64_t weigh_us;            /* since when peers' reports are gathered; 0 = they are not */
    uint64_t last_us[CORE_RECOVERY_COUNT]; /* phases of the last recovery */
    struct core_histogram histograms[CORE_RECOVERY_COUNT];
    uint64_t recoveries;
    struct core_recovery recent[CORE_RECOVERIES_KEPT]; /* by recoveries % CORE_RECOVERIES_KEPT;
                                                          ago_ms is when, in ms */
    bool recovering;              /* the generation follows a loss */
    uint32_t losses;              /* generations that ended with one since the last progress */
    uint64_t progress_step;       /* newest step ever seen */
    float loss, samples_per_s;    /* as the newest beat of rank 0 told them */
    uint64_t step_us;             /* usual duration of a step in this group; 0 = not known yet */
    uint64_t times_us[STEP_TIMES]; /* it is the median of these, the newest that were seen */
    uint32_t times_taken;         /* so far, in this group */
    uint64_t timed_step, timed_us; /* newest step seen in this group, and when it began (0 = not
                                      seen) */
    bool timed;                   /* timed_step is set */
    struct cooling cooling[COOLING_NODES];
    /* collectives */
    struct verdict verdict;       /* why nobody can go on; NONE = as far as is known they can */
    char verdict_text[CORE_SENTENCE_BYTES];
    uint64_t verdicts;            /* so far */
    uint64_t differed_at, differed_us; /* newest difference told: its number, when */
    uint64_t contradiction_us;    /* since when two wait for each other; 0 = nobody does */
    uint64_t noted_at, noted_us;  /* newest wait that was named in the log: its number, when */
    uint64_t hash;                /* of the finished parameters */
    char reason[CORE_SENTENCE_BYTES];
    /* participants */
    uint32_t group_size, group_here, group_left;
    /* The newest barrier of the workers that one of them says it has passed. */
    uint64_t passed_generation, passed;
    char passed_name[CORE_NAME_BYTES];
    uint32_t waiting_participants, waiting_workers;
};

struct core {
    struct core_limits limits;
    struct core_times times;
    uint64_t now_us, tick_us;
    uint64_t random[4];
    uint32_t random_used;
    uint64_t lsn;
    uint32_t free_member;
    uint32_t members_used;
    struct job *jobs;
    struct member *members;
    struct ledger *ledgers;       /* by member; touched for those only that mark collectives */
    struct barrier *barriers;     /* jobs x limits.barriers */
    uint32_t *by_conn_index;      /* open addressing: conn -> member */
    core_conn *by_conn;
    uint32_t by_conn_size;        /* a power of two */
    uint32_t *by_id_index;        /* open addressing: id -> member */
    uint32_t by_id_size;
    /* scratch of one step */
    struct core_actions *actions;
    core_conn *conns;             /* lists of connections */
    uint32_t conns_used, conns_size;
    struct core_roster_member *roster; /* of the generation told; CORE_WORLD_MAX x 2 */
    uint32_t roster_used;
    struct core_id *lost;         /* ids of those lost; CORE_WORLD_MAX */
    uint32_t *speeds;             /* of a generation's members; CORE_WORLD_MAX */
    char (*texts)[CORE_SENTENCE_BYTES];
    uint32_t texts_used;
    uint8_t *record;              /* RECORD_BYTES */
    char *why;                    /* WHY_BYTES */
};

/* ---- coord.c: actions ------------------------------------------------------------------------ */
struct core_action *core_act(struct core *core, enum core_action_type type);
/* A sentence that lives until the next step. */
const char *core_say(struct core *core, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void core_log(struct core *core, enum core_level level, const struct job *job, const char *text);
struct core_message *core_send(struct core *core, core_conn conn, enum core_message_type type,
                               const struct job *job);
/* The same to a list that was gathered with core_list_add; NULL when it is empty. */
uint32_t core_list_begin(const struct core *core);
void core_list_add(struct core *core, core_conn conn);
struct core_message *core_send_list(struct core *core, uint32_t begin,
                                    enum core_message_type type, const struct job *job);
uint64_t core_random(struct core *core);
struct core_id core_random_id(struct core *core);
void core_copy_text(char *to, size_t bytes, const char *from);
/* "rank 2 on node-b (host, pid 4711)" */
void member_text(const struct member *m, char *text, size_t bytes);
const char *core_member_name(struct core *core, const struct member *m);
bool core_id_equal(const struct core_id *a, const struct core_id *b);
bool core_id_zero(const struct core_id *id);
void job_reason(struct core *core, struct job *job, enum core_level level, const char *text);
void job_set_state(struct core *core, struct job *job, enum core_job_state state);

/* ---- members.c ------------------------------------------------------------------------------- */
struct job *job_find(struct core *core, const char *name);
struct job *job_new(struct core *core, const char *name);
uint32_t job_index(const struct core *core, const struct job *job);
struct member *member_new(struct core *core, struct job *job, const struct core_id *id);
void member_free(struct core *core, struct member *m);
struct member *member_by_id(struct core *core, const struct core_id *id);
struct member *member_by_conn(struct core *core, core_conn conn);
void member_set_conn(struct core *core, struct member *m, core_conn conn);

static inline uint32_t member_index(const struct core *core, const struct member *m)
{
    return (uint32_t)(m - core->members);
}

/* for (m = member_first(core, job); m; m = member_next(core, m)) */
static inline struct member *member_first(const struct core *core, const struct job *job)
{
    return job->first == NOBODY ? NULL : &core->members[job->first];
}

static inline struct member *member_next(const struct core *core, const struct member *m)
{
    return m->next == NOBODY ? NULL : &core->members[m->next];
}

/* ---- hello.c --------------------------------------------------------------------------------- */
void on_hello(struct core *core, core_conn conn, const struct core_message *message);

/* ---- cooling.c ------------------------------------------------------------------------------- */
void cooling_lost(struct core *core, struct job *job, const struct member *m);
bool cooling_holds(const struct core *core, const struct job *job, const struct member *m);

/* ---- rendezvous.c ---------------------------------------------------------------------------- */
void job_try(struct core *core, struct job *job);
void job_tell_waiting(struct core *core, struct job *job);
/* What a job that forms, regroups or is paused waits for; "" = it does not. */
void job_waits_for(const struct core *core, const struct job *job, char *text, size_t bytes);
/* Paused, and nobody of its last generation lives: whoever comes finds no one. */
bool job_deserted(const struct core *core, const struct job *job);
void job_rank(struct core *core, struct job *job, uint32_t world);
void member_probe(struct core *core, struct member *m);
void member_gone(struct core *core, struct member *m, const char *why);

/* ---- generation.c ---------------------------------------------------------------------------- */
void generation_form(struct core *core, struct job *job, uint32_t world, uint64_t step);
void generation_plan(struct core *core, struct job *job, uint32_t world, bool pause);
void generation_over(struct core *core, struct job *job, const char *reason, uint64_t detect_us);
void generation_view(struct core *core, struct job *job, struct member *spare);
void generation_plan_again(struct core *core, struct job *job, struct member *m);
void generation_stored(struct core *core, struct job *job);
void generation_retry(struct core *core, struct job *job);
void generation_done(struct core *core, struct job *job);
void generation_keep(struct core *core, struct job *job);
void generation_release_leavers(struct core *core, struct job *job);
void job_store(struct core *core, struct job *job);
void on_report(struct core *core, struct member *m, const struct core_message *message);
void on_entered(struct core *core, struct member *m, const struct core_message *message);
void on_ready(struct core *core, struct member *m, const struct core_message *message);
void on_finished(struct core *core, struct member *m, const struct core_message *message);
void on_leave(struct core *core, struct member *m, const struct core_message *message);

/* ---- life.c ---------------------------------------------------------------------------------- */
const char *phase_word(enum core_phase phase);
void job_fail(struct core *core, struct job *job, const char *why);
void member_evict(struct core *core, struct member *m, const char *why, uint64_t detect_us);
void member_lost(struct core *core, struct member *m, const char *why, uint64_t detect_us);
void member_closed(struct core *core, struct member *m);
void life_tick(struct core *core);
void life_new_world(struct job *job, uint32_t world);
void on_peer_lost(struct core *core, struct member *m, const struct core_message *message);
void on_beat(struct core *core, struct member *m, const struct core_message *message);

/* ---- straggler.c ----------------------------------------------------------------------------- */
void straggler_beat(struct job *job, struct member *m, const struct core_message *message);
void straggler_tick(struct core *core, struct job *job);
uint32_t straggler_weight(const struct core *core, const struct member *m);
bool balance_due(const struct core *core, const struct job *job);

/* ---- barrier.c ------------------------------------------------------------------------------- */
void barrier_take_passed(struct core *core, struct job *job, const struct core_message *hello);
void on_barrier_enter(struct core *core, struct member *m, const struct core_message *message);
void barrier_leave(struct core *core, struct member *m);
void barrier_generation_ended(struct core *core, struct job *job);
void barrier_tick(struct core *core, struct job *job);
bool barrier_entered(struct core *core, struct member *m, uint64_t generation);
void barrier_plan_taken(struct core *core, struct job *job);
void barrier_decide(struct core *core, struct job *job, enum core_kind kind);
void barrier_judge_workers(struct core *core, struct job *job);
struct barrier *barrier_at(const struct core *core, const struct job *job, uint32_t slot);
/* Of workers, at all barriers. */
void barrier_end_waits(struct core *core, struct job *job, enum core_barrier_end end,
                       const char *text);
/* "'epoch-end' #1 (train.c:52)": where it waits. */
void barrier_text(const struct core *core, const struct member *m, char *text, size_t bytes);

/* ---- ledger.c -------------------------------------------------------------------------------- */
void ledger_beat(struct core *core, struct member *m, const struct core_message *message);
void ledger_tick(struct core *core, struct job *job);
/* What is known of it in the job's generation; never NULL. */
const struct ledger *ledger_of(const struct core *core, const struct job *job,
                               const struct member *m);
bool ledger_waits(const struct core *core, const struct job *job, const struct member *m);
bool ledger_waits_at_barrier(const struct core *core, const struct job *job,
                             const struct member *m);
void verdict_give(struct core *core, struct job *job, const struct verdict *verdict,
                  const char *text);
void verdict_forget(struct job *job);

/* ---- why.c ----------------------------------------------------------------------------------- */
const char *core_why(struct core *core, struct job *job);
/* "all_reduce #11 'grads' (float32 x 1000, train.c:40)" */
void ledger_call(const struct ledger *l, char *text, size_t bytes);
const char *short_place(const char *place);
/* Who is awaited by those who wait longest, and what it does; "" = nobody is. */
void ledger_awaited(const struct core *core, const struct job *job, char *text, size_t bytes);

/* ---- view.c ---------------------------------------------------------------------------------- */
uint64_t job_step(const struct core *core, const struct job *job);

/* ---- record.c -------------------------------------------------------------------------------- */
size_t record_encode(struct core *core, const struct job *job, enum pending what);
bool record_restore(struct core *core, const uint8_t *record, size_t bytes);

#endif
