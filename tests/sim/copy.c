/* Copies between members of a generation: R of the last step, or the whole state at one version.
 *
 * Invariants: an answer to an older request changes nothing; R is served only when every cell of it
 * is of the step asked for; the state only at the version asked for. */
#include "sim/panic.h"
#include "sim/sim.h"

#include <string.h>

#define FLAG_STATE 1u

static void copied(struct sim *sim, uint32_t worker, bool ok)
{
    struct sim_copy *copy = &sim->workers[worker].copy;
    copy->active = false;
    struct elastic_event event = {.type = ELASTIC_COPIED, .ok = ok,
                                  .version = copy->state ? copy->version : copy->version + 1,
                                  .hash = sim->workers[worker].hash};
    sim_worker_feed(sim, worker, &event);
}

void sim_copy_begin(struct sim *sim, uint32_t worker, const struct elastic_action *action)
{
    struct sim_worker *w = &sim->workers[worker];
    bool state = action->type == ELASTIC_DO_COPY_STATE;
    w->planted_hash = sim->options->bug == SIM_BUG_STALE_HASH ? w->hash : 0;
    w->copy = (struct sim_copy){.active = true, .state = state,
                                .version = state ? action->version : action->step,
                                .slot = w->slots[action->from], .serial = w->copy.serial + 1};
    struct sim_frame frame = {.kind = SIM_FRAME_REQUEST, .step = w->copy.version,
                              .value = {w->copy.serial}, .flags = state ? FLAG_STATE : 0};
    if (w->copy.slot == SIM_NO_SLOT || !sim_mesh_send(sim, worker, w->copy.slot, &frame, NULL)) {
        copied(sim, worker, false);
    }
}

void sim_copy_lost(struct sim *sim, uint32_t worker, uint32_t peer)
{
    struct sim_copy *copy = &sim->workers[worker].copy;
    if (copy->active && copy->slot == peer) {
        copied(sim, worker, false);
    }
}

/* ---- the one who has it --------------------------------------------------------------------- */

static bool reduced_is_whole(const struct sim *sim, const struct sim_worker *w, uint64_t step)
{
    for (uint32_t cell = 0; cell < sim->setup.job.cells; cell++) {
        if (w->reduced_of[cell] != step + 1) {
            return false;
        }
    }
    return true;
}

/* In two parts, so that a copy can be cut in the middle. */
static void serve(struct sim *sim, uint32_t worker, uint32_t to, struct sim_frame *answer,
                  const uint64_t *values)
{
    uint32_t cells = sim->setup.job.cells;
    uint32_t half = cells / 2;
    if (half > 0) {
        answer->cell_first = 0;
        answer->cell_count = (uint16_t)half;
        (void)sim_mesh_send(sim, worker, to, answer, values);
    }
    answer->cell_first = (uint16_t)half;
    answer->cell_count = (uint16_t)(cells - half);
    (void)sim_mesh_send(sim, worker, to, answer, values + half);
}

static void request(struct sim *sim, uint32_t worker, uint32_t from, const struct sim_frame *frame)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_frame answer = {.kind = SIM_FRAME_NOTE, .step = frame->step,
                               .value = {frame->value[0], w->hash}};
    uint64_t values[TOY_CELLS_MAX];
    if (frame->flags == FLAG_STATE && w->version == frame->step && !w->applying) {
        answer.kind = SIM_FRAME_STATE;
        answer.tainted = w->corrupt;
        serve(sim, worker, from, &answer, w->params);
    } else if (frame->flags == 0 && reduced_is_whole(sim, w, frame->step)) {
        memcpy(values, w->reduced, sizeof values);
        if (sim->options->bug == SIM_BUG_WRONG_REDUCED) {
            values[0] = toy_mix(values[0], 1);
        }
        answer.kind = SIM_FRAME_REDUCED;
        answer.tainted = w->reduced_corrupt;
        answer.shards = w->reduced_shards[0];
        serve(sim, worker, from, &answer, values);
    } else {
        (void)sim_mesh_send(sim, worker, from, &answer, NULL);
    }
}

/* ---- the one who wants it ------------------------------------------------------------------- */

static void part(struct sim *sim, uint32_t worker, const struct sim_frame *frame,
                 const uint64_t *cells)
{
    struct sim_worker *w = &sim->workers[worker];
    struct sim_copy *copy = &w->copy;
    *(copy->state ? &w->corrupt : &w->reduced_corrupt) = frame->tainted;
    for (uint32_t i = 0; i < frame->cell_count; i++) {
        uint32_t cell = frame->cell_first + i;
        if (copy->state) {
            w->params[cell] = cells[i]; /* in place: the version is none until it is whole */
            w->version = SIM_NO_VERSION;
        } else {
            w->reduced[cell] = cells[i];
            w->reduced_of[cell] = frame->step + 1;
            w->reduced_shards[cell] = frame->shards;
        }
    }
    copy->cells += frame->cell_count;
    if (copy->cells < sim->setup.job.cells) {
        return;
    }
    if (copy->state && sim_device_hash(sim, worker) != frame->value[1]) {
        copied(sim, worker, false); /* a bit has flipped since its holder hashed it */
        return;
    }
    if (copy->state) {
        sim_device_new_version(sim, worker, copy->version);
        sim_check_copied(sim, worker, copy->version);
    }
    copied(sim, worker, true);
}

void sim_copy_frame(struct sim *sim, uint32_t worker, uint32_t from, const struct sim_frame *frame,
                    const uint64_t *cells)
{
    struct sim_copy *copy = &sim->workers[worker].copy;
    if (frame->kind == SIM_FRAME_REQUEST) {
        request(sim, worker, from, frame);
    } else if (copy->active && from == copy->slot && frame->value[0] == copy->serial) {
        if (frame->kind == SIM_FRAME_NOTE) {
            copied(sim, worker, false);
        } else {
            part(sim, worker, frame, cells);
        }
    }
}
