/* Connections of members: accept, frames in, frames out, budgets. Knows nothing of jobs.
 *
 * Calling sequence (everything on the loop's thread)
 *
 *     conns_open(&conns, loop, &limits, &events, owner, address, error...)   listens
 *         -> opened_cb, frame_cb.., [broken_cb,] closed_cb     closed_cb once per opened_cb
 *     conns_admit(conns, id)        the stranger became a member: larger limits, no handshake
 *                                   deadline
 *     conns_send(conns, ids, count, frame, bytes)   one frame to many, encoded once
 *     conns_close(conns, id)        after what is queued has left, or its deadline
 *     conns_break(conns, id, why)   the same for what it sent: counted, with a last word
 *     conns_judge(conns, now_us)    at each tick: all deadlines of all connections
 *     conns_stop(conns)             closes everything; the loop must run until it is idle
 *
 * Budgets: a stranger has handshake_ms for its first frame, a frame begun has frame_ms to be
 * complete, and a peer that does not read is dropped when more than queue_bytes wait for it or
 * nothing has left for write_ms. Beyond stranger_count strangers the oldest is dropped for the
 * newest, so that a flood of silent connections cannot keep members out, and so is the oldest with
 * half a frame when those of all strangers take more than stranger_bytes. When more than
 * waiting_bytes wait to be written in all, who is behind already is dropped. Beyond conn_count
 * nothing is accepted until one closes. Who sends more than frames_per_s, after a second's worth at
 * once, is not dropped but read later: the others come first, and its socket fills up.
 *
 * A connection's id is index + serial number and is never used again, so that an id that outlived
 * its connection does nothing. */
#ifndef SERVER_CONN_H
#define SERVER_CONN_H

#include "proto/frame.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <uv.h>

#define CONN_ADDRESS_BYTES 64

struct conns;

struct conn_limits {
    uint32_t conn_count;     /* connections at a time */
    uint32_t stranger_count; /* of them not admitted yet */
    uint32_t handshake_ms;   /* from accept to the first whole frame */
    uint32_t frame_ms;       /* from a frame's first byte to its last */
    uint32_t write_ms;       /* without any progress of a queue that is not empty */
    uint32_t frames_per_s;   /* of one peer; and so many at once */
    uint32_t queue_bytes;    /* waiting to be written to one peer */
    size_t stranger_bytes;   /* memory of unfinished frames of all strangers; at least a frame */
    size_t waiting_bytes;    /* memory of what waits to be written to all */
};

struct conn_events {
    void (*opened_cb)(void *owner, uint64_t id);
    /* header and body are valid during the call. */
    void (*frame_cb)(void *owner, uint64_t id, const struct frame_header *header,
                     const uint8_t *body);
    /* What it sent breaks a rule, in frames: a last word may be sent to it now; it is closed
     * afterwards. peer: "HOST:PORT"; both texts are valid during the call. */
    void (*broken_cb)(void *owner, uint64_t id, const char *peer, const char *why);
    /* why: a sentence for the log; "" when there is nothing to say, because it ended between two
     * frames or was closed from here. */
    void (*closed_cb)(void *owner, uint64_t id, const char *peer, const char *why);
};

struct conn_counters {
    uint64_t accepted;
    uint64_t open;
    uint64_t strangers;      /* open and not admitted */
    uint64_t refused_frames; /* connections closed for what they sent */
    uint64_t slow;           /* connections closed by a budget */
    uint64_t frames_in;
    uint64_t frames_out;
};

void conn_limits_default(struct conn_limits *limits);

/* Listens on address. 0, or a negative libuv error with a sentence in error. */
int conns_open(struct conns **conns, uv_loop_t *loop, const struct conn_limits *limits,
               const struct conn_events *events, void *owner, const struct sockaddr *address,
               char *error, size_t error_bytes);

/* "HOST:PORT" that it listens on. */
void conns_address(const struct conns *conns, char *text, size_t text_bytes);

void conns_admit(struct conns *conns, uint64_t id);
void conns_send(struct conns *conns, const uint64_t *ids, size_t count, const uint8_t *frame,
                size_t frame_bytes);
void conns_close(struct conns *conns, uint64_t id);

/* why: a sentence, valid during the call; broken_cb is called from inside. */
void conns_break(struct conns *conns, uint64_t id, const char *why);

/* Host part of the peer's address, "" when it is gone. */
void conns_peer(const struct conns *conns, uint64_t id, char *text, size_t text_bytes);

void conns_judge(struct conns *conns, uint64_t now_us);
void conns_counters(const struct conns *conns, struct conn_counters *counters);
void conns_stop(struct conns *conns);

#endif
