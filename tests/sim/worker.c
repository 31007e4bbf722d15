/* The glue round the elastic machine.
 *
 * Invariants: events are stepped in the order in which they come, one at a time; actions are
 * carried out in their order; nothing is done for a process that has ended meanwhile. */
#include "sim/worker.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LINGER_US UINT64_C(3000000) /* as the worker's */

#define DRAIN_MS 60000u

void sim_worker_init(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    w->pieces = calloc(SIM_SHARDS_MAX, sizeof *w->pieces);
    SIM_REQUIRE(w->pieces != NULL);
}

void sim_worker_release(struct sim *sim, uint32_t worker)
{
    sim_sums_forget(sim, worker);
    sim_joiner_release(sim, worker);
    free(sim->workers[worker].pieces);
}

static void later(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value,
                  uint64_t after_us)
{
    struct sim_event event = {.at_us = sim->now_us + after_us, .kind = SIM_EV_WORK,
                              .target = worker, .extra = work, .value = value,
                              .serial = sim->members[worker].proc.serial};
    sim_heap_push(&sim->heap, &event);
}

/* ---- what the session is told --------------------------------------------------------------- */

static struct session_position position(const struct sim_worker *w)
{
    const struct elastic *e = &w->elastic;
    return (struct session_position){e->generation.number, e->generation.nonce, e->applied};
}

static enum wire_phase wire_phase_of(const struct sim_worker *w)
{
    switch (w->elastic.state) {
    case ELASTIC_STATE_IDLE:
        return w->control ? WIRE_PHASE_WAITING : WIRE_PHASE_STARTUP;
    case ELASTIC_STATE_SPARE:
    case ELASTIC_STATE_LEAVING:
        return WIRE_PHASE_WAITING;
    case ELASTIC_STATE_CONNECTING:
    case ELASTIC_STATE_COPYING:
    case ELASTIC_STATE_FROZEN:
        return WIRE_PHASE_FROZEN;
    case ELASTIC_STATE_STEPPING:
        return elastic_owes(&w->elastic) || w->checking || w->auditing ? WIRE_PHASE_COMPUTE
                                                                       : WIRE_PHASE_EXCHANGE;
    case ELASTIC_STATE_APPLYING:
        return WIRE_PHASE_COMPUTE;
    case ELASTIC_STATE_PAUSING:
        return WIRE_PHASE_CHECKPOINT;
    case ELASTIC_STATE_FINISHING:
    case ELASTIC_STATE_GONE:
        break;
    }
    return w->finished_said ? WIRE_PHASE_FINISHED : WIRE_PHASE_EVALUATE;
}

void sim_worker_tell_status(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    enum wire_phase phase = wire_phase_of(w);
    uint32_t part = plan_mask_count(&w->elastic.held);
    if (phase != w->told_phase || w->elastic.applied != w->told_applied || part != w->told_part) {
        w->told_phase = phase;
        w->told_part = part;
        w->told_applied = w->elastic.applied;
        struct plan_mask owned = elastic_owned(&w->elastic);
        struct session_event event = {.type = SESSION_STATUS,
                                      .status = {.phase = phase, .part = part,
                                                 .applied = w->elastic.applied,
                                                 .shard_us = pace_us(&w->pace),
                                                 .shards = plan_mask_count(&owned)}};
        sim_member_tell(sim, worker, &event);
    }
}

/* Each bucket of a step is a collective, as in the real worker: entered when all that is owed of it
 * has gone out, left when its result is whole. False when nothing has changed since it was told. */
