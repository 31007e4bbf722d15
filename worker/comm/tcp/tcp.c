/* The end: where it listens, which generation it is in, and the one tick of all deadlines.
 *
 * Invariants
 *   1. No callback of the owner runs inside comm_send, and none inside comm_enter but drop_cb for
 *      frames of those who depart: what enter makes possible happens in prepare_cb.
 *   2. `number` never falls; running says whether that generation is still on.
 *   3. A gap between two ticks (the process was stopped) moves every deadline by the gap: we must
 *      not accuse others of our own absence. */
#include "comm/tcp/tcp.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "comm/tcp/address.h"
#include "comm/tcp/end.h"

#define LISTEN_BACKLOG 256
#define ACCEPTS_PER_TURN 32
#define TICK_BUSY_MS 20  /* while somebody is being connected */
#define TICK_IDLE_MS 500
#define GAP_MS 1000      /* a tick later than this was no tick: we were away */
#define LOG_EVERY_MS 100 /* strangers may come in floods, log lines not */

static struct tcp_end *end_of(struct comm *comm)
{
    return (struct tcp_end *)comm;
}

uint64_t tcp_now_ms(const struct tcp_end *end)
{
    return uv_now(end->loop);
}

void tcp_log(struct tcp_end *end, const char *format, ...)
{
    char text[COMM_TEXT_BYTES];
    uint64_t now_ms = tcp_now_ms(end);
    va_list args;
    if (end->events.log_cb == NULL || now_ms - end->logged_ms < LOG_EVERY_MS) {
        return;
    }
    end->logged_ms = now_ms;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    end->events.log_cb(end->owner, text);
}

static void end_free(struct tcp_end *end)
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        free(end->peers[slot]);
    }
    tcp_send_deliver(end);
    tcp_send_free_spares(end);
    free(end->slot_of_rank);
    OPENSSL_cleanse(end->key, sizeof end->key);
    free(end);
}

/* One libuv handle or look-up less. */
void tcp_handle_closed(struct tcp_end *end)
{
    end->handles--;
    if (end->closing && end->handles == 0) {
        end_free(end);
    }
}

static void handle_closed_cb(uv_handle_t *handle)
{
    tcp_handle_closed(handle->data);
}

/* ---- accepting ------------------------------------------------------------------------------- */

/* Room for one more connection that has not proven itself: the oldest of them goes. */
static void make_room(struct tcp_end *end)
{
    struct tcp_link *oldest = NULL;
    if (end->unproven_count < end->limits.unproven_count) {
        return;
    }
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        if (link->state == LINK_WANT_HELLO || link->state == LINK_WANT_PROOF) {
            oldest = link; /* new ones are put in front */
        }
    }
    if (oldest != NULL) {
        tcp_link_failed(oldest, COMM_LOST_STRANGER, "too many that have not proven themselves");
    }
}

static void listen_poll(struct tcp_end *end, unsigned which, bool on);

static void accept_one(struct tcp_end *end, int fd, bool local)
{
    make_room(end);
    struct tcp_link *link = tcp_link_new(end, fd, false, local);
    if (link != NULL) {
        tcp_link_poll(link);
        tcp_timer_arm(end);
    }
}

static void listen_cb(uv_poll_t *handle, int status, int events)
{
    struct tcp_end *end = handle->data;
    unsigned which = handle == &end->listen_polls[1];
    (void)status;
    (void)events;
    for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(end->listeners[which], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            accept_one(end, fd, which == 1);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            tcp_log(end, "data plane: cannot accept: %s", strerror(errno));
            end->listen_paused = true;
            listen_poll(end, 0, false);
            listen_poll(end, 1, false);
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return;
        }
    }
}

static void listen_poll(struct tcp_end *end, unsigned which, bool on)
{
    if (end->listeners[which] < 0) {
        return;
    }
    if (on) {
        uv_poll_start(&end->listen_polls[which], UV_READABLE, listen_cb);
    } else {
        uv_poll_stop(&end->listen_polls[which]);
    }
}

/* ---- deadlines and the work before the loop sleeps ------------------------------------------- */

static bool is_busy(const struct tcp_end *end)
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->running && end->peers[slot] != NULL && end->peers[slot]->state == PEER_ABSENT) {
            return true;
        }
    }
    return end->unproven_count > 0 || end->listen_paused;
}

/* Not beyond now: the link may have moved after the tick from which the gap is counted. */
static uint64_t shifted(uint64_t since_ms, uint64_t gap_ms, uint64_t now_ms)
{
    return now_ms - since_ms < gap_ms ? now_ms : since_ms + gap_ms;
}

static void shift_deadlines(struct tcp_end *end, uint64_t gap_ms, uint64_t now_ms)
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL) {
            end->peers[slot]->dial.deadline_ms += gap_ms;
        }
    }
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        link->born_ms = shifted(link->born_ms, gap_ms, now_ms);
        link->read_ms = shifted(link->read_ms, gap_ms, now_ms);
        link->write_ms = shifted(link->write_ms, gap_ms, now_ms);
    }
}

