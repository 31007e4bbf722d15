/* Invariants:
 *  - actions are carried out in the order in which they stand, before the next event;
 *  - the core sees no connection after its end, and none of a process before it;
 *  - after every event but a beat core_check() holds. */
#include "sim/coord.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_US UINT64_C(1000000) /* an address that does not answer */

void sim_coord_init(struct sim *sim)
{
    struct sim_coord *coord = &sim->coord;
    core_limits_default(&coord->limits);
    core_times_default(&coord->times);
    coord->times.rebalance = sim->setup.rebalance;
    coord->times.straggler_steps = sim->setup.straggler_steps;
    coord->times.straggler_ms = sim->setup.straggler_ms;
    coord->times.settle_ms = sim->setup.settle_ms;
    coord->times.balance_ms = sim->setup.balance_ms;
    coord->limits.jobs = 4;
    coord->limits.members = sim->member_count * 4 + 16;
    coord->limits.barriers = 16;
    coord->memory_bytes = core_size(&coord->limits);
    coord->memory = aligned_alloc(64, (coord->memory_bytes + 63) / 64 * 64);
    SIM_REQUIRE(coord->memory != NULL);
}

void sim_coord_release(struct sim *sim)
{
    free(sim->coord.memory);
    sim->coord.memory = NULL;
}

static core_conn handle_of(const struct sim *sim, uint32_t conn)
{
    return (core_conn)sim->net.conns[conn].serial << 32 | (conn + 1);
}

/* The connection of a handle, SIM_NO_CONN if it is gone. */
static uint32_t conn_of(const struct sim *sim, core_conn handle)
{
    uint32_t conn = (uint32_t)handle - 1;
    SIM_REQUIRE((uint32_t)handle != 0 && conn < sim->net.conn_count);
    bool current = sim->net.conns[conn].serial == (uint32_t)(handle >> 32);
    return current && sim->net.conns[conn].open[SIM_END_COORD] ? conn : SIM_NO_CONN;
}

/* ---- actions -------------------------------------------------------------------------------- */

static void act_send(struct sim *sim, const struct core_action *action)
{
    struct wire_message message;
    if (!adapt_to_wire(&action->message, &sim->coord.scratch, &message)) {
        sim_fail(sim, SIM_CHECK_WORDS,
                 "the core sent a message of type %d, which no coordinator sends",
                 (int)action->message.type);
        return;
    }
    for (uint32_t i = 0; i < action->conn_count && !sim->ended; i++) {
        uint32_t conn = conn_of(sim, action->conns[i]);
        if (conn == SIM_NO_CONN) {
            sim_fail(sim, SIM_CHECK_WORDS, "the core sent %s to a connection that is closed",
                     frame_type_name(message.header.type));
            return;
        }
        sim_check_told(sim, &message);
        sim_net_say(sim, conn, SIM_END_COORD, &message);
        if (sim_strike_duplicates(sim, sim->net.conns[conn].member, &message)) {
            sim_net_say(sim, conn, SIM_END_COORD, &message);
        }
    }
}

static void act_probe(struct sim *sim, const struct core_action *action)
{
    unsigned host = 0, port = 0;
    int fields = sscanf(action->text, "10.0.0.%u:%u", &host, &port);
    uint32_t slot = port / 1000;
    SIM_REQUIRE(fields == 2 && slot < sim->member_count && host < sim->net.host_count);
    const struct sim_member *m = &sim->members[slot];
    bool reached = sim_net_shut_until_us(sim, 0, host, SIM_CONTROL) == 0 &&
                   sim_net_shut_until_us(sim, host, 0, SIM_CONTROL) == 0;
    bool there = m->proc.alive &&
                 (m->births % 1000 == port % 1000 || sim->options->bug == SIM_BUG_OLD_ADDRESS);
    bool gone = (reached && !there) || (!reached && sim->options->bug == SIM_BUG_BLIND_PROBE);
    uint64_t took_us = reached ? 2u * sim->net.latency_us : PROBE_US;
    struct sim_event event = {.at_us = sim->now_us + took_us, .kind = SIM_EV_PROBED,
                              .value = action->probe, .extra = gone,
                              .serial = sim->coord_proc.serial};
    sim_heap_push(&sim->heap, &event);
}