static bool ledger_moves(const struct sim *sim, const struct sim_worker *w,
                         struct session_ledger *ledger)
{
    bool known = w->ledger.generation == w->exchange_number;
    uint64_t entered = known ? w->ledger.entered : 0, left = known ? w->ledger.left : 0, at = 0;
    for (uint32_t b = 0; b < w->exchange.config.bucket_count; b++) {
        uint64_t seq = w->exchange_step * sim->setup.bucket_count + b + 1;
        if (!exchange_sent(&w->exchange, b)) {
            continue;
        }
        entered = seq;
        if (exchange_whole(&w->exchange, b)) {
            left = seq;
        } else if (at == 0) {
            at = seq;
        }
    }
    bool open = at != 0;
    at = open ? at : entered;
    if (entered == 0 || (known && w->ledger.at == at && w->ledger.open == open &&
                         w->ledger.entered == entered)) {
        return false;
    }
    *ledger = (struct session_ledger){.generation = w->exchange_number, .entered = entered,
                                      .left = left, .at = at, .open = open, .count = at % 7,
                                      .batch = w->exchange_step + 1, .op = "all_reduce"};
    return true;
}

void sim_worker_tell_ledger(struct sim *sim, uint32_t worker)
{
    struct sim_worker *w = &sim->workers[worker];
    struct session_ledger ledger;
    if (!w->exchanging || w->exchange.config.bucket_count == 0 || !ledger_moves(sim, w, &ledger)) {
        return;
    }
    ledger.since_us = sim_proc_now_us(sim, &sim->members[worker].proc);
    if (sim->options->bug == SIM_BUG_WRONG_MARK && worker == 1) {
        ledger.count++;
    }
    w->ledger = ledger;
    struct session_event event = {.type = SESSION_LEDGER, .ledger = ledger};
    sim_member_tell(sim, worker, &event);
}

static void say_report(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    uint32_t bytes = (sim->setup.job.shape.shards + 7) / 8;
    struct session_event event = {.type = SESSION_REPORT,
                                  .position = position(&sim->workers[worker])};
    event.report = (struct wire_report){.plan = action->plan, .has_reduced = action->has_reduced,
                                        .entered = action->entered, .owned = action->shards.byte,
                                        .owned_bytes = bytes};
    sim_check_reported(sim, worker, action->version);
    event.position.step += sim->options->bug == SIM_BUG_REPORT_AHEAD && action->entered;
    sim_member_tell(sim, worker, &event);
}

static void say(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    struct sim_worker *w = &sim->workers[worker];
    struct session_event event = {.position = position(w)};
    switch ((int)action->type) {
    case ELASTIC_DO_SEND_ENTERED:
        event.type = SESSION_ENTERED;
        event.entered = (struct wire_entered){action->connect_us, action->state_us, 0};
        break;
    case ELASTIC_DO_SEND_READY:
        event.type = SESSION_READY;
        event.position = (struct session_position){w->elastic.view.number, w->elastic.view.nonce,
                                                   action->version};
        event.ready.params_hash = action->hash;
        break;
    case ELASTIC_DO_SEND_PEER_LOST:
        event.type = SESSION_PEER_LOST;
        memcpy(event.peer_lost.member_id.bytes, action->peer.byte, ELASTIC_ID_BYTES);
        event.peer_lost.why = (enum wire_lost_why)action->why;
        event.peer_lost.text = action->text;
        break;
    case ELASTIC_DO_SEND_LEAVE:
        event.type = SESSION_LEAVE;
        event.leave.drain_ms = DRAIN_MS;
        later(sim, worker, SIM_WORK_DRAIN, 0, (uint64_t)DRAIN_MS * 1000);
        break;
    case ELASTIC_DO_SEND_FINISHED:
        event.type = SESSION_FINISHED;
        event.finished.params_hash = action->hash;
        break;
    default:
        event.type = SESSION_GOODBYE;
        event.goodbye = (struct wire_goodbye){(uint32_t)action->code, action->text};
        break;
    }
    sim_member_tell(sim, worker, &event);
}

/* ---- actions -------------------------------------------------------------------------------- */

/* The machine does not carry keys: the glue remembers those of the last generations told. */
static uint64_t key_of(const struct sim_worker *w, uint64_t number)
{
    return w->keys[number % SIM_KEYS].number == number ? w->keys[number % SIM_KEYS].key : 0;
}

