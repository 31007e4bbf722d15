/* An end in a process: what comm/tcp does with sockets is done here with mailboxes, by the same
 * rules.
 *
 * Invariants
 *   1. The peers of an end belong to its loop's thread alone; other threads reach it through its
 *      seat.
 *   2. A frame is copied once, by its receiver, under the hub's mutex, straight into the place. Its
 *      sender's halt takes the same mutex: so a frame is whole or not there.
 *   3. ENTER is posted to every peer in every generation entered; a frame is taken only from who
 *      has entered the same generation with the same key. */
#include "comm/local/local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/local/hub.h"
#include "comm/roster.h"

#define PEERS_MAX (COMM_WORLD_MAX + 64)
#define PUMP_FRAMES 256 /* of one mailbox in one turn */
#define TICK_MS 20

enum peer_state {
    PEER_WAITING,   /* has not entered our generation */
    PEER_ANNOUNCED,
    PEER_LOST
};

struct local_peer {
    struct comm_member member;
    uint32_t handle;        /* never used again */
    enum peer_state state;
    bool posted;            /* it has our ENTER of this generation */
};

struct local_end {
    struct comm comm;       /* first: the owner's handle */
    struct comm_local_hub *hub;
    struct hub_seat *seat;
    uv_loop_t *loop;
    uv_async_t wake;
    uv_timer_t timer;       /* looks for members that are not open yet */
    struct comm_events events;
    void *owner;
    struct comm_limits limits;
    struct comm_counters counters;
    uint32_t handles;       /* libuv handles not closed yet */
    uint32_t next_handle;
    bool running;
    bool ready;
    uint64_t number;
    uint64_t nonce;
    uint8_t key[COMM_KEY_BYTES];
    uint32_t me;
    uint32_t world;
    uint64_t deadline_ms;   /* members not open by then are unreachable */
    uint32_t peer_count;
    struct local_peer peers[PEERS_MAX];
};

static struct local_end *end_of(struct comm *comm)
{
    return (struct local_end *)comm;
}

/* ---- peers ----------------------------------------------------------------------------------- */

static struct local_peer *peer_find(struct local_end *end, const uint8_t id[COMM_ID_BYTES])
{
    for (uint32_t i = 0; i < end->peer_count; i++) {
        if (memcmp(end->peers[i].member.id, id, COMM_ID_BYTES) == 0) {
            return &end->peers[i];
        }
    }
    return NULL;
}

static struct local_peer *peer_get(struct local_end *end, uint32_t handle)
{
    for (uint32_t i = 0; i < end->peer_count; i++) {
        if (end->peers[i].handle == handle) {
            return &end->peers[i];
        }
    }
    return NULL;
}

static struct local_peer *peer_at(struct local_end *end, uint32_t rank)
{
    for (uint32_t i = 0; i < end->peer_count; i++) {
        if (end->peers[i].member.rank == rank) {
            return &end->peers[i];
        }
    }
    return NULL;
}

static struct local_peer *peer_add(struct local_end *end, const struct comm_member *member)
{
    if (end->peer_count == PEERS_MAX) {
        return NULL;
    }
    struct local_peer *peer = &end->peers[end->peer_count++];
    *peer = (struct local_peer){.member = *member, .handle = end->next_handle++};
    return peer;
}

static void peer_remove(struct local_end *end, uint32_t handle)
{
    struct local_peer *peer = peer_get(end, handle);
    if (peer != NULL) {
        *peer = end->peers[--end->peer_count];
    }
}

static uint32_t visitor_count(const struct local_end *end)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < end->peer_count; i++) {
        count += end->peers[i].member.rank == COMM_VISITOR;
    }
    return count;
}

static void check_ready(struct local_end *end)
{
    for (uint32_t rank = 0; rank < end->world; rank++) {
        const struct local_peer *peer = rank != end->me ? peer_at(end, rank) : NULL;
        if (rank != end->me && (peer == NULL || peer->state != PEER_ANNOUNCED)) {
            return;
        }
    }
    if (end->running && !end->ready) {
        end->ready = true;
        end->events.ready_cb(end->owner, end->number);
    }
}

