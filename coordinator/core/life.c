/* Who lives: ends of connections, leases, stalled members, and what peers say of each other.
 *
 * Leases are judged on ticks only, on the coordinator's own clock. A gap between ticks means that
 * the coordinator itself was stopped: every lease is shifted by it, so that it never accuses its
 * peers of its own absence (reliability.md 4: naive servers did in 3 of 3 pauses). */
#include "core/internal.h"

#define GAP_US (2 * TICK_US + TICK_US / 2)

const char *phase_word(enum core_phase phase)
{
    switch (phase) {
    case CORE_PHASE_COMPUTE:
        return "compute";
    case CORE_PHASE_EXCHANGE:
        return "exchange";
    case CORE_PHASE_EVALUATE:
        return "evaluate";
    case CORE_PHASE_CHECKPOINT:
        return "checkpoint";
    case CORE_PHASE_STARTUP:
        return "startup";
    case CORE_PHASE_FROZEN:
        return "frozen";
    case CORE_PHASE_FINISHED:
        return "finished";
    case CORE_PHASE_WAITING:
    default:
        return "waiting";
    }
}

/* The job is given up: stored, and said to everybody who is here. */
void job_fail(struct core *core, struct job *job, const char *why)
{
    uint32_t begin = core_list_begin(core);
    struct core_message *message;

    job_set_state(core, job, CORE_JOB_FAILED);
    job_reason(core, job, CORE_ERROR, why);
    job->pending = PENDING_NONE; /* what is being stored is void */
    job_store(core, job);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER)
            core_list_add(core, m->conn);
    message = core_send_list(core, begin, CORE_REFUSED, job);
    if (message == NULL)
        return;
    message->refused.why = CORE_REFUSAL_FAILED;
    message->refused.exit_code = 77;
    message->refused.text = core_say(core, "job '%s' has failed: %s", job->name, job->reason);
}

/* A loss that ends a generation, of however many members, is counted once. */
static void spend_budget(struct core *core, struct job *job)
{
    job->losses++;
    if (job->losses > core->times.restart_budget)
        job_fail(core, job,
                 core_say(core, "%u generations ended with a loss and without any progress",
                          job->losses));
}

/* A member is lost: of the generation, a push to all; elsewhere, a smaller matter. */
void member_lost(struct core *core, struct member *m, const char *why, uint64_t detect_us)
{
    struct job *job = &core->jobs[m->job];
    const char *text = core_say(core, "%s is lost: %s", core_member_name(core, m), why);
    bool member = m->in_generation || m->in_plan;

    barrier_leave(core, m);
    member_set_conn(core, m, 0);
    job->waiting_due = true; /* one more is missing */
    if (!member) {
        core_log(core, CORE_INFO, job, text);
        member_free(core, m);
        return;
    }
    m->state = MEMBER_LOST;
    m->suspect = false;
    m->report_us = 0;
    m->probe_us = 0;
    cooling_lost(core, job, m);
    if (job->state == CORE_JOB_RUNNING) {
        generation_over(core, job, text, detect_us);
        spend_budget(core, job);
    } else {
        core_log(core, CORE_WARNING, job, text);
    }
}

static void close_connection(struct core *core, core_conn conn)
{
    struct core_action *close = core_act(core, CORE_ACTION_CLOSE);

    close->conns = &core->conns[core->conns_used];
    close->conn_count = 1;
    core_list_add(core, conn);
}

/* A member that is out although its connection stands: it is told so. */
void member_evict(struct core *core, struct member *m, const char *why, uint64_t detect_us)
{
    struct job *job = &core->jobs[m->job];

    if (m->conn != 0) {
        struct core_message *message = core_send(core, m->conn, CORE_REFUSED, job);

        message->refused.why = CORE_REFUSAL_EVICTED;
        message->refused.exit_code = 75;
        message->refused.text =
            core_say(core, "declared lost: %s; join again as a new member", why);
        close_connection(core, m->conn);
    }
    member_lost(core, m, why, detect_us);
    job_try(core, job);
}

/* One that is silent is told nothing: what is sent now would come after the silence, when perhaps
 * nothing was formed without it (all were silent, because it is we who were cut off), and it may
 * come back. If something was, its re-attachment is refused. */
static void evict_silent(struct core *core, struct member *m, uint64_t silent_us)
{
    struct job *job = &core->jobs[m->job];

    if (m->conn != 0)
        close_connection(core, m->conn);
    member_lost(core, m, core_say(core, "silent for %llu ms", (unsigned long long)silent_us / 1000),
                silent_us);
    job_try(core, job);
}

