/* News of the session as events of the program: one block per event. */
#include "client_private.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)MUSTER_BARRIER_FINISHED == (int)WIRE_BARRIER_FINISHED, "barrier ends");
_Static_assert((int)MUSTER_VERDICT_BARRIERS == (int)WIRE_VERDICT_BARRIERS, "verdicts");
_Static_assert((int)MUSTER_PHASE_FINISHED == (int)WIRE_PHASE_FINISHED, "phases");
_Static_assert((int)MUSTER_LOST_STRANGER == (int)WIRE_LOST_STRANGER, "lost");
_Static_assert((int)MUSTER_PARTICIPANT == (int)WIRE_KIND_PARTICIPANT, "kinds");
_Static_assert(MUSTER_ID_BYTES == WIRE_ID_BYTES, "identities");
_Static_assert(MUSTER_TEXT_BYTES > WIRE_SENTENCE_BYTES, "sentences");

enum { ROUND_BYTES = 8 };

static size_t text_room(const char *text)
{
    return (text ? strlen(text) : 0) + 1 + ROUND_BYTES;
}

static size_t members_room(const struct wire_generation *generation)
{
    size_t room = generation->members_count * sizeof(struct muster_member);

    for (uint32_t i = 0; i < generation->members_count; i++) {
        const struct wire_member *member = &generation->members[i];

        room += text_room(member->node) + text_room(member->host) +
                text_room(member->data_address) + member->owned_bytes + ROUND_BYTES;
    }
    return room;
}

/* The sentence of a message, whatever its field is called. */
static const char *text_of(const struct session_delivery *delivery)
{
    const struct wire_message *message = delivery->message;

    if (!message)
        return delivery->text;
    switch ((enum frame_type)message->header.type) {
    case FRAME_WELCOME:
        return message->welcome.note;
    case FRAME_WAITING:
        return message->waiting.text;
    case FRAME_GENERATION:
        return message->generation.reason;
    case FRAME_OVER:
        return message->over.reason;
    case FRAME_RELEASED:
        return message->released.reason;
    case FRAME_DRAIN_REQUEST:
        return message->drain_request.reason;
    case FRAME_DONE:
        return message->done.text;
    case FRAME_BARRIER_RESULT:
        return message->barrier_result.text;
    case FRAME_VERDICT:
        return message->verdict.text;
    case FRAME_REFUSED: /* comes as ENDED, without a message */
    case FRAME_BEAT_ACK:
    case FRAME_HELLO:
    case FRAME_BEAT:
    case FRAME_REPORT:
    case FRAME_ENTERED:
    case FRAME_READY:
    case FRAME_PEER_LOST:
    case FRAME_LEAVE:
    case FRAME_GOODBYE:
    case FRAME_FINISHED:
    case FRAME_BARRIER_ENTER:
        break;
    }
    return "";
}

static size_t event_room(const struct session_delivery *delivery)
{
    const struct wire_message *message = delivery->message;
    size_t room = text_room(text_of(delivery));

    if (message && message->header.type == FRAME_GENERATION)
        room += members_room(&message->generation);
    if (message && message->header.type == FRAME_OVER)
        room += message->over.lost_count * sizeof(wire_id);
    return room;
}

/* The arena was made large enough by event_room(). */
static const void *keep(struct wire_arena *arena, const void *from, size_t bytes)
{
    void *to = wire_arena_take(arena, bytes);

    if (bytes > 0)
        memcpy(to, from, bytes);
    return to;
}

