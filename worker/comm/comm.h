/* Data plane: moves frames of bytes between the members of a generation, and adds nothing.
 *
 * One vtable (struct comm_ops) with two carriers: comm/tcp (processes; Unix sockets inside a host)
 * and comm/local (several ends in one process). Which piece goes where is decided by
 * train/exchange, sums are made by train/reduce; a frame only carries names (generation, step,
 * bucket, chunk, tree node) and bytes.
 *
 * Calling sequence
 *
 *     comm_tcp_open(loop, "10.0.0.5:0", id, &events, owner, NULL, &comm, error, sizeof error);
 *     comm_address(comm, text, sizeof text);          HELLO's data_address
 *     comm_enter(comm, &generation);                  FORMED, PLAN at its boundary, or VIEW (a
 *                                                     spare)
 *         -> peer_cb for each peer, then ready_cb once all members are connected
 *     comm_send(comm, comm_peer_at(comm, rank), &frame, parts, count, tag);
 *         -> sent_cb(tag)          here:  the parts may be reused
 *         -> place_cb, frame_cb    there: the bytes were received straight into the place it named
 *     comm_halt(comm);                                OVER: no frame of the generation changes
 *                                                     anything
 *     comm_enter(comm, &next);                        connections to survivors stay
 *     comm_close(comm);
 *
 * Threads: everything runs on the thread of the loop given at open; so do all callbacks. Callbacks
 * may call every function here except comm_close. No callback runs inside comm_send or comm_enter
 * (they come from the loop afterwards), but for drop_cb, which comm_enter calls for frames under
 * way from those who depart; comm_halt and comm_close call sent_cb and drop_cb before they return.
 *
 * Ownership of buffers
 *   sending    The parts belong to comm from comm_send until sent_cb(tag), and must not change
 *              meanwhile. COMM_OK: the transport took all bytes. COMM_CANCELLED, COMM_GONE: it will
 *              touch them no more.
 *   receiving  The place belongs to comm from place_cb until frame_cb (all bytes are in) or drop_cb
 *              (the frame was given up on either side; its bytes are garbage).
 *   comm_halt  After it returns comm refers to no buffer of its owner: every frame queued is
 *              cancelled, and every place is handed back by drop_cb. A frame that was half written
 *              is filled up with zeros and a trailer that says "aborted", so that the connection
 *              stays and no receiver ever takes half of one buffer and half of what was written
 *              over it for a frame.
 *   comm_enter cancels nothing: at an agreed boundary a member may be in the next generation while
 *              slower ones still need its last results. Frames queued earlier leave first, also to
 *              those who depart: theirs are copied, and the parts are the owner's again when
 *              comm_enter returns (nobody who departs says when he has them).
 *
 * Generations. A frame belongs to the generation (number, nonce) its sender was in when comm_send
 * was called. One of an older generation than the receiver's (or of the one halted) is read and
 * dropped; one of a newer generation waits, unread, until the receiver enters it. So frames arrive
 * in order, once, and only between ends that are in the same generation. A frame may be sent to a
 * peer as soon as peer_cb named it.
 *
 * Who may connect: whoever proves (challenge and response, HMAC-SHA256, both ways) that it holds
 * the key of the generation. A spare that views a generation enters it with me = COMM_VISITOR and
 * dials its members, who see a peer of rank COMM_VISITOR. When both enter a generation in which it
 * has a rank, it keeps its connection and its peer number. The key itself is never sent.
 *
 * A peer that is lost stays lost until a later comm_enter names it again; then it is connected
 * anew. (A spare may enter the generation it views once more, to try again those it has lost.) */
#ifndef MUSTER_COMM_COMM_H
#define MUSTER_COMM_COMM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_ID_BYTES 16
#define COMM_KEY_BYTES 16
#define COMM_ADDRESS_BYTES 64    /* "HOST:PORT" or "[V6]:PORT" with its end mark */
#define COMM_WORLD_MAX 1024      /* members of a generation */
#define COMM_PARTS_MAX 8         /* buffers gathered into one frame */
#define COMM_TEXT_BYTES 256      /* sentences handed to callbacks */
#define COMM_VISITOR UINT32_MAX  /* rank of an end that is not a member */
#define COMM_NO_PEER UINT32_MAX

