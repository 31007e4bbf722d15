/* Frames into bytes.
 *
 * Invariants
 *   1. Only the first message of a queue may be half written.
 *   2. A message that the kernel has begun to take is written to its full length, whatever happens;
 *      what changes is where its bytes come from (the owner's parts, or zeros) and what its trailer
 *      says.
 *   3. A message is in exactly one queue: of a link, `done` (sent_cb is due) or `spare`. sent_cb is
 *      called once for each tag, and never while a queue is walked. */
#include "comm/tcp/end.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define GATHER_PARTS 64                    /* buffers of one system call */
#define GATHER_BYTES (UINT64_C(1) << 20)   /* bytes of one system call: then others get their
                                              turn */
#define FLUSH_BYTES (UINT64_C(4) << 20)    /* bytes of one link in one turn */
#define FLUSH_ROUNDS 4                     /* times that callbacks may add messages before the loop
                                              sleeps */

static const uint8_t zeros[SCRATCH_BYTES];

static void queue_push(struct tcp_queue *queue, struct tcp_out *out)
{
    out->next = NULL;
    if (queue->last != NULL) {
        queue->last->next = out;
    } else {
        queue->first = out;
    }
    queue->last = out;
    queue->count++;
}

static struct tcp_out *queue_pop(struct tcp_queue *queue)
{
    struct tcp_out *out = queue->first;
    if (out != NULL) {
        queue->first = out->next;
        queue->last = queue->first != NULL ? queue->last : NULL;
        queue->count--;
    }
    return out;
}

static struct tcp_out *out_new(struct tcp_end *end)
{
    struct tcp_out *out = end->spare;
    if (out != NULL) {
        end->spare = out->next;
    } else {
        out = malloc(sizeof *out);
    }
    if (out != NULL) {
        memset(out, 0, offsetof(struct tcp_out, parts));
    }
    return out;
}

static void out_recycle(struct tcp_end *end, struct tcp_out *out)
{
    free(out->copy);
    out->copy = NULL;
    out->next = end->spare;
    end->spare = out;
}

void tcp_send_free_spares(struct tcp_end *end)
{
    while (end->spare != NULL) {
        struct tcp_out *out = end->spare;
        end->spare = out->next;
        free(out);
    }
}

static uint64_t out_bytes(const struct tcp_out *out)
{
    return out->header_bytes + out->payload_bytes + out->trailer_bytes;
}

static void link_queue(struct tcp_link *link, struct tcp_out *out)
{
    if (link->queue.first == NULL) {
        link->write_ms = tcp_now_ms(link->end);
    }
    queue_push(&link->queue, out);
    link->dirty = true;
    link->end->dirty = true;
}

void tcp_send_own(struct tcp_link *link, const uint8_t *bytes, uint32_t count)
{
    struct tcp_out *out = out_new(link->end);
    if (out == NULL) {
        /* The other side runs into its deadline and says so: the only symptom that is left to
         * us. */
        return;
    }
    out->own = true;
    out->header_bytes = count;
    memcpy(out->header, bytes, count);
    link_queue(link, out);
}

static enum comm_error check_frame(const struct tcp_end *end, const struct comm_frame *frame,
                                   const struct comm_part *parts, uint32_t part_count,
                                   uint64_t *payload_bytes)
{
    uint64_t total = 0;
    if (part_count > COMM_PARTS_MAX || frame->kind >= COMM_KIND_COUNT) {
        return COMM_LIMIT;
    }
    for (uint32_t i = 0; i < part_count; i++) {
        if (parts[i].bytes > end->limits.frame_bytes) {
            return COMM_LIMIT;
        }
        total += parts[i].bytes;
    }
    *payload_bytes = total;
    return total > comm_kind_most(frame->kind, &end->limits) ? COMM_LIMIT : COMM_OK;
}

