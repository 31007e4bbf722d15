/* Invariants
 *   1. A slot is free, open or closing; only an open one is known by its id. The serial number of a
 *      slot grows when it is freed, so an old id never finds it.
 *   2. closed_cb is called when the slot leaves "open", from the loop and never from inside
 *      conns_send, whose caller is in the middle of carrying out actions: a send that fails marks
 *      the slot doomed and the next conns_judge or the idle sweep closes it.
 *   3. Strangers are linked in the order in which they were accepted: the oldest is first.
 *   4. Memory of a body that comes in parts belongs to the parser and is freed with the slot.
 *   5. stranger_bytes is the sum of body_bytes of all strangers, waiting_bytes that of the blobs
 *      and write jobs that there are. */
#include "server/conn.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES 65536
#define NOBODY     UINT32_MAX

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
    struct frame_parser parser;
    uint64_t opened_us;         /* loop time of the accept */
    uint64_t frame_us;          /* first byte of an unfinished frame, 0 = none */
    uint64_t write_us;          /* last progress of a queue that is not empty, 0 = empty */
    size_t queued_bytes;        /* see queue_cost() */
    size_t body_bytes;          /* memory of a stranger's unfinished frame */
    const char *doomed;         /* why it must be closed at the next chance, or NULL */
    uint32_t index;
    uint32_t serial;
    uint32_t older, newer;      /* neighbours among the strangers */
    enum conn_state state;
    bool stranger;
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
    uint32_t doomed_count;
    bool stalled;               /* the listener has a connection that was not taken */
    bool stopping;
    bool listener_closed;
    struct conn_counters counters;
    uint8_t read_memory[READ_BYTES]; /* shared: a read is used up before the next begins */
};

void conn_limits_default(struct conn_limits *limits)
{
    limits->conn_count = 18000;
    limits->stranger_count = 1024;
    limits->handshake_ms = 5000;
    limits->frame_ms = 10000;
    limits->write_ms = 10000;
    limits->queue_bytes = 4 * FRAME_BODY_MAX_BYTES;
    limits->stranger_bytes = 64 * FRAME_BODY_MAX_BYTES;
    limits->waiting_bytes = 512 * FRAME_BODY_MAX_BYTES;
}

static uint64_t id_of(const struct conn *conn)
{
    return (uint64_t)conn->serial << 32 | conn->index;
}

static struct conn *find(const struct conns *conns, uint64_t id)
{
    uint32_t index = (uint32_t)id;
    struct conn *conn = index < conns->limits.conn_count ? conns->slots[index] : NULL;

    if (conn == NULL || conn->state != CONN_OPEN || conn->serial != (uint32_t)(id >> 32))
        return NULL;
    return conn;
}

static uint64_t now_us(const struct conns *conns)
{
    return uv_now(conns->loop) * 1000;
}

/* ---- strangers ------------------------------------------------------------------------------ */

