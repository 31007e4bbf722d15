/* libmuster: take part in a Muster job from any C or C++ program.
 *
 * A member opens a session with the coordinator, waits until enough members are there, gets a rank
 * in a numbered generation, and is told when that generation is over. A thread of the library's own
 * keeps the connection, beats and re-attaches, so that none of it depends on how often the program
 * calls.
 *
 *   struct muster_options options;
 *   struct muster_error error;
 *   struct muster *m = NULL;
 *   struct muster_event *event = NULL;
 *
 *   muster_options_init(&options);
 *   options.coordinator = "127.0.0.1:7070";
 *   options.job = "demo";
 *   options.min = options.max = 2;
 *   if (muster_open(&options, &m, &error) != MUSTER_OK)
 *       return error.exit_code;                          error.text is a sentence
 *   while (!done && muster_next(m, -1, &event) == MUSTER_OK) {
 *       switch (event->type) {
 *       case MUSTER_FORMED:      event->members, event->self: connect to the others, then
 *           position.generation = event->generation;
 *           position.nonce = event->nonce;
 *           muster_entered(m, &position, NULL);
 *           break;
 *       case MUSTER_OVER:        somebody was lost: stop exchanging, then
 *           muster_report(m, &position, &report);        the next MUSTER_FORMED follows
 *           break;
 *       case MUSTER_ENDED:       refused or unreachable: event->exit_code, event->text
 *           done = true;
 *           break;
 *       ...
 *       }
 *       muster_event_free(event);
 *   }
 *   muster_goodbye(m, 0, "", 2000);
 *   muster_close(m);
 *
 * Promises to the host program: no call exits, prints, installs a signal handler, raises SIGPIPE or
 * changes the process in any other way. All signals are blocked in the library's thread. Every
 * function may be called from any thread, at the same time; muster_close() only once and last.
 * Functions that say something (entered, report, leave ..) only queue it and never wait; it is said
 * again after a broken connection as long as it still holds. Only functions with a timeout_ms may
 * block (-1 = without end, 0 = not at all).
 *
 * Ownership: options are copied by muster_open(). An event belongs to the caller and is one block,
 * freed by muster_event_free(); what it points to lies in it.
 */
#ifndef MUSTER_H
#define MUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MUSTER_VERSION    "0.1.0"
#define MUSTER_ID_BYTES   16
#define MUSTER_TEXT_BYTES 600 /* of a sentence with its NUL */
#define MUSTER_NOBODY     UINT32_MAX

/* X(name, exit code, sentence) */
#define MUSTER_STATUSES(X)                                                                         \
    X(MUSTER_OK, 0, "no error")                                                                    \
    X(MUSTER_ERROR_TIMEOUT, 75, "the time is over")                                                \
    X(MUSTER_ERROR_USAGE, 64, "an argument is wrong")                                              \
    X(MUSTER_ERROR_UNAVAILABLE, 69, "the coordinator cannot be reached")                           \
    X(MUSTER_ERROR_REFUSED, 77, "the coordinator refused")                                         \
    X(MUSTER_ERROR_SYSTEM, 69, "the system refused something that is needed")                      \
    X(MUSTER_ERROR_ENDED, 75, "the session has ended")                                             \
    X(MUSTER_ERROR_BUSY, 64, "one barrier at a time")                                              \
    X(MUSTER_ERROR_BARRIER, 77, "the barrier was not passed")

enum muster_status {
#define MUSTER_STATUS_ENUM(name, exit_code, sentence) name,
    MUSTER_STATUSES(MUSTER_STATUS_ENUM)
#undef MUSTER_STATUS_ENUM
};

struct muster_error {
    enum muster_status status;    /* what kind of error */
    int exit_code;                /* what a program that gives up should exit with */
    char text[MUSTER_TEXT_BYTES]; /* a sentence for people */
};

enum muster_kind {
    MUSTER_WORKER = 1,      /* gets ranks and generations */
    MUSTER_PARTICIPANT = 2, /* takes part in named barriers only */
};

typedef void (*muster_wake_cb)(void *context);
typedef void (*muster_ended_cb)(void *context, int exit_code);

