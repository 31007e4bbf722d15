/* Check 9 is done here: at the moment a barrier is released to somebody, he waits at it, and
 * everybody who lives in his generation has entered it. Barriers are counted anew in each
 * generation. */
#include "sim/puppet.h"

#include "sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void sim_puppet_birth(struct sim *sim, uint32_t member, struct session_config *config)
{
    sim->puppets[member] = (struct sim_puppet){0};
    config->min = sim->setup.min;
    config->max = sim->setup.max;
}

/* Many of them pass barriers more seldom: what a seed costs is the number of messages. */
static void later(struct sim *sim, uint32_t member)
{
    uint64_t most_us = 20000 + 2000ull * sim->setup.puppets;
    struct sim_event event = {.at_us = sim->now_us + 1000 + sim_rng_below(&sim->net_rng, most_us),
                              .kind = SIM_EV_WORK, .target = member,
                              .serial = sim->members[member].proc.serial};
    sim_heap_push(&sim->heap, &event);
}

/* What it does next, a little later: enters the generation it was told, then the next barrier. */
void sim_puppet_work(struct sim *sim, uint32_t member)
{
    struct sim_puppet *p = &sim->puppets[member];
    struct session_event event = {.position = {p->plan, p->plan_nonce, 0}};
    if (p->plan != 0) {
        p->number = p->plan;
        p->nonce = p->plan_nonce;
        p->plan = 0;
        p->barriers = 0; /* what it still waits at belongs to the generation before */
        p->in_generation = true;
        event.type = SESSION_ENTERED;
        sim_member_tell(sim, member, &event);
        struct session_event status = {.type = SESSION_STATUS,
                                       .status = {.phase = WIRE_PHASE_EXCHANGE}};
        sim_member_tell(sim, member, &status);
        later(sim, member);
    } else if (p->in_generation && !p->waits) {
        (void)snprintf(p->at, sizeof p->at, "g%" PRIu64 "-b%u", p->number, p->barriers);
        p->waits = true;
        event = (struct session_event){.type = SESSION_BARRIER, .barrier = {.name = p->at,
                                                                            .place = "puppet"}};
        sim_member_tell(sim, member, &event);
    }
}

static void report(struct sim *sim, uint32_t member)
{
    struct sim_puppet *p = &sim->puppets[member];
    struct session_event event = {.type = SESSION_REPORT, .position = {p->number, p->nonce, 0}};
    event.report.entered = p->in_generation;
    p->in_generation = false;
    p->plan = 0;
    sim_member_tell(sim, member, &event);
}

/* 9 */
static void check_once(struct sim *sim, uint32_t member, const char *name)
{
    const struct sim_puppet *p = &sim->puppets[member];
    if (!p->waits || strcmp(name, p->at) != 0) {
        sim_fail(sim, SIM_CHECK_BARRIERS, "puppet %u hears the end of barrier %s, but %s %s",
                 member, name, p->waits ? "waits at" : "heard already that of", p->at);
    }
}

static void check_released(struct sim *sim, uint32_t member)
{
    const struct sim_puppet *p = &sim->puppets[member];
    for (uint32_t i = 0; i < sim->member_count; i++) {
        const struct sim_puppet *other = &sim->puppets[i];
        bool here = sim->members[i].proc.alive && other->in_generation &&
                    other->number == p->number && other->nonce == p->nonce;
        if (here && (other->barriers < p->barriers ||
                     (other->barriers == p->barriers &&
                      !(other->waits && strcmp(other->at, p->at) == 0)))) {
            sim_fail(sim, SIM_CHECK_BARRIERS,
                     "puppet %u is released from barrier b%u of generation %" PRIu64
                     ", but puppet %u has passed only %u and %s",
                     member, p->barriers, p->number, i, other->barriers,
                     other->waits ? "waits" : "does not wait");
            return;
        }
    }
}

static void take_result(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    struct sim_puppet *p = &sim->puppets[member];
    char next[sizeof p->at];
    (void)snprintf(next, sizeof next, "g%" PRIu64 "-b%u", p->number, p->barriers);
    bool current = p->in_generation && strcmp(p->at, next) == 0;
    check_once(sim, member, message->barrier_result.name);
    if (message->barrier_result.end == WIRE_BARRIER_RELEASED && current) {
        check_released(sim, member);
        p->barriers++;
        sim->check.barriers_passed++;
        sim->check.barriers_in_calm += sim->calm;
    }
    p->waits = false;
    later(sim, member);
}

static bool among(const struct sim *sim, uint32_t member, const struct wire_generation *told)
{
    for (uint32_t i = 0; i < told->members_count; i++) {
        if (wire_id_equal(&told->members[i].id, &sim->members[member].id)) {
            return true;
        }
    }
    return false;
}

static void take_generation(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    struct sim_puppet *p = &sim->puppets[member];
    struct session_event ready = {
        .type = SESSION_READY, .position = {message->header.generation, message->header.nonce, 0}};
    if (message->generation.mode == WIRE_MODE_VIEW) {
        sim_member_tell(sim, member, &ready);
    } else if (among(sim, member, &message->generation)) {
        p->plan = message->header.generation;
        p->plan_nonce = message->header.nonce;
        later(sim, member);
    }
}

/* 10: in the calm everybody who lives is in the generation, or a spare beside a full one, and
 * barriers are passed. */
void sim_puppet_end(struct sim *sim, const struct core_job_view *job)
{
    uint32_t alive = 0, in = 0;
    for (uint32_t i = 0; i < sim->member_count; i++) {
        alive += sim->members[i].proc.alive;
        in += sim->members[i].proc.alive && sim->puppets[i].in_generation;
    }
    uint32_t expected = alive < job->max ? alive : job->max;
    if (in != expected || strcmp(job->state, "running") != 0) {
        sim_fail(sim, SIM_CHECK_FINISH,
                 "%u of %u living puppets are in a generation; the job is %s (%s)", in, expected,
                 job->state, job->reason);
    } else if (sim->check.barriers_in_calm == 0) {
        sim_fail(sim, SIM_CHECK_FINISH, "%u puppets passed no barrier in the calm", in);
    }
}

void sim_puppet_news(struct sim *sim, uint32_t member, const struct session_delivery *delivery)
{
    if (delivery->news == SESSION_NEWS_ENDED) {
        sim_trace(sim, "puppet %-4u  ends %u: %s", member, delivery->exit_code, delivery->text);
        sim_member_death(sim, member, SIM_DEATH_EXIT, (int)delivery->exit_code);
        sim_birth_later(sim, member, 500000);
        return;
    }
    if (delivery->news != SESSION_NEWS_MESSAGE) {
        return;
    }
    switch (delivery->message->header.type) {
    case FRAME_GENERATION:
        take_generation(sim, member, delivery->message);
        break;
    case FRAME_OVER:
        report(sim, member);
        break;
    case FRAME_BARRIER_RESULT:
        take_result(sim, member, delivery->message);
        break;
    default:
        break;
    }
}