void sim_worker_enter(struct sim *sim, uint32_t worker, const struct elastic_roster *roster,
                      uint32_t rank)
{
    struct sim_worker *w = &sim->workers[worker];
    SIM_REQUIRE(roster->world <= SIM_WORLD_MAX);
    for (uint32_t r = 0; r < roster->world; r++) {
        w->slots[r] = sim_member_slot(sim, roster->members[r].id.byte);
    }
    struct sim_entry entry = {.number = roster->number,
                              .nonce = roster->nonce,
                              .key = key_of(w, roster->number),
                              .rank = rank,
                              .world = roster->world,
                              .slots = w->slots};
    sim_sums_forget(sim, worker);
    sim_mesh_enter(sim, worker, &entry);
}

static void do_exit(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    if (action->linger) {
        sim_trace(sim, "worker %-3u   will exit %d: %s", worker, action->code, action->text);
        later(sim, worker, SIM_WORK_LINGER, (uint64_t)action->code, LINGER_US);
        return;
    }
    sim_device_flush(sim, worker);
    sim_trace(sim, "worker %-3u   exits %d: %s", worker, action->code, action->text);
    sim_check_exit(sim, worker, action->code, action->text);
    sim_member_death(sim, worker, SIM_DEATH_EXIT, action->code);
    sim_strike_exited(sim, worker, action->code);
}

static void do_finished(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    struct sim_worker *w = &sim->workers[worker];
    w->finished_said = true;
    sim_check_finished(sim, worker, w->version);
    say(sim, worker, action);
    if (!w->control) {
        later(sim, worker, SIM_WORK_UNHEARD, w->downs,
              (uint64_t)sim->setup.connect_timeout_ms * 1000);
    }
}

static void do_compute(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    sim_device_compute(sim, worker, action->step, &action->shards);
}

static void act(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    struct sim_worker *w = &sim->workers[worker];
    switch (action->type) {
    case ELASTIC_DO_CONNECT:
        sim_joiner_entered(sim, worker);
        sim_worker_enter(sim, worker, &w->elastic.generation, w->elastic.rank);
        break;
    case ELASTIC_DO_COMPUTE:
        do_compute(sim, worker, action);
        break;
    case ELASTIC_DO_EXCHANGE:
        sim_sums_begin(sim, worker, action);
        break;
    case ELASTIC_DO_STOP_EXCHANGE:
        sim_sums_stop(sim, worker);
        break;
    case ELASTIC_DO_APPLY:
        sim_device_apply(sim, worker, action->step, action->hashed);
        break;
    case ELASTIC_DO_COPY_REDUCED:
    case ELASTIC_DO_COPY_STATE:
        sim_copy_begin(sim, worker, action);
        break;
    case ELASTIC_DO_CATCH_UP:
        sim_joiner_begin(sim, worker);
        break;
    case ELASTIC_DO_END_CATCH_UP:
        sim_joiner_end(sim, worker);
        break;
    case ELASTIC_DO_RELOAD:
        sim_device_reload(sim, worker);
        break;
    case ELASTIC_DO_SEND_REPORT:
        say_report(sim, worker, action);
        break;
    case ELASTIC_DO_SEND_ENTERED:
    case ELASTIC_DO_SEND_READY:
    case ELASTIC_DO_SEND_PEER_LOST:
    case ELASTIC_DO_SEND_LEAVE:
    case ELASTIC_DO_GOODBYE:
        say(sim, worker, action);
        break;
    case ELASTIC_DO_SEND_FINISHED:
        do_finished(sim, worker, action);
        break;
    case ELASTIC_DO_SAVE:
        sim_device_save(sim, worker, action->version, action->last);
        break;
    case ELASTIC_DO_EVALUATE:
        sim_device_evaluate(sim, worker);
        break;
    case ELASTIC_DO_STEP_DONE:
    case ELASTIC_DO_GENERATION:
        break;
    case ELASTIC_DO_EXIT:
        do_exit(sim, worker, action);
        break;
    }
}