static const char *keep_text(struct wire_arena *arena, const char *text)
{
    return keep(arena, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void fill_members(struct wire_arena *arena, const struct wire_generation *from,
                         const wire_id *self, struct muster_event *event)
{
    struct muster_member *members = wire_arena_take(arena, from->members_count * sizeof *members);

    for (uint32_t i = 0; i < from->members_count; i++) {
        const struct wire_member *member = &from->members[i];

        members[i] = (struct muster_member){
            .node = keep_text(arena, member->node),
            .host = keep_text(arena, member->host),
            .data_address = keep_text(arena, member->data_address),
            .owned = keep(arena, member->owned, member->owned_bytes),
            .owned_bytes = member->owned_bytes,
            .rank = member->rank,
            .local_rank = member->local_rank,
            .pid = member->pid,
            .applied = member->applied,
            .frozen = member->frozen,
            .weight = member->weight,
        };
        memcpy(members[i].id, member->id.bytes, sizeof members[i].id);
        if (wire_id_equal(&member->id, self))
            event->self = member->rank;
    }
    event->members = members;
    event->member_count = from->members_count;
}

static void fill_generation(struct wire_arena *arena, const struct wire_generation *from,
                            const wire_id *self, struct muster_event *event)
{
    event->type = from->mode == WIRE_MODE_FORMED ? MUSTER_FORMED
                  : from->mode == WIRE_MODE_PLAN ? MUSTER_PLAN
                                                 : MUSTER_VIEW;
    memcpy(event->key, from->key.bytes, sizeof event->key);
    event->pause = from->pause;
    event->detect_us = from->detect_us;
    event->push_us = from->push_us;
    event->rendezvous_us = from->rendezvous_us;
    fill_members(arena, from, self, event);
}

static void fill_message(struct wire_arena *arena, const struct wire_message *message,
                         const wire_id *self, struct muster_event *event)
{
    event->generation = message->header.generation;
    event->nonce = message->header.nonce;
    event->step = message->header.step;
    switch (message->header.type) { /* a uint8_t: the session delivers only these */
    case FRAME_WAITING:
        event->type = MUSTER_WAITING;
        event->have = message->waiting.have;
        event->min = message->waiting.min;
        event->max = message->waiting.max;
        event->since_ms = message->waiting.since_ms;
        event->paused = message->waiting.paused;
        break;
    case FRAME_GENERATION:
        fill_generation(arena, &message->generation, self, event);
        break;
    case FRAME_OVER:
        event->type = MUSTER_OVER;
        event->lost_count = message->over.lost_count;
        event->lost = keep(arena, message->over.lost, event->lost_count * sizeof(wire_id));
        break;
    case FRAME_RELEASED:
        event->type = MUSTER_RELEASED;
        break;
    case FRAME_DRAIN_REQUEST:
        event->type = MUSTER_DRAIN;
        break;
    case FRAME_DONE:
        event->type = MUSTER_DONE;
        event->params_hash = message->done.params_hash;
        break;
    case FRAME_BARRIER_RESULT:
        event->type = MUSTER_BARRIER;
        event->barrier_end = (enum muster_barrier_end)message->barrier_result.end;
        event->barrier_seq = message->barrier_result.seq;
        break;
    case FRAME_VERDICT:
        event->type = MUSTER_VERDICT;
        event->verdict = (enum muster_verdict)message->verdict.kind;
        break;
    default:
        break;
    }
}

static void fill_up(const struct wire_message *message, struct muster_event *event)
{
    const struct wire_welcome *welcome = &message->welcome;

    event->type = MUSTER_UP;
    event->generation = message->header.generation;
    event->min = welcome->min;
    event->max = welcome->max;
    event->attached = welcome->attached;
    memcpy(event->job_uid, welcome->job_uid.bytes, sizeof event->job_uid);
}

static void fill_ended(const struct session_delivery *delivery, struct muster_event *event)
{
    event->type = MUSTER_ENDED;
    event->exit_code = (int)delivery->exit_code;
    event->status = MUSTER_OK;
    if (delivery->end == SESSION_END_REFUSED) {
        event->status = MUSTER_ERROR_REFUSED;
        event->refusal = (uint32_t)delivery->refusal;
    }
    if (delivery->end == SESSION_END_UNREACHABLE)
        event->status = MUSTER_ERROR_UNAVAILABLE;
}

struct queued *client_event_new(const struct session_delivery *delivery, const wire_id *self)
{
    size_t room = event_room(delivery);
    struct queued *queued = calloc(1, sizeof *queued + room);
    struct wire_arena arena;

    if (!queued)
        return NULL;
    wire_arena_init(&arena, queued + 1, room);
    queued->event.self = MUSTER_NOBODY;
    queued->event.text = keep_text(&arena, text_of(delivery));
    switch (delivery->news) {
    case SESSION_NEWS_UP:
        fill_up(delivery->message, &queued->event);
        break;
    case SESSION_NEWS_DOWN:
        queued->event.type = MUSTER_DOWN;
        break;
    case SESSION_NEWS_MESSAGE:
        fill_message(&arena, delivery->message, self, &queued->event);
        break;
    case SESSION_NEWS_ENDED:
        fill_ended(delivery, &queued->event);
        break;
    }
    return queued;
}

void client_event_free(struct queued *queued)
{
    free(queued);
}

void muster_event_free(struct muster_event *event)
{
    if (event)
        client_event_free(
            (struct queued *)(void *)((char *)event - offsetof(struct queued, event)));
}

const char *muster_event_name(enum muster_event_type type)
{
    switch (type) {
#define MUSTER_EVENT_CASE(name, word)                                                              \
    case name:                                                                                     \
        return word;
        MUSTER_EVENTS(MUSTER_EVENT_CASE)
#undef MUSTER_EVENT_CASE
    }
    return "?";
}

const char *muster_status_text(enum muster_status status)
{
    switch (status) {
#define MUSTER_STATUS_CASE(name, exit_code, sentence)                                              \
    case name:                                                                                     \
        return sentence;
        MUSTER_STATUSES(MUSTER_STATUS_CASE)
#undef MUSTER_STATUS_CASE
    }
    return "?";
}
