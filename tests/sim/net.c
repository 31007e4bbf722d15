/* Invariants:
 *  - packets of a pipe arrive in the order in which they were said; due_us never goes back in a
 *    pipe;
 *  - an upcall is made only to an end that is open, and never from inside sim_net_say() or
 *    _hang_up();
 *  - a connection is given back when both ends are closed; its serial makes what is left in the
 *    heap void. */
#include "sim/net.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define RETRY_US       UINT64_C(200000) /* first retransmission, and pause between two looks at a
                                           cut path */
#define SMALL_BYTES    1536u            /* memory of a small packet's texts */
#define MEMBER_BYTES   640u             /* of a member in a roster, at most */
#define ROSTER_FIXED_BYTES 8192u

void sim_net_init(struct sim *sim, uint32_t host_count, uint32_t conn_count)
{
    struct sim_net *net = &sim->net;
    *net = (struct sim_net){.host_count = host_count, .conn_count = conn_count};
    net->host_down = calloc(host_count, sizeof *net->host_down);
    net->paths = calloc((size_t)host_count * host_count, sizeof *net->paths);
    net->conns = calloc(conn_count, sizeof *net->conns);
    SIM_REQUIRE(net->host_down != NULL && net->paths != NULL && net->conns != NULL);
}

static void packet_free(struct sim_net *net, struct sim_packet *packet)
{
    if (packet->small) {
        packet->next = net->pool;
        net->pool = packet;
    } else {
        free(packet);
    }
}

static void pipe_clear(struct sim_net *net, struct sim_pipe *pipe)
{
    while (pipe->first != NULL) {
        struct sim_packet *packet = pipe->first;
        pipe->first = packet->next;
        packet_free(net, packet);
    }
    *pipe = (struct sim_pipe){0};
}

void sim_net_release(struct sim *sim)
{
    struct sim_net *net = &sim->net;
    for (uint32_t i = 0; i < net->conn_count; i++) {
        pipe_clear(net, &net->conns[i].pipe[0]);
        pipe_clear(net, &net->conns[i].pipe[1]);
    }
    while (net->pool != NULL) {
        struct sim_packet *packet = net->pool;
        net->pool = packet->next;
        free(packet);
    }
    free(net->host_down);
    free(net->paths);
    free(net->conns);
    *net = (struct sim_net){0};
}

struct sim_path *sim_net_path(struct sim *sim, uint32_t from, uint32_t to)
{
    SIM_REQUIRE(from < sim->net.host_count && to < sim->net.host_count);
    return &sim->net.paths[(size_t)from * sim->net.host_count + to];
}

uint64_t sim_net_arrival_us(struct sim *sim, uint32_t from, uint32_t to, enum sim_plane plane)
{
    const struct sim_path *path = sim_net_path(sim, from, to);
    uint64_t at_us = sim->now_us + sim->net.latency_us + path->slow_us[plane] +
                     sim_rng_below(&sim->net_rng,
                                   (uint64_t)sim->net.jitter_us + path->jitter_us + 1);
    uint64_t retry_us = RETRY_US;
    while (sim_rng_chance(&sim->net_rng, path->loss_permille) && retry_us < 8 * RETRY_US) {
        sim_struck(sim, SIM_FAULT_LOSS);
        at_us += retry_us;
        retry_us *= 2;
    }
    return at_us;
}

uint64_t sim_net_shut_until_us(struct sim *sim, uint32_t from, uint32_t to, enum sim_plane plane)
{
    const struct sim_path *path = sim_net_path(sim, from, to);
    if (sim->net.host_down[from] || sim->net.host_down[to] || path->cuts[plane] > 0) {
        return sim->now_us + RETRY_US;
    }
    return path->clog_until_us > sim->now_us ? path->clog_until_us : 0;
}

/* ---- connections ---------------------------------------------------------------------------- */

