/* Whom an end knows: the members of its generation and its visitors, each at most once.
 *
 * Invariants
 *   1. Every member of the generation but me has a peer, whatever its state; other peers are
 *      visitors, and have a proven link.
 *   2. A peer is announced once in a generation, when both sides have proven its key over the link.
 *   3. lost_cb is called at most once for a peer in a generation; a link that ends before the peer
 *      was announced has carried no frame of the generation and is simply made again. */
#include "comm/tcp/end.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/roster.h"

struct tcp_peer *tcp_peer_find(struct tcp_end *end, const uint8_t id[COMM_ID_BYTES])
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        struct tcp_peer *peer = end->peers[slot];
        if (peer != NULL && memcmp(peer->member.id, id, COMM_ID_BYTES) == 0) {
            return peer;
        }
    }
    return NULL;
}

struct tcp_peer *tcp_peer_get(struct tcp_end *end, uint32_t handle)
{
    struct tcp_peer *peer = end->peers[handle % PEER_SLOTS];
    return peer != NULL && peer->handle == handle ? peer : NULL;
}

static uint32_t free_slot(struct tcp_end *end)
{
    uint32_t slot = 0;
    while (slot < end->peer_slots && end->peers[slot] != NULL) {
        slot++;
    }
    return slot;
}

/* NULL: out of memory or of slots. */
struct tcp_peer *tcp_peer_add(struct tcp_end *end, const struct comm_member *member)
{
    uint32_t slot = free_slot(end);
    struct tcp_peer *peer = slot < PEER_SLOTS ? calloc(1, sizeof *peer) : NULL;
    if (peer == NULL) {
        return NULL;
    }
    end->serial = (end->serial + 1) % (UINT32_MAX / PEER_SLOTS);
    peer->member = *member;
    peer->handle = end->serial * PEER_SLOTS + slot;
    end->peers[slot] = peer;
    end->peer_slots = slot == end->peer_slots ? slot + 1 : end->peer_slots;
    end->visitor_count += member->rank == COMM_VISITOR;
    return peer;
}

void tcp_peer_remove(struct tcp_end *end, struct tcp_peer *peer)
{
    tcp_dial_stop(end, peer);
    end->visitor_count -= peer->member.rank == COMM_VISITOR;
    end->peers[peer->handle % PEER_SLOTS] = NULL;
    free(peer);
}

void tcp_peer_describe(const struct tcp_peer *peer, char *text, size_t text_bytes)
{
    const struct comm_member *member = &peer->member;
    if (member->rank == COMM_VISITOR) {
        snprintf(text, text_bytes, "joiner %02x%02x%02x%02x", member->id[0], member->id[1],
                 member->id[2], member->id[3]);
    } else {
        snprintf(text, text_bytes, "rank %u at %s", member->rank, member->address);
    }
}

void tcp_peer_check_ready(struct tcp_end *end)
{
    if (!end->running || end->ready) {
        return;
    }
    for (uint32_t rank = 0; rank < end->world; rank++) {
        if (rank != end->me && end->peers[end->slot_of_rank[rank]]->state != PEER_ANNOUNCED) {
            return;
        }
    }
    end->ready = true;
    end->events.ready_cb(end->owner, end->number);
}

/* A link to the peer is proven. */
void tcp_peer_linked(struct tcp_end *end, struct tcp_peer *peer, struct tcp_link *link)
{
    end->unproven_count -= !link->dialed;
    link->state = LINK_OPEN;
    if (peer->dial.link == link) {
        peer->dial.link = NULL;
    }
    tcp_dial_stop(end, peer);
    if (peer->link != NULL) {
        struct tcp_link *old = peer->link; /* dead, as the other side found out before us */
        tcp_link_close(old);
    }
    link->peer = peer;
    peer->link = link;
    peer->state = PEER_LINKED;
    OPENSSL_cleanse(link->key, sizeof link->key);
    if (end->running) {
        tcp_handshake_enter(end, link);
    }
}

/* It has proven that it is in our generation. */
void tcp_peer_entered(struct tcp_end *end, struct tcp_peer *peer)
{
    if (peer->state == PEER_LINKED) {
        peer->state = PEER_ANNOUNCED;
        end->events.peer_cb(end->owner, peer->handle);
        tcp_peer_check_ready(end);
    }
}

/* Of two members the smaller id dials; a visitor always does, since nobody knows it. */
static bool we_dial(const struct tcp_end *end, const uint8_t id[COMM_ID_BYTES])
{
    return end->me == COMM_VISITOR || memcmp(end->id, id, COMM_ID_BYTES) < 0;
}

