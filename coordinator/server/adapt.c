/* Invariants: nothing is judged here (lint and core do that), and nothing gets lost: every field of
 * one side is set from the other, but for the secret, of which the core sees a digest only. Numbers
 * of types and enumerations are the same on both sides, which the assertions below hold to the
 * letter. */
#include "server/adapt.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)CORE_HELLO == FRAME_HELLO && (int)CORE_BEAT_ACK == FRAME_BEAT_ACK &&
                   (int)CORE_BARRIER_ENTER == FRAME_BARRIER_ENTER &&
                   (int)CORE_WELCOME == FRAME_WELCOME && (int)CORE_VERDICT == FRAME_VERDICT,
               "types");
_Static_assert((int)CORE_PARTICIPANT == WIRE_KIND_PARTICIPANT &&
                   (int)CORE_ATTACH_FROZEN == WIRE_ATTACH_FROZEN &&
                   (int)CORE_PHASE_FINISHED == WIRE_PHASE_FINISHED &&
                   (int)CORE_LOST_STRANGER == WIRE_LOST_STRANGER &&
                   (int)CORE_REFUSAL_GROUP == WIRE_REFUSAL_GROUP &&
                   (int)CORE_VIEW == WIRE_MODE_VIEW &&
                   (int)CORE_BARRIER_FINISHED == WIRE_BARRIER_FINISHED &&
                   (int)CORE_VERDICT_BARRIERS == WIRE_VERDICT_BARRIERS,
               "enumerations");
_Static_assert(CORE_ID_BYTES == WIRE_ID_BYTES && CORE_WORLD_MAX == WIRE_MEMBERS_MAX, "sizes");

static struct core_id core_id_of(const wire_id *id)
{
    struct core_id out;

    memcpy(out.byte, id->bytes, sizeof out.byte);
    return out;
}

static wire_id wire_id_of(const struct core_id *id)
{
    wire_id out;

    memcpy(out.bytes, id->byte, sizeof out.bytes);
    return out;
}

/* ---- to the core ---------------------------------------------------------------------------- */

static void member_to_core(const struct wire_member *from, struct core_roster_member *to)
{
    *to = (struct core_roster_member){
        .id = core_id_of(&from->id),
        .node = from->node,
        .host = from->host,
        .data_address = from->data_address,
        .owned = from->owned,
        .owned_bytes = from->owned_bytes,
        .rank = from->rank,
        .local_rank = from->local_rank,
        .pid = from->pid,
        .applied = from->applied,
        .frozen = from->frozen,
        .weight = from->weight,
    };
}

/* ":4711" from 10.0.0.5 is "10.0.0.5:4711", from fd00::5 it is "[fd00::5]:4711"; anything else
 * stands as it is, and so does what is too long. */
static const char *whole_address(const char *address, const struct adapt_peer *peer,
                                 struct adapt_scratch *scratch)
{
    if (address[0] != ':') {
        return address;
    }
    bool six = strchr(peer->host, ':') != NULL;
    int length = snprintf(scratch->address, sizeof scratch->address, six ? "[%s]%s" : "%s%s",
                          peer->host, address);
    return (size_t)length < sizeof scratch->address ? scratch->address : address;
}

static void hello_to_core(const struct wire_hello *from, const struct adapt_peer *peer,
                          struct adapt_scratch *scratch, struct core_hello *to)
{
    assert(from->roster_count <= WIRE_MEMBERS_MAX);
    for (uint32_t i = 0; i < from->roster_count; i++) {
        member_to_core(&from->roster[i], &scratch->to_core[i]);
    }
    *to = (struct core_hello){
        .version_min = from->version_min,
        .version_max = from->version_max,
        .job = from->job,
        .member_id = core_id_of(&from->member_id),
        .secret = peer->secret,
        .kind = (enum core_kind)from->kind,
        .attach = (enum core_attach)from->attach,
        .node = from->node,
        .host = from->host,
        .data_address = whole_address(from->data_address, peer, scratch),
        .spec = from->spec,
        .fingerprint = from->fingerprint,
        .program = from->program,
        .pid = from->pid,
        .min = from->min,
        .max = from->max,
        .job_uid = core_id_of(&from->job_uid),
        .rank_hint = from->rank_hint,
        .group_size = from->group_size,
        .roster = from->roster_count > 0 ? scratch->to_core : NULL,
        .roster_count = from->roster_count,
        .plan = from->plan,
        .applied = from->applied,
        .passed = from->passed,
        .passed_name = from->passed_name,
    };
}

