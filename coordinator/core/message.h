/* What the core and the members say to each other, as the core sees it: proto/messages.proto in C,
 * without a trace of bytes. Text and lists of incoming messages are valid during core_step(); those
 * of outgoing ones point into the core and are valid until the next core_step(). */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#define CORE_ID_BYTES    16
#define CORE_NAME_BYTES  65  /* 64 and NUL */
#define CORE_PLACE_BYTES 129
#define CORE_OP_BYTES    33
#define CORE_DTYPE_BYTES 17
#define CORE_WHERE_BYTES 257
#define CORE_OWNED_BYTES 128 /* mask of 1,024 shards */
#define CORE_SPEC_BYTES  4097
#define CORE_FINGERPRINT_BYTES 1025
#define CORE_SENTENCE_BYTES 512
#define CORE_REASON_BYTES 200
#define CORE_WORLD_MAX   1024
#define CORE_NUMBER_MAX  (UINT64_MAX / 4) /* of a generation or a step that a member may know */
#define CORE_WEIGHT_USUAL 100

typedef uint64_t core_conn; /* the shell's handle of a connection; 0 = none */

struct core_id {
    uint8_t byte[CORE_ID_BYTES];
};

/* Types, with the numbers of proto/frame.h. */
enum core_message_type {
    CORE_HELLO = 1,
    CORE_BEAT = 2,
    CORE_REPORT = 3,
    CORE_ENTERED = 4,
    CORE_READY = 5,
    CORE_PEER_LOST = 6,
    CORE_LEAVE = 7,
    CORE_GOODBYE = 8,
    CORE_FINISHED = 9,
    CORE_BARRIER_ENTER = 10,
    CORE_WELCOME = 64,
    CORE_REFUSED = 65,
    CORE_WAITING = 66,
    CORE_GENERATION = 67,
    CORE_OVER = 68,
    CORE_RELEASED = 69,
    CORE_DRAIN_REQUEST = 70,
    CORE_DONE = 71,
    CORE_BARRIER_RESULT = 72,
    CORE_BEAT_ACK = 73,
    CORE_VERDICT = 74,
};

enum core_kind { CORE_WORKER = 1, CORE_PARTICIPANT = 2 };
enum core_attach { CORE_ATTACH_JOIN = 1, CORE_ATTACH_RUNNING = 2, CORE_ATTACH_FROZEN = 3 };

enum core_phase {
    CORE_PHASE_STARTUP = 1,
    CORE_PHASE_WAITING = 2,
    CORE_PHASE_COMPUTE = 3,
    CORE_PHASE_EXCHANGE = 4,
    CORE_PHASE_EVALUATE = 5,
    CORE_PHASE_CHECKPOINT = 6,
    CORE_PHASE_FROZEN = 7,
    CORE_PHASE_FINISHED = 8,
};

enum core_lost_why {
    CORE_LOST_CLOSED = 1,
    CORE_LOST_UNREACHABLE = 2,
    CORE_LOST_HASH = 3,
    CORE_LOST_STRANGER = 4,
};

/* X(name, number, exit code) */
#define CORE_REFUSALS(X)                                                                           \
    X(VERSION, 1, 77)                                                                              \
    X(SPEC, 2, 77)                                                                                 \
    X(FINGERPRINT, 3, 77)                                                                          \
    X(IDENTITY, 4, 77)                                                                             \
    X(EVICTED, 5, 75)                                                                              \
    X(FULL, 6, 69)                                                                                 \
    X(DONE, 7, 0)                                                                                  \
    X(FAILED, 8, 77)                                                                               \
    X(PROTOCOL, 9, 77)                                                                             \
    X(GROUP, 10, 77)

enum core_refusal {
#define CORE_REFUSAL_ENUM(name, number, code) CORE_REFUSAL_##name = (number),
    CORE_REFUSALS(CORE_REFUSAL_ENUM)
#undef CORE_REFUSAL_ENUM
};

enum core_mode { CORE_FORMED = 1, CORE_PLAN = 2, CORE_VIEW = 3 };

enum core_barrier_end {
    CORE_BARRIER_RELEASED = 1,
    CORE_BARRIER_GENERATION = 2,
    CORE_BARRIER_DEADLOCK = 3,
    CORE_BARRIER_MISMATCH = 4,
    CORE_BARRIER_FINISHED = 5,
};

/* One member of a generation as everybody sees it. */
struct core_roster_member {
    struct core_id id;
    const char *node, *host, *data_address;
    const uint8_t *owned;     /* mask of shards, NULL when owned_bytes is 0 */
    uint32_t owned_bytes;
    uint32_t rank, local_rank, pid;
    uint64_t applied;         /* updates */
    bool frozen;
    uint32_t weight;          /* PLAN: its speed, CORE_WEIGHT_USUAL = usual; 0 is usual too */
};