/* ---- the pump ------------------------------------------------------------------------------- */

static void step_one(struct sim *sim, uint32_t worker, const struct elastic_event *event)
{
    struct sim_worker *w = &sim->workers[worker];
    struct elastic_actions *actions = &sim->actions;
    const char *sentence = "";
    uint32_t serial = sim->members[worker].proc.serial;
    elastic_step(&w->elastic, event, actions);
    sim_mark(sim, (uint64_t)event->type << 8 | actions->count);
    sim_trace(sim, "worker %-3u   %s -> %s, version %" PRIu64 ", generation %" PRIu64, worker,
              elastic_event_name(event->type), elastic_state_word(w->elastic.state),
              w->elastic.applied, w->elastic.generation.number);
    if (event->type == ELASTIC_EXCHANGED && w->elastic.boundary) {
        sim_check_boundary(sim, worker);
    }
    int broken = elastic_check(&w->elastic, &sentence);
    if (broken != 0) {
        sim_fail(sim, SIM_CHECK_MACHINES,
                 "invariant %d of the elastic machine of worker %u is broken: %s", broken, worker,
                 sentence);
    }
    for (uint32_t i = 0; i < actions->count; i++) {
        if (sim->ended || sim->members[worker].proc.serial != serial) {
            return;
        }
        struct elastic_action action = actions->list[i];
        sim_trace(sim, "worker %-3u     %s", worker, elastic_action_name(action.type));
        act(sim, worker, &action);
    }
}

void sim_worker_feed(struct sim *sim, uint32_t worker, const struct elastic_event *event)
{
    struct sim_worker *w = &sim->workers[worker];
    uint32_t serial = sim->members[worker].proc.serial;
    SIM_REQUIRE(w->inbox_count < SIM_INBOX_MAX);
    w->inbox[(w->inbox_first + w->inbox_count) % SIM_INBOX_MAX] = *event;
    w->inbox_count++;
    if (w->pumping) {
        return;
    }
    w->pumping = true;
    while (w->inbox_count > 0 && !sim->ended) {
        struct elastic_event next = w->inbox[w->inbox_first];
        w->inbox_first = (w->inbox_first + 1) % SIM_INBOX_MAX;
        w->inbox_count--;
        next.now_us = sim_proc_now_us(sim, &sim->members[worker].proc);
        step_one(sim, worker, &next);
        if (sim->members[worker].proc.serial != serial) {
            return; /* the process has ended, and with it this worker's state */
        }
    }
    w->pumping = false;
    if (!sim->ended) {
        sim_worker_tell_status(sim, worker);
        sim_worker_tell_ledger(sim, worker);
        sim_strike_phase(sim, worker);
    }
}

/* ---- news ----------------------------------------------------------------------------------- */

static void take_roster(struct sim *sim, struct sim_worker *w, const struct wire_message *message)
{
    const struct wire_generation *told = &message->generation;
    struct elastic_roster *roster = &w->roster;
    bool own_shares = sim->options->bug == SIM_BUG_OWN_SHARES && w == &sim->workers[0];
    SIM_REQUIRE(told->members_count <= SIM_WORLD_MAX);
    roster->number = message->header.generation;
    roster->nonce = message->header.nonce;
    roster->step = message->header.step;
    roster->world = told->members_count;
    roster->pause = told->pause;
    for (uint32_t i = 0; i < told->members_count; i++) {
        struct elastic_member *to = &roster->members[i];
        const struct wire_member *from = &told->members[i];
        *to = (struct elastic_member){.applied = from->applied, .frozen = from->frozen,
                                      .weight = own_shares ? 0 : from->weight};
        memcpy(to->id.byte, from->id.bytes, ELASTIC_ID_BYTES);
        if (from->owned_bytes > 0) {
            memcpy(to->owned.byte, from->owned,
                   from->owned_bytes < PLAN_MASK_BYTES ? from->owned_bytes : PLAN_MASK_BYTES);
        }
    }
    struct sim_key *key = &w->keys[roster->number % SIM_KEYS];
    key->number = roster->number;
    memcpy(&key->key, told->key.bytes, sizeof key->key);
}

