#include "train/audit.h"

#include <assert.h>

/* Steele, Lea and Flood's mixer (SplitMix64). */
static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

/* Round by round every shard once: a walk whose stride and beginning differ from round to round. */
uint32_t audit_shard(uint32_t every, uint64_t step, uint32_t shards,
                     const struct plan_mask *present)
{
    uint64_t turn, key;
    uint32_t stride, shard;

    assert(!plan_mask_empty(present));
    if (every == 0 || step % every != 0)
        return AUDIT_NO_SHARD;
    turn = step / every;
    key = mix(turn / shards);
    stride = 1 + (uint32_t)(key % shards);
    while (common_divisor(stride, shards) != 1)
        stride++;
    shard = (uint32_t)((turn % shards * stride + (key >> 32)) % shards);
    while (!plan_mask_has(present, shard))
        shard = (shard + 1) % shards;
    return shard;
}

void audit_draw(struct audit *audit, uint32_t shard, uint64_t step, uint32_t world, uint32_t owner)
{
    uint64_t key = mix(~step);
    uint32_t others = world - 1, one, two;

    *audit = (struct audit){.shard = AUDIT_NO_SHARD};
    if (shard == AUDIT_NO_SHARD || others == 0)
        return;
    audit->shard = shard;
    audit->rank[audit->count++] = owner;
    one = (uint32_t)(key % others);
    audit->rank[audit->count++] = (owner + 1 + one) % world;
    if (others < 2)
        return;
    two = (one + 1 + (uint32_t)((key >> 32) % (others - 1))) % others;
    audit->rank[audit->count++] = (owner + 1 + two) % world;
}

bool audit_has(const struct audit *audit, uint32_t rank)
{
    for (uint32_t i = 0; i < audit->count; i++)
        if (audit->rank[i] == rank)
            return true;
    return false;
}

uint32_t audit_odd(const struct audit *audit, const uint64_t hash[AUDIT_RANKS_MAX],
                   uint32_t odd[AUDIT_RANKS_MAX])
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < audit->count; i++) {
        uint32_t alike = 0;

        for (uint32_t k = 0; k < audit->count; k++)
            alike += hash[k] == hash[i];
        if (alike * 2 <= audit->count)
            odd[found++] = i;
    }
    return found;
}
