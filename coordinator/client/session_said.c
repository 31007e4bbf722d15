/* What the program says: kept as long as it stands, sent now if attached, said again after WELCOME.
 *
 * Invariants:
 *   1. Nothing kept in `said` points outside the session.
 *   2. Nothing new is kept of a generation that is over: a program that did not see OVER yet says
 *      void words.
 */
#include "session_private.h"

#include <string.h>

void session_forget_generation(struct session_said *said)
{
    said->has_entered = false;
    said->has_ready = false;
    said->has_finished = false;
    said->lost_count = 0;
}

static bool over(const struct session *session, const struct session_event *event)
{
    return event->position.generation <= session->over;
}

/* ---- keeping: takes over what an event says; false when it makes no sense now ---- */

static bool keep_status(struct session *session, const struct session_event *event)
{
    const struct session_status *status = &event->status;

    if (status->phase != session->status.phase || status->applied != session->status.applied ||
        status->part != session->status.part)
        session->phase_since_us = session->now_us;
    session->status = *status;
    session->status_us = session->now_us;
    session->held.step = status->applied;
    return true;
}

static bool keep_ledger(struct session *session, const struct session_event *event)
{
    session->ledger = event->ledger;
    return true;
}

static bool keep_where(struct session *session, const struct session_event *event)
{
    session_copy_text(session->where, sizeof session->where, event->text);
    return true;
}

static bool keep_entered(struct session *session, const struct session_event *event)
{
    struct session_said *said = &session->said;

    if (over(session, event) || event->position.generation <= session->reported)
        return false;
    if (event->position.generation != session->held.generation)
        session_forget_generation(said);
    session->held = event->position;
    said->has_entered = true;
    said->has_ready = false;
    said->has_report = false; /* of the time before: it entered by a plan, without a FORMED */
    said->entered_at = event->position;
    said->entered = event->entered;
    return true;
}

static bool keep_report(struct session *session, const struct session_event *event)
{
    struct session_said *said = &session->said;

    if (event->report.owned_bytes > sizeof said->owned)
        return false;
    if (event->position.generation > session->reported)
        session->reported = event->position.generation;
    if (event->report.entered)
        session->held = event->position;
    session->held.step = event->position.step;
    session_forget_generation(said);
    said->has_report = true;
    said->report_at = event->position;
    said->report = event->report;
    if (event->report.owned_bytes > 0)
        memcpy(said->owned, event->report.owned, event->report.owned_bytes);
    said->report.owned = said->owned;
    return true;
}

static bool keep_ready(struct session *session, const struct session_event *event)
{
    if (over(session, event))
        return false;
    session->said.has_ready = true;
    session->said.ready_at = event->position;
    session->said.ready = event->ready;
    return true;
}

static bool keep_peer_lost(struct session *session, const struct session_event *event)
{
    struct session_said *said = &session->said;
    uint32_t index = said->lost_count % SESSION_LOST_MAX;

    if (over(session, event))
        return false;
    said->lost_count++;
    session_copy_text(said->lost_text[index], sizeof said->lost_text[index], event->peer_lost.text);
    said->lost_at[index] = event->position;
    said->lost[index] = event->peer_lost;
    said->lost[index].text = said->lost_text[index];
    return true;
}

static bool keep_leave(struct session *session, const struct session_event *event)
{
    session->said.has_leave = true;
    session->said.leave_at = event->position;
    session->said.leave = event->leave;
    return true;
}

static bool keep_finished(struct session *session, const struct session_event *event)
{
    if (over(session, event))
        return false;
    session->said.has_finished = true;
    session->said.finished_at = event->position;
    session->said.finished = event->finished;
    return true;
}

static bool keep_barrier(struct session *session, const struct session_event *event)
{
    struct session_said *said = &session->said;

    if (said->has_barrier)
        return false;
    if (session->held.generation != session->barrier_generation)
        session->barrier_number = session->passed = 0;
    session->barrier_generation = session->held.generation;
    session_copy_text(said->barrier_name, sizeof said->barrier_name, event->barrier.name);
    session_copy_text(said->barrier_place, sizeof said->barrier_place, event->barrier.place);
    said->has_barrier = true;
    said->barrier_at = session->held;
    session->barrier_since_us = session->now_us;
    said->barrier = (struct wire_barrier_enter){
        .name = said->barrier_name,
        .seq = ++session->barrier_seq,
        .place = said->barrier_place,
        .number = ++session->barrier_number,
    };
    return true;
}

