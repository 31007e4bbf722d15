/* Stragglers: members that need much longer for a shard than the others. They are named and kept,
 * never put out for it; with --rebalance they get fewer shards. And the plan that spreads the
 * shards anew when that, or a loss, has made it worth while: same members, same bits.
 *
 * The measure is the median of what the generation's members told with their last beats (of two
 * members the faster one). A verdict changes only after a run of beats that all speak against it:
 * at least straggler_steps long, by the numbers of the steps, and straggler_ms. A single pause is
 * no run: what a member tells is the mean of its last few steps. Judged on ticks, so that mail that
 * comes in a heap counts once, and not at all when it was read after a gap, since some of it is
 * old. When so many beats were missed that a member would be suspect, the run begins anew: nobody
 * knows what was in them. */
#include "core/internal.h"

/* ---- the measure ---------------------------------------------------------------------------- */

/* The value that would be at `at` if they were sorted (Hoare's FIND, 1961). */
static uint32_t select_at(uint32_t *values, uint32_t count, uint32_t at)
{
    uint32_t low = 0, high = count - 1;

    while (low < high) {
        uint32_t pivot = values[low + (high - low) / 2], i = low, j = high;

        for (;; i++, j--) {
            while (values[i] < pivot)
                i++;
            while (values[j] > pivot)
                j--;
            if (i >= j)
                break;
            uint32_t value = values[i];
            values[i] = values[j];
            values[j] = value;
        }
        if (at <= j)
            high = j;
        else
            low = j + 1;
    }
    return values[at];
}

/* The lower median; 0 when there are no two to be compared. */
static uint32_t median(const struct core *core, const struct job *job)
{
    uint32_t count = 0;

    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->in_generation && m->shard_us != 0 && count < CORE_WORLD_MAX)
            core->speeds[count++] = m->shard_us;
    return count < 2 ? 0 : select_at(core->speeds, count, (count - 1) / 2);
}

/* ---- the verdict ---------------------------------------------------------------------------- */

static void change_verdict(struct core *core, struct job *job, struct member *m, uint32_t usual_us)
{
    m->straggler = !m->straggler;
    core_log(core, m->straggler ? CORE_WARNING : CORE_INFO, job,
             core_say(core, "%s is %s: %.1f ms a shard, the median is %.1f ms, for %llu steps",
                      core_member_name(core, m),
                      m->straggler ? "a straggler" : "no straggler any more", m->shard_us / 1000.0,
                      usual_us / 1000.0, (unsigned long long)(m->step - m->run_step)));
    m->run_us = 0;
}

/* One beat, at the first tick after it. */
static void judge(struct core *core, struct job *job, struct member *m, uint32_t usual_us)
{
    uint64_t percent = (uint64_t)m->shard_us * 100 / usual_us;
    uint64_t missed_us = (uint64_t)core->times.beat_ms * core->times.suspect_beats * 1000;
    bool against = m->straggler ? percent < 125 : percent > 150;
    bool goes_on = against && m->run_us != 0 && core->now_us <= m->judged_us + missed_us;

    percent = percent < 10000 ? percent : 10000; /* a weight is at least 1 */
    m->pace = m->straggler || goes_on ? (uint32_t)(3 * m->pace + percent) / 4 : (uint32_t)percent;
    m->judged_us = core->now_us;
    if (!goes_on) {
        m->run_us = against ? core->now_us : 0;
        m->run_step = m->step;
    } else if (m->step >= m->run_step + core->times.straggler_steps &&
               core->now_us >= m->run_us + (uint64_t)core->times.straggler_ms * 1000) {
        change_verdict(core, job, m, usual_us);
    }
}

void straggler_tick(struct core *core, struct job *job)
{
    uint32_t usual_us = 0;

    if (job->state != CORE_JOB_RUNNING || !job->paced)
        return;
    job->paced = false;
    usual_us = median(core, job);
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (job->world < 2)
            m->straggler = false; /* there is nobody any more than whom it is slower */
        else if (usual_us != 0 && m->in_generation && m->paced && m->shard_us != 0)
            judge(core, job, m, usual_us);
        m->paced = false;
    }
}

void straggler_beat(struct job *job, struct member *m, const struct core_message *message)
{
    m->shard_us = message->beat.shard_us;
    m->shards = message->beat.shards;
    m->told = message->generation;
    m->paced = true;
    job->paced = true;
}

/* ---- how the shards are spread -------------------------------------------------------------- */

/* Its speed in the next plan. */
uint32_t straggler_weight(const struct core *core, const struct member *m)
{
    return core->times.rebalance && m->straggler && m->pace > 100 ? 10000 / m->pace
                                                                  : CORE_WEIGHT_USUAL;
}

/* Is its share not that of its speed? A straggler's speed counts as another one when it is half as
 * fast again or slow again, and while it perhaps recovers that is waited for. */
static bool off(const struct core *core, const struct member *m)
{
    uint32_t weight = straggler_weight(core, m);

    if (weight == CORE_WEIGHT_USUAL)
        return m->weight != CORE_WEIGHT_USUAL;
    if (m->run_us != 0)
        return false;
    return 3 * weight < 2 * m->weight || 2 * weight > 3 * m->weight;
}

/* A newcomer that will soon be ready brings a plan along anyway; nobody waits for long. */
static bool newcomer_comes(const struct core *core, const struct job *job)
{
    if (job->world >= job->max ||
        core->now_us > job->arrived_us + (uint64_t)core->times.balance_ms * 1000)
        return false;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m))
        if (m->kind == CORE_WORKER && m->state == MEMBER_WAITING && m->conn != 0 && !m->leaving &&
            !cooling_holds(core, job, m))
            return true;
    return false;
}

/* Is a plan due that changes nothing but who owns which shards? After a loss the heirs of the lost
 * shards have more than others; by --rebalance a straggler gets less. Not before everybody has done
 * a step in the generation and told what it owns. */
bool balance_due(const struct core *core, const struct job *job)
{
    uint32_t least = UINT32_MAX, most = 0;
    bool any_off = false, by_speed = false;

    if (core->now_us < job->settled_us + (uint64_t)core->times.settle_ms * 1000 ||
        (job->balanced_us != 0 &&
         core->now_us < job->balanced_us + (uint64_t)core->times.balance_ms * 1000))
        return false;
    for (struct member *m = member_first(core, job); m != NULL; m = member_next(core, m)) {
        if (!m->in_generation)
            continue;
        if (m->told != job->number || m->step <= job->step)
            return false;
        least = m->shards < least ? m->shards : least;
        most = m->shards > most ? m->shards : most;
        any_off |= off(core, m);
        by_speed |= m->weight != CORE_WEIGHT_USUAL;
    }
    return (any_off || (!by_speed && most > least + 1)) && !newcomer_comes(core, job);
}
