/* Our structs of the control protocol, and their way to and from bytes.
 *
 * messages.proto says what each field means; here is the same in C without a trace of protobuf-c,
 * which is seen by wire.c alone. One struct wire_message holds any message with its frame header.
 *
 * Ownership: text, owned masks, rosters and lists are pointers. A decoded message points into the
 * arena and is valid until the arena is reset; who keeps something copies it (wire_message_copy()
 * copies a whole message into another arena). For encoding they may point anywhere. Text ends with
 * NUL; NULL counts as "". After decoding no pointer to text is NULL.
 *
 * Calling sequence:
 *
 *   struct wire_arena arena;                           one per thread is enough
 *   wire_arena_init(&arena, memory, WIRE_ARENA_BYTES); less memory bounds a message further
 *   wire_arena_reset(&arena);
 *   error = wire_decode(&arena, &parser.header, parser.body, &message, &fault);
 *   error = wire_encode(&arena, &message, &bytes, &length);     a whole frame, in the arena
 *
 * wire_decode() runs the lint first; nothing that it refuses reaches protobuf-c. wire_encode()
 * checks its own output with the same lint, so that what one side writes the other side accepts:
 * free text (text, reason, note, place, where, program, host, and what describes a collective) that
 * is too long is cut at a character and what is not text becomes '?'; names (job, node, barrier
 * name ..) that break a rule are an error.
 */
#ifndef PROTO_WIRE_H
#define PROTO_WIRE_H

#include "proto/frame.h"
#include "proto/lint.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_ID_BYTES          16u
#define WIRE_NAME_BYTES        64u  /* job, node, host, program, data_address, barrier name */
#define WIRE_OP_BYTES          32u  /* kind of a collective */
#define WIRE_DTYPE_BYTES       16u  /* type of its elements */
#define WIRE_PLACE_BYTES       128u /* of a barrier or collective in the program */
#define WIRE_OWNED_BYTES       128u /* mask of 1,024 shards */
#define WIRE_REASON_BYTES      256u /* reason, note, and the text of most messages */
#define WIRE_SENTENCE_BYTES    512u /* text of REFUSED, WAITING, BARRIER_RESULT, VERDICT */
#define WIRE_SPEC_BYTES        4096u
#define WIRE_FINGERPRINT_BYTES 1024u
#define WIRE_MEMBERS_MAX       1024u

/* Enough for the largest message: four times the largest body. */
#define WIRE_ARENA_BYTES (4u * FRAME_BODY_MAX_BYTES)

/* Random identity, secret, job uid or key. All zeros = none. */
typedef struct wire_id {
    uint8_t bytes[WIRE_ID_BYTES]; /* all zeros = none */
} wire_id;

enum wire_kind { WIRE_KIND_WORKER = 1, WIRE_KIND_PARTICIPANT = 2 };

enum wire_attach { WIRE_ATTACH_JOIN = 1, WIRE_ATTACH_RUNNING = 2, WIRE_ATTACH_FROZEN = 3 };

enum wire_phase {
    WIRE_PHASE_STARTUP = 1,
    WIRE_PHASE_WAITING = 2,
    WIRE_PHASE_COMPUTE = 3,
    WIRE_PHASE_EXCHANGE = 4,
    WIRE_PHASE_EVALUATE = 5,
    WIRE_PHASE_CHECKPOINT = 6,
    WIRE_PHASE_FROZEN = 7,
    WIRE_PHASE_FINISHED = 8,
};

enum wire_lost_why {
    WIRE_LOST_CLOSED = 1,
    WIRE_LOST_UNREACHABLE = 2,
    WIRE_LOST_HASH = 3,
    WIRE_LOST_STRANGER = 4,
};

enum wire_refusal {
    WIRE_REFUSAL_VERSION = 1,
    WIRE_REFUSAL_SPEC = 2,
    WIRE_REFUSAL_FINGERPRINT = 3,
    WIRE_REFUSAL_IDENTITY = 4,
    WIRE_REFUSAL_EVICTED = 5,
    WIRE_REFUSAL_FULL = 6,
    WIRE_REFUSAL_DONE = 7,
    WIRE_REFUSAL_FAILED = 8,
    WIRE_REFUSAL_PROTOCOL = 9,
    WIRE_REFUSAL_GROUP = 10,
};

