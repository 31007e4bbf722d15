/* Which shard of a step is computed again by others, by whom, and what they say of each other's
 * sums.
 *
 * A partial sum that is wrong cannot be seen in the words of the step: everybody applies the same
 * R. So every N steps (--audit N) one shard is computed by its owner and by two others (one, in a
 * world of two), and the hashes of its gradient go to everybody. In N times S steps every shard
 * comes up once; owners and auditors are drawn anew each time.
 *
 * Pure, and a function of the step and of who owns what: all members come to the same answer. */
#ifndef TRAIN_AUDIT_H
#define TRAIN_AUDIT_H

#include "comm/reduce_plan.h"

#include <stdbool.h>
#include <stdint.h>

#define AUDIT_RANKS_MAX 3
#define AUDIT_NO_SHARD  UINT32_MAX

struct audit {
    uint32_t shard;                 /* AUDIT_NO_SHARD: the step is not audited */
    uint32_t count;                 /* ranks that compute it */
    uint32_t rank[AUDIT_RANKS_MAX]; /* its owner first */
};

/* The shard of an audited step, AUDIT_NO_SHARD if it is none; every = 0: never. Whoever computes it
 * hashes its gradient. */
uint32_t audit_shard(uint32_t every, uint64_t step, uint32_t shards,
                     const struct plan_mask *present);

/* Who computes it. A world of one has nobody to ask: then the step is not audited. */
void audit_draw(struct audit *audit, uint32_t shard, uint64_t step, uint32_t world, uint32_t owner);

bool audit_has(const struct audit *audit, uint32_t rank);

/* Which of the ranks are not with the majority, by place: hash[i] is that of rank[i]. With two of
 * three alike the third is; with none alike all are. Returns how many. */
uint32_t audit_odd(const struct audit *audit, const uint64_t hash[AUDIT_RANKS_MAX],
                   uint32_t odd[AUDIT_RANKS_MAX]);

#endif
