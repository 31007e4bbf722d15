/* Checkpoints: a quick copy of the state between two updates, written behind by a thread of libuv's
 * pool. One is written at a time, and there is memory for one copy: one that is due meanwhile holds
 * up the update, which would overwrite its state, until it can be copied. In a group that makes the
 * others wait too: there it is left out, and that is told, when the disk takes too long or the
 * generation ends. A checkpoint that fails is told, and training goes on. */
#include "train/trainer.h"

#include "base/clock.h"
#include "base/exits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a group waits for one write. A coordinator allows its phase six times as long, if
 * --startup is not made shorter. */
#define DISK_MS 20000

struct save_job {
    uv_work_t work;
    struct trainer *trainer;
    float *values;           /* a copy */
    struct ckpt_meta meta;
    bool last;
    uint64_t begun_us;       /* monotonic */
    bool slow;               /* a group has waited for it in vain: it does so once */
    enum ckpt_code code;
    struct ckpt_error error;
};

int save_prepare(const struct trainer *t, struct error *error)
{
    const char *folder = t->settings->ckpt;
    struct stat what;

    if (folder == NULL)
        return 0;
    if (stat(folder, &what) == 0 && !S_ISDIR(what.st_mode))
        return error_set(error, EXIT_UNAVAILABLE, "--ckpt %s: it is no directory", folder);
    if ((mkdir(folder, 0755) == 0 || errno == EEXIST) && access(folder, R_OK | W_OK | X_OK) == 0)
        return 0;
    return error_set(error, EXIT_UNAVAILABLE, "--ckpt %s: %s", folder, strerror(errno));
}

bool save_open(const struct trainer *t)
{
    return t->save != NULL;
}

/* ---- waiting for the disk ------------------------------------------------------------------- */

bool save_waits(const struct trainer *t)
{
    return t->save_again != 0 && t->save_again == t->state.applied && compute_would_apply(t);
}

static double written_s(const struct trainer *t)
{
    return (double)(clock_monotonic_us() - t->save->begun_us) / 1e6;
}

static void leave_out(struct trainer *t, uint64_t version)
{
    char text[200];

    (void)snprintf(text, sizeof text, "the checkpoint of step %llu is left out: that of step %llu "
                                      "is being written for %.1f s", (unsigned long long)version,
                   (unsigned long long)t->save->meta.step, written_s(t));
    report_warning(t, text);
}

/* Is nobody kept waiting? */
static bool alone(const struct trainer *t)
{
    return t->settings->standalone || t->elastic.generation.world == 1;
}

void save_give_up(struct trainer *t)
{
    if (t->save_again == 0 || !compute_would_apply(t))
        return;
    t->save->slow = true;
    leave_out(t, t->save_again);
    t->save_again = 0;
    (void)uv_timer_stop(&t->disk_timer);
    compute_go_on(t);
    control_progress(t);
}

/* Alone there is nobody to be spared: what is due is written, but a disk that hangs is named. */
static void on_disk_timer(uv_timer_t *timer)
{
    struct trainer *t = timer->data;
    char text[200];

    if (!alone(t)) {
        save_give_up(t);
        return;
    }
    (void)snprintf(text, sizeof text,
                   "training waits for the disk: the checkpoint of step %llu is being written for "
                   "%.0f s", (unsigned long long)t->save->meta.step, written_s(t));
    report_warning(t, text);
}

void save_bound(struct trainer *t)
{
    if (t->save->slow && !alone(t))
        save_give_up(t);
    else if (!uv_is_active((uv_handle_t *)&t->disk_timer))
        (void)uv_timer_start(&t->disk_timer, on_disk_timer, DISK_MS, 0);
}