static void push(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, uint32_t conn,
                 uint32_t extra)
{
    struct sim_event event = {.at_us = at_us, .kind = kind, .target = conn, .extra = extra,
                              .serial = sim->net.conns[conn].serial};
    sim_heap_push(&sim->heap, &event);
}

static void give_back(struct sim *sim, uint32_t index)
{
    struct sim_conn *conn = &sim->net.conns[index];
    pipe_clear(&sim->net, &conn->pipe[0]);
    pipe_clear(&sim->net, &conn->pipe[1]);
    *conn = (struct sim_conn){.serial = conn->serial + 1};
    sim->net.conn_free = index;
}

static void close_end(struct sim *sim, uint32_t index, enum sim_end end)
{
    struct sim_conn *conn = &sim->net.conns[index];
    conn->open[end] = false;
    /* What was said to this end finds nobody; what it said itself still leaves. */
    if (!conn->open[SIM_END_MEMBER] && !conn->open[SIM_END_COORD]) {
        give_back(sim, index);
    }
}

static uint32_t conn_take(struct sim *sim)
{
    struct sim_net *net = &sim->net;
    for (uint32_t tries = 0; tries < net->conn_count; tries++) {
        uint32_t index = (net->conn_free + tries) % net->conn_count;
        if (!net->conns[index].used) {
            net->conn_free = (index + 1) % net->conn_count;
            net->conns[index].used = true;
            return index;
        }
    }
    SIM_REQUIRE(!"too few connections for this seed");
    return 0;
}

void sim_net_dial(struct sim *sim, uint32_t member)
{
    struct sim_member *m = &sim->members[member];
    uint32_t index = conn_take(sim);
    struct sim_conn *conn = &sim->net.conns[index];
    conn->member = member;
    conn->hosts[SIM_END_MEMBER] = m->proc.host;
    conn->hosts[SIM_END_COORD] = 0;
    conn->open[SIM_END_MEMBER] = true;
    m->conn = index;
    push(sim, sim_net_arrival_us(sim, m->proc.host, 0, SIM_CONTROL), SIM_EV_SYN, index, 0);
}

void sim_net_syn(struct sim *sim, uint32_t index)
{
    struct sim_conn *conn = &sim->net.conns[index];
    uint64_t shut_us = sim_net_shut_until_us(sim, conn->hosts[0], 0, SIM_CONTROL);
    if (shut_us != 0) {
        push(sim, shut_us, SIM_EV_SYN, index, 0);
        return;
    }
    bool refused = !sim->coord_proc.alive;
    if (!refused && !conn->accepted) {
        conn->accepted = true;
        conn->open[SIM_END_COORD] = true;
        push(sim, sim->now_us, SIM_EV_ACCEPT, index, 0);
    }
    push(sim, sim_net_arrival_us(sim, 0, conn->hosts[0], SIM_CONTROL), SIM_EV_ANSWER, index,
         refused);
}

void sim_net_accept(struct sim *sim, uint32_t index)
{
    struct sim_conn *conn = &sim->net.conns[index];
    if (conn->open[SIM_END_COORD]) {
        conn->opened_us = sim->now_us;
        sim_coord_opened(sim, index);
    }
}

void sim_net_answer(struct sim *sim, uint32_t index, bool refused)
{
    struct sim_conn *conn = &sim->net.conns[index];
    uint64_t shut_us = sim_net_shut_until_us(sim, 0, conn->hosts[0], SIM_CONTROL);
    if (shut_us != 0) {
        push(sim, shut_us, SIM_EV_ANSWER, index, refused);
        return;
    }
    if (!conn->open[SIM_END_MEMBER]) {
        return;
    }
    uint32_t member = conn->member;
    if (refused || !conn->accepted) {
        close_end(sim, index, SIM_END_MEMBER);
        sim_member_closed(sim, member, "connection refused");
    } else {
        sim_member_connected(sim, member);
    }
}

/* ---- packets -------------------------------------------------------------------------------- */

