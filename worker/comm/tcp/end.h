/* Inside of comm/tcp: an end, its peers, its links. Private to this folder.
 *
 *   tcp.c        the end: open, listen, accept, enter, halt, close, the tick of all deadlines
 *   peer.c       whom we know: members of the generation, visitors; connected, announced, lost
 *   dial.c       connecting to a member: Unix socket, then TCP, again until its deadline
 *   handshake.c  HELLO, ANSWER, PROOF on a link that is not proven
 *   link.c       one socket: its poll, its end
 *   receive.c    bytes into frames
 *   send.c       frames into bytes */
#ifndef MUSTER_COMM_TCP_END_H
#define MUSTER_COMM_TCP_END_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#include "comm/comm.h"
#include "comm/tcp/proof.h"
#include "comm/tcp/wire.h"

#define LINK_INPUT_BYTES 4096 /* read ahead of a link: headers, trailers, small payloads */
#define PEER_SLOTS 4096       /* peer number = serial * PEER_SLOTS + slot */
#define DIAL_ADDRESSES 4      /* of a host name, tried in turn */
#define SCRATCH_BYTES 65536

struct tcp_end;
struct tcp_peer;
struct tcp_link;

/* A message on its way out: a frame of the owner, or one of the carrier's own (no payload, no
 * trailer). */
struct tcp_out {
    struct tcp_out *next;
    void *tag;               /* the owner's; NULL: nobody wants to know */
    uint64_t payload_bytes;
    uint64_t done_bytes;     /* taken by the kernel, of header, payload and trailer together */
    uint64_t number;         /* generation */
    uint32_t peer;           /* number of the peer, for sent_cb */
    uint32_t part_count;
    uint32_t header_bytes;
    uint32_t trailer_bytes;  /* 0: none */
    bool own;                /* handshake or ENTER: not the owner's */
    bool aborted;            /* the rest of the payload is zeros */
    enum comm_error result;  /* once done */
    void *copy;              /* ours, of the parts; NULL: the owner's memory is sent */
    struct comm_part parts[COMM_PARTS_MAX];
    uint8_t header[WIRE_ENTER_BYTES];
    uint8_t trailer[WIRE_TRAILER_BYTES];
};

struct tcp_queue {
    struct tcp_out *first;
    struct tcp_out *last;
    uint32_t count;
};

enum link_state {
    LINK_CONNECTING,  /* ours; connect() has not answered */
    LINK_WANT_ANSWER, /* ours; HELLO sent */
    LINK_WANT_HELLO,  /* accepted (held: its HELLO is of a generation that we have not entered) */
    LINK_WANT_PROOF,  /* accepted; ANSWER sent */
    LINK_OPEN,        /* proven; belongs to a peer */
    LINK_DRAINING,    /* its peer has departed: what is queued leaves, what arrives is thrown
                         away */
    LINK_CLOSED       /* waits for libuv to let go of it */
};

enum link_stage {
    STAGE_HEADER,
    STAGE_PAYLOAD,
    STAGE_TRAILER
};

/* One socket. Lives until libuv has closed its poll handle, so a pointer stays good inside a
 * callback. */
struct tcp_link {
    uv_poll_t poll;
    struct tcp_end *end;
    struct tcp_link *next;      /* all links of the end */
    struct tcp_peer *peer;      /* LINK_OPEN: whose; dialing: whom; else NULL */
    int fd;
    int events;                 /* that are polled */
    enum link_state state;
    bool dialed;                /* by us */
    bool local;                 /* Unix socket */
    bool held;                  /* its next message is of a newer generation: reading waits */
    int broken;                 /* errno of a failed write: read what is left, then it is lost */
    bool dirty;                 /* has something to write that was not tried yet */
    uint64_t born_ms;           /* handshake and draining deadlines count from here */
    uint64_t read_ms;           /* last byte received */
    uint64_t write_ms;          /* last byte taken, or first queued */
    uint64_t number;            /* generation of the handshake */
    uint64_t nonce;
    uint8_t key[COMM_KEY_BYTES]; /* of that generation, until proven */
    uint8_t from[COMM_ID_BYTES]; /* accepted: who it says it is */
    struct proof_session session;
    struct tcp_queue queue;
    enum link_stage stage;
    struct comm_frame frame;    /* STAGE_PAYLOAD and STAGE_TRAILER: the frame under way */
    uint8_t *place;             /* where its payload goes; NULL: nowhere */
    uint64_t got;               /* payload bytes received */
    uint32_t input_start;       /* bytes of input not looked at yet */
    uint32_t input_end;
    uint8_t input[LINK_INPUT_BYTES];
};

