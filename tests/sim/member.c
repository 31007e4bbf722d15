/* Invariants: a session has at most one connection; a process that is dead has none; what the
 * session delivers reaches the program in order, a little later when setup.hop_us says so. */
#include "sim/member.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROSTER_MAX 128u /* members that a session's memory holds */

/* ---- identity ------------------------------------------------------------------------------- */

/* Slot and birth stand in the identity in clear, so that the simulator can find the process
 * again. */
static wire_id identity(struct sim *sim, uint32_t member)
{
    wire_id id;
    uint32_t births = sim->members[member].births;
    uint64_t rest = sim_rng_next(&sim->id_rng) | 1;
    memcpy(id.bytes, &member, 4);
    memcpy(id.bytes + 4, &births, 4);
    memcpy(id.bytes + 8, &rest, 8);
    return id;
}

uint32_t sim_member_slot(const struct sim *sim, const uint8_t id[WIRE_ID_BYTES])
{
    uint32_t member;
    memcpy(&member, id, sizeof member);
    if (member >= sim->member_count || !sim->members[member].proc.alive ||
        memcmp(sim->members[member].id.bytes, id, WIRE_ID_BYTES) != 0 ||
        sim->members[member].impostor_of != 0) {
        return SIM_NO_SLOT;
    }
    return member;
}

/* ---- carrying out --------------------------------------------------------------------------- */

static void arm_wake(struct sim *sim, uint32_t member)
{
    struct sim_member *m = &sim->members[member];
    uint64_t wake_us = session_wake_us(&m->session);
    if (wake_us == SESSION_NEVER_US) {
        return;
    }
    wake_us = wake_us > m->proc.skew_us ? wake_us - m->proc.skew_us : 0;
    wake_us = wake_us > sim->now_us ? wake_us : sim->now_us + 1;
    if (m->wake_us == 0 || wake_us < m->wake_us) {
        m->wake_us = wake_us;
        struct sim_event event = {.at_us = wake_us, .kind = SIM_EV_WAKE, .target = member,
                                  .serial = m->proc.serial};
        sim_heap_push(&sim->heap, &event);
    }
}

static bool is_barrier(const struct session_delivery *delivery)
{
    return delivery->news == SESSION_NEWS_MESSAGE &&
           delivery->message->header.type == FRAME_BARRIER_RESULT;
}

static void deliver(struct sim *sim, uint32_t member, const struct session_delivery *delivery)
{
    if (sim->workers != NULL) {
        sim_worker_news(sim, member, delivery);
    } else {
        sim_puppet_news(sim, member, delivery);
    }
}

static void send(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    uint32_t conn = sim->members[member].conn;
    struct wire_message hello;
    if (sim->options->bug == SIM_BUG_OLD_HELLO && message->header.type == FRAME_HELLO) {
        hello = *message;
        hello.hello.plan = 0;
        hello.hello.applied -= hello.hello.applied > 0;
        message = &hello;
    }
    sim_net_say(sim, conn, SIM_END_MEMBER, message);
    if (sim_strike_duplicates(sim, member, message)) {
        sim_net_say(sim, conn, SIM_END_MEMBER, message);
    }
}

/* What goes to the network first, then the news: they cross to another thread in the real
 * carrier. */
static void carry_out(struct sim *sim, uint32_t member, const struct session_actions *actions)
{
    struct sim_member *m = &sim->members[member];
    uint32_t serial = m->proc.serial;
    for (uint32_t i = 0; i < actions->count; i++) {
        const struct session_action *action = &actions->list[i];
        sim_mark(sim, (uint64_t)action->type);
        switch (action->type) {
        case SESSION_CONNECT:
            sim_net_dial(sim, member);
            break;
        case SESSION_SEND:
            send(sim, member, &action->message);
            break;
        case SESSION_CLOSE:
            sim_net_hang_up(sim, m->conn, SIM_END_MEMBER);
            m->conn = SIM_NO_CONN;
            break;
        case SESSION_DELIVER:
            break;
        }
    }
    for (uint32_t i = 0; i < actions->count && m->proc.serial == serial && !sim->ended; i++) {
        if (actions->list[i].type == SESSION_DELIVER) {
            deliver(sim, member, &actions->list[i].delivery);
            if (sim->options->bug == SIM_BUG_BARRIER_TWICE && m->proc.serial == serial &&
                is_barrier(&actions->list[i].delivery)) {
                deliver(sim, member, &actions->list[i].delivery);
            }
        }
    }
}

void sim_member_tell(struct sim *sim, uint32_t member, struct session_event *event)
{
    struct sim_member *m = &sim->members[member];
    struct session_actions actions;
    uint32_t serial = m->proc.serial;
    event->now_us = sim_proc_now_us(sim, &m->proc);
    event->random = sim_rng_next(&sim->id_rng);
    actions.count = 0;
    (void)session_step(&m->session, event, &actions);
    carry_out(sim, member, &actions);
    if (m->proc.serial == serial) {
        arm_wake(sim, member);
    }
}

/* ---- birth and death ------------------------------------------------------------------------ */

