/* Invariants
 *   1. A slot is free, open or closing; only an open one is known by its id. The serial number of a
 *      slot grows when it is freed, so an old id never finds it.
 *   2. closed_cb is called when the slot leaves "open", from the loop and never from inside
 *      conns_send, whose caller is in the middle of carrying out actions: a send that fails marks
 *      the slot doomed, and the next conns_judge ends it.
 *   3. Strangers are linked in the order in which they were accepted: the oldest is first.
 *   4. Memory of a body that comes in parts belongs to the parser and is freed with the slot.
 *   5. stranger_bytes is the sum of body_bytes of all strangers, waiting_bytes that of the blobs
 *      and write jobs that there are.
 *   6. A read is never longer than the frames that its sender may still send, so none is kept for
 *      later: what is too much stays in the socket, and the sender waits. */
#include "server/conn_private.h"

#include "base/netaddr.h"

#include <assert.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define US_PER_S 1000000u

void conn_limits_default(struct conn_limits *limits)
{
    limits->conn_count = 18000;
    limits->stranger_count = 1024;
    limits->handshake_ms = 5000;
    limits->frame_ms = 10000;
    limits->write_ms = 10000;
    limits->frames_per_s = 1000;
    limits->queue_bytes = 4 * FRAME_BODY_MAX_BYTES;
    limits->stranger_bytes = 64 * FRAME_BODY_MAX_BYTES;
    limits->waiting_bytes = 512 * FRAME_BODY_MAX_BYTES;
}

/* ---- strangers ------------------------------------------------------------------------------ */

static void stranger_link(struct conns *conns, struct conn *conn)
{
    conn->stranger = true;
    conn->older = conns->newest;
    conn->newer = CONN_NOBODY;
    if (conns->newest != CONN_NOBODY)
        conns->slots[conns->newest]->newer = conn->index;
    else
        conns->oldest = conn->index;
    conns->newest = conn->index;
    conns->counters.strangers++;
}

static void stranger_body(struct conn *conn, size_t bytes)
{
    conn->conns->stranger_bytes += bytes - conn->body_bytes;
    conn->body_bytes = bytes;
}

static void stranger_unlink(struct conns *conns, struct conn *conn)
{
    if (!conn->stranger)
        return;
    conn->stranger = false;
    stranger_body(conn, 0);
    if (conn->older != CONN_NOBODY)
        conns->slots[conn->older]->newer = conn->newer;
    else
        conns->oldest = conn->newer;
    if (conn->newer != CONN_NOBODY)
        conns->slots[conn->newer]->older = conn->older;
    else
        conns->newest = conn->older;
    conns->counters.strangers--;
}

/* ---- closing -------------------------------------------------------------------------------- */

static void take_waiting_connection(struct conns *conns);
static void release_when_closed(struct conns *conns);

static void on_slot_closed(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    struct conns *conns = conn->conns;

    free(frame_parser_take(&conn->parser));
    conn->state = CONN_FREE;
    conn->serial++;
    conns->free_slots[conns->free_count++] = conn->index;
    conns->counters.open--;
    take_waiting_connection(conns);
    release_when_closed(conns);
}

static void peer_text(const struct conn *conn, char text[CONN_ADDRESS_BYTES])
{
    struct sockaddr_storage address = {0};

    memcpy(&address, &conn->peer, sizeof conn->peer);
    netaddr_text(&address, text, CONN_ADDRESS_BYTES);
}

void conn_end(struct conn *conn, const char *why)
{
    struct conns *conns = conn->conns;
    uint64_t id = conn_id(conn);
    char peer[CONN_ADDRESS_BYTES];

    assert(conn->state == CONN_OPEN);
    stranger_unlink(conns, conn);
    conn->state = CONN_CLOSING;
    uv_close((uv_handle_t *)&conn->tcp, on_slot_closed);
    peer_text(conn, peer);
    conns->events.closed_cb(conns->owner, id, peer, why);
}

void conn_doom(struct conn *conn, const char *why)
{
    conn->doomed = why;
}

void conns_break(struct conns *conns, uint64_t id, const char *why)
{
    struct conn *conn = conn_find(conns, id);
    char peer[CONN_ADDRESS_BYTES];

    if (conn == NULL)
        return;
    conns->counters.refused_frames++;
    peer_text(conn, peer);
    conns->events.broken_cb(conns->owner, id, peer, why);
    conns_close(conns, id);
}

/* ---- reading -------------------------------------------------------------------------------- */