static void count_line(struct sim *sim, const char *text)
{
    sim->check.stragglers += strstr(text, " is a straggler: ") != NULL;
    sim->check.spreads += strstr(text, "the shards are spread anew") != NULL;
}

static void act(struct sim *sim, const struct core_action *action)
{
    static const char *const levels[] = {"info", "warning", "ERROR"};
    uint32_t conn;
    switch (action->type) {
    case CORE_ACTION_SEND:
        act_send(sim, action);
        break;
    case CORE_ACTION_CLOSE:
        conn = conn_of(sim, action->conns[0]);
        if (conn != SIM_NO_CONN) {
            sim_check_closing(sim, conn);
            sim_net_hang_up(sim, conn, SIM_END_COORD);
        }
        break;
    case CORE_ACTION_STORE:
        sim_store_write(sim, action->lsn, action->job, action->record, action->record_bytes);
        break;
    case CORE_ACTION_PROBE:
        act_probe(sim, action);
        break;
    case CORE_ACTION_LOG:
        sim_trace(sim, "coordinator  %s: %s", levels[action->level], action->text);
        count_line(sim, action->text);
        sim_check_log(sim, action->text);
        break;
    case CORE_ACTION_ANSWER:
        sim_trace(sim, "coordinator  answers the operator: %s", action->text);
        break;
    case CORE_ACTION_ADMIT:
        break;
    }
}

/* ---- events --------------------------------------------------------------------------------- */

static void step(struct sim *sim, struct core_event *event)
{
    struct sim_coord *coord = &sim->coord;
    if (sim->ended) {
        return;
    }
    event->now_us = sim_proc_now_us(sim, &sim->coord_proc);
    for (int i = 0; i < 4; i++) {
        event->random[i] = sim_rng_next(&sim->id_rng);
    }
    core_step(coord->core, event, &coord->actions);
    bool beat = event->type == CORE_EVENT_MESSAGE && event->message->type == CORE_BEAT;
    if (!beat || coord->actions.count > 1) {
        const char *sentence = "";
        int broken = core_check(coord->core, &sentence);
        if (broken != 0) {
            sim_fail(sim, SIM_CHECK_MACHINES, "invariant %d of the core is broken: %s", broken,
                     sentence);
            return;
        }
    }
    for (uint32_t i = 0; i < coord->actions.count && !sim->ended; i++) {
        sim_mark(sim, (uint64_t)coord->actions.list[i].type);
        act(sim, &coord->actions.list[i]);
    }
}

static void tick_later(struct sim *sim)
{
    struct sim_event event = {.at_us = sim->now_us + (uint64_t)sim->setup.tick_ms * 1000,
                              .kind = SIM_EV_TICK, .serial = sim->coord_proc.serial};
    sim_heap_push(&sim->heap, &event);
}

void sim_coord_birth(struct sim *sim)
{
    struct sim_coord *coord = &sim->coord;
    SIM_REQUIRE(!sim->coord_proc.alive);
    sim->coord_proc.alive = true;
    sim->coord_proc.serial++;
    sim->coord_proc.born_us = sim->now_us;
    coord->births++;
    sim_trace(sim, "coordinator  starts");
    memset(coord->memory, 0, coord->memory_bytes);
    coord->core = core_init(coord->memory, &coord->limits, &coord->times,
                            sim_proc_now_us(sim, &sim->coord_proc));
    for (uint32_t i = 0; i < SIM_STORE_JOBS; i++) {
        const struct sim_record *record = &sim->store.durable[i];
        if (record->bytes != NULL) {
            struct core_event event = {.type = CORE_EVENT_RESTORE, .record = record->bytes,
                                       .record_bytes = record->length, .job = record->job};
            step(sim, &event);
        }
    }
    tick_later(sim);
}