enum wire_mode { WIRE_MODE_FORMED = 1, WIRE_MODE_PLAN = 2, WIRE_MODE_VIEW = 3 };

enum wire_barrier_end {
    WIRE_BARRIER_RELEASED = 1,
    WIRE_BARRIER_GENERATION = 2,
    WIRE_BARRIER_DEADLOCK = 3,
    WIRE_BARRIER_MISMATCH = 4,
    WIRE_BARRIER_FINISHED = 5,
};

enum wire_verdict_kind {
    WIRE_VERDICT_OPS = 1,
    WIRE_VERDICT_TYPES = 2,
    WIRE_VERDICT_COUNTS = 3,
    WIRE_VERDICT_NAMES = 4,
    WIRE_VERDICT_FINISHED = 5,
    WIRE_VERDICT_BATCHES = 6,
    WIRE_VERDICT_BRANCH = 7,
    WIRE_VERDICT_BARRIERS = 8,
};

struct wire_member {
    wire_id id;               /* random per process */
    const char *node;         /* identity of the host; <= WIRE_NAME_BYTES */
    const char *host;         /* its name; <= WIRE_NAME_BYTES */
    const char *data_address; /* "HOST:PORT" of the data plane; <= WIRE_NAME_BYTES */
    const uint8_t *owned; /* bit i%8 of byte i/8: it owned shard i; NULL when owned_bytes is 0 */
    uint32_t owned_bytes; /* <= WIRE_OWNED_BYTES */
    uint32_t rank;        /* in the generation told */
    uint32_t local_rank;  /* on its node */
    uint32_t pid;         /* on its host */
    uint64_t applied;     /* updates applied when it was frozen, or in its checkpoint */
    bool frozen;          /* member of the last generation that reported */
    uint32_t weight;      /* PLAN: its speed, 100 = usual; 0 is usual too */
};

struct wire_hello {
    uint32_t version_min;     /* oldest version it speaks */
    uint32_t version_max;     /* newest version it speaks */
    const char *job;          /* <= WIRE_NAME_BYTES */
    wire_id member_id;        /* random per process */
    wire_id secret;           /* proves later connections to be the same process */
    enum wire_kind kind;      /* worker or participant */
    enum wire_attach attach;  /* what it is: new, running or frozen */
    const char *node;         /* <= WIRE_NAME_BYTES */
    const char *host;         /* <= WIRE_NAME_BYTES */
    uint32_t pid;             /* on its host */
    const char *data_address; /* <= WIRE_NAME_BYTES; ":PORT": where this connection comes from */
    uint32_t min;             /* 0 = no opinion */
    uint32_t max;             /* 0 = no opinion */
    const char *spec;         /* <= WIRE_SPEC_BYTES, "key=value\n" lines, sorted */
    const char *fingerprint;  /* <= WIRE_FINGERPRINT_BYTES, the same form */
    wire_id job_uid;          /* zeros = unknown */
    uint32_t rank_hint;       /* 1 + wished rank (participant: 1 + its index), 0 = none */
    uint32_t group_size;      /* participant: size of its group */
    const struct wire_member *roster; /* re-attach: the generation's members, by rank */
    uint32_t roster_count;            /* <= WIRE_MEMBERS_MAX */
    const char *program;              /* <= WIRE_NAME_BYTES */
    uint64_t plan;                    /* newest number told, if more than the one held; else 0 */
    uint64_t applied;                 /* updates applied: memory or newest checkpoint */
    uint64_t passed;                  /* number of the newest barrier it passed in the generation */
    const char *passed_name;          /* of it; <= WIRE_NAME_BYTES */
};

struct wire_beat {
    uint64_t seq;             /* its own count, from 1 */
    enum wire_phase phase;    /* what it does in this step */
    uint64_t phase_age_ms;    /* for how long */
    float loss;               /* of the last finished step */
    float samples_per_s;      /* of the whole job, as it sees it */
    uint64_t entered;         /* newest collective entered in the generation, 0 = none */
    uint64_t left;            /* newest collective left in it */
    const char *name;         /* of the collective `at`; <= WIRE_NAME_BYTES */
    uint32_t lag_ms;          /* worst delay of the beating thread since the last beat */
    uint32_t shard_us;        /* wall time of one of its shards, 0 = not known */
    uint32_t shards;          /* that it owns in the generation of the header */
    const char *op;           /* of `at`; <= WIRE_OP_BYTES */
    const char *dtype;        /* of its elements; <= WIRE_DTYPE_BYTES */
    uint64_t count;           /* its elements */
    const char *place;        /* in the program; <= WIRE_PLACE_BYTES */
    uint64_t at;              /* oldest collective entered and not left, else the newest entered */
    uint64_t at_age_ms;       /* since it was entered, or, when it is not open, left */
    const char *where;        /* in the kernel, of a thread that stands; <= WIRE_REASON_BYTES */
    bool open;                /* `at` was entered and not left */
    uint64_t batch;           /* step that `at` belongs to, from 1; 0 = not said */
};

