/* Checkpoints: a quick copy of the state between two updates, written behind by a thread of libuv's
 * pool. A checkpoint that fails is told, and training goes on. */
#include "train/trainer.h"

#include "base/exits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct save_job {
    uv_work_t work;
    struct trainer *trainer;
    float *values;           /* a copy */
    struct ckpt_meta meta;
    bool last;
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

static void write_behind(uv_work_t *work)
{
    struct save_job *job = work->data;
    const struct trainer *t = job->trainer;

    job->code = state_save(&t->state, job->values, t->settings->ckpt, &job->meta,
                           t->settings->ckpt_keep, &job->error);
}

static void written(uv_work_t *work, int status)
{
    struct save_job *job = work->data;
    struct trainer *t = job->trainer;
    struct elastic_event event = trainer_event_of(ELASTIC_SAVED);
    uint64_t again = t->save_again;
    bool last = job->last;
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
    free(job->values);
    free(job);
    t->save = NULL;
    t->save_again = 0;
    /* What was asked for meanwhile is there until the update after it begins. */
    if (again != 0 && t->state.applied == again && !t->updating && t->pool != NULL)
        save_begin(t, again, t->save_last_due);
    else if (last && !t->leaving)
        trainer_event(t, &event);
    else
        trainer_exit(t, -1, NULL); /* perhaps the exit waited for this */
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

/* While one is being written, only the newest that was asked for is remembered. */
void save_begin(struct trainer *t, uint64_t version, bool last)
{
    struct save_job *job;

    t->save_last_due = last;
    if (t->save != NULL) {
        t->save_again = version;
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
    job->work.data = job;
    t->save = job;
    fault_point(t, "save", version);
    (void)uv_queue_work(t->loop, &job->work, write_behind, written);
}
