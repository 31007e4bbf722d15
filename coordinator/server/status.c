#include "server/status.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const phase_words[CORE_RECOVERY_COUNT] = {
#define PHASE_WORD(name, word) word,
    CORE_RECOVERY_PHASES(PHASE_WORD)
#undef PHASE_WORD
};

/* ---- /v1/status ----------------------------------------------------------------------------- */

static json_t *member_json(const struct core_member_view *view)
{
    json_t *member = json_pack("{s:s, s:s, s:i, s:s, s:I, s:I}", "node", view->node, "host",
                               view->host, "pid", (int)view->pid, "state", view->state, "step",
                               (json_int_t)view->step, "silent_ms", (json_int_t)view->silent_ms);

    if (member == NULL)
        return NULL;
    json_object_set_new(member, "rank",
                        view->rank == UINT32_MAX ? json_null() : json_integer(view->rank));
    json_object_set_new(member, "data_address", json_string(view->data_address));
    if (view->in_generation && view->shard_us > 0) {
        json_object_set_new(member, "shards", json_integer(view->shards));
        json_object_set_new(member, "shard_us", json_integer(view->shard_us));
    }
    if (view->participant)
        json_object_set_new(member, "kind", json_string("participant"));
    if (view->waits_at[0] != '\0')
        json_object_set_new(member, "waits_at", json_string(view->waits_at));
    return member;
}

/* JSON has no word for what is not a number: null. */
static json_t *finite_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *phases_json(const uint64_t phase_us[CORE_RECOVERY_COUNT])
{
    json_t *times = json_object();
    char key[32];

    for (uint32_t i = 0; i < CORE_RECOVERY_COUNT; i++) {
        (void)snprintf(key, sizeof key, "%s_us", phase_words[i]);
        json_object_set_new(times, key, json_integer((json_int_t)phase_us[i]));
    }
    return times;
}

/* The newest first, each with what it was after. */
static json_t *recent_json(const struct core_job_view *view)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < view->recent_count; i++) {
        json_t *one = phases_json(view->recent[i].phase_us);

        json_object_set_new(one, "ago_ms", json_integer((json_int_t)view->recent[i].ago_ms));
        json_object_set_new(one, "generation",
                            json_integer((json_int_t)view->recent[i].generation));
        json_object_set_new(one, "reason", json_string(view->recent[i].reason));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *job_json(const struct core *core, uint32_t index, const struct core_job_view *view)
{
    struct core_member_view member;
    json_t *members = json_array();
    json_t *job = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:i, s:i, s:i, s:I, s:I, s:b}", "name", view->name, "state",
        view->state, "reason", view->reason, "generation", (json_int_t)view->generation, "step",
        (json_int_t)view->step, "world", (int)view->world, "min", (int)view->min, "max",
        (int)view->max, "recoveries", (json_int_t)view->recoveries, "waiting_ms",
        (json_int_t)view->waiting_since_ms, "store_failing", (int)view->store_failing);

    if (job == NULL || members == NULL) {
        json_decref(job);
        json_decref(members);
        return NULL;
    }
    json_object_set_new(job, "loss", finite_json((double)view->loss));
    json_object_set_new(job, "samples_per_s", finite_json((double)view->samples_per_s));
    json_object_set_new(job, "last_recovery", phases_json(view->last_us));
    json_object_set_new(job, "recent_recoveries", recent_json(view));
    json_object_set_new(job, "verdict", json_string(view->verdict));
    json_object_set_new(job, "awaited", json_string(view->awaited));
    json_object_set_new(job, "waits_for", json_string(view->waits_for));
    for (uint32_t i = 0; core_view_member(core, index, i, &member); i++)
        json_array_append_new(members, member_json(&member));
    json_object_set_new(job, "members", members);
    return job;
}

static void status_json(const struct core *core, struct http_page *page)
{
    json_t *jobs = json_array(), *root = json_object();
    struct core_job_view view;

    for (uint32_t i = 0; core_view_job(core, i, &view); i++)
        json_array_append_new(jobs, job_json(core, i, &view));
    json_object_set_new(root, "jobs", jobs);
    page->body = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    page->body_bytes = page->body != NULL ? strlen(page->body) : 0;
    page->status = page->body != NULL ? 200 : 500;
    page->type = "application/json";
}

/* ---- /metrics ------------------------------------------------------------------------------- */

