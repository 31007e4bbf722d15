/* The samples of a shard, gathered from their places into contiguous bytes.
 *
 * Which samples: `real` of them from `first` on, in the order of the epoch (sampler.h). The
 * arithmetic of shards and of the short last batch is comm/reduce_plan.h's alone: first =
 * (step_in_epoch * S + shard) * B, real = plan_shard_real(). */
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include "data/mnist.h"

#include <stdint.h>

/* What names the samples of one shard of one step. */
struct batch_key {
    uint64_t epoch; /* from 0 */
    uint64_t first; /* place in the order of the epoch */
    uint32_t real;  /* samples; first + real <= set->count */
};

/* images: key->real x MNIST_PIXELS, labels: key->real; the caller's. */
void batch_gather(const struct mnist_set *set, uint64_t seed, const struct batch_key *key,
                  uint8_t *images, uint8_t *labels);

#endif
