/* One socket: its poll handle, its state, its end.
 *
 * Invariants
 *   1. The descriptor is closed at once when the link is; the memory goes when libuv lets go of the
 *      handle.
 *   2. A link that is closed has no queue, no place and no peer. */
#include "comm/tcp/address.h"
#include "comm/tcp/end.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Inside a host: large enough that two processes work at the same time, small enough to stay in a
 * cache. Left to itself TCP lets a queue grow to megabytes on loopback too, and each byte then
 * comes from memory: 64 MiB between two processes took 1.5 times as long. */
#define LOCAL_BUFFER_BYTES (512 * 1024)
#define LOOPBACK_BUFFER_BYTES (256 * 1024) /* the kernel doubles it */
#define DRAIN_MS 5000 /* what is queued for one who has departed must leave within this time */

static bool is_unproven(const struct tcp_link *link)
{
    return link->state == LINK_WANT_HELLO || link->state == LINK_WANT_PROOF;
}

static void closed_cb(uv_handle_t *handle)
{
    struct tcp_link *link = handle->data;
    struct tcp_end *end = link->end;
    struct tcp_link **at = &end->links;
    while (*at != link) {
        at = &(*at)->next;
    }
    *at = link->next;
    free(link);
    tcp_handle_closed(end);
}

/* An error is pending on the socket (libuv stops polling then), or it ended: read what is left of
 * it. */
static void ended(struct tcp_link *link)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    if (link->state == LINK_CONNECTING) {
        getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
        tcp_dial_failed(link->end, link, strerror(error));
    } else if (link->held) {
        tcp_link_failed(link, COMM_LOST_CLOSED, "it closed the connection");
    } else {
        link->events = 0;
        tcp_receive(link, true);
        tcp_link_poll(link);
    }
}

static void poll_cb(uv_poll_t *handle, int status, int events)
{
    struct tcp_link *link = handle->data;
    if (status < 0 || ((events & UV_DISCONNECT) != 0 && link->held)) {
        ended(link);
        return;
    }
    if ((events & UV_WRITABLE) != 0 && link->state == LINK_CONNECTING) {
        tcp_dial_connected(link);
        return;
    }
    if ((events & UV_READABLE) != 0) {
        tcp_receive(link, false);
    }
    if ((events & UV_WRITABLE) != 0 && link->state != LINK_CLOSED) {
        tcp_send_flush(link);
    }
}

static void set_options(const struct tcp_end *end, int fd, bool local)
{
    int one = 1;
    int idle_s = 5;
    int every_s = 2;
    int probes = 3;
    int buffer = (int)end->limits.buffer_bytes;
    unsigned user_ms = end->limits.progress_ms;
    if (buffer == 0 && local) {
        buffer = LOCAL_BUFFER_BYTES;
    }
    if (buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
    if (!local) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
        setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_ms, sizeof user_ms);
    }
}

/* It is connected. Between hosts TCP is left to the kernel, which adapts it to the network. */
void tcp_link_connected(struct tcp_link *link)
{
    int buffer = LOOPBACK_BUFFER_BYTES;
    if (!link->local && link->end->limits.buffer_bytes == 0 && address_same_host(link->fd)) {
        setsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    }
}

/* Takes the descriptor in any case; NULL: out of memory. */
struct tcp_link *tcp_link_new(struct tcp_end *end, int fd, bool dialed, bool local)
{
    struct tcp_link *link = calloc(1, sizeof *link);
    if (link == NULL || uv_poll_init_socket(end->loop, &link->poll, fd) != 0) {
        free(link);
        close(fd);
        return NULL;
    }
    set_options(end, fd, local);
    link->poll.data = link;
    link->end = end;
    link->fd = fd;
    link->dialed = dialed;
    link->local = local;
    link->state = dialed ? LINK_CONNECTING : LINK_WANT_HELLO;
    link->born_ms = tcp_now_ms(end);
    link->read_ms = link->born_ms;
    link->next = end->links;
    end->links = link;
    end->handles++;
    end->unproven_count += !dialed;
    if (!dialed) {
        tcp_link_connected(link);
    }
    return link;
}