enum peer_state {
    PEER_ABSENT,    /* no link yet; we dial, or wait to be dialed */
    PEER_LINKED,    /* has a proven link; has not entered our generation */
    PEER_ANNOUNCED, /* has: peer_cb was called */
    PEER_LOST       /* lost_cb was called; until the next enter */
};

/* Where a peer stands in the list of members that is being entered. */
enum peer_place {
    PLACE_NONE,
    PLACE_KEPT,
    PLACE_NEW
};

struct tcp_resolve; /* a look-up under way, dial.c */

/* What we do to reach a peer. */
struct tcp_dial {
    bool wanted;                /* we dial it; else it dials us */
    bool stranger;              /* who answered the last attempt could not prove that it belongs */
    uint32_t backoff_ms;
    uint64_t deadline_ms;       /* PEER_ABSENT: unreachable after this */
    uint64_t next_ms;           /* next attempt, when none is under way */
    struct tcp_link *link;      /* attempt under way */
    struct tcp_resolve *resolve; /* look-up under way */
    struct sockaddr_storage addresses[DIAL_ADDRESSES];
    uint32_t address_count;
    uint32_t address_next;
    char last[COMM_TEXT_BYTES / 2]; /* what went wrong last */
};

struct tcp_peer {
    struct comm_member member;
    uint32_t handle;            /* its number for the owner */
    enum peer_state state;
    enum peer_place place;      /* scratch of enter */
    struct tcp_link *link;      /* PEER_LINKED, PEER_ANNOUNCED */
    struct tcp_dial dial;
};

/* An end. All its memory goes when closing and the last libuv handle is closed (handles == 0). */
struct tcp_end {
    struct comm comm;           /* first: the owner's handle */
    uv_loop_t *loop;
    struct comm_events events;
    void *owner;
    struct comm_limits limits;
    struct comm_counters counters;
    uint8_t id[COMM_ID_BYTES];
    char address[COMM_ADDRESS_BYTES];
    int listeners[2];           /* TCP, Unix; -1: none */
    uv_poll_t listen_polls[2];
    bool listen_paused;         /* out of descriptors: accept again at the next tick */
    uv_prepare_t prepare;       /* writes what callbacks queued, before the loop sleeps */
    uv_timer_t timer;
    uint64_t ticked_ms;
    uint64_t logged_ms;         /* last log_cb about strangers */
    uint32_t handles;           /* libuv handles and look-ups not closed yet */
    bool closing;
    bool dirty;                 /* some link is */
    bool wake;                  /* enter was called: look at held links and at ready */

    bool running;               /* in a generation that is not halted */
    bool ready;                 /* ready_cb was called for it */
    uint64_t number;            /* the newest generation entered */
    uint64_t nonce;
    uint8_t key[COMM_KEY_BYTES];
    uint32_t me;                /* my rank or COMM_VISITOR */
    uint32_t world;
    uint32_t *slot_of_rank;     /* [world], slot of the peer, COMM_NO_PEER for me */

    struct tcp_peer *peers[PEER_SLOTS];
    uint32_t peer_slots;        /* slots that were ever used */
    uint32_t serial;            /* of peer numbers */
    uint32_t visitor_count;
    struct tcp_link *links;
    uint32_t unproven_count;    /* accepted links not proven yet */
    struct tcp_queue done;      /* messages that are done; sent_cb not called yet */
    struct tcp_out *spare;      /* free messages */
    uint8_t scratch[SCRATCH_BYTES]; /* bytes nobody wants */
};

