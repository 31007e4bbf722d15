/* The canonical tree once more, by its definition and in the plainest way, and values that betray
 * every other order of additions. */
#ifndef TESTS_UNIT_TRAIN_TREE_H
#define TESTS_UNIT_TRAIN_TREE_H

#include "comm/reduce_plan.h"

uint64_t tree_random(uint64_t *seed);

/* Of any sign and a magnitude between 2^-12 and 2^12; now and then -0.0. */
float tree_value(uint64_t *seed);

/* Sum over the present shards among [first, first + size), size a power of two: left half + right
 * half; a half without a present shard is not there. At least one must be present. */
float tree_sum(const float *values, const struct plan_mask *present, uint32_t first, uint32_t size);

/* The power of two that holds S shards. */
uint32_t tree_size(uint32_t shards);

struct plan_mask tree_prefix(uint32_t count);

/* Some of the shards, never none. */
struct plan_mask tree_some(uint32_t shards, uint64_t *seed);

/* Owners as they are after a start (by plan_balanced) or, half of the time, wildly mixed. */
void tree_owners(uint32_t shards, uint32_t world, uint64_t *seed, uint16_t owner[PLAN_SHARDS_MAX]);

#endif
