/* The numbers in the comments are those of check.h. */
#include "sim/check.h"

#include "sim/panic.h"
#include "sim/sim.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void sim_check_init(struct sim *sim)
{
    struct sim_check *check = &sim->check;
    *check = (struct sim_check){0};
    check->chain = calloc(sim->setup.job.steps + 1, sizeof *check->chain);
    check->generations = calloc(SIM_GENERATIONS_MAX, sizeof *check->generations);
    SIM_REQUIRE(check->chain != NULL && check->generations != NULL);
    if (sim->workers != NULL) {
        toy_chain(&sim->setup.job, check->chain);
    }
}

void sim_check_release(struct sim *sim)
{
    free(sim->check.chain);
    free(sim->check.generations);
    sim->check.chain = NULL;
    sim->check.generations = NULL;
}

/* ---- generations ---------------------------------------------------------------------------- */

static struct sim_generation *find(struct sim_check *check, uint64_t number, uint64_t nonce)
{
    for (uint32_t i = check->generation_count; i > 0; i--) {
        struct sim_generation *g = &check->generations[i - 1];
        if (g->number == number && g->nonce == nonce) {
            return g;
        }
    }
    return NULL;
}

static uint64_t list_hash(const struct wire_generation *told)
{
    uint64_t hash = told->members_count;
    for (uint32_t i = 0; i < told->members_count; i++) {
        uint64_t words[2];
        memcpy(words, told->members[i].id.bytes, sizeof words);
        hash = toy_mix(toy_mix(hash, words[0]), toy_mix(words[1], told->members[i].rank));
    }
    return hash;
}

static void check_ranks(struct sim *sim, const struct wire_message *message)
{
    const struct wire_generation *told = &message->generation;
    for (uint32_t i = 0; i < told->members_count && !sim->ended; i++) {
        if (told->members[i].rank != i) {
            sim_fail(sim, SIM_CHECK_LISTS, "generation %" PRIu64 " has rank %u at place %u",
                     message->header.generation, told->members[i].rank, i);
        }
        for (uint32_t j = 0; j < i && told->members_count <= 80; j++) {
            if (wire_id_equal(&told->members[i].id, &told->members[j].id)) {
                sim_fail(sim, SIM_CHECK_LISTS,
                         "generation %" PRIu64 " has the same member at ranks %u and %u",
                         message->header.generation, j, i);
            }
        }
    }
}

/* 6: nobody starts again below the version of a live member of the generation that has ended. One
 * that has not frozen may be one step ahead; whoever was asked to leave may be gone with what he
 * knows. */
static void check_start(struct sim *sim, const struct wire_message *message)
{
    for (uint32_t i = 0; sim->workers != NULL && i < sim->member_count; i++) {
        if (sim->members[i].proc.alive && !sim->members[i].stop_asked &&
            sim->workers[i].elastic.generation.number >= sim->check.number_before &&
            sim->workers[i].version != SIM_NO_VERSION &&
            sim->workers[i].version > message->header.step + 1 && !sim->check.unprotected) {
            sim_fail(sim, SIM_CHECK_START,
                     "generation %" PRIu64 " begins at step %" PRIu64 ", but worker %u lives and "
                     "has applied %" PRIu64 " updates",
                     message->header.generation, message->header.step, i, sim->workers[i].version);
        }
    }
}

static void check_new(struct sim *sim, const struct wire_message *message)
{
    struct sim_check *check = &sim->check;
    if (message->header.generation <= check->number_max && !check->unprotected) {
        sim_fail(sim, SIM_CHECK_NUMBERS,
                 "generation %" PRIu64 " (nonce %016" PRIx64 ") is told after generation %" PRIu64,
                 message->header.generation, message->header.nonce, check->number_max);
    }
    if (check->done_told && !check->unprotected) {
        sim_fail(sim, SIM_CHECK_KEPT,
                 "generation %" PRIu64 " is formed after the job was told to be done",
                 message->header.generation);
    }
    SIM_REQUIRE(check->generation_count < SIM_GENERATIONS_MAX);
    check->generations[check->generation_count++] = (struct sim_generation){
        .number = message->header.generation,
        .nonce = message->header.nonce,
        .members = list_hash(&message->generation),
        .step = message->header.step,
        .plan = message->generation.mode == WIRE_MODE_PLAN};
    if (message->header.generation > check->number_max) {
        check->number_max = message->header.generation;
    }
    check_ranks(sim, message);
    if (message->generation.mode == WIRE_MODE_FORMED) {
        check_start(sim, message);
        if (sim->workers != NULL) {
            sim_check_resumed(sim, message);
        }
        check->number_before = message->header.generation;
    }
}