static uint64_t frame_cost_us(const struct conn *conn)
{
    return US_PER_S / conn->conns->limits.frames_per_s;
}

/* Since when its frames are to be accounted for: who sent less than it may has saved nothing. */
static uint64_t paid_until_us(const struct conn *conn)
{
    uint64_t now = conn_now_us(conn->conns);

    return conn->paid_us > now ? conn->paid_us : now;
}

/* How many frames may come from it now: a second's worth, less those of which it is ahead. */
static uint64_t frames_left(const struct conn *conn)
{
    uint64_t until = conn_now_us(conn->conns) + US_PER_S, paid = paid_until_us(conn);

    return paid < until ? (until - paid) / frame_cost_us(conn) : 0;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct conn *conn = handle->data;
    uint64_t bytes = frames_left(conn) * FRAME_HEADER_BYTES;

    (void)suggested;
    assert(bytes > 0);
    *buffer = uv_buf_init((char *)conn->conns->read_memory,
                          bytes < CONN_READ_BYTES ? (unsigned)bytes : CONN_READ_BYTES);
}

/* Strangers share a budget for frames that come in parts: the oldest such makes room. */
static void stranger_make_room(struct conn *conn, size_t bytes)
{
    struct conns *conns = conn->conns;
    uint32_t next = conns->oldest;

    while (next != CONN_NOBODY && conns->stranger_bytes + bytes > conns->limits.stranger_bytes) {
        struct conn *other = conns->slots[next];

        next = other->newer;
        if (other == conn || other->body_bytes == 0)
            continue;
        conns->counters.slow++;
        conn_end(other, "its frame came slowly, and newer connections needed the memory");
        free(frame_parser_take(&other->parser)); /* now, not when it is closed: it is needed */
    }
}

static bool give_memory(struct conn *conn)
{
    size_t bytes = conn->parser.header.body_bytes;
    uint8_t *memory;

    if (conn->stranger)
        stranger_make_room(conn, bytes);
    memory = malloc(bytes);
    if (memory == NULL)
        return false;
    if (conn->stranger)
        stranger_body(conn, bytes);
    frame_parser_give(&conn->parser, memory);
    return true;
}

/* Hands one whole frame up; false when the connection is gone afterwards. */
static bool deliver(struct conn *conn, uint64_t id)
{
    struct conns *conns = conn->conns;
    uint8_t *memory;

    conns->counters.frames_in++;
    conn->frame_us = 0;
    conn->paid_us = paid_until_us(conn) + frame_cost_us(conn);
    stranger_body(conn, 0);
    conns->events.frame_cb(conns->owner, id, &conn->parser.header, conn->parser.body);
    if (conn->state != CONN_OPEN || conn->serial != (uint32_t)(id >> 32))
        return false;
    memory = frame_parser_take(&conn->parser);
    free(memory);
    return conn->doomed == NULL && !conn->leaving;
}

/* Begun and not complete: also when the input ended right behind the header, where the parser has
 * no byte of the body yet. */
static bool frame_begun(const struct frame_parser *parser)
{
    return parser->need == FRAME_NEED_BODY || parser->have_bytes > 0;
}

/* Who does not speak frames at all would not understand a last word. */
static void break_input(struct conn *conn)
{
    const char *why = frame_error_text(conn->parser.error);

    if (conn->parser.error != FRAME_ERROR_MAGIC) {
        conns_break(conn->conns, conn_id(conn), why);
        return;
    }
    conn->conns->counters.refused_frames++;
    conn_end(conn, why);
}

/* Everything in the input; ends the connection itself when it is broken. */
static void read_input(struct conn *conn, const uint8_t *bytes, size_t length)
{
    uint64_t id = conn_id(conn);

    for (;;) {
        switch (frame_parser_feed(&conn->parser, &bytes, &length)) {
        case FRAME_WHOLE:
            if (!deliver(conn, id))
                return;
            break;
        case FRAME_NEED_MEMORY:
            if (!give_memory(conn)) {
                conn_end(conn, "no memory for its frame");
                return;
            }
            break;
        case FRAME_BROKEN:
            break_input(conn);
            return;
        case FRAME_NEED_HEADER:
        case FRAME_NEED_BODY:
        default:
            if (frame_begun(&conn->parser) && conn->frame_us == 0)
                conn->frame_us = conn_now_us(conn->conns);
            return;
        }
    }
}