struct muster_options {
    const char *coordinator;  /* "HOST:PORT", "[IPV6]:PORT"; a name may have several addresses */
    const char *job;          /* 1..64 bytes */
    enum muster_kind kind;    /* default MUSTER_WORKER */
    const char *node;         /* identity of the host; NULL = its name */
    const char *data_address; /* of the data plane; ":PORT" = at the address the coordinator sees */
    const char *program;      /* "my-program 1.0" */
    const char *spec; /* what defines the result: "key=value\n" lines, sorted; equal on all */
    const char *fingerprint; /* the same form: what else must be equal on all */
    uint32_t min;            /* members needed; 0 = no opinion. The first joiner's stand */
    uint32_t max;            /* members wanted; 0 = no opinion */
    uint32_t rank_hint;      /* wished rank; participant: its index; MUSTER_NOBODY = none */
    uint32_t group_size;     /* participant: size of its group */
    uint8_t member_id[MUSTER_ID_BYTES]; /* zeros = random */
    uint8_t job_uid[MUSTER_ID_BYTES];   /* from a manifest; zeros = unknown */
    uint64_t known_generation;          /* from a manifest; 0 = none */
    uint64_t known_applied;             /* updates applied in the newest checkpoint */
    uint32_t refresh_ms; /* a promise: muster_progress() is called at least so often in the phase
                            EXCHANGE. One that waits for others so and breaks it (four times as
                            long; a terminal that takes no output is a reason, too) hangs, and
                            counts as what they wait for. 0, the default: nothing is promised */
    uint32_t connect_timeout_ms; /* give up when not admitted by then; 0 = never. Default 60000 */
    muster_wake_cb wake_cb; /* called on the library's thread when an event was queued; may be NULL;
                               must not block nor call the library */
    void *wake_context;     /* its argument, and that of the next */
    muster_ended_cb ended_cb; /* the same when MUSTER_ENDED was queued: for a program that wants to
                                 end even though the thread that takes its events hangs */
};

struct muster_member {
    uint8_t id[MUSTER_ID_BYTES]; /* random per process */
    const char *node;            /* identity of its host */
    const char *host;            /* name of its host */
    const char *data_address;    /* "HOST:PORT" of its data plane */
    const uint8_t *owned;        /* bit i of byte i/8: owned shard i in the generation that ended */
    uint32_t owned_bytes;        /* length of the mask */
    uint32_t rank;               /* in the generation told */
    uint32_t local_rank;         /* on its node */
    uint32_t pid;                /* on its host */
    uint64_t applied;            /* updates applied when it froze, or known from its checkpoint */
    bool frozen;                 /* member of the last generation, reported */
    uint32_t weight;             /* PLAN: its speed beside the others', 100 = usual, and so is 0 */
};

/* X(name, word): the kinds of event */
#define MUSTER_EVENTS(X)                                                                           \
    X(MUSTER_UP, "up")             /* admitted, or attached again (attached) */                    \
    X(MUSTER_DOWN, "down")         /* connection lost; being made anew; go on */                   \
    X(MUSTER_WAITING, "waiting")   /* what a member that waits can tell its user */                \
    X(MUSTER_FORMED, "formed")     /* enter this generation now */                                 \
    X(MUSTER_PLAN, "plan")         /* enter it after the first step in which all hold it */        \
    X(MUSTER_VIEW, "view")         /* a spare: these train now, catch up beside them */            \
    X(MUSTER_OVER, "over")         /* the generation is over: freeze, report */                    \
    X(MUSTER_RELEASED, "released") /* a leaver may go */                                           \
    X(MUSTER_DRAIN, "drain")       /* the operator asks it to leave */                             \
    X(MUSTER_DONE, "done")         /* the job is done and recorded */                              \
    X(MUSTER_BARRIER, "barrier")   /* how a barrier ended */                                       \
    X(MUSTER_VERDICT, "verdict")   /* the members wait for each other for ever: text says why */   \
    X(MUSTER_ENDED, "ended")       /* nothing more comes */

enum muster_event_type {
#define MUSTER_EVENT_ENUM(name, word) name,
    MUSTER_EVENTS(MUSTER_EVENT_ENUM)
#undef MUSTER_EVENT_ENUM
};