static struct hub_message *message_new(const struct local_end *end, enum message_kind kind)
{
    struct hub_message *message = calloc(1, sizeof *message);
    if (message != NULL) {
        message->kind = kind;
        message->sender = end->seat->number;
        message->frame.number = end->number;
        message->frame.nonce = end->nonce;
    }
    return message;
}

/* Tells the peer which generation we are in, as soon as it is open. */
static void post_enter(struct local_end *end, struct local_peer *peer)
{
    struct hub_message *message = peer->posted ? NULL : message_new(end, MESSAGE_ENTER);
    if (message == NULL) {
        return;
    }
    memcpy(message->key, end->key, COMM_KEY_BYTES);
    uv_mutex_lock(&end->hub->mutex);
    peer->posted = hub_post(end->hub, end->seat->id, peer->member.id, message);
    uv_mutex_unlock(&end->hub->mutex);
}

static void post_enters(struct local_end *end)
{
    for (uint32_t i = 0; end->running && i < end->peer_count; i++) {
        if (end->peers[i].state != PEER_LOST) {
            post_enter(end, &end->peers[i]);
        }
    }
}

/* Nothing more goes between us: what lies in both mailboxes is over, and the other one is told. */
static void cut(struct local_end *end, const uint8_t id[COMM_ID_BYTES])
{
    struct hub_message *message = message_new(end, MESSAGE_END);
    uv_mutex_lock(&end->hub->mutex);
    struct hub_seat *other = hub_find(end->hub, id);
    struct hub_mailbox *theirs = other != NULL ? hub_box(other, end->seat->id) : NULL;
    struct hub_mailbox *ours = hub_box(end->seat, id);
    if (theirs != NULL) {
        hub_cut(end->hub, theirs, false, COMM_GONE);
    }
    if (ours != NULL) {
        hub_cut(end->hub, ours, false, COMM_GONE);
    }
    if (message != NULL) {
        hub_post(end->hub, end->seat->id, id, message);
    }
    uv_mutex_unlock(&end->hub->mutex);
}

/* Calls sent_cb for what is done. */
static void deliver(struct local_end *end)
{
    for (;;) {
        uv_mutex_lock(&end->hub->mutex);
        struct hub_message *message = hub_pop(&end->seat->done);
        uv_mutex_unlock(&end->hub->mutex);
        if (message == NULL) {
            return;
        }
        void *tag = message->tag;
        uint32_t peer = message->peer;
        enum comm_error result = message->result;
        end->counters.frames_sent += result == COMM_OK;
        end->counters.frames_cancelled += result != COMM_OK;
        end->counters.bytes_sent += result == COMM_OK ? message->frame.length : 0;
        hub_message_free(message);
        if (tag != NULL) {
            end->events.sent_cb(end->owner, peer, tag, result);
        }
    }
}

static void lose(struct local_end *end, uint32_t handle, enum comm_loss why, const char *cause)
{
    char text[COMM_TEXT_BYTES];
    struct local_peer *peer = peer_get(end, handle);
    bool visitor = peer->member.rank == COMM_VISITOR;
    bool told = peer->state == PEER_ANNOUNCED || !visitor;
    if (visitor) {
        snprintf(text, sizeof text, "joiner %02x%02x: %s", peer->member.id[0], peer->member.id[1],
                 cause);
    } else {
        snprintf(text, sizeof text, "rank %u at %s: %s", peer->member.rank, peer->member.address,
                 cause);
    }
    peer->state = PEER_LOST;
    deliver(end);
    if (told) {
        end->events.lost_cb(end->owner, handle, why, text);
    }
    peer = peer_get(end, handle);
    if (visitor && peer != NULL && peer->state == PEER_LOST) {
        peer_remove(end, handle);
    }
}

/* ---- receiving ------------------------------------------------------------------------------- */

static void take_end(struct local_end *end, struct local_peer *peer)
{
    if (peer == NULL || peer->state == PEER_LOST) {
        return;
    }
    if (peer->state == PEER_WAITING && peer->member.rank != COMM_VISITOR) {
        peer->posted = false; /* nothing of this generation can have been lost: the timer tries
                                 again */
        return;
    }
    lose(end, peer->handle, COMM_LOST_CLOSED, "it closed the connection");
}

