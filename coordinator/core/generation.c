/* Generations: stored, then told; ended with one push; plans taken at a boundary.
 *
 * A number is used once: number_max grows when something is stored, whether it is told afterwards
 * or not. */
#include "core/internal.h"

static void member_owed(struct member *m, enum member_state state)
{
    m->state = state;
    m->report_us = 0;
}

/* ---- storing -------------------------------------------------------------------------------- */

void job_store(struct core *core, struct job *job)
{
    struct core_action *action = core_act(core, CORE_ACTION_STORE);

    job->pending_lsn = ++core->lsn;
    job->retry_us = 0;
    action->lsn = job->pending_lsn;
    action->job = job->name;
    action->record = core->record;
    action->record_bytes = record_encode(core, job, job->pending);
}

static void begin_pending(struct core *core, struct job *job, enum pending what, uint64_t step)
{
    job->pending = what;
    job->pending_number = ++job->number_max;
    job->pending_nonce = core_random(core);
    job->pending_key = core_random_id(core);
    job->pending_step = step;
    job_store(core, job);
}

void generation_form(struct core *core, struct job *job, uint32_t world, uint64_t step)
{
    job->pending_world = world;
    begin_pending(core, job, PENDING_FORM, step);
}

void generation_plan(struct core *core, struct job *job, uint32_t world, bool pause)
{
    job_rank(core, job, world);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        m->weight_new = straggler_weight(core, m);
    job->pending_world = world;
    job->pending_pause = pause;
    begin_pending(core, job, PENDING_PLAN, job->step);
}

void generation_done(struct core *core, struct job *job)
{
    job->pending = PENDING_DONE;
    job_store(core, job);
}

void generation_keep(struct core *core, struct job *job)
{
    job->pending = PENDING_KEEP; /* what was being stored is void: it did not know better */
    job_store(core, job);
}

/* ---- telling -------------------------------------------------------------------------------- */

/* Ranks on the same node below this one. */
static uint32_t local_rank(const struct core *core, const struct job *job, const struct member *of,
                           bool plan)
{
    uint32_t count = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if ((plan ? m->in_plan : m->in_generation) && strcmp(m->node, of->node) == 0)
            count += plan ? m->rank_new < of->rank_new : m->rank < of->rank;
    return count;
}

/* The members of the generation, or of the plan, by rank. */
static const struct core_roster_member *gather(struct core *core, const struct job *job, bool plan,
                                               uint32_t *count)
{
    struct core_roster_member *list = &core->roster[core->roster_used];

    *count = 0;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        uint32_t rank = plan ? m->rank_new : m->rank;
        struct core_roster_member *out;

        if (!(plan ? m->in_plan : m->in_generation))
            continue;
        assert(core->roster_used + rank < 2 * CORE_WORLD_MAX);
        out = &list[rank];
        out->id = m->id;
        out->node = m->node;
        out->host = m->host;
        out->data_address = m->address;
        out->owned = m->owned;
        out->owned_bytes = m->owned_bytes;
        out->rank = rank;
        out->local_rank = local_rank(core, job, m, plan);
        out->pid = m->pid;
        out->applied = m->applied;
        out->frozen = m->froze;
        out->weight = plan ? m->weight_new : m->weight;
        (*count)++;
    }
    core->roster_used += *count;
    return list;
}

static void fill(struct core *core, const struct job *job, struct core_message *message,
                 enum core_mode mode)
{
    bool plan = mode == CORE_PLAN;

    message->generation = plan ? job->plan_number : job->number;
    message->nonce = plan ? job->plan_nonce : job->nonce;
    message->step = job->step;
    message->roster.mode = mode;
    message->roster.key = plan ? job->plan_key : job->key;
    message->roster.members = gather(core, job, plan, &message->roster.members_count);
    message->roster.reason = job->reason;
    message->roster.pause = plan && job->plan_pause;
    message->roster.detect_us = job->last_us[CORE_RECOVERY_DETECT];
    message->roster.push_us = job->last_us[CORE_RECOVERY_PUSH];
    message->roster.rendezvous_us = job->last_us[CORE_RECOVERY_RENDEZVOUS];
}

static const char no_key[] = "a new key for the data plane: the coordinator was restarted";

/* A spare learns who trains, so that it can catch up beside them. Keys are not stored: after a
 * restart the group is formed anew before anybody can join it. */
void generation_view(struct core *core, struct job *job, struct member *spare)
{
    spare->ready = false;
    if (!job->all_entered || job->plan_number != 0)
        return;
    if (!job->key_known) {
        generation_over(core, job, no_key, 0);
        return;
    }
    fill(core, job, core_send(core, spare->conn, CORE_GENERATION, job), CORE_VIEW);
}

