/* What conn.c (accept, read, end) and conn_write.c (queues) share. For these two files only. */
#ifndef SERVER_CONN_PRIVATE_H
#define SERVER_CONN_PRIVATE_H

#include "server/conn.h"

#include <netinet/in.h>
#include <stdbool.h>

#define CONN_READ_BYTES 65536
#define CONN_NOBODY     UINT32_MAX

/* One frame that waits for one or more peers. */
struct blob {
    uint32_t references;
    size_t bytes;
    uint8_t data[];
};

struct write_job {
    uv_write_t request;
    struct blob *blob;
    struct conn *conn;
};

enum conn_state { CONN_FREE, CONN_OPEN, CONN_CLOSING };

struct conn {
    uv_tcp_t tcp;
    struct conns *conns;        /* the table it lives in */
    struct sockaddr_in6 peer;   /* or a sockaddr_in */
    struct frame_parser parser;
    uint64_t opened_us;         /* loop time of the accept */
    uint64_t frame_us;          /* first byte of an unfinished frame, 0 = none */
    uint64_t paid_us;           /* until when its frames are accounted for, see frames_left() */
    uint64_t write_us;          /* last progress of a queue that is not empty, 0 = empty */
    size_t queued_bytes;        /* see queue_cost() */
    size_t body_bytes;          /* memory of a stranger's unfinished frame */
    const char *doomed;         /* why it is closed at the next tick, or NULL */
    uint32_t index;
    uint32_t serial;
    uint32_t older, newer;      /* neighbours among the strangers */
    enum conn_state state;
    bool stranger;
    bool paused;                /* not read from before the next tick */
    bool leaving;               /* close when the queue is empty */
};

struct conns {
    uv_tcp_t listener;
    uv_loop_t *loop;
    struct conn_limits limits;
    struct conn_events events;
    void *owner;
    struct conn **slots;        /* limits.conn_count of them, made when first needed */
    uint32_t *free_slots;       /* a stack of indices */
    uint32_t free_count;
    uint32_t oldest, newest;    /* strangers */
    size_t stranger_bytes;      /* memory of their unfinished frames */
    size_t waiting_bytes;       /* memory of everything that waits to be written */
    bool stalled;               /* the listener has a connection that was not taken */
    bool stopping;
    bool listener_closed;
    struct conn_counters counters;
    uint8_t read_memory[CONN_READ_BYTES]; /* shared: a read is used up before the next begins */
};

static inline uint64_t conn_id(const struct conn *conn)
{
    return (uint64_t)conn->serial << 32 | conn->index;
}

/* NULL: it is gone. */
static inline struct conn *conn_find(const struct conns *conns, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    struct conn *conn = index < conns->limits.conn_count ? conns->slots[index] : NULL;

    if (conn == NULL || conn->state != CONN_OPEN || conn->serial != (uint32_t)(id >> 32))
        return NULL;
    return conn;
}

static inline uint64_t conn_now_us(const struct conns *conns)
{
    return uv_now(conns->loop) * 1000;
}

/* At once, from the loop: closed_cb is called. why as in conn_events. */
void conn_end(struct conn *conn, const char *why);

/* At the next tick; for use while actions are carried out. why: a constant. */
void conn_doom(struct conn *conn, const char *why);

#endif
