/* Invariants:
 *  - parcels of a lane arrive in the order in which they were sent;
 *  - ready implies wanted or visitor, and that both ends have entered the same number;
 *  - missing counts the ranks of the generation entered, without me, that are not ready. */
#include "sim/mesh.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define POOL_CELLS   4u
#define REDIAL_US    UINT64_C(150000)

void sim_mesh_init(struct sim *sim, uint32_t slots)
{
    struct sim_mesh *mesh = &sim->mesh;
    size_t pairs = (size_t)slots * slots;
    *mesh = (struct sim_mesh){.slots = slots, .connect_ms = 10000, .progress_ms = 20000};
    mesh->links = calloc(pairs, sizeof *mesh->links);
    mesh->lanes = calloc(pairs, sizeof *mesh->lanes);
    mesh->peers = calloc(pairs, sizeof *mesh->peers);
    mesh->ends = calloc(slots, sizeof *mesh->ends);
    SIM_REQUIRE(mesh->links != NULL && mesh->lanes != NULL && mesh->peers != NULL &&
                mesh->ends != NULL);
}

static struct sim_link *link_of(struct sim *sim, uint32_t a, uint32_t b)
{
    uint32_t low = a < b ? a : b;
    return &sim->mesh.links[(size_t)low * sim->mesh.slots + (a < b ? b : a)];
}

static bool *open_at(struct sim *sim, uint32_t me, uint32_t peer)
{
    return &link_of(sim, me, peer)->open[me < peer ? 0 : 1];
}

static struct sim_lane *lane_of(struct sim *sim, uint32_t from, uint32_t to)
{
    return &sim->mesh.lanes[(size_t)from * sim->mesh.slots + to];
}

static struct sim_peer *peer_of(struct sim *sim, uint32_t me, uint32_t peer)
{
    return &sim->mesh.peers[(size_t)me * sim->mesh.slots + peer];
}

static void parcel_free(struct sim_mesh *mesh, struct sim_parcel *parcel)
{
    struct sim_parcel **pool = &mesh->pool[parcel->room > POOL_CELLS];
    parcel->next = *pool;
    *pool = parcel;
}

static struct sim_parcel *parcel_new(struct sim_mesh *mesh, uint32_t cells)
{
    struct sim_parcel **pool = &mesh->pool[cells > POOL_CELLS];
    struct sim_parcel *parcel = *pool;
    if (parcel != NULL) {
        *pool = parcel->next;
    } else {
        uint32_t room = cells > POOL_CELLS ? TOY_CELLS_MAX : POOL_CELLS;
        parcel = malloc(sizeof *parcel + room * sizeof parcel->cells[0]);
        SIM_REQUIRE(parcel != NULL && cells <= TOY_CELLS_MAX);
        parcel->room = room;
    }
    parcel->next = NULL;
    parcel->end = false;
    return parcel;
}

static void lane_clear(struct sim_mesh *mesh, struct sim_lane *lane)
{
    while (lane->first != NULL) {
        struct sim_parcel *parcel = lane->first;
        lane->first = parcel->next;
        parcel_free(mesh, parcel);
    }
    *lane = (struct sim_lane){0};
}

void sim_mesh_release(struct sim *sim)
{
    struct sim_mesh *mesh = &sim->mesh;
    for (size_t i = 0; i < (size_t)mesh->slots * mesh->slots; i++) {
        lane_clear(mesh, &mesh->lanes[i]);
    }
    for (int pool = 0; pool < 2; pool++) {
        while (mesh->pool[pool] != NULL) {
            struct sim_parcel *parcel = mesh->pool[pool];
            mesh->pool[pool] = parcel->next;
            free(parcel);
        }
    }
    free(mesh->links);
    free(mesh->lanes);
    free(mesh->peers);
    free(mesh->ends);
    *mesh = (struct sim_mesh){0};
}

static void push(struct sim *sim, uint64_t at_us, enum sim_event_kind kind, uint32_t from,
                 uint32_t to)
{
    struct sim_event event = {.at_us = at_us, .kind = kind, .target = from, .extra = to,
                              .serial = link_of(sim, from, to)->serial};
    sim_heap_push(&sim->heap, &event);
}

/* ---- sending -------------------------------------------------------------------------------- */