/* name, value, sentence */
#define COMM_ERRORS(X)                                                                             \
    X(OK, 0, "ok")                                                                                 \
    X(CANCELLED, 1, "the generation of the frame was halted")                                      \
    X(GONE, 2, "the peer is not connected in this generation")                                     \
    X(FULL, 3, "too many frames wait for this peer")                                               \
    X(LIMIT, 4, "the frame is larger than its kind allows")                                        \
    X(OLDER, 5, "the generation is not newer than the one entered last")                           \
    X(ROSTER, 6, "the members are none, too many, one twice, or not me at my rank")                \
    X(ADDRESS, 7, "the address cannot be understood")                                              \
    X(SYSTEM, 8, "the operating system refused")                                                   \
    X(MEMORY, 9, "out of memory")

enum comm_error {
#define COMM_ERROR_ENUM(name, value, sentence) COMM_##name = (value),
    COMM_ERRORS(COMM_ERROR_ENUM)
#undef COMM_ERROR_ENUM
};

/* Why a peer was lost: name, word */
#define COMM_LOSSES(X)                                                                             \
    X(CLOSED, "closed")           /* its end of the connection ended: the process is gone */       \
    X(UNREACHABLE, "unreachable") /* could not be connected, or moved no byte within a deadline */ \
    X(STRANGER, "stranger")       /* it answered, and could not prove that it belongs */           \
    X(PROTOCOL, "protocol")       /* it sent what no member sends */

enum comm_loss {
#define COMM_LOSS_ENUM(name, word) COMM_LOST_##name,
    COMM_LOSSES(COMM_LOSS_ENUM)
#undef COMM_LOSS_ENUM
    COMM_LOSS_COUNT
};

/* What a frame is for: name, most payload bytes (0: none; COMM_BULK: limits.frame_bytes), word */
#define COMM_BULK UINT64_MAX
#define COMM_KINDS(X)                                                                              \
    X(WORD, 0, "word")               /* value[0] plan held, value[1] hash: the word of a step */   \
    X(PIECE, COMM_BULK, "piece")     /* partial sum of a tree node, to the owner of the chunk */   \
    X(RESULT, COMM_BULK, "result")   /* whole sum of a chunk, from its owner to all */             \
    X(REQUEST, 4096, "request")      /* asks for REDUCED, STATE or RECORDs (value[] says) */       \
    X(REDUCED, COMM_BULK, "reduced") /* part of R(step) */                                         \
    X(STATE, COMM_BULK, "state")     /* part of parameters and optimizer state at version step */  \
    X(RECORD, COMM_BULK, "record")   /* record of a step (or part), to a joiner */                 \
    X(NOTE, 4096, "note")            /* answers without bulk: "not here", "done" (value[]) */      \
    X(AUDIT, 0, "audit")             /* value[0]: hash of the sums of the step's audited shard */

enum comm_kind {
#define COMM_KIND_ENUM(name, most, word) COMM_##name,
    COMM_KINDS(COMM_KIND_ENUM)
#undef COMM_KIND_ENUM
    COMM_KIND_COUNT
};

/* What a frame says about itself. comm reads kind and length, sets number and nonce, carries the
 * rest. */
struct comm_frame {
    uint64_t number;   /* generation; set by comm when sending */
    uint64_t nonce;    /* of the generation; set by comm when sending */
    uint64_t step;     /* step or version it belongs to */
    uint64_t offset;   /* bytes, place of the payload in its bucket, tensor or state */
    uint64_t length;   /* payload bytes; when sending it is the sum of the parts, set by comm */
    uint64_t value[2]; /* free words, by kind */
    uint32_t kind;     /* enum comm_kind */
    uint32_t bucket;
    uint32_t chunk;
    uint32_t level;    /* node of the canonical tree: covers shards index*2^level .. */
    uint32_t index;
    uint32_t flags;    /* free bits, by kind */
};

