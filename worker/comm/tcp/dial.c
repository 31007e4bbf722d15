/* Connecting to a member: its Unix socket if it is on this host, then its address by TCP, again and
 * again with growing pauses until it is reached or the deadline has passed (peer.c watches that).
 *
 * Invariants
 *   1. At most one attempt is under way: a look-up, or a link in LINK_CONNECTING or
 *      LINK_WANT_ANSWER.
 *   2. The attempt knows its peer and the peer its attempt; whoever ends it cuts both. */
#include "comm/tcp/end.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/tcp/address.h"

#define BACKOFF_FIRST_MS 20
#define BACKOFF_MOST_MS 500

/* A look-up in libuv's thread pool. */
struct tcp_resolve {
    uv_getaddrinfo_t request;
    struct tcp_end *end;
    struct tcp_peer *peer; /* NULL: nobody waits for it any more */
};

static void note(struct tcp_dial *dial, const char *cause)
{
    snprintf(dial->last, sizeof dial->last, "%s", cause);
}

static void later(struct tcp_end *end, struct tcp_dial *dial)
{
    dial->next_ms = tcp_now_ms(end) + dial->backoff_ms;
    dial->backoff_ms *= 2;
    if (dial->backoff_ms > BACKOFF_MOST_MS) {
        dial->backoff_ms = BACKOFF_MOST_MS;
    }
    dial->address_next = 0;
    dial->address_count = 0;
    tcp_timer_arm(end);
}

void tcp_dial_reset(struct tcp_end *end, struct tcp_peer *peer, bool wanted)
{
    tcp_dial_stop(end, peer);
    memset(&peer->dial, 0, sizeof peer->dial);
    peer->dial.wanted = wanted;
    peer->dial.backoff_ms = BACKOFF_FIRST_MS;
    peer->dial.next_ms = tcp_now_ms(end);
    peer->dial.deadline_ms = peer->dial.next_ms + end->limits.connect_ms;
}

void tcp_dial_stop(struct tcp_end *end, struct tcp_peer *peer)
{
    struct tcp_dial *dial = &peer->dial;
    (void)end;
    if (dial->link != NULL) {
        struct tcp_link *link = dial->link;
        dial->link = NULL;
        link->peer = NULL;
        tcp_link_close(link);
    }
    if (dial->resolve != NULL) {
        dial->resolve->peer = NULL;
        uv_cancel((uv_req_t *)&dial->resolve->request);
        dial->resolve = NULL;
    }
}

/* A socket on its way: true when the attempt goes on. */
static bool start_socket(struct tcp_end *end, struct tcp_peer *peer, const struct sockaddr *address,
                         socklen_t bytes)
{
    bool local = address->sa_family == AF_UNIX;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note(&peer->dial, strerror(errno));
        return false;
    }
    if (connect(fd, address, bytes) != 0 && errno != EINPROGRESS) {
        note(&peer->dial, strerror(errno));
        close(fd);
        return false;
    }
    struct tcp_link *link = tcp_link_new(end, fd, true, local);
    if (link == NULL) {
        note(&peer->dial, "out of memory");
        return false;
    }
    link->peer = peer;
    peer->dial.link = link;
    tcp_link_poll(link);
    return true;
}

/* The addresses found, one after another. */
static void next_address(struct tcp_end *end, struct tcp_peer *peer)
{
    struct tcp_dial *dial = &peer->dial;
    while (dial->address_next < dial->address_count) {
        const struct sockaddr_storage *at = &dial->addresses[dial->address_next++];
        if (start_socket(end, peer, (const struct sockaddr *)at, address_bytes(at))) {
            return;
        }
    }
    later(end, dial);
}

static void take_addresses(struct tcp_dial *dial, const struct addrinfo *found)
{
    dial->address_count = 0;
    for (; found != NULL && dial->address_count < DIAL_ADDRESSES; found = found->ai_next) {
        if (found->ai_family == AF_INET || found->ai_family == AF_INET6) {
            memcpy(&dial->addresses[dial->address_count++], found->ai_addr, found->ai_addrlen);
        }
    }
}

static void resolved_cb(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct tcp_resolve *resolve = request->data;
    struct tcp_end *end = resolve->end;
    struct tcp_peer *peer = resolve->peer;
    free(resolve);
    if (peer != NULL) {
        peer->dial.resolve = NULL;
        take_addresses(&peer->dial, status == 0 ? found : NULL);
        if (status != 0) {
            note(&peer->dial, uv_strerror(status));
        }
        next_address(end, peer);
    }
    uv_freeaddrinfo(found);
    tcp_handle_closed(end);
}

static void resolve_name(struct tcp_end *end, struct tcp_peer *peer,
                         const struct address_parts *parts)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];
    struct tcp_resolve *resolve = calloc(1, sizeof *resolve);
    snprintf(port, sizeof port, "%u", parts->port);
    if (resolve == NULL) {
        note(&peer->dial, "out of memory");
        later(end, &peer->dial);
        return;
    }
    resolve->end = end;
    resolve->peer = peer;
    resolve->request.data = resolve;
    int error =
        uv_getaddrinfo(end->loop, &resolve->request, resolved_cb, parts->host, port, &hints);
    if (error != 0) {
        free(resolve);
        note(&peer->dial, uv_strerror(error));
        later(end, &peer->dial);
        return;
    }
    peer->dial.resolve = resolve;
    end->handles++;
}

static void attempt_tcp(struct tcp_end *end, struct tcp_peer *peer)
{
    struct address_parts parts;
    if (!address_split(peer->member.address, &parts) || parts.host[0] == '\0') {
        note(&peer->dial, "this is no address");
        later(end, &peer->dial);
    } else if (address_numeric(&parts, &peer->dial.addresses[0])) {
        peer->dial.address_count = 1;
        next_address(end, peer);
    } else {
        resolve_name(end, peer, &parts);
    }
}

static void attempt(struct tcp_end *end, struct tcp_peer *peer)
{
    struct sockaddr_un name;
    socklen_t bytes = address_unix(peer->member.id, &name);
    peer->dial.stranger = false;
    if (!end->limits.same_host ||
        !start_socket(end, peer, (const struct sockaddr *)&name, bytes)) {
        attempt_tcp(end, peer);
    }
}

void tcp_dial_tick(struct tcp_end *end, struct tcp_peer *peer, uint64_t now_ms)
{
    struct tcp_dial *dial = &peer->dial;
    if (dial->wanted && dial->link == NULL && dial->resolve == NULL && now_ms >= dial->next_ms) {
        attempt(end, peer);
    }
}

/* The attempt that the link was is over. What is left to try is tried at once: TCP, another
 * address. */
void tcp_dial_failed(struct tcp_end *end, struct tcp_link *link, const char *cause)
{
    struct tcp_peer *peer = link->peer;
    bool local = link->local;
    note(&peer->dial, cause);
    tcp_dial_stop(end, peer);
    if (local) {
        attempt_tcp(end, peer);
    } else {
        next_address(end, peer);
    }
}

/* It is the right one and says: not now. */
void tcp_dial_refused(struct tcp_end *end, struct tcp_link *link, const char *cause)
{
    struct tcp_peer *peer = link->peer;
    note(&peer->dial, cause);
    tcp_dial_stop(end, peer);
    later(end, &peer->dial);
}

void tcp_dial_connected(struct tcp_link *link)
{
    int error = 0;
    socklen_t bytes = sizeof error;
    if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) != 0 || error != 0) {
        tcp_dial_failed(link->end, link, strerror(error));
        return;
    }
    tcp_link_connected(link);
    tcp_handshake_hello(link);
}