/* tcp.c */
uint64_t tcp_now_ms(const struct tcp_end *end);
void tcp_log(struct tcp_end *end, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tcp_handle_closed(struct tcp_end *end);
void tcp_timer_arm(struct tcp_end *end);

/* peer.c */
struct tcp_peer *tcp_peer_add(struct tcp_end *end, const struct comm_member *member);
struct tcp_peer *tcp_peer_find(struct tcp_end *end, const uint8_t id[COMM_ID_BYTES]);
struct tcp_peer *tcp_peer_get(struct tcp_end *end, uint32_t handle);
void tcp_peer_remove(struct tcp_end *end, struct tcp_peer *peer);
void tcp_peer_describe(const struct tcp_peer *peer, char *text, size_t text_bytes);
void tcp_peer_linked(struct tcp_end *end, struct tcp_peer *peer, struct tcp_link *link);
void tcp_peer_entered(struct tcp_end *end, struct tcp_peer *peer);
void tcp_peer_lost(struct tcp_end *end, struct tcp_peer *peer, enum comm_loss why,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));
void tcp_peer_tick(struct tcp_end *end, struct tcp_peer *peer, uint64_t now_ms);
enum comm_error tcp_peer_roster(struct tcp_end *end, const struct comm_generation *generation);
void tcp_peer_check_ready(struct tcp_end *end);

/* dial.c */
void tcp_dial_reset(struct tcp_end *end, struct tcp_peer *peer, bool wanted);
void tcp_dial_stop(struct tcp_end *end, struct tcp_peer *peer);
void tcp_dial_tick(struct tcp_end *end, struct tcp_peer *peer, uint64_t now_ms);
void tcp_dial_failed(struct tcp_end *end, struct tcp_link *link, const char *cause);
void tcp_dial_refused(struct tcp_end *end, struct tcp_link *link, const char *cause);
void tcp_dial_connected(struct tcp_link *link);

/* handshake.c */
void tcp_handshake_hello(struct tcp_link *link);
void tcp_handshake_input(struct tcp_link *link);
void tcp_handshake_enter(struct tcp_end *end, struct tcp_link *link);
bool tcp_handshake_check_enter(struct tcp_link *link, const uint8_t proof[WIRE_PROOF_BYTES]);

/* link.c */
struct tcp_link *tcp_link_new(struct tcp_end *end, int fd, bool dialed, bool local);
void tcp_link_connected(struct tcp_link *link);
void tcp_link_poll(struct tcp_link *link);
void tcp_link_close(struct tcp_link *link);
void tcp_link_depart(struct tcp_link *link);
void tcp_link_failed(struct tcp_link *link, enum comm_loss why, const char *cause);
void tcp_link_tick(struct tcp_link *link, uint64_t now_ms);

/* receive.c */
void tcp_receive(struct tcp_link *link, bool to_the_end);
void tcp_receive_parse(struct tcp_link *link);
void tcp_receive_drop(struct tcp_link *link);

/* send.c */
enum comm_error tcp_send(struct tcp_end *end, uint32_t handle, const struct comm_frame *frame,
                         const struct comm_part *parts, uint32_t part_count, void *tag);
void tcp_send_own(struct tcp_link *link, const uint8_t *bytes, uint32_t count);
void tcp_send_flush(struct tcp_link *link);
void tcp_send_flush_all(struct tcp_end *end);
void tcp_send_cancel(struct tcp_link *link);
void tcp_send_abandon(struct tcp_link *link);
/* What is queued is copied: its owner's memory may change before it has left. */
void tcp_send_keep(struct tcp_link *link);
/* What is queued (and kept) is nobody's any more; it leaves all the same. */
void tcp_send_disown(struct tcp_link *link);
void tcp_send_deliver(struct tcp_end *end);
void tcp_send_free_spares(struct tcp_end *end);

#endif
