/* The member's side of the control protocol as a pure step machine.
 *
 * No I/O, clock, allocation or thread: an event with its time goes in, actions come out, and
 * session_wake_us() says when to come back at the latest. The carrier (libuv in carrier.c, virtual
 * time in tests/sim) carries the actions out in order.
 *
 *            START                CONNECTED            WELCOME
 *   IDLE ------------> CONNECTING ----------> GREETING ---------> ATTACHED
 *                        ^   | CLOSED, too late  | CLOSED, too late   | CLOSED, silent
 *                        |   v                   v                    v  (DOWN delivered)
 *                        +-- RESTING <-----------+--------------------+
 *                         random pause (full jitter: 0 .. min(cap, base * 2^n))
 *   any --REFUSED, GOODBYE sent, STOP, connect timeout before the first WELCOME--> ENDED
 *
 * What the machine takes off the program's hands:
 *   - a beat every beat_ms, as long as it is attached, with the last status it was told; and one
 *     between two of those when a collective or a barrier lasts for SESSION_LONG_MS, so that who
 *     waits for ever is seen soon;
 *   - re-attaching for ever once it was admitted (a coordinator that is away stops no training):
 *     HELLO says JOIN, RUNNING (with the roster) or FROZEN, and after WELCOME everything that still
 *     stands is said again: entered, report, ready, peers lost, finished, leave, the barrier it
 *     waits at;
 *   - fencing: FORMED, PLAN and VIEW with a number smaller than the largest seen, the same one told
 *     twice, and OVER of a generation before the newest FORMED are dropped (`dropped` counts).
 *
 * Whoever calls REPORT, ENTERED .. says it once, connected or not. GOODBYE without a connection is
 * said after the next WELCOME; who cannot wait for that sends STOP.
 *
 * Calling sequence:
 *   session_init(&session, &config, memory, session_memory_bytes(members_max));
 *   event.type = SESSION_START; session_step(&session, &event, &actions); carry out actions ...
 * Texts of the config are the caller's and must live as long as the session. Pointers in actions
 * point into the session, the config or the event, and are valid until the next session_step().
 */
#ifndef CLIENT_SESSION_H
#define CLIENT_SESSION_H

#include "proto/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SESSION_ACTIONS_MAX 16u
#define SESSION_LOST_MAX    4u /* peers reported lost that are said again after a re-attach */
#define SESSION_NEVER_US    UINT64_MAX
#define SESSION_LONG_MS     100u

struct session_config {
    const char *job;     /* 1..64 bytes of text */
    wire_id member_id;   /* random per process */
    wire_id secret;      /* random per process */
    wire_id job_uid;     /* zeros = unknown */
    enum wire_kind kind; /* worker or participant */
    const char *node;    /* identity of the host */
    const char *host;    /* its name */
    const char
        *data_address;   /* of the data plane, ":PORT" = where the control connection comes from */
    const char *program; /* "muster-worker 0.1.0" */
    const char *spec;    /* "key=value\n" lines, sorted */
    const char *fingerprint;      /* the same form */
    uint32_t pid;                 /* of this process */
    uint32_t min;                 /* 0 = no opinion */
    uint32_t max;                 /* 0 = no opinion */
    uint32_t rank_hint;           /* 1 + wished rank or, of a participant, its index; 0 = none */
    uint32_t group_size;          /* of a participant's group */
    uint64_t known_generation;    /* newest number known from a manifest, 0 = none */
    uint64_t known_applied;       /* updates applied in the newest checkpoint */
    uint32_t refresh_ms;          /* STATUS comes at least so often; 0 = nothing is promised */
    uint32_t connect_timeout_ms;  /* give up if not admitted by then; 0 = never */
    uint32_t greeting_timeout_ms; /* for TCP connect and for the answer to HELLO, each */
    uint32_t silence_timeout_ms;  /* attached but not one frame for so long: connect anew */
    uint32_t backoff_base_ms;     /* full jitter: 0 .. min(cap, base * 2^n) */
    uint32_t backoff_cap_ms;      /* the longest pause; a small group has a shorter one */
};