static bool keep_goodbye(struct session *session, const struct session_event *event)
{
    struct session_said *said = &session->said;

    session_copy_text(said->goodbye_text, sizeof said->goodbye_text, event->goodbye.text);
    said->has_goodbye = true;
    said->goodbye_at = event->position.generation ? event->position : session->held;
    said->goodbye = event->goodbye;
    said->goodbye.text = said->goodbye_text;
    return true;
}

/* ---- sending what is kept ---- */

static void send_entered(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_ENTERED, &said->entered_at)->entered = said->entered;
}

static void send_report(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_REPORT, &said->report_at)->report = said->report;
}

static void send_ready(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_READY, &said->ready_at)->ready = said->ready;
}

static void send_lost(const struct session_said *said, uint32_t index,
                      struct session_actions *actions)
{
    session_send(actions, FRAME_PEER_LOST, &said->lost_at[index])->peer_lost = said->lost[index];
}

static void send_newest_lost(struct session *session, struct session_actions *actions)
{
    send_lost(&session->said, (session->said.lost_count - 1) % SESSION_LOST_MAX, actions);
}

static void send_leave(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_LEAVE, &said->leave_at)->leave = said->leave;
}

static void send_finished(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_FINISHED, &said->finished_at)->finished = said->finished;
}

static void send_barrier(struct session *session, struct session_actions *actions)
{
    session_send(actions, FRAME_BARRIER_ENTER, &session->said.barrier_at)->barrier_enter =
        session->said.barrier;
}

static void send_goodbye(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;

    session_send(actions, FRAME_GOODBYE, &said->goodbye_at)->goodbye = said->goodbye;
    session_copy_text(session->text, sizeof session->text, "said goodbye");
    session_finish(session, SESSION_END_GOODBYE, said->goodbye.exit_code, actions);
}

/* ---- together ---- */

/* What to do with an event of the program. */
struct say_rule {
    bool (*keep)(struct session *session,
                 const struct session_event *event); /* takes the event over */
    void (*send)(struct session *session, struct session_actions *actions); /* NULL: with beats */
};

static const struct say_rule say_rules[] = {
    [SESSION_STATUS] = {keep_status, NULL},
    [SESSION_LEDGER] = {keep_ledger, NULL},
    [SESSION_WHERE] = {keep_where, NULL},
    [SESSION_REPORT] = {keep_report, send_report},
    [SESSION_ENTERED] = {keep_entered, send_entered},
    [SESSION_READY] = {keep_ready, send_ready},
    [SESSION_PEER_LOST] = {keep_peer_lost, send_newest_lost},
    [SESSION_LEAVE] = {keep_leave, send_leave},
    [SESSION_FINISHED] = {keep_finished, send_finished},
    [SESSION_GOODBYE] = {keep_goodbye, send_goodbye},
    [SESSION_BARRIER] = {keep_barrier, send_barrier},
};

void session_say_again(struct session *session, struct session_actions *actions)
{
    const struct session_said *said = &session->said;
    uint32_t lost_count = said->lost_count < SESSION_LOST_MAX ? said->lost_count : SESSION_LOST_MAX;

    if (said->has_entered)
        send_entered(session, actions);
    if (said->has_report)
        send_report(session, actions);
    if (said->has_ready)
        send_ready(session, actions);
    for (uint32_t i = 0; i < lost_count; i++)
        send_lost(said, i, actions);
    if (said->has_finished)
        send_finished(session, actions);
    if (said->has_leave)
        send_leave(session, actions);
    if (said->has_barrier)
        send_barrier(session, actions);
    if (said->has_goodbye)
        send_goodbye(session, actions);
}

bool session_say(struct session *session, const struct session_event *event,
                 struct session_actions *actions)
{
    const struct say_rule *rule = &say_rules[event->type];

    if (!rule->keep(session, event))
        return false;
    if (session->state == SESSION_ATTACHED && rule->send) {
        if (event->type == SESSION_FINISHED)
            session_beat(session, actions); /* what the last steps brought comes before the end */
        rule->send(session, actions);
    } else if (event->type == SESSION_GOODBYE && !session->admitted) {
        session_copy_text(session->text, sizeof session->text, "left before it was admitted");
        session_finish(session, SESSION_END_GOODBYE, event->goodbye.exit_code, actions);
    }
    return true;
}