static void beat_to_core(const struct wire_beat *from, struct core_beat *to)
{
    *to = (struct core_beat){
        .seq = from->seq,
        .phase_age_ms = from->phase_age_ms,
        .phase = (enum core_phase)from->phase,
        .loss = from->loss,
        .samples_per_s = from->samples_per_s,
        .lag_ms = from->lag_ms,
        .shard_us = from->shard_us,
        .shards = from->shards,
        .entered = from->entered,
        .left = from->left,
        .at = from->at,
        .at_age_ms = from->at_age_ms,
        .open = from->open,
        .op = from->op,
        .name = from->name,
        .dtype = from->dtype,
        .place = from->place,
        .count = from->count,
        .batch = from->batch,
        .where = from->where,
    };
}

static void report_to_core(const struct wire_report *from, struct core_report *to)
{
    *to = (struct core_report){
        .plan = from->plan,
        .has_reduced = from->has_reduced,
        .entered = from->entered,
        .owned = from->owned,
        .owned_bytes = from->owned_bytes,
    };
}

/* What is small enough for one line each. False: no message of a member. */
static bool small_to_core(const struct wire_message *from, struct core_message *to)
{
    switch (from->header.type) {
    case FRAME_ENTERED:
        to->entered = (struct core_entered){from->entered.connect_us, from->entered.state_us,
                                            from->entered.recompute_us};
        return true;
    case FRAME_READY:
        to->ready.params_hash = from->ready.params_hash;
        return true;
    case FRAME_PEER_LOST:
        to->peer_lost = (struct core_peer_lost){core_id_of(&from->peer_lost.member_id),
                                                (enum core_lost_why)from->peer_lost.why,
                                                from->peer_lost.text};
        return true;
    case FRAME_LEAVE:
        to->leave.drain_ms = from->leave.drain_ms;
        return true;
    case FRAME_GOODBYE:
        to->goodbye.exit_code = from->goodbye.exit_code;
        to->goodbye.text = from->goodbye.text;
        return true;
    case FRAME_FINISHED:
        to->finished.params_hash = from->finished.params_hash;
        to->finished.test_accuracy = from->finished.test_accuracy;
        return true;
    case FRAME_BARRIER_ENTER:
        to->barrier_enter = (struct core_barrier_enter){
            from->barrier_enter.name, from->barrier_enter.place, from->barrier_enter.seq,
            from->barrier_enter.number};
        return true;
    default:
        return false;
    }
}

bool adapt_to_core(const struct wire_message *from, const struct adapt_peer *peer,
                   struct adapt_scratch *scratch, struct core_message *to)
{
    to->type = (enum core_message_type)from->header.type;
    to->generation = from->header.generation;
    to->nonce = from->header.nonce;
    to->step = from->header.step;
    switch (from->header.type) {
    case FRAME_HELLO:
        hello_to_core(&from->hello, peer, scratch, &to->hello);
        return true;
    case FRAME_BEAT:
        beat_to_core(&from->beat, &to->beat);
        return true;
    case FRAME_REPORT:
        report_to_core(&from->report, &to->report);
        return true;
    default:
        return small_to_core(from, to);
    }
}

/* ---- to the wire ---------------------------------------------------------------------------- */

static void member_to_wire(const struct core_roster_member *from, struct wire_member *to)
{
    *to = (struct wire_member){
        .id = wire_id_of(&from->id),
        .node = from->node,
        .host = from->host,
        .data_address = from->data_address,
        .owned = from->owned,
        .owned_bytes = from->owned_bytes,
        .rank = from->rank,
        .local_rank = from->local_rank,
        .pid = from->pid,
        .applied = from->applied,
        .frozen = from->frozen,
        .weight = from->weight,
    };
}