static void participant_lost(struct core *core, struct member *m)
{
    struct job *job = &core->jobs[m->job];

    job->group_left++;
    member_free(core, m);
    barrier_decide(core, job, CORE_PARTICIPANT);
}

/* The connection ended without a goodbye. */
void member_closed(struct core *core, struct member *m)
{
    struct job *job = &core->jobs[m->job];

    if (m->kind == CORE_PARTICIPANT) {
        if (job->waiting_participants > 0) /* else nobody misses it */
            core_log(core, CORE_WARNING, job,
                     core_say(core, "%s is lost: its connection ended", core_member_name(core, m)));
        participant_lost(core, m);
        return;
    }
    if (m->released || job->state == CORE_JOB_DONE) {
        member_set_conn(core, m, 0);
        member_free(core, m);
    } else {
        member_lost(core, m, "its connection ended", 0);
    }
    job_try(core, job);
}

/* ---- beats ---------------------------------------------------------------------------------- */

/* The usual duration is the median of the last few: one pause of somebody is not usual. */
static void take_time(struct job *job, uint64_t each_us)
{
    uint64_t sorted[STEP_TIMES];
    uint32_t count;

    job->times_us[job->times_taken++ % STEP_TIMES] = each_us;
    count = job->times_taken < STEP_TIMES ? job->times_taken : STEP_TIMES;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = i;

        for (; at > 0 && sorted[at - 1] > job->times_us[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = job->times_us[i];
    }
    job->step_us = sorted[count / 2];
}

/* The group is another one: fewer members take longer. Where the last group got nowhere, what was
 * measured is not to be trusted at all: it may be why. */
void life_new_world(struct job *job, uint32_t world)
{
    uint64_t usual_us = world != 0 && job->world > world ? job->step_us * job->world / world
                                                         : job->step_us;

    if (job->losses > 0 || world == 0)
        usual_us = 0;
    if (usual_us != job->step_us) {
        job->step_us = 0;
        job->times_taken = 0;
        if (usual_us != 0)
            take_time(job, usual_us);
    }
    job->timed = false;
}

/* After an absence of the coordinator mail is read before the next tick, and nobody knows when it
 * came. */
static bool mail_is_old(const struct core *core)
{
    return core->now_us > core->tick_us + GAP_US;
}

/* Only a step that was seen to begin and to end is measured, and none while mail is read that is
 * old. */
static void note_speed(const struct core *core, struct job *job, uint64_t step)
{
    bool old_mail = mail_is_old(core);

    if (job->timed && step <= job->timed_step)
        return;
    if (job->timed && job->timed_us != 0 && !old_mail)
        take_time(job, (core->now_us - job->timed_us) / (step - job->timed_step));
    job->timed_us = job->timed && !old_mail ? core->now_us : 0;
    job->timed_step = step;
    job->timed = true;
}

static void note_progress(struct core *core, struct job *job, uint64_t step)
{
    note_speed(core, job, step);
    if (step <= job->progress_step)
        return;
    job->progress_step = step;
    job->losses = 0;
}

void on_beat(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    uint64_t age_us = message->beat.phase_age_ms * 1000;
    struct core_message *ack = core_send(core, m->conn, CORE_BEAT_ACK, job);

    ack->beat_ack.seq = message->beat.seq;
    m->phase = message->beat.phase;
    m->phase_us = core->now_us > age_us ? core->now_us - age_us : 0;
    m->step = message->step;
    straggler_beat(job, m, message);
    ledger_beat(core, m, message);
    if (m->in_generation && m->rank == 0) {
        job->loss = message->beat.loss;
        job->samples_per_s = message->beat.samples_per_s;
    }
    if (m->in_generation)
        note_progress(core, job, message->step);
}

/* ---- what peers say ------------------------------------------------------------------------- */

/* Has it said so before? Each member counts once. */
static bool says_again(struct member *accuser, const struct member *accused, uint64_t generation,
                       bool hash)
{
    for (uint32_t i = 0; i < ACCUSATIONS; i++) {
        const struct accusation *a = &accuser->said[i];

        if (a->order == accused->order && a->generation == generation && a->hash == hash)
            return true;
    }
    accuser->said[accuser->said_count++ % ACCUSATIONS] =
        (struct accusation){generation, accused->order, hash};
    return false;
}

/* Both ends of a broken data connection still answer: once they get another chance. The next time
 * one of them goes, but whose end is broken, or on which side of a cut more of the group are, the
 * reports of all show, and not the first of them. */
static void judge_pair(struct core *core, struct job *job, struct member *accuser,
                       struct member *accused, const char *text)
{
    if (job->pair_us == 0 ||
        core->now_us > job->pair_us + (uint64_t)core->times.pair_ms * 1000) {
        job->pair_us = core->now_us;
        generation_over(core, job,
                        core_say(core, "no data between %s and %s: %s",
                                 core_member_name(core, accuser), core_member_name(core, accused),
                                 text), 0);
        return;
    }
    accused->accused += !says_again(accuser, accused, job->number, false);
    job->weigh_us = job->weigh_us != 0 ? job->weigh_us : core->now_us;
}

/* All who miss somebody have said so by now. */
static void weigh_reports(struct core *core, struct job *job)
{
    struct member *out = NULL;
    uint64_t detect_us = core->now_us - job->weigh_us;
    uint32_t reports;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->accused > 0 && m->state == MEMBER_RUNNING &&
            (out == NULL || m->accused > out->accused ||
             (m->accused == out->accused && m->rank > out->rank)))
            out = m;
    job->weigh_us = 0;
    job->pair_us = core->now_us;
    if (out == NULL)
        return;
    reports = out->accused;
    member_evict(core, out, core_say(core, "unreachable on the data plane: %u report%s against it",
                                     reports, reports == 1 ? "" : "s"), detect_us);
}