static void feed_generation(struct sim *sim, uint32_t worker, const struct wire_message *message)
{
    struct sim_worker *w = &sim->workers[worker];
    struct elastic_event event = {.roster = &w->roster};
    SIM_REQUIRE(!w->pumping);
    take_roster(sim, w, message);
    switch (message->generation.mode) {
    case WIRE_MODE_FORMED:
        event.type = ELASTIC_FORMED;
        w->planted = w->elastic.generation.number != 0 ? 1 : 0;
        break;
    case WIRE_MODE_PLAN:
        event.type = ELASTIC_PLAN;
        break;
    case WIRE_MODE_VIEW:
        event.type = ELASTIC_VIEW;
        break;
    }
    sim_worker_feed(sim, worker, &event);
}

static void feed_message(struct sim *sim, uint32_t worker, const struct wire_message *message)
{
    struct elastic_event event = {.number = message->header.generation, .ok = true};
    switch (message->header.type) {
    case FRAME_GENERATION:
        feed_generation(sim, worker, message);
        return;
    case FRAME_OVER:
        event.type = ELASTIC_OVER;
        if (sim->options->bug == SIM_BUG_NO_FREEZE && sim->workers[worker].exchanging) {
            struct elastic_action report = {.version = sim->workers[worker].elastic.applied,
                                            .entered = true};
            say_report(sim, worker, &report);
            return;
        }
        break;
    case FRAME_RELEASED:
        event.type = ELASTIC_RELEASED;
        break;
    case FRAME_DRAIN_REQUEST:
        event.type = ELASTIC_STOP;
        break;
    case FRAME_DONE:
        event.type = ELASTIC_DONE;
        break;
    default:
        return; /* WAITING: for people */
    }
    sim_worker_feed(sim, worker, &event);
}

static void control(struct sim *sim, uint32_t worker, bool up)
{
    struct sim_worker *w = &sim->workers[worker];
    w->control = up;
    w->downs += !up;
    sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_CONTROL, .ok = up});
    if (!up && w->finished_said) {
        later(sim, worker, SIM_WORK_UNHEARD, w->downs,
              (uint64_t)sim->setup.connect_timeout_ms * 1000);
    }
}

void sim_worker_news(struct sim *sim, uint32_t worker, const struct session_delivery *delivery)
{
    switch (delivery->news) {
    case SESSION_NEWS_UP:
        control(sim, worker, true);
        break;
    case SESSION_NEWS_DOWN:
        control(sim, worker, false);
        break;
    case SESSION_NEWS_MESSAGE:
        feed_message(sim, worker, delivery->message);
        break;
    case SESSION_NEWS_ENDED:
        if (sim->options->bug == SIM_BUG_DEAF && delivery->end == SESSION_END_REFUSED) {
            break;
        }
        if (delivery->end != SESSION_END_GOODBYE) { /* else EXIT follows GOODBYE */
            struct elastic_action exits = {.code = (int)delivery->exit_code};
            memcpy(exits.text, delivery->text, strnlen(delivery->text, sizeof exits.text - 1));
            do_exit(sim, worker, &exits);
        }
        break;
    }
}

/* ---- the mesh ------------------------------------------------------------------------------- */

void sim_worker_mesh_ready(struct sim *sim, uint32_t worker, uint64_t number)
{
    struct sim_worker *w = &sim->workers[worker];
    if (w->elastic.state == ELASTIC_STATE_SPARE) {
        sim_joiner_connected(sim, worker, number);
    } else {
        sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_CONNECTED,
                                                             .number = number});
    }
}

