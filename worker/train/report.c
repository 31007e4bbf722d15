/* What the worker tells: JSON lines for programs, one live line or plain lines for people. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"
#include "data/sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TELL_US  200000u  /* the live line; plain lines ten times less often */
#define PAUSE_US 1000000u /* a regroup that takes longer is no part of any speed */

/* The pipe of a supervisor such as `muster run`, which counts finished steps; it never blocks. */
static void open_progress(struct trainer *t)
{
    const char *text = getenv("MUSTER_PROGRESS_FD");
    long number = text != NULL ? strtol(text, NULL, 10) : -1;
    struct stat what;

    t->progress = -1;
    if (number > STDERR_FILENO && number <= INT_MAX && fstat((int)number, &what) == 0 &&
        S_ISFIFO(what.st_mode) && fcntl((int)number, F_SETFL, O_NONBLOCK) == 0 &&
        fcntl((int)number, F_SETFD, FD_CLOEXEC) == 0)
        t->progress = (int)number;
}

int report_open(struct trainer *t, struct error *error)
{
    const char *path = t->settings->log;

    t->terminal = isatty(STDERR_FILENO) && !t->settings->quiet;
    t->started_us = t->told_us = clock_monotonic_us();
    open_progress(t);
    if (path == NULL)
        return 0;
    t->log = fopen(path, "ae");
    if (t->log == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "--log %s: %s", path, strerror(errno));
    return 0;
}

static void line_begin(struct trainer *t, const char *event)
{
    jsonl_begin(&t->line);
    jsonl_text(&t->line, "event", event);
    jsonl_uint(&t->line, "time_us", clock_realtime_us());
}

/* Flushed at once: whoever is killed has told what it did. */
static void line_end(struct trainer *t)
{
    size_t length;
    char why[300];
    const char *text = jsonl_end(&t->line, &length);

    if (t->log == NULL)
        return;
    if ((fwrite(text, 1, length, t->log) == length && fflush(t->log) == 0) || t->log_failed)
        return;
    t->log_failed = true; /* said once; training goes on */
    (void)snprintf(why, sizeof why, "--log %s: %s: lines are missing from now on",
                   t->settings->log, strerror(errno));
    report_warning(t, why);
}

void report_warning(struct trainer *t, const char *text)
{
    (void)fprintf(stderr, "%smuster-worker: %s\n", t->terminal ? "\r\033[K" : "", text);
}

void report_note(struct trainer *t, const char *text)
{
    if (!t->settings->quiet)
        report_warning(t, text);
}

void report_generation(struct trainer *t, const struct elastic_action *action)
{
    const struct elastic *e = &t->elastic;
    char text[600];

    line_begin(t, "generation");
    jsonl_uint(&t->line, "generation", e->generation.number);
    jsonl_uint(&t->line, "world", e->generation.world);
    jsonl_uint(&t->line, "rank", e->rank);
    jsonl_uint(&t->line, "step", e->applied);
    jsonl_uint(&t->line, "steps_total", t->steps_total);
    jsonl_text(&t->line, "reason", t->reason);
    jsonl_uint(&t->line, "detect_us", t->detect_us);
    jsonl_uint(&t->line, "push_us", t->push_us);
    jsonl_uint(&t->line, "rendezvous_us", t->rendezvous_us);
    jsonl_uint(&t->line, "connect_us", action->connect_us);
    jsonl_uint(&t->line, "state_us", action->state_us);
    jsonl_uint(&t->line, "recompute_us", action->recompute_us);
    line_end(t);
    (void)snprintf(text, sizeof text,
                   "generation %llu: rank %u of %u at step %llu (detect %.1f ms, push %.1f, "
                   "rendezvous %.1f, connect %.1f, state %.1f, recompute %.1f): %s",
                   (unsigned long long)e->generation.number, e->rank, e->generation.world,
                   (unsigned long long)e->applied, (double)t->detect_us / 1e3,
                   (double)t->push_us / 1e3, (double)t->rendezvous_us / 1e3,
                   (double)action->connect_us / 1e3, (double)action->state_us / 1e3,
                   (double)action->recompute_us / 1e3, t->reason);
    report_note(t, text);
    /* The step that is under way counts from where its sums were begun, but not over a pause. */
    t->told_step = e->applied;
    t->told_us = t->compute_us + PAUSE_US > e->formed_us ? t->compute_us : e->formed_us;
}