void sim_coord_death(struct sim *sim, bool quiet)
{
    if (!sim->coord_proc.alive) {
        return;
    }
    sim_trace(sim, "coordinator  dies");
    sim->coord_proc.alive = false;
    sim->coord_proc.paused = false;
    sim->coord_proc.serial++;
    sim->coord.core = NULL;
    for (uint32_t conn = 0; conn < sim->net.conn_count; conn++) {
        if (sim->net.conns[conn].used) {
            sim_net_abandon(sim, conn, SIM_END_COORD, quiet);
        }
    }
    sim_proc_unpark(sim, &sim->coord_proc);
}

void sim_coord_tick(struct sim *sim)
{
    struct core_event event = {.type = CORE_EVENT_TICK};
    tick_later(sim);
    sim->coord.ticks++;
    step(sim, &event);
    if (!sim->ended && sim->coord.ticks % 64 == 0) {
        sim_mark(sim, core_hash(sim->coord.core));
    }
}

void sim_coord_opened(struct sim *sim, uint32_t conn)
{
    struct core_event event = {.type = CORE_EVENT_OPENED, .conn = handle_of(sim, conn)};
    step(sim, &event);
}

void sim_coord_closed(struct sim *sim, uint32_t conn, const char *why)
{
    struct core_event event = {.type = CORE_EVENT_CLOSED, .conn = handle_of(sim, conn)};
    sim_trace(sim, "coordinator  loses the connection of worker %u: %s",
              sim->net.conns[conn].member, why);
    step(sim, &event);
}

void sim_coord_message(struct sim *sim, uint32_t conn, const struct wire_message *message)
{
    struct sim_coord *coord = &sim->coord;
    char host[24];
    struct adapt_peer peer = {.host = host};
    if (message->header.type == FRAME_HELLO) {
        (void)snprintf(host, sizeof host, "10.0.0.%u", sim->net.conns[conn].hosts[SIM_END_MEMBER]);
        memcpy(peer.secret.byte, message->hello.secret.bytes, sizeof peer.secret.byte);
        peer.secret.byte[0] ^= 0x5a; /* in place of a digest */
    }
    if (!adapt_to_core(message, &peer, &coord->scratch, &coord->message)) {
        sim_fail(sim, SIM_CHECK_WORDS, "a session sent a message of type %s",
                 frame_type_name(message->header.type));
        return;
    }
    if (message->header.type != FRAME_BEAT) {
        sim_trace(sim, "coordinator  gets %s of worker %u, generation %" PRIu64 ", step %" PRIu64,
                  frame_type_name(message->header.type), sim->net.conns[conn].member,
                  message->header.generation, message->header.step);
        sim_check_said(sim, conn, message);
    }
    sim_mark(sim, message->header.type);
    struct core_event event = {.type = CORE_EVENT_MESSAGE, .conn = handle_of(sim, conn),
                               .message = &coord->message};
    step(sim, &event);
}

void sim_coord_stored(struct sim *sim, uint64_t lsn, bool ok)
{
    struct core_event event = {.type = ok ? CORE_EVENT_STORED : CORE_EVENT_STORE_FAILED,
                               .lsn = lsn};
    step(sim, &event);
}

void sim_coord_probed(struct sim *sim, uint64_t probe, bool gone)
{
    struct core_event event = {.type = CORE_EVENT_PROBED, .probe = probe, .gone = gone};
    step(sim, &event);
}

void sim_coord_command(struct sim *sim, enum core_command command, const char *job,
                       const char *target)
{
    if (sim->coord_proc.alive && !sim->coord_proc.paused) {
        struct core_event event = {.type = CORE_EVENT_COMMAND, .command = command, .job = job,
                                   .target = target, .ticket = 1};
        step(sim, &event);
    }
}