struct wire_report {
    uint64_t plan;        /* newest plan held, 0 = none */
    bool has_reduced;     /* holds the reduced gradient of its last step */
    const uint8_t *owned; /* as in wire_member */
    uint32_t owned_bytes; /* <= WIRE_OWNED_BYTES */
    bool entered;         /* false: a joiner before its first word */
};

struct wire_entered {
    uint64_t connect_us;   /* until connected to everybody */
    uint64_t state_us;     /* until it had the state of the step */
    uint64_t recompute_us; /* until lost sums were computed again */
};

struct wire_ready {
    uint64_t params_hash; /* of its parameters at the step of the header */
};

struct wire_peer_lost {
    wire_id member_id;      /* the peer */
    enum wire_lost_why why; /* what was seen */
    const char *text;       /* <= WIRE_REASON_BYTES */
};

struct wire_leave {
    uint32_t drain_ms; /* after that it counts as lost */
};

struct wire_goodbye {
    uint32_t exit_code; /* what the process will exit with */
    const char *text;   /* <= WIRE_REASON_BYTES */
};

struct wire_finished {
    uint64_t params_hash; /* of the last parameters */
    double test_accuracy; /* 0..1 */
};

struct wire_barrier_enter {
    const char *name;  /* <= WIRE_NAME_BYTES */
    uint64_t seq;      /* the member's own count, from 1 */
    const char *place; /* <= WIRE_PLACE_BYTES */
    uint64_t number;   /* its count in the header's generation, from 1 */
};

struct wire_welcome {
    uint32_t version;  /* chosen for this connection */
    wire_id job_uid;   /* of the job, for ever */
    uint32_t beat_ms;  /* send a BEAT so often */
    uint32_t lease_ms; /* silence after which it is lost */
    uint32_t min;      /* in force */
    uint32_t max;      /* in force */
    const char *note;  /* <= WIRE_REASON_BYTES */
    bool attached;     /* re-attached to its place in the header's generation */
};

struct wire_refused {
    enum wire_refusal why; /* kind of refusal */
    uint32_t exit_code;    /* what the process should exit with */
    const char *text;      /* <= WIRE_SENTENCE_BYTES */
};

struct wire_waiting {
    uint32_t have;     /* members that are there */
    uint32_t min;      /* members needed */
    uint32_t max;      /* members wanted */
    uint64_t since_ms; /* how long the job has been waiting */
    const char *text;  /* <= WIRE_SENTENCE_BYTES */
    bool paused;       /* members that may live are missing */
};

struct wire_generation {
    enum wire_mode mode;               /* enter now, enter by plan, or look on */
    wire_id key;                       /* members prove with it that they belong */
    const struct wire_member *members; /* by rank */
    uint32_t members_count;            /* <= WIRE_MEMBERS_MAX */
    const char *reason;                /* <= WIRE_REASON_BYTES */
    bool pause;                        /* PLAN: save and freeze at the boundary */
    uint64_t detect_us;                /* FORMED: from the silence to the verdict */
    uint64_t push_us;                  /* FORMED: until everybody was told */
    uint64_t rendezvous_us;            /* FORMED: until the new one was formed */
};

struct wire_over {
    const wire_id *lost; /* who was lost */
    uint32_t lost_count; /* <= WIRE_MEMBERS_MAX */
    const char *reason;  /* <= WIRE_REASON_BYTES */
};

struct wire_released {
    const char *reason; /* <= WIRE_REASON_BYTES */
};

struct wire_drain_request {
    const char *reason; /* <= WIRE_REASON_BYTES */
};

struct wire_done {
    uint64_t params_hash; /* of the last parameters */
    const char *text;     /* <= WIRE_REASON_BYTES */
};