static const char *end_of_input(const struct conn *conn, int status)
{
    if (conn->leaving)
        return "";
    if (status != UV_EOF)
        return uv_strerror(status);
    return frame_begun(&conn->parser) ? "it ended inside a frame" : "";
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct conn *conn = stream->data;

    if (conn->state != CONN_OPEN)
        return;
    if (count > 0 && (conn->doomed != NULL || conn->leaving))
        return; /* its last word was heard */
    if (count > 0)
        read_input(conn, (const uint8_t *)buffer->base, (size_t)count);
    else if (count < 0)
        conn_end(conn, end_of_input(conn, (int)count));
    if (conn->state == CONN_OPEN && frames_left(conn) == 0) {
        (void)uv_read_stop(stream);
        conn->paused = true;
    }
}

static void read_on(struct conn *conn)
{
    conn->paused = false;
    if (uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) != 0)
        conn_end(conn, "it could not be read");
}

/* ---- accepting ------------------------------------------------------------------------------ */

static struct conn *slot_take(struct conns *conns)
{
    struct conn *conn;
    uint32_t index;

    if (conns->free_count == 0)
        return NULL;
    index = conns->free_slots[conns->free_count - 1];
    conn = conns->slots[index];
    if (conn == NULL) {
        conn = calloc(1, sizeof *conn);
        if (conn == NULL)
            return NULL;
        conns->slots[index] = conn;
        conn->index = index;
        conn->serial = 1;
        conn->conns = conns;
    }
    conns->free_count--;
    return conn;
}

/* A dead host must be noticed by the kernel too: see research on TCP_USER_TIMEOUT. */
static void set_socket(struct conn *conn)
{
    int fd, one = 1, idle_s = 5, interval_s = 1, probes = 3, user_timeout_ms = 8000;

    if (uv_fileno((uv_handle_t *)&conn->tcp, &fd) != 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

static void slot_open(struct conns *conns, struct conn *conn)
{
    uv_tcp_init(conns->loop, &conn->tcp);
    conn->tcp.data = conn;
    conn->state = CONN_OPEN;
    conn->opened_us = conn_now_us(conns);
    conn->frame_us = 0;
    conn->paid_us = 0;
    conn->write_us = 0;
    conn->queued_bytes = 0;
    conn->body_bytes = 0;
    conn->doomed = NULL;
    conn->leaving = false;
    conn->paused = false;
    memset(&conn->peer, 0, sizeof conn->peer);
    frame_parser_init(&conn->parser, FRAME_STATE_STRANGER);
    stranger_link(conns, conn);
    conns->counters.open++;
    conns->counters.accepted++;
    conns->events.opened_cb(conns->owner, conn_id(conn));
}

static void take_waiting_connection(struct conns *conns)
{
    struct conn *conn;
    int length = sizeof conn->peer;

    if (!conns->stalled || conns->stopping)
        return;
    conn = slot_take(conns);
    if (conn == NULL)
        return;
    conns->stalled = false;
    slot_open(conns, conn);
    if (uv_accept((uv_stream_t *)&conns->listener, (uv_stream_t *)&conn->tcp) != 0) {
        conn_end(conn, "it could not be accepted");
        return;
    }
    (void)uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&conn->peer, &length);
    set_socket(conn);
    read_on(conn);
}

static void on_connection(uv_stream_t *listener, int status)
{
    struct conns *conns = listener->data;

    if (status != 0)
        return;
    conns->stalled = true;
    if (conns->counters.strangers >= conns->limits.stranger_count) {
        conns->counters.slow++;
        conn_end(conns->slots[conns->oldest], "it was silent, and newer connections waited");
    }
    take_waiting_connection(conns);
}

/* ---- the table ------------------------------------------------------------------------------ */

void conns_admit(struct conns *conns, uint64_t id)
{
    struct conn *conn = conn_find(conns, id);

    if (conn == NULL || !conn->stranger)
        return;
    stranger_unlink(conns, conn);
    frame_parser_admit(&conn->parser);
}

void conns_close(struct conns *conns, uint64_t id)
{
    struct conn *conn = conn_find(conns, id);

    if (conn == NULL)
        return;
    conn->leaving = true;
    if (conn->queued_bytes == 0)
        conn_doom(conn, "");
}

static const char *overdue(const struct conn *conn, const struct conn_limits *limits,
                           uint64_t now)
{
    if (conn->doomed != NULL)
        return conn->doomed;
    if (conn->stranger && now > conn->opened_us + limits->handshake_ms * 1000ull)
        return "it did not introduce itself in time";
    if (conn->frame_us != 0 && now > conn->frame_us + limits->frame_ms * 1000ull)
        return "it began a frame and did not end it in time";
    if (conn->write_us != 0 && now > conn->write_us + limits->write_ms * 1000ull)
        return "it does not read what is sent to it";
    return NULL;
}

void conns_judge(struct conns *conns, uint64_t now)
{
    for (uint32_t i = 0; i < conns->limits.conn_count; i++) {
        struct conn *conn = conns->slots[i];
        const char *why;

        if (conn == NULL || conn->state != CONN_OPEN)
            continue;
        why = overdue(conn, &conns->limits, now);
        if (why != NULL) {
            conns->counters.slow += conn->doomed == NULL;
            conn_end(conn, why);
        } else if (conn->paused && frames_left(conn) > 0) {
            read_on(conn);
        }
    }
}

void conns_peer(const struct conns *conns, uint64_t id, char *text, size_t text_bytes)
{
    struct conn *conn = conn_find(conns, id);

    if (text_bytes == 0)
        return;
    text[0] = '\0';
    if (conn == NULL)
        return;
    if (conn->peer.sin6_family == AF_INET)
        (void)uv_ip4_name((const struct sockaddr_in *)&conn->peer, text, text_bytes);
    else if (conn->peer.sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&conn->peer.sin6_addr))
        (void)uv_inet_ntop(AF_INET, &conn->peer.sin6_addr.s6_addr[12], text, text_bytes);
    else if (conn->peer.sin6_family == AF_INET6)
        (void)uv_ip6_name(&conn->peer, text, text_bytes);
}

