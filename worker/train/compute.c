/* Work for the compute threads: shards of a step, the update in blocks, the test set in ranges. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"
#include "data/prefetch.h"
#include "train/crash.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- shards --------------------------------------------------------------------------------- */

static struct batch_key samples_of(const struct trainer *t, uint64_t step, uint32_t shard)
{
    uint64_t per_epoch = plan_steps_per_epoch(&t->shape);
    struct batch_key key = {
        .epoch = step / per_epoch,
        .first = ((step % per_epoch) * t->shape.shards + shard) * t->shape.shard_samples,
        .real = plan_shard_real(&t->shape, step, shard)};

    return key;
}

/* The same shards of the next step are gathered ahead; what is ready for this one is kept until it
 * is taken. */
static void want_samples(struct trainer *t, uint64_t step, const struct plan_mask *shards)
{
    struct batch_key keys[PREFETCH_SLOTS_MAX];
    uint32_t count = 0;

    for (uint64_t k = step; k <= step + 1 && k < t->steps_total; k++)
        for (uint32_t i = 0; i < t->shape.shards && count < PREFETCH_SLOTS_MAX; i++)
            if (plan_mask_has(shards, i) && plan_shard_real(&t->shape, k, i) > 0)
                keys[count++] = samples_of(t, k, i);
    prefetch_want(t->prefetch, keys, count);
}

static void on_word(struct pool_word *word);
static void task_done(struct shard_task *s);

struct bucket_owner {
    struct shard_task *shard;
    struct device_stream *stream;
};

/* On a compute thread: a bucket of the leaf is complete; folded, and told if a top came of it. */
static void on_bucket(void *owner, uint32_t bucket)
{
    struct bucket_owner *o = owner;
    struct shard_task *s = o->shard;
    struct shard_word *word = &s->words[bucket];
    const struct model_bucket *range = &s->trainer->state.spec->buckets[bucket];

    fault_flip(s->trainer, "sum", s->step, s->leaf + range->offset, range->count);
    if (s->hashed)
        inspect_bucket(s, o->stream, bucket);
    if (s->audit_only ||
        !sums_ready(&s->trainer->sums, o->stream, s->shard, s->leaf, bucket, &word->top))
        return;
    word->task = s;
    word->word.call_cb = on_word;
    __atomic_add_fetch(&s->words_open, 1, __ATOMIC_RELAXED);
    pool_tell(s->trainer->pool, &word->word);
}

static void run_shard(struct pool_task *task, uint32_t thread)
{
    struct shard_task *s = (struct shard_task *)task;
    struct trainer *t = s->trainer;
    struct lane *lane = &t->lanes[thread];
    struct bucket_owner owner = {s, lane->stream};
    struct batch_key key = samples_of(t, s->step, s->shard);

    if (__atomic_load_n(&t->skip_shards, __ATOMIC_ACQUIRE))
        return;
    s->took_us = clock_monotonic_us();
    __atomic_store_n(&lane->busy, true, __ATOMIC_RELAXED);
    fault_point(t, "compute", s->step);
    (void)prefetch_take(t->prefetch, &key, lane->images, lane->labels);
    model_load(lane->model, state_params(&t->state), s->step);
    model_shard(lane->model, lane->images, lane->labels, key.real, s->leaf, on_bucket, &owner);
    s->took_us = clock_monotonic_us() - s->took_us;
    s->computed = true;
    __atomic_store_n(&lane->busy, false, __ATOMIC_RELAXED);
}

uint32_t compute_thread(const struct trainer *t)
{
    for (uint32_t i = 0; i < pool_threads(t->pool); i++)
        if (__atomic_load_n(&t->lanes[i].busy, __ATOMIC_RELAXED))
            return t->lanes[i].thread;
    return 0;
}