struct wire_barrier_result {
    const char *name;          /* <= WIRE_NAME_BYTES */
    uint64_t seq;              /* the member's own count, as it sent it */
    enum wire_barrier_end end; /* how it ended */
    const char *text;          /* <= WIRE_SENTENCE_BYTES */
};

struct wire_beat_ack {
    uint64_t seq; /* of the beat that is answered */
};

struct wire_verdict {
    enum wire_verdict_kind kind; /* why nobody can go on */
    const char *text;            /* who waits where, for whom; <= WIRE_SENTENCE_BYTES */
};

/* Any message, with what its frame header says. body_bytes and version are set by encode and
 * decode. */
struct wire_message {
    struct frame_header header; /* type, generation, nonce, step are the sender's to fill in */
    union {
        struct wire_hello hello;
        struct wire_beat beat;
        struct wire_report report;
        struct wire_entered entered;
        struct wire_ready ready;
        struct wire_peer_lost peer_lost;
        struct wire_leave leave;
        struct wire_goodbye goodbye;
        struct wire_finished finished;
        struct wire_barrier_enter barrier_enter;
        struct wire_welcome welcome;
        struct wire_refused refused;
        struct wire_waiting waiting;
        struct wire_generation generation;
        struct wire_over over;
        struct wire_released released;
        struct wire_drain_request drain_request;
        struct wire_done done;
        struct wire_barrier_result barrier_result;
        struct wire_beat_ack beat_ack;
        struct wire_verdict verdict;
    };
};

/* Memory that is given out from the front and taken back as a whole. */
struct wire_arena {
    uint8_t *memory;       /* the caller's */
    size_t capacity_bytes; /* hard budget */
    size_t used_bytes;     /* given out since the last reset */
    size_t peak_bytes;     /* largest used_bytes since init */
};

/* X(name, sentence) */
#define WIRE_ERRORS(X)                                                                             \
    X(WIRE_OK, "no error")                                                                         \
    X(WIRE_ERROR_LINT, "the message breaks a rule of the protocol")                                \
    X(WIRE_ERROR_MEMORY, "the message needs more memory than its budget")                          \
    X(WIRE_ERROR_UNPACK, "the message cannot be unpacked")                                         \
    X(WIRE_ERROR_ENUM, "an enumeration has a value that is not known")                             \
    X(WIRE_ERROR_IDENTITY, "an identity of zeros")                                                 \
    X(WIRE_ERROR_TYPE, "there is no message of this type")                                         \
    X(WIRE_ERROR_LENGTH, "the message is longer than its type allows")

enum wire_error {
#define WIRE_ERROR_ENUM_ROW(name, sentence) name,
    WIRE_ERRORS(WIRE_ERROR_ENUM_ROW)
#undef WIRE_ERROR_ENUM_ROW
};

void wire_arena_init(struct wire_arena *arena, void *memory, size_t capacity_bytes);
void wire_arena_reset(struct wire_arena *arena);

/* Memory aligned to 8 bytes, or NULL when the budget is used up. */
void *wire_arena_take(struct wire_arena *arena, size_t bytes);

/* Body to message. On WIRE_ERROR_LINT *fault (may be NULL) says what and where. */
enum wire_error wire_decode(struct wire_arena *arena, const struct frame_header *header,
                            const uint8_t *body, struct wire_message *message,
                            struct lint_fault *fault);

/* Message to a whole frame (header and body) in the arena. The header's version is
 * FRAME_VERSION_MIN unless the sender set another one; flags and body_bytes are filled in. */
enum wire_error wire_encode(struct wire_arena *arena, const struct wire_message *message,
                            const uint8_t **frame, size_t *frame_bytes);

/* Deep copy into the arena. WIRE_OK or WIRE_ERROR_MEMORY. */
enum wire_error wire_message_copy(struct wire_arena *arena, const struct wire_message *from,
                                  struct wire_message *to);

bool wire_id_equal(const wire_id *a, const wire_id *b); /* in constant time */
bool wire_id_zero(const wire_id *id);                   /* none */

/* 32 hexadecimal digits and NUL. */
void wire_id_text(const wire_id *id, char out[2 * WIRE_ID_BYTES + 1]);

const char *wire_library_version(void);             /* protobuf-c's, for --version */
const char *wire_error_text(enum wire_error error); /* the sentence */
const char *wire_phase_name(enum wire_phase phase); /* "compute"; "?" when unknown */

#endif