static void lane_arm(struct sim *sim, uint32_t from, uint32_t to, uint64_t at_us)
{
    struct sim_lane *lane = lane_of(sim, from, to);
    if (lane->armed_us == 0 || at_us < lane->armed_us) {
        lane->armed_us = at_us;
        push(sim, at_us, SIM_EV_LANE, from, to);
    }
}

static void lane_append(struct sim *sim, uint32_t from, uint32_t to, struct sim_parcel *parcel)
{
    struct sim_lane *lane = lane_of(sim, from, to);
    uint64_t due_us =
        sim_net_arrival_us(sim, sim->members[from].proc.host, sim->members[to].proc.host, SIM_DATA);
    parcel->due_us = due_us > lane->due_us ? due_us : lane->due_us;
    lane->due_us = parcel->due_us;
    if (lane->last != NULL) {
        lane->last->next = parcel;
    } else {
        lane->first = parcel;
        lane_arm(sim, from, to, parcel->due_us);
    }
    lane->last = parcel;
}

static void send_end(struct sim *sim, uint32_t from, uint32_t to)
{
    struct sim_parcel *parcel = parcel_new(&sim->mesh, 0);
    parcel->end = true;
    lane_append(sim, from, to, parcel);
}

static void send_hello(struct sim *sim, uint32_t me, uint32_t peer)
{
    const struct sim_mesh_end *end = &sim->mesh.ends[me];
    if (end->number == 0 || end->halted || !*open_at(sim, me, peer)) {
        return;
    }
    struct sim_parcel *parcel = parcel_new(&sim->mesh, 0);
    parcel->frame = (struct sim_frame){.kind = SIM_FRAME_HELLO, .number = end->number,
                                       .nonce = end->nonce, .value = {end->rank, end->key}};
    lane_append(sim, me, peer, parcel);
}

bool sim_mesh_ready(const struct sim *sim, uint32_t me, uint32_t peer)
{
    return sim->mesh.peers[(size_t)me * sim->mesh.slots + peer].ready;
}

uint32_t sim_mesh_serial(const struct sim *sim, uint32_t a, uint32_t b)
{
    uint32_t low = a < b ? a : b;
    return sim->mesh.links[(size_t)low * sim->mesh.slots + (a < b ? b : a)].serial;
}

bool sim_mesh_send(struct sim *sim, uint32_t me, uint32_t peer, const struct sim_frame *frame,
                   const uint64_t *cells)
{
    const struct sim_mesh_end *end = &sim->mesh.ends[me];
    if (end->halted || !peer_of(sim, me, peer)->ready) {
        return false;
    }
    struct sim_parcel *parcel = parcel_new(&sim->mesh, frame->cell_count);
    parcel->frame = *frame;
    parcel->frame.number = end->number;
    parcel->frame.nonce = end->nonce;
    if (frame->cell_count > 0) {
        memcpy(parcel->cells, cells, frame->cell_count * sizeof cells[0]);
    }
    lane_append(sim, me, peer, parcel);
    return true;
}

/* ---- connecting ----------------------------------------------------------------------------- */

static void dial(struct sim *sim, uint32_t me, uint32_t peer, uint64_t after_us)
{
    struct sim_peer *p = peer_of(sim, me, peer);
    if (!p->dialing) {
        p->dialing = true;
        push(sim,
             after_us + sim_net_arrival_us(sim, sim->members[me].proc.host,
                                           sim->members[peer].proc.host, SIM_DATA),
             SIM_EV_LINK_SYN, me, peer);
    }
}

static void connect_both(struct sim *sim, uint32_t a, uint32_t b)
{
    struct sim_link *link = link_of(sim, a, b);
    lane_clear(&sim->mesh, lane_of(sim, a, b));
    lane_clear(&sim->mesh, lane_of(sim, b, a));
    link->serial++;
    link->open[0] = link->open[1] = true;
    link->met = false;
    link->proc[0] = sim->members[a < b ? a : b].proc.serial;
    link->proc[1] = sim->members[a < b ? b : a].proc.serial;
    push(sim, sim->now_us, SIM_EV_LINK_GREET, a, b);
    push(sim, sim->now_us, SIM_EV_LINK_GREET, b, a);
}