void sim_worker_frame(struct sim *sim, uint32_t worker, uint32_t from,
                      const struct sim_frame *frame, const uint64_t *cells)
{
    sim_mark(sim, frame->kind);
    switch ((enum sim_frame_kind)frame->kind) {
    case SIM_FRAME_WORD:
    case SIM_FRAME_PIECE:
    case SIM_FRAME_RESULT:
    case SIM_FRAME_AUDIT:
        sim_sums_frame(sim, worker, from, frame, cells);
        break;
    case SIM_FRAME_REQUEST:
    case SIM_FRAME_REDUCED:
    case SIM_FRAME_STATE:
    case SIM_FRAME_NOTE:
        sim_copy_frame(sim, worker, from, frame, cells);
        break;
    case SIM_FRAME_SUBSCRIBE:
    case SIM_FRAME_CHUNK:
    case SIM_FRAME_RECORD:
        sim_joiner_frame(sim, worker, from, frame, cells);
        break;
    case SIM_FRAME_HELLO:
        break;
    }
}

void sim_worker_peer_lost(struct sim *sim, uint32_t worker, uint32_t peer, uint32_t rank,
                          bool closed)
{
    struct sim_worker *w = &sim->workers[worker];
    sim_trace(sim, "worker %-3u   loses rank %d on the data plane (%s)", worker, (int)rank,
              closed ? "closed" : "unreachable");
    if (peer != SIM_NO_SLOT) {
        sim_copy_lost(sim, worker, peer);
        sim_joiner_lost(sim, worker, peer);
    }
    if (rank >= w->elastic.generation.world || w->elastic.state == ELASTIC_STATE_SPARE) {
        return;
    }
    struct elastic_event event = {.type = ELASTIC_PEER_LOST,
                                  .peer = w->elastic.generation.members[rank].id,
                                  .why = closed ? ELASTIC_LOST_CLOSED : ELASTIC_LOST_UNREACHABLE};
    sim_worker_feed(sim, worker, &event);
}

/* ---- birth, death, time --------------------------------------------------------------------- */

static void reset(struct sim_worker *w)
{
    uint64_t(*pieces)[TOY_CELLS_MAX] = w->pieces;
    struct sim_joiner *joiner = w->joiner;
    memset(w, 0, sizeof *w);
    w->pieces = pieces;
    w->joiner = joiner;
}

static void load(struct sim *sim, uint32_t worker, struct session_config *config)
{
    const struct sim_checkpoint *newest = sim_device_load(sim, worker);
    if (newest != NULL) {
        config->known_applied = newest->version;
        config->known_generation = newest->generation;
    }
}

void sim_worker_birth(struct sim *sim, uint32_t worker, struct session_config *config)
{
    struct sim_worker *w = &sim->workers[worker];
    struct elastic_config machine = {.shape = sim->setup.job.shape,
                                     .steps_total = sim->setup.job.steps,
                                     .save_every = sim->setup.save_every,
                                     .hash_every = sim->setup.hash_every,
                                     .saves = sim->setup.saves};
    sim_sums_forget(sim, worker);
    reset(w);
    load(sim, worker, config);
    memcpy(machine.me.byte, sim->members[worker].id.bytes, sizeof machine.me.byte);
    elastic_init(&w->elastic, &machine, w->version, w->hash);
}

void sim_worker_death(struct sim *sim, uint32_t worker)
{
    sim_sums_forget(sim, worker);
    sim_joiner_end(sim, worker);
    reset(&sim->workers[worker]);
}

void sim_worker_stop(struct sim *sim, uint32_t worker)
{
    sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_STOP});
}

void sim_worker_work(struct sim *sim, uint32_t worker, enum sim_work work, uint64_t value)
{
    struct sim_worker *w = &sim->workers[worker];
    if (work == SIM_WORK_DRAIN) {
        sim_trace(sim, "worker %-3u   could not leave in time and goes as lost", worker);
        sim_member_death(sim, worker, SIM_DEATH_EXIT, 75);
        sim_strike_exited(sim, worker, 0);
    } else if (work == SIM_WORK_LINGER) {
        do_exit(sim, worker, &(struct elastic_action){.code = (int)value, .text = "it lingered"});
    } else if (work == SIM_WORK_UNHEARD) {
        if (!w->control && value == w->downs) {
            sim_worker_feed(sim, worker, &(struct elastic_event){.type = ELASTIC_DONE});
        }
    } else if (work == SIM_WORK_CHECK || work == SIM_WORK_AUDIT) {
        sim_sums_work(sim, worker, work, value);
    } else {
        sim_device_work(sim, worker, work, value);
    }
}