/* One that is ready beside this generation already has seen it, and would not hear of it again. */
static void view_to_spares(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->state == MEMBER_WAITING && m->conn != 0) {
            m->ready = m->ready_in == job->number;
            if (!m->ready)
                core_list_add(core, m->conn);
        }
    if (core->conns_used > begin && !job->key_known) {
        generation_over(core, job, no_key, 0);
        return;
    }
    message = core_send_list(core, begin, CORE_GENERATION, job);
    if (message != NULL)
        fill(core, job, message, CORE_VIEW);
}

/* Everybody of the generation has said that it is finished. */
static void finish_if_all(struct core *core, struct job *job)
{
    if (job->state != CORE_JOB_RUNNING)
        return;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation && !m->finished)
            return;
    if (job->pending == PENDING_NONE)
        generation_done(core, job);
}

/* ---- forming -------------------------------------------------------------------------------- */

/* Everybody chosen must still be there: who went or was lost while the store worked makes the
 * choice void. */
static bool chosen_stand(const struct core *core, const struct job *job)
{
    uint32_t chosen = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->chosen && (m->conn == 0 || m->released || m->state == MEMBER_LOST ||
                          m->state == MEMBER_RUNNING))
            return false;
        chosen += m->chosen;
    }
    return chosen == job->pending_world;
}

static void tell_formed(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation)
            core_list_add(core, m->conn);
    message = core_send_list(core, begin, CORE_GENERATION, job);
    assert(message != NULL);
    fill(core, job, message, CORE_FORMED);
}

/* Who was chosen is in; who was not waits; who was lost is forgotten: the new generation fences it
 * off. */
static void enroll(struct core *core, struct job *job)
{
    job->world = 0;
    for (struct member *m = member_first(core, job), *next; m != NULL; m = next) {
        next = member_next(core, m);
        if (m->kind != CORE_WORKER)
            continue;
        if (m->state == MEMBER_LOST) {
            member_free(core, m);
            continue;
        }
        m->in_generation = m->chosen;
        m->in_plan = false;
        m->rank = m->chosen ? m->rank_new : NOBODY;
        m->entered = 0;
        m->recomputed = false;
        m->finished = false;
        m->ready = false;
        m->hash_accused = 0;
        m->accused_us = 0;
        m->froze = m->state == MEMBER_FROZEN;
        if (!m->froze)
            m->owned_bytes = 0;
        m->weight = CORE_WEIGHT_USUAL; /* nobody's speed was asked: heirs took what was lost */
        member_owed(m, m->chosen ? MEMBER_RUNNING : MEMBER_WAITING);
        m->phase = CORE_PHASE_STARTUP;
        m->phase_us = core->now_us;
        job->world += m->chosen;
        m->chosen = false;
    }
}

static void stored_form(struct core *core, struct job *job)
{
    uint64_t *last_us = job->last_us, rendezvous_us;

    if (!chosen_stand(core, job)) {
        job_try(core, job);
        return;
    }
    life_new_world(job, job->pending_world);
    verdict_forget(job);
    enroll(core, job);
    job->number = job->pending_number;
    job->nonce = job->pending_nonce;
    job->key = job->pending_key;
    job->key_known = true;
    job->step = job->pending_step;
    job->plan_number = 0;
    job->all_entered = false;
    rendezvous_us = core->now_us - (job->over_us != 0 ? job->over_us : job->first_us);
    rendezvous_us -= last_us[CORE_RECOVERY_PUSH] < rendezvous_us ? last_us[CORE_RECOVERY_PUSH] : 0;
    last_us[CORE_RECOVERY_RENDEZVOUS] = rendezvous_us;
    last_us[CORE_RECOVERY_CONNECT] = last_us[CORE_RECOVERY_STATE] = 0;
    last_us[CORE_RECOVERY_RECOMPUTE] = 0;
    job_set_state(core, job, CORE_JOB_RUNNING);
    job_reason(core, job, CORE_INFO,
               core_say(core, "generation %llu of %u formed at step %llu%s%s",
                        (unsigned long long)job->number, job->world,
                        (unsigned long long)job->step, job->recovering ? " after: " : "",
                        job->recovering ? job->reason : ""));
    tell_formed(core, job);
}

/* What waited for the store is decided now. */
static void go_on(struct core *core, struct job *job)
{
    job_try(core, job);
    finish_if_all(core, job);
}

/* ---- plans ---------------------------------------------------------------------------------- */