static void take_enter(struct local_end *end, const uint8_t from[COMM_ID_BYTES],
                       const struct hub_message *message)
{
    struct local_peer *peer = peer_find(end, from);
    bool rightly = message->frame.nonce == end->nonce &&
                   memcmp(message->key, end->key, COMM_KEY_BYTES) == 0;
    if (!end->running || message->frame.number < end->number) {
        return;
    }
    if (peer == NULL && rightly && end->me != COMM_VISITOR &&
        visitor_count(end) < end->limits.visitor_count) {
        struct comm_member visitor = {.rank = COMM_VISITOR};
        memcpy(visitor.id, from, COMM_ID_BYTES);
        peer = peer_add(end, &visitor);
    }
    if (peer == NULL || !rightly) {
        end->counters.strangers++;
        cut(end, from);
        if (peer != NULL && peer->state != PEER_LOST) {
            lose(end, peer->handle, COMM_LOST_STRANGER, "it does not know the generation's key");
        }
    } else if (peer->state == PEER_WAITING) {
        peer->state = PEER_ANNOUNCED;
        post_enter(end, peer);
        end->events.peer_cb(end->owner, peer->handle);
        check_ready(end);
    }
}

static bool frame_is_mine(const struct local_end *end, const struct comm_frame *frame)
{
    return end->running && frame->number == end->number;
}

static bool is_newer(const struct local_end *end, const struct comm_frame *frame)
{
    return frame->number > end->number;
}

static struct hub_message *first_of(struct local_end *end, struct hub_mailbox *box)
{
    uv_mutex_lock(&end->hub->mutex);
    struct hub_message *message = box->list.first;
    if (message != NULL && message->kind == MESSAGE_FRAME) {
        message = NULL;
    } else if (message != NULL &&
               (message->kind == MESSAGE_END || !is_newer(end, &message->frame))) {
        hub_pop(&box->list);
    } else {
        message = NULL;
    }
    uv_mutex_unlock(&end->hub->mutex);
    return message;
}

/* Copies the first frame of the box if it is still this one. */
static bool copy_frame(struct local_end *end, struct hub_mailbox *box,
                       const struct hub_message *expected, uint8_t *place)
{
    uv_mutex_lock(&end->hub->mutex);
    struct hub_message *message = box->list.first;
    bool here = message != NULL && message == expected;
    if (here) {
        for (uint32_t i = 0; i < message->part_count && place != NULL; i++) {
            memcpy(place, message->parts[i].data, message->parts[i].bytes);
            place += message->parts[i].bytes;
        }
        hub_finish(end->hub, hub_pop(&box->list), COMM_OK);
    }
    uv_mutex_unlock(&end->hub->mutex);
    return here;
}

/* The first frame of the box, if it may be looked at now. */
static const struct hub_message *peek_frame(struct local_end *end, struct hub_mailbox *box,
                                            struct comm_frame *frame)
{
    uv_mutex_lock(&end->hub->mutex);
    const struct hub_message *message = box->list.first;
    if (message != NULL && (message->kind != MESSAGE_FRAME || is_newer(end, &message->frame))) {
        message = NULL;
    }
    if (message != NULL) {
        *frame = message->frame;
    }
    uv_mutex_unlock(&end->hub->mutex);
    return message;
}

/* true: there was one. */
static bool take_frame(struct local_end *end, struct hub_mailbox *box)
{
    struct comm_frame frame;
    const struct hub_message *message = peek_frame(end, box, &frame);
    if (message == NULL) {
        return false;
    }
    struct local_peer *peer = peer_find(end, box->from);
    bool wanted = frame_is_mine(end, &frame) && peer != NULL && peer->state == PEER_ANNOUNCED;
    uint32_t handle = peer != NULL ? peer->handle : COMM_NO_PEER;
    uint8_t *place = NULL;
    if (wanted && frame.length > 0) {
        place = end->events.place_cb(end->owner, handle, &frame);
    }
    bool copied = copy_frame(end, box, message, place);
    wanted = wanted && copied && frame_is_mine(end, &frame);
    if (wanted && (place != NULL || frame.length == 0)) {
        end->counters.frames_received++;
        end->counters.bytes_received += frame.length;
        end->events.frame_cb(end->owner, handle, &frame, place);
    } else {
        end->counters.frames_dropped++;
        if (place != NULL) {
            end->events.drop_cb(end->owner, handle, &frame, place);
        }
    }
    return true;
}