/* Due while another is being written. */
static void wait_for_disk(struct trainer *t, uint64_t version, bool last)
{
    char text[200];

    if (!last && t->save->slow && !alone(t)) {
        leave_out(t, version);
        return;
    }
    t->save_again = version;
    if (last || t->disk_told) /* everything waits for the last one anyway */
        return;
    t->disk_told = true;
    (void)snprintf(text, sizeof text, "training waits for the disk: the checkpoint of step %llu is "
                                      "due while that of step %llu is being written (said once; "
                                      "a larger --ckpt-every makes it rarer)",
                   (unsigned long long)version, (unsigned long long)t->save->meta.step);
    report_note(t, text);
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_behind(uv_work_t *work)
{
    struct save_job *job = work->data;
    const struct trainer *t = job->trainer;

    fault_point(t, "write", job->meta.step);
    job->code = state_save(&t->state, job->values, t->settings->ckpt, &job->meta,
                           t->settings->ckpt_keep, &job->error);
}

/* Is what was asked for meanwhile to be written now? Its state is there until the update after it
 * begins. Who leaves others behind who have it goes at once. */
static bool takes_next(const struct trainer *t)
{
    bool there = t->save_again != 0 && t->state.applied == t->save_again && !t->updating &&
                 t->pool != NULL;

    return there && (t->save_last_due || !t->leaving || alone(t));
}

static void written(uv_work_t *work, int status)
{
    struct save_job *job = work->data;
    struct trainer *t = job->trainer;
    struct elastic_event event = trainer_event_of(ELASTIC_SAVED);
    uint64_t again = t->save_again;
    bool last = job->last, next = takes_next(t);
    char text[700];

    (void)status;
    fault_point(t, "saved", job->meta.step);
    if (job->code != CKPT_OK) {
        (void)snprintf(text, sizeof text, "checkpoint of step %llu failed%s: %s",
                       (unsigned long long)job->meta.step, last ? "" : ", training goes on",
                       job->error.text);
        report_warning(t, text);
    }
    t->last_unsaved = last && job->code != CKPT_OK;
    event.version = job->meta.step;
    if (again != 0 && !next)
        leave_out(t, again);
    free(job->values);
    free(job);
    t->save = NULL;
    t->save_again = 0;
    (void)uv_timer_stop(&t->disk_timer);
    if (next)
        save_begin(t, again, t->save_last_due);
    else if (last && !t->leaving)
        trainer_event(t, &event);
    else
        trainer_exit(t, -1, NULL); /* perhaps the exit waited for this */
    if (again == 0 || t->leaving)
        return;
    compute_go_on(t); /* the update that waited for the copy */
    control_progress(t);
}

static void describe(struct trainer *t, struct ckpt_meta *meta)
{
    uint64_t per_epoch = plan_steps_per_epoch(&t->shape);

    memset(meta, 0, sizeof *meta);
    meta->step = t->state.applied;
    meta->generation = t->settings->standalone ? 0 : t->elastic.generation.number;
    memcpy(meta->job_uid, t->job_uid, sizeof meta->job_uid);
    (void)snprintf(meta->job, sizeof meta->job, "%s",
                   t->settings->job != NULL ? t->settings->job : "standalone");
    meta->seed = t->settings->seed;
    meta->epoch = meta->step / per_epoch;
    meta->step_in_epoch = meta->step % per_epoch;
    meta->shards = t->shape.shards;
    meta->loss_scale = 1.0;
    meta->params_hash = trainer_hash(t);
    (void)snprintf(meta->spec, sizeof meta->spec, "%s", t->spec);
    (void)snprintf(meta->fingerprint, sizeof meta->fingerprint, "%s", t->fingerprint);
}

void save_begin(struct trainer *t, uint64_t version, bool last)
{
    struct save_job *job;

    t->save_last_due = last;
    if (t->save != NULL) {
        wait_for_disk(t, version, last);
        return;
    }
    job = calloc(1, sizeof *job);
    if (job != NULL)
        job->values = malloc(state_value_bytes(&t->state));
    if (job == NULL || job->values == NULL) {
        struct elastic_event event = trainer_event_of(ELASTIC_SAVED);

        free(job);
        report_warning(t, "checkpoint failed, training goes on: out of memory");
        t->last_unsaved = last;
        event.version = version;
        if (last)
            trainer_event(t, &event);
        return;
    }
    t->ops->download(t->stream, job->values, t->state.values, state_value_bytes(&t->state));
    t->ops->stream_sync(t->stream);
    describe(t, &job->meta);
    job->trainer = t;
    job->last = last;
    job->begun_us = clock_monotonic_us();
    job->work.data = job;
    t->save = job;
    fault_point(t, "save", version);
    (void)uv_queue_work(t->loop, &job->work, write_behind, written);
}