static void check_generation(struct sim *sim, const struct wire_message *message)
{
    struct sim_generation *g =
        find(&sim->check, message->header.generation, message->header.nonce);
    if (g == NULL) {
        check_new(sim, message);
    } else if (g->members != list_hash(&message->generation)) {
        sim_fail(sim, SIM_CHECK_LISTS,
                 "generation %" PRIu64 " is told with two lists of members: %016" PRIx64
                 " and %016" PRIx64,
                 message->header.generation, g->members, list_hash(&message->generation));
    }
}

/* ---- the coordinator's side ----------------------------------------------------------------- */

/* One that could not say a word yet to a coordinator that has just begun has its lease and a
 * client's longest pause. */
static void check_fresh(struct sim *sim, uint32_t slot, uint64_t lease_us, const char *reason)
{
    uint64_t grace_us = lease_us + (uint64_t)sim->coord.times.reconnect_ms * 1000;
    uint64_t age_us = sim->now_us - sim->coord_proc.born_us;
    if (sim->members[slot].attached_to != sim->coord.births && age_us + 1000 < grace_us &&
        sim->coord_proc.skewed_us < sim->coord_proc.born_us) {
        sim_fail(sim, SIM_CHECK_ALIVE,
                 "worker %u is declared lost (%s) %" PRIu64 " ms after the coordinator's start, "
                 "before it could come back",
                 slot, reason, age_us / 1000);
    }
}

/* When something last came over it: read by the coordinator, or waiting to be read. */
static uint64_t arrived_us(struct sim *sim, uint32_t index)
{
    const struct sim_conn *conn = &sim->net.conns[index];
    const struct sim_pipe *pipe = &conn->pipe[SIM_END_MEMBER];
    const struct sim_packet *packet = pipe->first;
    uint64_t last_us = conn->heard_us;
    if (pipe->armed_us == 0 || pipe->armed_us > sim->now_us ||
        sim_net_shut_until_us(sim, conn->hosts[SIM_END_MEMBER], 0, SIM_CONTROL) != 0) {
        return last_us; /* nothing waits for the process; what is due is still on its way */
    }
    for (; packet != NULL && packet->due_us <= sim->now_us; packet = packet->next) {
        last_us = packet->due_us > last_us ? packet->due_us : last_us;
    }
    return last_us;
}

void sim_check_closing(struct sim *sim, uint32_t conn)
{
    sim->check.closing = sim->net.conns[conn].member;
    sim->check.closing_us = sim->now_us;
    sim->check.closing_arrived_us =
        sim->net.conns[conn].heard_us != 0 ? arrived_us(sim, conn) : 0;
}

/* 8: one that is put out as silent, over a connection that stood until then. Its name ends with
 * its pid, 1000 + member. */
void sim_check_log(struct sim *sim, const char *text)
{
    const struct sim_check *check = &sim->check;
    uint64_t lease_us = (uint64_t)sim->coord.times.beat_ms * sim->coord.times.lost_beats * 1000;
    const char *lost = strstr(text, " is lost: silent for "), *pid = strstr(text, "pid ");
    uint64_t silent_us = sim->now_us - check->closing_arrived_us;

    sim_check_cause(sim, text);
    if (lost == NULL || pid == NULL || pid > lost || check->closing_us != sim->now_us ||
        strtoul(pid + 4, NULL, 10) != 1000 + check->closing || check->closing_arrived_us == 0) {
        return;
    }
    if (silent_us + 1000 < lease_us) {
        sim_fail(sim, SIM_CHECK_ALIVE,
                 "worker %u is put out (%s), but its connection stood and something came over it "
                 "%" PRIu64 " ms ago; its lease is %" PRIu64 " ms",
                 check->closing, text, silent_us / 1000, lease_us / 1000);
    }
}

/* 8: every member that an OVER names as silent had time to come back. */
static void check_over(struct sim *sim, const struct wire_message *message)
{
    uint64_t lease_us = (uint64_t)sim->coord.times.beat_ms * sim->coord.times.lost_beats * 1000;
    sim->check.lost_told += message->over.lost_count;
    for (uint32_t i = 0; i < message->over.lost_count; i++) {
        uint32_t slot = sim_member_slot(sim, message->over.lost[i].bytes);
        if (slot != SIM_NO_SLOT && strstr(message->over.reason, "silent") != NULL) {
            check_fresh(sim, slot, lease_us, message->over.reason);
        }
    }
}

/* The newest generation was taken over from one of its members, and nothing was formed meanwhile:
 * the coordinator knows again all that it knew, and everything is promised again. */
static void check_adopted(struct sim *sim)
{
    struct sim_check *check = &sim->check;
    struct core_job_view view;
    if (check->unprotected && check->generation_count == check->forgotten_count &&
        sim->coord.core != NULL && core_view_job(sim->coord.core, 0, &view) &&
        view.generation == check->number_max && strcmp(view.state, "running") == 0) {
        check->unprotected = false;
        check->adopted++;
    }
}