static size_t message_bytes(const struct wire_message *message)
{
    if (message->header.type == FRAME_HELLO) {
        return ROSTER_FIXED_BYTES + (size_t)message->hello.roster_count * MEMBER_BYTES;
    }
    if (message->header.type == FRAME_GENERATION) {
        return ROSTER_FIXED_BYTES + (size_t)message->generation.members_count * MEMBER_BYTES;
    }
    if (message->header.type == FRAME_OVER) {
        return SMALL_BYTES + (size_t)message->over.lost_count * WIRE_ID_BYTES;
    }
    return SMALL_BYTES;
}

static struct sim_packet *packet_new(struct sim_net *net, const struct wire_message *message)
{
    size_t bytes = message != NULL ? message_bytes(message) : SMALL_BYTES;
    bool small = bytes <= SMALL_BYTES;
    struct sim_packet *packet = small ? net->pool : NULL;
    if (packet != NULL) {
        net->pool = packet->next;
    } else {
        packet = malloc(sizeof *packet + 16 + bytes);
        SIM_REQUIRE(packet != NULL);
    }
    packet->next = NULL;
    packet->small = small;
    packet->end = message == NULL;
    if (message != NULL) {
        struct wire_arena arena;
        wire_arena_init(&arena, (uint8_t *)(packet + 1), bytes);
        SIM_REQUIRE(wire_message_copy(&arena, message, &packet->message) == WIRE_OK);
    }
    return packet;
}

static void pipe_arm(struct sim *sim, uint32_t index, enum sim_end from, uint64_t at_us)
{
    struct sim_pipe *pipe = &sim->net.conns[index].pipe[from];
    if (pipe->armed_us == 0 || at_us < pipe->armed_us) {
        pipe->armed_us = at_us;
        push(sim, at_us, from == SIM_END_MEMBER ? SIM_EV_PIPE_UP : SIM_EV_PIPE_DOWN, index, from);
    }
}

static void pipe_append(struct sim *sim, uint32_t index, enum sim_end from,
                        struct sim_packet *packet)
{
    struct sim_conn *conn = &sim->net.conns[index];
    struct sim_pipe *pipe = &conn->pipe[from];
    uint64_t due_us =
        sim_net_arrival_us(sim, conn->hosts[from], conn->hosts[1 - from], SIM_CONTROL);
    packet->due_us = due_us > pipe->due_us ? due_us : pipe->due_us;
    pipe->due_us = packet->due_us;
    if (pipe->last != NULL) {
        pipe->last->next = packet;
    } else {
        pipe->first = packet;
        pipe_arm(sim, index, from, packet->due_us);
    }
    pipe->last = packet;
}

void sim_net_say(struct sim *sim, uint32_t index, enum sim_end end,
                 const struct wire_message *message)
{
    struct sim_conn *conn = &sim->net.conns[index];
    if (conn->open[end]) {
        pipe_append(sim, index, end, packet_new(&sim->net, message));
    }
}

void sim_net_hang_up(struct sim *sim, uint32_t index, enum sim_end end)
{
    struct sim_conn *conn = &sim->net.conns[index];
    if (conn->open[end]) {
        pipe_append(sim, index, end, packet_new(&sim->net, NULL));
        close_end(sim, index, end);
    }
}

void sim_net_abandon(struct sim *sim, uint32_t index, enum sim_end end, bool quiet)
{
    struct sim_conn *conn = &sim->net.conns[index];
    if (!conn->open[end]) {
        return;
    }
    if (!quiet) {
        sim_net_hang_up(sim, index, end);
    } else {
        close_end(sim, index, end);
    }
}

void sim_net_reset(struct sim *sim, uint32_t index)
{
    struct sim_conn *conn = &sim->net.conns[index];
    for (int end = 0; end < 2; end++) {
        if (conn->open[end]) {
            push(sim, sim->now_us, end == SIM_END_COORD ? SIM_EV_BROKEN_UP : SIM_EV_BROKEN_DOWN,
                 index, (uint32_t)end);
        }
        pipe_clear(&sim->net, &conn->pipe[end]);
    }
}