/* Ends the peer's link; then tells the owner, or begins again where nothing can have been lost. */
void tcp_peer_lost(struct tcp_end *end, struct tcp_peer *peer, enum comm_loss why,
                   const char *format, ...)
{
    char name[COMM_ADDRESS_BYTES + 32];
    char cause[COMM_TEXT_BYTES - sizeof name - 8];
    char text[COMM_TEXT_BYTES];
    uint32_t handle = peer->handle;
    bool visitor = peer->member.rank == COMM_VISITOR;
    bool redial = peer->state == PEER_LINKED && why == COMM_LOST_CLOSED && !visitor;
    bool told = peer->state == PEER_ANNOUNCED || !visitor;
    struct tcp_link *link = peer->link;
    va_list args;
    va_start(args, format);
    vsnprintf(cause, sizeof cause, format, args);
    va_end(args);
    tcp_peer_describe(peer, name, sizeof name);
    snprintf(text, sizeof text, "%s: %s", name, cause);

    peer->link = NULL;
    peer->state = redial ? PEER_ABSENT : PEER_LOST;
    tcp_dial_stop(end, peer);
    if (link != NULL) {
        tcp_link_close(link);
    }
    tcp_send_deliver(end);
    tcp_timer_arm(end);
    peer = tcp_peer_get(end, handle);
    if (peer == NULL || redial) {
        if (peer != NULL) {
            tcp_dial_reset(end, peer, we_dial(end, peer->member.id));
        }
        return;
    }
    if (told) {
        end->events.lost_cb(end->owner, handle, why, text);
        peer = tcp_peer_get(end, handle);
    }
    if (peer != NULL && visitor && peer->state == PEER_LOST) {
        tcp_peer_remove(end, peer);
    }
}

void tcp_peer_tick(struct tcp_end *end, struct tcp_peer *peer, uint64_t now_ms)
{
    const struct tcp_dial *dial = &peer->dial;
    double limit_s = (double)end->limits.connect_ms / 1000.0;
    if (peer->state != PEER_ABSENT) {
        return;
    }
    if (now_ms < dial->deadline_ms) {
        tcp_dial_tick(end, peer, now_ms);
    } else if (dial->last[0] != '\0') {
        tcp_peer_lost(end, peer, dial->stranger ? COMM_LOST_STRANGER : COMM_LOST_UNREACHABLE,
                      "%s, for %.1f s; can this host reach it? (--data-listen sets it there)",
                      dial->last, limit_s);
    } else {
        tcp_peer_lost(end, peer, COMM_LOST_UNREACHABLE,
                      "silent for %.1f s; can it reach %s here? (--data-listen sets it here)",
                      limit_s, end->address);
    }
}

/* ---- a new list of members ------------------------------------------------------------------- */

/* A peer for each member; those added are marked so that they can be taken back. */
static enum comm_error find_peers(struct tcp_end *end, const struct comm_generation *generation,
                                  uint32_t *slot_of_rank)
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL) {
            end->peers[slot]->place = PLACE_NONE;
        }
    }
    for (uint32_t rank = 0; rank < generation->member_count; rank++) {
        slot_of_rank[rank] = COMM_NO_PEER;
        if (rank == generation->me) {
            continue;
        }
        struct tcp_peer *peer = tcp_peer_find(end, generation->members[rank].id);
        if (peer == NULL) {
            peer = tcp_peer_add(end, &generation->members[rank]);
            if (peer == NULL) {
                return COMM_MEMORY;
            }
            peer->place = PLACE_NEW;
        } else {
            peer->place = PLACE_KEPT;
        }
        slot_of_rank[rank] = peer->handle % PEER_SLOTS;
    }
    return COMM_OK;
}

static void forget_new(struct tcp_end *end)
{
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL && end->peers[slot]->place == PLACE_NEW) {
            tcp_peer_remove(end, end->peers[slot]);
        }
    }
}

/* One who is not in the list: a visitor stays one, a former member departs. */
static void settle_outsider(struct tcp_end *end, struct tcp_peer *peer)
{
    struct tcp_link *link = peer->link;
    if (link != NULL && peer->member.rank == COMM_VISITOR) {
        peer->state = PEER_LINKED;
        return;
    }
    peer->link = NULL;
    if (link != NULL) {
        tcp_link_depart(link);
    }
    tcp_peer_remove(end, peer);
}

static void settle_member(struct tcp_end *end, struct tcp_peer *peer,
                          const struct comm_member *member)
{
    end->visitor_count -= peer->member.rank == COMM_VISITOR;
    peer->member = *member;
    peer->state = peer->link != NULL ? PEER_LINKED : PEER_ABSENT;
    tcp_dial_reset(end, peer, we_dial(end, member->id));
}

enum comm_error tcp_peer_roster(struct tcp_end *end, const struct comm_generation *generation)
{
    enum comm_error error = comm_roster_check(generation, end->id);
    if (error != COMM_OK) {
        return error;
    }
    uint32_t *slot_of_rank = malloc(generation->member_count * sizeof *slot_of_rank);
    if (slot_of_rank == NULL) {
        return COMM_MEMORY;
    }
    error = find_peers(end, generation, slot_of_rank);
    if (error != COMM_OK) {
        forget_new(end);
        free(slot_of_rank);
        return error;
    }
    free(end->slot_of_rank);
    end->slot_of_rank = slot_of_rank;
    end->world = generation->member_count;
    end->me = generation->me;
    for (uint32_t slot = 0; slot < end->peer_slots; slot++) {
        if (end->peers[slot] != NULL && end->peers[slot]->place == PLACE_NONE) {
            settle_outsider(end, end->peers[slot]);
        }
    }
    for (uint32_t rank = 0; rank < end->world; rank++) {
        if (rank != end->me) {
            settle_member(end, end->peers[slot_of_rank[rank]], &generation->members[rank]);
        }
    }
    return COMM_OK;
}
