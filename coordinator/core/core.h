/* The coordinator's brain: a pure step machine over jobs, members, generations and barriers.
 *
 * core_step(core, event, actions): an event with its time and fresh randomness goes in, actions
 * come out. No I/O, no clock, no allocation, no libuv, no protobuf. The daemon (coordinator/server)
 * and the simulator (tests/sim) drive this same code. Rules, states and invariants:
 * coordinator/DESIGN.md.
 *
 * Calling sequence
 *
 *     memory = aligned memory of core_size(&limits) bytes
 *     core_init(memory, &limits, &times, now_us) -> core
 *     core_step(core, &(struct core_event){.type = CORE_EVENT_RESTORE, ..record of a job..}) each
 *     stored job core_step(core, TICK | OPENED | CLOSED | MESSAGE | STORED | .., &actions), again
 *     and again
 *         carry out actions.list[0..count) in order, before the next event
 *
 * What is promised is stored first: a STORE action is answered by STORED or STORE_FAILED with its
 * lsn, and only then do the messages that depend on it come out. All pointers in actions are valid
 * until the next core_step(). Connections are the shell's numbers; the core never sees one again
 * after CLOSED. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include "core/message.h"

#include <stddef.h>

#define CORE_ACTIONS_MAX 64

struct core;

struct core_limits {
    uint32_t jobs;      /* at a time */
    uint32_t members;   /* sessions of all jobs together */
    uint32_t barriers;  /* names waited at, per job */
};

/* When the members of a generation wait for each other for ever. */
enum core_on_deadlock {
    CORE_ON_DEADLOCK_REPORT, /* it is said, and barriers are given up */
    CORE_ON_DEADLOCK_ABORT,  /* and the job has failed */
    CORE_ON_DEADLOCK_EVICT,  /* and the minority is out; the others regroup */
};

struct core_times {
    uint32_t beat_ms;         /* how often members beat; 500 */
    uint32_t suspect_beats;   /* missed until suspect; 3 */
    uint32_t lost_beats;      /* missed until lost; 5 */
    uint32_t quiet_ms;        /* at min members: form when nobody has come for so long; 2000 */
    uint32_t probe_ms;        /* between probes of a missing member's address; 1000 */
    uint32_t reconnect_ms;    /* longest pause of a client between attempts; 5000 */
    uint32_t startup_ms;      /* limit of start-up, evaluation and checkpoint; 120000 */
    uint32_t stalled_ms;      /* least limit of a step; 5000 */
    uint32_t stalled_steps;   /* and so many times the job's own step time; 20 */
    uint32_t report_ms;       /* until a member that owes its report is lost; 10000 */
    uint32_t pair_ms;         /* two data plane failures within this: one of the pair goes; 30000 */
    uint32_t waiting_ms;      /* least time between WAITING messages; 250 */
    uint32_t store_retry_ms;  /* after a failed store; 500 */
    uint32_t cooldown_losses; /* of one node within cooldown_ms: its newcomers wait that long; 3 */
    uint32_t cooldown_ms;     /* 60000 */
    uint32_t restart_budget;  /* generations lost without any progress until the job fails; 64 */
    uint32_t straggler_steps; /* a member is slow for so many steps until it is a straggler; 20 */
    uint32_t straggler_ms;    /* and so long; 2000 */
    uint32_t settle_ms;       /* from a new generation to a plan that spreads its shards; 2000 */
    uint32_t balance_ms;      /* least time between two such plans; 10000 */
    bool rebalance;           /* stragglers get fewer shards; false */
    enum core_on_deadlock on_deadlock; /* what follows when nobody can go on */
};

enum core_event_type {
    CORE_EVENT_TICK,
    CORE_EVENT_OPENED,       /* conn */
    CORE_EVENT_CLOSED,       /* conn */
    CORE_EVENT_MESSAGE,      /* conn, message */
    CORE_EVENT_STORED,       /* lsn */
    CORE_EVENT_STORE_FAILED, /* lsn */
    CORE_EVENT_RESTORE,      /* record, record_bytes: before everything else */
    CORE_EVENT_PROBED,       /* probe, gone */
    CORE_EVENT_COMMAND,      /* command, job, target, ticket */
};

enum core_command { CORE_COMMAND_DRAIN, CORE_COMMAND_FORGET, CORE_COMMAND_WHY };

struct core_event {
    enum core_event_type type;
    uint64_t now_us;                    /* monotonic, never falls */
    uint64_t random[4];                 /* fresh */
    core_conn conn;
    const struct core_message *message;
    uint64_t lsn;
    const uint8_t *record;
    size_t record_bytes;
    uint64_t probe;                     /* as in the PROBE action */
    bool gone;                          /* the address refuses: the process is gone */
    enum core_command command;
    const char *job, *target;           /* of the command */
    uint64_t ticket;                    /* of the command */
};

enum core_action_type {
    CORE_ACTION_SEND,   /* message to conns[0..conn_count) */
    CORE_ACTION_ADMIT,  /* conns[0] is a member now */
    CORE_ACTION_CLOSE,  /* conns[0], after what was sent */
    CORE_ACTION_STORE,  /* lsn, text = job, record */
    CORE_ACTION_PROBE,  /* probe, text = address */
    CORE_ACTION_LOG,    /* level, text = sentence, job */
    CORE_ACTION_ANSWER, /* ticket, ok, text */
};