void conns_address(const struct conns *conns, char *text, size_t text_bytes)
{
    struct sockaddr_storage address = {0};
    int length = sizeof address;

    (void)uv_tcp_getsockname(&conns->listener, (struct sockaddr *)&address, &length);
    netaddr_text(&address, text, text_bytes);
}

void conns_counters(const struct conns *conns, struct conn_counters *counters)
{
    *counters = conns->counters;
}

static int table_init(struct conns *conns)
{
    uint32_t count = conns->limits.conn_count;

    conns->slots = calloc(count, sizeof *conns->slots);
    conns->free_slots = calloc(count, sizeof *conns->free_slots);
    if (conns->slots == NULL || conns->free_slots == NULL)
        return UV_ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        conns->free_slots[i] = count - 1 - i;
    conns->free_count = count;
    conns->oldest = conns->newest = CONN_NOBODY;
    return 0;
}

static void table_release(struct conns *conns)
{
    for (uint32_t i = 0; conns->slots != NULL && i < conns->limits.conn_count; i++)
        free(conns->slots[i]);
    free(conns->slots);
    free(conns->free_slots);
    free(conns);
}

/* The table goes with the last of its handles, whichever that is. */
static void release_when_closed(struct conns *conns)
{
    if (conns->listener_closed && conns->counters.open == 0)
        table_release(conns);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct conns *conns = handle->data;

    conns->listener_closed = true;
    release_when_closed(conns);
}

int conns_open(struct conns **out, uv_loop_t *loop, const struct conn_limits *limits,
               const struct conn_events *events, void *owner, const struct sockaddr *address,
               char *error, size_t error_bytes)
{
    struct conns *conns = calloc(1, sizeof *conns);
    int status = UV_ENOMEM;

    *out = NULL;
    if (conns == NULL)
        goto done;
    conns->loop = loop;
    conns->limits = *limits;
    conns->events = *events;
    conns->owner = owner;
    status = table_init(conns);
    if (status != 0) {
        table_release(conns);
        goto done;
    }
    status = uv_tcp_init(loop, &conns->listener);
    conns->listener.data = conns;
    if (status == 0)
        status = uv_tcp_bind(&conns->listener, address, 0);
    if (status == 0)
        status = uv_listen((uv_stream_t *)&conns->listener, 4096, on_connection);
    if (status != 0) {
        conns_stop(conns);
        goto done;
    }
    *out = conns;
done:
    if (status != 0)
        (void)snprintf(error, error_bytes, "%s", uv_strerror(status));
    return status;
}

void conns_stop(struct conns *conns)
{
    if (conns == NULL)
        return;
    conns->stopping = true;
    for (uint32_t i = 0; i < conns->limits.conn_count; i++)
        if (conns->slots[i] != NULL && conns->slots[i]->state == CONN_OPEN)
            conn_end(conns->slots[i], "");
    uv_close((uv_handle_t *)&conns->listener, on_listener_closed);
}