static void configure(struct sim *sim, uint32_t member)
{
    struct sim_member *m = &sim->members[member];
    session_config_init(&m->config);
    (void)snprintf(m->names.node, sizeof m->names.node, "node%u", m->proc.host);
    (void)snprintf(m->names.host, sizeof m->names.host, "host%u", m->proc.host);
    (void)snprintf(m->names.address, sizeof m->names.address, ":%u",
                   member * 1000 + m->births % 1000);
    m->config.job = "job";
    m->config.node = m->names.node;
    m->config.host = m->names.host;
    m->config.data_address = m->names.address;
    m->config.program = "muster-sim";
    m->config.spec = "seed=1\n";
    m->config.fingerprint = "toy=1\n";
    m->config.pid = 1000 + member;
    m->config.min = sim->setup.min;
    m->config.max = sim->setup.max;
    m->config.connect_timeout_ms = sim->setup.connect_timeout_ms;
    m->config.member_id = m->id;
    uint64_t secret[2] = {sim_rng_next(&sim->id_rng), sim_rng_next(&sim->id_rng)};
    memcpy(m->config.secret.bytes, secret, sizeof m->config.secret.bytes);
}

void sim_member_birth(struct sim *sim, uint32_t member)
{
    struct sim_member *m = &sim->members[member];
    SIM_REQUIRE(!m->proc.alive);
    m->proc.alive = true;
    m->proc.paused = false;
    m->proc.serial++;
    m->proc.born_us = sim->now_us;
    m->births++;
    m->conn = SIM_NO_CONN;
    m->wake_us = 0;
    m->exit_code = 0;
    m->stop_asked = false;
    m->impersonated = false;
    m->id = m->impostor_of != 0 ? sim->members[m->impostor_of - 1].id : identity(sim, member);
    if (m->memory == NULL) {
        m->memory_bytes = session_memory_bytes(sim->workers != NULL ? ROSTER_MAX : 1024);
        m->memory = malloc(m->memory_bytes);
        SIM_REQUIRE(m->memory != NULL);
    }
    configure(sim, member);
    if (sim->workers != NULL) {
        sim_worker_birth(sim, member, &m->config);
    } else {
        sim_puppet_birth(sim, member, &m->config);
    }
    sim_trace(sim, "worker %-3u   starts on host %u", member, m->proc.host);
    session_init(&m->session, &m->config, m->memory, m->memory_bytes);
    struct session_event event = {.type = SESSION_START};
    sim_member_tell(sim, member, &event);
}

void sim_member_death(struct sim *sim, uint32_t member, enum sim_death how, int exit_code)
{
    struct sim_member *m = &sim->members[member];
    SIM_REQUIRE(m->proc.alive);
    bool quiet = how == SIM_DEATH_HOST;
    if (sim->workers != NULL && m->impostor_of == 0) {
        sim_check_gone(sim, member, how == SIM_DEATH_EXIT && exit_code == 0);
    }
    m->proc.alive = false;
    sim->look_done = true;
    m->proc.paused = false;
    m->proc.serial++;
    m->exit_code = how == SIM_DEATH_EXIT ? exit_code : -1;
    m->impostor_of = 0;
    if (m->conn != SIM_NO_CONN) {
        sim_net_abandon(sim, m->conn, SIM_END_MEMBER, quiet);
        m->conn = SIM_NO_CONN;
    }
    if (sim->workers != NULL) {
        sim_mesh_abandon(sim, member, quiet);
        sim_worker_death(sim, member);
    }
    sim_proc_unpark(sim, &m->proc);
}

void sim_member_release(struct sim *sim, uint32_t member)
{
    struct sim_member *m = &sim->members[member];
    free(m->memory);
    free(m->proc.parked);
    *m = (struct sim_member){0};
}

/* ---- upcalls -------------------------------------------------------------------------------- */

void sim_member_connected(struct sim *sim, uint32_t member)
{
    struct session_event event = {.type = SESSION_CONNECTED};
    sim_member_tell(sim, member, &event);
}

void sim_member_closed(struct sim *sim, uint32_t member, const char *why)
{
    struct session_event event = {.type = SESSION_CLOSED, .text = why};
    sim->members[member].conn = SIM_NO_CONN;
    sim_trace(sim, "worker %-3u   loses its coordinator: %s", member, why);
    sim_member_tell(sim, member, &event);
}

void sim_member_message(struct sim *sim, uint32_t member, const struct wire_message *message)
{
    struct session_event event = {.type = SESSION_MESSAGE, .message = message};
    if (sim->options->bug == SIM_BUG_LOST_OVER && message->header.type == FRAME_OVER &&
        sim_rng_chance(&sim->net_rng, 200)) {
        return;
    }
    if (message->header.type != FRAME_BEAT_ACK) {
        sim_trace(sim, "worker %-3u   is told %s, generation %" PRIu64 ", step %" PRIu64, member,
                  frame_type_name(message->header.type), message->header.generation,
                  message->header.step);
    }
    sim_mark(sim, message->header.type);
    sim_member_tell(sim, member, &event);
}

/* The wake that a later, nearer one replaced stays in the heap; when it comes, it must not arm
 * another: each would live on for ever. */
bool sim_member_wakes_not(const struct sim *sim, uint32_t member, uint32_t serial)
{
    const struct sim_member *m = &sim->members[member];
    return m->proc.serial != serial || m->wake_us == 0 || m->wake_us > sim->now_us;
}

void sim_member_wake(struct sim *sim, uint32_t member)
{
    struct session_event event = {.type = SESSION_WAKE};
    sim->members[member].wake_us = 0;
    sim_member_tell(sim, member, &event);
}
