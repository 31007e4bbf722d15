/* Bytes into frames.
 *
 * Invariants
 *   1. A payload is received straight into the place its owner named; only what was read ahead
 *      together with a header (less than LINK_INPUT_BYTES) is copied.
 *   2. Nothing is allocated for what arrives, and a header is checked in full before it has any
 *      effect.
 *   3. Between two callbacks the link is in a state that any function of comm.h may find: after
 *      each callback the state is looked at anew. */
#include "comm/tcp/end.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#define RECEIVE_PARTS 17                    /* one payload in up to 16 pieces, and the input */
#define RECEIVE_BYTES (UINT64_C(1) << 20)   /* of one link in one turn: then others get theirs */

static uint32_t input_bytes(const struct tcp_link *link)
{
    return link->input_end - link->input_start;
}

/* Takes the place away from the frame under way and hands it back. */
void tcp_receive_drop(struct tcp_link *link)
{
    uint8_t *place = link->place;
    link->place = NULL;
    if (place != NULL) {
        link->end->counters.frames_dropped++;
        link->end->events.drop_cb(link->end->owner, link->peer->handle, &link->frame, place);
    }
}

static bool frame_is_mine(const struct tcp_end *end, const struct comm_frame *frame)
{
    return end->running && frame->number == end->number;
}

static bool frame_is_newer(const struct tcp_end *end, const struct comm_frame *frame)
{
    return frame->number > end->number;
}

/* What no member sends; NULL: nothing is wrong. */
static const char *frame_fault(const struct tcp_link *link, const struct comm_frame *frame)
{
    const struct tcp_end *end = link->end;
    bool enter = frame->kind == WIRE_KIND_ENTER;
    if (!enter && frame->kind >= COMM_KIND_COUNT) {
        return "a frame of a kind that does not exist";
    }
    if (frame->length > (enter ? WIRE_PROOF_BYTES : comm_kind_most(frame->kind, &end->limits))) {
        return "a frame longer than its kind allows";
    }
    if (enter && frame->length != WIRE_PROOF_BYTES) {
        return "a proof of another size";
    }
    if (frame_is_mine(end, frame)) {
        if (frame->nonce != end->nonce) {
            return "a frame of another generation with the same number";
        }
        if (!enter && link->peer->state != PEER_ANNOUNCED) {
            return "a frame of a generation it has not entered";
        }
    }
    return NULL;
}

static void frame_deliver(struct tcp_link *link, bool aborted)
{
    struct tcp_end *end = link->end;
    struct comm_frame frame = link->frame;
    uint8_t *place = link->place;
    link->stage = STAGE_HEADER;
    if (aborted || !frame_is_mine(end, &frame)) {
        tcp_receive_drop(link);
        return;
    }
    link->place = NULL;
    if (frame.length > 0 && place == NULL) {
        end->counters.frames_dropped++;
        return;
    }
    end->counters.frames_received++;
    end->events.frame_cb(end->owner, link->peer->handle, &frame, place);
}

static void frame_begin(struct tcp_link *link)
{
    struct tcp_end *end = link->end;
    link->got = 0;
    link->place = NULL;
    if (link->frame.length == 0) {
        end->counters.frames_dropped += !frame_is_mine(end, &link->frame);
        if (frame_is_mine(end, &link->frame)) {
            frame_deliver(link, false);
        }
        return;
    }
    link->stage = STAGE_PAYLOAD;
    if (!frame_is_mine(end, &link->frame)) {
        end->counters.frames_dropped++;
        return;
    }
    struct comm_frame frame = link->frame;
    uint8_t *place = end->events.place_cb(end->owner, link->peer->handle, &frame);
    if (link->state == LINK_OPEN) {
        link->place = place;
        if (!frame_is_mine(end, &frame)) {
            tcp_receive_drop(link); /* place_cb itself ended the generation */
        }
    }
}

/* true: go on parsing. */
static bool take_header(struct tcp_link *link)
{
    struct comm_frame frame;
    const uint8_t *at = link->input + link->input_start;
    if (input_bytes(link) < WIRE_HEADER_BYTES) {
        return false;
    }
    const char *fault =
        wire_get_header(at, &frame) ? frame_fault(link, &frame) : "what is no frame";
    if (fault != NULL) {
        tcp_link_failed(link, COMM_LOST_PROTOCOL, fault);
        return false;
    }
    if (frame_is_newer(link->end, &frame)) {
        link->held = true;
        tcp_link_poll(link);
        return false;
    }
    if (frame.kind != WIRE_KIND_ENTER) {
        link->input_start += WIRE_HEADER_BYTES;
        link->frame = frame;
        frame_begin(link);
        return true;
    }
    if (input_bytes(link) < WIRE_ENTER_BYTES) {
        return false;
    }
    link->input_start += WIRE_ENTER_BYTES;
    if (!frame_is_mine(link->end, &frame)) {
        return true;
    }
    if (!tcp_handshake_check_enter(link, at + WIRE_HEADER_BYTES)) {
        tcp_link_failed(link, COMM_LOST_STRANGER,
                        "it cannot prove that it knows the generation's key");
        return false;
    }
    tcp_peer_entered(link->end, link->peer);
    return true;
}