/* Samples of all steps before one; the last batch of an epoch is short. */
static uint64_t samples_before(const struct trainer *t, uint64_t step)
{
    uint64_t per_epoch = plan_steps_per_epoch(&t->shape);
    uint64_t inside = step % per_epoch * t->shape.shards * t->shape.shard_samples;

    return step / per_epoch * t->shape.samples + inside;
}

/* One live line on a terminal, now and then a plain one elsewhere. */
static void tell_people(struct trainer *t, uint64_t step)
{
    uint64_t now = clock_monotonic_us(), since = now - t->told_us;
    uint64_t per_epoch = plan_steps_per_epoch(&t->shape), left = t->steps_total - step - 1;
    uint64_t samples = samples_before(t, step + 1) - samples_before(t, t->told_step);
    double rate;

    if (since < (t->terminal ? TELL_US : 10 * TELL_US) && left > 0)
        return;
    rate = since > 0 ? (double)(step + 1 - t->told_step) * 1e6 / (double)since : 0;
    if (step + 1 > t->told_step)
        t->samples_per_s = since > 0 ? (double)samples * 1e6 / (double)since : 0;
    t->told_us = now;
    t->told_step = step + 1;
    if (t->settings->quiet)
        return;
    (void)fprintf(
        stderr, "%sepoch %llu  step %llu/%llu  loss %.4f  %.0f samples/s  %.0f s left  world %u%s",
        t->terminal ? "\r\033[K" : "", (unsigned long long)(step / per_epoch),
        (unsigned long long)(step + 1), (unsigned long long)t->steps_total, t->loss,
        t->samples_per_s, rate > 0 ? (double)left / rate : 0.0, t->elastic.generation.world,
        t->terminal && left > 0 ? "" : "\n");
    (void)fflush(stderr);
}

void report_step(struct trainer *t, const struct elastic_action *action)
{
    line_begin(t, "step");
    jsonl_uint(&t->line, "generation", action->number);
    jsonl_uint(&t->line, "rank", action->rank);
    jsonl_uint(&t->line, "world", action->world);
    jsonl_uint(&t->line, "step", action->step);
    jsonl_uint(&t->line, "epoch", action->step / plan_steps_per_epoch(&t->shape));
    jsonl_real(&t->line, "loss", t->loss);
    if (action->hashed)
        jsonl_hex(&t->line, "params_hash", action->hash);
    line_end(t);
    if (t->progress >= 0)
        (void)!write(t->progress, "", 1); /* a full pipe has enough of them */
    tell_people(t, action->step);
}

/* Written before the sums of the shard can leave. */
void report_samples(struct trainer *t, uint64_t step, uint32_t shard)
{
    uint64_t per_epoch = plan_steps_per_epoch(&t->shape), epoch = step / per_epoch, one = shard;
    uint64_t first = ((step % per_epoch) * t->shape.shards + shard) * t->shape.shard_samples;
    uint32_t real = plan_shard_real(&t->shape, step, shard);
    uint64_t *ids = calloc(real + 1, sizeof *ids), count = real;

    for (uint32_t j = 0; ids != NULL && j < real; j++)
        ids[j] = sampler_index(t->settings->seed, epoch, t->shape.samples, first + j);
    line_begin(t, "samples");
    jsonl_uint(&t->line, "step", step);
    jsonl_uints(&t->line, "shards", &one, 1);
    jsonl_uints(&t->line, "counts", &count, 1);
    if (ids != NULL)
        jsonl_uints(&t->line, "samples", ids, real);
    line_end(t);
    free(ids);
}

void report_done(struct trainer *t)
{
    uint64_t hash = trainer_hash(t);
    char text[200];

    line_begin(t, "done");
    jsonl_uint(&t->line, "steps", t->elastic.applied);
    jsonl_real(&t->line, "test_accuracy", t->accuracy);
    jsonl_hex(&t->line, "params_hash", hash);
    line_end(t);
    (void)snprintf(text, sizeof text, "done: %llu steps, test accuracy %.4f, params_hash %016llx",
                   (unsigned long long)t->elastic.applied, t->accuracy, (unsigned long long)hash);
    report_note(t, text);
}

void report_close(struct trainer *t)
{
    if (t->log != NULL)
        (void)fclose(t->log);
    t->log = NULL;
    jsonl_release(&t->line);
}