void on_peer_lost(struct core *core, struct member *m, const struct core_message *message)
{
    struct job *job = &core->jobs[m->job];
    struct member *accused = member_by_id(core, &message->peer_lost.member_id);
    bool current = message->generation == job->number ||
                   (job->plan_number != 0 && message->generation == job->plan_number);

    if (accused == NULL || accused == m || accused->job != m->job || !current ||
        job->state != CORE_JOB_RUNNING || (!m->in_generation && !m->in_plan) ||
        (!accused->in_generation && !accused->in_plan) || accused->released)
        return;
    core_log(core, CORE_WARNING, job,
             core_say(core, "%s reports %s: %s", core_member_name(core, m),
                      core_member_name(core, accused), message->peer_lost.text));
    if (message->peer_lost.why == CORE_LOST_HASH) {
        accused->hash_accused += !says_again(m, accused, message->generation, true);
        if (accused->hash_accused * 2 > job->world - 1)
            member_evict(core, accused,
                         core_say(core, "out-voted by the others (corrupt memory?): %s",
                                  message->peer_lost.text), 0);
        return;
    }
    /* A connection that has just ended is seen here too: its closing decides, and names it
     * better. One that is not here (yet, after a restart) may come back and know nothing of it. */
    if (accused->conn == 0 ||
        (message->peer_lost.why == CORE_LOST_CLOSED &&
         (mail_is_old(core) ||
          core->now_us < accused->seen_us + (uint64_t)core->times.beat_ms * 2000))) {
        accused->accused_us = accused->accused_us != 0 ? accused->accused_us : core->now_us;
        if (message->generation > accused->accused_in)
            accused->accused_in = message->generation;
    } else {
        judge_pair(core, job, m, accused, message->peer_lost.text);
    }
}

/* ---- ticks ---------------------------------------------------------------------------------- */

static uint64_t limit_us(const struct core *core, const struct job *job, enum core_phase phase)
{
    uint64_t usual = job->step_us * core->times.stalled_steps;
    uint64_t least = (uint64_t)core->times.stalled_ms * 1000;

    if (phase != CORE_PHASE_COMPUTE)
        return (uint64_t)core->times.startup_ms * 1000;
    /* Until its own steps have been timed, a step may take as long as a start, and longer with each
     * loss that brought nobody any further: perhaps the steps are that long. */
    if (job->step_us == 0)
        return (uint64_t)core->times.startup_ms * 1000 * (1 + job->losses);
    return usual > least ? usual : least;
}

/* Many nodes silent at once is more likely our own network: one more window before the verdict. */
static uint32_t mass_patience(const struct core *core, const struct job *job)
{
    uint64_t limit = (uint64_t)core->times.beat_ms * 1000 * core->times.lost_beats;
    uint32_t nodes = 0, silent = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        bool first = m->in_generation;

        for (struct member *o = member_first(core, job); first && o != m; o = member_next(core, o))
            first = !o->in_generation || strcmp(o->node, m->node) != 0;
        nodes += first;
        silent += first && core->now_us - m->seen_us > limit;
    }
    return nodes >= 6 && silent * 3 > nodes ? core->times.lost_beats : 0;
}