enum muster_barrier_end {
    MUSTER_BARRIER_RELEASED = 1,
    MUSTER_BARRIER_GENERATION = 2, /* the generation ended: enter again */
    MUSTER_BARRIER_DEADLOCK = 3,
    MUSTER_BARRIER_MISMATCH = 4,
    MUSTER_BARRIER_FINISHED = 5, /* somebody finished or left while others wait */
};

/* Why the members of a generation can never go on by themselves. */
enum muster_verdict {
    MUSTER_VERDICT_OPS = 1,      /* the same sequence number, different collectives */
    MUSTER_VERDICT_TYPES = 2,    /* .. different types */
    MUSTER_VERDICT_COUNTS = 3,   /* .. different numbers of elements */
    MUSTER_VERDICT_NAMES = 4,    /* .. different names */
    MUSTER_VERDICT_FINISHED = 5, /* one has finished while others wait for it */
    MUSTER_VERDICT_BATCHES = 6,  /* one has more batches than another */
    MUSTER_VERDICT_BRANCH = 7,   /* a barrier that only some come to: others are in a collective */
    MUSTER_VERDICT_BARRIERS = 8, /* different barriers */
};

struct muster_event {
    enum muster_event_type type;         /* decides which of the fields below are set */
    uint64_t generation;                 /* FORMED, PLAN, VIEW, OVER, DONE: its number */
    uint64_t nonce;                      /* of that generation */
    uint64_t step;                       /* FORMED: updates applied when it begins */
    const char *text;                    /* reason or sentence; never NULL */
    const struct muster_member *members; /* FORMED, PLAN, VIEW: by rank */
    uint32_t member_count;               /* length of members */
    uint32_t self;                /* FORMED, PLAN: own rank; MUSTER_NOBODY when not among them */
    uint8_t key[MUSTER_ID_BYTES]; /* FORMED, PLAN, VIEW: shared by the members */
    bool pause;                   /* PLAN: at the boundary all save and freeze */
    uint64_t detect_us, push_us, rendezvous_us; /* FORMED: phase times of the recovery */
    const uint8_t (*lost)[MUSTER_ID_BYTES];     /* OVER */
    uint32_t lost_count;                        /* length of lost */
    uint32_t have, min, max;                    /* WAITING (all), UP (min, max in force) */
    uint64_t since_ms;                          /* WAITING */
    bool paused;                                /* WAITING */
    bool attached;                              /* UP: re-attached to its place */
    uint8_t job_uid[MUSTER_ID_BYTES];           /* UP */
    uint64_t params_hash;                       /* DONE */
    enum muster_barrier_end barrier_end;        /* BARRIER */
    uint64_t barrier_seq;                       /* BARRIER */
    enum muster_verdict verdict;                /* VERDICT: its kind */
    enum muster_status status;                  /* ENDED: MUSTER_OK after goodbye, else why */
    uint32_t refusal; /* ENDED with MUSTER_ERROR_REFUSED: Refusal of messages.proto */
    int exit_code;    /* ENDED */
};

struct muster_position {
    uint64_t generation; /* number, 0 = in none */
    uint64_t nonce;      /* of that generation */
    uint64_t step;       /* updates applied */
};

enum muster_phase {
    MUSTER_PHASE_STARTUP = 1,
    MUSTER_PHASE_WAITING = 2,
    MUSTER_PHASE_COMPUTE = 3,  /* owes something others wait for */
    MUSTER_PHASE_EXCHANGE = 4, /* waits for others */
    MUSTER_PHASE_EVALUATE = 5,
    MUSTER_PHASE_CHECKPOINT = 6,
    MUSTER_PHASE_FROZEN = 7,
    MUSTER_PHASE_FINISHED = 8,
};

