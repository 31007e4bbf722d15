/* The loop's thread: what carrier.c (steps, thread) and link.c (the connection) share.
 *
 * Invariants:
 *   1. Session, loop and links are touched by the loop's thread alone; the program's threads reach
 *      them by the command queue and uv_async_send().
 *   2. session_step() is never called while its actions are being carried out: what fails meanwhile
 *      is kept in `failed` and becomes the next event.
 *   3. `link` is the connection the session knows, or NULL; what another link brings is dropped.
 *      Every link is freed in its close callback, which also counts `links` down.
 *   4. After GOODBYE the link is shut down for writing and read to its end, at most LINGER_MS: a
 *      close with unread bytes would be a reset, and could overtake the goodbye.
 *   5. All signals are blocked in this thread: SIGPIPE stays pending here and harms nobody.
 */
#ifndef CLIENT_CARRIER_H
#define CLIENT_CARRIER_H

#include "client_private.h"

enum { CARRIER_READ_BYTES = 65536, LOOK_MS = 100 };

struct link {
    uv_tcp_t tcp;               /* the socket */
    uv_connect_t connect;       /* request under way */
    uv_shutdown_t shutdown;     /* request after GOODBYE */
    struct carrier *carrier;    /* whose it is */
    struct frame_parser parser; /* of what comes in; holds the memory of a cut body */
    uint8_t *body;              /* memory lent to the parser */
};

struct carrier {
    struct muster *muster;          /* the object of the program */
    uv_thread_t thread;             /* runs the loop */
    uv_loop_t loop;                 /* owned by the thread */
    uv_async_t wake;                /* commands are waiting */
    uv_timer_t timer;               /* session_wake_us() */
    uv_timer_t linger;              /* after GOODBYE */
    uv_timer_t look;                /* a collective was entered: is it still open? */
    uint32_t ledger_seen;           /* of its changes */
    bool where_told;                /* the session has a place of the thread */
    struct session session;         /* owned by the thread */
    struct session_actions actions; /* of the step that is carried out */
    void *rosters;                  /* memory of the session */
    void *arena_memory;             /* of the two arenas */
    struct wire_arena in;           /* the message that is handled */
    struct wire_arena out;          /* the frame that is written */
    uint64_t random;                /* state of the generator */
    struct link *link;              /* the connection the session knows */
    struct link *goodbye;           /* the one that lingers */
    uint32_t links;                 /* not freed yet */
    uint64_t attempt;           /* serial of the connection asked for; an older resolve is void */
    struct addrinfo *addresses; /* of this attempt */
    uint32_t address_count;     /* how many */
    uint32_t addresses_tried;   /* of them; the first one rotates with the attempts */
    bool failed;                /* a CLOSED event is due */
    char failure[WIRE_REASON_BYTES + 1];     /* why, for people */
    uint8_t read_buffer[CARRIER_READ_BYTES]; /* of the one read at a time */
};

/* ---- carrier.c ---- */

/* One event, and after it whatever failed while its actions were carried out (invariant 2). */
void carrier_step(struct carrier *carrier, struct session_event *event);

/* The connection failed: remembered, and told to the session by the next carrier_settle() or
 * _step(). */
void carrier_fail(struct carrier *carrier, const char *what, const char *why);

/* Tells the session of a failure that happened outside a step. */
void carrier_settle(struct carrier *carrier);

/* ---- link.c ---- */

/* Begins to connect: resolves the name, tries its addresses in turn. */
void carrier_connect(struct carrier *carrier);

/* The session wants no more of the connection: after GOODBYE gently, otherwise at once. */
void carrier_disconnect(struct carrier *carrier);

/* Writes a message to the connection, if there is one. */
void carrier_send(struct carrier *carrier, const struct wire_message *message);

/* Closes one link; accepts NULL and one that closes already. */
void carrier_close_link(struct link *link);

/* Addresses that were not tried yet, and a resolve under way, are of no use any more. */
void carrier_forget_addresses(struct carrier *carrier);

#endif