/* An attempt of `from` reaches the host of `to`. */
void sim_mesh_syn(struct sim *sim, uint32_t from, uint32_t to)
{
    struct sim_peer *p = peer_of(sim, from, to);
    p->dialing = false;
    if (!p->wanted || p->lost || *open_at(sim, from, to) || !sim->members[from].proc.alive) {
        return;
    }
    uint32_t hosts[2] = {sim->members[from].proc.host, sim->members[to].proc.host};
    uint64_t shut_us = sim_net_shut_until_us(sim, hosts[0], hosts[1], SIM_DATA);
    uint64_t back_us = sim_net_shut_until_us(sim, hosts[1], hosts[0], SIM_DATA);
    const struct sim_peer *there = peer_of(sim, to, from);
    bool stale = *open_at(sim, to, from);
    if (shut_us != 0 || back_us != 0 || !sim->members[to].proc.alive || there->lost ||
        (stale && there->ready)) {
        dial(sim, from, to, REDIAL_US);
        return;
    }
    connect_both(sim, from, to);
}

static void peer_ready(struct sim *sim, uint32_t me, uint32_t peer, uint32_t rank)
{
    struct sim_mesh_end *end = &sim->mesh.ends[me];
    struct sim_peer *p = peer_of(sim, me, peer);
    if (p->ready || p->lost || (!p->wanted && rank != SIM_VISITOR)) {
        return;
    }
    p->ready = true;
    link_of(sim, me, peer)->met = true;
    p->rank = p->wanted ? p->rank : SIM_VISITOR;
    if (p->wanted) {
        SIM_REQUIRE(end->missing > 0);
        end->missing--;
    }
    if (end->missing == 0 && !end->told_ready && !end->halted) {
        end->told_ready = true;
        sim_worker_mesh_ready(sim, me, end->number);
    }
}

/* A connected end that is neither a member of the new generation nor a proven visitor goes. */
static void let_go(struct sim *sim, uint32_t me, uint32_t peer)
{
    send_end(sim, me, peer);
    *open_at(sim, me, peer) = false;
}

/* Who is wanted now. A spare that enters the same view again keeps those who are ready. */
static void enter_peers(struct sim *sim, uint32_t me, const struct sim_entry *entry, bool again)
{
    struct sim_mesh_end *end = &sim->mesh.ends[me];
    for (uint32_t peer = 0; peer < sim->mesh.slots; peer++) {
        struct sim_peer *p = peer_of(sim, me, peer);
        bool visitor = p->ready && p->rank == SIM_VISITOR;
        *p = (struct sim_peer){.dialing = p->dialing, .ready = again && p->ready,
                               .rank = visitor ? SIM_VISITOR : 0};
    }
    for (uint32_t rank = 0; rank < entry->world; rank++) {
        end->slots[rank] = entry->slots[rank];
        if (rank != entry->rank && entry->slots[rank] != SIM_NO_SLOT) {
            struct sim_peer *p = peer_of(sim, me, entry->slots[rank]);
            p->wanted = true;
            p->rank = rank;
            end->missing -= p->ready;
        }
    }
}

/* Peers are known by their identity: what is left of a connection to the process that had this slot
 * before, or of one that was given up before either belonged to the other, is nobody's. */
static void forget_forerunner(struct sim *sim, uint32_t me, uint32_t peer)
{
    const struct sim_link *link = link_of(sim, me, peer);
    if (*open_at(sim, me, peer) && !*open_at(sim, peer, me) &&
        (!link->met || link->proc[me < peer ? 1 : 0] != sim->members[peer].proc.serial)) {
        *open_at(sim, me, peer) = false;
        lane_clear(&sim->mesh, lane_of(sim, peer, me));
    }
}

static void enter_links(struct sim *sim, uint32_t me)
{
    for (uint32_t peer = 0; peer < sim->mesh.slots; peer++) {
        struct sim_peer *p = peer_of(sim, me, peer);
        if (peer == me) {
            continue;
        }
        forget_forerunner(sim, me, peer);
        if (!*open_at(sim, me, peer)) {
            if (p->wanted) {
                dial(sim, me, peer, 0);
            }
        } else if (p->wanted || p->rank == SIM_VISITOR) {
            send_hello(sim, me, peer);
            lane_arm(sim, peer, me, sim->now_us);
        } else {
            let_go(sim, me, peer);
        }
    }
}