/* The same for a plan, whose members are running or ready to. */
static bool plan_stands(const struct core *core, const struct job *job)
{
    uint32_t chosen = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (m->chosen && (m->conn == 0 || m->released || (m->state == MEMBER_WAITING && !m->ready)))
            return false;
        if (m->in_generation && m->finished)
            return false; /* there is no boundary any more */
        chosen += m->chosen;
    }
    return chosen == job->pending_world && job->state == CORE_JOB_RUNNING && job->all_entered;
}

static void stored_plan(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    if (!plan_stands(core, job)) {
        go_on(core, job);
        return;
    }
    job->plan_number = job->pending_number;
    job->plan_nonce = job->pending_nonce;
    job->plan_key = job->pending_key;
    job->plan_pause = job->pending_pause;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        m->in_plan = m->chosen;
        m->froze = false;
        m->owned_bytes = 0;
        if (m->chosen)
            member_owed(m, MEMBER_RUNNING);
        if (m->in_plan || m->in_generation)
            core_list_add(core, m->conn);
        m->chosen = false;
    }
    message = core_send_list(core, begin, CORE_GENERATION, job);
    assert(message != NULL);
    fill(core, job, message, CORE_PLAN);
    core_log(core, CORE_INFO, job,
             core_say(core, "plan %llu%s: %u member%s from the next boundary on",
                      (unsigned long long)job->plan_number, job->plan_pause ? " (pause)" : "",
                      message->roster.members_count,
                      message->roster.members_count == 1 ? "" : "s"));
}

/* The plan was told, but not to this one, whose connection had broken: it would never say that it
 * holds it, and nobody could enter. Keys are not stored. */
void generation_plan_again(struct core *core, struct job *job, struct member *m)
{
    if (core_id_zero(&job->plan_key)) {
        generation_over(core, job,
                        core_say(core, "plan %llu was stored, but %s was never told",
                                 (unsigned long long)job->plan_number,
                                 core_member_name(core, m)), 0);
        return;
    }
    fill(core, job, core_send(core, m->conn, CORE_GENERATION, job), CORE_PLAN);
}

/* A store that failed is tried again, with what is still there; else something else is decided. */
void generation_retry(struct core *core, struct job *job)
{
    bool stands = job->pending == PENDING_FORM   ? chosen_stand(core, job)
                  : job->pending == PENDING_PLAN ? plan_stands(core, job)
                                                 : true;

    job->retry_us = 0;
    if (stands) {
        job_store(core, job);
        return;
    }
    job->pending = PENDING_NONE;
    go_on(core, job);
}

/* Marks it; those in the list are told together, however many devices a node has. */
static void release(struct core *core, struct member *m)
{
    m->released = true;
    core_list_add(core, m->conn);
}

static void tell_released(struct core *core, struct job *job, uint32_t begin)
{
    struct core_message *message = core_send_list(core, begin, CORE_RELEASED, job);

    if (message != NULL)
        message->released.reason = "nobody needs anything of it any more";
}

/* The job is paused: who wishes to go has nothing to wait for. */
void generation_release_leavers(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->state == MEMBER_FROZEN && m->leaving && !m->released && m->conn != 0)
            release(core, m);
    tell_released(core, job, begin);
}

static uint32_t plan_world(const struct core *core, const struct job *job)
{
    uint32_t world = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        world += m->in_plan;
    return world;
}

/* The recovery is over: everybody trains again. */
static void count_recovery(const struct core *core, struct job *job)
{
    struct core_recovery *recent;

    if (!job->recovering || !job->all_entered)
        return;
    job->recovering = false;
    recent = &job->recent[job->recoveries++ % CORE_RECOVERIES_KEPT];
    recent->ago_ms = core->now_us / 1000;
    recent->generation = job->number;
    memcpy(recent->phase_us, job->last_us, sizeof recent->phase_us);
    core_copy_text(recent->reason, sizeof recent->reason, job->reason);
    for (uint32_t phase = 0; phase < CORE_RECOVERY_COUNT; phase++) {
        struct core_histogram *h = &job->histograms[phase];
        uint32_t i = 0;

        while (i < CORE_BUCKETS && job->last_us[phase] > core_bucket_us[i])
            i++;
        if (i < CORE_BUCKETS)
            h->buckets[i]++;
        h->count++;
        h->sum_us += job->last_us[phase];
    }
}