static void tick_peers(struct tcp_end *end, uint64_t now_ms)
{
    for (uint32_t slot = 0; end->running && slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL) {
            tcp_peer_tick(end, end->peers[slot], now_ms);
        }
    }
}

static void timer_cb(uv_timer_t *timer)
{
    struct tcp_end *end = timer->data;
    uint64_t now_ms = tcp_now_ms(end);
    uint64_t passed_ms = now_ms - end->ticked_ms;
    end->ticked_ms = now_ms;
    if (passed_ms > GAP_MS) {
        shift_deadlines(end, passed_ms, now_ms);
    }
    if (end->listen_paused) {
        end->listen_paused = false;
        listen_poll(end, 0, true);
        listen_poll(end, 1, true);
    }
    tick_peers(end, now_ms);
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        tcp_link_tick(link, now_ms);
    }
    tcp_send_deliver(end);
    tcp_timer_arm(end);
}

void tcp_timer_arm(struct tcp_end *end)
{
    uint64_t every_ms = is_busy(end) ? TICK_BUSY_MS : TICK_IDLE_MS;
    if (!end->closing && uv_timer_get_due_in(&end->timer) > every_ms) {
        uv_timer_start(&end->timer, timer_cb, every_ms, TICK_IDLE_MS);
    } else if (!end->closing && !uv_is_active((uv_handle_t *)&end->timer)) {
        uv_timer_start(&end->timer, timer_cb, every_ms, TICK_IDLE_MS);
    }
}

/* After enter: messages that waited for this generation, members to dial, perhaps nobody else at
 * all. */
static void wake(struct tcp_end *end)
{
    end->wake = false;
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        if (link->held && link->state != LINK_CLOSED) {
            link->held = false;
            tcp_receive_parse(link);
            tcp_link_poll(link);
        }
    }
    tick_peers(end, tcp_now_ms(end));
    tcp_peer_check_ready(end);
}

static void prepare_cb(uv_prepare_t *prepare)
{
    struct tcp_end *end = prepare->data;
    while (end->wake && !end->closing) {
        wake(end);
    }
    if (end->dirty) {
        tcp_send_flush_all(end);
    }
    tcp_send_deliver(end);
}

/* ---- the vtable ------------------------------------------------------------------------------ */

static void address_op(struct comm *comm, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "%s", end_of(comm)->address);
}

static enum comm_error enter_op(struct comm *comm, const struct comm_generation *generation)
{
    struct tcp_end *end = end_of(comm);
    bool again = generation->number == end->number && generation->nonce == end->nonce &&
                 generation->me == COMM_VISITOR && end->me == COMM_VISITOR && end->running;
    if (generation->number <= end->number && !again) {
        return COMM_OLDER;
    }
    enum comm_error error = tcp_peer_roster(end, generation);
    if (error != COMM_OK) {
        return error;
    }
    end->number = generation->number;
    end->nonce = generation->nonce;
    memcpy(end->key, generation->key, COMM_KEY_BYTES);
    end->running = true;
    end->ready = false;
    end->wake = true;
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL && end->peers[slot]->link != NULL) {
            tcp_handshake_enter(end, end->peers[slot]->link);
        }
    }
    tcp_timer_arm(end);
    return COMM_OK;
}

static void halt_op(struct comm *comm)
{
    struct tcp_end *end = end_of(comm);
    end->running = false;
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL) {
            tcp_dial_stop(end, end->peers[slot]);
        }
    }
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        if (link->state == LINK_DRAINING) {
            tcp_send_disown(link);
        } else {
            tcp_send_cancel(link);
        }
        tcp_receive_drop(link);
    }
    tcp_send_deliver(end);
}

static enum comm_error send_op(struct comm *comm, uint32_t peer, const struct comm_frame *frame,
                               const struct comm_part *parts, uint32_t part_count, void *tag)
{
    return tcp_send(end_of(comm), peer, frame, parts, part_count, tag);
}

static uint32_t usable(const struct tcp_peer *peer)
{
    return peer != NULL && peer->state == PEER_ANNOUNCED ? peer->handle : COMM_NO_PEER;
}

static uint32_t peer_at_op(struct comm *comm, uint32_t rank)
{
    struct tcp_end *end = end_of(comm);
    if (rank >= end->world || rank == end->me) {
        return COMM_NO_PEER;
    }
    return usable(end->peers[end->slot_of_rank[rank]]);
}

static uint32_t peer_of_op(struct comm *comm, const uint8_t id[COMM_ID_BYTES])
{
    return usable(tcp_peer_find(end_of(comm), id));
}

static const struct comm_member *member_op(struct comm *comm, uint32_t peer)
{
    const struct tcp_peer *found = tcp_peer_get(end_of(comm), peer);
    return found != NULL ? &found->member : NULL;
}

