/* The undisturbed chain is computed here directly, by one loop, from nothing that is under test but
 * the set of present shards. */
#include "sim/toy.h"

#include "sim/panic.h"

void toy_params_first(const struct toy_job *job, uint64_t params[TOY_CELLS_MAX])
{
    for (uint32_t cell = 0; cell < job->cells; cell++) {
        params[cell] = toy_mix(job->seed, 1000 + cell);
    }
}

uint64_t toy_params_hash(const struct toy_job *job, const uint64_t params[TOY_CELLS_MAX])
{
    uint64_t hash = job->cells;
    for (uint32_t cell = 0; cell < job->cells; cell++) {
        hash = toy_mix(hash, params[cell] & TOY_PARAM_MASK);
    }
    return hash;
}

/* The tree over 2^level leaves, bottom up like a binary counter: pending[l] waits for its right
 * sibling. */
uint64_t toy_node(const uint64_t shard_values[PLAN_SHARDS_MAX], const struct plan_mask *present,
                  uint32_t shards, uint32_t level, uint32_t index, uint32_t cell)
{
    uint64_t pending[16];
    bool there[16] = {false};
    uint64_t value = 0;
    bool have = false;
    for (uint32_t leaf = 0; leaf < (1u << level); leaf++) {
        uint32_t shard = (index << level) + leaf;
        have = shard < shards && plan_mask_has(present, shard);
        value = have ? toy_leaf(shard_values[shard], cell) : 0;
        uint32_t at = 0;
        for (uint32_t bits = leaf; (bits & 1u) != 0; bits >>= 1, at++) {
            value = there[at] && have ? toy_add(pending[at], value)
                    : there[at]       ? pending[at]
                                      : value;
            have = have || there[at];
        }
        pending[at] = value;
        there[at] = have;
    }
    SIM_REQUIRE(have);
    return value;
}

void toy_chain(const struct toy_job *job, uint64_t *hashes)
{
    uint64_t params[TOY_CELLS_MAX];
    uint64_t values[PLAN_SHARDS_MAX] = {0};
    uint32_t level = 0;
    while ((1u << level) < job->shape.shards) {
        level++;
    }
    toy_params_first(job, params);
    hashes[0] = toy_params_hash(job, params);
    for (uint64_t step = 0; step < job->steps; step++) {
        struct plan_mask present = plan_present(&job->shape, step);
        for (uint32_t shard = 0; shard < job->shape.shards; shard++) {
            values[shard] = toy_shard(job, step, shard, hashes[step]);
        }
        for (uint32_t cell = 0; cell < job->cells; cell++) {
            uint64_t sum = toy_node(values, &present, job->shape.shards, level, 0, cell);
            params[cell] = toy_update(params[cell], step, sum);
        }
        hashes[step + 1] = toy_params_hash(job, params);
    }
}