/* What a tick wants to know of a job only when somebody may be silent or stalled. */
struct survey {
    bool taken;
    bool others_wait;  /* somebody waits for sums */
    uint32_t patience; /* more beats that everybody gets this time */
};

static void survey_take(const struct core *core, const struct job *job, struct survey *survey)
{
    uint64_t limit_us = (uint64_t)core->times.beat_ms * 1000 * core->times.lost_beats;
    uint32_t late = 0;
    bool due = false;

    if (survey->taken)
        return;
    survey->taken = true;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        bool is_late = m->kind == CORE_WORKER && core->now_us - m->seen_us > limit_us;

        survey->others_wait |= m->in_generation && (m->phase == CORE_PHASE_EXCHANGE ||
                                                    ledger_waits(core, job, m));
        late += is_late && m->in_generation;
        due |= is_late && m->state != MEMBER_LOST && !m->released;
    }
    if (late > 1 && due) /* else there is nobody to be patient with */
        survey->patience = mass_patience(core, job);
}

/* Does it owe what others wait for, for longer than its phase allows? Who waits itself, whatever it
 * calls its phase, or has finished, owes nothing. */
static bool stalled(const struct core *core, const struct job *job, const struct member *m,
                    struct survey *survey)
{
    bool owes = m->phase == CORE_PHASE_COMPUTE || m->phase == CORE_PHASE_STARTUP ||
                m->phase == CORE_PHASE_EVALUATE || m->phase == CORE_PHASE_CHECKPOINT;

    if (!owes || m->finished || !m->in_generation || m->state != MEMBER_RUNNING ||
        core->now_us <= m->phase_us + limit_us(core, job, m->phase) ||
        ledger_waits(core, job, m) || ledger_waits_at_barrier(core, job, m))
        return false;
    survey_take(core, job, survey);
    return survey->others_wait;
}

static void suspect(struct core *core, struct job *job, struct member *m, uint64_t silent_us)
{
    if (m->suspect)
        return;
    m->suspect = true;
    core_log(core, CORE_WARNING, job,
             core_say(core, "%s is suspect: silent for %llu ms", core_member_name(core, m),
                      (unsigned long long)(silent_us / 1000)));
}

/* How long it may be silent. One without a connection is known from the store or from a roster only
 * (the end of a connection is a loss at once): it also gets the longest pause between two attempts
 * to connect. */
static uint64_t lease_us(const struct core *core, const struct member *m, uint32_t patience)
{
    uint64_t lease_ms =
        (uint64_t)core->times.beat_ms * (core->times.lost_beats + patience) +
        (m->conn == 0 ? core->times.reconnect_ms : 0);

    return lease_ms * 1000;
}

/* One that is known from the store or a roster only, while others wait for it: if it died while the
 * coordinator was away, its address knows it before its lease does. */
static bool missed(const struct job *job, const struct member *m)
{
    return m->conn == 0 && m->state == MEMBER_RUNNING &&
           (m->accused_us != 0 || job->state == CORE_JOB_REGROUPING);
}

static bool silent(const struct core *core, const struct job *job, const struct member *m,
                   struct survey *survey)
{
    uint64_t silent_us = core->now_us - m->seen_us;

    if (silent_us <= lease_us(core, m, 0))
        return false;
    survey_take(core, job, survey);
    return silent_us > lease_us(core, m, survey->patience);
}

/* One member at a tick. */
static void judge_member(struct core *core, struct job *job, struct member *m,
                         struct survey *survey)
{
    uint64_t beat_us = (uint64_t)core->times.beat_ms * 1000;
    uint64_t silent_us = core->now_us - m->seen_us;