void sim_net_broken(struct sim *sim, uint32_t index, enum sim_end end)
{
    struct sim_conn *conn = &sim->net.conns[index];
    if (!conn->open[end]) {
        return;
    }
    uint32_t member = conn->member;
    if (end == SIM_END_COORD) {
        sim_coord_closed(sim, index, "connection reset");
        if (sim->net.conns[index].open[end]) {
            close_end(sim, index, end);
        }
    } else {
        close_end(sim, index, end);
        sim_member_closed(sim, member, "connection reset");
    }
}

/* The path is shut: wait, and after a while break the end that has something to send. */
static void pipe_stuck(struct sim *sim, uint32_t index, enum sim_end from, uint64_t look_us)
{
    struct sim_conn *conn = &sim->net.conns[index];
    struct sim_pipe *pipe = &conn->pipe[from];
    if (pipe->stuck_us == 0) {
        pipe->stuck_us = sim->now_us;
    }
    if (sim->now_us - pipe->stuck_us < SIM_TCP_TIMEOUT_US) {
        pipe_arm(sim, index, from, look_us);
        return;
    }
    pipe_clear(&sim->net, pipe);
    if (conn->open[from]) {
        push(sim, sim->now_us, from == SIM_END_COORD ? SIM_EV_BROKEN_UP : SIM_EV_BROKEN_DOWN,
             index, from);
    }
}

/* True if the connection still stands after the packet. */
static bool packet_arrives(struct sim *sim, uint32_t index, enum sim_end from,
                           struct sim_packet *packet)
{
    struct sim_conn *conn = &sim->net.conns[index];
    uint32_t serial = conn->serial;
    uint32_t member = conn->member;
    if (!conn->open[1 - from]) {
        /* Nobody there: the sender gets a reset. */
        if (conn->open[from]) {
            push(sim,
                 sim_net_arrival_us(sim, conn->hosts[1 - from], conn->hosts[from], SIM_CONTROL),
                 from == SIM_END_COORD ? SIM_EV_BROKEN_UP : SIM_EV_BROKEN_DOWN, index, from);
        }
    } else if (from == SIM_END_MEMBER) {
        conn->heard_us = sim->now_us;
        if (packet->end) {
            sim_coord_closed(sim, index, "closed by the peer");
            if (conn->serial == serial && conn->open[SIM_END_COORD]) {
                close_end(sim, index, SIM_END_COORD);
            }
        } else {
            sim_coord_message(sim, index, &packet->message);
        }
    } else if (packet->end) {
        close_end(sim, index, SIM_END_MEMBER);
        sim_member_closed(sim, member, "closed by the coordinator");
    } else {
        sim_member_message(sim, member, &packet->message);
    }
    return conn->serial == serial && conn->used;
}

void sim_net_pipe(struct sim *sim, uint32_t index, enum sim_end from)
{
    struct sim_conn *conn = &sim->net.conns[index];
    struct sim_pipe *pipe = &conn->pipe[from];
    pipe->armed_us = 0;
    if (pipe->first == NULL) {
        return;
    }
    uint64_t shut_us =
        sim_net_shut_until_us(sim, conn->hosts[from], conn->hosts[1 - from], SIM_CONTROL);
    if (shut_us != 0) {
        pipe_stuck(sim, index, from, shut_us);
        return;
    }
    pipe->stuck_us = 0;
    while (pipe->first != NULL && pipe->first->due_us <= sim->now_us) {
        struct sim_packet *packet = pipe->first;
        pipe->first = packet->next;
        pipe->last = pipe->first == NULL ? NULL : pipe->last;
        bool stands = packet_arrives(sim, index, from, packet);
        packet_free(&sim->net, packet);
        if (!stands) {
            return;
        }
    }
    if (pipe->first != NULL) {
        pipe_arm(sim, index, from, pipe->first->due_us);
    }
}