static void counters_op(struct comm *comm, struct comm_counters *counters)
{
    struct timespec cpu = {0, 0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    *counters = end_of(comm)->counters;
    counters->thread_cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
}

static void close_listener(struct tcp_end *end, unsigned which)
{
    if (end->listeners[which] >= 0) {
        uv_close((uv_handle_t *)&end->listen_polls[which], handle_closed_cb);
        close(end->listeners[which]);
        end->listeners[which] = -1;
    }
}

static void close_op(struct comm *comm)
{
    struct tcp_end *end = end_of(comm);
    halt_op(comm);
    end->closing = true;
    for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
        tcp_link_close(link);
    }
    tcp_send_deliver(end);
    close_listener(end, 0);
    close_listener(end, 1);
    uv_close((uv_handle_t *)&end->timer, handle_closed_cb);
    uv_close((uv_handle_t *)&end->prepare, handle_closed_cb);
}

static const struct comm_ops tcp_ops = {
    .name = "tcp",
    .address = address_op,
    .enter = enter_op,
    .halt = halt_op,
    .send = send_op,
    .peer_at = peer_at_op,
    .peer_of = peer_of_op,
    .member = member_op,
    .counters = counters_op,
    .close = close_op,
};

/* ---- opening --------------------------------------------------------------------------------- */

static bool find_address(const char *listen_at, struct sockaddr_storage *address, char *error,
                         size_t error_bytes)
{
    struct address_parts parts;
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    char port[8];
    if (!address_split(listen_at, &parts)) {
        snprintf(error, error_bytes, "cannot listen on %s: not of the form HOST:PORT", listen_at);
        return false;
    }
    if (address_numeric(&parts, address)) {
        return true;
    }
    snprintf(port, sizeof port, "%u", parts.port);
    int status = getaddrinfo(parts.host, port, &hints, &found);
    if (status != 0) {
        snprintf(error, error_bytes, "cannot listen on %s: %s", listen_at, gai_strerror(status));
        return false;
    }
    memcpy(address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return true;
}

/* A listening socket; -1: errno says why. */
static int listen_socket(const struct sockaddr *address, socklen_t bytes)
{
    int one = 1;
    int zero = 0;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    }
    if (bind(fd, address, bytes) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
        int cause = errno;
        close(fd);
        errno = cause;
        return -1;
    }
    return fd;
}

static bool listen_all(struct tcp_end *end, const char *listen_at, char *error, size_t error_bytes)
{
    struct sockaddr_storage address;
    struct sockaddr_un name;
    socklen_t bytes = sizeof address;
    if (!find_address(listen_at, &address, error, error_bytes)) {
        return false;
    }
    end->listeners[0] = listen_socket((struct sockaddr *)&address, address_bytes(&address));
    if (end->listeners[0] < 0) {
        snprintf(error, error_bytes, "cannot listen on %s: %s", listen_at, strerror(errno));
        return false;
    }
    getsockname(end->listeners[0], (struct sockaddr *)&address, &bytes);
    address_text(&address, end->address, sizeof end->address);
    if (end->limits.same_host) {
        /* Without it (no abstract names, or the id is taken) neighbours come by TCP. */
        bytes = address_unix(end->id, &name);
        end->listeners[1] = listen_socket((struct sockaddr *)&name, bytes);
    }
    return true;
}

/* false: the loop takes no more descriptors; that listener is closed. */
static bool start_listener(struct tcp_end *end, unsigned which)
{
    int fd = end->listeners[which];
    end->listen_polls[which].data = end;
    if (fd < 0) {
        return true;
    }
    if (uv_poll_init_socket(end->loop, &end->listen_polls[which], fd) != 0) {
        close(fd);
        end->listeners[which] = -1;
        return false;
    }
    end->handles++;
    listen_poll(end, which, true);
    return true;
}

enum comm_error comm_tcp_open(uv_loop_t *loop, const char *listen_at,
                              const uint8_t id[COMM_ID_BYTES], const struct comm_events *events,
                              void *owner, const struct comm_limits *limits, struct comm **comm,
                              char *error, size_t error_bytes)
{
    struct tcp_end *end = calloc(1, sizeof *end);
    *comm = NULL;
    if (end == NULL) {
        snprintf(error, error_bytes, "cannot listen on %s: out of memory", listen_at);
        return COMM_MEMORY;
    }
    end->comm.ops = &tcp_ops;
    end->loop = loop;
    end->events = *events;
    end->owner = owner;
    end->me = COMM_VISITOR;
    end->listeners[0] = -1;
    end->listeners[1] = -1;
    memcpy(end->id, id, COMM_ID_BYTES);
    comm_limits_default(&end->limits);
    if (limits != NULL) {
        end->limits = *limits;
    }
    if (!listen_all(end, listen_at, error, error_bytes)) {
        free(end);
        return COMM_ADDRESS;
    }
    end->prepare.data = end;
    end->timer.data = end;
    uv_prepare_init(loop, &end->prepare);
    uv_timer_init(loop, &end->timer);
    end->handles = 2;
    bool tcp_listens = start_listener(end, 0);
    bool unix_listens = start_listener(end, 1);
    if (!tcp_listens || !unix_listens) {
        snprintf(error, error_bytes, "cannot listen on %s: the event loop refused", listen_at);
        close_op(&end->comm);
        return COMM_SYSTEM;
    }
    uv_prepare_start(&end->prepare, prepare_cb);
    end->ticked_ms = tcp_now_ms(end);
    tcp_timer_arm(end);
    *comm = &end->comm;
    return COMM_OK;
}