/* true: one message less. */
static bool take_one(struct local_end *end, struct hub_mailbox *box)
{
    struct hub_message *message = first_of(end, box);
    if (message == NULL) {
        return take_frame(end, box);
    }
    if (message->kind == MESSAGE_END) {
        take_end(end, peer_find(end, box->from));
    } else {
        take_enter(end, box->from, message);
    }
    hub_message_free(message);
    return true;
}

static void wake_cb(uv_async_t *wake)
{
    struct local_end *end = wake->data;
    bool more = false;
    deliver(end);
    post_enters(end);
    check_ready(end);
    uv_mutex_lock(&end->hub->mutex);
    struct hub_mailbox *box = end->seat->boxes; /* new ones are put in front: this list stays */
    uv_mutex_unlock(&end->hub->mutex);
    for (; box != NULL; box = box->next) {
        unsigned taken = 0;
        while (taken < PUMP_FRAMES && take_one(end, box)) {
            taken++;
        }
        more = more || taken == PUMP_FRAMES;
    }
    deliver(end);
    if (more) {
        uv_async_send(&end->wake);
    }
}

/* Until all are there: members that were not open, or threw our ENTER away. */
static void timer_cb(uv_timer_t *timer)
{
    struct local_end *end = timer->data;
    bool late = uv_now(end->loop) >= end->deadline_ms;
    for (uint32_t i = 0; late && end->running && i < end->peer_count; i++) {
        if (end->peers[i].state == PEER_WAITING && !end->peers[i].posted) {
            lose(end, end->peers[i].handle, COMM_LOST_UNREACHABLE,
                 "nobody of our generation is there");
        }
    }
    post_enters(end);
    if (end->ready || !end->running) {
        uv_timer_stop(timer);
    }
}

/* ---- the vtable ------------------------------------------------------------------------------ */

static void address_op(struct comm *comm, char *text, size_t text_bytes)
{
    snprintf(text, text_bytes, "local:%u", end_of(comm)->seat->number);
}

/* It gets what lies before it, and then the end. */
static void part_from(struct local_end *end, const struct local_peer *peer)
{
    struct hub_message *message = message_new(end, MESSAGE_END);
    uv_mutex_lock(&end->hub->mutex);
    struct hub_seat *seat = hub_find(end->hub, peer->member.id);
    struct hub_mailbox *box = seat != NULL ? hub_box(seat, end->seat->id) : NULL;
    if (box != NULL) {
        hub_keep(end->hub, box);
    }
    if (message != NULL) {
        hub_post(end->hub, end->seat->id, peer->member.id, message);
    }
    uv_mutex_unlock(&end->hub->mutex);
}

/* Peers that are in no list any more: former members. Visitors stay. */
static void forget_outsiders(struct local_end *end, const struct comm_generation *generation)
{
    uint32_t i = 0;
    while (i < end->peer_count) {
        struct local_peer *peer = &end->peers[i];
        bool listed = false;
        for (uint32_t rank = 0; rank < generation->member_count && !listed; rank++) {
            listed = memcmp(generation->members[rank].id, peer->member.id, COMM_ID_BYTES) == 0;
        }
        if (!listed && (peer->member.rank != COMM_VISITOR || peer->state == PEER_LOST)) {
            part_from(end, peer);
            peer_remove(end, peer->handle);
        } else {
            peer->state = PEER_WAITING;
            peer->posted = false;
            i++;
        }
    }
}