/* The defaults of the times above; the rest is zero or "". */
void session_config_init(struct session_config *config);

/* Where a member stands when it says something. */
struct session_position {
    uint64_t generation; /* number, 0 = in none */
    uint64_t nonce;      /* of that generation */
    uint64_t step;       /* updates applied */
};

/* What the next beats tell. */
struct session_status {
    enum wire_phase phase;                  /* what it does in this step */
    uint32_t part;                          /* of the phase, as it goes on: its age begins anew */
    uint64_t applied;                       /* updates applied */
    float loss;                             /* of the last finished step */
    float samples_per_s;                    /* of the whole job */
    uint32_t shard_us;                      /* wall time of one shard here, 0 = not known */
    uint32_t shards;                        /* that it owns */
};

/* Where the member stands among its collectives: the newest entered and left, and the one at which
 * it stands, the oldest that is open, else the newest. */
struct session_ledger {
    uint64_t generation;              /* in which all of this holds; beats of others say nothing */
    uint64_t entered;                 /* newest entered, 0 = none */
    uint64_t left;                    /* newest left */
    uint64_t at;                      /* the one described below */
    uint64_t since_us;                /* when it was entered, or, if it is not open, left */
    bool open;                        /* it was entered and not left */
    uint64_t count;                   /* its elements */
    uint64_t batch;                   /* step that it belongs to, 0 = not said */
    char op[WIRE_OP_BYTES + 1];       /* "all_reduce" */
    char dtype[WIRE_DTYPE_BYTES + 1]; /* "float32" */
    char name[WIRE_NAME_BYTES + 1];   /* "grads bucket 2" */
    char place[WIRE_PLACE_BYTES + 1]; /* "train.c:40" */
};

enum session_event_type {
    /* from the carrier */
    SESSION_START,
    SESSION_CONNECTED, /* the connection asked for by SESSION_CONNECT stands */
    SESSION_CLOSED,    /* it could not be made, or ended; not the answer to SESSION_CLOSE */
    SESSION_MESSAGE,   /* a message from the coordinator */
    SESSION_WAKE,      /* session_wake_us() has come; harmless at any other time */
    /* from the program */
    SESSION_STATUS,  /* what the next beats tell */
    SESSION_LEDGER,  /* collectives entered or left */
    SESSION_WHERE,   /* what a thread that stands does in the kernel, "" = nothing is known */
    SESSION_REPORT,  /* frozen: position and report */
    SESSION_ENTERED, /* it is in the generation of the position */
    SESSION_READY,   /* a spare is in step with the generation of the position */
    SESSION_PEER_LOST,
    SESSION_LEAVE, /* wishes to leave */
    SESSION_FINISHED,
    SESSION_GOODBYE, /* says it, closes, ENDED */
    SESSION_BARRIER, /* enters a barrier; one at a time */
    SESSION_STOP,    /* closes without a word, ENDED */
};

struct session_event {
    enum session_event_type type; /* decides which of the fields below are read */
    uint64_t now_us;              /* monotonic; never goes back */
    uint64_t random;              /* fresh randomness, for the pause before connecting anew */
    struct session_position
        position; /* REPORT, ENTERED, READY, PEER_LOST, LEAVE, FINISHED, GOODBYE */
    union {
        const char *text;                   /* CLOSED: why, for people; WHERE */
        const struct wire_message *message; /* MESSAGE */
        struct session_status status;       /* STATUS */
        struct session_ledger ledger;       /* LEDGER */
        struct wire_report report;          /* REPORT; the owned mask is copied */
        struct wire_entered entered;        /* ENTERED */
        struct wire_ready ready;            /* READY */
        struct wire_peer_lost peer_lost;    /* PEER_LOST; the text is copied */
        struct wire_leave leave;            /* LEAVE */
        struct wire_finished finished;      /* FINISHED */
        struct wire_goodbye goodbye;        /* GOODBYE */
        struct wire_barrier_enter
            barrier; /* BARRIER; seq is given by the machine, texts are copied */
    };
};