enum core_level { CORE_INFO, CORE_WARNING, CORE_ERROR };

struct core_action {
    enum core_action_type type;
    const core_conn *conns;
    uint32_t conn_count;
    struct core_message message;
    uint64_t lsn;
    const uint8_t *record;
    size_t record_bytes;
    uint64_t probe;
    enum core_level level;
    const char *job;
    const char *text;
    uint64_t ticket;
    bool ok;
};

struct core_actions {
    struct core_action list[CORE_ACTIONS_MAX];
    uint32_t count;
};

void core_limits_default(struct core_limits *limits);
void core_times_default(struct core_times *times);
size_t core_size(const struct core_limits *limits);

/* memory: aligned to 16 bytes. */
struct core *core_init(void *memory, const struct core_limits *limits,
                       const struct core_times *times, uint64_t now_us);
void core_step(struct core *core, const struct core_event *event, struct core_actions *actions);

/* 0, or the number of the first broken invariant of DESIGN.md with its sentence. O(members). */
int core_check(const struct core *core, const char **sentence);

/* Equal for equal histories. O(members). */
uint64_t core_hash(const struct core *core);

/* ---- read-only views, for status ------------------------------------------------------------- */

/* X(name, word) */
#define CORE_JOB_STATES(X)                                                                         \
    X(FORMING, "forming")                                                                          \
    X(RUNNING, "running")                                                                          \
    X(REGROUPING, "regrouping")                                                                    \
    X(PAUSED, "paused")                                                                            \
    X(DONE, "done")                                                                                \
    X(FAILED, "failed")

enum core_job_state {
#define CORE_JOB_STATE_ENUM(name, word) CORE_JOB_##name,
    CORE_JOB_STATES(CORE_JOB_STATE_ENUM)
#undef CORE_JOB_STATE_ENUM
};

/* The phases of a recovery, in their order: X(NAME, word). */
#define CORE_RECOVERY_PHASES(X)                                                                    \
    X(DETECT, "detect")         /* silence until it was noticed */                                 \
    X(PUSH, "push")             /* until all survivors had been told and had stopped */            \
    X(RENDEZVOUS, "rendezvous") /* from there until the next generation was formed */              \
    X(CONNECT, "connect")       /* until the slowest member was connected to all */                \
    X(STATE, "state")           /* until the slowest that lacked the state had it */               \
    X(RECOMPUTE, "recompute")   /* until the slowest had computed its lost shards again */

enum core_recovery_phase {
#define CORE_RECOVERY_ENUM(name, word) CORE_RECOVERY_##name,
    CORE_RECOVERY_PHASES(CORE_RECOVERY_ENUM)
#undef CORE_RECOVERY_ENUM
    CORE_RECOVERY_COUNT
};

/* Upper bounds of a histogram's buckets, in microseconds. */
#define CORE_BUCKETS 12
extern const uint64_t core_bucket_us[CORE_BUCKETS];

struct core_histogram {
    uint64_t buckets[CORE_BUCKETS]; /* durations above bound i - 1, up to bound i */
    uint64_t count, sum_us;         /* of all, the longer ones too */
};

/* A recovery that is over: the next generation was formed and everybody has computed again. */
struct core_recovery {
    uint64_t ago_ms;                      /* since it was over */
    uint64_t generation;                  /* that was formed */
    uint64_t phase_us[CORE_RECOVERY_COUNT];
    char reason[CORE_REASON_BYTES];       /* what it was formed after */
};

#define CORE_RECOVERIES_KEPT 4

struct core_job_view {
    const char *name;
    const char *state;         /* word */
    const char *reason;        /* of the last change */
    struct core_id uid;
    uint64_t generation;
    uint64_t step;             /* updates applied, as members say */
    uint32_t world, min, max;
    uint32_t members;          /* of the generation, and connected */
    float loss, samples_per_s; /* as rank 0 told them last */
    uint64_t recoveries;       /* regroups after a loss */
    const uint64_t *last_us;   /* the last one, by phase */
    const struct core_histogram *histograms; /* of all since the coordinator's start, by phase */
    struct core_recovery recent[CORE_RECOVERIES_KEPT]; /* the newest first */
    uint32_t recent_count;
    uint64_t waiting_since_ms; /* how long it has been forming or paused; 0 = it is not */
    char waits_for[CORE_SENTENCE_BYTES]; /* members, reports ..; "" = for nothing */
    bool store_failing;
    const char *verdict;       /* why nobody can go on; "" = as far as is known they can */
    uint64_t verdicts;         /* so far */
    char awaited[CORE_SENTENCE_BYTES]; /* who is waited for in a collective, and what it does */
};

struct core_member_view {
    const char *node, *host, *data_address;
    const char *state;         /* running, straggler, spare, suspect, lost, frozen, leaving .. */
    uint32_t rank;             /* UINT32_MAX = none */
    uint32_t pid;
    uint64_t step;
    uint64_t silent_ms;        /* since its last sign of life */
    const char *waits_at;      /* barrier, "" = none */
    uint32_t shards;           /* that it owns */
    uint32_t shard_us;         /* that one takes it; 0 = it does not say */
    bool in_generation;
    bool straggler;            /* whatever else its state is */
    bool participant;
};

/* index from 0 until false. */
bool core_view_job(const struct core *core, uint32_t index, struct core_job_view *view);
bool core_view_member(const struct core *core, uint32_t job, uint32_t index,
                      struct core_member_view *view);

#endif