static bool take_payload(struct tcp_link *link)
{
    uint64_t left = link->frame.length - link->got;
    uint64_t some = input_bytes(link) < left ? input_bytes(link) : left;
    if (link->place != NULL && some > 0) {
        memcpy(link->place + link->got, link->input + link->input_start, some);
    }
    link->input_start += (uint32_t)some;
    link->got += some;
    if (link->got < link->frame.length) {
        return false;
    }
    link->stage = STAGE_TRAILER;
    return true;
}

static bool take_trailer(struct tcp_link *link)
{
    bool aborted = false;
    if (input_bytes(link) < WIRE_TRAILER_BYTES) {
        return false;
    }
    if (!wire_get_trailer(link->input + link->input_start, &aborted)) {
        tcp_link_failed(link, COMM_LOST_PROTOCOL, "a frame without its trailer");
        return false;
    }
    link->input_start += WIRE_TRAILER_BYTES;
    frame_deliver(link, aborted);
    return true;
}

static bool take_frame(struct tcp_link *link)
{
    switch (link->stage) {
    case STAGE_HEADER:
        return take_header(link);
    case STAGE_PAYLOAD:
        return take_payload(link);
    case STAGE_TRAILER:
        return take_trailer(link);
    }
    return false;
}

void tcp_receive_parse(struct tcp_link *link)
{
    bool more = true;
    while (more && !link->held && link->state != LINK_CLOSED) {
        uint32_t before = link->input_start;
        enum link_state state = link->state;
        if (link->state == LINK_OPEN) {
            more = take_frame(link);
        } else if (link->state == LINK_DRAINING) {
            link->input_start = link->input_end;
            more = false;
        } else {
            tcp_handshake_input(link);
            more = link->input_start != before || link->state != state;
        }
    }
    if (link->input_start > 0) {
        memmove(link->input, link->input + link->input_start, input_bytes(link));
        link->input_end -= link->input_start;
        link->input_start = 0;
    }
}

/* Where the next bytes go: the rest of the payload, then the input. Returns the number of
 * buffers. */
static unsigned receive_buffers(struct tcp_link *link, struct iovec iov[RECEIVE_PARTS],
                                uint64_t *payload_bytes, uint64_t *total_bytes)
{
    unsigned count = 0;
    uint64_t planned = 0;
    uint64_t left = 0;
    if (link->state == LINK_OPEN && link->stage == STAGE_PAYLOAD) {
        left = link->frame.length - link->got;
    }
    while (planned < left && count < RECEIVE_PARTS - 1) {
        uint64_t some = left - planned;
        uint8_t *to = link->place;
        if (to != NULL) {
            to += link->got + planned;
        } else {
            to = link->end->scratch;
            some = some < SCRATCH_BYTES ? some : SCRATCH_BYTES;
        }
        iov[count++] = (struct iovec){.iov_base = to, .iov_len = some};
        planned += some;
    }
    *payload_bytes = planned;
    *total_bytes = planned;
    if (planned == left) {
        uint32_t room = LINK_INPUT_BYTES - link->input_end;
        iov[count++] = (struct iovec){.iov_base = link->input + link->input_end, .iov_len = room};
        *total_bytes += room;
    }
    return count;
}

/* One system call: bytes received; 0: nothing there, or the link has ended. */
static uint64_t receive_once(struct tcp_link *link, bool *more)
{
    struct iovec iov[RECEIVE_PARTS];
    uint64_t payload = 0;
    uint64_t asked = 0;
    unsigned count = receive_buffers(link, iov, &payload, &asked);
    ssize_t n = 0;
    do {
        n = readv(link->fd, iov, (int)count);
    } while (n < 0 && errno == EINTR);
    link->end->counters.calls++;
    *more = false;
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            int error = n == 0 ? link->broken : errno;
            tcp_link_failed(link, COMM_LOST_CLOSED,
                            error == 0 ? "it closed the connection" : strerror(error));
        }
        return 0;
    }
    uint64_t bytes = (uint64_t)n;
    uint64_t direct = bytes < payload ? bytes : payload;
    link->end->counters.bytes_received += bytes;
    link->read_ms = tcp_now_ms(link->end);
    link->got += direct;
    link->input_end += (uint32_t)(bytes - direct);
    tcp_receive_parse(link);
    *more = bytes == asked;
    return bytes;
}

void tcp_receive(struct tcp_link *link, bool to_the_end)
{
    uint64_t received = 0;
    bool more = true;
    while ((more || to_the_end) && link->state != LINK_CLOSED && !link->held &&
           (to_the_end || received < RECEIVE_BYTES)) {
        uint64_t some = receive_once(link, &more);
        if (some == 0) {
            break;
        }
        received += some;
    }
}