static void stranger_link(struct conns *conns, struct conn *conn)
{
    conn->stranger = true;
    conn->older = conns->newest;
    conn->newer = NOBODY;
    if (conns->newest != NOBODY)
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
    if (conn->older != NOBODY)
        conns->slots[conn->older]->newer = conn->newer;
    else
        conns->oldest = conn->newer;
    if (conn->newer != NOBODY)
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

static void conn_end(struct conn *conn, const char *why)
{
    struct conns *conns = conn->conns;
    uint64_t id = id_of(conn);

    assert(conn->state == CONN_OPEN);
    if (conn->doomed != NULL)
        conns->doomed_count--;
    stranger_unlink(conns, conn);
    conn->state = CONN_CLOSING;
    uv_close((uv_handle_t *)&conn->tcp, on_slot_closed);
    conns->events.closed_cb(conns->owner, id, why);
}

static void conn_doom(struct conn *conn, const char *why)
{
    if (conn->doomed == NULL)
        conn->conns->doomed_count++;
    conn->doomed = why;
}

/* ---- reading -------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct conn *conn = handle->data;

    (void)suggested;
    *buffer = uv_buf_init((char *)conn->conns->read_memory, READ_BYTES);
}

/* Strangers share a budget for frames that come in parts: the oldest such makes room. */
static void stranger_make_room(struct conn *conn, size_t bytes)
{
    struct conns *conns = conn->conns;
    uint32_t next = conns->oldest;

    while (next != NOBODY && conns->stranger_bytes + bytes > conns->limits.stranger_bytes) {
        struct conn *other = conns->slots[next];

        next = other->newer;
        if (other == conn || other->body_bytes == 0)
            continue;
        conns->counters.slow++;
        conn_end(other, "its frame came slowly, and newer connections needed the memory");
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

/* Everything in the input; ends the connection itself when it is broken. */
static void read_input(struct conn *conn, const uint8_t *bytes, size_t length)
{
    uint64_t id = id_of(conn);

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
            conn->conns->counters.refused_frames++;
            conn_end(conn, frame_error_text(conn->parser.error));
            return;
        case FRAME_NEED_HEADER:
        case FRAME_NEED_BODY:
        default:
            if (frame_begun(&conn->parser) && conn->frame_us == 0)
                conn->frame_us = now_us(conn->conns);
            return;
        }
    }
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
        conn_end(conn, count == UV_EOF ? "the connection ended" : uv_strerror((int)count));
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
    conn->opened_us = now_us(conns);
    conn->frame_us = 0;
    conn->write_us = 0;
    conn->queued_bytes = 0;
    conn->body_bytes = 0;
    conn->doomed = NULL;
    conn->leaving = false;
    frame_parser_init(&conn->parser, FRAME_STATE_STRANGER);
    stranger_link(conns, conn);
    conns->counters.open++;
    conns->counters.accepted++;
    conns->events.opened_cb(conns->owner, id_of(conn));
}

static void take_waiting_connection(struct conns *conns)
{
    struct conn *conn;

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
    set_socket(conn);
    if (uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read) != 0)
        conn_end(conn, "it could not be read");
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

/* ---- writing -------------------------------------------------------------------------------- */

static void blob_release(struct conns *conns, struct blob *blob)
{
    if (blob == NULL || --blob->references > 0)
        return;
    conns->waiting_bytes -= sizeof *blob + blob->bytes;
    free(blob);
}

/* NULL: no memory. */
static struct blob *blob_new(struct conns *conns, const uint8_t *frame, size_t bytes)
{
    struct blob *blob = malloc(sizeof *blob + bytes);

    if (blob == NULL)
        return NULL;
    blob->references = 1;
    blob->bytes = bytes;
    memcpy(blob->data, frame, bytes);
    conns->waiting_bytes += sizeof *blob + bytes;
    return blob;
}

/* What a waiting frame takes from the budget: with its bookkeeping, which for an answer of some 40
 * bytes is most of it. */
static size_t queue_cost(size_t frame_bytes)
{
    return frame_bytes + sizeof(struct blob) + sizeof(struct write_job);
}

static void on_written(uv_write_t *request, int status)
{
    struct write_job *job = request->data;
    struct conn *conn = job->conn;

    conn->queued_bytes -= queue_cost(job->blob->bytes);
    conn->conns->waiting_bytes -= sizeof *job;
    blob_release(conn->conns, job->blob);
    free(job);
    if (conn->state != CONN_OPEN)
        return;
    conn->write_us = conn->queued_bytes > 0 ? now_us(conn->conns) : 0;
    if (status < 0)
        conn_end(conn, uv_strerror(status));
    else if (conn->leaving && conn->queued_bytes == 0)
        conn_end(conn, "closed");
}

/* What try_write left: queued with a share in the blob, made at the first need. */
static int queue_rest(struct conn *conn, struct blob **blob, const uint8_t *frame, size_t bytes,
                      size_t written)
{
    struct write_job *job;
    uv_buf_t buffer;

    if (*blob == NULL)
        *blob = blob_new(conn->conns, frame, bytes);
    job = *blob != NULL ? malloc(sizeof *job) : NULL;
    if (job == NULL)
        return UV_ENOMEM;
    job->request.data = job;
    job->conn = conn;
    job->blob = *blob;
    buffer = uv_buf_init((char *)(*blob)->data + written, (unsigned)(bytes - written));
    if (uv_write(&job->request, (uv_stream_t *)&conn->tcp, &buffer, 1, on_written) != 0) {
        free(job);
        return UV_EPIPE;
    }
    (*blob)->references++;
    conn->conns->waiting_bytes += sizeof *job;
    if (conn->queued_bytes == 0)
        conn->write_us = now_us(conn->conns);
    conn->queued_bytes += queue_cost(bytes);
    return 0;
}

/* May so much more wait for it? When all queues together are too long, for nobody who is behind
 * already. */
static bool may_queue(const struct conn *conn, size_t bytes)
{
    const struct conn_limits *limits = &conn->conns->limits;

    if (conn->queued_bytes > 0 && conn->conns->waiting_bytes + bytes > limits->waiting_bytes)
        return false;
    return conn->queued_bytes + queue_cost(bytes) <= limits->queue_bytes;
}

static void send_one(struct conn *conn, struct blob **blob, const uint8_t *frame, size_t bytes)
{
    size_t written = 0;

    if (conn->queued_bytes == 0) {
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)frame, (unsigned)bytes);
        int done = uv_try_write((uv_stream_t *)&conn->tcp, &buffer, 1);

        if (done < 0 && done != UV_EAGAIN) {
            conn_doom(conn, uv_strerror(done));
            return;
        }
        written = done > 0 ? (size_t)done : 0;
        if (written == bytes)
            return;
    }
    if (!may_queue(conn, bytes)) {
        conn_doom(conn, "it does not read what is sent to it");
        return;
    }
    if (queue_rest(conn, blob, frame, bytes, written) != 0)
        conn_doom(conn, "its frame could not be queued");
}

