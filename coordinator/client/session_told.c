/* What the coordinator tells an attached member, and what of it is stale.
 *
 * Invariants:
 *   1. `largest` never falls; `over` and `formed` never exceed it.
 *   2. FORMED, PLAN and VIEW are delivered only with a number > over and >= largest, and the same
 *      number once per mode; a FORMED is always a number not seen before.
 *   3. OVER is delivered only for a generation >= the newest FORMED that is not over yet. It ends
 *      every number seen so far: the generation and all plans issued in it.
 *   4. The roster of the generation held is never overwritten while it is held.
 */
#include "session_private.h"

static bool roster_is_held(const struct session *session, uint32_t index)
{
    return session->held.generation != 0 &&
           session->rosters[index].message.header.generation == session->held.generation;
}

const struct wire_message *session_roster_held(const struct session *session)
{
    for (uint32_t i = 0; i < 2; i++) {
        if (roster_is_held(session, i))
            return &session->rosters[i].message;
    }
    return NULL;
}

/* Keeps a copy for a re-attach; if it does not fit in the memory given, the re-attach goes
 without. */
static void keep_roster(struct session *session, const struct wire_message *message)
{
    struct session_roster *roster = &session->rosters[roster_is_held(session, 0) ? 1 : 0];

    wire_arena_reset(&roster->arena);
    if (wire_message_copy(&roster->arena, message, &roster->message) != WIRE_OK)
        roster->message.header.generation = 0;
}

static bool among(const struct session *session, const struct wire_generation *generation)
{
    for (uint32_t i = 0; i < generation->members_count; i++) {
        if (wire_id_equal(&generation->members[i].id, &session->config->member_id))
            return true;
    }
    return false;
}

/* A manifest gives a generation's number without its nonce: the first message of that number has
 * it. */
static bool nonce_fits(const struct session *session, uint64_t nonce)
{
    bool unknown = session->largest_nonce == 0 && session->largest_modes == 0;

    return unknown || nonce == session->largest_nonce;
}

static bool stale(const struct session *session, const struct wire_message *message)
{
    uint64_t number = message->header.generation;
    uint32_t bit = 1u << message->generation.mode;

    if (number == 0 || number <= session->over || number < session->largest)
        return true;
    if (number > session->largest)
        return false;
    return !nonce_fits(session, message->header.nonce) || session->largest_modes & bit ||
           message->generation.mode == WIRE_MODE_FORMED;
}

static void told_generation(struct session *session, const struct wire_message *message,
                            struct session_actions *actions)
{
    const struct frame_header *header = &message->header;
    enum wire_mode mode = message->generation.mode;

    if (stale(session, message)) {
        session->dropped++;
        return;
    }
    if (header->generation > session->largest)
        session->largest_modes = 0;
    session->largest = header->generation;
    session->largest_nonce = header->nonce;
    session->largest_modes |= 1u << mode;
    session->said.has_ready = false;
    if (mode == WIRE_MODE_FORMED) {
        session->formed = header->generation;
        session->said.has_report = false;
        session_forget_generation(&session->said);
        if (among(session, &message->generation)) {
            session->held.generation = header->generation;
            session->held.nonce = header->nonce;
        }
    }
    if (mode != WIRE_MODE_VIEW)
        keep_roster(session, message);
    session_deliver(actions, SESSION_NEWS_MESSAGE, message);
}

static void told_over(struct session *session, const struct wire_message *message,
                      struct session_actions *actions)
{
    uint64_t number = message->header.generation;

    if (number < session->formed || number <= session->over) {
        session->dropped++;
        return;
    }
    if (number > session->largest) {
        session->largest = number;
        session->largest_nonce = message->header.nonce;
        session->largest_modes = 0;
    }
    session->over = session->largest;
    session_forget_generation(&session->said);
    session_deliver(actions, SESSION_NEWS_MESSAGE, message);
}

static void told_barrier(struct session *session, const struct wire_message *message,
                         struct session_actions *actions)
{
    if (!session->said.has_barrier || message->barrier_result.seq != session->said.barrier.seq) {
        session->dropped++;
        return;
    }
    session->said.has_barrier = false;
    if (message->barrier_result.end == WIRE_BARRIER_RELEASED) {
        session->passed = session->said.barrier.number;
        session_copy_text(session->passed_name, sizeof session->passed_name,
                          session->said.barrier_name);
    }
    session_deliver(actions, SESSION_NEWS_MESSAGE, message);
}

void session_told(struct session *session, const struct wire_message *message,
                  struct session_actions *actions)
{
    switch (message->header.type) { /* a uint8_t: the default is what may not come here */
    case FRAME_BEAT_ACK:
        return;
    case FRAME_GENERATION:
        told_generation(session, message, actions);
        return;
    case FRAME_OVER:
        told_over(session, message, actions);
        return;
    case FRAME_BARRIER_RESULT:
        told_barrier(session, message, actions);
        return;
    case FRAME_VERDICT:
        if (message->header.generation != session->held.generation) {
            session->dropped++;
            return;
        }
        break;
    case FRAME_RELEASED:
        session->said.has_leave = false;
        break;
    case FRAME_DONE:
        session->said.has_finished = false;
        break;
    case FRAME_WAITING:
    case FRAME_DRAIN_REQUEST:
        break;
    default:
        session_drop(session, "the coordinator broke the protocol (type of frame)", actions);
        return;
    }
    session_deliver(actions, SESSION_NEWS_MESSAGE, message);
}