void sim_check_told(struct sim *sim, const struct wire_message *message)
{
    switch (message->header.type) {
    case FRAME_GENERATION:
        check_generation(sim, message);
        break;
    case FRAME_OVER:
        check_over(sim, message);
        break;
    case FRAME_DONE:
        sim->check.done_told = sim->check.done_once = true;
        break;
    case FRAME_REFUSED:
        sim->check.done_told |= message->refused.why == WIRE_REFUSAL_DONE;
        sim->check.done_once |= sim->check.done_told;
        sim->check.job_failed |= message->refused.why == WIRE_REFUSAL_FAILED;
        break;
    case FRAME_VERDICT:
        sim_fail(sim, SIM_CHECK_VERDICT,
                 "nobody differs and nobody waits for ever, but the coordinator says: %s",
                 message->verdict.text);
        break;
    default:
        break;
    }
    check_adopted(sim);
}

void sim_check_said(struct sim *sim, uint32_t conn, const struct wire_message *message)
{
    if (message->header.type == FRAME_HELLO) {
        sim->members[sim->net.conns[conn].member].attached_to = sim->coord.births;
    }
}

/* ---- the workers' side ---------------------------------------------------------------------- */

static void check_chain(struct sim *sim, uint32_t worker, uint64_t version, uint64_t hash,
                        const char *how)
{
    if (version <= sim->setup.job.steps && hash == sim->check.chain[version]) {
        return;
    }
    if (sim->workers[worker].corrupt) {
        sim->check.spread = true;
        sim->over = true;
    } else {
        sim_fail(sim, SIM_CHECK_CHAIN,
                 "worker %u %s version %" PRIu64 " with parameters %016" PRIx64
                 ", the undisturbed run has %016" PRIx64,
                 worker, how, version, hash,
                 version > sim->setup.job.steps ? 0 : sim->check.chain[version]);
    }
}

void sim_check_loaded(struct sim *sim, uint32_t worker, const struct sim_checkpoint *checkpoint)
{
    if (checkpoint != NULL) {
        check_chain(sim, worker, checkpoint->version, sim->workers[worker].hash, "loads");
    }
}

/* 2 */
void sim_check_sums(struct sim *sim, uint32_t worker, uint64_t step,
                    const struct plan_mask *present)
{
    const struct sim_worker *w = &sim->workers[worker];
    uint64_t all = 0;
    for (uint32_t shard = 0; shard < sim->setup.job.shape.shards; shard++) {
        all |= plan_mask_has(present, shard) ? UINT64_C(1) << shard : 0;
    }
    for (uint32_t cell = 0; cell < sim->setup.job.cells && !sim->ended; cell++) {
        if (w->reduced_of[cell] != step + 1 || w->reduced_shards[cell] != all) {
            sim_fail(sim, SIM_CHECK_SHARDS,
                     "worker %u: R of step %" PRIu64 " has in cell %u the shards %016" PRIx64
                     " of step %" PRId64 ", not the shards %016" PRIx64,
                     worker, step, cell, w->reduced_shards[cell], (int64_t)w->reduced_of[cell] - 1,
                     all);
        }
    }
}

/* 5: `older` finishes `step` now. The first newer generation that was formed, or trained, has
 * fenced it: a member that is cut off may still finish the step with which that one began, because
 * all sums of it may have been sent, but not one more. (Of a plan not even that. What begins anew
 * at a lower step after everybody has died fences nobody: his forerunner did.) */
static void check_worlds(struct sim *sim, const struct sim_generation *older, uint64_t step)
{
    const struct sim_generation *fence = NULL, *trained = NULL;
    for (uint32_t i = 0; i < sim->check.generation_count; i++) {
        const struct sim_generation *g = &sim->check.generations[i];
        bool newer = g->number > older->number;
        fence = newer && fence == NULL && (g->trained || !g->plan) ? g : fence;
        trained = newer && trained == NULL && g->trained ? g : trained;
    }
    if (trained == NULL || sim->check.unprotected) {
        return;
    }
    uint64_t begun = fence->plan ? fence->first_done : fence->step;
    if (step > begun || (fence->plan && step == begun)) {
        sim_fail(sim, SIM_CHECK_WORLDS,
                 "two worlds: generation %" PRIu64 " finishes step %" PRIu64
                 ", but generation %" PRIu64 "%s has begun with step %" PRIu64
                 " and generation %" PRIu64 " has trained",
                 older->number, step, fence->number, fence->plan ? " (a plan)" : "", begun,
                 trained->number);
    }
}

