/* Check 9 is done here: at the moment a barrier is released to somebody, everybody of its generation has
 * entered it and nobody has passed it twice. */
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

static void later(struct sim *sim, uint32_t member)
{
    struct sim_event event = {.at_us = sim->now_us + 1000 + sim_rng_below(&sim->net_rng, 20000),
                              .kind = SIM_EV_WORK, .target = member,
                              .serial = sim->members[member].proc.serial};
    sim_heap_push(&sim->heap, &event);
}

/* What it does next, a little later: enters the generation it was told, then the next barrier. */
void sim_puppet_work(struct sim *sim, uint32_t member)
{
    struct sim_puppet *p = &sim->puppets[member];
    struct session_event event = {.position = {p->plan, p->plan_nonce, 0}};
    char name[32];
    if (p->plan != 0) {
        p->number = p->plan;
        p->nonce = p->plan_nonce;
        p->plan = 0;
        p->in_generation = true;
        event.type = SESSION_ENTERED;
        sim_member_tell(sim, member, &event);
        struct session_event status = {.type = SESSION_STATUS,
                                       .status = {.phase = WIRE_PHASE_EXCHANGE}};
        sim_member_tell(sim, member, &status);
        later(sim, member);
    } else if (p->in_generation && !p->waits) {
        (void)snprintf(name, sizeof name, "b%u", p->barriers);
        p->waits = true;
        event = (struct session_event){.type = SESSION_BARRIER, .barrier = {.name = name,
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

static void take_result(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    struct sim_puppet *p = &sim->puppets[member];
    p->waits = false;
    if (message->barrier_result.end == WIRE_BARRIER_RELEASED) {
        p->barriers++;
        sim->check.barriers_passed++;
    } else if (message->barrier_result.end == WIRE_BARRIER_MISMATCH) {
        /* Puppets of different age count differently: the older ones meet the youngest. */
        p->barriers = 0;
    }
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
    struct session_event ready = {.type = SESSION_READY,
                                  .position = {message->header.generation, message->header.nonce, 0}};
    if (message->generation.mode == WIRE_MODE_VIEW) {
        sim_member_tell(sim, member, &ready);
    } else if (among(sim, member, &message->generation)) {
        p->plan = message->header.generation;
        p->plan_nonce = message->header.nonce;
        later(sim, member);
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