/* Every member of the plan is in it: the plan is the generation now. */
static void take_plan(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);

    count_recovery(core, job);
    life_new_world(job, plan_world(core, job));
    verdict_forget(job);
    job->world = 0;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        bool left = m->in_generation && !m->in_plan;

        if (m->kind != CORE_WORKER)
            continue;
        if (m->accused_in < job->plan_number)
            m->accused_us = 0; /* by whom may have left; what is missing is missed again, once */
        m->in_generation = m->in_plan;
        m->in_plan = false;
        m->rank = m->in_generation ? m->rank_new : NOBODY;
        m->weight = m->weight_new;
        job->world += m->in_generation;
        if (left && m->conn != 0)
            release(core, m);
    }
    tell_released(core, job, begin);
    job->number = job->plan_number;
    job->nonce = job->plan_nonce;
    job->key = job->plan_key;
    job->key_known = !core_id_zero(&job->plan_key); /* else of a plan from before a restart */
    job->plan_number = 0;
    job->settled_us = core->now_us;
    job_reason(core, job, CORE_INFO,
               core_say(core, "generation %llu of %u by plan%s", (unsigned long long)job->number,
                        job->world, job->plan_pause ? ", paused: too few are left" : ""));
    if (!job->plan_pause) {
        barrier_plan_taken(core, job);
        view_to_spares(core, job);
        finish_if_all(core, job);
        return;
    }
    job->over_us = core->now_us;
    job_set_state(core, job, CORE_JOB_REGROUPING);
    begin = core_list_begin(core);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation && m->leaving && m->conn != 0)
            release(core, m);
    tell_released(core, job, begin);
}

/* ---- ending --------------------------------------------------------------------------------- */

static const struct core_id *gather_lost(struct core *core, const struct job *job,
                                         uint32_t *count)
{
    *count = 0;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->state == MEMBER_LOST && *count < CORE_WORLD_MAX)
            core->lost[(*count)++] = m->id;
    return core->lost;
}

/* The push: generation and plan are over, for everybody, in one action. Needs no storing. */
void generation_over(struct core *core, struct job *job, const char *reason, uint64_t detect_us)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    assert(job->state == CORE_JOB_RUNNING);
    count_recovery(core, job); /* the one before, if its last phase was never told of */
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        m->accused = 0; /* reports end with their generation */
        if (m->kind != CORE_WORKER || m->conn == 0)
            continue;
        if (m->state == MEMBER_RUNNING && (m->in_generation || m->in_plan))
            m->report_us = core->now_us;
        core_list_add(core, m->conn);
    }
    job->weigh_us = 0;
    verdict_forget(job);
    job->over_us = core->now_us;
    job->last_us[CORE_RECOVERY_PUSH] = 0;
    job->last_us[CORE_RECOVERY_DETECT] = detect_us;
    job->recovering = true;
    job_set_state(core, job, CORE_JOB_REGROUPING);
    job_reason(core, job, CORE_WARNING, reason);
    message = core_send_list(core, begin, CORE_OVER, job);
    if (message != NULL) {
        message->generation = job->plan_number != 0 ? job->plan_number : job->number;
        message->nonce = job->plan_number != 0 ? job->plan_nonce : job->nonce;
        message->over.lost = gather_lost(core, job, &message->over.lost_count);
        message->over.reason = job->reason;
    }
    barrier_generation_ended(core, job);
}

static void stored_done(struct core *core, struct job *job)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    count_recovery(core, job);
    job_set_state(core, job, CORE_JOB_DONE);
    job_reason(core, job, CORE_INFO, "done");
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->conn != 0) {
            m->released = true;
            core_list_add(core, m->conn);
        }
    message = core_send_list(core, begin, CORE_DONE, job);
    if (message != NULL) {
        message->done.params_hash = job->hash;
        message->done.text = "";
    }
}

void generation_stored(struct core *core, struct job *job)
{
    enum pending what = job->pending;

    job->pending = PENDING_NONE;
    if (what == PENDING_FORM)
        stored_form(core, job);
    else if (what == PENDING_PLAN)
        stored_plan(core, job);
    else if (what == PENDING_DONE)
        stored_done(core, job);
    else
        go_on(core, job);
}

/* ---- what members say about it -------------------------------------------------------------- */

/* HELLO was checked; what is said later has no reason to be larger than any number can be. */
static void raise_number(struct job *job, uint64_t number)
{
    if (number > job->number_max && number <= CORE_NUMBER_MAX)
        job->number_max = number;
}