static void settle_members(struct local_end *end, const struct comm_generation *generation)
{
    for (uint32_t rank = 0; rank < generation->member_count; rank++) {
        const struct comm_member *member = &generation->members[rank];
        struct local_peer *peer = peer_find(end, member->id);
        if (rank == generation->me) {
            continue;
        }
        if (peer == NULL) {
            peer = peer_add(end, member);
        }
        peer->member = *member;
        peer->state = PEER_WAITING;
        peer->posted = false;
    }
}

static enum comm_error enter_op(struct comm *comm, const struct comm_generation *generation)
{
    struct local_end *end = end_of(comm);
    bool again = generation->number == end->number && generation->nonce == end->nonce &&
                 generation->me == COMM_VISITOR && end->me == COMM_VISITOR && end->running;
    if (generation->number <= end->number && !again) {
        return COMM_OLDER;
    }
    enum comm_error error = comm_roster_check(generation, end->seat->id);
    if (error != COMM_OK) {
        return error;
    }
    forget_outsiders(end, generation);
    settle_members(end, generation);
    end->number = generation->number;
    end->nonce = generation->nonce;
    memcpy(end->key, generation->key, COMM_KEY_BYTES);
    end->me = generation->me;
    end->world = generation->member_count;
    end->running = true;
    end->ready = false;
    end->deadline_ms = uv_now(end->loop) + end->limits.connect_ms;
    uv_timer_start(&end->timer, timer_cb, TICK_MS, TICK_MS);
    uv_async_send(&end->wake);
    return COMM_OK;
}

/* Takes back every frame of ours that nobody has copied. */
static void take_back(struct local_end *end, enum comm_error result)
{
    uv_mutex_lock(&end->hub->mutex);
    for (struct hub_seat *seat = end->hub->seats; seat != NULL; seat = seat->next) {
        for (struct hub_mailbox *box = seat->boxes; box != NULL; box = box->next) {
            if (memcmp(box->from, end->seat->id, COMM_ID_BYTES) == 0) {
                hub_cut(end->hub, box, true, result);
            }
        }
    }
    uv_mutex_unlock(&end->hub->mutex);
}

static void halt_op(struct comm *comm)
{
    struct local_end *end = end_of(comm);
    end->running = false;
    uv_timer_stop(&end->timer);
    take_back(end, COMM_CANCELLED);
    deliver(end);
}

static enum comm_error check_frame(const struct local_end *end, const struct comm_frame *frame,
                                   const struct comm_part *parts, uint32_t part_count,
                                   uint64_t *payload_bytes)
{
    uint64_t total = 0;
    if (part_count > COMM_PARTS_MAX || frame->kind >= COMM_KIND_COUNT) {
        return COMM_LIMIT;
    }
    for (uint32_t i = 0; i < part_count; i++) {
        total += parts[i].bytes;
    }
    *payload_bytes = total;
    return total > comm_kind_most(frame->kind, &end->limits) ? COMM_LIMIT : COMM_OK;
}

static enum comm_error send_op(struct comm *comm, uint32_t handle, const struct comm_frame *frame,
                               const struct comm_part *parts, uint32_t part_count, void *tag)
{
    struct local_end *end = end_of(comm);
    struct local_peer *peer = peer_get(end, handle);
    uint64_t payload_bytes = 0;
    if (!end->running || peer == NULL || peer->state != PEER_ANNOUNCED) {
        return COMM_GONE;
    }
    enum comm_error error = check_frame(end, frame, parts, part_count, &payload_bytes);
    struct hub_message *message = error == COMM_OK ? message_new(end, MESSAGE_FRAME) : NULL;
    if (message == NULL) {
        return error == COMM_OK ? COMM_MEMORY : error;
    }
    message->frame = *frame;
    message->frame.number = end->number;
    message->frame.nonce = end->nonce;
    message->frame.length = payload_bytes;
    message->tag = tag;
    message->peer = handle;
    message->part_count = part_count;
    if (part_count > 0) {
        memcpy(message->parts, parts, part_count * sizeof *parts);
    }
    uv_mutex_lock(&end->hub->mutex);
    struct hub_seat *seat = hub_find(end->hub, peer->member.id);
    struct hub_mailbox *box = seat != NULL ? hub_box(seat, end->seat->id) : NULL;
    if (box != NULL && box->list.count >= end->limits.queue_frames) {
        error = COMM_FULL;
        hub_message_free(message);
    } else if (!hub_post(end->hub, end->seat->id, peer->member.id, message)) {
        error = COMM_GONE;
    }
    uv_mutex_unlock(&end->hub->mutex);
    return error;
}