    if (m->state == MEMBER_LOST || m->released)
        return;
    if (missed(job, m)) {
        member_probe(core, m);
        if (m->state != MEMBER_RUNNING)
            return;
    }
    if (silent(core, job, m, survey)) {
        evict_silent(core, m, silent_us);
    } else if (m->accused_us != 0 && core->now_us > m->accused_us + 2 * beat_us) {
        uint64_t detect_us = core->now_us - m->accused_us;

        m->accused_us = 0;
        if (job->state == CORE_JOB_RUNNING)
            generation_over(core, job, core_say(core, "a peer lost its data connection to %s",
                                                core_member_name(core, m)), detect_us);
    } else if (m->report_us != 0 && core->now_us > m->report_us +
                                                       (uint64_t)core->times.report_ms * 1000) {
        member_evict(core, m, "it did not report after the generation had ended",
                     core->now_us - m->report_us);
    } else if (m->leave_us != 0 && core->now_us > m->leave_us) {
        member_evict(core, m, "it was to leave and its time is over", 0);
    } else if (stalled(core, job, m, survey)) {
        member_evict(core, m,
                     core_say(core, "stalled: in %s of step %llu for %llu ms, and others wait",
                              phase_word(m->phase), (unsigned long long)m->step,
                              (unsigned long long)(core->now_us - m->phase_us) / 1000),
                     core->now_us - m->phase_us);
    } else if (silent_us > beat_us * core->times.suspect_beats) {
        suspect(core, job, m, silent_us);
    }
}

/* A participant that is silent is no more waited for than one whose connection has ended; if it
 * lives it comes back as itself. */
static void judge_participant(struct core *core, struct job *job, struct member *m)
{
    uint64_t silent_us = core->now_us - m->seen_us;

    if (silent_us <= lease_us(core, m, 0))
        return;
    core_log(core, CORE_WARNING, job,
             core_say(core, "%s is lost: silent for %llu ms", core_member_name(core, m),
                      (unsigned long long)silent_us / 1000));
    if (m->conn != 0)
        close_connection(core, m->conn);
    participant_lost(core, m);
}

static void tick_job(struct core *core, struct job *job)
{
    struct survey survey = {.taken = false};

    for (struct member *m = member_first(core, job), *next; m != NULL; m = next) {
        next = member_next(core, m);
        if (m->kind == CORE_PARTICIPANT)
            judge_participant(core, job, m);
        else
            judge_member(core, job, m, &survey);
        if (core->actions->count + 16 > CORE_ACTIONS_MAX)
            return; /* the rest at the next tick */
    }
    if (job->weigh_us != 0 && core->now_us >= job->weigh_us + (uint64_t)core->times.beat_ms * 2000)
        weigh_reports(core, job);
}

/* Nobody is there and nothing was ever formed: whoever comes next brings his own terms. */
static void forget_terms(struct core *core, struct job *job)
{
    if (job->state != CORE_JOB_FORMING || job->number != 0 || job->pending != PENDING_NONE ||
        member_first(core, job) != NULL)
        return;
    job->used = job->number_max != 0; /* numbers that members remember are not given again */
    job->max = 0;
}

/* Since when something is awaited, the gap left out. What came after the gap, before this tick, is
 * as it is: the shell reads before it judges. */
static uint64_t shifted(const struct core *core, uint64_t since_us, uint64_t gap_us)
{
    return since_us + gap_us < core->now_us ? since_us + gap_us : core->now_us;
}

static void shift(struct core *core, uint64_t gap_us)
{
    for (uint32_t i = 0; i < core->limits.members; i++) {
        struct member *m = &core->members[i];

        if (m->state == MEMBER_FREE)
            continue;
        m->paced = false; /* its speed is not judged by what is old */
        m->seen_us = shifted(core, m->seen_us, gap_us);
        m->phase_us = shifted(core, m->phase_us, gap_us);
        m->barrier_us = shifted(core, m->barrier_us, gap_us);
        if (m->report_us != 0)
            m->report_us = shifted(core, m->report_us, gap_us);
        if (m->accused_us != 0)
            m->accused_us = shifted(core, m->accused_us, gap_us);
        if (m->leave_us != 0)
            m->leave_us += gap_us;
    }
    core_log(core, CORE_WARNING, NULL,
             core_say(core,
                      "the coordinator itself stood still for %llu ms: nobody is accused of it",
                      (unsigned long long)gap_us / 1000));
}

void life_tick(struct core *core)
{
    uint64_t gap_us = core->now_us - core->tick_us;

    core->tick_us = core->now_us;
    if (gap_us > GAP_US)
        shift(core, gap_us - TICK_US);
    for (uint32_t i = 0; i < core->limits.jobs; i++) {
        struct job *job = &core->jobs[i];

        if (!job->used || core->actions->count + 32 > CORE_ACTIONS_MAX)
            continue;
        if (job->retry_us != 0 && core->now_us >= job->retry_us)
            generation_retry(core, job);
        barrier_tick(core, job);
        tick_job(core, job);
        straggler_tick(core, job);
        ledger_tick(core, job);
        job_try(core, job);
        job_tell_waiting(core, job);
        forget_terms(core, job);
    }
}