struct core_hello {
    uint32_t version_min, version_max;
    const char *job;
    struct core_id member_id;
    struct core_id secret;    /* a digest of it: the shell never hands over the secret itself */
    enum core_kind kind;
    enum core_attach attach;
    const char *node, *host, *data_address, *spec, *fingerprint, *program;
    uint32_t pid;
    uint32_t min, max;        /* 0 = no opinion */
    struct core_id job_uid;   /* zeros = unknown */
    uint32_t rank_hint;       /* 1 + wished rank or index; 0 = none */
    uint32_t group_size;      /* participant */
    const struct core_roster_member *roster;
    uint32_t roster_count;
    uint64_t plan, applied;
    uint64_t passed;          /* newest barrier it passed in the generation: number, 0 = none */
    const char *passed_name;
};

struct core_beat {
    uint64_t seq, phase_age_ms;
    enum core_phase phase;
    float loss, samples_per_s;
    uint32_t lag_ms;
    uint32_t shard_us;        /* wall time of one of its shards; 0 = none was measured */
    uint32_t shards;          /* that it owns */
    /* ledger, of the generation of the header */
    uint64_t entered, left;   /* newest collective entered, and left */
    uint64_t at, at_age_ms;   /* the one described: oldest that is open, else the newest entered */
    bool open;                /* `at` was entered and not left */
    const char *op, *name, *dtype, *place;
    uint64_t count, batch;
    const char *where;        /* in the kernel, of a thread that stands */
};

struct core_report {
    uint64_t plan;
    bool has_reduced, entered;
    const uint8_t *owned;
    uint32_t owned_bytes;
};

struct core_entered {
    uint64_t connect_us, state_us, recompute_us;
};

struct core_peer_lost {
    struct core_id member_id;
    enum core_lost_why why;
    const char *text;
};

struct core_barrier_enter {
    const char *name, *place;
    uint64_t seq, number;     /* own count; count in the generation */
};

struct core_welcome {
    uint32_t version;
    struct core_id job_uid;
    uint32_t beat_ms, lease_ms, min, max;
    const char *note;
    bool attached;
};

struct core_refused {
    enum core_refusal why;
    uint32_t exit_code;
    const char *text;
};

struct core_waiting {
    uint32_t have, min, max;
    uint64_t since_ms;
    const char *text;
    bool paused;
};

struct core_generation {
    enum core_mode mode;
    struct core_id key;
    const struct core_roster_member *members;
    uint32_t members_count;
    const char *reason;
    bool pause;
    uint64_t detect_us, push_us, rendezvous_us;
};

struct core_over {
    const struct core_id *lost;
    uint32_t lost_count;
    const char *reason;
};

struct core_barrier_result {
    const char *name, *text;
    uint64_t seq;
    enum core_barrier_end end;
};

/* Why nobody of a generation can go on: X(NAME, number, words). */
#define CORE_VERDICTS(X)                                                                           \
    X(OPS, 1, "different collectives")                                                             \
    X(TYPES, 2, "different types")                                                                 \
    X(COUNTS, 3, "different counts")                                                               \
    X(NAMES, 4, "different names")                                                                 \
    X(FINISHED, 5, "one has finished while others wait")                                           \
    X(BATCHES, 6, "unequal batches")                                                               \
    X(BRANCH, 7, "a barrier in one branch only")                                                   \
    X(BARRIERS, 8, "different barriers")

enum core_verdict_kind {
    CORE_VERDICT_NONE,
#define CORE_VERDICT_ENUM(name, number, words) CORE_VERDICT_##name = (number),
    CORE_VERDICTS(CORE_VERDICT_ENUM)
#undef CORE_VERDICT_ENUM
};

/* Any message; generation, nonce and step are the frame header's. */
struct core_message {
    enum core_message_type type;
    uint64_t generation, nonce, step;
    union {
        struct core_hello hello;
        struct core_beat beat;
        struct core_report report;
        struct core_entered entered;
        struct { uint64_t params_hash; } ready;
        struct core_peer_lost peer_lost;
        struct { uint32_t drain_ms; } leave;
        struct { uint32_t exit_code; const char *text; } goodbye;
        struct { uint64_t params_hash; double test_accuracy; } finished;
        struct core_barrier_enter barrier_enter;
        struct core_welcome welcome;
        struct core_refused refused;
        struct core_waiting waiting;
        struct core_generation roster;
        struct core_over over;
        struct { const char *reason; } released; /* and drain_request */
        struct { uint64_t params_hash; const char *text; } done;
        struct core_barrier_result barrier_result;
        struct { uint64_t seq; } beat_ack;
        struct { enum core_verdict_kind kind; const char *text; } verdict;
    };
};

#endif