/* ---- where it is, for faults ---------------------------------------------------------------- */

#define BIT(phase) (1u << SIM_PHASE_##phase)

static bool saving(const struct sim_worker *w)
{
    bool any = false;
    for (uint32_t i = 0; i < SIM_SAVES_MAX; i++) {
        any = any || w->saves[i].valid;
    }
    return any;
}

uint32_t sim_worker_phases(const struct sim *sim, uint32_t worker)
{
    const struct sim_worker *w = &sim->workers[worker];
    const struct elastic *e = &w->elastic;
    if (!sim->members[worker].proc.alive) {
        return 0;
    }
    static const uint32_t by_state[] = {
        [ELASTIC_STATE_IDLE] = BIT(STARTUP),       [ELASTIC_STATE_SPARE] = BIT(CATCH_UP),
        [ELASTIC_STATE_CONNECTING] = BIT(FROZEN),  [ELASTIC_STATE_COPYING] = BIT(COPY),
        [ELASTIC_STATE_STEPPING] = BIT(EXCHANGE),  [ELASTIC_STATE_APPLYING] = BIT(APPLY),
        [ELASTIC_STATE_FROZEN] = BIT(FROZEN),      [ELASTIC_STATE_FINISHING] = BIT(END),
        [ELASTIC_STATE_LEAVING] = BIT(BOUNDARY),   [ELASTIC_STATE_GONE] = BIT(END),
        [ELASTIC_STATE_PAUSING] = BIT(BOUNDARY),
    };
    uint32_t phases = by_state[e->state];
    if (e->state == ELASTIC_STATE_STEPPING && elastic_owes(e)) {
        phases = BIT(COMPUTE);
    }
    if (e->state == ELASTIC_STATE_CONNECTING && sim->check.first_step_us == 0) {
        phases = BIT(STARTUP);
    }
    if (e->last_words) {
        phases |= BIT(END);
    }
    if (e->plan.number != 0) {
        phases |= BIT(BOUNDARY);
    }
    if (saving(w)) {
        phases |= BIT(CHECKPOINT);
    }
    return phases;
}

static bool owns_chunk(const struct sim *sim, const struct elastic *e)
{
    for (uint32_t b = 0; b < sim->setup.bucket_count; b++) {
        uint64_t first, count;
        plan_chunk((uint64_t)sim->setup.bucket_cells[b] * PLAN_CHUNK_ALIGN, e->generation.world,
                   e->rank, &first, &count);
        if (count > 0) {
            return true;
        }
    }
    return false;
}

bool sim_worker_has_role(const struct sim *sim, uint32_t worker, enum sim_role role)
{
    const struct elastic *e = &sim->workers[worker].elastic;
    bool member = e->generation.number != 0 && e->state != ELASTIC_STATE_SPARE &&
                  e->rank < e->generation.world;
    if (!sim->members[worker].proc.alive) {
        return false;
    }
    switch (role) {
    case SIM_ROLE_FIRST:
        return member && e->rank == 0;
    case SIM_ROLE_LAST:
        return member && e->rank > 0 && e->rank + 1 == e->generation.world;
    case SIM_ROLE_OWNER:
        return member && e->rank > 0 && e->rank + 1 < e->generation.world && owns_chunk(sim, e);
    case SIM_ROLE_JOINER:
        return e->generation.number == 0 || e->state == ELASTIC_STATE_SPARE;
    case SIM_ROLE_LEAVER:
        return e->stop;
    case SIM_ROLE_COORDINATOR:
    case SIM_ROLE_COUNT:
        break;
    }
    return false;
}
