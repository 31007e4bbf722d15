/* Deterministic randomness of the simulator: xoshiro256** (Blackman and Vigna, public domain),
 * seeded by splitmix64. One generator per concern, so that a change in one does not shift the
 * others. */
#ifndef SIM_RNG_H
#define SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct sim_rng {
    uint64_t s[4]; /* never all zero */
};

static inline uint64_t sim_splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void sim_rng_init(struct sim_rng *rng, uint64_t seed, uint64_t concern)
{
    uint64_t state = seed ^ (concern * 0xd1342543de82ef95u);
    for (int i = 0; i < 4; i++) {
        rng->s[i] = sim_splitmix(&state);
    }
}

static inline uint64_t sim_rng_next(struct sim_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t x = s[1] * 5;
    uint64_t result = ((x << 7) | (x >> 57)) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = (s[3] << 45) | (s[3] >> 19);
    return result;
}

/* 0 .. bound-1; bound 0 gives 0. The bias of the multiplication is far below what a test could
 * see. */
static inline uint64_t sim_rng_below(struct sim_rng *rng, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)sim_rng_next(rng) * bound) >> 64);
}

/* least .. most */
static inline uint64_t sim_rng_range(struct sim_rng *rng, uint64_t least, uint64_t most)
{
    return least + sim_rng_below(rng, most - least + 1);
}

/* True in `permille` of 1,000 calls. */
static inline bool sim_rng_chance(struct sim_rng *rng, uint32_t permille)
{
    return permille > 0 && sim_rng_below(rng, 1000) < permille;
}

#endif
