/* The toy mathematics of a simulated job: numbers that betray every mistake.
 *
 * A cell is 64 bits: the lower half is a parameter, the upper one what the optimizer remembers of
 * it, which hashes and gradients do not see. The value of a shard is a hash of (seed, step, shard,
 * all parameters before the step); a node of the canonical tree is hash(left, right), which neither
 * commutes nor associates; an update is cell' = hash(cell, step, reduced), cell by cell, as an
 * optimizer's is. So a shard that is missed, doubled, added in another order or taken from another
 * step changes everything after it, and a part of the parameters can be copied at one version and
 * brought up to another. */
#ifndef SIM_TOY_H
#define SIM_TOY_H

#include "comm/reduce_plan.h"

#include <stdint.h>

#define TOY_CELLS_MAX  64u /* of all buckets together */
#define TOY_PARAM_BITS 32u
#define TOY_PARAM_MASK ((UINT64_C(1) << TOY_PARAM_BITS) - 1)

struct toy_job {
    uint64_t seed;
    struct plan_shape shape;   /* samples, shards, samples of a shard */
    uint64_t steps;            /* of the job */
    uint32_t cells;            /* of all buckets together */
};

/* Never symmetric: toy_mix(a, b) != toy_mix(b, a). */
static inline uint64_t toy_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a * 0x9e3779b97f4a7c15u + ((b << 23) | (b >> 41)) + 0x632be59bd9b4e019u;
    z = (z ^ (z >> 29)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 32);
}

/* What the gradients of a shard are made of. */
static inline uint64_t toy_shard(const struct toy_job *job, uint64_t step, uint32_t shard,
                                 uint64_t params_hash)
{
    return toy_mix(toy_mix(job->seed, step), toy_mix(shard, params_hash));
}

/* One cell of a shard's gradient. */
static inline uint64_t toy_leaf(uint64_t shard_value, uint32_t cell)
{
    return toy_mix(shard_value, cell);
}

static inline uint64_t toy_add(uint64_t left, uint64_t right)
{
    return toy_mix(left ^ 0xa5a5a5a5a5a5a5a5u, right);
}

static inline uint64_t toy_update(uint64_t cell, uint64_t step, uint64_t reduced)
{
    return toy_mix(toy_mix(cell, step), reduced);
}

void toy_params_first(const struct toy_job *job, uint64_t params[TOY_CELLS_MAX]);
uint64_t toy_params_hash(const struct toy_job *job, const uint64_t params[TOY_CELLS_MAX]);

/* The value of a tree node in one cell: shard_values by shard, only present ones are read. Written
 * without reduce_plan, so that a mistake there is seen. The node must cover a present shard. */
uint64_t toy_node(const uint64_t shard_values[PLAN_SHARDS_MAX], const struct plan_mask *present,
                  uint32_t shards, uint32_t level, uint32_t index, uint32_t cell);

/* The undisturbed run: hashes[k] = parameters after k updates, k = 0 .. steps. */
void toy_chain(const struct toy_job *job, uint64_t *hashes);

#endif