/* One buffer of a frame that is sent. */
struct comm_part {
    const void *data;
    size_t bytes;
};

/* One member of a generation. */
struct comm_member {
    uint8_t id[COMM_ID_BYTES];
    uint32_t rank;                    /* COMM_VISITOR: not a member */
    char address[COMM_ADDRESS_BYTES]; /* where it listens; "" for a visitor */
};

/* A generation to enter; copied by comm_enter. */
struct comm_generation {
    uint64_t number;                    /* larger than any entered or halted before */
    uint64_t nonce;
    uint8_t key[COMM_KEY_BYTES];
    const struct comm_member *members;  /* rank r at index r, the caller's, read during the call */
    uint32_t member_count;
    uint32_t me;                        /* my rank, or COMM_VISITOR */
};

struct comm;

/* Every callback gets the owner given at open. Slots that may be NULL say so. */
struct comm_events {
    /* The peer is connected, proven and in my generation: frames may go both ways. */
    void (*peer_cb)(void *owner, uint32_t peer);
    /* All members of generation `number` are connected. */
    void (*ready_cb)(void *owner, uint64_t number);
    /* A frame with a payload begins: returns where its length bytes go; NULL: read it and drop
     * it. */
    void *(*place_cb)(void *owner, uint32_t peer, const struct comm_frame *frame);
    /* A frame is whole; payload is what place_cb returned, or NULL when it has none. */
    void (*frame_cb)(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload);
    /* A frame for which place_cb gave a place will not come. */
    void (*drop_cb)(void *owner, uint32_t peer, const struct comm_frame *frame, void *payload);
    /* The frame sent with this tag (not NULL) is done: COMM_OK, COMM_CANCELLED or COMM_GONE. */
    void (*sent_cb)(void *owner, uint32_t peer, void *tag, enum comm_error result);
    /* The peer is lost; its number means nothing after this call. text names its address and the
     * cause. */
    void (*lost_cb)(void *owner, uint32_t peer, enum comm_loss why, const char *text);
    /* Something to be logged that concerns no peer: strangers refused, floods. May be NULL. */
    void (*log_cb)(void *owner, const char *text);
};

/* Limits and deadlines; comm_limits_default() fills them in. */
struct comm_limits {
    uint64_t frame_bytes;      /* most payload of a bulk frame; 256 MiB */
    uint32_t queue_frames;     /* frames that may wait for one peer; 4096 */
    uint32_t unproven_count;   /* connections that have not proven themselves; 64 */
    uint32_t visitor_count;    /* peers that are no members; 64 */
    uint32_t handshake_ms;     /* from accept to proof; 5000 */
    uint32_t connect_ms;       /* until a member counts as unreachable; 10000 */
    uint32_t progress_ms;      /* a frame begun, or waiting to go, moves no byte; 20000 */
    uint32_t buffer_bytes;     /* socket buffers, one direction; 0 (default): as fits the carrier:
                                  small inside a host, the system's between hosts */
    int same_host;             /* 1 (default): Unix sockets between ends of one host; 0: always TCP
                                  */
};

/* Sums since open. */
struct comm_counters {
    uint64_t bytes_sent;
    uint64_t bytes_received;
    uint64_t frames_sent;
    uint64_t frames_received;
    uint64_t frames_dropped;   /* received and thrown away: older generation, no place, aborted */
    uint64_t frames_cancelled; /* ours, never sent whole */
    uint64_t strangers;        /* connections refused */
    uint64_t calls;            /* system calls that moved bytes */
    uint64_t thread_cpu_us;    /* CPU time of the calling thread, all of it, not only comm's */
};