static void generation_to_wire(const struct core_generation *from, struct adapt_scratch *scratch,
                               struct wire_generation *to)
{
    assert(from->members_count <= WIRE_MEMBERS_MAX);
    for (uint32_t i = 0; i < from->members_count; i++) {
        member_to_wire(&from->members[i], &scratch->to_wire[i]);
    }
    *to = (struct wire_generation){
        .mode = (enum wire_mode)from->mode,
        .key = wire_id_of(&from->key),
        .members = scratch->to_wire,
        .members_count = from->members_count,
        .reason = from->reason,
        .pause = from->pause,
        .detect_us = from->detect_us,
        .push_us = from->push_us,
        .rendezvous_us = from->rendezvous_us,
    };
}

static void over_to_wire(const struct core_over *from, struct adapt_scratch *scratch,
                         struct wire_over *to)
{
    assert(from->lost_count <= WIRE_MEMBERS_MAX);
    for (uint32_t i = 0; i < from->lost_count; i++) {
        scratch->ids[i] = wire_id_of(&from->lost[i]);
    }
    *to = (struct wire_over){
        .lost = scratch->ids, .lost_count = from->lost_count, .reason = from->reason};
}

static void welcome_to_wire(const struct core_welcome *from, struct wire_welcome *to)
{
    *to = (struct wire_welcome){
        .version = from->version,
        .job_uid = wire_id_of(&from->job_uid),
        .beat_ms = from->beat_ms,
        .lease_ms = from->lease_ms,
        .min = from->min,
        .max = from->max,
        .note = from->note,
        .attached = from->attached,
    };
}

static bool small_to_wire(const struct core_message *from, struct wire_message *to)
{
    switch ((int)from->type) {
    case CORE_REFUSED:
        to->refused = (struct wire_refused){(enum wire_refusal)from->refused.why,
                                            from->refused.exit_code, from->refused.text};
        return true;
    case CORE_WAITING:
        to->waiting =
            (struct wire_waiting){from->waiting.have,     from->waiting.min,  from->waiting.max,
                                  from->waiting.since_ms, from->waiting.text, from->waiting.paused};
        return true;
    case CORE_RELEASED:
        to->released.reason = from->released.reason;
        return true;
    case CORE_DRAIN_REQUEST:
        to->drain_request.reason = from->released.reason;
        return true;
    case CORE_DONE:
        to->done.params_hash = from->done.params_hash;
        to->done.text = from->done.text;
        return true;
    case CORE_BARRIER_RESULT:
        to->barrier_result = (struct wire_barrier_result){
            from->barrier_result.name, from->barrier_result.seq,
            (enum wire_barrier_end)from->barrier_result.end, from->barrier_result.text};
        return true;
    case CORE_VERDICT:
        to->verdict.kind = (enum wire_verdict_kind)from->verdict.kind;
        to->verdict.text = from->verdict.text;
        return true;
    default:
        return false;
    }
}

bool adapt_to_wire(const struct core_message *from, struct adapt_scratch *scratch,
                   struct wire_message *to)
{
    to->header = (struct frame_header){
        .version = FRAME_VERSION_MIN,
        .type = (uint8_t)from->type,
        .generation = from->generation,
        .nonce = from->nonce,
        .step = from->step,
    };
    switch ((int)from->type) {
    case CORE_BEAT_ACK:
        to->beat_ack.seq = from->beat_ack.seq;
        return true;
    case CORE_WELCOME:
        welcome_to_wire(&from->welcome, &to->welcome);
        return true;
    case CORE_GENERATION:
        generation_to_wire(&from->roster, scratch, &to->generation);
        return true;
    case CORE_OVER:
        over_to_wire(&from->over, scratch, &to->over);
        return true;
    default:
        return small_to_wire(from, to);
    }
}