enum session_action_type {
    SESSION_CONNECT, /* begin to connect; answer with CONNECTED or CLOSED */
    SESSION_SEND,    /* write action.message */
    SESSION_CLOSE,   /* flush what was sent, close; nothing of that connection comes any more */
    SESSION_DELIVER, /* tell the program */
};

/* What is delivered to the program. */
enum session_news {
    SESSION_NEWS_UP,      /* admitted or attached again: welcome is set */
    SESSION_NEWS_DOWN,    /* the connection is gone, text says why; it is being made anew */
    SESSION_NEWS_MESSAGE, /* WAITING, GENERATION, OVER, RELEASED, DRAIN_REQUEST, DONE,
                             BARRIER_RESULT, VERDICT */
    SESSION_NEWS_ENDED,   /* nothing more will come: end, exit_code and text are set */
};

enum session_end {
    SESSION_END_NONE,
    SESSION_END_GOODBYE,     /* the program said goodbye */
    SESSION_END_STOPPED,     /* the program stopped it */
    SESSION_END_REFUSED,     /* refusal says why */
    SESSION_END_UNREACHABLE, /* not admitted within connect_timeout_ms */
};

struct session_delivery {
    enum session_news news;             /* decides which of the fields below are set */
    const struct wire_message *message; /* UP: WELCOME; MESSAGE: the message; else NULL */
    enum session_end end;               /* ENDED */
    enum wire_refusal refusal;          /* ENDED by SESSION_END_REFUSED */
    uint32_t exit_code;                 /* ENDED */
    const char *text;                   /* DOWN, ENDED */
};

struct session_action {
    enum session_action_type type; /* decides which of the two is set */
    union {
        struct wire_message message;      /* SEND */
        struct session_delivery delivery; /* DELIVER */
    };
};

struct session_actions {
    uint32_t count;                                  /* actions of this step */
    struct session_action list[SESSION_ACTIONS_MAX]; /* to be carried out in order */
};

enum session_state {
    SESSION_IDLE,
    SESSION_CONNECTING,
    SESSION_GREETING,
    SESSION_ATTACHED,
    SESSION_RESTING,
    SESSION_ENDED,
};

/* A generation that was told, kept for the roster of a re-attach. */
struct session_roster {
    struct wire_arena arena;     /* owns what message points to */
    struct wire_message message; /* GENERATION; header.generation 0 = empty */
};

/* What the program said and what still stands: said again after every WELCOME. */
struct session_said {
    bool has_entered;  /* until OVER, REPORT or the next FORMED */
    bool has_report;   /* until ENTERED or the next FORMED */
    bool has_ready;    /* until ENTERED, OVER or the next generation told */
    bool has_leave;    /* until RELEASED */
    bool has_finished; /* until DONE or OVER */
    bool has_barrier;  /* until its result */
    bool has_goodbye;  /* until it could be said */
    struct session_position entered_at, report_at, ready_at, leave_at, finished_at, barrier_at,
        goodbye_at;                                    /* where it stood when it said so */
    struct wire_entered entered;                       /* as said */
    struct wire_report report;                         /* as said; its mask is `owned` */
    struct wire_ready ready;                           /* as said */
    struct wire_leave leave;                           /* as said */
    struct wire_finished finished;                     /* as said */
    struct wire_barrier_enter barrier;                 /* as said; seq is the own count */
    struct wire_goodbye goodbye;                       /* as said */
    struct wire_peer_lost lost[SESSION_LOST_MAX];      /* until OVER or another generation */
    struct session_position lost_at[SESSION_LOST_MAX]; /* where it stood */
    uint32_t lost_count; /* said so far; the newest SESSION_LOST_MAX are kept, as a ring */
    /* Copies of what the program's pointers pointed to. */
    uint8_t owned[WIRE_OWNED_BYTES];                         /* of report */
    char barrier_name[WIRE_NAME_BYTES + 1];                  /* of barrier */
    char barrier_place[WIRE_PLACE_BYTES + 1];                /* of barrier */
    char goodbye_text[WIRE_REASON_BYTES + 1];                /* of goodbye */
    char lost_text[SESSION_LOST_MAX][WIRE_REASON_BYTES + 1]; /* of lost */
};