static void on_word(struct pool_word *word)
{
    struct shard_word *w = (struct shard_word *)word;
    struct shard_task *s = w->task;
    struct sums_top top = w->top;
    uint64_t step = s->step;
    struct trainer *t = s->trainer;

    __atomic_sub_fetch(&s->words_open, 1, __ATOMIC_RELAXED);
    if (s->ended)
        task_done(s);
    if (step == t->state.applied)
        reduce_top(t, &top);
}

static void task_done(struct shard_task *s)
{
    struct trainer *t = s->trainer;

    s->ended = true;
    if (__atomic_load_n(&s->words_open, __ATOMIC_RELAXED) > 0)
        return;
    s->next_free = t->free_tasks;
    t->free_tasks = s;
}

static void apply_now(struct trainer *t);

bool compute_would_apply(const struct trainer *t)
{
    return t->when_idle == apply_now;
}

/* What waited until nobody reads the parameters is done; an update also lets a checkpoint that is
 * due copy them first. */
void compute_go_on(struct trainer *t)
{
    void (*then)(struct trainer *) = t->when_idle;

    if (t->shards_open > 0 || t->checks_open > 0 || then == NULL || save_waits(t))
        return;
    t->when_idle = NULL;
    then(t);
}

/* Shard tasks read the parameters and add to the sums of their step, checks read the parameters.
 * Whatever overwrites either waits until those that run have ended; shards that wait do nothing,
 * and of none it is said that it is done. */
void compute_when_idle(struct trainer *t, void (*then)(struct trainer *))
{
    __atomic_store_n(&t->skip_shards, t->shards_open > 0, __ATOMIC_RELEASE);
    t->when_idle = then;
    compute_go_on(t);
}

static void shard_done(struct pool_task *task)
{
    struct shard_task *s = (struct shard_task *)task;
    struct trainer *t = s->trainer;
    struct elastic_event event = trainer_event_of(ELASTIC_SHARD_DONE);
    bool computed = s->computed, own = computed && !s->audit_only, hashed = s->hashed;

    event.step = s->step;
    event.shard = s->shard;
    if (computed)
        pace_shard(&t->pace, s->step, s->took_us);
    if (!own)
        sums_drop(&t->sums, s->leaf);
    if (hashed)
        inspect_shard_done(t, s);
    task_done(s);
    t->shards_open--;
    if (t->when_idle != NULL) {
        compute_go_on(t);
        return;
    }
    if (own)
        trainer_event(t, &event);
    if (computed && hashed)
        reduce_audited(t);
    control_progress(t);
}

static struct shard_task *new_task(struct trainer *t)
{
    struct shard_task *s = t->free_tasks, *next;