void sim_mesh_enter(struct sim *sim, uint32_t me, const struct sim_entry *entry)
{
    struct sim_mesh_end *end = &sim->mesh.ends[me];
    bool again = entry->number == end->number && !end->halted;
    SIM_REQUIRE(entry->world <= SIM_WORLD_MAX && entry->number >= end->number);
    end->number = entry->number;
    end->nonce = entry->nonce;
    end->key = entry->key;
    end->halted = false;
    end->rank = entry->rank;
    end->world = entry->world;
    end->missing = entry->world - (entry->rank == SIM_VISITOR ? 0 : 1);
    end->told_ready = false;
    enter_peers(sim, me, entry, again);
    enter_links(sim, me);
    uint64_t late_us = sim->now_us + (uint64_t)sim->mesh.connect_ms * 1000;
    for (uint32_t rank = 0; rank < entry->world; rank++) {
        if (rank != entry->rank) {
            struct sim_event event = {.at_us = late_us, .kind = SIM_EV_LINK_DEADLINE, .target = me,
                                      .extra = rank, .value = entry->number,
                                      .serial = sim->members[me].proc.serial};
            sim_heap_push(&sim->heap, &event);
        }
    }
    push(sim, sim->now_us, SIM_EV_LINK_GREET, me, me);
}

void sim_mesh_greet(struct sim *sim, uint32_t from, uint32_t to)
{
    struct sim_mesh_end *end = &sim->mesh.ends[from];
    if (from != to) {
        send_hello(sim, from, to);
    } else if (end->missing == 0 && !end->told_ready && !end->halted && end->number > 0) {
        end->told_ready = true;
        sim_worker_mesh_ready(sim, from, end->number);
    }
}

/* ---- losing --------------------------------------------------------------------------------- */

static void lose(struct sim *sim, uint32_t me, uint32_t peer, bool closed)
{
    struct sim_peer *p = peer_of(sim, me, peer);
    if (p->lost || (!p->wanted && !p->ready)) {
        p->ready = false;
        return;
    }
    p->lost = true;
    if (p->wanted && p->ready) {
        sim->mesh.ends[me].missing++;
    }
    p->ready = false;
    sim_worker_peer_lost(sim, me, peer, p->wanted ? p->rank : SIM_VISITOR, closed);
}

/* Deadline of connecting to a rank of generation `number`. */
void sim_mesh_deadline(struct sim *sim, uint32_t me, uint32_t rank, uint64_t number)
{
    struct sim_mesh_end *end = &sim->mesh.ends[me];
    if (end->number != number || end->halted || rank >= end->world) {
        return;
    }
    uint32_t slot = end->slots[rank];
    if (slot == SIM_NO_SLOT) {
        sim_worker_peer_lost(sim, me, SIM_NO_SLOT, rank, false);
    } else if (!peer_of(sim, me, slot)->ready) {
        if (*open_at(sim, me, slot)) {
            let_go(sim, me, slot);
        }
        lose(sim, me, slot, false);
    }
}

void sim_mesh_halt(struct sim *sim, uint32_t me)
{
    struct sim_mesh_end *end = &sim->mesh.ends[me];
    if (end->number == 0 || end->halted) {
        return;
    }
    end->halted = true;
    /* What has left already arrives; what is still queued here does not. */
    uint64_t left_us = sim->now_us + sim_rng_below(&sim->net_rng, 2 * sim->net.latency_us + 1);
    for (uint32_t peer = 0; peer < sim->mesh.slots; peer++) {
        struct sim_lane *lane = lane_of(sim, me, peer);
        struct sim_parcel **at = &lane->first;
        lane->last = NULL;
        while (*at != NULL) {
            struct sim_parcel *parcel = *at;
            if (parcel->due_us > left_us && !parcel->end) {
                *at = parcel->next;
                parcel_free(&sim->mesh, parcel);
            } else {
                lane->last = parcel;
                at = &parcel->next;
            }
        }
    }
}