enum comm_error tcp_send(struct tcp_end *end, uint32_t handle, const struct comm_frame *frame,
                         const struct comm_part *parts, uint32_t part_count, void *tag)
{
    struct tcp_peer *peer = tcp_peer_get(end, handle);
    if (!end->running || peer == NULL || peer->state != PEER_ANNOUNCED || peer->link->broken != 0) {
        return COMM_GONE;
    }
    uint64_t payload_bytes = 0;
    enum comm_error error = check_frame(end, frame, parts, part_count, &payload_bytes);
    if (error != COMM_OK) {
        return error;
    }
    if (peer->link->queue.count >= end->limits.queue_frames) {
        return COMM_FULL;
    }
    struct tcp_out *out = out_new(end);
    if (out == NULL) {
        return COMM_MEMORY;
    }
    struct comm_frame stamped = *frame;
    stamped.number = end->number;
    stamped.nonce = end->nonce;
    stamped.length = payload_bytes;
    wire_put_header(out->header, &stamped);
    wire_put_trailer(out->trailer, false);
    out->header_bytes = WIRE_HEADER_BYTES;
    out->trailer_bytes = payload_bytes > 0 ? WIRE_TRAILER_BYTES : 0;
    out->payload_bytes = payload_bytes;
    out->tag = tag;
    out->peer = handle;
    out->part_count = part_count;
    if (part_count > 0) {
        memcpy(out->parts, parts, part_count * sizeof *parts);
    }
    link_queue(peer->link, out);
    return COMM_OK;
}

/* Buffers of one system call under construction. */
struct gather {
    struct iovec iov[GATHER_PARTS];
    unsigned count;
    uint64_t bytes;
    uint64_t skip; /* bytes of the message that the kernel has already */
};

static bool gather_full(const struct gather *gather)
{
    return gather->count == GATHER_PARTS || gather->bytes >= GATHER_BYTES;
}

static void gather_add(struct gather *gather, const void *data, uint64_t bytes)
{
    uint64_t skip = gather->skip < bytes ? gather->skip : bytes;
    gather->skip -= skip;
    bytes -= skip;
    if (bytes == 0 || gather_full(gather)) {
        return;
    }
    uint64_t room = GATHER_BYTES - gather->bytes;
    bytes = bytes < room ? bytes : room;
    union {
        const void *from;
        void *to;
    } base = {.from = (const uint8_t *)data + skip}; /* iovec knows no const */
    gather->iov[gather->count++] = (struct iovec){.iov_base = base.to, .iov_len = bytes};
    gather->bytes += bytes;
}

static void gather_zeros(struct gather *gather, uint64_t bytes)
{
    uint64_t skip = gather->skip < bytes ? gather->skip : bytes;
    gather->skip -= skip;
    bytes -= skip;
    while (bytes > 0 && !gather_full(gather)) {
        uint64_t some = bytes < sizeof zeros ? bytes : sizeof zeros;
        gather_add(gather, zeros, some);
        bytes -= some;
    }
}

static void gather_message(struct gather *gather, const struct tcp_out *out)
{
    gather->skip = out->done_bytes;
    gather_add(gather, out->header, out->header_bytes);
    if (out->aborted) {
        gather_zeros(gather, out->payload_bytes);
    } else {
        for (uint32_t i = 0; i < out->part_count; i++) {
            gather_add(gather, out->parts[i].data, out->parts[i].bytes);
        }
    }
    gather_add(gather, out->trailer, out->trailer_bytes);
}

static void message_done(struct tcp_end *end, struct tcp_out *out, enum comm_error result)
{
    out->result = result;
    if (!out->own) {
        end->counters.frames_sent += result == COMM_OK && !out->aborted;
        end->counters.frames_cancelled += result != COMM_OK;
    }
    queue_push(&end->done, out);
}

/* The kernel took so many bytes of the queue. */
static void link_took(struct tcp_link *link, uint64_t bytes)
{
    struct tcp_end *end = link->end;
    end->counters.bytes_sent += bytes;
    link->write_ms = tcp_now_ms(end);
    while (bytes > 0) {
        struct tcp_out *out = link->queue.first;
        uint64_t left = out_bytes(out) - out->done_bytes;
        uint64_t some = bytes < left ? bytes : left;
        out->done_bytes += some;
        bytes -= some;
        if (some == left) {
            message_done(end, queue_pop(&link->queue), COMM_OK);
        }
    }
}

