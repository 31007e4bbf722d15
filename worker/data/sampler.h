/* The order of samples: a keyed permutation of [0, n) for each epoch, evaluated per index in O(1)
 * memory.
 *
 * A balanced Feistel network over the smallest even number of bits that holds n, with cycle walking
 * for what falls outside: J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
 * 2002. Eight rounds; the round function is a 64-bit mixer keyed by (seed, epoch, round). Fewer
 * than four steps of the walk are expected. Not for secrets: it only has to scatter.
 *
 * sample = sampler_index(seed, epoch, n, (step_in_epoch * S + shard) * B + j) */
#ifndef DATA_SAMPLER_H
#define DATA_SAMPLER_H

#include <stdint.h>

/* i < n, 1 <= n <= 2^48. */
uint64_t sampler_index(uint64_t seed, uint64_t epoch, uint64_t n, uint64_t i);

#endif