void sim_mesh_abandon(struct sim *sim, uint32_t me, bool quiet)
{
    for (uint32_t peer = 0; peer < sim->mesh.slots; peer++) {
        if (peer != me && *open_at(sim, me, peer)) {
            if (quiet) {
                lane_clear(&sim->mesh, lane_of(sim, me, peer));
            } else {
                send_end(sim, me, peer);
            }
            *open_at(sim, me, peer) = false;
        }
        *peer_of(sim, me, peer) = (struct sim_peer){.dialing = peer_of(sim, me, peer)->dialing};
    }
    sim->mesh.ends[me] = (struct sim_mesh_end){0};
}

void sim_mesh_reset(struct sim *sim, uint32_t a, uint32_t b)
{
    for (int way = 0; way < 2; way++) {
        uint32_t from = way == 0 ? a : b;
        uint32_t to = way == 0 ? b : a;
        lane_clear(&sim->mesh, lane_of(sim, from, to));
        if (*open_at(sim, to, from)) {
            send_end(sim, from, to);
        }
    }
}

/* ---- arriving ------------------------------------------------------------------------------- */

/* The path is shut: wait, and give the peer up when nothing moves for too long. */
static void lane_stuck(struct sim *sim, uint32_t from, uint32_t to, uint64_t look_us)
{
    struct sim_lane *lane = lane_of(sim, from, to);
    if (lane->stuck_us == 0) {
        lane->stuck_us = sim->now_us;
    }
    uint64_t progress_us = (uint64_t)sim->mesh.progress_ms * 1000;
    if (sim->now_us - lane->stuck_us > progress_us && *open_at(sim, from, to) &&
        sim->members[from].proc.alive && !sim->members[from].proc.paused) {
        lane_clear(&sim->mesh, lane);
        let_go(sim, from, to);
        lose(sim, from, to, false);
        return;
    }
    lane_arm(sim, from, to, look_us);
}

static void end_arrives(struct sim *sim, uint32_t from, uint32_t to)
{
    if (*open_at(sim, to, from)) {
        *open_at(sim, to, from) = false;
        lose(sim, to, from, true);
    }
}

static void frame_arrives(struct sim *sim, uint32_t from, uint32_t to,
                          const struct sim_parcel *parcel)
{
    const struct sim_mesh_end *end = &sim->mesh.ends[to];
    const struct sim_frame *frame = &parcel->frame;
    bool current = frame->number == end->number && frame->nonce == end->nonce && !end->halted;
    if (!current && !(sim->mesh.stale && frame->kind != SIM_FRAME_HELLO)) {
        return;
    }
    if (frame->kind == SIM_FRAME_HELLO) {
        if (frame->value[1] == end->key) { /* else a stranger: it never gets ready */
            peer_ready(sim, to, from, (uint32_t)frame->value[0]);
        }
    } else if (peer_of(sim, to, from)->ready || !current) {
        sim_worker_frame(sim, to, from, frame, parcel->cells);
    }
}

/* One of a generation that the receiver has not entered waits, and all behind it. */
static bool must_wait(struct sim *sim, uint32_t to, const struct sim_parcel *parcel)
{
    return !parcel->end && parcel->frame.number > sim->mesh.ends[to].number;
}

void sim_mesh_lane(struct sim *sim, uint32_t from, uint32_t to)
{
    struct sim_lane *lane = lane_of(sim, from, to);
    lane->armed_us = 0;
    if (lane->first == NULL) {
        return;
    }
    uint64_t shut_us = sim_net_shut_until_us(sim, sim->members[from].proc.host,
                                             sim->members[to].proc.host, SIM_DATA);
    if (shut_us != 0) {
        lane_stuck(sim, from, to, shut_us);
        return;
    }
    lane->stuck_us = 0;
    while (lane->first != NULL && lane->first->due_us <= sim->now_us) {
        struct sim_parcel *parcel = lane->first;
        if (*open_at(sim, to, from) && must_wait(sim, to, parcel)) {
            return;
        }
        lane->first = parcel->next;
        lane->last = lane->first == NULL ? NULL : lane->last;
        if (parcel->end) {
            end_arrives(sim, from, to);
        } else if (*open_at(sim, to, from)) {
            frame_arrives(sim, from, to, parcel);
        } else if (*open_at(sim, from, to)) {
            send_end(sim, to, from); /* nobody there: a reset */
        }
        parcel_free(&sim->mesh, parcel);
    }
    if (lane->first != NULL) {
        lane_arm(sim, from, to, lane->first->due_us);
    }
}