/* One system call: bytes taken, 0 when the link takes no more now. */
static uint64_t link_write(struct tcp_link *link, bool *more)
{
    struct gather gather = {.count = 0};
    for (struct tcp_out *out = link->queue.first; out != NULL && !gather_full(&gather);
         out = out->next) {
        gather_message(&gather, out);
    }
    struct msghdr message = {.msg_iov = gather.iov, .msg_iovlen = gather.count};
    ssize_t n = 0;
    do {
        n = sendmsg(link->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    link->end->counters.calls++;
    if (n < 0) {
        link->broken = errno == EAGAIN ? 0 : errno;
        *more = false;
        return 0;
    }
    link_took(link, (uint64_t)n);
    *more = (uint64_t)n == gather.bytes;
    return (uint64_t)n;
}

static bool may_write(const struct tcp_link *link)
{
    return link->queue.first != NULL && link->broken == 0 && link->state != LINK_CLOSED &&
           link->state != LINK_CONNECTING;
}

void tcp_send_flush(struct tcp_link *link)
{
    uint64_t written = 0;
    bool more = true;
    link->dirty = false;
    while (more && may_write(link) && written < FLUSH_BYTES) {
        written += link_write(link, &more);
        tcp_send_deliver(link->end);
    }
    if (link->state == LINK_DRAINING && link->queue.first == NULL) {
        shutdown(link->fd, SHUT_WR);
    }
    if (link->broken != 0 && link->held && link->state == LINK_OPEN) {
        tcp_link_failed(link, COMM_LOST_CLOSED, strerror(link->broken));
        return;
    }
    tcp_link_poll(link);
}

void tcp_send_flush_all(struct tcp_end *end)
{
    for (unsigned round = 0; end->dirty && round < FLUSH_ROUNDS; round++) {
        end->dirty = false;
        for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
            if (link->dirty) {
                tcp_send_flush(link);
            }
        }
    }
    if (end->dirty) {
        /* Callbacks keep sending: go on after the loop has looked at the sockets. */
        for (struct tcp_link *link = end->links; link != NULL; link = link->next) {
            tcp_link_poll(link);
        }
    }
}

void tcp_send_deliver(struct tcp_end *end)
{
    struct tcp_out *out = NULL;
    while ((out = queue_pop(&end->done)) != NULL) {
        void *tag = out->tag;
        uint32_t peer = out->peer;
        enum comm_error result = out->result;
        out_recycle(end, out);
        if (tag != NULL) {
            end->events.sent_cb(end->owner, peer, tag, result);
        }
    }
}

/* Half written: the rest is zeros, unless only its trailer is missing. The parts are not touched
 * again. */
static void abort_message(struct tcp_out *out)
{
    if (out->done_bytes < out->header_bytes + out->payload_bytes) {
        out->aborted = true;
        wire_put_trailer(out->trailer, true);
    }
}

static void keep_message(struct tcp_out *out)
{
    uint8_t *to = malloc(out->payload_bytes);
    if (to == NULL) {
        abort_message(out);
        return;
    }
    out->copy = to;
    for (uint32_t i = 0; i < out->part_count; i++) {
        memcpy(to, out->parts[i].data, out->parts[i].bytes);
        to += out->parts[i].bytes;
    }
    out->parts[0] = (struct comm_part){out->copy, out->payload_bytes};
    out->part_count = 1;
}

void tcp_send_keep(struct tcp_link *link)
{
    for (struct tcp_out *out = link->queue.first; out != NULL; out = out->next) {
        if (out->part_count > 0 && !out->aborted && out->copy == NULL) {
            keep_message(out);
        }
    }
}

void tcp_send_disown(struct tcp_link *link)
{
    for (struct tcp_out *out = link->queue.first; out != NULL; out = out->next) {
        void *tag = out->tag;
        out->tag = NULL;
        if (tag != NULL) {
            link->end->events.sent_cb(link->end->owner, out->peer, tag, COMM_GONE);
        }
    }
}

void tcp_send_cancel(struct tcp_link *link)
{
    struct tcp_queue kept = {.first = NULL};
    struct tcp_out *out = NULL;
    while ((out = queue_pop(&link->queue)) != NULL) {
        if (out->own) {
            queue_push(&kept, out);
        } else if (out->done_bytes > 0) {
            abort_message(out);
            queue_push(&kept, out);
        } else {
            message_done(link->end, out, COMM_CANCELLED);
        }
    }
    link->queue = kept;
    out = kept.first;
    if (out != NULL && out->tag != NULL) {
        void *tag = out->tag;
        out->tag = NULL;
        link->end->counters.frames_cancelled += out->aborted;
        link->end->events.sent_cb(link->end->owner, out->peer, tag,
                                  out->aborted ? COMM_CANCELLED : COMM_OK);
    }
}

void tcp_send_abandon(struct tcp_link *link)
{
    struct tcp_out *out = NULL;
    while ((out = queue_pop(&link->queue)) != NULL) {
        message_done(link->end, out, COMM_GONE);
    }
}
