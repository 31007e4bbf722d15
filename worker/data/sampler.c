#include "data/sampler.h"

#include <assert.h>

#define ROUNDS 8

static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t sampler_index(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i)
{
    uint64_t key = mix(seed + 0x9e3779b97f4a7c15u) ^ mix(epoch + 0xd1b54a32d192ed03u), half_mask;
    unsigned half = 1;

    assert(i < n);
    assert(n <= (uint64_t)1 << 48);
    while ((uint64_t)1 << (2 * half) < n)
        half++;
    half_mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & half_mask;

        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint64_t next = left ^ (mix(right + key + round * 0xa0761d6478bd642fu) & half_mask);

            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