static uint32_t usable(const struct local_peer *peer)
{
    return peer != NULL && peer->state == PEER_ANNOUNCED ? peer->handle : COMM_NO_PEER;
}

static uint32_t peer_at_op(struct comm *comm, uint32_t rank)
{
    struct local_end *end = end_of(comm);
    return rank < end->world && rank != end->me ? usable(peer_at(end, rank)) : COMM_NO_PEER;
}

static uint32_t peer_of_op(struct comm *comm, const uint8_t id[COMM_ID_BYTES])
{
    return usable(peer_find(end_of(comm), id));
}

static const struct comm_member *member_op(struct comm *comm, uint32_t handle)
{
    const struct local_peer *peer = peer_get(end_of(comm), handle);
    return peer != NULL ? &peer->member : NULL;
}

static void counters_op(struct comm *comm, struct comm_counters *counters)
{
    struct timespec cpu = {0, 0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    *counters = end_of(comm)->counters;
    counters->thread_cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
}

static void closed_cb(uv_handle_t *handle)
{
    struct local_end *end = handle->data;
    if (--end->handles == 0) {
        free(end);
    }
}

/* Takes the seat away, with all that lies before it. */
static void leave_hub(struct local_end *end)
{
    struct hub_seat *seat = end->seat;
    uv_mutex_lock(&end->hub->mutex);
    struct hub_seat **at = &end->hub->seats;
    while (*at != seat) {
        at = &(*at)->next;
    }
    *at = seat->next;
    while (seat->boxes != NULL) {
        struct hub_mailbox *box = seat->boxes;
        seat->boxes = box->next;
        hub_cut(end->hub, box, false, COMM_GONE);
        free(box);
    }
    uv_mutex_unlock(&end->hub->mutex);
    free(seat);
}

static void close_op(struct comm *comm)
{
    struct local_end *end = end_of(comm);
    halt_op(comm);
    for (uint32_t i = 0; i < end->peer_count; i++) {
        cut(end, end->peers[i].member.id);
    }
    deliver(end);
    leave_hub(end);
    uv_close((uv_handle_t *)&end->wake, closed_cb);
    uv_close((uv_handle_t *)&end->timer, closed_cb);
}

static const struct comm_ops local_ops = {
    .name = "local",
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

static void take_seat(struct comm_local_hub *hub, struct hub_seat *seat)
{
    uv_mutex_lock(&hub->mutex);
    seat->number = hub->seat_count++;
    seat->next = hub->seats;
    hub->seats = seat;
    uv_mutex_unlock(&hub->mutex);
}

enum comm_error comm_local_open(struct comm_local_hub *hub, uv_loop_t *loop,
                                const uint8_t id[COMM_ID_BYTES], const struct comm_events *events,
                                void *owner, const struct comm_limits *limits, struct comm **comm)
{
    struct local_end *end = calloc(1, sizeof *end);
    struct hub_seat *seat = calloc(1, sizeof *seat);
    *comm = NULL;
    if (end == NULL || seat == NULL || uv_async_init(loop, &end->wake, wake_cb) != 0) {
        free(end);
        free(seat);
        return COMM_MEMORY;
    }
    uv_timer_init(loop, &end->timer);
    end->wake.data = end;
    end->timer.data = end;
    end->handles = 2;
    end->comm.ops = &local_ops;
    end->hub = hub;
    end->seat = seat;
    end->loop = loop;
    end->events = *events;
    end->owner = owner;
    end->me = COMM_VISITOR;
    comm_limits_default(&end->limits);
    if (limits != NULL) {
        end->limits = *limits;
    }
    memcpy(seat->id, id, COMM_ID_BYTES);
    seat->wake = &end->wake;
    take_seat(hub, seat);
    *comm = &end->comm;
    return COMM_OK;
}