void conns_send(struct conns *conns, const uint64_t *ids, size_t count, const uint8_t *frame,
                size_t frame_bytes)
{
    struct blob *blob = NULL;

    for (size_t i = 0; i < count; i++) {
        struct conn *conn = find(conns, ids[i]);

        if (conn == NULL || conn->doomed != NULL || conn->leaving)
            continue;
        conns->counters.frames_out++;
        send_one(conn, &blob, frame, frame_bytes);
    }
    blob_release(conns, blob);
}

/* ---- the table ------------------------------------------------------------------------------ */

void conns_admit(struct conns *conns, uint64_t id)
{
    struct conn *conn = find(conns, id);

    if (conn == NULL || !conn->stranger)
        return;
    stranger_unlink(conns, conn);
    frame_parser_admit(&conn->parser);
}

void conns_close(struct conns *conns, uint64_t id)
{
    struct conn *conn = find(conns, id);

    if (conn == NULL)
        return;
    conn->leaving = true;
    if (conn->queued_bytes == 0)
        conn_doom(conn, "closed");
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
        }
    }
}

void conns_peer(const struct conns *conns, uint64_t id, char *text, size_t text_bytes)
{
    struct sockaddr_storage address;
    struct conn *conn = find(conns, id);
    int length = sizeof address;

    if (text_bytes == 0)
        return;
    text[0] = '\0';
    if (conn == NULL ||
        uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &length) != 0)
        return;
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&address;

        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
            (void)uv_inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], text, text_bytes);
        else
            (void)uv_ip6_name(six, text, text_bytes);
    } else {
        (void)uv_ip4_name((const struct sockaddr_in *)&address, text, text_bytes);
    }
}

void conns_address(const struct conns *conns, char *text, size_t text_bytes)
{
    struct sockaddr_storage address;
    int length = sizeof address;
    char host[INET6_ADDRSTRLEN] = "";

    if (uv_tcp_getsockname(&conns->listener, (struct sockaddr *)&address, &length) != 0) {
        (void)snprintf(text, text_bytes, "?");
        return;
    }
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&address;

        (void)uv_ip6_name(six, host, sizeof host);
        (void)snprintf(text, text_bytes, "[%s]:%u", host, ntohs(six->sin6_port));
    } else {
        const struct sockaddr_in *four = (const struct sockaddr_in *)&address;

        (void)uv_ip4_name(four, host, sizeof host);
        (void)snprintf(text, text_bytes, "%s:%u", host, ntohs(four->sin_port));
    }
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
    conns->oldest = conns->newest = NOBODY;
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
            conn_end(conns->slots[i], "the coordinator stops");
    uv_close((uv_handle_t *)&conns->listener, on_listener_closed);
}
