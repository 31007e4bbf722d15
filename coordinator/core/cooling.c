/* Nodes that keep failing cool down: while others train, their newcomers wait as spares, visibly.
 *
 * Nobody is kept out of a job that would not run without him: cool-down only holds back joins to a
 * generation that trains, and only when it has members on another node. */
#include "core/internal.h"

/* The node's slot; COOLING_NODES: it has none. */
static uint32_t find(const struct job *job, const char *node)
{
    uint32_t i = 0;

    while (i < COOLING_NODES && (job->cooling[i].losses == 0 ||
                                 strcmp(job->cooling[i].node, node) != 0))
        i++;
    return i;
}

/* The node's slot, else the one that was used longest ago. */
static struct cooling *take(struct job *job, const char *node)
{
    uint32_t found = find(job, node), oldest = 0;

    if (found < COOLING_NODES)
        return &job->cooling[found];
    for (uint32_t i = 1; i < COOLING_NODES; i++)
        if (job->cooling[i].since_us < job->cooling[oldest].since_us)
            oldest = i;
    memset(&job->cooling[oldest], 0, sizeof job->cooling[oldest]);
    core_copy_text(job->cooling[oldest].node, sizeof job->cooling[oldest].node, node);
    return &job->cooling[oldest];
}

void cooling_lost(struct core *core, struct job *job, const struct member *m)
{
    struct cooling *c = take(job, m->node);

    if (c->losses == 0 || core->now_us > c->since_us + (uint64_t)core->times.cooldown_ms * 1000) {
        c->losses = 0;
        c->since_us = core->now_us;
    }
    c->losses++;
    if (c->losses < core->times.cooldown_losses)
        return;
    c->until_us = core->now_us + (uint64_t)core->times.cooldown_ms * 1000;
    core_log(core, CORE_WARNING, job,
             core_say(core,
                      "node %s lost %u members within %u s: its newcomers wait for %u s while "
                      "others train",
                      m->node, c->losses, core->times.cooldown_ms / 1000,
                      core->times.cooldown_ms / 1000));
}

bool cooling_holds(const struct core *core, const struct job *job, const struct member *m)
{
    uint32_t found = find(job, m->node);

    if (found == COOLING_NODES || core->now_us >= job->cooling[found].until_us ||
        job->state != CORE_JOB_RUNNING)
        return false;
    for (struct member *o = member_first(core, job); o != NULL; o = member_next(core, o))
        if (o->in_generation && strcmp(o->node, m->node) != 0)
            return true;
    return false;
}
