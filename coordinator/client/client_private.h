/* What the files of libmuster share.
 *
 *   muster.c          the program's calls: open, wait, barrier, end
 *   muster_say.c      what the program says, as commands
 *   muster_options.c  options, checked and copied
 *   muster_queue.c    the two queues
 *   muster_event.c    news of the session as events of the program
 *   ledger.c          the ring of recent collectives;  where.c where a thread stands in the kernel
 *   carrier.c         the thread: carries out the session's actions
 *   link.c            its connection: addresses, frames, closing
 *   address.c         "HOST:PORT"
 *
 * Two queues cross the border between the program's threads and the loop's thread, both under
 * `mutex`: commands go in (uv_async_send() wakes the loop), events come out (`changed` and the
 * descriptor wake the program). The session belongs to the loop's thread alone.
 */
#ifndef CLIENT_PRIVATE_H
#define CLIENT_PRIVATE_H

#include "client/ledger.h"
#include "client/muster.h"
#include "client/session.h"

#include <uv.h>

#include <stdio.h>

#define CLIENT_HOST_BYTES 256u /* of a host name with its NUL */
#define CLIENT_PORT_BYTES 6u   /* of a port in digits with its NUL */

/* ---- address.c ---- */

struct client_address {
    char host[CLIENT_HOST_BYTES]; /* name or number, without brackets */
    char port[CLIENT_PORT_BYTES]; /* 1 .. 65535 */
};

/* "HOST:PORT" or "[IPV6]:PORT"; false when it is neither. */
bool client_address_split(const char *text, struct client_address *address);

/* Text cut to its room; NULL counts as "". */
static inline void client_copy_text(char *to, size_t room_bytes, const char *from)
{
    (void)snprintf(to, room_bytes, "%s", from ? from : "");
}

/* ---- what crosses the border ---- */

/* Something the program said, on its way to the session. Texts of the event point into it. */
struct command {
    struct command *next;             /* younger one */
    struct session_event event;       /* now_us and random are filled in by the loop */
    bool has_status;                  /* progress was told before it, and is `status` */
    struct session_status status;
    char text[WIRE_REASON_BYTES + 1]; /* goodbye, peer_lost, place of a barrier */
    char name[WIRE_NAME_BYTES + 1];   /* of a barrier */
    uint8_t owned[WIRE_OWNED_BYTES];  /* of a report */
};

/* An event on its way to the program; what it points to lies behind it in the same block. */
struct queued {
    struct queued *next;       /* younger one; first member, see muster_queue.c */
    struct muster_event event; /* what the program gets */
};

/* News of the session as an event; NULL without memory. */
struct queued *client_event_new(const struct session_delivery *delivery, const wire_id *self);
void client_event_free(struct queued *queued); /* accepts NULL */

/* ---- the session object ---- */

struct carrier; /* of the loop's thread */

struct muster {
    /* Fixed by muster_open(). */
    struct session_config config;                 /* points into the texts below */
    struct client_address coordinator;            /* where to connect */
    char job[WIRE_NAME_BYTES + 1];                /* of the options */
    char node[WIRE_NAME_BYTES + 1];               /* of the options, or the host */
    char host[WIRE_NAME_BYTES + 1];               /* name of this host */
    char data_address[WIRE_NAME_BYTES + 1];       /* of the options */
    char program[WIRE_NAME_BYTES + 1];            /* of the options */
    char spec[WIRE_SPEC_BYTES + 1];               /* of the options */
    char fingerprint[WIRE_FINGERPRINT_BYTES + 1]; /* of the options */
    muster_wake_cb wake_cb;                       /* may be NULL */
    muster_ended_cb ended_cb;                     /* may be NULL */
    void *wake_context;                           /* their argument */
    struct carrier *carrier;                      /* the thread */
    int descriptor; /* eventfd, readable while `events` is not empty */

    struct ledger ledger;  /* of collectives; has a lock of its own */
    /* Atomic, with the compiler's functions, since this header is C++ too: */
    bool looking;          /* the loop will look at it within LOOK_MS by itself */
    uint32_t thread;       /* the one to look at: who spoke last, or whom that one named */
    uint32_t speaker;      /* who spoke last: told its progress, entered something */
    uint64_t spoken_us;    /* and when */