    if (s != NULL) {
        t->free_tasks = s->next_free;
        next = s->next_made;
        memset(s, 0, sizeof *s);
        s->next_made = next;
        return s;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->next_made = t->made_tasks;
    t->made_tasks = s;
    return s;
}

static bool post_shard(struct trainer *t, uint64_t step, uint32_t shard, bool audit_only)
{
    struct shard_task *s = new_task(t);

    if (s != NULL)
        s->leaf = sums_leaf(&t->sums);
    if (s == NULL || s->leaf == NULL) {
        trainer_exit(t, EXIT_UNAVAILABLE, "out of memory for a shard's gradient");
        return false;
    }
    s->task.run_cb = run_shard;
    s->task.done_cb = shard_done;
    s->trainer = t;
    s->step = step;
    s->shard = shard;
    s->audit_only = audit_only;
    s->hashed = audit_only || inspect_wants(t, step, shard);
    t->shards_open++;
    if (t->settings->log_samples && !audit_only)
        report_samples(t, step, shard);
    pool_post(t->pool, &s->task);
    return true;
}

void compute_shards(struct trainer *t, uint64_t step, const struct plan_mask *shards)
{
    assert(t->when_idle == NULL);
    t->compute_us = clock_monotonic_us();
    __atomic_store_n(&t->skip_shards, false, __ATOMIC_RELEASE);
    if (t->shards_open == 0)
        fault_flip(t, "params", step, state_params(&t->state), t->state.spec->param_count);
    reduce_prepare(t);
    for (uint32_t i = 0; i < t->shape.shards; i++) {
        uint32_t shard = fault_order(t, step, i);

        if (plan_mask_has(shards, shard) && !post_shard(t, step, shard, false))
            return;
    }
    want_samples(t, step, shards);
    control_progress(t);
}

/* A shard of another member, after those of this one. */
void compute_audit(struct trainer *t, uint64_t step, uint32_t shard)
{
    assert(t->when_idle == NULL);
    (void)post_shard(t, step, shard, true);
}

/* ---- the update ----------------------------------------------------------------------------- */

static void run_update(struct pool_task *task, uint32_t thread)
{
    struct range_task *r = (struct range_task *)task;
    struct trainer *t = r->trainer;

    struct device_stream *stream = t->lanes[thread].stream;

    t->ops->event_wait(t->reduced, stream);
    state_update(&t->state, stream, t->apply_step, t->state.reduced, t->apply_clip, r->first,
                 r->count, t->apply_hashed ? t->state.block_hashes : NULL);
    t->ops->stream_sync(stream);
}

static void update_done(struct pool_task *task)
{
    struct trainer *t = ((struct range_task *)task)->trainer;
    struct elastic_event event = trainer_event_of(ELASTIC_APPLIED);
    double correct, real;

    if (--t->ranges_open > 0)
        return;
    t->updating = false;
    t->reduced_whole = true;
    t->state.applied = t->apply_step + 1;
    t->hashed = t->apply_hashed;
    t->hash = t->hashed ? state_hash(&t->state, t->stream) : 0;
    state_metrics(&t->state, t->stream, t->state.reduced, &t->loss, &correct, &real);
    event.version = t->state.applied;
    event.hash = t->hash;
    event.hashed = t->hashed;
    reduce_applied(t);
    visitors_applied(t, t->elastic.boundary && !t->elastic.plan.pause ? t->elastic.plan.number : 0);
    fault_point(t, "applied", t->apply_step);
    trainer_event(t, &event);
}

uint32_t compute_ranges(struct trainer *t, struct range_task *ranges, uint64_t all,
                        void (*run_cb)(struct pool_task *task, uint32_t thread),
                        void (*done_cb)(struct pool_task *task))
{
    uint32_t threads = pool_threads(t->pool), open = 0;

    for (uint32_t i = 0; i < threads; i++) {
        struct range_task *r = &ranges[i];

        r->trainer = t;
        r->first = all * i / threads;
        r->count = all * (i + 1) / threads - r->first;
        r->task.run_cb = run_cb;
        r->task.done_cb = done_cb;
        open += r->count > 0;
    }
    for (uint32_t i = 0; i < threads; i++)
        if (ranges[i].count > 0)
            pool_post(t->pool, &ranges[i].task);
    return open;
}

static void apply_now(struct trainer *t)
{
    t->updating = true;
    fault_point(t, "apply", t->apply_step);
    fault_flip(t, "reduced", t->apply_step, t->state.reduced, t->state.spec->param_count);
    fault_flip(t, "optimizer", t->apply_step, state_params(&t->state) + t->state.spec->param_count,
               t->state.spec->param_count);
    t->apply_clip = state_clip(&t->state, t->stream, t->state.reduced);
    t->ops->event_record(t->reduced, t->stream);
    t->ranges_open = compute_ranges(t, t->ranges, t->state.block_count, run_update, update_done);
}

void compute_apply(struct trainer *t, uint64_t step, bool hashed)
{
    t->apply_step = step;
    t->apply_hashed = hashed;
    compute_when_idle(t, apply_now);
    if (save_waits(t)) {
        control_progress(t);
        save_bound(t);
    }
}

/* ---- the test set --------------------------------------------------------------------------- */

static void run_evaluate(struct pool_task *task, uint32_t thread)
{
    struct range_task *r = (struct range_task *)task;
    struct trainer *t = r->trainer;

    model_load(t->lanes[thread].model, state_params(&t->state), t->state.applied);
    model_evaluate(t->lanes[thread].model, t->mnist.test.images + r->first * MNIST_PIXELS,
                   t->mnist.test.labels + r->first, r->count, r->metrics);
}

static void evaluate_done(struct pool_task *task)
{
    struct trainer *t = ((struct range_task *)task)->trainer;
    struct elastic_event event = trainer_event_of(ELASTIC_EVALUATED);
    double correct = 0;

    if (--t->ranges_open > 0)
        return;
    for (uint32_t i = 0; i < pool_threads(t->pool); i++)
        correct += t->ranges[i].count > 0 ? t->ranges[i].metrics[1] : 0;
    t->accuracy = correct / (double)t->mnist.test.count;
    trainer_event(t, &event);
}

void compute_evaluate(struct trainer *t)
{
    t->ranges_open = compute_ranges(t, t->ranges, t->mnist.test.count, run_evaluate, evaluate_done);
}

/* ---- threads -------------------------------------------------------------------------------- */

/* One micro-batch of blanks, so that kernels and memory are warm when this worker's first step
 * keeps others waiting. */
static int warm_up(struct trainer *t, struct lane *lane)
{
    uint32_t samples = model_microbatch(t->shape.shard_samples);
    float *leaf = sums_leaf(&t->sums);

    if (leaf == NULL)
        return 1;
    memset(lane->images, 0, (size_t)samples * MNIST_PIXELS);
    memset(lane->labels, 0, samples);
    model_load(lane->model, state_params(&t->state), UINT64_MAX /* no version of a job */);
    model_shard(lane->model, lane->images, lane->labels, samples, leaf, NULL, NULL);
    sums_drop(&t->sums, leaf);
    return 0;
}

static int lane_enter(void *owner, uint32_t thread)
{
    struct trainer *t = owner;
    struct lane *lane = &t->lanes[thread];
    struct device_error error;

    lane->thread = (uint32_t)syscall(SYS_gettid);
    lane->stack = crash_stack();
    lane->images = malloc((size_t)t->shape.shard_samples * MNIST_PIXELS);
    lane->labels = malloc(t->shape.shard_samples);
    if (lane->images == NULL || lane->labels == NULL ||
        t->ops->stream_open(t->device, &lane->stream, &error) != DEVICE_OK ||
        model_open(t->ops, t->device, lane->stream, t->state.spec, t->shape.shard_samples,
                   &lane->model, &error) != DEVICE_OK)
        return 1;
    return warm_up(t, lane);
}

static void lane_leave(void *owner, uint32_t thread)
{
    struct trainer *t = owner;
    struct lane *lane = &t->lanes[thread];

    model_close(lane->model);
    if (lane->stream != NULL)
        t->ops->stream_close(lane->stream);
    free(lane->images);
    free(lane->labels);
    crash_stack_free(lane->stack);
    memset(lane, 0, sizeof *lane);
}

int compute_open(struct trainer *t, struct error *error)
{
    struct pool_setup setup = {lane_enter, lane_leave, t};

    if (pool_start(t->loop, (uint32_t)t->settings->threads, &setup, &t->pool) != 0)
        return error_set(error, EXIT_UNAVAILABLE, "%llu compute threads could not be started",
                         (unsigned long long)t->settings->threads);
    t->prefetch = prefetch_open(&t->mnist.train, t->settings->seed, t->shape.shard_samples,
                                2 * t->shape.shards);
    if (t->prefetch == NULL)
        return error_set(error, EXIT_UNAVAILABLE, "out of memory for the samples of a step");
    return 0;
}

void compute_close(struct trainer *t)
{
    pool_stop(t->pool);
    t->pool = NULL;
    prefetch_close(t->prefetch);
    t->prefetch = NULL;
    t->free_tasks = NULL;
    while (t->made_tasks != NULL) {
        struct shard_task *next = t->made_tasks->next_made;

        free(t->made_tasks);
        t->made_tasks = next;
    }
}