void tcp_link_poll(struct tcp_link *link)
{
    int events = 0;
    if (link->state == LINK_CLOSED) {
        return;
    }
    if (link->state == LINK_CONNECTING) {
        events = UV_WRITABLE;
    } else {
        events = link->held ? UV_DISCONNECT : UV_READABLE;
        events |= link->queue.first != NULL && link->broken == 0 ? UV_WRITABLE : 0;
    }
    if (events != link->events) {
        link->events = events;
        uv_poll_start(&link->poll, events, poll_cb);
    }
}

void tcp_link_close(struct tcp_link *link)
{
    if (link->state == LINK_CLOSED) {
        return;
    }
    link->end->unproven_count -= is_unproven(link);
    link->state = LINK_CLOSED;
    uv_close((uv_handle_t *)&link->poll, closed_cb);
    close(link->fd);
    link->fd = -1;
    tcp_receive_drop(link);
    tcp_send_abandon(link);
    link->peer = NULL;
    OPENSSL_cleanse(link->key, sizeof link->key);
}

/* Its peer is no longer ours: let what is queued leave, listen to nothing. */
void tcp_link_depart(struct tcp_link *link)
{
    tcp_receive_drop(link);
    tcp_send_keep(link);
    link->peer = NULL;
    link->state = LINK_DRAINING;
    link->held = false;
    link->input_start = 0;
    link->input_end = 0;
    link->born_ms = tcp_now_ms(link->end);
    link->dirty = true;
    link->end->dirty = true;
    tcp_link_poll(link);
}

/* The link is over; who is told depends on how far it had come. */
void tcp_link_failed(struct tcp_link *link, enum comm_loss why, const char *cause)
{
    struct tcp_end *end = link->end;
    switch (link->state) {
    case LINK_CONNECTING:
    case LINK_WANT_ANSWER:
        tcp_dial_failed(end, link, cause);
        break;
    case LINK_WANT_HELLO:
    case LINK_WANT_PROOF:
        end->counters.strangers++;
        tcp_log(end, "data plane: refused a connection: %s", cause);
        tcp_link_close(link);
        break;
    case LINK_OPEN:
        tcp_peer_lost(end, link->peer, why, "%s", cause);
        break;
    case LINK_DRAINING:
        tcp_link_close(link);
        break;
    case LINK_CLOSED:
        break;
    }
}

static bool half_way(const struct tcp_link *link)
{
    return !link->held && (link->stage != STAGE_HEADER || link->input_end > link->input_start);
}

void tcp_link_tick(struct tcp_link *link, uint64_t now_ms)
{
    const struct comm_limits *limits = &link->end->limits;
    char cause[COMM_TEXT_BYTES];
    if (link->state == LINK_DRAINING) {
        if (now_ms - link->born_ms > DRAIN_MS) {
            tcp_link_close(link);
        }
    } else if (link->state != LINK_OPEN) {
        if (link->state != LINK_CLOSED && link->state != LINK_CONNECTING &&
            now_ms - link->born_ms > limits->handshake_ms) {
            tcp_link_failed(link, COMM_LOST_UNREACHABLE, "no proof within the deadline");
        }
    } else if (half_way(link) && now_ms - link->read_ms > limits->progress_ms) {
        snprintf(cause, sizeof cause, "it sent half a frame, then nothing for %.1f s",
                 (double)(now_ms - link->read_ms) / 1000.0);
        tcp_link_failed(link, COMM_LOST_UNREACHABLE, cause);
    } else if (link->queue.first != NULL && now_ms - link->write_ms > limits->progress_ms) {
        snprintf(cause, sizeof cause, "it took no byte for %.1f s",
                 (double)(now_ms - link->write_ms) / 1000.0);
        tcp_link_failed(link, COMM_LOST_UNREACHABLE, cause);
    }
}