struct session {
    const struct session_config *config; /* the caller's */
    enum session_state state;            /* see the diagram above */
    uint64_t now_us;                     /* of the last event */
    uint64_t random;                     /* of the last event */
    uint64_t started_us;                 /* START */
    uint64_t deadline_us;                /* of CONNECTING and GREETING; end of RESTING */
    uint64_t heard_us;                   /* last frame from the coordinator */
    uint32_t attempts;                   /* connections that failed since the last WELCOME */
    bool admitted;                       /* was welcomed at least once */
    wire_id job_uid;                     /* from the config, then from WELCOME */
    uint32_t beat_ms;                    /* from WELCOME */
    uint64_t beat_due_us;                /* next beat */
    uint64_t beaten_us;                  /* last beat */
    uint64_t early_us;                   /* last one that was early */
    uint64_t beat_seq;                   /* beats sent */
    uint32_t lag_ms;                     /* how late the last beat was */
    uint64_t barrier_seq;                /* barriers entered */
    uint64_t barrier_generation;         /* generation in which they are counted */
    uint64_t barrier_number;             /* entered in it */
    uint64_t passed;                     /* number of the newest it was released from; 0 = none */
    char passed_name[WIRE_NAME_BYTES + 1];

    struct session_position held;     /* generation it is in, 0 = none; step = updates applied */
    uint64_t largest;                 /* largest generation number seen */
    uint64_t largest_nonce;           /* its nonce */
    uint32_t largest_modes;           /* bit m: it was told in enum wire_mode m */
    uint64_t formed;                  /* number of the newest FORMED */
    uint64_t over;                    /* generations up to this number are over */
    uint64_t reported;                /* newest generation the program reported to be frozen in */
    struct session_roster rosters[2]; /* newest FORMED and PLAN */
    uint64_t dropped;                 /* stale or repeated messages that were dropped */

    struct session_status status;        /* what beats tell */
    uint64_t status_us;                  /* when it came */
    uint64_t phase_since_us;             /* since when it is in that phase of that step */
    struct session_ledger ledger;        /* what beats tell of collectives */
    uint64_t barrier_since_us;           /* since when it waits at said.barrier */
    char where[WIRE_REASON_BYTES + 1];   /* as told by SESSION_WHERE */
    struct session_said said;            /* what still stands */
    char failure[WIRE_REASON_BYTES + 1]; /* why the last connection failed */
    char text[WIRE_SENTENCE_BYTES + 1];  /* of DOWN and ENDED */
};

/* Bytes of memory for rosters of so many members (<= WIRE_MEMBERS_MAX). */
size_t session_memory_bytes(uint32_t members_max);

/* Memory is the caller's, aligned as malloc's, and must live as long as the session. */
void session_init(struct session *session, const struct session_config *config, void *memory,
                  size_t memory_bytes);

/* One event; actions->count is set. The result is false when the event makes no sense now (a
 * barrier while one is waited at, anything after ENDED) and changes nothing but the clock. */
bool session_step(struct session *session, const struct session_event *event,
                  struct session_actions *actions);

/* Since when nothing has moved: the phase, the collective or the barrier it is in. For the carrier,
 * who may look where the thread stands. */
uint64_t session_stands_since_us(const struct session *session);

/* When SESSION_WAKE is due; SESSION_NEVER_US if not at all. */
uint64_t session_wake_us(const struct session *session);

#endif