static void metric(FILE *out, const char *name, const char *type, const char *help)
{
    (void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The value of a label: backslash, quote and newline have their escapes, as in the Prometheus text
 * format. */
static void print_label(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\\' || *text == '"')
            (void)fputc('\\', out);
        (void)fputs(*text == '\n' ? "\\n" : (char[]){*text, '\0'}, out);
    }
}

static void job_metric(const struct core *core, FILE *out, const char *name, const char *type,
                       const char *help, double (*value)(const struct core_job_view *))
{
    struct core_job_view view;

    metric(out, name, type, help);
    for (uint32_t i = 0; core_view_job(core, i, &view); i++) {
        double now = value(&view);

        (void)fprintf(out, "%s{job=\"", name);
        print_label(out, view.name);
        if (isfinite(now))
            (void)fprintf(out, "\"} %.9g\n", now);
        else
            (void)fprintf(out, "\"} %s\n", isnan(now) ? "NaN" : now > 0 ? "+Inf" : "-Inf");
    }
}

/* One line for each member of a generation. */
static void member_metric(const struct core *core, FILE *out, const char *name, const char *help,
                          double (*value)(const struct core_member_view *))
{
    struct core_job_view job;
    struct core_member_view view;

    metric(out, name, "gauge", help);
    for (uint32_t i = 0; core_view_job(core, i, &job); i++)
        for (uint32_t k = 0; core_view_member(core, i, k, &view); k++) {
            if (!view.in_generation)
                continue;
            (void)fprintf(out, "%s{job=\"", name);
            print_label(out, job.name);
            (void)fprintf(out, "\",rank=\"%u\",node=\"", view.rank);
            print_label(out, view.node);
            (void)fprintf(out, "\"} %.9g\n", value(&view));
        }
}

static double straggler_of(const struct core_member_view *v) { return v->straggler; }
static double shard_of(const struct core_member_view *v) { return v->shard_us / 1e6; }
static double shards_of(const struct core_member_view *v) { return v->shards; }
static double members_of(const struct core_job_view *v) { return v->members; }
static double generation_of(const struct core_job_view *v) { return (double)v->generation; }
static double recoveries_of(const struct core_job_view *v) { return (double)v->recoveries; }
static double step_of(const struct core_job_view *v) { return (double)v->step; }
static double loss_of(const struct core_job_view *v) { return (double)v->loss; }
static double verdicts_of(const struct core_job_view *v) { return (double)v->verdicts; }
static double samples_of(const struct core_job_view *v) { return (double)v->samples_per_s; }
/* NAME{job="..",phase=".." and leaves the braces open. */
static void print_phase(FILE *out, const char *name, const char *job, uint32_t phase)
{
    (void)fprintf(out, "%s{job=\"", name);
    print_label(out, job);
    (void)fprintf(out, "\",phase=\"%s\"", phase_words[phase]);
}

/* Buckets are cumulative in the Prometheus text format. */
static void print_histogram(FILE *out, const char *job, uint32_t phase,
                            const struct core_histogram *h)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < CORE_BUCKETS; i++) {
        count += h->buckets[i];
        print_phase(out, "muster_recovery_seconds_bucket", job, phase);
        (void)fprintf(out, ",le=\"%g\"} %llu\n", (double)core_bucket_us[i] / 1e6,
                      (unsigned long long)count);
    }
    print_phase(out, "muster_recovery_seconds_bucket", job, phase);
    (void)fprintf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)h->count);
    print_phase(out, "muster_recovery_seconds_sum", job, phase);
    (void)fprintf(out, "} %.6f\n", (double)h->sum_us / 1e6);
    print_phase(out, "muster_recovery_seconds_count", job, phase);
    (void)fprintf(out, "} %llu\n", (unsigned long long)h->count);
}

static void recovery_metrics(const struct core *core, FILE *out)
{
    struct core_job_view view;

    metric(out, "muster_recovery_seconds", "histogram",
           "phases of recoveries since the coordinator's start");
    for (uint32_t i = 0; core_view_job(core, i, &view); i++)
        for (uint32_t phase = 0; phase < CORE_RECOVERY_COUNT; phase++)
            print_histogram(out, view.name, phase, &view.histograms[phase]);
    metric(out, "muster_last_recovery_seconds", "gauge", "phases of the last recovery");
    for (uint32_t i = 0; core_view_job(core, i, &view); i++)
        for (uint32_t phase = 0; phase < CORE_RECOVERY_COUNT; phase++) {
            print_phase(out, "muster_last_recovery_seconds", view.name, phase);
            (void)fprintf(out, "} %.6f\n", (double)view.last_us[phase] / 1e6);
        }
}

static void metrics_text(const struct core *core, const struct conn_counters *counters,
                         struct http_page *page)
{
    FILE *out = open_memstream(&page->body, &page->body_bytes);

    if (out == NULL) {
        page->status = 500;
        return;
    }
    job_metric(core, out, "muster_members", "gauge", "members of the generation that are here",
               members_of);
    job_metric(core, out, "muster_generation", "gauge", "number of the generation", generation_of);
    job_metric(core, out, "muster_recoveries_total", "counter", "regroups after a loss",
               recoveries_of);
    job_metric(core, out, "muster_verdicts_total", "counter",
               "deadlocks and mismatches of collectives and barriers", verdicts_of);
    job_metric(core, out, "muster_step", "gauge", "updates applied", step_of);
    job_metric(core, out, "muster_loss", "gauge", "loss, as rank 0 told it last", loss_of);
    job_metric(core, out, "muster_samples_per_second", "gauge", "of rank 0", samples_of);
    member_metric(core, out, "muster_straggler", "needs much longer for a shard than the others",
                  straggler_of);
    member_metric(core, out, "muster_shard_seconds", "wall time of one shard", shard_of);
    member_metric(core, out, "muster_shards", "shards of a step that it owns", shards_of);
    recovery_metrics(core, out);
    metric(out, "muster_connections", "gauge", "open connections");
    (void)fprintf(out, "muster_connections %llu\n", (unsigned long long)counters->open);
    metric(out, "muster_frames_received_total", "counter", "control frames read");
    (void)fprintf(out, "muster_frames_received_total %llu\n",
                  (unsigned long long)counters->frames_in);
    metric(out, "muster_connections_refused_total", "counter", "closed for what they sent");
    (void)fprintf(out, "muster_connections_refused_total %llu\n",
                  (unsigned long long)counters->refused_frames);
    (void)fclose(out);
    page->status = page->body != NULL ? 200 : 500;
    page->type = "text/plain; version=0.0.4";
}

void status_page(const struct core *core, const struct conn_counters *counters, const char *path,
                 struct http_page *page)
{
    if (strcmp(path, "/v1/status") == 0) {
        status_json(core, page);
    } else if (strcmp(path, "/metrics") == 0) {
        metrics_text(core, counters, page);
    } else if (strcmp(path, "/healthz") == 0) {
        page->body = strdup("ok\n");
        page->body_bytes = page->body != NULL ? 3 : 0;
        page->status = page->body != NULL ? 200 : 500;
        page->type = "text/plain";
    }
}

const char *status_json_version(void)
{
    return jansson_version_str();
}
