/* A member that trains nothing: for a core alone with a thousand sessions. It enters generations,
 * reports when they are over, and passes named barriers one after another. */
#ifndef SIM_PUPPET_H
#define SIM_PUPPET_H

#include "client/session.h"
#include "core/core.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_PUPPETS_MAX 1000u

struct sim;

struct sim_puppet {
    uint64_t number, nonce;   /* generation it is in, 0 = none */
    uint64_t plan, plan_nonce; /* one that it shall enter */
    bool in_generation;       /* entered and not over */
    bool waits;               /* at a barrier */
    char at[40];              /* the barrier it waits at, or was at last */
    uint32_t barriers;        /* passed */
};

void sim_puppet_birth(struct sim *sim, uint32_t member, struct session_config *config);
void sim_puppet_news(struct sim *sim, uint32_t member, const struct session_delivery *delivery);
void sim_puppet_work(struct sim *sim, uint32_t member);
void sim_puppet_end(struct sim *sim, const struct core_job_view *job);

#endif
