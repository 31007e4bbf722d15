#include "unit/train/tree.h"

uint64_t tree_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

float tree_value(uint64_t *seed)
{
    uint64_t r = tree_random(seed);
    float value = (float)(tree_random(seed) % 16777216 + 1) / 16777216.0f;

    if (r % 50 == 0)
        return -0.0f;
    for (uint64_t i = 0; i < r / 64 % 25; i++)
        value *= 2;
    return (r & 1 ? -value : value) / 4096;
}

static bool any(const struct plan_mask *present, uint32_t first, uint32_t size)
{
    for (uint32_t i = first; i < first + size && i < PLAN_SHARDS_MAX; i++)
        if (plan_mask_has(present, i))
            return true;
    return false;
}

float tree_sum(const float *values, const struct plan_mask *present, uint32_t first, uint32_t size)
{
    uint32_t half = size / 2;

    if (size == 1)
        return values[first];
    if (!any(present, first, half))
        return tree_sum(values, present, first + half, half);
    if (!any(present, first + half, half))
        return tree_sum(values, present, first, half);
    return tree_sum(values, present, first, half) + tree_sum(values, present, first + half, half);
}

uint32_t tree_size(uint32_t shards)
{
    uint32_t size = 1;

    while (size < shards)
        size *= 2;
    return size;
}

struct plan_mask tree_prefix(uint32_t count)
{
    struct plan_mask mask = {{0}};

    for (uint32_t i = 0; i < count; i++)
        plan_mask_set(&mask, i);
    return mask;
}

struct plan_mask tree_some(uint32_t shards, uint64_t *seed)
{
    struct plan_mask mask = {{0}};

    plan_mask_set(&mask, (uint32_t)(tree_random(seed) % shards));
    for (uint32_t i = 0; i < shards; i++)
        if (tree_random(seed) % 4 != 0)
            plan_mask_set(&mask, i);
    return mask;
}

void tree_owners(uint32_t shards, uint32_t world, uint64_t *seed, uint16_t owner[PLAN_SHARDS_MAX])
{
    plan_balanced(shards, world, owner);
    if (tree_random(seed) % 2 == 0)
        return;
    for (uint32_t i = 0; i < shards; i++)
        if (tree_random(seed) % 3 == 0)
            owner[i] = (uint16_t)(tree_random(seed) % world);
}