struct muster_progress {
    enum muster_phase phase;  /* what it does in this step */
    uint32_t part;            /* shards done, say: while it changes the phase is not overdue */
    uint64_t applied;         /* updates applied */
    float loss;               /* of the last finished step */
    float samples_per_s;      /* of the whole job */
    uint32_t shard_us;        /* wall time of one shard of work here, 0 = not measured: who takes
                                 much longer than the others is named a straggler */
    uint32_t shards;          /* shards it owns in its generation; 0 for all: there are none */
    uint32_t thread; /* whose stack `muster why` shows when nothing moves: the kernel's number; 0 =
                        the calling one, which it also is when that one says nothing for long */
};

/* A collective operation, whatever carries it (NCCL, TCP ..). The coordinator compares what the
 * members of a generation say of the same sequence number: op, dtype, count and name must be equal.
 * Texts are copied, and cut where they are too long; NULL counts as "". */
struct muster_collective {
    const char *op;    /* "all_reduce"; at most 32 bytes */
    const char *name;  /* what is exchanged: "grads bucket 2"; at most 64 bytes */
    const char *dtype; /* of an element: "float32"; at most 16 bytes */
    uint64_t count;    /* elements */
    const char *place; /* in the program, for people: MUSTER_PLACE; at most 128 bytes */
    uint64_t step;     /* batch that it belongs to, counted from 1; 0 = not said */
    uint64_t seq;      /* its number, the same on all members, growing; 0 = the next of the
                          session's own count, which begins with 1 in each generation */
};

/* "train.c:40" of where it stands. */
#define MUSTER_PLACE            __FILE__ ":" MUSTER_PLACE_TEXT(__LINE__)
#define MUSTER_PLACE_TEXT(line) MUSTER_PLACE_LINE(line)
#define MUSTER_PLACE_LINE(line) #line

struct muster_report {
    uint64_t plan;        /* newest plan held, 0 = none */
    bool has_reduced;     /* holds the reduced gradient of its last step */
    const uint8_t *owned; /* as in muster_member */
    uint32_t owned_bytes; /* length of the mask, at most 128 */
    bool entered;         /* false: a joiner before its first word */
};

struct muster_times {
    uint64_t connect_us, state_us, recompute_us; /* phase times of a recovery on this member */
};

enum muster_lost_why {
    MUSTER_LOST_CLOSED = 1,
    MUSTER_LOST_UNREACHABLE = 2,
    MUSTER_LOST_HASH = 3,
    MUSTER_LOST_STRANGER = 4,
};

struct muster; /* a session; opaque */

/* The defaults; then set coordinator and job at least. */
void muster_options_init(struct muster_options *options);

/* Starts the thread, which begins to connect. Does not wait: MUSTER_UP or MUSTER_ENDED follows. */
enum muster_status muster_open(const struct muster_options *options, struct muster **session,
                               struct muster_error *error);

/* The same, and waits until it is admitted; refused, unreachable or late: closed again, *error says
 * it. */
enum muster_status muster_join(const struct muster_options *options, int timeout_ms,
                               struct muster **session, struct muster_error *error);

/* Next event, in the order in which they came. MUSTER_ERROR_TIMEOUT when none came in time;
 * MUSTER_ERROR_ENDED after MUSTER_ENDED was taken. */
enum muster_status muster_next(struct muster *session, int timeout_ms, struct muster_event **event);
void muster_event_free(struct muster_event *event); /* accepts NULL */

/* A descriptor that is readable while an event is queued: for poll(), never to be read. */
int muster_descriptor(const struct muster *session);

/* Waits for the next FORMED, and says entered; for programs whose members need not exchange state.
 * If the generation at `position` was over it is reported first. On MUSTER_OK *event is the FORMED
 * and belongs to the caller. Events of other kinds are dropped, but DONE and ENDED give
 * MUSTER_ERROR_ENDED. */
enum muster_status muster_wait_generation(struct muster *session,
                                          const struct muster_position *position, int timeout_ms,
                                          struct muster_event **event, struct muster_error *error);

/* What the next beats tell. */
void muster_progress(struct muster *session, const struct muster_progress *progress);

/* What the member says. MUSTER_OK, MUSTER_ERROR_ENDED, MUSTER_ERROR_USAGE, or MUSTER_ERROR_SYSTEM
 * when there is no memory; *times may be NULL. */
enum muster_status muster_entered(struct muster *session, const struct muster_position *position,
                                  const struct muster_times *times);