void on_report(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    const struct core_report *report = &message->report;

    if (message->generation < m->entered)
        return; /* said again from before it entered: it will report anew */
    raise_number(job, message->generation);
    raise_number(job, report->plan);
    m->applied = message->step;
    if (!m->in_generation && !m->in_plan) {
        m->ready = job->state != CORE_JOB_RUNNING;
        job_try(core, job);
        return;
    }
    if (job->state == CORE_JOB_RUNNING && message->generation < job->number)
        return;
    if (!report->entered && !m->in_generation) {
        m->in_plan = false;
        m->ready = true;
        member_owed(m, MEMBER_WAITING);
    } else {
        m->owned_bytes = report->owned_bytes > CORE_OWNED_BYTES ? CORE_OWNED_BYTES
                                                                : report->owned_bytes;
        if (m->owned_bytes > 0)
            memcpy(m->owned, report->owned, m->owned_bytes);
        member_owed(m, MEMBER_FROZEN);
    }
    if (job->state == CORE_JOB_REGROUPING && job->over_us != 0)
        /* Until the last of them was told and has stopped. */
        job->last_us[CORE_RECOVERY_PUSH] = core->now_us - job->over_us;
    if (job->state == CORE_JOB_RUNNING && !(job->plan_number != 0 && job->plan_pause))
        generation_over(core, job, core_say(core, "%s is frozen", core_member_name(core, m)), 0);
    job_try(core, job);
}

static bool everybody_entered(const struct core *core, const struct job *job, bool plan)
{
    uint64_t number = plan ? job->plan_number : job->number;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if ((plan ? m->in_plan : m->in_generation) && m->entered < number)
            return false;
    return true;
}

static void take_longest(uint64_t *us, uint64_t of_one_us)
{
    if (of_one_us > *us)
        *us = of_one_us;
}

static bool everybody_recomputed(const struct core *core, const struct job *job)
{
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation && !m->recomputed)
            return false;
    return true;
}

/* Of the phases of a recovery the slowest member's counts. */
static void take_phases(struct job *job, struct member *m, const struct core_entered *entered)
{
    if (!job->recovering)
        return;
    take_longest(&job->last_us[CORE_RECOVERY_CONNECT], entered->connect_us);
    take_longest(&job->last_us[CORE_RECOVERY_STATE], entered->state_us);
    take_longest(&job->last_us[CORE_RECOVERY_RECOMPUTE], entered->recompute_us);
    m->recomputed = m->recomputed || entered->recompute_us > 0;
}

/* Said when a member enters, again when what it had to compute anew is there, and perhaps once more
 * after a broken connection. */
void on_entered(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];

    if (message->generation > m->entered)
        m->entered = message->generation;
    (void)barrier_entered(core, m, message->generation);
    m->applied = message->step;
    if (message->entered.recompute_us == 0) {
        m->phase = CORE_PHASE_COMPUTE;
        m->phase_us = core->now_us;
    }
    if (job->state != CORE_JOB_RUNNING)
        return;
    take_phases(job, m, &message->entered);
    if (job->plan_number != 0 && everybody_entered(core, job, true)) {
        take_plan(core, job);
    } else if (!job->all_entered && everybody_entered(core, job, false)) {
        job->all_entered = true;
        job->settled_us = core->now_us;
        view_to_spares(core, job);
    }
    if (everybody_recomputed(core, job))
        count_recovery(core, job);
    job_try(core, job);
}

void on_ready(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];

    m->applied = message->step;
    m->ready_in = message->generation;
    m->ready = m->state == MEMBER_WAITING && message->generation == job->number;
    /* Many may get ready at once: the next tick makes one plan for all of them. */
    if (job->state != CORE_JOB_RUNNING)
        job_try(core, job);
}

void on_finished(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    bool current = m->in_generation && message->generation == job->number;
    /* After a restart some have finished in a plan of which not all have said yet that they entered
     * it. */
    bool planned = m->in_plan && message->generation == job->plan_number;

    if ((!current && !planned) || job->state != CORE_JOB_RUNNING)
        return;
    m->beaten = m->beaten && m->finished;
    m->finished = true;
    m->applied = message->step;
    if (message->step > job->progress_step)
        job->progress_step = message->step; /* the last beat may have told of less */
    job->hash = message->finished.params_hash;
    if (current)
        finish_if_all(core, job);
}

void on_leave(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    uint32_t begin = core_list_begin(core);

    if (!m->leaving)
        core_log(core, CORE_INFO, job,
                 core_say(core, "%s leaves at the next boundary", core_member_name(core, m)));
    m->leaving = true;
    if (message->leave.drain_ms > 0 && m->leave_us == 0) /* said again, it has no more time */
        m->leave_us = core->now_us + (uint64_t)message->leave.drain_ms * 1000;
    if (m->state == MEMBER_WAITING && !m->released) {
        release(core, m);
        tell_released(core, job, begin);
    }
    job_try(core, job);
}
