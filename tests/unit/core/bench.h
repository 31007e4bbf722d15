/* A core on a bench: connections are numbers, members beat by themselves, the store answers at once
 * unless it is held, and everything that members are told is kept until it is asked for.
 * core_check() runs after every step. */
#ifndef UNIT_CORE_BENCH_H
#define UNIT_CORE_BENCH_H

#include "core/core.h"

#define BENCH_HEARD   2048u
#define BENCH_MEMBERS 100u
#define BENCH_STORES  16u
#define BENCH_LINES   256u

/* One message as one member heard it; copied, since the core's own does not outlive the step. */
struct bench_heard {
    core_conn conn;
    enum core_message_type type;
    uint64_t generation, nonce, step;
    enum core_mode mode;           /* GENERATION */
    uint32_t world;                /* GENERATION: members told */
    uint32_t rank;                 /* GENERATION: its own, UINT32_MAX = it is not in */
    uint32_t code;                 /* REFUSED: exit code; BARRIER_RESULT: its end; VERDICT: kind */
    uint64_t seq;                  /* BARRIER_RESULT */
    bool pause, attached;          /* GENERATION; WELCOME */
    uint32_t weights[8];           /* GENERATION: by rank, of the first few */
    char text[CORE_SENTENCE_BYTES];
};

struct bench_member {
    uint32_t number;               /* of its identity; 0 = nobody has this connection */
    bool silent;                   /* does not beat */
    enum core_phase phase;         /* told with its beats */
    uint64_t phase_us;             /* since when it has been in it; 0 = since the beat */
    uint64_t step;                 /* told with its beats */
    uint64_t generation;           /* that it entered; told with its beats */
    uint32_t steps;                /* that it does from one beat to the next */
    uint32_t shard_us, shards;     /* told with its beats */
    struct core_beat ledger;       /* told with its beats, what they say of collectives */
    uint64_t ledger_us;            /* since when it is there */
};

/* What the next member says in its HELLO. */
struct bench_hello {
    const char *node;
    const char *job;               /* NULL = "mnist" */
    uint32_t number, secret;       /* identity; 0 = taken from the connection */
    uint32_t min, max, hint;
    enum core_attach attach;       /* 0 = JOIN */
    uint64_t generation, nonce, plan, applied;
    const char *spec, *fingerprint;
    uint32_t participant, of;      /* participant `participant` of `of`; of = 0: a worker */
    const struct core_roster_member *roster;
    uint32_t roster_count;
    uint64_t passed;               /* number of the newest barrier it passed */
    const char *passed_name;
};

struct bench {
    struct core_limits limits;
    struct core_times times;
    void *memory;
    struct core *core;
    struct core_actions actions;   /* of the last step */
    uint64_t now_us, draws;
    core_conn last;                /* newest connection */
    struct bench_member members[BENCH_MEMBERS]; /* by connection */
    struct bench_heard heard[BENCH_HEARD];
    uint32_t heard_count;
    char lines[BENCH_LINES][CORE_SENTENCE_BYTES]; /* of the log */
    uint32_t line_count;           /* of all; the newest BENCH_LINES are kept */
    bool hold_store;               /* the store does not answer */
    uint64_t held[BENCH_STORES];   /* lsns that wait */
    uint32_t held_count;
    uint64_t probes[BENCH_STORES]; /* asked for in the last step */
    uint32_t probe_count;
    uint64_t closed;               /* bits of connections that the core closed, of the first 64 */
    uint8_t record[512 * 1024];    /* newest that was stored */
    size_t record_bytes;
};

struct bench *bench_new(void);
/* Begins again, with b->times as they are now. */
void bench_take_times(struct bench *b);
void bench_free(struct bench *b);
/* The coordinator's process ends and begins again with the newest record. */
void bench_restart(struct bench *b);

core_conn bench_hello(struct bench *b, struct bench_hello hello);
/* A worker of `node`, min and max as given. */
core_conn bench_join(struct bench *b, const char *node, uint32_t min, uint32_t max);
void bench_end(struct bench *b, core_conn conn);
void bench_say(struct bench *b, core_conn conn, struct core_message message);
void bench_entered(struct bench *b, core_conn conn, uint64_t generation, uint64_t step);
void bench_report(struct bench *b, core_conn conn, uint64_t generation, uint64_t step);
void bench_ready(struct bench *b, core_conn conn, uint64_t generation, uint64_t step);
void bench_barrier(struct bench *b, core_conn conn, const char *name, uint64_t seq);
void bench_beat(struct bench *b, core_conn conn); /* one more than those of bench_wait_ms() */
/* Time goes on in ticks; everybody who is not silent beats every half second. */
void bench_wait_ms(struct bench *b, uint32_t ms);
void bench_tick(struct bench *b);
void bench_probed(struct bench *b, uint64_t probe, bool gone);
void bench_store_answers(struct bench *b, bool fails);
const char *bench_command(struct bench *b, enum core_command command, const char *target);

/* The newest message of this type that the connection heard; NULL if it heard none. */
const struct bench_heard *bench_told(const struct bench *b, core_conn conn,
                                     enum core_message_type type);
uint32_t bench_times_told(const struct bench *b, core_conn conn, enum core_message_type type);
/* How many lines of the log, of those that are kept, have these words in them; the newest of them,
 * "" = there is none. */
uint32_t bench_times_logged(const struct bench *b, const char *words);
const char *bench_logged(const struct bench *b, const char *words);
struct core_job_view bench_job(const struct bench *b);
/* State of the member of this connection's identity as status shows it, by its pid; "" = it is not
 * there. */
const char *bench_state(const struct bench *b, uint32_t number);
/* A job of `count` workers on nodes n1, n2 .. that all have entered generation 1; connections 1 ..
 * count. */
void bench_running(struct bench *b, uint32_t count, uint32_t min, uint32_t max);

#endif