enum muster_status muster_ready(struct muster *session, const struct muster_position *position,
                                uint64_t params_hash);
enum muster_status muster_report(struct muster *session, const struct muster_position *position,
                                 const struct muster_report *report);
enum muster_status muster_peer_lost(struct muster *session, const struct muster_position *position,
                                    const uint8_t member_id[MUSTER_ID_BYTES],
                                    enum muster_lost_why why, const char *text);
enum muster_status muster_finished(struct muster *session, const struct muster_position *position,
                                   uint64_t params_hash, double test_accuracy);

/* Wishes to leave; MUSTER_RELEASED follows, then say goodbye. After drain_ms it counts as lost. */
enum muster_status muster_leave(struct muster *session, const struct muster_position *position,
                                uint32_t drain_ms);

/* The last word: never a loss for the others. Waits until it is written, at most timeout_ms. */
enum muster_status muster_goodbye(struct muster *session, uint32_t exit_code, const char *text,
                                  int timeout_ms);

/* Enters a named barrier; MUSTER_BARRIER follows. MUSTER_ERROR_BUSY while another one is waited at.
 */
enum muster_status muster_barrier_enter(struct muster *session, const char *name,
                                        const char *place);

/* Enters it and waits. MUSTER_OK = released; MUSTER_ERROR_BARRIER with the sentence in *error
 * otherwise. A generation that ended lets it enter again by itself. Other events stay queued. */
enum muster_status muster_barrier(struct muster *session, const char *name, const char *place,
                                  int timeout_ms, struct muster_error *error);

/* Around a collective: enter before it is begun, leave when its result is here. Cheap (a few
 * hundred nanoseconds, no system call but one in a tenth of a second), from any thread; several may
 * be open at a time. enter returns the number for leave.
 *
 *     uint64_t seq = muster_collective_enter(m, &(struct muster_collective){
 *         .op = "all_reduce", .name = "grads bucket 2", .dtype = "float32", .count = 1000,
 *         .step = batch, .place = MUSTER_PLACE});
 *     ncclAllReduce(...); cudaStreamSynchronize(...);
 *     muster_collective_leave(m, seq);
 *
 * What it is for: a member that waits in #n is waited with until all have entered #n. Two members
 * that say different things of #n, or of which one waits in #n while the other waits at a barrier
 * (muster_barrier) or has finished (muster_finished) without having entered #n, wait for ever: the
 * coordinator says so within two beats, with rank, host, place and numbers, in its log, in `muster
 * why`, and as MUSTER_VERDICT; what it does then is its option --on-deadlock. To be slow is no
 * deadlock: who is in MUSTER_PHASE_COMPUTE, say, is waited for. A barrier stands for the whole
 * member: do not wait at one on one thread while another goes on with collectives, unless the
 * progress told afterwards says MUSTER_PHASE_COMPUTE. All members of a job mark their collectives,
 * or none; those of a part of the members only (a pipeline's, say) are not marked. */
uint64_t muster_collective_enter(struct muster *session,
                                 const struct muster_collective *collective);
void muster_collective_leave(struct muster *session, uint64_t seq);

/* Writes the newest collectives (up to 256), oldest first, one a line, as text. Async-signal-safe:
 * made for a handler of SIGSEGV and its like, which the program installs, not this library. */
void muster_ledger_write(struct muster *session, int descriptor);

/* Ends the thread and frees everything. Without goodbye the others see a loss. Accepts NULL. It may
 * have to wait for a name lookup that is under way. */
void muster_close(struct muster *session);

/* The address of this host from which the coordinator is reached, as a number without a port: where
 * a data plane should listen by default. Looks the name up, sends nothing. */
enum muster_status muster_local_address(const char *coordinator, char *address,
                                        size_t address_bytes, struct muster_error *error);

const char *muster_carrier_version(void);                   /* libuv's, for --version */
const char *muster_wire_version(void);                      /* protobuf-c's, the same */
const char *muster_status_text(enum muster_status status);  /* the sentence */
const char *muster_event_name(enum muster_event_type type); /* the word */

#ifdef __cplusplus
}
#endif

#endif