    uv_mutex_t mutex;  /* guards all below */
    uv_cond_t changed; /* an event was queued, or one of the flags below changed */
    /* Under the mutex: */
    struct command *commands;      /* first of those the loop did not take yet */
    struct command **commands_end; /* where the next one goes */
    bool has_status;               /* `status` is newer than what the session knows */
    struct session_status status;  /* coalesced: only the newest counts */
    struct queued *events;         /* first of those the program did not take yet */
    struct queued **events_end;    /* where the next one goes */
    struct queued *spare;          /* for ENDED when there is no memory */
    uint32_t event_count;          /* length of the queue */
    bool admitted;                 /* UP was queued at least once */
    bool ended;                    /* ENDED was queued */
    bool quiet;                    /* ended, and the last connection is closed */
    struct muster_error end_error; /* what ENDED says */
    bool given_up;                 /* ENDED was queued from here: the session is to stop */
    bool closing;                  /* muster_close(): the thread is to end */
    bool barrier_open;             /* a barrier is waited at */
    uint64_t barrier_seq;          /* barriers entered; equal to the session's count */
    uint64_t over;                 /* newest generation whose OVER the program took */
};

/* The calling thread says what the member does; thread = the one that does it, 0 = itself. */
void client_speaks(struct muster *muster, uint32_t thread);

/* ---- muster_queue.c ---- */

/* Fills in *error (which may be NULL) and returns the status. */
__attribute__((format(printf, 3, 4))) enum muster_status
client_explain(struct muster_error *error, enum muster_status status, const char *format, ...);

/* A command; NULL without memory. The position may be NULL. */
struct command *client_command_new(enum session_event_type type,
                                   const struct muster_position *position);

/* Queues it and wakes the loop; takes it over in any case. NULL is an error of the system. */
enum muster_status client_command_push(struct muster *muster, struct command *command);

/* The same under the mutex, without waking. */
enum muster_status client_command_push_locked(struct muster *muster, struct command *command);

/* Takes the event at *at, a place in the queue, out of it. Under the mutex. */
struct queued *client_event_take_locked(struct muster *muster, struct queued **at);

uint64_t client_deadline_ns(int timeout_ms); /* when a wait ends, in uv_hrtime(); -1 = never */
int client_left_ms(uint64_t until_ns);       /* what is left of it, as a timeout_ms */

/* Waits for a change; false when the time is over. Under the mutex. */
bool client_wait_locked(struct muster *muster, uint64_t until_ns);

/* Called by the loop: */

/* Queues news for the program. */
void muster_queue_news(struct muster *muster, const struct session_delivery *delivery);

/* What the program said since the last call. */
struct said {
    struct command *commands; /* oldest first; to be freed one by one */
    bool give_up;             /* stop the session */
    bool close;               /* stop the session and end the thread */
};

void muster_take_said(struct muster *muster, struct said *said);

/* The newest progress, if it is new and no command that is older waits. Nobody is woken for it: it
 * is taken before whatever the session does next, a beat at the latest, so that a program may tell
 * it at every turn. */
bool muster_take_status(struct muster *muster, struct session_status *status);

/* The last connection is closed. */
void muster_set_quiet(struct muster *muster);

/* ---- muster_options.c ---- */

/* Checks and copies; on an error *error names the option. */
enum muster_status client_take_options(struct muster *muster, const struct muster_options *options,
                                       struct muster_error *error);

/* Random identity and secret. 0 or a negative libuv error. */
int client_take_identity(struct session_config *config);

/* ---- carrier.c ---- */

/* Starts the thread. 0 or a negative libuv error. */
int carrier_start(struct muster *muster, struct carrier **carrier);

/* There is something for muster_take_said(). Any thread. */
void carrier_wake(struct carrier *carrier);

/* Waits for the end of the thread, which muster.closing asks for, and frees the carrier. */
void carrier_stop(struct carrier *carrier);

#endif