/* The vtable. Slots are never NULL and never block. */
struct comm_ops {
    const char *name; /* "tcp", "local" */
    void (*address)(struct comm *comm, char *text, size_t text_bytes);
    enum comm_error (*enter)(struct comm *comm, const struct comm_generation *generation);
    void (*halt)(struct comm *comm);
    enum comm_error (*send)(struct comm *comm, uint32_t peer, const struct comm_frame *frame,
                            const struct comm_part *parts, uint32_t part_count, void *tag);
    uint32_t (*peer_at)(struct comm *comm, uint32_t rank);
    uint32_t (*peer_of)(struct comm *comm, const uint8_t id[COMM_ID_BYTES]);
    const struct comm_member *(*member)(struct comm *comm, uint32_t peer);
    void (*counters)(struct comm *comm, struct comm_counters *counters);
    void (*close)(struct comm *comm);
};

/* An end of the data plane; the first field of every carrier's own struct. */
struct comm {
    const struct comm_ops *ops;
};

void comm_limits_default(struct comm_limits *limits);
const char *comm_error_name(enum comm_error error);
const char *comm_error_text(enum comm_error error);
const char *comm_loss_word(enum comm_loss why);
const char *comm_kind_word(uint32_t kind);

/* Most payload bytes of a frame of this kind under these limits; 0 also for a kind that does not
 * exist. */
uint64_t comm_kind_most(uint32_t kind, const struct comm_limits *limits);

/* Where this end listens, as others dial it: "10.0.0.5:4711"; ":4711" when it listens on all
 * addresses. */
static inline void comm_address(struct comm *comm, char *text, size_t text_bytes)
{
    comm->ops->address(comm, text, text_bytes);
}

/* Enters a generation: connects to its members that are not connected, lets go of connected ends
 * that are neither members nor proven visitors (after what is queued for them has left).
 * COMM_OLDER, COMM_ROSTER, COMM_MEMORY: nothing has changed. */
static inline enum comm_error comm_enter(struct comm *comm,
                                         const struct comm_generation *generation)
{
    return comm->ops->enter(comm, generation);
}

/* Ends the generation: see "Ownership of buffers". Connections stay. Until the next comm_enter
 * nothing can be sent, and what arrives of this generation is dropped. */
static inline void comm_halt(struct comm *comm)
{
    comm->ops->halt(comm);
}

/* Queues a frame. The header is copied. tag NULL: no sent_cb. COMM_GONE, COMM_FULL, COMM_LIMIT,
 * COMM_MEMORY: not queued, and no sent_cb. */
static inline enum comm_error comm_send(struct comm *comm, uint32_t peer,
                                        const struct comm_frame *frame,
                                        const struct comm_part *parts, uint32_t part_count,
                                        void *tag)
{
    return comm->ops->send(comm, peer, frame, parts, part_count, tag);
}

/* The peer with this rank in my generation; COMM_NO_PEER when it is not connected in it (or is
 * me). */
static inline uint32_t comm_peer_at(struct comm *comm, uint32_t rank)
{
    return comm->ops->peer_at(comm, rank);
}

/* The peer with this id, member or visitor; COMM_NO_PEER when it is not connected in my
 * generation. */
static inline uint32_t comm_peer_of(struct comm *comm, const uint8_t id[COMM_ID_BYTES])
{
    return comm->ops->peer_of(comm, id);
}

/* Who the peer is: valid until the next comm_enter or the end of its lost_cb. NULL: no such
 * peer. */
static inline const struct comm_member *comm_peer_member(struct comm *comm, uint32_t peer)
{
    return comm->ops->member(comm, peer);
}

static inline void comm_counters(struct comm *comm, struct comm_counters *counters)
{
    comm->ops->counters(comm, counters);
}

/* Halts, closes all connections and gives the memory back. The loop must run once more afterwards
 * so that libuv lets go of its handles. NULL is allowed. */
static inline void comm_close(struct comm *comm)
{
    if (comm != NULL) {
        comm->ops->close(comm);
    }
}

#ifdef __cplusplus
}
#endif

#endif