void sim_check_exchanged(struct sim *sim, uint32_t worker, uint64_t step, uint64_t number)
{
    struct sim_check *check = &sim->check;
    uint64_t nonce = sim->workers[worker].elastic.generation.nonce;
    struct sim_generation *g = find(check, number, nonce);
    if (g == NULL) {
        sim_fail(sim, SIM_CHECK_LISTS,
                 "worker %u finished step %" PRIu64 " in generation %" PRIu64
                 ", which the coordinator never told",
                 worker, step, number);
        return;
    }
    g->first_done = g->trained && g->first_done < step ? g->first_done : step;
    g->last_done = g->trained && g->last_done > step ? g->last_done : step;
    g->trained = true;
    check_worlds(sim, g, step);
}

/* 1 */
void sim_check_applied(struct sim *sim, uint32_t worker, uint64_t step)
{
    struct sim_check *check = &sim->check;
    check->steps++;
    check->first_step_us = check->first_step_us == 0 ? sim->now_us : check->first_step_us;
    if (!sim->workers[worker].corrupt) {
        check_chain(sim, worker, step + 1, sim->workers[worker].hash, "applies an update and has");
    }
}

/* What a corrupt one served is out-voted with the first word. */
void sim_check_copied(struct sim *sim, uint32_t worker, uint64_t version)
{
    if (!sim->workers[worker].corrupt)
        check_chain(sim, worker, version, sim->workers[worker].hash, "has copied");
}

void sim_check_reported(struct sim *sim, uint32_t worker, uint64_t version)
{
    if (version != sim->workers[worker].version) {
        sim_fail(sim, SIM_CHECK_CHAIN,
                 "worker %u reports version %" PRIu64 " and holds version %" PRIu64, worker,
                 version, sim->workers[worker].version);
    }
}

void sim_check_finished(struct sim *sim, uint32_t worker, uint64_t version)
{
    check_chain(sim, worker, version, sim->workers[worker].hash, "finishes with");
    if (version != sim->setup.job.steps) {
        sim_fail(sim, SIM_CHECK_FINISH,
                 "worker %u says finished after %" PRIu64 " of %" PRIu64 " steps", worker, version,
                 sim->setup.job.steps);
    }
}

void sim_check_exit(struct sim *sim, uint32_t worker, int code, const char *text)
{
    const struct sim_worker *w = &sim->workers[worker];
    bool known = code == 0 || code == 69 || code == 75 ||
                 (code == 77 && (sim->members[worker].impostor_of != 0 || sim->check.job_failed ||
                                 sim->members[worker].impersonated));
    if (!known) {
        sim_fail(sim, SIM_CHECK_FINISH, "worker %u exits %d: %s", worker, code, text);
    }
    if (code == 0 && w->version == sim->setup.job.steps) {
        sim->check.finished++;
    } else if (code == 0 && !sim->members[worker].stop_asked && !sim->check.done_once) {
        sim_fail(sim, SIM_CHECK_FINISH,
                 "worker %u exits 0 after %" PRIu64 " of %" PRIu64 " steps (%s)", worker,
                 w->version, sim->setup.job.steps, text);
    }
}

void sim_check_forgotten(struct sim *sim)
{
    sim->check.unprotected = true;
    sim->check.forgotten_count = sim->check.generation_count;
    sim->check.done_told = false;
    sim->check.finished = 0;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void job_words(struct sim *sim, struct core_job_view *view)
{
    *view = (struct core_job_view){.state = "no job", .reason = ""};
    if (sim->coord.core != NULL) {
        (void)core_view_job(sim->coord.core, 0, view);
    }
}

/* 10 */
void sim_check_end(struct sim *sim, struct sim_outcome *outcome)
{
    struct core_job_view view;
    if (sim->ended && outcome->failed) {
        return;
    }
    job_words(sim, &view);
    if (sim->check.job_failed || sim->check.spread) {
        outcome->excused = true;
        (void)snprintf(outcome->excuse, sizeof outcome->excuse, "%s",
                       sim->check.spread
                           ? "a flipped bit was copied before anybody could vote on it"
                           : "the restart budget was spent");
        return;
    }
    if (sim->puppets != NULL) {
        sim_puppet_end(sim, &view);
        return;
    }
    for (uint32_t i = 0; i < sim->member_count; i++) {
        if (sim->members[i].proc.alive) {
            sim_fail(sim, SIM_CHECK_FINISH,
                     "worker %u cannot finish: it is %s at version %" PRIu64 " of %" PRIu64
                     "; the job is %s (%s)",
                     i, elastic_state_word(sim->workers[i].elastic.state), sim->workers[i].version,
                     sim->setup.job.steps, view.state, view.reason);
            return;
        }
    }
    if (sim->check.finished == 0 && !sim->check.done_told) {
        sim_fail(sim, SIM_CHECK_FINISH, "nobody finished the job; it is %s (%s)", view.state,
                 view.reason);
    }
}
